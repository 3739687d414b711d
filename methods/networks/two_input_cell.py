"""Cells whose nodes add the outputs of two operations on earlier outputs: ENAS micro, operation and index genes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .cells import droppable
from .operations import OPERATIONS, FactorizedReduce

Step = tuple[int, str]
"""What an operation of a node reads, and the operation: the cell's inputs come first, then the nodes."""


class TwoInputCell(nn.Module):
    """Nodes of two operations each; everything that no node reads is concatenated, cell inputs included.

    A reduction cell has stride 2 where a node reads an input of the cell. An input that no node reads is then
    halved by `FactorizedReduce`, as in ENAS.

    Args:
        nodes: Per node its two steps.
        channels: Of the inputs and of every node.
        inputs: Number of inputs of the cell.
        reduction: Whether the cell halves height and width.

    Attributes:
        paths: What ScheduledDropPath may drop: operations other than identities and none.
        out_channels: Channels of the output.
    """

    def __init__(self, nodes: Sequence[tuple[Step, Step]], channels: int, *, inputs: int, reduction: bool) -> None:
        super().__init__()
        self.sources = [(first[0], second[0]) for first, second in nodes]
        read = {source for pair in self.sources for source in pair}
        self.loose = [i for i in range(inputs + len(nodes)) if i not in read]
        self.operations = nn.ModuleList(
            OPERATIONS[operation](channels, 2 if reduction and source < inputs else 1)
            for node in nodes
            for source, operation in node
        )
        self.ends = nn.ModuleList(
            FactorizedReduce(channels, channels) if reduction and i < inputs else nn.Identity() for i in self.loose
        )
        self.out_channels = channels * len(self.loose)

    @property
    def paths(self) -> tuple[nn.Module, ...]:
        """See the class."""
        return droppable(self.operations)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Inputs (n, channels, h, w) to (n, out_channels, h', w')."""
        values = list(inputs)
        for i, (first, second) in enumerate(self.sources):
            values.append(self.operations[2 * i](values[first]) + self.operations[2 * i + 1](values[second]))
        return torch.cat([end(values[i]) for end, i in zip(self.ends, self.loose, strict=True)], 1)
