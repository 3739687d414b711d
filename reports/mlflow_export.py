"""Export of a run store to MLflow: an idempotent projection, killed and repeated at will.

The run store is the truth and MLflow a view of it. Every MLflow run carries the key of the run it shows
(`harness.trial_key`), every timestamp is the run's start time plus the evaluation's index, and the tag
`harness.exported_seq` is set last. An export that was killed or whose server died is therefore completed by running it
again, and one that was completed adds nothing.

    >>> from pathlib import Path
    >>> from nasbed.reports.mlflow_export import export
    >>> export(Path("nasbed-out/3f2a/store"))          # doctest: +SKIP

MLflow itself is imported only while an export runs.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, get_args

from ..protocols import Json
from .mlflow_client import ExportError, connect, database_file, lock_file, locked, one_line_errors, quiet, shown
from .mlflow_rows import (
    EXPORTED,
    METHOD,
    PARENT,
    STUDY,
    TRIAL_KEY,
    Final,
    Rows,
    experiment_name,
    identity,
    planned,
    run_final,
    run_rows,
    study_rows,
)

Detail = Literal["summary", "runs"]

_METRICS_PER_CALL, _PARAMS_PER_CALL = 800, 100  # MLflow: 1000 metrics, 100 params, and 1000 of all kinds together
_REPORT = "nas.report_sha256"
_EPOCH_MS = 1_577_836_800_000  # 2020-01-01: MLflow takes 0 for "now"


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export did.

    Attributes:
        uri: Where to, without a password.
        experiment_id: MLflow's experiment of the study.
        parent_run_id: MLflow's run of the comparison.
        created: Runs that MLflow did not know.
        updated: Runs that it knew in part.
        seconds: Wall-clock time, the start of MLflow included.
    """

    uri: str
    experiment_id: str
    parent_run_id: str
    created: int
    updated: int
    seconds: float


def export(
    store_folder: Path,
    *,
    uri: str | None = None,
    report: Path | None = None,
    detail: Detail = "runs",
    progress: Callable[[int, int], None] | None = None,
) -> ExportResult:
    """Write all finished runs of a store, and what they say together, to MLflow.

    Args:
        store_folder: The run store; only read.
        uri: An MLflow tracking URI. By default `MLFLOW_TRACKING_URI`, else a database `mlflow.db` beside the store.
        report: A report folder, kept under `report/` of the comparison's artifacts.
        detail: "runs" nests one run per finished run under the comparison; "summary" writes the comparison alone.
        progress: Called after each run with (done, total).

    Raises:
        ValueError: `detail` or `report` is not what it should be, or there is no store,
            or its study has not ended.
        CorruptRecord: A stored run is damaged.
        ExportError: MLflow is missing, unreachable, or refuses.
    """
    began = time.monotonic()
    if detail not in get_args(Detail):
        raise ValueError(f"detail: {detail!r} is not one of {', '.join(get_args(Detail))}")
    if report is not None and not report.is_dir():
        raise ValueError(f"report: {str(report)!r} is not a folder")
    folder = Path(store_folder).resolve()
    target = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.parent / 'mlflow.db'}"
    from ..harness.store import RunStore

    store = RunStore(folder, create=False)
    study = store.study()
    planned(study)  # an unfinished study is the user's affair, not MLflow's
    done = [0, 0]

    def count(finished: int, total: int) -> None:
        done[:] = finished, total
        if progress is not None:
            progress(finished, total)

    with one_line_errors(target, done), quiet(), locked(lock_file(target, folder)):
        exporter = _Exporter(target, study)
        created, updated = exporter.export(store, detail, report, count)
    return ExportResult(shown(target), exporter.experiment, exporter.parent, created, updated, time.monotonic() - began)


