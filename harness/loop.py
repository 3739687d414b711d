"""The run loop. Only here do a strategy, an estimator and a budget meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan

from ..protocols import (
    Call,
    Cost,
    Fidelity,
    Incumbent,
    Observation,
    PerformanceEstimator,
    Proposal,
    SearchSpace,
    SearchStrategy,
    Setting,
    Stopped,
    WeightSharingStrategy,
)
from .faults import DeterminismFault
from .ledger import Ledger

STALLED_AFTER = 10_000
"""Evaluations in a row that cost nothing, after which a run is ended: it would never reach its budget."""

Watch = Callable[[Call], None]


@dataclass(slots=True)
class Trajectory:
    """What a run leaves: its calls, and every change of the incumbent."""

    calls: list[Call] = field(default_factory=list)
    incumbents: list[Incumbent] = field(default_factory=list)
    evaluations: int = 0
    _fidelity: Fidelity | None = None

    def see(self, o: Observation, cost: float) -> None:
        """The best score at the highest fidelity seen so far is the incumbent; ties go to the earlier one."""
        fidelity, index = o.proposal.fidelity, self.evaluations
        self.evaluations += 1
        if o.status != "ok" or isnan(o.score) or (self._fidelity is not None and fidelity < self._fidelity):
            return
        if self._fidelity is None or fidelity > self._fidelity or o.score > self.incumbents[-1].score:
            self._fidelity = fidelity
            self.incumbents.append(Incumbent(index, cost, o.proposal.architecture, o.score))


def search(
    strategy: SearchStrategy,
    estimator: PerformanceEstimator,
    space: SearchSpace,
    ledger: Ledger,
    *,
    batch: int = 1,
    watch: Watch | None = None,
) -> tuple[Trajectory, Stopped]:
    """Run a black-box strategy until its budget is spent.

    An evaluation that would overrun the budget ends the run and is neither told nor counted.
    """
    run, free = Trajectory(), 0
    while not ledger.exhausted:
        proposals = tuple(strategy.ask(batch))
        if not proposals:
            return run, "exhausted"
        for proposal in proposals:
            space.check(proposal.architecture)
        told: list[Observation] = []
        before = ledger.spent
        for observation in estimator.estimate(proposals):
            if not ledger.charge(observation.costs):
                run.calls.append(Call(batch, proposals, tuple(told)))
                return run, "budget"
            run.see(observation, ledger.spent)
            told.append(observation)
        strategy.tell(told)
        run.calls.append(Call(batch, proposals, tuple(told)))
        if watch:
            watch(run.calls[-1])
        free = free + len(told) if ledger.spent == before else 0
        if free >= STALLED_AFTER:
            return run, "stalled"
    return run, "budget"


def search_by_sharing(
    strategy: WeightSharingStrategy, ledger: Ledger, *, watch: Watch | None = None
) -> tuple[Trajectory, Stopped]:
    """Run a weight-sharing strategy until its budget is spent: the same trajectory, one call per epoch."""
    run = Trajectory()
    while not ledger.exhausted:
        costs = tuple(strategy.train_epoch())
        if not costs:
            return run, "exhausted"
        if not ledger.charge(costs):
            return run, "budget"
        best = strategy.incumbent()
        if not run.incumbents or best != run.incumbents[-1].architecture:
            run.incumbents.append(Incumbent(run.evaluations, ledger.spent, best, nan))
        run.evaluations += 1
        run.calls.append(Call(0, (), (), costs))
        if watch:
            watch(run.calls[-1])
    return run, "budget"


class Replayed:
    """An estimator that answers from recorded calls first, so that a run goes on where it was interrupted.

    Raises DeterminismFault where the strategy proposes something else than it did.
    """

    def __init__(self, inner: PerformanceEstimator, recorded: Iterable[Call]) -> None:
        self._inner, self._recorded = inner, list(recorded)[::-1]

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """That of the estimator within."""
        return self._inner.prepare(space, setting, seed=seed)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """The recorded observations while there are some."""
        if not self._recorded:
            return self._inner.estimate(proposals)
        call = self._recorded.pop()
        if call.proposals != tuple(proposals):
            expected, got = call.proposals[0].architecture, proposals[0].architecture
            raise DeterminismFault(f"resuming: the strategy proposed {got} where it had proposed {expected}")
        rest = proposals[len(call.observations) :]
        return [*call.observations, *(self._inner.estimate(rest) if rest else ())]


class Deduplicated:
    """An estimator that answers repeated proposals from memory, at no cost (the study option `dedupe`)."""

    def __init__(self, inner: PerformanceEstimator) -> None:
        self._inner = inner
        self._known: dict[Proposal, Observation] = {}

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """That of the estimator within."""
        return self._inner.prepare(space, setting, seed=seed)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """New proposals are estimated and paid for, repeated ones are free."""
        answers: list[Observation] = []
        for p in proposals:
            if p in self._known:
                answers.append(self._known[p])
            else:
                answers += self._inner.estimate([p])
                self._known[p] = replace(answers[-1], costs=())
        return answers
