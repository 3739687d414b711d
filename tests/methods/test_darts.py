"""DARTS: its counts, notation and moves, its published networks, its canonical form and its continuous relaxation."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nasbed.methods import registry
from nasbed.methods.spaces.darts import DARTS, OPS, PAIRS, PRIMITIVES
from nasbed.protocols import Architecture, CellSpace, IndexedSpace, Task

SPACE = DARTS()
SMALL = DARTS(ops=("skip_connect", "sep_conv_3x3"), nodes=2, cells=3, channels=4)
SKIP, SEP3 = PRIMITIVES.index("skip_connect"), PRIMITIVES.index("sep_conv_3x3")
Genes = tuple[int, ...]

# github.com/quark0/darts, cnn/genotypes.py; github.com/chenxin061/pdarts, genotypes.py.
V1 = (
    "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), "
    "('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 0), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], "
    "reduce_concat=[2, 3, 4, 5])"
)
V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
    "reduce_concat=[2, 3, 4, 5])"
)
PDARTS = (
    "Genotype(normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0),('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3',0), ('dil_conv_5x5', 4)], "
    "normal_concat=range(2, 6), reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), "
    "('dil_conv_5x5', 2), ('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)], "
    "reduce_concat=range(2, 6))"
)


def image_task(channels: int = 3, height: int = 32, width: int = 32, classes: int | None = 10) -> Task:
    return Task("toy", "image", "accuracy", True, (channels, height, width), classes, "0")


def edges_of(genes: Genes, nodes: int) -> list[list[dict[int, int]]]:
    """Per cell and node the operations by source."""
    rows = [
        {PAIRS[p][0]: one, PAIRS[p][1]: two} for p, one, two in zip(genes[::3], genes[1::3], genes[2::3], strict=True)
    ]
    return [rows[:nodes], rows[nodes:]]


def genes_of(cells: list[list[dict[int, int]]]) -> Genes:
    genes: list[int] = []
    for cell in cells:
        for node in cell:
            one, two = sorted(node)
            genes += [PAIRS.index((one, two)), node[one], node[two]]
    return tuple(genes)


# --- the space ------------------------------------------------------------------------------------------------


def test_sizes() -> None:
    assert SPACE.size == 1_037_664_180**2 == 1_076_746_950_455_072_400
    assert 1_037_664_180 == 180 * 7**8
    assert len(SPACE.values) == len(set(SPACE.gene_names)) == 24
    assert isinstance(SPACE, IndexedSpace)
    assert isinstance(SPACE, CellSpace)
    assert SMALL.size == (1 * 3 * 2**4) ** 2 == len({SMALL.at(i) for i in range(SMALL.size)})
    assert DARTS(ops=["skip_connect"], nodes=4).size == 180**2
    assert DARTS(ops=["skip_connect"], nodes=1).size == 1


def test_pairs_are_numbered_alike_at_all_nodes() -> None:
    assert PAIRS[:6] == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    for i, a in enumerate(SPACE.values[::3]):
        k = i % 4
        assert {PAIRS[p] for p in a} == {(x, y) for y in range(k + 2) for x in range(y)}


@given(st.integers(0, SPACE.size - 1))
@settings(max_examples=60, deadline=None)
def test_every_node_reads_two_different_states_before_it(index: int) -> None:
    a = SPACE.at(index)
    for cell in edges_of(a.genes, 4):
        for k, node in enumerate(cell):
            assert len(node) == 2
            assert max(node) < k + 2
            assert PRIMITIVES.index("none") not in node.values()
    assert SPACE.parse(SPACE.text(a)) == a == SPACE.at(SPACE.index(a))


def test_sampling_is_uniform() -> None:
    space = DARTS(ops=("skip_connect", "avg_pool_3x3"), nodes=1)
    rng = np.random.default_rng(0)
    counts = Counter(space.index(space.sample(rng)) for _ in range(16 * 60))
    assert chisquare([counts[i] for i in range(16)]).pvalue > 1e-3


def one_edge_apart(a: Genes, b: Genes, nodes: int) -> bool:
    """Whether one edge has another operation, or another source and its operation, and all else is equal."""
    differing = [
        (set(x.items()), set(y.items()))
        for one, two in zip(edges_of(a, nodes), edges_of(b, nodes), strict=True)
        for x, y in zip(one, two, strict=True)
        if x != y
    ]
    if len(differing) != 1:
        return False
    before, after = differing[0]
    gone, come = before - after, after - before
    return len(gone) == 1 and sum(x == y for x, y in zip(gone.pop(), come.pop(), strict=True)) == 1


@pytest.mark.parametrize("space", [SMALL, DARTS(ops=["max_pool_3x3"], nodes=3)], ids=str)
def test_neighbours_equal_a_search_through_all_members(space: DARTS) -> None:
    members = [space.at(i) for i in range(space.size)]
    for a in members[:: space.size // 23]:
        found = space.neighbours(a)
        assert len(set(found)) == len(found)
        assert set(found) == {b for b in members if one_edge_apart(a.genes, b.genes, space.nodes)}


def test_number_of_neighbours_and_uniform_mutation() -> None:
    rng = np.random.default_rng(0)
    a = SPACE.sample(rng)
    counts = Counter(SPACE.mutate(a, rng) for _ in range(120 * 40))
    assert len(SPACE.neighbours(a)) == 2 * (8 * 6 + 2 * (0 + 1 + 2 + 3)) == 120
    assert set(counts) == set(SPACE.neighbours(a))
    assert chisquare(list(counts.values())).pvalue > 1e-3
    with pytest.raises(ValueError, match="its only member has no neighbours"):
        DARTS(ops=["skip_connect"], nodes=1).mutate(Architecture("darts", (0, SKIP, SKIP) * 2), rng)


def test_an_edge_takes_its_operation_along() -> None:
    space = DARTS(nodes=2)
    a = Architecture("darts", (0, 1, 2, PAIRS.index((0, 1)), SEP3, SKIP, 0, 1, 2, 0, 1, 2))
    moved = {b.genes[3:6] for b in space.neighbours(a) if b.genes[3] != a.genes[3]}
    # 0 -> 2 makes the moved edge the larger one; 1 -> 2 leaves the order.
    assert moved == {(PAIRS.index((1, 2)), SKIP, SEP3), (PAIRS.index((0, 2)), SEP3, SKIP)}


# --- names and notation ---------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    assert SPACE.name == DARTS(ops=OPS[::-1]).name == "darts"
    options = {"stem": ("1",), "ops": ("sep_conv_3x3", "max_pool_3x3"), "channels": ("6",), "cells": ("8",)}
    space = DARTS.from_options(options | {"nodes": ("2",)})
    assert space.name == "darts[ops=max_pool_3x3,sep_conv_3x3;nodes=2;cells=8;channels=6;stem=1]"
    assert registry.space(space.name) == space != SPACE
    assert pickle.loads(pickle.dumps(space)) == space
    assert DARTS.from_options({}) == SPACE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"op": ("none",)}, "option 'op' is unknown; allowed: ops, nodes, cells, channels, stem"),
        ({"ops": ("none", "skip_connect")}, "darts: ops holds 'none'; allowed: max_pool_3x3, avg"),
        ({"ops": ("skip_connect", "skip_connect")}, "ops is 'skip_connect,skip_connect'; allowed: one or more"),
        ({"nodes": ("0",)}, "darts: nodes is 0; allowed: 1 to 8"),
        ({"nodes": ("9",)}, "darts: nodes is 9; allowed: 1 to 8"),
        ({"cells": ("0",)}, "darts: cells is 0; allowed: integers >= 1"),
        ({"channels": ("0",)}, "darts: channels is 0"),
        ({"stem": ("x",)}, "darts: stem is 'x'; allowed: one integer"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DARTS.from_options(options)


def test_published_genotypes_are_read() -> None:
    normal, reduction = edges_of(SPACE.parse(V2).genes, 4)
    by_name = [[{s: PRIMITIVES[op] for s, op in node.items()} for node in cell] for cell in (normal, reduction)]
    sep, skip, pool = "sep_conv_3x3", "skip_connect", "max_pool_3x3"
    assert by_name[0] == [{0: sep, 1: sep}, {0: sep, 1: sep}, {0: skip, 1: sep}, {0: skip, 2: "dil_conv_3x3"}]
    assert by_name[1] == [{0: pool, 1: pool}, {1: pool, 2: skip}, {0: pool, 2: skip}, {1: pool, 2: skip}]
    for text in (V1, V2, PDARTS):
        a = SPACE.parse(text)
        assert SPACE.parse(SPACE.text(a)) == a
        assert len(set(map(SPACE.parse, (text, text.replace("[2, 3, 4, 5]", "range(2, 6)"))))) == 1
    assert SPACE.text(SPACE.parse(V2)).startswith(
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
        "('skip_connect', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
        "normal_concat=range(2, 6), reduce=["
    )


def test_edges_in_any_order_and_text_in_any_layout() -> None:
    other = V2.replace("('max_pool_3x3', 0), ('max_pool_3x3', 1)", "('max_pool_3x3', 1), ('max_pool_3x3', 0)")
    other = other.replace(", ", ",\n   ").replace("'", '"').replace("[2,", "(2,").replace("5]", "5)")
    assert SPACE.parse(f"\n {other}\n") == SPACE.parse(V2)
    normal, reduction = V2[9:-1].split(", reduce=")
    assert SPACE.parse(f"Genotype(reduce={reduction}, {normal})") == SPACE.parse(V2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Genotype(", "genotype(", "is no genotype; allowed: Genotype(normal="),
        ("Genotype(", "Genotype((", "is no genotype"),
        ("normal_concat=[2, 3, 4, 5], ", "", "does not hold each of normal, normal_concat, reduce, reduce_concat once"),
        ("reduce_concat", "other_concat", "does not hold each of normal"),
        ("normal_concat=[2, 3, 4, 5]", "normal_concat=[2, 3, 4]", "normal_concat is [2, 3, 4]; allowed: [2, 3, 4, 5]"),
        ("reduce_concat=[2, 3, 4, 5]", "reduce_concat=range(1, 6)", "reduce_concat is range(1, 6); allowed: [2, 3,"),
        ("reduce_concat=[2, 3, 4, 5]", "reduce_concat=range(2, 7)", "reduce_concat is range(2, 7)"),
        ("reduce_concat=[2, 3, 4, 5]", "reduce_concat=f()", "reduce_concat is f(); allowed: [2, 3, 4, 5] or range(2,"),
        (", ('dil_conv_3x3', 2)]", "]", "normal is a list of 7; allowed: a list of 8 edges"),
        ("reduce=[", "reduce=5, x=[", "does not hold each of normal"),
        ("('dil_conv_3x3', 2)", "('dil_conv_7x7', 2)", "node 5 of normal holds 'dil_conv_7x7'; allowed: max_pool_3x3"),
        ("('dil_conv_3x3', 2)", "('none', 2)", "node 5 of normal holds 'none'; allowed: max_pool_3x3"),
        ("('dil_conv_3x3', 2)", "('dil_conv_3x3', 5)", "node 5 of normal reads state 5; allowed: 0 to 4"),
        ("('dil_conv_3x3', 2)", "('dil_conv_3x3', 0)", "node 5 of normal reads state 0 twice; allowed: two different"),
        ("('dil_conv_3x3', 2)", "('dil_conv_3x3', -1)", "node 5 of normal holds ('dil_conv_3x3', -1); allowed: ('op"),
        ("('dil_conv_3x3', 2)", "open('x')", "node 5 of normal holds open('x'); allowed: ('operation', state)"),
        ("('dil_conv_3x3', 2)", "(2, 'dil_conv_3x3')", "node 5 of normal holds (2, 'dil_conv_3x3'); allowed"),
        ("('max_pool_3x3', 0), ('max_pool_3x3', 1)", "1,\n1", "node 2 of reduce holds 1; allowed: ('operation', st"),
        ("reduce=[('max_pool_3x3', 0)", "reduce=[('max_pool_3x3', 2)", "node 2 of reduce reads state 2; allowed: 0 to"),
    ],
)
def test_malformed_genotypes_are_named(old: str, new: str, message: str) -> None:
    assert V2.count(old) >= 1
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared below)
        SPACE.parse(V2.replace(old, new, 1))
    assert message in str(error.value)
    assert str(error.value).startswith("darts: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "\x00", "-" * 5000 + "1", "(" * 300, "Genotype(normal=" + "-" * 90 + "1)", "1 +"])
def test_other_texts_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^darts: .*allowed: Genotype|does not hold each") as error:
        SPACE.parse(text)
    assert len(str(error.value)) < 400


def test_a_restriction_reads_its_own_members_only() -> None:
    with pytest.raises(
        ValueError, match=r"node 2 of reduce holds 'max_pool_3x3'; allowed: skip_connect, sep_conv_3x3$"
    ):
        DARTS(ops=("skip_connect", "sep_conv_3x3")).parse(V2.replace("dil_conv", "sep_conv"))
    with pytest.raises(ValueError, match="normal is a list of 8; allowed: a list of 4"):
        SMALL.parse(V2)


# --- the relaxation -------------------------------------------------------------------------------------------


def official_derive(alphas: np.ndarray) -> str:
    """Written after the description in section 2.4, edge by edge, on logarithms of the softmax."""
    cells = []
    for cell in alphas.tolist():
        logs = [[x - np.log(sum(np.exp(y) for y in row)) for x in row] for row in cell]
        edges = []
        for k in range(4):
            first = sum(j + 2 for j in range(k))
            rows = {source: logs[first + source] for source in range(k + 2)}
            kept = sorted(rows, key=lambda s: max(rows[s][1:]), reverse=True)[:2]
            edges += [(PRIMITIVES[max(range(1, 8), key=lambda o: rows[s][o])], s) for s in kept]
        cells.append(edges)
    return f"Genotype(normal={cells[0]}, normal_concat=range(2, 6), reduce={cells[1]}, reduce_concat=range(2, 6))"


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 3.0]))
@settings(max_examples=50, deadline=None)
def test_derive_equals_a_second_implementation(seed: int, scale: float) -> None:
    alphas = np.random.default_rng(seed).normal(scale=scale, size=(2, 14, 8))
    assert SPACE.derive(alphas) == SPACE.parse(official_derive(alphas))


@given(st.sampled_from([SPACE, SMALL, DARTS(nodes=6), DARTS(ops=["dil_conv_5x5"])]), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_derive_inverts_alphas(space: DARTS, seed: int) -> None:
    a = space.sample(np.random.default_rng(seed))
    alphas = space.alphas(a)
    assert alphas.dtype == np.float64
    assert set(np.unique(alphas)) <= {0.0, 1.0}
    assert (alphas.sum(-1) == 1).all()
    assert (alphas[:, :, 1:].sum((1, 2)) == 2 * space.nodes).all()
    for scaled in (alphas, 1e-6 * alphas, 50 * alphas - 3):
        assert space.derive(scaled) == a


def test_alphas_of_an_official_genotype() -> None:
    alphas = SPACE.alphas(SPACE.parse(V2))
    assert alphas.shape == (2, 14, 8)
    # Rows of the normal cell: node 2 from 0; node 5 (rows 9 to 13) from 2.
    assert PRIMITIVES[alphas[0, 0].argmax()] == "sep_conv_3x3"
    assert PRIMITIVES[alphas[0, 11].argmax()] == "dil_conv_3x3"
    assert PRIMITIVES[alphas[0, 12].argmax()] == "none"


def test_derive_goes_by_softmax_and_breaks_ties_as_the_original() -> None:
    space = DARTS(nodes=2)
    alphas = np.zeros((2, 5, 8))
    assert space.derive(alphas).genes == (0, 1, 1) * 4  # the smaller sources, the earliest operation
    alphas[0, 2] = 9.0  # largest weights, but spread evenly: no softmax weight is large
    alphas[0, 3, SEP3] = alphas[0, 4, SKIP] = 1.0
    assert space.derive(alphas).genes[3:6] == (PAIRS.index((1, 2)), SEP3, SKIP)
    alphas[0, 3, 0] = 20.0  # a strong "none" takes the softmax from all others
    assert space.derive(alphas).genes[3:6] == (PAIRS.index((0, 2)), 1, SKIP)


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        (np.zeros((2, 14, 7)), r"alphas has the shape \(2, 14, 7\); allowed: \(2, 14, 8\)"),
        (np.zeros((14, 8)), r"shape \(14, 8\)"),
        (np.full((2, 14, 8), np.nan), "not finite"),
        (np.full((2, 14, 8), -np.inf), "not finite"),
    ],
)
def test_bad_alphas_are_refused(alphas: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPACE.derive(alphas)


# --- canonical form -------------------------------------------------------------------------------------------


def relabelled(cell: list[dict[int, int]], order: tuple[int, ...]) -> list[dict[int, int]] | None:
    """The cell with its node order[i] in place i, or None where a node would come before one that it reads."""
    at = {0: 0, 1: 1} | {node + 2: place + 2 for place, node in enumerate(order)}
    moved = [{at[s]: op for s, op in cell[node].items()} for node in order]
    return moved if all(max(node) < place + 2 for place, node in enumerate(moved)) else None


def brute_force(cell: list[dict[int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Smallest set of labelled edges over all permutations of the nodes, whether in order or not."""
    return min(
        tuple(sorted((at[s], at[k + 2], op) for k, node in enumerate(cell) for s, op in node.items()))
        for order in permutations(range(2, len(cell) + 2))
        for at in [{0: 0, 1: 1} | dict(zip(order, range(2, len(cell) + 2), strict=True))]
    )


