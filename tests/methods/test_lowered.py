"""Estimators of lower fidelity: on a table its recorded trainings, else real ones, at their own cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nasbed.methods import registry
from nasbed.methods.lowered import gradual
from nasbed.protocols import Cost, DataView, Fidelity, Proposal, Setting, Split
from nasbed.protocols.training import PIPELINES, ReferenceTrainer, load
from nasbed.tabular import MappedTable, open_table, write_table

SPACE = registry.space("mlp[hidden=1;widths=8,16,32,64;activations=relu;dropout=no]")
LOWER = {"data_subset": "data=0.25", "resolution": "resolution=0.5", "width": "width=0.5", "depth": "depth=0.5"}


def counts(root: int) -> np.ndarray:
    return np.random.default_rng(root).integers(0, 101, (SPACE.size, 3, 4), np.uint16)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> MappedTable:
    rows = np.arange(1.0, SPACE.size + 1)
    arrays = {"valid.base": counts(0), "test.base": counts(1), "cost.base": rows}
    for k, text in enumerate(LOWER.values()):
        arrays |= {f"valid.base@{text}": counts(k + 2), f"cost.base@{text}": rows / (k + 2)}
    fields = {"name": "toy", "clock": "flops", "examples": {"valid": 100, "test": 100}}
    return open_table(write_table(tmp_path_factory.mktemp("lowered") / "toy", SPACE, arrays, fields))


@pytest.mark.parametrize(("name", "place"), [(name, k) for k, name in enumerate(LOWER)])
def test_on_a_table_they_are_its_fidelity_entries(table: MappedTable, name: str, place: int) -> None:
    setting = Setting(table.task, "flops", table.pipelines["base"], lambda a: 2, table=table)
    estimator = registry.load("estimators", name)()
    assert list(estimator.prepare(SPACE, setting, seed=0)) == []
    proposals = [Proposal(SPACE.at(i), Fidelity(epochs=e)) for i in range(SPACE.size) for e in (2, float("inf"))]
    for i, o in enumerate(estimator.estimate(proposals)):
        row, epochs = i // 2, (2, 4)[i % 2]
        assert o.proposal is proposals[i]
        assert o.score == counts(place + 2)[row, 2, epochs - 1] / 100
        assert o.costs == (Cost("train", (row + 1) / (place + 2) * epochs),)


@pytest.mark.parametrize("name", LOWER)
def test_a_fidelity_that_the_table_lacks_is_refused_in_one_line(table: MappedTable, name: str) -> None:
    setting = Setting(table.task, "flops", table.pipelines["base"], lambda a: 2, table=table)
    said = r"fidelity: the table 'toy' has data=0.25, .* under 'base', not \w+=0.3$"
    with pytest.raises(ValueError, match=said):
        registry.load("estimators", name)(0.3).fits(setting)
    for share in (0, 1.5, "half", True):
        with pytest.raises(ValueError, match=r"share: .* is not a number in"):
            registry.load("estimators", name)(share)


def test_full_fidelity_is_the_full_training(table: MappedTable) -> None:
    setting = Setting(table.task, "flops", table.pipelines["base"], lambda a: 2, table=table)
    estimator = registry.load("estimators", "width")(1.0)
    estimator.prepare(SPACE, setting, seed=0)
    assert estimator.estimate([Proposal(SPACE.at(1))])[0].score == counts(0)[1, 2, -1] / 100


def test_real_trainings_are_smaller_and_cheaper() -> None:
    view = load("digits")
    small = DataView(view.task, *(Split(s.x[:200], s.y[:200]) for s in (view.train, view.valid)))
    pipeline = replace(PIPELINES["adam"], epochs=2)
    trainer = ReferenceTrainer(SPACE, device="cpu")
    setting = Setting(view.task, "flops", pipeline, lambda a: 5, small, trainer=trainer)
    a, scores, prices = SPACE.at(3), {}, {}
    for name in ("full", "data_subset", "width"):
        estimator = registry.load("estimators", name)()
        estimator.prepare(SPACE, setting, seed=0)
        (o,) = estimator.estimate([Proposal(a)])
        assert len(o.curve) == 2
        scores[name], prices[name] = o.score, o.costs[0].amount
    assert prices["data_subset"] < prices["width"] < prices["full"]
    assert len(set(scores.values())) == 3
    curve, _ = trainer.train(a, setting, seed=5, fidelity=Fidelity(width=0.5))
    assert curve.valid[-1] == scores["width"]
    with pytest.raises(ValueError, match=r"fidelity\.depth: 0\.5, but mlp"):
        registry.load("estimators", "depth")().prepare(SPACE, setting, seed=0)


def test_gradual_schedules_rise_to_full_training() -> None:
    for axis in ("epochs", "data", "width"):
        steps = gradual(axis, 4, epochs=50)
        assert list(steps) == sorted(steps)
        assert steps[-1] == Fidelity()
        assert len(set(steps)) == 4
    assert gradual("data", 1) == (Fidelity(),)
    for arguments, message in (
        (("depht", 2), "axis: 'depht' is not one of epochs, data"),
        (("data", 0), "steps, factor: 0, 2.0"),
        (("epochs", 2), "epochs: the axis epochs needs"),
    ):
        with pytest.raises(ValueError, match=message):
            gradual(*arguments)
