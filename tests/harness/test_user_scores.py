"""A user's own scores: what a file may hold, and the one line that says what is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nasbed.harness.evidence import truth as truth_of
from nasbed.harness.user_scores import user_scores
from nasbed.methods import registry
from nasbed.protocols.evidence import Scores, Truth
from nasbed.tabular import open_table


@pytest.fixture(scope="module")
def cells() -> Truth:
    """729 cells; the clock is FLOPs."""
    return truth_of(open_table("nb201-clutter"))


@pytest.fixture(scope="module")
def toy() -> Truth:
    """Five architectures, named 0 to 4, of errors that are lower where better; the clock is seconds."""
    return Truth(
        table="toy", digest="d", space="synthetic[genes=1]", pipeline="base", metric="mse", higher_is_better=False,
        clock="seconds", complete=True, size=5, architectures=("0", "1", "2", "3", "4"),
        values=np.arange(10.0).reshape(5, 2), seeds=(0, 1), cost=np.array([1.0, 2.0, 4.0, 8.0, 16.0]), features={},
    )  # fmt: skip


def written(folder: Path, *lines: str, name: str = "mine.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def one(path: Path, truth: Truth, **options: bool) -> Scores:
    [found] = user_scores(path, truth, **options)
    return found


# What is read.


def test_scores_stand_with_their_architectures_whatever_the_order(cells: Truth, tmp_path: Path) -> None:
    rows = [700, 3, 42]
    path = written(tmp_path, "score,architecture", *(f"{i / 7},{cells.architectures[i]}" for i in rows))
    found = one(path, cells)
    assert np.flatnonzero(found.asked).tolist() == sorted(rows)
    assert found.values[rows, 0].tolist() == [i / 7 for i in rows]
    assert int(np.isnan(found.values).sum()) == 726
    assert (found.name, found.reasons, found.axis, found.baseline) == ("mine", {}, None, False)
    assert found.source == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.costs is None
    assert (found.unit, found.traits.sign, found.traits.accuracy_scale) == ("", 1, False)
    assert np.isnan([found.full, *found.preparation]).all()
    assert not found.fitted.any()


def test_blank_lines_a_byte_order_mark_spaces_and_other_notations_do_no_harm(toy: Truth, tmp_path: Path) -> None:
    path = written(tmp_path, "architecture, score", "0, 1.5", "", '"1", 2', "04,-3e1", encoding="utf-8-sig")
    assert one(path, toy).values[[0, 1, 4], 0].tolist() == [1.5, 2.0, -30.0]


def test_a_seed_that_an_architecture_lacks_is_counted(toy: Truth, tmp_path: Path) -> None:
    lines = ["0,7,1", "1,7,2", "3,7,3", "4,7,4", "0,2,10", "1,2,20", "2,2,30"]
    found = one(written(tmp_path, "architecture,seed,score", *lines), toy)
    nan = np.nan
    expected = [[10, 1], [20, 2], [30, nan], [nan, 3], [nan, 4]]  # seeds in order: 2, 7
    assert np.array_equal(found.values, expected, equal_nan=True)
    assert found.asked.all()
    assert found.reasons == {"not in the file for seed 2": 2, "not in the file for seed 7": 1}
    assert found.preparation.shape == (2,)


def test_several_estimators_in_one_file(toy: Truth, tmp_path: Path) -> None:
    lines = [f"{a},{b},{a + (10 if b == 'late' else 0)}" for a in range(4) for b in ("late", "early")]
    late, early = user_scores(written(tmp_path, "architecture,estimator,score", *lines), toy)
    assert (late.name, early.name) == ("late", "early")
    assert late.values[:4, 0].tolist() == [10, 11, 12, 13]
    assert early.values[:4, 0].tolist() == [0, 1, 2, 3]
    assert early.asked.tolist() == [True, True, True, True, False]


def test_seconds_are_costs_in_the_unit_of_the_clock_or_none(toy: Truth, cells: Truth, tmp_path: Path) -> None:
    path = written(tmp_path, "architecture,score,seconds", "0,1,0.5", "1,2,0", "2,3,2")
    found = one(path, toy)
    assert np.array_equal(found.costs, [[0.5], [0.0], [2.0], [np.nan], [np.nan]], equal_nan=True)  # type: ignore
    assert (found.unit, found.full, found.preparation.tolist()) == ("seconds", 4.0, [0.0])
    lines = [f"{cells.architectures[i]},{i},1" for i in range(3)]
    assert np.isnan(one(written(tmp_path, "architecture,score,seconds", *lines), cells).full)  # clocked in FLOPs


def test_a_loss_is_turned_round(toy: Truth, tmp_path: Path) -> None:
    path = written(tmp_path, "architecture,score", "0,1", "1,2", "2,-3")
    found = one(path, toy, higher_is_better=False)
    assert found.values[:3, 0].tolist() == [-1, -2, 3]
    assert found.traits.sign == -1
    assert one(path, toy, higher_is_better=False, accuracy_scale=True).traits.accuracy_scale


@pytest.mark.parametrize(
    ("second", "deterministic"), [((1, 2, 3), True), ((1, 2, 4), False), ((), False)], ids=["equal", "not", "one seed"]
)
def test_seeds_tell_whether_an_estimator_is_deterministic(
    toy: Truth, tmp_path: Path, second: Sequence[int], deterministic: bool
) -> None:
    lines = [f"{a},{s},{v}" for s, column in enumerate(((1, 2, 3), second)) for a, v in enumerate(column)]
    found = one(written(tmp_path, "architecture,seed,score", *lines), toy)
    assert found.traits.deterministic is deterministic


def test_a_notation_of_the_space_and_members_of_merged_rows_are_found(tmp_path: Path) -> None:
    space = registry.space("nb201[ops=none,skip_connect]")
    texts = [space.text(space.at(i)) for i in range(64)]  # type: ignore[attr-defined]
    alike = space.at(2)  # type: ignore[attr-defined]
    known = space.text(space.canonical(alike))
    assert known != texts[2]
    truth = Truth("t", "d", space.name, "p", "accuracy", True, "flops", False, 64, (texts[5], known, texts[63]),
                  np.zeros((3, 1)), (0,), np.ones(3), {})  # fmt: skip
    lines = [f"{texts[2]},8", f"{texts[63]},9", f"{texts[5]},7"]
    assert one(written(tmp_path, "architecture,score", *lines), truth).values[:, 0].tolist() == [7, 8, 9]
    path = written(tmp_path, "architecture,score", *lines, f"{known},8")
    with pytest.raises(ValueError, match=r"^mine\.csv: line 5: '.*' has its score in line 2 already"):
        user_scores(path, truth)
    # Where the table lists a member itself, that is meant.
    both = replace(truth, architectures=(texts[2], known, texts[63]))
    path = written(tmp_path, "architecture,score", f"{texts[2]},1", f"{known},2", f"{texts[63]},3")
    assert one(path, both).values[:, 0].tolist() == [1, 2, 3]


def test_parquet_is_read_like_csv(toy: Truth, tmp_path: Path) -> None:
    frame = pd.DataFrame({"architecture": list("0123"), "score": [0.5, 1, 2, 3], "seed": [1, 1, 1, 1]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.set_index("architecture").to_parquet(tmp_path / "b.parquet")
    csv = written(tmp_path, "architecture,score,seed", "0,0.5,1", "1,1,1", "2,2,1", "3,3,1")
    for name in ("a", "b"):
        found = one(tmp_path / f"{name}.parquet", toy)
        assert np.array_equal(found.values, one(csv, toy).values, equal_nan=True)
        assert found.name == name
    frame.loc[2, "score"] = np.nan
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"^a\.parquet: row 3: score: nan is not a number"):
        user_scores(tmp_path / "a.parquet", toy)
    (tmp_path / "c.parquet").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"^c\.parquet: ") as caught:
        user_scores(tmp_path / "c.parquet", toy)
    assert "\n" not in str(caught.value)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 4), st.integers(0, 2)), st.floats(-1e300, 1e300), min_size=1
    ).flatmap(lambda d: st.permutations(list(d.items()))),
    st.booleans(),
)  # fmt: skip
def test_what_was_written_is_read_or_refused(
    toy: Truth, tmp_path: Path, lines: list[tuple[tuple[int, int], float]], higher: bool
) -> None:
    """Every number of the file is in its place, turned round if a loss, and nothing else is there."""
    path = written(tmp_path, "architecture,seed,score", *(f"{a},{s},{v!r}" for (a, s), v in lines))
    columns = {s: [v for (_, t), v in lines if t == s] for (_, s), _ in lines}
    if any(len(c) < 3 or len(set(c)) == 1 for c in columns.values()):
        with pytest.raises(ValueError, match=r"needs 3|gives every architecture"):
            user_scores(path, toy, higher_is_better=higher)
        return
    found = one(path, toy, higher_is_better=higher)
    seeds = sorted(columns)
    for (a, s), v in lines:
        assert found.values[a, seeds.index(s)] == (v if higher else -v)
    assert int((~np.isnan(found.values)).sum()) == len(lines)
    assert sum(found.reasons.values()) == found.asked.sum() * len(seeds) - len(lines)


# What is refused.

HEAD = "architecture,score"
WRONG = {
    "no score": (["architecture,sore", "0,1"], "there is no column 'score'; needed are architecture, score, and may be "
                 "seconds, seed, estimator; there are architecture, sore"),
    "empty": ([], "there is no column 'architecture'; .*; there are none"),
    "unknown column": ([HEAD + ",second", "0,1,2"], "column: 'second' is not one of .*; did you mean 'seconds'"),
    "column twice": ([HEAD + ",score", "0,1,2"], "the column 'score' is there twice"),
    "no rows": ([HEAD], "there are no scores below the header"),
    "cells": ([HEAD, "0,1", "1,2,3"], "line 3: 3 cells, but the header has 2"),
    "quotes": ([HEAD, '"0"x,1'], "line 2: ',' expected after '\"'"),
    "unparsed": ([HEAD, "0,1", "zero,1", "", "nil,2"],
                 r"line 3: 'zero' is no architecture of the table 'toy' \(.*\); 2 rows name architectures that are"),
    "foreign": ([HEAD, "0,1", "9,1"],
                r"line 3: '9' is no architecture of the table 'toy' \(.*; allowed: 0, 1, 2, 3, 4\)$"),
    "twice": ([HEAD, "0,1", "1,2", "", "0,1"], "line 5: '0' has its score in line 2 already"),
    "text": ([HEAD, "0,1", "1,high"], "line 3: score: 'high' is not a number; where there is no score, leave the line"),
    "nan": ([HEAD, "0,nan"], "line 2: score: 'nan' is not a number"),
    "nothing": ([HEAD, "0,"], "line 2: score: '' is not a number"),
    "infinite": ([HEAD, "0,1", "1,-inf"], "line 3: score: '-inf' is infinite"),
    "seed": ([HEAD + ",seed", "0,1,0.5"], "line 2: seed: '0.5' is not an integer"),
    "no seed": ([HEAD + ",seed", "0,1,"], "line 2: seed: '' is not a number"),
    "seconds": ([HEAD + ",seconds", "0,1,-1"], "line 2: seconds: '-1' is less than 0"),
    "no seconds": ([HEAD + ",seconds", "0,1,0", "1,1,"], "line 3: seconds: '' is not a number"),
    "estimator": ([HEAD + ",estimator", "0,1, "], "line 2: estimator: '' is not a printable name"),
    "constant": ([HEAD, "0,7", "1,7", "2,7"], "line 2: 'mine' gives every architecture the score 7$"),
    "constant seed": ([HEAD + ",seed", *(f"{a},{a * s},{s}" for s in (1, 0) for a in range(3))],
                      "line 5: 'mine' with seed 0 gives every architecture the score 0$"),
    "few": ([HEAD, "0,1", "1,2"], "line 2: 'mine' has scores of 2 architectures; an audit needs 3"),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_line(lines: list[str], message: str, toy: Truth, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^mine\.csv: " + message) as caught:
        user_scores(written(tmp_path, *lines), toy)
    assert "\n" not in str(caught.value)


def test_of_a_sample_it_is_said_what_is_not_in_it(tmp_path: Path) -> None:
    table = open_table("nb201-mnist-clutter")
    truth = truth_of(table)
    outside = [table.space.text(table.space.at(i)) for i in range(729)]  # type: ignore[attr-defined]
    outside = [t for t in outside if t not in truth.architectures and
               table.space.text(table.space.canonical(table.space.parse(t))) not in truth.architectures]  # fmt: skip
    path = written(tmp_path, HEAD, *(f"{t},{i}" for i, t in enumerate([*truth.architectures, *outside])))
    with pytest.raises(ValueError, match=r"line 302: '.*' is not among the 300 architectures of the table") as caught:
        user_scores(path, truth)
    assert f"'nb201-mnist-clutter'; {len(outside)} rows name" in str(caught.value)


def test_files_that_are_no_tables_of_scores(toy: Truth, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^a\.txt: scores are read from files that end with one of \.csv, \.parquet$"):
        user_scores(written(tmp_path, HEAD, name="a.txt"), toy)
    with pytest.raises(ValueError, match=r"^none\.csv: there is no file "):
        user_scores(tmp_path / "none.csv", toy)
    (tmp_path / "b.csv").write_bytes(b"architecture,score\n\xff,1\n")
    with pytest.raises(ValueError, match=r"^b\.csv: .*utf-8"):
        user_scores(tmp_path / "b.csv", toy)


def test_the_scale_of_accuracies_is_claimed_and_checked(cells: Truth, toy: Truth, tmp_path: Path) -> None:
    lines = [f"{cells.architectures[i]},{v}" for i, v in enumerate((0.5, 93.1, 0.2))]
    path = written(tmp_path, HEAD, *lines)
    assert not one(path, cells).traits.accuracy_scale
    with pytest.raises(ValueError, match=r"^mine\.csv: line 3: 93\.1 is no accuracy as a fraction, in \[0, 1\]"):
        user_scores(path, cells, accuracy_scale=True)
    with pytest.raises(ValueError, match="scores on the scale of accuracy are higher for better architectures"):
        user_scores(path, cells, accuracy_scale=True, higher_is_better=False)
    with pytest.raises(ValueError, match="scores on the scale of mse are lower for better architectures"):
        user_scores(written(tmp_path, HEAD, "0,1", "1,2", "2,3"), toy, accuracy_scale=True)
    fine = written(tmp_path, HEAD, *(f"{cells.architectures[i]},{v}" for i, v in enumerate((0.5, 0.931, 0.2))))
    assert one(fine, cells, accuracy_scale=True).traits.accuracy_scale
