"""Shake-Shake (Gastaldi 2017): sums of two branches get random weights, others backward than forward.

A sum f1 + f2 becomes a f1 + (1 - a) f2 with a from U(0, 1), one number per image; the gradients are those of
b f1 + (1 - b) f2, with b drawn independently: the paper's "Shake-Shake-Image". At evaluation both weights are 1/2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..task import Pipeline

Pair = tuple[nn.Module, nn.Module]


class _Weighted(torch.autograd.Function):
    """x times one weight, of which the gradient says that it was another."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ahead: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(back)
        return x * ahead

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradients[0] * back, None, None


def branches_of(network: nn.Module) -> list[Pair]:
    """Pairs of modules whose outputs are added: the `branches` of every module that has this attribute, in order.

    Raises:
        ValueError: No module has it.
    """
    groups = [cast("Sequence[Pair]", m.branches) for m in network.modules() if hasattr(m, "branches")]
    if not groups:
        raise ValueError("pipeline.shake_shake: no module of this network names its branches; allowed: False")
    return [pair for group in groups for pair in group]


class Shake:
    """The weights of the branches of a network, while its hooks are there.

    Args:
        network: With `branches`.
        rng: Draws a and b, on the CPU; None where there is only evaluation.
    """

    def __init__(self, network: nn.Module, rng: torch.Generator | None = None) -> None:
        self._pairs, self._rng = branches_of(network), rng
        self._weights = torch.empty(2, len(self._pairs), 0)

    def draw(self, n: int, device: torch.device) -> None:
        """Draw for a batch of n images: a and b of the first branch of every pair."""
        self._weights = torch.rand(2, len(self._pairs), n, generator=self._rng).to(device)

    def hooks(self) -> list[RemovableHandle]:
        """Put the weights to work; whoever calls removes the hooks."""
        return [
            branch.register_forward_hook(self._hook(k, second))
            for k, pair in enumerate(self._pairs)
            for second, branch in enumerate(pair)
        ]

    def _hook(self, k: int, second: int) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
        def weighted(branch: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
            if not branch.training:
                return output * 0.5
            weights = self._weights[:, k].to(output.dtype)
            ahead, back = (1 - weights if second else weights).view(2, -1, *[1] * (output.ndim - 1))
            out: torch.Tensor = _Weighted.apply(output, ahead, back)
            return out

        return weighted


@contextmanager
def evaluated(network: nn.Module, pipeline: Pipeline | None) -> Iterator[None]:
    """Inside, a network that was trained with Shake-Shake is evaluated with it: branches weigh 1/2 each."""
    handles = Shake(network).hooks() if pipeline and pipeline.shake_shake else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
