"""Do the ingredients of training matter more than architectures? Variance of quality over architectures x pipelines.

Values are Y (A, P, S): architectures, pipelines, training seeds; oriented, higher is better. The model is
y = mu + a + p + ap + e. Its components are those of the table's own test set: what differs between architectures
because of the test examples drawn counts as architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..statistics import Interval
from ..statistics.values import Result, Vector, checked
from ..words import percent
from .pipelines import (
    Bootstrap,
    Choice,
    Spread,
    Transfer,
    choices,
    median_beats_top,
    over_architectures,
    spread,
    transfers,
)

SOURCES = ("arch", "pipe", "arch_pipe", "seed")


@dataclass(frozen=True, slots=True)
class Components(Result):
    """Variance components by the method of moments; raw values may be negative, their shares are then 0.

    Attributes:
        arch: Between architectures.
        pipe: Between pipelines.
        arch_pipe: Interaction: what a pipeline does for one architecture and not for another.
        seed: Between trainings of one architecture under one pipeline.
        shared: The part of `seed` that the trainings of one architecture with one seed number have in common under
            all pipelines; 0 where it was not asked for.
        shares: Of arch, pipe, arch_pipe and seed in their sum.
        n: Architectures.
        reason: Why something is NaN, else empty.
    """

    arch: float
    pipe: float
    arch_pipe: float
    seed: float
    shared: float
    shares: Mapping[str, float]
    n: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Components with intervals, over all architectures or among the best.

    Attributes:
        scope: `all`, or `top`: the best by the mean over pipelines.
        scale: `metric` as it is, or `logit` of the accuracy.
        n: Architectures decomposed.
        components: As `Components`, by name: arch, pipe, arch_pipe, seed, shared.
        shares: Of arch, pipe, arch_pipe, seed.
        lead: Share of architectures minus share of pipelines.
    """

    scope: Literal["all", "top"]
    scale: Literal["metric", "logit"]
    n: int
    components: Mapping[str, Interval]
    shares: Mapping[str, Interval]
    lead: Interval


@dataclass(frozen=True, slots=True)
class VarianceAudit:
    """Architectures against the ingredients of training, on one table.

    Attributes:
        table, space, metric: Of the table.
        pipelines: Names.
        base, best, cheapest: The reference, the one of highest mean, the one whose trainings cost least (of equal
            ones the base, or the first).
        n: Architectures.
        seeds: Training seeds.
        top: Share that `top` looks at.
        trained_on: Training examples; None if unknown.
        decompositions: Over all and among the best, on the scale of the metric and, for accuracies, of the logit.
        spread: Range of pipeline means beside the spread of architectures.
        median_beats_top: Probability that a median architecture under the best pipeline beats one of the best 1 %
            under another, by the name of that; the base is the one to look at.
        transfers: For each pair of pipelines.
        choices: For each pipeline.
    """

    table: str
    space: str
    metric: str
    pipelines: tuple[str, ...]
    base: str
    best: str
    cheapest: str
    n: int
    seeds: int
    top: float
    trained_on: int | None
    decompositions: tuple[Decomposition, ...]
    spread: Spread
    median_beats_top: Mapping[str, Interval]
    transfers: tuple[Transfer, ...]
    choices: tuple[Choice, ...]

    def decomposition(self, scope: str, scale: str = "metric") -> Decomposition:
        """The one of that scope and scale; KeyError without."""
        for found in self.decompositions:
            if (found.scope, found.scale) == (scope, scale):
                return found
        raise KeyError((scope, scale))


def components(Y: npt.ArrayLike, *, shared_seeds: bool = False) -> Components:
    """Estimate the variance components of a balanced design from the mean squares of its analysis of variance.

    `arch = (MS_a - MS_ap) / (P S)`, `pipe = (MS_p - MS_ap) / (A S)`, `arch_pipe = (MS_ap - MS_e) / S`,
    `seed = MS_e` (Searle, Casella and McCulloch 1992, chapter 4).

    These take all trainings for independent. Under common random numbers they are not: seed s of an architecture
    starts from the same weights under every pipeline, and what its trainings share would count as architecture and
    be missing from the interaction, `shared / S` each. `shared_seeds` estimates it from the mean squares of seeds
    within architectures and puts it right; without sharing that is unbiased too, and a little less exact.

    Args:
        Y: (A, P, S) values.
        shared_seeds: Whether seed s of an architecture shares its noise between pipelines.

    Returns:
        The components; all NaN with a reason under 3 architectures or 2 pipelines. With one seed, interaction and
        noise cannot be told apart: `arch_pipe`, `seed` and the shares are NaN.

    Raises:
        ValueError: Not three dimensions, NaN or infinite values.
    """
    values = checked(Y, "Y", ndim=3)
    A, P, S = values.shape
    raw = _raw(values, shared_seeds)
    reason = f"needs 3 architectures and 2 pipelines, got {A} and {P}" if A < 3 or P < 2 else ""
    if not reason and S < 2:
        reason = "one training seed: interaction and noise cannot be told apart"
    shares = dict(zip(SOURCES, _shares(raw).tolist(), strict=True))
    if not reason and np.isnan(shares["arch"]):
        reason = "no variance"
    arch, pipe, arch_pipe, seed, shared = raw.tolist()
    return Components(arch, pipe, arch_pipe, seed, shared, shares, A, reason)


