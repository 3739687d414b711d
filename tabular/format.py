"""The table format: a folder of memory-mapped arrays and a manifest. No pickle, test values apart.

    manifest.json              what was trained, how, where; sha256 of every file
    valid.<pipeline>.npy       (architecture, seed, epoch); uint16 counts of correct predictions for accuracies
    train.<pipeline>.npy       the same, as seen during training
    cost.<pipeline>.npy        (architecture,) per epoch, or (architecture, seed, epoch) cumulative, in the clock's unit
    feature.<name>.npy         (architecture,) params, flops, ...
    sealed/test.<pipeline>.npy (architecture, seed, epoch)

Rows follow `space.at(0), space.at(1), ...` of a complete table, or the manifest's list of architectures.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..methods import registry
from ..protocols import UNITS, IndexedSpace, Json, Pipeline, SearchSpace, Task

SCHEMA = 1
MISSING = 65535
SPLITS = ("train", "valid", "test")

# What a table is, as opposed to how it came about: only this enters its digest.
IDENTITY = ("schema", "name", "version", "kind", "space", "coverage", "canonical", "architectures", "task", "examples",
             "pipelines", "seeds", "epochs", "clock", "files")  # fmt: skip


def write_table(
    folder: str | Path, space: SearchSpace | str, arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Json]
) -> Path:
    """Write arrays as a valid table; the inverse of `open_table`.

    >>> import tempfile
    >>> from nasbed.methods.spaces.mlp import MLP
    >>> space = MLP(hidden=1, widths=(8,), dropout=False)           # 4 members
    >>> counts = np.arange(8, dtype=np.uint16).reshape(4, 2, 1)     # 4 architectures, 2 seeds, 1 epoch
    >>> arrays = {"valid.base": counts, "test.base": counts, "cost.base": np.ones(4)}
    >>> folder = write_table(tempfile.mkdtemp() + "/mine", space, arrays,
    ...                      {"name": "mine", "clock": "seconds", "examples": {"valid": 10, "test": 10}})
    >>> from nasbed.tabular import open_table
    >>> open_table(folder).seeds
    (0, 1)

    Args:
        folder: Is made; must not hold a table yet.
        space: The space, or its full name; a complete table has `space.size` rows in `space.at` order.
        arrays: By file stem: `valid.<pipeline>` and `test.<pipeline>` are required for each pipeline,
            `train.<pipeline>`, `cost.<pipeline>` and `feature.<name>` are optional. Accuracies are uint16 counts of
            correct predictions, 65535 where missing; other metrics are float32, NaN where missing. Without costs an
            epoch costs 1 and the clock is epochs.
        manifest: `name` is required, `examples` (split -> number) for accuracies, and `clock` (the unit) with costs.
            Optional: `version`, `seeds`, `epochs` (pipeline -> list), `pipelines` (name -> Pipeline), `task`
            (Task), `architectures` (texts, for a sample), `canonical` (level by which rows are merged), and any
            further description.

    Raises:
        ValueError: One line naming the array or field that does not fit.
    """
    folder = Path(folder)
    if isinstance(space, str):
        space = registry.space(space)
    if (folder / "manifest.json").exists():
        raise ValueError(f"folder: {folder} holds a table already")
    full = complete(space, arrays, manifest)
    (folder / "sealed").mkdir(parents=True, exist_ok=True)
    files = {}
    for stem, array in sorted(_with_costs(arrays, full).items()):
        path = f"sealed/{stem}.npy" if stem.startswith("test.") else f"{stem}.npy"
        np.save(folder / path, np.ascontiguousarray(array), allow_pickle=False)
        files[path] = sha256(folder / path)
    full["files"] = files
    full["median_cost"] = {p: median_cost(folder, p, full["epochs"][p]) for p in full["pipelines"]}
    full["digest"] = digest(full)
    partial = folder / "manifest.json.part"
    partial.write_text(json.dumps(full, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, folder / "manifest.json")
    return folder


def digest(manifest: Mapping[str, Json]) -> str:
    """sha256 of what the table is: names, axes and the hashes of all its files."""
    identity = {k: manifest[k] for k in IDENTITY}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hash of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def complete(space: SearchSpace, arrays: Mapping[str, np.ndarray], given: Mapping[str, Json]) -> dict[str, Any]:
    """The whole manifest, with defaults, after checking every array against it.

    Raises:
        ValueError: One line naming the array or field that does not fit.
    """
    pipelines = sorted({stem.partition(".")[2] for stem in arrays if stem.startswith("valid.")})
    if not pipelines:
        raise ValueError("arrays: needs valid.<pipeline> and test.<pipeline> for at least one pipeline")
    if "name" not in given:
        raise ValueError("manifest: the field 'name' is missing")
    rows, seeds, _ = _three_axes("valid", pipelines[0], arrays)
    task = given.get("task") or Task(given["name"], "tabular", "accuracy", True, (1,), None, "")
    full: dict[str, Any] = {
        "version": "1",
        "clock": "epochs",
        "seeds": list(range(seeds)),
        "epochs": {p: list(range(1, _three_axes("valid", p, arrays)[2] + 1)) for p in pipelines},
        "examples": {},
        "architectures": None,
        "canonical": None,
        **given,
        "schema": SCHEMA,
        "kind": "trainings",
        "space": space.name,
        "coverage": "complete" if given.get("architectures") is None else "sample",
        "task": asdict(task) if isinstance(task, Task) else task,
    }
    _check_axes(full, pipelines, seeds)
    described = given.get("pipelines", {})
    full["pipelines"] = {p: _described(described.get(p), p, full["epochs"][p][-1]) for p in pipelines}
    _check_rows(space, full, rows)
    if "clock" not in given and any(stem.startswith("cost.") for stem in arrays):
        raise ValueError(f"clock: missing; the costs are in a unit, one of {', '.join(UNITS)}")
    if full["clock"] not in UNITS:
        raise ValueError(f"clock: {full['clock']!r} is not one of {', '.join(UNITS)}")
    for pipeline in pipelines:
        shape = (rows, len(full["seeds"]), len(full["epochs"][pipeline]))
        for split in ("valid", "test", "train"):
            if split != "train" or f"train.{pipeline}" in arrays:
                _check_metric(f"{split}.{pipeline}", arrays, shape, full)
        cost = arrays.get(f"cost.{pipeline}")
        if cost is not None and cost.shape not in ((rows,), shape):
            raise ValueError(f"cost.{pipeline}: shape {cost.shape} is neither ({rows},) nor {shape}")
        if cost is not None and not (np.isfinite(cost) & (cost >= 0)).all():
            raise ValueError(f"cost.{pipeline}: every cost must be a finite number >= 0")
    for stem, array in arrays.items():
        kind, _, name = stem.partition(".")
        if kind not in (*SPLITS, "cost", "feature") or (kind != "feature" and name not in pipelines):
            raise ValueError(f"arrays: {stem!r} is not one of train|valid|test|cost.<pipeline>, feature.<name>")
        if kind == "feature" and array.shape != (rows,):
            raise ValueError(f"{stem}: shape {array.shape} is not ({rows},)")
    return full


def _check_axes(full: Mapping[str, Any], pipelines: list[str], seeds: int) -> None:
    if len(full["seeds"]) != seeds or len(set(full["seeds"])) != seeds:
        raise ValueError(f"seeds: {full['seeds']} are not {seeds} different integers, one for each place of the axis")
    for p in pipelines:
        epochs = full["epochs"].get(p)
        if not epochs or epochs[0] < 1 or any(b <= a for a, b in pairwise(epochs)):
            raise ValueError(f"epochs: {epochs} of {p!r} are not ascending integers >= 1")


def _check_rows(space: SearchSpace, full: Mapping[str, Any], rows: int) -> None:
    if full["canonical"] not in (None, *space.levels):
        raise ValueError(f"canonical: {full['canonical']!r} is not one of {', '.join(space.levels)}")
    if full["architectures"] is None:
        if not isinstance(space, IndexedSpace):
            raise ValueError(f"space: {space.name!r} cannot be enumerated; list the table's architectures")
        if rows != space.size:
            raise ValueError(f"arrays: {rows} rows, but {space.name!r} has {space.size} members")
    elif len(full["architectures"]) != rows or len(set(full["architectures"])) != rows:
        raise ValueError(f"architectures: must be {rows} different texts, one for each row")
    else:
        for text in full["architectures"]:
            a = space.parse(text)
            space.check(a)
            if full["canonical"] is not None and space.canonical(a, full["canonical"]) != a:
                raise ValueError(f"architectures: {text!r} is not canonical at the level {full['canonical']!r}")


def _check_metric(stem: str, arrays: Mapping[str, np.ndarray], shape: tuple[int, ...], full: Mapping[str, Any]) -> None:
    if stem not in arrays:
        raise ValueError(f"arrays: {stem!r} is missing")
    array, split = arrays[stem], stem.partition(".")[0]
    if array.shape != shape:
        raise ValueError(f"{stem}: shape {array.shape} is not (architectures, seeds, epochs) = {shape}")
    if full["task"]["metric"] != "accuracy":
        if array.dtype != np.float32:
            raise ValueError(f"{stem}: {full['task']['metric']} must be float32, not {array.dtype}")
        _check_holes(stem, np.isnan(array), arrays)
        return
    if array.dtype != np.uint16:
        raise ValueError(f"{stem}: accuracies are uint16 counts of correct predictions, not {array.dtype}")
    total = full["examples"].get(split)
    if not isinstance(total, int) or total < 1:
        raise ValueError(f"examples: the number of {split} examples is missing")
    present = array[array != MISSING]
    if present.size and present.max() > total:
        raise ValueError(f"{stem}: {present.max()} correct predictions of {total} examples")
    _check_holes(stem, array == MISSING, arrays)


def _check_holes(stem: str, missing: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
    """Look-up asks the last epoch whether there is a training, so no earlier value may be missing before it."""
    if (missing[:, :, :-1] & ~missing[:, :, 1:]).any():
        raise ValueError(f"{stem}: an epoch is missing before one that is there")
    split, _, pipeline = stem.partition(".")
    valid = arrays[f"valid.{pipeline}"]
    there = valid != MISSING if valid.dtype == np.uint16 else ~np.isnan(valid)
    if split == "train" and (missing & there).any():
        raise ValueError(f"{stem}: missing where valid.{pipeline} is there")


def _three_axes(split: str, pipeline: str, arrays: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    array = arrays[f"{split}.{pipeline}"]
    if array.ndim != 3:
        raise ValueError(f"{split}.{pipeline}: shape {array.shape} is not (architectures, seeds, epochs)")
    rows, seeds, epochs = array.shape
    return rows, seeds, epochs


def _with_costs(arrays: Mapping[str, np.ndarray], full: Mapping[str, Any]) -> dict[str, np.ndarray]:
    rows = len(next(iter(arrays.values())))
    costs = {f"cost.{p}": np.asarray(arrays.get(f"cost.{p}", np.ones(rows)), np.float64) for p in full["pipelines"]}
    return {**arrays, **costs}


def _described(given: Pipeline | Mapping[str, Json] | None, name: str, epochs: int) -> dict[str, Any]:
    if given is None:
        given = Pipeline(name, optimizer="unstated", learning_rate=0.0, epochs=epochs, batch_size=0)
    if isinstance(given, Pipeline):
        return {**asdict(given), "open": list(given.open), "digest": given.digest}
    return dict(given)


def median_cost(folder: Path, pipeline: str, epochs: list[int]) -> float:
    """Median over architectures of a full training's cost, mean over seeds, in the clock's unit."""
    cost = np.load(folder / f"cost.{pipeline}.npy", allow_pickle=False)
    full = cost * epochs[-1] if cost.ndim == 1 else cost[:, :, -1].mean(1)
    return float(np.median(full))
