"""A fair comparison: from tidy frames to every number of the report (STATS 1).

Each interval starts a fresh generator from the same seed, so no number depends on which others were computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ..protocols import COST_KINDS
from . import curves
from .curves import Trajectory
from .frame import Method, StudyData, TableFacts
from .results import Comparison, Metric, Pair, RunScore, Settings, Summary, TableTest, Target
from .statistics import (
    Estimate,
    Interval,
    anytime_area,
    bootstrap_statistic,
    cliques,
    difference_interval,
    ert,
    fail_rate,
    friedman,
    holm,
    iqm,
    mean_interval,
    min_tables,
    nemenyi_cd,
    normalised_regret,
    pairing_correlation,
    runtime_to_target,
    theta_interval,
    van_elteren,
    verdict,
    wilcoxon_holm,
)
from .statistics.values import Vector
from .warn import warnings_of

TARGETS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
LEVEL = 0.95
LATE = 0.1
"""`late_area` runs from this share of the budget to all of it."""

ROPE_REGRET = 0.01
ROPE_TEST = 0.001
ROPE_SHARE = 0.01

Samples = dict[str, list[Vector]]
"""For each method, for each table, values by seed."""


def compare(
    data: StudyData, *, resamples: int = 10_000, seed: int = 0, rope: float | None = None, alpha: float = 0.05
) -> Comparison:
    """Compare all methods of a study with random search and with each other.

    Args:
        data: From `frame.load`.
        resamples: Of each bootstrap interval: 2 000 for text, 10 000 for the tables of a paper.
        seed: Of the bootstrap.
        rope: Half-width of the region of practical equivalence; default 0.01 normalised regret, or without a table
            0.001 of the test metric.
        alpha: Level of the Holm-adjusted tests.

    Raises:
        ValueError: No random search in the study, or none of its runs on some table is finished; a bad `rope`,
            `alpha` or `resamples`.
    """
    _check(resamples, rope, alpha)
    baseline = _baseline(data.methods)
    settings = Settings(resamples, seed, alpha, LEVEL, TARGETS if data.tabular else (), not _redraws(data))
    metrics = _metrics(data, rope)
    tracks = _trajectories(data)
    runs = _scores(data, tracks)
    present = {(r.method, r.table) for r in runs}
    compared = tuple(m.label for m in data.methods if all((m.label, p) in present for p in data.places))
    if baseline not in compared:
        raise ValueError(f"baseline {baseline!r} has no finished run on some table: nothing can be compared with it")
    summaries = tuple(
        _summary(data, runs, tracks, metrics, settings, method.label, place)
        for method in data.methods
        for place in (None, *data.places)
    )
    pairs = tuple(p for m in metrics for p in _pairs(runs, m, compared, baseline, data.places, settings))
    return Comparison(
        study=str(data.study["name"]),
        digest=str(data.study["digest"]),
        baseline=baseline,
        methods=tuple(m.label for m in data.methods),
        compared=compared,
        places=data.places,
        tables=data.tables,
        unit=data.tables[0].clock if data.tables else _unit(data),
        metrics=metrics,
        settings=settings,
        runs=runs,
        summaries=summaries,
        pairs=pairs,
        table_test=_table_test(runs, metrics[0], compared, data.places, alpha),
        **_curves(data, runs, tracks, compared, settings),
        absent=data.absent,
        warnings=warnings_of(data, runs, metrics, pairs, compared),
    )


def _check(resamples: int, rope: float | None, alpha: float) -> None:
    if resamples < 100:
        raise ValueError(f"resamples: {resamples} is too few, need at least 100")
    if rope is not None and not rope >= 0:
        raise ValueError(f"rope: {rope} is not allowed, need a number >= 0")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: {alpha} is not allowed, need a number strictly between 0 and 1")


def _baseline(methods: Sequence[Method]) -> str:
    for method in methods:
        if "random" in (method.name, method.strategy):
            return method.label
    have = ", ".join(m.label for m in methods)
    raise ValueError(f"strategies: random search is missing (have: {have}); a comparison without it is not reported")


def _redraws(data: StudyData) -> bool:
    return bool(data.study["spec"].get("options", {}).get("redraw"))


def _unit(data: StudyData) -> str:
    budget = data.study["spec"].get("budget")
    return str(budget.get("unit", "epochs")) if isinstance(budget, Mapping) else "epochs"


def _metrics(data: StudyData, rope: float | None) -> tuple[Metric, ...]:
    if not data.tabular:
        task = data.study.get("task") or {"metric": "accuracy", "higher_is_better": True}
        if task["metric"] == "accuracy":
            width = ROPE_TEST if rope is None else rope
            return (Metric("test", "Test score", "test score", "score", False, width, 100.0),)
        if rope is None:  # of a metric of any scale: relative to what was measured
            rope = ROPE_SHARE * float(np.median([v for values in data.runs["retrained"] for v in values]))
        name = task["metric"]
        return (Metric("test", f"Test {name}", f"test {name}", name, not task["higher_is_better"], rope),)
    width = ROPE_REGRET if rope is None else rope
    return (
        Metric("regret_final", "Final regret", "final test regret", "normalised regret", True, width),
        Metric("late_area", "Late area", "late area", "normalised regret", True, width),
    )


def _trajectories(data: StudyData) -> dict[str, Trajectory]:
    """Each run's steps; values are normalised regrets, or without a table the scores seen."""
    facts = {t.name: t for t in data.tables}
    column = "score_test" if data.tabular else "score_seen"
    found = {}
    for key, rows in data.incumbents.groupby("run_id", sort=False):
        cost = rows["cum_cost"].to_numpy(float) / rows["budget"].to_numpy(float)
        value = rows[column].to_numpy(float)
        table = facts.get(rows["table"].iloc[0])
        if table:
            value = normalised_regret(table.sign * value, table.sign * table.best, table.sign * table.median)
        found[str(key)] = Trajectory(cost, value)
    nothing = Trajectory(np.empty(0), np.empty(0))
    return {key: found.get(key, nothing) for key in data.runs["run_id"]}


