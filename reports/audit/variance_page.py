"""The report of an audit of pipelines: bars of variance, tables of what follows from them, and the answer in words."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..figures import COLOURS, COLUMN, INK, STYLE, TEXT, Drawing, drawing
from ..grids import Cell, Column, Grid
from ..results import plain
from ..statistics import Interval
from ..words import percent
from .figures import stem
from .grids import interval_cell, plain_cell
from .page import Block, Report
from .variance import SOURCES, VarianceAudit, answer

NAMES = {"arch": "architectures", "pipe": "pipelines", "arch_pipe": "interaction", "seed": "training seeds"}
SCOPES = {"all": "all architectures", "top": "the best"}
SCALES = {"metric": "", "logit": ", logit"}


def report(audit: VarianceAudit, left_out: str, provenance: list[tuple[str, str]]) -> Report:
    """The report of one table.

    Args:
        audit: What to say.
        left_out: Which architectures could not be used, or "".
        provenance: Names and values.
    """
    drawings = [bars(audit), means(audit)]
    said = answer(audit)
    scale, unit = _unit(audit)
    others = [p for p in audit.pipelines if p != audit.best]
    against = audit.base if audit.base in others else others[-1]
    spread = audit.spread
    findings = [
        said,
        f"Means of pipelines lie within {_text(spread.range, scale)} {unit}; within a pipeline the middle half of the"
        f" architectures spans {_text(spread.iqr, scale)} {unit}: {_text(spread.range_to_iqr)} times as much.",
        f"A median architecture under {audit.best} beats one of the best 1 % under {against} with probability"
        f" {_text(audit.median_beats_top[against])}.",
        *(
            f"Choosing the architecture under {c.pipeline} and deploying it under {audit.best} loses"
            f" {_text(c.regret, scale)} {unit}."
            for c in audit.choices
            if c.pipeline != audit.best
        ),
    ]
    block = Block(
        stem("table", audit.table),
        audit.table,
        card=[
            ("Architectures", str(audit.n)), ("Pipelines", ", ".join(audit.pipelines)), ("Seeds", str(audit.seeds)),
            ("Space", audit.space), ("Truth", f"test {audit.metric}"), ("Left out", left_out or "nothing"),
        ],
        drawings=[d.name for d in drawings],
        grids=[shares(audit), components(audit), transfers(audit), choices(audit)],
    )  # fmt: skip
    return Report(
        f"Architectures and pipelines on {audit.table}",
        "Do the ingredients of training matter more than architectures?",
        [("finding", text) for text in findings],
        [],
        [block],
        {d.name: d for d in drawings},
        {"answer": said, "variance": plain(audit), "tables": []},
        provenance,
    )


def bars(audit: VarianceAudit) -> Drawing:
    """Shares of the variance, over all architectures and among the best, on both scales."""
    shown = [d for d in audit.decompositions if d.shares["arch"].estimate == d.shares["arch"].estimate]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(TEXT, 0.9 + 0.3 * len(shown)))
        axes = figure.add_subplot()
        for row, d in enumerate(shown):
            left = 0.0
            for source, colour in zip(SOURCES, (COLOURS[0], COLOURS[1], COLOURS[2], "#BBBBBB"), strict=True):
                share = d.shares[source].estimate
                axes.barh(row, share, left=left, color=colour, height=0.62, label=NAMES[source] if row == 0 else None)
                left += share
            lead = d.shares["arch"]
            axes.plot([lead.low, lead.high], [row, row], color=INK, lw=1.0)
        axes.set_yticks(range(len(shown)), [f"{SCOPES[d.scope]}{SCALES[d.scale]}" for d in shown])
        axes.set_ylim(len(shown) - 0.45, -0.55)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set_xlabel("share of the variance of single trainings")
        figure.legend(loc="outside lower center", ncols=4)
        caption = (
            f"What the variance of test {audit.metric} on {audit.table} comes from; lines: 95 % intervals of the share"
            f" of architectures. The best: a {percent(audit.top)} % chosen by the mean over pipelines of another seed."
        )
        said = "; ".join(
            f"{SCOPES[d.scope]}{SCALES[d.scale]}: "
            + ", ".join(f"{NAMES[s]} {percent(d.shares[s].estimate)} %" for s in SOURCES)
            for d in shown
        )
        return _drawing("variance", audit, "Sources of variance", caption, f"Bars. {caption} {said}.", figure)


def means(audit: VarianceAudit) -> Drawing:
    """Means of the pipelines."""
    scale, unit = _unit(audit)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 0.75 + 0.25 * len(audit.pipelines)))
        axes = figure.add_subplot()
        for row, mean in enumerate(audit.spread.means):
            axes.plot([mean.low * scale, mean.high * scale], [row, row], color=COLOURS[0], lw=1.2)
            axes.plot(mean.estimate * scale, row, marker="o", color=COLOURS[0], ms=3.5)
        axes.set_yticks(range(len(audit.pipelines)), audit.pipelines)
        axes.set_ylim(len(audit.pipelines) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set_xlabel(f"mean test {audit.metric}" + (" (%)" if unit == "pp" else ""))
        caption = f"Means of the pipelines over {audit.n} architectures of {audit.table}, with 95 % intervals."
        return _drawing("pipelines", audit, "Means of pipelines", caption, caption, figure)


def shares(audit: VarianceAudit) -> Grid:
    """Shares of the variance."""
    columns = (Column("scope", "Of"), Column("n", "Architectures"), *(Column(s, NAMES[s], "%") for s in SOURCES))
    rows = tuple(
        (
            Cell(f"{SCOPES[d.scope]}{SCALES[d.scale]}", {"scope": f"{d.scope}-{d.scale}"}), Cell(str(d.n), {"n": d.n}),
            *(interval_cell(d.shares[s], 0, scale=100.0) for s in SOURCES),
        )
        for d in audit.decompositions
    )  # fmt: skip
    caption = (
        f"Shares of the variance of single trainings on {audit.table}, by analysis of variance, with 95 % bootstrap"
        " intervals over architectures; components that come out negative count as 0. Pipelines are these and no"
        " sample."
    )
    return Grid(stem("shares", audit.table), "Shares of variance", caption, columns, rows)


def components(audit: VarianceAudit) -> Grid:
    """Raw components."""
    scale, unit = _unit(audit)
    named = {**NAMES, "shared": "shared by pipelines"}
    columns = (Column("scope", "Of"), *(Column(s, name, f"{unit}²") for s, name in named.items()))
    rows = tuple(
        (
            Cell(SCOPES[d.scope], {"scope": d.scope}),
            *(interval_cell(d.components[s], scale=scale**2) for s in named),
        )
        for d in audit.decompositions
        if d.scale == "metric"
    )
    caption = (
        f"Components of variance on {audit.table}, raw: estimates of small ones may be negative. Shared by pipelines:"
        " the part of the seeds' that trainings of one architecture from one seed have in common."
    )
    return Grid(stem("components", audit.table), "Components", caption, columns, rows)


def transfers(audit: VarianceAudit) -> Grid:
    """Rank correlation between pipelines beside its ceiling."""
    columns = (
        Column("pair", "Pipelines"), Column("tau_b", "τ-b", better="higher"),
        Column("spearman", "Spearman", better="higher"), Column("ceiling", "ceiling"),
        Column("agreement", "agreement without noise"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(" and ".join(t.pipelines), {"pair": "+".join(t.pipelines)}), interval_cell(t.tau_b),
            interval_cell(t.spearman), interval_cell(t.ceiling), interval_cell(t.agreement),
        )
        for t in audit.transfers
    )  # fmt: skip
    caption = (
        f"Whether pipelines rank the architectures of {audit.table} alike: correlation of means over seeds, what the"
        " noise of seeds lets it reach, and the correlation between pipelines over that between seeds (1: seeds are all"
        " that parts the rankings)."
    )
    return Grid(stem("transfer", audit.table), "Transfer of rankings", caption, columns, rows)


def choices(audit: VarianceAudit) -> Grid:
    """Regret of choosing with one pipeline and deploying with the best."""
    scale, unit = _unit(audit)
    columns = (
        Column("pipeline", "Chosen under"), Column("cost", "Cost", "of the base"),
        Column("regret", "Regret", unit, "lower"),
        Column("loss", "Loss to the best one", unit, "lower"), Column("beats", "Median beats top 1 %"),
    )  # fmt: skip
    base = next(c.cost for c in audit.choices if c.pipeline == audit.base)
    rows = tuple(
        (
            Cell(c.pipeline, {"pipeline": c.pipeline}), plain_cell("cost", c.cost / base),
            interval_cell(c.regret, scale=scale), interval_cell(c.loss, scale=scale),
            interval_cell(audit.median_beats_top[c.pipeline]),
        )
        for c in audit.choices
    )  # fmt: skip
    caption = (
        f"Choosing the best architecture under one pipeline and training it under {audit.best}: regret against the best"
        f" there (a maximum of noisy values, and so too high), and the loss against choosing under {audit.best} itself,"
        " judged by seeds that did not choose. Last: probability that a median architecture under"
        f" {audit.best} beats one of the best 1 % under this pipeline."
    )
    return Grid(stem("choices", audit.table), "Choosing and deploying", caption, columns, rows)


def _unit(audit: VarianceAudit) -> tuple[float, str]:
    return (100.0, "pp") if audit.metric == "accuracy" else (1.0, audit.metric)


def _text(interval: Interval, scale: float = 1.0) -> str:
    return interval_cell(interval, scale=scale).text


def _drawing(name: str, audit: VarianceAudit, title: str, caption: str, alt: str, figure: Figure) -> Drawing:
    return drawing(stem(name, audit.table), title, caption, alt, figure)
