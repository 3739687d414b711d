"""Moves of search spaces against copying a list and drawing a number, and against the clock for all of nb201."""

from __future__ import annotations

import time
from itertools import product
from statistics import median

import numpy as np
import pytest

from nasbed.methods import registry
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import Architecture

CALLS = 2_000
SPACES = ["nb201", "mlp", "fcnet"]


def _unit(genes):
    """What a hand-written search does at least: copy the genes, draw one number, put it in."""
    rng = np.random.default_rng(0)
    genes = list(genes)
    for _ in range(CALLS):
        copy = genes.copy()
        copy[0] = rng.integers(5)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(("move", "goal"), [("sample", 5), ("mutate", 5), ("canonical", 50)])
def test_moves_are_cheap(name, move, goal, by_turns, median_ratio):
    space, rng = registry.space(name), np.random.default_rng(0)
    a = space.sample(rng)
    members = [space.sample(rng) for _ in range(CALLS)]
    run = {
        "sample": lambda: [space.sample(rng) for _ in range(CALLS)],
        "mutate": lambda: [space.mutate(m, rng) for m in members],
        "canonical": lambda: [space.canonical(m) for m in members],
    }[move]
    ours, bare = by_turns(run, lambda: _unit(a.genes), repeats=9)
    ratio = median_ratio(ours, bare)
    micro = [1e6 * median(times) / CALLS for times in (ours, bare)]
    print(f"\n{name}.{move}: {micro[0]:.2f} us, copy and draw {micro[1]:.2f} us: {ratio:.2f} times (goal <= {goal})")
    assert ratio <= goal


def test_all_cells_of_nb201_are_listed_and_canonicalised_within_two_seconds(benchmark):
    taken = []

    def everything():
        began, space = time.process_time(), NB201()
        found = {space.canonical(Architecture("nb201", genes)) for genes in product(range(5), repeat=6)}
        taken.append(time.process_time() - began)
        return found

    assert len(benchmark.pedantic(everything, rounds=3)) == 14_125
    print(f"\n15,625 cells of nb201 listed and canonicalised: {min(taken):.3f} s (goal <= 2)")
    assert min(taken) <= 2
