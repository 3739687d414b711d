"""Network morphisms: children start with the function of their parents, and train for fewer epochs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
from torch import nn

from ...protocols import Fidelity, Proposal, Weights
from ...protocols.streams import torch_generator
from ..networks.inheritance import inherited, initial_network
from ..networks.morphisms import chain, deeper, pad_kernel, replication, wider
from .inherit import Held, Inherit

__all__ = ["Morphism"]


class Morphism(Inherit):
    """As `inherit`, but where a morphism leads from parent to child, the child starts with the parent's function.

    Covered are, at one fidelity but for the epochs:

    - any space: the child is the parent;
    - `mlp`: one layer is wider (Net2Wider), or there is one more ReLU layer directly behind a ReLU layer, of as many
      units or more (Net2Deeper, then Net2Wider);
    - `nb201`: edges change from nor_conv_1x1 to nor_conv_3x3 (kernels padded with zeros).

    No other edit keeps the function: cells add what an edge computes, so none -> skip_connect or -> a convolution adds
    something, and a convolution behind a ReLU cannot be the identity that skip_connect was. Elsewhere weights are
    copied as by `inherit`. `Observation.objectives["preserved"]` of a child says which: 1.0 where the function is the
    parent's, up to rounding, else 0.0.

    Args:
        epochs: See `inherit`.
        keep: See `inherit`.
        cost: See `inherit`.
        noise: Added to the weights of replicated units, in standard deviations of their layer's; the function is then
            not quite the parent's. Without any, a replicated unit and its copy start with equal gradients.
    """

    name: ClassVar[str] = "morphism"

    def __init__(self, epochs: int | None = None, keep: int = 64, cost: str = "marginal", noise: float = 0.0) -> None:
        super().__init__(epochs, keep, cost)
        if not 0 <= noise < 1:
            raise ValueError(f"noise: {noise!r} is not in [0, 1)")
        self._noise = noise

    def _start(self, parent: Held, p: Proposal, seed: int, fidelity: Fidelity) -> tuple[Weights, Mapping[str, float]]:
        a, before = p.architecture, parent.proposal.architecture
        own = initial_network(self._space, self._setting, a, fidelity, seed=seed)
        morphed: Weights | None = None
        exact = True
        if fidelity.text == parent.fidelity.text:
            old = initial_network(self._space, self._setting, before, parent.fidelity, seed=seed)
            old.load_state_dict(dict(parent.weights))
            if a == before:
                morphed = parent.weights
            elif a.space == "mlp" and isinstance(old, nn.Sequential) and isinstance(own, nn.Sequential):
                rng = torch_generator(seed, "morphism", a)
                morphed, exact = _grown(old, own, self._noise, rng)
            elif a.space == "nb201":
                morphed = _larger_kernels(old, own)
        if morphed is None:
            return inherited(own.state_dict(), parent.weights), {"preserved": 0.0}
        return morphed, {"preserved": float(exact)}


def _grown(
    parent: nn.Sequential, child: nn.Sequential, noise: float, rng: torch.Generator
) -> tuple[Weights | None, bool]:
    """Weights of a wider or deeper perceptron, if it is one, and whether the function is exactly the parent's."""
    old, new = _layers(parent), _layers(child)
    network = parent
    at = _inserted(old, new)
    if at is not None:
        network = deeper(parent, at, norm=False)
        old = _layers(network)
    if [kind for kind, _ in old] != [kind for kind, _ in new]:
        return None, False
    changed = [k for k, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]
    if not changed:
        return network.state_dict(), True
    if len(changed) > 1 or (at is not None and changed != [at + 1]) or new[changed[0]][1] < old[changed[0]][1]:
        return None, False
    (k,) = changed
    produced, consumed = chain(network, k)
    copied = replication(old[k][1], new[k][1], rng)
    return wider(network, copied, produced, consumed, noise=noise, rng=rng).state_dict(), not noise


def _layers(network: nn.Sequential) -> list[tuple[type[nn.Module], int]]:
    return [(type(m), m.out_features if isinstance(m, nn.Linear) else 0) for m in network]


def _inserted(old: list[tuple[type[nn.Module], int]], new: list[tuple[type[nn.Module], int]]) -> int | None:
    """The ReLU of the parent behind which the child has one more ReLU layer."""
    for k, ((kind, _), (activation, _)) in enumerate(pairwise(new[1:]), 1):
        if new[:k] + new[k + 2 :] == old and (kind, activation, new[k - 1][0]) == (nn.Linear, nn.ReLU, nn.ReLU):
            return k - 1
    return None


def _larger_kernels(parent: nn.Module, child: nn.Module) -> Weights | None:
    """Weights of a network of NAS-Bench-201 of which 1x1 convolutions became 3x3 ones, if it is one."""
    before, after = dict(parent.named_modules()), dict(child.named_modules())
    if {k: type(m) for k, m in before.items()} != {k: type(m) for k, m in after.items()}:
        return None
    weights = dict(parent.state_dict())
    for name, conv in after.items():
        if isinstance(conv, nn.Conv2d):
            old = before[name]
            assert isinstance(old, nn.Conv2d)
            if old.kernel_size > conv.kernel_size:
                return None
            weights[f"{name}.weight"] = pad_kernel(old.weight.detach(), conv.kernel_size[0])
    return weights
