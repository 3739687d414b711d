"""Building tables: every training of a space for real, in buckets that survive a crash.

Buckets are pieces of work that processes and machines can share, the result of each being written under a name made of
its content as soon as it is done. A build that was stopped continues with the buckets that are missing, the folders of
several machines are merged by copying their shards into one, and the merged table does not depend on the order in which
buckets were done.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..protocols import Json, Task
from .buckets import PILOT_SEEDS, Bucket, counter, plan, rows
from .format import write_table
from .manifest import MISSING
from .shards import Shard, load_shard, save, train_bucket
from .spec import Spec, enumerable

__all__ = ["Spec", "build", "dry_run", "missing", "pilot", "plan", "verdict"]

Run = Callable[[Callable[[Bucket], Shard], Sequence[Bucket]], Iterable[Shard]]
Progress = Callable[[float, float], None]

LEAST_SPEARMAN = 0.8
LEAST_RATIO, FEWEST_WORKING = 1.5, 3
"""Deviation between architectures over that between seeds, that a pilot must show."""
_SAID = ("seed_to_seed_spearman", "sd_architectures", "sd_seeds")


def missing(planned: Sequence[Bucket], folder: Path) -> list[Bucket]:
    """The buckets that have no shard in a table's folder yet."""
    return [b for b in planned if not _shard(folder, b).exists()]


def build(
    spec: Spec,
    folder: Path,
    *,
    data_root: Path | None = None,
    device: str = "cpu",
    run: Run = map,
    part: tuple[int, int] = (1, 1),
    progress: Progress | None = None,
) -> Path | None:
    """Train every architecture of a table and write it.

    Args:
        spec: What to build.
        folder: Of the table; finished buckets wait in its `shards` until all are there.
        data_root: See `protocols.training.load`.
        device: "cpu" or "cuda".
        run: Maps `train_bucket` over buckets, in any order; `map`, or many processes.
        part: (i, n): train only every n-th bucket, from the i-th: the share of one machine of n.
        progress: Called with (FLOPs done, FLOPs in all) at the start and after each bucket.

    Returns:
        The folder, or None while the shards of other parts are missing.
    """
    if (folder / "manifest.json").exists():
        raise ValueError(f"folder: {folder} holds a table already")
    planned = plan(spec, data_root, device=device)
    _train(planned[part[0] - 1 :: part[1]], folder, run, progress)
    if missing(planned, folder):
        return None
    arrays, trained = _merge(spec, planned, folder, data_root)
    write_table(
        folder, spec.space, arrays, _manifest(spec, data_root, trained, _pilot(spec, planned, folder, data_root))
    )
    shutil.rmtree(folder / "shards")
    return folder


def pilot(
    spec: Spec,
    folder: Path,
    *,
    data_root: Path | None = None,
    device: str = "cpu",
    run: Run = map,
    progress: Progress | None = None,
) -> dict[str, Json]:
    """Train a few architectures with two seeds: can the table tell architectures apart from seeds?

    They are the table's own trainings, which a build starts with: what the pilot trains is not trained again.

    Returns:
        Per pipeline: seed-to-seed Spearman correlation of the test metric among working architectures, their standard
        deviation, and that between seeds of one architecture; None if fewer than three work. An architecture works if
        it has learned more than half of what the best has: by its mean accuracy; for text by the logarithm of how far
        its perplexity is below that of guessing, the number of tokens; for other metrics by the logarithm of how far
        it is from the worst that has not diverged.
    """
    if spec.seeds < PILOT_SEEDS:
        raise ValueError(f"seeds: a pilot compares two training seeds, the spec has {spec.seeds}")
    planned = [b for b in plan(spec, data_root, device=device) if b.pilot]
    _train(planned, folder, run, progress)
    return _pilot(spec, planned, folder, data_root) or {}


def _train(planned: Sequence[Bucket], folder: Path, run: Run, progress: Progress | None) -> None:
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    todo = missing(planned, folder)
    total = sum(b.flops for b in planned)
    done = total - sum(b.flops for b in todo)
    if progress:
        progress(done, total)
    for shard in run(train_bucket, todo):
        save(_shard(folder, shard.bucket), shard)
        done += shard.bucket.flops
        if progress:
            progress(done, total)


