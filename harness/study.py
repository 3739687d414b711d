"""Studies: what to compare, read from a TOML file or flags, checked, resolved, and planned into runs."""

from __future__ import annotations

import hashlib
import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..methods import registry
from ..protocols import SCHEMA, UNITS, Json, SearchSpace, Unit
from ..tabular import MappedTable, open_table
from . import records

BASELINE = "random"
"""Random search is part of every comparison (Li & Talwalkar 2019; Lindauer & Hutter 2020, practice 8)."""

DEFAULT_EVALUATIONS = 100

_MOST_SEEDS = 100_000


class NotComparable(Exception):
    """The parts of a study cannot be compared fairly; the message says what to do instead."""


@dataclass(frozen=True, slots=True)
class Method:
    """A strategy or estimator with its parameters, under the label that reports use."""

    label: str
    name: str
    params: Mapping[str, Json]

    @classmethod
    def read(cls, given: str | Mapping[str, Json], field: str) -> Method:
        """From `name`, `name[key=value;...]`, or a TOML table with name, label and params."""
        if isinstance(given, str):
            name, options = registry.split_name(given)
            return cls(given, name, options)
        for key in given:
            if key not in ("name", "label", "params"):
                raise ValueError(registry.unknown(f"{field}: key", key, ("name", "label", "params")))
        entry: Json = given.get("name")
        if not isinstance(entry, str):
            raise ValueError(f"{field}: an entry needs a name, a text; {entry!r} is none")
        label, params = given.get("label", entry), given.get("params", {})
        if not isinstance(label, str) or not label.strip() or not label.isprintable():
            raise ValueError(f"{field}: the label {label!r} of {entry!r} is not a printable text")
        if not isinstance(params, Mapping):
            raise ValueError(f"{field}: params of {entry!r} must be a table of names and values, not {params!r}")
        return cls(label, entry, params)


@dataclass(frozen=True, slots=True)
class Study:
    """Everything that a comparison depends on, as a user gives it. The field names are those of study files.

    Attributes:
        strategies: Registered names, `name[key=value]`, or `package.module:Class`.
        estimators: Likewise; by default `table` on tables and `full` without.
        tables: Embedded names or folders; none means real training on `data`.
        space: Full name of a space, for real training.
        data: Registered data set, for real training.
        pipeline: Registered pipeline; by default the table's first, or `adam`.
        seeds: Root seeds.
        budget: Per run, `100evals`, `3600s`, `500epochs` or `2e12flops`; by default the cost of 100 median full
            trainings.
        name: Of the study, for reports and tracking.
        batch: Proposals per ask.
        dedupe: Repeated evaluations are free, for every method.
        redraw: A new training seed at every query.
        retrain: Fresh trainings of the final incumbent, without a table.
        alpha: Level of the family of tests.
        rope: Differences below this are equivalent; by default 0.01 normalised regret, or without a table 0.001
            of the test score.
        resamples: Of the bootstrap.
    """

    strategies: tuple[Method, ...]
    estimators: tuple[Method, ...] = ()
    tables: tuple[str, ...] = ()
    space: str | None = None
    data: str | None = None
    pipeline: str | None = None
    seeds: tuple[int, ...] = tuple(range(30))
    budget: str | None = None
    name: str = "comparison"
    batch: int = 1
    dedupe: bool = False
    redraw: bool = False
    retrain: int = 3
    alpha: float = 0.05
    rope: float | None = None
    resamples: int = 10_000


