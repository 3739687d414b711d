"""What MLflow is told about a study: rows that depend on the run store alone, so that a replay writes the same ones.

Metric and parameter names keep to what MLflow accepts (letters, digits, ``_ - . space : /``); values that are not
finite are left out, because MLflow stores infinity as 1.8e308 and a gap in a curve is the honest picture of a NaN.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from ..protocols import Cost, Json, RunRecord

TRIAL_KEY = "harness.trial_key"
EXPORTED = "harness.exported_seq"
STUDY = "harness.study_digest"
ROLE = "nas.role"
METHOD = "nas.method"
PARENT = "mlflow.parentRunId"

MAX_CURVE = 1000
"""Longest per-evaluation curve; longer runs are thinned evenly (the store keeps every evaluation)."""
_MAX_KEY, _MAX_PARAM, _MAX_TAG = 250, 500, 5000


class Point(NamedTuple):
    """One value of a metric; `step` is the index of an evaluation, from 0."""

    key: str
    value: float
    step: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything that one MLflow run shows.

    Attributes:
        name: Shown to people.
        tags: Known when the run is created.
        params: Written once.
        points: Finite metric values, each (key, step) once.
        seq: What the tag `harness.exported_seq` says once all of it is written.
        finished: Whether nothing can be added any more.
        milliseconds: Between the run's start and end times.
    """

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: tuple[Point, ...]
    seq: int
    finished: bool = True
    milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class Final:
    """How a run went; None (or no regrets) where the study does not know it.

    Attributes:
        regrets: Normalised regret of every incumbent, 0 (best of the table) to 1 (median or worse).
        late_area: Mean normalised regret over log cost from 10 % of the budget to all of it.
        test: Test metric of the final incumbent, or without a table the mean after retraining.
    """

    method: str
    table: str
    regrets: tuple[float, ...]
    late_area: float | None
    test: float | None

    @property
    def regret(self) -> float | None:
        """Of the final incumbent."""
        return self.regrets[-1] if self.regrets else None


def experiment_name(study: Mapping[str, Json]) -> str:
    """The study's name and the start of its digest: equal names of different studies stay apart."""
    return f"{_text(study['name'], 400)}-{study['digest'][:12]}"