def empirical_logit(accuracies: npt.ArrayLike, examples: int) -> Vector:
    """Log odds of counts out of `examples`, half a count added to either side (Cox 1970): finite for 0 and 1 too.

    Raises:
        ValueError: NaN, or accuracies outside [0, 1].
    """
    values = checked(accuracies, "accuracies", ndim=None)
    if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):
        raise ValueError(f"accuracies must lie in [0, 1], got {values.min()} to {values.max()}")
    right = values * examples
    odds: Vector = np.log((right + 0.5) / (examples - right + 0.5))
    return odds


def variance_audit(
    Y: npt.ArrayLike,
    *,
    table: str,
    space: str,
    metric: str,
    pipelines: tuple[str, ...],
    costs: tuple[float, ...],
    base: str,
    counts: npt.ArrayLike,
    level: float = 0.95,
    top: float = 0.2,
    examples: int | None = None,
    trained_on: int | None = None,
) -> VarianceAudit:
    """Decompose the variance of quality and make the statements of `pipelines`.

    The best are chosen by the mean over pipelines of one training seed and decomposed by the other seeds, every seed
    choosing once, and components are averaged. So the noise that lifted an architecture into the choice is not among
    what is decomposed; chosen by all seeds, architectures would look more alike than they are. What is described are
    architectures that one training per pipeline takes for the best. It needs three seeds. In simulations of lumpy
    spaces (120 architectures, 4 pipelines, 3 seeds) intervals of nominal 95 % covered 93 to 96 % over all architectures
    and 90 to 96 % among the best fifth.

    Args:
        Y: (A, P, S), accuracies as fractions; seed s of an architecture may share its noise between pipelines.
        table: Name.
        space: Full name.
        metric: Of the task.
        pipelines: P names.
        costs: (P,) of a median full training, in one unit.
        base: Name of the reference pipeline.
        counts: (R, A) how often each architecture is in each bootstrap resample; rows sum to A.
        level: Nominal coverage.
        top: Share that the best are.
        examples: Test examples behind an accuracy, for the logit scale; None for other metrics.
        trained_on: Training examples, for the answer's reach.

    Raises:
        ValueError: Shapes that do not fit, NaN, an unknown base.
    """
    values = checked(Y, "Y", ndim=3)
    A, P, S = values.shape
    if len(pipelines) != P or len(costs) != P or base not in pipelines:
        raise ValueError(f"Y has {P} pipelines; got names {pipelines}, {len(costs)} costs and base {base!r}")
    scales: dict[Literal["metric", "logit"], Vector] = {"metric": values}
    if examples is not None:
        scales["logit"] = empirical_logit(values, examples)
    found = []
    for scale, on_scale in scales.items():
        bootstrap = over_architectures(on_scale, counts, level)
        found.append(_decomposition(bootstrap, "all", scale, A, _raw))
        found.append(_decomposition(bootstrap, "top", scale, _best(A, top), partial(_raw_of_top, top=top)))
    bootstrap = over_architectures(values, counts, level)
    best, start = int(values.mean(axis=(0, 2)).argmax()), pipelines.index(base)
    cheapest = start if costs[start] == min(costs) else int(np.argmin(costs))
    return VarianceAudit(
        table, space, metric, pipelines, base, pipelines[best], pipelines[cheapest], A, S, top, trained_on,
        tuple(found), spread(bootstrap), median_beats_top(bootstrap, pipelines, best=best),
        transfers(bootstrap, pipelines), choices(bootstrap, pipelines, costs, best=best),
    )  # fmt: skip


