"""The regression gate: is this version of a search strategy still as good as the recorded one?

`record_baseline` runs strategies on tables and writes down the digest of every run's trace and how good it came out.
`check_baseline` runs the same seeds again. Where all traces are equal, nothing has changed (level 0). Otherwise fresh
seeds are run, at planned looks, until a test decides (level 1, see `gate_looks`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..methods import registry
from ..protocols import Json
from .gate_baseline import read, refuse_existing, write
from .gate_estimator import KIND as ESTIMATOR
from .gate_estimator import MARGIN, check_estimator, record_estimator
from .gate_looks import Look, Rules, judge
from .gate_recorded import Recorded, header_of, name_of, opponent, require_same, stands_for
from .gate_text import Checked, Verdict, head, notes, render, statistical
from .gate_text import exact as _exact
from .gate_traces import METRICS, Crashed, Divergence, Ran, Watch, diverge, pack, run_all, score_all, unpack
from .gate_traces import unwatched as _unwatched
from .plan import Plan, Planned, plan
from .study import Method, Study, read_seeds, split_outside_brackets

__all__ = [
    "Checked", "Crashed", "Divergence", "Rules", "Verdict", "check_baseline", "check_strategy", "record_baseline",
    "record_estimator", "render",
]  # fmt: skip

FEWEST_SEEDS = 100
"""A smaller baseline is a lottery: with 50 seeds, one baseline in some has a false alarm in every second check."""

TRACED = 20
"""Seeds whose whole traces are kept, so that the first divergence can be shown; of others there are digests."""


def record_baseline(
    strategies: str | Sequence[str | type],
    tables: str | Sequence[str],
    out: Path,
    *,
    seeds: str | int | Sequence[int] = "0-199",
    budget: str | None = None,
    replace: bool = False,
    jobs: int = 1,
    watch: Watch = _unwatched,
) -> Path:
    """Run strategies and write what they did as a baseline.

    Args:
        strategies: Names, as `nasbed compare` takes them, or classes at the top level of an importable module.
        tables: Names or folders of complete tables.
        out: The file.
        seeds: A count, a range or a list, at least 100.
        budget: Of each run, `100evals`; by default the cost of 100 median full trainings.
        replace: Whether a file of that name may be replaced; the new one keeps its origin.
        jobs: Worker processes.
        watch: Shows progress.

    Raises:
        ValueError: A name or value is wrong, or `out` exists; one line.
        NotComparable: A table is a sample.
        Crashed: A strategy raised.
    """
    out = Path(out)
    origin = refuse_existing(out, replace)
    numbers = read_seeds(seeds)
    if len(numbers) < FEWEST_SEEDS:
        raise ValueError(
            f"seeds: {len(numbers)} are too few for a baseline; at least {FEWEST_SEEDS}, or chance decides later checks"
        )
    planned = _plan(_methods(strategies), _listed(tables), numbers, budget)
    ran = run_all(planned, planned.runs, jobs=jobs, watch=watch, what="recording")
    lines = _lines(planned, ran, set(numbers[:TRACED]))
    write(out, header_of(planned, _listed(tables), budget), lines, origin)
    return out


def _lines(planned: Plan, ran: Sequence[Ran], traced: set[int]) -> list[dict[str, Json]]:
    scores = score_all(planned, planned.runs, ran)
    return [
        {
            "strategy": r.strategy, "table": r.table, "seed": r.seed, "digest": run.digest,
            **dict(zip(METRICS, values, strict=True)),
            "trace": pack(run.rows) if r.seed in traced else None,
        }
        for r, run, values in zip(planned.runs, ran, scores, strict=True)
    ]  # fmt: skip


def check_baseline(
    baseline: Path,
    *,
    rules: Rules | None = None,
    correlation_margin: float = MARGIN,
    exact: bool = False,
    seeds: str | int | Sequence[int] | None = None,
    jobs: int = 1,
    watch: Watch = _unwatched,
) -> Checked:
    """Check every strategy of a baseline, or its estimator, as it is now.

    Args:
        baseline: File from `record_baseline` or `record_estimator`.
        rules: Levels, margin and looks; `strategies` in them is what the baseline has.
        correlation_margin: Of an estimator: see `gate_estimator.check_estimator`.
        exact: Fail what is not equal to the last bit, without any test.
        seeds: Those of the baseline to run again; all by default.
        jobs: Worker processes.
        watch: Shows progress.

    Raises:
        ValueError: There is no such baseline, or a name or value is wrong.
        CorruptRecord: The baseline is damaged; the message names the line.
        NotComparable: A table, a budget, a metric or the layout of the baseline is another one than today's.
        Crashed: A strategy raised.
    """
    file = read(Path(baseline))
    if file.header.get("kind") == ESTIMATOR:
        again = None if seeds is None else read_seeds(seeds)
        return check_estimator(file, margin=correlation_margin, exact=exact, seeds=again, watch=watch)
    recorded = Recorded.of(file)
    rules = _shared(rules, recorded)
    return _check(recorded, recorded.methods, rules, exact=exact, seeds=seeds, jobs=jobs, watch=watch)


def check_strategy(
    strategy: str | type,
    baseline: Path,
    *,
    against: str | None = None,
    rules: Rules | None = None,
    exact: bool = False,
    seeds: str | int | Sequence[int] | None = None,
    jobs: int = 1,
    watch: Watch = _unwatched,
) -> Verdict:
    """Check one strategy against one of a baseline.

    Random streams are keyed by the name of a strategy, so traces can be equal only where `strategy` is the recorded
    one, by name or as the class that the recorded name stands for.

    Args:
        strategy: A name, or a class; a class gets the recorded parameters.
        baseline: File from `record_baseline`.
        against: Label of the strategy in the baseline; by default the one of this name, or the only one there is.
        rules: As in `check_baseline`: alpha is shared by all strategies of the baseline.
        exact: As there.
        seeds: As there.
        jobs: As there.
        watch: As there.

    Raises:
        ValueError: The baseline does not say which of its strategies this one is to be held against.
        Crashed: The strategy raised. Further errors as in `check_baseline`.
    """
    recorded = Recorded.of(read(Path(baseline)))
    chosen = opponent(strategy, recorded, against)
    if isinstance(strategy, str):
        method = replace(Method.read(strategy, "strategy"), label=chosen.label)
    else:
        method = chosen if stands_for(chosen, strategy) else replace(chosen, name=name_of(strategy))
    rules = _shared(rules, recorded)
    return _check(recorded, [method], rules, exact=exact, seeds=seeds, jobs=jobs, watch=watch).verdicts[0]


# Running.

Key = tuple[str, str, int]
"""Strategy, table, seed."""

Do = Callable[[Sequence[str], Sequence[int], str], dict[Key, Ran]]


def _methods(given: str | Sequence[str | type]) -> list[Method]:
    entries = split_outside_brackets(given) if isinstance(given, str) else list(given)
    found = [Method.read(e if isinstance(e, str) else name_of(e), "strategies") for e in entries]
    labels = [m.label for m in found]
    if not labels:
        raise ValueError(f"strategies: name at least one of {', '.join(registry.names('strategies'))}")
    if twice := next((x for x in labels if labels.count(x) > 1), None):
        raise ValueError(f"strategies: {twice!r} is named twice")
    return found


def _listed(tables: str | Sequence[str]) -> list[str]:
    found = split_outside_brackets(tables) if isinstance(tables, str) else [str(t) for t in tables]
    if not found:
        raise ValueError("tables: name at least one; `nasbed list tables` names those that are there")
    return found


def _plan(methods: Sequence[Method], tables: Sequence[str], seeds: Sequence[int], budget: str | None) -> Plan:
    return plan(Study(tuple(methods), tables=tuple(tables), seeds=tuple(seeds), budget=budget, name="gate"))


def _shared(rules: Rules | None, recorded: Recorded) -> Rules:
    """Alpha is shared by all strategies of the baseline, and by what a caller checks besides."""
    given = rules or Rules()
    return replace(given, strategies=max(given.strategies, len(recorded.methods)))


def _check(
    recorded: Recorded, methods: Sequence[Method], rules: Rules, *, exact: bool,
    seeds: str | int | Sequence[int] | None, jobs: int, watch: Watch,
) -> Checked:  # fmt: skip
    header = recorded.file.header
    again = _again(seeds, recorded.seeds)
    first = max(recorded.seeds) + 1
    fresh = range(first, first + rules.looks[-1])
    planned = _plan(methods, header["given"], [*again, *fresh], header["budget"])
    require_same(recorded, planned)
    runs = {(r.strategy, str(r.table), r.seed): r for r in planned.runs}

    def do(labels: Sequence[str], wanted: Sequence[int], what: str) -> dict[Key, Ran]:
        chosen = set(wanted)
        keys = [k for k in runs if k[0] in labels and k[2] in chosen]
        done = run_all(planned, [runs[k] for k in keys], jobs=jobs, watch=watch, what=what)
        return dict(zip(keys, done, strict=True))

    labels = [m.label for m in methods]
    ran = do(labels, again, "recorded seeds")
    verdicts = {label: _level_0(recorded, planned, runs, label, ran) for label in labels}
    changed = [label for label, v in verdicts.items() if v.identical < v.traces]
    if changed and not exact:
        looks = _level_1(recorded, planned, runs, changed, fresh, rules, do)
        for label, (at, look) in looks.items():
            verdicts[label] = statistical(verdicts[label], look, at, rules)
    codes = {label: next(r.spec["strategy"]["code"] for r in planned.runs if r.strategy == label) for label in labels}
    return Checked(
        head(recorded.file, len(recorded.seeds), rules), tuple(verdicts.values()),
        notes(header, codes, changed), recorded.file.digest, str(recorded.file.path),
    )  # fmt: skip


def _again(seeds: str | int | Sequence[int] | None, recorded: Sequence[int]) -> tuple[int, ...]:
    if seeds is None:
        return tuple(recorded)
    wanted = read_seeds(seeds)
    if missing := sorted(set(wanted) - set(recorded)):
        raise ValueError(f"seeds: {missing[0]} is not one of the baseline's, {min(recorded)} to {max(recorded)}")
    return wanted


def _level_0(
    recorded: Recorded, planned: Plan, runs: Mapping[Key, Planned], label: str, ran: Mapping[Key, Ran]
) -> Verdict:
    mine = {key: run for key, run in ran.items() if key[0] == label}
    other = {key: run for key, run in mine.items() if run.digest != recorded.lines[key]["digest"]}
    if not other:
        return _exact(label, len(mine), len(mine))
    first = next((k for k in other if recorded.lines[k]["trace"]), next(iter(other)))
    kept = recorded.lines[first]["trace"]
    divergence = diverge(planned.tables[first[1]], first[2], unpack(kept) if kept else None, other[first].rows)
    [twice] = run_all(planned, [runs[first]], jobs=1, watch=_unwatched, what="the first divergence again")
    return _exact(label, len(mine) - len(other), len(mine), divergence, stable=twice.digest == other[first].digest)


def _level_1(
    recorded: Recorded, planned: Plan, runs: Mapping[Key, Planned], labels: Sequence[str],
    fresh: Sequence[int], rules: Rules, do: Do,
) -> dict[str, tuple[int, Look]]:  # fmt: skip
    """For each strategy the look that decided, or the last one."""
    values: dict[Key, tuple[float, ...]] = {}
    found: dict[str, tuple[int, Look]] = {}
    open_, done = list(labels), 0
    for at, n in enumerate(rules.looks):
        ran = do(open_, fresh[done:n], f"look {at + 1} of {len(rules.looks)}")
        values |= dict(zip(ran, score_all(planned, [runs[k] for k in ran], list(ran.values())), strict=True))
        done = n
        for label in tuple(open_):
            new = {
                m: [np.array([values[label, t, s][i] for s in fresh[:n]]) for t in planned.tables]
                for i, m in enumerate(METRICS)
            }
            found[label] = (at, judge(new, recorded.samples(label), at, rules))
            if found[label][1].outcome is not None:
                open_.remove(label)
        if not open_:
            break
    return found
