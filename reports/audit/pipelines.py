"""Several training pipelines on the same architectures: statements that a reader can act on.

The pipelines are a few chosen ones and stay as they are; intervals resample architectures, each with all its trainings.
Values are Y (A, P, S): architectures, pipelines, training seeds; oriented, higher is better. Whoever picks something by
measured values and judges it by the same values finds it better than it is. So picks are made by some training seeds
and judged by the others wherever there are two, and seeds stay apart in rank correlations too: under common random
numbers seed s of an architecture starts from the same weights under every pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ..statistics import Interval
from ..statistics.values import Vector, checked_fraction, midranks
from .kernels import tau_b
from .topk import order

Indices = npt.NDArray[np.int64]
Bootstrap = Callable[[Callable[[Vector], npt.ArrayLike]], list[Interval]]
"""A statistic of Y to an interval for each number that it returns."""

MIDDLE, TOP, GOOD = 0.1, 0.01, 0.1
"""Shares of the architectures: median ones, top ones, and those above `Spread.gap`."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How far pipelines move the mean, beside how far architectures lie apart; in units of the metric.

    Attributes:
        means: Mean of each pipeline over architectures and seeds.
        range: The best of these minus the worst.
        iqr: Interquartile range of architectures within a pipeline, mean over pipelines; the noise that is left in
            the mean over seeds widens it.
        gap: From the median to the 90th percentile within a pipeline, mean over pipelines.
        range_to_iqr: range / iqr.
        range_to_gap: range / gap.
    """

    means: tuple[Interval, ...]
    range: Interval
    iqr: Interval
    gap: Interval
    range_to_iqr: Interval
    range_to_gap: Interval


@dataclass(frozen=True, slots=True)
class Transfer:
    """Whether two pipelines rank architectures alike.

    Attributes:
        pipelines: Their names.
        tau_b: Of the means over seeds.
        spearman: Of the means over seeds.
        ceiling: What the noise of seeds lets `spearman` reach if both pipelines rank alike: sqrt(r_S1 r_S2), r_S the
            reliability of the mean of S seeds; NaN with one seed.
        agreement: Correlation between pipelines, of unequal seeds, over the geometric mean of the correlations between
            seeds within each: 1 if seeds are all that parts the two rankings. Not clipped, so it may pass 1.
    """

    pipelines: tuple[str, str]
    tau_b: Interval
    spearman: Interval
    ceiling: Interval
    agreement: Interval


@dataclass(frozen=True, slots=True)
class Choice:
    """Choosing the architecture with one pipeline and deploying it under the best one; in units of the metric.

    Attributes:
        pipeline: What chose.
        cost: Of a full training under it.
        regret: Best under the best pipeline minus what was chosen, both by the means over all seeds. A maximum of
            noisy values is too high, and a bootstrap of maxima is rough: take its limits as an order of magnitude.
        loss: What choosing with the best pipeline itself would have given more, chosen by S - 1 seeds and judged by
            the one left out; below 0 if the other pipeline chooses better.
    """

    pipeline: str
    cost: float
    regret: Interval
    loss: Interval


def over_architectures(Y: Vector, counts: npt.ArrayLike, level: float) -> Bootstrap:
    """Percentile bootstrap over architectures, each resampled with all its trainings (a cluster).

    Args:
        Y: (A, P, S) values.
        counts: (R, A) how often each architecture is in each resample; rows sum to A.
        level: Nominal coverage.

    Raises:
        ValueError: Counts of another shape or sum; a level outside (0, 1).
    """
    drawn = np.asarray(counts, dtype=np.int64)
    if drawn.ndim != 2 or drawn.shape[1] != len(Y) or (drawn.sum(axis=1) != len(Y)).any() or drawn.min() < 0:
        raise ValueError(f"counts must be (resamples, {len(Y)}) with rows that sum to {len(Y)}, got {drawn.shape}")
    tail = (1.0 - checked_fraction(level, "level")) / 2.0
    rows = np.arange(len(Y))
    undefined = "one training seed" if Y.shape[2] < 2 else "too few seeds or no variance"

    def bootstrap(statistic: Callable[[Vector], npt.ArrayLike]) -> list[Interval]:
        values = np.atleast_1d(np.asarray(statistic(Y), dtype=np.float64))
        resampled = np.array([np.atleast_1d(statistic(Y[np.repeat(rows, c)])) for c in drawn], dtype=np.float64)
        sound = [r[np.isfinite(r)] for r in resampled.T]
        return [_interval(float(v), r, tail, level, len(Y), undefined) for v, r in zip(values, sound, strict=True)]

    return bootstrap


def spread(bootstrap: Bootstrap) -> Spread:
    """Statement (i): pipelines move the mean by so much, architectures lie so far apart."""
    *means, span, iqr, gap, to_iqr, to_gap = bootstrap(_spread)
    return Spread(tuple(means), span, iqr, gap, to_iqr, to_gap)


def median_beats_top(bootstrap: Bootstrap, names: tuple[str, ...], *, best: int) -> Mapping[str, Interval]:
    """Statement (ii): how probably a median architecture under the best pipeline beats a top one under each pipeline.

    A median architecture is one of the middle tenth under the best pipeline, a top one of the best 1 % (at least one)
    under the other, both by the mean of S - 1 seeds; they are compared by the seed left out, ties counting half, and
    every seed is left out once. NaN with one training seed.
    """
    return dict(zip(names, bootstrap(partial(_median_beats_top, best=best)), strict=True))


def transfers(bootstrap: Bootstrap, names: tuple[str, ...]) -> tuple[Transfer, ...]:
    """Statement (iii): rank correlations of all pairs of pipelines, beside what seeds let them reach."""
    found = bootstrap(_transfers)
    pairs = combinations(names, 2)
    return tuple(Transfer(pair, *found[4 * i : 4 * i + 4]) for i, pair in enumerate(pairs))


def choices(bootstrap: Bootstrap, names: tuple[str, ...], costs: tuple[float, ...], *, best: int) -> tuple[Choice, ...]:
    """Statement (iv): the regret of choosing with each pipeline and deploying under the best."""
    return tuple(
        Choice(name, cost, *bootstrap(partial(_choice, p=p, best=best)))
        for p, (name, cost) in enumerate(zip(names, costs, strict=True))
    )


def _spread(Y: Vector) -> Vector:
    M = Y.mean(axis=2)
    means = M.mean(axis=0)
    low, middle, high, good = np.quantile(M, [0.25, 0.5, 0.75, 1.0 - GOOD], axis=0)
    span, iqr, gap = np.ptp(means), (high - low).mean(), (good - middle).mean()
    ratios = [span / width if width > 0 else np.nan for width in (iqr, gap)]
    return np.array([*means, span, iqr, gap, *ratios])


def _median_beats_top(Y: Vector, *, best: int) -> Vector:
    A, P, S = Y.shape
    if S < 2:
        return np.full(P, np.nan)
    middle, top = max(1, round(MIDDLE * A)), max(1, round(TOP * A))
    first = (A - middle) // 2
    found = np.zeros((S, P))
    for s in range(S):
        others = np.delete(Y, s, axis=2).mean(axis=2)
        ordinary = Y[order(others[:, best])[first : first + middle], best, s]
        for p in range(P):
            gaps = np.subtract.outer(ordinary, Y[order(others[:, p])[:top], p, s])
            found[s, p] = (gaps > 0).mean() + (gaps == 0).mean() / 2.0
    beaten: Vector = found.mean(axis=0)
    return beaten


def _transfers(Y: Vector) -> Vector:
    """For each pair of pipelines: tau-b and Spearman's rho of the means, the ceiling of the latter, the agreement."""
    _, P, S = Y.shape
    M = Y.mean(axis=2)
    of_means = _rank_correlations(M)
    R = _rank_correlations(Y.reshape(len(Y), P * S)).reshape(P, S, P, S)
    unequal = ~np.eye(S, dtype=np.bool_)
    # Correlations of unequal seeds, [p, q]: within a pipeline these are its reliability.
    r = np.array([[R[p, :, q][unequal].mean() if S > 1 else np.nan for q in range(P)] for p in range(P)])
    within = np.where(r.diagonal() > 0, r.diagonal(), np.nan)
    of_mean = S * within / (1.0 + (S - 1) * within)
    found = [
        (
            tau_b(M[:, p], M[:, q]),
            of_means[p, q],
            np.sqrt(of_mean[p] * of_mean[q]),
            r[p, q] / np.sqrt(within[p] * within[q]),
        )
        for p, q in combinations(range(P), 2)
    ]
    return np.ravel(found)


