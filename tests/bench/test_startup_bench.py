"""What comes before any work: opening a table, and `nasbed --help`."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from statistics import median

import pytest

from nasbed.tabular import MappedTable, embedded, find

HEAVY = {"torch", "mlflow", "pandas", "scipy", "sklearn"}
HELP = "import sys; sys.argv = ['nasbed', '--help']; from nasbed.harness.cli import main; main()"


@pytest.mark.parametrize("name", ["nb201-sized", "mlp-digits"])
def test_a_table_opens_in_fifty_milliseconds(name, nb201_sized):
    if name not in ("nb201-sized", *embedded()):
        pytest.skip(f"the table {name} is not there")
    folder = nb201_sized if name == "nb201-sized" else find(name)
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        MappedTable(folder)
        seconds.append(time.perf_counter() - began)
    print(f"\n{name} opens in {1e3 * min(seconds):.1f} ms (goal < 50; slowest of 10: {1e3 * max(seconds):.1f})")
    assert min(seconds) < 0.05


def _python(program):
    """CPU seconds of a Python process that runs the program."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


def test_help_costs_less_than_ten_bare_pythons():
    # Start-ups come in pairs, so that the machine's other load falls on both; the least times of both need not meet.
    turns = [(_python(HELP)[0], _python("pass")[0]) for _ in range(15)]
    ratio = median(ours / bare for ours, bare in turns)
    ours, bare = (1e3 * median(times) for times in zip(*turns, strict=True))
    print(f"\n--help {ours:.0f} ms, bare Python {bare:.0f} ms of CPU: {ratio:.1f} times (goal < 10)")
    assert ratio < 10


def test_help_imports_nothing_heavy():
    tell = "import atexit, json, sys; atexit.register(lambda: print(json.dumps([*sys.modules]), file=sys.stderr))"
    _, done = _python(f"{tell}; {HELP}")
    imported = {name.partition(".")[0] for name in json.loads(done.stderr)}
    assert "Usage" in done.stdout
    assert "typer" in imported
    assert not imported & HEAVY
