"""Is a strategy still as good as its baseline? One look at the numbers of some fresh seeds, and the plan of all looks.

The new version and the baseline ran different seeds, so nothing is paired. At each look the fail test comes first: van
Elteren's stratified rank test, one-sided, for either metric. Then the pass test, for non-inferiority: theta, the
probability that a new run is worse than a recorded one, is below the margin with confidence, for both metrics (an
intersection-union test, which needs no correction). Both spend their level over the looks as Lan & DeMets (1983) do
after O'Brien & Fleming (1979); each look gets the increment, which is conservative and needs no integration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import erfc, sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np

Samples = Mapping[str, Sequence[np.ndarray]]
"""For each metric, for each table, values by seed; lower is better."""

FEWEST = 5
"""Seeds of the first look: normal approximations mean nothing for fewer."""

_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Rules:
    """How a strategy is judged.

    Attributes:
        alpha: Probability of failing a strategy that is as good as its baseline, over all looks, metrics and strategies
            of one check.
        margin: Theta that a passing strategy must stay below: 0.5 is no difference, 1 always worse. What a loss of
            evaluations does to theta depends on the tables; see `docs/gate.md`.
        looks: Fresh seeds per table at each look, growing.
        pass_alpha: Probability of passing a strategy whose theta is at the margin.
        strategies: How many share `alpha`.
    """

    alpha: float = 0.01
    margin: float = 0.60
    looks: tuple[int, ...] = (20, 50, 100)
    pass_alpha: float = 0.05
    strategies: int = 1

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("pass_alpha", self.pass_alpha)):
            if not 0.0 < value < 0.5:
                raise ValueError(f"{name}: {value} is not between 0 and 0.5")
        if not 0.5 < self.margin < 1.0:
            raise ValueError(f"margin: {self.margin} is not between 0.5, no difference, and 1")
        growing = all(a < b for a, b in pairwise((FEWEST - 1, *self.looks)))
        if not self.looks or not growing:
            raise ValueError(f"looks: {list(self.looks)} are not growing numbers of seeds, from {FEWEST} on")


@dataclass(frozen=True, slots=True)
class MetricTest:
    """One metric at one look.

    Attributes:
        metric: Name; lower is better.
        theta: Mean over tables of the probability that a new run is worse than a recorded one.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p_worse: One-sided p-value of the fail test.
        p_better: That of the other tail.
        expected: Mean of the baseline over its seeds and tables.
        got: Mean of the new runs.
        bound: Upper one-sided bound of theta at this look; a pass needs a margin above it.
    """

    metric: str
    theta: float
    low: float
    high: float
    p_worse: float
    p_better: float
    expected: float
    got: float
    bound: float


@dataclass(frozen=True, slots=True)
class Look:
    """What a look decides: None means that more seeds are needed.

    Attributes:
        outcome: Of the strategy.
        improved: Whether the other tail of the fail test is significant for a metric.
        metrics: The tests.
        fail_level: What the p-value of either metric was held against.
        pass_level: Level of the bound of the pass test.
    """

    outcome: Literal["pass", "fail"] | None
    improved: bool
    metrics: tuple[MetricTest, ...]
    fail_level: float
    pass_level: float


def spending(alpha: float, looks: Sequence[int], recorded: int) -> tuple[float, ...]:
    """Level of each look: increments of `2 - 2 Phi(z_{alpha/2} / sqrt(t))`, O'Brien & Fleming's kind of spending.

    Information is `n * recorded / (n + recorded)` at n seeds, and t its share of that at the last look.

    >>> [f"{level:.3g}" for level in spending(0.005, (20, 50, 100), 200)]
    ['7.66e-08', '0.00029', '0.00471']
    """
    information = [n * recorded / (n + recorded) for n in looks]
    z = NormalDist().inv_cdf(1.0 - alpha / 2.0)
    spent = [0.0, *(erfc(z / sqrt(i / information[-1]) / sqrt(2.0)) for i in information)]
    return tuple(b - a for a, b in pairwise(spent))


def judge(new: Samples, recorded: Samples, look: int, rules: Rules) -> Look:
    """Read one look.

    Args:
        new: Values of the fresh seeds up to this look.
        recorded: Of the baseline: the same metrics and tables.
        look: Index into `rules.looks`.
        rules: Levels and margin.

    Raises:
        ValueError: Other tables, or NaN.
    """
    n_recorded = min(x.size for tables in recorded.values() for x in tables)
    fail = spending(rules.alpha / (len(recorded) * rules.strategies), rules.looks, n_recorded)[look]
    accept = spending(rules.pass_alpha, rules.looks, n_recorded)[look]
    tests = tuple(_test(metric, new[metric], recorded[metric], accept) for metric in recorded)
    outcome: Literal["pass", "fail"] | None = None
    if any(t.p_worse < fail for t in tests):
        outcome = "fail"
    elif all(t.bound < rules.margin for t in tests):
        outcome = "pass"
    return Look(outcome, any(t.p_better < fail for t in tests), tests, fail, accept)


def _test(metric: str, new: Sequence[np.ndarray], recorded: Sequence[np.ndarray], accept: float) -> MetricTest:
    from ..reports.statistics import theta_se, van_elteren

    test, found = van_elteren(new, recorded, "greater"), theta_se(new, recorded)
    z = NormalDist().inv_cdf(0.5 + _LEVEL / 2.0)
    expected, got = (float(np.mean([x.mean() for x in tables])) for tables in (recorded, new))
    return MetricTest(
        metric,
        found.theta,
        low=max(0.0, found.theta - z * found.se),
        high=min(1.0, found.theta + z * found.se),
        p_worse=test.p,
        p_better=0.5 * erfc(-test.z / sqrt(2.0)),
        expected=expected,
        got=got,
        bound=found.theta - NormalDist().inv_cdf(accept) * found.se,
    )
