"""The contract of a precomputed table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .architecture import Architecture
from .budget import Unit
from .proposal import Fidelity
from .task import Pipeline, Task

if TYPE_CHECKING:
    import numpy as np

    from .space import SearchSpace


class MissingEntry(LookupError):
    """The table does not hold what was asked for. It is never replaced by a mean, a neighbour or 0."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One training as the table recorded it, up to the epoch asked for.

    Attributes:
        epochs: The recorded epochs (k,), ascending, 1-based.
        train: Training metric at these epochs (k,), or None where it was not recorded.
        valid: Validation metric at these epochs (k,).
        cost: Of all epochs up to the last of `epochs`, in the table's clock.
    """

    epochs: np.ndarray
    train: np.ndarray | None
    valid: np.ndarray
    cost: float


class Table(Protocol):
    """Read-only results of trainings. It has no test accessor, keeps no clock, and draws nothing.

    `fidelities` are, per pipeline, the fidelities below full that were trained, as `Fidelity.text` names them: all
    but the epochs, of which every recorded one can be looked up at any of them.
    """

    name: str
    digest: str
    space: SearchSpace
    task: Task
    coverage: str
    clock: Unit
    pipelines: Mapping[str, Pipeline]
    fidelities: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]

    def lookup(self, a: Architecture, *, pipeline: str, seed: int, fidelity: Fidelity) -> Entry:
        """The training of `a` under one pipeline with one training seed, up to a fidelity.

        At `fidelity.text` the table has a training of its own; of that, `fidelity.epochs` takes the first epochs.

        Raises:
            MissingEntry: No such training is recorded; the message names the field and what there is.
        """
        ...

    def median_cost(self, pipeline: str) -> float:
        """Median over architectures of a full training's cost, in the table's clock."""
        ...
