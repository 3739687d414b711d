"""Cells from computational graphs whose nodes concatenate what enters them (Liu et al. 2018)."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from ..graph import Graph
from .cells import CellNetwork, plan
from .operations import OPERATIONS, FactorizedReduce, relu_conv_bn


class GraphCell(nn.Module):
    """A graph of one input as a cell: operations on the edges, concatenation at the nodes.

    Where several edges meet, a 1x1 convolution (ReLU, convolution, batch normalisation) brings the concatenated
    channels back to their number; a single edge enters as it is. Without a path the output is zero.

    Args:
        graph: Its edges hold names of `OPERATIONS`, or nothing; all nodes but the input lie on paths.
        channels: Of input and output.
    """

    def __init__(self, graph: Graph, channels: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.incoming = [tuple(source for source, _ in edges) for edges in graph.incoming[1:]]
        self.edges = nn.ModuleList()
        self.merges = nn.ModuleList()
        for edges in graph.incoming[1:]:
            self.edges.append(nn.ModuleList(OPERATIONS[operation or "identity"](channels, 1) for _, operation in edges))
            self.merges.append(relu_conv_bn(len(edges) * channels, channels) if len(edges) > 1 else nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, h, w) to the same shape."""
        if not self.incoming[-1]:
            return x.mul(0.0)
        values = [x]
        for sources, edges, merge in zip(self.incoming, self.edges, self.merges, strict=True):
            arriving = [edge(values[i]) for i, edge in zip(sources, cast(nn.ModuleList, edges), strict=True)]
            values.append(merge(arriving[0] if len(arriving) == 1 else torch.cat(arriving, 1)))
        return values[-1]


class Halved(nn.Module):
    """A cell behind a `FactorizedReduce`: its input is halved, rounded up."""

    def __init__(self, cell: nn.Module, channels: int) -> None:
        super().__init__()
        self.out_channels = cell.out_channels
        self.halve = FactorizedReduce(channels, channels)
        self.cell = cell

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, h, w) to (n, out_channels, h / 2, w / 2), rounded up."""
        out: torch.Tensor = self.cell(self.halve(x))
        return out


def graph_network(graph: Graph, *, cells: int, channels: int, inputs: int, outputs: int) -> nn.Module:
    """Copies of a cell in DARTS's macro architecture; those of the halved sizes halve their inputs first.

    Args:
        graph: The cell.
        cells: Number of copies.
        channels: Of the stem and of the first cells; every halving doubles them.
        inputs: Channels of the images.
        outputs: Of the classifier.
    """

    def make(width: int, reduction: bool) -> nn.Module:
        cell = GraphCell(graph, width)
        return Halved(cell, width) if reduction else cell

    return CellNetwork(make, 1, plan(cells, channels), inputs=inputs, stem=channels, outputs=outputs)
