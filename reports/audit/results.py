"""What an audit holds: frozen values that tables, figures and pages are drawn from, and that turn into JSON.

An `Interval` says in `method` what was resampled: `architectures`, where the rows are a sample of the space, or
`seeds`, of trainings and of the estimator, where the whole space is there. `n` is the number of architectures. What is
undefined is NaN with a `reason`. Intervals of a `Decision` are over searches, and `n` counts those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..results import plain
from ..statistics import Estimate, Interval

Severity = Literal["fault", "warning", "finding"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How the numbers were computed.

    Attributes:
        resamples: Of every bootstrap interval.
        seed: Of the generator that each interval starts afresh, so that no number depends on another.
        level: Nominal coverage.
        top: Share of the architectures that the within-top statistics look at.
        alpha: Level of the tests, after Holm's correction over features.
    """

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95
    top: float = 0.1
    alpha: float = 0.05


@dataclass(frozen=True, slots=True)
class Attainable:
    """A correlation beside what training seeds let anybody reach.

    Attributes:
        observed: The correlation with the mean of the S recorded seeds.
        seed_to_seed: Correlation of two trainings of one architecture, r1.
        reliability: Of the mean of the S seeds, by Spearman and Brown, r_S; NaN for tau, which has no such formula.
        ceiling: What a perfect estimator would reach: sqrt(r_S), for tau by simulation.
        share: observed / ceiling.
        disattenuated: observed / sqrt(r_S rel_e): with the noiseless quality, by a noiseless estimator; NaN for tau.
        estimator_reliability: rel_e, the correlation of two estimator seeds; 1 if deterministic.
        reason: Why the ceiling is unknown ("one training seed: ceiling unknown"), else "".
    """

    observed: Interval
    seed_to_seed: float
    reliability: float
    ceiling: float
    share: float
    disattenuated: float
    estimator_reliability: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Top:
    """Whether an estimator finds the best, at one k.

    Attributes:
        k: Number of architectures.
        share: k / N.
        p_top: P@topK, and so on by Ning et al. (2021): `p_bottom`, `best_rank` BR@K, `worst_rank` WR@K, `n_at` n@k.
        regret: Best of all minus best of the predicted top k, in units of the metric (fractions for accuracies).
        random: The expectation of each under a random ranking, by the same names.
    """

    k: int
    share: float
    p_top: float
    p_bottom: float
    best_rank: float
    worst_rank: float
    n_at: float
    regret: float
    random: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Group:
    """Mean signed rank change of the architectures of one level of a feature; positive is over-ranked."""

    level: str
    n: int
    change: Interval


