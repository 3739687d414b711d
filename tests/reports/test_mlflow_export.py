"""The MLflow export against real MLflow stores: SQLite files, and a server on loopback."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from nasbed.harness.records import key_of, trace_digest
from nasbed.harness.store import RunStore
from nasbed.protocols import Architecture, Call, Cost, Incumbent, Observation, Proposal, RunRecord
from nasbed.reports.mlflow_export import ExportError, export
from nasbed.reports.mlflow_rows import MAX_CURVE, metric_part, run_final, run_rows
from nasbed.reports.statistics import anytime_area, normalised_regret

BUDGET = 20.0
TABLE = {
    "digest": "d" * 64, "space": "nb201", "clock": "flops", "metric": "accuracy", "higher_is_better": True,
    "training_seeds": 3, "best": 0.95, "median": 0.80, "seed_noise": 0.004, "median_cost": 1.0, "budget": BUDGET,
}  # fmt: skip


def _record(strategy, seed, *, evaluations=20, table="t", params=None, scores=None, estimator="full"):
    part = {"name": "s", "params": params or {"rate": 0.5}, "code": "c" * 64, "libraries": {}}
    spec = {
        "strategy": {**part, "name": strategy},
        "estimator": {**part, "name": estimator},
        "space": "nb201",
        "table": {"name": table, "digest": "d" * 64} if table else None,
        "data": None if table else {"name": "digits", "digest": "e" * 64},
        "pipeline": {"name": "adam", "digest": "p" * 64},
        "budget": {"unit": "flops", "limit": BUDGET},
        "options": {"batch": 1, "dedupe": False, "redraw": False, "retrain": 0 if table else 3},
        "seed": seed,
        "schema": 1,
    }
    scores = scores or [0.5 + 0.4 * ((seed * 7 + i * 13) % 20) / 20 for i in range(evaluations)]
    calls, incumbents, sealed = [], [], []
    for i, score in enumerate(scores):
        architecture = Architecture("nb201", (i % 5, seed % 5))
        proposal = Proposal(architecture)
        status = "ok" if math.isfinite(score) else "crashed"
        observation = Observation(proposal, score, (Cost("train", 0.75), Cost("evaluate", 0.25)), status=status)
        calls.append(Call(1, (proposal,), (observation,)))
        if status == "ok" and score > max((k.score for k in incumbents), default=-1):
            incumbents.append(Incumbent(i, 2.0 + i + 1, architecture, score))
            features = {"params": 1000 + i, "flops": 2e6, "depth": 8}
            sealed.append({"test": score - 0.01 if table else None, "features": features, "text": f"|a~{i}|"})
    retrained = None if table else {"test": [0.7, 0.8, 0.9], "cost": 3.0}
    return RunRecord(
        key_of(spec), spec, (Cost("fit", 2.0),), tuple(calls), tuple(incumbents), "budget",
        {"incumbents": sealed, "retrained": retrained},
    )  # fmt: skip


def _store(folder, *, strategies=("random", "evolution"), seeds=3, unfinished=0, table="t", name="my study", **kwargs):
    """A store as the harness leaves it, `unfinished` of its runs missing."""
    store = RunStore(folder, create=True)
    entries = []
    for label in strategies:
        for seed in range(seeds):
            record = _record(label, seed, table=table, **kwargs)
            entries.append({"key": record.key, "strategy": label, "estimator": "full", "table": table, "seed": seed})
            if len(entries) <= len(strategies) * seeds - unfinished:
                store.commit(record, {"wall_s": 1.5})
    store.write_study({
        "schema": 1, "digest": key_of({"name": name, "seeds": seeds, "strategies": list(strategies)}), "name": name,
        "spec": {
            "strategies": [{"label": s, "name": s, "params": {}} for s in strategies],
            "estimators": [{"label": "full", "name": "full", "params": {}}],
            "tables": [table] if table else [], "space": "nb201", "pipeline": "adam", "seeds": list(range(seeds)),
            "budget": {"unit": "flops", "limit": BUDGET},
        },
        "tables": {table: TABLE} if table else {}, "runs": entries, "failed": [], "provenance": {"nasbed": "0.1.0"},
    })  # fmt: skip
    return folder


def _client(uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _everything(uri):
    """All that a tracking store holds, without the identifiers it invents."""
    client = _client(uri)
    found, names = [], {}
    for experiment in client.search_experiments(filter_string="name != 'Default'"):
        runs = client.search_runs([experiment.experiment_id], max_results=5000)
        names |= {r.info.run_id: r.info.run_name for r in runs}
        for run in runs:
            history = sorted(
                (m.key, m.step, m.timestamp, m.value)
                for key in run.data.metrics
                for m in client.get_metric_history(run.info.run_id, key)
            )
            tags = {k: names.get(v, v) for k, v in run.data.tags.items()}
            info = (experiment.name, run.info.run_name, run.info.status, run.info.start_time, run.info.end_time)
            found.append((info, sorted(tags.items()), sorted(run.data.params.items()), history))
    return sorted(found)


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory):
    """An initialised, empty database: creating one takes MLflow two seconds."""
    from nasbed.reports.mlflow_client import connect, quiet

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with quiet():
        connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(tmp_path, fresh_database, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(fresh_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_everything_is_found_again(tmp_path, uri):
    folder = _store(tmp_path / "store", unfinished=1)
    seen = []
    result = export(folder, progress=lambda done, total: seen.append((done, total)))
    assert (result.created, result.updated, result.uri) == (5, 0, uri)
    assert seen == [(i, 5) for i in range(1, 6)]
    client = _client(uri)
    (parent,) = client.search_runs([result.experiment_id], "tags.nas.role = 'comparison'")
    assert parent.info.run_id == result.parent_run_id
    assert parent.info.status == "RUNNING"  # one run is to come
    assert parent.data.metrics["runs/planned"] == 6
    assert parent.data.metrics["runs/finished/evolution"] == 2
    children = client.search_runs([result.experiment_id], f"tags.mlflow.parentRunId = '{result.parent_run_id}'")
    assert len(children) == 5
    assert {c.info.status for c in children} == {"FINISHED"}
    record = _record("evolution", 1)
    (run,) = client.search_runs([result.experiment_id], f"tags.`harness.trial_key` = '{record.key}'")
    assert run.info.end_time - run.info.start_time == 1500
    assert run.data.tags["nas.trace_sha256"] == trace_digest(record)
    assert run.data.tags["nas.table_hash"] == "d" * 64
    assert run.data.tags["nas.harness_version"] == "0.1.0"
    assert run.data.tags["harness.exported_seq"] == "20"
    expected = {"strategy": "evolution", "estimator": "full", "table": "t", "seed": "1", "budget": "20.0"}
    expected |= {"budget_unit": "flops", "pipeline": "adam", "code_version": "c" * 64, "strategy.rate": "0.5"}
    assert run.data.params.items() >= expected.items()
    cost = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "cost/cum")}
    assert cost == {i: 3.0 + i for i in range(20)}
    tests = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "score/test")}
    incumbents = {i.evaluation: i.score - 0.01 for i in record.incumbents}
    assert tests == incumbents | {19: record.incumbents[-1].score - 0.01}
    regrets = normalised_regret(list(incumbents.values()), 0.95, 0.80)
    assert run.data.metrics["regret/final"] == pytest.approx(regrets[-1])
    late = anytime_area([i.cost for i in record.incumbents], regrets, 0.1 * BUDGET, BUDGET)
    assert run.data.metrics["regret/late_area"] == pytest.approx(late)
    assert run.data.metrics["cost/fit"] == 2.0
    assert run.data.metrics["time/wall_s"] == 1.5
    assert run.data.metrics["cost/total"] == 22.0
    assert run.data.metrics["incumbent/params"] == 1000 + record.incumbents[-1].evaluation
    means = [c.data.metrics["regret/final"] for c in children if c.data.params["strategy"] == "evolution"]
    assert parent.data.metrics["regret/final/evolution"] == pytest.approx(sum(means) / 2)


def test_a_second_export_changes_nothing_and_a_grown_study_adds(tmp_path, uri):
    folder = _store(tmp_path / "store", unfinished=2)
    first = export(folder)
    before = _everything(uri)
    second = export(folder)
    assert (second.created, second.updated) == (0, 0)
    assert second.parent_run_id == first.parent_run_id
    assert _everything(uri) == before
    for seed in (1, 2):
        RunStore(folder).commit(_record("evolution", seed), {"wall_s": 1.5})
    third = export(folder)
    assert (third.created, third.updated) == (2, 0)
    parent = _client(uri).get_run(third.parent_run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["runs/finished"] == 6  # the newest value, not the largest of a step
    final = [run_final(RunStore(folder).study(), e, RunStore(folder).load(e["key"])) for e in _entries(folder)]
    mean = sum(f.regret for f in final if f.method == "evolution") / 3
    assert parent.data.metrics["regret/final/evolution"] == pytest.approx(mean)


def _entries(folder):
    return RunStore(folder).study()["runs"]


def test_only_what_is_missing_is_logged(tmp_path, uri):
    """A run that lost its last rows and its tag, as a kill leaves it, and one that was created twice."""
    folder = _store(tmp_path / "store")
    export(folder)
    before = _everything(uri)
    database = sqlite3.connect(tmp_path / "mlflow.db")
    victim = "SELECT run_uuid FROM tags WHERE key = 'harness.trial_key' ORDER BY value LIMIT 1"
    database.execute(f"DELETE FROM metrics WHERE step > 3 AND run_uuid = ({victim})")
    database.execute(f"DELETE FROM params WHERE key > 'p' AND run_uuid = ({victim})")
    database.execute(f"DELETE FROM tags WHERE key = 'harness.exported_seq' AND run_uuid = ({victim})")
    database.execute(f"UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE run_uuid = ({victim})")
    database.commit()
    database.close()
    assert _everything(uri) != before
    experiment = next(e for e in _client(uri).search_experiments() if e.name != "Default")
    twice = _client(uri).search_runs([experiment.experiment_id], "tags.nas.role = 'run'")[0].data.tags
    twice.pop("harness.exported_seq", None)
    _client(uri).create_run(experiment.experiment_id, tags=twice)
    result = export(folder)
    assert (result.created, result.updated) == (0, 1)
    assert _everything(uri) == before


def test_one_run_under_two_labels_is_shown_twice(tmp_path, uri):
    folder = _store(tmp_path / "store", strategies=("random",), seeds=2)
    store = RunStore(folder)
    study = store.study()
    study["runs"] += [{**e, "strategy": "also random"} for e in study["runs"]]
    store.write_study(study)
    result = export(folder)
    assert result.created == 4
    keys = [
        r.data.tags["harness.trial_key"]
        for r in _client(uri).search_runs([result.experiment_id], "tags.nas.role = 'run'")
    ]
    assert sorted(keys) == sorted(e["key"] for e in study["runs"])
    metrics = _client(uri).get_run(result.parent_run_id).data.metrics
    assert metrics["regret/final/random"] == metrics["regret/final/also random"]
    before = _everything(uri)
    assert export(folder).created == 0
    assert _everything(uri) == before
    store.write_study({"schema": 1, "provenance": {}, "complete": False})
    with pytest.raises(ValueError, match="the study has not ended"):
        export(folder)


def test_summary_writes_the_comparison_alone(tmp_path, uri):
    folder = _store(tmp_path / "store")
    result = export(folder, detail="summary")
    assert result.created == 0
    runs = _client(uri).search_runs([result.experiment_id])
    assert [r.info.run_id for r in runs] == [result.parent_run_id]
    assert runs[0].data.metrics["runs/finished"] == 6
    assert export(folder).created == 6
    with pytest.raises(ValueError, match="detail: 'all' is not one of summary, runs"):
        export(folder, detail="all")


def test_the_report_is_replaced_and_stale_files_go(tmp_path, uri):
    folder, report = _store(tmp_path / "store", seeds=1), tmp_path / "report"
    (report / "figures").mkdir(parents=True)
    (report / "report.html").write_text("one")
    (report / "figures" / "old.svg").write_text("<svg/>")
    result = export(folder, report=report)
    client = _client(uri)

    def artifacts(path="report"):
        listed = client.list_artifacts(result.parent_run_id, path)
        return sorted(p for a in listed for p in (artifacts(a.path) if a.is_dir else [a.path]))

    assert artifacts() == ["report/figures/old.svg", "report/report.html"]
    place = tmp_path / "mlartifacts" / result.parent_run_id / "artifacts" / "report"
    (place / "report.html").write_text("kept: the same report is not written again")
    export(folder, report=report)
    assert (place / "report.html").read_text().startswith("kept")
    (report / "figures" / "old.svg").rename(report / "figures" / "new.svg")
    export(folder, report=report)
    assert artifacts() == ["report/figures/new.svg", "report/report.html"]
    assert (place / "report.html").read_text() == "one"
    with pytest.raises(ValueError, match=r"report: '.*nowhere' is not a folder"):
        export(folder, report=tmp_path / "nowhere")


def test_odd_labels_and_values(tmp_path, uri):
    odd = ("tpe (50%)", "tpe {50%}", "../x", "名前", "a/b", "", "x" * 400, "tab\tnew\nline", "\udc80")
    scores = [math.nan, 0.6, math.inf, -math.inf, 0.7]
    folder = _store(
        tmp_path / "store", strategies=odd, seeds=1, scores=scores, name="a = b (100%) / 'quoted'",
        params={"a(b)": [1, None], "//": "x" * 9000, "..": {"k": "\0"}},
    )  # fmt: skip
    result = export(folder)
    runs = _client(uri).search_runs([result.experiment_id], "tags.nas.role = 'run'")
    assert len(runs) == len(odd)
    strategies = {r.data.params["strategy"] for r in runs}
    assert strategies >= {"tpe (50%)", "../x", "名前", "a/b", "", "tab\tnew\nline", "\\udc80"}
    parts = {metric_part(label) for label in odd}
    assert len(parts) == len(odd)
    parent = _client(uri).get_run(result.parent_run_id)
    assert {f"regret/final/{p}" for p in parts} <= parent.data.metrics.keys()
    for run in runs:
        history = _client(uri).get_metric_history(run.info.run_id, "score/evaluation")
        assert {m.step: m.value for m in history} == {1: 0.6, 4: 0.7}
        assert all(abs(v) < 1e300 for v in run.data.metrics.values())
    before = _everything(uri)
    assert export(folder).updated == 0
    assert _everything(uri) == before


def test_without_a_table_there_is_no_regret(tmp_path, uri):
    folder = _store(tmp_path / "store", table=None, seeds=2)
    result = export(folder)
    for run in _client(uri).search_runs([result.experiment_id]):
        assert not [k for k in run.data.metrics if k.startswith("regret")]
        assert "table" not in run.data.params
    (run,) = _client(uri).search_runs([result.experiment_id], "params.strategy = 'random' AND params.seed = '0'")
    assert run.data.params["data"] == "digits"
    assert run.data.metrics["cost/retrain"] == 3.0
    parent = _client(uri).get_run(result.parent_run_id)
    assert parent.data.metrics["score/test/random"] == pytest.approx(0.8)


def test_a_metric_where_less_is_better_and_a_flat_table(tmp_path):
    study = RunStore(_store(tmp_path / "store", seeds=1)).study()
    record, entry = _record("random", 0), study["runs"][0]
    study["tables"]["t"] |= {"higher_is_better": False, "best": 0.1, "median": 0.9}
    final = run_final(study, entry, record)
    assert final.regret == pytest.approx((record.incumbents[-1].score - 0.01 - 0.1) / 0.8)
    study["tables"]["t"] |= {"best": 0.9}
    assert run_final(study, entry, record).regret is None
    del study["tables"]["t"]
    assert run_final(study, entry, record).late_area is None


def test_long_runs_are_thinned_but_keep_every_incumbent(tmp_path):
    study = RunStore(_store(tmp_path / "store", seeds=1)).study()
    n = 5 * MAX_CURVE + 3
    record = _record("random", 0, scores=[i / n for i in range(40)] + [0.0] * (n - 41) + [1.0])
    final = run_final(study, study["runs"][0], record)
    rows = run_rows(study["runs"][0], record, final, parent="p", trace="t", version="v", timing={})
    steps = {p.step for p in rows.points if p.key == "score/evaluation"}
    assert {*range(40), n - 1} <= steps
    assert len(steps) <= MAX_CURVE + 42
    assert rows.seq == n


def test_weight_sharing_counts_epochs(tmp_path):
    study = RunStore(_store(tmp_path / "store", seeds=1)).study()
    record = _record("random", 0)
    calls = tuple(Call(1, (), (), (Cost("supernet", 2.0),)) for _ in range(5))
    record = RunRecord(record.key, record.spec, (), calls, (), "exhausted", {"incumbents": [], "retrained": None})
    final = run_final(study, study["runs"][0], record)
    rows = run_rows(study["runs"][0], record, final, parent="p", trace="t", version="v", timing={})
    assert rows.seq == 5
    assert {p.step: p.value for p in rows.points if p.key == "cost/cum"} == {i: 2.0 * (i + 1) for i in range(5)}


_NURSERY = """
import os, signal, sys
from pathlib import Path
import sqlalchemy
from nasbed.reports import mlflow_client, mlflow_export
with mlflow_client.quiet():
    import mlflow.store.tracking.sqlalchemy_store

