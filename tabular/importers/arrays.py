"""What importers share: accuracies to counts, and what an import reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..format import MISSING

MOST_EXAMPLES = MISSING - 1
"""The largest number of examples whose counts of correct predictions are stored: 65535 means missing."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made.

    Attributes:
        folder: Of the table.
        coverage: "complete" or "sample".
        architectures: Number of rows.
        trainings: Number of (architecture, seed, pipeline) that end with a validation value.
        notes: What the source holds and the table does not, one line each.
    """

    folder: Path
    coverage: str
    architectures: int
    trainings: int
    notes: tuple[str, ...]

    def summary(self) -> list[str]:
        """For people, one line per finding, the folder last."""
        size = f"{self.architectures:,} architectures ({self.coverage}), {self.trainings:,} trainings"
        return [*(f"left out: {note}" for note in self.notes), size, f"table: {self.folder}"]


def to_counts(fractions: np.ndarray, total: int, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Counts of correct predictions, and where there are none.

    Args:
        fractions: Accuracies, any shape, NaN where missing.
        total: Number of examples, at most 65,534.
        tolerance: Largest distance from a count, in examples.

    Returns:
        uint16 counts of the same shape, 65535 where missing; and a mask of the values that are no counts: below 0,
        above 1 or off by more than the tolerance.
    """
    scaled = fractions * total
    nearest = np.rint(scaled)
    with np.errstate(invalid="ignore"):
        wrong = ~np.isnan(scaled) & ~((np.abs(scaled - nearest) <= tolerance) & (nearest >= 0) & (nearest <= total))
    missing = np.isnan(scaled) | wrong
    counts: np.ndarray = np.where(missing, MISSING, nearest).astype(np.uint16)
    return counts, wrong
