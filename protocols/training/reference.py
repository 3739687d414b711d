"""The plain trainer: one network at a time, correct and deterministic. Everything faster is tested against it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
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

if TYPE_CHECKING:
    from ..space import SearchSpace

Progress = Callable[[int, int], None]


def materialise(network: nn.Module, rng: torch.Generator, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Give a network on the meta device its initial weights, on the CPU.

    Linear and convolution layers get torch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and
    biases; batch normalisation gets weight 1, bias 0. All draws come from `rng`, in the order of the modules.

    Raises:
        TypeError: The network has parameters of a kind of layer with no rule here.
    """
    network = network.to_empty(device="cpu").to(dtype)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                bound = (module.weight[0].numel()) ** -0.5
                for parameter in module.parameters(recurse=False):
                    parameter.uniform_(-bound, bound, generator=rng)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif next(module.parameters(recurse=False), None) is not None:
                raise TypeError(f"{type(module).__name__}: no rule to initialise this layer")
    return network


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
    noise_seed: int = 0,
    epochs: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Train `network` in place for classification and count correct predictions.

    Args:
        network: With its initial weights.
        train: Training examples; what is counted on them is what the batches showed while training.
        evaluate: Splits to evaluate after each epoch, by name.
        pipeline: How to train.
        order: Draws the order of the examples, epoch by epoch.
        noise_seed: Seed of the noise inside the network (dropout).
        epochs: Stop early, along the pipeline's own schedule; None for all.
        device: A torch device.
        progress: Called with (epochs done, epochs) after each epoch.

    Returns:
        Correct predictions, int64 (epochs,), for "train" and each name in `evaluate`.
    """
    epochs = pipeline.epochs if epochs is None else epochs
    dtype = next(network.parameters()).dtype
    data = {k: _tensors(s, dtype, device) for k, s in {"train": train, **evaluate}.items()}
    network.to(device)
    optimizer = make_optimizer(list(network.parameters()), pipeline)
    correct = {name: np.zeros(epochs, np.int64) for name in data}
    on_gpu = device.startswith("cuda")
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(noise_seed)
        if on_gpu:
            torch.cuda.manual_seed(noise_seed)
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = learning_rate(pipeline, epoch)
            correct["train"][epoch] = _train_epoch(network, *data["train"], optimizer, order, pipeline.batch_size)
            for name in evaluate:
                correct[name][epoch] = _count(network, *data[name])
            if progress:
                progress(epoch + 1, epochs)
    return correct


def fit_from_seed(
    network: nn.Module,
    architecture: Architecture,
    seed: int,
    train: Split,
    evaluate: Mapping[str, Split],
    pipeline: Pipeline,
    *,
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
        init: Weights to start from, instead of the stream's.
        epochs: See `fit`.
        device: See `fit`.
        progress: See `fit`.

    Returns:
        The trained network, and what `fit` counted.
    """
    network = materialise(network, torch_generator(seed, "init", architecture))
    if init is not None:
        network.load_state_dict(dict(init))
    order, noise = generator(seed, "data-order", architecture), integer(seed, "network-noise", architecture)
    correct = fit(
        network, train, evaluate, pipeline,
        order=order, noise_seed=noise, epochs=epochs, device=device, progress=progress,
    )  # fmt: skip
    return network, correct


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's results depend on its number of threads: inside, it uses one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train_epoch(
    network: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    order: np.random.Generator,
    batch_size: int,
) -> int:
    network.train()
    correct = 0
    for batch in batches(order, len(y), batch_size):
        index = torch.from_numpy(batch).to(y.device)
        optimizer.zero_grad(set_to_none=True)
        logits = network(x[index])
        loss: torch.Tensor = nn.functional.cross_entropy(logits, y[index])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        correct += int((logits.argmax(1) == y[index]).sum())
    return correct


def count_correct(network: nn.Module, split: Split) -> int:
    """Correct predictions of a trained network on the CPU."""
    dtype = next(network.parameters()).dtype
    return _count(network, *_tensors(split, dtype, "cpu"))


@torch.no_grad()
def _count(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    network.eval()
    pairs = zip(torch.split(x, 1024), torch.split(y, 1024), strict=True)
    return sum(int((network(a).argmax(1) == b).sum()) for a, b in pairs)


def _tensors(split: Split, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(split.x).to(device, dtype), torch.from_numpy(split.y).to(device)


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
        started = time.perf_counter()
        network, correct = fit_from_seed(
            self.space.build(architecture, setting.task),
            architecture,
            seed,
            view.train,
            {"valid": view.valid},
            pipeline,
            init=init,
            epochs=epochs,
            device=self.device,
            progress=self.progress,
        )
        train, valid = ((correct[k] / n).tolist() for k, n in (("train", len(view.train)), ("valid", len(view.valid))))
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
