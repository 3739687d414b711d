"""Many language models with cells of one size at once, in one pass of batched matrix products for each state.

Arrays are (K, units, batch), the batch innermost, so that the halves of a state's matrix product, candidate and gate,
are contiguous for each network. Every state has an order of its own of the networks, sorted by its activation: then
each activation works on one contiguous run, and what the networks read is gathered into that order, from whichever
state each one reads. Backpropagation through time is written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...protocols.training.objectives import TEXT, Objective
from .recurrent import LanguageModel, RecurrentCell

if TYPE_CHECKING:
    from ...protocols.training.stacked import Batch

Run = tuple[str, slice]


class LanguageModels:
    """K language models (a `Stack`, see `protocols.training.stacked`) whose cells differ in all but their size.

    Args:
        networks: With their initial weights.
        dtype: Of all arithmetic.

    Attributes:
        parameters: One flat tensor of the parameters of all networks.

    Raises:
        ValueError: A cell is no `RecurrentCell`, or sizes differ.
    """

    def __init__(self, networks: Sequence[LanguageModel], dtype: torch.dtype) -> None:
        cells = [network.cell for network in networks if isinstance(network.cell, RecurrentCell)]
        shapes = {(c.highway, *(p.shape for p in n.parameters())) for c, n in zip(cells, networks, strict=False)}
        if len(cells) != len(networks) or len(shapes) != 1:
            raise ValueError("networks: stacked training needs recurrent cells and vocabularies of equal sizes")
        self._cells = _Cells(cells, dtype)
        # The networks as a whole are in the order of the first state.
        self._order = torch.tensor(self._cells.orders[0])
        self._place = self._order.argsort()
        self._sorted = self._cells.orders[0] == list(range(len(cells)))
        self._fill(networks, dtype)
        self._spaces: dict[tuple[int, int], _Space] = {}

    def _fill(self, networks: Sequence[LanguageModel], dtype: torch.dtype) -> None:
        states = [network.state_dict() for network in networks]
        self._names = list(states[0])
        # In the order of the names: embedding, matrices of input, hidden state and further states, decoder and bias.
        first, *further = self._cells.orders
        orders = [first, first, first, *further, first, first]
        self._places = [torch.tensor(order).argsort() for order in orders]
        pairs = list(zip(self._names, orders, strict=True))
        flat = torch.cat([states[k][name].flatten() for name, order in pairs for k in order]).to(dtype)
        gradient = torch.zeros_like(flat)
        shapes = [(len(networks), *states[0][name].shape) for name in self._names]
        sizes = [len(networks) * states[0][name].numel() for name in self._names]
        self._weights, self._gradients = (
            [part.view(shape) for part, shape in zip(torch.split(t, sizes), shapes, strict=True)]
            for t in (flat, gradient)
        )
        parameter = nn.Parameter(flat)
        parameter.grad = gradient
        self._gradient = gradient
        self.parameters: Sequence[torch.Tensor] = [parameter]

    @torch.no_grad()
    def gradients(self, x: torch.Tensor, y: torch.Tensor, noise: Batch, objective: Objective) -> torch.Tensor:
        """See `stacked.Stack`: x and y int64 (K, batch, length), or y distributions (K, batch, length, words)."""
        _check(objective)
        units = noise.units
        if not self._sorted:
            x, y = x.index_select(0, self._order), y.index_select(0, self._order)
            units = None if units is None else units.index_select(0, self._order)
        self._gradient.zero_()
        space = self._start(x)
        losses = []
        for t in range(x.shape[2]):
            self._step(space, t)
            losses.append(self._decode(space, t, y[:, :, t], None if units is None else units.mT))
        self._back(space)
        return _summed(losses)[self._place]

    @torch.no_grad()
    def clip(self, largest: float) -> None:
        """Shorten the gradient of each network to a norm of at most `largest`, as `clip_grad_norm_` does."""
        parts = list(zip(self._gradients, self._places, strict=True))
        norms = [torch.linalg.vector_norm(gradient.flatten(1), dim=1)[place] for gradient, place in parts]
        factors = (largest / (torch.linalg.vector_norm(torch.stack(norms), dim=0) + 1e-6)).clamp(max=1)
        for gradient, place in parts:
            gradient.flatten(1).mul_(torch.empty_like(factors).index_copy_(0, place, factors)[:, None])

    @torch.no_grad()
    def totals(self, x: torch.Tensor, y: torch.Tensor, objective: Objective) -> torch.Tensor:
        """See `stacked.Stack`: x and y int64 (batch, length)."""
        _check(objective)
        k = len(self._order)
        space = self._start(x.expand(k, *x.shape))
        losses = []
        for t in range(x.shape[1]):
            self._step(space, t)
            losses.append(_softmax(self._logits(space.hidden[t + 1]), y[:, t].expand(k, -1)))
        return _summed(losses)[self._place]

    def state(self, k: int) -> dict[str, torch.Tensor]:
        """Copies of the parameters of network k, as by its own `state_dict`."""
        triples = zip(self._names, self._weights, self._places, strict=True)
        return {name: weight[place[k]].detach().clone() for name, weight, place in triples}

    def _start(self, x: torch.Tensor) -> _Space:
        """The space for x (K, batch, length), with a table (K, words, wide) of the first state's products."""
        size = x.shape[1], x.shape[2]
        if size not in self._spaces:
            self._spaces[size] = _Space(self._cells, *size)
        embedding, read = self._weights[:2]
        self._spaces[size].start(x, torch.bmm(embedding, read.mT))
        return self._spaces[size]

    def _step(self, space: _Space, t: int) -> None:
        """From hidden[t] to hidden[t + 1]."""
        cells = self._cells
        for i, state in enumerate(space.steps[t]):
            if i:
                torch.index_select(space.rows, 0, cells.read[i], out=state.inputs)
                torch.bmm(self._weights[2 + i], state.inputs, out=state.values)
            else:
                torch.baddbmm(space.found(t), self._weights[2], state.inputs, out=state.values)
            for kind, run in state.runs:
                _ACTIVATE[kind](run)
            if state.gate is None:
                space.states[i].copy_(state.candidate)
            else:
                torch.lerp(state.inputs, state.candidate, state.gate.sigmoid_(), out=space.states[i])
        hidden = space.hidden[t + 1].zero_()
        hidden.index_add_(0, cells.averaging, space.rows.index_select(0, cells.averaged)).mul_(cells.share)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self._weights[-1][:, :, None], self._weights[-2], hidden)

    def _decode(self, space: _Space, t: int, y: torch.Tensor, units: torch.Tensor | None) -> torch.Tensor:
        """Losses (K, batch) of step t; adds to the decoder's gradient, and stores that of hidden[t + 1]."""
        hidden = space.hidden[t + 1] if units is None else space.hidden[t + 1] * units
        slope = self._logits(hidden)
        losses = _softmax(slope, y if y.ndim == 2 else y.argmax(2))
        if y.ndim == 3:
            slope.sub_(y.mT)
        else:
            slope.scatter_add_(1, y[:, None], slope.new_full((), -1).expand(len(y), 1, y.shape[1]))
        slope.div_(y.shape[1] * len(space.steps))
        self._gradients[-2].baddbmm_(slope, hidden.mT)
        self._gradients[-1].add_(slope.sum(2))
        back = torch.bmm(self._weights[-2].mT, slope, out=space.slopes[t])
        if units is not None:
            back.mul_(units)
        return losses

    def _back(self, space: _Space) -> None:
        """Backpropagation through time, from the gradients of the hidden states that the decoder left."""
        cells, hidden = self._cells, space.back
        hidden.zero_()
        for t in reversed(range(len(space.steps))):
            hidden.add_(space.slopes[t]).mul_(cells.share)
            space.states.zero_()
            space.rows.index_copy_(0, cells.averaged, hidden.index_select(0, cells.averaging))
            for i in reversed(range(len(space.steps[t]))):
                self._back_state(space, space.steps[t][i], i)
                if i:
                    space.rows.index_add_(0, cells.read[i], space.back)
            space.collect(t)
        embedding, read = self._weights[:2]
        torch.bmm(space.table, read, out=self._gradients[0])
        torch.bmm(space.table.mT, embedding, out=self._gradients[1])

    def _back_state(self, space: _Space, state: _State, i: int) -> None:
        """From the gradient of a state to `space.back`, that of what it reads; values become those of the products."""
        gradient, slope, back = space.states[i], space.slope, space.back
        if state.gate is None:
            slope.copy_(gradient)
            back.zero_()
        else:
            torch.sub(state.candidate, state.inputs, out=back).mul_(gradient)
            torch.mul(gradient, state.gate, out=slope)
            torch.ops.aten.sigmoid_backward.grad_input(back, state.gate, grad_input=state.gate)
            torch.sub(gradient, slope, out=back)
        for (kind, run), of_run in zip(state.runs, space.slope_runs[i], strict=True):
            _SLOPE[kind](of_run, run)
        self._gradients[2 + i].baddbmm_(state.values, state.inputs.mT)
        back.baddbmm_(self._weights[2 + i].mT, state.values)


