"""What the gate says: verdicts as text, Markdown, JSON and JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from ..protocols import Json
from .gate_baseline import Baseline, environment
from .gate_looks import Look, MetricTest, Rules
from .gate_traces import Divergence

Outcome = Literal["pass", "fail", "inconclusive"]
OnInconclusive = Literal["fail", "warn"]


@dataclass(frozen=True, slots=True)
class Parting:
    """The first architecture that an estimator gives another score, and how many scores of all are other ones."""

    table: str
    seed: int
    architecture: str
    expected: float
    got: float
    differing: int
    scores: int

    def __str__(self) -> str:
        return (
            f"table={self.table} seed={self.seed} arch {self.architecture} score {self.expected!r}→{self.got!r}; "
            f"{self.differing} of {self.scores} scores differ"
        )


@dataclass(frozen=True, slots=True)
class EstimatorTest:
    """New scores against recorded ones.

    Attributes:
        outcome: What the interval says about the margin.
        expected: Mean over the seeds of the Spearman correlation of the recorded scores with the test metric.
        got: That of the new scores.
        difference: New minus recorded.
        low: Lower end of its 95 % interval.
        high: Upper end.
        margin: Loss that is still a pass.
        agreement: Mean Spearman correlation of new and recorded scores of the same seed.
        shift: Mean of new minus recorded score, signed; NaN where no architecture has both.
    """

    outcome: Outcome
    expected: float
    got: float
    difference: float
    low: float
    high: float
    margin: float
    agreement: float
    shift: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one strategy, or estimator.

    Attributes:
        strategy: Its label.
        level: "exact" where traces decided, "statistical" where a test did.
        outcome: Inconclusive: the last look decided nothing.
        word: The outcome as it is printed.
        detail: What it rests on, in a line.
        identical: Traces equal to the recorded ones.
        traces: Traces compared.
        first_divergence: Where the first other one leaves the recorded one.
        metrics: Tests of the look that decided.
        seeds: Fresh seeds per table at that look; 0 without tests.
        stable: Whether the first other run, repeated at once, gave the same trace again.
        improved: Whether a metric is significantly better than recorded. It is reported, and gates nothing.
        estimator: The test of an estimator.
    """

    strategy: str
    level: Literal["exact", "statistical"]
    outcome: Outcome
    word: str
    detail: str
    identical: int
    traces: int
    first_divergence: Divergence | Parting | None = None
    metrics: tuple[MetricTest, ...] = ()
    seeds: int = 0
    improved: bool = False
    stable: bool = True
    estimator: EstimatorTest | None = None

    @property
    def line(self) -> str:
        """All in a line."""
        return f"{self.strategy} {self.level} {self.detail} {self.word}"

    @property
    def reason(self) -> str:
        """The second line: where the runs part, and what that does to the metrics; empty if they do not."""
        if self.first_divergence is None:
            return ""
        moved = [f"mean {m.metric} {m.expected:.3f}→{m.got:.3f}" for m in self.metrics]
        unstable = [] if self.stable else ["not deterministic: this run, repeated, gave yet another trace"]
        return "; ".join([f"first divergence: {self.first_divergence}", *unstable, *moved])


@dataclass(frozen=True, slots=True)
class Checked:
    """A whole check.

    Attributes:
        header: First line of the text.
        verdicts: One for each strategy.
        notes: What may explain a difference.
        digest: sha256 of the baseline.
        baseline: Its file.
    """

    header: str
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    digest: str
    baseline: str

    def code(self, on_inconclusive: OnInconclusive = "fail") -> int:
        """0 pass, 1 regression, 3 inconclusive (0 where that is only a warning)."""
        found = {v.outcome for v in self.verdicts}
        if "fail" in found:
            return 1
        return 3 if "inconclusive" in found and on_inconclusive == "fail" else 0


def exact(label: str, identical: int, traces: int, first: Divergence | None = None, *, stable: bool = True) -> Verdict:
    """The verdict of level 0."""
    outcome: Outcome = "pass" if identical == traces else "fail"
    detail = f"{identical}/{traces} traces identical"
    return Verdict(
        label, "exact", outcome, outcome.upper(), detail, identical, traces, first_divergence=first, stable=stable
    )


def statistical(level_0: Verdict, look: Look, at: int, rules: Rules) -> Verdict:
    """The verdict of level 1, at look number `at`."""
    n = rules.looks[at]
    outcome: Outcome = look.outcome or "inconclusive"
    word = {"pass": "PASS (non-inferior)", "fail": "FAIL", "inconclusive": "INCONCLUSIVE"}[outcome]
    if look.improved and outcome == "pass":
        word = "PASS (improved)"
    parts = [f"n={n} (look {at + 1}/{len(rules.looks)})"]
    parts += [f"{m.metric} θ={m.theta:.3f} [{m.low:.2f},{m.high:.2f}]" for m in look.metrics]
    parts.append(f"p_fail={min(m.p_worse for m in look.metrics):.2g}")
    return replace(
        level_0, level="statistical", outcome=outcome, word=word, detail="  ".join(parts), metrics=look.metrics,
        seeds=n, improved=look.improved,
    )  # fmt: skip


