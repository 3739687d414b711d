"""Genetic CNN: stages of ordered nodes, one bit for each possible connection (Xie & Yuille 2017, ICCV).

A node is a 3x3 convolution, batch normalisation and ReLU, its inputs are summed. A stage of K nodes has
K (K - 1) / 2 bits, and two convolutions that no bit concerns: one reads the stage's input and feeds the nodes
without predecessor, the other reads the nodes without successor and is the stage's output. Nodes without any
connection are left out; a stage without connections is its two outer convolutions in a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ...protocols import Architecture, Task
from ..base import required_image
from ..categorical import Categorical, check_keys, check_range, full_name, whole_number
from ..graph import Graph, Node

if TYPE_CHECKING:
    from torch import nn

__all__ = ["GeneticCNN"]

NODES = (3, 4, 5)
CHANNELS = 8
MOST_NODES = 8

Bits = tuple[int, ...]


class GeneticCNN(Categorical):
    """Networks of stages, the connections inside each stage coded as bits.

    >>> space = GeneticCNN()
    >>> space.size == 2**19, space.text(space.at(0))
    (True, '0-00|0-00-000|0-00-000-0000')
    >>> a = space.parse("1-01|1-00-000|0-00-000-0000")    # 1, 2, 3 in a row; 1 before 2; no connections
    >>> space.text(space.canonical(a))                    # which two of the four nodes does not matter
    '1-01|0-00-001|0-00-000-0000'
    >>> GeneticCNN(nodes=(4,), channels=16)
    genetic_cnn[nodes=4;channels=16]

    Genes are the bits of stage 1, then of stage 2, and so on; inside a stage those of node 2 (from node 1), of
    node 3 (from nodes 1 and 2), and so on. Samples are uniform over the bit strings. Crossover takes every stage
    as a whole from either parent, as the paper does, here with probability 1/2.

    Levels of canonicalisation; the representative is the smallest equivalent member:

    - `iso`: inside a stage nodes may be numbered differently, as long as connections lead from lower to higher
      numbers, and so may nodes without connections, which the network does not hold. Exactly the same function
      and parameters, up to the order of floating-point sums. A stage has as many classes as there are unlabelled
      directed acyclic graphs of K nodes (OEIS A003087: 6, 31, 302 for K = 3, 4, 5), 56,172 by default.
    - `raw`: every bit string by itself.

    There are 2^(sum of K (K - 1) / 2) members. Channels, pooling and classifier are choices of this implementation,
    not checked against the paper: stages are followed by 2x2 max pooling, each has twice the channels of the one
    before, and after global average pooling comes one linear layer.

    Args:
        nodes: K per stage, each 2 to 8.
        channels: Of the first stage.

    Attributes:
        nodes: K per stage.
        channels: Of the first stage.
    """

    levels = ("iso", "raw")
    operations = ("conv_3x3",)

    def __init__(self, nodes: Sequence[int] = NODES, channels: int = CHANNELS) -> None:
        if not nodes or not all(2 <= k <= MOST_NODES for k in nodes):
            listed = ",".join(map(str, nodes))
            raise ValueError(f"genetic_cnn: nodes is {listed!r}; allowed: one integer 2 to {MOST_NODES} per stage")
        check_range("genetic_cnn", "channels", channels)
        self.nodes = tuple(nodes)
        self.channels = channels
        self.path_lengths = (2, max(nodes) + 2)
        ends = np.cumsum([k * (k - 1) // 2 for k in nodes]).tolist()
        self._slices = tuple(map(slice, [0, *ends[:-1]], ends))
        shown = {
            "nodes": ",".join(map(str, nodes)) if self.nodes != NODES else "",
            "channels": str(channels) if channels != CHANNELS else "",
        }
        genes = [
            f"stage{stage}_{source + 1}_{target + 1}"
            for stage, k in enumerate(nodes, start=1)
            for target in range(1, k)
            for source in range(target)
        ]
        name = full_name("genetic_cnn", {key: text for key, text in shown.items() if text})
        super().__init__("genetic_cnn", name, [(0, 1)] * len(genes), genes=genes)

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> GeneticCNN:
        """Build from `nodes` (integers, one per stage) and `channels` (one integer); all may be left out."""
        check_keys("genetic_cnn", options, ("nodes", "channels"))
        return cls(
            nodes=[whole_number("genetic_cnn", "nodes", (k,)) for k in options.get("nodes", map(str, NODES))],
            channels=whole_number("genetic_cnn", "channels", options.get("channels", (str(CHANNELS),))),
        )

    def scaled(self, width: float, depth: float) -> GeneticCNN:
        """The same members with fewer channels; ValueError for a lower depth, since layers are genes."""
        from ...protocols.training.fidelity import part, refuse_part

        refuse_part("depth", depth, self.name)
        return GeneticCNN(self.nodes, part(self.channels, width))

    def stages(self, a: Architecture) -> Iterator[tuple[int, Bits]]:
        """Per stage its number of nodes and its bits."""
        return ((k, a.genes[where]) for k, where in zip(self.nodes, self._slices, strict=True))

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`, a member of this space at every level; idempotent.

        Raises:
            ValueError: The level is unknown.
        """
        if level is not None and level != "iso":
            self.check_level(level)
            return a
        genes: Bits = ()
        for k, bits in self.stages(a):
            genes += _smallest(k, bits)
        return Architecture(self.family, genes)

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Take each stage as a whole from either parent with probability 1/2, independently."""
        coins = rng.random(len(self.nodes)).tolist()
        genes: Bits = ()
        for where, coin in zip(self._slices, coins, strict=True):
            genes += (a if coin < 0.5 else b).genes[where]
        return Architecture(self.family, genes)

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """One graph per stage, the outer convolutions included, nodes without connections left out."""
        found = {}
        for stage, (k, bits) in enumerate(self.stages(a), start=1):
            numbers, wiring = _wiring(k, bits)
            names = ["first", *map(str, numbers), "output"]
            nodes = (Node("input"), *(Node(name, "conv_3x3") for name in names))
            reads = [(source + 1, target, "") for target, sources in enumerate(wiring, start=2) for source in sources]
            found[f"stage_{stage}"] = Graph(nodes, ((0, 1, ""), *reads))
        return found

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device; input (n, *task.shape), output (n, classes, or 1).

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images.
        """
        self.check(a)
        inputs, _, _ = required_image(task, self.name)
        import torch

        from ..networks.genetic_cnn import genetic_cnn

        with torch.device("meta"):
            wirings = [_wiring(k, bits)[1] for k, bits in self.stages(a)]
            return genetic_cnn(wirings, inputs=inputs, channels=self.channels, outputs=task.classes or 1)

    def text(self, a: Architecture) -> str:
        """The bits, those of a node together, nodes joined by `-`, stages by `|`: `1-01|0-01-100`."""
        parts = []
        for k, bits in self.stages(a):
            digits = "".join(map(str, bits))
            parts.append("-".join(digits[i * (i - 1) // 2 : i * (i + 1) // 2] for i in range(1, k)))
        return "|".join(parts)

    def parse(self, text: str) -> Architecture:
        """Read `text(a)` back; ValueError names the malformed part."""
        stages = text.split("|")
        if len(stages) != len(self.nodes):
            raise ValueError(
                f"{self.name}: {text!r} has {len(stages)} stages; allowed: {len(self.nodes)}, joined by '|'"
            )
        genes: list[int] = []
        for number, (stage, k) in enumerate(zip(stages, self.nodes, strict=True), start=1):
            rows = stage.split("-")
            if [len(row) for row in rows] != list(range(1, k)) or not set(stage) <= set("01-"):
                form = "-".join("0" * i for i in range(1, k))
                raise ValueError(f"{self.name}: stage {number} is {stage!r}; allowed: 0 and 1 in the form {form!r}")
            genes += map(int, "".join(rows))
        return Architecture(self.family, tuple(genes))


def _sources(nodes: int, bits: Bits) -> list[list[int]]:
    """Per node, counted from 0, the nodes that feed it."""
    found: list[list[int]] = [[] for _ in range(nodes)]
    # Pairs by target, then by source: the order of the bits.
    pairs = sorted(combinations(range(nodes), 2), key=lambda pair: pair[::-1])
    for (source, target), bit in zip(pairs, bits, strict=True):
        if bit:
            found[target].append(source)
    return found


def _wiring(nodes: int, bits: Bits) -> tuple[list[int], list[tuple[int, ...]]]:
    """The nodes with connections, from 1, and what each of them, and then the output, reads.

    Sources are counted among the convolutions that the network holds, from 0, the one that reads the input.
    """
    before = _sources(nodes, bits)
    fed = [node for node in range(nodes) if any(node in sources for sources in before)]
    used = [node for node in range(nodes) if before[node] or node in fed]
    place = {node: i for i, node in enumerate(used, start=1)}
    reads = [tuple(place[source] for source in before[node]) or (0,) for node in used]
    last = tuple(place[node] for node in used if node not in fed) or (0,)
    return [node + 1 for node in used], [*reads, last]


@lru_cache(maxsize=1 << 16)
def _smallest(nodes: int, bits: Bits) -> Bits:
    """The smallest bits over all ways to number the nodes, connections leading to higher numbers.

    Numbers are given out one by one: the bits of a node depend on the numbers below it only, so that of all
    beginnings those with the smallest bits lead to the smallest whole.
    """
    before, after = [0] * nodes, [0] * nodes  # sets of nodes, as bits
    for target, sources in enumerate(_sources(nodes, bits)):
        for source in sources:
            before[target] |= 1 << source
            after[source] |= 1 << target
    # Of nodes with the same sources and readers, which change places freely, the lower one goes first.
    twins = {(b, a): 0 for b, a in zip(before, after, strict=True)}
    needed = list(before)
    for node, pair in enumerate(zip(before, after, strict=True)):
        needed[node] |= twins[pair]
        twins[pair] |= 1 << node
    # Beginnings: the nodes that have a number, as a set, and the bits that each other node would get, as a number.
    beginnings = [(0, [0] * nodes)]
    smallest: Bits = ()
    for place in range(nodes):
        row = min(
            rows[node]
            for done, rows in beginnings
            for node in range(nodes)
            if not done >> node & 1 and not needed[node] & ~done
        )
        beginnings = [
            (done | 1 << node, [2 * r + (b >> node & 1) for r, b in zip(rows, before, strict=True)])
            for done, rows in beginnings
            for node in range(nodes)
            if rows[node] == row and not done >> node & 1 and not needed[node] & ~done
        ]
        smallest += tuple(row >> i & 1 for i in range(place - 1, -1, -1))
    return smallest
