"""Running many independent tasks, serially or in worker processes, with identical results."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

Function = Callable[[Any], Any]

# One thread per task: results must not depend on the number of cores, and processes use the cores better.
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of task number `index`: a value, or the error that it raised, and where."""

    index: int
    value: Any = None
    error: BaseException | None = None
    traceback: str = ""


def run_tasks(function: Function, tasks: Sequence[Any], *, jobs: int = 1) -> Iterator[Outcome]:
    """Apply a picklable function to every task and yield outcomes as they come.

    A worker that dies (killed, out of memory, crashed in native code) takes no other task with it: the ones
    that were running are tried again, alone, and only a task that kills a worker of its own is given up.
    Closing the iterator, or Ctrl-C, kills the workers at once.

    Args:
        function: Importable by worker processes.
        tasks: Plain data.
        jobs: Worker processes; 1 runs everything in this process.
    """
    if jobs <= 1:
        for index, task in enumerate(tasks):
            yield _attempt(function, index, task)
        return
    left = dict(enumerate(tasks))
    suspects: list[int] = []
    foreign = set(multiprocessing.active_children())
    try:
        while left:
            for index in suspects:
                yield _alone(function, index, left.pop(index))
            suspects = (yield from _pooled(function, left, min(jobs, len(left)))) if left else []
    finally:
        for child in set(multiprocessing.active_children()) - foreign:
            child.kill()


def _pooled(function: Function, left: dict[int, Any], jobs: int) -> Generator[Outcome, None, list[int]]:
    """Run until all are done, or until a worker dies: then return the tasks that may have killed it."""
    pool = _pool(jobs)
    futures: dict[Future[Outcome], int] = {}
    try:
        for i, t in left.items():
            futures[pool.submit(_attempt_and_send, function, i, t)] = i
        # Python 3.11 wakes its manager thread before it starts a worker, so that the death of the last one started
        # goes unnoticed until something else happens. This is something else.
        pool.submit(int)
        for future in as_completed(futures):
            outcome = future.result()
            del left[outcome.index]
            yield outcome
    except BrokenProcessPool:
        done = {f for f in futures if f.done() and f.exception() is None}
        for future in done:
            if (index := futures[future]) in left:
                del left[index]
                yield future.result()
        # Pools hand out tasks in order, so the unfinished ones in front were running.
        return sorted(left)[: jobs + 1]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return []


def _alone(function: Function, index: int, task: Any) -> Outcome:
    pool = _pool(1)
    try:
        return pool.submit(_attempt_and_send, function, index, task).result()
    except BrokenProcessPool:
        return Outcome(index, error=RuntimeError("its worker process died (killed, or out of memory)"))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # waiting would let Ctrl-C wait for the task


def _attempt(function: Function, index: int, task: Any) -> Outcome:
    try:
        return Outcome(index, function(task))
    except (Exception, SystemExit) as error:  # a method that calls sys.exit ends its own run only
        return Outcome(index, error=error, traceback=traceback.format_exc())


def _attempt_and_send(function: Function, index: int, task: Any) -> Outcome:
    """In a worker: what cannot be sent, or not be put together again, would break the pool for all tasks."""
    outcome = _attempt(function, index, task)
    try:
        pickle.dumps(outcome)
        copy.deepcopy(outcome.error)
    except Exception as fault:
        error = outcome.error or fault
        return Outcome(index, error=RuntimeError(f"{type(error).__name__}: {error}"), traceback=outcome.traceback)
    return outcome


def limit_threads() -> None:
    """One thread for the libraries that this process and its workers have yet to load, unless the user set another."""
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")


def _pool(jobs: int) -> ProcessPoolExecutor:
    limit_threads()
    # Spawned, not forked: torch's threads do not survive a fork.
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A worker whose parent was killed would wait for its next task for ever.
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
