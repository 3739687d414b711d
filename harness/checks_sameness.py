"""Whether two networks compute the same function with the same weights, up to the names of modules and units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..protocols import Task

_TRIALS = 400
_RTOL, _ATOL = 1e-7, 1e-9


def same_function(one: nn.Module, two: nn.Module, task: Task, seed: int = 0) -> bool:
    """Give `two` the weights of `one`, matched module by module, and compare the outputs in float64.

    While `two` runs, each of its modules with parameters takes the weights of a module of `one` that has the same
    shapes and saw the same input, up to the order of its channels (the weights are then reordered). Where
    several did, all choices are tried. Modules that do not run must be of the same shapes in both.

    Args:
        one: On the meta device; it gets random weights and random statistics of batch normalisation.
        two: On the meta device.
        task: Gives the shape of the inputs.
        seed: Of weights and inputs.
    """
    rng = torch.Generator().manual_seed(seed)
    one, two = (n.to_empty(device="cpu").to(torch.float64).eval() for n in (one, two))
    _randomise(one, rng)
    _randomise(two, rng)
    size = (4, *task.shape)
    if task.kind == "text":
        x = torch.randint(task.classes or 1, size, generator=rng)
    else:
        x = torch.randn(size, generator=rng, dtype=torch.float64)
    seen = _Recording(one)
    with torch.no_grad():
        expected = seen.run(x)
        return any(_agrees(two, x, seen, choices, expected) for choices in _Choices())


@dataclass
class _Seen:
    """A module of the first network, and the input that it saw first, with its channels on axis 1."""

    module: nn.Module
    x: torch.Tensor


class _Dead(Exception):
    """No module of the first network saw this input."""


class _Choices:
    """All ways through a tree of choices, depth first; the tree shows itself while it is walked."""

    def __iter__(self) -> _Choices:
        self._next: list[int] | None = []
        self._trials = 0
        return self

    def __next__(self) -> _Choices:
        if self._next is None or self._trials == _TRIALS:
            raise StopIteration
        self._trials += 1
        self._taken: list[tuple[int, int]] = []
        return self

    def take(self, options: int) -> int:
        assert self._next is not None
        depth = len(self._taken)
        choice = self._next[depth] if depth < len(self._next) else 0
        self._taken.append((choice, options))
        return choice

    def done(self) -> None:
        while self._taken and self._taken[-1][0] + 1 == self._taken[-1][1]:
            self._taken.pop()
        taken = [choice for choice, _ in self._taken]
        self._next = [*taken[:-1], taken[-1] + 1] if taken else None


def _leaves(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if next(m.parameters(recurse=False), None) is not None]


def _kind(module: nn.Module) -> tuple[Any, ...]:
    extra = tuple(getattr(module, key, None) for key in ("stride", "padding", "dilation", "groups"))
    return (type(module), *(tuple(p.shape) for p in module.parameters(recurse=False)), extra)


class _Recording:
    """What every module with parameters of a network saw first."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.inputs: dict[nn.Module, _Seen] = {}

    def run(self, x: torch.Tensor) -> torch.Tensor:
        hooks = [m.register_forward_pre_hook(self._note) for m in _leaves(self.network)]
        out: torch.Tensor = self.network(x)
        for hook in hooks:
            hook.remove()
        return out

    def _note(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self.inputs.setdefault(module, _Seen(module, args[0].clone()))

    def candidates(self, module: nn.Module, x: torch.Tensor, taken: set[nn.Module]) -> list[tuple[nn.Module, Any]]:
        found = []
        for seen in self.inputs.values():
            if seen.module not in taken and _kind(seen.module) == _kind(module):
                order = _order(seen.x, x, module)
                if order is not None:
                    found.append((seen.module, order))
        return found


def _agrees(two: nn.Module, x: torch.Tensor, seen: _Recording, choices: _Choices, expected: torch.Tensor) -> bool:
    given: dict[nn.Module, nn.Module] = {}

    def share(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if module in given:
            return
        found = seen.candidates(module, args[0], set(given.values()))
        if not found:
            raise _Dead
        source, order = found[choices.take(len(found)) if len(found) > 1 else 0]
        given[module] = source
        _copy(source, module, order)

    hooks = [m.register_forward_pre_hook(share) for m in _leaves(two)]
    try:
        agree = bool(torch.allclose(two(x), expected, rtol=_RTOL, atol=_ATOL))
    except _Dead:
        agree = False
    finally:
        for hook in hooks:
            hook.remove()
        choices.done()
    idle = Counter(_kind(m) for m in _leaves(two) if m not in given)
    return agree and idle == Counter(_kind(m) for m in set(_leaves(seen.network)) - set(given.values()))


def _order(old: torch.Tensor, new: torch.Tensor, module: nn.Module) -> torch.Tensor | None:
    """The order of channels that turns the old input into the new one, if there is one."""
    if old.shape != new.shape:
        return None
    axis = -1 if isinstance(module, nn.Linear) else 1
    identity = torch.arange(old.shape[axis] if old.dim() > 1 else 1)
    if torch.allclose(old.to(torch.float64), new.to(torch.float64), rtol=_RTOL, atol=_ATOL):
        return identity
    if isinstance(module, nn.Embedding):
        return None
    a, b = (t.movedim(axis, 0).flatten(1) for t in (old, new))
    weights = torch.linspace(1.0, 2.0, a.shape[1], dtype=a.dtype).cos()
    first, second = (torch.argsort(t @ weights, stable=True) for t in (a, b))
    order = torch.empty_like(first)
    order[second] = first
    return order if torch.allclose(a[order], b, rtol=_RTOL, atol=_ATOL) else None


def _copy(source: nn.Module, target: nn.Module, order: torch.Tensor) -> None:
    """The source's weights, for an input whose channels come in another order."""
    depthwise = isinstance(source, nn.Conv2d) and source.groups > 1
    per_channel = isinstance(source, nn.modules.batchnorm._BatchNorm) or depthwise
    for (name, value), (_, place) in zip(_tensors(source), _tensors(target), strict=True):
        if isinstance(source, nn.Embedding) or value.dim() == 0:
            place.copy_(value)
        elif per_channel:
            place.copy_(value[order])
        elif name == "weight":
            place.copy_(value[:, order])
        else:
            place.copy_(value)


def _tensors(module: nn.Module) -> Sequence[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _randomise(network: nn.Module, rng: torch.Generator) -> None:
    with torch.no_grad():
        for module in network.modules():
            for name, tensor in _tensors(module):
                if not tensor.is_floating_point():
                    tensor.zero_()
                elif name == "running_var" or (
                    isinstance(module, nn.modules.batchnorm._BatchNorm) and name == "weight"
                ):
                    tensor.uniform_(0.5, 1.5, generator=rng)
                elif tensor.dim() < 2:
                    tensor.normal_(0.0, 0.5, generator=rng)
                else:
                    tensor.normal_(0.0, (2.0 / tensor[0].numel()) ** 0.5, generator=rng)
