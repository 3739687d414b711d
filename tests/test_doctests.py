"""The examples in docstrings, run under the import names that users have."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("protocols", "methods", "tabular", "harness", "reports")


def modules_with_examples() -> list[str]:
    """Found by text, so that nothing is imported in vain."""
    paths = (p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py")))
    found = [p.relative_to(ROOT).with_suffix("") for p in paths if ">>> " in p.read_text(encoding="utf-8")]
    return ["nasbed." + ".".join(p.parts).removesuffix(".__init__") for p in found]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name):
    module = importlib.import_module(name)
    runner, failures = doctest.DocTestRunner(verbose=False), []
    tests = [t for t in doctest.DocTestFinder().find(module) if t.examples]
    assert tests, f"{name} shows examples that doctest does not find"
    for test in tests:
        runner.run(test, out=failures.append)
    assert not failures, "".join(failures)


def test_there_are_examples():
    found = modules_with_examples()
    assert {"nasbed.protocols.architecture", "nasbed.tabular.table", "nasbed.methods.registry"} <= set(found)
