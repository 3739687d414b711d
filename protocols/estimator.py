"""The contract of a performance estimator."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .architecture import Architecture
from .budget import Cost, Unit
from .proposal import Observation, Proposal
from .task import DataView, Pipeline, Task, Trainer

if TYPE_CHECKING:
    from .space import SearchSpace
    from .table import Table


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything of the outside world that a method may see. No test value is reachable from it.

    Attributes:
        task: The learning problem.
        unit: Of the study's clock; every `Cost.amount` is in it.
        pipeline: The fixed way of training.
        train_seed: The training seed that the harness drew for an architecture: the same for every
            strategy of a study (common random numbers) and for every fidelity of a run.
        data: Training and validation data, where the study has them.
        table: The table, where the study has one.
        trainer: Trains for real, where the study has data.
        clock: Seconds, by which an estimator measures its own work.
    """

    task: Task
    unit: Unit
    pipeline: Pipeline
    train_seed: Callable[[Architecture], int]
    data: DataView | None = None
    table: Table | None = None
    trainer: Trainer | None = None
    clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True, slots=True)
class Traits:
    """What the scores of an estimator are; all are oriented, so that higher is better.

    Attributes:
        accuracy_scale: Whether a score estimates the validation metric itself, so that its bias has a meaning.
        deterministic: Whether the score of an architecture depends on no seed but that of a recorded training.
        needs_data: Whether it looks at examples of its own accord, beside a table that may serve the study.
        remembers: Whether an answer depends on earlier proposals of the run, as inherited weights do: a resumed run
            asks it again, and repeated evaluations are never free.
        sign: -1 where the published definition is lower for better architectures, the score being its negative.
    """

    accuracy_scale: bool
    deterministic: bool
    needs_data: bool = False
    remembers: bool = False
    sign: int = 1


@runtime_checkable
class PerformanceEstimator(Protocol):
    """Turns proposals into observations and says what each cost.

    Built as `cls(**params)`; then `prepare` once per run; then `estimate` as often as the loop needs.

    The class declares what its scores are as an attribute `traits`, a `Traits`.

    It may also have `fits(setting)`, which raises ValueError, at no cost, where it cannot work: the harness
    calls it when a study is planned, so that a misfit is one line then and not a failure of every run.
    """

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Get ready (train a supernet, fit a predictor) and return what that cost, all of it."""
        ...

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One observation for each proposal, in order; a failure is a status, never a number."""
        ...
