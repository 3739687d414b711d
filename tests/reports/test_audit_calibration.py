"""Calibration of estimators on the scale of the metric."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from nasbed.reports.audit.calibration import NAMES, calibration
from nasbed.reports.audit.results import Calibration

RNG = np.random.default_rng(1)
TRUTH = 0.6 + 0.3 * RNG.random((300, 3))
F = TRUTH.mean(1)
COUNTS = RNG.multinomial(300, np.full(300, 1 / 300), 400)
USE = np.ones((300, 1), dtype=bool)


def of(e: np.ndarray, truth: np.ndarray = TRUTH, use: np.ndarray | None = None) -> Calibration:
    e = e[:, None] if e.ndim == 1 else e
    return calibration(e, np.ones(e.shape, bool) if use is None else use, truth, counts=COUNTS)


def test_a_constant_error_is_one_of_the_mean_alone() -> None:
    found = of(F - 0.05)
    assert found.mean_error.estimate == pytest.approx(-0.05)
    assert found.mean_error.low == pytest.approx(-0.05)
    assert (found.slope, found.intercept) == (pytest.approx(1), pytest.approx(0.05))
    assert (found.rmse, found.mae, found.spread) == (pytest.approx(0.05), pytest.approx(0.05), pytest.approx(1))
    assert (found.sd_error, found.cov_with_truth) == (pytest.approx(0, abs=1e-7), pytest.approx(0, abs=1e-12))
    assert found.n == 300


def test_a_compressed_scale_has_a_steep_slope() -> None:
    found = of(0.2 + 0.5 * F)
    assert (found.slope, found.intercept, found.spread) == (
        pytest.approx(2), pytest.approx(-0.4), pytest.approx(0.5),
    )  # fmt: skip
    assert found.cov_with_truth == pytest.approx(-0.5 * F.var())
    assert found.sd_error == pytest.approx(0.5 * F.std())


def test_numbers_are_those_of_scipy() -> None:
    e = 0.1 + 0.8 * F + RNG.normal(0, 0.03, 300)
    found = of(e)
    line = scipy.stats.linregress(e, F)
    assert (found.slope, found.intercept) == (pytest.approx(line.slope), pytest.approx(line.intercept))
    assert found.rmse == pytest.approx(math.sqrt(np.mean((e - F) ** 2)))
    assert found.mae == pytest.approx(np.abs(e - F).mean())
    assert found.cov_with_truth == pytest.approx(np.cov(e - F, F, bias=True)[0, 1])
    half = scipy.stats.sem(e - F) * 1.96
    assert found.mean_error.half_width == pytest.approx(half, rel=0.15)
    assert found.mean_error.low < found.mean_error.estimate < found.mean_error.high
    assert found.mean_error.method == "architectures"


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(-0.5, 0.5))
def test_errors_split_into_mean_and_spread(seed: int, move: float) -> None:
    e = F + np.random.default_rng(seed).normal(move, 0.05, 300)
    found = of(e)
    assert found.rmse**2 == pytest.approx(found.mean_error.estimate**2 + found.sd_error**2)
    assert found.mae <= found.rmse + 1e-12
    moved = of(e + 0.1)
    assert moved.mean_error.estimate == pytest.approx(found.mean_error.estimate + 0.1)
    assert (moved.sd_error, moved.slope) == (pytest.approx(found.sd_error), pytest.approx(found.slope))


def test_columns_are_averaged() -> None:
    e = F[:, None] + RNG.normal(0, 0.05, (300, 3)) + [-0.1, 0.0, 0.2]
    found, single = of(e), [of(e[:, k]) for k in range(3)]
    assert found.mean_error.estimate == pytest.approx(np.mean([s.mean_error.estimate for s in single]))
    for name in NAMES:
        assert getattr(found, name) == pytest.approx(np.mean([getattr(s, name) for s in single])), name


def test_only_what_was_scored_and_used_counts() -> None:
    e = F + RNG.normal(0, 0.05, 300)
    rows = np.arange(300) % 3 > 0
    unscored, use = np.where(rows, e, -np.inf), USE.copy()
    kept = calibration(e[rows, None], USE[rows], TRUTH[rows], counts=COUNTS[:, rows])
    assert of(unscored) == kept
    assert kept.n == 200
    use[~rows] = False
    assert of(np.where(rows, e, 7.0), use=use) == kept
    torn = np.where(rows[:, None], TRUTH, np.nan)
    assert of(unscored, torn) == kept


def test_missing_trainings_are_left_out_of_the_mean() -> None:
    torn = TRUTH.copy()
    torn[:100, 1:] = np.nan
    assert of(np.nanmean(torn, 1), torn).rmse == pytest.approx(0, abs=1e-12)


def test_what_is_undefined_has_a_reason() -> None:
    found = of(np.where(np.arange(300) < 2, F, -np.inf))
    assert found.n == 2
    assert found.mean_error.reason == "2 scored architectures; 3 are needed"
    assert all(math.isnan(getattr(found, name)) for name in NAMES)
    level = of(np.full(300, 0.5))
    assert math.isnan(level.slope)
    assert level.spread == pytest.approx(0, abs=1e-12)
    assert math.isnan(of(F, np.full((300, 1), 0.7)).spread)


def test_a_missing_truth_and_other_shapes_are_refused() -> None:
    torn = TRUTH.copy()
    torn[5] = np.nan
    with pytest.raises(ValueError, match=r"truth has NaN.*\[5\]"):
        of(F, torn)
    with pytest.raises(ValueError, match="differ"):
        of(F, TRUTH[:10])


def test_names_are_the_fields() -> None:
    assert {f.name for f in dataclasses.fields(Calibration)} == {*NAMES, "mean_error", "n"}
