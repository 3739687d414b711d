"""Perceptrons side by side: each ends as the reference trainer leaves it, dropout and all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nasbed.methods import registry
from nasbed.protocols import Architecture, IndexedSpace, Pipeline, SearchSpace, Split, Task
from nasbed.protocols.streams import integer, torch_generator
from nasbed.protocols.training import PIPELINES, fit, fit_stacked, load, masks, materialise
from nasbed.protocols.training.ingredients import Streams
from nasbed.protocols.training.masks import Masks
from nasbed.protocols.training.objectives import CLASSES, REGRESSION, TEXT, Objective
from nasbed.protocols.training.perceptrons import Perceptrons
from nasbed.protocols.training.stacked import Batch
from nasbed.protocols.training.twister import Twisters

VIEW = load("digits")
SMALL = Split(VIEW.train.x[:140], VIEW.train.y[:140])  # five batches, the last of 12 examples
VALID = Split(VIEW.valid.x[:100], VIEW.valid.y[:100])
ADAM = replace(PIPELINES["adam"], epochs=3)
SGD = replace(PIPELINES["sgd_cosine"], epochs=3)
FCNET, MLP = registry.space("fcnet"), registry.space("mlp")
# Activations in no order, dropout at both places, at one and at none.
MIXED = (
    *("16-relu-0.3/32-tanh-0.0", "16-tanh-0.6/32-tanh-0.3", "16-relu-0.0/32-relu-0.0", "16-relu-0.3/32-tanh-0.6"),
    *("16-tanh-0.0/32-relu-0.3", "16-tanh-0.0/32-tanh-0.0"),
)
Member = tuple[Architecture, int]


def fcnets(texts: Sequence[str] = MIXED, seeds: Sequence[int] = (0, 1)) -> list[Member]:
    return [(FCNET.parse(f"{text}/lr=0.001/const/batch=32"), seed) for text in texts for seed in seeds]


def mlps(*texts: str) -> list[Member]:
    return [(MLP.parse(text), seed) for seed, text in enumerate(texts)]


def made(space: SearchSpace, member: Member, task: Task, dtype: torch.dtype) -> nn.Module:
    a, seed = member
    return materialise(space.build(a, task), torch_generator(seed, "init", a), dtype=dtype)


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference relative to the largest value; NaN anywhere is an error, not a small number."""
    assert torch.isfinite(ours).all()
    assert torch.isfinite(theirs).all()
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def worst(
    space: SearchSpace,
    members: list[Member],
    pipeline: Pipeline,
    dtype: torch.dtype = torch.float64,
    *,
    task: Task = VIEW.task,
    train: Split = SMALL,
    valid: Split = VALID,
    objective: Objective = CLASSES,
    exact: bool = True,
) -> float:
    """Largest difference of any parameter of any network, stacked against alone; totals are compared here."""
    networks = {m: space.build(m[0], task) for m in members}
    totals, states = fit_stacked(networks, train, {"valid": valid}, pipeline, dtype=dtype, objective=objective)
    found = 0.0
    for k, (a, seed) in enumerate(members):
        network, noise = made(space, (a, seed), task, dtype), integer(seed, "network-noise", a)
        streams = Streams(seed, a)
        alone = fit(
            network, train, {"valid": valid}, pipeline, streams=streams, noise_seed=noise, objective=objective
        )  # fmt: skip
        expected = network.state_dict()
        assert list(states[k]) == list(expected)
        found = max(found, *(difference(states[k][name], expected[name]) for name in expected))
        assert set(totals) == set(alone)
        for name in alone if exact else ():
            assert totals[name][k] == pytest.approx(alone[name], rel=1e-9)
    return found


@pytest.mark.parametrize("pipeline", [ADAM, SGD], ids=["adam", "sgd"])
def test_whole_runs_equal_the_reference(pipeline: Pipeline) -> None:
    assert worst(FCNET, fcnets(), pipeline) < 1e-9


def test_torch_s_own_calls_give_the_same_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "bernoulli_compares_uniforms", lambda: False)
    assert worst(FCNET, fcnets(seeds=(0,)), ADAM) < 1e-9


def test_all_activations_and_several_dropout_layers_in_a_row() -> None:
    members = mlps(
        "16-sigmoid/8-elu",
        "16-elu/dropout/dropout/8-sigmoid",
        "16-tanh/dropout/8-relu/dropout/dropout",
        "16-relu/8-tanh/dropout",
    )
    assert worst(MLP, members, ADAM) < 1e-9
    assert worst(MLP, mlps("8-relu/dropout", "8-elu"), SGD) < 1e-9


@pytest.mark.parametrize(
    "ingredients",
    [{"label_smoothing": 0.1}, {"dropout": 0.3}, {"mixup": 0.4, "dropout": 0.2}, {"cutout": 4}],
    ids=str,
)
def test_ingredients_of_the_pipeline(ingredients: dict[str, float]) -> None:
    assert worst(FCNET, fcnets(MIXED[:3], (0,)), replace(ADAM, **ingredients)) < 1e-9


def test_regression() -> None:
    rng = np.random.default_rng(0)
    task = Task("toy", "regression", "mse", False, (5,), None, "")
    x = rng.normal(size=(150, 5)).astype(np.float32)
    y = (x @ rng.normal(size=5) + np.sin(x[:, 0])).astype(np.float32)
    toy = {"task": task, "train": Split(x[:100], y[:100]), "valid": Split(x[100:], y[100:]), "objective": REGRESSION}
    assert worst(FCNET, fcnets(seeds=(0,)), ADAM, **toy) < 1e-9
    assert worst(FCNET, fcnets(seeds=(0,)), ADAM, torch.float32, exact=False, **toy) < 1e-5


