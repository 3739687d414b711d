"""Estimate tables: the scores of one estimator, kept so that audits read them instead of computing them again.

    manifest.json        kind `estimates`: estimator, space, table or data, seeds, unit, preparation; sha256 of files
    score.npy            (architecture, seed) float64, higher is better; NaN where the estimator failed
    cost.npy             (architecture, seed) float64, of each answer, in the manifest's unit; preparation apart
    reason.npy           (architecture, seed) uint8, place in the manifest's `reasons`; 0 where there is a score
    objective.<name>.npy (architecture, seed) float64, further values, for example a predictive deviation

Rows follow the rows of the table, or `space.at(0), space.at(1), ...`, or the manifest's list of architectures.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..methods import registry
from ..protocols import Architecture, Cost, Json, SearchSpace, Traits
from .format import sha256
from .table import EMBEDDED

__all__ = ["EstimateTable", "embedded_estimates", "open_estimates", "write_estimates"]

SCHEMA = 1
REQUIRED = ("name", "estimator", "space", "architectures", "table", "pipeline", "task", "unit", "seeds", "preparation",
            "trained_on", "reasons")  # fmt: skip


class EstimateTable:
    """The scores of one estimator.

    Args:
        folder: Written by `write_estimates`, or by `nasbed estimate`.

    Attributes:
        name: Of the estimator.
        digest: sha256 of what it is: names, axes and the hashes of its files.
        space: Of the architectures.
        traits: What the scores are.
        unit: Of all costs.
        seeds: Of the estimator, one for each column.
        scores: (architectures, seeds), NaN where it failed.
        costs: (architectures, seeds), of each answer.
        objectives: Further values by name, (architectures, seeds).
        preparation: Per seed what `prepare` cost.
        manifest: As it was read.

    Raises:
        ValueError: No estimates there, a newer schema, or a file that was changed.
    """

    def __init__(self, folder: Path) -> None:
        manifest = _read(folder)
        arrays = {}
        for file, expected in manifest["files"].items():
            if not (folder / file).is_file() or sha256(folder / file) != expected:
                raise ValueError(f"files: {folder / file} is missing or does not have the sha256 of the manifest")
            arrays[file.removesuffix(".npy")] = np.load(folder / file, allow_pickle=False)
        self.folder, self.manifest = folder, manifest
        self.name: str = manifest["estimator"]["name"]
        self.digest: str = manifest["digest"]
        self.space: SearchSpace = registry.space(manifest["space"])
        self.traits = Traits(**manifest["estimator"]["traits"])
        self.unit: str = manifest["unit"]
        self.seeds = tuple(manifest["seeds"])
        self.scores, self.costs, self._reasons = arrays["score"], arrays["cost"], arrays["reason"]
        self.objectives = {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith("objective.")}
        self.preparation = tuple(tuple(Cost(**c) for c in costs) for costs in manifest["preparation"])

    def reason(self, row: int, column: int) -> str:
        """Why there is no score; "" where there is one."""
        return str(self.manifest["reasons"][self._reasons[row, column]])

    def trained_on(self, column: int) -> tuple[Architecture, ...]:
        """The architectures that the estimator was fitted on with a seed; an audit leaves them out."""
        texts = self.manifest["trained_on"][column]
        return tuple(self.space.parse(t) for t in texts)

    def architectures(self) -> list[Architecture]:
        """The architecture of each row."""
        texts = self.manifest["architectures"]
        if texts is not None:
            return [self.space.parse(t) for t in texts]
        return [self.space.at(i) for i in range(len(self.scores))]  # type: ignore[attr-defined]


def write_estimates(folder: Path, arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Json]) -> Path:
    """Write scores as a valid estimate table; the inverse of `open_estimates`.

    Args:
        folder: Is made; must not hold a manifest yet.
        arrays: `score`, `cost`, `reason` and `objective.<name>`, all (architectures, seeds).
        manifest: The fields `REQUIRED`, and any further description.

    Raises:
        ValueError: One line naming the array or field that does not fit.
    """
    if (folder / "manifest.json").exists():
        raise ValueError(f"folder: {folder} holds a table already")
    for field in REQUIRED:
        if field not in manifest:
            raise ValueError(f"manifest: the field {field!r} is missing")
    _check(arrays, manifest)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for stem, array in sorted(arrays.items()):
        kind = np.uint8 if stem == "reason" else np.float64
        np.save(folder / f"{stem}.npy", np.ascontiguousarray(array, kind), allow_pickle=False)
        files[f"{stem}.npy"] = sha256(folder / f"{stem}.npy")
    full: dict[str, Any] = {**manifest, "schema": SCHEMA, "kind": "estimates", "files": files}
    full["digest"] = _digest(full)
    partial = folder / "manifest.json.part"
    partial.write_text(json.dumps(full, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, folder / "manifest.json")
    return folder


def open_estimates(folder: str | Path) -> EstimateTable:
    """Open an estimate table by its folder, or by `<table>/<estimator>` among those that come with the package."""
    known = EMBEDDED / "estimates" / folder
    return EstimateTable(known if (known / "manifest.json").is_file() else Path(folder))


def embedded_estimates(table: str | None = None) -> tuple[str, ...]:
    """Names `<table>/<estimator>` of the estimates that come with the package, of one table or of all."""
    found = (EMBEDDED / "estimates").glob(f"{table or '*'}/*/manifest.json")
    return tuple(sorted("/".join(p.parts[-3:-1]) for p in found))


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"estimates: {folder} holds no manifest.json") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"estimates: {path} is not JSON ({error})") from None
    if manifest.get("kind") != "estimates":
        raise ValueError(f"estimates: {folder} holds {manifest.get('kind', 'nothing known')}, not estimates")
    if manifest["schema"] > SCHEMA:
        raise ValueError(f"schema: {path} has schema {manifest['schema']}; this version reads up to {SCHEMA}")
    if _digest(manifest) != manifest["digest"]:
        raise ValueError(f"digest: {path} was changed after it was written")
    return manifest


def _digest(manifest: Mapping[str, Any]) -> str:
    identity = {k: manifest[k] for k in (*REQUIRED, "schema", "kind", "files")}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _check(arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> None:
    if missing := [k for k in ("score", "cost", "reason") if k not in arrays]:
        raise ValueError(f"arrays: {missing[0]!r} is missing")
    seeds: Sequence[int] = manifest["seeds"]
    texts, shape = manifest["architectures"], arrays["score"].shape
    rows = shape[0] if texts is None else len(texts)
    for stem, array in arrays.items():
        if stem not in ("score", "cost", "reason") and not stem.startswith("objective."):
            raise ValueError(f"arrays: {stem!r} is not one of score, cost, reason, objective.<name>")
        if array.shape != (rows, len(seeds)):
            raise ValueError(f"{stem}: shape {array.shape} is not (architectures, seeds) = {(rows, len(seeds))}")
    failed = np.isnan(arrays["score"])
    if not np.isfinite(arrays["score"][~failed]).all():
        raise ValueError("score: every score is a finite number, or NaN with a reason")
    if (failed != (arrays["reason"] > 0)).any() or arrays["reason"].max(initial=0) >= len(manifest["reasons"]):
        raise ValueError("reason: must name a reason where the score is NaN, and only there")
    if not (np.isfinite(arrays["cost"]) & (arrays["cost"] >= 0)).all():
        raise ValueError("cost: every cost must be a finite number >= 0")
    if len(manifest["preparation"]) != len(seeds) or len(manifest["trained_on"]) != len(seeds):
        raise ValueError("preparation, trained_on: must have one entry for each seed")
