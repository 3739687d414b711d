"""The report of an audit: every number of the page comes from the audit, and the same audit gives the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasbed.protocols import Traits
from nasbed.protocols.evidence import Scores, Truth
from nasbed.reports.audit import grids, variance
from nasbed.reports.audit.audit import audit_table
from nasbed.reports.audit.checklist import checklist
from nasbed.reports.audit.correlation import draw_counts
from nasbed.reports.audit.mlflow import log_audit, metrics_of
from nasbed.reports.audit.page import Report, report
from nasbed.reports.audit.results import Audit, Decision, NoisePoint, Settings
from nasbed.reports.audit.variance_page import report as variance_report
from nasbed.reports.audit.write import report_files, write_report
from nasbed.reports.statistics import Interval

SETTINGS = Settings(resamples=100)
N = 120


def interval(value: float) -> Interval:
    return Interval(value, value - 0.1, value + 0.1, 0.95, "bootstrap", 10)


@pytest.fixture(scope="module")
def audit() -> Audit:
    rng = np.random.default_rng(0)
    params, skips = rng.gamma(4.0, 1000.0, N).round(), rng.integers(0, 4, N).astype(float)
    quality = 0.6 + 0.1 * np.log(params / 4000.0) + 0.05 * rng.standard_normal(N)
    truth = Truth(
        "world", "0123abcd", "synthetic", "base", "accuracy", True, "flops", complete=True, size=N,
        architectures=tuple(f"a{i}" for i in range(N)), values=quality[:, None] + 0.01 * rng.standard_normal((N, 3)),
        seeds=(0, 1, 2), cost=np.full(N, 10.0), features={"params": params, "flops": 2 * params, "n_skip": skips},
    )  # fmt: skip
    made = [
        scores("params", params[:, None], baseline=True),
        scores("<i>good</i>", quality[:, None] + 0.03 * rng.standard_normal((N, 2)), accuracy_scale=True),
        scores("wrong", -quality[:, None] + 0.02 * rng.standard_normal((N, 2))),
        scores("few", quality[:, None] + 0.1 * rng.standard_normal((N, 2)), axis=("epochs", 2.0)),
    ]
    made[1].values[3, 0] = np.nan
    decision = Decision(
        "aging_evolution", 12, 10, interval(0.4), interval(0.2), interval(0.1), interval(0.3), interval(0.2),
        interval(0.1), {10: interval(0.15)}, {10: interval(-0.2)}, interval(-0.3), 1.0,
    )  # fmt: skip
    noise = [NoisePoint(s, 1.0 - 0.3 * s, interval(0.2 * s)) for s in (0.0, 1.0, 2.0)]
    table = audit_table(truth, made, SETTINGS, decisions={"wrong": decision}, noise=noise)
    one = table.estimators[-1:]
    other = replace(table, table="other & world", estimators=one, fronts=(), fidelities=(), noise=())
    return Audit(SETTINGS, (table, other))


def scores(
    name: str, values: np.ndarray, *, axis: Any = None, baseline: bool = False, accuracy_scale: bool = False
) -> Scores:
    return Scores(
        name, "digest", Traits(accuracy_scale, deterministic=values.shape[1] == 1), values, np.ones(N, bool),
        np.zeros(values.shape, bool), {}, np.full(values.shape, 0.5), np.zeros(values.shape[1]), "flops", 10.0, axis,
        baseline,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(audit: Audit) -> Report:
    return report(audit)


@pytest.fixture(scope="module")
def files(made: Report) -> Mapping[str, bytes]:
    return report_files(made)


def test_the_same_audit_gives_the_same_bytes(audit: Audit) -> None:
    small = replace(audit, tables=audit.tables[1:])
    assert report_files(report(small)) == report_files(report(small))


def test_the_page_needs_nothing_from_outside(files: Mapping[str, bytes]) -> None:
    page = files["audit.html"].decode()
    assert not re.search(r'(?:src|href)="(?!#|data:)', page.replace('href="checklist', 'href="#'))
    assert "<i>good</i>" not in page
    assert "&lt;i&gt;good&lt;/i&gt;" in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for anchor in re.findall(r'href="#([^"]+)"', page):
        assert anchor in ids


def test_every_estimator_has_a_page_with_its_verdicts(audit: Audit, files: Mapping[str, bytes]) -> None:
    page = files["audit.html"].decode()
    assert page.count('<section class="estimator"') == sum(len(t.estimators) for t in audit.tables)
    [wrong] = [e for e in audit.tables[0].estimators if e.name == "wrong"]
    assert any("ranks the wrong way" in v.lower() for v in wrong.verdicts)
    assert "fault" in {f.severity for f in wrong.flags}
    assert page.index("anks the wrong way") < page.index('<section class="estimator"')  # among the findings, first
    assert any("worth its cost" in v for v in wrong.verdicts)


def test_the_numbers_are_those_of_the_audit(audit: Audit, files: Mapping[str, bytes]) -> None:
    found = json.loads(files["audit.json"])
    first = audit.tables[0].estimators[0]
    assert found["tables"][0]["estimators"][0]["correlations"]["tau_b"]["low"] == first.correlations["tau_b"].low
    assert "points" not in found["tables"][0]
    csv = files["tables/correlations-world.csv"].decode().splitlines()
    row = dict(zip(csv[0].split(","), csv[1].split(","), strict=True))
    assert float(row["tau_b"]) == first.correlations["tau_b"].estimate
    assert float(row["tau_b_high"]) == first.correlations["tau_b"].high


def test_every_table_and_figure_is_there(audit: Audit, files: Mapping[str, bytes]) -> None:
    names = {g.name for t in audit.tables for g in grids.table_grids(t)}
    for name in names:
        assert {f"tables/{name}.{kind}" for kind in ("tex", "csv", "md")} <= set(files)
    figures = ("heat_map", "ranking-world", "front-world", "fidelity-world", "decisions-world", "noise-world")
    for name in (*figures, "scatter-world-wrong", "bias-world-wrong"):
        assert files[f"figures/{name}.pdf"].startswith(b"%PDF"), name
        assert files[f"figures/{name}.png"].startswith(b"\x89PNG"), name
    assert b"Type 3" not in files["figures/ranking-world.pdf"]
    assert {"checklist.html", "checklist.json", "checklist.md", "checklist.tex"} <= set(files)


def test_features_that_say_the_same_are_one(audit: Audit) -> None:
    [wrong] = [e for e in audit.tables[0].estimators if e.name == "wrong"]
    assert [b.feature for b in wrong.biases] == ["params = flops", "n_skip"]


def test_scores_of_a_part_of_the_space_are_a_sample() -> None:
    rng = np.random.default_rng(1)
    quality = rng.random(N)
    truth = Truth(
        "world", "d", "synthetic", "base", "accuracy", True, "flops", True, N, tuple(f"a{i}" for i in range(N)),
        quality[:, None] + 0.01 * rng.standard_normal((N, 2)), (0, 1), np.ones(N), {"params": rng.random(N)},
    )  # fmt: skip
    whole = scores("whole", quality[:, None] + 0.1 * rng.standard_normal((N, 1)))
    part = replace(whole, name="part", asked=np.arange(N) < 60)
    by_name = {e.name: e.correlations["tau_b"] for e in audit_table(truth, [whole, part], SETTINGS).estimators}
    assert (by_name["whole"].method, by_name["part"].method) == ("seeds", "architectures")
    assert by_name["part"].half_width > 2 * by_name["whole"].half_width


def test_the_checklist_is_filled_in(audit: Audit) -> None:
    def status(of: Audit) -> dict[int, str]:
        return {i.number: i.status for i in checklist(of).items}

    found = status(audit)
    assert {found[n] for n in (4, 6, 9, 10, 13, 16, 17, 20, 22, 23)} == {"pass"}
    assert found[5] == found[7] == "not-applicable"
    assert found[12] == "needs-human"
    assert found[8] == "fail"  # the second table has no baseline
    first = audit.tables[0]
    assert status(replace(audit, tables=(first,)))[8] == "pass"
    assert status(replace(audit, tables=(replace(first, seeds=1),)))[9] == "fail"
    partly = replace(first.estimators[0], left_out=3, answer=float("nan"))
    found = status(replace(audit, tables=(replace(first, estimators=(partly,)),)))
    assert found[4] == found[13] == "fail"


def test_logging_twice_changes_nothing(made: Report, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    write_report(made, tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    counts = []
    for _ in range(2):
        log_audit(tmp_path, made.numbers, uri=uri)
        client = MlflowClient(uri)
        [experiment] = [e for e in client.search_experiments() if e.name.startswith("nasbed-audit")]
        runs = client.search_runs([experiment.experiment_id])
        counts.append(len(runs))
        [one] = [r for r in runs if r.data.tags["mlflow.runName"] == "wrong on world"]
        assert one.data.metrics["audit/tau_b"] == metrics_of(made.numbers["tables"][0]["estimators"][-1])["audit/tau_b"]
        assert one.info.status == "FINISHED"
    assert counts == [6, 6]
    [parent] = [r for r in runs if r.data.tags["nas.role"] == "audit"]
    assert "report/audit.html" in {a.path for a in client.list_artifacts(parent.info.run_id, "report")}


def test_the_report_of_pipelines() -> None:
    rng = np.random.default_rng(2)
    values = 0.6 + 0.1 * rng.standard_normal((40, 1, 1)) + 0.01 * rng.standard_normal((40, 3, 3))
    values[:, 1] += 0.05
    found = variance.variance_audit(
        np.clip(values, 0.0, 1.0), table="t", space="s", metric="accuracy", pipelines=("base", "+a", "+b"),
        costs=(1.0, 1.0, 0.5), base="base", counts=draw_counts(40, 100, rng), examples=1000,
    )  # fmt: skip
    files = report_files(variance_report(found, "", [("t", "digest")]))
    page = files["audit.html"].decode()
    assert variance.answer(found) in page.replace("&#39;", "'")
    assert {"figures/variance-t.pdf", "tables/transfer-t.csv", "tables/choices-t.tex"} <= set(files)
    assert json.loads(files["audit.json"])["answer"] == variance.answer(found)
