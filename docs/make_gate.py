"""Measure how often the gate is right, and write the table of docs/gate.md: `python docs/make_gate.py`.

Real runs of unchanged and of changed strategies on the embedded tables are made once, and baselines and fresh seeds are
drawn from them. Both are kept in a temporary folder, to be deleted where anything that they depend on has changed;
started again, the script goes on where it was.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nasbed.harness.gate_looks import Rules, judge
from nasbed.harness.gate_traces import METRICS, run_all, score_all, unwatched
from nasbed.harness.plan import plan
from nasbed.harness.study import Method, Study
from nasbed.methods import registry
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.protocols import Observation, Proposal, SearchSpace, SearchStrategy
from nasbed.protocols.streams import generator
from nasbed.tabular import write_synthetic_table

HERE = Path(__file__).parent
CACHE = Path(tempfile.gettempdir()) / "nasbed-gate-pools"
MARKS = ("<!-- operating characteristics -->\n", "<!-- end -->\n")

TABLES = ("mlp-digits", "nb201-clutter", "rnn4-text")
SYNTHETIC = ("synthetic-1", "synthetic-2", "synthetic-3")
"""Worlds of 15,625 architectures with interactions of genes, searched for 200 evaluations."""

NEEDED, TRIED = 0.9, (20, 50, 100, 150, 200, 300, 400)
STRATEGIES = ("random", "local_search", "aging_evolution")
POOL, CHANGED_POOL, CHUNK = 2000, 500, 100
FIRST_CHANGED = 100_000
REPEATS, RECORDED = 300, 200
RULES = {"default": Rules(), "margin 0.65": Rules(margin=0.65), "one look at 20": Rules(looks=(20,))}


class Changed:
    """A strategy with a fault.

    Args:
        space: Where to search.
        seed: Of every random draw.
        of: The strategy.
        waste: Share of evaluations that repeat the last one and teach nothing.
        blind: Whether all scores look alike to the strategy, so that nothing is selected.
    """

    def __init__(
        self, space: SearchSpace, *, seed: int, of: str = "random", waste: float = 0.0, blind: bool = False
    ) -> None:
        self._inner: SearchStrategy = registry.load("strategies", of)(space, seed=seed)
        self._rng, self._waste, self._blind = generator(seed, "waste"), waste, blind
        self._last: Sequence[Proposal] = ()
        self._wasted = False

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        """The strategy's proposals, or its last ones again."""
        self._wasted = bool(self._last) and self._rng.random() < self._waste
        if not self._wasted:
            self._last = self._inner.ask(n)
        return self._last

    def tell(self, observations: Sequence[Observation]) -> None:
        """What the fault lets through."""
        if self._wasted:
            return
        if self._blind:
            observations = [Observation(o.proposal, 0.0, costs=o.costs) for o in observations]
        self._inner.tell(observations)


def changes(strategy: str) -> dict[str, str]:
    """What is tried on a strategy: a description, and how the changed one is named."""
    found = {"none, other random numbers": strategy}
    if strategy == "random":
        return found
    for waste in (0.1, 0.2, 0.3, 0.5):
        found[f"{waste:.0%} of evaluations wasted"] = f"make_gate:Changed[of={strategy};waste={waste}]"
    found["no selection"] = f"make_gate:Changed[of={strategy};blind=yes]"
    found["random search instead"] = "random"
    return found


def pool(name: str, table: str) -> np.ndarray:
    """Metrics of many runs, (seeds, metrics); those of changed strategies have seeds of their own."""
    own = name in STRATEGIES
    first, size = (0, POOL) if own else (FIRST_CHANGED, CHANGED_POOL)
    parts = []
    for start in range(first, first + size, CHUNK):
        path = CACHE / f"{table}-{name.replace(':', '.')}-{start}.npy"
        if not path.exists():
            method = Method.read(name, "strategies")
            seeds = tuple(range(start, start + CHUNK))
            budget = "200evals" if table in SYNTHETIC else None
            planned = plan(Study((method,), tables=(opened(table),), seeds=seeds, budget=budget))
            ran = run_all(planned, planned.runs, jobs=1, watch=unwatched, what="")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.array(score_all(planned, planned.runs, ran)))
        parts.append(np.load(path))
    return np.concatenate(parts)


def opened(table: str) -> str:
    """An embedded table's name, or the folder of a synthetic one."""
    if table not in SYNTHETIC:
        return table
    folder = CACHE / "tables" / table
    if not (folder / "manifest.json").exists():
        world = Synthetic(genes=6, values=5, world=int(table[-1]), epistasis=2)
        write_synthetic_table(folder, world, noise=0.005)
    return str(folder)


