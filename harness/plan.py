"""Plans: a study resolved into runs, each determined by its spec."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..methods import registry
from ..protocols import SCHEMA, Json, SearchSpace, Setting, Task, Unit
from ..protocols.streams import generator
from ..tabular import MappedTable, open_table
from . import records
from .runs import looks_at_data, needed_data, remembers
from .study import Method, Study, read_budget

DEFAULT_EVALUATIONS = 100


class NotComparable(Exception):
    """The parts of a study cannot be compared fairly; the message says what to do instead."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a plan: its spec, and the labels under which reports show it."""

    key: str
    spec: Mapping[str, Json]
    strategy: str
    estimator: str
    table: str | None
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A resolved study.

    Attributes:
        study: As given.
        runs: All runs, tables outermost, then estimators, strategies, seeds.
        tables: The opened tables by name.
        pipelines: Chosen pipeline per table name, or under None.
        task: Of the data set, without a table.
        digest: sha256 over the specs and labels of all runs and the settings of the analysis.
    """

    study: Study
    runs: tuple[Planned, ...]
    tables: Mapping[str, MappedTable] = field(default_factory=dict)
    pipelines: Mapping[str | None, str] = field(default_factory=dict)
    digest: str = ""
    task: Task | None = None


def plan(study: Study, *, data_root: Path | None = None, device: str = "auto") -> Plan:
    """Resolve names, check parameters, and lay out the runs.

    Raises:
        ValueError: Something is unknown or does not fit; one line naming the field.
        NotComparable: A table is a sample, or lacks architectures, so that regrets and searches on it mean nothing.
    """
    tables = _open(study)
    strategies = [(m, _resolved("strategies", m)) for m in study.strategies]
    default = Method("table", "table", {}) if tables else Method("full", "full", {})
    estimators = [(m, _resolved("estimators", m)) for m in study.estimators or (default,)]
    options = {"batch": study.batch, "dedupe": study.dedupe, "redraw": study.redraw, "retrain": study.retrain}
    worlds: list[tuple[str | None, dict[str, Json]]] = [(n, _table_world(study, t)) for n, t in tables.items()]
    task = None
    if not worlds:
        world, task = _data_world(study, data_root, device)
        worlds = [(None, world)]
    runs = []
    for table, world in worlds:
        space = tables[table].space if table else registry.space(world["space"])
        resolved_estimators = [r for _, r in estimators]
        setting = _preview(world, tables[table], resolved_estimators, data_root) if table else None
        _try(space, [r for _, r in strategies], resolved_estimators, setting, dedupe=study.dedupe)
        _count_calls(study, world, [r for _, r in estimators])
        for estimator, resolved_estimator in estimators:
            for strategy, resolved in strategies:
                for seed in study.seeds:
                    spec = {**world, "strategy": resolved, "estimator": resolved_estimator, "options": options}
                    spec |= {"seed": seed, "schema": SCHEMA}
                    key = records.key_of(spec)
                    runs.append(Planned(key, spec, strategy.label, estimator.label, table, seed))
    analysis = [study.alpha, study.rope, study.resamples, study.name]
    text = records.canonical([analysis, [[r.key, r.strategy, r.estimator, r.table] for r in runs]])
    pipelines = {t: world["pipeline"]["name"] for t, world in worlds}
    return Plan(study, tuple(runs), tables, pipelines, hashlib.sha256(text.encode()).hexdigest(), task)


def _open(study: Study) -> dict[str, MappedTable]:
    tables: dict[str, MappedTable] = {}
    for name in study.tables:
        try:
            table = open_table(name, verify=True)
        except OSError as error:
            raise ValueError(f"tables: {name!r} cannot be read ({error.strerror})") from None
        if table.coverage != "complete":
            raise NotComparable(
                f"tables: {table.name!r} is a sample of its space, so searches on it cannot be compared; "
                "samples are for audits, which take the entries that are there"
            )
        if table.name in tables:
            raise ValueError(f"tables: {table.name!r} is named twice")
        tables[table.name] = table
    return tables


def _resolved(role: registry.Role, m: Method) -> dict[str, Json]:
    field = registry.FIELDS[role]
    try:
        found = registry.load(role, m.name)
    except ValueError:
        raise
    except Exception as error:  # whatever a user's own module raises while it is imported
        raise ValueError(f"{field}: {m.name!r} cannot be imported ({_line(error)})") from error
    libraries = {name: _version(name) for name in getattr(found, "libraries", ())}
    params = registry.parameters(found, m.params, f"{field} {m.name!r}")
    try:
        records.canonical(params)
    except ValueError as error:
        raise ValueError(f"{field} {m.name!r}: parameters must be JSON values ({error})") from None
    return {"name": m.name, "params": params, "code": registry.code_digest(found), "libraries": libraries}


def _preview(
    world: Mapping[str, Json], table: MappedTable, estimators: Sequence[Mapping[str, Json]], root: Path | None
) -> Setting:
    """The setting that runs on a table will have, but for the training seeds."""
    pipeline = table.pipelines[world["pipeline"]["name"]]
    view = (
        needed_data(table, root)
        if any(looks_at_data(registry.load("estimators", e["name"])) for e in estimators)
        else None
    )
    return Setting(table.task, world["budget"]["unit"], pipeline, lambda _: table.seeds[0], data=view, table=table)


def _try(
    space: SearchSpace,
    strategies: Sequence[Mapping[str, Json]],
    estimators: Sequence[Mapping[str, Json]],
    setting: Setting | None,
    *,
    dedupe: bool,
) -> None:
    """Build every method once, so that what it refuses is one line now and not a failure of each run."""
    for described in strategies:
        with _blamed("strategy", described["name"]):
            found, params = registry.load("strategies", described["name"]), described["params"]
            if hasattr(found, "train_epoch"):
                inspect.signature(found).bind(space, None, seed=0, **params)
            else:
                found(space, seed=0, **params)
    for described in estimators:
        with _blamed("estimator", described["name"]):
            found, params = registry.load("estimators", described["name"]), described["params"]
            if dedupe and remembers(found):
                raise ValueError("its answers depend on earlier ones, so repeated ones are not free: no dedupe")
            if inspect.isclass(found):
                estimator = found(**params)
                if setting is not None and hasattr(estimator, "fits"):
                    estimator.fits(setting)
            elif params:
                raise ValueError("a function takes no parameters")


def _count_calls(study: Study, world: dict[str, Json], estimators: Sequence[Mapping[str, Json]]) -> None:
    """A user's own function has no cost but that of one evaluation a call, so the budget must be in evaluations."""
    functions = [e["name"] for e in estimators if not inspect.isclass(registry.load("estimators", e["name"]))]
    if not functions or world["budget"]["unit"] == "evaluations":
        return
    if study.budget is not None:
        unit = world["budget"]["unit"]
        raise ValueError(
            f"budget: the function {functions[0]!r} has no cost in {unit}; give evals, for example 100evals"
        )
    world["budget"] = {"unit": "evaluations", "limit": float(DEFAULT_EVALUATIONS)}


