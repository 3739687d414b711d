"""Reading a results file: CSV, Parquet or npz as named columns, and finding what a map names in them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...methods import registry
from .mapfile import Map

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 20
"""Columns that an error message lists; wide files have hundreds."""

EMPTY = ["", "nan", "NaN", "NA"]
"""What an empty cell looks like in a CSV file."""

PLACEHOLDERS = {"{seed}": r"(?P<seed>\d+)", "{epoch}": r"(?P<epoch>\d+)", "{pipeline}": r"(?P<pipeline>[\w+-]+?)"}


class Place(NamedTuple):
    """One column of a quantity, and the labels that its name fixes; None where they stand in columns of their own."""

    column: str
    seed: int | None = None
    epoch: int | None = None
    pipeline: str | None = None


class Source:
    """The rows of a results file that the map selects.

    Args:
        m: The map.

    Attributes:
        header: Names of all columns.
        unused: Those that the map does not name.
        excluded: Number of rows that `where` leaves out.

    Raises:
        ValueError: One line: the file cannot be read, or lacks a column that the map names.
    """

    def __init__(self, m: Map) -> None:
        self.m = m
        frame = _READERS[_kind(m)](m)
        self.header = tuple(map(str, frame.columns))
        self._places = {f"columns.{k}": self._find(f"columns.{k}", v) for k, v in m.columns.items() if k != "genes"}
        self._places |= {f"columns.genes.{i}": self._find("columns.genes", v) for i, v in enumerate(self._genes())}
        self._places |= {f"features.{k}": self._find(f"features.{k}", v) for k, v in m.features.items()}
        self._places |= {f"where.{k}": self._find(f"where.{k}", k) for k in m.where}
        if m.cost:
            self._places["cost.column"] = self._find("cost.column", m.cost.column)
        used = {p.column for places in self._places.values() for p in places}
        self.unused = tuple(c for c in self.header if c not in used)
        kept = self._selected(frame)
        self.excluded = len(frame) - int(kept.sum())
        self._frame = frame[kept]
        if not kept.any():
            raise ValueError(f"{m.path.name}: where: no row of {m.file.name} is left")

    def __len__(self) -> int:
        return len(self._frame)

    def places(self, field: str) -> Sequence[Place]:
        """The columns that a field of the map names; none where it has no such field."""
        return self._places.get(field, ())

    def error(self, column: str, row: int, what: str) -> ValueError:
        """One line with file, column and row; rows are counted from 1, without the header."""
        return ValueError(f"{self.m.file.name}: column {column!r}, row {int(self._frame.index[row]) + 1}: {what}")

    def numbers(
        self,
        column: str,
        lines: np.ndarray | None = None,
        *,
        empty: str | None = None,
        diverged: float | None = None,
    ) -> np.ndarray:
        """Cells of a column as float64 (k,), NaN where they are empty.

        Args:
            column: Its name.
            lines: Which rows (k,); None for all.
            empty: What to do about empty cells, for the error that they are; None where they are allowed.
            diverged: The infinity that is a value, if one is.
        """
        import pandas as pd

        series = self._frame[column] if lines is None else self._frame[column].iloc[lines]
        values: np.ndarray = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        absent = series.isna().to_numpy()
        checks = ((np.isnan(values) & ~absent, "not a number"), (np.isinf(values) & (values != diverged), "not finite"))
        for wrong, what in checks if empty is None else (*checks, (absent, "")):
            if wrong.any():
                at = int(np.argmax(wrong))
                text = f"{str(series.iloc[at])!r} is {what}" if what else f"the cell is empty{empty}"
                raise self.error(column, at if lines is None else int(lines[at]), text)
        return values

    def integers(self, column: str, least: int) -> np.ndarray:
        """A column as int64 (rows,), every value >= `least`."""
        values = self.numbers(column, empty="")
        wrong = (values != np.rint(values)) | (values < least) | (values > 2**53)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise self.error(column, row, f"{values[row]:g} is not an integer >= {least}")
        return values.astype(np.int64)

    def texts(self, column: str) -> tuple[np.ndarray, list[str]]:
        """A column as codes (rows,) into its different texts, in the order in which they appear."""
        import pandas as pd

        codes, different = pd.factorize(self._frame[column])
        if (codes < 0).any():
            raise self.error(column, int(np.argmax(codes < 0)), "the cell is empty")
        return codes, [_plain(value) for value in different]

    def _genes(self) -> Sequence[str]:
        genes: Sequence[str] = self.m.columns.get("genes", ())
        return genes

    def _find(self, field: str, name: str) -> tuple[Place, ...]:
        """The column of a name, or all columns that match a pattern such as `valid_{seed}`."""
        file, path = self.m.file.name, self.m.path.name
        if self.m.axes and name not in self.header:
            name += f"[{','.join(f'{{{axis}}}' for axis in self.m.axes)}]"
        if not any(p in name for p in PLACEHOLDERS):
            if name not in self.header:
                raise ValueError(f"{path}: {registry.unknown(f'{field} (of {file})', name, self._shown(name))}")
            return (Place(name),)
        if not field.startswith(("columns.train", "columns.valid", "columns.test", "columns.value", "cost.")):
            raise ValueError(f"{path}: {field}: {name!r} is a pattern; allowed in columns of splits and of costs")
        pattern = re.escape(name)
        for placeholder, expression in PLACEHOLDERS.items():
            pattern = pattern.replace(re.escape(placeholder), expression, 1)
        found = []
        for column in self.header:
            if match := re.fullmatch(pattern, column):
                labels = match.groupdict()
                seed, epoch = (None if (n := labels.get(k)) is None else int(n) for k in ("seed", "epoch"))
                found.append(Place(column, seed, self._epoch(epoch, column), labels.get("pipeline")))
        if not found:
            shown = ", ".join(self._shown(name))
            raise ValueError(f"{path}: {field}: no column of {file} matches {name!r}; it has {shown}")
        for label in ("seed", "epoch", "pipeline"):
            if f"{{{label}}}" in name and label in self.m.columns:
                raise ValueError(f"{path}: {field}: {name!r} and columns.{label} both give the {label}; leave one out")
        return tuple(found)

    def _epoch(self, epoch: int | None, column: str) -> int | None:
        if epoch is not None and epoch < self.m.first_epoch:
            raise ValueError(f"{self.m.file.name}: column {column!r}: epochs are counted from {self.m.first_epoch}")
        return None if epoch is None else epoch + 1 - self.m.first_epoch

    def _shown(self, name: str) -> tuple[str, ...]:
        """The header, or the columns most like `name` of a long one."""
        if len(self.header) <= SHOWN:
            return self.header
        from difflib import get_close_matches

        return (*(get_close_matches(name, self.header, SHOWN, 0.5) or self.header[:SHOWN]), "...")

    def _selected(self, frame: pd.DataFrame) -> np.ndarray:
        kept = np.ones(len(frame), bool)
        for column, value in self.m.where.items():
            series = frame[column]
            if isinstance(value, str) or series.dtype.kind not in "iufb":
                kept &= (series.map(_plain) == _plain(value)).to_numpy(bool)
            elif isinstance(value, (bool, int, float)):
                kept &= (series == value).to_numpy(bool)
            else:
                raise ValueError(f"{self.m.path.name}: where.{column}: {value!r} is not a text or a number")
        return kept


def _plain(value: Any) -> str:
    """As text; 12.0 and 12 are the same."""
    return str(int(value)) if isinstance(value, (float, np.floating)) and float(value).is_integer() else str(value)


def _kind(m: Map) -> str:
    name = m.file.name.lower()
    for suffix in _READERS:
        if name.endswith(suffix):
            if m.axes and suffix != ".npz":
                raise ValueError(f"{m.path.name}: axes: are for npz files; wide columns are named by a pattern")
            if not m.file.is_file():
                raise ValueError(f"{m.path.name}: file: there is no file {m.file}")
            return suffix
    raise ValueError(f"{m.path.name}: file: {m.file.name!r} does not end with one of {', '.join(_READERS)}")


def _csv(m: Map) -> pd.DataFrame:
    import pandas as pd

    separator = "\t" if ".tsv" in m.file.name.lower() else m.separator
    options: dict[str, Any] = {"sep": separator, "encoding": "utf-8-sig"}
    # The default reads every digit since pandas 3.1, which deprecates the option.
    old = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
    exact: dict[str, Any] = {"float_precision": "round_trip"} if old else {}
    try:
        header = pd.read_csv(m.file, header=None, nrows=1, dtype=str, keep_default_na=False, **options).iloc[0]
        names = [str(name) for name in header]
        _each_once(m, names)
        with warnings.catch_warnings():
            # A row longer than the header is otherwise cut off with a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame: pd.DataFrame = pd.read_csv(
                m.file, dtype={n: str for n in _text_columns(m) if n in names}, index_col=False, low_memory=False,
                keep_default_na=False, na_values=EMPTY, **exact, **options,
            )  # fmt: skip
            return frame
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{m.file.name}: {' '.join(str(error).split())}") from None


def _text_columns(m: Map) -> Iterator[str]:
    """Columns whose cells stay texts, whatever they look like: `00012` is an architecture of `macro`."""
    yield from (m.columns[k] for k in ("architecture", "pipeline", "split") if k in m.columns)
    yield from m.columns.get("genes", ())
    yield from (k for k, v in m.where.items() if isinstance(v, str))


def _parquet(m: Map) -> pd.DataFrame:
    import pandas as pd

    try:
        frame = pd.read_parquet(m.file)
    except ImportError:
        raise ValueError(f"{m.file.name}: reading Parquet needs the package pyarrow") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{m.file.name}: {' '.join(str(error).split())}") from None
    named = [name for name in frame.index.names if name is not None]
    frame = frame.reset_index(drop=not named)
    _each_once(m, [str(c) for c in frame.columns])
    return frame.set_axis([str(c) for c in frame.columns], axis=1)


def _npz(m: Map) -> pd.DataFrame:
    """Arrays of one axis are columns; further axes, labelled by `axes`, become columns `name[seed,epoch]`."""
    import pandas as pd

    try:
        with np.load(m.file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ValueError(f"{m.file.name}: {' '.join(str(error).split())}") from None
    labels = [_axis_labels(m, axis, given, arrays) for axis, given in m.axes.items()]
    arrays = {n: a for n, a in arrays.items() if n not in m.axes.values()}
    rows = {len(a) for a in arrays.values() if a.ndim}
    if len(rows) != 1 or any(a.ndim == 0 for a in arrays.values()):
        shapes = ", ".join(f"{n} {a.shape}" for n, a in arrays.items())
        raise ValueError(f"{m.file.name}: arrays must have one first axis in common, the rows: {shapes}")
    columns: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if array.ndim == 1:
            columns[name] = array
            continue
        if array.shape[1:] != tuple(map(len, labels)):
            named = ", ".join(f"{axis} {len(values)}" for axis, values in zip(m.axes, labels, strict=True))
            raise ValueError(f"{m.file.name}: array {name!r} has shape {array.shape}; the map's axes are {named or 0}")
        for position in product(*(range(len(values)) for values in labels)):
            label = ",".join(str(values[i]) for values, i in zip(labels, position, strict=True))
            columns[f"{name}[{label}]"] = array[:, *position]
    return pd.DataFrame(columns)


def _axis_labels(m: Map, axis: str, given: Any, arrays: Mapping[str, np.ndarray]) -> list[Any]:
    where = f"{m.path.name}: axes.{axis}"
    if axis not in ("seed", "epoch", "pipeline"):
        raise ValueError(f"{m.path.name}: {registry.unknown('axes', axis, ('seed', 'epoch', 'pipeline'))}")
    if isinstance(given, str):
        if given not in arrays or arrays[given].ndim != 1:
            raise ValueError(f"{where}: {given!r} is no array of one axis in {m.file.name}")
        given = arrays[given].tolist()
    if not isinstance(given, list) or not given or len(set(map(str, given))) != len(given):
        raise ValueError(f"{where}: {given!r} is not a list of different labels, or the name of an array of them")
    return given


def _each_once(m: Map, names: Sequence[str]) -> None:
    if twice := [n for i, n in enumerate(names) if n in names[:i]]:
        raise ValueError(f"{m.file.name}: two columns are called {twice[0]!r}")


_READERS = {".csv": _csv, ".csv.gz": _csv, ".tsv": _csv, ".tsv.gz": _csv, ".parquet": _parquet, ".npz": _npz}
