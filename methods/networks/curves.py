"""Beginnings of learning curves: where they come from, what they cost, and runs to learn from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, nan

import numpy as np

from ...protocols import (
    FULL,
    Architecture,
    Cost,
    Entry,
    Fidelity,
    MissingEntry,
    Observation,
    Proposal,
    SearchSpace,
    Setting,
    Table,
)
from ...protocols.streams import generator
from ..estimators.table import recorded_cost
from ..lowered import source_of

DIVERGED = "training diverged"
_TRIES = 1000


@dataclass(frozen=True, slots=True)
class PartialCurve:
    """The first epochs of one training, and what they cost.

    Attributes:
        epochs: Epochs at which the metrics are known (k,), ascending, 1-based.
        train: Training metric there (k,); None where it was not recorded or means nothing.
        valid: Validation metric there (k,).
        costs: Charge for all epochs up to the last of `epochs`.
        last: The epoch at which the pipeline ends for this architecture.
    """

    epochs: np.ndarray
    train: np.ndarray | None
    valid: np.ndarray
    costs: tuple[Cost, ...]
    last: int

    @property
    def usable(self) -> bool:
        """Whether the training is still alive at its last epoch here and was so before."""
        return bool(np.isfinite(self.valid).all())


class CurveReader:
    """Beginnings of trainings, from the table of a setting, or from its trainer where there is no table.

    It charges what `TableLookup` and `FullTraining` charge for the same epochs.

    Args:
        space: Of the architectures.
        setting: Of the run.
        epochs: How many epochs to pay for; by default a third of the pipeline's, rounded up.
        points: How many epochs must be known at least. A table that records only some of the epochs is read up to
            the first recorded one from which on both numbers are reached.
    """

    def __init__(self, space: SearchSpace, setting: Setting, epochs: int | None = None, points: int = 1) -> None:
        self._space, self._setting, self._points = space, setting, points
        self._epochs = epochs if epochs is not None else max(-(-setting.pipeline.epochs // 3), points)

    def partial(self, p: Proposal) -> PartialCurve:
        """What a proposal's training shows at first; one that asks for fewer epochs is given no more than those.

        Raises:
            MissingEntry: The table has no such training.
        """
        if p.fidelity.epochs < self._epochs:
            return self._read(p.architecture, p.fidelity, 1)
        return self._read(p.architecture, replace(p.fidelity, epochs=self._epochs), self._points)

    def full(self, a: Architecture) -> PartialCurve:
        """The whole training of an architecture."""
        return self._read(a, FULL, 1)

    def last(self, a: Architecture) -> int:
        """The epoch at which the training of an architecture ends, where that is a gene of it."""
        return int(self._space.training(a).get("epochs", self._setting.pipeline.epochs))

    def examples(self, n: int, seed: int, name: str) -> tuple[dict[Architecture, PartialCurve], tuple[Cost, ...]]:
        """Whole trainings of `n` different architectures, drawn uniformly, and the charges for all of them.

        Draws that a table does not hold are drawn again. Runs that diverged are paid for and left out.

        Args:
            n: How many.
            seed: Of the run.
            name: Of the random stream, by the name of the estimator.

        Raises:
            ValueError: There are not that many; one line.
        """
        rng = generator(seed, name, "architectures")
        found: dict[Architecture, PartialCurve] = {}
        for _ in range(_TRIES * n):
            if len(found) == n:
                break
            a = self._space.sample(rng)
            if a in found:
                continue
            try:
                found[a] = self.full(a)
            except MissingEntry as error:
                missing = error
        if len(found) < n:
            reason = f" ({missing})" if not found else ""
            raise ValueError(f"n_train: {n} is more than the {len(found)} trainings that were found{reason}")
        costs = tuple(cost for curve in found.values() for cost in curve.costs)
        return {a: curve for a, curve in found.items() if curve.usable}, costs

    def _read(self, a: Architecture, fidelity: Fidelity, points: int) -> PartialCurve:
        if (table := self._setting.table) is not None:
            return self._recorded(table, a, fidelity, points)
        setting = self._setting
        assert setting.trainer is not None
        costs = setting.trainer.cost(a, setting, fidelity)
        curve, _ = setting.trainer.train(a, setting, seed=setting.train_seed(a), fidelity=fidelity)
        train = np.array(curve.train) if curve.train else None
        return PartialCurve(np.arange(1, len(curve.valid) + 1), train, np.array(curve.valid), costs, self.last(a))

    def _recorded(self, table: Table, a: Architecture, fidelity: Fidelity, points: int) -> PartialCurve:
        setting = self._setting
        seed = setting.train_seed(a)

        def look_up(epochs: float) -> Entry:
            return table.lookup(a, pipeline=setting.pipeline.name, seed=seed, fidelity=replace(fidelity, epochs=epochs))

        entry = look_up(inf)
        if fidelity.epochs < entry.epochs[-1]:
            # Only the axis of the whole entry is looked at, never its later values.
            place = max(int(np.searchsorted(entry.epochs, fidelity.epochs)), points - 1)
            entry = look_up(int(entry.epochs[min(place, len(entry.epochs) - 1)]))
        train = None if entry.train is None or setting.pipeline.mixup or setting.pipeline.cutmix else entry.train
        return PartialCurve(
            entry.epochs, train, entry.valid, (recorded_cost(entry, fidelity, setting.unit),), self.last(a)
        )


def check_epochs(epochs: int | None, least: int = 1) -> None:
    """ValueError, one line, unless `epochs` is None or an integer of at least `least`."""
    if epochs is not None and (not isinstance(epochs, int) or epochs < least):
        raise ValueError(f"epochs: {epochs!r} is not an integer of at least {least}")


def check_count(field: str, value: int, least: int = 1) -> None:
    """ValueError, one line, unless `value` is an integer of at least `least`."""
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{field}: {value!r} is not an integer of at least {least}")


def check_setting(setting: Setting, epochs: int | None, least: int = 1) -> None:
    """ValueError, one line, where curves cannot be had, or the pipeline is too short.

    Args:
        setting: Of the run.
        epochs: The parameter of the estimator.
        least: Epochs that the method needs.
    """
    pipeline = setting.pipeline
    if (wanted := epochs or least) > pipeline.epochs:
        raise ValueError(f"epochs: {wanted} is more than the {pipeline.epochs} of the pipeline {pipeline.name!r}")
    source_of(setting).fits(setting)


def orientation(setting: Setting) -> float:
    """1 where the task's metric is better when higher, else -1."""
    return 1.0 if setting.task.higher_is_better else -1.0


def crashed(p: Proposal, costs: tuple[Cost, ...], reason: str) -> Observation:
    """The answer to a proposal for which the method has none."""
    return Observation(p, nan, costs, status="crashed", reason=reason)
