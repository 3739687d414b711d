"""NASWOT, how differently ReLUs see different examples, a zero-cost proxy."""

from __future__ import annotations

import torch
from torch import nn

from ..networks.zero_cost import FORWARD, ZeroCost, relu_agreement

__all__ = ["NASWOT"]


class NASWOT(ZeroCost):
    """Neural architecture search without training (Mellor et al. 2021, equations 2 and 3).

    score = ln |det K|, where K_ij = N_A - Hamming(c_i, c_j) and c_i is the binary code of example i: which of the N_A
    rectified units are active. Codes are those of `nn.ReLU` layers; a network without one crashes. So does one whose K
    is singular, which is certain where it has fewer such units than the minibatch has examples, less one: what is
    published as its score is rounding error. Labels are not looked at.

    Args:
        batch_size: Examples of a minibatch, at least 2.
        batches: Minibatches.
        repeats: Initialisations.
    """

    passes = FORWARD

    def __init__(self, batch_size: int = 128, batches: int = 1, repeats: int = 1) -> None:
        super().__init__(batch_size, batches, repeats)

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `naswot`."""
        return naswot(network, x)


def naswot(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logarithm ln |det K| for a minibatch x (n, *shape), in float64; -inf where K is singular to working precision."""
    v = torch.linalg.eigvalsh(relu_agreement(network, x))
    noise = len(v) * torch.finfo(v.dtype).eps * v[-1]
    return torch.where(v[0] > noise, torch.log(v.abs()).sum(), -torch.inf)
