"""Reading sealed test values: for `harness.seal` after a run's last ask, and for verifying a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .manifest import MISSING
from .table import MappedTable


def unseal(table: MappedTable, pipeline: str) -> np.ndarray:
    """Test metric of every training after the last epoch of a pipeline, (rows, seeds), NaN where missing."""
    last = np.load(_path(table, f"test.{pipeline}"), mmap_mode="r", allow_pickle=False)[:, :, -1]
    return _fractions(last, table) if table.task.metric == "accuracy" else np.array(last, np.float64)


def unseal_fgsm(table: MappedTable, pipeline: str) -> np.ndarray | None:
    """Test accuracy under attack of every training after the last epoch, (rows, seeds), NaN where missing.

    The attack is the fast gradient sign method (Goodfellow et al. 2015) of the size `fgsm_epsilon` of the manifest.
    None where the table has no such measurements of the pipeline.
    """
    path = _path(table, f"fgsm.{pipeline}")
    if path.relative_to(table.folder).as_posix() not in table.manifest["files"]:
        return None
    return _fractions(np.load(path, mmap_mode="r", allow_pickle=False), table)


def _path(table: MappedTable, stem: str) -> Path:
    return table.folder / "sealed" / f"{stem}.npy"


def _fractions(counts: np.ndarray, table: MappedTable) -> np.ndarray:
    values = np.array(counts, np.float64)
    values[counts == MISSING] = np.nan
    values /= table.manifest["examples"]["test"]
    return values
