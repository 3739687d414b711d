"""The run store: a folder of files that is the only truth about which runs are finished and what they gave.

    study.json                          what was planned, and the facts that reports need
    runs/<key>/spec.json                what the run is; the key is the sha256 of its canonical JSON
    runs/<key>/events/<attempt>.jsonl   finished calls of a run in progress, one writer per file
    runs/<key>/result.json              the record, behind a line with its sha256; linked into place exactly once
    runs/<key>/timing.json              measured time, outside every digest

A run may be executed more than once (a killed worker, two workers); its result is committed once, and a second
execution that gives other bytes is reported. Runs are named by content, never by a counter, so that a plan can be
submitted again at any time: what is left to do is the planned keys minus `finished()`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..protocols import Json, RunRecord
from .records import canonical, canonical_bytes, dump, first_difference, key_of, load, parse

SYNC_SECONDS = 1.0
"""An event log is forced to disk at most this often: a crash of the machine costs at most so much of it."""

_KEY = re.compile(r"[0-9a-f]{64}")
_ATTEMPT = re.compile(r"[0-9]{6}\.jsonl")
_TEMPORARY = re.compile(r"\..+\.tmp")


class CorruptRecord(Exception):
    """A stored file is not what was written; `path` and `why` say which and how it shows."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)  # both, so that the exception can be pickled between processes
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


class DeterminismFault(Exception):
    """Two executions of one run gave different records; `field` is the first difference."""

    def __init__(self, key: str, field: str) -> None:
        super().__init__(key, field)
        self.key = key
        self.field = field

    def __str__(self) -> str:
        return f"run {self.key}: this execution differs from the committed one at {self.field}"


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


class Fs:
    """The system calls of a store, so that tests can make any one of them fail."""

    def open(self, path: Path, flags: int) -> int:
        """File descriptor."""
        return os.open(path, flags | os.O_CLOEXEC, 0o666)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Number of bytes written, which may be fewer than given."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """Force a file or a folder to disk."""
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        """Force a file's content to disk; macOS has only the stronger call."""
        getattr(os, "fdatasync", os.fsync)(fd)

    def close(self, fd: int) -> None:
        """Release the descriptor."""
        os.close(fd)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; FileExistsError if it is taken. Atomic, on NFS too."""
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        """Replace the target atomically."""
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        """Make one folder."""
        os.mkdir(path)

    def read(self, path: Path) -> bytes:
        """The whole file."""
        return path.read_bytes()


class _Files:
    """Whole-file operations in terms of `Fs`."""

    def __init__(self, fs: Fs) -> None:
        self.fs = fs

    def write(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = self.fs.write(fd, rest)
            if not written:
                raise OSError(errno.EIO, "nothing was written")
            rest = rest[written:]

    def temporary(self, path: Path, data: bytes, *, durable: bool) -> Path:
        """Write a file beside `path` under a name of its own, completely or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(6).hex()}.tmp")
        fd = self.fs.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            try:
                self.write(fd, data)
                if durable:
                    self.fs.fsync(fd)
            finally:
                self.fs.close(fd)
        except BaseException:
            self.discard(temporary)
            raise
        return temporary

    def replace(self, path: Path, data: bytes, *, durable: bool) -> None:
        """Put new content under `path`; a reader sees the old one or the new one."""
        temporary = self.temporary(path, data, durable=durable)
        try:
            self.fs.rename(temporary, path)
        except BaseException:
            self.discard(temporary)
            raise

    def sync_folder(self, folder: Path) -> None:
        fd = self.fs.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.fs.fsync(fd)
        finally:
            self.fs.close(fd)

    def folder(self, path: Path) -> None:
        with contextlib.suppress(FileExistsError):
            self.fs.mkdir(path)

    def discard(self, path: Path) -> None:
        """Remove a temporary file; one that stays is `gc`'s and must not hide the error that led here."""
        with contextlib.suppress(OSError):
            self.fs.unlink(path)

    def content(self, path: Path) -> bytes | None:
        try:
            return self.fs.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None


