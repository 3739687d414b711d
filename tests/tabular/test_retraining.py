"""Training again, whatever the task: what is trained, what is compared with it, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nasbed.methods import registry
from nasbed.protocols import Architecture, Fidelity, Pipeline, Setting, Task
from nasbed.protocols.training import PIPELINES, ReferenceTrainer, load, load_test, measure, objective_of
from nasbed.tabular import MappedTable, open_table, verify, write_table
from nasbed.tabular.deviation import left_out, measured, most_outside, spread, z_scores


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a small text and small numbers."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "words.txt").write_text("".join(f"{'a b c ' * int(rng.integers(1, 9))}\n" for _ in range(60)))
    x = rng.normal(size=(50, 3))
    table = np.c_[x, x.sum(1) + rng.normal(0, 0.1, 50)]
    np.savetxt(folder / "wine_red.csv", table, delimiter=",", header="p,q,r,quality")
    return folder


def table_of(
    folder: Path,
    space: str,
    members: Sequence[Architecture],
    data: str,
    root: Path,
    pipeline: str,
    values: np.ndarray,
    epochs: int = 0,
) -> MappedTable:
    """A sample whose validation and test values after the last epoch are those given."""
    kept = registry.space(space)
    fields: dict[str, Any] = {
        "name": "some",
        "task": load(data, root).task,
        "architectures": [kept.text(a) for a in members],
        "pipelines": {pipeline: PIPELINES[pipeline]},
        "epochs": {pipeline: [epochs or PIPELINES[pipeline].epochs]},
    }
    curves = values.astype(np.float32)[:, :, None]
    return open_table(write_table(folder, kept, {f"{s}.{pipeline}": curves for s in ("valid", "test")}, fields))


def drawn(space: str, n: int) -> list[Architecture]:
    found = registry.space(space)
    rng = np.random.default_rng(0)
    members: dict[Architecture, None] = {}
    while len(members) < n:
        members[found.sample(rng)] = None
    return list(members)


class NextWord:
    """Builds for every cell the same small model: the next word from this one."""

    def build(self, a: Architecture, task: Task) -> Any:
        assert task.classes is not None
        weight = torch.empty(task.classes, 8, device="meta")  # without it, torch imports its compiler
        return nn.Sequential(nn.Embedding(task.classes, 8, _weight=weight), nn.Linear(8, task.classes, device="meta"))

    def training(self, a: Architecture) -> dict[str, object]:
        return {}


@pytest.mark.parametrize(
    ("space", "data", "pipeline"), [("rnn[nodes=2]", "text:words.txt", "adam"), ("fcnet", "wine_red", "fcnet")]
)
def test_an_entry_is_trained_as_the_reference_trainer_does(
    space: str, data: str, pipeline: str, root: Path, tmp_path: Path
) -> None:
    members = drawn(space, 2)
    table = table_of(tmp_path / "t", space, members, data, root, pipeline, np.full((2, 2), 3.0), 2)
    if pipeline == "adam":
        table.space = NextWord()  # type: ignore[assignment]
    view, test = load(data, root), load_test(data, root)
    found = verify._train(table, members[0], PIPELINES[pipeline], view, test, 7)
    trainer = ReferenceTrainer(table.space, device="cpu")
    setting = Setting(view.task, "epochs", PIPELINES[pipeline], lambda a: 7, data=view, trainer=trainer)
    _, weights = trainer.train(members[0], setting, seed=7, fidelity=Fidelity(2))
    network = table.space.build(members[0], view.task).to_empty(device="cpu")
    network.load_state_dict(dict(weights))
    assert found == pytest.approx(measure(network, test, objective_of(view.task)), rel=1e-6)
    assert verify._train(table, members[0], PIPELINES[pipeline], view, test, 8) != found


# A truth instead of trainings: what would a fresh training give?


def noise(seed: int, sd: float = 0.03) -> float:
    return float(np.random.default_rng(seed).normal(0.0, sd))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Architecture, int]]:
    """Trainings of rnn cells, replaced by exp(first genes) and noise; what was trained."""
    log: list[tuple[Architecture, int]] = []

    def train(table: MappedTable, a: Architecture, pipeline: Pipeline, view: Any, test: Any, seed: int) -> float:
        log.append((a, seed))
        return math.exp(truth(a) + noise(seed))

    monkeypatch.setattr(verify, "_train", train)
    return log


def truth(a: Architecture) -> float:
    return 4.0 + sum(a.genes) / 10


CELLS = drawn("rnn[nodes=4]", 120)


def perplexities(seeds: int = 2) -> np.ndarray:
    return np.array([[math.exp(truth(a) + noise(5000 * s + i + 1)) for s in range(seeds)] for i, a in enumerate(CELLS)])


def cells(folder: Path, values: np.ndarray, root: Path) -> MappedTable:
    return table_of(folder, "rnn[nodes=4]", CELLS, "text:words.txt", root, "adam", values)


def test_perplexities_are_compared_by_their_logarithms(trained: list[Any], root: Path, tmp_path: Path) -> None:
    values = perplexities()
    table = cells(tmp_path / "t", values, root)
    found = verify.verify(table.folder, retrain=100, data_root=root)
    assert found.passed, found.summary()
    assert found.scale == "log perplexity"
    assert found.trainings == {"recorded": 240, "missing": 0, "diverged": 0}
    assert len({a for a, _ in trained}) == 100
    assert all(seed > 1 for _, seed in trained)
    rows = {table.text(i): i for i in range(len(CELLS))}
    for e in found.entries:
        assert e.n == 2
        assert e.mean == pytest.approx(np.log(values[rows[e.architecture]].astype(np.float32)).mean())
        assert e.sd == pytest.approx(0.03, rel=0.3)
        assert e.z == pytest.approx((e.test - e.mean) / (e.sd * math.sqrt(1.5)))
    assert "test log perplexity " in found.summary()[3]
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["scale"] == "log perplexity"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda x: np.where(np.arange(len(x))[:, None] % 10 < 2, 1.4 * x, x), id="a-fifth-shifted"),
        pytest.param(lambda x: x.mean(1, keepdims=True) + (x - x.mean(1, keepdims=True)) / 5, id="too-narrow"),
        pytest.param(lambda x: np.roll(x, 1, axis=0), id="rows-moved-by-one"),
    ],
)
def test_a_spoilt_table_fails(
    spoil: Callable[[np.ndarray], np.ndarray], trained: list[Any], root: Path, tmp_path: Path
) -> None:
    table = cells(tmp_path / "t", spoil(perplexities()), root)
    assert verify.verify(table.folder).passed
    assert not verify.verify(table.folder, retrain=100, data_root=root).passed


def test_what_is_there_is_compared_however_many_seeds_and_nothing_else(
    trained: list[Any], root: Path, tmp_path: Path
) -> None:
    values = perplexities(3)
    values[:40, 2] = np.nan
    values[:20, 1] = np.nan  # a single seed: its deviation is its neighbours'
    values[0] = np.nan
    values[5, 0] = np.inf
    values[50, 1] = np.inf
    table = cells(tmp_path / "t", values, root)
    with pytest.raises(ValueError, match="retrain: 118 is more than the 117 entries of the table 'some'"):
        verify.verify(table.folder, retrain=118, data_root=root)
    found = verify.verify(table.folder, retrain=117, data_root=root)
    assert found.passed, found.summary()
    assert found.trainings == {"recorded": 299, "missing": 61, "diverged": 2}
    assert found.summary()[1] == "trainings: 299 recorded, 61 missing, 2 diverged"
    rows = {table.text(i): i for i in range(len(CELLS))}
    seen = {rows[e.architecture]: e.n for e in found.entries}
    assert set(range(120)) - set(seen) == {0, 5, 50}
    assert seen == {i: 1 if i < 20 else 2 if i < 40 else 3 for i in seen}


def test_a_fresh_training_that_diverges_is_infinitely_far_off(
    trained: list[Any], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_train", lambda *_: math.inf)
    found = verify.verify(cells(tmp_path / "t", perplexities(), root).folder, retrain=10, data_root=root)
    assert not found.passed
    assert [e.z for e in found.entries] == [math.inf] * 10
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["entries"][0]["z"] is None


def test_what_cannot_be_trained_again_is_refused(trained: list[Any], root: Path, tmp_path: Path) -> None:
    table = cells(tmp_path / "t", perplexities(), root)
    (tmp_path / "words.txt").write_text("d e f\n" * 200)
    with pytest.raises(ValueError, match=r"data: .* cannot be trained again: 'text:words.txt' has the digest"):
        verify.verify(table.folder, retrain=1, data_root=tmp_path)
    with pytest.raises(ValueError, match=r"data: 'text:words.txt': there is no file"):
        verify.verify(table.folder, retrain=1, data_root=tmp_path / "nowhere")
    single = cells(tmp_path / "u", perplexities(1), root)
    with pytest.raises(ValueError, match=r"seeds: .* cannot be trained again: none of its entries has the two seeds"):
        verify.verify(single.folder, retrain=1, data_root=root)
    assert verify.verify(single.folder).passed


def test_hyperparameters_that_the_pipeline_keeps_closed_are_refused(root: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "t", "fcnet", drawn("fcnet", 3), "wine_red", root, "adam", np.ones((3, 2)))
    with pytest.raises(ValueError, match="pipeline: 'adam' does not open batch_size, learning_rate, schedule"):
        verify.verify(table.folder, retrain=1, data_root=root)


# The statistics, by simulation.


def outcome(rng: np.random.Generator, spoil: Callable[[np.ndarray], np.ndarray], *, holes: float = 0.0) -> bool:
    """Whether a table of 600 entries of two seeds passes, of which 100 are trained again."""
    quality = rng.uniform(0.2, 0.95, 600)
    sd = 0.01 + 0.03 * (1 - quality)  # bad networks scatter more
    values = quality[:, None] + sd[:, None] * rng.standard_normal((600, 2))
    values[rng.random(600) < holes, 1] = np.nan
    values = spoil(values)
    rows = rng.permutation(600)[:100]
    n, mean, deviation = (column[rows] for column in spread(values))
    z = z_scores(quality[rows] + sd[rows] * rng.standard_normal(100), n, mean, deviation)
    return int((np.abs(z) > 2).sum()) <= most_outside(100, left_out([values]))


def test_truthful_tables_of_two_seeds_pass_and_untruthful_ones_fail() -> None:
    rng = np.random.default_rng(0)
    passed = [outcome(rng, lambda x: x) for _ in range(60)]
    assert sum(passed) >= 57  # nominal: 59.4
    assert sum(outcome(rng, lambda x: x, holes=0.5) for _ in range(40)) >= 38
    shifted = [outcome(rng, lambda x: np.where(np.arange(600)[:, None] % 10 < 1, x - 0.3, x)) for _ in range(20)]
    assert sum(shifted) <= 8  # ten of the hundred, beside five that are outside by chance
    assert not any(outcome(rng, lambda x: x.mean(1, keepdims=True) + (x - x.mean(1, keepdims=True)) / 3)
                   for _ in range(10))  # fmt: skip


def test_left_out_share_of_two_seeds_is_that_of_three() -> None:
    rng = np.random.default_rng(3)
    for seeds, holes in ((2, 0.0), (3, 0.0), (3, 0.4)):
        values = rng.uniform(0.2, 0.9, (3000, 1)) + 0.01 * rng.standard_normal((3000, seeds))
        values[:, 1:][rng.random((3000, seeds - 1)) < holes] = np.nan
        assert left_out([values]).share == pytest.approx(0.0455, abs=0.009)


def test_a_left_out_seed_is_compared_with_all_of_the_table_but_itself() -> None:
    """By the plain formula, on a table small enough that every entry is a neighbour of every other one."""
    rng = np.random.default_rng(4)
    values = rng.normal(0.8, 0.02, (30, 3))
    values[2, 1], values[3, 0], values[3, 2] = np.nan, np.nan, np.nan
    outside = total = 0
    for i, s in np.argwhere(~np.isnan(values)):
        rest = values.copy()
        rest[i, s] = np.nan
        n = (~np.isnan(rest)).sum(1)
        if not n[i]:
            continue
        kept = rest[n >= 2]
        squares = np.nansum((kept - np.nanmean(kept, 1, keepdims=True)) ** 2)
        sd = math.sqrt(squares / (n[n >= 2] - 1).sum())
        outside += abs(values[i, s] - np.nanmean(rest[i])) > 2 * sd * math.sqrt(1 + 1 / n[i])
        total += 1
    assert outside
    assert left_out([values]).share == outside / total


def test_logarithms_of_perplexities_only() -> None:
    x = np.array([1.0, np.e, np.inf, np.nan])
    assert measured(x, "perplexity")[:3].tolist() == [0.0, 1.0, math.inf]
    assert measured(x, "mse") is x
