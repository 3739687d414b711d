"""Inherited weights: copies of what fits, morphisms, bigrams of layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isnan
from typing import Any

import numpy as np
import pytest
import torch

from nasbed.methods import registry
from nasbed.methods.estimators import bigram_inherit
from nasbed.methods.estimators.bigram_inherit import BigramInherit
from nasbed.methods.estimators.full import FullTraining
from nasbed.methods.estimators.inherit import Inherit
from nasbed.methods.estimators.morphism import Morphism
from nasbed.methods.networks import inheritance
from nasbed.methods.networks.inheritance import inherited
from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import (
    FULL,
    Architecture,
    Cost,
    Curve,
    DataView,
    Fidelity,
    PerformanceEstimator,
    Proposal,
    Setting,
    Split,
    Weights,
)
from nasbed.protocols.training import PIPELINES, ReferenceTrainer, load

SPACE = MLP(hidden=4, widths=(8, 16, 32))
PIPELINE = replace(PIPELINES["adam"], epochs=3, batch_size=64)
FULL_VIEW = load("digits")
VIEW = DataView(
    FULL_VIEW.task,
    Split(FULL_VIEW.train.x[:128], FULL_VIEW.train.y[:128]),
    Split(FULL_VIEW.valid.x[:100], FULL_VIEW.valid.y[:100]),
)
ESTIMATORS = [Inherit, Morphism, BigramInherit]


class Noting(ReferenceTrainer):
    """A trainer that notes what each training started from and led to."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, device="cpu")
        self.asked: list[tuple[Architecture, int, Fidelity, Weights | None, Weights]] = []

    def train(
        self,
        architecture: Architecture,
        setting: Setting,
        *,
        seed: int,
        fidelity: Fidelity,
        init: Weights | None = None,
    ) -> tuple[Curve, Weights]:
        given = None if init is None else {k: v.clone() for k, v in init.items()}
        curve, weights = super().train(architecture, setting, seed=seed, fidelity=fidelity, init=init)
        self.asked.append((architecture, seed, fidelity, given, {k: v.clone() for k, v in weights.items()}))
        return curve, weights


def seed_of(a: Architecture) -> int:
    return sum(a.genes)


def study(unit: str = "epochs", space: Any = SPACE, **fields: Any) -> Setting:
    return replace(Setting(VIEW.task, unit, PIPELINE, seed_of, VIEW, trainer=Noting(space)), **fields)


def initial_network(space: Any, setting: Setting, a: Architecture, fidelity: Fidelity) -> torch.nn.Module:
    return inheritance.initial_network(space, setting, a, fidelity, seed=seed_of(a))


def ready(estimator: Any, setting: Setting, space: Any = SPACE, seed: int = 0) -> Any:
    assert isinstance(estimator, PerformanceEstimator)
    assert list(estimator.prepare(space, setting, seed=seed)) == []
    return estimator


def ask(text: str, parent: int | None = None, space: Any = SPACE, fidelity: Fidelity = FULL) -> Proposal:
    return Proposal(space.parse(text), fidelity, parent)


FAMILY = [ask("16-relu"), ask("16-relu/8-tanh", 0), ask("32-relu", 0), ask("32-relu/32-relu", 2), ask("8-elu")]


def equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_the_registry_finds_them() -> None:
    for name, cls in zip(("inherit", "morphism", "bigram_inherit"), ESTIMATORS, strict=True):
        assert registry.load("estimators", name) is cls
        assert registry.summary("estimators", name)
    given = {"epochs": "2", "keep": "3", "cost": "cumulative", "noise": "0.1"}
    assert registry.parameters(Morphism, given, "estimator") == {
        "epochs": 2,
        "keep": 3,
        "cost": "cumulative",
        "noise": 0.1,
    }


def test_what_has_the_same_name_and_shape_is_copied() -> None:
    ones, twos = torch.ones, lambda *shape: 2 * torch.ones(*shape)
    child = {"a": ones(2, 3), "b": ones(2), "c": ones(4)}
    found = inherited(child, {"a": twos(2, 3), "b": twos(3), "d": twos(4)})
    assert equal(found, {"a": twos(2, 3), "b": ones(2), "c": ones(4)})


