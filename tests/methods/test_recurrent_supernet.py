"""A supernet of recurrent cells: sub-networks are the space's own networks, what they share, and one-shot scores."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasbed.methods.estimators.one_shot_darts import OneShotDARTS
from nasbed.methods.estimators.one_shot_enas import OneShotENAS
from nasbed.methods.estimators.one_shot_path_dropout import OneShotPathDropout
from nasbed.methods.estimators.one_shot_uniform import OneShotUniform
from nasbed.methods.networks import one_shot
from nasbed.methods.networks.one_shot import Batch, OneShot, Work, fit, path_step
from nasbed.methods.networks.recurrent_supernet import RecurrentSupernet
from nasbed.methods.networks.supernet import supernet
from nasbed.methods.spaces.rnn import RNN
from nasbed.protocols import Architecture, DataView, Pipeline, Proposal, Setting, Split, Task
from nasbed.protocols.streams import torch_generator
from nasbed.protocols.training import PIPELINES, constant_prediction, materialise, measure, network_flops
from nasbed.protocols.training.objectives import TEXT

LENGTH, WORDS = 7, 11
TASK = Task("text:toy", "text", "perplexity", False, (LENGTH,), WORDS, "")
SMALL = RNN(nodes=3, units=6)
SPACES = [
    RNN(nodes=4, units=5),
    RNN(nodes=1, units=3),
    RNN("darts", nodes=3, units=4),
    RNN(nodes=4, units=3, highway=False),
    RNN(nodes=3, units=4, activations=("relu", "identity")),
]
PIPELINE = replace(PIPELINES["text"], learning_rate=0.3, epochs=1, batch_size=16)


def initial(space: RNN, dtype: torch.dtype = torch.float64) -> RecurrentSupernet:
    network = materialise(supernet(space, TASK), torch_generator(0, "test"), dtype=dtype)
    assert isinstance(network, RecurrentSupernet)
    return network


def some(space: RNN, n: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(n)]


def by_itself(space: RNN, network: RecurrentSupernet, a: Architecture) -> nn.Module:
    """The space's own network with its part of the weights, copied."""
    like = network.body.decoder.weight
    built = space.build(a, TASK).to_empty(device="cpu").to(like.dtype)
    built.load_state_dict(network.weights_of(a))
    return built


def words(n: int = 6) -> torch.Tensor:
    return torch.randint(0, WORDS, (n, LENGTH), generator=torch_generator(3, "test"))


@pytest.fixture(scope="module")
def view() -> DataView:
    """Texts that count upwards, one word in ten being another one."""
    rng, parts = np.random.default_rng(0), []
    for n in (64, 30):
        tokens = (np.arange(n * LENGTH + 1) + rng.integers(WORDS)) % WORDS
        noisy = rng.random(len(tokens)) < 0.1
        tokens[noisy] = rng.integers(0, WORDS, noisy.sum())
        parts.append(Split(*(tokens[i : i + n * LENGTH].reshape(n, LENGTH).copy() for i in (0, 1))))
    return DataView(TASK, *parts)


@pytest.fixture
def setting(view: DataView) -> Setting:
    return Setting(TASK, "flops", PIPELINE, lambda a: 0, view)


# --- weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
@pytest.mark.parametrize("training", [True, False])
def test_a_sub_network_is_the_network_that_the_space_builds(space: RNN, training: bool) -> None:
    network = initial(space).train(training)
    for a in some(space, 3):
        alone = by_itself(space, network, a).train(training)
        found = network(words(), a)
        assert found.shape == (6, LENGTH, WORDS)
        assert (found - alone(words())).abs().max() <= 1e-12


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_gradients_are_those_of_the_network_by_itself_and_no_others(space: RNN) -> None:
    network = initial(space)
    for a in some(space, 2):
        network.zero_grad(set_to_none=True)
        alone = by_itself(space, network, a)
        for outputs in (network(words(), a), alone(words())):
            TEXT.loss(outputs, words().roll(1, 1)).backward()
        grads = {p.data_ptr(): p.grad for p in network.parameters() if p.grad is not None}
        assert len(grads) == len([*alone.parameters()])
        for key, parameter in alone.named_parameters():
            there = grads[network.weights_of(a)[key].data_ptr()]
            assert (there - parameter.grad).abs().max() <= 1e-12, key


def matrices(space: RNN, network: RecurrentSupernet, a: Architecture) -> dict[str, int]:
    return {key: value.data_ptr() for key, value in network.weights_of(a).items()}


