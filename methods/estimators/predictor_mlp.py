"""Perceptron ensemble: predicts scores from an encoding, as BANANAS does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch.nn.functional import l1_loss

from ...protocols import Architecture
from ..networks.predictor_networks import Ensemble, Perceptron
from ..networks.predictors import Affine, Prediction, VectorPredictor, check_count, check_positive

__all__ = ["MLPPredictor"]


class MLPPredictor(VectorPredictor):
    """An ensemble of perceptrons on an encoding of the architecture (White et al. 2021, BANANAS, section 4).

    As there, 5 networks differ in their weights and batches, and learn with the absolute error and Adam. Not as there:
    the networks are shallow, since ten layers of 20 units hardly learn from torch's initial weights; scores are learned
    on the scale of mean 0 and deviation 1; and the default encoding is `one_hot`, which every space has, not `path`.
    The deviation is that of the members' predictions.

    Args:
        n_train: Architectures to train, at least 2.
        encoding: One of the space's encodings.
        largest: Learn only from architectures of at most so many blocks; None for all.
        epochs: Passes over the training architectures.
        members: Networks of the ensemble.
        layers: Hidden layers.
        width: Units of a hidden layer.
        learning_rate: Of Adam.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    def __init__(
        self,
        n_train: int = 100,
        encoding: str = "one_hot",
        largest: int | None = None,
        epochs: int = 150,
        members: int = 5,
        layers: int = 2,
        width: int = 64,
        learning_rate: float = 0.01,
    ) -> None:
        super().__init__(n_train, largest, encoding)
        counts = {"epochs": epochs, "members": members, "layers": layers, "width": width}
        for field, count in counts.items():
            check_count(field, count)
        check_positive("learning_rate", learning_rate)
        self._epochs, self._members, self._rate = epochs, members, learning_rate
        self._form = layers, width

    def _learn(self, architectures: Sequence[Architecture], scores: np.ndarray, seed: int) -> float:
        x = self._inputs(architectures)
        self._scale = Affine.standard(scores)
        self._model = Ensemble(
            lambda: Perceptron(x.shape[1], *self._form), self._members, l1_loss, self._epochs, self._rate
        )
        return self._model.fit((x,), self._scale.z(scores), seed=seed)

    def _predict(self, a: Architecture) -> Prediction:
        return self._scale.y(self._model.predict((self._inputs([a]),)))

    def _inputs(self, architectures: Sequence[Architecture]) -> torch.Tensor:
        return torch.from_numpy(self._vectors(architectures)).float()
