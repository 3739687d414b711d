"""The generic importer: one table from every layout, exact values, and one line for whatever contradicts itself."""

from __future__ import annotations

import csv
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nasbed.harness.cli import main
from nasbed.harness.compare import carry_out
from nasbed.harness.plan import plan
from nasbed.harness.store import RunStore
from nasbed.harness.study import read_study
from nasbed.methods import registry
from nasbed.protocols import FULL, Fidelity, MissingEntry
from nasbed.tabular import open_table
from nasbed.tabular.importers.generic import import_generic
from nasbed.tabular.sealed import unseal
from nasbed.tabular.verify import verify

ROOT = Path(__file__).parents[2]
SPACE = registry.space("mlp[hidden=1;widths=8;dropout=no]")
TEXTS = [SPACE.text(SPACE.at(i)) for i in range(4)]
HEAD = 'name = "mine"\nspace = "mlp[hidden=1;widths=8;dropout=no]"\n'
ACCURACY = HEAD + 'scale = "percent"\nexamples = { valid = 200, test = 100 }\n'
LONG = '[columns]\narchitecture = "arch"\nseed = "seed"\nepoch = "epoch"\nvalid = "val"\ntest = "tst"\n'
COST = '[cost]\ncolumn = "sec"\nclock = "seconds"\nper = "cumulative"\n'


def rows() -> list[dict[str, Any]]:
    """Four architectures, seeds 7 and 9 (the last architecture has 9 only), epochs 1 and 2."""
    found = []
    for i, text in enumerate(TEXTS):
        for seed in (7, 9) if i < 3 else (9,):
            for epoch in (1, 2):
                values = {"val": (100 + 10 * i + seed + epoch) / 2, "tst": 40 + 3 * i + seed + epoch}
                found.append({"arch": text, "seed": seed, "epoch": epoch, **values, "sec": (1.5 + i) * epoch})
    return found


def make(
    folder: Path, content: str = ACCURACY + LONG + COST, data: list[dict[str, Any]] | None = None, file: str = "r.csv"
) -> Path:
    """A map and its file."""
    frame = pd.DataFrame(rows() if data is None else data)
    if file.endswith(".parquet"):
        frame.to_parquet(folder / file)
    elif file:
        frame.to_csv(folder / file, index=False)
    path = folder / "map.toml"
    path.write_text(f'file = "{file or "r.npz"}"\n' + content, encoding="utf-8")
    return path


def imported(folder: Path, *arguments: Any) -> Any:
    return open_table(import_generic(make(folder, *arguments), folder / "table").folder, verify=True)


def refusal(folder: Path, *arguments: Any) -> str:
    with pytest.raises(ValueError, match=r"^(?!.*\n)") as caught:
        import_generic(make(folder, *arguments), folder / "table")
    assert not (folder / "table").exists()
    return str(caught.value)


# --- every layout is the same table ----------------------------------------------------------------------------------


def test_values_are_what_the_file_says_and_ragged_seeds_stay_ragged(tmp_path):
    table = imported(tmp_path)
    assert (table.coverage, table.clock, table.seeds) == ("complete", "seconds", (7, 9))
    assert table.manifest["epochs"] == {"unstated": [1, 2]}
    test = unseal(table, "unstated")
    for row in rows():
        a = SPACE.parse(row["arch"])
        entry = table.lookup(a, pipeline="unstated", seed=row["seed"], fidelity=Fidelity(epochs=row["epoch"]))
        assert entry.valid[-1] == row["val"] / 100
        assert entry.cost == row["sec"]
        if row["epoch"] == 2:
            assert test[table.row(a), table.seeds.index(row["seed"])] == row["tst"] / 100
    with pytest.raises(MissingEntry, match="recorded: 9"):
        table.lookup(SPACE.at(3), pipeline="unstated", seed=7, fidelity=FULL)
    assert np.isnan(test[3, 0])
    assert verify(table.folder).passed
    with pytest.raises(ValueError, match="'unstated' is not registered"):
        verify(table.folder, retrain=1)