def _scores(data: StudyData, tracks: Mapping[str, Trajectory]) -> tuple[RunScore, ...]:
    facts = {t.name: t for t in data.tables}
    scores = []
    for row in data.runs.to_dict("records"):
        table = facts.get(row["table"])
        values, test = _tabular(row, table, tracks[row["run_id"]]) if table else _trained(row)
        scores.append(
            RunScore(row["run_id"], row["method"], row["table"], row["seed"], values, test, row["params"], row["flops"])
        )
    return tuple(scores)


def _tabular(row: Mapping[Any, Any], table: TableFacts, track: Trajectory) -> tuple[dict[str, float], float]:
    """A run without any incumbent has normalised regret 1, and the raw regret that corresponds to it."""
    final = float(track.value[-1]) if track.value.size else 1.0
    raw = table.sign * (table.best - row["score_test"]) if track.value.size else table.scale
    late = anytime_area(track.cost, track.value, LATE, 1.0)
    return {"regret_final": final, "late_area": late, "regret": raw}, row["score_test"]


def _trained(row: Mapping[Any, Any]) -> tuple[dict[str, float], float]:
    if not row["retrained"]:
        raise ValueError(
            f"run {row['run_id']}: no table and no retrained incumbent, so there is no test score to report"
        )
    test = float(np.mean(row["retrained"]))
    return {"test": test}, test


def _samples(runs: Sequence[RunScore], name: str, methods: Sequence[str], places: Sequence[str]) -> Samples:
    return {
        m: [np.array([r.values[name] for r in runs if (r.method, r.table) == (m, p)]) for p in places] for m in methods
    }


