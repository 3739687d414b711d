from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from dataclasses import fields, replace

import pytest

from nasbed.harness.store import RunStore
from nasbed.protocols import Cost, Fidelity, Incumbent, Proposal
from nasbed.reports.audit.results import Attainable, EstimatorAudit, Flag, TableAudit
from nasbed.reports.checklist import FORMATS, STATUSES, checklist, files, fragment, to_html, to_markdown, to_tex
from nasbed.reports.checklist_runs import Noted, facts_of
from nasbed.reports.comparison import compare
from nasbed.reports.frame import load
from nasbed.reports.write import write_report

NUMBERS = range(1, 24)
PROVENANCE = {
    "nasbed": "0.1.0", "python": "3.11.7", "cpu": "a cpu", "packages": {"numpy": "2.0"}, "all_packages_sha256": "ab",
    "git": {"commit": "abc", "dirty": False, "diff_sha256": "0"},
}  # fmt: skip
URL = "https://example.org/code"


class World:
    """A study of which everything is recorded, its comparison, and changes made to it."""

    def __init__(self, store, comparison):
        self.store, self.comparison, self.audits = store, comparison, {}

    def copy(self):
        store = replace(self.store, record=copy.deepcopy(self.store.record), runs=dict(self.store.runs),
                        times=dict(self.store.times))  # fmt: skip
        return World(store, self.comparison)

    def items(self):
        found = checklist(self.store, self.comparison, audits=self.audits)
        return {i.number: i for i in found.items}

    @property
    def spec(self):
        return self.store.record["spec"]

    @property
    def table(self):
        return next(iter(self.store.record["tables"].values()))

    def keys(self, strategy=None):
        return [e["key"] for e in self.store.record["runs"] if strategy in (None, e["strategy"])]

    def change(self, strategy=None, *, first=False, **spec):
        """Give the runs of a strategy, or the first of them, other values in their spec; `a__b` is `a` within `b`."""
        for key in self.keys(strategy)[: 1 if first else None]:
            record = self.store.runs[key]
            changed = copy.deepcopy(record.spec)
            for path, value in spec.items():
                *parents, name = path.split("__")
                place = changed
                for parent in parents:
                    place = place[parent]
                place[name] = value
            self.store.runs[key] = replace(record, spec=changed)

    def rewrite(self, make, strategy=None, *, first=False):
        for key in self.keys(strategy)[: 1 if first else None]:
            self.store.runs[key] = make(self.store.runs[key])

    def keep(self, seeds, strategy=None):
        runs = self.store.record["runs"]
        self.store.record["runs"] = [r for r in runs if r["seed"] < seeds or strategy not in (None, r["strategy"])]

    def proxy(self, **params):
        self.change(estimator__name="synflow", estimator__params=params)
        for entry in (*self.store.record["runs"], *self.spec["estimators"]):
            entry["estimator" if "key" in entry else "label"] = "cheap"

    def audit(self, name="synflow", *, digest=None, sign=-1, ceiling=0.9, flags=()):
        beside = {"ceiling": ceiling, "reason": ""}
        estimator = {"name": name, "sign": sign, "flags": list(flags),
                     "attainable": {"spearman": beside, "tau_b": beside}}  # fmt: skip
        table = {"digest": digest or self.table["digest"], "estimators": [estimator]}
        self.audits["audits/audit.json"] = {"tables": [table]}


def complete(store):
    record = store.record
    record["provenance"] = copy.deepcopy(PROVENANCE)
    for facts in record["tables"].values():
        facts |= {"pipeline_digest": "ab", "budget_unit": "flops", "missing_trainings": 0, "diverged_trainings": 1}
    if not record["tables"]:
        record["task"] = {"name": "digits", "metric": "accuracy", "higher_is_better": True}
    return World(store, compare(load(store), resamples=100))


@pytest.fixture(scope="module")
def worlds(make_store):
    two = make_store(("random", "weak"), tables=2, seeds=2)
    return {
        "plain": complete(make_store(("random", "weak", "local_search"), seeds=10)),
        "alone": complete(make_store(("random",), seeds=5)),
        "once": complete(make_store(("random", "weak"), seeds=1)),
        "two": complete(two),
        "real": complete(make_store(("random", "weak"), seeds=3, real=True)),
    }


def _pipeline(w):
    w.change("weak", first=True, pipeline={"name": "sgd", "digest": "cd"})


