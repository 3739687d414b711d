"""Network morphisms: what is exact keeps the function; what shrinks nearly does, and is then fitted."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasbed.methods.networks import morphisms as m
from nasbed.methods.networks import shrinking
from nasbed.methods.networks.morphisms import Place

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float32, torch.float64])
quick = settings(max_examples=8, deadline=None, derandomize=True)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(network: nn.Module, seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Random weights and random statistics, so that no layer is nearly an identity by chance."""
    g = rng(seed)
    network.to(dtype).eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                for parameter in layer.parameters():
                    parameter.normal_(0, layer.weight[0].numel() ** -0.5, generator=g)
            elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                for tensor in (layer.bias, layer.running_mean):
                    tensor.normal_(generator=g)
                for tensor in (layer.weight, layer.running_var):
                    tensor.uniform_(0.5, 2, generator=g)
    return network


def convolutions(seed: int = 0, dtype: torch.dtype = torch.float64, widths: tuple[int, int] = (3, 4)) -> nn.Sequential:
    """0 conv, 1 norm, 2 relu, 3 depthwise, 4 norm, 5 pool, 6 conv, 7 norm, 8 relu, 9 flatten, 10 norm, 11 linear."""
    a, b = widths
    layers = [
        nn.Conv2d(2, a, 3, padding=1), nn.BatchNorm2d(a), nn.ReLU(),
        nn.Conv2d(a, a, 3, padding=1, groups=a), nn.BatchNorm2d(a), nn.MaxPool2d(2),
        nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
        nn.Flatten(), nn.BatchNorm1d(9 * b), nn.Linear(9 * b, 5),
    ]  # fmt: skip
    return filled(nn.Sequential(*layers), seed, dtype)


