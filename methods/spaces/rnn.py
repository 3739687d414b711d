"""Recurrent cells of ENAS and of DARTS, for language models.

Definitions: Pham et al. 2018 (Efficient neural architecture search via parameter sharing), with the highway bypass of
its code, melodyguan/enas; Liu et al. 2019 (DARTS: differentiable architecture search) and its code, quark0/darts.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from math import factorial
from typing import TYPE_CHECKING, Any

from ...protocols import Architecture, Task
from ..categorical import Categorical, check_keys, check_range, full_name, whole_number
from ..graph import Graph, Node

if TYPE_CHECKING:
    from torch import nn

__all__ = ["RNN", "published_size"]

ACTIVATIONS = ("tanh", "relu", "identity", "sigmoid")
"""In the order of the ENAS code, which numbers them from 0."""

NODES = {"enas": 12, "darts": 8}
"""The papers' number of nodes, for each kind of cell."""

UNITS = 64
_END = "~"  # sorts behind every digit
_FORM = "Genotype(recurrent=[('tanh', 0), ...], concat=range(1, {}))"


def published_size(nodes: int, activations: int = 4) -> int:
    """The size that Pham et al. 2018 state for ENAS cells, 4^N * N! for N nodes.

    It is N times the number of cells: node 1 reads no other node, so there are (N-1)! ways to choose what is read.

    >>> published_size(12) == 12 * RNN().size
    True
    """
    return int(activations**nodes * factorial(nodes))


