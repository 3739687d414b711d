"""The gate of estimators: same scores, or else as good a ranking."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from scipy import stats

from nasbed.harness import gate_baseline
from nasbed.harness.cli import main
from nasbed.harness.gate_estimator import compare_scores, digest
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.tabular import write_synthetic_table

MODULE = '''\
"""A user's own estimator; the variable SCORED says which version of it this is."""

import os
from typing import ClassVar

from nasbed.methods.estimators.fewer_epochs import FewerEpochs
from nasbed.protocols import Observation, Traits


class Mine(FewerEpochs):
    traits: ClassVar[Traits] = FewerEpochs.traits

    def estimate(self, proposals):
        version = os.environ.get("SCORED", "good")
        answers = super().estimate(proposals)
        if version == "crash":
            raise LookupError("no weights")
        change = {
            "good": lambda s, i: s,
            "shifted": lambda s, i: s + 0.125,
            "flipped": lambda s, i: -s,
            "deaf": lambda s, i: float(i % 7),
            "failing": lambda s, i: float("nan") if i % 3 else s,
        }[version]
        return [self.told(o, change(o.score, number(o.proposal.architecture))) for o in answers]

    def told(self, o, score):
        if score == score:
            return Observation(o.proposal, score, o.costs)
        return Observation(o.proposal, score, o.costs, status="crashed", reason="failed")


def number(a):
    return sum(g * 5**k for k, g in enumerate(a.genes))
