"""Approximate morphisms, which shrink a network, and the fit to its output that follows.

Elsken et al. 2019 (LEMONADE, ICLR): `without` removes layers, `pruned` units, `separable` factors a convolution; then
`distilled` fits the parent's output. As in `morphisms`, the network given is never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional as f

from .morphisms import WEIGHTED, Place, inputs_of, reindexed, units_of, with_weight


def without(network: nn.Sequential, start: int, stop: int) -> nn.Sequential:
    """Approximate: the chain without its layers `start` to `stop` - 1; all others keep their weights.

    Raises:
        ValueError: These layers change the number of channels, so that what follows would not fit.
    """
    kinds = [m for m in network[start:stop] if isinstance(m, WEIGHTED)]
    if kinds and (came := inputs_of(kinds[0])) != (went := len(kinds[-1].weight)):
        raise ValueError(f"layers {start} to {stop - 1}: they make {went} channels of {came}, so cannot be left out")
    return nn.Sequential(*deepcopy([m for k, m in enumerate(network) if not start <= k < stop]))


def pruned(network: nn.Module, width: int, produced: Sequence[Place], consumed: Sequence[Place]) -> nn.Module:
    """Approximate: only the `width` units of largest magnitude, the sum of |w| over the incoming weights.

    Args:
        network: To be pruned.
        width: Units to keep; they stay in their order.
        produced: See `wider`; the first one is the layer whose units they are.
        consumed: See `wider`.

    Raises:
        ValueError: There are not that many units.
    """
    layers = [(place, network.get_submodule(place.layer)) for place in produced]
    units = units_of(layers[0][1], 0)
    if not 1 <= width < units:
        raise ValueError(f"width: {width} is not one of 1, 2, ..., {units - 1}")
    size = torch.zeros(units, dtype=torch.float64)
    for place, layer in layers:
        if isinstance(layer, WEIGHTED):
            weight = layer.weight.detach()[place.first : place.first + units]
            size += weight.abs().flatten(1).sum(1, dtype=torch.float64)
    kept = size.argsort(descending=True, stable=True)[:width].sort().values
    return reindexed(network, kept, torch.ones(width, dtype=torch.float64), produced, consumed, units)


def separable(conv: nn.Conv2d) -> nn.Sequential:
    """Approximate: a depthwise and a pointwise convolution, the nearest ones to `conv` in squared weights.

    For each input channel, the kernels of all outputs, (outputs, k * l), become their best product of a column and a
    row: the first singular vectors, each with the root of the singular value (Eckart & Young 1936).

    Raises:
        ValueError: The convolution has groups.
    """
    if conv.groups != 1:
        raise ValueError(f"groups: {conv.groups} is not 1")
    weight = conv.weight.detach()
    u, s, v = torch.linalg.svd(weight.permute(1, 0, 2, 3).flatten(2), full_matrices=False)
    root = s[:, 0].sqrt()[:, None]
    c, outputs = conv.in_channels, conv.out_channels
    depthwise = with_weight(conv, (root * v[:, 0]).reshape(c, 1, *conv.kernel_size), groups=c)
    depthwise.bias = None
    pointwise = nn.Conv2d(c, outputs, 1, bias=conv.bias is not None, device="meta").to_empty(device=weight.device)
    pointwise.weight = nn.Parameter((root * u[:, :, 0]).T.reshape(outputs, c, 1, 1).contiguous())
    if conv.bias is not None:
        pointwise.bias = nn.Parameter(conv.bias.detach().clone())
    return nn.Sequential(depthwise, pointwise)


def distilled(
    child: nn.Module,
    parent: nn.Module,
    batches: Sequence[torch.Tensor],
    *,
    epochs: int = 5,
    learning_rate: float = 1e-3,
) -> tuple[nn.Module, list[float]]:
    """Fit a child to its parent's output: the mean squared difference, by Adam, one step for each batch.

    Both run in evaluation mode, with the statistics of batch normalisation as they are. An epoch after which the
    difference over all batches is larger than before is undone and the learning rate halved, so it never rises.

    Args:
        child: What an approximate morphism gave.
        parent: What it was given.
        batches: Inputs (n, ...) of both.
        epochs: Passes over the batches.
        learning_rate: Of Adam.

    Returns:
        The fitted child, and the difference before and after each epoch, (epochs + 1).
    """
    child = deepcopy(child).eval()
    parent = deepcopy(parent).eval()
    with torch.no_grad():
        targets = [parent(x) for x in batches]

    @torch.no_grad()
    def difference() -> float:
        return sum(f.mse_loss(child(x), t).item() * len(x) for x, t in zip(batches, targets, strict=True)) / total

    total = sum(map(len, batches))
    losses = [difference()]
    for _ in range(epochs):
        before = deepcopy(child.state_dict())
        optimizer = torch.optim.Adam(child.parameters(), lr=learning_rate)
        for x, target in zip(batches, targets, strict=True):
            optimizer.zero_grad(set_to_none=True)
            f.mse_loss(child(x), target).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        losses.append(difference())
        if not losses[-1] <= losses[-2]:
            child.load_state_dict(before)
            losses[-1] = losses[-2]
            learning_rate /= 2
    return child, losses
