"""The plain trainer: one network at a time, correct and deterministic. Everything faster is tested against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from ..architecture import Architecture
from ..streams import integer, torch_generator
from ..task import Pipeline, Split, Weights
from .active import Active, active, check_ingredients
from .descent import batches, learning_rate, make_optimizer, split_order
from .ingredients import Streams, mixes
from .initial import materialise
from .objectives import CLASSES, Objective
from .pipelines import check_pipeline
from .shake import evaluated

__all__ = ["Progress", "batches", "fit", "fit_from_seed", "learning_rate", "make_optimizer", "materialise", "measure"]

Progress = Callable[[int, int], None]

_AT_ONCE = 1024
"""Predictions per batch of an evaluation: those of 1024 windows of text, over 10,000 words, would take 1.4 GB."""


def fit(
    network: nn.Module,
    train: Split,
    evaluate: Mapping[str, Split],
    pipeline: Pipeline,
    *,
    streams: Streams,
    objective: Objective = CLASSES,
    noise_seed: int = 0,
    epochs: int | None = None,
    recorded: Sequence[int] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Train `network` in place, and add up what the metric is made of.

    Args:
        network: With its initial weights.
        train: Training examples; what is added up on them is what the batches showed while training.
        evaluate: Splits to evaluate, by name.
        pipeline: How to train.
        streams: Draw the order of the examples and the numbers of the ingredients, epoch by epoch.
        objective: Loss and metric; classification unless it says otherwise.
        noise_seed: Seed of the noise of the network's own dropout layers.
        epochs: Stop early, along the pipeline's own schedule; None for all.
        recorded: Epochs, from 1 and ascending, after which to evaluate; None for all.
        device: A torch device.
        progress: Called with (epochs done, epochs) after each epoch.

    Returns:
        For "train" and each name in `evaluate`, one total per recorded epoch: correct predictions, int64, for classes,
        else the loss summed over predictions, float64. `objective.metric(totals, split.y.size)` is the metric. There
        is no "train" where the pipeline mixes examples.

    Raises:
        ValueError: The pipeline is not valid, or cannot act on this network or these data; one line.
    """
    check_pipeline(pipeline)
    check_ingredients(pipeline, network, train)
    epochs = pipeline.epochs if epochs is None else epochs
    shown = _recorded(recorded, epochs)
    data = {k: _tensors(s, _dtype(network), device) for k, s in {"train": train, **evaluate}.items()}
    network.to(device)
    parameters: list[torch.Tensor] = list(network.parameters())
    optimizer = make_optimizer(parameters, pipeline) if parameters else None
    totals: dict[str, list[float]] = {name: [] for name in data if name != "train" or not mixes(pipeline)}
    with _noise(noise_seed, device), active(network, pipeline, streams, train.x.shape) as ingredients:
        for epoch in range(epochs):
            if optimizer:
                optimizer.param_groups[0]["lr"] = learning_rate(pipeline, epoch)
            x, y = data["train"]
            order, x = ingredients.epoch(epoch, x) if ingredients else (streams.order(len(train)), x)
            parts = split_order(order, pipeline.batch_size)
            seen = _train_epoch(network, x, y, parts, optimizer, objective, ingredients)
            for name in totals if epoch + 1 in shown else ():
                totals[name].append(seen if name == "train" else _total(network, *data[name], objective))
            if progress:
                progress(epoch + 1, epochs)
    return {name: np.array(values) for name, values in totals.items()}


def fit_from_seed(
    network: nn.Module,
    architecture: Architecture,
    seed: int,
    train: Split,
    evaluate: Mapping[str, Split],
    pipeline: Pipeline,
    *,
    objective: Objective = CLASSES,
    init: Weights | None = None,
    epochs: int | None = None,
    recorded: Sequence[int] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """One whole training: initial weights and everything random are streams of (seed, architecture).

    Args:
        network: On the meta device.
        architecture: Keys the streams.
        seed: Training seed.
        train: See `fit`, as for the arguments that follow.
        evaluate: See `fit`.
        pipeline: See `fit`.
        objective: See `fit`.
        init: Weights to start from, instead of the stream's.
        epochs: See `fit`.
        recorded: See `fit`.
        device: See `fit`.
        progress: See `fit`.

    Returns:
        The trained network, and the totals of `fit`.
    """
    network = materialise(network, torch_generator(seed, "init", architecture))
    if init is not None:
        network.load_state_dict(dict(init))
    streams, noise = Streams(seed, architecture), integer(seed, "network-noise", architecture)
    totals = fit(
        network, train, evaluate, pipeline,
        streams=streams, objective=objective, noise_seed=noise, epochs=epochs, recorded=recorded, device=device,
        progress=progress,
    )  # fmt: skip
    return network, totals


@contextmanager
def _noise(seed: int, device: str) -> Iterator[None]:
    """Torch's global generators, which dropout layers draw from, seeded inside and put back."""
    on_gpu = device.startswith("cuda")
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield


def measure(
    network: nn.Module, split: Split, objective: Objective = CLASSES, *, pipeline: Pipeline | None = None
) -> float:
    """Metric of a trained network on a split, on the CPU.

    Args:
        network: With its weights.
        split: What to measure on.
        objective: Loss and metric.
        pipeline: How it was trained; needed after Shake-Shake alone, which is part of the network at evaluation.
    """
    with evaluated(network, pipeline):
        total = _total(network, *_tensors(split, _dtype(network), "cpu"), objective)
    return float(objective.metric(np.array(total), split.y.size))


def _recorded(recorded: Sequence[int] | None, epochs: int) -> Sequence[int]:
    if recorded is None:
        return range(1, epochs + 1)
    if not set(recorded) <= set(range(1, epochs + 1)) or sorted(set(recorded)) != list(recorded):
        raise ValueError(f"recorded: {list(recorded)} are not ascending epochs of 1 to {epochs}, each once")
    return recorded


def _train_epoch(
    network: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    parts: Sequence[np.ndarray],
    optimizer: torch.optim.Optimizer | None,
    objective: Objective,
    ingredients: Active | None,
) -> float:
    network.train()
    total = torch.zeros((), dtype=torch.int64, device=y.device)
    for k, part in enumerate(parts):
        index = torch.from_numpy(part).to(y.device)
        inputs, targets = x[index], y[index]
        outputs = network(ingredients.batch(k, inputs) if ingredients else inputs)
        loss = objective.loss(outputs, targets)
        if optimizer:
            optimizer.zero_grad(set_to_none=True)
            lowered = ingredients.loss(k, outputs, targets, loss) if ingredients else loss
            lowered.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        total = total + objective.total(outputs, targets, loss)
    return total.item()


@torch.no_grad()
def _total(network: nn.Module, x: torch.Tensor, y: torch.Tensor, objective: Objective) -> float:
    network.eval()
    size = max(1, _AT_ONCE // y[:1].numel())
    total = torch.zeros((), dtype=torch.int64, device=y.device)
    for inputs, targets in zip(torch.split(x, size), torch.split(y, size), strict=True):
        outputs = network(inputs)
        total = total + objective.total(outputs, targets, objective.loss(outputs, targets))
    return total.item()


def _dtype(network: nn.Module) -> torch.dtype:
    """Of a network's arithmetic; single precision where it holds no numbers."""
    tensors = (*network.parameters(), *network.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def _tensors(split: Split, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
    # Tokens and classes are numbers of things, and stay int64.
    x, y = (t.to(dtype) if t.is_floating_point() else t for t in (x, y))
    return x.to(device), y.to(device)
