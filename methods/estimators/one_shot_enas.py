"""One-shot, ENAS: a supernet trained on sub-networks from a given policy."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

import numpy as np

from ...protocols import Architecture, Cost, SearchSpace, Setting
from ..categorical import Categorical
from ..networks.one_shot import Batch, OneShot, Work, path_step
from ..networks.zero_cost import whole

__all__ = ["OneShotENAS"]


class OneShotENAS(OneShot):
    """Shared weights of ENAS (Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing", ICML).

    Each batch averages the gradients of `samples` architectures drawn from a fixed policy (section 2.2, Monte Carlo
    estimate of the gradient, M = 1). A policy that learns changes between the epochs of training and belongs to a
    strategy. Batch statistics at evaluation by default, as in the published code.

    Args:
        epochs: See `OneShot`.
        batch_norm: See `OneShot`.
        calibration_batches: See `OneShot`.
        policy: Probabilities of the values of each gene, in the order of `space.values`; None is uniform over the
            members, for spaces of other forms too.
        samples: Architectures per batch, M.
    """

    name = "one_shot_enas"

    def __init__(
        self,
        epochs: int | None = None,
        batch_norm: str = "batch",
        calibration_batches: int = 20,
        policy: Sequence[Sequence[float]] | None = None,
        samples: int = 1,
    ) -> None:
        super().__init__(epochs, batch_norm, calibration_batches)
        whole("samples", samples, 1)
        for i, row in enumerate(policy or ()):
            if not all(p >= 0 for p in row) or abs(fsum(row) - 1) > 1e-9:
                raise ValueError(f"policy: row {i} is {list(row)}; allowed: probabilities, which add up to 1")
        self._policy, self._samples = policy, samples

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Train the supernet; ValueError where the policy is not one of the space's genes."""
        if self._policy is not None:
            if not isinstance(space, Categorical):
                raise ValueError(f"policy: {space.name} has no fixed genes to draw; allowed: None")
            if (given := [*map(len, self._policy)]) != (wanted := [*map(len, space.values)]):
                raise ValueError(f"policy: rows of {given} probabilities; allowed for {space.name}: {wanted}")
        return super().prepare(space, setting, seed=seed)

    def _step(self, batch: Batch) -> Work:
        rng = self._stream(batch)
        paths = [draw(self._space, self._policy, rng) for _ in range(self._samples)]
        done = path_step(self.supernet, self._objective, paths, batch)
        for parameter in self.supernet.parameters():
            if parameter.grad is not None:
                parameter.grad /= self._samples
        return done


def draw(space: SearchSpace, policy: Sequence[Sequence[float]] | None, rng: np.random.Generator) -> Architecture:
    """One architecture: every gene by its own probabilities, or uniformly over the members."""
    if policy is None:
        return space.sample(rng)
    assert isinstance(space, Categorical)
    genes = (int(rng.choice(allowed, p=row)) for allowed, row in zip(space.values, policy, strict=True))
    return Architecture(space.family, tuple(genes))
