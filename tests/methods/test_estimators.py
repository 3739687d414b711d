"""Estimators: look-up, training for real, fewer epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nasbed.methods import registry
from nasbed.methods.estimators.fewer_epochs import FewerEpochs
from nasbed.methods.estimators.full import FullTraining
from nasbed.methods.estimators.table import TableLookup
from nasbed.methods.spaces.mlp import MLP
from nasbed.protocols import (
    FULL,
    Architecture,
    Cost,
    Curve,
    Fidelity,
    MissingEntry,
    PerformanceEstimator,
    Pipeline,
    Proposal,
    Setting,
    Task,
)
from nasbed.protocols.training import PIPELINES, ReferenceTrainer, load
from nasbed.tabular import MappedTable, open_table, write_table

SPACE = MLP(hidden=1, widths=(8, 16), dropout=False)
ARCHITECTURES = [SPACE.at(i) for i in range(8)]
VALID = np.random.default_rng(0).integers(0, 101, (8, 3, 8), np.uint16)


@pytest.fixture
def table(tmp_path: Path) -> MappedTable:
    arrays = {"valid.base": VALID, "test.base": VALID[::-1], "cost.base": np.arange(10.0, 18.0)}
    fields = {"name": "toy", "clock": "flops", "examples": {"valid": 100, "test": 100}}
    return open_table(write_table(tmp_path / "toy", SPACE, arrays, fields))


def tabular(table: MappedTable, unit: str = "flops", seed: Callable[[Architecture], int] = lambda a: 1) -> Setting:
    return Setting(table.task, unit, table.pipelines["base"], seed, table=table)


def prepared(estimator: PerformanceEstimator, setting: Setting) -> PerformanceEstimator:
    assert isinstance(estimator, PerformanceEstimator)
    assert list(estimator.prepare(SPACE, setting, seed=0)) == []
    return estimator


def test_the_registry_finds_them() -> None:
    assert {"full", "table", "fewer_epochs"} <= set(registry.names("estimators"))
    assert registry.load("estimators", "table") is TableLookup
    assert registry.load("estimators", "full") is FullTraining
    assert registry.load("estimators", "fewer_epochs") is FewerEpochs
    assert registry.parameters(FewerEpochs, {"epochs": "3"}, "estimator") == {"epochs": 3}


@pytest.mark.parametrize(("unit", "price"), [("flops", 4 * 12.0), ("epochs", 4.0), ("evaluations", 1.0)])
def test_look_up_reports_the_recorded_value_at_its_cost(table: MappedTable, unit: str, price: float) -> None:
    estimator = prepared(TableLookup(), tabular(table, unit, lambda a: SPACE.index(a) % 3))
    proposals = [Proposal(a, Fidelity(epochs=4)) for a in ARCHITECTURES]
    answers = estimator.estimate([*proposals, proposals[2]])
    for row, (p, o) in enumerate(zip(proposals, answers[:8], strict=True)):
        assert o.proposal == p
        assert o.status == "ok"
        assert o.score == VALID[row, row % 3, 3] / 100
    assert answers[2].costs == (Cost("train", price),)
    assert answers[8] == answers[2]  # a repeated query is charged again, in full


def test_look_up_is_by_the_seed_that_the_harness_drew(table: MappedTable) -> None:
    asked = []

    def seed(a: Architecture) -> int:
        asked.append(a)
        return 2

    (answer,) = prepared(TableLookup(), tabular(table, seed=seed)).estimate([Proposal(ARCHITECTURES[5])])
    assert answer.score == VALID[5, 2, -1] / 100
    assert asked == [ARCHITECTURES[5]]


def test_a_metric_to_be_lowered_is_turned_round(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 24, dtype=np.float32).reshape(8, 3, 1)
    task = Task("r", "regression", "rmse", False, (4,), None, "")
    folder = write_table(tmp_path / "t", SPACE, {"valid.b": values, "test.b": values}, {"name": "r", "task": task})
    opened = open_table(folder)
    setting = Setting(task, "epochs", opened.pipelines["b"], lambda a: 0, table=opened)
    low, high = prepared(TableLookup(), setting).estimate([Proposal(ARCHITECTURES[0]), Proposal(ARCHITECTURES[7])])
    assert low.score == 0 > high.score == -float(values[7, 0, 0])


def test_what_the_table_lacks_is_an_error(table: MappedTable) -> None:
    with pytest.raises(MissingEntry, match="seed: "):
        prepared(TableLookup(), tabular(table, seed=lambda a: 9)).estimate([Proposal(ARCHITECTURES[0])])
    with pytest.raises(MissingEntry, match="fidelity"):
        prepared(TableLookup(), tabular(table)).estimate([Proposal(ARCHITECTURES[0], Fidelity(data=0.5))])


def test_settings_that_do_not_fit_are_refused(table: MappedTable) -> None:
    with pytest.raises(ValueError, match="estimator: 'table' needs a table"):
        TableLookup().prepare(SPACE, replace(tabular(table), table=None), seed=0)
    with pytest.raises(ValueError, match=r"budget: the clock of the table 'toy' is in flops, .* not in seconds"):
        TableLookup().prepare(SPACE, tabular(table, "seconds"), seed=0)
    with pytest.raises(ValueError, match="estimator: 'full' trains for real"):
        FullTraining().prepare(SPACE, tabular(table), seed=0)


class Recorder:
    """A trainer that notes what it is asked for; curves are 0.1, 0.2, ..."""

    def __init__(self) -> None:
        self.asked: list[tuple[Architecture, int, Fidelity]] = []

    def train(self, architecture, setting, *, seed, fidelity, init=None):
        self.asked.append((architecture, seed, fidelity))
        epochs = int(min(fidelity.epochs, setting.pipeline.epochs))
        values = tuple(0.1 * (k + 1) for k in range(epochs))
        return Curve(values, values, 1.0), {}

    def cost(self, architecture, setting, fidelity):
        return (Cost("train", float(min(fidelity.epochs, setting.pipeline.epochs))),)


def training(trainer: object, *, higher: bool = True) -> Setting:
    task = Task("toy", "image", "accuracy", higher, (1, 8, 8), 10, "")
    return Setting(task, "epochs", PIPELINES["adam"], lambda a: SPACE.index(a) + 40, trainer=trainer)


@pytest.mark.parametrize("higher", [True, False])
def test_full_training_reports_the_last_epoch(higher: bool) -> None:
    trainer = Recorder()
    a, b = ARCHITECTURES[3], ARCHITECTURES[4]
    answers = prepared(FullTraining(), training(trainer, higher=higher)).estimate(
        [Proposal(a), Proposal(b, Fidelity(3))]
    )
    assert trainer.asked == [(a, 43, FULL), (b, 44, Fidelity(3))]
    assert [o.score for o in answers] == pytest.approx([1.0, 0.3] if higher else [-1.0, -0.3])
    assert [o.costs for o in answers] == [(Cost("train", 10.0),), (Cost("train", 3.0),)]
    assert [len(o.curve) for o in answers] == [10, 3]


def test_full_training_for_real() -> None:
    view = load("digits")
    setting = Setting(
        view.task, "epochs", PIPELINES["adam"], lambda a: 3, view, trainer=ReferenceTrainer(SPACE, device="cpu")
    )
    p = Proposal(SPACE.parse("16-relu"), Fidelity(epochs=3))
    (first,), (second,) = (prepared(FullTraining(), setting).estimate([p]) for _ in range(2))
    assert first == second
    assert first.score == first.curve[-1] > 0.2
    (shorter,) = prepared(FewerEpochs(1), setting).estimate([p])
    assert shorter.score == first.curve[0]
    assert shorter.proposal == p


@pytest.mark.parametrize(
    ("epochs", "asked", "paid"), [(None, math.inf, 2), (3, math.inf, 3), (3, 2, 2), (8, math.inf, 8), (1, 5, 1)]
)
def test_fewer_epochs_pays_for_the_prefix_only(table: MappedTable, epochs: int | None, asked: float, paid: int) -> None:
    proposals = [Proposal(a, Fidelity(epochs=asked)) for a in ARCHITECTURES]
    answers = prepared(FewerEpochs(epochs), tabular(table)).estimate(proposals)
    assert [o.proposal for o in answers] == proposals
    for row, o in enumerate(answers):
        assert o.score == VALID[row, 1, paid - 1] / 100
        assert o.costs == (Cost("train", paid * (10.0 + row)),)


@pytest.mark.parametrize(("full", "quarter"), [(1, 1), (4, 1), (5, 2), (10, 3), (20, 5)])
def test_a_quarter_of_the_epochs_is_rounded_up(full: int, quarter: int) -> None:
    trainer = Recorder()
    setting = replace(training(trainer), pipeline=replace(PIPELINES["adam"], epochs=full))
    prepared(FewerEpochs(), setting).estimate([Proposal(ARCHITECTURES[0])])
    assert trainer.asked[0][2] == Fidelity(epochs=quarter)


@pytest.mark.parametrize("epochs", [0, -1, 1.5, "3"])
def test_a_wrong_number_of_epochs_is_refused(epochs: object) -> None:
    with pytest.raises(ValueError, match=r"epochs: .* is not a positive integer"):
        FewerEpochs(epochs)  # type: ignore[arg-type]


def test_more_epochs_than_the_pipeline_has_are_refused(table: MappedTable) -> None:
    with pytest.raises(ValueError, match="epochs: 9 is more than the 8 of the pipeline 'base'"):
        FewerEpochs(9).prepare(SPACE, tabular(table), seed=0)
    assert isinstance(table.pipelines["base"], Pipeline)
