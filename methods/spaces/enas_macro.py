"""The macro space of ENAS: layers with an operation and skip connections (Pham et al. 2018, section 2.3).

Pham, Guan, Zoph, Le & Dean 2018, "Efficient Neural Architecture Search via Parameter Sharing", ICML. Where the
paper leaves room, the authors' code decides (github.com/melodyguan/enas, `general_child.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ...protocols import Architecture, Task
from ..base import required_image
from ..categorical import Categorical, check_keys, check_range, full_name, some_of, whole_number
from ..graph import Edge, Graph, Node

if TYPE_CHECKING:
    from torch import nn

__all__ = ["EnasMacro"]

OPS = ("conv_3x3", "sep_conv_3x3", "conv_5x5", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
"""In the numbering of the authors' code."""


class EnasMacro(Categorical):
    """L layers in a row, each with one of six operations and a bit for each skip connection that may enter it.

    >>> import numpy as np
    >>> space = EnasMacro(layers=4)
    >>> a = space.parse("0 / 3 0 / 0 1 0 / 2 0 0 1")
    >>> a.genes, space.text(a)
    ((0, 3, 0, 0, 1, 0, 2, 0, 0, 1), '0 / 3 0 / 0 1 0 / 2 0 0 1')
    >>> EnasMacro().size == 6**12 * 2**66
    True

    Genes come layer by layer: the operation of layer i = 1 ... L, a number in the order of `OPS`, then its i - 1
    bits. `text` is the string of the authors' scripts, with a slash between layers; `parse` also reads theirs.

    What the bits mean is read from the code: outputs are numbered from 0, the stem, to L, the last layer, and
    bit j = 0 ... i - 2 of layer i says whether it reads output j. Output i - 1, of the layer just before, it reads
    always: a 1x1 convolution and the operation are applied to it, and the result is concatenated with the outputs
    of the set bits and brought back to C channels by a 1x1 convolution (`_fixed_layer`; while ENAS searches,
    it adds them instead). The stem counts as an earlier output, so L layers have L (L - 1) / 2 bits and

        size = (number of operations)^L * 2^(L (L - 1) / 2),

    for the default of 12 layers 160,618,186,625,454,535,808,756,219,904. `sample` is uniform over all of them;
    ENAS's controller, by contrast, learns to aim at a given share of skips.

    After layers L // 3 and 2 (L // 3) height and width are halved and the channels doubled, for every output that
    a later layer still reads; the code also halves those that none reads. Pooling layers follow the shared model,
    since the code's final model has none. Differences that do not touch the space: `FactorizedReduce` begins with
    a ReLU, and there is no dropout.

    The only level of canonicalisation is `raw`: every output is read, each layer is a function of its own, and so
    no two members are equal.

    The authors' scripts search with C = 36 and train a final network of 24 layers with 96; the default is narrower.

    Attributes:
        layers: L.
        ops: Allowed operations, in the order of `OPS`.
        channels: C, before the first halving.
    """

    operations = OPS

    def __init__(self, layers: int = 12, ops: Sequence[str] = OPS, channels: int = 8) -> None:
        for key, value in (("layers", layers), ("channels", channels)):
            check_range("enas_macro", key, value)
        self.layers = layers
        self.ops = some_of("enas_macro", "ops", ops, OPS)
        self.channels = channels
        self._starts = [i * (i + 1) // 2 for i in range(layers)]  # of each layer's genes
        shown = {"layers": str(layers), "ops": ",".join(self.ops), "channels": str(channels)}
        default = {"layers": "12", "ops": ",".join(OPS), "channels": "8"}
        choices = tuple(OPS.index(op) for op in self.ops)
        values: list[tuple[int, ...]] = []
        genes: list[str] = []
        labels: list[dict[int, str]] = []
        for layer in range(1, layers + 1):
            values += [choices, *[(0, 1)] * (layer - 1)]
            genes += [f"op_{layer}", *(f"skip_{source}_{layer}" for source in range(layer - 1))]
            labels += [dict(enumerate(OPS)), *[{}] * (layer - 1)]
        super().__init__(
            "enas_macro",
            full_name("enas_macro", {key: text for key, text in shown.items() if text != default[key]}),
            values,
            genes=genes,
            labels=labels,
        )

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> EnasMacro:
        """Build from `layers`, `ops` (names) and `channels`; all may be left out."""
        check_keys("enas_macro", options, ("layers", "ops", "channels"))
        return cls(
            layers=whole_number("enas_macro", "layers", options.get("layers", ("12",))),
            ops=options.get("ops", OPS),
            channels=whole_number("enas_macro", "channels", options.get("channels", ("8",))),
        )

    def scaled(self, width: float, depth: float) -> EnasMacro:
        """The same members with fewer channels; ValueError for a lower depth, since layers are genes."""
        from ...protocols.training.fidelity import part, refuse_part

        refuse_part("depth", depth, self.name)
        return EnasMacro(self.layers, self.ops, part(self.channels, width))

    def decode(self, a: Architecture) -> list[tuple[str, tuple[int, ...]]]:
        """Per layer its operation, and the outputs (0: the stem) that it reads besides the one before it."""
        found = []
        for layer, genes in enumerate(self._parts(a), start=1):
            skips = tuple(source for source in range(layer - 1) if genes[1 + source])
            found.append((OPS[genes[0]], skips))
        return found

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The network, operations on its nodes; layers with skips have a second node, where these join."""
        nodes, edges = [Node("input")], list[Edge]()
        ends = [0]
        for layer, (operation, skips) in enumerate(self.decode(a), start=1):
            edges.append((ends[-1], len(nodes), ""))
            nodes.append(Node(str(layer), operation))
            if skips:
                edges += [(source, len(nodes), "") for source in (*(ends[s] for s in skips), len(nodes) - 1)]
                nodes.append(Node(f"join {layer}"))
            ends.append(len(nodes) - 1)
        edges.append((ends[-1], len(nodes), ""))
        return {"network": Graph((*nodes, Node("output")), tuple(edges))}

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device; input (n, *task.shape), output (n, classes, or 1).

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images.
        """
        self.check(a)
        inputs, _, _ = required_image(task, self.name)
        import torch

        from ..networks.enas_macro import MacroNetwork

        with torch.device("meta"):
            return MacroNetwork(self.decode(a), self.channels, inputs, task.classes or 1)

    def text(self, a: Architecture) -> str:
        """Layer by layer the number of the operation and the bits: `0 / 3 0 / 0 1 0 / ...`."""
        return " / ".join(" ".join(map(str, genes)) for genes in self._parts(a))

    def parse(self, text: str) -> Architecture:
        """Read `text`, or the same numbers without slashes; ValueError names the malformed part."""
        if "/" in text:
            parts = [part.split() for part in text.split("/")]
        else:
            words = text.split()
            parts = [words[start:end] for start, end in pairwise([*self._starts, None])]
        if len(parts) != self.layers:
            raise ValueError(f"enas_macro: {text!r} has {len(parts)} layers; allowed: {self.layers}, with '/' between")
        genes: list[int] = []
        for layer, part in enumerate(parts, start=1):
            if len(part) != layer:
                form = f"{layer} numbers, an operation and its bits"
                raise ValueError(f"enas_macro: layer {layer} is {' '.join(part)!r}; allowed: {form}")
            allowed = [str(OPS.index(op)) for op in self.ops]
            for word in part:
                if word not in allowed:
                    raise ValueError(f"enas_macro: layer {layer} holds {word!r}; allowed: {', '.join(allowed)}")
                genes.append(int(word))
                allowed = ["0", "1"]
        return Architecture("enas_macro", tuple(genes))

    def _parts(self, a: Architecture) -> list[tuple[int, ...]]:
        """The genes, layer by layer."""
        return [a.genes[start:end] for start, end in pairwise([*self._starts, None])]
