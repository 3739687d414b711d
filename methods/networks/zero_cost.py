"""What zero-cost proxies share (Abdelfattah et al. 2021; Krishnakumar et al. 2022): one look at an untrained network.

A proxy is a formula of a network at initialisation and a minibatch; `ZeroCost` supplies both and charges for the look.
The formulas use gradients and recorded activations, which stand here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import isfinite, nan
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as f
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.flop_counter import FlopCounterMode

from ...protocols import Architecture, Cost, Observation, Proposal, SearchSpace, Setting, Task, Traits
from ...protocols.streams import generator, integer, torch_generator
from ...protocols.training.devices import one_thread
from ...protocols.training.initial import materialise
from ..meter import Meter

Pairs = list[tuple[torch.Tensor, torch.Tensor]]
Batch = tuple[torch.Tensor, torch.Tensor]
Count = Callable[[nn.Module, torch.Tensor, torch.Tensor], int]

FORWARD = 1 / 3
"""A forward pass in training passes: forward and backward count one, the backward pass costing twice the forward."""

_FAILURES = (ValueError, TypeError, RuntimeError)


def layers(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """The layers that proxies add up over: convolutions and linear layers, not batch normalisation."""
    return [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def gradients(network: nn.Module, x: torch.Tensor, y: torch.Tensor, *, create_graph: bool = False) -> Pairs:
    """The weights of `layers(network)`, each with the gradient of the cross-entropy; zeros where none arrives.

    Args:
        network: Is left as it was.
        x: (n, *shape).
        y: Classes, int64 (n,).
        create_graph: Whether the gradients will be differentiated themselves.
    """
    weights = [m.weight for m in layers(network)]
    loss = f.cross_entropy(network(x), y)
    found = torch.autograd.grad(loss, weights, create_graph=create_graph, materialize_grads=True)
    return list(zip(weights, found, strict=True))


def jacobian(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Gradient (n, inputs) of the sum of all outputs with respect to each example."""
    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(network(x.view_as(x)).sum(), x)  # a view: the FLOP counter follows no leaf
    return found.flatten(1)


def correlations(rows: torch.Tensor) -> torch.Tensor:
    """Pearson correlation of each two rows (n, d), float64 (n, n); NaN for a row of equal numbers.

    As `torch.corrcoef`, which does not run on the meta device.
    """
    rows = rows.double()
    centred = rows - rows.mean(1, keepdim=True)
    covariance = centred @ centred.T
    scale = covariance.diagonal().sqrt()
    return (covariance / scale / scale[:, None]).clamp(-1, 1)