def wide() -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for r in rows():
        row = found.setdefault(r["arch"], {"arch": r["arch"], "seconds": 0.0})
        row[f"val {r['seed']}/{r['epoch']}"] = r["val"]
        row[f"tst {r['seed']}/{r['epoch']}"] = r["tst"]
        row["seconds"] = r["sec"] / r["epoch"]
    return list(found.values())


def tidy() -> list[dict[str, Any]]:
    keys = ("arch", "seed", "epoch", "sec")
    return [
        {**{k: r[k] for k in keys}, "set": name, "acc": r[column]}
        for r in rows()
        for name, column in (("v", "val"), ("t", "tst"))
    ]


def without_costs(columns: str, extra: str = "") -> str:
    return ACCURACY + extra + "[columns]\n" + columns


LAYOUTS: dict[str, tuple[Any, ...]] = {
    "parquet": (ACCURACY + LONG + COST, None, "r.parquet"),
    "tsv": (ACCURACY + LONG + COST, None, "r.csv"),
    "shuffled": (ACCURACY + LONG + COST, rows()[::-1], "r.csv"),
    "epochs from 0": ("first_epoch = 0\n" + ACCURACY + LONG + COST, [{**r, "epoch": r["epoch"] - 1} for r in rows()]),
    "fractions": (
        (ACCURACY + LONG + COST).replace("percent", "fraction"),
        [{**r, "val": r["val"] / 100, "tst": r["tst"] / 100} for r in rows()],
    ),
    "counts": ((ACCURACY + LONG + COST).replace("percent", "count"), [{**r, "val": r["val"] * 2} for r in rows()]),
    "tidy": (
        ACCURACY
        + '[columns]\narchitecture = "arch"\nseed = "seed"\nepoch = "epoch"\nsplit = "set"\nvalue = "acc"\n'
        + '[splits]\nvalid = "v"\ntest = "t"\n'
        + COST,
        tidy(),
    ),
    "wide": (
        without_costs(
            'architecture = "arch"\nvalid = "val {seed}/{epoch}"\ntest = "tst {seed}/{epoch}"\n',
            'missing = ["valid", "test"]\n',
        )
        + COST.replace("sec", "seconds", 1).replace("cumulative", "epoch"),
        wide(),
    ),
    "index": (
        (ACCURACY + LONG + COST).replace("architecture", "index"),
        [{**r, "arch": TEXTS.index(r["arch"])} for r in rows()],
    ),
    "values": (ACCURACY + LONG + COST, [{**r, "arch": str(SPACE.parse(r["arch"]))} for r in rows()]),
    "where": (
        'where = { set = "cifar", hp = 12 }\n' + ACCURACY + LONG + COST,
        [{**r, "set": s, "hp": h} for r in rows() for s in ("cifar", "other") for h in (12, 200)],
    ),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return contents(imported(tmp_path_factory.mktemp("plain")))


def contents(table: Any) -> dict[str, np.ndarray]:
    """All arrays; costs per architecture and epoch as cumulative ones of the trainings that are there."""
    arrays = {n: np.load(table.folder / n) for n in table.manifest["files"]}
    cost, there = arrays["cost.unstated.npy"], arrays["valid.unstated.npy"] != 65535
    if cost.ndim == 1:
        arrays["cost.unstated.npy"] = np.where(there, cost[:, None, None] * np.array([1.0, 2.0]), np.nan)
    return arrays


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_table(tmp_path, plain, layout):
    same(contents(imported(tmp_path, *LAYOUTS[layout])), plain)


def test_arrays_of_an_npz_file_with_named_axes(tmp_path, plain):
    arrays = {k: np.full((4, 2, 2), np.nan) for k in ("val", "tst", "sec")}
    for r in rows():
        for k, array in arrays.items():
            array[TEXTS.index(r["arch"]), (7, 9).index(r["seed"]), r["epoch"] - 1] = r[k]
    np.savez(tmp_path / "r.npz", arch=np.array(TEXTS), when=np.array([1, 2]), **arrays)
    columns = 'architecture = "arch"\nvalid = "val"\ntest = "tst"\n'
    extra = 'missing = ["valid", "test"]\naxes = { seed = [7, 9], epoch = "when" }\n'
    same(contents(imported(tmp_path, without_costs(columns, extra) + COST, None, "")), plain)
    shutil.rmtree(tmp_path / "table")
    message = refusal(tmp_path, without_costs(columns, extra.replace("[7, 9]", "[7]")), None, "")
    assert "r.npz: array" in message
    assert "the map's axes are seed 1, epoch 2" in message


def test_patterns_count_epochs_from_0_and_see_columns_that_mean_the_same(tmp_path):
    data = [{"arch": text, "val_0": 10, "val_1": 20, "tst_0": 30, "tst_1": 40} for text in TEXTS]
    columns = 'architecture = "arch"\nvalid = "val_{epoch}"\ntest = "tst_{epoch}"\n'
    table = imported(tmp_path, without_costs(columns, "first_epoch = 0\n"), data)
    assert table.manifest["epochs"] == {"unstated": [1, 2]}
    assert table.array("valid.unstated")[0, 0].tolist() == [20, 40]
    (tmp_path / "x").mkdir()
    message = refusal(tmp_path / "x", without_costs(columns), data)
    assert message == "r.csv: column 'val_0': epochs are counted from 1"
    message = refusal(tmp_path / "x", without_costs(columns, "first_epoch = 0\n"), [{**r, "val_01": 5} for r in data])
    assert message.startswith(f"r.csv: column 'val_01', row 1: a second valid value for {TEXTS[0]}, seed 0, epoch 2")


def test_objects_in_an_npz_file_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "r.npz", arch=np.array(TEXTS), val=np.array([{}, 1, 2, 3], object))
    assert refusal(tmp_path, ACCURACY + LONG, None, "").startswith("r.npz: Object arrays cannot be loaded")


