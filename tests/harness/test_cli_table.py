"""`nasbed table info` and `verify` on tables of every kind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasbed.harness.cli import main
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.protocols import Task
from nasbed.reports import table_figures
from nasbed.tabular import write_synthetic_table, write_table

SPACE = Synthetic(genes=4, values=3)
WORDS = Task("words", "text", "perplexity", False, (35,), 100, "")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Accuracies at two fidelities under two pipelines, and a sample of perplexities with holes."""
    folder, rng = tmp_path_factory.mktemp("desk"), np.random.default_rng(0)
    truth = rng.uniform(0.3, 0.9, (81, 1, 1))
    counts = {
        stem: np.rint(1000 * np.clip(truth + 0.01 * rng.standard_normal((81, 2, 2)), 0, 1)).astype(np.uint16)
        for stem in ("valid.adam", "test.adam", "valid.sgd", "test.sgd", "valid.adam@data=0.5")
    }
    costs = {"cost.adam": np.full(81, 4.0), "cost.adam@data=0.5": np.full(81, 2.0), "cost.sgd": np.arange(81.0)}
    manifest = {"name": "many", "clock": "flops", "examples": {"valid": 1000, "test": 1000}, "epochs": {}}
    manifest["epochs"] = {"adam": [1, 8], "sgd": [1, 2]}
    write_table(folder / "many", SPACE, {**counts, **costs}, manifest)
    values = np.exp(5 - truth[:30] + 0.01 * rng.standard_normal((30, 3, 1))).astype(np.float32)
    values[4], values[5, 1:], values[6, 0] = np.nan, np.nan, np.inf
    fields = {"name": "words", "task": WORDS, "architectures": [SPACE.text(SPACE.at(i)) for i in range(30)]}
    write_table(folder / "words", SPACE, {"valid.adam": values, "test.adam": values}, fields)
    write_synthetic_table(folder / "other", Synthetic(genes=3, values=3))
    return folder


@pytest.fixture
def run(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(desk)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nasbed", "table", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return call


def test_pipelines_and_fidelities_are_described(run: Run) -> None:
    code, out, _ = run("info", "many", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["metric"] == "accuracy, higher is better"
    assert found["pipelines"]["adam"].startswith("8 epochs (recorded: 1, 8), digest ")
    assert found["pipelines"]["sgd"].startswith("2 epochs, digest ")
    adam = found["validation accuracy, adam"]
    assert adam["trainings"] == {"recorded": 162, "missing": 0, "diverged": 0}
    assert len(adam["top 5"]) == 5
    assert adam["best"] == adam["top 5"][0]["architecture"]
    assert adam["sd between seeds"] == pytest.approx(0.01, rel=0.3)
    assert adam["share of the variance of trainings that is between architectures"] > 0.98
    assert adam["Spearman correlation of seeds"] > 0.95
    lower = adam["fidelities"]["data=0.5"]
    assert lower["Spearman correlation with full training"] > 0.95
    assert (lower["cost, share of full training"], lower["trainings"]) == (0.5, 162)
    assert "fidelities" not in found["validation accuracy, sgd"]
    assert list(found["Spearman correlation of architectures"]) == ["adam and sgd"]


def test_holes_and_diverged_trainings_are_counted(run: Run) -> None:
    code, out, _ = run("info", "words", "--json")
    found = json.loads(out)["validation perplexity, adam"]
    assert code == 0
    assert found["trainings"] == {"recorded": 85, "missing": 5, "diverged": 1}
    assert found["architectures without a training"] == 1
    assert found["quantiles 0, 25, 50, 75, 100 %"][-1] == "inf"
    assert found["sd between seeds of log perplexity"] == pytest.approx(0.01, rel=0.3)
    assert [v["perplexity"] for v in found["top 5"]] == sorted(v["perplexity"] for v in found["top 5"])
    code, out, _ = run("info", "words")
    assert code == 0
    assert "  trainings: recorded 85, missing 5, diverged 1\n" in out
    assert "seeds 3\n" in out
    code, out, _ = run("verify", "words")
    assert (code, out.splitlines()[1]) == (0, "trainings: 85 recorded, 5 missing, 1 diverged")


def test_tables_beside_are_matched_or_refused(run: Run) -> None:
    found = json.loads(run("info", "many", "--json", "--beside", "words")[1])
    assert found["Spearman correlation of architectures"]["adam and words:adam"] > 0.9
    code, _, err = run("info", "many", "--beside", "nowhere")
    assert (code, err.count("\n")) == (2, 1)
    assert "table: 'nowhere'" in err


def test_figures_get_numbers_and_say_where_they_are(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def write_all(values: Any, folder: Path) -> list[Path]:
        given.append(values)
        return [folder / "distribution.png"]

    monkeypatch.setattr(table_figures, "write_all", write_all)
    code, out, err = run("info", "many", "--figures", str(tmp_path), "--beside", "words")
    assert (code, err) == (0, f"figure: {tmp_path / 'distribution.png'}\n")
    [values] = given
    assert (values.name, values.metric, values.clock) == ("many", "accuracy", "flops")
    assert values.labels == ("adam", "sgd", "words:adam")
    assert values.correlations.shape == (3, 3)
    assert (values.correlations == values.correlations.T).all()
    adam = values.pipelines[0]
    assert (adam.quality.shape, adam.cost.tolist(), adam.pairs.shape) == ((81,), [32.0] * 81, (81, 2))
    assert len(adam.best) == 10
    assert adam.best[0].text in out
    assert len(adam.best[0].trainings) == 2
    assert adam.best[0].drawing.startswith("<svg")
