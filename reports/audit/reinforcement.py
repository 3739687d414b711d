"""Whether weight sharing deceives its own policy: what is sampled often is trained often, and then scores well.

Three supernets with the same initial weights, batches and number of steps are compared on the same architectures. U
trains architectures drawn uniformly. O trains those that a policy draws, which learns from the scores of that very
supernet. R trains what O trained, step by step, behind a random permutation of the architectures: as much training on
as few of them, but not on those that the policy favours.

**Optimism** of a supernet is E[e - f] over the favourites, drawn from O's final policy, minus E[e - f] over
architectures drawn uniformly, e being the score and f the quality. The favourites are the same in all three. O - U is
what choosing adds, O - R what is left beside the mere concentration of training: reinforcement.

Two things stand beside it, because neither gap alone is proof. A supernet trained on good architectures may order all
of them more steeply: `given_quality` compares favourites with what the supernet gives uniformly drawn architectures of
equal quality, and takes away too much where exposure follows quality. And the policy picks by scores that have luck in
them, luck that U and R do not share, which looks like reinforcement: `Arm.exposure_bias` of R tells, since there nobody
chose, whether being trained more raises a score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np

from ..statistics import Estimate, Interval, bootstrap_mean
from ..statistics.values import Vector, checked, checked_fraction, midranks
from ..words import signed, span
from .bias import partial_spearman
from .one_shot import FEWEST, spread_ratio, tau_b

ARMS = ("uniform", "optimised", "shuffled")
U, O, R = range(3)  # noqa: E741
"""Positions in arrays by arm."""

FEWEST_SEEDS = 3

KNOTS = (0.2, 0.4, 0.6, 0.8, 0.9)
"""Quantiles of the qualities at which the curve of scores over quality may bend."""


@dataclass(frozen=True, slots=True)
class Replicate:
    """The three supernets of one seed, at M architectures: those drawn uniformly, and O's favourites.

    Attributes:
        seed: Number.
        members: (M,) who they are; the same number is the same architecture in every seed.
        f: (M,) qualities, higher is better.
        uniform: (M,) how often each was drawn uniformly.
        policy: (M,) how often each was drawn from O's final policy.
        probability: (M,) under the final policy.
        early: (M,) `sharing` in O after a tenth of its steps.
        e: (3, M) scores in U, O and R.
        exposure: (3, M) steps that trained the architecture.
        sharing: (3, M) steps that trained a part that it shares, mean over its parts.
        entropy: (T,) of the policy over its training, over log of the number of members of the space.
    """

    seed: int
    members: np.ndarray
    f: np.ndarray
    uniform: np.ndarray
    policy: np.ndarray
    probability: np.ndarray
    early: np.ndarray
    e: np.ndarray
    exposure: np.ndarray
    sharing: np.ndarray
    entropy: np.ndarray

    def __post_init__(self) -> None:
        m = checked(self.f, "f").size
        for name in ("members", "uniform", "policy", "probability", "early"):
            if checked(getattr(self, name), name).shape != (m,):
                raise ValueError(f"{name} must have {m} values, as f has, got {getattr(self, name).shape}")
        for name in ("e", "exposure", "sharing"):
            if checked(getattr(self, name), name, ndim=2).shape != (len(ARMS), m):
                raise ValueError(f"{name} must have shape (3, {m}), got {getattr(self, name).shape}")
        checked(self.entropy, "entropy")
        for name in ("uniform", "policy"):
            counts = getattr(self, name)
            if (counts < 0).any() or (counts != np.floor(counts)).any() or not counts.any():
                raise ValueError(f"{name} must be counts, some of them above 0")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of sampling, over all seeds.

    Attributes:
        name: `uniform`, `optimised` or `shuffled`.
        optimism: See above.
        given_quality: Optimism beyond uniformly drawn architectures of equal quality.
        exposure_bias: Partial Spearman(exposure, e - f | f) among the uniformly drawn. In O it runs both ways.
        sharing_bias: The same of `sharing`.
        tau_b: With the qualities, among the uniformly drawn.
        regret: Best quality minus that of the best score (ties: the first), among the uniformly drawn.
        error: Mean of e - f among the uniformly drawn.
        spread: sd(e) / sd(f) among the uniformly drawn.
    """

    name: str
    optimism: Interval
    given_quality: Interval
    exposure_bias: Interval
    sharing_bias: Interval
    tau_b: Interval
    regret: Interval
    error: Interval
    spread: Interval


