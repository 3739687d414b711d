"""Many networks at once, each with its own weights, seed, order of examples and augmentation.

Each ends as if it had been trained alone by `reference.fit_from_seed` (tests: float64 whole runs to 1e-9). How the
networks are laid out in memory is a `Stack`'s own affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from ..architecture import Architecture
from ..streams import integer, torch_generator
from ..task import Pipeline, Split
from .active import check_ingredients
from .descent import learning_rate, make_optimizer
from .ingredients import Streams, augmented, classifier_of, drop_path_rate, mixes, paths_of, soft, targets
from .initial import materialise
from .objectives import CLASSES, Objective
from .pipelines import check_pipeline
from .stacked_layers import CONVOLUTIONS, Convolution

_AT_ONCE = 1024
"""Predictions per batch of an evaluation, of all networks together, if that is more than a batch of training."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Random factors of a batch of K networks; None when they are off.

    Attributes:
        paths: (K, P, batch): the output of path p is multiplied by it, 0 where the path is dropped. P is the largest
            number of paths; rows beyond a network's own mean nothing.
        units: (K, batch, features): inputs of the classifier are multiplied by it.
    """

    paths: torch.Tensor | None = None
    units: torch.Tensor | None = None


class Stack(Protocol):
    """K networks that compute together.

    A stack that can train with `Pipeline.clip_norm` also has `clip(largest)`: each network's own gradient is shortened.

    Attributes:
        parameters: What the optimizer steps over, element by element; `gradients` fills their `.grad`.
    """

    parameters: Sequence[torch.Tensor]

    def gradients(self, x: torch.Tensor, y: torch.Tensor, noise: Batch, objective: Objective) -> torch.Tensor:
        """Fill `.grad` with each network's own gradient of its own mean loss over a batch, in training mode.

        Args:
            x: (K, batch, *shape), of the networks' dtype, or int64 tokens.
            y: (K, batch, ...), or distributions over classes (K, batch, ..., classes).
            noise: Of this batch.
            objective: Loss and metric.

        Returns:
            (K,): what the metric adds up, of each network; for distributions, on their most probable classes.
        """
        ...

    def totals(self, x: torch.Tensor, y: torch.Tensor, objective: Objective) -> torch.Tensor:
        """What the metric adds up over one batch for all, x (batch, *shape), in evaluation mode: (K,)."""
        ...

    def state(self, k: int) -> dict[str, torch.Tensor]:
        """Copy of the k-th network's state, names and shapes as in its own `state_dict`."""
        ...


def stack_of(
    networks: Sequence[nn.Module],
    noise_seeds: Sequence[int],
    pipeline: Pipeline,
    *,
    dtype: torch.dtype = torch.float32,
    convolution: Convolution = "rule",
) -> Stack:
    """The stack for networks: their own class's, that of perceptrons (both on the CPU), or one that traces them.

    Args:
        networks: With their initial weights, on the device to compute on. A class may have a class method
            `stacked(networks, noise_seeds, dtype) -> Stack`.
        noise_seeds: Of each network's own dropout.
        pipeline: Says whether paths and inputs of the classifier are dropped.
        dtype: Of the arithmetic.
        convolution: See `stacked_layers`.

    Raises:
        ValueError: The networks cannot be stacked; one line.
    """
    on_cpu = all(p.device.type == "cpu" for p in networks[0].parameters())
    own = getattr(type(networks[0]), "stacked", None)
    if own is not None:
        if not on_cpu:
            raise ValueError(f"device: stacks of {type(networks[0]).__name__} compute on the CPU only; allowed: cpu")
        made: Stack = own(networks, noise_seeds, dtype)
        return made
    if on_cpu and all(isinstance(m, _PERCEPTRON) for m in networks[0].modules()):
        from .perceptrons import Perceptrons

        return Perceptrons(networks, noise_seeds, dtype)
    from .cuda import captured
    from .lockstep import Lockstep

    return captured(Lockstep(networks, pipeline, convolution))


