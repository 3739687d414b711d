"""What an estimate costs a search, from trails made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from statsmodels.stats.anova import anova_lm

from nasbed.harness.swap import Searches, Trails
from nasbed.reports.audit import decision as audit
from nasbed.reports.audit.results import Settings
from nasbed.reports.statistics import bootstrap_difference, t_difference

SETTINGS = Settings(resamples=200)
F = np.array([0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.2])
NR = [1.0, 1.0, 1.0, 0.5, 0.25, 0.0, 1.0]
"""The best is 0.9, the median 0.7."""


def trails(rows: Any, columns: Any = None, costs: Any = 0.0, preparation: Any = 0.0) -> Trails:
    rows = np.asarray(rows, np.int64)
    n = len(rows)
    columns = np.zeros(n, np.int64) if columns is None else np.asarray(columns, np.int64)
    costs = np.where(rows < 0, 0.0, np.broadcast_to(costs, rows.shape))
    return Trails(rows, columns, costs, np.broadcast_to(np.asarray(preparation, float), n))


def world(
    scores: Any, found: Trails, oracle: Trails, *, truth: np.ndarray = F, training: Any = 1.0, decisions: int = 99
) -> Searches:
    scores = np.asarray(scores, float)
    scores = scores[:, None] if scores.ndim == 1 else scores
    return Searches(
        decisions, tuple(range(len(found.rows))), truth, np.broadcast_to(np.asarray(training, float), truth.shape),
        {"e": scores}, {"s": oracle}, {("s", "e"): found},
    )  # fmt: skip


def arms(searches: Searches) -> tuple[list[float], list[float], list[float]]:
    r = audit.regrets(searches, "s", "e")
    assert r.reason == ""
    return tuple(np.round(x, 12).tolist() for x in (r.ee, r.eo, r.oo))


def test_the_three_arms_by_hand():
    scores = [0.1, 0.9, 0.3, 0.4, 0.5, 0.2, 0.0]
    found = trails([[0, 1, 3, 4], [0, 4, 3, 5]])
    searches = world(scores, found, trails([[0, 3, 5, 1], [2, 2, 3, 3]]))
    assert arms(searches) == ([1.0, 0.25], [0.25, 0.0], [0.0, 0.5])
    d = audit.decision(searches, "s", "e", SETTINGS, ks=(1, 2))
    assert (d.strategy, d.decisions, d.seeds) == ("s", 99, 2)
    estimates = [i.estimate for i in (d.ee, d.eo, d.oo, d.selection, d.guidance, d.total)]
    assert estimates == pytest.approx([0.625, 0.125, 0.25, 0.5, -0.125, 0.375])
    # One trained: the pick itself. Two: 1 and 4; 4 and 3.
    assert {k: i.estimate for k, i in d.top_k.items()} == pytest.approx({1: 0.625, 2: 0.25})


def test_the_oracle_has_no_more_decisions_than_the_estimate():
    searches = world(np.zeros(7), trails([[0, 1]]), trails([[0, 3, 5]]), decisions=2)
    assert arms(searches)[2] == [0.5]


def test_ties_go_to_the_first_visited_and_the_unscored_are_last():
    nan = float("nan")
    scores = [0.3, 0.3, nan, 0.3, nan, nan, nan]
    found = trails([[3, 0, 1], [1, 3, 0], [5, 1, 1], [4, 5, 2]])
    assert arms(world(scores, found, found))[0] == [0.5, 1.0, 1.0, 0.25]
    infinite = np.where(np.isnan(scores), np.inf, scores)
    assert arms(world(infinite, found, found))[0] == [0.5, 1.0, 1.0, 0.25]


def test_a_search_that_ended_visited_nothing_afterwards():
    """Places after the end are -1, which would be the last row: here the best in every respect."""
    truth, scores = np.append(F, 1.0), [*np.arange(7) / 10, 9.0]
    found, oracle = trails([[3, -1, -1], [0, 3, -1]]), trails([[0, -1, -1], [3, 4, -1]])
    searches = world(scores, found, oracle, truth=truth)
    r = audit.regrets(searches, "s", "e")
    nr = np.clip((1.0 - truth) / (1.0 - np.median(truth)), 0, 1)
    np.testing.assert_allclose([r.ee, r.eo, r.oo], [[nr[3]] * 2, [nr[3]] * 2, [nr[0], nr[4]]])
    assert audit.paid(searches, "s", "e", SETTINGS, 3).cost == 1.5


def test_search_i_picks_with_its_own_column():
    scores = np.zeros((7, 2))
    scores[0, 0] = scores[5, 1] = 1.0
    found = trails([[0, 5, 3]] * 3, columns=[0, 1, 0])
    assert arms(world(scores, found, found))[0] == [1.0, 0.0, 1.0]


def test_repeated_visits_are_trained_once():
    scores = [0.9, 0.1, 0.1, 0.5, 0.4, 0.2, 0.0]
    found = trails([[0, 0, 0, 3, 0, 3, 4, 5]])
    searches = world(scores, found, found)
    by_k = [audit.paid(searches, "s", "e", SETTINGS, k) for k in (1, 2, 3, 4, 9)]
    assert [p.regret.estimate for p in by_k] == pytest.approx([1.0, 0.5, 0.25, 0.0, 0.0])
    assert [p.cost for p in by_k] == [1.0, 2.0, 3.0, 4.0, 4.0]


def test_equal_cost_by_hand():
    """Answers of a quarter training, preparation of one: 2 spent. The oracle's trainings cost 1, 0.75, 0.5, 2."""
    scores = [0.9, 0.1, 0.1, 0.5, 0.4, 0.2, 0.0]
    training = [1.0, 3.0, 1.0, 0.75, 0.5, 2.0, 1.0]
    found = trails([[0, 3, 4, 1]] * 4, costs=0.25, preparation=[1.0, 3.25] * 2)
    oracle = trails([[0, 3, 4, 5]] * 4, costs=[training[i] for i in (0, 3, 4, 5)])
    searches = world(scores, found, oracle, training=training)
    alone = audit.paid(searches, "s", "e", SETTINGS, 0)
    # 2 affords 1 + 0.75; 4.25 affords 1 + 0.75 + 0.5 + 2 exactly. Regrets: 1 - 0.5, 1 - 0.
    assert (alone.cost, alone.oo_decisions) == (3.125, 3.0)
    assert alone.gain.estimate == pytest.approx((0.5 + 1.0) / 2)
    d = audit.decision(searches, "s", "e", SETTINGS)
    assert d.equal_cost == alone.gain
    assert d.oo_decisions == 3.0
    # Training the best two, 0 and 3, costs 1.75 and finds 0.5; 3.75 affords three, 6 affords all.
    two = audit.paid(searches, "s", "e", SETTINGS, 2)
    assert (two.cost, two.oo_decisions) == (4.875, 3.5)
    assert two.gain.estimate == pytest.approx(((0.5 - 0.25) + (0.5 - 0.0)) / 2)
    assert "oracle" not in two.gain.reason


