"""What a comparison holds: frozen values that tables, figures and pages are drawn from, and that turn into JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .frame import Absent, TableFacts
from .statistics import Band, Estimate, Interval, Verdict
from .statistics.values import jsonable


def plain(value: object) -> Any:
    """Turn nested dataclasses, mappings, tuples and numpy values into what `json.dumps(allow_nan=False)` accepts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return jsonable(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """A headline scalar, one value per run.

    Attributes:
        name: `regret_final`, `late_area` or, without a table, `test`.
        title: For headings.
        noun: For sentences.
        unit: Of the values as stored.
        lower_is_better: Direction.
        rope: Half-width of the region of practical equivalence, in the same unit.
        scale: Factor for display: 100 where fractions are shown in percent.
    """

    name: str
    title: str
    noun: str
    unit: str
    lower_is_better: bool
    rope: float
    scale: float = 1.0

    @property
    def shown(self) -> str:
        """Unit of a value times `scale`."""
        return {"normalised regret": "nr"}.get(self.unit, "%" if self.scale == 100.0 else self.unit)

    @property
    def shown_difference(self) -> str:
        """Unit of a difference of values times `scale`."""
        return "pp" if self.scale == 100.0 else self.shown


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """How the numbers were computed.

    Attributes:
        resamples: Of every bootstrap interval; bands and intervals of the IQM use at most 2000.
        seed: Of the generator that each interval starts afresh, so that no number depends on another.
        alpha: Level of the Holm-adjusted tests.
        level: Nominal coverage of intervals and bands.
        targets: Normalised regrets for running times.
        paired: Whether equal seeds share randomness in this study.
    """

    resamples: int
    seed: int
    alpha: float
    level: float
    targets: tuple[float, ...]
    paired: bool


@dataclasses.dataclass(frozen=True, slots=True)
class RunScore:
    """The scalars of one run. `values` holds each metric by name, and the raw `regret` in units of the task metric."""

    key: str
    method: str
    table: str
    seed: int
    values: Mapping[str, float]
    test: float
    params: float
    flops: float


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Running time to a normalised regret.

    Attributes:
        target: The regret.
        ert: Expected running time as a share of the budget, infinite without a hit.
        spent: Everything spent by all runs until they hit or ended, in budgets: a lower bound of the ERT without a hit.
        hits: Runs that reached it.
        runs: All runs.
    """

    target: float
    ert: float
    spent: float
    hits: int
    runs: int


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """One method on one table, or over all tables.

    Attributes:
        method: Label.
        table: Name, or None for all tables together.
        planned: Runs that the study lists.
        runs: Keys of the finished ones: everything here was computed from them.
        seeds: Finished seeds, the fewest on a table.
        scores: Mean over tables of the mean over seeds, by name: each metric, and `regret` (raw).
        iqm: Interquartile mean of the first metric over all runs.
        fail_rate: Share of runs with normalised regret above 0.5; NaN without a table.
        targets: Running times; empty without a table.
        spent: Median share of the budget that a run spent; NaN without a known budget.
        costs: Share of each kind in everything spent.
        evaluations: Median number per run.
        diversity: Median share of distinct architectures among evaluations; NaN for weight sharing.
        unusable: Evaluations that were invalid or crashed.
        test: Median test score of the final incumbent.
        params: Median number of parameters of the final incumbent.
        flops: Median FLOPs of the final incumbent.
    """

    method: str
    table: str | None
    planned: int
    runs: tuple[str, ...]
    seeds: int
    scores: Mapping[str, Interval]
    iqm: Interval | None
    fail_rate: float
    targets: tuple[Target, ...]
    spent: float
    costs: Mapping[str, float]
    evaluations: float
    diversity: float
    unusable: int
    test: float
    params: float
    flops: float


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Two methods on one metric over all tables.

    Attributes:
        first: The method in question.
        second: What it is compared with.
        metric: Name.
        difference: Mean of first minus mean of second.
        a12: Probability that a run of first has the larger value, ties counting half, mean over tables.
        paired: Whether the interval pairs runs of equal seed.
        correlation: Of the values paired by seed; NaN with a reason if there are no pairs.
        z: Of the van Elteren test; positive if first has the larger values.
        p: Two-sided.
        p_holm: Adjusted over all pairs of this metric.
        verdict: On `first`.
        runs: Keys of both methods' runs.
    """

    first: str
    second: str
    metric: str
    difference: Interval
    a12: Interval
    paired: bool
    correlation: Estimate
    z: float
    p: float
    p_holm: float
    verdict: Verdict
    runs: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class TableTest:
    """The test with tables as blocks, or the sentence that says why there is none.

    Attributes:
        sentence: For the report.
        tables: Number of tables.
        needed: Fewest tables with which any pair could become significant.
        methods: Compared ones; the following are in their order.
        mean_ranks: 1 = best; empty if the test was not made.
        cd: Nemenyi's critical difference, a drawing aid; NaN if not made.
        cliques: Sets of methods without a significant pair (Wilcoxon and Holm).
    """

    sentence: str
    tables: int
    needed: int
    methods: tuple[str, ...] = ()
    mean_ranks: tuple[float, ...] = ()
    cd: float = float("nan")
    cliques: tuple[tuple[str, ...], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Curve:
    """A mean curve with a pointwise band: `band.estimate` over `x`, for a method on a table (None: over all tables)."""

    method: str
    table: str | None
    x: tuple[float, ...]
    band: Band


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that a report says about a study.

    Attributes:
        study: Name of the study.
        digest: Of the study.
        baseline: Label of random search.
        methods: All, in the order of the study.
        compared: Those with a finished run on every table; only they have pairs.
        places: Tables, or for real training the data set.
        tables: Facts of the tables; empty for real training.
        unit: Of every cost.
        metrics: Headline scalars, the first being the one that rows are ranked by.
        settings: How the numbers were computed.
        runs: Scalars of every finished run.
        summaries: For each method: over all tables, and on each table.
        pairs: For each metric, all pairs of compared methods; a pair with the baseline has it second, others have the
            better mean first.
        table_test: With tables as blocks.
        anytime: Normalised regret (or validation score) over cost; x in the study's clock on a table, in budgets over
            all tables.
        profiles: Share of runs with final normalised regret at most x.
        ecdfs: Share of (run, target) pairs solved over cost in budgets.
        absent: Planned runs without a result.
        warnings: What a reader has to know before believing the numbers.
    """

    study: str
    digest: str
    baseline: str
    methods: tuple[str, ...]
    compared: tuple[str, ...]
    places: tuple[str, ...]
    tables: tuple[TableFacts, ...]
    unit: str
    metrics: tuple[Metric, ...]
    settings: Settings
    runs: tuple[RunScore, ...]
    summaries: tuple[Summary, ...]
    pairs: tuple[Pair, ...]
    table_test: TableTest
    anytime: tuple[Curve, ...]
    profiles: tuple[Curve, ...]
    ecdfs: tuple[Curve, ...]
    absent: tuple[Absent, ...]
    warnings: tuple[str, ...]

    def summary(self, method: str, table: str | None = None) -> Summary:
        """The summary of a method on a table, or over all tables; KeyError if there is none."""
        for summary in self.summaries:
            if (summary.method, summary.table) == (method, table):
                return summary
        raise KeyError(f"no summary of {method!r} on {table!r}")

    def pairs_of(self, metric: str, *, baseline: bool | None = None) -> tuple[Pair, ...]:
        """Pairs on a metric: those with the baseline, those without, or all of them."""
        found = [p for p in self.pairs if p.metric == metric]
        return tuple(p for p in found if baseline is None or (p.second == self.baseline) == baseline)

    def ranking(self, metric: Metric | None = None) -> tuple[str, ...]:
        """Compared methods from the best mean to the worst."""
        metric = metric or self.metrics[0]
        sign = 1.0 if metric.lower_is_better else -1.0
        means = {m: sign * self.summary(m).scores[metric.name].estimate for m in self.compared}
        return tuple(sorted(self.compared, key=lambda m: means[m]))

    def to_dict(self) -> dict[str, Any]:
        """All numbers as JSON-able values."""
        result: dict[str, Any] = plain(self)
        return result

    def _repr_html_(self) -> str:
        from .html import fragment

        return fragment(self)
