"""What the bits of a training depend on besides its seed: device, instruction path, number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's results depend on its number of threads: inside, it uses one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
