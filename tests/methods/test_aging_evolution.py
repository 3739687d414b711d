"""Aging evolution against Algorithm 1 written out again, and its invariants one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.aging_evolution import AgingEvolution
from nasbed.protocols import Architecture, Observation, Proposal, SearchSpace

SPACE = Synthetic(genes=5, values=4, epistasis=1)
CONDITIONAL = MLP(hidden=3, widths=(8, 16), activations=("relu", "tanh"))


def value(a: Architecture) -> float:
    return math.sin(sum((t + 1) * g for t, g in enumerate(a.genes)))


def search(strategy: AgingEvolution, n: int) -> list[Architecture]:
    history = []
    for _ in range(n):
        [p] = strategy.ask()
        history.append(p.architecture)
        strategy.tell([Observation(p, value(p.architecture))])
    return history


def algorithm_1(space: SearchSpace, rng: np.random.Generator, p: int, s: int, cycles: int, draw: str) -> list:
    """Real et al. 2019, Algorithm 1, with a list for the queue; `draw` picks the tournament."""
    population, history = [], []
    while len(population) < p:
        model = space.sample(rng)
        population.append((model, value(model)))
        history.append(model)
    while len(history) < cycles:
        if draw == "with":
            sample = [population[i] for i in rng.integers(p, size=s)]
        else:
            sample = [population[i] for i in rng.choice(p, s, replace=False)]
        parent = sample[0]
        for individual in sample[1:]:
            if individual[1] > parent[1]:
                parent = individual
        child = space.mutate(parent[0], rng)
        population.append((child, value(child)))
        history.append(child)
        del population[0]
        assert len(population) == p
    return history


@pytest.mark.parametrize("space", [SPACE, CONDITIONAL], ids=["synthetic", "mlp"])
@pytest.mark.parametrize("draw", ["with", "without"])
@pytest.mark.parametrize(("p", "s"), [(10, 3), (1, 1), (8, 8)])
def test_the_trace_is_that_of_algorithm_1(space: SearchSpace, p: int, s: int, draw: str) -> None:
    ours = search(AgingEvolution(space, seed=7, population_size=p, sample_size=s, draw=draw), 60)
    assert ours == algorithm_1(space, np.random.default_rng(7), p, s, 60, draw)


def test_the_first_p_are_the_samples_of_the_seed() -> None:
    rng = np.random.default_rng(3)
    assert search(AgingEvolution(SPACE, seed=3), 10) == [SPACE.sample(rng) for _ in range(10)]


@pytest.mark.parametrize("space", [SPACE, CONDITIONAL], ids=["synthetic", "mlp"])
def test_every_child_is_one_move_from_the_best_of_the_last_p(space: SearchSpace) -> None:
    """With S = P without replacement the parent is known: the best of the last P, a window that ages."""
    p = 6
    history = search(AgingEvolution(space, seed=1, population_size=p, sample_size=p, draw="without"), 80)
    for i in range(p, len(history)):
        window = history[i - p : i]
        top = max(map(value, window))
        parents = {a for a in window if value(a) == top}
        assert any(history[i] in space.neighbours(a) for a in parents)


def test_the_oldest_leaves_whatever_its_score() -> None:
    """The first individual beats everything; it is the parent of exactly the next P - 1 children, then gone."""
    p = 5
    strategy = AgingEvolution(SPACE, seed=2, population_size=p, sample_size=p, draw="without")
    [first] = strategy.ask()
    strategy.tell([Observation(first, 1e9)])
    children = []
    for i in range(3 * p):
        [proposal] = strategy.ask()
        if i >= p - 1:
            children.append(proposal.architecture)
        strategy.tell([Observation(proposal, -float(i))])
    # It sits in the population until one child has been told: the first child is its last.
    assert children[0] in SPACE.neighbours(first.architecture)
    # Scores fall, so afterwards the best is always the oldest member, the i-th asked.
    second = children[1]
    assert second not in SPACE.neighbours(first.architecture)


def test_a_crashed_individual_enters_below_every_score_and_still_ages_others() -> None:
    p = 3
    strategy = AgingEvolution(SPACE, seed=4, population_size=p, sample_size=p, draw="without")
    asked = strategy.ask(p)
    crash = Observation(asked[0], math.nan, status="crashed", reason="injected")
    strategy.tell([crash, Observation(asked[1], -1e300), Observation(asked[2], math.nan)])
    [child] = strategy.ask()
    assert child.architecture in SPACE.neighbours(asked[1].architecture)
    strategy.tell([Observation(child, math.nan, status="invalid", reason="injected")])
    [child] = strategy.ask()  # the crashed first one has left; the poor second one is still the best
    assert child.architecture in SPACE.neighbours(asked[1].architecture)


def test_what_is_never_told_never_enters() -> None:
    p = 4
    strategy = AgingEvolution(SPACE, seed=5, population_size=p, sample_size=p, draw="without")
    strategy.ask(20)
    rng = np.random.default_rng(5)
    expected = [SPACE.sample(rng) for _ in range(21)]
    assert strategy.ask()[0].architecture == expected[20]  # still random: nobody is in the population


def test_foreign_members_enter_and_strangers_do_not() -> None:
    strategy = AgingEvolution(SPACE, seed=6, population_size=2, sample_size=2, draw="without")
    star = Architecture(SPACE.family, (3, 3, 3, 3, 3))
    stranger = Observation(Proposal(Architecture("other", star.genes)), 10.0)
    strategy.tell([stranger, stranger, Observation(Proposal(star), 5.0)])
    strategy.tell([Observation(Proposal(Architecture(SPACE.family, (0, 0, 0, 0, 0))), 1.0)])
    assert strategy.ask()[0].architecture in SPACE.neighbours(star)


@pytest.mark.parametrize(("draw", "expected"), [("with", 19 / 27), ("without", 1.0)])
def test_the_tournament_draws_with_replacement_by_default(draw: str, expected: float) -> None:
    """P = S = 3: the best is drawn with probability 1 - (2/3)^3 with, and surely without replacement."""
    # Three corners so far apart that a child tells its parent.
    corners = [Architecture(SPACE.family, (g,) * 5) for g in range(3)]
    hits = 0
    for seed in range(600):
        strategy = AgingEvolution(SPACE, seed=seed, population_size=3, sample_size=3, draw=draw)
        strategy.tell([Observation(Proposal(a), float(i)) for i, a in enumerate(corners)])
        hits += strategy.ask()[0].architecture in SPACE.neighbours(corners[2])
    assert abs(hits / 600 - expected) <= 4 * (expected * (1 - expected) / 600) ** 0.5


def test_a_space_of_one_member_is_asked_again() -> None:
    space = MLP(hidden=1, widths=(8,), activations=("relu",))
    assert space.size == 1
    assert set(search(AgingEvolution(space, seed=0, population_size=2), 5)) == {space.at(0)}
