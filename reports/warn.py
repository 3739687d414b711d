"""What a reader has to know before believing the numbers of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .frame import StudyData
from .results import Metric, Pair, RunScore

RECOMMENDED = 30
FLOOR = 10
REFUSED = 5


def warnings_of(
    data: StudyData, runs: Sequence[RunScore], metrics: Sequence[Metric], pairs: Sequence[Pair], compared: Sequence[str]
) -> tuple[str, ...]:
    """Sentences, the gravest first; empty if there is nothing to say."""
    return (
        *_absent(data, compared),
        *_seeds(data, runs, compared),
        *_evaluations(data),
        *_spending(data),
        *_rope(data, metrics),
        *_optimum(data, runs, compared),
        *_tables(data),
        *_pairing(pairs),
    )


def _absent(data: StudyData, compared: Sequence[str]) -> Iterator[str]:
    for method in data.methods:
        for place in data.places:
            missing = [a for a in data.absent if (a.method, a.table) == (method.label, place)]
            if not missing:
                continue
            done = int(((data.runs["method"] == method.label) & (data.runs["table"] == place)).sum())
            yield (
                f"{len(missing)} of {len(missing) + done} runs of {method.label} on {place} have no result"
                f" (first: seed {missing[0].seed}, {missing[0].error}); its numbers are those of the runs that"
                " finished,"
                " which may flatter it"
            )
    for method in data.methods:
        if method.label not in compared:
            yield f"{method.label} has no finished run on some table and is left out of every comparison"


def _seeds(data: StudyData, runs: Sequence[RunScore], compared: Sequence[str]) -> Iterator[str]:
    counts = {
        (m, p): tuple(sorted(r.seed for r in runs if (r.method, r.table) == (m, p)))
        for m in compared
        for p in data.places
    }
    fewest = min(map(len, counts.values()))
    if fewest < REFUSED:
        yield (
            f"only {fewest} seeds: no bootstrap interval is printed under {REFUSED}, and t intervals of so few"
            " cover less"
            f" than they say; {RECOMMENDED} seeds per table are recommended"
        )
    elif fewest < FLOOR:
        yield f"only {fewest} seeds per table: differences are unreliable under {FLOOR}; {RECOMMENDED} are recommended"
    for place in data.places:
        if len({counts[m, place] for m in compared}) > 1:
            numbers = ", ".join(f"{m} {len(counts[m, place])}" for m in compared)
            yield f"the methods did not finish the same seeds on {place} ({numbers})"


def _evaluations(data: StudyData) -> Iterator[str]:
    for label, rows in data.runs.groupby("method", sort=False):
        unusable, total = int(rows["unusable"].sum()), int(rows["evaluations"].sum())
        if unusable:
            yield f"{unusable} of {total} evaluations of {label} were invalid or crashed, and charged all the same"


def _spending(data: StudyData) -> Iterator[str]:
    if not data.tabular:
        return
    share = data.runs["total_cost"] / data.runs["table"].map({t.name: t.budget for t in data.tables})
    for label, rows in data.runs.assign(share=share).groupby("method", sort=False):
        over = int((rows["share"] > 1.0 + 1e-9).sum())
        if over:
            yield f"{label} spent more than the budget in {over} runs: costs are unequal"
        early = rows[(rows["stopped"] != "budget") & (rows["share"] < 0.9)]
        if len(early):
            reasons = ", ".join(sorted(set(early["stopped"])))
            yield (
                f"{len(early)} of {len(rows)} runs of {label} ended early ({reasons}), after"
                f" {100 * early['share'].median():.0f} % of the budget at the median"
            )


def _rope(data: StudyData, metrics: Sequence[Metric]) -> Iterator[str]:
    for table in data.tables:
        error = table.seed_noise / np.sqrt(table.training_seeds) / table.scale
        if np.isnan(error):
            yield f"{table.name} has one training per architecture: its seed noise is unknown"
        if metrics[0].rope < error:
            yield (
                f"on {table.name} the reported quality itself has a standard error of {error:.3f} normalised"
                " regret from"
                f" {table.training_seeds} training seeds, more than the region of practical equivalence"
                f" ({metrics[0].rope:g})"
            )


def _optimum(data: StudyData, runs: Sequence[RunScore], compared: Sequence[str]) -> Iterator[str]:
    for table in data.tables:
        finals = {
            m: [r.values["regret_final"] for r in runs if (r.method, r.table) == (m, table.name)] for m in compared
        }
        there = [m for m, values in finals.items() if np.mean(np.array(values) == 0.0) > 0.5]
        if there:
            yield (
                f"more than half of the runs of {', '.join(there)} end at the optimum of {table.name}: final"
                " regret hardly"
                " separates methods there, read the late area"
            )


def _tables(data: StudyData) -> Iterator[str]:
    for table in data.tables:
        coverage = table.other.get("coverage", "complete")
        if coverage != "complete":
            yield f"{table.name} covers its space only as {coverage}: its best architecture is the best known one"


def _pairing(pairs: Sequence[Pair]) -> Iterator[str]:
    unpaired = [p for p in pairs if not p.paired and not p.correlation.reason]
    if unpaired:
        yield "training seeds were redrawn at every query, so equal seeds share no noise: intervals are not paired"
