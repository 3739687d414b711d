"""Grids written as LaTeX (booktabs), CSV and Markdown."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Any

from .grids import Cell, Column, Grid

CHARACTERS = 56
"""What fits a 3.25 in column at \\small; wider tables span both columns."""

SHRINK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%" + "\n"
"""Scales what is wider than the text down to it, and nothing else; needs graphicx."""


def to_latex(grid: Grid, *, stamp: str) -> str:
    """A booktabs table in a float of its own; `stamp` becomes the comment of its first line."""
    width = sum(max(len(c.title), *(len(row[i].text) for row in grid.rows)) + 3 for i, c in enumerate(grid.columns))
    wide = width > CHARACTERS
    align = "".join("l" if c.text or i == 0 else "c" for i, c in enumerate(grid.columns))
    heads = " & ".join(_tex_head(c) for c in grid.columns)
    body = "\n".join(" & ".join(map(_tex_cell, row)) + r" \\" for row in grid.rows)
    float_ = "table*" if wide else "table"
    return "\n".join((
        f"% {stamp}",
        rf"\begin{{{float_}}}[t]", r"\centering", r"\small", r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{latex_escape(grid.caption)}}}", rf"\label{{tab:{grid.name}}}",
        SHRINK + rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule", heads + r" \\", r"\midrule", body, r"\bottomrule", r"\end{tabular}}", rf"\end{{{float_}}}", "",
    ))  # fmt: skip


def to_csv(grid: Grid) -> str:
    """Full-precision numbers, one column for each; limits of intervals follow their estimate."""
    records = []
    for row in grid.rows:
        record: dict[str, Any] = {}
        for column, cell in zip(grid.columns, row, strict=True):
            for key, value in (cell.numbers or {"": cell.text}).items():
                name = column.key if key in ("", column.key) else f"{column.key}_{key}"
                record[name] = "" if isinstance(value, float) and math.isnan(value) else value
        records.append(record)
    fields = list(dict.fromkeys(k for c in grid.columns for r in records for k in r if _belongs(k, c.key)))
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def to_markdown(grid: Grid) -> str:
    """A pipe table with its caption."""
    wrap = {"": "{}", "bold": "**{}**", "underline": "<u>{}</u>"}
    lines = [
        [c.title for c in grid.columns],
        [":--", *["--:"] * (len(grid.columns) - 1)],
        *([wrap[cell.mark].format(cell.text.replace("|", "\\|")) for cell in row] for row in grid.rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{grid.caption}\n"


SPECIALS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$", "≤": r"$\leq$", "Δ": r"$\Delta$", "τ": r"$\tau$", "α": r"$\alpha$", "ρ": r"$\rho$", "−": "$-$",  # noqa: RUF001
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "×": r"$\times$", "—": "--", "∞": r"$\infty$",  # noqa: RUF001
}  # fmt: skip


def latex_escape(text: str) -> str:
    """Text that LaTeX sets as it is: the ten special characters, and the signs that our own texts use."""
    return "".join(SPECIALS.get(character, character) for character in text)


MAIN = r"""% {stamp}
\documentclass[twocolumn,10pt]{{article}}
\usepackage[T1]{{fontenc}}
\usepackage[utf8]{{inputenc}}
\usepackage{{textcomp}}
\usepackage{{amsmath}}
\usepackage{{booktabs}}
\usepackage{{graphicx}}
\usepackage[margin=0.75in,columnsep=0.25in]{{geometry}}
\graphicspath{{{{../figures/}}}}
\begin{{document}}
\title{{{title}}}
\author{{}}
\date{{}}
\maketitle
{body}
\end{{document}}
"""


def main_tex(title: str, grids: Sequence[Grid], figures: Sequence[tuple[str, str, float]], *, stamp: str) -> str:
    """A two-column article with everything; run LaTeX in the folder `tables`.

    Args:
        title: Of the article.
        grids: Tables, written beside as `<name>.tex`.
        figures: Name, caption and width in inches of each figure.
        stamp: Comment of the first line.
    """
    parts = [rf"\input{{{grid.name}.tex}}" for grid in grids]
    for name, caption, width in figures:
        kind = "figure*" if width > 4 else "figure"
        parts.append(
            rf"\begin{{{kind}}}[t]\centering\includegraphics[width={width:g}in]{{{name}.pdf}}"
            rf"\caption{{{latex_escape(caption)}}}\label{{fig:{name}}}\end{{{kind}}}"
        )
    parts.append(r"\clearpage\mbox{}")
    return MAIN.format(stamp=stamp, title=latex_escape(title), body="\n".join(parts))


def _tex_head(column: Column) -> str:
    math_ = {"ρ": r"$\rho$", "p": "$p$", "p (Holm)": "$p$ (Holm)", "A12": "$A_{12}$"}  # noqa: RUF001
    unit = f" ({latex_escape(column.unit)})" if column.unit else ""
    return (math_.get(column.head, latex_escape(column.head)) + unit + " " + latex_escape(column.arrow)).strip()


def _tex_cell(cell: Cell) -> str:
    if re.search(r"[A-Za-z—]", cell.text) or not cell.text:
        text = latex_escape(cell.text)
        return {"": text, "bold": rf"\textbf{{{text}}}", "underline": rf"\underline{{{text}}}"}[cell.mark]
    text = cell.text.replace("±", r"\pm").replace("−", "-").replace("%", r"\%")  # noqa: RUF001
    text = text.replace(" (", r"\ (").replace(" [", r"\ [")
    return {"": f"${text}$", "bold": rf"$\mathbf{{{text}}}$", "underline": rf"\underline{{${text}$}}"}[cell.mark]


def _belongs(name: str, key: str) -> bool:
    return name == key or name.startswith(key + "_")