@dataclass(frozen=True, slots=True)
class Reinforcement:
    """The audit of a policy that learns from the supernet that it trains.

    Gaps have intervals over seeds and over the architectures drawn, all other intervals are over seeds; `n` counts
    seeds.

    Attributes:
        seeds: Numbers.
        arms: By name.
        beyond_uniform: Optimism of O minus that of U.
        reinforcement: Optimism of O minus that of R.
        given_quality: Of O minus that of R, both as `Arm.given_quality`.
        policy_gain: E[f] over the favourites minus E[f] over the uniformly drawn: what the policy is worth.
        entropy: Of the policy over time, mean over seeds; 1 is uniform, 0 one architecture.
        lock_in: Partial Spearman(early, final probability | f) among the uniformly drawn.
        winners_differ: Share of pairs of seeds whose favourites of the best score are different architectures.
        exposure_agreement: Mean over pairs of seeds of Spearman between what O trained, among shared architectures.
        verdicts: Plain sentences.
    """

    seeds: tuple[int, ...]
    arms: Mapping[str, Arm]
    beyond_uniform: Interval
    reinforcement: Interval
    given_quality: Interval
    policy_gain: Interval
    entropy: tuple[float, ...]
    lock_in: Interval
    winners_differ: Estimate
    exposure_agreement: Estimate
    verdicts: tuple[str, ...]


def reinforcement(
    replicates: Sequence[Replicate],
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
    metric: str = "accuracy",
) -> Reinforcement:
    """The six reports of the self-reinforcement protocol.

    Intervals of gaps are percentiles of a bootstrap in two stages: seeds, and within each drawn one the uniform and the
    policy's draws, the same for all arms. It covers a little more than its level, since the seeds' spread holds that
    of the draws already. Under 3 seeds there is none.

    Args:
        replicates: One for each seed.
        rng: Of all intervals.
        resamples: Of each.
        level: Nominal coverage.
        metric: Of the qualities: accuracies as fractions, negative log perplexities.

    Raises:
        ValueError: No replicate, or differing numbers of recorded entropies.
    """
    if not replicates:
        raise ValueError("needs a replicate")
    if len({r.entropy.size for r in replicates}) > 1:
        raise ValueError("the replicates recorded the policy's entropy at differing numbers of times")
    own, drawn = _gaps(replicates, resamples, rng)

    def gap(plus: int, minus: int | None = None) -> Interval:
        values, resampled = (a[:, plus] - (0.0 if minus is None else a[:, minus]) for a in (own, drawn))
        return _percentiles(float(values.mean()), resampled, level, len(replicates))

    def over_seeds(value: Callable[[Replicate], float]) -> Interval:
        return _over_seeds(np.array([value(r) for r in replicates]), resamples, rng, level)

    arms = {
        name: Arm(name, gap(i), gap(3 + i), *(over_seeds(partial(statistic, arm=i)) for statistic in _BY_ARM))
        for i, name in enumerate(ARMS)
    }
    found = Reinforcement(
        tuple(r.seed for r in replicates),
        arms,
        gap(O, U),
        gap(O, R),
        gap(3 + O, 3 + R),
        gap(6),
        tuple(np.mean([r.entropy for r in replicates], axis=0).tolist()),
        over_seeds(lambda r: _among_uniform(r, r.early, r.probability)),
        winners_differ(replicates),
        exposure_agreement(replicates),
        (),
    )
    return replace(found, verdicts=_verdicts(found, unit_of(metric)))


def winners_differ(replicates: Sequence[Replicate]) -> Estimate:
    """Share of pairs of seeds that end in different architectures: O's favourite of the best score in O."""
    winners = [r.members[np.where(r.policy > 0, r.e[O], -np.inf).argmax()] for r in replicates]
    pairs = [a != b for a, b in combinations(winners, 2)]
    if not pairs:
        return Estimate(float("nan"), 0, "needs 2 seeds, got 1")
    return Estimate(float(np.mean(pairs)), len(pairs))


