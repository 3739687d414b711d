"""Condition number of the neural tangent kernel, and number of linear regions, a zero-cost proxy."""

from __future__ import annotations

import torch
from torch import nn

from ...protocols import Traits
from ..networks.zero_cost import FORWARD, ZeroCost, counted, relu_agreement

__all__ = ["NTK"]


class NTK(ZeroCost):
    """TE-NAS's measures of trainability and expressivity (Chen et al. 2021, sections 3.1.1 and 3.1.2).

    score = -ln(lambda_max / lambda_min) of the kernel K = J J^T, (n, n), where row i of J is the gradient of the sum
    of the logits of example i with respect to all parameters: a lower condition number is better. A kernel that is
    singular to working precision has none, and the architecture crashes.

    The objective `linear_regions`, more being better, counts the different ReLU codes of the minibatch: at most
    `batch_size`, which wide networks reach. It is left out for networks without `nn.ReLU` layers.

    Args:
        batch_size: Examples of a minibatch, at least 2; each costs a backward pass over all of them.
        batches: Minibatches.
        repeats: Initialisations.
    """

    traits = Traits(accuracy_scale=False, deterministic=False, needs_data=True, sign=-1)
    objectives = ("linear_regions",)
    dtype = torch.float64

    def __init__(self, batch_size: int = 64, batches: int = 1, repeats: int = 1) -> None:
        super().__init__(batch_size, batches, repeats)
        # Two forward passes, that for the regions included, and n backward passes over the minibatch.
        self.passes = 2 * FORWARD + batch_size * (1 - FORWARD)

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The score and the number of linear regions (2,)."""
        try:
            regions = linear_regions(network, x)
        except ValueError:
            regions = x.new_full((), torch.nan)
        return torch.stack([-torch.log(condition_number(network, x)), regions])

    def flops(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
        """As counted on one of the n equal backward passes."""
        forward = counted(lambda: network(x))
        backward = counted(lambda: _row(network, network(x).sum())) - forward
        parameters = sum(p.numel() for p in network.parameters())
        kernel = 2 * len(x) ** 2 * parameters
        return forward + len(x) * backward + kernel + counted(lambda: relu_agreement(network, x))


def condition_number(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """lambda_max / lambda_min of the kernel for a minibatch x (n, *shape); infinite where it is singular."""
    j = torch.stack([_row(network, output) for output in network(x).sum(1)])
    v = torch.linalg.eigvalsh(j @ j.T)
    noise = len(x) * torch.finfo(x.dtype).eps * v[-1]
    return torch.where(v[0] > noise, v[-1] / v[0], torch.inf)


def _row(network: nn.Module, output: torch.Tensor) -> torch.Tensor:
    weights = list(network.parameters())
    found = torch.autograd.grad(output, weights, retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def linear_regions(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Number of different ReLU codes among the examples x (n, *shape)."""
    agreement = relu_agreement(network, x)
    same = agreement == agreement.diagonal()[:, None]
    return (~same.tril(-1).any(1)).sum().to(x.dtype)
