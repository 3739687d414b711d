"""What a table says, in numbers: from its validation values, never from the sealed ones.

One line of every array is one architecture of the table: of a complete one all members of the space, in order, so that
members of merged rows count each. What is missing is left out, and counted; nothing is imputed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from math import ceil, floor

import numpy as np

from ..protocols import MissingEntry
from .deviation import measured
from .manifest import MISSING
from .table import MappedTable

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Lower:
    """What trainings at a lower fidelity say about full ones.

    Attributes:
        fidelity: As `Fidelity.text`.
        spearman: Between the qualities at the two fidelities; None where it is undefined.
        cost: Median over architectures of the cost, as a share of that of full training; None where that is 0.
        trainings: Number recorded.
    """

    fidelity: str
    spearman: float | None
    cost: float | None
    trainings: int


@dataclass(frozen=True, slots=True)
class PipelineFacts:
    """What a table holds of one pipeline, at full fidelity. A quality is a mean over the seeds that are there.

    Attributes:
        pipeline: Name.
        recorded: Trainings.
        missing: Trainings that are not there, of architectures x seeds.
        without: Architectures that have no training at all.
        diverged: Trainings whose metric is infinite.
        quantiles: Of the qualities, at 0, 25, 50, 75 and 100 %.
        top: The best five: architecture, quality, number of seeds behind it.
        sd_seeds: Standard deviation between seeds of one architecture, pooled; None where nobody has two.
        sd_architectures: Standard deviation of the qualities beyond what seeds explain.
        share: Of the variance of single trainings that is between architectures, in [0, 1].
        spearman_seeds: Between the first and the second training of every architecture that has two.
        spearman_better_half: The same among the architectures of better quality than the median.
        median_cost: Of a full training, in the table's clock.
        lower: By fidelity below full.

    Deviations are of `deviation.measured`: of perplexities, of their logarithms; of architectures without a diverged
    training. Numbers that are undefined are None.
    """

    pipeline: str
    recorded: int
    missing: int
    without: int
    diverged: int
    quantiles: tuple[float, ...]
    top: tuple[tuple[str, float, int], ...]
    sd_seeds: float | None
    sd_architectures: float | None
    share: float | None
    spearman_seeds: float | None
    spearman_better_half: float | None
    median_cost: float
    lower: tuple[Lower, ...]


def facts(table: MappedTable, pipeline: str) -> PipelineFacts:
    """All facts of one pipeline."""
    values = final(table, pipeline)
    f = quality(values)
    there, first = ~np.isnan(values), pairs(values)
    sd_architectures, sd_seeds = deviations(measured(values, table.task.metric))
    share = None
    if sd_seeds is not None and sd_architectures is not None and (sd_architectures or sd_seeds):
        share = sd_architectures**2 / (sd_architectures**2 + sd_seeds**2)
    two = there.sum(1) >= 2
    oriented = f[two] if table.task.higher_is_better else -f[two]
    better = oriented >= np.median(oriented) if two.any() else two[two]
    return PipelineFacts(
        pipeline,
        recorded=int(there.sum()),
        missing=int((~there).sum()),
        without=table.without_training(pipeline),
        diverged=int(np.isinf(values).sum()),
        quantiles=quantiles(f),
        top=tuple((table.text(row), mean, len(trainings)) for row, mean, trainings in best(table, values, 5)),
        sd_seeds=sd_seeds,
        sd_architectures=sd_architectures,
        share=share,
        spearman_seeds=spearman(*first.T),
        spearman_better_half=spearman(*first[better].T),
        median_cost=table.median_cost(pipeline),
        lower=tuple(_lower(table, pipeline, fidelity, f) for fidelity in table.fidelities[pipeline]),
    )


def final(table: MappedTable, pipeline: str, fidelity: str = "") -> np.ndarray:
    """Validation metric after the last epoch, (architectures, seeds), NaN where missing; accuracies as fractions."""
    name = f"{pipeline}@{fidelity}" if fidelity else pipeline
    last = table.array(f"valid.{name}")[:, :, -1][table.members()]
    if table.task.metric != "accuracy":
        return np.array(last, np.float64)
    return np.where(last == MISSING, np.nan, last / table.manifest["examples"]["valid"])


def quality(values: np.ndarray) -> np.ndarray:
    """Mean over the training seeds that are there, (rows,): what a report calls f(a). NaN where there is none."""
    there = ~np.isnan(values)
    total = np.where(there, values, 0.0).sum(1)
    means: np.ndarray = np.divide(total, there.sum(1), out=np.full(len(total), np.nan), where=there.any(1))
    return means


def costs(table: MappedTable, pipeline: str, fidelity: str = "") -> np.ndarray:
    """Cost of all epochs, (architectures,), mean over the seeds that are there, in the table's clock."""
    name = f"{pipeline}@{fidelity}" if fidelity else pipeline
    cost = table.array(f"cost.{name}")[table.members()]
    epochs: Sequence[int] = table.manifest["epochs"].get(name) or table.manifest["epochs"][pipeline]
    return cost * epochs[-1] if cost.ndim == 1 else quality(cost[:, :, -1])


