"""`nasbed plan-seeds`: how many seeds a comparison needs, from a pilot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Json, print_json, progress, remark, say, usage

if TYPE_CHECKING:
    from ..reports.frame import StudyData
    from ..reports.pilot import Question

_EXAMPLES = """
\b
Examples:
  nasbed plan-seeds nasbed-out/3f1c2a9b7d10
  nasbed plan-seeds nasbed-out/3f1c2a9b7d10 --strategies aging_evolution --effect 0.1
  nasbed plan-seeds --table mlp-digits --strategies local_search,aging_evolution --effect 0.2 --power 0.8
"""

_SHOWN = (5, 10, 20, 30, 50, 100, 200, 300)


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("plan-seeds", epilog=_EXAMPLES)(plan_seeds)


def plan_seeds(
    folder: Annotated[Path | None, typer.Argument(help="The --out folder of a pilot comparison.")] = None,
    tables: Annotated[
        str | None, typer.Option("--table", "--tables", help="Without a folder: run a pilot on these.")
    ] = None,
    strategies: Annotated[
        str | None, typer.Option(help="Comma-separated; default: all of the pilot but random search.")
    ] = None,
    effect: Annotated[float, typer.Option(help="Share of evaluations whose waste should be seen.")] = 0.2,
    power: Annotated[float, typer.Option(help="How often it should be seen.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Level of the two-sided van Elteren test.")] = 0.05,
    seeds: Annotated[str | None, typer.Option(help="Of a pilot that is run: at least 20. Default: 30.")] = None,
    budget: Annotated[str | None, typer.Option(help="Of a pilot that is run, per run: 100evals.")] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes; 0 = one for each core.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Say with how many seeds a comparison sees a waste of evaluations, or a difference of two strategies."""
    from ..reports.pilot import questions

    with usage():
        if (folder is None) == (tables is None):
            raise ValueError("pilot: name the folder of a comparison, or --table and --strategies to run one")
        if folder is not None and (seeds or budget):
            raise ValueError("seeds, budget: belong to a pilot that is run; the folder holds one")
        data = _read(folder) if folder else _run(tables, strategies, seeds, budget, jobs)
        found = questions(data, _labels(data, strategies), effect=effect, power=power, alpha=alpha)
    if as_json:
        from ..reports.results import plain

        print_json({"effect": effect, "power": power, "alpha": alpha, "questions": plain(found)})
        return
    _print(data, found, power=power, alpha=alpha)


def _read(folder: Path) -> StudyData:
    from ..reports.frame import load
    from .store import RunStore

    for place in (folder / "store", folder):
        if (place / "study.json").is_file():
            store = RunStore(place, create=False)
            if "runs" in store.study():
                return load(store)
    raise ValueError(f"folder: {folder} holds no finished comparison; the command that began it resumes it")


def _run(tables: str | None, strategies: str | None, seeds: str | None, budget: str | None, jobs: int) -> StudyData:
    """Run the pilot as `compare` would, in the folder that it would use: neither does the other's work again."""
    from ..reports.statistics.planning import FEWEST_PILOT_SEEDS
    from .compare import carry_out
    from .plan import plan
    from .study import read_study

    if strategies is None:
        raise ValueError("strategies: name the strategies of the pilot")
    study = read_study(None, {"tables": tables, "strategies": strategies, "seeds": seeds, "budget": budget})
    if len(study.seeds) < FEWEST_PILOT_SEEDS:
        raise ValueError(f"seeds: {len(study.seeds)} are too few for a pilot, need at least {FEWEST_PILOT_SEEDS}")
    planned = plan(study)
    folder = Path("nasbed-out") / planned.digest[:12]
    with progress("pilot") as step:
        failures = carry_out(planned, folder, jobs=jobs or os.cpu_count() or 1, progress=step)
    remark(f"pilot: {folder}")
    if failures:
        remark(failures[0].traceback)
        raise ValueError(f"strategies: {len(failures)} runs of the pilot failed, the first with {failures[0].error}")
    return _read(folder)


def _labels(data: StudyData, strategies: str | None) -> list[str]:
    """Labels of methods in the pilot; where it has several estimators, each strategy under each of them."""
    from ..methods.registry import unknown
    from .study import BASELINE, split_outside_brackets

    if strategies is None:
        return [m.label for m in data.methods if m.name != BASELINE] or [m.label for m in data.methods]
    chosen: list[str] = []
    for wanted in split_outside_brackets(strategies):
        labels = [m.label for m in data.methods if wanted in (m.label, m.strategy)]
        if not labels:
            raise ValueError(unknown("strategies", wanted, tuple(m.label for m in data.methods)))
        chosen += labels
    return list(dict.fromkeys(chosen))


def _print(data: StudyData, found: Sequence[Question], *, power: float, alpha: float) -> None:
    say(f"pilot: {found[0].plan.n} seeds per table on {', '.join(data.places)}; van Elteren test, two-sided {alpha:g}")
    say("power by seeds per table")
    say(f"  {'':<24} theta {''.join(f'{n:>6}' for n in _SHOWN)}")
    for i, q in enumerate(found):
        if i == 0 or (q.about, q.against) != (found[i - 1].about, found[i - 1].against):
            say(
                f"{q.about}, {_percent(q.effect)} of evaluations wasted"
                if q.effect
                else f"{q.about} against {q.against}"
            )
        reached = dict(zip(q.plan.sizes, q.plan.power, strict=True))
        say(f"  {q.metric:<24} {q.theta.estimate:5.2f} {''.join(f'{reached[n]:6.2f}' for n in _SHOWN)}")
    for pair in zip(found[::2], found[1::2], strict=True):
        say(_sentence(pair, power))
    for q in found:
        if not q.effect and q.theta.low <= 0.5 <= q.theta.high:
            remark(
                f"{q.about} against {q.against}, {q.metric}: the pilot does not tell them apart "
                f"(theta {q.theta.low:.2f} to {q.theta.high:.2f}), so its plan may be for a difference by chance"
            )


def _sentence(pair: Sequence[Question], power: float) -> str:
    """The metric that needs fewer seeds decides: a report has both."""
    q = min(pair, key=lambda q: (q.needed is None, q.needed))
    what = (
        f"to see a {_percent(q.effect)} waste of evaluations of {q.about}"
        if q.effect
        else f"to tell {q.about} from {q.against}"
    )
    if q.needed is None:
        return f"more than {q.plan.sizes[-1]} seeds per table {what} with {_percent(power)}"
    return f"{q.needed} seeds per table {what} with {_percent(power)} ({q.metric})"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
