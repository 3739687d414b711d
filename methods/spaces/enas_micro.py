"""The micro space of ENAS: a normal and a reduction cell of two-input nodes (Pham et al. 2018, section 2.4).

Pham, Guan, Zoph, Le & Dean 2018, "Efficient Neural Architecture Search via Parameter Sharing", ICML. Notation and
network follow the authors' code (github.com/melodyguan/enas, `micro_child.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...protocols import Architecture, Task
from ..base import required_image
from ..categorical import Categorical, check_keys, check_range, full_name, some_of, whole_number
from ..graph import Edge, Graph, Node

if TYPE_CHECKING:
    from torch import nn

__all__ = ["EnasMicro"]

OPS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity")
"""In the numbering of the authors' code."""
CELLS = ("normal", "reduction")

Step = tuple[int, int]
"""What an operation of a node reads, and the operation."""


class EnasMicro(Categorical):
    """A pair of cells of five nodes, each the sum of two operations on two earlier outputs of the cell.

    >>> space = EnasMicro()
    >>> a = space.parse("0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 / 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1")
    >>> space.canonical(a).genes[:8]
    (0, 0, 0, 2, 0, 1, 0, 4)
    >>> space.size == (720**2 * 5**10) ** 2, published_count(7)
    (True, 129600000000)

    Genes come node by node, first of the normal, then of the reduction cell: input, operation, input, operation.
    Inputs 0 and 1 are the outputs of the cell before the last and of the last, 2, 3, ... those of the nodes, and a
    node reads any smaller number, the same twice if it likes; operations are numbers in the order of `OPS`. `text`
    is the string of the authors' scripts (above: the cells of `cifar10_micro_final.sh`), with a slash between the
    cells; `parse` also reads theirs.

    What nobody reads is concatenated to the cell's output, the cell's inputs included. In reduction cells,
    operations on the cell's inputs have stride 2, and an input that goes straight to the output is halved by
    `FactorizedReduce`. Cells are stacked as in DARTS (`networks.cells`), which is where ENAS puts its reduction
    cells too; each input is fitted to the cell's channels.

    Size: the controller draws, for node k = 2, 3, ..., two of k inputs and two of the operations,

        size = (product over k of (k * number of operations)^2)^2,

    for five nodes (720^2 * 5^10)^2 = 25,628,906,250,000,000,000,000,000. `sample` is uniform over these sequences.
    The paper prints (5 * (B - 2)!)^4 = 129,600,000,000 for B = 7 nodes, inputs included [from memory]: see
    `published_count`. That number counts neither sequences nor distinct networks.

    Levels of canonicalisation:

    - `iso`: the two (input, operation) pairs of a node change places, and so do nodes, wherever every node still
      reads smaller numbers only. The same function and parameters, up to the order of the channels in the output of
      a cell, and of the weights that read them.
    - `swap`: the pairs of a node only.
    - `raw`: every member by itself.

    The representative is the smallest member in the order of the genes.

    The authors' scripts train 17 cells with C = 36, `enas_micro[channels=36;cells=17]`; the default is smaller.

    Attributes:
        nodes: Per cell, without its inputs (B - 2).
        ops: Allowed operations, in the order of `OPS`.
        channels: C, of the nodes before the first reduction.
        cells: Of the network; with one or two of them it has fewer than two reduction cells.
        cell_inputs: See `protocols.CellSpace`.
        has_reduction: See `protocols.CellSpace`.
    """

    levels = ("iso", "swap", "raw")
    operations = OPS
    cell_inputs = 2
    has_reduction = True

    def __init__(self, nodes: int = 5, ops: Sequence[str] = OPS, channels: int = 8, cells: int = 3) -> None:
        for key, value in (("nodes", nodes), ("channels", channels), ("cells", cells)):
            check_range("enas_micro", key, value)
        self.nodes = nodes
        self.ops = some_of("enas_micro", "ops", ops, OPS)
        self.channels = channels
        self.cells = cells
        shown = {"nodes": str(nodes), "ops": ",".join(self.ops), "channels": str(channels), "cells": str(cells)}
        default = {"nodes": "5", "ops": ",".join(OPS), "channels": "8", "cells": "3"}
        choices = tuple(OPS.index(op) for op in self.ops)
        places = [(cell, node, k) for cell in CELLS for node in range(2, nodes + 2) for k in (1, 2)]
        super().__init__(
            "enas_micro",
            full_name("enas_micro", {key: text for key, text in shown.items() if text != default[key]}),
            [gene for _, node, _ in places for gene in (tuple(range(node)), choices)],
            genes=[f"{cell}_{node}_{what}_{k}" for cell, node, k in places for what in ("input", "op")],
            labels=[names for _ in places for names in ({}, dict(enumerate(OPS)))],
        )

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> EnasMicro:
        """Build from `nodes`, `ops` (names), `channels` and `cells`; all may be left out."""
        check_keys("enas_micro", options, ("nodes", "ops", "channels", "cells"))
        return cls(
            nodes=whole_number("enas_micro", "nodes", options.get("nodes", ("5",))),
            ops=options.get("ops", OPS),
            channels=whole_number("enas_micro", "channels", options.get("channels", ("8",))),
            cells=whole_number("enas_micro", "cells", options.get("cells", ("3",))),
        )

    def scaled(self, width: float, depth: float) -> EnasMicro:
        """The same cells in a smaller network: fewer channels and cells; see `protocols.ScalableSpace`."""
        from ...protocols.training.fidelity import part

        return EnasMicro(self.nodes, self.ops, part(self.channels, width), part(self.cells, depth))

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`, a member at every level; ValueError if the level is unknown."""
        if level == "swap":
            genes: list[int] = []
            g = a.genes
            for i in range(0, len(g), 4):
                first, second = g[i : i + 2], g[i + 2 : i + 4]
                genes += first + second if first <= second else second + first
            return Architecture("enas_micro", tuple(genes))
        self.check_level(level)
        if level == "raw":
            return a
        cells = (relabelled(nodes, 2) for nodes in self.decode(a).values())
        return Architecture("enas_micro", tuple(g for nodes in cells for node in nodes for step in node for g in step))

    def decode(self, a: Architecture) -> dict[str, list[tuple[Step, Step]]]:
        """Per cell, by name, and node its two (input, number of the operation)."""
        g, half = a.genes, len(a.genes) // 2
        nodes = [((g[i], g[i + 1]), (g[i + 2], g[i + 3])) for i in range(0, len(g), 4)]
        return {"normal": nodes[: half // 4], "reduction": nodes[half // 4 :]}

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The two cells, operations on edges, inputs and nodes numbered as in the genes."""
        names = ("input 0", "input 1", *map(str, range(2, self.nodes + 2)))
        return {cell: two_input_graph(names, _named(nodes), 2) for cell, nodes in self.decode(a).items()}

    def cell(self, a: Architecture, channels: int, *, reduction: bool) -> nn.Module:
        """The normal or the reduction cell, on the meta device; see `protocols.CellSpace`."""
        self.check(a)
        import torch

        from ..networks.two_input_cell import TwoInputCell

        nodes = _named(self.decode(a)["reduction" if reduction else "normal"])
        with torch.device("meta"):
            return TwoInputCell(nodes, channels, inputs=2, reduction=reduction)

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
                lambda channels, reduction: self.cell(a, channels, reduction=reduction),
                2,
                plan(self.cells, self.channels),
                inputs=inputs,
                stem=3 * self.channels,
                outputs=task.classes or 1,
            )

    def text(self, a: Architecture) -> str:
        """Per cell the genes, the normal one first: `0 2 0 0 ... / 1 0 1 0 ...`."""
        half = len(a.genes) // 2
        return " / ".join(" ".join(map(str, genes)) for genes in (a.genes[:half], a.genes[half:]))

    def parse(self, text: str) -> Architecture:
        """Read `text`, or the same numbers without the slash; ValueError names the malformed part."""
        parts = [part.split() for part in text.split("/")]
        if len(parts) == 1:
            parts = [parts[0][: 4 * self.nodes], parts[0][4 * self.nodes :]]
        if len(parts) != 2:
            raise ValueError(f"enas_micro: {text!r} has {len(parts)} cells; allowed: 2, with '/' between")
        operations = [str(OPS.index(op)) for op in self.ops]
        for cell, part in zip(CELLS, parts, strict=True):
            if len(part) != 4 * self.nodes:
                raise ValueError(f"enas_micro: {cell} holds {len(part)} numbers; allowed: {4 * self.nodes}")
            for i, word in enumerate(part):
                node, what = i // 4 + 2, "operation" if i % 2 else "input"
                allowed = operations if i % 2 else list(map(str, range(node)))
                if word not in allowed:
                    raise ValueError(
                        f"enas_micro: node {node} of {cell} holds {what} {word!r}; allowed: {', '.join(allowed)}"
                    )
        return Architecture("enas_micro", tuple(int(word) for part in parts for word in part))


def published_count(nodes: int) -> int:
    """(5 (B - 2)!)^4 for cells of B nodes, inputs included: the paper's size of this space [from memory].

    >>> published_count(7)
    129600000000
    """
    from math import factorial

    return (5 * factorial(nodes - 2)) ** 4


def _named(nodes: Sequence[tuple[Step, Step]]) -> list[tuple[tuple[int, str], tuple[int, str]]]:
    return [((s, OPS[p]), (t, OPS[q])) for (s, p), (t, q) in nodes]


def two_input_graph(
    names: Sequence[str], nodes: Sequence[tuple[tuple[int, str], tuple[int, str]]], inputs: int
) -> Graph:
    """The graph of a cell of two-input nodes; what nobody reads leads to the output, and "none" is left out.

    Args:
        names: Of the inputs, then of the nodes.
        nodes: Per node its two (source, operation), sources numbered like the names.
        inputs: Number of inputs.
    """
    steps = [(source, inputs + i, operation) for i, node in enumerate(nodes) for source, operation in node]
    read = {source for source, _, _ in steps}
    ends: list[Edge] = [(i, len(names), "") for i in range(len(names)) if i not in read]
    edges = [edge for edge in steps if edge[2] != "none"] + ends
    return Graph((*map(Node, names), Node("output")), tuple(edges), inputs)


def relabelled(nodes: Sequence[tuple[Step, Step]], inputs: int) -> list[tuple[Step, Step]]:
    """The smallest cell that differs in the order of its nodes, and of the two steps of a node, alone.

    It is built from the front: of the nodes that could come next, one with the smallest steps does. Where several
    have these, all ways are followed, but for nodes that moreover have the same readers: those are exchangeable.

    Args:
        nodes: Per node its two (source, operation); sources are the inputs, then the nodes.
        inputs: Number of inputs.
    """
    readers: list[list[Step]] = [[] for _ in nodes]
    for reader, node in enumerate(nodes):
        for source, operation in node:
            if source >= inputs:
                readers[source - inputs].append((reader, operation))
    alike = [tuple(sorted(found)) for found in readers]
    found: list[tuple[Step, Step]] = []
    # Per way: the new numbers of inputs and nodes placed so far.
    ways = [{i: i for i in range(inputs)}]
    for number in range(inputs, inputs + len(nodes)):
        best: tuple[Step, Step] | None = None
        longer: list[dict[int, int]] = []
        for way in ways:
            taken: set[tuple[Step, ...]] = set()
            for k, ((s, p), (t, q)) in enumerate(nodes, start=inputs):
                if k in way or s not in way or t not in way:
                    continue
                first, second = (way[s], p), (way[t], q)
                node = (first, second) if first <= second else (second, first)
                if best is None or node < best:
                    best, longer = node, []
                    taken.clear()
                if node == best and alike[k - inputs] not in taken:
                    taken.add(alike[k - inputs])
                    longer.append({**way, k: number})
        assert best is not None
        found.append(best)
        ways = longer
    return found
