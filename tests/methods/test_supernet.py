"""Supernets: every sub-network is the network that the space builds, with its share of the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasbed.methods.networks.supernet import MLPSupernet, NB201Supernet, Supernet, supernet
from nasbed.methods.spaces.macro import Macro
from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.nb201 import NB201, OPS
from nasbed.protocols import Architecture, SearchSpace, Task
from nasbed.protocols.streams import torch_generator
from nasbed.protocols.training import materialise, network_flops

TASK = Task("toy", "image", "accuracy", True, (1, 8, 8), 10, "")
SPACES = [
    NB201(channels=2, cells=1),
    NB201(channels=3, cells=(0, 2, 1)),
    NB201(ops=("skip_connect", "nor_conv_1x1"), channels=2, cells=(2, 0, 0)),
    MLP(hidden=3, widths=(8, 32)),
    MLP(hidden=2, widths=(8, 16), scale=0.3),
]


def initial(space: SearchSpace, dtype: torch.dtype = torch.float64) -> Supernet:
    network = materialise(supernet(space, TASK), torch_generator(0, "test"), dtype=dtype)
    assert isinstance(network, Supernet)
    with torch.no_grad():  # scales and offsets that would show if they were mixed up
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 1.5, generator=torch_generator(1, "test"))
                norm.bias.uniform_(-1, 1, generator=torch_generator(2, "test"))
    return network


def some(space: SearchSpace, n: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(n)]


def by_itself(space: SearchSpace, network: Supernet, a: Architecture) -> nn.Module:
    built = space.build(a, TASK).to_empty(device="cpu").double()
    built.load_state_dict(network.weights_of(a))
    return built


def images(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch_generator(3, "test"), dtype=torch.float64)


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
@pytest.mark.parametrize("training", [True, False])
def test_a_sub_network_is_the_network_that_the_space_builds(space: SearchSpace, training: bool) -> None:
    network = initial(space).train(training)
    for a in some(space, 2):
        alone = by_itself(space, network, a).train(training)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(5)
            expected = alone(images())
            torch.default_generator.manual_seed(5)
            found = network(images(), a)
        assert (found - expected).abs().max() <= 1e-12
        for key, value in alone.state_dict().items():  # the running statistics moved alike
            assert torch.equal(value, network.weights_of(a)[key]), key


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_gradients_are_those_of_the_network_by_itself_and_no_others(space: SearchSpace) -> None:
    network = initial(space).train()
    (a,) = some(space, 1)
    alone = by_itself(space, network, a).train()
    for f in (lambda: network(images(), a), lambda: alone(images())):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(5)
            (f().square().sum()).backward()
    total = sum(p.grad.square().sum().item() for p in alone.parameters() if p.grad is not None)
    shared = sum(p.grad.square().sum().item() for p in network.parameters() if p.grad is not None)
    assert shared == pytest.approx(total, rel=1e-10)
    grads = {p.untyped_storage().data_ptr(): (p, p.grad) for p in network.parameters()}
    for key, parameter in alone.named_parameters():
        part = network.weights_of(a)[key]
        whole, grad = grads[part.untyped_storage().data_ptr()]
        assert grad is not None
        region = grad[tuple(map(slice, part.shape))] if part.shape != whole.shape else grad
        assert (region - parameter.grad).abs().max() <= 1e-12, key


def test_architectures_share_operations_by_edge_and_cell() -> None:
    space = NB201(channels=2, cells=2)
    network = initial(space)
    conv = OPS.index("nor_conv_3x3")
    a, b = Architecture("nb201", (conv,) * 6), Architecture("nb201", (conv, 0, 1, conv, 2, 4))
    mine, yours = network.weights_of(a), network.weights_of(b)
    key = "{}.{}.edges.{}.1.weight"
    for stage, cell in ((1, 0), (1, 1), (5, 1)):
        for edge in (0, 3):
            name = key.format(stage, cell, edge)
            assert mine[name].data_ptr() == yours[name].data_ptr()
    assert len({mine[key.format(s, c, e)].data_ptr() for s in (1, 3, 5) for c in (0, 1) for e in range(6)}) == 36
    assert key.format(1, 0, 1) not in yours
    assert mine[key.format(1, 0, 4)].shape != yours[key.format(1, 0, 4)].shape  # a 1x1 convolution there


def test_perceptrons_take_leading_units() -> None:
    space = MLP(hidden=2, widths=(8, 16), dropout=True)
    network = initial(space)
    assert isinstance(network, MLPSupernet)
    part = network.weights_of(space.parse("16-relu/8-tanh"))
    assert torch.equal(part["3.weight"], network.layers[1].weight[:8, :16])
    assert torch.equal(part["5.weight"], network.output.weight[:, :8])
    assert part["1.weight"].data_ptr() == network.weights_of(space.parse("8-elu"))["1.weight"].data_ptr()


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_flops_are_those_that_training_counts(space: SearchSpace) -> None:
    network = supernet(space, TASK)
    for a in some(space, 1):
        assert network.flops(a) == network_flops(space.build(a, TASK), TASK)


@pytest.mark.parametrize("seed", range(3))
def test_flops_of_any_paths_are_those_computed(seed: int) -> None:
    space = NB201(channels=2, cells=(1, 0, 1))
    network = supernet(space, TASK)
    assert isinstance(network, NB201Supernet)
    rng = np.random.default_rng(seed)
    kept = [{op: None for op in OPS if rng.random() < 0.25} for _ in range(6)]
    x = torch.empty(2, *TASK.shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        network.mixture(x, kept).sum().backward()
    assert counter.get_total_flops() // 2 == network.mixture_flops(kept)[1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.mixture(x, kept)
    assert counter.get_total_flops() // 2 == network.mixture_flops(kept)[0]


def test_a_node_that_nothing_enters_is_zero() -> None:
    network = initial(NB201(channels=2, cells=1))
    assert isinstance(network, NB201Supernet)
    nothing = network.mixture(images(), [{}] * 6)
    assert torch.equal(nothing, network(images(), Architecture("nb201", (0,) * 6)))


def test_other_spaces_and_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"space: .* has no supernet; allowed: mlp, nb201, rnn"):
        supernet(Macro(), TASK)
    with pytest.raises(ValueError, match=r"nb201: inputs of task 'toy' have the shape"):
        supernet(NB201(), Task("toy", "tabular", "accuracy", True, (5,), 3, ""))
