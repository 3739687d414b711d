"""The audit as one self-contained HTML page: findings first, then each table, then each estimator on a page of its own.

No request leaves the page, and nothing in it needs JavaScript.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..checklist import Checklist, fragment
from ..figures import Drawing
from ..grids import Grid
from ..html import render_page
from .checklist import checklist
from .figures import bias_forest, heat_map, scatter, stem, table_figures
from .grids import bias_details, table_grids
from .results import Audit, EstimatorAudit, TableAudit

ORDER = {"fault": 0, "warning": 1, "finding": 2}
SHOWN = 40
"""Findings at the head of the page; all stand with their estimators."""


@dataclass(slots=True)
class Page:
    """What one estimator's page shows."""

    anchor: str
    title: str
    verdicts: Sequence[str]
    drawings: Sequence[str]
    grids: Sequence[Grid]


@dataclass(slots=True)
class Block:
    """A section of the report: words, a card, figures by name, tables, and pages that follow it."""

    anchor: str
    title: str
    text: Sequence[str] = ()
    card: Sequence[tuple[str, str]] = ()
    drawings: Sequence[str] = ()
    grids: Sequence[Grid] = ()
    pages: Sequence[Page] = ()
    contents: Sequence[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """Everything of a report before it is written: of an audit of estimators, of pipelines, of one-shot models.

    Attributes:
        title: Of the page.
        lead: One sentence.
        findings: Severity and sentence, the gravest first.
        warnings: What limits all of it.
        blocks: The sections.
        drawings: Every figure, by name.
        numbers: What goes into `audit.json` and the page.
        provenance: Name and value.
        checklist: Of good practice; None where there is none for such a report.
    """

    title: str
    lead: str
    findings: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    blocks: Sequence[Block]
    drawings: Mapping[str, Drawing]
    numbers: Mapping[str, Any]
    provenance: Sequence[tuple[str, str]]
    checklist: Checklist | None = None

    @property
    def grids(self) -> list[Grid]:
        """All tables, in the order of the page."""
        found = []
        for block in self.blocks:
            found += [*block.grids, *(g for page in block.pages for g in page.grids)]
        return found

    def html(self) -> str:
        """The page."""
        return render_page(
            "audit.html.j2",
            list(self.drawings.values()),
            title=self.title,
            lead=self.lead,
            sections=[
                ("findings", "Findings"), *((b.anchor, b.title) for b in self.blocks),
                *([("checklist", "Checklist")] if self.checklist else []), ("provenance", "Provenance"),
            ],
            findings=[{"severity": s, "text": t} for s, t in self.findings],
            warnings=self.warnings,
            blocks=self.blocks,
            provenance=self.provenance,
            checklist=fragment(self.checklist, within="audit.html") if self.checklist else "",
            chips=(),
            anchors=lambda names: [],
            numbers=json.dumps(self.numbers, sort_keys=True, separators=(",", ":"), allow_nan=False),
        )  # fmt: skip


def report(audit: Audit, provenance: Sequence[tuple[str, str]] = ()) -> Report:
    """The report of an audit of estimators.

    Args:
        audit: What to say.
        provenance: Further names and values, such as versions.
    """
    drawings: list[Drawing] = [heat_map(audit)] if len(audit.tables) > 1 else []
    blocks = [Block("overview", "All tables", drawings=["heat_map"])] if drawings else []
    for table in audit.tables:
        block, drawn = _block(table)
        blocks.append(block)
        drawings += drawn
    ranked = sorted(
        ((ORDER[f.severity], f.severity, f"{e.name} on {t.table}: {f.sentence}")
         for t in audit.tables for e in t.estimators for f in e.flags), key=lambda item: item[0],
    )  # fmt: skip
    names = ", ".join(t.table for t in audit.tables)
    count = len({e.name for t in audit.tables for e in t.estimators})
    settings = audit.settings
    how = [(t.table, t.digest) for t in audit.tables]
    how += [(f"{e.name} on {t.table}", e.source) for t in audit.tables for e in t.estimators]
    how += [("resamples", str(settings.resamples)), ("seed", str(settings.seed)), ("level", f"{settings.level:g}")]
    return Report(
        f"Estimators on {names}",
        f"{count} estimators held against what architectures are worth after full training: how far each can be"
        " trusted, where it is biased, and what that costs a search.",
        [(severity, text) for _, severity, text in ranked[:SHOWN]],
        [f"{t.table}: {w}" for t in audit.tables for w in t.warnings],
        blocks,
        {d.name: d for d in drawings},
        audit.to_dict(),
        [*how, *provenance],
        checklist(audit),
    )


def _block(table: TableAudit) -> tuple[Block, list[Drawing]]:
    drawings = list(table_figures(table))
    names = [d.name for d in drawings]
    pages = []
    for e in table.estimators:
        mine = [scatter(table, e), *([bias_forest(table, e)] if any(b.effect.n for b in e.biases) else [])]
        drawings += mine
        pages.append(_page(table, e, [d.name for d in mine]))
    coverage = "all of its space" if table.complete else f"a sample of {table.size}"
    card = [
        ("Architectures", f"{table.n}, {coverage}"), ("Space", table.space), ("Pipeline", table.pipeline),
        ("Truth", f"test {table.metric} after full training"), ("Training seeds", str(table.seeds)),
        ("Left out", f"{table.diverged} that diverged" if table.diverged else "nothing"),
    ]  # fmt: skip
    contents = [(p.anchor, p.title.partition(" on ")[0]) for p in pages]
    anchor = stem("table", table.table)
    return Block(anchor, table.table, (), card, names, table_grids(table), pages, contents), drawings


def _page(table: TableAudit, e: EstimatorAudit, drawings: Sequence[str]) -> Page:
    grids = [bias_details(table, e)] if e.biases else []
    return Page(stem("estimator", table.table, e.name), f"{e.name} on {table.table}", e.verdicts, drawings, grids)
