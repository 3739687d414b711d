"""The audit of estimators: the truth and their scores in, everything that is to be said out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np
import numpy.typing as npt

from ...protocols.evidence import Scores, Truth
from ..statistics import Estimate, Interval
from ..statistics.values import Vector
from . import verdicts
from .bias import beyond, biases
from .calibration import calibration
from .ceiling import attainable
from .correlation import SPARSE_WIDTH, Draws, draw, interval_correlations, tie_fraction
from .fidelity import fidelity_points, fronts
from .leaks import above_ceiling, shared_flags, shared_noise, sign_flag, significant
from .results import Decision, EstimatorAudit, Factorial, Flag, NoisePoint, Settings, TableAudit, Top
from .top_ceiling import top_attainable
from .topk import tau_within, tops

Progress = Callable[[float, float], None]
Mask = npt.NDArray[np.bool_]

FEWEST = 3
FOR_ERRORS = 200
"""Resamples behind the standard errors of biases: these need fewer than limits do, and are the dearest part."""

ORDER = ("fault", "warning", "finding")


@dataclass(frozen=True, slots=True)
class World:
    """What all estimators of a table are held against.

    Attributes:
        truth: Architectures of finite quality alone.
        values: (N, S) oriented, higher is better.
        f: (N,) their means over the seeds that are there.
        draws: The resamples that all estimators share.
    """

    truth: Truth
    values: Vector
    f: Vector
    draws: Draws


def audit_table(
    truth: Truth,
    scores: Sequence[Scores],
    settings: Settings,
    *,
    decisions: Mapping[str, Decision] | None = None,
    noise: Sequence[NoisePoint] = (),
    factorial: Factorial | None = None,
    progress: Progress | None = None,
) -> TableAudit:
    """Audit every estimator on one table.

    Args:
        truth: What the architectures are worth; those without a finite quality are left out, and counted.
        scores: Of every estimator, baselines among them; row by row as the truth.
        settings: How to compute.
        decisions: By estimator's name, from `decision.decision`.
        noise: From `decision.noise_curve`.
        factorial: From `decision.factorial`.
        progress: Called with (estimators done, all).

    Raises:
        ValueError: Fewer than three architectures have a finite quality, or were scored by an estimator.
    """
    values = truth.values if truth.higher_is_better else -truth.values
    sound = ~np.isinf(values).any(1) & ~np.isnan(values).all(1)
    if sound.sum() < FEWEST:
        raise ValueError(f"table: {truth.table} has {int(sound.sum())} architectures of finite quality; 3 are needed")
    kept = _kept(truth, sound)
    rng = np.random.default_rng(settings.seed)
    f = np.nanmean(values[sound], axis=1)
    width = SPARSE_WIDTH if truth.metric == "accuracy" else 0.01 * float(f.std())
    draws = draw(values[sound], complete=truth.complete, resamples=settings.resamples, rng=rng, width=width)
    world = World(kept, values[sound], f, draws)
    own, found = [_rows(s, sound) for s in scores], []
    for i, s in enumerate(own):
        if progress:
            progress(i, len(own))
        found.append(_estimator(world, s, settings, (decisions or {}).get(s.name)))
    if progress:
        progress(len(own), len(own))
    audited = _judged(found, settings)
    several = world.values.shape[1] > 1
    fidelities = fidelity_points(own, kept, rng=np.random.default_rng(settings.seed), others_only=several)
    lost = int((~sound).sum())
    return TableAudit(
        truth.table, truth.digest, truth.space, truth.pipeline, truth.metric, truth.complete, len(world.f), truth.size,
        world.values.shape[1], lost, tuple(audited), fidelities, fronts(audited), tuple(noise), factorial,
        tuple(_warnings(world, audited, lost)), {s.name: np.stack([s.values[:, 0], world.f], 1) for s in own},
    )  # fmt: skip


def _kept(truth: Truth, rows: Mask) -> Truth:
    return replace(
        truth,
        architectures=tuple(a for a, there in zip(truth.architectures, rows, strict=True) if there),
        values=truth.values[rows],
        cost=truth.cost[rows],
        features=_distinct({name: values[rows] for name, values in truth.features.items()}),
    )


def _distinct(features: Mapping[str, Vector]) -> dict[str, Vector]:
    """Features that order the architectures alike are one, named by all: "params = flops"."""
    orders: dict[bytes, list[str]] = {}
    for name, values in features.items():
        orders.setdefault(np.unique(values, return_inverse=True)[1].astype(np.int64).tobytes(), []).append(name)
    return {" = ".join(names): features[names[0]] for names in orders.values()}


def _rows(s: Scores, rows: Mask) -> Scores:
    costs = None if s.costs is None else s.costs[rows]
    return replace(s, values=s.values[rows], asked=s.asked[rows], fitted=s.fitted[rows], costs=costs)


def _estimator(world: World, s: Scores, settings: Settings, decision: Decision | None) -> EstimatorAudit:
    use = s.asked[:, None] & ~s.fitted
    if use.sum(0).min() < FEWEST:
        raise ValueError(f"{s.name}: has {int(use.sum(0).min())} architectures to audit; 3 are needed")
    ranked = np.where(np.isnan(s.values), -np.inf, s.values)  # no score: a search would never choose it
    counts, level = world.draws.counts, settings.level
    rng = np.random.default_rng(settings.seed)
    scale = s.traits.accuracy_scale and world.truth.metric == "accuracy"
    # Scores for a part of a whole space are a sample, whatever the table is.
    draws = world.draws if s.asked.all() else replace(world.draws, complete=False)
    correlations = interval_correlations(ranked, use, world.values, draws, accuracy_scale=scale, rng=rng, level=level)
    masked = np.where(use, ranked, np.nan)
    everywhere = use.any(1)
    shared = _shared(masked, world.values)
    tau = tau_b_within(ranked, use, world.f, settings.top)
    bias = biases(
        ranked, use, world.values, world.truth.features, counts[:FOR_ERRORS], level=level, alpha=settings.alpha,
        shared=shared if max(shared) >= 0 else (),
    )  # fmt: skip
    answer = nan if s.costs is None else float(np.median(s.costs[everywhere])) / s.full
    return EstimatorAudit(
        s.name, world.truth.table, s.source, s.traits.accuracy_scale, s.traits.deterministic, s.traits.sign, s.baseline,
        n=int(everywhere.sum()),
        unscored=float(np.mean((use & np.isnan(s.values)).sum(0))),
        left_out=int((~s.asked).sum()),
        fitted=float(s.fitted.sum(0).mean()),
        seeds=s.values.shape[1],
        ties=float(np.mean([tie_fraction(ranked[rows, k]) for k, rows in enumerate(use.T)])),
        correlations=correlations,
        attainable=attainable(correlations, world.values, masked),
        top_attainable=top_attainable(masked, world.values, settings.top, counts, level=level, accuracy_scale=scale),
        tau_top_predicted=tau,
        tops=_tops(ranked, use, world.f),
        beyond_params=_beyond(world, ranked, use, "params", settings),
        beyond_flops=_beyond(world, ranked, use, "flops", settings),
        biases=bias,
        calibration=calibration(ranked, use, world.values, counts=counts, level=level) if scale else None,
        leaks=_noise(masked, world),
        answer=answer,
        preparation=float(s.preparation.mean()) / s.full,
        decision=decision,
        flags=tuple(_own_flags(s, masked, shared, correlations["tau_b"], world)),
        verdicts=(),
    )  # fmt: skip


def _shared(columns: Vector, values: Vector) -> list[int]:
    """For each column the training seed whose noise it certainly shares, or -1."""
    found = []
    for k in range(columns.shape[1]):
        noise = shared_noise(columns[:, k : k + 1], values)
        certain = {s: e for s, e in noise.items() if e.value > 0 and significant(e, len(noise) * columns.shape[1])}
        found.append(max(certain, key=lambda s: certain[s].value) if certain else -1)
    return found


def _noise(columns: Vector, world: World) -> dict[int, Estimate]:
    """Association with the noise of each training seed, of the column where it is largest."""
    parts = [shared_noise(columns[:, k : k + 1], world.values) for k in range(columns.shape[1])]
    return {
        world.truth.seeds[s]: max((p[s] for p in parts), key=lambda e: -np.inf if isnan(e.value) else e.value)
        for s in parts[0]
    }


def tau_b_within(scores: Vector, use: Mask, f: Vector, share: float) -> Interval:
    """tau-b among the predicted best, mean over columns; without an interval, since the choice is the estimator's."""
    found = [tau_within(scores[rows, k], f[rows], share, by="prediction") for k, rows in enumerate(use.T)]
    value = float(np.mean([e.value for e in found]))
    reason = next((e.reason for e in found if e.reason), "")
    return Interval(value, nan, nan, nan, "none", min(e.n for e in found), reason)


