"""Graph network: predicts scores from the graphs of an architecture, as BONAS does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor
from torch.nn.functional import mse_loss

from ...protocols import Architecture, SearchSpace
from ..networks.predictor_networks import Ensemble, GraphNetwork, padded, squares
from ..networks.predictors import (
    Affine,
    Prediction,
    Predictor,
    Vocabulary,
    check_count,
    check_graphs,
    check_positive,
    normalised,
    union,
)

__all__ = ["GCNPredictor"]


class GCNPredictor(Predictor):
    """Graph convolutions over the operations of an architecture (Shi et al. 2020, BONAS, section 3.2).

    All graphs of the architecture are one, operations on edges are nodes of their own, and a global node, into which
    every other one leads, holds the prediction after the last layer. A node takes the mean over itself and its sources
    (Kipf & Welling 2017, with the degrees of a directed graph). Scores are learned with the squared error, on the scale
    of mean 0 and deviation 1. The numbering of the nodes changes nothing. The deviation is that of the members'
    predictions.

    Args:
        n_train: Architectures to train, at least 2.
        largest: Learn only from architectures of at most so many blocks; None for all.
        epochs: Passes over the training architectures.
        members: Networks, whose mean is the score.
        layers: Of graph convolution.
        width: Of every layer and of the embedding of labels.
        learning_rate: Of Adam.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    def __init__(
        self,
        n_train: int = 100,
        largest: int | None = None,
        epochs: int = 100,
        members: int = 5,
        layers: int = 3,
        width: int = 64,
        learning_rate: float = 0.01,
    ) -> None:
        super().__init__(n_train, largest)
        for field, count in {"epochs": epochs, "members": members, "layers": layers, "width": width}.items():
            check_count(field, count)
        check_positive("learning_rate", learning_rate)
        self._epochs, self._members, self._rate = epochs, members, learning_rate
        self._form = width, layers

    def _check_space(self, space: SearchSpace) -> None:
        check_graphs(space)

    def _learn(self, architectures: Sequence[Architecture], scores: np.ndarray, seed: int) -> float:
        self._vocabulary = Vocabulary(union(self._space, a)[0] for a in architectures)
        size = len(self._vocabulary)
        self._scale = Affine.standard(scores)
        self._model = Ensemble(
            lambda: GraphNetwork(size, *self._form), self._members, mse_loss, self._epochs, self._rate
        )
        return self._model.fit(self._inputs(architectures), self._scale.z(scores), seed=seed)

    def _predict(self, a: Architecture) -> Prediction:
        return self._scale.y(self._model.predict(self._inputs([a])))

    def _inputs(self, architectures: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
        """Labels (n, nodes) and adjacency (n, nodes, nodes); of smaller graphs, the last nodes are none."""
        graphs = [union(self._space, a) for a in architectures]
        labels = padded([self._vocabulary.numbers(labels) for labels, _ in graphs])
        return labels, squares([normalised(edges, len(labels)) for labels, edges in graphs])
