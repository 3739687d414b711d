"""What evaluations cost and how much of it a run may spend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Unit = Literal["seconds", "evaluations", "epochs", "flops"]
CostKind = Literal["train", "evaluate", "supernet", "fit", "proxy", "controller", "retrain", "tuning"]

UNITS: tuple[Unit, ...] = get_args(Unit)
COST_KINDS: tuple[CostKind, ...] = get_args(CostKind)


@dataclass(frozen=True, slots=True)
class Cost:
    """One charge.

    Attributes:
        kind: The account of the ledger that it is booked on.
        amount: How much, in the unit of the study's clock; finite and >= 0.
        peak_bytes: Largest memory held while it was incurred, where that was measured.
    """

    kind: CostKind
    amount: float
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """The most a run may spend, over all kinds of cost together."""

    unit: Unit
    limit: float
