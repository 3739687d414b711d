"""Modules of NAS-Bench-201 (Dong & Yang 2020, figure 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .operations import Zero, relu_conv_bn

# Per node 1, 2, 3: its (edge, source) pairs.
_INCOMING = (((0, 0),), ((1, 0), (2, 1)), ((3, 0), (4, 1), (5, 2)))


def _operation(name: str, c: int) -> nn.Module:
    if name in ("nor_conv_1x1", "nor_conv_3x3"):
        return relu_conv_bn(c, c, 1 if name == "nor_conv_1x1" else 3)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Identity() if name == "skip_connect" else Zero(1)


class Cell(nn.Module):
    """Four nodes, an operation on each of the six edges between them.

    Args:
        operations: Names, in the order 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2.
        c: Channels, of input and output.
    """

    def __init__(self, operations: Sequence[str], c: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(_operation(name, c) for name in operations)
        self.out_channels = c

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to the same."""
        nodes = [x]
        for (edge, source), *others in _INCOMING:
            value = self.edges[edge](nodes[source])
            for edge, source in others:
                value = value + self.edges[edge](nodes[source])
            nodes.append(value)
        return nodes[3]


class Residual(nn.Module):
    """The block between stages: half the size, twice the channels."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(relu_conv_bn(c, 2 * c, 3, 2), relu_conv_bn(2 * c, 2 * c, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(c, 2 * c, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to (n, 2 c, h / 2, w / 2)."""
        out: torch.Tensor = self.shortcut(x) + self.body(x)
        return out


def network(operations: Sequence[str], c: int, cells: int, inputs: int, outputs: int) -> nn.Module:
    """The whole network: three stages of `cells` cells of c, 2 c and 4 c channels."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(inputs, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)),
        nn.Sequential(*(Cell(operations, c) for _ in range(cells))),
        Residual(c),
        nn.Sequential(*(Cell(operations, 2 * c) for _ in range(cells))),
        Residual(2 * c),
        nn.Sequential(*(Cell(operations, 4 * c) for _ in range(cells))),
        nn.Sequential(nn.BatchNorm2d(4 * c), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(4 * c, outputs),
    )