def fit_stacked(
    networks: Mapping[tuple[Architecture, int], nn.Module],
    train: Split,
    evaluate: Mapping[str, Split],
    pipeline: Pipeline,
    *,
    objective: Objective = CLASSES,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    recorded: Sequence[int] | None = None,
    convolution: Convolution = "rule",
) -> tuple[dict[str, np.ndarray], list[dict[str, torch.Tensor]]]:
    """Train K networks side by side, all random numbers from the same streams as `reference.fit_from_seed`.

    Args:
        networks: On the meta device, by (architecture, training seed).
        train: Training examples.
        evaluate: Splits to evaluate, by name.
        pipeline: How to train, all networks alike; without `policy` and `shake_shake`.
        objective: Loss and metric.
        dtype: Of all arithmetic.
        device: A torch device. On CUDA the arithmetic is deterministic (see `cuda`); not tested there.
        recorded: Epochs, from 1 and ascending, after which to evaluate; None for all.
        convolution: How convolutions are computed; see `stacked_layers`.

    Returns:
        Totals (K, recorded epochs), in the order of `networks`, for "train" and each name in `evaluate`: correct
        predictions, int64, or summed losses, float64; no "train" where the pipeline mixes examples. And the final
        state of each network, as `state_dict` on the CPU.

    Raises:
        ValueError: The networks cannot be stacked, or the pipeline cannot act on them; one line.
    """
    from .cuda import deterministic

    _check(pipeline, networks, train, convolution)
    shown = _shown(recorded, pipeline.epochs)
    with deterministic(device):
        made = [materialise(n, torch_generator(s, "init", a), dtype=dtype) for (a, s), n in networks.items()]
        seeds = [integer(s, "network-noise", a) for a, s in networks]
        examples = _Examples(made, networks, train, pipeline, dtype, device)
        stack = stack_of([n.to(device) for n in made], seeds, pipeline, dtype=dtype, convolution=convolution)
        if pipeline.clip_norm and not hasattr(stack, "clip"):
            raise ValueError(f"pipeline.clip_norm: {pipeline.clip_norm}; these networks side by side allow 0 only")
        totals = _fit(stack, examples, {k: _tensors(v, dtype, device) for k, v in evaluate.items()}, objective, shown)
        states = [{name: t.cpu() for name, t in stack.state(k).items()} for k in range(len(made))]
    return {name: _columns(rows, len(made)) for name, rows in totals.items()}, states


def losses_and_totals(
    outputs: torch.Tensor, y: torch.Tensor, objective: Objective
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss and what the metric adds up of each network, both (K,).

    Args:
        outputs: (K, batch, ..., outputs).
        y: (K, batch, ...), or distributions over classes of the shape of `outputs`.
        objective: Loss and metric.
    """
    soft_targets = y.shape == outputs.shape and y.is_floating_point()
    hard = y.argmax(-1) if soft_targets else y
    losses = torch.vmap(objective.loss)(outputs, hard)
    totals = torch.vmap(objective.total)(outputs.detach(), hard, losses.detach())
    if soft_targets:
        losses = -(y * outputs.log_softmax(-1)).sum(-1).flatten(1).mean(1)
    return losses, totals


class _Examples:
    """The batches of all networks, epoch by epoch.

    Args:
        networks: On any device.
        keys: Architecture and training seed of each.
        train: Training examples.
        pipeline: How to train.
        dtype: Of the inputs.
        device: Of the batches.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        keys: Mapping[tuple[Architecture, int], object],
        train: Split,
        pipeline: Pipeline,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        self._x, self._y = _tensors(train, dtype, device)
        self.pipeline, self.networks, self._dtype, self._device = pipeline, len(networks), dtype, device
        self._streams = [Streams(seed, a) for a, seed in keys]
        self._paths = [len(paths_of(n)) if pipeline.drop_path else 0 for n in networks]
        classifier = classifier_of(networks[0]) if pipeline.dropout or soft(pipeline) else None
        self._features, self._classes = (classifier.in_features, classifier.out_features) if classifier else (0, 0)

    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, Batch]]:
        """Inputs (K, batch, *shape), targets and noise of every batch of the next epoch, which is number `epoch`."""
        p, n = self.pipeline, len(self._y)
        noise = self._draw(n, drop_path_rate(p, epoch))
        for i, start in enumerate(range(0, n, p.batch_size)):
            now = slice(start, start + p.batch_size)
            index = noise["order"][:, now]
            cutout = noise["cutout"][:, now] if p.cutout else None
            mix = noise["mix"][:, i] if mixes(p) else None
            x = augmented(self._x[index], p, cutout=cutout, mix=mix, box=noise["box"][:, i] if p.cutmix else None)
            y = self._y[index]
            if soft(p):
                y = targets(y, self._classes, p, mix=mix, dtype=self._dtype)
            paths = self._factors(noise["paths"][..., now], drop_path_rate(p, epoch)) if p.drop_path else None
            units = self._factors(noise["units"][:, now], p.dropout) if p.dropout else None
            yield x, y, Batch(paths, units)

    def _factors(self, kept: torch.Tensor, rate: float) -> torch.Tensor:
        return kept.to(self._dtype) / (1 - rate)

    def _draw(self, n: int, rate: float) -> dict[str, torch.Tensor]:
        """The random numbers of an epoch of all networks, (K, ...), on the device."""
        p, most = self.pipeline, max(self._paths)
        found: dict[str, list[np.ndarray]] = {}
        for streams, paths in zip(self._streams, self._paths, strict=True):
            drawn = streams.epoch(p, n, tuple(self._x.shape[1:]), paths, self._features)
            kept = None
            if drawn.paths is not None:
                kept = np.ones((most, n), bool)
                kept[:paths] = drawn.paths >= rate
            units = None if drawn.units is None else drawn.units >= p.dropout
            values = (drawn.order, drawn.cutout, drawn.mix, drawn.box, kept, units)
            for name, value in zip(("order", "cutout", "mix", "box", "paths", "units"), values, strict=True):
                if value is not None:
                    found.setdefault(name, []).append(value)
        return {name: torch.from_numpy(np.stack(rows)).to(self._device) for name, rows in found.items()}


