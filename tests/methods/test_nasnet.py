"""NASNet: its counts, notation, canonical forms and networks."""

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
from nasbed.methods.networks.block_cell import Block, BlockCell
from nasbed.methods.spaces.nasnet import ADD, CONCAT, OPS, PNAS_OPS, NASNet
from nasbed.protocols import Architecture, CellSpace, IndexedSpace, Task

SPACE = NASNet()
SEARCH = NASNet(combiner="search", blocks=4)
SMALL = NASNet(ops=("identity", "conv_3x3"), blocks=2, tied=True, channels=4)
Rows = list[list[int]]


def image_task(channels: int = 3, height: int = 32, width: int = 32, classes: int | None = 10) -> Task:
    return Task("toy", "image", "accuracy", True, (channels, height, width), classes, "0")


def cells_of(space: NASNet, a: Architecture) -> list[Rows]:
    """Per cell and block: two inputs, two operations, combiner."""
    width = 5 if space.combiner == "search" else 4
    fixed = {"search": [], "add": [ADD], "concat": [CONCAT]}[space.combiner]
    rows = [[*a.genes[k : k + width], *fixed] for k in range(0, len(a.genes), width)]
    return [rows[k : k + space.blocks] for k in range(0, len(rows), space.blocks)]


def joined(space: NASNet, cells: list[Rows]) -> Architecture:
    width = 5 if space.combiner == "search" else 4
    return Architecture("nasnet", tuple(gene for cell in cells for row in cell for gene in row[:width]))


# --- the space ------------------------------------------------------------------------------------------------


def test_sizes() -> None:
    # One cell, ordered: (2 * 3 * 4 * 5 * 6)^2 choices of inputs, and two operations a block.
    assert NASNet(tied=True, combiner="search").size == 2_286_906_949_584_691_200 == 720**2 * 13**10 * 2**5
    assert NASNet(tied=True, ops=PNAS_OPS).size == 556_627_761_561_600 == 720**2 * 8**10
    assert SPACE.size == (720**2 * 13**10) ** 2
    assert (len(OPS), len(PNAS_OPS), len(set(OPS) | set(PNAS_OPS))) == (13, 8, 13)
    assert (len(SPACE.values), len(NASNet(tied=True).values)) == (40, 20)
    assert len(NASNet(combiner="search").values) == 50
    assert isinstance(SPACE, IndexedSpace)
    assert isinstance(SPACE, CellSpace)
    assert SMALL.size == (2 * 3) ** 2 * 2**4 == len({SMALL.at(i) for i in range(SMALL.size)})


def test_cells_of_one_block() -> None:
    space = NASNet(tied=True, ops=PNAS_OPS, blocks=1)
    assert space.size == 256
    assert len({space.canonical(space.at(i), "swap") for i in range(256)}) == 136


@pytest.mark.parametrize(("blocks", "children"), [(1, 136), (2, 300), (3, 528), (4, 820), (5, 1176)])
def test_number_of_children_with_one_block_more(blocks: int, children: int) -> None:
    space = NASNet(tied=True, ops=PNAS_OPS, blocks=blocks)
    parent = space.at(0).genes[:-4]
    found = {space.canonical(Architecture("nasnet", (*parent, *last)), "swap") for last in product(*space.values[-4:])}
    assert len(found) == children


def test_sampling_is_uniform() -> None:
    space = NASNet(ops=["identity", "conv_1x1"], blocks=1, tied=True, combiner="search")
    rng = np.random.default_rng(0)
    counts = Counter(space.index(space.sample(rng)) for _ in range(32 * 50))
    assert chisquare([counts[i] for i in range(32)]).pvalue > 1e-3


def test_neighbours_change_one_gene() -> None:
    a = SPACE.sample(np.random.default_rng(0))
    # Of each cell: ten operations with 12 others, and inputs with 1 to 5 others, twice each.
    assert len(set(SPACE.neighbours(a))) == 2 * (10 * 12 + 2 * (1 + 2 + 3 + 4 + 5)) == 300
    assert all(sum(x != y for x, y in zip(a.genes, b.genes, strict=True)) == 1 for b in SPACE.neighbours(a))


