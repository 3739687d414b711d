"""Sum of training losses: the faster a training gets on, the better the architecture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...protocols import Cost, Observation, Proposal, SearchSpace, Setting, Task, Traits
from ..networks.curves import DIVERGED, CurveReader, check_count, check_epochs, check_setting, crashed

__all__ = ["SumOfTrainingLosses"]

KINDS = ("sum", "ema")


class SumOfTrainingLosses:
    """Minus the sum of the training losses over the first epochs (Ru et al. 2021, "Speedy Performance Estimation").

    No validation data are used. SoTL sums all epochs seen and SoTL-E the last E of them. SoTL-EMA is their
    exponential moving average, m <- 0.99 m + 0.01 loss, from the first loss on.

    What is recorded of a training is its metric. Of a perplexity the loss is the logarithm, and a mean squared error is
    the loss itself. Of an accuracy no loss is known, so that the training error, 1 - accuracy, stands in for it. Where
    a table records only some of the epochs, the sum is over those. Losses of different pipelines are not comparable,
    since augmentation and label smoothing change them.

    Args:
        epochs: Epochs to pay for, at least 1; by default a third of the pipeline's, rounded up.
        kind: "sum", or "ema" for SoTL-EMA.
        last: E of SoTL-E: the sum is over the last E epochs seen, or over all where there are fewer; by default
            over all.
        decay: Weight of the old value in SoTL-EMA, in [0, 1).
    """

    traits = Traits(accuracy_scale=False, deterministic=True, sign=-1)

    def __init__(
        self, epochs: int | None = None, kind: str = "sum", last: int | None = None, decay: float = 0.99
    ) -> None:
        check_epochs(epochs)
        if kind not in KINDS:
            raise ValueError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
        if last is not None:
            check_count("last", last)
        if not 0 <= decay < 1:
            raise ValueError(f"decay: {decay!r} is not in [0, 1)")
        self._epochs, self._kind, self._last, self._decay = epochs, kind, last, decay

    def fits(self, setting: Setting) -> None:
        """ValueError where the pipeline mixes examples or is too short, or where no table or trainer can serve."""
        if setting.pipeline.mixup or setting.pipeline.cutmix:
            raise ValueError(
                f"estimator: 'sotl' needs a training curve, and the pipeline {setting.pipeline.name!r} mixes examples"
            )
        check_setting(setting, self._epochs)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Nothing to pay."""
        self.fits(setting)
        self._reader, self._task = CurveReader(space, setting, self._epochs), setting.task
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One partial training, or look-up, for each proposal."""
        return [self._answer(p) for p in proposals]

    def _answer(self, p: Proposal) -> Observation:
        curve = self._reader.partial(p)
        if curve.train is None:
            return crashed(p, curve.costs, "the table has no training curve")
        loss = training_loss(self._task, curve.train)
        if not (curve.usable and np.isfinite(loss).all()):
            return crashed(p, curve.costs, DIVERGED)
        if self._kind == "ema":
            total = moving_average(loss, self._decay)
        else:
            total = float(loss[-self._last if self._last else None :].sum())
        return Observation(p, -total, curve.costs, tuple(curve.valid.tolist()))


def training_loss(task: Task, metric: np.ndarray) -> np.ndarray:
    """The loss after each epoch (k,), from the training metric (k,): see the class.

    >>> task = Task("toy", "text", "perplexity", False, (4,), 2, "")
    >>> training_loss(task, np.array([1.0, np.e]))
    array([0., 1.])
    """
    if task.metric == "perplexity":
        loss: np.ndarray = np.log(metric)
        return loss
    return 1.0 - metric if task.higher_is_better else np.asarray(metric, np.float64)


def moving_average(loss: np.ndarray, decay: float) -> float:
    """Exponential moving average of losses (k,): the weight `decay` is that of the OLD value.

    >>> moving_average(np.array([1.0, 0.0, 0.0]), 0.9)
    0.81
    """
    average = float(loss[0])
    for value in loss[1:].tolist():
        average = decay * average + (1.0 - decay) * value
    return average
