"""Zero-cost proxies: every formula against another computation, and what they share."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as f

from nasbed.methods import registry
from nasbed.methods.estimators.epe_nas import epe_nas
from nasbed.methods.estimators.fisher import fisher
from nasbed.methods.estimators.grad_norm import grad_norm
from nasbed.methods.estimators.grasp import grasp
from nasbed.methods.estimators.jacob_cov import jacob_cov
from nasbed.methods.estimators.l2 import l2
from nasbed.methods.estimators.naswot import naswot
from nasbed.methods.estimators.ntk import condition_number, linear_regions
from nasbed.methods.estimators.plain import plain
from nasbed.methods.estimators.snip import snip
from nasbed.methods.estimators.synflow import synflow
from nasbed.methods.estimators.zen import zen
from nasbed.methods.networks import zero_cost
from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import Cost, Fidelity, PerformanceEstimator, Proposal, Setting
from nasbed.protocols.streams import generator, torch_generator
from nasbed.protocols.training import PIPELINES, load, materialise, network_flops

VIEW = load("digits")
CELLS = NB201(channels=4, cells=(1, 0, 0))
LIVE = CELLS.parse("|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|")
OTHER = CELLS.parse("|nor_conv_1x1~0|+|skip_connect~0|none~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|")
DEAD = CELLS.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
LAYERS = MLP()
DENSE = LAYERS.parse("16-relu/dropout/8-relu")

LOOKS = ("grad_norm", "snip", "grasp", "fisher", "jacob_cov", "naswot", "plain", "epe_nas", "ntk")
BLIND = ("synflow", "zen", "l2")
COUNTS = ("params", "flops")
N = 8


def setting(unit: str = "evaluations", **changes: object) -> Setting:
    return replace(Setting(VIEW.task, unit, PIPELINES["adam"], lambda a: 0, VIEW), **changes)


def small(name: str, **params: int) -> PerformanceEstimator:
    cls = registry.load("estimators", name)
    return cls(**({"batch_size": N} if name in (*LOOKS, "zen") else {}), **params)


def scores(name: str, architectures: list, space: object = CELLS, seed: int = 0, **params: int) -> list[float]:
    estimator = small(name, **params)
    assert list(estimator.prepare(space, setting(), seed=seed)) == []
    return [o.score for o in estimator.estimate([Proposal(a) for a in architectures])]


class Tiny(nn.Module):
    """A convolution, batch normalisation, ReLU, pooling and a linear layer, in float64."""

    def __init__(self, norm: bool = True, seed: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.out = nn.Linear(3, 4)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.double().parameters():
                p.copy_(torch.randn(p.shape, generator=rng, dtype=torch.float64))
        zero_cost.untrained_mode(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.pool(self.relu(self.norm(self.conv(x)))).flatten(1))


RNG = torch.Generator().manual_seed(5)
X = torch.randn(6, 1, 4, 4, generator=RNG, dtype=torch.float64)
Y = torch.tensor([0, 1, 0, 2, 1, 0])
E = torch.randn(6, 1, 4, 4, generator=RNG, dtype=torch.float64)

FORMULAS = {
    "grad_norm": lambda net: grad_norm(net, X, Y),
    "snip": lambda net: snip(net, X, Y),
    "plain": lambda net: plain(net, X, Y),
    "grasp": lambda net: grasp(net, X, Y),
    "fisher": lambda net: fisher(net, X, Y),
    "synflow": lambda net: synflow(net, X[:1]),
    "jacob_cov": lambda net: jacob_cov(net, X),
    "epe_nas": lambda net: epe_nas(net, X, Y, 4),
    "naswot": lambda net: naswot(net, X),
    "zen": lambda net: zen(net, X, E),
    "l2": l2,
    "condition_number": lambda net: condition_number(net, X),
    "linear_regions": lambda net: linear_regions(net, X),
}


def by_difference(net: nn.Module, value, parameter: torch.Tensor, h: float = 1e-6) -> torch.Tensor:
    """Gradient of value(net) by central differences, one entry of the parameter after the other."""
    flat, found = parameter.data.view(-1), torch.zeros(parameter.numel(), dtype=torch.float64)
    for i in range(len(flat)):
        kept = flat[i].item()
        ends = []
        for step in (h, -h):
            flat[i] = kept + step
            with torch.no_grad():
                ends.append(float(value(net)))
        flat[i] = kept
        found[i] = (ends[0] - ends[1]) / (2 * h)
    return found.view_as(parameter)


def loss(net: nn.Module) -> torch.Tensor:
    return f.cross_entropy(net(X), Y)


def test_gradients_by_finite_differences() -> None:
    net = Tiny()
    numeric = [(m.weight.detach(), by_difference(net, loss, m.weight)) for m in (net.conv, net.out)]
    close = {"rel": 1e-6}
    assert float(grad_norm(net, X, Y)) == pytest.approx(
        sum(float(g.square().sum().sqrt()) for _, g in numeric), **close
    )
    assert float(snip(net, X, Y)) == pytest.approx(sum(float((w * g).abs().sum()) for w, g in numeric), **close)
    assert float(plain(net, X, Y)) == pytest.approx(sum(float((w * g).sum()) for w, g in numeric), **close)


def test_grasp_is_minus_theta_times_hessian_times_gradient() -> None:
    net = Tiny()
    weights = [net.conv.weight, net.out.weight]

    def of(*values: torch.Tensor) -> torch.Tensor:
        return f.cross_entropy(
            torch.func.functional_call(net, dict(zip(("conv.weight", "out.weight"), values, strict=True)), (X,)), Y
        )

    start = tuple(w.detach() for w in weights)
    hessian = torch.autograd.functional.hessian(of, start)
    g = torch.autograd.functional.jacobian(of, start)
    sizes = [w.numel() for w in weights]
    h = torch.cat([torch.cat([hessian[i][j].reshape(sizes[i], sizes[j]) for j in range(2)], 1) for i in range(2)])
    theta, g = torch.cat([w.flatten() for w in start]), torch.cat([v.flatten() for v in g])
    assert float(grasp(net, X, Y)) == pytest.approx(-float(theta @ h @ g), rel=1e-9)


def test_grasp_by_finite_difference_of_the_gradient_along_itself() -> None:
    net, step = Tiny(), 1e-6
    pairs = zero_cost.gradients(net, X, Y)
    start = [w.detach().clone() for w, _ in pairs]
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            for (w, g), w0 in zip(pairs, start, strict=True):
                w.copy_(w0 + sign * step * g)
        ends.append([g for _, g in zero_cost.gradients(net, X, Y)])
    with torch.no_grad():
        for (w, _), w0 in zip(pairs, start, strict=True):
            w.copy_(w0)
    along = [(a - b) / (2 * step) for a, b in zip(*ends, strict=True)]
    assert float(grasp(net, X, Y)) == pytest.approx(
        -sum(float((w * h).sum()) for w, h in zip(start, along, strict=True)), rel=1e-5
    )


def test_fisher_by_adding_to_the_activations() -> None:
    net, h = Tiny(norm=False), 1e-6

    def of_conv(a: torch.Tensor) -> torch.Tensor:
        return f.cross_entropy(net.out(net.pool(net.relu(a)).flatten(1)), Y)

    def of_out(a: torch.Tensor) -> torch.Tensor:
        return f.cross_entropy(a, Y)

    total = 0.0
    with torch.no_grad():
        for a, of in ((net.conv(X), of_conv), (net(X), of_out)):
            for c in range(a.shape[1]):
                squares = []
                for n in range(len(a)):
                    # sum_hw a * dL/da is the derivative with respect to a factor on the channel.
                    up, down = a.clone(), a.clone()
                    up[n, c] *= 1 + h
                    down[n, c] *= 1 - h
                    squares.append(float((of(up) - of(down)) / (2 * h)) ** 2)
                total += sum(squares) / len(squares) / 2
    assert float(fisher(net, X, Y)) == pytest.approx(total, rel=1e-6)


def test_synflow_by_hand() -> None:
    net = Tiny()
    positive = Tiny(norm=False)
    with torch.no_grad():
        for mine, theirs in ((positive.conv, net.conv), (positive.out, net.out)):
            mine.weight.copy_(theirs.weight.abs())
            mine.bias.copy_(theirs.bias.abs())
    ones = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    total = 0.0
    for m in (positive.conv, positive.out):
        total += float((m.weight.detach() * by_difference(positive, lambda n: n(ones).sum(), m.weight)).abs().sum())
    assert float(synflow(net, ones)) == pytest.approx(total, rel=1e-7)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False), nn.Linear(3, 2, bias=False)).double()
    product = float((linear[2].weight.abs() @ linear[1].weight.abs()).sum().detach())
    assert float(synflow(linear, ones)) == pytest.approx(2 * product)  # once for each layer


def test_jacobian_scores_against_numpy() -> None:
    net = Tiny()
    rows = []
    for i in range(len(X)):
        x = X.clone()
        flat, row = x[i].view(-1), []
        for k in range(16):
            kept = flat[k].item()
            ends = []
            for step in (1e-6, -1e-6):
                flat[k] = kept + step
                ends.append(float(net(x).sum().detach()))
            flat[k] = kept
            row.append((ends[0] - ends[1]) / 2e-6)
        rows.append(row)
    j = np.array(rows)
    np.testing.assert_allclose(zero_cost.jacobian(net, X).numpy(), j, rtol=1e-5, atol=1e-7)
    j = zero_cost.jacobian(net, X).numpy()
    v = np.linalg.eigvalsh(np.corrcoef(j)) + 1e-5
    # A network with batch normalisation has an eigenvalue near 0 here, of which 1 / (v + k) keeps few digits.
    assert float(jacob_cov(net, X)) == pytest.approx(-np.sum(np.log(v) + 1 / v), rel=1e-6)
    by_class = {}
    for c in (0, 1, 2):
        by_class[c] = np.sum(np.log(np.abs(np.corrcoef(j[Y.numpy() == c])) + 1e-5))
    assert float(epe_nas(net, X, Y, 4)) == pytest.approx(sum(abs(s) for s in by_class.values()))
    mean = [s / np.count_nonzero(c == Y.numpy()) for c, s in by_class.items()]
    assert float(epe_nas(net, X, Y, 101)) == pytest.approx(sum(abs(s - t) for s in mean for t in mean) / 3)


def test_naswot_and_linear_regions_by_loops() -> None:
    net = Tiny()
    codes = (net.norm(net.conv(X)).flatten(1) > 0).numpy()
    n, units = codes.shape
    k = np.array([[units - np.sum(codes[i] != codes[j]) for j in range(n)] for i in range(n)], float)
    agreement = zero_cost.relu_agreement(net, X).numpy()
    np.testing.assert_array_equal(agreement, k)
    np.testing.assert_array_equal(agreement, agreement.T)
    assert set(agreement.diagonal()) == {units}
    assert float(naswot(net, X)) == pytest.approx(np.linalg.slogdet(k)[1])
    assert int(linear_regions(net, X)) == len({c.tobytes() for c in codes}) == n
    twice = torch.cat([X[:4], X[1:3]])
    net = Tiny(norm=False)  # so that equal examples have equal codes
    assert int(linear_regions(net, twice)) == 4
    assert float(naswot(net, twice)) == -math.inf


def test_codes_of_fewer_units_than_examples_have_no_determinant() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    assert float(naswot(net, X)) == -math.inf


def test_zen_by_hand() -> None:
    net = Tiny()

    def features(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a = net.conv(x)
        mean, var = a.mean((0, 2, 3), keepdim=True), a.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, shift = (p.view(1, 3, 1, 1) for p in (net.norm.weight, net.norm.bias))
        return torch.relu((a - mean) / (var + 1e-5).sqrt() * scale + shift), a.var((0, 2, 3))

    (one, var), (two, _) = features(X), features(X + 0.01 * E)
    expected = torch.log((one - two).abs().sum((1, 2, 3)).mean()) + torch.log(var.mean().sqrt())
    assert float(zen(net, X, E)) == pytest.approx(float(expected.detach()), rel=1e-9)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Linear(3, 2)).double()
    hidden = (flat[:2](X) - flat[:2](X + 0.01 * E)).detach()  # what enters the last linear layer
    assert float(zen(flat, X, E)) == pytest.approx(float(torch.log(hidden.abs().sum(1).mean())), rel=1e-9)


def test_zen_draws_gaussian_weights() -> None:
    net = registry.load("estimators", "zen")().initialise(CELLS.build(LIVE, VIEW.task), torch_generator(0, "t"))
    weights = torch.cat([m.weight.detach().flatten() for m in zero_cost.layers(net)])
    assert abs(float(weights.mean())) < 4 / len(weights) ** 0.5
    assert float(weights.std()) == pytest.approx(1, abs=4 / (2 * len(weights)) ** 0.5)


def test_condition_number_of_the_kernel() -> None:
    net = Tiny()
    rows = []
    for i in range(len(X)):
        net.zero_grad()
        net(X)[i].sum().backward()
        rows.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    net.zero_grad()
    v = np.linalg.eigvalsh(np.array([[float(a @ b) for b in rows] for a in rows]))
    assert float(condition_number(net, X)) == pytest.approx(v[-1] / v[0], rel=1e-6)
    assert float(condition_number(Tiny(norm=False), torch.cat([X, X[:1]]))) == math.inf
    linear = nn.Linear(2, 1, bias=False).double()  # K = X X^T
    assert float(condition_number(linear, torch.tensor([[3.0, 0], [0, 1]]).double())) == pytest.approx(9)


def test_l2_counts_norms_of_layers() -> None:
    net = Tiny()
    assert float(l2(net)) == pytest.approx(
        sum(math.sqrt((m.weight.detach() ** 2).sum().item()) for m in (net.conv, net.out))
    )


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_leaves_network_and_global_state_alone(name: str) -> None:
    net = Tiny()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    state = torch.get_rng_state()
    first, second = (FORMULAS[name](net) for _ in range(2))
    assert torch.equal(first, second)
    assert math.isfinite(first)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_synflow_does_not_see_signs_and_snip_is_plain_without_them() -> None:
    net, turned = Tiny(), Tiny()
    with torch.no_grad():
        for p in turned.parameters():
            p.neg_()
    assert torch.equal(synflow(net, X[:1].abs()), synflow(turned, X[:1].abs()))
    parts = []
    for net in (Tiny(seed=seed) for seed in range(8)):
        elementwise = [w.detach() * g for w, g in zero_cost.gradients(net, X, Y)]
        parts += [float(e.sum()) for e in elementwise]
        assert float(plain(net, X, Y)) == pytest.approx(sum(parts[-2:]))
        assert float(snip(net, X, Y)) == pytest.approx(float(sum(e.abs().sum() for e in elementwise)))
    assert min(parts) < 0 < max(parts)  # no sign is dropped


@pytest.mark.parametrize("name", ["synflow", "naswot", "jacob_cov", "params", "flops", "zen", "l2"])
def test_labels_do_not_matter_where_they_are_not_looked_at(name: str) -> None:
    shuffled = replace(VIEW.train, y=generator(1, "t").permutation(VIEW.train.y))
    found = []
    for train in (VIEW.train, shuffled):
        estimator = small(name)
        estimator.prepare(CELLS, setting(data=replace(VIEW, train=train)), seed=0)
        found.append(estimator.estimate([Proposal(LIVE)])[0].score)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", [*LOOKS, *BLIND, *COUNTS])
def test_what_every_proxy_promises(name: str) -> None:
    estimator = small(name)
    assert isinstance(estimator, PerformanceEstimator)
    traits = type(estimator).traits
    assert not traits.accuracy_scale
    assert traits.deterministic == (name in COUNTS)
    assert traits.needs_data == (name in LOOKS)
    assert traits.sign == (-1 if name == "ntk" else 1)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = scores(name, [LIVE, OTHER, LIVE])
    assert all(map(math.isfinite, first))
    assert first[0] == first[2] != first[1]
    assert scores(name, [OTHER]) == first[1:2]  # whatever was asked before
    assert (scores(name, [OTHER], seed=1) == first[1:2]) == traits.deterministic
    assert math.isfinite(*scores(name, [DENSE], LAYERS))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_global_torch_state_changes_no_score() -> None:
    first = scores("snip", [DENSE], LAYERS)  # holds a dropout layer
    torch.manual_seed(1234)
    with torch.no_grad():
        assert scores("snip", [DENSE], LAYERS) == first


@pytest.mark.parametrize(
    "name", ["grad_norm", "snip", "plain", "grasp", "jacob_cov", "epe_nas", "naswot", "zen", "ntk"]
)
def test_a_dead_cell_crashes(name: str) -> None:
    estimator = small(name)
    estimator.prepare(CELLS, setting(), seed=0)
    live, dead = estimator.estimate([Proposal(LIVE), Proposal(DEAD)])
    assert live.status == "ok"
    assert dead.status == "crashed"
    assert math.isnan(dead.score)
    assert dead.reason
    assert "\n" not in dead.reason
    assert dead.costs == live.costs == (Cost("proxy", 1.0),)


def test_codes_need_relu_layers() -> None:
    smooth = LAYERS.parse("16-tanh")
    estimator = small("naswot")
    estimator.prepare(LAYERS, setting(), seed=0)
    (o,) = estimator.estimate([Proposal(smooth)])
    assert (o.status, o.costs) == ("crashed", (Cost("proxy", 1.0),))
    assert "no ReLU" in o.reason
    kernel = small("ntk")
    kernel.prepare(LAYERS, setting(), seed=0)
    smooth_answer, rectified = kernel.estimate([Proposal(smooth), Proposal(DENSE)])
    assert smooth_answer.status == "ok"
    assert dict(smooth_answer.objectives) == {}
    assert 1 <= rectified.objectives["linear_regions"] <= N


def test_counts_are_the_networks_own() -> None:
    net = CELLS.build(LIVE, VIEW.task)
    assert scores("params", [LIVE]) == [sum(p.numel() for p in net.parameters())]
    # The space bills the classifier's bias as well.
    assert scores("flops", [LIVE]) == [network_flops(net, VIEW.task)[0] + 2 * 10]


def test_a_score_is_that_of_the_stated_network_and_minibatch() -> None:
    order = generator(3, "minibatch").permutation(len(VIEW.train))[: 2 * N].reshape(2, N)
    by_hand = []
    for repeat in range(2):
        net = materialise(CELLS.build(LIVE, VIEW.task), torch_generator(3, "init", repeat, LIVE)).train()
        for rows in order:
            x, y = torch.from_numpy(VIEW.train.x[rows]), torch.from_numpy(VIEW.train.y[rows])
            net.zero_grad()
            f.cross_entropy(net(x), y).backward()
            norms = [m.weight.grad.norm() for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
            by_hand.append(float(sum(norms)))
    assert len(set(by_hand)) == 4
    assert scores("grad_norm", [LIVE], seed=3, batches=2, repeats=2) == pytest.approx([np.mean(by_hand)], rel=1e-5)


FORWARD, BOTH = network_flops(LAYERS.build(DENSE, VIEW.task), VIEW.task)
FIRST = 2 * 64 * 16  # per example: one product with the weight of the first layer
CODES = 2 * 2 * N * N * (16 + 8)
LOOK = {
    "grad_norm": (N * BOTH, N),
    "snip": (N * BOTH, N),
    "plain": (N * BOTH, N),
    "synflow": (BOTH, 1),
    "zen": (2 * N * FORWARD, 2 * N / 3),
    "naswot": (N * FORWARD + CODES, N / 3),
    "l2": (0, 0),
    "params": (0, 0),
    "flops": (0, 0),
    # Backward to the input, but not to weights; n^2 correlations of 64 pixels; in EPE-NAS, sums over 10 classes.
    "jacob_cov": (N * 2 * FORWARD + 2 * N * N * 64, N),
    "epe_nas": (N * 2 * FORWARD + 2 * N * N * 64 + 2 * N * N * 10, N),
    # Backward to activations, the first layer's needing none of its weights.
    "fisher": (N * (2 * FORWARD - FIRST), N),
    # n backward passes over the minibatch, and the n^2 products of gradients.
    "ntk": (2 * N * FORWARD + N * N * (BOTH - FORWARD) + CODES, 2 * N / 3 + N * N * 2 / 3),
}


def cost(name: str, unit: str, space: object = LAYERS, a: object = DENSE, **params: int) -> float:
    estimator = small(name, **params)
    estimator.prepare(space, setting(unit), seed=0)
    (o,) = estimator.estimate([Proposal(a, Fidelity(epochs=1))])
    assert o.status == "ok"
    (charged,) = o.costs
    assert charged.kind == "proxy"
    return charged.amount


@pytest.mark.parametrize("name", LOOK)
def test_what_a_look_costs(name: str) -> None:
    flops, examples = LOOK[name]
    if name == "ntk":
        flops += 2 * N * N * scores("params", [DENSE], LAYERS)[0]
    repeats = {"repeats": 3} if name not in COUNTS else {}
    assert cost(name, "evaluations", **repeats) == 1
    assert cost(name, "flops", **repeats) == 3 * flops
    assert cost(name, "epochs", **repeats) == pytest.approx(3 * examples / len(VIEW.train))


@pytest.mark.slow  # the counter takes seconds for second derivatives
def test_what_a_look_at_convolutions_costs() -> None:
    forward, both = network_flops(CELLS.build(LIVE, VIEW.task), VIEW.task)
    assert cost("snip", "flops", CELLS, LIVE) == N * both
    assert cost("jacob_cov", "flops", CELLS, LIVE) == N * 2 * forward + 2 * N * N * 64
    # Second derivatives: about twice the cost of what is differentiated.
    assert cost("grasp", "flops", CELLS, LIVE) == pytest.approx(3 * N * both, rel=0.05)
    assert cost("grasp", "epochs", CELLS, LIVE) == pytest.approx(3 * N / len(VIEW.train))


def test_a_failure_is_charged_for_a_forward_pass() -> None:
    estimator = small("naswot")
    estimator.prepare(LAYERS, setting("flops"), seed=0)
    smooth = LAYERS.parse("16-tanh")
    (o,) = estimator.estimate([Proposal(smooth)])
    forward, _ = network_flops(LAYERS.build(smooth, VIEW.task), VIEW.task)
    assert (o.status, o.costs) == ("crashed", (Cost("proxy", N * forward),))


@pytest.mark.parametrize("name", ["snip", "params"])
def test_seconds_are_those_of_the_clock(name: str) -> None:
    ticks = iter(range(0, 1000, 5))
    estimator = small(name)
    estimator.prepare(CELLS, setting("seconds", clock=lambda: float(next(ticks))), seed=0)
    assert [o.costs for o in estimator.estimate([Proposal(LIVE), Proposal(DEAD)])] == [(Cost("proxy", 5.0),)] * 2


def test_another_process_gives_the_same_and_loads_torch_only_for_networks() -> None:
    code = (
        "import sys\n"
        "from nasbed.methods import registry; from nasbed.protocols import Proposal, Setting\n"
        "registry.load('estimators', 'params'); registry.load('estimators', 'flops')\n"
        "assert 'torch' not in sys.modules\n"
        "from nasbed.protocols.training import PIPELINES, load\n"
        "space, view = registry.space('nb201[channels=4;cells=1,0,0]'), load('digits')\n"
        f"a = space.parse({CELLS.text(LIVE)!r})\n"
        "e = registry.load('estimators', 'snip')(batch_size=8)\n"
        "e.prepare(space, Setting(view.task, 'evaluations', PIPELINES['adam'], lambda a: 0, view), seed=0)\n"
        "print(repr(e.estimate([Proposal(a)])[0].score))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert float(out.stdout) == scores("snip", [LIVE])[0]


def test_misfits_are_refused_in_one_line() -> None:
    for name in LOOKS:
        with pytest.raises(ValueError, match=f"^estimator: '{name}' looks at training examples and needs --data$"):
            small(name).prepare(CELLS, setting(data=None), seed=0)
    for name in (*BLIND, *COUNTS):
        small(name).prepare(CELLS, setting(data=None), seed=0)
    with pytest.raises(ValueError, match=r"^budget: epochs of 'synflow' are epochs of training data"):
        small("synflow").prepare(CELLS, setting("epochs", data=None), seed=0)
    with pytest.raises(ValueError, match=r"^batch_size: 2 x 401 examples are more than the 800 of the training data$"):
        registry.load("estimators", "snip")(batch_size=401, batches=2).fits(setting())
    with pytest.raises(ValueError, match=r"^estimator: 'l2' scores classifiers of images or tables, not text tasks$"):
        small("l2").fits(setting(task=replace(VIEW.task, kind="text")))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"batch_size": 1}, "batch_size: 1 is not an integer >= 2"),
        ({"batch_size": "x"}, "batch_size: 'x' is not an integer >= 2"),
        ({"batches": 0}, "batches: 0 is not an integer >= 1"),
        ({"repeats": 1.5}, "repeats: 1.5 is not an integer >= 1"),
        ({"repeats": True}, "repeats: True is not an integer >= 1"),
    ],
)
def test_wrong_parameters_are_refused(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        registry.load("estimators", "grad_norm")(**params)