# --- names and notation ---------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    assert SPACE.name == NASNet(ops=OPS[::-1]).name == "nasnet"
    options = {"channels": ("6",), "tied": ("yes",), "ops": ("conv_3x3", "identity"), "combiner": ("search",)}
    space = NASNet.from_options(options | {"cells": ("8",), "blocks": ("3",)})
    assert space.name == "nasnet[ops=identity,conv_3x3;blocks=3;combiner=search;tied=yes;cells=8;channels=6]"
    assert registry.space(space.name) == space != SPACE
    assert pickle.loads(pickle.dumps(space)) == space
    assert NASNet.from_options({"tied": ("no",)}) == SPACE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"op": ("none",)}, "option 'op' is unknown; allowed: ops, blocks, combiner, tied, cells, channels"),
        ({"ops": ("skip_connect",)}, "nasnet: ops holds 'skip_connect'; allowed: identity, conv_1x3_3x1"),
        ({"ops": ("identity", "identity")}, "ops is 'identity,identity'; allowed: one or more, each once"),
        ({"blocks": ("0",)}, "nasnet: blocks is 0; allowed: 1 to 8"),
        ({"combiner": ("add", "concat")}, "nasnet: combiner is 'add,concat'; allowed: add, concat, search"),
        ({"tied": ("1",)}, "nasnet: tied is '1'; allowed: yes, no"),
        ({"cells": ("0",)}, "nasnet: cells is 0; allowed: integers >= 1"),
        ({"channels": ("-1",)}, "nasnet: channels is '-1'; allowed: one integer"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NASNet.from_options(options)


TEXT = (
    "normal: sep_conv_3x3(1) & identity(0), conv_1x1(2) + conv_1x1(2), max_pool_7x7(0) & conv_3x3(3), "
    "identity(4) + identity(1); reduction: identity(0) + identity(0), identity(0) + identity(1), "
    "identity(1) + identity(0), identity(1) & identity(1)"
)


def test_text() -> None:
    a = SEARCH.parse(TEXT)
    sep, one, pool, three = map(OPS.index, ("sep_conv_3x3", "conv_1x1", "max_pool_7x7", "conv_3x3"))
    normal = [[1, 0, sep, 0, CONCAT], [2, 2, one, one, ADD], [0, 3, pool, three, CONCAT], [4, 1, 0, 0, ADD]]
    assert cells_of(SEARCH, a)[0] == normal
    assert SEARCH.text(a) == TEXT
    assert SEARCH.parse(TEXT.replace(" ", "")) == SEARCH.parse(f"\n{TEXT.replace('(', ' (')} ") == a


@given(
    st.sampled_from([SPACE, SEARCH, SMALL, NASNet(combiner="concat", blocks=8, tied=True)]), st.integers(0, 2**32 - 1)
)
@settings(max_examples=60, deadline=None)
def test_round_trips(space: NASNet, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = space.sample(rng), space.sample(rng)
    for c in (
        a,
        space.mutate(a, rng),
        space.crossover(a, b, rng),
        *(space.canonical(a, level) for level in space.levels),
    ):
        space.check(c)
        assert space.parse(space.text(c)) == c == space.at(space.index(c))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (TEXT, "", "'' has 1 cells; allowed: 'normal: BLOCKS; reduction: BLOCKS'"),
        ("normal:", "cell:", "a cell is called 'cell'; allowed here: 'normal'"),
        ("; reduction", "; normal", "a cell is called 'normal'; allowed here: 'reduction'"),
        (", identity(4) + identity(1)", "", "normal has 3 blocks; allowed: 4, joined by ','"),
        ("conv_1x1(2) + conv_1x1(2)", "conv_1x1(2)", "block 3 of normal is 'conv_1x1(2)'; allowed: 'op(input) +"),
        ("conv_1x1(2) + conv", "conv_1x1(2) * conv", "block 3 of normal is 'conv_1x1(2) * conv_1x1(2)'; allowed"),
        ("max_pool_7x7", "max_pool_9x9", "block 4 of normal holds 'max_pool_9x9'; allowed: identity, conv_1x3_3x1"),
        ("conv_1x1(2) + conv", "conv_1x1(3) + conv", "block 3 of normal reads 3; allowed: 0 to 2"),
        ("identity(1) & identity(1)", "identity(1) & identity(01)", "block 5 of reduction reads 01; allowed: 0 to 4"),
        ("identity(1) & identity(1)", "identity(1)\n& two", r"block 5 of reduction is 'identity(1)\n& two'; allowed"),
    ],
)
def test_malformed_texts_are_named(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared below)
        SEARCH.parse(TEXT.replace(old, new, 1))
    assert str(error.value).startswith(f"nasnet: {message}")
    assert "\n" not in str(error.value)


