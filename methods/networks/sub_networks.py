"""Sub-networks of a trained supernet: their batch normalisation, their outputs, their scores.

What batch normalisation uses when a sub-network is evaluated is always stated, since it can turn a ranking round:

- `batch`: the statistics of each batch of the evaluation, as in the published ENAS and DARTS code and in Bender et
  al. (2018). A prediction then depends on the examples beside it.
- `running`: the averages kept in training. They mix all the sub-networks that came by and fit none of them: a known
  mistake, kept for comparison.
- `recalibrate`: statistics of the sub-network itself, averaged over some training batches (Guo et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial, reduce
from math import nan
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.func import vmap

from ...protocols import Architecture, Split
from ...protocols.training import one_thread
from ...protocols.training.objectives import Objective
from ..spaces.nb201 import INCOMING, NONE, OPS
from .supernet import NB201Supernet, SharedCell, Supernet

BATCH_NORMS = ("batch", "running", "recalibrate")

Genes = tuple[int, ...]

# Numbers per node that sub-networks side by side hold: 16 MB.
_AT_ONCE = 2**22


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
    (found,) = outputs_of(network, a, [x], batch_norm, calibration)
    return found


def outputs_of(
    network: Supernet, a: Architecture, xs: Sequence[torch.Tensor], batch_norm: str, calibration: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """As `logits`, of several batches."""
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
                totals[members] += total(outputs, targets, objective)
    return np.where(np.isfinite(totals), objective.metric(totals, split.y.size), nan)


def total(outputs: torch.Tensor, y: torch.Tensor, objective: Objective) -> float:
    """What the metric adds up over a batch; NaN where an output is not finite."""
    if not outputs.isfinite().all():  # the largest of some NaN is a class, too
        return nan
    return objective.total(outputs, y, objective.loss(outputs, y)).item()


def in_batches(x: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """Fixed batches of at most `size`, as equal as can be: of a single example there are no statistics."""
    return torch.tensor_split(x, -(-len(x) // size))


def tensors(split: Split, network: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets in the precision of the network; tokens and classes are numbers of things, and stay int64."""
    dtype = next(network.parameters()).dtype
    x, y = (torch.from_numpy(values) for values in (split.x, split.y))
    x, y = (t.to(dtype) if t.is_floating_point() else t for t in (x, y))
    return x, y