def _choice(Y: Vector, *, p: int, best: int) -> tuple[float, float]:
    S = Y.shape[2]
    M = Y.mean(axis=2)
    regret = M[:, best].max() - M[M[:, p].argmax(), best]
    losses = []
    for s in range(S if S > 1 else 0):
        others = np.delete(Y, s, axis=2).mean(axis=2)
        losses.append(Y[others[:, best].argmax(), best, s] - Y[others[:, p].argmax(), best, s])
    return float(regret), float(np.mean(losses)) if losses else float("nan")


def _rank_correlations(X: Vector) -> Vector:
    """Spearman's between the columns of (A, n); NaN for those without variance."""
    ranks = np.column_stack([midranks(x)[0] for x in X.T])
    ranks -= ranks.mean(axis=0)
    lengths = np.sqrt((ranks**2).sum(axis=0))
    lengths[lengths == 0] = np.nan
    found: Vector = ranks.T @ ranks / np.outer(lengths, lengths)
    return found


def _interval(estimate: float, resampled: Vector, tail: float, level: float, n: int, undefined: str) -> Interval:
    if n < 3 or not np.isfinite(estimate) or not resampled.size:
        why = f"needs 3 architectures, got {n}" if n < 3 else undefined
        return Interval(estimate, float("nan"), float("nan"), level, "architectures", n, why)
    low, high = (float(v) for v in np.quantile(resampled, [tail, 1.0 - tail]))
    few = f"only {n} architectures: the interval covers less than its level" if n < 10 else ""
    return Interval(estimate, low, high, level, "architectures", n, few)
