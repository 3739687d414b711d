"""Table look-up: what the table recorded, at the fidelity asked for."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan

from ...protocols import Cost, Entry, Fidelity, Observation, Proposal, SearchSpace, Setting, Traits, Unit

__all__ = ["TableLookup"]


class TableLookup:
    """The recorded validation metric of one training, at its recorded cost.

    The training seed is the one that the harness drew for the architecture. The cost is charged in full at
    every query, in the study's unit: the table's clock, epochs, or 1 per evaluation. Curves stay in the
    table: an estimator that extrapolates them looks them up itself.
    """

    traits = Traits(accuracy_scale=True, deterministic=True)

    def fits(self, setting: Setting) -> None:
        """ValueError where the study has no table or its clock has another unit."""
        if setting.table is None:
            raise ValueError("estimator: 'table' needs a table; use 'full' to train for real")
        if setting.unit not in ("epochs", "evaluations", setting.table.clock):
            raise ValueError(
                f"budget: the clock of the table {setting.table.name!r} is in {setting.table.clock}, "
                f"so a budget is in {setting.table.clock}, epochs or evaluations, not in {setting.unit}"
            )

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Nothing to pay."""
        self.fits(setting)
        assert setting.table is not None
        self._table, self._setting = setting.table, setting
        self._sign = 1.0 if setting.task.higher_is_better else -1.0
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One look-up for each proposal; `MissingEntry` where the table has no such training."""
        return [self._look_up(p) for p in proposals]

    def _look_up(self, p: Proposal) -> Observation:
        setting, a = self._setting, p.architecture
        entry = self._table.lookup(a, pipeline=setting.pipeline.name, seed=setting.train_seed(a), fidelity=p.fidelity)
        cost, value = (recorded_cost(entry, p.fidelity, setting.unit),), float(entry.valid[-1])
        if not isfinite(value):
            return Observation(p, nan, cost, status="crashed", reason="training diverged")
        return Observation(p, self._sign * value, cost)


def recorded_cost(entry: Entry, fidelity: Fidelity, unit: Unit) -> Cost:
    """The whole charge for a recorded training, in the unit of a study."""
    if unit == "evaluations":
        return Cost("train", 1.0)
    return Cost("train", float(entry.epochs[-1]) * fidelity.data if unit == "epochs" else entry.cost)
