"""LSTM ensemble: predicts scores from the sequence of genes, as PNAS does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch.nn.functional import l1_loss

from ...protocols import Architecture
from ..networks.predictor_networks import Ensemble, SequenceLSTM, padded
from ..networks.predictors import Affine, Prediction, Predictor, Vocabulary, check_count, check_positive

__all__ = ["LSTMPredictor"]


class LSTMPredictor(Predictor):
    """An ensemble of LSTMs that read the genes one after the other (Liu et al. 2018, PNAS, section 4.2).

    Each value of a gene has its embedding, whatever its place; one that no training architecture had is embedded as 0.
    As in the paper, sequences may differ in length, so that larger architectures than those learned from can be
    predicted; the output is a sigmoid unit, the loss the absolute error; and each of 5 members learns from 4/5 of the
    architectures. Not as there: training scores are mapped to 0.1 ... 0.9, since those of other metrics than accuracy
    are not within (0, 1). The deviation is that of the members' predictions.

    Args:
        n_train: Architectures to train, at least 2.
        largest: Learn only from architectures of at most so many blocks; None for all.
        epochs: Passes over the training architectures.
        members: Networks of the ensemble.
        units: Of the LSTM, and length of an embedding.
        learning_rate: Of Adam.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    def __init__(
        self,
        n_train: int = 100,
        largest: int | None = None,
        epochs: int = 50,
        members: int = 5,
        units: int = 100,
        learning_rate: float = 0.01,
    ) -> None:
        super().__init__(n_train, largest)
        for field, count in {"epochs": epochs, "members": members, "units": units}.items():
            check_count(field, count)
        check_positive("learning_rate", learning_rate)
        self._epochs, self._members, self._units, self._rate = epochs, members, units, learning_rate

    def _learn(self, architectures: Sequence[Architecture], scores: np.ndarray, seed: int) -> float:
        self._vocabulary = Vocabulary(a.genes for a in architectures)
        size, units = len(self._vocabulary), self._units
        self._scale = Affine.between(scores, 0.1, 0.9)
        self._model = Ensemble(
            lambda: SequenceLSTM(size, units, units), self._members, l1_loss, self._epochs, self._rate, folds=True
        )
        return self._model.fit(self._inputs(architectures), self._scale.z(scores), seed=seed)

    def _predict(self, a: Architecture) -> Prediction:
        return self._scale.y(self._model.predict(self._inputs([a])))

    def _inputs(self, architectures: Sequence[Architecture]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (n, longest) and lengths (n,)."""
        tokens = padded([self._vocabulary.numbers(a.genes) for a in architectures])
        return tokens, torch.tensor([len(a.genes) for a in architectures])
