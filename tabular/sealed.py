"""Reading sealed test values: for `harness.seal` after a run's last ask, and for verifying a table."""

from __future__ import annotations

import numpy as np

from .format import MISSING
from .table import MappedTable


def unseal(table: MappedTable, pipeline: str) -> np.ndarray:
    """Test metric of every training after the last epoch of a pipeline, (rows, seeds), NaN where missing."""
    path = table.folder / "sealed" / f"test.{pipeline}.npy"
    last = np.load(path, mmap_mode="r", allow_pickle=False)[:, :, -1]
    values = np.array(last, np.float64)
    if table.task.metric == "accuracy":
        values[last == MISSING] = np.nan
        values /= table.manifest["examples"]["test"]
    return values