def planned(study: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    """All runs of the study, those that failed included; one run under two labels is two of them.

    Raises:
        ValueError: The study has not ended yet.
    """
    if "runs" not in study:
        raise ValueError("study.json: the study has not ended: the same command that began it completes it")
    return list({identity(e["key"], e): e for e in (*study["runs"], *study.get("failed", ()))}.values())


def identity(key: str, entry: Mapping[str, Json]) -> tuple[str, str]:
    """What an MLflow run shows: the run, and the labels that the study gave it."""
    return key, _text(f"{entry['strategy']} + {entry['estimator']}", _MAX_TAG)


def method_label(study: Mapping[str, Json], entry: Mapping[str, Json]) -> str:
    """The strategy's label, with the estimator's where the study has several."""
    several = len({e["estimator"] for e in planned(study)}) > 1
    return f"{entry['strategy']} + {entry['estimator']}" if several else str(entry["strategy"])


def metric_part(label: str) -> str:
    """A label as one segment of a metric name; whatever MLflow would refuse is replaced, and a hash keeps it unique.

    >>> metric_part("aging_evolution")
    'aging_evolution'
    >>> metric_part("tpe (50%)")
    'tpe _50_-f34d5129'
    """
    clean = re.sub(r"[^A-Za-z0-9_.\- ]+", "_", label).strip(". ")[:100]
    digest = hashlib.sha256(label.encode("utf-8", "backslashreplace")).hexdigest()
    return clean if clean and clean == label else f"{clean}-{digest[:8]}"


def run_final(study: Mapping[str, Json], entry: Mapping[str, Json], record: RunRecord) -> Final:
    """Summarise one run."""
    regrets, late = _regrets(study, entry, record)
    retrained = (record.sealed.get("retrained") or {}).get("test") or ()
    tests = [s.get("test") for s in record.sealed.get("incumbents", ())]
    test = sum(retrained) / len(retrained) if retrained else (tests[-1] if tests else None)
    return Final(method_label(study, entry), _place(entry, record), regrets, late, test)


def run_rows(
    entry: Mapping[str, Json],
    record: RunRecord,
    final: Final,
    *,
    parent: str,
    trace: str,
    version: str,
    timing: Mapping[str, Json],
) -> Rows:
    """Everything to show of one finished run.

    Args:
        entry: The run's line in the study record.
        record: What the run left behind.
        final: Its summary, from `run_final`.
        parent: MLflow run that it is nested under.
        trace: Digest of the run's trace.
        version: Of the harness that ran it.
        timing: Measured seconds by name, of which `wall_s` becomes the duration.
    """
    costs = list(_cumulative(record))
    points = [*_curves(record, costs), *_incumbents(record, final, costs), *_finals(record, final, costs)]
    points += [Point(f"time/{n}", float(v), max(len(costs) - 1, 0)) for n, v in timing.items() if _is_time(n, v)]
    distinct = {(p.key, p.step): p for p in points if math.isfinite(p.value)}
    table = record.spec.get("table") or {}
    tags = {
        PARENT: parent,
        TRIAL_KEY: record.key,
        METHOD: identity(record.key, entry)[1],
        ROLE: "run",
        "nas.trace_sha256": trace,
        "nas.harness_version": version,
        "nas.stopped": record.stopped,
        **({"nas.table_hash": table["digest"]} if table else {}),
    }
    last = (record.sealed.get("incumbents") or [{}])[-1]
    if record.incumbents:
        tags["nas.incumbent"] = str(last.get("text") or record.incumbents[-1].architecture)
    return Rows(
        name=_text(f"{entry['strategy']} + {entry['estimator']} on {_place(entry, record)}, seed {entry['seed']}"),
        tags={k: _text(v, _MAX_TAG) for k, v in tags.items()},
        params=_params(entry, record),
        points=tuple(distinct.values()),
        seq=len(costs),
        milliseconds=round(1000 * timing["wall_s"]) if "wall_s" in timing else len(costs),
    )


def _is_time(name: str, value: Json) -> bool:
    return name in ("wall_s", "overhead_s") and isinstance(value, int | float)


def study_rows(study: Mapping[str, Json], finals: Sequence[Final], *, version: str) -> Rows:
    """The comparison: what the study fixed, and means per method over all finished runs.

    The step of every aggregate is the number of finished runs, so that a study exported while it grows shows its
    newest values last; MLflow would otherwise call the largest one of a step the latest.
    """
    step = len(finals)
    methods: dict[str, list[Final]] = {}
    for final in finals:
        methods.setdefault(final.method, []).append(final)
    counts = {"planned": len(planned(study)), "finished": step, "failed": len(study.get("failed", ()))}
    values = {f"runs/{name}": float(count) for name, count in counts.items()}
    for method, group in methods.items():
        part = metric_part(method)
        values[f"runs/finished/{part}"] = float(len(group))
        for key, name in (("regret", "regret/final"), ("late_area", "regret/late_area"), ("test", "score/test")):
            mean = _mean_over_tables([(f.table, getattr(f, key)) for f in group])
            if mean is not None:
                values[f"{name}/{part}"] = mean
    spec = study["spec"]
    fixed = {k: spec[k] for k in ("space", "data", "pipeline", "seeds", "budget", "tables") if spec.get(k) is not None}
    fixed |= {kind: [m["label"] for m in spec.get(kind, ())] for kind in ("strategies", "estimators")}
    return Rows(
        name=_text(study["name"]),
        tags={ROLE: "comparison", STUDY: study["digest"], "nas.harness_version": version, **_commit(study)},
        params={k: _text(v) for k, v in fixed.items()},
        points=tuple(Point(k, v, step) for k, v in values.items() if math.isfinite(v)),
        seq=step,
        finished=step + counts["failed"] >= counts["planned"],
        milliseconds=step,
    )


def _commit(study: Mapping[str, Json]) -> dict[str, str]:
    git = (study.get("provenance") or {}).get("git")
    return {"mlflow.source.git.commit": str(git["commit"])} if git else {}


def _params(entry: Mapping[str, Json], record: RunRecord) -> dict[str, str]:
    spec = record.spec
    named: dict[str, Json] = {
        "strategy": entry["strategy"],
        "estimator": entry["estimator"],
        "table": entry["table"],
        "seed": entry["seed"],
        "space": spec.get("space"),
        "data": (spec.get("data") or {}).get("name"),
        "pipeline": (spec.get("pipeline") or {}).get("name"),
        "budget": spec["budget"]["limit"],
        "budget_unit": spec["budget"]["unit"],
    }
    for role, prefix in (("strategy", ""), ("estimator", "estimator_")):
        part = spec.get(role) or {}
        named[f"{prefix}code_version"] = part.get("code")
        named |= {f"{role}.{metric_part(name)}": value for name, value in (part.get("params") or {}).items()}
    named |= {f"options.{metric_part(name)}": value for name, value in (spec.get("options") or {}).items()}
    return {k[:_MAX_KEY]: _text(v) for k, v in named.items() if v is not None}


def _text(value: Json, limit: int = _MAX_PARAM) -> str:
    """A value that every database takes: no lone surrogate, no NUL, not too long."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _cumulative(record: RunRecord) -> Iterator[float]:
    """Everything charged until the end of each evaluation (or epoch of weight sharing)."""
    spent = math.fsum(c.amount for c in record.preparation)
    for call in record.calls:
        spent += math.fsum(c.amount for c in call.costs)
        for observation in call.observations:
            spent += math.fsum(c.amount for c in observation.costs)
            yield spent
        if call.costs and not call.proposals:
            yield spent


def _curves(record: RunRecord, costs: Sequence[float]) -> Iterator[Point]:
    """Cost and score of every evaluation, evenly thinned in runs longer than MAX_CURVE."""
    stride = max(math.ceil(len(costs) / MAX_CURVE), 1)
    scores = [o.score for call in record.calls for o in call.observations]
    kept = {*range(0, len(costs), stride), *(i.evaluation for i in record.incumbents), len(costs) - 1}
    for step in sorted(s for s in kept if 0 <= s < len(costs)):
        yield Point("cost/cum", costs[step], step)
        if step < len(scores):
            yield Point("score/evaluation", scores[step], step)


def _incumbents(record: RunRecord, final: Final, costs: Sequence[float]) -> Iterator[Point]:
    """The incumbent's curve at each of its changes, drawn out to the last evaluation."""
    sealed = record.sealed.get("incumbents", ())
    for i, incumbent in enumerate(record.incumbents):
        steps = {incumbent.evaluation}
        if incumbent is record.incumbents[-1] and costs:
            steps.add(len(costs) - 1)
        for step in sorted(steps):
            yield Point("score/seen", incumbent.score, step)
            if i < len(sealed) and sealed[i].get("test") is not None:
                yield Point("score/test", sealed[i]["test"], step)
            if final.regrets:
                yield Point("regret/incumbent", final.regrets[i], step)


def _finals(record: RunRecord, final: Final, costs: Sequence[float]) -> Iterator[Point]:
    step = max(len(costs) - 1, 0)
    if final.regret is not None:
        yield Point("regret/final", final.regret, step)
    if final.late_area is not None:
        yield Point("regret/late_area", final.late_area, step)
    features = ((record.sealed.get("incumbents") or [{}])[-1]).get("features") or {}
    for name in ("params", "flops"):
        if features.get(name) is not None:
            yield Point(f"incumbent/{name}", float(features[name]), step)
    yield Point("evaluations", float(len(costs)), step)
    spent: dict[str, float] = {}
    for cost in _charges(record):
        spent[cost.kind] = spent.get(cost.kind, 0.0) + cost.amount
    retrained = record.sealed.get("retrained")
    if retrained:
        spent["retrain"] = spent.get("retrain", 0.0) + float(retrained["cost"])
        for i, score in enumerate(retrained["test"]):
            yield Point("score/retrained", score, i)
    yield Point("cost/total", math.fsum(spent.values()), step)
    for kind in sorted(spent):
        yield Point(f"cost/{kind}", spent[kind], step)


def _charges(record: RunRecord) -> Iterator[Cost]:
    observed = (o.costs for call in record.calls for o in call.observations)
    return chain(record.preparation, *(call.costs for call in record.calls), *observed)


def _regrets(
    study: Mapping[str, Json], entry: Mapping[str, Json], record: RunRecord
) -> tuple[tuple[float, ...], float | None]:
    """Normalised regret of every incumbent and the late area under it; nothing where the table is not known."""
    from .statistics import anytime_area, normalised_regret

    facts = (study.get("tables") or {}).get(entry["table"] or "")
    tests = [s.get("test") for s in record.sealed.get("incumbents", ())]
    if not facts or not tests or any(t is None or not math.isfinite(t) for t in tests):
        return (), None
    sign = 1.0 if facts["higher_is_better"] else -1.0
    best, median = sign * facts["best"], sign * facts["median"]
    if not best > median:
        return (), None
    regrets = normalised_regret([sign * t for t in tests], best, median)
    budget = float(facts.get("budget") or record.spec["budget"]["limit"])
    late = anytime_area([i.cost for i in record.incumbents], regrets, 0.1 * budget, budget)
    return tuple(float(r) for r in regrets), late


def _place(entry: Mapping[str, Json], record: RunRecord) -> str:
    return str(entry["table"] or (record.spec.get("data") or {}).get("name") or "data")


def _mean_over_tables(values: Iterable[tuple[str, float | None]]) -> float | None:
    """Mean over tables of the mean over seeds; None unless every run has a value."""
    groups: dict[str, list[float]] = {}
    for table, value in values:
        if value is None:
            return None
        groups.setdefault(table, []).append(value)
    return math.fsum(math.fsum(g) / len(g) for g in groups.values()) / len(groups) if groups else None