def test_without_a_parent_it_is_full_training() -> None:
    p = ask("16-relu")
    ((own,), (reference,)) = (ready(e, study()).estimate([p]) for e in (Inherit(), FullTraining()))
    assert own == reference
    assert own.costs == (Cost("train", 3.0),)


def test_a_child_starts_from_what_fits_of_its_parent() -> None:
    setting = study()
    answers = ready(Inherit(), setting).estimate(FAMILY)
    assert [o.proposal for o in answers] == FAMILY
    assert [o.status for o in answers] == ["ok"] * 5
    assert [len(o.curve) for o in answers] == [3, 1, 1, 1, 3]
    (_, _, _, none, parent), (a, seed, fidelity, start, trained), *_ = setting.trainer.asked
    assert none is None
    assert seed == seed_of(a)
    assert fidelity == Fidelity(epochs=1)
    own = initial_network(SPACE, setting, a, FULL).state_dict()
    # 16-relu has the layers 1 and 3; in 16-relu/8-tanh layer 3 has another shape and layer 5 no counterpart.
    for name in ("1.weight", "1.bias"):
        assert torch.equal(start[name], parent[name])
        assert not torch.equal(start[name], own[name])
    for name in ("3.weight", "3.bias", "5.weight", "5.bias"):
        assert torch.equal(start[name], own[name])
    assert not equal(start, trained)
    # By hand: the same training from the same weights.
    curve, _ = ReferenceTrainer(SPACE, device="cpu").train(a, setting, seed=seed, fidelity=fidelity, init=start)
    assert answers[1].score == answers[1].curve[-1] == curve.valid[-1]