few = DARTS(ops=("skip_connect", "sep_conv_3x3"), nodes=5)


@given(st.sampled_from([SPACE, few, DARTS(ops=["skip_connect"])]), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_relabelled_cells_have_one_iso_form(space: DARTS, seed: int) -> None:
    a = space.sample(np.random.default_rng(seed))
    cells = edges_of(a.genes, space.nodes)
    form = space.canonical(a, "iso")
    space.check(form)
    assert space.canonical(form, "iso") == form
    orders = [[c for o in permutations(range(space.nodes)) if (c := relabelled(cell, o))] for cell in cells]
    assert form.genes == min(genes_of([x, cells[1]]) for x in orders[0])[: 3 * space.nodes] + min(
        genes_of([cells[0], y])[3 * space.nodes :] for y in orders[1]
    )
    rng = np.random.default_rng(seed)
    for _ in range(3):
        b = Architecture("darts", genes_of([o[int(rng.integers(len(o)))] for o in orders]))
        space.check(b)
        assert space.canonical(b, "iso") == form
        assert space.canonical(b, "raw") == space.canonical(b, "raw") == b


@pytest.mark.parametrize(
    ("space", "classes"), [(DARTS(ops=["skip_connect"], nodes=4), 79), (DARTS(ops=OPS[2:4], nodes=3), 712)], ids=str
)
def test_iso_classes_equal_a_brute_force_count(space: DARTS, classes: int) -> None:
    tail = space.at(0).genes[3 * space.nodes :]
    forms: dict[Architecture, set[object]] = {}
    for head in product(*space.values[: 3 * space.nodes]):
        a = Architecture("darts", (*head, *tail))
        forms.setdefault(space.canonical(a, "iso"), set()).add(brute_force(edges_of(a.genes, space.nodes)[0]))
    assert all(len(found) == 1 for found in forms.values())
    assert len(set().union(*forms.values())) == len(forms) == classes


def filled(space: DARTS, a: Architecture, task: Task, seed: int) -> torch.nn.Module:
    """The network with random weights and batch statistics, in float64."""
    network = space.build(a, task).to_empty(device="cpu").double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.5)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
            else:
                tensor.zero_()
    return network


