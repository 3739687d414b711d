"""Data subset: all epochs on a part of the training examples."""

from __future__ import annotations

from ...protocols import Fidelity
from ..lowered import Lowered

__all__ = ["DataSubset"]


class DataSubset(Lowered):
    """Train, or look up, on a fraction of the training examples; validation examples are all there.

    Subsets are stratified and nested (see `training.fidelity`), as for FABOLAS (Klein et al. 2017). Epochs are those of
    the pipeline, so that the number of updates falls with the fraction.

    Args:
        share: Fraction of the training examples, in (0, 1].
    """

    def __init__(self, share: float = 0.25) -> None:
        super().__init__(Fidelity(data=share))
