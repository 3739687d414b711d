"""Variance components, and statements on pipelines, on worlds whose answers are known."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.stats import kendalltau, spearmanr

from nasbed.reports.audit import pipelines as pl
from nasbed.reports.audit import variance
from nasbed.reports.audit.variance import VarianceAudit, answer, components, empirical_logit, variance_audit
from nasbed.reports.results import plain

# Mean squares by statsmodels' anova_lm, then the method of moments.
KNOWN = np.array(
    [
        [[1.0, 1.2], [2.0, 2.2], [3.1, 2.9]],
        [[2.0, 2.1], [3.2, 3.0], [4.0, 4.2]],
        [[0.5, 0.7], [1.4, 1.2], [2.9, 2.6]],
        [[3.0, 2.8], [3.9, 4.2], [5.2, 5.1]],
    ]
)


def world(
    rng: np.random.Generator, A: int = 60, P: int = 3, S: int = 3, *, arch: float = 1.0, pipe: Any = (0.0, 0.5, 1.0),
    interaction: float = 0.0, noise: float = 0.3, shared: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Normal worlds; all but `pipe` are standard deviations."""
    Y = rng.normal(0, arch, (A, 1, 1)) + np.asarray(pipe)[None, :P, None] + rng.normal(0, interaction, (A, P, 1))
    return Y + rng.normal(0, shared, (A, 1, S)) + rng.normal(0, noise, (A, P, S))


def draws(A: int, resamples: int = 100, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).multinomial(A, np.full(A, 1 / A), resamples)


def bootstrap(Y: np.ndarray, resamples: int = 100) -> pl.Bootstrap:
    return pl.over_architectures(Y, draws(len(Y), resamples), 0.95)


def audited(Y: np.ndarray, **changes: Any) -> VarianceAudit:
    P = Y.shape[1]
    given: dict[str, Any] = {
        "table": "lumpy", "space": "nb201", "metric": "accuracy", "pipelines": ("base", "longer", "mixup", "all")[:P],
        "costs": (2.0, 4.0, 2.0, 1.0)[:P], "base": "base", "counts": draws(len(Y), 40),
    }  # fmt: skip
    return variance_audit(Y, **(given | changes))


