"""The moves of fixed-length spaces: complete, uniform, closed, and cheap."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nasbed.methods.categorical import Categorical, check_keys, full_name, whole_number
from nasbed.protocols import Architecture

# Seeds are fixed, so these thresholds decide once and for all; 1e-3 leaves room for an honest generator.
ALPHA = 1e-3

value_sets = st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=5)
spaces = value_sets.map(lambda values: Categorical("toy", "toy", [tuple(v) for v in values]))
UNEVEN = Categorical("toy", "toy", [(0, 1), (4,), (0, 3, 7, 9)])


def members(space: Categorical) -> list[Architecture]:
    return [space.at(i) for i in range(space.size)]


def distance(a: Architecture, b: Architecture) -> int:
    return sum(x != y for x, y in zip(a.genes, b.genes, strict=True))


@given(spaces)
@settings(max_examples=50, deadline=None)
def test_numbering_is_lexicographic_and_complete(space: Categorical) -> None:
    everything = members(space)
    assert [space.index(a) for a in everything] == list(range(space.size))
    assert [a.genes for a in everything] == sorted({a.genes for a in everything})
    for a in everything:
        space.check(a)


@given(spaces, st.data())
@settings(max_examples=50, deadline=None)
def test_neighbours_are_the_members_one_gene_away(space: Categorical, data: st.DataObject) -> None:
    a = space.at(data.draw(st.integers(0, space.size - 1)))
    found = space.neighbours(a)
    assert len(set(found)) == len(found)
    assert set(found) == {b for b in members(space) if distance(a, b) == 1}
    assert all(a in space.neighbours(b) for b in found)


@given(spaces, st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_moves_stay_inside(space: Categorical, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = space.sample(rng), space.sample(rng)
    child = space.crossover(a, b, rng)
    for c in (a, b, child):
        space.check(c)
    assert all(g in pair for g, *pair in zip(child.genes, a.genes, b.genes, strict=True))
    assert space.crossover(a, a, rng) == a
    if space.size > 1:
        assert space.mutate(a, rng) in space.neighbours(a)
        assert all(type(g) is int for g in space.mutate(a, rng).genes)
    else:
        with pytest.raises(ValueError, match="no neighbours"):
            space.mutate(a, rng)


@given(spaces)
@settings(max_examples=30, deadline=None)
def test_options_spell_out_the_whole_space(space: Categorical) -> None:
    prefixes: list[tuple[int, ...]] = [()]
    for _ in space.values:
        prefixes = [(*p, v) for p in prefixes for v in space.options(p)]
    assert [space.options(p) for p in prefixes] == [()] * space.size
    assert prefixes == [a.genes for a in members(space)]


@given(spaces)
@settings(max_examples=30, deadline=None)
def test_encoding_is_one_hot_and_injective(space: Categorical) -> None:
    codes = np.array([space.encode(a) for a in members(space)])
    assert codes.dtype == np.float64
    assert codes.shape == (space.size, sum(map(len, space.values)))
    assert set(np.unique(codes)) <= {0.0, 1.0}
    assert (codes.sum(axis=1) == len(space.values)).all()
    assert len(np.unique(codes, axis=0)) == space.size


def test_sampling_is_uniform() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(UNEVEN.index(UNEVEN.sample(rng)) for _ in range(8000))
    assert chisquare([counts[i] for i in range(UNEVEN.size)]).pvalue > ALPHA


def test_a_space_beyond_64_bits_is_sampled_gene_by_gene() -> None:
    space = Categorical("toy", "toy", [(2, 5, 7)] * 60)
    assert space.size == 3**60 > 2**64
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(300)]
    assert chisquare(list(Counter(g for a in drawn for g in a.genes).values())).pvalue > ALPHA
    assert all(space.at(space.index(a)) == a for a in drawn)


def test_mutation_is_uniform_over_neighbours_where_genes_are_alike() -> None:
    space = Categorical("toy", "toy", [(0, 1, 2), (5,), (3, 4, 8)])
    rng = np.random.default_rng(1)
    a = space.at(4)
    counts = Counter(space.mutate(a, rng) for _ in range(4000))
    assert chisquare([counts[b] for b in space.neighbours(a)]).pvalue > ALPHA


def test_mutation_is_uniform_over_genes_then_values_where_genes_differ() -> None:
    rng = np.random.default_rng(2)
    a = UNEVEN.at(0)
    counts = Counter(UNEVEN.mutate(a, rng) for _ in range(6000))
    # One neighbour by the first gene, three by the last: 1/2 and 3 x 1/6.
    expected = [3000, 1000, 1000, 1000]
    assert chisquare([counts[b] for b in UNEVEN.neighbours(a)], expected).pvalue > ALPHA


def test_crossover_takes_genes_evenly_and_independently() -> None:
    space = Categorical("toy", "toy", [(0, 1)] * 3)
    rng = np.random.default_rng(3)
    counts = Counter(space.crossover(space.at(0), space.at(7), rng) for _ in range(4000))
    assert chisquare([counts[a] for a in members(space)]).pvalue > ALPHA


@pytest.mark.parametrize(
    ("genes", "message"),
    [((0, 4, 1), r"gene 2 .gene_2. of toy:0.4.1 is 1; allowed: 0, 3, 7, 9"), ((0, 4), "has 2 genes; allowed: 3")],
)
def test_foreign_architectures_are_named(genes: tuple[int, ...], message: str) -> None:
    for use in (UNEVEN.check, UNEVEN.index, UNEVEN.encode):
        with pytest.raises(ValueError, match=message):
            use(Architecture("toy", genes))
        with pytest.raises(ValueError, match="is of the space 'mlp'; allowed: 'toy'"):
            use(Architecture("mlp", (0, 4, 0)))


@pytest.mark.parametrize("index", [-1, 8])
def test_positions_outside_are_refused(index: int) -> None:
    with pytest.raises(ValueError, match=f"index is {index}; allowed: 0 to 7"):
        UNEVEN.at(index)


def test_canonical_merges_nothing() -> None:
    a = UNEVEN.at(5)
    assert UNEVEN.canonical(a) == UNEVEN.canonical(a, "raw") == a
    with pytest.raises(ValueError, match="level 'iso' is unknown; allowed: raw"):
        UNEVEN.canonical(a, "iso")


def test_spaces_are_values() -> None:
    again = Categorical("toy", "toy", UNEVEN.values)
    other = Categorical("toy", "toy[x=1]", UNEVEN.values)
    assert again == UNEVEN
    assert hash(again) == hash(UNEVEN)
    assert other != UNEVEN
    assert repr(other) == "toy[x=1]"


def test_option_helpers() -> None:
    assert full_name("toy", {}) == "toy"
    assert full_name("toy", {"a": "1", "b": "x,y"}) == "toy[a=1;b=x,y]"
    assert whole_number("toy", "a", ("12",)) == 12
    for texts in ((), ("1", "2"), ("-1",), ("1.5",), ("²",)):
        with pytest.raises(ValueError, match=r"toy: a is .*; allowed: one integer"):
            whole_number("toy", "a", texts)
    with pytest.raises(ValueError, match="option 'c' is unknown; allowed: a, b"):
        check_keys("toy", {"c": ("1",)}, ("a", "b"))


def cheapest(moves: list[Callable[[], object]]) -> list[float]:
    """Smallest CPU time of 1,000 calls of each, over interleaved repeats: noise only ever adds."""
    best = [float("inf")] * len(moves)
    for _ in range(10):
        for k, move in enumerate(moves):
            start = time.process_time()
            for _ in range(1000):
                move()
            best[k] = min(best[k], time.process_time() - start)
    return best


@pytest.mark.parametrize("values", [[range(5)] * 6, [range(5), range(4)] * 3], ids=["even", "uneven"])
def test_sample_and_mutate_cost_at_most_five_copies_and_draws(values: list[range]) -> None:
    space = Categorical("toy", "toy", values)
    rng = np.random.default_rng(0)
    a, genes = space.at(777), [1, 2, 3, 4, 0, 1]
    bare, sample, mutate = cheapest(
        [lambda: (genes.copy(), rng.integers(6)), lambda: space.sample(rng), lambda: space.mutate(a, rng)]
    )
    assert sample <= 5 * bare
    assert mutate <= 5 * bare
