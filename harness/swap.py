"""Searches on recorded scores: the same strategy and seeds with an estimator, and with the truth in its place.

These are counterfactuals for an audit, after the seal was opened: **the strategies see test values here**, those of
the oracle, which no run of a study ever does. Nothing of them is written to a run store, and what they find is not a
result of a search but a measure of the estimator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import isfinite, nan

import numpy as np

from ..methods import registry
from ..protocols import Architecture, Budget, Cost, Observation, Proposal, SearchSpace, Setting, Traits
from ..protocols.evidence import Scores, Searches, Trails, Truth
from ..protocols.streams import generator, integer
from ..tabular.facts import quality
from .ledger import Ledger
from .loop import search
from .study import Method

Progress = Callable[[float, float], None]

SEEDS = 100
MOST_DECISIONS = 200
FEWEST_DECISIONS = 20
MOST_TRAINED = 10
"""The oracle's budget at equal cost allows for the training of so many picks of the estimate."""


@dataclass(slots=True)
class ScoreColumn:
    """An estimator that answers from memory.

    Attributes:
        rows: From an architecture to its place in `scores` and `costs`.
        scores: (N,) higher is better; what is not a finite number is a crash.
        costs: (N,) of an answer.
        asked: The rows that were asked for, in order.
    """

    rows: Callable[[Architecture], int]
    scores: Sequence[float]
    costs: Sequence[float]
    asked: list[int] = field(default_factory=list)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Nothing to do."""
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """The recorded scores."""
        return [self._answer(p) for p in proposals]

    def _answer(self, p: Proposal) -> Observation:
        row = self.rows(p.architecture)
        self.asked.append(row)
        score, costs = self.scores[row], (Cost("proxy", self.costs[row]),)
        if isfinite(score):
            return Observation(p, score, costs)
        return Observation(p, nan, costs, status="crashed", reason="no score was recorded")


def default_decisions(size: int) -> int:
    """A tenth of the space, from 20 to 200.

    A search that visits much of a small space finds its best whatever guides it, and hides guidance errors: with the
    truth of the 729 architectures of `nb201-clutter`, 63 of 100 searches of 200 evaluations end at the very best, of 72
    evaluations 25. Below 20 a population of 10 has hardly begun to evolve.
    """
    return min(MOST_DECISIONS, max(FEWEST_DECISIONS, size // 10))


def swap(
    space: SearchSpace,
    rows: Callable[[Architecture], int],
    truth: Truth,
    estimators: Sequence[Scores],
    *,
    strategies: Sequence[str] = ("aging_evolution",),
    seeds: Sequence[int] = range(SEEDS),
    decisions: int | None = None,
    progress: Progress | None = None,
) -> Searches:
    """Search with each estimator and with the truth, by the same strategies from the same seeds.

    Search i asks column i mod K of an estimator with K seeds. The strategy's own seed is the one that a run of a
    study with that root seed has. Repeated visits are paid for, as they are in a study by default.

    Args:
        space: Of the table.
        rows: From an architecture to its row of `truth`.
        truth: Of a complete table.
        estimators: With a score, or a failure, for every row.
        strategies: Registered names of black-box strategies, `name[parameter=value]`.
        seeds: Of the searches.
        decisions: Evaluations of each; see `default_decisions`.
        progress: Called with (searches done, searches in all).

    Raises:
        ValueError: The table is a sample or lacks trainings, an estimator was not asked for every architecture, a
            strategy is no black-box one, or there is no seed or no decision; one line.
    """
    f = _oracle(truth)
    decisions = default_decisions(len(f)) if decisions is None else decisions
    _check(f, estimators, decisions, seeds)
    training = truth.cost / np.median(truth.cost)
    trails: dict[tuple[str, str], Trails] = {}
    oracle: dict[str, Trails] = {}
    step = _counter(progress, len(strategies) * (len(estimators) + 1) * len(seeds))
    for label in strategies:
        walk, spent = _Walk(_method(label), space, rows, tuple(seeds), step), np.zeros(len(seeds))
        for e in estimators:
            found = trails[label, e.name] = _with_estimator(walk, e, decisions)
            spent = np.fmax(spent, found.preparation + found.costs.sum(1))
        oracle[label] = _with_truth(walk, f, training, decisions, spent)
    return Searches(decisions, tuple(seeds), f, training, {e.name: e.values for e in estimators}, oracle, trails)


def noisy(truth: Truth, sds: Sequence[float], columns: int, *, root: int = 0) -> dict[float, Scores]:
    """Estimators of known quality: the truth plus normal noise.

    All deviations scale the same draws, so that a curve over them is smooth.

    Args:
        truth: Of a complete table.
        sds: Deviations of the noise, in deviations of the truth between architectures.
        columns: Draws of each; one for each search makes searches independent.
        root: Of the stream `audit-noise`.

    Returns:
        Deviation to its scores, `noise[sd=0.5]`.
    """
    f = _oracle(truth)
    drawn = generator(root, "audit-noise", truth.digest).standard_normal((len(f), columns))
    unit = float(np.std(f[np.isfinite(f)]))
    blank = np.zeros((len(f), columns), bool)
    return {
        sd: Scores(
            name=f"noise[sd={sd:g}]", source="truth and noise", traits=Traits(accuracy_scale=True, deterministic=False),
            values=f[:, None] + sd * unit * drawn, asked=np.ones(len(f), bool), fitted=blank, reasons={}, costs=None,
            preparation=np.zeros(columns), unit="", full=nan,
        )
        for sd in sds
    }  # fmt: skip


def _oracle(truth: Truth) -> np.ndarray:
    """(N,) mean over training seeds, higher is better; -inf where one diverged."""
    if not truth.complete:
        raise ValueError(f"swap: {truth.table} is a sample of {truth.size} architectures; searches need all of them")
    f = quality(truth.values)
    if np.isnan(f).any():
        raise ValueError(f"swap: {truth.table} has no training of {int(np.isnan(f).sum())} architectures; "
                         "a search may propose any of them")  # fmt: skip
    return f if truth.higher_is_better else -f


def _check(f: np.ndarray, estimators: Sequence[Scores], decisions: int, seeds: Sequence[int]) -> None:
    if decisions < 1 or not seeds:
        raise ValueError(f"swap: needs a decision and a seed, got {decisions} decisions and {len(seeds)} seeds")
    for e in estimators:
        if len(e.values) != len(f) or not e.asked.all():
            raise ValueError(
                f"swap: {e.name} was asked for {int(e.asked.sum())} of {len(f)} architectures; "
                "a search may propose any of them"
            )


def _counter(progress: Progress | None, total: int) -> Callable[[], None]:
    done = count(1)
    return lambda: progress(next(done), total) if progress else None


@dataclass(frozen=True, slots=True)
class _Walk:
    """One strategy, ready to search from each of the seeds."""

    method: Method
    space: SearchSpace
    rows: Callable[[Architecture], int]
    seeds: tuple[int, ...]
    step: Callable[[], None]

    def visit(self, i: int, scores: Sequence[float], budget: Budget, costs: Sequence[float]) -> list[int]:
        """The rows that search i visits."""
        strategy = registry.load("strategies", self.method.name)(
            self.space, seed=integer(self.seeds[i], "strategy", self.method.name), **self.method.params
        )
        column = ScoreColumn(self.rows, scores, costs)
        run, _ = search(strategy, column, self.space, Ledger(budget))
        return column.asked[: run.evaluations]


def _method(label: str) -> Method:
    method = Method.read(label, "strategies")
    found = registry.load("strategies", method.name)
    if hasattr(found, "train_epoch"):
        raise ValueError(f"strategies: {label} shares weights and asks no estimator; use a black-box strategy")
    return Method(label, method.name, registry.parameters(found, method.params, f"strategy {method.name!r}"))


def _with_estimator(walk: _Walk, e: Scores, decisions: int) -> Trails:
    columns = np.arange(len(walk.seeds)) % e.values.shape[1]
    answers, one = [e.values[:, k].tolist() for k in range(e.values.shape[1])], [1.0] * len(e.values)
    found = []
    for i, k in enumerate(columns.tolist()):
        found.append(walk.visit(i, answers[k], Budget("evaluations", decisions), one))
        walk.step()
    rows = _padded(found)
    each = np.full(rows.shape, nan) if e.costs is None else e.costs[rows, columns[:, None]] / e.full
    return Trails(rows, columns, np.where(rows < 0, 0.0, each), e.preparation[columns] / e.full)


def _with_truth(walk: _Walk, f: np.ndarray, training: np.ndarray, decisions: int, spent: np.ndarray) -> Trails:
    """The oracle's searches; where an estimate was dearer than all its decisions, they go on until they cost as much.

    A longer search begins as a shorter one, since strategies know no budget.
    """
    answers, one, each = f.tolist(), [1.0] * len(f), training.tolist()
    limits = np.minimum(spent + MOST_TRAINED * training.max(), training.sum())
    found = []
    for i, limit in enumerate(limits.tolist()):
        visited = walk.visit(i, answers, Budget("evaluations", decisions), one)
        if training[visited].sum() < limit:
            visited = walk.visit(i, answers, Budget("flops", limit), each)
        found.append(visited)
        walk.step()
    rows = _padded(found)
    none = np.zeros(len(rows))
    return Trails(rows, none.astype(np.int64), np.where(rows < 0, 0.0, training[rows]), none)


def _padded(found: Sequence[Sequence[int]]) -> np.ndarray:
    rows = np.full((len(found), max(len(visited) for visited in found)), -1, np.int64)
    for line, visited in zip(rows, found, strict=True):
        line[: len(visited)] = visited
    return rows
