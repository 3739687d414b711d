"""Signed bias: which architectures an estimator ranks too high, and which features go with that.

Three statistics by feature, of growing rigour. *Rank change* by group and *partial* correlation given the measured
quality are what is usually published; both find bias in estimators that have none, because quality is measured by noisy
trainings. *Corrected* takes the noise out of the partial correlation, supposing that scores follow ranks of quality in
a straight line. *Effect* supposes a smooth curve instead, with training seeds as instruments for each other
(`instruments.shift`); the verdict rests on it alone.

How often twelve truthful estimators (noiseless, noisy, transformed, noisier or blind in some range of quality) were
told apart from 0 at 5 %, mean over six features, in simulated spaces with a tenth of dead architectures:

* 500 architectures, 2 seeds, Spearman of two trainings .82: partial 0.38, corrected 0.09, effect 0.04;
* 600 architectures, 3 seeds, .94: partial 0.16, corrected 0.10, effect 0.05;
* 300 architectures, 2 seeds, .60: partial 0.57, corrected 0.11, effect 0.02, and no verdict in 3 of 10.

Limits. Where two trainings hardly correlate (0.36) there is no verdict. Noise of the truth that itself goes with a
feature at equal quality is taken for bias, since it shifts mean ranks. A bias by one feature shows in those that go
with it. Scores that share a training with the truth look biased (any after Holm: 0.71) unless `shared` names it (0.04).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np
import numpy.typing as npt
import scipy.stats

from ..statistics import Estimate, Interval, holm
from ..statistics.bootstrap import FEWEST_RESAMPLES
from ..statistics.values import Vector, checked, checked_fraction, midranks
from .instruments import METHOD, Resamples, partial, percentiles, reliability, shares, shift
from .results import FeatureBias, Group

LEVELS = 8
"""Distinct values up to which a feature is grouped by value; beyond, by fifths."""

DETERMINED = "what is held constant determines the other ranks"


def rank_change(e: npt.ArrayLike, f: npt.ArrayLike) -> Vector:
    """Relative rank change d = (R_true - R_pred) / n, rank 1 the best, ties sharing midranks (Ning et al. 2021).

    Args:
        e: (n,) scores, higher is better; -inf ranks last.
        f: (n,) quality, higher is better.

    Returns:
        (n,) in shares of the ranking; positive is over-ranked.

    Raises:
        ValueError: NaN, or different numbers.
    """
    scores, quality = checked(e, "e", finite=False), checked(f, "f")
    if scores.size != quality.size:
        raise ValueError(f"{scores.size} scores for {quality.size} architectures")
    return (midranks(scores)[0] - midranks(quality)[0]) / max(scores.size, 1)


def partial_spearman(x: npt.ArrayLike, y: npt.ArrayLike, z: npt.ArrayLike) -> Estimate:
    """Spearman correlation of x and y given z: of what is left of their ranks after regression on the ranks of z.

    Args:
        x: (n,), infinite values allowed.
        y: (n,)
        z: (n,)

    Returns:
        NaN with a reason under 3 values, without variance, or where z determines x or y.

    Raises:
        ValueError: NaN, or different numbers.
    """
    values, reason = _given(x, y, z, np.ones((0, np.size(x))))
    return Estimate(float(values[0]), np.size(x), reason)


def beyond(
    e: npt.ArrayLike, f: npt.ArrayLike, phi: npt.ArrayLike, counts: np.ndarray, *, level: float = 0.95
) -> Interval:
    """Partial Spearman(e, f | phi): what scores say of quality that a feature, such as parameters, does not.

    The percentile interval is over architectures also where the whole space is there: the question is about an
    association. The measured quality is not corrected for its noise, which makes the value smaller.

    Args:
        e: (n,) scores; -inf ranks last.
        f: (n,) quality.
        phi: (n,) the feature.
        counts: (R, n) multiplicities of bootstrap resamples.
        level: Nominal coverage.

    Raises:
        ValueError: NaN, or different numbers.
    """
    values, reason = _given(e, f, phi, counts)
    return percentiles(values, level, np.size(e), reason)


def biases(
    scores: np.ndarray,
    use: np.ndarray,
    truth: np.ndarray,
    features: Mapping[str, np.ndarray],
    counts: np.ndarray,
    *,
    level: float = 0.95,
    alpha: float = 0.05,
    shared: Sequence[int] = (),
) -> tuple[FeatureBias, ...]:
    """How an estimator leans on each feature; every statistic is the mean over the estimator's seeds.

    Features are looked at one at a time: a bias by one shows in those that go with it. Intervals are over
    architectures also where the whole space is there, since the question is about an association.

    Scores that come from a recorded training, such as that after fewer epochs, have its noise, and a truth with the
    same noise makes them look biased: name that training in `shared`.

    Args:
        scores: (N, K), higher is better; -inf ranks last.
        use: (N, K) whether the row is audited in that column.
        truth: (N, S), NaN where there is none; seeds that trained all audited rows are used, else means as of one seed.
        features: Name to (N,). Constant ones are in the result, with a reason instead of numbers.
        counts: (R, N) multiplicities of bootstrap resamples, R at least 100.
        level: Nominal coverage of the intervals.
        alpha: Of `biased`, after Holm over the features that vary.
        shared: (K,) the column of `truth` that is left out for a column of scores, -1 for none; empty for none at all.

    Raises:
        ValueError: NaN among what is used, shapes that do not match, or fewer than 100 resamples.
    """
    checked_fraction(level, "level")
    if len(counts) < FEWEST_RESAMPLES:
        raise ValueError(f"counts: {len(counts)} resamples; an interval needs {FEWEST_RESAMPLES}")
    use = np.asarray(use, dtype=bool)
    rows = np.flatnonzero(use.any(1))
    columns = _columns(scores, use, truth, shared or [-1] * use.shape[1])
    phis = {n: np.asarray(phi, dtype=np.float64) for n, phi in features.items()}
    reasons = {n: _unsound(n, phi, rows, columns) for n, phi in phis.items()}
    names = [n for n, reason in reasons.items() if not reason]
    results = {n: _undefined(n, r, level, rows.size) for n, r in reasons.items() if r}
    if names:
        phi, multiplicities = np.column_stack([phis[n] for n in names]), np.asarray(counts, dtype=np.float64)
        found = _associated(columns, phi, rows, multiplicities)
        grouped = _grouped(_mean_change(columns, len(use))[rows], phi[rows], _draws(multiplicities, rows), level)
        for j, name in enumerate(names):
            results[name] = _one(name, grouped[j], found, j, level, rows.size)
    return _decided([results[n] for n in features], alpha, {n: _unit(n, phis[n][rows]) for n in names})


@dataclass(frozen=True, slots=True)
class _Column:
    """One seed of the estimator: audited rows (n,), scores (n,), values by training seed (n, S)."""

    rows: np.ndarray
    scores: Vector
    seeds: np.ndarray


@dataclass(frozen=True, slots=True)
class _Associated:
    """Means over columns, (R + 1, features) each, and why there is no effect, by feature."""

    raw: np.ndarray
    truth: np.ndarray
    partial: np.ndarray
    corrected: np.ndarray
    effect: np.ndarray
    reasons: tuple[str, ...]


def _columns(scores: np.ndarray, use: np.ndarray, truth: np.ndarray, shared: Sequence[int]) -> list[_Column]:
    if scores.shape != use.shape or len(truth) != len(use) or len(shared) != use.shape[1]:
        raise ValueError(f"scores {scores.shape}, use {use.shape}, truth {truth.shape}, shared {len(shared)} differ")
    found = []
    for k, own in enumerate(shared):
        rows = np.flatnonzero(use[:, k])
        values = np.asarray(truth, dtype=np.float64)[rows]
        if own >= 0:
            values = np.delete(values, own, axis=1)
        whole = ~np.isnan(values).any(0)
        if not whole.any():
            there = ~np.isnan(values)
            sums, numbers = np.where(there, values, 0.0).sum(1), there.sum(1)
            values, whole = np.where(numbers > 0, sums / np.maximum(numbers, 1), np.nan)[:, None], np.array([True])
        seeds = checked(values[:, whole], "truth", ndim=2)
        found.append(_Column(rows, checked(scores[rows, k], f"scores[{k}]", finite=False), seeds))
    return found


def _unsound(name: str, phi: Vector, rows: np.ndarray, columns: Sequence[_Column]) -> str:
    """Why nothing at all can be said about a feature, or nothing."""
    checked(phi[rows], name)
    for c in columns:
        if c.rows.size < 3:
            return f"{c.rows.size} architectures; a correlation needs 3"
        if (c.scores == c.scores[0]).all():
            return "all scores are equal"
        if any(np.ptp(values) == 0 for values in (*c.seeds.T, c.seeds.mean(1))):
            return "all architectures are equally good"
        if np.ptp(phi[c.rows]) == 0:
            return f"{name} is the same everywhere"
    return ""


def _draws(counts: np.ndarray, rows: np.ndarray) -> Resamples:
    return Resamples(counts if rows.size == counts.shape[1] else counts[:, rows])


def _associated(columns: Sequence[_Column], phi: np.ndarray, rows: np.ndarray, counts: np.ndarray) -> _Associated:
    """Everything that is a function of covariances; `phi` (N, features)."""
    steps = np.zeros_like(phi)
    steps[rows] = np.column_stack([_steps(p) for p in phi[rows].T])
    found, reasons = [], [""] * phi.shape[1]
    for c in columns:
        draws = _draws(counts, c.rows)
        u, f = shares(c.scores), shares(c.seeds.mean(1))
        ranks = np.column_stack([shares(p) for p in phi[c.rows].T])
        both = draws.correlations(np.column_stack([u, f]), np.column_stack([f, ranks]))
        uf, raw, truth = both[:, 0, :1], both[:, 0, 1:], both[:, 1, 1:]
        corrected = effect = np.full_like(raw, np.nan)
        why: Sequence[str] = ["with one training seed, bias cannot be told from the noise of the truth"] * len(reasons)
        if c.seeds.shape[1] > 1:
            noise = np.sqrt(reliability(draws, c.seeds))[:, None]
            corrected = partial(raw, uf / noise, truth / noise)
            shifted = shift(draws, u, c.seeds, steps[c.rows])
            effect, why = shifted.values, shifted.reasons
        reasons = [r or w for r, w in zip(reasons, why, strict=True)]
        found.append((raw, truth, partial(raw, uf, truth), corrected, effect))
    raw, truth, given, corrected, effect = (np.mean(parts, axis=0) for parts in zip(*found, strict=True))
    return _Associated(raw, truth, given, corrected, effect, tuple(reasons))


def _steps(phi: Vector) -> Vector:
    """A feature in the steps that its effect is told by: units of whole numbers, levels, or fifths."""
    levels, index = np.unique(phi, return_inverse=True)
    if levels.size > LEVELS:
        return 5.0 * shares(phi)
    units = bool((levels == np.round(levels)).all()) and np.ptp(levels) <= LEVELS
    return phi if units else index.astype(np.float64)


def _unit(name: str, phi: Vector) -> str:
    return "fifth" if np.unique(phi).size > LEVELS else "operation" if name.startswith("n_") else "step"


def _mean_change(columns: Sequence[_Column], n: int) -> Vector:
    """Mean rank change over columns, (N,); 0 for what no column audits."""
    total, number = np.zeros(n), np.zeros(n)
    for c in columns:
        total[c.rows] += rank_change(c.scores, c.seeds.mean(1))
        number[c.rows] += 1
    return total / np.maximum(number, 1)


def _grouped(change: Vector, phi: np.ndarray, draws: Resamples, level: float) -> list[tuple[tuple[Group, ...], float]]:
    """Mean rank change by level or fifth of each feature, with the p-value of Kruskal and Wallis."""
    labels, members = zip(*(_levels(values) for values in phi.T), strict=True)
    inside = np.hstack(members)
    found = draws.means(np.hstack([inside * change[:, None], inside]))
    sums, sizes = np.hsplit(found, 2)
    values = np.divide(sums, sizes, out=np.full_like(sums, np.nan), where=sizes > 0)
    start, results = 0, []
    for names, member in zip(labels, members, strict=True):
        parts = [change[m > 0] for m in member.T]
        groups = tuple(
            Group(name, part.size, percentiles(values[:, start + g], level, part.size, ""))
            for g, (name, part) in enumerate(zip(names, parts, strict=True))
        )
        start += len(names)
        same = np.ptp(change) == 0 or len(parts) < 2
        results.append((groups, 1.0 if same else float(scipy.stats.kruskal(*parts).pvalue)))
    return results


def _levels(phi: Vector) -> tuple[list[str], np.ndarray]:
    """Names of the levels or fifths of a feature, and who is in which: (n, groups) of 0 and 1."""
    levels, index = np.unique(phi, return_inverse=True)
    labels = [f"{v:g}" for v in levels]
    if levels.size > LEVELS:
        fifths, index = np.unique(np.floor(5.0 * shares(phi)), return_inverse=True)
        labels = [f"fifth {v + 1:g}" for v in fifths]
    return labels, (index.reshape(-1, 1) == np.arange(len(labels))).astype(np.float64)


def _one(
    name: str, grouped: tuple[tuple[Group, ...], float], found: _Associated, j: int, level: float, n: int
) -> FeatureBias:
    """A feature before its verdict."""
    values, reason = found.effect[:, j], found.reasons[j]
    effect, p = Interval(nan, nan, nan, level, METHOD, n, reason), nan
    if not reason:
        error = max(float(values[1:].std(ddof=1)), 1e-9)  # rounding of a perfect estimator is no bias
        half = float(scipy.stats.norm.isf((1.0 - level) / 2.0)) * error
        effect = Interval(float(values[0]), float(values[0] - half), float(values[0] + half), level, METHOD, n)
        p = float(2.0 * scipy.stats.norm.sf(math.fabs(values[0]) / error))
    gone = "a correlation that noise is taken out of is not below 1"
    raw, truth = float(found.raw[0, j]), float(found.truth[0, j])
    return FeatureBias(
        name, *grouped, nan, raw, truth, raw - truth, percentiles(found.partial[:, j], level, n, DETERMINED),
        percentiles(found.corrected[:, j], level, n, reason or gone), effect, p, nan, False, "", reason,
    )  # fmt: skip


def _decided(found: Sequence[FeatureBias], alpha: float, units: Mapping[str, str]) -> tuple[FeatureBias, ...]:
    """The same with Holm's correction over features and the sentences."""
    adjusted = {}
    for attribute in ("p", "p_effect"):
        p = {b.feature: getattr(b, attribute) for b in found if not math.isnan(getattr(b, attribute))}
        adjusted[attribute] = dict(zip(p, holm(list(p.values())).tolist(), strict=True))
    decided = []
    for b in found:
        p, p_effect = (adjusted[attribute].get(b.feature, nan) for attribute in ("p", "p_effect"))
        sentence = _sentence(b, p_effect < alpha, units.get(b.feature, ""))
        decided.append(replace(b, p_holm=p, p_effect_holm=p_effect, biased=p_effect < alpha, sentence=sentence))
    return tuple(decided)


