"""Nine practices beyond those of Lindauer and Hutter, and how each is decided.

They follow from what was found wrong in published comparisons: Li and Talwalkar (2019), Yang et al. (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from statistics import fmean

from ..harness.records import canonical
from ..protocols import Json
from .checklist_runs import Evidence, Found, Run, listed, short


def _blind(e: Evidence) -> Found:
    for run in e.runs:
        if run.facts.rule == "other":
            text = f"{e.named(run)}: its incumbents do not follow from the scores that it saw"
            return "fail", text, f"runs/{run.key}/result.json"
    if own := e.methods(lambda r: r.facts.rule == "own"):
        return "needs-human", f"{listed(own)} name their incumbents without a score: say by which data", "runs"
    return "pass", "worked out again from the scores seen: every incumbent is the best of them", "runs"


def _audited(e: Evidence) -> Found:
    used = {(r.place, canonical(r.spec["estimator"])): r for r in e.runs if r.proxy}
    own = e.methods(lambda r: r.facts.rule == "own")
    where = "study.json#/spec/estimators"
    if not used and not own:
        return "not-applicable", "every score is that of a training", where
    held = {key: next(_audits(e, run), None) for key, run in used.items()}
    if lacking := [f"{used[key].scored_by} on {key[0]}" for key, found in held.items() if found is None]:
        return "fail", f"no audit of {listed(lacking)}", where
    where = next((found[0] for found in held.values() if found), "runs")
    if own:
        text = f"{listed(own)} rank by shared weights, which no audit here looks at: say how well they rank"
        return "needs-human", text, where
    if not e.tables:
        return "needs-human", "audited on tables: say why that holds for these trainings", where
    return "pass", f"audited: {listed(sorted({r.scored_by for r in used.values()}))}", where


def _certainty(e: Evidence) -> Found:
    if e.comparison is None:
        return "fail", "these runs cannot be compared", "study.json#/runs"
    if not e.comparison.pairs:
        return "not-applicable", "one method alone, so that nothing is claimed", "report.html#results"
    for pair in e.comparison.pairs:
        if not (isfinite(pair.difference.half_width) and isfinite(pair.a12.estimate)):
            why = pair.difference.reason or pair.a12.reason or "undefined"
            text = f"{pair.first} against {pair.second}, {pair.metric}: no interval or effect size ({why})"
            return "fail", text, "report.html#pairs"
    count = len(e.comparison.pairs)
    return "pass", f"difference with interval, A12 and Holm-adjusted p for all {count} pairs", "report.html#pairs"


def _gated(e: Evidence) -> Found:
    named = sorted({f"{r.spec['strategy']['name']} ({short(r.spec['strategy']['code'])})" for r in e.runs})
    text = f"no gate record comes with a study: say whether these versions passed one: {listed(named)}"
    return "needs-human", text, f"runs/{e.runs[0].key}/spec.json#/strategy"


def _over_mean(e: Evidence) -> Found:
    if len({r.spec["space"] for r in e.runs}) == 1:
        return "not-applicable", "one space, where regret says more", "study.json#/tables" if e.tables else "study.json"
    if e.comparison is None:
        return "fail", "these runs cannot be compared", "study.json#/runs"
    lacking = [name for name, t in e.tables.items() if not t.get("mean")]
    if lacking:
        return "fail", f"no mean over architectures of {listed(lacking)}", "study.json#/tables"
    said = []
    for method in e.comparison.methods:
        gains = []
        for table in e.comparison.tables:
            mean = float(table.other["mean"])
            tests = [r.test for r in e.comparison.runs if (r.method, r.table) == (method, table.name)]
            gains += [table.sign * (fmean(tests) - mean) / abs(mean)] if tests else []
        said.append(f"{method} {100 * fmean(gains):+.2f} %" if len(gains) == len(e.tables) else f"{method} unknown")
    return "pass", f"over the mean architecture, mean of tables: {', '.join(said)}", "study.json#/tables"


def _ceiling(e: Evidence) -> Found:
    held = [found for path, audit in sorted(e.audits.items()) for found in _estimators(path, audit)]
    if not held:
        return "not-applicable", "no rank correlation is reported here", "study.json#/spec/estimators"
    for where, _, estimator in held:
        for name in ("spearman", "tau_b"):
            beside = estimator["attainable"].get(name) or {}
            if beside.get("ceiling") is None and not beside.get("reason"):
                return "fail", f"{estimator['name']}: {name} stands without a ceiling", where
    return "pass", "each correlation stands beside its ceiling, or the words that it is unknown", held[0][0]


def _sealed(e: Evidence) -> Found:
    for run in e.runs:
        fits = run.facts.tests == (0 if run.spec["table"] else run.spec["options"]["retrain"])
        if not (run.facts.sealed and fits):
            text = f"{e.named(run)}: test values do not belong to its incumbents one by one"
            return "fail", text, f"runs/{run.key}/result.json"
    each = "" if e.tables else f", {e.runs[0].facts.tests} fresh trainings of the final incumbent"
    return "pass", f"one reading for each of {len(e.runs)} runs, after its last proposal{each}", "runs"


def _nothing_imputed(e: Evidence) -> Found:
    for run in e.runs:
        if run.facts.patched:
            text = f"{e.named(run)}: {run.facts.patched} failed evaluations have a score"
            return "fail", text, f"runs/{run.key}/result.json"
    unknown = [name for name, t in e.tables.items() if t.get("missing_trainings") is None]
    if unknown:
        return "needs-human", f"say how many trainings are missing in {listed(unknown)}", "study.json#/tables"
    missing = sum(int(t["missing_trainings"]) for t in e.tables.values())
    failed, absent = sum(r.facts.unusable for r in e.runs), len(e.study.get("failed", ()))
    text = f"0 imputed; left out: {missing} missing trainings, {failed} failed evaluations, {absent} failed runs"
    return "pass", text, "study.json#/tables" if e.tables else "runs"


def _sign(e: Evidence) -> Found:
    declared = {s["label"]: (s.get("traits") or {}).get("sign") for s in e.study["spec"].get("estimators", ())}
    where, said, unknown = "study.json#/spec/estimators", [], []
    for label, run in {r.scored_by: r for r in e.runs if r.proxy}.items():
        sign = declared.get(run.estimator)
        for found, estimator in _audits(e, run):
            where, sign = found, sign or estimator["sign"]
            if any(flag["kind"] == "sign" for flag in estimator["flags"]):
                return "fail", f"{label} ranks the wrong way by its declared sign", where
        ties = [r.facts.ties for r in e.runs if r.proxy and r.scored_by == label and isfinite(r.facts.ties)]
        if sign is None:
            unknown.append(label)
        else:
            share = f"{100 * fmean(ties):.0f} %" if ties else "unknown"
            said.append(f"{label} has sign {sign:+d}, share of tied architectures {share}")
    if unknown:
        return "needs-human", f"say for {listed(unknown)} whether higher is better", where
    said = said or ["scores are the metric, turned so that higher is better"]
    return "pass", f"{'; '.join(said)}; of ties the earlier one is kept", where


def _audits(e: Evidence, run: Run) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """Every audit of a run's estimator, and where it stands: on the run's table or, without one, on any."""
    wanted = run.spec["table"]["digest"] if run.spec["table"] else None
    for path, audit in sorted(e.audits.items()):
        for where, digest, estimator in _estimators(path, audit):
            if wanted in (None, digest) and _parts(estimator["name"]) == _parts(run.scored_by):
                yield where, estimator


def _estimators(path: str, audit: Mapping[str, Json]) -> Iterator[tuple[str, str, Mapping[str, Json]]]:
    """Where each audited estimator stands, the digest of its table, and what was found."""
    for i, table in enumerate(audit["tables"]):
        for j, estimator in enumerate(table["estimators"]):
            yield f"{path}#/tables/{i}/estimators/{j}", table["digest"], estimator


def _parts(label: str) -> tuple[str, frozenset[str]]:
    """A label without the order of its parameters."""
    name, _, params = label.partition("[")
    return name, frozenset(params.removesuffix("]").split(";"))


ADDED: tuple[tuple[str, Callable[[Evidence], Found]], ...] = (
    ("Incumbents chosen without test data", _blind),
    ("Estimators that stand in for training audited", _audited),
    ("Interval and effect size for each claim", _certainty),
    ("Regression gate passed", _gated),
    ("Improvement over the mean architecture", _over_mean),
    ("Noise ceiling beside rank correlations", _ceiling),
    ("Test data read once", _sealed),
    ("Nothing imputed", _nothing_imputed),
    ("Signs and ties stated", _sign),
)
"""Practice and rule, numbers 15 to 23."""
