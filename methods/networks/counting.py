"""Size and cost of a network, counted on the network itself."""

from __future__ import annotations

from torch import nn

from ...protocols import Task
from ...protocols.training.flops import forward_flops


def measured(network: nn.Module, task: Task) -> dict[str, float]:
    """Parameters and the cost of one forward pass of one example.

    `macs` counts multiply-adds of convolutions and matrix products (torch's FLOP counter, halved); biases,
    normalisation, activations, pooling and additions are free.

    Args:
        network: On the meta device, so that nothing is computed.
        task: Gives the shape of an input.

    Returns:
        `params`, `macs`, `flops` (= 2 macs).
    """
    flops = float(forward_flops(network, task))
    return {"params": float(sum(p.numel() for p in network.parameters())), "macs": flops / 2, "flops": flops}