def perceptron(seed: int = 0, dtype: torch.dtype = torch.float64, phi: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Layers 0 flatten, 1 linear, 2 phi, 3 dropout, 4 linear, 5 relu, 6 linear."""
    layers = [nn.Flatten(), nn.Linear(72, 6), phi(), nn.Dropout(0.2), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 5)]
    return filled(nn.Sequential(*layers), seed, dtype)


class Residual(nn.Module):
    """The sum of two branches, read twice: by an output and, besides, next to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
        self.next, self.both = nn.Conv2d(3, 2, 1), nn.Conv2d(7, 2, 1)

    def forward(self, x):
        first = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(first + self.body(first))
        return self.next(y) + self.both(torch.cat([x, y, x], 1))


PRODUCED = [Place("stem"), Place("norm"), Place("body.0"), Place("body.1")]
CONSUMED = [Place("body.0"), Place("next"), Place("both", first=2)]


def images(seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(4, 2, 6, 6, generator=rng(seed), dtype=dtype)


@torch.no_grad()
def gap(child: nn.Module, parent: nn.Module, x: torch.Tensor) -> float:
    return (child.eval()(x) - parent.eval()(x)).abs().max().item()


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def widened(network: nn.Sequential, index: int, by: int, g: torch.Generator) -> nn.Module:
    units = len(network[index].weight)
    return m.wider(network, m.replication(units, units + by, g), *m.chain(network, index))


EXACT: dict[str, Callable[[nn.Sequential, torch.Generator], nn.Module]] = {
    "wider 0": lambda n, g: widened(n, 0, 4, g),
    "wider 6": lambda n, g: widened(n, 6, 3, g),
    "linear": lambda n, g: m.linear(n, 7),
    "linear without norm": lambda n, g: m.linear(n, 4, kernel=5, norm=False),
    "deeper": lambda n, g: m.deeper(n, 8),
    "deeper by statistics": lambda n, g: m.deeper(n, 2, examples=images(7, n[0].weight.dtype)),
    "concatenated": lambda n, g: m.concatenated(n, 6, 7, nn.Conv2d(3, 2, 1).to(n[0].weight.dtype), 2),
    "concatenated to flat": lambda n, g: m.concatenated(n, 6, 9, nn.Identity(), 3),
    "mixed with an operation": lambda n, g: m.mixed(n, 3, 5, nn.Conv2d(3, 3, 1).to(n[0].weight.dtype)),
    "mixed with a skip": lambda n, g: m.mixed(n, 3, 5, nn.Identity()),
}


@pytest.mark.parametrize("name", EXACT)
@quick
@given(seed=seeds, dtype=dtypes)
def test_exact_morphisms_keep_the_function_of_convolutions(name: str, seed: int, dtype: torch.dtype) -> None:
    parent, x = convolutions(seed, dtype), images(seed + 1, dtype)
    before = deepcopy(parent.state_dict())
    child = EXACT[name](parent, rng(seed))
    assert gap(child, parent, x) <= TOLERANCE[dtype]
    assert size(child) > size(parent)
    assert all(torch.equal(before[k], v) for k, v in parent.state_dict().items())
    assert not {p.data_ptr() for p in child.parameters()} & {p.data_ptr() for p in parent.parameters()}
    assert {p.dtype for p in child.parameters()} == {dtype}
    child.train()(x).square().sum().backward()  # all of it trains
    assert all(p.grad is not None for p in child.parameters())


@quick
@given(seed=seeds, dtype=dtypes)
def test_exact_morphisms_keep_the_function_of_perceptrons(seed: int, dtype: torch.dtype) -> None:
    parent, x, g = perceptron(seed, dtype), images(seed + 1, dtype), rng(seed)
    for child in (
        widened(parent, 1, 5, g),
        widened(parent, 4, 1, g),
        m.deeper(parent, 5, norm=False),
        m.deeper(parent, 2),
        m.linear(parent, 4, norm=False),
        m.mixed(parent, 4, 6, nn.Linear(6, 4).to(dtype)),
        m.concatenated(parent, 4, 5, nn.Identity(), 6),
        widened(widened(m.deeper(parent, 2, norm=False), 3, 2, g), 1, 1, g),
    ):
        assert gap(child, parent, x) <= TOLERANCE[dtype]
        assert size(child) > size(parent)


@quick
@given(seed=seeds, width=st.integers(4, 9), dtype=dtypes)
def test_all_that_reads_a_widened_layer_is_rescaled(seed: int, width: int, dtype: torch.dtype) -> None:
    parent, x = filled(Residual(), seed, dtype), images(seed + 1, dtype)
    copied = m.replication(3, width, rng(seed))
    child = m.wider(parent, copied, PRODUCED, CONSUMED)
    assert gap(child, parent, x) <= TOLERANCE[dtype]
    assert child.both.in_channels == 4 + width
    # A consumer that is left out is noticed: by its shape, or, were that right, by the output.
    forgotten = m.wider(parent, copied, PRODUCED, CONSUMED[:-1])
    with pytest.raises(RuntimeError, match="expected input"):
        forgotten(x)


@quick
@given(units=st.integers(1, 6), more=st.integers(1, 9), seed=seeds)
def test_replicated_columns_add_up_to_the_original_ones(units: int, more: int, seed: int) -> None:
    g = m.replication(units, units + more, rng(seed))
    assert torch.equal(g[:units], torch.arange(units))
    assert set(g[units:].tolist()) <= set(range(units))
    parent = filled(nn.Sequential(nn.Linear(3, units), nn.ReLU(), nn.Linear(units, 4)), seed)
    child = m.wider(parent, g, *m.chain(parent, 0))
    for j in range(units + more):
        assert torch.equal(child[0].weight[j], parent[0].weight[g[j]])
        assert torch.equal(child[0].bias[j], parent[0].bias[g[j]])
    for unit in range(units):
        copies = child[2].weight[:, g == unit]
        torch.testing.assert_close(copies.sum(1), parent[2].weight[:, unit], rtol=1e-12, atol=0)
        assert torch.equal(copies, copies[:, :1].expand_as(copies))  # divided evenly


def test_copies_are_drawn_uniformly() -> None:
    drawn = torch.bincount(m.replication(4, 40_004, rng())[4:]) / 40_000
    assert (drawn - 0.25).abs().max() < 0.01


def test_copies_stay_equal_in_training_unless_there_is_noise() -> None:
    parent, x = perceptron(), images(1)
    g = torch.tensor([0, 1, 2, 3, 4, 5, 0])
    for noise, same in ((0.0, True), (0.01, False)):
        child = m.wider(parent, g, *m.chain(parent, 1), noise=noise, rng=rng(3))
        assert torch.equal(child[1].weight[:6], parent[1].weight)  # noise is on the copies alone
        assert gap(child, parent, x) < (1e-10 if same else 0.1)
        optimizer = torch.optim.SGD(child.parameters(), 0.01)
        for _ in range(3):
            optimizer.zero_grad()
            child(x).square().mean().backward()
            optimizer.step()
        assert torch.allclose(child[1].weight[0], child[1].weight[6], atol=1e-12) is same


@pytest.mark.parametrize(
    ("phi", "allowed"),
    [(nn.ReLU, True), (nn.ReLU6, True), (nn.Identity, True), (nn.Sigmoid, False), (nn.Tanh, False), (nn.ELU, False),
     (nn.LeakyReLU, False), (nn.Flatten, False), (nn.Dropout, False), (nn.MaxPool2d, False)],
)  # fmt: skip
def test_only_idempotent_activations_get_deeper(phi: type[nn.Module], allowed: bool) -> None:
    layer = phi(2) if phi is nn.MaxPool2d else phi()
    assert m.is_idempotent(layer) is allowed
    if not allowed:
        network = nn.Sequential(nn.Linear(2, 2), layer, nn.Linear(2, 1))
        with pytest.raises(ValueError, match=f"layer 1: {phi.__name__} applied twice is not {phi.__name__} applied"):
            m.deeper(network, 1)


@pytest.mark.parametrize("phi", [nn.Sigmoid, nn.Tanh, nn.ELU])
def test_repeating_another_activation_would_change_the_function(phi: type[nn.Module]) -> None:
    parent, x = perceptron(phi=phi), images(1)
    layers = list(m.linear(parent, 2, norm=False))
    assert gap(nn.Sequential(*layers), parent, x) <= 1e-10
    assert gap(nn.Sequential(*layers[:4], phi(), *layers[4:]), parent, x) > 1e-3


def test_the_norm_of_a_new_layer_is_set_by_examples() -> None:
    parent, x = convolutions(), images(1)
    child = m.deeper(parent, 2, examples=x)
    values = parent[:3](x)
    torch.testing.assert_close(child[4].running_mean, values.mean((0, 2, 3)))
    torch.testing.assert_close(child[4].bias, values.mean((0, 2, 3)))
    torch.testing.assert_close(child[4].weight, (values.var((0, 2, 3)) + child[4].eps).sqrt())
    # On these examples it is nearly the identity in training mode too, where 0 and 1 would not be.
    plain = m.deeper(parent, 2)
    with torch.no_grad():
        off = [(n[3:6].train()(values) - values).abs().max().item() for n in (child, plain)]
    assert off[0] < 0.02 < 10 * off[0] < off[1]


@pytest.mark.parametrize(("kernel", "padding", "larger"), [(1, 0, 3), (3, 1, 5), (3, 0, 7), ((1, 3), (0, 1), 3)])
@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 2, 1)])
def test_larger_kernels(kernel, padding, larger: int, stride: int, dilation: int, groups: int) -> None:
    conv = filled(nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups), 0)
    child = m.larger_kernel(conv, larger)
    x = torch.randn(2, 4, 9, 9, generator=rng(), dtype=torch.float64)
    assert child.kernel_size == (larger, larger)
    assert child(x).shape == conv(x).shape
    assert gap(child, conv, x) <= 1e-10
    fresh = nn.Conv2d(4, 6, larger, stride, child.padding, dilation, groups, dtype=torch.float64)
    fresh.load_state_dict(child.state_dict())  # is what it says it is
    assert gap(fresh, conv, x) <= 1e-10


