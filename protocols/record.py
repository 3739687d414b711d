"""What a run leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .architecture import Architecture
from .budget import Cost
from .proposal import Observation, Proposal
from .task import Json

SCHEMA = 1
"""Version of the record; a reader refuses newer ones and reads every older one."""

Stopped = Literal["budget", "exhausted", "stalled"]


@dataclass(frozen=True, slots=True)
class Call:
    """One turn of the run loop: `ask(asked)` gave `proposals`, and `observations` were told.

    Observations may be fewer than proposals: what would overrun the budget is neither told nor counted.
    Weight-sharing strategies have one call per epoch, without proposals; its `costs` are the epoch's.
    """

    asked: int
    proposals: tuple[Proposal, ...]
    observations: tuple[Observation, ...]
    costs: tuple[Cost, ...] = ()


@dataclass(frozen=True, slots=True)
class Incumbent:
    """A change of the best architecture.

    Attributes:
        evaluation: Index of the evaluation (or epoch of weight sharing) that brought it, from 0.
        cost: Everything charged until then, in the study's unit.
        architecture: The new incumbent.
        score: What the strategy saw, at its highest fidelity so far.
    """

    evaluation: int
    cost: float
    architecture: Architecture
    score: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A finished run.

    Attributes:
        key: sha256 of the canonical JSON of `spec`.
        spec: Everything that determines the run, as JSON.
        preparation: What `prepare` cost, charged before the first evaluation.
        calls: The whole history, in order.
        incumbents: Every change of the incumbent.
        stopped: Why the run ended.
        sealed: What `harness.seal` read after the last ask: for each incumbent its test metric (mean over
            training seeds) and features; for real training, the retrained final incumbent.
        schema: Version of this layout.
    """

    key: str
    spec: Mapping[str, Json]
    preparation: tuple[Cost, ...]
    calls: tuple[Call, ...]
    incumbents: tuple[Incumbent, ...]
    stopped: Stopped
    sealed: Mapping[str, Json]
    schema: int = SCHEMA
