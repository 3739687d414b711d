"""The network of a convolutional neural fabric (Saxena & Verbeek 2016): a trellis of layers and scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional as f

from .cells import head

Step = tuple[int, int, str]
"""Source node, target node, and "same", "down" or "up"."""


class Fabric(nn.Module):
    """Edges are 3x3 convolutions; a node sums what they bring, then come batch normalisation and ReLU.

    A step down has stride 2, which rounds sizes up; a step up first doubles the size (nearest neighbour), cut to
    the size of its target. Node 0 is computed from the image; the last node is pooled for the classifier.

    Args:
        steps: The edges by target, ascending; every source stands before its target. All of them lie on paths
            from the first node to the last; without any, the classifier reads zeros.
        layers: Of the trellis.
        scales: Of the trellis; node `layer * scales + scale` is one of scale `scale`.
        inputs: Channels of the images.
        channels: Of all nodes.
        outputs: Of the classifier.
    """

    def __init__(
        self, steps: Sequence[Step], layers: int, scales: int, *, inputs: int, channels: int, outputs: int
    ) -> None:
        super().__init__()
        self.channels, self.scales, self.last = channels, scales, layers * scales - 1
        self.incoming: dict[int, list[tuple[int, int, str]]] = {}
        for edge, (source, target, kind) in enumerate(steps):
            self.incoming.setdefault(target, []).append((edge, source, kind))
        if steps:
            self.stem = nn.Sequential(nn.Conv2d(inputs, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.edges = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, 2 if kind == "down" else 1, padding=1, bias=False) for _, _, kind in steps
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in self.incoming)
        self.head = head(channels, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (n, inputs, h, w) to logits (n, outputs)."""
        if not self.incoming:
            return cast(torch.Tensor, self.head(x.new_zeros(len(x), self.channels, 1, 1)))
        values = {0: f.relu(self.stem(x))}
        for norm, (target, edges) in zip(self.norms, self.incoming.items(), strict=True):
            total: torch.Tensor | None = None
            for edge, source, kind in edges:
                value = values[source]
                if kind == "up":
                    # A scale divides by 2^scale, rounded up: the target may be one pixel less than twice as large.
                    height, width = (-(-side // (1 << target % self.scales)) for side in x.shape[2:])
                    value = f.interpolate(value, scale_factor=2)[:, :, :height, :width]
                value = self.edges[edge](value)
                total = value if total is None else total + value
            values[target] = f.relu(norm(total))
        return cast(torch.Tensor, self.head(values[self.last]))
