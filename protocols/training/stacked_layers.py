"""Layers of K networks side by side, each network with weights of its own.

A stacked tensor is (batch, K * channels, ...): the channels of the first network, then those of the second, and so on.
Whatever treats channels alike, such as activations and pooling, works on it unchanged. The weights of a layer are the
networks' own ones, joined along their first axis.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as f

Convolution = Literal["rule", "grouped", "gemm", "timed"]
"""How convolutions are computed: `grouped`, one convolution with K groups; `gemm`, batched matrix products over
unfolded patches; `timed`, the faster of the two, measured once for each shape; `rule`, `gemm` for 1x1 convolutions and
`grouped` for all others, which is the faster one on a CPU. Only `timed` may choose differently on another day."""

CONVOLUTIONS: tuple[Convolution, ...] = ("rule", "grouped", "gemm", "timed")

_TIMED: dict[str, str] = {}


@dataclass(slots=True)
class Noise:
    """Random factors of the batch that is being computed; None when they are off, and in evaluation.

    Attributes:
        paths: (K, paths, batch), by which outputs of paths are multiplied.
        units: (K, batch, features), by which inputs of the classifier are multiplied.
    """

    paths: torch.Tensor | None = None
    units: torch.Tensor | None = None


class StackedConv(nn.Module):
    """`Conv2d` of K networks: (n, K * inputs, h, w) to (n, K * outputs, h', w')."""

    def __init__(self, layers: Sequence[nn.Conv2d], convolution: Convolution) -> None:
        super().__init__()
        first = layers[0]
        if first.padding_mode != "zeros":
            raise ValueError(f"Conv2d: padding_mode is {first.padding_mode!r}; allowed in a stack: 'zeros'")
        self.weight, self.bias = _joined(layers, "weight"), _joined(layers, "bias")
        self.k, self.groups = len(layers), first.groups
        self.stride, self.padding, self.dilation = first.stride, first.padding, first.dilation
        self.pointwise = tuple(first.kernel_size) == (1, 1) and first.padding == (0, 0)
        self.convolution = convolution
        if first.groups > 1 or isinstance(first.padding, str):
            self.convolution = "grouped"
        elif convolution == "rule":
            self.convolution = "gemm" if self.pointwise else "grouped"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve the channels of each network with its own weights."""
        chosen = self._timed(x) if self.convolution == "timed" else self.convolution
        return self._gemm(x) if chosen == "gemm" else self._grouped(x)

    def _grouped(self, x: torch.Tensor) -> torch.Tensor:
        groups = self.k * self.groups
        return f.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, groups)

    def _gemm(self, x: torch.Tensor) -> torch.Tensor:
        kernel = self.weight.shape[2:]
        if self.pointwise:
            x = x[:, :, :: self.stride[0], :: self.stride[1]]
            sides, patches = x.shape[2:], x
        else:
            assert not isinstance(self.padding, str)
            spans = zip(x.shape[2:], kernel, self.padding, self.dilation, self.stride, strict=True)
            sides = torch.Size((side + 2 * p - d * (k - 1) - 1) // s + 1 for side, k, p, d, s in spans)
            patches = f.unfold(x, tuple(kernel), self.dilation, self.padding, self.stride)
        weight = self.weight.view(self.k, -1, self.weight[0].numel())
        out = torch.matmul(weight, patches.reshape(len(x), self.k, weight.shape[2], -1))
        out = out.view(len(x), -1, *sides)
        return out if self.bias is None else out + self.bias[:, None, None]

    def _timed(self, x: torch.Tensor) -> str:
        shape = "x".join(map(str, x.shape))
        weight = "x".join(map(str, self.weight.shape))
        case = f"{x.device.type} {x.dtype} {shape} * {weight} / {self.k} networks, stride {self.stride[0]}"
        if case not in _TIMED:
            ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"grouped": self._grouped, "gemm": self._gemm}
            _TIMED[case] = min(ways, key=lambda name: _seconds(ways[name], x, self.weight))
        return _TIMED[case]


def choices() -> str:
    """What `timed` chose so far in this process, one line for each shape, in alphabetical order."""
    return "\n".join(f"{case}: {chosen}" for case, chosen in sorted(_TIMED.items()))


def _seconds(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, weight: torch.Tensor) -> float:
    """The best of three forward and backward passes on other inputs; their gradients are thrown away."""
    probe = torch.ones_like(x, requires_grad=True)

    def once(_: int) -> float:
        started = time.perf_counter()
        with torch.enable_grad():
            out = function(probe)
            torch.autograd.grad(out, (probe, weight), torch.ones_like(out))
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        return time.perf_counter() - started

    once(0)
    return min(map(once, range(3)))


