"""Many multi-layer perceptrons of equal widths at once: batched matrix products, a backward pass by hand.

Each network keeps its own weights, seed and order of examples, and ends as if it had been trained alone by
`reference.fit` (tests: float64 whole runs to 1e-9).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch

from ..architecture import Architecture
from ..streams import generator, torch_generator
from ..task import Pipeline, Split
from .reference import batches, learning_rate, make_optimizer, materialise

Run = tuple[str, slice]


class _Stack:
    """K networks: weights (K, in, out) and biases (K, out) per layer, all views of one flat tensor."""

    def __init__(self, networks: Sequence[torch.nn.Module], dtype: torch.dtype) -> None:
        linear = [[m for m in net.modules() if isinstance(m, torch.nn.Linear)] for net in networks]
        kinds = [_activations(net) for net in networks]
        shapes = {tuple(m.weight.shape for m in layers) for layers in linear}
        if len(shapes) != 1:
            raise ValueError("stacked training needs networks of equal widths")
        for layers, activations in zip(linear, kinds, strict=True):
            if len(activations) != len(layers) - 1 or not set(activations) <= set(_ACTIVATE):
                raise ValueError(
                    f"stacked training knows linear layers, each but the last with one of {set(_ACTIVATE)}"
                )
        self.sizes = [(m.in_features, m.out_features) for m in linear[0]]
        self.runs = [_runs([k[i] for k in kinds]) for i in range(len(self.sizes) - 1)]
        total = sum((n + 1) * m for n, m in self.sizes) * len(networks)
        self.flat, self.flat_grad = (torch.zeros(total, dtype=dtype) for _ in range(2))
        self.weights, self.biases = self._views(self.flat, len(networks))
        self.weight_grads, self.bias_grads = self._views(self.flat_grad, len(networks))
        with torch.no_grad():
            for k, layers in enumerate(linear):
                for weight, bias, layer in zip(self.weights, self.biases, layers, strict=True):
                    weight[k].copy_(layer.weight.T)
                    bias[k].copy_(layer.bias)

    def _views(self, flat: torch.Tensor, k: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        parts = torch.split(flat, [size * k for n, m in self.sizes for size in (n * m, m)])
        weights = [p.view(k, n, m) for p, (n, m) in zip(parts[0::2], self.sizes, strict=True)]
        return weights, [p.view(k, m) for p, (_, m) in zip(parts[1::2], self.sizes, strict=True)]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Layer outputs for x (K, batch, in): hidden activations, then logits (K, batch, classes)."""
        outputs = []
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias[:, None], x, weight)
            for kind, run in self.runs[i] if i < len(self.runs) else ():
                _ACTIVATE[kind](x[run])
            outputs.append(x)
        return outputs

    def backward(self, x: torch.Tensor, outputs: list[torch.Tensor], gradient: torch.Tensor) -> None:
        """Fill the gradients, given that of the loss with respect to the logits; it is overwritten."""
        for i in reversed(range(len(self.weights))):
            inputs = outputs[i - 1] if i else x
            torch.bmm(inputs.transpose(1, 2), gradient, out=self.weight_grads[i])
            torch.sum(gradient, 1, out=self.bias_grads[i])
            if i:
                gradient = torch.bmm(gradient, self.weights[i].transpose(1, 2))
                for kind, run in self.runs[i - 1]:
                    _SLOPE[kind](gradient[run], inputs[run])


