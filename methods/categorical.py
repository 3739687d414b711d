"""What search spaces of fixed length share: every gene is one of a finite, fixed set of values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import prod
from operator import contains
from typing import TYPE_CHECKING

import numpy as np

from ..protocols import Architecture
from .base import Space, configspace, import_configspace
from .graph import Graph, Node

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

# rng.integers draws int64; larger spaces are sampled gene by gene.
_LARGEST_DRAW = 2**63 - 1


class Categorical(Space):
    """A finite product of gene values, numbered in lexicographic order (the first gene varies slowest).

    >>> space = Categorical("toy", "toy", [(0, 1, 2), (5, 7)])
    >>> space.size, space.at(3).genes, space.index(Architecture("toy", (1, 7)))
    (6, (1, 7), 3)
    >>> [b.genes for b in space.neighbours(space.at(3))]
    [(0, 7), (2, 7), (1, 5)]

    A space derives from this class and adds `from_options`, `graphs`, `build`, `text`, `parse` and, where
    it merges architectures, `levels` and `canonical`. The moves trust their arguments to be members; `check`,
    `index` and `encode` do not.

    Args:
        family: See `Space`.
        name: See `Space`.
        values: Allowed values per gene.
        genes: What each gene is called, in errors and in ConfigSpace; default: gene_0, gene_1, ...
        labels: Per gene, what its values are called, where not by their number.
        ordinal: Genes whose values have an order, for ConfigSpace.
        moves: (gene, value) -> the values one edit away, ascending, a symmetric relation; default: all others.

    Attributes:
        values: Allowed values per gene, ascending.
        size: Number of members, exact.
    """

    def __init__(
        self,
        family: str,
        name: str,
        values: Sequence[Sequence[int]],
        *,
        genes: Sequence[str] = (),
        labels: Sequence[Mapping[int, str]] = (),
        ordinal: Collection[int] = (),
        moves: Callable[[int, int], Sequence[int]] | None = None,
    ) -> None:
        self.family = family
        self.name = name
        self.values = tuple(tuple(sorted(allowed)) for allowed in values)
        self.size = prod(map(len, self.values))
        self.gene_names = tuple(genes) or tuple(f"gene_{i}" for i in range(len(self.values)))
        self._labels = tuple(labels) or ({},) * len(self.values)
        self._ordinal = frozenset(ordinal)
        radices = [len(allowed) for allowed in self.values]
        self._counts = np.array(radices)
        strides = [prod(radices[i + 1 :]) for i in range(len(radices))]
        self._offsets = tuple(
            {v: rank * stride for rank, v in enumerate(allowed)}
            for allowed, stride in zip(self.values, strides, strict=True)
        )
        self._columns = tuple(
            {v: sum(radices[:i]) + rank for rank, v in enumerate(allowed)} for i, allowed in enumerate(self.values)
        )
        self._descending = tuple((allowed, len(allowed)) for allowed in reversed(self.values))
        # Per gene that can change: its position, and the other values for each present value.
        self._moves = tuple(
            (i, {v: tuple(moves(i, v) if moves else (w for w in allowed if w != v)) for v in allowed})
            for i, allowed in enumerate(self.values)
            if len(allowed) > 1
        )
        steps = {len(others) for _, alternatives in self._moves for others in alternatives.values()}
        self._steps = steps.pop() if len(steps) == 1 else None

    def check(self, a: Architecture) -> None:
        """Raise ValueError, naming the offending gene, unless `a` is a member."""
        # The run loop checks every proposal, and they are members: what is wrong is looked for afterwards.
        if a.space == self.family and len(a.genes) == len(self.values) and all(map(contains, self.values, a.genes)):
            return
        if a.space != self.family:
            raise ValueError(f"{self.name}: {a} is of the space {a.space!r}; allowed: {self.family!r}")
        if len(a.genes) != len(self.values):
            raise ValueError(f"{self.name}: {a} has {len(a.genes)} genes; allowed: {len(self.values)}")
        for i, (gene, allowed) in enumerate(zip(a.genes, self.values, strict=True)):
            if gene not in allowed:
                raise ValueError(
                    f"{self.name}: gene {i} ({self.gene_names[i]}) of {a} is {gene}; allowed: {_listed(allowed)}"
                )

    def options(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
        """Values of the next gene after `prefix`, ascending; they do not depend on the genes before."""
        return self.values[len(prefix)] if len(prefix) < len(self.values) else ()

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw uniformly over the members: one index, or beyond 2^63 members every gene by itself."""
        if self.size <= _LARGEST_DRAW:
            return self.at(int(rng.integers(self.size)))
        ranks = rng.integers(self._counts).tolist()
        return Architecture(self.family, tuple(allowed[r] for allowed, r in zip(self.values, ranks, strict=True)))

    def mutate(self, a: Architecture, rng: np.random.Generator) -> Architecture:
        """Change one gene, uniform over the genes that can change, to another value, uniform over the others.

        This is uniform over `neighbours(a)` exactly when all genes that can change have equally many values;
        otherwise a neighbour that differs in a gene of few values is drawn more often than one that differs
        in a gene of many.

        Raises:
            ValueError: The space has one member only.
        """
        moves = self._moves
        if not moves:
            raise ValueError(f"{self.name}: its only member has no neighbours; mutate needs a gene of two values")
        if self._steps is not None:  # one scalar draw costs more than everything else here
            turn, step = divmod(int(rng.integers(len(moves) * self._steps)), self._steps)
            i, others = moves[turn]
            genes = a.genes
            return Architecture(self.family, (*genes[:i], others[genes[i]][step], *genes[i + 1 :]))
        i, others = moves[int(rng.integers(len(moves)))]
        genes = a.genes
        rest = others[genes[i]]
        return Architecture(self.family, (*genes[:i], rest[int(rng.integers(len(rest)))], *genes[i + 1 :]))

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Take each gene from either parent with probability 1/2, independently (uniform crossover)."""
        coins = rng.random(len(self.values)).tolist()  # a quarter of the time that as many integers take
        return Architecture(
            self.family,
            tuple(x if coin < 0.5 else y for x, y, coin in zip(a.genes, b.genes, coins, strict=True)),
        )

    def neighbours(self, a: Architecture) -> list[Architecture]:
        """All members that differ in one gene, by position, then by value, ascending."""
        genes = a.genes
        return [
            Architecture(self.family, (*genes[:i], v, *genes[i + 1 :]))
            for i, others in self._moves
            for v in others[genes[i]]
        ]

    def one_hot(self, a: Architecture) -> np.ndarray:
        """One-hot code per gene, side by side: float64 (sum of the numbers of values,)."""
        code = np.zeros(int(self._counts.sum()))
        code[[column[gene] for column, gene in zip(self._columns, a.genes, strict=True)]] = 1.0
        return code

    def label(self, gene: int, value: int) -> str:
        """What a value of a gene is called."""
        return self._labels[gene].get(value, str(value))

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The genes in a row: what a space has that says no more of its networks."""
        row = [f"{name} {self.label(i, v)}" for i, (name, v) in enumerate(zip(self.gene_names, a.genes, strict=True))]
        nodes = tuple(map(Node, ["input", *row, "output"]))
        return {"genes": Graph(nodes, tuple((i, i + 1, "") for i in range(len(nodes) - 1)))}

    def to_configspace(self) -> ConfigurationSpace:
        """One categorical or ordinal hyper-parameter a gene, its choices the values' labels."""
        library = import_configspace()
        hyperparameters = []
        for i, (name, allowed) in enumerate(zip(self.gene_names, self.values, strict=True)):
            choices = [self.label(i, v) for v in allowed]
            if i in self._ordinal:
                hyperparameters.append(library.OrdinalHyperparameter(name, choices))
            else:
                hyperparameters.append(library.CategoricalHyperparameter(name, choices))
        return configspace(self.name, hyperparameters)

    def from_configspace(self, configuration: Mapping[str, object]) -> Architecture:
        """The member that a configuration stands for; ValueError names the hyper-parameter."""
        genes = []
        for i, (name, allowed) in enumerate(zip(self.gene_names, self.values, strict=True)):
            choices = {self.label(i, v): v for v in allowed}
            chosen = str(configuration[name]) if name in configuration else "missing"
            if chosen not in choices:
                raise ValueError(f"{self.name}: hyper-parameter {name!r} is {chosen}; allowed: {_listed(choices)}")
            genes.append(choices[chosen])
        return Architecture(self.family, tuple(genes))

    def index(self, a: Architecture) -> int:
        """Position of `a` in lexicographic order, 0 <= index < size; ValueError unless `a` is a member."""
        position = 0
        try:
            for offset, gene in zip(self._offsets, a.genes, strict=True):
                position += offset[gene]
        except (KeyError, ValueError):
            self.check(a)
            raise
        if a.space != self.family:
            self.check(a)
        return position

    def at(self, index: int) -> Architecture:
        """The member at a position; ValueError outside 0 <= index < size."""
        if not 0 <= index < self.size:
            raise ValueError(f"{self.name}: index is {index}; allowed: 0 to {self.size - 1}")
        genes = []
        for allowed, radix in self._descending:
            index, rank = divmod(index, radix)
            genes.append(allowed[rank])
        genes.reverse()
        return Architecture(self.family, tuple(genes))