@pytest.mark.parametrize("pipeline", [ADAM, SGD], ids=["adam", "sgd"])
def test_single_precision_stays_close_for_twenty_steps(pipeline: Pipeline) -> None:
    assert worst(FCNET, fcnets(seeds=(0,)), replace(pipeline, epochs=4), torch.float32, exact=False) < 1e-5


def test_the_comparison_sees_a_wrong_seed_of_the_noise() -> None:
    """The negative control: the same weights and batches, other masks."""
    [member] = fcnets(MIXED[:1], (0,))
    ours, theirs = (made(FCNET, member, VIEW.task, torch.float64) for _ in range(2))
    x, y = torch.from_numpy(SMALL.x[:32]).double(), torch.from_numpy(SMALL.y[:32])

    def gradient(seed: int) -> torch.Tensor:
        stack = Perceptrons([ours], [seed], torch.float64)
        stack.gradients(x[None], y[None], Batch(), CLASSES)
        assert stack.parameters[0].grad is not None
        return stack.parameters[0].grad

    with torch.random.fork_rng():
        torch.manual_seed(7)
        nn.functional.cross_entropy(theirs(x), y).backward()
    # The last layer is laid out as torch has it, and its bias ends the flat tensor.
    expected = theirs[-1].bias.grad
    assert difference(gradient(7)[-10:], expected) < 1e-12
    assert difference(gradient(8)[-10:], expected) > 1e-3


def test_networks_do_not_touch_each_other() -> None:
    def states(members: list[Member]) -> dict[Member, dict[str, torch.Tensor]]:
        networks = {m: FCNET.build(m[0], VIEW.task) for m in members}
        _, found = fit_stacked(networks, SMALL, {}, replace(ADAM, epochs=1), dtype=torch.float64)
        return dict(zip(members, found, strict=True))

    members = fcnets()
    whole, turned, single = states(members), states(members[::-1]), states(members[3:4])
    for other in (turned, single):
        for m, state in other.items():
            assert max(difference(state[name], whole[m][name]) for name in state) < 1e-12


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 4), nn.ELU(0.5), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
        nn.Sequential(nn.Linear(4, 2), nn.Dropout()),
    ],
    ids=lambda n: "-".join(type(m).__name__ for m in n),
)
def test_what_is_no_perceptron_is_refused(network: nn.Module) -> None:
    with pytest.raises(ValueError, match="stacked training knows linear layers") as error:
        Perceptrons([network], [0], torch.float32)
    assert "\n" not in str(error.value)


def test_other_widths_and_other_objectives_are_refused() -> None:
    networks = [nn.Sequential(nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 3))]
    with pytest.raises(ValueError, match="equal widths"):
        Perceptrons(networks, [0, 1], torch.float32)
    stack = Perceptrons(networks[:1], [0], torch.float32)
    with pytest.raises(ValueError, match="objective"):
        stack.gradients(torch.zeros(1, 3, 4), torch.zeros(1, 3, dtype=torch.int64), Batch(), TEXT)


# --- masks ----------------------------------------------------------------------------------------------------


def test_the_twister_is_torch_s() -> None:
    seeds = [0, 3, 2**32 - 1, 2**40 + 7]
    twisters = Twisters(seeds)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    rng, out = np.random.default_rng(0), np.full((4, 700), -1.0)
    for streams in ([1, 3], [0], [2, 1], [0, 1, 2, 3]) * 3:
        limits, n = rng.random(len(streams)).tolist(), int(rng.integers(1, 700))
        expected = out.copy()
        for k, limit in zip(streams, limits, strict=True):
            numbers = torch.empty(n, dtype=torch.float64).uniform_(generator=generators[k])
            expected[k, :n] = np.where(numbers.numpy() < limit, 1 / limit, 0)
        part = out[:, :n].copy()
        twisters.compare(np.array(streams), limits, part)
        out[:, :n] = part
        assert np.array_equal(out, expected)


def test_a_number_that_equals_the_limit_is_not_below_it() -> None:
    numbers = torch.empty(1000, dtype=torch.float64).uniform_(generator=torch.Generator().manual_seed(9)).numpy()
    for j in (0, 1, 400, 999):
        for limit, expected in ((numbers[j], False), (np.nextafter(numbers[j], 1), True)):
            out = np.zeros((1, 1000), np.float32)
            Twisters([9]).compare(np.zeros(1, np.int64), [float(limit)], out)
            assert (out[0, j] > 0) == expected
            assert np.array_equal(out[0] > 0, numbers < limit)


def test_rates_of_zero_and_one_draw_nothing() -> None:
    drawn = Masks([[[0.0], [0.5]], [[1.0], [0.5]], [[], [0.5]]], [3, 4], [5, 5, 5], torch.float32)
    for batch in (6, 2, 6):
        first, second = drawn.draw(batch)
        assert first is not None
        assert second is not None
        assert first.shape == (3, batch, 3)
        assert [rows.unique().tolist() for rows in first] == [[1.0], [0.0], [1.0]]
        assert set(second.unique().tolist()) == {0.0, 2.0}
        assert torch.equal(second[0], second[1])
        assert torch.equal(second[0], second[2])
    assert Masks([[[], []]], [3, 4], [5], torch.float32).draw(2) == [None, None]


def test_spaces_of_the_tables_can_be_stacked() -> None:
    for space in (FCNET, MLP):
        assert isinstance(space, IndexedSpace)
        for i in range(0, space.size, space.size // 40):
            Perceptrons([made(space, (space.at(i), 0), VIEW.task, torch.float32)], [0], torch.float32)
