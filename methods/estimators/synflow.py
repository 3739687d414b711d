"""SynFlow, the strength of all paths through the network, a zero-cost proxy without data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ...protocols import Traits
from ..networks.zero_cost import Batch, ZeroCost, layers, no_inputs

__all__ = ["SynFlow"]


class SynFlow(ZeroCost):
    """Synaptic flow (Tanaka et al. 2020, equation 2; as a proxy, Abdelfattah et al. 2021, equation 1).

    score = sum |theta * dR/dtheta|, where R is the sum of the outputs of the network with all its parameters replaced
    by their absolute values, without batch normalisation, for an input of ones; over the weights of convolutions and
    linear layers. In float64, as R grows with the product of the layers' widths.

    Args:
        repeats: Initialisations.
    """

    traits = Traits(accuracy_scale=False, deterministic=False)
    dtype = torch.float64

    def __init__(self, repeats: int = 1) -> None:
        super().__init__(repeats=repeats)

    def inputs(self, repeat: int) -> Sequence[Batch]:
        """One example of ones."""
        return [no_inputs(self._setting.task, 1.0, self.dtype)]

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `synflow`."""
        return synflow(network, x)


def synflow(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Sum |theta * dR/dtheta| for inputs x (n, *shape); the network keeps its own weights and their signs."""
    # Batch normalisation is left out by giving back its input, and not computed: one example may have one pixel only.
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    training = [m.training for m in norms]
    positive = {name: p.detach().abs().requires_grad_() for name, p in network.named_parameters()}
    linear = {id(m.weight) for m in layers(network)}
    weights = [positive[name] for name, p in network.named_parameters() if id(p) in linear]
    hooks = [m.register_forward_hook(lambda module, inputs, output: inputs[0]) for m in norms]
    try:
        for m in norms:
            m.eval()
        flow = functional_call(network, positive, (x,)).sum()
    finally:
        for hook in hooks:
            hook.remove()
        for m, mode in zip(norms, training, strict=True):
            m.train(mode)
    found = torch.autograd.grad(flow, weights, materialize_grads=True)
    return torch.stack([(w.detach() * g).abs().sum() for w, g in zip(weights, found, strict=True)]).sum()