'''


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    (folder / "scored.py").write_text(MODULE)
    write_synthetic_table(folder / "toy", Synthetic(genes=4, values=4), seeds=2, epochs=3, noise=0.05)
    return folder


@pytest.fixture
def run(desk, monkeypatch, capfd):
    monkeypatch.chdir(desk)
    monkeypatch.setattr(sys, "path", [*sys.path, str(desk)])

    def call(*arguments, version="good"):
        monkeypatch.setenv("SCORED", version)
        monkeypatch.setattr(sys, "argv", ["nasbed", "gate", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capfd.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    if not (desk / "e.jsonl").exists():
        record = ("record", "--estimator", "scored:Mine[epochs=2]", "--table", "toy", "--seeds", 2, "--out", "e.jsonl")
        assert call(*record)[0] == 0
    return call


def test_the_same_scores_pass(run):
    code, out, _ = run("check", "e.jsonl")
    assert code == 0
    assert re.fullmatch(
        r"gate: baseline \w{4}… \(2 seeds, 256 architectures of \w+, v\S+\)  margin=0\.02\n"
        r"scored:Mine\[epochs=2\] exact +2/2 seeds identical  PASS\nresult: PASS   exit 0\n", out,
    ), out  # fmt: skip


@pytest.mark.parametrize(
    ("version", "code", "words"),
    [
        ("shifted", 0, r"Δ=\+0\.000 \[\S+\]  with recorded 1\.000  mean shift \+0\.125  PASS \(equivalent\)"),
        ("flipped", 1, r"with recorded -1\.000  mean shift -\S+  FAIL"),
        ("deaf", 1, r"FAIL"),
        ("failing", 1, r"mean shift \+0  FAIL"),
    ],
)
def test_other_scores_are_judged_by_their_ranking(run, version, code, words):
    found, out, _ = run("check", "e.jsonl", version=version)
    assert found == code
    line = out.splitlines()[-3]
    assert re.search(rf"^scored:Mine\[epochs=2\] statistical spearman 0\.\d+→.*{words}$", line), out
    assert re.search(r"first divergence: table=\w+ seed=0 arch \S+ score \S+→\S+; \d+ of 512 scores differ", out)
    assert run("check", "e.jsonl", "--exact", version=version)[0] == 1


def test_files_and_faults(run, desk):
    assert run("check", "e.jsonl", "--json", "e.json", version="flipped")[0] == 1
    [verdict] = json.loads((desk / "e.json").read_text())["verdicts"]
    assert verdict["estimator"]["agreement"] == pytest.approx(-1)
    code, out, err = run("check", "e.jsonl", version="crash")
    assert (code, out) == (5, "")
    # Without the frames of the harness.
    assert 'in estimate\n    raise LookupError("no weights")' in err
    assert "harness" not in err
    assert run("check", "e.jsonl", "--seeds", "0-5")[0] == 2
    assert run("record", "--estimator", "scored:Mine[epochs=2]", "--table", "toy", "--out", "e.jsonl")[0] == 2
    assert run("record", "--estimator", "synflw", "--table", "toy", "--out", "f.jsonl")[0] == 2
    assert run("record", "--estimator", "plain", "--table", "toy", "--budget", "5evals", "--out", "f.jsonl")[0] == 2
    file = gate_baseline.read(desk / "e.jsonl")
    header = json.loads(json.dumps(dict(file.header)))
    header["facts"]["digest"] = "0" * 64
    data = [gate_baseline._line(gate_baseline.canonical_bytes(v)) for v in (header, *file.lines)]
    (desk / "other.jsonl").write_bytes(b"".join(data))
    code, _, err = run("check", "other.jsonl")
    assert (code, "the digest is" in err) == (4, True)


# --- the test --------------------------------------------------------------------------------------------------------


def world(noise, seeds=1, n=400, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1, n)
    return truth, truth[:, None] + rng.normal(0, noise, (n, seeds))


def judged(truth, old, new, margin=0.02):
    return compare_scores(truth, old, new, margin, np.random.default_rng(0))


def test_correlations_are_spearmans():
    truth, old = world(0.5, seeds=3)
    _, new = world(0.9, seeds=3, seed=1)
    new[:20] = np.round(new[:20], 1)
    found = judged(truth, old, new)
    assert found.expected == pytest.approx(np.mean([stats.spearmanr(truth, c).statistic for c in old.T]), abs=1e-12)
    assert found.got == pytest.approx(np.mean([stats.spearmanr(truth, c).statistic for c in new.T]), abs=1e-12)
    pairs = [stats.spearmanr(a, b).statistic for a, b in zip(old.T, new.T, strict=True)]
    assert found.agreement == pytest.approx(np.mean(pairs), abs=1e-12)
    assert found.shift == pytest.approx(float((new - old).mean()))


def test_the_interval_is_that_of_a_bootstrap_of_differences():
    truth, old = world(0.5)
    new = old + np.random.default_rng(5).normal(0, 0.3, old.shape)
    found = judged(truth, old, new)
    rng, drawn = np.random.default_rng(9), []
    for _ in range(400):
        i = rng.integers(0, len(truth), len(truth))
        both = [stats.spearmanr(truth[i], x[i, 0]).statistic for x in (new, old)]
        drawn.append(both[0] - both[1])
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)


@pytest.mark.parametrize(
    ("noise", "margin", "outcome"),
    [(0.5, 0.05, "pass"), (3.0, 0.05, "fail"), (0.56, 0.02, "inconclusive"), (0.1, 0.02, "pass")],
)
def test_outcomes(noise, margin, outcome):
    truth, old = world(0.5, n=1000)
    new = (
        world(noise, n=1000)[1]
        if noise != 0.56
        else truth[:, None] + np.random.default_rng(7).normal(0, 0.56, (1000, 1))
    )
    found = judged(truth, old, new, margin)
    assert found.outcome == outcome
    assert (found.low > 0) == (noise == 0.1)
    assert found.low <= found.difference <= found.high


def test_seeds_widen_the_interval():
    truth, old = world(0.5, seeds=2)
    uneven = old.copy()
    uneven[:, 1] += np.random.default_rng(3).normal(0, 2, len(truth))
    even = judged(truth, old, old)
    assert judged(truth, uneven, uneven).high - judged(truth, uneven, uneven).low > 10 * (even.high - even.low)


def test_no_score_is_the_worst_score():
    truth, old = world(0.1)
    order = np.argsort(truth)
    bad, good = old.copy(), old.copy()
    bad[order[:40]], good[order[-40:]] = np.nan, np.nan
    assert judged(truth, old, bad).outcome == "pass"
    assert judged(truth, old, good).outcome == "fail"


def test_undefined_scores_and_shapes():
    truth, old = world(0.5)
    constant = np.zeros_like(old)
    assert judged(truth, old, constant).got == 0.0
    nothing = judged(truth, old, np.full_like(old, np.nan))
    assert (nothing.outcome, np.isnan(nothing.shift)) == ("fail", True)
    with pytest.raises(ValueError, match="do not belong together"):
        judged(truth[:-1], old, old)
    with pytest.raises(ValueError, match="correlation margin"):
        judged(truth, old, old, 0.0)


def test_digests_tell_the_last_bit_and_not_the_kind_of_nan():
    column = np.array([0.1, np.nan, 3.0])
    assert digest(column) == digest(np.array([0.1, -np.nan, 3.0]))
    assert digest(column) != digest(np.array([np.nextafter(0.1, 1), np.nan, 3.0]))
    assert digest(np.array([0.0])) != digest(np.array([-0.0]))
