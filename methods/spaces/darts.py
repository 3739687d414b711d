"""The convolutional cells of DARTS (Liu, Simonyan & Yang 2019, "DARTS: Differentiable architecture search", ICLR).

A normal and a reduction cell. A cell reads the outputs of the two cells before it; each of its four nodes reads
two different states (the inputs and the nodes before), through one of seven operations each, and adds the two
results. Facts about networks and notation are those of the authors' code (github.com/quark0/darts).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from ...protocols import Architecture, Task
from ..base import required_image
from ..categorical import Categorical, check_keys, check_range, full_name, some_of, whole_number
from ..graph import Graph, Node
from .nasnet import smallest_order

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DARTS"]

PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
OPS = PRIMITIVES[1:]
_ROLES = ("normal", "reduce")
_MOST_NODES = 8

Genes = tuple[int, ...]


def _pair(one: int, two: int) -> int:
    """The number of a pair of states: ordered by the larger, then by the smaller, whatever the node."""
    return two * (two - 1) // 2 + one if one < two else one * (one - 1) // 2 + two


PAIRS = tuple(sorted(combinations(range(_MOST_NODES + 1), 2), key=lambda pair: _pair(*pair)))
"""The pairs (smaller, larger) by number: (0, 1), (0, 2), (1, 2), (0, 3), ..."""


class DARTS(Categorical):
    """Pairs of cells of four nodes, or smaller ones.

    >>> space = DARTS()
    >>> space.size == 1_037_664_180**2
    True
    >>> small = DARTS(ops=["skip_connect", "sep_conv_3x3"], nodes=1)
    >>> small.name, small.size
    ('darts[ops=skip_connect,sep_conv_3x3;nodes=1]', 16)
    >>> small.text(small.at(1))[:67]
    "Genotype(normal=[('skip_connect', 0), ('skip_connect', 1)], normal_"
    >>> len(space.neighbours(space.at(0))), small.alphas(small.at(1)).shape
    (120, (2, 2, 3))

    Genes, for the normal cell and then the reduction cell, node by node: the pair of states that the node reads, as
    a number of `PAIRS`, the operation on the smaller of the two, and the operation on the larger. States 0 and 1
    are the cell's inputs, the older first; the nodes are the states from 2 on. Operations are indices into
    `PRIMITIVES`, whatever the restriction; "none" never occurs. Every cell is written in one way only, and
    sampling is uniform over the cells so written.

    The output of a cell concatenates all of its nodes. In a reduction cell, operations on its inputs have stride 2.

    Size with n nodes and m operations, for one cell: m^(2n) times the product of C(k + 2, 2) over k = 0 ... n - 1;
    squared for the pair.

    One edit changes the operation of one edge, or lets one edge of a node come from another state and keep its
    operation: with four nodes and seven operations 120 neighbours.

    Levels of canonicalisation:

    - `iso`: equality as graphs. Nodes change places within each cell, where none comes before one that it reads;
      the representative is the smallest member of the class in the order of genes. The same function and
      parameters, up to the order of the channels that the nodes contribute to the output, and of the weights that
      read them.
    - `raw`: every member by itself.

    Args:
        ops: Allowed operations, "none" aside.
        nodes: Of each cell, 1 to 8.
        cells: Of the network, reductions at one and two thirds of them; the paper searches with 8, and evaluates
            with 20.
        channels: Of the first cells; the paper's 16 and 36.
        stem: The stem has so many times as many channels.

    Attributes:
        ops: Allowed operations, in the order of `PRIMITIVES`.
        cell_inputs: See `protocols.CellSpace`.
        has_reduction: See `protocols.CellSpace`.
    """

    levels = ("iso", "raw")
    cell_inputs = 2
    has_reduction = True

    def __init__(
        self, ops: Sequence[str] = OPS, nodes: int = 4, cells: int = 5, channels: int = 8, stem: int = 3
    ) -> None:
        self.ops = self.operations = some_of("darts", "ops", ops, OPS)
        check_range("darts", "nodes", nodes, _MOST_NODES)
        sizes = {"cells": cells, "channels": channels, "stem": stem}
        for key, value in sizes.items():
            check_range("darts", key, value)
        self.nodes, self.cells, self.channels, self.stem = nodes, cells, channels, stem
        shown = {"ops": ",".join(self.ops), "nodes": str(nodes)} | {key: str(value) for key, value in sizes.items()}
        default = {"ops": ",".join(OPS), "nodes": "4", "cells": "5", "channels": "8", "stem": "3"}
        name = full_name("darts", {key: text for key, text in shown.items() if text != default[key]})
        allowed = tuple(map(PRIMITIVES.index, self.ops))
        places = [(role, k) for role in _ROLES for k in range(nodes)]
        pairs = {number: f"{one}+{two}" for number, (one, two) in enumerate(PAIRS)}
        names = dict(enumerate(PRIMITIVES))
        super().__init__(
            "darts",
            name,
            [values for _, k in places for values in (range(comb(k + 2, 2)), allowed, allowed)],
            genes=[f"{role}_{k + 2}_{kind}" for role, k in places for kind in ("pair", "op_1", "op_2")],
            labels=[labels for _ in places for labels in (pairs, names, names)],
        )
        # All single edits: position of the node, which of its edges, whether the source moves, and to which other.
        self._edits = [
            (3 * place, edge, moves, other)
            for place, (_, k) in enumerate(places)
            for edge in (0, 1)
            for moves, others in ((False, len(allowed) - 1), (True, k))
            for other in range(others)
        ]
        self._others = {op: tuple(o for o in allowed if o != op) for op in allowed}

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> DARTS:
        """Build from `ops` (names), `nodes`, `cells`, `channels` and `stem` (one integer each)."""
        numbers = {"nodes": "4", "cells": "5", "channels": "8", "stem": "3"}
        check_keys("darts", options, ("ops", *numbers))
        return cls(
            options.get("ops", OPS),
            **{key: whole_number("darts", key, options.get(key, (text,))) for key, text in numbers.items()},
        )

    def scaled(self, width: float, depth: float) -> DARTS:
        """The same cells in a smaller network: fewer channels and cells; see `protocols.ScalableSpace`."""
        from ...protocols.training.fidelity import part

        return DARTS(self.ops, self.nodes, part(self.cells, depth), part(self.channels, width), self.stem)

    def mutate(self, a: Architecture, rng: np.random.Generator) -> Architecture:
        """One of `neighbours(a)`, uniformly; ValueError if the space has one member only."""
        if not self._edits:
            raise ValueError(f"{self.name}: its only member has no neighbours; mutate needs two operations or nodes")
        return self._edited(a, self._edits[int(rng.integers(len(self._edits)))])

    def neighbours(self, a: Architecture) -> list[Architecture]:
        """All members that differ in one edge, by node, then by edge: in its operation, or in where it comes from."""
        return [self._edited(a, edit) for edit in self._edits]

    def _edited(self, a: Architecture, edit: tuple[int, int, bool, int]) -> Architecture:
        at, edge, moves, other = edit
        genes = a.genes
        pair, *ops = genes[at : at + 3]
        if moves:
            pair, crossed = _moves(at // 3 % self.nodes, pair, edge)[other]
            if crossed:
                ops.reverse()
        else:
            ops[edge] = self._others[ops[edge]][other]
        return Architecture("darts", (*genes[:at], pair, *ops, *genes[at + 3 :]))

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The smallest member with the same graphs, or at the level `raw` `a` itself; idempotent."""
        self.check_level(level)
        return a if level == "raw" else Architecture("darts", sum(map(_smallest, self._cells(a)), ()))

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The graphs `normal` and `reduction`; operations stand on the edges."""
        nodes = tuple(map(Node, ["input 0", "input 1", *(str(k + 2) for k in range(self.nodes)), "output"]))
        found = {}
        for name, cell in zip(("normal", "reduction"), self._cells(a), strict=True):
            edges = [(s, k + 2, PRIMITIVES[op]) for k, node in enumerate(_edges(cell)) for op, s in node]
            loose = [(state, len(nodes) - 1, "") for state in range(2, len(nodes) - 1)]
            found[name] = Graph(nodes, (*edges, *loose), inputs=2)
        return found

    def cell(self, a: Architecture, channels: int, *, reduction: bool) -> nn.Module:
        """One cell of `a`, on the meta device; see `protocols.CellSpace`. ValueError unless `a` is a member."""
        self.check(a)
        import torch

        from ..networks.block_cell import Block, BlockCell

        blocks = [
            Block((i, j), (PRIMITIVES[p], PRIMITIVES[q])) for (p, i), (q, j) in _edges(self._cells(a)[int(reduction)])
        ]
        with torch.device("meta"):
            return BlockCell(blocks, range(2, self.nodes + 2), channels, reduction=reduction)

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device; input (n, *task.shape), output (n, classes, or 1).

        That of the authors' evaluation on CIFAR-10, without its auxiliary classifier and its drop-path.

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images.
        """
        self.check(a)
        inputs, _, _ = required_image(task, self.name)
        import torch

        from ..networks.cells import CellNetwork, plan

        def make(channels: int, reduction: bool) -> nn.Module:
            return self.cell(a, channels, reduction=reduction)

        steps, stem = plan(self.cells, self.channels), self.stem * self.channels
        with torch.device("meta"):
            return CellNetwork(make, 2, steps, inputs=inputs, stem=stem, outputs=task.classes or 1)

    def alphas(self, a: Architecture) -> np.ndarray:
        """Architecture weights that `derive` reads `a` from: float64 (2, edges, 1 + operations), 0 and 1.

        Cells normal and reduction; all possible edges, node by node, each from state 0 on (14 with four nodes); the
        columns are "none" and the allowed operations. Each row has a single 1: an edge that `a` has not is "none".

        Raises:
            ValueError: `a` is no member.
        """
        self.check(a)
        found = np.zeros((2, comb(self.nodes + 2, 2) - 1, 1 + len(self.ops)))
        found[:, :, 0] = 1.0
        for weights, cell in zip(found, self._cells(a), strict=True):
            for k, node in enumerate(_edges(cell)):
                for op, source in node:
                    row = comb(k + 2, 2) - 1 + source
                    weights[row, [0, 1 + self.ops.index(PRIMITIVES[op])]] = 0.0, 1.0
        return found

    def derive(self, alphas: np.ndarray) -> Architecture:
        """The discrete cells of continuous architecture weights (DARTS, section 2.4, as in the authors' code).

        Of each node, the two edges are kept whose largest softmax weight of an operation other than "none" is
        largest, each with that operation; of equal ones, the smaller source and the earlier operation.

        Args:
            alphas: Real (2, edges, 1 + operations) before the softmax; see `alphas` for the order.

        Raises:
            ValueError: The shape is another, or a value is not finite.
        """
        alphas = np.asarray(alphas, np.float64)
        shape = (2, comb(self.nodes + 2, 2) - 1, 1 + len(self.ops))
        if alphas.shape != shape:
            raise ValueError(f"{self.name}: alphas has the shape {alphas.shape}; allowed: {shape}")
        if not np.isfinite(alphas).all():
            raise ValueError(f"{self.name}: alphas holds values that are not finite; allowed: real numbers")
        shifted = np.exp(alphas - alphas.max(-1, keepdims=True))
        weights = (shifted / shifted.sum(-1, keepdims=True))[:, :, 1:]
        strength, best = weights.max(-1), weights.argmax(-1)
        genes: list[int] = []
        for cell in (0, 1):
            for k in range(self.nodes):
                start = comb(k + 2, 2) - 1
                order = np.argsort(-strength[cell, start : start + k + 2], kind="stable")
                one, two = sorted(order[:2].tolist())
                chosen = [PRIMITIVES.index(self.ops[best[cell, start + source]]) for source in (one, two)]
                genes += [_pair(one, two), *chosen]
        return Architecture("darts", tuple(genes))

    def text(self, a: Architecture) -> str:
        """The authors' notation, `Genotype(normal=[(op, state), ...], normal_concat=range(2, 6), reduce=...)`."""
        parts = []
        for role, cell in zip(_ROLES, self._cells(a), strict=True):
            edges = ", ".join(f"('{PRIMITIVES[op]}', {source})" for node in _edges(cell) for op, source in node)
            parts.append(f"{role}=[{edges}], {role}_concat=range(2, {self.nodes + 2})")
        return f"Genotype({', '.join(parts)})"

    def parse(self, text: str) -> Architecture:
        """Read the authors' notation, the two edges of a node in any order, `concat` as a range or a list.

        Nothing is evaluated. ValueError names the malformed part.
        """
        text = text.strip()
        form = ", ".join(f"{role}=[...], {role}_concat=range(2, {self.nodes + 2})" for role in _ROLES)
        try:
            call = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            call = None
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "Genotype":
            raise ValueError(f"darts: {_cut(text)!r} is no genotype; allowed: Genotype({form})")
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        names = [name for role in _ROLES for name in (role, f"{role}_concat")]
        if call.args or len(call.keywords) != len(names) or set(given) != set(names):
            raise ValueError(f"darts: {_cut(text)!r} does not hold each of {', '.join(names)} once, by name")
        genes: list[int] = []
        for role in _ROLES:
            genes += self._parsed_cell(given[role], role, text)
            concat, states = given[f"{role}_concat"], list(range(2, self.nodes + 2))
            if _states(concat) != states:
                allowed = f"{states} or range(2, {self.nodes + 2})"
                raise ValueError(f"darts: {role}_concat is {_source(text, concat)}; allowed: {allowed}")
        return Architecture("darts", tuple(genes))

    def _parsed_cell(self, cell: ast.expr, role: str, text: str) -> list[int]:
        """The genes of a cell from the list of its edges."""
        items = cell.elts if isinstance(cell, ast.List | ast.Tuple) else None
        if items is None or len(items) != 2 * self.nodes:
            found = _source(text, cell) if items is None else f"a list of {len(items)}"
            raise ValueError(f"darts: {role} is {found}; allowed: a list of {2 * self.nodes} edges (operation, state)")
        genes: list[int] = []
        for k in range(self.nodes):
            here = f"darts: node {k + 2} of {role}"
            edges = (self._parsed_edge(item, here, k + 2, text) for item in items[2 * k : 2 * k + 2])
            (i, p), (j, q) = sorted(edges)
            if i == j:
                raise ValueError(f"{here} reads state {i} twice; allowed: two different ones, from 0 to {k + 1}")
            genes += [_pair(i, j), p, q]
        return genes

    def _parsed_edge(self, item: ast.expr, here: str, node: int, text: str) -> tuple[int, int]:
        """(state, operation) of an edge, written as (operation, state)."""
        match item:
            case ast.Tuple(elts=[ast.Constant(value=str(op)), ast.Constant(value=int(source))]):
                pass
            case _:
                raise ValueError(f"{here} holds {_source(text, item)}; allowed: ('operation', state)")
        if op not in self.ops:
            raise ValueError(f"{here} holds {_cut(op)!r}; allowed: {', '.join(self.ops)}")
        if not 0 <= source < node:
            raise ValueError(f"{here} reads state {_cut(str(source))}; allowed: 0 to {node - 1}")
        return int(source), PRIMITIVES.index(op)

    def _cells(self, a: Architecture) -> tuple[Genes, Genes]:
        """The genes of the normal cell and of the reduction cell."""
        return a.genes[: 3 * self.nodes], a.genes[3 * self.nodes :]


