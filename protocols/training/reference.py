"""The plain trainer: one network at a time, correct and deterministic. Everything faster is tested against it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import cos, inf, pi
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..architecture import Architecture
from ..budget import Cost
from ..estimator import Setting
from ..proposal import Fidelity
from ..streams import generator, integer, torch_generator
from ..task import Curve, DataView, Pipeline, Split, Weights
from .flops import training_flops
from .objectives import CLASSES, Objective, objective_of

if TYPE_CHECKING:
    from ..space import SearchSpace

Progress = Callable[[int, int], None]

_AT_ONCE = 1024
"""Predictions per batch of an evaluation: those of 1024 windows of text, over 10,000 words, would take 1.4 GB."""


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


def make_optimizer(parameters: list[torch.Tensor], pipeline: Pipeline) -> torch.optim.Optimizer:
    """The pipeline's optimizer over `parameters`."""
    if pipeline.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=pipeline.learning_rate, weight_decay=pipeline.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters,
        lr=pipeline.learning_rate,
        momentum=pipeline.momentum,
        nesterov=pipeline.nesterov,
        weight_decay=pipeline.weight_decay,
        fused=True,
    )


def learning_rate(pipeline: Pipeline, epoch: int) -> float:
    """Learning rate of an epoch, from 0; cosine annealing to 0 (Loshchilov & Hutter 2017, eq. 5)."""
    if pipeline.schedule == "constant":
        return pipeline.learning_rate
    return pipeline.learning_rate / 2 * (1 + cos(pi * epoch / pipeline.epochs))


def batches(order: np.random.Generator, n: int, size: int) -> list[np.ndarray]:
    """One epoch of batches of example indices; the last one may be smaller."""
    return np.split(order.permutation(n), range(size, n, size))


