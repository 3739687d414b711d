"""One self-contained HTML page: no request leaves it, and nothing in it needs JavaScript."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ..protocols import Json
from .figures import Drawing
from .grids import Cell, Grid, groups, results
from .results import Comparison, plain
from .words import amount, sentence

DATA = Path(__file__).parent / "data"
CHIPS = ("better", "worse", "equivalent", "undecided")


def page(
    comparison: Comparison,
    study: Mapping[str, Json],
    grids: Sequence[Grid],
    drawings: Sequence[Drawing],
    checklist: Markup,
) -> str:
    """Render the report.

    Args:
        comparison: What to say.
        study: The study record: its spec and provenance are shown.
        grids: From `grids.all_grids`.
        drawings: From `figures.draw_all`.
        checklist: From `checklist.fragment`.
    """
    named = groups(comparison)
    ids = {name: f"g{i}" for i, name in enumerate(named)}
    return render_page(
        "report.html.j2",
        drawings,
        comparison=comparison,
        lead=_lead(comparison),
        sections=_sections(),
        verdicts=_verdicts(comparison),
        table_sentence=_sentence_case(comparison.table_test.sentence),
        protocol=_protocol(comparison, study),
        provenance=_provenance(study),
        grids={g.name: g for g in grids},
        architectures=_architectures(study),
        checklist=checklist,
        groups=named,
        runs={r.key: r for r in comparison.runs},
        anchors=lambda names: [ids[n] for n in names],
        chips=CHIPS,
        numbers=_numbers(comparison),
    )


def render_page(template: str, drawings: Sequence[Drawing], **values: Any) -> str:
    """Fill the template of a page that needs nothing from outside.

    Args:
        template: In the package's data; it imports `macros.html.j2`.
        drawings: Figures that it may show by name.
        values: What else it names; `numbers` is JSON text, `anchors` gives the ids that a cell links to.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(DATA),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    script = (DATA / "sort.js").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        **{**values, "numbers": Markup(values["numbers"].replace("<", "\\u003c"))},
        drawings={d.name: _inline(d) for d in drawings},
        sort_value=_sort_value,
        style=Markup((DATA / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def fragment(comparison: Comparison) -> str:
    """The verdicts and the table of results, for a notebook."""
    said = "".join(f"<li>{escape(item['text'])}</li>" for b in _verdicts(comparison) for item in b["lines"])
    warned = "".join(f"<li>{escape(w)}</li>" for w in comparison.warnings)
    grid = results(comparison)
    heads = "".join(f"<th>{escape(c.title)}</th>" for c in grid.columns)
    weight = {"": "{}", "bold": "<b>{}</b>", "underline": "<u>{}</u>"}
    rows = "".join(
        "<tr>" + "".join(f"<td>{weight[c.mark].format(escape(c.text))}</td>" for c in row) + "</tr>"
        for row in grid.rows
    )
    return (
        f"<div><b>{escape(comparison.study)}</b><ul>{said}</ul><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table>{f'<p>Warnings</p><ul>{warned}</ul>' if warned else ''}</div>"
    )


def _sections() -> tuple[tuple[str, str], ...]:
    return (
        ("verdicts", "Verdicts"), ("protocol", "Protocol"), ("results", "Results"), ("pairs", "All pairs"),
        ("anytime", "Over cost"), ("incumbents", "Incumbents"), ("checklist", "Checklist"),
        ("provenance", "Provenance"), ("runs", "Runs"),
    )  # fmt: skip


def _lead(comparison: Comparison) -> str:
    noun = "table" if comparison.tables else "data set"
    places = f"{len(comparison.places)} {noun}{'' if len(comparison.places) == 1 else 's'}"
    methods = f"{len(comparison.methods)} method{'' if len(comparison.methods) == 1 else 's'}"
    planned = len(comparison.runs) + len(comparison.absent)
    return (
        f"{methods} on {places}, {len(comparison.runs)} of {planned} runs finished. Every method is compared with"
        f" {comparison.baseline} and with each other at equal cost."
    )


def _verdicts(comparison: Comparison) -> list[dict[str, Any]]:
    blocks = []
    for metric in comparison.metrics:
        pairs = comparison.pairs_of(metric.name, baseline=True)
        items = [{"verdict": p.verdict, "text": sentence(p, metric).replace(" = ", "\u00a0=\u00a0")} for p in pairs]
        if items:
            blocks.append({"title": metric.title, "lines": items})
    return blocks


def _protocol(comparison: Comparison, study: Mapping[str, Json]) -> list[tuple[str, str]]:
    spec, options = study["spec"], study["spec"].get("options", {})
    seeds, how = spec.get("seeds", ()), comparison.settings
    listed = f"{len(seeds)}: {_ranges(seeds)}" if isinstance(seeds, (list, tuple)) else str(seeds)
    cards = [
        ("Strategies", ", ".join(_named(s) for s in spec["strategies"])),
        ("Estimators", ", ".join(_named(e) for e in spec.get("estimators", ()))),
        ("Search space", str(_name(spec.get("space")))),
        ("Training pipeline", str(_name(spec.get("pipeline")))),
        ("Seeds", listed),
        ("Budget", _budget(comparison, spec)),
        ("Cost rule", "everything charged counts; repeats are " + ("free" if options.get("dedupe") else "charged")),
        ("Incumbent rule", "best score seen at the highest fidelity seen, ties to the earlier; never by test data"),
        ("Training seeds", "redrawn at every query" if options.get("redraw") else "shared by all methods"),
        ("Intervals", f"{100 * how.level:g} %, {how.resamples} resamples, seed {how.seed}"),
        ("Tests", f"van Elteren, two-sided, Holm, α = {how.alpha:g}"),  # noqa: RUF001
        ("Equivalence", ", ".join(f"{m.title.lower()} ±{m.rope:g}" for m in comparison.metrics)),
    ]  # fmt: skip
    return [(name, value) for name, value in cards if value and value != "None"]


def _budget(comparison: Comparison, spec: Mapping[str, Json]) -> str:
    if comparison.tables:
        return ", ".join(dict.fromkeys(amount(t.budget, t.clock) for t in comparison.tables))
    budget = spec.get("budget") or {}
    return amount(float(budget["limit"]), budget["unit"]) if isinstance(budget.get("limit"), (int, float)) else ""


def _named(entry: Mapping[str, Json]) -> str:
    name = entry["label"] if entry["label"] == entry["name"] else f"{entry['label']} = {entry['name']}"
    params = ", ".join(f"{k}={v}" for k, v in sorted((entry.get("params") or {}).items()))
    return f"{name}({params})" if params else str(name)


def _name(value: Json) -> Json:
    return value.get("name") if isinstance(value, Mapping) else value


def _ranges(numbers: Sequence[int]) -> str:
    """`0-9, 12`."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _provenance(study: Mapping[str, Json]) -> list[tuple[str, str]]:
    rows = [("study digest", str(study["digest"]))]
    stack = [("", study.get("provenance") or {})]
    while stack:
        prefix, value = stack.pop()
        if isinstance(value, Mapping):
            stack += [(f"{prefix}.{k}" if prefix else str(k), v) for k, v in sorted(value.items(), reverse=True)]
        else:
            rows.append((prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return rows


def _inline(drawing: Drawing) -> dict[str, Any]:
    svg = drawing.files["svg"].decode()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    label = f'<svg role="img" aria-label="{escape(drawing.alt)}"'
    svg = re.sub(r' (?:width|height)="[0-9.]+pt"', "", svg.replace("<svg", label, 1))
    return {
        "name": drawing.name, "title": drawing.title, "caption": drawing.caption, "width": drawing.width,
        "svg": Markup(svg),
    }  # fmt: skip


def _architectures(study: Mapping[str, Json]) -> list[dict[str, Any]]:
    """Pictures that the study record holds, each with its caption."""
    shown = []
    for p in study.get("pictures") or ():
        where = f" on {p['table']}" if p["table"] else ""
        if p["method"] is None:
            caption = f"Best of {p['table']} by test metric."
        else:
            score = "" if p["score"] is None else f" of highest score, {p['score']:.4f}"
            caption = f"{p['method']}{where}: final incumbent{score}, seed {p['seed']}."
        shown.append({"svg": Markup(p["svg"]), "text": p["text"], "caption": caption})
    return shown


def _sort_value(cell: Cell) -> str | None:
    value = next(iter(cell.numbers.values()), None)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return "1e308" if math.isinf(value) else repr(value)


def _numbers(comparison: Comparison) -> str:
    wanted = {
        "study": comparison.study,
        "digest": comparison.digest,
        "summaries": comparison.summaries,
        "pairs": comparison.pairs,
    }
    return json.dumps(plain(wanted), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sentence_case(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
