"""Cells whose nodes combine two operations (Zoph et al. 2018, NASNet; Liu et al. 2019, DARTS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .cells import droppable
from .operations import OPERATIONS, relu_conv_bn

INPUTS = 2
"""States 0 and 1 are the cell's inputs, the older first; state 2 + i is the output of node i."""


@dataclass(frozen=True, slots=True)
class Block:
    """A node: two states, the operation on each, and how the results are combined.

    Attributes:
        sources: The states that it reads; they may be equal.
        operations: Keys of `operations.OPERATIONS`, one for each source.
        concat: Concatenate the results, and bring them back to the cell's channels by ReLU, 1x1 convolution and
            batch normalisation, instead of adding them.
    """

    sources: tuple[int, int]
    operations: tuple[str, str]
    concat: bool = False


class Node(nn.Module):
    """The module of a block: reads the two states that are its sources.

    Attributes:
        paths: What ScheduledDropPath may drop: the operations, but for identities and none.
    """

    def __init__(self, block: Block, channels: int, *, reduction: bool) -> None:
        super().__init__()
        self.first, self.second = (
            OPERATIONS[name](channels, 2 if reduction and source < INPUTS else 1)
            for name, source in zip(block.operations, block.sources, strict=True)
        )
        self.projection = relu_conv_bn(2 * channels, channels) if block.concat else None

    @property
    def paths(self) -> tuple[nn.Module, ...]:
        """See the class."""
        return droppable((self.first, self.second))

    def forward(self, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        """Two tensors (n, channels, h, w), or twice the size where the operation halves it, to one."""
        one, two = self.first(one), self.second(two)
        if self.projection is None:
            return one + two
        out: torch.Tensor = self.projection(torch.cat([one, two], 1))
        return out


class BlockCell(nn.Module):
    """Nodes in a row, some of which are concatenated as the output.

    Args:
        blocks: The nodes; each reads the cell's inputs or nodes before it.
        outputs: The states that are concatenated, in this order.
        channels: Of the inputs, and of every node.
        reduction: Whether operations on the cell's inputs have stride 2.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, blocks: Sequence[Block], outputs: Sequence[int], channels: int, *, reduction: bool) -> None:
        super().__init__()
        self.sources = tuple(block.sources for block in blocks)
        self.outputs = tuple(outputs)
        self.out_channels = channels * len(self.outputs)
        self.nodes = nn.ModuleList(Node(block, channels, reduction=reduction) for block in blocks)

    def forward(self, older: torch.Tensor, newer: torch.Tensor) -> torch.Tensor:
        """Two tensors (n, channels, h, w) to (n, out_channels, h', w'), halved and rounded up by a reduction."""
        states = [older, newer]
        for node, (i, j) in zip(self.nodes, self.sources, strict=True):
            states.append(node(states[i], states[j]))
        return torch.cat([states[k] for k in self.outputs], 1)
