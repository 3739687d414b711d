"""Gaussian process: predicts scores and their uncertainty from an encoding."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ...protocols import Architecture
from ..networks.predictors import Affine, Prediction, VectorPredictor

__all__ = ["GaussianProcessPredictor"]


class GaussianProcessPredictor(VectorPredictor):
    """scikit-learn's `GaussianProcessRegressor` on an encoding of the architecture.

    The kernel is c RBF(l) + noise (Rasmussen & Williams 2006, eq. 5.1), with one length scale l for all dimensions: as
    many as an encoding has are not to be learned from 100 trainings. Scores are learned on the scale of mean 0 and
    deviation 1; c, l and noise maximise the marginal likelihood, from one start: c = 1, l the root of the dimension,
    noise 0.1. The deviation is that of a new training, its noise included. No seed matters but those of the trainings.
    FLOPs count 0, as for all models of scikit-learn.

    Args:
        n_train: Architectures to train, at least 2.
        encoding: One of the space's encodings.
        largest: Learn only from architectures of at most so many blocks; None for all.
    """

    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn",)

    def __init__(self, n_train: int = 100, encoding: str = "one_hot", largest: int | None = None) -> None:
        super().__init__(n_train, largest, encoding)

    def _learn(self, architectures: Sequence[Architecture], scores: np.ndarray, seed: int) -> float:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        x = self._vectors(architectures)
        self._scale = Affine.standard(scores)
        kernel = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(x.shape[1] ** 0.5, (1e-2, 1e3)) + WhiteKernel(0.1, (1e-6, 1e1))
        self._model = GaussianProcessRegressor(kernel)
        with warnings.catch_warnings(), threadpool_limits(1):
            # An optimum on a bound is an answer here: scores without noise, or that the encoding says nothing about.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(x, self._scale.z(scores))
        return 0.0

    def _predict(self, a: Architecture) -> Prediction:
        mean, sd = self._model.predict(self._vectors([a]), return_std=True)
        return self._scale.y(Prediction(float(mean[0]), float(sd[0])))
