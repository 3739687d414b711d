"""The operation and index genes: the printed example, the size, crossover, canonical forms, the cell by hand."""

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

from nasbed.harness.checks_sameness import same_function
from nasbed.methods import registry
from nasbed.methods.spaces.opidx import OPS, OpIdx
from nasbed.protocols import Architecture, CellSpace, IndexedSpace, Task

SPACE = OpIdx()
SMALL = OpIdx(nodes=2, ops=("none", "conv_3x3"), channels=4)
PARENT = "G={1,2,0,5,3,7,4,6}, A={0,0}, B={0,1}, C={2,1}, D={2,0}"
GENES = (1, 2, 0, 5, 3, 7, 4, 6, 0, 0, 0, 1, 2, 1, 2, 0)


def image_task(channels: int = 3, height: int = 8, width: int = 8, classes: int | None = 10) -> Task:
    return Task("toy", "image", "accuracy", True, (channels, height, width), classes, "0")


def relabelled_at_random(a: Architecture, space: OpIdx, rng: np.random.Generator) -> Architecture:
    """Nodes in a random order in which sources still come first, and steps of random nodes exchanged."""
    old = space.decode(a)
    placed, steps = [0], []
    while len(steps) < len(old):
        ready = [k for k, node in enumerate(old, start=1) if k not in placed and all(s in placed for s, _ in node)]
        k = ready[int(rng.integers(len(ready)))]
        node = [(placed.index(s), op) for s, op in old[k - 1]]
        placed.append(k)
        steps.append(node[::-1] if rng.random() < 0.5 else node)
    flat = [step for node in steps for step in node]
    return Architecture("opidx", (*(op for _, op in flat), *(s for s, _ in flat)))


# --- the space ------------------------------------------------------------------------------------------------


def test_the_printed_parent() -> None:
    a = SPACE.parse(PARENT)
    assert a.genes == GENES
    assert SPACE.text(a) == PARENT
    assert SPACE.parse(PARENT.replace(" ", "")) == a
    assert SPACE.decode(a) == [((0, 1), (0, 2)), ((0, 0), (1, 5)), ((2, 3), (1, 7)), ((2, 4), (0, 6))]


def test_sizes() -> None:
    assert isinstance(SPACE, IndexedSpace)
    assert isinstance(SPACE, CellSpace)
    assert (SPACE.cell_inputs, SPACE.has_reduction) == (1, False)
    assert SPACE.size == 9**8 * 1**2 * 2**2 * 3**2 * 4**2 == 24_794_911_296
    assert SMALL.size == 2**4 * 4 == len({SMALL.at(i) for i in range(64)})


def test_sampling_a_restriction_is_uniform() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(SMALL.index(SMALL.sample(rng)) for _ in range(64 * 40))
    assert chisquare([counts[i] for i in range(64)]).pvalue > 1e-3


