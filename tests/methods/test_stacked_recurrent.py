"""Language models side by side: each ends as the reference trainer leaves it, whatever its cell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nasbed.methods import registry
from nasbed.methods.networks.recurrent import LanguageModel, RecurrentCell
from nasbed.methods.networks.stacked_recurrent import LanguageModels
from nasbed.methods.spaces.rnn import RNN
from nasbed.protocols import Architecture, Pipeline, Split, Task
from nasbed.protocols.streams import torch_generator
from nasbed.protocols.training import PIPELINES, fit, fit_stacked, materialise
from nasbed.protocols.training.ingredients import Streams
from nasbed.protocols.training.objectives import CLASSES, TEXT
from nasbed.protocols.training.stacked import Batch

TASK = Task("text:toy", "text", "perplexity", False, (9,), 13, "")
ADAM = replace(PIPELINES["adam"], epochs=3, batch_size=16, learning_rate=0.01)
SGD = replace(PIPELINES["sgd_cosine"], epochs=3, batch_size=16, learning_rate=0.3)
ENAS, DARTS, PLAIN = "rnn[nodes=4;units=6]", "rnn[cell=darts;nodes=3;units=5]", "rnn[nodes=4;units=6;highway=no]"
Member = tuple[Architecture, int]


def split(n: int, seed: int) -> Split:
    """Texts in which a word says something about the next one; n is no multiple of the batch size."""
    rng = np.random.default_rng(seed)
    text = np.cumsum(rng.choice([1, 1, 2, 5], size=(n, TASK.shape[0] + 1)), 1) % 13
    return Split(text[:, :-1].copy(), text[:, 1:].copy())


TRAIN, VALID = split(40, 0), split(21, 1)


def space_of(name: str) -> RNN:
    space = registry.space(name)
    assert isinstance(space, RNN)
    return space


def members(space: RNN, n: int) -> list[Member]:
    """Spread over the space, in no order, two seeds of one of them."""
    rng = np.random.default_rng(3)
    found = [(space.sample(rng), seed) for seed in range(n)]
    return [*found, (found[0][0], 77)]


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference relative to the largest value; NaN anywhere is an error, not a small number."""
    assert torch.isfinite(ours).all()
    assert torch.isfinite(theirs).all()
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def side_by_side(
    space: RNN, chosen: list[Member], pipeline: Pipeline, dtype: torch.dtype = torch.float64
) -> tuple[dict[str, np.ndarray], list[dict[str, torch.Tensor]]]:
    networks = {m: space.build(m[0], TASK) for m in chosen}
    return fit_stacked(networks, TRAIN, {"valid": VALID}, pipeline, objective=TEXT, dtype=dtype)


def worst(name: str, pipeline: Pipeline, dtype: torch.dtype = torch.float64, n: int = 4) -> float:
    """Largest difference of any parameter of any network, stacked against alone; totals are compared here."""
    space = space_of(name)
    chosen = members(space, n)
    totals, states = side_by_side(space, chosen, pipeline, dtype)
    found = 0.0
    for k, (a, seed) in enumerate(chosen):
        network = materialise(space.build(a, TASK), torch_generator(seed, "init", a), dtype=dtype)
        alone = fit(network, TRAIN, {"valid": VALID}, pipeline, streams=Streams(seed, a), objective=TEXT)
        expected = network.state_dict()
        assert list(states[k]) == list(expected)
        found = max(found, *(difference(states[k][part], expected[part]) for part in expected))
        for part in alone:
            assert totals[part][k] == pytest.approx(alone[part], rel=1e-9 if dtype == torch.float64 else 1e-5)
    return found


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [(ENAS, ADAM), (ENAS, SGD), (DARTS, ADAM), (PLAIN, SGD), ("rnn[nodes=1;units=4]", ADAM)],
    ids=["enas-adam", "enas-sgd", "darts", "plain", "one-node"],
)
def test_whole_runs_equal_the_reference(name: str, pipeline: Pipeline) -> None:
    assert worst(name, pipeline) < 1e-9


