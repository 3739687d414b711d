"""Hierarchical motifs: small graphs whose edges are smaller graphs, down to operations (Liu et al. 2018, ICLR).

Level 1 holds the operations. A motif of level l is a directed acyclic graph of a few ordered nodes, each edge of
which is nothing or a motif of level l - 1; the single motif of the highest level is the cell. Every use of a
motif has weights of its own. A node concatenates what enters it; where that is more than one thing, a 1x1
convolution brings the channels back to their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from ...protocols import Architecture, Drawing, Task
from ..base import required_image
from ..categorical import Categorical, check_keys, check_range, full_name, some_of, whole_number
from ..drawing import draw
from ..graph import Graph
from ..motifs import Motif, as_it_is, edges_of, live_motifs, motif_graph, rows_of, smallest_order, unroll

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

__all__ = ["Hierarchical"]

CODES = {
    "conv_1x1": "c1",
    "depthwise_conv_3x3": "d3",
    "sep_once_3x3": "s3",
    "max_pool_3x3": "m3",
    "avg_pool_3x3": "a3",
    "identity": "id",
}
"""The operations, and what texts call them."""

OPS = tuple(CODES)
MOTIFS, NODES = (6, 1), (4, 5)
TOPS = ("free", "chain")
MOST_MOTIFS, MOST_NODES = 9, 7
CHANNELS, CELLS = 8, 1

Motifs = tuple[tuple[Motif, ...], ...]
"""Per level, from level 2, its motifs."""


class Hierarchical(Categorical):
    """Hierarchies of motifs, of any number of levels.

    >>> space = Hierarchical()
    >>> space.size == 7**46, space.gene_names[0], space.gene_names[-1]
    (True, 'level2_motif1_1_2', 'level3_motif1_4_5')
    >>> small = Hierarchical(ops=["identity", "conv_1x1"], motifs=(2, 1), nodes=(3, 3))
    >>> a = small.parse("id/-,c1+id/-,id|2/-,2")              # motif 1 is unused, 1 -> 3 of motif 2 is nothing
    >>> small.text(small.canonical(a))
    '-/-,-+id/-,id|2/-,2'
    >>> small.flatten(a).depth                                # two times two identities
    0
    >>> Hierarchical(motifs=(1,), nodes=(4,)).size == 7**6    # cells, as in cell spaces
    True

    Genes are the edges, level 2 first; in a level motif by motif, in a motif by target, then by source. A gene is
    0 for nothing, else the number of the motif of the level below; on level 2, of the operation, counted in the
    order of `OPS` also where only some of them are allowed. Samples are uniform over the genes, and mutation
    changes one edge of one motif. The paper starts otherwise: `diversified`.

    Levels of canonicalisation; the representative is the smallest equivalent member:

    - `iso`: edges on no path from input to output count as nothing, and so does all of a motif that no live edge
      uses; of equal motifs one is used; motifs of a level may be numbered differently, and so may the inner nodes
      of a motif, as long as edges lead from lower to higher numbers. The same function and parameters, up to the
      order of the channels that a 1x1 convolution reads.
    - `motifs`: the same without the numbers of nodes: the unrolled cell, `flatten`, is the same, to the bit.
    - `raw`: every member by itself.

    A motif of e edges over k motifs of the level below has (k + 1)^e forms, and the size is their product: 7^46. Not
    checked against the paper: the defaults (six operations, six motifs of four nodes, one of five), the absence of
    a 1x1 convolution where a single edge enters a node, and the order ReLU, convolution, batch normalisation.

    Args:
        ops: Allowed operations.
        motifs: Per level from the second the number of its motifs, 1 to 9; the last is 1 unless `top` is "chain".
        nodes: Per level from the second the number of nodes of its motifs, input and output included, 2 to 7.
        top: "free", or "chain": the highest level is not part of the genes, but runs through all motifs of the
            level below in turn. This is how cell spaces are hierarchies of three levels, the third hard-coded.
        channels: Of the first cells.
        cells: Copies of the cell; of two the second, of more those at one and two thirds of the depth halve their
            input and double the channels.

    Attributes:
        ops: Allowed operations, in the order of `OPS`.
        motifs: As the argument.
        nodes: As the argument.
        top: As the argument.
        channels: Of the first cells.
        cells: Copies of the cell.
        cell_inputs: 1, of the protocol `CellSpace`.
        has_reduction: False, of the protocol `CellSpace`.
    """

    levels = ("iso", "motifs", "raw")
    cell_inputs = 1
    has_reduction = False

    def __init__(
        self,
        ops: Sequence[str] = OPS,
        motifs: Sequence[int] = MOTIFS,
        nodes: Sequence[int] = NODES,
        top: str = "free",
        channels: int = CHANNELS,
        cells: int = CELLS,
    ) -> None:
        _check_options(ops, motifs, nodes, top, channels, cells)
        self.ops = self.operations = tuple(op for op in OPS if op in ops)
        self.motifs, self.nodes, self.top = tuple(motifs), tuple(nodes), top
        self.channels, self.cells = channels, cells
        shown = {
            "ops": ",".join(self.ops),
            "motifs": ",".join(map(str, motifs)),
            "nodes": ",".join(map(str, nodes)),
            "top": top,
            "channels": str(channels),
            "cells": str(cells),
        }
        name = full_name("hierarchical", {key: text for key, text in shown.items() if text != DEFAULTS[key]})
        values, genes, labels = [], [], []
        below = {0: "none", **{OPS.index(op) + 1: op for op in self.ops}}
        for level, (count, size) in enumerate(zip(motifs, nodes, strict=True), start=2):
            for motif in range(1, count + 1):
                edges = [f"{source + 1}_{target + 1}" for source, target in edges_of(size)]
                genes += [f"level{level}_motif{motif}_{edge}" for edge in edges]
                values += [tuple(below)] * len(edges)
                labels += [below] * len(edges)
            below = {0: "none", **{motif: f"motif_{motif}" for motif in range(1, count + 1)}}
        super().__init__("hierarchical", name, values, genes=genes, labels=labels)
        lengths = [size * (size - 1) // 2 for size in nodes]
        ends = accumulate(count * length for count, length in zip(motifs, lengths, strict=True))
        self._slices = [
            [slice(start, start + length) for start in range(end - count * length, end, length)]
            for end, count, length in zip(ends, motifs, lengths, strict=True)
        ]
        self._sizes, self._chain = self.nodes, tuple[tuple[Motif], ...]()
        if top == "chain":
            self._sizes = (*self.nodes, motifs[-1] + 1)
            steps = edges_of(motifs[-1] + 1)
            self._chain = ((tuple(target if target == source + 1 else 0 for source, target in steps),),)

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> Hierarchical:
        """Build from `ops`, `motifs`, `nodes`, `top`, `channels` and `cells`, see the class; all may be left out."""
        check_keys("hierarchical", options, tuple(DEFAULTS))
        given = {key: options.get(key, tuple(text.split(","))) for key, text in DEFAULTS.items()}
        numbers = {key: [whole_number("hierarchical", key, (k,)) for k in given[key]] for key in ("motifs", "nodes")}
        return cls(
            ops=given["ops"],
            motifs=numbers["motifs"],
            nodes=numbers["nodes"],
            top=",".join(given["top"]),
            channels=whole_number("hierarchical", "channels", given["channels"]),
            cells=whole_number("hierarchical", "cells", given["cells"]),
        )

    def scaled(self, width: float, depth: float) -> Hierarchical:
        """The same cells in a smaller network: fewer channels and cells; see `protocols.ScalableSpace`."""
        from ...protocols.training.fidelity import part

        return Hierarchical(
            self.ops, self.motifs, self.nodes, self.top, part(self.channels, width), part(self.cells, depth)
        )

    def identity(self) -> Architecture:
        """The member all of whose motifs are chains, of identities or of the first motif of the level below.

        Raises:
            ValueError: The operation identity is not allowed.
        """
        if "identity" not in self.ops:
            raise ValueError(f"{self.name}: ops is {','.join(self.ops)}; the genotype of identities needs identity")
        genes: Motif = ()
        for level, (count, size) in enumerate(zip(self.motifs, self.nodes, strict=True)):
            step = 1 if level else OPS.index("identity") + 1
            genes += tuple(step if target == source + 1 else 0 for source, target in edges_of(size)) * count
        return Architecture(self.family, genes)

    def diversified(self, rng: np.random.Generator, mutations: int = 1000) -> Architecture:
        """`identity` after so many random mutations: how the paper, as remembered, makes its first members."""
        a = self.identity()
        for _ in range(mutations):
            a = self.mutate(a, rng)
        return a

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`, a member of this space at every level; idempotent.

        Raises:
            ValueError: The level is unknown.
        """
        if level == "raw":
            return a
        self.check_level(level)
        smallest = as_it_is if level == "motifs" else smallest_order
        genes: Motif = ()
        numbers: Mapping[int, int] = {}
        free = len(self.motifs) - (self.top == "chain")
        for i, motifs in enumerate(self._live(a)[: len(self.motifs)]):
            size = self.nodes[i]
            forms = [smallest(size, tuple(numbers.get(v, v) for v in motif)) for motif in motifs]
            if i < free:  # nothing hard-coded refers to the numbers of these motifs
                distinct = sorted({form for form in forms if any(form)})
                first = len(forms) - len(distinct)
                number = {form: n for n, form in enumerate(distinct, start=first + 1)}
                numbers = {n: number[form] for n, form in enumerate(forms, start=1) if form in number}
                forms = [(0,) * len(forms[0])] * first + distinct
            for form in forms:
                genes += form
        return Architecture(self.family, genes)

    def _unpacked(self, genes: Motif) -> Motifs:
        """The motifs by level, the hard-coded chain included."""
        return (*(tuple(genes[where] for where in level) for level in self._slices), *self._chain)

    def _live(self, a: Architecture) -> list[list[Motif]]:
        return live_motifs(self._sizes, self._unpacked(a.genes))

    def flatten(self, a: Architecture) -> Graph:
        """The cell without its hierarchy: a graph of operations, only of what lies between input and output.

        A node of a motif is called by the way to it: `1-3/2` is node 2 of the motif on edge 1-3 of the highest
        motif, `1-3/out` its output, which is a node only if several edges enter it.
        """
        return unroll(self._sizes, self._live(a), OPS)

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The cell, flattened."""
        return {"cell": self.flatten(a)}

    def draw(self, a: Architecture) -> Drawing:
        """The motifs in use, the highest level first, and of each what lies on paths; ValueError for strangers."""
        self.check(a)
        names = [f"motif {number}" for number in range(1, max(self.motifs) + 1)]
        pictures = {}
        for i, (size, motifs) in reversed(list(enumerate(zip(self._sizes, self._live(a), strict=True)))):
            for number, motif in enumerate(motifs, start=1):
                if any(motif) or i == len(self._sizes) - 1:
                    pictures[f"level {i + 2}, motif {number}"] = motif_graph(size, motif, names if i else OPS)
        return draw(pictures, (*self.ops, *names), title=str(a))

    def cell(self, a: Architecture, channels: int, *, reduction: bool = False) -> nn.Module:
        """One cell of `a`, on the meta device; see `protocols.CellSpace`.

        Raises:
            ValueError: `a` is no member, or a reduction cell is asked for, which the space does not have.
        """
        self.check(a)
        if reduction:
            raise ValueError(f"{self.name}: reduction is True; allowed: False, since members hold no reduction cell")
        import torch

        from ..networks.hierarchical import GraphCell

        with torch.device("meta"):
            return GraphCell(self.flatten(a), channels)

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device; input (n, *task.shape), output (n, classes, or 1).

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images.
        """
        self.check(a)
        inputs, _, _ = required_image(task, self.name)
        import torch

        from ..networks.hierarchical import graph_network

        with torch.device("meta"):
            return graph_network(
                self.flatten(a), cells=self.cells, channels=self.channels, inputs=inputs, outputs=task.classes or 1
            )

    def text(self, a: Architecture) -> str:
        """Levels joined by `|`, motifs by `+`, nodes by `/`, edges by `,`: `id/-,c1+c1/-,-|2/1,2`.

        Of each node from the second the edges from node 1, 2, ...: `-` for nothing, a number for a motif of the
        level below, and on level 2 `c1` for conv_1x1, `d3` for depthwise_conv_3x3, `s3` for sep_once_3x3, `m3` and
        `a3` for max and average pooling, `id` for identity.
        """
        levels = []
        for i, (size, motifs) in enumerate(zip(self.nodes, self._unpacked(a.genes), strict=False)):
            words = {v: word for word, v in self._words(i).items()}
            levels.append(
                "+".join("/".join(",".join(words[v] for v in row) for row in rows_of(size, m)) for m in motifs)
            )
        return "|".join(levels)

    def parse(self, text: str) -> Architecture:
        """Read `text(a)` back; ValueError names the malformed part."""
        levels = text.split("|")
        if len(levels) != len(self.motifs):
            raise ValueError(f"{self.name}: {text!r} has {len(levels)} levels; allowed: {len(self.motifs)} with '|'")
        genes = []
        for i, level in enumerate(levels):
            motifs = level.split("+")
            if len(motifs) != self.motifs[i]:
                raise ValueError(
                    f"{self.name}: level {i + 2} has {len(motifs)} motifs; allowed: {self.motifs[i]} with '+'"
                )
            words = self._words(i)
            for number, motif in enumerate(motifs, start=1):
                rows = [row.split(",") for row in motif.split("/")]
                where = f"{self.name}: motif {number} of level {i + 2}"
                if list(map(len, rows)) != list(range(1, self.nodes[i])):
                    form = "/".join(",".join("-" * k) for k in range(1, self.nodes[i]))
                    raise ValueError(f"{where} is {motif!r}; allowed: the form {form!r}")
                for word in (word for row in rows for word in row):
                    if word not in words:
                        raise ValueError(f"{where} holds {word!r}; allowed: {', '.join(words)}")
                    genes.append(words[word])
        return Architecture(self.family, tuple(genes))

    def _words(self, level: int) -> dict[str, int]:
        """What texts call the values of an edge, level 2 being 0."""
        if level:
            return {"-": 0, **{str(v): v for v in range(1, self.motifs[level - 1] + 1)}}
        return {"-": 0, **{CODES[op]: OPS.index(op) + 1 for op in self.ops}}


