"""How well the scores of an estimator order architectures: correlations with the truth, and their intervals.

An interval answers one of two questions. Where a table holds a sample of a space, architectures are resampled (paired:
all estimators see the same resamples). Where it holds the whole space there is nothing to sample, and the noise is that
of seeds: the trainings of each architecture are resampled, and the seeds of the estimator, for all architectures at
once. Means of resampled trainings are noisier than the means they come from, which lowers every correlation; the
resamples are therefore moved so that their mean is the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..statistics import Estimate, Interval
from ..statistics.values import Vector, checked, checked_fraction
from . import kernels
from .loops import Integers

Matrix = npt.NDArray[np.float64]

SPARSE_WIDTH = 0.001
"""Bins of the truth that the sparse tau does not tell apart: 0.1 percentage points (Yu et al. 2020)."""

NAMES = ("tau_b", "spearman", "pearson", "weighted_tau", "weighted_tau_by_truth", "sparse_tau", "discordance")

CHUNK = 250
"""Resamples of trainings looked at together, which bounds the memory of copies."""

NOT_ACCURACY = "the scores are not on the scale of the truth"


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """The resamples of one table, which all its estimators share.

    Attributes:
        complete: Whether the table holds its whole space.
        counts: (R, N) how often a resample of architectures holds each.
        truths: (R, N) means of resampled trainings; None for a sample, or with one training of every architecture.
        ranks: (R, N) dense ranks of `truths`.
        bins: (R, N) dense ranks of `truths` in bins of `width`.
        width: Of the bins, for the sparse tau.
        single: Architectures with one training, whose noise is unknown.
    """

    complete: bool
    counts: npt.NDArray[np.uint8]
    truths: Matrix | None
    ranks: Integers | None
    bins: Integers | None
    width: float
    single: int


def draw(
    values: npt.ArrayLike, *, complete: bool, resamples: int, rng: np.random.Generator, width: float = SPARSE_WIDTH
) -> Draws:
    """Draw what the intervals of a table rest on: counts of architectures first, then trainings.

    Args:
        values: (N, S) truth by training seed, NaN where there is no training; every architecture has one.
        complete: Whether the rows are a whole space.
        resamples: Number of resamples R.
        rng: Source of the draws.
        width: Bins of the truth for the sparse tau, in its units.

    Raises:
        ValueError: An architecture without training, an infinite value, or under 100 resamples.
    """
    trainings = _checked_truth(values)
    if resamples < 100:
        raise ValueError(f"a bootstrap interval needs at least 100 resamples, got {resamples}")
    counts = draw_counts(len(trainings), resamples, rng)
    number = np.isfinite(trainings).sum(axis=1)
    single = int((number == 1).sum())
    if not complete or single == len(trainings):
        return Draws(complete, counts, None, None, None, width, single)
    truths = draw_truths(trainings, resamples, rng)
    ranks, bins = kernels.dense_ranks(truths), kernels.dense_ranks(binned(truths, width))
    return Draws(complete, counts, truths, ranks, bins, width, single)


def draw_counts(n: int, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw n of n architectures with replacement: (resamples, n) how often each was drawn.

    More than 255 times, which a byte does not hold, has a probability below 1 / 256!.
    """
    return np.stack([np.bincount(rng.integers(0, n, n), minlength=n).astype(np.uint8) for _ in range(resamples)])


