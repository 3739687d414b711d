"""A world with known answers: every true score, and the best architecture, are exact and cost no training.

The landscapes are those of Kauffman's NK model (Kauffman & Weinberger 1989, J. Theor. Biol. 141:211-245) with
the next genes, cyclically, as the genes that a contribution depends on, mixed with the distance to their optimum
as far as asked. Noise, and the bias of cheap evaluations, are chosen too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ...protocols import Architecture, Task
from ..base import required_vector
from ..categorical import Categorical, check_keys, full_name, whole_number

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Synthetic"]

# 2^21 holds 5^9 members. All truths then take 16 MB, and all contributions are held to as much.
_ENUMERABLE = 2**21
_INTEGERS = {"genes": 6, "values": 5, "world": 0, "epistasis": 0}
_NUMBERS = {"locality": 0.0, "fidelity_bias": 0.0, "noise": 0.01}


class Synthetic(Categorical):
    """Equal genes, and a true score for each architecture that depends on nothing but the options.

    >>> space = Synthetic(genes=3, values=4, world=7)
    >>> best = space.optimum()
    >>> bool(space.truth(best) == space.truths().max())
    True

    The NK landscape is the mean over genes of a contribution in [0, 1), drawn once per world, uniform, for each
    value of the gene and of the `epistasis` genes after it (cyclically). With epistasis 0 it is additive, and its
    optimum takes the best value of each gene.

    The truth is (1 - locality) * landscape + locality * closeness, in [0, 1], where closeness is the share of
    genes that agree with the optimum of the landscape: that remains the optimum at any locality. With locality 1
    every other member has a better neighbour; in between the landscape's ruggedness fades.

    A cheap evaluation at a fidelity from 0 to 1 has the score truth + (1 - fidelity) * fidelity_bias *
    (bias landscape - 1/2), without noise; the bias landscape is another one of the same size and epistasis. At
    fidelity 0 and locality 0 Pearson's correlation of score and truth is 1 / sqrt(1 + fidelity_bias^2) over all
    worlds; `rank_correlation` gives the exact value in this world. Epoch e of E of a table has the fidelity e / E.

    `build` gives a multilayer perceptron whose hidden layer i has 8 (1 + gene i) units; its size is a feature of the
    architecture, and has no part in the truth.

    Attributes:
        genes: Number of genes.
        alphabet: Number of values of each gene, the option `values`.
        world: Seed that names the landscapes.
        epistasis: Number of other genes that each gene's contribution depends on.
        locality: Share of the truth that is closeness to the optimum, 0 to 1.
        fidelity_bias: Size of the bias of cheap evaluations.
        noise: Standard deviation of the quality between training seeds, which tables of the space draw.
    """

    def __init__(
        self,
        genes: int = 6,
        values: int = 5,
        world: int = 0,
        epistasis: int = 0,
        *,
        locality: float = 0.0,
        fidelity_bias: float = 0.0,
        noise: float = 0.01,
    ) -> None:
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
        if not 0 <= locality <= 1:
            raise ValueError(f"synthetic: locality is {locality}; allowed: 0 to 1")
        if locality and epistasis and values**genes > _ENUMERABLE:
            raise ValueError(
                f"synthetic: locality is {locality} with epistasis = {epistasis} and {values}^{genes} members; "
                f"allowed: 0, or epistasis = 0, or up to {_ENUMERABLE} members, so that the optimum is known"
            )
        for key, number in (("fidelity_bias", fidelity_bias), ("noise", noise)):
            if not (isfinite(number) and number >= 0):
                raise ValueError(f"synthetic: {key} is {number}; allowed: finite numbers >= 0")
        self.genes = genes
        self.alphabet = values
        self.world = world
        self.epistasis = epistasis
        # Adding 0.0 turns -0.0 into 0.0, and integers into floats: equal spaces, equal names.
        self.locality, self.fidelity_bias, self.noise = locality + 0.0, fidelity_bias + 0.0, noise + 0.0
        given = {
            **{"genes": genes, "values": values, "world": world, "epistasis": epistasis},
            **{"locality": self.locality, "fidelity_bias": self.fidelity_bias, "noise": self.noise},
        }
        default = {**_INTEGERS, **_NUMBERS}
        name = full_name("synthetic", {k: repr(v) for k, v in given.items() if v != default[k]})
        super().__init__("synthetic", name, [range(values)] * genes)

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> Synthetic:
        """Build from one integer each for `genes`, `values`, `world`, `epistasis`, and one number each for the rest."""
        check_keys("synthetic", options, (*_INTEGERS, *_NUMBERS))
        given: dict[str, Any] = {
            key: (whole_number("synthetic", key, texts) if key in _INTEGERS else _number(key, texts))
            for key, texts in options.items()
        }
        return cls(**given)

    def truth(self, a: Architecture) -> float:
        """The true score of `a` in [0, 1], higher is better; ValueError unless `a` is a member."""
        self.check(a)
        total = self._sum(self._contributions, a) / self.genes
        if not self.locality:
            return total
        agreeing = sum(x == y for x, y in zip(a.genes, self._best.genes, strict=True))
        return (1 - self.locality) * total + self.locality * (agreeing / self.genes)

    def truths(self) -> np.ndarray:
        """The truths of all members in index order, float64 (size,), bit for bit those of `truth`.

        Raises:
            ValueError: The space has more than 2^21 members.
        """
        total = self._sums(self._contributions) / self.genes
        if not self.locality:
            return total
        agreeing = np.zeros(self.size)
        for i, gene in enumerate(self._best.genes):
            agreeing += self._column(i) == gene
        return (1 - self.locality) * total + self.locality * (agreeing / self.genes)

    def score(self, a: Architecture, *, fidelity: float = 1.0) -> float:
        """What `a` scores at a fidelity from 0 to 1, without noise; at 1 the truth.

        Raises:
            ValueError: `a` is no member, or the fidelity is outside.
        """
        weight = self._bias_weight(fidelity)
        truth = self.truth(a)
        return truth + weight * (self._sum(self._bias, a) / self.genes - 0.5) if weight else truth

    def scores(self, *, fidelity: float = 1.0) -> np.ndarray:
        """The scores of all members in index order, float64 (size,), bit for bit those of `score`.

        Raises:
            ValueError: The space has more than 2^21 members, or the fidelity is outside.
        """
        weight = self._bias_weight(fidelity)
        truths = self.truths()
        return truths + weight * (self._sums(self._bias) / self.genes - 0.5) if weight else truths

    def rank_correlation(self, fidelity: float = 0.0) -> float:
        """Spearman's correlation between scores at a fidelity and truths, over all members; ValueError as `scores`."""
        from scipy.stats import spearmanr

        return float(spearmanr(self.scores(fidelity=fidelity), self.truths()).statistic)

    def optimum(self) -> Architecture:
        """The architecture of highest truth; of equal ones, that of smallest index.

        Raises:
            ValueError: Epistasis is above 0 and the space has more than 2^21 members.
        """
        return self._best

    @cached_property
    def _best(self) -> Architecture:
        # Closeness has its only maximum there too, so that the mixture has its optimum at no other place.
        if self.epistasis == 0:
            return Architecture(self.family, tuple(self._contributions.argmax(axis=1).tolist()))
        return self.at(int(self._sums(self._contributions).argmax()))

    @cached_property
    def _contributions(self) -> np.ndarray:
        return self._drawn(())

    @cached_property
    def _bias(self) -> np.ndarray:
        return self._drawn((1,))

    def _drawn(self, key: tuple[int, ...]) -> np.ndarray:
        """Float64 (genes, values^(epistasis + 1)): by gene, then by its value and the following, base `values`."""
        shape = (self.genes, self.alphabet ** (self.epistasis + 1))
        seed = np.random.SeedSequence((self.world, self.genes, self.alphabet, self.epistasis), spawn_key=key)
        # Raw bits: numpy promises the stream of a bit generator for all versions, of a distribution it does not.
        bits = np.random.PCG64(seed).random_raw(prod(shape))
        return ((bits >> np.uint64(11)) * 2.0**-53).reshape(shape)

    def _sum(self, contributions: np.ndarray, a: Architecture) -> float:
        total = 0.0
        for i, contribution in enumerate(contributions):
            code = 0
            for j in range(i, i + self.epistasis + 1):
                code = code * self.alphabet + a.genes[j % self.genes]
            total += float(contribution[code])
        return total

    def _sums(self, contributions: np.ndarray) -> np.ndarray:
        """`_sum` of all members, float64 (size,)."""
        if self.size > _ENUMERABLE:
            raise ValueError(f"{self.name}: {self.size} members are too many to list; allowed: {_ENUMERABLE}")
        total = np.zeros(self.size)
        for i, contribution in enumerate(contributions):
            code = np.zeros(self.size, dtype=np.int64)
            for j in range(i, i + self.epistasis + 1):
                code = code * self.alphabet + self._column(j % self.genes)
            total += contribution[code]
        return total

    def _column(self, gene: int) -> np.ndarray:
        """The values that a gene has in all members, int64 (size,)."""
        found: np.ndarray = np.arange(self.size) // self.alphabet ** (self.genes - 1 - gene) % self.alphabet
        return found

    def _bias_weight(self, fidelity: float) -> float:
        if not 0 <= fidelity <= 1:
            raise ValueError(f"{self.name}: fidelity is {fidelity}; allowed: 0 to 1")
        return (1 - fidelity) * self.fidelity_bias

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
        return [required_vector(task, self.name), *(8 * (1 + gene) for gene in a.genes), task.classes or 1]

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


def _number(key: str, texts: tuple[str, ...]) -> float:
    """Read an option that holds one number as `repr` writes it, or shorter; ValueError names option and text."""
    try:
        (text,) = texts
        return float(text if "_" not in text else "")  # "1_0" is a literal of Python, not of people
    except ValueError:
        raise ValueError(f"synthetic: {key} is {','.join(texts)!r}; allowed: one number") from None
