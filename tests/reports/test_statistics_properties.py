"""Properties that hold for all inputs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from nasbed.reports import statistics as st

settings.register_profile("statistics", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("statistics")

unit = hs.floats(0.0, 1.0)
sample = hs.lists(hs.integers(0, 8).map(lambda i: i / 8), min_size=1, max_size=9)
seeds = hs.lists(unit, min_size=3, max_size=9)
tables = hs.lists(hs.tuples(sample, sample), min_size=1, max_size=4)


@given(sample, sample)
def test_a12_of_both_orders_sums_to_one(x: list[float], y: list[float]) -> None:
    assert st.a12(x, y) + st.a12(y, x) == pytest.approx(1.0, abs=1e-15)
    pairs = [(a > b) + 0.5 * (a == b) for a in x for b in y]
    assert st.a12(x, y) == pytest.approx(np.mean(pairs), abs=1e-12)


@given(tables)
def test_van_elteren_and_theta_are_antisymmetric(pairs: list[tuple[list[float], list[float]]]) -> None:
    new, base = [x for x, _ in pairs], [y for _, y in pairs]
    here, there = st.van_elteren(new, base), st.van_elteren(base, new)
    assert here.z == pytest.approx(-there.z, abs=1e-9)
    assert here.p == pytest.approx(there.p, abs=1e-9)
    assert 0.0 <= here.p <= 1.0
    worse, better = st.van_elteren(new, base, "greater"), st.van_elteren(base, new, "less")
    assert worse.p == pytest.approx(better.p, abs=1e-9)
    assert st.theta_se(new, base).theta + st.theta_se(base, new).theta == pytest.approx(1.0, abs=1e-12)


@given(tables)
def test_van_elteren_sees_only_the_order(pairs: list[tuple[list[float], list[float]]]) -> None:
    new, base = [np.array(x) for x, _ in pairs], [np.array(y) for _, y in pairs]
    stretched = st.van_elteren([np.exp(3 * x) for x in new], [np.exp(3 * y) for y in base])
    assert stretched == st.van_elteren(new, base)


@given(hs.lists(hs.tuples(hs.floats(0.1, 10.0), unit, unit), min_size=0, max_size=12), unit)
def test_anytime_area_is_bounded_and_monotone(steps: list[tuple[float, float, float]], rise: float) -> None:
    cost = np.cumsum([s[0] for s in steps])
    regret = np.array([s[1] for s in steps])
    higher = np.minimum(regret + rise * np.array([s[2] for s in steps]), 1.0)
    for log in (True, False):
        low, high = (st.anytime_area(cost, r, 1.0, 30.0, log=log) for r in (regret, higher))
        assert -1e-12 <= low <= high + 1e-12 <= 1.0 + 2e-12


@given(hs.lists(unit, max_size=12))
def test_holm_never_lowers_and_keeps_the_order(p: list[float]) -> None:
    adjusted = st.holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= 1.0).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    if p:
        assert adjusted.min() == pytest.approx(min(1.0, len(p) * min(p)))


@given(hs.lists(seeds, min_size=1, max_size=3), hs.integers(0, 2**32 - 1))
def test_intervals_contain_the_estimate(X: list[list[float]], seed: int) -> None:
    Y = [x[::-1] for x in X]
    rng = np.random.default_rng(seed)
    for interval in (
        st.bootstrap_mean(X, resamples=200, rng=rng),
        st.bootstrap_difference(X, Y, paired=True, resamples=200, rng=rng),
        st.bootstrap_difference(X, Y, paired=False, resamples=200, rng=rng),
        st.t_interval(X),
        st.t_difference(X, Y, paired=True),
        st.t_difference(X, Y, paired=False),
        st.theta_interval(X, Y),
    ):
        assert interval.low <= interval.estimate <= interval.high
        json.dumps(interval.to_dict(), allow_nan=False)


@given(hs.lists(hs.tuples(unit, unit, hs.floats(0.0, 5.0)), min_size=1, max_size=12))
def test_incumbent_is_the_first_best_seen(evaluations: list[tuple[float, float, float]]) -> None:
    seen, reported, cost = (list(column) for column in zip(*evaluations, strict=True))
    cum_cost, value = st.incumbent_curve(cost, seen, reported)
    for i in range(len(seen)):
        assert value[i] == reported[seen.index(max(seen[: i + 1]))]
    assert cum_cost == pytest.approx(np.cumsum(cost))


@given(hs.lists(hs.tuples(hs.floats(0.1, 5.0), unit), min_size=1, max_size=12), unit)
def test_runtime_to_target_is_where_the_curve_first_is_low_enough(
    steps: list[tuple[float, float]], target: float
) -> None:
    cost, regret = np.cumsum([s[0] for s in steps]), [s[1] for s in steps]
    runtime = st.runtime_to_target(cost, regret, target)
    reached = [c for c, r in zip(cost, regret, strict=True) if r <= target]
    assert runtime == (reached[0] if reached else np.inf)
    assert st.ecdf_runtimes([runtime], cost).tolist() == [float(runtime <= c) for c in cost]


@given(hs.lists(unit, min_size=1, max_size=20), hs.lists(unit, min_size=1, max_size=5))
def test_profile_is_the_share_at_or_under_tau(nr: list[float], taus: list[float]) -> None:
    expected = [np.mean([r <= tau for r in nr]) for tau in taus]
    assert st.performance_profile(nr, taus) == pytest.approx(expected)
    assert st.fail_rate(nr) == pytest.approx(1.0 - st.performance_profile(nr, [0.5])[0])


@given(hs.integers(2, 5), hs.integers(3, 9), hs.integers(0, 2**32 - 1))
def test_signed_rank_is_symmetric_and_a_probability(low: int, n: int, seed: int) -> None:
    d = np.random.default_rng(seed).integers(-low, low + 1, n).astype(float)
    assert st.signed_rank(d) == st.signed_rank(-d)
    assert 0.5 ** (n - 1) <= st.signed_rank(d) <= 1.0
