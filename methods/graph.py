"""Computational graphs of architectures, as values: what drawings, path encodings and counts are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

FREE = frozenset({"skip_connect", "identity"})
"""Operations that compute nothing: they are no step of a path's depth."""

Edge = tuple[int, int, str]
"""Source, target, and the operation on the way from one to the other ("" for none)."""

_LARGEST_CODE = 4096


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a graph: what a picture calls it, and the operation that it applies to its input, if any."""

    name: str
    operation: str = ""


@dataclass(frozen=True)
class Graph:
    """A directed acyclic graph, its nodes in topological order.

    Operations stand on the edges (NAS-Bench-201, DARTS), on the nodes (ENAS, Genetic CNN), or on both.

    >>> g = Graph((Node("in"), Node("1"), Node("out")), ((0, 1, "conv"), (0, 2, "skip_connect"), (1, 2, "conv")))
    >>> sorted(g.words(2)[0]), g.depth, g.count("conv")
    ([('conv', 'conv'), ('skip_connect',)], 2, 2)

    Attributes:
        nodes: The inputs first, the output last.
        edges: Every source stands before its target; there may be several edges between two nodes.
        inputs: Number of nodes that are inputs.
        places: Where a picture puts the nodes, as (column, row); empty if it shall choose.

    Raises:
        ValueError: An edge leads backwards or to no node.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    inputs: int = 1
    places: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        for source, target, _ in self.edges:
            if not 0 <= source < target < len(self.nodes):
                raise ValueError(f"edge {source} to {target}: allowed: 0 <= source < target < {len(self.nodes)}")

    @cached_property
    def incoming(self) -> tuple[tuple[tuple[int, str], ...], ...]:
        """Per node its (source, operation of the edge), in the order of `edges`."""
        found: list[list[tuple[int, str]]] = [[] for _ in self.nodes]
        for source, target, operation in self.edges:
            found[target].append((source, operation))
        return tuple(map(tuple, found))

    def words(self, longest: int) -> list[set[tuple[str, ...]]]:
        """Per input the sequences of operations along its paths to the output, those of at most `longest`."""
        found = []
        for start in range(self.inputs):
            arriving: list[set[tuple[str, ...]]] = []
            for i, node in enumerate(self.nodes):
                here: set[tuple[str, ...]] = {()} if i == start else set()
                for source, operation in self.incoming[i]:
                    step = tuple(filter(None, (operation, node.operation)))
                    here |= {word + step for word in arriving[source] if len(word) + len(step) <= longest}
                arriving.append(here)
            found.append(arriving[-1])
        return found

    @cached_property
    def depth(self) -> int:
        """Largest number of operations, free ones aside, on a path from an input to the output; 0 without a path."""
        longest: list[int | None] = []
        for i, node in enumerate(self.nodes):
            step = _cost(node.operation)
            before = [
                found + _cost(operation)
                for source, operation in self.incoming[i]
                if (found := longest[source]) is not None
            ]
            longest.append(0 if i < self.inputs else max(before) + step if before else None)
        return longest[-1] or 0

    @cached_property
    def operations(self) -> Counter[str]:
        """How often each operation occurs, on nodes and edges."""
        return Counter(filter(None, [*(n.operation for n in self.nodes), *(o for _, _, o in self.edges)]))

    def count(self, operation: str) -> int:
        """How often an operation occurs."""
        return self.operations[operation]


def _cost(operation: str) -> int:
    return int(bool(operation) and operation not in FREE)


def longest_word(operations: int) -> int:
    """Longest path that a code over so many operations can tell in full within some 4,096 bits, at least 1."""
    longest, total = 0, 1
    while longest < 1 or total + operations ** (longest + 1) <= _LARGEST_CODE:
        longest += 1
        total += operations**longest
        if operations < 2 and longest >= 32:
            break
    return longest


def path_code(
    graphs: Mapping[str, Graph], operations: Sequence[str], *, shortest: int = 0, longest: int | None = None
) -> np.ndarray:
    """Which sequences of operations lead from an input to the output (White et al. 2021, BANANAS, section 4).

    One bit for each graph, input and sequence, sequences ordered by length, then by operation. Paths longer than
    `longest` are left out: the truncation of that paper, by length.

    Args:
        graphs: The graphs of one architecture; their number and their inputs must not depend on it.
        operations: Everything that nodes and edges may apply.
        shortest: Of the sequences that have a bit.
        longest: Of the sequences that have a bit; None for the largest number that keeps a code small.

    Returns:
        float64 (graphs x inputs x sequences,) of 0 and 1.
    """
    longest = longest_word(len(operations)) if longest is None else longest
    rank = {operation: i for i, operation in enumerate(operations)}
    offsets = np.cumsum([0, *(len(rank) ** k for k in range(shortest, longest + 1))]).tolist()
    parts = []
    for graph in graphs.values():
        for words in graph.words(longest):
            bits = np.zeros(offsets[-1])
            for word in words:
                if len(word) >= shortest:
                    place = 0
                    for operation in word:
                        place = place * len(rank) + rank[operation]
                    bits[offsets[len(word) - shortest] + place] = 1.0
            parts.append(bits)
    return np.concatenate(parts)
