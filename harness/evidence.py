"""What an audit looks at: a table's test values, by way of the seal, and the scores that estimators gave."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from pathlib import Path

import numpy as np

from ..methods import registry
from ..protocols import Architecture, IndexedSpace, MissingEntry, Pipeline, Traits
from ..protocols.evidence import Scores, Truth
from ..tabular import MappedTable
from ..tabular.estimates import EstimateTable, embedded_estimates, open_estimates
from ..tabular.facts import costs
from . import seal
from .plan import NotComparable

__all__ = ["PipelinesTruth", "baselines", "distinct", "estimates", "pipelines_truth", "truth"]

BASELINES = ("params", "flops")
"""Features that stand in every audit as if they were estimators."""

AXES: Mapping[str, tuple[str, str]] = {
    "fewer_epochs": ("epochs", "epochs"),
    "data_subset": ("data", "share"),
    "resolution": ("resolution", "share"),
    "width": ("width", "share"),
    "depth": ("depth", "share"),
}
"""Estimators that are trainings at a lower fidelity: the axis, and the parameter that says where on it."""


@dataclass(frozen=True, slots=True)
class PipelinesTruth:
    """What the architectures of a table are worth under each of its pipelines: A architectures, P pipelines, S seeds.

    Attributes:
        table: Name.
        metric: Of the task.
        higher_is_better: Its direction.
        pipelines: (P,) names, in the table's order.
        default: The one among them that the table is used with unless another is asked for.
        seeds: (S,) numbers of the training seeds.
        architectures: (A,) in the space's notation: those with a finite value for every pipeline and seed.
        values: (A, P, S) test metric after the last epoch, accuracies as fractions.
        costs: (P,) of a median full training in `clock`.
        clock: Their unit.
        examples: Test examples behind an accuracy; None for other metrics, and where the table does not say.
        left_out: All other architectures: a training is missing, or diverged.
    """

    table: str
    metric: str
    higher_is_better: bool
    pipelines: tuple[str, ...]
    default: str
    seeds: tuple[int, ...]
    architectures: tuple[str, ...]
    values: np.ndarray
    costs: np.ndarray
    clock: str
    examples: int | None
    left_out: tuple[str, ...]


def truth(table: MappedTable, pipeline: str | None = None) -> Truth:
    """Test values, costs and features of every architecture of a table.

    A row is a member of the space where the table is complete, members that share a row of the table having one each;
    members that the table has no row for are left out, and `complete` is False then. Of a sample a row is what the
    table lists. Features are the table's arrays, and what the space counts besides; left out are those that are not
    known of every architecture, and `macs` beside `flops`, which are twice as many.

    Args:
        table: Complete or a sample.
        pipeline: Its name; None for the table's own.

    Raises:
        ValueError: The table has no such pipeline.
    """
    name = pipeline or _default(table)
    if name not in table.pipelines:
        raise ValueError(registry.unknown("pipeline", name, tuple(table.pipelines)))
    members = _members(table)
    return Truth(
        table=table.name,
        digest=table.digest,
        space=table.space.name,
        pipeline=name,
        metric=table.task.metric,
        higher_is_better=table.task.higher_is_better,
        clock=table.clock,
        complete=table.coverage == "complete" and len(members) == table.space.size,
        size=table.space.size or 0,
        architectures=tuple(table.space.text(a) for a in members),
        values=seal.truth_values(table, name),
        seeds=table.seeds,
        cost=costs(table, name),
        features=_features(table, members),
    )


def pipelines_truth(table: MappedTable, chosen: tuple[str, ...] | None = None) -> PipelinesTruth:
    """Test values under several pipelines, of the architectures that have every seed under each.

    Args:
        table: With two pipelines or more.
        chosen: Names of those to look at; None for all.

    Raises:
        ValueError: Fewer than two pipelines, one that the table lacks, or no architecture that has every training.
    """
    names = tuple(table.pipelines) if chosen is None else chosen
    for name in names:
        if name not in table.pipelines:
            raise ValueError(registry.unknown("pipelines", name, tuple(table.pipelines)))
    if len(set(names)) < max(2, len(names)):
        raise ValueError(f"pipelines: two different ones of {table.name!r} are needed, there is {', '.join(names)}")
    values = np.stack([seal.truth_values(table, p) for p in names], 1)
    whole = np.isfinite(values).all((1, 2))
    if not whole.any():
        raise ValueError(f"table: no architecture of {table.name!r} has every seed under all pipelines")
    texts = [table.space.text(a) for a in _members(table)]
    counted = table.task.metric == "accuracy"
    return PipelinesTruth(
        table=table.name,
        metric=table.task.metric,
        higher_is_better=table.task.higher_is_better,
        pipelines=names,
        default=_default(table) if _default(table) in names else names[0],
        seeds=table.seeds,
        architectures=tuple(t for t, there in zip(texts, whole, strict=True) if there),
        values=values[whole],
        costs=np.array([table.median_cost(p) for p in names]),
        clock=table.clock,
        examples=table.manifest["examples"].get("test") if counted else None,
        left_out=tuple(t for t, there in zip(texts, whole, strict=True) if not there),
    )


def baselines(truth: Truth) -> list[Scores]:
    """Parameters and FLOPs as estimators that cost nothing; those of them that are known."""
    n = len(truth.architectures)
    return [
        Scores(
            name=name,
            source="features of the table",
            traits=Traits(accuracy_scale=False, deterministic=True),
            values=np.array(truth.features[name], np.float64)[:, None],
            asked=np.ones(n, bool),
            fitted=np.zeros((n, 1), bool),
            reasons={},
            costs=np.zeros((n, 1)),
            preparation=np.zeros(1),
            unit=truth.clock,
            full=float(np.nanmedian(truth.cost)),
            baseline=True,
        )
        for name in BASELINES
        if name in truth.features
    ]


def estimates(truth: Truth, table: MappedTable, names: Iterable[str]) -> list[Scores]:
    """Scores from estimate tables, in the order of their names, each once.

    Parameter counts and FLOPs are left out where `baselines` has them.

    Args:
        truth: Of the table.
        table: What the estimates must have been made of.
        names: Of estimates that come with the package (`fewer_epochs-1`, or by label `fewer_epochs[epochs=1]`), `all`
            of these, or folders written by `nasbed estimate`.

    Raises:
        ValueError: Nothing of that name, or two of one label; one line.
        NotComparable: Estimates of another table, or under another pipeline.
    """
    found = [_scores(truth, table, e) for e in _opened(table, names)]
    return distinct([s for s in found if s.name not in BASELINES or s.name not in truth.features])


def distinct(scores: Sequence[Scores]) -> list[Scores]:
    """The same scores; ValueError where two have one name, by which an audit tells them apart."""
    seen: dict[str, Scores] = {}
    for s in scores:
        if s.name in seen:
            raise ValueError(f"estimates: {s.name!r} is there twice, from {seen[s.name].source} and from {s.source}")
        seen[s.name] = s
    return list(scores)


def _default(table: MappedTable) -> str:
    return str(table.manifest.get("default_pipeline", next(iter(table.pipelines))))


def _members(table: MappedTable) -> list[Architecture]:
    """The architectures of `table.members()`: of merged rows not the representatives, but who stands for them."""
    rows = table.members()
    if table.coverage == "sample":
        return [table.architecture(row) for row in rows.tolist()]
    assert isinstance(table.space, IndexedSpace)
    members = [table.space.at(i) for i in range(table.space.size or 0)]
    return members if len(members) == len(rows) else [a for a in members if _has_row(table, a)]


def _has_row(table: MappedTable, a: Architecture) -> bool:
    with suppress(MissingEntry):
        return table.row(a) >= 0
    return False


def _features(table: MappedTable, members: Sequence[Architecture]) -> dict[str, np.ndarray]:
    counted: list[Mapping[str, float]] = [{} for _ in members]
    # A task that does not say what is learned stands for an unknown one: nobody trained the networks it would give.
    if table.task.classes or table.task.kind == "regression":
        with suppress(ValueError):  # the space has no networks for the task
            counted = [table.space.features(a, table.task) for a in members]
    names = dict.fromkeys(name for features in counted for name in features)
    found = {name: np.array([f.get(name, nan) for f in counted]) for name in names}
    for stem in table.manifest["files"]:
        kind, _, name = stem.removesuffix(".npy").partition(".")
        if kind == "feature":
            found[name] = np.array(table.array(f"feature.{name}")[table.members()], np.float64)
    if "flops" in found:
        found.pop("macs", None)
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def _opened(table: MappedTable, names: Iterable[str]) -> list[EstimateTable]:
    known = {name.partition("/")[2]: name for name in embedded_estimates(table.name)}
    chosen: dict[str, None] = {}
    for name in names:
        if name == "all":
            chosen |= dict.fromkeys(known.values())
        elif name in known:
            chosen[known[name]] = None
        elif (Path(name) / "manifest.json").is_file():
            chosen[name] = None
        else:
            labels = {_label(open_estimates(there)): there for there in known.values()}
            if name not in labels:
                raise ValueError(_unknown(table, name, (*known, "all")))
            chosen[labels[name]] = None
    return [open_estimates(name) for name in chosen]


def _unknown(table: MappedTable, name: str, known: tuple[str, ...]) -> str:
    there = name.partition("[")[0] in registry.names("estimators")
    made = f'"{name}"' if there else "NAME"
    command = f"nasbed estimate --estimator {made} --table {table.name}"
    return f"{registry.unknown('estimates', name, known)}; others are made by `{command}`, and named by their folder"


def _label(e: EstimateTable) -> str:
    params = ";".join(f"{k}={v}" for k, v in e.manifest["estimator"]["params"].items())
    return f"{e.name}[{params}]" if params else e.name


def _scores(truth: Truth, table: MappedTable, e: EstimateTable) -> Scores:
    pipeline = table.pipelines[truth.pipeline]
    _require_same(table, pipeline, e)
    place = _places(truth, e)
    ours, theirs = place[place >= 0], np.flatnonzero(place >= 0)
    shape = len(truth.architectures), len(e.seeds)
    values, spent, asked = np.full(shape, nan), np.full(shape, nan), np.zeros(shape[0], bool)
    values[ours], spent[ours], asked[ours] = e.scores[theirs], e.costs[theirs], True
    failed = np.argwhere(np.isnan(e.scores) & (place >= 0)[:, None]).tolist()
    return Scores(
        name=_label(e),
        source=e.digest,
        traits=e.traits,
        values=values,
        asked=asked,
        fitted=_fitted(truth, table, e),
        reasons=dict(Counter(e.reason(row, column) for row, column in failed)),
        costs=spent,
        preparation=np.array([sum(c.amount for c in charges) for charges in e.preparation], np.float64),
        unit=e.unit,
        full=_full(table, pipeline, e.unit),
        axis=_axis(e, pipeline),
        seeds=e.seeds,
    )


def _require_same(table: MappedTable, pipeline: Pipeline, e: EstimateTable) -> None:
    """Estimates without a table may be audited with one whose space and data are theirs."""
    made, under = e.manifest["table"], e.manifest["pipeline"]
    ours = made["digest"] == table.digest if made else (
        e.space.name == table.space.name and e.manifest["task"]["digest"] == table.task.digest != ""
    )  # fmt: skip
    what = f"estimates: those of {_label(e)!r} in {e.folder}"
    if not ours:
        theirs = f"table {made['name']!r}, digest {made['digest'][:12]}" if made else f"space {e.space.name!r}"
        raise NotComparable(f"{what} are of the {theirs}, not of {table.name!r}, digest {table.digest[:12]}")
    if under["digest"] != pipeline.digest:
        raise NotComparable(
            f"{what} were made under the pipeline {under['name']!r}, not {pipeline.name!r}; audit under theirs, or "
            f'make others: nasbed estimate --estimator "{_label(e)}" --table {table.name} --pipeline {pipeline.name}'
        )


def _places(truth: Truth, e: EstimateTable) -> np.ndarray:
    """The row of the truth of every row of the estimates, -1 where it has none."""
    if e.manifest["architectures"] is None and truth.complete:
        return np.arange(len(truth.architectures))
    place = {text: i for i, text in enumerate(truth.architectures)}
    return np.array([place.get(e.space.text(a), -1) for a in e.architectures()], np.int64)


def _fitted(truth: Truth, table: MappedTable, e: EstimateTable) -> np.ndarray:
    """Who shares a row of the table with an architecture that served to fit has the same label, so it is known too."""
    place = {text: i for i, text in enumerate(truth.architectures)}
    rows = table.members()
    fits = [[rows[place[t]] for t in texts if t in place] for texts in e.manifest["trained_on"]]
    return np.stack([np.isin(rows, fit) for fit in fits], 1)


def _full(table: MappedTable, pipeline: Pipeline, unit: str) -> float:
    """Cost of a median full training in a unit; NaN where the table does not know it."""
    if unit == table.clock:
        return table.median_cost(pipeline.name)
    return {"epochs": float(pipeline.epochs), "evaluations": 1.0}.get(unit, nan)


def _axis(e: EstimateTable, pipeline: Pipeline) -> tuple[str, float] | None:
    if e.name not in AXES:
        return None
    axis, parameter = AXES[e.name]
    value = e.manifest["estimator"]["params"].get(parameter)
    if value is None:
        value = inspect.signature(registry.load("estimators", e.name)).parameters[parameter].default
    if value is None:  # of `fewer_epochs`: a quarter of all, rounded up
        value = -(-pipeline.epochs // 4)
    return axis, float(value)