def head(file: Baseline, seeds: int, rules: Rules) -> str:
    """The line above the verdicts."""
    tables, k = len(file.header["tables"]), rules.strategies
    return (
        f"gate: baseline {file.digest[:4]}… ({seeds} seeds \N{MULTIPLICATION SIGN} {_count(tables, 'table')}, "
        f"v{file.header['recorded']['nasbed']})  alpha={rules.alpha:g}"
        f"{f'/{k} strategies' if k > 1 else ''}  margin={rules.margin:g}"
    )


def notes(header: Mapping[str, Json], codes: Mapping[str, str], changed: Sequence[str]) -> tuple[str, ...]:
    """What else is new since the baseline was recorded; asked for only where a trace is."""
    if not changed:
        return ()
    then, now, found = header["recorded"], environment(), []
    for field in ("nasbed", "python", "system", "machine"):
        if then[field] != now[field]:
            found.append(f"{field} {now[field]}, the baseline was recorded with {then[field]}")
    for package, version in then["packages"].items():
        if version != now["packages"].get(package):
            found.append(f"{package} {now['packages'].get(package)}, the baseline was recorded with {version}")
    for m in header["strategies"]:
        if m["label"] in changed and codes[m["label"]] == m["code"]:
            found.append(f"the file that defines {m['label']} is the recorded one: the change is in what it uses")
    return tuple(found)


def render(verdicts: Sequence[Verdict], header: str, notes: Sequence[str] = (), *, code: int | None = None) -> str:
    """The text of a check: a line for each strategy, where it differs a second one, and the result.

    Args:
        verdicts: Of a check.
        header: First line.
        notes: Printed below the header.
        code: Exit code for the last line, if there is one.
    """
    lines = [header, *(f"note: {n}" for n in notes)]
    name, detail = (max(map(len, column)) for column in zip(*((v.strategy, v.detail) for v in verdicts), strict=True))
    for v in verdicts:
        lines.append(f"{v.strategy:<{name}} {v.level:<11} {v.detail:<{detail}}  {v.word}")
        if v.reason:
            lines.append(f"{'':<{name}} {v.reason}")
    lines.append(f"result: {result(verdicts)}" + ("" if code is None else f"   exit {code}"))
    return "\n".join(lines)


def result(verdicts: Sequence[Verdict]) -> str:
    """PASS, or the worst outcome and how many have it."""
    for outcome in ("fail", "inconclusive"):
        if count := sum(v.outcome == outcome for v in verdicts):
            return f"{outcome.upper()} ({count} of {len(verdicts)})"
    return "PASS"


def to_markdown(checked: Checked) -> str:
    """A comment for a pull request."""
    lines = [f"### nasbed gate: {result(checked.verdicts)}", "", checked.header.removeprefix("gate: "), ""]
    lines += [f"- {n}" for n in checked.notes] + ([""] if checked.notes else [])
    lines += ["| strategy | level | | verdict |", "|---|---|---|---|"]
    for v in checked.verdicts:
        lines.append(f"| {_cell(v.strategy)} | {v.level} | {_cell(v.detail)} | **{v.word}** |")
    lines += ["", *(f"- {_cell(v.strategy)}: {_cell(v.reason)}" for v in checked.verdicts if v.reason)]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def to_json(checked: Checked, code: int) -> Json:
    """Every number of a check; a score that is no number is null."""
    return {
        "result": result(checked.verdicts),
        "exit": code,
        "baseline": checked.baseline,
        "digest": checked.digest,
        "header": checked.header,
        "notes": list(checked.notes),
        "verdicts": [_plain({**asdict(v), "line": v.line}) for v in checked.verdicts],
    }


def _plain(value: Json) -> Json:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def to_junit(checked: Checked, on_inconclusive: OnInconclusive) -> str:
    """JUnit XML: a test case for each strategy. An inconclusive one that is only a warning counts as skipped."""
    failed = [v for v in checked.verdicts if v.outcome == "fail" or (v.outcome, on_inconclusive) == _UNDECIDED]
    skipped = [v for v in checked.verdicts if v.outcome == "inconclusive" and v not in failed]
    counts = {"tests": len(checked.verdicts), "failures": len(failed), "skipped": len(skipped), "errors": 0}
    suite = ET.Element("testsuite", {"name": "nasbed gate", **{k: str(n) for k, n in counts.items()}})
    for v in checked.verdicts:
        case = ET.SubElement(suite, "testcase", {"classname": f"nasbed.gate.{v.level}", "name": v.strategy})
        if v in failed or v in skipped:
            kind = "failure" if v in failed else "skipped"
            ET.SubElement(case, kind, {"message": f"{v.word}: {v.detail}"}).text = "\n".join([v.line, v.reason])
        ET.SubElement(case, "system-out").text = "\n".join(filter(None, [checked.header, v.line, v.reason]))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


_UNDECIDED = ("inconclusive", "fail")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