def answer(audit: VarianceAudit) -> str:
    """The survey's question answered in one sentence, and a second one on how far the answer reaches."""
    whole, best = audit.decomposition("all"), audit.decomposition("top")
    among = f"among the best {percent(audit.top)} % ({best.n})"
    said = (
        f"On {audit.table} ({audit.n} architectures, {len(audit.pipelines)} pipelines, {audit.seeds} seeds),"
        f" architectures explain {_share(whole, 'arch')} of the variance of test {audit.metric} and pipelines"
        f" {_share(whole, 'pipe')}: {_who(whole)}; "
    )
    if np.isnan(best.lead.estimate):
        said += f"{among} nothing can be said: {best.lead.reason}."
    else:
        said += f"{among} it is {_share(best, 'arch')} and {_share(best, 'pipe')}: {_who(best)}."
    data = f" trained on {audit.trained_on:,} examples" if audit.trained_on else ""
    return (
        f"{said} This holds for these pipelines ({', '.join(audit.pipelines)}) and architectures of {audit.space}"
        f"{data}; other ingredients, spaces or amounts of data may be answered otherwise."
    )


def _raw(Y: Vector, shared_seeds: bool = True) -> Vector:
    """Estimates of arch, pipe, arch_pipe, seed, shared."""
    A, P, S = Y.shape
    if A < 3 or P < 2:
        return np.full(5, np.nan)
    Z = Y - Y.mean()
    cells = Z.mean(axis=2)
    a, p = cells.mean(axis=1), cells.mean(axis=0)
    ms_a = P * S * float(a @ a) / (A - 1)
    ms_p = A * S * float(p @ p) / (P - 1)
    ms_ap = S * float(((cells - a[:, None] - p) ** 2).sum()) / ((A - 1) * (P - 1))
    arch, pipe = (ms_a - ms_ap) / (P * S), (ms_p - ms_ap) / (A * S)
    if S < 2:
        return np.array([arch, pipe, np.nan, np.nan, np.nan])
    noise = Z - cells[:, :, None]
    common = noise.mean(axis=1)
    seed = float((noise**2).sum()) / (A * P * (S - 1))
    if not shared_seeds:
        return np.array([arch, pipe, (ms_ap - seed) / S, seed, 0.0])
    ms_common = P * float((common**2).sum()) / (A * (S - 1))
    ms_own = float(((noise - common[:, None, :]) ** 2).sum()) / (A * (P - 1) * (S - 1))
    shared = (ms_common - ms_own) / P
    return np.array([arch - shared / S, pipe, (ms_ap - seed + shared) / S, seed, shared])


def _raw_of_top(Y: Vector, *, top: float) -> Vector:
    S = Y.shape[2]
    if S < 3:
        return np.full(5, np.nan)
    n = _best(len(Y), top)
    chosen = [np.argsort(-Y[:, :, s].mean(axis=1), kind="stable")[:n] for s in range(S)]
    found: Vector = np.mean([_raw(np.delete(Y, s, axis=2)[rows]) for s, rows in enumerate(chosen)], axis=0)
    return found


def _best(architectures: int, top: float) -> int:
    return min(architectures, max(3, round(top * architectures)))


def _shares(raw: Vector) -> Vector:
    positive = np.maximum(raw[: len(SOURCES)], 0.0)
    total = positive.sum()
    return positive / total if total > 0 else np.full(len(SOURCES), np.nan)


def _decomposition(
    bootstrap: Bootstrap,
    scope: Literal["all", "top"],
    scale: Literal["metric", "logit"],
    n: int,
    raw_of: Callable[[Vector], Vector],
) -> Decomposition:
    def statistic(Y: Vector) -> Vector:
        raw = raw_of(Y)
        shares = _shares(raw)
        return np.array([*raw, *shares, shares[0] - shares[1]])

    *intervals, lead = bootstrap(statistic)
    raw, shares = intervals[:5], intervals[5:]
    named = dict(zip((*SOURCES, "shared"), raw, strict=True))
    return Decomposition(scope, scale, n, named, dict(zip(SOURCES, shares, strict=True)), lead)


def _share(decomposition: Decomposition, source: str) -> str:
    share = decomposition.shares[source]
    return f"{percent(share.estimate)} % [{percent(share.low)}, {percent(share.high)}]"


def _who(decomposition: Decomposition) -> str:
    lead = decomposition.lead
    if lead.low > 0:
        return "architectures matter more"
    return "training ingredients matter more" if lead.high < 0 else "neither can be said to matter more"
