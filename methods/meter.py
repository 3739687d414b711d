"""What the work that an estimator does itself costs, in the unit of the study."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ..protocols import Cost, CostKind, Setting

__all__ = ["Meter"]


class Meter:
    """Measures one piece of work; what is charged is one of its four measures, by `setting.unit`.

    >>> from nasbed.protocols import Setting, Task
    >>> from nasbed.protocols.training import PIPELINES
    >>> task = Task("toy", "image", "accuracy", True, (1, 8, 8), 10, "")
    >>> setting = Setting(task, "evaluations", PIPELINES["adam"], lambda a: 0)
    >>> with Meter(setting, "proxy") as work:
    ...     work.add(flops=3e6, examples=64, evaluations=1)
    >>> work.cost
    Cost(kind='proxy', amount=1.0, peak_bytes=None)

    Seconds are those of `setting.clock` between entry and exit. FLOPs are what was added, by the convention of
    `training.flops`: matrix products and convolutions, 2 per multiply-add. Epochs are the examples added, over those of
    the training data. Evaluations are what was added: 1 for each answer to a proposal, 0 for work in preparation.

    Args:
        setting: Of the run.
        kind: The account that the work is booked on.
    """

    def __init__(self, setting: Setting, kind: CostKind) -> None:
        self._setting, self._kind = setting, kind
        self._flops = self._examples = self._evaluations = 0.0
        self._seconds = 0.0

    def __enter__(self) -> Self:
        self._started = self._setting.clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seconds += self._setting.clock() - self._started

    def add(self, *, flops: float = 0.0, examples: float = 0.0, evaluations: float = 0.0) -> None:
        """Count work; examples are counted once for each pass over them that a training would count."""
        self._flops += flops
        self._examples += examples
        self._evaluations += evaluations

    @property
    def cost(self) -> Cost:
        """The charge for all work until now; a meter may be entered again, and goes on."""
        unit = self._setting.unit
        if unit == "epochs":
            amount = 0.0
            if self._examples:
                if self._setting.data is None:
                    raise ValueError("budget: epochs of an estimator's own work need the data that they are epochs of")
                amount = self._examples / len(self._setting.data.train)
        else:
            amount = {"seconds": self._seconds, "flops": self._flops, "evaluations": self._evaluations}[unit]
        return Cost(self._kind, amount)
