"""The numbers of docs/audit.md, made again: those that need no resampling here, all of them in the slow test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nasbed.harness import evidence
from nasbed.reports.audit.audit import audit_table
from nasbed.reports.audit.results import Settings
from nasbed.reports.audit.variance import components
from nasbed.tabular import open_table

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")


def row(name: str) -> list[str]:
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_correlations_and_ceilings() -> None:
    table = open_table("nb201-clutter")
    truth = evidence.truth(table)
    scores = [*evidence.baselines(truth), *evidence.estimates(truth, table, ["synflow", "naswot", "one_shot_uniform"])]
    for e in audit_table(truth, scores, Settings(resamples=100)).estimators:
        shown = row(f"**{e.name}**" if e.baseline else f"`{e.name}`")
        assert shown[1].startswith(f"{e.correlations['tau_b'].estimate:.2f} ["), e.name
        assert shown[2] == f"{100 * e.attainable['tau_b'].share:.0f} %", e.name
        assert shown[3].startswith(f"{e.top_attainable['tau_b'].observed.estimate:.2f} ["), e.name
        assert f"The ceiling of τ-b is {e.attainable['tau_b'].ceiling:.2f}" in PAGE


@pytest.mark.parametrize("chosen", [None, ("+cosine", "+cutout", "+mixup")])
def test_shares_of_variance(chosen: tuple[str, ...] | None) -> None:
    found = evidence.pipelines_truth(open_table("pipelines-clutter"), chosen)
    shares = components(found.values, shared_seeds=True).shares
    sentence = re.search(rf"On pipelines-clutter \(120 architectures, {len(found.pipelines)} pipelines.*", PAGE)
    assert sentence is not None
    said = [int(n) for n in re.findall(r"(\d+) % \[", sentence[0])]
    assert said[:2] == [round(100 * shares["arch"]), round(100 * shares["pipe"])]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_estimators_of_the_page(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import make_audit
    finally:
        sys.path.pop(0)
    line = "import sys; from nasbed.harness.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", line, *make_audit.COMMANDS["estimators"], "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    [table] = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["tables"]
    for line in (*make_audit.estimators(table), *make_audit.noise(table), *make_audit.fidelities(table)):
        assert line in PAGE
    assert np.isfinite(table["estimators"][0]["correlations"]["tau_b"]["low"])
