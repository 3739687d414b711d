"""`nasbed estimate`: the scores of an estimator for many architectures, as a table that audits read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Json, print_json, progress, say, usage

if TYPE_CHECKING:
    from ..protocols import Setting
    from ..tabular import MappedTable
    from ..tabular.estimates import EstimateTable
    from .estimate import Wanted

_EXAMPLES = """
\b
Examples:
  nasbed estimate --estimator synflow --table nb201-clutter --seeds 2
  nasbed estimate --estimator "fewer_epochs[epochs=2]" --table mlp-digits --seeds 5
  nasbed estimate --estimator naswot --space nb201 --data digits_clutter --sample 100 --seeds 3
"""


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=_EXAMPLES)(estimate)


def estimate(
    estimator: Annotated[str, typer.Option(help="A name, NAME[key=value] or pkg.mod:Class.")],
    table: Annotated[str | None, typer.Option(help="A table's name or folder: estimate its architectures.")] = None,
    space: Annotated[str | None, typer.Option(help="Without a table: the search space.")] = None,
    data: Annotated[str | None, typer.Option(help="Without a table: the data set.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of data sets that are not embedded.")] = None,
    pipeline: Annotated[str | None, typer.Option(help="Training pipeline; default: the table's own.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All architectures; the default with a table.")] = False,
    sample: Annotated[int | None, typer.Option(help="Only so many, drawn uniformly.", min=1)] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the estimator: a count or a range.")] = "1",
    unit: Annotated[
        str | None, typer.Option(help="Of costs: seconds, evaluations, epochs, flops. Default: the table's, or flops.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder; default nasbed-estimates/TABLE/ESTIMATOR.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate every architecture of a table or a space, and keep the scores. The same command again resumes."""
    from ..protocols.training import one_thread
    from ..tabular.estimates import open_estimates
    from .estimate import estimate as carry_out

    with usage():
        if every == (sample is not None) and (every or table is None):
            raise ValueError("all, sample: name one of --all and --sample N")
        wanted = _wanted(
            estimator, table, space, data, data_root, pipeline=pipeline, sample=sample, seeds=seeds, unit=unit
        )
        named = wanted.setting.table.name if wanted.setting.table else wanted.setting.task.name
        folder = out_dir or Path("nasbed-estimates") / named / estimator.replace(":", ".")
        if (folder / "manifest.json").exists():
            raise ValueError(f"out: {folder} holds finished estimates")
        with one_thread(), progress("estimates") as step:
            carry_out(wanted, folder, step)
    _print(open_estimates(folder), folder, as_json=as_json)


def _wanted(
    estimator: str, table: str | None, space: str | None, data: str | None, data_root: Path | None, *,
    pipeline: str | None, sample: int | None, seeds: str, unit: str | None,
) -> Wanted:  # fmt: skip
    from ..methods import registry
    from ..protocols import UNITS
    from ..tabular import open_table
    from .estimate import Wanted, rows
    from .runs import looks_at_data
    from .study import Method, read_seeds

    method = Method.read(estimator, "estimator")
    found = registry.load("estimators", method.name)
    params = registry.parameters(found, method.params, f"estimator {method.name!r}")
    if (table is None) == (space is None):
        raise ValueError("table, space: name one of --table, and --space with --data")
    opened = open_table(table) if table else None
    if unit not in (None, *UNITS):
        raise ValueError(registry.unknown("unit", str(unit), UNITS))
    searched = opened.space if opened else registry.space(str(space))
    if opened:
        setting = _on_table(opened, pipeline, unit, data_root, needs_data=looks_at_data(found))
    else:
        setting = _for_real(searched, data, data_root, pipeline, unit)
    made = found(**params)
    if hasattr(made, "fits"):
        made.fits(setting)
    chosen, listed = rows(searched, opened, sample)
    return Wanted(method.name, params, setting, searched, chosen, listed, read_seeds(seeds))


def _on_table(
    table: MappedTable, pipeline: str | None, unit: Any, data_root: Path | None, *, needs_data: bool
) -> Setting:
    from ..methods import registry
    from ..protocols import Setting
    from .estimate import seed_of
    from .runs import needed_data

    name = pipeline or table.manifest.get("default_pipeline", next(iter(table.pipelines)))
    if name not in table.pipelines:
        raise ValueError(registry.unknown("pipeline", name, tuple(table.pipelines)))
    view = None
    if needs_data or unit == "epochs":  # of the training data, which a proxy without data is measured by too
        try:
            view = needed_data(table, data_root)
        except ValueError:
            if needs_data:
                raise
    draw = seed_of(table, name, 0)
    return Setting(table.task, unit or table.clock, table.pipelines[name], draw, data=view, table=table)


def _for_real(space: Any, data: str | None, data_root: Path | None, pipeline: str | None, unit: Any) -> Setting:
    from ..protocols import Setting
    from ..protocols.streams import generator
    from ..protocols.training import ReferenceTrainer, load, pipeline_for

    if data is None:
        raise ValueError("data: a space needs --data")
    view = load(data, data_root)
    genes = space.training(space.sample(generator(0, "estimate-genes", space.name)))
    trainer = ReferenceTrainer(space, device="cpu")
    return Setting(view.task, unit or "flops", pipeline_for(pipeline, genes), lambda a: 0, data=view, trainer=trainer)


def _print(made: EstimateTable, folder: Path, *, as_json: bool) -> None:
    import numpy as np

    failed = int(np.isnan(made.scores).sum())
    spent = float(made.costs.sum())
    prepared = sum(c.amount for costs in made.preparation for c in costs)
    if as_json:
        print_json({
            "folder": str(folder), "digest": made.digest, "architectures": len(made.scores), "seeds": list(made.seeds),
            "failed": failed, "unit": made.unit, "cost": spent, "preparation": prepared,
        })  # fmt: skip
        return
    say(f"{made.name}: {len(made.scores)} architectures, {len(made.seeds)} seeds, {failed} without a score")
    if failed:
        row, column = np.argwhere(np.isnan(made.scores))[0]
        say(f"  the first for: {made.reason(int(row), int(column))}")
    say(f"cost: {prepared:.4g} {made.unit} for preparation, {spent:.4g} for answers")
    say(f"estimates: {folder}")
