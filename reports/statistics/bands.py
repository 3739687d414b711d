"""Pointwise bootstrap bands for curves over a grid: anytime regret, performance profiles, ECDFs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bootstrap import draw_seeds
from .values import Result, Vector, checked, checked_fraction


@dataclass(frozen=True, slots=True)
class Band(Result):
    """A curve with pointwise limits; the three arrays have shape [point]. Limits are NaN where ``reason`` says so."""

    estimate: Vector
    low: Vector
    high: Vector
    level: float
    n: int
    reason: str = ""


def bootstrap_band(
    curves: Sequence[npt.ArrayLike], *, resamples: int, rng: np.random.Generator, level: float = 0.95
) -> Band:
    """Percentile band, resampling seeds within table, for the mean over tables of the mean curve over seeds.

    The band is pointwise: it covers at each point, not the whole curve at once. For the band of a performance profile
    pass ``nr[:, None] <= taus`` for each table.

    Args:
        curves: One matrix of shape [seed, point] for each table, all on the same grid of points.
        resamples: Number of resamples.
        rng: Source of the draws, in the order of ``bootstrap_mean``.
        level: Nominal coverage at each point.

    Raises:
        ValueError: No table, a table without seeds, differing grids, NaN or infinite values, or a bad level.
    """
    tables = [checked(c, f"curves[table {t}]", ndim=2) for t, c in enumerate(curves)]
    if not tables or any(c.shape[0] == 0 for c in tables) or len({c.shape[1] for c in tables}) != 1:
        raise ValueError(f"need [seed, point] matrices on one grid, got shapes {[c.shape for c in tables]}")
    tail = (1.0 - checked_fraction(level, "level")) / 2.0
    estimate = np.mean([c.mean(axis=0) for c in tables], axis=0)
    n = min(c.shape[0] for c in tables)
    if n < 3:
        undefined = np.full(estimate.shape, np.nan)
        return Band(estimate, undefined, undefined, level, n, f"a band needs 3 seeds per table, got {n}")
    chunks = []
    for indices in draw_seeds([c.shape[0] for c in tables], resamples, rng):
        chunks.append(np.mean([_shares(i, len(c)) @ c for i, c in zip(indices, tables, strict=True)], axis=0))
    low, high = np.quantile(np.concatenate(chunks), [tail, 1.0 - tail], axis=0)
    reason = f"only {n} seeds: a bootstrap band covers less than its level" if n < 10 else ""
    return Band(estimate, np.minimum(low, estimate), np.maximum(high, estimate), level, n, reason)


def _shares(indices: npt.NDArray[np.int64], seeds: int) -> Vector:
    """How often each seed occurs in each resample, as a share; shape [resample, seed]."""
    rows = np.arange(len(indices))[:, None] * seeds
    counts = np.bincount((indices + rows).reshape(-1), minlength=len(indices) * seeds)
    return counts.reshape(len(indices), seeds) / seeds
