"""Comparisons whose right answer is known: a better strategy is found, and equal ones are not told apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nasbed.harness import seal
from nasbed.harness.compare import carry_out
from nasbed.harness.ledger import Ledger
from nasbed.harness.loop import search
from nasbed.harness.plan import plan
from nasbed.harness.runs import train_seeds
from nasbed.harness.store import RunStore
from nasbed.harness.study import read_study
from nasbed.methods.estimators.table import TableLookup
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.random import RandomSearch
from nasbed.protocols import Budget, Incumbent, Setting
from nasbed.reports import comparison
from nasbed.reports.frame import load
from nasbed.reports.results import Metric, Pair, RunScore, Settings
from nasbed.reports.statistics import Interval, normalised_regret, verdict
from nasbed.tabular import MappedTable, open_table, write_synthetic_table

COMPARISONS = 200
SEEDS = 10
EVALUATIONS = 20
ALPHA = 0.05
ALLOWED = int(stats.binom.ppf(0.99, COMPARISONS, ALPHA / 2))


def test_evolution_beats_random_search_where_it_must(tmp_path):
    world = Synthetic(genes=6, values=5, world=3)
    write_synthetic_table(tmp_path / "additive", world, noise=0.005)
    given = {"strategies": "random,aging_evolution", "tables": str(tmp_path / "additive"), "seeds": 30,
             "budget": "200evals"}  # fmt: skip
    assert carry_out(plan(read_study(None, given)), tmp_path) == []
    found = comparison.compare(load(RunStore(tmp_path / "store", create=False)), resamples=2000)
    [pair] = found.pairs_of("regret_final", baseline=True)
    assert (pair.first, pair.second, pair.verdict) == ("aging_evolution", "random", "better")
    assert pair.difference.high < 0
    assert pair.a12.estimate < 0.2
    assert found.ranking() == ("aging_evolution", "random")


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> MappedTable:
    folder = tmp_path_factory.mktemp("noisy") / "noisy"
    return open_table(write_synthetic_table(folder, Synthetic(genes=4, values=4, world=2, epistasis=1), noise=0.03))


def incumbent(table: MappedTable, root: int, seed: int) -> Incumbent:
    """The final incumbent of random search, run as the harness runs it.

    Args:
        table: Where.
        root: Of the training seeds.
        seed: Of the strategy.
    """
    spec = {"table": {"digest": table.digest}, "data": None, "options": {"redraw": False}, "seed": root}
    draw = train_seeds(spec, table.seeds)
    estimator = TableLookup()
    setting = Setting(table.task, "evaluations", table.pipelines["base"], draw, table=table)
    estimator.prepare(table.space, setting, seed=seed)
    ledger = Ledger(Budget("evaluations", float(EVALUATIONS)))
    run, _ = search(RandomSearch(table.space, seed=seed), estimator, table.space, ledger)
    return run.incumbents[-1]


@pytest.fixture(scope="module", params=[False, True], ids=["other seeds", "same seeds"])
def pairs(request: pytest.FixtureRequest, noisy: MappedTable) -> list[Pair]:
    """The same strategy against itself, again and again; no run is used twice.

    With the same seeds both sides share their training seeds, as the methods of a study do; with others nothing.
    """
    metric = Metric("regret_final", "Final regret", "final test regret", "normalised regret", True, 0.01)
    settings = Settings(1000, 0, ALPHA, 0.95, (), True)
    # (comparison, side, run): a seed of its own, and training seeds that the two sides share or do not.
    places = np.arange(2 * COMPARISONS * SEEDS).reshape(COMPARISONS, 2, SEEDS)
    roots = np.broadcast_to(places[:, :1], places.shape) if request.param else places
    final = [incumbent(noisy, int(root), int(seed)) for root, seed in zip(roots.flat, places.flat, strict=True)]
    facts, tests = seal.facts(noisy, "base"), seal.reveal(noisy, "base", final)["incumbents"]
    regrets = normalised_regret([t["test"] for t in tests], facts["best"], facts["median"]).reshape(places.shape)
    found = []
    for root, values in zip(roots, regrets, strict=True):
        runs = [
            RunScore(f"{label}{j}", label, "noisy", int(root[side, j]), {metric.name: float(v)}, 0.0, 0.0, 0.0)
            for side, label in enumerate(("random", "again"))
            for j, v in enumerate(values[side])
        ]
        found += comparison._pairs(runs, metric, ("random", "again"), "random", ("noisy",), settings)
    assert {p.paired for p in found} == {request.param}
    return found


def test_a_strategy_is_seldom_better_than_itself(pairs):
    assert len(pairs) == COMPARISONS
    assert len({p.difference.estimate for p in pairs}) > COMPARISONS / 2
    counts = {word: sum(p.verdict == word for p in pairs) for word in ("better", "worse", "undecided", "equivalent")}
    print(f"of {COMPARISONS} comparisons of a strategy with itself: {counts}; allowed: {ALLOWED} better")
    assert counts["better"] <= ALLOWED
    assert counts["worse"] <= ALLOWED


def test_a_liberal_rule_is_caught(pairs):
    """The same runs, and a rule that looks at the sign of the difference and a p-value below 0.3."""
    better = 0
    for p in pairs:
        sign = Interval(p.difference.estimate, p.difference.estimate, p.difference.estimate, 0.95, "none", SEEDS)
        better += verdict(sign, p.p, 0.0, 0.3) == "better"
    assert better > ALLOWED


def test_p_values_of_equal_strategies_are_uniform(pairs):
    # Discrete and tied, hence a wide band: the 99.9 % quantile of Kolmogorov's statistic.
    p = np.sort([p.p for p in pairs])
    gap = float(np.max(np.abs(p - (np.arange(COMPARISONS) + 0.5) / COMPARISONS)))
    assert gap < stats.kstwobign.ppf(0.999) / np.sqrt(COMPARISONS) + 0.5 / COMPARISONS
