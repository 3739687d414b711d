"""The command line. Heavy libraries are imported inside the commands that need them."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import cli_audit, cli_checklist, cli_estimate, cli_gate, cli_plan, cli_space, cli_table, cli_tools
from .console import (
    CRASHED,
    FAILED,
    INTERRUPTED,
    OK,
    USAGE,
    Json,
    Verbs,
    option_line,
    print_json,
    progress,
    remark,
    say,
    stop,
    usage,
)

if TYPE_CHECKING:
    from .compare import Failure
    from .plan import Plan

app = typer.Typer(
    name="nasbed",
    help="The test bed of neural architecture search: fair comparisons, tables, reports.",
    epilog="\b\nStart with:\n  nasbed compare --strategies random,local_search,aging_evolution --table mlp-digits",
    cls=Verbs,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
export_app = typer.Typer(
    help="Copy a study elsewhere.",
    epilog="Example: nasbed export mlflow nasbed-out/3f1c2a9b7d10",
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(cli_table.app, name="table")
app.add_typer(export_app, name="export")

Out = Annotated[Path | None, typer.Option("--out", help="Folder of store, report and mlflow.db.")]

_EXAMPLES = """
\b
Examples:
  nasbed compare --strategies random,local_search,aging_evolution --table mlp-digits
  nasbed compare --strategies "aging_evolution[population_size=20],tpe" --table mlp-digits --seeds 0-99
  nasbed compare --strategies my_pkg.mod:MyStrategy --table mlp-digits --budget 100evals
  nasbed compare --space mlp --data digits --strategies random,aging_evolution --seeds 5 --budget 200epochs
  nasbed compare study.toml --dry-run
"""


@app.callback()
def _before() -> None:
    # Before numpy and torch are loaded: results must not depend on the number of cores.
    from .executors import limit_threads

    limit_threads()


@app.command(epilog=_EXAMPLES)
def compare(
    study: Annotated[Path | None, typer.Argument(help="A study file (TOML); flags override its fields.")] = None,
    strategies: Annotated[
        str | None, typer.Option(help="Comma-separated names, NAME[key=value] or pkg.mod:Class.")
    ] = None,
    estimators: Annotated[str | None, typer.Option(help="Likewise; default: table, or full without a table.")] = None,
    tables: Annotated[str | None, typer.Option("--table", "--tables", help="Comma-separated names or folders.")] = None,
    space: Annotated[str | None, typer.Option(help="Search space, to train for real.")] = None,
    data: Annotated[str | None, typer.Option(help="Data set, to train for real.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of data sets that are not embedded.")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Training pipeline; default: the table's first, or adam.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="A count (30 = 0-29) or a range (0-199). Default: 30.")] = None,
    budget: Annotated[str | None, typer.Option(help="Per run: 100evals, 3600s, 500epochs, 2e12flops.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study.")] = None,
    out_dir: Out = None,
    jobs: Annotated[int, typer.Option(help="Worker processes; 0 = one for each core.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="For real training: auto, cpu, cuda.")] = "auto",
    dedupe: Annotated[bool | None, typer.Option("--dedupe", help="Repeated evaluations are free.")] = None,
    redraw: Annotated[bool | None, typer.Option("--redraw", help="A new training seed at every query.")] = None,
    batch: Annotated[int | None, typer.Option(help="Proposals per ask.")] = None,
    retrain: Annotated[
        int | None, typer.Option(help="Fresh trainings of the final incumbent, without a table.")
    ] = None,
    mlflow: Annotated[bool, typer.Option(help="Log to MLflow: mlflow.db, or MLFLOW_TRACKING_URI.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Compare search strategies at equal cost, and write a report. The same command again resumes."""
    from .compare import carry_out
    from .plan import plan
    from .study import read_study

    given = {
        "strategies": strategies, "estimators": estimators, "tables": tables, "space": space, "data": data,
        "pipeline": pipeline, "seeds": seeds, "budget": budget, "name": name, "dedupe": dedupe, "redraw": redraw,
        "batch": batch, "retrain": retrain,
    }  # fmt: skip
    with usage():
        planned = plan(read_study(study, given), data_root=data_root, device=device)
    folder = out_dir or Path("nasbed-out") / planned.digest[:12]
    if dry_run:
        _print_plan(planned, folder, as_json=as_json)
        return
    with usage():
        _claim(folder, planned.digest)
    with progress("runs") as step:
        failures = carry_out(
            planned, folder, jobs=jobs or os.cpu_count() or 1, data_root=data_root, device=device, progress=step
        )
    _print_failures(failures)
    if len(failures) == len(planned.runs):
        stop("every run failed, so there is nothing to report", _code(failures))
    from ..reports.write import write_report

    report = write_report(folder / "store", folder)
    if mlflow:
        _export(folder, None)
    _print_outcome(folder, report, as_json=as_json)
    raise typer.Exit(_code(failures))


@app.command(epilog="Example: nasbed report nasbed-out/3f1c2a9b7d10")
def report(
    folder: Annotated[Path, typer.Argument(help="The --out folder of a comparison.")],
    out_dir: Out = None,
    as_json: Json = False,
) -> None:
    """Write the report of a finished comparison again; the same store gives the same bytes."""
    from ..reports.write import write_report

    with usage():
        written = write_report(_store(folder), out_dir or folder)
    _print_outcome(out_dir or folder, written, as_json=as_json)