def _fit(
    stack: Stack,
    examples: _Examples,
    data: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    objective: Objective,
    shown: Sequence[int],
) -> dict[str, list[torch.Tensor]]:
    """Totals (K,) of every split for each epoch that is shown."""
    pipeline = examples.pipeline
    optimizer = make_optimizer(list(stack.parameters), pipeline, getattr(stack, "clip", None))
    totals: dict[str, list[torch.Tensor]] = {name: [] for name in (*(() if mixes(pipeline) else ("train",)), *data)}
    for epoch in range(pipeline.epochs):
        optimizer.param_groups[0]["lr"] = learning_rate(pipeline, epoch)
        seen = _train_epoch(stack, examples.batches(epoch), optimizer, objective)
        for name in totals if epoch + 1 in shown else ():
            totals[name].append(seen if name == "train" else _totals(stack, *data[name], objective, examples))
    return totals


def _train_epoch(
    stack: Stack,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor, Batch]],
    optimizer: torch.optim.Optimizer,
    objective: Objective,
) -> torch.Tensor:
    totals = []
    for x, y, noise in batches:
        totals.append(stack.gradients(x, y, noise, objective))
        optimizer.step()
    return torch.stack(totals).sum(0)


def _columns(rows: Sequence[torch.Tensor], k: int) -> np.ndarray:
    found: np.ndarray = torch.stack(list(rows), 1).cpu().numpy() if rows else np.zeros((k, 0))
    return found


def _totals(stack: Stack, x: torch.Tensor, y: torch.Tensor, objective: Objective, examples: _Examples) -> torch.Tensor:
    size = max(examples.pipeline.batch_size, _AT_ONCE // examples.networks // y[:1].numel())
    parts = zip(torch.split(x, size), torch.split(y, size), strict=True)
    return torch.stack([stack.totals(inputs, wanted, objective) for inputs, wanted in parts]).sum(0)


def _tensors(split: Split, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
    # Tokens and classes are numbers of things, and stay int64.
    x, y = (t.to(dtype) if t.is_floating_point() else t for t in (x, y))
    return x.to(device), y.to(device)


def _shown(recorded: Sequence[int] | None, epochs: int) -> Sequence[int]:
    if recorded is None:
        return range(1, epochs + 1)
    if not set(recorded) <= set(range(1, epochs + 1)) or sorted(set(recorded)) != list(recorded):
        raise ValueError(f"recorded: {list(recorded)} are not ascending epochs of 1 to {epochs}, each once")
    return recorded


def _check(
    pipeline: Pipeline,
    networks: Mapping[tuple[Architecture, int], nn.Module],
    train: Split,
    convolution: Convolution,
) -> None:
    check_pipeline(pipeline)
    for field in ("policy", "shake_shake"):
        if value := getattr(pipeline, field):
            raise ValueError(f"pipeline.{field}: {value!r}; networks side by side allow {type(value)()!r} only")
    if not networks:
        raise ValueError("networks: there are none; a stack has at least one")
    if convolution not in CONVOLUTIONS:
        raise ValueError(f"convolution: {convolution!r} is not one of {', '.join(CONVOLUTIONS)}")
    for network in networks.values():
        check_ingredients(pipeline, network, train)


_PERCEPTRON = (nn.Sequential, nn.Flatten, nn.Linear, nn.Dropout, nn.Sigmoid, nn.Tanh, nn.ReLU, nn.ELU)
