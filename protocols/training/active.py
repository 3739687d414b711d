"""The ingredients at work on one network: batches that are changed, hooks inside the network, other targets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..task import Pipeline, Split
from .ingredients import (
    EpochNoise,
    Streams,
    augmented,
    classifier_of,
    drop_path_rate,
    paths_of,
    soft,
    targets,
)
from .policies import with_policy
from .shake import Shake, branches_of

_ON_IMAGES = ("cutout", "mixup", "cutmix", "policy")
_INSIDE = {"drop_path": paths_of, "dropout": classifier_of, "shake_shake": branches_of}
_INGREDIENTS = (*_ON_IMAGES, *_INSIDE, "label_smoothing")


def check_ingredients(pipeline: Pipeline, network: nn.Module, train: Split) -> None:
    """Refuse, before any training, a pipeline with an ingredient that could not act on these data or this network.

    Args:
        pipeline: How to train.
        network: On any device, meta included.
        train: Training examples.

    Raises:
        ValueError: One line, which names the field.
    """
    for field in _ON_IMAGES:
        if (value := getattr(pipeline, field)) and train.x.ndim != 4:
            raise ValueError(f"pipeline.{field}: {value!r} needs images; inputs have the shape {train.x.shape[1:]}")
    if pipeline.policy and train.x.shape[1] not in (1, 3):
        raise ValueError(f"pipeline.policy: {pipeline.policy!r} needs 1 or 3 channels; there are {train.x.shape[1]}")
    for field in ("label_smoothing", "mixup", "cutmix"):
        if (value := getattr(pipeline, field)) and not np.issubdtype(train.y.dtype, np.integer):
            raise ValueError(f"pipeline.{field}: {value!r} needs classes; targets are numbers")
    for field, find in _INSIDE.items():
        if getattr(pipeline, field):
            find(network)


class Active:
    """The ingredients of one training, epoch by epoch and batch by batch.

    Args:
        network: What is trained; on its device.
        pipeline: Has at least one ingredient.
        streams: Draw all random numbers.
        shape: Of the training inputs, (n, ...).
    """

    def __init__(self, network: nn.Module, pipeline: Pipeline, streams: Streams, shape: tuple[int, ...]) -> None:
        self._pipeline, self._streams, self._shape = pipeline, streams, shape
        self._paths = paths_of(network) if pipeline.drop_path else []
        self._classifier = classifier_of(network) if pipeline.dropout else None
        self._shake = Shake(network, streams.for_torch("shake-shake")) if pipeline.shake_shake else None
        self._rate = 0.0
        self._noise: EpochNoise
        self._drawn: dict[str, torch.Tensor]
        self._now = slice(0, 0)

    def hooks(self) -> list[RemovableHandle]:
        """Put to work what acts inside the network; whoever calls removes the hooks."""
        handles = [path.register_forward_hook(self._path_hook(k)) for k, path in enumerate(self._paths)]
        if self._classifier is not None:
            handles.append(self._classifier.register_forward_pre_hook(self._drop_units))
        return handles + (self._shake.hooks() if self._shake else [])

    def epoch(self, epoch: int, x: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
        """Draw for an epoch, counted from 0: the order of the examples, and the inputs after the policy, if any."""
        features = self._classifier.in_features if self._classifier is not None else 0
        noise = self._streams.epoch(self._pipeline, self._shape[0], self._shape[1:], len(self._paths), features)
        named = {"cutout": noise.cutout, "paths": noise.paths, "units": noise.units}
        self._noise = noise
        self._drawn = {k: torch.from_numpy(v).to(x.device) for k, v in named.items() if v is not None}
        self._rate = drop_path_rate(self._pipeline, epoch)
        if self._pipeline.policy:
            x = with_policy(x, self._pipeline.policy, noise.order, self._streams.integer("policy", epoch))
        return noise.order, x

    def batch(self, k: int, x: torch.Tensor) -> torch.Tensor:
        """The inputs (batch, ...) of the k-th batch of the epoch, as the network is to see them."""
        start = k * self._pipeline.batch_size
        self._now = slice(start, start + len(x))
        if self._shake:
            self._shake.draw(len(x), x.device)
        cutout = self._drawn["cutout"][self._now] if self._pipeline.cutout else None
        return augmented(x, self._pipeline, cutout=cutout, mix=_at(self._noise.mix, k), box=_at(self._noise.box, k))

    def loss(self, k: int, outputs: torch.Tensor, y: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
        """What training lowers: the cross-entropy with soft targets, or the `plain` loss where targets are hard."""
        if not soft(self._pipeline):
            return plain
        mix = _at(self._noise.mix, k)
        wanted = targets(y, outputs.shape[-1], self._pipeline, mix=mix, dtype=outputs.dtype)
        return nn.functional.cross_entropy(outputs.flatten(0, -2), wanted.flatten(0, -2))

    def _path_hook(self, k: int) -> Any:
        def drop(path: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor | None:
            if not path.training or not self._rate:
                return None
            kept = (self._drawn["paths"][k, self._now] >= self._rate).to(output.dtype) / (1 - self._rate)
            return output * kept.view(-1, *[1] * (output.ndim - 1))

        return drop

    def _drop_units(self, layer: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        if not layer.training:
            return None
        (x,) = inputs
        rate = self._pipeline.dropout
        kept = (self._drawn["units"][self._now] >= rate).to(x.dtype) / (1 - rate)
        # Of a sequence, every step keeps the same inputs.
        return (x * kept.view(len(kept), *[1] * (x.ndim - 2), -1),)


@contextmanager
def active(network: nn.Module, pipeline: Pipeline, streams: Streams, shape: tuple[int, ...]) -> Iterator[Active | None]:
    """The ingredients of a training, their hooks removed in the end; None for a pipeline without any."""
    if not any(getattr(pipeline, field) for field in _INGREDIENTS):
        yield None
        return
    found = Active(network, pipeline, streams, shape)
    handles = found.hooks()
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _at(values: np.ndarray | None, k: int) -> Any:
    return None if values is None else values[k]
