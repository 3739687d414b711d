"""Is a value reachable from an object? Walks attributes, closures, globals of our own modules, and buffers."""

from __future__ import annotations

import array
import gc
import mmap
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np

BUFFERS = (bytes, bytearray, memoryview, mmap.mmap, array.array)


def find_leaks(roots: Mapping[str, object], needles: Iterable[bytes], *, modules: tuple[str, ...] = ()) -> list[str]:
    """Paths from a root to a buffer, or a sequence of numbers, that contains one of the needles.

    Args:
        roots: What a method is given, by name.
        needles: Bytes of the sealed values; each long enough not to be met by chance.
        modules: Names of modules whose globals are walked besides those of nasbed: the user's own.
    """
    sought = list(needles)
    assert sought
    assert min(map(len, sought)) >= 32
    return [path for path, thing in walk(roots, modules) if any(n in b for b in _bytes_of(thing) for n in sought)]


def mapped_files(part: str) -> list[str]:
    """Lines of /proc/self/maps that name a file whose path contains `part`."""
    with open("/proc/self/maps", encoding="utf-8") as lines:
        return [line for line in lines if part in line]


def walk(roots: Mapping[str, object], modules: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every object that can be reached, once, with the path to it."""
    seen: set[int] = {id(roots)}
    keep: list[object] = []  # an id is only unique as long as its object lives
    queue: list[tuple[str, Any]] = list(roots.items())
    while queue:
        path, thing = queue.pop()
        if id(thing) in seen or isinstance(thing, str | int | float | complex | FrameType | None):
            continue
        seen.add(id(thing))
        keep.append(thing)
        if isinstance(thing, ModuleType) and not _ours(thing.__name__, modules):
            continue
        # A planted method's module leads to pytest, and from there to every test that was collected.
        if type(thing).__module__.startswith("_pytest."):
            continue
        yield path, thing
        queue += [(f"{path}{step}", found) for step, found in _referents(thing, modules)]


def _ours(name: str | None, modules: tuple[str, ...]) -> bool:
    return name is not None and (name.split(".")[0] == "nasbed" or name in modules)


def _referents(thing: Any, modules: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, ModuleType):
        yield from ((f".{k}", v) for k, v in vars(thing).items())
    elif isinstance(thing, FunctionType):
        # Globals of foreign functions lead into every library.
        if _ours(thing.__module__, modules) and thing.__module__ in sys.modules:
            yield "", sys.modules[thing.__module__]
        yield from ((f".closure[{i}]", cell) for i, cell in enumerate(thing.__closure__ or ()))
        yield from ((f".default[{i}]", v) for i, v in enumerate(thing.__defaults__ or ()))
        yield from ((f".default[{k}]", v) for k, v in (thing.__kwdefaults__ or {}).items())
        yield from ((f".{k}", v) for k, v in vars(thing).items())
    elif isinstance(thing, BuiltinFunctionType):
        yield ".__self__", thing.__self__
    elif isinstance(thing, np.ndarray):
        yield ".base", thing.base
        if thing.dtype == object:
            yield from ((f"[{i}]", v) for i, v in enumerate(thing.ravel()))
    elif isinstance(thing, memoryview):
        yield ".obj", thing.obj
    elif isinstance(thing, dict):
        yield from ((f"[{k!r}]", v) for k, v in thing.items())
        yield from ((f"[key {i}]", k) for i, k in enumerate(thing))
    elif isinstance(thing, type) and not _ours(thing.__module__, modules):
        return
    else:
        if not isinstance(thing, type):
            yield ".__class__", type(thing)
            for name, value in getattr(thing, "__dict__", {}).items():
                yield f".{name}", value
            for kind in type(thing).__mro__:
                slots = vars(kind).get("__slots__", ())
                for name in (slots,) if isinstance(slots, str) else slots:
                    if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                        yield f".{name}", getattr(thing, name)
        yield from ((f".referent[{i}]", v) for i, v in enumerate(gc.get_referents(thing)))


def _bytes_of(thing: Any) -> Iterator[bytes]:
    """The content of a buffer; of a sequence of numbers, its bytes as float64 and, if they are whole, as uint16."""
    if isinstance(thing, np.ndarray) and thing.dtype != object:
        yield thing.tobytes()
        if thing.ndim > 1:
            yield np.swapaxes(thing, 0, -1).tobytes()
    elif isinstance(thing, BUFFERS):
        yield bytes(thing)
    elif "torch" in sys.modules and isinstance(thing, sys.modules["torch"].Tensor):
        # All of the memory that the tensor is a view of.
        yield bytes(thing.detach().cpu().untyped_storage())
    elif isinstance(thing, list | tuple | dict):
        numbers = list(thing.values() if isinstance(thing, dict) else thing)
        if numbers and all(type(n) in (int, float) for n in numbers):
            yield np.array(numbers, np.float64).tobytes()
            if all(n == n and 0 <= n < 2**16 and n == int(n) for n in numbers):
                yield np.array(numbers, np.uint16).tobytes()
