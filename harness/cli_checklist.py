"""`nasbed checklist`: the checklist of good practice of a finished comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import FAILED, OK, Json, print_json, remark, say, usage

if TYPE_CHECKING:
    from ..reports.checklist import Checklist

_EXAMPLES = """
\b
Examples:
  nasbed checklist nasbed-out/3f1c2a9b7d10
  nasbed checklist nasbed-out/3f1c2a9b7d10 --audit nasbed-audit --format md
  nasbed checklist nasbed-out/3f1c2a9b7d10 --audit nasbed-audit --out appendix --format tex
"""

RESAMPLES = 100
"""Of the comparison, as few as it takes: the checklist asks whether there is an interval, not how wide it is."""


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=_EXAMPLES)(checklist)


def checklist(
    folder: Annotated[Path, typer.Argument(help="The --out folder of a comparison, or its store.")],
    audit: Annotated[
        list[Path] | None, typer.Option("--audit", help="Folder of an audit report that belongs to it; repeatable.")
    ] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Write checklist.* to this folder.")] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="md, html, tex or json: only this one; without --out, print it.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a practice fails.")] = False,
    as_json: Json = False,
) -> None:
    """Say which good practices a comparison follows, which not, and which only its authors can answer."""
    with usage():
        found = _found(folder, audit or [], form)
    from ..reports.checklist import files

    made = files(found)
    kept = {n: content for n, content in made.items() if form is None or n == f"checklist.{form}"}
    if out_dir is not None:
        with usage():
            _write(out_dir, kept)
    if as_json:
        print_json(found.to_dict())
    elif form is not None and out_dir is None:
        typer.echo(made[f"checklist.{form}"].decode(), nl=False)
    else:
        _print(found)
        for name in kept if out_dir else ():
            remark(f"checklist: {out_dir}/{name}")
    raise typer.Exit(FAILED if strict and found.counts["fail"] else OK)


def _found(folder: Path, audits: list[Path], form: str | None) -> Checklist:
    from ..methods.registry import unknown
    from ..reports.checklist import FORMATS, checklist
    from ..reports.checklist_runs import Noted
    from ..reports.comparison import compare
    from ..reports.frame import load

    if form not in (None, *FORMATS):
        raise ValueError(unknown("format", str(form), FORMATS))
    held = {str(a / "audit.json"): _audit(a) for a in audits}
    store = Noted(_store(folder))
    comparison, why = None, ""
    try:
        comparison = compare(load(store), resamples=RESAMPLES)
    except ValueError as error:  # the checklist says which practice that breaks
        why = str(error)
    found = checklist(store, comparison, audits=held)
    if why:
        remark(f"without a comparison: {why}")
    return found


def _store(folder: Path) -> Any:
    from .store import RunStore

    for place in (folder / "store", folder):
        if (place / "study.json").is_file():
            store = RunStore(place, create=False)
            if "runs" in store.study():
                return store
    raise ValueError(f"folder: {folder} holds no finished comparison; the command that began it resumes it")


def _audit(folder: Path) -> Any:
    path = folder / "audit.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"audit: {path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"audit: {path} is not JSON ({error})") from None


def _write(folder: Path, files: dict[str, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise ValueError(f"out: {folder} cannot be written to: {error.strerror}") from None


def _print(found: Checklist) -> None:
    from ..reports.checklist import tally

    wide = max(len(i.practice) for i in found.items)
    for i in found.items:
        say(f"{i.number:2} {i.practice:{wide}}  {i.status:14}  {i.reason}")
    say(tally(found))