def _states(concat: ast.expr) -> list[int] | None:
    """The states that `range(i, j)` or a list stands for."""
    match concat:
        case ast.Call(
            func=ast.Name(id="range"), args=[ast.Constant(value=2), ast.Constant(value=int(end))], keywords=[]
        ):
            return list(range(2, min(end, _MOST_NODES + 3)))
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [part.value if isinstance(part, ast.Constant) else None for part in parts]  # type: ignore[misc]
    return None


def _source(text: str, part: ast.expr) -> str:
    """How a part of a text is written, on one line."""
    return _cut(" ".join((ast.get_source_segment(text, part) or "").split()))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _edges(cell: Genes) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Per node its two edges (operation, state), the smaller state first."""
    return [
        ((one, PAIRS[pair][0]), (two, PAIRS[pair][1]))
        for pair, one, two in zip(cell[::3], cell[1::3], cell[2::3], strict=True)
    ]


@cache
def _moves(node: int, pair: int, edge: int) -> tuple[tuple[int, bool], ...]:
    """Where an edge of a node may come from instead: the new pair, and whether the edges then change places."""
    kept = PAIRS[pair][1 - edge]
    return tuple((_pair(kept, s), (s > kept) == (edge == 0)) for s in range(node + 2) if s not in PAIRS[pair])


def _smallest(cell: Genes) -> Genes:
    """The smallest genes of a cell over all orders of its nodes."""
    edges = _edges(cell)

    def write(node: int, at: Mapping[int, int]) -> Genes:
        (i, p), (j, q) = sorted((at[source], op) for op, source in edges[node])
        return _pair(i, j), p, q

    return sum(smallest_order([[source for _, source in node] for node in edges], write), ())
