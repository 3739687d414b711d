"""`nasbed table`: list, info, verify, build, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import cli_import
from .cli_build import EXAMPLES, build
from .cli_info import Name, describe, info
from .console import FAILED, OK, Json, Verbs, print_json, progress, say, usage

app = typer.Typer(
    help="Precomputed tables: list, info, verify, build, import.",
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


app.command(epilog=EXAMPLES)(build)
