"""The pytest plugin, used from projects of somebody else's; and the gate on our own strategies."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from math import inf
from pathlib import Path
from statistics import median

import pytest

from nasbed.harness import gate, pytest_checks, pytest_plugin
from nasbed.harness.checks import yield_checks
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.tabular import write_synthetic_table

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

# What a gate imports when it runs: what is not there already, each inner pytest would import anew.
for name in ("methods.estimators.table", "methods.strategies.random", "methods.spaces.mlp", "reports.statistics"):
    importlib.import_module(f"nasbed.{name}")
for name in ("numpy.ma", "numpy.random"):
    importlib.import_module(name)

MINE = """\
import numpy as np

from nasbed.protocols import Proposal


class Mine:
    def __init__(self, space, *, seed, restart=0.2):
        self.space, self.rng, self.restart = space, np.random.default_rng(seed), restart
        self.best, self.score, self.asked = None, -np.inf, set()

    def ask(self, n=1):
        proposals = [Proposal(self.propose()) for _ in range(n)]
        self.asked.update(p.architecture for p in proposals)
        return proposals

    def tell(self, observations):
        for o in observations:
            if o.proposal.architecture in self.asked and o.score > self.score:
                self.best, self.score = o.proposal.architecture, o.score

    def propose(self):
        if self.best is None or self.rng.random() < self.restart:
            return self.space.sample(self.rng)
        return self.space.mutate(self.best, self.rng)
"""

GATE = """\
import pytest
from mine import Mine


@pytest.mark.nasbed(table="toy", seeds="0-99", budget="12evals")
def test_mine(nas_gate):
    verdict = nas_gate(Mine, baseline="mine.jsonl")
    assert (verdict.outcome, verdict.traces) == ("pass", 100)
"""

INI = """\
[pytest]
pythonpath = .
addopts = --strict-markers --strict-config -p no:cacheprovider -p nasbed.harness.pytest_plugin
nasbed_store = kept
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_synthetic_table(
        tmp_path_factory.mktemp("table") / "toy", Synthetic(genes=4, values=5), seeds=2, epochs=2
    )


