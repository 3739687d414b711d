"""The statistics of the gate: known answers, and what its tests promise about errors."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nasbed.harness.gate_looks import Rules, judge, spending

# From the closed form with scipy.stats.norm.
OBRIEN_FLEMING = {
    0.005: (7.65569955549385e-08, 0.0002901565645864431, 0.004709766878417998),
    0.05: (0.00017469927144552247, 0.011221719193867635, 0.03860358153468679),
}
NEW = [[0.02, 0.0, 0.05, 0.03, 0.01], [0.0, 0.04, 0.02, 0.02]]
BASE = [[0.0, 0.01, 0.0, 0.02, 0.01, 0.0], [0.01, 0.0, 0.0, 0.03]]


def arrays(tables):
    return [np.array(t) for t in tables]


@pytest.mark.parametrize("alpha", OBRIEN_FLEMING)
def test_levels_of_the_looks(alpha):
    assert spending(alpha, (20, 50, 100), 200) == pytest.approx(OBRIEN_FLEMING[alpha], abs=1e-12)


@given(
    st.floats(1e-6, 0.4),
    st.lists(st.integers(5, 400), min_size=1, max_size=5, unique=True).map(sorted),
    st.integers(100, 2000),
)
def test_levels_are_spent_once(alpha, looks, recorded):
    levels = spending(alpha, looks, recorded)
    assert sum(levels) == pytest.approx(alpha, rel=1e-9)
    assert all(level >= 0 for level in levels)
    z = stats.norm.isf(alpha / 2)
    first = looks[0] * recorded / (looks[0] + recorded) / (looks[-1] * recorded / (looks[-1] + recorded))
    assert levels[0] == pytest.approx(2 * stats.norm.sf(z / sqrt(first)), rel=1e-6, abs=1e-300)


def test_the_tests_are_those_of_the_known_answers():
    look = judge({"m": arrays(NEW)}, {"m": arrays(BASE)}, 0, Rules(looks=(5,)))
    [test] = look.metrics
    assert test.theta == pytest.approx(0.7270833333333333, abs=1e-12)
    assert test.p_worse == pytest.approx(0.041661227398251476, abs=1e-12)
    assert test.p_better == pytest.approx(1 - 0.041661227398251476, abs=1e-12)
    se = 0.13391798899990165
    assert (test.low, test.high) == pytest.approx(
        (0.7270833333 - 1.959964 * se, 0.7270833333 + 1.959964 * se), abs=1e-6
    )
    assert test.bound == pytest.approx(0.7270833333 + 1.6448536 * se, abs=1e-6)
    assert (test.expected, test.got) == pytest.approx((np.mean([4 / 600, 0.01]), np.mean([0.022, 0.02])))
    assert (look.outcome, look.fail_level, look.pass_level) == (None, pytest.approx(0.01), pytest.approx(0.05))


def normal(rng, shift, n, tables=3):
    return [rng.normal(shift, 1.0, n) for _ in range(tables)]


def both(a, b):
    return {"regret_final": a, "late_area": b}


def test_alpha_is_split_over_metrics_and_strategies():
    rng = np.random.default_rng(0)
    data = both(normal(rng, 0, 100), normal(rng, 0, 100))
    look = judge(data, data, 0, Rules(alpha=0.01, looks=(100,), strategies=5))
    assert look.fail_level == pytest.approx(0.001)
    assert look.pass_level == pytest.approx(0.05)


def test_either_metric_fails_and_only_both_pass():
    rng = np.random.default_rng(1)
    base = both(normal(rng, 0, 200), normal(rng, 0, 200))
    same, bad = normal(rng, 0, 100), normal(rng, 1, 100)
    rules = Rules(looks=(100,))
    assert judge(both(same, same), base, 0, rules).outcome == "pass"
    assert judge(both(same, bad), base, 0, rules).outcome == "fail"
    assert judge(both(bad, same), base, 0, rules).outcome == "fail"
    better, doubtful = normal(rng, -1, 100), normal(np.random.default_rng(2), 0.1, 100)
    strict = Rules(looks=(100,), margin=0.52)
    assert judge(both(better, better), base, 0, strict).outcome == "pass"
    assert judge(both(better, doubtful), base, 0, strict).outcome is None
    assert judge(both(doubtful, better), base, 0, strict).outcome is None


def test_the_fail_test_is_read_first():
    # A small and certain loss: above every doubt, and below the margin.
    rng = np.random.default_rng(3)
    base, new = normal(rng, 0, 2000), normal(rng, 0.25, 2000)
    look = judge(both(new, new), both(base, base), 0, Rules(looks=(2000,), margin=0.65))
    assert look.metrics[0].bound < 0.65
    assert look.outcome == "fail"


def test_an_improvement_is_said_and_passes():
    rng = np.random.default_rng(4)
    base, new = normal(rng, 0, 200), normal(rng, -1, 100)
    look = judge(both(new, new), both(base, base), 0, Rules(looks=(100,)))
    assert (look.outcome, look.improved) == ("pass", True)
    assert not judge(both(base, base), both(base, base), 0, Rules(looks=(100,))).improved


def test_runs_that_all_find_the_optimum_pass():
    nothing = [np.zeros(200)]
    look = judge(both([np.zeros(20)], [np.zeros(20)]), both(nothing, nothing), 0, Rules())
    assert (look.outcome, look.improved) == ("pass", False)
    worse = judge(both([np.ones(20)], [np.ones(20)]), both(nothing, nothing), 0, Rules(looks=(20,)))
    assert worse.outcome == "fail"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 0.0}, "alpha: 0.0"), ({"alpha": 0.7}, "alpha: 0.7"), ({"pass_alpha": float("nan")}, "pass_alpha"),
        ({"margin": 0.5}, "margin: 0.5"), ({"margin": 1.0}, "margin: 1.0"), ({"looks": ()}, "looks"),
        ({"looks": (4, 20)}, "looks"), ({"looks": (20, 20)}, "looks"), ({"looks": (50, 20)}, "looks"),
    ],
)  # fmt: skip
def test_rules_that_mean_nothing(wrong, message):
    with pytest.raises(ValueError, match=message):
        Rules(**wrong)


def outcomes(theta, repeats, rules, seed, tables=3):
    """Shares of fail, pass and undecided at a true theta, and seeds used; every check has a baseline of its own."""
    rng, shift = np.random.default_rng(seed), sqrt(2) * NormalDist().inv_cdf(theta)
    found, used = [], []
    for _ in range(repeats):
        base = both(normal(rng, 0, 200, tables), normal(rng, 0, 200, tables))
        new = both(*(normal(rng, shift, rules.looks[-1], tables) for _ in range(2)))
        outcome = None
        for k, n in enumerate(rules.looks):
            outcome = judge({m: [x[:n] for x in v] for m, v in new.items()}, base, k, rules).outcome
            if outcome:
                break
        found.append(outcome)
        used.append(n)
    return [found.count(o) / repeats for o in ("fail", "pass", None)], np.mean(used)


@pytest.mark.parametrize(
    "rules", [Rules(margin=0.65), Rules(margin=0.65, looks=(20,))], ids=["three looks", "one look"]
)
def test_errors_are_kept_and_regressions_found(rules):
    (alarms, passed, _), seeds = outcomes(0.5, 100, rules, 0)
    assert alarms <= 0.03
    assert passed > 0.9
    assert seeds < 60
    (found, _, _), _ = outcomes(0.70, 100, rules, 1)
    assert found >= 0.9
    (_, wrongly, _), _ = outcomes(rules.margin, 100, rules, 2)
    assert wrongly <= 0.1


@pytest.mark.slow
def test_errors_in_many_repetitions():
    """False alarms at most 1 % and wrong passes at most 5 %, with their sampling errors of three deviations."""
    (alarms, _, _), _ = outcomes(0.5, 2000, Rules(), 10)
    assert alarms <= 0.01 + 3 * sqrt(0.01 * 0.99 / 2000)
    (_, wrongly, _), _ = outcomes(Rules().margin, 2000, Rules(), 11)
    assert wrongly <= 0.05 + 3 * sqrt(0.05 * 0.95 / 2000)
    (found, _, _), _ = outcomes(0.70, 1000, Rules(), 12)
    assert found >= 0.95