def test_an_estimate_that_costs_less_than_a_training_is_compared_with_one():
    found, oracle = trails([[0, 3]] * 4, costs=[[0.1]] * 3 + [[0.6]]), trails([[3, 5]] * 4, costs=1.0)
    free = audit.paid(world(F, found, oracle), "s", "e", SETTINGS, 0)
    assert free.oo_decisions == 1.0
    assert free.gain.estimate == 0.0
    assert "3 of 4 searches cost less than the first training of the oracle" in free.gain.reason


def test_an_estimate_dearer_than_the_oracle_s_whole_search_is_named():
    oracle = trails([[3, 5]] * 3, costs=1.0)
    found = trails([[0, 3]] * 3, preparation=[2.5, 3.5, 2.0])
    gain = audit.paid(world(F, found, oracle), "s", "e", SETTINGS, 0).gain
    assert "1 of 3 searches cost more than the oracle's whole search" in gain.reason


@pytest.mark.parametrize("unknown", ["costs", "preparation"])
def test_unknown_costs_are_not_compared(unknown):
    found = trails([[0, 3]] * 3, **{unknown: float("nan")})
    searches = world(F, found, trails([[3, 5]] * 3, costs=1.0))
    d = audit.decision(searches, "s", "e", SETTINGS)
    assert d.equal_cost is None
    assert np.isnan(d.oo_decisions)
    paid = audit.paid(searches, "s", "e", SETTINGS, 5)
    assert paid.gain is None
    assert np.isnan(paid.cost)
    assert d.top_k[5] == paid.regret
    assert paid.regret.estimate == pytest.approx(0.5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 8), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_total_is_selection_plus_guidance(seed, searches, length, columns):
    rng = np.random.default_rng(seed)
    truth, scores = rng.normal(size=40), rng.normal(size=(40, columns)).round(1)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    rows = rng.integers(40, size=(2, searches, length))
    rows[:, :, 1:][rng.random((2, searches, length - 1)).cumsum(2) > 2] = -1
    found = trails(rows[0], columns=np.arange(searches) % columns, costs=0.5)
    w = world(scores, found, trails(rows[1], costs=1.0), truth=truth)
    d = audit.decision(w, "s", "e", SETTINGS)
    assert d.total.estimate == pytest.approx(d.selection.estimate + d.guidance.estimate, abs=1e-14)
    assert d.total.estimate == pytest.approx(d.ee.estimate - d.oo.estimate, abs=1e-14)
    r = audit.regrets(w, "s", "e")
    assert (r.ee >= r.eo).all()
    assert d.ee.estimate >= d.top_k[5].estimate >= d.top_k[10].estimate >= d.eo.estimate
    for x in (r.ee, r.eo, r.oo):
        assert ((x >= 0) & (x <= 1)).all()
    # By hand, search by search.
    nr = np.clip((truth.max() - truth) / (truth.max() - np.median(truth)), 0, 1)
    for i in range(searches):
        visited = [int(v) for v in rows[0, i] if v >= 0]
        pick = max(visited, key=lambda v: -np.inf if np.isnan(scores[v, i % columns]) else scores[v, i % columns])
        assert r.ee[i] == pytest.approx(nr[pick])
        assert r.eo[i] == pytest.approx(min(nr[visited]))
        assert r.oo[i] == pytest.approx(min(nr[v] for v in rows[1, i] if v >= 0))


