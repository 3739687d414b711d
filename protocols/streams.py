"""Named random streams: every use of randomness draws by name, so that a new use shifts nothing.

>>> a, b = generator(0, "data-order", 3), generator(0, "data-order", 3)
>>> a.random() == b.random()
True
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def sequence(root: int, name: str, *keys: object) -> np.random.SeedSequence:
    """The seed sequence of the stream `name` under `root`.

    It is keyed by sha256, not by Python's `hash`, and so is the same in every process.

    Args:
        root: Root seed, >= 0.
        name: What the randomness is for.
        keys: What tells apart several streams of one name; their `str` counts.
    """
    digest = hashlib.sha256("\x1f".join([name, *map(str, keys)]).encode()).digest()
    return np.random.SeedSequence(root, spawn_key=tuple(np.frombuffer(digest[:16], "<u4").tolist()))


def generator(root: int, name: str, *keys: object) -> np.random.Generator:
    """A numpy generator of its own for the named stream."""
    return np.random.default_rng(sequence(root, name, *keys))


def integer(root: int, name: str, *keys: object) -> int:
    """One integer in [0, 2^63) from the named stream: a seed to hand on."""
    return int(sequence(root, name, *keys).generate_state(1, np.uint64)[0]) >> 1


def torch_generator(root: int, name: str, *keys: object) -> torch.Generator:
    """A torch generator on the CPU for the named stream: the same draws whatever the device."""
    import torch

    return torch.Generator().manual_seed(integer(root, name, *keys))