def _own(record):
    calls = tuple(replace(c, proposals=(), observations=(), costs=(Cost("supernet", 1.0),)) for c in record.calls)
    return replace(record, calls=calls)


def _charge(kind):
    return lambda record: replace(record, preparation=(Cost(kind, 1.0),))


def _free(record):
    calls = tuple(replace(c, observations=tuple(replace(o, costs=()) for o in c.observations)) for c in record.calls)
    return replace(record, calls=calls)


def _peeked(record):
    """The incumbent is the last one that was looked at, whatever its score."""
    o = record.calls[-1].observations[-1]
    incumbent = Incumbent(len(record.calls) - 1, record.incumbents[-1].cost, o.proposal.architecture, o.score)
    return replace(record, incumbents=(*record.incumbents[:-1], incumbent))


def _failed_with(score):
    """One more evaluation, which failed."""

    def make(record):
        call = record.calls[0]
        crashed = replace(call.observations[0], status="crashed", score=score)
        return replace(record, calls=(*record.calls, replace(call, observations=(crashed,))))

    return make


def _unsealed(record):
    return replace(record, sealed={**record.sealed, "incumbents": record.sealed["incumbents"][:-1]})


def _tested(record):
    shown = [{**i, "test": 0.5} for i in record.sealed["incumbents"]]
    return replace(record, sealed={**record.sealed, "incumbents": shown})


def _ablated(w):
    for label, size in (("weak", 5), ("local_search", 10)):
        w.change(label, strategy__name="aging_evolution", strategy__params={"population_size": size})


def _spaces(w):
    second = list(w.store.record["tables"])[1]
    for key, record in w.store.runs.items():
        if record.spec["table"]["name"] == second:
            w.store.runs[key] = replace(record, spec={**record.spec, "space": "mlp"})


def _uncurved(w):
    w.comparison = replace(w.comparison, anytime=w.comparison.anytime[1:])


def _shorter(w):
    first, *rest = w.comparison.anytime
    w.comparison = replace(w.comparison, anytime=(replace(first, x=first.x[:-1]), *rest))


def _two(*steps):
    def change(w):
        for step in steps:
            step(w)

    return change


def nothing(w):
    pass


