"""Reaching MLflow: a client, its database, a lock, and errors of one line. MLflow is imported when it is used."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# MLflow's own defaults retry for minutes; a store that can be exported again at any time need not wait so long.
# Otherwise every finished run prints its address on standard output, and MLflow reports usage to its makers.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class ExportError(RuntimeError):
    """MLflow could not be reached or refused; one line. The same export again completes it."""


def database_file(uri: str) -> Path | None:
    """The file of an SQLite URI; None for a server."""
    match = re.match(r"sqlite(?:\+\w+)?:///(.+)", uri)
    return Path(match[1]).resolve() if match and match[1] != ":memory:" else None


def lock_file(uri: str, folder: Path) -> Path:
    """Where exports to one MLflow wait for each other: beside its database, else beside the exported folder."""
    database = database_file(uri)
    return folder.parent / "mlflow.lock" if database is None else database.with_name(f"{database.name}.lock")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One export at a time: two would create the same runs twice, and two creating one SQLite file break it for good.

    The lock belongs to the open file, so it ends with the process however that dies; the empty file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def connect(uri: str) -> Any:
    """An MLflow client, its SQLite database created first where there is none."""
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ExportError(f"mlflow is not installed here ({error}): pip install 'mlflow>=3.5,<4'") from error
    database = database_file(uri)
    if database is not None and not (database.exists() and database.stat().st_size):
        _create_database(uri, database)
    return MlflowClient(tracking_uri=uri)


def _create_database(uri: str, database: Path) -> None:
    """Build the schema in a file aside and rename it.

    A process killed within MLflow's two seconds of migrations would leave a file that no later one can open.
    """
    from mlflow.store.tracking import sqlalchemy_store

    tracking_store: Any = sqlalchemy_store.SqlAlchemyStore
    draft = database.with_name(f"{database.name}.new")
    for leftover in database.parent.glob(f"{draft.name}*"):
        leftover.unlink()
    artifacts = (database.parent / "mlartifacts").as_uri()
    tracking_store(f"sqlite:///{draft}", artifacts).engine.dispose()
    connection = sqlite3.connect(draft)
    try:
        connection.execute("PRAGMA journal_mode=WAL")  # three times the write rate, and kept in the file
    finally:
        connection.close()
    draft.rename(database)
    # This process may still hold connections to a file of that name which is gone: MLflow keeps one pool per URI.
    tracking_store(uri, artifacts).engine.dispose()


@contextmanager
def quiet() -> Iterator[None]:
    """MLflow's HTTP limits (where the user set none), quiet for the time of an export; all restored after it."""
    missing = {k: v for k, v in _SETTINGS.items() if k not in os.environ}
    log = logging.getLogger("mlflow.store.db.utils")
    level = log.level
    os.environ.update(missing)
    log.setLevel(logging.WARNING)  # "Creating initial MLflow database tables...": nobody asked
    try:
        with warnings.catch_warnings():
            # Raised inside MLflow 3.17 by SQLAlchemy >= 2.1 when it maps its tables; nothing a caller can act on.
            warnings.filterwarnings("ignore", r"The ``noload`` loader strategy is deprecated", DeprecationWarning)
            yield
    finally:
        log.setLevel(level)
        for name in missing:
            os.environ.pop(name, None)


@contextmanager
def one_line_errors(uri: str, done: Sequence[int]) -> Iterator[None]:
    """Whatever MLflow and what it stands on raise becomes an ExportError; `done` says how many runs, of how many."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        if not isinstance(error, OSError | sqlite3.Error) and not _foreign(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        progress = f" after {done[0]} of {done[1]} runs" if done[1] else ""
        message = f"export to MLflow at {shown(uri)} stopped{progress}: {shown(reason)[:500]}"
        raise ExportError(f"{message} (the same export again completes it)") from error


def _foreign(error: Exception) -> bool:
    """Whether MLflow or what it stands on raised this (asked by name: they may not even be imported)."""
    return any(c.__module__.partition(".")[0] in {"mlflow", "sqlalchemy", "requests"} for c in type(error).__mro__)


def shown(text: str) -> str:
    """Without the passwords of URIs."""
    return re.sub(r"(://[^/@\s:]*):[^/@\s]*@", r"\1:***@", text)
