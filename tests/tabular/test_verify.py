"""Verification: a sound table passes, every kind of damage is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nasbed.protocols import Pipeline
from nasbed.tabular import open_table, write_table
from nasbed.tabular.deviation import left_out, spread, windows, z_scores
from nasbed.tabular.format import digest
from nasbed.tabular.verify import Verification, verify

Damage = Callable[[np.ndarray], np.ndarray]


def rewritten(source: Path, folder: Path, damage: Damage = lambda x: x, **fields: object) -> Path:
    """The same table under fresh hashes, its test counts damaged: what a careless importer would make."""
    manifest = {**json.loads((source / "manifest.json").read_text()), **fields}
    arrays = {Path(name).stem: np.load(source / name) for name in manifest["files"]}
    arrays = {k: damage(v) if k.startswith("test.") else v for k, v in arrays.items()}
    return write_table(folder, manifest["space"], arrays, manifest)


def test_a_sound_table_passes_and_the_result_repeats(built: Path) -> None:
    steps: list[tuple[float, float]] = []
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first = verify(built, retrain=4, seed=1, progress=lambda done, total: steps.append((done, total)))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert first.passed
    assert first.outside <= first.allowed
    assert steps == [(k, 4) for k in range(5)]
    assert len({e.architecture for e in first.entries}) == 4
    assert all(e.seed > 4 for e in first.entries)
    assert all(0.3 < e.mean < 0.9 and abs(e.test - e.mean) < 4 * e.sd for e in first.entries)
    assert first.summary()[0] == "hashes and schema: correct"
    assert first.summary()[-1].endswith("passed")
    assert json.loads(json.dumps(first.to_dict()))["passed"] is True
    worst = first.worst(2)
    assert abs(worst[0].z) == max(abs(e.z) for e in first.entries)
    again = verify(built, retrain=1, seed=1)
    assert again.entries[0].seed == next(
        e.seed for e in first.entries if e.architecture == again.entries[0].architecture
    )
    assert verify(built, retrain=1, seed=2).entries[0].seed != again.entries[0].seed


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda x: (x.clip(150) - 150).astype(np.uint16), id="shifted"),
        pytest.param(lambda x: x[[7, 0, 1, 2, 3, 4, 5, 6]], id="rows-moved-by-one"),
        pytest.param(lambda x: x[:, :, ::-1], id="epochs-reversed"),
    ],
)
def test_wrong_values_under_right_hashes_are_seen(built: Path, tmp_path: Path, damage: Damage) -> None:
    folder = rewritten(built, tmp_path / "spoilt", damage)
    assert verify(folder).passed
    found = verify(folder, retrain=8)
    assert not found.passed
    assert found.outside > found.allowed
    assert found.summary()[-1].endswith("failed")


def test_the_copy_itself_does_no_damage(built: Path, tmp_path: Path) -> None:
    copy = rewritten(built, tmp_path / "copy")
    assert open_table(copy).digest == open_table(built).digest
    assert verify(copy, retrain=2).passed


@pytest.mark.parametrize("name", ["valid.adam.npy", "cost.adam.npy", "sealed/test.adam.npy"])
def test_one_flipped_byte_is_seen(built: Path, tmp_path: Path, name: str) -> None:
    folder = rewritten(built, tmp_path / "flipped")
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    found = verify(folder, retrain=2)
    assert not found.passed
    assert not found.entries
    assert name in found.problems[0]
    assert "sha256" in found.summary()[0]


def test_a_missing_file_and_a_tampered_manifest_are_seen(built: Path, tmp_path: Path) -> None:
    folder = rewritten(built, tmp_path / "broken")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "seeds": [5, 6, 7, 8, 9]}))
    assert "changed after" in verify(folder).problems[0]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "feature.params.npy").unlink()
    assert "feature.params.npy is missing" in verify(folder).problems[0]


def test_a_manifest_that_does_not_fit_its_arrays_is_seen(built: Path, tmp_path: Path) -> None:
    folder = rewritten(built, tmp_path / "misfit")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["examples"]["valid"] = 100
    manifest["digest"] = digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (problem,) = verify(folder).problems
    assert problem.startswith("schema: valid.adam:")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"pipelines": {"adam": Pipeline("adam", "adam", 0.002, 10, 32)}},
            "pipeline: the table 'tiny' cannot be trained again: 'adam' is registered with the digest 8cdc74b395b7, ",
        ),
        ({"pipelines": None}, "pipeline: the table 'tiny' cannot be trained again: 'adam' is registered"),
        ({"task": {"name": "moons"}}, "data: the table 'tiny' cannot be trained again: 'moons' is not registered"),
        ({"task": {"digest": "0" * 64}}, "data: .*cannot be trained again: 'digits' has .* trained on 000000"),
    ],
)
def test_what_cannot_be_trained_again_is_refused(built: Path, tmp_path: Path, fields: dict, message: str) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    fields = {k: {**manifest[k], **v} if k == "task" else v or {} for k, v in fields.items()}
    folder = rewritten(built, tmp_path / "other", **fields)
    assert verify(folder).passed
    with pytest.raises(ValueError, match=message) as error:
        verify(folder, retrain=1)
    assert "\n" not in str(error.value)


def test_too_many_entries_and_no_table_are_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="retrain: 9 is more than the 8 entries"):
        verify(built, retrain=9)
    with pytest.raises(ValueError, match="table: "):
        verify(tmp_path / "nowhere")


def test_nearest_means_are_the_nearest() -> None:
    rng = np.random.default_rng(0)
    ordered = np.sort(rng.integers(0, 60, 50) / 7)
    for size in (1, 2, 7, 50):
        for i, start in enumerate(windows(ordered, size, ordered)):
            distance = np.abs(ordered - ordered[i])
            assert np.allclose(np.sort(distance[start : start + size]), np.sort(distance)[:size])


def test_pooled_deviation_equals_the_plain_formula() -> None:
    values = np.random.default_rng(1).normal(0.8, 0.02, (40, 5))
    values[3, 2] = np.nan
    values[7, 1:] = np.nan
    n, mean, sd = spread(values)
    kept = np.delete(np.arange(40), 7)
    parts = [(np.nanvar(values[i], ddof=1), n[i] - 1) for i in kept]
    assert np.allclose(sd[kept], np.sqrt(sum(v * f for v, f in parts) / sum(f for _, f in parts)))
    assert np.allclose(mean[kept], np.nanmean(values[kept], 1))
    assert (n[3], n[7]) == (4, 1)
    assert mean[7] == values[7, 0]
    assert sd[7] == sd[0]  # of the others


def test_left_out_share_of_normal_seeds_is_the_normal_one() -> None:
    rng = np.random.default_rng(2)
    values = rng.uniform(0.2, 0.9, (2000, 1)) + 0.01 * rng.standard_normal((2000, 5))
    assert left_out([values]).share == pytest.approx(0.0455, abs=0.006)
    # A tenth of the entries scatters ten times as much: the share is what it is, not the normal one.
    scatter = np.where(rng.random((2000, 1)) < 0.1, 0.1, 0.01)
    mixed = rng.uniform(0.2, 0.9, (2000, 1)) + scatter * rng.standard_normal((2000, 5))
    assert 0.05 < left_out([mixed]).share < 0.1


def test_entries_that_never_varied_must_come_out_exactly() -> None:
    n, mean, sd = spread(np.full((10, 5), 0.1))
    assert (sd == 0).all()
    assert z_scores(np.full(10, 0.1), n, mean, sd).tolist() == [0.0] * 10
    assert z_scores(np.full(10, 0.2), n, mean, sd).tolist() == [np.inf] * 10
    assert left_out([np.full((10, 5), 0.1)]) == (0.0, 40)


def test_a_failure_is_the_last_line() -> None:
    assert Verification("t", False, ("files: x is missing",)).summary() == ["files: x is missing", "t: failed"]
