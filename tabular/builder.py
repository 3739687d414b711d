"""Building tables by real training, bucket by bucket; a killed build goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..methods import registry
from ..protocols import Architecture, IndexedSpace, Json
from .format import IDENTITY, SPLITS, write_table

Run = Callable[[Callable[["Bucket"], "Shard"], Sequence["Bucket"]], Iterable["Shard"]]


@dataclass(frozen=True, slots=True)
class Spec:
    """What to build, as read from a TOML file.

    Attributes:
        name: Of the table.
        space: Full name of an enumerable space, all of whose members are trained.
        data: Registered data set.
        pipelines: Registered pipelines, the default one first.
        seeds: Number of training seeds, 0 .. seeds - 1.
        version: Raised when the table is built anew.
        bucket: Largest number of networks trained side by side.
        notes: Free text for the manifest: summary, licence, citation.
    """

    name: str
    space: str
    data: str
    pipelines: tuple[str, ...]
    seeds: int
    version: str = "1"
    bucket: int = 320
    notes: Mapping[str, str] | None = None

    @classmethod
    def read(cls, path: Path) -> Spec:
        """Read a TOML file; ValueError names the field that is missing, unknown or wrong."""
        from ..protocols.training import DATASETS, PIPELINES

        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"spec: there is no file {path}") from None
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"spec: {path}: {error}") from None
        allowed = tuple(f for f in cls.__dataclass_fields__)
        for key in given:
            if key not in allowed:
                raise ValueError(registry.unknown(f"spec {path.name}: field", key, allowed))
        for key in ("name", "space", "data", "pipelines", "seeds"):
            if key not in given:
                raise ValueError(f"spec {path.name}: the field {key!r} is missing")
        pipelines = given["pipelines"]
        if not isinstance(pipelines, list) or not pipelines or len(set(map(str, pipelines))) != len(pipelines):
            raise ValueError(f"spec {path.name}: pipelines: {pipelines!r} is not a list of names, each once")
        for field, values, known in (("pipelines", pipelines, PIPELINES), ("data", [given["data"]], DATASETS)):
            for value in map(str, values):
                if value not in known:
                    raise ValueError(registry.unknown(f"spec {path.name}: {field}", value, tuple(known)))
        for field in ("seeds", "bucket"):
            if type(value := given.get(field, 1)) is not int or value < 1:
                raise ValueError(f"spec {path.name}: {field}: {value!r} is not a positive integer")
        for field in ("name", "space", "version"):
            if not isinstance(value := given.get(field, ""), str):
                raise ValueError(f"spec {path.name}: {field}: {value!r} is not a text in quotes")
        if given["data"] in ("wine_red", "text:PATH"):
            raise ValueError(f"spec {path.name}: data: {given['data']!r} has no classes; allowed: data sets that have")
        _enumerable(given["space"])
        for key in given.get("notes", {}):
            if key in (*IDENTITY, "digest", "median_cost", "trained", "pilot", "default_pipeline"):
                raise ValueError(f"spec {path.name}: notes.{key}: this name is the manifest's own; choose another")
        return cls(**{**given, "pipelines": tuple(pipelines)})


@dataclass(frozen=True, slots=True)
class Bucket:
    """Networks of equal widths, to be trained side by side under one pipeline; plain data."""

    space: str
    data: str
    data_root: str | None
    pipeline: str
    members: tuple[tuple[tuple[int, ...], int], ...]
    flops: float
    digests: tuple[str, str] = ("", "")

    @property
    def key(self) -> str:
        """Name of its shard: by content (`digests`: of data and pipeline), so that no old shard is mistaken for it."""
        text = repr((self.space, self.data, self.pipeline, self.members, self.digests))
        return f"{self.pipeline}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


@dataclass(frozen=True, slots=True)
class Shard:
    """Correct predictions per split, uint16 (members, epochs), and where they were computed."""

    bucket: Bucket
    counts: Mapping[str, np.ndarray]
    seconds: float
    machine: str


def buckets(spec: Spec, data_root: Path | None) -> list[Bucket]:
    """The trainings of a table, grouped into buckets, the most expensive ones first."""
    from ..protocols.training import PIPELINES, load

    space = _enumerable(spec.space)
    data = load(spec.data, data_root).task.digest
    shapes, cost = _shapes_and_costs(spec.space, spec.data, data_root)
    groups: dict[tuple[int, ...], list[Architecture]] = {}
    for i, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(space.at(i))
    found = []
    for name in spec.pipelines:
        for shape, group in groups.items():
            size = max(1, spec.bucket // spec.seeds)
            for i in range(0, len(group), size):
                members = tuple((a.genes, s) for a in group[i : i + size] for s in range(spec.seeds))
                flops = cost[shape] * len(members) * PIPELINES[name].epochs
                root = str(data_root) if data_root else None
                digests = (data, PIPELINES[name].digest)
                found.append(Bucket(spec.space, spec.data, root, name, members, flops, digests))
    return sorted(found, key=lambda b: (-b.flops, b.key))


@lru_cache(maxsize=1)
def _shapes_and_costs(
    name: str, data: str, data_root: Path | None
) -> tuple[list[tuple[int, ...]], dict[tuple[int, ...], float]]:
    """Parameter shapes of every member of a space, in order, and the FLOPs of one epoch for each shape.

    Counting takes 40 ms, so it is done once per shape: stacked training takes nothing but linear layers and
    activations, whose FLOPs depend on the shapes alone, and on no pipeline.
    """
    from ..protocols.training import PIPELINES, load, training_flops

    space, view = _enumerable(name), load(data, data_root)
    shapes: list[tuple[int, ...]] = []
    cost: dict[tuple[int, ...], float] = {}
    for a in map(space.at, range(space.size or 0)):
        network = space.build(a, view.task)
        shape = tuple(n for p in network.parameters() for n in p.shape)
        if shape not in cost:
            cost[shape] = training_flops(network, view.task, PIPELINES["adam"], len(view.train), len(view.valid))
        shapes.append(shape)
    return shapes, cost


def train_bucket(bucket: Bucket) -> Shard:
    """Train all networks of a bucket."""
    from ..protocols.training import PIPELINES, fit_stacked, load, load_test, one_thread

    root = Path(bucket.data_root) if bucket.data_root else None
    space, view = registry.space(bucket.space), load(bucket.data, root)
    members = [(Architecture(space.family, genes), seed) for genes, seed in bucket.members]
    networks = {(a, s): space.build(a, view.task) for a, s in members}
    started = time.perf_counter()
    evaluate = {"valid": view.valid, "test": load_test(bucket.data, root)}
    with one_thread():
        correct, _ = fit_stacked(networks, view.train, evaluate, PIPELINES[bucket.pipeline])
    counts = {k: v.astype(np.uint16) for k, v in correct.items()}
    return Shard(bucket, counts, time.perf_counter() - started, _machine())


def build(
    spec: Spec,
    folder: Path,
    *,
    data_root: Path | None = None,
    run: Run = map,
    progress: Callable[[float, float], None] | None = None,
    pilot: Mapping[str, Json] | None = None,
) -> Path:
    """Train every member of a space and write the table.

    Args:
        spec: What to build.
        folder: Of the table; finished buckets wait in its `shards` until all are there.
        data_root: See `protocols.training.load`.
        run: Maps `train_bucket` over buckets, in any order; `map`, or many processes.
        progress: Called with (FLOPs done, FLOPs in all) at the start and after each bucket.
        pilot: Result of `pilot`, for the manifest.
    """
    if (folder / "manifest.json").exists():
        raise ValueError(f"folder: {folder} holds a table already")
    shards = folder / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    planned = buckets(spec, data_root)
    todo = [b for b in planned if not (shards / f"{b.key}.npz").exists()]
    total = sum(b.flops for b in planned)
    done = total - sum(b.flops for b in todo)
    if progress:
        progress(done, total)
    for shard in run(train_bucket, todo):
        _save(shards / f"{shard.bucket.key}.npz", shard)
        done += shard.bucket.flops
        if progress:
            progress(done, total)
    arrays, provenance = _merge(spec, planned, shards, data_root)
    write_table(folder, spec.space, arrays, _manifest(spec, data_root, provenance, pilot))
    shutil.rmtree(shards)
    return folder


def pilot(spec: Spec, data_root: Path | None, architectures: int = 48) -> dict[str, Json]:
    """Train a few architectures with two seeds: can the table tell architectures apart from seeds?

    Returns:
        Per pipeline: seed-to-seed Spearman correlation of test accuracy among working architectures (mean
        above half of the best), their standard deviation, and that between seeds of one architecture.
    """
    from scipy.stats import spearmanr

    from ..protocols.streams import generator

    if spec.seeds < 2:
        raise ValueError(f"seeds: a pilot compares two training seeds, the spec has {spec.seeds}")
    space = _enumerable(spec.space)
    rng = generator(0, "pilot", spec.name)
    rows = sorted(rng.choice(space.size or 0, min(architectures, space.size or 0), replace=False).tolist())
    sample = {space.at(i).genes for i in rows}
    found: dict[str, Json] = {}
    per_pipeline: dict[str, dict[tuple[tuple[int, ...], int], int]] = {p: {} for p in spec.pipelines}
    for bucket in buckets(spec, data_root):
        members = tuple(m for m in bucket.members if m[0] in sample and m[1] < 2)
        if members:
            part = Bucket(bucket.space, bucket.data, bucket.data_root, bucket.pipeline, members, 0.0)
            last = train_bucket(part).counts["test"][:, -1]
            per_pipeline[bucket.pipeline] |= dict(zip(members, map(int, last), strict=True))
    for name, correct in per_pipeline.items():
        pairs = np.array([[correct[g, s] for s in (0, 1)] for g in sorted(sample)]) / _examples(spec, data_root)["test"]
        pairs = pairs[pairs.mean(1) > pairs.mean(1).max() / 2]
        found[name] = {
            "architectures": len(sample),
            "working": len(pairs),
            "seed_to_seed_spearman": round(float(spearmanr(pairs[:, 0], pairs[:, 1])[0]), 4),
            "sd_architectures": round(float(pairs.mean(1).std(ddof=1)), 4),
            "sd_seeds": round(float(np.sqrt(pairs.var(1, ddof=1).mean())), 4),
        }
    return found


def _merge(
    spec: Spec, planned: Sequence[Bucket], shards: Path, data_root: Path | None
) -> tuple[dict[str, np.ndarray], dict[str, Json]]:
    from ..protocols.training import PIPELINES, load

    space, view = _enumerable(spec.space), load(spec.data, data_root)
    rows = space.size or 0
    arrays = {
        f"{split}.{p}": np.full((rows, spec.seeds, PIPELINES[p].epochs), 65535, np.uint16)
        for p in spec.pipelines
        for split in SPLITS
    }
    seconds, machines = 0.0, set()
    for bucket in planned:
        meta, counts = _load(shards / f"{bucket.key}.npz")
        seconds += meta["seconds"]
        machines.add(meta["machine"])
        where = [space.index(Architecture(space.family, genes)) for genes, _ in bucket.members]
        for split in SPLITS:
            arrays[f"{split}.{bucket.pipeline}"][where, [s for _, s in bucket.members]] = counts[split]
    members = list(map(space.at, range(rows)))
    features = [space.features(a, view.task) for a in members]
    for name in ("params", "flops"):
        arrays[f"feature.{name}"] = np.array([f[name] for f in features])
    shapes, cost = _shapes_and_costs(spec.space, spec.data, data_root)
    for p in spec.pipelines:
        arrays[f"cost.{p}"] = np.array([cost[shape] for shape in shapes])
    return arrays, {"seconds_amortised": round(seconds, 1), "hardware": sorted(machines)}


def _manifest(
    spec: Spec, data_root: Path | None, provenance: Mapping[str, Json], pilot: Mapping[str, Json] | None
) -> dict[str, Json]:
    from ..protocols.training import PIPELINES, load

    return {
        **(spec.notes or {}),
        "name": spec.name,
        "version": spec.version,
        "clock": "flops",
        "task": load(spec.data, data_root).task,
        "examples": _examples(spec, data_root),
        "pipelines": {p: PIPELINES[p] for p in spec.pipelines},
        "default_pipeline": spec.pipelines[0],
        "trained": {"by": "stacked training, float32, one thread per process", **provenance, "software": _software()},
        "pilot": pilot,
    }


def _examples(spec: Spec, data_root: Path | None) -> dict[str, int]:
    from ..protocols.training import load, load_test

    view = load(spec.data, data_root)
    return {"train": len(view.train), "valid": len(view.valid), "test": len(load_test(spec.data, data_root))}


def _enumerable(name: str) -> IndexedSpace:
    space = registry.space(name)
    if not isinstance(space, IndexedSpace) or not space.size or space.size > 1_000_000:
        raise ValueError(f"space: {name!r} has {space.size} members; a complete table takes at most 1,000,000")
    return space


def _save(path: Path, shard: Shard) -> None:
    """Write under another name first: a shard is either whole or absent."""
    partial = path.with_suffix(".part")
    meta = json.dumps({"seconds": shard.seconds, "machine": shard.machine})
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, meta=np.frombuffer(meta.encode(), np.uint8), **shard.counts)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _load(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return json.loads(file["meta"].tobytes()), {s: file[s] for s in SPLITS}
    except (zipfile.BadZipFile, EOFError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"shard: {path} is damaged ({error}); delete it and build again") from None


def _machine() -> str:
    import torch

    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {platform.system()}"


def _software() -> dict[str, str]:
    import torch

    return {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}


def dry_run(spec: Spec, data_root: Path | None) -> Iterator[tuple[str, float]]:
    """Time one bucket of each pipeline and yield (pipeline, expected seconds on one core)."""
    planned = buckets(spec, data_root)
    for name in spec.pipelines:
        mine = [b for b in planned if b.pipeline == name]
        middle = mine[len(mine) // 2]
        yield name, train_bucket(middle).seconds * sum(b.flops for b in mine) / middle.flops
