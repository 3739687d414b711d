"""The file of a baseline: one JSON document a line, each behind its checksum.

The first line is the header; `lines` in it says how many follow. A line is `{"crc32":"<8 hex digits>","data":<JSON>}`,
the checksum that of the bytes of `data`, so that a damaged line is found, and named, before anything is compared.
"""

from __future__ import annotations

import hashlib
import platform
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..protocols import Json
from .faults import CorruptRecord
from .files import Files, Fs
from .plan import NotComparable
from .provenance import own_version
from .records import canonical_bytes, parse

SCHEMA = 1

PACKAGES = ("numpy", "scipy", "torch", "scikit-learn", "optuna")
"""Those whose version may change what a strategy does."""

_BEFORE, _AFTER = b'{"crc32":"%08x","data":', b"}"


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline as read.

    Attributes:
        path: Of the file.
        digest: sha256 of its bytes.
        header: What was recorded, where, with what.
        lines: The rest; line i of these is line i + 2 of the file.
    """

    path: Path
    digest: str
    header: Mapping[str, Json]
    lines: tuple[dict[str, Json], ...]

    def corrupt(self, line: int, why: str) -> CorruptRecord:
        """The fault of one of `lines`, named as in the file."""
        return CorruptRecord(self.path, f"line {line + 2}: {why}")


def refuse_existing(path: Path, replace: bool) -> Mapping[str, Json] | None:
    """The origin that a new baseline under this name has to keep; None where it is the first.

    Raises:
        ValueError: There is such a file, and it is not to be replaced, or there is no such folder.
        CorruptRecord: The file to be replaced cannot be read, so that its origin would be lost.
    """
    if not path.parent.is_dir():
        raise ValueError(f"out: there is no folder {path.parent}")
    if not path.exists():
        return None
    if not replace:
        raise ValueError(f"out: {path} is there already; a baseline is replaced by --replace alone")
    origin: Mapping[str, Json] = read(path).header["origin"]
    return origin


def write(path: Path, header: Mapping[str, Json], lines: Iterable[Json], origin: Mapping[str, Json] | None) -> None:
    """Write a baseline, completely or not at all.

    Args:
        path: A file of that name is replaced: see `refuse_existing`.
        header: Of the kind of baseline; versions, machine, date and origin are added.
        lines: JSON values.
        origin: Of the baseline that this one replaces.

    Raises:
        ValueError: The file cannot be written.
    """
    recorded, rest = environment(), list(lines)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    full = {
        **header, "schema": SCHEMA, "lines": len(rest), "recorded": recorded, "created": created,
        "origin": origin or {"created": created, "nasbed": recorded["nasbed"]},
    }  # fmt: skip
    data = b"".join(_line(canonical_bytes(value)) for value in [full, *rest])
    try:
        Files(Fs()).replace(path, data, durable=True)
    except OSError as error:
        raise ValueError(f"out: {path} cannot be written ({error.strerror})") from None


def read(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        ValueError: There is no such file, or it is not a baseline.
        CorruptRecord: A line is not what was written; the message names it.
        NotComparable: Another version of nasbed wrote it, in another layout.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"baseline: {path} cannot be read ({error.strerror})") from None
    if not data.startswith(b'{"crc32":"'):
        raise ValueError(f"baseline: {path} is not a baseline; `nasbed gate record` writes one")
    texts = data.split(b"\n")
    values = [_value(path, number, text) for number, text in enumerate(texts[:-1], start=1)]
    if texts[-1] or not values:
        raise CorruptRecord(Path(path), f"line {len(texts)}: is not complete")
    header = values[0]
    if header.get("schema") != SCHEMA:
        raise NotComparable(
            f"baseline: {path} has schema {header.get('schema')!r}, this version reads {SCHEMA}; record a new one"
        )
    if len(values) - 1 != header["lines"]:
        raise CorruptRecord(Path(path), f"line {len(values)}: is the last one, of {header['lines'] + 1}")
    return Baseline(Path(path), hashlib.sha256(data).hexdigest(), header, tuple(values[1:]))


def environment() -> dict[str, Json]:
    """With what something is recorded or checked: versions and machine."""
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "nasbed": own_version(), "python": platform.python_version(), "system": platform.system(),
        "machine": platform.machine(), "packages": packages,
    }  # fmt: skip


def _line(data: bytes) -> bytes:
    return _BEFORE % zlib.crc32(data) + data + _AFTER + b"\n"


def _value(path: Path, number: int, text: bytes) -> dict[str, Json]:
    start = len(_BEFORE % 0)
    data = text[start : -len(_AFTER)]
    # Compared as bytes: a flipped bit can turn a hexadecimal digit into its capital.
    if text != _line(data)[:-1]:
        raise CorruptRecord(Path(path), f"line {number}: the checksum does not fit the content")
    value = parse(data)
    if not isinstance(value, dict):
        raise CorruptRecord(Path(path), f"line {number}: is not a JSON object")
    return value