def needed(tables: Sequence[str], strategy: str, name: str) -> str:
    """Fresh seeds per table with which one look finds a change in 90 % of all checks."""
    path = CACHE / f"{'+'.join(tables)}-{strategy}-{name.replace(':', '.')}-needed.txt"
    if not path.exists():
        base, new = [pool(strategy, t) for t in tables], [pool(name, t) for t in tables]
        powers = ((n, rates(base, new, Rules(looks=(n,)), 9)["fail"]) for n in TRIED)
        found = next((str(n) for n, power in powers if power >= NEEDED), f"> {TRIED[-1]}")
        path.write_text(found, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def rates(base: Sequence[np.ndarray], new: Sequence[np.ndarray] | None, rules: Rules, seed: int) -> dict[str, float]:
    """Shares of outcomes over baselines and fresh seeds drawn from pools, and mean fresh seeds per table.

    Args:
        base: For each table, the pool of the recorded strategy.
        new: That of the changed one; None for the same pool, of which other runs are drawn.
        rules: Of the gate.
        seed: Of the draws.
    """
    rng, n = np.random.default_rng(seed), rules.looks[-1]
    count, used = {"fail": 0, "pass": 0, "none": 0}, 0
    for _ in range(REPEATS):
        recorded, fresh = [], []
        for t, x in enumerate(base):
            drawn = rng.choice(len(x), RECORDED + n, replace=False)
            recorded.append(x[drawn[:RECORDED]])
            fresh.append(x[drawn[RECORDED:]] if new is None else new[t][rng.choice(len(new[t]), n, replace=False)])
        for k, seeds in enumerate(rules.looks):
            outcome = judge(_samples([f[:seeds] for f in fresh]), _samples(recorded), k, rules).outcome
            if outcome is not None:
                break
        count[outcome or "none"] += 1
        used += seeds
    return {**{k: v / REPEATS for k, v in count.items()}, "seeds": used / REPEATS}


def _samples(tables: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    return {metric: [x[:, i] for x in tables] for i, metric in enumerate(METRICS)}


def cell(tables: Sequence[str], strategy: str, name: str, rule: str) -> str:
    """Percentages of outcomes, and mean seeds; kept in the folder of the pools once they are known."""
    path = CACHE / f"{'+'.join(tables)}-{strategy}-{name.replace(':', '.')}-{rule}.txt"
    if not path.exists():
        base = [pool(strategy, t) for t in tables]
        new = None if name == strategy else [pool(name, t) for t in tables]
        found = rates(base, new, RULES[rule], list(RULES).index(rule))
        outcomes = " / ".join(f"{100 * found[k]:.1f}" for k in ("fail", "pass", "none"))
        path.write_text(f"{outcomes} ({found['seeds']:.0f})", encoding="utf-8")
    return path.read_text(encoding="utf-8")


def rows(tables: Sequence[str]) -> Iterator[str]:
    """The table, line by line."""
    yield "| strategy | change | " + " | ".join(RULES) + " |"
    yield "|---|---|" + "---|" * len(RULES)
    for strategy in STRATEGIES:
        for what, name in changes(strategy).items():
            yield f"| {strategy} | {what} | " + " | ".join(cell(tables, strategy, name, r) for r in RULES) + " |"


def power(places: Sequence[Sequence[str]]) -> Iterator[str]:
    """How many seeds find what."""
    yield "| tables | strategy | change | fresh seeds per table |"
    yield "|---|---|---|---|"
    for tables in places:
        for strategy in STRATEGIES[1:]:
            for waste in (0.2, 0.3):
                what = f"{waste:.0%} of evaluations wasted"
                where = needed(tables, strategy, changes(strategy)[what])
                yield f"| {', '.join(tables)} | {strategy} | {what} | {where} |"


def text() -> str:
    """Everything between the marks."""
    parts = []
    for tables in (TABLES, ("nb201-clutter",), SYNTHETIC):
        parts += [f"On {', '.join(tables)}:\n", *rows(tables), ""]
    parts += ["Fresh seeds with which a single look finds a change in 90 % of the checks:\n"]
    return "\n".join([*parts, *power((TABLES, ("nb201-clutter",), SYNTHETIC)), ""])


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    page, table = HERE / "gate.md", text()
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    page.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")
