from __future__ import annotations

import errno
import inspect
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nasbed.harness.events import EventLog
from nasbed.harness.files import Fs
from nasbed.harness.records import canonical, dump, key_of
from nasbed.harness.store import CorruptRecord, DeterminismFault, RunStore
from nasbed.protocols import Architecture, Call, Cost, Incumbent, Observation, Proposal, RunRecord


def record_of(seed: int, evaluations: int = 3, score: float = 0.5) -> RunRecord:
    calls = []
    for i in range(evaluations):
        proposal = Proposal(Architecture("nb201", (seed % 5, i % 5, 0)))
        calls.append(Call(1, (proposal,), (Observation(proposal, score + i / 1000, (Cost("train", 1.5 * i),)),)))
    spec = {"strategy": {"name": "random"}, "seed": seed, "schema": 1}
    incumbent = Incumbent(0, 1.0, Architecture("nb201", (0,)), score)
    return RunRecord(key_of(spec), spec, (), tuple(calls), (incumbent,), "budget", {"retrained": None})


def kinds(store: RunStore) -> list[str]:
    return [problem.kind for problem in store.verify()]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "store")


# What is promised when nothing goes wrong.


def test_a_committed_record_is_there(store: RunStore) -> None:
    record = record_of(1)
    store.commit(record, {"wall_s": 1.5})
    again = RunStore(store.folder, create=False)
    assert again.finished() == {record.key}
    assert again.load(record.key) == record
    assert again.timing(record.key) == {"wall_s": 1.5}
    folder = store.folder / "runs" / record.key
    assert sorted(p.name for p in folder.iterdir()) == ["result.json", "spec.json", "timing.json"]
    assert (folder / "spec.json").read_text("utf-8") == canonical(record.spec) + "\n"
    assert again.verify() == []


def test_two_stores_hold_the_same_bytes(tmp_path: Path) -> None:
    a, b = RunStore(tmp_path / "a"), RunStore(tmp_path / "b")
    for one in (a, b):
        one.commit(record_of(1), {"wall_s": random.random()})
    name = f"runs/{record_of(1).key}/result.json"
    assert (a.folder / name).read_bytes() == (b.folder / name).read_bytes()


def test_same_bytes_may_be_committed_twice_and_the_first_timing_stays(store: RunStore) -> None:
    store.commit(record_of(1), {"wall_s": 1.0})
    RunStore(store.folder).commit(record_of(1), {"wall_s": 2.0})
    assert store.timing(record_of(1).key) == {"wall_s": 1.0}
    assert store.verify() == []


def test_other_bytes_are_a_determinism_fault_and_change_nothing(store: RunStore) -> None:
    record = record_of(1)
    store.commit(record)
    other = record_of(1, score=0.25)
    with pytest.raises(DeterminismFault, match=rf"^run {record.key}: .* at history\.observations\.score\[0\]$"):
        store.commit(other, {"wall_s": 1.0})
    assert store.load(record.key) == record
    assert store.timing(record.key) is None
    assert store.verify() == []


def test_faults_can_travel_between_processes() -> None:
    for fault in (DeterminismFault("why"), CorruptRecord(Path("p"), "why")):
        assert str(pickle.loads(pickle.dumps(fault))) == str(fault)


def test_a_record_under_a_foreign_key_is_refused(store: RunStore) -> None:
    with pytest.raises(ValueError, match=r"^key: "):
        store.commit(replace(record_of(1), key="0" * 64))
    assert store.finished() == set()


@pytest.mark.parametrize("key", ["", "..", "a" * 63, "A" * 64, "a" * 64 + "\n", "../" + "a" * 61, "/etc/passwd"])
def test_only_content_keys_become_paths(store: RunStore, key: str) -> None:
    for use in (store.load, store.timing, store.events):
        with pytest.raises(ValueError, match=r"^key: .* is not a run key"):
            use(key)


