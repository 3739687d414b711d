"""The supernet of DARTS: cells with every operation on every edge (Liu et al. 2019, section 2.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, reduce
from math import comb
from typing import cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ...protocols import Architecture, Task
from ..spaces.darts import DARTS
from .block_cell import INPUTS
from .cells import CellNetwork, Step, plan
from .operations import OPERATIONS, Zero
from .supernet import Paths, Supernet

Flops = tuple[int, int]
"""Of one example: (forward, forward and backward)."""


class MixedCell(nn.Module):
    """A cell of DARTS with all operations on every edge; operations on its inputs halve the size in a reduction.

    Args:
        ops: Names of the operations, "none" aside.
        nodes: Their number; each reads both inputs and all nodes before it.
        channels: Of the inputs, and of every node.
        reduction: Whether the cell halves the size.

    Attributes:
        out_channels: Channels of the output, which concatenates the nodes.
    """

    def __init__(self, ops: Sequence[str], nodes: int, channels: int, *, reduction: bool) -> None:
        super().__init__()
        self.reduction, self.out_channels = reduction, nodes * channels
        self.incoming = incoming_edges(nodes)
        self.edges = nn.ModuleList(
            nn.ModuleDict({op: OPERATIONS[op](channels, stride(source, reduction=reduction)) for op in ops})
            for node in self.incoming
            for _, source in node
        )
        self.nothing = Zero(stride(0, reduction=reduction))

    def forward(self, older: torch.Tensor, newer: torch.Tensor, paths: Paths) -> torch.Tensor:
        """As `block_cell.BlockCell`; `paths` are those of this cell, and a node that nothing enters is zero."""
        states = [older, newer]
        for node in self.incoming:
            terms = [
                self._term(edge, op, states[source], factor)
                for edge, source in node
                for op, factor in paths[edge].items()
                if op != "none"
            ]
            states.append(reduce(torch.add, terms) if terms else self.nothing(older))
        return torch.cat(states[INPUTS:], 1)

    def _term(self, edge: int, op: str, x: torch.Tensor, factor: torch.Tensor | None) -> torch.Tensor:
        value: torch.Tensor = cast(nn.ModuleDict, self.edges[edge])[op](x)
        return value if factor is None else factor * value


class DARTSSupernet(Supernet):
    """DARTS's network with all allowed operations on every edge of every cell.

    The weights of an operation on an edge of a cell are shared by all architectures that have it there. Sub-networks
    are the networks that the space builds: other than in the published search, no batch normalisation follows the
    pooling operations, and it has scales and offsets.

    Paths are those of the normal cell, then those of the reduction cell, which all cells of their kind have in common;
    "none" is a factor that the others lack.

    Args:
        space: Whole or restricted.
        task: Of images.

    Attributes:
        ops: "none" and the allowed operations, as the columns of `DARTS.alphas`.
        incoming: Per node of the normal cell, then of the reduction cell, the edges into it (edge, source); edges are
            counted over both cells, in the order of `DARTS.alphas`.
    """

    def __init__(self, space: DARTS, task: Task) -> None:
        super().__init__()
        space.build(space.at(0), task)  # refuses inputs that the networks do not take
        self._space, self.ops = space, ("none", *space.ops)
        one = incoming_edges(space.nodes)
        self._edges = sum(map(len, one))
        self.incoming = (*one, *(tuple((self._edges + edge, source) for edge, source in node) for node in one))
        steps, stem = plan(space.cells, space.channels), space.stem * space.channels

        def make(channels: int, reduction: bool) -> MixedCell:
            return MixedCell(space.ops, space.nodes, channels, reduction=reduction)

        with torch.device("meta"):
            self.body = CellNetwork(make, INPUTS, steps, inputs=task.shape[0], stem=stem, outputs=task.classes or 1)
        self._count(steps, task)

    def forward(self, x: torch.Tensor, a: Architecture) -> torch.Tensor:
        """See `Supernet`."""
        return self.mixture(x, self.paths_of(a))

    def mixture(self, x: torch.Tensor, paths: Paths) -> torch.Tensor:
        """The network in which every node adds up the operations of `paths`."""
        before = [self.body.stem(x)] * INPUTS
        for fits, cell in zip(self.body.fits, self._cells, strict=True):
            fitted = [fit(value) for fit, value in zip(cast(nn.ModuleList, fits), before, strict=True)]
            before = [before[-1], cell(*fitted, self._of_cell(paths, cell))]
        out: torch.Tensor = self.body.head(before[-1])
        return out

    def paths_of(self, a: Architecture) -> Paths:
        """One operation on each of the two edges of every node, nothing on the others.

        Raises:
            ValueError: `a` is no member.
        """
        return [{self.ops[i]: None} if i else {} for i in self._space.alphas(a).argmax(-1).ravel().tolist()]

    def weights_of(self, a: Architecture) -> dict[str, torch.Tensor]:
        """See `Supernet`."""
        paths = self.paths_of(a)
        places = {}
        for i, node in enumerate(self.incoming):
            used = [(edge, op) for edge, _ in node for op in paths[edge]]
            for edge_op, side in zip(used, ("first", "second"), strict=True):
                places[edge_op] = ["nodes", str(i % self._space.nodes), side]
        found = {}
        for key, value in self.state_dict().items():
            # body.cells.CELL.edges.EDGE.OPERATION... is cells.CELL.nodes.NODE.SIDE... there.
            parts = key.split(".")[1:]
            if parts[0] == "cells":
                shift = self._edges * self._cells[int(parts[1])].reduction
                place = places.get((int(parts[3]) + shift, parts[4]))
                if place is None:
                    continue
                parts[2:5] = place
            found[".".join(parts)] = value
        return found

    def flops(self, a: Architecture) -> tuple[int, int]:
        """See `Supernet`."""
        return self.mixture_flops(self.paths_of(a))

    def mixture_flops(self, paths: Paths) -> tuple[int, int]:
        """As `flops`, of what `mixture` computes: what is on no way to the output has no backward pass."""
        forward, both = _added([self._stem, self._head])
        live = {len(self._cells)}  # outputs that lead to the loss: 0 is the stem's, i + 1 that of cell i
        for i, cell in reversed([*enumerate(self._cells)]):
            mine = self._of_cell(paths, cell)
            read = {s for node in cell.incoming for s in self._read_by(node, mine)} if i + 1 in live else set()
            live |= {output for s, output in enumerate(_outputs_before(i)) if s in read}
            done = _added(self._ops[i][edge][op] for edge, path in enumerate(mine) for op in path)
            forward, both = forward + done[0], both + done[i + 1 in live]
            for s, done in enumerate(self._fits[i]):
                forward, both = forward + done[0], both + done[s in read]
        return forward, both

    def alpha_flops(self, paths: Paths) -> int:
        """FLOPs of one example of the gradient with respect to the factors of `paths`, which has all operations.

        No weight has a gradient, nor what is computed before the first factor: the stem, what fits it to the first two
        cells, and the operations that read it. All else costs a forward and a backward pass of equal costs.
        """
        forward, _ = self.mixture_flops(paths)
        before = self._stem[0]
        for i, cell in enumerate(self._cells[:2]):
            for s in (s for s, output in enumerate(_outputs_before(i)) if output == 0):
                from_stem = [edge for node in cell.incoming for edge, source in node if source == s]
                before += self._fits[i][s][0]
                before += _added(done for edge in from_stem for done in self._ops[i][edge].values())[0]
        return 2 * forward - before

    @property
    def _cells(self) -> list[MixedCell]:
        return cast(list[MixedCell], list(self.body.cells))

    def _of_cell(self, paths: Paths, cell: MixedCell) -> Paths:
        return paths[self._edges :] if cell.reduction else paths[: self._edges]

    @staticmethod
    def _read_by(node: Sequence[tuple[int, int]], paths: Paths) -> set[int]:
        """The states that a node needs; the zeros of a node that nothing enters are made from state 0."""
        return {source for edge, source in node if paths[edge].keys() - {"none"}} or {0}

    def _count(self, steps: Sequence[Step], task: Task) -> None:
        """Count the FLOPs of all parts."""
        inputs, *sides = task.shape
        self._stem = counted(self.body.stem, (inputs, *sides), first=True)
        before = [(self._space.stem * self._space.channels, (sides[0], sides[1]))] * INPUTS
        self._fits: list[list[Flops]] = []
        self._ops: list[list[dict[str, Flops]]] = []
        for step, fits, cell in zip(steps, self.body.fits, self._cells, strict=True):
            size = before[-1][1]
            half = (-(-size[0] // 2), -(-size[1] // 2)) if step.reduction else size
            shapes = [(channels, *at) for channels, at in before]
            self._fits.append([counted(f, s) for f, s in zip(cast(nn.ModuleList, fits), shapes, strict=True)])
            nothing = {"none": (0, 0)}
            self._ops.append([
                nothing | {
                    op: op_flops(op, stride(s, reduction=step.reduction), step.channels, size if s < INPUTS else half)
                    for op in self._space.ops
                }
                for node in cell.incoming
                for _, s in node
            ])  # fmt: skip
            before = [before[-1], (cell.out_channels, half)]
        self._head = counted(self.body.head, (before[-1][0], *before[-1][1]))


def incoming_edges(nodes: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Per node the edges into it, (edge, source): one from each input and from each node before it."""
    return tuple(tuple((comb(k + 2, 2) - 1 + source, source) for source in range(k + 2)) for k in range(nodes))


