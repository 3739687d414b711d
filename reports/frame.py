"""From a run store to tidy frames: one row per run, and one row per change of incumbent.

Nothing here depends on the order in which runs were committed: rows are sorted by table, method (in the order of the
study) and seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

from ..protocols import COST_KINDS, Json, RunRecord

INCUMBENT_COLUMNS = (
    "run_id", "table", "method", "strategy", "estimator", "seed", "budget", "evaluation", "cum_cost", "score_seen",
    "score_test", "params", "flops", "architecture",
)  # fmt: skip
RUN_COLUMNS = (
    "run_id", "table", "method", "strategy", "estimator", "seed", "evaluations", "unique", "diversity", "unusable",
    "total_cost", *(f"cost_{kind}" for kind in COST_KINDS), "stopped", "architecture", "params", "flops",
    "score_seen", "score_test", "retrained",
)  # fmt: skip


class Store(Protocol):
    """What is read of `harness.store.RunStore`."""

    def study(self) -> dict[str, Json]:
        """The study record."""
        ...

    def load(self, key: str) -> RunRecord:
        """The record of a finished run."""
        ...

    def finished(self) -> set[str]:
        """Keys of all finished runs."""
        ...

    def timing(self, key: str) -> dict[str, Json] | None:
        """Measured times of a run, if there are any."""
        ...


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What the study record says about one table; metric values as the metric is, not oriented.

    Attributes:
        name: Of the table.
        clock: Unit of every cost.
        metric: Name of the test metric.
        higher_is_better: Its direction.
        training_seeds: Trainings per architecture that a reported test value is the mean of.
        best: Best mean test value over all architectures.
        median: Median of the same.
        seed_noise: Standard deviation of the test value of one training around its architecture's mean, among
            the best tenth of the architectures; NaN where there is one training each.
        median_cost: Median cost of one full training.
        budget: Most that a run may spend.
        other: The rest of the entry, for display.
    """

    name: str
    clock: str
    metric: str
    higher_is_better: bool
    training_seeds: int
    best: float
    median: float
    seed_noise: float
    median_cost: float
    budget: float
    other: Mapping[str, Json]

    @property
    def sign(self) -> float:
        """Factor that turns a metric value into one where higher is better."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def scale(self) -> float:
        """Distance from the median to the best architecture, positive: the unit of normalised regret."""
        return self.sign * (self.best - self.median)


@dataclass(frozen=True, slots=True)
class Method:
    """A row of the report: a strategy under an estimator.

    Attributes:
        label: The strategy's label, with the estimator's where the study has several.
        strategy: Label of the strategy.
        estimator: Label of the estimator.
        name: Registry name of the strategy.
    """

    label: str
    strategy: str
    estimator: str
    name: str


@dataclass(frozen=True, slots=True)
class Absent:
    """A planned run without a result: failed, with its error, or not finished."""

    key: str
    method: str
    table: str
    seed: int
    error: str


@dataclass(frozen=True, slots=True)
class StudyData:
    """A study, read.

    Attributes:
        study: The study record as stored.
        tables: Facts of each table, in the order of the study; empty for real training.
        places: What runs are grouped by: the tables' names, or for real training the data set's.
        methods: In the order of the study.
        incumbents: One row per change of incumbent, columns `INCUMBENT_COLUMNS`.
        runs: One row per finished run, columns `RUN_COLUMNS`; `diversity` = `unique` / `evaluations`.
        absent: Planned runs that failed or are not finished.
    """

    study: Mapping[str, Json]
    tables: tuple[TableFacts, ...]
    places: tuple[str, ...]
    methods: tuple[Method, ...]
    incumbents: pd.DataFrame
    runs: pd.DataFrame
    absent: tuple[Absent, ...]

    @property
    def tabular(self) -> bool:
        """Whether the whole space is known, so that regret is defined."""
        return bool(self.tables)


def load(store: Store) -> StudyData:
    """Read every finished run of a study.

    Raises:
        ValueError: The study record lists no run, or none of them is finished; or runs on one table differ in table,
            data, pipeline, budget or options.
    """
    study = store.study()
    entries = _entries(study)
    if not entries:
        raise ValueError("study.json: 'runs' is empty, there is nothing to report")
    tables = tuple(_facts(name, entry) for name, entry in sorted(study["tables"].items(), key=_table_order(study)))
    places = tuple(t.name for t in tables) or tuple(dict.fromkeys(e["table"] for e in entries))
    methods = _methods(study, entries)
    rank = {(m.strategy, m.estimator): i for i, m in enumerate(methods)}
    entries.sort(key=lambda e: (places.index(e["table"]), rank[e["strategy"], e["estimator"]], e["seed"], e["key"]))
    finished = store.finished()
    errors = {e["key"]: str(e["error"]) for e in study.get("failed", ())}
    budgets = {t.name: t.budget for t in tables}
    conditions: dict[tuple[str, str], Json] = {}
    runs: list[dict[str, Any]] = []
    incumbents: list[dict[str, Any]] = []
    absent: list[Absent] = []
    for entry in entries:
        method = methods[rank[entry["strategy"], entry["estimator"]]]
        identity = _identity(entry, method)
        if entry["key"] not in finished:
            error = errors.get(entry["key"], "not finished")
            absent.append(Absent(entry["key"], method.label, entry["table"], entry["seed"], error))
            continue
        record = store.load(entry["key"])
        _comparable(record, entry["table"], study, conditions)
        rows = _incumbent_rows(record, identity, budgets.get(entry["table"], float(record.spec["budget"]["limit"])))
        incumbents += rows
        runs.append(_run_row(record, identity, rows))
    if not runs:
        raise ValueError(f"none of the {len(entries)} runs of study {study['name']!r} is finished")
    return StudyData(
        study, tables, places, methods,
        pd.DataFrame(incumbents, columns=list(INCUMBENT_COLUMNS)), pd.DataFrame(runs, columns=list(RUN_COLUMNS)),
        tuple(absent),
    )  # fmt: skip


def _entries(study: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Planned runs, those that failed included, each once; without a table the data set takes its place."""
    place = _data_name(study)
    seen = {e["key"]: {**e, "table": e["table"] or place} for e in (*study.get("failed", ()), *study["runs"])}
    return list(seen.values())


