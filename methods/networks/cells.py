"""Networks for images from cells: stem, cells, classifier (Zoph et al. 2018; Liu et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from .operations import FactorizedReduce, Zero, relu_conv_bn

MakeCell = Callable[[int, bool], nn.Module]
"""(channels, reduction) -> a cell: see `protocols.CellSpace.cell`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One cell of a network: its channels, and whether it halves the size."""

    channels: int
    reduction: bool


def droppable(operations: Iterable[nn.Module]) -> tuple[nn.Module, ...]:
    """The operations that compute something: ScheduledDropPath spares identities, and nothing needs no dropping."""
    return tuple(m for m in operations if not isinstance(m, (nn.Identity, Zero)))


def plan(cells: int, channels: int) -> list[Step]:
    """DARTS's macro architecture: reduction cells at one and two thirds of the depth, each doubling the channels."""
    steps = []
    for i in range(cells):
        reduction = i in (cells // 3, 2 * cells // 3) and i > 0
        channels *= 1 + reduction
        steps.append(Step(channels, reduction))
    return steps


def head(channels: int, outputs: int) -> nn.Sequential:
    """Global average pooling and a linear layer: (n, channels, h, w) to (n, outputs)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))


class CellNetwork(nn.Module):
    """Cells in a row, each reading the one or two outputs before it, fitted to its channels and size.

    Fitting is ReLU, 1x1 convolution, batch normalisation; an output from before a reduction is halved by
    `FactorizedReduce`. All as in DARTS, with any number of cells.

    Args:
        make: Builds the cells.
        cell_inputs: 1 or 2.
        steps: The cells.
        inputs: Channels of the images.
        stem: Channels after the stem, a 3x3 convolution and batch normalisation.
        outputs: Of the classifier.
    """

    def __init__(
        self, make: MakeCell, cell_inputs: int, steps: Sequence[Step], *, inputs: int, stem: int, outputs: int
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(inputs, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.fits, self.cells = nn.ModuleList(), nn.ModuleList()
        self.cell_inputs = cell_inputs
        # Channels and number of halvings of the outputs that the next cell reads, the oldest first.
        before = [(stem, 0)] * 2
        halvings = 0
        for step in steps:
            sources = before[-cell_inputs:]
            self.fits.append(nn.ModuleList(fit(c, step.channels, halvings - at) for c, at in sources))
            cell = make(step.channels, step.reduction)
            self.cells.append(cell)
            halvings += step.reduction
            before = [before[-1], (cast(int, cell.out_channels), halvings)]
        self.head = head(before[-1][0], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (n, inputs, h, w) to logits (n, outputs)."""
        before = [self.stem(x)] * 2
        for fits, cell in zip(self.fits, self.cells, strict=True):
            sources = before[-self.cell_inputs :]
            fitted = [fit(value) for fit, value in zip(cast(nn.ModuleList, fits), sources, strict=True)]
            before = [before[-1], cell(*fitted)]
        out: torch.Tensor = self.head(before[-1])
        return out


def fit(inputs: int, outputs: int, halvings: int) -> nn.Module:
    """A module that brings an output to `outputs` channels and halves its size 0, 1 or more times."""
    first = FactorizedReduce(inputs, outputs) if halvings else relu_conv_bn(inputs, outputs)
    return nn.Sequential(first, *(FactorizedReduce(outputs, outputs) for _ in range(halvings - 1)))
