"""What all statistics share: checked inputs, and results that turn into JSON.

A NaN among the inputs is an error of the caller and raises, naming its positions. A statistic that is undefined for
sound inputs (too few seeds, no variance) is a result: NaN in the field, and a sentence in ``reason``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Vector: TypeAlias = npt.NDArray[np.float64]
Tables: TypeAlias = Sequence[npt.ArrayLike]
"""One entry per table, each the 1-d array of that table's values by seed; tables may differ in length."""

SHOWN = 10


class Result:
    """Base of the frozen dataclasses that statistics return."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values.

        NaN becomes ``None``; infinities become the strings ``"inf"`` and ``"-inf"``; arrays and tuples become lists.
        """
        return {f.name: jsonable(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate(Result):
    """A single number that may be undefined: ``value`` is then NaN and ``reason`` says why."""

    value: float
    n: int
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Interval(Result):
    """An estimate with its confidence interval.

    Attributes:
        estimate: The statistic on the data.
        low: Lower limit, NaN if undefined.
        high: Upper limit, NaN if undefined.
        level: Nominal coverage.
        method: ``bootstrap``, ``bootstrap-paired``, ``t``, ``t-paired``, ``t-welch`` or ``placements``.
        n: Smallest number of seeds on a table, of either strategy.
        reason: Why the limits are NaN, or a warning about the method; else empty.
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str
    n: int
    reason: str = ""

    @property
    def half_width(self) -> float:
        """Half the distance between the limits."""
        return (self.high - self.low) / 2.0


def jsonable(value: object) -> Any:
    """Turn numpy values, tuples and non-finite floats into what ``json.dumps(allow_nan=False)`` accepts."""
    if isinstance(value, np.ndarray):
        return [jsonable(v) for v in value.tolist()]
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, (tuple, list)):
        return [jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def checked(values: npt.ArrayLike, name: str, *, ndim: int | None = 1, finite: bool = True) -> Vector:
    """Return ``values`` as a float64 array after checking shape and content.

    Args:
        values: Numbers; booleans count as 0 and 1.
        name: How an error message calls them.
        ndim: Required number of dimensions, or None for any.
        finite: Refuse infinities as well as NaN.

    Raises:
        ValueError: Wrong number of dimensions, a NaN, or (if ``finite``) an infinity; the message names the positions.
    """
    array = np.asarray(values, dtype=np.float64)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {array.shape}")
    bad = ~np.isfinite(array) if finite else np.isnan(array)
    if bad.any():
        what = "NaN or infinite values" if finite else "NaN"
        where = [tuple(int(i) for i in index) for index in np.argwhere(bad)]
        flat = [index[0] if len(index) == 1 else index for index in where]
        more = f" and {len(flat) - SHOWN} more" if len(flat) > SHOWN else ""
        raise ValueError(f"{name} has {what} at positions {flat[:SHOWN]}{more}")
    return array


def checked_tables(tables: Tables, name: str, *, finite: bool = True) -> list[Vector]:
    """Return the tables as a list of non-empty 1-d float64 arrays.

    Raises:
        TypeError: ``tables`` is one array. A matrix does not say whether its rows are seeds or tables, so a
            ``[seed, table]`` matrix must be passed as ``list(matrix.T)``.
        ValueError: No table, an empty table, or a NaN (the message names table and positions).
    """
    if hasattr(tables, "ndim"):
        raise TypeError(
            f"{name} must be a list with one array per table; for a [seed, table] matrix pass list({name}.T)"
        )
    arrays = [checked(values, f"{name}[table {t}]", finite=finite) for t, values in enumerate(tables)]
    if not arrays:
        raise ValueError(f"{name} has no table")
    for t, array in enumerate(arrays):
        if array.size == 0:
            raise ValueError(f"{name}[table {t}] has no value")
    return arrays


def checked_pair(
    new: Tables, base: Tables, names: tuple[str, str], *, paired: bool = False, finite: bool = True
) -> tuple[list[Vector], list[Vector]]:
    """Check the tables of two strategies against each other.

    Raises:
        ValueError: Different numbers of tables, or (if ``paired``) different numbers of seeds on one table.
    """
    left = checked_tables(new, names[0], finite=finite)
    right = checked_tables(base, names[1], finite=finite)
    if len(left) != len(right):
        raise ValueError(f"{names[0]} has {len(left)} tables, {names[1]} has {len(right)}")
    if paired:
        for t, (a, b) in enumerate(zip(left, right, strict=True)):
            if a.size != b.size:
                raise ValueError(f"paired comparison, but table {t} has {a.size} and {b.size} seeds")
    return left, right


def mean_over_tables(tables: Sequence[Vector]) -> float:
    """Mean over tables of the mean over seeds: every table has the same weight, however many seeds it has."""
    return float(np.mean([x.mean() for x in tables]))


def checked_fraction(value: float, name: str) -> float:
    """Return ``value`` if it lies strictly between 0 and 1, else raise ValueError."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value}")
    return float(value)


def midranks(values: Vector) -> tuple[Vector, npt.NDArray[np.int64]]:
    """Rank from 1, ties sharing the mean of their ranks.

    Returns:
        The ranks in input order, and the sizes of the groups of equal values (in increasing order of value).
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    sizes = counts.astype(np.int64)
    rank_of_group = np.cumsum(sizes) - (sizes - 1) / 2.0
    return np.asarray(rank_of_group[inverse.reshape(-1)], dtype=np.float64), sizes