def test_what_is_not_there(store: RunStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a finished run"):
        store.load("a" * 64)
    assert store.timing("a" * 64) is None
    assert store.events("a" * 64).read() == []
    with pytest.raises(ValueError, match=r"holds no study\.json"):
        store.study()
    with pytest.raises(ValueError, match="is not a run store"):
        RunStore(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing").exists()


def test_study_bytes_do_not_depend_on_the_order_of_keys(store: RunStore) -> None:
    store.write_study({"b": [1, 2.5], "a": {"é": None, "d": 1}})
    first = (store.folder / "study.json").read_bytes()
    store.write_study({"a": {"d": 1, "é": None}, "b": [1, 2.5]})
    assert (store.folder / "study.json").read_bytes() == first
    assert store.study() == {"a": {"d": 1, "é": None}, "b": [1, 2.5]}
    with pytest.raises(ValueError, match="float"):
        store.write_study({"a": float("nan")})
    assert (store.folder / "study.json").read_bytes() == first


# Damage.


def test_every_flipped_bit_and_every_cut_of_a_result_is_detected(store: RunStore) -> None:
    class Disk(Fs):
        data = b""

        def read(self, path: Path) -> bytes:
            return self.data

    record = record_of(1, evaluations=1)
    store.commit(record)
    good = (store.folder / "runs" / record.key / "result.json").read_bytes()
    disk = Disk()
    damaged = RunStore(store.folder, fs=disk)
    disk.data = good
    assert damaged.load(record.key) == record
    for position in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            disk.data = bytes(bad)
            with pytest.raises(CorruptRecord):
                damaged.load(record.key)
        disk.data = good[:position]
        with pytest.raises(CorruptRecord):
            damaged.load(record.key)


def test_a_result_in_the_wrong_folder_is_detected(store: RunStore) -> None:
    store.commit(record_of(1))
    store.commit(record_of(2))
    one, two = (store.folder / "runs" / record_of(i).key / "result.json" for i in (1, 2))
    two.write_bytes(one.read_bytes())
    with pytest.raises(CorruptRecord, match=record_of(1).key):
        store.load(record_of(2).key)
    assert kinds(store) == ["corrupt"]


def test_a_damaged_result_is_set_aside_by_gc_and_can_be_made_again(store: RunStore) -> None:
    record = record_of(1)
    store.commit(record)
    path = store.folder / "runs" / record.key / "result.json"
    path.write_bytes(b"rubbish")
    with pytest.raises(CorruptRecord):
        store.commit(record)
    assert store.gc() == [path]
    assert store.finished() == set()
    assert (path.parent / "result.json.corrupt").read_bytes() == b"rubbish"
    store.commit(record)
    assert store.load(record.key) == record
    assert store.verify() == []


def test_verify_finds_planted_damage(store: RunStore) -> None:
    for seed in range(7):
        store.commit(record_of(seed), {"wall_s": 1.0})
    store.write_study({"a": 1})
    folders = [store.folder / "runs" / record_of(seed).key for seed in range(7)]
    key = store.begin({"seed": "unfinished"})
    with store.events(key) as log:
        for i in range(3):
            log.append(i)
    assert store.verify() == []

    planted: dict[Path, str] = {}

    def plant(path: Path, data: bytes, kind: str) -> None:
        path.write_bytes(data)
        planted[path] = kind

    events = store.folder / "runs" / key / "events" / "000001.jsonl"
    plant(events, events.read_bytes().replace(b"1]", b"7]", 1), "corrupt")
    plant(events.with_name("000002.jsonl"), b"half a li", "torn")
    plant(events.with_name("notes.txt"), b"", "unknown")
    plant(folders[0] / "result.json", (folders[0] / "result.json").read_bytes()[:-1], "corrupt")
    plant(folders[1] / "spec.json", b"{}\n", "corrupt")
    plant(folders[2] / "timing.json", b"", "corrupt")
    plant(folders[3] / ".result.json.1-ab.tmp", b"", "leftover")
    plant(folders[4] / "core", b"", "unknown")
    (folders[5] / "spec.json").unlink()
    planted[folders[5] / "spec.json"] = "corrupt"
    plant(store.folder / "runs" / "0001", b"", "unknown")
    plant(store.folder / "study.json", b"[]", "corrupt")
    plant(store.folder / "index.db", b"", "unknown")
    plant(store.folder / ".study.json.1-ab.tmp", b"", "leftover")
    assert {p.path: p.kind for p in store.verify()} == planted
    assert all(str(p.path) in str(p) for p in store.verify())


def test_gc_removes_what_killed_writers_left_and_nothing_else(store: RunStore) -> None:
    done, open_key = record_of(1), store.begin({"seed": "open"})
    for key in (store.begin(done.spec), open_key):
        with store.events(key) as log:
            log.append("call")
    store.commit(done)
    leftover = store.folder / "runs" / open_key / ".result.json.1-ab.tmp"
    leftover.write_bytes(b"half")
    assert leftover not in store.gc(older_than=60)
    assert store.gc(older_than=0) == [leftover]
    assert store.events(done.key).read() == []
    assert store.events(open_key).read() == ["call"]
    assert store.load(done.key) == done
    assert store.verify() == []


# The event log.


def fill(store: RunStore, *attempts: int) -> str:
    """Attempts with so many events each; every attempt reads, then goes on counting."""
    key = store.begin({"seed": 0})
    for number in attempts:
        with store.events(key) as log:
            done = len(log.read())
            for i in range(done, done + number):
                log.append({"call": i})
    return key


def expected(n: int) -> list[dict[str, int]]:
    return [{"call": i} for i in range(n)]


def test_attempts_are_read_as_one_history(store: RunStore) -> None:
    key = fill(store, 3, 2, 0, 1)
    assert store.events(key).read() == expected(6)
    names = sorted(p.name for p in (store.folder / "runs" / key / "events").iterdir())
    assert names == ["000001.jsonl", "000002.jsonl", "000003.jsonl"]
    assert store.finished() == set()


def test_events_need_a_spec_and_must_be_json(store: RunStore) -> None:
    with pytest.raises(ValueError, match="begin"):
        store.events("a" * 64).append(1)
    log = store.events(store.begin({"seed": 0}))
    log.append(1)
    with pytest.raises(ValueError, match="float"):
        log.append(float("nan"))
    log.append("é\udc80\n")
    assert log.read() == [1, "é\udc80\n"]


def test_a_log_cut_anywhere_in_its_last_three_events_is_an_exact_prefix_and_goes_on(store: RunStore) -> None:
    key = fill(store, 6)
    folder = store.folder / "runs" / key / "events"
    path = folder / "000001.jsonl"
    whole = path.read_bytes()
    last_three = sum(map(len, whole.splitlines(keepends=True)[-3:]))
    for length in range(len(whole) - last_three, len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = whole[:length].count(b"\n") - 1
        with store.events(key) as log:
            assert log.read() == expected(kept)
            log.append({"call": kept})
        assert store.events(key).read() == expected(kept + 1)
        (folder / "000002.jsonl").unlink()
    assert list(folder.glob("*.corrupt")) == []


def test_every_flipped_bit_of_a_log_leaves_an_exact_prefix(store: RunStore) -> None:
    key = fill(store, 3)
    path = store.folder / "runs" / key / "events" / "000001.jsonl"
    whole = path.read_bytes()
    for position in range(len(whole)):
        bad = bytearray(whole)
        bad[position] ^= 1 << (position % 8)
        path.write_bytes(bad)
        log = store.events(key)
        before = whole[:position].count(b"\n") - 1
        assert log.read() == expected(max(before, 0))
        assert len(log.problems) == 1


def test_a_damaged_line_is_set_aside_and_what_builds_on_it_is_passed_over(store: RunStore) -> None:
    key = fill(store, 4, 2)
    path = store.folder / "runs" / key / "events" / "000001.jsonl"
    whole = path.read_bytes()
    damaged = whole.replace(b'"call":2', b'"call":9')
    path.write_bytes(damaged)
    log = store.events(key)
    assert log.read() == expected(2)
    assert [(p.path, p.kind) for p in log.problems] == [(path, "corrupt")]
    assert path.with_name("000001.jsonl.corrupt").read_bytes() == damaged
    assert path.read_bytes() == damaged
    with log:
        log.append({"call": 2})
    assert store.events(key).read() == expected(3)


def test_missing_and_doubled_lines_are_detected(store: RunStore) -> None:
    key = fill(store, 4)
    path = store.folder / "runs" / key / "events" / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for bad in ([*lines[:2], *lines[3:]], [*lines[:2], *lines[1:]]):
        path.write_bytes(b"".join(bad))
        assert store.events(key).read() == expected(1)


def test_a_writer_believed_dead_does_not_disturb_its_successor(store: RunStore) -> None:
    key = store.begin({"seed": 0})
    zombie, heir = store.events(key), store.events(key)
    zombie.append("a")
    assert heir.read() == ["a"]
    heir.append("b")
    zombie.append("x")
    heir.append("c")
    assert store.events(key).read() == ["a", "b", "c"]


# System calls that fail.


class FaultyFs(Fs):
    """Fails at the n-th call, with `error`; "short": a write does half its work, then fails; other calls give EIO."""

    def __init__(self, n: int, error: str) -> None:
        self.n = n
        self.error = error
        self.fired = False

    def _fails(self) -> bool:
        self.n -= 1
        self.fired = self.fired or self.n == 0
        return self.n == 0

    def _fault(self) -> OSError:
        number = errno.EIO if self.error == "short" else getattr(errno, self.error)
        return OSError(number, os.strerror(number))

    def open(self, path: Path, flags: int) -> int:
        if self._fails():
            raise self._fault()
        return super().open(path, flags)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self._fails():
            if self.error == "short" and len(data) > 1:
                self.n, self.error = 1, "ENOSPC"  # the rest of this write meets the full disk
                return super().write(fd, data[: len(data) // 2])
            raise self._fault()
        return super().write(fd, data)

    def fsync(self, fd: int) -> None:
        if self._fails():
            raise self._fault()

    def fdatasync(self, fd: int) -> None:
        self.fsync(fd)

    def close(self, fd: int) -> None:
        super().close(fd)
        if self._fails():
            raise self._fault()

    def link(self, source: Path, target: Path) -> None:
        if self._fails():
            raise self._fault()
        super().link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        if self._fails():
            raise self._fault()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        if self._fails():
            raise self._fault()
        super().unlink(path)

    def mkdir(self, path: Path) -> None:
        if self._fails():
            raise self._fault()
        super().mkdir(path)

    def read(self, path: Path) -> bytes:
        if self._fails():
            raise self._fault()
        return super().read(path)


def every_fault(error: str, trial: Callable[[FaultyFs], None]) -> int:
    """Run the trial with a fault at call 1, 2, ... until none fires; return how many calls it has."""
    for n in range(1, 200):
        fs = FaultyFs(n, error)
        trial(fs)
        if not fs.fired:
            return n - 1
    raise AssertionError("more than 200 calls")


ERRORS = ["ENOSPC", "EIO", "short"]


@pytest.mark.parametrize("error", ERRORS)
def test_a_commit_that_fails_anywhere_loses_nothing(tmp_path: Path, error: str) -> None:
    before, record = record_of(1), record_of(2)

    def trial(fs: FaultyFs) -> None:
        folder = tmp_path / f"{error}{fs.n}"
        good = RunStore(folder)
        good.commit(before, {"wall_s": 1.0})
        acknowledged = True
        try:
            RunStore(folder, fs=fs).commit(record, {"wall_s": 2.0})
        except OSError:
            acknowledged = False
        assert good.load(before.key) == before
        assert set(kinds(good)) <= {"leftover"}
        if acknowledged:
            assert good.load(record.key) == record
        good.commit(record, {"wall_s": 2.0})
        assert good.load(record.key) == record
        good.gc(older_than=0)
        assert good.verify() == []

    assert every_fault(error, trial) > 15


@pytest.mark.parametrize("error", ERRORS)
def test_a_study_is_the_old_one_or_the_new_one(tmp_path: Path, error: str) -> None:
    store = RunStore(tmp_path)

    def trial(fs: FaultyFs) -> None:
        store.write_study({"n": 0})
        try:
            RunStore(tmp_path, fs=fs).write_study({"n": 1})
        except OSError:
            assert store.study() in ({"n": 0}, {"n": 1})
        else:
            assert store.study() == {"n": 1}

    assert every_fault(error, trial) > 6


@pytest.mark.parametrize("error", ERRORS)
def test_an_event_log_goes_on_after_a_fault(tmp_path: Path, error: str) -> None:
    def trial(fs: FaultyFs) -> None:
        good = RunStore(tmp_path / f"{error}{fs.n}")
        key = fill(good, 2)
        log = RunStore(good.folder, fs=fs).events(key)
        acknowledged = 2
        for _ in range(6):
            try:
                log.append({"call": acknowledged})
            except OSError:
                continue
            acknowledged += 1
            assert good.events(key).read() == expected(acknowledged)
        try:
            log.close()
        except OSError:
            assert fs.fired
        assert acknowledged >= 6
        reader = good.events(key)
        assert reader.read() == expected(acknowledged)
        assert all(problem.kind == "torn" for problem in reader.problems)

    assert every_fault(error, trial) > 12


def test_a_torn_log_is_read_even_where_copies_cannot_be_written(store: RunStore) -> None:
    class ReadOnly(Fs):
        def open(self, path: Path, flags: int) -> int:
            raise PermissionError(errno.EACCES, "read-only")

    key = fill(store, 3)
    path = store.folder / "runs" / key / "events" / "000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"call":1', b'"call":7'))
    log = RunStore(store.folder, fs=ReadOnly()).events(key)
    assert log.read() == expected(1)
    assert len(log.problems) == 1


# Killed writers.


def writer_code(*functions: Callable[..., object]) -> str:
    """A program with these functions and without pytest, which takes longer to import than a kill to happen."""
    imports = """
from __future__ import annotations
import os, sys
from pathlib import Path
from nasbed.harness.records import key_of
from nasbed.harness.store import DeterminismFault, RunStore
from nasbed.protocols import Architecture, Call, Cost, Incumbent, Observation, Proposal, RunRecord
"""
    return imports + "\n".join(map(inspect.getsource, functions))


def write_for_ever(folder: Path, start: int) -> None:
    """Commit runs start, start + 1, ...; the log of each first, then the result; say so after each promise."""
    store = RunStore(folder)
    seed = start
    while True:
        record = record_of(seed, evaluations=20)
        with store.events(store.begin(record.spec)) as log:
            for i in range(len(log.read()), 5):
                log.append({"call": i})
                os.write(1, f"event {seed} {i}\n".encode())
        store.commit(record, {"wall_s": 0.5})
        os.write(1, f"done {seed}\n".encode())
        seed += 1


def kill_loop(folder: Path, kills: int) -> None:
    """Two writers on overlapping runs, so that they meet; SIGKILL one at a time, at random instants."""
    rng = random.Random(0)
    code = writer_code(record_of, write_for_ever) + "\nwrite_for_ever(Path(sys.argv[1]), int(sys.argv[2]))"
    acknowledged: set[int] = set()
    events: dict[int, int] = {}

    def started() -> subprocess.Popen[bytes]:
        start = max(acknowledged, default=0)
        return subprocess.Popen([sys.executable, "-c", code, str(folder), str(start)], stdout=subprocess.PIPE)

    def buried(writer: subprocess.Popen[bytes]) -> None:
        writer.send_signal(signal.SIGKILL)
        out, _ = writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        *lines, _ = out.decode().split("\n")
        for what, seed, *rest in map(str.split, lines):
            if what == "done":
                acknowledged.add(int(seed))
            else:
                events[int(seed)] = max(events.get(int(seed), 0), int(rest[0]) + 1)

    writers = [started(), started()]
    for kill in range(kills):
        assert writers[kill % 2].stdout is not None
        writers[kill % 2].stdout.peek(1)  # type: ignore[union-attr]  # it has begun to write
        time.sleep(rng.uniform(0, 0.1))
        buried(writers[kill % 2])
        writers[kill % 2] = started()
    for writer in writers:
        buried(writer)

    store = RunStore(folder)
    assert len(acknowledged) >= kills // 4  # a slow disk makes them few, but none would prove nothing
    assert {record_of(seed).key for seed in acknowledged} <= store.finished()
    for seed in acknowledged:
        record = record_of(seed, evaluations=20)
        assert store.load(record.key) == record
    for seed, count in events.items():
        read = store.events(record_of(seed).key).read()
        assert read == expected(len(read))
        assert len(read) >= count
    assert set(kinds(store)) <= {"leftover", "torn"}
    store.gc(older_than=0)
    assert set(kinds(store)) <= {"torn"}


def test_kill_9(tmp_path: Path) -> None:
    kill_loop(tmp_path / "store", kills=20)


@pytest.mark.slow
def test_kill_9_a_hundred_times(tmp_path: Path) -> None:
    kill_loop(tmp_path / "store", kills=100)


def race(folder: Path, score: float) -> None:
    store = RunStore(folder)
    print("ready", flush=True)
    sys.stdin.readline()
    for seed in range(30):
        try:
            store.commit(record_of(seed, score=score))
            print("won")
        except DeterminismFault:
            print("lost")


def test_racing_writers_of_one_run(tmp_path: Path) -> None:
    """The link decides: of writers with different bytes exactly one is acknowledged, the other is told."""
    code = writer_code(record_of, race) + "\nrace(Path(sys.argv[1]), float(sys.argv[2]))"
    folder = str(tmp_path / "store")
    scores = ["0.25", "0.75"]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, folder, s], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for s in scores
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    results = [writer.communicate()[0].split() for writer in writers]
    store = RunStore(tmp_path / "store")
    for seed in range(30):
        assert sorted(result[seed] for result in results) == ["lost", "won"]
        winner = scores[[result[seed] for result in results].index("won")]
        assert store.load(record_of(seed).key) == record_of(seed, score=float(winner))
    assert store.verify() == []


def test_the_bytes_in_the_file_are_the_dump_behind_its_checksum(store: RunStore) -> None:
    record = record_of(1)
    store.commit(record)
    header, payload = (store.folder / "runs" / record.key / "result.json").read_bytes().split(b"\n", 1)
    assert payload == dump(record)
    assert list(json.loads(header)) == ["sha256"]


def test_a_log_is_forced_to_disk_at_the_start_each_second_and_at_close(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, syncs = [100.0], []

    class Counting(Fs):
        def fdatasync(self, fd: int) -> None:
            syncs.append(clock[0])

    monkeypatch.setattr("nasbed.harness.events.time.monotonic", lambda: clock[0])
    log: EventLog = RunStore(store.folder, fs=Counting()).events(store.begin({"seed": 0}))
    for i in range(30):
        log.append(i)
        clock[0] += 0.25
    log.close()
    assert syncs == [100.0, *(100.0 + i for i in range(1, 8)), 107.5]
