"""Figures of a table, drawn from plain numbers. Nothing is computed here but positions on the page.

They show validation values only. Values that are missing or infinite are not drawn; captions say how many.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from . import svg
from .figures import COLOURS, COLUMN, FAINT, INK, METADATA, STYLE, TEXT, Drawing
from .words import unit_name

KINDS = ("png", "svg")
MANY = 1500
"""Marks of one panel from which on they are drawn as one image, so that files stay small."""

SMALLEST, LARGEST = 0.42, 0.62
"""Points per unit of a drawing, whose letters are 11 units high: in two columns at least, and at most."""


@dataclass(frozen=True, slots=True)
class Best:
    """One of the best architectures: its notation, its trainings, a drawing (SVG) or ""."""

    text: str
    quality: float
    trainings: tuple[float, ...]
    drawing: str = ""


@dataclass(frozen=True, slots=True)
class PipelineValues:
    """Validation values under one pipeline.

    Attributes:
        name: Of the pipeline.
        quality: (architectures,), mean over seeds; NaN where missing.
        cost: (architectures,), of a full training.
        pairs: (k, 2), first and second training of each architecture that has two.
        spearman: Of these pairs; None where undefined.
        best: The best architectures, best first.
    """

    name: str
    quality: np.ndarray
    cost: np.ndarray
    pairs: np.ndarray
    spearman: float | None
    best: tuple[Best, ...]


@dataclass(frozen=True, slots=True)
class TableValues:
    """A table as numbers.

    Attributes:
        name: Of the table.
        metric: Its name; accuracies are fractions.
        higher_is_better: Its direction.
        clock: Unit of cost.
        pipelines: At least one.
        labels: Of the columns that are correlated: pipelines, and `table:pipeline` of other tables.
        correlations: Spearman's, symmetric (labels, labels), NaN where undefined.
    """

    name: str
    metric: str
    higher_is_better: bool
    clock: str
    pipelines: tuple[PipelineValues, ...]
    labels: tuple[str, ...]
    correlations: np.ndarray

    @property
    def factor(self) -> float:
        """Accuracies are shown in percent."""
        return 100.0 if self.metric == "accuracy" else 1.0

    @property
    def axis(self) -> str:
        """Label of an axis of qualities."""
        return f"validation {self.metric}" + (" (%)" if self.metric == "accuracy" else "")


def draw_all(table: TableValues) -> tuple[Drawing, ...]:
    """Every figure for which there are numbers."""
    makers: list[tuple[bool, Callable[[], Drawing]]] = [
        (True, lambda: distribution(table)),
        (any(len(p.pairs) for p in table.pipelines), lambda: seeds(table)),
        (any(_varies(p.cost) for p in table.pipelines), lambda: cost(table)),
        (len(table.labels) > 1, lambda: correlation(table)),
    ]
    drawn = [make() for wanted, make in makers if wanted]
    for p in table.pipelines:
        drawn.append(best(table, p))
        if any(b.drawing for b in p.best):
            drawn.append(architectures(table, p))
    return tuple(drawn)


def write_all(table: TableValues, folder: Path) -> list[Path]:
    """Write every figure as PNG and SVG; the paths, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for drawing in draw_all(table):
        for kind in KINDS:
            paths.append(folder / f"{drawing.name}.{kind}")
            paths[-1].write_bytes(drawing.files[kind])
    return paths


def distribution(table: TableValues) -> Drawing:
    """Histogram of the qualities under each pipeline, one above the other, median and quartiles marked."""
    shown = [_finite(p.quality) * table.factor for p in table.pipelines]
    log = _wide(shown, table)
    low, high = min(v.min() for v in shown), max(v.max() for v in shown)
    edges = np.geomspace(low, high, 61) if log else np.linspace(low, high if high > low else low + 1, 61)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 0.55 + 0.62 * len(shown)))
        panels = np.atleast_1d(figure.subplots(len(shown), 1, sharex=True))
        for axes, p, values, colour in zip(panels, table.pipelines, shown, _colours(len(shown)), strict=True):
            axes.hist(values, bins=edges, color=colour, alpha=0.75)
            for q, style in ((25, ":"), (50, "-"), (75, ":")):
                axes.axvline(float(np.percentile(values, q)), color=INK, lw=0.8, ls=style)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_ylabel(p.name, rotation=0, ha="right", va="center")
            if log:
                axes.set_xscale("log")
                _plain(axes)
        panels[-1].set_xlabel(table.axis)
        n = max(len(v) for v in shown)
        caption = (
            f"{table.name}: distribution of validation {table.metric} over {n:,} architectures, mean over training "
            f"seeds. Lines: median, dotted quartiles.{_undrawn(table)}"
        )
        return _drawing("distribution", "Distribution of quality", caption, "Histograms", figure)


