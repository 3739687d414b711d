from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isnan, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasbed.harness.faults import DeterminismFault
from nasbed.harness.ledger import Ledger
from nasbed.harness.loop import STALLED_AFTER, Deduplicated, Replayed, Trajectory, search
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.aging_evolution import AgingEvolution
from nasbed.methods.strategies.random import RandomSearch
from nasbed.protocols import (
    Architecture,
    Budget,
    Call,
    Cost,
    Fidelity,
    Observation,
    Proposal,
    SearchSpace,
    Setting,
)

SPACE = Synthetic(genes=3, values=3)


class Listed:
    """Asks for a fixed list of proposals and keeps what it is told."""

    def __init__(self, proposals: Sequence[Proposal]) -> None:
        self.left = list(proposals)
        self.told: list[Observation] = []

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        taken, self.left = self.left[:n], self.left[n:]
        return taken

    def tell(self, observations: Sequence[Observation]) -> None:
        self.told += observations


class Scripted:
    """Answers with a fixed list of observations, whatever is asked."""

    def __init__(self, answers: Sequence[Observation]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        given = [replace(self.answers[self.asked + i], proposal=p) for i, p in enumerate(proposals)]
        self.asked += len(proposals)
        return given


class Truth(Scripted):
    """The true score at a cost of 1, counting trainings."""

    def __init__(self, cost: float = 1.0) -> None:
        self.cost, self.asked = cost, 0

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        self.asked += len(proposals)
        return [Observation(p, SPACE.truth(p.architecture), (Cost("train", self.cost),)) for p in proposals]


def at(index: int, epochs: float = inf) -> Proposal:
    return Proposal(SPACE.at(index), Fidelity(epochs))


def seen(proposal: Proposal, score: float, cost: float = 1.0, status: str = "ok") -> Observation:
    return Observation(proposal, score, (Cost("train", cost),), status=status)  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1) | st.just(nan)), max_size=40),
    st.floats(0, 500),
    st.integers(1, 5),
)
def test_the_budget_is_never_exceeded(answers: list[tuple[float, float]], limit: float, batch: int) -> None:
    proposals = [at(i % SPACE.size) for i in range(len(answers))]
    observations = [seen(p, score, cost) for p, (cost, score) in zip(proposals, answers, strict=True)]
    strategy, ledger = Listed(proposals), Ledger(Budget("seconds", limit))
    run, stopped = search(strategy, Scripted(observations), SPACE, ledger, batch=batch)
    recorded = [o for call in run.calls for o in call.observations]
    spent = sum(o.costs[0].amount for o in recorded)
    assert ledger.spent <= limit
    assert spent == pytest.approx(ledger.spent)
    assert repr(recorded) == repr(strategy.told) == repr(observations[: len(recorded)])
    assert run.evaluations == len(recorded)
    if stopped == "exhausted":
        assert len(recorded) == len(observations)
        assert strategy.left == []
    elif not ledger.exhausted:  # the next one would have overrun
        assert ledger.spent + observations[len(recorded)].costs[0].amount > limit
    for incumbent in run.incumbents:
        assert incumbent.cost == pytest.approx(sum(o.costs[0].amount for o in recorded[: incumbent.evaluation + 1]))


def test_an_overrun_is_neither_told_nor_counted_and_ends_the_run() -> None:
    proposals = [at(i) for i in range(4)]
    answers = [seen(p, 0.1 * i, cost) for i, (p, cost) in enumerate(zip(proposals, (3, 3, 9, 1), strict=True))]
    strategy, ledger = Listed(proposals), Ledger(Budget("epochs", 10.0))
    run, stopped = search(strategy, Scripted(answers), SPACE, ledger, batch=2)
    assert (stopped, ledger.spent) == ("budget", 6.0)
    assert strategy.told == answers[:2]
    assert run.calls == [Call(2, (at(0), at(1)), tuple(answers[:2])), Call(2, (at(2), at(3)), ())]
    assert run.incumbents[-1].architecture == SPACE.at(1)


