"""Fewer cells: all epochs of a shallower network."""

from __future__ import annotations

from ...protocols import Fidelity
from ..lowered import Lowered

__all__ = ["Depth"]


class Depth(Lowered):
    """Train, or look up, the same cells, fewer times repeated (Zoph et al. 2018; Real et al. 2019).

    Args:
        share: Fraction of the repeated cells, in (0, 1]; the space says what it scales (`ScalableSpace`).
    """

    def __init__(self, share: float = 0.5) -> None:
        super().__init__(Fidelity(depth=share))
