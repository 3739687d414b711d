"""`nasbed gate`: record what strategies do, and check later versions against it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import CRASHED, USAGE, Verbs, progress, remark, say, stop, usage

if TYPE_CHECKING:
    from .gate_text import Checked, OnInconclusive

gate_app = typer.Typer(
    help="Regression tests of search code: is this version still as good as the recorded one?",
    epilog="Example: nasbed gate check baseline.jsonl",
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
)

_RECORD = """
\b
Examples:
  nasbed gate record --strategies random,local_search --tables mlp-digits --out baseline.jsonl
  nasbed gate record --strategies my_pkg.mod:MyStrategy --tables mlp-digits,rnn4-text --budget 50evals
  nasbed gate record --estimator synflow --table nb201-clutter --seeds 3 --out synflow.jsonl
"""
_CHECK = """
\b
Examples:
  nasbed gate check baseline.jsonl
  nasbed gate check baseline.jsonl --exact
  nasbed gate check baseline.jsonl --looks 20 --on-inconclusive warn --junit gate.xml --markdown gate.md

Exit codes: 0 pass, 1 regression, 2 usage, 3 inconclusive, 4 baseline not comparable, 5 a strategy crashed.
"""

Jobs = Annotated[int, typer.Option(help="Worker processes; 0 = one for each core.", min=0)]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(gate_app, name="gate")


@gate_app.command(epilog=_RECORD)
def record(
    strategies: Annotated[
        str | None, typer.Option(help="Comma-separated names, NAME[key=value] or pkg.mod:Class.")
    ] = None,
    estimator: Annotated[str | None, typer.Option(help="Instead of strategies: one estimator, named likewise.")] = None,
    tables: Annotated[str | None, typer.Option("--table", "--tables", help="Comma-separated names or folders.")] = None,
    seeds: Annotated[str | None, typer.Option(help="A count or a range. Default: 0-199, or 3 of an estimator.")] = None,
    budget: Annotated[str | None, typer.Option(help="Per run: 100evals, 3600s, 500epochs, 2e12flops.")] = None,
    out: Annotated[Path, typer.Option(help="The baseline.")] = Path("baseline.jsonl"),
    replace: Annotated[bool, typer.Option("--replace", help="An older baseline of that name is given up.")] = False,
    jobs: Jobs = 0,
) -> None:
    """Run strategies on complete tables, and write down what they did and how good it was."""
    from .gate import record_baseline, record_estimator
    from .study import read_seeds

    with _guarded():
        if (strategies is None) == (estimator is None):
            raise ValueError("strategies, estimator: name one of them")
        if tables is None:
            raise ValueError("tables: name at least one; `nasbed list tables` names those that are there")
        if estimator is not None:
            if budget is not None:
                raise ValueError("budget: an estimator has none; it scores every architecture")
            record_estimator(estimator, tables, out, seeds=read_seeds(seeds or 3), replace_old=replace, watch=progress)
        else:
            record_baseline(
                strategies or "", tables, out, seeds=seeds or "0-199", budget=budget, replace=replace,
                jobs=jobs or os.cpu_count() or 1, watch=progress,
            )  # fmt: skip
    say(f"baseline: {out}")


@gate_app.command(epilog=_CHECK)
def check(
    baseline: Annotated[Path, typer.Argument(help="A file of `nasbed gate record`.")],
    exact: Annotated[bool, typer.Option("--exact", help="Any difference fails; no tests.")] = False,
    seeds: Annotated[str | None, typer.Option(help="Recorded seeds to run again. Default: all.")] = None,
    alpha: Annotated[float, typer.Option(help="False alarms, over all strategies and looks.")] = 0.01,
    margin: Annotated[float, typer.Option(help="What theta of a passing strategy stays below.")] = 0.60,
    correlation_margin: Annotated[float, typer.Option(help="Rank correlation that an estimator may lose.")] = 0.02,
    looks: Annotated[str, typer.Option(help="Fresh seeds per table at each look.")] = "20,50,100",
    on_inconclusive: Annotated[str, typer.Option(help="fail: exit with 3; warn: only say so.")] = "fail",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every number into this file.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a comment for a pull request.")] = None,
    jobs: Jobs = 0,
) -> None:
    """Check strategies against a baseline: first their traces, and where these differ, how good they still are."""
    from ..methods.registry import unknown
    from .gate import Rules, check_baseline
    from .gate_text import render

    with _guarded():
        if on_inconclusive not in ("fail", "warn"):
            raise ValueError(unknown("on-inconclusive", on_inconclusive, ("fail", "warn")))
        rules = Rules(alpha, margin, _numbers(looks))
        checked = check_baseline(
            baseline, rules=rules, correlation_margin=correlation_margin, exact=exact, seeds=seeds,
            jobs=jobs or os.cpu_count() or 1, watch=progress,
        )  # fmt: skip
    undecided: OnInconclusive = "warn" if on_inconclusive == "warn" else "fail"
    code = checked.code(undecided)
    with usage():
        _write(checked, code, json_file, junit, markdown, undecided)
    say(render(checked.verdicts, checked.header, checked.notes, code=code))
    raise typer.Exit(code)


@contextmanager
def _guarded() -> Iterator[None]:
    """Exit codes of what cannot be checked; of a crash, the traceback is the user's own."""
    from .faults import CorruptRecord
    from .gate_traces import Crashed

    try:
        with usage():
            yield
    except CorruptRecord as fault:
        stop(f"baseline: {fault}", USAGE)
    except Crashed as crash:
        remark(str(crash).rstrip())
        raise typer.Exit(CRASHED) from None


def _numbers(looks: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in looks.split(","))
    except ValueError:
        raise ValueError(f"looks: {looks!r} is not a list of numbers of seeds, as 20,50,100") from None


def _write(
    checked: Checked, code: int, json_file: Path | None, junit: Path | None, markdown: Path | None,
    on_inconclusive: OnInconclusive,
) -> None:  # fmt: skip
    from .gate_text import to_json, to_junit, to_markdown

    texts = {
        json_file: json.dumps(to_json(checked, code), indent=1, sort_keys=True, ensure_ascii=False) + "\n",
        junit: to_junit(checked, on_inconclusive),
        markdown: to_markdown(checked),
    }
    for path, text in texts.items():
        if path is not None:
            try:
                path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise ValueError(f"{path}: cannot be written ({error.strerror})") from None
