"""Norm of the initial weights, a zero-cost proxy without data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ...protocols import Traits
from ..networks.zero_cost import Batch, ZeroCost, layers, no_inputs

__all__ = ["L2"]


class L2(ZeroCost):
    """Sum over layers of the Euclidean norm of the initial weights (`l2_norm` of Abdelfattah et al. 2021).

    score = sum_l ||W_l||_2, over the weights of convolutions and linear layers. It looks at no data and runs no pass:
    a soft count of layers and weights, and a baseline beside `params`.

    Args:
        repeats: Initialisations.
    """

    traits = Traits(accuracy_scale=False, deterministic=False)
    passes = 0.0

    def __init__(self, repeats: int = 1) -> None:
        super().__init__(repeats=repeats)

    def inputs(self, repeat: int) -> Sequence[Batch]:
        """One example that is not looked at."""
        return [no_inputs(self._setting.task, 0.0, self.dtype)]

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `l2`."""
        return l2(network)


def l2(network: nn.Module) -> torch.Tensor:
    """sum_l ||W_l||_2."""
    return torch.stack([m.weight.detach().norm() for m in layers(network)]).sum()