def export(folder, uri, last):
    sent = 0
    @sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "before_cursor_execute")
    def count(connection, cursor, statement, *rest):
        nonlocal sent
        sent += statement.startswith(("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER"))
        if sent > last:
            os.kill(os.getpid(), signal.SIGKILL)
    result = mlflow_export.export(Path(folder), uri=uri)
    print(result.created, result.updated, flush=True)

for line in sys.stdin:
    children = []
    for job in line.split("|"):
        folder, uri, last = job.split()
        children.append(os.fork())
        if not children[-1]:
            export(folder, uri, int(last))
            os._exit(0)
    print("exits", *[os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children], flush=True)
"""


@pytest.fixture(scope="session")
def nursery():
    """Exports in processes of their own, forked because importing MLflow costs more than an export.

    Gives a function from jobs (store, database, and the number of writing statements before which it is killed) that
    all start at once, to the sorted (created, updated) of those that came through and their exit codes.
    """
    command = [sys.executable, "-c", _NURSERY]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None

    def run(*jobs):
        process.stdin.write("|".join(f"{folder} sqlite:///{database} {last}" for folder, database, last in jobs) + "\n")
        process.stdin.flush()
        done = []
        while not (line := process.stdout.readline()).startswith("exits"):
            assert line, "the nursery died"
            done.append(tuple(map(int, line.split())))
        return sorted(done), [int(code) for code in line.split()[1:]]

    yield run
    process.stdin.close()
    process.stdout.close()
    process.wait()


def test_importing_the_exporter_imports_no_mlflow():
    heavy = {"mlflow", "pandas", "scipy", "torch", "sqlalchemy"}
    code = f"import sys, nasbed.reports.mlflow_export; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_killed_at_any_point_and_repeated(tmp_path, fresh_database, nursery):
    """Killed where a statement is about to be sent, many times over, each time going on from what is there."""
    folder = _store(tmp_path / "store", seeds=2)
    whole, torn = tmp_path / "whole.db", tmp_path / "torn.db"
    shutil.copy(fresh_database, whole)
    shutil.copy(fresh_database, torn)
    export(folder, uri=f"sqlite:///{whole}")
    kills = 0
    for last in (0, 2, 7, 5, 8, 3, 9, 6):
        done, (code,) = nursery((folder, torn, last))
        assert code == (0 if done else -signal.SIGKILL)
        kills += code != 0
    assert kills >= 5
    export(folder, uri=f"sqlite:///{torn}")
    assert _everything(f"sqlite:///{torn}") == _everything(f"sqlite:///{whole}")


def test_killed_while_the_database_is_created(tmp_path, uri, nursery):
    """MLflow's migrations are not atomic: a file that was left half way could never be opened again."""
    folder, database = _store(tmp_path / "store", seeds=1), tmp_path / "mlflow.db"
    export(folder)
    for path in tmp_path.glob("mlflow.db*"):  # this process keeps connections to the file that was there
        path.unlink()
    assert nursery((folder, database, 60)) == ([], [-signal.SIGKILL])
    assert (tmp_path / "mlflow.db.new").exists()
    assert not database.exists()
    assert export(folder).created == 2
    assert not list(tmp_path.glob("mlflow.db.new*"))
    connection = sqlite3.connect(database)
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (3,)
    connection.close()