def exposure_agreement(replicates: Sequence[Replicate]) -> Estimate:
    """Mean over pairs of seeds of the Spearman correlation of O's `sharing`, among architectures of both."""
    found = []
    for a, b in combinations(replicates, 2):
        _, i, j = np.intersect1d(a.members, b.members, return_indices=True)
        x, y = (midranks(v)[0] for v in (a.sharing[O, i], b.sharing[O, j]))
        if x.size >= FEWEST and np.ptp(x) > 0 and np.ptp(y) > 0:
            found.append(float(np.corrcoef(x, y)[0, 1]))
    if not found:
        return Estimate(float("nan"), 0, "no two seeds share 3 architectures that were trained differently often")
    return Estimate(float(np.mean(found)), len(found))


def _gaps(replicates: Sequence[Replicate], resamples: int, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """The columns of `_gaps_of` by seed, (K, 7), and their means over resampled seeds and draws, (resamples, 7)."""
    seeds = rng.integers(0, len(replicates), (resamples, len(replicates)))
    own = []
    sums = np.zeros((resamples, 2 * len(ARMS) + 1))
    for k, r in enumerate(replicates):
        shares = [counts / counts.sum() for counts in (r.uniform, r.policy)]
        own.append(_gaps_of(r, shares[0][None], shares[1][None])[0])
        owners = np.nonzero(seeds == k)[0]
        sizes = [int(counts.sum()) for counts in (r.uniform, r.policy)]
        weights = [rng.multinomial(n, p, size=owners.size) / n for n, p in zip(sizes, shares, strict=True)]
        np.add.at(sums, owners, _gaps_of(r, *weights))
    return np.array(own), sums / len(replicates)


def _gaps_of(r: Replicate, uniform: Vector, policy: Vector) -> Vector:
    """Optimism of the arms, the same given quality, and the gain, (W, 7), under weights (W, M)."""
    difference = policy - uniform
    basis = _basis(r.f, r.uniform)
    products = (basis[:, :, None] * basis[:, None, :]).reshape(r.f.size, -1)
    p = basis.shape[1]
    moments = (uniform @ products).reshape(-1, p, p)
    targets = np.stack([uniform @ (basis * e[:, None]) for e in r.e], axis=2)
    curve = np.linalg.pinv(moments, hermitian=True) @ targets
    expected = np.einsum("wp,wpa->wa", policy @ basis, curve)
    return np.concatenate([difference @ (r.e - r.f).T, policy @ r.e.T - expected, (difference @ r.f)[:, None]], axis=1)


def _basis(f: Vector, uniform: Vector) -> Vector:
    """(M, p): a line in f that bends at quantiles of the uniformly drawn; scaled, so that products are of one size."""
    drawn = np.repeat(f, uniform.astype(np.int64))
    scale = np.ptp(drawn) or 1.0
    x = (f - drawn.min()) / scale
    knots = np.unique((np.quantile(drawn, KNOTS) - drawn.min()) / scale)
    return np.column_stack([np.ones_like(x), x, *(np.maximum(x - k, 0.0) for k in knots if 0.0 < k < 1.0)])


def _among_uniform(r: Replicate, x: Vector, y: Vector) -> float:
    drawn = r.uniform > 0
    return partial_spearman(x[drawn], y[drawn], r.f[drawn]).value


def _regret(r: Replicate, arm: int) -> float:
    drawn = r.uniform > 0
    return float(r.f[drawn].max() - r.f[drawn][r.e[arm, drawn].argmax()])


_BY_ARM: tuple[Callable[..., float], ...] = (
    lambda r, arm: _among_uniform(r, r.exposure[arm], r.e[arm] - r.f),
    lambda r, arm: _among_uniform(r, r.sharing[arm], r.e[arm] - r.f),
    lambda r, arm: tau_b(r.e[arm, r.uniform > 0], r.f[r.uniform > 0]),
    _regret,
    lambda r, arm: float(np.average(r.e[arm] - r.f, weights=r.uniform)),
    lambda r, arm: spread_ratio(r.e[arm, r.uniform > 0], r.f[r.uniform > 0]).value,
)
"""In the order of the fields of `Arm`."""


def _over_seeds(values: Vector, resamples: int, rng: np.random.Generator, level: float) -> Interval:
    if np.isnan(values).any():
        reason = "in some seed there is no variance, or there are too few architectures"
        return Interval(math.nan, math.nan, math.nan, level, "seeds", values.size, reason)
    found = bootstrap_mean([values], resamples=resamples, rng=rng, level=level)
    return Interval(found.estimate, found.low, found.high, level, "seeds", found.n, found.reason)


def _percentiles(estimate: float, values: Vector, level: float, n: int) -> Interval:
    tail = (1.0 - checked_fraction(level, "level")) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail]).tolist()
    reason = f"only {n} seeds: a bootstrap interval covers less than its level" if n < 10 else ""
    if n < FEWEST_SEEDS:
        low, high, reason = math.nan, math.nan, f"an interval needs {FEWEST_SEEDS} seeds, got {n}"
    return Interval(estimate, low, high, level, "seeds and architectures", n, reason)


