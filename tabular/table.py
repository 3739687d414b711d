"""Opening tables: stateless, memory-mapped, without any way to test values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..methods import registry
from ..protocols import Architecture, Entry, Fidelity, Json, MissingEntry, Pipeline, SearchSpace, Task, Unit
from .format import digest, median_cost, sha256
from .manifest import IDENTITY, MISSING, SCHEMA, present, recorded

EMBEDDED = Path(__file__).parent / "data"
"""The tables that come with the package."""


class _Recorded(NamedTuple):
    """Everything under one pipeline and fidelity; `stop` maps an epoch to the length of the curve up to it."""

    valid: np.ndarray
    train: np.ndarray | None
    cost: np.ndarray
    epochs: np.ndarray
    stop: Mapping[float, int]


class MappedTable:
    """A table folder as the contract `protocols.Table`.

    Args:
        folder: Written by `write_table` or `nasbed table build`.
        verify: Hash every file before use; otherwise only sizes are read.

    Raises:
        ValueError: No table there, a newer schema, or (with `verify`) a file that was changed.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        manifest = read_manifest(folder)
        if verify and (changed := next(changes(folder, manifest), None)):
            raise ValueError(changed)
        self.folder = folder
        self.name: str = manifest["name"]
        self.digest: str = manifest["digest"]
        self.coverage: str = manifest["coverage"]
        self.clock: Unit = manifest["clock"]
        self.seeds = tuple(manifest["seeds"])
        self.space: SearchSpace = registry.space(manifest["space"])
        self.task = Task(**{**manifest["task"], "shape": tuple(manifest["task"]["shape"])})
        self.pipelines: Mapping[str, Pipeline] = {k: _pipeline(v) for k, v in manifest["pipelines"].items()}
        self._manifest = manifest
        self._seed = {s: i for i, s in enumerate(self.seeds)}
        self._arrays = {p.removesuffix(".npy"): _map(folder / p) for p in manifest["files"] if "/" not in p}
        self._counts = self.task.metric == "accuracy"
        self._examples: Mapping[str, int] = manifest["examples"]
        self.fidelities: Mapping[str, tuple[str, ...]] = {
            p: tuple(manifest.get("fidelities", {}).get(p, ())) for p in self.pipelines
        }
        everything = {p: {n: _recorded(self._arrays, n, e) for n, e in recorded(manifest, p).items()}
                      for p in self.pipelines}  # fmt: skip
        self._recorded = {p: found.pop(p) for p, found in everything.items()}
        self._lower = {name: found for lower in everything.values() for name, found in lower.items()}
        self._index = self._rows()
        self._present: dict[str, np.ndarray] = {}
        self._members: np.ndarray | None = None

    def row(self, a: Architecture) -> int:
        """The row of an architecture; MissingEntry where the table has none."""
        try:
            if a.space == self.space.family:
                return self._index(a)
        except (KeyError, ValueError):  # a sample lacks it; a space refuses what is no member
            pass
        raise MissingEntry(f"architecture: {a} is not in the table {self.name!r}")

    def _rows(self) -> Callable[[Architecture], int]:
        if (texts := self._manifest["architectures"]) is None:
            index: Callable[[Architecture], int] = self.space.index  # type: ignore[attr-defined]
        else:
            rows = {self.space.parse(t).genes: i for i, t in enumerate(texts)}

            def index(a: Architecture) -> int:
                return rows[a.genes]

        if (level := self._manifest["canonical"]) is None:
            return index
        return lambda a: index(self.space.canonical(a, level))

    def lookup(self, a: Architecture, *, pipeline: str, seed: int, fidelity: Fidelity) -> Entry:
        """See `protocols.Table`."""
        try:
            recorded, row, place = self._recorded[pipeline], self.row(a), self._seed[seed]
            if (fidelity.data, fidelity.resolution, fidelity.width, fidelity.depth) != (1.0, 1.0, 1.0, 1.0):
                recorded = self._lower[f"{pipeline}@{fidelity.text}"]
            stop = recorded.stop[fidelity.epochs]
        except (KeyError, MissingEntry):
            raise MissingEntry(self._why_missing(a, pipeline, seed, fidelity)) from None
        valid, train = recorded.valid[row, place, :stop], recorded.train
        last = valid.item(-1)
        if last == MISSING if self._counts else last != last:
            raise MissingEntry(self._no_training(a, pipeline, seed, fidelity))
        train = None if train is None else train[row, place, :stop]
        if self._counts:
            valid = valid / self._examples["valid"]
            train = None if train is None else train / self._examples["train"]
        epochs, cost = recorded.epochs[:stop], recorded.cost
        spent = cost.item(row) * epochs.item(-1) if cost.ndim == 1 else cost.item(row, place, stop - 1)
        return Entry(epochs, train, valid, spent)

    def _why_missing(self, a: Architecture, pipeline: str, seed: int, fidelity: Fidelity) -> str:
        for field, value, allowed in (("pipeline", pipeline, self.pipelines), ("seed", seed, self._seed)):
            if value not in allowed:
                return f"{field}: the table {self.name!r} has {', '.join(map(str, allowed))}, not {value}"
        texts, asked = self.fidelities[pipeline], fidelity.text
        if asked and not texts:
            return f"fidelity: the table {self.name!r} has no axis but epochs under {pipeline!r}, not {asked}"
        if asked and asked not in texts:
            return f"fidelity: the table {self.name!r} has {', '.join(texts)} under {pipeline!r}, not {asked}"
        stop = (self._lower[f"{pipeline}@{asked}"] if asked else self._recorded[pipeline]).stop
        if fidelity.epochs not in stop:
            epochs = ", ".join(map(str, stop))
            return f"fidelity.epochs: the table {self.name!r} has {epochs}, not {fidelity.epochs}"
        return f"architecture: {a} is not in the table {self.name!r}"

    def _no_training(self, a: Architecture, pipeline: str, seed: int, fidelity: Fidelity) -> str:
        at = f" at {fidelity.text}" if fidelity.text else ""
        seeds = self.recorded_seeds(a, pipeline, fidelity.text)
        recorded = f"recorded: {', '.join(map(str, seeds)) or 'none'}"
        return f"architecture: {self.space.text(a)} has no training with seed {seed} under {pipeline!r}{at}; {recorded}"

    def present(self, pipeline: str, fidelity: str = "") -> np.ndarray:
        """Which trainings were recorded to their last epoch, bool (rows, seeds); `fidelity` is a `Fidelity.text`."""
        name = f"{pipeline}@{fidelity}" if fidelity else pipeline
        if name not in self._present:
            there = present(self.array(f"valid.{name}")[:, :, -1])
            there.setflags(write=False)
            self._present[name] = there
        return self._present[name]

    def recorded_seeds(self, a: Architecture, pipeline: str, fidelity: str = "") -> tuple[int, ...]:
        """The training seeds of an architecture whose trainings were recorded to the last epoch; may be none."""
        there = self.present(pipeline, fidelity)[self.row(a)].tolist()
        return tuple(s for s, recorded in zip(self.seeds, there, strict=True) if recorded)

    def members(self) -> np.ndarray:
        """The row of every member of a complete table's space, in order, int64; of a sample, of what it lists.

        Where rows are merged, several members may have one row, and rows that no look-up reaches have no member. A
        member whose representative is not in the space has no row and is left out.
        """
        if self._members is None:
            found: Iterable[int] = range(len(self._recorded[next(iter(self.pipelines))].valid))
            if self.coverage == "complete" and self._manifest["canonical"] is not None:
                found = []
                for i in range(self.space.size or 0):
                    with suppress(MissingEntry):
                        found.append(self.row(self.space.at(i)))  # type: ignore[attr-defined]
            self._members = np.array(found, np.int64)
            self._members.setflags(write=False)
        return self._members

    def without_training(self, pipeline: str) -> int:
        """How many architectures of the table, or of its space where it is complete, have no whole training."""
        there = self.present(pipeline)
        if there.all() and self._manifest["canonical"] in (None, self.space.levels[0]):
            return 0
        members = self.members()
        size = self.space.size if self.coverage == "complete" else len(members)
        return int(size or 0) - int(there[members].any(1).sum())

    def diverged(self, pipeline: str) -> int:
        """How many architectures, counted likewise, have a training that ended in an infinite metric."""
        if self._counts:
            return 0
        return int(np.isinf(self.array(f"valid.{pipeline}")[:, :, -1]).any(1)[self.members()].sum())

    def median_cost(self, pipeline: str) -> float:
        """See `protocols.Table`."""
        return float(self._manifest["median_cost"][pipeline])

    def architecture(self, row: int) -> Architecture:
        """The architecture of a row."""
        if (texts := self._manifest["architectures"]) is not None:
            return self.space.parse(texts[row])
        found: Architecture = self.space.at(row)  # type: ignore[attr-defined]
        return found

    def text(self, row: int) -> str:
        """The architecture of a row, in its space's notation."""
        if (texts := self._manifest["architectures"]) is not None:
            return str(texts[row])
        return self.space.text(self.space.at(row))  # type: ignore[attr-defined]

    @property
    def manifest(self) -> Mapping[str, Json]:
        """The manifest as it was read."""
        return self._manifest

    def array(self, stem: str) -> np.ndarray:
        """A whole array, memory-mapped: `valid.adam`, `cost.adam`, `feature.params`; never a sealed one."""
        if stem not in self._arrays:
            raise MissingEntry(f"array: {stem!r} is not one of {', '.join(sorted(self._arrays))}")
        return self._arrays[stem]


