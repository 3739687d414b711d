"""What the pytest plugin does once a test asks for it; pytest itself is not imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, Literal
from unittest import SkipTest

from ..methods import registry
from . import gate, gate_baseline, gate_text
from .checks import yield_checks
from .checks_sharing import SHARING_CHECKS
from .checks_strategy import STRATEGY_CHECKS
from .faults import CorruptRecord, Violation
from .gate_looks import MetricTest
from .gate_traces import own_traceback
from .plan import NotComparable
from .study import read_seeds, split_outside_brackets

Role = Literal["strategy", "estimator", "space"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one gate: what a baseline is recorded with, how a strategy is judged, and what no decision is."""

    tables: tuple[str, ...]
    seeds: str | int | Sequence[int]
    budget: str | None
    rules: gate.Rules
    inconclusive: Literal["warn", "fail"]


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one call of `nas_gate`.

    Attributes:
        outcome: Of the test; an inconclusive one that is to fail is `fail`.
        text: For a failure, or the reason of a skip or an expected failure.
        facts: Plain data for other processes, the summary and the JSON file.
        verdict: None where nothing could be compared.
    """

    outcome: Literal["pass", "fail", "inconclusive", "recorded"]
    text: str
    facts: Mapping[str, Any]
    verdict: gate.Verdict | None = None


def read_settings(values: Mapping[str, Any], *, allowed: Sequence[str]) -> Settings:
    """Settings from ini texts and the values of a marker.

    Args:
        values: table, seeds, budget, alpha, margin, looks, inconclusive; all of them.
        allowed: Further keywords, which belong to others.

    Raises:
        ValueError: An unknown keyword or a wrong value.
    """
    known = ("table", "seeds", "budget", "alpha", "margin", "looks", "inconclusive")
    for key in values:
        if key not in (*known, *allowed):
            raise ValueError(registry.unknown("the marker nasbed: keyword", key, (*known, *allowed)))
    table, looks, choice = values["table"], values["looks"], values["inconclusive"]
    if choice not in ("warn", "fail"):
        raise ValueError(registry.unknown("inconclusive", str(choice), ("warn", "fail")))
    read_seeds(values["seeds"])
    try:
        numbers = tuple(int(n) for n in (looks.split(",") if isinstance(looks, str) else _several(looks)))
        rules = gate.Rules(float(values["alpha"]), float(values["margin"]), numbers)
    except TypeError as error:
        raise ValueError(f"alpha, margin, looks: {error}") from None
    tables = split_outside_brackets(table) if isinstance(table, str) else map(str, _several(table))
    return Settings(tuple(tables), values["seeds"], values["budget"] or None, rules, choice)


def record(strategy: str | type, path: Path, settings: Settings) -> Found:
    """Record a baseline; one of that name is replaced, and hands its origin on."""
    try:
        if not settings.tables:
            raise ValueError("table: name one, by @pytest.mark.nasbed(table=...) or nasbed_table in the ini file")
        path.parent.mkdir(parents=True, exist_ok=True)
        gate.record_baseline(
            [strategy], settings.tables, path, seeds=settings.seeds, budget=settings.budget, replace=True
        )
    except (ValueError, NotComparable, CorruptRecord, gate.Crashed) as error:
        return _refused(strategy, error)
    text = f"recorded {path}"
    return Found("recorded", text, {"strategy": _label(strategy), "outcome": "recorded", "summary": [text]})


def check(strategy: str | type, path: Path, settings: Settings, *, gates: int) -> Found:
    """Hold a strategy to its baseline.

    Args:
        strategy: Class or name.
        path: The baseline.
        settings: The tables and the budget, where they are named, must be the recorded ones.
        gates: Tests of the session that share alpha; each baseline is taken to be of one strategy.
    """
    rules = replace(settings.rules, alpha=settings.rules.alpha / gates)
    try:
        if not path.is_file():
            raise ValueError(f"baseline: there is no file {path}; `pytest --nasbed-record` makes it")
        file = gate_baseline.read(path)
        _require_asked(file, settings)
        verdict = gate.check_strategy(strategy, path, rules=rules)
    except (ValueError, NotComparable, CorruptRecord, gate.Crashed) as error:
        return _refused(strategy, error)
    header = gate_text.head(file, len(file.header["seeds"]), replace(settings.rules, strategies=gates))
    text = gate.render([verdict], header, _notes(file, strategy, verdict))
    outcome = verdict.outcome
    if outcome == "inconclusive":
        outcome, text = ("fail", text) if settings.inconclusive == "fail" else (outcome, f"{verdict.line}\n{text}")
    facts = {
        "strategy": verdict.strategy, "outcome": verdict.outcome, "level": verdict.level, "improved": verdict.improved,
        "line": verdict.line, "reason": verdict.reason, "identical": verdict.identical, "traces": verdict.traces,
        "seeds": verdict.seeds, "metrics": [_plain(m) for m in verdict.metrics],
        "summary": text.splitlines()[:-1],
    }  # fmt: skip
    return Found(outcome, text, facts, verdict)


def conformance(marked: Mapping[str, Any], *, allowed: Sequence[str]) -> list[tuple[str, Callable[[], None]]]:
    """The checks of the subjects of a marker, each under the name of its subject and its own.

    Args:
        marked: `strategy`, `estimator`, `space`: one or several, classes (of a space: objects) or registered names;
            `params`: further arguments of the classes.
        allowed: All keywords that the marker may have.

    Raises:
        ValueError: An unknown keyword or name, or no subject.
    """
    for key in marked:
        if key not in allowed:
            raise ValueError(registry.unknown("the marker nasbed: keyword", key, tuple(allowed)))
    roles: tuple[Role, ...] = ("strategy", "estimator", "space")
    named = [(role, subject) for role in roles if role in marked for subject in _several(marked[role])]
    if not named:
        raise ValueError("nas_conformance: name its subject, @pytest.mark.nasbed(strategy=MyStrategy)")
    found: list[tuple[str, Callable[[], None]]] = []
    for role, subject in named:
        found += _checks(role, subject, dict(marked.get("params") or {}))
    return found


def fault(check: Callable[[], None]) -> str | None:
    """What a conformance check finds wrong, if anything: a line, or the traceback of what the method raised.

    Raises:
        unittest.SkipTest: The check does not apply; pytest knows what that means.
    """
    try:
        check()
    except SkipTest:
        raise
    except Violation as violation:
        return str(violation)
    except Exception as error:
        return own_traceback(error)
    return None


def _checks(role: Role, subject: Any, params: dict[str, Any]) -> list[tuple[str, Callable[[], None]]]:
    label = _label(subject)
    if role == "space":
        space = registry.space(subject) if isinstance(subject, str) else subject
        return [(f"{label}-{name}", partial(check, space)) for name, check in yield_checks("spaces")]
    roles: dict[Role, Literal["strategies", "estimators"]] = {"strategy": "strategies", "estimator": "estimators"}
    if isinstance(subject, str):
        base, options = registry.split_name(subject)
        subject = registry.load(roles[role], base)
        params |= registry.parameters(subject, options, f"{role} {base!r}")
    checks = list(yield_checks(roles[role]))
    if role == "strategy":
        fitting = {c.__name__ for c in (SHARING_CHECKS if hasattr(subject, "train_epoch") else STRATEGY_CHECKS)}
        checks = [(name, check) for name, check in checks if name in fitting]
    return [(f"{label}-{name}", partial(check, subject, params=params)) for name, check in checks]


def _require_asked(file: gate_baseline.Baseline, settings: Settings) -> None:
    header = file.header
    for what, asked, then in (
        ("tables", list(settings.tables), header.get("given")),
        ("budget", settings.budget, header.get("budget")),
    ):
        if asked and asked != then:
            raise NotComparable(
                f"baseline: {file.path} was recorded with {what} {then}, the test asks for {asked}; "
                "`pytest --nasbed-record` records it anew"
            )


def _notes(file: gate_baseline.Baseline, strategy: str | type, verdict: gate.Verdict) -> tuple[str, ...]:
    if verdict.identical == verdict.traces:
        return ()
    now = registry.load("strategies", registry.split_name(strategy)[0]) if isinstance(strategy, str) else strategy
    return gate_text.notes(file.header, {verdict.strategy: registry.code_digest(now)}, [verdict.strategy])


def _refused(strategy: str | type, error: Exception) -> Found:
    """A failure without a verdict; the first line says of which kind."""
    kinds = {NotComparable: "not comparable", CorruptRecord: "damaged baseline", gate.Crashed: "crash"}
    kind = kinds.get(type(error), "usage")
    text = f"gate: {kind}: {error}".rstrip()
    lines = text.splitlines()
    facts = {
        "strategy": _label(strategy),
        "outcome": kind,
        "reason": str(error),
        "summary": [lines[0], *lines[1:][-1:]],
    }
    return Found("fail", text, facts)


def _plain(test: MetricTest) -> dict[str, Any]:
    """One metric as plain data; JSON knows no NaN."""
    return {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in asdict(test).items()}


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | range) else [value]


def _label(subject: Any) -> str:
    if isinstance(subject, str):
        return subject
    return str(getattr(subject, "__name__", None) or getattr(subject, "name", type(subject).__name__))
