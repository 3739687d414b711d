"""Local search."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ...protocols import Architecture, Observation, Proposal, SearchSpace

__all__ = ["LocalSearch"]

_TRIES = 1000


class LocalSearch:
    """Local search, or hill climbing, of White, Nolen & Savani (2020, arXiv 2005.02960).

    >>> from nasbed.methods.spaces.synthetic import Synthetic
    >>> from nasbed.protocols import Observation
    >>> space = Synthetic(genes=4, values=3)
    >>> search = LocalSearch(space, seed=0)
    >>> scores = []
    >>> for _ in range(60):
    ...     [proposal] = search.ask()
    ...     scores.append(space.truth(proposal.architecture))
    ...     search.tell([Observation(proposal, scores[-1])])
    >>> max(scores) == space.truth(space.optimum())
    True

    A climb starts at the best of `num_init` random architectures and evaluates neighbours in random order.
    By default it moves as soon as a neighbour is strictly better (first improvement); with `query_full_nbhd`
    it evaluates the whole neighbourhood and then moves to the best (best improvement). At a local optimum the
    next climb starts from new random architectures. No architecture is evaluated twice within a climb, and
    climbs do not share what they saw.

    Several asks may precede a tell. A batch ends where the answers decide what comes next, so it may be
    shorter than n. If nothing can be asked before an answer arrives, the start of the next climb is
    brought forward; that climb takes over once its own start is complete and the answer is still missing.
    Failed evaluations count as worse than every finite score; observations of architectures that the
    current climb has not asked for are ignored.

    Args:
        space: Where to search.
        seed: Of every random draw, >= 0.
        num_init: Random architectures at the start of each climb; at most the size of the space.
        query_full_nbhd: Best instead of first improvement.
        stop_at_minimum: Restart at a local optimum. If False, continue instead from the best architecture of
            this climb that still has neighbours to evaluate.

    Raises:
        ValueError: `num_init` is not positive.
    """

    libraries: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        num_init: int = 10,
        query_full_nbhd: bool = False,
        stop_at_minimum: bool = True,
    ) -> None:
        if num_init < 1:
            raise ValueError(f"num_init: {num_init} is not allowed; use an integer >= 1")
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._num_init = num_init if space.size is None else min(num_init, space.size)
        self._full = query_full_nbhd
        self._stop = stop_at_minimum
        self._climb = _Climb()
        self._next = _Climb()

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        """Give at least one and up to n architectures: the start of a climb, or untried neighbours."""
        while self._started(self._climb):
            if neighbours := self._neighbours(self._climb, n):
                return [Proposal(a) for a in neighbours]
            if self._climb.pending and not self._started(self._next):
                return self._start(self._next, n)
            self._climb, self._next = self._next, _Climb()
        return self._start(self._climb, n)

    def tell(self, observations: Sequence[Observation]) -> None:
        """Take in what was asked for; the order within one call decides only between equal scores."""
        for o in observations:
            a = o.proposal.architecture
            for climb in (self._climb, self._next):
                if a in climb.pending:
                    climb.pending.discard(a)
                    score = o.score if o.status == "ok" and math.isfinite(o.score) else -math.inf
                    # The heap's smallest is the best score; equal scores: the one told first.
                    heapq.heappush(climb.open, (-score, climb.told, a))
                    climb.told += 1
                    break

    def _started(self, climb: _Climb) -> bool:
        return climb.told >= self._num_init

    def _start(self, climb: _Climb, n: int) -> list[Proposal]:
        """Random architectures that complete the start of a climb; one more where all have been asked for."""
        count = min(n, max(1, self._num_init - len(climb.visited)))
        return [Proposal(self._visit(climb, self._unvisited(climb))) for _ in range(count)]

    def _unvisited(self, climb: _Climb) -> Architecture:
        # Only where answers are missing and (almost) every member has been asked for do the tries run out.
        for _ in range(_TRIES):
            a = self._space.sample(self._rng)
            if a not in climb.visited:
                break
        return a

    def _neighbours(self, climb: _Climb, n: int) -> list[Architecture]:
        """Up to n unvisited neighbours of one point; none at a local optimum, or until answers arrive."""
        while climb.open:
            best = climb.open[0][2]
            if climb.centre is None or not self._full:
                climb.centre = best
            if untried := self._untried(climb, climb.centre):
                return [self._visit(climb, untried.pop()) for _ in range(min(n, len(untried)))]
            if climb.pending and (self._full or self._stop):
                return []
            if climb.centre == best:
                if self._stop:
                    return []
                heapq.heappop(climb.open)
            climb.centre = None
        return []

    def _untried(self, climb: _Climb, a: Architecture) -> list[Architecture]:
        """Neighbours of `a` that this climb has not visited, in a random order fixed at the first call."""
        untried = climb.untried.get(a)
        if untried is None:
            neighbours = self._space.neighbours(a)
            untried = [neighbours[i] for i in self._rng.permutation(len(neighbours)).tolist()]
        climb.untried[a] = [b for b in untried if b not in climb.visited]
        return climb.untried[a]

    def _visit(self, climb: _Climb, a: Architecture) -> Architecture:
        climb.visited.add(a)
        climb.pending.add(a)
        return a


class _Climb:
    """What one climb knows: every point visited, and of those told a heap of (-score, order of telling, point)."""

    def __init__(self) -> None:
        self.visited: set[Architecture] = set()
        self.pending: set[Architecture] = set()
        self.open: list[tuple[float, int, Architecture]] = []
        self.told = 0
        self.untried: dict[Architecture, list[Architecture]] = {}
        self.centre: Architecture | None = None
