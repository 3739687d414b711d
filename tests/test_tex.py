"""The report's tables and figures set by LaTeX in a two-column article."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nasbed.harness.compare import carry_out
from nasbed.harness.plan import plan
from nasbed.harness.study import read_study
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.reports.write import write_report
from nasbed.tabular import write_synthetic_table

PDFLATEX, TECTONIC = shutil.which("pdflatex"), shutil.which("tectonic")

pytestmark = pytest.mark.skipif(not (PDFLATEX or TECTONIC), reason="neither pdflatex nor tectonic on the PATH")

HOSTILE = r"Is 100 % of #1 {better} than $x_i^2$ & \dots~?"
LABEL = r"evo_1\%{a}&b#^~$"


def typeset(folder: Path) -> str:
    """Set `main.tex` twice, for the references; the log of the second time."""
    if PDFLATEX:
        command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    else:
        assert TECTONIC
        command = [TECTONIC, "--keep-logs", "main.tex"]
    for _ in range(2 if PDFLATEX else 1):
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout.decode("utf-8", "replace")[-3000:]
    return (folder / "main.log").read_text("utf-8", "replace")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tex")
    names = ["world_0", "world_1"]
    for i, name in enumerate(names):
        write_synthetic_table(folder / name, Synthetic(genes=4, values=4, world=i))
    strategies = [{"name": "random"}, {"name": "aging_evolution", "label": LABEL}, {"name": "local_search"}]
    given = {"strategies": strategies, "tables": [str(folder / n) for n in names], "seeds": 6, "budget": "40evals",
             "name": HOSTILE, "resamples": 500}  # fmt: skip
    assert carry_out(plan(read_study(None, given)), folder) == []
    write_report(folder / "store", folder)
    return folder


def test_the_article_compiles_and_nothing_sticks_out(report):
    log = typeset(report / "tables")
    assert (report / "tables" / "main.pdf").stat().st_size > 20_000
    tables = list((report / "tables").glob("*.tex"))
    assert len(tables) >= 6
    assert "undefined" not in log
    assert "multiply defined" not in log
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \((\d+\.\d+)pt too wide\)", log)]
    assert not [w for w in wide if w > 3.0]
    assert "Float too large" not in log