@dataclass(frozen=True, slots=True)
class FeatureBias:
    """How an estimator leans on one feature of architectures.

    Attributes:
        feature: Its name.
        groups: Mean relative rank change d by level (operation counts, depth) or by fifths (parameters, FLOPs).
        p: Kruskal and Wallis over the groups.
        p_holm: Over the features.
        raw: Spearman(e, feature).
        truth: Spearman(f, feature).
        excess: raw - truth.
        partial: Spearman(e, feature | f), f measured by the mean over seeds.
        corrected: The same, corrected for the noise of f: what a truthful estimator has 0 of.
        effect: Shift in ranking, in shares of it, per step of the feature (per fifth for continuous ones) that the
            quality does not justify, with training seeds as instruments for each other; positive is over-ranked.
        p_effect: Of effect = 0, two-sided; Holm over features in `p_effect_holm`.
        biased: Whether it is told apart from 0 after Holm.
        sentence: The verdict in words.
        reason: Why something is undefined (a constant feature, one training seed), else "".
    """

    feature: str
    groups: tuple[Group, ...]
    p: float
    p_holm: float
    raw: float
    truth: float
    excess: float
    partial: Interval
    corrected: Interval
    effect: Interval
    p_effect: float
    p_effect_holm: float
    biased: bool
    sentence: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Errors of an estimator on the scale of the metric, e - f; accuracies as fractions.

    Attributes:
        mean_error: Signed; negative is under-estimation.
        slope: Of f on e.
        intercept: Of f on e.
        rmse: Root mean square of e - f.
        mae: Mean of |e - f|.
        sd_error: Standard deviation of e - f, the part that can change a ranking.
        cov_with_truth: Covariance of e - f with f.
        spread: sd(e) / sd(f).
        n: Architectures.
    """

    mean_error: Interval
    slope: float
    intercept: float
    rmse: float
    mae: float
    sd_error: float
    cov_with_truth: float
    spread: float
    n: int


@dataclass(frozen=True, slots=True)
class Flag:
    """Something that a reader has to know: a sign that is wrong, labels that leaked, nothing beyond a baseline.

    Attributes:
        kind: `sign`, `leak`, `shared_seed`, `baseline`, `flat_top`, `bias`, `unscored`, `noise`.
        severity: A fault makes other numbers meaningless, a warning limits them, a finding is a result.
        sentence: In words, with the numbers that it rests on.
    """

    kind: str
    severity: Severity
    sentence: str


@dataclass(frozen=True, slots=True)
class EstimatorAudit:
    """One estimator on one table.

    Attributes:
        name: Label.
        table: Name.
        source: See `protocols.Scores`.
        accuracy_scale, deterministic, sign, baseline: Of the scores.
        n: Architectures audited.
        unscored: Those among them without a score, ranked last; mean over estimator seeds.
        left_out: Architectures that were not asked for.
        fitted: Mean number of architectures per seed left out because the estimator was fitted on them.
        seeds: Of the estimator.
        ties: Share of architectures whose score another one has too.
        correlations: By name: tau_b, spearman, pearson, weighted_tau, weighted_tau_by_truth, sparse_tau, discordance.
        attainable: For spearman, pearson and tau_b, over all architectures.
        top_attainable: The same within the true top (`Settings.top`).
        tau_top_predicted: tau-b within the predicted top.
        tops: For each k.
        beyond_params: Partial Spearman(e, f | params).
        beyond_flops: Partial Spearman(e, f | FLOPs).
        biases: For each feature that varies.
        calibration: On the accuracy scale; else None.
        leaks: See `flags`; association with the noise of each training seed, by seed.
        answer: Median cost of an answer, in median full trainings; NaN if unknown.
        preparation: Mean cost before the first answer, in median full trainings; NaN if unknown.
        decision: What the estimate costs a search; None where it was not asked for.
        flags: The gravest first.
        verdicts: Plain sentences, the headline first.
    """

    name: str
    table: str
    source: str
    accuracy_scale: bool
    deterministic: bool
    sign: int
    baseline: bool
    n: int
    unscored: float
    left_out: int
    fitted: float
    seeds: int
    ties: float
    correlations: Mapping[str, Interval]
    attainable: Mapping[str, Attainable]
    top_attainable: Mapping[str, Attainable]
    tau_top_predicted: Interval
    tops: tuple[Top, ...]
    beyond_params: Interval
    beyond_flops: Interval
    biases: tuple[FeatureBias, ...]
    calibration: Calibration | None
    leaks: Mapping[int, Estimate]
    answer: float
    preparation: float
    decision: Decision | None
    flags: tuple[Flag, ...]
    verdicts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What an estimate costs a search: the swap-estimator counterfactual, paired by seed.

    Intervals are over searches. Regrets are normalised: 0 for the best architecture of the table, 1 for the median
    one. EE searches and picks with the estimate, EO searches with it and picks among the visited ones with the oracle,
    OO has the oracle throughout.

    Attributes:
        strategy: Registered name.
        decisions: Evaluations of each search.
        seeds: Number of searches of each kind.
        ee, eo, oo: Mean regrets.
        total: EE - OO.
        selection: EE - EO, what re-ranking the visited architectures would save.
        guidance: EO - OO, what searching the wrong places costs.
        top_k: k to the mean regret when the best k visited are trained and the best of them is picked.
        top_k_gain: k to that less the regret of OO for the same money; empty where costs are unknown. Negative: the
            estimate is worth its cost.
        equal_cost: EE - OO where OO may spend no more than EE; None where costs are unknown. Estimates that cost less
            than a training are held against one training.
        oo_decisions: Decisions that OO could afford at equal cost.
    """

    strategy: str
    decisions: int
    seeds: int
    ee: Interval
    eo: Interval
    oo: Interval
    total: Interval
    selection: Interval
    guidance: Interval
    top_k: Mapping[int, Interval] = field(default_factory=dict)
    top_k_gain: Mapping[int, Interval] = field(default_factory=dict)
    equal_cost: Interval | None = None
    oo_decisions: float = float("nan")


