"""What the numbers of an audit mean, in plain sentences, and the flags that a reader must not miss."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..statistics import Interval
from ..words import percent, signed
from .results import Attainable, Decision, FeatureBias, Flag

WORTHLESS = 0.0
"""A lower limit at or under it adds nothing."""


def headline(name: str, attainable: Attainable | None, tau: Interval, top: Attainable | None) -> str:
    """The correlation, the ceiling, and both among the best."""
    if math.isnan(tau.estimate):
        return f"{name} has no rank correlation: {tau.reason}."
    said = f"{name} ranks with τ-b = {limits(tau)}"
    if attainable is None or math.isnan(attainable.ceiling):
        said += f"; {attainable.reason if attainable and attainable.reason else 'ceiling unknown'}"
    else:
        said += f"; the noise of training seeds lets nobody reach more than {attainable.ceiling:.2f}"
        said += f", {percent(attainable.share)} % of which is reached" if attainable.share > 0 else ""
    if top is not None and not math.isnan(top.observed.estimate):
        said += f". Among the best, τ-b = {limits(top.observed)}"
        said += "" if math.isnan(top.ceiling) else f", where {top.ceiling:.2f} could be reached"
    return said + "."


def beyond_baseline(
    params: Interval, flops: Interval, tau: Interval, baselines: Sequence[tuple[str, float]]
) -> Flag | None:
    """Whether an estimator says anything that counting parameters does not, and ranks no worse than that."""
    best, value = max(baselines, key=lambda b: b[1], default=("", -math.inf))
    adds = all(math.isnan(i.low) or i.low > WORTHLESS for i in (params, flops))
    if not adds:
        which, interval = ("parameters", params) if not params.low > WORTHLESS else ("FLOPs", flops)
        said = f"adds nothing beyond counting {which}: partial rank correlation {limits(interval)}"
        return Flag("baseline", "warning", said)
    if (tau.estimate if math.isnan(tau.high) else tau.high) < value:
        return Flag(
            "baseline", "warning", f"ranks worse than {best}, which is free: τ-b {limits(tau)} against {value:.2f}"
        )
    return None


def flat_top(top: Attainable | None, share: float) -> Flag | None:
    """Whether an estimator cannot tell the best apart although training seeds would let it."""
    if top is None or math.isnan(top.observed.low) or math.isnan(top.ceiling):
        return None
    observed = top.observed
    if observed.low > WORTHLESS or observed.high >= top.ceiling or top.ceiling < 0.2:
        return None
    said = (
        f"is not shown to rank the best {percent(share)} %: τ-b among them is {limits(observed)}, where"
        f" {top.ceiling:.2f} could be reached"
    )
    return Flag("flat_top", "warning", said)


def unranked(unscored: float, n: int) -> Flag | None:
    """How many architectures have no score."""
    if not unscored:
        return None
    return Flag("unscored", "finding", f"gives no score to {unscored:g} of {n} architectures, which are ranked last")


def leaning(biases: Sequence[FeatureBias]) -> list[Flag]:
    """The biases that are told apart from 0, the largest first."""
    found = sorted((b for b in biases if b.biased), key=lambda b: -abs(b.effect.estimate))
    return [Flag("bias", "finding", b.sentence) for b in found]


def cost_of_decisions(d: Decision) -> list[str]:
    """What the estimate costs a search."""
    share = d.selection.estimate / d.total.estimate if d.total.estimate else math.nan
    lines = [
        f"A search by {d.strategy} that trusts it ends at a normalised regret of {limits(d.ee, 3)}, "
        f"{limits(d.total, 3, plus=True)} beyond one that sees the truth"
        + (f"; {percent(share)} % of that is saved by training what was visited." if d.total.low > 0 else ".")
    ]
    if (gain := d.top_k_gain.get(10)) is not None and not math.isnan(gain.estimate):
        verdict = "worth" if gain.high < 0 else "not worth" if gain.low > 0 else "perhaps worth, perhaps not,"
        lines.append(
            f"With the ten best that it visited trained, it is {verdict} its cost: normalised regret"
            f" {limits(gain, 3, plus=True)} against a search that trains directly for the same money."
        )
    return lines


def limits(interval: Interval, places: int = 2, *, plus: bool = False) -> str:
    """`0.62 [0.58, 0.66]`."""
    estimate = signed(interval.estimate, places, plus=plus)
    if math.isnan(interval.low):
        return estimate
    return f"{estimate} [{signed(interval.low, places, plus=plus)}, {signed(interval.high, places, plus=plus)}]"