def _listed(allowed: Collection[object]) -> str:
    """The values as text, the middle left out where they are many."""
    texts = list(map(str, allowed))
    return ", ".join(texts if len(texts) <= 12 else [*texts[:10], "...", texts[-1]])


def full_name(family: str, options: Mapping[str, str]) -> str:
    """Name of a restriction: `family[key=value;key=value]` in the order given, or the family alone.

    >>> full_name("nb201", {"ops": "none,skip_connect", "cells": "1"})
    'nb201[ops=none,skip_connect;cells=1]'
    """
    inner = ";".join(f"{key}={value}" for key, value in options.items())
    return f"{family}[{inner}]" if inner else family


def check_keys(family: str, options: Mapping[str, tuple[str, ...]], allowed: Collection[str]) -> None:
    """Raise ValueError for an option that the space does not have."""
    for key in options:
        if key not in allowed:
            raise ValueError(f"{family}: option {key!r} is unknown; allowed: {', '.join(allowed)}")


def whole_number(family: str, key: str, texts: tuple[str, ...]) -> int:
    """Read an option that holds one integer >= 0; ValueError names the option and its text."""
    if len(texts) != 1 or not (texts[0].isascii() and texts[0].isdigit()):
        raise ValueError(f"{family}: {key} is {','.join(texts)!r}; allowed: one integer")
    return int(texts[0])


def some_of(family: str, key: str, chosen: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """An option's values in the order of `known`; ValueError unless they are one or more of these, each once."""
    for value in chosen:
        if value not in known:
            raise ValueError(f"{family}: {key} holds {value!r}; allowed: {', '.join(known)}")
    if not chosen or len(set(chosen)) != len(chosen):
        given = ",".join(chosen)
        raise ValueError(f"{family}: {key} is {given!r}; allowed: one or more, each once, of {', '.join(known)}")
    return tuple(value for value in known if value in chosen)


def check_range(family: str, key: str, value: int, most: int | None = None) -> None:
    """Raise ValueError, naming the option, unless 1 <= value <= most."""
    if value < 1 or (most is not None and value > most):
        raise ValueError(f"{family}: {key} is {value}; allowed: {f'1 to {most}' if most else 'integers >= 1'}")
