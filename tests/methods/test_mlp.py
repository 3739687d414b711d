"""The space of multi-layer perceptrons: counts, numbering, moves, notation, networks."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nasbed.methods import registry
from nasbed.methods.spaces.mlp import ACTIVATIONS, DROPOUT, MLP, OUTPUT, WIDTHS
from nasbed.protocols import Architecture, IndexedSpace, Task

FULL = MLP()
TASK = Task("toy", "image", "accuracy", True, (3, 4, 4), 7, "")
SMALL = [
    MLP(hidden=2, widths=(8, 16), activations=("relu", "elu")),
    MLP(hidden=3, widths=(8,), activations=("tanh",)),
    MLP(hidden=2, widths=(8, 64), activations=("relu", "sigmoid"), dropout=False),
    MLP(hidden=1, widths=(32,)),
]
SPACES = pytest.mark.parametrize("space", SMALL, ids=lambda s: s.name)
members = st.integers(0, FULL.size - 1).map(FULL.at)


def every(space: MLP) -> list[Architecture]:
    return list(map(space.at, range(space.size)))


def is_member(space: MLP, tokens: tuple[int, ...]) -> bool:
    """The definition, written out."""
    allowed = {
        4 * WIDTHS.index(w) + ACTIVATIONS.index(f) + 1
        for w in WIDTHS
        for f in ACTIVATIONS
        if 4 * WIDTHS.index(w) + ACTIVATIONS.index(f) + 1 in space.dense
    }
    return (
        1 <= len(tokens) <= space.hidden
        and tokens[0] in allowed
        and all(t in allowed or (space.dropout and t == DROPOUT) for t in tokens[1:])
    )


# --- counts ---------------------------------------------------------------------------------------------------


def test_known_sizes() -> None:
    # Two hidden places: three layers with the output, as in the paper's worked example: 28 + 28 * 29 = 840.
    assert MLP(hidden=2).size == 840
    assert FULL.size == 29**9 - 1 == sum(28 * 29**i for i in range(9))
    assert MLP(hidden=3, widths=(8, 16, 32, 64), dropout=False).size == 16 + 16**2 + 16**3 == 4368
    for h in range(1, 10):
        assert MLP(hidden=h, dropout=False).size == sum(28**i for i in range(1, h + 1))
        assert MLP(hidden=h).size == 29**h - 1


@SPACES
def test_the_numbering_lists_exactly_the_members(space: MLP) -> None:
    assert isinstance(space, IndexedSpace)
    tokens = sorted({t for a in every(space) for t in a.genes} | {DROPOUT, OUTPUT})
    expected = {t for h in range(1, space.hidden + 1) for t in product(tokens, repeat=h) if is_member(space, t)}
    assert {a.genes[:-1] for a in every(space)} == expected
    assert len(expected) == space.size
    assert [space.index(a) for a in every(space)] == list(range(space.size))
    for outside in (-1, space.size):
        with pytest.raises(ValueError, match="index: "):
            space.at(outside)


@given(st.integers(0, FULL.size - 1))
def test_index_and_at_are_inverse(index: int) -> None:
    a = FULL.at(index)
    FULL.check(a)
    assert FULL.index(a) == index
    assert FULL.parse(FULL.text(a)) == a
    assert Architecture.parse(str(a)) == a
    assert FULL.canonical(a) == a


@given(st.lists(st.integers(-1, 31), max_size=5).map(tuple), st.sampled_from(["mlp", "nb201"]))
def test_check_and_index_accept_members_and_nothing_else(genes: tuple[int, ...], name: str) -> None:
    space = SMALL[0]
    a = Architecture(name, genes)
    if name == "mlp" and genes[-1:] == (OUTPUT,) and is_member(space, genes[:-1]):
        space.check(a)
        assert space.at(space.index(a)) == a
    else:
        for refuse in (space.check, space.index):
            with pytest.raises(ValueError, match=r"gene \d|architecture: ") as error:
                refuse(a)
            assert "\n" not in str(error.value)


@SPACES
def test_the_sequential_view_reaches_exactly_the_members(space: MLP) -> None:
    found, todo = [], [()]
    while todo:
        prefix = todo.pop()
        options = space.options(prefix)
        assert len(set(options)) == len(options)
        todo += [(*prefix, value) for value in options]
        if not options:
            found.append(Architecture("mlp", prefix))
    assert sorted(map(space.index, found)) == list(range(space.size))


# --- randomness and moves -------------------------------------------------------------------------------------


@SPACES
def test_sampling_is_uniform(space: MLP) -> None:
    rng = np.random.default_rng(0)
    counts = Counter(space.sample(rng) for _ in range(60 * space.size))
    assert len(counts) == space.size
    assert space.size == 1 or chisquare(list(counts.values())).pvalue > 1e-3


def test_sampling_the_whole_space_prefers_long_networks() -> None:
    rng = np.random.default_rng(0)
    lengths = Counter(len(FULL.sample(rng).genes) - 1 for _ in range(3000))
    assert lengths[9] / 3000 == pytest.approx(28 * 29**8 / FULL.size, abs=0.02)


def one_edit(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Change of one value, insertion or deletion, written out on texts."""
    if len(a) == len(b):
        pairs = [(x, y) for x, y in zip(a, b, strict=True) if x != y]
        if len(pairs) != 1:
            return False
        x, y = pairs[0]
        same_width, same_kind = (x - 1) // 4 == (y - 1) // 4, (x - 1) % 4 == (y - 1) % 4
        return DROPOUT in (x, y) or same_width != same_kind
    short, long = sorted((a, b), key=len)
    return len(long) == len(short) + 1 and any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


