"""`nasbed table`: list, info, verify, build."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import FAILED, OK, Json, Verbs, print_json, progress, remark, say, usage

app = typer.Typer(
    help="Precomputed tables: list, info, verify, build.",
    epilog="Example: nasbed table info mlp-digits",
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="Name of an embedded table, or a folder.")]
Root = Annotated[Path | None, typer.Option("--data-root", help="Folder of data sets that are not embedded.")]


@app.command("list", epilog="Example: nasbed table list --json")
def list_tables(as_json: Json = False) -> None:
    """The tables that come with the package."""
    from ..tabular import embedded, open_table

    tables = {name: open_table(name) for name in embedded()}
    if as_json:
        print_json({n: _facts(t) for n, t in tables.items()})
        return
    for name, table in tables.items():
        size = f"{table.space.size} architectures x {len(table.seeds)} seeds"
        say(f"{name}: {table.coverage}, {size}, pipelines {', '.join(table.pipelines)}")


@app.command(epilog="Example: nasbed table info mlp-digits")
def info(name: Name, as_json: Json = False) -> None:
    """What a table holds; validation values only, test values stay sealed."""
    import numpy as np

    from ..tabular import open_table
    from ..tabular.format import MISSING

    with usage():
        table = open_table(name)
    facts = _facts(table)
    for pipeline in table.pipelines:
        last = table.array(f"valid.{pipeline}")[:, :, -1]
        if table.task.metric == "accuracy":
            last = np.where(last == MISSING, np.nan, last / table.manifest["examples"]["valid"])
        mean = np.nanmean(last, axis=1)
        best = int(np.nanargmax(mean) if table.task.higher_is_better else np.nanargmin(mean))
        facts[f"validation {table.task.metric}, {pipeline}"] = {
            "quantiles 0, 25, 50, 75, 100 %": [
                round(float(q), 4) for q in np.nanquantile(mean, [0, 0.25, 0.5, 0.75, 1])
            ],
            "best": table.text(best),
            "sd between seeds": round(float(np.sqrt(np.nanmean(np.nanvar(last, axis=1, ddof=1)))), 4)
            if len(table.seeds) > 1
            else None,
            "median cost of a full training": f"{table.median_cost(pipeline):.6g} {table.clock}",
        }
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            say(f"{key}:")
            for k, v in value.items():
                say(f"  {k}: {v}")
        else:
            say(f"{key}: {value}")


def _facts(table: Any) -> dict[str, Any]:
    manifest = table.manifest
    return {
        "name": table.name,
        "version": manifest["version"],
        "summary": manifest.get("summary", ""),
        "space": table.space.name,
        "architectures": table.space.size if table.coverage == "complete" else len(manifest["architectures"]),
        "coverage": table.coverage,
        "data": table.task.name,
        "examples": manifest["examples"],
        "pipelines": {n: f"{p.epochs} epochs, digest {p.digest[:12]}" for n, p in table.pipelines.items()},
        "training seeds": len(table.seeds),
        "clock": table.clock,
        "pilot": manifest.get("pilot"),
        "trained": manifest.get("trained"),
        "licence": manifest.get("licence", ""),
        "citation": manifest.get("citation", ""),
        "digest": table.digest,
    }


@app.command(epilog="Example: nasbed table verify mlp-digits --retrain 20")
def verify(
    name: Name,
    retrain: Annotated[int, typer.Option(help="Train this many random entries again, with fresh seeds.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Which entries, and which fresh seeds.", min=0)] = 0,
    data_root: Root = None,
    as_json: Json = False,
) -> None:
    """Check a table's hashes and schema, and (with --retrain) whether its values can be reproduced."""
    from ..tabular import find
    from ..tabular.verify import verify as check

    with usage():
        folder = find(name)
    with usage(), progress("retraining") as step:
        result = check(folder, retrain=retrain, seed=seed, data_root=data_root, progress=step)
    if as_json:
        print_json(result.to_dict())
    else:
        for line in result.summary():
            say(line)
    raise typer.Exit(OK if result.passed else FAILED)


@app.command(epilog="Example: nasbed table build spec.toml --out my-table --jobs 2")
def build(
    spec: Annotated[Path, typer.Argument(help="What to build (TOML): name, space, data, pipelines, seeds.")],
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder of the table; default nasbed-tables/NAME.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes; 0 = one for each core.", min=0)] = 0,
    data_root: Root = None,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="Only the pilot: can the table tell architectures apart?")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Time one bucket and print the expected hours.")] = False,
) -> None:
    """Train every architecture of a space and write the table. The same command again resumes."""
    from ..tabular import builder

    with usage():
        plan = builder.Spec.read(spec)
        folder = out_dir or Path("nasbed-tables") / plan.name
        if (folder / "manifest.json").exists():
            raise ValueError(f"out: {folder} holds a finished table")
    jobs = jobs or os.cpu_count() or 1
    if dry_run:
        total = 0.0
        for pipeline, seconds in builder.dry_run(plan, data_root):
            total += seconds
            say(f"{pipeline}: about {seconds / 3600:.2f} core-hours")
        say(f"together about {total / 3600:.2f} core-hours, {total / jobs / 3600:.2f} hours with {jobs} processes")
        return
    with usage():
        found = _pilot(builder, plan, folder, data_root)
    for name, values in found.items():
        correlation, working = values["seed_to_seed_spearman"], values["working"]
        remark(f"pilot, {name}: seed-to-seed Spearman {correlation:.3f} among {working} working architectures")
        spread = f"{values['sd_architectures']:.4f} between architectures, {values['sd_seeds']:.4f} between seeds"
        remark(f"pilot, {name}: standard deviation {spread}")
    if pilot:
        return
    with usage(), progress("training") as step:
        builder.build(plan, folder, data_root=data_root, run=_runner(jobs), progress=step, pilot=found)
    say(f"table: {folder}")


def _pilot(builder: Any, plan: Any, folder: Path, data_root: Path | None) -> dict[str, Any]:
    """The pilot's result, kept beside the shards so that a resumed build does not repeat it."""
    import json

    kept = folder / "shards" / "pilot.json"
    if kept.exists():
        loaded: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return loaded
    found: dict[str, Any] = builder.pilot(plan, data_root)
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".part")
    partial.write_text(json.dumps(found), encoding="utf-8")
    os.replace(partial, kept)
    return found


def _runner(jobs: int) -> Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]:
    from .executors import run_tasks

    def run(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        for outcome in run_tasks(function, tasks, jobs=jobs):
            if outcome.error is not None:
                raise outcome.error
            yield outcome.value

    return run
