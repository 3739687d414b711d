"""The manifest of a table, and what must hold between it and the arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from itertools import pairwise
from typing import Any

import numpy as np

from ..protocols import UNITS, Fidelity, IndexedSpace, Json, Pipeline, SearchSpace, Task

SCHEMA = 1
MISSING = 65535
SPLITS = ("train", "valid", "test")
SEALED = ("test", "fgsm")

# What a table is, as opposed to how it came about: only this enters its digest.
IDENTITY = ("schema", "name", "version", "kind", "space", "coverage", "canonical", "architectures", "task", "examples",
            "pipelines", "seeds", "epochs", "clock", "files")  # fmt: skip
OPTIONAL = ("fidelities", "fgsm_epsilon")
"""Of the identity too, but only of tables that have them: the digests of all others are what they were without."""

Arrays = Mapping[str, np.ndarray]


def complete(space: SearchSpace, arrays: Arrays, given: Mapping[str, Json]) -> dict[str, Any]:
    """The whole manifest, with defaults, after checking every array against it.

    Raises:
        ValueError: One line naming the array or field that does not fit.
    """
    pipelines = sorted({p for kind, p, fidelity in map(_split, arrays) if kind == "valid" and not fidelity})
    if not pipelines:
        raise ValueError("arrays: needs valid.<pipeline> and test.<pipeline> for at least one pipeline")
    if "name" not in given:
        raise ValueError("manifest: the field 'name' is missing")
    for stem in arrays:
        _check_stem(stem, pipelines)
    rows, seeds, _ = _three_axes(f"valid.{pipelines[0]}", arrays)
    task = given.get("task") or Task(given["name"], "tabular", "accuracy", True, (1,), None, "")
    full: dict[str, Any] = {
        "version": "1",
        "clock": "epochs",
        "seeds": list(range(seeds)),
        "epochs": {p: list(range(1, _three_axes(f"valid.{p}", arrays)[2] + 1)) for p in pipelines},
        "examples": {},
        "architectures": None,
        "canonical": None,
        **{k: v for k, v in given.items() if k not in OPTIONAL or v},
        "schema": SCHEMA,
        "kind": "trainings",
        "space": space.name,
        "coverage": "complete" if given.get("architectures") is None else "sample",
        "task": asdict(task) if isinstance(task, Task) else task,
    }
    if fidelities := _fidelities(arrays, pipelines, given.get("fidelities") or {}):
        full["fidelities"] = fidelities
    _check_axes(full, pipelines, seeds)
    described = given.get("pipelines", {})
    full["pipelines"] = {p: _described(described.get(p), p, full["epochs"][p][-1]) for p in pipelines}
    _check_rows(space, full, rows)
    if "clock" not in given and any(stem.startswith("cost.") for stem in arrays):
        raise ValueError(f"clock: missing; the costs are in a unit, one of {', '.join(UNITS)}")
    if full["clock"] not in UNITS:
        raise ValueError(f"clock: {full['clock']!r} is not one of {', '.join(UNITS)}")
    _check_arrays(arrays, full, rows)
    return full


def recorded(full: Mapping[str, Any], pipeline: str) -> dict[str, list[int]]:
    """What is recorded under a pipeline: its name, then `<pipeline>@<fidelity>`, each with its epochs."""
    epochs = full["epochs"]
    texts = full.get("fidelities", {}).get(pipeline, ())
    return {pipeline: epochs[pipeline]} | {
        f"{pipeline}@{t}": epochs.get(f"{pipeline}@{t}", epochs[pipeline]) for t in texts
    }


def fidelity_of(text: str) -> Fidelity:
    """The fidelity that a text such as `width=0.5;depth=0.25` stands for; the inverse of `Fidelity.text`.

    Raises:
        ValueError: The text is not one that a fidelity below full has.
    """
    try:
        shares = {key: float(value) for key, value in (part.split("=") for part in text.split(";"))}
        found = Fidelity(**shares)
    except (ValueError, TypeError):
        found, shares = Fidelity(), {}
    if not text or found.text != text or "epochs" in shares or not all(0 < v < 1 for v in shares.values()):
        raise ValueError(
            f"fidelities: {text!r} is not of the form FIELD=SHARE, joined by ';', of the fields data, resolution, "
            "width, depth, in this order, and shares between 0 and 1 in at most six digits"
        )
    return found


def present(values: np.ndarray) -> np.ndarray:
    """Where an array of metric values holds one: not 65535 among counts, not NaN among floats."""
    there: np.ndarray = values != MISSING if values.dtype == np.uint16 else ~np.isnan(values)
    return there


def _split(stem: str) -> tuple[str, str, str]:
    """Kind, pipeline (or feature), and text of the fidelity: `valid`, `base`, `data=0.5`."""
    kind, _, name = stem.partition(".")
    pipeline, _, fidelity = name.partition("@")
    return kind, pipeline, fidelity


def _check_stem(stem: str, pipelines: list[str]) -> None:
    kind, name, fidelity = _split(stem)
    known = kind == "feature" or (name in pipelines and kind in (*SPLITS, "cost", "fgsm"))
    if not known or "/" in stem or ("@" in stem and (not fidelity or kind in ("feature", "fgsm"))):
        raise ValueError(
            f"arrays: {stem!r} is not one of train|valid|test|cost.<pipeline>, the same with @<fidelity>, "
            "fgsm.<pipeline>, feature.<name>"
        )


def _fidelities(arrays: Arrays, pipelines: list[str], given: Mapping[str, Json]) -> dict[str, list[str]]:
    """Per pipeline that has any, in the given order, or sorted."""
    found = {p: sorted({f for _, q, f in map(_split, arrays) if q == p and f}) for p in pipelines}
    for p, texts in found.items():
        for text in texts:
            fidelity_of(text)
        if stated := given.get(p):
            if sorted(stated) != texts:
                raise ValueError(f"fidelities: {p!r} has arrays at {', '.join(texts) or 'none'}, not at {stated}")
            found[p] = list(stated)
    if unknown := sorted(p for p in given if p not in pipelines and given[p]):
        raise ValueError(f"fidelities: {unknown[0]!r} is not one of {', '.join(pipelines)}")
    return {p: texts for p, texts in found.items() if texts}


def _check_axes(full: Mapping[str, Any], pipelines: list[str], seeds: int) -> None:
    if len(full["seeds"]) != seeds or len(set(full["seeds"])) != seeds:
        raise ValueError(f"seeds: {full['seeds']} are not {seeds} different integers, one for each place of the axis")
    for p in pipelines:
        if p not in full["epochs"]:
            raise ValueError(f"epochs: None of {p!r} are not ascending integers >= 1")
        for name, epochs in recorded(full, p).items():
            if not epochs or epochs[0] < 1 or any(b <= a for a, b in pairwise(epochs)):
                raise ValueError(f"epochs: {epochs} of {name!r} are not ascending integers >= 1")


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


def _check_arrays(arrays: Arrays, full: Mapping[str, Any], rows: int) -> None:
    for pipeline in full["pipelines"]:
        for name, epochs in recorded(full, pipeline).items():
            shape = (rows, len(full["seeds"]), len(epochs))
            required = ("valid", "test") if name == pipeline else ("valid",)
            for split in ("valid", "test", "train"):
                if split in required or f"{split}.{name}" in arrays:
                    _check_metric(f"{split}.{name}", arrays, shape, full)
            if f"cost.{name}" in arrays:
                _check_cost(f"cost.{name}", arrays, shape)
            elif f"cost.{pipeline}" in arrays:
                raise ValueError(f"arrays: 'cost.{name}' is missing, while 'cost.{pipeline}' is there")
        if not present(arrays[f"valid.{pipeline}"]).any():
            raise ValueError(f"valid.{pipeline}: holds no training at all")
        if f"fgsm.{pipeline}" in arrays:
            _check_fgsm(f"fgsm.{pipeline}", arrays, (rows, len(full["seeds"])), full)
    if "fgsm_epsilon" in full and not any(stem.startswith("fgsm.") for stem in arrays):
        raise ValueError("fgsm_epsilon: there is no array fgsm.<pipeline> that it is about")
    for stem, array in arrays.items():
        if stem.startswith("feature.") and array.shape != (rows,):
            raise ValueError(f"{stem}: shape {array.shape} is not ({rows},)")


def _check_metric(stem: str, arrays: Arrays, shape: tuple[int, ...], full: Mapping[str, Any]) -> None:
    if stem not in arrays:
        raise ValueError(f"arrays: {stem!r} is missing")
    array, split = arrays[stem], stem.partition(".")[0]
    if array.shape != shape:
        raise ValueError(f"{stem}: shape {array.shape} is not (architectures, seeds, epochs) = {shape}")
    if full["task"]["metric"] == "accuracy":
        _check_counts(stem, array, full["examples"].get(split), split)
    elif array.dtype != np.float32:
        raise ValueError(f"{stem}: {full['task']['metric']} must be float32, not {array.dtype}")
    _check_holes(stem, ~present(array), arrays)


def _check_counts(stem: str, array: np.ndarray, total: Json, split: str) -> None:
    if array.dtype != np.uint16:
        raise ValueError(f"{stem}: accuracies are uint16 counts of correct predictions, not {array.dtype}")
    if not isinstance(total, int) or total < 1:
        raise ValueError(f"examples: the number of {split} examples is missing")
    there = array[array != MISSING]
    if there.size and there.max() > total:
        raise ValueError(f"{stem}: {there.max()} correct predictions of {total} examples")


def _check_holes(stem: str, missing: np.ndarray, arrays: Arrays) -> None:
    """Look-up asks the last epoch whether there is a training, so no earlier value may be missing before it.

    Of test values nobody reads but the last.
    """
    split, _, name = stem.partition(".")
    if split != "test" and (missing[:, :, :-1] & ~missing[:, :, 1:]).any():
        raise ValueError(f"{stem}: an epoch is missing before one that is there")
    if split == "train" and (missing & present(arrays[f"valid.{name}"])).any():
        raise ValueError(f"{stem}: missing where valid.{name} is there")


def _check_cost(stem: str, arrays: Arrays, shape: tuple[int, ...]) -> None:
    """A training that is not there has no cost, NaN; every other one has."""
    cost, there = arrays[stem], present(arrays[f"valid.{stem.partition('.')[2]}"])
    if cost.shape not in (shape[:1], shape):
        raise ValueError(f"{stem}: shape {cost.shape} is neither ({shape[0]},) nor {shape}")
    needed = there.any((1, 2)) if cost.ndim == 1 else there
    if not ((np.isfinite(cost) & (cost >= 0)) | (np.isnan(cost) & ~needed)).all():
        raise ValueError(f"{stem}: every cost must be a finite number >= 0, or NaN where there is no training")


def _check_fgsm(stem: str, arrays: Arrays, shape: tuple[int, ...], full: Mapping[str, Any]) -> None:
    epsilon = full.get("fgsm_epsilon")
    if full["task"]["metric"] != "accuracy":
        raise ValueError(f"{stem}: counts of correct predictions, but the metric is {full['task']['metric']}")
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < np.inf:
        raise ValueError(f"fgsm_epsilon: {epsilon!r} is not a number > 0, the size of the attack")
    if arrays[stem].shape != shape:
        raise ValueError(f"{stem}: shape {arrays[stem].shape} is not (architectures, seeds) = {shape}")
    _check_counts(stem, arrays[stem], full["examples"].get("test"), "test")


def _three_axes(stem: str, arrays: Arrays) -> tuple[int, int, int]:
    array = arrays[stem]
    if array.ndim != 3:
        raise ValueError(f"{stem}: shape {array.shape} is not (architectures, seeds, epochs)")
    rows, seeds, epochs = array.shape
    return rows, seeds, epochs


def _described(given: Pipeline | Mapping[str, Json] | None, name: str, epochs: int) -> dict[str, Any]:
    if given is None:
        given = Pipeline(name, optimizer="unstated", learning_rate=0.0, epochs=epochs, batch_size=0)
    if not isinstance(given, Pipeline):
        return dict(given)
    # As in the pipeline's own digest, an ingredient that is off is not named: tables without any keep their digests.
    names = [f.name for f in fields(Pipeline)]
    off = {f.name: f.default for f in fields(Pipeline)[names.index("version") + 1 :]}
    named = {k: v for k, v in asdict(given).items() if k not in off or v != off[k]}
    return {**named, "open": list(given.open), "digest": given.digest}
