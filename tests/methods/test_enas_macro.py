"""ENAS's macro space: its size, what its bits mean, its notation, its network against a second implementation."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nasbed.methods import registry
from nasbed.methods.spaces.enas_macro import OPS, EnasMacro
from nasbed.protocols import Architecture, IndexedSpace, Task

SPACE = EnasMacro()
SMALL = EnasMacro(layers=3, ops=("conv_3x3", "avg_pool_3x3"), channels=4)

# The first lines of `scripts/cifar10_macro_final.sh` of the authors' repository, one layer each.
SCRIPT = "0  3 0  0 1 0  2 0 0 1  2 0 0 0 0  3 1 1 0 1 0"


def image_task(channels: int = 3, height: int = 16, width: int = 16, classes: int | None = 10) -> Task:
    return Task("toy", "image", "accuracy", True, (channels, height, width), classes, "0")


# --- the space ------------------------------------------------------------------------------------------------


def test_size() -> None:
    assert isinstance(SPACE, IndexedSpace)
    assert SPACE.size == 6**12 * 2**66 == 160_618_186_625_454_535_808_756_219_904
    for layers in (1, 2, 5, 24):
        assert EnasMacro(layers=layers).size == 6**layers * 2 ** (layers * (layers - 1) // 2)
    assert SMALL.size == len({SMALL.at(i) for i in range(64)}) == 64


def test_bits_cover_the_stem_and_all_layers_but_the_one_before() -> None:
    space = EnasMacro(layers=6)
    assert space.decode(space.parse(SCRIPT)) == [
        ("conv_3x3", ()),
        ("sep_conv_5x5", ()),
        ("conv_3x3", (0,)),
        ("conv_5x5", (2,)),
        ("conv_5x5", ()),
        ("sep_conv_5x5", (0, 1, 3)),
    ]
    for layer in range(1, 7):
        every = space.decode(space.at(space.size - 1))[layer - 1]
        assert every == ("max_pool_3x3", tuple(range(layer - 1)))


def test_sampling_a_restriction_is_uniform() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(SMALL.index(SMALL.sample(rng)) for _ in range(64 * 40))
    assert chisquare([counts[i] for i in range(64)]).pvalue > 1e-3


def test_sampling_the_whole_space_is_uniform_in_every_gene() -> None:
    rng = np.random.default_rng(1)
    genes = np.array([SPACE.sample(rng).genes for _ in range(1200)])
    for column, allowed in zip(genes.T, SPACE.values, strict=True):
        assert chisquare(np.bincount(column, minlength=len(allowed))).pvalue > 1e-5


def test_raw_is_the_only_level() -> None:
    a = SPACE.sample(np.random.default_rng(0))
    assert SPACE.levels == ("raw",)
    assert SPACE.canonical(a) == SPACE.canonical(a, "raw") == a
    with pytest.raises(ValueError, match="level 'iso' is unknown; allowed: raw"):
        SPACE.canonical(a, "iso")


# --- names and notation ---------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    assert SPACE.name == "enas_macro"
    space = registry.space("enas_macro[channels=4;ops=avg_pool_3x3,conv_3x3;layers=3]")
    assert space.name == "enas_macro[layers=3;ops=conv_3x3,avg_pool_3x3;channels=4]"
    assert space == SMALL == pickle.loads(pickle.dumps(SMALL))
    assert SMALL.values == ((0, 4), (0, 4), (0, 1), (0, 4), (0, 1), (0, 1))
    assert SMALL.gene_names == ("op_1", "op_2", "skip_0_2", "op_3", "skip_0_3", "skip_1_3")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": ("3",)}, "option 'depth' is unknown; allowed: layers, ops, channels"),
        ({"layers": ("0",)}, "layers is 0; allowed: integers >= 1"),
        ({"layers": ("many",)}, "layers is 'many'; allowed: one integer"),
        ({"channels": ("0",)}, "channels is 0; allowed: integers >= 1"),
        ({"ops": ("conv",)}, "ops holds 'conv'; allowed: conv_3x3, sep_conv_3x3"),
        ({"ops": ("conv_3x3", "conv_3x3")}, "ops is 'conv_3x3,conv_3x3'; allowed: one or more, each once"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match="^enas_macro: " + message):
        EnasMacro.from_options(options)


def test_the_authors_string() -> None:
    space = EnasMacro(layers=6)
    a = space.parse(SCRIPT)
    assert a.genes == tuple(map(int, SCRIPT.split()))
    assert space.text(a) == "0 / 3 0 / 0 1 0 / 2 0 0 1 / 2 0 0 0 0 / 3 1 1 0 1 0"
    assert space.parse(space.text(a)) == a


@given(st.integers(0, SPACE.size - 1))
@settings(max_examples=50, deadline=None)
def test_text_round_trips(index: int) -> None:
    a = SPACE.at(index)
    assert SPACE.parse(SPACE.text(a)) == a == SPACE.parse(SPACE.text(a).replace("/", ""))
    assert SPACE.index(a) == index


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 / 4 1", "'0 / 4 1' has 2 layers; allowed: 3"),
        ("0 / 4 / 0 1 1", "layer 2 is '4'; allowed: 2 numbers, an operation and its bits"),
        ("0 / 4 1 / 0 1 1 1", "layer 3 is '0 1 1 1'; allowed: 3 numbers"),
        ("0 4 1 0 1 1 0", "layer 3 is '0 1 1 0'; allowed: 3 numbers"),
        ("0 4", "layer 2 is '4'"),
        ("", "layer 1 is ''; allowed: 1 numbers"),
        ("0 / 3 1 / 0 1 1", "layer 2 holds '3'; allowed: 0, 4"),
        ("0 / 4 2 / 0 1 1", "layer 2 holds '2'; allowed: 0, 1"),
        ("0 / 4 x / 0 1 1", "layer 2 holds 'x'; allowed: 0, 1"),
        ("0 / 4 1 / 00 1 1", "layer 3 holds '00'; allowed: 0, 4"),
    ],
)
def test_malformed_texts_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="^enas_macro: " + message):
        SMALL.parse(text)


def test_strangers_are_named() -> None:
    with pytest.raises(ValueError, match=r"gene 2 \(skip_0_2\) of .* is 2; allowed: 0, 1"):
        SMALL.check(Architecture("enas_macro", (0, 0, 2, 0, 0, 0)))
    with pytest.raises(ValueError, match="is of the space 'enas_micro'; allowed: 'enas_macro'"):
        SMALL.build(Architecture("enas_micro", (0,) * 6), image_task())


# --- graph, features, network ---------------------------------------------------------------------------------


def test_graph() -> None:
    graph = SMALL.graphs(SMALL.parse("0 / 4 0 / 0 1 1"))["network"]
    named = [(graph.nodes[s].name, graph.nodes[t].name, op) for s, t, op in graph.edges]
    assert named == [
        ("input", "1", ""),
        ("1", "2", ""),
        ("2", "3", ""),
        ("input", "join 3", ""),
        ("1", "join 3", ""),
        ("3", "join 3", ""),
        ("join 3", "output", ""),
    ]
    assert [node.operation for node in graph.nodes] == ["", "conv_3x3", "avg_pool_3x3", "conv_3x3", "", ""]
    assert graph.words(3) == [{(), ("conv_3x3",), ("conv_3x3", "avg_pool_3x3", "conv_3x3")}]


def expected_params(a: Architecture, space: EnasMacro, inputs: int, outputs: int) -> int:
    """Layer by layer from the description, without the network."""
    c, layers = space.channels, space.decode(a)
    total = 9 * inputs * c + 2 * c
    for i, (operation, skips) in enumerate(layers, start=1):
        total += c * c + 2 * c
        kernel = int(operation[-1])
        if operation.startswith("conv"):
            total += kernel**2 * c * c + 2 * c
        elif operation.startswith("sep"):
            total += kernel**2 * c + c * c + 2 * c
        if i > 1:
            total += (len(skips) + 1) * c * c + 2 * c
        if i in (len(layers) // 3, 2 * (len(layers) // 3)):
            # By definition the next layer reads output i; skips of that and later layers may read any other.
            kept = {i} | {s for _, later in layers[i:] for s in later if s < i}
            total += len(kept) * (2 * c * c + 4 * c)
            c *= 2
    return total + (c + 1) * outputs


@pytest.mark.parametrize("layers", [1, 2, 3, 5, 8])
def test_params_follow_the_description(layers: int) -> None:
    space, rng = EnasMacro(layers=layers, channels=6), np.random.default_rng(layers)
    for classes in (10, None):
        a = space.sample(rng)
        network = space.build(a, image_task(classes=classes))
        assert sum(p.numel() for p in network.parameters()) == expected_params(a, space, 3, classes or 1)
        graph = space.graphs(a)["network"]
        assert graph.depth == layers == sum(graph.count(op) for op in OPS)


def test_features() -> None:
    a = SMALL.parse("0 / 4 0 / 0 1 1")
    features = SMALL.features(a, image_task(1, 8, 8))
    assert features["params"] == expected_params(a, SMALL, 1, 10)
    assert (features["depth"], features["n_conv_3x3"], features["n_avg_pool_3x3"]) == (3, 2, 1)
    # Stem; at 8x8 a 1x1 and a 3x3 convolution of 4 channels; the reductions of outputs 0 and 1 to 8 channels at 4x4,
    # there two 1x1 convolutions of layer 2, and reductions of outputs 0, 1 and 2 to 16 channels at 2x2; there
    # layer 3 and its join of three; the classifier.
    macs = 64 * 9 * 4 + 64 * (16 + 144) + 2 * 16 * 32 + 2 * 16 * 64 + 3 * 4 * 128 + 4 * (256 + 2304 + 768) + 160
    assert features["macs"] == macs


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (2, 9, 11)])
@pytest.mark.parametrize("genes", ["0 / 1 1 / 2 1 1 / 3 1 1 1 / 4 1 1 1 1 / 5 1 1 1 1 1", SCRIPT])
def test_build(shape: tuple[int, int, int], genes: str) -> None:
    space, task = EnasMacro(layers=6, channels=3), image_task(*shape)
    network = space.build(space.parse(genes), task)
    assert {t.device.type for t in network.state_dict().values()} == {"meta"}
    assert network.train()(torch.empty(2, *shape, device="meta")).shape == (2, 10)


def test_build_refuses_tables() -> None:
    task = Task("wine", "tabular", "accuracy", True, (13,), 3, "0")
    with pytest.raises(ValueError, match="enas_macro: inputs of task 'wine' are tabular"):
        SPACE.build(SPACE.at(0), task)


def test_unread_outputs_have_no_reduction() -> None:
    space = EnasMacro(layers=6, channels=3)
    network = space.build(space.parse(SCRIPT), image_task())
    # After layer 2 are read: the stem by 3 and 6, layer 1 by 6, layer 2 by 3 and 4; after layer 4: 0, 1, 3, 4.
    assert {at: sorted(kept) for at, kept in network.reductions.items()} == {
        "2": ["0", "1", "2"],
        "4": ["0", "1", "3", "4"],
    }


def filled(space: EnasMacro, a: Architecture, task: Task) -> torch.nn.Module:
    """The network with random weights and statistics, in float64."""
    network = space.build(a, task).to_empty(device="cpu").double().eval()
    generator = torch.Generator().manual_seed(3)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.5)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return network


def reference(layers: list[tuple[str, tuple[int, ...]]], w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network in plain functional torch, evaluation mode, with the bits of the authors' code."""

    def norm(x: torch.Tensor, at: str) -> torch.Tensor:
        return F.batch_norm(x, *(w[f"{at}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")))

    def conv(x: torch.Tensor, at: str) -> torch.Tensor:
        weight = w[f"{at}.weight"]
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(x, weight, padding=weight.shape[2] // 2, groups=groups)

    def halved(x: torch.Tensor, at: str) -> torch.Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1::2, 1::2]
        both = [F.conv2d(x[:, :, ::2, ::2], w[f"{at}.even.weight"]), F.conv2d(shifted, w[f"{at}.odd.weight"])]
        return norm(torch.cat(both, 1), f"{at}.norm")

    kept = [norm(conv(x, "stem.0"), "stem.1")]
    for i, (operation, skips) in enumerate(layers):
        at = f"layers.{i}.operation"
        y = norm(conv(F.relu(kept[-1]), f"{at}.0.1"), f"{at}.0.2")
        if operation.startswith("conv"):
            y = norm(conv(F.relu(y), f"{at}.1.1"), f"{at}.1.2")
        elif operation.startswith("sep"):
            y = norm(conv(conv(F.relu(y), f"{at}.1.1"), f"{at}.1.2"), f"{at}.1.3")
        else:
            padding = -torch.inf if operation.startswith("max") else torch.nan
            patches = F.pad(y, (1, 1, 1, 1), value=padding).unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
            y = patches.amax(-1) if operation.startswith("max") else patches.nanmean(-1)
        if i:
            joined = torch.cat([*(kept[s] for s in skips), y], 1)
            y = norm(conv(F.relu(joined), f"layers.{i}.join.1"), f"layers.{i}.join.2")
        kept.append(y)
        if i + 1 in (len(layers) // 3, 2 * (len(layers) // 3)):
            known = [f"reductions.{i + 1}.{s}" for s in range(i + 2)]
            # An output without weights here is read by nobody.
            kept = [
                halved(x, at) if f"{at}.norm.weight" in w else torch.empty(0) for x, at in zip(kept, known, strict=True)
            ]
    return F.linear(kept[-1].mean(dim=(2, 3)), w["head.2.weight"], w["head.2.bias"])


@pytest.mark.parametrize(
    "text",
    [
        "0 / 1 0 / 2 0 1 / 3 1 0 1 / 4 0 1 1 0 / 5 1 0 0 1 1",
        "5 / 4 1 / 3 1 1 / 2 1 1 1 / 1 1 1 1 1 / 0 1 1 1 1 1",
        "1 / 0 0 / 5 0 0 / 4 0 0 0 / 3 0 0 0 0 / 2 0 0 0 0 0",
    ],
)
def test_network_equals_a_functional_second_implementation(text: str) -> None:
    space, task = EnasMacro(layers=6, channels=3), image_task(2, 8, 8, 5)
    a = space.parse(text)
    network = filled(space, a, task)
    x = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    with torch.no_grad():
        expected = reference(space.decode(a), network.state_dict(), x)
        torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-10)
