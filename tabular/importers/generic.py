"""Any table of results, CSV, Parquet or npz, long or wide: a map says which column is what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...methods import registry
from ...protocols import IndexedSpace, Json, SearchSpace
from ..format import MISSING, write_table
from ..manifest import present
from .arrays import Imported, to_counts
from .columns import Source
from .costs import costs
from .keys import Entries, Keys, entries, read_keys
from .mapfile import Map, read_map

__all__ = ["import_generic"]

SAME_FROM = 20
"""Number of values from which on equal validation and test values are no coincidence."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """A table in the making: axes, arrays by stem, and what was left out."""

    texts: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: Mapping[str, tuple[int, ...]]
    arrays: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


def import_generic(path: Path, folder: Path | None = None) -> Imported:
    """Read the results that a map describes and write them as a table.

    Nothing is guessed, imputed or averaged: what is not there is missing, and what contradicts the map or itself is
    refused.

    Args:
        path: Of the map, a TOML file; `docs/importing.md` describes it.
        folder: Of the table; default `nasbed-tables/<name>`.

    Raises:
        ValueError: One line naming the file, and the column and row or the field of the map.
    """
    m = read_map(path)
    folder = folder or Path("nasbed-tables") / m.name
    if (folder / "manifest.json").exists():
        raise ValueError(f"out: {folder} holds a table already")
    space, source = registry.space(m.space), Source(m)
    made = _trimmed(_gathered(source, space))
    _check(m, made)
    complete = _is_complete(space, made)
    manifest: dict[str, Json] = {
        **m.notes,
        "name": m.name,
        "version": m.version,
        "task": m.task,
        "seeds": list(made.seeds),
        "epochs": {p: list(e) for p, e in made.epochs.items()},
        "examples": dict(m.examples),
        "architectures": None if complete else list(made.texts),
        "imported": _origin(m, made.notes),
        **({"clock": m.cost.clock} if m.cost else {}),
    }
    write_table(folder, space, made.arrays, manifest)
    trainings = sum(int(present(made.arrays[f"valid.{p}"])[:, :, -1].sum()) for p in made.epochs)
    return Imported(folder, "complete" if complete else "sample", len(made.texts), trainings, made.notes)


def _gathered(source: Source, space: SearchSpace) -> Gathered:
    m = source.m
    keys = read_keys(source, space)
    seeds, epochs = _axes(source, keys)
    texts = tuple(space.text(a) for a in keys.members)
    axes = Gathered(texts, seeds, epochs, {}, _left_out(source))
    arrays = {f"{split}.{p}": _values(source, keys, axes, split, p) for p in epochs for split in m.measured}
    if m.cost:
        there = {p: present(arrays[f"valid.{p}"]) for p in epochs}
        arrays |= {f"cost.{p}": c for p, c in costs(source, keys, seeds, epochs, there).items()}
    arrays |= {f"feature.{name}": _feature(source, keys, name) for name in m.features}
    return replace(axes, arrays=arrays)


def _axes(source: Source, keys: Keys) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
    """All seeds, and the epochs of every pipeline, ascending."""
    m = source.m
    seeds: set[int] = set()
    epochs: dict[str, set[int]] = {}
    for split in m.measured:
        for e in entries(source, keys, split):
            seeds.update([0] if e.seed is None else np.unique(e.seed).tolist())
            found = [m.epochs] if e.epoch is None else np.unique(e.epoch).tolist()
            epochs.setdefault(e.pipeline or m.pipeline, set()).update(found)
    return tuple(sorted(seeds)), {p: tuple(sorted(epochs[p])) for p in sorted(epochs)}


def _values(source: Source, keys: Keys, axes: Gathered, split: str, pipeline: str) -> np.ndarray:
    """One split under one pipeline: (architectures, seeds, epochs), missing where the file has nothing."""
    m, seeds, epochs = source.m, axes.seeds, axes.epochs[pipeline]
    shape = (len(axes.texts), len(seeds), len(epochs))
    values = np.full(shape, MISSING, np.uint16) if m.counts else np.full(shape, np.nan, np.float32)
    flat = values.reshape(-1)
    for e in entries(source, keys, split):
        if (e.pipeline or m.pipeline) != pipeline:
            continue
        stored = _stored(source, e, split)
        filled = present(stored)
        seed = 0 if e.seed is None else np.searchsorted(seeds, e.seed)
        epoch = 0 if e.epoch is None else np.searchsorted(epochs, e.epoch)
        at = ((keys.row[e.lines] * len(seeds) + seed) * len(epochs) + epoch)[filled]
        again = present(flat[at])
        again[_repeated(at)] = True
        if again.any():
            k = int(np.argmax(again))
            row, s, i = np.unravel_index(at[k], shape)
            what = f"{axes.texts[row]}, seed {seeds[s]}, epoch {epochs[i]}, pipeline {pipeline!r}"
            raise source.error(e.column, int(e.lines[filled][k]), f"a second {split} value for {what}")
        flat[at] = stored[filled]
    return values


def _repeated(at: np.ndarray) -> np.ndarray:
    """Positions of all but the first of equal numbers."""
    order = np.argsort(at, kind="stable")
    repeated: np.ndarray = order[1:][at[order][1:] == at[order][:-1]]
    return repeated


def _stored(source: Source, e: Entries, split: str) -> np.ndarray:
    """Cells of a column as a table stores them; ValueError for what is out of range or no count."""
    m = source.m
    hint = f'; if that means that the value was not recorded, the map says missing = ["{split}"]'
    diverged = None if m.counts or m.scale else (-np.inf if m.task.higher_is_better else np.inf)
    values = source.numbers(e.column, e.lines, empty=None if split in m.missing else hint, diverged=diverged)
    most = {"fraction": 1.0, "percent": 100.0, "count": float(m.examples.get(split, 0))}.get(m.scale or "", np.inf)
    outside = (values < 0) | (values > most) if m.scale else np.zeros(len(values), bool)
    if outside.any():
        k = int(np.argmax(outside))
        text = f"{float(values[k])!r} is outside of 0 .. {most:g} (the map says scale = {m.scale!r})"
        raise source.error(e.column, int(e.lines[k]), text)
    fractions = values / most if m.scale else values
    if not m.counts:
        return fractions.astype(np.float32)
    counts, wrong = to_counts(fractions, m.examples[split], m.tolerance)
    if wrong.any():
        k, n = int(np.argmax(wrong)), m.examples[split]
        text = (
            f"{float(values[k])!r} of {n} {split} examples is {fractions[k] * n:.4f} correct ones, no whole number; "
            "if examples is right, name another metric: task.metric = 'top1', say, is stored as float32"
        )
        raise source.error(e.column, int(e.lines[k]), text)
    return counts


def _feature(source: Source, keys: Keys, name: str) -> np.ndarray:
    """A number for each architecture, float64; ValueError where its rows differ."""
    column = source.m.features[name]
    values = source.numbers(column, empty="")
    first = np.full(len(keys.members), -1)
    first[keys.row[::-1]] = np.arange(len(values))[::-1]
    other = values != values[first[keys.row]]
    if other.any():
        k = int(np.argmax(other))
        before = f"{values[first[keys.row[k]]]:g} on an earlier row of the same architecture"
        raise source.error(column, k, f"the feature is {values[k]:g}, but {before}")
    feature: np.ndarray = values[first]
    return feature


def _trimmed(made: Gathered) -> Gathered:
    """Without epochs at which nothing was validated, and without architectures that were not trained."""
    arrays, epochs, notes = dict(made.arrays), dict(made.epochs), list(made.notes)
    trained = np.zeros(len(made.texts), bool)
    for p in epochs:
        there = present(arrays[f"valid.{p}"])
        trained |= there.any((1, 2))
        kept = np.asarray(there.any((0, 1)))
        if not kept.any():
            raise ValueError(f"pipeline: {p!r} has no validation value at all")
        if not kept.all():
            dropped = [e for e, k in zip(epochs[p], kept, strict=True) if not k]
            notes.append(f"{len(dropped)} epochs without validation values under {p!r}, {_range(dropped)}")
            epochs[p] = tuple(e for e, k in zip(epochs[p], kept, strict=True) if k)
            for stem in (s for s in arrays if s.partition(".")[2] == p and arrays[s].ndim == 3):
                arrays[stem] = arrays[stem][:, :, kept]
    if not trained.all():
        notes.append(f"{int((~trained).sum())} architectures without any validation value")
    arrays = {stem: array[trained] for stem, array in arrays.items()}
    texts = tuple(t for t, k in zip(made.texts, trained, strict=True) if k)
    return Gathered(texts, made.seeds, epochs, arrays, tuple(notes))


def _check(m: Map, made: Gathered) -> None:
    """Trainings are whole: validated at all recorded epochs up to their last, and tested; not the one as the other."""
    for p, epochs in made.epochs.items():
        valid, test = made.arrays[f"valid.{p}"], made.arrays[f"test.{p}"]
        there, tested = present(valid), present(test)
        holes = ~there[:, :, :-1] & there[:, :, 1:]
        if holes.any():
            row, s, e = np.argwhere(holes)[0]
            what = f"{made.texts[row]}, seed {made.seeds[s]}: validated at epoch {epochs[e + 1]}, not at {epochs[e]}"
            raise ValueError(f"{m.file.name}: {what}; leave epochs out that not every training has")
        for split, other, mine, theirs in (("test", "valid", tested, there), ("valid", "test", there, tested)):
            lacks = theirs[:, :, -1] & ~mine[:, :, -1]
            if split in m.missing:
                lacks &= ~mine[:, :, -1].any(1, keepdims=True)
            if lacks.any():
                row, s = np.argwhere(lacks)[0]
                what = f"{made.texts[row]}, seed {made.seeds[s]}, pipeline {p!r}"
                hint = "" if split in m.missing else f' (if it was not recorded, the map says missing = ["{split}"])'
                raise ValueError(f"{m.file.name}: {what}: a {other} value after the last epoch, no {split} value{hint}")
        both = there & tested
        scale = m.examples["test"] / m.examples["valid"] if m.counts else 1.0
        if both.sum() >= SAME_FROM and np.allclose(valid[both] * scale, test[both], rtol=1e-6, atol=0):
            raise ValueError(f"{m.file.name}: validation and test values are the same numbers; the splits must differ")


def _is_complete(space: SearchSpace, made: Gathered) -> bool:
    """Whether every member of the space was trained to the end under every pipeline."""
    if not isinstance(space, IndexedSpace) or len(made.texts) != space.size:
        return False
    return all(bool(present(made.arrays[f"valid.{p}"])[:, :, -1].any(1).all()) for p in made.epochs)


def _left_out(source: Source) -> tuple[str, ...]:
    m, notes = source.m, []
    if source.unused:
        notes.append(f"columns that the map does not name: {', '.join(source.unused)}")
    if source.excluded:
        notes.append(f"{source.excluded:,} rows by where")
    if name := (m.splits if "split" in m.columns else m.columns).get("valid_test"):
        notes.append(f"{name}: validation and test data together")
    return tuple(notes)


def _range(epochs: list[int]) -> str:
    return f"{epochs[0]} .. {epochs[-1]}" if len(epochs) > 1 else str(epochs[0])


def _origin(m: Map, notes: tuple[str, ...]) -> dict[str, Json]:
    """What was read, for the manifest."""
    with m.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "importer": "generic",
        "file": m.file.name,
        "bytes": m.file.stat().st_size,
        "sha256": digest,
        "map": m.path.read_text(encoding="utf-8"),
        "left_out": list(notes),
    }
