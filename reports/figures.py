"""Figures for papers, drawn from a `Comparison`. Nothing is computed here but positions on the page.

Every figure is as wide as a column (3.25 in) or the text (6.75 in) of a two-column paper, embeds its fonts as Type 42,
tells methods apart by colour, marker and line style together, and renders to the same bytes every time.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from .results import Comparison, Curve, Metric, Pair
from .words import unit_name

COLUMN, TEXT = 3.25, 6.75
"""Widths in inches of a column and of the text block (ICML; within 8 % of NeurIPS and IEEE)."""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7A5C00", "#4D4D4D")
"""Okabe and Ito (2008), distinguishable with colour-vision deficiency; black is the baseline's. Two more extend it."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
LINES = ("-", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 1, 1, 1, 1, 1)))
INK, FAINT = "#222222", "#B8B8B8"

STYLE: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8, "axes.labelsize": 8,
    "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False,
    "legend.handlelength": 2.4, "lines.linewidth": 1.2, "lines.markersize": 3.6, "axes.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4, "ytick.minor.width": 0.4, "axes.grid": True, "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5, "axes.axisbelow": True, "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none",
    "text.parse_math": False,
    "savefig.bbox": None, "savefig.dpi": 220, "figure.constrained_layout.use": True, "figure.facecolor": "white",
}  # fmt: skip

METADATA: Mapping[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
"""No dates and no version of matplotlib: the same numbers give the same file."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A rendered figure.

    Attributes:
        name: Stem of its files.
        title: Heading in the HTML report.
        caption: For the paper.
        alt: What a reader who cannot see it is told.
        width: In inches.
        files: Bytes by extension: pdf, png, svg.
    """

    name: str
    title: str
    caption: str
    alt: str
    width: float
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Look:
    """How a method is drawn, the same in every figure."""

    colour: str
    marker: str
    line: Any


def draw_all(comparison: Comparison) -> tuple[Drawing, ...]:
    """Draw every figure for which the comparison has numbers."""
    makers: list[tuple[bool, Callable[[Comparison], Drawing]]] = [
        (bool(comparison.anytime), anytime),
        (bool(comparison.pairs), differences),
        (True, distribution),
        (bool(comparison.profiles), profile),
        (bool(comparison.ecdfs), ecdf),
        (bool(comparison.table_test.mean_ranks), critical_difference),
        (any(not math.isnan(r.params) for r in comparison.runs), incumbents),
    ]
    return tuple(make(comparison) for wanted, make in makers if wanted)


def looks(comparison: Comparison) -> dict[str, Look]:
    """Black and dashed for random search; the others in the order of the study."""
    others = [m for m in comparison.methods if m != comparison.baseline]
    found = {comparison.baseline: Look("#000000", "x", (0, (3, 1.5)))}
    for i, method in enumerate(others):
        line = LINES[(i + i // len(COLOURS)) % len(LINES)]
        found[method] = Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], line)
    return {m: found[m] for m in comparison.methods}


def anytime(comparison: Comparison) -> Drawing:
    """Mean regret (or validation score) over cost with 95 % bands, one panel per table."""
    places: list[str | None] = list(comparison.places)
    if len(places) > 1:
        places.append(None)
    budgets = {t.name: t for t in comparison.tables}
    tabular = bool(comparison.tables)
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(places), height=2.05 if tabular else 2.2)
        for axes, place in zip(panels, places, strict=True):
            drawn = [c for c in comparison.anytime if c.table == place]
            axes.set_xscale("log")
            if tabular:
                _log_regret(axes, drawn)
            _curves(axes, drawn, looks(comparison))
            axes.set_xlim(drawn[0].x[0], drawn[0].x[-1])
            facts = budgets.get(place or "")
            _cost_axis(axes, comparison.unit, facts.median_cost if facts else None, tabular)
            if len(places) > 1:
                axes.set_title("mean over tables" if place is None else place, pad=5)
        panels[0].set_ylabel("normalised test regret" if tabular else "validation score")
        _legend(figure, panels[0], len(comparison.compared))
        what = "normalised test regret of the incumbent" if tabular else "validation score of the incumbent"
        ends = [f"{c.method} {c.band.estimate[-1]:.3f}" for c in comparison.anytime if c.table == places[-1]]
        caption = (
            f"Anytime performance: mean {what} over cost{', log scales' if tabular else ''}; {_bands(comparison)}."
            " Dashed black: random search."
        )
        if tabular:
            caption += " The axis ends at the budget; the upper one counts median full trainings."
        alt = f"Line chart. {caption} At the budget: {', '.join(ends)}."
        return drawing("anytime", "Anytime performance", caption, alt, figure)