# Number, status, study, what is changed, words of the reason.
CASES = [
    (1, "needs-human", "plain", nothing, "say where"),
    (1, "pass", "plain", lambda w: w.spec.update(code=URL), URL),
    (1, "fail", "plain", lambda w: w.change("weak", first=True, pipeline__digest=""), "weak, seed 0"),
    (2, "needs-human", "plain", nothing, "random (60204117ffa6)"),
    (2, "pass", "plain", lambda w: w.spec.update(code=URL), URL),
    (2, "fail", "plain", lambda w: w.change("weak", first=True, strategy__code=""), "no digest of its code"),
    (3, "needs-human", "plain", nothing, "commit abc, unchanged"),
    (3, "needs-human", "plain", lambda w: w.store.record["provenance"].update(git=None), "not run in a checkout"),
    (3, "fail", "plain", lambda w: w.store.record["provenance"]["git"].update(dirty=True), "no commit holds it"),
    (3, "pass", "plain", lambda w: w.spec.update(code=URL), URL),
    (4, "pass", "plain", nothing, "nb201_digits"),
    (4, "pass", "real", nothing, "digits"),
    (4, "fail", "plain", _pipeline, "another pipeline"),
    (4, "fail", "plain", lambda w: w.change("weak", space="nb101"), "another space"),
    (4, "fail", "plain", lambda w: w.table.update(digest="other"), "another version"),
    (5, "fail", "plain", nothing, "no two methods"),
    (5, "pass", "plain", _ablated, "weak and local_search differ in parameter population_size"),
    (5, "fail", "plain", _two(_ablated, lambda w: w.change("weak", estimator__params={"a": 1})), "no two methods"),
    (5, "not-applicable", "alone", nothing, "random search alone"),
    (6, "pass", "plain", nothing, "one rule"),
    (6, "fail", "plain", lambda w: w.change("weak", first=True, options__dedupe=True), "other options"),
    (6, "fail", "plain", lambda w: w.change("weak", estimator__code="x"), "not run under the same estimators"),
    (6, "fail", "real", lambda w: w.rewrite(
        lambda r: replace(r, sealed={**r.sealed, "retrained": {"test": [0.5], "cost": 1.0}}), "weak"), "1 and 3 times"),
    (6, "needs-human", "plain", lambda w: w.rewrite(_own, "weak"), "weak name their incumbents themselves"),
    (7, "pass", "plain", nothing, "a curve of every method"),
    (7, "pass", "real", nothing, "a curve of every method"),
    (7, "fail", "plain", lambda w: setattr(w, "comparison", None), "cannot be compared"),
    (7, "fail", "plain", _uncurved, "no curve over cost of random"),
    (7, "fail", "plain", _shorter, "different costs"),
    (8, "pass", "plain", nothing, "same budget"),
    (8, "fail", "plain", lambda w: w.keep(9, "random"), "9 seeds on nb201_digits, another method 10"),
    (8, "fail", "plain", lambda w: w.keep(0, "random"), "no finished run of random search"),
    (8, "fail", "plain", lambda w: w.change("weak", budget__limit=1.0), "another budget"),
    (8, "not-applicable", "alone", nothing, "random search alone"),
    (9, "pass", "plain", nothing, "10 seeds of each method, from 0 to 9; 5 trainings"),
    (9, "needs-human", "plain", lambda w: w.keep(9, "weak"), "9 seeds of weak on nb201_digits"),
    (9, "needs-human", "plain", lambda w: w.keep(5), "say why fewer than 10"),
    (9, "fail", "plain", lambda w: w.keep(4), "fewer than 5"),
    (9, "fail", "real", nothing, "3 seeds"),
    (9, "fail", "plain", lambda w: w.table.update(training_seeds=1), "one training stands behind"),
    (10, "pass", "plain", nothing, "nb201_digits"),
    (10, "needs-human", "real", nothing, "say why no tabular benchmark"),
    (10, "needs-human", "plain", lambda w: w.table.update(coverage="surrogate"), "surrogate"),
    (10, "fail", "two", lambda w: w.table.update(coverage="surrogate"), "complete and surrogate"),
    (11, "pass", "plain", nothing, "costs are those of the table"),
    (11, "pass", "real", nothing, "one machine"),
    (11, "fail", "real", lambda w: w.change("weak", machine={"torch": "1"}), "another machine"),
    (11, "fail", "plain", lambda w: _two(
        lambda w: w.change("weak", strategy__libraries={"optuna": "3"}),
        lambda w: w.change("local_search", strategy__libraries={"optuna": "4"}))(w), "optuna 3 and 4"),
    (11, "needs-human", "plain", lambda w: w.store.record["provenance"].pop("cpu"), "cpu"),
    (11, "needs-human", "plain", lambda w: w.change("weak", strategy__libraries={"torch": "2"}), "one machine made"),
    (12, "needs-human", "plain", nothing, "all methods at their defaults"),
    (12, "needs-human", "plain", _ablated, "weak and local_search set by hand"),
    (12, "pass", "plain", _two(_ablated, lambda w: w.rewrite(_charge("tuning"), "weak"),
                               lambda w: w.rewrite(_charge("tuning"), "local_search")), "charged for weak and local"),
    (12, "fail", "plain", _two(_ablated, lambda w: w.rewrite(_charge("tuning"), "weak")), "not for local_search"),
    (13, "pass", "plain", nothing, "charged: train"),
    (13, "pass", "real", nothing, "charged: retrain and train"),
    (13, "fail", "plain", lambda w: w.rewrite(_free, "weak", first=True), "weak were charged nothing"),
    (13, "needs-human", "plain", lambda w: w.proxy(), "never pay for a full training"),
    (13, "needs-human", "plain", lambda w: w.rewrite(_own, "weak"), "weak never pay"),
    (13, "needs-human", "plain", lambda w: w.store.times.clear(), "30 of 30 runs have no measured time"),
    (14, "pass", "plain", nothing, "no best of several"),
    (14, "pass", "real", nothing, "no best of several"),
    (14, "fail", "plain", lambda w: w.table.pop("pipeline_digest"), "pipeline_digest of nb201_digits"),
    (14, "fail", "real", lambda w: w.store.record.pop("task"), "task"),
    (14, "fail", "plain", lambda w: w.store.record["provenance"].pop("cpu"), "cpu"),
    (15, "pass", "plain", nothing, "every incumbent is the best"),
    (15, "fail", "plain", lambda w: w.rewrite(_peeked, "weak", first=True), "weak, seed 0"),
    (15, "needs-human", "plain", lambda w: w.rewrite(_own, "weak"), "say by which data"),
    (16, "not-applicable", "plain", nothing, "that of a training"),
    (16, "fail", "plain", lambda w: w.proxy(), "no audit of synflow on nb201_digits"),
    (16, "pass", "plain", _two(lambda w: w.proxy(), lambda w: w.audit()), "audited: synflow"),
    (16, "pass", "plain", _two(lambda w: w.proxy(a=1, b="x"), lambda w: w.audit("synflow[b=x;a=1]")), "a=1"),
    (16, "fail", "plain", _two(lambda w: w.proxy(a=1), lambda w: w.audit("synflow[a=2]")), "synflow[a=1]"),
    (16, "fail", "plain", _two(lambda w: w.proxy(), lambda w: w.audit(digest="x")), "no audit"),
    (16, "needs-human", "plain", lambda w: w.rewrite(_own, "weak"), "shared weights"),
    (16, "needs-human", "real", _two(lambda w: w.proxy(), lambda w: w.audit(digest="x")), "say why that holds"),
    (17, "pass", "plain", nothing, "all 6 pairs"),
    (17, "fail", "once", nothing, "weak against random"),
    (17, "fail", "plain", lambda w: setattr(w, "comparison", None), "cannot be compared"),
    (17, "not-applicable", "alone", nothing, "nothing is claimed"),
    (18, "needs-human", "plain", nothing, "random (60204117ffa6)"),
    (19, "not-applicable", "two", nothing, "one space"),
    (19, "pass", "two", _spaces, "over the mean architecture"),
    (19, "fail", "two", _two(_spaces, lambda w: w.table.update(mean=None)), "nb201_digits"),
    (20, "not-applicable", "plain", nothing, "no rank correlation"),
    (20, "pass", "plain", lambda w: w.audit(), "beside its ceiling"),
    (20, "fail", "plain", lambda w: w.audit(ceiling=None), "spearman stands without"),
    (21, "pass", "plain", nothing, "each of 30 runs"),
    (21, "pass", "real", nothing, "3 fresh trainings"),
    (21, "fail", "plain", lambda w: w.rewrite(_unsealed, "weak", first=True), "weak, seed 0"),
    (21, "fail", "real", lambda w: w.rewrite(_tested, "weak", first=True), "weak, seed 0"),
    (21, "fail", "real", lambda w: w.change("weak", options__retrain=2), "weak, seed 0"),
    (22, "pass", "plain", nothing, "0 imputed; left out: 0 missing trainings, 0 failed"),
    (22, "pass", "plain", lambda w: w.rewrite(_failed_with(float("nan"))), "30 failed evaluations"),
    (22, "fail", "plain", lambda w: w.rewrite(_failed_with(0.1), "weak", first=True), "weak, seed 0"),
    (22, "needs-human", "plain", lambda w: w.table.pop("missing_trainings"), "how many trainings"),
    (23, "pass", "plain", nothing, "higher is better"),
    (23, "needs-human", "plain", lambda w: w.proxy(), "say for synflow"),
    (23, "pass", "plain", _two(lambda w: w.proxy(), lambda w: w.audit()), "synflow has sign -1, share"),
    (23, "pass", "plain", _two(
        lambda w: w.proxy(), lambda w: w.spec["estimators"][0].update(traits={"sign": 1})), "sign +1"),
    (23, "fail", "plain", _two(lambda w: w.proxy(), lambda w: w.audit(flags=[{"kind": "sign"}])), "wrong way"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "status", "world", "change", "words"), CASES, ids=[f"{c[0]}-{c[1]}-{c[4]}" for c in CASES]
)
def test_each_practice_is_decided_by_the_records(worlds, number, status, world, change, words):
    w = worlds[world].copy()
    change(w)
    items = w.items()
    assert (items[number].status, words in items[number].reason) == (status, True), items[number]
    for item in items.values():
        _points_somewhere(item.evidence, w)