def seeds(table: TableValues) -> Drawing:
    """One training against another one of the same architecture."""
    with mpl.rc_context(STYLE):
        figure, panels = _panels([p for p in table.pipelines if len(p.pairs)], 1.9)
        for (axes, p), colour in zip(panels, _colours(len(panels)), strict=True):
            x, y = (p.pairs[np.isfinite(p.pairs).all(1)] * table.factor).T
            _scatter(axes, x, y, colour)
            ends = [min(x.min(), y.min()), max(x.max(), y.max())]
            axes.plot(ends, ends, color=INK, lw=0.6, zorder=2)
            _log_axes(axes, _wide([x, y], table), "xy")
            axes.set_title(p.name if p.spearman is None else f"{p.name}: Spearman {p.spearman:.3f}", pad=4)
        _shared_labels(figure, panels, f"{table.axis}, first seed", "second seed")
        caption = (
            f"{table.name}: validation {table.metric} of one training against another one of the same architecture, "
            f"and their rank correlation.{_undrawn(table)}"
        )
        return _drawing("seeds", "Noise of training seeds", caption, "Scatter plots", figure)


def cost(table: TableValues) -> Drawing:
    """Quality against the cost of a full training."""
    with mpl.rc_context(STYLE):
        figure, panels = _panels([p for p in table.pipelines if _varies(p.cost)], 1.9)
        for (axes, p), colour in zip(panels, _colours(len(panels)), strict=True):
            there = np.isfinite(p.quality) & np.isfinite(p.cost)
            x, y = p.cost[there], p.quality[there] * table.factor
            _scatter(axes, x, y, colour)
            _log_axes(axes, bool(x.min() > 0 and x.max() > 3 * x.min()), "x")
            _log_axes(axes, _wide([y], table), "y")
            axes.set_title(p.name, pad=4)
        _shared_labels(figure, panels, f"cost of a full training ({unit_name(table.clock)})", table.axis)
        caption = f"{table.name}: validation {table.metric} against the cost of a full training.{_undrawn(table)}"
        return _drawing("cost", "Cost and quality", caption, "Scatter plots", figure)


def correlation(table: TableValues) -> Drawing:
    """Heat map of rank correlations between pipelines, and with other tables."""
    k, values = len(table.labels), table.correlations
    lowest = float(np.nanmin(values))
    cmap, low = ("RdBu", -1.0) if lowest < 0 else ("Blues", 0.0)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        side = 0.38 * k + 0.075 * max(map(len, table.labels))
        figure = Figure(figsize=(max(side + 0.9, COLUMN), max(side, 0.7 * COLUMN)))
        axes = figure.add_subplot()
        image = axes.imshow(values, cmap=cmap, vmin=low, vmax=1.0)
        for i in range(k):
            for j in range(k):
                r = values[i, j]
                dark = not math.isnan(r) and (abs(r) if low < 0 else r) > 0.6
                text = "" if math.isnan(r) else f"{r:.2f}"
                axes.text(j, i, text, ha="center", va="center", fontsize=6.5, color="white" if dark else INK)
        axes.set_xticks(range(k), table.labels, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(k), table.labels)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, shrink=0.8, label="Spearman correlation")
        caption = (
            f"{table.name}: rank correlation of architectures by validation quality between pipelines"
            f"{' and with other tables' if k > len(table.pipelines) else ''}, higher quality being better."
        )
        return _drawing("correlation", "Agreement between pipelines", caption, "Heat map", figure)


def best(table: TableValues, p: PipelineValues) -> Drawing:
    """The best architectures with their single trainings: how far apart are they, beside the noise?"""
    rows = range(len(p.best))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(TEXT, 0.6 + 0.2 * len(p.best)))
        axes = figure.add_subplot()
        for row, b in zip(rows, p.best, strict=True):
            single = np.array(b.trainings) * table.factor
            axes.plot(single, [row] * len(single), "|", color=FAINT, ms=7, mew=1.0, zorder=2)
            axes.plot(b.quality * table.factor, row, "o", color=COLOURS[0], ms=4, zorder=3)
        axes.set_yticks(rows, [f"{_cut(b.text, 60)}   {i}" for i, b in enumerate(p.best, 1)], fontsize=6)
        axes.set_ylim(len(p.best) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=f"{table.axis}, pipeline {p.name}")
        caption = (
            f"{table.name}: the best {len(p.best)} architectures under {p.name}, means over seeds (dots) and single "
            "trainings (marks). They were chosen by these values, which are therefore optimistic."
        )
        return _drawing(f"best_{p.name}", f"Best architectures, {p.name}", caption, "Dot plot", figure)


