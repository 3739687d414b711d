"""The operations of cells, as modules: name -> module for a number of channels and a stride of 1 or 2.

Every operation maps (n, channels, h, w) to (n, channels, h', w'), where stride 2 halves the size, rounded up.
Convolutions are ReLU, convolution, batch normalisation, as in DARTS (Liu et al. 2019, appendix A.1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn
from torch.nn import functional as f


def relu_conv_bn(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, stride: int = 1, *, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """ReLU, convolution without bias, batch normalisation; the size is kept, or halved by stride 2."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (dilation * (sides[0] // 2), dilation * (sides[1] // 2))
    conv = nn.Conv2d(inputs, outputs, sides, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))


def separable(c: int, kernel: int, stride: int, *, dilation: int = 1) -> nn.Sequential:
    """ReLU, depthwise and pointwise convolution, batch normalisation: DARTS's `dil_conv`, half of its `sep_conv`."""
    relu, depthwise, _ = relu_conv_bn(c, c, kernel, stride, dilation=dilation, groups=c)
    return nn.Sequential(relu, depthwise, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))


def separable_twice(c: int, stride: int, *, kernel: int) -> nn.Sequential:
    """DARTS's `sep_conv`: the separable convolution applied twice, the stride in the first."""
    return nn.Sequential(separable(c, kernel, stride), separable(c, kernel, 1))


class FactorizedReduce(nn.Module):
    """Halves the size without losing information: two 1x1 convolutions, shifted by one pixel, side by side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.even = nn.Conv2d(inputs, half, 1, 2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - half, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs, h, w) to (n, outputs, h / 2, w / 2), rounded up."""
        x = f.relu(x)
        x = f.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))  # both convolutions then see equal sizes
        out: torch.Tensor = self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], 1))
        return out


class Zero(nn.Module):
    """Nothing: zeros of the output's size."""

    is_zero = True  # trainers that skip what is not computed ask for it

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Zeros, every `stride`-th pixel."""
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


def _pool(c: int, stride: int, *, kind: str, kernel: int) -> nn.Module:
    if kind == "max":
        return nn.MaxPool2d(kernel, stride, kernel // 2)
    return nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)


def _skip(c: int, stride: int) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(c, c)


def _conv(c: int, stride: int, *, kernel: int, dilation: int = 1) -> nn.Module:
    return relu_conv_bn(c, c, kernel, stride, dilation=dilation)


def _two_convs(c: int, stride: int, *, kernel: int) -> nn.Module:
    # The factorised pair 1xk, kx1 of NASNet; the first carries the stride in both directions.
    first, second = relu_conv_bn(c, c, (1, kernel), stride), relu_conv_bn(c, c, (kernel, 1))
    return nn.Sequential(*first, *second)


def _dilated_separable(c: int, stride: int, *, kernel: int) -> nn.Module:
    return separable(c, kernel, stride, dilation=2)


def _once(c: int, stride: int, *, kernel: int) -> nn.Module:
    return separable(c, kernel, stride)


def _depthwise(c: int, stride: int, *, kernel: int) -> nn.Module:
    return relu_conv_bn(c, c, kernel, stride, groups=c)


def _zero(c: int, stride: int) -> nn.Module:
    return Zero(stride)


OPERATIONS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "none": _zero,
    "identity": _skip,
    "skip_connect": _skip,
    **{f"max_pool_{k}x{k}": partial(_pool, kind="max", kernel=k) for k in (3, 5, 7)},
    **{f"avg_pool_{k}x{k}": partial(_pool, kind="avg", kernel=k) for k in (3, 5, 7)},
    **{f"conv_{k}x{k}": partial(_conv, kernel=k) for k in (1, 3, 5)},
    **{f"conv_1x{k}_{k}x1": partial(_two_convs, kernel=k) for k in (3, 7)},
    "dilated_conv_3x3": partial(_conv, kernel=3, dilation=2),
    **{f"sep_conv_{k}x{k}": partial(separable_twice, kernel=k) for k in (3, 5, 7)},
    **{f"sep_once_{k}x{k}": partial(_once, kernel=k) for k in (3, 5)},
    **{f"dil_conv_{k}x{k}": partial(_dilated_separable, kernel=k) for k in (3, 5)},
    "depthwise_conv_3x3": partial(_depthwise, kernel=3),
}
"""(channels, stride) -> module. `sep_conv` is separable twice, `dil_conv` separable and dilated, both as in DARTS."""
