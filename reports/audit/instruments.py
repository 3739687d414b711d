"""Associations of scores with features of architectures, given a quality that is only measured.

Quality is the mean of a few noisy trainings. Holding that mean constant does not hold quality constant (regression
dilution), so that an estimator which is truthful but for noise seems to favour whatever good architectures have. What
is unbiased is the product of two different trainings of an architecture: their noise is independent. All cross-products
of quality with itself are therefore taken between training seeds (instrumental variables; Fuller, Measurement Error
Models, 1987).

All statistics are functions of covariances. Each comes with its bootstrap values: row 0 is the sample, the other R rows
weigh the architectures by multiplicities. Ranks are those of the sample in every row; under the null hypothesis
of no bias this changes the standard error of `shift` in second order only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.polynomial.legendre import legvander

from ..statistics import Interval
from ..statistics.values import Vector, checked_fraction, midranks

METHOD = "architectures"
"""What is resampled."""

SURE = 3.0
"""Standard errors that a variance to divide by must be away from 0."""

DEGREES = (5, 4, 3, 2)
"""Of the polynomial that scores are in quality, the first that training seeds agree enough about."""

FEWEST = 30
"""Architectures below which `shift` is not tried."""


@dataclass(frozen=True, slots=True)
class Shift:
    """What a step of each feature shifts the ranking by, (R + 1, features); NaN where `reasons` says why."""

    values: np.ndarray
    reasons: tuple[str, ...]


def shares(values: Vector) -> Vector:
    """Midranks of the values (n,) as shares of the ranking, in (0, 1), the best nearest 1."""
    return (midranks(values)[0] - 0.5) / values.size


class Resamples:
    """Bootstrap multiplicities (R, n) and their sums, which every mean divides by."""

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = np.asarray(counts, dtype=np.float64)
        totals = self.counts.sum(1, keepdims=True)
        self.totals = np.where(totals > 0, totals, np.nan)

    def means(self, z: np.ndarray) -> np.ndarray:
        """Means of the columns of z (n, q), of the sample and of every resample: (R + 1, q)."""
        return np.vstack([z.mean(0), self.counts @ z / self.totals])

    def covariances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Covariances of the columns of a (n, p) with those of b (n, q): (R + 1, p, q)."""
        (n, p), q = a.shape, b.shape[1]
        a, b = a - a.mean(0), b - b.mean(0)
        found = self.means(np.hstack([(a[:, :, None] * b[:, None, :]).reshape(n, -1), a, b]))
        return np.asarray(found[:, : p * q].reshape(-1, p, q) - found[:, p * q : -q, None] * found[:, None, -q:])

    def variances(self, a: np.ndarray) -> np.ndarray:
        """Variances of the columns of a (n, p): (R + 1, p)."""
        a = a - a.mean(0)
        squares, first = np.hsplit(self.means(np.hstack([a**2, a])), 2)
        return np.asarray(squares - first**2)

    def correlations(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Correlations of the columns of a (n, p) with those of b (n, q): (R + 1, p, q); NaN without variance."""
        scale = self.variances(a)[:, :, None] * self.variances(b)[:, None, :]
        return np.asarray(self.covariances(a, b) / np.sqrt(np.where(scale > 1e-24, scale, np.nan)))


def partial(xy: np.ndarray, xz: np.ndarray, yz: np.ndarray) -> np.ndarray:
    """Correlation of x and y given z, from the three of them; NaN where it does not exist."""
    left, right = 1.0 - xz**2, 1.0 - yz**2
    sound = (left > 1e-12) & (right > 1e-12)
    return np.asarray((xy - xz * yz) / np.sqrt(np.where(sound, left * right, np.nan)))


def reliability(draws: Resamples, seeds: np.ndarray) -> np.ndarray:
    """Reliability of the mean of S training seeds, (R + 1,): Spearman and Brown on the mean correlation of their ranks.

    Args:
        draws: Of the n architectures.
        seeds: (n, S) values by training seed, S > 1.
    """
    S = seeds.shape[1]
    ranks = np.column_stack([shares(y) for y in seeds.T])
    between = draws.correlations(ranks, ranks)
    single = (between.sum((1, 2)) - S) / (S * (S - 1))
    return np.asarray(np.where(single > 0, S * single / (1.0 + (S - 1) * single), np.nan))


def percentiles(values: Vector, level: float, n: int, reason: str) -> Interval:
    """The first value with percentiles of the others; `reason` is why it is NaN, if it is."""
    estimate, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    if math.isnan(estimate):
        return Interval(nan, nan, nan, level, METHOD, n, reason)
    if n < 3 or drawn.size < 0.9 * (len(values) - 1):
        why = f"an interval needs 3 architectures, got {n}" if n < 3 else "undefined in more than a tenth of resamples"
        return Interval(estimate, nan, nan, level, METHOD, n, why)
    tail = (1.0 - checked_fraction(level, "level")) / 2.0
    low, high = (float(q) for q in np.quantile(drawn, [tail, 1.0 - tail]))
    return Interval(estimate, low, high, level, METHOD, n)


def shift(draws: Resamples, u: Vector, seeds: np.ndarray, steps: np.ndarray) -> Shift:
    """Regress scores on quality and one feature after the other, quality measured by two training seeds or more.

    The model is u = m(quality) + beta phi + noise, m a polynomial in the rank of a training. With B the powers and s, t
    two different seeds, beta = (C_phiu - C_phiB C_BB^-1 C_Bu) / (C_phiphi - C_phiB C_BB^-1 C_Bphi), where
    C_BB = E[B_s B_t']. With a noiseless truth this is least squares. What m misses biases beta only as far as a
    polynomial misses E[phi | quality] too. The degree is the highest of `DEGREES` about which the seeds agree; where
    they do not agree about a parabola nothing is said, since a straight line would find bias in truthful estimators.

    Args:
        draws: Of the n architectures.
        u: (n,) scores as shares of the ranking.
        seeds: (n, S) values by training seed, S > 1.
        steps: (n, features) in steps.
    """
    nothing = np.full((len(draws.counts) + 1, steps.shape[1]), np.nan)
    if u.size < FEWEST or np.isnan(draws.totals).any():
        return Shift(nothing, (f"{u.size} architectures are too few to tell bias from noise",) * steps.shape[1])
    basis, agreement = _quality(draws, seeds)
    if agreement is None:
        return Shift(nothing, ("training seeds agree too little to tell bias from noise",) * steps.shape[1])
    of_steps = draws.covariances(basis, steps)
    slopes = np.linalg.pinv(agreement, hermitian=True) @ of_steps
    beside = draws.variances(steps) - (slopes * of_steps).sum(1)
    with_scores = draws.covariances(u[:, None], np.hstack([basis, steps]))[:, 0]
    excess = with_scores[:, basis.shape[1] :] - (slopes * with_scores[:, : basis.shape[1], None]).sum(1)
    sure = beside[0] > np.maximum(SURE * beside[1:].std(0), 1e-9 * steps.var(0))
    values = np.divide(excess, beside, out=nothing, where=sure & (beside != 0))
    return Shift(values, tuple("" if s else "hardly varies among architectures of one quality" for s in sure))


def _quality(draws: Resamples, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Functions of the rank of a training, (n, p) means over seeds, and their covariances between seeds (R + 1, p, p).

    The functions are orthonormal within seeds, so that the least eigenvalue is the correlation of two trainings on what
    they agree least about. None for the covariances if that is not told apart from 0.
    """
    S = seeds.shape[1]
    ranks = np.stack([shares(y) for y in seeds.T], 1)
    for degree in DEGREES:
        powers = legvander(2.0 * ranks - 1.0, degree)[..., 1:]
        powers = powers - powers.mean(0)
        lengths, axes = np.linalg.eigh(np.einsum("nsp,nsq->pq", powers, powers) / ranks.size)
        there = lengths > 0.01 * lengths[-1]  # a few distinct values have no high powers
        basis = powers @ (axes[:, there] / np.sqrt(lengths[there]))
        total, p = basis.sum(1), int(there.sum())
        pairs = total[:, :, None] * total[:, None, :] - np.einsum("nsp,nsq->npq", basis, basis)
        mean = draws.means(total / S)
        products = draws.means(pairs.reshape(-1, p * p) / (S * (S - 1))).reshape(-1, p, p)
        agreement = products - mean[:, :, None] * mean[:, None, :]
        weakest = np.linalg.eigvalsh(agreement)[:, 0]
        if weakest[0] > SURE * weakest[1:].std():
            return total / S, agreement
    return total / S, None
