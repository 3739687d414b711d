"""Scores of one estimator for many architectures: made seed by seed, each kept as soon as it is done."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from ..methods import registry
from ..protocols import Architecture, IndexedSpace, Json, Proposal, SearchSpace, Setting
from ..protocols.streams import generator, integer
from ..tabular import MappedTable
from ..tabular.estimates import write_estimates
from . import records
from .runs import traits_of

AT_ONCE = 32
"""Architectures between two signs of progress; what an estimator shares among proposals, it shares among so many."""

Progress = Callable[[float, float], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to estimate.

    Attributes:
        estimator: A registered name, or `package.module:attribute`.
        params: Of the estimator.
        setting: What it sees; its training seeds are those of a column, see `seed_of`.
        space: Of the architectures.
        architectures: One for each row.
        listed: Whether the rows have to be listed, being neither all of the table nor all of the space.
        seeds: Of the estimator, one for each column.
    """

    estimator: str
    params: Mapping[str, Json]
    setting: Setting
    space: SearchSpace
    architectures: Sequence[Architecture]
    listed: bool
    seeds: Sequence[int]


def rows(space: SearchSpace, table: MappedTable | None, sample: int | None) -> tuple[list[Architecture], bool]:
    """The architectures to estimate, and whether they are a choice that has to be listed.

    Args:
        space: Where there is no table, its members.
        table: Its rows, all of them or a sample.
        sample: How many, drawn uniformly by the stream `estimate-sample`; None for all.

    Raises:
        ValueError: The space cannot be enumerated, or has fewer members.
    """
    if table is None and not isinstance(space, IndexedSpace):
        if sample is None:
            raise ValueError(f"space: {space.name!r} cannot be enumerated; draw a sample of it")
        rng, found = generator(0, "estimate-sample", space.name), dict[Architecture, None]()
        while len(found) < sample:
            found[space.sample(rng)] = None
        return list(found), True
    if table is not None:
        size = len(table.array(f"valid.{next(iter(table.pipelines))}"))
        at: Callable[[int], Architecture] = table.architecture
    else:
        assert isinstance(space, IndexedSpace)
        size, at = space.size or 0, space.at
    if sample is None or sample == size:
        return [at(i) for i in range(size)], table is not None and table.manifest["architectures"] is not None
    if not 1 <= sample <= size:
        raise ValueError(f"sample: {sample} is not from 1 to {size}")
    chosen = generator(0, "estimate-sample", space.name).choice(size, sample, replace=False)
    return [at(i) for i in sorted(chosen.tolist())], True


def seed_of(table: MappedTable | None, pipeline: str, seed: int) -> Callable[[Architecture], int]:
    """The training seed that goes with an estimator's seed: that number itself, among those that were recorded."""
    if table is None:
        return lambda a: seed
    present = table.present(pipeline)
    if present.all():
        return lambda a: table.seeds[seed % len(table.seeds)]

    def recorded(a: Architecture) -> int:
        own = table.recorded_seeds(a, pipeline) or table.seeds
        return own[seed % len(own)]

    return recorded


def estimate(wanted: Wanted, folder: Path, progress: Progress | None = None) -> Path:
    """Estimate, and write the estimate table; the same call again goes on with the first seed that is missing.

    Args:
        wanted: What to estimate.
        folder: Of the estimate table; finished seeds wait in its `seeds`.
        progress: Called with (answers given, answers in all), at the start and after every few.

    Raises:
        ValueError: The estimator does not fit, or the folder holds other estimates; one line.
    """
    found = registry.load("estimators", wanted.estimator)
    if not inspect.isclass(found):
        raise ValueError(f"estimator: {wanted.estimator!r} is a function; estimates are of classes with `traits`")
    described = _described(wanted, found)
    parts = folder / "seeds"
    parts.mkdir(parents=True, exist_ok=True)
    _claim(parts / "of.json", described)
    total = len(wanted.seeds) * len(wanted.architectures)
    for k, seed in enumerate(wanted.seeds):
        path, done = parts / f"{seed}.npz", k * len(wanted.architectures)
        if progress:
            progress(done, total)
        if not path.exists():
            step = partial(_step, progress, done, total)
            _save(path, *_column(wanted, found(**wanted.params), seed, step))
    columns = [_load(parts / f"{seed}.npz") for seed in wanted.seeds]
    write_estimates(folder, *_merged(columns, described))
    shutil.rmtree(parts)
    return folder