def _data_name(study: Mapping[str, Json]) -> str:
    data = study["spec"].get("data")
    return str(data.get("name", "data") if isinstance(data, Mapping) else data or "data")


def _table_order(study: Mapping[str, Json]) -> Any:
    named = [t if isinstance(t, str) else t["name"] for t in study["spec"].get("tables", ())]
    return lambda item: (named.index(item[0]) if item[0] in named else len(named), item[0])


def _facts(name: str, entry: Mapping[str, Json]) -> TableFacts:
    numbers = {k: float(entry[k]) for k in ("best", "median", "median_cost", "budget")}
    noise = entry.get("seed_noise_top", entry["seed_noise"])
    return TableFacts(
        name=name,
        clock=entry["clock"],
        metric=entry["metric"],
        higher_is_better=bool(entry["higher_is_better"]),
        training_seeds=int(entry["training_seeds"]),
        seed_noise=math.nan if noise is None else float(noise),
        other=entry,
        **numbers,
    )


def _methods(study: Mapping[str, Json], entries: Sequence[Mapping[str, Json]]) -> tuple[Method, ...]:
    names = {s["label"]: s["name"] for s in study["spec"]["strategies"]}
    strategies = [*names, *sorted({e["strategy"] for e in entries} - set(names))]
    listed = [e["label"] for e in study["spec"].get("estimators", ())]
    estimators = [*listed, *sorted({e["estimator"] for e in entries} - set(listed))]
    used = {(e["strategy"], e["estimator"]) for e in entries}
    several = len({estimator for _, estimator in used}) > 1
    return tuple(
        Method(f"{s} + {e}" if several else s, s, e, names.get(s, s))
        for s in strategies
        for e in estimators
        if (s, e) in used
    )


def _identity(entry: Mapping[str, Json], method: Method) -> dict[str, Any]:
    return {
        "run_id": entry["key"],
        "table": entry["table"],
        "method": method.label,
        "strategy": method.strategy,
        "estimator": method.estimator,
        "seed": int(entry["seed"]),
    }


def _incumbent_rows(record: RunRecord, identity: Mapping[str, Any], budget: float) -> list[dict[str, Any]]:
    sealed = record.sealed.get("incumbents", ())
    if len(sealed) != len(record.incumbents):
        raise ValueError(
            f"run {record.key}: {len(record.incumbents)} incumbents but {len(sealed)} sealed results; the store"
            " is damaged"
        )
    rows = []
    for incumbent, result in zip(record.incumbents, sealed, strict=True):
        features = result.get("features") or {}
        rows.append({
            **identity,
            "budget": budget,
            "evaluation": incumbent.evaluation,
            "cum_cost": incumbent.cost,
            "score_seen": incumbent.score,
            "score_test": _number(result.get("test")),
            "params": _number(features.get("params")),
            "flops": _number(features.get("flops")),
            "architecture": result.get("text") or str(incumbent.architecture),
        })  # fmt: skip
    return rows


def _comparable(record: RunRecord, place: str, study: Mapping[str, Json], seen: dict[tuple[str, str], Json]) -> None:
    """Refuse to put runs side by side that differ in more than strategy, estimator and seed."""
    table = study["tables"].get(place)
    if table and record.spec["table"]["digest"] != table["digest"]:
        raise ValueError(f"run {record.key}: table digest differs from that of {place} in study.json; not comparable")
    for field in ("table", "data", "pipeline", "budget", "options"):
        value = record.spec.get(field)
        if seen.setdefault((place, field), value) != value:
            raise ValueError(f"run {record.key}: {field} differs from that of other runs on {place}; not comparable")


def _run_row(record: RunRecord, identity: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    observations = [o for call in record.calls for o in call.observations]
    unique = len({o.proposal.architecture for o in observations})
    spent = dict.fromkeys(COST_KINDS, 0.0)
    charges = [*record.preparation, *(c for call in record.calls for c in call.costs)]
    for cost in [*charges, *(c for o in observations for c in o.costs)]:
        spent[cost.kind] += cost.amount
    retrained = record.sealed.get("retrained")
    if retrained:
        spent["retrain"] += float(retrained["cost"])
    last = rows[-1] if rows else {}
    nothing = float("nan")
    return {
        **identity,
        "evaluations": len(observations) or len(record.calls),
        "unique": unique,
        "diversity": unique / len(observations) if observations else nothing,
        "unusable": sum(o.status != "ok" for o in observations),
        "total_cost": sum(spent.values()),
        **{f"cost_{kind}": amount for kind, amount in spent.items()},
        "stopped": record.stopped,
        "architecture": last.get("architecture", ""),
        **{name: last.get(name, nothing) for name in ("params", "flops", "score_seen", "score_test")},
        "retrained": tuple(float(v) for v in retrained["test"]) if retrained else (),
    }


def _number(value: Json) -> float:
    return float("nan") if value is None else float(value)
