"""Stacked training on a CUDA device: deterministic arithmetic, and steps captured as CUDA graphs.

Nothing in this file has been tested on a GPU yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .lockstep import Lockstep
from .objectives import Objective
from .stacked import Batch, Stack

_WARM_UP = 3


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """On a CUDA device: the same bits from the same seed, and no TF32; settings are put back afterwards.

    cuBLAS reads its part of the setting when the process first uses it, so whoever used the GPU before has to have
    set CUBLAS_WORKSPACE_CONFIG to :4096:8 or :16:8 itself.

    Raises:
        ValueError: CUBLAS_WORKSPACE_CONFIG is set to anything else.
    """
    if not device.startswith("cuda"):
        yield
        return
    workspace = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if workspace not in (":4096:8", ":16:8"):
        raise ValueError(f"CUBLAS_WORKSPACE_CONFIG: {workspace!r}; allowed: ':4096:8', ':16:8'")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # Filling fresh memory helps to find reads of what nobody wrote, and costs a pass over every tensor.
    places: list[tuple[object, str]] = [(cudnn, "benchmark"), (cudnn, "allow_tf32"), (matmul, "allow_tf32")]
    places.append((torch.utils.deterministic, "fill_uninitialized_memory"))
    before, algorithms = [getattr(owner, name) for owner, name in places], torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for owner, name in places:
            setattr(owner, name, False)
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms)
        for (owner, name), value in zip(places, before, strict=True):
            setattr(owner, name, value)


def captured(stack: Lockstep) -> Stack:
    """The stack, its steps of the first batch's shape as a CUDA graph; on other devices the stack itself."""
    return Captured(stack) if any(p.is_cuda for p in stack.parameters) else stack


class Captured:
    """A stack whose forward and backward passes are captured once and replayed. Not tested on a GPU.

    A graph holds for one shape. Batches of another one, the last of an epoch, are computed directly. The optimizer
    stays outside, since its learning rate changes: it is one launch for all parameters.
    """

    def __init__(self, stack: Lockstep) -> None:
        self._stack, self.parameters = stack, stack.parameters
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[torch.Tensor] = []
        self._objective: Objective | None = None
        self._totals: torch.Tensor

    def gradients(self, x: torch.Tensor, y: torch.Tensor, noise: Batch, objective: Objective) -> torch.Tensor:
        """See `Stack`."""
        given = [t for t in (x, y, noise.paths, noise.units) if t is not None]
        if self._graph is None:
            self._capture(x, y, noise, objective)
        if objective is not self._objective or [t.shape for t in given] != [t.shape for t in self._inputs]:
            return self._stack.gradients(x, y, noise, objective)
        for held, new in zip(self._inputs, given, strict=True):
            held.copy_(new)
        assert self._graph is not None
        self._graph.replay()
        return self._totals.clone()

    def totals(self, x: torch.Tensor, y: torch.Tensor, objective: Objective) -> torch.Tensor:
        """See `Stack`."""
        return self._stack.totals(x, y, objective)

    def state(self, k: int) -> dict[str, torch.Tensor]:
        """See `Stack`."""
        return self._stack.state(k)

    def _capture(self, x: torch.Tensor, y: torch.Tensor, noise: Batch, objective: Objective) -> None:
        x, y = x.clone(), y.clone()
        held = Batch(*(None if t is None else t.clone() for t in (noise.paths, noise.units)))
        self._inputs = [t for t in (x, y, held.paths, held.units) if t is not None]
        self._objective = objective
        # Running statistics move in every pass; those of warming up do not count.
        buffers = list(self._stack.module.buffers())
        before = [b.clone() for b in buffers]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._stack.gradients(x, y, held, objective)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._totals = self._stack.gradients(x, y, held, objective)
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
