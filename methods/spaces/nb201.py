"""The cell of NAS-Bench-201 (Dong & Yang 2020, "NAS-Bench-201", ICLR).

Four nodes, an operation on each of the six edges between them, 5^6 = 15,625 cells. The network stacks `cells`
copies of the cell in each of three stages of C, 2C and 4C channels, with a residual block before stages 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import permutations, product
from typing import TYPE_CHECKING

from ...protocols import Architecture, Task
from ..categorical import Categorical, check_keys, check_range, full_name, whole_number
from ..graph import Graph, Node, path_code

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

__all__ = ["NB201"]

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NONE, SKIP, CONV1, CONV3, POOL = range(5)
# Per node 1, 2, 3: the edges (gene, source) that enter it, in the order of the official string.
INCOMING = (((0, 0),), ((1, 0), (2, 1)), ((3, 0), (4, 1), (5, 2)))

Genes = tuple[int, ...]


class NB201(Categorical):
    """NAS-Bench-201, whole or restricted to some of its operations.

    >>> import numpy as np
    >>> space = NB201()
    >>> a = space.sample(np.random.default_rng(0))
    >>> space.parse(space.text(a)) == a, len(space.neighbours(a))
    (True, 24)
    >>> NB201(ops=["skip_connect", "none"], cells=1).name
    'nb201[ops=none,skip_connect;cells=1]'

    Genes are the operations of the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2 (target<-source), as indices into
    the official order none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3; a restriction keeps them.

    Levels of canonicalisation; the representative is the member of smallest index, and in brackets stands the
    number of classes of the whole space:

    - `iso` (14,125): nodes 1 and 2 change places where no operation joins them. Exactly the same function and
      parameters, up to the order of floating-point sums.
    - `raw` (15,625): every cell by itself.
    - `pruned` (8,765): moreover, edges on no path from input to output count as none.
    - `string_6466` (6,466): equal `to_unique_str(consider_zero=True)` of the reference implementation. An
      identity of strings: it merges a convolution used twice with two convolutions of the same input.
    - `semantic_5260` (5,260): equal expressions where zeros vanish, skips are the identity, sums are unordered
      and every convolution has weights of its own.

    The last three ignore that batch normalisation with a learned offset turns a zero input into a constant, and
    that dead edges have parameters: they make no claim of equal function after training.

    Encodings: `path` is that of White et al. (2021) as published, 155 bits, which takes none for an operation like any
    other: all members differ in it, and relabelled cells do too. `live_path` leaves out paths through none: 8,045
    codes, equal for relabelled cells.

    Attributes:
        ops: Allowed operations, in official order.
        channels: C, width of the first stage.
        cells: N, cells per stage; three numbers where the stages differ, of which some, not all, may be 0.
        stages: The cells of each stage.
    """

    levels = ("iso", "raw", "pruned", "string_6466", "semantic_5260")
    encodings = ("one_hot", "path", "live_path")
    operations = OPS
    cell_inputs = 1
    has_reduction = False

    def __init__(self, ops: Sequence[str] = OPS, channels: int = 16, cells: int | Sequence[int] = 5) -> None:
        for op in ops:
            if op not in OPS:
                raise ValueError(f"nb201: ops holds {op!r}; allowed: {', '.join(OPS)}")
        if len(set(ops)) != len(ops) or len(ops) < 2:
            raise ValueError(f"nb201: ops is {','.join(ops)!r}; allowed: two or more, each once, of {', '.join(OPS)}")
        check_range("nb201", "channels", channels)
        self.stages = _stages(cells)
        equal = len(set(self.stages)) == 1
        self.ops = tuple(op for op in OPS if op in ops)
        self.channels = channels
        self.cells = self.stages[0] if equal else self.stages
        written = self.stages[:1] if equal else self.stages
        shown = {"ops": ",".join(self.ops), "channels": str(channels), "cells": ",".join(map(str, written))}
        default = {"ops": ",".join(OPS), "channels": "16", "cells": "5"}
        name = full_name("nb201", {key: text for key, text in shown.items() if text != default[key]})
        values = tuple(OPS.index(op) for op in self.ops)
        genes = [f"edge_{target}_from_{source}" for target, edges in enumerate(INCOMING, 1) for _, source in edges]
        super().__init__("nb201", name, [values] * 6, genes=genes, labels=[dict(enumerate(OPS))] * 6)

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> NB201:
        """Build from `ops` (names), `channels` (an integer) and `cells` (one, or three); all may be left out."""
        check_keys("nb201", options, ("ops", "channels", "cells"))
        cells = options.get("cells", ("5",))
        parts = [whole_number("nb201", "cells", (text,)) for text in cells] if len(cells) == 3 else None
        return cls(
            ops=options.get("ops", OPS),
            channels=whole_number("nb201", "channels", options.get("channels", ("16",))),
            cells=parts or whole_number("nb201", "cells", cells),
        )

    def scaled(self, width: float, depth: float) -> NB201:
        """The same cells in a smaller network: see `protocols.ScalableSpace`.

        `round(width * C)` channels in the first stage, and `round(depth * cells)` of all cells, at least 1 of each;
        the cells are spread over the stages as evenly as possible, the earlier ones first. Of one cell per stage,
        a third is the cell of the first stage: the second and third are then a residual block each.
        """
        from ...protocols.training.fidelity import part

        left, stages = part(sum(self.stages), depth), [0, 0, 0]
        while left:
            for i, there in enumerate(self.stages):
                if left and stages[i] < there:
                    stages[i] += 1
                    left -= 1
        return NB201(self.ops, part(self.channels, width), stages)

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`, a member of this space at every level; idempotent.

        The three coarser levels number their classes on first use (well below 2 s for the whole space).

        Raises:
            ValueError: The level is unknown, or `a` is no member and the level looks it up.
        """
        if level is None or level == "iso":
            g = a.genes
            if g[2] == NONE and (g[0], g[4]) > (g[1], g[5]):
                return Architecture("nb201", (g[1], g[0], NONE, g[3], g[5], g[4]))
            return a
        if level in _KEYS:
            return self.at(_representatives(self.values, level)[self.index(a)])
        self.check_level(level)
        return a

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The cell; edges of no operation are left out."""
        return {"cell": _graph(a.genes, absent=(NONE,))}

    def encode(self, a: Architecture, encoding: str | None = None) -> np.ndarray:
        """`one_hot` (6 x operations of the restriction,), `path` and `live_path` (155,); see the class."""
        if encoding not in ("path", "live_path"):
            return super().encode(a, encoding)
        self.check(a)
        graph = _graph(a.genes, absent=() if encoding == "path" else (NONE,))
        return path_code({"cell": graph}, OPS, shortest=1, longest=3)

    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        """Size and cost of the network, and the operations of one cell.

        `params` counts dead edges too: the network holds their weights. `macs` bills convolutions and the
        classifier with its bias, as the official files do; batch normalisation, pooling and additions are free.
        `depth` is the largest number of operations other than skip on a path from input to output of the cell.

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images that the network takes.
        """
        self.check(a)
        inputs, height, width = _image_shape(task)
        c, outputs = self.channels, task.classes or 1
        n1, n3 = a.genes.count(CONV1), a.genes.count(CONV3)
        area = height * width
        params = 9 * inputs * c + 2 * c + 8 * c + (4 * c + 1) * outputs
        macs = 9 * inputs * c * area + (4 * c + 1) * outputs
        for k, cells in zip((c, 2 * c, 4 * c), self.stages, strict=True):
            if k > c:  # residual block from k/2 to k channels, all of its convolutions at the halved resolution
                area //= 4
                weights = 9 * (k // 2) * k + 9 * k * k + (k // 2) * k
                params += weights + 4 * k
                macs += weights * area
            params += cells * (n3 * (9 * k * k + 2 * k) + n1 * (k * k + 2 * k))
            macs += cells * (9 * n3 + n1) * k * k * area
        size = {"params": params, "macs": macs, "flops": 2 * macs, "depth": _depth(a.genes)}
        counts = {f"n_{op}": a.genes.count(i) for i, op in enumerate(OPS)}
        return {key: float(value) for key, value in (size | counts).items()}

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device; input (n, *task.shape), output (n, classes, or 1).

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images that the network takes.
        """
        self.check(a)
        inputs, _, _ = _image_shape(task)
        import torch

        from ..networks.nb201 import network

        with torch.device("meta"):
            return network(self._operations(a), self.channels, self.stages, inputs, task.classes or 1)

    def cell(self, a: Architecture, channels: int, *, reduction: bool) -> nn.Module:
        """One cell, on the meta device; ValueError if it should reduce: the space has no reduction cells."""
        self.check(a)
        if reduction:
            raise ValueError(f"{self.name}: reduction is True; allowed: False")
        import torch

        from ..networks.nb201 import Cell

        with torch.device("meta"):
            return Cell(self._operations(a), channels)

    def _operations(self, a: Architecture) -> tuple[str, ...]:
        return tuple(OPS[gene] for gene in a.genes)

    def text(self, a: Architecture) -> str:
        """The official string, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
        return "+".join(
            "|" + "".join(f"{OPS[a.genes[edge]]}~{source}|" for edge, source in edges) for edges in INCOMING
        )

    def parse(self, text: str) -> Architecture:
        """Read the official string; ValueError names the malformed part."""
        nodes = text.split("+")
        if len(nodes) != len(INCOMING):
            raise ValueError(f"nb201: {text!r} has {len(nodes)} nodes; allowed: 3, joined by '+'")
        genes = []
        for number, (node, edges) in enumerate(zip(nodes, INCOMING, strict=True), start=1):
            parts = node[1:-1].split("|")
            if len(node) < 2 or node[0] != "|" or node[-1] != "|" or len(parts) != len(edges):
                form = "|".join(f"op~{source}" for _, source in edges)
                raise ValueError(f"nb201: node {number} is {node!r}; allowed: '|{form}|'")
            for part, (_, source) in zip(parts, edges, strict=True):
                op, _, origin = part.partition("~")
                if op not in self.ops or origin != str(source):
                    raise ValueError(
                        f"nb201: node {number} holds {part!r}; allowed: op~{source} with op of {', '.join(self.ops)}"
                    )
                genes.append(OPS.index(op))
        return Architecture("nb201", tuple(genes))


def _stages(cells: int | Sequence[int]) -> tuple[int, int, int]:
    if isinstance(cells, int):
        check_range("nb201", "cells", cells)
        return cells, cells, cells
    stages = tuple(cells)
    if len(stages) != 3 or min(stages) < 0 or not sum(stages):
        given = ",".join(map(str, stages))
        raise ValueError(f"nb201: cells is {given!r}; allowed: one integer >= 1, or three >= 0 that are not all 0")
    return stages


def _image_shape(task: Task) -> tuple[int, int, int]:
    # The shortcut of a residual block pools 2x2 while its convolution rounds up: they meet on even sides only.
    if task.kind == "text" or len(task.shape) != 3 or task.shape[1] % 4 or task.shape[2] % 4:
        raise ValueError(
            f"nb201: inputs of task {task.name!r} have the shape {task.shape}; "
            "allowed: (channels, height, width), height and width divisible by 4"
        )
    return task.shape


def _graph(genes: Genes, absent: tuple[int, ...]) -> Graph:
    edges = tuple(
        (source, node, OPS[genes[edge]])
        for node, incoming in enumerate(INCOMING, start=1)
        for edge, source in incoming
        if genes[edge] not in absent
    )
    return Graph((Node("input"), Node("1"), Node("2"), Node("output")), edges)


def _depth(genes: Genes) -> int:
    longest: list[int | None] = [0]
    for edges in INCOMING:
        arriving = [
            before + (genes[edge] != SKIP)
            for edge, source in edges
            if genes[edge] != NONE and (before := longest[source]) is not None
        ]
        longest.append(max(arriving, default=None))
    return longest[3] or 0


def _prune(genes: Genes) -> Genes:
    """Set every edge on no path from input to output to none."""
    fed = [True]
    for edges in INCOMING:
        fed.append(any(genes[edge] != NONE and fed[source] for edge, source in edges))
    used = [False, False, False, True]
    live = list(genes)
    for node in (3, 2, 1):
        for edge, source in INCOMING[node - 1]:
            if not (used[node] and fed[source]):
                live[edge] = NONE
            elif genes[edge] != NONE:
                used[source] = True
    return tuple(live)


def _pruned_key(genes: Genes) -> Genes:
    g = _prune(genes)
    return min(g, (g[1], g[0], g[2], g[3], g[5], g[4])) if g[2] == NONE else g


def _string_key(genes: Genes) -> str:
    nodes = ["0"]
    for edges in INCOMING:
        terms = []
        for edge, source in edges:
            op, value = genes[edge], nodes[source]
            # The reference takes only the single sign '#' for zero: sums of zeros stay. The order of the names
            # matters too: it decides which sums of sums give equal strings.
            zero = op == NONE or value == "#"
            terms.append("#" if zero else value if op == SKIP else f"({value})@{OPS[op]}")
        nodes.append("+".join(sorted(terms)))
    return nodes[3]


def _expression(genes: Genes, labels: Sequence[str]) -> tuple[str, dict[int, str]]:
    """The output as a sorted sum, and the term of every edge; `labels` tell the edges' weights apart."""
    nodes = [["x"]]
    terms = {}
    for edges in INCOMING:
        value: list[str] = []
        for edge, source in edges:
            if genes[edge] == NONE or not nodes[source]:
                continue
            if genes[edge] == SKIP:
                value += nodes[source]
            else:
                terms[edge] = f"{genes[edge]}{labels[edge]}({'+'.join(nodes[source])})"
                value.append(terms[edge])
        nodes.append(sorted(value))
    return "+".join(nodes[3]), terms


