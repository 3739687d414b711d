"""Scores that a user computed elsewhere: a CSV or Parquet file, checked line by line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import isinf, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np

from ..methods import registry
from ..protocols import Traits
from ..protocols.evidence import Scores, Truth
from ..tabular.format import sha256

__all__ = ["user_scores"]

NEEDED = ("architecture", "score")
OPTIONAL = ("seconds", "seed", "estimator")
FEWEST = 3

Rows = list[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Line:
    """A row of the file; `where` is how a message names it."""

    where: str
    estimator: str
    seed: int
    place: int
    score: float
    seconds: float


def user_scores(
    path: Path, truth: Truth, *, higher_is_better: bool = True, accuracy_scale: bool = False
) -> list[Scores]:
    """Scores from a file with the columns `architecture`, `score` and, if need be, `seconds`, `seed`, `estimator`.

    Architectures are in any notation that the space reads; one that the table lists by its canonical form alone is
    taken for that. One that the file does not name was not asked for. Seconds are all that a score cost, preparation
    shared out. Columns of several seeds that are equal make an estimator deterministic; one seed cannot tell.

    Args:
        path: `.csv` (commas, a header, UTF-8) or `.parquet`.
        truth: Of the table that the scores are about.
        higher_is_better: False for a loss: its negative becomes the score.
        accuracy_scale: Whether scores estimate the metric of the table itself, accuracies as fractions.

    Returns:
        One for each name in the column `estimator`, in the file's order; without it one, named as the file.

    Raises:
        ValueError: One line naming file and line: unknown or missing columns, cells that are no finite numbers, unknown
            or repeated architectures, fewer than three architectures or a constant score for a seed.
    """
    if accuracy_scale and higher_is_better != truth.higher_is_better:
        better = "higher" if truth.higher_is_better else "lower"
        raise ValueError(f"{path.name}: scores on the scale of {truth.metric} are {better} for better architectures")
    columns, rows = _read(path)
    _check_columns(path, columns)
    lines = _lines(path, rows, truth)
    if accuracy_scale and truth.metric == "accuracy":
        for line in lines:
            if not 0 <= line.score <= 1:
                raise ValueError(f"{path.name}: {line.where}: {line.score:g} is no accuracy as a fraction, in [0, 1]")
    by_name: dict[str, list[_Line]] = {}
    for line in lines:
        by_name.setdefault(line.estimator, []).append(line)
    sign = 1 if higher_is_better else -1
    source, timed = sha256(path), "seconds" in columns
    return [
        _scores(path, name, own, truth, source=source, sign=sign, timed=timed, accuracy_scale=accuracy_scale)
        for name, own in by_name.items()
    ]


def _read(path: Path) -> tuple[list[str], Rows]:
    readers: Mapping[str, Callable[[Path], tuple[list[str], Rows]]] = {".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path.name}: scores are read from files that end with one of {', '.join(readers)}")
    if not path.is_file():
        raise ValueError(f"{path.name}: there is no file {path}")
    return readers[path.suffix.lower()](path)


def _csv(path: Path) -> tuple[list[str], Rows]:
    rows: Rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            for cells in reader:
                where = f"line {reader.line_num}"
                if cells and len(cells) != len(columns):
                    raise ValueError(f"{where}: {len(cells)} cells, but the header has {len(columns)}")
                if cells:
                    rows.append((where, dict(zip(columns, (c.strip() for c in cells), strict=True))))
    except csv.Error as error:
        raise ValueError(f"{path.name}: line {reader.line_num}: {error}") from None
    except ValueError as error:  # not UTF-8 too
        raise ValueError(f"{path.name}: {error}") from None
    return columns, rows


def _parquet(path: Path) -> tuple[list[str], Rows]:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise ValueError(f"{path.name}: reading Parquet needs the package pyarrow") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {' '.join(str(error).split())}") from None
    named = [name for name in frame.index.names if name is not None]
    frame = frame.reset_index(drop=not named)
    columns = [str(name) for name in frame.columns]
    cells = zip(*(frame.iloc[:, i].tolist() for i in range(len(columns))), strict=True)
    return columns, [(f"row {i}", dict(zip(columns, c, strict=True))) for i, c in enumerate(cells, start=1)]


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for name in NEEDED:
        if name not in columns:
            raise ValueError(
                f"{path.name}: there is no column {name!r}; needed are {', '.join(NEEDED)}, and may be "
                f"{', '.join(OPTIONAL)}; there are {', '.join(columns) or 'none'}"
            )
    for name in columns:
        if name not in (*NEEDED, *OPTIONAL):
            raise ValueError(registry.unknown(f"{path.name}: column", name, (*NEEDED, *OPTIONAL)))
        if columns.count(name) > 1:
            raise ValueError(f"{path.name}: the column {name!r} is there twice")


def _lines(path: Path, rows: Rows, truth: Truth) -> list[_Line]:
    find = _finder(truth)
    first: dict[tuple[str, int, int], str] = {}
    unknown: list[str] = []
    lines: list[_Line] = []
    for where, row in rows:
        try:
            place = find(str(row["architecture"]))
        except ValueError as error:
            unknown.append(f"{where}: {error}")
            continue
        try:
            line = _line(where, row, place, path.stem)
            key = line.estimator, line.seed, place
            if first.setdefault(key, where) != where:
                raise ValueError(f"{row['architecture']!r} has its score in {first[key]} already")
        except ValueError as error:
            raise ValueError(f"{path.name}: {where}: {error}") from None
        lines.append(line)
    if unknown:
        more = f"; {len(unknown)} rows name architectures that are not in it" if len(unknown) > 1 else ""
        raise ValueError(f"{path.name}: {unknown[0]}{more}")
    if not lines:
        raise ValueError(f"{path.name}: there are no scores below the header")
    return lines


def _finder(truth: Truth) -> Callable[[str], int]:
    """A function from a notation to the row of the truth; ValueError where there is none."""
    place = {text: i for i, text in enumerate(truth.architectures)}
    space = registry.space(truth.space)

    @cache
    def find(text: str) -> int:
        if text in place:
            return place[text]
        try:
            a = space.parse(text)
            space.check(a)
            for same in (a, space.canonical(a)):
                if (known := space.text(same)) in place:
                    return place[known]
        except ValueError as error:
            why = " ".join(str(error).split())
            raise ValueError(f"{text!r} is no architecture of the table {truth.table!r} ({why})") from None
        raise ValueError(f"{text!r} is not among the {len(place)} architectures of the table {truth.table!r}")

    return find


def _line(where: str, row: Mapping[str, Any], place: int, stem: str) -> _Line:
    seed = _number(row, "seed") if "seed" in row else 0.0
    if seed != round(seed):
        raise ValueError(f"seed: {row['seed']!r} is not an integer")
    seconds = _number(row, "seconds") if "seconds" in row else nan
    if seconds < 0:
        raise ValueError(f"seconds: {row['seconds']!r} is less than 0")
    estimator = row.get("estimator", stem)
    if not isinstance(estimator, str) or not estimator.strip() or not estimator.isprintable():
        raise ValueError(f"estimator: {estimator!r} is not a printable name")
    return _Line(where, estimator, int(seed), place, _number(row, "score"), seconds)


def _number(row: Mapping[str, Any], column: str) -> float:
    cell = row[column]
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = nan
    if isnan(value) or isinf(value):
        what = "not a number" if isnan(value) else "infinite"
        hint = "; where there is no score, leave the line out" if column == "score" else ""
        raise ValueError(f"{column}: {cell!r} is {what}{hint}")
    return value


def _scores(
    path: Path, name: str, lines: Sequence[_Line], truth: Truth, *,
    source: str, sign: int, timed: bool, accuracy_scale: bool,
) -> Scores:  # fmt: skip
    seeds = sorted({line.seed for line in lines})
    for seed in seeds:
        who = f"{name!r} with seed {seed}" if len(seeds) > 1 else repr(name)
        _check_column(path, who, [line for line in lines if line.seed == seed])
    shape = len(truth.architectures), len(seeds)
    values, seconds = np.full(shape, nan), np.full(shape, nan)
    at = [line.place for line in lines], [seeds.index(line.seed) for line in lines]
    values[at], seconds[at] = [sign * line.score for line in lines], [line.seconds for line in lines]
    there = ~np.isnan(values)
    asked = there.any(1)
    lacking = {f"not in the file for seed {s}": int((asked & ~t).sum()) for s, t in zip(seeds, there.T, strict=True)}
    repeated = len(seeds) > 1 and all(np.array_equal(values[:, 0], column, equal_nan=True) for column in values.T)
    return Scores(
        name=name,
        source=source,
        traits=Traits(accuracy_scale=accuracy_scale, deterministic=repeated, sign=sign),
        values=values,
        asked=asked,
        fitted=np.zeros(shape, bool),
        reasons={reason: n for reason, n in lacking.items() if n},
        costs=seconds if timed else None,
        preparation=np.full(len(seeds), 0.0 if timed else nan),
        unit="seconds" if timed else "",
        full=float(np.nanmedian(truth.cost)) if timed and truth.clock == "seconds" else nan,
    )


def _check_column(path: Path, who: str, lines: Sequence[_Line]) -> None:
    where = f"{path.name}: {lines[0].where}: {who}"
    if len(lines) < FEWEST:
        raise ValueError(f"{where} has scores of {len(lines)} architectures; an audit needs {FEWEST}")
    if len({line.score for line in lines}) == 1:
        raise ValueError(f"{where} gives every architecture the score {lines[0].score:g}")
