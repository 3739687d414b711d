"""The map of a generic import: a TOML file that says which column of a results file is what."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...methods import registry
from ...protocols import UNITS, Json, Task, Unit
from ..format import IDENTITY, SPLITS
from .arrays import MOST_EXAMPLES

Scale = Literal["fraction", "percent", "count"]
Per = Literal["training", "epoch", "cumulative"]

SCALES = ("fraction", "percent", "count")
PERS = ("training", "epoch", "cumulative")
COLUMNS = ("architecture", "index", "genes", "seed", "epoch", "pipeline", *SPLITS, "valid_test", "split", "value")
FIELDS = ("name", "file", "space", "version", "separator", "scale", "examples", "tolerance", "missing", "pipeline",
          "epochs", "first_epoch", "where", "axes", "columns", "splits", "cost", "features", "task",
          "notes")  # fmt: skip
RESERVED = (*IDENTITY, "digest", "median_cost", "imported", "default_pipeline")

FORBIDDEN = (
    "is validation and test data together, so searching on it would be searching on test data; "
    "name a column of validation values alone as {valid} (valid_test is never imported)"
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Where costs stand: the column (or pattern), the unit, and what one value is the cost of."""

    column: str
    clock: Unit
    per: Per


@dataclass(frozen=True, slots=True)
class Map:
    """A map as read, checked as far as it can be without the file; `docs/importing.md` describes each field.

    Attributes:
        path: Of the map.
        file: The results.
        columns: Role (one of `COLUMNS`) to column, pattern, or list of columns (genes).
        splits: Split to its name in the column `columns["split"]`.
        fields: Every other field as given, defaults filled in.
    """

    path: Path
    file: Path
    name: str
    space: str
    columns: Mapping[str, Any]
    splits: Mapping[str, str]
    cost: Cost | None
    features: Mapping[str, str]
    task: Task
    scale: Scale | None
    examples: Mapping[str, int]
    tolerance: float
    missing: tuple[str, ...]
    pipeline: str
    epochs: int
    first_epoch: int
    where: Mapping[str, Json]
    axes: Mapping[str, Json]
    separator: str
    version: str
    notes: Mapping[str, str]

    @property
    def measured(self) -> tuple[str, ...]:
        """The splits that are imported."""
        named = self.splits if "split" in self.columns else self.columns
        return tuple(s for s in SPLITS if s in named)

    @property
    def counts(self) -> bool:
        """Whether values are stored as counts of correct predictions."""
        return self.task.metric == "accuracy"