class _Cells:
    """What the cells of K networks look like.

    A row is the number of a state times K, plus a place in that state's order of the networks.

    Attributes:
        orders: Per state, the networks sorted by its activation.
        runs: Per state, its activations and the places where they are.
        read: Per state, the rows that it reads, in its order, int64 (K,); the first reads none.
        averaged: Rows of the states whose means are the hidden states, and `averaging`, the places of these.
        share: (K, 1, 1), 1 / number of states averaged, in the order of the first state.
    """

    def __init__(self, cells: Sequence[RecurrentCell], dtype: torch.dtype) -> None:
        self.k, self.units, self.highway, self.dtype = len(cells), cells[0].units, cells[0].highway, dtype
        kinds = list(zip(*(cell.activations for cell in cells), strict=True))
        self.orders = [sorted(range(self.k), key=of_state.__getitem__) for of_state in kinds]
        self.runs = [_runs([of_state[k] for k in order]) for of_state, order in zip(kinds, self.orders, strict=True)]
        rows = {(i, k): i * self.k + p for i, order in enumerate(self.orders) for p, k in enumerate(order)}
        first, *further = self.orders
        self.read = [torch.empty(0, dtype=torch.int64)]
        for i, order in enumerate(further):
            self.read.append(torch.tensor([rows[cells[k].sources[i], k] for k in order]))
        averaged = [(rows[i, k], place) for place, k in enumerate(first) for i in cells[k].averaged]
        self.averaged, self.averaging = (torch.tensor(column) for column in zip(*averaged, strict=True))
        self.share = torch.tensor([1 / len(cells[k].averaged) for k in first], dtype=dtype)[:, None, None]


