"""Many multi-layer perceptrons of equal widths at once: batched matrix products, a backward pass by hand.

Each network keeps its own weights and its own dropout noise, and ends as if it had been trained alone by
`reference.fit` (tests: float64 whole runs to 1e-9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import nn

from .masks import Masks
from .objectives import CLASSES, REGRESSION, Objective

if TYPE_CHECKING:
    from .stacked import Batch

Run = tuple[str, slice]


class Perceptrons:
    """K perceptrons of equal widths, activations and dropout rates being each network's own.

    A network is a sequence of linear layers with biases; behind each but the last one activation (sigmoid, tanh,
    ReLU, ELU), and anywhere dropout, whose masks are those that torch draws on the CPU for a network alone.

    Weights are stored (K, in, out), but (K, out, in) for the last layer: batched products are several times slower
    where the contiguous axis is as short as the number of classes.

    Args:
        networks: With their initial weights.
        noise_seeds: Per network, of its dropout.
        dtype: Of all arithmetic.

    Attributes:
        parameters: One flat tensor of the parameters of all networks.

    Raises:
        ValueError: A network is none of these, or widths differ.
    """

    def __init__(self, networks: Sequence[nn.Module], noise_seeds: Sequence[int], dtype: torch.dtype) -> None:
        layouts = [_layout(network) for network in networks]
        if len({tuple(m.weight.shape for m in layout.linear) for layout in layouts}) != 1:
            raise ValueError("stacked training needs networks of equal widths")
        # Sorting by activation makes each of them work on few, contiguous runs of networks.
        order = sorted(range(len(networks)), key=lambda k: layouts[k].activations)
        self._order = torch.tensor(order)
        self._place = self._order.argsort()
        self._sorted = order == list(range(len(networks)))
        layouts = [layouts[k] for k in order]
        self._names = [list(networks[k].state_dict()) for k in order]
        self._sizes = [(m.in_features, m.out_features) for m in layouts[0].linear]
        self._runs = [_runs(kinds) for kinds in zip(*(layout.activations for layout in layouts), strict=True)]
        rates = [layout.rates for layout in layouts]
        self._masks = Masks(rates, [n for n, _ in self._sizes], [noise_seeds[k] for k in order], dtype)
        self._dtype, self._classes = dtype, torch.arange(self._sizes[-1][1])[:, None]
        self._spaces: dict[int, _Space] = {}
        self._fill([layout.linear for layout in layouts])

    def _fill(self, linear: Sequence[Sequence[nn.Linear]]) -> None:
        flat = torch.zeros(sum((n + 1) * m for n, m in self._sizes) * len(linear), dtype=self._dtype)
        gradient = torch.zeros_like(flat)
        self._weights, self._biases = self._views(flat)
        self._weight_gradients, self._bias_gradients = self._views(gradient)
        with torch.no_grad():
            for k, layers in enumerate(linear):
                for weight, bias, layer in zip(self._torch(k), self._biases, layers, strict=True):
                    weight.copy_(layer.weight)
                    bias[k].copy_(layer.bias)
        parameter = nn.Parameter(flat)
        parameter.grad = gradient
        self.parameters: Sequence[torch.Tensor] = [parameter]

    def _views(self, flat: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        k = len(self._order)
        parts = torch.split(flat, [size * k for n, m in self._sizes for size in (n * m, m)])
        weights = [p.view(k, n, m) for p, (n, m) in zip(parts[0::2], self._sizes, strict=True)]
        n, m = self._sizes[-1]
        weights[-1] = weights[-1].view(k, m, n)
        return weights, [p.view(k, m) for p, (_, m) in zip(parts[1::2], self._sizes, strict=True)]

    def _torch(self, k: int) -> list[torch.Tensor]:
        """Views of the weights of network k of the sorted ones, in torch's layout."""
        *hidden, last = (weight[k] for weight in self._weights)
        return [*(weight.T for weight in hidden), last]

    @torch.no_grad()
    def gradients(self, x: torch.Tensor, y: torch.Tensor, noise: Batch, objective: Objective) -> torch.Tensor:
        """See `stacked.Stack`: targets are classes, distributions over them, or numbers; totals are sorted back."""
        x, units = x.flatten(2), noise.units
        if not self._sorted:
            x, y = x.index_select(0, self._order), y.index_select(0, self._order)
            units = None if units is None else units.index_select(0, self._order)
        space = self._space(x.shape[1])
        masks = self._masks.draw(x.shape[1])
        if units is not None:
            masks[-1] = units if masks[-1] is None else masks[-1] * units
        inputs = self._forward(x, space, masks)
        totals = self._totals(space.outputs, y, objective)
        self._loss_gradient(space.outputs, y, objective)
        self._backward(inputs, space, masks)
        return totals[self._place]

    @torch.no_grad()
    def totals(self, x: torch.Tensor, y: torch.Tensor, objective: Objective) -> torch.Tensor:
        """See `stacked.Stack`."""
        space, k = self._space(len(x)), len(self._order)
        self._forward(x.flatten(1).expand(k, -1, -1), space, [None] * len(self._sizes))
        return self._totals(space.outputs, y.expand(k, *y.shape), objective)[self._place]

    def state(self, k: int) -> dict[str, torch.Tensor]:
        """Copies of the parameters of network k, named and laid out as by its own `state_dict`."""
        place = int(self._place[k])
        pairs = zip(self._torch(place), self._biases, strict=True)
        tensors = [t for weight, bias in pairs for t in (weight.detach().clone(), bias[place].detach().clone())]
        return {name: t.contiguous() for name, t in zip(self._names[place], tensors, strict=True)}

    def _space(self, batch: int) -> _Space:
        if batch not in self._spaces:
            self._spaces[batch] = _Space(len(self._order), batch, self._sizes, self._dtype)
        return self._spaces[batch]

    def _forward(self, x: torch.Tensor, space: _Space, masks: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
        """Fill `space` from x (K, batch, in); return the inputs of each layer, after dropout."""
        inputs = [x if masks[0] is None else x * masks[0]]
        for i, values in enumerate(space.values):
            torch.baddbmm(self._biases[i][:, None], inputs[i], self._weights[i], out=values)
            for kind, run in self._runs[i]:
                _ACTIVATE[kind](values[run])
            mask = masks[i + 1]
            inputs.append(values if mask is None else torch.mul(values, mask, out=space.kept[i]))
        torch.baddbmm(self._biases[-1][:, :, None], self._weights[-1], inputs[-1].mT, out=space.outputs)
        return inputs

    def _totals(self, outputs: torch.Tensor, y: torch.Tensor, objective: Objective) -> torch.Tensor:
        if objective is REGRESSION:
            # The mean in the arithmetic of the network, as `objectives` has it.
            return (outputs[:, 0] - y).square_().mean(1).double() * y.shape[1]
        # `max` finds the same index as `argmax`, faster along this axis.
        return (outputs.max(1).indices == (y if y.ndim == 2 else y.argmax(2))).sum(1)

    def _loss_gradient(self, outputs: torch.Tensor, y: torch.Tensor, objective: Objective) -> None:
        """Overwrite outputs (K, classes, batch) by the gradient of the mean loss with respect to them."""
        batch = outputs.shape[2]
        if objective is REGRESSION:
            outputs.sub_(y[:, None]).mul_(2 / batch)
        elif objective is not CLASSES:
            raise ValueError("objective: perceptrons learn classes or numbers")
        else:
            torch.softmax(outputs, 1, out=outputs)
            # Cross-entropy: (softmax - targets) / batch.
            targets = torch.eq(y[:, None], self._classes).to(outputs.dtype) if y.ndim == 2 else y.mT
            outputs.sub_(targets).div_(batch)

    def _backward(self, inputs: Sequence[torch.Tensor], space: _Space, masks: Sequence[torch.Tensor | None]) -> None:
        torch.bmm(space.outputs, inputs[-1], out=self._weight_gradients[-1])
        torch.sum(space.outputs, 2, out=self._bias_gradients[-1])
        for i in reversed(range(len(space.values))):
            gradient, weight = space.gradients[i], self._weights[i + 1]
            if i + 1 < len(space.values):
                torch.bmm(space.gradients[i + 1], weight.mT, out=gradient)
            else:
                torch.bmm(space.outputs.mT, weight, out=gradient)
            if (mask := masks[i + 1]) is not None:
                gradient.mul_(mask)
            for kind, run in self._runs[i]:
                _SLOPE[kind](gradient[run], space.values[i][run])
            torch.bmm(inputs[i].mT, gradient, out=self._weight_gradients[i])
            torch.sum(gradient, 1, out=self._bias_gradients[i])


class _Space:
    """Arrays of one size of batch, used again in every step: fresh memory costs more than what is done in it."""

    def __init__(self, k: int, batch: int, sizes: Sequence[tuple[int, int]], dtype: torch.dtype) -> None:
        self.values, self.kept, self.gradients = (
            [torch.empty(k, batch, m, dtype=dtype) for _, m in sizes[:-1]] for _ in range(3)
        )
        self.outputs = torch.empty(k, sizes[-1][1], batch, dtype=dtype)


@dataclass(slots=True)
class _Layout:
    """A network: its linear layers, the activation behind each but the last, the dropout rates before each."""

    linear: list[nn.Linear] = field(default_factory=list)
    activations: list[str] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=lambda: [[]])


