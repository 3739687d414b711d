"""Traces and their files: digests, metrics against the report's own, damage found where it is."""

from __future__ import annotations

import json
from math import nan

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nasbed.harness import gate_baseline
from nasbed.harness.compare import carry_out
from nasbed.harness.faults import CorruptRecord
from nasbed.harness.gate_traces import METRICS, Ran, diverge, pack, run_all, score_all, traced, unpack, unwatched
from nasbed.harness.plan import NotComparable, plan
from nasbed.harness.runs import Task
from nasbed.harness.store import RunStore
from nasbed.harness.study import read_study
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.tabular import write_synthetic_table

SPACE = Synthetic(genes=4, values=3)


def test_the_digest_of_the_known_answer():
    rows = ((0, 17, 1, (0.9125).hex()), (1, 23, 1, (0.92).hex()))
    assert Ran(rows).digest == "644a728c9f7c1aaacf4cc3646f4d35b395a8b33d360aa1996c4d50f470e4bce7"


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 10**9), st.integers(1, 200), st.floats()), max_size=30))
def test_packing_loses_nothing(rows):
    rows = tuple((i, a, epochs, score.hex()) for i, a, epochs, score in rows)
    assert unpack(pack(rows)) == rows
    assert unpack(pack([(0, 1, [2, 0.5, 1.0, 1.0, 1.0], nan.hex())])) == ((0, 1, [2, 0.5, 1.0, 1.0, 1.0], "nan"),)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Three tables, of the embedded one lower is better, and a study on them that was really compared."""
    folder = tmp_path_factory.mktemp("worlds")
    names = [folder / "a", folder / "b"]
    write_synthetic_table(names[0], SPACE, seeds=2, epochs=3, noise=0.02)
    write_synthetic_table(names[1], Synthetic(genes=5, values=3, world=3), seeds=2, epochs=2, noise=0.02)
    given = {"strategies": "random,aging_evolution[population_size=4]", "seeds": 4}
    given["tables"] = [*map(str, names), "rnn4-text"]
    planned = plan(read_study(None, {**given, "budget": "50epochs"}))
    assert carry_out(planned, folder / "out") == []
    return planned, RunStore(folder / "out" / "store")


def test_traces_and_metrics_are_those_of_a_comparison(worlds):
    from nasbed.reports.comparison import compare
    from nasbed.reports.frame import load

    planned, store = worlds
    ran = run_all(planned, planned.runs, jobs=1, watch=unwatched, what="")
    for r, run in zip(planned.runs, ran, strict=True):
        record, space = store.load(r.key), planned.tables[r.table].space
        epochs = planned.tables[r.table].pipelines[planned.pipelines[r.table]].epochs
        told = [o for c in record.calls for o in c.observations]
        expected = [(i, space.index(o.proposal.architecture), epochs, o.score.hex()) for i, o in enumerate(told)]
        assert list(run.rows) == expected
        assert len(run.rows) == 50 // epochs
    values = dict(zip([r.key for r in planned.runs], score_all(planned, planned.runs, ran), strict=True))
    reported = {r.key: tuple(r.values[m] for m in METRICS) for r in compare(load(store), resamples=100).runs}
    assert values == reported
    assert len({v[0] for v in values.values()}) > 3
    assert all(0 <= late <= 1 for _, late in values.values())


def test_a_run_without_any_evaluation_is_as_bad_as_can_be(worlds):
    planned, _ = worlds
    [values] = score_all(planned, planned.runs[:1], [Ran()])
    assert values == (1.0, 1.0)


def test_lower_fidelities_are_part_of_a_trace(worlds, monkeypatch):
    planned, _ = worlds
    r = next(r for r in planned.runs if r.strategy == "random")
    task = Task(r.spec, "", str(planned.tables[r.table].folder))
    full = traced(task)
    from nasbed.methods.strategies.random import RandomSearch
    from nasbed.protocols import Fidelity, Proposal

    ask = RandomSearch.ask
    monkeypatch.setattr(RandomSearch, "ask", lambda s, n=1: [Proposal(p.architecture, Fidelity(1)) for p in ask(s, n)])
    low = traced(task)
    assert low.crash == ""
    assert [row[1] for row in low.rows][: len(full.rows)] == [row[1] for row in full.rows]
    assert {row[2] for row in low.rows} == {1}
    assert low.digest != full.digest


ROWS = tuple((i, i * 7, 4, (i / 10).hex()) for i in range(6))


def changed(i, row):
    return (*ROWS[:i], row, *ROWS[i + 1 :])


@pytest.mark.parametrize(
    ("got", "text"),
    [
        (changed(3, (3, 5, 4, (0.3).hex())), "eval=3 arch 21→5 score 0.3"),
        (changed(3, (3, 5, 4, (0.9).hex())), "eval=3 arch 21→5 score 0.3→0.9"),
        (changed(0, (0, 0, 4, (0.5).hex())), "eval=0 arch 0 score 0→0.5"),
        (changed(2, (2, 14, 2, (0.2).hex())), "eval=2 arch 14 score 0.2 epochs 4→2"),
        (changed(5, (5, 35, 4, float(np.nextafter(0.5, 1)).hex())), "eval=5 arch 35 score 0.5→0.50000000000000011"),
        (changed(4, (4, 28, 4, "nan")), "eval=4 arch 28 score 0.4→nan"),
        (ROWS[:4], "eval=4 arch 28→nothing"),
        ((), "eval=0 arch 0→nothing"),
        ((*ROWS, (6, 42, 4, (0.6).hex())), "eval=6 nothing→arch 42"),
    ],
)
def test_the_first_divergence(worlds, got, text):
    table = worlds[0].tables["a"]
    found = diverge(table, 9, ROWS, got)
    assert str(found) == f"table=a seed=9 {text}"
    if found.expected:
        assert found.expected.text == table.text(found.expected.architecture)
    assert str(diverge(table, 9, None, got)) == "table=a seed=9 (of this seed only the digest was recorded)"


# --- the file --------------------------------------------------------------------------------------------------------

LINES = [{"seed": s, "value": s / 3, "name": "é"} for s in range(7)]


@pytest.fixture
def baseline(tmp_path):
    path = tmp_path / "b.jsonl"
    gate_baseline.write(path, {"kind": "test"}, LINES, None)
    return path


def test_what_is_written_is_read(baseline):
    found = gate_baseline.read(baseline)
    assert list(found.lines) == LINES
    assert found.header["kind"] == "test"
    assert found.header["recorded"]["packages"]["numpy"] == np.__version__
    assert [json.loads(line)["data"] for line in baseline.read_text().splitlines()][1:] == LINES
    assert str(found.corrupt(2, "x")) == f"{baseline}: line 4: x"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(data=st.data())
def test_every_flipped_bit_is_found_and_its_line_named(baseline, data):
    good = baseline.read_bytes()
    at, bit = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 7))
    bad = bytearray(good)
    bad[at] ^= 1 << bit
    path = baseline.with_name("bad.jsonl")
    path.write_bytes(bytes(bad))
    line = good[:at].count(b"\n") + 1
    with pytest.raises((CorruptRecord, ValueError)) as caught:
        gate_baseline.read(path)
    if at >= 10:  # what the file is at all is read off its first bytes
        assert f"line {line}" in str(caught.value) or (good[at] == 10 and f"line {line + 1}" in str(caught.value))


@pytest.mark.parametrize(
    ("cut", "message"),
    [(-1, "line 8: is not complete"), (-30, "line 8: is not complete"), (None, "line 7: is the last")],
)
def test_a_file_that_ends_too_early(baseline, cut, message):
    data = baseline.read_bytes()
    baseline.write_bytes(data[:cut] if cut else data[: data[:-1].rindex(b"\n") + 1])
    with pytest.raises(CorruptRecord, match=message):
        gate_baseline.read(baseline)


def test_newer_and_foreign_files(baseline, tmp_path):
    (tmp_path / "x.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="is not a baseline"):
        gate_baseline.read(tmp_path / "x.jsonl")
    with pytest.raises(ValueError, match="cannot be read"):
        gate_baseline.read(tmp_path / "y.jsonl")
    header = dict(gate_baseline.read(baseline).header) | {"schema": 2}
    baseline.write_bytes(gate_baseline._line(gate_baseline.canonical_bytes(header)))
    with pytest.raises(NotComparable, match="schema 2"):
        gate_baseline.read(baseline)


def test_an_unreadable_baseline_is_not_replaced(baseline):
    baseline.write_bytes(baseline.read_bytes()[:-1])
    with pytest.raises(CorruptRecord):
        gate_baseline.refuse_existing(baseline, True)
