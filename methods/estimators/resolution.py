"""Lower resolution: all epochs on smaller images."""

from __future__ import annotations

from ...protocols import Fidelity
from ..lowered import Lowered

__all__ = ["Resolution"]


class Resolution(Lowered):
    """Train, or look up, the same network on images that were reduced (Chrabaszcz et al. 2017, down-sampled ImageNet).

    Args:
        share: Fraction of the length of a side, in (0, 1]; both the training and the validation images are reduced.
    """

    def __init__(self, share: float = 0.5) -> None:
        super().__init__(Fidelity(resolution=share))
