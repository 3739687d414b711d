"""Refusals, undefined statistics and verdicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nasbed.reports import statistics as st

NAN = float("nan")
RNG = np.random.default_rng(0)
BAD = [0.1, NAN, 0.3, NAN]
GOOD = [0.1, 0.2, 0.3, 0.4]

REFUSING: dict[str, Callable[[list[float]], Any]] = {
    "incumbent_curve": lambda x: st.incumbent_curve(GOOD, x, GOOD),
    "anytime_area": lambda x: st.anytime_area(GOOD, x, 1, 2),
    "step_values": lambda x: st.step_values(GOOD, x, GOOD, 1.0),
    "runtime_to_target": lambda x: st.runtime_to_target(GOOD, x, 0.1),
    "ert": lambda x: st.ert(x, [0, 1, 0, 1]),
    "ecdf_runtimes": lambda x: st.ecdf_runtimes(x, GOOD),
    "performance_profile": lambda x: st.performance_profile(x, GOOD),
    "normalised_regret": lambda x: st.normalised_regret(x, 1.0, 0.5),
    "iqm": st.iqm,
    "a12": lambda x: st.a12(GOOD, x),
    "poi": lambda x: st.poi([GOOD, x], [GOOD, GOOD]),
    "theta_se": lambda x: st.theta_se([GOOD], [x]),
    "fail_rate": st.fail_rate,
    "optimality_gap": st.optimality_gap,
    "bootstrap_mean": lambda x: st.bootstrap_mean([x], resamples=100, rng=RNG),
    "mean_interval": lambda x: st.mean_interval([GOOD, x], resamples=100, rng=RNG),
    "difference_interval": lambda x: st.difference_interval([GOOD], [x], paired=True, resamples=100, rng=RNG),
    "t_interval": lambda x: st.t_interval([x]),
    "van_elteren": lambda x: st.van_elteren([x], [GOOD]),
    "holm": st.holm,
    "signed_rank": st.signed_rank,
    "bayes_signed_rank": lambda x: st.bayes_signed_rank(x, 0.1, 10, RNG),
    "cliques": lambda x: st.cliques(x, np.zeros((4, 4))),
    "pairing_correlation": lambda x: st.pairing_correlation([x], [GOOD]),
}


@pytest.mark.parametrize("name", REFUSING)
def test_nan_is_refused_by_position(name: str) -> None:
    REFUSING[name]([0.4, 0.1, 0.3, 0.2])
    with pytest.raises(ValueError, match=r"NaN.*positions \[1, 3\]"):
        REFUSING[name](BAD)


@pytest.mark.parametrize("function", [st.friedman, st.wilcoxon_holm, st.nemenyi_p])
def test_nan_in_a_matrix_is_refused_by_row_and_column(function: Callable[[Any], Any]) -> None:
    losses = np.arange(12.0).reshape(4, 3)
    losses[2, 1] = NAN
    with pytest.raises(ValueError, match=r"\[\(2, 1\)\]"):
        function(losses)


def test_nan_names_its_table() -> None:
    with pytest.raises(ValueError, match=r"base\[table 1\]"):
        st.van_elteren([GOOD, GOOD], [GOOD, BAD])


def test_a_matrix_is_refused_because_its_axes_are_ambiguous() -> None:
    with pytest.raises(TypeError, match=r"list\(X\.T\)"):
        st.t_interval(np.zeros((5, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: st.poi([GOOD], [GOOD, GOOD]), "1 tables"),
        (lambda: st.t_difference([GOOD], [GOOD[:3]], paired=True), "4 and 3 seeds"),
        (lambda: st.t_interval([]), "no table"),
        (lambda: st.t_interval([GOOD, []]), r"table 1\] has no value"),
        (lambda: st.t_interval([GOOD], level=1.0), "level"),
        (lambda: st.bootstrap_mean([GOOD], resamples=99, rng=RNG), "100 resamples"),
        (lambda: st.bootstrap_band([np.zeros((4, 2)), np.zeros((4, 3))], resamples=100, rng=RNG), "one grid"),
        (lambda: st.anytime_area([1, 2], [0, 0], 0.0, 1.0), "t0 > 0"),
        (lambda: st.anytime_area([1, 2], [0, 0], 2.0, 1.0), "t0 < t1"),
        (lambda: st.step_values([2, 1], [0, 0], [1], 1.0), "decreases"),
        (lambda: st.incumbent_curve([1, -1], [0, 0], [0, 0]), r"negative at positions \[1\]"),
        (lambda: st.incumbent_curve([1, 1], [0, 0], [0]), "lengths differ"),
        (lambda: st.ert([], []), "at least one run"),
        (lambda: st.ert([1.0], [0.5]), "0 and 1"),
        (lambda: st.normalised_regret([0.1], 0.5, 0.5), "not above"),
        (lambda: st.relative_improvement([0.1], 0.0), "positive"),
        (lambda: st.iqm([]), "no value"),
        (lambda: st.cliffs_label(1.5), "lies in"),
        (lambda: st.van_elteren([GOOD], [GOOD], "bigger"), "alternative"),  # type: ignore[arg-type]
        (lambda: st.holm([0.1, 1.1]), r"positions \[1\]"),
        (lambda: st.friedman(np.zeros((4, 1))), "2 strategies"),
        (lambda: st.nemenyi_cd(1, 5), "2 strategies"),
        (lambda: st.min_tables(1), "2 strategies"),
        (lambda: st.cliques([1, 2], [[0, 1], [0, 0]]), "symmetric"),
        (lambda: st.bayes_signed_rank(GOOD, -1.0, 10, RNG), "rope"),
        (lambda: st.paired_t_sample_size(0.0), "other than 0"),
        (lambda: st.plan_seeds([GOOD], [GOOD], [1], repeats=1, rng=RNG), "sizes >= 2"),
    ],
)
def test_misuse_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("result", "fields"),
    [
        (st.t_interval([[1.0, 2.0]]), ["low", "high"]),
        (st.t_difference([[1.0]], [[1.0]], paired=False), ["low", "high"]),
        (st.bootstrap_mean([[1.0, 2.0]], resamples=100, rng=RNG), ["low", "high"]),
        (st.theta_se([[1.0, 2.0]], [GOOD]), ["se"]),
        (st.theta_interval([[1.0, 2.0]], [GOOD]), ["low", "high"]),
        (st.friedman([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), ["chi2", "p", "F", "pF"]),
        (st.friedman(np.ones((5, 3))), ["chi2", "p", "F", "pF"]),
        (st.bayes_signed_rank([0.1, 0.2], 0.1, 10, RNG), ["below", "inside", "above"]),
        (st.pairing_correlation([[1.0, 1.0, 1.0]], [[1.0, 2.0, 3.0]]), ["value"]),
        (st.pairing_correlation([[1.0, 2.0]], [[1.0, 2.0]]), ["value"]),
    ],
)
def test_undefined_is_nan_with_a_reason_and_null_in_json(result: st.Result, fields: list[str]) -> None:
    as_dict = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert as_dict["reason"]
    for field in fields:
        assert np.isnan(getattr(result, field))
        assert as_dict[field] is None


def test_all_ties_are_no_evidence() -> None:
    """Warnings are errors in this suite, so the zero variance is also handled silently."""
    for alternative in ("two-sided", "greater", "less"):
        found = st.van_elteren([[0.0] * 5, [1.0] * 5], [[0.0] * 5, [1.0] * 4], alternative)
        assert (found.z, found.p) == (0.0, 1.0)
        assert found.reason
    mixed = st.van_elteren([[0.0] * 5, GOOD], [[0.0] * 5, GOOD[:3]])
    alone = st.van_elteren([GOOD], [GOOD[:3]])
    assert (mixed.z, mixed.p) == (alone.z, alone.p)


def test_zero_variance_is_said() -> None:
    for n in (5, 25):
        found = st.mean_interval([[0.0] * n, [1.0] * n], resamples=100, rng=RNG)
        assert (found.low, found.estimate, found.high) == (0.5, 0.5, 0.5)
        assert "no variance" in found.reason
    separated = st.theta_se([[2.0, 2.1, 2.2]], [[0.0, 0.1, 0.2]])
    assert (separated.theta, separated.se) == (1.0, 0.0)
    assert "variance" in separated.reason


def test_infinity_is_a_string_in_json() -> None:
    found = st.friedman([[1.0, 2.0, 3.0]] * 4)
    assert found.to_dict()["F"] == "inf"
    assert found.to_dict()["mean_ranks"] == [1.0, 2.0, 3.0]


def test_oracle_incumbent_is_impossible() -> None:
    """The reported score never decides, and the curve may fall."""
    _, value = st.incumbent_curve([1, 1, 1], [0.1, 0.2, 0.2], [0.9, 0.3, 1.0])
    assert value.tolist() == [0.9, 0.3, 0.3]


def test_a_higher_fidelity_takes_over_and_a_lower_one_never_does() -> None:
    _, value = st.incumbent_curve([1] * 4, [0.9, 0.5, 0.99, 0.6], [1, 2, 3, 4], fidelity=[1, 3, 1, 3])
    assert value.tolist() == [1, 2, 2, 4]


def test_step_values_are_right_continuous() -> None:
    read = st.step_values([10, 20, 20], [0.4, 0.3, 0.2], [9.999, 10, 19.999, 20, 99], before=1.0)
    assert read.tolist() == [1.0, 0.4, 0.4, 0.2, 0.2]
    assert st.step_values([], [], [1.0], before=0.7).tolist() == [0.7]
    assert st.anytime_area([], [], 1.0, 10.0, r0=0.6) == pytest.approx(0.6)


def test_scalars_of_regret() -> None:
    assert st.normalised_regret([0.95, 0.9, 0.8, 0.99], 0.95, 0.85) == pytest.approx([0.0, 0.5, 1.0, 0.0])
    assert st.relative_improvement([0.9], 0.8) == pytest.approx([12.5])
    assert st.optimality_gap([0.0, 0.5, 3.0]) == pytest.approx(0.5)
    assert st.fail_rate([0.5, 0.51, 0.0, 1.0]) == 0.5


@pytest.mark.parametrize(
    ("delta", "label"),
    [(0.0, "negligible"), (-0.147, "small"), (0.32, "small"), (0.33, "medium"), (-0.474, "large"), (1.0, "large")],
)
def test_cliffs_labels(delta: float, label: str) -> None:
    assert st.cliffs_label(delta) == label


def test_too_few_tables_are_said_not_shrugged_off() -> None:
    losses = np.column_stack([np.arange(7.0), np.arange(7.0) + 1, np.arange(7.0) - np.arange(7) - 1])
    assert "need at least 7" in st.wilcoxon_holm(losses[:6]).reason
    assert not st.wilcoxon_holm(losses[:6]).significant().any()
    enough = st.wilcoxon_holm(losses)
    assert not enough.reason
    expected = ~np.eye(3, dtype=bool)
    np.testing.assert_array_equal(enough.significant(), expected)


def interval(low: float, high: float) -> st.Interval:
    return st.Interval((low + high) / 2, low, high, 0.95, "t", 10)


@pytest.mark.parametrize(
    ("low", "high", "p", "word"),
    [
        (-0.30, -0.10, 0.01, "better"),
        (0.10, 0.30, 0.01, "worse"),
        (-0.30, -0.10, 0.05, "undecided"),  # p must be below alpha
        (-0.30, 0.00, 0.01, "undecided"),  # the interval must exclude 0
        (0.00, 0.30, 0.01, "undecided"),
        (-0.01, 0.01, 0.90, "equivalent"),
        (-0.02, 0.02, 0.90, "equivalent"),  # the edge belongs to the region
        (-0.015, -0.005, 0.001, "equivalent"),  # significant, and too small to matter
        (-0.03, 0.01, 0.90, "undecided"),
        (-0.03, -0.01, 0.001, "better"),  # partly outside the region
        (NAN, NAN, 0.001, "undecided"),
    ],
)
def test_verdict(low: float, high: float, p: float, word: str) -> None:
    assert st.verdict(interval(low, high), p, rope=0.02) == word


@pytest.mark.parametrize(
    ("p", "rope", "alpha"), [(NAN, 0.0, 0.05), (1.1, 0.0, 0.05), (0.5, -1.0, 0.05), (0.5, 0.0, 1.0)]
)
def test_verdict_refuses_nonsense(p: float, rope: float, alpha: float) -> None:
    with pytest.raises(ValueError, match="must"):
        st.verdict(interval(0.0, 1.0), p, rope, alpha)


def test_results_are_frozen() -> None:
    with pytest.raises(AttributeError):
        interval(0.0, 1.0).low = 2.0  # type: ignore[misc]
    assert not hasattr(interval(0.0, 1.0), "__dict__")


def test_import_does_not_pay_for_scipy() -> None:
    code = "import sys, nasbed.reports.statistics; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