def test_four_processes_on_no_database(tmp_path, nursery):
    """Two studies, each exported by two processes at once, with no database to begin with."""
    folders = [_store(tmp_path / f"{i % 2}" / "store", name=f"study {i % 2}", seeds=2) for i in range(4)]
    database = tmp_path / "mlflow.db"
    done, codes = nursery(*((folder, database, 10**6) for folder in folders))
    assert codes == [0] * 4
    assert done == [(0, 0), (0, 0), (4, 0), (4, 0)]
    assert len(_everything(f"sqlite:///{database}")) == 10
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_errors_are_one_line_without_passwords(tmp_path, monkeypatch):
    folder = _store(tmp_path / "store", seeds=1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ExportError) as caught:
        export(folder, uri=f"http://me:secret@127.0.0.1:{port}")
    message = str(caught.value)
    assert f"http://me:***@127.0.0.1:{port} stopped: " in message
    assert "secret" not in message
    assert "\n" not in message
    (tmp_path / "broken.db").write_bytes(b"not a database" * 100)
    with pytest.raises(ExportError, match=r"broken\.db stopped: .*not a database"):
        export(folder, uri=f"sqlite:///{tmp_path / 'broken.db'}")
    with pytest.raises(ValueError, match="is not a run store"):
        export(tmp_path / "none")