def test_the_sign_must_be_that_of_the_space() -> None:
    block = "identity(0) & identity(1)"
    assert NASNet(blocks=1, tied=True, combiner="concat").parse(f"cell: {block}").genes == (0, 1, 0, 0)
    with pytest.raises(ValueError, match=r"allowed: 'op\(input\) \+ op\(input\)'$"):
        NASNet(blocks=1, tied=True).parse(f"cell: {block}")


# --- canonical forms ------------------------------------------------------------------------------------------


def relabelled(cell: Rows, order: tuple[int, ...]) -> Rows | None:
    """The cell with its block order[i] in place i, or None where a block would come before one that it reads."""
    at = {0: 0, 1: 1} | {block + 2: place + 2 for place, block in enumerate(order)}
    moved = [[at[cell[b][0]], at[cell[b][1]], *cell[b][2:]] for b in order]
    return moved if all(max(row[:2]) < place + 2 for place, row in enumerate(moved)) else None


def swapped(row: list[int]) -> list[int]:
    return [row[1], row[0], row[3], row[2], row[4]]


def brute_force(cell: Rows) -> tuple[tuple[int, ...], ...]:
    """Smallest set of labelled edges over all permutations of the blocks, whether in order or not."""
    return min(
        tuple(
            sorted((at[row[side]], at[b + 2], row[2 + side], row[4]) for b, row in enumerate(cell) for side in (0, 1))
        )
        for order in permutations(range(2, len(cell) + 2))
        for at in [{0: 0, 1: 1} | dict(zip(order, range(2, len(cell) + 2), strict=True))]
    )


