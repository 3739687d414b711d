"""The size space of NATS-Bench: its count, its network's published size and cost, its moves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasbed.methods import registry
from nasbed.methods.spaces.nb201 import NB201
from nasbed.methods.spaces.size import WIDTHS, Size
from nasbed.protocols import Architecture, IndexedSpace, Task

SPACE = Size()
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def image_task(channels: int = 3, side: int = 32, classes: int | None = 10) -> Task:
    return Task("toy", "image", "accuracy", True, (channels, side, side), classes, "0")


def test_counts() -> None:
    assert isinstance(SPACE, IndexedSpace)
    assert SPACE.size == 8**5 == 32_768
    assert WIDTHS == (8, 16, 24, 32, 40, 48, 56, 64)
    assert all(len(SPACE.neighbours(SPACE.at(i))) == 5 * 7 for i in range(0, 32_768, 3_000))
    # The positions of the official list of architectures.
    assert [SPACE.text(SPACE.at(i)) for i in (0, 11, 284, 32_767)] == [
        "8:8:8:8:8", "8:8:8:16:32", "8:8:40:32:40", "64:64:64:64:64",
    ]  # fmt: skip
    assert SPACE.canonical(SPACE.at(5)) == SPACE.at(5)


# Official result files, CIFAR-10: parameters, and multiply-adds in millions.
@pytest.mark.parametrize(
    ("text", "params", "megamacs"),
    [("8:8:8:8:8", 11_714, 4.481114), ("8:8:8:16:32", 49_202, 6.84065), ("8:8:40:32:40", 144_834, 21.827994)],
)
def test_params_and_macs_of_the_official_files(text: str, params: int, megamacs: float) -> None:
    a = SPACE.parse(text)
    features = SPACE.features(a, image_task())
    assert features["params"] == params == sum(p.numel() for p in SPACE.build(a, image_task()).parameters())
    assert features["macs"] == round(megamacs * 1e6)
    assert features["flops"] == 2 * features["macs"]


def test_equal_widths_are_a_network_of_the_topology_space() -> None:
    # NAS-Bench-201 doubles the channels in its residual blocks: with 8, 16, 16, 32, 32 the networks are one.
    for side, classes in ((32, 10), (16, 120)):
        topology = NB201(channels=8, cells=1)
        expected = topology.features(topology.parse(CELL), image_task(side=side, classes=classes))
        features = SPACE.features(SPACE.parse("8:16:16:32:32"), image_task(side=side, classes=classes))
        assert [features[k] for k in ("params", "macs")] == [expected[k] for k in ("params", "macs")]


@pytest.mark.parametrize(
    ("space", "text", "task"),
    [
        (SPACE, "8:16:16:32:8", image_task()),
        (SPACE, "16:8:24:16:8", image_task(1, 8, 7)),
        (Size(cells=2), "8:16:16:24:24:8:16:8", image_task(2, 11, None)),
    ],
    ids=["cifar10", "grey", "deep"],
)
def test_network_and_formula_agree(space: Size, text: str, task: Task) -> None:
    a = space.parse(text)
    network, features = space.build(a, task), space.features(a, task)
    assert {t.device.type for t in network.state_dict().values()} == {"meta"}
    assert features["params"] == sum(p.numel() for p in network.parameters())
    outputs = task.classes or 1
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(torch.empty(2, *task.shape, device="meta")).shape == (2, outputs)
    # Two examples; torch bills the classifier's products, the official files its bias too.
    assert features["macs"] == counter.get_total_flops() / 4 + outputs
    assert (features["depth"], features["n_cell"], features["n_residual"]) == (len(a.genes), len(a.genes) - 2, 2)


def reference_forward(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The network in plain functional torch, evaluation mode, its weights taken in the order of their names."""
    weights = iter([v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")])

    def norm(x: torch.Tensor) -> torch.Tensor:
        weight, bias, mean, var = (next(weights)[:, None, None] for _ in range(4))
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def conv(x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        w = next(weights)
        return F.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2)

    x = norm(conv(x))
    for layer in range(5):
        if layer in (1, 3):
            body = norm(conv(norm(conv(x.relu(), 2)).relu()))
            x = body + conv(F.avg_pool2d(x, 2))
        else:
            one = norm(conv(x.relu()))
            two = norm(conv(x.relu())) + norm(conv(one.relu()))
            skip = norm(conv(x)) if one.shape[1] != x.shape[1] else x
            x = skip + norm(conv(one.relu())) + norm(conv(two.relu()))
    return norm(x).relu().mean((2, 3)) @ next(weights).T + next(weights)


@pytest.mark.parametrize("text", ["8:8:8:8:8", "8:16:24:8:16"])
def test_network_equals_a_functional_second_implementation(text: str) -> None:
    task = image_task(2, 8, 5)
    network = SPACE.build(SPACE.parse(text), task).to_empty(device="cpu").double().eval()
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.4 * (tensor.ndim > 1))
        else:
            tensor.zero_()
    x = torch.randn(3, *task.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(x), reference_forward(network, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("side", [8, 9, 16])
def test_residual_blocks_halve_rounding_up(side: int) -> None:
    network = SPACE.build(SPACE.parse("8:16:8:16:8"), image_task(1, side))
    x = torch.empty(2, 1, side, side, device="meta")
    sizes = [(x := layer(x)).shape[2] for layer in network[:6]]
    half = -(-side // 2)
    assert sizes == [side, side, half, half, -(-half // 2), -(-half // 2)]


def test_images_only() -> None:
    task = Task("wine", "tabular", "accuracy", True, (11,), 3, "0")
    for use in (SPACE.build, SPACE.features):
        with pytest.raises(ValueError, match=r"size: inputs of task 'wine' are tabular .* allowed: images"):
            use(SPACE.at(0), task)


@pytest.mark.parametrize("widths", [(8, 32, 64), WIDTHS])
def test_steps_lead_to_the_next_allowed_width(widths: tuple[int, ...]) -> None:
    space = Size(widths=widths, moves="step")
    pairs = {p for w, v in pairwise(widths) for p in ((w, v), (v, w))}
    for genes in product(widths, repeat=5) if len(widths) == 3 else [(8, 64, 16, 8, 56)]:
        expected = {(*genes[:i], v, *genes[i + 1 :]) for i in range(5) for v in widths if (genes[i], v) in pairs}
        assert {b.genes for b in space.neighbours(Architecture("size", genes))} == expected
    rng, a = np.random.default_rng(0), space.at(1)
    assert {space.mutate(a, rng) for _ in range(300)} == set(space.neighbours(a))


def test_sampling_is_uniform() -> None:
    space, rng = Size(widths=(8, 24, 64)), np.random.default_rng(0)
    counts = Counter(space.index(space.sample(rng)) for _ in range(243 * 20))
    assert chisquare([counts[i] for i in range(243)]).pvalue > 1e-3


@given(st.sets(st.sampled_from(WIDTHS), min_size=2), st.sampled_from(["all", "step"]), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_restrictions_are_closed(widths: set[int], moves: str, seed: int) -> None:
    space, rng = Size(widths=sorted(widths), moves=moves), np.random.default_rng(seed)
    assert registry.space(space.name) == space
    a, b = space.sample(rng), space.sample(rng)
    for c in (a, space.mutate(a, rng), space.crossover(a, b, rng), *space.neighbours(a)):
        space.check(c)
        SPACE.check(c)
        assert space.parse(space.text(c)) == c == SPACE.parse(space.text(c))


def test_names_and_options() -> None:
    space = Size.from_options({"moves": ("step",), "cells": ("2",), "widths": ("64", "8")})
    assert space.name == "size[widths=8,64;cells=2;moves=step]"
    assert (space.size, space.family, len(space.values)) == (2**8, "size", 8)
    assert Size.from_options({}) == SPACE == registry.space("size") != space
    assert SPACE.name == "size"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": ("8",)}, "size: option 'width' is unknown; allowed: widths, cells, moves"),
        ({"widths": ("8", "12")}, "size: widths holds 12; allowed: 8, 16, 24"),
        ({"widths": ("8",)}, "size: widths is '8'; allowed: two or more, each once, of 8, 16"),
        ({"widths": ("8", "8")}, "size: widths is '8,8'; allowed: two or more, each once"),
        ({"widths": ("8", "x")}, "size: widths is 'x'; allowed: one integer"),
        ({"cells": ("0",)}, "size: cells is 0; allowed: integers >= 1"),
        ({"moves": ("far",)}, "size: moves is 'far'; allowed: all, step"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Size.from_options(options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' has 1 layers; allowed: 5, joined by ':'"),
        ("8:8:8:8", "has 4 layers; allowed: 5"),
        ("8:8:12:8:8", "layer 3 of '8:8:12:8:8' is '12'; allowed: 8, 16, 24"),
        ("8:8:8:8:08", "layer 5 of .* is '08'; allowed: 8, 16"),
        ("8:8:8:8:", "layer 5 of .* is ''; allowed: 8, 16"),
    ],
)
def test_malformed_strings_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPACE.parse(text)
