"""Initial weights of networks, from a generator of one's own."""

from __future__ import annotations

import torch
from torch import nn


def materialise(network: nn.Module, rng: torch.Generator, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Give a network on the meta device its initial weights, on the CPU.

    The rules are torch's defaults; all draws come from `rng`, in the order of the modules:

    - `Linear`, `Conv2d`: weights and biases U(-1/sqrt(fan_in), 1/sqrt(fan_in)), where fan_in counts the inputs of
      one output: input channels / groups times kernel size for convolutions.
    - `Embedding`: weights N(0, 1), those of `padding_idx` 0.
    - `BatchNorm1d`, `2d`, `3d`: weight 1 and bias 0 where there are any, running mean 0 and variance 1.

    Raises:
        TypeError: A layer holds parameters or buffers and has no rule here, or shares a parameter with another
            one, of which leaving the meta device would make two.
    """
    _refuse_shared(network)
    network = network.to_empty(device="cpu").to(dtype)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                bound = (module.weight[0].numel()) ** -0.5
                for parameter in module.parameters(recurse=False):
                    parameter.uniform_(-bound, bound, generator=rng)
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(generator=rng)
                if module.padding_idx is not None:
                    module.weight[module.padding_idx] = 0
            elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                module.reset_parameters()
            elif [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                raise TypeError(f"{type(module).__name__}: no rule to initialise this layer")
    return network


def _refuse_shared(network: nn.Module) -> None:
    seen: set[int] = set()
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen:
                raise TypeError(f"{type(module).__name__}: shares a parameter with another layer")
            seen.add(id(parameter))
