"""Curves for the figures: anytime performance, performance profiles, running times to targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .results import Curve
from .statistics import Band, bootstrap_band, ecdf_runtimes, runtime_to_target, step_values
from .statistics.values import Vector

POINTS = 80
BAND_RESAMPLES = 2000
FEWEST = 5
"""Seeds under which no bootstrap band is shown: it would cover far less than its level (STATS 1.4)."""

FIRST = 0.005
"""Where cost axes begin, as a share of the budget: half a median training under the default budget of 100."""

TAUS = np.geomspace(0.005, 1.0, POINTS)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One run's steps: cumulative cost in budgets, and at each change of incumbent the value to report."""

    cost: Vector
    value: Vector


Runs = Mapping[str, Sequence[Sequence[Trajectory]]]
"""For each method, for each table, the runs by seed."""


def anytime(
    runs: Runs, places: Sequence[str], budgets: Sequence[float], *, before: float, resamples: int, seed: int
) -> tuple[Curve, ...]:
    """Mean curves with bands: for each table over its own cost, then over all tables over the share of the budget.

    Args:
        runs: Trajectories; every method has at least one run on every table.
        places: Names of the tables.
        budgets: Of each table, in clock units.
        before: Value before the first incumbent, or NaN to begin where every run has one.
        resamples: Of the bands; at most `BAND_RESAMPLES` are used.
        seed: Of each band's generator.
    """
    curves = []
    for method, tables in runs.items():
        grid = np.geomspace(FIRST, 1.0, POINTS)
        if np.isnan(before):
            first = max((t.cost[0] for table in tables for t in table if t.cost.size), default=FIRST)
            grid = np.geomspace(min(max(first, FIRST), 1.0), 1.0, POINTS)
        matrices = [np.array([step_values(r.cost, r.value, grid, before) for r in table]) for table in tables]
        for place, matrix, budget in zip(places, matrices, budgets, strict=True):
            curves.append(Curve(method, place, _points(grid * budget), _band([matrix], resamples, seed)))
        if len(places) > 1:
            curves.append(Curve(method, None, _points(grid), _band(matrices, resamples, seed)))
    return tuple(curves)


def profiles(finals: Mapping[str, Sequence[Vector]], *, resamples: int, seed: int) -> tuple[Curve, ...]:
    """Share of runs whose final normalised regret is at most tau (Dolan and More 2002), every table weighing the same.

    Args:
        finals: For each method, for each table, final normalised regrets by seed.
        resamples: Of the bands; at most `BAND_RESAMPLES` are used.
        seed: Of each band's generator.
    """
    return tuple(
        Curve(method, None, _points(TAUS), _band([(x[:, None] <= TAUS).astype(float) for x in tables], resamples, seed))
        for method, tables in finals.items()
    )


def ecdfs(runs: Runs, targets: Sequence[float]) -> tuple[Curve, ...]:
    """Share of (run, target) pairs solved by each cost; a missed target never counts as solved."""
    grid = np.geomspace(FIRST, 1.0, POINTS)
    nothing = np.full(POINTS, np.nan)
    curves = []
    for method, tables in runs.items():
        times = [[[runtime_to_target(r.cost, r.value, t) for t in targets] for r in table] for table in tables]
        share = np.mean([ecdf_runtimes(np.array(table), grid) for table in times], axis=0)
        curves.append(Curve(method, None, _points(grid), Band(share, nothing, nothing, 0.95, min(map(len, tables)))))
    return tuple(curves)


def _band(matrices: Sequence[Vector], resamples: int, seed: int) -> Band:
    band = bootstrap_band(matrices, resamples=min(resamples, BAND_RESAMPLES), rng=np.random.default_rng(seed))
    if band.n >= FEWEST:
        return band
    nothing = np.full(band.estimate.shape, np.nan)
    return replace(band, low=nothing, high=nothing, reason=f"bootstrap refused with {band.n} seeds")


def _points(grid: Vector) -> tuple[float, ...]:
    return tuple(grid.tolist())
