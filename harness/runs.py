"""One run: from a spec, which is plain data, to a committed record."""

from __future__ import annotations

import hashlib
import inspect
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from math import isnan, nan
from pathlib import Path

from ..methods import registry
from ..protocols import (
    Architecture,
    Budget,
    Call,
    Cost,
    DataView,
    Json,
    Observation,
    PerformanceEstimator,
    Proposal,
    RunRecord,
    SearchSpace,
    SearchStrategy,
    Setting,
    Status,
    Stopped,
    Traits,
    WeightSharingStrategy,
)
from ..protocols.streams import integer
from ..tabular import MappedTable
from . import records, seal
from .events import EventLog
from .faults import DeterminismFault
from .ledger import Ledger
from .loop import Deduplicated, Replayed, Trajectory, search, search_by_sharing
from .store import RunStore


@dataclass(frozen=True, slots=True)
class Task:
    """A run for an executor: plain data.

    Attributes:
        spec: The run spec (see `docs/architecture.md`).
        store: Folder of the run store.
        table: Folder of the table, if the study has one.
        data_root: Folder of data sets, if the study trains for real.
        device: For real training.
    """

    spec: Mapping[str, Json]
    store: str
    table: str | None
    data_root: str | None = None
    device: str = "auto"


def run(task: Task) -> str:
    """Do one run, commit its record, and return its key.

    Real training is recorded call by call and goes on after an interruption; tabular runs take seconds and
    start anew.
    """
    spec, store = task.spec, RunStore(Path(task.store))
    key = records.key_of(spec)
    started, cpu = time.perf_counter(), time.process_time()
    table = _table(task.table, spec["table"]["digest"]) if task.table else None
    space = table.space if table else registry.space(spec["space"])
    setting = _setting(task, space, table)
    ledger = Ledger(Budget(spec["budget"]["unit"], spec["budget"]["limit"]))
    with _one_thread(spec):
        with nullcontext() if table else store.events(store.begin(spec)) as log:
            preparation, trajectory, stopped = _search(spec, space, setting, ledger, log)
        overhead = time.process_time() - cpu
        if table:
            sealed = seal.reveal(table, setting.pipeline.name, trajectory.incumbents)
        else:
            seeds = [integer(spec["seed"], "retrain", i) for i in range(spec["options"]["retrain"])]
            root = Path(task.data_root) if task.data_root else None
            name = spec["data"]["name"]
            sealed = seal.retrain(space, setting, trajectory.incumbents, seeds=seeds, data=name, data_root=root)
    record = RunRecord(key, spec, preparation, tuple(trajectory.calls), tuple(trajectory.incumbents), stopped, sealed)
    store.commit(record, {"wall_s": time.perf_counter() - started, "overhead_s": overhead})
    return key


def _search(
    spec: Mapping[str, Json],
    space: SearchSpace,
    setting: Setting,
    ledger: Ledger,
    log: EventLog | None,
) -> tuple[tuple[Cost, ...], Trajectory, Stopped]:
    name, seed = spec["strategy"]["name"], spec["seed"]
    strategy_class, params = registry.load("strategies", name), spec["strategy"]["params"]
    stream = integer(seed, "strategy", name)
    recorder = None if log is None else _Recorder(log, setting)
    if hasattr(strategy_class, "train_epoch"):
        sharing: WeightSharingStrategy = strategy_class(space, setting, seed=stream, **params)
        return (), *search_by_sharing(sharing, ledger, watch=recorder)
    estimator = _estimator(spec, recorder.recorded if recorder else ())
    strategy: SearchStrategy = strategy_class(space, seed=stream, **params)
    preparation = tuple(estimator.prepare(space, setting, seed=integer(seed, "estimator", spec["estimator"]["name"])))
    if not ledger.charge(preparation):
        raise ValueError(f"budget: preparing the estimator costs more than the budget of {ledger.budget.limit:g}")
    return preparation, *search(strategy, estimator, space, ledger, batch=spec["options"]["batch"], watch=recorder)


class _Recorder:
    """Writes down every call of a run in progress, and holds those of earlier attempts against it."""

    def __init__(self, log: EventLog, setting: Setting) -> None:
        self._log, self._seeds, self._done = log, setting.train_seed, 0
        self.recorded = [records.decode_call(event) for event in log.read()]

    def __call__(self, call: Call) -> None:
        event = records.encode_call(call)
        if self._done >= len(self.recorded):
            self._log.append(event)
        elif difference := records.first_difference(records.encode_call(self.recorded[self._done]), event):
            raise DeterminismFault(f"resuming: call {self._done} differs from the recorded one at {difference}")
        self._done += 1
        if isinstance(self._seeds, Redrawn):
            self._seeds.next_call()


class FunctionEstimator:
    """A user's own function (architecture, seed) -> score as an estimator.

    It costs one evaluation a call, so the budget must be in evaluations. An exception is an observation
    with status "crashed", not the end of the run.
    """

    def __init__(self, function: Callable[[Architecture, int], float]) -> None:
        self._function = function

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """ValueError where the budget is not in evaluations."""
        if setting.unit != "evaluations":
            name = getattr(self._function, "__name__", "function")
            raise ValueError(f"budget: the function {name!r} has no cost in {setting.unit}; use --budget 100evals")
        self._seed = setting.train_seed
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """Call the function once for each proposal."""
        return [self._call(p) for p in proposals]

    def _call(self, p: Proposal) -> Observation:
        score, reason = nan, "the function returned NaN"
        try:
            score = float(self._function(p.architecture, self._seed(p.architecture)))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        status: Status = "crashed" if isnan(score) else "ok"
        return Observation(p, score, (Cost("proxy", 1.0),), status=status, reason=reason if isnan(score) else "")