@settings(max_examples=8, deadline=None)
@given(st.data())
@pytest.mark.parametrize("space", [RNN(nodes=5, units=2), RNN("darts", nodes=4, units=2)], ids=lambda s: s.name)
def test_a_matrix_is_shared_where_a_node_reads_the_same_node_whatever_it_applies(space: RNN, data: Any) -> None:
    """Said by the genes alone: those of what is read alternate with those of activations."""
    network = initial(space)
    a, b = (space.at(data.draw(st.integers(0, space.size - 1))) for _ in "ab")
    mine, yours = matrices(space, network, a), matrices(space, network, b)
    first = int(space.cell == "enas")
    reads = [genes[first::2] for genes in (a.genes, b.genes)]
    for k, (i, j) in enumerate(zip(*reads, strict=True)):
        key = f"cell.nodes.{k}.weight"
        assert (mine[key] == yours[key]) == (i == j)
        assert mine[key] == network.body.cell.nodes[k][i - first].weight.data_ptr()
    for key in ("embedding.weight", "cell.read.weight", "cell.recur.weight", "decoder.weight", "decoder.bias"):
        assert mine[key] == yours[key]
    assert len(set(mine.values())) == len(mine)


def test_only_the_matrices_in_use_matter() -> None:
    space = RNN(nodes=4, units=5)
    network, a = initial(space), space.parse("tanh relu@1 identity@1 sigmoid@3")
    used, before = {(0, 0), (1, 0), (2, 2)}, network(words(), a)
    for k in range(3):
        for j in range(k + 1):
            weight = network.body.cell.nodes[k][j].weight
            with torch.no_grad():
                weight.add_(0.1)
                moved = (network(words(), a) - before).abs().max().item()
                weight.sub_(0.1)
            assert (moved > 1e-6) == ((k, j) in used)


@pytest.mark.parametrize(
    ("space", "pairs"), [(RNN(nodes=4, units=5), 6), (RNN("darts", nodes=3, units=5), 6), (RNN(nodes=1, units=5), 0)]
)
def test_there_is_one_matrix_for_each_pair_of_nodes(space: RNN, pairs: int) -> None:
    count = sum(p.numel() for p in supernet(space, TASK).parameters())
    assert count == WORDS * (2 * 5 + 1) + 10 * 5 * (2 + pairs)


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_flops_are_those_that_training_counts(space: RNN) -> None:
    network = supernet(space, TASK)
    for a in some(space, 1):
        assert network.flops(a) == network_flops(space.build(a, TASK), TASK)
        assert network.flops(a)[0] == space.features(a, TASK)["flops"]
        assert network.flops_per_pass(a) == (0, 0)


def test_tasks_that_are_not_of_text_are_refused() -> None:
    with pytest.raises(ValueError, match=r"allowed: text of the shape \(length,\)"):
        supernet(SMALL, Task("toy", "image", "accuracy", True, (1, 8, 8), 10, ""))


# --- training and scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [OneShotUniform(epochs=2), OneShotENAS(epochs=2, samples=2)])
def test_scores_are_minus_the_perplexity_of_the_networks_by_themselves(
    estimator: OneShot, setting: Setting, view: DataView
) -> None:
    estimator.prepare(SMALL, setting, seed=0)
    network = estimator.supernet
    assert isinstance(network, RecurrentSupernet)
    proposals = [Proposal(a) for a in some(SMALL, 5)]
    answers = estimator.estimate(proposals)
    for a, answer in zip((p.architecture for p in proposals), answers, strict=True):
        alone = by_itself(SMALL, network, a)
        expected = exp(TEXT.loss(alone(torch.from_numpy(view.valid.x)), torch.from_numpy(view.valid.y)).item())
        assert answer.status == "ok"
        assert answer.score == pytest.approx(-expected, rel=1e-5)
        assert answer.score == pytest.approx(-measure(alone, view.valid, TEXT), rel=1e-5)
    assert len({a.score for a in answers}) == 5
    assert estimator.estimate(proposals[::-1])[::-1] == answers


def test_trained_weights_beat_a_constant(setting: Setting, view: DataView) -> None:
    best = []
    for epochs in (0, 12):
        estimator = OneShotUniform(epochs=epochs)
        estimator.prepare(SMALL, setting, seed=0)
        best.append(max(o.score for o in estimator.estimate([Proposal(a) for a in some(SMALL, 6)])))
    assert best[0] < -0.9 * constant_prediction(view)
    assert best[1] > -0.7 * constant_prediction(view)


