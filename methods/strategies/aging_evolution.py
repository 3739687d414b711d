"""Aging evolution, also called regularised evolution."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from operator import itemgetter
from typing import ClassVar, Literal, get_args

import numpy as np

from ...protocols import Architecture, Observation, Proposal, SearchSpace

__all__ = ["AgingEvolution"]

Draw = Literal["with", "without"]


class AgingEvolution:
    """Aging evolution, Algorithm 1 of Real, Aggarwal, Huang & Le (2019, arXiv 1802.01548).

    >>> from nasbed.methods.spaces.synthetic import Synthetic
    >>> from nasbed.protocols import Observation
    >>> space = Synthetic(genes=4, values=3)
    >>> search = AgingEvolution(space, seed=0)
    >>> scores = []
    >>> for _ in range(60):
    ...     [proposal] = search.ask()
    ...     scores.append(space.truth(proposal.architecture))
    ...     search.tell([Observation(proposal, scores[-1])])
    >>> max(scores) == space.truth(space.optimum())
    True

    Published implementations are several different algorithms; this one is the authors' notebook:

    * the tournament is drawn uniformly **with** replacement, so it may hold one individual twice;
    * its best, ties to the first drawn, is the parent; the child is one `space.mutate` of it, never the
      parent itself, and no edit is preferred to another but by the space;
    * the child enters on the right and the **oldest** individual leaves on the left, whatever its score;
    * an architecture that comes up again is a new individual with a new age;
    * the answer is the best of the whole history, not of the final population.

    An individual is born when its observation is told. Until the population is full every proposal is a
    random architecture; an observation that is never told never enters, one of an architecture that was not
    asked for enters if it is a member of the space, and a failed evaluation enters below every finite score.

    Args:
        space: Where to search.
        seed: Of every random draw, >= 0.
        population_size: P. 10 as on NAS-Bench-201 and NATS-Bench; 100 in the paper.
        sample_size: S, the size of the tournament. 3 as on NAS-Bench-201 and NATS-Bench; 25 in the paper.
        draw: Whether the tournament is drawn "with" or "without" replacement.

    Raises:
        ValueError: A size is not positive, the draw is unknown, or S > P without replacement.
    """

    libraries: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        population_size: int = 10,
        sample_size: int = 3,
        draw: Draw = "with",
    ) -> None:
        if population_size < 1:
            raise ValueError(f"population_size: {population_size} is not allowed; use an integer >= 1")
        if draw not in get_args(Draw):
            raise ValueError(f"draw: {draw!r} is not allowed; use one of {', '.join(get_args(Draw))}")
        if sample_size < 1 or (draw == "without" and sample_size > population_size):
            limit = f" and <= population_size = {population_size}" if draw == "without" else ""
            raise ValueError(f"sample_size: {sample_size} is not allowed; use an integer >= 1{limit}")
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._size = population_size
        self._tournament = sample_size
        self._replace = draw == "with"
        self._population: deque[tuple[float, Architecture]] = deque(maxlen=population_size)
        self._asked: set[Architecture] = set()

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        """Give n architectures: random ones until the population is full, then children."""
        # A space of one member has no children.
        random = len(self._population) < self._size or self._space.size == 1
        breed = self._space.sample if random else self._child
        born = [breed(self._rng) for _ in range(n)]
        self._asked.update(born)
        return [Proposal(a) for a in born]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Let the observed architectures enter, in the order given; for each the oldest leaves."""
        for o in observations:
            a = o.proposal.architecture
            if a in self._asked or self._holds(a):
                fitness = o.score if o.status == "ok" and math.isfinite(o.score) else -math.inf
                self._population.append((fitness, a))  # with maxlen=P this also removes the leftmost

    def _child(self, rng: np.random.Generator) -> Architecture:
        population = self._population
        if self._replace:
            drawn = rng.integers(self._size, size=self._tournament)
        else:
            drawn = rng.choice(self._size, self._tournament, replace=False)
        _, parent = max([population[i] for i in drawn.tolist()], key=itemgetter(0))
        return self._space.mutate(parent, rng)

    def _holds(self, a: Architecture) -> bool:
        try:
            self._space.check(a)
        except ValueError:
            return False
        return True
