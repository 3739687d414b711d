"""Second implementations: scipy, statsmodels, scikit-posthocs, and definitions written out as loops."""

from __future__ import annotations

import itertools
import warnings
from types import ModuleType

import numpy as np
import pytest
import scipy.stats as ss

from nasbed.reports import statistics as st

SEEDS = range(8)


def importorskip(name: str) -> ModuleType:
    """Import an oracle whose own import may warn on this stack."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def tied(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 6, n) / 5.0


@pytest.mark.parametrize("seed", SEEDS)
def test_rank_effects_agree_with_mannwhitneyu_and_brunnermunzel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = tied(rng, 12), tied(rng, 17)
    u = ss.mannwhitneyu(x, y, alternative="greater", method="asymptotic", use_continuity=False)
    assert st.a12(x, y) == pytest.approx(u.statistic / (x.size * y.size), abs=1e-12)
    assert st.van_elteren([x], [y], "greater").p == pytest.approx(u.pvalue, abs=1e-12)
    theta = st.theta_se([x], [y])
    assert (theta.theta - 0.5) / theta.se == pytest.approx(ss.brunnermunzel(y, x).statistic, abs=1e-9)


def test_theta_se_averages_tables() -> None:
    rng = np.random.default_rng(3)
    new, base = [tied(rng, n) for n in (9, 12, 15)], [tied(rng, n) for n in (20, 11, 13)]
    each = [st.theta_se([x], [y]) for x, y in zip(new, base, strict=True)]
    both = st.theta_se(new, base)
    assert both.theta == pytest.approx(np.mean([e.theta for e in each]), abs=1e-12)
    assert both.se == pytest.approx(np.sqrt(sum(e.se**2 for e in each)) / 3, abs=1e-12)


def test_van_elteren_standardises_by_the_permutation_distribution() -> None:
    """Over all relabellings within the tables, z has mean 0 and variance 1: weights and tie correction are right."""
    tables = [np.array([0.0, 0.0, 0.1, 0.3, 0.3, 0.3]), np.array([0.2, 0.2, 0.5, 0.9, 1.0])]
    zs = []
    for first in itertools.combinations(range(6), 2):
        for second in itertools.combinations(range(5), 3):
            masks = [np.isin(np.arange(6), first), np.isin(np.arange(5), second)]
            new = [x[m] for x, m in zip(tables, masks, strict=True)]
            base = [x[~m] for x, m in zip(tables, masks, strict=True)]
            zs.append(st.van_elteren(new, base).z)
    assert np.mean(zs) == pytest.approx(0.0, abs=1e-12)
    assert np.var(zs) == pytest.approx(1.0, abs=1e-12)


def test_van_elteren_weights_tables_by_one_over_n_plus_one() -> None:
    rng = np.random.default_rng(5)
    new, base = [rng.normal(size=n) for n in (4, 30)], [rng.normal(size=n) for n in (6, 50)]
    top, bottom = 0.0, 0.0
    for x, y in zip(new, base, strict=True):
        total = x.size + y.size
        top += (ss.rankdata(np.concatenate([x, y]))[: x.size].sum() - x.size * (total + 1) / 2) / (total + 1)
        bottom += x.size * y.size * (total + 1) / 12 / (total + 1) ** 2
    assert st.van_elteren(new, base).z == pytest.approx(top / np.sqrt(bottom), abs=1e-12)


@pytest.mark.parametrize("n", [4, 9, 10, 30, 50])
def test_signed_rank_is_scipys_exact_test(n: int) -> None:
    for seed in SEEDS:
        d = np.random.default_rng(seed).normal(0.3, 1.0, n)
        assert st.signed_rank(d) == pytest.approx(ss.wilcoxon(d, method="exact").pvalue, rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_signed_rank_with_ties_counts_all_sign_patterns(seed: int) -> None:
    d = np.random.default_rng(seed).integers(-3, 6, 9).astype(float)
    kept = d[d != 0]
    ranks = ss.rankdata(np.abs(kept))
    totals = [ranks[np.array(signs) > 0].sum() for signs in itertools.product((-1, 1), repeat=kept.size)]
    observed = ranks[kept > 0].sum()
    tail = min(np.mean(np.array(totals) <= observed), np.mean(np.array(totals) >= observed))
    assert st.signed_rank(d) == pytest.approx(min(1.0, 2 * tail), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_signed_rank_beyond_enumeration_is_scipys_normal(seed: int) -> None:
    d = np.random.default_rng(seed).integers(-9, 12, 80).astype(float)
    expected = ss.wilcoxon(d, zero_method="wilcox", correction=False, method="asymptotic").pvalue
    assert st.signed_rank(d) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_friedman_with_ties_agrees_with_scipy(seed: int) -> None:
    losses = np.random.default_rng(seed).integers(0, 5, (9, 4)).astype(float)
    oracle, found = ss.friedmanchisquare(*losses.T), st.friedman(losses)
    assert found.chi2 == pytest.approx(oracle.statistic, abs=1e-9)
    assert found.p == pytest.approx(oracle.pvalue, abs=1e-12)
    assert found.pF == pytest.approx(ss.f.sf(found.F, 3, 24), abs=1e-12)
    assert found.mean_ranks == pytest.approx(ss.rankdata(losses, axis=1).mean(axis=0))


def test_friedman_in_perfect_agreement_gives_the_permutation_probability() -> None:
    losses = np.array([[0.1, 0.2, 0.3]] * 4)
    found = st.friedman(losses)
    assert np.isinf(found.F)
    chances = [
        np.isinf(st.friedman([losses[0], *rows]).F)
        for rows in itertools.product(*[list(itertools.permutations(losses[0]))] * 2)
    ]  # three tables: 36 equally likely outcomes
    assert np.mean(chances) == pytest.approx(1 / 36)
    assert found.pF == pytest.approx((1 / 6) ** 3)


def test_holm_and_sample_size_agree_with_statsmodels() -> None:
    multitest = importorskip("statsmodels.stats.multitest")
    power = importorskip("statsmodels.stats.power")
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 30):
        p = rng.uniform(size=n) ** 3
        np.testing.assert_allclose(st.holm(p), multitest.multipletests(p, method="holm")[1], atol=1e-12)
    for d, alpha, wanted in [(0.3, 0.05, 0.9), (0.8, 0.01, 0.8), (-0.5, 0.05, 0.8)]:
        oracle = power.TTestPower().solve_power(effect_size=d, alpha=alpha, power=wanted)
        assert st.paired_t_sample_size(d, alpha, wanted) == pytest.approx(float(np.squeeze(oracle)), abs=1e-4)


def test_nemenyi_agrees_with_scikit_posthocs() -> None:
    posthocs = importorskip("scikit_posthocs")
    losses = np.random.default_rng(1).integers(0, 7, (8, 4)).astype(float)
    oracle = posthocs.posthoc_nemenyi_friedman(losses).to_numpy()
    np.testing.assert_allclose(st.nemenyi_p(losses), oracle, atol=1e-6)


def test_cliques_agree_with_a_search_of_all_runs_of_ranks() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        k = int(rng.integers(2, 7))
        ranks, upper = rng.permutation(k).astype(float), np.triu(rng.random((k, k)) < 0.3, 1)
        significant = upper | upper.T
        order = np.argsort(ranks)
        runs = [tuple(order[a:b].tolist()) for a in range(k) for b in range(a + 2, k + 1)]
        clean = [r for r in runs if not significant[np.ix_(r, r)].any()]
        maximal = [r for r in clean if not any(set(r) < set(other) for other in clean)]
        assert st.cliques(ranks, significant) == maximal


def test_iqm_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for shape in [(1,), (3,), (7, 3), (30, 4)]:
        x = rng.normal(size=shape)
        assert st.iqm(x) == pytest.approx(ss.trim_mean(x, 0.25, axis=None), abs=1e-12)


@pytest.mark.parametrize("log", [True, False])
def test_anytime_area_is_the_integral_of_step_values(log: bool) -> None:
    rng = np.random.default_rng(4)
    cost, regret = np.cumsum(rng.exponential(5.0, 12)), rng.random(12)
    for t0, t1 in [(0.5, 100.0), (10.0, 20.0), (cost[3], cost[9]), (cost[-1] + 1, cost[-1] + 9)]:
        edges = np.geomspace(t0, t1, 200_001) if log else np.linspace(t0, t1, 200_001)
        middle = np.sqrt(edges[1:] * edges[:-1]) if log else (edges[1:] + edges[:-1]) / 2
        riemann = st.step_values(cost, regret, middle, before=1.0).mean()
        assert st.anytime_area(cost, regret, t0, t1, log=log) == pytest.approx(riemann, abs=1e-4)


def test_t_intervals_of_one_table_agree_with_scipy() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=7), rng.normal(0.5, 3.0, 9)
    ours = st.t_interval([x])
    assert (ours.low, ours.high) == pytest.approx(tuple(ss.ttest_1samp(x, 0.0).confidence_interval(0.95)))
    welch = st.t_difference([x], [y], paired=False, level=0.9)
    oracle = ss.ttest_ind(x, y, equal_var=False).confidence_interval(0.9)
    assert (welch.low, welch.high) == pytest.approx((oracle.low, oracle.high))
    paired = st.t_difference([x], [y[:7]], paired=True)
    oracle = ss.ttest_rel(x, y[:7]).confidence_interval(0.95)
    assert (paired.low, paired.high) == pytest.approx((oracle.low, oracle.high))


def test_t_interval_over_tables_is_the_written_formula() -> None:
    rng = np.random.default_rng(7)
    X = [rng.normal(size=6) for _ in range(4)]
    half = ss.t.ppf(0.975, 5 * 4) * np.sqrt(sum(x.var(ddof=1) / 6 for x in X)) / 4
    assert st.t_interval(X).half_width == pytest.approx(half, abs=1e-12)
