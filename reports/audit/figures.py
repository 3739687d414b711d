"""Figures of an audit, drawn from its results. Nothing is computed here but positions on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..figures import COLOURS, COLUMN, INK, MARKERS, STYLE, TEXT, Drawing, drawing
from ..statistics import Interval
from ..words import signed
from .results import Audit, EstimatorAudit, TableAudit

WHOLE, TOP = COLOURS[0], COLOURS[1]
"""Colours of what is said of all architectures, and of the best."""

FREE = 1e-5
"""Where costs of zero stand on a log axis."""


def stem(*parts: str) -> str:
    """A name of files and anchors: letters, digits and dashes."""
    text = "-".join(parts)
    return "".join(c if c.isalnum() or c in "_." else "-" for c in text).strip("-")


def table_figures(table: TableAudit) -> tuple[Drawing, ...]:
    """Every figure of a table for which there are numbers."""
    found = [ranking(table)]
    found += [front(table)] if any(len(f.names) > 1 for f in table.fronts) else []
    found += [fidelities(table)] if table.fidelities else []
    found += [decisions(table)] if any(e.decision for e in table.estimators) else []
    found += [noise(table)] if table.noise else []
    return tuple(found)


def ranking(table: TableAudit) -> Drawing:
    """tau-b of every estimator beside what is attainable, over all architectures and within the top."""
    estimators = table.estimators
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(TEXT, 0.9 + 0.17 * len(estimators)))
        axes = figure.add_subplot()
        for row, e in enumerate(estimators):
            _span(axes, e.correlations["tau_b"], row - 0.14, WHOLE, "o")
            if "tau_b" in e.top_attainable:
                _span(axes, e.top_attainable["tau_b"].observed, row + 0.18, TOP, "D", faint=True)
        for which, colour, label in (("attainable", WHOLE, "ceiling"), ("top_attainable", TOP, "ceiling, top")):
            ceilings = [getattr(e, which)["tau_b"].ceiling for e in estimators if "tau_b" in getattr(e, which)]
            if ceilings and not math.isnan(ceilings[0]):
                axes.axvline(ceilings[0], color=colour, lw=0.8, ls=(0, (4, 2)), label=label)
        axes.axvline(0, color=INK, lw=0.6)
        axes.plot([], [], color=WHOLE, marker="o", label="all architectures")
        axes.plot([], [], color=TOP, marker="D", mfc="white", label="the best by the truth")
        _rows(axes, [e.name for e in estimators])
        _bold_baselines(axes, estimators)
        axes.set_xlabel("Kendall's τ-b with test quality")
        axes.set_xlim(max(-1.0, axes.get_xlim()[0]), 1.0)
        figure.legend(loc="outside lower center", ncols=4)
        caption = (
            f"Kendall's τ-b of every estimator on {table.table} with {_resampled(estimators)}, over all architectures"
            " (filled) and among the best ones (hollow). Dashed: what a perfect estimator reaches, since the truth is"
            " a mean of few trainings. Bold: baselines, which cost nothing."
        )
        said = "; ".join(f"{e.name} {_said(e.correlations['tau_b'])}" for e in estimators)
        return drawing(stem("ranking", table.table), "Rank correlations", caption, f"{caption} {said}.", figure)


def heat_map(audit: Audit, statistic: str = "tau_b") -> Drawing:
    """Estimators by tables, with intervals in small type."""
    import seaborn as sns  # slow to import, and only this figure needs it

    tables = [t.table for t in audit.tables]
    cells = {(e.name, t.table): e.correlations[statistic] for t in audit.tables for e in t.estimators}
    names = list(dict.fromkeys(e.name for t in audit.tables for e in t.estimators))
    order = sorted(names, key=lambda n: -float(np.nanmean([_value(cells.get((n, t))) for t in tables])))
    values = np.array([[_value(cells.get((n, t))) for t in tables] for n in order])
    text = np.array([[_cell(cells.get((n, t))) for t in tables] for n in order])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(COLUMN, 1.4 + 1.15 * len(tables)), 1.0 + 0.27 * len(order)))
        axes = figure.add_subplot()
        sns.heatmap(
            values, ax=axes, vmin=-1, vmax=1, cmap="RdBu_r", annot=text, fmt="", annot_kws={"fontsize": 5.5},
            linewidths=0.5, cbar_kws={"label": "τ-b", "shrink": 0.6}, xticklabels=tables, yticklabels=order,
        )  # fmt: skip
        axes.tick_params(axis="both", length=0)
        axes.grid(False)
        axes.tick_params(axis="y", rotation=0)
        axes.tick_params(axis="x", rotation=20)
        caption = (
            "Kendall's τ-b of estimators on tables, with 95 % intervals; white: no scores. Red is right, blue ranks the"
            " wrong way."
        )
        return drawing("heat_map", "Estimators by tables", caption, f"Heat map. {caption}", figure)


def scatter(table: TableAudit, e: EstimatorAudit) -> Drawing:
    """Scores against the truth, with lines at the best tenth of either."""
    points = table.points[e.name]
    shown = points[np.isfinite(points).all(1)]
    percent = table.metric == "accuracy"
    x, y = shown[:, 0] * (100 if e.accuracy_scale and percent else 1), shown[:, 1] * (100 if percent else 1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 2.5))
        axes = figure.add_subplot()
        image = axes.hexbin(x, y, gridsize=40, bins="log", cmap="viridis", mincnt=1, linewidths=0.1, rasterized=True)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label="architectures")
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        bar.ax.minorticks_off()
        axes.axvline(float(np.quantile(x, 0.9)), color=TOP, lw=0.9)
        axes.axhline(float(np.quantile(y, 0.9)), color=TOP, lw=0.9)
        axes.set_xlabel(f"score of {e.name}" + (" (%)" if e.accuracy_scale and percent else ""))
        axes.set_ylabel(f"test {table.metric}" + (" (%)" if percent else ""))
        missing = len(points) - len(shown)
        caption = (
            f"Scores of {e.name} (first seed) against test {table.metric} on {table.table}; lines: the best tenth of"
            f" either.{f' {missing} architectures without a score are not drawn.' if missing else ''}"
        )
        said = _said(e.correlations["tau_b"])
        name = stem("scatter", table.table, e.name)
        return drawing(name, "Scores and truth", caption, f"Hexagon plot. {caption} τ-b {said}.", figure)


def bias_forest(table: TableAudit, e: EstimatorAudit) -> Drawing:
    """Shift in the ranking by each feature that the quality does not justify."""
    shown = [b for b in e.biases if not math.isnan(b.effect.estimate)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 0.75 + 0.22 * max(len(shown), 1)))
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, lw=0.7)
        for row, b in enumerate(shown):
            _span(axes, b.effect, row, COLOURS[3] if b.biased else "#777777", "o", faint=not b.biased)
        _rows(axes, [b.feature for b in shown])
        axes.set_xlabel("unjustified shift, per step")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: signed(v, 2, plus=True)))
        caption = (
            f"Bias of {e.name} on {table.table}: shift in the ranking (1 is all of it) per operation, layer, or fifth"
            " of a size, beyond what the quality of the architectures justifies, with 95 % intervals. Filled: told"
            " apart from 0 after Holm's correction. Right: over-ranked."
        )
        said = "; ".join(f"{b.feature} {_said(b.effect)}" for b in shown)
        name = stem("bias", table.table, e.name)
        return drawing(name, "Bias by feature", caption, f"Forest plot. {caption} {said}.", figure)


def front(table: TableAudit) -> Drawing:
    """What correlation costs, and what regret at ten costs; non-dominated estimators are joined."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(TEXT, 2.9))
        panels = figure.subplots(1, len(table.fronts), squeeze=False)[0]
        for axes, found in zip(panels, table.fronts, strict=True):
            costs = [max(c, FREE) for c in found.costs]
            best = [found.names.index(n) for n in found.front]
            axes.scatter(costs, found.values, s=12, color="#999999", linewidths=0, zorder=2)
            axes.plot([costs[i] for i in best], [found.values[i] for i in best], color=WHOLE, marker="o", zorder=3)
            _labels(axes, [(costs[i], found.values[i], found.names[i]) for i in best])
            axes.set_xscale("log")
            axes.set_xlabel("cost of scoring the table (full trainings)")
            axes.set_xlim(FREE / 3)
            axes.set_xticks([FREE, *(10.0**k for k in range(-3, 5) if 10.0**k < 3 * max(costs))])
            axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: "0" if v <= FREE else f"{v:g}"))
            axes.minorticks_off()
            axes.set_ylabel("Kendall's τ-b" if found.quality == "tau_b" else "regret of the best of 10")
        caption = (
            f"Cost against quality on {table.table}: every estimator whose cost is known; blue: those that no other one"
            " beats in both. Costs are of preparation and of an answer for every architecture."
        )
        said = "; ".join(f"{f.quality}: {', '.join(f.front)}" for f in table.fronts)
        return drawing(stem("front", table.table), "Cost and quality", caption, f"{caption} {said}.", figure)