def _points_somewhere(evidence, w):
    """Runs exist, pointers into the study record resolve, and without a comparison there is no report to point to."""
    name, _, place = evidence.partition("#")
    if name.startswith("runs/"):
        assert name.split("/")[1] in w.store.runs
        assert name.split("/")[2] in ("spec.json", "result.json")
    elif name == "study.json":
        value = w.store.record
        for part in place.split("/")[1:]:
            value = value[part]
    elif name in w.audits:
        assert place.startswith("/tables/0/estimators/0")
    else:
        assert name == "runs" or (w.comparison and name in ("timing.json", "results.json", "report.html"))


def test_every_practice_can_have_every_outcome_that_makes_sense():
    seen = {n: {c[1] for c in CASES if c[0] == n} for n in NUMBERS}
    without_pass, without_fail = {18}, {18}
    assert {n for n in NUMBERS if "pass" not in seen[n]} == without_pass
    assert {n for n in NUMBERS if "fail" not in seen[n]} == without_fail
    assert {n for n in NUMBERS if "needs-human" in seen[n]} == {1, 2, 3, 6, 9, 10, 11, 12, 13, 15, 16, 18, 22, 23}
    assert {n for n in NUMBERS if "not-applicable" in seen[n]} == {5, 8, 16, 17, 19, 20}


