"""The command line as a user meets it: help, wrong inputs, JSON, exit codes, interruption."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasbed.harness.cli import main
from nasbed.harness.store import RunStore
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.random import RandomSearch
from nasbed.tabular import write_synthetic_table, write_table

SCRIPT = """\
from nasbed.harness.cli import main

if __name__ == "__main__":
    main()
"""

VERBS = (
    "compare", "report", "estimate", "checklist", "plan-seeds", "list", "train", "check", "doctor", "space", "table",
    "export", "audit", "gate", "table list", "table info", "table verify", "table build", "export mlflow",
    "audit pipelines", "audit one-shot", "gate record", "gate check",
)  # fmt: skip

SOMETIMES_FAILS = '''\
"""A user's own strategy, with a bug that shows for one seed."""

from nasbed.methods.strategies.random import RandomSearch
from nasbed.protocols.streams import integer

BAD = integer(2, "strategy", "broken:Sometimes")
NUMBER = 3


class Sometimes(RandomSearch):
    def __init__(self, space, *, seed):
        super().__init__(space, seed=seed)
        self.bad = seed == BAD

    def ask(self, n=1):
        if self.bad:
            raise RuntimeError("an index went\\nout of bounds")
        return super().ask(n)


class Always(RandomSearch):
    def ask(self, n=1):
        raise RuntimeError("never works")


class NoTell:
    def ask(self, n=1):
        return []
'''

SLOW = '''\
"""A user's own strategy that takes its time and leaves a sign that it is running."""

import os
import time
from pathlib import Path

from nasbed.methods.strategies.random import RandomSearch


class Slow(RandomSearch):
    def ask(self, n=1):
        Path(f"running-{os.getpid()}").touch()
        time.sleep(float(os.environ.get("NAP", "0")))
        return super().ask(n)
