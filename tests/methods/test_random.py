"""Random search: exact order statistics, exhaustion, uniformity."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.random import RandomSearch
from nasbed.protocols import Architecture

SMALL = MLP(hidden=2, widths=(8, 16), activations=("relu",))


class WithoutIndex:
    """A finite space that can only be sampled."""

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.family = SMALL.family

    def sample(self, rng: np.random.Generator) -> Architecture:
        return SMALL.sample(rng)


@pytest.mark.parametrize("space", [SMALL, WithoutIndex(SMALL.size), Synthetic(genes=3, values=3)])
@pytest.mark.parametrize("n", [1, 4])
def test_without_replacement_every_member_comes_once_and_then_nothing(space: MLP, n: int) -> None:
    search = RandomSearch(space, seed=0, replace=False)
    drawn = []
    while proposals := search.ask(n):
        drawn += [p.architecture for p in proposals]
    assert len(drawn) == len(set(drawn)) == space.size
    assert list(search.ask(n)) == []


def test_without_replacement_finds_the_optimum() -> None:
    space = Synthetic(genes=4, values=3, epistasis=1)
    search = RandomSearch(space, seed=1, replace=False)
    best = max((p.architecture for p in search.ask(space.size)), key=space.truth)
    assert best == space.optimum()


def test_without_replacement_every_order_is_equally_likely() -> None:
    space = Synthetic(genes=2, values=2)
    seen = Counter(
        tuple(space.index(p.architecture) for p in RandomSearch(space, seed=s, replace=False).ask(4))
        for s in range(2400)
    )
    assert len(seen) == 24
    assert stats.chisquare(list(seen.values())).pvalue > 1e-3


def test_without_replacement_a_huge_or_infinite_space_works() -> None:
    for space in (Synthetic(genes=40, values=3), WithoutIndex(None)):
        assert len({p.architecture for p in RandomSearch(space, seed=0, replace=False).ask(4)}) == 4


def test_with_replacement_the_best_rank_follows_the_order_statistic() -> None:
    """Of n independent uniform ranks 1..N the smallest has mean sum_k ((N - k + 1)/N)^n, k = 1..N."""
    space, n, runs = Synthetic(genes=3, values=3), 10, 2000
    rank = stats.rankdata(-space.truths())
    best = [min(rank[space.index(p.architecture)] for p in RandomSearch(space, seed=s).ask(n)) for s in range(runs)]
    size = space.size
    exact = sum(((size - k + 1) / size) ** n for k in range(1, size + 1))
    assert abs(np.mean(best) - exact) < 4 * np.std(best) / runs**0.5
    assert len({p.architecture for p in RandomSearch(space, seed=0).ask(200)}) == size


def test_sampling_is_uniform_over_members_not_over_encodings() -> None:
    counts = Counter(p.architecture for p in RandomSearch(SMALL, seed=0).ask(4000))
    assert len(counts) == SMALL.size
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