def test_gradients_are_shortened_one_network_at_a_time() -> None:
    clipped = replace(SGD, clip_norm=0.1)
    assert worst(ENAS, clipped, n=8) < 1e-9
    space = space_of(ENAS)
    (_, (some, *_)), (_, (other, *_)) = (side_by_side(space, members(space, 1), p) for p in (SGD, clipped))
    assert difference(some["decoder.bias"], other["decoder.bias"]) > 1e-3


@pytest.mark.parametrize("ingredients", [{"dropout": 0.3}, {"label_smoothing": 0.1}], ids=str)
def test_ingredients_of_the_pipeline(ingredients: dict[str, float]) -> None:
    assert worst(ENAS, replace(ADAM, **ingredients), n=2) < 1e-9


def test_single_precision_stays_close_for_twenty_steps() -> None:
    assert worst(ENAS, replace(ADAM, epochs=7), torch.float32, n=3) < 1e-5


def test_the_comparison_sees_a_wrong_seed() -> None:
    """The negative control: other initial weights and batches of one cell are far outside the tolerance."""
    space = space_of(ENAS)
    a = space.at(1000)
    _, states = side_by_side(space, [(a, 0), (a, 1)], replace(ADAM, epochs=1))
    assert min(difference(states[0][part], states[1][part]) for part in states[0]) > 1e-3


def test_networks_do_not_touch_each_other() -> None:
    space = space_of(ENAS)
    chosen, once = members(space, 4), replace(ADAM, epochs=1)
    whole = dict(zip(chosen, side_by_side(space, chosen, once)[1], strict=True))
    for part in (chosen[::-1], chosen[2:3]):
        for m, state in zip(part, side_by_side(space, part, once)[1], strict=True):
            assert max(difference(state[name], whole[m][name]) for name in state) < 1e-12


def test_gradients_are_those_of_autograd() -> None:
    space = space_of(ENAS)
    chosen = members(space, 6)
    networks = [
        materialise(space.build(a, TASK), torch_generator(s, "init", a), dtype=torch.float64) for a, s in chosen
    ]
    with torch.no_grad():
        networks[1].decoder.bias[0] = 800  # whose exponential is infinite
    stack = LanguageModels(networks, torch.float64)
    x, y = (torch.from_numpy(t[:35]).view(7, 5, 9) for t in (TRAIN.x, TRAIN.y))
    totals = stack.gradients(x, y, Batch(), TEXT)
    with torch.no_grad():
        before = [stack.state(k) for k in range(len(chosen))]
        stack.parameters[0].sub_(stack.parameters[0].grad)
    for k, network in enumerate(networks):
        loss = TEXT.loss(network(x[k]), y[k])
        loss.backward()
        assert totals[k].item() == pytest.approx(loss.item() * y[k].numel(), rel=1e-12)
        after = stack.state(k)
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(before[k][name] - after[name], parameter.grad, rtol=1e-9, atol=1e-12)


def model(words: int = 5, units: int = 3, highway: bool = True, nodes: int = 2) -> LanguageModel:
    cell = RecurrentCell("tanh", [(0, "relu")] * nodes, [nodes], units, highway=highway)
    return LanguageModel(cell, words, units)


@pytest.mark.parametrize("other", [{"words": 6}, {"units": 4}, {"highway": False}, {"nodes": 3}], ids=str)
def test_other_sizes_are_refused(other: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="equal sizes") as error:
        LanguageModels([model(), model(**other)], torch.float32)
    assert "\n" not in str(error.value)


def test_other_cells_and_other_objectives_are_refused() -> None:
    with pytest.raises(ValueError, match="recurrent cells"):
        LanguageModels([LanguageModel(nn.Identity(), 5, 3)], torch.float32)
    stack, x = LanguageModels([model()], torch.float32), torch.zeros(1, 2, 4, dtype=torch.int64)
    for call in (lambda: stack.gradients(x, x, Batch(), CLASSES), lambda: stack.totals(x[0], x[0], CLASSES)):
        with pytest.raises(ValueError, match="objective"):
            call()