def _summary(
    data: StudyData,
    runs: Sequence[RunScore],
    tracks: Mapping[str, Trajectory],
    metrics: Sequence[Metric],
    settings: Settings,
    method: str,
    place: str | None,
) -> Summary:
    places = data.places if place is None else (place,)
    mine = [r for r in runs if r.method == method and r.table in places]
    absent = sum(a.method == method and a.table in places for a in data.absent)
    rows = data.runs[data.runs["run_id"].isin([r.key for r in mine])]
    complete = {r.table for r in mine} == set(places)
    names = [m.name for m in metrics] + (["regret"] if data.tabular else [])
    samples = {name: _samples(mine, name, [method], places)[method] for name in names} if complete else {}
    first = samples.get(metrics[0].name)
    spent = rows[[f"cost_{kind}" for kind in COST_KINDS]].sum()
    total = float(spent.sum())
    budgets = rows["table"].map({t.name: t.budget for t in data.tables}).astype(float) if data.tabular else None
    return Summary(
        method=method,
        table=place,
        planned=len(mine) + absent,
        runs=tuple(r.key for r in mine),
        seeds=min((sum(r.table == p for r in mine) for p in places), default=0),
        scores={name: _mean(values, settings) for name, values in samples.items()},
        iqm=_iqm(first, settings) if first else None,
        fail_rate=float(np.mean([fail_rate(x) for x in first])) if first and data.tabular else float("nan"),
        targets=tuple(_target([tracks[r.key] for r in mine], t) for t in settings.targets) if mine else (),
        spent=float((rows["total_cost"] / budgets).median()) if budgets is not None else float("nan"),
        costs={k: float(spent[f"cost_{k}"]) / total for k in COST_KINDS if spent[f"cost_{k}"] > 0},
        evaluations=float(rows["evaluations"].median()),
        diversity=float(rows["diversity"].median()),
        unusable=int(rows["unusable"].sum()),
        test=_median(pd.Series([r.test for r in mine], dtype=float)),
        params=_median(rows["params"]),
        flops=_median(rows["flops"]),
    )


def _median(values: pd.Series[float]) -> float:
    return float(values.median())


def _mean(tables: Sequence[Vector], settings: Settings) -> Interval:
    rng = np.random.default_rng(settings.seed)
    return mean_interval(tables, resamples=settings.resamples, rng=rng, level=settings.level)


def _iqm(tables: Sequence[Vector], settings: Settings) -> Interval:
    def pooled(drawn: Sequence[Vector]) -> float:
        return iqm(np.concatenate(drawn))

    n = min(x.size for x in tables)
    if n < 5:
        nan = float("nan")
        return Interval(pooled(tables), nan, nan, settings.level, "none", n, f"bootstrap refused with {n} seeds")
    few = min(settings.resamples, curves.BAND_RESAMPLES)
    return bootstrap_statistic(
        tables, pooled, resamples=few, rng=np.random.default_rng(settings.seed), level=settings.level
    )


def _target(tracks: Sequence[Trajectory], target: float) -> Target:
    times = np.array([runtime_to_target(t.cost, t.value, target) for t in tracks])
    hit = times <= 1.0
    spent = np.where(hit, times, 1.0)
    return Target(target, ert(spent, hit), float(spent.sum()), int(hit.sum()), len(tracks))


