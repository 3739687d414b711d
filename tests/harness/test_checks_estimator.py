"""Checks of estimators: each finds the fault planted for it, and the estimators of the package pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, nan
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest

from nasbed.harness.checks import Violation, check_estimator, yield_checks
from nasbed.methods import registry
from nasbed.protocols import Architecture, Cost, Observation, Proposal, SearchSpace, Setting, Traits
from nasbed.protocols.streams import generator

SMALL: dict[str, dict[str, Any]] = {
    "curve_freeze_thaw": {"n_train": 8},
    "curve_lcnet": {"n_train": 8, "members": 2, "steps": 10, "adapt": 2},
    "curve_svr": {"n_train": 20, "draws": 3},
    "naswot": {"batch_size": 16},
    "ntk": {"batch_size": 8},
    "predictor_boosting": {"n_train": 10},
    "predictor_forest": {"n_train": 10, "trees": 5},
    "predictor_gaussian_process": {"n_train": 10},
    "predictor_gcn": {"n_train": 10, "epochs": 2},
    "predictor_lstm": {"n_train": 10, "epochs": 2},
    "predictor_mlp": {"n_train": 10, "epochs": 2},
    "one_shot_darts": {"epochs": 1},
    "one_shot_enas": {"epochs": 1},
    "one_shot_path_dropout": {"epochs": 1},
    "one_shot_uniform": {"epochs": 1},
    "smash_hypernet": {"epochs": 1},
}
"""Parameters with which estimators that are prepared at great cost are checked in seconds."""


class Honest:
    """Scores of a stream of the architecture, at a cost of 1."""

    traits = Traits(accuracy_scale=False, deterministic=False)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        self.seed = seed
        return [Cost("fit", 2.0)]

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        return [Observation(p, self.score(p.architecture), (Cost("proxy", 1.0),)) for p in proposals]

    def score(self, a: Architecture) -> float:
        return float(generator(self.seed, "honest", a).normal())


class Undeclared(Honest):
    traits = None  # type: ignore[assignment]


class Signless(Honest):
    traits = Traits(accuracy_scale=False, deterministic=False, sign=0)


class Nowhere(Honest):
    def fits(self, setting: Setting) -> None:
        raise ValueError("data: nothing is good enough")


class Wordy(Honest):
    def fits(self, setting: Setting) -> None:
        raise ValueError("data:\nnothing is good enough")


class Backwards(Honest):
    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        return list(super().estimate(proposals))[::-1]


class Altering(Honest):
    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        return [replace(o, proposal=replace(o.proposal, parent=0)) for o in super().estimate(proposals)]


class Infinite(Honest):
    def score(self, a: Architecture) -> float:
        return inf


class Failing(Honest):
    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        return [replace(o, score=nan, status="crashed", reason="r") for o in super().estimate(proposals)]


class Speechless(Honest):
    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        return [replace(o, score=nan, status="crashed") for o in super().estimate(proposals)]


class Numbered(Honest):
    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        return [replace(o, status="crashed", reason="r") for o in super().estimate(proposals)]


class Negative(Honest):
    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        super().prepare(space, setting, seed=seed)
        return [Cost("fit", -1.0)]


class Free(Honest):
    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        return [replace(o, costs=()) for o in super().estimate(proposals)]


class Remembering(Honest):
    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        known = self.__dict__.setdefault("known", set())
        found = [
            replace(o, costs=(Cost("proxy", 0.0 if o.proposal in known else 1.0),)) for o in super().estimate(proposals)
        ]
        known.update(proposals)
        return found


class Unseeded(Honest):
    def score(self, a: Architecture) -> float:
        return float(np.random.default_rng().normal())


class Sequential(Honest):
    def score(self, a: Architecture) -> float:
        rng = self.__dict__.setdefault("rng", np.random.default_rng(self.seed))
        return float(rng.normal())


class Overconfident(Honest):
    traits = Traits(accuracy_scale=False, deterministic=True)


class Global(Honest):
    def score(self, a: Architecture) -> float:
        np.random.rand()  # noqa: NPY002
        return super().score(a)


PLANTED = {
    "declares_its_traits": (Undeclared, Signless),
    "fits_somewhere": (Nowhere, Wordy),
    "answers_every_proposal": (Backwards, Altering),
    "some_scores_are_there": (Failing,),
    "scores_are_finite_or_failures": (Infinite, Speechless, Numbered),
    "costs_are_valid": (Negative,),
    "charges_in_every_unit": (Free,),
    "repeated_queries_are_charged_again": (Remembering,),
    "same_seed_same_scores": (Unseeded,),
    "scores_do_not_depend_on_the_order": (Sequential,),
    "deterministic_means_no_seed": (Overconfident,),
    "global_generators_are_left_alone": (Global,),
}


@pytest.mark.parametrize(("name", "check"), list(yield_checks("estimators")))
def test_each_check_finds_its_fault_and_passes_the_honest(name: str, check: Callable[..., None]) -> None:
    if name == "deterministic_means_no_seed":
        with pytest.raises(SkipTest, match="it says so"):
            check(Honest)
    else:
        check(Honest)
    for faulty in PLANTED[name]:
        with pytest.raises(Violation, match=r"^[^\n]+$"):
            check(faulty)


@pytest.mark.parametrize("name", registry.names("estimators"))
def test_the_estimators_of_the_package_pass(name: str) -> None:
    results = check_estimator(registry.load("estimators", name), params=SMALL.get(name))
    assert [(r.name, r.detail) for r in results if r.passed is False] == []
