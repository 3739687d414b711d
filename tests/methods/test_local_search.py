"""Local search: what a climb is, for both improvement rules and for both ends of a climb."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.local_search import LocalSearch
from nasbed.protocols import Architecture, Observation, Proposal

SPACE = Synthetic(genes=5, values=3, epistasis=2)
CONDITIONAL = MLP(hidden=3, widths=(8, 16), activations=("relu", "tanh"))


def rugged(a: Architecture) -> float:
    return math.sin(sum((t + 2) * g * g for t, g in enumerate(a.genes)))


def run(strategy: LocalSearch, score: Callable[[Architecture], float], n: int) -> list[Architecture]:
    asked = []
    for _ in range(n):
        [p] = strategy.ask()
        asked.append(p.architecture)
        strategy.tell([Observation(p, score(p.architecture))])
    return asked


def climbs(space: Synthetic | MLP, seed: int, num_init: int, full: bool, n: int) -> tuple[list, list]:
    """White et al. 2020 written out again, with the same draws: the trace, and every climb with its path."""
    rng = np.random.default_rng(seed)
    trace: list[Architecture] = []
    finished = []
    while len(trace) < n:
        seen: dict[Architecture, float] = {}

        def query(a: Architecture, seen: dict = seen) -> float:
            seen[a] = rugged(a)
            trace.append(a)
            return seen[a]

        while len(seen) < num_init:
            a = space.sample(rng)
            if a not in seen:
                query(a)
        current = max(seen, key=seen.__getitem__)
        path = [current]
        improved = True
        while improved:
            improved = False
            neighbours = space.neighbours(current)
            order = [neighbours[i] for i in rng.permutation(len(neighbours))][::-1]
            best = current
            for a in order:
                if a not in seen and query(a) > seen[best]:
                    best, improved = a, True
                    if not full:
                        break
            if improved:
                current = best
                path.append(current)
        finished.append((seen, path))
    return trace[:n], finished


@pytest.mark.parametrize("space", [SPACE, CONDITIONAL], ids=["synthetic", "mlp"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_trace_is_that_of_the_algorithm(space: Synthetic | MLP, full: bool, seed: int) -> None:
    expected, finished = climbs(space, seed, 5, full, 200)
    assert run(LocalSearch(space, seed=seed, num_init=5, query_full_nbhd=full), rugged, 200) == expected
    # And the oracle itself does what it should: several climbs, each to a local optimum by rising steps.
    assert len(finished) > 2
    for seen, path in finished:
        assert all(rugged(b) > rugged(a) for a, b in pairwise(path))
        assert all(a in seen and seen[a] <= seen[path[-1]] for a in space.neighbours(path[-1]))


@pytest.mark.parametrize("full", [False, True])
def test_an_additive_space_is_climbed_to_its_optimum(full: bool) -> None:
    space = Synthetic(genes=5, values=3)
    asked = run(LocalSearch(space, seed=0, query_full_nbhd=full), space.truth, 75)
    assert space.optimum() in asked


@pytest.mark.parametrize("full", [False, True])
def test_without_stopping_a_climb_covers_its_component_once_best_first(full: bool) -> None:
    strategy = LocalSearch(SPACE, seed=0, num_init=2, query_full_nbhd=full, stop_at_minimum=False)
    asked = run(strategy, rugged, SPACE.size)
    assert len(set(asked)) == SPACE.size  # one climb, no point twice, the whole connected space


def test_at_a_local_optimum_the_best_point_with_untried_neighbours_is_next() -> None:
    """On a plain where nothing is ever better, points are expanded in the order of their telling."""
    strategy = LocalSearch(SPACE, seed=0, num_init=1, stop_at_minimum=False)
    asked = run(strategy, lambda a: 0.0, 25)
    degree = len(SPACE.neighbours(asked[0]))
    assert set(asked[1 : 1 + degree]) == set(SPACE.neighbours(asked[0]))
    second = [a for a in SPACE.neighbours(asked[1]) if a not in asked[: 1 + degree]]
    assert set(asked[1 + degree : 1 + degree + len(second)]) == set(second)


def test_equal_scores_are_no_improvement() -> None:
    asked = run(LocalSearch(SPACE, seed=0, num_init=1), lambda a: 1.0, 11)
    assert set(asked[1:11]) == set(SPACE.neighbours(asked[0]))  # it never moved


@pytest.mark.parametrize("n", [3, 7])
def test_a_batch_ends_where_answers_decide(n: int) -> None:
    strategy = LocalSearch(SPACE, seed=0, num_init=5)
    sizes = []
    for _ in range(4):
        proposals = strategy.ask(n)
        sizes.append(len(proposals))
        strategy.tell([Observation(p, -1.0) for p in proposals])
    # 5 start points, then the 10 neighbours of the first of them (some may be start points themselves).
    assert sizes[:2] == ([3, 2] if n == 3 else [5, 7])


def test_batches_told_in_any_order_never_repeat_within_a_climb_and_end_at_a_local_optimum() -> None:
    rng = np.random.default_rng(0)
    strategy = LocalSearch(SPACE, seed=3, num_init=4, stop_at_minimum=False)
    waiting: list[Proposal] = []
    asked: list[Architecture] = []
    while len(asked) < 150:
        proposals = list(strategy.ask(3))
        asked += [p.architecture for p in proposals]
        waiting = [
            waiting[i] if i < len(waiting) else proposals[i - len(waiting)]
            for i in rng.permutation(len(waiting) + len(proposals))
        ]
        cut = max(1, len(waiting) - 2)
        strategy.tell([Observation(p, rugged(p.architecture)) for p in waiting[:cut]])
        waiting = waiting[cut:]
    assert len(set(asked)) == len(asked)


def test_while_the_last_answer_of_a_neighbourhood_is_missing_the_next_start_is_brought_forward() -> None:
    strategy = LocalSearch(SPACE, seed=0, num_init=1)
    [start] = strategy.ask()
    strategy.tell([Observation(start, 0.0)])
    around = strategy.ask(10)
    assert {p.architecture for p in around} == set(SPACE.neighbours(start.architecture))
    strategy.tell([Observation(p, -1.0) for p in around[:-1]])
    [early] = strategy.ask()
    strategy.tell([Observation(around[-1], 1.0)])  # the late answer improves, so this climb goes on
    assert strategy.ask()[0].architecture in SPACE.neighbours(around[-1].architecture)
    strategy.tell([Observation(early, 9.0)])
    # Told in time, a better start of the other climb does not disturb this one.
    assert strategy.ask()[0].architecture in SPACE.neighbours(around[-1].architecture)


def test_an_answer_that_never_comes_is_given_up_when_the_next_climb_has_started() -> None:
    strategy = LocalSearch(SPACE, seed=0, num_init=1)
    [start] = strategy.ask()
    strategy.tell([Observation(start, 0.0)])
    around = strategy.ask(10)
    strategy.tell([Observation(p, -1.0) for p in around[:-1]])
    [early] = strategy.ask()
    strategy.tell([Observation(early, -5.0)])
    assert strategy.ask()[0].architecture in SPACE.neighbours(early.architecture)


def test_a_failed_evaluation_is_worse_than_any_score() -> None:
    strategy = LocalSearch(SPACE, seed=0, num_init=2)
    bad, poor = strategy.ask(2)
    strategy.tell([Observation(bad, math.nan, status="crashed"), Observation(poor, -1e300)])
    assert strategy.ask()[0].architecture in SPACE.neighbours(poor.architecture)


def test_a_space_smaller_than_the_start_is_searched_again_and_again() -> None:
    space = MLP(hidden=1, widths=(8, 16), activations=("relu",))
    asked = run(LocalSearch(space, seed=0), rugged, 9)
    assert set(asked) == {space.at(0), space.at(1)}
