"""SNIP, the saliency of connections at initialisation, a zero-cost proxy."""

from __future__ import annotations

import torch
from torch import nn

from ..networks.zero_cost import ZeroCost, gradients

__all__ = ["Snip"]


class Snip(ZeroCost):
    """Sum of connection sensitivities (Lee et al. 2019; as a proxy, Abdelfattah et al. 2021, equation 1).

    score = sum |theta * dL/dtheta|, the gradient with respect to a mask on each weight of convolutions and linear
    layers: how much the loss changes, to first order, if the weight is taken away.
    """

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `snip`."""
        return snip(network, x, y)


def snip(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sum of |theta * dL/dtheta| for a minibatch x (n, *shape), y (n,)."""
    return torch.stack([(w.detach() * g).abs().sum() for w, g in gradients(network, x, y)]).sum()
