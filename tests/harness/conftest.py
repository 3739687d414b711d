from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nasbed.harness.plan import Plan, plan
from nasbed.harness.study import read_study
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.tabular import write_synthetic_table

# Methods written for these tests are named `planted:Class`, as a user names those of a module of their own.
sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """81 architectures, 3 training seeds, 4 epochs."""
    return write_synthetic_table(tmp_path_factory.mktemp("tables") / "world", Synthetic(genes=4, values=3), epochs=4)


@pytest.fixture(scope="session")
def planned(table: Path) -> Callable[..., Plan]:
    """A plan from study fields, on `table` unless they say otherwise."""

    def make(**fields: object) -> Plan:
        given: dict[str, object] = {"strategies": "random", "seeds": 2, "budget": "40epochs"}
        if not {"space", "data", "tables"} & set(fields):
            given["tables"] = str(table)
        return plan(read_study(None, {**given, **fields}))

    return make
