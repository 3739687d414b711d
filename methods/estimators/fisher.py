"""Fisher information of activations at initialisation, a zero-cost proxy."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as f

from ..networks.zero_cost import ZeroCost, layers, recorded

__all__ = ["Fisher"]


class Fisher(ZeroCost):
    """Sum over channels of the saliency of their activations (Theis et al. 2018; Turner et al. 2020, equation 2).

    score = sum_c 1/2 mean_n (sum_hw a * dL/da)^2, where a (n, c, h, w) is the output of a convolution, before batch
    normalisation, or a (n, c) that of a linear layer, whose units are channels of one pixel. L is the mean loss of the
    minibatch, as in the code of Abdelfattah et al. (2021).
    """

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `fisher`."""
        return fisher(network, x, y)


def fisher(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """sum_c 1/2 mean_n (sum_hw a * dL/da)^2 for a minibatch x (n, *shape), y (n,)."""
    with recorded(layers(network), lambda inputs, output: output) as activations:
        loss = f.cross_entropy(network(x), y)
    found = torch.autograd.grad(loss, activations, materialize_grads=True)
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for a, g in zip(activations, found, strict=True):
        channels = (a.detach() * g).reshape(*a.shape[:2], -1).sum(2)
        total = total + channels.square().mean(0).sum() / 2
    return total
