"""Runs for the gate: what a strategy evaluated, in order and to the last bit, and how good it came out."""

from __future__ import annotations

import base64
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import isinf
from pathlib import Path

import numpy as np

from ..protocols import Budget, Fidelity, IndexedSpace, Json, Observation
from ..tabular import MappedTable
from ..tabular.facts import quality
from . import seal
from .executors import run_tasks
from .ledger import Ledger
from .loop import Trajectory
from .plan import Plan, Planned
from .records import canonical_bytes, digest_trace, parse
from .runs import Task, _one_thread, _search, _setting, _table

METRICS = ("regret_final", "late_area")
"""What runs are judged by, both lower is better; see `reports.comparison`."""

LATE = 0.1
"""`late_area` runs from this share of the budget to all of it."""

Row = tuple[int, int, Json, str]
"""Evaluation, architecture (its number in the space: the row of a complete table), epochs, score by `float.hex`."""

Watch = Callable[[str], AbstractContextManager[Callable[[float, float], None]]]
"""Shows how far something is: `console.progress`, or `unwatched`."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run did.

    Attributes:
        rows: Every evaluation; of weight sharing, which evaluates nothing, the changes of the incumbent.
        incumbents: Cumulative cost and architecture of every change of the incumbent.
        crash: Empty, or the traceback of what the strategy raised, from its own frames on.
    """

    rows: tuple[Row, ...] = ()
    incumbents: tuple[tuple[float, int], ...] = ()
    crash: str = ""

    @property
    def digest(self) -> str:
        """sha256 of the rows, see `records.digest_trace`."""
        return digest_trace(self.rows)


class Crashed(Exception):
    """A strategy or an estimator raised; `trace` is its traceback, without the frames of the harness."""

    def __init__(self, where: str, trace: str) -> None:
        super().__init__(where, trace)
        self.where = where
        self.trace = trace

    def __str__(self) -> str:
        return f"{self.where} crashed:\n{self.trace}"


@contextmanager
def unwatched(what: str) -> Iterator[Callable[[float, float], None]]:
    """Show nothing."""
    yield lambda done, total: None


def run_all(plan: Plan, wanted: Sequence[Planned], *, jobs: int, watch: Watch, what: str) -> list[Ran]:
    """Do runs on tables, in the order given.

    Raises:
        Crashed: By the first one, in that order, whose strategy raised.
    """
    folders = {name: str(table.folder.resolve()) for name, table in plan.tables.items()}
    tasks = [Task(r.spec, "", folders[str(r.table)]) for r in wanted]
    found: dict[int, Ran] = {}
    with watch(what) as step:
        step(0, len(tasks))
        for outcome in run_tasks(traced, tasks, jobs=jobs):
            lost = "" if outcome.error is None else f"{type(outcome.error).__name__}: {outcome.error}"
            found[outcome.index] = outcome.value or Ran(crash=lost)
            step(len(found), len(tasks))
    for i, r in enumerate(wanted):
        if found[i].crash:
            raise Crashed(f"{r.strategy} on {r.table}, seed {r.seed},", found[i].crash)
    return [found[i] for i in range(len(wanted))]


def traced(task: Task) -> Ran:
    """Do one run on a table; nothing is stored and no test value is opened. What it raises is part of the result."""
    spec = task.spec
    table = _table(str(task.table), spec["table"]["digest"])
    setting = _setting(task, table.space, table)
    ledger = Ledger(Budget(spec["budget"]["unit"], spec["budget"]["limit"]))
    try:
        with _one_thread(spec):
            _, run, _ = _search(spec, table.space, setting, ledger, None)
    except (Exception, SystemExit) as error:  # a strategy that calls sys.exit ends its own run only
        return Ran(crash=own_traceback(error))
    return _ran(run, table.space, setting.pipeline.epochs)  # type: ignore[arg-type]  # of a complete table


def _ran(run: Trajectory, space: IndexedSpace, epochs: int) -> Ran:
    told: list[Observation] = [o for call in run.calls for o in call.observations]
    numbers = [space.index(i.architecture) for i in run.incumbents]
    rows: Iterable[Row] = (
        (i, space.index(o.proposal.architecture), _fidelity(o.proposal.fidelity, epochs), float(o.score).hex())
        for i, o in enumerate(told)
    )
    if not told:
        rows = ((c.evaluation, n, epochs, float(c.score).hex()) for c, n in zip(run.incumbents, numbers, strict=True))
    return Ran(tuple(rows), tuple((c.cost, n) for c, n in zip(run.incumbents, numbers, strict=True)))


def _fidelity(fidelity: Fidelity, epochs: int) -> Json:
    """The epochs; all five fields where anything else is reduced, too."""
    trained: Json = epochs if isinf(fidelity.epochs) else fidelity.epochs
    if isinstance(trained, float) and trained.is_integer():
        trained = int(trained)
    others = (fidelity.data, fidelity.resolution, fidelity.width, fidelity.depth)
    return trained if others == (1.0, 1.0, 1.0, 1.0) else [trained, *map(float, others)]