@dataclass(slots=True)
class _State:
    """Arrays of one state at one step.

    Attributes:
        values: (K, wide, batch): the products, then candidates and gates, then gradients of the products.
        inputs: (K, units, batch): what it reads, or the hidden state.
        candidate: The first half of the values.
        gate: The second half, if there is one.
        runs: Activations, and the parts of the candidates on which they work.
    """

    values: torch.Tensor
    inputs: torch.Tensor
    candidate: torch.Tensor
    gate: torch.Tensor | None
    runs: list[tuple[str, torch.Tensor]]


class _Space:
    """Arrays of one size of batch, used again in every step; views are made once, as they cost as much as operations.

    Attributes:
        steps: Per step, its states.
        states: (states, K, units, batch): values of one step, each in its order; later their gradients.
        rows: The same, (states * K, units, batch).
        hidden: (1 + length, K, units, batch); the first is 0.
        slopes: (length, K, units, batch): gradients of the hidden states from the decoder.
        slope: (K, units, batch): gradient of the candidates of a state, and `slope_runs`, its parts per state.
        back: (K, units, batch): gradient of what a state reads.
        table: (K, words, wide): gradient of the table.
    """

    def __init__(self, cells: _Cells, batch: int, length: int) -> None:
        k, units, n = cells.k, cells.units, len(cells.orders)

        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(*shape, batch, dtype=cells.dtype)

        self.states, self.slope, self.back = empty(n, k, units), empty(k, units), empty(k, units)
        self.rows = self.states.flatten(0, 1)
        self.slope_runs = [[self.slope[run] for _, run in runs] for runs in cells.runs]
        self.hidden, self.slopes = empty(1 + length, k, units).zero_(), empty(length, k, units)
        values = empty(length, n, k, units * (1 + cells.highway))
        inputs = empty(length, n - 1, k, units)
        self.steps = [
            [
                _State(
                    value,
                    read,
                    value[:, :units],
                    value[:, units:] if cells.highway else None,
                    [(kind, value[run, :units]) for kind, run in runs],
                )
                for value, read, runs in zip(values[t], (self.hidden[t], *inputs[t]), cells.runs, strict=True)
            ]
            for t in range(length)
        ]

    def start(self, x: torch.Tensor, table: torch.Tensor) -> None:
        """Prepare to look up x (K, batch, length) in the table."""
        k, words, wide = table.shape
        self._words = (x + words * torch.arange(k)[:, None, None]).permute(2, 0, 1).flatten(1)
        self._table, self.table = table.view(-1, wide), torch.zeros_like(table)

    def found(self, t: int) -> torch.Tensor:
        """What the table has for step t, (K, wide, batch)."""
        found = self._table.index_select(0, self._words[t])
        return found.view(len(self.table), -1, found.shape[1]).mT

    def collect(self, t: int) -> None:
        """Add the gradients of the first state's products at step t to those of the table."""
        gradient = self.steps[t][0].values.mT.flatten(0, 1)
        self.table.flatten(0, 1).index_add_(0, self._words[t], gradient)


