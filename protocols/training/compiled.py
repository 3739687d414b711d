"""Trains convolutional networks on the CPU as compiled programs: the stacked trainer where there is no GPU.

On a CPU small networks gain nothing from each other's company: what counts is that a batch costs one call, that a
network's values stay in the cache, and that thin convolutions keep the vector units busy. So the networks of a bucket
are trained one after the other, each with its own weights, seeds, order of examples and augmentation, and each ends as
it does under `reference.fit_from_seed` (tests: every parameter, float64 whole runs to 1e-9).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from ..architecture import Architecture
from ..streams import torch_generator
from ..task import Pipeline, Split
from . import machine
from .descent import learning_rate, make_optimizer
from .ingredients import EpochNoise, Streams, augmented, drop_path_rate, paths_of, soft, targets
from .initial import materialise
from .program import Program, compile_network

_AT_ONCE = 256
"""Examples per batch of an evaluation: their values fit in the cache."""


class Network:
    """One network in the memory of the machine.

    Args:
        program: What it computes.
        state: Initial parameters and statistics, as `nn.Module.state_dict`.
        batch: Largest number of examples at once.
        dtype: Of all arithmetic, np.float32 or np.float64.
    """

    def __init__(self, program: Program, state: Mapping[str, torch.Tensor], batch: int, dtype: np.dtype) -> None:
        self.program = program
        flat = [state[name].numpy().ravel() for name, _ in program.parameters]
        self.parameters = np.concatenate(flat).astype(dtype)
        self.gradients = np.zeros_like(self.parameters)
        rows = [state[f"{name}.{kind}"].numpy() for name, _ in program.statistics for kind in _STATISTICS]
        self.statistics = np.concatenate([np.zeros(0), *rows]).astype(dtype)
        self._values, self._slopes = (np.zeros(program.values * batch, dtype) for _ in range(2))
        self._saved = np.zeros(max(program.saved, 1) * batch, dtype)
        self._scratch, self._copied = (np.zeros(program.scratch * batch, dtype) for _ in range(2))
        self._inverse = np.zeros(max(program.inverse, 1), dtype)
        self._nothing = np.zeros((1, 0), dtype)
        widest = max(1, *program.code[:, machine.OUTPUTS].tolist())
        self._unit, self._nought = np.ones(widest, dtype), np.zeros(widest, dtype)

    def logits(self, x: np.ndarray, *, training: bool, keep: np.ndarray | None = None, units: np.ndarray | None = None
               ) -> np.ndarray:  # fmt: skip
        """Logits (classes, batch), a view, of images x (batch, pixels); masks as in `loss_slopes`."""
        batch, p = len(x), self.program
        self._values[: p.values * batch] = 0
        self._values[: x.size].reshape(-1, batch)[:] = x.T
        self._masks = (self._none(keep), self._none(units))
        machine.forward(
            p.code, self.parameters, self.statistics, self._values, self._saved, self._inverse, self._scratch,
            *self._masks, self._unit, self._nought, batch, training,
        )  # fmt: skip
        return self._values[p.output * batch : (p.output + p.classes) * batch].reshape(p.classes, batch)

    def descend(self, logits: np.ndarray, q: np.ndarray, *, training: bool = True, deep: bool = False) -> None:
        """Fill `gradients` with those of the mean cross-entropy to q (classes, batch), after `logits`."""
        batch, p = logits.shape[1], self.program
        self.gradients[:] = 0
        self._slopes[: p.values * batch] = 0
        place = self._slopes[p.output * batch : (p.output + p.classes) * batch].reshape(p.classes, batch)
        machine.cross_entropy_slope(logits, q, place)
        machine.backward(
            p.code, self.parameters, self.gradients, self._values, self._slopes, self._saved, self._inverse,
            self._scratch, self._copied, *self._masks, batch, training, deep,
        )  # fmt: skip

    def input_slopes(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Gradient (batch, pixels) of the mean cross-entropy with respect to images x, in evaluation."""
        q = _one_hot(y, self.program.classes, self.parameters.dtype)
        self.descend(self.logits(x, training=False), q, training=False, deep=True)
        return self._slopes[: x.size].reshape(-1, len(x)).T.copy()

    def state(self) -> dict[str, torch.Tensor]:
        """Parameters and statistics by the names of the reference network, but for counts of batches."""
        found: dict[str, torch.Tensor] = {}
        start = 0
        for name, shape in self.program.parameters:
            size = int(np.prod(shape))
            found[name] = torch.from_numpy(self.parameters[start : start + size].reshape(shape).copy())
            start += size
        start = 0
        for name, channels in self.program.statistics:
            for kind in _STATISTICS:
                found[f"{name}.{kind}"] = torch.from_numpy(self.statistics[start : start + channels].copy())
                start += channels
        return found

    def _none(self, mask: np.ndarray | None) -> np.ndarray:
        return self._nothing if mask is None else mask


_STATISTICS = ("running_mean", "running_var")


