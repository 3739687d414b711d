"""Speed of the MLflow export, as a ratio to logging the same values step by step into a database of the same kind."""

from __future__ import annotations

import random
import time

from nasbed.harness.records import key_of
from nasbed.harness.store import RunStore
from nasbed.protocols import Architecture, Call, Cost, Incumbent, Observation, Proposal, RunRecord
from nasbed.reports.mlflow_export import export

STEPS, RUNS, BY_STEP = 150, 16, 60


def _store(folder):
    store = RunStore(folder, create=True)
    entries = []
    for seed in range(RUNS):
        spec = {"strategy": {"name": "random"}, "budget": {"unit": "evaluations", "limit": STEPS}, "seed": seed}
        scores = [random.Random(seed * STEPS + i).random() for i in range(STEPS)]
        proposals = [Proposal(Architecture("nb201", (i,))) for i in range(STEPS)]
        calls = [
            Call(1, (p,), (Observation(p, s, (Cost("train", 1.0),)),)) for p, s in zip(proposals, scores, strict=True)
        ]
        best = [i for i in range(STEPS) if scores[i] > max(scores[:i], default=0.0)]
        incumbents = tuple(Incumbent(i, i + 1.0, proposals[i].architecture, scores[i]) for i in best)
        sealed = {"incumbents": [{"test": scores[i], "features": {}, "text": ""} for i in best], "retrained": None}
        record = RunRecord(key_of(spec), spec, (), tuple(calls), incumbents, "budget", sealed)
        store.commit(record, {"wall_s": 1.0})
        entries.append({"key": record.key, "strategy": "random", "estimator": "full", "table": "t", "seed": seed})
    facts = {"higher_is_better": True, "best": 1.0, "median": 0.5, "budget": STEPS}
    study = {"name": "bench", "digest": "0" * 64, "spec": {}, "tables": {"t": facts}, "runs": entries, "failed": []}
    store.write_study(study)
    return folder


def test_export_against_logging_by_step(tmp_path):
    from mlflow import MlflowClient

    folder, uri = _store(tmp_path / "store"), f"sqlite:///{tmp_path / 'mlflow.db'}"
    export(folder, uri=uri, detail="summary")  # creates the database, which is not what is compared
    # CPU time on both sides: what other processes take from this one must not count.
    began = time.process_time()
    export(folder, uri=uri)
    ours = (time.process_time() - began) / RUNS
    client = MlflowClient(tracking_uri=uri)
    run = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.nas.role = 'run'")[0]
    points = [p for key in run.data.metrics for p in client.get_metric_history(run.info.run_id, key)]
    by_step = client.create_run(client.create_experiment("by step")).info.run_id
    began = time.process_time()
    for point in points[:BY_STEP]:
        client.log_metric(by_step, point.key, point.value, point.timestamp, point.step)
    theirs = (time.process_time() - began) * len(points) / BY_STEP
    ratio = theirs / ours
    print(f"\n{len(points)} values per run, CPU s/run: export {ours:.3f}, by step {theirs:.3f}, {ratio:.1f} times")
    assert len(points) > 2 * STEPS
    assert ratio >= 10
