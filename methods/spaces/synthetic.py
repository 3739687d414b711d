"""A world with known answers: every true score, and the best architecture, are exact and cost no training.

The landscapes are those of Kauffman's NK model (Kauffman & Weinberger 1989, J. Theor. Biol. 141:211-245) with
the next genes, cyclically, as the genes that a contribution depends on.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ...protocols import Architecture, Task
from ..categorical import Categorical, check_keys, full_name, whole_number

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Synthetic"]

# 2^21 holds 5^9 members. All truths then take 16 MB, and all contributions are held to as much.
_ENUMERABLE = 2**21
_DEFAULTS = {"genes": 6, "values": 5, "world": 0, "epistasis": 0}


class Synthetic(Categorical):
    """Equal genes, and a true score for each architecture that depends on nothing but the options.

    >>> space = Synthetic(genes=3, values=4, world=7)
    >>> best = space.optimum()
    >>> bool(space.truth(best) == space.truths().max())
    True

    The truth is the mean over genes of a contribution in [0, 1), drawn once per world, uniform, for each value
    of the gene and of the `epistasis` genes after it (cyclically). With epistasis 0 the truth is additive, and
    the optimum takes the best value of each gene. Noise is no matter of the space: tables add it.

    `build` gives a multilayer perceptron whose hidden layer i has 1 + gene i units; its size is a feature of the
    architecture, and has no part in the truth.

    Attributes:
        genes: Number of genes.
        alphabet: Number of values of each gene, the option `values`.
        world: Seed that names the landscape.
        epistasis: Number of other genes that each gene's contribution depends on.
    """

    def __init__(self, genes: int = 6, values: int = 5, world: int = 0, epistasis: int = 0) -> None:
        for key, value, least in (("genes", genes, 1), ("values", values, 2), ("world", world, 0)):
            if value < least:
                raise ValueError(f"synthetic: {key} is {value}; allowed: integers >= {least}")
        if not 0 <= epistasis < genes:
            raise ValueError(f"synthetic: epistasis is {epistasis}; allowed: 0 to genes - 1 = {genes - 1}")
        if genes * values ** (epistasis + 1) > _ENUMERABLE:
            raise ValueError(
                f"synthetic: epistasis is {epistasis} with genes = {genes} and values = {values}; "
                f"allowed: genes * values^(epistasis + 1) <= {_ENUMERABLE}"
            )
        self.genes = genes
        self.alphabet = values
        self.world = world
        self.epistasis = epistasis
        given = {"genes": genes, "values": values, "world": world, "epistasis": epistasis}
        name = full_name("synthetic", {k: str(v) for k, v in given.items() if v != _DEFAULTS[k]})
        super().__init__("synthetic", name, [range(values)] * genes)

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> Synthetic:
        """Build from `genes`, `values`, `world` and `epistasis`, one integer each; all may be left out."""
        check_keys("synthetic", options, tuple(_DEFAULTS))
        return cls(**{key: whole_number("synthetic", key, texts) for key, texts in options.items()})

    @cached_property
    def _contributions(self) -> np.ndarray:
        """Float64 (genes, values^(epistasis + 1)): by gene, then by its value and the following, base `values`."""
        shape = (self.genes, self.alphabet ** (self.epistasis + 1))
        seed = np.random.SeedSequence((self.world, self.genes, self.alphabet, self.epistasis))
        # Raw bits: numpy promises the stream of a bit generator for all versions, of a distribution it does not.
        bits = np.random.PCG64(seed).random_raw(prod(shape))
        return ((bits >> np.uint64(11)) * 2.0**-53).reshape(shape)

    def truth(self, a: Architecture) -> float:
        """The true score of `a` in [0, 1), higher is better; ValueError unless `a` is a member."""
        self.check(a)
        total = 0.0
        for i, contribution in enumerate(self._contributions):
            code = 0
            for j in range(i, i + self.epistasis + 1):
                code = code * self.alphabet + a.genes[j % self.genes]
            total += float(contribution[code])
        return total / self.genes

    def truths(self) -> np.ndarray:
        """The truths of all members in index order, float64 (size,), bit for bit those of `truth`.

        Raises:
            ValueError: The space has more than 2^21 members.
        """
        if self.size > _ENUMERABLE:
            raise ValueError(f"{self.name}: {self.size} members are too many to list; allowed: {_ENUMERABLE}")
        members = np.arange(self.size)
        total = np.zeros(self.size)
        for i, contribution in enumerate(self._contributions):
            code = np.zeros(self.size, dtype=np.int64)
            for j in range(i, i + self.epistasis + 1):
                stride = self.alphabet ** (self.genes - 1 - j % self.genes)
                code = code * self.alphabet + members // stride % self.alphabet
            total += contribution[code]
        return total / self.genes

    def optimum(self) -> Architecture:
        """The architecture of highest truth; of equal ones, that of smallest index.

        Raises:
            ValueError: Epistasis is above 0 and the space has more than 2^21 members.
        """
        if self.epistasis == 0:
            return Architecture(self.family, tuple(self._contributions.argmax(axis=1).tolist()))
        return self.at(int(self.truths().argmax()))

    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        """Of the network that `build` returns; `macs` bills its weight matrices, `depth` is its hidden layers."""
        self.check(a)
        widths = self._widths(a, task)
        macs = sum(n * m for n, m in pairwise(widths))
        return {
            "params": float(macs + sum(widths[1:])),
            "macs": float(macs),
            "flops": 2.0 * macs,
            "depth": float(self.genes),
            "n_linear": self.genes + 1.0,
        }

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The perceptron of `a`, on the meta device; input (n, *task.shape), output (n, classes, or 1)."""
        self.check(a)
        import torch
        from torch import nn

        with torch.device("meta"):
            layers: list[nn.Module] = [nn.Flatten()]
            for n, m in pairwise(self._widths(a, task)):
                layers += [nn.Linear(n, m), nn.ReLU()]
            return nn.Sequential(*layers[:-1])

    def _widths(self, a: Architecture, task: Task) -> list[int]:
        return [prod(task.shape), *(1 + gene for gene in a.genes), task.classes or 1]

    def text(self, a: Architecture) -> str:
        """The genes, joined by hyphens."""
        return "-".join(map(str, a.genes))

    def parse(self, text: str) -> Architecture:
        """Read the genes back; ValueError names the malformed part."""
        parts = text.split("-")
        for part in parts:
            if not (part.isascii() and part.isdigit()):
                raise ValueError(f"synthetic: {text!r} holds {part!r}; allowed: {self.genes} integers joined by '-'")
        a = Architecture(self.family, tuple(map(int, parts)))
        self.check(a)
        return a