def test_intervals_are_paired_by_search():
    """Both arms share the luck of their seed: lines that are out of step lose what pairing gains."""
    rng = np.random.default_rng(0)
    truth = np.concatenate([np.linspace(1, 0, 1001), np.zeros(1002)])
    luck = rng.integers(0, 600, 40)
    ee, oo = luck + rng.integers(200, 220, 40), luck
    scores = -np.arange(truth.size, dtype=float)
    straight = world(scores, trails(ee[:, None]), trails(oo[:, None]), truth=truth)
    crooked = dataclasses.replace(straight, oracle={"s": trails(np.roll(oo, 1)[:, None])})
    good, bad = (audit.decision(w, "s", "e", Settings()).total for w in (straight, crooked))
    assert good.estimate == pytest.approx(bad.estimate)
    assert 20 * (good.high - good.low) < bad.high - bad.low
    x, y = ee / 1000, oo / 1000
    expected = bootstrap_difference([x], [y], paired=True, resamples=1000, rng=np.random.default_rng(0))
    assert (good.low, good.high) == pytest.approx((expected.low, expected.high))
    few = audit.decision(
        world(scores, trails(ee[:9, None]), trails(oo[:9, None]), truth=truth), "s", "e", Settings(level=0.9)
    )
    assert few.total.low == pytest.approx(t_difference([x[:9]], [y[:9]], paired=True, level=0.9).low)


def test_same_inputs_give_the_same_numbers():
    found = trails([[0, 3], [4, 1], [2, 5]] * 10, costs=0.5)
    a, b = (audit.decision(world(F, found, found), "s", "e", SETTINGS) for _ in range(2))
    assert a == b
    assert repr(a) == repr(b)


@pytest.mark.parametrize(
    "truth", [np.full(7, 0.5), np.array([0.5, 0.9, 0.9, 0.9, 0.9, 0.1, 0.2]), [-np.inf] * 5 + [1, 2]]
)
def test_a_scale_that_is_undefined_is_said(truth):
    found = trails([[0, 3], [4, 1], [2, 5]], costs=0.5)
    d = audit.decision(world(F, found, found, truth=np.asarray(truth, float)), "s", "e", SETTINGS)
    for interval in (d.ee, d.eo, d.oo, d.total, d.selection, d.guidance, d.equal_cost, *d.top_k.values()):
        assert np.isnan([interval.estimate, interval.low, interval.high]).all()
        assert "normalised regret is undefined: best" in interval.reason


def test_a_diverged_training_is_as_bad_as_the_median():
    truth = np.where(F == 0.2, -np.inf, F)
    found = trails([[6, 3]] * 3)
    assert arms(world([0, 0, 0, 0, 0, 0, 1], found, found, truth=truth))[0] == [1.0] * 3


def test_bad_inputs_are_refused():
    found = trails([[0, 3]] * 3)
    with pytest.raises(ValueError, match=r"truth has NaN at positions \[2\]"):
        audit.decision(world(F, found, found, truth=np.where(F == 0.7, np.nan, F)), "s", "e", SETTINGS)
    with pytest.raises(ValueError, match="searches with e: search 1 visited nothing"):
        audit.decision(world(F, trails([[0, 3], [-1, -1]]), found), "s", "e", SETTINGS)


def test_noise_points_hold_the_mean_tau_b_of_the_columns():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    noisy = {"none": np.tile(truth[:, None], (1, 3)), "some": truth[:, None] + rng.normal(size=(300, 3))}
    rows = rng.integers(300, size=(12, 20))
    found = trails(rows, columns=np.arange(12) % 3)
    searches = dataclasses.replace(
        world(truth, found, found, truth=truth), scores=noisy, trails={("s", label): found for label in noisy}
    )
    none, some = audit.noise_curve(searches, "s", {1.0: "some", 0.0: "none"}, SETTINGS)
    assert (none.sd, some.sd) == (0.0, 1.0)
    assert none.tau_b == pytest.approx(1.0)
    assert some.tau_b == pytest.approx(np.mean([kendalltau(noisy["some"][:, k], truth).statistic for k in range(3)]))
    assert none.regret == audit.decision(searches, "s", "none", SETTINGS).oo
    assert some.regret.estimate > none.regret.estimate


