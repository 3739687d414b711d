"""Random forest: predicts scores from an encoding, by the mean over regression trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ...protocols import Architecture
from ...protocols.streams import integer
from ..networks.predictors import Prediction, VectorPredictor, check_count

__all__ = ["ForestPredictor"]


class ForestPredictor(VectorPredictor):
    """scikit-learn's `RandomForestRegressor` (Breiman 2001) on an encoding of the architecture.

    The deviation is that of the trees' predictions, which is SMAC's (Hutter et al. 2011, section 4.1) where every leaf
    holds a single value. Fitting and predicting have no matrix products, hence 0 FLOPs.

    Args:
        n_train: Architectures to train, at least 2.
        encoding: One of the space's encodings.
        largest: Learn only from architectures of at most so many blocks; None for all.
        trees: Of the forest.
    """

    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn",)

    def __init__(
        self, n_train: int = 100, encoding: str = "one_hot", largest: int | None = None, trees: int = 100
    ) -> None:
        super().__init__(n_train, largest, encoding)
        check_count("trees", trees)
        self._n_trees = trees

    def _learn(self, architectures: Sequence[Architecture], scores: np.ndarray, seed: int) -> float:
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(self._n_trees, random_state=integer(seed, "forest") % 2**32)
        forest.fit(self._vectors(architectures), scores)
        self._trees = [tree.tree_ for tree in forest.estimators_]
        return 0.0

    def _predict(self, a: Architecture) -> Prediction:
        # The trees themselves: what the forest does around them takes ten times as long as they do.
        x = self._vectors([a]).astype(np.float32)
        found = np.array([tree.predict(x).item() for tree in self._trees])
        return Prediction(float(found.mean()), float(found.std()))
