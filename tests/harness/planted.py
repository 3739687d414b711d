"""Methods for the tests of the harness, as a user would write them in a module of their own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasbed.methods.estimators.table import TableLookup
from nasbed.methods.strategies.random import RandomSearch
from nasbed.protocols import Architecture, Cost, Observation, Proposal, SearchSpace, Setting

LOG: list[tuple[str, Any]] = []
"""What happened, in order: ("ask", strategy), ("estimate", estimator), and what an audit hook adds."""


class Probe(RandomSearch):
    """Random search that logs when it is asked, and by whom it is watched."""

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        LOG.append(("ask", self))
        return super().ask(n)


class ProbeLookup(TableLookup):
    """Table look-up that logs what it is given."""

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        LOG.append(("prepare", {"space": space, "setting": setting, "estimator": self}))
        return super().prepare(space, setting, seed=seed)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        LOG.append(("estimate", self))
        return super().estimate(proposals)


class ProbeTraining:
    """Sees the setting of real training and gives the share of each gene's sum: no training at all."""

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        LOG.append(("prepare", {"space": space, "setting": setting, "estimator": self}))
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        LOG.append(("estimate", self))
        return [Observation(p, float(sum(p.architecture.genes)), (Cost("proxy", 1.0),)) for p in proposals]


class Thief(RandomSearch):
    """Opens the sealed file of the table named by the environment while it is asked."""

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        LOG.append(("ask", self))
        self.loot = np.load(next((Path(os.environ["LOOT"]) / "sealed").iterdir()), mmap_mode="r")
        LOG.append(("maps", [line for line in Path("/proc/self/maps").read_text().splitlines() if "sealed" in line]))
        return super().ask(n)


class Wandering(RandomSearch):
    """Proposes what is not in the space."""

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        return [Proposal(Architecture("synthetic", (0, 0, 0, 99)))]


class Crashing(RandomSearch):
    """Raises an error that cannot be put together again from its pickle."""

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        raise Awkward("left", "right")


class Killed(RandomSearch):
    """Dies with its process, unless it is alone in the world: never in the test's own process."""

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        os.kill(os.getpid(), signal.SIGKILL)
        return ()


class Awkward(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class Needy(RandomSearch):
    """Needs a parameter, and refuses negative ones."""

    def __init__(self, space: SearchSpace, *, seed: int, amount: int) -> None:
        super().__init__(space, seed=seed)
        if amount < 0:
            raise ValueError(f"amount: {amount} is not an integer >= 0")


class Counted:
    """Full training that writes a line for each training into the file named by the environment.

    At the training whose number is KILL_AT, counted from 1 over one process, the process kills itself.
    """

    def __init__(self) -> None:
        from nasbed.methods.estimators.full import FullTraining

        self._inner = FullTraining()
        self._trained = 0

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        self._seed = setting.train_seed
        return self._inner.prepare(space, setting, seed=seed)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        return [self._train(p) for p in proposals]

    def _train(self, p: Proposal) -> Observation:
        self._trained += 1
        if str(self._trained) == os.environ.get("KILL_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        [answer] = self._inner.estimate([p])
        with open(os.environ["TRAININGS"], "a", encoding="utf-8") as file:
            file.write(f"{p.architecture}\n")
        return answer


def scores(a: Architecture, seed: int) -> float:
    """An estimator that is a plain function."""
    if a.genes[0] == 2:
        raise ArithmeticError("no score for a 2")
    return float(sum(a.genes))


# Tasks of executor tests.


def square(n: int) -> int:
    return n * n


def misbehave(task: tuple[str, int]) -> int:
    """Do as told: return, raise, exit, or die."""
    what, n = task
    if what == "exit":
        os._exit(3)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "raise":
        raise KeyError(f"task {n}")
    if what == "awkward":
        raise Awkward("task", str(n))
    if what == "sys.exit":
        sys.exit(4)
    return n


def sleep_long(folder: str) -> None:
    """Leave a file named by the process, and sleep."""
    import time

    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


def die_or_sleep(task: tuple[str, str]) -> None:
    """Kill the process, or sleep: at the second time after leaving the file `alone`."""
    import time

    what, folder = task
    first, alone = Path(folder) / "first", Path(folder) / "alone"
    if what == "kill":
        while not first.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    (alone if first.exists() else first).touch()
    time.sleep(60)
