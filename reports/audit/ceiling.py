"""How far training seeds let any estimator get: reliability of the recorded quality, and the ceiling it sets.

The quality f of an architecture is measured as a mean over S trainings. Even a perfect estimator, one that knows what
the mean over endlessly many trainings would be, agrees with f no better than f agrees with that: the ceiling. Y is
(N, S), architectures by training seeds; NaN marks a training that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..statistics import Estimate, Interval
from ..statistics.values import Result, Vector, checked, midranks
from . import kernels
from .results import Attainable

Method: TypeAlias = Literal["spearman", "pearson", "tau_b"]
Rows: TypeAlias = npt.NDArray[np.int64]

ONE_SEED = "one training seed: ceiling unknown"


@dataclass(frozen=True, slots=True)
class ICC(Result):
    """Intraclass correlations of a two-way layout, architecture by seed (McGraw and Wong 1996).

    Attributes:
        icc_c1: ICC(C,1), consistency of a single seed.
        icc_ck: ICC(C,k), consistency of the mean of the seeds.
        icc_a1: ICC(A,1), absolute agreement of a single seed: differences between the means of seeds count as error.
        var_arch: Variance between architectures, seed noise taken off; may come out below 0.
        var_err: Variance between seeds of one architecture.
        n: Architectures with all seeds.
        reason: Why the values are NaN, else empty.
    """

    icc_c1: float
    icc_ck: float
    icc_a1: float
    var_arch: float
    var_err: float
    n: int
    reason: str = ""


def reliability(Y: npt.ArrayLike, method: Method = "spearman") -> Estimate:
    """Correlation of two trainings of one architecture, r1: the mean over pairs of seeds.

    Args:
        Y: Shape (N, S); architectures that lack one of the two seeds are left out of that pair.
        method: Of correlation; tau_b too.

    Returns:
        r1, n being the architectures with two seeds or more; NaN with a reason for one seed, or where no pair of seeds
        has 3 architectures and variance.

    Raises:
        ValueError: Not two-dimensional, or infinite values.
    """
    truth = trainings(Y)
    present = ~np.isnan(truth)
    n = int(np.sum(present.sum(axis=1) >= 2))
    if truth.shape[1] < 2:
        return Estimate(float("nan"), n, ONE_SEED)
    found = []
    for a, b in combinations(range(truth.shape[1]), 2):
        both = present[:, a] & present[:, b]
        found.append(correlation(truth[both, a], truth[both, b], method))
    return mean_of(found, n, "no two training seeds have 3 architectures in common that differ in both")


def spearman_brown(r: float, seeds: float) -> float:
    """Reliability of the mean of several seeds from that of one: S r / (1 + (S - 1) r) (Spearman 1910, Brown 1910)."""
    below = 1.0 + (seeds - 1.0) * r
    return seeds * r / below if below > 0 else float("nan")


def icc(Y: npt.ArrayLike) -> ICC:
    """Intraclass correlations and variance components; a cross-check of `reliability` on the scale of the metric.

    Args:
        Y: Shape (N, S); architectures that lack a seed are left out.

    Raises:
        ValueError: Not two-dimensional, or infinite values.
    """
    truth = trainings(Y)
    rows = truth[~np.isnan(truth).any(axis=1)]
    n, k = rows.shape
    unknown = float("nan")
    if k < 2 or n < 3:
        reason = ONE_SEED if k < 2 else f"reliability needs 3 architectures with all seeds, got {n}"
        return ICC(unknown, unknown, unknown, unknown, unknown, n, reason)
    by_row, by_seed, mean = rows.mean(axis=1), rows.mean(axis=0), rows.mean()
    between = k * float(np.sum((by_row - mean) ** 2)) / (n - 1)
    seeds = n * float(np.sum((by_seed - mean) ** 2)) / (k - 1)
    error = float(np.sum((rows - by_row[:, None] - by_seed + mean) ** 2)) / ((n - 1) * (k - 1))
    if between == 0:
        return ICC(unknown, unknown, unknown, -error / k, error, n, "the means of the architectures are all equal")
    return ICC(
        icc_c1=(between - error) / (between + (k - 1) * error),
        icc_ck=(between - error) / between,
        icc_a1=(between - error) / (between + (k - 1) * error + k / n * (seeds - error)),
        var_arch=(between - error) / k,
        var_err=error,
        n=n,
    )


def disattenuate(r: float, rel_x: float, rel_y: float) -> Estimate:
    """Correlation without the noise of either side: r / sqrt(rel_x rel_y) (Spearman 1904); above 1 is not clipped.

    Args:
        r: Correlation of the noisy values.
        rel_x: Reliability of one side.
        rel_y: Of the other.

    Returns:
        NaN with a reason unless both reliabilities are positive; n is 0.
    """
    for rel in (rel_x, rel_y):
        if not rel > 0.0:
            return Estimate(float("nan"), 0, f"a reliability of {rel:.3g} cannot be corrected for")
    return Estimate(r / math.sqrt(rel_x * rel_y), 0)


def tau_ceiling(Y: npt.ArrayLike) -> Estimate:
    """tau-b that a perfect estimator would reach with the mean of the seeds, from the tau-b of two seeds.

    tau has no formula of Spearman and Brown. It has one through Greiner's relation r = sin(pi tau / 2), in which ranks
    stand for a normal quality behind them: from the tau-b between seeds to r1, to the reliability of the mean, and its
    square root back to tau. Whatever transforms the metric leaves it as it is.

    Simulating a normal quality with the variances of `icc` instead fails on real tables: networks that do not learn
    make up most of the variance and few of the pairs. Against the known truth of 12 synthetic worlds, five of them
    shaped like tables of trained networks, with 2, 3 and 5 seeds, this is off by -0.005 to +0.027 (by 0.013 or less but
    in one of them), the normal simulation by -0.028 to +0.155, a simulation from shrunken means and the residuals of
    similar architectures by -0.009 to +0.036.

    Args:
        Y: Shape (N, S).

    Returns:
        NaN with a reason for one seed, or where tau-b between seeds is not positive.

    Raises:
        ValueError: Not two-dimensional, or infinite values.
    """
    single = reliability(Y, "tau_b")
    if math.isnan(single.value):
        return single
    ceiling, reason = _ceiling("tau_b", single.value, _seeds(trainings(Y)))
    return Estimate(ceiling, single.n, reason)


def attainable(observed: Mapping[str, Interval], Y: npt.ArrayLike, columns: npt.ArrayLike) -> dict[str, Attainable]:
    """Put correlations beside what training seeds let anybody reach, over all architectures.

    Args:
        observed: Correlations with the mean of the seeds by name; spearman, pearson and tau_b are looked at, those that
            are NaN (pearson off the scale of the metric) are left out.
        Y: Shape (N, S). Where seeds are missing, S in the formulas is the harmonic mean of the number of trainings.
        columns: Scores, shape (N, K), one column for each seed of the estimator; NaN where there is none, -inf ranked
            last. Their correlation with each other is the estimator's reliability, 1 for one column.

    Raises:
        ValueError: Shapes differ, or infinite values of Y.
    """
    truth, scores = trainings(Y), score_columns(columns, Y)
    everyone = np.arange(len(truth))
    found: dict[str, Attainable] = {}
    for name in _methods(observed):
        single = reliability(truth, name)
        own = between_columns(scores, [everyone], name)
        found[name] = placed(name, observed[name], single, _seeds(truth), own)
    return found


def placed(name: Method, observed: Interval, single: Estimate, seeds: float, own: Estimate) -> Attainable:
    """Fill an `Attainable`: `single` is of two training seeds, `seeds` of which are averaged, `own` of two columns."""
    unknown = float("nan")
    if math.isnan(single.value):
        return Attainable(observed, unknown, unknown, unknown, unknown, unknown, own.value, single.reason)
    ceiling, reason = _ceiling(name, single.value, seeds)
    reliable, clean = unknown, unknown
    if name != "tau_b":
        reliable = spearman_brown(single.value, seeds)
        corrected = disattenuate(observed.estimate, reliable, own.value)
        clean = corrected.value
        reason = reason or own.reason or corrected.reason
    reached = observed.estimate / ceiling
    return Attainable(observed, single.value, reliable, ceiling, reached, clean, own.value, reason)


def _ceiling(name: Method, single: float, seeds: float) -> tuple[float, str]:
    """Of the mean of the seeds, and why it is unknown."""
    if not single > 0.0:
        return float("nan"), f"training seeds do not agree ({name} = {single:.2f}): ceiling unknown"
    if name == "tau_b":
        latent = spearman_brown(math.sin(math.pi / 2.0 * single), seeds)
        return 2.0 / math.pi * math.asin(min(1.0, math.sqrt(latent))), ""
    return math.sqrt(spearman_brown(single, seeds)), ""


def between_columns(scores: Vector, rows: Sequence[Rows], name: Method) -> Estimate:
    """Mean correlation of two seeds of the estimator over the sets of rows; 1 for one column."""
    if scores.shape[1] == 1:
        return Estimate(1.0, len(scores))
    found = []
    for chosen in rows:
        for a, b in combinations(range(scores.shape[1]), 2):
            x, y = scores[chosen, a], scores[chosen, b]
            both = usable(x, name) & usable(y, name)
            found.append(correlation(x[both], y[both], name))
    return mean_of(found, len(scores), "no two estimator seeds have 3 scores in common that differ in both")


def correlation(x: Vector, y: Vector, name: Method) -> float:
    """NaN under 3 architectures or without variance; infinities have ranks, but no Pearson correlation."""
    if x.size < 3 or np.all(x == x[0]) or np.all(y == y[0]):
        return float("nan")
    if name == "tau_b":
        return kernels.tau_b(x, y)
    if name == "spearman":
        x, y = midranks(x)[0], midranks(y)[0]
    return float(np.corrcoef(x, y)[0, 1])


def mean_of(values: list[float], n: int, reason: str) -> Estimate:
    """Of the defined ones."""
    defined = [v for v in values if not math.isnan(v)]
    return Estimate(float(np.mean(defined)), n) if defined else Estimate(float("nan"), n, reason)


def usable(x: Vector, name: Method) -> npt.NDArray[np.bool_]:
    """Which scores a correlation can take."""
    return np.isfinite(x) if name == "pearson" else ~np.isnan(x)


def _methods(observed: Mapping[str, Interval]) -> list[Method]:
    every: tuple[Method, ...] = ("spearman", "pearson", "tau_b")
    return [m for m in every if m in observed and not math.isnan(observed[m].estimate)]


def _seeds(truth: Vector) -> float:
    """Harmonic mean over architectures of the number of trainings: what the mean noise of f goes by."""
    trained = np.sum(~np.isnan(truth), axis=1)
    return float(1.0 / np.mean(1.0 / trained[trained > 0]))


def trainings(Y: npt.ArrayLike) -> Vector:
    """Return Y as (N, S), NaN where there is no training; ValueError for another shape or infinite values."""
    truth = np.asarray(Y, dtype=np.float64)
    checked(np.where(np.isnan(truth), 0.0, truth), "Y", ndim=2)
    return truth


def score_columns(columns: npt.ArrayLike, Y: npt.ArrayLike) -> Vector:
    """Return the scores as (N, K); ValueError if their rows are not those of Y."""
    scores = np.asarray(columns, dtype=np.float64)
    if scores.ndim != 2 or len(scores) != len(np.asarray(Y)) or scores.shape[1] == 0:
        raise ValueError(f"columns must have shape (N, K) for Y of {len(np.asarray(Y))} rows, got {scores.shape}")
    return scores
