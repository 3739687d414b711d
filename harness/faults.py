"""What can go wrong with a run or its files, under names that the faces of the harness tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class DeterminismFault(RuntimeError):
    """One run, executed again, gave something else than is recorded; the message says what differs, and where."""


class Violation(AssertionError):
    """A method does not keep its contract; the message is one line. See `harness.checks`."""


class CorruptRecord(Exception):
    """A stored file is not what was written; `path` and `why` say which and how it shows."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)  # both, so that the exception can be pickled between processes
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something `verify` found.

    Attributes:
        path: The file or folder.
        kind: "corrupt": acknowledged content is damaged; "torn": a killed writer's last line, harmless;
            "leftover": a killed writer's temporary file, harmless; "unknown": not a file of a store.
        detail: What is wrong with it.
    """

    path: Path
    kind: Literal["corrupt", "torn", "leftover", "unknown"]
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.detail}"