class _Exporter:
    """One study at one tracking store: its experiment, its comparison run, and the runs that are there already."""

    def __init__(self, uri: str, study: Mapping[str, Json]) -> None:
        self.study = study
        self.remote = database_file(uri) is None
        self.client = connect(uri)
        self.experiment = self._experiment(uri)
        self.version = _version(study)
        rows = study_rows(study, (), version=self.version)
        self.known = self._search()
        parent = self.known.get((study["digest"], "")) or self._create(rows, _epoch(study))
        self.parent_run = parent
        self.parent: str = parent.info.run_id

    def export(
        self, store: Any, detail: Detail, report: Path | None, progress: Callable[[int, int], None]
    ) -> tuple[int, int]:
        """Write everything; returns how many runs were created and completed."""
        finished = store.finished()
        entries = [e for e in planned(self.study) if e["key"] in finished]
        finals: list[Final] = []
        created = updated = 0
        for i, entry in enumerate(entries, start=1):
            record = store.load(entry["key"])
            finals.append(run_final(self.study, entry, record))
            existing = self.known.get(identity(record.key, entry))
            if detail == "runs" and not self._complete(existing):
                self._write_run(store, entry, record, finals[-1], existing)
                created, updated = created + (existing is None), updated + (existing is not None)
            progress(i, len(entries))
        rows = study_rows(self.study, finals, version=self.version)
        if self.parent_run.data.tags.get(EXPORTED) != str(rows.seq) or self._open(rows):
            self._write(self.parent_run, rows)
        if report is not None:
            self._write_report(report)
        if created and self.remote:
            self._search()  # a creation that was retried, its answer lost, left a second run: remove it
        return created, updated

    def _experiment(self, uri: str) -> str:
        from mlflow.exceptions import MlflowException

        name, database = experiment_name(self.study), database_file(uri)
        place = None if database is None else (database.parent / "mlartifacts").as_uri()
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=place))
            except MlflowException:  # another exporter, on another computer, was faster
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise ExportError(f"experiment {name!r} was deleted in MLflow: restore it, or remove it with `mlflow gc`")
        return str(found.experiment_id)

    def _search(self) -> dict[tuple[str, str], Any]:
        """All our runs of the experiment by what they show; of several that show the same all but one go."""
        runs: dict[tuple[str, str], Any] = {}
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=token)
            for run in page:
                tags = run.data.tags
                key = (tags.get(TRIAL_KEY) or tags.get(STUDY, ""), tags.get(METHOD, ""))
                if not key[0]:
                    continue
                rivals = [run, runs[key]] if key in runs else [run]
                rivals.sort(key=lambda r: (EXPORTED not in r.data.tags, r.info.run_id))
                runs[key] = rivals[0]
                for rival in rivals[1:]:
                    self.client.delete_run(rival.info.run_id)
            token = page.token
            if not token:
                return runs

    def _complete(self, run: Any) -> bool:
        return run is not None and EXPORTED in run.data.tags and run.data.tags.get(PARENT) == self.parent

    def _open(self, rows: Rows) -> bool:
        return rows.finished and self.parent_run.info.status != "FINISHED"

    def _create(self, rows: Rows, start: int) -> Any:
        return self.client.create_run(self.experiment, start_time=start, tags=dict(rows.tags), run_name=rows.name)

    def _write_run(self, store: Any, entry: Mapping[str, Json], record: Any, final: Final, existing: Any) -> None:
        from ..harness.records import trace_digest

        timing = store.timing(record.key) or {}
        rows = run_rows(
            entry, record, final,
            parent=self.parent, trace=trace_digest(record), version=self.version, timing=timing,
        )  # fmt: skip
        if existing is None:
            existing = self._create(rows, self.parent_run.info.start_time)
        self._write(existing, rows)

    def _write(self, run: Any, rows: Rows) -> None:
        """Add to a run what it lacks; its tag comes last, so a run that has it is whole."""
        from mlflow.entities import Metric, Param, RunTag

        run_id, start = run.info.run_id, run.info.start_time
        present = {
            (m.key, m.step, m.value) for key in run.data.metrics for m in self.client.get_metric_history(run_id, key)
        }
        metrics = [Metric(p.key, p.value, start + p.step, p.step) for p in rows.points if _cell(p) not in present]
        params = [Param(k, v) for k, v in rows.params.items() if k not in run.data.params]
        tags = [RunTag(k, v) for k, v in rows.tags.items() if run.data.tags.get(k) != v]
        batches = zip_longest(
            _chunks(metrics, _METRICS_PER_CALL), _chunks(params, _PARAMS_PER_CALL), [tags] if tags else [], fillvalue=()
        )
        for batch in batches:
            self.client.log_batch(run_id, *batch, synchronous=True)
        if rows.finished:
            self.client.set_terminated(run_id, "FINISHED", end_time=start + rows.milliseconds)
        self.client.set_tag(run_id, EXPORTED, str(rows.seq), synchronous=True)

    def _write_report(self, report: Path) -> None:
        """Replace the report of the comparison, unless the same one is there."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        digest = _folder_digest(report)
        if self.parent_run.data.tags.get(_REPORT) == digest:
            return
        self.client.set_tag(self.parent, _REPORT, "incomplete", synchronous=True)
        if self.client.list_artifacts(self.parent, "report"):
            repository: Any = get_artifact_repository(self.parent_run.info.artifact_uri, self.client.tracking_uri)
            try:
                repository.delete_artifacts("report")  # figures that the new report lacks must not outlive the old one
            except NotImplementedError:
                logging.getLogger(__name__).info("this artifact store cannot delete: files of older reports stay")
        for entry in _entries(report):
            if entry.is_dir():
                self.client.log_artifacts(self.parent, str(entry), f"report/{entry.name}")
            else:
                self.client.log_artifact(self.parent, str(entry), "report")
        self.client.set_tag(self.parent, _REPORT, digest, synchronous=True)


def _cell(point: Any) -> tuple[str, int, float]:
    return point.key, point.step, point.value


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _entries(report: Path) -> list[Path]:
    """Files and folders of the report, without what else a study's output folder holds: the export's own database."""
    others = ("store", "study.sha256", "mlartifacts", "mlruns")
    return sorted(p for p in report.iterdir() if p.name not in others and not p.name.startswith("mlflow.db"))


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for e in _entries(folder) for p in (e, *e.rglob("*")) if p.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _version(study: Mapping[str, Json]) -> str:
    """Of the harness that ran the study, as far as the study record says."""
    recorded = (study.get("provenance") or {}).get("nasbed")
    if recorded:
        return str(recorded)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("nasbed")
    except PackageNotFoundError:
        return "unknown"


def _epoch(study: Mapping[str, Json]) -> int:
    """Start time of the comparison, in ms: when the study was created, if its record says so, else a fixed date."""
    created = str((study.get("provenance") or {}).get("created"))
    try:
        return int(datetime.fromisoformat(created).timestamp() * 1000)
    except ValueError:
        return _EPOCH_MS
