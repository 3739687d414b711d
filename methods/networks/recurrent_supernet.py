"""A supernet of recurrent cells: the shared weights of ENAS (Pham et al. 2018, section 2.1), for cells of DARTS too."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.func import functional_call

from ...protocols import Architecture, Task
from ..spaces.rnn import RNN
from .recurrent import LanguageModel, RecurrentCell
from .supernet import Supernet


class RecurrentSupernet(Supernet):
    """Language models around recurrent cells, with a matrix for every pair of a node and an earlier one.

    The matrix through which a node reads an earlier one is shared by all cells in which it reads that one, whatever
    they apply to the product: activations have no weights. The matrices of the first node, which reads input and
    hidden state, embedding and decoder are those of all cells. Initial weights are distributed as those of each network
    by itself. As these, it has no dropout, and no batch normalisation, which the published code of ENAS has while it
    searches.

    Args:
        space: Whole or restricted, of either kind of cell.
        task: Of text.

    Attributes:
        body: A network of the space, but that `cell.nodes[k]` has a layer for each of the k + 1 states that state
            k + 1 may read.
    """

    def __init__(self, space: RNN, task: Task) -> None:
        super().__init__()
        self._space, self._task = space, task
        self.body = self._network(space.at(0))
        cell = cast(RecurrentCell, self.body.cell)
        wide, n = cell.read.out_features, len(cell.nodes)
        with torch.device("meta"):
            cell.nodes = nn.ModuleList(
                nn.ModuleList(nn.Linear(space.units, wide, bias=False) for _ in range(k)) for k in range(1, n + 1)
            )
        (length,), words = task.shape, self.body.decoder.out_features
        self._recur_flops = 2 * wide * space.units
        self._forward_flops = length * ((2 + n) * self._recur_flops + 2 * words * space.units)

    def forward(self, x: torch.Tensor, a: Architecture) -> torch.Tensor:
        """The sub-network of `a`: words int64 (n, length) to logits (n, length, classes)."""
        network = self._network(a)
        logits: torch.Tensor = functional_call(network, self._part(network), (x,))
        return logits

    def weights_of(self, a: Architecture) -> dict[str, torch.Tensor]:
        """See `Supernet`."""
        return {key: value.detach() for key, value in self._part(self._network(a)).items()}

    def flops(self, a: Architecture) -> tuple[int, int]:
        """See `Supernet`; equal for all cells. The hidden state before the first word is given: it has no gradient."""
        return self._forward_flops, 3 * self._forward_flops - self._recur_flops

    def _network(self, a: Architecture) -> LanguageModel:
        return cast(LanguageModel, self._space.build(a, self._task))

    def _part(self, network: LanguageModel) -> dict[str, torch.Tensor]:
        """The shared weights of a member, by their names in its network; gradients reach them."""
        sources = cast(RecurrentCell, network.cell).sources
        found: dict[str, torch.Tensor] = {}
        for key, value in self.body.named_parameters():
            # cell.nodes.NODE.SOURCE.weight is cell.nodes.NODE.weight there.
            parts = key.split(".")
            if parts[1] == "nodes" and int(parts.pop(3)) != sources[int(parts[2])]:
                continue
            found[".".join(parts)] = value
        return found
