"""Fabrics: their edges and live parts against enumerated paths, their network against plain functional torch."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn

from nasbed.methods import registry
from nasbed.methods.spaces.fabric import Fabric
from nasbed.protocols import Architecture, Task

SPACE = Fabric()
Place = tuple[int, int]


def image_task(channels: int = 1, height: int = 8, width: int = 8, classes: int | None = 10) -> Task:
    return Task("toy", "image", "accuracy", True, (channels, height, width), classes, "0")


# --- second implementations -----------------------------------------------------------------------------------


@cache
def trellis(layers: int, scales: int) -> dict[tuple[Place, Place], str]:
    """All edges between (layer, scale), and what they do."""
    nodes = list(product(range(layers), range(scales)))
    found = {}
    for (l0, s0), (l1, s1) in product(nodes, nodes):
        if l1 == l0 + 1 and abs(s1 - s0) <= 1:
            found[(l0, s0), (l1, s1)] = {0: "same", 1: "down", -1: "up"}[s1 - s0]
        if l1 == l0 and s1 == s0 + 1 and l0 in (0, layers - 1):
            found[(l0, s0), (l1, s1)] = "down"
    return found


@cache
def paths(layers: int, scales: int) -> list[frozenset[tuple[Place, Place]]]:
    """All paths from the upper left to the lower right, as sets of edges."""
    edges = trellis(layers, scales)

    def onwards(at: Place) -> list[frozenset[tuple[Place, Place]]]:
        if at == (layers - 1, scales - 1):
            return [frozenset()]
        return [rest | {edge} for edge in edges if edge[0] == at for rest in onwards(edge[1])]

    return onwards((0, 0))


def taken(space: Fabric, a: Architecture) -> frozenset[tuple[Place, Place]]:
    """The edges of a member, read from the names of its genes."""
    names = [name.split("_") for name, bit in zip(space.gene_names, a.genes, strict=True) if bit]
    places = [tuple((int(part[1 : part.index("s")]), int(part[part.index("s") + 1 :])) for part in n) for n in names]
    return frozenset(places)  # type: ignore[arg-type]


def live(space: Fabric, a: Architecture) -> frozenset[tuple[Place, Place]]:
    edges = taken(space, a)
    return frozenset().union(*(path for path in paths(space.layers, space.scales) if path <= edges))


# --- size and classes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "scales"), [(2, 1), (2, 2), (3, 2), (2, 4), (6, 4), (8, 6)])
def test_genes_are_the_edges_of_the_trellis(layers: int, scales: int) -> None:
    space = Fabric(layers, scales)
    edges = (layers - 1) * (3 * scales - 2) + 2 * (scales - 1)
    assert space.size == 2**edges
    assert taken(space, space.full()) == set(trellis(layers, scales))
    assert len(trellis(layers, scales)) == edges
    assert space.canonical(space.full()) == space.full()


def test_the_default_has_2_to_the_56_members() -> None:
    assert SPACE.size == 2**56


@pytest.mark.parametrize(("layers", "scales", "classes"), [(3, 1, 2), (2, 2, None), (3, 2, None), (2, 3, None)])
def test_all_members_keep_what_lies_on_paths(layers: int, scales: int, classes: int | None) -> None:
    space = Fabric(layers, scales)
    first: dict[object, Architecture] = {}
    for i in range(space.size):
        a = space.at(i)
        b = space.canonical(a)
        assert taken(space, b) == live(space, a)
        assert first.setdefault(taken(space, b), b) == b == space.canonical(b)
        assert b.genes <= a.genes
        assert space.canonical(a, "raw") == a
    assert classes in (None, len(first))


@given(st.integers(0, SPACE.size - 1))
@settings(max_examples=30, deadline=None)
def test_random_members_keep_what_lies_on_paths(index: int) -> None:
    space = Fabric(4, 3)
    a = space.at(index % space.size)
    assert taken(space, space.canonical(a)) == live(space, a)


def test_about_half_of_the_default_subsets_have_no_path() -> None:
    rng = np.random.default_rng(0)
    assert 0.45 < np.mean([not any(SPACE.canonical(SPACE.sample(rng)).genes) for _ in range(1000)]) < 0.57


def test_sampling_is_uniform() -> None:
    space, rng = Fabric(2, 2), np.random.default_rng(0)
    counts = Counter(space.index(space.sample(rng)) for _ in range(64 * 40))
    assert chisquare([counts[i] for i in range(64)]).pvalue > 1e-3


# --- paths ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "scales"), [(2, 1), (2, 3), (4, 2), (4, 3)])
def test_every_path_is_a_sequence_of_scales(layers: int, scales: int) -> None:
    space = Fabric(layers, scales)
    allowed = [s for s in product(range(scales), repeat=layers) if all(abs(a - b) < 2 for a, b in pairwise(s))]
    members = [space.path(s) for s in allowed]
    assert {taken(space, a) for a in members} == set(paths(layers, scales))
    assert len(set(members)) == len(members) == len(paths(layers, scales))
    assert all(space.canonical(a) == a for a in members)


@pytest.mark.parametrize("scales", [(0, 0), (0, 2, 2), (0, 1, 3), (-1, 0, 1)])
def test_sequences_that_are_no_path_are_named(scales: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"scales is '.*'; allowed: 3 of 0 to 2, in steps of at most 1"):
        Fabric(3, 3).path(scales)


# --- names and notation ---------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    assert SPACE.name == "fabric" == Fabric(6, 4, 16).name
    space = registry.space("fabric[channels=8;scales=2;layers=3]")
    assert space == Fabric(3, 2, 8)
    assert space.name == "fabric[layers=3;scales=2;channels=8]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": ("3",)}, "fabric: option 'layer' is unknown; allowed: layers, scales, channels"),
        ({"layers": ("1",)}, "fabric: layers is 1; allowed: integers >= 2"),
        ({"scales": ("0",)}, "fabric: scales is 0; allowed: integers >= 1"),
        ({"channels": ("0",)}, "fabric: channels is 0; allowed: integers >= 1"),
        ({"scales": ("1", "2")}, "fabric: scales is '1,2'; allowed: one integer"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fabric.from_options(options)


def test_notation() -> None:
    space = Fabric(3, 3)
    a = space.parse("in,v,-|su,d,s|-,sdu,dv")
    assert taken(space, a) == {
        ((0, 0), (0, 1)),
        *(((0, 0), (1, 0)), ((0, 1), (1, 0)), ((0, 0), (1, 1)), ((0, 2), (1, 2))),
        *(((1, 1), (2, 1)), ((1, 0), (2, 1)), ((1, 2), (2, 1)), ((1, 1), (2, 2)), ((2, 1), (2, 2))),
    }
    rng = np.random.default_rng(0)
    for a in (space.sample(rng) for _ in range(50)):
        assert space.parse(space.text(a)) == a


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("in,v|su,d", "has 2 layers; allowed: 3, joined by '|'"),
        ("in,v|su|-,-", "layer 1 is 'su'; allowed: 2 nodes, joined by ','"),
        ("-,v|su,d|-,-", "node 0.0 is '-'; allowed: 'in'"),
        ("in,v|us,d|-,-", "node 1.0 is 'us'; allowed: letters of 'su', in this order, or '-'"),
        ("in,v|su,v|-,-", "node 1.1 is 'v'; allowed: letters of 'sd', in this order, or '-'"),
        ("in,v|su,d|-,ssv", "node 2.1 is 'ssv'"),
        ("in,v|su,d|-,", "node 2.1 is ''"),
    ],
)
def test_malformed_texts_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        Fabric(3, 2).parse(text)


def test_a_node_without_possible_edges_is_named() -> None:
    space = Fabric(2, 1)
    assert space.text(space.full()) == "in|s"
    with pytest.raises(ValueError, match=r"node 1.0 is 'sv'; allowed: letters of 's'"):
        space.parse("in|sv")


# --- graphs and network ---------------------------------------------------------------------------------------


def test_the_graph_is_the_live_part_in_its_place() -> None:
    space = Fabric(3, 2)
    graph = space.graphs(space.parse("in,v|-,s|u,-"))["network"]  # the path ends at the finer scale
    assert ([n.name for n in graph.nodes], graph.edges) == (["input", "output"], ())
    graph = space.graphs(space.parse("in,v|-,s|u,v"))["network"]
    assert [n.name for n in graph.nodes] == ["input", "0.1", "1.1", "2.0", "output"]
    assert graph.edges == ((0, 1, "down"), (1, 2, "same"), (2, 3, "up"), (3, 4, "down"))
    assert graph.places == ((0, 0), (0.5, 1), (1, 1), (2, 0), (2.5, 1))
    assert graph.depth == 4


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (2, 9, 5), (1, 1, 3)])
def test_shapes_and_parameters(shape: tuple[int, int, int]) -> None:
    space = Fabric(4, 4, channels=5)
    task = image_task(*shape, classes=None)
    members = [space.full(), space.at(0), space.path((0, 1, 2, 3)), space.sample(np.random.default_rng(3))]
    for a in members:
        edges = live(space, a)
        assert space.build(a, task)(torch.empty(2, *shape, device="meta")).shape == (2, 1)
        nodes = {target for _, target in edges}
        stem = (9 * 5 * shape[0] + 10) * bool(edges)
        features = space.features(a, task)
        assert features["params"] == stem + 9 * 5 * 5 * len(edges) + 10 * len(nodes) + 6
        assert sum(features[f"n_{op}"] for op in space.operations) == len(edges)


def filled(network: nn.Module, seed: int) -> nn.Module:
    """Random weights and batch statistics, in float64, for evaluation."""
    network = network.to_empty(device="cpu").double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.4)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
            else:
                tensor.zero_()
    return network


def images(task: Task) -> torch.Tensor:
    return torch.randn(3, *task.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def test_a_path_is_the_plain_network() -> None:
    """A VGG-like chain of convolution, normalisation and ReLU, written down by itself, with the same weights."""
    space, task = Fabric(4, 3, channels=6), image_task(2, 9, 7, 5)
    fabric = filled(space.build(space.path((0, 0, 1, 1)), task), seed=1)

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    strides = (1, 1, 2, 1, 2)
    layers = [module for i, stride in enumerate(strides) for module in block(6 if i else 2, 6, stride)]
    plain = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).double().eval()

    def by_kind(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
        return [m for m in network.modules() if isinstance(m, kind)]

    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear):
        for source, target in zip(by_kind(fabric, kind), by_kind(plain, kind), strict=True):
            target.load_state_dict(source.state_dict())
    x = images(task)
    with torch.no_grad():
        assert plain(x).std() > 0
        torch.testing.assert_close(fabric(x), plain(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "text", ["full", "in,v,v|su,sd,sd|-,sdu,s|u,-,-|s,d,dv", "in,-,v|su,sd,s|su,su,d|s,du,d|-,sd,dv"]
)
def test_network_equals_a_functional_second_implementation(text: str) -> None:
    space, task = Fabric(5, 3, channels=4), image_task(2, 7, 10, 5)
    a = space.full() if text == "full" else space.parse(text)
    network = filled(space.build(a, task), seed=1)
    w, x = network.state_dict(), images(task)

    def norm(x: torch.Tensor, at: str) -> torch.Tensor:
        return F.relu(F.batch_norm(x, *(w[f"{at}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))))

    edges = sorted(live(space, a), key=lambda edge: (edge[1], edge[0][0] == edge[1][0], order(edge)))
    values = {(0, 0): norm(F.conv2d(x, w["stem.0.weight"], padding=1), "stem.1")}
    for n, node in enumerate(sorted({target for _, target in edges})):
        total = torch.zeros((), dtype=torch.float64)
        for i, (source, target) in enumerate(edges):
            if target == node:
                value = values[source]
                if source[1] > target[1]:
                    rows, columns = ((torch.arange(-(-side // 2 ** target[1])) // 2) for side in x.shape[2:])
                    value = value[:, :, rows][:, :, :, columns]
                value = F.conv2d(value, w[f"edges.{i}.weight"], padding=1)
                total = total + (value[:, :, ::2, ::2] if source[1] < target[1] else value)
        values[node] = norm(total, f"norms.{n}")
    expected = F.linear(values[4, 2].mean(dim=(2, 3)), w["head.2.weight"], w["head.2.bias"])
    with torch.no_grad():
        assert expected.std() > 0
        torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-10)


def order(edge: tuple[Place, Place]) -> int:
    """Same, down, up: the order of genes at a node."""
    return {0: 0, 1: 1, -1: 2}[edge[1][1] - edge[0][1]]


def test_without_a_path_the_classifier_reads_zeros() -> None:
    space, task = Fabric(3, 2, channels=4), image_task()
    network = filled(space.build(space.at(0), task), seed=1)
    assert [name for name, _ in network.named_parameters()] == ["head.2.weight", "head.2.bias"]
    with torch.no_grad():
        assert torch.equal(network(images(task)), network.state_dict()["head.2.bias"].expand(3, -1))


@pytest.mark.parametrize(("layers", "scales"), [(2, 1), (6, 4), (12, 5), (2, 12)])
def test_path_encodings_stay_small(layers: int, scales: int) -> None:
    space = Fabric(layers, scales, channels=2)
    code = space.encode(space.full(), "path")
    assert 1 <= len(code) <= 4096


def test_the_path_encoding_of_a_chain_has_its_word() -> None:
    space = Fabric(3, 2)  # words of 2 and 3 letters
    assert space.encode(space.at(0), "path").shape == (9 + 27,)
    assert np.flatnonzero(space.encode(space.path((0, 0, 1)), "path")).tolist() == [1]  # same, down
    assert np.flatnonzero(space.encode(space.path((1, 0, 1)), "path")).tolist() == [9 + 9 + 2 * 3 + 1]  # down, up, down
