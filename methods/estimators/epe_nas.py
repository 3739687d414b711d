"""EPE-NAS, the correlation of the Jacobian within classes, a zero-cost proxy."""

from __future__ import annotations

import torch
from torch import nn

from ..networks.zero_cost import ZeroCost, correlations, jacobian

__all__ = ["EPENAS"]

K = 1e-5


class EPENAS(ZeroCost):
    """Efficient performance estimation without training (Lopes et al. 2021, equations 4 to 6).

    The rows of J, the gradients of the sum of all outputs with respect to each example, are correlated within each
    class c: s_c = sum_ij ln(|corr_ij| + k), k = 1e-5. score = sum_c |s_c| for up to 100 classes. For more, s_c is
    divided by the examples of its class, and score = sum_cd |s_c - s_d| / classes. Classes count that the minibatch
    holds.
    """

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `epe_nas`."""
        classes = self._setting.task.classes
        assert classes is not None
        return epe_nas(network, x, y, classes)


def epe_nas(network: nn.Module, x: torch.Tensor, y: torch.Tensor, classes: int) -> torch.Tensor:
    """The score for a minibatch x (n, *shape), y (n,), in float64; `classes` of the task choose the form."""
    logs = torch.log(correlations(jacobian(network, x)).abs() + K)
    # The correlation of two rows depends on no other: those of a class are entries of the matrix of all.
    member = (y[:, None] == torch.arange(classes, device=y.device)).double()
    sums, count = ((logs @ member) * member).sum(0), member.sum(0)
    if classes <= 100:
        return sums.abs().sum()
    sums, there = sums / count.clamp(min=1), (count > 0).double()
    apart = (sums[:, None] - sums[None]).abs() * there[:, None] * there[None]
    return apart.sum() / there.sum()
