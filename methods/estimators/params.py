"""Number of parameters, the baseline of every zero-cost proxy."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

from ...protocols import Cost, Observation, Proposal, SearchSpace, Setting, Traits
from ..meter import Meter

__all__ = ["Params"]


class Params:
    """The number of trainable parameters, by the space's own count; more is taken to be better.

    No network is built and no data are looked at: a proxy that does not outdo it has learned nothing about the
    architecture beyond its size (Krishnakumar et al. 2022; White et al. 2022).
    """

    traits = Traits(accuracy_scale=False, deterministic=True)
    feature = "params"

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Nothing to pay."""
        self._space, self._setting = space, setting
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One count for each proposal; it costs an evaluation or some seconds, and no epochs or FLOPs."""
        return [self._count(p) for p in proposals]

    def _count(self, p: Proposal) -> Observation:
        work = Meter(self._setting, "proxy")
        work.add(evaluations=1)
        try:
            with work:
                score = float(self._space.features(p.architecture, self._setting.task)[self.feature])
        except ValueError as error:
            return Observation(p, nan, (work.cost,), status="crashed", reason=str(error).partition("\n")[0])
        return Observation(p, score, (work.cost,))
