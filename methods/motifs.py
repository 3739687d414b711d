"""Motifs: small graphs of ordered nodes whose edges are operations or other motifs (Liu et al. 2018).

A motif is a tuple with one value for each pair of nodes, by target, then by source: 0 for nothing, else the number,
from 1, of an operation (on the first level) or of a motif of the level below.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from operator import mul

from .graph import Edge, Graph, Node

Motif = tuple[int, ...]


def edges_of(size: int) -> list[tuple[int, int]]:
    """All (source, target) of a motif of so many nodes, in the order of its values."""
    return [(source, target) for target in range(1, size) for source in range(target)]


def rows_of(size: int, motif: Motif) -> list[Motif]:
    """The values of each node from the second.

    >>> rows_of(4, (1, 0, 2, 3, 4, 0))
    [(1,), (0, 2), (3, 4, 0)]
    """
    return [motif[i * (i - 1) // 2 : i * (i + 1) // 2] for i in range(1, size)]


def live_motifs(sizes: Sequence[int], levels: Sequence[Sequence[Motif]]) -> list[list[Motif]]:
    """The motifs without edges that lie on no path from input to output; those without a live use are empty.

    Args:
        sizes: Number of nodes of the motifs, by level.
        levels: Motifs by level; motif 1 of the last level is the whole.
    """
    found: list[list[Motif]] = []
    passable: set[int] | None = None  # motifs of the level below that join their input to their output
    for size, motifs in zip(sizes, levels, strict=True):
        here = []
        for motif in motifs:
            if passable is not None:
                motif = tuple(v if v in passable else 0 for v in motif)
            here.append(tuple(map(mul, motif, _on_paths(size, tuple(map(bool, motif))))))
        passable = {n for n, motif in enumerate(here, start=1) if any(motif)}
        found.append(here)
    for above, below in zip(found[:0:-1], found[-2::-1], strict=True):
        used = set().union(*above)
        below[:] = [motif if n in used else (0,) * len(motif) for n, motif in enumerate(below, start=1)]
    return found


@lru_cache(maxsize=1 << 16)
def _on_paths(size: int, edges: tuple[bool, ...]) -> tuple[bool, ...]:
    """Which edges lie on a path from the first node to the last."""
    steps = list(zip(edges_of(size), edges, strict=True))
    fed, used = {0}, {size - 1}
    for (source, target), there in steps:
        if there and source in fed:
            fed.add(target)
    for (source, target), there in reversed(steps):
        if there and target in used:
            used.add(source)
    return tuple(there and source in fed and target in used for (source, target), there in steps)


def as_it_is(size: int, motif: Motif) -> Motif:
    """The motif itself."""
    return motif


def smallest_order(size: int, motif: Motif) -> Motif:
    """The smallest motif over all orders of the inner nodes in which edges lead from earlier to later ones."""
    value = dict(zip(edges_of(size), motif, strict=True))
    there = [edge for edge, v in value.items() if v]
    forms = []
    for inner in permutations(range(1, size - 1)):
        order = (0, *inner, size - 1)
        place = {node: i for i, node in enumerate(order)}
        if all(place[source] < place[target] for source, target in there):
            forms.append(tuple(value.get((order[source], order[target]), 0) for source, target in edges_of(size)))
    return min(forms)


def motif_graph(size: int, motif: Motif, names: Sequence[str]) -> Graph:
    """A motif as a graph, without nodes that no edge touches; its values are called by `names`."""
    steps = [(source, target, v) for (source, target), v in zip(edges_of(size), motif, strict=True) if v]
    held = sorted({0, size - 1, *(node for source, target, _ in steps for node in (source, target))})
    number = {node: i for i, node in enumerate(held)}
    called = {0: "input", size - 1: "output"}
    nodes = tuple(Node(called.get(node, str(node + 1))) for node in held)
    return Graph(nodes, tuple((number[source], number[target], names[v - 1]) for source, target, v in steps))


def unroll(sizes: Sequence[int], live: Sequence[Sequence[Motif]], operations: Sequence[str]) -> Graph:
    """The highest motif as a graph of operations, every use of a motif replaced by the motif.

    Nodes are called by the way to them: `1-3/2` is node 2 of the motif on edge 1-3 of the highest motif, and
    `1-3/out` its output, which is a node only if several edges enter it.

    Args:
        sizes: As of `live_motifs`.
        live: As from `live_motifs`.
        operations: What the values on the first level are called.
    """
    nodes, edges = [Node("input")], list[Edge]()

    def node(name: str, arriving: Sequence[tuple[int, str]]) -> int:
        nodes.append(Node(name))
        edges.extend((source, len(nodes) - 1, operation) for source, operation in arriving)
        return len(nodes) - 1

    def entering(level: int, number: int, source: int, way: str) -> list[tuple[int, str]]:
        """What enters the output of a motif whose input is `source`, as (source, operation)."""
        at = {0: source}
        arriving: list[tuple[int, str]] = []
        for target, row in enumerate(rows_of(sizes[level], live[level][number - 1]), start=1):
            arriving = [
                step(level, value, at[begin], f"{way}{begin + 1}-{target + 1}/")
                for begin, value in enumerate(row)
                if value
            ]
            if arriving and target < sizes[level] - 1:
                at[target] = node(f"{way}{target + 1}", arriving)
        return arriving

    def step(level: int, value: int, source: int, way: str) -> tuple[int, str]:
        """What an edge brings to its target."""
        if not level:
            return source, operations[value - 1]
        arriving = entering(level - 1, value, source, way)
        return arriving[0] if len(arriving) == 1 else (node(f"{way}out", arriving), "")

    node("output", entering(len(sizes) - 1, 1, 0, ""))
    return Graph(tuple(nodes), tuple(edges))
