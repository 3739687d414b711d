"""Network morphisms: changes of a network that keep the function that it computes.

Every function takes a network and gives another one; the network given is never changed. All keep the
output in evaluation mode, up to rounding; in training mode batch normalisation of new layers sees other statistics.

- Net2Wider, Net2Deeper (Chen et al. 2016, "Net2Net", ICLR): `wider`, `deeper`.
- NASH's morphisms (Elsken et al. 2017, "Simple and efficient architecture search for CNNs"), with N a part of the
  network: I, N becomes A N + b with A = 1 and b = 0: `linear`; II, the next layer reads (N, M) with zeros for M:
  `concatenated`; III, an idempotent N is repeated: `deeper`; IV, N becomes lambda N + (1 - lambda) M with
  lambda = 1: `mixed`. In II and IV, M = `nn.Identity()` is a skip connection.
- Larger kernels, padded with zeros (Wei et al. 2016, "Network Morphism", ICML): `larger_kernel`.

Those that shrink, nearly keeping the function, are in `shrinking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional as f

WEIGHTED = (nn.Linear, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Identity)
# What changes or combines no channels: whatever comes in as channel c goes out as channel c.
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_CHANNELWISE = (*_ACTIVATIONS, *_POOLS, nn.Dropout, nn.Dropout2d, nn.Flatten)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer holds the channels that a morphism changes.

    Attributes:
        layer: Its name, as in `network.get_submodule`.
        first: The first of these channels among the layer's; not 0 where it reads a concatenation.
        each: Numbers per channel: the pixels of a map, where it was flattened before.
    """

    layer: str
    first: int = 0
    each: int = 1


