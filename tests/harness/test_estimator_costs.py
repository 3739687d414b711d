"""What estimators cost a run: the sum of the ledger, in a clock that a test holds; and estimators that remember."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasbed.harness.compare import carry_out
from nasbed.harness.ledger import Ledger
from nasbed.harness.loop import search
from nasbed.harness.plan import plan
from nasbed.harness.store import RunStore
from nasbed.harness.study import read_study
from nasbed.methods import registry
from nasbed.methods.strategies.random import RandomSearch
from nasbed.protocols import Budget, DataView, Observation, Proposal, SearchSpace, Setting, Split
from nasbed.protocols.training import load
from nasbed.tabular import MappedTable, open_table, write_table

SPACE = registry.space("mlp[hidden=2;widths=8,16;activations=relu;dropout=no]")
KINDS = {
    "table": {"train"},
    "fewer_epochs": {"train"},
    "params": {"proxy"},
    "synflow": {"proxy"},
    "predictor_forest": {"train", "fit", "proxy"},
    "curve_domhan": {"train", "fit"},
    "one_shot_uniform": {"supernet", "evaluate"},
}
PARAMS: dict[str, dict[str, Any]] = {"predictor_forest": {"n_train": 4, "trees": 3}, "one_shot_uniform": {"epochs": 1}}


class Clock:
    """Every look at it is a second later; what lies between two looks is work."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return float(self.looks)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> MappedTable:
    view, rng = load("digits"), np.random.default_rng(0)
    level = np.sort(rng.uniform(0.2, 0.9, SPACE.size))[:, None, None] * (1 - np.exp(-np.arange(1, 9) / 2))
    counts = np.rint(1000 * (level + 0.01 * rng.standard_normal((SPACE.size, 2, 8))).clip(0, 1)).astype(np.uint16)
    arrays = {f"{s}.adam": counts for s in ("train", "valid", "test")} | {"cost.adam": np.arange(1.0, SPACE.size + 1)}
    fields = {"name": "timed", "clock": "seconds", "task": view.task}
    fields["examples"] = dict.fromkeys(("train", "valid", "test"), 1000)
    return open_table(write_table(tmp_path_factory.mktemp("costs") / "timed", SPACE, arrays, fields))


@pytest.mark.parametrize("name", KINDS)
def test_a_run_costs_the_sum_of_its_ledger_by_the_clock(table: MappedTable, name: str) -> None:
    view, clock = load("digits"), Clock()
    small = DataView(view.task, *(Split(s.x[:256], s.y[:256]) for s in (view.train, view.valid)))
    pipeline = replace(table.pipelines["adam"], optimizer="adam", learning_rate=0.01, batch_size=64)
    setting = Setting(table.task, "seconds", pipeline, lambda a: 0, small, table=table, clock=clock)
    estimator = registry.load("estimators", name)(**PARAMS.get(name, {}))
    ledger = Ledger(Budget("seconds", 1e6))
    preparation = estimator.prepare(SPACE, setting, seed=3)
    assert ledger.charge(preparation)
    told: list[Observation] = []

    class Twelve(RandomSearch):
        def ask(self, n: int = 1) -> Sequence[Proposal]:
            return super().ask(n) if len(told) < 12 else ()

        def tell(self, observations: Sequence[Observation]) -> None:
            told.extend(observations)

    search(Twelve(SPACE, seed=0), estimator, SPACE, ledger)
    costs = [*preparation, *(c for o in told for c in o.costs)]
    assert len(told) == 12
    assert sum(c.amount for c in costs) == pytest.approx(ledger.spent) == pytest.approx(sum(ledger.accounts.values()))
    assert set(ledger.accounts) == KINDS[name]
    # Recorded trainings cost what the table says, for as many epochs as were looked up; all else is the clock's.
    recorded = sum(c.amount for c in costs if c.kind == "train")
    measured = sum(c.amount for c in costs if c.kind != "train")
    assert measured == clock.looks / 2
    epochs = {"table": 8, "fewer_epochs": 2, "curve_domhan": 3, "predictor_forest": 8}.get(name, 0)
    trained = [o.proposal.architecture for o in told] if "train" in {c.kind for c in told[0].costs} else []
    trained += getattr(estimator, "trained_on", ())
    assert recorded == pytest.approx(epochs * sum(SPACE.index(a) + 1.0 for a in trained))


class Lineage:
    """Each proposal is a mutant of the one before, and inherits its weights."""

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        self._space, self._rng, self._done = space, np.random.default_rng(seed), 0
        self._last = space.sample(self._rng)

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        parent = self._done - 1 if self._done else None
        self._done += 1
        self._last = self._space.mutate(self._last, self._rng)
        return [Proposal(self._last, parent=parent)]

    def tell(self, observations: Sequence[Observation]) -> None:
        pass


FIELDS = {
    "strategies": f"{__name__}:Lineage",
    "space": SPACE.name,
    "data": "digits",
    "seeds": 1,
    "budget": "18epochs",
    "retrain": 1,
}


def test_an_interrupted_run_of_inherited_weights_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    fields = FIELDS | {"estimators": "inherit[epochs=2]"}
    planned = plan(read_study(None, fields))
    assert carry_out(planned, tmp_path / "whole") == []
    key = next(r.key for r in planned.runs if "Lineage" in r.spec["strategy"]["name"])
    whole, there = (tmp_path / name / "store" / "runs" / key for name in ("whole", "again"))
    record = RunStore(tmp_path / "whole" / "store").load(key)
    assert len(record.calls) >= 5
    assert all(o.status == "ok" for call in record.calls for o in call.observations)
    # What a process leaves that was killed after three calls.
    shutil.copytree(whole, there, ignore=shutil.ignore_patterns("result.json", "timing.json"))
    log = there / "events" / "000001.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:4]))
    assert carry_out(planned, tmp_path / "again") == []
    assert (there / "result.json").read_bytes() == (whole / "result.json").read_bytes()


def test_repeated_evaluations_of_an_estimator_that_remembers_are_not_free() -> None:
    with pytest.raises(ValueError, match=r"estimator 'inherit.*: its answers depend on earlier ones.* no dedupe"):
        plan(read_study(None, FIELDS | {"estimators": "inherit", "dedupe": True}))
