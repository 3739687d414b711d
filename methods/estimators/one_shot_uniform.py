"""One-shot, uniform paths: a supernet trained on random single paths (SPOS), or on fair ones (FairNAS)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...protocols import Architecture, Cost, SearchSpace, Setting
from ..networks.one_shot import Batch, OneShot, Work, path_step
from ..spaces.nb201 import NB201

__all__ = ["OneShotUniform"]


class OneShotUniform(OneShot):
    """Single Path One-Shot (Guo et al. 2020, "Single Path One-Shot Neural Architecture Search", ECCV, section 3).

    Each batch trains one architecture, drawn uniformly from the space. With `fair`, strict fairness (Chu et al. 2021,
    "FairNAS", ICCV, algorithm 1): each step takes as many paths as there are operations, from a random permutation of
    the operations on every edge, adds up their gradients, and updates once.

    Statistics are recalibrated by default, as published: running ones belong to no path.

    Args:
        epochs: See `OneShot`. With `fair`, an epoch costs one for each operation.
        batch_norm: See `OneShot`.
        calibration_batches: See `OneShot`.
        fair: Whether every step trains every operation once; for nb201.
    """

    name = "one_shot_uniform"

    def __init__(
        self,
        epochs: int | None = None,
        batch_norm: str = "recalibrate",
        calibration_batches: int = 20,
        fair: bool = False,
    ) -> None:
        super().__init__(epochs, batch_norm, calibration_batches)
        if not isinstance(fair, bool):
            raise ValueError(f"fair: {fair!r} is not one of True, False")
        self._fair = fair

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Train the supernet; ValueError where fair paths are asked of a space without equal choices on its edges."""
        if self._fair and not isinstance(space, NB201):
            raise ValueError(f"fair: True needs the operations of edges, which {space.name} has not; allowed: nb201")
        return super().prepare(space, setting, seed=seed)

    def _step(self, batch: Batch) -> Work:
        rng = self._stream(batch)
        paths = fair_paths(self._space, rng) if isinstance(self._space, NB201) and self._fair else None
        return path_step(self.supernet, self._objective, paths or [self._space.sample(rng)], batch)


def fair_paths(space: NB201, rng: np.random.Generator) -> list[Architecture]:
    """As many architectures as there are operations, every operation once on every edge."""
    columns = [rng.permutation(allowed).tolist() for allowed in space.values]
    return [Architecture(space.family, tuple(genes)) for genes in zip(*columns, strict=True)]