@contextmanager
def _blamed(field: str, name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ValueError(f"{field} {name!r}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """One line: a ValueError speaks for itself, any other error says what it is."""
    line = str(error).partition("\n")[0]
    return line if isinstance(error, ValueError) else f"{type(error).__name__}: {line}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        raise ValueError(f"strategies: needs the package {name!r}: pip install 'nasbed[{name}]'") from None


def _table_world(study: Study, table: MappedTable) -> dict[str, Json]:
    first = table.manifest.get("default_pipeline", next(iter(table.pipelines)))
    name = study.pipeline or first
    if name not in table.pipelines:
        raise ValueError(registry.unknown(f"pipeline (of the table {table.name!r})", name, tuple(table.pipelines)))
    _require_all(table, name)
    if study.budget is None:
        unit, limit = table.clock, DEFAULT_EVALUATIONS * table.median_cost(name)
    else:
        unit, limit = read_budget(study.budget)
    if unit not in (table.clock, "epochs", "evaluations"):
        raise ValueError(
            f"budget: the clock of {table.name!r} is in {table.clock}; give {table.clock}, epochs or evals, not {unit}"
        )
    return {
        "space": table.space.name,
        "table": {"name": table.name, "digest": table.digest},
        "data": None,
        "pipeline": {"name": name, "digest": table.pipelines[name].digest},
        "budget": {"unit": unit, "limit": limit},
    }


def _require_all(table: MappedTable, pipeline: str) -> None:
    """Every architecture that a strategy may propose has a training, single seeds may be missing; most learn."""
    if lacking := table.without_training(pipeline):
        whole = [p for p in table.pipelines if p != pipeline and not table.without_training(p)]
        hint = f"the pipeline {whole[0]!r} has them all" if whole else "audits take the entries that are there"
        raise NotComparable(
            f"tables: the table {table.name!r} has missing trainings for {lacking} of its {table.space.size} "
            f"architectures under {pipeline!r}, so searches on it cannot be compared; {hint}"
        )
    diverged = table.diverged(pipeline)
    if 2 * diverged >= (table.space.size or 0):
        raise NotComparable(
            f"tables: in the table {table.name!r} {diverged} of {table.space.size} architectures diverged under "
            f"{pipeline!r}, so there is no median quality that regrets could be measured by"
        )


def _data_world(study: Study, data_root: Path | None, device: str) -> tuple[dict[str, Json], Task]:
    from ..protocols.training import arithmetic, load, pipeline_for

    try:
        space = registry.space(study.space or "")
    except ValueError:
        raise
    except Exception as error:  # a class of the user's own that is no space
        raise ValueError(f"space: {study.space!r} cannot be built ({_line(error)})") from error
    view = load(study.data or "", data_root)
    member = space.sample(generator(0, "plan"))
    space.build(member, view.task)  # refuses inputs that the space has no networks for
    pipeline = pipeline_for(study.pipeline, space.training(member))
    unit: Unit = "epochs"
    limit = float(DEFAULT_EVALUATIONS * pipeline.epochs)
    if study.budget is not None:
        unit, limit = read_budget(study.budget)
    if unit == "seconds":
        raise ValueError("budget: without a table a budget is in epochs, evals or flops; seconds would not repeat")
    world = {
        "space": space.name,
        "table": None,
        "data": {"name": study.data, "digest": view.task.digest},
        "pipeline": {"name": pipeline.name, "digest": pipeline.digest},
        "budget": {"unit": unit, "limit": limit},
        "machine": arithmetic(device),
    }
    return world, view.task
