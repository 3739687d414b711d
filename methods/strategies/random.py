"""Random search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ...protocols import Architecture, IndexedSpace, Observation, Proposal, SearchSpace

__all__ = ["RandomSearch"]

_INT64 = 2**63 - 1


class RandomSearch:
    """Uniform random search, the baseline that every other strategy has to beat.

    >>> from nasbed.methods.spaces.synthetic import Synthetic
    >>> from nasbed.protocols import Observation
    >>> space = Synthetic(genes=4, values=3)
    >>> search = RandomSearch(space, seed=0)
    >>> scores = []
    >>> for _ in range(500):
    ...     [proposal] = search.ask()
    ...     scores.append(space.truth(proposal.architecture))
    ...     search.tell([Observation(proposal, scores[-1])])
    >>> max(scores) == space.truth(space.optimum())
    True

    Every proposal is an independent `space.sample`, as in the NAS-Bench-201 protocol (Dong & Yang 2020), or,
    with `replace=False`, a draw without replacement, after which a finite space is exhausted: `ask` then
    gives nothing, and the optimum has been seen. Sampling is uniform over the members of the space,
    not over the values of its genes. Observations are not looked at.

    Args:
        space: Where to search. Without replacement an `IndexedSpace` costs O(1) per draw; any other space is
            sampled until something new appears, about ln(size) draws each over the whole space.
        seed: Of every random draw, >= 0.
        replace: Whether an architecture may be drawn again.
    """

    libraries: ClassVar[tuple[str, ...]] = ()

    def __init__(self, space: SearchSpace, *, seed: int, replace: bool = True) -> None:
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._replace = replace
        # numpy draws bounded integers of 64 bits; no run comes near the end of a larger space.
        small = space.size is not None and space.size <= _INT64
        self._indexed = space if small and isinstance(space, IndexedSpace) else None
        self._moved: dict[int, int] = {}
        self._seen: set[tuple[int, ...]] = set()
        self._drawn = 0

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        """Draw up to n architectures: fewer, in the end none, where the space is exhausted."""
        if self._replace:
            return [Proposal(self._space.sample(self._rng)) for _ in range(n)]
        left = n if self._space.size is None else min(n, self._space.size - self._drawn)
        return [Proposal(self._draw_unseen()) for _ in range(left)]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Do nothing: random search does not learn."""

    def _draw_unseen(self) -> Architecture:
        i, self._drawn = self._drawn, self._drawn + 1
        if self._indexed is not None:
            # Step i of a Fisher-Yates shuffle of 0, ..., size - 1, of which only the moved entries are stored.
            j = int(self._rng.integers(i, self._space.size))
            index = self._moved.get(j, j)
            self._moved[j] = self._moved.pop(i, i)
            return self._indexed.at(index)
        while (a := self._space.sample(self._rng)).genes in self._seen:
            pass
        self._seen.add(a.genes)
        return a