def open_table(name: str | Path, *, verify: bool = False) -> MappedTable:
    """Open a table by name (embedded) or folder.

    >>> open_table("mlp-digits").coverage
    'complete'
    """
    return MappedTable(find(name), verify=verify)


def find(name: str | Path) -> Path:
    """The folder of a table: an embedded table's name, or a path that holds one."""
    for folder in (EMBEDDED / name, Path(name)):
        if (folder / "manifest.json").is_file():
            return folder
    raise ValueError(registry.unknown("table", str(name), embedded()) + " (or name a folder that holds one)")


def embedded() -> tuple[str, ...]:
    """Names of the tables that come with the package."""
    return tuple(sorted(p.parent.name for p in EMBEDDED.glob("*/manifest.json")))


def read_manifest(folder: Path) -> dict[str, Json]:
    """The manifest of a table folder, its own digest checked."""
    path = folder / "manifest.json"
    try:
        manifest: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"table: {folder} holds no manifest.json") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"table: {path} is not JSON ({error})") from None
    if not isinstance(manifest, dict):
        raise ValueError(f"manifest: {path} is not a JSON object")
    if manifest.get("schema", SCHEMA) > SCHEMA:
        raise ValueError(f"schema: {path} has schema {manifest['schema']}; this version reads up to {SCHEMA}")
    if lacking := [k for k in (*IDENTITY, "digest", "median_cost") if k not in manifest]:
        raise ValueError(f"manifest: {path} lacks the field {lacking[0]!r}")
    if digest(manifest) != manifest["digest"]:
        raise ValueError(f"digest: {path} was changed after the table was written")
    return manifest


