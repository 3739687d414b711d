"""What the checklist looks at: of each run record what it needs, and of the study everything.

Records are large and many, so that each is read once and only a few facts of it are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import isnan, nan
from typing import Any, Literal

from ..protocols import FULL, Architecture, Fidelity, Json, RunRecord
from .frame import Store
from .results import Comparison

TRAINED = ("table", "full")
"""Estimators whose score is the validation metric after a training; every other one stands in for it."""

Status = Literal["pass", "fail", "needs-human", "not-applicable"]
Found = tuple[Status, str, str]
"""What a rule answers: status, reason, evidence."""

Rule = Literal["best", "other", "own"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is kept of a run record.

    Attributes:
        spec: Of the run.
        costs: Charged by kind, in the budget's unit; the retraining of the final incumbent is `retrain`.
        rule: How the incumbents came about: `best` if they are the best score at the highest fidelity so far, the
            earlier one at ties, worked out again from the calls; `own` if the strategy names them, without a score;
            `other` for anything else.
        paid: Whether a full training of the final incumbent was charged.
        sealed: Whether there is one test value for each incumbent on a table, and without one none but those of the
            retrained final incumbent.
        tests: Test values of the retrained final incumbent.
        unusable: Evaluations that failed.
        patched: Those of them that have a score all the same.
        ties: Share of the distinct architectures whose score another one has too; NaN where scores are trainings.
    """

    spec: Mapping[str, Json]
    costs: Mapping[str, float]
    rule: Rule
    paid: bool
    sealed: bool
    tests: int
    unusable: int
    patched: int
    ties: float


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its labels, and the facts of its record."""

    key: str
    strategy: str
    estimator: str
    place: str
    seed: int
    facts: Facts

    @property
    def spec(self) -> Mapping[str, Json]:
        """Of the run."""
        return self.facts.spec

    @property
    def proxy(self) -> bool:
        """Whether its scores stand in for trainings; of a strategy that names its incumbents there are none."""
        return self.facts.rule != "own" and self.spec["estimator"]["name"] not in TRAINED

    @property
    def scored_by(self) -> str:
        """Its estimator by the name that audits use: `name`, or `name[key=value;key=value]`."""
        estimator = self.spec["estimator"]
        params = ";".join(f"{k}={v}" for k, v in sorted(estimator["params"].items()))
        return f"{estimator['name']}[{params}]" if params else str(estimator["name"])


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the practices are decided by.

    Attributes:
        study: The study record.
        runs: Finished runs, by place, method in the order of the study, and seed.
        comparison: Of these runs; None if they cannot be compared.
        timed: Runs with measured time.
        audits: Path of each `audit.json` to its content.
    """

    study: Mapping[str, Json]
    runs: tuple[Run, ...]
    comparison: Comparison | None
    timed: int
    audits: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)

    @property
    def tables(self) -> Mapping[str, Mapping[str, Json]]:
        """Facts of the tables; empty for real training."""
        found: Mapping[str, Mapping[str, Json]] = self.study.get("tables") or {}
        return found

    @property
    def places(self) -> tuple[str, ...]:
        """Tables, or the data set."""
        return tuple(dict.fromkeys(r.place for r in self.runs))

    def method(self, run: Run) -> str:
        """A run's row in the report: the estimator is part of its name where there are several."""
        several = len({r.estimator for r in self.runs}) > 1
        return f"{run.strategy} + {run.estimator}" if several else run.strategy

    def methods(self, wanted: Callable[[Run], bool] = lambda run: True) -> list[str]:
        """Rows of the report with a run of a kind."""
        return list(dict.fromkeys(self.method(r) for r in self.runs if wanted(r)))

    def named(self, run: Run) -> str:
        """A run in a sentence."""
        return f"{self.method(run)}, seed {run.seed}"

    def shown(self, anchor: str) -> str:
        """A section of the report, or where there is none, the runs."""
        return f"report.html#{anchor}" if self.comparison else "runs"

    def rows(self) -> dict[tuple[str, str], list[Run]]:
        """The runs of each method on each place."""
        found: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs:
            found.setdefault((self.method(run), run.place), []).append(run)
        return found


