"""`nasbed checklist` as a user meets it."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from nasbed.harness.cli import main
from nasbed.harness.compare import carry_out
from nasbed.harness.plan import plan
from nasbed.harness.store import RunStore
from nasbed.harness.study import read_study
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.reports.checklist import FORMATS, STATUSES, checklist, files
from nasbed.reports.comparison import compare
from nasbed.reports.frame import load
from nasbed.tabular import write_synthetic_table


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small comparison with its checklist as reports have it, and an audit of its cheap estimator."""
    folder = tmp_path_factory.mktemp("checklist")
    write_synthetic_table(folder / "toy", Synthetic(genes=3, values=4), seeds=2, epochs=4)
    given = {"strategies": "random,local_search", "tables": str(folder / "toy"), "seeds": 5, "budget": "20evals",
             "estimators": "table,fewer_epochs[epochs=1]"}  # fmt: skip
    planned = plan(read_study(None, given))
    assert carry_out(planned, folder / "out") == []
    store = RunStore(folder / "out" / "store")
    for name, content in files(checklist(store, compare(load(store), resamples=1000))).items():
        (folder / "out" / name).write_bytes(content)
    (digest,) = {t.digest for t in planned.tables.values()}
    known = {"ceiling": 0.9, "reason": ""}
    estimator = {"name": "fewer_epochs[epochs=1]", "sign": 1, "flags": [],
                 "attainable": {"spearman": known, "tau_b": known}}  # fmt: skip
    (folder / "audit").mkdir()
    audit = {"tables": [{"digest": digest, "estimators": [estimator]}]}
    (folder / "audit" / "audit.json").write_text(json.dumps(audit))
    return folder


@pytest.fixture
def run(study, monkeypatch, capfd):
    from nasbed.harness.executors import ONE_THREAD

    monkeypatch.chdir(study)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ONE_THREAD:
        monkeypatch.setenv(name, "1")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["nasbed", "checklist", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capfd.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return call


def statuses(text):
    return {i["number"]: i["status"] for i in json.loads(text)["items"]}


def test_a_table_with_counts(run):
    code, out, err = run("out")
    lines = out.splitlines()
    assert (code, err, len(lines)) == (0, "", 24)
    assert lines[8].startswith(" 9 Repeated runs")
    assert "5 seeds of each method" in lines[8]
    found = json.loads(run("out", "--json")[1])
    assert lines[-1] == ", ".join(f"{found['counts'][s]} {s}" for s in STATUSES)
    assert sum(found["counts"].values()) == 23


def test_it_is_the_checklist_of_the_report(run, study):
    """From the folder or its store, though with fewer resamples."""
    written = (study / "out" / "checklist.json").read_text(encoding="utf-8")
    for folder in ("out", "out/store"):
        assert run(folder, "--format", "json") == (0, written, "")
    for kind in ("md", "html", "tex"):
        assert run("out", "--format", kind)[1] == (study / "out" / f"checklist.{kind}").read_text(encoding="utf-8")


def test_a_real_study_records_what_the_practices_ask_for(run):
    found = statuses(run("out", "--json")[1])
    assert {n for n, s in found.items() if s == "fail"} - {3} == {16}
    assert {4, 6, 7, 8, 10, 11, 14, 15, 17, 21, 22} <= {n for n, s in found.items() if s == "pass"}
    assert found[5] == "pass"  # the estimators are one setting


def test_strict_makes_fails_an_exit_code(run):
    assert run("out", "--strict")[0] == 1
    assert run("out")[0] == 0


def test_an_audit_answers_what_rests_on_it(run, study):
    before, after = (statuses(run("out", "--json", *more)[1]) for more in ((), ("--audit", "audit")))
    changed = {n: (before[n], after[n]) for n in before if before[n] != after[n]}
    assert changed == {16: ("fail", "pass"), 20: ("not-applicable", "pass")}


def test_files_are_written(run, study, tmp_path):
    code, out, err = run("out", "--out", tmp_path / "a")
    assert (code, len(out.splitlines()), len(err.splitlines())) == (0, 24, 4)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(f"checklist.{kind}" for kind in FORMATS)
    run("out", "--out", tmp_path / "b", "--format", "tex")
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["checklist.tex"]
    assert (tmp_path / "b" / "checklist.tex").read_bytes() == (study / "out" / "checklist.tex").read_bytes()


def test_runs_that_cannot_be_compared_are_a_finding(run, study, tmp_path):
    shutil.copytree(study / "out" / "store", tmp_path / "store")
    store = RunStore(tmp_path / "store", create=False)
    record = store.study()
    for facts in record["tables"].values():
        facts["digest"] = "another"
    store.write_study(record)
    code, out, err = run(tmp_path, "--json")
    found = statuses(out)
    assert (code, found[4], found[7], found[17]) == (0, "fail", "fail", "fail")
    assert err.startswith("without a comparison: run ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["nowhere"], ["folder: nowhere holds no finished comparison"]),
        (["audit"], ["folder: audit"]),
        (["out", "--format", "mdd"], ["format: 'mdd'", "html, md, tex, json", "did you mean 'md'?"]),
        (["out", "--audit", "nowhere"], ["audit: nowhere/audit.json cannot be read"]),
        (["out", "--audit", "broken"], ["audit: broken/audit.json is not JSON"]),
        (["out", "--audit", "other"], ["other/audit.json is not an audit of estimators"]),
        (["out", "--out", "audit/audit.json"], ["out: audit/audit.json cannot be written to"]),
        (["empty"], ["no finished run"]),
        (["out", "--strickt"], ["option: '--strickt'", "did you mean '--strict'?"]),
    ],
)
def test_a_wrong_input_is_one_line(run, study, arguments, fragments):
    for name, text in (("broken", "{"), ("other", "{}")):
        (study / name).mkdir(exist_ok=True)
        (study / name / "audit.json").write_text(text)
    empty = RunStore(study / "empty")
    empty.write_study(RunStore(study / "out" / "store").study())
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("nasbed: ")
    for fragment in fragments:
        assert fragment in err


def test_help_shows_examples(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "nasbed checklist nasbed-out/3f1c2a9b7d10 --audit nasbed-audit --format md" in out
