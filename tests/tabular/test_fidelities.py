"""Trainings at lower fidelities have arrays of their own, and nothing of the full ones changes."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasbed.methods import registry
from nasbed.protocols import FULL, Fidelity, MissingEntry
from nasbed.tabular import MappedTable, open_table, write_table
from nasbed.tabular.format import IDENTITY, MISSING, digest
from nasbed.tabular.manifest import fidelity_of
from nasbed.tabular.verify import verify

SPACE = registry.space("mlp[hidden=1;widths=8;dropout=no]")
LOWER = ("data=0.5", "width=0.5;depth=0.333333")
MANIFEST = {"name": "mine", "clock": "seconds", "examples": {"train": 100, "valid": 100, "test": 100}}


def counts(root: int, epochs: int = 3) -> np.ndarray:
    return np.random.default_rng(root).integers(0, 101, (4, 2, epochs), np.uint16)


def arrays(*lower: str) -> dict[str, np.ndarray]:
    found = {"valid.base": counts(0), "test.base": counts(1), "train.base": counts(2), "cost.base": np.arange(1.0, 5.0)}
    found |= {"valid.other": counts(3), "test.other": counts(4), "cost.other": np.ones(4)}
    for i, text in enumerate(lower):
        found |= {f"{s}.base@{text}": counts(10 * i + k + 5) for k, s in enumerate(("valid", "test", "train"))}
        found[f"cost.base@{text}"] = np.arange(1.0, 5.0) / 2
    return found


def made(folder: Path, given: dict[str, np.ndarray], **fields: Any) -> MappedTable:
    return open_table(write_table(folder, SPACE, given, {**MANIFEST, **fields}), verify=True)


def test_each_fidelity_is_a_training_of_its_own(tmp_path: Path) -> None:
    given = arrays(*LOWER)
    table = made(tmp_path / "t", given)
    assert dict(table.fidelities) == {"base": LOWER, "other": ()}
    assert list(table.pipelines) == ["base", "other"]
    asked = {"": FULL, LOWER[0]: Fidelity(data=0.5), LOWER[1]: Fidelity(width=0.5, depth=1 / 3)}
    for text, fidelity in asked.items():
        name = f"base@{text}" if text else "base"
        for epochs in (1, 2, 3, math.inf):
            k = 3 if math.isinf(epochs) else int(epochs)
            at = Fidelity(epochs, fidelity.data, fidelity.resolution, fidelity.width, fidelity.depth)
            entry = table.lookup(SPACE.at(3), pipeline="base", seed=1, fidelity=at)
            assert entry.epochs.tolist() == list(range(1, k + 1))
            assert entry.valid.tolist() == (given[f"valid.{name}"][3, 1, :k] / 100).tolist()
            assert entry.train is not None
            assert entry.train.tolist() == (given[f"train.{name}"][3, 1, :k] / 100).tolist()
            assert entry.cost == k * given[f"cost.{name}"][3]


@pytest.mark.parametrize(
    ("pipeline", "fidelity", "message"),
    [
        (
            "base",
            Fidelity(data=0.25),
            r"fidelity: .* has data=0.5, width=0.5;depth=0.333333 under 'base', not data=0.25",
        ),
        ("base", Fidelity(width=0.5), r"fidelity: .* under 'base', not width=0.5$"),
        ("base", Fidelity(data=0.5, width=0.5), r"fidelity: .* not data=0.5;width=0.5$"),
        ("base", Fidelity(7, data=0.5), r"fidelity.epochs: .* has 1, 2, 3, inf, not 7"),
        ("other", Fidelity(data=0.5), r"fidelity: .* no axis but epochs under 'other', not data=0.5"),
        ("base@data=0.5", FULL, r"pipeline: .* has base, other, not base@data=0.5"),
        ("base@data=0.5", Fidelity(data=0.5), r"pipeline: .* not base@data=0.5"),
    ],
)
def test_what_was_not_trained_is_missing_and_the_others_are_named(
    tmp_path: Path, pipeline: str, fidelity: Fidelity, message: str
) -> None:
    table = made(tmp_path / "t", arrays(*LOWER))
    with pytest.raises(MissingEntry, match=message) as error:
        table.lookup(SPACE.at(0), pipeline=pipeline, seed=0, fidelity=fidelity)
    assert "\n" not in str(error.value)


def test_a_fidelity_may_have_its_own_epochs_holes_and_optional_arrays(tmp_path: Path) -> None:
    given = {k: v for k, v in arrays("data=0.5").items() if k not in ("test.base@data=0.5", "train.base@data=0.5")}
    given["valid.base@data=0.5"] = counts(9, 2)
    given["valid.base@data=0.5"][1, 1] = MISSING
    epochs = {"base": [1, 2, 4], "other": [1, 2, 3], "base@data=0.5": [2, 8]}
    table = made(tmp_path / "t", given, epochs=epochs)
    entry = table.lookup(SPACE.at(0), pipeline="base", seed=1, fidelity=Fidelity(8, data=0.5))
    assert (entry.epochs.tolist(), entry.train, entry.cost) == ([2, 8], None, 4.0)
    assert table.lookup(SPACE.at(0), pipeline="base", seed=1, fidelity=Fidelity(4)).epochs.tolist() == [1, 2, 4]
    with pytest.raises(MissingEntry, match=r"no training with seed 1 under 'base' at data=0.5; recorded: 0$"):
        table.lookup(SPACE.at(1), pipeline="base", seed=1, fidelity=Fidelity(data=0.5))
    assert table.recorded_seeds(SPACE.at(1), "base") == (0, 1)
    assert table.recorded_seeds(SPACE.at(1), "base", "data=0.5") == (0,)


def test_without_costs_an_epoch_costs_one_at_every_fidelity(tmp_path: Path) -> None:
    given = {k: v for k, v in arrays("data=0.5").items() if not k.startswith("cost.")}
    table = made(tmp_path / "t", given, clock="epochs")
    assert table.lookup(SPACE.at(0), pipeline="base", seed=0, fidelity=Fidelity(data=0.5)).cost == 3.0


def test_sealed_values_of_fidelities_lie_apart(tmp_path: Path) -> None:
    table = made(tmp_path / "t", arrays("data=0.5"))
    assert (table.folder / "sealed" / "test.base@data=0.5.npy").is_file()
    assert table.array("valid.base@data=0.5").shape == (4, 2, 3)
    with pytest.raises(MissingEntry, match="array: "):
        table.array("test.base@data=0.5")


def test_a_table_without_fidelities_has_the_digest_it_always_had(tmp_path: Path) -> None:
    manifest = made(tmp_path / "t", arrays()).manifest
    identity = {k: manifest[k] for k in IDENTITY}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    assert not {"fidelities", "fgsm_epsilon"} & set(manifest)
    assert manifest["digest"] == hashlib.sha256(text.encode()).hexdigest()
    shipped = open_table("mlp-digits", verify=True)
    assert shipped.digest == "aa2c44c777caeb1772577e48ee3f31a1942c53630450aaf8694bd0e9d0fb1c93"
    assert verify("mlp-digits").passed


def test_fidelities_are_part_of_what_a_table_is(tmp_path: Path) -> None:
    table = made(tmp_path / "t", arrays(*LOWER))
    manifest = dict(table.manifest)
    assert verify(table.folder).passed
    assert digest(manifest) == table.digest
    assert digest({**manifest, "fidelities": {"base": ["data=0.5"]}}) != table.digest
    listed = made(tmp_path / "u", arrays(*LOWER), fidelities={"base": list(LOWER[::-1])})
    assert listed.fidelities["base"] == LOWER[::-1]


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        ({"valid.base@data=0.5": counts(0, 2)}, {}, r"valid.base@data=0.5: shape"),
        ({"valid.base@data=0.5": None}, {}, r"arrays: 'valid.base@data=0.5' is missing"),
        ({"cost.base@data=0.5": None}, {}, r"'cost.base@data=0.5' is missing, while 'cost.base' is there"),
        ({"cost.base@data=0.5": np.ones(3)}, {}, r"cost.base@data=0.5: shape"),
        ({"train.base@data=0.5": np.full((4, 2, 3), MISSING, np.uint16)}, {}, r"train.base@data=0.5: missing where"),
        ({"valid.third@data=0.5": counts(0)}, {}, r"arrays: 'valid.third@data=0.5' is not one of"),
        ({"valid.base@": counts(0)}, {}, r"arrays: 'valid.base@' is not one of"),
        ({"feature.params@data=0.5": np.ones(4)}, {}, r"arrays: 'feature.params@data=0.5' is not one of"),
        ({"valid.base@data=.5": counts(0)}, {}, r"fidelities: 'data=.5' is not of the form"),
        ({}, {"fidelities": {"base": ["data=0.25"]}}, r"fidelities: 'base' has arrays at data=0.5, not at"),
        ({}, {"fidelities": {"third": ["data=0.5"]}}, r"fidelities: 'third' is not one of base, other"),
        ({}, {"epochs": {"base": [1, 2, 3], "other": [1, 2, 3], "base@data=0.5": [3, 2, 1]}}, r"epochs: .* ascending"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    given = {k: v for k, v in {**arrays("data=0.5"), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message) as error:
        write_table(tmp_path / "t", SPACE, given, {**MANIFEST, **fields})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["", "data", "data=1", "data=0", "data=-0.5", "data=1.5", "data=0.50", "data=x", "epochs=3", "size=0.5",
     "width=0.5;data=0.5", "data=0.5;", "data=0.5;data=0.5", "data=nan", "data=0.3333333", "data=0.5=0.5"],
)  # fmt: skip
def test_only_one_text_stands_for_a_fidelity(text: str) -> None:
    with pytest.raises(ValueError, match="fidelities: "):
        fidelity_of(text)


@given(st.lists(st.floats(0.001, 1.0), min_size=4, max_size=4).filter(lambda shares: Fidelity(1, *shares).text))
def test_texts_are_read_back(shares: list[float]) -> None:
    text = Fidelity(1, *shares).text
    if "=1" not in text:  # 0.9999999 rounds to 1
        assert fidelity_of(text).text == text
