"""ENAS's micro space: sizes, canonical forms against brute force, the authors' notation, the cell by hand."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import permutations, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nasbed.harness.checks_sameness import same_function
from nasbed.methods import registry
from nasbed.methods.spaces.enas_micro import OPS, EnasMicro, Step, published_count, relabelled
from nasbed.protocols import Architecture, CellSpace, IndexedSpace, Task

SPACE = EnasMicro()
SMALL = EnasMicro(nodes=1, ops=("sep_conv_3x3", "avg_pool_3x3"), channels=4, cells=3)
Cell = list[tuple[Step, Step]]

# `scripts/cifar10_micro_final.sh` of the authors' repository.
NORMAL = "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1"
REDUCTION = "1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"


def image_task(channels: int = 3, height: int = 8, width: int = 8, classes: int | None = 10) -> Task:
    return Task("toy", "image", "accuracy", True, (channels, height, width), classes, "0")


def relabellings(nodes: Cell, inputs: int) -> list[Cell]:
    """All cells that differ in the numbers of the nodes alone, by trying every permutation."""
    found = []
    for order in permutations(range(len(nodes))):
        new = [*range(inputs), *(inputs + k for k in order)]
        cell: list[tuple[Step, Step]] = [((-1, -1), (-1, -1))] * len(nodes)
        for old, ((s, p), (t, q)) in enumerate(nodes, start=inputs):
            cell[new[old] - inputs] = ((new[s], p), (new[t], q))
        if all(s < k and t < k for k, ((s, _), (t, _)) in enumerate(cell, start=inputs)):
            found.append(cell)
    return found


def smallest(nodes: Cell, inputs: int) -> Cell:
    """A second implementation of the representative: the minimum over all relabellings and all swaps."""
    return min([(min(x, y), max(x, y)) for x, y in cell] for cell in relabellings(nodes, inputs))


def architecture(normal: Cell, reduction: Cell) -> Architecture:
    cells = (normal, reduction)
    return Architecture("enas_micro", tuple(g for cell in cells for node in cell for step in node for g in step))


def random_relabelling(a: Architecture, space: EnasMicro, rng: np.random.Generator) -> Architecture:
    cells = []
    for nodes in space.decode(a).values():
        others = relabellings(nodes, 2)
        picked = others[int(rng.integers(len(others)))]
        cells.append([node[::-1] if rng.random() < 0.5 else node for node in picked])
    return architecture(*cells)


# --- the space ------------------------------------------------------------------------------------------------


def test_sizes() -> None:
    assert isinstance(SPACE, IndexedSpace)
    assert isinstance(SPACE, CellSpace)
    assert SPACE.size == (720**2 * 5**10) ** 2 == 25_628_906_250_000_000_000_000_000
    assert published_count(7) == 600**4 == 129_600_000_000
    assert SMALL.size == (2 * 2 * 2 * 2) ** 2 == len({SMALL.at(i) for i in range(256)})
    assert EnasMicro(nodes=3, ops=("identity",)).size == (2 * 3 * 4) ** 4


def test_sampling_a_restriction_is_uniform() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(SMALL.index(SMALL.sample(rng)) for _ in range(256 * 40))
    assert chisquare([counts[i] for i in range(256)]).pvalue > 1e-3


def test_swap_classes_are_unordered_pairs() -> None:
    """m inputs and operations to choose from give m (m + 1) / 2 nodes; the representative is the smallest member."""
    smallest_member: dict[object, Architecture] = {}
    for a in map(SMALL.at, range(256)):
        key = tuple(frozenset(Counter(node).items()) for cell in SMALL.decode(a).values() for node in cell)
        assert SMALL.canonical(a, "swap") == SMALL.canonical(a, "swap") == smallest_member.setdefault(key, a)
    assert len(smallest_member) == (4 * 5 // 2) ** 2
    # One node, all operations: 10 choices for each half.
    space = EnasMicro(nodes=1)
    assert len({space.canonical(space.at(i), "swap") for i in range(space.size)}) == 55**2


@pytest.mark.parametrize(("nodes", "operations", "inputs"), [(2, 2, 2), (3, 1, 2), (4, 1, 1)])
def test_iso_is_the_smallest_relabelling(nodes: int, operations: int, inputs: int) -> None:
    steps = [list(product(range(inputs + k), range(operations))) for k in range(nodes)]
    for cell in product(*(product(choices, choices) for choices in steps)):
        assert relabelled(cell, inputs) == smallest(list(cell), inputs)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_relabelled_architectures_agree(seed: int, nodes: int, operations: int) -> None:
    space, rng = EnasMicro(nodes=nodes, ops=OPS[:operations]), np.random.default_rng(seed)
    a = space.sample(rng)
    b = random_relabelling(a, space, rng)
    representative = space.canonical(a, "iso")
    space.check(b)
    space.check(representative)
    assert space.canonical(b, "iso") == representative == space.canonical(representative, "iso")
    assert representative == architecture(*(smallest(cell, 2) for cell in space.decode(a).values()))
    assert space.canonical(representative, "swap") == representative
    assert space.canonical(a, "raw") == a
    assert space.canonical(space.canonical(a, "swap"), "swap") == space.canonical(a, "swap")
    assert space.canonical(space.canonical(a, "swap"), "iso") == representative


def test_twins_with_other_readers_stay_apart() -> None:
    """Nodes 2 and 3 are built alike, but 4 reads one of them and 5 the other: both orders have to be tried."""
    alike = ((0, 0), (0, 0))
    cell: Cell = [alike, alike, ((3, 1), (3, 1)), ((2, 0), (2, 0))]
    assert relabelled(cell, 2) == [alike, alike, ((2, 0), (2, 0)), ((3, 1), (3, 1))] == smallest(cell, 2)


# --- names and notation ---------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    assert SPACE.name == "enas_micro"
    space = registry.space("enas_micro[cells=3;channels=4;ops=avg_pool_3x3,sep_conv_3x3;nodes=1]")
    assert space.name == "enas_micro[nodes=1;ops=sep_conv_3x3,avg_pool_3x3;channels=4]"
    assert space == SMALL == pickle.loads(pickle.dumps(SMALL))
    assert SMALL.gene_names[:4] == ("normal_2_input_1", "normal_2_op_1", "normal_2_input_2", "normal_2_op_2")
    assert SMALL.label(1, 2) == "avg_pool_3x3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": ("3",)}, "option 'blocks' is unknown; allowed: nodes, ops, channels, cells"),
        ({"nodes": ("0",)}, "nodes is 0; allowed: integers >= 1"),
        ({"cells": ("0",)}, "cells is 0; allowed: integers >= 1"),
        ({"channels": ("-1",)}, "channels is '-1'; allowed: one integer"),
        ({"ops": ("none",)}, "ops holds 'none'; allowed: sep_conv_3x3"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match="^enas_micro: " + message):
        EnasMicro.from_options(options)


def test_the_authors_string() -> None:
    a = SPACE.parse(f"{NORMAL} {REDUCTION}")
    assert a.genes == tuple(map(int, f"{NORMAL} {REDUCTION}".split()))
    assert SPACE.text(a) == f"{NORMAL} / {REDUCTION}"
    assert SPACE.parse(SPACE.text(a)) == a
    assert SPACE.decode(a)["normal"][0] == ((0, 2), (0, 0))
    assert SPACE.decode(a)["reduction"][2] == ((1, 1), (3, 1))


@given(st.integers(0, SPACE.size - 1))
@settings(max_examples=50, deadline=None)
def test_text_round_trips(index: int) -> None:
    a = SPACE.at(index)
    assert SPACE.parse(SPACE.text(a)) == a
    assert SPACE.index(a) == index


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 0 0 / 0 0 0 0 / 0 0 0 0", "has 3 cells; allowed: 2"),
        ("0 0 0 / 0 0 0 0", "normal holds 3 numbers; allowed: 4"),
        ("0 0 0 0 / 0 0 0 0 0", "reduction holds 5 numbers; allowed: 4"),
        ("0 0 0 0 0 0 0", "reduction holds 3 numbers; allowed: 4"),
        ("", "normal holds 0 numbers"),
        ("0 x 0 0 / 0 0 0 0", "node 2 of normal holds operation 'x'; allowed: 0, 2"),
        ("0 1 0 0 / 0 0 0 0", "node 2 of normal holds operation '1'; allowed: 0, 2"),
        ("0 0 0 0 / 0 0 2 0", "node 2 of reduction holds input '2'; allowed: 0, 1"),
        ("0 0 0 0 / 01 0 1 0", "node 2 of reduction holds input '01'; allowed: 0, 1"),
    ],
)
def test_malformed_texts_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^enas_micro: .*{message}"):
        SMALL.parse(text)


def test_strangers_are_named() -> None:
    with pytest.raises(ValueError, match=r"gene 0 \(normal_2_input_1\) of .* is 2; allowed: 0, 1"):
        SMALL.check(Architecture("enas_micro", (2, 0, 0, 0, 0, 0, 0, 0)))
    for use in (SMALL.build, lambda a, _: SMALL.cell(a, 4, reduction=True)):
        with pytest.raises(ValueError, match="is of the space 'opidx'; allowed: 'enas_micro'"):
            use(Architecture("opidx", (0,) * 8), image_task())


# --- graphs and networks --------------------------------------------------------------------------------------


def test_graphs_of_the_authors_cells() -> None:
    graphs = SPACE.graphs(SPACE.parse(f"{NORMAL} / {REDUCTION}"))
    assert list(graphs) == ["normal", "reduction"]
    normal, reduction = graphs.values()
    assert [node.name for node in normal.nodes] == ["input 0", "input 1", "2", "3", "4", "5", "6", "output"]
    assert normal.edges[:2] == ((0, 2, "avg_pool_3x3"), (0, 2, "sep_conv_3x3"))
    # In the normal cell no node reads another; in the reduction cell node 4 reads node 3.
    assert [s for s, t, _ in normal.edges if t == 7] == [2, 3, 4, 5, 6]
    assert [s for s, t, _ in reduction.edges if t == 7] == [2, 4, 5, 6]
    assert (normal.inputs, normal.depth, reduction.depth) == (2, 1, 2)


def test_unread_inputs_lead_to_the_output() -> None:
    a = SMALL.parse("0 0 0 2 / 1 0 1 0")
    normal, reduction = SMALL.graphs(a).values()
    assert [s for s, t, _ in normal.edges if t == 3] == [1, 2]
    assert [s for s, t, _ in reduction.edges if t == 3] == [0, 2]
    for reduce in (False, True):
        cell = SMALL.cell(a, 6, reduction=reduce)
        x = torch.empty(2, 6, 7, 5, device="meta")
        assert cell.out_channels == 12
        assert cell(x, x).shape == ((2, 12, 4, 3) if reduce else (2, 12, 7, 5))


def test_cell_by_hand() -> None:
    """Without weights: node 2 averages input 0 and adds input 1, node 3 adds the maxima of node 2 to node 2."""
    space = EnasMicro(nodes=2, ops=("avg_pool_3x3", "max_pool_3x3", "identity"))
    cell = space.cell(space.parse("0 2 1 4 2 3 2 4 / 0 2 1 2 0 3 0 3"), 3, reduction=False)
    x, y = torch.randn(2, 2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    ones = torch.ones_like(x)
    node = F.avg_pool2d(x, 3, 1, 1) / F.avg_pool2d(ones, 3, 1, 1) + y
    torch.testing.assert_close(cell(x, y), F.max_pool2d(node, 3, 1, 1) + node)
    reduced = space.cell(space.parse("0 2 1 4 2 3 2 4 / 0 2 1 2 0 3 0 3"), 3, reduction=True)
    halves = [(F.avg_pool2d(z, 3, 2, 1) / F.avg_pool2d(ones, 3, 2, 1)) for z in (x, y)]
    expected = torch.cat([halves[0] + halves[1], 2 * F.max_pool2d(x, 3, 2, 1)], 1)
    torch.testing.assert_close(reduced(x, y), expected)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (2, 9, 11)])
@pytest.mark.parametrize("cells", [1, 2, 3])
def test_build(shape: tuple[int, int, int], cells: int) -> None:
    space, task = EnasMicro(cells=cells, channels=3), image_task(*shape, classes=None if cells == 1 else 10)
    network = space.build(space.parse(f"{NORMAL} / {REDUCTION}"), task)
    assert {t.device.type for t in network.state_dict().values()} == {"meta"}
    assert network.train()(torch.empty(2, *shape, device="meta")).shape == (2, task.classes or 1)


def test_params_of_the_authors_cells() -> None:
    """Three cells of which the last two reduce, counted by hand from the string."""

    def sep(c: int, k: int) -> int:
        return 2 * (k * k * c + c * c + 2 * c)

    def fitted(inputs: int, c: int) -> int:
        return inputs * c + 2 * c

    c = 4
    normal = 2 * sep(c, 3) + 4 * sep(c, 5)
    # sep_conv_3x3 three times, sep_conv_5x5 three times, one identity of stride 2.
    reduction = [3 * sep(k, 3) + 3 * sep(k, 5) + fitted(k, k) for k in (2 * c, 4 * c)]
    stem = 9 * 3 * 3 * c + 2 * 3 * c
    fits = [2 * fitted(3 * c, c), fitted(3 * c, 2 * c) + fitted(5 * c, 2 * c)]
    fits.append(fitted(5 * c, 4 * c) + fitted(4 * 2 * c, 4 * c))
    total = stem + normal + sum(reduction) + sum(fits) + (4 * 4 * c + 1) * 10
    space = EnasMicro(channels=c)
    a = space.parse(f"{NORMAL} / {REDUCTION}")
    assert space.features(a, image_task())["params"] == total


def test_build_refuses_tables() -> None:
    task = Task("wine", "tabular", "accuracy", True, (13,), 3, "0")
    with pytest.raises(ValueError, match="enas_micro: inputs of task 'wine' are tabular"):
        SPACE.build(SPACE.at(0), task)


def test_relabellings_are_the_same_function_and_other_cells_are_not() -> None:
    space, task, rng = EnasMicro(nodes=3, channels=2, cells=2), image_task(1), np.random.default_rng(4)
    for _ in range(2):
        a = space.sample(rng)
        swapped = architecture(*([node[::-1] for node in cell] for cell in space.decode(a).values()))
        b = random_relabelling(a, space, rng)
        for other in (swapped, b, space.canonical(a, "iso")):
            assert same_function(space.build(a, task), space.build(other, task), task)
    one, two = (space.parse(f"{text} / {text}") for text in ("0 0 1 0 2 3 2 3 3 1 2 0", "0 0 1 0 2 3 2 2 3 1 2 0"))
    assert not same_function(space.build(one, task), space.build(two, task), task)
