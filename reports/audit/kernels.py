"""Rank correlations of many resamples at once, compiled by numba; scipy computes them where numba is not there.

Everything follows from one walk over the architectures in increasing order of x, and for each from the number of
those that are below it in both x and y (`loops.both_below`, a Fenwick tree). With that, the size of its ties and its
ranks, it is known with how many others it agrees and with how many it disagrees: the difference is its net agreement.

- Kendall's tau-b: sum(net) / sqrt(sum(differ in x) sum(differ in y)).
- Vigna's weighted tau (2015), hyperbolic and additive: the same, each term times the weight 1 / rank of the
  architecture, since the weight of a pair is the sum of two. The other variable breaks ties in the ranking, as in
  `scipy.stats.weightedtau`.
- Spearman's rho: the correlation of midranks, tied values sharing the mean of their ranks.
- Discordance: the mean over pairs of the y that is lost by choosing the architecture of greater x, half of the gap
  where x is tied. That is sum(y (rank by y - rank by x)) / pairs, with midranks.

A resample of a bootstrap is a column of multiplicities. The order of the architectures is the same in all, so that
`LANES` resamples walk side by side in the vector unit. Undefined correlations are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..statistics.values import Vector, checked
from . import loops
from .loops import LANES, Integers

NAMES = ("tau_b", "spearman", "weighted_tau", "weighted_tau_by_y", "discordance")


def tau_b(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Kendall's tau-b in O(n log n), exact, with ties; infinities are ranked like other values.

    Args:
        x: Shape (n,).
        y: Shape (n,).

    Returns:
        In [-1, 1]; NaN where x or y is constant or empty.

    Raises:
        ValueError: NaN among the values, or different shapes.
    """
    return float(many(x, checked(y, "y", finite=False)[None], ("tau_b",))["tau_b"][0])


def resampled(
    x: npt.ArrayLike, y: npt.ArrayLike, counts: Integers, names: Sequence[str] = NAMES
) -> Mapping[str, Vector]:
    """Rank statistics of every resample of a bootstrap over architectures.

    Args:
        x: (n,) scores; infinities are ranked like other values.
        y: (n,) truth; finite if the discordance is asked for.
        counts: (R, n) how often a resample holds an architecture.
        names: Of `NAMES`. `weighted_tau` is the mean of ranking by x and by y.

    Returns:
        Name to (R,).

    Raises:
        ValueError: NaN among the values, different lengths, or a negative count.
    """
    left, right = _checked(x, y, names, ndim=1)
    if counts.ndim != 2 or counts.shape[1] != left.size:
        raise ValueError(f"counts must have shape (resamples, {left.size}), got {counts.shape}")
    if counts.size and counts.min() < 0:
        raise ValueError("counts must not be negative")
    if not _numba():
        rows = [(np.repeat(left, row), np.repeat(right, row)) for row in counts]
        return _by_scipy(rows, names)
    # Where some of the architectures are in use, their multiplicities may sum to more than their number.
    walk = _Walk(left, right, int(counts.sum(axis=1).max(initial=0)))
    sums = np.empty((len(Sums._fields), len(counts)))
    for first in range(0, len(counts), LANES):
        chosen = counts[first : first + LANES]
        padded = np.zeros((LANES, left.size), counts.dtype)
        padded[: len(chosen)] = chosen
        sums[:, first : first + LANES] = walk.sums(padded, names)[:, : len(chosen)]
    return _finished(Sums(*sums), names)


def many(
    x: npt.ArrayLike, Y: npt.ArrayLike, names: Sequence[str] = NAMES, *, ranks: Integers | None = None
) -> Mapping[str, Vector]:
    """Rank statistics of x against each row of Y.

    Args:
        x: (n,) scores; infinities are ranked like other values.
        Y: (R, n) truths; finite if the discordance is asked for.
        names: Of `NAMES`.
        ranks: `dense_ranks` of Y, or of more columns that Y is cut out of; computed if not given.

    Returns:
        Name to (R,).

    Raises:
        ValueError: NaN among the values, or different lengths.
    """
    left, rows = _checked(x, Y, names, ndim=2)
    if not _numba():
        return _by_scipy([(left, row) for row in rows], names)
    of = dense_ranks(rows) if ranks is None else ranks
    small, greatest = _small(left.size), int(of.max(initial=-1)) + 1
    order = np.argsort(left, kind="stable").astype(np.int32)
    ids, sizes = (found.astype(small) for found in _groups(left[order]))
    sums = np.zeros((len(rows), len(Sums._fields)))
    ties = sizes.astype(np.float64)
    sums[:, 1], sums[:, 11] = left.size**2 - (ties**2).sum(), (left.size**3 - (ties**3).sum()) / 3.0
    if set(names) <= {"tau_b"}:
        tree, seen = np.empty(greatest + 1, small), np.empty(greatest, small)
        for r in range(len(rows)):
            _compiled(loops.agree_row)(of[r], order, ids, tree, seen, sums[r])
        return _finished(Sums(*sums.T), names)
    below = (np.cumsum(sizes, dtype=np.int64) - sizes).astype(small)
    starts, harmonic = np.empty(greatest + 1, small), _harmonic(left.size)
    sorted_ids, low, same = (np.empty_like(ids) for _ in range(3))
    levels, values = np.empty(left.size, of.dtype), np.empty(left.size)
    tree, seen = np.empty(sizes.size + 1, small), np.empty_like(sizes)
    for r, row in enumerate(rows):
        _compiled(loops.sort_row)(of[r], row, order, ids, starts, sorted_ids, levels, values)
        _compiled(loops.both_below_row)(sorted_ids, levels, tree, seen, low, same)
        _compiled(loops.sum_row)(sorted_ids, levels, values, below, sizes, low, same, harmonic, sums[r])
    return _finished(Sums(*sums.T), names)


