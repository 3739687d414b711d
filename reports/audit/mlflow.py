"""Logging an audit to MLflow: one run for the audit with its report, one nested run for each estimator on each table.

Doing it twice changes nothing: runs carry the sha256 of the numbers they show.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..mlflow_client import connect, database_file, lock_file, locked, one_line_errors, quiet, shown

NUMBERS, ROLE, PARENT, NAME = "nas.audit_sha256", "nas.role", "mlflow.parentRunId", "mlflow.runName"
_PER_CALL = 100


def log_audit(folder: Path, numbers: Mapping[str, Any], *, uri: str | None = None) -> str:
    """Log a written audit.

    Args:
        folder: Of the report; its files become artifacts.
        numbers: What its `audit.json` holds.
        uri: Of MLflow; by default `MLFLOW_TRACKING_URI`, else a database `mlflow.db` in the folder.

    Returns:
        Where to, without a password.

    Raises:
        ExportError: MLflow is missing, unreachable, or refuses.
    """
    target = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    digest = hashlib.sha256((folder / "audit.json").read_bytes()).hexdigest()
    with one_line_errors(target, (0, 0)), quiet(), locked(lock_file(target, folder.resolve())):
        _log(connect(target), target, folder, numbers, digest)
    return shown(target)


def _log(client: Any, uri: str, folder: Path, numbers: Mapping[str, Any], digest: str) -> None:
    tables = [t["table"] for t in numbers["tables"]]
    experiment = _experiment(client, uri, f"nasbed-audit {'+'.join(tables)}"[:250])
    known = {(r.data.tags.get(NUMBERS), r.data.tags.get(NAME)): r for r in client.search_runs([experiment])}
    parent = _run(client, experiment, known, digest, "audit", {ROLE: "audit"})
    for table in numbers["tables"]:
        for e in table["estimators"]:
            tags = {ROLE: "estimator", PARENT: parent}
            run = _run(client, experiment, known, digest, f"{e['name']} on {table['table']}", tags)
            _fill(client, run, {"estimator": e["name"], "table": table["table"], "source": e["source"]}, metrics_of(e))
    for path in sorted(folder.iterdir()):
        if path.name in ("audit.html", "audit.json"):
            client.log_artifact(parent, str(path), "report")
        elif path.name in ("tables", "figures"):
            client.log_artifacts(parent, str(path), f"report/{path.name}")
    client.set_terminated(parent, "FINISHED")


def metrics_of(e: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of one estimator of `audit.json`, by names that MLflow allows; what is undefined is left out."""
    return {k: v for k, v in _metrics(e) if isinstance(v, (int, float)) and math.isfinite(v)}


def _metrics(e: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, interval in e["correlations"].items():
        for key, suffix in (("estimate", ""), ("low", "_low"), ("high", "_high")):
            yield f"audit/{name}{suffix}", interval[key]
    for where, prefix in (("attainable", ""), ("top_attainable", "top_")):
        for name, a in e[where].items():
            yield f"audit/{prefix}{name}_ceiling", a["ceiling"]
            yield f"audit/{prefix}{name}_observed", a["observed"]["estimate"]
    for top in e["tops"]:
        yield f"audit/p_at_top_{top['k']}", top["p_top"]
        yield f"audit/regret_at_{top['k']}", top["regret"]
    for bias in e["biases"]:
        yield f"bias/{bias['feature'].replace(' = ', '.')}", bias["effect"]["estimate"]
    if e["decision"]:
        for part in ("ee", "total", "selection", "guidance"):
            yield f"decision/{part}", e["decision"][part]["estimate"]
    yield "cost/answer", e["answer"]
    yield "cost/preparation", e["preparation"]


def _experiment(client: Any, uri: str, name: str) -> str:
    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    database = database_file(uri)
    place = None if database is None else (database.parent / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=place))


def _run(
    client: Any, experiment: str, known: Mapping[Any, Any], digest: str, name: str, tags: Mapping[str, str]
) -> str:
    if (digest, name) in known:
        return str(known[digest, name].info.run_id)
    return str(client.create_run(experiment, run_name=name, tags={NUMBERS: digest, **tags}).info.run_id)


def _fill(client: Any, run: str, params: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    there = client.get_run(run).data
    values = [Metric(k, float(v), 0, 0) for k, v in metrics.items() if k not in there.metrics]
    new = [Param(k, v[:500]) for k, v in params.items() if k not in there.params]
    for i in range(0, max(len(values), 1), _PER_CALL):
        client.log_batch(run, values[i : i + _PER_CALL], new if i == 0 else (), (), synchronous=True)
    client.set_terminated(run, "FINISHED")
