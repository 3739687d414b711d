"""What the strategy itself costs. Kept apart from its quality: machines differ, and a slow one is no regression."""

import time
import tracemalloc
from statistics import median

import pytest

from climbing import Climb
from nasbed.methods import registry
from nasbed.protocols import Observation

SPACE = registry.space("mlp")
RANDOM = registry.load("strategies", "random")
EVALUATIONS = 300


def search(strategy_class, evaluations=EVALUATIONS):
    strategy = strategy_class(SPACE, seed=0)
    for _ in range(evaluations):
        [proposal] = strategy.ask()
        strategy.tell([Observation(proposal, sum(proposal.architecture.genes) % 17 / 16)])
    return strategy


@pytest.mark.parametrize("strategy_class", [Climb, RANDOM])
def test_time_of_ask_and_tell(benchmark, strategy_class):
    """For pytest-benchmark's own comparison with earlier runs on the same machine, --benchmark-compare-fail=min:25%."""
    benchmark.extra_info["evaluations"] = EVALUATIONS
    benchmark.pedantic(search, args=(strategy_class,), rounds=5, warmup_rounds=1)


def test_an_evaluation_costs_at_most_ten_of_random_search():
    """A ratio within one run, taken in turns: it holds on any machine."""
    turns = [[seconds(c) for c in (Climb, RANDOM)] for _ in range(7)]
    ratio = median(ours / theirs for ours, theirs in turns)
    print(f"\nask and tell: {1e6 * turns[-1][0] / EVALUATIONS:.0f} us, {ratio:.2f} times random search")
    assert ratio < 10


def test_memory_does_not_outgrow_the_history():
    """A thousand evaluations more take less than 2 MB more."""
    less, more = (peak_bytes(n) for n in (1000, 2000))
    print(f"\npeak of 1000 evaluations: {less / 2**20:.2f} MiB, of 2000: {more / 2**20:.2f} MiB")
    assert more - less < 2 * 2**20


def seconds(strategy_class):
    began = time.perf_counter()
    search(strategy_class)
    return time.perf_counter() - began


def peak_bytes(evaluations):
    tracemalloc.start()
    try:
        search(Climb, evaluations)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