def dense_ranks(rows: npt.NDArray[np.float64]) -> Integers:
    """Rank every row from 0 without gaps, equal values sharing a rank: (R, n) to (R, n)."""
    found: Integers = np.empty(rows.shape, _small(rows.shape[1]))
    for row, ranks in zip(rows, found, strict=True):
        order = np.argsort(row)
        ranks[order] = _groups(row[order])[0]
    return found


def resampled_pearson(x: npt.ArrayLike, y: npt.ArrayLike, counts: Integers) -> Vector:
    """Pearson's correlation of every resample.

    Args:
        x: (n,) finite.
        y: (n,) finite.
        counts: (R, n) how often a resample holds an architecture.

    Returns:
        (R,), NaN where a variable does not vary.

    Raises:
        ValueError: NaN or infinite values.
    """
    a, b = checked(x, "x"), checked(y, "y")
    if a.size == 0:
        return np.full(len(counts), np.nan)
    a, b = a - a.mean(), b - b.mean()
    terms = np.column_stack([np.ones(a.size), a, b, a * a, b * b, a * b])
    sums = [counts[r : r + 64].astype(np.float64) @ terms for r in range(0, len(counts), 64)]
    n, sa, sb, aa, bb, ab = np.concatenate([np.empty((0, 6)), *sums]).T
    # The variance of a constant resample is 0 but for rounding.
    left, right = aa * n - sa * sa, bb * n - sb * sb
    tiny = 1e-12 * n
    product = np.where((left <= tiny * aa) | (right <= tiny * bb), np.nan, left * right)
    return np.asarray(np.clip((ab * n - sa * sb) / np.sqrt(product), -1.0, 1.0))


class Sums(NamedTuple):
    """What the statistics are made of, each (R,): sums over architectures, copies counted."""

    net: Vector  # agreements less disagreements with others
    differ_x: Vector  # number of others that differ in x
    differ_y: Vector
    net_by_x: Vector  # each times its weight in the ranking by x
    differ_x_by_x: Vector
    differ_y_by_x: Vector
    net_by_y: Vector
    differ_x_by_y: Vector
    differ_y_by_y: Vector
    rank_xy: Vector  # products of midranks, doubled and centred
    lost: Vector  # y (rank by y - rank by x), doubled
    rank_xx: Vector
    rank_yy: Vector
    n: Vector


def _checked(x: npt.ArrayLike, y: npt.ArrayLike, names: Sequence[str], *, ndim: int) -> tuple[Vector, Vector]:
    left = checked(x, "x", finite=False)
    right = checked(y, "y", ndim=ndim, finite="discordance" in names)
    if right.shape[-1] != left.size:
        raise ValueError(f"x has {left.size} values, y has {right.shape[-1]}")
    return left, right


