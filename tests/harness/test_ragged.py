"""Tables with missing trainings, other metrics, diverged trainings and attacks, from planning to the report."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import leaks
import numpy as np
import planted
import pytest

from nasbed.harness import seal
from nasbed.harness.compare import carry_out
from nasbed.harness.plan import NotComparable, Plan
from nasbed.harness.runs import Redrawn, _recorded, train_seeds
from nasbed.harness.store import RunStore
from nasbed.methods import registry
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.protocols import FULL, Task
from nasbed.reports.frame import load
from nasbed.tabular import MappedTable, open_table, write_table

SPACE = Synthetic(genes=4, values=3)
MISSING = 65535
SPEC = {"seed": 0, "table": {"digest": "d"}, "data": None, "options": {"redraw": False}}


def counts(seeds: int = 3, root: int = 0) -> np.ndarray:
    """Correct predictions of 10,000, (81, seeds, 1): good architectures in every part of the space, and noise."""
    noise = 0.005 * np.random.default_rng(root).standard_normal((81, seeds))
    return np.rint(np.clip(SPACE.truths()[:, None] + noise, 0, 1) * 10_000).astype(np.uint16)[:, :, None]


def made(folder: Path, valid: np.ndarray, test: np.ndarray, **fields: Any) -> MappedTable:
    arrays = {"valid.base": valid, "test.base": test, **fields.pop("arrays", {})}
    manifest = {"name": folder.name, "examples": {"valid": 10_000, "test": 10_000}, **fields}
    return open_table(write_table(folder, SPACE, arrays, manifest))


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> MappedTable:
    """Of every architecture one, two or three seeds."""
    valid, test = counts(), counts(root=1)
    for row in range(81):
        lost = {0: [], 1: [row % 2], 2: [0, 2]}[row % 3]
        valid[row, lost], test[row, lost] = MISSING, MISSING
    return made(tmp_path_factory.mktemp("t") / "ragged", valid, test)


# Training seeds are drawn among those that are there.


def test_seeds_are_drawn_among_those_of_the_architecture(ragged: MappedTable) -> None:
    allowed = _recorded(ragged, "base")
    assert callable(allowed)
    for row in range(81):
        a = SPACE.at(row)
        there = ragged.recorded_seeds(a, "base")
        drawn = Counter(train_seeds({**SPEC, "seed": s}, allowed)(a) for s in range(60))
        assert set(drawn) == set(there)
        assert min(drawn.values()) >= 60 / len(there) / 4  # none is preferred
        assert train_seeds(SPEC, allowed)(a) == train_seeds(SPEC, allowed)(a)
        ragged.lookup(a, pipeline="base", seed=train_seeds(SPEC, allowed)(a), fidelity=FULL)


def test_every_query_of_its_own_seed_is_answered_too(ragged: MappedTable) -> None:
    draw = train_seeds({**SPEC, "options": {"redraw": True}}, _recorded(ragged, "base"))
    assert isinstance(draw, Redrawn)
    for row in 20 * list(range(6)):
        assert draw(SPACE.at(row)) in ragged.recorded_seeds(SPACE.at(row), "base")
    assert len({draw(SPACE.at(0)) for _ in range(50)}) == 3


def test_whole_tables_draw_as_they_always_did(table: Path, tmp_path: Path) -> None:
    assert _recorded(open_table(table), "base") == (0, 1, 2)
    cells = registry.space("nb201[ops=none,skip_connect]")
    values = np.full((64, 2, 1), 5, np.uint16)
    values[[i for i in range(64) if cells.canonical(cells.at(i)) != cells.at(i)]] = MISSING
    manifest = {"name": "m", "canonical": "iso", "examples": {"valid": 10, "test": 10}}
    merged = open_table(write_table(tmp_path / "m", cells, {"valid.base": values, "test.base": values}, manifest))
    assert not merged.present("base").all()
    assert _recorded(merged, "base") == (0, 1)


def test_a_study_on_a_ragged_table_runs_and_says_what_is_missing(
    ragged: MappedTable, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = planned(tables=str(ragged.folder), strategies="local_search", seeds=3)
    assert carry_out(plan, tmp_path) == []
    store = RunStore(tmp_path / "store")
    facts = store.study()["tables"]["ragged"]
    values = np.where(
        (stored := np.load(ragged.folder / "sealed" / "test.base.npy")[:, :, -1]) == MISSING, np.nan, stored / 10_000
    )
    assert facts["best"] == pytest.approx(np.nanmean(values, 1).max())
    assert facts["median"] == pytest.approx(np.median(np.nanmean(values, 1)))
    assert (facts["missing_trainings"], facts["diverged_trainings"]) == (81, 0)
    assert facts["training_seeds"] == 1  # of 1, 2, 3 the harmonic mean is 1.6
    assert facts["seed_noise"] == pytest.approx(0.005, rel=0.3)
    [run, *_] = [store.load(r.key) for r in plan.runs]
    for incumbent, revealed in zip(run.incumbents, run.sealed["incumbents"], strict=True):
        assert revealed["test"] == pytest.approx(np.nanmean(values[SPACE.index(incumbent.architecture)]))


# What cannot be compared is refused when it is planned.


def test_an_architecture_without_a_training_is_refused_when_planned(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    valid = counts()
    valid[[3, 40]] = MISSING
    folder = made(tmp_path / "holes", valid, counts(root=1)).folder
    with pytest.raises(NotComparable, match=r"'holes' has missing trainings for 2 of its 81 architectures under") as e:
        planned(tables=str(folder))
    assert "audits take the entries that are there" in str(e.value)
    assert "\n" not in str(e.value)
    more = {"valid.whole": counts(), "test.whole": counts()}
    folder = made(tmp_path / "two", valid, counts(root=1), arrays=more).folder
    with pytest.raises(NotComparable, match="the pipeline 'whole' has them all"):
        planned(tables=str(folder))
    assert planned(tables=str(folder), pipeline="whole").runs


WORDS = Task("words", "text", "perplexity", False, (35,), 100, "")


def perplexities(root: int = 0) -> np.ndarray:
    truth = 6 - 2 * SPACE.truths()[:, None, None]
    noise = 0.02 * np.random.default_rng(root).standard_normal((81, 3, 1))
    return np.exp(truth + noise).astype(np.float32)


def test_a_table_whose_median_diverged_is_refused(planned: Callable[..., Plan], tmp_path: Path) -> None:
    valid = perplexities()
    valid[:41, 1] = np.inf
    folder = made(tmp_path / "bad", valid, perplexities(1), task=WORDS).folder
    with pytest.raises(NotComparable, match=r"41 of 81 architectures diverged under 'base', so there is no median"):
        planned(tables=str(folder))


def test_perplexities_are_compared_the_lowest_being_best(planned: Callable[..., Plan], tmp_path: Path) -> None:
    valid, test = perplexities(), perplexities(1)
    worst = np.argsort(valid.mean((1, 2)))[-3:]
    valid[worst, 0], test[worst, 0] = np.inf, np.inf
    table = made(tmp_path / "words", valid, test, task=WORDS)
    plan = planned(tables=str(table.folder), strategies="aging_evolution", seeds=3, budget="40evals")
    assert carry_out(plan, tmp_path / "out") == []
    store = RunStore(tmp_path / "out" / "store")
    facts = store.study()["tables"]["words"]
    means = test.astype(np.float64).mean((1, 2))
    assert facts["best"] == pytest.approx(means.min())
    assert facts["median"] == pytest.approx(np.median(means))
    assert (facts["worst"], facts["mean"], facts["diverged_trainings"]) == (None, None, 3)
    assert facts["best_architecture"] == SPACE.text(SPACE.at(int(means.argmin())))
    assert facts["seed_noise_top"] < facts["seed_noise"] < 0.1 * facts["median"]
    record = store.load(plan.runs[0].key)
    scores = [i.score for i in record.incumbents]
    assert scores == sorted(scores)
    assert scores[-1] == pytest.approx(-valid[SPACE.index(record.incumbents[-1].architecture)].min(), rel=0.2)
    study = load(store)
    assert study.tables[0].scale == pytest.approx(facts["median"] - facts["best"])
    assert study.runs.score_test.notna().all()


# What was measured under attack is sealed.


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> MappedTable:
    fgsm = np.random.default_rng(5).integers(0, 5000, (81, 3), np.uint16)
    fgsm[4, 1] = MISSING
    fields = {"arrays": {"fgsm.base": fgsm}, "fgsm_epsilon": 0.1}
    return made(tmp_path_factory.mktemp("t") / "attacked", counts(), counts(root=1), **fields)


def test_values_under_attack_stand_in_the_record_and_nowhere_before(
    attacked: MappedTable, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    stored = np.load(attacked.folder / "sealed" / "fgsm.base.npy")
    values = np.where(stored == MISSING, np.nan, stored / 10_000)
    planted.LOG.clear()
    plan = planned(tables=str(attacked.folder), strategies="planted:Probe", estimators="planted:ProbeLookup", seeds=1)
    assert carry_out(plan, tmp_path) == []
    given = {f"{kind} {i}": thing for i, (kind, thing) in enumerate(planted.LOG)}
    planted.LOG.clear()
    needles = [a.tobytes() for a in (stored, stored.T, values, values.T, *values.T, seal.quality(values))]
    assert leaks.find_leaks(given, needles, modules=("planted",)) == []
    seen = np.load(attacked.folder / "valid.base.npy")
    assert leaks.find_leaks(given, [seen.tobytes()], modules=("planted",))  # the walk does find what is there
    store = RunStore(tmp_path / "store")
    record = store.load(plan.runs[0].key)
    for incumbent, revealed in zip(record.incumbents, record.sealed["incumbents"], strict=True):
        assert revealed["fgsm"] == pytest.approx(np.nanmean(values[SPACE.index(incumbent.architecture)]))
    facts = store.study()["tables"]["attacked"]["fgsm"]
    assert facts == pytest.approx(
        {"epsilon": 0.1, "best": np.nanmean(values, 1).max(), "median": np.median(np.nanmean(values, 1))}
    )


def test_tables_without_attacks_have_no_such_fields(ragged: MappedTable) -> None:
    assert "fgsm" not in seal.facts(ragged, "base")


def test_facts_are_json_of_finite_numbers(tmp_path: Path) -> None:
    valid = perplexities()
    valid[0] = np.inf
    table = made(tmp_path / "t", valid, valid, task=WORDS)
    facts = json.loads(json.dumps(seal.facts(table, "base"), allow_nan=False))
    assert facts["worst"] is None
    assert math.isfinite(facts["median"])