def differences(comparison: Comparison) -> Drawing:
    """Difference to random search with intervals, beside the region of practical equivalence."""
    metrics = comparison.metrics
    methods = [p.first for p in comparison.pairs_of(metrics[0].name, baseline=True)]
    with mpl.rc_context(STYLE):
        width = TEXT if len(metrics) > 1 else COLUMN
        figure = Figure(figsize=(width, 0.75 + 0.24 * len(methods)))
        for i, metric in enumerate(metrics):
            axes = figure.add_subplot(1, len(metrics), i + 1)
            pairs = {p.first: p for p in comparison.pairs_of(metric.name, baseline=True)}
            _forest(axes, metric, [pairs[m] for m in methods], looks(comparison), labels=i == 0)
        first = comparison.pairs_of(metrics[0].name, baseline=True)
        said = "; ".join(f"{p.first} {_span(p)}: {p.verdict}" for p in first)
        caption = (
            f"Difference to {comparison.baseline} with 95 % intervals; grey: region of practical equivalence."
            " Filled: significant after Holm's correction."
        )
        return drawing("differences", "Difference to random search", caption, f"Forest plot. {caption} {said}.", figure)


def distribution(comparison: Comparison) -> Drawing:
    """Letter-value plot with every run of the first metric, one panel per table."""
    import seaborn as sns  # slow to import, and only this figure needs it

    metric, look = comparison.metrics[0], looks(comparison)
    methods = list(comparison.methods)
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(comparison.places), height=0.75 + 0.26 * len(methods), share=True)
        for axes, place in zip(panels, comparison.places, strict=True):
            values = [
                [r.values[metric.name] * metric.scale for r in comparison.runs if (r.method, r.table) == (m, place)]
                for m in methods
            ]
            sns.boxenplot(
                x=[v for mine in values for v in mine],
                y=[m for m, mine in zip(methods, values, strict=True) for _ in mine],
                order=methods, orient="h", ax=axes, color="#DDDDDD", width=0.62, linewidth=0.6, showfliers=False,
            )  # fmt: skip
            for row, mine in enumerate(values):
                spots = row + _spread(len(mine))
                axes.scatter(
                    np.sort(mine), spots, s=5, color=look[methods[row]].colour, alpha=0.6, linewidths=0, zorder=3
                )
            axes.set_yticks(range(len(methods)), methods)
            axes.set_ylim(len(methods) - 0.45, -0.55)
            axes.grid(False, axis="y")
            axes.tick_params(axis="y", length=0)
            if metric.lower_is_better:
                axes.set_xlim(left=min(-0.005, axes.get_xlim()[0]))
            axes.set(xlabel=f"{metric.noun} ({metric.shown})", ylabel="")
            if len(panels) > 1:
                axes.set_title(place, pad=5)
        boxes = "letter values: a line at the median, the widest box between the quartiles, then the eighths"
        caption = f"{metric.title} of every run ({_seeds(comparison)}); {boxes}."
        alt = f"Letter-value plot. {caption}"
        return drawing("distribution", f"Distribution of the {metric.noun}", caption, alt, figure)


