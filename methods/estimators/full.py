"""Full training: the reference that every other estimator approximates."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan

from ...protocols import Cost, Observation, Proposal, SearchSpace, Setting, Trainer, Traits

__all__ = ["FullTraining"]


class FullTraining:
    """Train the architecture for real and report the validation metric after the last epoch.

    Never the best epoch's: choosing it would select on validation noise, more so for longer trainings.
    """

    traits = Traits(accuracy_scale=True, deterministic=True)

    def fits(self, setting: Setting) -> None:
        """ValueError where the study has no data to train on."""
        if setting.trainer is None:
            raise ValueError("estimator: 'full' trains for real and needs --data; on a table use 'table'")

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Nothing to pay."""
        self.fits(setting)
        assert setting.trainer is not None
        self._trainer: Trainer = setting.trainer
        self._setting = setting
        self._sign = 1.0 if setting.task.higher_is_better else -1.0
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One training for each proposal."""
        return [self._train(p) for p in proposals]

    def _train(self, p: Proposal) -> Observation:
        setting = self._setting
        costs = self._trainer.cost(p.architecture, setting, p.fidelity)
        seed = setting.train_seed(p.architecture)
        curve, _ = self._trainer.train(p.architecture, setting, seed=seed, fidelity=p.fidelity)
        if not isfinite(curve.valid[-1]):
            return Observation(p, nan, costs, status="crashed", reason="training diverged")
        return Observation(p, self._sign * curve.valid[-1], costs, curve.valid)