def _step(progress: Progress | None, done: int, total: int, more: int) -> None:
    if progress:
        progress(done + more, total)


def _described(wanted: Wanted, found: Any) -> dict[str, Json]:
    """The manifest, but for what the estimator itself says."""
    setting, table = wanted.setting, wanted.setting.table
    traits = traits_of(found)
    if traits is None:
        raise ValueError(f"estimator: {wanted.estimator!r} does not declare what its scores are, as `traits`")
    digest = {"table": {"name": table.name, "digest": table.digest}} if table else {"table": None}
    texts = [wanted.space.text(a) for a in wanted.architectures] if wanted.listed else None
    return {
        **digest,
        "name": f"{table.name if table else setting.task.name}/{wanted.estimator}",
        "estimator": {
            "name": wanted.estimator, "params": dict(wanted.params), "code": registry.code_digest(found),
            "traits": asdict(traits),
        },
        "space": wanted.space.name,
        "architectures": texts,
        "task": asdict(setting.task),
        "pipeline": {"name": setting.pipeline.name, "digest": setting.pipeline.digest},
        "unit": setting.unit,
        "seeds": list(wanted.seeds),
    }  # fmt: skip


def _claim(path: Path, described: Mapping[str, Json]) -> None:
    """A folder in which other estimates were begun is refused."""
    text = records.canonical(described)
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        raise ValueError(f"out: {path.parent.parent} holds the beginning of other estimates; name another folder")


def _column(
    wanted: Wanted, estimator: Any, seed: int, step: Callable[[int], object]
) -> tuple[dict[str, np.ndarray], dict[str, Json]]:
    """The scores with one seed, and what else is to be known of them."""
    table: Any = wanted.setting.table
    setting = replace(wanted.setting, train_seed=seed_of(table, wanted.setting.pipeline.name, seed))
    stream = integer(seed, "estimator", wanted.estimator)
    preparation = [asdict(c) for c in estimator.prepare(wanted.space, setting, seed=stream)]
    observations = []
    for i in range(0, len(wanted.architectures), AT_ONCE):
        observations += estimator.estimate([Proposal(a) for a in wanted.architectures[i : i + AT_ONCE]])
        step(len(observations))
    scores = np.array([o.score if o.status == "ok" else np.nan for o in observations])
    reasons = [
        "" if isfinite(s) else o.reason or "not a finite number" for s, o in zip(scores, observations, strict=True)
    ]
    arrays = {
        "score": np.where(np.isfinite(scores), scores, np.nan),
        "cost": np.array([sum(c.amount for c in o.costs) for o in observations]),
    }
    for name in sorted({name for o in observations for name in o.objectives}):
        arrays[f"objective.{name}"] = np.array([o.objectives.get(name, np.nan) for o in observations])
    fitted = [wanted.space.text(a) for a in getattr(estimator, "trained_on", ())]
    return arrays, {"preparation": preparation, "trained_on": fitted, "reasons": reasons}


def _save(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Json]) -> None:
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)
    partial.replace(path)


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads(arrays.pop("facts").tobytes())


def _merged(
    columns: Sequence[tuple[dict[str, np.ndarray], dict[str, Any]]], described: Mapping[str, Json]
) -> tuple[dict[str, np.ndarray], dict[str, Json]]:
    names = sorted({name for arrays, _ in columns for name in arrays})
    blank = np.full(len(columns[0][0]["score"]), np.nan)
    arrays = {name: np.stack([found.get(name, blank) for found, _ in columns], 1) for name in names}
    said = [facts["reasons"] for _, facts in columns]
    reasons = ["", *sorted({r for column in said for r in column} - {""})]
    if len(reasons) > 256:  # more than a byte can tell apart
        reasons, said = ["", "several reasons"], [["several reasons" if r else "" for r in column] for column in said]
    arrays["reason"] = np.array([[reasons.index(r) for r in column] for column in said], np.uint8).T
    lists = {key: [facts[key] for _, facts in columns] for key in ("preparation", "trained_on")}
    return arrays, {**described, **lists, "reasons": reasons}
