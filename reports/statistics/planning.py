"""How many seeds a comparison needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .effect import theta_se
from .inference import van_elteren
from .values import Result, Tables, checked_fraction, checked_pair

FEWEST_PILOT_SEEDS = 20


@dataclass(frozen=True, slots=True)
class SeedPlan(Result):
    """Estimated power for each number of seeds per table, at the effect seen in a pilot.

    Attributes:
        sizes: Numbers of seeds per table.
        power: Share of resamples of each size in which the test was significant; NaN if the pilot is too small.
        theta: Mean A12(new, base) of the pilot, the effect that the power refers to.
        alpha: Level of the test.
        n: Smallest number of seeds on a table of the pilot.
        reason: Why the power is NaN, else empty.
    """

    sizes: tuple[int, ...]
    power: tuple[float, ...]
    theta: float
    alpha: float
    n: int
    reason: str = ""


def plan_seeds(
    new: Tables,
    base: Tables,
    sizes: Sequence[int],
    *,
    repeats: int,
    rng: np.random.Generator,
    alpha: float = 0.05,
) -> SeedPlan:
    """Estimate the power of the two-sided van Elteren test by resampling a pilot study.

    For each size, seeds are drawn with replacement within each table, independently for the two strategies. The pilot's
    effect is taken for the true one, so a pilot that overstates it promises too much power.

    Args:
        new: One array of pilot values by seed for each table; at least 20 seeds each.
        base: The same tables for the other strategy.
        sizes: Numbers of seeds per table to try, each at least 2.
        repeats: Resamples for each size; the standard error of a power is at most ``0.5 / sqrt(repeats)``.
        rng: Source of the draws.
        alpha: Level of the test.

    Raises:
        ValueError: Different numbers of tables, NaN, a size under 2, no repeat, or alpha outside (0, 1).
    """
    checked_fraction(alpha, "alpha")
    left, right = checked_pair(new, base, ("new", "base"), finite=False)
    if repeats < 1 or any(size < 2 for size in sizes):
        raise ValueError(f"need repeats >= 1 and sizes >= 2, got repeats={repeats} and sizes={list(sizes)}")
    n, theta = min(x.size for x in left + right), theta_se(left, right).theta
    if n < FEWEST_PILOT_SEEDS:
        reason = f"a pilot needs {FEWEST_PILOT_SEEDS} seeds per table, got {n}"
        return SeedPlan(tuple(sizes), (float("nan"),) * len(sizes), theta, alpha, n, reason)
    power = []
    for size in sizes:
        hits = 0
        for _ in range(repeats):
            drawn = [[x[rng.integers(0, x.size, size)] for x in tables] for tables in (left, right)]
            hits += van_elteren(drawn[0], drawn[1]).p < alpha
        power.append(hits / repeats)
    return SeedPlan(tuple(sizes), tuple(power), theta, alpha, n)


def paired_t_sample_size(d: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Number of pairs at which a two-sided paired t-test reaches a power, by the noncentral t distribution.

    Args:
        d: Standardised effect (mean difference over the standard deviation of differences), not 0.
        alpha: Level of the test.
        power: Wanted power, above ``alpha``.

    Returns:
        A real number of pairs, at least 2; round it up.

    Raises:
        ValueError: ``d`` is 0 or NaN, or ``alpha``, ``power`` outside (0, 1), or power not above alpha.
    """
    checked_fraction(alpha, "alpha")
    checked_fraction(power, "power")
    if not abs(d) > 0 or power <= alpha:
        raise ValueError(f"need d other than 0 and power above alpha, got d={d}, power={power}, alpha={alpha}")
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    def excess(n: float) -> float:
        critical, shift = t.ppf(1.0 - alpha / 2.0, n - 1.0), abs(d) * math.sqrt(n)
        return float(nct.sf(critical, n - 1.0, shift) + nct.cdf(-critical, n - 1.0, shift) - power)

    high = 4.0
    while excess(high) < 0:
        high *= 2.0
    return 2.0 if excess(2.0) >= 0 else float(brentq(excess, 2.0, high, xtol=1e-10))
