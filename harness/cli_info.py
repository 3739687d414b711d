"""`nasbed table info`: what a table holds, in numbers and pictures; from validation values, test values stay sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import Json, print_json, remark, say, usage

Name = Annotated[str, typer.Argument(help="Name of an embedded table, or a folder.")]


def info(
    name: Name,
    figures: Annotated[Path | None, typer.Option("--figures", help="Write pictures (PNG, SVG) to this folder.")] = None,
    beside: Annotated[
        str, typer.Option("--beside", help="Other tables of the same space, comma-separated, to correlate with.")
    ] = "",
    as_json: Json = False,
) -> None:
    """What a table holds; validation values only, test values stay sealed."""
    from ..tabular import facts, open_table

    with usage():
        table = open_table(name)
        others = [open_table(other.strip()) for other in beside.split(",") if other.strip()]
        qualities = facts.columns(table, others)
    found = {p: facts.facts(table, p) for p in table.pipelines}
    correlations = facts.correlations(qualities)
    answer = describe(table) | {f"validation {table.task.metric}, {p}": _pipeline(table, f) for p, f in found.items()}
    if correlations:
        answer["Spearman correlation of architectures"] = {
            f"{a} and {b}": _rounded(r) for (a, b), r in correlations.items()
        }
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    if figures is not None:
        for path in _draw(table, found, list(qualities), correlations, figures):
            remark(f"figure: {path}")


def describe(table: Any) -> dict[str, Any]:
    """The manifest, in short."""
    manifest = table.manifest
    task = table.task
    return {
        "name": table.name,
        "version": manifest["version"],
        "summary": manifest.get("summary", ""),
        "space": table.space.name,
        "architectures": table.space.size if table.coverage == "complete" else len(manifest["architectures"]),
        "coverage": table.coverage,
        "data": task.name,
        "metric": f"{task.metric}, {'higher' if task.higher_is_better else 'lower'} is better",
        "examples": manifest["examples"],
        "pipelines": {n: _epochs(table, n) for n in table.pipelines},
        "training seeds": len(table.seeds),
        "clock": table.clock,
        "pilot": manifest.get("pilot"),
        "trained": manifest.get("trained"),
        "licence": manifest.get("licence", ""),
        "citation": manifest.get("citation", ""),
        "digest": table.digest,
    }


def _epochs(table: Any, name: str) -> str:
    pipeline, recorded = table.pipelines[name], table.manifest["epochs"][name]
    some = "" if len(recorded) == recorded[-1] else f" (recorded: {', '.join(map(str, recorded))})"
    return f"{pipeline.epochs} epochs{some}, digest {pipeline.digest[:12]}"


def _pipeline(table: Any, f: Any) -> dict[str, Any]:
    """The facts of a pipeline under the names that people read; numbers rounded."""
    scale = " of log perplexity" if table.task.metric == "perplexity" else ""
    answer = {
        "trainings": {"recorded": f.recorded, "missing": f.missing, "diverged": f.diverged},
        "quantiles 0, 25, 50, 75, 100 %": [_rounded(q) for q in f.quantiles],
        "best": f.top[0][0],
        "top 5": [{"architecture": t, table.task.metric: _rounded(mean), "seeds": n} for t, mean, n in f.top],
        f"sd between seeds{scale}": _rounded(f.sd_seeds),
        f"sd between architectures{scale}, without that of seeds": _rounded(f.sd_architectures),
        "share of the variance of trainings that is between architectures": _rounded(f.share),
        "Spearman correlation of seeds": _rounded(f.spearman_seeds),
        "Spearman correlation of seeds, better half": _rounded(f.spearman_better_half),
        "median cost of a full training": f"{f.median_cost:.6g} {table.clock}",
    }
    if f.without:
        answer["architectures without a training"] = f.without
    if f.lower:
        answer["fidelities"] = {
            x.fidelity: {"Spearman correlation with full training": _rounded(x.spearman),
                         "cost, share of full training": _rounded(x.cost), "trainings": x.trainings}
            for x in f.lower
        }  # fmt: skip
    return answer


def _rounded(value: float | None) -> float | str | None:
    """Four decimals, three digits of what is small; JSON has no infinity."""
    if value is None or abs(value) == float("inf"):
        return None if value is None else str(value)
    return round(value, 4) if abs(value) >= 0.1 else float(f"{value:.3g}")


def _print(answer: Mapping[str, Any], indent: str = "") -> None:
    for key, value in answer.items():
        if isinstance(value, dict) and (not indent or any(isinstance(v, dict) for v in value.values())):
            say(f"{indent}{key}:")
            _print(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            say(f"{indent}{key}:")
            for entry in value:
                first, *others = entry.items()
                say(f"{indent}  {first[1]}: {_text(dict(others))}")
        else:
            say(f"{indent}{key}: {_text(value)}")


def _text(value: Any) -> str:
    if value is None:
        return "not available"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _draw(
    table: Any, found: Mapping[str, Any], labels: Sequence[str], correlations: Mapping[tuple[str, str], Any], to: Path
) -> list[Path]:
    """Hand the numbers over to the pictures: reports see no tables."""
    import numpy as np

    from ..reports.table_figures import Best, PipelineValues, TableValues, write_all
    from ..tabular import facts

    pipelines = []
    for p in table.pipelines:
        values = facts.final(table, p)
        best = tuple(
            Best(table.text(row), mean, trainings, _picture(table, row))
            for row, mean, trainings in facts.best(table, values, 10)
        )
        f, spent = facts.quality(values), facts.costs(table, p)
        pipelines.append(PipelineValues(p, f, spent, facts.pairs(values), found[p].spearman_seeds, best))
    matrix = np.full((len(labels), len(labels)), np.nan)
    np.fill_diagonal(matrix, 1.0)
    for (a, b), r in correlations.items():
        i, j = labels.index(a), labels.index(b)
        matrix[i, j] = matrix[j, i] = np.nan if r is None else r
    task = table.task
    whole = TableValues(
        table.name, task.metric, task.higher_is_better, table.clock, tuple(pipelines), tuple(labels), matrix
    )
    return write_all(whole, to)


def _picture(table: Any, row: int) -> str:
    return str(table.space.draw(table.architecture(row))) if hasattr(table.space, "draw") else ""
