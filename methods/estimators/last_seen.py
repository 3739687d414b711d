"""Last seen value: the validation metric after the first epochs stands for the one after all of them."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocols import Cost, Observation, Proposal, SearchSpace, Setting, Traits
from ..networks.curves import DIVERGED, CurveReader, check_epochs, check_setting, crashed, orientation

__all__ = ["LastSeen"]


class LastSeen:
    """The validation metric after the last epoch seen: what every extrapolation of learning curves has to beat.

    Unlike `fewer_epochs`, a table that records only some of the epochs is read up to the next recorded one.

    Args:
        epochs: Epochs to pay for, at least 1; by default a third of the pipeline's, rounded up.
    """

    traits = Traits(accuracy_scale=True, deterministic=True)

    def __init__(self, epochs: int | None = None) -> None:
        check_epochs(epochs)
        self._epochs = epochs

    def fits(self, setting: Setting) -> None:
        """ValueError where the pipeline has fewer epochs, or where neither table nor trainer can serve."""
        check_setting(setting, self._epochs)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Nothing to pay."""
        self.fits(setting)
        self._reader = CurveReader(space, setting, self._epochs)
        self._sign = orientation(setting)
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One partial training, or look-up, for each proposal."""
        return [self._answer(p) for p in proposals]

    def _answer(self, p: Proposal) -> Observation:
        curve = self._reader.partial(p)
        if not curve.usable:
            return crashed(p, curve.costs, DIVERGED)
        return Observation(p, self._sign * float(curve.valid[-1]), curve.costs, tuple(curve.valid.tolist()))