class RunStore:
    """The runs in a folder. Any number of processes may use one folder at the same time.

    Args:
        folder: Of the store.
        create: Make it if it is not there; otherwise its absence is an error.
        fs: System calls; for tests.

    Raises:
        ValueError: There is no store in `folder`, and `create` is false.
    """

    def __init__(self, folder: Path, create: bool = True, *, fs: Fs | None = None) -> None:
        self.folder = Path(folder)
        self._runs = self.folder / "runs"
        self._files = _Files(fs or Fs())
        if self._runs.is_dir():
            return
        if not create:
            raise ValueError(f"store: {self.folder} is not a run store: it has no folder `runs`")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._files.folder(self._runs)
        self._files.sync_folder(self.folder)

    # Writing.

    def begin(self, spec: Mapping[str, Json]) -> str:
        """Write down what a run is, before its first event; return its key. Doing so again changes nothing."""
        key = key_of(spec)
        self._write_spec(key, spec)
        self._files.sync_folder(self._folder(key))
        self._files.sync_folder(self._runs)
        return key

    def commit(self, record: RunRecord, timing: Mapping[str, Json] | None = None) -> None:
        """Acknowledge a run: when this returns, the record outlives a crash of process or machine.

        Committing the same record again is harmless; the first timing is kept.

        Raises:
            ValueError: `record.key` is not the key of `record.spec`.
            DeterminismFault: The run is committed already, with other bytes.
            CorruptRecord: The run is committed already, and that record is damaged: see `gc`.
            OSError: The system failed; nothing is acknowledged, and the commit may be repeated.
        """
        if record.key != key_of(record.spec):
            raise ValueError(f"key: {record.key!r} is not the sha256 of the run's spec, {key_of(record.spec)}")
        folder = self._folder(record.key)
        payload = dump(record)
        measured = None if timing is None else canonical_bytes(timing) + b"\n"
        result = folder / "result.json"
        # Four forced writes, 2-3 ms together on a local disk: (1) the spec, unless it is there already, and
        # (2) the result, both before they get their names, lest a name without content survive a power cut;
        # then, before this returns, (3) the run's folder, which holds those names, and (4) the folder above,
        # which holds the run's. (4) may be another process's work half done, so that it is never skipped.
        self._write_spec(record.key, record.spec)
        temporary = self._files.temporary(result, _checksum(payload) + payload, durable=True)
        try:
            self._files.fs.link(temporary, result)
        except FileExistsError:
            self._compare(record.key, payload)
        finally:
            self._files.discard(temporary)
        self._files.sync_folder(folder)
        self._files.sync_folder(self._runs)
        if measured is not None and not (folder / "timing.json").exists():
            # Not forced: nothing but a table of wall times depends on it, and `timing` bears its absence.
            self._files.replace(folder / "timing.json", measured, durable=False)

    def write_study(self, study: Mapping[str, Json]) -> None:
        """Replace study.json; equal studies give equal bytes.

        Raises:
            ValueError: A number is NaN or infinite, or a value has no JSON form.
        """
        pretty = json.dumps(parse(canonical_bytes(study)), sort_keys=True, indent=1, ensure_ascii=False)
        self._files.replace(
            self.folder / "study.json", pretty.encode("utf-8", "backslashreplace") + b"\n", durable=True
        )
        self._files.sync_folder(self.folder)

    def events(self, key: str) -> EventLog:
        """The event log of a run in progress; call `begin` before the first `append`."""
        return EventLog(self._folder(key), self._files)

    def gc(self, *, older_than: float = 3600.0) -> list[Path]:
        """Tidy up after killed writers; return what was removed or set aside.

        Temporary files last modified more than `older_than` seconds ago go (a live writer's are milliseconds
        old), and the events of finished runs. A damaged result is renamed to result.json.corrupt: its run is
        then unfinished again. Call it for that while nothing else writes to the store.
        """
        gone: list[Path] = []
        now = time.time()
        for path in self._temporaries():
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime >= older_than:
                    self._files.fs.unlink(path)
                    gone.append(path)
        for key in sorted(self.finished()):
            folder = self._folder(key)
            try:
                self.load(key)
            except CorruptRecord as fault:
                self._files.fs.rename(fault.path, fault.path.with_name("result.json.corrupt"))
                gone.append(fault.path)
                continue
            except ValueError:
                continue  # a newer version's record: not ours to judge
            for path in _attempts(folder):
                self._files.fs.unlink(path)
                gone.append(path)
        return gone

    # Reading.

    def finished(self) -> set[str]:
        """Keys of the runs that have a result."""
        return {key for key in self._keys() if (self._runs / key / "result.json").exists()}

    def load(self, key: str) -> RunRecord:
        """The record of a finished run.

        Raises:
            ValueError: No such run is finished, or a newer version of the schema wrote it.
            CorruptRecord: The file is damaged, or another run's.
        """
        path = self._folder(key) / "result.json"
        payload = self._payload(path)
        if payload is None:
            raise ValueError(f"key: {key} is not a finished run of {self.folder}")
        record = load(payload)
        if not record.key == key_of(record.spec) == key:
            raise CorruptRecord(path, f"is the record of run {record.key}, spec {key_of(record.spec)}")
        return record

    def timing(self, key: str) -> dict[str, Json] | None:
        """Measured time of a finished run; None if there is none, or none that can be read."""
        data = self._files.content(self._folder(key) / "timing.json")
        if data is None:
            return None
        try:
            value = parse(data)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def study(self) -> dict[str, Json]:
        """What `write_study` wrote last.

        Raises:
            ValueError: There is no study.json.
            CorruptRecord: It is not a JSON object.
        """
        path = self.folder / "study.json"
        data = self._files.content(path)
        if data is None:
            raise ValueError(f"store: {self.folder} holds no study.json")
        try:
            value = parse(data)
        except ValueError as error:
            raise CorruptRecord(path, str(error)) from None
        if not isinstance(value, dict):
            raise CorruptRecord(path, "is not a JSON object")
        return value

    def verify(self) -> list[Problem]:
        """Read every file of the store and say what is wrong, in the order of the paths."""
        found = [Problem(path, "leftover", "temporary file of a writer") for path in self._temporaries()]
        for path in sorted(self.folder.iterdir()):
            if path.name == "study.json":
                with _reported(found, path):
                    self.study()
            elif path.name != "runs" and not _TEMPORARY.fullmatch(path.name):
                found.append(Problem(path, "unknown", "not an entry of a store"))
        for path in sorted(self._runs.iterdir()):
            if _KEY.fullmatch(path.name) and path.is_dir():
                found += self._verify_run(path)
            elif not _TEMPORARY.fullmatch(path.name):
                found.append(Problem(path, "unknown", "not a run key"))
        return sorted(found, key=lambda problem: str(problem.path))

    # How.

    def _folder(self, key: str) -> Path:
        """Names come from content only; anything else could leave the store."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"key: {key!r} is not a run key, 64 hexadecimal digits in lower case")
        return self._runs / key

    def _keys(self) -> Iterator[str]:
        with os.scandir(self._runs) as entries:
            for entry in entries:
                if _KEY.fullmatch(entry.name):
                    yield entry.name

    def _temporaries(self) -> list[Path]:
        return sorted(self.folder.rglob(".*.tmp"))

    def _write_spec(self, key: str, spec: Mapping[str, Json]) -> None:
        folder = self._folder(key)
        self._files.folder(folder)
        data = canonical_bytes(spec) + b"\n"
        # The key determines the content, so that writing over a damaged spec is right, and twice is harmless.
        if self._files.content(folder / "spec.json") != data:
            self._files.replace(folder / "spec.json", data, durable=True)

    def _payload(self, path: Path) -> bytes | None:
        data = self._files.content(path)
        if data is None:
            return None
        header, newline, payload = data.partition(b"\n")
        # Compared as bytes: a flipped bit can turn a hexadecimal digit into its capital.
        if header + newline != _checksum(payload):
            raise CorruptRecord(path, "the sha256 does not fit the content")
        return payload

    def _compare(self, key: str, payload: bytes) -> None:
        committed = self._payload(self._folder(key) / "result.json")
        if committed is None:
            raise FileNotFoundError(f"run {key}: the result vanished during the commit")
        if committed != payload:
            raise DeterminismFault(key, first_difference(parse(committed), parse(payload)) or "layout")

    def _verify_run(self, folder: Path) -> Iterator[Problem]:
        found: list[Problem] = []
        has_content = False
        for path in sorted(folder.iterdir()):
            if path.name == "result.json":
                has_content = True
                with _reported(found, path):
                    self.load(folder.name)
            elif path.name == "events" and path.is_dir():
                has_content = True
                found += _verify_events(path)
            elif path.name == "timing.json":
                if self.timing(folder.name) is None:
                    found.append(Problem(path, "corrupt", "is not a JSON object"))
            elif path.name == "spec.json":
                content = self._files.fs.read(path)
                if hashlib.sha256(content[:-1]).hexdigest() != folder.name or content[-1:] != b"\n":
                    found.append(Problem(path, "corrupt", "the run key is not its sha256"))
            elif not _TEMPORARY.fullmatch(path.name) and path.suffix != ".corrupt":
                found.append(Problem(path, "unknown", "not an entry of a run"))
        if has_content and not (folder / "spec.json").exists():
            found.append(Problem(folder / "spec.json", "corrupt", "is missing"))
        yield from found


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

    def __init__(self, folder: Path, files: _Files) -> None:
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
        for path in _attempts(self._run):
            start, events, problem = _read_attempt(self._files.fs.read(path))
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
        number = max((int(p.stem) for p in _attempts(self._run)), default=0)
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


def _checksum(payload: bytes) -> bytes:
    return b'{"sha256":"%s"}\n' % hashlib.sha256(payload).hexdigest().encode()


def _line(text: str) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _attempts(run: Path) -> list[Path]:
    folder = run / "events"
    return sorted(p for p in folder.glob("*.jsonl") if _ATTEMPT.fullmatch(p.name)) if folder.is_dir() else []


def _read_attempt(
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


def _verify_events(folder: Path) -> Iterator[Problem]:
    for path in sorted(folder.iterdir()):
        if _ATTEMPT.fullmatch(path.name):
            _, _, problem = _read_attempt(path.read_bytes())
            if problem:
                yield Problem(path, *problem)
        elif path.suffix != ".corrupt" and not _TEMPORARY.fullmatch(path.name):
            yield Problem(path, "unknown", "not an attempt")


@contextlib.contextmanager
def _reported(found: list[Problem], path: Path) -> Iterator[None]:
    try:
        yield
    except CorruptRecord as fault:
        found.append(Problem(path, "corrupt", fault.why))
    except ValueError as error:
        found.append(Problem(path, "unknown", str(error)))
