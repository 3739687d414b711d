"""One-shot models: training of a supernet, batch normalisation of its sub-networks, their scores.

What batch normalisation uses when a sub-network is evaluated is always stated, since it can turn a ranking round:

- `batch`: the statistics of each batch of the evaluation, as in the published ENAS and DARTS code and in Bender et
  al. (2018). A prediction then depends on the examples beside it.
- `running`: the averages kept in training. They mix all the sub-networks that came by and fit none of them: a known
  mistake, kept for comparison.
- `recalibrate`: statistics of the sub-network itself, averaged over some training batches (Guo et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial, reduce
from math import isfinite, nan
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.func import vmap

from ...protocols import Architecture, Cost, Observation, Pipeline, Proposal, SearchSpace, Setting, Split, Traits
from ...protocols.streams import generator, integer, torch_generator
from ...protocols.training import materialise, one_thread
from ...protocols.training.descent import batches, learning_rate, make_optimizer
from ...protocols.training.objectives import Objective, objective_of
from ..meter import Meter
from ..spaces.nb201 import INCOMING, NONE, OPS
from .supernet import NB201Supernet, SharedCell, Supernet, supernet

BATCH_NORMS = ("batch", "running", "recalibrate")

Genes = tuple[int, ...]

# Numbers per node that sub-networks side by side hold: 16 MB.
_AT_ONCE = 2**22

# Ingredients of a pipeline that act on batches, targets or layers: nobody has said what they do to a supernet.
_INGREDIENTS = (
    "label_smoothing", "dropout", "drop_path", "cutout", "mixup", "cutmix", "policy", "shake_shake",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch.

    Attributes:
        epoch: From 0.
        index: Within the epoch, from 0.
        progress: Share of the training that is done, in [0, 1).
        x: Inputs (n, ...).
        y: Targets (n, ...).
    """

    epoch: int
    index: int
    progress: float
    x: torch.Tensor
    y: torch.Tensor


@dataclass(frozen=True, slots=True)
class Work:
    """What one step computed: FLOPs, and passes of examples through a network."""

    flops: float
    examples: int


Step = Callable[[Batch], Work]
"""Leaves gradients on the shared weights; the optimizer's step follows."""


