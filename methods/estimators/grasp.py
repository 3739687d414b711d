"""GraSP, how much pruning would change the flow of gradients, a zero-cost proxy."""

from __future__ import annotations

import torch
from torch import nn

from ..networks.zero_cost import ZeroCost, gradients

__all__ = ["Grasp"]


class Grasp(ZeroCost):
    """Gradient signal preservation (Wang et al. 2020, equation 8; as a proxy, Abdelfattah et al. 2021, equation 1).

    score = -sum theta * (H g), with the gradient g of the loss and its Hessian H, over the weights of convolutions and
    linear layers. As published, the temperature of the logits being 1.
    """

    passes = 3.0
    """Differentiating forward and backward pass costs twice what they do."""

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `grasp`."""
        return grasp(network, x, y)


def grasp(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """-sum theta * (H g) for a minibatch x (n, *shape), y (n,).

    H g is the gradient of g^T stop(g), so that the Hessian itself is never formed.
    """
    weights, g = zip(*gradients(network, x, y, create_graph=True), strict=True)
    product = torch.stack([(part * part.detach()).sum() for part in g]).sum()
    hg = torch.autograd.grad(product, weights, materialize_grads=True)
    return -torch.stack([(w.detach() * h).sum() for w, h in zip(weights, hg, strict=True)]).sum()
