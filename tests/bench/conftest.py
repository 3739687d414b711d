from __future__ import annotations

import gc
import time
from statistics import median

import numpy as np
import pytest

from nasbed.tabular import write_table

ROWS, SEEDS, EPOCHS, EXAMPLES = 15_625, 3, 200, 25_000


@pytest.fixture(scope="session")
def nb201_sized(tmp_path_factory):
    """Folder of a complete table of the size of NAS-Bench-201; its values are invented and mean nothing."""
    rng = np.random.default_rng(0)
    counts = rng.integers(EXAMPLES, size=(ROWS, SEEDS, EPOCHS), dtype=np.uint16)
    arrays = {"valid.base": counts, "test.base": counts, "cost.base": rng.uniform(0.5, 1.0, ROWS)}
    folder = tmp_path_factory.mktemp("tables") / "nb201-sized"
    manifest = {"name": "nb201-sized", "clock": "seconds", "examples": {"valid": EXAMPLES, "test": EXAMPLES}}
    return write_table(folder, "nb201", arrays, manifest)


@pytest.fixture
def by_turns():
    """Function (f, g, ..., repeats=n) -> CPU seconds of each call, one list for each function.

    The functions take turns, so that the machine's other load falls on all of them alike.
    """

    def measure(*functions, repeats):
        taken = [[] for _ in functions]
        gc.collect()
        for _ in range(repeats):
            for times, function in zip(taken, functions, strict=True):
                began = time.process_time()
                function()
                times.append(time.process_time() - began)
        return taken

    return measure


@pytest.fixture
def median_ratio():
    """Median over turns of the ratio between two functions' times in the same turn."""
    return lambda slow, fast: median(a / b for a, b in zip(slow, fast, strict=True))
