"""What is asked of one-shot models beside what every estimator is asked: scale, stability, discretisation.

Scores and qualities are accuracies as fractions, higher is better. Whether a policy that learns from a supernet while
the supernet trains what the policy picks deceives itself is asked in `reinforcement`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ..statistics import Estimate, Interval, bootstrap_mean
from ..statistics.values import Vector, checked
from ..words import percent, span
from . import kernels

FEWEST = 3
"""Architectures that a rank correlation or a standard deviation is given for."""


@dataclass(frozen=True, slots=True)
class Stability:
    """Agreement of rankings: tau-b of pairs of supernets, or of epochs.

    Attributes:
        mean: Over the pairs that are defined.
        lowest: Over the same.
        pairs: Number of them.
        reason: Why `mean` is NaN, else "".
    """

    mean: float
    lowest: float
    pairs: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Epochs:
    """One supernet at T times of its training.

    Attributes:
        consecutive: tau-b of the scores at one time and at the time before, (T - 1).
        with_last: tau-b of the scores at each time and at the last, (T).
        with_truth: tau-b of the scores at each time and the qualities, (T).
    """

    consecutive: tuple[float, ...]
    with_last: tuple[float, ...]
    with_truth: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Discretisation:
    """What is lost between a mixed network and the architecture that is read off it; means over K supernets.

    Attributes:
        inherit: Metric of the mixed network minus that of the discretised one with the same weights.
        percentile: Share of the architectures that are worse than the discretised one when trained by itself, those
            equal to it counting half, in [0, 1].
        regret: Best quality minus that of the discretised one.
        regret_by_weights: Best quality minus that of the architecture of the best score with inherited weights.
    """

    inherit: Interval
    percentile: Interval
    regret: Interval
    regret_by_weights: Interval


@dataclass(frozen=True, slots=True)
class SkipHistory:
    """Skip connections of the architecture that a search would hand over, over its epochs.

    Attributes:
        shares: Of the edges, (T).
        collapse: The first epoch, from 1, from which on more than half of the edges are skips; None if there is none.
    """

    shares: tuple[float, ...]
    collapse: int | None


@dataclass(frozen=True, slots=True)
class OneShotAudit:
    """A one-shot estimator on a table; what was not recorded is None.

    Attributes:
        n: Architectures.
        seeds: Supernets.
        spread: sd(e) / sd(f), mean over supernets.
        error: Mean of e - f, over the supernets; negative is under-estimation.
        between: Agreement of supernets of different seeds.
        epochs: Over the training of one supernet.
        discretisation: Of a continuous relaxation.
        skips: Of a continuous relaxation.
        verdicts: Plain sentences.
    """

    n: int
    seeds: int
    spread: Estimate
    error: Interval
    between: Stability
    epochs: Epochs | None
    discretisation: Discretisation | None
    skips: SkipHistory | None
    verdicts: tuple[str, ...]


def one_shot_audit(
    e: npt.ArrayLike,
    f: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    epochs: Epochs | None = None,
    discretisation: Discretisation | None = None,
    skips: SkipHistory | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> OneShotAudit:
    """Scale and stability of one-shot scores, and sentences about all that is given.

    Args:
        e: (N, K) scores, one column for each supernet.
        f: (N,) qualities.
        rng: Of the interval of the mean error, which is over the K supernets.
        epochs: See `across_epochs`.
        discretisation: See `discretise`.
        skips: See `skip_history`.
        resamples: Of the interval.
        level: Its nominal coverage.

    Raises:
        ValueError: NaN, or shapes that do not fit.
    """
    scores, quality = checked(e, "e", ndim=2), checked(f, "f")
    _fit(scores, quality)
    spread = spread_ratio(scores, quality)
    errors = (scores - quality[:, None]).mean(axis=0)
    error = bootstrap_mean([errors], resamples=resamples, rng=rng, level=level)
    between = stability(scores)
    verdicts = _verdicts(spread, error, between, epochs, discretisation, skips)
    n, k = scores.shape
    return OneShotAudit(n, k, spread, error, between, epochs, discretisation, skips, verdicts)


def spread_ratio(e: npt.ArrayLike, f: npt.ArrayLike) -> Estimate:
    """sd(e) / sd(f): one-shot accuracies spread far wider than those of trained networks (Bender et al. 2018).

    Args:
        e: (N,), or (N, K) of K supernets, over which the ratios are averaged.
        f: (N,).

    Returns:
        The ratio; NaN with a reason under 3 architectures, or where f has no variance.

    Raises:
        ValueError: NaN, or shapes that do not fit.
    """
    scores, quality = checked(e, "e", ndim=None), checked(f, "f")
    scores = scores[:, None] if scores.ndim == 1 else scores
    _fit(scores, quality)
    if quality.size < FEWEST:
        return Estimate(float("nan"), quality.size, f"needs {FEWEST} architectures, got {quality.size}")
    if np.ptp(quality) == 0:
        return Estimate(float("nan"), quality.size, "the qualities have no variance")
    return Estimate(float((scores.std(axis=0, ddof=1) / quality.std(ddof=1)).mean()), quality.size)


def stability(columns: npt.ArrayLike) -> Stability:
    """tau-b between all pairs of columns: whether another supernet ranks alike (Zhang et al. 2020).

    Args:
        columns: (N, K) scores of the same architectures.

    Raises:
        ValueError: NaN, or no matrix.
    """
    scores = checked(columns, "columns", ndim=2)
    n, k = scores.shape
    if k < 2:
        return Stability(float("nan"), float("nan"), 0, f"needs 2 supernets, got {k}")
    found = np.array([tau_b(scores[:, i], scores[:, j]) for i, j in combinations(range(k), 2)])
    found = found[~np.isnan(found)]
    if not found.size:
        few = f"needs {FEWEST} architectures, got {n}" if n < FEWEST else "no two supernets have scores that vary"
        return Stability(float("nan"), float("nan"), 0, few)
    return Stability(float(found.mean()), float(found.min()), found.size)


def across_epochs(e: npt.ArrayLike, f: npt.ArrayLike) -> Epochs:
    """Agreement of the rankings that one supernet gives at several times of its training.

    Args:
        e: (N, T) scores, in the order of time.
        f: (N,) qualities.

    Raises:
        ValueError: NaN, or shapes that do not fit.
    """
    scores, quality = checked(e, "e", ndim=2), checked(f, "f")
    _fit(scores, quality)
    columns = list(scores.T)
    return Epochs(
        tuple(tau_b(x, y) for x, y in zip(columns[1:], columns[:-1], strict=True)),
        tuple(tau_b(x, columns[-1]) for x in columns),
        tuple(tau_b(x, quality) for x in columns),
    )


def discretise(
    soft: npt.ArrayLike,
    chosen: npt.ArrayLike,
    e: npt.ArrayLike,
    f: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Discretisation:
    """The gaps of a continuous relaxation (Liu et al. 2019, DARTS), with intervals over supernets.

    Args:
        soft: (K,) metric of the mixed networks.
        chosen: (K,) positions, among the N, of the architectures that are read off the mixing factors.
        e: (N, K) scores with the weights that each mixed network leaves.
        f: (N,) qualities.
        rng: Of the intervals.
        resamples: Of each.
        level: Nominal coverage.

    Raises:
        ValueError: NaN, shapes that do not fit, or positions outside of the N.
    """
    mixed, scores, quality = checked(soft, "soft"), checked(e, "e", ndim=2), checked(f, "f")
    rows = np.asarray(chosen)
    _fit(scores, quality)
    if rows.shape != mixed.shape or mixed.shape != scores.shape[1:]:
        raise ValueError(f"soft, chosen and e have {mixed.shape}, {rows.shape} and {scores.shape[1:]} supernets")
    if not np.issubdtype(rows.dtype, np.integer) or not ((rows >= 0) & (rows < quality.size)).all():
        raise ValueError(f"chosen must hold positions from 0 to {quality.size - 1}, got {rows.tolist()}")
    own = quality[rows]
    below = (quality[:, None] < own).mean(axis=0) + ((quality[:, None] == own).mean(axis=0)) / 2.0
    values = (
        mixed - scores[rows, np.arange(rows.size)],
        below,
        quality.max() - own,
        quality.max() - quality[scores.argmax(axis=0)],
    )
    return Discretisation(*(bootstrap_mean([v], resamples=resamples, rng=rng, level=level) for v in values))


def skip_history(skips: npt.ArrayLike, edges: int) -> SkipHistory:
    """Skip connections over the epochs of a search.

    Args:
        skips: (T,) counted in the architecture derived after each epoch.
        edges: Of an architecture.

    Raises:
        ValueError: NaN, no epoch, or counts that are not from 0 to `edges`.
    """
    counts = checked(skips, "skips")
    if not counts.size or ((counts < 0) | (counts > edges)).any():
        raise ValueError(f"skips must hold counts from 0 to {edges}, one for each epoch; got {counts.tolist()}")
    few = np.flatnonzero(counts <= edges / 2)
    start = int(few[-1]) + 2 if few.size else 1
    return SkipHistory(tuple((counts / edges).tolist()), start if start <= counts.size else None)


def tau_b(x: Vector, y: Vector) -> float:
    """Kendall's tau-b; NaN under 3 architectures or without variance."""
    return kernels.tau_b(x, y) if x.size >= FEWEST else float("nan")