def test_genes_in_columns_by_value_and_by_label(tmp_path):
    space = registry.space("nb201[ops=none,skip_connect]")
    names = [f"edge{i}" for i in range(6)]
    data = []
    for i in range(0, 64, 3):
        genes = [space.label(k, g) if k % 2 else g for k, g in enumerate(space.at(i).genes)]
        data.append({**dict(zip(names, genes, strict=True)), "val": i, "tst": 64 - i})
    head = f'name = "g"\nspace = "{space.name}"\nscale = "count"\nexamples = {{ valid = 64, test = 64 }}\n'
    columns = f'[columns]\ngenes = {names}\nvalid = "val"\ntest = "tst"\n'.replace("'", '"')
    table = imported(tmp_path, head + columns, data)
    assert table.coverage == "sample"
    assert table.manifest["architectures"] == [space.text(space.at(i)) for i in range(0, 64, 3)]
    assert (table.array("valid.unstated")[:, 0, 0] == np.arange(0, 64, 3)).all()
    data[4]["edge3"] = "skip"
    (tmp_path / "x").mkdir()
    message = refusal(tmp_path / "x", head + columns, data)
    assert message.startswith("r.csv: column 'edge0', row 5: gene 'edge3': 'skip' is not one of none, skip_connect")


def test_pipelines_have_epochs_of_their_own(tmp_path):
    data = [{**r, "hp": "long"} for r in rows()] + [{**r, "hp": "short"} for r in rows() if r["epoch"] == 1]
    table = imported(tmp_path, ACCURACY + LONG + 'pipeline = "hp"\n' + COST, data)
    assert table.manifest["epochs"] == {"long": [1, 2], "short": [1]}
    assert table.lookup(SPACE.at(0), pipeline="short", seed=7, fidelity=FULL).cost == 1.5


