from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from sharing import Free, SharedLinear

from nasbed.harness.compare import carry_out
from nasbed.harness.faults import DeterminismFault
from nasbed.harness.ledger import Ledger
from nasbed.harness.loop import STALLED_AFTER, search_by_sharing
from nasbed.harness.plan import Plan
from nasbed.harness.records import encode_call
from nasbed.harness.runs import Task, run, train_seeds
from nasbed.harness.store import RunStore
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.protocols import Budget, Call, Setting, WeightSharingStrategy
from nasbed.tabular import open_table

SPEC = {"table": {"digest": "x"}, "data": None, "seed": 0, "options": {"redraw": False}}


@pytest.fixture
def setting(table: Path) -> Setting:
    world = open_table(table)
    return Setting(world.task, "epochs", world.pipelines["base"], train_seeds(SPEC, world.seeds), table=world)


SPACE = Synthetic(genes=4, values=3)


def test_it_has_the_same_trajectory_as_any_other(setting: Setting) -> None:
    strategy, ledger, watched = SharedLinear(SPACE, setting, seed=3), Ledger(Budget("epochs", 20.5)), list[Call]()
    assert isinstance(strategy, WeightSharingStrategy)
    run, stopped = search_by_sharing(strategy, ledger, watch=watched.append)
    assert (stopped, ledger.spent, run.evaluations) == ("budget", 20.0, 20)
    assert ledger.accounts == {"supernet": 15.0, "controller": 5.0}
    assert watched == run.calls
    assert all(call.proposals == call.observations == () and len(call.costs) == 2 for call in run.calls)
    assert run.incumbents[0].evaluation == 0
    assert len(run.incumbents) > 1
    for before, after in zip(run.incumbents, run.incumbents[1:], strict=False):
        assert before.architecture != after.architecture
        assert before.cost < after.cost == after.evaluation + 1.0
    assert all(isnan(i.score) for i in run.incumbents)


def test_it_learns(setting: Setting) -> None:
    """The inputs of value 1 are the true ones, so that a policy that learns comes to prefer it."""
    ends = []
    for seed in range(5):
        run, stopped = search_by_sharing(SharedLinear(SPACE, setting, seed=seed), Ledger(Budget("epochs", 1e6)))
        assert (stopped, run.evaluations) == ("exhausted", 50)
        ends.append(run.incumbents[-1].architecture.genes.count(1))
    assert sum(ends) > 0.55 * 4 * len(ends)


def test_free_epochs_stall(setting: Setting) -> None:
    run, stopped = search_by_sharing(Free(SPACE, setting, seed=0), Ledger(Budget("epochs", 1.0)))
    assert (stopped, run.evaluations) == ("stalled", STALLED_AFTER)


def test_it_stands_in_a_comparison_beside_random_search(
    planned: Callable[..., Plan], tmp_path: Path, table: Path
) -> None:
    plan = planned(strategies="random,sharing:SharedLinear[rate=0.2]", seeds=3)
    assert carry_out(plan, tmp_path) == []
    store = RunStore(tmp_path / "store")
    study = store.study()
    labels = ["random", "sharing:SharedLinear[rate=0.2]"]
    assert [m["label"] for m in study["spec"]["strategies"]] == labels
    assert sorted({r["strategy"] for r in study["runs"]}) == labels
    world = open_table(table)
    for planned_run in plan.runs:
        record = store.load(planned_run.key)
        sealed = record.sealed["incumbents"]
        assert len(sealed) == len(record.incumbents) > 0
        assert all(0 <= s["test"] <= 1 and s["text"] for s in sealed)
        assert [s["text"] for s in sealed] == [world.space.text(i.architecture) for i in record.incumbents]
        assert record.stopped == "budget"
        costs = [c for call in record.calls for c in call.costs]
        costs += [c for call in record.calls for o in call.observations for c in o.costs]
        assert sum(c.amount for c in costs) == 40.0
        assert {c.kind for c in costs} == (
            {"train"} if planned_run.strategy == "random" else {"supernet", "controller"}
        )
    from nasbed.reports.comparison import compare
    from nasbed.reports.frame import load

    comparison = compare(load(store), resamples=200, seed=0, rope=0.01, alpha=0.05)
    assert {m for m in labels if m in str(comparison.to_dict())} == set(labels)


def test_the_same_seed_gives_the_same_record(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned(strategies="sharing:SharedLinear", seeds=1)
    for name in "ab":
        assert carry_out(plan, tmp_path / name) == []
    for r in plan.runs:
        a, b = (tmp_path / name / "store" / "runs" / r.key / "result.json" for name in "ab")
        assert a.read_bytes() == b.read_bytes()


def test_without_a_table_recorded_epochs_are_checked(planned: Callable[..., Plan], tmp_path: Path) -> None:
    """A supernet is trained again on resuming, and has to go the recorded way."""
    fields: dict[str, Any] = {"space": "synthetic[genes=2;values=3]", "data": "digits", "budget": "6epochs"}
    plan = planned(strategies="sharing:SharedLinear", seeds=1, retrain=0, **fields)
    [sharing] = [r for r in plan.runs if r.strategy != "random"]
    whole = RunStore(tmp_path / "whole")
    run(Task(sharing.spec, str(whole.folder), None))
    record = whole.load(sharing.key)
    for name, calls in (("cut", record.calls[:3]), ("other", [*record.calls[:2], replace(record.calls[2], asked=1)])):
        store = RunStore(tmp_path / name)
        store.begin(sharing.spec)
        with store.events(sharing.key) as log:
            for call in calls:
                log.append(encode_call(call))
    run(Task(sharing.spec, str(tmp_path / "cut"), None))
    result = Path("runs") / sharing.key / "result.json"
    assert (tmp_path / "cut" / result).read_bytes() == (whole.folder / result).read_bytes()
    assert len(RunStore(tmp_path / "cut").events(sharing.key).read()) == 6
    with pytest.raises(DeterminismFault, match="call 2 differs"):
        run(Task(sharing.spec, str(tmp_path / "other"), None))