def _softmax(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Turn logits (K, words, batch) into probabilities, in place; return -log of those of y, (K, batch)."""
    logits.sub_(logits.amax(1, keepdim=True))
    chosen = logits.gather(1, y[:, None])
    total = logits.exp_().sum(1, keepdim=True)
    logits.div_(total)
    return total.log_().sub_(chosen)[:, 0]


def _summed(losses: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sums (K,) from the means in the arithmetic of the networks, as `objectives` has them."""
    every = torch.stack(list(losses), 2).flatten(1)
    return every.mean(1).double() * every.shape[1]


def _check(objective: Objective) -> None:
    if objective is not TEXT:
        raise ValueError("objective: language models learn text")


def _runs(kinds: Sequence[str]) -> list[Run]:
    start, runs = 0, []
    for kind, group in groupby(kinds):
        stop = start + len(list(group))
        runs.append((kind, slice(start, stop)))
        start = stop
    return runs


_ACTIVATE: dict[str, Callable[[torch.Tensor], object]] = {
    "tanh": torch.Tensor.tanh_,
    "relu": torch.Tensor.relu_,
    "identity": lambda x: x,
    "sigmoid": torch.Tensor.sigmoid_,
}
# From the gradient of an activation's value and that value, which is overwritten, to the gradient of its argument.
_SLOPE: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "tanh": lambda g, a: torch.ops.aten.tanh_backward.grad_input(g, a, grad_input=a),
    "relu": lambda g, a: torch.ops.aten.threshold_backward.grad_input(g, a, 0, grad_input=a),
    "identity": lambda g, a: a.copy_(g),
    "sigmoid": lambda g, a: torch.ops.aten.sigmoid_backward.grad_input(g, a, grad_input=a),
}
