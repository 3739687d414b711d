"""The word at the end of a comparison of two strategies."""

from __future__ import annotations

from typing import Literal

from .values import Interval

Verdict = Literal["better", "worse", "equivalent", "undecided"]


def verdict(difference: Interval, p_adjusted: float, rope: float, alpha: float = 0.05) -> Verdict:
    """Decide from an interval, a p-value and a region of practical equivalence (ROPE).

    Values are losses such as regrets, so a difference below 0 favours the new strategy. The rules, in this order:

    1. ``equivalent``: the interval lies inside ``[-rope, rope]``. This holds even if p is significant and the interval
       excludes 0: the difference is then real and too small to matter.
    2. ``better`` / ``worse``: p is below alpha and the interval lies wholly below / above 0. Both are needed: the rank
       test and the mean can disagree when a strategy wins often and loses badly.
    3. ``undecided``: all else, including an interval that is undefined (NaN limits).

    Args:
        difference: Interval of the mean loss of new minus that of base.
        p_adjusted: Two-sided van Elteren p-value, adjusted for the number of comparisons.
        rope: Half-width of the region, in the unit of the loss; 0 for none. Choose it no smaller than the seed noise
            of the reported quality.
        alpha: Level for ``p_adjusted``.

    Raises:
        ValueError: ``p_adjusted`` outside [0, 1] or NaN, ``rope`` negative or NaN, ``alpha`` outside (0, 1).
    """
    if not 0.0 <= p_adjusted <= 1.0:
        raise ValueError(f"p_adjusted must lie in [0, 1], got {p_adjusted}")
    if not rope >= 0.0:
        raise ValueError(f"rope must not be negative, got {rope}")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie strictly between 0 and 1, got {alpha}")
    if -rope <= difference.low and difference.high <= rope:
        return "equivalent"
    if p_adjusted < alpha and difference.high < 0:
        return "better"
    if p_adjusted < alpha and difference.low > 0:
        return "worse"
    return "undecided"
