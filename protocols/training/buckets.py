"""Stacks that fit into memory: how many networks at a time, and what to do when that was too many."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..architecture import Architecture
from ..task import Pipeline, Split
from .stacked import fit_stacked

Networks = Mapping[tuple[Architecture, int], nn.Module]

_SHARE = 0.8
"""Of the free memory that a stack may fill."""


def bucket_size(
    networks: Networks,
    train: Split,
    pipeline: Pipeline,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    free: int | None = None,
) -> int:
    """How many of the networks to train at once: as many as 80 % of the free memory holds, at least one.

    The largest network counts: what its backward pass keeps of a forward pass, and once more for gradients on their
    way; its parameters with gradients and two moments. It is a guess; `fit_in_buckets` corrects one too high.

    Args:
        networks: On the meta device.
        train: Training examples, which are on the device too.
        pipeline: Gives the size of a batch.
        dtype: Of all arithmetic.
        device: A torch device.
        free: Bytes; None for what the device has.
    """
    if free is None:
        free = torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else _free_memory()
    shape = (min(pipeline.batch_size, len(train)), *train.x.shape[1:])
    whole = torch.from_numpy(train.x[:0])
    x = torch.empty(shape, dtype=dtype if whole.is_floating_point() else whole.dtype, device="meta")
    each = max(_bytes({a: n for (a, _), n in networks.items()}, x, dtype))
    return max(1, min(len(networks), int((_SHARE * free - train.x.nbytes) / each)))


def fit_in_buckets(
    networks: Networks, train: Split, evaluate: Mapping[str, Split], pipeline: Pipeline, *, size: int, **options: Any
) -> tuple[dict[str, np.ndarray], list[dict[str, torch.Tensor]]]:
    """Train networks in stacks of at most `size`; where one does not fit into memory, in halves of it from then on.

    Arguments and results are those of `fit_stacked`.

    Raises:
        torch.OutOfMemoryError: Not even a single network fits.
    """
    keys, start = list(networks), 0
    totals: list[dict[str, np.ndarray]] = []
    states: list[dict[str, torch.Tensor]] = []
    while start < len(keys):
        bucket = {key: networks[key] for key in keys[start : start + size]}
        try:
            found, trained = fit_stacked(bucket, train, evaluate, pipeline, **options)
        except torch.OutOfMemoryError:
            if len(bucket) == 1:
                raise
            size = len(bucket) // 2
        else:
            start += len(bucket)
            totals.append(found)
            states += trained
            continue
        # Only here, with the error gone, do its frames no longer hold the tensors of the attempt.
        torch.cuda.empty_cache()
    return {name: np.concatenate([t[name] for t in totals]) for name in totals[0]}, states


def _bytes(networks: Mapping[Architecture, nn.Module], x: torch.Tensor, dtype: torch.dtype) -> list[int]:
    """Of one network in training, for each."""
    found = []
    for network in networks.values():
        kept: list[int] = []

        def keep(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.nbytes)
            return tensor

        network = network.to(dtype)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(x)
        found.append(2 * sum(kept) + 4 * sum(p.nbytes for p in network.parameters()))
    return found


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