def read_study(path: Path | None, given: Mapping[str, Any]) -> Study:
    """A study from a TOML file, overridden by what is given on the command line.

    Raises:
        ValueError: One line naming the field, its value and what is allowed.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, IsADirectoryError):
            raise ValueError(f"study: there is no file {path}") from None
        except OSError as error:
            raise ValueError(f"study: {path} cannot be read ({error.strerror})") from None
        except RecursionError:
            raise ValueError(f"study: {path}: values are nested too deeply") from None
        except ValueError as error:  # not UTF-8, or not TOML
            raise ValueError(f"study: {str(path)!r}: {error}") from None
    values |= {k: v for k, v in given.items() if v is not None}
    allowed = tuple(f.name for f in fields(Study))
    for key in values:
        if key not in allowed:
            raise ValueError(registry.unknown("study: field", key, allowed))
    for key in ("strategies", "estimators"):
        values[key] = _methods(key, values.get(key, []))
    values["tables"] = tuple(_texts("tables", values.get("tables", [])))
    values["seeds"] = read_seeds(values.get("seeds", 30))
    _check_types(values)
    study = Study(**values)
    if not study.strategies:
        raise ValueError(f"strategies: name at least one of {', '.join(registry.names('strategies'))}")
    if not any(s.name == BASELINE for s in study.strategies):
        if any(s.label == BASELINE for s in study.strategies):
            raise ValueError(f"strategies: the label {BASELINE!r} belongs to random search, which is always added")
        study = replace(study, strategies=(Method(BASELINE, BASELINE, {}), *study.strategies))
    if study.tables and (study.space or study.data):
        raise ValueError("tables: a study is on tables or on --space and --data, not on both")
    if not study.tables and not (study.space and study.data):
        raise ValueError("tables: name a table, or a space and a data set to train for real")
    return study


def _methods(field: str, given: Any) -> tuple[Method, ...]:
    entries = split_outside_brackets(given) if isinstance(given, str) else given
    if not isinstance(entries, Sequence) or not all(isinstance(e, str | Mapping) for e in entries):
        raise ValueError(f"{field}: must be a list of names or of tables with name, label and params")
    methods = tuple(Method.read(e, field) for e in entries)
    labels = [m.label for m in methods]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"{field}: {label!r} is named twice; give each a label of its own in a study file")
    return methods


def _texts(field: str, given: Any) -> list[str]:
    entries = split_outside_brackets(given) if isinstance(given, str) else given
    if not isinstance(entries, Sequence) or not all(isinstance(e, str) for e in entries):
        raise ValueError(f"{field}: must be a list of names")
    return list(entries)


def split_outside_brackets(text: str) -> list[str]:
    """Split at the commas that are not inside [...].

    >>> split_outside_brackets("random,tpe[a=1,2],x")
    ['random', 'tpe[a=1,2]', 'x']
    """
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def read_seeds(given: Any) -> tuple[int, ...]:
    """Seeds from a count (30 = 0 to 29), a range `0-199`, or a list; at most 100,000."""
    seeds = given
    if isinstance(given, int) and not isinstance(given, bool):
        seeds = range(min(given, _MOST_SEEDS + 1))
    elif isinstance(given, str):
        match = re.fullmatch(r"\s*(?:([0-9]{1,18})-)?([0-9]{1,18})\s*", given)
        ranged = match is not None and match[1] is not None
        seeds = range(int(match[1]) if ranged else 0, int(match[2]) + ranged) if match else ()
    if not isinstance(seeds, Sequence) or not 0 < len(seeds) <= _MOST_SEEDS:
        raise ValueError(
            f"seeds: {_short(given)} is not a positive count (30), a range (0-29) or a list, of at most {_MOST_SEEDS}"
        )
    if not all(type(s) is int and s >= 0 for s in seeds) or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds: {_short(given)} are not different integers >= 0")
    return tuple(seeds)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_budget(text: str) -> tuple[Unit, float]:
    """`100evals`, `3600s`, `500epochs`, `2e12flops`.

    >>> read_budget("2e12flops")
    ('flops', 2000000000000.0)
    """
    suffixes: dict[str, Unit] = {"evals": "evaluations", "s": "seconds", "epochs": "epochs", "flops": "flops"}
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*([a-z]+)\s*", str(text).lower())
    unit = suffixes.get(match[2]) if match else None
    if unit is None and match and match[2] in UNITS:
        unit = next(u for u in UNITS if u == match[2])
    try:
        limit = float(match[1]) if match else 0.0
    except ValueError:
        limit = 0.0
    if unit is None or not 0.0 < limit < float("inf"):
        raise ValueError(f"budget: {text!r} is not of the form 100evals, 3600s, 500epochs or 2e12flops")
    return unit, limit


_BOUNDS: Mapping[str, tuple[type, float, float]] = {
    "batch": (int, 1, 10_000),
    "retrain": (int, 0, 100),
    "alpha": (float, 1e-6, 0.5),
    "rope": (float, 0.0, 1.0),
    "resamples": (int, 100, 1_000_000),
}


def _check_types(values: Mapping[str, Any]) -> None:
    for key, (kind, low, high) in _BOUNDS.items():
        value = low if values.get(key) is None else values[key]
        number = isinstance(value, int) and not isinstance(value, bool)
        if not (number or (kind is float and isinstance(value, float))) or not low <= value <= high:
            raise ValueError(
                f"{key}: {value!r} is not {'an integer' if kind is int else 'a number'} in {low:g} .. {high:g}"
            )
    for key in ("dedupe", "redraw"):
        if not isinstance(values.get(key, False), bool):
            raise ValueError(f"{key}: {values[key]!r} is not true or false")
    for key in ("space", "data", "pipeline", "budget", "name"):
        if not isinstance(values.get(key, ""), str):
            raise ValueError(f"{key}: {values[key]!r} is not a text")


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
        digest: sha256 over the specs and labels of all runs and the settings of the analysis.
    """

    study: Study
    runs: tuple[Planned, ...]
    tables: Mapping[str, MappedTable] = field(default_factory=dict)
    pipelines: Mapping[str | None, str] = field(default_factory=dict)
    digest: str = ""