def channels_moved(name: str, tensor: torch.Tensor, network: torch.nn.Module, orders: list[tuple[int, ...]]):
    """The weights of a layer that reads a cell's output, for the order in which the other network has it."""
    parts = name.split(".")
    if parts[0] == "fits" and tensor.ndim == 4 and parts[3] == "0":
        source = int(parts[1]) - 2 + int(parts[2])  # the cell whose output is fitted
    elif name == "head.2.weight":
        source = len(network.cells) - 1
    else:
        return tensor
    if source < 0:
        return tensor
    order = orders[source]
    width = network.cells[source].out_channels // len(order)
    blocks = tensor.split(width, 1)
    assert len(blocks) == len(order)
    return torch.cat([blocks[node] for node in order], 1)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_iso_equal_networks_are_one_function_up_to_the_channels_of_the_concatenation(training: bool) -> None:
    space, task = DARTS(cells=5, channels=4), image_task(2, 9, 8, 5)
    # Node 3 reads node 2, nodes 4 and 5 do not: 4, 5, 2, 3 is another order; the reduction cell has its own.
    normal = [{0: SEP3, 1: SKIP}, {2: SEP3, 1: 2}, {0: 6, 1: SKIP}, {0: SKIP, 1: 1}]
    reduction = [{0: SKIP, 1: 2}, {0: SEP3, 1: SKIP}, {3: SKIP, 2: SEP3}, {1: SKIP, 3: 7}]
    swaps = [(3, 2, 0, 1), (1, 0, 3, 2)]
    a = Architecture("darts", genes_of([normal, reduction]))
    others = [relabelled(normal, swaps[0]), relabelled(reduction, swaps[1])]
    assert None not in others
    b = Architecture("darts", genes_of(others))
    assert a != b
    assert space.canonical(a, "iso") == space.canonical(b, "iso")

    first, second = filled(space, a, task, seed=1), filled(space, b, task, seed=2)
    orders = [swaps[i in (1, 3)] for i in range(5)]
    state = {}
    for name, tensor in first.state_dict().items():
        parts = name.split(".")
        if parts[0] == "cells":
            cell, node = int(parts[1]), int(parts[3])
            before = sorted((normal, reduction)[cell in (1, 3)][node])
            at = {0: 0, 1: 1} | {n + 2: place + 2 for place, n in enumerate(orders[cell])}
            after = sorted(at[s] for s in before)
            source = before[("first", "second").index(parts[4])]
            parts[3] = str(orders[cell].index(node))
            parts[4] = ("first", "second")[after.index(at[source])]
        state[".".join(parts)] = channels_moved(name, tensor, first, orders)
    x = torch.randn(6, *task.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    first.train(training)
    second.train(training)
    assert not torch.allclose(first(x), second(x))
    first.load_state_dict(filled(space, a, task, seed=1).state_dict())  # batch statistics as they were
    second.load_state_dict(state)
    torch.testing.assert_close(first(x), second(x), rtol=1e-8, atol=1e-8)


# --- networks and features ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "params"), [(V2, 3_349_342), (PDARTS, 3_433_798)], ids=["DARTS_V2", "PDARTS"])
def test_published_parameter_counts(text: str, params: int) -> None:
    # Logged by the authors' train.py; github.com/chenxin061/pdarts/issues/7.
    network = DARTS(cells=20, channels=36).build(SPACE.parse(text), image_task())
    assert sum(p.numel() for p in network.parameters()) == params


def parameters(space: DARTS, a: Architecture, inputs: int, classes: int) -> int:
    """By formula, from the description of the network."""

    def edge(name: str, c: int, stride: int) -> int:
        kind, _, size = name.rpartition("_")
        k = int(size[0]) if size[0].isdigit() else 0
        once = k * k * c + c * c + 2 * c
        return {"sep_conv": 2 * once, "dil_conv": once, "skip": (c * c + 2 * c) * (stride - 1)}.get(kind, 0)

    stem = space.stem * space.channels
    total, before, c = 9 * inputs * stem + 2 * stem, [stem, stem], space.channels
    for i in range(space.cells):
        reduction = i > 0 and i in (space.cells // 3, 2 * space.cells // 3)
        c *= 1 + reduction
        total += sum(before) * c + 4 * c
        for node in edges_of(a.genes, space.nodes)[reduction]:
            total += sum(edge(PRIMITIVES[op], c, 2 if reduction and s < 2 else 1) for s, op in node.items())
        before = [before[1], space.nodes * c]
    return total + before[1] * classes + classes


@pytest.mark.parametrize("space", [SPACE, SMALL, DARTS(nodes=3, cells=4, channels=5, stem=1), DARTS(cells=2)], ids=str)
def test_parameters_equal_a_formula(space: DARTS) -> None:
    rng = np.random.default_rng(1)
    for a in (space.sample(rng), space.sample(rng)):
        network = space.build(a, image_task(2, 12, 9, 7))
        assert sum(p.numel() for p in network.parameters()) == parameters(space, a, 2, 7)


def test_depth_and_graphs() -> None:
    graphs = SPACE.graphs(SPACE.parse(V2))
    assert list(graphs) == ["normal", "reduction"]
    assert graphs["normal"].depth == 2  # sep 3x3, dilated 3x3 through node 2
    assert graphs["reduction"].depth == 1
    assert graphs["normal"].inputs == 2
    chain = [{0: SKIP, 1: SKIP}, {0: SEP3, 2: SEP3}, {0: SEP3, 3: SEP3}, {0: SEP3, 4: SEP3}]
    a = Architecture("darts", genes_of([chain, chain]))
    found = DARTS(cells=2).features(a, image_task(1, 8, 8))
    assert (found["depth"], found["n_sep_conv_3x3"], found["n_skip_connect"], found["n_dil_conv_5x5"]) == (3, 12, 4, 0)
    assert SPACE.draw(a).count("<path d=") >= 2 * (8 + 4)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 1, 1), (2, 7, 5)])
