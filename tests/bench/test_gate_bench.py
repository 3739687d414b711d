"""The gate against the clock: three strategies, two hundred seeds, a shipped table, two processes."""

from __future__ import annotations

import multiprocessing
import resource
import time

import pytest

from nasbed.harness.gate import check_baseline, check_strategy, record_baseline
from nasbed.tabular import embedded

STRATEGIES = "random,local_search,aging_evolution"
JOBS = 2


def _idle_seconds(function):
    """Seconds on idle cores: CPU time, that of worker processes shared by them; and the result."""

    def clocks():
        for worker in multiprocessing.active_children():
            worker.join()
        workers = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time(), workers.ru_utime + workers.ru_stime

    own, others = clocks()
    found = function()
    now = clocks()
    return now[0] - own + (now[1] - others) / JOBS, found


@pytest.mark.slow
def test_both_levels_end_in_time(tmp_path):
    if "mlp-digits" not in embedded():
        pytest.skip("the table mlp-digits is not there")
    path = tmp_path / "baseline.jsonl"
    record, _ = _idle_seconds(lambda: record_baseline(STRATEGIES, "mlp-digits", path, jobs=JOBS))
    exact, checked = _idle_seconds(lambda: check_baseline(path, jobs=JOBS))
    assert [v.identical for v in checked.verdicts] == [200, 200, 200]
    # Random streams are keyed by names, and this name is another one for the same strategy.
    other = "nasbed.methods.strategies.aging_evolution:AgingEvolution"
    fresh, verdict = _idle_seconds(
        lambda: check_strategy(other, path, against="aging_evolution", seeds="0-19", jobs=JOBS)
    )
    print(f"\n600 runs: recorded in {record:.1f} s, checked to the bit in {exact:.1f} s (goal < 20); ", end="")
    print(f"{verdict.seeds} fresh seeds of one strategy in {fresh:.1f} s; {path.stat().st_size / 1e3:.0f} kB")
    assert exact < 20
    assert verdict.level == "statistical"
    assert 3 * fresh * 100 / verdict.seeds < 60
