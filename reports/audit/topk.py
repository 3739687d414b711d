"""Whether an estimator finds the best architectures: metrics of the top k, by the names of Ning et al. (2021).

Every ranking has one order: value descending, then row ascending. Where many scores are equal, the numbers therefore
depend on the order of the rows: read them beside the share of ties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..statistics import Estimate
from ..statistics.values import Vector, checked
from .kernels import tau_b
from .results import Top

SHARES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5)
"""What the field looks at: 0.1, 0.5, 1, 5, 10, 20 and 50 % of the architectures."""


def order(values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Rows from the best to the worst, equal ones by row; -inf is allowed and last.

    Args:
        values: Shape (N,).

    Raises:
        ValueError: NaN.
    """
    return np.argsort(-checked(values, "values", finite=False), kind="stable").astype(np.int64)


def top_k(e: npt.ArrayLike, f: npt.ArrayLike, k: int) -> Top:
    """Metrics of the predicted top k, and what a random ranking would have of each.

    `best_rank` and `worst_rank` are true ranks among the predicted top k over N; `n_at` counts evaluations: how far
    down the predicted ranking the first of the true top k stands; `regret` is in units of f.

    Args:
        e: Scores, shape (N,); -inf where there is none.
        f: True values, shape (N,).
        k: From 1 to N.

    Raises:
        ValueError: Shapes differ, a NaN, an infinite true value, or k out of range.
    """
    scores, truth = _pair(e, f)
    n = truth.size
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and {n}, got {k}")
    predicted, true = order(scores), order(truth)
    rank = np.empty(n, np.int64)
    rank[true] = np.arange(1, n + 1)
    found = rank[predicted]  # true ranks from the best predicted to the worst
    return Top(
        k=k,
        share=k / n,
        p_top=float(np.mean(found[:k] <= k)),
        p_bottom=float(np.mean(found[n - k :] > n - k)),
        best_rank=float(found[:k].min() / n),
        worst_rank=float(found[:k].max() / n),
        n_at=float(np.argmax(found <= k) + 1),
        regret=float(truth[true[0]] - truth[predicted[:k]].max()),
        random=_by_chance(truth[true], k),
    )


def tops(e: npt.ArrayLike, f: npt.ArrayLike, ks: Sequence[int] | None = None) -> tuple[Top, ...]:
    """`top_k` for several k; without `ks`, those of `SHARES`, rounded, at least 1, each once.

    Raises:
        ValueError: As `top_k`; no architecture.
    """
    scores, truth = _pair(e, f)
    if truth.size == 0:
        raise ValueError("f has no architecture")
    chosen = ks if ks is not None else sorted({_count(share, truth.size) for share in SHARES})
    return tuple(top_k(scores, truth, k) for k in chosen)


def tau_within(e: npt.ArrayLike, f: npt.ArrayLike, share: float, by: Literal["truth", "prediction"]) -> Estimate:
    """Kendall's tau-b among the best architectures alone: by the truth, or by the prediction (Ning et al.'s KD).

    Choosing by one of the two that are correlated lowers the correlation by itself; a perfect estimator has 1 still.

    Args:
        e: Scores, shape (N,); -inf where there is none.
        f: True values, shape (N,).
        share: Of the architectures, in (0, 1]; rounded, at least one.
        by: Whose best are looked at.

    Raises:
        ValueError: Shapes differ, a NaN, an infinite true value, or a share outside (0, 1].
    """
    scores, truth = _pair(e, f)
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    chosen = order(truth if by == "truth" else scores)[: _count(share, truth.size)]
    if chosen.size < 3:
        return Estimate(float("nan"), chosen.size, f"tau-b needs 3 architectures, got {chosen.size}")
    for values, whose in ((scores, "scores"), (truth, "true values")):
        if np.all(values[chosen] == values[chosen[0]]):
            return Estimate(float("nan"), chosen.size, f"the {whose} of the top {share:.3g} are all equal")
    return Estimate(tau_b(scores[chosen], truth[chosen]), chosen.size)


def psr(f: npt.ArrayLike, found: float, n: int) -> float:
    """Probability that the best of n random architectures is at most as good as the one found: F(found)^n.

    F is the share of architectures that are at most as good; draws are with replacement (Yu et al. 2020).

    Args:
        f: True values of the space, shape (N,), at least one.
        found: True value of the architecture found.
        n: Random architectures, at least 1.

    Raises:
        ValueError: No value, NaN or infinite values, or n below 1.
    """
    truth, value = checked(f, "f"), checked(found, "found", ndim=0)
    if truth.size == 0 or n < 1:
        raise ValueError(f"psr needs architectures and draws, got {truth.size} and {n}")
    return float(np.mean(truth <= value) ** n)


def _count(share: float, n: int) -> int:
    return max(1, round(share * n))


def _pair(e: npt.ArrayLike, f: npt.ArrayLike) -> tuple[Vector, Vector]:
    scores, truth = checked(e, "e", finite=False), checked(f, "f")
    if scores.size != truth.size:
        raise ValueError(f"e has {scores.size} architectures, f has {truth.size}")
    return scores, truth


def _by_chance(best_first: Vector, k: int) -> Mapping[str, float]:
    """Expectations under a ranking drawn uniformly, exact."""
    n = best_first.size
    # The best of k drawn is the i-th best of all, i from 0: the i better ones were missed, then this one was drawn.
    left = n - np.arange(n, dtype=np.float64)
    missed = np.concatenate([[1.0], np.cumprod(np.maximum(1.0 - k / left, 0.0))[:-1]])
    expected_best = float(np.sum(missed * np.minimum(k / left, 1.0) * best_first))
    first = (n + 1) / (k + 1)
    return {
        "p_top": k / n,
        "p_bottom": k / n,
        "best_rank": first / n,
        "worst_rank": k * first / n,
        "n_at": first,
        "regret": max(0.0, float(best_first[0]) - expected_best),
    }
