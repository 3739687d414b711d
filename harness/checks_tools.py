"""What the conformance checks share."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import SkipTest

import numpy as np

from ..methods import registry
from ..protocols import Architecture, Cost, Observation, Proposal, SearchSpace, SearchStrategy, Status
from .faults import Violation

SEED = 20_240_229
"""Of the checks' own draws: fixed, so that a check gives one answer."""

DEEPEST = 10_000
"""Genes after which a walk through `options` is taken to be endless."""

CALLS = 24
"""Asks of a run: enough to fill small populations, few enough for strategies that take milliseconds."""

FIXED = "synthetic[genes=4;values=3]"
VARIABLE = "mlp[hidden=2;widths=8,16;dropout=no]"


def require(condition: bool, message: str) -> None:
    """Raise `Violation` unless the condition holds."""
    if not condition:
        raise Violation(message)


def refused(call: Callable[[], object], what: str) -> None:
    """Require that a call raises a ValueError of one line; other exceptions pass through."""
    try:
        call()
    except ValueError as error:
        text = str(error)
        require(bool(text.strip()) and "\n" not in text, f"{what}: the ValueError's message is not one line: {text!r}")
    else:
        raise Violation(f"{what} is accepted, without a ValueError")


def inside(space: SearchSpace, a: object, what: str) -> None:
    """Require a member of the space."""
    require(isinstance(a, Architecture), f"{space.name}: {what} is {a!r}, not an Architecture")
    assert isinstance(a, Architecture)
    try:
        space.check(a)
    except ValueError as error:
        raise Violation(f"{space.name}: {what} is {a}, not a member: {error}") from None


def generator() -> np.random.Generator:
    """A fresh generator of the checks' own."""
    return np.random.default_rng(SEED)


def walk(space: SearchSpace, rng: np.random.Generator) -> Architecture:
    """A random walk through `options`, from the empty prefix to a complete architecture."""
    genes: tuple[int, ...] = ()
    while options := space.options(genes):
        genes = (*genes, options[int(rng.integers(len(options)))])
        require(len(genes) <= DEEPEST, f"{space.name}: options() still has values after {DEEPEST} genes")
    return Architecture(space.family, genes)


def some(space: SearchSpace, count: int) -> list[Architecture]:
    """Up to `count` distinct members: uniform samples, and random walks, which find the short ones.

    What `check` refuses is left out: other checks are about that, and this one must stand on firm ground.
    """
    rng = generator()
    found: dict[Architecture, None] = {}
    for _ in range(2 * count):
        for a in (space.sample(rng), walk(space, rng)):
            if len(found) < count and _member(space, a):
                found[a] = None
    require(bool(found), f"{space.name}: neither sample() nor options() gives a member")
    return list(found)


def _member(space: SearchSpace, a: Architecture) -> bool:
    try:
        space.check(a)
    except ValueError:
        return False
    return True


@contextmanager
def global_generators(seed: int) -> Iterator[Callable[[], str | None]]:
    """Seed the global generators, yield a function that names the first one drawn from, put all back at the end."""
    torch = sys.modules.get("torch")

    def states() -> dict[str, object]:
        legacy: Any = np.random.get_state()  # noqa: NPY002 (whether it is left alone is the question)
        found: dict[str, object] = {"random": random.getstate(), "numpy.random": (legacy[1].tobytes(), legacy[2:])}
        return found if torch is None else found | {"torch": torch.get_rng_state().numpy().tobytes()}

    kept = random.getstate(), np.random.get_state(), None if torch is None else torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if torch is not None:
        torch.manual_seed(seed)
    before = states()
    try:
        yield lambda: next((name for name, state in states().items() if state != before[name]), None)
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        if torch is not None:
            torch.set_rng_state(kept[2])


@dataclass(frozen=True)
class Candidate:
    """A strategy under check: its class, its parameters, and the caller's spaces, if any."""

    cls: Any
    params: Mapping[str, Any]
    given: tuple[SearchSpace, ...] | None

    @cached_property
    def spaces(self) -> tuple[SearchSpace, ...]:
        """Where checks without a space of their own run it."""
        return tuple(map(registry.space, (FIXED, VARIABLE))) if self.given is None else self.given

    def make(self, space: SearchSpace, seed: int = 0) -> SearchStrategy:
        """A new instance."""
        strategy: SearchStrategy = self.cls(space, seed=seed, **self.params)
        return strategy

    def own(self, name: str) -> SearchSpace:
        """A space of the check's choice; the check does not apply where the caller chose the spaces."""
        if self.given is not None:
            raise SkipTest("the spaces were given")
        return registry.space(name)


def score(a: Architecture) -> float:
    """A score in [0, 1] that depends on every gene and on nothing else."""
    return sum((t + 1) * g for t, g in enumerate(a.genes)) % 17 / 16


def told(p: Proposal, value: float | None = None) -> Observation:
    """An answer to a proposal."""
    value = score(p.architecture) if value is None else value
    return Observation(p, value, (Cost("train", 1.0),), (value,))


def failed(p: Proposal, status: Status) -> Observation:
    """An answer without a score."""
    return Observation(p, math.nan, (Cost("train", 1.0),), status=status, reason="injected by a check")


def drive(strategy: SearchStrategy, calls: int = CALLS, n: int = 1) -> list[Proposal]:
    """Ask and tell, until `calls` are done or nothing is asked."""
    trace: list[Proposal] = []
    for _ in range(calls):
        proposals = list(strategy.ask(n))
        if not proposals:
            break
        trace += proposals
        strategy.tell([told(p) for p in proposals])
    return trace


def lines(trace: Sequence[Proposal]) -> list[str]:
    """A trace as text."""
    return [f"{p.architecture} {p.fidelity} {p.parent}" for p in trace]


def same(space: SearchSpace, first: Sequence[str], second: Sequence[str], when: str) -> None:
    """Require equal traces; the message shows where they part."""
    if list(first) != list(second):
        at = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
        where = f"{len(first)} and {len(second)} proposals" if at is None else f"{first[at]} and {second[at]}"
        raise Violation(f"{space.name}: {when}: proposal {min(len(first), len(second)) if at is None else at}: {where}")


def goes_on(strategy: SearchStrategy, space: SearchSpace, calls: int = 6) -> None:
    """Require that a strategy still asks for members."""
    for p in drive(strategy, calls):
        inside(space, p.architecture, "a proposal")