def fidelities(table: TableAudit) -> Drawing:
    """Correlation along each axis of fidelity."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 2.5))
        axes = figure.add_subplot()
        for i, axis in enumerate(dict.fromkeys(p.axis for p in table.fidelities)):
            points = sorted((p for p in table.fidelities if p.axis == axis), key=lambda p: p.value)
            axes.plot(
                [p.value for p in points],
                [p.tau_b for p in points], marker=MARKERS[i % len(MARKERS)], color=COLOURS[i % len(COLOURS)],
                label=axis,
            )  # fmt: skip
        epochs = {p.axis for p in table.fidelities} == {"epochs"}
        axes.set_xlabel("epochs" if epochs else "share of the full training (epochs: their number)")
        axes.set_ylabel("Kendall's τ-b with test quality")
        figure.legend(loc="outside lower center", ncols=3)
        caption = f"Rank correlation along the axes of fidelity on {table.table}."
        said = "; ".join(f"{p.name} {p.tau_b:.2f}" for p in table.fidelities)
        return drawing(stem("fidelity", table.table), "Fidelities", caption, f"{caption} {said}.", figure)


def decisions(table: TableAudit) -> Drawing:
    """What each estimate costs a search: wrong choice among the visited, and visits in the wrong places."""
    shown = sorted((e for e in table.estimators if e.decision), key=lambda e: _decision(e).total.estimate)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(TEXT, 0.9 + 0.17 * len(shown)))
        axes = figure.add_subplot()
        for row, e in enumerate(shown):
            d = _decision(e)
            guidance = max(d.guidance.estimate, 0.0)
            axes.barh(row, guidance, color=WHOLE, height=0.62)
            axes.barh(row, d.selection.estimate, left=guidance, color=TOP, height=0.62)
            axes.plot([d.total.low, d.total.high], [row, row], color=INK, lw=0.9)
        axes.barh([0], [0], color=WHOLE, label="guidance: searched the wrong places")
        axes.barh([0], [0], color=TOP, label="selection: picked wrongly among the visited")
        axes.plot([], [], color=INK, lw=0.9, label="95 % interval of the sum")
        axes.axvline(0, color=INK, lw=0.6)
        _rows(axes, [e.name for e in shown])
        axes.set_xlabel("normalised regret beyond a search with the truth")
        figure.legend(loc="outside lower center", ncols=3)
        d = _decision(shown[0])
        caption = (
            f"What an estimate costs {d.strategy} on {table.table}: regret of searching and picking with it, less that"
            f" of a search that sees the truth; {d.decisions} decisions, {d.seeds} searches, paired."
        )
        said = "; ".join(f"{e.name} {_said(_decision(e).total)}" for e in shown)
        return drawing(stem("decisions", table.table), "Cost of a bad estimate", caption, f"{caption} {said}.", figure)


def noise(table: TableAudit) -> Drawing:
    """What a rank correlation costs when the errors are plain noise, and what the estimators cost."""
    points = sorted(table.noise, key=lambda p: p.tau_b)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 2.6))
        axes = figure.add_subplot()
        x = [p.tau_b for p in points]
        axes.fill_between(
            x, [p.regret.low for p in points], [p.regret.high for p in points], color=WHOLE, alpha=0.15, lw=0
        )
        axes.plot(x, [p.regret.estimate for p in points], color=WHOLE, marker="o", ms=2.5, label="truth and noise")
        for e in table.estimators:
            if e.decision:
                axes.scatter(
                    e.correlations["tau_b"].estimate, e.decision.ee.estimate, s=10, color=COLOURS[3], linewidths=0,
                    zorder=3,
                )  # fmt: skip
        axes.scatter([], [], s=10, color=COLOURS[3], label="estimators")
        axes.set(xlabel="Kendall's τ-b", ylabel="normalised regret of a search")
        figure.legend(loc="outside lower center", ncols=2)
        caption = (
            f"Regret of a search on {table.table} by the rank correlation of what guides it: truth with normal noise"
            " (line, 95 % band) and the estimators. Above the line, an estimator errs where it hurts."
        )
        said = "; ".join(f"τ {p.tau_b:.2f}: {p.regret.estimate:.3f}" for p in points)
        name = stem("noise", table.table)
        return drawing(name, "What a correlation is worth", caption, f"{caption} {said}.", figure)


def _span(axes: Axes, interval: Interval, row: float, colour: str, marker: str, *, faint: bool = False) -> None:
    axes.plot([interval.low, interval.high], [row, row], color=colour, lw=1.1, solid_capstyle="round")
    axes.plot(interval.estimate, row, marker=marker, color=colour, ms=3.2, mfc="white" if faint else colour, mew=0.8)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_ylim(max(len(names), 1) - 0.45, -0.55)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")


def _bold_baselines(axes: Axes, estimators: Iterable[EstimatorAudit]) -> None:
    for label, e in zip(axes.get_yticklabels(), estimators, strict=True):
        label.set_fontweight("bold" if e.baseline else "normal")


def _labels(axes: Axes, marks: Sequence[tuple[float, float, str]]) -> None:
    """Names beside the marks of a front, above and below by turns so that neighbours do not overlap."""
    places: dict[tuple[float, float], list[str]] = {}
    for x, y, name in marks:
        places.setdefault((x, y), []).append(name)
    for i, ((x, y), names) in enumerate(places.items()):
        axes.annotate(
            ", ".join(names), (x, y), xytext=(3, -8 if i % 2 else 5), textcoords="offset points", fontsize=5.5,
            color=INK,
        )  # fmt: skip


def _decision(e: EstimatorAudit) -> Any:
    assert e.decision is not None
    return e.decision


def _value(interval: Interval | None) -> float:
    return float("nan") if interval is None else interval.estimate


def _cell(interval: Interval | None) -> str:
    if interval is None or math.isnan(interval.estimate):
        return ""
    if math.isnan(interval.low):
        return f"{interval.estimate:.2f}"
    return f"{interval.estimate:.2f}\n[{interval.low:.2f}, {interval.high:.2f}]"


def _said(interval: Interval) -> str:
    return _cell(interval).replace("\n", " ") or "undefined"


def _resampled(estimators: Sequence[EstimatorAudit]) -> str:
    """What the intervals are made by, for a caption."""
    methods = {e.correlations["tau_b"].method for e in estimators}
    level = estimators[0].correlations["tau_b"].level if estimators else 0.95
    what = {"seeds": "training and estimator seeds", "architectures": "architectures"}
    return f"{100 * level:g} % intervals (resampled: {' or '.join(sorted(what.get(m, m) for m in methods))})"