def fit_stacked(
    networks: Mapping[tuple[Architecture, int], torch.nn.Module],
    train: Split,
    evaluate: Mapping[str, Split],
    pipeline: Pipeline,
    *,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, np.ndarray], list[list[torch.Tensor]]]:
    """Train K networks side by side.

    Args:
        networks: On the meta device, by (architecture, training seed); equal widths, no dropout.
        train: Training examples, flattened on the way in.
        evaluate: Splits to evaluate after each epoch, by name.
        pipeline: How to train.
        dtype: Of all arithmetic.

    Returns:
        Correct predictions, int64 (K, epochs), for "train" and each name in `evaluate`, in the order of
        `networks`; and the final parameters of each network, in torch's layout.
    """
    # Sorting by activation makes each of them work on few, contiguous runs of networks.
    keys = list(networks)
    order = sorted(range(len(keys)), key=lambda k: _activations(networks[keys[k]]))
    chosen = [keys[k] for k in order]
    stack = _Stack([materialise(networks[k], torch_generator(k[1], "init", k[0]), dtype=dtype) for k in chosen], dtype)
    orders = [generator(seed, "data-order", a) for a, seed in chosen]
    flat = torch.nn.Parameter(stack.flat)
    flat.grad = stack.flat_grad
    optimizer = make_optimizer([flat], pipeline)
    data = {k: _tensors(s, dtype) for k, s in {"train": train, **evaluate}.items()}
    correct = {name: np.zeros((len(keys), pipeline.epochs), np.int64) for name in data}
    with torch.no_grad():
        for epoch in range(pipeline.epochs):
            optimizer.param_groups[0]["lr"] = learning_rate(pipeline, epoch)
            correct["train"][order, epoch] = _train_epoch(stack, *data["train"], optimizer, orders, pipeline.batch_size)
            for name in evaluate:
                correct[name][order, epoch] = _count(stack, *data[name])
    parameters: list[list[torch.Tensor]] = [[] for _ in keys]
    for k, place in enumerate(order):
        pairs = zip(stack.weights, stack.biases, strict=True)
        parameters[place] = [t for w, b in pairs for t in (w[k].T.clone(), b[k].clone())]
    return correct, parameters


def _train_epoch(
    stack: _Stack,
    x: torch.Tensor,
    y: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    orders: Sequence[np.random.Generator],
    batch_size: int,
) -> np.ndarray:
    per_network = [batches(order, len(y), batch_size) for order in orders]
    correct = torch.zeros(len(orders), dtype=torch.int64)
    for step in zip(*per_network, strict=True):
        index = torch.from_numpy(np.stack(step))
        inputs, target = x[index], y[index]
        outputs = stack.forward(inputs)
        logits = outputs[-1]
        correct += (logits.argmax(2) == target).sum(1)
        # The gradient of the mean cross-entropy: (softmax - one-hot) / batch.
        gradient = torch.softmax(logits, 2)
        gradient.scatter_add_(2, target[..., None], torch.full_like(target, -1, dtype=gradient.dtype)[..., None])
        stack.backward(inputs, outputs, gradient.div_(target.shape[1]))
        optimizer.step()
    return correct.numpy()


def _count(stack: _Stack, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    logits = stack.forward(x.expand(len(stack.biases[0]), *x.shape))[-1]
    return (logits.argmax(2) == y).sum(1).numpy()


def _tensors(split: Split, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(split.x).flatten(1).to(dtype), torch.from_numpy(split.y)


def _activations(network: torch.nn.Module) -> tuple[str, ...]:
    return tuple(type(m).__name__ for m in network.modules() if not isinstance(m, _STRUCTURE))


def _runs(kinds: Sequence[str]) -> list[Run]:
    start, runs = 0, []
    for kind, group in groupby(kinds):
        stop = start + len(list(group))
        runs.append((kind, slice(start, stop)))
        start = stop
    return runs


def _elu_slope(gradient: torch.Tensor, output: torch.Tensor) -> None:
    # For z <= 0, elu(z) = e^z - 1, whose slope is elu(z) + 1; min() makes that 1 for z > 0.
    gradient.mul_(output.clamp(max=0.0).add_(1.0))


_STRUCTURE = (torch.nn.Sequential, torch.nn.Flatten, torch.nn.Linear)
_ACTIVATE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Sigmoid": torch.Tensor.sigmoid_,
    "Tanh": torch.Tensor.tanh_,
    "ReLU": torch.Tensor.relu_,
    "ELU": torch.nn.functional.elu_,
}
_SLOPE: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "Sigmoid": lambda g, a: g.mul_(a * (1 - a)),
    "Tanh": lambda g, a: g.mul_(1 - a * a),
    "ReLU": lambda g, a: g.mul_(a > 0),
    "ELU": _elu_slope,
}
