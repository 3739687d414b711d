"""Who may import whom: the five folders are layers, and heavy libraries are loaded only where they are needed."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nasbed.methods import registry

FOLDERS = ("protocols", "methods", "tabular", "harness", "reports")
MAY_IMPORT = {
    "protocols": {"protocols"},
    "methods": {"protocols", "methods"},
    "tabular": {"protocols", "methods", "tabular"},
    "harness": {"protocols", "methods", "tabular", "harness", "reports"},
    "reports": {"protocols", "harness", "reports"},
}
READABLE = {f"harness.{name}" for name in ("store", "records", "events", "faults", "files")}
"""All that reports see of the harness: what reads the run store."""
FACES = ("harness.cli", "harness.gate", "harness.pytest_plugin", "harness.compare")
"""Beginnings of the modules that may import reports, inside functions."""
HEAVY = {"torch", "torchvision", "mlflow", "pandas", "scipy", "sklearn", "matplotlib", "seaborn", "optuna", "jinja2"}
LIGHT = [
    "nasbed.protocols",
    "nasbed.tabular",
    "nasbed.reports.statistics",
    "nasbed.harness.checks",
    "nasbed.harness.cli",
]


@dataclass(frozen=True)
class Import:
    """One imported name, `harness.store` for ours and `torch` for a foreign one, and where it stands."""

    module: str
    name: str
    line: int
    lazy: bool
    typing: bool = False

    @property
    def loads(self) -> bool:
        """Whether importing the module runs it."""
        return not self.lazy and not self.typing

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}, imports {self.name}"


def imports_of(module: str, source: str, package: bool, known: frozenset[str]) -> Iterator[Import]:
    """Every import of a module, also within functions.

    Args:
        module: Its name under `nasbed`, `harness.store`.
        source: Its text.
        package: Whether it is an `__init__.py`.
        known: Names of all modules, which tell `from ..methods import registry` (a module) from a name within.
    """

    def visit(node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, lazy, typing)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + package]
                base = ".".join([*kept, *filter(None, [node.module])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield Import(module, whole if whole in known else base, node.lineno, lazy, typing)
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        is_typing = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy or is_function, typing or is_typing)

    yield from visit(ast.parse(source), False, False)


def faults(found: Import, source: str) -> Iterator[str]:
    """What is wrong with an import."""
    folder, target = found.module.split(".")[0], found.name.split(".")[0]
    if target == "nasbed":
        yield f"{found}: use a relative import"
    if target in FOLDERS and target not in MAY_IMPORT[folder]:
        yield f"{found}: {folder} may import {', '.join(sorted(MAY_IMPORT[folder]))}"
    if folder == "reports" and target == "harness" and found.name not in READABLE:
        yield f"{found}: of the harness, reports see {', '.join(sorted(READABLE))}"
    if (
        folder == "harness"
        and target == "reports"
        and not ((found.lazy or found.typing) and found.module.startswith(FACES))
    ):
        yield f"{found}: only {', '.join(FACES)} import reports, inside functions"
    if folder == "harness" and target == "methods" and found.name != "methods.registry":
        yield f"{found}: methods are reached by registry name"
    # protocols.training imports torch, so that importing it is importing torch.
    training = found.name.startswith("protocols.training") and not found.module.startswith("protocols.training")
    if found.loads and (target == "torch" or training) and not may_load_torch(found.module, source):
        yield f"{found}: torch is imported inside the functions that need it"
    if found.loads and target in HEAVY - {"torch"} and folder != "reports":
        yield f"{found}: {target} is imported inside the functions that need it"


def may_load_torch(module: str, source: str) -> bool:
    """The training protocols, parts of networks, and methods that say so in `libraries`.

    Spaces import it within `build`; the check that compares networks stands in a file that is imported by that check.
    """
    if module.startswith(("protocols.training", "methods.networks", "harness.checks_sameness")):
        return True
    role, _, name = module.removeprefix("methods.").partition(".")
    return role in ("strategies", "estimators") and ('"torch"' in source or says_torch(role, name))


def says_torch(role: Any, name: str) -> bool:
    """Whether a method declares torch among its libraries, itself or by what it inherits."""
    return name in registry.names(role) and "torch" in getattr(registry.load(role, name), "libraries", ())


def modules() -> dict[str, Path]:
    found = {}
    for folder in FOLDERS:
        root = Path(str(importlib.import_module(f"nasbed.{folder}").__file__)).parent
        for path in sorted(root.rglob("*.py")):
            parts = (folder, *path.relative_to(root).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
KNOWN = frozenset(MODULES)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_layers_are_kept(folder: str) -> None:
    wrong, seen = [], 0
    for module, path in MODULES.items():
        if module.split(".")[0] == folder:
            source = path.read_text("utf-8")
            for found in imports_of(module, source, path.name == "__init__.py", KNOWN):
                seen += 1
                wrong += faults(found, source)
    assert wrong == []
    assert seen > 0


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("protocols.table", "from ..methods import registry", "protocols may import protocols"),
        ("methods.estimators.table", "def f():\n    from ...tabular import open_table", "methods may import"),
        ("tabular.format", "from ..harness import seal", "tabular may import"),
        ("tabular.format", "import nasbed.protocols", "use a relative import"),
        ("reports.frame", "from ..harness.runs import run", "of the harness, reports see"),
        ("reports.frame", "from ..harness import seal", "of the harness, reports see"),
        ("reports.frame", "from ..tabular import MappedTable", "reports may import"),
        ("harness.cli", "from ..reports.write import write_report", "inside functions"),
        ("harness.runs", "def f():\n    from ..reports import frame", "inside functions"),
        ("harness.runs", "from ..methods.spaces.mlp import MLP", "by registry name"),
        ("harness.runs", "import torch", "torch is imported inside"),
        ("harness.runs", "try:\n    from torch import nn\nexcept ImportError:\n    pass", "torch is imported inside"),
        ("harness.runs", "from ..protocols.training import load", "torch is imported inside"),
        ("harness.runs", "class A:\n    import pandas as pd", "pandas is imported inside"),
        ("reports.frame", "import torch.nn", "torch is imported inside"),
        ("methods.spaces.mlp", 'import torch\nlibraries = ("torch",)', "torch is imported inside"),
        ("methods.strategies.tpe", "import optuna", "optuna is imported inside"),
        ("methods.strategies.tpe", "import torch", "torch is imported inside"),
    ],
)
def test_a_planted_import_is_found(module: str, source: str, message: str) -> None:
    [fault] = [fault for found in imports_of(module, source, False, KNOWN) for fault in faults(found, source)]
    assert message in fault
    assert fault.startswith(f"{module}, line ")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("harness.cli", "def f():\n    from ..reports.write import write_report\n    import torch"),
        ("harness.runs", "from ..methods import registry\nfrom ..protocols import Cost\nfrom . import seal"),
        ("reports.mlflow_export", "def f():\n    from ..harness.store import RunStore\nimport pandas"),
        ("protocols.space", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("methods.strategies.enas", 'import torch\nfrom ...protocols import Cost\nlibraries = ("torch",)'),
        ("methods.spaces.mlp", "def build():\n    import torch"),
    ],
)
def test_a_right_import_is_not(module: str, source: str) -> None:
    assert [f for found in imports_of(module, source, False, KNOWN) for f in faults(found, source)] == []


@pytest.mark.parametrize("module", LIGHT)
def test_importing_loads_no_heavy_library(module: str) -> None:
    if module.removeprefix("nasbed.") not in KNOWN:
        pytest.skip(f"{module} is not there")
    program = f"import sys, json, {module}; print(json.dumps(sorted({HEAVY!r} & set(sys.modules))))"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []
