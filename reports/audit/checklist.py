"""The checklist of good practice, filled in from an audit: an audit runs no search, so some practices do not apply."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

from ..checklist import Checklist, Item
from ..checklist_added import ADDED
from ..checklist_items import PRACTICES
from ..checklist_runs import Status
from .results import Audit, EstimatorAudit

Found: TypeAlias = tuple[Status, str, str]
NUMBERS = "audit.json#/tables"
NO_SEARCH: Found = ("not-applicable", "an audit compares estimators, and runs no search of its own", NUMBERS)
SHOWN = 5


def checklist(audit: Audit) -> Checklist:
    """Fill in the checklist of an audit of estimators.

    Args:
        audit: With at least one table.
    """
    digest = hashlib.sha256(json.dumps(audit.to_dict(), sort_keys=True).encode()).hexdigest()
    practices = [practice for practice, _ in (*PRACTICES, *ADDED)]
    items = tuple(
        Item(number, practice, *_decided(number, audit)) for number, practice in enumerate(practices, start=1)
    )
    return Checklist(f"estimators on {', '.join(t.table for t in audit.tables)}", digest, items)


def _decided(number: int, audit: Audit) -> Found:
    rule = RULES.get(number)
    return NO_SEARCH if rule is None else rule(audit)


def _all(audit: Audit) -> Iterator[tuple[str, EstimatorAudit]]:
    for table in audit.tables:
        for e in table.estimators:
            yield f"{e.name} on {table.table}", e


def _named(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _released(audit: Audit) -> Found:
    named = [f"{t.table} ({t.digest[:12]}, pipeline {t.pipeline})" for t in audit.tables]
    return "needs-human", f"recorded: {_named(named)}; say where tables and pipelines are released", NUMBERS


def _methods(audit: Audit) -> Found:
    named = sorted({f"{e.name} ({e.source[:20]})" for _, e in _all(audit)})
    return "needs-human", f"recorded: {_named(named)}; say where the code of the estimators is released", NUMBERS


def _as_it_ran(audit: Audit) -> Found:
    return "needs-human", "name the published versions that made the scores", "provenance.json"


def _same_benchmark(audit: Audit) -> Found:
    if partly := [name for name, e in _all(audit) if e.left_out]:
        return "fail", f"not scored for all architectures that others were: {_named(partly)}", NUMBERS
    return "pass", "all estimators of a table are held against the same architectures and trainings", NUMBERS


def _same_protocol(audit: Audit) -> Found:
    return "pass", "one truth, one pipeline, one set of resamples for all estimators of a table", NUMBERS


def _baselines(audit: Audit) -> Found:
    if lacking := [t.table for t in audit.tables if not any(e.baseline for e in t.estimators)]:
        return "fail", f"no parameter count or FLOPs beside the estimators on {_named(lacking)}", NUMBERS
    return "pass", "parameter count and FLOPs, and the expectation of a random ranking, stand beside all", NUMBERS


def _repeated(audit: Audit) -> Found:
    if single := [t.table for t in audit.tables if t.seeds < 2]:
        return "fail", f"one training seed on {_named(single)}: the noise of the truth is unknown", NUMBERS
    if once := [name for name, e in _all(audit) if not e.deterministic and e.seeds < 2]:
        return "fail", f"there is chance in them, and they were scored from one seed: {_named(once)}", NUMBERS
    return "pass", "two training seeds or more, and two estimator seeds or more where there is chance", NUMBERS


def _tabular(audit: Audit) -> Found:
    return "pass", f"tables of real trainings: {_named([t.table for t in audit.tables])}", NUMBERS


def _tuned(audit: Audit) -> Found:
    return "needs-human", "say whether parameters of the estimators were tuned, and on which tables", NUMBERS


def _whole_cost(audit: Audit) -> Found:
    if unknown := [name for name, e in _all(audit) if math.isnan(e.answer + e.preparation)]:
        return "fail", f"nobody said what they cost: {_named(unknown)}", NUMBERS
    return "pass", "preparation and answers of every estimator are priced in full trainings", NUMBERS


def _details(audit: Audit) -> Found:
    how = audit.settings
    said = f"spaces, pipelines, digests and seeds are recorded; {how.resamples} resamples, seed {how.seed}"
    return "pass", said, "audit.json#/settings"


def _audited(audit: Audit) -> Found:
    return "pass", f"this audit: {sum(1 for _ in _all(audit))} estimators", NUMBERS


def _intervals(audit: Audit) -> Found:
    lacking = [name for name, e in _all(audit) if math.isnan(e.correlations["tau_b"].low)]
    if lacking:
        return "fail", f"no interval of the rank correlation: {_named(lacking)}", NUMBERS
    return "pass", "every rank correlation has its interval, which says what was resampled", NUMBERS


def _ceilings(audit: Audit) -> Found:
    unknown = [t.table for t in audit.tables if t.seeds < 2]
    said = f"; said to be unknown on {_named(unknown)}" if unknown else ""
    return "pass", f"the ceiling stands beside every correlation{said}", NUMBERS


def _imputed(audit: Audit) -> Found:
    left = sum(t.diverged for t in audit.tables)
    return "pass", f"nothing is imputed; {left} architectures without a finite quality are left out", NUMBERS


def _signs(audit: Audit) -> Found:
    turned = [name for name, e in _all(audit) if e.sign < 0]
    said = f"turned by their declared sign: {_named(turned)}" if turned else "no declared sign is negative"
    return "pass", f"{said}; ties are counted, and no absolute value is taken", NUMBERS


RULES: dict[int, Callable[[Audit], Found]] = {
    1: _released, 2: _methods, 3: _as_it_ran, 4: _same_benchmark, 6: _same_protocol, 8: _baselines, 9: _repeated,
    10: _tabular, 12: _tuned, 13: _whole_cost, 14: _details, 16: _audited, 17: _intervals, 20: _ceilings, 22: _imputed,
    23: _signs,
}  # fmt: skip