LADDER = np.concatenate([np.linspace(1, 0, 1001), np.zeros(1002)])


def crossed(cells: np.ndarray) -> Searches:
    """Searches of one decision each, whose regrets are `cells`, (strategies, estimators, S), to 1e-3."""
    rows = np.rint(np.asarray(cells) * 1000).astype(np.int64)
    oracle = trails(np.zeros((rows.shape[2], 1)))
    found = {(f"s{i}", f"e{j}"): trails(rows[i, j][:, None]) for i, j in np.ndindex(rows.shape[:2])}
    n = LADDER.size
    return Searches(
        1, tuple(range(rows.shape[2])), LADDER, np.ones(n), {f"e{j}": np.zeros((n, 1)) for j in range(rows.shape[1])},
        {f"s{i}": oracle for i in range(rows.shape[0])}, found,
    )  # fmt: skip


def factorial_of(cells: Any, seed: int = 0) -> Any:
    return audit.factorial(crossed(cells), [f"e{j}" for j in range(np.shape(cells)[1])], Settings(seed=seed))


def test_factorial_by_hand():
    """Means 0.1 0.2 / 0.3 0.8: effects -0.2 0.2 and -0.15 0.15, interaction 0.1 -0.1 / -0.1 0.1."""
    means = np.array([[0.1, 0.2], [0.3, 0.8]])
    found = factorial_of(means[:, :, None] + np.array([-0.05, 0.0, 0.05]))
    assert (found.strategies, found.estimators) == (("s0", "s1"), ("e0", "e1"))
    np.testing.assert_allclose(found.regrets, means)
    np.testing.assert_allclose(found.interaction, [[0.1, -0.1], [-0.1, 0.1]])
    total = 0.16 + 0.09 + 0.04
    expected = {"strategies": 0.16 / total, "estimators": 0.09 / total, "interaction": 0.04 / total}
    assert found.share == pytest.approx(expected)


def test_factorial_shares_are_those_of_an_analysis_of_variance():
    cells = np.random.default_rng(0).uniform(0, 1, (3, 4, 6)).round(3)
    found = factorial_of(cells)
    frame = pd.DataFrame([(str(i), str(j), x) for (i, j, _), x in np.ndenumerate(cells)], columns=["s", "e", "y"])
    squares = anova_lm(smf.ols("y ~ C(s) * C(e)", frame).fit())["sum_sq"]
    terms = {"strategies": squares["C(s)"], "estimators": squares["C(e)"], "interaction": squares["C(s):C(e)"]}
    total = sum(terms.values())
    assert found.share == pytest.approx({k: v / total for k, v in terms.items()})


def additive(rng: np.random.Generator, searches: int, interaction: float = 0.0) -> np.ndarray:
    """Skewed noise, unequal between cells, and luck that all cells of a seed share."""
    base = np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.4]])
    base[1, 2] += interaction
    noise = rng.exponential(np.array([[0.02, 0.05, 0.1], [0.05, 0.1, 0.05]])[:, :, None], (2, 3, searches))
    spread = np.array([[0.02, 0.05, 0.1], [0.05, 0.1, 0.05]])[:, :, None]
    return np.clip(base[:, :, None] + noise - spread + rng.uniform(0, 0.2, searches), 0, 1)


def test_p_of_no_interaction_keeps_its_level(monkeypatch):
    """Under the null 5 % of p-values may lie below 0.05; 21 of 200 is beyond the 99.9 % quantile of what that gives."""
    monkeypatch.setattr(audit, "FLIPS", 499)
    rng = np.random.default_rng(0)
    low = sum(factorial_of(additive(rng, 40), seed=i).p < 0.05 for i in range(200))
    assert 1 <= low <= 21


def test_a_planted_interaction_is_found():
    assert factorial_of(additive(np.random.default_rng(0), 60, interaction=0.2)).p < 0.001
    assert factorial_of(additive(np.random.default_rng(0), 60)).p > 0.01


@pytest.mark.parametrize("shape", [(1, 3, 20), (3, 1, 20), (2, 2, 1)])
def test_p_needs_two_of_everything(shape: Sequence[int]):
    assert np.isnan(factorial_of(np.random.default_rng(0).random(shape)).p)


def test_cells_that_are_equal_have_nothing_to_share_out():
    found = factorial_of(np.broadcast_to(np.random.default_rng(0).random(20).round(3), (2, 3, 20)))
    assert all(np.isnan(v) for v in found.share.values())
    assert found.p == 1.0
