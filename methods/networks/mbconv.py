"""The inverted residual block of MobileNetV2 (Sandler et al. 2018), with any kernel and expansion."""

from __future__ import annotations

import torch
from torch import nn


def conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1) -> nn.Sequential:
    """Convolution without bias and batch normalisation; the size is kept, or halved by stride 2, rounded up."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class MBConv(nn.Module):
    """Expand by a 1x1 convolution, filter each channel alone, project back by a 1x1 convolution.

    ReLU follows the first two, nothing the last. Where input and output have one shape, the input is added.
    Expansion 1 leaves the first convolution out.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Side of the depthwise convolution, odd.
        expansion: Channels inside, as a multiple of `inputs`.
        stride: Of the depthwise convolution, 1 or 2.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, expansion: int, stride: int = 1) -> None:
        super().__init__()
        inner = inputs * expansion
        self.body = nn.Sequential(
            *((*conv_bn(inputs, inner), nn.ReLU()) if expansion > 1 else ()),
            *conv_bn(inner, inner, kernel, stride, groups=inner),
            nn.ReLU(),
            *conv_bn(inner, outputs),
        )
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs, h, w) to (n, outputs, h', w')."""
        out: torch.Tensor = self.body(x)
        return out + x if self.residual else out
