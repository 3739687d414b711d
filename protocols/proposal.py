"""What a strategy asks for and what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .architecture import Architecture
from .budget import Cost

Status = Literal["ok", "invalid", "crashed"]


@dataclass(frozen=True, slots=True, order=True)
class Fidelity:
    """How completely an architecture is trained; the default is full training.

    Attributes:
        epochs: Training epochs; infinity means all epochs of the pipeline.
        data: Fraction of the training examples, in (0, 1].
        resolution: Fraction of the input's side length, in (0, 1].
        width: Fraction of the channels, in (0, 1].
        depth: Fraction of the repeated cells, in (0, 1].

    Fidelities are ordered field by field, epochs first.
    """

    epochs: float = float("inf")
    data: float = 1.0
    resolution: float = 1.0
    width: float = 1.0
    depth: float = 1.0

    @property
    def text(self) -> str:
        """All but the epochs, as tables name it: "" at full, else for example `width=0.5;depth=0.333333`."""
        shares = {k: getattr(self, k) for k in ("data", "resolution", "width", "depth")}
        return ";".join(f"{k}={v:g}" for k, v in shares.items() if v != 1.0)


FULL = Fidelity()


@dataclass(frozen=True, slots=True)
class Proposal:
    """One evaluation that a strategy asks for.

    Attributes:
        architecture: What to evaluate.
        fidelity: How completely.
        parent: Index, among the evaluations of this run, of the one whose weights are to be inherited.
    """

    architecture: Architecture
    fidelity: Fidelity = FULL
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """The answer to a proposal.

    Attributes:
        proposal: What was asked for, unchanged.
        score: Higher is better; accuracies are fractions in [0, 1]. NaN unless `status` is "ok".
        costs: Every charge that this evaluation caused.
        curve: Validation metric after each epoch trained, if the estimator saw one.
        objectives: Further named values; the study declares their directions.
        status: "ok"; "invalid": the architecture cannot be built; "crashed": the estimator failed on it.
        reason: Why, unless `status` is "ok".
    """

    proposal: Proposal
    score: float
    costs: tuple[Cost, ...] = ()
    curve: tuple[float, ...] = ()
    objectives: Mapping[str, float] = field(default_factory=dict)
    status: Status = "ok"
    reason: str = ""
