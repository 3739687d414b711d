"""The event log: what a run in progress has done, so that another attempt goes on from there."""

from __future__ import annotations

import contextlib
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ..protocols import Json
from .faults import Problem
from .files import TEMPORARY, Files
from .records import canonical, parse

SYNC_SECONDS = 1.0
"""An event log is forced to disk at most this often: a crash of the machine costs at most so much of it."""

_ATTEMPT = re.compile(r"[0-9]{6}\.jsonl")


class EventLog:
    """What a run in progress has done, one JSON value per finished call.

    Every attempt at the run appends to a file of its own, `events/<number>.jsonl`. Line i of it is the crc32 of
    the rest, a space, and `[position, event]`; the first line is `[k, "start"]`: the attempt replayed the first k
    events and goes on from there. The history is therefore built attempt by attempt: the first k events of what is
    there, followed by the attempt's own up to its first bad line. An attempt that builds on more events than can
    still be read is passed over. As a file only ever grows, what one attempt has built upon never changes, even
    while an older attempt, believed dead, is still writing.

    `append` returns when the event outlives the process; it outlives the machine after `SYNC_SECONDS` or `close`.
    """

    def __init__(self, folder: Path, files: Files) -> None:
        self._run = folder
        self._folder = folder / "events"
        self._files = files
        self._fd: int | None = None
        self._count: int | None = None
        self._synced = 0.0
        self.problems: list[Problem] = []

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> list[Json]:
        """The longest consistent history, all attempts together; the next `append` continues it.

        A damaged line never raises: it is reported in `problems`, the file is copied to `<attempt>.jsonl.corrupt`
        where that is possible, and the attempt ends before it.
        """
        history: list[Json] = []
        self.problems = []
        for path in attempts(self._run):
            start, events, problem = read_attempt(self._files.fs.read(path))
            if problem:
                self.problems.append(Problem(path, *problem))
                if problem[0] == "corrupt":
                    self._quarantine(path)
            if start is not None and start <= len(history):
                history[start:] = events
        if self._fd is None:
            self._count = len(history)
        return history

    def append(self, event: Json) -> None:
        """Add one event.

        Raises:
            ValueError: The event is not JSON, or the run has no spec.json yet (`RunStore.begin`).
            OSError: The system failed; the event is not acknowledged. Append it again: a new attempt begins.
        """
        # Formed first: an event that is not JSON must leave the log as it is.
        text = canonical(event)
        if self._fd is None:
            self._start()
        assert self._fd is not None
        assert self._count is not None
        try:
            self._files.write(self._fd, _line(f"[{self._count},{text}]"))
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                self._sync()
        except BaseException:
            # The file may end in half a line now. It is left alone, and the next attempt builds on what was
            # acknowledged: there is nothing to heal.
            self._abandon()
            raise
        self._count += 1

    def close(self) -> None:
        """Force the events to disk and release the file; the log may be used again."""
        if self._fd is None:
            return
        try:
            self._sync()
        finally:
            self._abandon()

    def _start(self) -> None:
        if not (self._run / "spec.json").exists():
            raise ValueError(f"key: run {self._run.name} has no spec.json; call RunStore.begin first")
        if self._count is None:
            self.read()
        self._files.folder(self._folder)
        number = max((int(p.stem) for p in attempts(self._run)), default=0)
        while self._fd is None:
            number += 1
            path = self._folder / f"{number:06d}.jsonl"
            with contextlib.suppress(FileExistsError):  # another attempt took the number: one writer per file
                self._fd = self._files.fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        try:
            self._files.write(self._fd, _line(f'[{self._count},"start"]'))
            self._sync()
            # The names of the file and of its folder, once per attempt.
            self._files.sync_folder(self._folder)
            self._files.sync_folder(self._run)
        except BaseException:
            self._abandon()
            raise

    def _sync(self) -> None:
        assert self._fd is not None
        self._files.fs.fdatasync(self._fd)
        self._synced = time.monotonic()

    def _abandon(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                self._files.fs.close(fd)

    def _quarantine(self, path: Path) -> None:
        copy = path.with_name(path.name + ".corrupt")
        with contextlib.suppress(OSError):  # a reader may have no right to write
            if not copy.exists():
                self._files.replace(copy, self._files.fs.read(path), durable=False)


def _line(text: str) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    return b"%08x %s\n" % (zlib.crc32(data), data)


def attempts(run: Path) -> list[Path]:
    """Files of the attempts at a run, oldest first."""
    folder = run / "events"
    return sorted(p for p in folder.glob("*.jsonl") if _ATTEMPT.fullmatch(p.name)) if folder.is_dir() else []


def read_attempt(
    data: bytes,
) -> tuple[int | None, list[Json], tuple[Literal["corrupt", "torn"], str] | None]:
    """Where an attempt starts (None if that cannot be read), its events up to the first bad line, what is bad."""
    start: int | None = None
    events: list[Json] = []
    *lines, tail = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        text = line[9:]
        try:
            # Compared as bytes, as in `_payload`. The position shows a line that is missing or there twice.
            if line[:9] != b"%08x " % zlib.crc32(text):
                raise ValueError("the crc32 does not fit")
            position, event = parse(text)
            if start is None:
                if event != "start":
                    raise ValueError("no start")
                start = int(position)
            elif position != start + len(events):
                raise ValueError(f"position {position}, not {start + len(events)}")
            else:
                events.append(event)
        except (ValueError, TypeError) as error:
            return start, events, ("corrupt", f"line {number}: {error}")
    return start, events, ("torn", f"line {len(lines) + 1} is not complete") if tail else None


def verify_events(folder: Path) -> Iterator[Problem]:
    """What is wrong in a folder of attempts."""
    for path in sorted(folder.iterdir()):
        if _ATTEMPT.fullmatch(path.name):
            _, _, problem = read_attempt(path.read_bytes())
            if problem:
                yield Problem(path, *problem)
        elif path.suffix != ".corrupt" and not TEMPORARY.fullmatch(path.name):
            yield Problem(path, "unknown", "not an attempt")
