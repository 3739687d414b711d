"""Cells as a list of operations and pairs of indices, a genotype for genetic search (after Xu et al. 2021).

Known from a summary only, which gives the genotype and one example (Lin Xu et al. 2021): G={1,2,0,5,3,7,4,6},
A={0,0}, B={0,1}, C={2,1}, D={2,0}. What it does not give is declared below as our choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...protocols import Architecture, Task
from ..base import required_image
from ..categorical import Categorical, check_keys, check_range, full_name, some_of, whole_number
from ..graph import Graph
from .enas_micro import Step, relabelled, two_input_graph

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

__all__ = ["OpIdx"]

OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_3x3",
)
LETTERS = "ABCDEF"
UNITS = ("gene", "pair", "block")


class OpIdx(Categorical):
    """Cells of four nodes; eight genes say what the nodes apply, four pairs of indices to what.

    >>> import numpy as np
    >>> space = OpIdx()
    >>> a = space.parse("G={1,2,0,5,3,7,4,6}, A={0,0}, B={0,1}, C={2,1}, D={2,0}")
    >>> a.genes
    (1, 2, 0, 5, 3, 7, 4, 6, 0, 0, 0, 1, 2, 1, 2, 0)
    >>> space.text(a), space.size
    ('G={1,2,0,5,3,7,4,6}, A={0,0}, B={0,1}, C={2,1}, D={2,0}', 24794911296)

    Genes are G, then A, B, C, D. Index 0 is the input of the cell, index j the output of node j - 1. Node k = 0, 1,
    ... (A, B, ...) has indices of at most k; it applies operation G[2k] to its first and G[2k + 1] to its second,
    and adds the two results. So for n nodes

        size = (number of operations)^(2 n) * (n!)^2,

    9^8 * 576 = 24,794,911,296 by default, and `sample` is uniform over them.

    Our choices, as the source at hand does not say: the nine operations, which are DARTS's eight and a plain 3x3
    convolution, in the order of `OPS`; that the output concatenates the nodes that nobody reads; the network, which
    stacks `cells` copies of the cell as in DARTS, each reading the one before, and halves the size at one and two
    thirds of the depth by stride 2 of the operations on the cell's input; and `crossover`.

    Levels of canonicalisation:

    - `iso`: the two operations of a node change places along with their indices, and so do nodes, wherever every
      node still reads earlier ones only. The same function and parameters, up to the order of the channels in the
      output of a cell, and of the weights that read them. The representative is the smallest if read node by
      node, indices first.
    - `swap`: the operations of a node only; the representative is the smallest in the order of the genes.
    - `raw`: every member by itself.

    Nothing is pruned: the operation `none` gives zeros, and what leads to it keeps its parameters.

    Attributes:
        nodes: Per cell, at most six.
        ops: Allowed operations, in the order of `OPS`.
        channels: C, of the nodes before the first halving.
        cells: Of the network.
        cell_inputs: See `protocols.CellSpace`.
        has_reduction: See `protocols.CellSpace`.
    """

    levels = ("iso", "swap", "raw")
    operations = OPS
    cell_inputs = 1
    has_reduction = False

    def __init__(self, nodes: int = 4, ops: Sequence[str] = OPS, channels: int = 8, cells: int = 3) -> None:
        if not 1 <= nodes <= len(LETTERS):
            raise ValueError(f"opidx: nodes is {nodes}; allowed: 1 to {len(LETTERS)}")
        for key, value in (("channels", channels), ("cells", cells)):
            check_range("opidx", key, value)
        self.nodes = nodes
        self.ops = some_of("opidx", "ops", ops, OPS)
        self.channels = channels
        self.cells = cells
        shown = {"nodes": str(nodes), "ops": ",".join(self.ops), "channels": str(channels), "cells": str(cells)}
        default = {"nodes": "4", "ops": ",".join(OPS), "channels": "8", "cells": "3"}
        choices = tuple(OPS.index(op) for op in self.ops)
        super().__init__(
            "opidx",
            full_name("opidx", {key: text for key, text in shown.items() if text != default[key]}),
            [choices] * (2 * nodes) + [tuple(range(node + 1)) for node in range(nodes) for _ in range(2)],
            genes=[f"g_{i}" for i in range(2 * nodes)]
            + [f"{LETTERS[node].lower()}_{k}" for node in range(nodes) for k in range(2)],
            labels=[dict(enumerate(OPS))] * (2 * nodes) + [{}] * (2 * nodes),
        )

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> OpIdx:
        """Build from `nodes`, `ops` (names), `channels` and `cells`; all may be left out."""
        check_keys("opidx", options, ("nodes", "ops", "channels", "cells"))
        return cls(
            nodes=whole_number("opidx", "nodes", options.get("nodes", ("4",))),
            ops=options.get("ops", OPS),
            channels=whole_number("opidx", "channels", options.get("channels", ("8",))),
            cells=whole_number("opidx", "cells", options.get("cells", ("3",))),
        )

    def scaled(self, width: float, depth: float) -> OpIdx:
        """The same cells in a smaller network: fewer channels and cells; see `protocols.ScalableSpace`."""
        from ...protocols.training.fidelity import part

        return OpIdx(self.nodes, self.ops, part(self.channels, width), part(self.cells, depth))

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator, unit: str = "pair") -> Architecture:
        """Take each unit from either parent with probability 1/2, independently; our variant.

        Args:
            a: One parent.
            b: The other.
            rng: One number is drawn for each unit.
            unit: `gene`: every gene by itself. `pair`: every operation by itself, the two indices of a node
                together. `block`: the two operations and the two indices of a node together.

        Raises:
            ValueError: Another unit.
        """
        if unit not in UNITS:
            raise ValueError(f"{self.name}: unit is {unit!r}; allowed: {', '.join(UNITS)}")
        if unit == "gene":
            return super().crossover(a, b, rng)
        n = self.nodes
        coins = (rng.random(3 * n if unit == "pair" else n) < 0.5).tolist()
        pairs = [coin for coin in coins[-n:] for _ in range(2)]  # of indices, one coin a node
        operations = coins[: 2 * n] if unit == "pair" else pairs
        return Architecture(
            "opidx",
            tuple(x if coin else y for x, y, coin in zip(a.genes, b.genes, operations + pairs, strict=True)),
        )

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`, a member at every level; ValueError if the level is unknown."""
        self.check_level(level)
        if level == "raw":
            return a
        nodes = self.decode(a)
        if level != "swap":
            nodes = relabelled(nodes, 1)
        operations: list[int] = []
        indices: list[int] = []
        for (s, p), (t, q) in nodes:
            straight = (p, s) <= (q, t)
            operations += (p, q) if straight else (q, p)
            indices += (s, t) if straight else (t, s)
        return Architecture("opidx", (*operations, *indices))

    def decode(self, a: Architecture) -> list[tuple[Step, Step]]:
        """Per node its two (index, number of the operation)."""
        g, n = a.genes, 2 * self.nodes
        return [((g[n + i], g[i]), (g[n + i + 1], g[i + 1])) for i in range(0, n, 2)]

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The cell, operations on edges, nodes by letter; edges of `none` are left out."""
        return {"cell": two_input_graph(("input", *LETTERS[: self.nodes]), self._named(a), 1)}

    def cell(self, a: Architecture, channels: int, *, reduction: bool) -> nn.Module:
        """The cell, on the meta device; ValueError if it should reduce: the space has no reduction cells."""
        self.check(a)
        if reduction:
            raise ValueError(f"{self.name}: reduction is True; allowed: False")
        return self._cell(a, channels, reduction)

    def _cell(self, a: Architecture, channels: int, reduction: bool) -> nn.Module:
        import torch

        from ..networks.two_input_cell import TwoInputCell

        with torch.device("meta"):
            return TwoInputCell(self._named(a), channels, inputs=1, reduction=reduction)

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device; input (n, *task.shape), output (n, classes, or 1).

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images.
        """
        self.check(a)
        inputs, _, _ = required_image(task, self.name)
        import torch

        from ..networks.cells import CellNetwork, plan

        with torch.device("meta"):
            return CellNetwork(
                lambda channels, reduction: self._cell(a, channels, reduction),
                1,
                plan(self.cells, self.channels),
                inputs=inputs,
                stem=3 * self.channels,
                outputs=task.classes or 1,
            )

    def text(self, a: Architecture) -> str:
        """`G={1,2,0,5,3,7,4,6}, A={0,0}, B={0,1}, C={2,1}, D={2,0}`."""
        return ", ".join(f"{letter}={{{','.join(map(str, genes))}}}" for letter, genes in self._parts(a.genes))

    def parse(self, text: str) -> Architecture:
        """Read `text`, with or without blanks; ValueError names the malformed part."""
        found = re.split(r"(?<=}),", re.sub(r"\s", "", text))
        empty = self._parts((0,) * (4 * self.nodes))
        if len(found) != len(empty):
            letters = ", ".join(letter for letter, _ in empty)
            raise ValueError(f"opidx: {text!r} has {len(found)} parts; allowed: {len(empty)}, {letters}")
        genes: list[int] = []
        for part, (letter, zeros) in zip(found, empty, strict=True):
            match = re.fullmatch(rf"{letter}={{([0-9]+(?:,[0-9]+)*)}}", part, re.ASCII)
            numbers = match[1].split(",") if match else []
            if len(numbers) != len(zeros):
                form = f"{letter}={{{','.join(['i'] * len(zeros))}}}"
                raise ValueError(f"opidx: {part!r} is no list {letter} of numbers; allowed: {form}")
            allowed = self.values[len(genes)]
            for number in numbers:
                if number not in map(str, allowed):
                    raise ValueError(f"opidx: {letter} holds {number}; allowed: {', '.join(map(str, allowed))}")
            genes += map(int, numbers)
        return Architecture("opidx", tuple(genes))

    def _parts(self, genes: Sequence[int]) -> list[tuple[str, Sequence[int]]]:
        """The genes by letter."""
        n = 2 * self.nodes
        return [("G", genes[:n]), *((LETTERS[i], genes[n + 2 * i : n + 2 * i + 2]) for i in range(self.nodes))]

    def _named(self, a: Architecture) -> list[tuple[tuple[int, str], tuple[int, str]]]:
        return [((s, OPS[p]), (t, OPS[q])) for (s, p), (t, q) in self.decode(a)]
