"""Rank correlations of a thousand resamples against scipy, and all intervals of thirty estimators against the clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import stats

from nasbed.reports.audit import correlation, kernels

ROWS, RESAMPLES = 15_625, 1_000
SCIPY = {"tau_b": stats.kendalltau, "spearman": stats.spearmanr}


@pytest.fixture(scope="module")
def columns():
    """Scores and accuracies of 10,000 test images, of the size of NAS-Bench-201; the accuracies have ties."""
    rng = np.random.default_rng(0)
    truth = np.round(0.9 - 0.05 * rng.beta(2.0, 6.0, ROWS), 4)
    return truth + rng.normal(0.0, 0.01, ROWS), truth


@pytest.mark.parametrize(("name", "goal"), [("tau_b", 15), ("spearman", 30)])
def test_resamples_against_scipy(name, goal, columns, by_turns, median_ratio):
    x, y = columns
    counts = correlation.draw_counts(ROWS, RESAMPLES, np.random.default_rng(1))
    expanded = [(np.repeat(x, row), np.repeat(y, row)) for row in counts[: kernels.LANES]]
    found = kernels.resampled(x, y, counts, (name,))[name]
    expected = [SCIPY[name](*pair).statistic for pair in expanded]
    error = float(np.abs(found[: kernels.LANES] - expected).max())
    ours, theirs = by_turns(
        lambda: kernels.resampled(x, y, counts, (name,)), lambda: [SCIPY[name](*p) for p in expanded], repeats=7
    )
    ratio = RESAMPLES / kernels.LANES * median_ratio(theirs, ours)
    each = [1e3 * float(np.median(t)) / n for t, n in ((ours, len(counts)), (theirs, kernels.LANES))]
    print(
        f"\n{name}: {each[0]:.3f} ms a resample, scipy {each[1]:.2f} ms: {ratio:.1f} times (goal >= {goal}), ", end=""
    )
    print(f"error {error:.1e}")
    assert error <= 1e-12
    assert ratio >= goal


@pytest.mark.slow
@pytest.mark.parametrize(("complete", "goal"), [(False, 40), (True, 60)])
def test_thirty_estimators_within_a_minute(complete, goal, columns):
    # Three are measured: the rest of the thirty would take as long each. Resampled trainings change the order of the
    # truth, so that resamples cannot walk side by side: they have another goal.
    x, y = columns
    rng = np.random.default_rng(2)
    values = np.round(y[:, None] + rng.normal(0.0, 0.002, (ROWS, 3)), 4)
    use = np.ones((ROWS, 1), bool)
    correlation.interval_correlations(
        x[:99, None], use[:99], values[:99],
        correlation.draw(values[:99], complete=complete, resamples=100, rng=rng), accuracy_scale=True, rng=rng,
    )  # fmt: skip
    marks = [time.process_time()]
    draws = correlation.draw(values, complete=complete, resamples=RESAMPLES, rng=rng)
    marks.append(time.process_time())
    for noise in (0.0, 0.002, 0.01):
        scores = x[:, None] + rng.normal(0.0, noise, (ROWS, 1))
        correlation.interval_correlations(scores, use, values, draws, accuracy_scale=True, rng=rng)
        marks.append(time.process_time())
    once, each = marks[1] - marks[0], (marks[-1] - marks[1]) / 3
    total = once + 30 * each
    print(f"\n30 x {ROWS:,} x {RESAMPLES:,}, {'seeds' if complete else 'architectures'}: {once:.1f} s once, ", end="")
    print(f"{each:.2f} s an estimator, {total:.0f} s in all (goal <= {goal})")
    assert total <= goal


WHOLE = """
import resource, sys, time
import numpy as np
from nasbed.protocols import Traits
from nasbed.protocols.evidence import Scores, Truth
from nasbed.reports.audit.audit import audit_table
from nasbed.reports.audit.results import Settings

rows, estimators, resamples, complete = 15_625, int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "complete"
rng = np.random.default_rng(0)
params = rng.gamma(4.0, 1000.0, rows).round()
quality = np.round(0.9 - 0.05 * rng.beta(2.0, 6.0, rows) + 0.01 * np.log(params / 4000), 4)
truth = Truth(
    "large", "digest", "synthetic", "base", "accuracy", True, "flops", complete, rows,
    tuple(map(str, range(rows))), np.round(quality[:, None] + rng.normal(0.0, 0.003, (rows, 3)), 4), (0, 1, 2),
    np.ones(rows), {"params": params, **{f"n_{k}": rng.integers(0, 6, rows).astype(float) for k in range(5)}},
)
scores = [
    Scores(
        f"e{i}", "made", Traits(False, True), (quality + rng.normal(0.0, 0.01, rows))[:, None], np.ones(rows, bool),
        np.zeros((rows, 1), bool), {}, np.ones((rows, 1)), np.zeros(1), "flops", 1.0,
    )
    for i in range(estimators)
]
audit_table(truth, scores[:1], Settings(resamples=100))  # compiles
started = time.process_time()
audit_table(truth, scores, Settings(resamples=resamples))
print(time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("coverage", "goal"), [("sample", 60), ("complete", 75)])
def test_a_full_audit_of_thirty_estimators(coverage, goal):
    # Of a whole space the trainings are resampled, which changes the order of the truth every time.
    command = [sys.executable, "-c", WHOLE, "30", "1000", coverage]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, env=dict(os.environ, OMP_NUM_THREADS="1")
    )
    seconds, gigabytes = map(float, answer.stdout.split())
    print(
        f"\n30 estimators x 15,625 x 1,000, {coverage}: {seconds:.0f} s (goal < {goal}), {gigabytes:.2f} GiB (goal < 2)"
    )
    assert gigabytes < 2.0
    assert seconds < goal
