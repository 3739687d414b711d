"""Many strategies on many tables: tables are the blocks, seeds are averaged before.

All functions take ``losses[table, strategy]``, lower is better, and ranks count from 1 = best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from .inference import holm, signed_rank
from .values import Result, Vector, checked, checked_fraction, midranks

Significance = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Friedman(Result):
    """Friedman's chi-square and the Iman-Davenport F, with the mean ranks (1 = best) by strategy."""

    chi2: float
    p: float
    F: float
    pF: float
    mean_ranks: tuple[float, ...]
    n_tables: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PairwiseTests(Result):
    """Raw and Holm-adjusted p-values of all pairs of strategies; ``reason`` speaks if no p could be significant."""

    pairs: tuple[tuple[int, int], ...]
    p_raw: tuple[float, ...]
    p_holm: tuple[float, ...]
    alpha: float
    n_tables: int
    reason: str = ""

    def significant(self) -> Significance:
        """Symmetric matrix [strategy, strategy]: is the adjusted p-value at most ``alpha``?"""
        k = max(j for _, j in self.pairs) + 1
        matrix = np.zeros((k, k), dtype=np.bool_)
        for (i, j), p in zip(self.pairs, self.p_holm, strict=True):
            matrix[i, j] = matrix[j, i] = p <= self.alpha
        return matrix


def friedman(losses: npt.ArrayLike) -> Friedman:
    """Friedman's rank test (1937) with the correction of Iman and Davenport (1980).

    ``F = (n - 1) chi2 / (n (k - 1) - chi2)`` on k - 1 and (k - 1)(n - 1) degrees of freedom; chi2 is corrected for
    ties within tables.

    Args:
        losses: Shape [table, strategy], lower is better.

    Returns:
        The two statistics. NaN with a reason under 3 tables or 3 strategies, or if every table is all tied. If all
        tables agree on the ranks, F is infinite and ``pF`` is the exact permutation probability of that.

    Raises:
        ValueError: Not a matrix with at least 2 strategies, NaN or infinite values.
    """
    ranks, ties = _ranks(losses)
    n, k = ranks.shape
    mean_ranks = ranks.mean(axis=0)
    as_tuple = tuple(mean_ranks.tolist())
    correction = 1.0 - sum(float((g**3 - g).sum()) for g in ties) / (n * k * (k * k - 1))
    if n < 3 or k < 3 or all(g.size == 1 for g in ties):
        few = f"needs 3 tables and 3 strategies, got {n} and {k}"
        nan = float("nan")
        return Friedman(nan, nan, nan, nan, as_tuple, n, few if min(n, k) < 3 else "all losses are tied on every table")
    from scipy.special import chdtrc, fdtrc

    chi2 = 12.0 * n / (k * (k + 1)) * float(((mean_ranks - (k + 1) / 2.0) ** 2).sum()) / correction
    p = float(chdtrc(k - 1, chi2))
    if (ranks == ranks[0]).all():
        arrangements = math.factorial(k) // math.prod(math.factorial(int(g)) for g in ties[0])
        reason = "all tables agree on the ranks: F is infinite, pF is the exact permutation probability"
        return Friedman(chi2, p, float("inf"), float(arrangements) ** (1 - n), as_tuple, n, reason)
    F = (n - 1) * chi2 / (n * (k - 1) - chi2)
    return Friedman(chi2, p, F, float(fdtrc(k - 1, (k - 1) * (n - 1), F)), as_tuple, n)


def wilcoxon_holm(losses: npt.ArrayLike, alpha: float = 0.05) -> PairwiseTests:
    """Wilcoxon signed-rank test of every pair of strategies over tables, Holm-adjusted.

    Args:
        losses: Shape [table, strategy].
        alpha: Level for ``significant()`` and for the reason.

    Returns:
        The tests, pairs in the order (0, 1), (0, 2), ... With too few tables for any pair to become significant,
        ``reason`` says how many are needed.

    Raises:
        ValueError: Not a matrix with at least 2 strategies, NaN or infinite values.
    """
    matrix = _matrix(losses)
    n, k = matrix.shape
    pairs = tuple(combinations(range(k), 2))
    raw = [signed_rank(matrix[:, i] - matrix[:, j]) for i, j in pairs]
    needed = min_tables(k, alpha)
    reason = f"cannot reach significance with {n} tables; need at least {needed}" if n < needed else ""
    return PairwiseTests(pairs, tuple(raw), tuple(holm(raw).tolist()), alpha, n, reason)