def test_a_member_that_is_not_there_makes_a_sample(tmp_path):
    made = import_generic(make(tmp_path, ACCURACY + LONG, [r for r in rows() if r["arch"] != TEXTS[1]]), tmp_path / "t")
    assert (made.coverage, made.architectures, made.trainings) == ("sample", 3, 5)
    assert made.notes == ("columns that the map does not name: sec",)
    assert open_table(made.folder).manifest["architectures"] == [TEXTS[0], TEXTS[2], TEXTS[3]]


def test_a_training_that_stopped_early_is_no_whole_one(tmp_path):
    data = [r for r in rows() if (r["arch"], r["epoch"]) != (TEXTS[3], 2)]
    table = imported(tmp_path, ACCURACY + LONG + COST, data)
    assert table.coverage == "sample"
    assert table.lookup(SPACE.at(3), pipeline="unstated", seed=9, fidelity=Fidelity(epochs=1)).cost == 4.5
    with pytest.raises(MissingEntry, match="no training with seed 9"):
        table.lookup(SPACE.at(3), pipeline="unstated", seed=9, fidelity=FULL)


def test_what_is_left_out_is_said(tmp_path):
    data = [{**r, "val": r["val"] if r["epoch"] == 2 else None, "hp": 1, "both": 1.0} for r in rows()]
    data.append({**data[0], "hp": 2})
    content = 'missing = ["valid"]\nwhere = { hp = 1 }\n' + ACCURACY + LONG + 'valid_test = "both"\n'
    made = import_generic(make(tmp_path, content, data), tmp_path / "t")
    assert made.notes == (
        "columns that the map does not name: sec",
        "1 rows by where",
        "both: validation and test data together",
        "1 epochs without validation values under 'unstated', 1",
    )
    table = open_table(made.folder)
    assert table.manifest["imported"]["left_out"] == list(made.notes)
    assert tomllib.loads(table.manifest["imported"]["map"])["file"] == "r.csv"
    assert table.manifest["epochs"] == {"unstated": [2]}


# --- metrics and costs -----------------------------------------------------------------------------------------------


def test_metrics_that_are_no_counts_are_floats(tmp_path):
    content = HEAD + LONG + '[task]\nmetric = "perplexity"\nhigher_is_better = false\n'
    data = [{**r, "val": 80 + r["val"] / 3, "tst": r["tst"] / 7} for r in rows()]
    data[1]["val"] = np.inf
    table = imported(tmp_path, content, data)
    assert not table.task.higher_is_better
    assert table.array("valid.unstated")[1, 0, 0] == np.float32(data[4]["val"])
    assert np.isinf(table.array("valid.unstated")[0, 0, 1])
    (tmp_path / "x").mkdir()
    assert "row 2: 'inf' is not finite" in refusal(tmp_path / "x", content.replace("false", "true"), data)


def test_accuracies_that_are_no_counts_are_refused_and_can_be_floats(tmp_path):
    data = [{**r, "tst": r["tst"] + 0.1 * (i == 4)} for i, r in enumerate(rows())]
    message = refusal(tmp_path, ACCURACY + LONG, data)
    assert message.startswith("r.csv: column 'tst', row 5: 51.1 of 100 test examples is 51.1000 correct ones")
    assert "task.metric = 'top1'" in message
    content = HEAD + 'scale = "percent"\n' + LONG + '[task]\nmetric = "top1"\nhigher_is_better = true\n'
    table = imported(tmp_path, content, data)
    assert table.lookup(SPACE.at(1), pipeline="unstated", seed=7, fidelity=FULL).valid[-1] == np.float32(0.595)


