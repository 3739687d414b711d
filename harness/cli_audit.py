"""`nasbed audit`: estimators against the truth, pipelines against architectures, shared weights against training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Json, Verbs, print_json, progress, remark, say, usage

if TYPE_CHECKING:
    from ..protocols.evidence import Scores, Searches, Truth
    from ..reports.audit.page import Report
    from ..reports.audit.results import Decision, Factorial, NoisePoint, Settings, TableAudit
    from ..tabular import MappedTable

_EXAMPLES = """
\b
Examples:
  nasbed audit --table nb201-clutter
  nasbed audit --table nb201-clutter --estimators synflow,naswot,one_shot_uniform
  nasbed audit --table nb201-clutter --scores mine.csv
  nasbed audit --table mlp-digits,nb201-clutter --strategies aging_evolution,local_search
  nasbed audit pipelines --table pipelines-clutter
  nasbed audit one-shot --table nb201-clutter --seeds 3

A file of scores has the columns architecture and score, and may have seconds, seed and estimator. Architectures are
written as in `nasbed table info`.
"""

NOISE = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Deviations of the noise of the noise-injection curve, in deviations of the truth."""

audit_app = typer.Typer(
    help="How far an estimator can be trusted, where it is biased, and what that costs a search.",
    epilog=_EXAMPLES,
    cls=Verbs,
    invoke_without_command=True,
    rich_markup_mode=None,
)
Tables = Annotated[str | None, typer.Option("--table", "--tables", help="Comma-separated names or folders.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the report; default nasbed-audit/TABLES.")]
Resamples = Annotated[int, typer.Option(help="Of every bootstrap interval.", min=100)]
Seed = Annotated[int, typer.Option(help="Of the bootstrap.", min=0)]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(audit_app, name="audit")