class StackedBatchNorm(nn.Module):
    """`BatchNorm2d` or `BatchNorm1d` of K networks, on (n, K * channels, ...)."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: torch.Tensor | None
    running_var: torch.Tensor | None
    num_batches_tracked: torch.Tensor | None

    def __init__(self, layers: Sequence[nn.BatchNorm2d | nn.BatchNorm1d]) -> None:
        super().__init__()
        if layers[0].momentum is None:
            raise ValueError("BatchNorm: momentum is None; allowed in a stack: a number")
        self.momentum, self.eps = layers[0].momentum, layers[0].eps
        self.weight, self.bias = _joined(layers, "weight"), _joined(layers, "bias")
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            tensors = [getattr(m, name) for m in layers]
            joined = None if tensors[0] is None else torch.cat([t.detach().reshape(-1) for t in tensors])
            self.register_buffer(name, joined)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise every channel by itself; running statistics move in training mode."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        by_batch = self.training or self.running_mean is None
        return f.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, by_batch, self.momentum, self.eps
        )


class StackedLinear(nn.Module):
    """`Linear` of K networks: (n, K * inputs) to (n, K * outputs)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight, self.bias = _joined(layers, "weight"), _joined(layers, "bias")
        self.k = len(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One batched matrix product."""
        if x.dim() != 2:
            raise ValueError(f"Linear: inputs of {x.dim()} axes; allowed in a stack: 2")
        inputs = x.view(len(x), self.k, -1).transpose(0, 1)
        weight = self.weight.view(self.k, -1, inputs.shape[2]).transpose(1, 2)
        if self.bias is None:
            out = torch.bmm(inputs, weight)
        else:
            out = torch.baddbmm(self.bias.view(self.k, 1, -1), inputs, weight)
        return out.transpose(0, 1).reshape(len(x), -1)


class Mixed(nn.Module):
    """A place where networks differ: each group computes its own operation on its own networks, and nothing else.

    Networks in none of the groups have an output of 0, and pass no gradient back.

    Args:
        k: Number of networks.
        groups: Numbers of the networks of each group, and their module.
    """

    def __init__(self, k: int, groups: Sequence[tuple[Sequence[int], nn.Module]]) -> None:
        super().__init__()
        self.k = k
        self.groups = nn.ModuleList(module for _, module in groups)
        for i, (members, _) in enumerate(groups):
            self.register_buffer(f"members{i}", torch.tensor(members))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Split, compute, merge."""
        indices = [self.get_buffer(f"members{i}") for i in range(len(self.groups))]
        split = [_Split.apply(x, self.k, *indices) for x in inputs]
        outputs = [group(*(parts[i] for parts in split)) for i, group in enumerate(self.groups)]
        shapes = {(out.shape[1] // len(index), *out.shape[2:]) for out, index in zip(outputs, indices, strict=True)}
        if len(shapes) > 1:
            listed = ", ".join("x".join(map(str, shape)) for shape in sorted(shapes))
            raise ValueError(f"networks: outputs of {listed} at one place; allowed in a stack: one shape")
        merged: torch.Tensor = _Merge.apply(self.k, indices, *outputs)
        return merged


class Dropped(nn.Module):
    """A place that is a path in some of the networks: multiplies its output by their factors.

    Args:
        inner: The place.
        noise: Holds the factors.
        members: Numbers of the networks that the place belongs to.
        rows: Per member the number of its path; None if the place is not one of its paths.
    """

    def __init__(self, inner: nn.Module, noise: Noise, members: Sequence[int], rows: Sequence[int | None]) -> None:
        super().__init__()
        self.inner, self.noise = inner, noise
        self.register_buffer("members", torch.tensor(members))
        self.register_buffer("rows", torch.tensor([row or 0 for row in rows]))
        self.register_buffer("exempt", torch.tensor([row is None for row in rows])[:, None])

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The output, where nothing is dropped; else the output times factors per network and image."""
        out: torch.Tensor = self.inner(*inputs)
        if self.noise.paths is None:
            return out
        factors = self.noise.paths[self.get_buffer("members"), self.get_buffer("rows")]
        factors = factors.masked_fill(self.get_buffer("exempt"), 1.0).T.unsqueeze(2)
        return (out.view(len(out), factors.shape[1], -1) * factors).view_as(out)


class Classifier(nn.Module):
    """The last linear layer of every network, with dropout of its inputs."""

    def __init__(self, inner: nn.Module, noise: Noise) -> None:
        super().__init__()
        self.inner, self.noise = inner, noise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, K * features) to (n, K * outputs)."""
        if self.noise.units is not None:
            x = x * self.noise.units.transpose(0, 1).reshape(x.shape)
        out: torch.Tensor = self.inner(x)
        return out


class _Split(torch.autograd.Function):
    """The parts of a stacked tensor that belong to groups of networks."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, k: int, *indices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.k, ctx.indices, ctx.shape = k, indices, x.shape
        return tuple(_select(x, k, index) for index in indices)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _put(gradients, ctx.k, ctx.indices, ctx.shape), None, *(None for _ in ctx.indices)


class _Merge(torch.autograd.Function):
    """The inverse of `_Split`; 0 for networks of no group."""

    @staticmethod
    def forward(ctx: Any, k: int, indices: Sequence[torch.Tensor], *parts: torch.Tensor) -> torch.Tensor:
        ctx.k, ctx.indices = k, indices
        n, channels, *rest = parts[0].shape
        return _put(parts, k, indices, torch.Size((n, channels // len(indices[0]) * k, *rest)))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, None, *(_select(gradient, ctx.k, index) for index in ctx.indices)


def _select(x: torch.Tensor, k: int, index: torch.Tensor) -> torch.Tensor:
    n, channels, *rest = x.shape
    return x.reshape(n, k, -1).index_select(1, index).view(n, channels // k * len(index), *rest)


def _put(parts: Sequence[torch.Tensor], k: int, indices: Sequence[torch.Tensor], shape: torch.Size) -> torch.Tensor:
    everyone = sum(map(len, indices)) == k
    out = parts[0].new_empty(shape) if everyone else parts[0].new_zeros(shape)
    rows = out.view(shape[0], k, -1)
    for part, index in zip(parts, indices, strict=True):
        rows.index_copy_(1, index, part.reshape(shape[0], len(index), -1))
    return out


def _joined(layers: Sequence[nn.Module], name: str) -> Any:
    tensors = [getattr(m, name) for m in layers]
    return None if tensors[0] is None else nn.Parameter(torch.cat([t.detach() for t in tensors]))