@SPACES
def test_neighbours_are_all_members_one_edit_away(space: MLP) -> None:
    whole = every(space)
    for a in whole:
        found = space.neighbours(a)
        assert len(set(found)) == len(found)
        assert set(found) == {b for b in whole if one_edit(a.genes[:-1], b.genes[:-1])}


@given(members, st.data())
def test_neighbours_of_the_whole_space_are_symmetric(a: Architecture, data: st.DataObject) -> None:
    found = FULL.neighbours(a)
    b = data.draw(st.sampled_from(found))
    FULL.check(b)
    assert b != a
    assert a in FULL.neighbours(b)
    assert one_edit(a.genes[:-1], b.genes[:-1])


def kind(a: Architecture, b: Architecture) -> str:
    return {-1: "insert", 0: "change", 1: "delete"}[len(a.genes) - len(b.genes)]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("8-relu", {"change", "insert"}),
        ("8-relu/16-elu", {"change", "insert", "delete"}),
        ("8-relu/dropout/16-elu", {"change", "delete"}),
    ],
)
def test_mutation_draws_its_kind_uniformly_and_reaches_every_neighbour(text: str, kinds: set[str]) -> None:
    space = MLP(hidden=3, widths=(8, 16), activations=("relu", "elu"))
    a, rng = space.parse(text), np.random.default_rng(1)
    drawn = [space.mutate(a, rng) for _ in range(3000)]
    assert set(drawn) == set(space.neighbours(a))
    counts = Counter(kind(a, b) for b in drawn)
    assert set(counts) == kinds
    assert chisquare(list(counts.values())).pvalue > 1e-3
    changes = Counter(b for b in drawn if kind(a, b) == "change")
    assert chisquare(list(changes.values())).pvalue > 1e-3


def test_deleting_never_leaves_a_dropout_in_front() -> None:
    space = MLP(hidden=3, widths=(8,), activations=("relu",))
    a = space.parse("8-relu/dropout/8-relu")
    assert "dropout/8-relu" not in {space.text(b) for b in space.neighbours(a)}
    rng = np.random.default_rng(0)
    for _ in range(200):
        space.check(space.mutate(a, rng))


def test_a_space_of_one_member_cannot_mutate() -> None:
    space = MLP(hidden=1, widths=(8,), activations=("relu",), dropout=False)
    with pytest.raises(ValueError, match="single member"):
        space.mutate(space.at(0), np.random.default_rng(0))
    assert space.neighbours(space.at(0)) == []


@given(members, members, st.integers(0, 2**32))
def test_children_take_a_head_and_a_tail(a: Architecture, b: Architecture, seed: int) -> None:
    child = FULL.crossover(a, b, np.random.default_rng(seed))
    FULL.check(child)
    x, y, z = a.genes[:-1], b.genes[:-1], child.genes[:-1]
    assert any(z == x[:i] + y[j:] for i in range(1, len(x) + 1) for j in range(len(y) + 1))
    assert FULL.crossover(a, a, np.random.default_rng(seed)) == a


# --- networks -------------------------------------------------------------------------------------------------