def draw_truths(values: npt.ArrayLike, resamples: int, rng: np.random.Generator) -> Matrix:
    """Means over resampled trainings, of every architecture by itself.

    Deviations from the mean of S trainings are stretched by sqrt(S / (S - 1)), so that the resampled means have the
    variance that means of S trainings have.

    Args:
        values: (N, S) truth by training seed, NaN where there is no training.
        resamples: Number of resamples R.
        rng: Source of the draws.

    Returns:
        (R, N); architectures with one training do not vary.

    Raises:
        ValueError: An architecture without training, or an infinite value.
    """
    trainings = _checked_truth(values)
    n, seeds = trainings.shape
    first = np.take_along_axis(trainings, np.argsort(np.isnan(trainings), axis=1, kind="stable"), axis=1)
    number = np.isfinite(first).sum(axis=1)
    mean = np.nanmean(first, axis=1)
    stretch = np.sqrt(number / np.maximum(number - 1, 1)) / number
    parts = np.zeros((n, seeds + 1))  # the last is for trainings that an architecture lacks
    parts[:, :seeds] = np.nan_to_num((first - mean[:, None]) * stretch[:, None])
    found = np.empty((resamples, n))
    rows, there = np.arange(n)[:, None], np.arange(seeds) < number[:, None]
    for row in found:
        drawn = np.where(there, (rng.random((n, seeds)) * number[:, None]).astype(np.int64), seeds)
        row[:] = mean + parts[rows, drawn].sum(axis=1)
    return found


def binned(truth: Matrix, width: float) -> Matrix:
    """Number of the bin of `width` that each value lies in; a value on a border but for rounding lies above it."""
    return np.asarray(np.floor(truth / width + 1e-9))


def correlations(
    e: npt.ArrayLike, f: npt.ArrayLike, *, accuracy_scale: bool, width: float = SPARSE_WIDTH
) -> dict[str, Estimate]:
    """Every correlation of one column of scores with the truth.

    Args:
        e: (n,) scores, higher is better; -inf is ranked last, and left out by Pearson's correlation.
        f: (n,) truth.
        accuracy_scale: Whether e is on the scale of f; else Pearson's correlation is not defined.
        width: Bins of the truth for the sparse tau, in units of f.

    Returns:
        `NAMES` and `tau_c`: Kendall's tau-b and tau-c, Spearman, Pearson; Vigna's weighted tau (2015), mean of ranking
        by score and by truth, and ranked by the truth alone, so that errors among good architectures weigh most;
        tau-b with the truth in bins; and the discordance, the mean over pairs of the truth that is lost by choosing
        the one of higher score, in units of f. NaN with a reason where undefined.

    Raises:
        ValueError: NaN, infinite truth, different lengths.
    """
    scores, truth = checked(e, "e", finite=False), checked(f, "f")
    found = _column(scores, truth, accuracy_scale, width)
    tau_c = float("nan") if found["tau_b"].reason else float(stats.kendalltau(scores, truth, variant="c").statistic)
    return {**found, "tau_c": Estimate(tau_c, scores.size, found["tau_b"].reason)}


