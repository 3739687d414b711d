"""`nasbed audit` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nasbed.harness import cli
from nasbed.tabular import open_table


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["nasbed", "audit", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


QUICK = ("--resamples", "100", "--no-mlflow")


def test_estimators_and_your_own_scores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = open_table("nb201-clutter")
    rows = [f"{table.text(i)},{-(i * 7919 % 729)}" for i in range(0, 729, 3)]
    mine = tmp_path / "mine.csv"
    mine.write_text("\n".join(["architecture,score", *rows]) + "\n", encoding="utf-8")
    code = run(
        monkeypatch, "--table", "nb201-clutter", "--estimators", "synflow", "--scores", str(mine), "--lower-is-better",
        "--searches", "3", *QUICK, "--out", str(tmp_path / "out"),
    )  # fmt: skip
    said = capsys.readouterr().out
    assert code == 0
    assert "synflow ranks with τ-b = 0." in said
    assert "not asked for all of the 729 architectures: mine (243)" in said
    numbers = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    [audited] = numbers["tables"]
    by_name = {e["name"]: e for e in audited["estimators"]}
    assert set(by_name) == {"synflow", "mine", "params", "flops"}
    assert by_name["mine"]["sign"] == -1
    assert by_name["mine"]["decision"] is None  # a search would ask for what was not scored
    assert by_name["synflow"]["decision"]["seeds"] == 3
    assert (tmp_path / "out" / "provenance.json").exists()
    assert (tmp_path / "out" / "audit.html").exists()


def test_a_name_that_one_table_has_is_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = run(
        monkeypatch, "--table", "nb201-clutter,pipelines-clutter", "--estimators", "width,params", "--strategies",
        "none", *QUICK, "--out", str(tmp_path), "--json",
    )  # fmt: skip
    answer = capsys.readouterr()
    assert code == 0
    assert "nb201-clutter has no estimates width" in answer.err
    summary = json.loads(answer.out)["summary"]
    assert any(line.startswith("pipelines-clutter: width") for line in summary)
    assert any("a sample of 729" in line for line in summary)


def test_pipelines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = run(
        monkeypatch, "pipelines", "--table", "pipelines-clutter", "--pipelines", "+cosine,+mixup", "--resamples", "100",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert code == 0
    said = capsys.readouterr().out
    assert "On pipelines-clutter (120 architectures, 2 pipelines, 3 seeds), architectures explain" in said
    assert "other ingredients, spaces or amounts of data may be answered otherwise" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "table: name one or several"),
        (("--table", "nb201-cluter"), "did you mean 'nb201-clutter'"),
        (("--table", "nb201-clutter", "--estimators", "synflw"), "did you mean 'synflow'"),
        (("--table", "nb201-clutter", "--scores", "nowhere.csv"), "there is no file nowhere.csv"),
        (("--table", "nb201-clutter", "--pipeline", "base"), "pipeline: 'base' is not one of +cosine"),
        (("--table", "nb201-clutter", "--strategies", "randm"), "did you mean 'random'"),
        (("pipelines", "--table", "mlp-digits,nb201-clutter"), "table: name one table of several pipelines"),
        (("pipelines", "--table", "nb201-clutter"), "two different ones"),
        (("one-shot", "--table", "pipelines-clutter"), "is a sample"),
        (("one-shot", "--table", "nb201-clutter", "--estimator", "synflow"), "estimator"),
    ],
)
def test_what_is_wrong_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    arguments: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("nasbed: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in err


def test_help_shows_how() -> None:
    line = "import sys; from nasbed.harness.cli import main; sys.exit(main())"
    answer = subprocess.run([sys.executable, "-c", line, "audit", "--help"], capture_output=True, text=True, check=True)
    assert "nasbed audit --table nb201-clutter --scores mine.csv" in answer.stdout