@pytest.mark.parametrize("unit", ["gene", "pair", "block"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_crossover_takes_whole_units(unit: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = SPACE.sample(rng), SPACE.sample(rng)
    child = SPACE.crossover(a, b, rng, unit=unit)
    SPACE.check(child)
    assert SPACE.crossover(a, a, rng, unit=unit) == a
    units = {
        "gene": [(i,) for i in range(16)],
        "pair": [*((i,) for i in range(8)), *((8 + i, 9 + i) for i in range(0, 8, 2))],
        "block": [(2 * k, 2 * k + 1, 8 + 2 * k, 9 + 2 * k) for k in range(4)],
    }[unit]
    assert sorted(i for group in units for i in group) == list(range(16))
    for group in units:
        inherited = tuple(child.genes[i] for i in group)
        assert inherited in {tuple(parent.genes[i] for i in group) for parent in (a, b)}


@pytest.mark.parametrize(("unit", "children"), [("gene", 2**14), ("pair", 2**11), ("block", 2**4)])
def test_crossover_is_uniform_over_the_units(unit: str, children: int) -> None:
    """Of parents that differ in all genes but the indices of node A, which have one value only."""
    a, b = Architecture("opidx", (0,) * 16), Architecture("opidx", (1,) * 8 + (0, 0) + (1,) * 6)
    rng = np.random.default_rng(0)
    drawn = Counter(SPACE.crossover(a, b, rng, unit=unit).genes for _ in range(4000))
    share = np.array([[*genes] for genes, n in drawn.items() for _ in range(n)]).mean(axis=0)
    assert np.abs(np.delete(share, (8, 9)) - 0.5).max() < 0.04
    if unit == "block":
        assert len(drawn) == children
        assert chisquare(list(drawn.values())).pvalue > 1e-3
    else:
        assert len(drawn) == pytest.approx(children * -np.expm1(-4000 / children), rel=0.05)


def test_pair_is_the_default_unit() -> None:
    a, b = SPACE.at(0), SPACE.at(SPACE.size - 1)
    children = [SPACE.crossover(a, b, np.random.default_rng(7), **kw) for kw in ({}, {"unit": "pair"})]
    assert children[0] == children[1]
    with pytest.raises(ValueError, match="unit is 'row'; allowed: gene, pair, block"):
        SPACE.crossover(a, b, np.random.default_rng(0), unit="row")


def test_swap_classes_are_unordered_pairs() -> None:
    """2 and 4 choices of operation and index give 3 and 10 nodes; the representative is the smallest member."""
    first: dict[object, Architecture] = {}
    for a in map(SMALL.at, range(64)):
        key = tuple(frozenset(Counter(node).items()) for node in SMALL.decode(a))
        assert SMALL.canonical(a, "swap") == SMALL.canonical(a, "swap") == first.setdefault(key, a)
    assert len(first) == 3 * 10


def test_iso_classes() -> None:
    """Classes found by joining members that differ in one exchange, of steps or of neighbouring nodes."""
    space = OpIdx(nodes=3, ops=("none", "conv_3x3"))
    classes = {a: a for a in map(space.at, range(space.size))}

    def root(a: Architecture) -> Architecture:
        while classes[a] != a:
            a = classes[a]
        return a

    for a in list(classes):
        nodes = space.decode(a)
        moved = [[*nodes[:k], nodes[k][::-1], *nodes[k + 1 :]] for k in range(3)]
        for k in (0, 1):
            if all(s <= k for s, _ in nodes[k + 1]):
                new = {k + 1: k + 2, k + 2: k + 1}
                order = [*nodes[:k], nodes[k + 1], nodes[k], *nodes[k + 2 :]]
                moved.append([tuple((new.get(s, s), op) for s, op in node) for node in order])
        for cell in moved:
            flat = [step for node in cell for step in node]
            b = Architecture("opidx", (*(op for _, op in flat), *(s for s, _ in flat)))
            classes[root(b)] = root(a)
    by_root: dict[Architecture, set[Architecture]] = {}
    for a in classes:
        by_root.setdefault(root(a), set()).add(a)
    for members in by_root.values():
        [representative] = {space.canonical(a, "iso") for a in members}
        assert representative in members
    assert len({space.canonical(a, "iso") for a in classes}) == len(by_root)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_relabelled_architectures_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = SPACE.sample(rng)
    b = relabelled_at_random(a, SPACE, rng)
    SPACE.check(b)
    representative = SPACE.canonical(a, "iso")
    SPACE.check(representative)
    assert SPACE.canonical(b, "iso") == representative == SPACE.canonical(representative, "iso")
    assert (
        SPACE.canonical(SPACE.canonical(a, "swap"), "iso") == representative == SPACE.canonical(representative, "swap")
    )
    assert SPACE.canonical(a, "raw") == a
    assert SPACE.parse(SPACE.text(a)) == a == SPACE.at(SPACE.index(a))


# --- names and notation ---------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    assert SPACE.name == "opidx"
    space = registry.space("opidx[channels=4;cells=3;ops=conv_3x3,none;nodes=2]")
    assert space.name == "opidx[nodes=2;ops=none,conv_3x3;channels=4]"
    assert space == SMALL == pickle.loads(pickle.dumps(SMALL))
    assert SMALL.gene_names == ("g_0", "g_1", "g_2", "g_3", "a_0", "a_1", "b_0", "b_1")
    assert SMALL.label(0, 8) == "conv_3x3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": ("pair",)}, "option 'unit' is unknown; allowed: nodes, ops, channels, cells"),
        ({"nodes": ("7",)}, "nodes is 7; allowed: 1 to 6"),
        ({"nodes": ("0",)}, "nodes is 0; allowed: 1 to 6"),
        ({"cells": ("0",)}, "cells is 0; allowed: integers >= 1"),
        ({"channels": ("c",)}, "channels is 'c'; allowed: one integer"),
        ({"ops": ("identity",)}, "ops holds 'identity'; allowed: none, max_pool_3x3"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match="^opidx: " + message):
        OpIdx.from_options(options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PARENT[:-9], "has 4 parts; allowed: 5, G, A, B, C, D"),
        ("", "has 1 parts; allowed: 5"),
        (PARENT.replace("{1,2,", "{1,"), r"'G=\{1,0,5,3,7,4,6\}' is no list G of numbers; allowed: G=\{i,i,i,i,"),
        (PARENT.replace("G=", "H="), "'H=.*' is no list G of numbers"),
        (PARENT.replace("C={2,1}", "C=[2,1}"), r"'C=\[2,1\}' is no list C of numbers; allowed: C=\{i,i\}"),
        (PARENT.replace("C={2,1}", "C={2,x}"), r"'C=\{2,x\}' is no list C of numbers"),
        (PARENT.replace("C={2,1}", "C={2,3}"), "C holds 3; allowed: 0, 1, 2"),
        (PARENT.replace("A={0,0}", "A={0,1}"), "A holds 1; allowed: 0"),
        (PARENT.replace("7", "9"), "G holds 9; allowed: 0, 1, 2, 3, 4, 5, 6, 7, 8"),
        (PARENT.replace("7", "07"), "G holds 07; allowed: 0, 1"),
        (PARENT + ",", "has 6 parts"),
    ],
)
def test_malformed_texts_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^opidx: .*{message}"):
        SPACE.parse(text)


