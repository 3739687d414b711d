"""The normal and the reduction cell of NASNet (Zoph et al. 2018, "Learning transferable architectures", CVPR).

A cell reads the outputs of the two cells before it. Its five blocks each choose two hidden states (the cell's
inputs and the blocks before), an operation for each of them, and are the sum of the two results. What the survey
of Elsken et al. 2019 calls 40 dimensions "for each" cell is 40 for the pair: 2 cells x 5 blocks x 4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ...protocols import Architecture, Task
from ..base import required_image
from ..categorical import Categorical, check_keys, check_range, full_name, some_of, whole_number
from ..graph import Graph, Node

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NASNet"]

OPS = (
    "identity",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "dilated_conv_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
)
PNAS_OPS = (
    "identity",
    "conv_1x7_7x1",
    "dilated_conv_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
)
"""The eight operations of PNAS (Liu et al. 2018, "Progressive neural architecture search", ECCV)."""

COMBINERS = ("add", "concat", "search")
ADD, CONCAT = range(2)
_SIGNS = ("+", "&")
_MOST_BLOCKS = 8

Genes = tuple[int, ...]
Block = tuple[int, int, int, int, int]
"""First input, second input, first operation, second operation, ADD or CONCAT."""


class NASNet(Categorical):
    """Pairs of cells of five blocks, or smaller ones.

    >>> space = NASNet()
    >>> len(space.values), space.size == (720**2 * 13**10) ** 2
    (40, True)
    >>> small = NASNet(ops=["identity", "conv_3x3"], blocks=2, tied=True)
    >>> small.name, small.size
    ('nasnet[ops=identity,conv_3x3;blocks=2;tied=yes]', 576)
    >>> a = small.parse("cell: conv_3x3(1) + identity(0), identity(2) + identity(2)")
    >>> a.genes, small.text(small.canonical(a))
    ((1, 0, 9, 0, 2, 2, 0, 0), 'cell: identity(0) + conv_3x3(1), identity(2) + identity(2)')

    Genes, for the normal cell and then the reduction cell, block by block: the first input, the second input, the
    first operation, the second operation and, if the combiner is searched, 0 to add and 1 to concatenate (the
    order in which the paper's controller chooses). Inputs 0 and 1 are the cell's, the older first; input 2 + b is
    block b. Operations are indices into `OPS`, whatever the restriction. Sampling is uniform over these ordered
    choices.

    The output of a cell concatenates the blocks that no block reads, in order. In a reduction cell, operations on
    the cell's inputs have stride 2. A concatenating block is brought back to the cell's channels by a 1x1
    convolution, so that every hidden state has as many: a choice of this package, where the paper is silent.

    Size with B blocks and m operations, for one cell: ((B + 1)!)^2 m^(2B), times 2^B if the combiner is searched;
    squared unless tied.

    Levels of canonicalisation; the representative is the smallest member of the class in the order of genes:

    - `iso`: equality as graphs. The two (input, operation) pairs of a block change places, and so do blocks. The
      same function and parameters, up to the order of the channels that are concatenated, and of the weights that
      read them.
    - `swap`: the pairs of an adding block only. `build` makes one network for the whole class, bit for bit.
    - `raw`: every member by itself.

    Operations and output rule agree with the lists for NASNet and PNAS in the model hub of NNI, which follow
    Radosavovic et al. 2019, "On network design spaces"; the authors of NASNet published no code of their search.
    Modules are those of `networks.operations`.

    Args:
        ops: Allowed operations.
        blocks: B, 1 to 8.
        combiner: "add", "concat", or "search" for a choice by each block.
        tied: One cell serves both roles, as in PNAS; there are half as many genes.
        cells: Of the network, reductions at one and two thirds of them.
        channels: Of the first cells; the stem has three times as many.

    Attributes:
        ops: Allowed operations, in the order of `OPS`.
        cell_inputs: See `protocols.CellSpace`.
        has_reduction: See `protocols.CellSpace`.
    """

    levels = ("iso", "swap", "raw")
    cell_inputs = 2
    has_reduction = True

    def __init__(
        self,
        ops: Sequence[str] = OPS,
        blocks: int = 5,
        combiner: str = "add",
        tied: bool = False,
        cells: int = 5,
        channels: int = 8,
    ) -> None:
        self.ops = self.operations = some_of("nasnet", "ops", ops, OPS)
        if combiner not in COMBINERS:
            raise ValueError(f"nasnet: combiner is {combiner!r}; allowed: {', '.join(COMBINERS)}")
        check_range("nasnet", "blocks", blocks, _MOST_BLOCKS)
        check_range("nasnet", "cells", cells)
        check_range("nasnet", "channels", channels)
        self.blocks, self.combiner, self.tied = blocks, combiner, tied
        self.cells, self.channels = cells, channels
        self.roles = ("cell",) if tied else ("normal", "reduction")
        self._per_block = 5 if combiner == "search" else 4
        shown = {
            "ops": "" if self.ops == OPS else ",".join(self.ops),
            "blocks": "" if blocks == 5 else str(blocks),
            "combiner": "" if combiner == "add" else combiner,
            "tied": "yes" if tied else "",
            "cells": "" if cells == 5 else str(cells),
            "channels": "" if channels == 8 else str(channels),
        }
        genes, values, labels = [], [], []
        allowed = tuple(map(OPS.index, self.ops))
        kinds = ("input_1", "input_2", "op_1", "op_2", "combiner")[: self._per_block]
        for role in self.roles:
            for b in range(blocks):
                inputs = tuple(range(b + 2))
                genes += [f"{role}_{b + 2}_{kind}" for kind in kinds]
                values += [inputs, inputs, allowed, allowed, (ADD, CONCAT)][: self._per_block]
                names = dict(enumerate(OPS))
                labels += [{}, {}, names, names, {ADD: "add", CONCAT: "concat"}][: self._per_block]
        name = full_name("nasnet", {key: text for key, text in shown.items() if text})
        super().__init__("nasnet", name, values, genes=genes, labels=labels)

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> NASNet:
        """Build from `ops` (names), `blocks`, `combiner`, `tied` (yes or no), `cells` and `channels`."""
        check_keys("nasnet", options, ("ops", "blocks", "combiner", "tied", "cells", "channels"))
        tied = ",".join(options.get("tied", ("no",)))
        if tied not in ("yes", "no"):
            raise ValueError(f"nasnet: tied is {tied!r}; allowed: yes, no")
        return cls(
            ops=options.get("ops", OPS),
            blocks=whole_number("nasnet", "blocks", options.get("blocks", ("5",))),
            combiner=",".join(options.get("combiner", ("add",))),
            tied=tied == "yes",
            cells=whole_number("nasnet", "cells", options.get("cells", ("5",))),
            channels=whole_number("nasnet", "channels", options.get("channels", ("8",))),
        )

    def scaled(self, width: float, depth: float) -> NASNet:
        """The same cells in a smaller network: fewer channels and cells; see `protocols.ScalableSpace`."""
        from ...protocols.training.fidelity import part

        return NASNet(
            self.ops, self.blocks, self.combiner, self.tied, part(self.cells, depth), part(self.channels, width)
        )

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`, a member of this space at every level; idempotent."""
        if level == "swap":
            return self._swapped(a)
        if level is None or level == "iso":
            rows = [block for blocks in self._blocks(a) for block in _smallest(blocks)]
            return Architecture("nasnet", tuple(gene for row in rows for gene in row[: self._per_block]))
        self.check_level(level)
        return a

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """A graph for each cell; operations stand on the edges, and concatenating nodes say so in their names."""
        found = {}
        for role, blocks in zip(self.roles, self._blocks(a), strict=True):
            names = [f"{b + 2} concat" if block[4] == CONCAT else str(b + 2) for b, block in enumerate(blocks)]
            nodes = tuple(map(Node, ["input 0", "input 1", *names, "output"]))
            edges = [
                (source, b + 2, OPS[op])
                for b, block in enumerate(blocks)
                for source, op in ((block[0], block[2]), (block[1], block[3]))
            ]
            edges += [(state, len(nodes) - 1, "") for state in _loose_ends(blocks)]
            found[role] = Graph(nodes, tuple(edges), inputs=2)
        return found

    def cell(self, a: Architecture, channels: int, *, reduction: bool) -> nn.Module:
        """One cell of `a`, on the meta device; see `protocols.CellSpace`. ValueError unless `a` is a member."""
        self.check(a)
        import torch

        from ..networks.block_cell import Block, BlockCell

        # From the representative: members of a class are then one network, with equal weights from equal seeds.
        blocks = self._blocks(self._swapped(a))[-1 if reduction else 0]
        nodes = [Block((i, j), (OPS[p], OPS[q]), concat=combiner == CONCAT) for i, j, p, q, combiner in blocks]
        with torch.device("meta"):
            return BlockCell(nodes, _loose_ends(blocks), channels, reduction=reduction)

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device; input (n, *task.shape), output (n, classes, or 1).

        Stem and classifier are those of DARTS (`networks.cells`). With `cells` = 3 N + 2 there are N normal cells
        before, between and after the two reduction cells, as in the paper; the default is N = 1.

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images.
        """
        self.check(a)
        inputs, _, _ = required_image(task, self.name)
        import torch

        from ..networks.cells import CellNetwork, plan

        def make(channels: int, reduction: bool) -> nn.Module:
            return self.cell(a, channels, reduction=reduction)

        steps, stem = plan(self.cells, self.channels), 3 * self.channels
        with torch.device("meta"):
            return CellNetwork(make, 2, steps, inputs=inputs, stem=stem, outputs=task.classes or 1)

    def text(self, a: Architecture) -> str:
        """`normal: op(input) + op(input), ...; reduction: ...`; concatenation is written `&`, a tied cell `cell`."""
        return "; ".join(
            f"{role}: " + ", ".join(f"{OPS[p]}({i}) {_SIGNS[sign]} {OPS[q]}({j})" for i, j, p, q, sign in blocks)
            for role, blocks in zip(self.roles, self._blocks(a), strict=True)
        )

    def parse(self, text: str) -> Architecture:
        """Read the form of `text`; spaces do not matter. ValueError names the malformed part."""
        cells = text.split(";")
        if len(cells) != len(self.roles):
            form = "; ".join(f"{role}: BLOCKS" for role in self.roles)
            raise ValueError(f"nasnet: {text!r} has {len(cells)} cells; allowed: '{form}'")
        genes: list[int] = []
        for cell, role in zip(cells, self.roles, strict=True):
            found, _, body = cell.partition(":")
            if found.strip() != role:
                raise ValueError(f"nasnet: a cell is called {found.strip()!r}; allowed here: {role!r}")
            parts = body.split(",")
            if len(parts) != self.blocks:
                raise ValueError(f"nasnet: {role} has {len(parts)} blocks; allowed: {self.blocks}, joined by ','")
            for b, part in enumerate(parts):
                genes += self._block(part.strip(), role, b + 2)
        return Architecture("nasnet", tuple(genes))

    def _block(self, text: str, role: str, node: int) -> list[int]:
        """The genes of a block from its text."""
        here = f"nasnet: block {node} of {role}"
        signs = {"add": "+", "concat": "&", "search": "+&"}[self.combiner]
        match = re.fullmatch(r"(\w+)\s*\((\d+)\)\s*([+&])\s*(\w+)\s*\((\d+)\)", text, re.ASCII)
        if not match or match[3] not in signs:
            forms = " or ".join(f"'op(input) {sign} op(input)'" for sign in signs)
            raise ValueError(f"{here} is {text!r}; allowed: {forms}")
        for op in (match[1], match[4]):
            if op not in self.ops:
                raise ValueError(f"{here} holds {op!r}; allowed: {', '.join(self.ops)}")
        for source in (match[2], match[5]):
            if source not in map(str, range(node)):
                raise ValueError(f"{here} reads {source}; allowed: 0 to {node - 1}")
        genes = [int(match[2]), int(match[5]), OPS.index(match[1]), OPS.index(match[4]), _SIGNS.index(match[3])]
        return genes[: self._per_block]

    def _blocks(self, a: Architecture) -> list[list[Block]]:
        """The blocks of each cell."""
        genes, width = a.genes, self._per_block
        fixed = () if self.combiner == "search" else (COMBINERS.index(self.combiner),)
        rows: list[Block] = [(*genes[k : k + width], *fixed) for k in range(0, len(genes), width)]
        return [rows[k : k + self.blocks] for k in range(0, len(rows), self.blocks)]

    def _swapped(self, a: Architecture) -> Architecture:
        """The pairs of every adding block in order."""
        if self.combiner == "concat":
            return a
        genes, width = a.genes, self._per_block
        changed: list[int] | None = None
        for k in range(0, len(genes), width):
            i, j = genes[k], genes[k + 1]
            if i < j or (i == j and genes[k + 2] <= genes[k + 3]) or (width == 5 and genes[k + 4] == CONCAT):
                continue
            if changed is None:
                changed = list(genes)
            changed[k : k + 4] = j, i, genes[k + 3], genes[k + 2]
        return a if changed is None else Architecture("nasnet", tuple(changed))


def _loose_ends(blocks: Sequence[Block]) -> list[int]:
    """The blocks that no block reads, as states: the last one at least."""
    read = {source for block in blocks for source in block[:2]}
    return [state for state in range(2, len(blocks) + 2) if state not in read]


def _smallest(blocks: Sequence[Block]) -> list[Genes]:
    """The blocks of a cell in the smallest of their orders, the pairs of each in order."""

    def write(b: int, at: Mapping[int, int]) -> Genes:
        i, j, p, q, combiner = blocks[b]
        (i, p), (j, q) = sorted(((at[i], p), (at[j], q)))
        return i, j, p, q, combiner

    return smallest_order([block[:2] for block in blocks], write)


def smallest_order(sources: Sequence[Sequence[int]], write: Callable[[int, Mapping[int, int]], Genes]) -> list[Genes]:
    """The lexicographically smallest way to write down the nodes of a cell that has two inputs.

    Args:
        sources: The states that each node reads: 0 and 1 are the inputs, 2 + i is node i.
        write: (node, new numbers of the states that it reads) -> its genes, which the order decides by.

    Returns:
        The genes of the nodes in the smallest of all orders in which every node follows those that it reads.
    """
    readers = [[c for c, states in enumerate(sources) if b + 2 in states] for b in range(len(sources))]

    def rest(at: dict[int, int], ready: dict[int, Genes]) -> list[Genes]:
        """What follows the nodes in `at`, where `ready` are those that may come next."""
        if not ready:
            return []
        least = min(ready.values())
        # Equal nodes may still differ in who reads them, so each is tried; but one of those that nobody reads will do.
        equal = [b for b, genes in ready.items() if genes == least]
        unread = [b for b in equal if not readers[b]]
        tried = [b for b in equal if readers[b]] + unread[:1]
        return [least, *min(rest(*after(b, at, ready)) for b in tried)]

    def after(b: int, at: dict[int, int], ready: dict[int, Genes]) -> tuple[dict[int, int], dict[int, Genes]]:
        at = {**at, b + 2: len(at)}
        ready = {c: genes for c, genes in ready.items() if c != b}
        for c in readers[b]:
            if all(state in at for state in sources[c]):
                ready[c] = write(c, at)
        return at, ready

    inputs = {0: 0, 1: 1}
    return rest(inputs, {b: write(b, inputs) for b, states in enumerate(sources) if max(states) < len(inputs)})
