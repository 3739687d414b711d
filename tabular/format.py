"""The table format: a folder of memory-mapped arrays and a manifest. No pickle, test values apart.

    manifest.json              what was trained, how, where; sha256 of every file
    valid.<pipeline>.npy       (architecture, seed, epoch); uint16 counts of correct predictions for accuracies
    train.<pipeline>.npy       the same, as seen during training
    cost.<pipeline>.npy        (architecture,) per epoch, or (architecture, seed, epoch) cumulative, in the clock's unit
    feature.<name>.npy         (architecture,) params, flops, ...
    sealed/test.<pipeline>.npy (architecture, seed, epoch)
    sealed/fgsm.<pipeline>.npy (architecture, seed) test images still right under attack after the last epoch, uint16

Rows follow `space.at(0), space.at(1), ...` of a complete table, or the manifest's list of architectures. Trainings at a
lower fidelity than full, epochs apart, have arrays of their own: `valid.<pipeline>@<fidelity>.npy`, and so on, with
`Fidelity.text` such as `data=0.5`; the manifest lists them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..methods import registry
from ..protocols import Json, SearchSpace
from .manifest import IDENTITY, MISSING, OPTIONAL, SCHEMA, SEALED, SPLITS, complete, recorded

__all__ = ["IDENTITY", "MISSING", "OPTIONAL", "SCHEMA", "SPLITS", "complete", "digest", "median_cost", "sha256",
           "write_table"]  # fmt: skip


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
            correct predictions, 65535 where missing; other metrics are float32, NaN where missing, infinite where a
            training diverged. Without costs an epoch costs 1 and the clock is epochs; a cost is NaN only where there
            is no training. Trainings at a lower fidelity are `valid.<pipeline>@<fidelity>`, for example
            `valid.base@data=0.5` (`Fidelity.text`), with `train` and `test` if recorded, and with `cost` where the
            pipeline has costs. `fgsm.<pipeline>` (architectures, seeds), uint16, counts the test examples that are
            still right under the fast gradient sign attack (Goodfellow et al. 2015) after the last epoch.
        manifest: `name` is required, `examples` (split -> number) for accuracies, `clock` (the unit) with costs, and
            `fgsm_epsilon` (size of the attack) with `fgsm` arrays. Optional: `version`, `seeds`, `epochs` (pipeline,
            or `<pipeline>@<fidelity>` where they differ, -> list), `fidelities` (pipeline -> texts, in the order to
            be listed), `pipelines` (name -> Pipeline), `task` (Task), `architectures` (texts, for a sample),
            `canonical` (level by which rows are merged), and any further description.

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
    names = [name for p in full["pipelines"] for name in recorded(full, p)]
    files = {}
    for stem, array in sorted(_with_costs(arrays, names).items()):
        path = f"sealed/{stem}.npy" if stem.partition(".")[0] in SEALED else f"{stem}.npy"
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
    identity = {k: manifest[k] for k in IDENTITY} | {k: manifest[k] for k in OPTIONAL if k in manifest}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hash of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def median_cost(folder: Path, pipeline: str, epochs: list[int]) -> float:
    """Median over architectures of a full training's cost, mean over seeds, in the clock's unit.

    Trainings that are not there (NaN) count in neither.
    """
    cost = np.load(folder / f"cost.{pipeline}.npy", allow_pickle=False)
    if cost.ndim == 1:
        return float(np.nanmedian(cost * epochs[-1]))
    last = cost[:, :, -1]
    there = ~np.isnan(last)
    if not there.all():
        some = there.any(1)
        return float(np.median(np.where(there, last, 0.0).sum(1)[some] / there.sum(1)[some]))
    return float(np.median(last.mean(1)))


def _with_costs(arrays: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    rows = len(next(iter(arrays.values())))
    costs = {f"cost.{n}": np.asarray(arrays.get(f"cost.{n}", np.ones(rows)), np.float64) for n in names}
    return {**arrays, **costs}