@pytest.mark.parametrize(
    ("per", "given", "expected"),
    [
        ("training", lambda r: 6.0 + r["seed"], lambda r: (6.0 + r["seed"]) * r["epoch"] / 2),
        ("epoch", lambda r: 2.0 * r["epoch"] + r["seed"], lambda r: (2, 6)[r["epoch"] - 1] + r["seed"] * r["epoch"]),
        ("epoch", lambda r: 3.0 + r["seed"], lambda r: (3.0 + r["seed"]) * r["epoch"]),
        ("cumulative", lambda r: 5.0 * r["epoch"] ** 2, lambda r: 5.0 * r["epoch"] ** 2),
    ],
)  # fmt: skip
def test_costs(tmp_path, per, given, expected):
    cost = COST.replace("cumulative", per)
    table = imported(tmp_path, ACCURACY + LONG + cost, [{**r, "sec": given(r)} for r in rows()])
    for r in rows():
        a, fidelity = SPACE.parse(r["arch"]), Fidelity(epochs=r["epoch"])
        assert table.lookup(a, pipeline="unstated", seed=r["seed"], fidelity=fidelity).cost == expected(r)


def test_a_cost_of_a_whole_training_over_many_epochs(tmp_path):
    content = "epochs = 200\n" + ACCURACY + LONG.replace('epoch = "epoch"\n', "") + COST.replace("cumulative", "epoch")
    data = [{**r, "sec": 0.5} for r in rows() if r["epoch"] == 2]
    table = imported(tmp_path, content, data)
    assert table.lookup(SPACE.at(0), pipeline="unstated", seed=7, fidelity=Fidelity(epochs=200)).cost == 100.0


def test_features_are_one_number_for_each_architecture(tmp_path):
    data = [{**r, "n": 10 * TEXTS.index(r["arch"])} for r in rows()]
    content = ACCURACY + LONG + '[features]\nparams = "n"\n'
    assert imported(tmp_path, content, data).array("feature.params").tolist() == [0, 10, 20, 30]
    data[2]["n"] = 5
    (tmp_path / "x").mkdir()
    assert "column 'n', row 3: the feature is 5, but 0 on" in refusal(tmp_path / "x", content, data)


# --- what is refused -------------------------------------------------------------------------------------------------


def changed(index: int, **values: Any) -> list[dict[str, Any]]:
    return [{**r, **values} if i == index else r for i, r in enumerate(rows())]


