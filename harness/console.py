"""What all commands share: exit codes, plain lines, one-line errors, progress with remaining time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

OK, FAILED, USAGE, INCONCLUSIVE, NOT_COMPARABLE, CRASHED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def say(line: str) -> None:
    """A line of the answer, on standard output."""
    typer.echo(line)


def remark(line: str) -> None:
    """A line about the answer, on standard error."""
    typer.echo(line, err=True)


def stop(message: str, code: int) -> NoReturn:
    """One line on standard error, then exit."""
    remark(f"nasbed: {' '.join(message.split())}")
    raise typer.Exit(code)


@contextmanager
def usage() -> Iterator[None]:
    """Inside, what is wrong with the user's input becomes one line and exit code 2 or 4."""
    from .plan import NotComparable

    try:
        yield
    except NotComparable as error:
        stop(str(error), NOT_COMPARABLE)
    except ValueError as error:
        stop(str(error), USAGE)


class Verbs(TyperGroup):
    """A group of commands that names them all where one is unknown."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See click: the command that the first argument names."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from ..methods.registry import unknown

            ctx.fail(unknown("verb", args[0], tuple(self.list_commands(ctx))))
        return super().resolve_command(ctx, args)


def option_line(error: Any) -> str | None:
    """One line for an unknown option, with the allowed ones; None for any other usage error."""
    if not hasattr(error, "possibilities") or not error.ctx:
        return None
    from ..methods.registry import unknown

    parameters = error.ctx.command.get_params(error.ctx)
    return unknown("option", error.option_name, tuple(o for p in parameters for o in p.opts if o.startswith("--")))


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, sort_keys=True) + "\n")


@contextmanager
def progress(what: str) -> Iterator[Callable[[float, float], None]]:
    """A bar with remaining time on a terminal; elsewhere a line at every tenth of the way.

    Yields a function (done, total), called at the start and after each step. The remaining time is
    estimated from what was done since the first call, so that resumed work does not distort it.
    """
    if sys.stderr.isatty():
        # Imported here: drawing a bar is the only use of rich, and loading it takes longer than `nasbed --help`.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("left"), Remaining(), console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    from time import monotonic

    started, first, shown = monotonic(), -1.0, -1

    def line(done: float, total: float) -> None:
        nonlocal first, shown
        first = done if first < 0 else first
        tenth = int(10 * done / total) if total else 10
        if tenth > shown:
            shown = tenth
            rate = (done - first) / max(monotonic() - started, 1e-9)
            left = f", about {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
            remark(f"{what}: {100 * done / total if total else 100:.0f} %{left}")

    yield line
