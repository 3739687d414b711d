"""The network of ENAS's macro space (Pham et al. 2018, section 2.3; the authors' `general_child.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .cells import head
from .operations import OPERATIONS, FactorizedReduce, relu_conv_bn

_MODULES = {"sep_conv_3x3": "sep_once_3x3", "sep_conv_5x5": "sep_once_5x5"}
"""Names of ENAS, where ours differ: its macro space applies a separable convolution once."""


class Layer(nn.Module):
    """1x1 convolution and operation on the layer before, then 1x1 convolution of that and of the skipped layers.

    Args:
        operation: Name.
        channels: Of all inputs, and of the output.
        skips: Number of further inputs.
        joins: Whether the second 1x1 convolution is there: in all layers but the first, also without skips.
    """

    def __init__(self, operation: str, channels: int, skips: int, *, joins: bool) -> None:
        super().__init__()
        self.operation = nn.Sequential(
            relu_conv_bn(channels, channels), OPERATIONS[_MODULES.get(operation, operation)](channels, 1)
        )
        self.join = relu_conv_bn((skips + 1) * channels, channels) if joins else nn.Identity()

    def forward(self, x: torch.Tensor, skipped: Sequence[torch.Tensor]) -> torch.Tensor:
        """The layer before and the skipped ones, each (n, channels, h, w), to one of that shape."""
        out: torch.Tensor = self.join(torch.cat([*skipped, self.operation(x)], 1))
        return out


class MacroNetwork(nn.Module):
    """A stem, layers with skips between them, a classifier.

    After one and two thirds of the layers every output that a later layer reads is halved, and its channels
    doubled, by a `FactorizedReduce` of its own.

    Args:
        layers: Per layer its operation, and the earlier outputs (0: the stem, i: layer i) that it reads besides
            the one just before it.
        channels: After the stem.
        inputs: Channels of the images.
        outputs: Of the classifier.
    """

    def __init__(self, layers: Sequence[tuple[str, Sequence[int]]], channels: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(inputs, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.layers = nn.ModuleList()
        self.reductions = nn.ModuleDict()
        self.skips = [tuple(skips) for _, skips in layers]
        third = len(layers) // 3
        for i, (operation, skips) in enumerate(layers):
            self.layers.append(Layer(operation, channels, len(skips), joins=i > 0))
            done = i + 1
            if third and done in (third, 2 * third):
                read = {done, *(source for later in self.skips[done:] for source in later if source <= done)}
                self.reductions[str(done)] = nn.ModuleDict(
                    {str(source): FactorizedReduce(channels, 2 * channels) for source in sorted(read)}
                )
                channels *= 2
        self.head = head(channels, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (n, inputs, h, w) to logits (n, outputs)."""
        values = {0: self.stem(x)}
        for i, (layer, skips) in enumerate(zip(self.layers, self.skips, strict=True)):
            values[i + 1] = layer(values[i], [values[source] for source in skips])
            if str(i + 1) in self.reductions:
                # What no later layer reads has no reduction, and is no longer needed.
                reductions: nn.ModuleDict = self.reductions[str(i + 1)]  # type: ignore[assignment]
                values = {int(source): reduce(values[int(source)]) for source, reduce in reductions.items()}
        out: torch.Tensor = self.head(values[len(self.skips)])
        return out