def test_initial_weights_are_those_of_the_trainer() -> None:
    setting = study()
    p = ask("16-relu")
    first, second = (
        setting.trainer.train(p.architecture, setting, seed=seed_of(p.architecture), fidelity=FULL, init=init)
        for init in (None, initial_network(SPACE, setting, p.architecture, FULL).state_dict())
    )
    assert first[0].valid == second[0].valid
    assert equal(first[1], second[1])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_same_proposals_give_the_same_bytes_in_any_batches(estimator: type) -> None:
    runs = []
    for cuts in ([FAMILY], [FAMILY[:1], FAMILY[1:4], FAMILY[4:]]):
        setting = study()
        e = ready(estimator(), setting, seed=len(cuts))
        runs.append(([o for part in cuts for o in e.estimate(part)], [row[4] for row in setting.trainer.asked]))
    assert runs[0][0] == runs[1][0]
    assert all(equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_training_seed_is_drawn_for_each_proposal(estimator: type) -> None:
    drawn: list[Architecture] = []

    def another(a: Architecture) -> int:
        drawn.append(a)
        return len(drawn)

    setting = study(train_seed=another)
    proposals = [*FAMILY[:2], ask("8-relu", 9), ask("32-relu", 0)]
    ready(estimator(), setting).estimate(proposals)
    assert drawn == [p.architecture for p in proposals]
    assert [row[1] for row in setting.trainer.asked] == ([1, 2, 3, 4] if estimator is BigramInherit else [1, 2, 4])


@pytest.mark.parametrize("estimator", [Inherit, Morphism])
def test_only_the_chain_of_parents_matters(estimator: type) -> None:
    alone = ready(estimator(), study()).estimate([ask("16-relu"), ask("16-relu/8-tanh", 0)])
    others = [ask("8-tanh"), ask("16-relu"), ask("16-relu/16-relu", 1), ask("16-relu/8-tanh", 1)]
    among = ready(estimator(), study()).estimate(others)
    assert replace(among[3], proposal=alone[1].proposal) == alone[1]


@pytest.mark.parametrize("unit", ["epochs", "evaluations", "flops"])
def test_costs_are_those_of_the_trainings(unit: str) -> None:
    setting = study(unit)
    answers = ready(Inherit(epochs=2, cost="cumulative"), setting).estimate(FAMILY)
    for o, epochs in zip(answers, (3, 2, 2, 2, 3), strict=True):
        assert o.costs == setting.trainer.cost(o.proposal.architecture, setting, Fidelity(epochs=epochs))
    paid = [o.costs[0].amount for o in answers]
    if unit == "epochs":
        assert paid == [3, 2, 2, 2, 3]
    if unit == "flops":  # by hand: 2 per multiply-add, thrice but for the first layer's inputs, over 128 and 100 images
        forward, back = 64 * 16 + 16 * 10, 2 * (64 * 16 + 16 * 10) - 64 * 16
        assert paid[0] == 3 * 2 * (128 * (forward + back) + 100 * forward)
    chains = [(0,), (0, 1), (0, 2), (0, 2, 3), (4,)]
    assert [o.objectives["cumulative_cost"] for o in answers] == [sum(paid[i] for i in c) for c in chains]
    assert all("cumulative_cost" not in o.objectives for o in ready(Inherit(), study()).estimate(FAMILY[:2]))


@pytest.mark.parametrize("estimator", [Inherit, Morphism])
@pytest.mark.parametrize(("unit", "price"), [("epochs", ()), ("evaluations", (Cost("train", 1.0),))])
def test_parents_that_do_not_exist(estimator: type, unit: str, price: tuple[Cost, ...]) -> None:
    e = ready(estimator(), study(unit))
    answers = e.estimate([ask("8-relu", 0), ask("8-relu"), ask("8-relu", -1), ask("8-relu", 9), ask("8-relu", 0)])
    assert [o.status for o in answers] == ["crashed", "ok", "crashed", "crashed", "crashed"]
    assert [o.reason for o in answers if o.reason] == [
        "parent: 0 is not one of the 0 evaluations before",
        "parent: -1 is not one of the 2 evaluations before",
        "parent: 9 is not one of the 3 evaluations before",
        "parent: the weights of evaluation 0 are not held: it failed, or keep=64 is few",
    ]
    assert all(isnan(o.score) and o.costs == price for o in answers if o.status == "crashed")


def test_the_weights_last_used_are_held() -> None:
    e = ready(Inherit(keep=2), study())
    proposals = [ask("8-relu"), ask("8-tanh"), ask("8-elu", 0), ask("8-relu", 1), ask("8-relu", 0), ask("8-relu", 2)]
    # After 2: 0 and 2 are held, since 0 was used after 1; then 0 is used again and 4 puts out 2.
    assert [o.status for o in e.estimate(proposals)] == ["ok", "ok", "ok", "crashed", "ok", "crashed"]
    assert len(e._held) == 2


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_training_that_diverges_leaves_no_weights(estimator: type) -> None:
    class Diverging(Noting):
        def train(self, architecture, setting, **more):
            curve, weights = super().train(architecture, setting, **more)
            if architecture == SPACE.parse("8-relu"):
                return replace(curve, valid=(float("nan"),)), {k: v * float("nan") for k, v in weights.items()}
            return curve, weights

    setting = study(trainer=Diverging(SPACE))
    first, second, third = ready(estimator(), setting).estimate([ask("8-relu"), ask("8-relu/8-relu", 0), ask("8-elu")])
    assert (first.status, first.reason) == ("crashed", "training diverged")
    assert first.costs == (Cost("train", 3.0),)
    assert isnan(first.score)
    assert second.status == ("ok" if estimator is BigramInherit else "crashed")
    assert third.status == "ok"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_is_to_be_lowered_is_turned_round(estimator: type) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype(np.float32), rng.normal(size=60).astype(np.float32)
    task = replace(VIEW.task, kind="regression", metric="mse", higher_is_better=False, shape=(4,), classes=None)
    setting = study(task=task, data=DataView(task, Split(x, y), Split(x, y)))
    answers = ready(estimator(), setting).estimate(FAMILY[:2])
    assert [o.score for o in answers] == [-o.curve[-1] for o in answers]
    assert all(o.score < 0 for o in answers)


EDITS = [
    ("16-relu", "16-relu", 1.0),
    ("16-relu", "32-relu", 1.0),
    ("16-tanh/8-elu", "16-tanh/32-elu", 1.0),
    ("8-tanh/dropout/8-elu", "16-tanh/dropout/8-elu", 1.0),
    ("16-relu", "16-relu/16-relu", 1.0),
    ("16-relu", "16-relu/32-relu", 1.0),
    ("16-relu/8-tanh", "16-relu/16-relu/8-tanh", 1.0),
    ("16-relu/dropout", "16-relu/16-relu/dropout", 1.0),
    ("16-relu", "16-relu/8-relu", 0.0),  # fewer units than what they read
    ("16-tanh", "16-tanh/16-tanh", 0.0),
    ("16-tanh", "16-tanh/16-relu", 0.0),
    ("16-tanh", "16-relu/16-tanh", 0.0),
    ("32-relu", "16-relu", 0.0),
    ("16-relu", "16-tanh", 0.0),
    ("16-relu/8-relu", "16-relu", 0.0),
    ("8-relu/8-relu", "16-relu/16-relu", 0.0),
    ("8-relu/8-tanh", "8-relu/16-relu/16-tanh", 0.0),
]


def outputs(space: Any, p: Proposal, weights: Weights, setting: Setting) -> torch.Tensor:
    network = initial_network(space, setting, p.architecture, p.fidelity)
    network.load_state_dict(dict(weights))
    with torch.no_grad():
        return network.eval()(torch.from_numpy(setting.data.valid.x))


@pytest.mark.parametrize(("before", "after", "preserved"), EDITS)
def test_edits_of_perceptrons(before: str, after: str, preserved: float) -> None:
    setting = study(pipeline=replace(PIPELINE, epochs=1))
    half = Fidelity(width=0.5)  # the units are then those of the smaller networks
    proposals = [ask(before, fidelity=half), ask(after, 0, fidelity=half)]
    parent, child = ready(Morphism(), setting).estimate(proposals)
    assert "preserved" not in parent.objectives
    assert child.objectives == {"preserved": preserved}
    (*_, trained), (a, _, fidelity, start, _) = setting.trainer.asked
    gap = (outputs(SPACE, proposals[0], trained, setting) - outputs(SPACE, proposals[1], start, setting)).abs().max()
    assert (gap <= 1e-5) == bool(preserved)
    if not preserved:
        own = initial_network(SPACE, setting, a, fidelity).state_dict()
        assert equal(start, inherited(own, trained))


def test_noise_is_told_and_small() -> None:
    setting = study()
    proposals = [ask("16-relu"), ask("32-relu", 0), ask("16-relu/16-relu", 0)]
    _, wider, deeper = ready(Morphism(noise=0.01), setting).estimate(proposals)
    assert wider.objectives == {"preserved": 0.0}
    assert deeper.objectives == {"preserved": 1.0}  # nothing is replicated
    (*_, trained), (_, _, _, start, _), _ = setting.trainer.asked
    gap = (outputs(SPACE, proposals[0], trained, setting) - outputs(SPACE, proposals[1], start, setting)).abs().max()
    assert 1e-5 < gap < 0.3


def test_another_fidelity_is_no_morphism() -> None:
    proposals = [ask("16-relu", fidelity=Fidelity(width=0.5)), ask("32-relu", 0)]
    _, child = ready(Morphism(), study()).estimate(proposals)
    assert child.objectives == {"preserved": 0.0}


CELLS = NB201(channels=2, cells=[1, 0, 0])
FEW = DataView(VIEW.task, Split(VIEW.train.x[:32], VIEW.train.y[:32]), Split(VIEW.valid.x[:16], VIEW.valid.y[:16]))
SKIP, ONE, THREE, NONE, POOL = "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "none", "avg_pool_3x3"


@pytest.mark.parametrize(
    ("before", "after", "preserved"),
    [(ONE, THREE, 1.0), (THREE, ONE, 0.0), (NONE, SKIP, 0.0)],
)
def test_edits_of_cells(before: str, after: str, preserved: float) -> None:
    setting = study(space=CELLS, data=FEW, pipeline=replace(PIPELINE, epochs=1))
    texts = [f"|{op}~0|+|{THREE}~0|{ONE}~1|+|{ONE}~0|{POOL}~1|{SKIP}~2|" for op in (before, after)]
    proposals = [ask(texts[0], space=CELLS), ask(texts[1], 0, CELLS)]
    _, child = ready(Morphism(), setting, CELLS).estimate(proposals)
    assert child.objectives == {"preserved": preserved}
    (*_, trained), (_, _, _, start, _) = setting.trainer.asked
    gap = (outputs(CELLS, proposals[0], trained, setting) - outputs(CELLS, proposals[1], start, setting)).abs().max()
    assert (gap <= 1e-5) == bool(preserved)


def test_layers_take_the_weights_of_their_bigrams() -> None:
    setting = study()
    e = ready(BigramInherit(epochs=1), setting)
    texts = ["16-relu/dropout/8-tanh", "8-elu/16-relu/8-tanh", "8-relu/8-relu/8-relu", "8-relu/8-relu/8-relu"]
    assert [o.costs for o in e.estimate([ask(t) for t in texts])] == [(Cost("train", 1.0),)] * 4
    (*_, first), (a, _, _, start, _), (*_, third), (*_, again, _) = setting.trainer.asked
    own = initial_network(SPACE, setting, a, FULL).state_dict()
    # First: layers 1, 4, 6. Second: 1, 3, 5, 7, of which (16-relu, 8-tanh) and (8-tanh, output) are known.
    for name in ("weight", "bias"):
        assert torch.equal(start[f"5.{name}"], first[f"4.{name}"])
        assert torch.equal(start[f"7.{name}"], first[f"6.{name}"])
        assert torch.equal(start[f"1.{name}"], own[f"1.{name}"])
        assert torch.equal(start[f"3.{name}"], own[f"3.{name}"])
        # A bigram that a network has twice: the later one stays.
        assert torch.equal(again[f"3.{name}"], third[f"5.{name}"])
        assert torch.equal(again[f"5.{name}"], third[f"5.{name}"])
        assert torch.equal(again[f"1.{name}"], third[f"1.{name}"])


def test_bigrams_by_hand() -> None:
    network = initial_network(SPACE, study(), SPACE.parse("16-relu/dropout/8-tanh"), FULL)
    i, a, b, o = (64, "input"), (16, "ReLU"), (8, "Tanh"), (10, "output")
    assert list(bigram_inherit.bigrams(network)) == [("1", (i, a)), ("4", (a, b)), ("6", (b, o))]


def test_a_store_is_of_one_run_unless_it_is_said_to_be_global(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigram_inherit, "_GLOBAL", {})
    p = ask("16-relu")
    scores = {}
    for store in ("run", "global"):
        e = BigramInherit(epochs=1, store=store)
        curves = [ready(e, setting).estimate([p])[0].curve for setting in (study(), study())]
        curves.append(ready(BigramInherit(epochs=1, store=store), study()).estimate([p])[0].curve)
        scores[store] = curves
    assert len(set(scores["run"])) == 1
    assert len(set(scores["global"])) > 1
    assert scores["global"][0] == scores["run"][0]
    elsewhere = replace(VIEW.task, digest="another")
    assert (
        ready(BigramInherit(epochs=1, store="global"), study(task=elsewhere)).estimate([p])[0].curve == scores["run"][0]
    )


def test_inheriting_helps() -> None:
    """A child that takes over trained layers is better after an epoch than one from scratch."""
    setting = study(pipeline=replace(PIPELINE, epochs=20))
    for e, text in ((Inherit(epochs=1), "32-relu"), (Morphism(epochs=1), "32-relu/32-relu")):
        child = ask(text, fidelity=Fidelity(epochs=1))
        (scratch,) = ready(FullTraining(), setting).estimate([child])
        _, o = ready(e, setting).estimate([ask("32-relu"), replace(child, parent=0)])
        assert o.score > scratch.score + 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Inherit(epochs=0), "epochs: 0 is not a positive integer"),
        (lambda: Morphism(epochs=1.5), "epochs: 1.5 is not a positive integer"),
        (lambda: BigramInherit(epochs="2"), "epochs: '2' is not a positive integer"),
        (lambda: Inherit(keep=0), "keep: 0 is not a positive integer"),
        (lambda: Inherit(cost="free"), "cost: 'free' is not one of marginal, cumulative"),
        (lambda: Morphism(noise=-1), r"noise: -1 is not in \[0, 1\)"),
        (lambda: BigramInherit(store="disk"), "store: 'disk' is not one of run, global"),
        (lambda: Inherit(epochs=4).fits(study()), "epochs: 4 is more than the 3 of the pipeline 'adam'"),
        (lambda: BigramInherit().prepare(CELLS, study(), seed=0), "'bigram_inherit' shares layers of the space 'mlp'"),
        *((lambda e=e: e().fits(study(trainer=None)), "estimator: .* which no table holds") for e in ESTIMATORS),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
