"""What a user brings: a strategy, an estimator as a function and as a class, a table made by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nasbed.harness.compare import carry_out
from nasbed.harness.plan import plan
from nasbed.harness.store import RunStore
from nasbed.harness.study import read_study
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.tabular import open_table, write_table

SCRIPT = """\
from nasbed.harness.cli import main

if __name__ == "__main__":
    main()
"""

MINE = '''\
"""A strategy, two estimators: all that a user has to write."""

from nasbed.protocols import Cost, Observation, Proposal


class Climber:
    """Mutates the best architecture seen."""

    def __init__(self, space, *, seed, patience=3):
        import numpy as np

        self.space, self.rng, self.best, self.patience = space, np.random.default_rng(seed), None, patience

    def ask(self, n=1):
        if self.best is None or self.rng.integers(self.patience) == 0:
            return [Proposal(self.space.sample(self.rng)) for _ in range(n)]
        return [Proposal(self.space.mutate(self.best.proposal.architecture, self.rng)) for _ in range(n)]

    def tell(self, observations):
        for o in observations:
            if o.status == "ok" and (self.best is None or o.score > self.best.score):
                self.best = o


def genes_mean(architecture, seed):
    return sum(architecture.genes) / (3 * len(architecture.genes))


def fragile(architecture, seed):
    if architecture.genes[0] == 3:
        raise ZeroDivisionError("a network without inputs")
    if architecture.genes[0] == 2:
        return float("nan")
    return genes_mean(architecture, seed)


class FirstGene:
    """Scores by the first gene, and takes half an evaluation."""

    def __init__(self, weight=1.0):
        self.weight = weight

    def prepare(self, space, setting, *, seed):
        return (Cost("fit", 2.0),)

    def estimate(self, proposals):
        return [Observation(p, self.weight * p.architecture.genes[0], (Cost("proxy", 0.5),)) for p in proposals]
'''

COLLISION = 'raise RuntimeError("a folder of the user was imported in place of one of nasbed")\n'
STRATEGIES = "my_methods:Climber[patience=4],random"
ESTIMATORS = "my_methods:genes_mean,my_methods:FirstGene[weight=0.5],table"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's project, which has folders called as ours are."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("protocols", "methods", "tabular", "harness", "reports"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(COLLISION)
    (folder / "my_methods.py").write_text(MINE)
    (folder / "nasbed_cli.py").write_text(SCRIPT)
    counts = np.array([[sum(a.genes), sum(a.genes) + 1] for a in map(Synthetic(3, 4).at, range(64))], np.uint16)
    arrays = {"valid.mine": counts[:, :, None], "test.mine": counts[:, :, None]}
    write_table(
        folder / "mytable",
        "synthetic[genes=3;values=4]",
        arrays,
        {"name": "mytable", "examples": {"valid": 10, "test": 10}},
    )
    return folder


@pytest.fixture(scope="module")
def alone(desk: Path) -> Path:
    """The comparison that a user would ask for, done by one process."""
    command = [sys.executable, "nasbed_cli.py", "compare", "--table", "./mytable", "--seeds", "5", "--no-mlflow",
               "--budget", "30evals", "--out", "alone", "--jobs", "1", "--strategies", STRATEGIES,
               "--estimators", ESTIMATORS]  # fmt: skip
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return desk / "alone"


def test_the_table_made_by_hand_is_one(desk):
    table = open_table(desk / "mytable", verify=True)
    assert (table.name, table.coverage, table.clock, table.seeds) == ("mytable", "complete", "epochs", (0, 1))


def test_the_report_names_what_the_user_brought(alone):
    page = (alone / "report.html").read_text()
    for name in ("my_methods:Climber", "my_methods:genes_mean", "my_methods:FirstGene", "mytable", "random"):
        assert name in page
    comparison = json.loads((alone / "results.json").read_text())["comparison"]
    assert len(comparison["methods"]) == 6
    assert len(comparison["runs"]) == 30


def test_two_processes_give_the_same_records(desk, alone, monkeypatch):
    monkeypatch.chdir(desk)
    monkeypatch.syspath_prepend(desk)
    given = {"strategies": STRATEGIES, "estimators": ESTIMATORS, "budget": "30evals", "seeds": 5, "tables": "./mytable"}
    assert carry_out(plan(read_study(None, given)), desk / "pair", jobs=2) == []
    one, two = (RunStore(folder / "store", create=False) for folder in (alone, desk / "pair"))
    assert one.finished() == two.finished()
    assert len(one.finished()) == 30
    for key in one.finished():
        path = Path("store", "runs", key, "result.json")
        assert (alone / path).read_bytes() == (desk / "pair" / path).read_bytes()
    assert one.study()["digest"] == two.study()["digest"]


def test_records_hold_what_the_user_s_code_said(alone):
    store = RunStore(alone / "store", create=False)
    records = [store.load(key) for key in store.finished()]
    by_name = {r.spec["estimator"]["name"]: r for r in records if r.spec["strategy"]["name"] != "random"}
    assert by_name["my_methods:genes_mean"].spec["strategy"]["params"] == {"patience": 4}
    function = by_name["my_methods:genes_mean"]
    assert len(function.calls) == 30
    for call in function.calls:
        for o in call.observations:
            assert o.score == sum(o.proposal.architecture.genes) / 9
            assert [c.amount for c in o.costs] == [1.0]
    method = by_name["my_methods:FirstGene"]
    assert [(c.kind, c.amount) for c in method.preparation] == [("fit", 2.0)]
    assert sum(len(c.observations) for c in method.calls) == 56  # (30 - 2) / 0.5
    for r in records:
        # 9 of the worst, 10 of the best: test values come from the table, whatever the estimator said.
        for incumbent, sealed in zip(r.incumbents, r.sealed["incumbents"], strict=True):
            assert sealed["test"] == pytest.approx((sum(incumbent.architecture.genes) + 0.5) / 10)


def test_a_function_that_raises_is_a_crashed_observation_and_no_number(desk, monkeypatch):
    monkeypatch.syspath_prepend(desk)
    given = {"strategies": "my_methods:Climber", "estimators": "my_methods:fragile", "budget": "30evals", "seeds": 5,
             "tables": str(desk / "mytable")}  # fmt: skip
    assert carry_out(plan(read_study(None, given)), desk / "fragile") == []
    store = RunStore(desk / "fragile" / "store", create=False)
    seen = [o for key in store.finished() for call in store.load(key).calls for o in call.observations]
    raised = [o for o in seen if o.proposal.architecture.genes[0] == 3]
    unknown = [o for o in seen if o.proposal.architecture.genes[0] == 2]
    assert raised
    assert unknown
    for o in (*raised, *unknown):
        assert o.status == "crashed"
        assert math.isnan(o.score)
        assert sum(c.amount for c in o.costs) == 1.0
    assert {o.reason for o in raised} == {"ZeroDivisionError: a network without inputs"}
    assert all("NaN" in o.reason for o in unknown)
    best = [i.architecture.genes[0] for key in store.finished() for i in store.load(key).incumbents]
    assert best
    assert max(best) < 2


def test_a_function_has_no_cost_in_other_units(desk):
    done = subprocess.run(
        [sys.executable, "nasbed_cli.py", "compare", "--table", "./mytable", "--seeds", "1", "--budget", "30epochs",
         "--strategies", "random", "--estimators", "my_methods:genes_mean", "--out", "epochs", "--jobs", "1"],
        cwd=desk, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert "budget: the function 'my_methods:genes_mean' has no cost in epochs; give evals" in done.stderr


def test_check_takes_the_user_s_strategy(desk):
    command = [sys.executable, "nasbed_cli.py", "check", "strategy", "my_methods:Climber", "--json"]
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout)
    assert done.returncode == (1 if any(r["passed"] is False for r in found) else 0)
    assert len(found) >= 5