def architectures(table: TableValues, p: PipelineValues) -> Drawing:
    """Pictures of the best architectures."""
    drawn = [(i, b) for i, b in enumerate(p.best, 1) if b.drawing]
    sizes = [svg.size(b.drawing) for _, b in drawn]
    widest = max(w for w, _ in sizes)
    columns = 2 if (TEXT / 2 - 0.2) * 72 / widest > SMALLEST else 1
    cell, title = TEXT / columns, 0.3
    # One scale for all, so that larger networks look larger; in points per unit.
    points = min(LARGEST, (cell - 0.2) * 72 / widest)
    heights = [h * points / 72 + title + 0.12 for _, h in sizes]
    rows = [max(heights[i : i + columns]) for i in range(0, len(heights), columns)]
    with mpl.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        figure = Figure(figsize=(TEXT, sum(rows)))
        for place, ((rank, b), (w, h)) in enumerate(zip(drawn, sizes, strict=True)):
            left, top = cell * (place % columns) + 0.1, sum(rows) - sum(rows[: place // columns])
            wide, high = w * points / 72, h * points / 72
            box = (left / TEXT, (top - title - high) / sum(rows), wide / TEXT, high / sum(rows))
            svg.paint(figure.add_axes(box), b.drawing, points)
            said = f"{rank}.  {100 * b.quality:.2f} %" if table.factor == 100 else f"{rank}.  {b.quality:.4g}"
            figure.text(left / TEXT, (top - 0.13) / sum(rows), said, fontsize=7, weight="bold")
            letters = int((cell - 0.3) * 21)
            figure.text(left / TEXT, (top - 0.25) / sum(rows), _cut(b.text, letters), fontsize=5, color=INK)
        caption = f"{table.name}: the best {len(drawn)} architectures under {p.name}, validation {table.metric}."
        name = f"architectures_{p.name}"
        return _drawing(name, f"Pictures of the best architectures, {p.name}", caption, "Drawings", figure)


def _drawing(name: str, title: str, caption: str, kind: str, figure: Figure) -> Drawing:
    files = {}
    with mpl.rc_context({"svg.hashsalt": f"nasbed-{name}"}):
        for form in KINDS:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=form, metadata=METADATA[form])
            files[form] = buffer.getvalue()
            figure.set_layout_engine("none")  # the first pass settled the layout; solving it again takes a second
    return Drawing(name, title, caption, f"{kind}. {caption}", float(figure.get_figwidth()), files)


def _finite(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = values[np.isfinite(values)]
    return found


def _varies(values: np.ndarray) -> bool:
    there = _finite(values)
    return bool(there.size and there.max() > there.min())


def _wide(values: Sequence[np.ndarray], table: TableValues) -> bool:
    """Whether values of a metric other than accuracy span so much that they need a logarithmic axis."""
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    return bool(table.metric != "accuracy" and low > 0 and high > 10 * low)


def _undrawn(table: TableValues) -> str:
    counts = {
        what: max(int(test(p.quality).sum()) for p in table.pipelines)
        for what, test in (("without a training", np.isnan), ("with a diverged training", np.isinf))
    }
    said = " or ".join(f"{n} architectures {what}" for what, n in counts.items() if n)
    return f" Not drawn, under some pipeline: {said}." if said else ""


def _colours(n: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def _panels(shown: Sequence[PipelineValues], height: float) -> tuple[Figure, list[tuple[Axes, PipelineValues]]]:
    columns = min(len(shown), 3) if len(shown) != 4 else 2
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(COLUMN if len(shown) == 1 else TEXT, height * rows + (0.9 if len(shown) == 1 else 0.3)))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[len(shown) :]:
        axes.remove()
    return figure, list(zip(grid, shown, strict=False))


def _scatter(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    many = len(x) > MANY
    axes.scatter(x, y, s=3 if many else 7, color=colour, alpha=0.25 if many else 0.6, linewidths=0, rasterized=many)


def _log_axes(axes: Axes, log: bool, which: str) -> None:
    if log:
        for axis in which:
            getattr(axes, f"set_{axis}scale")("log")
        _plain(axes)


def _plain(axes: Axes) -> None:
    """Numbers on logarithmic axes as people write them."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(FuncFormatter(lambda v, _: _plain_number(v)))
            axis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:g}" if v < 1e5 and f"{v:e}"[0] in "25" else ""))
    axes.tick_params(which="minor", labelsize=6.5)


def _plain_number(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    exponent = round(math.log10(value))
    return "10" + str(exponent).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))


def _shared_labels(figure: Figure, panels: Sequence[tuple[Axes, Any]], x: str, y: str) -> None:
    if len(panels) == 1:
        panels[0][0].set(xlabel=x, ylabel=y)
        return
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
