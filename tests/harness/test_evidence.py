"""What audits look at: tables, estimate tables and pipelines, row by row, nothing dropped in silence."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasbed.harness import evidence
from nasbed.harness.plan import NotComparable
from nasbed.methods import registry
from nasbed.methods.estimators.fewer_epochs import FewerEpochs
from nasbed.methods.spaces.nb201 import NB201
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.protocols import Architecture, Pipeline, Proposal, Setting, Task, Traits
from nasbed.protocols.evidence import Scores, Truth
from nasbed.tabular import MappedTable, open_table, write_table
from nasbed.tabular.estimates import embedded_estimates, open_estimates, write_estimates

SPACE = Synthetic(genes=1, values=5)
TEXTS = [SPACE.text(SPACE.at(i)) for i in range(5)]
MISSING = 65535
TRAITS = Traits(accuracy_scale=False, deterministic=False)


def made(folder: Path, arrays: Mapping[str, np.ndarray], space: Any = SPACE, **fields: Any) -> MappedTable:
    manifest = {"name": folder.name, "examples": {"valid": 100, "test": 200}, **fields}
    return open_table(write_table(folder, space, arrays, manifest))


def counts(rows: int = 5, seeds: int = 2, root: int = 0) -> np.ndarray:
    return np.random.default_rng(root).integers(0, 101, (rows, seeds, 3), np.uint16)


@pytest.fixture
def toy(tmp_path: Path) -> MappedTable:
    """Five architectures, costs in FLOPs, of three epochs."""
    arrays = {"valid.base": counts(), "test.base": counts(root=1), "cost.base": np.arange(1.0, 6.0)}
    return made(tmp_path / "toy", arrays, clock="flops")


def estimated(folder: Path, of: MappedTable | None, scores: Any, **fields: Any) -> Path:
    """An estimate table; `fields` are those of its manifest, and `cost`."""
    values = np.array(scores, np.float64)
    n = values.shape[1]
    pipeline = of.pipelines["base"] if of else Pipeline("base", "adam", 0.1, 1, 1)
    manifest = {
        "name": "x", "estimator": {"name": "mine", "params": {}, "traits": asdict(TRAITS)},
        "space": of.space.name if of else SPACE.name, "architectures": None,
        "table": {"name": of.name, "digest": of.digest} if of else None,
        "pipeline": {"name": "base", "digest": pipeline.digest}, "task": {"digest": ""}, "unit": "seconds",
        "seeds": list(range(n)), "preparation": [[]] * n, "trained_on": [[]] * n, "reasons": ["", "broken", "dead"],
    }  # fmt: skip
    cost = np.array(fields.pop("cost", np.ones(values.shape)))
    reason = np.array(fields.pop("reason", np.isnan(values)))
    return write_estimates(folder, {"score": values, "cost": cost, "reason": reason}, {**manifest, **fields})


def one(truth: Truth, table: MappedTable, name: object) -> Scores:
    [found] = evidence.estimates(truth, table, [str(name)])
    return found


# The truth.


def test_the_truth_of_a_complete_table_is_what_its_files_hold() -> None:
    table = open_table("mlp-digits")
    truth = evidence.truth(table, None)
    stored = np.load(table.folder / "sealed" / "test.adam.npy")[:, :, -1]
    assert np.array_equal(truth.values, stored / table.manifest["examples"]["test"])
    assert (truth.pipeline, truth.metric, truth.higher_is_better, truth.clock) == ("adam", "accuracy", True, "flops")
    assert (truth.complete, truth.size, truth.seeds) == (True, 4368, (0, 1, 2, 3, 4))
    assert (truth.table, truth.digest, truth.space) == ("mlp-digits", table.digest, table.space.name)
    for row in (0, 17, 4367):
        a = table.architecture(row)
        assert truth.architectures[row] == table.space.text(a)
        known = {k: float(v[row]) for k, v in truth.features.items()}
        assert known == {k: v for k, v in table.space.features(a, table.task).items() if k != "macs"}
        assert truth.cost[row] == pytest.approx(10 * table.array("cost.adam")[row])
    assert np.median(truth.cost) == table.median_cost("adam")


def test_another_pipeline_has_other_values_and_costs_and_an_unknown_one_is_named() -> None:
    table = open_table("mlp-digits")
    truth = evidence.truth(table, "sgd_cosine")
    stored = np.load(table.folder / "sealed" / "test.sgd_cosine.npy")[:, :, -1]
    assert np.array_equal(truth.values, stored / table.manifest["examples"]["test"])
    assert np.median(truth.cost) == table.median_cost("sgd_cosine") != table.median_cost("adam")
    with pytest.raises(ValueError, match=r"^pipeline: 'adan' is not one of adam, sgd_cosine; did you mean 'adam'"):
        evidence.truth(table, "adan")


def test_the_table_chooses_its_own_pipeline(tmp_path: Path) -> None:
    arrays = {f"{split}.{p}": counts(root=i) for split in ("valid", "test") for i, p in enumerate("ab")}
    assert evidence.truth(made(tmp_path / "t", arrays)).pipeline == "a"
    assert evidence.truth(made(tmp_path / "u", arrays, default_pipeline="b")).pipeline == "b"


def test_measured_features_come_from_the_arrays_and_macs_go_with_flops() -> None:
    table = open_table("nb201-clutter")
    features = evidence.truth(table).features
    assert np.array_equal(features["latency"], table.array("feature.latency"))
    assert np.array_equal(features["flops"], table.array("feature.flops"))
    assert "macs" not in features
    assert set(features) >= {"params", "depth", "n_nor_conv_3x3", "n_skip_connect"}
    assert set(features["n_skip_connect"]) == {0.0}  # a constant, for the audit to name


@pytest.mark.parametrize("name", ["pipelines-clutter", "nb201-mnist-clutter"])
def test_the_rows_of_a_sample_are_what_it_lists(name: str) -> None:
    table = open_table(name)
    truth = evidence.truth(table)
    assert truth.architectures == tuple(table.manifest["architectures"])
    assert (truth.complete, truth.size) == (False, 729)
    assert truth.values.shape == (len(truth.architectures), len(truth.seeds))
    row = 7
    a = table.space.parse(truth.architectures[row])
    assert truth.features["depth"][row] == table.space.features(a, table.task)["depth"]
    assert truth.features["params"][row] == table.array("feature.params")[row]


def test_other_metrics_are_given_as_they_are() -> None:
    table = open_table("rnn4-text")
    truth = evidence.truth(table)
    stored = np.load(table.folder / "sealed" / "test.text.npy")[:, :, -1]
    assert np.array_equal(truth.values, stored.astype(np.float64))
    assert (truth.metric, truth.higher_is_better) == ("perplexity", False)
    assert {len(v) for v in truth.features.values()} == {1536}
    assert set(truth.features) >= {"params", "flops", "depth", "n_tanh", "latency"}


def test_features_need_a_task_that_is_stated_and_are_known_of_all(tmp_path: Path) -> None:
    arrays = {"valid.base": counts(), "test.base": counts()}
    unstated = evidence.truth(made(tmp_path / "u", arrays))
    assert unstated.features == {}
    assert evidence.baselines(unstated) == []
    task = Task("wine", "regression", "mse", False, (11,), None, "d")
    errors = np.ones((5, 2, 3), np.float32)
    table = made(tmp_path / "r", {"valid.base": errors, "test.base": errors, "feature.size": np.arange(5.0),
                                  "feature.holes": np.array([1, 2, 3, 4, np.nan])}, task=task)  # fmt: skip
    truth = evidence.truth(table)
    assert set(truth.features) == {"params", "flops", "depth", "n_linear", "size"}
    assert truth.features["params"][-1] == SPACE.features(SPACE.at(4), task)["params"]
    assert truth.features["size"].tolist() == [0, 1, 2, 3, 4]
    cells = registry.space("nb201[ops=none,skip_connect]")
    flat = np.ones((64, 1, 1), np.float32)  # cells do not take vectors
    assert evidence.truth(made(tmp_path / "n", {"valid.a": flat, "test.a": flat}, cells, task=task)).features == {}


def test_missing_trainings_are_nan_and_their_architectures_stay(tmp_path: Path) -> None:
    values = counts(seeds=3)
    values[1, 2], values[3] = MISSING, MISSING
    truth = evidence.truth(made(tmp_path / "t", {"valid.base": values, "test.base": values}))
    assert np.argwhere(np.isnan(truth.values)).tolist() == [[1, 2], [3, 0], [3, 1], [3, 2]]
    assert truth.architectures == tuple(TEXTS)
    assert truth.values[0].tolist() == (values[0, :, -1] / 200).tolist()


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> MappedTable:
    """64 cells, rows of 52 classes; a row's value is its number."""
    cells = registry.space("nb201[ops=none,skip_connect]")
    values = np.arange(64, dtype=np.uint16)[:, None, None].copy()
    values[[i for i in range(64) if cells.canonical(cells.at(i)) != cells.at(i)]] = MISSING  # type: ignore[attr-defined]
    arrays = {"valid.base": values, "test.base": values, "feature.number": np.arange(64.0)}
    return made(tmp_path_factory.mktemp("m") / "merged", arrays, cells, canonical="iso")


