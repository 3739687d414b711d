"""Carrying out a comparison: plan, run what is missing, write the study record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..methods import registry
from ..protocols import Json
from . import seal
from .executors import run_tasks
from .pictures import pictures
from .plan import Plan, Planned
from .provenance import provenance
from .runs import Task, run, traits_of
from .store import RunStore

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that raised: which, one line, and the whole traceback."""

    run: Planned
    error: str
    traceback: str


def carry_out(
    plan: Plan,
    out: Path,
    *,
    jobs: int = 1,
    data_root: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[Failure]:
    """Run every planned run that the store does not hold yet, then write `study.json`.

    The store is the truth: after any interruption the same call does only what is missing, and the study
    record is the same, byte for byte, as without one (the provenance of the first start is kept).

    Args:
        plan: What to run.
        out: Its `store` folder is used.
        jobs: Worker processes.
        data_root: Folder of data sets, for real training.
        device: For real training.
        progress: Called with (runs done, runs) at the start and after each run.
    """
    store = RunStore(out / "store")
    origin = _origin(store)
    finished = store.finished()
    distinct = {r.key: r for r in plan.runs}  # the same method under two labels is run once
    todo = [r for key, r in distinct.items() if key not in finished]
    total = len(distinct)
    if progress:
        progress(total - len(todo), total)
    folders = {name: str(table.folder.resolve()) for name, table in plan.tables.items()}
    root = str(data_root) if data_root else None
    tasks = [Task(r.spec, str(out / "store"), folders.get(r.table or ""), root, device) for r in todo]
    failures = []
    for done, outcome in enumerate(run_tasks(run, tasks, jobs=jobs), start=total - len(todo) + 1):
        if outcome.error is not None:
            failures.append(_failure(todo[outcome.index], outcome.error, outcome.traceback))
        if progress:
            progress(done, total)
    record = _study_record(plan, failures, origin)
    best = {name: facts["best_architecture"] for name, facts in record["tables"].items()}
    store.write_study(record | {"pictures": pictures(plan, store, best)})
    return failures


def _failure(planned: Planned, error: BaseException, traceback: str) -> Failure:
    line = f"{type(error).__name__}: {error}".partition("\n")[0]
    return Failure(planned, line, traceback or line)


def _origin(store: RunStore) -> dict[str, Json]:
    """Provenance of the first start, written before the first run."""
    try:
        kept: dict[str, Json] = store.study()["provenance"]
    except ValueError:
        kept = provenance()
        store.write_study({"schema": 1, "provenance": kept, "complete": False})
    return kept


def _study_record(plan: Plan, failures: Sequence[Failure], origin: dict[str, Json]) -> dict[str, Json]:
    study = plan.study
    failed = {f.run.key: f for f in failures}
    labels = ("key", "strategy", "estimator", "table", "seed")
    runs = [{k: getattr(r, k) for k in labels} for r in plan.runs]
    given = asdict(study)
    budgets = {r.table: r.spec["budget"] for r in plan.runs}
    spec = {k: given[k] for k in ("space", "data", "pipeline", "alpha", "rope", "resamples")}
    spec |= {k: [dict(m) for m in given[k]] for k in ("strategies", "estimators")}
    for method in spec["estimators"]:  # what an audit or a checklist must know of its scores
        traits = traits_of(registry.load("estimators", method["name"]))
        method["traits"] = None if traits is None else asdict(traits)
    spec |= {"tables": list(plan.tables), "seeds": list(study.seeds)}
    spec["options"] = plan.runs[0].spec["options"]
    spec["budget"] = budgets[None] if None in budgets else {t: budgets[t] for t in plan.tables}
    return {
        "schema": 1,
        "complete": not failures,
        "digest": plan.digest,
        "name": study.name,
        "spec": spec,
        "task": _task_record(plan),
        "tables": {name: _table_record(plan, name, budgets[name]) for name in plan.tables},
        "runs": [r for r in runs if r["key"] not in failed],
        "failed": [{**r, "error": failed[r["key"]].error} for r in runs if r["key"] in failed],
        "provenance": origin,
    }


def _task_record(plan: Plan) -> Json:
    """What is measured, without a table; with tables, each says it itself."""
    task = plan.task
    return task and {"name": task.name, "metric": task.metric, "higher_is_better": task.higher_is_better}


def _table_record(plan: Plan, name: str, budget: Json) -> dict[str, Json]:
    table, pipeline = plan.tables[name], plan.pipelines[name]
    epochs = table.pipelines[pipeline].epochs
    return {
        "digest": table.digest,
        "space": table.space.name,
        "size": table.space.size,
        "coverage": table.coverage,
        "clock": table.clock,
        "pipeline": pipeline,
        "pipeline_digest": table.pipelines[pipeline].digest,
        "task": table.task.name,
        "metric": table.task.metric,
        "higher_is_better": table.task.higher_is_better,
        "median_cost": table.median_cost(pipeline),
        "median_cost_in_budget_unit": _median_in(budget, table.clock, table.median_cost(pipeline), epochs),
        "budget": budget["limit"],
        "budget_unit": budget["unit"],
        **seal.facts(table, pipeline),
    }


def _median_in(budget: Json, clock: str, median: float, epochs: int) -> float:
    """Cost of a median full training in the budget's unit."""
    return {"evaluations": 1.0, "epochs": float(epochs), clock: median}[budget["unit"]]
