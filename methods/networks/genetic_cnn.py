"""The network of Genetic CNN (Xie & Yuille 2017): stages of convolutions whose inputs are summed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import cast

import torch
from torch import nn

from .cells import head

Wiring = Sequence[Sequence[int]]
"""Per convolution of a stage after its first, the numbers of the convolutions that it reads."""


def conv_bn_relu(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution without bias, batch normalisation, ReLU; the size is kept."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Stage(nn.Module):
    """Convolutions, the first of which reads the stage's input, the last of which is its output.

    Args:
        wiring: What the others read, summed; every source stands before its reader.
        inputs: Channels of the input.
        channels: Of all convolutions.
    """

    def __init__(self, wiring: Wiring, inputs: int, channels: int) -> None:
        super().__init__()
        self.wiring = wiring
        self.convs = nn.ModuleList(conv_bn_relu(channels if i else inputs, channels) for i in range(len(wiring) + 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs, h, w) to (n, channels, h, w)."""
        first, *others = self.convs
        outputs = [cast(torch.Tensor, first(x))]
        for conv, sources in zip(others, self.wiring, strict=True):
            outputs.append(conv(reduce(add, (outputs[i] for i in sources))))
        return outputs[-1]


def genetic_cnn(wirings: Sequence[Wiring], *, inputs: int, channels: int, outputs: int) -> nn.Sequential:
    """Stages, each followed by 2x2 max pooling, which rounds up; then global average pooling and a classifier.

    Args:
        wirings: Of the stages.
        inputs: Channels of the images.
        channels: Of the first stage; every further stage has twice as many.
        outputs: Of the classifier.
    """
    layers: list[nn.Module] = []
    for i, wiring in enumerate(wirings):
        width = channels << i
        layers += [Stage(wiring, inputs, width), nn.MaxPool2d(2, ceil_mode=True)]
        inputs = width
    return nn.Sequential(*layers, head(inputs, outputs))