class Mixed(nn.Module):
    """lambda * kept(x) + (1 - lambda) * added(x), with a trainable lambda that starts at 1 (NASH's type IV)."""

    def __init__(self, kept: nn.Module, added: nn.Module) -> None:
        super().__init__()
        self.kept, self.added = kept, added
        like = next(kept.parameters(), torch.empty(0))
        self.share = nn.Parameter(torch.ones((), dtype=like.dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both branches give the same shape."""
        out: torch.Tensor = self.share * self.kept(x) + (1 - self.share) * self.added(x)
        return out


class Concatenated(nn.Module):
    """kept(x) and added(x), one after the other along the channels."""

    def __init__(self, kept: nn.Module, added: nn.Module) -> None:
        super().__init__()
        self.kept, self.added = kept, added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, ...) and (n, d, ...) give (n, c + d, ...)."""
        return torch.cat([self.kept(x), self.added(x)], 1)


def replication(units: int, width: int, rng: torch.Generator) -> torch.Tensor:
    """Net2Wider's g, (width,) int64: g(j) = j for the units there are, uniform over them for each new one.

    Raises:
        ValueError: The width is not larger.
    """
    if width <= units:
        raise ValueError(f"width: {width} is not more than the {units} units of the layer")
    return torch.cat([torch.arange(units), torch.randint(units, (width - units,), generator=rng)])


def wider(
    network: nn.Module,
    copied: torch.Tensor,
    produced: Sequence[Place],
    consumed: Sequence[Place],
    *,
    noise: float = 0.0,
    rng: torch.Generator | None = None,
) -> nn.Module:
    """Net2Wider (Chen et al. 2016, eqs. 3 to 6): units are replicated, and what reads them is divided by their number.

    `produced` and `consumed` name all layers concerned. Where a skip connection adds two values, what makes either of
    them is produced alike, and what reads the sum, or one of them, is consumed. `chain` finds both in a chain.

    Without noise, copies of a unit have equal gradients, up to the shares of what reads them, and so stay equal in
    training unless dropout tells them apart.

    Args:
        network: To be widened.
        copied: g, see `replication`.
        produced: Linear layers and convolutions that make the units, and batch normalisations of them.
        consumed: Linear layers and convolutions that read them.
        noise: Standard deviation of what is added to the incoming weights of copies, over that of the layer's weights.
        rng: Draws the noise.
    """
    shares = 1.0 / torch.bincount(copied)[copied].to(torch.float64)
    child = reindexed(network, copied, shares, produced, consumed)
    if noise:
        old = int(copied.max()) + 1
        with torch.no_grad():
            for place in produced:
                layer = child.get_submodule(place.layer)
                if isinstance(layer, WEIGHTED):
                    copies = layer.weight[place.first + old : place.first + len(copied)]
                    drawn = torch.randn(copies.shape, generator=rng, dtype=copies.dtype)
                    copies += noise * layer.weight.std() * drawn
    return child


def chain(network: nn.Sequential, index: int) -> tuple[list[Place], list[Place]]:
    """What makes and what reads the units of the layer at `index` of a chain: the arguments of `wider` and `pruned`.

    Raises:
        ValueError: It is no linear layer or full convolution, is the last one, or what follows may mix channels.
    """
    units = units_of(network[index], index)
    produced = [Place(str(index))]
    for k in range(index + 1, len(network)):
        layer = network[k]
        if isinstance(layer, _NORMS) or _is_depthwise(layer):
            produced.append(Place(str(k), each=len(cast(torch.Tensor, layer.weight)) // units))
        elif isinstance(layer, WEIGHTED):
            return produced, [Place(str(k), each=inputs_of(layer) // units)]
        elif not isinstance(layer, _CHANNELWISE):
            raise ValueError(f"layer {k}: {type(layer).__name__} may mix channels")
    raise ValueError(f"layer {index}: it makes the network's output, whose width is given")


def linear(
    network: nn.Sequential,
    index: int,
    *,
    kernel: int = 3,
    norm: bool = True,
    examples: torch.Tensor | None = None,
) -> nn.Sequential:
    """NASH's type I: a linear layer that starts as the identity, after the layer at `index` of a chain.

    It is a linear layer or, behind convolutions, a convolution with a delta kernel. Its batch normalisation undoes
    its own statistics: gamma = sqrt(var + eps) and beta = mean, which are those of `examples` there, as in EAS (Cai
    et al. 2018), or else 0 and 1. With them the layer is nearly the identity in training mode as well.

    Args:
        network: The chain.
        index: Of the layer that the new one follows.
        kernel: Side of the convolution, odd.
        norm: Whether batch normalisation follows.
        examples: Inputs of the network, (n, ...).
    """
    return _inserted(network, index, _identity(network, index, kernel, norm, examples))


def deeper(
    network: nn.Sequential,
    index: int,
    *,
    kernel: int = 3,
    norm: bool = True,
    examples: torch.Tensor | None = None,
) -> nn.Sequential:
    """Net2Deeper, NASH's type III: an identity layer and its activation, after the activation at `index` of a chain.

    Args:
        network: See `linear`, as for the others.
        index: Of an activation phi with phi(phi(x)) = phi(x); the new layer ends in the same one.
        kernel: See `linear`.
        norm: See `linear`.
        examples: See `linear`.

    Raises:
        ValueError: phi is not idempotent (sigmoid, tanh, ELU), so the function would change.
    """
    phi = network[index]
    if not is_idempotent(phi):
        raise ValueError(f"layer {index}: {type(phi).__name__} applied twice is not {type(phi).__name__} applied once")
    return _inserted(network, index, [*_identity(network, index, kernel, norm, examples), deepcopy(phi)])


def is_idempotent(phi: nn.Module) -> bool:
    """Whether this is an activation with phi(phi(x)) = phi(x), seen at 1,001 numbers of [-10, 10]."""
    if not isinstance(phi, _ACTIVATIONS):
        return False
    once = phi(torch.linspace(-10, 10, 1001, dtype=torch.float64))
    return bool(torch.equal(phi(once), once))


def mixed(network: nn.Sequential, start: int, stop: int, added: nn.Module) -> nn.Sequential:
    """NASH's type IV on the layers `start` to `stop` - 1 of a chain: an operation or a skip beside them, at weight 0.

    Args:
        network: The chain.
        start: First layer.
        stop: One past the last layer.
        added: Gives values of the same shape as these layers do, from the same input.
    """
    layers = list(deepcopy(network))
    return nn.Sequential(*layers[:start], Mixed(nn.Sequential(*layers[start:stop]), deepcopy(added)), *layers[stop:])


def concatenated(network: nn.Sequential, start: int, stop: int, added: nn.Module, channels: int) -> nn.Sequential:
    """NASH's type II on the layers `start` to `stop` - 1 of a chain: more channels, read by zeros.

    Batch normalisations on the way start afresh for the new channels.

    Args:
        network: The chain.
        start: First layer.
        stop: One past the last layer.
        added: Gives `channels` channels of the same size as these layers do, from the same input.
        channels: Of `added`.

    Raises:
        ValueError: No layer reads the values, or what comes between may mix channels.
    """
    last = max((k for k in range(start, stop) if isinstance(network[k], WEIGHTED)), default=start)
    units = units_of(network[last], last)
    layers = list(deepcopy(network))
    layers[start:stop] = [Concatenated(nn.Sequential(*layers[start:stop]), deepcopy(added))]
    for k in range(start + 1, len(layers)):
        layer = layers[k]
        if isinstance(layer, _NORMS):
            layers[k] = _extended_norm(layer, channels * (layer.num_features // units))
        elif isinstance(layer, WEIGHTED):
            more = channels * (inputs_of(layer) // units)
            zeros = layer.weight.new_zeros(len(layer.weight), more, *layer.weight.shape[2:])
            layers[k] = with_weight(layer, torch.cat([layer.weight, zeros], 1))
            return nn.Sequential(*layers)
        elif not isinstance(layer, _CHANNELWISE):
            raise ValueError(f"layer {k - start - 1 + stop}: {type(layer).__name__} may mix channels")
    raise ValueError(f"layers {start} to {stop - 1}: they make the network's output, whose width is given")


def larger_kernel(conv: nn.Conv2d, kernel: int) -> nn.Conv2d:
    """The same convolution with a kernel of a larger side, padded with zeros, and its padding with it.

    Raises:
        ValueError: The side is not larger by an even number, or the padding is not by zeros.
    """
    more = [kernel - side for side in conv.kernel_size]
    if min(more) < 0 or max(more) == 0 or any(m % 2 for m in more):
        raise ValueError(f"kernel: {kernel} is not larger than {conv.kernel_size} by even numbers")
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise ValueError(f"padding: {conv.padding_mode} {conv.padding} is not a number of zeros")
    child = with_weight(conv, pad_kernel(conv.weight, kernel))
    child.padding = tuple(p + d * (m // 2) for p, d, m in zip(conv.padding, conv.dilation, more, strict=True))
    # What a convolution with another padding mode would read; kept in step with `padding`.
    child._reversed_padding_repeated_twice = [p for p in reversed(child.padding) for _ in range(2)]
    return cast(nn.Conv2d, child)


def pad_kernel(weight: torch.Tensor, kernel: int) -> torch.Tensor:
    """Weights (outputs, inputs, k, l) to (outputs, inputs, kernel, kernel), with zeros around."""
    high, wide = ((kernel - side) // 2 for side in weight.shape[2:])
    return f.pad(weight, (wide, wide, high, high))


def reindexed(
    network: nn.Module,
    index: torch.Tensor,
    shares: torch.Tensor,
    produced: Sequence[Place],
    consumed: Sequence[Place],
    units: int | None = None,
) -> nn.Module:
    """The network with unit index[j] in place j; what reads place j multiplies it by shares[j]."""
    units = int(index.max()) + 1 if units is None else units
    child = deepcopy(network)

    def places(place: Place, total: int) -> tuple[torch.Tensor, torch.Tensor]:
        first, after = place.first, place.first + units * place.each
        chosen = (index[:, None] * place.each + torch.arange(place.each)).flatten() + first
        before, behind = torch.arange(first), torch.arange(after, total)
        scale = torch.cat([torch.ones(first), shares.repeat_interleave(place.each), torch.ones(total - after)])
        return torch.cat([before, chosen, behind]), scale

    for place in produced:
        layer = child.get_submodule(place.layer)
        if isinstance(layer, WEIGHTED):
            rows, _ = places(place, len(layer.weight))
            groups = len(rows) if _is_depthwise(layer) else 1
            _replace(child, place.layer, with_weight(layer, layer.weight[rows], rows, groups=groups))
        elif isinstance(layer, _NORMS):
            _replace(child, place.layer, _norm_of(layer, places(place, layer.num_features)[0]))
        else:
            raise ValueError(f"layer {place.layer}: {type(layer).__name__} makes no units")
    for place in consumed:
        layer = child.get_submodule(place.layer)
        if not isinstance(layer, WEIGHTED) or getattr(layer, "groups", 1) != 1:
            raise ValueError(f"layer {place.layer}: {type(layer).__name__} is no linear layer or full convolution")
        columns, scale = places(place, inputs_of(layer))
        scale = scale.to(layer.weight.dtype).reshape(-1, *[1] * (layer.weight.ndim - 2))
        _replace(child, place.layer, with_weight(layer, layer.weight[:, columns] * scale))
    return child


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)


def with_weight(
    layer: nn.Linear | nn.Conv2d, weight: torch.Tensor, rows: torch.Tensor | None = None, *, groups: int | None = None
) -> nn.Linear | nn.Conv2d:
    """The layer with another weight, its sizes with it, and these rows of its bias."""
    new = deepcopy(layer)
    new.weight = nn.Parameter(weight.detach().clone())
    if rows is not None and layer.bias is not None:
        new.bias = nn.Parameter(layer.bias.detach()[rows])
    if isinstance(new, nn.Linear):
        new.out_features, new.in_features = weight.shape
    else:
        new.groups = new.groups if groups is None else groups
        new.out_channels, new.in_channels = len(weight), weight.shape[1] * new.groups
        new.kernel_size = tuple(weight.shape[2:])
    return new


def _norm_of(norm: nn.BatchNorm1d | nn.BatchNorm2d, rows: torch.Tensor) -> nn.Module:
    new = deepcopy(norm)
    new.num_features = len(rows)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if (old := getattr(norm, name)) is not None:
            taken = old.detach()[rows]
            setattr(new, name, nn.Parameter(taken) if isinstance(old, nn.Parameter) else taken)
    return new


def _extended_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, more: int) -> nn.Module:
    rows = torch.cat([torch.arange(norm.num_features), torch.zeros(more, dtype=torch.int64)])
    new = _norm_of(norm, rows)
    with torch.no_grad():
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            if getattr(new, name) is not None:
                getattr(new, name)[norm.num_features :] = value
    return new


def _identity(
    network: nn.Sequential, index: int, kernel: int, norm: bool, examples: torch.Tensor | None
) -> list[nn.Module]:
    """The layers that compute the identity on the values after layer `index`."""
    before = [m for m in network[: index + 1] if isinstance(m, (*WEIGHTED, *_NORMS, nn.Flatten))]
    if not before or isinstance(before[-1], nn.Flatten):
        raise ValueError(f"layer {index}: no layer before it tells the number of units")
    units, like = len(before[-1].weight), before[-1].weight.detach()
    of_maps = isinstance(before[-1], (nn.Conv2d, nn.BatchNorm2d))
    if of_maps and kernel % 2 == 0:
        raise ValueError(f"kernel: {kernel} is not odd")
    new: nn.Linear | nn.Conv2d
    if of_maps:
        new = nn.Conv2d(units, units, kernel, padding=kernel // 2, bias=not norm, device="meta")
        weight = pad_kernel(torch.eye(units, dtype=like.dtype)[:, :, None, None], kernel)
    else:
        new = nn.Linear(units, units, bias=not norm, device="meta")
        weight = torch.eye(units, dtype=like.dtype)
    new.weight = nn.Parameter(weight)
    if not norm:
        new.bias = nn.Parameter(like.new_zeros(units))
        return [new]
    mean, var = like.new_zeros(units), like.new_ones(units)
    if examples is not None:
        with torch.no_grad():
            values = deepcopy(network[: index + 1]).eval()(examples).transpose(0, 1).flatten(1)
        mean, var = values.mean(1), values.var(1)
    undone = (nn.BatchNorm2d if of_maps else nn.BatchNorm1d)(units, dtype=like.dtype)
    undone.running_mean, undone.running_var = mean, var
    undone.weight, undone.bias = nn.Parameter((var + undone.eps).sqrt()), nn.Parameter(mean.clone())
    return [new, undone]


def _inserted(network: nn.Sequential, index: int, layers: Sequence[nn.Module]) -> nn.Sequential:
    old = list(deepcopy(network))
    return nn.Sequential(*old[: index + 1], *layers, *old[index + 1 :])


def units_of(layer: nn.Module, index: int) -> int:
    """Outputs of a layer; ValueError, which names its place, unless it is linear or a full convolution."""
    if not isinstance(layer, WEIGHTED) or getattr(layer, "groups", 1) != 1:
        raise ValueError(f"layer {index}: {type(layer).__name__} is no linear layer or full convolution")
    return len(layer.weight)


def inputs_of(layer: nn.Linear | nn.Conv2d) -> int:
    """Inputs, or input channels, of a layer."""
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1