def _pilot(spec: Spec, planned: Sequence[Bucket], folder: Path, data_root: Path | None) -> dict[str, Json] | None:
    from scipy.stats import spearmanr

    from ..protocols.training import load

    task, examples, found = load(spec.data, data_root).task, _examples(spec, data_root)["test"], {}
    for name in spec.pipelines if spec.seeds >= PILOT_SEEDS else ():
        values: dict[tuple[tuple[int, ...], int], float] = {}
        for bucket in planned:
            if bucket.pilot and bucket.pipeline == name:
                last = load_shard(_shard(folder, bucket), bucket).arrays["test"][:, -1].astype(float)
                values |= dict(zip(bucket.members, last.tolist(), strict=True))
        pairs = np.array([[values[genes, s] for s in range(PILOT_SEEDS)] for genes in sorted({g for g, _ in values})])
        if task.metric == "accuracy":
            pairs /= examples
        working = pairs[_gains(pairs, task) > _gains(pairs, task).max() / 2]
        found[name] = {"architectures": len(pairs), "working": len(working)} | dict.fromkeys(_SAID)
        if len(working) >= FEWEST_WORKING:
            numbers = (
                spearmanr(working[:, 0], working[:, 1])[0],
                working.mean(1).std(ddof=1),
                np.sqrt(working.var(1, ddof=1).mean()),
            )
            found[name] |= {key: round(float(x), 4) for key, x in zip(_SAID, numbers, strict=True)}
    return found or None


def _gains(pairs: np.ndarray, task: Task) -> np.ndarray:
    """What architectures have learned (n,), from values (n, seeds): 0 is nothing; -inf where a training diverged."""
    gains: np.ndarray = pairs.mean(1)
    if task.metric == "accuracy":
        return gains
    losses = np.log(pairs).mean(1) * (-1 if task.higher_is_better else 1)
    nothing = np.log(task.classes or 1) if task.kind == "text" else losses[np.isfinite(losses)].max(initial=-np.inf)
    gains = nothing - losses
    return gains


def verdict(found: Mapping[str, Mapping[str, Json]]) -> str | None:
    """Why a table is not worth building, by its pilot, in one line; None if it is."""
    for name, values in found.items():
        if values["working"] < FEWEST_WORKING:
            return f"pilot: under {name!r} only {values['working']} of {values['architectures']} architectures work"
        if not values["seed_to_seed_spearman"] >= LEAST_SPEARMAN:
            return (
                f"pilot: under {name!r} seed-to-seed Spearman is {values['seed_to_seed_spearman']}, "
                f"less than {LEAST_SPEARMAN}: the table would not tell architectures from seeds; change the data"
            )
        if not values["sd_architectures"] >= LEAST_RATIO * values["sd_seeds"]:
            return (
                f"pilot: under {name!r} architectures deviate by {values['sd_architectures']}, "
                f"less than {LEAST_RATIO} times the {values['sd_seeds']} of seeds; change the data"
            )
    return None


