"""Signed bias, in worlds where it is known which estimators have one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from nasbed.reports.audit.bias import beyond, biases, partial_spearman, rank_change
from nasbed.reports.audit.instruments import Resamples, shift
from nasbed.reports.audit.results import FeatureBias
from nasbed.reports.audit.rules import ols_rules

OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool")

PRED = [0.71, 0.69, 0.74, 0.74, 0.78, 0.75, 0.8, 0.77]
TRUE = [90.1, 90.3, 91.0, 91.0, 92.2, 92.0, 91.8, 93.0]
PARAMS = [0.1, 0.3, 0.2, 0.5, 0.9, 0.6, 1.0, 0.8]


@dataclass(frozen=True)
class World:
    """Cells of six operations: a tenth dead, the others' quality lumped near the top and tied to their operations."""

    quality: np.ndarray
    trainings: np.ndarray
    features: dict[str, np.ndarray]

    @classmethod
    def make(cls, rng: np.random.Generator, n: int, seeds: int, noise: float) -> World:
        cells = rng.integers(0, 5, (n, 6))
        counts = np.stack([(cells == k).sum(1) for k in range(5)], 1).astype(float)
        latent = counts @ [-0.3, 0.15, 0.4, 0.6, -0.1] + rng.normal(0, 0.5, n)
        quality = 0.93 - 0.04 * np.exp(-0.6 * latent)
        risk = counts[:, 0] + 0.5 * counts[:, 4] + rng.gumbel(0, 0.7, n)
        quality[np.argsort(-risk)[: n // 10]] = 0.1
        sd = np.where(quality < 0.2, 0.01, noise * (1 + (0.93 - quality) / 0.04))
        trainings = quality[:, None] + sd[:, None] * rng.normal(0, 1, (n, seeds))
        features = {f"n_{name}": counts[:, k] for k, name in enumerate(OPERATIONS)}
        features["params"] = counts[:, 2] + 9 * counts[:, 3] + rng.normal(0, 0.2, n)
        return cls(quality, trainings, features)

    def truthful(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Quality, its noise or transformation depending on nothing else."""
        n = len(self.quality)
        rank = (scipy.stats.rankdata(self.quality) - 0.5) / n
        normal = scipy.stats.norm.ppf(rank)
        return {
            "noiseless": self.quality,
            "noisy all over": normal + rng.normal(0, 0.7, n),
            "transformed": np.exp(6 * self.quality + rng.normal(0, 0.05, n)),
            "noisier at the top": rank + rng.normal(0, 1, n) * np.where(rank > 0.7, 0.4, 0.05),
            "noisier in the middle": rank + rng.normal(0, 1, n) * np.where(abs(rank - 0.5) < 0.2, 0.4, 0.05),
            "noisier at the bottom": rank + rng.normal(0, 1, n) * np.where(rank < 0.4, 0.6, 0.05),
            "blind to differences": np.minimum(rank, 0.6) + rng.normal(0, 0.02, n),
            "in five classes": np.round(5 * rank + rng.normal(0, 0.3, n)),
        }

    def biases(self, e: np.ndarray, counts: np.ndarray, **options: object) -> dict[str, FeatureBias]:
        e = e[:, None] if e.ndim == 1 else e
        use = np.ones(e.shape, dtype=bool)
        found = biases(e, use, self.trainings, self.features, counts, **options)  # type: ignore[arg-type]
        return {b.feature: b for b in found}


def drawn(rng: np.random.Generator, n: int, resamples: int = 200) -> np.ndarray:
    return rng.multinomial(n, np.full(n, 1 / n), resamples).astype(float)


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(np.random.default_rng(1), 500, 2, 0.004)


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    return drawn(np.random.default_rng(2), 500, 400)


# --- known answers


def test_rank_change_is_known() -> None:
    assert rank_change(PRED, TRUE) == pytest.approx([0.125, -0.125, 0, 0, 0, -0.125, 0.375, -0.25], abs=1e-12)
    assert scipy.stats.spearmanr(rank_change(PRED, TRUE), PARAMS).statistic == pytest.approx(0, abs=1e-9)


def test_groups_are_known() -> None:
    pred = np.array([0.2, 0.9, 0.5, 0.7, 0.4, 0.1, 0.8, 0.6])
    true = np.array([70.0, 72.0, 75.0, 74.0, 73.0, 71.0, 76.0, 72.5])
    depth = np.array([1, 4, 2, 4, 2, 1, 2, 4])
    d = rank_change(pred, true)
    assert d == pytest.approx([0.125, 0.625, -0.375, 0, -0.25, -0.125, -0.125, 0.125])
    assert scipy.stats.spearmanr(d, depth).statistic == pytest.approx(0.3952975620992697, abs=1e-9)
    assert partial_spearman(pred, depth, true).value == pytest.approx(0.7657869973847099, abs=1e-9)
    counts = drawn(np.random.default_rng(0), 8)
    (found,) = biases(pred[:, None], np.ones((8, 1), bool), true[:, None], {"depth": depth}, counts)
    means = {g.level: g.change.estimate for g in found.groups}
    assert means == pytest.approx({"1": 0.0, "2": -0.25, "4": 0.25}, abs=1e-12)
    assert [g.n for g in found.groups] == [2, 3, 3]
    assert found.p == found.p_holm == pytest.approx(0.08531695170377167, abs=1e-9)
    assert found.partial.estimate == pytest.approx(0.7657869973847099, abs=1e-9)


def test_partial_spearman_is_known() -> None:
    assert partial_spearman(PRED, TRUE, PARAMS).value == pytest.approx(0.3459927212375076, abs=1e-9)
    found = beyond(PRED, TRUE, PARAMS, drawn(np.random.default_rng(0), 8))
    assert found.estimate == pytest.approx(0.3459927212375076, abs=1e-9)
    assert found.low < found.estimate < found.high
    assert found.method == "architectures"


def test_partial_spearman_is_that_of_rank_residuals(world: World) -> None:
    x, y, z = (scipy.stats.rankdata(world.features[n]) for n in ("n_none", "n_conv_3x3", "params"))
    left, right = (v - np.polyval(np.polyfit(z, v, 1), z) for v in (x, y))
    assert partial_spearman(x, y, z).value == pytest.approx(scipy.stats.pearsonr(left, right).statistic, abs=1e-9)


# --- properties


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40))
def test_rank_changes_sum_to_nothing_and_turn_with_their_arguments(pairs: list[tuple[int, int]]) -> None:
    e, f = np.array(pairs, dtype=float).T
    d = rank_change(e, f)
    assert abs(d.sum()) < 1e-9
    assert np.abs(d).max() < 1
    assert rank_change(f, e) == pytest.approx(-d)
    assert rank_change(np.exp(e), f**3) == pytest.approx(d)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_shares_of_the_score_are_all_that_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, z = rng.normal(size=(3, 30))
    value = partial_spearman(x, y, z).value
    assert partial_spearman(np.exp(x), y**3, np.arctan(z)).value == pytest.approx(value)
    assert partial_spearman(-x, y, z).value == pytest.approx(-value)
    assert -1 <= value <= 1


def test_a_score_turned_round_has_the_opposite_effect(world: World, counts: np.ndarray) -> None:
    e = world.quality + 0.01 * world.features["n_skip_connect"]
    found, turned = world.biases(e, counts), world.biases(-e, counts)
    for name in world.features:
        assert turned[name].effect.estimate == pytest.approx(-found[name].effect.estimate)
        assert turned[name].p_effect == pytest.approx(found[name].p_effect)


# --- the estimator


def test_without_noise_the_shift_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(4)
    quality = rng.normal(size=200)
    phi = (quality + rng.normal(size=200) > 0).astype(float)
    t = 2 * (scipy.stats.rankdata(quality) - 0.5) / 200 - 1
    u = 0.5 * t**3 + 0.07 * phi + rng.normal(0, 0.05, 200)
    found = shift(Resamples(drawn(rng, 200)), u, np.stack([quality, quality], 1), phi[:, None])
    design = np.column_stack([np.ones(200), *(t**k for k in range(1, 6)), phi])
    assert found.values[0, 0] == pytest.approx(np.linalg.lstsq(design, u, rcond=None)[0][-1], abs=1e-9)


def test_resamples_are_least_squares_too() -> None:
    rng = np.random.default_rng(5)
    quality, counts = rng.normal(size=100), drawn(np.random.default_rng(6), 100)
    phi, u = rng.integers(0, 3, 100).astype(float), rng.random(100)
    found = shift(Resamples(counts), u, np.stack([quality, quality], 1), phi[:, None])
    t = 2 * (scipy.stats.rankdata(quality) - 0.5) / 100 - 1
    design = np.column_stack([np.ones(100), *(t**k for k in range(1, 6)), phi])
    rows = np.repeat(np.arange(100), counts[17].astype(int))
    assert found.values[18, 0] == pytest.approx(np.linalg.lstsq(design[rows], u[rows], rcond=None)[0][-1], abs=1e-9)


def test_two_seeds_make_the_classical_instrument() -> None:
    """With two values and two seeds the estimator is that of two-stage least squares, both roles pooled."""
    rng = np.random.default_rng(7)
    good = rng.random(400) < 0.5
    seeds = np.where(rng.random((400, 2)) < 0.1, ~good[:, None], good[:, None]).astype(float)
    phi, u = good + rng.normal(size=400), good + rng.normal(size=400)
    x = seeds - seeds.mean(0)
    z = [np.column_stack([x[:, s], phi - phi.mean()]) for s in (0, 1)]
    both = z[0].T @ z[1] + z[1].T @ z[0]
    both[1, 1] = 2 * z[0][:, 1] @ z[0][:, 1]
    beta = np.linalg.solve(both, (z[0] + z[1]).T @ (u - u.mean()))
    found = shift(Resamples(drawn(rng, 400)), u, seeds, phi[:, None])
    assert found.values[0, 0] == pytest.approx(beta[1], rel=0.02)  # marginal means of the two seeds differ a little


def test_corrected_is_the_partial_correlation_without_noise(world: World, counts: np.ndarray) -> None:
    rng = np.random.default_rng(20)
    three = World(world.quality, np.column_stack([world.trainings, world.quality + rng.normal(0, 0.01, 500)]), {})
    e, phi, Y = rng.normal(world.quality, 0.02), world.features["params"], three.trainings
    rho = scipy.stats.spearmanr(np.column_stack([e, phi, Y.mean(1), Y])).statistic
    r1 = np.mean([rho[3, 4], rho[3, 5], rho[4, 5]])
    ep, eg, pg = rho[0, 1], *(rho[i, 2] / np.sqrt(3 * r1 / (1 + 2 * r1)) for i in (0, 1))
    b = World(world.quality, Y, {"params": phi}).biases(e, counts)["params"]
    assert b.corrected.estimate == pytest.approx((ep - eg * pg) / np.sqrt((1 - eg**2) * (1 - pg**2)), abs=1e-9)
    assert b.corrected.low < b.corrected.estimate < b.corrected.high
    assert (b.raw, b.truth, b.excess) == pytest.approx((ep, rho[1, 2], ep - rho[1, 2]))


# --- verdicts


def test_bias_towards_skip_connections_is_caught(counts: np.ndarray) -> None:
    rng = np.random.default_rng(8)
    world = World.make(rng, 500, 2, 0.004)
    rank = scipy.stats.rankdata(world.quality) / 500
    skips = world.features["n_skip_connect"]
    found = world.biases(rank + 0.1 * skips + rng.normal(0, 0.2, 500), counts)
    b = found["n_skip_connect"]
    # A step of 0.1 on scores with a standard deviation of 0.36 is one of 0.08 on ranks, whose deviation is 0.29.
    assert b.effect.low < 0.1 * np.sqrt(1 / 12) / np.std(rank + 0.1 * skips + 0.2) < b.effect.high + 0.02
    assert 0.06 < b.effect.estimate < 0.1
    assert b.biased
    assert b.sentence.startswith("over-ranks architectures with more n_skip_connect: +0.0")
    assert " of the ranking per operation [0.0" in b.sentence
    assert b.effect.estimate == max(x.effect.estimate for x in found.values())
    against = world.biases(rank - 0.1 * skips + rng.normal(0, 0.2, 500), counts)["n_skip_connect"]
    assert against.biased
    assert against.sentence.startswith("under-ranks architectures with more n_skip_connect: -0.0")


def test_counting_parameters_is_caught(world: World, counts: np.ndarray) -> None:
    e = world.features["params"] + np.random.default_rng(9).normal(0, 2, 500)
    found = world.biases(e, counts)
    assert found["params"].biased
    assert 0.17 < found["params"].effect.estimate < 0.21  # of 0.2 per fifth for nothing but parameters
    assert found["params"].sentence.startswith("over-ranks architectures with more params: +0.")
    assert "per fifth" in found["params"].sentence
    assert found["n_skip_connect"].effect.high < 0


def test_a_truthful_estimator_looks_biased_only_to_the_naive(world: World, counts: np.ndarray) -> None:
    found = world.biases(world.quality, counts)
    naive = [b for b in found.values() if b.partial.low > 0 or b.partial.high < 0]
    assert len(naive) >= 3
    assert not any(b.biased for b in found.values())
    assert all("told apart from 0" in b.sentence for b in found.values())


def rates(rng: np.random.Generator, repetitions: int, n: int, seeds: int, noise: float, only: str = "") -> np.ndarray:
    """Shares called biased at 5 %, (estimators, 4, features): naive, corrected, effect, and any effect after Holm."""
    found = []
    for _ in range(repetitions):
        world = World.make(rng, n, seeds, noise)
        counts, row = drawn(rng, n), []
        for name, e in world.truthful(rng).items():
            if only in name:
                bs = list(world.biases(e, counts).values())
                away = [[i.low > 0 or i.high < 0 for i in (b.partial, b.corrected)] + [b.p_effect < 0.05] for b in bs]
                row.append([*np.array(away).T.tolist(), [any(b.biased for b in bs)] * len(bs)])
        found.append(row)
    return np.asarray(np.mean(found, axis=0))


def most(repetitions: int) -> float:
    """Upper end of the 99.9 % band of a rate of 5 %: every estimator is looked at by six features."""
    return float(scipy.stats.binom.ppf(0.999, repetitions, 0.05)) / repetitions


def test_false_alarms_briefly() -> None:
    found = rates(np.random.default_rng(10), 6, 400, 2, 0.004)
    assert found[:, 2].mean() < 0.08
    assert found[:, 2].max() <= most(6) + 1 / 6
    assert found[:, 0].mean() > 0.2  # the naive partial correlation


@pytest.mark.slow
@pytest.mark.parametrize(("n", "seeds", "noise"), [(500, 2, 0.004), (600, 3, 0.002), (300, 3, 0.008)])
@pytest.mark.parametrize(
    "estimator", ["noiseless", "all over", "transformed", "top", "middle", "bottom", "blind", "five"]
)
def test_false_alarms(estimator: str, n: int, seeds: int, noise: float) -> None:
    naive, corrected, effect, every = rates(np.random.default_rng([11, n]), 300, n, seeds, noise, estimator)[0]
    print(f"naive {naive.mean():.2f} corrected {corrected.mean():.2f} effect {effect.round(3)} any {every[0]:.3f}")
    assert every[0] <= most(300)
    assert effect.max() <= most(300)


@pytest.mark.slow
def test_the_interval_covers_a_bias() -> None:
    rng, hits, values = np.random.default_rng(12), [], []
    for n in (40_000, *[500] * 150):
        world = World.make(rng, n, 2, 0.004)
        rank = scipy.stats.rankdata(world.quality) / n
        e = rank + 0.05 * world.features["n_skip_connect"] + rng.normal(0, 0.2, n)
        b = world.biases(e, drawn(rng, n, 100 if n > 500 else 200))["n_skip_connect"]
        values.append(b.effect.estimate)
        hits.append(b.effect.low <= values[0] <= b.effect.high)
    assert np.mean(hits[1:]) >= 0.9
    assert np.mean(values[1:]) == pytest.approx(values[0], abs=0.003)


# --- what cannot be said


def test_one_seed_gives_no_verdict(world: World, counts: np.ndarray) -> None:
    one = World(world.quality, world.trainings[:, :1], world.features)
    b = one.biases(world.features["params"], counts)["n_skip_connect"]
    assert not b.biased
    assert np.isnan([b.effect.estimate, b.corrected.estimate, b.p_effect, b.p_effect_holm]).all()
    assert "one training seed" in b.reason
    assert b.sentence == f"no verdict on bias by n_skip_connect: {b.reason}"
    assert b.effect.reason == b.corrected.reason == b.reason
    assert np.isfinite([b.partial.low, b.raw, b.p_holm]).all()


def test_seeds_that_disagree_give_no_verdict(world: World, counts: np.ndarray) -> None:
    noise = World(world.quality, np.random.default_rng(13).normal(size=(500, 2)), world.features)
    found = noise.biases(world.features["params"], counts)
    assert all("agree too little" in b.reason and not b.biased for b in found.values())


def test_a_feature_that_is_quality_gives_no_verdict(world: World, counts: np.ndarray) -> None:
    rank = scipy.stats.rankdata(world.quality)
    own = World(rank, rank[:, None] + np.random.default_rng(14).normal(0, 5, (500, 2)), {"rank": rank})
    b = own.biases(world.quality, counts)["rank"]
    assert "hardly varies" in b.reason
    assert np.isnan(b.effect.estimate)


def test_constant_features_and_scores_have_reasons(world: World, counts: np.ndarray) -> None:
    flat = World(world.quality, world.trainings, {"depth": np.ones(500), "params": world.features["params"]})
    found = flat.biases(world.quality, counts)
    assert list(found) == ["depth", "params"]
    assert found["depth"].reason == "depth is the same everywhere"
    assert found["depth"].groups == ()
    assert found["params"].p_effect_holm == found["params"].p_effect  # a constant feature costs nothing
    assert flat.biases(np.zeros(500), counts)["params"].reason == "all scores are equal"
    level = World(world.quality, np.ones((500, 2)), world.features)
    assert level.biases(world.quality, counts)["params"].reason == "all architectures are equally good"


def test_few_architectures_have_reasons() -> None:
    counts = drawn(np.random.default_rng(15), 20)
    small = World.make(np.random.default_rng(16), 20, 2, 0.001)
    assert "too few" in small.biases(small.quality, counts)["params"].reason
    use = np.zeros((20, 1), dtype=bool)
    use[:2] = True
    (b,) = biases(small.quality[:, None], use, small.trainings, {"params": small.features["params"]}, counts)
    assert "needs 3" in b.reason
    assert partial_spearman([1, 2], [1, 2], [1, 2]).reason
    assert np.isnan(partial_spearman([1, 2, 3], [1, 2, 3], [1, 1, 1]).value)
    assert "determines" in partial_spearman([1, 2, 3, 4], [2, 1, 4, 3], [1, 2, 3, 4]).reason


def test_a_perfect_estimator_of_a_noiseless_truth_is_not_biased(world: World, counts: np.ndarray) -> None:
    sure = World(world.quality, np.stack([world.quality] * 2, 1), world.features)
    for b in sure.biases(world.quality, counts).values():
        assert b.p_effect > 0.9
        assert not b.biased
        assert b.p == 1.0


# --- columns, seeds, infinities


def test_columns_are_averaged(world: World, counts: np.ndarray) -> None:
    rng = np.random.default_rng(17)
    e = world.quality[:, None] + rng.normal(0, 0.01, (500, 3)) + 0.01 * world.features["n_skip_connect"][:, None]
    found = world.biases(e, counts)
    single = [world.biases(e[:, k], counts) for k in range(3)]
    for name, b in found.items():
        assert b.raw == pytest.approx(np.mean([s[name].raw for s in single]))
        assert b.effect.estimate == pytest.approx(np.mean([s[name].effect.estimate for s in single]))
        for g, group in enumerate(b.groups):
            mean = np.mean([s[name].groups[g].change.estimate for s in single])
            assert group.change.estimate == pytest.approx(mean)


def test_rows_out_of_use_do_not_matter(world: World, counts: np.ndarray) -> None:
    use = np.random.default_rng(18).random((500, 1)) < 0.8
    rows = use[:, 0]
    e = world.quality + 0.01 * world.features["n_skip_connect"]
    spoilt = np.where(rows, e, np.nan)[:, None]
    truth = np.where(use, world.trainings, np.nan)
    features = {n: np.where(rows, phi, np.nan) for n, phi in world.features.items()}
    found = biases(spoilt, use, truth, features, counts)
    kept = World(world.quality[rows], world.trainings[rows], {n: p[rows] for n, p in features.items()})
    assert found == tuple(kept.biases(e[rows], counts[:, rows]).values())


def test_what_has_no_score_ranks_last(world: World, counts: np.ndarray) -> None:
    e = world.quality.copy()
    e[:50] = -np.inf
    lowest = np.where(np.isinf(e), -1.0, e)
    assert world.biases(e, counts) == world.biases(lowest, counts)


def test_a_shared_training_is_left_out() -> None:
    rng, kept, left = np.random.default_rng(19), [], []
    for _ in range(8):
        world = World.make(rng, 500, 3, 0.004)
        e = scipy.stats.rankdata(world.trainings[:, 1]) / 500 + rng.normal(0, 0.1, 500)
        counts = drawn(rng, 500, 100)
        kept.append(any(b.biased for b in world.biases(e, counts).values()))
        left.append(any(b.biased for b in world.biases(e, counts, shared=(1,)).values()))
    assert np.mean(kept) > 0.4
    assert np.mean(left) < 0.2
    others = World(world.quality, world.trainings[:, [0, 2]], world.features)
    assert world.biases(e, counts, shared=(1,)) == others.biases(e, counts)


def test_ragged_seeds_count_where_they_are_whole(world: World, counts: np.ndarray) -> None:
    third = np.where(np.arange(500) < 250, world.quality, np.nan)[:, None]
    ragged = World(world.quality, np.hstack([world.trainings, third]), world.features)
    assert ragged.biases(world.quality, counts) == world.biases(world.quality, counts)
    torn = np.where(np.eye(2, dtype=bool)[np.arange(500) % 2], np.nan, world.trainings)
    b = World(world.quality, torn, world.features).biases(world.quality, counts)["params"]
    assert "one training seed" in b.reason
    assert b.truth == pytest.approx(scipy.stats.spearmanr(np.nansum(torn, 1), world.features["params"]).statistic)


def test_fifths_keep_ties_together_and_p_is_that_of_all_groups(world: World, counts: np.ndarray) -> None:
    lumps = np.where(np.arange(500) < 300, 0.0, np.arange(500.0))
    b = World(world.quality, world.trainings, {"size": lumps}).biases(world.features["params"], counts)["size"]
    assert [(g.level, g.n) for g in b.groups] == [("fifth 2", 300), ("fifth 4", 100), ("fifth 5", 100)]
    d = rank_change(world.features["params"], world.trainings.mean(1))
    assert b.p == pytest.approx(scipy.stats.kruskal(d[:300], d[300:400], d[400:]).pvalue)
    assert b.groups[1].change.estimate == pytest.approx(d[300:400].mean())
    half = b.groups[0].change.half_width
    assert half == pytest.approx(1.96 * d[:300].std() / np.sqrt(300), rel=0.15)


def test_steps_are_operations_levels_or_fifths(world: World, counts: np.ndarray) -> None:
    skips = world.features["n_skip_connect"]
    odd = World(world.quality, world.trainings, {"a": skips, "width": 2.0 ** (3 + skips), "wide": 5.0 * skips})
    found = odd.biases(world.quality + 0.01 * skips, counts)
    assert {b.effect.estimate for b in found.values()} == {found["a"].effect.estimate}
    assert "per step" in found["width"].sentence


def test_holm_is_over_the_features(world: World, counts: np.ndarray) -> None:
    found = list(world.biases(world.features["params"] + world.quality, counts).values())
    for raw, adjusted in (("p", "p_holm"), ("p_effect", "p_effect_holm")):
        p = np.array([getattr(b, raw) for b in found])
        order = np.argsort(p)
        expected = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
        assert [getattr(found[i], adjusted) for i in order] == pytest.approx(expected.tolist())


def test_nan_and_shapes_are_refused(world: World, counts: np.ndarray) -> None:
    e = world.quality.copy()
    e[7] = np.nan
    with pytest.raises(ValueError, match=r"scores\[0\] has NaN at positions \[7\]"):
        world.biases(e, counts)
    with pytest.raises(ValueError, match=r"params has NaN.* \[3\]"):
        World(e, world.trainings, {"params": np.where(np.arange(500) == 3, np.nan, 1.0)}).biases(world.quality, counts)
    nowhere = np.where(np.arange(500)[:, None] == 9, np.nan, world.trainings)
    with pytest.raises(ValueError, match=r"truth has NaN.*\(9, 0\)"):
        World(e, nowhere, world.features).biases(world.quality, counts)
    with pytest.raises(ValueError, match="differ"):
        biases(e[:, None], np.ones((500, 2), bool), world.trainings, world.features, counts)
    with pytest.raises(ValueError, match="resamples"):
        world.biases(world.quality, counts[:50])
    with pytest.raises(ValueError, match="scores for"):
        rank_change([1, 2], [1])


# --- rules


def test_rules_are_those_of_statsmodels(world: World) -> None:
    sm = pytest.importorskip("statsmodels.api")
    influence = pytest.importorskip("statsmodels.stats.outliers_influence")
    names = ["n_none", "n_skip_connect", "params"]
    d = rank_change(world.features["params"], world.quality)
    found = ols_rules(d, {n: world.features[n] for n in names})
    Z = np.column_stack([scipy.stats.zscore(world.features[n]) for n in names])
    fit = sm.OLS(d, sm.add_constant(Z)).fit(cov_type="HC3")
    assert [r.coefficient for r in found.rules] == pytest.approx(fit.params[1:].tolist())
    assert [r.se for r in found.rules] == pytest.approx(fit.bse[1:].tolist())
    assert [r.p for r in found.rules] == pytest.approx(fit.pvalues[1:].tolist(), abs=1e-12)
    assert found.r2 == pytest.approx(fit.rsquared)
    vifs = [influence.variance_inflation_factor(sm.add_constant(Z), j + 1) for j in range(3)]
    assert [r.vif for r in found.rules] == pytest.approx(vifs)
    assert found.warnings == ()


def test_collinear_features_are_named(world: World) -> None:
    d = rank_change(world.features["params"], world.quality)
    found = ols_rules(d, world.features)
    assert all(np.isinf(r.vif) for r in found.rules if r.feature.startswith("n_"))
    assert "n_none (VIF inf)" in found.warnings[0]
    assert np.isfinite([r.se for r in found.rules]).all()
    assert ols_rules(d, {"depth": np.ones(500)}).reason
    with pytest.raises(ValueError, match="NaN"):
        ols_rules(d, {"depth": np.full(500, np.nan)})
    with pytest.raises(ValueError, match="rank changes"):
        ols_rules(d, {"depth": np.ones(3)})
