"""Metrics of the top k: known answers, and what a random ranking has of each."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from scipy.stats import kendalltau

from nasbed.reports.audit.topk import SHARES, order, psr, tau_within, top_k, tops

PRED = [0.71, 0.69, 0.74, 0.74, 0.78, 0.75, 0.80, 0.77]
TRUE = [90.1, 90.3, 91.0, 91.0, 92.2, 92.0, 91.8, 93.0]
METRICS = ("p_top", "p_bottom", "best_rank", "worst_rank", "n_at", "regret")


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, (0, 0, 0.5, 0.5, 3, 1.2)), (2, (0.5, 1, 0.25, 0.5, 2, 0.8)), (3, (2 / 3, 1, 0.125, 0.5, 2, 0))],
)
def test_known_answers(k, expected):
    found = top_k(PRED, TRUE, k)
    assert [getattr(found, m) for m in METRICS] == pytest.approx(expected, abs=1e-9)
    assert (found.k, found.share) == (k, k / 8)


@pytest.mark.parametrize("by", ["truth", "prediction"])
def test_known_answer_within_the_top(by):
    assert tau_within(PRED, TRUE, 0.5, by).value == pytest.approx(-1 / 3, abs=1e-9)


def test_within_the_top_of_either_is_scipy_on_the_rows():
    rng = np.random.default_rng(0)
    f = rng.normal(size=200)
    e = f + rng.normal(size=200)
    for by, chooses in (("truth", f), ("prediction", e)):
        rows = np.argsort(chooses)[-40:]
        assert tau_within(e, f, 0.2, by).value == pytest.approx(kendalltau(e[rows], f[rows]).statistic, abs=1e-12)
    assert tau_within(e, f, 0.2, "truth").value != tau_within(e, f, 0.2, "prediction").value


@pytest.mark.parametrize("truth", [[3.0, 1.0, 4.0, 1.5, 9.0], [2.0, 2.0, 1.0, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_chance_is_the_mean_over_all_rankings(truth, k):
    every = [top_k(ranking, truth, k) for ranking in permutations(range(5))]
    for metric in METRICS:
        mean = np.mean([getattr(one, metric) for one in every])
        assert every[0].random[metric] == pytest.approx(mean, abs=1e-12), metric


def test_chance_on_a_large_table():
    rng = np.random.default_rng(1)
    f = rng.normal(size=15625)
    drawn = [f.max() - rng.choice(f, 100, replace=False).max() for _ in range(400)]
    assert abs(top_k(f, f, 100).random["regret"] - np.mean(drawn)) < 4 * np.std(drawn) / 20


@settings(max_examples=60, deadline=None)
@given(hs.lists(hs.integers(-3, 3), min_size=1, max_size=12), hs.data())
def test_the_truth_is_a_perfect_ranking(truth, data):
    k = data.draw(hs.integers(1, len(truth)))
    found = top_k(np.exp(truth), truth, k)
    assert (found.p_top, found.p_bottom, found.n_at, found.regret) == (1, 1, 1, 0)
    assert (found.best_rank, found.worst_rank) == (1 / len(truth), k / len(truth))


@settings(max_examples=60, deadline=None)
@given(hs.lists(hs.tuples(hs.integers(0, 4), hs.integers(0, 4)), min_size=1, max_size=15), hs.data())
def test_the_definitions_by_sets(pairs, data):
    e, f = (np.array(x, float) for x in zip(*pairs, strict=True))
    k, n = data.draw(hs.integers(1, len(e))), len(e)
    predicted = sorted(range(n), key=lambda i: (-e[i], i))
    true = sorted(range(n), key=lambda i: (-f[i], i))
    found = top_k(e, f, k)
    assert found.p_top == len(set(predicted[:k]) & set(true[:k])) / k
    assert found.p_bottom == len(set(predicted[-k:]) & set(true[-k:])) / k
    assert found.best_rank == min(true.index(i) + 1 for i in predicted[:k]) / n
    assert found.worst_rank == max(true.index(i) + 1 for i in predicted[:k]) / n
    assert found.n_at == min(predicted.index(i) + 1 for i in true[:k])
    assert found.regret == max(f) - max(f[i] for i in predicted[:k])


def test_what_has_no_score_is_last_in_the_order_of_rows():
    assert order([-np.inf, 1.0, -np.inf, 2.0, 1.0]).tolist() == [3, 1, 4, 0, 2]


def test_the_usual_shares():
    assert [t.k for t in tops(range(729), range(729))] == [1, 4, 7, 36, 73, 146, 364]
    assert [t.k for t in tops(range(30), range(30))] == [1, 2, 3, 6, 15]  # each k once, none of 0
    assert [t.k for t in tops([1.0], [1.0])] == [1]
    assert [t.k for t in tops(range(9), range(9), (2, 5))] == [2, 5]
    assert len(SHARES) == 7


def test_undefined_within_the_top_says_why():
    assert tau_within(PRED, TRUE, 0.25, "truth").reason == "tau-b needs 3 architectures, got 2"
    flat = tau_within([0.0] * 8, TRUE, 0.5, "truth")
    assert np.isnan(flat.value)
    assert "scores of the top 0.5 are all equal" in flat.reason
    assert "true values" in tau_within(PRED, [1.0] * 8, 1.0, "truth").reason


def test_probability_to_surpass_random_search():
    assert psr(TRUE, 92.0, 2) == pytest.approx((6 / 8) ** 2)
    assert psr(TRUE, 93.0, 50) == 1.0
    rng = np.random.default_rng(2)
    best = rng.choice(TRUE, (20000, 3)).max(axis=1)
    assert psr(TRUE, 92.0, 3) == pytest.approx(np.mean(best <= 92.0), abs=0.012)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_k([1.0, np.nan], [1.0, 2.0], 1), r"e has NaN at positions \[1\]"),
        (lambda: top_k([1.0, 2.0], [np.inf, 2.0], 1), r"f has NaN or infinite values at positions \[0\]"),
        (lambda: top_k([1.0], [1.0, 2.0], 1), "e has 1 architectures, f has 2"),
        (lambda: top_k([1.0, 2.0], [1.0, 2.0], 3), "k must lie between 1 and 2, got 3"),
        (lambda: top_k([1.0, 2.0], [1.0, 2.0], 0), "k must lie between 1 and 2, got 0"),
        (lambda: tops([], []), "no architecture"),
        (lambda: tau_within([1.0], [1.0], 0.0, "truth"), "share must lie in"),
        (lambda: psr([], 1.0, 1), "needs architectures"),
        (lambda: psr([1.0], np.nan, 1), "found has NaN"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
