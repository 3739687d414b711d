"""Pictures of the architectures that a report cites, for the study record: reports see neither spaces nor tables."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import TYPE_CHECKING

from ..methods import registry
from ..protocols import Architecture, Incumbent, Json, SearchSpace
from .store import RunStore

if TYPE_CHECKING:
    from .plan import Plan


def pictures(plan: Plan, store: RunStore, best: Mapping[str, str]) -> list[dict[str, Json]]:
    """The best architecture of each table, then the final incumbent of highest score of each method on it.

    Args:
        plan: What was run.
        store: Holds the finished runs.
        best: By table, the text of the architecture of highest test metric.

    Returns:
        `table` (None without one), `method` (None for the table's best), `text`, `svg`; the method's also have
        `key` and `seed` of their run, and `score` (None for weight sharing, which sees none). Spaces that cannot
        draw have none.
    """
    finished = store.finished()
    found: list[dict[str, Json]] = []
    for name in plan.tables or (None,):
        runs = [r for r in plan.runs if r.table == name and r.key in finished]
        if not runs:
            continue
        space = plan.tables[name].space if name else registry.space(runs[0].spec["space"])
        if name:
            found.append({"table": name, "method": None, **_picture(space, space.parse(best[name]))})
        winners: dict[tuple[str, str], tuple[Incumbent, dict[str, Json]]] = {}
        for run in runs:
            incumbents = store.load(run.key).incumbents
            method = (run.strategy, run.estimator)
            if incumbents and (method not in winners or incumbents[-1].score > winners[method][0].score):
                winners[method] = incumbents[-1], {"key": run.key, "seed": run.seed, "score": _score(incumbents[-1])}
        for (strategy, estimator), (incumbent, facts) in winners.items():
            label = {"table": name, "method": strategy, "estimator": estimator}
            found.append({**label, **facts, **_picture(space, incumbent.architecture)})
    return [picture for picture in found if picture["svg"]]


def _score(incumbent: Incumbent) -> float | None:
    return None if isnan(incumbent.score) else incumbent.score


def _picture(space: SearchSpace, a: Architecture) -> dict[str, Json]:
    return {"text": space.text(a), "svg": str(space.draw(a)) if hasattr(space, "draw") else ""}
