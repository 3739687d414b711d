"""The format: what goes in comes out, what does not fit is refused, what is sealed stays sealed."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasbed.methods import registry
from nasbed.protocols import FULL, Architecture, Fidelity, MissingEntry, Pipeline, Task
from nasbed.tabular import MappedTable, embedded, find, open_table, write_table
from nasbed.tabular.format import MISSING, digest
from nasbed.tabular.sealed import unseal_fgsm
from nasbed.tabular.verify import verify

NAME = "mlp[hidden=1;widths=8;dropout=no]"
SPACE = registry.space(NAME)
CELLS = registry.space("nb201[ops=none,skip_connect,nor_conv_3x3]")
REGRESSION = Task("boston", "regression", "rmse", False, (13,), None, "")


def counts(rows: int = 4, seeds: int = 2, epochs: int = 3, high: int = 100, root: int = 0) -> np.ndarray:
    return np.random.default_rng(root).integers(0, high + 1, (rows, seeds, epochs), np.uint16)


def arrays() -> dict[str, np.ndarray]:
    return {
        "valid.base": counts(),
        "test.base": counts(root=1),
        "train.base": counts(root=2),
        "cost.base": np.arange(1.0, 5.0),
    }


MANIFEST = {"name": "mine", "clock": "seconds", "examples": {"train": 100, "valid": 100, "test": 100}}


def plain(folder: Path) -> MappedTable:
    return open_table(write_table(folder, SPACE, arrays(), MANIFEST))


def test_round_trip_of_a_complete_table(tmp_path: Path) -> None:
    table, given = plain(tmp_path / "t"), arrays()
    assert (table.name, table.coverage, table.clock, table.seeds) == ("mine", "complete", "seconds", (0, 1))
    assert table.space == SPACE
    assert table.pipelines["base"].epochs == 3
    for row in range(4):
        a = SPACE.at(row)
        assert table.row(a) == row
        assert table.text(row) == SPACE.text(a)
        for seed in (0, 1):
            for epochs in (1, 2, 3, math.inf):
                entry = table.lookup(a, pipeline="base", seed=seed, fidelity=Fidelity(epochs=epochs))
                k = 3 if math.isinf(epochs) else int(epochs)
                assert entry.epochs.tolist() == list(range(1, k + 1))
                assert entry.valid.tolist() == (given["valid.base"][row, seed, :k] / 100).tolist()
                assert entry.train is not None
                assert entry.train.tolist() == (given["train.base"][row, seed, :k] / 100).tolist()
                assert entry.cost == (row + 1.0) * k
    assert table.median_cost("base") == 7.5


def test_without_costs_and_train_values_an_epoch_costs_one(tmp_path: Path) -> None:
    given = {k: v for k, v in arrays().items() if k in ("valid.base", "test.base")}
    table = open_table(write_table(tmp_path / "t", NAME, given, {"name": "x", "examples": {"valid": 100, "test": 100}}))
    entry = table.lookup(SPACE.at(1), pipeline="base", seed=1, fidelity=Fidelity(epochs=2))
    assert table.clock == "epochs"
    assert (entry.cost, entry.train) == (2.0, None)


def test_cumulative_costs_chosen_epochs_and_seeds(tmp_path: Path) -> None:
    given = {**arrays(), "cost.base": np.cumsum(np.ones((4, 2, 3)), 2) * 5}
    fields = {"epochs": {"base": [1, 4, 16]}, "seeds": [777, 888]}
    table = open_table(write_table(tmp_path / "t", SPACE, given, {**MANIFEST, **fields}))
    entry = table.lookup(SPACE.at(2), pipeline="base", seed=888, fidelity=Fidelity(epochs=4))
    assert entry.epochs.tolist() == [1, 4]
    assert entry.cost == 10.0
    assert table.pipelines["base"].epochs == 16
    assert table.median_cost("base") == 15.0
    with pytest.raises(MissingEntry, match=r"fidelity.epochs: .* has 1, 4, 16, inf, not 2"):
        table.lookup(SPACE.at(2), pipeline="base", seed=888, fidelity=Fidelity(epochs=2))
    with pytest.raises(MissingEntry, match=r"seed: .* has 777, 888, not 0"):
        table.lookup(SPACE.at(2), pipeline="base", seed=0, fidelity=FULL)


def test_a_metric_that_is_no_accuracy(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 2, 3)).astype(np.float32)
    values[1, 0] = np.nan
    given = {"valid.base": values, "test.base": values + 1}
    table = open_table(write_table(tmp_path / "t", SPACE, given, {"name": "r", "task": REGRESSION}))
    assert table.task == REGRESSION
    entry = table.lookup(SPACE.at(0), pipeline="base", seed=0, fidelity=FULL)
    assert entry.valid.tolist() == values[0, 0].tolist()
    with pytest.raises(MissingEntry, match="no training with seed 0"):
        table.lookup(SPACE.at(1), pipeline="base", seed=0, fidelity=FULL)


def test_a_diverged_training_is_a_value_and_a_missing_one_is_not(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 2, 3)).astype(np.float32) + 50
    values[1, 0], values[2, 1] = np.inf, np.nan
    task = Task("words", "text", "perplexity", False, (35,), 100, "")
    given = {"valid.base": values, "test.base": values}
    table = open_table(write_table(tmp_path / "t", SPACE, given, {"name": "p", "task": task}), verify=True)
    assert table.lookup(SPACE.at(1), pipeline="base", seed=0, fidelity=FULL).valid.tolist() == [math.inf] * 3
    with pytest.raises(MissingEntry, match=r"no training with seed 1 under 'base'; recorded: 0$"):
        table.lookup(SPACE.at(2), pipeline="base", seed=1, fidelity=FULL)
    assert (table.diverged("base"), table.without_training("base")) == (1, 0)
    found = verify(table.folder)
    assert found.passed
    assert found.trainings == {"recorded": 7, "missing": 1, "diverged": 1}


def test_what_is_missing_has_no_cost_and_counts_in_no_median(tmp_path: Path) -> None:
    given = arrays()
    given["cost.base"] = np.cumsum(np.full((4, 2, 3), 2.0), 2) * np.arange(1, 5)[:, None, None]
    for name in ("valid.base", "test.base", "train.base"):
        given[name][0, 1] = MISSING
        given[name][3] = MISSING
    given["cost.base"][0, 1], given["cost.base"][3] = np.nan, np.nan
    table = open_table(write_table(tmp_path / "t", SPACE, given, MANIFEST), verify=True)
    assert table.median_cost("base") == 12.0  # of 6, 12 and 18
    assert table.lookup(SPACE.at(0), pipeline="base", seed=0, fidelity=Fidelity(2)).cost == 4.0
    assert [table.recorded_seeds(SPACE.at(i), "base") for i in range(4)] == [(0,), (0, 1), (0, 1), ()]
    assert table.without_training("base") == 1
    given["cost.base"][1, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"cost.base: every cost .* or NaN where there is no training"):
        write_table(tmp_path / "u", SPACE, given, MANIFEST)
    given["cost.base"] = np.array([1.0, 2.0, 3.0, np.nan])
    assert open_table(write_table(tmp_path / "u", SPACE, given, MANIFEST)).median_cost("base") == 6.0


def attacked() -> dict[str, np.ndarray]:
    return {**arrays(), "fgsm.base": counts()[:, :, 0]}


def test_accuracy_under_attack_is_sealed(tmp_path: Path) -> None:
    given = attacked()
    given["fgsm.base"][2, 1] = MISSING
    table = open_table(write_table(tmp_path / "t", SPACE, given, {**MANIFEST, "fgsm_epsilon": 0.03}), verify=True)
    assert (table.folder / "sealed" / "fgsm.base.npy").is_file()
    expected = np.where(given["fgsm.base"] == MISSING, np.nan, given["fgsm.base"] / 100)
    assert np.array_equal(unseal_fgsm(table, "base"), expected, equal_nan=True)
    assert unseal_fgsm(plain(tmp_path / "u"), "base") is None
    with pytest.raises(MissingEntry, match="array: "):
        table.array("fgsm.base")
    assert not any("sealed" in str(getattr(x, "filename", "")) for x in reachable(table))
    assert verify(table.folder).passed
    assert digest({**table.manifest, "fgsm_epsilon": 0.1}) != table.digest
    flip(table.folder / "sealed" / "fgsm.base.npy")
    with pytest.raises(ValueError, match=r"fgsm.base.npy does not have the sha256"):
        open_table(table.folder, verify=True)


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        ({}, {"fgsm_epsilon": None}, "fgsm_epsilon: None is not a number > 0"),
        ({}, {"fgsm_epsilon": 0}, "fgsm_epsilon: None is not a number > 0"),
        ({}, {"fgsm_epsilon": -1.0}, "fgsm_epsilon: -1.0 is not"),
        ({}, {"fgsm_epsilon": True}, "fgsm_epsilon: True is not"),
        ({"fgsm.base": counts()}, {}, "fgsm.base: shape"),
        ({"fgsm.base": counts()[:, :, 0].astype(float)}, {}, "fgsm.base: accuracies are uint16"),
        ({"fgsm.base": counts(high=200)[:, :, 0]}, {}, "fgsm.base: .* correct predictions of 100"),
        ({"fgsm.other": counts()[:, :, 0]}, {}, "arrays: 'fgsm.other' is not one of"),
        ({"fgsm.base@data=0.5": counts()[:, :, 0]}, {}, "arrays: 'fgsm.base@data=0.5' is not one of"),
        ({"fgsm.base": None}, {}, "fgsm_epsilon: there is no array"),
        ({"valid.base": np.full((4, 2, 3), MISSING, np.uint16)}, {}, "valid.base: holds no training at all"),
    ],
)
def test_attacks_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    given = {k: v for k, v in {**attacked(), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message) as error:
        write_table(tmp_path / "t", SPACE, given, {**MANIFEST, "fgsm_epsilon": 0.03, **fields})
    assert "\n" not in str(error.value)


def test_training_values_are_optional_by_pipeline(tmp_path: Path) -> None:
    given = {**arrays(), "valid.mixup": counts(root=5), "test.mixup": counts(root=6), "cost.mixup": np.ones(4)}
    table = open_table(write_table(tmp_path / "t", SPACE, given, MANIFEST))
    asked = {"seed": 0, "fidelity": FULL}
    assert table.lookup(SPACE.at(0), pipeline="mixup", **asked).train is None
    assert table.lookup(SPACE.at(0), pipeline="base", **asked).train is not None


def test_an_ingredient_that_is_off_is_not_described(tmp_path: Path) -> None:
    plainly = Pipeline("base", "adam", 0.1, 3, 64)
    mixed = Pipeline("mixup", "adam", 0.1, 3, 64, mixup=0.2)
    given = {**arrays(), "valid.mixup": counts(), "test.mixup": counts(), "cost.mixup": np.ones(4)}
    table = open_table(
        write_table(tmp_path / "t", SPACE, given, {**MANIFEST, "pipelines": {"base": plainly, "mixup": mixed}})
    )
    described = table.manifest["pipelines"]
    assert dict(table.pipelines) == {"base": plainly, "mixup": mixed}
    assert (described["mixup"]["mixup"], "mixup" in described["base"], "restart_factor" in described["base"]) == (
        0.2, False, False,
    )  # fmt: skip
    assert described["mixup"]["digest"] == mixed.digest != plainly.digest


def test_merged_rows_are_counted_once_for_each_member(tmp_path: Path) -> None:
    """Rows that no look-up reaches may be empty, and nothing is missing."""
    rows = CELLS.size
    values = counts(rows)
    unreached = [i for i in range(rows) if CELLS.canonical(CELLS.at(i)) != CELLS.at(i)]
    values[unreached] = MISSING
    given = {"valid.base": values, "test.base": values}
    table = open_table(write_table(tmp_path / "t", CELLS, given, {**MANIFEST, "canonical": "iso", "clock": "epochs"}))
    members = table.members()
    assert len(members) == rows
    assert not set(unreached) & set(members.tolist())
    assert [int(members[i]) for i in unreached[:9]] == [table.row(CELLS.at(i)) for i in unreached[:9]]
    assert table.without_training("base") == 0
    assert verify(table.folder).trainings["missing"] == 0
    values[members[unreached[0]]] = MISSING
    spoilt = open_table(write_table(tmp_path / "u", CELLS, given, {**MANIFEST, "canonical": "iso", "clock": "epochs"}))
    assert spoilt.without_training("base") == (members == members[unreached[0]]).sum() >= 2


def test_a_merged_table_looks_up_the_representative(tmp_path: Path) -> None:
    rows = CELLS.size
    given = {"valid.base": counts(rows), "test.base": counts(rows, root=1)}
    table = open_table(write_table(tmp_path / "t", CELLS, given, {**MANIFEST, "canonical": "iso", "clock": "epochs"}))
    merged = [a for a in map(CELLS.at, range(rows)) if CELLS.canonical(a) != a]
    assert merged
    for a in merged:
        row = CELLS.index(CELLS.canonical(a))
        assert table.row(a) == row
        entry = table.lookup(a, pipeline="base", seed=1, fidelity=FULL)
        assert entry.valid.tolist() == (given["valid.base"][row, 1] / 100).tolist()


@pytest.mark.parametrize("canonical", [None, "iso"])
def test_a_sample_has_only_its_own(tmp_path: Path, canonical: str | None) -> None:
    members = list(map(CELLS.at, range(0, CELLS.size, 7)))
    if canonical:
        members = list(dict.fromkeys(CELLS.canonical(a) for a in members))
    given = {"valid.base": counts(len(members)), "test.base": counts(len(members), root=1)}
    fields = {"architectures": [CELLS.text(a) for a in members], "canonical": canonical, "clock": "epochs"}
    table = open_table(write_table(tmp_path / "t", CELLS, given, {**MANIFEST, **fields}))
    assert table.coverage == "sample"
    held = set(members)
    for i in range(CELLS.size):
        a = CELLS.at(i)
        key = CELLS.canonical(a) if canonical else a
        if key in held:
            assert members[table.row(a)] == key
            assert table.lookup(a, pipeline="base", seed=0, fidelity=FULL).valid.shape == (3,)
        else:
            with pytest.raises(MissingEntry, match=r"architecture: .* not in the table 'mine'"):
                table.lookup(a, pipeline="base", seed=0, fidelity=FULL)
    assert table.text(3) == CELLS.text(members[3])


def foreign() -> list[Architecture]:
    return [
        Architecture("mlp", (5, 30)),  # 16 units: outside the restriction
        Architecture("mlp", (1, 1, 30)),  # two layers
        Architecture("mlp", (29, 30)),
        Architecture("mlp", (30,)),
        Architecture("mlp", ()),
        Architecture("mlp", (1, 1)),  # no output layer
        Architecture("mlp", (-1, 30)),
        Architecture("other", (1, 30)),  # equal genes, another space
    ]


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("a", foreign(), ids=str)
def test_what_is_no_member_is_missing_never_a_number(tmp_path: Path, a: Architecture, sample: bool) -> None:
    fields = {"architectures": [SPACE.text(SPACE.at(i)) for i in range(4)]} if sample else {}
    table = open_table(write_table(tmp_path / "t", SPACE, arrays(), {**MANIFEST, **fields}))
    for ask in (lambda: table.row(a), lambda: table.lookup(a, pipeline="base", seed=0, fidelity=FULL)):
        with pytest.raises(MissingEntry, match="architecture: ") as error:
            ask()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"pipeline": "sgd"}, "pipeline: the table 'mine' has base, not sgd"),
        ({"seed": 2}, "seed: the table 'mine' has 0, 1, not 2"),
        ({"seed": -1}, "seed: "),
        ({"fidelity": Fidelity(epochs=4)}, "fidelity.epochs: "),
        ({"fidelity": Fidelity(epochs=0)}, "fidelity.epochs: "),
        ({"fidelity": Fidelity(epochs=1.5)}, "fidelity.epochs: "),
        ({"fidelity": Fidelity(data=0.5)}, "fidelity: .* no axis but epochs"),
        ({"fidelity": Fidelity(width=0.5)}, "fidelity: .* no axis but epochs"),
    ],
)
def test_what_was_not_recorded_is_missing_never_a_number(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    table = plain(tmp_path / "t")
    with pytest.raises(MissingEntry, match=message):
        table.lookup(SPACE.at(0), **{"pipeline": "base", "seed": 0, "fidelity": FULL, **asked})


def test_a_missing_training_is_missing_and_the_others_are_there(tmp_path: Path) -> None:
    given = arrays()
    given["valid.base"][2, 1] = MISSING
    given["valid.base"][3, 0, 2] = MISSING  # stopped after two epochs
    table = open_table(write_table(tmp_path / "t", SPACE, given, MANIFEST))
    for row, seed in ((2, 1), (3, 0)):
        with pytest.raises(MissingEntry, match=f"no training with seed {seed}"):
            table.lookup(SPACE.at(row), pipeline="base", seed=seed, fidelity=FULL)
    assert len(table.lookup(SPACE.at(3), pipeline="base", seed=0, fidelity=Fidelity(epochs=2)).valid) == 2
    assert table.lookup(SPACE.at(2), pipeline="base", seed=0, fidelity=FULL).valid.max() <= 1


def changed(**new: Any) -> Mapping[str, np.ndarray]:
    return {k.replace("_", "."): v for k, v in new.items()}


def hole(last: bool = False) -> np.ndarray:
    x = counts()
    x[1, 1, 0 if not last else slice(None)] = MISSING
    return x


@pytest.mark.parametrize(
    ("new_arrays", "new_fields", "message"),
    [
        ({"valid.base": None}, {}, "arrays: needs valid"),
        ({"test.base": None}, {}, "arrays: 'test.base' is missing"),
        ({"valid.base": counts()[:, 0]}, {}, "valid.base: shape"),
        ({"test.base": counts(epochs=2)}, {}, "test.base: shape"),
        ({"train.base": counts(seeds=3)}, {}, "train.base: shape"),
        ({"valid.base": counts().astype(float)}, {}, "valid.base: accuracies are uint16"),
        ({"valid.base": counts(high=200)}, {}, "valid.base: .* correct predictions of 100 examples"),
        (
            {"valid.base": counts(5), "test.base": counts(5), "train.base": None},
            {},
            "arrays: 5 rows, but .* has 4 members",
        ),
        ({"valid.base": hole()}, {}, "valid.base: an epoch is missing before one"),
        ({"train.base": hole(last=True)}, {}, "train.base: missing where valid.base is there"),
        ({"cost.base": np.ones(3)}, {}, "cost.base: shape"),
        ({"cost.base": np.array([1, 1, np.nan, 1])}, {}, "cost.base: every cost"),
        ({"cost.base": np.array([1, 1, -1.0, 1])}, {}, "cost.base: every cost"),
        ({"feature.params": np.ones(3)}, {}, "feature.params: shape"),
        ({"cost.other": np.ones(4)}, {}, "arrays: 'cost.other' is not one of"),
        ({"latency": np.ones(4)}, {}, "arrays: 'latency' is not one of"),
        ({}, {"name": None}, "manifest: the field 'name' is missing"),
        ({}, {"clock": None}, "clock: missing"),
        ({}, {"clock": "hours"}, "clock: 'hours' is not one of seconds, evaluations, epochs, flops"),
        ({}, {"examples": {"train": 100, "valid": 100}}, "examples: the number of test examples"),
        ({}, {"examples": {"train": 100, "valid": 0, "test": 100}}, "examples: the number of valid examples"),
        ({}, {"seeds": [0]}, "seeds: .* 2 different"),
        ({}, {"seeds": [3, 3]}, "seeds: .* 2 different"),
        ({}, {"epochs": {"base": [1, 2]}}, "valid.base: shape"),
        ({}, {"epochs": {"base": [2, 1, 3]}}, "epochs: .*ascending"),
        ({}, {"epochs": {"base": [0, 1, 2]}}, "epochs: .*ascending"),
        ({}, {"epochs": {"other": [1, 2, 3]}}, "epochs: None of 'base'"),
        ({}, {"canonical": "iso"}, "canonical: 'iso' is not one of raw"),
        ({}, {"architectures": ["8-relu"] * 4}, "architectures: must be 4 different"),
        ({}, {"architectures": ["8-relu"]}, "architectures: must be 4 different"),
        ({}, {"architectures": ["8-relu", "8-elu", "8-tanh", "8-swish"]}, "layer 0 of '8-swish'"),
        ({}, {"architectures": ["8-relu", "8-elu", "8-tanh", "16-tanh"]}, "gene 0 of mlp:6.30"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, new_arrays: dict[str, Any], new_fields: dict[str, Any], message: str
) -> None:
    given = {k: v for k, v in {**arrays(), **new_arrays}.items() if v is not None}
    fields = {k: v for k, v in {**MANIFEST, **new_fields}.items() if v is not None}
    with pytest.raises(ValueError, match=message) as error:
        write_table(tmp_path / "t", SPACE, given, fields)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "t" / "manifest.json").exists()


def test_other_metrics_must_be_float32(tmp_path: Path) -> None:
    given = {"valid.base": np.ones((4, 2, 3)), "test.base": np.ones((4, 2, 3), np.float32)}
    with pytest.raises(ValueError, match=r"valid.base: rmse must be float32, not float64"):
        write_table(tmp_path / "t", SPACE, given, {"name": "r", "task": REGRESSION})


def test_a_sample_lists_canonical_texts_only(tmp_path: Path) -> None:
    a = next(a for a in map(CELLS.at, range(CELLS.size)) if CELLS.canonical(a) != a)
    given = {"valid.base": counts(1), "test.base": counts(1)}
    fields = {**MANIFEST, "architectures": [CELLS.text(a)], "canonical": "iso", "clock": "epochs"}
    with pytest.raises(ValueError, match=r"architectures: .* is not canonical at the level 'iso'"):
        write_table(tmp_path / "t", CELLS, given, fields)


def test_a_table_is_not_written_over(tmp_path: Path) -> None:
    plain(tmp_path / "t")
    with pytest.raises(ValueError, match=r"folder: .* holds a table already"):
        plain(tmp_path / "t")


def reachable(root: object) -> list[object]:
    """Everything that attributes, containers, closures and buffers lead to; not modules and classes."""
    seen: dict[int, object] = {}
    todo = [root]
    while todo:
        x = todo.pop()
        if id(x) in seen or isinstance(x, (type, type(json))):
            continue
        seen[id(x)] = x
        if callable(x) and hasattr(x, "__globals__"):
            todo += [c.cell_contents for c in x.__closure__ or ()] + list(x.__defaults__ or ())
        else:
            todo += gc.get_referents(x)
            todo += (
                [getattr(x, k, None) for k in dir(x) if not k.startswith("__")] if isinstance(x, MappedTable) else []
            )
        if isinstance(x, np.ndarray) and x.base is not None:
            todo.append(x.base)
    return list(seen.values())


def test_no_test_value_is_reachable(tmp_path: Path) -> None:
    given = {
        **arrays(),
        "test.base": np.full((4, 2, 3), 97, np.uint16),
        "valid.base": counts(high=50),
        "train.base": counts(high=50),
    }
    table = open_table(write_table(tmp_path / "t", SPACE, given, MANIFEST), verify=True)
    found = reachable(table)
    held = [x for x in found if isinstance(x, np.ndarray)]
    assert sum(x.dtype == np.uint16 for x in held) >= 2  # the walk does find the arrays that are there
    assert not any((x == 97).any() for x in held if x.dtype == np.uint16)
    opened = {str(getattr(x, "filename", "")) for x in held}
    assert any(name.endswith("valid.base.npy") for name in opened)
    assert not any("sealed" in name for name in opened)
    for stem in ("test.base", "sealed/test.base", "../sealed/test.base"):
        with pytest.raises(MissingEntry, match="array: "):
            table.array(stem)
    assert not [k for k in dir(table) if "test" in k.lower() or "seal" in k.lower()]


def test_arrays_cannot_be_written(tmp_path: Path) -> None:
    table = plain(tmp_path / "t")
    with pytest.raises(ValueError, match="read-only"):
        table.array("valid.base")[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        table.lookup(SPACE.at(0), pipeline="base", seed=0, fidelity=FULL).epochs[0] = 9


def test_opening_is_fast(tmp_path: Path) -> None:
    rows = CELLS.size
    given = {f"{s}.base": counts(rows, 5, 20) for s in ("train", "valid", "test")}
    folder = write_table(tmp_path / "t", CELLS, given, {**MANIFEST, "clock": "epochs"})
    open_table(folder)
    durations = []
    for _ in range(5):
        started = time.process_time()
        open_table(folder)
        durations.append(time.process_time() - started)
    assert min(durations) < 0.05


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_misstated_median_cost_is_seen(tmp_path: Path) -> None:
    """It sets default budgets, and is no part of the digest."""
    folder = plain(tmp_path / "t").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["median_cost"]["base"] *= 2
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"median_cost: .*manifest\.json states"):
        open_table(folder, verify=True)
    found = verify(folder)
    assert not found.passed
    assert [p.partition(":")[0] for p in found.problems] == ["median_cost"]


@pytest.mark.parametrize("name", ["valid.base.npy", "cost.base.npy", "sealed/test.base.npy"])
def test_a_changed_byte_is_seen_where_it_is_asked_for(tmp_path: Path, name: str) -> None:
    folder = plain(tmp_path / "t").folder
    open_table(folder, verify=True)
    flip(folder / name)
    with pytest.raises(ValueError, match=f"files: .*{name} does not have the sha256"):
        open_table(folder, verify=True)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"files: .*{name} is missing"):
        open_table(folder, verify=True)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array at all"])
def test_an_unreadable_array_is_named(tmp_path: Path, content: bytes) -> None:
    folder = plain(tmp_path / "t").folder
    (folder / "valid.base.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"files: .*valid.base.npy is no readable array"):
        open_table(folder)
    (folder / "valid.base.npy").unlink()
    with pytest.raises(ValueError, match=r"files: .*valid.base.npy is missing"):
        open_table(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "other"),
        ("clock", "flops"),
        ("seeds", [5, 6]),
        ("examples", {"train": 100, "valid": 50, "test": 100}),
        ("space", "mlp[hidden=1;widths=16;dropout=no]"),
        ("coverage", "sample"),
        ("epochs", {"base": [1, 2, 9]}),
        ("digest", "0" * 64),
    ],
)
def test_a_tampered_manifest_is_seen_at_opening(tmp_path: Path, field: str, value: object) -> None:
    path = plain(tmp_path / "t").folder / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest[field] != value
    path.write_text(json.dumps({**manifest, field: value}))
    with pytest.raises(ValueError, match=r"digest: .* was changed after the table was written"):
        open_table(path.parent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lambda m: json.dumps({"schema": 2}), "schema: .* has schema 2; this version reads up to 1"),
        (lambda m: json.dumps({**m, "schema": 99}), "schema: .* has schema 99"),
        (lambda m: json.dumps({k: v for k, v in m.items() if k != "seeds"}), "lacks the field 'seeds'"),
        (lambda m: json.dumps({k: v for k, v in m.items() if k != "digest"}), "lacks the field 'digest'"),
        (lambda m: "[]", "is not a JSON object"),
        (lambda m: "{", "is not JSON"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, text: Callable[[Any], str], message: str) -> None:
    path = plain(tmp_path / "t").folder / "manifest.json"
    path.write_text(text(json.loads(path.read_text())))
    with pytest.raises(ValueError, match=message) as error:
        open_table(path.parent)
    assert "\n" not in str(error.value)


def test_a_description_does_not_enter_the_digest(tmp_path: Path) -> None:
    a = plain(tmp_path / "a")
    b = open_table(write_table(tmp_path / "b", SPACE, arrays(), {**MANIFEST, "summary": "something else"}))
    c = open_table(write_table(tmp_path / "c", SPACE, {**arrays(), "cost.base": np.ones(4)}, MANIFEST))
    assert a.digest == b.digest != c.digest
    assert b.manifest["summary"] == "something else"


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    folder = plain(tmp_path / "t").folder
    np.save(folder / "valid.base.npy", np.array([{"harm": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"valid.base.npy is no readable array .*"):
        open_table(folder)
    with pytest.raises(ValueError, match=r"valid.base"):
        write_table(tmp_path / "u", SPACE, {**arrays(), "valid.base": np.full((4, 2, 3), None, object)}, MANIFEST)


def test_pipelines_keep_every_number(tmp_path: Path) -> None:
    pipeline = Pipeline("base", "sgd", 0.1, 3, 64, "cosine", 0.9, True, 1e-4, ("learning_rate",), 2)
    table = open_table(write_table(tmp_path / "t", SPACE, arrays(), {**MANIFEST, "pipelines": {"base": pipeline}}))
    assert table.pipelines["base"] == pipeline
    assert table.manifest["pipelines"]["base"]["digest"] == pipeline.digest


def test_finding_tables(tmp_path: Path) -> None:
    folder = plain(tmp_path / "t").folder
    assert find(folder) == folder
    assert find(str(folder)) == folder
    assert all((find(name) / "manifest.json").is_file() for name in embedded())
    with pytest.raises(ValueError, match=r"table: .*name a folder that holds one"):
        find(tmp_path)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_fitting_arrays_come_back(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    seeds, epochs = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    total = data.draw(st.integers(1, 65534))
    made = {f"{s}.p": counts(4, seeds, epochs, total, i) for i, s in enumerate(("valid", "test"))}
    folder = tmp_path_factory.mktemp("any") / "t"
    fields = {"name": "any", "examples": {"valid": total, "test": total}}
    table = open_table(write_table(folder, SPACE, made, fields), verify=True)
    row, seed = data.draw(st.integers(0, 3)), data.draw(st.integers(0, seeds - 1))
    entry = table.lookup(SPACE.at(row), pipeline="p", seed=seed, fidelity=FULL)
    assert (np.rint(entry.valid * total) == made["valid.p"][row, seed]).all()
    assert np.array_equal(np.load(folder / "sealed" / "test.p.npy"), made["test.p"])
