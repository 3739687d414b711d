"""Gradient norm at initialisation, a zero-cost proxy."""

from __future__ import annotations

import torch
from torch import nn

from ..networks.zero_cost import ZeroCost, gradients

__all__ = ["GradNorm"]


class GradNorm(ZeroCost):
    """Sum over layers of the Euclidean norm of the loss gradient (Abdelfattah et al. 2021, section 3.1).

    score = sum_l ||dL/dW_l||_2, over the weights of convolutions and linear layers.
    """

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `grad_norm`."""
        return grad_norm(network, x, y)


def grad_norm(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """sum_l ||dL/dW_l||_2 for a minibatch x (n, *shape), y (n,)."""
    return torch.stack([g.norm() for _, g in gradients(network, x, y)]).sum()
