"""Zen-score, the expressivity of a network with Gaussian weights, a zero-cost proxy without data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...protocols import Traits
from ...protocols.streams import torch_generator
from ..networks.zero_cost import FORWARD, Batch, ZeroCost, recorded

__all__ = ["Zen"]

ALPHA = 0.01


class Zen(ZeroCost):
    """Zen-score (Lin et al. 2021, algorithm 1).

    score = ln mean_n ||f(x) - f(x + alpha e)||_1 + sum_BN ln sqrt(mean_c var_c), with alpha = 0.01, Gaussian x and e,
    and var_c the variance of channel c before a batch normalisation, on the minibatch x, which undoes its scaling.
    f are the features before global average pooling: what enters the last adaptive pooling layer, or, in a network
    without one, the last linear layer. Weights are N(0, 1) and biases 0. Skip connections stay, unlike in the paper.

    Args:
        batch_size: Gaussian inputs, at least 2.
        repeats: Initialisations, each with inputs of its own; the authors document 32 and their code runs 1.
    """

    traits = Traits(accuracy_scale=False, deterministic=False)
    passes = 2 * FORWARD

    def __init__(self, batch_size: int = 64, repeats: int = 1) -> None:
        super().__init__(batch_size, 1, repeats)

    def initialise(self, network: nn.Module, rng: torch.Generator) -> nn.Module:
        """Weights of convolutions and linear layers N(0, 1), biases 0."""
        network = super().initialise(network, rng)
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    module.weight.normal_(generator=rng)
                    if module.bias is not None:
                        module.bias.zero_()
        return network

    def inputs(self, repeat: int) -> Sequence[Batch]:
        """Gaussian x and e, both (batch_size, *shape)."""
        rng = torch_generator(self._seed, "input", repeat)
        shape = (self.batch_size, *self._setting.task.shape)
        return [(torch.randn(shape, generator=rng, dtype=self.dtype), torch.randn(shape, generator=rng))]

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `zen`; y is the perturbation."""
        return zen(network, x, y)


def zen(network: nn.Module, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    """The score for inputs x and perturbations e, both (n, *shape); batch normalisation in training mode."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    with torch.no_grad():
        with recorded(norms, lambda inputs, output: _variance(inputs[0])) as variances:
            features = _features(network, x)
        change = (features - _features(network, x + ALPHA * e)).abs().sum(1).mean()
    scaling = [variance.mean().sqrt().log() for variance in variances]
    return torch.log(change) + (torch.stack(scaling).sum() if scaling else 0.0)


def _variance(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, 1).flatten(1).var(1)


def _features(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    pools: list[nn.Module] = [m for m in network.modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    last = pools or [m for m in network.modules() if isinstance(m, nn.Linear)]
    with recorded(last, lambda inputs, output: inputs[0]) as entering:
        network(x)
    if not entering:
        raise ValueError("the network has neither a pooling nor a linear layer before which features end")
    return entering[-1].flatten(1)
