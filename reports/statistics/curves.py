"""Scalars and step functions of one run: incumbent, regret, area under it, time to a target.

A run is a right-continuous step function of cumulative cost: the value reported at cost c is that of the incumbent
after the last evaluation completed at or before c. Costs are in whatever unit the study's clock has.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .values import Vector, checked


def incumbent_curve(
    eval_cost: npt.ArrayLike,
    score_seen: npt.ArrayLike,
    score_reported: npt.ArrayLike,
    *,
    fidelity: npt.ArrayLike | None = None,
) -> tuple[Vector, Vector]:
    """Follow the incumbent of a run over its cumulative cost.

    The incumbent is the evaluation with the highest ``score_seen``, the earlier one on a tie, and never chosen by
    ``score_reported``. The curve of reported values may therefore fall, and must not be replaced by its running
    maximum.

    Args:
        eval_cost: Shape [evaluation], cost of each evaluation, not negative.
        score_seen: Shape [evaluation], what the strategy was shown, higher is better.
        score_reported: Shape [evaluation], the quality to report for each evaluated architecture.
        fidelity: Shape [evaluation], optional level of each evaluation. Only evaluations at the highest level seen so
            far compete; the first one at a new level becomes the incumbent.

    Returns:
        ``(cum_cost, value)``, both of shape [evaluation].

    Raises:
        ValueError: Lengths differ, a cost is negative, or an input has NaN.
    """
    cost = _costs(eval_cost, "eval_cost")
    seen, reported = checked(score_seen, "score_seen"), checked(score_reported, "score_reported")
    level = np.zeros(cost.size) if fidelity is None else checked(fidelity, "fidelity")
    _same_length(eval_cost=cost, score_seen=seen, score_reported=reported, fidelity=level)
    incumbent = np.zeros(cost.size, dtype=np.int64)
    best = 0
    for i in range(cost.size):
        if (level[i], seen[i]) > (level[best], seen[best]):
            best = i
        incumbent[i] = best
    return np.cumsum(cost), reported[incumbent]


def normalised_regret(value: npt.ArrayLike, best: float, median: float) -> Vector:
    """Scale reported quality so that 0 is the best architecture and 1 the median one or worse.

    ``nr = clip((best - value) / (best - median), 0, 1)``, higher ``value`` being better.

    Args:
        value: Any shape, reported quality; infinite where a training diverged.
        best: Quality of the best (or best known) architecture of the table.
        median: Quality of the median architecture of the table.

    Raises:
        ValueError: NaN in an input, or ``best`` not above ``median`` (the scale is then undefined).
    """
    top, middle = checked([best, median], "best and median")
    if not top > middle:
        raise ValueError(f"normalised regret is undefined: best {best} is not above the median {median}")
    values = checked(value, "value", ndim=None, finite=False)
    return np.asarray(np.clip((top - values) / (top - middle), 0.0, 1.0), dtype=np.float64)


def relative_improvement(value: npt.ArrayLike, mean: float) -> Vector:
    """Percent by which quality exceeds that of the mean architecture (Yang et al. 2020), ``100 (value - mean) / mean``.

    Raises:
        ValueError: NaN in an input, or a mean that is not positive.
    """
    if not mean > 0:
        raise ValueError(f"relative improvement needs a positive mean, got {mean}")
    return np.asarray(100.0 * (checked(value, "value", ndim=None) - mean) / mean, dtype=np.float64)


def step_values(cum_cost: npt.ArrayLike, value: npt.ArrayLike, grid: npt.ArrayLike, before: float) -> Vector:
    """Evaluate a run's right-continuous step function on a grid of costs.

    Args:
        cum_cost: Shape [evaluation], not decreasing. Where several are equal the last one counts.
        value: Shape [evaluation].
        grid: Shape [point], costs at which to read the curve.
        before: Value at costs below the first ``cum_cost``.

    Returns:
        Shape [point].

    Raises:
        ValueError: Lengths differ, ``cum_cost`` decreases, or an input has NaN.
    """
    cost, values = _curve(cum_cost, value)
    points = checked(grid, "grid", finite=False)
    return np.append(values, before)[np.searchsorted(cost, points, side="right") - 1]


def anytime_area(
    cum_cost: npt.ArrayLike, regret: npt.ArrayLike, t0: float, t1: float, r0: float = 1.0, log: bool = True
) -> float:
    """Mean regret over cost from ``t0`` to ``t1``, by default on a logarithmic cost axis.

    ``sum_i r_i (ln c_{i+1} - ln c_i) / ln(t1/t0)`` over the pieces of the step function inside the window. With
    ``t0 = 0.1 B`` and ``t1 = B`` this is the harness's ``late_area``.

    Args:
        cum_cost: Shape [evaluation], not decreasing; may be empty.
        regret: Shape [evaluation]; regrets in [0, 1] give an area in [0, 1].
        t0: Start of the window, in the unit of ``cum_cost``; positive if ``log``.
        t1: End of the window, above ``t0``.
        r0: Regret before the first evaluation is complete.
        log: Weight by log-cost; else by cost.

    Raises:
        ValueError: An empty or (if ``log``) non-positive window, decreasing costs, or NaN.
    """
    if not (t0 < t1 and np.isfinite([t0, t1]).all() and (t0 > 0 or not log)):
        raise ValueError(f"need t0 < t1, finite, and t0 > 0 on a log axis; got t0={t0}, t1={t1}")
    cost, values = _curve(cum_cost, regret)
    inside = cost[(cost > t0) & (cost < t1)]
    edges = np.concatenate(([t0], inside, [t1]))
    axis = np.log(edges) if log else edges
    heights = step_values(cost, values, edges[:-1], before=r0)
    return float(heights @ np.diff(axis) / (axis[-1] - axis[0]))


def runtime_to_target(cum_cost: npt.ArrayLike, regret: npt.ArrayLike, target: float) -> float:
    """Cost at which the regret first is at or below ``target``; infinite if it never is.

    The first hit counts even if the incumbent later gets worse.

    Raises:
        ValueError: Lengths differ, ``cum_cost`` decreases, or an input has NaN.
    """
    cost, values = _curve(cum_cost, regret)
    hits = np.flatnonzero(values <= float(checked(target, "target", ndim=0)))
    return float(cost[hits[0]]) if hits.size else float("inf")


def ert(cost: npt.ArrayLike, hit: npt.ArrayLike) -> float:
    """Expected running time to a target (Hansen et al., COCO): total cost of all runs over the number of hits.

    Args:
        cost: Shape [run], cost up to the hit, or the whole budget of a run that missed.
        hit: Shape [run], whether the run reached the target.

    Returns:
        The expected cost, infinite without a hit. Report the hit rate beside it.

    Raises:
        ValueError: No run, lengths differ, a negative cost, NaN, or a hit that is neither 0 nor 1.
    """
    spent, reached = _costs(cost, "cost"), checked(hit, "hit")
    _same_length(cost=spent, hit=reached)
    if spent.size == 0:
        raise ValueError("ert needs at least one run")
    if not np.isin(reached, (0.0, 1.0)).all():
        raise ValueError("hit must hold only 0 and 1")
    hits = reached.sum()
    return float(spent.sum() / hits) if hits else float("inf")


def ecdf_runtimes(runtime: npt.ArrayLike, grid: npt.ArrayLike) -> Vector:
    """Share of (run, target) pairs solved by each cost on the grid.

    Args:
        runtime: Any shape, cost to the target; infinite where it was missed (such a pair never counts as solved).
        grid: Shape [point], finite costs.

    Returns:
        Shape [point], in [0, 1].

    Raises:
        ValueError: No runtime, or NaN.
    """
    return _share_at_most(checked(runtime, "runtime", ndim=None, finite=False), checked(grid, "grid"), "runtime")


def performance_profile(nr: npt.ArrayLike, taus: npt.ArrayLike) -> Vector:
    """Share of runs whose normalised regret is at most tau (Dolan and More 2002; Agarwal et al. 2021).

    Args:
        nr: Any shape, final normalised regrets of all runs on all tables; every run has the same weight.
        taus: Shape [point], thresholds.

    Returns:
        Shape [point], in [0, 1].

    Raises:
        ValueError: No run, or NaN.
    """
    return _share_at_most(checked(nr, "nr", ndim=None), checked(taus, "taus"), "nr")


def _share_at_most(values: Vector, thresholds: Vector, name: str) -> Vector:
    if values.size == 0:
        raise ValueError(f"{name} has no value")
    counts = np.searchsorted(np.sort(values, axis=None), thresholds, side="right")
    return np.asarray(counts / values.size, dtype=np.float64)


def _curve(cum_cost: npt.ArrayLike, value: npt.ArrayLike) -> tuple[Vector, Vector]:
    cost, values = checked(cum_cost, "cum_cost"), checked(value, "value")
    _same_length(cum_cost=cost, value=values)
    falls = np.flatnonzero(np.diff(cost) < 0)
    if falls.size:
        raise ValueError(f"cum_cost decreases after position {int(falls[0])}")
    return cost, values


def _costs(values: npt.ArrayLike, name: str) -> Vector:
    cost = checked(values, name)
    if (cost < 0).any():
        raise ValueError(f"{name} is negative at positions {np.flatnonzero(cost < 0).tolist()}")
    return cost


def _same_length(**arrays: Vector) -> None:
    sizes = {name: array.size for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"lengths differ: {sizes}")