def fit(
    network: nn.Module,
    train: Split,
    evaluate: Mapping[str, Split],
    pipeline: Pipeline,
    *,
    order: np.random.Generator,
    objective: Objective = CLASSES,
    noise_seed: int = 0,
    epochs: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Train `network` in place, and add up what the metric is made of.

    Args:
        network: With its initial weights.
        train: Training examples; what is added up on them is what the batches showed while training.
        evaluate: Splits to evaluate after each epoch, by name.
        pipeline: How to train.
        order: Draws the order of the examples, epoch by epoch.
        objective: Loss and metric; classification unless it says otherwise.
        noise_seed: Seed of the noise inside the network (dropout).
        epochs: Stop early, along the pipeline's own schedule; None for all.
        device: A torch device.
        progress: Called with (epochs done, epochs) after each epoch.

    Returns:
        Per epoch, (epochs,), for "train" and each name in `evaluate`: correct predictions, int64, for classes,
        else the loss summed over predictions, float64. `objective.metric(totals, split.y.size)` is the metric.
    """
    epochs = pipeline.epochs if epochs is None else epochs
    data = {k: _tensors(s, _dtype(network), device) for k, s in {"train": train, **evaluate}.items()}
    network.to(device)
    parameters: list[torch.Tensor] = list(network.parameters())
    optimizer = make_optimizer(parameters, pipeline) if parameters else None
    totals: dict[str, list[float]] = {name: [] for name in data}
    on_gpu = device.startswith("cuda")
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(noise_seed)
        if on_gpu:
            torch.cuda.manual_seed(noise_seed)
        for epoch in range(epochs):
            if optimizer:
                optimizer.param_groups[0]["lr"] = learning_rate(pipeline, epoch)
            parts = batches(order, len(train), pipeline.batch_size)
            totals["train"].append(_train_epoch(network, *data["train"], parts, optimizer, objective))
            for name in evaluate:
                totals[name].append(_total(network, *data[name], objective))
            if progress:
                progress(epoch + 1, epochs)
    return {name: np.array(values) for name, values in totals.items()}


def fit_from_seed(
    network: nn.Module,
    architecture: Architecture,
    seed: int,
    train: Split,
    evaluate: Mapping[str, Split],
    pipeline: Pipeline,
    *,
    objective: Objective = CLASSES,
    init: Weights | None = None,
    epochs: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """One whole training: initial weights, order of examples and noise are streams of (seed, architecture).

    Args:
        network: On the meta device.
        architecture: Keys the streams.
        seed: Training seed.
        train: See `fit`, as for the arguments that follow.
        evaluate: See `fit`.
        pipeline: See `fit`.
        objective: See `fit`.
        init: Weights to start from, instead of the stream's.
        epochs: See `fit`.
        device: See `fit`.
        progress: See `fit`.

    Returns:
        The trained network, and the totals of `fit`.
    """
    network = materialise(network, torch_generator(seed, "init", architecture))
    if init is not None:
        network.load_state_dict(dict(init))
    order, noise = generator(seed, "data-order", architecture), integer(seed, "network-noise", architecture)
    totals = fit(
        network, train, evaluate, pipeline,
        order=order, objective=objective, noise_seed=noise, epochs=epochs, device=device, progress=progress,
    )  # fmt: skip
    return network, totals


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's results depend on its number of threads: inside, it uses one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure(network: nn.Module, split: Split, objective: Objective = CLASSES) -> float:
    """Metric of a trained network on a split, on the CPU."""
    total = _total(network, *_tensors(split, _dtype(network), "cpu"), objective)
    return float(objective.metric(np.array(total), split.y.size))


def _train_epoch(
    network: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    parts: Sequence[np.ndarray],
    optimizer: torch.optim.Optimizer | None,
    objective: Objective,
) -> float:
    network.train()
    total = torch.zeros((), dtype=torch.int64, device=y.device)
    for part in parts:
        index = torch.from_numpy(part).to(y.device)
        outputs, targets = network(x[index]), y[index]
        loss = objective.loss(outputs, targets)
        if optimizer:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        total = total + objective.total(outputs, targets, loss)
    return total.item()


@torch.no_grad()
def _total(network: nn.Module, x: torch.Tensor, y: torch.Tensor, objective: Objective) -> float:
    network.eval()
    size = max(1, _AT_ONCE // y[:1].numel())
    total = torch.zeros((), dtype=torch.int64, device=y.device)
    for inputs, targets in zip(torch.split(x, size), torch.split(y, size), strict=True):
        outputs = network(inputs)
        total = total + objective.total(outputs, targets, objective.loss(outputs, targets))
    return total.item()


def _dtype(network: nn.Module) -> torch.dtype:
    """Of a network's arithmetic; single precision where it holds no numbers."""
    tensors = (*network.parameters(), *network.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def _tensors(split: Split, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
    # Tokens and classes are numbers of things, and stay int64.
    x, y = (t.to(dtype) if t.is_floating_point() else t for t in (x, y))
    return x.to(device), y.to(device)


def resolve(device: str) -> str:
    """The device meant by "auto", "cpu" or "cuda"; ValueError names the allowed values."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: {device!r} is not one of auto, cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: there is no usable CUDA device; use auto or cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def arithmetic(device: str) -> dict[str, str]:
    """What the bits of a training depend on besides its seed, for run keys: wheels and instruction path.

    The number of threads counts too, and is always 1.
    """
    device = resolve(device)
    path = torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "numpy": np.__version__, "device": device, "path": path}


class ReferenceTrainer:
    """Trains one architecture under `setting.pipeline` (see `protocols.Trainer`).

    Args:
        space: Builds the networks.
        device: See `resolve`; "auto" takes a CUDA device where there is one.
        progress: Called with (epochs done, epochs) after each epoch.
    """

    def __init__(self, space: SearchSpace, *, device: str = "auto", progress: Progress | None = None) -> None:
        self.space, self.progress = space, progress
        self.device = resolve(device)

    def train(
        self,
        architecture: Architecture,
        setting: Setting,
        *,
        seed: int,
        fidelity: Fidelity,
        init: Weights | None = None,
    ) -> tuple[Curve, Weights]:
        """Train from scratch, or from `init`; the streams are keyed by (seed, architecture)."""
        view = _required(setting)
        pipeline, epochs = self._schedule(architecture, setting, fidelity)
        objective = objective_of(setting.task)
        started = time.perf_counter()
        network, totals = fit_from_seed(
            self.space.build(architecture, setting.task),
            architecture,
            seed,
            view.train,
            {"valid": view.valid},
            pipeline,
            objective=objective,
            init=init,
            epochs=epochs,
            device=self.device,
            progress=self.progress,
        )
        parts = (("train", view.train), ("valid", view.valid))
        train, valid = (objective.metric(totals[k], s.y.size).tolist() for k, s in parts)
        flops = self._flops(architecture, setting) * epochs
        curve = Curve(tuple(train), tuple(valid), flops, time.perf_counter() - started)
        return curve, {k: v.cpu() for k, v in network.state_dict().items()}

    def cost(self, architecture: Architecture, setting: Setting, fidelity: Fidelity) -> tuple[Cost, ...]:
        """The cost of that training in `setting.unit`; seconds are only known afterwards."""
        _, epochs = self._schedule(architecture, setting, fidelity)
        if setting.unit == "flops":
            return (Cost("train", self._flops(architecture, setting) * epochs),)
        if setting.unit == "seconds":
            raise ValueError("budget: seconds are only known after a training; use epochs, evaluations or flops")
        return (Cost("train", float(epochs if setting.unit == "epochs" else 1)),)

    def _schedule(self, a: Architecture, setting: Setting, fidelity: Fidelity) -> tuple[Pipeline, int]:
        if fidelity.epochs < 1:
            raise ValueError(f"fidelity.epochs: {fidelity.epochs} is less than 1")
        if replace(fidelity, epochs=inf) != Fidelity():
            raise ValueError(f"fidelity: {fidelity}: the reference trainer lowers epochs only")
        overrides = self.space.training(a)
        if closed := sorted(set(overrides) - set(setting.pipeline.open)):
            raise ValueError(f"pipeline: {setting.pipeline.name!r} does not open {closed[0]!r} to the architecture")
        pipeline = replace(setting.pipeline, **overrides)
        return pipeline, int(min(fidelity.epochs, pipeline.epochs))

    def _flops(self, a: Architecture, setting: Setting) -> float:
        view = _required(setting)
        network = self.space.build(a, setting.task)
        return training_flops(network, setting.task, setting.pipeline, len(view.train), len(view.valid))


def _required(setting: Setting) -> DataView:
    if setting.data is None:
        raise ValueError("data: training for real needs a data set")
    return setting.data