DEFAULTS = {
    "ops": ",".join(OPS),
    "motifs": ",".join(map(str, MOTIFS)),
    "nodes": ",".join(map(str, NODES)),
    "top": "free",
    "channels": str(CHANNELS),
    "cells": str(CELLS),
}
"""The options, as texts."""


def _check_options(
    ops: Sequence[str], motifs: Sequence[int], nodes: Sequence[int], top: str, channels: int, cells: int
) -> None:
    some_of("hierarchical", "ops", ops, OPS)
    if top not in TOPS:
        raise ValueError(f"hierarchical: top is {top!r}; allowed: {', '.join(TOPS)}")
    listed = {"motifs": ",".join(map(str, motifs)), "nodes": ",".join(map(str, nodes))}
    if not motifs or not all(1 <= count <= MOST_MOTIFS for count in motifs) or (top == "free" and motifs[-1] != 1):
        last = "" if top == "chain" else ", the last of them 1"
        raise ValueError(
            f"hierarchical: motifs is {listed['motifs']!r}; "
            f"allowed: 1 to {MOST_MOTIFS} for each level from the second{last}"
        )
    if len(nodes) != len(motifs) or not all(2 <= size <= MOST_NODES for size in nodes):
        raise ValueError(
            f"hierarchical: nodes is {listed['nodes']!r}; allowed: 2 to {MOST_NODES} for each of {len(motifs)} levels"
        )
    for key, value in (("channels", channels), ("cells", cells)):
        check_range("hierarchical", key, value)
