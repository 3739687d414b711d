"""The run loop. Only here do a strategy, an estimator and a budget meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
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
        fidelity, highest, index = o.proposal.fidelity, self._fidelity, self.evaluations
        self.evaluations += 1
        if o.status != "ok" or isnan(o.score):
            return
        # Most runs have one fidelity, one object; comparing two field by field costs more than all else here.
        if fidelity is not highest and highest is not None and fidelity < highest:
            return
        if (fidelity is not highest and (highest is None or fidelity > highest)) or o.score > self.incumbents[-1].score:
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
        observations = estimator.estimate(proposals)
        if len(observations) != len(proposals):
            raise ValueError(f"estimator: gave {len(observations)} observations for {len(proposals)} proposals")
        for observation in observations:
            if not ledger.charge(observation.costs):
                break
            run.see(observation, ledger.spent)
            told.append(observation)
        if told:
            strategy.tell(told)
        run.calls.append(Call(batch, proposals, tuple(told)))
        if len(told) < len(proposals):
            return run, "budget"
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
    run, free = Trajectory(), 0
    while not ledger.exhausted:
        before = ledger.spent
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
        free = free + 1 if ledger.spent == before else 0
        if free >= STALLED_AFTER:
            return run, "stalled"
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
            pairs = zip_longest(call.proposals, proposals)
            expected, got = next((old, new) for old, new in pairs if old != new)
            raise DeterminismFault(f"resuming: the strategy proposed {got} where it had proposed {expected}")
        rest = proposals[len(call.observations) :]
        return [*call.observations, *(self._inner.estimate(rest) if rest else ())]


class Deduplicated:
    """An estimator that answers repeated proposals from memory, at no cost (the study option `dedupe`).

    Args:
        inner: Answers and charges what is new.
        recorded: Calls of an interrupted run, known from the start.
    """

    def __init__(self, inner: PerformanceEstimator, recorded: Iterable[Call] = ()) -> None:
        self._inner = inner
        self._known = {o.proposal: replace(o, costs=()) for call in recorded for o in call.observations}

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