@export_app.command(
    "mlflow", epilog="Example: nasbed export mlflow nasbed-out/3f1c2a9b7d10 --uri http://127.0.0.1:5000"
)
def export_mlflow(
    folder: Annotated[Path, typer.Argument(help="The --out folder of a comparison.")],
    uri: Annotated[
        str | None, typer.Option(help="Tracking URI; default MLFLOW_TRACKING_URI or FOLDER/mlflow.db.")
    ] = None,
) -> None:
    """Log a study to MLflow. Doing it twice changes nothing."""
    with usage():
        _store(folder)
    _export(folder, uri)


def _store(folder: Path) -> Path:
    from .store import RunStore

    store = folder / "store"
    if not (store / "study.json").is_file() or "runs" not in RunStore(store, create=False).study():
        raise ValueError(f"folder: {folder} holds no finished comparison; the command that began it resumes it")
    return store


def _claim(folder: Path, digest: str) -> None:
    """One folder holds one study: another one would mix its runs into the report."""
    marker = folder / "study.sha256"
    try:
        if marker.exists() and marker.read_text().strip() != digest:
            raise ValueError(f"out: {folder} holds another study; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(digest + "\n")
    except OSError as error:
        raise ValueError(f"out: {folder} cannot be written to: {error.strerror}") from None


def _export(folder: Path, uri: str | None) -> None:
    from ..reports.mlflow_client import ExportError
    from ..reports.mlflow_export import export

    try:
        with progress("MLflow") as step:
            done = export(folder / "store", uri=uri, report=folder if (folder / "report.html").is_file() else None,
                          progress=step)  # fmt: skip
    except ExportError as error:
        stop(f"mlflow: {error}; the results are safe: nasbed export mlflow {shlex.quote(str(folder))}", FAILED)
    remark(f"MLflow: {done.created} runs new, {done.updated} updated: mlflow ui --backend-store-uri {done.uri}")


def _print_plan(planned: Plan, folder: Path, *, as_json: bool) -> None:
    from .store import RunStore

    keys = {r.key for r in planned.runs}
    finished = RunStore(folder / "store", create=False).finished() & keys if (folder / "store").is_dir() else set()
    worlds: dict[str, dict[str, Any]] = {}
    for r in planned.runs:
        budget, table = r.spec["budget"], planned.tables.get(r.table or "")
        name = r.table or f"{r.spec['space']} on {r.spec['data']['name']}"
        world = worlds.setdefault(name, {"runs": 0, "budget": budget, "pipeline": r.spec["pipeline"]["name"]})
        world["runs"] += 1
        if table and budget["unit"] == table.clock:
            world["median_full_trainings_per_run"] = budget["limit"] / table.median_cost(r.spec["pipeline"]["name"])
    if as_json:
        print_json({"digest": planned.digest, "out": str(folder), "runs": len(keys), "finished": len(finished),
                    "worlds": worlds})  # fmt: skip
        return
    say(f"{len(keys)} runs, {len(finished)} of them finished, in {folder}")
    study = planned.study
    estimators = [m.label for m in study.estimators] or ["table" if planned.tables else "full"]
    say(f"strategies: {', '.join(m.label for m in study.strategies)}")
    say(f"estimators: {', '.join(estimators)};  seeds: {len(study.seeds)}")
    for name, world in worlds.items():
        budget = world["budget"]
        trainings = world.get("median_full_trainings_per_run")
        beside = f" = {trainings:.4g} median full trainings" if trainings else ""
        say(f"{name}: {world['runs']} runs x {budget['limit']:.4g} {budget['unit']}{beside}")


def _print_failures(failures: list[Failure]) -> None:
    for f in failures[:5]:
        where = f"{f.run.strategy}, {f.run.estimator}, {f.run.table}, seed {f.run.seed}"
        remark(f"failed: {where}: {f.error}")
    if failures:
        remark(failures[0].traceback)
        remark(f"{len(failures)} runs failed; the same command tries them again")


def _code(failures: list[Failure]) -> int:
    """A fault of determinism is nasbed's or the method's own, and outweighs failed runs."""
    if any(f.error.startswith("DeterminismFault") for f in failures):
        return CRASHED
    return FAILED if failures else OK


def _print_outcome(folder: Path, written: Path, *, as_json: bool) -> None:
    import json

    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    if as_json:
        print_json({"report": str(written), "results": str(folder / "results.json"), "summary": results.get("summary")})
        return
    for line in results.get("summary", []):
        say(line)
    say(f"report: {written}")


cli_estimate.register(app)
cli_audit.register(app)
cli_checklist.register(app)
cli_gate.register(app)
cli_plan.register(app)
cli_tools.register(app)
cli_space.register(app)


def main() -> None:
    """Entry point: exit codes of the whole program."""
    # A user's own module is named as pkg.mod:attribute. Last on the path: no file here may hide an installed module.
    sys.path.append(os.getcwd())
    try:
        # Not standalone, typer returns the code of an Exit, and 130 for Ctrl-C.
        code = app(prog_name="nasbed", standalone_mode=False) or OK
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush at exit goes nowhere
        code = OK
    except Exception as error:
        code = _explain(error)
    if code == INTERRUPTED:
        remark("\ninterrupted; nothing finished is lost. Resume with:")
        remark("  " + shlex.join(["nasbed", *sys.argv[1:]]))
    sys.exit(code)


def _explain(error: Exception) -> int:
    """Say what went wrong: one line for typer's own usage errors, everything for what nobody foresaw."""
    if not hasattr(error, "format_message"):
        traceback.print_exception(error)
        return CRASHED
    message = error.format_message()
    # A group without a verb is answered with its help.
    remark(message if "\n" in message else f"nasbed: {option_line(error) or message}")
    return USAGE
