"""The checklist of good practice, filled in from the run records: what holds, what does not, what only people can say.

Practices 1 to 14 are those of Lindauer and Hutter, "Best Practices for Scientific Research on Neural Architecture
Search", JMLR 21(243), 2020; 15 to 23 are added here. Nothing is assumed: what no record can tell needs a human.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import jinja2
from markupsafe import Markup

from ..harness.records import canonical_bytes
from ..protocols import Json
from .checklist_added import ADDED
from .checklist_items import PRACTICES
from .checklist_runs import Noted, Status, gather
from .frame import Store
from .grids import Cell, Column, Grid
from .html import DATA
from .results import Comparison, plain
from .tables import latex_escape, to_latex

STATUSES: tuple[Status, ...] = get_args(Status)
FORMATS = ("html", "md", "tex", "json")
SOURCE = (
    'Practices 1 to 14: Lindauer and Hutter, "Best Practices for Scientific Research on Neural Architecture Search",'
    " JMLR 21(243), 2020, in other words; 15 to 23 are additions."
)


@dataclass(frozen=True, slots=True)
class Item:
    """One practice.

    Attributes:
        number: 1 to 23.
        practice: In a few words.
        status: `needs-human` where no record can tell.
        reason: Why, and what a human has to say.
        evidence: A file, with the section or JSON pointer after `#`: `study.json` and `runs` are in the run store,
            audits where they were named, everything else in the folder of the report.
    """

    number: int
    practice: str
    status: Status
    reason: str
    evidence: str

    @property
    def added(self) -> bool:
        """Whether it is none of Lindauer and Hutter's."""
        return self.number > len(PRACTICES)


@dataclass(frozen=True, slots=True)
class Checklist:
    """All practices for one study.

    Attributes:
        study: Name.
        digest: Of the study.
        items: In the order of their numbers.
    """

    study: str
    digest: str
    items: tuple[Item, ...]

    @property
    def counts(self) -> dict[Status, int]:
        """How many practices have each status."""
        found = Counter(item.status for item in self.items)
        return {status: found[status] for status in STATUSES}

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {"schema": 1, "source": SOURCE, "counts": self.counts, **plain(self)}


def checklist(
    store: Store, comparison: Comparison | None = None, *, audits: Mapping[str, Mapping[str, Json]] | None = None
) -> Checklist:
    """Fill in the checklist of a study.

    Args:
        store: Its runs. A `Noted` store is not read again.
        comparison: Of the same runs; None if they cannot be compared, and what rests on a comparison then fails.
        audits: Path of each `audit.json` that belongs to the study, to its content.

    Raises:
        ValueError: The study has no finished run; an audit is none of estimators on tables.
    """
    for path, audit in (audits or {}).items():
        if not isinstance(audit, Mapping) or "tables" not in audit:
            raise ValueError(f"audit: {path} is not an audit of estimators: it has no 'tables'")
    noted = store if isinstance(store, Noted) else Noted(store)
    evidence = gather(noted, comparison, audits or {})
    items = tuple(
        Item(number, practice, *rule(evidence))
        for number, (practice, rule) in enumerate((*PRACTICES, *ADDED), start=1)
    )  # fmt: skip
    return Checklist(str(evidence.study["name"]), str(evidence.study["digest"]), items)


def files(checked: Checklist) -> dict[str, bytes]:
    """`checklist.html`, `.md`, `.tex` and `.json`: the same values, the same bytes every time."""
    made = (to_html(checked), to_markdown(checked), to_tex(checked), None)
    found = {f"checklist.{kind}": text.encode() for kind, text in zip(FORMATS, made, strict=True) if text is not None}
    return found | {"checklist.json": canonical_bytes(checked.to_dict()) + b"\n"}


def grid(checked: Checklist) -> Grid:
    """Number, practice, status and evidence as a table; reasons are too long for one."""
    columns = (
        Column("number", "No."), Column("practice", "Practice", text=True), Column("status", "Status", text=True),
        Column("evidence", "Evidence", text=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(str(i.number), {"number": i.number}), Cell(i.practice),
            Cell(i.status, mark="bold" if i.status == "fail" else ""), Cell(_cut(i.evidence)),
        )
        for i in checked.items
    )  # fmt: skip
    return Grid("checklist", "Checklist", f"Checklist of {checked.study}: {tally(checked)}. {SOURCE}", columns, rows)


def tally(checked: Checklist) -> str:
    """The counts in words."""
    return ", ".join(f"{n} {status}" for status, n in checked.counts.items())


def to_markdown(checked: Checklist) -> str:
    """A table with the reasons."""
    lines = [["No.", "Practice", "Status", "Reason", "Evidence"], ["--:", *[":--"] * 4]]
    for i in checked.items:
        status = f"**{i.status}**" if i.status == "fail" else i.status
        lines.append([str(i.number), i.practice, status, i.reason, f"`{i.evidence}`"])
    table = "\n".join("| " + " | ".join(" ".join(t.split()).replace("|", "\\|") for t in line) + " |" for line in lines)
    return f"# Checklist of {checked.study}\n\n{tally(checked)}.\n\n{table}\n\n{SOURCE}\n"


def to_tex(checked: Checklist) -> str:
    """A booktabs table, then the reasons as a list; for a document that loads booktabs and graphicx."""
    table = to_latex(grid(checked), stamp=f"generated by nasbed; study sha256 {checked.digest}")
    reasons = "\n".join(
        rf"\item[{i.number}.] {latex_escape(i.practice)} ({latex_escape(i.status)}): {latex_escape(i.reason)}."
        for i in checked.items
    )
    return f"{table}\\begin{{description}}\\small\n{reasons}\n\\end{{description}}\n"


def to_html(checked: Checklist) -> str:
    """A page of its own."""
    style = Markup((DATA / "report.css").read_text(encoding="utf-8"))
    return _template("checklist.html.j2").render(
        checked=checked, items=fragment(checked), tally=tally(checked), style=style
    )


def fragment(checked: Checklist, *, within: str = "") -> Markup:
    """The items as a list, for a page; evidence in the page `within` becomes a link.

    Args:
        checked: What to show.
        within: Name of the page that the list is put into.
    """
    text = _template("checklist_items.html.j2").render(items=checked.items, source=SOURCE, within=f"{within}#")
    return Markup(text)  # escaped by the template


def _template(name: str) -> jinja2.Template:
    loader = jinja2.FileSystemLoader(DATA)
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    ).get_template(name)


def _cut(evidence: str) -> str:
    """Digests in paths are cut: a table has no room for them."""
    return re.sub(r"[0-9a-f]{64}", lambda found: f"{found[0][:8]}...", evidence)
