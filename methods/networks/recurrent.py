"""Language models around one recurrent cell, as a tree of nodes (Pham et al. 2018; Liu et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from ...protocols.training.stacked import Stack

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
}


class RecurrentCell(nn.Module):
    """States in a tree: the first from input and hidden state, every other one from an earlier state.

    State k is f(W_k s), where s is the state that it reads, or with highway bypass c * f(W_k s) + (1 - c) * s with
    c = sigmoid(V_k s). The first reads x and h, each with a matrix of its own, and bypasses h. There are no biases.
    The next hidden state is the mean of some of the states. All of this is as in the published code of both papers,
    but for its dropout, and for the batch normalisation that ENAS applies while it searches.

    Args:
        first: Activation of the first state, number 0.
        nodes: Per further state: the number of the state that it reads, and its activation.
        averaged: Numbers of the states whose mean is the next hidden state.
        units: Size of inputs and states.
        highway: Whether states have the bypass; it doubles every matrix.

    Attributes:
        activations: Names, per state.
        sources: Per state but the first, the number of the state that it reads.
        averaged: See above, as for the attributes that follow.
        units: See above.
        highway: See above.
    """

    def __init__(
        self,
        first: str,
        nodes: Sequence[tuple[int, str]],
        averaged: Sequence[int],
        units: int,
        *,
        highway: bool = True,
    ) -> None:
        super().__init__()
        self.units, self.highway = units, highway
        wide = 2 * units if highway else units
        self.read = nn.Linear(units, wide, bias=False)
        self.recur = nn.Linear(units, wide, bias=False)
        self.nodes = nn.ModuleList(nn.Linear(units, wide, bias=False) for _ in nodes)
        self.activations = (first, *(activation for _, activation in nodes))
        self.sources = tuple(source for source, _ in nodes)
        self.averaged = tuple(averaged)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, length, units) to the hidden states after each step, of the same shape; the state before is 0."""
        h = x.new_zeros(len(x), self.units)
        found = []
        for step in self.read(x).unbind(1):  # one large matrix product for all steps
            h = self._next(step, h)
            found.append(h)
        return torch.stack(found, 1)

    def _next(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        first, *further = (ACTIVATIONS[name] for name in self.activations)
        states = [self._state(x + self.recur(h), h, first)]
        for matrix, source, activation in zip(self.nodes, self.sources, further, strict=True):
            states.append(self._state(matrix(states[source]), states[source], activation))
        mean: torch.Tensor = torch.stack([states[k] for k in self.averaged]).mean(0)
        return mean

    def _state(
        self, value: torch.Tensor, bypass: torch.Tensor, activation: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        if not self.highway:
            return activation(value)
        candidate, gate = value.chunk(2, 1)
        return torch.lerp(bypass, activation(candidate), torch.sigmoid(gate))


class LanguageModel(nn.Module):
    """Predicts at every position the next word: embedding, recurrent cell, linear decoder.

    Args:
        cell: Maps (n, length, units) to the same shape.
        vocabulary: Number of words.
        units: Size of the embedding and of the hidden state.
    """

    def __init__(self, cell: nn.Module, vocabulary: int, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, units)
        self.cell = cell
        self.decoder = nn.Linear(units, vocabulary)

    @classmethod
    def stacked(cls, networks: Sequence[LanguageModel], noise_seeds: Sequence[int], dtype: torch.dtype) -> Stack:
        """Networks of one size side by side (see `stacked_recurrent`); they have no noise of their own."""
        from .stacked_recurrent import LanguageModels

        return LanguageModels(networks, dtype)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Word numbers int64 (n, length) to logits (n, length, vocabulary)."""
        logits: torch.Tensor = self.decoder(self.cell(self.embedding(words)))
        return logits
