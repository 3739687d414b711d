"""Chains of layers: convolution, pooling, dense layers in any order, for images of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import nn
from torch.nn import functional as f

from .cells import head

Shape = tuple[int, int, int]
"""(channels, height, width)."""


class Pool(nn.Module):
    """Pooling over the pixels that a window shares with the image; the size is divided by the stride, rounded up.

    The window lies around its pixel, one of even side one pixel further to the right and below. What lies outside
    the image has no part in a maximum or mean, so that an image of one pixel passes unchanged.
    """

    def __init__(self, kind: str, kernel: int, stride: int) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride = kind, kernel, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to (n, c, h / stride, w / stride), rounded up."""
        before, after = (self.kernel - 1) // 2, self.kernel // 2
        sides = (before, after, before, after)
        if self.kind == "max":
            return f.max_pool2d(f.pad(x, sides, value=-torch.inf), self.kernel, self.stride)
        inside = f.pad(torch.ones_like(x[:1, :1]), sides)
        total, pixels = (
            f.avg_pool2d(t, self.kernel, self.stride, divisor_override=1) for t in (f.pad(x, sides), inside)
        )
        return total / pixels


def layer(operation: str, values: Mapping[str, int], shape: Shape) -> tuple[nn.Module, Shape]:
    """A layer of a chain, and the shape of what it gives for inputs of a shape.

    Convolutions are convolution, batch normalisation, ReLU; a dense layer flattens its input, and gives an image
    of one pixel with a channel a unit.

    Args:
        operation: conv, sep_once, max_pool, avg_pool or dense.
        values: Its hyper-parameters by name; the kernel of a convolution is odd.
        shape: Of the input.
    """
    if operation == "dense":
        units = values["units"]
        dense = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), units), nn.ReLU(), nn.Unflatten(1, (units, 1, 1)))
        return dense, (units, 1, 1)
    kernel, stride = values["kernel"], values["stride"]
    inputs, height, width = shape
    if height == width == 1:  # all strides do the same: chains that differ in them only shall be one network
        stride = 1
    small = -(-height // stride), -(-width // stride)
    if operation in ("max_pool", "avg_pool"):
        return Pool(operation[:3], kernel, stride), (inputs, *small)
    outputs = values["filters"]
    if operation == "conv":
        convolution = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)]
    else:
        convolution = [
            nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
        ]
    return nn.Sequential(*convolution, nn.BatchNorm2d(outputs), nn.ReLU()), (outputs, *small)


def network(layers: Sequence[tuple[str, Mapping[str, int]]], shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """The layers in a row, then the mean over all pixels and a linear layer: (n, *shape) to (n, outputs).

    Args:
        layers: Operation and hyper-parameters of each.
        shape: Of an input; one that is no image counts as one pixel with a channel a value.
        outputs: Of the classifier.
    """
    modules: list[nn.Module] = []
    if len(shape) == 3:
        now: Shape = (shape[0], shape[1], shape[2])
    else:
        now = (prod(shape), 1, 1)
        modules += [nn.Flatten(), nn.Unflatten(1, now)]
    for operation, values in layers:
        module, now = layer(operation, values, now)
        modules.append(module)
    return nn.Sequential(*modules, head(now[0], outputs))