def dry_run(spec: Spec, data_root: Path | None, *, device: str = "cpu") -> Iterator[tuple[str, float]]:
    """Time a few trainings of each pipeline and fidelity, and yield (its name, expected seconds on one core)."""
    planned = plan(spec, data_root, device=device)
    for name, text in spec.variants():
        mine = [b for b in planned if (b.pipeline, b.fidelity) == (name, text)]
        middle = mine[len(mine) // 2]
        few = middle.members[:: max(1, len(middle.members) // 8)] if len(mine) < 8 else middle.members
        share = len(few) / len(middle.members)
        train_bucket(replace(middle, members=few[:1]))  # compiles, which happens once
        seconds = float(train_bucket(replace(middle, members=few)).made["seconds"])
        yield name + (f" at {text}" if text else ""), seconds / share * sum(b.flops for b in mine) / middle.flops


def _shard(folder: Path, bucket: Bucket) -> Path:
    return folder / "shards" / f"{bucket.key}.npz"


def _merge(
    spec: Spec, planned: Sequence[Bucket], folder: Path, data_root: Path | None
) -> tuple[dict[str, np.ndarray], list[dict[str, Json]]]:
    space = enumerable(spec.space)
    members = [space.at(i) for i in rows(spec)]
    row = {a.genes: i for i, a in enumerate(members)}
    arrays: dict[str, np.ndarray] = {}
    made: dict[str, dict[str, Json]] = {}
    for bucket in planned:
        shard = load_shard(_shard(folder, bucket), bucket)
        places = [row[genes] for genes, _ in bucket.members], [seed for _, seed in bucket.members]
        for name, values in shard.arrays.items():
            if name == "latency":
                _place(arrays, "feature.latency", (len(members),), values)[places[0]] = values
                continue
            stem = f"{name}.{bucket.pipeline}" + (f"@{bucket.fidelity}" if bucket.fidelity else "")
            _place(arrays, stem, (len(members), spec.seeds, *values.shape[1:]), values)[places] = values
        _add(made, shard)
    for name, text in spec.variants():
        stem = f"cost.{name}" + (f"@{text}" if text else "")
        counted = counter(spec.space, spec.data, data_root, text)
        arrays[stem] = np.array([counted(a).flops for a in members])
    whole = counter(spec.space, spec.data, data_root, "")
    for name in ("params", "macs", "flops"):
        arrays[f"feature.{name}"] = np.array([whole(a).features[name] for a in members])
    return arrays, list(made.values())


def _place(arrays: dict[str, np.ndarray], stem: str, shape: tuple[int, ...], like: np.ndarray) -> np.ndarray:
    hole = MISSING if like.dtype == np.uint16 else np.nan
    return arrays.setdefault(stem, np.full(shape, hole, like.dtype))


def _add(made: dict[str, dict[str, Json]], shard: Shard) -> None:
    """Count the buckets and seconds of each machine, software and trainer."""
    where = {k: v for k, v in shard.made.items() if k != "seconds"}
    entry = made.setdefault(repr(sorted(where.items())), {**where, "buckets": 0, "seconds": 0.0})
    entry["buckets"] += 1
    entry["seconds"] = round(entry["seconds"] + shard.made["seconds"], 1)


def _manifest(
    spec: Spec, data_root: Path | None, made: list[dict[str, Json]], pilot: Mapping[str, Json] | None
) -> dict[str, Json]:
    from ..protocols.training import PIPELINES, load

    space, task = enumerable(spec.space), load(spec.data, data_root).task
    trained = {
        "by": "float32, one thread per process",
        "seconds_amortised": round(sum(m["seconds"] for m in made), 1),
        "machines": made,
    }
    sampled = {} if spec.sample is None else {
        "architectures": [space.text(space.at(i)) for i in rows(spec)],
        "sample": f"uniform, without replacement, {spec.sample} of {space.size}; stream table-sample of the name",
    }  # fmt: skip
    return {
        **(spec.notes or {}),
        **sampled,
        "name": spec.name,
        "version": spec.version,
        "clock": "flops",
        "task": task,
        "examples": _examples(spec, data_root),
        "epochs": {p: list(spec.recorded(p, PIPELINES[p].epochs)) for p in spec.pipelines},
        "pipelines": {p: PIPELINES[p] for p in spec.pipelines},
        "default_pipeline": spec.pipelines[0],
        "trained": trained,
        "pilot": pilot,
        **({"fgsm_epsilon": spec.fgsm} if spec.fgsm else {}),
        **({"fidelities": {spec.pipelines[0]: list(spec.fidelities)}} if spec.fidelities else {}),
    }


def _examples(spec: Spec, data_root: Path | None) -> dict[str, int]:
    from ..protocols.training import load, load_test

    view = load(spec.data, data_root)
    return {"train": len(view.train), "valid": len(view.valid), "test": len(load_test(spec.data, data_root))}