'''


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's working folder: a complete table, a sample, a module of strategies."""
    folder = tmp_path_factory.mktemp("desk")
    space = Synthetic(genes=3, values=4, world=1)
    write_synthetic_table(folder / "toy", space, noise=0.01)
    some = [space.text(space.at(i)) for i in range(0, 64, 2)]
    counts = np.arange(32, dtype=np.uint16).reshape(32, 1, 1)
    manifest = {"name": "part", "examples": {"valid": 100, "test": 100}, "architectures": some}
    write_table(folder / "part", space, {"valid.base": counts, "test.base": counts}, manifest)
    (folder / "nasbed_cli.py").write_text(SCRIPT)
    (folder / "broken.py").write_text(SOMETIMES_FAILS)
    (folder / "slow.py").write_text(SLOW)
    return folder


@pytest.fixture
def run(desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the entry point in this process, standing in the working folder."""
    from nasbed.harness.executors import ONE_THREAD

    monkeypatch.chdir(desk)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ONE_THREAD:
        monkeypatch.setenv(name, "1")

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["nasbed", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capfd.readouterr()
        return Said(int(stopped.value.code or 0), said.out, said.err)

    return call


def child(arguments: Sequence[object], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, str(cwd / "nasbed_cli.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=120)


def one_document(text: str) -> Any:
    """The only JSON document on standard output."""
    value, end = json.JSONDecoder().raw_decode(text)
    assert text[end:] == "\n"
    return value


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_shows_an_example(run, verb):
    said = run(*verb.split(), "--help")
    assert said.code == 0
    assert re.search(rf"^ +(Example: )?nasbed {verb}", said.out, re.M), said.out
    assert said.err == ""


def test_the_list_of_verbs_is_complete(run):
    listed = re.findall(r"^  ([\w-]+)  +\S", run("--help").out.partition("Commands:")[2], re.M)
    assert [v for v in VERBS if " " not in v] == listed


def test_a_space_is_shown_with_an_architecture_and_its_picture(run, tmp_path):
    picture = tmp_path / "cell.svg"
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"
    found = json.loads(run("space", "nb201", "--architecture", text, "--draw", str(picture), "--json").out)
    assert (found["size"], found["value"], found["neighbours"]) == (15_625, "nb201:3.0.1.0.0.1", 24)
    assert found["features"]["params"] == 73_306 + 243_040
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    shown = run("space", "nb201", "--architecture", "nb201:3.0.1.0.0.1").out
    assert re.search(rf"^architecture: +{re.escape(text)}$", shown, re.M)
    assert re.search(r"^size: +15,625$", shown, re.M)
    assert "one_hot 30, path 155" in shown


def test_a_space_without_networks_for_the_data_is_refused_when_planned(run):
    for arguments in (("train", "--space", "rnn"), ("compare", "--strategies", "random", "--space", "rnn")):
        said = run(*arguments, "--data", "digits")
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert "rnn: inputs of task 'digits' are image" in said.err


def test_examples_are_not_broken_into_several_lines(run):
    for line in run("compare", "--help").out.partition("Examples:")[2].strip().splitlines():
        assert line.strip().startswith("nasbed compare "), line


@pytest.mark.parametrize("arguments", [["--help"], *([v, "--help"] for v in ("compare", "train", "doctor", "check"))])
def test_help_imports_nothing_heavy(desk, arguments):
    code = (
        f"import sys; sys.argv = ['nasbed', *{arguments!r}]\n"
        "from nasbed.harness.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'mlflow', 'pandas', 'scipy', 'sklearn', 'matplotlib', 'rich'}"
        " & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=desk, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"


# --- wrong inputs ----------------------------------------------------------------------------------------------------

TOY = ("compare", "--table", "toy", "--strategies")
REAL = ("compare", "--strategies", "random", "--space", "mlp", "--data", "digits")

WRONG: list[tuple[Sequence[str], list[str]]] = [
    (["foo"], ["verb: 'foo'", "compare, report"]),
    (["compair"], ["verb: 'compair'", "did you mean 'compare'?"]),
    (["table", "inf", "toy"], ["verb: 'inf'", "list, info, verify, build", "did you mean 'info'?"]),
    (["export", "mlfow", "x"], ["verb: 'mlfow'", "did you mean 'mlflow'?"]),
    (["compare", "--stratgies", "random"], ["option: '--stratgies'", "--seeds", "did you mean '--strategies'?"]),
    (["table", "verify", "toy", "--retrian", "1"], ["option: '--retrian'", "did you mean '--retrain'?"]),
    (["list", "strategie"], ["list: 'strategie'", "strategies, estimators", "did you mean 'strategies'?"]),
    (["list", "spaces", "extra"], ["extra"]),
    (["table", "info"], ["name"]),
    (["table", "info", "toyy"], ["table: 'toyy'", "name a folder"]),
    (["table", "verify", "toy", "--retrain", "-1"], ["--retrain"]),
    (["table", "build", "nowhere.toml"], ["nowhere.toml"]),
    (["report", "nowhere"], ["folder: nowhere"]),
    (["export", "mlflow", "nowhere"], ["folder: nowhere"]),
    (["check", "strategi", "random"], ["role: 'strategi'", "strategy, space", "did you mean 'strategy'?"]),
    (["check", "strategy", "randon"], ["strategy: 'randon'", "did you mean 'random'?"]),
    (["check", "space", "mpl"], ["space: 'mpl'", "did you mean 'mlp'?"]),
    (["train"], ["--space"]),
    (["train", "--space", "mpl", "--data", "digits"], ["space: 'mpl'", "did you mean 'mlp'?"]),
    (["train", "--space", "mlp", "--data", "digit"], ["data: 'digit'", "cifar10", "did you mean 'digits'?"]),
    (["train", "--space", "mlp", "--data", "mnist"], ["data-root", "mnist"]),
    (["train", "--space", "mlp", "--data", "digits", "--pipeline", "adm"], ["pipeline: 'adm'", "'adam'"]),
    (["train", "--space", "mlp", "--data", "digits", "--device", "cudda"], ["device: 'cudda'", "'cuda'"]),
    (["train", "--space", "mlp", "--data", "digits", "--seed", "-1"], ["--seed"]),
    (["train", "--space", "mlp", "--data", "digits", "--architecture", "64-rleu"], ["rleu"]),
    (["train", "--space", "mlp[widht=8]", "--data", "digits"], ["widht", "widths"]),
    (["compare", "--table", "toy"], ["strategies", "random"]),
    (["compare", "--strategies", "random"], ["tables", "data"]),
    ([*TOY, "randon"], ["strategy: 'randon'", "aging_evolution", "did you mean 'random'?"]),
    ([*TOY, "random,random"], ["strategies: 'random'", "twice"]),
    ([*TOY, "random["], ["'random['", "NAME[KEY=VALUE"]),
    ([*TOY, "random[replace]"], ["'replace'", "KEY=VALUE"]),
    ([*TOY, "aging_evolution[populaton_size=5]"], ["populaton_size", "did you mean 'population_size'?"]),
    ([*TOY, "nowhere:Strategy"], ["strategy: 'nowhere:Strategy'", "no module 'nowhere'"]),
    ([*TOY, "broken:Somtimes"], ["strategy: 'broken:Somtimes'", "'Somtimes'"]),
    ([*TOY, "broken:NUMBER"], ["strategy: 'broken:NUMBER'", "neither a class nor a function"]),
    ([*TOY, "broken:NoTell"], ["strategy: 'broken:NoTell'", "ask and tell"]),
    ([*TOY, "broken:"], ["strategy: 'broken:'", "package.module:attribute"]),
    ([*TOY, "random", "--estimators", "tabel"], ["estimator: 'tabel'", "did you mean 'table'?"]),
    (["compare", "--strategies", "random", "--table", "toyy"], ["table: 'toyy'", "name a folder"]),
    (["compare", "--strategies", "random", "--table", "toy,toy"], ["tables: 'toy'", "twice"]),
    ([*TOY, "random", "--data", "digits"], ["tables", "not on both"]),
    ([*TOY, "random", "--pipeline", "bsae"], ["pipeline", "'bsae'", "did you mean 'base'?"]),
    ([*TOY, "random", "--budget", "100"], ["budget: '100'", "100evals"]),
    ([*TOY, "random", "--budget", "100parsecs"], ["budget: '100parsecs'", "100evals"]),
    ([*TOY, "random", "--budget", "0evals"], ["budget: '0evals'"]),
    ([*TOY, "random", "--budget", "-5evals"], ["budget: '-5evals'"]),
    ([*TOY, "random", "--budget", "3600s"], ["budget", "epochs"]),
    ([*TOY, "random", "--seeds", "0"], ["seeds", "30"]),
    ([*TOY, "random", "--seeds", "many"], ["seeds: 'many'", "0-29"]),
    ([*TOY, "random", "--seeds", "9-3"], ["seeds", "0-29"]),
    ([*TOY, "random", "--batch", "0"], ["batch: 0", "1 .. 10000"]),
    ([*TOY, "random", "--batch", "two"], ["--batch"]),
    ([*TOY, "random", "--jobs", "-1"], ["--jobs"]),
    ([*TOY, "random", "--out", "broken.py"], ["out: broken.py"]),
    ([*REAL, "--retrain", "-1"], ["retrain: -1", "0 .. 100"]),
    ([*REAL, "--pipeline", "adm"], ["pipeline: 'adm'", "did you mean 'adam'?"]),
    ([*REAL, "--budget", "60s"], ["budget", "seconds"]),
    ([*REAL, "--device", "cudda"], ["device: 'cudda'", "auto, cpu, cuda"]),
    (["compare", "--strategies", "random", "--space", "mpl", "--data", "digits"], ["space: 'mpl'", "'mlp'"]),
    (["compare", "--strategies", "random", "--space", "mlp", "--data", "digit"], ["data: 'digit'", "digits, mnist"]),
    (["compare", "nowhere.toml"], ["study", "nowhere.toml"]),
]


@pytest.mark.parametrize(("arguments", "fragments"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_a_wrong_input_is_one_line_that_names_the_field(run, arguments, fragments):
    said = run(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("nasbed: ")
    assert said.err.count("\n") == 1
    for fragment in fragments:
        assert fragment in said.err


STUDIES = [
    ("strategies = [", ["study", "study.toml"]),
    ("stratgies = ['random']", ["'stratgies'", "did you mean 'strategies'?"]),
    ("strategies = 3\ntables = ['toy']", ["strategies", "list"]),
    ("strategies = [{label = 'x'}]\ntables = ['toy']", ["strategies", "name"]),
    ("strategies = [{name = 'random', parms = {}}]\ntables = ['toy']", ["'parms'", "did you mean 'params'?"]),
    ("strategies = ['random']\ntables = ['toy']\nseeds = 1.5", ["seeds: 1.5", "0-29"]),
    ("strategies = ['random']\ntables = ['toy']\nseeds = [1, 1]", ["seeds", "different"]),
    ("strategies = ['random']\ntables = ['toy']\nrope = 2.0", ["rope: 2.0", "0 .. 1"]),
    ("strategies = ['random']\ntables = ['toy']\nalpha = 0", ["alpha: 0", "0.5"]),
    ("strategies = ['random']\ntables = ['toy']\ndedupe = 'yes'", ["dedupe: 'yes'", "true or false"]),
    ("strategies = ['random']\ntables = ['toy']\nresamples = 10", ["resamples: 10", "100 .."]),
    ("strategies = ['random']\ntables = ['toy']\nname = 3", ["name: 3", "text"]),
]


@pytest.mark.parametrize(("text", "fragments"), STUDIES, ids=[f[0] for _, f in STUDIES])
def test_a_wrong_study_file_is_one_line_too(run, tmp_path, text, fragments):
    (tmp_path / "study.toml").write_text(text)
    said = run("compare", tmp_path / "study.toml")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    for fragment in ("nasbed: ", *fragments):
        assert fragment in said.err


def test_a_sampled_table_is_not_comparable(run):
    said = run("compare", "--strategies", "random", "--table", "part")
    assert said.code == 4
    assert said.err.count("\n") == 1
    assert "'part' is a sample" in said.err


def test_a_group_without_a_verb_shows_its_help(run):
    for group in ([], ["table"], ["export"]):
        said = run(*group)
        assert said.code == 2
        assert "Commands:" in said.out + said.err


# --- answers ---------------------------------------------------------------------------------------------------------

STUDY = ("--strategies", "random,local_search", "--table", "toy", "--seeds", 5, "--budget", "20evals", "--jobs", 1,
         "--no-mlflow")  # fmt: skip


@pytest.fixture(scope="module")
def finished(desk: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One comparison, done by a process of its own."""
    done = child(["compare", *STUDY, "--out", "first"], desk)
    assert done.returncode == 0, done.stderr
    return desk / "first", done


def test_a_comparison_says_its_verdict_and_where_the_report_is(finished):
    folder, done = finished
    assert "local_search" in done.stdout
    assert done.stdout.splitlines()[-1] == "report: first/report.html"
    assert (folder / "report.html").is_file()
    assert "runs: 100 %" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_the_same_command_again_does_nothing_new(finished, run):
    folder, _ = finished
    before = {p: p.stat().st_mtime_ns for p in (folder / "store" / "runs").rglob("*")}
    study = (folder / "store" / "study.json").read_bytes()
    said = run("compare", *STUDY, "--out", "first", "--json")
    assert said.code == 0
    document = one_document(said.out)
    assert document["report"] == "first/report.html"
    assert any("local_search" in line for line in document["summary"])
    assert said.err == "runs: 100 %\n"
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "store" / "runs").rglob("*")}
    assert (folder / "store" / "study.json").read_bytes() == study


def test_report_again_gives_the_same_bytes_elsewhere(finished, run):
    folder, _ = finished
    said = run("report", "first", "--out", "second", "--json")
    assert said.code == 0
    assert one_document(said.out)["report"] == "second/report.html"
    for name in ("report.html", "results.json", "tables/main.tex", "timing.json"):
        assert (folder.parent / "second" / name).read_bytes() == (folder / name).read_bytes()


def test_another_study_does_not_go_into_the_same_folder(finished, run):
    said = run("compare", *STUDY, "--out", "first", "--seeds", 6)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "out: first holds another study" in said.err


def test_dry_run_counts_and_writes_nothing(finished, run, desk):
    before = sorted(p for p in desk.rglob("*") if "__pycache__" not in p.parts)
    text = run("compare", *STUDY, "--out", "first", "--dry-run")
    document = one_document(run("compare", *STUDY, "--out", "new", "--dry-run", "--json").out)
    assert "10 runs, 10 of them finished, in first" in text.out
    assert (document["runs"], document["finished"]) == (10, 0)
    assert document["worlds"]["toy"]["budget"] == {"limit": 20.0, "unit": "evaluations"}
    assert run("compare", "--strategies", "random", "--table", "toy", "--dry-run").code == 0
    assert before == sorted(p for p in desk.rglob("*") if "__pycache__" not in p.parts)


def test_a_comparison_that_has_not_ended_has_no_report(run, desk):
    store = RunStore(desk / "begun" / "store")
    store.write_study({"schema": 1, "provenance": {}, "complete": False})
    said = run("report", "begun")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "folder: begun" in said.err


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["list", "strategies"], ["table", "list"], ["table", "info", "toy"], ["table", "verify", "toy"],
     ["check", "space", "synthetic"]],
    ids=" ".join,
)  # fmt: skip
def test_json_is_one_document(run, arguments):
    said = run(*arguments, "--json")
    assert said.code == 0, said.err
    assert one_document(said.out)


def test_list_names_every_method(run):
    found = one_document(run("list", "--json").out)
    assert {"random", "local_search", "aging_evolution"} <= set(found["strategies"])
    assert {"table", "full"} <= set(found["estimators"])
    assert all(line for line in found["strategies"].values())


def test_doctor_looks_at_everything(desk):
    done = child(["doctor", "--json"], desk)
    found = one_document(done.stdout)
    assert {"torch", "numpy", "disk", "machine"} <= set(found)
    assert done.returncode == (0 if all(e["ok"] for e in found.values()) else 1)
    assert "Traceback" not in done.stderr


def test_train_shows_a_learning_curve(run):
    said = run("train", "--space", "mlp", "--data", "digits", "--architecture", "32-relu", "--device", "cpu", "--json")
    assert said.code == 0, said.err
    found = one_document(said.out)
    assert len(found["valid"]) == len(found["train"]) == 10
    assert found["valid"][-1] > 5 * found["chance"]
    assert found["valid"][-1] > found["valid"][0]
    again = run("train", "--space", "mlp", "--data", "digits", "--architecture", "32-relu", "--device", "cpu")
    assert f"epoch  10  train {found['train'][-1]:.4f}  valid {found['valid'][-1]:.4f}" in again.out


def test_verify_finds_a_changed_byte(run, desk):
    shutil.copytree(desk / "toy", desk / "changed")
    with (desk / "changed" / "valid.base.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    said = run("table", "verify", "changed", "--json")
    assert said.code == 1 or (said.code == 2 and said.err.count("\n") == 1)
    assert "valid.base.npy" in said.out + said.err
    refused = run("compare", "--strategies", "random", "--table", "changed")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "valid.base.npy" in refused.err


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}], ids=str)
def test_output_that_is_no_terminal_has_no_colours(desk, env):
    done = child(["compare", *STUDY, "--out", "new", "--dry-run"], desk, **env)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr


def test_a_reader_that_leaves_is_no_error(desk):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} nasbed_cli.py table info toy | true"],
        cwd=desk, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_run_that_raises_takes_no_other_with_it(run, desk):
    study = ("--strategies", "broken:Sometimes,random", "--table", "toy", "--seeds", 4, "--budget", "10evals",
             "--jobs", 1, "--no-mlflow", "--out", "failing")  # fmt: skip
    said = run("compare", *study)
    assert said.code == 1
    assert "failed: broken:Sometimes, table, toy, seed 2: RuntimeError: an index went" in said.err
    assert 'broken.py", line' in said.err  # the user's own traceback
    assert "1 runs failed" in said.err
    record = RunStore(desk / "failing" / "store", create=False).study()
    assert [(f["strategy"], f["seed"]) for f in record["failed"]] == [("broken:Sometimes", 2)]
    assert len(record["runs"]) == 7
    results = (desk / "failing" / "tables" / "results.md").read_text()
    assert re.search(r"broken:Sometimes.*\b3/4\b", results)
    assert re.search(r"random.*\b4/4\b", results)


def test_when_every_run_fails_there_is_no_report(run, desk, monkeypatch):
    monkeypatch.setattr(RandomSearch, "ask", lambda self, n=1: 1 / 0)
    said = run("compare", "--strategies", "broken:Always", "--table", "toy", "--seeds", 1, "--budget", "5evals",
               "--jobs", 1, "--no-mlflow", "--out", "none")  # fmt: skip
    assert (said.code, said.out) == (1, "")
    assert "2 runs failed" in said.err
    assert "never works" in said.err
    assert said.err.splitlines()[-1] == "nasbed: every run failed, so there is nothing to report"
    assert not (desk / "none" / "report.html").exists()


# --- interruption ----------------------------------------------------------------------------------------------------


def alive(group: int) -> list[str]:
    """Processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupt_and_resume(desk, tmp_path, jobs):
    for name in ("nasbed_cli.py", "slow.py"):
        shutil.copy(desk / name, tmp_path)
    shutil.copytree(desk / "toy", tmp_path / "toy")
    arguments = ["compare", "--strategies", "slow:Slow", "--table", "toy", "--seeds", "3", "--budget", "5evals",
                 "--jobs", str(jobs), "--no-mlflow", "--out", "an out"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "nasbed_cli.py", *arguments], cwd=tmp_path, env={**os.environ, "NAP": "600"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("running-*"))) < jobs:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        deadline = time.monotonic() + 10
        while alive(process.pid):
            assert time.monotonic() < deadline, alive(process.pid)
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert out == ""
    assert "Traceback" not in err
    resume = err.splitlines()[-1].strip()
    assert resume.startswith("nasbed compare ")
    assert resume.endswith("--out 'an out'")
    if jobs == 1:
        return
    done = subprocess.run(
        ["bash", "-c", f'nasbed() {{ "{sys.executable}" nasbed_cli.py "$@"; }}; {resume}'],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "report: an out/report.html" in done.stdout
    assert len(RunStore(tmp_path / "an out" / "store", create=False).finished()) == 6