def _groups(ordered: Vector) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The group of equal values that each of the ordered values belongs to, and the sizes of the groups."""
    if ordered.size == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    ids = np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])])
    return ids, np.bincount(ids)


def _small(n: int) -> type[np.integer[Any]]:
    """Integers for counts up to n: half the memory is half the time, most of which goes by waiting for it."""
    return np.int16 if n <= np.iinfo(np.int16).max else np.int32


def _harmonic(n: int) -> Vector:
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1.0, n + 1.0))])


class _Walk:
    """Architectures in order of x, then y, those equal in both as one item, and room for `LANES` resamples of them."""

    def __init__(self, x: Vector, y: Vector, greatest: int) -> None:
        """`greatest` is the size of the largest resample."""
        self.order = np.lexsort((y, x))
        level_x, level_y = dense_ranks(np.stack([x, y]))[:, self.order].astype(np.int64)
        first = np.ones(x.size, bool)
        first[1:] = (np.diff(level_x) != 0) | (np.diff(level_y) != 0)
        starts = np.flatnonzero(first)
        self.starts = np.append(starts, x.size)
        self.x, self.y = level_x[starts], level_y[starts]
        self.values = (y - y.mean() if np.isfinite(y).all() else np.zeros(y.size))[self.order[starts]]
        self.harmonic = _harmonic(greatest)
        small = _small(greatest)
        groups_x, groups_y = int(level_x.max()) + 1, int(level_y.max()) + 1
        self.counts, self.low = (np.empty((starts.size, LANES), small) for _ in range(2))
        self.below_x, self.size_x = (np.empty((groups_x, LANES), small) for _ in range(2))
        self.below_y, self.size_y, self.seen = (np.empty((groups_y, LANES), small) for _ in range(3))
        self.tree = np.empty((groups_y + 1, LANES), small)
        self.n, self.inside = (np.empty(LANES, small) for _ in range(2))

    def sums(self, chosen: Integers, names: Sequence[str]) -> Vector:
        """`Sums` (fields, LANES) of the multiplicities `chosen` (LANES, n)."""
        sums, ties = np.zeros((len(Sums._fields), LANES)), np.empty((2, 2, LANES))
        _compiled(loops.gather)(chosen, self.order, self.starts, self.counts)
        _compiled(loops.tally)(self.counts, self.x, self.below_x, self.size_x, self.n, ties[0])
        _compiled(loops.tally)(self.counts, self.y, self.below_y, self.size_y, self.n, ties[1])
        sums[13] = self.n
        sums[1:3] = sums[13] ** 2 - ties[:, 0]
        sums[11:13] = (sums[13] ** 3 - ties[:, 1]) / 3.0
        known = (self.counts, self.x, self.y, self.below_x, self.size_x, self.below_y, self.size_y, self.n)
        if not {"spearman", "discordance"}.isdisjoint(names):
            _compiled(loops.add_ranks)(*known, self.values, sums[9:11])
        if {"spearman", "discordance"}.issuperset(names):
            return sums
        _compiled(loops.both_below)(*known[:4], self.tree, self.seen, self.low, sums[0])
        if any(name.startswith("weighted") for name in names):
            _compiled(loops.add_weighted)(*known, self.seen, self.inside, self.low, self.harmonic, sums[3:9])
        return sums


def _finished(sums: Sums, names: Sequence[str]) -> dict[str, Vector]:
    def ratio(top: Vector, left: Vector, right: Vector) -> Vector:
        # Sums of weights are 0 but for rounding where nothing differs; sums of counts are exact.
        sound = (sums.differ_x > 0) & (sums.differ_y > 0)
        product = np.where(sound, left, np.nan) * np.where(sound, right, np.nan)
        with np.errstate(invalid="ignore"):  # of sums that were not asked for
            return np.asarray(np.clip(top / np.sqrt(product), -1.0, 1.0))

    found = {}
    by_x = ratio(sums.net_by_x, sums.differ_x_by_x, sums.differ_y_by_x)
    by_y = ratio(sums.net_by_y, sums.differ_x_by_y, sums.differ_y_by_y)
    found["tau_b"] = ratio(sums.net, sums.differ_x, sums.differ_y)
    found["spearman"] = ratio(sums.rank_xy, sums.rank_xx, sums.rank_yy)
    found["weighted_tau"], found["weighted_tau_by_y"] = (by_x + by_y) / 2, by_y
    pairs = np.where(sums.n > 1, sums.n * (sums.n - 1.0), np.nan)
    found["discordance"] = np.asarray(sums.lost / pairs)
    return {name: found[name] for name in names}


def _by_scipy(rows: Sequence[tuple[Vector, Vector]], names: Sequence[str]) -> dict[str, Vector]:
    """What the compiled walk gives, one pair of columns at a time."""
    from scipy.stats import kendalltau, rankdata, spearmanr, weightedtau

    def discordance(x: Vector, y: Vector) -> float:
        return float((y - y.mean()) @ (rankdata(y) - rankdata(x))) / (x.size * (x.size - 1) / 2)

    made: dict[str, Callable[[Vector, Vector], float]] = {
        "tau_b": lambda x, y: kendalltau(x, y).statistic,
        "spearman": lambda x, y: spearmanr(x, y).statistic,
        "weighted_tau": lambda x, y: weightedtau(x, y, rank=True).statistic,
        "weighted_tau_by_y": lambda x, y: weightedtau(y, x, rank=None).statistic,
        "discordance": discordance,
    }

    def value(name: str, x: Vector, y: Vector) -> float:
        flat = x.size == 0 or (x == x[0]).all() or (y == y[0]).all()
        return float("nan") if x.size < 2 or (flat and name != "discordance") else float(made[name](x, y))

    return {name: np.array([value(name, x, y) for x, y in rows]) for name in names}


@cache
def _numba() -> Any:
    """The module, or None: loading it takes half a second, which reading a report need not pay."""
    try:
        import numba
    except ImportError:
        return None
    return numba


@cache
def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile on first use; the result is kept on disk."""
    made: Callable[..., None] = _numba().njit(cache=True, error_model="numpy")(function)
    return made
