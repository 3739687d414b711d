"""The report of the self-reinforcement protocol: what a policy that learns from its own supernet does to the scores."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from ..figures import COLOURS, COLUMN, INK, STYLE, Drawing, drawing
from ..grids import Cell, Column, Grid
from ..results import plain
from .figures import stem
from .grids import interval_cell, plain_cell
from .page import Block, Report
from .reinforcement import Reinforcement, unit_of

ARMS = {"uniform": "uniform", "optimised": "by the policy", "shuffled": "as often, shuffled"}


def report(found: Reinforcement, table: str, metric: str, how: Sequence[tuple[str, str]]) -> Report:
    """The report of one table.

    Args:
        found: What to say.
        table: Name.
        metric: Of the qualities.
        how: Names and values of what was done, for the card and the provenance.
    """
    drawings = [optimism(found, table, metric), entropy(found, table)]
    block = Block(
        stem("table", table),
        table,
        [
            "Three supernets for every seed, of as many steps: architectures drawn uniformly; drawn by a policy that"
            " learns from their scores as the supernet trains; and as often as by the policy, but other ones, so that"
            " concentration is told from learning. All are scored on the same architectures."
        ],
        how,
        [d.name for d in drawings],
        [arms(found, table, metric), contrasts(found, table, metric)],
    )
    return Report(
        f"One-shot models on {table}",
        "Does a policy that learns from a shared model see its own favourites better than they are?",
        [("finding", v) for v in found.verdicts],
        [] if len(found.seeds) > 2 else ["fewer than 3 seeds: no intervals"],
        [block],
        {d.name: d for d in drawings},
        {"reinforcement": plain(found), "tables": []},
        how,
    )


def optimism(found: Reinforcement, table: str, metric: str) -> Drawing:
    """Over-estimation of the policy's favourites, by arm."""
    scale, unit = unit_of(metric)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 1.7))
        axes = figure.add_subplot()
        for row, (name, label) in enumerate(ARMS.items()):
            gap = found.arms[name].optimism
            axes.plot([scale * gap.low, scale * gap.high], [row, row], color=COLOURS[row], lw=1.4)
            axes.plot(scale * gap.estimate, row, marker="o", color=COLOURS[row], label=label)
        axes.axvline(0, color=INK, lw=0.6)
        axes.set_yticks(range(len(ARMS)), list(ARMS.values()))
        axes.set_ylim(len(ARMS) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set_xlabel(f"optimism for the policy's favourites ({unit})")
        caption = (
            f"Optimism gap on {table}: how much more the final policy's favourites are over-estimated than"
            " architectures drawn uniformly, in supernets trained in three ways; 95 % intervals over seeds and draws."
        )
        said = "; ".join(
            f"{label} {interval_cell(found.arms[n].optimism, scale=scale).text}" for n, label in ARMS.items()
        )
        return drawing(stem("optimism", table), "Optimism", caption, f"{caption} {said} {unit}.", figure)


def entropy(found: Reinforcement, table: str) -> Drawing:
    """Of the policy over its training."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 1.9))
        axes = figure.add_subplot()
        steps = len(found.entropy)
        axes.plot([i / max(steps - 1, 1) for i in range(steps)], found.entropy, color=COLOURS[1])
        axes.set(xlabel="share of the training", ylabel="entropy of the policy", ylim=(0, 1.05))
        caption = (
            f"Lock-in on {table}: entropy of the policy over log of the size of the space; 1 is uniform, 0 one"
            " architecture."
        )
        alt = f"{caption} At the end {found.entropy[-1]:.2f}."
        return drawing(stem("entropy", table), "Lock-in", caption, alt, figure)


def arms(found: Reinforcement, table: str, metric: str) -> Grid:
    """Every statistic of the three supernets."""
    scale, unit = unit_of(metric)
    columns = (
        Column("arm", "Trained on"), Column("optimism", "Optimism", unit),
        Column("given", "at equal quality", unit),
        Column("exposure", "exposure bias"), Column("tau_b", "τ-b", better="higher"),
        Column("regret", "Regret", unit, "lower"), Column("error", "Mean error", unit),
        Column("spread", "spread ratio"),
    )  # fmt: skip
    rows = []
    for name, label in ARMS.items():
        a = found.arms[name]
        rows.append((
            Cell(label, {"arm": name}), interval_cell(a.optimism, scale=scale),
            interval_cell(a.given_quality, scale=scale), interval_cell(a.exposure_bias), interval_cell(a.tau_b),
            interval_cell(a.regret, scale=scale), interval_cell(a.error, scale=scale), interval_cell(a.spread),
        ))  # fmt: skip
    caption = (
        f"Supernets on {table} over {len(found.seeds)} seeds. Optimism: mean of score less quality among the favourites"
        " of the final policy, less that among architectures drawn uniformly; at equal quality: beyond uniformly drawn"
        " ones that are as good. Exposure bias: partial rank correlation of how often an architecture was trained with"
        " its error, given its quality. τ-b, regret of the best score, mean error and spread ratio (Bender et al. 2018)"
        " are among those drawn uniformly."
    )
    return Grid(stem("arms", table), "Three supernets", caption, columns, tuple(rows))


def contrasts(found: Reinforcement, table: str, metric: str) -> Grid:
    """What the arms say together."""
    scale, unit = unit_of(metric)
    pp = {
        "reinforcement": ("reinforcement: by the policy less shuffled", found.reinforcement),
        "beyond_uniform": ("by the policy less uniform", found.beyond_uniform),
        "given_quality": ("reinforcement at equal quality", found.given_quality),
        "policy_gain": ("what the policy is worth: quality of favourites less that of all", found.policy_gain),
    }
    rows = [(Cell(label, {"what": k}), interval_cell(i, scale=scale), Cell(unit)) for k, (label, i) in pp.items()]
    rows += [
        (Cell("lock-in: early sharing and final probability, given quality", {"what": "lock_in"}),
         interval_cell(found.lock_in), Cell("ρ")),  # noqa: RUF001
        (Cell("pairs of seeds that end in different architectures", {"what": "winners"}),
         plain_cell("winners", found.winners_differ.value), Cell("share")),
        (Cell("agreement of seeds on what is trained", {"what": "exposure"}),
         plain_cell("exposure", found.exposure_agreement.value), Cell("ρ")),  # noqa: RUF001
    ]  # fmt: skip
    caption = f"What the three supernets on {table} say together, with 95 % intervals where there are three seeds."
    columns = (Column("what", "Contrast"), Column("value", "Value"), Column("unit", "Unit", text=True))
    return Grid(stem("contrasts", table), "Contrasts", caption, columns, tuple(rows))
