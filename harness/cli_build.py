"""`nasbed table build`: train a whole table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import FAILED, OK, progress, remark, say, usage

EXAMPLES = """
Examples:
  nasbed table build spec.toml --dry-run
  nasbed table build spec.toml --pilot
  nasbed table build spec.toml --out my-table --jobs 2
  nasbed table build spec.toml --part 1/2        (another machine: --part 2/2; copy its shards/ here, build again)
"""


def build(
    spec: Annotated[Path, typer.Argument(help="What to build (TOML): name, space, data, pipelines, seeds, ...")],
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder of the table; default nasbed-tables/NAME.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes; 0 = one for each core.", min=0)] = 0,
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Folder of data sets that are not embedded.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    part: Annotated[str, typer.Option(help="I/N: only the I-th of N parts of the work.")] = "1/1",
    pilot: Annotated[
        bool, typer.Option("--pilot", help="Only the pilot: can the table tell architectures from seeds?")
    ] = False,
    despite_pilot: Annotated[bool, typer.Option("--despite-pilot", help="Build even if the pilot says no.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Time one bucket and print the expected hours.")] = False,
) -> None:
    """Train every architecture of a space, or a sample, and write the table. The same command again resumes."""
    from ..tabular import builder

    with usage():
        plan = builder.Spec.read(spec)
        folder = out_dir or Path("nasbed-tables") / plan.name
        if (folder / "manifest.json").exists():
            raise ValueError(f"out: {folder} holds a finished table")
        share, device = _part(part), _device(device)
    jobs = jobs or (os.cpu_count() or 1 if device == "cpu" else 1)
    if dry_run:
        with usage():
            _dry_run(builder.dry_run(plan, data_root, device=device), jobs)
        return
    run = _runner(jobs)
    refusal = None
    if plan.seeds > 1 and share[0] == 1:
        with usage(), progress("pilot") as step:
            found = builder.pilot(plan, folder, data_root=data_root, device=device, run=run, progress=step)
        _print_pilot(found)
        refusal = builder.verdict(found)
    if refusal:
        remark(refusal + ("" if despite_pilot else "; --despite-pilot builds all the same"))
    if pilot or (refusal and not despite_pilot):
        raise typer.Exit(FAILED if refusal else OK)
    with usage(), progress("training") as step:
        made = builder.build(
            plan, folder, data_root=data_root, device=device, run=run, part=share, progress=step
        )  # fmt: skip
    if made:
        say(f"table: {made}")
    else:
        say(f"part {part} is done; copy the other parts' files into {folder / 'shards'} and build again")


def _dry_run(timed: Iterator[tuple[str, float]], jobs: int) -> None:
    total = 0.0
    for name, seconds in timed:
        total += seconds
        say(f"{name}: about {seconds / 3600:.2f} core-hours")
    say(f"together about {total / 3600:.2f} core-hours, {total / jobs / 3600:.2f} hours with {jobs} processes")


def _print_pilot(found: Mapping[str, Mapping[str, Any]]) -> None:
    for name, values in found.items():
        correlation, working = values["seed_to_seed_spearman"], values["working"]
        if correlation is None:
            continue
        remark(f"pilot, {name}: seed-to-seed Spearman {correlation:.3f} among {working} working architectures")
        spread = f"{values['sd_architectures']:.4f} between architectures, {values['sd_seeds']:.4f} between seeds"
        remark(f"pilot, {name}: standard deviation {spread}")


def _part(text: str) -> tuple[int, int]:
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ValueError(f"part: {text!r} is not I/N with 1 <= I <= N")
    return int(first), int(last)


def _device(name: str) -> str:
    if name == "cpu":
        return name
    from ..protocols.training import resolve

    found: str = resolve(name)
    return found


def _runner(jobs: int) -> Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]:
    from .executors import run_tasks

    def run(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        for outcome in run_tasks(function, tasks, jobs=jobs):
            if outcome.error is not None:
                raise outcome.error
            yield outcome.value

    return run
