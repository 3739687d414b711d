"""The wheel: what it holds, and that it works away from the checkout."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("protocols", "methods", "tabular", "harness", "reports")
LIMIT = 50 * 2**20
DISTRIBUTIONS = {"sklearn": "scikit-learn", "markupsafe": "jinja2"}  # by the name of the import
NEWEST_FEATURE = 77  # setuptools since when `license` is an SPDX expression

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources() -> list[Path]:
    return sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py") if "shards" not in p.parts)


def test_every_folder_with_code_is_a_listed_package():
    folders = {p.parent.relative_to(ROOT) for p in sources()}
    assert {"nasbed." + ".".join(f.parts) for f in folders} == set(PROJECT["tool"]["setuptools"]["packages"])
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {f"nasbed.{room}": room for room in ROOMS}


def test_every_package_has_an_init_and_the_root_has_none():
    for folder in {p.parent for p in sources()}:
        assert (folder / "__init__.py").is_file(), folder
    assert not (ROOT / "__init__.py").exists()
    for room in ROOMS:
        assert (ROOT / room / "py.typed").is_file(), room


def test_every_import_is_of_a_declared_dependency():
    declared = {_name(d) for d in PROJECT["project"]["dependencies"]}
    optional = PROJECT["project"]["optional-dependencies"]
    extras = {_name(d) for extra in ("configspace", "curves", "optuna") for d in optional[extra]}
    used = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            else:
                continue
            # The plugin is imported by pytest alone.
            known = {*sys.stdlib_module_names, *({"pytest"} if path.name == "pytest_plugin.py" else ())}
            for root in {m.partition(".")[0] for m in modules} - known:
                used.setdefault(DISTRIBUTIONS.get(root, root).lower(), path)
    assert "numpy" in used
    assert "nasbed" not in used, f"{used['nasbed']}: inside the rooms imports are relative"
    undeclared = {name: str(path.relative_to(ROOT)) for name, path in used.items() if name not in declared | extras}
    assert not undeclared


def _name(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower()


def test_shipped_tables_are_small():
    files = [p for p in (ROOT / "tabular" / "data").rglob("*") if p.is_file()]
    assert any(p.name == "manifest.json" for p in files)
    assert sum(p.stat().st_size for p in files) < LIMIT


def test_the_changelog_knows_the_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", PROJECT["project"]["version"]]
    with contextlib.suppress(PackageNotFoundError):  # used from the checkout without being installed
        assert version("nasbed") == PROJECT["project"]["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy: a build in the checkout would take in what an earlier one left behind."""
    try:
        found = version("setuptools")
    except PackageNotFoundError:
        pytest.skip("setuptools is not installed")
    if int(found.partition(".")[0]) < NEWEST_FEATURE:
        pytest.skip(f"setuptools {found} is older than {NEWEST_FEATURE}")
    folder = tmp_path_factory.mktemp("build")
    skipped = shutil.ignore_patterns("__pycache__", "shards", "*.part")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / "source" / room, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    (folder / "dist").mkdir()
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder / 'dist')!r})"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=folder / "source", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_all_code_and_data_and_nothing_else(wheel):
    expected = {f"nasbed/{p.relative_to(ROOT)}" for p in sources()}
    expected |= {f"nasbed/{room}/py.typed" for room in ROOMS}
    for room in ROOMS:
        data = (p for p in (ROOT / room / "data").rglob("*") if p.is_file())
        expected |= {f"nasbed/{p.relative_to(ROOT)}" for p in data if "shards" not in p.parts and p.suffix != ".part"}
    with zipfile.ZipFile(wheel) as archive:
        held = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert held == expected


def test_the_metadata_of_the_wheel(unpacked):
    (info,) = unpacked.glob("*.dist-info")
    metadata = Parser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    assert metadata["Name"] == "nasbed"
    assert metadata["Version"] == PROJECT["project"]["version"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["project"]["optional-dependencies"])
    assert "nasbed = nasbed.harness.cli:main" in (info / "entry_points.txt").read_text()
    assert "Version 2.0, January 2004" in (info / "licenses" / "LICENSE").read_text()
    torch = [r for r in metadata.get_all("Requires-Dist") if _name(r) in ("torch", "torchvision")]
    assert not [r for r in torch if "==" in r or "@" in r], "torch is not pinned: the installer picks the build"


ELSEWHERE = """
import json, sys
import methods, reports
from nasbed import protocols
from nasbed.harness.cli import main
from nasbed.tabular import embedded, open_table
table = open_table("mlp-digits", verify=True)
a = table.space.at(0)
entry = table.lookup(a, pipeline="adam", seed=0, fidelity=protocols.FULL)
print(json.dumps({
    "files": [protocols.__file__, str(table.folder)],
    "foreign": [methods.MINE, reports.MINE],
    "embedded": embedded(),
    "size": table.space.size,
    "valid": float(entry.valid[-1]),
    "callable": callable(main),
    "heavy": [m for m in ("torch", "mlflow", "pandas", "scipy", "sklearn") if m in sys.modules],
}))
"""


def test_the_wheel_works_elsewhere_beside_folders_of_the_same_names(unpacked, tmp_path):
    """A user's own `methods` and `reports` are theirs; the embedded table is opened from the wheel."""
    for name in ("methods", "reports"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = True\n")
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "elsewhere.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(Path(f).is_relative_to(unpacked) for f in found["files"]), found["files"]
    assert found["foreign"] == [True, True]
    assert "mlp-digits" in found["embedded"]
    assert found["size"] == 4368
    assert 0.0 < found["valid"] <= 1.0
    assert found["callable"]
    assert found["heavy"] == []
