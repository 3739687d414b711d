"""Channels per layer: the size space of NATS-Bench (Dong et al. 2021, "NATS-Bench", TPAMI).

Five layers, each with 8, 16, ..., or 64 channels, 8^5 = 32,768 members. What the layers do is fixed: cells of
the topology space, NAS-Bench-201's, all with one good topology, and residual blocks between them
(`DynamicShapeTinyNet` of the reference implementation, D-X-Y/AutoDL-Projects).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from ...protocols import Architecture, Task
from ..base import required_image
from ..categorical import Categorical, check_keys, check_range, full_name, whole_number
from ..graph import Graph, Node

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

__all__ = ["Size"]

WIDTHS = tuple(range(8, 65, 8))
OPERATIONS = ("cell", "residual")


class Size(Categorical):
    """NATS-Bench's size space, whole or restricted to some widths, with one cell a stage or more.

    >>> space = Size()
    >>> a = space.parse("8:8:40:32:40")
    >>> a.genes, len(space.neighbours(a)), len(Size(moves="step").neighbours(a))
    ((8, 8, 40, 32, 40), 35, 8)
    >>> Size(widths=[16, 8], cells=2).name
    'size[widths=8,16;cells=2]'

    A gene is the number of channels that a layer gives out. Sampling is uniform over the members. No two of them
    have equal shapes of weights, layer by layer, so the only level of canonicalisation is `raw`.

    The network is a 3x3 convolution to as many channels as the first layer has; three stages of `cells` cells, a
    residual block that halves the size before the second and the third (these blocks are layers too); batch
    normalisation, ReLU, global average pooling, linear layer. The cell is
    `|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|`; where a
    cell changes the number of channels, its skip is a 1x1 convolution with batch normalisation.

    Args:
        widths: Allowed numbers of channels, of 8, 16, ..., 64.
        cells: N, cells per stage; there are 3 N + 2 layers.
        moves: Which changes of one layer make a neighbour: to `all` other widths, or by one `step`, to the next
            larger or smaller allowed width.

    Size: (number of widths)^(3 N + 2).

    Attributes:
        widths: Allowed numbers of channels, ascending.
    """

    levels = ("raw",)
    # A member is one path of fixed operations: a path encoding would say nothing.
    encodings = ("one_hot",)
    operations = OPERATIONS

    def __init__(self, widths: Sequence[int] = WIDTHS, cells: int = 1, moves: str = "all") -> None:
        for width in widths:
            if width not in WIDTHS:
                raise ValueError(f"size: widths holds {width}; allowed: {', '.join(map(str, WIDTHS))}")
        if len(set(widths)) != len(widths) or len(widths) < 2:
            given = ",".join(map(str, widths))
            raise ValueError(
                f"size: widths is {given!r}; allowed: two or more, each once, of {', '.join(map(str, WIDTHS))}"
            )
        check_range("size", "cells", cells)
        if moves not in ("all", "step"):
            raise ValueError(f"size: moves is {moves!r}; allowed: all, step")
        self.widths = tuple(sorted(widths))
        self.cells, self.moves = cells, moves
        shown = {"widths": ",".join(map(str, self.widths)), "cells": str(cells), "moves": moves}
        default = {"widths": ",".join(map(str, WIDTHS)), "cells": "1", "moves": "all"}
        layers = 3 * cells + 2
        super().__init__(
            "size",
            full_name("size", {key: text for key, text in shown.items() if text != default[key]}),
            [self.widths] * layers,
            genes=[f"channels_{i}" for i in range(1, layers + 1)],
            ordinal=range(layers),
            moves=self._next if moves == "step" else None,
        )

    def _next(self, gene: int, width: int) -> Sequence[int]:
        rank = self.widths.index(width)
        return self.widths[max(0, rank - 1) : rank] + self.widths[rank + 1 : rank + 2]

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> Size:
        """Build from `widths` (integers), `cells` (one integer) and `moves` (all or step)."""
        check_keys("size", options, ("widths", "cells", "moves"))
        widths = options.get("widths", tuple(map(str, WIDTHS)))
        return cls(
            widths=[whole_number("size", "widths", (text,)) for text in widths],
            cells=whole_number("size", "cells", options.get("cells", ("1",))),
            moves=",".join(options.get("moves", ("all",))),
        )

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The layers in a row, under their channels."""
        layers = [Node(f"{c}-channel", OPERATIONS[r]) for c, r in zip(a.genes, _reductions(self.cells), strict=True)]
        nodes = (Node("input"), *layers, Node("output"))
        return {"layers": Graph(nodes, tuple((i, i + 1, "") for i in range(len(nodes) - 1)))}

    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        """Size and cost of the network by formula; `depth` is the number of layers.

        `macs` bills convolutions and the classifier with its bias, as the official files do; batch
        normalisation, pooling and additions are free.

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images.
        """
        self.check(a)
        before, height, width = required_image(task, "size")
        after, outputs = a.genes[0], task.classes or 1
        params = 9 * before * after + 2 * after
        macs = 9 * before * after * height * width
        before = after
        for after, reduction in zip(a.genes, _reductions(self.cells), strict=True):
            if reduction:  # two 3x3 convolutions and, beside them, a 1x1 convolution
                height, width = -(-height // 2), -(-width // 2)
                weights, norms = 9 * (before * after + after * after) + before * after, 2
            else:  # two 3x3 convolutions from the input, three from nodes inside
                weights, norms = 9 * (2 * before * after + 3 * after * after), 5
                if before != after:
                    weights, norms = weights + before * after, 6
            params += weights + 2 * norms * after
            macs += weights * height * width
            before = after
        params += 2 * before + (before + 1) * outputs
        macs += (before + 1) * outputs
        found = {"params": params, "macs": macs, "flops": 2 * macs, "depth": len(a.genes)}
        counts = {"n_cell": 3 * self.cells, "n_residual": 2}
        return {key: float(value) for key, value in (found | counts).items()}

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device; input (n, *task.shape), output (n, classes, or 1).

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images.
        """
        self.check(a)
        inputs, _, _ = required_image(task, "size")
        import torch
        from torch import nn

        from ..networks.cells import head
        from ..networks.mbconv import conv_bn

        modules = _modules()
        with torch.device("meta"):
            layers, before = [], a.genes[0]
            for after, reduction in zip(a.genes, _reductions(self.cells), strict=True):
                layers.append(modules[reduction](before, after))
                before = after
            last = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
            return nn.Sequential(conv_bn(inputs, a.genes[0], 3), *layers, last, head(before, task.classes or 1))

    def text(self, a: Architecture) -> str:
        """The official string: `8:8:40:32:40`."""
        return ":".join(map(str, a.genes))

    def parse(self, text: str) -> Architecture:
        """Read the official string; ValueError names the malformed part."""
        parts = text.split(":")
        if len(parts) != len(self.values):
            raise ValueError(f"size: {text!r} has {len(parts)} layers; allowed: {len(self.values)}, joined by ':'")
        allowed = {str(width): width for width in self.widths}
        for number, part in enumerate(parts, start=1):
            if part not in allowed:
                raise ValueError(f"size: layer {number} of {text!r} is {part!r}; allowed: {', '.join(allowed)}")
        return Architecture("size", tuple(allowed[part] for part in parts))


def _reductions(cells: int) -> tuple[bool, ...]:
    """Whether each layer is a residual block, which halves the size."""
    stage = (False,) * cells
    return (*stage, True, *stage, True, *stage)


@cache
def _modules() -> tuple[Callable[[int, int], nn.Module], Callable[[int, int], nn.Module]]:
    """The classes of a cell and of a residual block: defined on first use, so that importing costs no torch."""
    from torch import nn

    from ..networks.mbconv import conv_bn
    from ..networks.operations import relu_conv_bn

    class Cell(nn.Module):
        def __init__(self, before: int, after: int) -> None:
            super().__init__()
            self.one = relu_conv_bn(before, after, 3)
            self.two = nn.ModuleList([relu_conv_bn(before, after, 3), relu_conv_bn(after, after, 3)])
            # No ReLU here: the reference has one in reductions of stride 2 only.
            self.skip = nn.Identity() if before == after else conv_bn(before, after)
            self.three = nn.ModuleList([relu_conv_bn(after, after, 3), relu_conv_bn(after, after, 3)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            one = self.one(x)
            two = self.two[0](x) + self.two[1](one)
            out: torch.Tensor = self.skip(x) + self.three[0](one) + self.three[1](two)
            return out

    class Residual(nn.Module):
        def __init__(self, before: int, after: int) -> None:
            super().__init__()
            self.body = nn.Sequential(relu_conv_bn(before, after, 3, 2), relu_conv_bn(after, after, 3))
            # On odd sides the last row and column are a window of their own, as the convolution has it.
            self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(before, after, 1, bias=False))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.shortcut(x) + self.body(x)
            return out

    return Cell, Residual
