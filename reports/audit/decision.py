"""What an estimate costs a search: the swap-estimator counterfactual.

One strategy searches from the same seeds with the estimate and with the truth. The regret that the estimate adds is
split in two: *selection*, the best of what was visited was not picked, and *guidance*, the search went to worse places.
The first is mended by training a few of the best visited, the second is not.

Intervals are over searches, paired by seed: they speak about further searches with these columns of the estimator, and
where it has fewer seeds than there are searches, not about further seeds of the estimator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...protocols.evidence import Searches, Trails
from ..statistics import Interval, difference_interval, mean_interval, normalised_regret
from ..statistics.values import Vector, checked
from .kernels import tau_b
from .results import Decision, Factorial, NoisePoint, Settings

TRAINED = (5, 10)
FLIPS = 9_999
CORRELATED = 10
"""Columns of noise whose tau-b is averaged: with as many it is known to three digits."""


@dataclass(frozen=True, slots=True)
class Regrets:
    """Normalised regrets of the three arms, (S,) each, search by search; all NaN where the scale is undefined.

    Attributes:
        ee: Search and pick with the estimate; where nothing visited has a score, the first is picked.
        eo: The same search, the best visited is picked.
        oo: Search and pick with the truth.
        reason: Why they are undefined, else empty.
    """

    ee: Vector
    eo: Vector
    oo: Vector
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Paid:
    """A search with the estimate and k trainings, against the oracle's search at the same cost.

    Attributes:
        k: Best visited architectures that are trained, the best of them being picked; 0 picks with the estimate.
        regret: Mean normalised regret.
        cost: Mean over searches of preparation, answers and trainings, in median full trainings; NaN if unknown.
        oo_decisions: Mean number of evaluations that the oracle's searches could afford, at least one.
        gain: Regret minus the oracle's at the same cost; negative: the estimate is worth its cost. None if unknown.
    """

    k: int
    regret: Interval
    cost: float
    oo_decisions: float
    gain: Interval | None


def decision(
    searches: Searches, strategy: str, estimator: str, settings: Settings, *, ks: Sequence[int] = TRAINED
) -> Decision:
    """The audit of one estimator's decisions under one strategy.

    Args:
        searches: With these labels.
        strategy: Label.
        estimator: Label.
        settings: Of the intervals.
        ks: How many of the best visited to train.

    Raises:
        ValueError: NaN in the truth, or a search that visited nothing.
    """
    r = regrets(searches, strategy, estimator)
    alone = paid(searches, strategy, estimator, settings, 0)
    trained = {k: paid(searches, strategy, estimator, settings, k) for k in ks}
    return Decision(
        strategy,
        searches.decisions,
        len(r.ee),
        ee=_mean(r.ee, settings, r.reason),
        eo=_mean(r.eo, settings, r.reason),
        oo=_mean(r.oo, settings, r.reason),
        total=_difference(r.ee, r.oo, settings, r.reason),
        selection=_difference(r.ee, r.eo, settings, r.reason),
        guidance=_difference(r.eo, r.oo, settings, r.reason),
        top_k={k: p.regret for k, p in trained.items()},
        top_k_gain={k: p.gain for k, p in trained.items() if p.gain is not None},
        equal_cost=alone.gain,
        oo_decisions=alone.oo_decisions,
    )


def regrets(searches: Searches, strategy: str, estimator: str) -> Regrets:
    """Regrets of the three arms; errors as for `decision`."""
    nr, reason = _scale(searches.truth)
    trails, oracle = searches.trails[strategy, estimator], searches.oracle[strategy]
    picked = np.array([rows[0] for rows in _ranked(searches, trails, estimator)])
    return Regrets(
        nr[picked],
        _best_so_far(nr, trails.rows)[:, -1],
        _best_so_far(nr, oracle.rows[:, : searches.decisions])[:, -1],
        reason,
    )


def paid(searches: Searches, strategy: str, estimator: str, settings: Settings, k: int) -> Paid:
    """What a search with the estimate and k trainings costs and finds; errors as for `decision`.

    The oracle gets the longest beginning of its search that costs no more; a first evaluation is given to it whatever
    it costs, and the interval's reason counts how often.
    """
    nr, undefined = _scale(searches.truth)
    trails, oracle = searches.trails[strategy, estimator], searches.oracle[strategy]
    chosen = [rows[: max(k, 1)] for rows in _ranked(searches, trails, estimator)]
    found = np.array([nr[rows].min() for rows in chosen])
    regret = _mean(found, settings, undefined)
    spent = trails.preparation + trails.costs.sum(1) + [searches.training[rows[:k]].sum() for rows in chosen]
    if np.isnan(spent).any():
        return Paid(k, regret, float("nan"), float("nan"), None)
    bill = np.cumsum(oracle.costs, axis=1)
    # Sums of the same costs in another order differ in the last digits.
    affordable = (oracle.rows >= 0) & (bill <= spent[:, None] * (1.0 + 1e-9))
    decisions = np.maximum(affordable.sum(1), 1)
    against = _best_so_far(nr, oracle.rows)[np.arange(len(spent)), decisions - 1]
    gain = _difference(found, against, settings, undefined)
    counts = (~affordable[:, 0]).sum(), (spent > bill[:, -1] + searches.training.max()).sum()
    gain = replace(gain, reason="; ".join(filter(None, [gain.reason, *_unequal(counts, len(spent))])))
    return Paid(k, regret, float(spent.mean()), float(decisions.mean()), gain)


def noise_curve(
    searches: Searches, strategy: str, levels: Mapping[float, str], settings: Settings
) -> tuple[NoisePoint, ...]:
    """Regret of searches with the truth plus noise, beside the tau-b of the noisy scores.

    Args:
        searches: With such estimators, see `harness.swap.noisy`.
        strategy: Label.
        levels: Deviation of the noise, in deviations of the truth, to the estimator's label.
        settings: Of the intervals.
    """
    points = []
    for sd, label in sorted(levels.items()):
        columns = searches.scores[label][:, :CORRELATED].T
        tau = float(np.mean([tau_b(column, searches.truth) for column in columns]))
        r = regrets(searches, strategy, label)
        points.append(NoisePoint(sd, tau, _mean(r.ee, settings, r.reason)))
    return tuple(points)


def factorial(searches: Searches, estimators: Sequence[str], settings: Settings) -> Factorial:
    """Every strategy with every estimator: which of the two decides, and whether they interact.

    The cell means are split into effects of strategies, of estimators and their interaction, on the scale of the
    regrets. The p-value flips the sign of all interactions of a seed together (9,999 times), which keeps whatever cells
    of one seed have in common; its statistic is the sum of squares of the mean interactions. Exchanging seeds within a
    cell would leave every mean as it is, and exchanging cells would assume that they are equally noisy.

    Args:
        searches: Of several strategies.
        estimators: Labels of those to cross.
        settings: Its seed is that of the flips.

    Returns:
        Shares are NaN where all cells are equal; p is NaN for a single strategy, estimator or search.
    """
    strategies = tuple(searches.oracle)
    cells = np.array([[regrets(searches, s, e).ee for e in estimators] for s in strategies])
    inner = cells - cells.mean(1, keepdims=True) - cells.mean(0, keepdims=True) + cells.mean((0, 1), keepdims=True)
    means, interaction = cells.mean(2), inner.mean(2)
    rows, columns = means.mean(1) - means.mean(), means.mean(0) - means.mean()
    parts = {
        "strategies": len(estimators) * float(rows @ rows),
        "estimators": len(strategies) * float(columns @ columns),
        "interaction": float((interaction**2).sum()),
    }
    total = sum(parts.values())
    p = float("nan")
    if min(cells.shape) > 1 and not np.isnan(cells).any():
        p = _flipped(inner.reshape(-1, cells.shape[2]), np.random.default_rng(settings.seed))
    return Factorial(
        strategies,
        tuple(estimators),
        tuple(tuple(line) for line in means.tolist()),
        tuple(tuple(line) for line in interaction.tolist()),
        {name: part / total if np.ptp(means) > 0 else float("nan") for name, part in parts.items()},
        p,
    )


def _flipped(inner: Vector, rng: np.random.Generator) -> float:
    """P-value of a zero mean of (cells, S) by flipping the signs of columns."""
    inner = inner.round(12)  # no interaction at all leaves rounding errors, which would be tested
    signs = rng.choice([-1.0, 1.0], (FLIPS, inner.shape[1]))
    statistic = (inner.sum(1) ** 2).sum()
    extreme = ((signs @ inner.T) ** 2).sum(1) >= statistic * (1.0 - 1e-9)
    return float((1 + extreme.sum()) / (1 + FLIPS))


def _scale(truth: Vector) -> tuple[Vector, str]:
    """The normalised regret of every architecture, or NaN and the reason."""
    f = checked(truth, "truth", finite=False)
    best, median = float(f.max()), float(np.median(f))
    if np.isinf(median) or not best > median:
        return np.full(f.shape, np.nan), f"normalised regret is undefined: best {best:g}, median {median:g}"
    return normalised_regret(f, best, median), ""


def _ranked(searches: Searches, trails: Trails, estimator: str) -> list[npt.NDArray[np.int64]]:
    """What each search visited, once each: the best estimate first, ties in order of visit, the unscored last."""
    if (trails.rows[:, 0] < 0).any():
        raise ValueError(f"searches with {estimator}: search {int(np.argmin(trails.rows[:, 0]))} visited nothing")
    scores = searches.scores[estimator]
    ranked = []
    for rows, column in zip(trails.rows, trails.columns, strict=True):
        _, first = np.unique(rows[rows >= 0], return_index=True)
        visited = rows[np.sort(first)]
        seen = scores[visited, column]
        ranked.append(visited[np.argsort(-np.where(np.isfinite(seen), seen, -np.inf), kind="stable")])
    return ranked


def _best_so_far(nr: Vector, rows: npt.NDArray[np.int64]) -> Vector:
    """(S, D) least regret among the first visits."""
    return np.minimum.accumulate(np.where(rows >= 0, nr[rows], np.inf), axis=1)


def _unequal(counts: tuple[int, int], searches: int) -> list[str]:
    cheap, dear = counts
    said = []
    if cheap:
        said.append(
            f"{cheap} of {searches} searches cost less than the first training of the oracle, which had it all the same"
        )
    if dear:
        said.append(f"{dear} of {searches} searches cost more than the oracle's whole search")
    return said


def _mean(x: Vector, settings: Settings, undefined: str) -> Interval:
    if undefined:
        nan = float("nan")
        return Interval(nan, nan, nan, settings.level, "undefined", len(x), undefined)
    rng = np.random.default_rng(settings.seed)
    return mean_interval([x], resamples=settings.resamples, rng=rng, level=settings.level)


def _difference(x: Vector, y: Vector, settings: Settings, undefined: str) -> Interval:
    if undefined:
        return _mean(x, settings, undefined)
    rng = np.random.default_rng(settings.seed)
    return difference_interval([x], [y], paired=True, resamples=settings.resamples, rng=rng, level=settings.level)
