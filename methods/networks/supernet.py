"""Supernets: the weights of all members of a space at once, of which every member takes its part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import cast

import torch
from torch import nn
from torch.func import functional_call

from ...protocols import Architecture, SearchSpace, Task
from ..base import required_vector
from ..spaces.darts import DARTS
from ..spaces.mlp import MLP, WIDTHS
from ..spaces.nb201 import INCOMING, NB201, OPS
from ..spaces.rnn import RNN
from .nb201 import Cell, network

Paths = Sequence[Mapping[str, torch.Tensor | None]]
"""Per edge of a cell, the operations that are computed, with the factor of each; None is no factor."""

# Positions of the three stages in `nb201.network`.
_STAGES = (1, 3, 5)


class Supernet(nn.Module):
    """Shared weights of a space, on the meta device until `training.materialise` gives them values.

    Every sub-network computes what the network that the space builds computes with `weights_of(a)`, in training
    and in evaluation. Batch normalisation keeps running statistics per operation, which all members share.
    """

    def forward(self, x: torch.Tensor, a: Architecture) -> torch.Tensor:
        """The sub-network of `a`: inputs (n, *task.shape) to outputs (n, classes, or 1)."""
        raise NotImplementedError

    def weights_of(self, a: Architecture) -> dict[str, torch.Tensor]:
        """State of `space.build(a, task)`: the shared tensors themselves, detached; clone what is to be changed."""
        raise NotImplementedError

    def flops(self, a: Architecture) -> tuple[int, int]:
        """FLOPs of one example, (forward, forward and backward), equal to those of `training.network_flops`."""
        raise NotImplementedError

    def flops_per_pass(self, a: Architecture) -> tuple[int, int]:
        """FLOPs of one pass, whatever its number of examples: (forward, forward and backward)."""
        return 0, 0


def supernet(space: SearchSpace, task: Task) -> Supernet:
    """The supernet of a space, on the meta device.

    Raises:
        ValueError: There is none for this space, or its networks do not take the task's inputs.
    """
    if isinstance(space, NB201):
        return NB201Supernet(space, task)
    if isinstance(space, MLP):
        return MLPSupernet(space, task)
    if isinstance(space, RNN):
        from .recurrent_supernet import RecurrentSupernet  # which imports this module

        return RecurrentSupernet(space, task)
    if isinstance(space, DARTS):
        from .darts_supernet import DARTSSupernet  # which imports this module

        return DARTSSupernet(space, task)
    raise ValueError(f"space: {space.name} has no supernet; allowed: mlp, nb201, rnn, darts, and their restrictions")


class SharedCell(nn.Module):
    """The cell of NAS-Bench-201 with all operations on every edge.

    Args:
        ops: Names of the operations.
        c: Channels, of input and output.
    """

    def __init__(self, ops: Sequence[str], c: int) -> None:
        super().__init__()
        columns = {op: Cell((op,) * 6, c).edges for op in ops}
        self.edges = nn.ModuleList(nn.ModuleDict({op: column[e] for op, column in columns.items()}) for e in range(6))

    def forward(self, x: torch.Tensor, paths: Paths) -> torch.Tensor:
        """(n, c, h, w) to the same; a node that nothing enters is zero."""
        nodes = [x]
        for incoming in INCOMING:
            terms = [
                self.term(edge, op, nodes[source], factor)
                for edge, source in incoming
                for op, factor in paths[edge].items()
            ]
            nodes.append(reduce(torch.add, terms) if terms else x.mul(0.0))
        return nodes[3]

    def term(self, edge: int, op: str, x: torch.Tensor, factor: torch.Tensor | None = None) -> torch.Tensor:
        """What one operation of an edge adds to the edge's target."""
        value: torch.Tensor = cast(nn.ModuleDict, self.edges[edge])[op](x)
        return value if factor is None else factor * value