def test_what_fits_of_a_batch_is_told_and_counted() -> None:
    proposals = [at(i) for i in range(3)]
    answers = [seen(p, 0.5 + i, 4.0) for i, p in enumerate(proposals)]
    strategy, ledger = Listed(proposals), Ledger(Budget("epochs", 10.0))
    run, stopped = search(strategy, Scripted(answers), SPACE, ledger, batch=3)
    assert (stopped, ledger.spent, run.evaluations) == ("budget", 8.0, 2)
    assert strategy.told == list(run.calls[0].observations) == answers[:2]


# The incumbent.

events = st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.2, 0.3, nan]), st.sampled_from(["ok", "ok", "crashed"]))


@settings(max_examples=150, deadline=None)
@given(st.lists(events, max_size=25), st.booleans())
def test_the_incumbent_is_the_best_of_the_highest_fidelity_seen(
    script: list[tuple[int, float, str]], shared: bool
) -> None:
    fidelities = [Fidelity(1.0), Fidelity(2.0), Fidelity()]
    run = Trajectory()
    usable: list[tuple[Fidelity, float, int]] = []
    for i, (level, score, status) in enumerate(script):
        fidelity = fidelities[level] if shared else replace(fidelities[level])  # equal, and not identical
        proposal = Proposal(SPACE.at(i), fidelity)
        run.see(seen(proposal, score, status=status), float(i))
        if status == "ok" and not isnan(score):
            usable.append((fidelity, score, i))
        # A second implementation, from the whole history: highest fidelity, then score, then the earliest.
        best = max(usable, key=lambda t: (t[0], t[1], -t[2]), default=None)
        if best is None:
            assert run.incumbents == []
        else:
            assert (run.incumbents[-1].evaluation, run.incumbents[-1].score) == (best[2], best[1])
            assert run.incumbents[-1].architecture == SPACE.at(best[2])
    assert run.evaluations == len(script)
    evaluations = [i.evaluation for i in run.incumbents]
    assert evaluations == sorted(set(evaluations))


# How a run ends.


def test_free_evaluations_stall_a_run() -> None:
    estimator, ledger = Truth(cost=0.0), Ledger(Budget("epochs", 1.0))
    run, stopped = search(RandomSearch(SPACE, seed=0), estimator, SPACE, ledger, batch=7)
    assert stopped == "stalled"
    assert STALLED_AFTER <= run.evaluations < STALLED_AFTER + 7


def test_a_paid_evaluation_starts_the_count_of_free_ones_again() -> None:
    costs = [0.0] * (STALLED_AFTER - 1) + [1.0] + [0.0] * (STALLED_AFTER + 5)
    answers = [seen(at(0), 0.5, c) for c in costs]
    run, stopped = search(RandomSearch(SPACE, seed=0), Scripted(answers), SPACE, Ledger(Budget("epochs", 5.0)))
    assert (stopped, run.evaluations) == ("stalled", 2 * STALLED_AFTER)


def test_a_strategy_with_nothing_left_exhausts_the_run() -> None:
    ledger = Ledger(Budget("evaluations", 1000.0))
    run, stopped = search(RandomSearch(SPACE, seed=0, replace=False), Truth(), SPACE, ledger)
    assert (stopped, run.evaluations, ledger.spent) == ("exhausted", SPACE.size, SPACE.size)
    assert run.incumbents[-1].architecture == SPACE.optimum()


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (Architecture("synthetic", (0, 0, 9)), "gene 2 .* is 9; allowed: 0, 1, 2"),
        (Architecture("synthetic", (0, 0)), "has 2 genes; allowed: 3"),
        (Architecture("nb201", (0, 0, 0)), "is of the space 'nb201'; allowed: 'synthetic'"),
    ],
)
def test_a_proposal_outside_the_space_is_an_error_and_is_not_paid(architecture: Architecture, message: str) -> None:
    estimator, ledger = Truth(), Ledger(Budget("epochs", 5.0))
    with pytest.raises(ValueError, match=message):
        search(Listed([at(0), Proposal(architecture)]), estimator, SPACE, ledger, batch=2)
    assert (estimator.asked, ledger.spent) == (0, 0.0)