def test_strangers_are_named() -> None:
    with pytest.raises(ValueError, match=r"gene 4 \(a_0\) of .* is 1; allowed: 0"):
        SMALL.check(Architecture("opidx", (0, 0, 0, 0, 1, 0, 0, 0)))
    with pytest.raises(ValueError, match="is of the space 'enas_micro'; allowed: 'opidx'"):
        SMALL.cell(Architecture("enas_micro", (0,) * 8), 4, reduction=False)


# --- graph and network ----------------------------------------------------------------------------------------


def test_graph_of_the_printed_parent() -> None:
    graph = SPACE.graphs(SPACE.parse(PARENT))["cell"]
    named = [(graph.nodes[s].name, graph.nodes[t].name, op) for s, t, op in graph.edges]
    assert named == [
        ("input", "A", "max_pool_3x3"),
        ("input", "A", "avg_pool_3x3"),
        ("A", "B", "sep_conv_5x5"),
        ("B", "C", "skip_connect"),
        ("A", "C", "dil_conv_5x5"),
        ("B", "D", "sep_conv_3x3"),
        ("input", "D", "dil_conv_3x3"),
        ("C", "output", ""),
        ("D", "output", ""),
    ]
    assert (graph.inputs, graph.depth, graph.count("none")) == (1, 3, 0)