def _sentence(b: FeatureBias, biased: bool, unit: str) -> str:
    if b.reason:
        return f"no verdict on bias by {b.feature}: {b.reason}"
    size = f"{b.effect.estimate:+.2g} of the ranking per {unit} [{b.effect.low:.2g}, {b.effect.high:.2g}]"
    if not biased:
        return f"no bias by {b.feature} told apart from 0: {size}"
    return f"{'over' if b.effect.estimate > 0 else 'under'}-ranks architectures with more {b.feature}: {size}"


def _undefined(name: str, reason: str, level: float, n: int) -> FeatureBias:
    none = Interval(nan, nan, nan, level, METHOD, n, reason)
    return FeatureBias(name, (), nan, nan, nan, nan, nan, none, none, none, nan, nan, False, "", reason)


def _given(x: npt.ArrayLike, y: npt.ArrayLike, z: npt.ArrayLike, counts: np.ndarray) -> tuple[Vector, str]:
    """Partial Spearman(x, y | z), (R + 1,), and why the first is NaN."""
    a, b, c = (checked(v, name, finite=False) for v, name in ((x, "x"), (y, "y"), (z, "z")))
    if not a.size == b.size == c.size:
        raise ValueError(f"{a.size}, {b.size} and {c.size} values differ in number")
    nothing = np.full(len(counts) + 1, np.nan)
    if a.size < 3:
        return nothing, f"{a.size} architectures; a partial correlation needs 3"
    if any((v == v[0]).all() for v in (a, b, c)):
        return nothing, "no variance among the values"
    ranks = np.column_stack([shares(v) for v in (a, b, c)])
    r = Resamples(counts).correlations(ranks, ranks)
    values = partial(r[:, 0, 1], r[:, 0, 2], r[:, 1, 2])
    return values, DETERMINED if math.isnan(values[0]) else ""