def test_of_a_merged_table_every_member_has_the_value_of_its_representative(merged: MappedTable) -> None:
    truth, space = evidence.truth(merged), merged.space
    members = [space.at(i) for i in range(64)]  # type: ignore[attr-defined]
    assert truth.architectures == tuple(map(space.text, members))
    assert len(set(truth.architectures)) == 64
    expected = [space.index(space.canonical(a)) / 200 for a in members]  # type: ignore[attr-defined]
    assert truth.values[:, 0].tolist() == expected
    assert (truth.features["number"] / 200).tolist() == expected
    assert len(set(expected)) == 52
    assert truth.complete


def test_members_without_a_row_are_left_out_and_the_table_is_no_longer_complete(
    merged: MappedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = NB201.canonical

    def leaves(self: NB201, a: Architecture, level: str | None = None) -> Architecture:
        return Architecture("elsewhere", ()) if self.index(a) in (3, 9) else genuine(self, a, level)

    monkeypatch.setattr(NB201, "canonical", leaves)
    truth = evidence.truth(open_table(merged.folder))
    members = [i for i in range(64) if i not in (3, 9)]
    assert truth.architectures == tuple(merged.text(i) for i in members)
    assert (truth.complete, truth.size, truth.values.shape) == (False, 64, (62, 1))
    assert np.array_equal(truth.values, evidence.truth(merged).values[members])


# Baselines.


def test_baselines_are_the_features_and_cost_nothing() -> None:
    truth = evidence.truth(open_table("nb201-clutter"))
    params, flops = evidence.baselines(truth)
    assert (params.name, flops.name) == ("params", "flops")
    assert np.array_equal(params.values[:, 0], truth.features["params"])
    assert np.array_equal(flops.values[:, 0], truth.features["flops"])
    for s in (params, flops):
        assert (s.baseline, s.traits) == (True, Traits(accuracy_scale=False, deterministic=True))
        assert (s.asked.all(), s.fitted.any(), s.reasons) == (True, False, {})
        assert (s.unit, s.full) == ("flops", np.median(truth.cost))
        assert np.array_equal(s.costs, np.zeros((729, 1)))  # type: ignore[arg-type]
        assert s.preparation.tolist() == [0.0]


# Estimates that come with the package.


def test_embedded_estimates_are_those_of_the_files() -> None:
    table = open_table("nb201-clutter")
    truth = evidence.truth(table)
    forest, synflow = evidence.estimates(truth, table, ["predictor_forest", "synflow"])
    stored = open_estimates("nb201-clutter/synflow")
    assert np.array_equal(synflow.values, stored.scores, equal_nan=True)
    assert np.array_equal(synflow.costs, stored.costs)  # type: ignore[arg-type]
    assert (synflow.name, synflow.source, synflow.traits) == ("synflow", stored.digest, stored.traits)
    assert (synflow.asked.all(), synflow.fitted.any(), synflow.axis, synflow.baseline) == (True, False, None, False)
    assert synflow.reasons == {
        "the score is 0.0: no signal passes the network, or too large a one": np.isnan(stored.scores).sum()
    }
    assert (synflow.unit, synflow.full, synflow.preparation.tolist()) == ("epochs", 6.0, [0.0, 0.0])
    assert forest.preparation.tolist() == [600.0, 600.0]
    texts = open_estimates("nb201-clutter/predictor_forest").manifest["trained_on"]
    for k in range(2):
        assert {truth.architectures[i] for i in np.flatnonzero(forest.fitted[:, k])} == set(texts[k])


def test_all_stands_for_those_of_the_table_and_labels_tell_parameters() -> None:
    table = open_table("mlp-digits")
    truth = evidence.truth(table)
    found = evidence.estimates(truth, table, ["fewer_epochs-3", "all"])
    assert found[0].name == "fewer_epochs[epochs=3]"
    assert len(found) == len(embedded_estimates("mlp-digits")) - 1  # parameters stand among the baselines
    axes = {s.name: s.axis for s in found}
    assert axes["fewer_epochs[epochs=3]"] == ("epochs", 3.0)
    assert axes["fewer_epochs[epochs=1]"] == ("epochs", 1.0)
    assert axes["curve_domhan[epochs=5]"] is None
    assert found[0].full == 10.0
    [again] = evidence.estimates(truth, table, ["fewer_epochs[epochs=3]", "fewer_epochs-3"])
    assert again.source == found[0].source


def test_lower_fidelities_name_their_axis() -> None:
    table = open_table("pipelines-clutter")
    found = {s.name: s for s in evidence.estimates(evidence.truth(table), table, ["all"])}
    assert {s.axis for s in found.values()} >= {("data", 0.5), ("data", 0.25), ("width", 0.5), ("depth", 0.333333),
                                                ("resolution", 0.666667)}  # fmt: skip
    half = found["data_subset[share=0.5]"]
    assert half.asked.all()
    assert 0.5 < np.median(half.costs) / half.full < 0.6  # type: ignore[arg-type]  # validation is not halved
    # Seed k of these is the training with that seed: the values of the table itself.
    stored = table.array("valid.+cosine@data=0.5")[:, :, -1] / table.manifest["examples"]["valid"]
    assert np.array_equal(half.values, stored)


@pytest.mark.parametrize(("name", "value"), [("fewer_epochs", 1.0), ("data_subset", 0.25), ("width", 0.5)])
def test_an_axis_without_a_parameter_is_the_estimators_default(
    toy: MappedTable, tmp_path: Path, name: str, value: float
) -> None:
    described = {"name": name, "params": {}, "traits": asdict(TRAITS)}
    folder = estimated(tmp_path / "e", toy, np.arange(5.0)[:, None], estimator=described)
    found = one(evidence.truth(toy), toy, folder)
    assert found.axis == (evidence.AXES[name][0], value)
    if name == "fewer_epochs":
        estimator = FewerEpochs()
        estimator.prepare(SPACE, Setting(toy.task, "epochs", toy.pipelines["base"], lambda a: 0, table=toy), seed=0)
        assert estimator.estimate([Proposal(SPACE.at(0))])[0].costs[0].amount == value


def test_params_are_kept_where_the_table_does_not_know_them(toy: MappedTable, tmp_path: Path) -> None:
    described = {"name": "params", "params": {}, "traits": asdict(TRAITS)}
    folder = estimated(tmp_path / "e", toy, np.arange(5.0)[:, None], estimator=described)
    assert one(evidence.truth(toy), toy, folder).name == "params"
    known = replace(evidence.truth(toy), features={"params": np.arange(5.0)})
    assert evidence.estimates(known, toy, [str(folder)]) == []


# Estimates of one's own.


def test_rows_are_matched_by_architecture_and_what_was_not_asked_is_marked(toy: MappedTable, tmp_path: Path) -> None:
    scores = [[4.0, 40.0], [np.nan, 10.0], [3.0, np.nan]]
    folder = estimated(
        tmp_path / "e", toy, scores, architectures=[TEXTS[4], TEXTS[1], TEXTS[3]], cost=[[7, 8], [1, 2], [5, 6]],
        reason=[[0, 0], [1, 0], [0, 2]], trained_on=[[TEXTS[3]], [TEXTS[0], TEXTS[4]]],
        preparation=[[{"kind": "fit", "amount": 2.0}, {"kind": "train", "amount": 3.0}], []],
    )  # fmt: skip
    found = one(evidence.truth(toy), toy, folder)
    nan = np.nan
    expected = [[nan, nan], [nan, 10], [nan, nan], [3, nan], [4, 40]]
    assert np.array_equal(found.values, expected, equal_nan=True)
    assert found.asked.tolist() == [False, True, False, True, True]
    assert np.array_equal(found.costs, [[nan, nan], [1, 2], [nan, nan], [5, 6], [7, 8]], equal_nan=True)  # type: ignore
    assert found.fitted.T.tolist() == [[False, False, False, True, False], [True, False, False, False, True]]
    assert found.reasons == {"broken": 1, "dead": 1}
    assert found.preparation.tolist() == [5.0, 0.0]


@pytest.mark.parametrize(("unit", "full"), [("flops", 9.0), ("epochs", 3.0), ("evaluations", 1.0), ("seconds", np.nan)])
def test_a_full_training_is_priced_in_the_unit_of_the_estimates(
    toy: MappedTable, tmp_path: Path, unit: str, full: float
) -> None:
    found = one(evidence.truth(toy), toy, estimated(tmp_path / "e", toy, np.arange(5.0)[:, None], unit=unit))
    assert found.unit == unit
    assert found.full == full or np.isnan([found.full, full]).all()


def test_whoever_shares_the_label_of_a_fitted_architecture_is_known_too(merged: MappedTable, tmp_path: Path) -> None:
    space, truth = merged.space, evidence.truth(merged)
    folder = estimated(tmp_path / "e", merged, np.arange(64.0)[:, None], trained_on=[[truth.architectures[2]]])
    found = one(truth, merged, folder)
    class_of_two = [i for i in range(64) if space.canonical(space.at(i)) == space.canonical(space.at(2))]  # type: ignore
    assert len(class_of_two) > 1
    assert np.flatnonzero(found.fitted[:, 0]).tolist() == class_of_two
    assert found.values[:, 0].tolist() == list(range(64))


def test_estimates_without_a_table_are_those_of_its_data_and_space(tmp_path: Path) -> None:
    task = Task("toy", "tabular", "accuracy", True, (4,), 3, "data")
    pipeline = Pipeline("base", "adam", 0.1, 3, 10)
    arrays = {"valid.base": counts(3), "test.base": counts(3)}
    table = made(tmp_path / "t", arrays, architectures=[TEXTS[3], TEXTS[0], TEXTS[2]], task=task,
                 pipelines={"base": pipeline})  # fmt: skip
    truth = evidence.truth(table)
    alike = {"task": {"digest": "data"}, "pipeline": {"name": "base", "digest": table.pipelines["base"].digest}}
    found = one(truth, table, estimated(tmp_path / "a", None, np.arange(5.0)[:, None], **alike))
    assert found.values[:, 0].tolist() == [3.0, 0.0, 2.0]  # rows of the whole space
    for i, changed in enumerate(({"task": {"digest": "other"}}, {"space": "synthetic[genes=1;values=6]"})):
        folder = estimated(tmp_path / f"b{i}", None, np.arange(5.0)[:, None], **{**alike, **changed})
        with pytest.raises(NotComparable, match=r"^estimates: those of 'mine' in .* are of the space 'synthetic\["):
            evidence.estimates(truth, table, [str(folder)])


def test_estimates_of_another_table_or_pipeline_are_refused(toy: MappedTable, tmp_path: Path) -> None:
    truth = evidence.truth(toy)
    other = {"name": "toy", "digest": "0" * 64}
    folder = estimated(tmp_path / "e", toy, np.arange(5.0)[:, None], table=other)
    both = f"table 'toy', digest 000000000000, not of 'toy', digest {toy.digest[:12]}$"
    with pytest.raises(NotComparable, match=both):
        evidence.estimates(truth, toy, [str(folder)])
    table = open_table("mlp-digits")
    with pytest.raises(NotComparable, match=r"made under the pipeline 'adam', not 'sgd_cosine'; .*"
                       r'--estimator "fewer_epochs\[epochs=1\]" --table mlp-digits --pipeline sgd_cosine'):  # fmt: skip
        evidence.estimates(evidence.truth(table, "sgd_cosine"), table, ["fewer_epochs-1"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("synflo", r"^estimates: 'synflo' is not one of .*did you mean 'synflow'\?; others are made by "
                   "`nasbed estimate --estimator NAME --table nb201-clutter`, and named by their folder$"),
        ("fewer_epochs[epochs=5]", '`nasbed estimate --estimator "fewer_epochs.epochs=5." --table nb201-clutter`'),
        ("no/such/folder", "'no/such/folder' is not one of .*, all"),
    ],
)  # fmt: skip
def test_unknown_names_are_one_line_with_a_way_out(name: str, message: str) -> None:
    table = open_table("nb201-clutter")
    with pytest.raises(ValueError, match=message) as caught:
        evidence.estimates(evidence.truth(table), table, [name])
    assert "\n" not in str(caught.value)


def test_a_table_without_embedded_estimates(toy: MappedTable) -> None:
    truth = evidence.truth(toy)
    assert evidence.estimates(truth, toy, ["all"]) == []
    with pytest.raises(ValueError, match='"synflow" --table toy'):
        evidence.estimates(truth, toy, ["synflow"])


def test_two_of_one_name_are_refused(toy: MappedTable, tmp_path: Path) -> None:
    folders = [str(estimated(tmp_path / n, toy, np.arange(5.0)[:, None], unit=u)) for n, u in
               (("a", "flops"), ("b", "epochs"))]  # fmt: skip
    with pytest.raises(ValueError, match=r"^estimates: 'mine' is there twice, from [0-9a-f]{64} and from "):
        evidence.estimates(evidence.truth(toy), toy, folders)
    assert len(evidence.estimates(evidence.truth(toy), toy, [folders[0], folders[0]])) == 1


# Several pipelines.


def test_pipelines_are_crossed_with_architectures_and_seeds() -> None:
    table = open_table("pipelines-clutter")
    found = evidence.pipelines_truth(table)
    assert found.values.shape == (120, 4, 3)
    assert found.pipelines == ("+all", "+cosine", "+cutout", "+mixup")
    for p, name in enumerate(found.pipelines):
        assert np.array_equal(found.values[:, p], evidence.truth(table, name).values)
        assert found.costs[p] == table.median_cost(name)
    assert found.architectures == tuple(table.manifest["architectures"])
    assert (found.default, found.left_out, found.examples) == ("+cosine", (), table.manifest["examples"]["test"])


def test_architectures_without_every_training_are_named(tmp_path: Path) -> None:
    arrays = {f"{split}.{p}": counts(root=i) for split in ("valid", "test") for i, p in enumerate("ab")}
    arrays["valid.b"][1, 1], arrays["test.b"][1, 1] = MISSING, MISSING
    found = evidence.pipelines_truth(made(tmp_path / "t", arrays))
    assert found.left_out == (TEXTS[1],)
    assert found.architectures == tuple(TEXTS[i] for i in (0, 2, 3, 4))
    assert np.array_equal(found.values[1, 1], arrays["test.b"][2, :, -1] / 200)
    with pytest.raises(ValueError, match=r"^pipelines: two different ones of 'one' are needed, there is a$"):
        evidence.pipelines_truth(made(tmp_path / "one", {k: v for k, v in arrays.items() if k.endswith("a")}))

    arrays["valid.a"][[0, 2, 3, 4]], arrays["test.a"][[0, 2, 3, 4]] = MISSING, MISSING
    with pytest.raises(ValueError, match=r"^table: no architecture of 'none' has every seed under all pipelines"):
        evidence.pipelines_truth(made(tmp_path / "none", arrays))


def test_diverged_trainings_are_no_part_of_a_variance(tmp_path: Path) -> None:
    task = Task("t", "regression", "mse", False, (11,), None, "d")
    errors = np.random.default_rng(0).random((5, 2, 1)).astype(np.float32)
    worse = errors.copy()
    worse[4, 0] = np.inf
    arrays = {"valid.a": errors, "test.a": errors, "valid.b": worse, "test.b": worse}
    found = evidence.pipelines_truth(made(tmp_path / "t", arrays, task=task))
    assert (found.left_out, found.examples, found.higher_is_better) == ((TEXTS[4],), None, False)
    assert np.isinf(evidence.truth(open_table(tmp_path / "t"), "b").values[4, 0])


# The seal.

OPENED: list[tuple[str, str]] = []
WATCHING: list[bool] = []
SEALED = os.sep + "sealed" + os.sep


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not WATCHING or event != "open" or SEALED not in str(arguments[0]):
        return
    frame, files = sys._getframe(), []
    while frame := frame.f_back:  # type: ignore[assignment]
        files.append(Path(frame.f_code.co_filename).as_posix())
    ours = [f for f in files if "/harness/" in f and "/tests/" not in f]
    OPENED.append((str(arguments[0]), ours[0].rpartition("/")[2] if ours else "elsewhere"))


sys.addaudithook(_hook)  # there is no way to remove one; it does nothing unless WATCHING


@pytest.fixture
def opened() -> Iterator[Sequence[tuple[str, str]]]:
    OPENED.clear()
    WATCHING.append(True)
    yield OPENED
    WATCHING.clear()


def test_test_values_are_opened_by_the_seal_alone(opened: Sequence[tuple[str, str]]) -> None:
    table = open_table("nb201-clutter")
    truth = evidence.truth(table)
    assert {(Path(path).name, by) for path, by in opened} == {("test.+cosine.npy", "seal.py")}
    before = len(opened)
    evidence.estimates(truth, table, ["all"])
    evidence.baselines(truth)
    assert len(opened) == before
    np.load(table.folder / "sealed" / "test.+cosine.npy")  # what the hook is for
    assert opened[-1][1] == "elsewhere"


def test_no_module_of_the_harness_but_the_seal_imports_what_unseals() -> None:
    importers = set()
    for path in Path(evidence.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("tabular.sealed"):
                importers.add(path.name)
    assert importers == {"seal.py"}


def test_some_pipelines_may_be_chosen() -> None:
    table = open_table("pipelines-clutter")
    found = evidence.pipelines_truth(table, ("+mixup", "+cutout"))
    whole = evidence.pipelines_truth(table)
    assert (found.pipelines, found.default) == (("+mixup", "+cutout"), "+mixup")
    assert np.array_equal(found.values, whole.values[:, [3, 2]])
    with pytest.raises(ValueError, match=r"^pipelines: '\+mixed' is not one of .*did you mean '\+mixup'"):
        evidence.pipelines_truth(table, ("+mixed", "+cutout"))
    with pytest.raises(ValueError, match=r"^pipelines: two different ones"):
        evidence.pipelines_truth(table, ("+mixup", "+mixup"))