BASE = ACCURACY + LONG
ALIKE = [{"arch": TEXTS[i % 4], "seed": i // 4, "epoch": 1, "val": 50 + i, "tst": 50 + i} for i in range(20)]

DATA: list[tuple[str, list[dict[str, Any]], list[str]]] = [
    (BASE, [*rows(), rows()[2]], ["r.csv: column 'val', row 15: a second valid value", "seed 9, epoch 1"]),
    (BASE, changed(3, arch="8-rleu"), ["column 'arch', row 4: ", "rleu"]),
    (BASE, changed(3, arch="16-relu"), ["column 'arch', row 4: ", "16"]),
    (BASE, changed(3, arch=None), ["column 'arch', row 4: the cell is empty"]),
    (BASE, changed(3, seed=1.5), ["column 'seed', row 4: 1.5 is not an integer >= 0"]),
    (BASE, changed(3, seed=None), ["column 'seed', row 4: the cell is empty"]),
    (BASE, changed(3, epoch=0), ["column 'epoch', row 4: 0 is not an integer >= 1"]),
    (BASE, changed(3, val=None), ["column 'val', row 4: the cell is empty", 'missing = ["valid"]']),
    (BASE, changed(3, val="n/a"), ["column 'val', row 4: 'n/a' is not a number"]),
    (BASE, changed(3, val=100.5), ["column 'val', row 4: 100.5 is outside of 0 .. 100", "'percent'"]),
    (BASE, changed(3, tst=-1), ["column 'tst', row 4: -1.0 is outside of 0 .. 100"]),
    (BASE, changed(3, val=60.3), ["column 'val', row 4: 60.3 of 200 valid examples is 120.6000"]),
    ('missing = ["test"]\n' + BASE, [{**r, "tst": None if r["seed"] == 9 else r["tst"]} for r in rows()],
     [f"{TEXTS[3]}, seed 9, pipeline 'unstated': a valid value after the last epoch, no test value"]),
    ('missing = ["valid"]\n' + BASE, changed(0, val=None), ["validated at epoch 2, not at 1"]),
    (BASE, ALIKE, ["r.csv: validation and test values are the same numbers"]),
    (BASE + COST, changed(3, sec=None), [f"column 'sec': {SPACE.at(0)} has a validation value without a cost"]),
    (BASE + COST, changed(3, sec=-1), ["column 'sec', row 4: the cost -1 is negative"]),
    (BASE + COST, changed(3, sec=0.1), ["column 'sec': the cumulative cost", "falls after epoch 1"]),
    (BASE + COST.replace("cumulative", "training"), rows(), ["column 'sec', row 1: the cost 1.5", "another number"]),
    (BASE + COST.replace("cumulative", "epoch"), [{**r, "epoch": 2 * r["epoch"]} for r in rows()],
     ["column 'sec': costs differ from epoch to epoch", "cumulative"]),
    ("where = { seed = 3 }\n" + BASE, rows(), ["map.toml: where: no row of r.csv is left"]),
    (BASE, changed(3, val="50,5"), ["column 'val', row 4: '50,5' is not a number"]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "data", "fragments"), DATA, ids=[f[0] for _, _, f in DATA])
def test_wrong_data_are_one_line_with_file_column_and_row(tmp_path, content, data, fragments):
    message = refusal(tmp_path, content, data)
    assert message.startswith(("r.csv: ", "map.toml: "))
    for fragment in fragments:
        assert fragment in message


def sub(old: str, new: str, content: str = BASE) -> str:
    assert old in content
    return content.replace(old, new)


MAPS: list[tuple[str, list[str]]] = [
    (sub('valid = "val"', 'valid = "vall"'), ["columns.valid (of r.csv): 'vall' is not one of arch", "mean 'val'"]),
    (sub('"val"', '"val_{seed}"', sub('seed = "seed"\n', "")), ["no column of r.csv matches 'val_{seed}'"]),
    (sub('arch"', 'a_{seed}"'), ["columns.architecture: 'a_{seed}' is a pattern"]),
    (sub('valid = "val"\n', ""), ["columns.valid: missing; a table needs valid values"]),
    (sub('test = "tst"\n', ""), ["columns.test: missing; a table needs test values"]),
    (sub('test = "tst"', 'test = "val"'), ["columns.test: 'val' is columns.valid already"]),
    (sub('valid = "val"', 'valid_test = "val"'), ["columns.valid_test: 'val' is validation and test data together",
                                                  "as columns.valid"]),
    (BASE + 'valid_test = "val"\n', ["columns.valid_test: 'val' is validation and test data together"]),
    (sub("columns", "colums"), ["'colums' is not one of name, file", "did you mean 'columns'?"]),
    (BASE + 'sed = "seed"\n', ["columns: 'sed'", "did you mean 'seed'?"]),
    (BASE + 'index = "seed"\n', ["columns: has architecture and index of architecture, index, genes; exactly one"]),
    (BASE + 'split = "seed"\n', ["columns.split: needs columns.value and the table [splits]"]),
    (BASE + "genes = [1]\n", ["columns.genes: [1] is not a list of columns"]),
    ('pipeline = "x"\n' + BASE + 'pipeline = "seed"\n', ["pipeline: columns give the pipeline"]),
    ("epochs = 2\n" + BASE, ["epochs: columns give the epoch"]),
    ('pipeline = "a.b"\n' + BASE, ["pipeline: 'a.b' is not a name"]),
    (sub('scale = "percent"\n', ""), ["scale: '' is not one of fraction, percent, count"]),
    (sub("percent", "percents"), ["scale: 'percents'", "did you mean 'percent'?"]),
    (sub(", test = 100", ""), ["examples.test: None is not the number of test examples"]),
    (sub("test = 100", "test = 70000"), ["examples.test: counts hold up to 65534", "task.metric = 'top1'"]),
    (sub("test = 100", "tset = 100"), ["examples: 'tset'", "did you mean 'test'?"]),
    (sub("mlp[", "mpl["), ["space: 'mpl'", "did you mean 'mlp'?"]),
    (sub('name = "mine"\n', ""), ["map.toml: the field 'name' is missing"]),
    ("missing = ['tests']\n" + BASE, ["missing: 'tests'", "did you mean 'test'?"]),
    ("tolerance = 1\n" + BASE, ["tolerance: 1 is not a number in 0 .. 0.49"]),
    ("first_epoch = 2\n" + BASE, ["first_epoch: 2 is not an integer in 0 .. 1"]),
    ("axes = { seed = [1] }\n" + BASE, ["axes: are for npz files"]),
    ("separator = '::'\n" + BASE, ["separator: '::' is not one character"]),
    ("where = { place = 'x' }\n" + BASE, ["where.place (of r.csv): 'place' is not one of"]),
    ("where = { seed = [1] }\n" + BASE, ["where.seed: [1] is not a text or a number"]),
    (BASE + '[cost]\ncolumn = "sec"\nclock = "hours"\nper = "epoch"\n', ["cost.clock: 'hours' is not one of seconds"]),
    (BASE + '[cost]\ncolumn = "sec"\nclock = "seconds"\n', ["cost.per: '' is not one of training, epoch, cumulative"]),
    (BASE + '[features]\n"a b" = "sec"\n', ["features.a b: this name cannot be used"]),
    (BASE + '[notes]\nseeds = "sec"\n', ["notes.seeds: this name cannot be used"]),
    (BASE + '[task]\nmetric = "loss"\n', ["task.higher_is_better: None is not true or false"]),
    (BASE + '[task]\nmetric = "loss"\nhigher_is_better = false\n', ["examples: are for accuracies only"]),
    (sub("percent", "count") + '[task]\nmetric = "loss"\nhigher_is_better = false\n', ["scale: 'count' is not one of"]),
    (BASE + "[task]\nclasses = 10\n", ["task.classes: 10 is not an integer >= 2 beside task.shape"]),
    (BASE + "[columns", ["map: ", "map.toml: "]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "fragments"), MAPS, ids=[f[0] for _, f in MAPS])
def test_a_wrong_map_is_one_line_that_names_the_field(tmp_path, content, fragments):
    message = refusal(tmp_path, content)
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("arch,seed,epoch,val,val\n", "two columns are called 'val'"),
        ("", "No columns to parse"),
        (f"arch,seed,epoch,val,tst\n{TEXTS[0]},7,1,50,50,9\n", "r.csv: "),
        (f"arch,seed,epoch,val,tst\n{TEXTS[0]},7,1\n", "column 'val', row 1: the cell is empty"),
    ],
)
def test_a_damaged_csv_file_is_refused(tmp_path, text, fragment):
    path = make(tmp_path, BASE)
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(fragment)) as caught:
        import_generic(path, tmp_path / "t")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_finished_table_are_refused(tmp_path):
    path = make(tmp_path, BASE)
    import_generic(path, tmp_path / "t")
    with pytest.raises(ValueError, match=r"out: .* holds a table already"):
        import_generic(path, tmp_path / "t")
    (tmp_path / "r.csv").unlink()
    with pytest.raises(ValueError, match=r"map.toml: file: there is no file .*r\.csv"):
        import_generic(path, tmp_path / "u")
    path.write_text(path.read_text().replace("r.csv", "r.xlsx"))
    with pytest.raises(ValueError, match=r"'r.xlsx' does not end with one of .csv"):
        import_generic(path, tmp_path / "u")
    with pytest.raises(ValueError, match="map: there is no file"):
        import_generic(tmp_path / "none.toml", tmp_path / "u")


