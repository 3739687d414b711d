"""The example repository under `examples/ci`, run by its own suite in an environment of its own, on the wheel.

The regressions are planted in its strategy by an edit, as somebody's commit would.
"""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("protocols", "methods", "tabular", "harness", "reports")
TABLE = "mlp-digits"
SETUPTOOLS = pytest.importorskip("setuptools")


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """A fresh environment: the wheel, and the libraries that are installed here, but not our checkout."""
    folder = tmp_path_factory.mktemp("foreign")
    wheel = build(folder)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    interpreter = folder / "venv" / "bin" / "python"
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    home = Path(subprocess.run([interpreter, "-c", asked], capture_output=True, text=True, check=True).stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home)
    # A line of a .pth file adds a folder and does not read the .pth files in it, so an editable nasbed stays away.
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    (home / "libraries.pth").write_text("\n".join(sorted(here)) + "\n")
    where = subprocess.run(
        [interpreter, "-c", "import nasbed.harness; print(nasbed.harness.__file__)"],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert Path(where.strip()).is_relative_to(home), where
    return interpreter


def build(folder: Path) -> Path:
    """The wheel, from a copy, without the tables that the example does not need: packing all of them takes long."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / "source" / room, ignore=shutil.ignore_patterns("__pycache__", "shards"))
    for data in (folder / "source" / "tabular" / "data").iterdir():
        if data.name != TABLE:
            shutil.rmtree(data)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    (folder / "dist").mkdir()
    program = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder / 'dist')!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder / "source", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


@dataclass
class Repository:
    """A clone of the example."""

    folder: Path
    python: Path
    options: list[str] = field(default_factory=list)

    def edit(self, old: str, new: str) -> None:
        path = self.folder / "climbing" / "strategy.py"
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")

    def test(self, *options: str) -> tuple[int, str, dict[str, object]]:
        """Exit code, output, and what the gate found."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHON", "COV"))}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(self.python), "-m", "pytest", "-p", "no:cacheprovider", "--nasbed-json=gates.json", *options]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        gates = json.loads((self.folder / "gates.json").read_text(encoding="utf-8"))["gates"]
        return done.returncode, done.stdout, gates[0] if gates else {}


@pytest.fixture
def repository(python, tmp_path) -> Repository:
    shutil.copytree(
        ROOT / "examples" / "ci", tmp_path / "climbing", ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache")
    )
    return Repository(tmp_path / "climbing", python)


def test_as_it_is_it_passes(repository):
    """The baseline that is in the repository, to the last bit, through the entry point of the plugin."""
    code, out, gate = repository.test()
    assert code == 0, out
    assert (gate["outcome"], gate["level"], gate["identical"]) == ("pass", "exact", 200)
    assert "19 passed" in out


def test_a_broken_selection_fails(repository):
    repository.edit("o.score > self.score", "o.score < self.score or self.best is None")
    code, out, gate = repository.test("-k", "recorded")
    assert (code, gate["outcome"], gate["level"]) == (1, "fail", "statistical"), out
    assert "first divergence: table=mlp-digits seed=0 eval=" in out
    assert "result: FAIL (1 of 1)" in out


@pytest.mark.slow
def test_wasted_evaluations_fail(repository):
    """Half of all asks repeat what is known: the strategy is sound, and only slower."""
    repository.edit(
        "        if self.best is None or",
        "        if self.best is not None and self.rng.random() < 0.5:\n"
        "            return self.best\n"
        "        if self.best is None or",
    )
    code, out, gate = repository.test()
    assert (code, gate["outcome"], gate["level"]) == (1, "fail", "statistical"), out
    late = next(m for m in gate["metrics"] if m["metric"] == "late_area")
    assert late["got"] > late["expected"]
    assert "1 failed, 18 passed" in out


@pytest.mark.slow
def test_a_global_generator_breaks_the_contract(repository):
    repository.edit("self.rng.random() < self.restart", "np.random.random() < self.restart")
    code, out, gate = repository.test()
    assert code == 1
    assert "[Climb-global_generators_are_left_alone]" in out
    assert "the global generator of numpy.random was used" in out
    assert "[Climb-same_seed_same_trace]" in out
    assert gate["level"] == "statistical", "no trace can be as recorded"


@pytest.mark.slow
def test_a_crash_shows_the_strategy_s_own_frames(repository):
    repository.edit(
        "            if o.proposal",
        '            if len(self.asked) > 20:\n                raise IndexError("nobody left")\n'
        "            if o.proposal",
    )
    code, out, gate = repository.test("-k", "recorded")
    assert (code, gate["outcome"]) == (1, "crash")
    assert "gate: crash: climbing.strategy:Climb on mlp-digits, seed 0" in out
    assert "IndexError: nobody left" in out
    assert "site-packages/nasbed" not in out


@pytest.mark.slow
def test_the_recipes_for_speed_run(repository):
    pytest.importorskip("pytest_benchmark")
    code, out, gate = repository.test("speed", "-s")
    assert (code, gate) == (0, {}), out
    assert "times random search" in out