def unit_of(metric: str) -> tuple[float, str]:
    """Factor and name of the unit that differences of qualities are shown in."""
    return (100.0, "pp") if metric == "accuracy" else (1.0, "nats" if metric == "perplexity" else metric)


def _verdicts(found: Reinforcement, unit: tuple[float, str]) -> tuple[str, ...]:
    optimised, plain, control = (found.arms[ARMS[i]] for i in (O, U, R))
    lines = [
        _excess("the policy's favourites are", found.beyond_uniform, unit, "beyond what uniform sampling gives"),
        _excess(
            "they are", found.reinforcement, unit, "beyond what as concentrated a training on other architectures gives"
        ),
        _excess("given their quality they are", found.given_quality, unit, "beyond what such a training gives"),
        _told(
            "being trained more raises a score beyond merit where nobody chose",
            "being trained more lowers a score where nobody chose",
            "being trained more has no effect on a score where nobody chose, as far as can be told",
            control.sharing_bias,
        ),
        f"the favourites are worth {span(found.policy_gain, scale=unit[0])} {unit[1]} more than architectures drawn"
        " uniformly",
        f"tau-b with the qualities is {signed(optimised.tau_b.estimate, 2)} under the policy and"
        f" {signed(plain.tau_b.estimate, 2)} under uniform sampling, which does not show that favourites are"
        " over-estimated",
    ]
    if found.entropy:
        ends = " to ".join(f"{found.entropy[i]:.2f}" for i in (0, -1))
        lines.append(f"the entropy of the policy went from {ends} of the largest one")
    if not math.isnan(found.lock_in.estimate):
        lines.append(
            _told(
                "what was trained early is likelier in the end than its quality says",
                "what was trained early is less likely in the end than its quality says",
                "early training does not tell the final policy beyond quality",
                found.lock_in,
            )
        )
    if not found.winners_differ.reason:
        lines.append(
            f"{100 * found.winners_differ.value:.0f} % of the pairs of seeds end in different architectures;"
            f" what they trained agrees to a Spearman of {signed(found.exposure_agreement.value, 2)}"
        )
    return tuple(lines)


def _excess(subject: str, gap: Interval, unit: tuple[float, str], beyond: str) -> str:
    size = f"{span(gap, scale=unit[0])} {unit[1]}"
    if gap.low > 0:
        return f"{subject} over-estimated by {size} {beyond}"
    if gap.high < 0:
        return f"{subject} under-estimated by {size} {beyond}"
    if math.isnan(gap.low):
        return f"it cannot be said whether {subject} over-estimated {beyond}: {size}"
    return f"{subject} not over-estimated {beyond}, as far as can be told: {size}"


def _told(above: str, below: str, neither: str, value: Interval) -> str:
    text = above if value.low > 0 else below if value.high < 0 else neither
    if math.isnan(value.low):
        text = f"it cannot be said whether {above}"
    return f"{text}: partial Spearman {span(value)}"