def _pairs(
    runs: Sequence[RunScore],
    metric: Metric,
    compared: Sequence[str],
    baseline: str,
    places: Sequence[str],
    settings: Settings,
) -> tuple[Pair, ...]:
    sign = 1.0 if metric.lower_is_better else -1.0
    samples = _samples(runs, metric.name, compared, places)
    mean = {m: sign * float(np.mean([x.mean() for x in samples[m]])) for m in compared}
    order = [
        (b, a) if a == baseline or (b != baseline and mean[b] < mean[a]) else (a, b)
        for a, b in combinations(compared, 2)
    ]
    tests = [van_elteren(samples[a], samples[b]) for a, b in order]
    adjusted: list[float] = holm([t.p for t in tests]).tolist() if tests else []
    found = []
    for (a, b), test, p_holm in zip(order, tests, adjusted, strict=True):
        same = [_seeds(runs, a, p) == _seeds(runs, b, p) for p in places]
        paired = settings.paired and all(same)
        x, y = samples[a], samples[b]
        rng = np.random.default_rng(settings.seed)
        gap = difference_interval(x, y, paired=paired, resamples=settings.resamples, rng=rng, level=settings.level)
        pair = Pair(
            first=a,
            second=b,
            metric=metric.name,
            difference=gap,
            a12=theta_interval(x, y, level=settings.level),
            paired=paired,
            correlation=pairing_correlation(x, y) if all(same) else Estimate(float("nan"), 0, "the seeds differ"),
            z=test.z,
            p=test.p,
            p_holm=p_holm,
            verdict=verdict(_as_loss(gap, sign), p_holm, metric.rope, settings.alpha),
            runs=tuple(r.key for r in runs if r.method in (a, b)),
        )
        found.append(pair)
    return tuple(found)


def _as_loss(gap: Interval, sign: float) -> Interval:
    if sign > 0:
        return gap
    return Interval(-gap.estimate, -gap.high, -gap.low, gap.level, gap.method, gap.n, gap.reason)


def _seeds(runs: Sequence[RunScore], method: str, place: str) -> list[int]:
    return [r.seed for r in runs if (r.method, r.table) == (method, place)]


def _table_test(
    runs: Sequence[RunScore], metric: Metric, compared: Sequence[str], places: Sequence[str], alpha: float
) -> TableTest:
    n, k = len(places), len(compared)
    if k < 2:
        return TableTest("only one method has results: there is nothing to test", n, 0)
    needed = min_tables(k, alpha)
    if n < needed:
        sentence = (
            f"a table-level test cannot reach significance with {_count(n, 'table')}; at least {needed} are needed"
        )
        return TableTest(sentence, n, needed)
    sign = 1.0 if metric.lower_is_better else -1.0
    samples = _samples(runs, metric.name, compared, places)
    losses = np.array([[sign * samples[m][t].mean() for m in compared] for t in range(n)])
    overall, tests = friedman(losses), wilcoxon_holm(losses, alpha)
    sets = cliques(overall.mean_ranks, tests.significant())
    if overall.reason and np.isnan(overall.F):
        sentence = f"Wilcoxon signed-rank with Holm over {n} tables"
    else:
        sentence = (
            f"Friedman test over {n} tables: Iman-Davenport F = {overall.F:.3g}, p = {overall.pF:.3g};"
            " pairs by Wilcoxon signed-rank with Holm"
        )
    named = tuple(tuple(compared[i] for i in group) for group in sets)
    return TableTest(sentence, n, needed, tuple(compared), overall.mean_ranks, nemenyi_cd(k, n, alpha), named)


def _curves(
    data: StudyData,
    runs: Sequence[RunScore],
    tracks: Mapping[str, Trajectory],
    compared: Sequence[str],
    settings: Settings,
) -> dict[str, Any]:
    by_method = {
        m: [[tracks[r.key] for r in runs if (r.method, r.table) == (m, p)] for p in data.places] for m in compared
    }
    how = {"resamples": settings.resamples, "seed": settings.seed}
    if not data.tabular:
        # A weight-sharing strategy may have no score to show for its incumbent; it then has no curve.
        seen = {
            m: tables
            for m, tables in by_method.items()
            if not any(np.isnan(t.value).any() for table in tables for t in table)
        }
        limits = [float(data.incumbents["budget"].max()) for _ in data.places]
        before = float("nan")
        return {
            "anytime": curves.anytime(seen, data.places, limits, before=before, **how),
            "profiles": (),
            "ecdfs": (),
        }
    finals = _samples(runs, "regret_final", compared, data.places)
    return {
        "anytime": curves.anytime(by_method, data.places, [t.budget for t in data.tables], before=1.0, **how),
        "profiles": curves.profiles(finals, **how),
        "ecdfs": curves.ecdfs(by_method, settings.targets),
    }


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
