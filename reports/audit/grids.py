"""What the tables of an audit hold: grids of cells, before any format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..grids import Cell, Column, Grid
from ..statistics import Interval
from ..words import NOTHING, number, p_text, percent, signed
from .figures import stem
from .results import Attainable, Decision, EstimatorAudit, FeatureBias, TableAudit

RANDOM = "random ranking"
NAN = math.nan
UNKNOWN = Attainable(Interval(NAN, NAN, NAN, NAN, "", 0), NAN, NAN, NAN, NAN, NAN, NAN)


def table_grids(table: TableAudit) -> tuple[Grid, ...]:
    """Every table of numbers about one benchmark table."""
    found = [correlations(table), attainable(table), tops(table), biases(table)]
    if any(e.calibration for e in table.estimators):
        found.append(calibrations(table))
    if table.fidelities:
        found.append(fidelities(table))
    if any(e.decision for e in table.estimators):
        found.append(decisions(table))
    if table.factorial:
        found.append(factorial(table))
    return (*found, costs(table))


def correlations(table: TableAudit) -> Grid:
    """Every rank correlation with its interval, the share without a score, and ties."""
    heads = {
        "tau_b": "τ-b", "spearman": "Spearman", "weighted_tau": "weighted τ", "weighted_tau_by_truth": "by truth",
        "sparse_tau": "sparse τ", "pearson": "Pearson",
    }  # fmt: skip
    columns = [Column("estimator", "Estimator")]
    columns += [Column(k, h, better="higher") for k, h in heads.items()]
    columns += [
        Column("discordance", "Discordance", "pp" if table.metric == "accuracy" else table.metric, "lower"),
        Column("unscored", "No score", "%"),
        Column("ties", "Ties", "%"),
    ]
    scale = 100.0 if table.metric == "accuracy" else 1.0
    rows = [
        (
            _name(e),
            *(interval_cell(e.correlations.get(k)) for k in heads),
            interval_cell(e.correlations.get("discordance"), scale=scale),
            Cell(percent(e.unscored / e.n, 1), {"unscored": e.unscored}),
            Cell(percent(e.ties, 0), {"ties": e.ties}),
        )
        for e in table.estimators
    ]
    caption = (
        f"Correlation of scores with test {table.metric} on {table.table}, mean over {_seeds(table.seeds)}, higher"
        f" scores being better after each estimator's declared sign; {_intervals(table)}. Weighted τ counts errors"
        " among the best most, by both rankings or by the truth alone; sparse τ does not tell apart what lies in one"
        " bin of the truth (0.1 pp, or a hundredth of its deviation). Discordance: mean loss over pairs of choosing"
        " the higher score. Architectures without a score rank last, tied; ties are the share of architectures whose"
        " score another one has. Bold: baselines."
    )
    return Grid(
        stem("correlations", table.table), f"Correlations on {table.table}", caption, tuple(columns), tuple(rows)
    )


def attainable(table: TableAudit) -> Grid:
    """Observed correlations beside what a perfect estimator would reach."""
    columns = (
        Column("estimator", "Estimator"),
        Column("tau_b", "τ-b", better="higher"), Column("ceiling", "ceiling"), Column("share", "reached", "%"),
        Column("spearman", "Spearman", better="higher"), Column("ceiling_spearman", "ceiling"),
        Column("disattenuated", "without noise"),
        Column("top_tau_b", "τ-b, top", better="higher"), Column("top_ceiling", "ceiling, top"),
        Column("beyond_params", "given parameters", better="higher"),
    )  # fmt: skip
    rows = []
    for e in table.estimators:
        tau, rho = (e.attainable.get(name, UNKNOWN) for name in ("tau_b", "spearman"))
        top = e.top_attainable.get("tau_b", UNKNOWN)
        rows.append((
            _name(e), interval_cell(tau.observed), plain_cell("ceiling", tau.ceiling), _share(tau),
            interval_cell(rho.observed), plain_cell("ceiling_spearman", rho.ceiling),
            plain_cell("disattenuated", rho.disattenuated, beyond=1.0),
            interval_cell(top.observed), plain_cell("top_ceiling", top.ceiling), interval_cell(e.beyond_params),
        ))  # fmt: skip
    caption = (
        f"What the noise of {_seeds(table.seeds)} lets anybody reach on {table.table}: the ceiling is the correlation"
        " of a perfect estimator with the recorded means, Spearman's by the reliability of these (Spearman and Brown),"
        " τ's from the same by Greiner's relation. Without noise: corrected for the noise of truth and estimator;"
        " values above 1 are printed as ≥ 1. Top: within the best by the truth. Given parameters:"
        " partial rank correlation, what the estimator adds to counting them."
    )
    return Grid(stem("attainable", table.table), f"What is attainable on {table.table}", caption, columns, tuple(rows))


def tops(table: TableAudit) -> Grid:
    """Whether the best are found: one line per estimator at two sizes, beside a random ranking."""
    shown = _chosen(table)
    unit = "pp" if table.metric == "accuracy" else table.metric
    scale = 100.0 if table.metric == "accuracy" else 1.0
    columns = [Column("estimator", "Estimator")]
    for i in shown:
        k = table.estimators[0].tops[i].k
        columns += [
            Column(f"p_top_{k}", f"P@top {k}", better="higher"), Column(f"best_rank_{k}", f"BR@{k}", better="lower"),
            Column(f"n_at_{k}", f"n@{k}", better="lower"), Column(f"regret_{k}", f"regret@{k}", unit, "lower"),
        ]  # fmt: skip
    rows = [(_name(e), *_top_cells(e, shown, scale)) for e in table.estimators]
    if table.estimators and shown:
        first = table.estimators[0]
        cells: list[Cell] = []
        for i in shown:
            r = first.tops[i].random
            cells += [
                plain_cell("p_top", r["p_top"]), plain_cell("best_rank", r["best_rank"], 3),
                Cell(number(r["n_at"]), {"n_at": r["n_at"]}),
                Cell(signed(r["regret"] * scale, 2), {"regret": r["regret"]}),
            ]  # fmt: skip
        rows.append((Cell(RANDOM, {"estimator": RANDOM}), *cells))
    caption = (
        f"Finding the best of {table.n} architectures on {table.table} (Ning et al. 2021): P@top k is the share of the"
        " true best k among the predicted, BR@k the true rank of the best predicted, as a share, n@k how many full"
        " trainings in the predicted order meet one of the true best k, regret@k what the best of the predicted k"
        " lacks. Last line: expectation of a random ranking."
    )
    return Grid(stem("top", table.table), f"Finding the best on {table.table}", caption, tuple(columns), tuple(rows))


def biases(table: TableAudit) -> Grid:
    """The unjustified shift of every estimator by every feature."""
    features = list(dict.fromkeys(b.feature for e in table.estimators for b in e.biases))
    columns = (Column("estimator", "Estimator"), *(Column(f, f) for f in features))
    rows = []
    for e in table.estimators:
        mine = {b.feature: b for b in e.biases}
        rows.append((_name(e), *(_bias(mine.get(f)) for f in features)))
    caption = (
        f"Bias on {table.table}: shift in the ranking, in shares of it, per operation, layer or fifth of a size, that"
        " the quality of the architectures does not justify; positive is over-ranked. The noise of the truth is taken"
        " out by using training seeds as instruments for each other. Bold: told apart from 0 after Holm's correction."
    )
    return Grid(stem("bias", table.table), f"Bias on {table.table}", caption, columns, tuple(rows))


def bias_details(table: TableAudit, e: EstimatorAudit) -> Grid:
    """Everything about the bias of one estimator."""
    columns = (
        Column("feature", "Feature"), Column("effect", "Shift"), Column("p", "p (Holm)"), Column("raw", "raw"),
        Column("truth", "truth"), Column("excess", "excess"), Column("partial", "partial"),
        Column("corrected", "corrected"), Column("verdict", "In words", text=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(b.feature, {"feature": b.feature}), _bias(b), Cell(p_text(b.p_effect_holm), {"p": b.p_effect_holm}),
            plain_cell("raw", b.raw), plain_cell("truth", b.truth), plain_cell("excess", b.excess),
            interval_cell(b.partial),
            interval_cell(b.corrected), Cell(b.reason or b.sentence),
        )
        for b in e.biases
    )  # fmt: skip
    caption = (
        f"Bias of {e.name} on {table.table}. Raw and truth: rank correlation of the feature with scores and with"
        " quality; excess is their difference. Partial: with the scores, given the quality as it was measured;"
        " corrected for the noise of that. A truthful estimator has a shift of 0, and a corrected value near it, but"
        " none of the others."
    )
    return Grid(stem("bias", table.table, e.name), "Bias in detail", caption, columns, rows)


def calibrations(table: TableAudit) -> Grid:
    """Errors on the scale of the metric."""
    percents = table.metric == "accuracy"
    unit, scale = ("pp", 100.0) if percents else (table.metric, 1.0)
    columns = (
        Column("estimator", "Estimator"), Column("mean_error", "Mean error", unit), Column("sd_error", "sd", unit),
        Column("rmse", "RMSE", unit), Column("mae", "MAE", unit), Column("slope", "slope"),
        Column("spread", "spread ratio"),
    )  # fmt: skip
    rows = []
    for e in table.estimators:
        if (c := e.calibration) is not None:
            numbers = {"sd_error": c.sd_error, "rmse": c.rmse, "mae": c.mae}
            rows.append((
                _name(e), interval_cell(c.mean_error, scale=scale),
                *(Cell(signed(v * scale, 2), {k: v}) for k, v in numbers.items()),
                plain_cell("slope", c.slope), plain_cell("spread", c.spread),
            ))  # fmt: skip
    caption = (
        f"Estimators on the accuracy scale on {table.table}: error is estimate less truth, so negative under-estimates;"
        " its standard deviation is the part that can change a ranking. Slope: of the truth on the estimate."
        " Spread ratio: standard deviation of estimates over that of the truth."
    )
    return Grid(stem("calibration", table.table), f"Calibration on {table.table}", caption, columns, tuple(rows))


def fidelities(table: TableAudit) -> Grid:
    """Every recorded fidelity."""
    scale = 100.0 if table.metric == "accuracy" else 1.0
    unit = "pp" if table.metric == "accuracy" else table.metric
    columns = (
        Column("fidelity", "Fidelity"), Column("cost", "Cost", "trainings", "lower"),
        Column("tau_b", "τ-b", better="higher"), Column("disorder", "Disorder", better="lower"),
        Column("crossing", "Crossing, top", better="lower"), Column("regret", "regret@10", unit, "lower"),
        Column("switch", "Switch regret", unit, "lower"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(p.name, {"fidelity": p.name}), plain_cell("cost", p.cost), plain_cell("tau_b", p.tau_b),
            plain_cell("disorder", p.disorder), plain_cell("crossing", p.crossing),
            Cell(signed(p.regret_at.get(10, math.nan) * scale, 2), {"regret": p.regret_at.get(10, math.nan)}),
            Cell(signed(p.switch_regret * scale, 2), {"switch": p.switch_regret}),
        )
        for p in table.fidelities
    )  # fmt: skip
    others = any(p.others_only for p in table.fidelities)
    caption = (
        f"Trainings of lower fidelity on {table.table} against full ones: disorder is the share of discordant pairs,"
        " crossing the same among the true best tenth; switch regret is what promoting a third of a random pool of 27"
        f" loses.{' The truth is that of the training seeds that an estimate did not see.' if others else ''}"
    )
    return Grid(stem("fidelity", table.table), f"Fidelities on {table.table}", caption, columns, rows)


def decisions(table: TableAudit) -> Grid:
    """What an estimate costs a search."""
    columns = (
        Column("estimator", "Estimator"), Column("ee", "Regret", "nr", "lower"), Column("total", "beyond the truth's"),
        Column("selection", "by selection"), Column("guidance", "by guidance"),
        Column("top", "10 trained", "nr", "lower"), Column("gain", "at that cost"),
    )  # fmt: skip
    rows = [(_name(e), *_decision_cells(e.decision)) for e in table.estimators if e.decision]
    d = next(e.decision for e in table.estimators if e.decision)
    caption = (
        f"Searches by {d.strategy} on {table.table} ({d.decisions} decisions, {d.seeds} searches, paired): normalised"
        " regret of searching and picking with the estimate, what of it exceeds a search that sees the truth, and its"
        " parts: selection is saved by training all that was visited, guidance is not. 10 trained: the ten visited of"
        " the highest score are trained and paid for. At that cost: against a search with the truth that may spend as"
        " much; negative means that the estimate is worth its cost."
    )
    title = f"Cost of a bad estimate on {table.table}"
    return Grid(stem("decisions", table.table), title, caption, columns, tuple(rows))


def factorial(table: TableAudit) -> Grid:
    """Regret of every strategy with every estimator."""
    f = table.factorial
    assert f is not None
    columns = (Column("strategy", "Strategy"), *(Column(e, e, "nr", "lower") for e in f.estimators))
    rows = tuple(
        (
            Cell(s, {"strategy": s}),
            *(
                Cell(f"{r:.3f} ({signed(i, 3, plus=True)})", {"": r, "interaction": i})
                for r, i in zip(regrets, inter, strict=True)
            ),
        )
        for s, regrets, inter in zip(f.strategies, f.regrets, f.interaction, strict=True)
    )
    shares = ", ".join(f"{k} {percent(v)} %" for k, v in f.share.items())
    caption = (
        f"Normalised regret of strategies with estimators on {table.table}; in parentheses what a cell departs from"
        f" the sum of its row and its column. Variance between cells: {shares}; no interaction: p {_p(f.p)}."
    )
    return Grid(stem("factorial", table.table), f"Strategies by estimators on {table.table}", caption, columns, rows)


def costs(table: TableAudit) -> Grid:
    """What scores cost."""
    columns = (
        Column("estimator", "Estimator"), Column("preparation", "Preparation", "trainings"),
        Column("answer", "An answer", "trainings"), Column("all", "Whole table", "trainings"),
        Column("seeds", "Seeds"), Column("fitted", "Fitted on"), Column("source", "Source", text=True),
    )  # fmt: skip
    rows = tuple(
        (
            _name(e), _cost("preparation", e.preparation), _cost("answer", e.answer),
            _cost("all", e.preparation + e.answer * e.n), Cell(str(e.seeds), {"seeds": e.seeds}),
            Cell(f"{e.fitted:g}", {"fitted": e.fitted}), Cell(e.source[:40], {"source": e.source}),
        )
        for e in table.estimators
    )  # fmt: skip
    caption = (
        f"Costs in median full trainings on {table.table}: before the first answer, of an answer, of scoring the whole"
        " table. Fitted on: architectures per seed that served to fit the estimator; they are left out of its numbers."
    )
    return Grid(stem("costs", table.table), f"Costs on {table.table}", caption, columns, rows)


def _name(e: EstimatorAudit) -> Cell:
    return Cell(e.name, {"estimator": e.name}, (), "bold" if e.baseline else "")


def interval_cell(interval: Interval | None, places: int = 2, *, scale: float = 1.0) -> Cell:
    """`0.62 [0.58, 0.66]`, a dash where it is undefined."""
    if interval is None or math.isnan(interval.estimate):
        return Cell(NOTHING, {"": math.nan})
    numbers = {"": interval.estimate, "low": interval.low, "high": interval.high}
    estimate = signed(interval.estimate * scale, places)
    if math.isnan(interval.low):
        return Cell(estimate, numbers)
    low, high = (signed(v * scale, places) for v in (interval.low, interval.high))
    return Cell(f"{estimate} [{low}, {high}]", numbers)


def plain_cell(key: str, value: float | None, places: int = 2, *, beyond: float = math.inf) -> Cell:
    """A number; above `beyond` it is said to be that or more, and kept as it is."""
    if value is None or math.isnan(value):
        return Cell(NOTHING, {key: math.nan})
    return Cell(f"≥ {beyond:g}" if value > beyond else signed(value, places), {key: value})


def _share(a: Attainable) -> Cell:
    if math.isnan(a.share):
        return Cell(NOTHING, {"share": math.nan})
    return Cell(percent(a.share), {"share": a.share})


def _bias(b: FeatureBias | None) -> Cell:
    if b is None or math.isnan(b.effect.estimate):
        return Cell(NOTHING, {"": math.nan})
    cell = interval_cell(b.effect)
    return Cell(cell.text, cell.numbers, (), "bold" if b.biased else "")


def _cost(key: str, value: float) -> Cell:
    return Cell(NOTHING if math.isnan(value) else number(value), {key: value})


def _decision_cells(d: Decision | None) -> tuple[Cell, ...]:
    assert d is not None
    ten = d.top_k.get(10)
    return (
        interval_cell(d.ee, 3), interval_cell(d.total, 3), interval_cell(d.selection, 3), interval_cell(d.guidance, 3),
        interval_cell(ten, 3), interval_cell(d.top_k_gain.get(10), 3),
    )  # fmt: skip


def _chosen(table: TableAudit) -> list[int]:
    """Places of the two sizes that are shown: those nearest to 1 and 10 %."""
    if not table.estimators:
        return []
    shares = [t.share for t in table.estimators[0].tops]
    return sorted({min(range(len(shares)), key=lambda i: abs(math.log(shares[i] / want))) for want in (0.01, 0.1)})


def _top_cells(e: EstimatorAudit, shown: Sequence[int], scale: float) -> list[Cell]:
    cells: list[Cell] = []
    for i in shown:
        t = e.tops[i]
        values: Mapping[str, Any] = {"n_at": t.n_at}
        cells += [
            plain_cell("p_top", t.p_top), plain_cell("best_rank", t.best_rank, 3), Cell(number(t.n_at), values),
            Cell(signed(t.regret * scale, 2), {"regret": t.regret}),
        ]  # fmt: skip
    return cells


def _seeds(n: int) -> str:
    return f"{n} training seed" + ("" if n == 1 else "s")


def _intervals(table: TableAudit) -> str:
    methods = {e.correlations["tau_b"].method for e in table.estimators}
    what = {"seeds": "training and estimator seeds, the architectures being all there are"}
    return "in brackets 95 % intervals over " + " or ".join(sorted(what.get(m, m) for m in methods))


def _p(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"
