"""The supernet of DARTS: its sub-networks, its continuous relaxation, and the one-shot estimators on it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from math import comb

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasbed.methods.estimators.one_shot_darts import OneShotDARTS, alpha_flops, mixed
from nasbed.methods.estimators.one_shot_enas import OneShotENAS
from nasbed.methods.estimators.one_shot_path_dropout import OneShotPathDropout, kept_paths
from nasbed.methods.estimators.one_shot_uniform import OneShotUniform
from nasbed.methods.networks.darts_supernet import DARTSSupernet
from nasbed.methods.networks.one_shot import OneShot
from nasbed.methods.networks.sub_networks import BATCH_NORMS, logits
from nasbed.methods.networks.supernet import Paths, supernet
from nasbed.methods.spaces.darts import DARTS
from nasbed.protocols import Architecture, DataView, Proposal, Setting, Split, Task
from nasbed.protocols.streams import generator, torch_generator
from nasbed.protocols.training import PIPELINES, constant_prediction, load, materialise, network_flops, one_thread

TASK = Task("toy", "image", "accuracy", True, (1, 9, 7), 5, "")
SPACES = [
    DARTS(nodes=1, cells=3, channels=2),
    DARTS(ops=("max_pool_3x3", "skip_connect", "dil_conv_3x3"), nodes=2, cells=2, channels=3, stem=1),
    DARTS(ops=("avg_pool_3x3", "sep_conv_5x5"), nodes=1, cells=1, channels=2),
]
SMALL = SPACES[1]
TINY = DARTS(ops=("skip_connect", "sep_conv_3x3"), nodes=2, cells=2, channels=2)
PIPELINE = replace(PIPELINES["adam"], learning_rate=0.02, epochs=1, batch_size=64)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with one_thread():  # threads cost more than they bring at these sizes
        yield


def initial(space: DARTS, dtype: torch.dtype = torch.float64) -> DARTSSupernet:
    return deepcopy(_initial(space.name)).to(dtype)


@cache
def _initial(name: str) -> DARTSSupernet:
    (space,) = (space for space in SPACES if space.name == name)
    network = materialise(supernet(space, TASK), torch_generator(0, "test"), dtype=torch.float64)
    assert isinstance(network, DARTSSupernet)
    with torch.no_grad():  # scales and offsets that would show if they were mixed up
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 1.5, generator=torch_generator(1, "test"))
                norm.bias.uniform_(-1, 1, generator=torch_generator(2, "test"))
    return network


def some(space: DARTS, n: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(n)]


def by_itself(space: DARTS, network: DARTSSupernet, a: Architecture) -> nn.Module:
    built = space.build(a, TASK).to_empty(device="cpu").to(next(network.parameters()).dtype)
    built.load_state_dict(network.weights_of(a))
    return built


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, *TASK.shape, generator=torch_generator(3, "test"), dtype=torch.float64)


def random_paths(network: DARTSSupernet, p: float, seed: int) -> Paths:
    rng = np.random.default_rng(seed)
    return [{op: None for op in network.ops if rng.random() < p} for node in network.incoming for _ in node]


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_a_sub_network_is_the_network_that_the_space_builds(space: DARTS) -> None:
    network = initial(space)
    for a in some(space, 2):
        alone = by_itself(space, network, a)
        for training in (True, False):
            found = network.train(training)(images(), a)
            assert (found - alone.train(training)(images())).abs().max() <= 1e-12
            assert found.std() > 0
        for key, value in alone.state_dict().items():  # the running statistics moved alike
            assert torch.equal(value, network.weights_of(a)[key]), key


def test_sub_networks_agree_in_single_precision() -> None:
    network = initial(SPACES[0], torch.float32)
    (a,) = some(SPACES[0], 1)
    x = images().float()
    assert (network(x, a) - by_itself(SPACES[0], network, a)(x)).abs().max() <= 1e-5


def test_gradients_are_those_of_the_network_by_itself_and_no_others() -> None:
    network = initial(SMALL).train()
    (a,) = some(SMALL, 1)
    alone = by_itself(SMALL, network, a).train()
    network(images(), a).square().sum().backward()
    alone(images()).square().sum().backward()
    grads = {p.data_ptr(): p.grad for p in network.parameters() if p.grad is not None}
    weights = network.weights_of(a)
    for key, parameter in alone.named_parameters():
        assert parameter.grad is not None
        assert (grads.pop(weights[key].data_ptr()) - parameter.grad).abs().max() <= 1e-12, key
    assert not grads


def test_architectures_share_operations_by_edge_and_cell() -> None:
    space = DARTS(ops=("sep_conv_3x3", "dil_conv_3x3"), nodes=2, cells=3, channels=2)
    network = materialise(supernet(space, TASK), torch_generator(0, "test"))
    assert isinstance(network, DARTSSupernet)

    def genotype(second: str) -> dict[str, torch.Tensor]:
        cell = f"[('sep_conv_3x3', 0), ('dil_conv_3x3', 1), {second}]"
        text = f"Genotype(normal={cell}, normal_concat=range(2, 4), reduce={cell}, reduce_concat=range(2, 4))"
        return network.weights_of(space.parse(text))

    mine = genotype("('sep_conv_3x3', 0), ('sep_conv_3x3', 1)")
    yours = genotype("('sep_conv_3x3', 1), ('sep_conv_3x3', 2)")
    for i in range(3):
        node = f"cells.{i}.nodes.0.first.0.1.weight"
        assert mine[node].data_ptr() == yours[node].data_ptr()
        one, two = (f"cells.{i}.nodes.1.{side}.0.1.weight" for side in ("first", "second"))
        assert mine[two].data_ptr() == yours[one].data_ptr()  # the edge from state 1, second there, first here
        assert mine[one].data_ptr() != yours[one].data_ptr()
    places = {mine[f"cells.{i}.nodes.{k}.first.0.1.weight"].data_ptr() for i in range(3) for k in (0, 1)}
    assert len(places) == 6


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_sharp_weights_are_the_architecture_that_is_derived_from_them(space: DARTS) -> None:
    network = initial(space).eval()
    for a in some(space, 1):
        alpha = torch.from_numpy(1e4 * space.alphas(a))
        assert space.derive(alpha.numpy()) == a
        soft = network.mixture(images(), mixed(network.ops, alpha))
        assert (soft - network(images(), a)).abs().max() <= 1e-12


def test_mixed_edges_add_up_all_operations_by_the_softmax() -> None:
    network = initial(SMALL).eval()
    shape = SMALL.alphas(SMALL.at(0)).shape
    alpha = torch.randn(shape, generator=torch_generator(4, "test"), dtype=torch.float64)
    factors = (alpha.exp() / alpha.exp().sum(-1, keepdim=True)).numpy()
    body, before = network.body, [network.body.stem(images())] * 2
    for fits, cell, role in zip(body.fits, body.cells, (0, 1), strict=True):  # one normal cell, one reduction
        states = [fit(value) for fit, value in zip(fits, before, strict=True)]
        for edges in ((0, 1), (2, 3, 4)):
            value = torch.zeros(())
            for source, edge in enumerate(edges):
                for op, factor in zip(SMALL.ops, factors[role, edge, 1:], strict=True):
                    value = value + float(factor) * cell.edges[edge][op](states[source])
            states.append(value)
        before = [before[-1], torch.cat(states[2:], 1)]
    found = network.mixture(images(), mixed(network.ops, alpha))
    assert (found - body.head(before[-1])).abs().max() <= 1e-12


def test_the_gradient_of_the_factors_is_that_of_differences() -> None:
    network = initial(SMALL).eval()
    shape = SMALL.alphas(SMALL.at(0)).shape
    alpha = torch.randn(shape, generator=torch_generator(5, "test"), dtype=torch.float64).requires_grad_()

    def value() -> torch.Tensor:
        return network.mixture(images(), mixed(network.ops, alpha)).square().sum()

    (gradient,) = torch.autograd.grad(value(), [alpha])
    with torch.no_grad():
        for at in ((0, 0, 0), (0, 4, 3), (1, 1, 1), (1, 3, 2)):  # "none" among them, whose factor others lack
            sides = []
            for step in (1e-5, -1e-5):
                alpha[at] += step
                sides.append(value().item())
                alpha[at] -= step
            assert gradient[at].abs() > 1e-8
            assert (sides[0] - sides[1]) / 2e-5 == pytest.approx(gradient[at].item(), rel=1e-4, abs=1e-8)


def test_nodes_that_nothing_enters_are_zero() -> None:
    network = initial(SMALL).eval()
    found = network.mixture(images(), [{}] * 10)
    assert (found - network.body.head[2].bias).abs().max() == 0
    assert torch.equal(network.mixture(images(), [{"none": None}] * 10), found)


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_flops_are_those_that_training_counts(space: DARTS) -> None:
    network = initial(space)
    for a in some(space, 1):
        assert network.flops(a) == network_flops(space.build(a, TASK), TASK)


@pytest.mark.parametrize(("p", "seed"), [(0.15, 0), (0.3, 1), (0.0, 2), (1.0, 3)])
def test_flops_of_any_paths_are_those_computed(p: float, seed: int) -> None:
    network = supernet(DARTS(ops=SMALL.ops, nodes=2, cells=4, channels=2), TASK)
    assert isinstance(network, DARTSSupernet)
    paths = random_paths(network, p, seed)
    x = torch.empty(2, *TASK.shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        out = network.eval().mixture(x, paths)
        forward = counter.get_total_flops()
        out.sum().backward()
    assert network.mixture_flops(paths) == (forward // 2, counter.get_total_flops() // 2)


def test_flops_of_a_reduction_that_skips_the_newer_input_are_those_computed() -> None:
    network = supernet(DARTS(ops=("sep_conv_3x3",), nodes=1, cells=4, channels=2), TASK)
    assert isinstance(network, DARTSSupernet)
    for kept in ((0, 2), (0, 3), (1, 2), (1, 3)):  # one edge in each cell: whole cells get no gradient
        paths: Paths = [{"sep_conv_3x3": None} if edge in kept else {} for edge in range(4)]
        with FlopCounterMode(display=False) as counter:
            network.eval().mixture(torch.empty(2, *TASK.shape, device="meta"), paths).sum().backward()
        assert network.mixture_flops(paths)[1] == counter.get_total_flops() // 2, kept


@pytest.mark.parametrize(
    "space", [*SPACES[1:], DARTS(ops=SMALL.ops, nodes=2, cells=4, channels=2)], ids=lambda s: s.name
)
def test_flops_of_a_step_of_the_factors_are_those_computed(space: DARTS) -> None:
    network = supernet(space, TASK)
    assert isinstance(network, DARTSSupernet)
    alpha = torch.zeros(space.alphas(space.at(0)).shape, requires_grad=True, device="meta")
    with FlopCounterMode(display=False) as counter:
        out = network.eval().mixture(torch.empty(2, *TASK.shape, device="meta"), mixed(network.ops, alpha))
        torch.autograd.grad(out.sum(), [alpha])
    assert counter.get_total_flops() // 2 == alpha_flops(network, mixed(network.ops, alpha.detach()))


def test_all_paths_into_a_node_are_dropped_at_the_rate() -> None:
    network = supernet(SMALL, TASK)
    assert isinstance(network, DARTSSupernet)
    assert [[source for _, source in node] for node in network.incoming] == [[0, 1], [0, 1, 2]] * 2
    assert [edge for node in network.incoming for edge, _ in node] == [*range(2 * (comb(4, 2) - 1))]
    rng, n, r = generator(0, "test"), 3000, 0.3
    empty = np.zeros(4)
    for _ in range(n):
        kept = kept_paths(network.ops, 2 * r, 0.5, "r", rng, network.incoming)
        assert len(kept) == 10
        assert not any("none" in path for path in kept)
        empty += [not any(kept[edge] for edge, _ in node) for node in network.incoming]
    assert (abs(empty / n - r) < 4 * (r * (1 - r) / n) ** 0.5).all()


@pytest.fixture(scope="module")
def setting() -> Setting:
    whole = load("digits_clutter")
    parts = (Split(s.x[:n], s.y[:n]) for s, n in ((whole.train, 192), (whole.valid, 64)))
    return Setting(whole.task, "flops", PIPELINE, lambda a: 0, DataView(whole.task, *parts))


@pytest.mark.parametrize("batch_norm", BATCH_NORMS)
def test_evaluation_leaves_the_weights_as_they_are(batch_norm: str) -> None:
    network = initial(SMALL).train()
    for a in some(SMALL, 3):
        network(images(), a)
    kept = {key: value.clone() for key, value in network.state_dict().items()}
    (a,) = some(SMALL, 1)
    alone = by_itself(SMALL, network, a)
    if batch_norm == "recalibrate":
        for norm in (m for m in alone.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.reset_running_stats()
            norm.momentum = None
        for x in (images(), images(3)):
            alone(x)
    found = logits(network, a, images(), batch_norm, [images(), images(3)])
    assert (found - alone.train(batch_norm == "batch")(images())).abs().max() <= 1e-12
    assert all(torch.equal(value, kept[key]) for key, value in network.state_dict().items())


POLICY = [[1.0], [0.5, 0.5], [0.5, 0.5], [0.8, 0.1, 0.1], [0.5, 0.5], [0.0, 1.0]] * 2
ALL: list[OneShot] = [
    OneShotUniform(calibration_batches=2),
    OneShotENAS(policy=POLICY),
    OneShotPathDropout(),
    OneShotDARTS(),
]


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: e.name)
def test_estimators_work_and_say_what_they_cost(estimator: OneShot, setting: Setting) -> None:
    estimator.fits(setting)
    proposals = [Proposal(a) for a in some(TINY, 3)]
    (cost,) = estimator.prepare(TINY, setting, seed=1)
    first = estimator.estimate(proposals)
    assert all(o.status == "ok" and 0 <= o.score <= 1 for o in first)
    network = estimator.supernet
    assert isinstance(network, DARTSSupernet)
    seen = 64 + 2 * 64 * isinstance(estimator, OneShotUniform)
    assert [o.costs[0].amount for o in first] == [seen * network.flops(p.architecture)[0] for p in proposals]
    everything = network.mixture_flops([dict.fromkeys(network.ops)] * 10)
    least = min(network.flops(TINY.at(0)))
    assert cost.kind == "supernet"
    assert 192 * least < cost.amount <= 192 * everything[1] + 192 * 2 * everything[0]
    assert list(estimator.prepare(TINY, setting, seed=1)) == [cost]
    assert estimator.estimate(proposals[::-1])[::-1] == first


def test_costs_of_training_are_those_of_what_is_computed(setting: Setting) -> None:
    only = DARTS(ops=("sep_conv_3x3",), nodes=1, cells=1, channels=2)
    task, (a,) = setting.task, [only.at(0)]
    both = network_flops(only.build(a, task), task)[1]
    assert OneShotUniform().prepare(only, setting, seed=0)[0].amount == 192 * both
    assert OneShotENAS(samples=2).prepare(only, setting, seed=0)[0].amount == 2 * 192 * both
    (cost,) = OneShotPathDropout(rate=1e-12).prepare(only, setting, seed=0)  # the only architecture has all paths
    assert cost.amount == 192 * both
    estimator = OneShotDARTS()
    (cost,) = estimator.prepare(only, setting, seed=0)
    assert isinstance(estimator.supernet, DARTSSupernet)
    paths = mixed(estimator.supernet.ops, estimator.alpha.detach())
    assert cost.amount == 192 * (both + alpha_flops(estimator.supernet, paths))


def test_factors_are_trained_and_can_be_discretised(setting: Setting) -> None:
    estimator, still = OneShotDARTS(), OneShotDARTS(epochs=0)
    estimator.prepare(TINY, setting, seed=0)
    still.prepare(TINY, setting, seed=0)
    moved = (estimator.alpha - still.alpha).detach().abs()
    assert moved.shape == TINY.alphas(TINY.at(0)).shape
    assert (moved.amax((1, 2)) > 0).all()  # in both kinds of cells
    assert moved.max() < 3 * 3e-4 * 1.5  # three steps of Adam
    (answer,) = estimator.estimate([Proposal(TINY.derive(estimator.alpha.detach().numpy()))])
    assert answer.status == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("cls", [OneShotUniform, OneShotENAS, OneShotPathDropout, OneShotDARTS])
def test_trained_cells_beat_a_constant(cls: type[OneShot], setting: Setting) -> None:
    whole = load("digits_clutter")
    view = DataView(whole.task, Split(whole.train.x[:1024], whole.train.y[:1024]), whole.valid)
    estimator = cls(epochs=10)
    estimator.prepare(DARTS(ops=TINY.ops, nodes=2, cells=2, channels=6), replace(setting, data=view), seed=0)
    answers = estimator.estimate([Proposal(a) for a in some(TINY, 4)])
    assert max(o.score for o in answers) > constant_prediction(view) + 0.15


def test_other_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"darts.*: inputs of task 'toy' are tabular"):
        supernet(TINY, Task("toy", "tabular", "accuracy", True, (5,), 3, ""))
