"""How far is one training from those that a table recorded? Deviations pooled over entries of near quality.

Arrays of values are (rows, seeds): an entry's trainings, NaN where missing, infinite where one diverged. An entry with
a diverged training has neither a mean nor a deviation; a diverged training beside finite ones is infinitely far off.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

NEAREST = 200
"""Entries of nearest mean over which a deviation is pooled."""
LIMIT = 2.0
CONFIDENCE = 0.99


class Spread(NamedTuple):
    """Of values (rows, seeds), each (rows,): seeds there, their mean, and the deviation between seeds, pooled.

    Mean and deviation are NaN for entries without a value or with an infinite one; the deviation is NaN for all where
    no entry has two values.
    """

    n: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def measured(values: np.ndarray, metric: str) -> np.ndarray:
    """The values on the scale on which trainings are compared: of perplexities the logarithm, else as they are.

    The logarithm of a perplexity is the mean loss, whose deviation between seeds is much the same for good and bad
    networks; that of the perplexity itself grows with the perplexity.
    """
    return np.log(values) if metric == "perplexity" else values


def scale_name(metric: str) -> str:
    """What `measured` gives."""
    return "log perplexity" if metric == "perplexity" else metric


def spread(values: np.ndarray) -> Spread:
    """Seeds, mean and pooled deviation of every entry.

    The deviation of an entry is pooled over the 200 entries of nearest mean that have two values; it need not have two
    itself.
    """
    n, mean, squares = _moments(values)
    sd = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(mean))
    pool = _Pool(n, mean, squares)
    if len(pool.rows):
        start = pool.around(mean[known])
        sd[known] = pool.deviation(start, 0.0, 0.0)
    return Spread(n, mean, sd)


def z_scores(x: np.ndarray, n: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """(x - mean) / (sd * sqrt(1 + 1/n)); infinite where entries that never varied now differ."""
    off = x - mean
    scale = sd * np.sqrt(1 + 1 / n)
    z = np.where(np.abs(off) < 1e-12, 0.0, np.copysign(np.inf, off))
    np.divide(off, scale, out=z, where=scale > 0)
    return z


class LeftOut(NamedTuple):
    """What the table's own trainings show: share of |z| > 2, and the degrees of freedom behind it."""

    share: float
    freedom: int


def left_out(tables: Iterable[np.ndarray]) -> LeftOut:
    """Share of |z| > 2 when one recorded training at a time plays the fresh one, and all others are the table.

    Of an entry with two seeds one remains: its mean is that one value, and its deviation comes from its neighbours
    alone, as both seeds of each are there.

    Args:
        tables: Values, one array for each pipeline.
    """
    outside = total = freedom = 0
    for values in tables:
        pool = _Pool(*_moments(values))
        for s in range(values.shape[1]):
            z = _left_out(values, s, pool)
            outside += int((np.abs(z) > LIMIT).sum())
            total += len(z)
        n = (~np.isnan(values)).sum(1)
        freedom += int(np.maximum(n - 1, 0).sum())
    return LeftOut(outside / total if total else 0.0, freedom)


def most_outside(count: int, own: LeftOut) -> int:
    """The largest number of |z| > 2 among `count` trainings that passes: the 99 % quantile of what is to be expected.

    That is the binomial quantile at the share of the left-out seeds. Of a small table this share is itself uncertain;
    it has the distribution that follows from its degrees of freedom and Jeffreys' prior, which makes the quantile one
    of a beta-binomial distribution. (The seeds of an entry are one degree fewer than they are: of two, both deviate
    from the other by the same.)
    """
    from scipy.stats import betabinom

    a, b = own.share * own.freedom + 0.5, (1 - own.share) * own.freedom + 0.5
    return int(betabinom.ppf(CONFIDENCE, count, a, b))


class _Pool:
    """The entries that have a deviation of their own, by ascending mean."""

    def __init__(self, n: np.ndarray, mean: np.ndarray, squares: np.ndarray) -> None:
        rows = np.flatnonzero((n >= 2) & ~np.isnan(mean))
        self.rows = rows[np.argsort(mean[rows], kind="stable")]
        self.size = min(NEAREST, len(rows))
        self.freedom, self.squares = n - 1.0, squares
        self.place = np.full(len(n), -1)
        self.place[self.rows] = np.arange(len(rows))
        self._ordered = mean[self.rows]
        self._sums = [np.concatenate([[0.0], np.cumsum(x[self.rows])]) for x in (squares, self.freedom)]

    def around(self, x: np.ndarray) -> np.ndarray:
        """Where the entries of nearest mean start in `rows`."""
        return windows(self._ordered, self.size, x)

    def deviation(self, start: np.ndarray, squares: np.ndarray | float, freedom: np.ndarray | float) -> np.ndarray:
        """Pooled over the entries from `start`, after adding squares and degrees of freedom; NaN of no freedom."""
        squared, free = (s[start + self.size] - s[start] for s in self._sums)
        squared, free = squared + squares, free + freedom
        # A running sum cancels to a little below or above zero where all values are equal.
        squared = np.where(squared > 1e-12, squared, 0.0)
        variance = np.divide(squared, free, out=np.full(len(start), np.nan), where=free > 0.5)
        return np.asarray(np.sqrt(variance))


def windows(ordered: np.ndarray, size: int, x: np.ndarray) -> np.ndarray:
    """Where the `size` consecutive values of an ascending array that are nearest to each x start.

    The window moves on as long as the value it would gain is nearer than the one it would lose.
    """
    starts: np.ndarray = np.searchsorted(ordered[:-size] + ordered[size:], 2 * x)
    return starts


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seeds there, mean, and sum of squares around it; the latter two NaN of none, or of an infinite one."""
    there = ~np.isnan(values)
    n = there.sum(1)
    known = (n > 0) & ~np.isinf(values).any(1)
    kept = np.where(there & known[:, None], values, 0.0)
    mean = np.divide(kept.sum(1), n, out=np.full(len(n), np.nan), where=known)
    squares = np.where(there & known[:, None], kept - np.nan_to_num(mean)[:, None], 0.0)
    return n, mean, np.where(known, (squares**2).sum(1), np.nan)


def _left_out(values: np.ndarray, s: int, pool: _Pool) -> np.ndarray:
    """The z of every training with the seed at place s, against the rest of the table."""
    rest = values.copy()
    rest[:, s] = np.nan
    n, mean, squares = _moments(rest)
    rows = np.flatnonzero(~np.isnan(values[:, s]) & ~np.isnan(mean))
    if not len(pool.rows) or not len(rows):
        return np.zeros(0)
    start = pool.around(mean[rows])
    # The entry itself counts with the seeds that remain.
    place = pool.place[rows]
    inside = (start <= place) & (place < start + pool.size)
    own = np.where(inside, pool.squares[rows], 0.0), np.where(inside, pool.freedom[rows], 0.0)
    sd = pool.deviation(start, squares[rows] - own[0], n[rows] - 1.0 - own[1])
    z = z_scores(values[rows, s], n[rows], mean[rows], sd)
    kept: np.ndarray = z[~np.isnan(sd)]
    return kept