class Noted:
    """A run store that notes the facts of each record as it is read for other ends."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._facts: dict[str, Facts] = {}

    def study(self) -> dict[str, Json]:
        """See `frame.Store`."""
        return self._store.study()

    def finished(self) -> set[str]:
        """See `frame.Store`."""
        return self._store.finished()

    def timing(self, key: str) -> dict[str, Json] | None:
        """See `frame.Store`."""
        return self._store.timing(key)

    def load(self, key: str) -> RunRecord:
        """See `frame.Store`."""
        record = self._store.load(key)
        self._facts[key] = facts_of(record)
        return record

    def facts(self, key: str) -> Facts:
        """The facts of a finished run."""
        if key not in self._facts:
            self.load(key)
        return self._facts[key]


def gather(store: Noted, comparison: Comparison | None, audits: Mapping[str, Mapping[str, Json]]) -> Evidence:
    """Read what is there.

    Raises:
        ValueError: The study lists no finished run.
    """
    study = store.study()
    done = store.finished()
    entries = [e for e in study.get("runs", ()) if e["key"] in done]
    if not entries:
        raise ValueError("study.json lists no finished run, so there is nothing to check")
    strategies = [s["label"] for s in study["spec"].get("strategies", ())]
    estimators = [s["label"] for s in study["spec"].get("estimators", ())]
    runs = [
        Run(e["key"], e["strategy"], e["estimator"], _place(facts.spec), int(e["seed"]), facts)
        for e in entries
        for facts in [store.facts(e["key"])]
    ]
    tables = list(study["spec"].get("tables", ()))
    runs.sort(
        key=lambda r: (
            _rank(tables, r.place), _rank(estimators, r.estimator), _rank(strategies, r.strategy), r.seed, r.key
        )
    )  # fmt: skip
    timed = sum(store.timing(r.key) is not None for r in runs)
    return Evidence(study, tuple(runs), comparison, timed, audits)


def facts_of(record: RunRecord) -> Facts:
    """What the checklist needs of a record."""
    observations = [o for call in record.calls for o in call.observations]
    costs: dict[str, float] = {}
    charges = [record.preparation, *(c.costs for c in record.calls), *(o.costs for o in observations)]
    for cost in chain.from_iterable(charges):
        costs[cost.kind] = costs.get(cost.kind, 0.0) + cost.amount
    retrained = record.sealed.get("retrained")
    if retrained:
        costs["retrain"] = costs.get("retrain", 0.0) + float(retrained["cost"])
    trained = record.spec["estimator"]["name"] in TRAINED
    expected, fidelity = _incumbents(record)
    same = [(i.evaluation, i.architecture, i.score) for i in record.incumbents] == expected
    rule: Rule = "own" if not observations else "best" if same else "other"
    full = not record.incumbents or (trained and rule == "best" and fidelity == FULL)
    tests = [i.get("test") is not None for i in record.sealed.get("incumbents", ())]
    right = all(tests) if record.spec["table"] else not any(tests)
    failed = [o for o in observations if o.status != "ok"]
    scores = {} if trained else {o.proposal.architecture: o.score for o in observations if o.status == "ok"}
    return Facts(
        spec=record.spec,
        costs=costs,
        rule=rule,
        paid=costs.get("retrain", 0.0) > 0 or full,
        sealed=right and len(tests) == len(record.incumbents),
        tests=len(retrained["test"]) if retrained else 0,
        unusable=len(failed),
        patched=sum(not isnan(o.score) for o in failed),
        ties=_ties(scores),
    )


def _incumbents(record: RunRecord) -> tuple[list[tuple[int, Architecture, float]], Fidelity | None]:
    """The incumbents that follow from the scores seen, and the fidelity of the last one."""
    found: list[tuple[int, Architecture, float]] = []
    highest: Fidelity | None = None
    index = -1
    for call in record.calls:
        for o in call.observations:
            index += 1
            fidelity = o.proposal.fidelity
            if o.status != "ok" or isnan(o.score) or (highest is not None and fidelity < highest):
                continue
            if highest is None or fidelity > highest or o.score > found[-1][2]:
                highest = fidelity
                found.append((index, o.proposal.architecture, o.score))
    return found, highest


def _ties(scores: Mapping[Architecture, float]) -> float:
    counts = Counter(scores.values())
    return sum(n for n in counts.values() if n > 1) / len(scores) if scores else nan


def difference(runs: Sequence[Run], fields: Sequence[str]) -> tuple[str, Run] | None:
    """The first field in which a run's spec differs from that of the first run on the same place, and the run."""
    firsts: dict[str, Run] = {}
    for run in runs:
        first = firsts.setdefault(run.place, run)
        for name in fields:
            if run.spec.get(name) != first.spec.get(name):
                return name, run
    return None


def listed(names: Iterable[Any]) -> str:
    """`a, b and c`; of many, the first three and how many more."""
    given = [str(n) for n in names]
    if len(given) > 4:
        return f"{', '.join(given[:3])} and {len(given) - 3} more"
    return " and ".join(filter(None, (", ".join(given[:-1]), *given[-1:])))


def short(digest: str) -> str:
    """The beginning of a digest."""
    return digest[:12]


def _place(spec: Mapping[str, Json]) -> str:
    return str((spec["table"] or spec["data"])["name"])


def _rank(order: list[str], name: str) -> tuple[int, str]:
    return order.index(name) if name in order else len(order), name
