"""Neural performance predictors: perceptron, LSTM and graph network, and ensembles of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...protocols.streams import generator, torch_generator
from ...protocols.training import materialise, one_thread
from .predictors import Prediction

Inputs = tuple[Tensor, ...]
"""What a network takes, each of shape (n, ...)."""


class Perceptron(nn.Module):
    """Hidden layers of equal width with ReLU, and a linear output: (n, d) to (n,)."""

    def __init__(self, dimension: int, layers: int, width: int) -> None:
        super().__init__()
        sizes = [dimension, *[width] * layers]
        hidden = [part for n, m in pairwise(sizes) for part in (nn.Linear(n, m), nn.ReLU())]
        self.network = nn.Sequential(*hidden, nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (n,)."""
        return cast(Tensor, self.network(x)).squeeze(1)


class SequenceLSTM(nn.Module):
    """Embedding, LSTM and a sigmoid unit on its last state (Liu et al. 2018, PNAS, section 4.2).

    Args:
        tokens: Size of the vocabulary; token 0, unknown, is embedded as 0.
        embedding: Length of an embedding.
        units: Of the LSTM.
    """

    def __init__(self, tokens: int, embedding: int, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens + 1, embedding, padding_idx=0)
        self.input = nn.Linear(embedding, 4 * units)
        self.hidden = nn.Linear(units, 4 * units)
        self.output = nn.Linear(units, 1)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Tokens (n, steps), of which the first `lengths` (n,) count, to predictions in (0, 1), (n,)."""
        given = self.input(self.embedding(tokens))
        h = c = given.new_zeros(len(tokens), self.hidden.in_features)
        for t in range(tokens.shape[1]):
            i, f, g, o = (given[:, t] + self.hidden(h)).chunk(4, dim=1)
            kept = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            running = (lengths > t).unsqueeze(1)
            c, h = torch.where(running, kept, c), torch.where(running, torch.sigmoid(o) * torch.tanh(kept), h)
        return torch.sigmoid(cast(Tensor, self.output(h))).squeeze(1)


class GraphNetwork(nn.Module):
    """Graph convolutions H' = ReLU(A (H W + b)) (Kipf & Welling 2017, eq. 2) and a linear output of node 0.

    Args:
        labels: Size of the vocabulary of nodes; label 0, unknown or no node, is embedded as 0.
        width: Of the embedding and the layers.
        layers: Of graph convolution.
    """

    def __init__(self, labels: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(labels + 1, width, padding_idx=0)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.output = nn.Linear(width, 1)

    def forward(self, labels: Tensor, adjacency: Tensor) -> Tensor:
        """Labels (n, nodes) and normalised adjacency A (n, nodes, nodes) to predictions (n,)."""
        h = self.embedding(labels)
        for layer in self.layers:
            h = torch.relu(adjacency @ layer(h))
        return cast(Tensor, self.output(h[:, 0])).squeeze(1)


@dataclass
class Ensemble:
    """Networks of one form, fitted with Adam from weights and batches of their own.

    Args:
        build: Makes a network.
        members: Number of networks.
        loss: (predictions (n,), targets (n,)) to the loss of a batch.
        epochs: Passes over a member's data.
        learning_rate: Of Adam.
        batch_size: Of a step.
        folds: Whether member k is fitted without the k-th part of the data, of as many as there are members.
    """

    build: Callable[[], nn.Module]
    members: int
    loss: Callable[[Tensor, Tensor], Tensor]
    epochs: int
    learning_rate: float
    batch_size: int = 32
    folds: bool = False

    def fit(self, inputs: Inputs, targets: np.ndarray, *, seed: int) -> float:
        """Fit all members to targets (n,) and return the FLOPs, forward and backward."""
        y = torch.from_numpy(targets.astype(np.float32))
        with torch.device("meta"):
            built = [self.build() for _ in range(self.members)]
        _, both = example_flops(built[0], inputs)
        self._networks = [materialise(net, torch_generator(seed, "init", k)) for k, net in enumerate(built)]
        self._flops: dict[tuple[torch.Size, ...], int] = {}
        passes = 0
        with one_thread():
            for k, (network, rows) in enumerate(zip(self._networks, self._shares(len(y), seed), strict=True)):
                self._train(network, inputs, y, rows, generator(seed, "data-order", k))
                passes += self.epochs * len(rows)
        return float(both * passes)

    def _shares(self, n: int, seed: int) -> list[np.ndarray]:
        everything = np.arange(n)
        if not self.folds or n < self.members:
            return [everything] * self.members
        left_out = np.array_split(generator(seed, "folds").permutation(n), self.members)
        return [np.setdiff1d(everything, fold) for fold in left_out]

    def _train(self, network: nn.Module, inputs: Inputs, y: Tensor, rows: np.ndarray, rng: np.random.Generator) -> None:
        optimiser = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        for _ in range(self.epochs):
            order = torch.from_numpy(rng.permutation(rows))
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                optimiser.zero_grad()
                self.loss(network(*(x[batch] for x in inputs)), y[batch]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()

    def predict(self, inputs: Inputs) -> Prediction:
        """Mean and deviation of the members' predictions of one example, on the scale of the targets."""
        shapes = tuple(x.shape for x in inputs)
        if shapes not in self._flops:
            with torch.device("meta"):
                self._flops[shapes], _ = example_flops(self.build(), inputs)
        with one_thread(), torch.no_grad():
            found = np.array([network(*inputs).item() for network in self._networks])
        return Prediction(float(found.mean()), float(found.std()), float(self.members * self._flops[shapes]))


def example_flops(network: nn.Module, inputs: Inputs) -> tuple[int, int]:
    """FLOPs of one example, (forward, forward and backward), by the convention of `training.flops`.

    Args:
        network: On the meta device, so that nothing is computed.
        inputs: Of any number of examples, all padded to one size; padding is computed too, and counts.
    """
    first = [x[:1].to("meta") for x in inputs]
    with FlopCounterMode(display=False) as forward:
        output = network(*first).sum()
    with FlopCounterMode(display=False) as backward:
        output.backward()
    return int(forward.get_total_flops()), int(forward.get_total_flops() + backward.get_total_flops())


def padded(sequences: Sequence[Sequence[int]]) -> Tensor:
    """int64 (n, longest), filled up with 0."""
    return nn.utils.rnn.pad_sequence([torch.tensor(s, dtype=torch.int64) for s in sequences], batch_first=True)


def squares(matrices: Sequence[np.ndarray]) -> Tensor:
    """Square matrices as float32 (n, largest, largest), filled up with 0."""
    found = torch.zeros(len(matrices), *[max(map(len, matrices))] * 2)
    for row, m in zip(found, matrices, strict=True):
        row[: len(m), : len(m)] = torch.from_numpy(m)
    return found
