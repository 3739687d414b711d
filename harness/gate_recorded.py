"""What a baseline of strategies says, and whether it can be compared with what is here now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..methods import registry
from ..protocols import Json
from .gate_baseline import Baseline
from .gate_looks import Samples
from .gate_traces import METRICS, facts_of
from .plan import NotComparable, Plan
from .study import Method

KIND = "strategies"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A baseline of strategies, its lines by strategy, table and seed."""

    file: Baseline
    methods: tuple[Method, ...]
    tables: Mapping[str, Mapping[str, Json]]
    seeds: tuple[int, ...]
    lines: Mapping[tuple[str, str, int], Mapping[str, Json]]

    @classmethod
    def of(cls, file: Baseline) -> Recorded:
        """Read a file as one.

        Raises:
            ValueError: It is a baseline of something else.
            NotComparable: Its runs were judged by other metrics.
            CorruptRecord: Lines are missing, or out of place.
        """
        header = file.header
        if header.get("kind") != KIND:
            raise ValueError(f"baseline: {file.path} is one of {header.get('kind')}, not of strategies")
        if header["metrics"] != list(METRICS):
            raise NotComparable(
                f"baseline: {file.path} has the metrics {', '.join(header['metrics'])}, this version has "
                f"{', '.join(METRICS)}; record a new one"
            )
        methods = tuple(Method(m["label"], m["name"], m["params"]) for m in header["strategies"])
        tables = {t["name"]: {k: v for k, v in t.items() if k != "name"} for t in header["tables"]}
        seeds, lines = tuple(header["seeds"]), {}
        keys = [(m.label, t, s) for t in tables for m in methods for s in seeds]
        for i, line in enumerate(file.lines):
            key = line.get("strategy"), line.get("table"), line.get("seed")
            if i >= len(keys) or key != keys[i]:
                raise file.corrupt(i, f"is about {key}, which does not belong there")
            lines[keys[i]] = line
        if len(lines) < len(keys):
            raise file.corrupt(len(lines) - 1, f"is the last one, and {len(keys) - len(lines)} runs are missing")
        return cls(file, methods, tables, seeds, lines)

    def samples(self, label: str) -> Samples:
        """The metrics of all recorded runs of a strategy."""
        return {m: [np.array([self.lines[label, t, s][m] for s in self.seeds]) for t in self.tables] for m in METRICS}


def header_of(planned: Plan, given: Sequence[str], budget: str | None) -> dict[str, Json]:
    """The header of a new baseline; `given` are the tables and `budget` is the budget as the user wrote them."""
    resolved = {r.strategy: r.spec["strategy"] for r in planned.runs}
    return {
        "kind": KIND,
        "metrics": list(METRICS),
        "strategies": [
            {"label": label, **{k: described[k] for k in ("name", "params", "code", "libraries")}}
            for label, described in resolved.items()
        ],
        "seeds": list(planned.study.seeds),
        "budget": budget,
        "given": list(given),
        "tables": [{"name": name, **facts} for name, facts in facts_of(planned).items()],
    }  # fmt: skip


def opponent(strategy: str | type, recorded: Recorded, against: str | None) -> Method:
    """The recorded strategy that one is held against.

    Raises:
        ValueError: `against` is not recorded, or there are several that it may be.
    """
    labels = {m.label: m for m in recorded.methods}
    if against is not None:
        if against not in labels:
            raise ValueError(registry.unknown("against", against, tuple(labels)))
        return labels[against]
    if isinstance(strategy, str):
        name = Method.read(strategy, "strategy").name
        fitting = [m for m in recorded.methods if m.label == strategy]
        fitting = fitting or [m for m in recorded.methods if m.name == name]
    else:
        fitting = [m for m in recorded.methods if stands_for(m, strategy)]
    fitting = fitting or list(recorded.methods)
    if len(fitting) > 1:
        raise ValueError(f"against: the baseline has {', '.join(labels)}; name the one that {strategy} is held against")
    return fitting[0]


def stands_for(m: Method, strategy: type) -> bool:
    """Whether a recorded name is that of a class."""
    if m.name == name_of(strategy):
        return True
    try:
        return registry.load("strategies", m.name) is strategy
    except (ValueError, ImportError):  # not here, or it needs a library that is not: then it is another one
        return False


def name_of(strategy: type) -> str:
    """What the command line calls a class."""
    return f"{strategy.__module__}:{strategy.__qualname__}"


def require_same(recorded: Recorded, planned: Plan) -> None:
    """What scores mean must not have changed: no test could tell that from a change of the strategy.

    Raises:
        NotComparable: A table, or the budget or a metric on it, is another one.
    """
    then, now = recorded.tables, facts_of(planned)
    if list(then) != list(now):
        raise NotComparable(f"baseline: it was recorded on {', '.join(then)}, here are {', '.join(now)}")
    for table, facts in then.items():
        for field, value in facts.items():
            if now[table][field] != value:
                raise NotComparable(
                    f"baseline: the {field} of the table {table!r} is {_shown(now[table][field])}, and was "
                    f"{_shown(value)} when {recorded.file.path} was recorded; record a new one"
                )


def _shown(value: Json) -> str:
    if isinstance(value, dict):
        return " ".join(_shown(v) for v in value.values())
    return value[:12] if isinstance(value, str) else str(value)
