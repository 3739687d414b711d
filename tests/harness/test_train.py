"""The verb `train`, and comparisons by real training, on text, numbers and images."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasbed.harness.cli import main
from nasbed.harness.store import RunStore
from nasbed.methods.base import Space
from nasbed.methods.spaces.mlp import MLP
from nasbed.protocols import Architecture, Task
from nasbed.protocols.training import PIPELINES, constant_prediction, load, pipeline_for

Run = Callable[..., tuple[int, str, str]]


class Words(MLP):
    """Language models that see one word: embedding, the layers of an MLP, decoder."""

    def __init__(self) -> None:
        super().__init__(hidden=1, widths=(16, 32), dropout=False)
        self.name = "test_train:Words"

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> Words:
        return cls()

    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        return Space.features(self, a, task)

    def build(self, a: Architecture, task: Task) -> Any:
        from torch import nn

        if task.kind != "text":
            raise ValueError(f"space: words are for text, not for {task.kind}")
        layers = list(super().build(a, Task("", "tabular", "", True, (8,), task.classes, "")))
        return nn.Sequential(nn.Embedding(task.classes, 8, device="meta"), *layers[1:])


class Rates(MLP):
    """An MLP with a gene that only some pipelines open."""

    def training(self, a: Architecture) -> dict[str, object]:
        return {"learning_rate": 0.01}


class Sealed(MLP):
    """An MLP with a gene that no pipeline opens."""

    def training(self, a: Architecture) -> dict[str, object]:
        return {"name": "mine"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the entry point in this process, in a folder with a corpus and a table of wines."""
    rng = np.random.default_rng(0)
    words = [" ".join("abcde"[(k + i) % 5] for i in range(int(rng.integers(3, 9)))) for k in rng.integers(5, size=300)]
    (tmp_path / "corpus.txt").write_text("\n".join(words) + "\n")
    x = rng.normal(size=(200, 3))
    table = np.c_[x, x.sum(1) + rng.normal(0, 0.1, 200)]
    np.savetxt(tmp_path / "wine_red.csv", table, delimiter=";", header="p;q;r;quality")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nasbed", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capfd.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return call


def test_a_language_model_is_trained_and_shown_in_perplexities(run: Run) -> None:
    command = ("train", "--space", "test_train:Words", "--data", "text:corpus.txt", "--architecture", "32-relu",
               "--device", "cpu")  # fmt: skip
    code, out, err = run(*command, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["metric"], found["pipeline"], found["data"]) == ("perplexity", "adam", "text:corpus.txt")
    assert found["chance"] == constant_prediction(load("text:corpus.txt"))
    assert len(found["train"]) == len(found["valid"]) == 10
    assert 1 < found["valid"][-1] < found["valid"][0]
    code, out, _ = run(*command)
    assert code == 0
    assert "metric: perplexity, lower is better" in out
    assert f"constant prediction: valid {found['chance']:.4f}\n" in out
    assert out.endswith(f"epoch  10  train {found['train'][-1]:.4f}  valid {found['valid'][-1]:.4f}\n")
    assert "#" not in out


def test_numbers_are_trained_and_shown_in_squared_errors(run: Run, tmp_path: Path) -> None:
    code, out, err = run("train", "--space", "mlp", "--data", "wine_red", "--data-root", tmp_path, "--architecture",
                         "32-relu", "--device", "cpu", "--json")  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert found["metric"] == "mse"
    assert found["valid"][-1] < 0.8 * found["chance"]


def test_accuracies_keep_their_bars(run: Run) -> None:
    code, out, _ = run("train", "--space", "mlp", "--data", "digits", "--architecture", "8-relu", "--device", "cpu")
    assert code == 0
    assert "metric: accuracy, higher is better; pipeline: adam\nconstant prediction: valid 0.0955\n" in out
    last = out.splitlines()[-1].split()
    assert last[-1] == "#" * round(40 * float(last[-2]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--space", "test_train:Words", "--data", "digits"), "space: words are for text, not for image"),
        (("--space", "test_train:Words", "--data", "text:none"), "data: 'text:none': there is no file or folder"),
        (("--space", "mlp", "--data", "minst"), "data: 'minst' is not one of digits, mnist"),
        (("--space", "mlp", "--data", "wine_red"), "data-root: the data set 'wine_red' is not embedded"),
        (("--space", "mlp", "--data", "digits", "--pipeline", "adm"), "pipeline: 'adm' is not one of adam"),
        (("--space", "test_train:Rates", "--data", "digits", "--pipeline", "adam"), "pipeline: 'adam' does not open"),
        (("--space", "test_train:Sealed", "--data", "digits"), "pipeline: none opens name to the architecture"),
    ],
)
def test_what_is_refused_is_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run("train", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_the_default_pipeline_is_the_first_that_opens_the_genes() -> None:
    assert pipeline_for(None, {}).name == "adam"
    assert pipeline_for("sgd_cosine", {}).name == "sgd_cosine"
    for field in {f for p in PIPELINES.values() for f in p.open}:
        chosen = pipeline_for(None, {field: 1})
        earlier = list(PIPELINES)[: list(PIPELINES).index(chosen.name)]
        assert field in chosen.open
        assert not any(field in PIPELINES[name].open for name in earlier)


def test_text_is_among_the_data(run: Run) -> None:
    code, out, _ = run("list", "data", "--json")
    assert code == 0
    assert json.loads(out)["data"]["text:PATH"].startswith("Next-word prediction")


@pytest.mark.slow  # test_comparison has the direction of metrics
def test_strategies_are_compared_on_text(run: Run, tmp_path: Path) -> None:
    code, _, err = run("compare", "--space", "test_train:Words", "--data", "text:corpus.txt", "--strategies",
                       "local_search", "--seeds", 2, "--budget", "20epochs", "--retrain", 1, "--jobs", 1,
                       "--out", tmp_path / "out", "--device", "cpu")  # fmt: skip
    assert code in (0, 3), err  # 3: inconclusive
    assert (tmp_path / "out" / "results.json").exists()
    store = RunStore(tmp_path / "out" / "store")
    unigram = constant_prediction(load("text:corpus.txt"))
    for key in store.finished():
        record = store.load(key)
        scores = [i.score for i in record.incumbents]
        assert scores == sorted(scores)
        assert all(s < -1 for s in scores)  # minus the perplexity
        tested = record.sealed["retrained"]["test"]
        assert len(tested) == 1
        assert all(1 < t < 2 * unigram for t in tested)