def test_known_answer() -> None:
    found = components(KNOWN)
    expected = [1.2092361111111103, 1.086111111111111, 0.008680555555555578, 0.021666666666666685]
    shares = [0.5199462526127201, 0.46700507614213216, 0.0037324574499850815, 0.009316213795162747]
    np.testing.assert_allclose([found.arch, found.pipe, found.arch_pipe, found.seed], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(list(found.shares.values()), shares, rtol=0, atol=1e-9)
    assert (found.shared, found.n, found.reason) == (0.0, 4, "")


@pytest.mark.parametrize("shape", [(4, 3, 2), (9, 2, 4), (12, 5, 3)])
def test_mean_squares_are_those_of_statsmodels(shape: tuple[int, int, int]) -> None:
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    A, P, S = shape
    Y = world(np.random.default_rng(A), A, P, S, pipe=np.arange(5), interaction=0.4, shared=0.3)
    a, p, s = (i.ravel() for i in np.indices(shape))
    frame = pd.DataFrame({"y": Y.ravel(), "a": a, "p": p, "s": s})
    ms = anova_lm(ols("y ~ C(a) * C(p)", frame).fit()).eval("sum_sq / df")
    classic = components(Y)
    np.testing.assert_allclose(classic.arch, (ms["C(a)"] - ms["C(a):C(p)"]) / (P * S))
    np.testing.assert_allclose(classic.pipe, (ms["C(p)"] - ms["C(a):C(p)"]) / (A * S))
    np.testing.assert_allclose(classic.arch_pipe, (ms["C(a):C(p)"] - ms["Residual"]) / S)
    np.testing.assert_allclose(classic.seed, ms["Residual"])
    ms = anova_lm(ols("y ~ C(a) * C(p) + C(a):C(s)", frame).fit()).eval("sum_sq / df")
    common, own, both, arch = (ms[k] for k in ("C(a):C(s)", "Residual", "C(a):C(p)", "C(a)"))
    found = components(Y, shared_seeds=True)
    np.testing.assert_allclose(found.shared, (common - own) / P)
    np.testing.assert_allclose(found.arch_pipe, (both - own) / S)
    np.testing.assert_allclose(found.arch, (arch - both - common + own) / (P * S))
    np.testing.assert_allclose(found.seed, classic.seed)


def test_common_random_numbers_need_their_own_component() -> None:
    """Known variances: the classic estimators call shared noise architecture and take it from the interaction."""
    rng, found = np.random.default_rng(0), {True: [], False: []}
    for _ in range(300):
        Y = world(rng, 40, 3, 2, arch=0.2, interaction=0.2, noise=0.2, shared=0.4)
        for shared, into in found.items():
            c = components(Y, shared_seeds=shared)
            into.append([c.arch, c.arch_pipe, c.seed])
    right, classic = np.mean(found[True], 0), np.mean(found[False], 0)
    np.testing.assert_allclose(right, [0.04, 0.04, 0.20], atol=0.006)
    np.testing.assert_allclose(classic, [0.04 + 0.08, 0.04 - 0.08, 0.20], atol=0.006)


@given(some.integers(0, 1000), some.floats(-5, 5), some.floats(0.1, 10), some.booleans())
@settings(max_examples=25, deadline=None)
def test_components_follow_shift_scale_and_order(seed: int, shift: float, scale: float, shared: bool) -> None:
    rng = np.random.default_rng(seed)
    Y = world(rng, 8, 3, 3, interaction=0.2, shared=0.2)
    found, other = components(Y, shared_seeds=shared), components(shift + scale * Y, shared_seeds=shared)
    assert sum(found.shares.values()) == pytest.approx(1.0)
    np.testing.assert_allclose(list(other.shares.values()), list(found.shares.values()), atol=1e-8)
    assert other.pipe == pytest.approx(scale**2 * found.pipe, rel=1e-6, abs=1e-9)
    mixed = Y[rng.permutation(8)][:, rng.permutation(3)][:, :, rng.permutation(3)]
    assert components(mixed, shared_seeds=shared).arch == pytest.approx(found.arch)


def test_a_negative_component_is_shown_and_has_no_share() -> None:
    rng = np.random.default_rng(3)
    found = [components(world(rng, 10, 3, 2, arch=0.0, pipe=(0, 0, 0))) for _ in range(20)]
    negative = [c for c in found if c.arch < 0]
    assert negative
    assert all(c.shares["arch"] == 0 for c in negative)


def test_what_is_undefined_says_why() -> None:
    few = components(KNOWN[:2])
    assert np.isnan(few.arch)
    assert "3 architectures" in few.reason
    assert "2 pipelines, got 4 and 1" in components(KNOWN[:, :1]).reason
    single = components(KNOWN[:, :, :1])
    assert single.arch > 0
    assert np.isnan([single.seed, single.arch_pipe, single.shares["arch"]]).all()
    assert single.reason.startswith("one training seed")
    assert components(np.ones((5, 2, 2))).reason == "no variance"
    with pytest.raises(ValueError, match=r"Y has NaN .*\(1, 2, 0\)"):
        components(np.where(KNOWN == 4.0, np.nan, KNOWN))


def test_logit_of_counts() -> None:
    np.testing.assert_allclose(
        empirical_logit([0.0, 0.5, 0.9, 1.0], 100), np.log([0.5 / 100.5, 1.0, 90.5 / 10.5, 100.5 / 0.5])
    )
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        empirical_logit([90.0], 100)


def test_the_best_are_not_chosen_by_the_noise_they_are_judged_by() -> None:
    """All architectures are equal: among the chosen, too, there is no variance between them."""
    rng, within, naive = np.random.default_rng(1), [], []
    for _ in range(100):
        Y = world(rng, 50, 3, 3, arch=0.0, noise=0.3, shared=0.3)
        within.append(variance._raw_of_top(Y, top=0.2)[0])
        best = np.argsort(-Y.mean(axis=(1, 2)))[:10]
        naive.append(components(Y[best], shared_seeds=True).arch)
    error = 4 * np.std(within) / 10
    assert abs(np.mean(within)) < error
    assert np.mean(naive) < -error


def test_audit_of_a_world() -> None:
    Y = world(np.random.default_rng(5), 80, 3, 3, interaction=0.1)
    audit = audited(Y)
    whole, best = audit.decomposition("all"), audit.decomposition("top")
    assert (audit.base, audit.best, audit.cheapest) == ("base", "mixup", "base")
    assert (whole.n, best.n, audit.n, audit.seeds) == (80, 16, 80, 3)
    direct = components(Y, shared_seeds=True)
    assert whole.components["arch"].estimate == pytest.approx(direct.arch)
    assert whole.lead.estimate == pytest.approx(direct.shares["arch"] - direct.shares["pipe"])
    assert whole.shares["arch"].low < whole.shares["arch"].estimate < whole.shares["arch"].high
    assert best.shares["arch"].estimate < whole.shares["arch"].estimate
    assert whole.shares["arch"].method == "architectures"
    with pytest.raises(KeyError):
        audit.decomposition("all", "logit")
    json.dumps(plain(audit), allow_nan=False)
    assert plain(audited(Y)) == plain(audit)
    assert audited(Y, costs=(2.0, 4.0, 1.0)).cheapest == "mixup"


def test_accuracies_have_a_logit_scale() -> None:
    Y = np.clip(0.9 + 0.05 * world(np.random.default_rng(6), 30), 0, 1)
    audit = audited(np.round(Y * 500) / 500, examples=500)
    assert [(d.scope, d.scale) for d in audit.decompositions] == [
        ("all", "metric"), ("top", "metric"), ("all", "logit"), ("top", "logit"),
    ]  # fmt: skip
    assert audit.decomposition("all", "logit").components["arch"].estimate > 0.1


def test_answer() -> None:
    rng = np.random.default_rng(7)
    said = answer(audited(world(rng, 60, pipe=(0, 0, 0.3)), trained_on=4000, metric="accuracy"))
    assert said.startswith("On lumpy (60 architectures, 3 pipelines, 3 seeds), architectures explain ")
    assert "of the variance of test accuracy and pipelines" in said
    assert "]: architectures matter more; among the best 20 % (12) it is " in said
    assert said.count(". ") == 1
    assert "these pipelines (base, longer, mixup)" in said
    assert "trained on 4,000 examples" in said
    assert "]: training ingredients matter more; " in answer(audited(world(rng, 60, pipe=(0, 3, 6))))
    for pipe, sign in ((0.85, 1.0), (0.95, -1.0)):
        close = audited(world(np.random.default_rng(0), 60, pipe=(-pipe, 0, pipe)))
        assert sign * close.decomposition("all").lead.estimate > 0
        assert "]: neither can be said to matter more; " in answer(close)
    assert "nothing can be said: too few seeds" in answer(audited(world(rng, 60, S=2)))


def test_shapes_that_do_not_fit() -> None:
    Y = world(np.random.default_rng(8), 10)
    for changes in ({"base": "best"}, {"pipelines": ("base", "all")}, {"costs": (1.0,)}):
        with pytest.raises(ValueError, match="Y has 3 pipelines"):
            audited(Y, **changes)
    for counts in (draws(9), draws(10) + 1, draws(10)[0]):
        with pytest.raises(ValueError, match="rows that sum to 10"):
            audited(Y, counts=counts)


def test_spread_by_hand() -> None:
    Y = np.zeros((11, 2, 2))
    Y[:, 0] = np.arange(11.0)[:, None]
    Y[:, 1] = 3.0 + 2.0 * np.arange(11.0)[::-1, None]
    found = pl.spread(bootstrap(Y))
    assert [m.estimate for m in found.means] == [5.0, 13.0]
    assert (found.range.estimate, found.iqr.estimate, found.gap.estimate) == (8.0, 7.5, 6.0)
    assert found.range_to_iqr.estimate == pytest.approx(8 / 7.5)
    assert found.range_to_gap.estimate == pytest.approx(8 / 6)
    assert found.range.low < 8 < found.range.high
    flat = pl.spread(bootstrap(np.ones((5, 2, 2))))
    assert np.isnan(flat.range_to_iqr.estimate)
    assert flat.range_to_iqr.reason


def test_median_against_top() -> None:
    rng, names = np.random.default_rng(9), ("base", "longer", "mixup")
    far = pl.median_beats_top(bootstrap(world(rng, pipe=(0, 20, 20.0))), names, best=2)
    assert (far["base"].estimate, far["base"].low) == (1.0, 1.0)
    assert far["mixup"].estimate == 0.0
    alone = pl.median_beats_top(bootstrap(world(rng, S=1)), names, best=2)["base"]
    assert (np.isnan(alone.estimate), alone.reason) == (True, "one training seed")


def test_luck_is_no_top_architecture() -> None:
    """Without any difference, a median architecture beats a `top` one as often as not."""
    rng = np.random.default_rng(10)
    found = [
        pl._median_beats_top(world(rng, 60, arch=0.0, pipe=(0, 0, 0), shared=0.3), best=1) for _ in range(200)
    ]  # fmt: skip
    np.testing.assert_allclose(np.mean(found, axis=0), 0.5, atol=0.07)


def test_transfers_are_those_of_scipy() -> None:
    Y = world(np.random.default_rng(11), 40, interaction=0.5)
    found = pl.transfers(bootstrap(Y), ("a", "b", "c"))
    assert [t.pipelines for t in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    M, last = Y.mean(axis=2), found[2]
    assert last.tau_b.estimate == pytest.approx(kendalltau(M[:, 1], M[:, 2])[0])
    assert last.spearman.estimate == pytest.approx(spearmanr(M[:, 1], M[:, 2])[0])
    pairs = [(0, 1), (0, 2), (1, 2)]
    r = [np.mean([spearmanr(Y[:, p, i], Y[:, p, j])[0] for i, j in pairs]) for p in (1, 2)]
    reliable = [3 * x / (1 + 2 * x) for x in r]
    assert last.ceiling.estimate == pytest.approx(np.sqrt(np.prod(reliable)))
    between = [spearmanr(Y[:, 1, i], Y[:, 2, j])[0] for i in range(3) for j in range(3) if i != j]
    assert last.agreement.estimate == pytest.approx(np.mean(between) / np.sqrt(np.prod(r)))


def test_agreement_knows_noise_from_rankings() -> None:
    """Pipelines that rank alike agree to 1 whether they share noise or not; unrelated ones to 0."""
    rng = np.random.default_rng(12)
    for shared in (0.0, 0.8):
        found = [pl._transfers(world(rng, 150, 2, noise=0.5, shared=shared))[3] for _ in range(20)]
        assert np.mean(found) == pytest.approx(1.0, abs=0.03)
    found = [pl._transfers(world(rng, 150, 2, arch=0.0, interaction=1.0))[3] for _ in range(20)]
    assert np.mean(found) == pytest.approx(0.0, abs=0.06)


def test_a_pipeline_that_ranks_backwards_costs_the_whole_range() -> None:
    f = np.linspace(0.0, 1.0, 21)
    Y = np.stack([f, -f, f + 0.1], axis=1)[:, :, None] + np.zeros(3)
    same, backwards, best = pl.choices(bootstrap(Y), ("a", "b", "c"), (1.0, 2.0, 3.0), best=2)
    assert (same.regret.estimate, best.loss.estimate) == (0.0, 0.0)
    assert backwards.regret.estimate == pytest.approx(1.0)
    assert backwards.loss.estimate == pytest.approx(1.0)
    assert (backwards.pipeline, backwards.cost) == ("b", 2.0)


def test_loss_of_equal_architectures_is_none() -> None:
    """All are equal, so nothing is lost; the regret by the same values that chose sees only luck."""
    rng = np.random.default_rng(13)
    regret, loss = np.mean([pl._choice(world(rng, 40, arch=0.0), p=0, best=2) for _ in range(300)], axis=0)
    assert regret > 0.2
    assert abs(loss) < 0.05


def lumpy(rng: np.random.Generator, A: int) -> np.ndarray:
    """A tenth of the architectures is dead under all pipelines; the rest is skewed, its noise partly shared."""
    g, dead = 0.83 - rng.gamma(1.0, 0.07, A), rng.random(A) < 0.14
    Y = g[:, None, None] + world(
        rng, A, 4, arch=0.0, pipe=(-0.16, 0.0, -0.05, -0.01), interaction=0.02, noise=0.027, shared=0.012
    )
    Y[dead] = 0.1 + rng.normal(0, 0.001, (int(dead.sum()), 4, 3))
    return Y


@pytest.mark.parametrize(("repetitions", "resamples"), [(15, 100), pytest.param(300, 200, marks=pytest.mark.slow)])
def test_intervals_cover(repetitions: int, resamples: int) -> None:
    many = lumpy(np.random.default_rng(14), 40_000)
    raw = {"all": variance._raw, "top": partial(variance._raw_of_top, top=0.2)}
    target = {scope: variance._shares(of(many)) for scope, of in raw.items()}
    hits = []
    for i in range(repetitions):
        Y = lumpy(np.random.default_rng([15, i]), 120)
        resampled = pl.over_architectures(Y, draws(120, resamples, i), 0.95)
        for scope, of in raw.items():
            shares = variance._decomposition(resampled, scope, "metric", 120, of).shares.values()
            hits.append([s.low <= t <= s.high for s, t in zip(shares, target[scope], strict=True)])
    covered = np.mean(hits)
    assert covered > (0.92 if repetitions > 100 else 0.8), covered
