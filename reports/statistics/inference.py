"""Two strategies on the same tables: is there a difference beyond chance?

Seeds within a table are the units of ``van_elteren``; tables are the units of ``signed_rank`` and
``bayes_signed_rank``. ``holm`` corrects any family of p-values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .values import Result, Tables, Vector, checked, checked_pair, midranks

Alternative = Literal["two-sided", "greater", "less"]

EXACT_UP_TO = 50
"""Largest number of non-zero differences for which the signed-rank p-value is enumerated."""


@dataclass(frozen=True, slots=True)
class VanElteren(Result):
    """Stratified rank test; ``z`` above 0 means that new has the larger values. ``reason`` is set if all is tied."""

    z: float
    p: float
    alternative: Alternative
    n_new: int
    n_base: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BayesSignedRank(Result):
    """Posterior shares of draws in which the largest mass lies below, inside and above the ROPE."""

    below: float
    inside: float
    above: float
    rope: float
    n: int
    reason: str = ""


def van_elteren(new: Tables, base: Tables, alternative: Alternative = "two-sided") -> VanElteren:
    """Van Elteren's stratified Wilcoxon test (1960), asymptotic, tables as strata, without continuity correction.

    ``z = sum_t [W_t - n_new (N + 1)/2]/(N + 1) / sqrt(sum_t v_t/(N + 1)^2)`` with W_t the sum of midranks of new
    among the N values of table t, and v_t its variance given the ties.

    Args:
        new: One array of values by seed for each table.
        base: The same tables; numbers of seeds may differ.
        alternative: ``greater`` tests that new has larger values (for losses: is worse); ``less`` the other tail.

    Returns:
        z, p and the smallest numbers of seeds. If every table is all tied, z = 0 and p = 1, with a reason.

    Raises:
        ValueError: Different numbers of tables, an empty table, NaN, or an unknown alternative.
    """
    left, right = checked_pair(new, base, ("new", "base"), finite=False)
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(f"alternative must be two-sided, greater or less, got {alternative!r}")
    n_new, n_base = min(x.size for x in left), min(y.size for y in right)
    shift = variance = 0.0
    for x, y in zip(left, right, strict=True):
        ranks, ties = midranks(np.concatenate([x, y]))
        total = ranks.size
        if ties.size == 1:
            continue
        shift += float(ranks[: x.size].sum() - x.size * (total + 1) / 2.0) / (total + 1)
        tied = float((ties**3 - ties).sum()) / (total * (total - 1))
        variance += x.size * y.size / 12.0 * ((total + 1) - tied) / (total + 1) ** 2
    if variance == 0:
        return VanElteren(0.0, 1.0, alternative, n_new, n_base, "all values are tied on every table")
    z = shift / math.sqrt(variance)
    tail = {"two-sided": abs(z), "greater": z, "less": -z}[alternative]
    p = math.erfc(tail / math.sqrt(2.0)) * (1.0 if alternative == "two-sided" else 0.5)
    return VanElteren(z, p, alternative, n_new, n_base)


def holm(p: npt.ArrayLike) -> Vector:
    """Holm's step-down adjustment (1979) of a family of p-values.

    Args:
        p: Shape [test], raw p-values in [0, 1].

    Returns:
        Shape [test], adjusted p-values in the same order, at least the raw ones and at most 1.

    Raises:
        ValueError: NaN, or a value outside [0, 1].
    """
    raw = checked(p, "p")
    if ((raw < 0) | (raw > 1)).any():
        raise ValueError(f"p is outside [0, 1] at positions {np.flatnonzero((raw < 0) | (raw > 1)).tolist()}")
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * np.arange(raw.size, 0, -1)), 1.0)
    return adjusted


def signed_rank(d: npt.ArrayLike) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test (1945), zero differences dropped.

    Exact up to 50 non-zero differences, by counting all sign patterns of the observed midranks (so ties are exact
    too); beyond that normal, with tie correction and without continuity correction.

    Args:
        d: Shape [table], differences.

    Returns:
        The p-value; 1 if every difference is zero. Differences tied only but for rounding should be rounded first.

    Raises:
        ValueError: NaN or infinite values.
    """
    nonzero = checked(d, "d")
    nonzero = nonzero[nonzero != 0]
    n = nonzero.size
    if n == 0:
        return 1.0
    ranks, ties = midranks(np.abs(nonzero))
    positive = float(ranks[nonzero > 0].sum())
    if n > EXACT_UP_TO:
        variance = n * (n + 1) * (2 * n + 1) / 24.0 - float((ties**3 - ties).sum()) / 48.0
        return math.erfc(abs(positive - n * (n + 1) / 4.0) / math.sqrt(2.0 * variance))
    doubled = np.rint(2 * ranks).astype(np.int64)
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for step in doubled:
        ways[step:] += ways[:-step].copy()
    statistic = round(2 * positive)
    fewer = min(float(ways[: statistic + 1].sum()), float(ways[statistic:].sum()))
    return min(1.0, float(2.0 * fewer / 2.0**n))


def bayes_signed_rank(d: npt.ArrayLike, rope: float, draws: int, rng: np.random.Generator) -> BayesSignedRank:
    """Bayesian signed-rank test with a region of practical equivalence (Benavoli et al. 2014, 2017).

    A pseudo-observation 0 of weight 0.5 is the prior; weights of the differences are Dirichlet; each draw weighs the
    Walsh averages ``(d_i + d_j)/2`` below, inside and above ``[-rope, rope]``. An average on the edge of the region
    (up to rounding) counts half to either side. A region's posterior is the share of draws in which it weighs most.

    Args:
        d: Shape [table], differences new - base; for losses, ``below`` is then the probability of improvement.
        rope: Half-width of the region, in the unit of ``d``, not negative.
        draws: Number of Dirichlet draws; 50 000 give a standard error of at most 0.0022.
        rng: Source of the draws.

    Returns:
        The three posterior shares, which sum to 1; NaN with a reason under 3 tables.

    Raises:
        ValueError: NaN or infinite values, a negative ``rope``, or no draw.
    """
    values = checked(d, "d")
    if not rope >= 0 or draws < 1:
        raise ValueError(f"need rope >= 0 and draws >= 1, got rope={rope} and draws={draws}")
    if values.size < 3:
        nan = float("nan")
        return BayesSignedRank(nan, nan, nan, rope, values.size, f"needs 3 tables, got {values.size}")
    z = np.append(0.0, values)
    average = (z[:, None] + z[None, :]) / 2.0
    slack = 1e-12 * max(float(np.abs(z).max()), rope)
    above = (average > rope + slack) + 0.5 * (np.abs(average - rope) <= slack)
    below = (average < -rope - slack) + 0.5 * (np.abs(average + rope) <= slack)
    weights = rng.dirichlet(np.append(0.5, np.ones(values.size)), draws)
    mass = np.empty((draws, 3))
    mass[:, 0] = ((weights @ below) * weights).sum(axis=1)
    mass[:, 2] = ((weights @ above) * weights).sum(axis=1)
    mass[:, 1] = 1.0 - mass[:, 0] - mass[:, 2]
    shares = np.bincount(mass.argmax(axis=1), minlength=3) / draws
    return BayesSignedRank(float(shares[0]), float(shares[1]), float(shares[2]), rope, values.size)