def test_cell_by_hand() -> None:
    """Without weights: A = max + avg of the input, B = 0 + A, C = avg of B + A, D = input + max of B."""
    a = SPACE.parse("G={1,2,0,3,2,3,3,1}, A={0,0}, B={0,1}, C={2,1}, D={0,2}")
    cell = SPACE.cell(a, 3, reduction=False)
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))

    def mean(z: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(z, 3, 1, 1) / F.avg_pool2d(torch.ones_like(z), 3, 1, 1)

    node = F.max_pool2d(x, 3, 1, 1) + mean(x)
    expected = torch.cat([mean(node) + node, x + F.max_pool2d(node, 3, 1, 1)], 1)
    assert cell.out_channels == 6
    torch.testing.assert_close(cell(x), expected)


def test_none_gives_zeros_and_dead_parts_keep_their_weights() -> None:
    space = OpIdx(nodes=2, ops=("none", "conv_3x3"), channels=4)
    dead = space.parse("G={8,8,0,0}, A={0,0}, B={1,1}")
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(space.cell(dead, 4, reduction=False).to_empty(device="cpu").apply(_ones)(x), torch.zeros_like(x))
    live = space.parse("G={0,0,0,0}, A={0,0}, B={1,1}")
    sizes = [sum(p.numel() for p in space.cell(a, 4, reduction=False).parameters()) for a in (dead, live)]
    assert sizes == [2 * (9 * 16 + 8), 0]


def _ones(module: torch.nn.Module) -> None:
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        torch.nn.init.ones_(tensor)


def test_a_reduction_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="opidx: reduction is True; allowed: False"):
        SPACE.cell(SPACE.at(0), 4, reduction=True)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (2, 9, 11)])
@pytest.mark.parametrize("text", [PARENT, "G={0,0,0,0,0,0,0,0}, A={0,0}, B={0,0}, C={0,0}, D={0,0}"])
def test_build(shape: tuple[int, int, int], text: str) -> None:
    space, task = OpIdx(channels=3), image_task(*shape)
    network = space.build(space.parse(text), task)
    assert {t.device.type for t in network.state_dict().values()} == {"meta"}
    assert network.train()(torch.empty(2, *shape, device="meta")).shape == (2, 10)


def test_every_operation_builds_and_halves() -> None:
    space, task = OpIdx(nodes=1, channels=2, cells=2), image_task(1, 7, 8, None)
    for i in range(len(OPS)):
        network = space.build(Architecture("opidx", (i, i, 0, 0)), task)
        assert network(torch.empty(2, 1, 7, 8, device="meta")).shape == (2, 1)


def test_params() -> None:
    """Two cells, the second of which halves the size: 3x3 convolutions and fits, counted by hand."""
    space = OpIdx(nodes=2, ops=("none", "conv_3x3"), channels=4, cells=2)
    a = space.parse("G={8,8,8,0}, A={0,0}, B={0,0}")
    stem = 9 * 3 * 12 + 2 * 12
    cells = [3 * (9 * c * c + 2 * c) for c in (4, 8)]
    fits = [12 * 4 + 8, 8 * 8 + 16]
    assert space.features(a, image_task())["params"] == stem + sum(cells) + sum(fits) + (16 + 1) * 10


def test_build_refuses_tables() -> None:
    task = Task("wine", "tabular", "accuracy", True, (13,), 3, "0")
    with pytest.raises(ValueError, match="opidx: inputs of task 'wine' are tabular"):
        SPACE.build(SPACE.at(0), task)


def test_relabellings_are_the_same_function_and_other_cells_are_not() -> None:
    space, task = OpIdx(ops=OPS[1:], channels=2, cells=2), image_task(1)
    rng = np.random.default_rng(4)
    for _ in range(2):
        a = space.sample(rng)
        for b in (space.canonical(a, "swap"), relabelled_at_random(a, space, rng), space.canonical(a, "iso")):
            assert same_function(space.build(a, task), space.build(b, task), task)
    one, two = space.parse(PARENT.replace("{1,2,0", "{1,2,1")), space.parse(PARENT.replace("{1,2,0", "{2,2,1"))
    assert not same_function(space.build(one, task), space.build(two, task), task)
