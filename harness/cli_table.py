"""`nasbed table`: list, info, verify, build."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_import
from .cli_info import Name, describe, info
from .console import FAILED, OK, Json, Verbs, print_json, progress, remark, say, usage

app = typer.Typer(
    help="Precomputed tables: list, info, verify, build.",
    epilog="Example: nasbed table info mlp-digits",
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.add_typer(cli_import.app, name="import")

Root = Annotated[Path | None, typer.Option("--data-root", help="Folder of data sets that are not embedded.")]


@app.command("list", epilog="Example: nasbed table list --json")
def list_tables(as_json: Json = False) -> None:
    """The tables that come with the package."""
    from ..tabular import embedded, open_table

    tables = {name: open_table(name) for name in embedded()}
    if as_json:
        print_json({n: describe(t) for n, t in tables.items()})
        return
    for name, table in tables.items():
        size = f"{table.space.size} architectures x {len(table.seeds)} seeds"
        say(f"{name}: {table.coverage}, {size}, pipelines {', '.join(table.pipelines)}")


app.command(epilog="Example: nasbed table info mlp-digits --figures pictures")(info)


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
