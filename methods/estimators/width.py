"""Fewer filters: all epochs of a narrower network."""

from __future__ import annotations

from ...protocols import Fidelity
from ..lowered import Lowered

__all__ = ["Width"]


class Width(Lowered):
    """Train, or look up, the same architecture with fewer channels or units (Zoph et al. 2018; Real et al. 2019).

    Args:
        share: Fraction of the channels, in (0, 1]; the space says what it scales (`ScalableSpace`).
    """

    def __init__(self, share: float = 0.5) -> None:
        super().__init__(Fidelity(width=share))