# --- a whole space, and the command ----------------------------------------------------------------------------------


def cells(file: Path) -> list[tuple[str, int, float, float, float]]:
    """All cells of NAS-Bench-201 with one to three seeds, from a formula, as a researcher would write them."""
    space = registry.space("nb201")
    found = []
    for i in range(15_625):
        genes = space.at(i).genes
        quality = 0.1 + 0.12 * sum(g in (2, 3) for g in genes) + 0.02 * genes.count(1)
        for k in range(1 + i % 3):
            wobble = ((i * 7919 + k * 104_729) % 101 - 50) / 5000
            valid, test = int(25_000 * (quality + wobble)), int(10_000 * (quality - wobble / 2))
            seconds = round(10 + 5 * genes.count(3) + (i % 89) / 89 + k, 3)
            found.append((space.text(space.at(i)), (777, 888, 999)[k], valid / 250, test / 100, seconds))
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(["arch", "seed", "val_acc", "test_acc", "seconds"])
        writer.writerows(found)
    return found


def test_a_whole_space_is_imported_verified_and_compared(tmp_path, capsys, monkeypatch):
    """The map of the examples, on 31,249 trainings."""
    monkeypatch.chdir(tmp_path)
    given = cells(tmp_path / "results.csv")
    shutil.copy(ROOT / "examples" / "import_map.toml", tmp_path)
    assert command(monkeypatch, "table", "import", "generic", "import_map.toml", "--out", "t") == 0
    assert capsys.readouterr().out == "15,625 architectures (complete), 31,249 trainings\ntable: t\n"
    assert verify("t").passed
    table = open_table("t")
    for text, seed, valid, _, seconds in given[::1000]:
        entry = table.lookup(table.space.parse(text), pipeline="unstated", seed=seed, fidelity=FULL)
        assert (entry.valid.item() * 25_000, entry.cost) == (pytest.approx(valid * 250, abs=1e-9), seconds)
    planned = plan(
        read_study(None, {"strategies": "random,local_search", "tables": "t", "seeds": "2", "budget": "900s"})
    )
    assert carry_out(planned, tmp_path / "out") == []
    store = RunStore(tmp_path / "out" / "store")
    for run in planned.runs:
        record = store.load(run.key)
        spent = sum(c.amount for call in record.calls for o in call.observations for c in o.costs)
        assert 800 < spent <= 900
        assert 0.5 < record.sealed["incumbents"][-1]["test"] < 1.0


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["nasbed", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_the_help_shows_a_map_that_works(tmp_path, capsys, monkeypatch):
    assert command(monkeypatch, "table", "import", "generic", "--help") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ +Example: nasbed table import generic map.toml --out my-table", shown, re.M)
    content = shown.partition("results.csv is what:")[2].partition("docs/importing.md")[0]
    cells_of(tmp_path / "results.csv", ("arch", "seed", "val_acc", "test_acc", "seconds"))
    assert "\b" not in shown
    (tmp_path / "map.toml").write_text(content)
    assert import_generic(tmp_path / "map.toml", tmp_path / "t").coverage == "sample"


def test_the_map_of_the_documentation_works(tmp_path):
    page = (ROOT / "docs" / "importing.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(csv|toml)\n(.*?)^```$", page, re.M | re.S))
    (tmp_path / "results.csv").write_text(blocks["csv"])
    (tmp_path / "map.toml").write_text(blocks["toml"])
    made = import_generic(tmp_path / "map.toml", tmp_path / "t")
    assert (made.architectures, made.trainings, made.notes) == (1, 2, ())
    assert len([line for line in blocks["toml"].splitlines() if line]) <= 12


def cells_of(file: Path, names: Iterable[str]) -> None:
    cell = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    pd.DataFrame([dict(zip(names, (cell, 1, 10.0, 10.0, 3.5), strict=True))]).to_csv(file, index=False)


def test_an_error_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch):
    assert command(monkeypatch, "table", "import", "generic", str(make(tmp_path, sub('"val"', '"vall"')))) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("nasbed: map.toml: columns.valid")