def test_a_part_is_left_out() -> None:
    parent = convolutions()
    child = shrinking.without(parent, 3, 5)
    x = images(0)
    with torch.no_grad():
        assert torch.equal(child(x), parent[5:](parent[:3](x)))
    with pytest.raises(ValueError, match="layers 6 to 7: they make 4 channels of 3, so cannot be left out"):
        shrinking.without(parent, 6, 8)


def test_pruned_keeps_the_largest_units() -> None:
    parent, x = convolutions(widths=(5, 4)), images(0)
    with torch.no_grad():
        for layer in (0, 3):
            parent[layer].weight.mul_(
                torch.tensor([1.0, 1e-3, 2.0, 3.0, 1e-2], dtype=torch.float64)[:, None, None, None]
            )
        child = shrinking.pruned(parent, 3, *m.chain(parent, 0))
        assert torch.equal(child[0].weight, parent[0].weight[[0, 2, 3]])
        assert torch.equal(child[4].running_var, parent[4].running_var[[0, 2, 3]])
        assert torch.equal(child[6].weight, parent[6].weight[:, [0, 2, 3]])
        # The function is that of the parent with the other units cut off from what reads them.
        cut = deepcopy(parent)
        cut[6].weight[:, [1, 4]] = 0
    assert gap(child, cut, x) <= 1e-10
    assert size(child) < size(parent)


