"""One-shot, path dropout: a supernet that computes all paths and drops some of them in each batch (Bender et al.)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...protocols import Cost, SearchSpace, Setting
from ..networks.darts_supernet import DARTSSupernet
from ..networks.one_shot import Batch, OneShot, Work
from ..networks.supernet import NB201Supernet, Paths
from ..spaces.darts import DARTS
from ..spaces.nb201 import INCOMING, NB201

__all__ = ["OneShotPathDropout"]


class OneShotPathDropout(OneShot):
    """Path dropout (Bender et al. 2018, "Understanding and Simplifying One-Shot Architecture Search", ICML, section 3).

    A path is an operation other than none on an edge. Each batch drops the paths into a node of the cell independently
    with probability r(t)^(1/k), k being their number, so that all of them are dropped with probability r(t), which
    grows linearly from 0 to r. The same paths are dropped in all cells, as the architectures repeat one cell (of DARTS,
    in all cells of a kind). What is dropped is not computed, gets no gradient and no weight decay.

    Batch statistics at evaluation by default, as published. Training batches are whole: the publication takes
    statistics over parts of its large ones.

    Args:
        epochs: See `OneShot`.
        batch_norm: See `OneShot`.
        calibration_batches: See `OneShot`.
        rate: r, in (0, 1).
        ramp_on: What grows linearly: "r", or "p", each path's own probability, from 0 to r^(1/k).
    """

    name = "one_shot_path_dropout"

    def __init__(
        self,
        epochs: int | None = None,
        batch_norm: str = "batch",
        calibration_batches: int = 20,
        rate: float = 0.1,
        ramp_on: str = "r",
    ) -> None:
        super().__init__(epochs, batch_norm, calibration_batches)
        if not isinstance(rate, (int, float)) or not 0 < rate < 1:
            raise ValueError(f"rate: {rate!r} is not a number in (0, 1)")
        if ramp_on not in ("r", "p"):
            raise ValueError(f"ramp_on: {ramp_on!r} is not one of r, p")
        self._rate, self._ramp_on = float(rate), ramp_on

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Train the supernet; ValueError where the space has no paths to drop."""
        if not isinstance(space, NB201 | DARTS):
            raise ValueError(f"space: {space.name} has no paths to drop; allowed: nb201, darts, and restrictions")
        return super().prepare(space, setting, seed=seed)

    def _step(self, batch: Batch) -> Work:
        network = self.supernet
        assert isinstance(network, NB201Supernet | DARTSSupernet)
        incoming = network.incoming if isinstance(network, DARTSSupernet) else INCOMING
        paths = kept_paths(network.ops, self._rate, batch.progress, self._ramp_on, self._stream(batch), incoming)
        loss = self._objective.loss(network.mixture(batch.x, paths), batch.y)
        loss.backward()  # type: ignore[no-untyped-call]
        return Work(len(batch.x) * float(network.mixture_flops(paths)[1]), len(batch.x))


def kept_paths(
    ops: Sequence[str],
    rate: float,
    progress: float,
    ramp_on: str,
    rng: np.random.Generator,
    incoming: Sequence[Sequence[tuple[int, int]]] = INCOMING,
) -> Paths:
    """Per edge, the operations that one batch keeps; they are added up as they are.

    Args:
        ops: Operations on every edge.
        rate: r, at the end of training.
        progress: t / T, in [0, 1].
        ramp_on: See `OneShotPathDropout`.
        rng: Draws one number for each path.
        incoming: Per node the edges into it, (edge, source).
    """
    names = [op for op in ops if op != "none"]
    kept: list[dict[str, None]] = [{} for _ in range(sum(map(len, incoming)))]
    for node in incoming:
        k = len(node) * len(names)
        p = (rate * progress) ** (1 / k) if ramp_on == "r" else progress * rate ** (1 / k)
        for edge, _ in node:
            kept[edge] = {op: None for op, coin in zip(names, rng.random(len(names)), strict=True) if coin >= p}
    return kept
