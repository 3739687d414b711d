"""One-shot models and their policies: by hand, by scipy, and in worlds where it is known what feeds on what."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from nasbed.reports.audit.one_shot import (
    across_epochs,
    discretise,
    one_shot_audit,
    skip_history,
    spread_ratio,
    stability,
    tau_b,
)
from nasbed.reports.audit.reinforcement import (
    ARMS,
    O,
    R,
    Reinforcement,
    Replicate,
    U,
    exposure_agreement,
    reinforcement,
    winners_differ,
)
from nasbed.reports.results import plain

N, STEPS, DRAWN = 200, 4000, 200

PREDICTION = [0.71, 0.69, 0.74, 0.74, 0.78, 0.75, 0.80, 0.77]
TRUTH = [90.1, 90.3, 91.0, 91.0, 92.2, 92.0, 91.8, 93.0]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def world(
    seed: int, *, exposure_gain: float, temperature: float | None, luck: float = 0.0, noise: float = 0.0
) -> Replicate:
    """Supernets as formulas, e = f + gain log(1 + n) + flattery + luck + noise, and a policy softmax(e / temperature).

    `flattery` is the same in all supernets, `luck` is of each supernet, `noise` of each evaluation. Without a
    temperature the policy is uniform.
    """
    rng = random(seed)
    f = 0.6 + 0.03 * random(99).normal(size=N)
    flattery = 0.01 * random(98).normal(size=N)
    own = luck * rng.normal(size=(3, N))

    def score(arm: int, n: np.ndarray) -> np.ndarray:
        return f - 0.2 + exposure_gain * np.log1p(n) + flattery + own[arm] + noise * rng.normal(size=N)

    n, entropy, early = np.zeros(N), [], np.zeros(N)
    for step in range(40):
        e = score(O, n)
        p = np.full(N, 1 / N) if temperature is None else np.exp((e - e.max()) / temperature)
        p /= p.sum()
        entropy.append(-(p * np.log(p)).sum() / np.log(N))
        n = n + rng.multinomial(STEPS // 40, p)
        if step == 3:
            early = n
    uniform = rng.multinomial(STEPS, np.full(N, 1 / N)).astype(float)
    exposure = np.stack([uniform, n, n[rng.permutation(N)]])
    return Replicate(
        seed, np.arange(N), f, np.ones(N), rng.multinomial(DRAWN, p), p, early,
        np.stack([score(i, exposure[i]) for i in range(3)]), exposure, exposure, np.array(entropy),
    )  # fmt: skip


@cache
def audited(seeds: int = 5, **world_of: Any) -> Reinforcement:
    return reinforcement([world(s, **world_of) for s in range(seeds)], rng=random(), resamples=200)


FEEDING = {"exposure_gain": 0.006, "temperature": 0.02, "noise": 0.02}
BLIND = {"exposure_gain": 0.0, "temperature": 0.02}
EVEN = {"exposure_gain": 0.006, "temperature": None, "noise": 0.02}


def test_a_policy_that_feeds_on_itself_is_caught() -> None:
    found = audited(**FEEDING)
    assert found.reinforcement.low > 0.002
    assert found.beyond_uniform.low > 0.01
    assert found.arms["shuffled"].exposure_bias.low > 0.2
    assert found.entropy[-1] < found.entropy[0] < 1
    assert found.lock_in.low > 0
    assert "over-estimated by +" in found.verdicts[0]
    assert "pp" in found.verdicts[0]
    assert "raises a score" in found.verdicts[3]


def test_uniform_sampling_is_not() -> None:
    found = audited(**EVEN)
    for gap in (found.reinforcement, found.beyond_uniform, found.arms["optimised"].optimism):
        assert gap.low < 0 < gap.high
        assert abs(gap.estimate) < 0.003
    assert found.entropy == pytest.approx([1.0] * 40)
    assert "not over-estimated" in found.verdicts[0]


def test_scores_that_do_not_depend_on_training_reinforce_nothing() -> None:
    found = audited(**BLIND)
    assert found.arms["optimised"].optimism.low > 0.002  # flattery: the favourites are over-estimated in every supernet
    assert found.reinforcement.estimate == pytest.approx(0, abs=1e-12)
    assert found.beyond_uniform.estimate == pytest.approx(0, abs=1e-12)
    assert "not over-estimated" in found.verdicts[1]


def test_a_correlation_rises_while_the_favourites_are_flattered() -> None:
    found = audited(**FEEDING)
    optimised, even = found.arms["optimised"], found.arms["uniform"]
    assert optimised.tau_b.estimate > even.tau_b.estimate + 0.02
    assert optimised.optimism.estimate > even.optimism.estimate + 0.01
    assert found.policy_gain.low > 0
    hotter = audited(**{**FEEDING, "temperature": 0.012})
    assert hotter.entropy[-1] < found.entropy[-1]
    assert hotter.reinforcement.estimate > found.reinforcement.estimate


def test_luck_looks_like_reinforcement_but_not_where_nobody_chose() -> None:
    lucky = audited(**BLIND, luck=0.02)
    assert lucky.reinforcement.low > 0
    bias = lucky.arms["shuffled"].exposure_bias
    assert bias.low < 0 < bias.high
    assert audited(**FEEDING).arms["shuffled"].exposure_bias.low > bias.high


def test_a_steeper_supernet_is_optimistic_but_not_given_quality() -> None:
    r = world(0, **BLIND)
    steep = [
        replace(r, seed=s, e=np.stack([x * (r.f - 0.6) + 0.02 * random(s).normal(size=N) for x in (1.0, 1.6, 1.0)]))
        for s in range(8)
    ]
    found = reinforcement(steep, rng=random(), resamples=200)
    assert found.reinforcement.low > 0.005
    assert found.given_quality.low < 0 < found.given_quality.high


def test_gaps_by_hand() -> None:
    r = tiny()
    found = reinforcement([r, r, r], rng=random(), resamples=100)
    error = r.e - r.f
    favourites = [(2 * error[i, 1] + error[i, 4]) / 3 for i in range(3)]
    drawn = [(error[i, 0] + error[i, 1] + error[i, 2] + 2 * error[i, 3]) / 5 for i in range(3)]
    for i, name in enumerate(ARMS):
        assert found.arms[name].optimism.estimate == pytest.approx(favourites[i] - drawn[i])
        assert found.arms[name].error.estimate == pytest.approx(drawn[i])
        assert found.arms[name].tau_b.estimate == pytest.approx(kendalltau(r.e[i, :4], r.f[:4]).statistic)
    optimism = [a - b for a, b in zip(favourites, drawn, strict=True)]
    assert found.reinforcement.estimate == pytest.approx(optimism[O] - optimism[R])
    assert found.beyond_uniform.estimate == pytest.approx(optimism[O] - optimism[U])
    assert found.policy_gain.estimate == pytest.approx((2 * 0.8 + 0.9) / 3 - (0.5 + 0.8 + 0.6 + 2 * 0.7) / 5)
    assert found.arms["optimised"].regret.estimate == pytest.approx(0.8 - 0.5)
    assert found.reinforcement.method == "seeds and architectures"
    assert found.reinforcement.n == 3


def tiny() -> Replicate:
    e = np.array([[0.3, 0.4, 0.2, 0.35, 0.5], [0.9, 0.6, 0.2, 0.3, 0.8], [0.3, 0.2, 0.1, 0.25, 0.4]])
    count = np.array([[1.0, 1, 2, 1, 0], [0, 3, 0, 0, 2], [3, 0, 0, 2, 0]])
    return Replicate(
        0, np.array([7, 3, 5, 1, 2]), np.array([0.5, 0.8, 0.6, 0.7, 0.9]), np.array([1, 1, 1, 2, 0]),
        np.array([0, 2, 0, 0, 1]), np.array([0.1, 0.5, 0.1, 0.1, 0.2]), count[1], e, count, count, np.array([1.0, 0.5]),
    )  # fmt: skip


def test_given_quality_is_the_residual_of_a_bent_line() -> None:
    r = world(3, exposure_gain=0.01, temperature=0.02, luck=0.01)
    found = reinforcement([r, r, r], rng=random(), resamples=100)
    knots = np.quantile(r.f, [0.2, 0.4, 0.6, 0.8, 0.9])
    basis = np.column_stack([np.ones(N), r.f, *(np.maximum(r.f - k, 0) for k in knots)])
    for i, name in enumerate(ARMS):
        curve = np.linalg.lstsq(basis, r.e[i], rcond=None)[0]
        expected = np.average(r.e[i] - basis @ curve, weights=r.policy)
        assert found.arms[name].given_quality.estimate == pytest.approx(expected, abs=1e-9)


def test_intervals_resample_seeds_and_draws() -> None:
    one = world(0, **FEEDING)
    same = reinforcement([one] * 4, rng=random(), resamples=200)  # no spread between seeds: what is left is the draws'
    apart = reinforcement(
        [replace(one, e=one.e + shift * np.array([[0.0], [1.0], [0.0]]) * one.f) for shift in (-1, 0, 1, 2)],
        rng=random(), resamples=200,
    )  # fmt: skip
    assert 0 < same.reinforcement.half_width < apart.reinforcement.half_width / 3
    again = reinforcement([one] * 4, rng=random(), resamples=200)
    assert again == same


@pytest.mark.parametrize("seeds", [1, 2])
def test_under_three_seeds_there_is_no_interval(seeds: int) -> None:
    found = reinforcement([world(s, **FEEDING) for s in range(seeds)], rng=random(), resamples=100)
    assert np.isnan(found.reinforcement.low)
    assert found.reinforcement.reason == f"an interval needs 3 seeds, got {seeds}"
    assert found.verdicts[0].startswith("it cannot be said whether the policy's favourites are over-estimated")
    assert found.verdicts[3].startswith("it cannot be said whether being trained more")
    json.dumps(plain(found), allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 10])
def test_coverage_of_the_gap(seeds: int) -> None:
    """Seeds differ by a random effect of the gap; its mean is covered, a little less than nominal at few seeds."""
    assert coverage(200, seeds) > (0.80 if seeds == 5 else 0.87)


def test_coverage_of_the_gap_short() -> None:
    assert coverage(15, 8) > 0.7


def coverage(repetitions: int, seeds: int) -> float:
    rng, hits = random(5), 0
    f = rng.normal(0.6, 0.03, 60)
    for _ in range(repetitions):
        made = []
        for s in range(seeds):
            policy = rng.multinomial(80, np.full(60, 1 / 60) * np.repeat([0.5, 1.5], 30))
            favourite = np.repeat([0.0, 1.0], 30)
            e = f + 0.01 * rng.normal(size=(3, 60))
            e[O] += (0.02 + 0.01 * rng.normal()) * favourite
            ones = np.ones((3, 60))
            made.append(Replicate(s, np.arange(60), f, rng.multinomial(50, np.full(60, 1 / 60)), policy,
                                  policy / 80, ones[0], e, ones, ones, np.array([1.0])))  # fmt: skip
        gap = reinforcement(made, rng=rng, resamples=200).reinforcement
        hits += gap.low <= 0.02 * 0.25 <= gap.high
    return hits / repetitions


def test_tau_b_of_a_published_example() -> None:
    assert tau_b(np.array(PREDICTION), np.array(TRUTH)) == pytest.approx(0.6296296296, abs=1e-9)
    assert np.isnan(tau_b(np.ones(2), np.ones(2)))


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_exposure_bias_by_the_formula_of_partial_correlations(seed: int) -> None:
    r = random(seed)
    m = 12
    made = replace(
        tiny(), members=np.arange(m), f=r.normal(size=m), uniform=r.integers(0, 2, m) + (np.arange(m) < 6),
        policy=np.ones(m), probability=np.ones(m) / m, early=np.ones(m), e=r.normal(size=(3, m)),
        exposure=r.integers(0, 6, (3, m)).astype(float), sharing=r.normal(size=(3, m)),
    )  # fmt: skip
    found = reinforcement([made] * 3, rng=random(), resamples=100)
    drawn = made.uniform > 0
    for i, name in enumerate(ARMS):
        x, y, z = made.exposure[i, drawn], (made.e[i] - made.f)[drawn], made.f[drawn]
        xy, xz, yz = (spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
        if (left := (1 - xz**2) * (1 - yz**2)) > 1e-6:
            expected = (xy - xz * yz) / np.sqrt(left)
            assert found.arms[name].exposure_bias.estimate == pytest.approx(expected, abs=1e-9)


def test_seeds_that_end_apart() -> None:
    r = tiny()
    other = replace(r, e=np.where(np.arange(5) == 1, 0.1, r.e), members=np.array([7, 3, 5, 1, 9]))
    assert winners_differ([r]).reason == "needs 2 seeds, got 1"
    assert winners_differ([r, r]).value == 0
    moved = winners_differ([r, replace(r, policy=np.array([1, 0, 0, 0, 0])), r])
    assert (moved.value, moved.n) == (pytest.approx(2 / 3), 3)
    assert exposure_agreement([r, r]).value == pytest.approx(1)
    x, y = r.sharing[O, :4], r.sharing[O, [1, 0, 2, 3]]
    swapped = replace(other, sharing=np.where(np.arange(5) < 4, r.sharing[:, [1, 0, 2, 3, 4]], r.sharing))
    assert exposure_agreement([r, swapped]).value == pytest.approx(spearmanr(x, y).statistic)
    apart = replace(r, members=r.members + 100)
    assert "share 3 architectures" in exposure_agreement([r, apart]).reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"e": np.ones((2, 5))}, r"e must have shape \(3, 5\)"),
        ({"policy": np.array([0.5, 0.5, 0, 0, 0])}, "policy must be counts"),
        ({"uniform": np.zeros(5)}, "uniform must be counts"),
        ({"members": np.arange(4)}, "members must have 5 values"),
        ({"f": np.array([0.1, np.nan, 0.2, 0.3, 0.4])}, r"f has NaN or infinite values at positions \[1\]"),
    ],
)
def test_unsound_replicates_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny(), **change)
    with pytest.raises(ValueError, match="needs a replicate"):
        reinforcement([], rng=random())


def test_what_cannot_vary_has_a_reason() -> None:
    flat = [replace(tiny(), exposure=np.ones((3, 5)), seed=s) for s in range(3)]
    found = reinforcement(flat, rng=random(), resamples=100)
    assert np.isnan(found.arms["uniform"].exposure_bias.estimate)
    assert "no variance" in found.arms["uniform"].exposure_bias.reason


def test_scale_and_error() -> None:
    rng = random(1)
    f = rng.normal(0.8, 0.02, 50)
    e = np.stack([0.4 + 3 * (f - 0.8), 0.5 + 5 * (f - 0.8), 0.3 + 1 * (f - 0.8)], axis=1)
    assert spread_ratio(e[:, 0], f).value == pytest.approx(3)
    assert spread_ratio(e, f).value == pytest.approx(3)
    assert spread_ratio([1, 2], [1, 2]).reason == "needs 3 architectures, got 2"
    assert spread_ratio([1, 2, 3], [1, 1, 1]).reason == "the qualities have no variance"
    found = one_shot_audit(e, f, rng=random(), resamples=200)
    assert found.error.estimate == pytest.approx((e.mean(axis=1) - f).mean())
    assert found.error.estimate < 0
    assert (found.n, found.seeds, found.between.mean) == (50, 3, pytest.approx(1))
    assert "3.00 times as wide" in found.verdicts[1]
    json.dumps(plain(found), allow_nan=False)


def test_stability_of_supernets() -> None:
    e = random(2).normal(size=(30, 4))
    pairs = [kendalltau(e[:, i], e[:, j]).statistic for i in range(4) for j in range(i)]
    found = stability(e)
    assert (found.mean, found.lowest, found.pairs) == (pytest.approx(np.mean(pairs)), pytest.approx(min(pairs)), 6)
    assert stability(e[:, :1]).reason == "needs 2 supernets, got 1"
    assert stability(e[:2]).reason == "needs 3 architectures, got 2"
    assert stability(np.ones((5, 2))).reason == "no two supernets have scores that vary"


def test_agreement_over_epochs() -> None:
    rng = random(3)
    f = rng.normal(size=60)
    e = np.stack([f + s * rng.normal(size=60) for s in (4.0, 1.0, 0.2)], axis=1)
    found = across_epochs(e, f)
    assert found.with_truth == pytest.approx([kendalltau(x, f).statistic for x in e.T])
    assert found.with_truth[0] < found.with_truth[1] < found.with_truth[2]
    assert found.consecutive == pytest.approx([kendalltau(e[:, t], e[:, t + 1]).statistic for t in range(2)])
    assert found.with_last[-1] == pytest.approx(1)


def test_the_gaps_of_a_relaxation() -> None:
    f = np.array([0.1, 0.5, 0.5, 0.9])
    e = np.array([[0.1, 0.1], [0.3, 0.2], [0.2, 0.6], [0.2, 0.3]])
    found = discretise([0.8, 0.7], [1, 3], e, f, rng=random(), resamples=100)
    assert found.inherit.estimate == pytest.approx((0.5 + 0.4) / 2)
    assert found.percentile.estimate == pytest.approx((0.5 + 0.875) / 2)
    assert found.regret.estimate == pytest.approx((0.4 + 0) / 2)
    assert found.regret_by_weights.estimate == pytest.approx(0.4)
    told = one_shot_audit(e, f, rng=random(), resamples=100, discretisation=found).verdicts
    assert "costs +45.000 (no interval) pp" in told[-1]
    for chosen in ([1, 4], [0.5, 1.0], [1]):
        with pytest.raises(ValueError, match="chosen"):
            discretise([0.8, 0.7], chosen, e, f, rng=random())


@pytest.mark.parametrize(
    ("skips", "collapse"), [([0, 2, 4, 5], 3), ([4, 5, 6], 1), ([4, 3, 2], None), ([5, 3, 4], 3), ([3], None)]
)
def test_skips_over_epochs(skips: list[int], collapse: int | None) -> None:
    found = skip_history(skips, 6)
    assert found.collapse == collapse
    assert found.shares == pytest.approx([s / 6 for s in skips])
    with pytest.raises(ValueError, match="skips must hold counts from 0 to 6"):
        skip_history([7], 6)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="e must be"):
        one_shot_audit(np.ones((4, 2)), np.ones(3), rng=random())
    with pytest.raises(ValueError, match=r"NaN or infinite values at positions \[\(1, 0\)\]"):
        across_epochs([[1.0], [np.nan]], [1.0, 2.0])