class RNN(Categorical):
    """Cells that are trees: every node applies an activation to a linear map of one earlier node.

    >>> import numpy as np
    >>> space = RNN(nodes=4)
    >>> space.name, space.size, RNN().size, RNN("darts").size
    ('rnn[nodes=4]', 1536, 669692775628800, 2642411520)
    >>> a = space.parse("tanh relu@1 tanh@1 sigmoid@2")
    >>> a.genes, space.text(space.canonical(a))
    ((0, 1, 1, 1, 0, 2, 3), 'tanh tanh@1 relu@1 sigmoid@3')
    >>> darts = RNN("darts", nodes=2)
    >>> darts.text(darts.at(7))
    "Genotype(recurrent=[('tanh', 0), ('sigmoid', 1)], concat=range(1, 3))"

    An ENAS cell has the nodes 1 to N. Node 1 reads the input x and the hidden state h; the genes are its activation,
    then for each further node the earlier node that it reads and its activation. The next hidden state is the mean
    of the loose ends, the nodes that none reads. A DARTS cell has moreover a node 0, which reads x and h with a tanh
    that is no gene; the genes are as before for the nodes 1 to N, which may read node 0, and the next hidden state is
    the mean of all of these. So ENAS cells have an odd number of genes and DARTS cells an even one. Activations are
    numbered tanh, relu, identity, sigmoid (a restriction keeps the numbers), nodes as above.

    The space holds k^N * (N-1)! ENAS or k^N * N! DARTS cells for k activations; "uniform" is over these sequences,
    which counts a cell once for each order of its nodes. The published size of ENAS's space is `published_size`.

    The network is a language model: embedding, cell, linear decoder; all sizes are `units`, the hidden state is 0 at
    the start of each text. Unlike those of the papers it has no dropout, and embedding and decoder share no weights.
    In the published code a gate c = sigmoid(V s) lets every node pass on what it reads: c * f(W s) + (1 - c) * s, and
    so it is here; without it (`highway=no`, ENAS only, as in the paper's formulas) chains of relu or identity
    may grow without bound. Only matrices in use exist, so all cells of a restriction have equally many parameters.

    Levels of canonicalisation; the representative is the smallest member, gene by gene:

    - `iso`: nodes change places as long as each reads an earlier one. Exactly the same function and parameters, up to
      the order of floating-point sums. The classes are the rooted trees of N nodes in k colours: 752 for N = 4,
      32,976,302,800 for N = 12; DARTS's, with a root of no colour, 9,345,761 for N = 8.
    - `raw`: every sequence by itself.

    Args:
        cell: "enas" or "darts".
        nodes: N; default: the paper's.
        units: Size of the hidden state.
        activations: Allowed ones.
        highway: Whether nodes have the gate.

    Attributes:
        cell: See above, as for the attributes that follow.
        nodes: See above.
        units: See above.
        activations: Allowed ones, in the order of `ACTIVATIONS`.
        highway: See above.
    """

    levels = ("iso", "raw")

    def __init__(
        self,
        cell: str = "enas",
        nodes: int | None = None,
        units: int = UNITS,
        activations: Sequence[str] = ACTIVATIONS,
        *,
        highway: bool = True,
    ) -> None:
        if cell not in NODES:
            raise ValueError(f"rnn: cell is {cell!r}; allowed: {', '.join(NODES)}")
        nodes = NODES[cell] if nodes is None else nodes
        for key, value in (("nodes", nodes), ("units", units)):
            check_range("rnn", key, value)
        if not activations or len(set(activations)) != len(activations) or not set(activations) <= set(ACTIVATIONS):
            raise ValueError(
                f"rnn: activations is {','.join(activations)!r}; allowed: one or more, each once, "
                f"of {', '.join(ACTIVATIONS)}"
            )
        if cell == "darts" and not highway:
            raise ValueError("rnn: highway is 'no' with cell=darts; allowed: yes")
        self.cell, self.nodes, self.units, self.highway = cell, nodes, units, highway
        self.activations = self.operations = tuple(f for f in ACTIVATIONS if f in activations)
        # The number of the node that reads x and h, which has no gene that says what it reads.
        self._root = int(cell == "enas")
        shown = {"cell": cell, "nodes": str(nodes), "units": str(units), "activations": ",".join(self.activations)}
        shown["highway"] = "yes" if highway else "no"
        default = ("enas", str(NODES[cell]), str(UNITS), ",".join(ACTIVATIONS), "yes")
        name = full_name("rnn", {k: v for (k, v), d in zip(shown.items(), default, strict=True) if v != d})
        allowed = tuple(map(ACTIVATIONS.index, self.activations))
        values, genes = [], []
        for node in range(1, nodes + 1):
            if node > self._root:
                values.append(tuple(range(self._root, node)))
                genes.append(f"previous_{node}")
            values.append(allowed)
            genes.append(f"activation_{node}")
        names = dict(enumerate(ACTIVATIONS))
        labels = [names if gene.startswith("activation") else {} for gene in genes]
        super().__init__("rnn", name, values, genes=genes, labels=labels)

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> RNN:
        """Build from `cell`, `nodes`, `units`, `activations` (names), `highway` (yes, no); all may be left out."""
        check_keys("rnn", options, ("cell", "nodes", "units", "activations", "highway"))
        highway = ",".join(options.get("highway", ("yes",)))
        if highway not in ("yes", "no"):
            raise ValueError(f"rnn: highway is {highway!r}; allowed: yes, no")
        return cls(
            ",".join(options.get("cell", ("enas",))),
            whole_number("rnn", "nodes", options["nodes"]) if "nodes" in options else None,
            whole_number("rnn", "units", options.get("units", (str(UNITS),))),
            options.get("activations", ACTIVATIONS),
            highway=highway == "yes",
        )

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`, a member of this space at every level; idempotent.

        Raises:
            ValueError: The level is unknown.
        """
        if level not in (None, "iso"):
            self.check_level(level)
            return a
        first, sources, activations = self._tree(a)
        # Per state those that read it, each with its key: its activation, then level by level the activations below
        # it, in the smallest order, with an end mark for each state. What has readers goes before what has none.
        readers: list[list[tuple[tuple[str, ...], int]]] = [[] for _ in range(len(sources) + 1)]
        for state in range(len(sources), 0, -1):
            activation, below = str(activations[state - 1]), readers[state]
            key: tuple[str, ...] = (activation, _END)
            if below:
                below.sort()
                direct, *deeper = map("".join, zip_longest(*(k for k, _ in below), fillvalue=""))
                key = (activation, direct + _END, *deeper)
            readers[sources[state - 1]].append((key, state))
        readers[0].sort()
        order, genes = [0], list(first)
        for place, state in enumerate(order, self._root):
            for _, reader in readers[state]:
                genes += (place, activations[reader - 1])
                order.append(reader)
        return Architecture("rnn", tuple(genes))

    def _tree(self, a: Architecture) -> tuple[tuple[int, ...], list[int], tuple[int, ...]]:
        """The gene of the state that reads x and h, if it has one, and per further state what it reads and applies.

        States are numbered from 0 in both kinds of cell.
        """
        first, rest = a.genes[: self._root], a.genes[self._root :]
        return first, [node - self._root for node in rest[::2]], rest[1::2]

    def _averaged(self, sources: Sequence[int]) -> list[int]:
        """Numbers of the states whose mean is the next hidden state."""
        if self.cell == "darts":
            return list(range(1, self.nodes + 1))
        return sorted(set(range(self.nodes)) - set(sources))

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The cell: its inputs x and h, its nodes, and their mean as output; gates are left out."""
        first, sources, activations = self._tree(a)
        operations = [ACTIVATIONS[f] for f in (*first, *activations)]
        nodes = [Node(str(node), f) for node, f in enumerate(operations if first else ["", *operations], self._root)]
        output = len(nodes) + 2
        edges = [(0, 2, ""), (1, 2, "")]
        edges += [(source + 2, state + 2, "") for state, source in enumerate(sources, 1)]
        edges += [(state + 2, output, "") for state in self._averaged(sources)]
        return {"cell": Graph((Node("x"), Node("h"), *nodes, Node("output")), tuple(edges), inputs=2)}

    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        """Size and cost of the network, by formula, and depth and activations of the cell.

        With V words, u units and N matrices behind the first node (one less for ENAS), each g = 2u wide, or g = u
        without highway: `params` = 2Vu + V + gu(2 + N), and `macs` = L(gu(2 + N) + uV) for L words of text. Both are
        the same for all cells of the space. The gates' sigmoid and the tanh of DARTS's node 0 are in no count.

        Raises:
            ValueError: As for `build`.
        """
        self.check(a)
        length, words = self._required_text(task)
        wide = self.units * (1 + self.highway)
        matrices = wide * self.units * (2 + self.nodes - self._root)
        params = words * (2 * self.units + 1) + matrices
        macs = length * (matrices + self.units * words)
        graph = self.graphs(a)["cell"]
        size = {"params": params, "macs": macs, "flops": 2 * macs, "depth": graph.depth}
        counts = {f"n_{f}": graph.count(f) for f in self.operations}
        return {key: float(value) for key, value in (size | counts).items()}

    def _required_text(self, task: Task) -> tuple[int, int]:
        """Length of a text and size of the vocabulary; ValueError where the task is another one."""
        if task.kind != "text" or len(task.shape) != 1 or not task.classes:
            raise ValueError(
                f"{self.name}: inputs of task {task.name!r} are {task.kind} of the shape {task.shape}, "
                f"with {task.classes} classes; allowed: text of the shape (length,), a class for each word"
            )
        return task.shape[0], task.classes

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The language model of `a`, on the meta device; words int64 (n, length), logits (n, length, classes).

        Raises:
            ValueError: `a` is no member, or the task is not to predict the words of a text.
        """
        self.check(a)
        _, words = self._required_text(task)
        import torch

        from ..networks.recurrent import LanguageModel, RecurrentCell

        first, sources, activations = self._tree(a)
        nodes = [(source, ACTIVATIONS[f]) for source, f in zip(sources, activations, strict=True)]
        averaged = self._averaged(sources)
        with torch.device("meta"):
            start = ACTIVATIONS[first[0]] if first else "tanh"
            cell = RecurrentCell(start, nodes, averaged, self.units, highway=self.highway)
            return LanguageModel(cell, words, self.units)

    def text(self, a: Architecture) -> str:
        """ENAS: activations in the order of the nodes, each with @ and the node it reads; DARTS: its `Genotype`."""
        if self.cell == "darts":
            pairs = [(ACTIVATIONS[f], source) for source, f in zip(a.genes[::2], a.genes[1::2], strict=True)]
            return f"Genotype(recurrent={pairs}, concat=range(1, {self.nodes + 1}))"
        first, *rest = a.genes
        nodes = [f"{ACTIVATIONS[f]}@{source}" for source, f in zip(rest[::2], rest[1::2], strict=True)]
        return " ".join([ACTIVATIONS[first], *nodes])

    def parse(self, text: str) -> Architecture:
        """Read `text(a)` back, or the numbers with which the ENAS code writes an arc, such as `0 0 1 1 2`.

        These are the activation of the first node, then for each further node the node that it reads and its
        activation, all counted from 0.

        Raises:
            ValueError: Names the malformed node.
        """
        pairs = self._genotype(text) if self.cell == "darts" else self._arc(text)
        if len(pairs) != self.nodes:
            raise ValueError(f"{self.name}: {text!r} has {len(pairs)} nodes; allowed: {self.nodes}")
        genes: list[int] = []
        for node, (activation, source) in enumerate(pairs, 1):
            allowed = list(map(str, range(self._root, node)))
            if activation not in self.activations or source not in (allowed or [""]):
                shown = f"{activation}@{source}" if source else activation
                reads = f"@ a node of {', '.join(allowed)}" if allowed else "and no other node"
                raise ValueError(
                    f"{self.name}: node {node} is {shown!r}; allowed: {', '.join(self.activations)} {reads}"
                )
            genes += ([int(source)] if source else []) + [ACTIVATIONS.index(activation)]
        return Architecture("rnn", tuple(genes))

    def _arc(self, text: str) -> list[tuple[str, str]]:
        """Per node its activation and what it reads ("" if nothing is said), as text."""
        parts = text.split()
        if not parts or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            pairs = [part.partition("@") for part in parts]
            return [(activation, source if at else "") for activation, at, source in pairs]
        if len(parts) % 2 == 0:
            raise ValueError(f"{self.name}: {text!r} has {len(parts)} numbers; allowed: one, then two for each node")
        names = dict(enumerate(ACTIVATIONS))
        sources = ["", *(str(int(part) + 1) for part in parts[1::2])]
        return [(names.get(int(f), f), source) for f, source in zip(parts[::2], sources, strict=True)]

    def _genotype(self, text: str) -> list[tuple[str, str]]:
        """Per node its activation and what it reads, as text."""
        form = _FORM.format(self.nodes + 1)
        try:
            found, concat = _call(text)
        except (SyntaxError, ValueError, TypeError, AttributeError, KeyError, RecursionError, MemoryError):
            raise ValueError(f"{self.name}: {text!r} is not of the form {form}") from None
        for node, pair in enumerate(found, 1):
            if not (isinstance(pair, tuple) and len(pair) == 2 and type(pair[0]) is str and type(pair[1]) is int):
                raise ValueError(f"{self.name}: node {node} is {pair!r}; allowed: (activation, number of a node)")
        every = range(1, len(found) + 1)
        if concat not in (every, list(every)):
            raise ValueError(f"{self.name}: concat is {concat}; allowed: all nodes, {every}")
        return [(activation, str(source)) for activation, source in found]


def _call(text: str) -> tuple[list[Any], Sequence[int]]:
    """`recurrent` and `concat` of a genotype's text, which is read and never run."""
    call: Any = ast.parse(text.strip(), mode="eval").body
    if call.func.id != "Genotype" or call.args:
        raise ValueError(text)
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    concat: Any = given.pop("concat")
    recurrent = ast.literal_eval(given.pop("recurrent"))
    if given or not isinstance(recurrent, list):
        raise ValueError(text)
    if not isinstance(concat, ast.Call):
        return recurrent, list(ast.literal_eval(concat))
    if concat.func.id != "range" or concat.keywords:  # type: ignore[attr-defined]
        raise ValueError(text)
    return recurrent, range(*map(ast.literal_eval, concat.args))