def test_a_change_touches_no_other_practice(worlds):
    before = {n: i.status for n, i in worlds["plain"].items().items()}
    w = worlds["plain"].copy()
    _pipeline(w)
    assert {n for n, i in w.items().items() if i.status != before[n]} == {4}
    w = worlds["plain"].copy()
    w.rewrite(_peeked, "weak", first=True)
    assert {n for n, i in w.items().items() if i.status != before[n]} == {13, 15}


def test_the_improvement_over_the_mean_architecture_by_hand(worlds):
    w = worlds["two"].copy()
    _spaces(w)
    gains = []
    for name, facts in w.store.record["tables"].items():
        tests = [w.store.runs[k].sealed["incumbents"][-1]["test"] for k in w.keys("random")
                 if w.store.runs[k].spec["table"]["name"] == name]  # fmt: skip
        gains.append((sum(tests) / len(tests) - facts["mean"]) / facts["mean"])
    assert f"random {100 * sum(gains) / 2:+.2f} %" in w.items()[19].reason


def test_the_share_of_ties_by_hand(worlds):
    w = worlds["plain"].copy()
    w.proxy()
    record = w.store.runs[w.keys()[0]]

    def coarse(o):
        return replace(o, score=round(o.score, 2))

    calls = tuple(replace(c, observations=tuple(map(coarse, c.observations))) for c in record.calls)
    scores = {o.proposal.architecture: o.score for c in calls for o in c.observations}
    values = list(scores.values())
    share = sum(values.count(v) > 1 for v in values) / len(values)
    assert 0 < share <= 1
    assert facts_of(replace(record, calls=calls)).ties == pytest.approx(share)


def test_a_lower_fidelity_never_replaces_a_higher_one(worlds):
    """Two evaluations at few epochs, one of them better than the full one between them."""
    record = next(iter(worlds["plain"].store.runs.values()))
    a, b, c = (record.calls[i].observations[0] for i in range(3))

    def at(o, score, fidelity):
        return replace(o, proposal=Proposal(o.proposal.architecture, fidelity), score=score)

    low = Fidelity(epochs=1.0)
    told = [at(a, 0.5, low), at(b, 0.4, Fidelity()), at(c, 0.9, low)]
    calls = tuple(replace(record.calls[0], observations=(o,)) for o in told)
    kept = (Incumbent(0, 1.0, a.proposal.architecture, 0.5), Incumbent(1, 2.0, b.proposal.architecture, 0.4))
    right = replace(record, calls=calls, incumbents=kept)
    assert (facts_of(right).rule, facts_of(right).paid) == ("best", True)
    fooled = (*kept, Incumbent(2, 3.0, c.proposal.architecture, 0.9))
    assert facts_of(replace(right, incumbents=fooled)).rule == "other"
    cheap = facts_of(replace(record, calls=calls[:1], incumbents=kept[:1]))
    assert (cheap.rule, cheap.paid) == ("best", False)


def test_an_audit_of_another_kind_is_refused(worlds):
    w = worlds["alone"].copy()
    w.audits["x/audit.json"] = {"pipelines": []}
    with pytest.raises(ValueError, match=r"x/audit\.json is not an audit of estimators"):
        w.items()


def test_a_study_without_finished_runs_is_refused(worlds):
    w = worlds["alone"].copy()
    w.store.runs.clear()
    with pytest.raises(ValueError, match="no finished run"):
        w.items()


def test_what_is_read_of_an_audit_is_what_audits_hold():
    def names(kind):
        return {f.name for f in fields(kind)}

    assert names(EstimatorAudit) >= {"name", "sign", "flags", "attainable"}
    assert names(TableAudit) >= {"digest", "estimators"}
    assert names(Attainable) >= {"ceiling", "reason"}
    assert "kind" in names(Flag)