def test_pruning_undoes_a_widening_by_nothing() -> None:
    parent, x = filled(Residual(), 0), images(0)
    with torch.no_grad():
        for layer in (parent.stem, parent.norm, parent.body[0], parent.body[1]):
            layer.weight[1] = layer.bias[1] = 0
        parent.norm.running_mean[1] = parent.body[1].running_mean[1] = 0
    child = shrinking.pruned(parent, 2, PRODUCED, CONSUMED)
    assert gap(child, parent, x) <= 1e-10


def test_separable_is_the_nearest_product() -> None:
    conv = filled(nn.Conv2d(3, 5, 3, 2, 1), 0)
    child = shrinking.separable(conv)
    x = torch.randn(2, 3, 7, 7, generator=rng(), dtype=torch.float64)
    composed = child[1].weight[:, :, 0, 0, None, None] * child[0].weight[:, 0]
    as_one = deepcopy(conv)
    as_one.weight = nn.Parameter(composed)
    assert gap(child, as_one, x) <= 1e-10
    # What is lost: all but the largest eigenvalue of each input channel's Gram matrix.
    kernels = conv.weight.detach().permute(1, 2, 3, 0).flatten(1, 2)
    lost = torch.linalg.eigvalsh(kernels @ kernels.mT)[:, :-1].sum()
    torch.testing.assert_close((conv.weight - composed).square().sum().detach(), lost)
    assert size(child) < size(conv)
    with torch.no_grad():
        conv.weight.copy_(composed)
    assert gap(shrinking.separable(conv), conv, x) <= 1e-10  # exact where it can be


@pytest.mark.parametrize("learning_rate", [1e-2, 10.0])
def test_distillation_never_raises_the_difference(learning_rate: float) -> None:
    parent = convolutions()
    child = shrinking.pruned(parent, 2, *m.chain(parent, 6))
    batches = [images(k) for k in range(3)]
    before = deepcopy(child.state_dict())
    fitted, losses = shrinking.distilled(child, parent, batches, epochs=4, learning_rate=learning_rate)
    assert all(torch.equal(v, before[k]) for k, v in child.state_dict().items())
    assert len(losses) == 5
    assert all(b <= a for a, b in pairwise(losses))
    with torch.no_grad():
        x = torch.cat(batches)
        for network, loss in ((child, losses[0]), (fitted, losses[-1])):
            assert (network(x) - parent(x)).square().mean().item() == pytest.approx(loss)
    if learning_rate < 1:
        assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda n: m.replication(3, 3, rng()), "width: 3 is not more than the 3 units of the layer"),
        (lambda n: m.chain(n, 11), "layer 11: it makes the network's output, whose width is given"),
        (lambda n: m.chain(n, 1), "layer 1: BatchNorm2d is no linear layer or full convolution"),
        (lambda n: m.chain(n, 3), "layer 3: Conv2d is no linear layer or full convolution"),
        (lambda n: m.chain(nn.Sequential(n[0], nn.Softmax(1), n[6]), 0), "layer 1: Softmax may mix channels"),
        (lambda n: m.deeper(n, 8, kernel=2), "kernel: 2 is not odd"),
        (lambda n: m.linear(n, 9), "layer 9: no layer before it tells the number of units"),
        (lambda n: m.larger_kernel(n[0], 4), r"kernel: 4 is not larger than \(3, 3\) by even numbers"),
        (lambda n: m.larger_kernel(n[0], 3), r"kernel: 3 is not larger than \(3, 3\) by even numbers"),
        (lambda n: m.larger_kernel(nn.Conv2d(1, 1, 3, padding="same"), 5), "padding: zeros same is not a number"),
        (lambda n: shrinking.separable(n[3]), "groups: 3 is not 1"),
        (lambda n: shrinking.pruned(n, 3, *m.chain(n, 0)), "width: 3 is not one of 1, 2, ..., 2"),
        (lambda n: m.wider(n, m.replication(3, 4, rng()), [Place("2")], []), "layer 2: ReLU makes no units"),
        (lambda n: m.wider(n, m.replication(3, 4, rng()), [], [Place("3")]), "layer 3: Conv2d is no linear layer"),
        (lambda n: m.concatenated(n, 11, 12, nn.Identity(), 9), "layers 11 to 11: they make the network's output"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(wrong: Callable[[nn.Sequential], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        wrong(convolutions())
    assert "\n" not in str(refused.value)
