"""Fidelity points and fronts against brute force, and on worlds with planted noise."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.stats import chisquare, kendalltau, spearmanr

from nasbed.protocols.estimator import Traits
from nasbed.protocols.evidence import Scores, Truth
from nasbed.reports.audit import fidelity as fi
from nasbed.reports.audit.results import FidelityPoint

N = 60


def truth(values: np.ndarray, *, higher: bool = True) -> Truth:
    n, s = values.shape
    names, cost = tuple(f"a{i}" for i in range(n)), np.full(n, 8.0)
    metric = "accuracy" if higher else "perplexity"
    return Truth("t", "d", "nb201", "base", metric, higher, "epochs", True, n, names, values, tuple(range(s)), cost, {})


def scores(values: np.ndarray, value: float = 2.0, **changes: Any) -> Scores:
    n, k = values.shape
    given: dict[str, Any] = {
        "name": f"fewer_epochs[epochs={value:g}]", "source": "", "traits": Traits(True, True), "values": values,
        "asked": np.ones(n, bool), "fitted": np.zeros((n, k), bool), "reasons": {},
        "costs": np.full((n, k), value), "preparation": np.zeros(k), "unit": "epochs", "full": 8.0,
        "axis": ("epochs", value),
    }  # fmt: skip
    return Scores(**(given | changes))


def points(estimates: list[Scores], of: Truth, seed: int = 0, **options: Any) -> tuple[FidelityPoint, ...]:
    return fi.fidelity_points(estimates, of, rng=np.random.default_rng(seed), **options)


def noisy(seed: int, n: int = N, S: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    Y = rng.normal(0.8, 0.05, (n, 1)) + rng.normal(0, 0.02, (n, S))
    return Y, Y + rng.normal(0, 0.05, (n, S))


def test_point_is_the_mean_of_scipy_over_columns() -> None:
    Y, E = noisy(0)
    (p,) = points([scores(E)], truth(Y))
    f = Y.mean(1)
    assert p.tau_b == pytest.approx(np.mean([kendalltau(e, f)[0] for e in E.T]))
    assert p.spearman == pytest.approx(np.mean([spearmanr(e, f)[0] for e in E.T]))
    assert p.disorder == pytest.approx((1 - p.tau_b) / 2)
    for k in (1, 5, 10):
        by_hand = [f.max() - f[sorted(range(N), key=lambda i, e=e: (-e[i], i))[:k]].max() for e in E.T]
        assert p.regret_at[k] == pytest.approx(np.mean(by_hand))
    assert (p.name, p.axis, p.value, p.cost) == ("fewer_epochs[epochs=2]", "epochs", 2.0, 0.25)


def test_the_truth_itself_is_perfect() -> None:
    Y, _ = noisy(1)
    (p,) = points([scores(np.repeat(Y.mean(1, keepdims=True), 2, axis=1))], truth(Y))
    assert (p.tau_b, p.disorder, p.crossing, p.switch_regret) == (1.0, 0.0, 0.0, 0.0)
    assert p.spearman == pytest.approx(1.0)
    assert set(p.regret_at.values()) == {0.0}
    (p,) = points([scores(-Y.mean(1, keepdims=True))], truth(Y))
    assert (p.tau_b, p.crossing) == (-1.0, 1.0)


@given(some.lists(some.tuples(some.integers(0, 4), some.integers(0, 6)), min_size=3, max_size=30))
@settings(max_examples=60, deadline=None)
def test_crossings_are_counted_by_pairs(pairs: list[tuple[int, int]]) -> None:
    e, f = np.array(pairs, float).T
    best = np.argsort(-f, kind="stable")[: max(2, round(0.5 * f.size))]
    found = [((e[i] - e[j]) * (f[i] - f[j]),) for i, j in combinations(best, 2) if f[i] != f[j]]
    rate = fi.crossing_rate(e, f, 0.5)
    if not found:
        assert np.isnan(rate)
    else:
        assert rate == pytest.approx(np.mean([1.0 if d < 0 else 0.5 if d == 0 else 0.0 for (d,) in found]))


def test_pools_are_uniform_subsets() -> None:
    drawn = np.sort(fi.draw_pools(29, 40_000, np.random.default_rng(0)), axis=1)
    assert drawn.shape == (40_000, 27)
    assert (np.diff(drawn, axis=1) > 0).all()
    left_out = [tuple(sorted(set(range(29)) - set(p))) for p in drawn[:20_000].tolist()]
    _, counts = np.unique(left_out, axis=0, return_counts=True)
    assert counts.size == 29 * 28 / 2
    assert chisquare(counts).pvalue > 0.001
    assert (np.sort(fi.draw_pools(5, 3, np.random.default_rng(0))) == np.arange(5)).all()


def test_switch_regret_by_brute_force() -> None:
    rng = np.random.default_rng(2)
    e, f = np.round(rng.normal(size=50), 1), rng.normal(size=50)
    pools = fi.draw_pools(50, 200, rng)
    lost = []
    for pool in pools.tolist():
        promoted = sorted(pool, key=lambda i: (-e[i], i))[:9]
        lost.append(max(f[pool]) - max(f[promoted]))
    assert fi.switch_regret(e, f, pools) == pytest.approx(np.mean(lost))
    assert np.mean(lost) > 0
    assert fi.switch_regret(f, f, pools) == 0


def test_no_score_ranks_last() -> None:
    Y, E = noisy(3)
    E -= 2.0  # below 0, which is not the last either
    gone = E.copy()
    gone[:7, 1] = np.nan
    last = E.copy()
    last[:7, 1] = -100.0
    (p,), (q,) = points([scores(gone)], truth(Y)), points([scores(last)], truth(Y))
    assert p == q
    assert p.tau_b < points([scores(E)], truth(Y))[0].tau_b


def test_losses_are_turned_round() -> None:
    Y, E = noisy(4)
    assert points([scores(E)], truth(-Y, higher=False)) == points([scores(E)], truth(Y))


def test_rows_that_are_left_out() -> None:
    Y, E = noisy(5)
    asked, fitted = np.arange(N) >= 10, np.zeros((N, 3), bool)
    fitted[50:, :] = True
    missing = Y.copy()
    missing[10:20] = np.nan
    (p,) = points([scores(E, asked=asked, fitted=fitted)], truth(missing))
    (q,) = points([scores(E[20:50])], truth(Y[20:50]))
    assert p == q


def test_noise_that_is_shared_with_the_truth() -> None:
    """Scores that know nothing but the noise of their own training look good until that training is left out."""
    rng = np.random.default_rng(6)
    noise = rng.normal(0, 0.05, (400, 3))
    Y = rng.normal(0.8, 0.05, (400, 1)) + noise
    (own,) = points([scores(noise)], truth(Y))
    (others,) = points([scores(noise)], truth(Y), others_only=True)
    assert own.tau_b > 0.15
    assert abs(others.tau_b) < 0.06
    target = np.mean([spearmanr(noise[:, k], np.delete(Y, k, 1).mean(1))[0] for k in range(3)])
    assert others.spearman == pytest.approx(target)


def test_the_other_seeds_of_a_ragged_table() -> None:
    """Column 0 is the training that an architecture has first, whichever seed that is."""
    Y, E = noisy(7)
    Y[:10, 0] = np.nan
    Y[10:15, 1:] = np.nan
    target = np.r_[Y[:10, 2], np.full(5, np.nan), Y[15:, 1:].mean(1)]
    np.testing.assert_allclose(fi._target(Y, 0, True), target)
    np.testing.assert_allclose(fi._target(Y, 1, True)[:10], Y[:10, 1])
    np.testing.assert_allclose(fi._target(Y, 3, True)[15:], target[15:])
    np.testing.assert_allclose(fi._target(Y, 0, False), np.nanmean(Y, axis=1))
    (p,) = points([scores(E[:, :1])], truth(Y), others_only=True)
    keep = ~np.isnan(target)
    assert p.tau_b == pytest.approx(kendalltau(E[keep, 0], target[keep])[0])


def test_points_are_ordered_and_do_not_depend_on_each_other() -> None:
    Y, E = noisy(8)
    epochs = [scores(E + d, value) for d, value in ((0.3, 4.0), (0.1, 1.0))]
    data = scores(E, 0.5, name="data_subset[share=0.5]", axis=("data", 0.5))
    found = points([*epochs, data, scores(E, name="synflow", axis=None)], truth(Y))
    assert [(p.axis, p.value) for p in found] == [("data", 0.5), ("epochs", 1.0), ("epochs", 4.0)]
    assert points([epochs[0]], truth(Y))[0] == found[2]
    assert found[1].switch_regret == found[2].switch_regret
    assert points([epochs[0]], truth(Y), seed=1)[0].switch_regret != found[2].switch_regret
    totals = fi.halving_totals(found)
    assert totals == {"data": found[0].switch_regret, "epochs": pytest.approx(2 * found[1].switch_regret)}


def test_what_is_undefined_or_unknown() -> None:
    Y, E = noisy(9)
    (p,) = points([scores(E, costs=None, asked=np.arange(N) < 2)], truth(Y))
    assert np.isnan([p.cost, p.tau_b, p.crossing, p.switch_regret, p.regret_at[1]]).all()
    (p,) = points([scores(np.ones_like(E))], truth(Y))
    assert np.isnan([p.tau_b, p.spearman]).all()
    assert p.crossing == 0.5
    (p,) = points([scores(E[:9])], truth(Y[:9]))
    assert p.regret_at[10] == 0.0
    diverged = Y.copy()
    diverged[3, 1] = np.inf
    with pytest.raises(ValueError, match="second training seed"):
        points([scores(E)], truth(Y[:, :1]), others_only=True)
    with pytest.raises(ValueError, match=r"truth has .*infinite.*\(3, 1\)"):
        points([scores(E)], truth(diverged))
    with pytest.raises(ValueError, match="9 rows, the truth 60"):
        points([scores(E[:9])], truth(Y))


def audit(name: str, answer: float, tau: float, regret: float, *, preparation: float = 0.0) -> Any:
    """What fronts read of an `EstimatorAudit`."""
    return SimpleNamespace(
        name=name, answer=answer, preparation=preparation, n=8, left_out=2,
        correlations={"tau_b": SimpleNamespace(estimate=tau)},
        tops=(SimpleNamespace(k=1, regret=9.0), SimpleNamespace(k=10, regret=regret)),
    )  # fmt: skip


def test_fronts() -> None:
    audits = [
        audit("full", 1.0, 0.9, 0.0), audit("half", 0.5, 0.7, 0.0), audit("dear", 0.6, 0.7, 0.01),
        audit("free", 0.0, 0.5, 0.02), audit("free_too", 0.0, 0.5, 0.02), audit("worse", 0.1, 0.4, 0.03),
        audit("unknown", float("nan"), 0.95, 0.0), audit("undefined", 0.1, float("nan"), 0.01),
        audit("supernet", 0.01, 0.8, 0.01, preparation=3.0),
    ]  # fmt: skip
    by_tau, by_regret = fi.fronts(audits)
    assert by_tau.quality == "tau_b"
    assert by_tau.front == ("free", "free_too", "supernet", "full")
    assert by_tau.costs[by_tau.names.index("supernet")] == pytest.approx(3.1)
    assert by_tau.costs[by_tau.names.index("full")] == 10.0
    assert by_regret.quality == "regret_at_10"
    assert by_regret.front == ("free", "free_too", "undefined", "half")
    assert by_regret.values[by_regret.names.index("worse")] == 0.03
    assert fi.unplaced(audits, by_tau) == ("unknown", "undefined")
    assert fi.unplaced(audits, by_regret) == ("unknown",)


@given(some.lists(some.tuples(some.integers(0, 5), some.integers(0, 5)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_front_is_what_nothing_dominates(found: list[tuple[int, int]]) -> None:
    audits = [audit(str(i), c, t, 0.0) for i, (c, t) in enumerate(found)]
    front = fi.fronts(audits)[0].front
    for i, (c, t) in enumerate(found):
        dominated = any((d < c and u >= t) or (d <= c and u > t) for d, u in found)
        assert (str(i) in front) == (not dominated)
    costs = [found[int(n)][0] for n in front]
    assert costs == sorted(costs)
