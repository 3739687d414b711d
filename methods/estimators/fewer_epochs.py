"""Fewer epochs: the first epochs of the full training stand for all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...protocols import Cost, Observation, Proposal, SearchSpace, Setting, Traits
from ..lowered import source_of

__all__ = ["FewerEpochs"]


class FewerEpochs:
    """Train, or look up, only the first `epochs` epochs of the pipeline (its schedule is truncated, not shrunk).

    The `truncated` variant of low fidelity by epochs (Zela et al. 2018; Li et al. 2017 use it as a
    rung). A proposal that asks for still fewer epochs keeps its own fidelity.

    Args:
        epochs: Epochs to pay for, at least 1; by default a quarter of the pipeline's, rounded up.
    """

    traits = Traits(accuracy_scale=True, deterministic=True)

    def __init__(self, epochs: int | None = None) -> None:
        if epochs is not None and (not isinstance(epochs, int) or epochs < 1):
            raise ValueError(f"epochs: {epochs!r} is not a positive integer")
        self._epochs = epochs

    def fits(self, setting: Setting) -> None:
        """ValueError where the pipeline has fewer epochs, or where neither table nor trainer can serve."""
        full = setting.pipeline.epochs
        if self._epochs is not None and self._epochs > full:
            raise ValueError(
                f"epochs: {self._epochs} is more than the {full} of the pipeline {setting.pipeline.name!r}"
            )
        source_of(setting).fits(setting)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Choose table or trainer; nothing to pay."""
        self.fits(setting)
        self._limit = self._epochs or -(-setting.pipeline.epochs // 4)
        self._chosen = source_of(setting)
        return self._chosen.prepare(space, setting, seed=seed)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """The inner estimator at the lower fidelity; each observation answers the proposal as it was made."""
        lowered = [
            replace(p, fidelity=replace(p.fidelity, epochs=min(p.fidelity.epochs, self._limit))) for p in proposals
        ]
        answers = self._chosen.estimate(lowered)
        return [replace(o, proposal=p) for o, p in zip(answers, proposals, strict=True)]
