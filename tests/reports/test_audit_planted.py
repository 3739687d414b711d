"""The whole audit on synthetic worlds with known answers: it finds what was planted, and nothing in a truthful one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from nasbed.protocols import Traits
from nasbed.protocols.evidence import Scores, Truth
from nasbed.reports.audit.audit import audit_table
from nasbed.reports.audit.results import EstimatorAudit, Settings
from nasbed.reports.results import plain

N, SEEDS = 500, 3
SETTINGS = Settings(resamples=100)


class World:
    """Architectures with sizes, skip connections and dead ones; quality in part by size; noisy trainings."""

    def __init__(self, seed: int, *, n: int = N, seeds: int = SEEDS) -> None:
        self.rng = np.random.default_rng(seed)
        self.params = self.rng.gamma(4.0, 1000.0, n).round()
        self.skips = self.rng.binomial(4, 0.3, n).astype(float)
        merit = 0.6 * _standard(np.log(self.params)) - 0.3 * _standard(self.skips) + 0.8 * self.rng.standard_normal(n)
        self.quality = 0.7 + 0.2 / (1.0 + np.exp(-1.5 * merit))
        self.quality[self.rng.random(n) < 0.08] = 0.1
        self.values = self.quality[:, None] + 0.012 * self.rng.standard_normal((n, seeds))
        self.n = n

    def truth(self) -> Truth:
        return Truth(
            "world", "digest", "synthetic", "base", "accuracy", True, "flops", complete=False, size=10 * self.n,
            architectures=tuple(f"a{i}" for i in range(self.n)), values=self.values,
            seeds=tuple(range(self.values.shape[1])), cost=np.full(self.n, 10.0),
            features={"params": self.params, "n_skip": self.skips},
        )  # fmt: skip

    def truthful(self, noise: float = 0.6) -> np.ndarray:
        """Any monotone function of quality and noise that knows nothing else: columns of two estimator seeds."""
        return np.exp(_standard(self.quality)[:, None] + noise * self.rng.standard_normal((self.n, 2)))


def _standard(x: np.ndarray) -> np.ndarray:
    return np.asarray((x - x.mean()) / x.std())


def scores(name: str, values: np.ndarray, *, baseline: bool = False, accuracy_scale: bool = False) -> Scores:
    columns = values.reshape(len(values), -1)
    return Scores(
        name, "planted", Traits(accuracy_scale, deterministic=columns.shape[1] == 1), columns,
        asked=np.ones(len(columns), bool), fitted=np.zeros(columns.shape, bool), reasons={},
        costs=np.full(columns.shape, 0.1), preparation=np.zeros(columns.shape[1]), unit="flops", full=10.0,
        baseline=baseline,
    )  # fmt: skip


def audited(world: World, values: np.ndarray, settings: Settings = SETTINGS) -> EstimatorAudit:
    found = audit_table(world.truth(), [scores("params", world.params, baseline=True), scores("e", values)], settings)
    [one] = [e for e in found.estimators if e.name == "e"]
    return one


def flipped(w: World) -> np.ndarray:
    return -w.truthful()


def size_and_noise(w: World) -> np.ndarray:
    return _standard(np.log(w.params))[:, None] + 0.2 * w.rng.standard_normal((w.n, 2))


def test_labels(w: World) -> np.ndarray:
    return w.values.mean(1) + 0.002 * w.rng.standard_normal(w.n)


test_labels.__test__ = False  # type: ignore[attr-defined]


def validation_of_seed_0(w: World) -> np.ndarray:
    """Of the very training whose test value is in the truth: half of the noise is common."""
    common = (w.values[:, 0] - w.quality) / np.sqrt(2.0)
    return w.quality + common + 0.012 / np.sqrt(2.0) * w.rng.standard_normal(w.n)


def flat_top(w: World) -> np.ndarray:
    """Right about everything below the best fifth, and blind within it."""
    z = _standard(w.quality)
    return np.minimum(z, np.quantile(z, 0.8))[:, None] + 0.02 * w.rng.standard_normal((w.n, 2))


def skip_lover(w: World) -> np.ndarray:
    return _standard(w.quality)[:, None] + 0.35 * w.skips[:, None] + 0.4 * w.rng.standard_normal((w.n, 2))


PLANTED: dict[str, tuple[Callable[[World], np.ndarray], str]] = {
    "a flipped sign": (flipped, "sign"),
    "parameter count and noise": (size_and_noise, "baseline"),
    "test labels": (test_labels, "leak"),
    "the evaluated training": (validation_of_seed_0, "shared_seed"),
    "nothing to say about the top": (flat_top, "flat_top"),
    "a liking for skip connections": (skip_lover, "bias"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_was_planted_is_found(name: str) -> None:
    make, kind = PLANTED[name]
    worlds = [World(seed) for seed in range(2)]
    found = [audited(w, make(w)) for w in worlds]
    assert all(kind in {f.kind for f in one.flags} for one in found), [[f.kind for f in one.flags] for one in found]


@pytest.mark.parametrize("name", PLANTED)
def test_it_is_found_for_its_own_reason(name: str) -> None:
    """The faults that other plants do not have are not reported of them."""
    make, kind = PLANTED[name]
    world = World(7)
    grave = {f.kind for f in audited(world, make(world)).flags} & {"sign", "leak", "shared_seed"}
    assert grave == ({kind} & {"sign", "leak", "shared_seed"})


def test_the_bias_has_its_sign_and_size() -> None:
    world = World(3)
    [skips] = [b for b in audited(world, skip_lover(world)).biases if b.feature == "n_skip"]
    assert skips.biased
    assert skips.effect.low > 0.03
    assert skips.effect.high < 0.2
    assert "over-ranks" in skips.sentence
    assert "n_skip" in skips.sentence


def test_every_verdict_is_a_sentence_with_its_numbers() -> None:
    world = World(4)
    one = audited(world, skip_lover(world))
    assert one.verdicts[0].startswith("e ranks with τ-b = 0.")
    assert "could be reached" in one.verdicts[0]
    assert all(line.endswith(".") for line in one.verdicts)


def false_alarms(repetitions: int, first: int) -> tuple[int, int]:
    """Truthful estimators with a grave flag, and with a bias."""
    grave = biased = 0
    for seed in range(first, first + repetitions):
        world = World(seed, n=300)
        one = audited(world, world.truthful(), Settings(resamples=100, seed=seed))
        kinds = {f.kind for f in one.flags}
        grave += bool(kinds & {"sign", "leak", "shared_seed", "baseline"})
        biased += "bias" in kinds
    return grave, biased


def test_a_truthful_estimator_is_unbiased() -> None:
    grave, biased = false_alarms(12, first=1000)
    assert grave <= binom.ppf(0.99, 12, 0.01)
    assert biased <= binom.ppf(0.99, 12, SETTINGS.alpha)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_truthful_estimator_is_unbiased_at_the_nominal_rate() -> None:
    grave, biased = false_alarms(400, first=5000)
    assert grave <= binom.ppf(0.99, 400, 0.01)
    assert biased <= binom.ppf(0.99, 400, SETTINGS.alpha)


def test_the_same_seed_gives_the_same_audit() -> None:
    world = World(11)
    values = world.truthful()
    once, again, other = (plain(audited(world, values, replace(SETTINGS, seed=s))) for s in (0, 0, 1))
    assert once == again
    tau, differing = once["correlations"]["tau_b"], other["correlations"]["tau_b"]
    assert tau["low"] != differing["low"]
    assert tau["estimate"] == differing["estimate"]


def test_what_is_not_there_is_counted() -> None:
    world = World(12)
    truth = world.truth()
    truth.values[5] = np.nan
    values = world.truthful()
    values[7, 0] = np.nan
    s = scores("e", values)
    s.asked[9] = False
    s.fitted[11] = True
    found = audit_table(truth, [s], SETTINGS)
    [one] = found.estimators
    assert (found.n, found.diverged) == (N - 1, 1)
    assert (one.n, one.left_out, one.fitted, one.unscored) == (N - 3, 1, 1.0, 0.5)
    assert any("no finite quality" in w for w in found.warnings)
    assert any("not asked for" in w for w in found.warnings)
