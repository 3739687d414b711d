"""Ceilings within the true top, where architectures differ little and training noise is not small.

The top of the noisy means f is the top of the luckiest: within it noise and quality are made to oppose each other, so
that seeds agree less than any two trainings do, and a perfect estimator scores low against an f that chose it. So one
training seed chooses the top, the others are averaged to judge within it, and all seeds take turns; a number is the
mean over the turns. What is estimated: how an estimator ranks the architectures that a single training puts into the
top, against the mean of S - 1 fresh trainings, beside what a perfect estimator would get there.

The reliability within the top is the correlation of two judging seeds. With S = 2 there is but one; the noise is then
taken from the differences between the two seeds of architectures with similar means, and carried to ranks by the
relations that hold for normal values. In simulations of a top tenth the mean ceiling lies within 0.05 of what a perfect
estimator reaches with S = 3 (for Pearson and Spearman), and mostly with S = 2: there it is up to 0.14 too low where
seeds hardly agree, and for ranks up to 0.17 too high where accuracies saturate and many are equal. In a single table of
700 architectures its standard deviation is 0.03 to 0.2, the noisier the seeds the more, and 0.25 with a top of a dozen
and S = 2: `share` over such a top says little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..statistics import Estimate, Interval
from ..statistics.values import Vector, checked_fraction
from . import kernels
from .ceiling import (
    ONE_SEED,
    Method,
    Rows,
    between_columns,
    correlation,
    mean_of,
    placed,
    score_columns,
    trainings,
    usable,
)
from .results import Attainable
from .topk import order

Counts: TypeAlias = npt.NDArray[np.integer[Any]]

FEWEST = 10
"""Architectures in the top below which its reliability is not computed: its standard error would be over a third."""


def top_attainable(
    columns: npt.ArrayLike,
    Y: npt.ArrayLike,
    share: float,
    counts: Counts,
    *,
    level: float = 0.95,
    accuracy_scale: bool = False,
) -> dict[str, Attainable]:
    """Put correlations within the true top beside what training seeds let anybody reach there.

    See the module for what is estimated, and how well.

    Args:
        columns: Scores, shape (N, K); NaN where there is none, -inf ranked last.
        Y: Shape (N, S); architectures that lack a seed are left out.
        share: The top, in (0, 1).
        counts: Multiplicities of a bootstrap over architectures, (R, N); the choice of the top is not repeated.
        level: Of the intervals.
        accuracy_scale: Whether Pearson's correlation is wanted too; it leaves out scores that are not finite.

    Raises:
        ValueError: Shapes differ, infinite values of Y, or share or level outside (0, 1).
    """
    truth, scores = trainings(Y), score_columns(columns, Y)
    checked_fraction(share, "share")
    complete = np.flatnonzero(~np.isnan(truth).any(axis=1))
    truth, scores, counts = truth[complete], scores[complete], counts[:, complete]
    names: tuple[Method, ...] = ("spearman", "pearson", "tau_b") if accuracy_scale else ("spearman", "tau_b")
    seeds = truth.shape[1]
    size = min(len(truth), max(1, round(share * len(truth))))
    tops = [order(truth[:, t])[:size] for t in range(seeds)]
    found: dict[str, Attainable] = {}
    for name in names:
        observed = _within(scores, truth, tops, counts, name, checked_fraction(level, "level"))
        single = _within_reliability(truth, tops, name)
        found[name] = placed(name, observed, single, seeds - 1, between_columns(scores, tops, name))
    return found


def _within(
    scores: Vector, truth: Vector, tops: Sequence[Rows], counts: Counts, name: Method, level: float
) -> Interval:
    """Mean over turns and columns of the correlation with the seeds that did not choose."""
    n = tops[0].size
    blank = (float("nan"), float("nan"), float("nan"), level, "architectures", n)
    if truth.shape[1] < 2:
        return Interval(*blank, ONE_SEED)
    values, resamples = [], []
    for t, top in enumerate(tops):
        judged = np.delete(truth, t, axis=1).mean(axis=1)
        for column in scores.T:
            rows = top[usable(column[top], name)]
            values.append(correlation(column[rows], judged[rows], name))
            resamples.append(_resampled(column[rows], judged[rows], counts[:, rows], name))
    estimate = mean_of(values, n, "fewer than 3 architectures of the top differ in score and truth")
    drawn = np.array(resamples)[~np.isnan(values)].T
    drawn = drawn[~np.isnan(drawn).any(axis=1)].mean(axis=1) if drawn.size else np.empty(0)
    if drawn.size < 2:
        return Interval(estimate.value, *blank[1:], estimate.reason or "no resample has variance within the top")
    low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(estimate.value, float(low), float(high), *blank[3:])


def _within_reliability(truth: Vector, tops: Sequence[Rows], name: Method) -> Estimate:
    """Correlation of two trainings within the top that a third one chose."""
    seeds, n = truth.shape[1], tops[0].size
    if seeds < 2:
        return Estimate(float("nan"), n, ONE_SEED)
    if n < FEWEST:
        return Estimate(float("nan"), n, f"only {n} architectures in the top: ceiling unknown")
    if seeds == 2:
        return _by_differences(truth, tops, name)
    found = []
    for t, top in enumerate(tops):
        judges = [s for s in range(seeds) if s != t]
        found += [correlation(truth[top, a], truth[top, b], name) for a, b in combinations(judges, 2)]
    return mean_of(found, n, "training seeds have no variance within the top")


def _by_differences(truth: Vector, tops: Sequence[Rows], name: Method) -> Estimate:
    """What `_within_reliability` would be, from two seeds.

    Mean and difference of two equally noisy values are independent, if the noise is normal: choosing by the mean leaves
    the differences, and the noise in them, as they are.
    """
    by_mean = order(truth.mean(axis=1))
    noise = np.empty(len(truth))
    half = max(2, tops[0].size // 6)
    padded = np.pad(truth[by_mean].var(axis=1, ddof=1), half, mode="edge")
    noise[by_mean] = np.convolve(padded, np.full(2 * half + 1, 1.0 / (2 * half + 1)), mode="valid")
    total = float(np.mean([truth[top, 1 - t].var(ddof=1) for t, top in enumerate(tops)]))
    if total == 0:
        return Estimate(float("nan"), tops[0].size, "training seeds have no variance within the top")
    r = max(-1.0, 1.0 - float(np.mean([noise[top].mean() for top in tops])) / total)
    if name == "spearman":
        r = 6.0 / math.pi * math.asin(r / 2.0)
    elif name == "tau_b":
        r = 2.0 / math.pi * math.asin(r)
    return Estimate(r, tops[0].size)


def _resampled(x: Vector, y: Vector, counts: Counts, name: Method) -> Vector:
    if x.size < 3:
        return np.full(len(counts), np.nan)
    if name == "pearson":
        return kernels.resampled_pearson(x, y, counts)
    return kernels.resampled(x, y, counts, (name,))[name]
