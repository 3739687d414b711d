"""Costs of trainings: from what a file has, per training, per epoch or cumulative, to what a table stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .columns import Source
from .keys import Entries, Keys, entries


def costs(
    source: Source,
    keys: Keys,
    seeds: Sequence[int],
    epochs: Mapping[str, Sequence[int]],
    there: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Costs by pipeline.

    Args:
        source: The file; its map has costs.
        keys: Labels of its rows.
        seeds: The table's axis.
        epochs: The table's axis, by pipeline.
        there: Where a validation value is, (architectures, seeds, epochs) by pipeline.

    Returns:
        (architectures,) per epoch where all epochs and seeds of an architecture cost the same, otherwise
        (architectures, seeds, epochs) cumulative; NaN where no training is.

    Raises:
        ValueError: One line: a cost is missing where a validation value is, is negative, falls, contradicts another, or
            its epochs do not add up.
    """
    found = {p: _of_pipeline(source, keys, p, seeds, epochs[p], there[p]) for p in epochs}
    return {p: cost if cost.ndim == 1 else np.where(there[p], cost, np.nan) for p, cost in found.items()}


def _of_pipeline(
    source: Source, keys: Keys, pipeline: str, seeds: Sequence[int], epochs: Sequence[int], there: np.ndarray
) -> np.ndarray:
    assert source.m.cost is not None
    column, per = source.m.cost.column, source.m.cost.per
    found = [e for e in entries(source, keys, None) if e.pipeline in (None, pipeline)]
    by_epoch = per != "training" and any(e.epoch is not None for e in found)
    raw = np.full((len(keys.members), len(seeds), len(epochs) if by_epoch else 1), np.nan)
    for e in found:
        _place(source, keys, e, raw, seeds, epochs if by_epoch else None)
    trained = np.asarray(there.any(2))
    _refuse_holes(source, keys, column, raw, there if by_epoch else trained[:, :, None])
    axis = np.asarray(epochs, np.float64)
    if per == "epoch":
        return _added_up(source, keys, raw, epochs, there)
    if not by_epoch:
        spread: np.ndarray = raw * (axis / axis[-1])
        return spread
    falling = np.diff(raw, axis=2) < 0
    if falling.any():
        row, seed, at = np.argwhere(falling)[0]
        where = f"of {keys.members[row]}, seed {seeds[seed]}, falls after epoch {epochs[at]}"
        raise ValueError(f"{source.m.file.name}: column {column!r}: the cumulative cost {where}")
    return raw


def _added_up(source: Source, keys: Keys, raw: np.ndarray, epochs: Sequence[int], there: np.ndarray) -> np.ndarray:
    """Costs of epochs, (architectures, seeds, epochs) or (architectures, seeds, 1) for all of them alike, added up."""
    assert source.m.cost is not None
    column = source.m.cost.column
    low, high = np.fmin.reduce(raw, axis=2), np.fmax.reduce(raw, axis=2)
    if not (low < high).any():
        rate: np.ndarray = np.fmin.reduce(low, axis=1)
        if not (rate < np.fmax.reduce(low, axis=1)).any():
            return rate
        times: np.ndarray = low[:, :, None] * np.asarray(epochs, np.float64)
        return times
    if list(epochs) != list(range(1, len(epochs) + 1)):
        raise ValueError(
            f"{source.m.file.name}: column {column!r}: costs differ from epoch to epoch, and not every epoch is "
            "there to add them up; give cumulative costs (cost.per = 'cumulative')"
        )
    cumulative = np.cumsum(raw, axis=2)
    _refuse_holes(source, keys, column, cumulative, there)
    return cumulative


def _place(
    source: Source, keys: Keys, e: Entries, raw: np.ndarray, seeds: Sequence[int], epochs: Sequence[int] | None
) -> None:
    """Put cells where they belong; a cell without a seed belongs to all of them. Repeated costs must be equal."""
    values = source.numbers(e.column, e.lines)
    if (values < 0).any():
        at = int(np.argmax(values < 0))
        raise source.error(e.column, int(e.lines[at]), f"the cost {values[at]:g} is negative")
    kept = ~np.isnan(values)
    if e.seed is not None:
        kept &= np.isin(e.seed, seeds)
    if epochs is not None and e.epoch is not None:
        kept &= np.isin(e.epoch, epochs)
    rows, values, lines = keys.row[e.lines][kept], values[kept], e.lines[kept]
    at_epoch = np.searchsorted(epochs, e.epoch[kept]) if epochs is not None and e.epoch is not None else 0
    places = range(len(seeds)) if e.seed is None else [np.searchsorted(seeds, e.seed[kept])]
    for place in places:
        before = raw[rows, place, at_epoch]
        raw[rows, place, at_epoch] = values
        other = ((before != values) & ~np.isnan(before)) | (raw[rows, place, at_epoch] != values)
        if other.any():
            at = int(np.argmax(other))
            text = f"the cost {values[at]:g} of {keys.members[rows[at]]} is given as another number elsewhere"
            raise source.error(e.column, int(lines[at]), text)


def _refuse_holes(source: Source, keys: Keys, column: str, cost: np.ndarray, there: np.ndarray) -> None:
    holes = np.isnan(cost) & there
    if holes.any():
        row = int(np.argwhere(holes)[0][0])
        raise ValueError(
            f"{source.m.file.name}: column {column!r}: {keys.members[row]} has a validation value without a cost"
        )
