"""Estimators that know the luck of a training, or the labels, are found; truthful ones are left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from nasbed.reports.audit.leaks import above_ceiling, shared_flags, shared_noise, sign_flag, significant
from nasbed.reports.statistics import Interval


def world(n, seeds, rng, *, dead=0.12, examples=1000):
    """Lumpy quality, its noise, and trainings counted in examples: dead networks all equal, a tail noisier by half."""
    g = 0.85 - 0.25 * rng.beta(1.2, 3.0, n)
    broken = rng.random(n) < dead
    low = (rng.random(n) < 0.15) & ~broken
    g[low] = rng.uniform(0.2, 0.6, low.sum())
    g[broken] = 0.1
    sd = np.where(broken, 0.0, np.where(low, 0.05, 0.02))
    return g, sd, np.round((g[:, None] + sd[:, None] * rng.normal(size=(n, seeds))) * examples) / examples


def truthful(g, sd, rng):
    """Estimators that know nothing of trainings; the last one errs where training is noisy."""
    n = g.size
    return {
        "perfect": g,
        "close": g + 0.02 * rng.normal(size=n),
        "coarse": np.round(g, 1),
        "proxy": rankdata(g) + 0.3 * n * rng.normal(size=n),
        "unstable": rankdata(g + 3 * sd * rng.normal(size=n)),
        "unscored": np.where(rng.random(n) < 0.1, -np.inf, g),
    }


def false_alarms(repeats, n, seeds, level, rng):
    """Rates at which truthful estimators are told to share the noise of seed 0, and to be above the ceiling."""
    shared, above = {}, {}
    for _ in range(repeats):
        g, sd, truth = world(n, seeds, rng)
        for name, e in truthful(g, sd, rng).items():
            one = shared_noise(e[:, None], truth)[0]
            shared[name] = shared.get(name, 0) + significant(one, 1, level)
            above[name] = above.get(name, 0) + bool(above_ceiling(e[:, None], truth))
    return shared, above


def check_rates(repeats, n, seeds, rng):
    shared, above = false_alarms(repeats, n, seeds, 0.05, rng)
    # 1 % for all 48 rates that are checked in this file together.
    most = norm.isf(0.01 / 48) * math.sqrt(repeats * 0.05 * 0.95) + repeats * 0.05
    assert all(count <= most for count in shared.values()), shared
    assert sum(shared.values()) >= 0.02 * repeats * len(shared)  # the test has its level, not less
    assert sum(above.values()) <= 1, above


@pytest.mark.parametrize("seeds", [2, 3])
def test_truthful_estimators_are_left_alone(seeds):
    check_rates(60, 300, seeds, np.random.default_rng(seeds))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("n", [120, 700])
def test_truthful_estimators_are_left_alone_at_the_nominal_rate(n, seeds):
    check_rates(400, n, seeds, np.random.default_rng([n, seeds, 1]))


def validation(g, sd, truth, seed, rng, share=0.5):
    """Validation accuracy of the same training: part of its luck, and the luck of other examples."""
    luck = (truth[:, seed] - g) * share
    return g + luck + math.sqrt(1 - share**2) * sd * rng.normal(size=g.size)


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_validation_accuracy_of_a_training_is_found(seeds):
    rng = np.random.default_rng(20)
    for shared_seed in range(2):
        g, sd, truth = world(700, seeds, rng)
        e = validation(g, sd, truth, shared_seed, rng)[:, None]
        found = shared_noise(e, truth)
        assert significant(found[shared_seed], seeds)
        assert max(found, key=lambda s: found[s].value) == shared_seed
        (flag,) = shared_flags(e, truth)
        assert (flag.kind, flag.severity) == ("shared_seed", "warning")
        assert f"training seed {shared_seed} (r = +{found[shared_seed].value:.2f}, 700 architectures)" in flag.sentence
        assert "and" not in flag.sentence.split(":")[0]
        assert above_ceiling(e, truth) == ()


def test_columns_that_each_share_one_seed_do_not_hide_each_other():
    rng = np.random.default_rng(21)
    g, sd, truth = world(700, 2, rng)
    columns = np.column_stack([validation(g, sd, truth, s, rng) for s in range(2)])
    found = shared_noise(columns, truth)
    assert all(significant(found[s], 4) for s in range(2))
    together = shared_noise(columns.mean(axis=1, keepdims=True), truth)
    assert not significant(together[0], 2)


def test_the_value_is_that_of_permuted_seeds():
    """Under permutations of the seeds within rows, sqrt(n) times the value has mean 0 and variance 1."""
    rng = np.random.default_rng(22)
    g, sd, truth = world(150, 3, rng)
    e = validation(g, sd, truth, 0, rng)[:, None]
    drawn = np.array([shared_noise(e, rng.permuted(truth, axis=1))[0].value for _ in range(600)]) * math.sqrt(150)
    assert abs(drawn.mean()) < 0.15
    assert drawn.std() == pytest.approx(1.0, abs=0.1)


def test_a_seed_that_is_better_everywhere_is_no_noise():
    rng = np.random.default_rng(23)
    g, _, truth = world(300, 2, rng, dead=0.0)
    for e in (g, np.round(g, 1)):
        before, after = (shared_noise(e[:, None], truth + shift)[0].value for shift in (0.0, np.array([0.0, 0.5])))
        assert after == pytest.approx(before, abs=0.05)


@pytest.mark.parametrize("seeds", [2, 3])
def test_labels_are_found(seeds):
    rng = np.random.default_rng(24)
    g, sd, truth = world(400, seeds, rng)
    f = truth.mean(axis=1)
    for labels in (f, f + 0.25 * sd * rng.normal(size=400), np.exp(9 * f)):
        (flag,) = above_ceiling(np.column_stack([g, labels]), truth)
        assert (flag.kind, flag.severity) == ("leak", "fault")
        assert "400 architectures" in flag.sentence
        assert shared_flags(labels[:, None], truth) == ()


def test_the_labels_of_one_seed_share_it():
    rng = np.random.default_rng(25)
    _, _, truth = world(400, 2, rng)
    assert above_ceiling(truth[:, :1], truth) == ()
    (flag,) = shared_flags(truth[:, :1], truth)
    assert "training seed 0" in flag.sentence
    assert " 1 (" not in flag.sentence


def test_the_sentence_of_a_leak_has_its_numbers():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(26)
    _, _, truth = world(400, 2, rng)
    f = truth.mean(axis=1)
    (flag,) = above_ceiling(f[:, None], truth)
    single = spearmanr(truth[:, 0], truth[:, 1]).statistic
    for number in (*(spearmanr(f, y).statistic for y in truth.T), single, math.sqrt(single)):
        assert f"{number:.3f}" in flag.sentence


def test_the_excess_has_the_standard_error_of_a_bootstrap():
    from nasbed.reports.audit.leaks import _beyond

    rng = np.random.default_rng(27)
    g, _, truth = world(500, 3, rng)
    e = g + 0.01 * rng.normal(size=500)
    whole = _beyond(e, truth)
    gap = np.append(whole.correlations, whole.correlations.mean()) - math.sqrt(whole.single)
    drawn = []
    for _ in range(200):
        rows = rng.integers(0, 500, 500)
        one = _beyond(e[rows], truth[rows])
        drawn.append(np.append(one.correlations, one.correlations.mean()) - math.sqrt(one.single))
    assert gap / whole.z == pytest.approx(np.std(drawn, axis=0), rel=0.3)


def test_what_is_missing_is_left_out():
    rng = np.random.default_rng(28)
    g, sd, truth = world(300, 2, rng)
    e = validation(g, sd, truth, 0, rng)
    e[:40] = np.nan
    truth[40:60, 1] = np.nan
    expected = shared_noise(e[60:, None], truth[60:])
    assert shared_noise(e[:, None], truth) == expected
    assert expected[0].n == 240


def test_undefined_says_why():
    rng = np.random.default_rng(29)
    _, _, truth = world(50, 2, rng)
    one = shared_noise(truth[:, :1], truth[:, :1])[0]
    assert one.reason == "one training seed: ceiling unknown"
    assert not significant(one, 1)
    assert above_ceiling(truth[:, :1], truth[:, :1]) == shared_flags(truth[:, :1], truth[:, :1]) == ()
    same = np.repeat(truth[:, :1], 2, axis=1)
    for e, y in ((np.zeros((50, 1)), truth), (truth[:, :1], same), (truth[:2, :1], truth[:2])):
        assert math.isnan(shared_noise(e, y)[0].value)
        assert shared_noise(e, y)[0].reason
        assert above_ceiling(e, y) == shared_flags(e, y) == ()


def test_the_wrong_sign():
    def interval(estimate, low, high):
        return Interval(estimate, low, high, 0.95, "architectures", 100)

    flag = sign_flag(interval(-0.61, -0.68, -0.52))
    assert flag.sentence == "ranks the wrong way: tau_b = -0.61 [-0.68, -0.52]; its declared sign is +1"
    assert (flag.kind, flag.severity) == ("sign", "fault")
    assert sign_flag(interval(-0.61, -0.68, -0.52), -1).sentence.endswith("is -1")
    assert sign_flag(interval(-0.05, -0.11, 0.01)) is None
    assert sign_flag(interval(0.6, 0.5, 0.7)) is None
    assert sign_flag(interval(-0.6, math.nan, math.nan)) is None