def test_a_deleted_experiment_is_named(tmp_path, uri):
    folder = _store(tmp_path / "store", seeds=1)
    _client(uri).delete_experiment(export(folder).experiment_id)
    with pytest.raises(ExportError, match=r"experiment 'my study-.*' was deleted in MLflow: restore it"):
        export(folder)


def test_the_environment_is_left_as_it_was(tmp_path, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ)
    inside = []

    def look(done, total):
        inside.append({k: os.environ.get(f"MLFLOW_HTTP_REQUEST_{k}") for k in ("TIMEOUT", "MAX_RETRIES")})

    export(_store(tmp_path / "store", seeds=1), progress=look)
    assert inside == [{"TIMEOUT": "77", "MAX_RETRIES": "2"}] * 2
    assert dict(os.environ) == before


class _Server:
    """A real `mlflow server` on loopback, which can be killed and started again on the same database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination", str(self.folder / "served"),
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        log = (self.folder / "server.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                with urlopen(f"{self.uri}/health", timeout=2):
                    return
            except (URLError, OSError):
                assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def kill(self) -> None:
        """The whole process group of this server, started by us in a session of its own."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back(tmp_path, fresh_database, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    folder = _store(tmp_path / "store", seeds=3)
    report = tmp_path / "report"
    report.mkdir()
    (report / "report.html").write_text("<html></html>")
    shutil.copy(fresh_database, tmp_path / "server.db")
    shutil.copy(fresh_database, tmp_path / "whole.db")
    export(folder, uri=f"sqlite:///{tmp_path / 'whole.db'}")
    server = _Server(tmp_path)
    server.start()
    try:
        with pytest.raises(ExportError, match=r"stopped after 2 of 6 runs: .* \(the same export again completes it\)"):
            export(folder, uri=server.uri, progress=lambda done, total: server.kill() if done == 2 else None)
        server.start()
        result = export(folder, uri=server.uri)
        assert result.created + result.updated == 4
        assert _everything(server.uri) == _everything(f"sqlite:///{tmp_path / 'whole.db'}")
        assert export(folder, uri=server.uri, report=report).created == 0
        (report / "report.html").rename(report / "index.html")
        export(folder, uri=server.uri, report=report)
        listed = _client(server.uri).list_artifacts(result.parent_run_id, "report")
        assert [a.path for a in listed] == ["report/index.html"]
    finally:
        server.kill()
