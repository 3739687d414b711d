"""A whole comparison: runs in two processes, report, MLflow export."""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import time
from collections import defaultdict

import pytest

from nasbed.harness.compare import carry_out
from nasbed.harness.plan import plan
from nasbed.harness.store import RunStore
from nasbed.harness.study import read_study
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.reports.mlflow_export import export
from nasbed.reports.write import write_report
from nasbed.tabular import embedded
from nasbed.tabular.synthetic import write_synthetic_table

STRATEGIES = "random,local_search,aging_evolution,reinforce,tpe"


def _compare(folder, table, strategies, seeds, jobs, budget=None, track=True):
    """Seconds that the whole comparison takes on idle cores: CPU time, that of worker processes shared by them.

    On a busy machine the wall time, which is printed beside it, says more about the other programs.
    """
    given = {"strategies": strategies, "tables": table, "seeds": seeds, "budget": budget}
    marks = [_clocks()]
    planned = plan(read_study(None, given))
    assert not carry_out(planned, folder, jobs=jobs)
    marks.append(_clocks())
    report = write_report(folder / "store", folder)
    marks.append(_clocks())
    if track:
        exported = export(folder / "store", uri=f"sqlite:///{folder / 'mlflow.db'}", report=folder)
        marks.append(_clocks())
        assert exported.created >= len(planned.runs)
    assert report.is_file()
    assert len(planned.runs) == len(strategies.split(",")) * seeds
    store, share = RunStore(folder / "store"), defaultdict(float)
    for run in planned.runs:
        share[run.strategy] += store.timing(run.key)["overhead_s"]
    own, workers, wall = (
        [after[i] - before[i] for before, after in itertools.pairwise(marks)] for i in range(len(marks[0]))
    )
    idle = [mine + others / jobs for mine, others in zip(own, workers, strict=True)]
    print(f"\n{len(planned.runs)} runs on {jobs} cores: {sum(idle):.1f} s idle, {sum(wall):.1f} s wall; ", end="")
    print(*(f"{name} {s:.1f}" for name, s in zip(("runs", "report", "MLflow"), idle, strict=False)), sep=", ")
    for name, seconds in share.items():
        part = seconds / sum(share.values())
        print(f"  {name}: {1e3 * seconds / seeds:.1f} ms of CPU per run, {part:.0%} of all searches")
    # Worker processes count, and work in nothing but the runs.
    assert jobs == 1 or workers[0] > sum(share.values()) > 0
    return sum(idle)


def _clocks():
    for worker in multiprocessing.active_children():
        worker.join()  # the time of a process counts when it has been waited for
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time(), workers.ru_utime + workers.ru_stime, time.perf_counter()


def test_a_small_comparison_ends_within_twenty_seconds(tmp_path):
    # Its export is measured in test_mlflow_bench.py.
    table = write_synthetic_table(tmp_path / "table", Synthetic(genes=4, values=4))
    strategies = "random,local_search,aging_evolution"
    assert _compare(tmp_path / "out", str(table), strategies, seeds=3, jobs=1, budget="30evals", track=False) < 20


@pytest.mark.slow
def test_thirty_seeds_on_mlp_digits_end_within_three_minutes(tmp_path):
    if "mlp-digits" not in embedded():
        pytest.skip("the table mlp-digits is not there")
    assert _compare(tmp_path / "out", "mlp-digits", STRATEGIES, seeds=30, jobs=2) < 180
