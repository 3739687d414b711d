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
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..protocols import Json, RunRecord
from .events import EventLog, attempts, verify_events
from .faults import CorruptRecord, DeterminismFault, Problem
from .files import TEMPORARY, Files, Fs
from .records import canonical_bytes, dump, first_difference, key_of, load, parse

__all__ = ["CorruptRecord", "DeterminismFault", "Problem", "RunStore"]

_KEY = re.compile(r"[0-9a-f]{64}")


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
        self._files = Files(fs or Fs())
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
            for path in attempts(folder):
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
            elif path.name != "runs" and not TEMPORARY.fullmatch(path.name):
                found.append(Problem(path, "unknown", "not an entry of a store"))
        for path in sorted(self._runs.iterdir()):
            if _KEY.fullmatch(path.name) and path.is_dir():
                found += self._verify_run(path)
            elif not TEMPORARY.fullmatch(path.name):
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
            field = first_difference(parse(committed), parse(payload)) or "layout"
            raise DeterminismFault(f"run {key}: this execution differs from the committed one at {field}")

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
                found += verify_events(path)
            elif path.name == "timing.json":
                if self.timing(folder.name) is None:
                    found.append(Problem(path, "corrupt", "is not a JSON object"))
            elif path.name == "spec.json":
                content = self._files.fs.read(path)
                if hashlib.sha256(content[:-1]).hexdigest() != folder.name or content[-1:] != b"\n":
                    found.append(Problem(path, "corrupt", "the run key is not its sha256"))
            elif not TEMPORARY.fullmatch(path.name) and path.suffix != ".corrupt":
                found.append(Problem(path, "unknown", "not an entry of a run"))
        if has_content and not (folder / "spec.json").exists():
            found.append(Problem(folder / "spec.json", "corrupt", "is missing"))
        yield from found


def _checksum(payload: bytes) -> bytes:
    return b'{"sha256":"%s"}\n' % hashlib.sha256(payload).hexdigest().encode()


@contextlib.contextmanager
def _reported(found: list[Problem], path: Path) -> Iterator[None]:
    try:
        yield
    except CorruptRecord as fault:
        found.append(Problem(path, "corrupt", fault.why))
    except ValueError as error:
        found.append(Problem(path, "unknown", str(error)))