@settings(deadline=None)  # the first network imports torch's meta kernels
@given(members)
def test_parameters_are_those_of_the_network(a: Architecture) -> None:
    network = FULL.build(a, TASK)
    features = FULL.features(a, TASK)
    assert features["params"] == sum(p.numel() for p in network.parameters())
    assert all(p.is_meta for p in network.parameters())
    linear = [m for m in network if isinstance(m, torch.nn.Linear)]
    assert features["macs"] == sum(m.weight.numel() for m in linear)
    assert features["flops"] == 2 * features["macs"]
    assert features["depth"] == len(linear) - 1
    counts = [features[f"n_{k}"] for k in (*ACTIVATIONS, "dropout")]
    assert sum(counts) == len(a.genes) - 1
    assert network(torch.empty(2, *TASK.shape, device="meta")).shape == (2, 7)


def test_the_network_of_an_example() -> None:
    a = FULL.parse("64-relu/dropout/16-tanh")
    state = torch.get_rng_state()
    network = FULL.build(a, TASK)
    assert torch.equal(state, torch.get_rng_state())
    kinds = [type(m).__name__ for m in network]
    assert kinds == ["Flatten", "Linear", "ReLU", "Dropout", "Linear", "Tanh", "Linear"]
    assert network[3].p == 0.2
    assert [(m.in_features, m.out_features) for m in network if hasattr(m, "in_features")] == [
        (48, 64),
        (64, 16),
        (16, 7),
    ]
    regression = Task("r", "regression", "rmse", False, (5,), None, "")
    assert FULL.build(a, regression)[-1].out_features == 1
    assert FULL.features(a, regression)["params"] == 6 * 64 + 65 * 16 + 17


@given(members, members)
def test_codes_are_one_hot_and_tell_members_apart(a: Architecture, b: Architecture) -> None:
    x, y = FULL.encode(a), FULL.encode(b)
    assert x.shape == y.shape == (9 * 30,)
    assert (x.reshape(9, 30).sum(1) == 1).all()
    assert np.array_equal(x, y) == (a == b)


# --- notation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "layer 0 of '': ''"),
        ("64-relu/", "layer 1 of '64-relu/': ''"),
        ("64relu", "layer 0 of '64relu': '64relu' is not WIDTH-ACTIVATION"),
        ("63-relu", "layer 0 .* '63-relu'"),
        ("064-relu", "layer 0 .* '064-relu'"),
        ("64-gelu", "layer 0 .* '64-gelu'"),
        ("8-relu/16-ReLU", "layer 1 .* '16-ReLU'"),
        ("dropout/8-relu", "gene 0 of mlp:29.3"),
        ("8-relu/8-relu/8-relu", "gene 2 of mlp:"),
    ],
)
def test_a_malformed_text_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        MLP(hidden=2).parse(text)
    assert "\n" not in str(error.value)


@given(st.text(st.sampled_from("816-/relutanhdop "), max_size=14))
def test_any_text_is_read_back_or_refused(text: str) -> None:
    try:
        a = FULL.parse(text)
    except ValueError:
        return
    assert FULL.text(a) == text


def test_names_give_equal_spaces() -> None:
    for space in (FULL, *SMALL):
        again = registry.space(space.name)
        assert again == space
        assert hash(again) == hash(space)
        assert (again.size, again.name) == (space.size, space.name)
    assert FULL.name == "mlp"
    assert SMALL[0] != FULL
    assert FULL != "mlp"
    assert registry.space("mlp[widths=64,8;dropout=no;activations=elu,relu;hidden=2]") == registry.space(
        "mlp[hidden=2;widths=8,64;activations=relu,elu;dropout=no]"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mlp[hidden=0]", "hidden: 0 is not one of"),
        ("mlp[hidden=10]", "hidden: 10 is not one of"),
        ("mlp[hidden=two]", "hidden takes one integer"),
        ("mlp[hidden=1,2]", "hidden takes one integer"),
        ("mlp[widths=8,x]", "widths integers"),
        ("mlp[widths=9]", r"mlp\[widths\]: 9 is not one of 8, 16"),
        ("mlp[widths=8,8]", r"mlp\[widths\]: .* each once"),
        ("mlp[activations=gelu]", r"mlp\[activations\]: 'gelu' is not one of sigmoid"),
        ("mlp[dropout=maybe]", "maybe.*not one of yes, no"),
        ("mlp[depth=2]", r"mlp\[depth\]: unknown option; allowed: hidden"),
    ],
)
def test_a_wrong_restriction_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        registry.space(name)
    assert "\n" not in str(error.value)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="mlp: level 'iso' is unknown; allowed: raw"):
        FULL.canonical(FULL.at(0), "iso")