@dataclass(frozen=True, slots=True)
class NoisePoint:
    """Truth plus normal noise of `sd` deviations of the truth: its tau-b on this table, and the regret of a search."""

    sd: float
    tau_b: float
    regret: Interval


@dataclass(frozen=True, slots=True)
class Factorial:
    """Strategies crossed with estimators.

    Attributes:
        strategies: Labels.
        estimators: Labels.
        regrets: EE regret, means over seeds, (strategies, estimators).
        interaction: What a cell departs from the sum of its row and column effects, same shape.
        share: Of the variance between cells: strategies, estimators, interaction.
        p: Of no interaction, by flipping the signs of a seed's interactions together; NaN if not computed.
    """

    strategies: tuple[str, ...]
    estimators: tuple[str, ...]
    regrets: tuple[tuple[float, ...], ...]
    interaction: tuple[tuple[float, ...], ...]
    share: Mapping[str, float]
    p: float


@dataclass(frozen=True, slots=True)
class FidelityPoint:
    """One point of a fidelity axis: trainings at `value` of `axis`, against full trainings.

    Attributes:
        name: Label of the estimates.
        axis: epochs, data, resolution, width, depth.
        value: Of the axis; the full one is last.
        cost: Median, in full trainings.
        tau_b: Against the truth.
        spearman: Against the truth.
        disorder: (1 - tau_b) / 2.
        crossing: Share of pairs within the true top that are ordered the other way.
        regret_at: k to regret@k.
        switch_regret: Best of a pool minus best of the promoted third, mean over 1,000 pools of 27.
        others_only: Whether the truth is the mean of the training seeds that the estimate did not see.
    """

    name: str
    axis: str
    value: float
    cost: float
    tau_b: float
    spearman: float
    disorder: float
    crossing: float
    regret_at: Mapping[int, float]
    switch_regret: float
    others_only: bool = False


@dataclass(frozen=True, slots=True)
class Front:
    """Non-dominated estimators of cost against one quality.

    Attributes:
        quality: `tau_b` or `regret_at_10`.
        names: All estimators with a known cost.
        costs: Of scoring the whole table once, in full trainings: preparation and answers.
        values: The quality.
        front: Names on the front, the cheapest first.
    """

    quality: str
    names: tuple[str, ...]
    costs: tuple[float, ...]
    values: tuple[float, ...]
    front: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableAudit:
    """Every estimator on one table.

    Attributes:
        table, digest, space, pipeline, metric: Of the truth.
        complete: Whether the whole space was audited.
        n: Architectures.
        size: Of the space.
        seeds: Training seeds.
        diverged: Architectures left out because a training ended in an infinite metric.
        estimators: The best tau-b first; baselines among them.
        fidelities: Points by axis.
        fronts: Cost against qualities.
        noise: The noise-injection curve; empty where it was not asked for.
        factorial: None where it was not asked for.
        warnings: What a reader has to know before believing the numbers.
        points: By estimator, (N, 2) arrays of score (first seed) and truth for the scatter plots; not in the JSON.
    """

    table: str
    digest: str
    space: str
    pipeline: str
    metric: str
    complete: bool
    n: int
    size: int
    seeds: int
    diverged: int
    estimators: tuple[EstimatorAudit, ...]
    fidelities: tuple[FidelityPoint, ...]
    fronts: tuple[Front, ...]
    noise: tuple[NoisePoint, ...]
    factorial: Factorial | None
    warnings: tuple[str, ...]
    points: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Audit:
    """One table or several."""

    settings: Settings
    tables: tuple[TableAudit, ...]

    def to_dict(self) -> dict[str, Any]:
        """All numbers as JSON-able values."""
        found: dict[str, Any] = plain(self)
        for table in found["tables"]:
            del table["points"]
        return found
