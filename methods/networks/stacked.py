"""Stages of cells linked as a chain, to the two outputs before, or densely (see `spaces.stacked`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from .cells import MakeCell, fit, head
from .operations import relu_conv_bn

if TYPE_CHECKING:
    from ..spaces.stacked import Step


@dataclass(frozen=True, slots=True)
class Output:
    """Of the stem, or of a cell: its channels, and how often its size was halved."""

    channels: int
    halvings: int


class Joined(nn.Module):
    """Brings earlier outputs to one size and concatenates them, then a 1x1 convolution to the cell's channels.

    What has the size already goes in unchanged, as in DenseNet. A single output is fitted without more.
    """

    def __init__(self, sources: Sequence[Output], channels: int, halvings: int) -> None:
        super().__init__()
        if len(sources) == 1:
            [only] = sources
            self.fits = nn.ModuleList([fit(only.channels, channels, halvings - only.halvings)])
            self.mix: nn.Module = nn.Identity()
            return
        smaller = [halvings - source.halvings for source in sources]
        self.fits = nn.ModuleList(
            fit(source.channels, channels, times) if times else nn.Identity()
            for source, times in zip(sources, smaller, strict=True)
        )
        total = sum(channels if times else s.channels for s, times in zip(sources, smaller, strict=True))
        self.mix = relu_conv_bn(total, channels)

    def forward(self, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Outputs of any sizes to one tensor (n, channels, h, w)."""
        fitted = [fit(value) for fit, value in zip(self.fits, values, strict=True)]
        return [self.mix(torch.cat(fitted, 1))]


class Fitted(nn.Module):
    """Brings two earlier outputs to one size and number of channels each; a cell of one input gets their sum."""

    def __init__(self, sources: Sequence[Output], channels: int, halvings: int, *, add: bool) -> None:
        super().__init__()
        self.fits = nn.ModuleList(fit(s.channels, channels, halvings - s.halvings) for s in sources)
        self.add = add

    def forward(self, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Outputs of any sizes to one or two tensors (n, channels, h, w), the oldest first."""
        first, second = (fit(value) for fit, value in zip(self.fits, values, strict=True))
        return [first + second] if self.add else [first, second]


class StackedNetwork(nn.Module):
    """Stem, stages of cells, classifier.

    Args:
        make: Builds the cells.
        cell_inputs: 1 or 2. A cell of two inputs whose links give it one tensor reads it twice.
        steps: The cells in order, each with the numbers of the outputs that it reads: 0 is the stem, i the i-th cell.
        apart: Whether these outputs are fitted one by one (see `Fitted`), or joined (see `Joined`).
        inputs: Channels of the images.
        stem: Channels after the stem, a 3x3 convolution and batch normalisation.
        outputs: Of the classifier.
    """

    def __init__(
        self,
        make: MakeCell,
        cell_inputs: int,
        steps: Sequence[Step],
        *,
        apart: bool,
        inputs: int,
        stem: int,
        outputs: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(inputs, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.joints, self.cells = nn.ModuleList(), nn.ModuleList()
        self.cell_inputs = cell_inputs
        self.sources = [step.sources for step in steps]
        made = [Output(stem, 0)]
        for step in steps:
            sources = [made[i] for i in step.sources]
            if apart:
                joint: nn.Module = Fitted(sources, step.channels, step.halvings, add=cell_inputs == 1)
            else:
                joint = Joined(sources, step.channels, step.halvings)
            cell = make(step.channels, step.reduction)
            self.joints.append(joint)
            self.cells.append(cell)
            made.append(Output(cast(int, cell.out_channels), step.halvings + step.reduction))
        self.head = head(made[-1].channels, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (n, inputs, h, w) to logits (n, outputs)."""
        made = [self.stem(x)]
        for joint, cell, sources in zip(self.joints, self.cells, self.sources, strict=True):
            values = joint([made[i] for i in sources])
            made.append(cell(*(values * self.cell_inputs)[: self.cell_inputs]))
        out: torch.Tensor = self.head(made[-1])
        return out
