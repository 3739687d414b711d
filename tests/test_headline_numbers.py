"""The headline numbers of a real comparison, computed a second time from the records and the table's arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nasbed.harness.compare import carry_out
from nasbed.harness.plan import plan
from nasbed.harness.store import RunStore
from nasbed.harness.study import read_study
from nasbed.reports.write import write_report
from nasbed.tabular import open_table


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("headline")
    given = {"strategies": "random,local_search", "estimators": "table,fewer_epochs[epochs=2]", "tables": "mlp-digits"}
    study = read_study(None, {**given, "seeds": 5, "budget": "6e9flops", "resamples": 200})
    assert carry_out(plan(study), folder) == []
    write_report(folder / "store", folder)
    return folder


def again(run: dict[str, str], store: RunStore, budget: float) -> tuple[float, float]:
    """Final normalised regret and late area, from nothing but proposals, the arrays, and their definitions."""
    table = open_table("mlp-digits")
    test = np.load(table.folder / "sealed" / "test.adam.npy")[:, :, -1].mean(1) / 599
    per_epoch, valid = table.array("cost.adam"), table.array("valid.adam")
    epochs = 2 if "fewer" in run["estimator"] else 10
    spent, best, steps = 0.0, -1.0, [(0.0, 1.0)]
    for call in store.load(run["key"]).calls:
        for told in call.observations:
            row = table.space.index(told.proposal.architecture)
            spent += epochs * per_epoch[row]
            assert told.score in valid[row, :, epochs - 1] / 398
            if told.score > best:
                best = told.score
                steps.append((spent, (test.max() - test[row]) / (test.max() - np.median(test))))
    assert spent <= budget
    at = np.geomspace(budget / 10, budget, 200_001)
    regrets = np.clip([r for _, r in steps], 0, 1)
    on_grid = regrets[np.searchsorted([c for c, _ in steps], at, side="right") - 1]
    return float(regrets[-1]), float((on_grid[1:] + on_grid[:-1]).mean() / 2)


def test_regret_and_late_area_come_out_the_same(out: Path) -> None:
    store = RunStore(out / "store", create=False)
    study = store.study()
    budget = study["tables"]["mlp-digits"]["budget"]
    found: dict[str, list[tuple[float, float]]] = {}
    for run in study["runs"]:
        found.setdefault(f"{run['strategy']} {run['estimator']}", []).append(again(run, store, budget))
    cells = [c for c in json.loads((out / "results.json").read_text())["cells"] if c["table"] == "results"]
    methods = [c["text"] for c in cells if c["column"] == "method"]
    assert len(methods) == len(found) == 4
    expected = [np.mean(values, axis=0) for values in found.values()]
    for i, column in enumerate(("regret_final", "late_area")):
        shown = sorted(c["numbers"]["value"] for c in cells if c["column"] == column)
        assert shown == pytest.approx(sorted(e[i] for e in expected), abs=1e-5)


def test_common_random_numbers_and_lower_cost(out: Path) -> None:
    """One architecture has one training seed in a run, whatever the strategy and the fidelity."""
    store = RunStore(out / "store", create=False)
    table = open_table("mlp-digits")
    valid = table.array("valid.adam")
    seen: dict[tuple[int, int, int], float] = {}
    evaluations: dict[str, int] = {}
    for run in store.study()["runs"]:
        epochs = 2 if "fewer" in run["estimator"] else 10
        for call in store.load(run["key"]).calls:
            for told in call.observations:
                row = table.space.index(told.proposal.architecture)
                assert seen.setdefault((run["seed"], row, epochs), told.score) == told.score
                evaluations[run["estimator"]] = evaluations.get(run["estimator"], 0) + 1
    both = [(s, r) for s, r, e in seen if e == 2 and (s, r, 10) in seen]
    assert both
    for seed, row in both:
        matches = (valid[row, :, 1] / 398 == seen[seed, row, 2]) & (valid[row, :, 9] / 398 == seen[seed, row, 10])
        assert matches.any()
    assert evaluations["fewer_epochs[epochs=2]"] > 3 * evaluations["table"]