def _layout(network: nn.Module) -> _Layout:
    found = _Layout()
    sequence = isinstance(network, nn.Sequential)
    for module in network.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            found.linear.append(module)
            found.rates.append([])
        elif isinstance(module, nn.Dropout):
            found.rates[-1].append(module.p)
        elif type(module).__name__ in _ACTIVATE and getattr(module, "alpha", 1.0) == 1.0:
            found.activations.append(type(module).__name__)
            sequence &= len(found.activations) == len(found.linear)
        else:
            sequence &= isinstance(module, (nn.Sequential, nn.Flatten))
    behind = found.rates.pop()
    if not sequence or behind or len(found.activations) != len(found.linear) - 1:
        raise ValueError(
            "stacked training knows linear layers with biases, each but the last with one of "
            f"{', '.join(_ACTIVATE)}, and dropout before any of them"
        )
    return found


def _runs(kinds: Sequence[str]) -> list[Run]:
    start, runs = 0, []
    for kind, group in groupby(kinds):
        stop = start + len(list(group))
        runs.append((kind, slice(start, stop)))
        start = stop
    return runs


def _tanh(x: torch.Tensor) -> torch.Tensor:
    # 2 sigmoid(2x) - 1, which takes half the time of torch's tanh.
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)


_ACTIVATE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Sigmoid": torch.Tensor.sigmoid_,
    "Tanh": _tanh,
    "ReLU": torch.Tensor.relu_,
    "ELU": nn.functional.elu_,
}
# From the gradient with respect to an activation's value and that value: by its argument, in place, in one pass.
_SLOPE: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "Sigmoid": lambda g, a: torch.ops.aten.sigmoid_backward.grad_input(g, a, grad_input=g),
    "Tanh": lambda g, a: torch.ops.aten.tanh_backward.grad_input(g, a, grad_input=g),
    "ReLU": lambda g, a: torch.ops.aten.threshold_backward.grad_input(g, a, 0, grad_input=g),
    "ELU": lambda g, a: torch.ops.aten.elu_backward.grad_input(g, 1, 1, 1, True, a, grad_input=g),
}