def interval_correlations(
    scores: npt.ArrayLike,
    use: npt.NDArray[np.bool_],
    values: npt.ArrayLike,
    draws: Draws,
    *,
    accuracy_scale: bool,
    rng: np.random.Generator,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Every correlation of an estimator with the truth, with its interval.

    Args:
        scores: (N, K) by estimator seed; -inf for what has no score and is ranked last.
        use: (N, K) rows in use of each column.
        values: (N, S) truth by training seed, NaN where there is no training; the truth is the mean of those there.
        draws: Of `draw` for these values.
        accuracy_scale: Whether the scores are on the scale of the truth; else Pearson's correlation is undefined.
        rng: Draws estimator seeds, where K > 1 and the table is complete.
        level: Nominal coverage.

    Returns:
        By `NAMES`: means over columns, each on its rows in use. `method` is `seeds` for a complete table, unless there
        is one training seed and one estimator seed; else `architectures`. `n` is the smallest number of rows in use.

    Raises:
        ValueError: NaN in use, shapes that do not fit, or an architecture without training.
    """
    columns, trainings = np.asarray(scores, dtype=np.float64), _checked_truth(values)
    if columns.ndim != 2 or use.shape != columns.shape or not len(columns) == len(trainings) == draws.counts.shape[1]:
        raise ValueError(f"scores {columns.shape}, use {use.shape} and values {trainings.shape} do not fit")
    truth = np.asarray(np.nanmean(trainings, axis=1))
    checked(np.where(use, columns, 0.0), "scores", ndim=2, finite=False)
    k = columns.shape[1]
    seeds = draws.complete and (draws.truths is not None or k > 1)
    points, resamples = [], []
    for e, rows in zip(columns.T, use.T, strict=True):
        points.append(_column(e[rows], truth[rows], accuracy_scale, draws.width))
        defined = [name for name in NAMES if not points[-1][name].reason]
        found = (_by_seeds if seeds else _by_architectures)(e[rows], truth[rows], rows, draws, "pearson" in defined)
        resamples.append(found)
    weights = np.full((len(draws.counts), k), 1.0 / k)
    if seeds and k > 1:  # stretched as the trainings are
        times = rng.multinomial(k, weights[0], len(weights))
        weights += (times - 1.0) / k * math.sqrt(k / (k - 1.0))
    n, remark = int(use.sum(axis=0).min()), _remark(draws, seeds)
    method = "seeds" if seeds else "architectures"
    return {
        name: _interval([p[name] for p in points], [r[name] for r in resamples], weights, level, method, n, remark)
        for name in NAMES
    }


def fisher_tau(tau: float, n: int, level: float = 0.95) -> Interval:
    """Closed-form interval of Kendall's tau over architectures: Fisher's z with SE sqrt(.437 / (n - 4)).

    The variance is that of Fieller, Hartley and Pearson (1957). ValueError for a level outside (0, 1).
    """
    return _fisher(tau, math.sqrt(0.437 / (n - 4)) if n > 4 else math.nan, n, level)


def fisher_spearman(r: float, n: int, level: float = 0.95) -> Interval:
    """Closed-form interval of Spearman's rho: Fisher's z with SE sqrt((1 + r^2 / 2) / (n - 3)).

    The variance is that of Bonett and Wright (2000). ValueError for a level outside (0, 1).
    """
    return _fisher(r, math.sqrt((1.0 + r * r / 2.0) / (n - 3)) if n > 3 else math.nan, n, level)


def tie_fraction(e: npt.ArrayLike) -> float:
    """Share of the (n,) scores that another one equals; NaN for none. ValueError for NaN."""
    scores = checked(e, "e", finite=False)
    sizes = np.unique(scores, return_counts=True)[1]
    return float(sizes[sizes > 1].sum() / scores.size) if scores.size else math.nan


def _checked_truth(values: npt.ArrayLike) -> Matrix:
    trainings = np.asarray(values, dtype=np.float64)
    if trainings.ndim != 2:
        raise ValueError(f"values must have shape (architectures, seeds), got {trainings.shape}")
    checked(np.where(np.isnan(trainings), 0.0, trainings), "values", ndim=2)
    checked(np.where(np.isnan(trainings).all(axis=1), np.nan, 0.0), "the trainings of values")
    return trainings


def _column(e: Vector, f: Vector, accuracy_scale: bool, width: float) -> dict[str, Estimate]:
    ranked = kernels.many(e, f[None])
    bins, finite = binned(f, width), np.isfinite(e)
    few = f"a correlation needs 3 architectures, got {e.size}" if e.size < 3 else ""
    flat = few or _flat(e, "the scores do not vary") or _flat(f, "the truth does not vary")
    coarse = flat or _flat(bins, f"the truth does not vary by {width}")
    linear = flat if accuracy_scale else NOT_ACCURACY
    linear = linear or (f"a correlation needs 3 scores, got {finite.sum()}" if finite.sum() < 3 else "")
    linear = linear or _flat(e[finite], "the scores do not vary") or _flat(f[finite], "the truth does not vary")
    reasons = dict.fromkeys(NAMES, flat) | {"sparse_tau": coarse, "pearson": linear, "discordance": few}
    found = _named(ranked, kernels.many(e, bins[None], ("tau_b",))["tau_b"])
    if not linear:
        found["pearson"] = kernels.resampled_pearson(e[finite], f[finite], np.ones((1, int(finite.sum())), np.int16))
    return {
        name: Estimate(math.nan if reason else float(found[name][0]), e.size, reason)
        for name, reason in reasons.items()
    }


def _flat(values: Vector, reason: str) -> str:
    return reason if values.size and (values == values[0]).all() else ""


def _named(ranked: Mapping[str, Vector], sparse: Vector) -> dict[str, Vector]:
    found = {name: ranked[name] for name in ("tau_b", "spearman", "weighted_tau", "discordance")}
    none = np.full(sparse.size, np.nan)
    return {**found, "weighted_tau_by_truth": ranked["weighted_tau_by_y"], "sparse_tau": sparse, "pearson": none}


def _by_architectures(
    e: Vector, f: Vector, rows: npt.NDArray[np.bool_], draws: Draws, linear: bool
) -> dict[str, Vector]:
    counts = _kept(draws.counts, rows)
    sparse = kernels.resampled(e, binned(f, draws.width), counts, ("tau_b",))["tau_b"]
    found = _named(kernels.resampled(e, f, counts), sparse)
    if linear:
        finite = np.isfinite(e)
        found["pearson"] = kernels.resampled_pearson(e[finite], f[finite], _kept(counts, finite))
    return found


def _by_seeds(e: Vector, f: Vector, rows: npt.NDArray[np.bool_], draws: Draws, linear: bool) -> dict[str, Vector]:
    if draws.truths is None or draws.ranks is None or draws.bins is None:
        once = _column(e, f, linear, draws.width)
        return {name: np.full(len(draws.counts), once[name].value) for name in NAMES}
    finite, parts = np.isfinite(e), []
    x = e[finite] - e[finite].mean() if linear else e
    for first in range(0, len(draws.counts), CHUNK):
        chunk = slice(first, first + CHUNK)
        truths, ranks, bins = (_kept(a[chunk], rows) for a in (draws.truths, draws.ranks, draws.bins))
        found = _named(kernels.many(e, truths, ranks=ranks), kernels.many(e, bins, ("tau_b",), ranks=bins)["tau_b"])
        if linear:
            y = _kept(truths, finite)
            squares = np.einsum("ra,ra->r", y, y) - y.shape[1] * y.mean(axis=1) ** 2
            found["pearson"] = y @ x / np.sqrt((x @ x) * squares)
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in NAMES}


def _kept(matrix: npt.NDArray[Any], columns: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Some columns, rows contiguous as they are read; a mask as an index would give the transpose of a copy."""
    return matrix if columns.all() else np.compress(columns, matrix, axis=1)


def _interval(
    points: Sequence[Estimate],
    resamples: Sequence[Vector],
    weights: Matrix,
    level: float,
    method: str,
    n: int,
    remark: str,
) -> Interval:
    tail = (1.0 - checked_fraction(level, "level")) / 2.0
    estimate = float(np.mean([p.value for p in points]))
    reason = next((p.reason for p in points if p.reason), "")
    found = (weights * np.column_stack(resamples)).sum(axis=1)
    defined = found[~np.isnan(found)]
    if reason or defined.size < found.size / 2:
        reason = reason or f"undefined in {found.size - defined.size} of {found.size} resamples"
        return Interval(estimate, math.nan, math.nan, level, method, n, reason)
    if defined.size < found.size:
        remark = "; ".join(filter(None, [remark, f"undefined in {found.size - defined.size} resamples"]))
    moved = defined - defined.mean() + estimate if method == "seeds" else defined
    low, high = (float(q) for q in np.quantile(moved, [tail, 1.0 - tail]))
    return Interval(estimate, low, high, level, method, n, remark)


def _remark(draws: Draws, seeds: bool) -> str:
    if not draws.complete:
        return ""
    if not seeds:
        return "one training seed and one estimator seed: noise of seeds is unknown, architectures are resampled"
    if draws.truths is None:
        return "one training seed: only estimator seeds are resampled"
    return f"{draws.single} architectures with one training do not vary" if draws.single else ""


def _fisher(r: float, se: float, n: int, level: float) -> Interval:
    z = float(stats.norm.ppf(0.5 + checked_fraction(level, "level") / 2.0))
    if math.isnan(se) or not -1.0 < r < 1.0:
        return Interval(r, math.nan, math.nan, level, "fisher-z", n, "Fisher's z needs more architectures and |r| < 1")
    return Interval(r, math.tanh(math.atanh(r) - z * se), math.tanh(math.atanh(r) + z * se), level, "fisher-z", n)