def fit(network: Supernet, setting: Setting, seed: int, epochs: int, step: Step) -> Cost:
    """Train shared weights in place, by the pipeline's optimizer and schedule, over `epochs` epochs.

    Weights that a batch leaves without a gradient stay as they are: neither decay nor momentum moves them.

    Args:
        network: On the CPU.
        setting: With data.
        seed: Of the order of the examples and the noise of dropout layers.
        epochs: 0 leaves the initial weights.
        step: One batch.

    Returns:
        What it cost, as "supernet".
    """
    assert setting.data is not None
    pipeline = replace(setting.pipeline, epochs=max(1, epochs))
    optimizer = make_optimizer(list(network.parameters()), pipeline)
    # The fused step cannot begin the momentum of some weights while others have theirs, as paths come by.
    optimizer.param_groups[0]["fused"] = False
    x, y = tensors(setting.data.train, network)
    network.train()
    work = Meter(setting, "supernet")
    # Dropout layers draw from torch's global generator, which is put back.
    with work, one_thread(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(integer(seed, "supernet-noise"))
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = learning_rate(pipeline, epoch)
            parts = batches(generator(seed, "supernet-order", epoch), len(x), pipeline.batch_size)
            for k, part in enumerate(parts):
                index = torch.from_numpy(part)
                optimizer.zero_grad(set_to_none=True)
                done = step(Batch(epoch, k, (epoch + k / len(parts)) / epochs, x[index], y[index]))
                optimizer.step()
                work.add(flops=done.flops, examples=done.examples)
    return work.cost


def path_step(network: Supernet, objective: Objective, paths: Sequence[Architecture], batch: Batch) -> Work:
    """Add up the gradients of the loss of some sub-networks on one batch."""
    flops = 0.0
    for a in paths:
        objective.loss(network(batch.x, a), batch.y).backward()  # type: ignore[no-untyped-call]
        flops += len(batch.x) * network.flops(a)[1] + network.flops_per_pass(a)[1]
    return Work(flops, len(paths) * len(batch.x))


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """Its batch normalisations."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, batch normalisation uses the statistics of each batch, and keeps none."""
    found = norms(network)
    for norm in found:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm in found:
            norm.training, norm.track_running_stats = network.training, True


@contextmanager
def recalibrated(network: Supernet, a: Architecture, inputs: Sequence[torch.Tensor]) -> Iterator[None]:
    """Inside, the running statistics of the sub-network of `a` are the means over some batches; then all are put back.

    Args:
        network: In evaluation mode.
        a: Whose statistics.
        inputs: Batches of training inputs; the variances averaged are unbiased ones, as torch's running ones.
    """
    found = norms(network)
    kept = [{key: value.clone() for key, value in norm.named_buffers()} for norm in found]
    momenta = [norm.momentum for norm in found]
    for norm in found:
        norm.reset_running_stats()
        norm.training, norm.momentum = True, None  # None is torch's cumulative average
    try:
        with torch.no_grad():
            for x in inputs:
                network(x, a)
        for norm in found:
            norm.training = False
        yield
    finally:
        for norm, buffers, momentum in zip(found, kept, momenta, strict=True):
            for key, value in norm.named_buffers():
                value.copy_(buffers[key])
            norm.training, norm.momentum = network.training, momentum


def logits(
    network: Supernet, a: Architecture, x: torch.Tensor, batch_norm: str, calibration: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """Outputs of one sub-network on one batch in evaluation; the supernet is left as it was, bit for bit."""
    (found,) = _outputs(network, a, [x], batch_norm, calibration)
    return found


def _outputs(
    network: Supernet, a: Architecture, xs: Sequence[torch.Tensor], batch_norm: str, calibration: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    mode = network.training
    network.eval()
    try:
        with torch.no_grad(), _normalised(network, a, batch_norm, calibration):
            return [network(x, a) for x in xs]
    finally:
        network.train(mode)


@contextmanager
def _normalised(
    network: Supernet, a: Architecture, batch_norm: str, calibration: Sequence[torch.Tensor]
) -> Iterator[None]:
    if batch_norm == "batch":
        with batch_statistics(network):
            yield
    elif batch_norm == "recalibrate":
        with recalibrated(network, a, calibration):
            yield
    else:
        yield


def logits_all(
    network: NB201Supernet, architectures: Sequence[Architecture], x: torch.Tensor, batch_norm: str
) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
    """Outputs of many sub-networks on one batch: those of `logits` up to rounding, with shared work done once.

    Stem and first cell are shared: the value of a node depends on the edges into it and into earlier nodes only. Later
    cells read different inputs, and share calls: what some architectures have on an edge is computed side by side.
    Architectures that differ only on edges that lead nowhere are computed once.

    Args:
        network: The supernet.
        architectures: In any order.
        x: One batch of inputs.
        batch_norm: "batch" or "running"; recalibrated statistics are those of a path, and nothing is shared.

    Yields:
        Positions in `architectures`, and their common outputs.

    Raises:
        ValueError: `batch_norm` is another one.
    """
    if batch_norm not in ("batch", "running"):
        raise ValueError(f"batch_norm: {batch_norm!r} shares no work between paths; allowed: batch, running")
    groups: dict[Genes, list[int]] = {}
    for i, a in enumerate(architectures):
        groups.setdefault(_leading_somewhere(a.genes), []).append(i)
    mode = network.training
    network.eval()
    try:
        with torch.no_grad(), batch_statistics(network) if batch_norm == "batch" else nullcontext():
            before, cell, after = _around_first_cell(network)
            first = _SharedValues(cell, reduce(lambda value, part: part(value), before, x))
            size = max(1, _AT_ONCE // first.numel)
            every = sorted(groups)
            for some in (every[i : i + size] for i in range(0, len(every), size)):
                value = torch.stack([first.sum_into(3, genes) for genes in some])
                for part in after:
                    value = (
                        _cells_side_by_side(part, value, some) if isinstance(part, SharedCell) else vmap(part)(value)
                    )
                yield from zip([groups[genes] for genes in some], value, strict=True)
    finally:
        network.train(mode)


def _cells_side_by_side(cell: SharedCell, x: torch.Tensor, genes: Sequence[Genes]) -> torch.Tensor:
    """Cells of one supernet, each with its own genes and input: (cells, n, c, h, w) to the same."""
    nodes = [x]
    for incoming in INCOMING:
        terms = []
        for edge, source in incoming:
            term = torch.empty_like(x)
            column = np.array([g[edge] for g in genes])
            for gene in np.unique(column).tolist():
                members = torch.from_numpy(np.flatnonzero(column == gene))
                term[members] = vmap(partial(cell.term, edge, OPS[gene]))(nodes[source][members])
            terms.append(term)
        nodes.append(reduce(torch.add, terms))
    return nodes[3]


def _leading_somewhere(genes: Genes) -> Genes:
    """The cell with the operations on edges that lead nowhere set to none, which is there if there is such an edge."""
    g = list(genes)
    if g[5] == NONE:
        g[1] = g[2] = NONE
    if g[2] == NONE and g[4] == NONE:
        g[0] = NONE
    return tuple(g)


def _around_first_cell(network: NB201Supernet) -> tuple[list[nn.Module], SharedCell, list[nn.Module]]:
    parts: list[nn.Module] = []
    for part in network.body:
        parts.extend(part if isinstance(part, nn.ModuleList) else [part])
    at = next(i for i, part in enumerate(parts) if isinstance(part, SharedCell))
    return parts[:at], cast(SharedCell, parts[at]), parts[at + 1 :]


class _SharedValues:
    """Values in one cell with one input, kept while the architectures, in order of their genes, agree in prefixes."""

    # How many of the first genes the values of nodes 0, 1 and 2 depend on.
    _DEPENDS = (0, 1, 3)

    def __init__(self, cell: SharedCell, x: torch.Tensor) -> None:
        self._cell, self.numel = cell, x.numel()
        self._nodes = [x, x, x]
        self._prefixes: list[Genes | None] = [(), None, None]
        self._terms: list[dict[tuple[int, int], torch.Tensor]] = [{}, {}, {}]

    def sum_into(self, target: int, genes: Genes) -> torch.Tensor:
        return reduce(torch.add, [self._term(edge, source, genes) for edge, source in INCOMING[target - 1]])

    def _term(self, edge: int, source: int, genes: Genes) -> torch.Tensor:
        prefix = genes[: self._DEPENDS[source]]
        if self._prefixes[source] != prefix:
            self._nodes[source], self._prefixes[source] = self.sum_into(source, genes), prefix
            self._terms[source].clear()
        known, key = self._terms[source], (edge, genes[edge])
        if key not in known:
            known[key] = self._cell.term(edge, OPS[genes[edge]], self._nodes[source])
        return known[key]


def score_all(
    network: NB201Supernet,
    architectures: Sequence[Architecture],
    split: Split,
    *,
    objective: Objective,
    batch_norm: str,
    batch_size: int,
) -> np.ndarray:
    """Metric of many sub-networks on a split, float64 (architectures,): what one by one gives, in less time.

    See `logits_all`: a prediction differs only where two classes are equally likely up to rounding. NaN where an output
    is not finite.
    """
    totals = np.zeros(len(architectures))
    x, y = tensors(split, network)
    with one_thread():
        for inputs, targets in zip(in_batches(x, batch_size), in_batches(y, batch_size), strict=True):
            for members, outputs in logits_all(network, architectures, inputs, batch_norm):
                totals[members] += _total(outputs, targets, objective)
    return np.where(np.isfinite(totals), objective.metric(totals, split.y.size), nan)


def _total(outputs: torch.Tensor, y: torch.Tensor, objective: Objective) -> float:
    if not outputs.isfinite().all():  # the largest of some NaN is a class, too
        return nan
    return objective.total(outputs, y, objective.loss(outputs, y)).item()


def in_batches(x: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """Fixed batches of at most `size`, as equal as can be: of a single example there are no statistics."""
    return torch.tensor_split(x, -(-len(x) // size))


def tensors(split: Split, network: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets in the precision of the network."""
    dtype = next(network.parameters()).dtype
    x, y = (torch.from_numpy(values) for values in (split.x, split.y))
    return x.to(dtype), y.to(dtype) if y.is_floating_point() else y


class OneShot:
    """Trains a supernet in `prepare`; a score is the validation metric of a sub-network with the shared weights.

    What the one-shot estimators share; each says what one training step is. Scores under-estimate what the
    architectures reach by themselves. All candidates see the same validation examples in the same batches. Nothing is
    trained for a proposal, so its fidelity changes nothing.

    Charged are the training (kind "supernet") and each evaluation ("evaluate"), recalibration included. In the unit
    epochs each example that passes counts, those of validation too, over the number of training examples: no answer is
    free. FLOPs are those of what is computed.

    Args:
        epochs: Of the supernet; by default the pipeline's.
        batch_norm: `batch`, `running` or `recalibrate`; see `methods.networks.one_shot`.
        calibration_batches: Training batches for `recalibrate`, the same for all candidates.
    """

    traits = Traits(accuracy_scale=True, deterministic=False, needs_data=True)
    name = "one_shot"

    def __init__(
        self, epochs: int | None = None, batch_norm: str = "recalibrate", calibration_batches: int = 20
    ) -> None:
        if epochs is not None:
            check_whole("epochs", epochs, 0)
        check_whole("calibration_batches", calibration_batches, 1)
        if batch_norm not in BATCH_NORMS:
            raise ValueError(f"batch_norm: {batch_norm!r} is not one of {', '.join(BATCH_NORMS)}")
        self._epochs, self._batch_norm, self._calibration_batches = epochs, batch_norm, calibration_batches

    def fits(self, setting: Setting) -> None:
        """ValueError where there are no data, the clock counts evaluations, or the pipeline has ingredients."""
        if setting.data is None:
            raise ValueError(f"estimator: {self.name!r} trains a supernet and needs --data")
        if setting.unit == "evaluations":
            raise ValueError(
                f"budget: the training of the supernet of {self.name!r} is no number of evaluations; "
                "allowed: seconds, epochs, flops"
            )
        for field in _INGREDIENTS:
            if value := getattr(setting.pipeline, field):
                raise ValueError(f"pipeline.{field}: {value!r} is not for supernets; allowed: pipelines without it")

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Train the supernet.

        Raises:
            ValueError: See `fits` and `supernet`.
        """
        self.fits(setting)
        assert setting.data is not None
        self._space, self._setting, self._seed = space, setting, seed
        self._objective = objective_of(setting.task)
        self.supernet = self._initial(space, setting, seed)
        epochs = setting.pipeline.epochs if self._epochs is None else self._epochs
        cost = fit(self.supernet, setting, seed, epochs, self._step)
        pipeline: Pipeline = setting.pipeline
        x, y = tensors(setting.data.valid, self.supernet)
        self._xs, self._ys = in_batches(x, pipeline.batch_size), in_batches(y, pipeline.batch_size)
        self._calibration: list[torch.Tensor] = []
        if self._batch_norm == "recalibrate" and norms(self.supernet):
            x, _ = tensors(setting.data.train, self.supernet)
            chosen = batches(generator(seed, "calibration"), len(x), pipeline.batch_size)[: self._calibration_batches]
            self._calibration = [x[torch.from_numpy(part)] for part in chosen]
        return (cost,)

    def _initial(self, space: SearchSpace, setting: Setting, seed: int) -> Supernet:
        rng = torch_generator(seed, "supernet-init")
        return cast(Supernet, materialise(supernet(space, setting.task), rng))

    def _step(self, batch: Batch) -> Work:
        raise NotImplementedError

    def _stream(self, batch: Batch) -> np.random.Generator:
        return generator(self._seed, "supernet-path", batch.epoch, batch.index)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One evaluation of the trained supernet for each proposal."""
        return [self._evaluate(p) for p in proposals]

    def _evaluate(self, p: Proposal) -> Observation:
        a, value, reason = p.architecture, nan, "the shared weights give outputs that are not finite"
        work = Meter(self._setting, "evaluate")
        with work, one_thread():
            try:
                self._space.check(a)
                outputs = _outputs(self.supernet, a, self._xs, self._batch_norm, self._calibration)
                totals = [_total(o, y, self._objective) for o, y in zip(outputs, self._ys, strict=True)]
                value = float(self._objective.metric(np.array(sum(totals)), sum(y.numel() for y in self._ys)))
                seen = [*self._xs, *self._calibration]
                examples = sum(map(len, seen))
                flops = examples * self.supernet.flops(a)[0] + len(seen) * self.supernet.flops_per_pass(a)[0]
                work.add(flops=flops, examples=examples, evaluations=1)
            except (ValueError, RuntimeError) as error:
                reason = str(error).partition("\n")[0]
        if not isfinite(value):
            return Observation(p, nan, (work.cost,), status="crashed", reason=reason)
        return Observation(p, value if self._setting.task.higher_is_better else -value, (work.cost,))


def check_whole(field: str, value: object, least: int) -> None:
    """ValueError unless an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{field}: {value!r} is not an integer >= {least}")
