"""Shards: the results of buckets, on disk until the table is written."""

from __future__ import annotations

import json
import os
import platform
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..methods import registry
from ..protocols import Architecture, Json, SearchSpace, Task
from .buckets import Bucket
from .spec import fidelity


@dataclass(frozen=True, slots=True)
class Shard:
    """What a bucket gave.

    Attributes:
        bucket: Which.
        arrays: By split, (members, recorded epochs): uint16 counts of correct predictions, or the metric as float32;
            "fgsm" (members,), uint16; "latency" (members,), seconds, float32.
        made: Seconds it took, trainer, hardware and software.
    """

    bucket: Bucket
    arrays: Mapping[str, np.ndarray]
    made: Mapping[str, Json]


def train_bucket(bucket: Bucket) -> Shard:
    """Train all members of a bucket, on one thread."""
    from ..protocols.training import (
        PIPELINES,
        fit_many,
        load,
        load_test,
        objective_of,
        one_thread,
        reduced,
        reduced_split,
    )  # fmt: skip

    whole, part = registry.space(bucket.space), fidelity(bucket.fidelity)
    space, view = reduced(whole, load(bucket.data, bucket.root), part)
    evaluate = {"valid": view.valid, "test": reduced_split(load_test(bucket.data, bucket.root), part)}
    members = [(Architecture(space.family, genes), seed) for genes, seed in bucket.members]
    networks = {(a, s): space.build(a, view.task) for a, s in members}
    pipeline = replace(PIPELINES[bucket.pipeline], **space.training(members[0][0]))
    objective = objective_of(view.task)
    started = time.perf_counter()
    with one_thread():
        totals, trainer = fit_many(
            networks, view.train, evaluate, pipeline,
            objective=objective, device=bucket.device, recorded=bucket.recorded,
            attack=("test", bucket.fgsm) if bucket.fgsm else None,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        arrays = {}
        for name, found in totals.items():
            predictions = {"train": view.train, **evaluate}["test" if name == "fgsm" else name].y.size
            if view.task.metric == "accuracy":
                arrays[name] = found.astype(np.uint16)
            else:
                # NaN stands for a training that is not there; this one is, and diverged.
                values = objective.metric(found, predictions)
                with np.errstate(over="ignore"):  # beyond single precision is as infinite
                    arrays[name] = np.where(np.isnan(values), np.inf, values).astype(np.float32)
        if "fgsm" in arrays:
            arrays["fgsm"] = arrays["fgsm"][:, 0]
        if bucket.latency:
            arrays["latency"] = _latencies(space, view.task, [a for a, _ in members])
    return Shard(bucket, arrays, {"seconds": seconds, "trainer": trainer, **_machine(bucket.device)})


def _latencies(space: SearchSpace, task: Task, members: list[Architecture]) -> np.ndarray:
    """Seconds of a forward pass of one example in evaluation: the median of 20, after 5 to warm up."""
    import torch

    from ..protocols.streams import torch_generator
    from ..protocols.training import materialise

    kind = torch.int64 if task.kind == "text" else torch.float32
    x = torch.zeros((1, *task.shape), dtype=kind)
    known: dict[Architecture, float] = {}
    with torch.no_grad():
        for a in members:
            if a not in known:
                network = materialise(space.build(a, task), torch_generator(0, "init", a)).eval()
                times = []
                for _ in range(25):
                    started = time.perf_counter()
                    network(x)
                    times.append(time.perf_counter() - started)
                known[a] = median(times[5:])
    return np.array([known[a] for a in members], np.float32)


def save(path: Path, shard: Shard) -> None:
    """Write under another name first: a shard is either whole or absent."""
    partial = path.with_suffix(f".{os.getpid()}.part")
    meta = np.frombuffer(json.dumps(dict(shard.made)).encode(), np.uint8)
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, meta=meta, **shard.arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_shard(path: Path, bucket: Bucket) -> Shard:
    """Read a shard; ValueError names the file if it is damaged or of another shape."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            made: dict[str, Any] = json.loads(file["meta"].tobytes())
            arrays = {name: file[name] for name in file.files if name != "meta"}
        if any(len(array) != len(bucket.members) for array in arrays.values()) or "valid" not in arrays:
            raise ValueError("another number of members")
    except (zipfile.BadZipFile, EOFError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"shard: {path} is damaged ({error}); delete it and build again") from None
    return Shard(bucket, arrays, made)


def _machine(device: str) -> dict[str, Json]:
    import torch

    if device == "cpu":
        hardware = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {platform.system()}"
    else:
        hardware = torch.cuda.get_device_name()
    software = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    if device == "cpu":
        import numba

        software["numba"] = numba.__version__
    return {"hardware": hardware, "software": software}
