"""`nasbed estimate`: scores as a table, resumed seed by seed, the same bytes again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

from nasbed.harness import estimate
from nasbed.harness.cli import app
from nasbed.methods.spaces.mlp import MLP
from nasbed.protocols import Cost, Observation, Proposal, SearchSpace, Setting, Traits
from nasbed.protocols.training import load
from nasbed.tabular import open_table, write_table
from nasbed.tabular.estimates import EstimateTable, embedded_estimates, open_estimates, write_estimates

HERE = f"{__name__}:"
SPACE = MLP(hidden=1, widths=(8, 16, 32, 64), activations=("relu",), dropout=False)


class Noisy:
    """Scores of a seeded generator, a failure for one architecture, a second value, and a fit that costs."""

    traits = Traits(accuracy_scale=False, deterministic=False)
    prepared: ClassVar[list[int]] = []

    def __init__(self, fail: int = 1, stop_at: int = 99) -> None:
        self._fail, self._stop = fail, stop_at

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        self._space, self._rng, self.trained_on = space, np.random.default_rng(seed), (space.at(0),)
        Noisy.prepared.append(seed)
        if len(Noisy.prepared) > self._stop:
            raise KeyboardInterrupt
        return [Cost("fit", 7.0), Cost("train", 2.0)]

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        found = []
        for p in proposals:
            value = self._rng.normal()
            if self._space.index(p.architecture) == self._fail:
                found.append(Observation(p, np.nan, (Cost("proxy", 1.0),), status="crashed", reason="as planned"))
            else:
                found.append(Observation(p, value, (Cost("proxy", 1.0),), objectives={"sd": abs(value)}))
        return found


class Undeclared(Noisy):
    traits = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = (SPACE.size, 2, 3)
    counts = np.random.default_rng(0).integers(0, 101, shape, np.uint16)
    arrays = {"valid.base": counts, "test.base": counts, "cost.base": np.ones(shape[0])}
    fields = {"name": "toy", "clock": "flops", "examples": {"valid": 100, "test": 100}}
    return write_table(tmp_path_factory.mktemp("estimate") / "toy", SPACE, arrays, fields)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["estimate", *map(str, arguments)])


def wanted(folder: Path, **changes: Any) -> estimate.Wanted:
    table = open_table(folder)
    setting = Setting(table.task, "flops", table.pipelines["base"], lambda a: 0, table=table)
    rows, listed = estimate.rows(table.space, table, None)
    made = estimate.Wanted(HERE + "Noisy", {}, setting, table.space, rows, listed, (0, 1, 2))
    return replace(made, **changes)


def test_scores_costs_reasons_and_further_values(folder: Path, tmp_path: Path) -> None:
    found = open_estimates(estimate.estimate(wanted(folder), tmp_path / "e"))
    assert found.scores.shape == found.costs.shape == found.objectives["sd"].shape == (SPACE.size, 3)
    assert np.isnan(found.scores[1]).all()
    assert np.isfinite(np.delete(found.scores, 1, 0)).all()
    assert [found.reason(r, 2) for r in range(3)] == ["", "as planned", ""]
    assert len({*found.scores[0]}) == 3  # every seed is another draw
    assert found.preparation == ((Cost("fit", 7.0), Cost("train", 2.0)),) * 3
    assert found.trained_on(1) == (SPACE.at(0),)
    assert found.architectures() == [SPACE.at(i) for i in range(SPACE.size)]
    assert found.traits == Noisy.traits
    assert found.manifest["table"] == {"name": "toy", "digest": open_table(folder).digest}
    assert not (tmp_path / "e" / "seeds").exists()


def test_an_interrupted_run_goes_on_with_the_seeds_that_are_missing(folder: Path, tmp_path: Path) -> None:
    whole = estimate.estimate(wanted(folder), tmp_path / "whole")
    Noisy.prepared.clear()
    stopped = wanted(folder, params={"stop_at": 2})
    with pytest.raises(KeyboardInterrupt):
        estimate.estimate(stopped, tmp_path / "e")
    assert sorted(p.name for p in (tmp_path / "e" / "seeds").glob("*.npz")) == ["0.npz", "1.npz"]
    with pytest.raises(ValueError, match=r"out: .* holds the beginning of other estimates"):
        estimate.estimate(wanted(folder), tmp_path / "e")
    Noisy.prepared[:] = [0]  # so that there is room for the third
    steps: list[tuple[float, float]] = []
    estimate.estimate(stopped, tmp_path / "e", lambda done, total: steps.append((done, total)))
    assert len(Noisy.prepared) == 2  # only the third seed was done
    assert steps[-1] == (3 * SPACE.size, 3 * SPACE.size)
    for name in ("score.npy", "cost.npy", "reason.npy", "objective.sd.npy"):
        assert (whole / name).read_bytes() == (tmp_path / "e" / name).read_bytes()
    Noisy.prepared.clear()


def test_the_command_says_what_it_made(folder: Path, tmp_path: Path) -> None:
    arguments = ("--estimator", "fewer_epochs[epochs=2]", "--table", folder, "--seeds", 2)
    result = run(*arguments, "--out", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert f"fewer_epochs: {SPACE.size} architectures, 2 seeds, 0 without a score" in result.stdout
    again = run(*arguments, "--out", tmp_path / "b", "--json")
    said = json.loads(again.stdout)
    assert said["digest"] == open_estimates(tmp_path / "a").digest  # the same bytes again
    assert said["cost"] == SPACE.size * 2 * 2.0
    counts = np.load(folder / "valid.base.npy")
    assert (open_estimates(tmp_path / "a").scores == counts[:, :, 1] / 100).all()  # seed k is training seed k
    assert "holds finished estimates" in run(*arguments, "--out", tmp_path / "a").output


def test_without_a_table_architectures_are_trained(tmp_path: Path) -> None:
    result = run(
        "--estimator", "params", "--space", SPACE.name, "--data", "digits", "--sample", 2, "--out", tmp_path / "e"
    )
    assert result.exit_code == 0, result.output
    found = open_estimates(tmp_path / "e")
    assert found.manifest["table"] is None
    assert len(found.architectures()) == 2
    assert found.manifest["architectures"] == [SPACE.text(a) for a in found.architectures()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--estimator", "sinflow", "--table", "mlp-digits"), "did you mean 'synflow'"),
        (("--estimator", "fewer_epochs[epoch=2]", "--table", "mlp-digits"), "'epoch' is not one of epochs"),
        (("--estimator", "table"), "all, sample: name one of --all and --sample N"),
        (("--estimator", "table", "--all"), "table, space: name one of --table, and --space with --data"),
        (("--estimator", "full", "--space", "mlp", "--all"), "data: a space needs --data"),
        (("--estimator", "table", "--table", "mlp-digits", "--unit", "epoch"), "did you mean 'epochs'"),
        (("--estimator", "table", "--table", "mlp-digits", "--sample", "9999"), "sample: 9999 is not from 1 to 4368"),
        (("--estimator", "table", "--table", "mlp-digits", "--pipeline", "adm"), "did you mean 'adam'"),
        (("--estimator", HERE + "Undeclared", "--table", "mlp-digits"), "does not declare what its scores are"),
        (("--estimator", "width", "--table", "mlp-digits"), "has none below full under 'adam', not width=0.5"),
    ],
)
def test_wrong_input_is_one_line(arguments: Sequence[str], message: str, tmp_path: Path) -> None:
    result = run(*arguments, "--out", tmp_path / "e")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_does_not_fit_together_is_not_written(folder: Path, tmp_path: Path) -> None:
    made = estimate.estimate(wanted(folder), tmp_path / "e")
    fields = dict(open_estimates(made).manifest)
    one = np.ones((SPACE.size, 3))
    good = {"score": one, "cost": one, "reason": one * 0}
    for arrays, message in (
        ({"score": one}, "arrays: 'cost' is missing"),
        (good | {"cost": one[:2]}, r"cost: shape \(2, 3\) is not"),
        (good | {"score": one * np.inf}, "score: every score is a finite number"),
        (good | {"score": one * np.nan}, "reason: must name a reason"),
        (good | {"reason": one * 9}, "reason: must name a reason"),
        (good | {"cost": -one}, "cost: every cost"),
        (good | {"sd": one}, "arrays: 'sd' is not one of"),
    ):
        with pytest.raises(ValueError, match=message):
            write_estimates(tmp_path / "x", arrays, fields)
    with pytest.raises(ValueError, match="manifest: the field 'unit' is missing"):
        write_estimates(tmp_path / "x", good, {k: v for k, v in fields.items() if k != "unit"})


def test_changed_files_are_refused(folder: Path, tmp_path: Path) -> None:
    made = estimate.estimate(wanted(folder), tmp_path / "e")
    path = made / "score.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"files: .*score.npy is missing or does not have the sha256"):
        EstimateTable(made)
    path.write_bytes(whole)
    manifest = made / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"unit": "flops"', '"unit": "epochs"'))
    with pytest.raises(ValueError, match=r"digest: .* was changed"):
        EstimateTable(made)
    with pytest.raises(ValueError, match="holds trainings, not estimates"):
        EstimateTable(folder)
    with pytest.raises(ValueError, match=r"holds no manifest\.json"):
        EstimateTable(tmp_path)


EMBEDDED = embedded_estimates()


def test_the_estimates_that_come_with_the_package_are_of_its_tables() -> None:
    assert {"nb201-clutter/params", "nb201-clutter/synflow", "pipelines-clutter/width"} <= set(EMBEDDED)
    for name in EMBEDDED:
        found = open_estimates(name)
        table = open_table(name.partition("/")[0])
        assert found.manifest["table"] == {"name": table.name, "digest": table.digest}
        assert len(found.scores) == len(table.members())
        assert found.manifest["pipeline"]["digest"] == table.pipelines[found.manifest["pipeline"]["name"]].digest


@pytest.mark.parametrize("name", [n for n in EMBEDDED if "fewer_epochs" in n or n.startswith("pipelines-clutter")])
def test_embedded_low_fidelities_are_the_entries_of_the_table(name: str) -> None:
    found, table = open_estimates(name), open_table(name.partition("/")[0])
    pipeline, params = found.manifest["pipeline"]["name"], found.manifest["estimator"]["params"]
    axis = {"data_subset": "data"}.get(found.name, found.name)
    stem = "" if found.name == "fewer_epochs" else f"@{axis}={params['share']:g}"
    counts = table.array(f"valid.{pipeline}{stem}")[:, : len(found.seeds), params.get("epochs", 0) - 1]
    assert (found.scores == counts / table.manifest["examples"]["valid"]).all()


@pytest.mark.parametrize("name", ["params", "synflow", "curve_domhan"])
def test_embedded_scores_are_made_again(name: str, tmp_path: Path) -> None:
    shipped, table = open_estimates(f"nb201-clutter/{name}"), open_table("nb201-clutter")
    rows = [3, 400, 727]
    view, pipeline = load(table.task.name), table.pipelines["+cosine"]
    setting = Setting(table.task, "epochs", pipeline, lambda a: 0, data=view, table=table)
    chosen = [table.architecture(r) for r in rows]
    params = shipped.manifest["estimator"]["params"]
    again = estimate.Wanted(name, params, setting, table.space, chosen, True, shipped.seeds)
    found = open_estimates(estimate.estimate(again, tmp_path / "e"))
    assert found.scores == pytest.approx(shipped.scores[rows], rel=1e-5, nan_ok=True)
    assert (found.costs == shipped.costs[rows]).all()
