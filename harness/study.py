"""Studies: what to compare, read from a TOML file or flags, and checked field by field."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..methods import registry
from ..protocols import UNITS, Json, Unit

BASELINE = "random"
"""Random search is part of every comparison (Li & Talwalkar 2019; Lindauer & Hutter 2020, practice 8)."""

_MOST_SEEDS = 100_000


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