def test_what_training_and_answers_cost(setting: Setting, view: DataView) -> None:
    """By hand: 2 + 2 matrices of 12 x 6 and the decoder for each word; the first hidden state has no gradient."""
    forward = 2 * LENGTH * (4 * 12 * 6 + WORDS * 6)
    estimator = OneShotUniform(epochs=3)
    (cost,) = estimator.prepare(SMALL, setting, seed=0)
    assert (cost.kind, cost.amount) == ("supernet", 3 * 64 * (3 * forward - 2 * 12 * 6))
    (answer,) = estimator.estimate([Proposal(SMALL.at(5))])
    assert [(c.kind, c.amount) for c in answer.costs] == [("evaluate", 30 * forward)]
    (cost,) = estimator.prepare(SMALL, replace(setting, unit="epochs"), seed=0)
    assert cost.amount == 3
    assert estimator.estimate([Proposal(SMALL.at(5))])[0].costs[0].amount == 30 / 64


def test_passes_of_an_evaluation_are_as_long_as_memory_allows(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, passes = [], []
    for limit in (2**22, 8 * LENGTH * WORDS, 1):
        monkeypatch.setattr(one_shot, "_AT_ONCE", limit)
        estimator = OneShotUniform(epochs=1)
        estimator.prepare(SMALL, setting, seed=0)
        scores.append(estimator.estimate([Proposal(SMALL.at(5))])[0].score)
        passes.append(len(estimator._xs))
    assert passes == [1, 4, 30]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-5)


def steps_of(view: DataView, pipeline: Pipeline) -> tuple[list[float], list[float]]:
    """Of one epoch: the norm of the gradient that each step leaves, and of what the step moves."""
    network, norms, moved = initial(SMALL), [], []
    kept: list[torch.Tensor] = []

    def state() -> torch.Tensor:
        return nn.utils.parameters_to_vector(network.parameters()).detach().clone()

    def step(batch: Batch) -> Work:
        if kept:
            moved.append((state() - kept[-1]).norm().item())
        kept.append(state())
        done = path_step(network, TEXT, [SMALL.at(batch.index)], batch)
        norms.append(sum(p.grad.square().sum().item() for p in network.parameters() if p.grad is not None) ** 0.5)
        return done

    fit(network, Setting(TASK, "flops", pipeline, lambda a: 0, view), 0, 1, step)
    return norms, [*moved, (state() - kept[-1]).norm().item()]


def test_gradients_of_shared_weights_are_clipped_as_the_pipeline_says(view: DataView) -> None:
    plain = replace(PIPELINE, momentum=0.0, nesterov=False, learning_rate=0.5, schedule="constant")
    norms, moved = steps_of(view, replace(plain, clip_norm=0.0))
    assert min(norms) > 0.1
    assert moved == pytest.approx([0.5 * n for n in norms])
    norms, moved = steps_of(view, replace(plain, clip_norm=0.1))
    assert moved == pytest.approx([0.5 * 0.1] * 4, rel=1e-4)
    norms, moved = steps_of(view, replace(plain, clip_norm=100.0))
    assert moved == pytest.approx([0.5 * n for n in norms])


def test_weights_that_are_not_finite_are_a_crash(setting: Setting) -> None:
    estimator = OneShotUniform(epochs=0)
    estimator.prepare(SMALL, setting, seed=0)
    with torch.no_grad():
        estimator.supernet.body.decoder.weight.fill_(float("nan"))
    (answer,) = estimator.estimate([Proposal(SMALL.at(0))])
    assert answer.status == "crashed"
    assert np.isnan(answer.score)
    assert "not finite" in answer.reason


@pytest.mark.parametrize("estimator", [OneShotUniform(fair=True), OneShotPathDropout(), OneShotDARTS()])
def test_training_that_needs_parallel_operations_is_refused(estimator: OneShot, setting: Setting) -> None:
    with pytest.raises(ValueError, match=r"space: rnn|fair: True"):
        estimator.prepare(SMALL, setting, seed=0)


def test_a_policy_of_one_cell_trains_nothing_else(setting: Setting) -> None:
    """Of the genes of a relu chain; matrices off the chain keep their initial values."""
    a = SMALL.parse("relu relu@1 relu@2")
    policy = [[float(v == gene) for v in allowed] for allowed, gene in zip(SMALL.values, a.genes, strict=True)]
    trained, still = OneShotENAS(epochs=1, policy=policy), OneShotENAS(epochs=0)
    for estimator in (trained, still):
        estimator.prepare(SMALL, setting, seed=0)
    pairs = zip(trained.supernet.named_parameters(), still.supernet.parameters(), strict=True)
    same = {key for (key, value), before in pairs if torch.equal(value, before)}
    assert same == {"body.cell.nodes.1.0.weight"}
    assert log(-trained.estimate([Proposal(a)])[0].score) < log(-still.estimate([Proposal(a)])[0].score)