def _tops(scores: Vector, use: Mask, f: Vector) -> tuple[Top, ...]:
    """Top-k metrics, means over columns; sizes are those of the column with the fewest rows."""
    rows = [np.flatnonzero(u) for u in use.T]
    fewest = min(rows, key=len)
    ks = sorted({*(t.k for t in tops(scores[fewest, 0], f[fewest])), min(10, len(fewest))})
    columns = [tops(scores[r, k], f[r], ks) for k, r in enumerate(rows)]
    names = ("share", "p_top", "p_bottom", "best_rank", "worst_rank", "n_at", "regret")
    found = []
    for same in zip(*columns, strict=True):
        means = {n: float(np.mean([getattr(t, n) for t in same])) for n in names}
        random = {n: float(np.mean([t.random[n] for t in same])) for n in same[0].random}
        found.append(replace(same[0], **means, random=random))
    return tuple(found)


def _beyond(world: World, scores: Vector, use: Mask, feature: str, settings: Settings) -> Interval:
    """Partial rank correlation given a size, of the first column."""
    named = [phi for name, phi in world.truth.features.items() if feature in name.split(" = ")]
    if not named:
        return Interval(nan, nan, nan, settings.level, "architectures", 0, f"the space counts no {feature}")
    rows = use[:, 0]
    phi = named[0][rows]
    return beyond(scores[rows, 0], world.f[rows], phi, world.draws.counts[:, rows], level=settings.level)


