"""Floating-point operations of training, counted exactly on the network itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..task import Pipeline, Task

if TYPE_CHECKING:
    import torch
    from torch import nn


def forward_flops(network: nn.Module, task: Task) -> int:
    """FLOPs of the forward pass of one example; see `network_flops`."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    was_training = network.training
    network.eval()  # the counter takes apart the batch normalisation of training, which takes long and costs nothing
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(_examples(task))
    network.train(was_training)
    return int(forward.get_total_flops()) // 2


def network_flops(network: nn.Module, task: Task) -> tuple[int, int]:
    """FLOPs of one example: (forward, forward and backward).

    Matrix products and convolutions count 2 per multiply-add, everything else counts nothing: the
    convention of torch.utils.flop_counter, which does the counting. The first layer has no gradient with
    respect to its input, and an embedding, which looks up, counts nothing. Two examples are run and the count
    halved, since batch normalisation of a 1x1 image refuses a single one.

    Args:
        network: On the meta device, so that nothing is computed.
        task: Gives the shape of an input, and whether it is of tokens (int64) or of numbers.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as both:
        output = network(_examples(task)).sum()
        if output.requires_grad:  # else there is nothing to train
            output.backward()
    network.zero_grad(set_to_none=True)
    return forward_flops(network, task), int(both.get_total_flops()) // 2


def _examples(task: Task) -> torch.Tensor:
    import torch

    kind = torch.int64 if task.kind == "text" else torch.float32
    return torch.empty(2, *task.shape, device="meta", dtype=kind)


def training_flops(network: nn.Module, task: Task, pipeline: Pipeline, n_train: int, n_valid: int) -> float:
    """FLOPs of one epoch: a training pass over `n_train` examples and a validation pass over `n_valid`.

    The pipeline changes nothing: no ingredient has products to count, and dropped paths are computed all the same.
    """
    forward, both = network_flops(network, task)
    return float(n_train * both + n_valid * forward)
