"""FLOPs of the forward pass, the other baseline of every zero-cost proxy."""

from __future__ import annotations

from .params import Params

__all__ = ["FLOPs"]


class FLOPs(Params):
    """Floating-point operations of the forward pass of one example, by the space's own count; more is better.

    Charged and explained as `params` (Krishnakumar et al. 2022; Ning et al. 2021).
    """

    feature = "flops"