def profile(comparison: Comparison) -> Drawing:
    """Share of runs at or under each final regret."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = _panels(1, height=2.15)
        axes.set_xscale("log")
        _curves(axes, comparison.profiles, looks(comparison))
        axes.set(xlim=(comparison.profiles[0].x[0], 1.0), ylim=(0, 1.02))
        axes.set(xlabel="normalised regret τ", ylabel="share of runs ≤ τ")
        _plain_log(axes)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        _legend(figure, axes, len(comparison.compared))
        caption = (
            "Performance profile: share of runs whose final normalised regret is at most"
            f" τ; {_bands(comparison)}. Higher and further left is better."
        )
        return drawing("profile", "Performance profile", caption, f"Line chart. {caption}", figure)


def ecdf(comparison: Comparison) -> Drawing:
    """Share of (run, target) pairs solved over cost."""
    targets = ", ".join(f"{t:g}" for t in comparison.settings.targets)
    with mpl.rc_context(STYLE):
        figure, (axes,) = _panels(1, height=2.15)
        axes.set_xscale("log")
        _curves(axes, comparison.ecdfs, looks(comparison), step=True)
        axes.set(xlim=(comparison.ecdfs[0].x[0], 1.0), ylim=(0, 1.02))
        axes.set(xlabel="cost (share of the budget)", ylabel="(run, target) pairs solved")
        _plain_log(axes)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        _legend(figure, axes, len(comparison.compared))
        caption = (
            f"Empirical distribution of running times: share of (run, target) pairs solved by each cost, for targets"
            f" {targets} of normalised regret. Missed targets never count as solved."
        )
        return drawing("ecdf", "Running times to targets", caption, f"Step chart. {caption}", figure)


def critical_difference(comparison: Comparison) -> Drawing:
    """Mean ranks over tables; bars join methods that Wilcoxon and Holm cannot tell apart."""
    test = comparison.table_test
    order = sorted(range(len(test.methods)), key=lambda i: test.mean_ranks[i])
    k, look = len(order), looks(comparison)
    rows = math.ceil(k / 2)
    bars = 0.32 * len(test.cliques)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 0.75 + 0.2 * (rows + 1.2 * len(test.cliques))))
        axes = figure.add_subplot()
        axes.set(xlim=(1 - 0.75 * k / 3, k + 0.75 * k / 3), ylim=(rows + bars - 0.05, -1.6))
        axes.axis("off")
        axes.plot([1, k], [0, 0], color=INK, lw=0.8)
        for tick in range(1, k + 1):
            axes.plot([tick, tick], [0, -0.16], color=INK, lw=0.8)
            axes.text(tick, -0.3, str(tick), ha="center", va="bottom", fontsize=7)
        axes.plot([1, 1 + test.cd], [-1.3, -1.3], color=INK, lw=1.0, marker="|", ms=4)
        axes.text(1 + test.cd + 0.08, -1.3, f"CD = {test.cd:.2f}", va="center", fontsize=7)
        for place, i in enumerate(order):
            left = place < rows
            y = bars + 0.6 + (place if left else k - 1 - place)
            edge, shift = (1 - 0.06 * k, -0.03 * k) if left else (k + 0.06 * k, 0.03 * k)
            rank, method = test.mean_ranks[i], test.methods[i]
            axes.plot([rank, rank, edge], [0, y, y], color=look[method].colour, lw=0.9)
            axes.text(edge + shift, y, f"{method} {rank:.2f}", ha="right" if left else "left", va="center", fontsize=7)
        for level, group in enumerate(test.cliques):
            ranks = [test.mean_ranks[test.methods.index(m)] for m in group]
            y = 0.3 + 0.32 * level
            axes.plot([min(ranks) - 0.04, max(ranks) + 0.04], [y, y], color=INK, lw=2.6, solid_capstyle="round")
        caption = (
            f"Mean ranks of the {comparison.metrics[0].noun} over {test.tables} tables, 1 is best. Bars join methods"
            " without a significant pair (Wilcoxon signed-rank, Holm); CD is Nemenyi's critical difference, a drawing"
            " aid."
        )
        ranks_said = ", ".join(f"{test.methods[i]} {test.mean_ranks[i]:.2f}" for i in order)
        return drawing(
            "critical_difference", "Critical differences", caption, f"{caption} Ranks: {ranks_said}.", figure
        )


def incumbents(comparison: Comparison) -> Drawing:
    """Size against test score of every final incumbent."""
    look = looks(comparison)
    tables = comparison.tables
    percent = tables[0].metric == "accuracy" if tables else comparison.metrics[0].scale == 100.0
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(comparison.places), height=1.95)
        for axes, place in zip(panels, comparison.places, strict=True):
            axes.set_xscale("log")
            for method, style in look.items():
                mine = [r for r in comparison.runs if (r.method, r.table) == (method, place)]
                axes.scatter(
                    [r.params for r in mine], [r.test * (100 if percent else 1) for r in mine], s=11,
                    marker=style.marker,
                    color=style.colour, alpha=0.7, linewidths=0.7 if style.marker == "x" else 0, label=method,
                )  # fmt: skip
            best = [t.best for t in comparison.tables if t.name == place]
            for value in best:
                axes.axhline(value * (100 if percent else 1), color=INK, lw=0.7, ls=(0, (1, 2)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _short(v)))
            axes.xaxis.set_minor_formatter(FuncFormatter(lambda v, _: _short(v) if f"{v:e}"[0] in "25" else ""))
            axes.tick_params(axis="x", which="minor", labelsize=6.5)
            axes.set_xlabel("parameters")
            if len(panels) > 1:
                axes.set_title(place, pad=5)
        metric = tables[0].metric if tables else comparison.metrics[0].unit
        panels[0].set_ylabel(f"test {metric} (%)" if percent else f"test {metric}")
        _legend(figure, panels[0], len(comparison.methods))
        caption = "Final incumbents: test score against number of parameters, one mark per run."
        if comparison.tables:
            caption += " Dotted: the best architecture of the table."
        return drawing("incumbents", "Final incumbents", caption, f"Scatter plot. {caption}", figure)


def render(figure: Figure, name: str) -> dict[str, bytes]:
    """The bytes of a figure as pdf, png and svg, free of dates; call inside `rc_context(STYLE)`."""
    files = {}
    with mpl.rc_context({"svg.hashsalt": f"nasbed-{name}"}):
        for kind, metadata in METADATA.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata)
            files[kind] = buffer.getvalue()
            figure.set_layout_engine("none")  # the first pass settled the layout; solving it again costs a second
    files["svg"] = _unlabelled(files["svg"])
    return files


def _unlabelled(svg: bytes) -> bytes:
    """Drop the ids of groups: several figures share one HTML page, where an id must be unique."""
    return re.sub(rb'<g id="[^"]*"', b"<g", svg)


def drawing(name: str, title: str, caption: str, alt: str, figure: Figure) -> Drawing:
    """Render a figure, under its name, with what is said of it; call inside `rc_context(STYLE)`."""
    return Drawing(name, title, caption, alt, float(figure.get_figwidth()), render(figure, name))


def _panels(n: int, *, height: float, share: bool = False) -> tuple[Figure, list[Axes]]:
    columns = min(n, 3) if n != 4 else 2
    rows = math.ceil(n / columns)
    figure = Figure(figsize=(COLUMN if n == 1 else TEXT, height * rows + 0.35))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share)
    panels = list(grid.flat)
    for axes in panels[n:]:
        axes.remove()
    return figure, panels[:n]


def _curves(axes: Axes, drawn: Sequence[Curve], look: Mapping[str, Look], *, step: bool = False) -> None:
    low, _ = axes.get_ylim() if axes.get_yscale() == "log" else (-math.inf, 0)
    for number, curve in enumerate(drawn):
        style, x = look[curve.method], np.array(curve.x)
        where: dict[str, Any] = {"drawstyle": "steps-post"} if step else {}
        every = (len(x) // 12 + number, max(len(x) // 5, 1))
        axes.plot(
            x, np.maximum(curve.band.estimate, low), color=style.colour, ls=style.line, marker=style.marker,
            markevery=every, label=curve.method, zorder=3, **where,
        )  # fmt: skip
        if not np.isnan(curve.band.low).any():
            axes.fill_between(
                x,
                np.maximum(curve.band.low, low),
                np.maximum(curve.band.high, low),
                color=style.colour,
                alpha=0.15,
                lw=0,
            )


def _log_regret(axes: Axes, drawn: Sequence[Curve]) -> None:
    """Regret 0 has no place on a log axis: what lies under the floor is drawn on it."""
    positive = [float(v) for c in drawn for v in (*c.band.estimate, *c.band.low) if v > 0]
    axes.set_yscale("log")
    axes.set_ylim(max(min(positive, default=0.1) * 0.9, 0.002), 1.1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in "25" else ""))
    axes.tick_params(axis="y", which="minor", labelsize=6.5)


def _cost_axis(axes: Axes, clock: str, median: float | None, tabular: bool) -> None:
    if median is None:
        axes.set_xlabel("cost (share of the budget)" if tabular else f"cost ({unit_name(clock)})")
        _plain_log(axes)
        return
    axes.set_xlabel(f"cost ({unit_name(clock)})")
    axes.xaxis.set_major_formatter(FuncFormatter(_power))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines["top"].set_visible(True)
    upper = axes.secondary_xaxis("top", functions=_trainings(median))
    upper.set_xlabel("median full trainings", fontsize=7, labelpad=3)
    upper.tick_params(labelsize=7)
    upper.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    upper.xaxis.set_minor_formatter(NullFormatter())


def _trainings(median: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    return (lambda cost: cost / median, lambda trainings: trainings * median)


def _plain_log(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(_power))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _forest(axes: Axes, metric: Metric, pairs: Sequence[Pair], look: Mapping[str, Look], *, labels: bool) -> None:
    axes.axvspan(-metric.rope * metric.scale, metric.rope * metric.scale, color="#DDDDDD", lw=0, zorder=0)
    axes.axvline(0, color=INK, lw=0.7, zorder=1)
    for row, pair in enumerate(pairs):
        style, gap, scale = look[pair.first], pair.difference, metric.scale
        sure = pair.verdict in ("better", "worse")
        axes.plot([gap.low * scale, gap.high * scale], [row, row], color=style.colour, lw=1.6, solid_capstyle="round")
        axes.plot(
            gap.estimate * scale, row, marker=style.marker, color=style.colour, ms=5,
            mfc=style.colour if sure else "white", mew=1.1,
        )  # fmt: skip
        axes.annotate(pair.verdict, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=6.5)
    axes.set_ylim(len(pairs) - 0.45, -0.55)
    axes.set_yticks(range(len(pairs)), [p.first for p in pairs] if labels else [])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    arrow = "lower is better" if metric.lower_is_better else "higher is better"
    axes.set_xlabel(f"Δ {metric.noun} ({metric.shown_difference}; {arrow})")


def _legend(figure: Figure, axes: Axes, n: int) -> None:
    """Outside the axes, so that it never covers data."""
    columns = min(n, 3 if figure.get_figwidth() < 4 else 6)
    handles, labels = axes.get_legend_handles_labels()
    if max(map(len, labels)) > 14 and columns > 2 and figure.get_figwidth() < 4:
        columns = 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.2, handletextpad=0.5)


def _spread(n: int) -> np.ndarray[Any, Any]:
    """Offsets in [-0.2, 0.2] without randomness: multiples of the golden ratio fill the strip evenly."""
    return (np.arange(n) * 0.6180339887498949 % 1.0 - 0.5) * 0.4


def _seeds(comparison: Comparison) -> str:
    counts = sorted({comparison.summary(m, p).seeds for m in comparison.methods for p in comparison.places})
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _bands(comparison: Comparison) -> str:
    if any(np.isnan(c.band.low).all() for c in comparison.anytime):
        return f"no bands, because a bootstrap of so few seeds is not trustworthy ({_seeds(comparison)})"
    return f"bands are pointwise 95 % bootstrap intervals ({_seeds(comparison)})"


def _span(pair: Pair) -> str:
    gap = pair.difference
    return f"{gap.estimate:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def _power(value: float, _: object = None) -> str:
    """10⁹ in plain characters: mathematical text costs as much time as the rest of a figure."""
    exponent = round(math.log10(value))
    if -3 <= exponent <= 4:
        return f"{value:g}"
    return "10" + str(exponent).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
