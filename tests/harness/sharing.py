"""A weight-sharing strategy as a user would write it: one shared linear layer per choice, and a policy over choices."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from nasbed.protocols import Architecture, Cost, SearchSpace, Setting


class SharedLinear:
    """Least squares by stochastic gradient on all paths of a supernet, and REINFORCE on a factorised policy.

    The supernet maps 6 inputs through the sum of one shared weight vector per (position, value); a path is an
    architecture. What it has to fit is a target that only the path of value 1 everywhere can represent well, as the
    inputs that value v sees are the true ones raised to the power v.
    """

    def __init__(self, space: SearchSpace, setting: Setting, *, seed: int, rate: float = 0.1, epochs: int = 50) -> None:
        if rate <= 0:
            raise ValueError(f"rate: {rate} is not a number > 0")
        self._rng = np.random.default_rng(seed)
        self._unit, self._left, self._rate = setting.unit, epochs, rate
        self._space = space
        self._values = [space.options((0,) * i) for i in range(len(space.sample(self._rng).genes))]
        self._weights = {(i, v): np.zeros(6) for i, vs in enumerate(self._values) for v in vs}
        self._logits = [np.zeros(len(vs)) for vs in self._values]
        self._x = self._rng.standard_normal((64, 6))
        self._y = self._x @ np.arange(1.0, 7.0) * len(self._values)
        self._baseline = 0.0

    def train_epoch(self) -> Sequence[Cost]:
        """Eight steps, each on one sampled path; the cost is in the study's unit."""
        if not self._left:
            return ()
        self._left -= 1
        for _ in range(8):
            picks = [int(self._rng.choice(len(p), p=_softmax(p))) for p in self._logits]
            path = [(i, self._values[i][k]) for i, k in enumerate(picks)]
            seen = [self._x**v for _, v in path]
            error = sum(x @ self._weights[step] for x, step in zip(seen, path, strict=True)) - self._y
            for x, step in zip(seen, path, strict=True):
                self._weights[step] -= 0.02 / prod(x.std(0) + 1) ** 0.2 * (x.T @ error) / len(error)
            reward = -float((error**2).mean())
            advantage, self._baseline = reward - self._baseline, 0.9 * self._baseline + 0.1 * reward
            for logits, k in zip(self._logits, picks, strict=True):
                gradient = -_softmax(logits)
                gradient[k] += 1.0
                logits += self._rate * np.tanh(advantage) * gradient
        return [Cost("supernet", 0.75), Cost("controller", 0.25)]

    def incumbent(self) -> Architecture:
        """The most likely choice at each position."""
        genes = tuple(vs[int(p.argmax())] for vs, p in zip(self._values, self._logits, strict=True))
        return Architecture(self._space.family, genes)


class Free(SharedLinear):
    """Costs nothing, for ever."""

    def train_epoch(self) -> Sequence[Cost]:
        """Nothing is learned."""
        return [Cost("supernet", 0.0)]


def _softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max())
    return p / p.sum()
