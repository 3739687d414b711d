"""Learning-curve extrapolation by support vector regression on the curve's beginning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...protocols import Architecture, Cost, Observation, Proposal, SearchSpace, Setting, Traits
from ...protocols.streams import generator
from ..meter import Meter
from ..networks.curves import (
    DIVERGED,
    CurveReader,
    PartialCurve,
    check_count,
    check_epochs,
    check_setting,
    crashed,
    orientation,
)

__all__ = ["CurveSVR"]

POINTS = 3
"""Epochs that a second difference needs."""
FOLDS = 3


class CurveSVR:
    """nu-SVR from the beginning of a validation curve to the metric after the last epoch (Baker et al. 2018).

    The features are the validation metric at the t epochs seen, its t - 1 first and t - 2 second differences, and
    `space.features`, all standardised. The machine, with a radial kernel, learns from whole trainings of architectures
    drawn uniformly. C and gamma (log-uniform in 1e-5 .. 10) and nu (uniform in 0 .. 1) are those of the smallest
    squared error in 3-fold cross-validation among random draws. Targets are standardised too, which the published code
    has no need for, since its targets are accuracies.

    Args:
        epochs: Epochs of an asked architecture to pay for, at least 3; by default a third of the pipeline's, rounded
            up, and at least 3.
        n_train: Whole trainings to learn from, at least 6. They are charged in `prepare`.
        draws: Of hyper-parameters.

    Attributes:
        trained_on: The architectures learned from, known after `prepare`: what an audit has to leave out.
    """

    traits = Traits(accuracy_scale=True, deterministic=False)

    def __init__(self, epochs: int | None = None, n_train: int = 100, draws: int = 100) -> None:
        check_epochs(epochs, POINTS)
        check_count("n_train", n_train, 2 * FOLDS)
        check_count("draws", draws)
        self._epochs, self._n_train, self._draws = epochs, n_train, draws
        self.trained_on: tuple[Architecture, ...] = ()

    def fits(self, setting: Setting) -> None:
        """ValueError where the pipeline has fewer than 3 epochs, or where neither table nor trainer can serve."""
        check_setting(setting, self._epochs, POINTS)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Train, or look up, `n_train` architectures to the end, and fit the machine to them."""
        self.fits(setting)
        self._space, self._setting, self._sign = space, setting, orientation(setting)
        self._reader = CurveReader(space, setting, self._epochs, POINTS)
        runs, costs = self._reader.examples(self._n_train, seed, "curve_svr")
        if len(runs) < 2 * FOLDS:
            raise ValueError(f"n_train: only {len(runs)} of {self._n_train} trainings did not diverge")
        self.trained_on = tuple(runs)
        # The beginning is read as an asked architecture's would be; it is part of the run that was paid for.
        seen = [self._reader.partial(Proposal(a)) for a in runs]
        self._seen = len(seen[0].valid)
        with Meter(setting, "fit") as work:
            x = np.stack([self._features(a, curve) for a, curve in zip(runs, seen, strict=True)])
            y = self._sign * np.array([run.valid[-1] for run in runs.values()])
            self._center, self._scale = float(y.mean()), float(y.std()) or 1.0
            self._machine = search(x, (y - self._center) / self._scale, self._draws, generator(seed, "curve_svr"))
            # Of the kernel, in every fold of every draw and once at the end: its n^2 products of d features.
            work.add(flops=(self._draws * (FOLDS - 1) + 1) * 2.0 * x.shape[0] ** 2 * x.shape[1])
        return (*costs, work.cost)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One partial training, or look-up, for each proposal."""
        return [self._answer(p) for p in proposals]

    def _answer(self, p: Proposal) -> Observation:
        curve = self._reader.partial(p)
        if not curve.usable:
            return crashed(p, curve.costs, DIVERGED)
        if len(curve.valid) != self._seen:
            return crashed(p, curve.costs, f"{len(curve.valid)} epochs known, and {self._seen} needed")
        with Meter(self._setting, "fit") as work:
            features = self._features(p.architecture, curve)
            score = self._center + self._scale * float(self._machine.predict(features[None])[0])
            work.add(flops=2.0 * len(self.trained_on) * len(features))
        return Observation(p, score, (*curve.costs, work.cost), tuple(curve.valid.tolist()))

    def _features(self, a: Architecture, curve: PartialCurve) -> np.ndarray:
        described = self._space.features(a, self._setting.task)
        return np.concatenate([curve_features(self._sign * curve.valid), [described[k] for k in sorted(described)]])


def curve_features(y: np.ndarray) -> np.ndarray:
    """The curve (t,), its first and its second differences: (3 t - 3,).

    >>> curve_features(np.array([0.0, 1.0, 4.0]))
    array([0., 1., 4., 1., 3., 2.])
    """
    return np.concatenate([y, np.diff(y), np.diff(y, n=2)])


def search(x: np.ndarray, y: np.ndarray, draws: int, rng: np.random.Generator) -> Any:
    """The machine with the smallest error in cross-validation, fitted to all examples x (n, d), y (n,)."""
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import NuSVR

    class Seeded(NuSVR):  # type: ignore[misc]
        def fit(self, *args: Any, **kwargs: Any) -> Any:
            self.random_state = 0  # nothing of it is random, but it would draw from the global generator
            return super().fit(*args, **kwargs)

    def machine(c: float, gamma: float, nu: float) -> Any:
        return make_pipeline(StandardScaler(), Seeded(C=c, gamma=gamma, nu=nu))

    logs, nus = rng.uniform(-5.0, 1.0, (draws, 2)), 1.0 - rng.random(draws)  # in (0, 1]
    parts = list(KFold(FOLDS).split(x))  # the examples are in random order already
    candidates = [(10.0**c, 10.0**gamma, nu) for (c, gamma), nu in zip(logs.tolist(), nus.tolist(), strict=True)]
    errors = [
        -cross_val_score(machine(*m), x, y, cv=parts, scoring="neg_mean_squared_error").mean() for m in candidates
    ]
    return machine(*candidates[int(np.argmin(errors))]).fit(x, y)
