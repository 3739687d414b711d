"""Reading pickles of strangers: three names, whose stand-ins hold numbers, and nothing that can run.

A pickle is a program. This one can make dicts, lists, numbers and texts; it may name `collections.OrderedDict`,
`numpy.core.multiarray.scalar` and `numpy.dtype`, the only names in the files of NATS-Bench, and gets a dict, a function
that decodes eight bytes, and a record of a type's name. Any other name is refused. What remains is the time and memory
that a malicious file can ask for: it is read in a process of its own under limits, which answers with plain arrays.
"""

from __future__ import annotations

import bz2
import io
import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

ALLOWED = ("collections.OrderedDict", "numpy.core.multiarray.scalar", "numpy.dtype")
PACKED = 4 << 20
"""Largest file read, in bytes; the published ones have 84,000."""
UNPACKED = 16 << 20
"""Largest decompressed size, in bytes; the published ones have 326,000, and the list of architectures 1,400,000."""
MEMORY = 4 << 30
"""Address space of the reading process, in bytes."""
SECONDS = 600
"""Processor time of the reading process."""

REFUSED = 3
"""Exit code of the reading process that goes with one line of explanation."""


class _Dtype:
    """Stands in for `numpy.dtype`: little-endian numbers of four or eight bytes."""

    FORMATS = ("f4", "f8", "i4", "i8")

    def __init__(self, name: object, align: object = False, copy: object = False) -> None:
        if name not in self.FORMATS:
            raise ValueError(f"numpy.dtype {name!r} is not one of {', '.join(self.FORMATS)}")
        self.name = str(name)
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


def _scalar(dtype: object, data: object) -> float | int:
    """Stands in for `numpy.core.multiarray.scalar`."""
    if not isinstance(dtype, _Dtype) or dtype.order != "<" or not isinstance(data, bytes):
        raise ValueError("a numpy number that is not little-endian")
    code = {"f4": "<f", "f8": "<d", "i4": "<i", "i8": "<q"}[dtype.name]
    value: float | int = struct.unpack(code, data)[0]
    return value


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of an allowed name; nothing is imported."""
        whole = f"{module}.{name}"
        if whole not in ALLOWED:
            raise ValueError(f"refused: the pickle asks for {whole!r}; allowed: {', '.join(ALLOWED)}")
        return dict(zip(ALLOWED, (dict, _scalar, _Dtype), strict=True))[whole]


def load(path: Path) -> Any:
    """The content of a `.pickle.pbz2` file as dicts, lists, texts and numbers.

    Only for a process under limits: see `ask`.

    Raises:
        ValueError: One line naming the file: it is too large, damaged, or asks for a name that is not allowed.
    """
    try:
        packed = path.stat().st_size
        if packed > PACKED:
            raise ValueError(f"refused: {packed} bytes, more than {PACKED}")
        decompressor = bz2.BZ2Decompressor()
        data = decompressor.decompress(path.read_bytes(), max_length=UNPACKED + 1)
        if len(data) > UNPACKED:
            raise ValueError(f"refused: decompresses to more than {UNPACKED} bytes")
        if not decompressor.eof:
            raise ValueError("the file is cut off")
        return _Unpickler(io.BytesIO(data)).load()
    except Exception as error:  # a damaged pickle raises whatever it likes
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path.name}: {' '.join(text.split())}") from None


def limit() -> None:
    """Bound this process's memory and processor time, where the system can."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def ask(module: str, question: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Run a module of this package as a process of its own, which calls `answer`.

    Args:
        module: Its full name.
        question: JSON values for its standard input.

    Returns:
        The arrays that it answers with.

    Raises:
        ValueError: One line: what it refused, or that it died.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        # -P: no module of the current folder stands in for one of ours.
        [sys.executable, "-P", "-m", module],
        input=json.dumps(question).encode(),
        capture_output=True,
        env=environment,
        check=False,
    )
    if done.returncode == REFUSED:
        raise ValueError(done.stderr.decode(errors="replace").strip())
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ValueError(f"the process that reads {question} died with exit code {done.returncode} ({last})")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
        return dict(arrays)


def answer(function: Any) -> None:
    """In the reading process: answer the question on standard input with `function(**question)`, a dict of arrays."""
    limit()
    try:
        found = function(**json.load(sys.stdin))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(REFUSED) from None
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **found)
    sys.stdout.buffer.write(packed.getvalue())
