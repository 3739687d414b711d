"""Ceilings by training seeds: known answers, other software, and worlds whose truth is known."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from scipy.stats import kendalltau, pearsonr, spearmanr
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from nasbed.reports.audit.ceiling import attainable, disattenuate, icc, reliability, spearman_brown, tau_ceiling
from nasbed.reports.audit.top_ceiling import top_attainable
from nasbed.reports.statistics import Interval

Y = np.array(
    [[90.1, 90.4, 89.8], [90.9, 90.5, 91.2], [91.8, 92.1, 91.5], [92.4, 92.0, 92.9], [93.1, 92.8, 93.3],
     [91.0, 91.6, 91.1]]
)  # fmt: skip


def world(n, seeds, rng, *, noise=0.02, dead=0.12):
    """Quality with a narrow top, a noisy tail, and networks that learn nothing, without noise."""
    g = 0.85 - 0.25 * rng.beta(1.2, 3.0, n)
    broken = rng.random(n) < dead
    low = (rng.random(n) < 0.15) & ~broken
    g[low] = rng.uniform(0.2, 0.6, low.sum())
    g[broken] = 0.1
    sd = np.where(broken, 0.0, np.where(low, 0.05, noise))
    return g, g[:, None] + sd[:, None] * rng.normal(size=(n, seeds))


def plain(value):
    return Interval(value, math.nan, math.nan, 0.95, "architectures", 10)


def counts(n, resamples=100, seed=0):
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)


def test_known_answers():
    rank, linear = reliability(Y), reliability(Y, "pearson")
    assert rank.value == pytest.approx(0.923809523809524, abs=1e-9)
    assert linear.value == pytest.approx(0.9118273292577993, abs=1e-9)
    assert spearman_brown(rank.value, 3) == pytest.approx(0.9732441471571905, abs=1e-9)
    assert spearman_brown(linear.value, 3) == pytest.approx(0.968773564261377, abs=1e-9)
    assert spearman_brown(0.6, 3) == pytest.approx(0.818181818181818, abs=1e-9)
    assert disattenuate(0.6, 1, 0.81).value == pytest.approx(2 / 3, abs=1e-9)
    assert disattenuate(0.6, 0.9, 0.8).value == pytest.approx(math.sqrt(0.5), abs=1e-9)
    found = icc(Y)
    assert (found.icc_c1, found.icc_ck, found.icc_a1) == pytest.approx(
        (0.8940862605602479, 0.96201320447804, 0.9087129428778014), abs=1e-9
    )
    assert (found.var_arch, found.var_err) == pytest.approx((1.1171111111111023, 0.1323333333333339), abs=1e-9)


@pytest.mark.parametrize(("method", "theirs"), [("spearman", spearmanr), ("pearson", pearsonr), ("tau_b", kendalltau)])
def test_reliability_leaves_out_what_is_missing_pair_by_pair(method, theirs):
    rng = np.random.default_rng(0)
    truth = np.round(world(60, 3, rng)[1], 2)
    truth[:5, 0] = truth[5:9, 1] = truth[9, :] = np.nan
    pairs = []
    for a, b in combinations(range(3), 2):
        both = ~np.isnan(truth[:, a]) & ~np.isnan(truth[:, b])
        pairs.append(theirs(truth[both, a], truth[both, b]).statistic)
    found = reliability(truth, method)
    assert found.value == pytest.approx(np.mean(pairs), abs=1e-12)
    assert found.n == 59


def test_icc_against_statsmodels():
    import pandas as pd

    rng = np.random.default_rng(1)
    truth = world(20, 4, rng)[1] + np.arange(4) * 0.01
    frame = pd.DataFrame({"y": truth.ravel(), "a": np.repeat(range(20), 4), "s": np.tile(range(4), 20)})
    squares = anova_lm(ols("y ~ C(a) + C(s)", frame).fit())["mean_sq"]
    found = icc(np.vstack([truth, [np.nan, 1, 1, 1]]))
    assert found.var_err == pytest.approx(squares["Residual"])
    assert found.var_arch == pytest.approx((squares["C(a)"] - squares["Residual"]) / 4)
    assert found.n == 20


@settings(max_examples=50, deadline=None)
@given(hs.floats(0.01, 0.99), hs.integers(1, 9), hs.integers(1, 9))
def test_spearman_brown_of_a_mean_of_means(r, a, b):
    assert spearman_brown(spearman_brown(r, a), b) == pytest.approx(spearman_brown(r, a * b), rel=1e-9)


def test_disattenuated_above_one_is_shown_and_nothing_is_made_of_noise():
    assert disattenuate(0.9, 0.5, 0.5).value == pytest.approx(1.8)
    assert disattenuate(-0.9, 0.5, 0.5).value == pytest.approx(-1.8)
    for rel in (0.0, -0.2, math.nan):
        found = disattenuate(0.5, 1.0, rel)
        assert math.isnan(found.value)
        assert "cannot be corrected for" in found.reason


@pytest.mark.parametrize("noise", [0.02, 0.05])
@pytest.mark.parametrize("seeds", [2, 3])
def test_a_perfect_estimator_reaches_the_ceiling(seeds, noise):
    rng = np.random.default_rng(2)
    gaps = []
    for _ in range(4):
        g, truth = world(600, seeds, rng, noise=noise)
        f = truth.mean(axis=1)
        observed = {
            "spearman": plain(spearmanr(g, f).statistic),
            "pearson": plain(pearsonr(g, f).statistic),
            "tau_b": plain(kendalltau(g, f).statistic),
        }
        found = attainable(observed, truth, g[:, None])
        gaps.append([found[name].ceiling - observed[name].estimate for name in observed])
        assert found["tau_b"].ceiling == tau_ceiling(truth).value
        assert math.isnan(found["tau_b"].reliability)
        assert math.isnan(found["tau_b"].disattenuated)
        assert found["spearman"].share == pytest.approx(observed["spearman"].estimate / found["spearman"].ceiling)
    assert np.abs(np.mean(gaps, axis=0)) == pytest.approx([0, 0, 0], abs=0.015 if noise == 0.02 else 0.035)


def test_dead_networks_do_not_fool_the_ceiling_of_tau():
    rng = np.random.default_rng(3)
    g, truth = world(600, 2, rng, noise=0.05)
    reached = kendalltau(g, truth.mean(axis=1)).statistic
    variances = icc(truth)
    normal = rng.normal(0.0, math.sqrt(variances.var_arch), 2000)
    simulated = kendalltau(normal, normal + rng.normal(0.0, math.sqrt(variances.var_err / 2), 2000)).statistic
    assert simulated - reached > 0.1  # what a normal quality of the same variances promises
    assert abs(tau_ceiling(truth).value - reached) < 0.045


def test_the_ceiling_of_tau_knows_ranks_only():
    truth = np.random.default_rng(4).normal(size=(200, 1)) + np.random.default_rng(5).normal(size=(200, 3))
    assert tau_ceiling(np.exp(truth)).value == pytest.approx(tau_ceiling(truth).value, abs=1e-12)


def test_disattenuation_finds_the_correlation_behind_the_noise():
    rng = np.random.default_rng(6)
    g = rng.normal(size=4000)
    truth = g[:, None] + rng.normal(size=(4000, 2))
    clean = 0.8 * g + 0.6 * rng.normal(size=4000)
    columns = clean[:, None] + 0.7 * rng.normal(size=(4000, 3))
    f = truth.mean(axis=1)
    observed = float(np.mean([pearsonr(c, f).statistic for c in columns.T]))
    found = attainable({"pearson": plain(observed)}, truth, columns)["pearson"]
    assert observed < 0.6
    assert found.disattenuated == pytest.approx(0.8, abs=0.03)
    assert found.estimator_reliability == pytest.approx(1 / 1.49, abs=0.03)


def test_missing_seeds_count_by_the_noise_they_leave():
    rng = np.random.default_rng(7)
    truth = rng.normal(size=(300, 1)) + rng.normal(size=(300, 2))
    truth[::2, 1] = np.nan
    found = attainable({"pearson": plain(0.5)}, truth, np.arange(300.0)[:, None])["pearson"]
    assert found.reliability == pytest.approx(spearman_brown(found.seed_to_seed, 4 / 3))


def test_one_training_seed_knows_no_ceiling():
    e = np.arange(40.0)[:, None]
    for found in (attainable({"spearman": plain(0.5)}, e + 1, e), top_attainable(e, e + 1, 0.5, counts(40))):
        one = found["spearman"]
        assert one.reason == "one training seed: ceiling unknown"
        assert math.isnan(one.ceiling)
        assert math.isnan(one.share)
        assert math.isnan(one.seed_to_seed)
    assert tau_ceiling(e).reason == icc(e).reason == reliability(e).reason == one.reason


def test_reasons():
    rng = np.random.default_rng(8)
    noise = rng.normal(size=(50, 2))
    noise[:, 1] = -noise[:, 0]
    found = attainable({"spearman": plain(0.1), "tau_b": plain(0.1)}, noise, rng.normal(size=(50, 1)))
    assert all("do not agree" in one.reason and math.isnan(one.ceiling) for one in found.values())
    assert "differ in both" in reliability(np.ones((9, 2))).reason
    assert "3 architectures" in icc(np.ones((2, 2))).reason
    assert "all equal" in icc(np.ones((4, 2))).reason
    opposed = np.arange(50.0)[:, None] * [1.0, -1.0]
    found = attainable({"spearman": plain(0.1)}, Y_like(50), opposed)
    assert found["spearman"].ceiling > 0.9
    assert "cannot be corrected for" in found["spearman"].reason
    assert attainable({"pearson": plain(math.nan)}, Y_like(50), opposed) == {}


def Y_like(n):
    return np.arange(n)[:, None] + np.random.default_rng(9).normal(size=(n, 2))


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_perfect_estimator_reaches_the_ceiling_within_the_top(seeds):
    rng = np.random.default_rng(10)
    reached, ceilings, fooled = [], [], []
    for _ in range(20):
        g, truth = world(600, seeds, rng)
        found = top_attainable(g[:, None], truth, 0.1, counts(600, 2), accuracy_scale=True)
        reached.append([found[m].observed.estimate for m in ("spearman", "pearson", "tau_b")])
        ceilings.append([found[m].ceiling for m in ("spearman", "pearson", "tau_b")])
        f = truth.mean(axis=1)
        top = np.argsort(-f)[:60]
        fooled.append([spearmanr(truth[top, 0], truth[top, 1]).statistic])
    assert np.nanmean(ceilings, axis=0) == pytest.approx(np.mean(reached, axis=0), abs=0.07)
    # Choosing by the mean that is judged with: seeds agree less than they do within a top that is chosen otherwise.
    assert np.mean(fooled) < np.mean(reached, axis=0)[0] ** 2 - 0.1


def test_luck_that_chose_the_top_does_not_judge_it():
    rng = np.random.default_rng(11)
    g, truth = world(600, 3, rng, noise=0.05)
    top = np.argsort(-truth[:, 0])[:60]
    turns = [np.argsort(-truth[:, t], kind="stable")[:60] for t in range(3)]
    by_hand = [spearmanr(g[c], np.delete(truth, t, 1).mean(1)[c]).statistic for t, c in enumerate(turns)]
    found = top_attainable(g[:, None], truth, 0.1, counts(600))["spearman"]
    assert found.observed.estimate == pytest.approx(np.mean(by_hand), abs=1e-12)
    assert found.observed.low < found.observed.estimate < found.observed.high
    assert (found.observed.n, found.observed.method) == (60, "architectures")
    assert found.observed.estimate != pytest.approx(spearmanr(g[top], truth.mean(1)[top]).statistic, abs=1e-3)


def test_the_interval_within_the_top_is_that_of_resampled_architectures():
    rng = np.random.default_rng(12)
    g, truth = world(200, 2, rng)
    drawn = counts(200, 150)
    found = top_attainable(g[:, None], truth, 0.3, drawn)["tau_b"].observed
    values = []
    for row in drawn:
        turns = []
        for t in range(2):
            top = np.argsort(-truth[:, t], kind="stable")[:60]
            again = np.repeat(top, row[top])
            turns.append(kendalltau(g[again], truth[again, 1 - t]).statistic)
        values.append(np.mean(turns))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-9)


def test_what_has_no_score_is_last_in_ranks_and_left_out_of_pearson():
    rng = np.random.default_rng(13)
    g, truth = world(200, 2, rng, dead=0.0)
    holes = np.where(np.arange(200) % 5 == 0, -np.inf, g)
    found = top_attainable(holes[:, None], truth, 0.5, counts(200), accuracy_scale=True)
    whole = top_attainable(g[:, None], truth, 0.5, counts(200), accuracy_scale=True)
    assert found["spearman"].observed.estimate < whole["spearman"].observed.estimate - 0.1
    assert found["pearson"].observed.estimate == pytest.approx(whole["pearson"].observed.estimate, abs=0.1)
    assert "pearson" not in top_attainable(g[:, None], truth, 0.5, counts(200))


def test_a_small_top_says_so():
    g, truth = world(60, 2, np.random.default_rng(14))
    found = top_attainable(g[:, None], truth, 0.1, counts(60))["spearman"]
    assert found.reason == "only 6 architectures in the top: ceiling unknown"
    assert not math.isnan(found.observed.estimate)
    flat = top_attainable(np.zeros((60, 1)), truth, 0.5, counts(60))["tau_b"].observed
    assert "differ in score and truth" in flat.reason


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reliability([1.0, 2.0]), "Y must have 2 dimension"),
        (lambda: reliability([[1.0, np.inf]]), "Y has NaN or infinite values"),
        (lambda: attainable({}, Y, np.ones((5, 1))), r"columns must have shape \(N, K\)"),
        (lambda: top_attainable(Y, Y, 1.5, counts(6)), "share must lie strictly between 0 and 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