def best(table: MappedTable, values: np.ndarray, n: int) -> list[tuple[int, float, tuple[float, ...]]]:
    """The n rows of best quality, the best first: row, quality, its trainings. Merged members are named once."""
    f, members = quality(values), table.members()
    order = np.argsort(-f if table.task.higher_is_better else f, kind="stable")[: int((~np.isnan(f)).sum())]
    rows: dict[int, int] = {}
    for i in order.tolist():
        rows.setdefault(int(members[i]), i)
        if len(rows) == n:
            break
    return [(row, float(f[i]), tuple(values[i][~np.isnan(values[i])].tolist())) for row, i in rows.items()]


def quantiles(x: np.ndarray) -> tuple[float, ...]:
    """Linearly interpolated quantiles of what is there; infinite as soon as an infinite value has a part in one."""
    ordered = np.sort(x[~np.isnan(x)]).tolist()
    found = []
    for q in QUANTILES:
        place = q * (len(ordered) - 1)
        low, high = ordered[floor(place)], ordered[ceil(place)]
        found.append(high if high in (low, np.inf) else low + (high - low) * (place - floor(place)))
    return tuple(found)


def deviations(values: np.ndarray) -> tuple[float | None, float | None]:
    """Standard deviations between architectures, and between seeds of one architecture.

    The latter is pooled over architectures with two seeds; the former is what the variance of the means exceeds that
    explains. Architectures with an infinite value are left out.
    """
    values = values[~np.isinf(values).any(1)]
    n = (~np.isnan(values)).sum(1)
    values, n = values[n > 0], n[n > 0]
    f = quality(values)
    freedom = int((n - 1).sum())
    within = float(np.nansum((values - f[:, None]) ** 2)) / freedom if freedom else None
    between = float(np.var(f, ddof=1)) - (within or 0.0) * float((1 / n).mean()) if len(f) > 1 else None
    return (
        None if between is None else float(np.sqrt(max(between, 0.0))),
        None if within is None else float(np.sqrt(within)),
    )


def pairs(values: np.ndarray) -> np.ndarray:
    """The first and the second training that is there, (k, 2), of the k architectures that have two."""
    there = ~np.isnan(values)
    two = there.sum(1) >= 2
    place = np.argsort(~there[two], axis=1, kind="stable")[:, :2]
    return np.take_along_axis(values[two], place, 1) if two.any() else np.zeros((0, 2))


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Rank correlation with mid-ranks where both are there; None of fewer than three pairs, or of a constant."""
    both = ~np.isnan(x) & ~np.isnan(y)
    if both.sum() < 3:
        return None
    a, b = (_ranks(v[both]) - (both.sum() + 1) / 2 for v in (x, y))
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm else None


def _ranks(x: np.ndarray) -> np.ndarray:
    """From 1, equal values at the mean of their ranks; scipy's takes seconds to import."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def columns(table: MappedTable, others: Sequence[MappedTable] = ()) -> dict[str, np.ndarray]:
    """Qualities by pipeline, oriented so that higher is better, and those of other tables at the same architectures.

    Returns:
        Per `pipeline` of the table, and `table:pipeline` of each other, (architectures,), NaN where there is none.

    Raises:
        ValueError: Another table is of another family of spaces.
    """
    found = {p: _oriented(table, quality(final(table, p))) for p in table.pipelines}
    for other in others:
        if other.space.family != table.space.family:
            raise ValueError(
                f"beside: {other.name!r} is a table of the space {other.space.family!r}, not of {table.space.family!r}"
            )
        place = _places(table, other)
        for p in other.pipelines:
            f = _oriented(other, _by_row(other, quality(final(other, p))))
            found[f"{other.name}:{p}"] = np.where(place >= 0, f[place], np.nan)
    return found


def correlations(qualities: Mapping[str, np.ndarray]) -> dict[tuple[str, str], float | None]:
    """Spearman's rank correlation of every two columns."""
    return {(a, b): spearman(qualities[a], qualities[b]) for a, b in combinations(qualities, 2)}


def _lower(table: MappedTable, pipeline: str, fidelity: str, full: np.ndarray) -> Lower:
    values = final(table, pipeline, fidelity)
    part, whole = (float(np.nanmedian(costs(table, pipeline, name))) for name in (fidelity, ""))
    share = part / whole if whole else None
    return Lower(fidelity, spearman(full, quality(values)), share, int((~np.isnan(values)).sum()))


def _oriented(table: MappedTable, f: np.ndarray) -> np.ndarray:
    return f if table.task.higher_is_better else -f


def _by_row(table: MappedTable, f: np.ndarray) -> np.ndarray:
    """From members to rows."""
    members = table.members()
    rows = np.full(len(table.array(f"valid.{next(iter(table.pipelines))}")), np.nan)
    rows[members] = f
    return rows


def _places(table: MappedTable, other: MappedTable) -> np.ndarray:
    """The row of `other` of every architecture of `table`; -1 where it has none."""
    members = table.members()
    same = (table.space.name, table.manifest["architectures"]) == (other.space.name, other.manifest["architectures"])
    if same and table.manifest["canonical"] is None and other.manifest["canonical"] is None:
        return members
    found = np.full(len(members), -1)
    for i, row in enumerate(members.tolist()):
        with suppress(MissingEntry):
            found[i] = other.row(table.architecture(row))
    return found
