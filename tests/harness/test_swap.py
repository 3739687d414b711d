"""Searches with recorded scores: the same seeds, the same loop, another answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from nasbed.harness import seal, swap
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.aging_evolution import AgingEvolution
from nasbed.protocols import Observation, Proposal, Traits
from nasbed.protocols.evidence import Scores, Truth
from nasbed.protocols.streams import integer
from nasbed.reports.audit.decision import decision, factorial, noise_curve, regrets
from nasbed.reports.audit.results import Settings
from nasbed.tabular import open_table, write_synthetic_table
from nasbed.tabular.facts import costs
from nasbed.tabular.sealed import unseal

EVOLUTION = "aging_evolution"
POPULATION = 10
SMALL = Synthetic(genes=4, values=4, world=2, epistasis=1)
LARGE = Synthetic(genes=6, values=5, world=3)


def truth_of(space: Synthetic, **changes: Any) -> Truth:
    f = space.truths()
    n = len(f)
    truth = Truth(
        table="world", digest="0", space=space.name, pipeline="base", metric="accuracy", higher_is_better=True,
        clock="epochs", complete=True, size=n, architectures=tuple(space.text(space.at(i)) for i in range(n)),
        values=f[:, None], seeds=(0,), cost=np.ones(n), features={},
    )  # fmt: skip
    return dataclasses.replace(truth, **changes)


def scores_of(name: str, values: np.ndarray, **changes: Any) -> Scores:
    values = values if values.ndim == 2 else values[:, None]
    scores = Scores(
        name=name, source="", traits=Traits(accuracy_scale=True, deterministic=True), values=values,
        asked=np.ones(len(values), bool), fitted=np.zeros(values.shape, bool), reasons={}, costs=None,
        preparation=np.zeros(values.shape[1]), unit="", full=float("nan"),
    )  # fmt: skip
    return dataclasses.replace(scores, **changes)


def swapped(space: Synthetic, truth: Truth, *estimators: Scores, **options: Any) -> swap.Searches:
    return swap.swap(space, space.index, truth, estimators, **{"seeds": range(5), "decisions": 40, **options})


def same(a: swap.Trails, b: swap.Trails) -> bool:
    fields = [f.name for f in dataclasses.fields(swap.Trails)]
    return all(getattr(a, f).tobytes() == getattr(b, f).tobytes() for f in fields)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((SMALL.size, 3)) * SMALL.truths().std()


def test_the_truth_as_an_estimator_costs_nothing():
    """Exactly, though it is a list of numbers like any other, and its costs are those of full trainings."""
    spread = np.random.default_rng(1).uniform(1.0, 3.0, SMALL.size)
    truth = truth_of(SMALL, cost=spread)
    costs = dict(costs=spread[:, None], unit="epochs", full=float(np.median(spread)))
    searches = swapped(SMALL, truth, scores_of("truth", SMALL.truths(), **costs), seeds=range(20))
    trails, oracle = searches.trails[EVOLUTION, "truth"], searches.oracle[EVOLUTION]
    assert (oracle.rows[:, :40] == trails.rows).all()
    assert (oracle.costs[:, :40] == trails.costs).all()
    r = regrets(searches, EVOLUTION, "truth")
    assert r.ee.tobytes() == r.eo.tobytes() == r.oo.tobytes()
    assert r.ee.max() > 0
    found = decision(searches, EVOLUTION, "truth", Settings())
    for part in (found.total, found.selection, found.guidance, found.equal_cost):
        assert (part.estimate, part.low, part.high) == (0.0, 0.0, 0.0)
    assert found.oo_decisions == 40


def test_searches_are_those_of_the_strategy_by_hand(noise):
    """A second implementation, without the loop, from the seed that a run of a study would draw."""
    searches = swapped(SMALL, truth_of(SMALL), scores_of("noisy", noise), seeds=(7, 3))
    for line, seed in zip(searches.trails[EVOLUTION, "noisy"].rows, (7, 3), strict=True):
        strategy = AgingEvolution(SMALL, seed=integer(seed, "strategy", EVOLUTION))
        visited = []
        for _ in range(40):
            [proposal] = strategy.ask()
            visited.append(SMALL.index(proposal.architecture))
            strategy.tell([Observation(proposal, float(noise[visited[-1], 0 if seed == 7 else 1]))])
        assert line.tolist() == visited


def test_searches_are_paired_by_seed(noise):
    """Before evolution begins every estimator sees the same random architectures, from each seed others."""
    searches = swapped(SMALL, truth_of(SMALL), scores_of("a", noise), scores_of("b", -noise))
    first = searches.oracle[EVOLUTION].rows[:, :POPULATION]
    for trails in searches.trails.values():
        assert (trails.rows[:, :POPULATION] == first).all()
        assert not (trails.rows == searches.oracle[EVOLUTION].rows).all()
    assert len(np.unique(first, axis=0)) == 5


def test_same_seeds_give_the_same_bytes(noise):
    a, b = scores_of("a", noise), scores_of("b", noise[:, :1])
    once, again = swapped(SMALL, truth_of(SMALL), a, b), swapped(SMALL, truth_of(SMALL), b, a)
    assert all(same(once.trails[key], again.trails[key]) for key in once.trails)
    assert same(once.oracle[EVOLUTION], again.oracle[EVOLUTION])
    [alone] = swapped(SMALL, truth_of(SMALL), b, seeds=[3]).trails[EVOLUTION, "b"].rows
    assert (alone == once.trails[EVOLUTION, "b"].rows[3]).all()


def test_global_randomness_is_untouched(noise):
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    swap.noisy(truth_of(SMALL), [1.0], 2)
    swapped(SMALL, truth_of(SMALL), scores_of("a", noise), decisions=5)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_search_i_asks_column_i_modulo_k(noise):
    searches = swapped(SMALL, truth_of(SMALL), scores_of("three", noise), seeds=range(7))
    assert searches.trails[EVOLUTION, "three"].columns.tolist() == [0, 1, 2, 0, 1, 2, 0]
    for k in range(3):
        single = swapped(SMALL, truth_of(SMALL), scores_of("one", noise[:, k]), seeds=range(7))
        equal = (single.trails[EVOLUTION, "one"].rows == searches.trails[EVOLUTION, "three"].rows).all(1)
        assert np.flatnonzero(equal).tolist() == list(range(k, 7, 3))


def test_costs_are_in_median_full_trainings():
    n, rng = SMALL.size, np.random.default_rng(0)
    answers, training = rng.uniform(1, 2, (n, 2)), rng.uniform(10, 30, n)
    known = scores_of("known", rng.random((n, 2)), costs=answers, preparation=np.array([40.0, 8.0]), unit="s", full=4.0)
    unknown = scores_of("unknown", rng.random(n))
    searches = swapped(SMALL, truth_of(SMALL, cost=training), known, unknown, seeds=range(3), decisions=12)
    trails = searches.trails[EVOLUTION, "known"]
    assert trails.preparation.tolist() == [10.0, 2.0, 10.0]
    for i in range(3):
        np.testing.assert_allclose(trails.costs[i], [answers[row, i % 2] / 4.0 for row in trails.rows[i]])
    oracle = searches.oracle[EVOLUTION]
    assert (oracle.costs == training[oracle.rows] / np.median(training))[oracle.rows >= 0].all()
    assert np.isnan(searches.trails[EVOLUTION, "unknown"].costs).all()
    assert decision(searches, EVOLUTION, "unknown", Settings()).equal_cost is None


def test_the_oracle_goes_on_where_an_estimate_was_dearer():
    """It begins as the shorter search does, and spends what the dearest estimate of its seed did, and little more."""
    f, training = SMALL.truths(), np.random.default_rng(0).uniform(1, 3, SMALL.size)
    truth = truth_of(SMALL, cost=training)
    twice = np.stack([f, f], 1)
    dear = scores_of("dear", twice, costs=np.zeros((len(f), 2)), preparation=np.array([60.0, 0.0]), unit="s", full=1.0)
    cheap = scores_of("cheap", f, costs=np.zeros((len(f), 1)), unit="s", full=1.0)
    both = swapped(SMALL, truth, dear, cheap, seeds=range(2), decisions=20)
    long, short = both.oracle[EVOLUTION], swapped(SMALL, truth, cheap, seeds=range(2), decisions=20).oracle[EVOLUTION]
    assert both.decisions == 20
    assert (long.rows[:, :20] == short.rows[:, :20]).all()
    spent, room = long.costs.sum(1), swap.MOST_TRAINED * both.training.max()
    assert 60.0 + room - both.training.max() < spent[0] <= 60.0 + room
    assert (long.rows[1] >= 0).sum() == (short.rows[1] >= 0).sum()
    assert (long.costs[long.rows < 0] == 0).all()
    r = regrets(both, EVOLUTION, "dear")
    assert (r.oo == regrets(both, EVOLUTION, "cheap").oo).all()
    assert (r.oo == r.eo).all()


def test_the_oracle_never_spends_more_than_the_whole_table():
    f = SMALL.truths()
    absurd = scores_of("absurd", f, costs=np.zeros((len(f), 1)), preparation=np.array([1e9]), unit="s", full=1.0)
    searches = swapped(SMALL, truth_of(SMALL), absurd, seeds=[0], decisions=5)
    assert searches.oracle[EVOLUTION].rows.shape == (1, SMALL.size)
    assert (
        "more than the oracle's whole search" in decision(searches, EVOLUTION, "absurd", Settings()).equal_cost.reason
    )


def test_what_has_no_score_is_a_crash():
    column = swap.ScoreColumn(SMALL.index, [0.5, float("nan"), float("-inf")] + [0.0] * 253, [2.0] * 256)
    good, bad, infinite = column.estimate([Proposal(SMALL.at(i)) for i in range(3)])
    assert (good.status, good.score, good.reason) == ("ok", 0.5, "")
    assert [c.amount for c in good.costs] == [2.0]
    for failed in (bad, infinite):
        assert failed.status == "crashed"
        assert np.isnan(failed.score)
        assert failed.reason
        assert failed.costs == good.costs
    assert column.asked == [0, 1, 2]


def test_an_estimator_that_fails_everywhere_still_gives_searches():
    searches = swapped(SMALL, truth_of(SMALL), scores_of("broken", np.full(SMALL.size, np.nan)))
    trails = searches.trails[EVOLUTION, "broken"]
    assert (trails.rows >= 0).all()
    found = decision(searches, EVOLUTION, "broken", Settings())
    assert found.total.estimate > 0


def test_lower_metrics_are_turned_round_and_diverged_ones_are_the_worst():
    f = SMALL.truths()
    values = np.stack([2.0 - f, 2.2 - f], 1)
    values[5, 1] = np.inf
    truth = truth_of(SMALL, values=values, seeds=(0, 1), higher_is_better=False, metric="perplexity")
    searches = swapped(SMALL, truth, scores_of("e", f))
    np.testing.assert_allclose(np.delete(searches.truth, 5), np.delete(f - 2.1, 5))
    assert searches.truth[5] == -np.inf
    assert not np.isnan(decision(searches, EVOLUTION, "e", Settings()).oo.estimate)


@pytest.mark.parametrize(
    ("truth", "estimator", "options", "message"),
    [
        ({"complete": False}, {}, {}, "world is a sample of 256 architectures; searches need all of them"),
        ({"values": np.full((256, 1), np.nan)}, {}, {}, "no training of 256 architectures"),
        ({}, {"asked": np.arange(256) < 200}, {}, "partial was asked for 200 of 256 architectures"),
        ({}, {}, {"decisions": 0}, "needs a decision and a seed, got 0 decisions"),
        ({}, {}, {"seeds": ()}, "needs a decision and a seed, got 40 decisions and 0 seeds"),
        ({}, {}, {"strategies": ["agingevolution"]}, "did you mean 'aging_evolution'"),
        ({}, {}, {"strategies": ["aging_evolution[size=3]"]}, "parameter: 'size' is not one of"),
        ({}, {}, {"strategies": ["sharing:Sharing"]}, "shares weights"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(truth, estimator, options, message, monkeypatch):
    load = swap.registry.load
    sharing = type("Sharing", (), {"train_epoch": None})
    monkeypatch.setattr(swap.registry, "load", lambda role, name: sharing if ":" in name else load(role, name))
    with pytest.raises(ValueError, match=message) as refused:
        swapped(SMALL, truth_of(SMALL, **truth), scores_of("partial", SMALL.truths(), **estimator), **options)
    assert "\n" not in str(refused.value)


def test_a_strategy_that_ends_early_leaves_a_shorter_line(monkeypatch):
    class Tired(AgingEvolution):
        def ask(self, n: int = 1) -> Any:
            return super().ask(n) if len(self._asked) < 3 + self._seed else ()

        def __init__(self, space: Synthetic, *, seed: int) -> None:
            super().__init__(space, seed=seed)
            self._seed = seed % 5

    monkeypatch.setattr(swap.registry, "load", lambda role, name: Tired)
    searches = swapped(SMALL, truth_of(SMALL), scores_of("e", SMALL.truths()), strategies=["tired"])
    rows = searches.trails["tired", "e"].rows
    lengths = (rows >= 0).sum(1)
    assert len(set(lengths.tolist())) > 1
    assert rows.shape[1] == lengths.max() < 40
    for line, length in zip(rows, lengths, strict=True):
        assert (line[length:] == -1).all()
    assert decision(searches, "tired", "e", Settings()).total.estimate == 0.0


def test_progress_counts_every_search():
    seen: list[tuple[float, float]] = []
    swapped(SMALL, truth_of(SMALL), scores_of("e", SMALL.truths()), decisions=2, strategies=[EVOLUTION, "random"],
            progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert seen == [(i, 20) for i in range(1, 21)]


@pytest.mark.parametrize(("size", "decisions"), [(8, 20), (81, 20), (729, 72), (1536, 153), (15_625, 200)])
def test_a_default_search_is_a_tenth_of_the_space(size, decisions):
    assert swap.default_decisions(size) == decisions


def test_noise_has_the_deviation_asked_for():
    truth, f = truth_of(LARGE), LARGE.truths()
    found = swap.noisy(truth, [0.0, 0.5, 1.0], 4)
    assert [s.name for s in found.values()] == ["noise[sd=0]", "noise[sd=0.5]", "noise[sd=1]"]
    assert (found[0.0].values == f[:, None]).all()
    half, full = found[0.5].values - f[:, None], found[1.0].values - f[:, None]
    np.testing.assert_allclose(2 * half, full, atol=1e-12)
    np.testing.assert_allclose(full.std(0), f.std(), rtol=0.03)
    assert abs(np.corrcoef(full.T)[0, 1]) < 0.03
    assert (swap.noisy(truth, [0.5], 4)[0.5].values == found[0.5].values).all()
    assert not (swap.noisy(truth, [0.5], 4, root=1)[0.5].values == found[0.5].values).any()


def test_on_a_table_that_was_written_and_opened(tmp_path):
    """Rows by the table, truth by the seal; trainings are noisy, so a single validation value misleads a little."""
    table = open_table(write_synthetic_table(tmp_path / "world", SMALL, noise=0.03))
    values = unseal(table, "base")[table.members()]
    truth = truth_of(SMALL, table=table.name, values=values, seeds=table.seeds, cost=costs(table, "base"))
    searches = swap.swap(table.space, table.row, truth, [scores_of("one seed", values[:, :1])], seeds=range(20))
    assert searches.decisions == 25
    facts = seal.facts(table, "base")
    assert searches.truth.max() == facts["best"]
    assert np.median(searches.truth) == facts["median"]
    assert decision(searches, EVOLUTION, "one seed", Settings()).total.estimate > 0


@pytest.fixture(scope="module")
def known() -> swap.Searches:
    """Two estimators of opposite faults: noise everywhere, and a best twentieth that is told apart by noise alone."""
    f, rng = LARGE.truths(), np.random.default_rng(0)
    mild = f[:, None] + 0.45 * f.std() * rng.standard_normal((f.size, 40))
    flat = np.minimum(f, np.quantile(f, 0.95))[:, None] + 0.03 * f.std() * rng.standard_normal((f.size, 40))
    return swapped(LARGE, truth_of(LARGE), scores_of("mild", mild), scores_of("flat", flat), seeds=range(40),
                   decisions=200)  # fmt: skip


def test_most_of_the_damage_is_selection_and_tau_cannot_tell(known):
    tau = {e: kendalltau(known.scores[e][:, 0], known.truth).statistic for e in ("mild", "flat")}
    assert 0.70 < tau["mild"] < 0.77
    assert tau["flat"] > 0.96
    for e in ("mild", "flat"):
        found = decision(known, EVOLUTION, e, Settings())
        assert found.ee.estimate > 3 * found.oo.estimate
        assert found.total.low > 0.05
        assert 0.7 < found.selection.estimate / found.total.estimate < 1.05
        assert found.guidance.estimate < 0.06
        assert found.ee.estimate > found.top_k[5].estimate > found.top_k[10].estimate > found.eo.estimate
    assert decision(known, EVOLUTION, "flat", Settings()).ee.estimate > 0.12


def test_more_noise_costs_more():
    truth = truth_of(LARGE)
    found = swap.noisy(truth, [0.0, 0.25, 1.0, 4.0], 20)
    searches = swapped(LARGE, truth, *found.values(), seeds=range(20), decisions=80)
    curve = noise_curve(searches, EVOLUTION, {sd: s.name for sd, s in found.items()}, Settings())
    assert [p.sd for p in curve] == [0.0, 0.25, 1.0, 4.0]
    assert curve[0].tau_b == pytest.approx(1.0)
    # For normal quality and noise tau is 2/pi arcsin(r) with r = 1 / sqrt(1 + sd^2); here quality is nearly normal.
    for point in curve:
        assert point.tau_b == pytest.approx(2 / np.pi * np.arcsin(1 / np.sqrt(1 + point.sd**2)), abs=0.01)
    means = [p.regret.estimate for p in curve]
    assert means == sorted(means)
    assert means[0] == decision(searches, EVOLUTION, found[0.0].name, Settings()).oo.estimate


def test_strategies_are_crossed_with_estimators():
    """Random search is as bad with a good estimate as evolution is, next to what a bad estimate costs both."""
    f = LARGE.truths()
    wrong = scores_of("wrong", np.random.default_rng(0).random(f.size))
    strategies = ("random", "aging_evolution[population_size=20;sample_size=5]")
    searches = swapped(LARGE, truth_of(LARGE), scores_of("right", f), wrong, strategies=strategies, seeds=range(20))
    found = factorial(searches, ("right", "wrong"), Settings())
    assert found.strategies == strategies
    assert found.share["estimators"] > 0.8
    assert sum(found.share.values()) == pytest.approx(1.0)
