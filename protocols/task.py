"""What is learned, on which data, and how: tasks, data views, training pipelines, trainers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .architecture import Architecture
from .budget import Cost
from .proposal import Fidelity

if TYPE_CHECKING:
    import numpy as np
    import torch

    from .estimator import Setting

Weights = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Task:
    """A learning problem.

    Attributes:
        name: Of the data set, for example `digits`.
        kind: What it is about; `training.objectives` says what each kind lowers and measures.
        metric: What is measured, for example `accuracy`.
        higher_is_better: Direction of the metric.
        shape: Of one input, without the batch axis: (channels, height, width) for images, (length,) for text.
        classes: Number of classes, for text of tokens in the vocabulary; None for regression.
        digest: sha256 over the bytes of every split, so that two data sets of one name differ visibly.
    """

    name: str
    kind: Literal["image", "tabular", "regression", "text"]
    metric: str
    higher_is_better: bool
    shape: tuple[int, ...]
    classes: int | None
    digest: str


@dataclass(frozen=True, slots=True)
class Split:
    """Inputs x of shape (n, *task.shape) and targets y.

    For classes x is float32 and y int64 (n,); for regression both are float32, y (n,); for text both are int64
    (n, length), and y holds the token that follows each token of x.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True)
class DataView:
    """The part of a data set that methods may see. Test data is not reachable from here."""

    task: Task
    train: Split
    valid: Split


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A fixed way of training: every number that the result depends on, except the seed.

    Attributes:
        name: Short name, `adam`.
        version: Raised when the meaning of a field changes.
        optimizer: "adam" or "sgd"; "unstated" for foreign tables, which nobody can train again.
        learning_rate: At the start.
        schedule: "constant", or "cosine": annealed to 0 over the epochs, stepped once per epoch.
        epochs: Of full training.
        batch_size: The last, smaller batch of an epoch is used too.
        momentum: Of SGD.
        nesterov: Whether that momentum is Nesterov's.
        weight_decay: L2 penalty on all parameters.
        open: Names of the fields that a space's `training(a)` may override.
    """

    name: str
    optimizer: Literal["adam", "sgd", "unstated"]
    learning_rate: float
    epochs: int
    batch_size: int
    schedule: Literal["constant", "cosine"] = "constant"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    open: tuple[str, ...] = ()
    version: int = 1

    @property
    def digest(self) -> str:
        """sha256 of every fixed field; runs under different digests are never compared."""
        fixed = {k: v for k, v in asdict(self).items() if k not in self.open}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Curve:
    """What one training showed.

    Attributes:
        train: Metric on the training batches as they were seen, one value per epoch.
        valid: Metric on the validation split after each epoch.
        flops: Floating-point operations of all epochs, counted exactly (see `training.flops`).
        seconds: Wall-clock time, where measured; never part of a digest.
    """

    train: tuple[float, ...]
    valid: tuple[float, ...]
    flops: float
    seconds: float | None = None


class Trainer(Protocol):
    """Trains one architecture for real. Weights are held by estimators and never reach a strategy."""

    def train(
        self,
        architecture: Architecture,
        setting: Setting,
        *,
        seed: int,
        fidelity: Fidelity,
        init: Weights | None = None,
    ) -> tuple[Curve, Weights]:
        """Train under `setting.pipeline`; same arguments, same bits on one machine."""
        ...

    def cost(self, architecture: Architecture, setting: Setting, fidelity: Fidelity) -> tuple[Cost, ...]:
        """What that training costs in `setting.unit`, known before it starts unless the unit is seconds."""
        ...


Json = Any
