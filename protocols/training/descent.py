"""Gradient descent as pipelines state it: optimizers, learning rates, batches."""

from __future__ import annotations

from math import cos, pi

import numpy as np
import torch

from ..task import Pipeline


def make_optimizer(parameters: list[torch.Tensor], pipeline: Pipeline) -> torch.optim.Optimizer:
    """The pipeline's optimizer over `parameters`."""
    if pipeline.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=pipeline.learning_rate, weight_decay=pipeline.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters,
        lr=pipeline.learning_rate,
        momentum=pipeline.momentum,
        nesterov=pipeline.nesterov,
        weight_decay=pipeline.weight_decay,
        fused=True,
    )


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
