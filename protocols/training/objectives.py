"""What training lowers and what is measured, by kind of task.

| task | loss | metric |
|---|---|---|
| classes (`image`, `tabular`) | cross-entropy | `accuracy`, the share of correct predictions |
| `text` | cross-entropy of the next token | `perplexity`, exp(mean loss over all tokens); lower is better |
| `regression` | squared error | `mse`, its mean; lower is better |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..task import DataView, Task

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss and the metric of one kind of task.

    A prediction is one of a class, of a token, or of a number: a split holds `y.size` of them.

    Attributes:
        loss: (outputs, targets) to the mean loss over the predictions of a batch.
        total: (outputs, targets, that loss) to what the metric adds up: correct predictions, or summed loss.
        metric: (totals, number of predictions) to metrics, elementwise.
    """

    loss: Loss
    total: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    metric: Callable[[np.ndarray, int], np.ndarray]


def objective_of(task: Task) -> Objective:
    """The objective of a task's kind."""
    return _OBJECTIVES[task.kind]


def constant_prediction(view: DataView) -> float:
    """Metric on the validation split of the best prediction that looks at no input: what a network must beat.

    It is the most frequent training class; the mean of the training targets; or, for text, the frequencies of
    the tokens in the training part, each count raised by one (Laplace) since some tokens do not occur there.
    """
    train, valid = view.train.y, view.valid.y
    if view.task.kind == "regression":
        return float(np.square(valid - train.mean(dtype=np.float64)).mean())
    assert view.task.classes is not None
    counts = np.bincount(train.ravel(), minlength=view.task.classes)
    if view.task.kind == "text":
        log_frequency = np.log((counts + 1) / (counts.sum() + len(counts)))
        return float(np.exp(-log_frequency[valid].mean()))
    return float((valid == counts.argmax()).mean())


def _cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def _squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    # A network for numbers has one output, (n, 1). As (n,), nothing is broadcast to (n, n).
    return nn.functional.mse_loss(outputs.reshape(targets.shape), targets)


def _correct(outputs: torch.Tensor, targets: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(-1) == targets).sum()


def _summed(outputs: torch.Tensor, targets: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    return loss.detach().double() * targets.numel()


def _mean(totals: np.ndarray, n: int) -> np.ndarray:
    return totals / n


def _perplexity(totals: np.ndarray, n: int) -> np.ndarray:
    with np.errstate(over="ignore"):  # of a training that diverged: infinite
        perplexity: np.ndarray = np.exp(totals / n)
    return perplexity


CLASSES = Objective(_cross_entropy, _correct, _mean)
TEXT = Objective(_cross_entropy, _summed, _perplexity)
REGRESSION = Objective(_squared_error, _summed, _mean)
_OBJECTIVES: Mapping[str, Objective] = {
    "image": CLASSES,
    "tabular": CLASSES,
    "regression": REGRESSION,
    "text": TEXT,
}
