"""Gradient boosting: predicts scores from an encoding, by a sum of small regression trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ...protocols import Architecture
from ...protocols.streams import integer
from ..networks.predictors import Prediction, VectorPredictor, check_count, check_positive

__all__ = ["BoostingPredictor"]


class BoostingPredictor(VectorPredictor):
    """scikit-learn's `GradientBoostingRegressor` (Friedman 2001) on an encoding of the architecture.

    Not `HistGradientBoostingRegressor`: that is made for tens of thousands of rows, wants 20 of them in a leaf, and
    computes with several threads. The model has no deviation. Fitting and predicting have no matrix products, hence
    0 FLOPs.

    Args:
        n_train: Architectures to train, at least 2.
        encoding: One of the space's encodings.
        largest: Learn only from architectures of at most so many blocks; None for all.
        trees: Rounds of boosting.
        depth: Largest depth of a tree.
        learning_rate: By which every tree is shrunk.
    """

    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn",)

    def __init__(
        self,
        n_train: int = 100,
        encoding: str = "one_hot",
        largest: int | None = None,
        trees: int = 100,
        depth: int = 3,
        learning_rate: float = 0.1,
    ) -> None:
        super().__init__(n_train, largest, encoding)
        check_count("trees", trees)
        check_count("depth", depth)
        check_positive("learning_rate", learning_rate)
        self._recipe = {"n_estimators": trees, "max_depth": depth, "learning_rate": learning_rate}

    def _learn(self, architectures: Sequence[Architecture], scores: np.ndarray, seed: int) -> float:
        from sklearn.ensemble import GradientBoostingRegressor

        # Its generator breaks ties between equally good splits.
        self._model = GradientBoostingRegressor(**self._recipe, random_state=integer(seed, "boosting") % 2**32)
        self._model.fit(self._vectors(architectures), scores)
        return 0.0

    def _predict(self, a: Architecture) -> Prediction:
        return Prediction(float(self._model.predict(self._vectors([a]))[0]), None)