def relu_agreement(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """On how many units each two examples agree whether a ReLU is active: N_A - Hamming distance, float64 (n, n).

    Raises:
        ValueError: The network has no `nn.ReLU`. A ReLU that is not a module is not seen.
    """
    relus = [m for m in network.modules() if isinstance(m, nn.ReLU)]
    with recorded(relus, lambda inputs, output: inputs[0]) as signals, torch.no_grad():
        network(x)
    if not signals:
        raise ValueError("the network has no ReLU layer whose codes could be compared")
    total = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    for signal in signals:
        on = (signal.flatten(1) > 0).to(x.dtype)
        total += on @ on.T + (1 - on) @ (1 - on).T
    return total


@contextmanager
def recorded(
    modules: Iterable[nn.Module], part: Callable[[tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]
) -> Iterator[list[torch.Tensor]]:
    """Inside, what `part` takes of (inputs, output) of the modules, in the order of their calls."""
    seen: list[torch.Tensor] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append(part(inputs, output))

    hooks = [m.register_forward_hook(note) for m in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def untrained_mode(network: nn.Module) -> nn.Module:
    """Training mode as proxies use it: batch statistics that leave no trace in running ones, and no dropout."""
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
        elif isinstance(module, _DropoutNd):
            module.eval()
    return network


class ZeroCost:
    """Score architectures by `formula`, the mean over minibatches and initialisations.

    The minibatches are disjoint draws from the training data, the same for all architectures of an estimator's seed.
    Initial weights are those of `training.materialise` from the stream (estimator's seed, repeat, architecture), so
    that scores under several estimator seeds show the proxy's own variance. Batch normalisation uses the statistics
    of the minibatch, dropout is off. What a fidelity asks for is ignored: nothing is trained.

    An architecture crashes where its score is not finite, or where it is exactly 0: then no signal passes its network.
    Charged are, under `proxy`, 1 evaluation; the products of the formula in FLOPs; the examples looked at, a forward
    and backward pass over one being one example and a forward pass a third. A formula that fails is charged in FLOPs
    for a forward pass.

    Args:
        batch_size: Examples of a minibatch, at least 2.
        batches: Minibatches.
        repeats: Initialisations.

    Attributes:
        objectives: Names of what the formula gives beside the score.
        dtype: Of weights and inputs.
        passes: Training passes that one look costs; see `FORWARD`.
    """

    traits = Traits(accuracy_scale=False, deterministic=False, needs_data=True)
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    objectives: tuple[str, ...] = ()
    dtype = torch.float32
    passes = 1.0

    def __init__(self, batch_size: int = 64, batches: int = 1, repeats: int = 1) -> None:
        self.batch_size = whole("batch_size", batch_size, 2)
        self.batches = whole("batches", batches, 1)
        self.repeats = whole("repeats", repeats, 1)

    def formula(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The score (), higher being better; or a vector, the score first and then the `objectives`."""
        raise NotImplementedError

    def initialise(self, network: nn.Module, rng: torch.Generator) -> nn.Module:
        """Give the network, on the meta device, its initial weights."""
        return materialise(network, rng, dtype=self.dtype)

    def inputs(self, repeat: int) -> Sequence[Batch]:
        """The minibatches of one initialisation."""
        return self._drawn

    def fits(self, setting: Setting) -> None:
        """ValueError where the task has no classes, or where data that the proxy looks at are missing or too few."""
        name, task = type(self).__module__.rpartition(".")[2], setting.task
        if task.kind not in ("image", "tabular"):
            raise ValueError(f"estimator: {name!r} scores classifiers of images or tables, not {task.kind} tasks")
        if setting.data is None:
            if self.traits.needs_data:
                raise ValueError(f"estimator: {name!r} looks at training examples and needs --data")
            if setting.unit == "epochs" and self.passes:
                raise ValueError(f"budget: epochs of {name!r} are epochs of training data and need --data")
        elif self.traits.needs_data and self.batch_size * self.batches > len(setting.data.train):
            raise ValueError(
                f"batch_size: {self.batches} x {self.batch_size} examples are more than "
                f"the {len(setting.data.train)} of the training data"
            )

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Draw the minibatches; nothing to pay."""
        self.fits(setting)
        self._space, self._setting, self._seed = space, setting, seed
        self._drawn: list[Batch] = []
        if self.traits.needs_data:
            assert setting.data is not None
            train = setting.data.train
            order = generator(seed, "minibatch").permutation(len(train))[: self.batches * self.batch_size]
            for rows in order.reshape(self.batches, self.batch_size):
                x, y = torch.from_numpy(train.x[rows]), torch.from_numpy(train.y[rows])
                self._drawn.append((x.to(self.dtype), y))
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One look at each architecture."""
        return [self._observe(p) for p in proposals]

    def _observe(self, p: Proposal) -> Observation:
        work = Meter(self._setting, "proxy")
        looks = [self.inputs(repeat) for repeat in range(self.repeats)]
        work.add(examples=self.passes * sum(len(x) for look in looks for x, _ in look), evaluations=1)
        try:
            with work, _undisturbed(integer(self._seed, "torch", p.architecture)):
                values = self._mean(p.architecture, looks)
        except _FAILURES as error:
            with suppress(*_FAILURES):  # what cannot be built costs nothing
                work.add(flops=self._flops(p.architecture, looks, _forward))
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            return Observation(p, nan, (work.cost,), status="crashed", reason=reason)
        work.add(flops=self._flops(p.architecture, looks, self.flops))
        if not isfinite(values[0]) or values[0] == 0:
            reason = f"the score is {values[0]}: no signal passes the network, or too large a one"
            return Observation(p, nan, (work.cost,), status="crashed", reason=reason)
        further = {k: v for k, v in zip(self.objectives, values[1:], strict=True) if isfinite(v)}
        return Observation(p, values[0], (work.cost,), objectives=further)

    def _mean(self, a: Architecture, looks: Sequence[Sequence[Batch]]) -> list[float]:
        found = []
        for repeat, look in enumerate(looks):
            rng = torch_generator(self._seed, "init", repeat, a)
            network = untrained_mode(self.initialise(self._space.build(a, self._setting.task), rng))
            found += [self.formula(network, x, y).detach().double().reshape(-1) for x, y in look]
        mean: list[float] = torch.stack(found).mean(0).tolist()
        return mean

    def flops(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
        """FLOPs of the formula; network, x and y are on the meta device, so that nothing is computed."""
        return counted(lambda: self.formula(network, x, y))

    def _flops(self, a: Architecture, looks: Sequence[Sequence[Batch]], of_one: Count) -> float:
        if self._setting.unit != "flops":
            return 0.0
        x, y = (v.to("meta") for v in looks[0][0])
        network = self._space.build(a, self._setting.task).to(self.dtype)
        # Not in training mode: the counter would take apart batch normalisation, which takes long and costs nothing.
        return float(of_one(network.eval(), x, y) * sum(map(len, looks)))


def counted(work: Callable[[], object]) -> int:
    """FLOPs of the matrix products and convolutions of some work."""
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        work()
    return int(counter.get_total_flops())


def _forward(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    return counted(lambda: network(x))


@contextmanager
def _undisturbed(seed: int) -> Iterator[None]:
    """Gradients on, one thread; torch's own generator, of which a foreign network may draw, seeded and put back."""
    with torch.random.fork_rng(devices=[]), one_thread(), torch.enable_grad():
        torch.default_generator.manual_seed(seed)
        yield


def whole(field: str, value: object, least: int) -> int:
    """The value; ValueError unless it is an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{field}: {value!r} is not an integer >= {least}")
    return value


def no_inputs(task: Task, value: float, dtype: torch.dtype) -> Batch:
    """One example of equal numbers and class 0, for proxies that look at no data."""
    return torch.full((1, *task.shape), value, dtype=dtype), torch.zeros(1, dtype=torch.int64)
