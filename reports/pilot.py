"""From a pilot comparison to the number of seeds that a study needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .frame import StudyData
from .statistics import Interval, SeedPlan, anytime_area, normalised_regret, plan_seeds, theta_interval
from .statistics.planning import FEWEST_PILOT_SEEDS
from .statistics.values import Vector

SIZES = (5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300)
LATE = 0.1
METRICS = ("regret_final", "late_area")


@dataclass(frozen=True, slots=True)
class Question:
    """How often a difference is found, by seeds per table.

    Attributes:
        about: The strategy with the larger regrets: the one that wastes evaluations, or the worse one of a pair.
        against: What it is compared with: itself without waste, or the better one.
        effect: Share of evaluations wasted; 0 for the difference between two strategies.
        metric: `regret_final` or `late_area`.
        plan: Power at each number of seeds.
        theta: Probability that a run of `about` has the larger regret, with its interval over the pilot's seeds; for a
            waste without limits, since both sides come from the same runs.
        needed: Seeds per table for the wanted power, by interpolation; None where no size of the plan reaches it.
    """

    about: str
    against: str
    effect: float
    metric: str
    plan: SeedPlan
    theta: Interval
    needed: int | None


def regrets(data: StudyData, method: str, waste: float = 0.0) -> dict[str, list[Vector]]:
    """Both headline scalars of every run of a method, table by table, shape [seed] each.

    With a waste w, as if an evenly spread share w of the evaluations had bought nothing: the trajectory is stretched
    over cost by 1 / (1 - w) and cut off at the budget. That is exact for methods that do not know their budget.

    Args:
        data: A study on tables.
        method: Label.
        waste: Share of evaluations, in [0, 1).

    Raises:
        ValueError: No such method, or it has no run on a table.
    """
    found: dict[str, list[Vector]] = {name: [] for name in METRICS}
    steps = dict(tuple(data.incumbents.groupby("run_id", sort=False)))
    for table in data.tables:
        runs = data.runs.query("method == @method and table == @table.name")["run_id"]
        if runs.empty:
            have = ", ".join(m.label for m in data.methods)
            raise ValueError(f"strategies: {method!r} has no finished run on {table.name!r} (the pilot has {have})")
        rows = []
        for key in runs:
            if key not in steps:
                rows.append((1.0, 1.0))
                continue
            cost = steps[key]["cum_cost"].to_numpy(float) / steps[key]["budget"].to_numpy(float) / (1.0 - waste)
            value = table.sign * steps[key]["score_test"].to_numpy(float)
            regret = normalised_regret(value, table.sign * table.best, table.sign * table.median)[cost <= 1.0]
            rows.append((regret[-1] if regret.size else 1.0, anytime_area(cost[cost <= 1.0], regret, LATE, 1.0)))
        for name, column in zip(METRICS, np.array(rows, dtype=np.float64).T, strict=True):
            found[name].append(column)
    return found


def questions(
    data: StudyData,
    strategies: Sequence[str],
    *,
    effect: float,
    power: float,
    alpha: float = 0.05,
    repeats: int = 400,
    seed: int = 0,
) -> tuple[Question, ...]:
    """Power by number of seeds: to see that each strategy wastes evaluations, and to tell each pair apart.

    Args:
        data: A pilot on tables with at least 20 seeds.
        strategies: Labels of methods.
        effect: Share of evaluations wasted, in (0, 1).
        power: Wanted, above alpha and under 1.
        alpha: Level of the two-sided van Elteren test.
        repeats: Resamples for each number of seeds: 400 give a power within 0.05 (two standard errors).
        seed: Of the generator that each question starts afresh.

    Raises:
        ValueError: The pilot has no table, or too few seeds; an unknown strategy; effect or power out of range.
    """
    if not data.tabular:
        raise ValueError("pilot: it has no table, so there are no regrets to plan with")
    for name, value, least in (("effect", effect, 0.0), ("power", power, alpha)):
        if not least < value < 1.0:
            raise ValueError(f"{name}: {value:g} is not between {least:g} and 1")
    whole = {s: regrets(data, s) for s in strategies}
    fewest, scarce = min((min(x.size for x in r["late_area"]), s) for s, r in whole.items())
    if fewest < FEWEST_PILOT_SEEDS:
        raise ValueError(f"pilot: {scarce!r} has {fewest} seeds on a table, need at least {FEWEST_PILOT_SEEDS}")
    asked = [(s, s, effect, regrets(data, s, effect)) for s in strategies]
    for i, first in enumerate(strategies):
        for second in strategies[i + 1 :]:
            worse, better = sorted((first, second), key=lambda s: -_mean(whole[s]["late_area"]))
            asked.append((worse, better, 0.0, whole[worse]))
    found = []
    for about, against, share, new in asked:
        for metric in METRICS:
            base = whole[against][metric]
            plan = plan_seeds(new[metric], base, SIZES, repeats=repeats, rng=np.random.default_rng(seed), alpha=alpha)
            theta = theta_interval(new[metric], base)
            if share:
                theta = Interval(theta.estimate, np.nan, np.nan, theta.level, theta.method, theta.n, "the same runs")
            found.append(Question(about, against, share, metric, plan, theta, needed(plan, power)))
    return tuple(found)


def needed(plan: SeedPlan, power: float) -> int | None:
    """Seeds per table at which the power is first reached, linearly between the sizes of the plan, rounded up."""
    for i, (size, reached) in enumerate(zip(plan.sizes, plan.power, strict=True)):
        if reached >= power:
            if i == 0 or reached == plan.power[i - 1]:
                return size
            below, short = plan.sizes[i - 1], plan.power[i - 1]
            return int(np.ceil(below + (size - below) * (power - short) / (reached - short)))
    return None


def _mean(tables: Sequence[Vector]) -> float:
    return float(np.mean([x.mean() for x in tables]))