def own_traceback(error: BaseException) -> str:
    """The traceback from the first frame on that is not the harness's."""
    step, harness = error.__traceback__, Path(__file__).parent
    while step is not None and Path(step.tb_frame.f_code.co_filename).parent == harness:
        step = step.tb_next
    return "".join(traceback.format_exception(type(error), error, step))


def score_all(plan: Plan, wanted: Sequence[Planned], ran: Sequence[Ran]) -> list[tuple[float, ...]]:
    """The metrics of runs that are over, in the order of `METRICS`. Test values are opened here, once per table."""
    worlds = {name: _World.of(table, plan.pipelines[name]) for name, table in plan.tables.items()}
    return [
        worlds[str(r.table)].score(run, r.spec["budget"]["limit"]) for r, run in zip(wanted, ran, strict=True)
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _World:
    """What regrets on a table are measured by: qualities (higher is better) of all members, and two of them."""

    values: np.ndarray
    best: float
    median: float

    @classmethod
    def of(cls, table: MappedTable, pipeline: str) -> _World:
        sign, facts = 1.0 if table.task.higher_is_better else -1.0, seal.facts(table, pipeline)
        values = sign * quality(seal.truth_values(table, pipeline))
        return cls(values, sign * facts["best"], sign * facts["median"])

    def score(self, run: Ran, budget: float) -> tuple[float, ...]:
        from ..reports.statistics import anytime_area, normalised_regret

        cost = np.array([c for c, _ in run.incumbents]) / budget
        regret = normalised_regret(self.values[[a for _, a in run.incumbents]], self.best, self.median)
        final = float(regret[-1]) if regret.size else 1.0
        return final, anytime_area(cost, regret, LATE, 1.0)


def pack(rows: Sequence[Row]) -> str:
    """A trace as text for a line of a baseline."""
    return base64.b64encode(zlib.compress(canonical_bytes(list(rows)), 9)).decode("ascii")


def unpack(text: str) -> tuple[Row, ...]:
    """What was packed."""
    return tuple(tuple(row) for row in parse(zlib.decompress(base64.b64decode(text))))


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation of a trace: the architecture's number and text, its epochs, and the score as the run saw it."""

    architecture: int
    text: str
    epochs: Json
    score: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a run first leaves the recorded one.

    Attributes:
        table: Name.
        seed: Of the run.
        evaluation: None where only the digest of this seed was recorded.
        expected: None where the recorded run was over.
        got: None where the new run is.
    """

    table: str
    seed: int
    evaluation: int | None = None
    expected: Step | None = None
    got: Step | None = None

    def __str__(self) -> str:
        where = f"table={self.table} seed={self.seed}"
        if self.evaluation is None:
            return f"{where} (of this seed only the digest was recorded)"
        where += f" eval={self.evaluation}"
        old, new = self.expected, self.got
        if old is None or new is None:
            ends = [f"arch {s.architecture}" if s else "nothing" for s in (old, new)]
            return f"{where} {ends[0]}→{ends[1]}"
        digits = 6 if f"{old.score:.6g}" != f"{new.score:.6g}" or old.score == new.score else 17
        parts = [
            f"arch {_change(str(old.architecture), str(new.architecture))}",
            f"score {_change(f'{old.score:.{digits}g}', f'{new.score:.{digits}g}')}",
        ]
        if old.epochs != new.epochs:
            parts.append(f"epochs {old.epochs}→{new.epochs}")
        return " ".join([where, *parts])


def _change(old: str, new: str) -> str:
    return old if old == new else f"{old}→{new}"


def diverge(table: MappedTable, seed: int, recorded: Sequence[Row] | None, got: Sequence[Row]) -> Divergence:
    """Where `got` first leaves what was recorded, which is known to be another trace."""
    if recorded is None:
        return Divergence(table.name, seed)
    pairs = list(zip(recorded, got, strict=False))
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    steps = [_step(table, rows[at]) if at < len(rows) else None for rows in (recorded, got)]
    return Divergence(table.name, seed, at, steps[0], steps[1])


def _step(table: MappedTable, row: Row) -> Step:
    _, number, epochs, score = row
    space: IndexedSpace = table.space  # type: ignore[assignment]  # of a complete table
    return Step(number, space.text(space.at(number)), epochs, float.fromhex(score))


def facts_of(plan: Plan) -> dict[str, dict[str, Json]]:
    """What of every table a baseline depends on."""
    found: dict[str, dict[str, Json]] = {}
    for r in plan.runs:
        task = plan.tables[str(r.table)].task
        found[str(r.table)] = {
            "digest": r.spec["table"]["digest"],
            "pipeline": r.spec["pipeline"],
            "budget": r.spec["budget"],
            "options": r.spec["options"],
            "estimator": {k: r.spec["estimator"][k] for k in ("name", "params")},
            "metric": {"name": task.metric, "higher_is_better": task.higher_is_better},
        }
    return found
