"""Synthetic run stores: strategies of known strength on tables of known quality."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasbed.harness.store import RunStore
from nasbed.protocols import Architecture, Call, Cost, Incumbent, Observation, Proposal, RunRecord

EVALUATIONS = 100
SPACE = 3000

# How many candidates a strategy looks at, by the true quality plus noise, before it asks for the best of them:
# 1 is random search, more is better.
GUIDANCE = {"random": 1, "weak": 2, "aging_evolution": 4, "local_search": 6, "oracle": 200}


@dataclass
class MemoryStore:
    """The reading side of a run store, held in memory."""

    record: dict[str, Any]
    runs: dict[str, RunRecord] = field(default_factory=dict)
    times: dict[str, dict[str, float]] = field(default_factory=dict)

    def study(self) -> dict[str, Any]:
        return self.record

    def load(self, key: str) -> RunRecord:
        return self.runs[key]

    def finished(self) -> set[str]:
        return set(self.runs)

    def timing(self, key: str) -> dict[str, float] | None:
        return self.times.get(key)


@dataclass(frozen=True)
class World:
    """A table: the quality and cost of every architecture."""

    name: str
    quality: np.ndarray
    cost: np.ndarray
    noise: float
    budget: float

    @classmethod
    def make(cls, name: str, seed: int) -> World:
        rng = np.random.default_rng([seed, 17])
        quality = 0.94 - 0.05 * rng.beta(2.0, 6.0 - 1.5 * (seed % 3), SPACE) - 0.01 * rng.random(SPACE)
        cost = 1e9 * (0.5 + rng.random(SPACE))
        return cls(name, quality, cost, 0.002, EVALUATIONS * float(np.median(cost)))

    def facts(self) -> dict[str, Any]:
        q = self.quality
        return {
            "digest": _digest(["table", self.name]), "space": "nb201", "size": SPACE, "coverage": "complete",
            "clock": "flops", "pipeline": "adam", "task": "digits", "metric": "accuracy", "higher_is_better": True,
            "training_seeds": 5, "best": float(q.max()), "median": float(np.median(q)), "mean": float(q.mean()),
            "worst": float(q.min()), "seed_noise": self.noise, "median_cost": float(np.median(self.cost)),
            "budget": self.budget, "best_architecture": _architecture(int(q.argmax())).__str__(),
        }  # fmt: skip


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _architecture(index: int) -> Architecture:
    return Architecture("nb201", tuple(int(d) for d in np.base_repr(index, 5).zfill(6)))


def _spec(strategy: str, table: str | None, seed: int, budget: float, options: Mapping[str, Any]) -> dict[str, Any]:
    libraries: dict[str, str] = {}
    return {
        "strategy": {"name": strategy, "params": {}, "code": _digest(strategy), "libraries": libraries},
        "estimator": {"name": "table", "params": {}, "code": _digest("table"), "libraries": libraries},
        "space": "nb201", "table": {"name": table, "digest": _digest(["table", table])} if table else None,
        "data": None if table else {"name": "digits", "digest": _digest("digits")},
        "pipeline": {"name": "adam", "digest": _digest("adam")},
        "budget": {"unit": "flops" if table else "epochs", "limit": budget},
        "options": dict(options), "seed": seed, "schema": 1,
    }  # fmt: skip


def simulate(strategy: str, world: World, seed: int, *, options: Mapping[str, Any], real: bool = False) -> RunRecord:
    """One run of a strategy that looks at several architectures before it asks for one."""
    name = None if real else world.name
    spec = _spec(strategy, name, seed, world.budget, options)
    rng = np.random.default_rng(int(_digest(spec)[:15], 16))
    shared = np.random.default_rng([seed, 5]).normal(0.0, world.noise, SPACE)
    spent, best, calls, incumbents, sealed = 0.0, -np.inf, [], [], []
    for i in range(2 * EVALUATIONS):
        candidates = rng.integers(0, SPACE, GUIDANCE[strategy] if i > 10 else 1)
        pick = int(candidates[(world.quality[candidates] + rng.normal(0, 0.002, candidates.size)).argmax()])
        score = float(world.quality[pick] + shared[pick])
        cost = Cost("train", float(world.cost[pick]))
        if spent + cost.amount > world.budget:
            break
        spent += cost.amount
        proposal = Proposal(_architecture(pick))
        calls.append(Call(1, (proposal,), (Observation(proposal, score, (cost,)),)))
        if score > best:
            best = score
            incumbents.append(Incumbent(i, spent, proposal.architecture, score))
            features = {"params": 1000.0 + 10.0 * pick, "flops": float(world.cost[pick]) / 100.0, "depth": 3.0}
            test = None if real else float(world.quality[pick])
            sealed.append({"test": test, "features": features, "text": f"|nor_conv_3x3~{pick % 5}|"})
            last = pick
    retrained = {"test": [float(world.quality[last] + e) for e in (-0.001, 0.0, 0.001)], "cost": 3e9} if real else None
    return RunRecord(
        _digest(spec),
        spec,
        (),
        tuple(calls),
        tuple(incumbents),
        "budget",
        {"incumbents": sealed, "retrained": retrained},
    )


def build(
    strategies: Sequence[str] = ("random", "aging_evolution", "local_search"),
    tables: int = 1,
    seeds: int = 10,
    *,
    real: bool = False,
    fail: Sequence[tuple[str, int]] = (),
    options: Mapping[str, Any] | None = None,
) -> MemoryStore:
    """A whole study; `fail` names (strategy, seed) pairs whose runs crash on every table."""
    options = options or {"batch": 1, "dedupe": False, "redraw": False, "retrain": 3}
    worlds = [
        World.make(f"nb201_{name}", i) for i, name in enumerate(("digits", "clutter", "mnist", *"abcdefgh")[:tables])
    ]
    runs, failed, records = [], [], {}
    for world in worlds:
        for strategy in strategies:
            for seed in range(seeds):
                record = simulate(strategy, world, seed, options=options, real=real)
                entry = {
                    "key": record.key, "strategy": strategy, "estimator": "table",
                    "table": None if real else world.name, "seed": seed,
                }  # fmt: skip
                if (strategy, seed) in fail:
                    failed.append({**entry, "error": "ValueError: <b>no</b> luck"})
                else:
                    runs.append(entry)
                    records[record.key] = record
    study = {
        "schema": 1, "digest": _digest(runs), "name": "guidance_test",
        "spec": {
            "strategies": [{"label": s, "name": s, "params": {}} for s in strategies],
            "estimators": [{"label": "table", "name": "table", "params": {}}],
            "tables": [] if real else [w.name for w in worlds], "space": "nb201",
            "data": "digits" if real else None, "pipeline": "adam", "seeds": list(range(seeds)),
            "budget": {"unit": "epochs" if real else "flops", "limit": worlds[0].budget}, "options": dict(options),
        },
        "tables": {} if real else {w.name: w.facts() for w in worlds},
        "runs": runs, "failed": failed,
        "provenance": {"nasbed": "0.1.0", "python": "3.11.7", "git": {"commit": "abc", "dirty": False}},
    }  # fmt: skip
    times = {k: {"wall_s": 1.0 + i, "overhead_s": 0.1} for i, k in enumerate(records)}
    return MemoryStore(study, records, times)


@pytest.fixture(scope="session")
def make_store() -> Callable[..., MemoryStore]:
    return build


HOSTILE = r"weak <b>&amp;_%$x$#{}~^\|"
"""A label with everything that HTML, LaTeX, CSV or matplotlib could trip over."""


def commit(store: MemoryStore, folder: Path, *, reverse: bool = False) -> Path:
    """Write a study into a real run store, in one order or the other."""
    target = RunStore(folder)
    for key in sorted(store.runs, reverse=reverse):
        target.commit(store.runs[key], {"wall_s": 2.0 if reverse else 1.0, "overhead_s": 0.25})
    target.write_study(store.record)
    return folder


@dataclass(frozen=True)
class Reports:
    """One study reported twice, from stores that were filled in opposite order."""

    store: MemoryStore
    first: Path
    second: Path
    hostile: str = HOSTILE


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    from nasbed.reports.write import write_report

    store = build(("random", "weak", "oracle"), tables=1, seeds=6, fail=[("weak", 3)])
    for entry in (*store.record["runs"], *store.record["failed"], *store.record["spec"]["strategies"]):
        for field_name in ("strategy", "label"):
            if entry.get(field_name) == "weak":
                entry[field_name] = HOSTILE
    folder = tmp_path_factory.mktemp("reports")
    for name, reverse in (("a", False), ("b", True)):
        commit(store, folder / name / "store", reverse=reverse)
        page = write_report(folder / name / "store", folder / name / "report", resamples=200)
        assert page == folder / name / "report" / "report.html"
        store.record["runs"].reverse()
    return Reports(store, folder / "a" / "report", folder / "b" / "report")