@pytest.mark.parametrize("cells", [1, 2, 3, 5])
def test_networks_take_images_of_any_size(shape: tuple[int, int, int], cells: int) -> None:
    space = DARTS(cells=cells, channels=2)
    a = space.parse(PDARTS)
    network = filled(space, a, image_task(*shape, classes=None), seed=0)
    assert network(torch.ones(2, *shape, dtype=torch.float64)).shape == (2, 1)


def test_a_cell_is_the_sum_and_concatenation_that_its_genotype_says() -> None:
    skips = [{0: SKIP, 1: SKIP}, {1: SKIP, 2: SKIP}, {0: SKIP, 3: SKIP}, {2: SKIP, 4: PRIMITIVES.index("max_pool_3x3")}]
    a = Architecture("darts", genes_of([skips, skips]))
    cell = SPACE.cell(a, 3, reduction=False)
    x, y = torch.randn(2, 2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    two, three, four = x + y, x + 2 * y, 2 * x + 2 * y
    pooled = torch.nn.functional.max_pool2d(four, 3, 1, 1)
    torch.testing.assert_close(cell(x, y), torch.cat([two, three, four, two + pooled], 1))
    assert cell.out_channels == 12
    halved = SPACE.cell(a, 6, reduction=True)
    assert halved(*torch.empty(2, 2, 6, 7, 5, device="meta")).shape == (2, 24, 4, 3)
    with pytest.raises(ValueError, match=r"darts: .* has 23 genes; allowed: 24"):
        SPACE.cell(Architecture("darts", a.genes[:-1]), 3, reduction=False)


def test_tasks_without_images_are_named() -> None:
    task = Task("wine", "tabular", "accuracy", True, (13,), 3, "0")
    with pytest.raises(ValueError, match="darts: inputs of task 'wine' are tabular"):
        SPACE.build(SPACE.at(0), task)
