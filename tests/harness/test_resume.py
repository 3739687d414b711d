from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasbed.harness.compare import carry_out
from nasbed.harness.plan import Plan, plan
from nasbed.harness.store import RunStore
from nasbed.harness.study import read_study
from nasbed.reports.write import write_report

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def fields(table: Path) -> dict[str, Any]:
    """18 runs of 60 evaluations, and more."""
    return {
        "strategies": "random,local_search,aging_evolution",
        "tables": str(table),
        "seeds": 6,
        "budget": "240epochs",
    }


@pytest.fixture(scope="module")
def undisturbed(fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a run in one go, and the seconds that it took."""
    out = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    assert carry_out(plan(read_study(None, fields)), out) == []
    return out, time.monotonic() - started


def contents(out: Path) -> dict[str, Any]:
    """Everything of a store but measured time and where it was measured."""
    store = out / "store"
    study = json.loads((store / "study.json").read_bytes())
    assert study.pop("provenance")
    results = {p.parent.name: p.read_bytes() for p in sorted(store.glob("runs/*/result.json"))}
    assert RunStore(store).verify() == [] or {p.kind for p in RunStore(store).verify()} == {"leftover"}
    return {"study": json.dumps(study, sort_keys=True), "results": results}


def interrupted(out: Path, jobs: int, kills: int, seconds: float, fields: dict[str, Any]) -> int:
    command = [sys.executable, str(HERE / "interrupted.py"), str(out), str(jobs), str(kills), str(seconds)]
    subprocess.run([*command, json.dumps(fields)], check=True, timeout=200)
    return int((out / "kills").read_text())


def test_a_study_killed_at_twenty_random_points_ends_in_the_same_bytes(
    undisturbed: tuple[Path, float], fields: dict[str, Any], tmp_path: Path
) -> None:
    whole, seconds = undisturbed
    met = interrupted(tmp_path / "killed", 1, 20, seconds / 16, fields)
    assert met >= 8
    assert contents(tmp_path / "killed") == contents(whole)
    assert len(contents(whole)["results"]) == 18
    pages = [
        write_report(out / "store", tmp_path / str(i), resamples=200)
        for i, out in enumerate((whole, tmp_path / "killed"))
    ]
    a, b = ((page.parent / "results.json").read_bytes() for page in pages)
    assert a == b


def test_killed_with_two_processes_it_ends_in_the_same_bytes(
    undisturbed: tuple[Path, float], fields: dict[str, Any], tmp_path: Path
) -> None:
    met = interrupted(tmp_path / "killed", 2, 4, undisturbed[1] / 16, fields)
    assert met >= 1
    assert contents(tmp_path / "killed") == contents(undisturbed[0])


@pytest.mark.slow
def test_killed_with_two_processes_at_twenty_points(
    undisturbed: tuple[Path, float], fields: dict[str, Any], tmp_path: Path
) -> None:
    assert interrupted(tmp_path / "killed", 2, 20, undisturbed[1] / 16, fields) >= 1
    assert contents(tmp_path / "killed") == contents(undisturbed[0])


def test_nothing_finished_is_run_again(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned(seeds=3)
    assert carry_out(plan, tmp_path) == []
    results = sorted((tmp_path / "store").glob("runs/*/result.json"))
    before = [(p.stat().st_mtime_ns, p.read_bytes()) for p in results]
    study = (tmp_path / "store" / "study.json").read_bytes()
    results[1].unlink()
    steps: list[tuple[int, int]] = []
    assert carry_out(plan, tmp_path, progress=lambda done, total: steps.append((done, total))) == []
    assert steps == [(2, 3), (3, 3)]
    after = [(p.stat().st_mtime_ns, p.read_bytes()) for p in results]
    assert [b for _, b in after] == [b for _, b in before]
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True]
    assert (tmp_path / "store" / "study.json").read_bytes() == study


TRAINING = """
import json, sys
sys.path.insert(0, {here!r})
from pathlib import Path
from nasbed.harness.compare import carry_out
from nasbed.harness.plan import plan
from nasbed.harness.study import read_study
carry_out(plan(read_study(None, json.loads({fields!r}))), Path({out!r}))
"""


def test_real_training_goes_on_from_its_event_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With repeats for free and new training seeds at every query: both have a state that must survive."""
    fields = {
        "strategies": "random", "estimators": "planted:Counted", "space": "mlp[hidden=1;widths=8,16;dropout=no]",
        "data": "digits", "budget": "30epochs", "seeds": [4], "dedupe": True, "redraw": True, "retrain": 1,
    }  # fmt: skip
    monkeypatch.setenv("TRAININGS", str(tmp_path / "whole.txt"))
    study = plan(read_study(None, fields))
    assert carry_out(study, tmp_path / "whole") == []
    trained = (tmp_path / "whole.txt").read_text().splitlines()
    [key] = {r.key for r in study.runs}
    record = RunStore(tmp_path / "whole" / "store").load(key)
    told = [o for call in record.calls for o in call.observations]
    assert [str(o.proposal.architecture) for o in told if o.costs] == trained
    assert len(trained) == 3
    assert len(told) > 3  # some repeats were free
    assert not told[1].costs or not told[2].costs  # and one came before the interruption

    monkeypatch.setenv("TRAININGS", str(tmp_path / "killed.txt"))
    script = TRAINING.format(here=str(HERE), fields=json.dumps(fields), out=str(tmp_path / "killed"))
    died = subprocess.run([sys.executable, "-c", script], env={**os.environ, "KILL_AT": "3"}, timeout=120)
    assert died.returncode == -9
    assert (tmp_path / "killed.txt").read_text().splitlines() == trained[:2]
    assert RunStore(tmp_path / "killed" / "store").finished() == set()
    assert carry_out(study, tmp_path / "killed") == []
    assert (tmp_path / "killed.txt").read_text().splitlines() == trained  # nothing recorded is trained again
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
