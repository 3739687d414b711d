"""A search strategy of one's own: hill climbing with restarts. Copy this file and change `ask` and `tell`.

nasbed compare --strategies my_strategy:MyStrategy --table mlp-digits
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nasbed.protocols import Architecture, Observation, Proposal, SearchSpace


class MyStrategy:
    """Mutate the best architecture so far; now and then, ask for a random one.

    Args:
        space: Where to search.
        seed: Of every random draw.
        restart: Probability of a random architecture.
    """

    def __init__(self, space: SearchSpace, *, seed: int, restart: float = 0.1) -> None:
        if not 0.0 <= restart <= 1.0:
            raise ValueError(f"restart: {restart} is not in 0 .. 1")
        self._space, self._restart = space, restart
        self._rng = np.random.default_rng(seed)
        self._asked: set[Architecture] = set()
        self._best: Architecture | None = None
        self._score = -np.inf

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        """Propose n architectures."""
        proposals = [Proposal(self._next()) for _ in range(n)]
        self._asked.update(p.architecture for p in proposals)
        return proposals

    def tell(self, observations: Sequence[Observation]) -> None:
        """Keep the best; failed evaluations have a score of NaN and are never better."""
        for o in observations:
            a = o.proposal.architecture
            if a in self._asked and o.score > self._score:
                self._best, self._score = a, o.score

    def _next(self) -> Architecture:
        if self._best is None or self._rng.random() < self._restart:
            return self._space.sample(self._rng)
        return self._space.mutate(self._best, self._rng)
