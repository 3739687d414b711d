"""What the tables of a report hold: grids of cells, before any format.

Bold marks the best method and all that are not significantly worse (van Elteren, Holm) or equivalent to it; the best of
the rest is underlined. Every cell names the groups of runs that it was computed from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .results import Comparison, Metric, Pair, Summary
from .statistics import Interval
from .words import NOTHING, amount, decimals, number, p_text, percent, plus_minus, signed, span

Mark = Literal["", "bold", "underline"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its key in CSV and JSON, heading, unit, direction, and whether it holds words."""

    key: str
    head: str
    unit: str = ""
    better: Literal["", "lower", "higher"] = ""
    text: bool = False

    @property
    def arrow(self) -> str:
        """The direction as a sign."""
        return {"": "", "lower": "↓", "higher": "↑"}[self.better]

    @property
    def title(self) -> str:
        """Heading with unit and arrow."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.head}{unit} {self.arrow}".strip()


@dataclass(frozen=True, slots=True)
class Cell:
    """What a reader sees, the numbers behind it in full precision, and the groups of runs they came from."""

    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    mark: Mark = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def all_grids(comparison: Comparison) -> tuple[Grid, ...]:
    """Every table for which the comparison has numbers."""
    grids = [results(comparison)]
    if len(comparison.places) > 1:
        grids.append(by_table(comparison))
    if comparison.pairs:
        grids += [pairwise(comparison, metric) for metric in comparison.metrics]
    if comparison.settings.targets:
        grids.append(targets(comparison))
    grids.append(incumbents(comparison))
    if comparison.tables:
        grids.append(protocol(comparison))
    return tuple(grids)


def group(method: str, table: str | None) -> str:
    """Name of the runs of a method, on one table or on all."""
    return method if table is None else f"{method} on {table}"


def groups(comparison: Comparison) -> dict[str, tuple[str, ...]]:
    """Run keys of each group that a cell may name."""
    return {group(s.method, s.table): s.runs for s in comparison.summaries}


def results(comparison: Comparison) -> Grid:
    """The headline scalars of every method over all tables."""
    columns = [Column("method", "Method")]
    rows = [[Cell(m, {"method": m}, (group(m, None),))] for m in comparison.methods]
    summaries = [comparison.summary(m) for m in comparison.methods]
    for metric in comparison.metrics:
        scale, unit = metric.scale, metric.shown
        columns.append(Column(metric.name, metric.title, unit, "lower" if metric.lower_is_better else "higher"))
        _add(rows, _interval_cells(metric.name, summaries, scale, marks(comparison, metric)))
    if comparison.tables:
        metric = comparison.metrics[0]
        percents = all(t.metric == "accuracy" for t in comparison.tables)
        columns += [
            Column("regret", "Regret", "pp" if percents else comparison.tables[0].metric, "lower"),
            Column("iqm", "IQM", "nr", "lower"),
            Column("fail_rate", "Failures", "%", "lower"),
        ]
        _add(rows, _interval_cells("regret", summaries, 100.0 if percents else 1.0, marks(comparison, metric)))
        _add(rows, [_number_cell(s, "iqm", s.iqm.estimate if s.iqm else math.nan, 3) for s in summaries])
        _add(rows, [_share_cell(s, "fail_rate", s.fail_rate) for s in summaries])
    columns.append(Column("runs", "Runs"))
    _add(rows, [_runs_cell(s) for s in summaries])
    return Grid("results", "Results", _results_caption(comparison), tuple(columns), _frozen(rows))


def by_table(comparison: Comparison) -> Grid:
    """The first metric of every method on each table."""
    metric = comparison.metrics[0]
    scale, unit = metric.scale, metric.shown
    columns = [Column("method", "Method")]
    rows = [[Cell(m, {"method": m}, (group(m, None),))] for m in comparison.methods]
    for place in comparison.places:
        columns.append(Column(place, place, unit, "lower" if metric.lower_is_better else "higher"))
        _add(rows, _interval_cells(metric.name, [comparison.summary(m, place) for m in comparison.methods], scale, {}))
    caption = (
        f"{metric.title} on each table: {_what_is_shown(comparison)}. Nothing is set in bold here, because the"
        " tests are"
        " stratified over all tables."
    )
    return Grid("by_table", f"{metric.title} by table", caption, tuple(columns), _frozen(rows))


def pairwise(comparison: Comparison, metric: Metric) -> Grid:
    """All pairs on one metric, those with random search first."""
    scale, unit = metric.scale, metric.shown_difference
    pairs = (*comparison.pairs_of(metric.name, baseline=True), *comparison.pairs_of(metric.name, baseline=False))
    columns = (
        Column("first", "Method"), Column("second", "against", text=True), Column("difference", "Δ", unit),
        Column("a12", "A12"), Column("correlation", "ρ"), Column("p", "p"), Column("p_holm", "p (Holm)"),  # noqa: RUF001
        Column("verdict", "Verdict", text=True),
    )  # fmt: skip
    widths = [p.difference.half_width * scale for p in pairs if p.difference.half_width > 0]
    places = max(decimals(min(widths, default=math.nan)), 2)
    rows = tuple(_pair_row(pair, places, scale) for pair in pairs)
    direction = (
        "negative differences and A12 under 0.5" if metric.lower_is_better else "positive differences and A12 above 0.5"
    )
    how = "paired where both methods finished the same seeds"
    if len({p.paired for p in pairs}) == 1:
        how = "paired by seed" if pairs[0].paired else "not paired"
    caption = (
        f"All pairs on {metric.noun}: difference of means with {_level(comparison)} interval ({how}), probability"
        " A12 that"
        " a run of the first has the larger value, correlation ρ of the values paired by seed, two-sided van"  # noqa: RUF001
        " Elteren test"
        f" over {_count(len(comparison.places), 'table')}, and Holm's adjustment over {_count(len(pairs), 'pair')}."
        f" In favour of the first: {direction}. Equivalent: the interval lies within"
        f" ±{metric.rope * scale:g}{' ' + unit if unit else ''}."
    )
    return Grid(f"pairwise_{metric.name}", f"Pairs: {metric.noun}", caption, columns, rows)


def targets(comparison: Comparison) -> Grid:
    """Expected running times to targets."""
    columns = [Column("method", "Method")]
    columns += [Column(f"ert_{t:g}", f"nr ≤ {t:g}", better="lower") for t in comparison.settings.targets]
    rows = []
    for method in comparison.methods:
        summary = comparison.summary(method)
        cells = [Cell(method, {"method": method}, (group(method, None),))]
        for target in summary.targets:
            hits = f"({target.hits}/{target.runs})"
            cost = target.ert if target.hits else target.spent
            text = f"{'' if target.hits else '> '}{f'{100 * cost:.3g}' if cost < 1 else f'{100 * cost:.0f}'} {hits}"
            values = {"": target.ert, "hits": target.hits, "runs": target.runs}
            cells.append(Cell(text, values, (group(method, None),)))
        cells += [Cell(NOTHING)] * (len(columns) - len(cells))
        rows.append(cells)
    caption = (
        "Expected running time to a normalised regret, in % of the budget: everything spent by all runs, over"
        " the runs that"
        " reached it (in parentheses: runs that did, of all). Where none did, everything spent is a lower bound."
    )
    return Grid("targets", "Running times to targets", caption, tuple(columns), _frozen(rows))


def incumbents(comparison: Comparison) -> Grid:
    """What the methods found and how they spent."""
    columns = [
        Column("method", "Method"), Column("test", "Test", _test_unit(comparison)), Column("params", "Parameters"),
        Column("flops", "FLOPs"), Column("evaluations", "Evaluations"), Column("diversity", "Distinct", "%"),
        Column("spent", "Spent", "% of budget"), Column("costs", "Spent on", text=True),
    ]  # fmt: skip
    if not comparison.tables:
        columns = [c for c in columns if c.key != "spent"]
    factor = 100.0 if _test_unit(comparison) == "%" else 1.0
    rows = []
    for method in comparison.methods:
        s, name = comparison.summary(method), (group(method, None),)
        costs = ", ".join(f"{kind} {percent(share)} %" for kind, share in s.costs.items())
        cells = {
            "method": Cell(method, {"method": method}, name),
            "test": Cell(signed(s.test * factor, 2), {"test": s.test}, name),
            "params": Cell(number(s.params), {"params": s.params}, name),
            "flops": Cell(number(s.flops), {"flops": s.flops}, name),
            "evaluations": Cell(number(s.evaluations), {"evaluations": s.evaluations}, name),
            "diversity": Cell(percent(s.diversity), {"diversity": s.diversity}, name),
            "spent": Cell(percent(s.spent), {"spent": s.spent}, name),
            "costs": Cell(costs or NOTHING, dict(s.costs), name),
        }
        rows.append([cells[c.key] for c in columns])
    caption = (
        "Final incumbents and spending, medians over runs: test score, size, evaluations per run, share of distinct"
        " architectures among them, and what was paid for."
    )
    return Grid("incumbents", "Incumbents and spending", caption, tuple(columns), _frozen(rows))


def protocol(comparison: Comparison) -> Grid:
    """The tables that the study ran on."""
    columns = (
        Column("table", "Table"), Column("space", "Space", text=True), Column("size", "Size"),
        Column("metric", "Test metric", text=True),
        Column("best", "Best"), Column("median", "Median"), Column("seed_noise", "Seed noise"),
        Column("training_seeds", "Trainings"), Column("budget", "Budget"), Column("trainings", "Budget", "trainings"),
    )  # fmt: skip
    rows = []
    for t in comparison.tables:
        factor, places = (100.0, 2) if t.metric == "accuracy" else (1.0, 4)
        size = t.other.get("size")
        numbers = {"best": t.best, "median": t.median, "seed_noise": t.seed_noise}
        rows.append((
            Cell(t.name, {"table": t.name}), Cell(str(t.other.get("space", NOTHING))),
            Cell(f"{size}" if size else NOTHING, {"size": size}),
            Cell(f"{t.metric} (%)" if factor == 100.0 else t.metric),
            *(Cell(signed(v * factor, places), {k: v}) for k, v in numbers.items()),
            Cell(str(t.training_seeds), {"training_seeds": t.training_seeds}),
            Cell(amount(t.budget, t.clock), {"budget": t.budget}),
            Cell(number(t.budget / t.median_cost), {"trainings": t.budget / t.median_cost}),
        ))  # fmt: skip
    caption = (
        "Tables. Best and median are over all architectures, each the mean over its trainings; seed noise is the"
        " standard"
        " deviation of one training; the budget is in the unit of the table's clock and in median full trainings."
    )
    return Grid("protocol", "Tables", caption, columns, tuple(rows))


def marks(comparison: Comparison, metric: Metric) -> dict[str, Mark]:
    """Bold for the best and whatever is not shown to be worse; underline for the best of the rest."""
    order = comparison.ranking(metric)
    best = order[0]
    pairs = {frozenset((p.first, p.second)): p for p in comparison.pairs_of(metric.name)}
    found: dict[str, Mark] = {}
    for method in order:
        pair = pairs.get(frozenset((best, method)))
        tied = pair is None or pair.p_holm >= comparison.settings.alpha or pair.verdict == "equivalent"
        if tied:
            found[method] = "bold"
        elif "underline" not in found.values():
            found[method] = "underline"
    return found


def _interval_cells(name: str, summaries: Sequence[Summary], scale: float, mark: Mapping[str, Mark]) -> list[Cell]:
    intervals = [s.scores.get(name) for s in summaries]
    widths = [i.half_width * scale for i in intervals if i is not None and i.half_width > 0]
    places = decimals(min(widths, default=math.nan))
    return [
        Cell(NOTHING, {name: math.nan}, (group(s.method, s.table),)) if i is None
        else Cell(plus_minus(i, places, scale=scale), _limits(i), (group(s.method, s.table),), mark.get(s.method, ""))
        for s, i in zip(summaries, intervals, strict=True)
    ]  # fmt: skip


def _limits(interval: Interval) -> dict[str, float]:
    return {"": interval.estimate, "low": interval.low, "high": interval.high}


def _pair_row(pair: Pair, places: int, scale: float) -> tuple[Cell, ...]:
    both = (group(pair.first, None), group(pair.second, None))
    rho = pair.correlation.value
    return (
        Cell(pair.first, {"first": pair.first}, both[:1]),
        Cell(pair.second, {"second": pair.second}, both[1:]),
        Cell(span(pair.difference, places, scale=scale), _limits(pair.difference), both),
        Cell(_a12_text(pair.a12), _limits(pair.a12), both),
        Cell(signed(rho, 2), {"correlation": rho}, both),
        Cell(p_text(pair.p), {"p": pair.p}, both),
        Cell(p_text(pair.p_holm), {"p_holm": pair.p_holm}, both),
        Cell(pair.verdict, {"verdict": pair.verdict}, both, "bold" if pair.verdict in ("better", "worse") else ""),
    )


def _a12_text(a12: Interval) -> str:
    if math.isnan(a12.low):
        return f"{a12.estimate:.2f}"
    return f"{a12.estimate:.2f} [{a12.low:.2f}, {a12.high:.2f}]"


def _number_cell(summary: Summary, key: str, value: float, places: int) -> Cell:
    return Cell(signed(value, places), {key: value}, (group(summary.method, summary.table),))


def _share_cell(summary: Summary, key: str, value: float) -> Cell:
    return Cell(percent(value), {key: value}, (group(summary.method, summary.table),))


def _runs_cell(summary: Summary) -> Cell:
    done = len(summary.runs)
    values = {"": done, "planned": summary.planned}
    return Cell(f"{done}/{summary.planned}", values, (group(summary.method, summary.table),))


def _results_caption(comparison: Comparison) -> str:
    test = f"best or not significantly worse (van Elteren, Holm, α = {comparison.settings.alpha:g}) or equivalent"  # noqa: RUF001
    shown = _what_is_shown(comparison)
    caption = f"{shown[0].upper()}{shown[1:]}; bold: {test}; underlined: best of the rest."
    if not comparison.tables:
        return f"{caption} Normalised regret and what follows from it are not available (no table)."
    return (
        f"{caption} nr: normalised regret, 0 for the best architecture of a table and 1 for the median one or"
        " worse. Late"
        " area: mean nr over log cost from 10 to 100 % of the budget. IQM: interquartile mean of the final nr."
        " Failures:"
        f" runs that end above nr 0.5. Budget {_budget(comparison)}."
    )


def _what_is_shown(comparison: Comparison) -> str:
    counts = sorted({comparison.summary(m, p).seeds for m in comparison.methods for p in comparison.places})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    name = comparison.metrics[0].name
    methods = {s.scores[name].method for s in comparison.summaries if name in s.scores}
    kind = "stratified bootstrap" if methods == {"bootstrap"} else "Student t" if methods == {"t"} else "bootstrap or t"
    where = _count(len(comparison.places), "table" if comparison.tables else "data set")
    return f"mean over n = {n} seeds and {where}; ± is the half-width of the {_level(comparison)} {kind} interval"


def _budget(comparison: Comparison) -> str:
    spent = {
        f"{amount(t.budget, t.clock)} ({number(t.budget / t.median_cost)} median full trainings)"
        for t in comparison.tables
    }
    return spent.pop() if len(spent) == 1 else "of each table as listed with the tables"


def _test_unit(comparison: Comparison) -> str:
    if comparison.tables:
        return "%" if all(t.metric == "accuracy" for t in comparison.tables) else ""
    return comparison.metrics[0].shown.replace("score", "")


def _level(comparison: Comparison) -> str:
    return f"{100 * comparison.settings.level:g} %"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _add(rows: list[list[Cell]], cells: Sequence[Cell]) -> None:
    for row, cell in zip(rows, cells, strict=True):
        row.append(cell)


def _frozen(rows: Sequence[Sequence[Cell]]) -> tuple[tuple[Cell, ...], ...]:
    return tuple(tuple(row) for row in rows)