def changes(folder: Path, manifest: Mapping[str, Json]) -> Iterator[str]:
    """Whatever is not as it was written: missing and changed files, and costs that the manifest misstates."""
    intact = True
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            intact = False
            yield f"files: {path} is missing"
        elif sha256(path) != expected:
            intact = False
            yield f"files: {path} does not have the sha256 of the manifest; the table was changed"
    for pipeline, stated in manifest["median_cost"].items() if intact else ():
        if stated != median_cost(folder, pipeline, manifest["epochs"][pipeline]):
            yield f"median_cost: {folder / 'manifest.json'} states {stated} for {pipeline!r}, its costs do not"


def _recorded(arrays: Mapping[str, np.ndarray], pipeline: str, epochs: Sequence[int]) -> _Recorded:
    stop: dict[float, int] = {**{n: i + 1 for i, n in enumerate(epochs)}, inf: len(epochs)}
    train, axis = arrays.get(f"train.{pipeline}"), np.array(epochs)
    axis.setflags(write=False)
    return _Recorded(arrays[f"valid.{pipeline}"], train, arrays[f"cost.{pipeline}"], axis, stop)


def _map(path: Path) -> np.ndarray:
    # A plain ndarray over the map: indexing numpy's memmap subclass costs five times as much.
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise ValueError(f"files: {path} is missing") from None
    except (ValueError, EOFError) as error:
        raise ValueError(f"files: {path} is no readable array ({error})") from None


def _pipeline(described: Mapping[str, Json]) -> Pipeline:
    known = {f.name for f in fields(Pipeline)}
    values = {k: v for k, v in described.items() if k in known}
    return Pipeline(**{**values, "open": tuple(values.get("open", ()))})
