"""Hierarchical motifs: their classes against the unrolled cells, their network against nested modules."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn

from nasbed.harness.checks_sameness import same_function
from nasbed.methods import registry
from nasbed.methods.networks.cells import CellNetwork, plan
from nasbed.methods.networks.hierarchical import GraphCell, Halved
from nasbed.methods.networks.operations import OPERATIONS, relu_conv_bn
from nasbed.methods.spaces.hierarchical import OPS, Hierarchical
from nasbed.protocols import Architecture, CellSpace, Task

SPACE = Hierarchical()
TWO = ("conv_1x1", "identity")
# Small worlds: level-2 motifs of 2 or 3 nodes, and a top motif over them.
WORLDS = (
    Hierarchical(ops=TWO, motifs=(2, 1), nodes=(2, 3)),
    Hierarchical(ops=TWO, motifs=(2, 1), nodes=(3, 2)),
    Hierarchical(ops=["conv_1x1"], motifs=(2, 1), nodes=(3, 3)),
    Hierarchical(ops=TWO, motifs=(2,), nodes=(3,), top="chain"),
    Hierarchical(ops=["identity"], motifs=(2, 1, 1), nodes=(2, 3, 2)),
    Hierarchical(ops=TWO, motifs=(2, 2), nodes=(2, 2), top="chain"),
)
Motif = dict[tuple[int, int], int]


def image_task(channels: int = 1, side: int = 8, classes: int | None = 10) -> Task:
    return Task("toy", "image", "accuracy", True, (channels, side, side), classes, "0")


# --- second implementations -----------------------------------------------------------------------------------


def motifs_of(space: Hierarchical, a: Architecture) -> dict[tuple[int, int], Motif]:
    """(level, number) -> the edges of a motif that are something, read from the names of the genes."""
    found: dict[tuple[int, int], Motif] = defaultdict(dict)
    for name, value in zip(space.gene_names, a.genes, strict=True):
        level, motif, source, target = name.split("_")
        edges = found[int(level.removeprefix("level")), int(motif.removeprefix("motif"))]
        if value:
            edges[int(source), int(target)] = value
    if space.top == "chain":
        found[len(space.motifs) + 2, 1] = {(i, i + 1): i for i in range(1, space.motifs[-1] + 1)}
    return dict(found)


def output_node(space: Hierarchical, level: int) -> int:
    return [*space.nodes, space.motifs[-1] + 1][level - 2]


def live_edges(space: Hierarchical, motifs: dict[tuple[int, int], Motif], level: int, number: int) -> Motif:
    """The edges of a motif on paths from node 1 to its last node, found by listing all paths."""
    edges = {
        edge: value
        for edge, value in motifs[level, number].items()
        if level == 2 or live_edges(space, motifs, level - 1, value)
    }

    def onwards(node: int) -> list[list[tuple[int, int]]]:
        if node == output_node(space, level):
            return [[]]
        return [[edge, *rest] for edge in edges if edge[0] == node for rest in onwards(edge[1])]

    kept = {edge for path in onwards(1) for edge in path}
    return {edge: edges[edge] for edge in sorted(kept, key=lambda edge: edge[::-1])}


def unrolled(space: Hierarchical, a: Architecture) -> object:
    """The cell with every motif number replaced by the motif: nested dictionaries down to operations."""
    motifs = motifs_of(space, a)

    def unroll(level: int, number: int) -> object:
        if level == 1:
            return OPS[number - 1]
        return {e: unroll(level - 1, v) for e, v in live_edges(space, motifs, level, number).items()}

    return unroll(max(level for level, _ in motifs), 1)


class Nested(nn.Module):
    """A motif as the paper describes it: modules inside modules."""

    def __init__(self, tree: dict[tuple[int, int], object], channels: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.steps = list(tree)
        self.edges = nn.ModuleList(
            OPERATIONS[sub](channels, 1) if isinstance(sub, str) else Nested(sub, channels)  # type: ignore[arg-type]
            for sub in tree.values()
        )
        entering = Counter(target for _, target in self.steps)
        self.merges = nn.ModuleDict(
            {str(node): relu_conv_bn(n * channels, channels) for node, n in entering.items() if n > 1}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.steps:
            return torch.zeros_like(x)
        values = {1: x}
        for node in sorted({target for _, target in self.steps}):
            entering = [
                edge(values[source])
                for (source, target), edge in zip(self.steps, self.edges, strict=True)
                if target == node
            ]
            values[node] = self.merges[str(node)](torch.cat(entering, 1)) if len(entering) > 1 else entering[0]
        return values[max(values)]


def nested_network(space: Hierarchical, tree: object, task: Task) -> nn.Module:
    def make(channels: int, reduction: bool) -> nn.Module:
        cell = Nested(tree, channels)  # type: ignore[arg-type]
        return Halved(cell, channels) if reduction else cell

    steps = plan(space.cells, space.channels)
    with torch.device("meta"):
        return CellNetwork(make, 1, steps, inputs=task.shape[0], stem=space.channels, outputs=task.classes or 1)


def renumbered(space: Hierarchical, a: Architecture, level: int, order: tuple[int, ...]) -> Architecture:
    """`a` with motif n of a level called order[n - 1]."""
    motifs = motifs_of(space, a)
    moved = {
        (at, order[n - 1] if at == level else n): {
            edge: order[value - 1] if at == level + 1 else value for edge, value in edges.items()
        }
        for (at, n), edges in motifs.items()
    }
    return assembled(space, moved)


def assembled(space: Hierarchical, motifs: dict[tuple[int, int], Motif]) -> Architecture:
    genes = []
    for name in space.gene_names:
        level, motif, source, target = name.split("_")
        edges = motifs[int(level.removeprefix("level")), int(motif.removeprefix("motif"))]
        genes.append(edges.get((int(source), int(target)), 0))
    return Architecture("hierarchical", tuple(genes))


# --- size and moves -------------------------------------------------------------------------------------------


def test_the_default_has_7_to_the_46_members() -> None:
    assert SPACE.size == 7**46
    assert len(SPACE.gene_names) == 6 * 6 + 10


@pytest.mark.parametrize("motifs", [1, 2, 3])
def test_two_levels_over_three_operations(motifs: int) -> None:
    ops = ("conv_1x1", "max_pool_3x3", "identity")
    assert Hierarchical(ops=ops, motifs=(motifs,), nodes=(3,), top="chain").size == (4**3) ** motifs


def test_mutation_changes_one_edge_of_one_motif() -> None:
    rng = np.random.default_rng(0)
    a = SPACE.sample(rng)
    for _ in range(100):
        b = SPACE.mutate(a, rng)
        SPACE.check(b)
        assert sum(x != y for x, y in zip(a.genes, b.genes, strict=True)) == 1
        a = b


def test_sampling_is_uniform() -> None:
    space, rng = WORLDS[0], np.random.default_rng(0)
    counts = Counter(space.index(space.sample(rng)) for _ in range(space.size * 30))
    assert chisquare([counts[i] for i in range(space.size)]).pvalue > 1e-3


def test_identity_and_diversified() -> None:
    assert SPACE.text(SPACE.identity()) == "+".join(["id/-,id/-,-,id"] * 6) + "|1/-,1/-,-,1/-,-,-,1"
    assert SPACE.features(SPACE.identity(), image_task())["depth"] == 0
    assert SPACE.diversified(np.random.default_rng(0), 0) == SPACE.identity()
    a, b = (SPACE.diversified(np.random.default_rng(seed)) for seed in (0, 1))
    assert a != b
    SPACE.check(a)
    c, d = (SPACE.diversified(np.random.default_rng(0), mutations=n) for n in (1, 1000))
    assert c in SPACE.neighbours(SPACE.identity())
    assert d == a
    with pytest.raises(ValueError, match="ops is conv_1x1; the genotype of identities needs identity"):
        Hierarchical(ops=["conv_1x1"]).identity()


# --- canonical forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", WORLDS, ids=str)
def test_classes_are_the_unrolled_cells(space: Hierarchical) -> None:
    """Over whole worlds: equal representatives just if equal cells, and the representative is the smallest member."""
    first: dict[str, Architecture] = {}
    for i in range(space.size):
        a = space.at(i)
        smallest = first.setdefault(repr(unrolled(space, a)), a)
        assert space.canonical(a, "motifs") == smallest
        assert repr(unrolled(space, space.canonical(a, "motifs"))) == repr(unrolled(space, a))
        assert space.flatten(space.canonical(a, "motifs")) == space.flatten(a)
    assert len({space.canonical(a, "motifs") for a in first.values()}) == len(first)
    assert len({space.flatten(a) for a in first.values()}) == len(first)


def test_the_number_of_cells_of_three_nodes() -> None:
    # 1 -> 3 alone, 1 -> 2 -> 3 alone, both: with 2 operations 2 + 4 + 8, and the cell without a path.
    space = Hierarchical(ops=TWO, motifs=(1,), nodes=(3,))
    assert len({space.canonical(space.at(i), "motifs") for i in range(space.size)}) == 2 + 4 + 8 + 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_numbers_of_motifs_and_unused_motifs_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = Hierarchical(motifs=(4, 3, 1), nodes=(4, 3, 4))
    a = space.sample(rng)
    representative = space.canonical(a, "motifs")
    space.check(representative)
    assert space.canonical(representative, "motifs") == representative
    for level, count in ((2, 4), (3, 3)):
        order = tuple(int(n) + 1 for n in rng.permutation(count))
        assert space.canonical(renumbered(space, a, level, order), "motifs") == representative
    # Everything that no edge from the top refers to, dead edges included, gets random genes.
    motifs, used = motifs_of(space, a), {(4, 1)}
    for level in (4, 3):
        used |= {
            (level - 1, v)
            for (at, n), edges in motifs.items()
            if (at, n) in used
            for v in edges.values()
            if at == level
        }
    noise = motifs_of(space, space.sample(rng))
    b = assembled(space, {key: edges if key in used else noise[key] for key, edges in motifs.items()})
    assert space.canonical(b, "motifs") == representative
    assert space.flatten(representative) == space.flatten(a)


def test_equal_motifs_are_one() -> None:
    space = WORLDS[0]
    a, b = space.parse("c1+c1|1/-,2"), space.parse("-+c1|2/-,2")
    assert space.canonical(a, "motifs") == b == space.canonical(space.parse("c1+id|1/-,1"), "motifs")
    assert space.canonical(space.parse("c1+id|1/-,2"), "motifs") != b


@pytest.mark.parametrize("level", ["motifs", "raw", "iso"])
def test_canonical_is_idempotent_and_stays_inside(level: str) -> None:
    rng = np.random.default_rng(0)
    for space in (*WORLDS, SPACE):
        for a in (space.sample(rng) for _ in range(20)):
            b = space.canonical(a, level)
            space.check(b)
            assert space.canonical(b, level) == b
            assert space.canonical(space.canonical(a, "motifs"), level) == b or level == "raw"


def test_iso_merges_the_orders_of_inner_nodes() -> None:
    """All cells of four nodes over one operation, against a search over permutations of the inner nodes."""
    space = Hierarchical(ops=["conv_1x1"], motifs=(1,), nodes=(4,))

    def orbit(a: Architecture) -> frozenset[frozenset[tuple[int, int]]]:
        edges = live_edges(space, motifs_of(space, a), 2, 1)
        return frozenset(
            frozenset((order[s - 1], order[t - 1]) for s, t in edges) for order in ((1, 2, 3, 4), (1, 3, 2, 4))
        )

    first: dict[object, Architecture] = {}
    for i in range(space.size):
        a = space.at(i)
        assert first.setdefault(orbit(a), space.canonical(a, "iso")) == space.canonical(a, "iso")
    assert len({space.canonical(space.at(i), "iso") for i in range(space.size)}) == len(first) == 14
    assert len({space.canonical(space.at(i), "motifs") for i in range(space.size)}) == 16


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_iso_is_blind_to_the_order_of_inner_nodes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = SPACE.sample(rng)
    motifs = motifs_of(SPACE, a)
    key = [(2, int(rng.integers(1, 7))), (3, 1)][int(rng.integers(2))]
    size = SPACE.nodes[key[0] - 2]
    for inner in permutations(range(2, size)):
        order = (1, *inner, size)
        moved = {(order[s - 1], order[t - 1]): v for (s, t), v in motifs[key].items()}
        if all(s < t for s, t in moved):
            b = assembled(SPACE, motifs | {key: moved})
            assert SPACE.canonical(b, "iso") == SPACE.canonical(a, "iso")


def test_iso_keeps_the_function_up_to_the_order_of_channels() -> None:
    space = Hierarchical(ops=("conv_1x1", "max_pool_3x3"), motifs=(1,), nodes=(4,), channels=4, cells=1)
    a, b, c = map(space.parse, ("c1/m3,-/-,c1,c1", "m3/c1,-/-,c1,c1", "m3/c1,-/-,m3,c1"))
    task = image_task(2, 8, 5)
    assert space.canonical(a, "motifs") != space.canonical(b, "motifs")
    assert space.canonical(a, "iso") == space.canonical(b, "iso") != space.canonical(c, "iso")
    assert same_function(space.build(a, task), space.build(b, task), task)
    assert not same_function(space.build(a, task), space.build(c, task), task)


# --- names and notation ---------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    assert SPACE.name == "hierarchical"
    name = "hierarchical[ops=conv_1x1,identity;motifs=2,1;nodes=3,4;channels=4;cells=2]"
    space = registry.space(name)
    assert (space.name, space) == (name, Hierarchical(TWO[::-1], (2, 1), (3, 4), channels=4, cells=2))
    assert registry.space("hierarchical[nodes=4;top=chain;motifs=3]").name == "hierarchical[motifs=3;nodes=4;top=chain]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"op": ("identity",)}, "option 'op' is unknown; allowed: ops, motifs, nodes, top, channels, cells"),
        ({"ops": ("conv",)}, "ops holds 'conv'; allowed: conv_1x1, depthwise_conv_3x3"),
        ({"ops": ("identity", "identity")}, "ops is 'identity,identity'; allowed: one or more, each once"),
        ({"motifs": ("6", "2")}, "motifs is '6,2'; allowed: 1 to 9 for each level from the second, the last of them 1"),
        ({"motifs": ("0", "1")}, "motifs is '0,1'; allowed"),
        ({"motifs": ("10",), "top": ("chain",)}, "motifs is '10'; allowed: 1 to 9 for each level from the second$"),
        ({"nodes": ("4",)}, "nodes is '4'; allowed: 2 to 7 for each of 2 levels"),
        ({"nodes": ("4", "8")}, "nodes is '4,8'; allowed"),
        ({"top": ("tree",)}, "top is 'tree'; allowed: free, chain"),
        ({"channels": ("0",)}, "channels is 0; allowed: integers >= 1"),
        ({"cells": ("two",)}, "cells is 'two'; allowed: one integer"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=f"hierarchical: {message}"):
        Hierarchical.from_options(options)


@pytest.mark.parametrize("space", [SPACE, *WORLDS], ids=str)
def test_texts_are_read_back(space: Hierarchical) -> None:
    rng = np.random.default_rng(0)
    for a in (space.sample(rng) for _ in range(30)):
        assert space.parse(space.text(a)) == a


def test_notation() -> None:
    space = Hierarchical(ops=OPS, motifs=(2, 1), nodes=(3, 3))
    assert space.parse("c1/d3,s3+m3/a3,id|-/2,1").genes == (1, 2, 3, 4, 5, 6, 0, 2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c1/-,id", r"has 1 levels; allowed: 2 with '\|'"),
        ("c1/-,id|1/-,1", "level 2 has 1 motifs; allowed: 2 with '\\+'"),
        ("c1/-,id+c1/id|1/-,1", "motif 2 of level 2 is 'c1/id'; allowed: the form '-/-,-'"),
        ("c1/-,id+c1/id,d3|1/-,1", "motif 2 of level 2 holds 'd3'; allowed: -, c1, id"),
        ("c1/-,id+c1/id,id|1/-,3", "motif 1 of level 3 holds '3'; allowed: -, 1, 2"),
    ],
)
def test_malformed_texts_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hierarchical(ops=TWO, motifs=(2, 1), nodes=(3, 3)).parse(text)


# --- graphs and network ---------------------------------------------------------------------------------------


def test_flattening() -> None:
    space = Hierarchical(ops=OPS, motifs=(3, 1), nodes=(3, 3))
    # Motif 1: c1 and max pooling beside each other; 2: s3 after a3; 3 joins nothing. Node 2 of the top is input 1.
    graph = space.flatten(space.parse("id/m3,c1+a3/-,s3+c1/-,-|1/3,2"))
    assert [n.name for n in graph.nodes] == ["input", "1-2/2", "1-2/out", "2", "2-3/2", "output"]
    assert graph.edges == (
        *((0, 1, "identity"), (0, 2, "max_pool_3x3"), (1, 2, "conv_1x1")),
        *((2, 3, ""), (3, 4, "avg_pool_3x3"), (4, 5, "sep_once_3x3")),
    )
    assert graph.depth == 3


@pytest.mark.parametrize(
    "space",
    [
        Hierarchical(motifs=(1,), nodes=(5,), channels=4, cells=1),
        Hierarchical(motifs=(3, 1), nodes=(3, 3), channels=4, cells=2),
        Hierarchical(motifs=(2, 2, 1), nodes=(3, 3, 3), channels=3, cells=1),
        Hierarchical(motifs=(2,), nodes=(4,), top="chain", channels=4, cells=1),
    ],
    ids=str,
)
def test_network_equals_nested_modules(space: Hierarchical) -> None:
    rng, task = np.random.default_rng(1), image_task(2, 8, 5)
    for a in (space.sample(rng) for _ in range(2)):
        tree, network = unrolled(space, a), space.build(a, task)
        assert same_function(network, nested_network(space, tree, task), task)
    strangers = nested_network(space, unrolled(space, space.sample(rng)), task)
    assert not same_function(space.build(a, task), strangers, task)


def test_cells_are_the_hierarchy_whose_third_level_is_a_chain() -> None:
    ops, task = ("conv_1x1", "max_pool_3x3", "identity"), image_task(2, 8, 5)
    fixed = Hierarchical(ops=ops, motifs=(2,), nodes=(3,), top="chain", channels=4, cells=1)
    free = Hierarchical(ops=ops, motifs=(2, 1), nodes=(3, 3), channels=4, cells=1)
    rng = np.random.default_rng(0)
    for a in (fixed.sample(rng) for _ in range(10)):
        b = free.parse(fixed.text(a) + "|1/-,2")
        assert fixed.flatten(a) == free.flatten(b)
        assert fixed.features(a, task) == free.features(b, task)
    # One motif in the chain: the motif is the cell, as with two levels.
    single, cell = (
        Hierarchical(ops=ops, motifs=(1,), nodes=(3,), top=top, channels=4, cells=1) for top in ("chain", "free")
    )
    assert single.size == cell.size == 64
    for i in range(0, 64, 5):
        assert same_function(single.build(single.at(i), task), cell.build(cell.at(i), task), task)


def test_it_is_a_space_of_cells() -> None:
    assert isinstance(SPACE, CellSpace)
    a = SPACE.diversified(np.random.default_rng(0))
    cell = SPACE.cell(a, 6, reduction=False)
    assert isinstance(cell, GraphCell)
    assert cell(torch.empty(2, 6, 5, 7, device="meta")).shape == (2, 6, 5, 7)
    assert {t.device.type for t in cell.state_dict().values()} == {"meta"}
    with pytest.raises(ValueError, match="reduction is True; allowed: False"):
        SPACE.cell(a, 6, reduction=True)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 16), (2, 5)])
def test_shapes(channels: int, side: int) -> None:
    rng, task = np.random.default_rng(2), image_task(channels, side, None)
    for a in (SPACE.sample(rng), SPACE.identity(), Architecture("hierarchical", (0,) * 46)):
        assert SPACE.build(a, task)(torch.empty(2, *task.shape, device="meta")).shape == (2, 1)


def test_parameters_of_a_cell() -> None:
    space, task = Hierarchical(motifs=(1,), nodes=(3,), channels=4, cells=1), image_task(2, 8, 5)
    stem, fit, classifier = 9 * 2 * 4 + 8, 16 + 8, 25
    for text, inside in (
        ("-/-,-", 0),
        ("c1/id,-", 0),  # node 2 leads nowhere
        ("id/c1,-", 16 + 8),
        ("c1/s3,m3", (16 + 8) + (9 * 4 + 16 + 8) + (2 * 16 + 8)),
        ("d3/-,d3", 2 * (9 * 4 + 8)),
    ):
        assert space.features(space.parse(text), task)["params"] == stem + fit + classifier + inside


def test_a_cell_without_a_path_gives_a_constant() -> None:
    space, task = Hierarchical(channels=4, cells=2), image_task()
    network = space.build(Architecture("hierarchical", (0,) * 46), task).to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        out = network(torch.randn(4, 1, 8, 8, generator=generator))
    assert (out == out[0]).all()


def test_the_picture_shows_the_motifs_in_use() -> None:
    space = Hierarchical(ops=TWO, motifs=(2, 1), nodes=(3, 3))
    svg = space.draw(space.parse("c1/-,id+id/-,id|2/-,2"))
    assert "level 3, motif 1" in svg
    assert "level 2, motif 2" in svg
    assert "level 2, motif 1" not in svg
    assert svg == space.draw(space.parse("c1/-,id+id/-,id|2/-,2"))
