"""`nasbed table import`: foreign results as tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .console import Verbs, progress, say, usage

app = typer.Typer(
    help="Foreign results as tables: generic (CSV, Parquet, npz), nats-bench-tss.",
    epilog="Example: nasbed table import generic map.toml --out my-table",
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
)

Out = Annotated[Path | None, typer.Option("--out", help="Folder of the table; default nasbed-tables/NAME.")]

_EXAMPLE = """
\b
Example: nasbed table import generic map.toml --out my-table

\b
where map.toml says which column of results.csv is what:

\b
  name = "my-table"
  file = "results.csv"        # or .csv.gz, .tsv, .parquet, .npz; relative to the map
  space = "nb201"
  scale = "percent"           # of the accuracies; or "fraction", "count"
  examples = { valid = 25000, test = 10000 }

\b
  [columns]
  architecture = "arch"
  seed = "seed"
  valid = "val_acc"           # or a pattern over columns: "val_{seed}", "val_{seed}_{epoch}"
  test = "test_acc"

\b
  [cost]
  column = "seconds"
  clock = "seconds"
  per = "training"            # or "epoch", "cumulative"

\b
docs/importing.md describes every field.
"""


@app.command(epilog=_EXAMPLE)
def generic(
    path: Annotated[Path, typer.Argument(metavar="MAP", help="Which column is what (TOML).")],
    out_dir: Out = None,
) -> None:
    """Results in a CSV, Parquet or npz file, in long or wide form."""
    from ..tabular.importers.generic import import_generic

    with usage():
        for line in import_generic(path, out_dir).summary():
            say(line)


@app.command(
    "nats-bench-tss",
    epilog="Example: nasbed table import nats-bench-tss NATS-tss-v1_0-3ffb9-simple --data cifar100 --hp 200",
)
def nats_bench_tss(
    path: Annotated[Path, typer.Argument(help="Folder with meta.pickle.pbz2 and 000000.pickle.pbz2, ...")],
    out_dir: Out = None,
    hp: Annotated[str, typer.Option(help="Training pipeline, by its epochs: 12 or 200.")] = "200",
    data: Annotated[str, typer.Option(help="cifar10-valid, cifar100 or ImageNet16-120.")] = "cifar10-valid",
    jobs: Annotated[int, typer.Option(help="Reading processes; 0 = one for each core.", min=0)] = 0,
) -> None:
    """The topology search space of NATS-Bench (NAS-Bench-201), from its files, by a reader that runs none of them."""
    from ..tabular.importers.nats_bench_tss import import_nats_bench_tss

    with usage(), progress("reading") as step:
        made = import_nats_bench_tss(path, out_dir, data=data, hp=hp, jobs=jobs or os.cpu_count() or 1, progress=step)
    for line in made.summary():
        say(line)
