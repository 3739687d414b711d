"""The page of search spaces is what its script writes, and every space trains."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from nasbed.methods import registry

DOCS = Path(__file__).parents[1] / "docs"


def pages():
    spec = importlib.util.spec_from_file_location("make_spaces", DOCS / "make_spaces.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_the_page_and_its_pictures_are_what_the_script_writes():
    written = pages()
    for path, text in written.items():
        assert (DOCS / path).read_text(encoding="utf-8") == text, f"{path}: run python docs/make_spaces.py"
    assert {p.name for p in (DOCS / "spaces").iterdir()} == {Path(p).name for p in written} - {"spaces.md"}


def test_every_space_has_a_section_a_picture_a_size_and_a_source():
    page = (DOCS / "spaces.md").read_text(encoding="utf-8")
    for name in registry.names("spaces"):
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"](spaces/{name}.svg)" in section
        assert re.search(r"\| members \| [\d,.e+]+", section)
        assert re.search(r"(19|20)\d\d|Ciranni", section.partition("![")[0]), f"{name}: no source"