def min_tables(k: int, alpha: float = 0.05) -> int:
    """Fewest tables with which Wilcoxon and Holm can call any of k strategies' pairs significant.

    The smallest n with ``k (k - 1)/2 * 2 * 0.5^n <= alpha``.

    Raises:
        ValueError: k under 2, or alpha outside (0, 1).
    """
    checked_fraction(alpha, "alpha")
    if k < 2:
        raise ValueError(f"needs at least 2 strategies, got {k}")
    n = 1
    while k * (k - 1) * 0.5**n > alpha:
        n += 1
    return n


def nemenyi_cd(k: int, n: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks, ``q / sqrt(2) * sqrt(k (k + 1) / (6 n))`` (Demsar 2006).

    A drawing aid only: whether two strategies differ by it depends on which others are present (Benavoli et al. 2016).

    Args:
        k: Number of strategies.
        n: Number of tables.
        alpha: Level.

    Raises:
        ValueError: k under 2, n under 1, or alpha outside (0, 1).
    """
    checked_fraction(alpha, "alpha")
    if k < 2 or n < 1:
        raise ValueError(f"needs at least 2 strategies and 1 table, got {k} and {n}")
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1.0 - alpha, k, np.inf))
    return q * math.sqrt(k * (k + 1) / (12.0 * n))


def nemenyi_p(losses: npt.ArrayLike) -> Vector:
    """Nemenyi p-values of all pairs of strategies from their mean ranks (Demsar 2006).

    Args:
        losses: Shape [table, strategy].

    Returns:
        Shape [strategy, strategy], symmetric, 1 on the diagonal.

    Raises:
        ValueError: Not a matrix with at least 2 strategies, NaN or infinite values.
    """
    ranks, _ = _ranks(losses)
    n, k = ranks.shape
    from scipy.stats import studentized_range

    gaps = np.abs(np.subtract.outer(ranks.mean(axis=0), ranks.mean(axis=0)))
    p: Vector = np.ones((k, k))
    for i, j in combinations(range(k), 2):
        if gaps[i, j] > 0:
            p[i, j] = p[j, i] = studentized_range.sf(gaps[i, j] / math.sqrt(k * (k + 1) / (12.0 * n)), k, np.inf)
    return p


def cliques(mean_ranks: npt.ArrayLike, significant: npt.ArrayLike) -> list[tuple[int, ...]]:
    """Maximal sets of strategies, consecutive in rank, within which no pair differs significantly.

    Args:
        mean_ranks: Shape [strategy].
        significant: Shape [strategy, strategy], symmetric truth values.

    Returns:
        Sets of at least two strategies, each as indices from best to worst rank; the sets too from best to worst.

    Raises:
        ValueError: Shapes do not fit, the matrix is not symmetric, or NaN.
    """
    ranks, matrix = checked(mean_ranks, "mean_ranks"), np.asarray(significant, dtype=np.bool_)
    if matrix.shape != (ranks.size, ranks.size) or (matrix != matrix.T).any():
        raise ValueError(f"significant must be symmetric of size {ranks.size}, got shape {matrix.shape}")
    order = np.argsort(ranks, kind="stable")
    found: list[tuple[int, ...]] = []
    reached = 0
    for start in range(ranks.size):
        stop = start + 1
        while stop < ranks.size and not matrix[order[stop], order[start:stop]].any():
            stop += 1
        if stop > max(reached, start + 1):
            found.append(tuple(int(i) for i in order[start:stop]))
            reached = stop
    return found


def _matrix(losses: npt.ArrayLike) -> Vector:
    matrix = checked(losses, "losses", ndim=2)
    if matrix.shape[0] < 1 or matrix.shape[1] < 2:
        raise ValueError(f"losses must be [table, strategy] with at least 2 strategies, got shape {matrix.shape}")
    return matrix


def _ranks(losses: npt.ArrayLike) -> tuple[Vector, list[npt.NDArray[np.int64]]]:
    rows: Iterable[Vector] = _matrix(losses)
    ranked = [midranks(row) for row in rows]
    return np.array([ranks for ranks, _ in ranked]), [ties for _, ties in ranked]
