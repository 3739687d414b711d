"""The regression gate from the outside: a user's strategy, recorded, changed, and checked by the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nasbed.harness import gate_baseline
from nasbed.harness.cli import main
from nasbed.harness.gate import (
    Crashed,
    Rules,
    check_baseline,
    check_strategy,
    record_baseline,
    render,
)
from nasbed.harness.plan import NotComparable
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.aging_evolution import AgingEvolution
from nasbed.tabular import write_synthetic_table

MODULE = '''\
"""A user's own strategy; the variable GATED says which version of it this is."""

import os
from dataclasses import replace

import numpy as np

from nasbed.methods.strategies.aging_evolution import AgingEvolution

DRAWS = np.random.default_rng()


class Mine(AgingEvolution):
    def __init__(self, space, *, seed, sample_size=3):
        self.version = os.environ.get("GATED", "good")
        super().__init__(space, seed=seed + (self.version == "stream"), sample_size=sample_size)
        self.draws, self.last, self.waste = np.random.default_rng(seed), None, False

    def ask(self, n=1):
        if self.version == "crash":
            return self.choose()
        if self.version == "global":
            self._rng = DRAWS
        self.waste = self.version == "wasteful" and self.last is not None and self.draws.random() < 0.5
        if not self.waste:
            self.last = super().ask(n)
        return self.last

    def tell(self, observations):
        if self.version == "broken":
            observations = [replace(o, score=0.0) for o in observations]
        if not self.waste:
            super().tell(observations)

    def choose(self):
        raise LookupError("the population is empty")
