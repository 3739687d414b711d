"""Hill climbing with restarts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nasbed.protocols import Architecture, Observation, Proposal, SearchSpace


class Climb:
    """Mutate the best architecture so far; now and then, ask for a random one."""

    def __init__(self, space: SearchSpace, *, seed: int, restart: float = 0.1) -> None:
        self.space, self.restart = space, restart
        self.rng = np.random.default_rng(seed)
        self.asked: set[Architecture] = set()
        self.best: Architecture | None = None
        self.score = -np.inf

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        proposals = [Proposal(self.propose()) for _ in range(n)]
        self.asked.update(p.architecture for p in proposals)
        return proposals

    def tell(self, observations: Sequence[Observation]) -> None:
        for o in observations:
            if o.proposal.architecture in self.asked and o.score > self.score:
                self.best, self.score = o.proposal.architecture, o.score

    def propose(self) -> Architecture:
        if self.best is None or self.rng.random() < self.restart:
            return self.space.sample(self.rng)
        return self.space.mutate(self.best, self.rng)
