"""Weight inheritance: children start from what their parents' weights fit, and train for fewer epochs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import ClassVar

from ...protocols import Cost, Fidelity, Observation, Proposal, SearchSpace, Setting, Traits, Weights
from ..networks.inheritance import check_epochs, check_setting, inherited, initial_network

__all__ = ["Inherit"]


@dataclass(frozen=True, slots=True)
class Held:
    """What is kept of an answer: how it was trained, its weights, and the cost of these, its ancestors' included."""

    proposal: Proposal
    fidelity: Fidelity
    weights: Weights
    spent: float


class Inherit:
    """Train a proposal that names a parent from the parent's weights, for a few epochs (Real et al. 2017).

    Every tensor whose name and shape are the same in parent and child is copied, the others are the child's own initial
    ones; the function is not preserved. Names tell places in a network: behind an inserted layer little is the same. A
    proposal without a parent is trained from scratch, as by `full`. `Proposal.parent` counts the answers of this
    estimator, from 0. The epochs are the first ones of the pipeline's schedule. A score thus depends on the
    architecture and its chain of parents, and on nothing else.

    Charged is what was trained for this answer (marginal cost), since that of the parents was charged with theirs. With
    `cost="cumulative"` the observation also reports, as the objective `cumulative_cost` in the unit of the study, what
    the whole chain of trainings took that led to these weights; the charge is the same.

    Weights live in the estimator alone. Whoever resumes a run asks for the recorded proposals again, in order, which
    gives the same weights again.

    Args:
        epochs: Of children, at least 1; by default a quarter of the pipeline's, rounded up.
        keep: Number of answers whose weights are held: those last trained or used as a parent.
        cost: "marginal" or "cumulative".
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    traits = Traits(accuracy_scale=True, deterministic=True, remembers=True)
    name: ClassVar[str] = "inherit"

    def __init__(self, epochs: int | None = None, keep: int = 64, cost: str = "marginal") -> None:
        check_epochs(epochs)
        if not isinstance(keep, int) or keep < 1:
            raise ValueError(f"keep: {keep!r} is not a positive integer")
        if cost not in ("marginal", "cumulative"):
            raise ValueError(f"cost: {cost!r} is not one of marginal, cumulative")
        self._epochs, self._keep, self._cumulative = epochs, keep, cost == "cumulative"

    def fits(self, setting: Setting) -> None:
        """ValueError where the study has no data to train on, or the pipeline has fewer epochs."""
        check_setting(self.name, setting, self._epochs)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Nothing to pay."""
        self.fits(setting)
        self._space, self._setting = space, setting
        self._limit = self._epochs or -(-setting.pipeline.epochs // 4)
        self._sign = 1.0 if setting.task.higher_is_better else -1.0
        self._held: OrderedDict[int, Held] = OrderedDict()
        self._answers = 0
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One training for each proposal; a parent whose weights are not there is a crash, not a start from scratch."""
        return [self._answer(p) for p in proposals]

    def _answer(self, p: Proposal) -> Observation:
        index = self._answers
        self._answers += 1
        # Once for each proposal, be it refused: where seeds are redrawn, every call draws the next one.
        seed = self._setting.train_seed(p.architecture)
        if p.parent is None:
            return self._train(index, p, seed, p.fidelity)
        if not 0 <= p.parent < index:
            return self._refused(p, f"parent: {p.parent} is not one of the {index} evaluations before")
        if p.parent not in self._held:
            reason = (
                f"parent: the weights of evaluation {p.parent} are not held: it failed, or keep={self._keep} is few"
            )
            return self._refused(p, reason)
        self._held.move_to_end(p.parent)
        parent = self._held[p.parent]
        fidelity = replace(p.fidelity, epochs=min(p.fidelity.epochs, self._limit))
        init, notes = self._start(parent, p, seed, fidelity)
        return self._train(index, p, seed, fidelity, init, notes, parent.spent)

    def _start(self, parent: Held, p: Proposal, seed: int, fidelity: Fidelity) -> tuple[Weights, Mapping[str, float]]:
        """The weights that a child starts from, and what to report of them."""
        own = initial_network(self._space, self._setting, p.architecture, fidelity, seed=seed)
        return inherited(own.state_dict(), parent.weights), {}

    def _train(
        self,
        index: int,
        p: Proposal,
        seed: int,
        fidelity: Fidelity,
        init: Weights | None = None,
        notes: Mapping[str, float] | None = None,
        before: float = 0.0,
    ) -> Observation:
        setting, a = self._setting, p.architecture
        assert setting.trainer is not None
        costs = setting.trainer.cost(a, setting, fidelity)
        curve, weights = setting.trainer.train(a, setting, seed=seed, fidelity=fidelity, init=init)
        spent = before + sum(c.amount for c in costs)
        objectives = {**(notes or {}), **({"cumulative_cost": spent} if self._cumulative else {})}
        if not isfinite(curve.valid[-1]):
            return Observation(p, nan, costs, (), objectives, "crashed", "training diverged")
        self._held[index] = Held(p, fidelity, weights, spent)
        if len(self._held) > self._keep:
            self._held.popitem(last=False)
        return Observation(p, self._sign * curve.valid[-1], costs, curve.valid, objectives)

    def _refused(self, p: Proposal, reason: str) -> Observation:
        # Nothing was trained, but it was an evaluation; a strategy that goes on asking for it spends its budget.
        costs = (Cost("train", 1.0),) if self._setting.unit == "evaluations" else ()
        return Observation(p, nan, costs, status="crashed", reason=reason)
