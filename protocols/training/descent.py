"""Gradient descent as pipelines state it: optimizers, learning rates, batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import cos, pi
from typing import Any

import numpy as np
import torch

from ..task import Pipeline


def make_optimizer(
    parameters: list[torch.Tensor], pipeline: Pipeline, clip: Callable[[float], object] | None = None
) -> torch.optim.Optimizer:
    """The pipeline's optimizer, which shortens gradients that are too long before each of its steps.

    Args:
        parameters: To step over.
        pipeline: How.
        clip: Shortens gradients to a largest norm, where `parameters` are not those of a single network.
    """
    options: dict[str, Any] = {"lr": pipeline.learning_rate, "weight_decay": pipeline.weight_decay, "fused": True}
    optimizer: torch.optim.Optimizer
    if pipeline.optimizer == "adam":
        optimizer = torch.optim.Adam(parameters, **options)
    else:
        optimizer = torch.optim.SGD(parameters, **options, momentum=pipeline.momentum, nesterov=pipeline.nesterov)
    if largest := pipeline.clip_norm:
        shorten = clip or partial(torch.nn.utils.clip_grad_norm_, parameters)

        def before(*_: object) -> None:
            shorten(largest)

        optimizer.register_step_pre_hook(before)
    return optimizer


def learning_rate(pipeline: Pipeline, epoch: int) -> float:
    """Learning rate of an epoch, from 0; cosine annealing, with restarts if any (Loshchilov & Hutter 2017, eq. 5).

    With restarts, cycle i has T_0 * T_mult^i epochs, T_0 = `restart` and T_mult = `restart_factor`, and begins at the
    full rate. The rate changes once per epoch, not per step.
    """
    if pipeline.schedule == "constant":
        return pipeline.learning_rate
    since, length = epoch, pipeline.restart or pipeline.epochs
    while pipeline.restart and since >= length:
        since -= length
        length *= pipeline.restart_factor
    low = pipeline.final_learning_rate
    return low + (pipeline.learning_rate - low) / 2 * (1 + cos(pi * since / length))


def batches(order: np.random.Generator, n: int, size: int) -> list[np.ndarray]:
    """One epoch of batches of example indices; the last one may be smaller."""
    return split_order(order.permutation(n), size)


def split_order(order: np.ndarray, size: int) -> list[np.ndarray]:
    """The order of the examples of one epoch, in batches; the last one may be smaller."""
    return np.split(order, range(size, len(order), size))
