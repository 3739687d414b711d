"""Does an estimator know what it must not: the luck of single trainings, or the labels it is judged by?

What an estimator can know of an architecture is its quality. The rest of a recorded value is the luck of one training,
and luck is only known to who saw that training, or its test value.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from ..statistics import Estimate, Interval
from ..statistics.values import Vector, midranks
from .ceiling import ONE_SEED, score_columns, trainings
from .results import Flag

ALPHA = 1e-3
"""Level of all tests of one estimator together: an audit makes many, and accuses."""

NEIGHBOURS = 25
"""An architecture is compared with this part of the table, those of the most similar mean value."""


def shared_noise(columns: npt.ArrayLike, Y: npt.ArrayLike) -> dict[int, Estimate]:
    """Association of an estimator's ranks with the noise of each training seed, Y_s minus the mean of the others.

    From the rank of a score the mean rank of architectures of similar quality is taken off, since quality makes up
    nearly all of it. What is left is set against the noise as a correlation, studentised by the spread of each
    architecture's own trainings. Where the estimator is independent of training noise the seeds of an architecture are
    exchangeable, so that sqrt(n) times the value is standard normal whatever the sizes of the noise, ties or dead
    networks (a permutation test of the seeds within each row, by its normal limit).

    In simulated tables of 700 architectures with 2 or 3 seeds, tests of nominal 5 % rejected 3 to 8 % of truthful
    estimators; validation accuracies that share half of the standard deviation of the noise gave a z of 7 to 9, and of
    2 to 3 by the plain correlation of ranks and noise.

    Args:
        columns: Scores, shape (N, K); NaN where there is none, -inf ranked last.
        Y: Shape (N, S); architectures that lack a seed are left out.

    Returns:
        By index of the training seed, the value of the column that is furthest from 0 (several seeds of an estimator
        may each share the noise of one training: their mean would hide it); NaN with a reason for one training seed,
        under 3 architectures, and where seeds or scores do not differ. See `significant`.

    Raises:
        ValueError: Shapes differ, or infinite values of Y.
    """
    truth, scores = trainings(Y), score_columns(columns, Y)
    found = {}
    for s in range(truth.shape[1]):
        each = [_association(column, truth, s) for column in scores.T]
        found[s] = max(each, key=lambda one: -1.0 if math.isnan(one.value) else abs(one.value))
    return found


def significant(found: Estimate, comparisons: int, alpha: float = ALPHA) -> bool:
    """Whether a value of `shared_noise` is told apart from 0, two-sided, after Bonferroni.

    Args:
        found: The value.
        comparisons: Training seeds times columns that were looked at.
        alpha: Of all of them together.
    """
    return bool(abs(found.value) * math.sqrt(found.n) > norm.isf(alpha / comparisons / 2.0))  # NaN: no


def shared_flags(columns: npt.ArrayLike, Y: npt.ArrayLike) -> tuple[Flag, ...]:
    """A warning that names the training seeds whose noise the scores share; empty if none.

    With two training seeds the noise of one is that of the other turned round, so that the seed is named whose
    association is positive; only where none is, those that the scores run against.

    Args:
        columns: As of `shared_noise`.
        Y: As of `shared_noise`.

    Raises:
        ValueError: As `shared_noise`.
    """
    scores = score_columns(columns, Y)
    found = shared_noise(scores, Y)
    certain = {s: one for s, one in found.items() if significant(one, len(found) * scores.shape[1])}
    named = {s: one for s, one in certain.items() if one.value > 0} or certain
    if not named:
        return ()
    parts = [f"{s} (r = {one.value:+.2f}, {one.n} architectures)" for s, one in named.items()]
    sentence = (
        f"shares the noise of training seed {' and '.join(parts)}: it saw the same training, "
        "and agrees with that seed better than with another one"
    )
    return (Flag("shared_seed", "warning", sentence),)


def above_ceiling(columns: npt.ArrayLike, Y: npt.ArrayLike) -> tuple[Flag, ...]:
    """A fault where scores agree with the recorded trainings better than any knowledge of quality allows.

    The ranks of single trainings correlate by r1 with each other. By the inequality of Cauchy and Schwarz nothing that
    is independent of the luck of a training can correlate with its ranks by more than sqrt(r1): no assumption about the
    shape of quality or noise is in this, while the ceiling for the mean of the seeds rests on Spearman and Brown.
    Tested one-sided, by the delta method over architectures, for each seed, and for the mean over seeds.

    Fault: the mean is above, or two seeds are. Where it is one seed alone, the scores come from that training, which
    `shared_flags` says.

    Args:
        columns: Scores, shape (N, K); NaN where there is none, -inf ranked last.
        Y: Shape (N, S); architectures that lack a seed are left out.

    Returns:
        One flag, of the column that is most certainly above; empty for one training seed.

    Raises:
        ValueError: Shapes differ, or infinite values of Y.
    """
    truth, scores = trainings(Y), score_columns(columns, Y)
    seeds = truth.shape[1]
    if seeds < 2:
        return ()
    limit = float(norm.isf(ALPHA / (scores.shape[1] * (seeds + 1))))
    leaking = []
    for column in scores.T:
        x, rows = _complete(column, truth)
        tested = _beyond(x, rows)
        if tested is None:
            continue
        above = int(np.sum(tested.z[:seeds] > limit))
        if above > 1 or (tested.z[seeds] > limit and not (above == 1 and shared_flags(x[:, None], rows))):
            leaking.append(tested)
    return tuple(_leak(one) for one in sorted(leaking, key=lambda one: -one.z.max())[:1])


def sign_flag(interval: Interval, sign: int = 1) -> Flag | None:
    """A fault where an estimator ranks the wrong way: its interval of tau-b lies wholly below 0.

    Args:
        interval: Of tau-b, of scores already turned by their declared sign; NaN limits say nothing.
        sign: The declared one.
    """
    if not interval.high < 0.0:
        return None
    told = f"tau_b = {interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
    return Flag("sign", "fault", f"ranks the wrong way: {told}; its declared sign is {sign:+d}")


class _Excess(NamedTuple):
    """Correlations with training seeds, r1 between these, and how far (z) each and their mean lie above sqrt(r1)."""

    correlations: Vector
    single: float
    z: Vector
    n: int


def _leak(found: _Excess) -> Flag:
    told = ", ".join(f"{r:.3f}" for r in found.correlations)
    sentence = (
        f"agrees with the recorded trainings better than any knowledge of quality could: Spearman {told} with the "
        f"training seeds, which reach {found.single:.3f} among themselves and allow {math.sqrt(found.single):.3f} "
        f"(z = {found.z.max():.1f}, {found.n} architectures); it was made from these trainings or their labels"
    )
    return Flag("leak", "fault", sentence)


def _beyond(x: Vector, truth: Vector) -> _Excess | None:
    """None where something does not vary or the seeds do not agree."""
    n = len(truth)
    if n < 3 or np.all(x == x[0]) or np.any(np.all(truth == truth[0], axis=0)):
        return None
    score, ranks = _standard(midranks(x)[0]), [_standard(midranks(column)[0]) for column in truth.T]
    pairs = [_influence(a, b) for a, b in combinations(ranks, 2)]
    single = float(np.mean([r for r, _ in pairs]))
    if single <= 0.0:
        return None
    ceiling = math.sqrt(single)
    moved = np.mean([i for _, i in pairs], axis=0) / (2.0 * ceiling)
    own = [_influence(score, rank) for rank in ranks]
    correlations = np.array([r for r, _ in own])
    influences = np.array([i for _, i in own])
    gaps = np.append(correlations, correlations.mean()) - ceiling
    spread = (np.vstack([influences, influences.mean(axis=0)]) - moved).std(axis=1)
    # Rounding is all there is of either where scores and seeds are the same.
    z = np.where(np.abs(gaps) < 1e-9, 0.0, gaps * math.sqrt(n) / np.maximum(spread, 1e-9))
    return _Excess(correlations, single, z, n)


def _influence(x: Vector, y: Vector) -> tuple[float, Vector]:
    """Correlation of standardised values, and what each architecture adds to it (its influence function)."""
    r = float(np.mean(x * y))
    return r, x * y - r / 2.0 * (x * x + y * y)


def _standard(x: Vector) -> Vector:
    centred = x - x.mean()
    return np.asarray(centred / centred.std())


def _association(column: Vector, truth: Vector, seed: int) -> Estimate:
    x, rows = _complete(column, truth)
    n, seeds = rows.shape
    if seeds < 2:
        return Estimate(float("nan"), n, ONE_SEED)
    if n < 3:
        return Estimate(float("nan"), n, f"association needs 3 architectures with all seeds, got {n}")
    # Whole seeds that are better or worse are no luck of single architectures.
    deviation = rows - rows.mean(axis=0)
    deviation -= deviation.mean(axis=1, keepdims=True)
    unequal = np.any(rows != rows[:, :1], axis=1)
    excess = _unlike_neighbours(midranks(x)[0], rows.mean(axis=1))
    noise, variance = deviation[:, seed], np.mean(deviation**2, axis=1)
    spread = float(np.sum(excess[unequal] ** 2 * variance[unequal]))
    if spread <= 1e-12 * n * n * float(variance.max()):
        return Estimate(float("nan"), n, "scores or training seeds of similar architectures do not differ")
    return Estimate(float(excess[unequal] @ noise[unequal]) / math.sqrt(n * spread), n)


def _unlike_neighbours(ranks: Vector, quality: Vector) -> Vector:
    """Ranks minus the mean rank of architectures of similar quality; equal quality is one neighbourhood."""
    by_quality = np.argsort(quality, kind="stable")
    half = max(2, ranks.size // NEIGHBOURS // 2)
    padded = np.pad(ranks[by_quality], half, mode="edge")
    smooth = np.empty(ranks.size)
    smooth[by_quality] = np.convolve(padded, np.full(2 * half + 1, 1.0 / (2 * half + 1)), mode="valid")
    _, group, sizes = np.unique(quality, return_inverse=True, return_counts=True)
    return np.asarray(ranks - (np.bincount(group, weights=smooth) / sizes)[group], dtype=np.float64)


def _complete(column: Vector, truth: Vector) -> tuple[Vector, Vector]:
    rows = ~np.isnan(column) & ~np.isnan(truth).any(axis=1)
    return column[rows], truth[rows]
