"""The checks of performance estimators. See `harness.checks`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import isfinite, isnan
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np

from ..methods import registry
from ..protocols import (
    COST_KINDS,
    UNITS,
    Cost,
    DataView,
    Observation,
    PerformanceEstimator,
    Pipeline,
    Proposal,
    SearchSpace,
    Setting,
    Split,
    Task,
    Traits,
)
from ..tabular import MappedTable, write_table
from .checks_tools import generator, global_generators, require, some

SPACES = (
    "mlp[hidden=2;widths=8,16;activations=relu;dropout=no]",
    "nb201[ops=none,skip_connect,nor_conv_3x3;channels=2;cells=1]",
)
ASKED = 3
PIPELINE = Pipeline("check", "adam", 3e-3, 3, 16)
TASK = Task("stripes", "image", "accuracy", True, (1, 8, 8), 4, "0" * 64)


World = tuple[SearchSpace, Setting]
Run = tuple[tuple[Cost, ...], list[Observation]]
"""What preparing cost, and the answers to a few proposals."""


@dataclass(frozen=True)
class Subject:
    """An estimator under check: its class and parameters."""

    cls: Any
    params: Mapping[str, Any]

    def make(self) -> Any:
        """A new instance, not prepared."""
        return self.cls(**self.params)

    @cached_property
    def worlds(self) -> list[World]:
        """Those in which it works; Violation where it refuses all of them, or one in more than a line."""
        refusals, found = [], []
        for space, setting in _worlds():
            made = self.make()
            try:
                if hasattr(made, "fits"):
                    made.fits(setting)
                made.prepare(space, setting, seed=0)
            except ValueError as error:
                require("\n" not in str(error), f"a refusal is not one line: {str(error)!r}")
                refusals.append(f"{space.name}: {error}")
                continue
            found.append((space, setting))
        require(bool(found), f"{self.cls.__name__} fits none of the worlds of the checks: {'; '.join(refusals)}")
        return found

    def run(self, seed: int = 0, *, backwards: bool = False) -> list[Run]:
        """In each world a new instance that answers a few proposals, in one call."""
        found = []
        for space, setting in self.worlds:
            estimator: PerformanceEstimator = self.make()
            costs = tuple(estimator.prepare(space, setting, seed=seed))
            proposals = [Proposal(a) for a in some(space, ASKED)][:: -1 if backwards else 1]
            found.append((costs, list(estimator.estimate(proposals))[:: -1 if backwards else 1]))
        return found

    @cached_property
    def first(self) -> list[Run]:
        """The run that others are held against."""
        return self.run()

    @property
    def answers(self) -> list[Observation]:
        """Of the first run, in all worlds."""
        return [o for _, observations in self.first for o in observations]


@lru_cache(maxsize=1)
def _worlds() -> tuple[World, ...]:
    """Perceptrons to train for real, and cells in a table, beside which there are data to look at."""
    from ..protocols.training import ReferenceTrainer

    view, (perceptrons, cells) = _stripes(), map(registry.space, SPACES)
    trainer = ReferenceTrainer(perceptrons, device="cpu")
    return (
        (perceptrons, Setting(TASK, "epochs", PIPELINE, lambda a: 0, view, trainer=trainer)),
        (cells, Setting(TASK, "epochs", PIPELINE, lambda a: 0, view, table=_table(cells))),
    )


def _stripes() -> DataView:
    """Noisy stripes of four directions, so that there is something to learn."""
    rng, splits = generator(), []
    rows, columns = np.mgrid[:8, :8]
    patterns = np.stack([np.sin(k) for k in (rows, columns, rows + columns, rows - columns)])
    for n in (64, 48):
        y = rng.integers(4, size=n)
        x = patterns[y][:, None] + 0.3 * rng.standard_normal((n, 1, 8, 8))
        splits.append(Split(x.astype(np.float32), y))
    return DataView(TASK, *splits)


def _table(space: Any) -> MappedTable:
    """A table whose accuracies rise with the number of parameters, with noise and over the epochs."""
    rng, members = generator(), [space.at(i) for i in range(space.size)]
    size = np.array([np.log(space.features(a, TASK)["params"] + 10) for a in members])
    level = 0.3 + 0.5 * (size - size.min()) / np.ptp(size)
    curves = level[:, None, None] * (1 - np.exp(-np.arange(1.0, 4.0))) + 0.01 * rng.standard_normal((len(size), 2, 3))
    counts = np.rint(curves * 1000).astype(np.uint16)
    arrays = {f"{split}.check": counts for split in ("train", "valid", "test")} | {"cost.check": np.exp(size)}
    for text in ("data=0.25", "resolution=0.5", "width=0.5", "depth=0.5"):  # what estimators ask for if told nothing
        arrays |= {f"valid.check@{text}": counts // 2, f"cost.check@{text}": np.exp(size) / 4}
    manifest = {"name": "check", "clock": "flops", "task": TASK, "pipelines": {"check": PIPELINE}}
    manifest["examples"] = {"train": 1000, "valid": 1000, "test": 1000}
    folder = tempfile.TemporaryDirectory(prefix="nasbed-check-")
    table = MappedTable(write_table(Path(folder.name) / "table", space, arrays, manifest))
    _FOLDERS.append(folder)  # as long as the table is mapped
    return table


_FOLDERS: list[Any] = []


def _valid(costs: Sequence[Cost], what: str) -> None:
    for cost in costs:
        require(isinstance(cost, Cost), f"{what} cost {cost!r}, not a Cost")
        require(cost.kind in COST_KINDS, f"{what}: cost kind {cost.kind!r} is not one of {COST_KINDS}")
        require(isfinite(cost.amount) and cost.amount >= 0, f"{what} cost {cost.amount}; allowed: finite, at least 0")


def declares_its_traits(s: Subject) -> None:
    """The class says what its scores are: an attribute `traits`, with a sign of 1 or -1."""
    traits = getattr(s.cls, "traits", None)
    require(isinstance(traits, Traits), f"{s.cls.__name__}.traits is {traits!r}, not a protocols.Traits")
    assert isinstance(traits, Traits)
    require(traits.sign in (1, -1), f"{s.cls.__name__}.traits.sign is {traits.sign}; allowed: 1, -1")


def fits_somewhere(s: Subject) -> None:
    """It works on perceptrons trained for real or on cells in a table, and refuses what it cannot do in one line."""
    require(bool(s.worlds), "it fits nowhere")
    require(isinstance(s.make(), PerformanceEstimator), f"{s.cls.__name__} has no prepare or no estimate")


def answers_every_proposal(s: Subject) -> None:
    """There is one observation for each proposal, in order, with the proposal as it was; and none for none."""
    for (space, setting), (_, answers) in zip(s.worlds, s.first, strict=True):
        asked = [Proposal(a) for a in some(space, ASKED)]
        require([o.proposal for o in answers] == asked, "the observations do not answer the proposals in order")
        made = s.make()
        made.prepare(space, setting, seed=0)
        require(not list(made.estimate([])), "no proposals are answered by an observation")


def scores_are_finite_or_failures(s: Subject) -> None:
    """A score is a finite number; a failure is NaN, with a status and a reason."""
    for o in s.answers:
        if o.status == "ok":
            require(isfinite(o.score), f"{o.proposal.architecture}: status ok with the score {o.score}")
        else:
            require(isnan(o.score), f"{o.proposal.architecture}: status {o.status} with the score {o.score}")
            require(bool(o.reason), f"{o.proposal.architecture}: status {o.status} without a reason")


def some_scores_are_there(s: Subject) -> None:
    """Not every answer is a failure."""
    require(any(o.status == "ok" for o in s.answers), f"every answer failed, the first for: {s.answers[0].reason}")


def costs_are_valid(s: Subject) -> None:
    """Preparation and answers are charged: known kinds, finite amounts of at least 0."""
    for costs, answers in s.first:
        _valid(costs, "preparation")
        for o in answers:
            _valid(o.costs, f"{o.proposal.architecture}")


def charges_in_every_unit(s: Subject) -> None:
    """It charges in the unit of the study, or refuses the unit in one line."""
    for space, setting in s.worlds:
        for unit in UNITS:
            made, other = s.make(), replace(setting, unit=unit)
            try:
                if hasattr(made, "fits"):
                    made.fits(other)
                made.prepare(space, other, seed=0)
                answers = made.estimate([Proposal(a) for a in some(space, 1)])
            except ValueError as error:
                require("\n" not in str(error), f"{unit} are refused in more than one line: {str(error)!r}")
                continue
            require(bool(answers[0].costs), f"in {unit} an answer has no cost")


def repeated_queries_are_charged_again(s: Subject) -> None:
    """An estimator keeps no memory that makes a repeated query cheaper: that is an option of a study."""
    for space, setting in s.worlds:
        made = s.make()
        made.prepare(space, replace(setting, clock=lambda: 0.0), seed=0)
        one, two = (made.estimate([Proposal(some(space, 1)[0])])[0] for _ in range(2))
        require(one.costs == two.costs, f"{one.proposal.architecture} cost {one.costs}, and asked again {two.costs}")


def same_seed_same_scores(s: Subject) -> None:
    """The same seed gives the same scores at the same costs."""
    _same(s.first, s.run(), "two runs with one seed differ")


def scores_do_not_depend_on_the_order(s: Subject) -> None:
    """What an architecture scores does not depend on what was asked before it, unless the estimator says so."""
    if s.cls.traits.remembers:
        raise SkipTest("its scores depend on earlier proposals, and it says so")
    _same(s.first, s.run(backwards=True), "in another order scores differ")


def deterministic_means_no_seed(s: Subject) -> None:
    """What declares itself deterministic gives the same scores with another seed."""
    if not s.cls.traits.deterministic:
        raise SkipTest("its scores depend on a seed, and it says so")
    _same(s.first, s.run(1), "it is said to be deterministic, but another seed gives other scores")


def global_generators_are_left_alone(s: Subject) -> None:
    """The global generators of random, numpy and torch are neither read nor changed."""
    with global_generators(1) as drawn:
        run = s.run()
        require((name := drawn()) is None, f"the global generator of {name} was used")
    _same(s.first, run, "the seed of a global generator changes the scores")


def _same(one: Sequence[Run], two: Sequence[Run], what: str) -> None:
    for (_, answers), (_, others) in zip(one, two, strict=True):
        for a, b in zip(answers, others, strict=True):
            texts = [repr((o.score, o.status, o.costs, sorted(o.objectives.items()))) for o in (a, b)]
            require(texts[0] == texts[1], f"{what}: {a.proposal.architecture}: {texts[0]} and {texts[1]}")


ESTIMATOR_CHECKS: tuple[Callable[[Subject], None], ...] = (
    declares_its_traits,
    fits_somewhere,
    answers_every_proposal,
    some_scores_are_there,
    scores_are_finite_or_failures,
    costs_are_valid,
    charges_in_every_unit,
    repeated_queries_are_charged_again,
    same_seed_same_scores,
    scores_do_not_depend_on_the_order,
    deterministic_means_no_seed,
    global_generators_are_left_alone,
)
