"""Intervals for few seeds, and the choice of an interval by the number of seeds.

As in ``bootstrap``, tables are fixed strata and seeds the units. Simulated coverage of the t interval of nominal 95 %
(3 tables): 85 to 97 % at 3 seeds, 91 to 97 % at 10, near nominal from 20 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from .bootstrap import bootstrap_difference, bootstrap_mean
from .effect import theta_se
from .values import Interval, Tables, Vector, checked_fraction, checked_pair, checked_tables, mean_over_tables

REFUSE_BOOTSTRAP_BELOW = 5
WARN_BELOW = 10
BOOTSTRAP_FROM = 20


def mean_interval(X: Tables, *, resamples: int, rng: np.random.Generator, level: float = 0.95) -> Interval:
    """Interval for the mean over tables of seed means, by the method that the number of seeds allows.

    The smallest number of seeds on a table decides: under 5 the bootstrap is refused and t used, saying so; under 10
    t with a warning; under 20 t; from 20 on the bootstrap.

    Args:
        X: One array of values by seed for each table.
        resamples: Number of resamples, if the bootstrap is used.
        rng: Source of the draws, if the bootstrap is used.
        level: Nominal coverage.

    Raises:
        ValueError: A level outside (0, 1), an empty table, NaN or infinite values.
    """
    if min(x.size for x in checked_tables(X, "X")) >= BOOTSTRAP_FROM:
        return bootstrap_mean(X, resamples=resamples, rng=rng, level=level)
    return t_interval(X, level=level)


def difference_interval(
    X: Tables, Y: Tables, *, paired: bool, resamples: int, rng: np.random.Generator, level: float = 0.95
) -> Interval:
    """Interval for mean(X) - mean(Y), by the method that the smallest number of seeds on a table allows.

    The rule is that of ``mean_interval``; t is ``t_difference``: on paired data the differences by seed on each
    table, otherwise Welch's.

    Args:
        X: One array of values by seed for each table.
        Y: The same tables for the other strategy.
        paired: Both ran the same seeds in the same order and shared randomness.
        resamples: Number of resamples, if the bootstrap is used.
        rng: Source of the draws, if the bootstrap is used.
        level: Nominal coverage.

    Raises:
        ValueError: As ``mean_interval``; different numbers of tables, or of seeds if paired.
    """
    left, right = checked_pair(X, Y, ("X", "Y"), paired=paired)
    if min(x.size for x in left + right) >= BOOTSTRAP_FROM:
        return bootstrap_difference(X, Y, paired=paired, resamples=resamples, rng=rng, level=level)
    return t_difference(X, Y, paired=paired, level=level)


def t_interval(X: Tables, *, level: float = 0.95) -> Interval:
    """Interval for the mean over T tables of seed means, half-width ``t * sqrt(sum_t s_t^2 / n_t) / T``.

    t is the Student quantile with ``sum_t (n_t - 1)`` degrees of freedom, which is (n - 1) T when balanced.

    Args:
        X: One array of values by seed for each table; under 3 seeds the limits are NaN with a reason.
        level: Nominal coverage.

    Raises:
        ValueError: A level outside (0, 1), an empty table, NaN or infinite values.
    """
    tables = checked_tables(X, "X")
    freedom = float(sum(x.size - 1 for x in tables))
    return _student(mean_over_tables(tables), tables, freedom, len(tables), level, "t")


def t_difference(X: Tables, Y: Tables, *, paired: bool, level: float = 0.95) -> Interval:
    """Interval for mean(X) - mean(Y), each a mean over tables of means over seeds.

    Paired: ``t_interval`` of the differences by seed on each table. Otherwise Welch's (1947): variance
    ``sum_t (s_x^2/n_x + s_y^2/n_y) / T^2`` and Welch-Satterthwaite degrees of freedom over all 2T means.

    Args:
        X: One array of values by seed for each table; under 3 seeds the limits are NaN with a reason.
        Y: The same tables for the other strategy.
        paired: Both ran the same seeds in the same order and shared randomness.
        level: Nominal coverage.

    Raises:
        ValueError: As ``t_interval``; different numbers of tables, or of seeds if paired.
    """
    left, right = checked_pair(X, Y, ("X", "Y"), paired=paired)
    if paired:
        gaps = [x - y for x, y in zip(left, right, strict=True)]
        freedom = float(sum(d.size - 1 for d in gaps))
        return _student(mean_over_tables(gaps), gaps, freedom, len(gaps), level, "t-paired")
    samples = left + right
    estimate = mean_over_tables(left) - mean_over_tables(right)
    return _student(estimate, samples, _satterthwaite(samples), len(left), level, "t-welch")


def theta_interval(new: Tables, base: Tables, *, level: float = 0.95) -> Interval:
    """Normal interval for the mean A12(new, base) over tables, from placements and cut to [0, 1].

    Arguments and errors as ``theta_se``.
    """
    z = NormalDist().inv_cdf(0.5 + checked_fraction(level, "level") / 2.0)
    theta = theta_se(new, base)
    low, high = np.clip([theta.theta - z * theta.se, theta.theta + z * theta.se], 0.0, 1.0).tolist()
    return Interval(theta.theta, low, high, level, "placements", min(theta.n_new, theta.n_base), theta.reason)


def _satterthwaite(samples: Sequence[Vector]) -> float:
    parts = [(float(x.var(ddof=1)) / x.size, x.size - 1) for x in samples if x.size > 1]
    largest = max((part for part, _ in parts), default=0.0)
    if largest == 0:
        return float(sum(freedom for _, freedom in parts))
    shares = [(part / largest, freedom) for part, freedom in parts]  # scaled so that squares cannot underflow
    return sum(s for s, _ in shares) ** 2 / sum(s**2 / freedom for s, freedom in shares)


def _student(
    estimate: float, samples: Sequence[Vector], freedom: float, tables: int, level: float, method: str
) -> Interval:
    checked_fraction(level, "level")
    n = min(x.size for x in samples)
    if n < 3:
        reason = f"an interval needs 3 seeds per table, got {n}"
        return Interval(estimate, float("nan"), float("nan"), level, method, n, reason)
    from scipy.special import stdtrit

    spread = np.sqrt(sum(x.var(ddof=1) / x.size for x in samples)) / tables
    half = float(stdtrit(freedom, 0.5 + level / 2.0) * spread)
    reason = ""
    if n < REFUSE_BOOTSTRAP_BELOW:
        reason = (
            f"bootstrap refused: {n} seeds are under {REFUSE_BOOTSTRAP_BELOW}; t interval, coverage below its level"
        )
    elif n < WARN_BELOW:
        reason = f"only {n} seeds: coverage may be below its level"
    if half == 0:
        reason = "no variance between seeds on any table"
    return Interval(estimate, estimate - half, estimate + half, level, method, n, reason)
