from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from nasbed.protocols import Cost
from nasbed.reports.frame import INCUMBENT_COLUMNS, RUN_COLUMNS, load


@pytest.fixture
def store(make_store):
    return make_store(("random", "weak"), tables=2, seeds=3)


def test_one_row_per_run_and_per_incumbent(store):
    data = load(store)
    assert tuple(data.runs.columns) == RUN_COLUMNS
    assert tuple(data.incumbents.columns) == INCUMBENT_COLUMNS
    assert len(data.runs) == 2 * 2 * 3
    assert len(data.incumbents) == sum(len(r.incumbents) for r in store.runs.values())
    assert list(zip(data.runs["table"], data.runs["method"], data.runs["seed"], strict=True)) == [
        (t, m, s) for t in ("nb201_digits", "nb201_clutter") for m in ("random", "weak") for s in range(3)
    ]


def test_rows_say_what_the_records_say(store):
    data = load(store)
    for row in data.runs.to_dict("records"):
        record = store.runs[row["run_id"]]
        told = [o for c in record.calls for o in c.observations]
        assert row["evaluations"] == len(told)
        assert row["diversity"] == len({str(o.proposal.architecture) for o in told}) / len(told)
        assert row["total_cost"] == pytest.approx(sum(c.amount for o in told for c in o.costs))
        assert row["cost_train"] == row["total_cost"]
        assert row["score_test"] == record.sealed["incumbents"][-1]["test"]


def test_every_charge_counts(store):
    key = next(iter(store.runs))
    record = store.runs[key]
    before = load(store).runs.set_index("run_id").loc[key, "total_cost"]
    calls = (dataclasses.replace(record.calls[0], costs=(Cost("controller", 3.0),)), *record.calls[1:])
    sealed = {**record.sealed, "retrained": {"test": [0.9], "cost": 7.0}}
    store.runs[key] = dataclasses.replace(record, preparation=(Cost("supernet", 5.0),), calls=calls, sealed=sealed)
    row = load(store).runs.set_index("run_id").loc[key]
    assert row["total_cost"] == pytest.approx(before + 15.0)
    assert (row["cost_supernet"], row["cost_controller"], row["cost_retrain"]) == (5.0, 3.0, 7.0)


def test_order_of_the_study_record_does_not_matter(store):
    data = load(store)
    store.record["runs"].reverse()
    store.runs = dict(reversed(store.runs.items()))
    again = load(store)
    pd.testing.assert_frame_equal(data.runs, again.runs)
    pd.testing.assert_frame_equal(data.incumbents, again.incumbents)


def test_runs_without_a_result_are_listed(make_store):
    store = make_store(("random", "weak"), seeds=3, fail=[("weak", 1)])
    lost = store.record["runs"][0]["key"]
    del store.runs[lost]
    absent = {(a.method, a.seed): a.error for a in load(store).absent}
    assert absent == {("weak", 1): "ValueError: <b>no</b> luck", ("random", 0): "not finished"}


def test_estimators_are_named_only_where_there_are_several(store):
    assert [m.label for m in load(store).methods] == ["random", "weak"]
    for entry in store.record["runs"]:
        if entry["strategy"] == "weak":
            entry["estimator"] = "synflow"
    assert [m.label for m in load(store).methods] == ["random + table", "weak + synflow"]


@pytest.mark.parametrize("field", ["pipeline", "budget", "options"])
def test_unequal_conditions_are_refused(store, field):
    key = next(iter(store.runs))
    record = store.runs[key]
    spec = {**record.spec, field: {**record.spec[field], "changed": True}}
    store.runs[key] = dataclasses.replace(record, spec=spec)
    with pytest.raises(ValueError, match=f"{field} differs"):
        load(store)


def test_another_version_of_a_table_is_refused(store):
    store.record["tables"]["nb201_digits"]["digest"] = "0" * 64
    with pytest.raises(ValueError, match="table digest differs"):
        load(store)


def test_damaged_and_empty_stores(store, make_store):
    empty = make_store(("random",), seeds=1)
    empty.runs.clear()
    with pytest.raises(ValueError, match="none of the 1 runs"):
        load(empty)
    empty.record["runs"] = []
    with pytest.raises(ValueError, match="nothing to report"):
        load(empty)
    key = next(iter(store.runs))
    store.runs[key] = dataclasses.replace(store.runs[key], sealed={"incumbents": []})
    with pytest.raises(ValueError, match="damaged"):
        load(store)


def test_real_training_has_the_data_set_in_place_of_a_table(make_store):
    data = load(make_store(("random", "weak"), seeds=2, real=True))
    assert not data.tabular
    assert data.places == ("digits",)
    assert data.incumbents["score_test"].isna().all()
    assert all(len(v) == 3 for v in data.runs["retrained"])
    assert np.isfinite(data.runs["total_cost"]).all()
