"""What spaces share that search a few genes of their own jointly with all genes of another space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..protocols import Architecture, IndexedSpace, Json, SearchSpace
from .base import Space, configspace
from .categorical import Categorical
from .graph import Graph

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

_BAR = " | "


class Wrapper(Space):
    """The product of a few own genes, which come first, and another space.

    A wrapper derives from this class and adds `from_options`, `build`, and what else its own genes change. Members
    are uniform pairs. The levels and encodings are those of the inner space, which merges and encodes its own part;
    the code of the own genes, one-hot, stands before it. There are `index` and `at` just where the inner space has
    them.

    Args:
        own: The own genes. Its family and name become those of the whole space.
        inner: The other space.

    Attributes:
        own: The own genes, a space that knows nothing of the inner one.
        inner: The other space.
        size: Number of members, None if the inner space is infinite.
    """

    index: Callable[[Architecture], int]
    at: Callable[[int], Architecture]

    def __init__(self, own: Categorical, inner: SearchSpace) -> None:
        self.family, self.name = own.family, own.name
        self.own, self.inner = own, inner
        self.size = None if inner.size is None else own.size * inner.size
        self.levels, self.encodings = inner.levels, inner.encodings
        self.operations = inner.operations if isinstance(inner, Space) else ()
        self._own_length = len(own.values)
        self._free = sum(len(allowed) > 1 for allowed in own.values)
        if isinstance(inner, IndexedSpace):
            # As attributes, because a class with these methods would claim to number members of any inner space.
            self.index, self.at = self._index, self._at

    def split(self, a: Architecture) -> tuple[Architecture, Architecture]:
        """The own part of `a`, of the space `own`, and the member of the inner space."""
        k = self._own_length
        return Architecture(self.family, a.genes[:k]), Architecture(self.inner.family, a.genes[k:])

    def join(self, own: Architecture, inner: Architecture) -> Architecture:
        """The inverse of `split`."""
        return Architecture(self.family, own.genes + inner.genes)

    def check(self, a: Architecture) -> None:
        """Raise ValueError, naming the offending gene, unless `a` is a member."""
        if a.space != self.family:
            raise ValueError(f"{self.name}: {a} is of the space {a.space!r}; allowed: {self.family!r}")
        own, inner = self.split(a)
        self.own.check(own)
        self.inner.check(inner)

    def options(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
        """Values of the next gene after `prefix`: the own genes first."""
        k = self._own_length
        return self.own.options(prefix) if len(prefix) < k else self.inner.options(prefix[k:])

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw uniformly over the members: both parts, independently."""
        return self.join(self.own.sample(rng), self.inner.sample(rng))

    def mutate(self, a: Architecture, rng: np.random.Generator) -> Architecture:
        """Change one part: an own gene, or the inner architecture, which counts as often as it has genes.

        Own genes that cannot change are left out, and so is an inner space of one member. What an edit of the
        inner architecture is, and how it is drawn, is left to the inner space.

        Raises:
            ValueError: The space has one member only.
        """
        own, inner = self.split(a)
        within = 0 if self.inner.size == 1 else len(inner.genes)
        if not self._free + within:
            raise ValueError(f"{self.name}: its only member has no neighbours; mutate needs a gene of two values")
        if int(rng.integers(self._free + within)) < self._free:
            return self.join(self.own.mutate(own, rng), inner)
        return self.join(own, self.inner.mutate(inner, rng))

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Each own gene from either parent, and the inner space's crossover of the inner architectures."""
        (own_a, inner_a), (own_b, inner_b) = self.split(a), self.split(b)
        return self.join(self.own.crossover(own_a, own_b, rng), self.inner.crossover(inner_a, inner_b, rng))

    def neighbours(self, a: Architecture) -> list[Architecture]:
        """All members that differ in one own gene, then all whose inner architectures are neighbours."""
        own, inner = self.split(a)
        return [
            *(self.join(other, inner) for other in self.own.neighbours(own)),
            *(self.join(own, other) for other in self.inner.neighbours(inner)),
        ]

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """`a` with the inner architecture's representative at that level of the inner space."""
        own, inner = self.split(a)
        return self.join(own, self.inner.canonical(inner, level))

    def encode(self, a: Architecture, encoding: str | None = None) -> np.ndarray:
        """One-hot code of the own genes, then the inner space's encoding, float64 (d,)."""
        self.check(a)
        own, inner = self.split(a)
        return np.concatenate([self.own.one_hot(own), self.inner.encode(inner, encoding)])

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The own genes in a row, named after the first of them, then the graphs of the inner architecture."""
        own, inner = self.split(a)
        row = {self.own.gene_names[0]: self.own.graphs(own)["genes"]}
        return row | dict(self.inner.graphs(inner)) if isinstance(self.inner, Space) else row

    def training(self, a: Architecture) -> Mapping[str, Json]:
        """What the inner architecture says."""
        return self.inner.training(self.split(a)[1])

    def text(self, a: Architecture) -> str:
        """The own genes as `name=value`, or `value` if there is one only, a bar, and the inner notation."""
        own, inner = self.split(a)
        values = (key + self.own.label(i, v) for i, (key, v) in enumerate(zip(self._keys(), own.genes, strict=True)))
        return " ".join(values) + _BAR + self.inner.text(inner)

    def parse(self, text: str) -> Architecture:
        """Read `text` back; ValueError names the malformed part, those of the inner space pass through."""
        head, bar, rest = text.partition(_BAR)
        keys, words = self._keys(), head.split(" ")
        if not bar or len(words) != len(keys):
            form = " ".join(f"{key}{name.upper()}" for key, name in zip(keys, self.own.gene_names, strict=True))
            raise ValueError(f"{self.name}: {text!r} is not of the form {form}{_BAR}ARCHITECTURE OF {self.inner.name}")
        genes = []
        for i, (key, word) in enumerate(zip(keys, words, strict=True)):
            choices = {key + self.own.label(i, v): v for v in self.own.values[i]}
            if word not in choices:
                raise ValueError(
                    f"{self.name}: {self.own.gene_names[i]} of {text!r} is {word!r}; allowed: {', '.join(choices)}"
                )
            genes.append(choices[word])
        return self.join(Architecture(self.family, tuple(genes)), self.inner.parse(rest))

    def to_configspace(self) -> ConfigurationSpace:
        """The hyper-parameters of both, and the inner space's conditions."""
        own, inner = self.own.to_configspace(), self.inner.to_configspace()
        found = configspace(self.name, [*own.values(), *inner.values()], list(inner.conditions))
        found.add(inner.forbidden_clauses)
        return found

    def from_configspace(self, configuration: Mapping[str, object]) -> Architecture:
        """The member that a configuration stands for; ValueError names the hyper-parameter."""
        rest = {name: value for name, value in configuration.items() if name not in self.own.gene_names}
        return self.join(self.own.from_configspace(configuration), self.inner.from_configspace(rest))

    def _keys(self) -> list[str]:
        names = self.own.gene_names
        return [f"{name}=" if len(names) > 1 else "" for name in names]

    def _index(self, a: Architecture) -> int:
        """Position of `a`, the own genes varying slowest; ValueError unless `a` is a member."""
        if a.space != self.family:
            self.check(a)
        own, inner = self.split(a)
        assert isinstance(self.inner, IndexedSpace)
        assert self.inner.size is not None
        return self.own.index(own) * self.inner.size + self.inner.index(inner)

    def _at(self, index: int) -> Architecture:
        """The member at a position; ValueError outside 0 <= index < size."""
        assert isinstance(self.inner, IndexedSpace)
        assert self.inner.size is not None
        assert self.size is not None
        if not 0 <= index < self.size:
            raise ValueError(f"{self.name}: index is {index}; allowed: 0 to {self.size - 1}")
        first, second = divmod(index, self.inner.size)
        return self.join(self.own.at(first), self.inner.at(second))