class NB201Supernet(Supernet):
    """NAS-Bench-201 with all allowed operations on every edge of every cell.

    The weights of an operation on an edge of a cell are shared by all architectures that have it there.

    Args:
        space: Whole or restricted.
        task: Of images.

    Attributes:
        ops: Allowed operations, in official order.
        stem_flops: Of the stem, one example, forward.
        residual_flops: Of one of the two residual blocks.
        op_flops: Of each operation on one edge of one cell. They are those of a stage's width and resolution, and
            equal in all stages, which halve the one and double the other.
        cells: Of all stages together.
    """

    def __init__(self, space: NB201, task: Task) -> None:
        super().__init__()
        space.build(space.at(0), task)  # refuses inputs that the networks do not take
        self.ops, self.stages, self.cells = space.ops, space.stages, sum(space.stages)
        c, (inputs, height, width), outputs = space.channels, task.shape, task.classes or 1
        with torch.device("meta"):
            body = cast(nn.Sequential, network(("none",) * 6, c, space.stages, inputs, outputs))
            for i, k, n in zip(_STAGES, (c, 2 * c, 4 * c), space.stages, strict=True):
                body[i] = nn.ModuleList(SharedCell(self.ops, k) for _ in range(n))
            self.body = nn.ModuleList(body)
        square = c * c * height * width
        kernels = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}
        self.op_flops = {op: 2 * kernels.get(op, 0) * square for op in self.ops}
        self.stem_flops = 18 * inputs * c * height * width
        self.residual_flops = 28 * square  # 9 + 18 + 1 multiply-adds per weight pair, at a quarter of the pixels
        self.head_flops = 8 * c * outputs

    def forward(self, x: torch.Tensor, a: Architecture) -> torch.Tensor:
        """See `Supernet`."""
        return self.mixture(x, self.paths_of(a))

    def mixture(self, x: torch.Tensor, paths: Paths) -> torch.Tensor:
        """The network in which every cell adds up the operations of `paths`."""
        for i, part in enumerate(self.body):
            if i in _STAGES:
                for cell in cast(nn.ModuleList, part):
                    x = cell(x, paths)
            else:
                x = part(x)
        return x

    def paths_of(self, a: Architecture) -> Paths:
        """One operation on every edge; those of none too, as in the networks that the space builds."""
        return [{OPS[gene]: None} for gene in a.genes]

    def weights_of(self, a: Architecture) -> dict[str, torch.Tensor]:
        """See `Supernet`."""
        found = {}
        for key, value in self.state_dict().items():
            # body.STAGE.CELL.edges.EDGE.OPERATION... is STAGE.CELL.edges.EDGE... there.
            parts = key.split(".")[1:]
            if parts[2:3] == ["edges"] and parts.pop(4) != OPS[a.genes[int(parts[3])]]:
                continue
            found[".".join(parts)] = value
        return found

    def flops(self, a: Architecture) -> tuple[int, int]:
        """See `Supernet`."""
        return self.mixture_flops(self.paths_of(a))

    def mixture_flops(self, paths: Paths) -> tuple[int, int]:
        """As `flops`, of what `mixture` computes: operations on no way to the output have no backward pass."""
        live = [False, False, False, True]
        for node in (2, 1):
            live[node] = any(
                live[target] and source == node and paths[edge]
                for target, incoming in enumerate(INCOMING, 1)
                for edge, source in incoming
            )
        fixed = self.stem_flops + 2 * self.residual_flops + self.head_flops
        forward, both = fixed, 3 * fixed - self.stem_flops
        for target, incoming in enumerate(INCOMING, 1):
            there = self.cells * sum(self.op_flops[op] for edge, _ in incoming for op in paths[edge])
            forward += there
            both += there * (3 if live[target] else 1)
        return forward, both


class MLPSupernet(Supernet):
    """Multi-layer perceptrons of the largest number of layers and units; members take leading units.

    The i-th dense layer of an architecture takes the leading rows and columns of the i-th shared one, and its
    output layer the leading columns of the shared output layer. Initial weights are those of the largest layers:
    smaller than those of a narrow network by itself.

    Args:
        space: Whole or restricted.
        task: With inputs that can be flattened.
    """

    def __init__(self, space: MLP, task: Task) -> None:
        super().__init__()
        self._space, self._task = space, task
        inputs = required_vector(task, space.name)
        widest = max(max(1, round(space.scale * WIDTHS[(token - 1) // 4])) for token in space.dense)
        with torch.device("meta"):
            widths = (inputs, *[widest] * (space.hidden - 1))
            self.layers = nn.ModuleList(nn.Linear(n, widest) for n in widths)
            self.output = nn.Linear(widest, task.classes or 1)

    def forward(self, x: torch.Tensor, a: Architecture) -> torch.Tensor:
        """See `Supernet`."""
        network = self._space.build(a, self._task).train(self.training)
        out: torch.Tensor = functional_call(network, self._slices(a, dense(network)), (x,))
        return out

    def weights_of(self, a: Architecture) -> dict[str, torch.Tensor]:
        """See `Supernet`."""
        layers = dense(self._space.build(a, self._task))
        return {key: value.detach() for key, value in self._slices(a, layers).items()}

    def flops(self, a: Architecture) -> tuple[int, int]:
        """See `Supernet`."""
        products = [2 * m.in_features * m.out_features for m in dense(self._space.build(a, self._task)).values()]
        return sum(products), 3 * sum(products) - products[0]

    def _slices(self, a: Architecture, layers: Mapping[str, nn.Linear]) -> dict[str, torch.Tensor]:
        """Weights of the dense layers of a member, by their names in its network; gradients reach the shared ones."""
        shared = [*list(self.layers)[: len(layers) - 1], self.output]
        found = {}
        for (name, layer), large in zip(layers.items(), shared, strict=True):
            found[f"{name}.weight"] = cast(nn.Linear, large).weight[: layer.out_features, : layer.in_features]
            found[f"{name}.bias"] = cast(nn.Linear, large).bias[: layer.out_features]
        return found


def dense(network: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a perceptron by name, from input to output."""
    return {name: layer for name, layer in network.named_children() if isinstance(layer, nn.Linear)}
