"""Calibration: how far scores on the scale of the metric are from the metric, and how much of that moves a ranking."""

from __future__ import annotations

import math

import numpy as np

from ..statistics.values import Vector, checked
from .instruments import Resamples, percentiles
from .results import Calibration

NAMES = ("slope", "intercept", "rmse", "mae", "sd_error", "cov_with_truth", "spread")


def calibration(
    scores: np.ndarray, use: np.ndarray, truth: np.ndarray, *, counts: np.ndarray, level: float = 0.95
) -> Calibration:
    """Errors e - f of an estimator whose scores estimate the metric itself; means over the estimator's seeds.

    A constant error, such as the low accuracy after few epochs, moves no ranking; `sd_error` and `cov_with_truth` do.
    Variances and covariances divide by n. With a truth of few trainings, their noise is part of `rmse`, `mae` and
    `sd_error`, and lowers `cov_with_truth` by its variance and `spread`; `mean_error` and `slope` are free of it.

    Args:
        scores: (N, K) in units of the metric; what was not scored is -inf or NaN and left out.
        use: (N, K) whether the row is audited in that column.
        truth: (N, S) by training seed; NaN where there is none, the mean is over what is there.
        counts: (R, N) multiplicities of bootstrap resamples.
        level: Nominal coverage of the percentile interval of `mean_error`.

    Returns:
        `n` counts the architectures that any column scored. A column with fewer than 3 scores does not count; if none
        has 3, every number is NaN with a reason in `mean_error`. The slope is NaN if all scores are equal.

    Raises:
        ValueError: No training of an architecture that is scored, or shapes that do not match.
    """
    if scores.shape != use.shape or len(truth) != len(use):
        raise ValueError(f"scores {scores.shape}, use {use.shape} and truth {truth.shape} differ")
    scored = np.asarray(use, dtype=bool) & np.isfinite(scores)
    enough = np.flatnonzero(scored.sum(0) >= 3)
    n = int(scored.any(1).sum())
    if not enough.size:
        nothing = percentiles(np.full(len(counts) + 1, np.nan), level, n, f"{n} scored architectures; 3 are needed")
        return Calibration(nothing, **dict.fromkeys(NAMES, math.nan), n=n)
    f = _mean_of_trainings(truth, scored.any(1))
    found, drawn = [], []
    for k in enough:
        rows = scored[:, k]
        e = scores[rows, k] - f[rows]
        drawn.append(Resamples(counts[:, rows]).means(e[:, None])[:, 0])
        found.append(_errors(scores[rows, k], f[rows]))
    mean_error = percentiles(np.mean(drawn, axis=0), level, n, "")
    return Calibration(mean_error, **dict(zip(NAMES, np.mean(found, axis=0).tolist(), strict=True)), n=n)


def _mean_of_trainings(truth: np.ndarray, needed: np.ndarray) -> Vector:
    there = ~np.isnan(truth)
    number = there.sum(1)
    means = np.where(there, truth, 0.0).sum(1) / np.where(number > 0, number, np.nan)
    checked(np.where(needed, means, 0.0), "truth")
    return np.asarray(means)


def _errors(e: Vector, f: Vector) -> list[float]:
    """Statistics of one column, in the order of `NAMES`."""
    error = e - f
    covariance = np.cov(np.stack([e, f, error]), bias=True)
    slope = covariance[0, 1] / covariance[0, 0] if np.ptp(e) > 0 else math.nan
    spread = math.sqrt(covariance[0, 0] / covariance[1, 1]) if np.ptp(f) > 0 else math.nan
    return [
        slope, f.mean() - slope * e.mean(), math.sqrt((error**2).mean()), np.abs(error).mean(),
        math.sqrt(covariance[2, 2]), covariance[2, 1], spread,
    ]  # fmt: skip
