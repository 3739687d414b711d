"""The 14 practices of Lindauer and Hutter, and how each is decided from the run records.

"Best Practices for Scientific Research on Neural Architecture Search", JMLR 21(243), 2020; the phrases are our own.
Each rule answers with a status, a reason and where to look.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

from ..harness.records import canonical
from .checklist_runs import Evidence, Found, Run, difference, listed, short

SEEDS, FEWEST_SEEDS = 10, 5
CARD = ("digest", "space", "task", "metric", "pipeline", "pipeline_digest", "training_seeds", "budget", "budget_unit")
MACHINE = ("nasbed", "python", "cpu", "packages", "all_packages_sha256")


def _code_of_training(e: Evidence) -> Found:
    for run in e.runs:
        if not (run.spec["pipeline"].get("digest") and run.spec["space"]):
            return "fail", f"{e.named(run)}: no digest of its pipeline", f"runs/{run.key}/spec.json"
    named = sorted({f"pipeline {r.spec['pipeline']['name']} ({short(r.spec['pipeline']['digest'])})" for r in e.runs})
    named += sorted({f"space {r.spec['space']}" for r in e.runs})
    where = f"runs/{e.runs[0].key}/spec.json#/pipeline"
    return _released(e, f"recorded: {listed(named)}", where)


def _code_of_methods(e: Evidence) -> Found:
    for run in e.runs:
        if not run.spec["strategy"].get("code"):
            return "fail", f"{e.named(run)}: no digest of its code", f"runs/{run.key}/spec.json"
    named = sorted({f"{r.spec['strategy']['name']} ({short(r.spec['strategy']['code'])})" for r in e.runs})
    where = f"runs/{e.runs[0].key}/spec.json#/strategy"
    return _released(e, f"recorded with parameters and seeds: {listed(named)}", where)


def _code_as_it_ran(e: Evidence) -> Found:
    git = e.study.get("provenance", {}).get("git")
    if not git:
        return "needs-human", "not run in a checkout: name the published version that ran", "study.json#/provenance"
    where = "study.json#/provenance/git"
    if git["dirty"]:
        diff = f", sha256 {short(git['diff_sha256'])}" if git.get("diff_sha256") else ""
        return "fail", f"the checkout differed from commit {short(git['commit'])}{diff}: no commit holds it", where
    return _released(e, f"the checkout was commit {short(git['commit'])}, unchanged", where)


def _released(e: Evidence, recorded: str, where: str) -> Found:
    """What is recorded is half of it: whether others can read it, the authors must say."""
    if url := e.study["spec"].get("code"):
        return "pass", f"{recorded}; released at {url}", "study.json#/spec/code"
    return "needs-human", f"{recorded}; say where it is released", where


def _same_benchmark(e: Evidence) -> Found:
    if found := difference(e.runs, ("space", "table", "data", "pipeline")):
        field, run = found
        text = f"{e.named(run)}, has another {field} than other runs on {run.place}"
        return "fail", text, f"runs/{run.key}/spec.json#/{field}"
    for run in e.runs:
        if run.place in e.tables and run.spec["table"]["digest"] != e.tables[run.place]["digest"]:
            text = f"{e.named(run)}, ran on another version of {run.place} than the study's"
            return "fail", text, f"runs/{run.key}/spec.json#/table"
    firsts = {r.place: r.spec for r in reversed(e.runs)}
    said = [
        f"{place} ({short((spec['table'] or spec['data'])['digest'])}), pipeline {spec['pipeline']['name']}"
        for place, spec in sorted(firsts.items())
    ]
    return "pass", f"all runs share {listed(said)}", "study.json#/tables" if e.tables else "study.json#/spec"


def _ablation(e: Evidence) -> Found:
    configs = {e.method(r): _config(r) for r in e.runs if r.spec["strategy"]["name"] != "random"}
    if not configs:
        return "not-applicable", "random search alone has no component to leave out", "study.json#/spec/strategies"
    said = []
    for (a, x), (b, y) in combinations(configs.items(), 2):
        keys = [k for k in sorted({*x, *y}) if x.get(k) != y.get(k)]
        if len(keys) == 1 and keys[0] != "strategy":
            said.append(f"{a} and {b} differ in {keys[0]}")
    if said:
        return "pass", f"{listed(said)}; say what each tests", "study.json#/spec/strategies"
    return "fail", "no two methods differ in exactly one setting", "study.json#/spec/strategies"


def _config(run: Run) -> dict[str, str]:
    strategy, estimator = run.spec["strategy"], run.spec["estimator"]
    chosen = {"strategy": strategy["name"], "estimator": canonical([estimator["name"], estimator["params"]])}
    return chosen | {f"parameter {k}": canonical(v) for k, v in strategy["params"].items()}


def _same_protocol(e: Evidence) -> Found:
    if found := difference(e.runs, ("options", "schema")):
        field, run = found
        text = f"{e.named(run)}, has other {field} than other runs on {run.place}"
        return "fail", text, f"runs/{run.key}/spec.json#/{field}"
    for place in e.places:
        used: dict[str, set[str]] = {}
        for run in e.runs:
            if run.place == place:
                used.setdefault(run.strategy, set()).add(canonical(run.spec["estimator"]))
        if len({frozenset(s) for s in used.values()}) > 1:
            return "fail", f"on {place} the strategies were not run under the same estimators", "study.json#/runs"
    counts = {r.facts.tests for r in e.runs}
    if len(counts) > 1:
        return "fail", f"final incumbents were retrained {listed(map(str, sorted(counts)))} times", "study.json#/runs"
    if own := e.methods(lambda r: r.facts.rule == "own"):
        text = f"{listed(own)} name their incumbents themselves, all others take the best score: say why that is fair"
        return "needs-human", text, "runs"
    text = "one rule for incumbents, one pipeline, the same estimators, options and test values for every method"
    return "pass", text, "study.json#/spec/options"


def _over_time(e: Evidence) -> Found:
    if e.comparison is None:
        return "fail", "these runs cannot be compared, so there are no curves", "study.json#/runs"
    drawn = {(c.method, c.table): c for c in e.comparison.anytime}
    for place in e.comparison.places:
        lacking = [m for m in e.comparison.methods if (m, place) not in drawn]
        if lacking:
            return "fail", f"no curve over cost of {listed(lacking)} on {place}", "results.json#/comparison/anytime"
        ends = {drawn[m, place].x[-1] for m in e.comparison.methods}
        if len(ends) > 1:
            return "fail", f"the curves on {place} end at different costs", "results.json#/comparison/anytime"
    return "pass", "a curve of every method, up to the same cost", "report.html#anytime"


def _random_search(e: Evidence) -> Found:
    if not e.methods(lambda r: r.spec["strategy"]["name"] != "random"):
        return "not-applicable", "there is random search alone", "study.json#/spec/strategies"
    for place in e.places:
        mine = [r for r in e.runs if r.place == place]
        if found := difference(mine, ("budget",)):
            run = found[1]
            text = f"{e.named(run)}, had another budget than other runs on {place}"
            return "fail", text, f"runs/{run.key}/spec.json#/budget"
        counts = {m: len(runs) for (m, p), runs in e.rows().items() if p == place}
        labels = {e.method(r) for r in mine if r.spec["strategy"]["name"] == "random"}
        if not labels:
            return "fail", f"no finished run of random search on {place}", "study.json#/runs"
        drawn, most = max(counts[label] for label in labels), max(counts.values())
        if drawn < most:
            return "fail", f"random search has {drawn} seeds on {place}, another method {most}", "study.json#/runs"
    return "pass", "random search has the same budget and no fewer seeds than any method", "study.json#/spec/budget"


def _repeats(e: Evidence) -> Found:
    rows = e.rows()
    counts = {(m, p): len(rows.get((m, p), ())) for m in e.methods() for p in e.places}
    (method, place), fewest = min(counts.items(), key=lambda item: item[1])
    trainings = {name: int(t["training_seeds"]) for name, t in e.tables.items()}
    trainings = trainings or {p: min(r.facts.tests for r in e.runs) for p in e.places}
    single = [p for p, n in sorted(trainings.items()) if n < 2]
    seeds = [r.seed for r in e.runs]
    said = f"{fewest} seeds" + (f" of {method} on {place}" if len(set(counts.values())) > 1 else " of each method")
    said += f", from {min(seeds)} to {max(seeds)}"
    where = "study.json#/spec/seeds"
    if fewest < FEWEST_SEEDS:
        return "fail", f"{said}: fewer than {FEWEST_SEEDS} show nothing", where
    if single:
        return "fail", f"{said}, but one training stands behind the quality reported on {listed(single)}", where
    if fewest < SEEDS:
        return "needs-human", f"{said}: say why fewer than {SEEDS} are enough", where
    behind = min(trainings.values())
    return "pass", f"{said}; {behind} trainings or more behind every quality reported", where


def _tabular(e: Evidence) -> Found:
    if not e.tables:
        text = "trained for real: say why no tabular benchmark serves"
        return "needs-human", text, "study.json#/spec/data"
    kinds = sorted({str(t.get("coverage")) for t in e.tables.values()})
    if len(kinds) > 1:
        return "fail", f"tables of different kinds side by side: {listed(kinds)}", "study.json#/tables"
    if kinds != ["complete"]:
        return "needs-human", f"the tables are {kinds[0]}: say what that leaves out", "study.json#/tables"
    return "pass", f"trained architectures for the whole space: {listed(e.tables)}", "study.json#/tables"


def _confounders(e: Evidence) -> Found:
    versions: dict[str, dict[str, str]] = {}
    for run in e.runs:
        for role in ("strategy", "estimator"):
            for name, version in run.spec[role].get("libraries", {}).items():
                versions.setdefault(name, {}).setdefault(version, run.key)
    for name, found in sorted(versions.items()):
        if len(found) > 1:
            key = found[max(found)]
            return "fail", f"runs used {name} {listed(sorted(found))}", f"runs/{key}/spec.json"
    if other := difference(e.runs, ("machine", "budget")):
        text = f"{e.named(other[1])}, had another {other[0]} than other runs"
        return "fail", text, f"runs/{other[1].key}/spec.json#/{other[0]}"
    provenance = e.study.get("provenance", {})
    lacking = [name for name in MACHINE if not provenance.get(name)]
    if lacking:
        return "needs-human", f"not recorded, and to be stated: {listed(lacking)}", "study.json#/provenance"
    if e.tables and "torch" in versions:
        text = "methods that compute with torch depend on the processor: say that one machine made all runs"
        return "needs-human", text, "study.json#/provenance"
    costs = "costs are those of the table" if e.tables else "one machine, device and set of versions in every run"
    return "pass", f"{costs}; equal budgets and versions of libraries", "study.json#/provenance"


def _tuning(e: Evidence) -> Found:
    tuned = e.methods(lambda r: r.facts.costs.get("tuning", 0.0) > 0)
    own = [m for m in e.methods(lambda r: bool(r.spec["strategy"]["params"])) if m not in tuned]
    where = e.shown("incumbents")
    if tuned and own:
        return "fail", f"tuning is charged for {listed(tuned)}, and not for {listed(own)}, set by hand", where
    if tuned:
        return "pass", f"tuning is charged for {listed(tuned)}; all others have their defaults", where
    said = f"{listed(own)} set by hand" if own else "all methods at their defaults"
    return "needs-human", f"{said}, no tuning charged: say whether any took place, and on which tables", where


def _whole_time(e: Evidence) -> Found:
    where = e.shown("incumbents")
    if free := e.methods(lambda r: sum(r.facts.costs.values()) == 0):
        return "fail", f"{listed(free)} were charged nothing in some run", where
    if unpaid := e.methods(lambda r: not r.facts.paid):
        text = f"{listed(unpaid)} never pay for a full training of what they find: add it to their time"
        return "needs-human", text, where
    if e.timed < len(e.runs):
        text = f"{len(e.runs) - e.timed} of {len(e.runs)} runs have no measured time: state it"
        return "needs-human", text, "timing.json" if e.comparison else "runs"
    kinds = sorted({k for r in e.runs for k, v in r.facts.costs.items() if v > 0})
    return "pass", f"charged: {listed(kinds)}; measured time of every run", where


def _setup(e: Evidence) -> Found:
    study, spec = e.study, e.study["spec"]
    lacking = [f"{name} of {place}" for place, t in e.tables.items() for name in CARD if t.get(name) is None]
    if not e.tables:
        lacking += [name for name in ("space", "data") if not spec.get(name)] + ["task"] * (not study.get("task"))
    lacking += [name for name in ("seeds", "options", "budget") if not spec.get(name)]
    lacking += [name for name in MACHINE if not study.get("provenance", {}).get(name)]
    if lacking:
        return "fail", f"not recorded: {listed(lacking)}", "study.json"
    text = "spaces, data, pipelines, seeds, budgets, versions, machine; one final incumbent a run, no best of several"
    return "pass", text, e.shown("protocol") if e.comparison else "study.json"


PRACTICES: tuple[tuple[str, Callable[[Evidence], Found]], ...] = (
    ("Code of training and search space is released", _code_of_training),
    ("Code of the methods is released", _code_of_methods),
    ("Code is released as it ran", _code_as_it_ran),
    ("One benchmark for all, not only one data set", _same_benchmark),
    ("Ablations", _ablation),
    ("One evaluation protocol for all methods", _same_protocol),
    ("Performance over time", _over_time),
    ("Random search as a baseline", _random_search),
    ("Repeated runs", _repeats),
    ("Tabular benchmarks where possible", _tabular),
    ("Confounding factors held equal", _confounders),
    ("Hyperparameter tuning reported", _tuning),
    ("Time of the whole method, end to end", _whole_time),
    ("Every detail of the setup", _setup),
)
"""Practice and rule, numbers 1 to 14."""
