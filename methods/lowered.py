"""Estimates by a training of lower fidelity: a recorded one where the study has a table, else a real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..protocols import Cost, Fidelity, Observation, Proposal, SearchSpace, Setting, Traits
from .estimators.full import FullTraining
from .estimators.table import TableLookup

__all__ = ["Lowered", "gradual", "source_of"]

AXES = ("data", "resolution", "width", "depth")


def source_of(setting: Setting) -> TableLookup | FullTraining:
    """The estimator that answers by whole trainings: the table, where there is one, else the trainer."""
    return TableLookup() if setting.table is not None else FullTraining()


class Lowered:
    """An estimator that trains, or looks up, every proposal at a fidelity of at most `limit`.

    A proposal that asks for a still lower fidelity along an axis keeps its own. The score is that of the lower
    fidelity, on the accuracy scale, and mostly below that of full training: how far is a question for an audit.

    Args:
        limit: The highest fidelity to pay for; its epochs say nothing, all epochs being trained.
    """

    traits = Traits(accuracy_scale=True, deterministic=True)

    def __init__(self, limit: Fidelity) -> None:
        for axis in AXES:
            share = getattr(limit, axis)
            if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
                raise ValueError(f"share: {share!r} is not a number in (0, 1]")
        self._limit = limit

    def fits(self, setting: Setting) -> None:
        """ValueError where the table has no trainings at this fidelity, or neither table nor trainer can serve."""
        source_of(setting).fits(setting)
        if setting.table is not None and self._limit.text:
            there = setting.table.fidelities.get(setting.pipeline.name, ())
            if self._limit.text not in there:
                raise ValueError(
                    f"fidelity: the table {setting.table.name!r} has {', '.join(there) or 'none below full'} under "
                    f"{setting.pipeline.name!r}, not {self._limit.text}"
                )

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Choose table or trainer; nothing to pay."""
        self.fits(setting)
        if setting.table is None and setting.data is not None:
            from ..protocols.training import reduced

            reduced(space, setting.data, self._limit)  # refuses what the space cannot be at
        self._source = source_of(setting)
        return self._source.prepare(space, setting, seed=seed)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """The source's answers at the lower fidelity; each observation answers the proposal as it was made."""
        answers = self._source.estimate([replace(p, fidelity=self._lower(p.fidelity)) for p in proposals])
        return [replace(o, proposal=p) for o, p in zip(answers, proposals, strict=True)]

    def _lower(self, fidelity: Fidelity) -> Fidelity:
        shares = {axis: min(getattr(fidelity, axis), getattr(self._limit, axis)) for axis in AXES}
        return replace(fidelity, **shares)


def gradual(axis: str, steps: int, *, factor: float = 2.0, epochs: int | None = None) -> tuple[Fidelity, ...]:
    """A schedule of rising fidelity along one axis that ends at full training, each step `factor` times the one before.

    Strategies that increase fidelity as a search goes on (the surveys' case for gradual schedules) propose at these.

    >>> [f.text for f in gradual("data", 3)]
    ['data=0.25', 'data=0.5', '']
    >>> [f.epochs for f in gradual("epochs", 3, factor=3, epochs=20)]
    [3, 7, inf]

    Args:
        axis: `epochs`, `data`, `resolution`, `width` or `depth`.
        steps: How many fidelities, full training included.
        factor: Above 1.
        epochs: The pipeline's, needed for the axis `epochs`; counts are rounded up.

    Raises:
        ValueError: One line, which names the argument.
    """
    if axis not in ("epochs", *AXES):
        raise ValueError(f"axis: {axis!r} is not one of epochs, {', '.join(AXES)}")
    if steps < 1 or not factor > 1:
        raise ValueError(f"steps, factor: {steps}, {factor} are not an integer >= 1 and a number > 1")
    if axis == "epochs" and epochs is None:
        raise ValueError("epochs: the axis epochs needs the number of the pipeline's")
    shares = [factor**-k for k in range(steps - 1, 0, -1)]
    # Shares are named in six digits; so much is kept, that a table's text is met exactly.
    values = [-int(-(epochs or 0) * s // 1) for s in shares] if axis == "epochs" else [float(f"{s:g}") for s in shares]
    return (*(Fidelity(**{axis: v}) for v in values), Fidelity())
