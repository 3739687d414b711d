"""Effect sizes and aggregates: how large a difference is, whatever its p-value.

``a12(x, y)`` is the probability that a value of x exceeds one of y. For losses and regrets, where lower is better,
``a12(new, base) > 0.5`` therefore means that the new strategy is worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .values import Estimate, Result, Tables, Vector, checked, checked_pair

CliffsLabel = Literal["negligible", "small", "medium", "large"]


@dataclass(frozen=True, slots=True)
class Theta(Result):
    """Mean over tables of A12(new, base), with its standard error.

    Attributes:
        theta: In [0, 1]; 0.5 means no difference.
        se: Standard error, NaN if a strategy has fewer than 3 seeds on a table, 0 without any variance of placements.
        n_new: Smallest number of seeds of the new strategy on a table.
        n_base: Smallest number of seeds of the base strategy on a table.
        reason: Why ``se`` is NaN or 0, else empty.
    """

    theta: float
    se: float
    n_new: int
    n_base: int
    reason: str = ""


def iqm(x: npt.ArrayLike) -> float:
    """Interquartile mean: the mean of the values left after cutting ``floor(n / 4)`` at either end.

    As ``scipy.stats.trim_mean(x, 0.25, axis=None)``; proposed for reporting by Agarwal et al. 2021. It hides
    failures in up to a quarter of the runs: print the mean and ``fail_rate`` beside it.

    Args:
        x: Any shape, at least one value.

    Raises:
        ValueError: No value, or NaN.
    """
    values = np.sort(_some(x, "x"), axis=None)
    cut = values.size // 4
    return float(values[cut : values.size - cut].mean())


def a12(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Vargha and Delaney's A12 = P(x > y) + P(x = y) / 2 (2000), in [0, 1].

    Args:
        x: Shape [n], at least one value.
        y: Shape [m], at least one value.

    Raises:
        ValueError: An empty sample, or NaN.
    """
    left, right = checked_pair([x], [y], ("x", "y"), finite=False)
    return _a12(left[0], right[0])


def cliffs_delta(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Cliff's delta = P(x > y) - P(x < y) = 2 A12 - 1 (1993), in [-1, 1]; errors as for ``a12``."""
    return 2.0 * a12(x, y) - 1.0


def cliffs_label(delta: float) -> CliffsLabel:
    """Name the size of Cliff's delta by the cuts .147, .33 and .474 (Romano et al. 2006). Print the number first.

    Raises:
        ValueError: ``delta`` outside [-1, 1] or NaN.
    """
    if not -1.0 <= delta <= 1.0:
        raise ValueError(f"Cliff's delta lies in [-1, 1], got {delta}")
    size = abs(delta)
    if size < 0.147:
        return "negligible"
    if size < 0.33:
        return "small"
    return "medium" if size < 0.474 else "large"


def poi(X: Tables, Y: Tables) -> float:
    """Probability of improvement: the mean over tables of A12(X_t, Y_t) (Agarwal et al. 2021).

    Args:
        X: One array of values by seed for each table.
        Y: The same tables for the other strategy; numbers of seeds may differ.

    Raises:
        ValueError: Different numbers of tables, an empty table, or NaN.
    """
    left, right = checked_pair(X, Y, ("X", "Y"), finite=False)
    return float(np.mean([_a12(x, y) for x, y in zip(left, right, strict=True)]))


def theta_se(new: Tables, base: Tables) -> Theta:
    """Mean A12(new, base) over tables and its standard error from placements (Brunner and Munzel 2000).

    ``se^2 = sum_t [var(placements of new)/n_new + var(placements of base)/n_base] / T^2``. For losses, theta above
    0.5 means that new is worse.

    Args:
        new: One array of values by seed for each table.
        base: The same tables; numbers of seeds may differ.

    Raises:
        ValueError: Different numbers of tables, an empty table, or NaN.
    """
    left, right = checked_pair(new, base, ("new", "base"), finite=False)
    pairs = list(zip(left, right, strict=True))
    theta = float(np.mean([_a12(x, y) for x, y in pairs]))
    n_new, n_base = min(x.size for x in left), min(y.size for y in right)
    if min(n_new, n_base) < 3:
        reason = f"standard error needs 3 seeds per table and strategy, got {n_new} and {n_base}"
        return Theta(theta, float("nan"), n_new, n_base, reason)
    variance = sum(placements(x, y).var(ddof=1) / x.size + placements(y, x).var(ddof=1) / y.size for x, y in pairs)
    se = float(np.sqrt(variance) / len(pairs))
    reason = "" if se > 0 else "placements have no variance: every table is all tied or completely separated"
    return Theta(theta, se, n_new, n_base, reason)


def pairing_correlation(X: Tables, Y: Tables) -> Estimate:
    """Correlation of seed-paired values, pooled within tables: how much a paired comparison can gain.

    Args:
        X: One array of values by seed for each table.
        Y: The same tables and the same seeds in the same order.

    Returns:
        Pearson correlation of the deviations from the table means; NaN with a reason without variance or under 3
        pairs. ``n`` counts pairs.

    Raises:
        ValueError: Different numbers of tables or seeds, or NaN.
    """
    left, right = checked_pair(X, Y, ("X", "Y"), paired=True)
    x = np.concatenate([a - a.mean() for a in left])
    y = np.concatenate([b - b.mean() for b in right])
    if x.size < 3:
        return Estimate(float("nan"), x.size, f"correlation needs 3 pairs, got {x.size}")
    if all(np.ptp(a) == 0 for a in left) or all(np.ptp(b) == 0 for b in right):
        return Estimate(float("nan"), x.size, "one strategy has no variance within any table")
    return Estimate(float(x @ y / np.sqrt((x @ x) * (y @ y))), x.size)


def optimality_gap(nr: npt.ArrayLike) -> float:
    """Mean of ``min(nr, 1)`` over all runs and tables; ``nr`` of any shape; ValueError if empty or NaN."""
    return float(np.minimum(_some(nr, "nr"), 1.0).mean())


def fail_rate(nr: npt.ArrayLike, threshold: float = 0.5) -> float:
    """Share of runs with normalised regret above ``threshold``; ``nr`` of any shape; ValueError if empty or NaN."""
    return float((_some(nr, "nr") > threshold).mean())


def placements(x: Vector, y: Vector) -> Vector:
    """For each value of ``x`` the share of ``y`` below it, equal values counting half. Both checked and not empty."""
    ordered = np.sort(y)
    twice = np.searchsorted(ordered, x, side="left") + np.searchsorted(ordered, x, side="right")
    return np.asarray(twice / (2.0 * y.size), dtype=np.float64)


def _a12(x: Vector, y: Vector) -> float:
    ordered = np.sort(y)  # whole numbers until the one division, so that A12(x, y) + A12(y, x) = 1 up to one rounding
    twice = np.searchsorted(ordered, x, side="left").sum() + np.searchsorted(ordered, x, side="right").sum()
    return float(twice / (2.0 * x.size * y.size))


def _some(values: npt.ArrayLike, name: str) -> Vector:
    array = checked(values, name, ndim=None)
    if array.size == 0:
        raise ValueError(f"{name} has no value")
    return array