@audit_app.callback()
def audit(
    context: typer.Context,
    tables: Tables = None,
    estimators: Annotated[
        str, typer.Option(help="Comma-separated estimates that come with the package, folders of estimates, or all.")
    ] = "all",
    scores: Annotated[Path | None, typer.Option(help="Your own scores: CSV or Parquet.")] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="Of your own scores: smaller ones are better.")
    ] = False,
    accuracy_scale: Annotated[
        bool, typer.Option("--accuracy-scale", help="Your own scores estimate the metric itself, as fractions.")
    ] = False,
    pipeline: Annotated[str | None, typer.Option(help="Training pipeline; default: the table's own.")] = None,
    strategies: Annotated[
        str, typer.Option(help="Searches that show what an estimate costs; of several, all are crossed. Or none.")
    ] = "aging_evolution",
    searches: Annotated[int, typer.Option(help="Number of searches of each kind.", min=2)] = 100,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    mlflow: Annotated[bool, typer.Option(help="Log to MLflow: mlflow.db, or MLFLOW_TRACKING_URI.")] = True,
    out_dir: Out = None,
    as_json: Json = False,
) -> None:
    """Hold the scores of estimators against what architectures are worth after full training."""
    if context.invoked_subcommand is not None:
        return
    from ..reports.audit.page import report
    from ..reports.audit.results import Audit, Settings

    settings = Settings(resamples=resamples, seed=seed)
    with usage():
        places = _places(tables, estimators, scores, pipeline, (lower_is_better, accuracy_scale))
        folder = out_dir or Path("nasbed-audit") / "+".join(p.truth.table for p in places)
        wanted = [] if strategies == "none" else _listed(strategies)
        found = [_audited(place, settings, wanted, searches) for place in places]
    whole = Audit(settings, tuple(found))
    _finish(report(whole), folder, [v for t in found for v in _summary(t)], mlflow, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Place:
    """One table and whose scores are held against it."""

    table: MappedTable
    truth: Truth
    scores: Sequence[Scores]


def _listed(text: str) -> list[str]:
    from .study import split_outside_brackets

    return split_outside_brackets(text)


def _one_table(named: str | None, what: str, such_as: str) -> MappedTable:
    from ..tabular import open_table

    if named is None or len(_listed(named)) != 1:
        raise ValueError(f"table: name one {what} by --table, such as {such_as}")
    return open_table(named)


def _places(
    tables: str | None, estimators: str, scores: Path | None, pipeline: str | None, own: tuple[bool, bool]
) -> list[Place]:
    from ..tabular import open_table
    from . import evidence
    from .user_scores import user_scores

    if tables is None:
        raise ValueError("table: name one or several by --table; `nasbed list tables` names those that are there")
    opened = [open_table(name) for name in _listed(tables)]
    truths = [evidence.truth(table, pipeline) for table in opened]
    made = _estimates(truths, opened, _listed(estimators))
    found = []
    for table, truth, theirs in zip(opened, truths, made, strict=True):
        mine = [*evidence.baselines(truth), *theirs]
        if scores is not None:
            lower, accuracy = own
            mine += user_scores(scores, truth, higher_is_better=not lower, accuracy_scale=accuracy)
        found.append(Place(table, truth, evidence.distinct(mine)))
    return found


def _estimates(truths: Sequence[Truth], tables: Sequence[MappedTable], names: Sequence[str]) -> list[list[Scores]]:
    """Of each table the estimates that it has; a name that no table has is wrong."""
    from . import evidence

    found: list[list[Scores]] = [[] for _ in tables]
    for name in names:
        errors = []
        for truth, table, theirs in zip(truths, tables, found, strict=True):
            try:
                more = evidence.estimates(truth, table, [name])
            except ValueError as error:
                errors.append((table.name, error))
                continue
            known = {s.source for s in theirs}
            theirs += [s for s in more if s.source not in known]
        if len(errors) == len(tables):
            raise errors[0][1]
        for where, _ in errors:
            remark(f"{where} has no estimates {name}")
    return found


def _audited(place: Place, settings: Settings, strategies: Sequence[str], searches: int) -> TableAudit:
    from ..reports.audit.audit import audit_table
    from ..reports.audit.decision import decision, factorial, noise_curve

    decisions: dict[str, Decision] = {}
    noise: tuple[NoisePoint, ...] = ()
    crossed: Factorial | None = None
    if strategies and (run := _searches(place, strategies, searches)) is not None:
        made, levels = run
        names = [s.name for s in place.scores if s.asked.all()]
        decisions = {n: decision(made, strategies[0], n, settings) for n in names}
        noise = noise_curve(made, strategies[0], levels, settings)
        crossed = factorial(made, names, settings) if len(strategies) > 1 else None
    with progress(f"audit of {place.truth.table}") as step:
        return audit_table(
            place.truth, place.scores, settings, decisions=decisions, noise=noise, factorial=crossed, progress=step
        )


def _searches(place: Place, strategies: Sequence[str], searches: int) -> tuple[Searches, dict[float, str]] | None:
    """Counterfactual searches; None on a sample, where a search would leave what is known."""
    from .swap import noisy, swap

    if not place.truth.complete:
        remark(f"{place.truth.table} is a sample: no searches, what estimates cost them stays unknown")
        return None
    noise = noisy(place.truth, NOISE, searches)
    asked = [s for s in place.scores if s.asked.all()]
    with progress(f"searches on {place.truth.table}") as step:
        made = swap(
            place.table.space, place.table.space.index, place.truth,  # type: ignore[attr-defined]
            [*asked, *noise.values()],
            strategies=strategies, seeds=range(searches), progress=step,
        )  # fmt: skip
    return made, {sd: s.name for sd, s in noise.items()}


def _summary(table: TableAudit) -> list[str]:
    """The headline of every estimator, with what is wrong with it and its largest bias; the report has all."""
    lines = [f"{table.table}: {w}" for w in table.warnings]
    for e in table.estimators:
        lines.append(f"{table.table}: {e.verdicts[0]}")
        grave = [f for f in e.flags if f.severity != "finding"]
        lines += [f"  {f.severity}: {f.sentence}" for f in (*grave, *[f for f in e.flags if f.kind == "bias"][:1])]
    return lines


def _finish(report: Report, folder: Path, summary: Sequence[str], mlflow: bool, *, as_json: bool) -> None:
    from ..reports.audit.write import write_report
    from .provenance import provenance

    with usage():
        try:
            written = write_report(report, folder)
            (folder / "provenance.json").write_text(json.dumps(provenance(), indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise ValueError(f"out: {folder} cannot be written to: {error.strerror}") from None
    if mlflow:
        _log(report, folder)
    if as_json:
        print_json({"report": str(written), "numbers": str(folder / "audit.json"), "summary": list(summary)})
        return
    for line in summary:
        say(line)
    say(f"report: {written}")


def _log(report: Report, folder: Path) -> None:
    import shlex

    from ..reports.audit.mlflow import log_audit
    from ..reports.mlflow_client import ExportError

    try:
        uri = log_audit(folder, report.numbers)
    except ExportError as error:
        remark(f"mlflow: {error}; the report is safe in {shlex.quote(str(folder))}")
        return
    remark(f"MLflow: mlflow ui --backend-store-uri {uri}")


@audit_app.command(epilog="Example: nasbed audit pipelines --table pipelines-clutter")
def pipelines(
    tables: Tables = None,
    chosen: Annotated[
        str | None, typer.Option("--pipelines", help="Only these, comma-separated; default: all of the table.")
    ] = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    out_dir: Out = None,
    as_json: Json = False,
) -> None:
    """Do the ingredients of training matter more than architectures? For a table of several pipelines."""
    import numpy as np

    from ..reports.audit.correlation import draw_counts
    from ..reports.audit.variance import variance_audit
    from ..reports.audit.variance_page import report
    from .evidence import pipelines_truth

    with usage():
        table = _one_table(tables, "table of several pipelines", "pipelines-clutter")
        truth = pipelines_truth(table, tuple(_listed(chosen)) if chosen else None)
    counts = draw_counts(len(truth.architectures), resamples, np.random.default_rng(seed))
    values = truth.values if truth.higher_is_better else -truth.values
    found = variance_audit(
        values, table=truth.table, space=table.space.name, metric=truth.metric, pipelines=truth.pipelines,
        costs=tuple(truth.costs.tolist()), base=truth.default, counts=counts, examples=truth.examples,
        trained_on=table.manifest["examples"].get("train"),
    )  # fmt: skip
    how = [(truth.table, table.digest), ("resamples", str(resamples)), ("seed", str(seed))]
    made = report(found, f"{len(truth.left_out)} without every training" if truth.left_out else "", how)
    folder = out_dir or Path("nasbed-audit") / truth.table
    _finish(made, folder, [text for _, text in made.findings], False, as_json=as_json)


@audit_app.command("one-shot", epilog="Example: nasbed audit one-shot --table nb201-clutter --seeds 3")
def one_shot(
    tables: Tables = None,
    estimator: Annotated[
        str, typer.Option(help="A one-shot estimator that samples paths, NAME[key=value].")
    ] = "one_shot_enas",
    seeds: Annotated[str, typer.Option(help="Supernets of each kind: a count or a range.")] = "3",
    epochs: Annotated[int, typer.Option(help="Of every supernet.", min=1)] = 6,
    pipeline: Annotated[str | None, typer.Option(help="Training pipeline; default: the table's own.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of data sets that are not embedded.")] = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    out_dir: Out = None,
    as_json: Json = False,
) -> None:
    """Does a policy that learns from its own supernet see its favourites better than they are? Trains for real."""
    import numpy as np

    from ..protocols.training import one_thread
    from ..reports.audit.one_shot_page import report
    from ..reports.audit.reinforcement import Replicate, reinforcement
    from . import evidence
    from . import one_shot as protocol
    from .study import Method, read_seeds

    with usage():
        table = _one_table(tables, "complete table", "nb201-clutter or rnn4-text")
        method = Method.read(estimator, "estimator")
        folder = out_dir or Path("nasbed-audit") / f"{table.name}-one-shot"
        if (folder / "one_shot.json").exists():
            remark(f"the supernets of {folder} are finished: only the report is written again")
        else:
            with one_thread(), progress("supernets") as step:
                protocol.reinforcement(
                    table, seeds=read_seeds(seeds), epochs=epochs, folder=folder, data_root=data_root, progress=step,
                    pipeline=pipeline, estimator=method.name, params=method.params,
                )  # fmt: skip
        truth = evidence.truth(table, pipeline)
        replicates = [Replicate(**r) for r in protocol.read(folder, truth)]
    found = reinforcement(replicates, rng=np.random.default_rng(seed), resamples=resamples, metric=truth.metric)
    done = json.loads((folder / "one_shot.json").read_text(encoding="utf-8"))
    how = [
        ("Table", f"{table.name}, {table.digest[:12]}"), ("Estimator", str(done["estimator"]["name"])),
        ("Pipeline", str(done["pipeline"])), ("Epochs", str(done["epochs"])),
        ("Seeds", ", ".join(map(str, found.seeds))), ("Resamples", f"{resamples}, seed {seed}"),
    ]  # fmt: skip
    _finish(report(found, table.name, truth.metric, how), folder, list(found.verdicts), False, as_json=as_json)