def _own_flags(s: Scores, masked: Vector, shared: Sequence[int], tau: Interval, world: World) -> list[Flag]:
    """What is wrong with the scores themselves."""
    flags = [f for f in [sign_flag(tau, s.traits.sign)] if f is not None]
    flags += above_ceiling(masked, world.values)
    sharing = [k for k, seed in enumerate(shared) if seed >= 0]
    if sharing:
        [flag] = shared_flags(masked[:, sharing[:1]], world.values)
        flags.append(flag if len(shared) == 1 else replace(
            flag, sentence=f"{flag.sentence}; so do {len(sharing)} of its {len(shared)} seeds"))  # fmt: skip
    return flags


def _judged(found: Sequence[EstimatorAudit], settings: Settings) -> list[EstimatorAudit]:
    """The best first, with what can be said only beside the baselines, and in words."""
    free = [(e.name, e.correlations["tau_b"].estimate) for e in found if e.baseline]
    ordered = sorted(found, key=lambda e: (isnan(t := e.correlations["tau_b"].estimate), -t))
    return [_said(e, free, settings) for e in ordered]


def _said(e: EstimatorAudit, free: Sequence[tuple[str, float]], settings: Settings) -> EstimatorAudit:
    tau = e.correlations["tau_b"]
    flags: list[Flag | None] = [*e.flags, *([] if e.baseline else verdicts.leaning(e.biases))]
    wrong = any(f.kind == "sign" for f in e.flags)
    if not e.baseline and not wrong:
        flags += [verdicts.beyond_baseline(e.beyond_params, e.beyond_flops, tau, free)]
        flags += [verdicts.flat_top(e.top_attainable.get("tau_b"), settings.top)]
    flags += [verdicts.unranked(e.unscored, e.n)]
    kept = tuple(sorted((f for f in flags if f is not None), key=lambda f: ORDER.index(f.severity)))
    lines = [verdicts.headline(e.name, e.attainable.get("tau_b"), tau, e.top_attainable.get("tau_b"))]
    lines += [f"{f.sentence[0].upper()}{f.sentence[1:]}." for f in kept]
    if e.decision is not None:
        lines += verdicts.cost_of_decisions(e.decision)
    return replace(e, flags=kept, verdicts=tuple(lines))


def _warnings(world: World, audited: Sequence[EstimatorAudit], lost: int) -> list[str]:
    """What limits all numbers of the table."""
    truth, said = world.truth, []
    if not truth.complete:
        said.append(f"the {len(world.f)} architectures are a sample of {truth.size}: intervals are over architectures")
    if world.values.shape[1] == 1:
        said.append("one training seed: ceilings are unknown, and biases cannot be told from noise")
    if lost:
        said.append(f"{lost} architectures have no finite quality and are left out")
    if partly := [e for e in audited if e.left_out]:
        names = ", ".join(f"{e.name} ({e.n})" for e in partly)
        said.append(f"not asked for all of the {len(world.f)} architectures: {names}")
    return said
