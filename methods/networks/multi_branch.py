"""Layers that read any earlier layers: pre-activation networks with sums or concatenations in between."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce

import torch
from torch import nn
from torch.nn import functional as f


def _preactivated(inputs: int, convolutions: Sequence[nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), *convolutions)


def _conv(inputs: int, outputs: int, *, kernel: int) -> nn.Module:
    return _preactivated(inputs, [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)])


def _separable(inputs: int, outputs: int, *, kernel: int) -> nn.Module:
    depthwise = nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs, bias=False)
    return _preactivated(inputs, [depthwise, nn.Conv2d(inputs, outputs, 1, bias=False)])


LAYERS: Mapping[str, Callable[[int, int], nn.Module]] = {
    **{f"conv_{k}x{k}": partial(_conv, kernel=k) for k in (1, 3, 5)},
    **{f"sep_once_{k}x{k}": partial(_separable, kernel=k) for k in (3, 5)},
    "max_pool_3x3": lambda inputs, outputs: nn.MaxPool2d(3, 1, 1),
    "avg_pool_3x3": lambda inputs, outputs: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
}
"""(inputs, outputs) -> module, height and width kept; pools keep the number of channels as well."""


class Pad(nn.Module):
    """Appends channels of zeros: the shortcut without parameters of He et al. 2016, "Deep residual learning"."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to (n, c + extra, h, w)."""
        return f.pad(x, (0, 0, 0, 0, 0, self.extra))


class Merge(nn.Module):
    """One value of several: their sum, in the order given, or their channels side by side.

    Args:
        widths: Channels of the values.
        kind: sum or concat.
        fix: What a sum does about unequal widths: `pad` all to the widest, `project` those of another width to
            `channels` by a 1x1 convolution, or `forbid` them.
        channels: See `fix`.

    Attributes:
        width: Channels of the result.

    Raises:
        ValueError: The widths are unequal and the sum forbids it.
    """

    def __init__(self, widths: Sequence[int], kind: str, fix: str, channels: int) -> None:
        super().__init__()
        self.concat = kind == "concat"
        self.width = sum(widths) if self.concat else widths[0]
        if self.concat or len(set(widths)) == 1:
            self.fits = nn.ModuleList(nn.Identity() for _ in widths)
        elif fix == "pad":
            self.width = max(widths)
            self.fits = nn.ModuleList(Pad(self.width - c) if c < self.width else nn.Identity() for c in widths)
        elif fix == "project":
            self.width = channels
            self.fits = nn.ModuleList(
                nn.Conv2d(c, channels, 1, bias=False) if c != channels else nn.Identity() for c in widths
            )
        else:
            raise ValueError(f"merge_fix is {fix!r}, but a sum meets the widths {', '.join(map(str, widths))}")

    def forward(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Tensors (n, widths[i], h, w) to (n, width, h, w)."""
        fitted = [fit(value) for fit, value in zip(self.fits, values, strict=True)]
        if len(fitted) == 1:
            only: torch.Tensor = fitted[0]
            return only
        return torch.cat(fitted, 1) if self.concat else reduce(operator.add, fitted)


class MultiBranch(nn.Module):
    """Stem, layers and classifier, each layer and the classifier reading the merge of some outputs before it.

    The stem is a 3x3 convolution; the classifier is batch normalisation, ReLU, the mean over all pixels and a
    linear layer: the two ends of pre-activation residual and of dense networks on small images.

    Args:
        operations: Of the layers, keys of `LAYERS`.
        sources: What each layer, and then the classifier, reads: 0 is the stem, i the i-th layer.
        merge: See `Merge`.
        fix: See `Merge`.
        inputs: Channels of the images.
        stem: Channels after the stem.
        stride: Of the stem.
        channels: That a convolutional layer gives.
        outputs: Of the classifier.
    """

    def __init__(
        self,
        operations: Sequence[str],
        sources: Sequence[Sequence[int]],
        *,
        merge: str,
        fix: str,
        inputs: int,
        stem: int,
        stride: int,
        channels: int,
        outputs: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(inputs, stem, 3, stride, 1, bias=False)
        self.sources = tuple(map(tuple, sources))
        self.merges, self.layers = nn.ModuleList(), nn.ModuleList()
        widths = [stem]
        for i, read in enumerate(self.sources):
            merged = Merge([widths[j] for j in read], merge, fix, channels)
            self.merges.append(merged)
            if i < len(operations):
                self.layers.append(LAYERS[operations[i]](merged.width, channels))
                widths.append(merged.width if "pool" in operations[i] else channels)
        last = merged.width
        pool = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.layers.append(nn.Sequential(*pool, nn.Linear(last, outputs)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (n, inputs, h, w) to logits (n, outputs)."""
        values: list[torch.Tensor] = [self.stem(x)]
        for read, merge, layer in zip(self.sources, self.merges, self.layers, strict=True):
            values.append(layer(merge([values[j] for j in read])))
        return values[-1]