@pytest.fixture
def project(pytester, toy, monkeypatch):
    """Somebody's project, with a table, a strategy, and its gate, which has no baseline yet."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others, imported for each inner pytest, take seconds
    shutil.copytree(toy, pytester.path / "toy")
    pytester.makeini(INI)
    pytester.makepyfile(mine=MINE, test_gate=GATE)
    return pytester


@pytest.fixture(scope="module")
def baseline(toy):
    """Recorded once; that the plugin records the same is tested below."""
    folder = toy.parent
    (folder / "mine.py").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        gate.record_baseline("mine:Mine", "toy", folder / "mine.jsonl", seeds="0-99", budget="12evals")
        sys.modules.pop("mine")
    return folder / "mine.jsonl"


@pytest.fixture
def recorded(project, baseline):
    (project.path / "kept").mkdir()
    shutil.copy(baseline, project.path / "kept")
    return project


def change(project, old, new, file="mine.py"):
    path = project.path / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# The gate.


def test_recording_is_that_of_the_gate(project, baseline):
    result = project.runpytest_inprocess("--nasbed-record")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*recorded *kept*mine.jsonl"])
    ours, theirs = (p.read_bytes().splitlines()[1:] for p in (project.path / "kept" / "mine.jsonl", baseline))
    assert ours == theirs


def test_what_is_recorded_passes(recorded):
    result = recorded.runpytest_inprocess("--nasbed-json=out/gates.json")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*= nasbed =*", "*test_gate.py::test_mine", "*mine:Mine exact*100/100 traces*PASS"])
    [found] = json.loads((recorded.path / "out" / "gates.json").read_text())["gates"]
    assert (found["test"], found["outcome"], found["level"]) == ("test_gate.py::test_mine", "pass", "exact")


def test_a_broken_selection_fails_with_the_text_of_the_gate(recorded):
    change(recorded, "o.score > self.score", "o.score < self.score or self.best is None")
    result = recorded.runpytest_inprocess("--nasbed-json=gates.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate: baseline*alpha=0.01 *", "mine:Mine statistical*FAIL", "*first divergence: *"])
    assert "pytest_plugin.py" not in result.stdout.str()
    [found] = json.loads((recorded.path / "gates.json").read_text())["gates"]
    assert found["outcome"] == "fail"
    assert {m["metric"] for m in found["metrics"]} == {"regret_final", "late_area"}


def test_other_random_numbers_are_no_regression(recorded):
    change(recorded, "default_rng(seed)", "default_rng(seed + 1)")
    change(recorded, '"12evals"', '"12evals", margin=0.9', "test_gate.py")
    result = recorded.runpytest_inprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*mine:Mine statistical*PASS (non-inferior)"])


@pytest.mark.parametrize(("ini", "outcome"), [("", "xfailed"), ("nasbed_inconclusive = fail", "failed")])
def test_no_decision_is_an_expected_failure_or_one_as_one_likes(recorded, ini, outcome):
    change(recorded, "default_rng(seed)", "default_rng(seed + 1)")
    recorded.makeini(f"{INI}nasbed_margin = 0.51\nnasbed_looks = 5\n{ini}")
    result = recorded.runpytest_inprocess("-rx")
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*statistical*INCONCLUSIVE*"])


def test_a_crash_shows_the_frames_of_the_strategy_alone(recorded):
    change(recorded, "        for o in obs", '        raise IndexError("nobody left")\n        for o in obs')
    result = recorded.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["gate: crash: mine:Mine on toy, seed 0*", "*mine.py*in tell", "IndexError: nobody left"]
    )
    assert "loop.py" not in result.stdout.str()
    assert "pytest_checks.py" not in result.stdout.str()


def test_without_a_baseline_the_test_says_how_to_make_one(project):
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no file*kept*mine.jsonl*pytest --nasbed-record*"])
    assert not (project.path / "kept").exists()


def test_recording_anew_keeps_the_origin(recorded):
    file = recorded.path / "kept" / "mine.jsonl"
    first = json.loads(file.read_text().splitlines()[0])["data"]
    change(recorded, "default_rng(seed)", "default_rng(seed + 1)")
    recorded.runpytest_inprocess("--nasbed-record").assert_outcomes(skipped=1)
    second = json.loads(file.read_text().splitlines()[0])["data"]
    assert second["origin"] == first["origin"]
    assert second["strategies"] != first["strategies"]
    recorded.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_store_on_the_command_line(recorded):
    (recorded.path / "kept").rename(recorded.path / "elsewhere")
    recorded.runpytest_inprocess().assert_outcomes(failed=1)
    recorded.runpytest_inprocess("--nasbed-store=elsewhere").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"toy"', '"mlp-digits"', "gate: not comparable: *recorded with tables*'toy'*the test asks for*mlp-digits*"),
        ('"12evals"', '"30evals"', "gate: not comparable: *recorded with budget 12evals, the test asks for 30evals*"),
        ('"12evals"', '"12evals", looks=(50, 20)', "nas_gate: looks: *"),
        ('"12evals"', '"12evals", margin=2', "nas_gate: margin: *"),
        ('"12evals"', '"12evals", alpha="low"', "nas_gate: *low*"),
        ('"12evals"', '"12evals", inconclusive="pass"', "nas_gate: inconclusive: 'pass' is not one of warn, fail*"),
        ('"12evals"', '"12evals", tabel="toy"', "nas_gate: *'tabel' is not one of *did you mean 'table'?"),
        ("nas_gate(Mine", 'nas_gate("mine:Yours"', "gate: usage: strategy: *'mine' has no 'Yours'*"),
        ("    verdict", '    nas_gate(Mine, baseline="mine.jsonl")\n    verdict', "nas_gate: one strategy for each*"),
    ],
)  # fmt: skip
def test_a_wrong_use_fails_in_a_line(recorded, old, new, message):
    change(recorded, old, new, "test_gate.py")
    result = recorded.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([message])


def test_a_damaged_baseline_is_named_with_its_line(recorded):
    file = recorded.path / "kept" / "mine.jsonl"
    lines = file.read_bytes().split(b"\n")
    lines[6] = lines[6].replace(b'"seed":5', b'"seed":4')
    file.write_bytes(b"\n".join(lines))
    result = recorded.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate: damaged baseline: *mine.jsonl: line 7: *"])


def test_a_changed_table_is_no_regression_but_not_comparable(recorded):
    shutil.rmtree(recorded.path / "toy")
    write_synthetic_table(recorded.path / "toy", Synthetic(genes=4, values=5), seeds=3, epochs=2)
    result = recorded.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate: not comparable: *the digest of the table 'toy'*"])


def test_the_level_is_shared_by_the_gates_that_run(recorded):
    change(recorded, "def test_mine", 'def test_mine(nas_gate):\n    nas_gate(Mine, baseline="mine.jsonl")\n\n\n'
           "def test_more(nas_gate):\n    pass\n\n\ndef test_other", "test_gate.py")  # fmt: skip
    recorded.runpytest_inprocess("-k", "not other").stdout.fnmatch_lines(["*gate: baseline*alpha=0.01/2 strategies*"])


def test_the_shared_level_is_the_one_that_is_used(recorded, monkeypatch):
    monkeypatch.chdir(recorded.path)
    monkeypatch.syspath_prepend(recorded.path)
    used, real = [], gate.check_strategy

    def spy(*args, rules, **options):
        used.append(rules.alpha)
        return real(*args, rules=rules, **options)

    monkeypatch.setattr(gate, "check_strategy", spy)
    values = {name: default for name, (default, _) in pytest_plugin.SETTINGS.items()}
    settings = pytest_checks.read_settings(values, allowed=())
    found = pytest_checks.check("mine:Mine", recorded.path / "kept" / "mine.jsonl", settings, gates=4)
    assert (found.outcome, used) == ("pass", [0.0025])
    sys.modules.pop("mine", None)


def test_metrics_are_json_even_where_they_are_no_numbers():
    from nasbed.harness.gate_looks import MetricTest

    test = MetricTest("late_area", 0.5, 0.4, 0.6, 1.0, 1.0, 0.1, inf, 0.6)
    assert pytest_checks._plain(test)["got"] is None
    assert pytest_checks._plain(replace(test, got=0.25))["got"] == 0.25


# With several processes.


def test_workers_hand_over_what_they_found(recorded):
    pytest.importorskip("xdist")
    change(recorded, "def test_mine", 'def test_again(nas_gate):\n    nas_gate(Mine, baseline="none.jsonl")\n\n\n'
           '@pytest.mark.nasbed(table="toy")\ndef test_mine', "test_gate.py")  # fmt: skip
    alone = recorded.runpytest_inprocess("--nasbed-json=alone.json")
    alone.assert_outcomes(passed=1, failed=1)
    pair = recorded.runpytest_subprocess("-p", "xdist", "-n", "2", "--nasbed-json=pair.json")
    pair.assert_outcomes(passed=1, failed=1)
    assert (recorded.path / "pair.json").read_text() == (recorded.path / "alone.json").read_text()
    assert pair.stdout.str().count("= nasbed =") == 1
    refused = recorded.runpytest_subprocess("-p", "xdist", "-n", "2", "--nasbed-record")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*--nasbed-record: *add -n 0"])


@pytest.mark.parametrize("option", ["--nasbed-json", "--nasbed-store"])
def test_options_are_written_with_an_equals_sign(project, option):
    result = project.runpytest_inprocess(option, "toy")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{option}: write {option}=...*"])


# Conformance.


def conformance(project, *options, marker):
    project.makepyfile(
        test_gate="",
        test_contract=f"import pytest\nimport mine\n\n\n@pytest.mark.nasbed({marker})\n"
        "def test_contract(nas_conformance):\n    nas_conformance()\n",
    )
    return project.runpytest_inprocess("-rs", *options)


@pytest.mark.parametrize(
    ("marker", "role", "label"),
    [
        ("strategy=mine.Mine, params={'restart': 0.5}", "strategies", "Mine"),
        ("strategy='mine:Mine[restart=0.5]'", "strategies", "mine:Mine[restart=0.5]"),
        ("space='synthetic[genes=2;values=3]'", "spaces", "synthetic[genes=2;values=3]"),
        ("estimator='params'", "estimators", "params"),
    ],
)
def test_each_check_is_a_test_of_its_own(project, marker, role, label):
    ids = conformance(project, "--collect-only", "-q", marker=marker).stdout.str()
    names = [name for name, _ in yield_checks(role) if f"test_contract[{label}-{name}]\n" in ids]
    assert ids.count("test_contract[") == len(names) > 10


def test_a_sound_strategy_passes_all(project):
    result = conformance(project, marker="strategy=mine.Mine, params={'restart': 0.5}")
    result.assert_outcomes(passed=len(pytest_checks.conformance({"strategy": "random"}, allowed=("strategy",))))


def test_weight_sharing_strategies_have_checks_of_their_own():
    class Sharing:
        def train_epoch(self): ...

    names = [name for name, _ in pytest_checks.conformance({"strategy": Sharing}, allowed=("strategy",))]
    black_box = [name for name, _ in pytest_checks.conformance({"strategy": object}, allowed=("strategy",))]
    assert len(names) + len(black_box) == len(list(yield_checks("strategies")))
    assert names[0].startswith("Sharing-")


def test_a_violation_is_one_line_under_the_name_of_its_check(project):
    change(project, "self.rng.random() <", "np.random.random() <")
    result = conformance(project, marker="strategy=mine.Mine")
    result.stdout.fnmatch_lines(["*test_contract[[]Mine-global_generators_are_left_alone]*",
                                 "synthetic*the global generator of numpy.random was used"])  # fmt: skip
    assert "Traceback" not in result.stdout.str()
    assert "During handling" not in result.stdout.str()
    assert result.parseoutcomes()["passed"] > 10


def test_an_exception_shows_the_frames_of_the_strategy(project):
    change(project, "        for o in obs", '        raise IndexError("nobody left")\n        for o in obs')
    result = conformance(project, "-k", "tell_nan", marker="strategy=mine.Mine")
    result.assert_outcomes(failed=1, deselected=17)
    result.stdout.fnmatch_lines(["*mine.py*in tell", "IndexError: nobody left"])
    assert "checks_strategy.py" not in result.stdout.str()
    assert "pytest_plugin.py" not in result.stdout.str()


def test_a_check_that_does_not_apply_is_skipped(project):
    change(project, "class Mine:", "class Mine:\n    deterministic = True\n")
    result = conformance(project, marker="strategy=mine.Mine")
    assert result.parseoutcomes().get("skipped", 0) >= 1, result.stdout.str()


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("", "nas_conformance: name its subject*"),
        ("strateg=mine.Mine", "*'strateg' is not one of *did you mean 'strategy'?"),
        ("strategy='randon'", "strategy: 'randon' is not one of *did you mean 'random'?"),
        ("strategy='random[size=3]'", "strategy 'random': parameter: 'size' is not one of *"),
    ],
)
def test_a_subject_that_there_is_not(project, marker, message):
    result = conformance(project, marker=marker)
    assert result.ret != 0
    result.stdout.fnmatch_lines([f"*test_contract.py::test_contract: {message}"])


# What it costs those who do not use it, and how it lives with others.


def test_importing_the_plugin_loads_nothing_heavy():
    program = (
        "import sys, json, pytest; before = set(sys.modules); import nasbed.harness.pytest_plugin; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    loaded = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert {name for name in loaded if name.startswith("nasbed.")} == {"nasbed.harness", "nasbed.harness.pytest_plugin"}
    assert not {name.partition(".")[0] for name in loaded} - {"nasbed", *sys.stdlib_module_names}


def test_importing_the_plugin_costs_less_than_a_bare_python():
    """A ratio of CPU seconds, taken in turns; the goal of 50 ms is for reading."""
    import resource

    def seconds(program):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return float(done.stdout) if done.stdout else spent

    timed = (
        "import time, pytest, nasbed.harness; t = time.process_time(); import nasbed.harness.pytest_plugin; "
        "print(time.process_time() - t)"
    )
    turns = [(seconds(timed), seconds("pass")) for _ in range(3)]
    ratio = median(ours / bare for ours, bare in turns)
    print(f"\nimporting the plugin: {1e3 * median(t for t, _ in turns):.1f} ms, {ratio:.2f} bare Pythons (goal < 1)")
    assert ratio < 1


def test_pytest_is_imported_by_the_plugin_alone():
    found = set()
    for room in ("protocols", "methods", "tabular", "harness", "reports"):
        for path in (ROOT / room).rglob("*.py"):
            if re.search(r"^\s*(?:import|from) _?pytest\b", path.read_text(encoding="utf-8"), re.MULTILINE):
                found.add(path.relative_to(ROOT).as_posix())
    assert found == {"harness/pytest_plugin.py"}


def test_folders_with_the_names_of_ours_are_the_project_s(recorded):
    for name in ("methods", "reports", "harness", "protocols", "tabular"):
        recorded.mkpydir(name).joinpath("here.py").write_text("MINE = True\n")
    recorded.mkpydir("tests").joinpath("test_here.py").write_text(
        "import sys\nfrom methods.here import MINE\nfrom reports import here\n\n\n"
        "def test_here():\n    assert MINE and here.MINE\n"
    )
    recorded.runpytest_subprocess().assert_outcomes(passed=2)


def test_who_does_not_use_it_does_not_notice(pytester):
    pytester.makepyfile(
        "import sys\n\n\ndef test_nothing():\n"
        "    assert not {'numpy', 'torch', 'pandas', 'nasbed.harness.gate'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "nasbed.harness.pytest_plugin", "-W", "error"]
    done = subprocess.run(command, cwd=pytester.path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nasbed" not in done.stdout


def test_the_code_of_the_readme(project):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for kind in ("python", "py"):
        (code,) = re.findall(rf"^```{kind}\n# (\w+)\.py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        project.makepyfile(**dict([code]))
    ids = project.runpytest_inprocess("--collect-only", "-q", "test_climb.py").stdout
    ids.fnmatch_lines(["test_climb.py::test_the_contract[[]Climb-takes_a_seed]", "*::test_as_good_as_recorded"])


# Our own strategies.


@pytest.mark.nasbed(table="mlp-digits", budget="50evals")
@pytest.mark.parametrize("strategy", ["random", "local_search", "aging_evolution"])
def test_our_own_strategies_are_as_recorded(nas_gate, strategy):
    """Recorded by nasbed gate record --table mlp-digits --seeds 0-99 --budget 50evals, one file for each."""
    nas_gate(strategy, baseline=f"{strategy}.jsonl")