def stride(source: int, *, reduction: bool) -> int:
    """Of the operations that read a state."""
    return 2 if reduction and source < INPUTS else 1


def counted(module: nn.Module, shape: tuple[int, ...], *, first: bool = False) -> Flops:
    """FLOPs of a module on the meta device, as `training.network_flops` counts them.

    Args:
        module: Left in training mode.
        shape: Of one input.
        first: Whether the input is the network's, which has no gradient.
    """
    module.eval()  # see `training.forward_flops`
    x = torch.empty(2, *shape, device="meta", requires_grad=not first)
    with FlopCounterMode(display=False) as counter:
        out = module(x)
        forward = counter.get_total_flops()
        out.sum().backward()
    module.train().zero_grad(set_to_none=True)
    return int(forward) // 2, int(counter.get_total_flops()) // 2


@cache
def op_flops(op: str, stride: int, channels: int, size: tuple[int, int]) -> Flops:
    """FLOPs of an operation on an input of a size."""
    with torch.device("meta"):
        return counted(OPERATIONS[op](channels, stride), (channels, *size))


def _outputs_before(cell: int) -> tuple[int, int]:
    """The outputs that a cell reads, the older first: 0 is the stem's, i + 1 that of cell i."""
    return max(cell - 1, 0), cell


def _added(parts: Iterable[Flops]) -> Flops:
    found = list(parts)
    return sum(forward for forward, _ in found), sum(both for _, both in found)