@pytest.mark.parametrize("answers", [0, 1, 3])
def test_an_estimator_that_gives_too_few_or_too_many_answers_is_an_error(answers: int) -> None:
    class Wrong(Truth):
        def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
            return [seen(at(0), 0.5)] * answers

    with pytest.raises(ValueError, match=f"estimator: gave {answers} observations for 2 proposals"):
        search(RandomSearch(SPACE, seed=0), Wrong(), SPACE, Ledger(Budget("epochs", 5.0)), batch=2)


def test_watch_sees_every_call_that_can_be_continued() -> None:
    calls: list[Call] = []
    ledger = Ledger(Budget("epochs", 7.5))
    run, _ = search(RandomSearch(SPACE, seed=0), Truth(), SPACE, ledger, batch=2, watch=calls.append)
    assert calls == run.calls[:-1]
    assert len(run.calls[-1].observations) == 1


# Repeats for free.


def test_dedupe_pays_once_and_tells_the_same() -> None:
    proposals = [at(0), at(1), at(0), at(0, 2.0), at(1), at(2)]
    inner, ledger = Truth(), Ledger(Budget("epochs", 100.0))
    strategy = Listed(proposals)
    run, _ = search(strategy, Deduplicated(inner), SPACE, ledger, batch=3)
    assert inner.asked == 4  # another fidelity is another evaluation
    assert ledger.spent == 4.0
    assert [len(o.costs) for c in run.calls for o in c.observations] == [1, 1, 0, 1, 0, 1]
    assert [o.score for o in strategy.told] == [SPACE.truth(p.architecture) for p in proposals]


# Going on where a run was interrupted.


def _run(recorded: Sequence[Call], limit: float = 40.0, batch: int = 3, dedupe: bool = False) -> tuple[object, Truth]:
    inner = Truth()
    estimator = Replayed(Deduplicated(inner, recorded) if dedupe else inner, recorded)
    strategy = AgingEvolution(SPACE, seed=5, population_size=6, sample_size=3)
    ledger = Ledger(Budget("epochs", limit))
    run, stopped = search(strategy, estimator, SPACE, ledger, batch=batch)
    return (run.calls, run.incumbents, stopped, ledger.spent, ledger.accounts), inner


@pytest.mark.parametrize("dedupe", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_replayed_run_continues_exactly(batch: int, dedupe: bool) -> None:
    whole, trained = _run([], limit=18.0, batch=batch, dedupe=dedupe)
    calls: list[Call] = whole[0]  # type: ignore[index]
    for cut in range(0, len(calls) - 1, 3):
        again, inner = _run(calls[:cut], limit=18.0, batch=batch, dedupe=dedupe)
        assert again == whole
        paid = sum(bool(o.costs) for call in calls[:cut] for o in call.observations)
        assert inner.asked == trained.asked - paid  # nothing recorded is trained again


def test_a_replay_that_differs_is_a_fault_that_names_the_difference() -> None:
    whole, _ = _run([])
    calls: list[Call] = list(whole[0])  # type: ignore[index]
    first, second, third = calls[2].proposals
    other = Proposal(SPACE.at((SPACE.index(second.architecture) + 1) % SPACE.size))
    calls[2] = replace(calls[2], proposals=(first, other, third))
    with pytest.raises(DeterminismFault) as fault:
        _run(calls)
    assert f"proposed {second} where it had proposed {other}" in str(fault.value)


def test_a_replay_with_fewer_proposals_is_a_fault() -> None:
    whole, _ = _run([])
    with pytest.raises(DeterminismFault):
        _run(whole[0], batch=2)  # type: ignore[index]