def _fit(scores: Vector, quality: Vector) -> None:
    if scores.ndim != 2 or scores.shape[0] != quality.size or not scores.shape[1]:
        raise ValueError(f"e must be ({quality.size}, supernets or epochs), as f is, got shape {scores.shape}")


def _verdicts(
    spread: Estimate,
    error: Interval,
    between: Stability,
    epochs: Epochs | None,
    discretisation: Discretisation | None,
    skips: SkipHistory | None,
) -> tuple[str, ...]:
    lines = [f"one-shot scores differ from the qualities by {span(error, scale=100)} pp on average"]
    if not spread.reason:
        lines.append(f"they spread {spread.value:.2f} times as wide as the qualities")
    if not between.reason:
        lines.append(f"supernets of two seeds rank alike to tau-b = {between.mean:.2f}, lowest {between.lowest:.2f}")
    if epochs is not None and len(epochs.consecutive):
        lines.append(
            f"the last two recorded epochs rank alike to tau-b = {epochs.consecutive[-1]:.2f};"
            f" tau-b with the qualities went from {epochs.with_truth[0]:.2f} to {epochs.with_truth[-1]:.2f}"
        )
    if discretisation is not None:
        lines.append(
            f"reading an architecture off the mixed network costs {span(discretisation.inherit, scale=100)} pp;"
            f" trained by itself it beats {percent(discretisation.percentile.estimate)} % of the architectures"
        )
    if skips is not None:
        told = f"from epoch {skips.collapse} to the last" if skips.collapse else "at no time to the end"
        lines.append(f"more than half of its edges are skip connections {told}")
    return tuple(lines)