def test_each_record_is_read_once(worlds):
    store = worlds["alone"].store
    reads = []

    class Counting:
        study, finished, timing = store.study, store.finished, store.timing

        def load(self, key):
            reads.append(key)
            return store.load(key)

    noted = Noted(Counting())
    checklist(noted, compare(load(noted), resamples=100))
    assert sorted(reads) == sorted(store.runs)


# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checked(worlds):
    w = worlds["plain"].copy()
    hostile = r"weak <b>&amp;_%$x$#{}~^\|"
    for entry in (*w.store.record["runs"], *w.spec["strategies"]):
        for field in ("strategy", "label"):
            if entry.get(field) == "weak":
                entry[field] = hostile
    w.rewrite(_own, hostile)
    return checklist(w.store, w.comparison)


def test_formats_hold_the_same_values(checked):
    made = files(checked)
    assert sorted(made) == sorted(f"checklist.{kind}" for kind in FORMATS)
    found = json.loads(made["checklist.json"])
    assert [i["number"] for i in found["items"]] == list(NUMBERS)
    assert found["counts"] == {s: sum(i["status"] == s for i in found["items"]) for s in STATUSES}
    rows = [line.split(" | ") for line in made["checklist.md"].decode().splitlines() if re.match(r"\| \d", line)]
    statuses = [i["status"] for i in found["items"]]
    assert [r[2].strip("*") for r in rows] == statuses
    assert re.findall(r'class="chip \w+">([\w-]+)<', made["checklist.html"].decode()) == statuses
    body = made["checklist.tex"].decode().partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    assert [re.sub(r"\\textbf\{(.*)\}", r"\1", line.split(" & ")[2]) for line in body.strip().splitlines()] == statuses
    assert [i.number for i in checked.items if i.added] == list(range(15, 24))


def test_user_text_is_harmless_in_every_format(checked):
    assert "weak <b>" not in to_html(checked)
    assert "weak &lt;b&gt;" in to_html(checked)
    lines = [line for line in to_markdown(checked).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}
    text = to_tex(checked)
    assert r"\textless{}b\textgreater{}\&amp;\_\%\$x\$\#\{\}\textasciitilde{}" in text
    assert text.isascii()
    assert r"\toprule" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX engine")
def test_the_table_compiles(checked, tmp_path):
    head = r"\documentclass[twocolumn]{article}\usepackage[T1]{fontenc}\usepackage{textcomp,booktabs,graphicx}"
    (tmp_path / "a.tex").write_text(head + "\\begin{document}\n" + to_tex(checked) + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_evidence_in_the_same_page_is_a_link(checked):
    inside, alone = fragment(checked, within="report.html"), fragment(checked)
    assert '<a href="#anytime">report.html#anytime</a>' in inside
    assert "<a " not in alone


def resolve(evidence, report, store):
    """What a reader finds who follows a piece of evidence."""
    name, _, place = evidence.partition("#")
    root = store if name.split("/")[0] in ("study.json", "runs") else report
    path = root / name
    assert path.exists(), evidence
    if not place:
        return path
    if not place.startswith("/"):
        assert f'id="{place}"' in path.read_text(encoding="utf-8"), evidence
        return place
    value = json.loads(path.read_text(encoding="utf-8").rpartition("\n{")[2] if name.endswith("result.json")
                       else path.read_text(encoding="utf-8"))  # fmt: skip
    for part in place[1:].split("/"):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def test_all_evidence_can_be_followed(worlds, tmp_path):
    store, held = RunStore(tmp_path / "store"), worlds["once"].store
    for key, record in held.runs.items():
        store.commit(record, held.times[key])
    store.write_study(held.record)
    write_report(tmp_path / "store", tmp_path, resamples=100)
    found = json.loads((tmp_path / "checklist.json").read_text(encoding="utf-8"))
    assert found["items"] == checklist(held, worlds["once"].comparison).to_dict()["items"]
    assert len({i["evidence"] for i in found["items"]}) > 8
    for item in found["items"]:
        assert resolve(item["evidence"], tmp_path, tmp_path / "store") not in ("", None), item
    with pytest.raises(KeyError):
        resolve("study.json#/nowhere", tmp_path, tmp_path / "store")