def _estimator(spec: Mapping[str, Json], recorded: Sequence[Call]) -> PerformanceEstimator:
    found, params = registry.load("estimators", spec["estimator"]["name"]), spec["estimator"]["params"]
    is_class = inspect.isclass(found)
    estimator: PerformanceEstimator = found(**params) if is_class else FunctionEstimator(found)
    if remembers(found):
        return estimator  # its answers to recorded calls are needed again; the recorder compares them
    if spec["options"]["dedupe"]:
        estimator = Deduplicated(estimator, recorded)
    if recorded:
        estimator = Replayed(estimator, recorded)
    return estimator


def _setting(task: Task, space: SearchSpace, table: MappedTable | None) -> Setting:
    spec = task.spec
    unit = spec["budget"]["unit"]
    draw = train_seeds(spec, _recorded(table, spec["pipeline"]["name"]) if table else None)
    if table:
        view = (
            needed_data(table, task.data_root)
            if looks_at_data(registry.load("estimators", spec["estimator"]["name"]))
            else None
        )
        return Setting(table.task, unit, table.pipelines[spec["pipeline"]["name"]], draw, data=view, table=table)
    from ..protocols.training import PIPELINES, ReferenceTrainer, load

    view = load(spec["data"]["name"], Path(task.data_root) if task.data_root else None)
    if view.task.digest != spec["data"]["digest"]:
        raise ValueError(f"data: {spec['data']['name']!r} is not what it was when the study was planned")
    trainer = ReferenceTrainer(space, device=task.device)
    return Setting(view.task, unit, PIPELINES[spec["pipeline"]["name"]], draw, data=view, trainer=trainer)


def traits_of(estimator: object) -> Traits | None:
    """What an estimator's class declares of its scores, if it does."""
    traits = getattr(estimator, "traits", None)
    return traits if isinstance(traits, Traits) else None


def looks_at_data(estimator: object) -> bool:
    """Whether an estimator needs examples beside a table."""
    traits = traits_of(estimator)
    return traits is not None and traits.needs_data


def remembers(estimator: object) -> bool:
    """Whether an estimator's answers depend on earlier proposals of the run."""
    traits = traits_of(estimator)
    return traits is not None and traits.remembers


def needed_data(table: MappedTable, root: str | Path | None) -> DataView:
    """The training and validation data that a table was made from.

    Raises:
        ValueError: There are no such data here, or they are others.
    """
    from ..protocols.training import load

    view = load(table.task.name, Path(root) if root else None)
    if view.task.digest != table.task.digest:
        raise ValueError(f"data: {table.task.name!r} is not what the table {table.name!r} was made from")
    return view


Recorded = Callable[[Architecture], tuple[int, ...]]


def _recorded(table: MappedTable, pipeline: str) -> tuple[int, ...] | Recorded:
    """The training seeds to draw from: those of the table, or where some are missing those of each architecture."""
    reached = table.present(pipeline)
    if not reached.all():
        reached = reached[table.members()]
    return table.seeds if reached.all() else lambda a: table.recorded_seeds(a, pipeline)


def train_seeds(spec: Mapping[str, Json], seeds: tuple[int, ...] | Recorded | None) -> Callable[[Architecture], int]:
    """The stream `train-seed`: keyed by (root seed, table or data, architecture), never by strategy.

    With the option `redraw` every query draws anew, as the authors of NAS-Bench-201 did.

    Args:
        spec: The run spec.
        seeds: The seeds to draw from, the same for all architectures or by architecture; None for any integer. An
            architecture that has none gets any integer: its look-up says what is missing.
    """
    world = (spec["table"] or spec["data"] or {"digest": ""})["digest"]
    # A keyed hash: this is drawn at every look-up, and seeding a generator costs ten times as much.
    base = hashlib.blake2b(f"train-seed/{spec['seed']}/{world}/".encode(), digest_size=8)

    own, common = (seeds, None) if callable(seeds) else (None, seeds)

    def draw(key: object, a: Architecture) -> int:
        h = base.copy()
        h.update(repr(key).encode())
        word = int.from_bytes(h.digest(), "little")
        allowed = common if own is None else own(a)
        return allowed[word % len(allowed)] if allowed else word >> 1

    return Redrawn(draw) if spec["options"]["redraw"] else lambda a: draw(a.genes, a)


class Redrawn:
    """A training seed of its own for every query, by the number of the call and of the query within the call.

    A resumed run makes no query for a recorded call, and goes on with the same seeds all the same.
    """

    def __init__(self, draw: Callable[[object, Architecture], int]) -> None:
        self._draw, self._call, self._query = draw, 0, 0

    def __call__(self, a: Architecture) -> int:
        """The seed of the next query; the architecture decides only which seeds there are."""
        self._query += 1
        return self._draw((self._call, self._query), a)

    def next_call(self) -> None:
        """A call is recorded."""
        self._call, self._query = self._call + 1, 0


@lru_cache(maxsize=8)
def _table(folder: str, digest: str) -> MappedTable:
    table = MappedTable(Path(folder))
    if table.digest != digest:
        raise ValueError(f"table: {folder} is no longer the table that was planned; start the study again")
    return table


@contextmanager
def _one_thread(spec: Mapping[str, Json]) -> Iterator[None]:
    """Torch's results depend on its number of threads, so runs that use torch use one."""
    torch_used = "torch" in spec["strategy"]["libraries"] or "torch" in spec["estimator"]["libraries"]
    if not torch_used and sys.modules.get("torch") is None:
        yield
        return
    from ..protocols.training import one_thread

    with one_thread():
        yield
