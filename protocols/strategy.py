"""The two roles of a search strategy, and what may be checkpointed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from .architecture import Architecture
from .budget import Cost
from .proposal import Observation, Proposal


@runtime_checkable
class SearchStrategy(Protocol):
    """A black-box strategy, built as `cls(space, *, seed, **params)`.

    ask(1) -> [p0];  tell([o0]);  ask(1) -> [p1];  ...

    * The same seed and the same calls give the same proposals, in another process too.
    * `tell` takes observations in any order, some never, also of proposals it did not make, and with
      status "invalid" or "crashed" and a score of NaN.
    * The history is the state: a run is resumed by repeating the recorded calls, so there is nothing to save.
    """

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        """Up to n proposals; none means that the strategy has nothing left to ask."""
        ...

    def tell(self, observations: Sequence[Observation]) -> None:
        """Learn from evaluations."""
        ...


@runtime_checkable
class WeightSharingStrategy(Protocol):
    """A one-shot strategy, built as `cls(space, setting, *, seed, **params)`, that trains its own supernet."""

    def train_epoch(self) -> Sequence[Cost]:
        """Advance by one epoch and return all that it cost; nothing means that training has ended."""
        ...

    def incumbent(self) -> Architecture:
        """The architecture it would answer now."""
        ...


@runtime_checkable
class Checkpointable(Protocol):
    """For what cannot be replayed, supernets above all: safetensors and JSON, never pickle."""

    def save(self, folder: Path) -> None:
        """Write the whole state into an existing, empty folder."""
        ...

    def load(self, folder: Path) -> None:
        """Become indistinguishable, through public methods, from the object that was saved."""
        ...
