"""Covariance of the Jacobian at initialisation, a zero-cost proxy."""

from __future__ import annotations

import torch
from torch import nn

from ..networks.zero_cost import ZeroCost, correlations, jacobian

__all__ = ["JacobCov"]

K = 1e-5


class JacobCov(ZeroCost):
    """How little the linear maps at different examples are correlated (Mellor et al. 2020, first version, section 3).

    score = -sum_i (ln(v_i + k) + 1 / (v_i + k)), k = 1e-5, with the eigenvalues v of the correlation matrix (n, n) of
    the rows of J, the gradients of the sum of all outputs with respect to each example. Labels are not looked at.
    """

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `jacob_cov`."""
        return jacob_cov(network, x)


def jacob_cov(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """-sum_i (ln(v_i + k) + 1 / (v_i + k)) for a minibatch x (n, *shape), in float64.

    NaN where an example has no gradient, or an equal one for all its inputs, which correlates with nothing.
    """
    c = correlations(jacobian(network, x))
    v = torch.linalg.eigvalsh(c.nan_to_num()).clamp(min=0)
    score = -(torch.log(v + K) + 1 / (v + K)).sum()
    return torch.where(c.isfinite().all(), score, torch.nan)
