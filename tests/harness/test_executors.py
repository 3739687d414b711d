from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import planted
import pytest

from nasbed.harness.executors import Outcome, run_tasks

HERE = Path(__file__).parent


def collected(function: Any, tasks: Sequence[Any], jobs: int) -> list[Outcome]:
    outcomes = sorted(run_tasks(function, tasks, jobs=jobs), key=lambda o: o.index)
    assert [o.index for o in outcomes] == list(range(len(tasks)))
    return outcomes


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_until(condition: Any, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def test_serial_and_processes_give_the_same() -> None:
    tasks = [("raise" if i == 4 else "awkward" if i == 7 else "sys.exit" if i == 9 else "", i) for i in range(12)]
    serial, pooled = (collected(planted.misbehave, tasks, jobs) for jobs in (1, 2))
    assert [o.value for o in serial] == [o.value for o in pooled]
    assert [o.value for o in serial] == [None if i in (4, 7, 9) else i for i in range(12)]
    for a, b in zip(serial, pooled, strict=True):
        assert (a.error is None) == (b.error is None)
        # Where it was raised is told of both.
        assert ("in misbehave" in a.traceback) == ("in misbehave" in b.traceback) == (a.error is not None)
    assert repr(serial[4].error) == repr(pooled[4].error) == "KeyError('task 4')"
    assert isinstance(pooled[9].error, SystemExit)
    # An error that does not survive the way between processes is told in words.
    assert isinstance(serial[7].error, planted.Awkward)
    assert str(pooled[7].error) == "Awkward: task and 7"


@pytest.mark.parametrize("death", ["exit", "kill"])
def test_a_dying_worker_takes_no_other_task_with_it(death: str) -> None:
    tasks = [(death if i in (2, 5) else "", i) for i in range(9)]
    outcomes = collected(planted.misbehave, tasks, 2)
    assert [o.value for o in outcomes] == [None if i in (2, 5) else i for i in range(9)]
    for o in outcomes:
        assert (o.error is None) == (o.index not in (2, 5))
    assert "died" in str(outcomes[2].error)
    assert wait_until(lambda: not multiprocessing.active_children())


def test_children_that_are_not_workers_are_left_alone() -> None:
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child.start()
    try:
        assert [o.value for o in collected(planted.square, [1, 2], 2)] == [1, 4]
        assert child.is_alive()
    finally:
        child.kill()
        child.join()


def test_closing_the_iterator_kills_the_workers_at_once(tmp_path: Path) -> None:
    outcomes = run_tasks(_sleep_unless_first, [(str(tmp_path), i) for i in range(4)], jobs=2)
    assert next(outcomes).index == 0
    assert wait_until(lambda: len(list(tmp_path.iterdir())) >= 1)
    started = time.monotonic()
    outcomes.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 5
    assert wait_until(lambda: not any(alive(int(p.name)) for p in tmp_path.iterdir()))


def _sleep_unless_first(task: tuple[str, int]) -> None:
    folder, index = task
    if index:
        planted.sleep_long(folder)


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
import planted
from nasbed.harness.executors import run_tasks
if __name__ == "__main__":
    try:
        list(run_tasks(planted.{function}, {tasks!r}, jobs=2))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@contextlib.contextmanager
def script(tmp_path: Path, function: str, tasks: list[Any]) -> Any:
    path = tmp_path / "main.py"
    path.write_text(SCRIPT.format(here=str(HERE), function=function, tasks=tasks))
    process = subprocess.Popen([sys.executable, str(path)], start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_the_run(ending: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    with script(tmp_path, "sleep_long", [str(folder)] * 3) as process:
        assert wait_until(lambda: len(list(folder.iterdir())) == 2)
        workers = [int(p.name) for p in folder.iterdir()]
        started = time.monotonic()
        if ending == signal.SIGINT:
            os.killpg(process.pid, ending)  # Ctrl-C reaches the whole group
        else:
            process.send_signal(ending)
        code = process.wait(timeout=20)
        assert wait_until(lambda: not any(map(alive, workers)), 10)
        assert time.monotonic() - started < 15
        assert code == (130 if ending == signal.SIGINT else -ending)


def test_an_interrupt_while_a_suspect_runs_alone_does_not_wait_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    # The first worker dies at once; the sleeping tasks beside it are then tried alone.
    with script(tmp_path, "die_or_sleep", [["kill", str(folder)], ["sleep", str(folder)]]) as process:
        assert wait_until(lambda: (folder / "alone").exists())
        started = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert time.monotonic() - started < 10
