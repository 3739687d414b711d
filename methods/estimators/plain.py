"""Signed saliency of connections at initialisation, a zero-cost proxy."""

from __future__ import annotations

import torch
from torch import nn

from ..networks.zero_cost import ZeroCost, gradients

__all__ = ["Plain"]


class Plain(ZeroCost):
    """Sum of signed saliencies (`plain` of Krishnakumar et al. 2022; Mozer & Smolensky 1989 for pruning).

    score = sum theta * dL/dtheta over the weights of convolutions and linear layers. The sign stays, as published, so
    that on NAS-Bench-201 its rank correlation with accuracy is negative.
    """

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `plain`."""
        return plain(network, x, y)


def plain(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sum theta * dL/dtheta for a minibatch x (n, *shape), y (n,)."""
    return torch.stack([(w.detach() * g).sum() for w, g in gradients(network, x, y)]).sum()