def read_map(path: Path) -> Map:
    """Read a map; ValueError, one line, names the field that is missing, unknown or wrong."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"map: there is no file {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"map: {path}: {' '.join(str(error).split())}") from None
    try:
        return _checked(path, given)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _checked(path: Path, given: Mapping[str, Any]) -> Map:
    _known("field", given, FIELDS)
    for key in ("name", "file", "space", "columns"):
        if key not in given:
            raise ValueError(f"the field {key!r} is missing")
    tables = {k: _table(given, k) for k in ("columns", "splits", "cost", "features", "task", "notes", "where", "axes")}
    _check_columns(tables["columns"], tables["splits"], given)
    task = _task(_text(given, "name"), tables["task"])
    made = Map(
        path=path,
        file=path.parent / _text(given, "file"),
        name=_text(given, "name"),
        space=_text(given, "space"),
        columns=tables["columns"],
        splits=tables["splits"],
        cost=_cost(tables["cost"]) if "cost" in given else None,
        features=_names("features", tables["features"]),
        task=task,
        scale=_scale(given, task),
        examples=dict(_table(given, "examples")),
        tolerance=_number(given, "tolerance", 0.02, 0.0, 0.49),
        missing=_missing(given),
        pipeline=pipeline_name(given.get("pipeline", "unstated")),
        epochs=int(_number(given, "epochs", 1, 1, 10**6, whole=True)),
        first_epoch=int(_number(given, "first_epoch", 1, 0, 1, whole=True)),
        where=tables["where"],
        axes=tables["axes"],
        separator=_text(given, "separator", ","),
        version=_text(given, "version", "1"),
        notes=_names("notes", tables["notes"], RESERVED),
    )
    _check_examples(made)
    if len(made.separator) != 1:
        raise ValueError(f"separator: {made.separator!r} is not one character")
    return made


def _check_columns(columns: Mapping[str, Any], splits: Mapping[str, Any], given: Collection[str]) -> None:
    _known("columns", columns, COLUMNS)
    for key, value in columns.items():
        is_list = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
        if not (is_list if key == "genes" else isinstance(value, str) and value):
            kind = "a list of columns" if key == "genes" else "the name of a column"
            raise ValueError(f"columns.{key}: {value!r} is not {kind}")
    for label, field in (("pipeline", "pipeline"), ("epoch", "epochs")):
        if field in given and (label in columns or any(f"{{{label}}}" in str(v) for v in columns.values())):
            raise ValueError(f"{field}: columns give the {label}; leave it out")
    ways = [k for k in ("architecture", "index", "genes") if k in columns]
    if len(ways) != 1:
        raise ValueError(f"columns: has {' and '.join(ways) or 'none'} of architecture, index, genes; exactly one")
    if ("split" in columns) != ("value" in columns) or ("split" in columns) != bool(splits):
        raise ValueError("columns.split: needs columns.value and the table [splits], and they need it")
    if "split" in columns:
        _known("splits", splits, (*SPLITS, "valid_test"))
        if named := [s for s in (*SPLITS, "valid_test") if s in columns]:
            raise ValueError(f"columns.{named[0]}: the splits are told apart by columns.split; name it in [splits]")
        _check_firewall("splits", _names("splits", splits))
    else:
        _check_firewall("columns", {s: columns[s] for s in (*SPLITS, "valid_test") if s in columns})


def _check_firewall(field: str, named: Mapping[str, str]) -> None:
    """Validation values must be there, test values must be there, and they must not be the same."""
    if "valid_test" in named and named["valid_test"] == named.get("valid", named["valid_test"]):
        raise ValueError(f"{field}.valid_test: {named['valid_test']!r} {FORBIDDEN.format(valid=field + '.valid')}")
    for split, why in (("valid", "what a search sees"), ("test", "what it is judged by; without it nothing compares")):
        if split not in named:
            raise ValueError(f"{field}.{split}: missing; a table needs {split} values, {why}")
    by_name: dict[str, str] = {}
    for split, name in named.items():
        if name in by_name:
            raise ValueError(f"{field}.{split}: {name!r} is {field}.{by_name[name]} already; splits must differ")
        by_name[name] = split


def _check_examples(m: Map) -> None:
    if not m.counts:
        if m.examples:
            raise ValueError("examples: are for accuracies only; leave them out")
        return
    _known("examples", m.examples, SPLITS)
    for split in (s for s in SPLITS if s in m.measured or s in m.examples):
        n = m.examples.get(split)
        if type(n) is not int or n < 1:
            raise ValueError(f"examples.{split}: {n!r} is not the number of {split} examples, an integer >= 1")
        if n > MOST_EXAMPLES and split in m.measured:
            raise ValueError(
                f"examples.{split}: counts hold up to {MOST_EXAMPLES} examples, not {n}; leave the column out, "
                "or name another metric, for example task.metric = 'top1', which is stored as float32"
            )


def _task(name: str, given: Mapping[str, Any]) -> Task:
    _known("task", given, ("name", "kind", "metric", "higher_is_better", "shape", "classes"))
    metric = _text(given, "metric", "accuracy")
    higher = given.get("higher_is_better", True if metric == "accuracy" else None)
    if type(higher) is not bool or (metric == "accuracy" and not higher):
        raise ValueError(f"task.higher_is_better: {higher!r} is not true or false, the direction of {metric!r}")
    kinds = ("image", "tabular", "regression", "text")
    if (kind := given.get("kind", "tabular")) not in kinds:
        raise ValueError(registry.unknown("task.kind", str(kind), kinds))
    shape, classes = given.get("shape", [1]), given.get("classes")
    if not isinstance(shape, list) or not shape or any(type(n) is not int or n < 1 for n in shape):
        raise ValueError(f"task.shape: {shape!r} is not a list of integers >= 1")
    if classes is not None and (type(classes) is not int or classes < 2 or "shape" not in given):
        raise ValueError(f"task.classes: {classes!r} is not an integer >= 2 beside task.shape")
    return Task(_text(given, "name", name), kind, metric, higher, tuple(shape), classes, "")


def _cost(given: Mapping[str, Any]) -> Cost:
    _known("cost", given, ("column", "clock", "per"))
    for key, allowed in (("clock", UNITS), ("per", PERS)):
        if given.get(key) not in allowed:
            raise ValueError(registry.unknown(f"cost.{key}", str(given.get(key, "")), tuple(allowed)))
    return Cost(_text(given, "column"), given["clock"], given["per"])


def _scale(given: Mapping[str, Any], task: Task) -> Scale | None:
    allowed = SCALES if task.metric == "accuracy" else SCALES[:2]
    scale: Scale | None = given.get("scale")
    if scale not in allowed and (scale is not None or task.metric == "accuracy"):
        raise ValueError(registry.unknown("scale", str(scale or ""), allowed))
    return scale


def _missing(given: Mapping[str, Any]) -> tuple[str, ...]:
    missing = given.get("missing", [])
    if not isinstance(missing, list):
        raise ValueError(f"missing: {missing!r} is not a list of splits whose empty cells were not recorded")
    _known("missing", list(map(str, missing)), SPLITS)
    return tuple(missing)


def pipeline_name(name: Any) -> str:
    """The name of a pipeline, which becomes part of file names; ValueError where it cannot."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_+-]+", name):
        raise ValueError(f"pipeline: {name!r} is not a name of letters, digits, '_', '+' and '-'")
    return name


def _known(field: str, given: Collection[str], allowed: tuple[str, ...]) -> None:
    for key in given:
        if key not in allowed:
            raise ValueError(registry.unknown(field, key, allowed))


def _table(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = given.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{key}: {value!r} is not a table of keys and values")
    return value


def _text(given: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = given.get(key, default)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: {value!r} is not a text in quotes")
    return value


def _names(field: str, given: Mapping[str, Any], reserved: tuple[str, ...] = ()) -> dict[str, str]:
    for key, value in given.items():
        if key in reserved or not re.fullmatch(r"\w+", key):
            raise ValueError(f"{field}.{key}: this name cannot be used; choose another of letters, digits and '_'")
        if not isinstance(value, str) or not value:
            raise ValueError(f"{field}.{key}: {value!r} is not a text in quotes")
    return dict(given)


def _number(
    given: Mapping[str, Any], key: str, default: float, least: float, most: float, *, whole: bool = False
) -> float:
    value = given.get(key, default)
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not least <= value <= most:
        raise ValueError(f"{key}: {value!r} is not {'an integer' if whole else 'a number'} in {least:g} .. {most:g}")
    return float(value)