@given(
    st.sampled_from([SPACE, SEARCH, NASNet(ops=["conv_3x3"], combiner="search"), NASNet(combiner="concat", blocks=3)]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_relabelled_cells_have_one_form(space: NASNet, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = space.sample(rng)
    cells = cells_of(space, a)
    summed = [[swapped(r) if r[4] == ADD and rng.random() < 0.5 else r for r in cell] for cell in cells]
    b = joined(space, summed)
    assert space.canonical(b, "swap") == space.canonical(a, "swap") == space.canonical(a, "swap")
    assert space.canonical(space.canonical(a, "swap"), "swap") == space.canonical(a, "swap")
    assert space.canonical(a, "swap").genes <= a.genes
    for cell, found in zip(cells, cells_of(space, space.canonical(a, "swap")), strict=True):
        # Concatenating blocks stay as they are; of an adding one, the smaller of its two forms.
        assert found == [min(row, swapped(row)) if row[4] == ADD else row for row in cell]
    orders = [[c for o in permutations(range(space.blocks)) if (c := relabelled(cell, o))] for cell in cells]
    form = space.canonical(a, "iso")
    assert space.canonical(form, "iso") == form
    least = [min([min(row, swapped(row)) for row in c] for c in found) for found in orders]
    assert form == joined(space, least)
    for _ in range(3):
        chosen = [found[int(rng.integers(len(found)))] for found in orders]
        c = joined(space, [[swapped(row) if rng.random() < 0.5 else row for row in cell] for cell in chosen])
        space.check(c)
        assert space.canonical(c, "iso") == form
        assert space.canonical(c, "raw") == c


@pytest.mark.parametrize(
    ("space", "swap", "iso"),
    [
        (NASNet(ops=["identity", "conv_1x1"], blocks=2, tied=True), 210, 165),
        (NASNet(ops=["identity"], blocks=3, tied=True), 3 * 6 * 10, None),
        (NASNet(ops=["identity"], blocks=3, combiner="search", tied=True), None, None),
    ],
    ids=str,
)
def test_class_counts_equal_brute_force(space: NASNet, swap: int | None, iso: int | None) -> None:
    members = [space.at(i) for i in range(space.size)]
    forms: dict[Architecture, set[object]] = {}
    sums: dict[Architecture, set[object]] = {}
    for a in members:
        [cell] = cells_of(space, a)
        forms.setdefault(space.canonical(a, "iso"), set()).add(brute_force(cell))
        unordered = (
            (tuple(sorted([(i, p), (j, q)])), ADD) if sign == ADD else (i, j, p, q, CONCAT) for i, j, p, q, sign in cell
        )
        sums.setdefault(space.canonical(a, "swap"), set()).add(tuple(unordered))
    for found, count in ((forms, iso), (sums, swap)):
        assert all(len(keys) == 1 for keys in found.values())
        assert len(set().union(*found.values())) == len(found)
        assert count in (None, len(found))


def filled(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """A network with random weights and batch statistics, in float64."""
    network = network.to_empty(device="cpu").double()
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


def raw_cell(rows: Rows, channels: int) -> torch.nn.Module:
    """A cell with the blocks' pairs in the order in which they are given."""
    blocks = [Block((i, j), (OPS[p], OPS[q]), concat=sign == CONCAT) for i, j, p, q, sign in rows]
    read = {s for i, j, *_ in rows for s in (i, j)}
    return BlockCell(blocks, [s for s in range(2, len(rows) + 2) if s not in read], channels, reduction=False)


def test_a_swap_is_bit_for_bit_the_same_function() -> None:
    [rows, _] = cells_of(SEARCH, SEARCH.parse(TEXT.replace("&", "+")))
    one = filled(raw_cell(rows, 3), 1)
    two = filled(raw_cell(list(map(swapped, rows)), 3), 2)
    other = {"first": "second", "second": "first"}
    state = {".".join(other.get(p, p) for p in name.split(".")): t for name, t in one.state_dict().items()}
    two.load_state_dict(state)
    x = torch.randn(2, 4, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(one(*x), two(*x))
    a = joined(SPACE, [[*rows, rows[0]], [*rows, rows[1]]])
    b = joined(SPACE, [list(map(swapped, cell)) for cell in cells_of(SPACE, a)])
    assert a != b
    networks = [filled(SPACE.build(c, image_task(1, 8, 8)), 3) for c in (a, b)]
    assert networks[0].state_dict().keys() == networks[1].state_dict().keys()
    images = torch.ones(2, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(networks[0](images), networks[1](images))


def test_concatenation_is_ordered_at_the_default_level_only() -> None:
    a = Architecture("nasnet", (1, 0, 9, 9, CONCAT))
    b = Architecture("nasnet", (0, 1, 9, 9, CONCAT))
    space = NASNet(blocks=1, tied=True, combiner="search", channels=3)
    assert space.canonical(a, "swap") == a != space.canonical(b, "swap") == b
    assert space.canonical(a, "iso") == b
    one, two = (filled(space.cell(c, 3, reduction=False), seed) for seed, c in enumerate((a, b)))
    other = {"first": "second", "second": "first"}
    state = {".".join(other.get(p, p) for p in name.split(".")): t for name, t in one.state_dict().items()}
    x = torch.randn(2, 4, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    two.load_state_dict(state)
    assert not torch.allclose(one(*x), two(*x))
    projection = "nodes.0.projection.1.weight"
    two.load_state_dict(state | {projection: torch.cat(state[projection].split(3, 1)[::-1], 1)})
    torch.testing.assert_close(one(*x), two(*x), rtol=1e-10, atol=1e-10)


def test_iso_equal_cells_are_one_function_up_to_the_channels_of_the_output() -> None:
    sep, conv = OPS.index("sep_conv_3x3"), OPS.index("conv_3x3")
    rows = [[1, 0, sep, 0, ADD], [0, 0, conv, 4, ADD], [2, 1, conv, 0, ADD], [0, 1, 5, conv, ADD]]
    order = (3, 0, 1, 2)
    moved = relabelled(rows, order)
    assert moved is not None
    one, two = filled(raw_cell(rows, 3), 1), filled(raw_cell(moved, 3), 2)
    places = {f"nodes.{b}.": f"nodes.{order.index(b)}." for b in range(4)}
    two.load_state_dict({places[name[:8]] + name[8:]: t for name, t in one.state_dict().items()})
    x = torch.randn(2, 4, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Loose ends are the blocks 1, 2, 3 of the one, in the other 3, 1, 2.
    parts = one(*x).split(3, 1)
    torch.testing.assert_close(torch.cat([parts[2], parts[0], parts[1]], 1), two(*x), rtol=1e-12, atol=1e-12)
    space = NASNet(blocks=4, tied=True)
    assert space.canonical(joined(space, [rows]), "iso") == space.canonical(joined(space, [moved]), "iso")


# --- networks and features ------------------------------------------------------------------------------------


def test_output_is_the_loose_ends_in_order() -> None:
    space = NASNet(blocks=3, tied=True)
    a = space.parse("cell: identity(0) + identity(0), identity(2) + identity(1), identity(0) + identity(1)")
    cell = space.cell(a, 2, reduction=False)
    x, y = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cell(x, y), torch.cat([2 * x + y, x + y], 1))
    assert cell.out_channels == 4
    assert space.cell(a, 2, reduction=True)(*torch.empty(2, 3, 2, 7, 5, device="meta")).shape == (3, 4, 4, 3)
    graph = space.graphs(a)["cell"]
    assert [(s, t) for s, t, op in graph.edges if not op] == [(3, 5), (4, 5)]
    assert graph.depth == 0


def test_graphs_and_features() -> None:
    a = SEARCH.parse(TEXT)
    graphs = SEARCH.graphs(a)
    assert list(graphs) == ["normal", "reduction"]
    assert [node.name for node in graphs["normal"].nodes] == [
        "input 0", "input 1", "2 concat", "3", "4 concat", "5", "output",
    ]  # fmt: skip
    assert graphs["normal"].depth == 3  # sep 3x3, 1x1, 3x3 convolution
    found = SEARCH.features(a, image_task(1, 8, 8))
    assert found["depth"] == 3
    assert (found["n_identity"], found["n_conv_1x1"]) == (3 + 8, 2)
    assert sum(found[f"n_{op}"] for op in OPS) == 16


def parameters(space: NASNet, a: Architecture, inputs: int, classes: int) -> int:
    """By formula, from the description of the network."""

    def edge(name: str, c: int, stride: int) -> int:
        if "pool" in name:
            return 0
        if name == "identity":
            return (c * c + 2 * c) * (stride - 1)
        k = int(name.rpartition("x")[0].rpartition("_")[2])
        if name.startswith("sep"):
            return 2 * (k * k * c + c * c + 2 * c)
        return {"conv_1x3_3x1": 2 * (3 * c * c + 2 * c), "conv_1x7_7x1": 2 * (7 * c * c + 2 * c)}.get(
            name, k * k * c * c + 2 * c
        )

    stem = 3 * space.channels
    total, before, c = 9 * inputs * stem + 2 * stem, [stem, stem], space.channels
    cells = cells_of(space, a)
    for i in range(space.cells):
        reduction = i > 0 and i in (space.cells // 3, 2 * space.cells // 3)
        c *= 1 + reduction
        total += sum(before) * c + 4 * c
        rows = cells[-1 if reduction else 0]
        for i1, i2, p, q, sign in rows:
            total += sum(edge(OPS[op], c, 2 if reduction and s < 2 else 1) for s, op in ((i1, p), (i2, q)))
            total += (2 * c * c + 2 * c) * (sign == CONCAT)
        ends = len(set(range(2, len(rows) + 2)) - {s for row in rows for s in row[:2]})
        before = [before[1], ends * c]
    return total + before[1] * classes + classes


@pytest.mark.parametrize(
    "space", [SPACE, SMALL, SEARCH, NASNet(combiner="concat", blocks=2, cells=4, channels=5)], ids=str
)
def test_parameters_equal_a_formula(space: NASNet) -> None:
    rng = np.random.default_rng(2)
    for a in (space.sample(rng), space.sample(rng)):
        network = space.build(a, image_task(2, 9, 9, 7))
        assert sum(p.numel() for p in network.parameters()) == parameters(space, a, 2, 7)


def test_the_reductions_part_equal_numbers_of_normal_cells() -> None:
    from nasbed.methods.networks.cells import plan

    for n in range(1, 7):
        assert [i for i, step in enumerate(plan(3 * n + 2, 8)) if step.reduction] == [n, 2 * n + 1]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 1, 1), (2, 7, 5)])
@pytest.mark.parametrize("space", [SEARCH, NASNet(combiner="search", blocks=4, cells=3, channels=1)], ids=str)
def test_networks_take_images_of_any_size(space: NASNet, shape: tuple[int, int, int]) -> None:
    network = filled(space.build(space.parse(TEXT), image_task(*shape, classes=None)), seed=0)
    assert network(torch.ones(2, *shape, dtype=torch.float64)).shape == (2, 1)


@pytest.mark.parametrize("op", OPS)
def test_every_operation_halves_in_a_reduction_cell(op: str) -> None:
    space = NASNet(ops=[op], blocks=1, tied=True)
    cell = space.cell(space.at(1), 4, reduction=True)
    assert cell(*torch.empty(2, 2, 4, 5, 8, device="meta")).shape == (2, 4, 3, 4)


def test_strangers_and_tasks_without_images_are_named() -> None:
    task = Task("wine", "tabular", "accuracy", True, (13,), 3, "0")
    with pytest.raises(ValueError, match="nasnet: inputs of task 'wine' are tabular"):
        SPACE.build(SPACE.at(0), task)
    with pytest.raises(ValueError, match=r"gene 4 .normal_3_input_1. of .* is 3; allowed: 0, 1, 2"):
        SPACE.build(Architecture("nasnet", (0, 1, 0, 0, 3, *SPACE.at(0).genes[5:])), task)
