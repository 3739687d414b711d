"""One-shot models: how supernets are trained, normalised, scored and charged."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasbed.methods.estimators.one_shot_darts import OneShotDARTS, alpha_flops, mixed
from nasbed.methods.estimators.one_shot_enas import OneShotENAS, draw
from nasbed.methods.estimators.one_shot_path_dropout import OneShotPathDropout, kept_paths
from nasbed.methods.estimators.one_shot_uniform import OneShotUniform, fair_paths
from nasbed.methods.estimators.smash_hypernet import HyperPerceptron, SMASHHypernet
from nasbed.methods.networks.one_shot import Batch, OneShot, fit, path_step
from nasbed.methods.networks.sub_networks import (
    BATCH_NORMS,
    in_batches,
    logits,
    logits_all,
    recalibrated,
    score_all,
    tensors,
)
from nasbed.methods.networks.supernet import NB201Supernet, Supernet, supernet
from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.nb201 import INCOMING, NB201
from nasbed.protocols import DataView, PerformanceEstimator, Proposal, Setting, Split
from nasbed.protocols.streams import generator, torch_generator
from nasbed.protocols.training import PIPELINES, constant_prediction, load, materialise
from nasbed.protocols.training.objectives import CLASSES

OPS = ("none", "skip_connect", "nor_conv_1x1")
CELLS = NB201(ops=OPS, channels=2, cells=(1, 0, 1))
PERCEPTRONS = MLP(hidden=2, widths=(8, 16))
PIPELINE = replace(PIPELINES["adam"], learning_rate=0.02, epochs=2, batch_size=64)


@pytest.fixture(scope="module")
def view() -> DataView:
    whole = load("digits")
    parts = (Split(s.x[:n], s.y[:n]) for s, n in ((whole.train, 256), (whole.valid, 96)))
    return DataView(whole.task, *parts)


@pytest.fixture
def setting(view: DataView) -> Setting:
    return Setting(view.task, "flops", PIPELINE, lambda a: 0, view)


def initial(space: NB201 | MLP, view: DataView, dtype: torch.dtype = torch.float32) -> Any:
    return materialise(supernet(space, view.task), torch_generator(0, "test"), dtype=dtype)


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def same(network: nn.Module, kept: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, kept[key]) for key, value in network.state_dict().items())


ALL = [
    (OneShotUniform(epochs=1), CELLS),
    (OneShotUniform(epochs=1, fair=True, batch_norm="running"), CELLS),
    (OneShotENAS(epochs=1), CELLS),
    (OneShotPathDropout(epochs=1), CELLS),
    (OneShotDARTS(epochs=1), CELLS),
    (OneShotUniform(epochs=1), PERCEPTRONS),
    (SMASHHypernet(epochs=1), PERCEPTRONS),
]


@pytest.mark.parametrize(("estimator", "space"), ALL, ids=lambda v: getattr(v, "name", ""))
def test_scores_depend_on_the_seed_and_on_nothing_asked_before(
    estimator: OneShot, space: NB201 | MLP, setting: Setting
) -> None:
    assert isinstance(estimator, PerformanceEstimator)
    assert estimator.traits.accuracy_scale
    assert estimator.traits.needs_data
    proposals = [Proposal(space.at(i)) for i in (0, space.size - 1, space.size // 3)]
    (cost,) = estimator.prepare(space, setting, seed=1)
    assert cost.kind == "supernet"
    trained = state(estimator.supernet)
    first = estimator.estimate(proposals)
    assert same(estimator.supernet, trained)
    assert [o.proposal for o in first] == proposals
    assert all(o.status == "ok" and 0 <= o.score <= 1 and o.costs[0].kind == "evaluate" for o in first)
    assert list(estimator.prepare(space, setting, seed=1)) == [cost]
    assert same(estimator.supernet, trained)
    assert estimator.estimate(proposals[::-1])[::-1] == first
    estimator.prepare(space, setting, seed=2)
    assert not same(estimator.supernet, trained)


@pytest.mark.parametrize("estimator", [OneShotUniform(epochs=8), SMASHHypernet(epochs=8)], ids=lambda e: e.name)
def test_trained_perceptrons_beat_a_constant(estimator: OneShot, setting: Setting, view: DataView) -> None:
    estimator.prepare(PERCEPTRONS, setting, seed=0)
    (answer,) = estimator.estimate([Proposal(PERCEPTRONS.parse("16-relu"))])
    assert answer.score > constant_prediction(view) + 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        OneShotUniform(epochs=25),
        OneShotUniform(epochs=8, fair=True),
        OneShotENAS(epochs=25),
        OneShotPathDropout(epochs=25),
        OneShotDARTS(epochs=25),
    ],
    ids=lambda e: e.name,
)
def test_trained_convolutions_beat_a_constant(estimator: OneShot, setting: Setting, view: DataView) -> None:
    space = NB201(ops=OPS, channels=4, cells=1)
    estimator.prepare(space, setting, seed=0)
    answers = estimator.estimate([Proposal(space.at(i)) for i in (space.size - 1, space.size // 2, 700)])
    assert max(o.score for o in answers) > constant_prediction(view) + 0.15


def test_what_training_and_answers_cost(view: DataView, setting: Setting) -> None:
    a = PERCEPTRONS.parse("16-relu/8-tanh")
    forward = 2 * (64 * 16 + 16 * 8 + 8 * 10)
    only = MLP(hidden=1, widths=(8,), activations=("relu",), dropout=False)
    both = 3 * 2 * (64 * 8 + 8 * 10) - 2 * 64 * 8
    (cost,) = OneShotUniform(epochs=3).prepare(only, setting, seed=0)
    assert cost.amount == 3 * 256 * both
    estimator = OneShotUniform(epochs=1)
    estimator.prepare(PERCEPTRONS, setting, seed=0)
    assert estimator.estimate([Proposal(a)])[0].costs[0].amount == 96 * forward
    (cost,) = estimator.prepare(PERCEPTRONS, replace(setting, unit="epochs"), seed=0)
    assert cost.amount == 1
    assert estimator.estimate([Proposal(a)])[0].costs[0].amount == 96 / 256
    ticks = count()
    (cost,) = estimator.prepare(PERCEPTRONS, replace(setting, unit="seconds", clock=lambda: float(next(ticks))), seed=0)
    assert cost.amount == 1.0


def test_recalibration_and_extra_paths_are_charged(setting: Setting) -> None:
    estimator = OneShotUniform(epochs=1, fair=True, calibration_batches=3)
    epochs = replace(setting, unit="epochs")
    (cost,) = estimator.prepare(CELLS, epochs, seed=0)
    assert cost.amount == len(OPS)
    assert estimator.estimate([Proposal(CELLS.at(5))])[0].costs[0].amount == (3 * 64 + 96) / 256
    (cost,) = estimator.prepare(CELLS, setting, seed=0)
    network = estimator.supernet
    assert isinstance(network, NB201Supernet)
    fixed = network.mixture_flops([{}] * 6)[1]
    ops = 3 * network.cells * 6 * sum(network.op_flops.values())
    assert cost.amount == 256 * (len(OPS) * fixed + ops)  # each operation once on every edge
    (cost,) = OneShotDARTS(epochs=1).prepare(CELLS, epochs, seed=0)
    assert cost.amount == 2  # a validation batch beside every training batch


def test_momentum_begins_with_the_first_gradient_of_each_weight(view: DataView) -> None:
    pipeline = replace(PIPELINES["+cosine"], epochs=1)
    trained = OneShotUniform(epochs=1)
    space = NB201(ops=("none", "skip_connect", "nor_conv_3x3"), channels=2, cells=(1, 1, 1))
    trained.prepare(space, Setting(view.task, "epochs", pipeline, lambda a: 0, view), seed=0)
    assert all(p.isfinite().all() for p in trained.supernet.parameters())


def test_fair_steps_use_every_operation_once() -> None:
    for step in range(20):
        paths = fair_paths(CELLS, generator(0, "test", step))
        assert all(sorted(column) == [0, 1, 2] for column in zip(*(a.genes for a in paths), strict=True))
    seen = Counter(fair_paths(CELLS, generator(0, "test", step))[0].genes[3] for step in range(900))
    assert all(abs(seen[gene] - 300) < 3 * (900 * 2 / 9) ** 0.5 for gene in (0, 1, 2))


def test_a_policy_is_drawn_as_it_says() -> None:
    policy = [[0.7, 0.2, 0.1], [0, 0, 1], *[[1 / 3] * 3] * 4]
    rng = generator(0, "test")
    drawn = np.array([draw(CELLS, policy, rng).genes for _ in range(2000)])
    for gene, row in enumerate(policy):
        for value, p in enumerate(row):
            assert abs((drawn[:, gene] == value).mean() - p) <= 3.5 * (p * (1 - p) / 2000) ** 0.5


@pytest.mark.parametrize(("ramp_on", "expected"), [("r", 0.5 * 0.6), ("p", None)])
def test_all_paths_into_a_node_are_dropped_with_the_rate(ramp_on: str, expected: float | None) -> None:
    n, rate, progress = 6000, 0.6, 0.5
    rng = generator(0, "test")
    dropped = np.zeros(3)
    for _ in range(n):
        kept = kept_paths(OPS, rate, progress, ramp_on, rng)
        assert not any("none" in edge for edge in kept)
        dropped += [not any(kept[edge] for edge, _ in incoming) for incoming in INCOMING]
    for incoming, times in zip(INCOMING, dropped, strict=True):
        k = 2 * len(incoming)
        r = expected or progress**k * rate
        assert abs(times / n - r) <= 3 * (r * (1 - r) / n) ** 0.5
    assert all(len(edge) == 2 for edge in kept_paths(OPS, rate, 0.0, ramp_on, rng))


def test_dropped_paths_get_no_gradient_and_do_not_move(view: DataView, setting: Setting) -> None:
    network = initial(CELLS, view)
    kept = [{"nor_conv_1x1": None}, {}, {"skip_connect": None}, {"nor_conv_1x1": None}, {}, {"nor_conv_1x1": None}]
    before = state(network)

    def step(batch: Batch) -> Any:
        CLASSES.loss(network.mixture(batch.x, kept), batch.y).backward()
        found = {name for name, p in network.named_parameters() if "edges" in name and p.grad is not None}
        assert {name.split(".")[4] for name in found} == {"0", "3", "5"}
        return path_step(network, CLASSES, [], batch)

    fit(network, replace(setting, pipeline=replace(PIPELINE, weight_decay=0.1)), 0, 1, step)
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.split(".")[4] for key in moved if "edges" in key} == {"0", "3", "5"}


def test_recalibrated_statistics_are_the_means_over_the_batches(view: DataView) -> None:
    network = initial(CELLS, view, torch.float64).eval()
    a = CELLS.at(CELLS.size - 1)  # a convolution on every edge
    inputs = in_batches(tensors(view.train, network)[0], 64)
    seen: dict[str, list[torch.Tensor]] = {"1.0.edges.0": [], "5.0.edges.5": []}
    alone = CELLS.build(a, view.task).to_empty(device="cpu").double().train()
    alone.load_state_dict(network.weights_of(a))
    for key, values in seen.items():
        alone.get_submodule(f"{key}.1").register_forward_hook(lambda m, i, out, v=values: v.append(out.detach()))
    with torch.no_grad():
        for x in inputs:
            alone(x)
    kept = state(network)
    with recalibrated(network, a, inputs):
        for key, values in seen.items():
            stage, cell, _, edge = key.split(".")
            norm = network.get_submodule(f"body.{stage}.{cell}.edges.{edge}.nor_conv_1x1.2")
            mean = torch.stack([v.mean((0, 2, 3)) for v in values]).mean(0)
            variance = torch.stack([v.var((0, 2, 3)) for v in values]).mean(0)
            assert torch.allclose(norm.running_mean, mean, rtol=1e-12, atol=1e-13)
            assert torch.allclose(norm.running_var, variance, rtol=1e-12)
    assert same(network, kept)
    assert all(m.momentum == 0.1 for m in network.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("batch_norm", BATCH_NORMS)
def test_normalisation_is_that_of_the_network_by_itself(view: DataView, batch_norm: str) -> None:
    network = initial(CELLS, view, torch.float64)
    a = CELLS.at(500)
    x, _ = tensors(view.valid, network)
    calibration = in_batches(tensors(view.train, network)[0], 128)
    for _ in range(3):
        network.train()(x, CELLS.at(300))  # other running statistics than the initial ones
    alone = CELLS.build(a, view.task).to_empty(device="cpu").double()
    alone.load_state_dict(network.weights_of(a))
    if batch_norm == "recalibrate":
        for norm in (m for m in alone.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.reset_running_stats()
            norm.momentum = None
        alone.train()
        for part in calibration:
            alone(part)
    kept = state(network)
    found = logits(network, a, x, batch_norm, calibration)
    assert (found - alone.train(batch_norm == "batch")(x)).abs().max() <= 1e-12
    assert same(network, kept)
    assert network.training


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
@pytest.mark.parametrize("cells", [(1, 0, 1), (0, 2, 0)])
def test_shared_evaluation_equals_one_by_one(view: DataView, batch_norm: str, cells: tuple[int, ...]) -> None:
    space = NB201(ops=OPS, channels=2, cells=cells)
    network = initial(space, view, torch.float64)
    x, _ = tensors(Split(view.valid.x[:8], view.valid.y[:8]), network)
    for i in (0, 400, 728):
        network.train()(x, space.at(i))
    kept = state(network)
    architectures = [space.at(i) for i in range(space.size - 1, 0, -7)]  # every operation on every edge
    found = {i: out for members, out in logits_all(network, architectures, x, batch_norm) for i in members}
    assert sorted(found) == [*range(len(architectures))]
    for i in range(0, len(architectures), 4):
        assert (found[i] - logits(network, architectures[i], x, batch_norm)).abs().max() <= 1e-12
    assert same(network, kept)


def test_scores_of_all_are_those_of_the_estimator(setting: Setting, view: DataView) -> None:
    estimator = OneShotENAS(epochs=1)
    estimator.prepare(CELLS, setting, seed=0)
    network = estimator.supernet
    assert isinstance(network, NB201Supernet)
    some = [CELLS.at(i) for i in (0, 3, 100, 101, 500)]
    scores = score_all(network, some, view.valid, objective=CLASSES, batch_norm="batch", batch_size=64)
    assert scores.tolist() == [o.score for o in estimator.estimate([Proposal(a) for a in some])]
    with pytest.raises(ValueError, match="batch_norm: 'recalibrate' shares no work"):
        score_all(network, some, view.valid, objective=CLASSES, batch_norm="recalibrate", batch_size=64)


def test_mixed_operations_are_weighted_by_the_softmax(view: DataView) -> None:
    space = NB201(ops=OPS, channels=2, cells=(1, 0, 0))
    network = initial(space, view, torch.float64).train()
    x, y = (t[:8] for t in tensors(view.valid, network))
    alpha = torch.randn(6, 3, generator=torch_generator(0, "test"), dtype=torch.float64).requires_grad_()

    def loss() -> torch.Tensor:
        return CLASSES.loss(network.mixture(x, mixed(OPS, alpha)), y)

    (gradient,) = torch.autograd.grad(loss(), [alpha])
    with torch.no_grad():
        for at in ((0, 2), (2, 1), (5, 0)):
            values = []
            for step in (1e-5, -1e-5):
                alpha[at] += step
                values.append(loss().item())
                alpha[at] -= step
            assert (values[0] - values[1]) / 2e-5 == pytest.approx(gradient[at].item(), rel=1e-5, abs=1e-9)
        sharp = torch.full((6, 3), -1e4, dtype=torch.float64)
        a = space.at(500)
        sharp[range(6), list(a.genes)] = 1e4
        assert (network.mixture(x, mixed(OPS, sharp)) - network(x, a)).abs().max() <= 1e-12


@pytest.mark.parametrize("cells", [(1, 0, 1), (0, 1, 0)])
def test_flops_of_a_step_of_alpha_are_those_computed(view: DataView, cells: tuple[int, ...]) -> None:
    network = supernet(NB201(channels=2, cells=cells), view.task)
    assert isinstance(network, NB201Supernet)
    alpha = torch.zeros(6, 5, requires_grad=True, device="meta")
    x = torch.empty(2, *view.task.shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(network.mixture(x, mixed(network.ops, alpha)).sum(), [alpha])
    assert counter.get_total_flops() // 2 == alpha_flops(network, mixed(network.ops, alpha.detach()))


def test_alphas_are_trained_on_validation_examples(setting: Setting, view: DataView) -> None:
    first, other = OneShotDARTS(epochs=1), OneShotDARTS(epochs=1)
    first.prepare(CELLS, setting, seed=0)
    flipped = replace(view, valid=Split(view.valid.x[::-1].copy(), view.valid.y))
    other.prepare(CELLS, replace(setting, data=flipped), seed=0)
    assert not torch.equal(first.alpha, other.alpha)
    still = OneShotDARTS(epochs=0)
    still.prepare(CELLS, setting, seed=0)
    assert 0 < (first.alpha - still.alpha).abs().max() < 4 * 3e-4 * 1.5  # four steps of Adam


def test_several_samples_average_their_gradients(view: DataView) -> None:
    network: Supernet = initial(PERCEPTRONS, view, torch.float64)
    x, y = tensors(view.valid, network)
    paths = [PERCEPTRONS.parse("16-relu"), PERCEPTRONS.parse("8-tanh/16-elu")]
    done = path_step(network, CLASSES, paths, Batch(0, 0, 0.0, x, y))
    assert done.examples == 2 * len(x)
    summed = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    (CLASSES.loss(network(x, paths[0]), y) + CLASSES.loss(network(x, paths[1]), y)).backward()
    for a, b in zip(summed, (p.grad for p in network.parameters() if p.grad is not None), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-15)


def test_a_hypernetwork_generates_the_weights(view: DataView) -> None:
    network = materialise(HyperPerceptron(PERCEPTRONS, view.task, 8), torch_generator(0, "test"), dtype=torch.float64)
    assert isinstance(network, HyperPerceptron)
    x, y = tensors(view.valid, network)
    a, b = PERCEPTRONS.parse("16-relu/8-tanh"), PERCEPTRONS.parse("8-relu")
    alone = PERCEPTRONS.build(a, view.task).to_empty(device="cpu").double()
    alone.load_state_dict(network.weights_of(a))
    assert (alone(x) - network(x, a)).abs().max() <= 1e-12
    again = network.weights_of(a)
    assert all(torch.equal(value, again[key]) for key, value in network.weights_of(a).items())
    assert not torch.equal(network.weights_of(b)["1.weight"], again["1.weight"][:8])
    CLASSES.loss(network(x, a), y).backward()
    assert network.hidden.weight.grad is not None
    assert network.hidden.weight.grad.abs().sum() > 0
    weight = network.heads[1].bias  # dL/dW[0, 1] / sqrt(inputs), since W = (head) / sqrt(inputs)
    at = 0 * 17 + 1
    values = []
    with torch.no_grad():
        for step in (1e-5, -1e-5):
            weight[at] += step
            values.append(CLASSES.loss(network(x, a), y).item())
            weight[at] -= step
    assert weight.grad[at].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-10)


def test_flops_of_a_hypernetwork_are_those_computed(view: DataView) -> None:
    network = materialise(HyperPerceptron(PERCEPTRONS, view.task, 8), torch_generator(0, "test"))
    assert isinstance(network, HyperPerceptron)
    a = PERCEPTRONS.parse("16-relu/8-tanh")
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(5, 64), a).sum().backward()
    assert counter.get_total_flops() == 5 * network.flops(a)[1] + network.flops_per_pass(a)[1]


def test_diverged_weights_and_foreign_architectures_are_crashes(setting: Setting) -> None:
    estimator = OneShotUniform(epochs=0)
    estimator.prepare(PERCEPTRONS, setting, seed=0)
    with torch.no_grad():
        estimator.supernet.output.weight.fill_(float("nan"))
    broken, foreign = estimator.estimate([Proposal(PERCEPTRONS.at(0)), Proposal(CELLS.at(0))])
    for answer, reason in ((broken, "not finite"), (foreign, "belongs to the space")):
        assert answer.status == "crashed"
        assert np.isnan(answer.score)
        assert reason in answer.reason
        assert len(answer.costs) == 1


def test_settings_that_do_not_fit_are_refused(setting: Setting) -> None:
    for estimator in (OneShotUniform(), OneShotENAS(), OneShotPathDropout(), OneShotDARTS()):
        with pytest.raises(ValueError, match=rf"estimator: '{estimator.name}' trains a supernet and needs --data"):
            estimator.fits(replace(setting, data=None))
        with pytest.raises(ValueError, match=r"budget: the training of the supernet .* is no number of evaluations"):
            estimator.fits(replace(setting, unit="evaluations"))
        with pytest.raises(ValueError, match=r"pipeline.cutout: 4 is not for supernets"):
            estimator.fits(replace(setting, pipeline=replace(PIPELINE, cutout=4)))
    with pytest.raises(ValueError, match="has no hypernetwork; allowed: mlp"):
        SMASHHypernet().prepare(CELLS, setting, seed=0)
    with pytest.raises(ValueError, match=r"space: mlp needs a hypernetwork of \d+ parameters"):
        SMASHHypernet().prepare(MLP(), setting, seed=0)
    for estimator in (OneShotUniform(fair=True), OneShotPathDropout(), OneShotDARTS()):
        with pytest.raises(ValueError, match="allowed: nb201"):
            estimator.prepare(PERCEPTRONS, setting, seed=0)
    with pytest.raises(ValueError, match=r"policy: mlp.* has no fixed genes to draw"):
        OneShotENAS(policy=[[1.0]]).prepare(PERCEPTRONS, setting, seed=0)
    with pytest.raises(ValueError, match=r"policy: rows of \[1\] probabilities; allowed for nb201"):
        OneShotENAS(policy=[[1.0]]).prepare(CELLS, setting, seed=0)


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (OneShotUniform, "epochs", -1),
        (OneShotUniform, "epochs", True),
        (OneShotUniform, "batch_norm", "eval"),
        (OneShotUniform, "calibration_batches", 0),
        (OneShotUniform, "fair", 1),
        (OneShotENAS, "samples", 0),
        (OneShotENAS, "policy", [[0.5, 0.4]]),
        (OneShotPathDropout, "rate", 1.0),
        (OneShotPathDropout, "ramp_on", "t"),
        (OneShotDARTS, "alpha_learning_rate", 0),
        (OneShotDARTS, "alpha_weight_decay", -1.0),
        (SMASHHypernet, "units", 0),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(cls: type[OneShot], field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: .*") as caught:
        cls(**{field: value})
    assert "\n" not in str(caught.value)