def plan(study: Study, *, data_root: Path | None = None, device: str = "auto") -> Plan:
    """Resolve names, check parameters, and lay out the runs.

    Raises:
        ValueError: Something is unknown or does not fit; one line naming the field.
        NotComparable: A table is a sample, so that regrets and searches on it mean nothing.
    """
    tables = _open(study)
    strategies = [(m, _resolved("strategies", m)) for m in study.strategies]
    default = Method("table", "table", {}) if tables else Method("full", "full", {})
    estimators = [(m, _resolved("estimators", m)) for m in study.estimators or (default,)]
    options = {"batch": study.batch, "dedupe": study.dedupe, "redraw": study.redraw, "retrain": study.retrain}
    worlds: list[tuple[str | None, dict[str, Json]]] = [(n, _table_world(study, t)) for n, t in tables.items()]
    worlds = worlds or [(None, _data_world(study, data_root, device))]
    runs = []
    for table, world in worlds:
        space = tables[table].space if table else registry.space(world["space"])
        _try(space, [r for _, r in strategies], [r for _, r in estimators])
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
    return Plan(study, tuple(runs), tables, pipelines, hashlib.sha256(text.encode()).hexdigest())


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
    field = role.removesuffix("ies") + "y" if role == "strategies" else "estimator"
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


def _try(
    space: SearchSpace, strategies: Sequence[Mapping[str, Json]], estimators: Sequence[Mapping[str, Json]]
) -> None:
    """Build every method once, so that a parameter that it refuses is one line now and not a failure of each run."""
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
            if inspect.isclass(found):
                found(**params)
            elif params:
                raise ValueError("a function takes no parameters")


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


def _data_world(study: Study, data_root: Path | None, device: str) -> dict[str, Json]:
    from ..protocols.training import DATASETS, PIPELINES, arithmetic, load

    name = study.pipeline or "adam"
    if name not in PIPELINES:
        raise ValueError(registry.unknown("pipeline", name, tuple(PIPELINES)))
    if study.data not in DATASETS:
        raise ValueError(registry.unknown("data", study.data or "", tuple(DATASETS)))
    try:
        space = registry.space(study.space or "")
    except ValueError:
        raise
    except Exception as error:  # a class of the user's own that is no space
        raise ValueError(f"space: {study.space!r} cannot be built ({_line(error)})") from error
    view = load(study.data, data_root)
    pipeline = PIPELINES[name]
    unit: Unit = "epochs"
    limit = float(DEFAULT_EVALUATIONS * pipeline.epochs)
    if study.budget is not None:
        unit, limit = read_budget(study.budget)
    if unit == "seconds":
        raise ValueError("budget: without a table a budget is in epochs, evals or flops; seconds would not repeat")
    return {
        "space": space.name,
        "table": None,
        "data": {"name": study.data, "digest": view.task.digest},
        "pipeline": {"name": name, "digest": pipeline.digest},
        "budget": {"unit": unit, "limit": limit},
        "machine": arithmetic(device),
    }
