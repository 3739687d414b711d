"""Modules of NAS-Bench-201 (Dong & Yang 2020, figure 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .cells import droppable
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

    Attributes:
        paths: What ScheduledDropPath may drop: convolutions and poolings, in the order of the edges.
        branches: What Shake-Shake weighs: of each node that adds just two operations other than none, these two, be
            they identities or not.
    """

    def __init__(self, operations: Sequence[str], c: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(_operation(name, c) for name in operations)
        self.out_channels = c

    @property
    def paths(self) -> tuple[nn.Module, ...]:
        """See the class."""
        return droppable(self.edges)

    @property
    def branches(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """See the class."""
        sums = [[self.edges[e] for e, _ in node if not isinstance(self.edges[e], Zero)] for node in _INCOMING]
        return tuple((terms[0], terms[1]) for terms in sums if len(terms) == 2)

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


def network(operations: Sequence[str], c: int, cells: Sequence[int], inputs: int, outputs: int) -> nn.Module:
    """The whole network: three stages of c, 2 c and 4 c channels, `cells` says of how many cells each."""
    first, second, third = (
        nn.Sequential(*(Cell(operations, k) for _ in range(n))) for k, n in zip((c, 2 * c, 4 * c), cells, strict=True)
    )
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(inputs, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)),
        first,
        Residual(c),
        second,
        Residual(2 * c),
        third,
        nn.Sequential(nn.BatchNorm2d(4 * c), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(4 * c, outputs),
    )
