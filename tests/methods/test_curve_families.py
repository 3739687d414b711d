"""The parametric families of learning curves: formulas, derivatives, fits, and what is made of them."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest
from numpy import exp, log
from scipy.optimize import least_squares
from scipy.stats import norm

from nasbed.methods.estimators.curve_domhan import (
    Extrapolation,
    admissible,
    combine,
    cut_flat_start,
    fit_all,
    sample_posterior,
    stop,
)
from nasbed.methods.networks.curve_families import FAMILIES, Family, fit_family, recency_weights

BY_NAME = {f.name: f for f in FAMILIES}
FORMULAS = {
    "vap": lambda x, a, b, c: exp(a + b / x + c * log(x)),
    "ilog2": lambda x, a, c: c - a / log(x + 1),
    "weibull": lambda x, al, be, k, d: al - (al - be) * exp(-((k * x) ** d)),
    "pow3": lambda x, c, a, al: c - a * x**-al,
    "pow4": lambda x, c, a, b, al: c - (a * x + b) ** -al,
    "loglog_linear": lambda x, a, b: log(a * log(x) + b),
    "mmf": lambda x, al, be, k, d: al - (al - be) / (1 + (k * x) ** d),
    "janoschek": lambda x, a, be, k, d: a - (a - be) * exp(-k * x**d),
    "hill3": lambda x, th, et, ka: th * x**et / (ka**et + x**et),
    "log_power": lambda x, a, b, c: a / (1 + (x / exp(b)) ** c),
    "exp4": lambda x, c, a, b, al: c - exp(-a * x**al + b),
}
"""As the paper writes them, one by one."""
TRUE = {
    "vap": (-0.2, -1.2, 0.02),
    "ilog2": (0.43, 0.9),
    "weibull": (0.85, 0.2, 0.15, 0.9),
    "pow3": (0.9, 0.6, 0.8),
    "pow4": (0.9, 0.8, 0.7, 1.2),
    "loglog_linear": (0.2, 1.6),
    "mmf": (0.88, 0.2, 0.3, 1.3),
    "janoschek": (0.85, 0.1, 0.3, 0.8),
    "hill3": (0.9, 1.1, 1.5),
    "log_power": (0.9, 0.6, -1.1),
    "exp4": (0.85, 0.4, -0.3, 0.8),
}
X = np.arange(1.0, 31.0)
LAST = 100
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)


def noisy(n: int, k: int, noise: float = 0.005, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    c, a, alpha = (rng.uniform(low, high, (n, 1)) for low, high in ((0.6, 0.9), (0.2, 0.5), (0.3, 1.5)))
    return c - a * np.arange(1.0, k + 1) ** -alpha + rng.normal(0, noise, (n, k))


def test_there_are_eleven() -> None:
    assert list(BY_NAME) == list(FORMULAS)


@each_family
def test_values_are_those_of_the_formula(family: Family) -> None:
    for parameters in (TRUE[family.name], family.start):
        got = family(X, np.array([parameters, parameters]))
        np.testing.assert_allclose(got, np.tile(FORMULAS[family.name](X, *parameters), (2, 1)), rtol=1e-12, atol=1e-14)


@each_family
def test_derivatives_are_those_of_a_complex_step(family: Family) -> None:
    parameters = np.array(TRUE[family.name])
    _, jacobian = family.jacobian(X, parameters[None])
    for j in range(len(parameters)):
        shifted = parameters.astype(complex)
        shifted[j] += 1e-30j
        expected = np.imag(FORMULAS[family.name](X.astype(complex), *shifted)) / 1e-30
        np.testing.assert_allclose(jacobian[0, :, j], expected, rtol=1e-10, atol=1e-13)


@each_family
def test_a_noiseless_curve_is_recovered_by_its_own_family(family: Family) -> None:
    parameters = np.array([TRUE[family.name]])
    fitted, losses = fit_family(family, X, family(X, parameters))
    assert losses[0] < 1e-6
    at_end = np.array([float(LAST)])
    assert family(at_end, fitted)[0, 0] == pytest.approx(family(at_end, parameters)[0, 0], abs=0.005)


@each_family
def test_a_noiseless_curve_is_recovered_by_the_combination(family: Family) -> None:
    parameters = np.array([TRUE[family.name]])
    y = family(X, parameters)
    (found,) = combine(fit_all(X, y, LAST), X, y, LAST)
    assert found is not None
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert (found.weights >= 0).all()
    assert abs(found.mean - family(np.array([float(LAST)]), parameters)[0, 0]) < 0.005


@each_family
def test_fits_are_as_good_as_those_of_scipy(family: Family) -> None:
    y = noisy(2, 20)
    x = np.arange(1.0, 21.0)
    _, losses = fit_family(family, x, y)
    for i in range(len(y)):

        def residuals(p: np.ndarray, i: int = i) -> np.ndarray:
            return np.nan_to_num(family(x, p[None])[0] - y[i], nan=1e3, posinf=1e3, neginf=-1e3)

        best = min(
            2 * least_squares(residuals, start, method="lm", max_nfev=250).cost
            for start in (family.start, family.second)
            if start
        )
        assert losses[i] <= 1.25 * best + 1e-9


def test_weighted_fits_minimise_the_weighted_squares() -> None:
    x, y = np.arange(1.0, 11.0), noisy(1, 10, 0.02)
    weights = recency_weights(10)
    assert weights[0] == 1
    assert weights[5] == pytest.approx(10**0.5)
    family = BY_NAME["ilog2"]  # linear in its parameters, so that the answer is known
    fitted, losses = fit_family(family, x, y, weights)
    design = np.stack([-1 / np.log(x + 1), np.ones(10)], 1)
    root = np.sqrt(weights)
    expected, squares, *_ = np.linalg.lstsq(design * root[:, None], y[0] * root, rcond=None)
    np.testing.assert_allclose(fitted[0], expected, rtol=1e-5)
    assert losses[0] == pytest.approx(squares[0])


def test_a_curve_is_fitted_as_if_it_were_alone() -> None:
    x, y = np.arange(1.0, 13.0), noisy(7, 12)
    together = combine(fit_all(x, y, 40), x, y, 40)
    for i in (0, 3, 6):
        (alone,) = combine(fit_all(x, y[i : i + 1], 40), x, y[i : i + 1], 40)
        assert alone is not None
        assert together[i] is not None
        assert alone.mean == together[i].mean
        assert alone.sd == together[i].sd


def test_families_that_fall_or_leave_the_unit_interval_have_no_weight() -> None:
    pow3 = BY_NAME["pow3"]
    shapes = np.array([(0.9, 0.5, 0.8), (0.9, -0.5, 0.8), (1.2, 0.5, 0.8), (-0.1, 0.5, 0.8)])
    assert admissible(pow3, shapes, 50).tolist() == [True, False, False, False]
    # It ends higher than it starts, but falls in between.
    humped = Family("hump", lambda x, a: (0.5 + a * (x - 10.0) ** 2 / 1000, (x,)), (1.0,))
    assert admissible(humped, np.array([[1.0]]), 30).tolist() == [True]
    assert admissible(humped, np.array([[1.0]]), 30, "hard").tolist() == [False]
    falling = 0.9 - 0.05 * np.arange(8.0)[None]
    x = np.arange(1.0, 9.0)
    powers = [f for f in fit_all(x, falling, 30) if f.family.name in ("ilog2", "pow3")]
    assert len(powers) == 2
    assert combine(powers, x, falling, 30) == [None]


def test_the_mixture_has_the_moments_and_tails_of_its_parts() -> None:
    e = Extrapolation(np.array([0.25, 0.75]), np.array([0.4, 0.6]), np.array([0.1, 0.05]))
    rng = np.random.default_rng(0)
    part = rng.random(400_000) < 0.25
    draws = np.where(part, rng.normal(0.4, 0.1, part.shape), rng.normal(0.6, 0.05, part.shape))
    assert e.mean == pytest.approx(draws.mean(), abs=1e-3)
    assert e.sd == pytest.approx(draws.std(), abs=1e-3)
    assert e.above(0.55) == pytest.approx((draws > 0.55).mean(), abs=3e-3)
    assert e.above(0.55) == pytest.approx(0.25 * norm.sf(1.5) + 0.75 * norm.sf(-1))


def test_the_chance_of_being_better_falls_with_what_is_to_be_beaten() -> None:
    x, y = np.arange(1.0, 11.0), noisy(4, 10)
    for found in combine(fit_all(x, y, 40), x, y, 40):
        assert found is not None
        chances = [found.above(v) for v in np.linspace(0, 1, 101)]
        assert all(a >= b for a, b in pairwise(chances))
        assert chances[0] > 0.99


def test_the_residual_deviation_is_what_a_large_curve_shows() -> None:
    x = np.arange(1.0, 201.0)
    y = BY_NAME["ilog2"](x, np.array([TRUE["ilog2"]])) + np.random.default_rng(1).normal(0, 0.02, (1, 200))
    (fit,) = [f for f in fit_all(x, y, 400) if f.family.name == "ilog2"]
    (found,) = combine([fit], x, y, 400)
    assert found is not None
    assert found.sd == pytest.approx(0.02, rel=0.15)


def test_a_hopeless_run_is_stopped_and_a_promising_one_is_not() -> None:
    y = BY_NAME["pow3"](np.arange(1.0, 16.0), np.array([(0.7, 0.5, 1.0)]))[0]
    assert stop(y, 0.9, 50)
    assert not stop(y, 0.68, 50)
    assert not stop(y, None, 50)
    assert not stop(y[:2], 0.99, 50)
    assert stop(y, 0.69, 50, optimistic=True, certain=0.5)


@pytest.mark.parametrize("optimistic", [False, True])
def test_the_best_run_is_never_stopped(optimistic: bool) -> None:
    for y in noisy(5, 10, 0.03):
        assert not stop(y, float(y.max()), 40, optimistic=optimistic, certain=1.0)
        assert not stop(y, float(y.max()) - 0.1, 40, chance=1.0, optimistic=optimistic)


def test_a_flat_start_is_cut() -> None:
    y = np.array([0.1, 0.1, 0.3, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65])
    x, cut = cut_flat_start(np.arange(1, 11), y)
    assert x.tolist() == [5, 6, 7, 8, 9, 10]
    assert cut.tolist() == y[4:].tolist()
    x, cut = cut_flat_start(np.arange(1, 4), y[:3])
    assert x.tolist() == [1, 2, 3]


def test_the_posterior_agrees_with_a_grid_for_one_family() -> None:
    pytest.importorskip("emcee")
    ilog2, x = BY_NAME["ilog2"], np.arange(1.0, 13.0)
    y = ilog2(x, np.array([(0.4, 0.85)]))[0] + np.random.default_rng(2).normal(0, 0.02, 12)
    fitted, _ = fit_family(ilog2, x, y[None])
    found = sample_posterior(
        [(ilog2, fitted[0])], x, y, 40, np.random.RandomState(0), walkers=20, steps=500, burn_in=200
    )
    a, c, s = np.meshgrid(np.linspace(0.2, 0.6, 61), np.linspace(0.7, 1.0, 61), np.geomspace(0.008, 0.08, 41))
    squares = sum((c - a / np.log(xi + 1) - yi) ** 2 for xi, yi in zip(x, y, strict=True))
    ahead = c - a / np.log(41.0)
    density = np.where((ahead <= 1) & (a >= 0), np.exp(-squares / (2 * s**2) - 12 * np.log(s)), 0.0) * s
    mean = (density * ahead).sum() / density.sum()
    sd = np.sqrt((density * ((ahead - mean) ** 2 + s**2)).sum() / density.sum())
    assert found.mean == pytest.approx(mean, abs=0.004)
    assert found.sd == pytest.approx(sd, rel=0.15)
    again = sample_posterior(
        [(ilog2, fitted[0])], x, y, 40, np.random.RandomState(0), walkers=20, steps=500, burn_in=200
    )
    assert again.mean == found.mean


@pytest.mark.skipif("emcee" in sys.modules, reason="times the light fit alone")
def test_a_thousand_curves_take_less_than_a_minute() -> None:
    import time

    x, y = np.arange(1.0, 21.0), noisy(100, 20)
    started = time.process_time()
    combine(fit_all(x, y, 60), x, y, 60)
    assert time.process_time() - started < 6.0
