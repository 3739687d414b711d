from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import leaks
import numpy as np
import planted
import pytest

from nasbed.harness import records, runs, seal
from nasbed.harness.compare import carry_out
from nasbed.harness.plan import Plan
from nasbed.harness.store import RunStore
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.protocols import Architecture, Incumbent, Setting, Task
from nasbed.tabular import open_table, write_table
from nasbed.tabular.table import MappedTable

SEALED = os.sep + "sealed" + os.sep
WATCHING: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if WATCHING and event == "open" and SEALED in str(arguments[0]):
        planted.LOG.append(("open", str(arguments[0])))


sys.addaudithook(_hook)  # there is no way to remove one; it does nothing unless WATCHING


@pytest.fixture
def watched() -> Iterator[list[tuple[str, Any]]]:
    planted.LOG.clear()
    WATCHING.append(True)
    yield planted.LOG
    WATCHING.clear()
    planted.LOG.clear()


@pytest.fixture(scope="module")
def needles(table: Path) -> list[bytes]:
    """The sealed values as they are stored, after the last epoch, as fractions, and as means over seeds."""
    return needles_of(table)


def needles_of(folder: Path) -> list[bytes]:
    stored = np.load(folder / "sealed" / "test.base.npy")
    last = stored[:, :, -1]
    values = last / 10_000
    assert len(last) == 81
    return [
        a.tobytes() for a in (stored, last, last.T, values, values.T, last.mean(1), values.mean(1), *last.T, *values.T)
    ]


def given(log: list[tuple[str, Any]]) -> dict[str, object]:
    """Everything that methods were given in the runs of a log."""
    things = {f"{kind} {i}": thing for i, (kind, thing) in enumerate(log) if kind in ("ask", "prepare", "estimate")}
    assert {k.split()[0] for k in things} == {"ask", "prepare", "estimate"}
    return things


def spied(planned: Callable[..., Plan], out: Path, **fields: object) -> list[Any]:
    methods = {"strategies": "planted:Probe", "estimators": "planted:ProbeLookup"}
    plan = planned(**{**methods, **fields})
    only = replace(plan, runs=tuple(r for r in plan.runs if r.strategy == plan.study.strategies[-1].label))
    planted.LOG.clear()
    return carry_out(only, out)


# (a) Nothing that is given to a method leads to a test value.


def test_no_test_value_is_reachable(
    planned: Callable[..., Plan], needles: list[bytes], tmp_path: Path, watched: list[tuple[str, Any]]
) -> None:
    assert not spied(planned, tmp_path)
    roots = given(watched)
    assert leaks.find_leaks(roots, needles, modules=("planted",)) == []
    reached = [thing for _, thing in leaks.walk(roots, ("planted",))]
    assert any(isinstance(thing, Setting) for thing in reached)
    assert any(isinstance(thing, MappedTable) for thing in reached)
    assert any(thing is runs for thing in reached)  # the train-seed stream lives there, and leads to the seal
    assert any(thing is seal for thing in reached)


def test_what_is_not_sealed_is_reachable(
    planned: Callable[..., Plan], table: Path, tmp_path: Path, watched: list[tuple[str, Any]]
) -> None:
    assert not spied(planned, tmp_path)
    valid = np.load(table / "valid.base.npy")
    assert leaks.find_leaks(given(watched), [valid.tobytes()], modules=("planted",))


class Leaky(MappedTable):
    pass


def _plant_attribute(setting: Setting, values: np.ndarray) -> Setting:
    assert isinstance(setting.table, MappedTable)
    setting.table._truth = values  # type: ignore[attr-defined]
    return setting


def _plant_subclass(setting: Setting, values: np.ndarray) -> Setting:
    assert isinstance(setting.table, MappedTable)
    table = Leaky(setting.table.folder)
    table.test = {"base": [memoryview(values)]}  # type: ignore[attr-defined]
    return replace(setting, table=table)


def _plant_closure(setting: Setting, values: np.ndarray) -> Setting:
    def draw(a: Architecture) -> int:
        return len(values) * 0

    return replace(setting, train_seed=draw)


def _plant_view(setting: Setting, values: np.ndarray) -> Setting:
    """A harmless view whose base is everything."""
    return _plant_attribute(setting, values[:1, :0])


def _plant_numbers(setting: Setting, values: np.ndarray) -> Setting:
    return _plant_attribute(setting, {"by index": (values[:, 0, -1] / 10_000).tolist()})  # type: ignore[arg-type]


def _plant_cache(setting: Setting, values: np.ndarray) -> Setting:
    @lru_cache
    def cached() -> np.ndarray:
        return values

    cached()
    return replace(setting, train_seed=lambda a: len(cached()) * 0)


def _plant_default(setting: Setting, values: np.ndarray) -> Setting:
    return replace(setting, train_seed=lambda a, known=values: 0)


def _plant_bound(setting: Setting, values: np.ndarray) -> Setting:
    return replace(setting, train_seed=values[:, :, -1].copy().item)


def _plant_global(setting: Setting, values: np.ndarray) -> Setting:
    seal.KEPT = values  # type: ignore[attr-defined]
    return setting


