"""How well cheaper trainings order architectures, what deciding by them loses, and which estimators are worth a price.

All qualities are oriented, higher is better, and regrets are in units of the metric (fractions for accuracies).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ...protocols.evidence import Scores, Truth
from ..statistics.values import Vector, checked, midranks
from .kernels import tau_b
from .results import EstimatorAudit, FidelityPoint, Front
from .topk import order

POOL = 27
PROMOTED = 3
"""Of a pool of 27 a third goes on to the next rung: successive halving with eta = 3."""

POOLS = 1000

REGRET_AT = (1, 5, 10)

Indices = npt.NDArray[np.int64]


def fidelity_points(
    estimates: Sequence[Scores], truth: Truth, *, rng: np.random.Generator, others_only: bool = False, top: float = 0.1
) -> tuple[FidelityPoint, ...]:
    """Compare trainings at lower fidelities with full ones; every number is a mean over the columns of an estimate.

    A column of an estimate is a part of, or starts as, the full training that is recorded for an architecture in the
    place of its seed (modulo their number). Its noise is then in both: an earlier epoch of a training that came out
    well looks well too, which no search profits from that retrains what it picked. `others_only` compares with the
    mean of the *other* trainings of each architecture. Both are honest numbers of different things: all seeds flatter
    low fidelities that share noise; the other seeds are one training fewer and measure the truth less exactly. A point
    for the full fidelity, given as an estimate like the rest, shows how far a full training gets by the same measure.
    Architectures that do not have the truth needed, were not asked for or were fitted on are left out.

    Args:
        estimates: Those with an `axis` are used; rows are those of `truth`.
        truth: Test values, in either direction: it is turned by `higher_is_better`.
        rng: Draws one number, from which the pools of each column start afresh: points do not depend on each other,
            and those of as many architectures see the same pools.
        others_only: Compare each column with the mean of the other training seeds; else with that of all.
        top: Share of the true best within which crossings are counted.

    Returns:
        One point for each estimate with an axis, ordered by axis and value; NaN for what is undefined.

    Raises:
        ValueError: An infinite true value; `others_only` with one training seed; shapes that do not fit.
    """
    values = truth.values if truth.higher_is_better else -truth.values
    checked(np.where(np.isnan(values), 0.0, values), "truth", ndim=2)
    if others_only and values.shape[1] < 2:
        raise ValueError("others_only needs a second training seed, the truth has one")
    start = int(rng.integers(2**63))
    found = [_point(e, values, others_only, start, top) for e in estimates if e.axis is not None]
    return tuple(sorted(found, key=lambda p: (p.axis, p.value)))


def halving_totals(points: Sequence[FidelityPoint]) -> Mapping[str, float]:
    """Axis to the sum of the switch regrets of its points: what successive halving over these rungs would give up.

    Every rung is charged as if it chose among a fresh pool of 27, where the real one chooses among survivors. Leave
    out the full fidelity, which promotes nothing.
    """
    return {axis: sum(p.switch_regret for p in points if p.axis == axis) for axis in sorted({p.axis for p in points})}


def regret_at(e: Vector, f: Vector, k: int) -> float:
    """Best of all minus the best of the k that are predicted best, ties to the lower index.

    Args:
        e: (n,) scores; -inf ranks last.
        f: (n,) truth.
        k: At least 1; all architectures if there are fewer.
    """
    return float(f.max() - f[order(e)[:k]].max())


def crossing_rate(e: Vector, f: Vector, top: float) -> float:
    """Share of the pairs within the true best that the scores order the other way; a tie is half a crossing.

    Pairs of equal truth do not count. It is (1 - D) / 2 with Somers' D (1962) of the scores given the truth. As the
    best are chosen by measured values, noise of the truth alone brings it towards 1/2.

    Args:
        e: (n,) scores; -inf ranks last.
        f: (n,) truth.
        top: Share of the architectures, but at least two of them.

    Returns:
        In [0, 1]; NaN where all of the best are equally good.
    """
    best = order(f)[: max(2, round(top * f.size))]
    distinct_e, distinct_f = _distinct_pairs(e[best]), _distinct_pairs(f[best])
    if distinct_f == 0:
        return float("nan")
    agreement = tau_b(e[best], f[best]) * np.sqrt(distinct_e * distinct_f) if distinct_e else 0.0
    return float(1.0 - agreement / distinct_f) / 2.0


def draw_pools(n: int, pools: int, rng: np.random.Generator) -> Indices:
    """Uniform subsets of POOL of n architectures, of all of them if there are fewer: (pools, POOL).

    Floyd's sampling without replacement (Bentley 1987), all pools at once: no permutation of the whole space is drawn.
    """
    size = min(POOL, n)
    chosen = np.full((pools, size), -1, dtype=np.int64)
    for i, last in enumerate(range(n - size, n)):
        drawn = rng.integers(0, last + 1, pools)
        chosen[:, i] = np.where((chosen == drawn[:, None]).any(axis=1), last, drawn)
    return chosen


def switch_regret(e: Vector, f: Vector, pools: Indices) -> float:
    """Best of a pool minus the best of the third that the scores promote, mean over the pools.

    Args:
        e: (n,) scores; -inf ranks last, ties go to the lower index.
        f: (n,) truth.
        pools: (pools, size) indices into both.
    """
    place = np.empty(e.size, dtype=np.int64)
    place[order(e)] = np.arange(e.size)
    promoted = max(1, pools.shape[1] // PROMOTED)
    kept = np.take_along_axis(pools, np.argsort(place[pools], axis=1)[:, :promoted], axis=1)
    return float((f[pools].max(axis=1) - f[kept].max(axis=1)).mean())


def fronts(audits: Sequence[EstimatorAudit]) -> tuple[Front, ...]:
    """Non-dominated estimators by cost and tau-b, and by cost and regret@10.

    The cost is that of scoring the whole table once, in median full trainings: the preparation and N answers at their
    median price. Of two equally good estimators the cheaper is on the front; two that are equal in both are on it
    together.

    Args:
        audits: Of one table; `tops` holds k = 10 where the second front is wanted.

    Returns:
        The two fronts. An estimator whose cost or quality is unknown is not among `Front.names`; see `unplaced`.
    """
    tau = {a.name: a.correlations["tau_b"].estimate for a in audits}
    regret = {a.name: top.regret for a in audits for top in a.tops if top.k == max(REGRET_AT)}
    costs = {a.name: a.preparation + (a.n + a.left_out) * a.answer for a in audits}
    return _front("tau_b", costs, tau, 1.0), _front("regret_at_10", costs, regret, -1.0)


def unplaced(audits: Sequence[EstimatorAudit], front: Front) -> tuple[str, ...]:
    """Names of the estimators that a front leaves out, their cost or quality being unknown."""
    return tuple(a.name for a in audits if a.name not in front.names)


def _front(quality: str, costs: Mapping[str, float], values: Mapping[str, float], sign: float) -> Front:
    """`sign` is 1 where a higher value is better, -1 where a lower one is."""
    known = tuple(n for n in values if np.isfinite(costs[n]) and np.isfinite(values[n]))
    points = {n: (costs[n], -sign * values[n]) for n in known}
    best = [n for n, p in points.items() if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points.values())]
    best.sort(key=lambda n: costs[n])
    return Front(quality, known, tuple(costs[n] for n in known), tuple(values[n] for n in known), tuple(best))


def _point(estimate: Scores, values: Vector, others_only: bool, start: int, top: float) -> FidelityPoint:
    assert estimate.axis is not None
    if estimate.values.shape[0] != values.shape[0]:
        raise ValueError(f"{estimate.name} has {estimate.values.shape[0]} rows, the truth {values.shape[0]}")
    seeds = estimate.seeds or range(estimate.values.shape[1])
    columns = [
        _column(e, _target(values, seed, others_only), estimate.asked & ~estimate.fitted[:, k], start, top)
        for k, (e, seed) in enumerate(zip(estimate.values.T, seeds, strict=True))
    ]
    tau, spearman, crossing, switch, *regrets = (float(v) for v in np.mean(columns, axis=0))
    answers = np.empty(0) if estimate.costs is None else estimate.costs[estimate.asked]
    return FidelityPoint(
        name=estimate.name,
        axis=estimate.axis[0],
        value=estimate.axis[1],
        cost=float(np.median(answers)) / estimate.full if answers.size else float("nan"),
        tau_b=tau,
        spearman=spearman,
        disorder=(1.0 - tau) / 2.0,
        crossing=crossing,
        regret_at=dict(zip(REGRET_AT, regrets, strict=True)),
        switch_regret=switch,
        others_only=others_only,
    )


def _target(values: Vector, k: int, others_only: bool) -> Vector:
    """Mean over the training seeds of each architecture, NaN without any; or over all but its k-th recorded one."""
    present = ~np.isnan(values)
    if others_only:
        recorded = np.argsort(~present, axis=1, kind="stable")
        rows = np.arange(len(values))
        present[rows, recorded[rows, k % np.maximum(present.sum(axis=1), 1)]] = False
    n = present.sum(axis=1)
    total = np.where(present, values, 0.0).sum(axis=1)
    mean: Vector = np.divide(total, n, out=np.full(len(values), np.nan), where=n > 0)
    return mean


def _column(e: Vector, f: Vector, use: npt.NDArray[np.bool_], start: int, top: float) -> list[float]:
    keep = use & ~np.isnan(f)
    if keep.sum() < 3:
        return [float("nan")] * (4 + len(REGRET_AT))
    e, f = np.where(np.isnan(e), -np.inf, e)[keep], f[keep]
    pools = draw_pools(e.size, POOLS, np.random.default_rng(start))
    return [
        tau_b(e, f),
        _spearman(e, f),
        crossing_rate(e, f, top),
        switch_regret(e, f, pools),
        *(regret_at(e, f, k) for k in REGRET_AT),
    ]


def _distinct_pairs(x: Vector) -> float:
    _, sizes = midranks(x)
    return float(x.size * (x.size - 1) - (sizes * (sizes - 1)).sum()) / 2.0


def _spearman(x: Vector, y: Vector) -> float:
    a, b = (midranks(v)[0] - (v.size + 1) / 2.0 for v in (x, y))
    scale = np.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else float("nan")
