"""What is learned, on which data, and how: tasks, data views, training pipelines, trainers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
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
        schedule: "constant", or "cosine": annealed to the floor over the epochs, stepped once per epoch.
        epochs: Of full training.
        batch_size: The last, smaller batch of an epoch is used too.
        momentum: Of SGD.
        nesterov: Whether that momentum is Nesterov's.
        weight_decay: L2 penalty on all parameters.
        open: Names of the fields that a space's `training(a)` may override.
        restart: Epochs of the cosine's first cycle (SGDR's T_0, Loshchilov & Hutter 2017); 0 is a single cycle.
        restart_factor: Of the lengths of successive cycles (SGDR's T_mult).
        final_learning_rate: Floor of the cosine.
        clip_norm: Largest norm of the gradient of all parameters, longer ones being shortened to it (Pascanu et al.
            2013); 0 is none.
        label_smoothing: Share of the target that is spread evenly over all classes (Szegedy et al. 2016), in [0, 1).
        dropout: Rate on the inputs of the classifier, the network's last linear layer, in [0, 1).
        drop_path: ScheduledDropPath's final rate (Zoph et al. 2018), in [0, 1): see `training.ingredients`.
        cutout: Side of the square set to 0 in every training image (DeVries & Taylor 2017), pixels; 0 is none.
        mixup: alpha of the Beta(alpha, alpha) that weighs two images (Zhang et al. 2018); 0 is off.
        cutmix: alpha of the Beta(alpha, alpha) of the share kept of an image (Yun et al. 2019); 0 is off.
        policy: Augmentation policy, in the reference trainer alone: AutoAugment's for CIFAR-10 (Cubuk et al. 2019) or
            TrivialAugment (Mueller & Hutter 2021).
        shake_shake: Whether sums of two branches are Shake-Shake's (Gastaldi 2017), in the reference trainer alone.

    `training.pipelines.check_pipeline` refuses values out of range.
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
    restart: int = 0
    restart_factor: int = 1
    final_learning_rate: float = 0.0
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    dropout: float = 0.0
    drop_path: float = 0.0
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    policy: Literal["", "auto_augment", "trivial_augment"] = ""
    shake_shake: bool = False

    @property
    def digest(self) -> str:
        """sha256 of every fixed field; runs under different digests are never compared.

        Ingredients that are off are left out, so that pipelines from before an ingredient keep their digests.
        """
        fixed = {k: v for k, v in asdict(self).items() if k not in self.open and _OFF.get(k, _NEVER) != v}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


_NEVER = object()
_OFF: Mapping[str, object] = {
    f.name: f.default for f in fields(Pipeline)[[f.name for f in fields(Pipeline)].index("version") + 1 :]
}


@dataclass(frozen=True, slots=True)
class Curve:
    """What one training showed.

    Attributes:
        train: Metric on the training batches as they were seen, one value per epoch; empty where the pipeline mixes
            examples, since what it shows then has no classes of its own.
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
