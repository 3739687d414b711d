"""The study record holds pictures of the architectures that a report cites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nasbed.harness.compare import carry_out
from nasbed.harness.plan import Plan
from nasbed.harness.store import RunStore
from nasbed.methods import registry
from nasbed.protocols import Architecture
from nasbed.reports.write import write_report


def test_the_best_of_the_table_and_of_each_method(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned(strategies="random,local_search", seeds=3)
    assert carry_out(plan, tmp_path) == []
    store = RunStore(tmp_path / "store", create=False)
    study = store.study()
    best, *found = study["pictures"]
    [table] = plan.tables.values()
    assert (best["table"], best["method"]) == (table.name, None)
    assert best["text"] == study["tables"][table.name]["best_architecture"]
    assert [p["method"] for p in found] == ["random", "local_search"]
    for picture in found:
        finals = {r.key: store.load(r.key).incumbents[-1] for r in plan.runs if r.strategy == picture["method"]}
        assert picture["score"] == max(i.score for i in finals.values()) == finals[picture["key"]].score
        assert picture["text"] == table.space.text(finals[picture["key"]].architecture)
        assert picture["svg"] == table.space.draw(finals[picture["key"]].architecture)
    page = write_report(tmp_path / "store", tmp_path).read_text(encoding="utf-8")
    for i, picture in enumerate(study["pictures"]):
        assert picture["svg"] in page
        assert (tmp_path / "figures" / f"architecture_{i}.svg").read_text(encoding="utf-8") == picture["svg"]


def test_weight_sharing_has_pictures_without_scores(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned(strategies="sharing:SharedLinear,random", seeds=1)
    assert carry_out(plan, tmp_path) == []
    pictures = RunStore(tmp_path / "store", create=False).study()["pictures"]
    assert [(p["method"], p["score"] is None) for p in pictures[1:]] == [
        ("sharing:SharedLinear", True),
        ("random", False),
    ]


def test_a_drawing_is_read_back_from_the_genes() -> None:
    space = registry.space("darts")
    a = Architecture.parse("darts:" + ".".join(["0", "3", "4"] * 8))
    assert "sep_conv_3x3" in space.draw(a)