'''


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A working folder: a module of strategies, two tables, and a baseline of two strategies."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "gated.py").write_text(MODULE)
    for name, world in (("toy-b", 1), ("toy-a", 2)):
        write_synthetic_table(folder / name, Synthetic(genes=6, values=4, world=world), seeds=2, epochs=2, noise=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setenv("GATED", "good")
        # Given in another order than that of their names.
        record_baseline(
            "random,gated:Mine[sample_size=4]", "toy-b,toy-a", Path("base.jsonl"), seeds=100, budget="50evals"
        )
        yield folder


@pytest.fixture
def run(desk, monkeypatch, capfd):
    """The entry point in this process, in the working folder."""
    monkeypatch.chdir(desk)
    monkeypatch.setattr(sys, "path", [*sys.path, str(desk)])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        monkeypatch.setenv(name, "1")

    def call(*arguments, version="good"):
        monkeypatch.setenv("GATED", version)
        monkeypatch.setattr(sys, "argv", ["nasbed", "gate", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capfd.readouterr()
        return Said(int(stopped.value.code or 0), said.out, said.err)

    return call


def check(run, *more, version="good"):
    """Level 0 on ten seeds, for speed."""
    return run("check", "base.jsonl", "--jobs", 1, "--seeds", "0-9", *more, version=version)


def rewritten(desk: Path, change, name="changed.jsonl") -> Path:
    """A copy of the baseline, `change` applied to its header and lines, with right checksums."""
    file = gate_baseline.read(desk / "base.jsonl")
    header, lines = json.loads(json.dumps([dict(file.header), file.lines]))
    change(header, lines)
    data = [gate_baseline._line(gate_baseline.canonical_bytes(v)) for v in (header, *lines)]
    (desk / name).write_bytes(b"".join(data))
    return desk / name


# --- outcomes --------------------------------------------------------------------------------------------------------


def test_unchanged_code_passes_to_the_bit(run):
    said = run("check", "base.jsonl", "--jobs", 1)
    assert said.code == 0
    head, *lines = said.out.splitlines()
    counted = "100 seeds \N{MULTIPLICATION SIGN} 2 tables"
    assert re.fullmatch(
        rf"gate: baseline [0-9a-f]{{4}}… \({counted}, v\S+\)  alpha=0\.01/2 strategies  margin=0\.6", head
    )
    assert lines == [
        "random                    exact       200/200 traces identical  PASS",
        "gated:Mine[sample_size=4] exact       200/200 traces identical  PASS",
        "result: PASS   exit 0",
    ]


STATISTICAL = re.compile(
    r"gated:Mine\[sample_size=4\] statistical n=(\d+) \(look (\d)/3\)  regret_final θ=(0\.\d{3}) \[0\.\d\d,\d\.\d\d\]  "
    r"late_area θ=(0\.\d{3}) \[0\.\d\d,\d\.\d\d\]  p_fail=\S+  (.+)"
)


@pytest.mark.parametrize(
    ("version", "code", "word"),
    [
        ("stream", 0, "PASS (non-inferior)"),
        ("broken", 1, "FAIL"),
        ("wasteful", 1, "FAIL"),
    ],
)
def test_changed_code_is_judged_by_fresh_seeds(run, version, code, word):
    said = check(run, version=version)
    assert said.code == code
    _, *notes, same, line, reason, result = said.out.splitlines()
    assert re.fullmatch(r"random +exact +20/20 traces identical +PASS", same)
    assert line.index(word) == same.index("PASS")
    found = STATISTICAL.fullmatch(line)
    assert found[5] == word
    assert (float(found[4]) > 0.6) == (word == "FAIL")
    assert re.match(
        r" +first divergence: table=toy-b seed=0 eval=\d+ arch \d+(→\d+)? score \S+; mean regret_final ", reason
    )
    assert result == {0: "result: PASS   exit 0", 1: "result: FAIL (1 of 2)   exit 1"}[code]
    assert notes == [
        "note: the file that defines gated:Mine[sample_size=4] is the recorded one: the change is in what it uses"
    ]


def test_exact_means_exact(run):
    said = check(run, "--exact", version="stream")
    assert said.code == 1
    assert re.search(r"^gated:Mine\[sample_size=4\] exact +0/20 traces identical   FAIL$", said.out, re.M)


def test_randomness_of_its_own_is_said(run):
    said = check(run, "--exact", version="global")
    assert said.code == 1
    assert "not deterministic: this run, repeated, gave yet another trace" in said.out
    assert "not deterministic" not in check(run, "--exact", version="stream").out


def test_a_crash_shows_the_users_frames_alone(run):
    said = check(run, version="crash")
    assert said.code == 5
    assert said.out == ""
    lines = said.err[said.err.index("gated:Mine") :].splitlines()
    assert lines[0] == "gated:Mine[sample_size=4] on toy-b, seed 0, crashed:"
    assert lines[-1] == "LookupError: the population is empty"
    assert re.findall(r'File "[^"]*/(\w+)\.py", line \d+, in (\w+)', said.err) == [
        ("gated", "ask"),
        ("gated", "choose"),
    ]


def test_a_crash_in_a_worker_is_the_same(desk, run):
    here = check(run, version="crash")
    code = "from nasbed.harness.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "gate", "check", "base.jsonl", "--jobs", "2"], cwd=desk, text=True,
        env={**os.environ, "GATED": "crash", "PYTHONPATH": str(desk)}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 5
    assert here.err[here.err.index("gated:Mine") :] in done.stderr


def test_what_no_look_decides_is_inconclusive(run):
    strict = ("--looks", "5", "--margin", "0.501")
    said = check(run, *strict, version="stream")
    assert said.code == 3
    assert said.out.rstrip().endswith("result: INCONCLUSIVE (1 of 2)   exit 3")
    said = check(run, *strict, "--on-inconclusive", "warn", "--junit", "warned.xml", version="stream")
    assert (said.code, "INCONCLUSIVE" in said.out) == (0, True)
    assert ET.parse("warned.xml").getroot().attrib["skipped"] == "1"


def test_files_for_machines(run, desk):
    said = check(run, "--looks", "20", "--json", "g.json", "--junit", "g.xml", "--markdown", "g.md", version="broken")
    assert said.code == 1
    found = json.loads((desk / "g.json").read_text())
    same, bad = found["verdicts"]
    assert (found["exit"], found["result"], found["digest"][:4]) == (1, "FAIL (1 of 2)", said.out[15:19])
    assert (same["outcome"], same["level"], bad["outcome"], bad["level"]) == ("pass", "exact", "fail", "statistical")
    assert bad["first_divergence"]["table"] == "toy-b"
    assert {m["metric"] for m in bad["metrics"]} == {"regret_final", "late_area"}
    assert bad["seeds"] == 20
    suite = ET.parse(desk / "g.xml").getroot()
    assert suite.attrib == {"name": "nasbed gate", "tests": "2", "failures": "1", "skipped": "0", "errors": "0"}
    assert [(c.attrib["name"], [x.tag for x in c]) for c in suite] == [
        ("random", ["system-out"]), ("gated:Mine[sample_size=4]", ["failure", "system-out"]),
    ]  # fmt: skip
    assert "first divergence: table=toy-b" in suite[1].find("failure").text
    page = (desk / "g.md").read_text()
    assert page.startswith("### nasbed gate: FAIL (1 of 2)\n")
    assert re.search(r"^\| gated:Mine\[sample_size=4\] \| statistical \| n=20 .* \| \*\*FAIL\*\* \|$", page, re.M)


def test_one_flipped_score_is_found(desk, run):
    """In the last bit, of the thirtieth evaluation of the fourth seed."""
    from nasbed.harness.gate_traces import Ran, pack, unpack

    def flip(header, lines):
        [line] = [x for x in lines if (x["strategy"], x["table"], x["seed"]) == ("random", "toy-a", 3)]
        rows = list(unpack(line["trace"]))
        i, a, epochs, score = rows[29]
        rows[29] = (i, a, epochs, float(np.nextafter(float.fromhex(score), 2)).hex())
        line["trace"], line["digest"] = pack(rows), Ran(tuple(rows)).digest

    path = rewritten(desk, flip)
    verdict = check_strategy("random", path, seeds="0-9")
    assert (verdict.level, verdict.outcome, verdict.identical) == ("statistical", "pass", 19)
    found = verdict.first_divergence
    assert (found.table, found.seed, found.evaluation) == ("toy-a", 3, 29)
    assert found.expected.score == np.nextafter(found.got.score, 2)
    assert found.expected.architecture == found.got.architecture
    assert re.fullmatch(r"table=toy-a seed=3 eval=29 arch \d+ score (0\.\d+)→(?!\1)0\.\d+", str(found))
    assert check_strategy("random", path, seeds="0-3", exact=True).outcome == "fail"
    assert run("check", path, "--exact", "--seeds", "0-9", "--jobs", 1).code == 1


# --- not comparable, not usable --------------------------------------------------------------------------------------


def test_another_table_is_never_tested(desk, run):
    table = desk / "toy-b"
    kept = table.rename(desk / "kept")
    try:
        write_synthetic_table(table, Synthetic(genes=6, values=4, world=1), seeds=2, epochs=2, noise=0.02)
        said = check(run)
        assert (said.code, said.out) == (4, "")
        assert re.search(r"the digest of the table 'toy-b' is [0-9a-f]{12}, and was [0-9a-f]{12} when", said.err)
    finally:
        import shutil

        shutil.rmtree(table)
        kept.rename(table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, _: h.update(schema=99), "schema 99"),
        (lambda h, _: h.update(metrics=["regret_final"]), "has the metrics regret_final, this version"),
        (lambda h, _: h["tables"][0]["metric"].update(name="mse"), "the metric of the table 'toy-b'"),
        (lambda h, _: h.update(budget="31evals"), "the budget of the table 'toy-b' is evaluations 31.0, and was"),
    ],
)
def test_what_scores_mean_has_changed(desk, run, change, message):
    said = run("check", rewritten(desk, change), "--jobs", 1)
    assert (said.code, said.out) == (4, "")
    assert message in said.err
    with pytest.raises(NotComparable, match=re.escape(message)):
        check_baseline(desk / "changed.jsonl")


def test_a_corrupted_line_is_named(desk, run):
    lines = (desk / "base.jsonl").read_bytes().split(b"\n")
    lines[16] = lines[16].replace(b'"seed":15', b'"seed":16')
    (desk / "bad.jsonl").write_bytes(b"\n".join(lines))
    said = run("check", "bad.jsonl")
    assert (said.code, said.out) == (2, "")
    assert said.err == "nasbed: baseline: bad.jsonl: line 17: the checksum does not fit the content\n"


def test_lines_out_of_place_are_named(desk, run):
    def swap(_, lines):
        lines[4], lines[5] = lines[5], lines[4]

    said = run("check", rewritten(desk, swap))
    assert (said.code, said.err.strip()[-60:]) == (
        2,
        "is about ('random', 'toy-b', 5), which does not belong there"[-60:],
    )
    assert "line 6:" in said.err

    def shorten(header, lines):
        del lines[-2:]
        header["lines"] -= 2

    assert "line 399: is the last one, and 2 runs are missing" in run("check", rewritten(desk, shorten)).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "none.jsonl"), "none.jsonl cannot be read"),
        (("check", "gated.py"), "gated.py is not a baseline"),
        (("check", "base.jsonl", "--seeds", "90-110"), "seeds: 100 is not one of the baseline's, 0 to 99"),
        (("check", "base.jsonl", "--looks", "20,x"), "looks: '20,x' is not"),
        (("check", "base.jsonl", "--looks", "50,20"), "looks: [50, 20] are not growing"),
        (("check", "base.jsonl", "--alpha", "2"), "alpha: 2.0"),
        (("check", "base.jsonl", "--on-inconclusive", "wran"), "did you mean 'warn'"),
        (("check", "base.jsonl", "--seeds", "1", "--jobs", "1", "--json", "no/folder"), "no/folder: cannot be written"),
        (("record", "--strategies", "random", "--tables", "toy-a", "--seeds", "99"), "99 are too few for a baseline"),
        (
            ("record", "--strategies", "random", "--tables", "toy-a", "--out", "base.jsonl"),
            "base.jsonl is there already",
        ),
        (("record", "--strategies", "random", "--tables", "toy-a", "--out", "no/b.jsonl"), "there is no folder no"),
        (("record", "--strategies", "random,random", "--tables", "toy-a"), "'random' is named twice"),
        (("record", "--strategies", "randm", "--tables", "toy-a"), "did you mean 'random'"),
        (("record", "--strategies", ",", "--tables", "toy-a"), "strategies: name at least one"),
        (("record", "--strategies", "random"), "tables: name at least one"),
        (("record", "--tables", "toy-a"), "strategies, estimator: name one of them"),
    ],
)
def test_one_line_says_what_is_wrong(run, arguments, message):
    said = run(*arguments)
    assert (said.code, said.out) == (2, "")
    lines = [x for x in said.err.splitlines() if " %" not in x]
    assert len(lines) == 1
    assert lines[0].startswith("nasbed: ")
    assert message in lines[0]


# --- the library -----------------------------------------------------------------------------------------------------


def test_a_class_is_checked_against_the_strategy_it_is_recorded_as(desk, monkeypatch):
    import gated

    monkeypatch.setenv("GATED", "good")
    verdict = check_strategy(gated.Mine, desk / "base.jsonl", seeds="0-9")
    assert (verdict.strategy, verdict.level, verdict.outcome) == ("gated:Mine[sample_size=4]", "exact", "pass")
    assert verdict.line == "gated:Mine[sample_size=4] exact 20/20 traces identical PASS"
    text = render([verdict], "gate")
    assert text.splitlines()[-1] == "result: PASS"
    with pytest.raises(ValueError, match="against: the baseline has random, gated:Mine"):
        check_strategy(AgingEvolution, desk / "base.jsonl")
    with pytest.raises(ValueError, match=r"against: 'rando' .*did you mean 'random'"):
        check_strategy(gated.Mine, desk / "base.jsonl", against="rando")
    other = check_strategy(AgingEvolution, desk / "base.jsonl", against="gated:Mine[sample_size=4]", seeds="0-9")
    assert (other.level, other.outcome) == ("statistical", "pass")
    # Its alpha is shared with the others of the baseline.
    assert Rules().strategies == 1
    monkeypatch.setenv("GATED", "crash")
    with pytest.raises(Crashed, match="the population is empty"):
        check_strategy(gated.Mine, desk / "base.jsonl")


def test_replacing_keeps_the_origin(desk, run, tmp_path):
    out = tmp_path / "b.jsonl"
    record = ("record", "--strategies", "random", "--tables", "toy-a", "--seeds", 100, "--budget", "2evals",
              "--jobs", 1)  # fmt: skip
    assert run(*record, "--out", out).code == 0
    first = gate_baseline.read(out).header
    old = {"created": "2001-02-03T04:05:06+00:00", "nasbed": "0.0.1"}
    gate_baseline.write(out, {**first, "kind": first["kind"]}, [dict(x) for x in gate_baseline.read(out).lines], old)
    assert run(*record, "--out", out).code == 2
    assert run(*record, "--out", out, "--replace").code == 0
    second = gate_baseline.read(out).header
    assert second["origin"] == old
    assert second["created"] > old["created"]
    assert first["origin"] == {"created": first["created"], "nasbed": first["recorded"]["nasbed"]}
    assert run("check", out, "--jobs", 1).code == 0


def test_fresh_seeds_are_disjoint_from_the_recorded_ones(desk, monkeypatch):
    from nasbed.harness import gate

    seen = []
    original = gate.run_all
    monkeypatch.setattr(
        gate,
        "run_all",
        lambda plan, wanted, **k: (seen.append({r.seed for r in wanted}), original(plan, wanted, **k))[1],
    )
    monkeypatch.setenv("GATED", "broken")
    check_strategy("gated:Mine[sample_size=4]", desk / "base.jsonl", seeds="0-4")
    recorded, again, *looks = seen
    assert (recorded, again) == ({0, 1, 2, 3, 4}, {0})
    assert looks[0] == set(range(100, 120))
    assert all(a.isdisjoint(b) for a, b in pairwise(looks))


def test_another_version_is_said(desk, run):
    def older(header, _):
        header["recorded"]["packages"]["numpy"] = "1.0"
        header["recorded"]["python"] = "3.1.4"

    path = rewritten(desk, older)
    assert "note:" not in run("check", path, "--jobs", 1, "--seeds", "0-3").out
    said = run("check", path, "--jobs", 1, "--seeds", "0-3", "--exact", version="stream")
    assert re.findall(r"^note: (\w+) \S+, the baseline was recorded with (\S+)$", said.out, re.M) == [
        ("python", "3.1.4"), ("numpy", "1.0"),
    ]  # fmt: skip


@pytest.mark.parametrize("verb", ["record", "check"])
def test_help_shows_examples(run, verb):
    said = run(verb, "--help")
    assert said.code == 0
    examples = re.findall(r"^ +nasbed gate .*", said.out, re.M)
    assert len(examples) == 3
    assert all(e.strip().startswith(f"nasbed gate {verb} ") for e in examples)