def fit_compiled(
    networks: Mapping[tuple[Architecture, int], torch.nn.Module],
    train: Split,
    evaluate: Mapping[str, Split],
    pipeline: Pipeline,
    *,
    dtype: torch.dtype = torch.float32,
    recorded: Sequence[int] | None = None,
    attack: tuple[str, float] | None = None,
) -> tuple[dict[str, np.ndarray], list[dict[str, torch.Tensor]]]:
    """Train K networks; see `stacked.fit_stacked`.

    Args:
        networks: On the meta device, by (architecture, training seed).
        train: Training examples, images.
        evaluate: Splits to evaluate, by name.
        pipeline: How to train.
        dtype: Of all arithmetic.
        recorded: Epochs, from 1, after which to evaluate; None for all.
        attack: Name of a split and epsilon: also count what withstands the fast gradient sign method (Goodfellow et
            al. 2015, eq. in section 4) after the last epoch, as "fgsm" (K, 1).

    Returns:
        Correct predictions, int64 (K, recorded epochs), for "train", unless the pipeline mixes examples, and each name
        in `evaluate`; and the final state of each network.

    Raises:
        UnsupportedError: A network is none that programs know.
    """
    real = np.dtype(np.float64 if dtype == torch.float64 else np.float32)
    data = {k: (s.x.reshape(len(s), -1).astype(real), s.y) for k, s in {"train": train, **evaluate}.items()}
    found: dict[str, list[list[int]]] = {}
    states = []
    for (architecture, seed), meta in networks.items():
        paths = paths_of(meta) if pipeline.drop_path else []
        program = compile_network(meta, train.x.shape[1:], paths)
        start = materialise(meta, torch_generator(seed, "init", architecture), dtype=dtype)
        network = Network(program, start.state_dict(), max(pipeline.batch_size, _AT_ONCE), real)
        streams = Streams(seed, architecture)
        counts = _fit(network, streams, data, train.x.shape[1:], pipeline, recorded)
        if attack:
            counts["fgsm"] = [_withstood(network, *data[attack[0]], attack[1])]
        for name, values in counts.items():
            found.setdefault(name, []).append(values)
        states.append(network.state())
    return {name: np.array(values, np.int64) for name, values in found.items()}, states


def _fit(
    network: Network,
    streams: Streams,
    data: Mapping[str, tuple[np.ndarray, np.ndarray]],
    shape: tuple[int, ...],
    pipeline: Pipeline,
    recorded: Sequence[int] | None,
) -> dict[str, list[int]]:
    flat = torch.nn.Parameter(torch.from_numpy(network.parameters))
    flat.grad = torch.from_numpy(network.gradients)
    optimizer = make_optimizer([flat], pipeline)
    mixed = pipeline.mixup or pipeline.cutmix
    counts: dict[str, list[int]] = {name: [] for name in data if name != "train" or not mixed}
    x, y = data["train"]
    for epoch in range(pipeline.epochs):
        optimizer.param_groups[0]["lr"] = learning_rate(pipeline, epoch)
        noise = streams.epoch(pipeline, len(y), shape, network.program.paths, network.program.features)
        correct = 0
        for inputs, hard, q, keep, units in _batches(x, y, shape, network, pipeline, epoch, noise):
            logits = network.logits(inputs, training=True, keep=keep, units=units)
            correct += int((logits.argmax(0) == hard).sum())
            network.descend(logits, q)
            optimizer.step()
        if recorded is None or epoch + 1 in recorded:
            for name in counts:
                counts[name].append(correct if name == "train" else _correct(network, *data[name]))
    return counts


def _batches(
    x: np.ndarray, y: np.ndarray, shape: tuple[int, ...], network: Network, pipeline: Pipeline, epoch: int,
    noise: EpochNoise,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]]:  # fmt: skip
    """Images, classes, target distributions (classes, batch), and masks of paths and of classifier inputs."""
    real, classes = x.dtype.type, network.program.classes
    rate = drop_path_rate(pipeline, epoch)
    for number, start in enumerate(range(0, len(y), pipeline.batch_size)):
        part = slice(start, start + pipeline.batch_size)
        index = noise.order[part]
        inputs, hard = x[index], y[index]
        mix = None if noise.mix is None else noise.mix[number]
        if pipeline.cutout or mix is not None:
            images = torch.from_numpy(inputs.reshape(-1, *shape))
            cutout = None if noise.cutout is None else noise.cutout[part]
            box = None if noise.box is None else noise.box[number]
            inputs = augmented(images, pipeline, cutout=cutout, mix=mix, box=box).numpy().reshape(len(index), -1)
        if soft(pipeline):
            own = torch.from_numpy(x).dtype
            q = targets(torch.from_numpy(hard), classes, pipeline, mix=mix, dtype=own).numpy().T.copy()
        else:
            q = _one_hot(hard, classes, x.dtype)
        keep = units = None
        if noise.paths is not None:
            keep = (noise.paths[:, part] >= rate).astype(real) / real(1 - rate)
        if noise.units is not None:
            units = ((noise.units[part] >= pipeline.dropout).astype(real) / real(1 - pipeline.dropout)).T.copy()
        yield inputs, hard, q, keep, units


def _one_hot(y: np.ndarray, classes: int, dtype: np.dtype) -> np.ndarray:
    q = np.zeros((classes, len(y)), dtype)
    q[y, np.arange(len(y))] = 1
    return q


def _correct(network: Network, x: np.ndarray, y: np.ndarray) -> int:
    parts = range(0, len(y), _AT_ONCE)
    logits = (network.logits(x[i : i + _AT_ONCE], training=False).argmax(0) for i in parts)
    return sum(int((found == y[i : i + _AT_ONCE]).sum()) for i, found in zip(parts, logits, strict=True))


def _withstood(network: Network, x: np.ndarray, y: np.ndarray, epsilon: float) -> int:
    parts = [slice(i, i + _AT_ONCE) for i in range(0, len(y), _AT_ONCE)]
    moved = [x[p] + x.dtype.type(epsilon) * np.sign(network.input_slopes(x[p], y[p])) for p in parts]
    return _correct(network, np.concatenate(moved), y)