PLANTS = [
    _plant_attribute, _plant_subclass, _plant_closure, _plant_view, _plant_numbers, _plant_cache, _plant_default,
    _plant_bound, _plant_global,
]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_leaks_are_found(
    plant: Callable[[Setting, np.ndarray], Setting],
    planned: Callable[..., Plan],
    table: Path,
    needles: list[bytes],
    tmp_path: Path,
    watched: list[tuple[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    genuine = runs._setting
    monkeypatch.setattr(seal, "KEPT", None, raising=False)

    def leaking(*arguments: Any) -> Setting:
        return plant(genuine(*arguments), np.load(table / "sealed" / "test.base.npy"))

    monkeypatch.setattr(runs, "_setting", leaking)
    runs._table.cache_clear()
    failures = spied(planned, tmp_path)
    if plant is not _plant_bound:  # which is called with an architecture as index
        assert not failures
    runs._table.cache_clear()
    assert leaks.find_leaks(dict(enumerate_given(watched)), needles, modules=("planted", __name__))


def enumerate_given(log: list[tuple[str, Any]]) -> Iterator[tuple[str, object]]:
    return ((f"{kind} {i}", thing) for i, (kind, thing) in enumerate(log) if kind != "open")


# (b) No sealed file is open while a run asks.


def test_sealed_files_are_opened_only_between_runs(
    planned: Callable[..., Plan], tmp_path: Path, watched: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped: list[str] = []
    ask = planted.Probe.ask

    def looking(self: planted.Probe, n: int = 1) -> Any:
        mapped.extend(leaks.mapped_files(SEALED))
        return ask(self, n)

    monkeypatch.setattr(planted.Probe, "ask", looking)
    assert not spied(planned, tmp_path, seeds=4)
    kinds = ["open" if kind == "open" else "method" for kind, _ in watched]
    phases = [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]
    assert phases == ["method", "open"] * 4  # the study's own facts are read together with the last run's results
    strategies = {id(thing) for kind, thing in watched if kind == "ask"}
    assert len(strategies) == 4
    assert mapped == []
    assert leaks.mapped_files(SEALED) == []


def test_a_strategy_that_opens_the_sealed_file_is_seen(
    planned: Callable[..., Plan],
    table: Path,
    needles: list[bytes],
    tmp_path: Path,
    watched: list[tuple[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOOT", str(table))
    assert not spied(planned, tmp_path, strategies="planted:Thief")
    kinds = [kind for kind, _ in watched]
    first, last = kinds.index("ask"), len(kinds) - 1 - kinds[::-1].index("ask")
    assert "open" in kinds[first:last]
    assert all(lines for kind, lines in watched if kind == "maps")
    assert leaks.find_leaks(dict(enumerate_given(watched)), needles, modules=("planted",))


# Real training: the test split is not reachable either.


def needles_of_digits() -> list[bytes]:
    """A few test images, in the scalings in which a data set is commonly held, and all test labels."""
    from nasbed.protocols.training import load_test

    test = load_test("digits")
    images = [np.ascontiguousarray(test.x[i] * scale) for i in (0, 5, 17) for scale in (1, 16)]
    kinds = (np.float32, np.float64, np.uint8)
    return [
        *(a.astype(k).tobytes() for a in images for k in kinds),
        test.y.tobytes(),
        test.y.astype(np.int32).tobytes(),
    ]


def test_no_test_split_is_reachable_in_real_training(
    planned: Callable[..., Plan], tmp_path: Path, watched: list[tuple[str, Any]]
) -> None:
    fields = {"space": "mlp[hidden=1;widths=8;dropout=no]", "data": "digits", "budget": "3evals", "retrain": 1}
    assert not spied(planned, tmp_path, estimators="planted:ProbeTraining", seeds=1, **fields)
    roots = given(watched)
    assert leaks.find_leaks(roots, needles_of_digits(), modules=("planted",)) == []
    [setting] = [thing["setting"] for kind, thing in watched if kind == "prepare"]
    image = setting.data.valid.x[:1].tobytes()
    assert leaks.find_leaks(roots, [image])  # what is meant to be seen is found
    from nasbed.protocols.training import load_test

    hidden = load_test("digits")
    assert leaks.find_leaks({"data": replace(setting.data, valid=hidden)}, needles_of_digits())
    import torch

    assert leaks.find_leaks({"a view": torch.from_numpy(hidden.x)[-1:]}, needles_of_digits())


class Model:
    """A space of one architecture: the next word from this one, or a linear model."""

    def build(self, a: Architecture, task: Task) -> Any:
        from torch import nn

        if task.kind == "text":
            return nn.Sequential(
                nn.Embedding(task.classes, 8, device="meta"), nn.Linear(8, task.classes, device="meta")
            )
        return nn.Linear(task.shape[0], 1, device="meta")

    def training(self, a: Architecture) -> dict[str, object]:
        return {}

    def features(self, a: Architecture, task: Task) -> dict[str, float]:
        return {"params": 1.0}

    def text(self, a: Architecture) -> str:
        return "model"


@pytest.mark.parametrize("data", ["text:corpus.txt", "wine_red"])
def test_retraining_measures_the_metric_of_the_task_on_the_test_part(data: str, tmp_path: Path) -> None:
    from nasbed.protocols.training import PIPELINES, ReferenceTrainer, load, load_test

    rng = np.random.default_rng(0)
    (tmp_path / "corpus.txt").write_text("".join(f"{'a b ' * int(rng.integers(1, 9))}\n" for _ in range(300)))
    x = rng.normal(size=(400, 3))
    table = np.c_[x, x.sum(1) + rng.normal(0, 0.1, 400)]
    np.savetxt(tmp_path / "wine_red.csv", table, delimiter=",", header="p,q,r,quality")
    view, test = load(data, tmp_path), load_test(data, tmp_path)
    pipeline = replace(PIPELINES["adam"], learning_rate=0.05, batch_size=8, epochs=5)
    trainer = ReferenceTrainer(Model(), device="cpu")
    setting = Setting(view.task, "epochs", pipeline, lambda a: 0, data=view, trainer=trainer)
    incumbents = [Incumbent(0, 0.0, Architecture("one", ()), 0.0)]
    found = seal.retrain(Model(), setting, incumbents, seeds=[1, 2], data=data, data_root=tmp_path)["retrained"]
    assert found["cost"] == 10
    first, second = found["test"]
    assert first != second
    if data == "wine_red":
        # Noise of 0.1 against a deviation of sqrt(3.01), after standardisation.
        assert first == pytest.approx(0.01 / 3.01, rel=0.5)
        assert np.square(test.y).mean() == pytest.approx(1, abs=0.3)
    else:
        # Words are certain but at one place in three: after b comes a or the end of the line.
        pairs = np.full((4, 4), 1e-9)
        np.add.at(pairs, (view.train.x.ravel(), view.train.y.ravel()), 1)
        log = np.log(pairs / pairs.sum(1, keepdims=True))
        assert first == pytest.approx(np.exp(-log[test.x, test.y].mean()), rel=0.05)


# What the seal says.


@pytest.fixture
def floats(tmp_path: Path) -> MappedTable:
    """Mean squared errors, lower is better; the test value of one training is missing."""
    test = np.array([[[4.0], [6.0]], [[1.0], [3.0]], [[9.0], [np.nan]], [[7.0], [7.0]]], np.float32)
    task = {"name": "t", "kind": "regression", "metric": "mse", "higher_is_better": False, "shape": [1],
            "classes": None, "digest": ""}  # fmt: skip
    arrays = {"valid.base": np.nan_to_num(test), "test.base": test}
    return open_table(write_table(tmp_path / "f", Synthetic(genes=2, values=2), arrays, {"name": "f", "task": task}))


def test_lower_is_better_makes_the_lowest_the_best_and_missing_values_are_left_out(floats: MappedTable) -> None:
    assert seal.quality(seal.unseal(floats, "base")).tolist() == [5.0, 2.0, 9.0, 7.0]
    facts = seal.facts(floats, "base")
    assert (facts["best"], facts["worst"], facts["median"], facts["mean"]) == (2.0, 9.0, 6.0, 5.75)
    assert facts["best_architecture"] == "0-1"
    # Variances 2, 2, 0 of the three architectures with two trainings.
    assert facts["seed_noise"] == pytest.approx((4 / 3) ** 0.5)


def test_revealed_values_are_those_of_the_file(table: Path) -> None:
    world = open_table(table)
    stored = np.load(table / "sealed" / "test.base.npy")
    space = world.space
    incumbents = [Incumbent(i, 1.0, space.at(i), 0.0) for i in (80, 0, 17)]  # type: ignore[attr-defined]
    revealed = seal.reveal(world, "base", incumbents)["incumbents"]
    assert [r["test"] for r in revealed] == [float((stored[i, :, -1] / 10_000).mean()) for i in (80, 0, 17)]
    assert [r["text"] for r in revealed] == ["2-2-2-2", "0-0-0-0", "0-1-2-2"]
    records.canonical(revealed)


def test_a_table_that_changed_since_it_was_planned_is_refused(planned: Callable[..., Plan], tmp_path: Path) -> None:
    first, second = (np.full((4, 1, 1), n, np.uint16) for n in (1, 2))
    folder, space = tmp_path / "t", Synthetic(genes=2, values=2)
    manifest = {"name": "t", "examples": {"valid": 10, "test": 10}}
    write_table(folder, space, {"valid.base": first, "test.base": first}, manifest)
    before = planned(tables=str(folder))
    assert not carry_out(before, tmp_path / "out")
    runs._table.cache_clear()  # as in another process
    (folder / "manifest.json").unlink()
    write_table(folder, space, {"valid.base": second, "test.base": first}, manifest)
    failures = carry_out(before, tmp_path / "again")
    assert len(failures) == len(before.runs)
    assert "no longer the table that was planned" in failures[0].error
    after = planned(tables=str(folder))
    assert {r.key for r in after.runs}.isdisjoint({r.key for r in before.runs})
    assert not carry_out(after, tmp_path / "new")
    store = RunStore(tmp_path / "new" / "store")
    assert {store.load(r.key).incumbents[0].score for r in after.runs} == {0.2}