@cache
def _semantic_form(genes: Genes) -> str:
    """Of a pruned cell: the smallest expression over all ways to name its convolutions.

    Only convolutions with the same term when all names are left out can be exchanged, which keeps the number of
    ways small.
    """
    _, terms = _expression(genes, [""] * 6)
    alike: dict[str, list[int]] = {}
    for edge, term in terms.items():
        if genes[edge] in (CONV1, CONV3):
            alike.setdefault(term, []).append(edge)
    forms = []
    for names in product(*(permutations(range(len(edges))) for edges in alike.values())):
        labels = [""] * 6
        for edges, order in zip(alike.values(), names, strict=True):
            for edge, name in zip(edges, order, strict=True):
                labels[edge] = f"w{name}"
        forms.append(_expression(genes, labels)[0])
    return min(forms)


_KEYS: Mapping[str, Callable[[Genes], object]] = {
    "pruned": _pruned_key,
    "string_6466": _string_key,
    "semantic_5260": lambda genes: _semantic_form(_pruned_key(genes)),
}


@cache
def _representatives(values: tuple[Genes, ...], level: str) -> tuple[int, ...]:
    """For each member's index, the smallest index of its class."""
    first: dict[object, int] = {}
    key = _KEYS[level]
    return tuple(first.setdefault(key(genes), index) for index, genes in enumerate(product(*values)))
