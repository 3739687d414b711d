"""Training: the stacked trainer equals the plain one, and both are deterministic, isolated and well counted."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from math import inf, prod

import numpy as np
import pytest
import torch
from torch import nn

from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import FULL, Architecture, Fidelity, Pipeline, Setting, Split, Task
from nasbed.protocols.streams import integer, torch_generator
from nasbed.protocols.training import (
    PIPELINES,
    ReferenceTrainer,
    Streams,
    fit,
    fit_stacked,
    load,
    load_test,
    materialise,
    measure,
    training_flops,
)
from nasbed.protocols.training.flops import network_flops
from nasbed.protocols.training.reference import batches

SPACE = MLP()
VIEW = load("digits")
SMALL = Split(VIEW.train.x[:140], VIEW.train.y[:140])  # five batches, the last of 12 examples
# Without ingredients, which are for images.
PLAIN = ["adam", "sgd_cosine", "fcnet", "free"]
# Equal widths, mixed activations, two seeds of one architecture: one stack for each depth.
STACKS = {
    1: ["16-relu", "16-elu", "16-tanh", "16-sigmoid", "16-relu"],
    2: ["16-relu/8-tanh", "16-elu/8-sigmoid", "16-tanh/8-relu", "16-sigmoid/8-elu", "16-relu/8-relu"],
    3: ["8-elu/16-elu/8-elu", "8-relu/16-tanh/8-sigmoid", "8-tanh/16-relu/8-relu", "8-sigmoid/16-elu/8-tanh"],
}


def alone(a: Architecture, seed: int, train: Split, pipeline: Pipeline, dtype: torch.dtype) -> tuple[dict, list]:
    network = materialise(SPACE.build(a, VIEW.task), torch_generator(seed, "init", a), dtype=dtype)
    correct = fit(network, train, {"valid": VIEW.valid}, pipeline, streams=Streams(seed, a))
    return correct, [p.detach() for p in network.parameters()]


def stacked(members: list, train: Split, pipeline: Pipeline, dtype: torch.dtype) -> tuple[dict, list]:
    networks = {(a, s): SPACE.build(a, VIEW.task) for a, s in members}
    correct, states = fit_stacked(networks, train, {"valid": VIEW.valid}, pipeline, dtype=dtype)
    return correct, [list(state.values()) for state in states]


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference relative to the largest value; NaN anywhere is an error, not a small number."""
    assert torch.isfinite(ours).all()
    assert torch.isfinite(theirs).all()
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("name", PLAIN)
def test_stacked_training_equals_the_reference(name: str, depth: int) -> None:
    pipeline = replace(PIPELINES[name], epochs=3)
    members = [(SPACE.parse(text), seed) for seed, text in enumerate(STACKS[depth])]
    correct, parameters = stacked(members, SMALL, pipeline, torch.float64)
    for k, (a, seed) in enumerate(members):
        expected, weights = alone(a, seed, SMALL, pipeline, torch.float64)
        assert len(parameters[k]) == len(weights) == 2 * (depth + 1)
        assert max(map(difference, parameters[k], weights)) < 1e-9
        for split in ("train", "valid"):
            assert correct[split][k].tolist() == expected[split].tolist()


@pytest.mark.parametrize("name", PLAIN)
def test_stacked_training_in_single_precision_stays_close_for_twenty_steps(name: str) -> None:
    pipeline = replace(PIPELINES[name], epochs=4)
    members = [(SPACE.parse(text), seed) for seed, text in enumerate(STACKS[2])]
    _, parameters = stacked(members, SMALL, pipeline, torch.float32)
    for k, (a, seed) in enumerate(members):
        _, weights = alone(a, seed, SMALL, pipeline, torch.float32)
        assert max(map(difference, parameters[k], weights)) < 1e-5


def test_the_comparison_sees_a_wrong_seed() -> None:
    """The negative control: one seed planted wrongly is far outside the tolerance."""
    pipeline = replace(PIPELINES["adam"], epochs=1)
    a = SPACE.parse("16-relu")
    _, parameters = stacked([(a, 0), (a, 1)], SMALL, pipeline, torch.float64)
    _, weights = alone(a, 2, SMALL, pipeline, torch.float64)
    assert min(map(difference, parameters[1], weights)) > 1e-3


def test_members_of_a_stack_do_not_touch_each_other() -> None:
    pipeline = replace(PIPELINES["sgd_cosine"], epochs=1)
    members = [(SPACE.parse(t), 3) for t in STACKS[2]]
    _, whole = stacked(members, SMALL, pipeline, torch.float64)
    _, turned = stacked(members[::-1], SMALL, pipeline, torch.float64)
    _, single = stacked(members[2:3], SMALL, pipeline, torch.float64)
    for k in range(len(members)):
        assert max(map(difference, whole[k], turned[-1 - k])) < 1e-12
    assert max(map(difference, whole[2], single[0])) < 1e-12


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["16-relu", "8-relu"], "equal widths")],
)
def test_what_cannot_be_stacked_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stacked([(SPACE.parse(t), 0) for t in texts], SMALL, PIPELINES["adam"], torch.float32)


# --- optimizers and schedules ---------------------------------------------------------------------------------


def by_hand(gradients: list[float], pipeline: Pipeline) -> float:
    """One parameter under the published update rules, from 1."""
    x, m, v, velocity = 1.0, 0.0, 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        if pipeline.clip_norm:  # Pascanu et al. 2013, algorithm 1, by a margin that torch takes
            g *= min(1.0, pipeline.clip_norm / (abs(g) + 1e-6))
        g += pipeline.weight_decay * x
        if pipeline.optimizer == "adam":  # Kingma & Ba 2015, algorithm 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            x -= pipeline.learning_rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
        else:
            velocity = pipeline.momentum * velocity + g
            x -= pipeline.learning_rate * (g + pipeline.momentum * velocity if pipeline.nesterov else velocity)
    return x


@pytest.mark.parametrize("name", PIPELINES)
def test_optimizers_follow_their_papers(name: str) -> None:
    from nasbed.protocols.training.reference import make_optimizer

    x = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = make_optimizer([x], PIPELINES[name])
    gradients = [0.3, -0.2, 0.7, 0.1, 0.5]
    for g in gradients:
        x.grad = torch.full_like(x, g)
        optimizer.step()
    assert x.item() == pytest.approx(by_hand(gradients, PIPELINES[name]), rel=1e-12)


def test_batches_hold_every_example_once() -> None:
    parts = batches(np.random.default_rng(0), 140, 32)
    assert [len(p) for p in parts] == [32, 32, 32, 32, 12]
    assert sorted(np.concatenate(parts).tolist()) == list(range(140))


# --- initial weights and FLOPs --------------------------------------------------------------------------------


def test_initial_weights_are_uniform_within_the_bound() -> None:
    network = materialise(SPACE.build(SPACE.parse("512-relu/8-tanh"), VIEW.task), torch_generator(0, "init"))
    first, second = network[1], network[3]
    for layer in (first, second):
        bound = layer.in_features**-0.5
        for p in layer.parameters():
            assert p.abs().max() <= bound
        assert layer.weight.abs().max() > 0.98 * bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_initial_weights_of_convolutions_and_unknown_layers() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8))
        unknown = nn.Sequential(nn.LayerNorm(4))
    made = materialise(network, torch_generator(0, "init"))
    assert 0.9 / 6 < made[0].weight.abs().max() <= 1 / 6
    assert (made[1].weight == 1).all()
    assert (made[1].bias == 0).all()
    assert (made[1].running_var == 1).all()
    with pytest.raises(TypeError, match="LayerNorm: no rule"):
        materialise(unknown, torch_generator(0, "init"))


def test_initial_weights_of_a_convolution_in_groups_are_bound_by_what_one_output_sees() -> None:
    with torch.device("meta"):
        network = nn.Conv2d(8, 64, 3, groups=4, dilation=2)
    made = materialise(network, torch_generator(0, "init"))
    bound = (2 * 9) ** -0.5
    for p in made.parameters():
        assert 0.95 * bound < p.abs().max() <= bound


def test_initial_weights_of_an_embedding_are_standard_normal() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Embedding(400, 50, padding_idx=3), nn.Linear(50, 7))
    made = materialise(network, torch_generator(0, "init"))
    weight = made[0].weight
    assert weight.mean().item() == pytest.approx(0, abs=0.03)
    assert weight.std().item() == pytest.approx(1, abs=0.03)
    assert not weight[3].any()
    again = materialise(made.to("meta"), torch_generator(0, "init"))
    assert torch.equal(again[0].weight, weight)
    assert not torch.equal(materialise(made.to("meta"), torch_generator(1, "init"))[0].weight, weight)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_batch_normalisation_starts_as_the_identity(kind: type[nn.Module], affine: bool) -> None:
    """Moved off the meta device its buffers hold whatever lay in memory; here they are spoilt on purpose."""
    network = nn.Sequential(kind(8, affine=affine))
    for tensor in network.state_dict().values():
        tensor.fill_(7)
    made = materialise(network, torch_generator(0, "init"))
    x = torch.randn(4, 8, *[3] * int(kind.__name__[-2]), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made.eval()(x), x / (1 + 1e-5) ** 0.5)
    assert made[0].num_batches_tracked == 0


def test_what_would_hold_undefined_numbers_or_lose_its_tie_is_refused() -> None:
    with torch.device("meta"):
        buffered = nn.BatchNorm2d(4, affine=False)
        mask = nn.Identity()
        mask.register_buffer("mask", torch.ones(3))
        tied = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 9))
        tied[1].weight = tied[0].weight
        twice = nn.Sequential(layer := nn.Linear(5, 5), layer)
    assert materialise(buffered, torch_generator(0, "init")).running_var.tolist() == [1] * 4
    with pytest.raises(TypeError, match="Identity: no rule"):
        materialise(mask, torch_generator(0, "init"))
    with pytest.raises(TypeError, match="Linear: shares a parameter"):
        materialise(tied, torch_generator(0, "init"))
    made = materialise(twice, torch_generator(0, "init"))
    assert made[0].weight is made[1].weight


def mlp_flops(units: list[int]) -> tuple[int, int]:
    """Forward 2 n m per layer; backward twice that, except that the first layer's input needs no gradient."""
    forward = sum(2 * n * m for n, m in pairwise(units))
    return forward, forward + 2 * forward - 2 * units[0] * units[1]


@pytest.mark.parametrize("text", ["8-relu", "512-elu", "64-relu/16-tanh", "32-sigmoid/dropout/8-elu/128-relu"])
def test_flops_follow_the_closed_formula(text: str) -> None:
    a = SPACE.parse(text)
    units = [64, *(int(part.split("-")[0]) for part in text.split("/") if part != "dropout"), 10]
    forward, both = mlp_flops(units)
    network = SPACE.build(a, VIEW.task)
    assert network_flops(network, VIEW.task) == (forward, both)
    assert forward == SPACE.features(a, VIEW.task)["flops"]
    for n_train, n_valid in ((1, 0), (0, 1), (800, 398)):
        counted = training_flops(network, VIEW.task, PIPELINES["adam"], n_train, n_valid)
        assert counted == n_train * both + n_valid * forward


def test_flops_of_an_embedding_and_of_what_has_no_parameters() -> None:
    text = Task("toy", "text", "perplexity", False, (35,), 50, "")
    with torch.device("meta"):
        model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50))
        empty = nn.Sequential(nn.BatchNorm2d(1, affine=False), nn.Flatten())
    product = 2 * 35 * 8 * 50
    assert network_flops(model, text) == (product, 3 * product)
    assert network_flops(empty, VIEW.task) == (0, 0)


# --- determinism and isolation --------------------------------------------------------------------------------

ELSEWHERE = """
import hashlib, sys
import torch
torch.set_num_threads(1)
from nasbed.methods import registry
from nasbed.protocols import Fidelity, Setting
from nasbed.protocols.training import PIPELINES, ReferenceTrainer, load
view = load("digits")
space = registry.space("mlp")
setting = Setting(view.task, "epochs", PIPELINES["adam"], lambda a: 0, view)
a = space.parse("32-relu/dropout/16-tanh")
curve, weights = ReferenceTrainer(space, device="cpu").train(a, setting, seed=5, fidelity=Fidelity(epochs=2))
h = hashlib.sha256(repr((curve.train, curve.valid, curve.flops)).encode())
for name in weights:
    h.update(name.encode() + weights[name].numpy().tobytes())
print(h.hexdigest())
"""


def setting(unit: str = "epochs", pipeline: str = "adam") -> Setting:
    return Setting(VIEW.task, unit, PIPELINES[pipeline], lambda a: 0, VIEW)


def states() -> tuple[object, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes()  # noqa: NPY002


def test_training_is_the_same_in_another_process_and_leaves_global_generators_alone() -> None:
    before, threads = states(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a = SPACE.parse("32-relu/dropout/16-tanh")
        trainer = ReferenceTrainer(SPACE, device="cpu")
        curve, weights = trainer.train(a, setting(), seed=5, fidelity=Fidelity(epochs=2))
        h = hashlib.sha256(repr((curve.train, curve.valid, curve.flops)).encode())
        for name in weights:
            h.update(name.encode() + weights[name].numpy().tobytes())
        fit_stacked(
            {(SPACE.parse("8-relu"), 0): SPACE.build(SPACE.parse("8-relu"), VIEW.task)}, SMALL, {}, PIPELINES["adam"]
        )
    finally:
        torch.set_num_threads(threads)
    assert states() == before
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", ELSEWHERE]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
    assert ran.stdout.strip() == h.hexdigest()


def test_noise_and_seeds_matter() -> None:
    trainer = ReferenceTrainer(SPACE, device="cpu")
    a = SPACE.parse("32-relu/dropout/16-tanh")

    def weights(seed: int) -> torch.Tensor:
        return trainer.train(a, setting(), seed=seed, fidelity=Fidelity(epochs=1))[1]["1.weight"]

    torch.manual_seed(1)
    first = weights(0)
    torch.manual_seed(2)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))
    pipeline = replace(PIPELINES["adam"], epochs=1)
    noisy = []
    for noise in (0, 1):
        network = materialise(SPACE.build(a, VIEW.task), torch_generator(0, "init", a))
        fit(network, SMALL, {}, pipeline, streams=Streams(0, a), noise_seed=noise)
        noisy.append(network[1].weight)
    assert not torch.equal(*noisy)


# --- the reference trainer ------------------------------------------------------------------------------------


def test_learning_beats_chance_by_far() -> None:
    steps = []
    trainer = ReferenceTrainer(SPACE, device="cpu", progress=lambda done, total: steps.append((done, total)))
    a = SPACE.parse("64-relu")
    curve, weights = trainer.train(a, setting(), seed=0, fidelity=FULL)
    assert curve.valid[-1] > 0.8
    assert curve.train[-1] > 0.8 > 0.5 > curve.train[0]
    assert len(curve.train) == len(curve.valid) == 10
    assert steps == [(k, 10) for k in range(1, 11)]
    network = materialise(SPACE.build(a, VIEW.task), torch_generator(1, "other"))
    network.load_state_dict(dict(weights))
    assert measure(network, VIEW.valid) == curve.valid[-1]
    assert measure(network, load_test("digits")) > 0.8


def test_a_prefix_of_a_training_is_the_training_cut_short() -> None:
    trainer = ReferenceTrainer(SPACE, device="cpu")
    a = SPACE.parse("16-relu")
    long, _ = trainer.train(a, setting(pipeline="sgd_cosine"), seed=3, fidelity=Fidelity(epochs=3))
    short, _ = trainer.train(a, setting(pipeline="sgd_cosine"), seed=3, fidelity=Fidelity(epochs=2))
    assert short.valid == long.valid[:2]
    assert short.train == long.train[:2]
    assert short.flops * 3 == long.flops * 2


def test_inherited_weights_are_trained_on() -> None:
    trainer = ReferenceTrainer(SPACE, device="cpu")
    a = SPACE.parse("64-relu")
    first, weights = trainer.train(a, setting(), seed=0, fidelity=Fidelity(epochs=4))
    kept = {k: v.clone() for k, v in weights.items()}
    second, _ = trainer.train(a, setting(), seed=0, fidelity=Fidelity(epochs=1), init=weights)
    scratch, _ = trainer.train(a, setting(), seed=0, fidelity=Fidelity(epochs=1))
    assert second.train[0] > first.train[-1] - 0.05 > scratch.train[0]
    assert all(torch.equal(kept[k], weights[k]) for k in kept)


def test_costs_are_known_before_and_equal_those_after() -> None:
    trainer = ReferenceTrainer(SPACE, device="cpu")
    a, short = SPACE.parse("16-relu"), Fidelity(epochs=2)
    forward, both = mlp_flops([64, 16, 10])
    for unit, expected in (("epochs", 2.0), ("evaluations", 1.0), ("flops", 2 * (800.0 * both + 398 * forward))):
        (cost,) = trainer.cost(a, setting(unit), short)
        assert (cost.kind, cost.amount) == ("train", expected)
    assert trainer.train(a, setting("flops"), seed=0, fidelity=short)[0].flops == expected
    assert trainer.cost(a, setting(), FULL)[0].amount == trainer.cost(a, setting(), Fidelity(epochs=99))[0].amount == 10
    with pytest.raises(ValueError, match="budget: seconds are only known after"):
        trainer.cost(a, setting("seconds"), FULL)


class Fast(MLP):
    """Genes that are training hyper-parameters."""

    def training(self, a: Architecture) -> dict[str, float]:
        return {"learning_rate": 0.01}


def test_a_closed_pipeline_refuses_what_an_open_one_takes() -> None:
    space = Fast()
    a = space.parse("16-relu")
    trainer = ReferenceTrainer(space, device="cpu")
    with pytest.raises(ValueError, match="pipeline: 'adam' does not open 'learning_rate'"):
        trainer.train(a, setting(), seed=0, fidelity=Fidelity(epochs=1))
    opened = replace(setting(), pipeline=replace(PIPELINES["adam"], open=("learning_rate",)))
    fast, _ = trainer.train(a, opened, seed=0, fidelity=Fidelity(epochs=1))
    slow, _ = ReferenceTrainer(SPACE, device="cpu").train(a, opened, seed=0, fidelity=Fidelity(epochs=1))
    assert fast.valid[0] > slow.valid[0] + 0.1


def test_training_needs_data() -> None:
    with pytest.raises(ValueError, match="data: training for real needs a data set"):
        ReferenceTrainer(SPACE, device="cpu").train(
            SPACE.parse("8-relu"), replace(setting(), data=None), seed=0, fidelity=FULL
        )


def test_a_convolutional_network_trains_too() -> None:
    space = NB201(cells=1, channels=4)
    a = space.parse("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|")
    x = np.random.default_rng(0).random((64, 3, 8, 8), np.float32)
    y = (x[:, 0].mean((1, 2)) > x[:, 1].mean((1, 2))).astype(np.int64)
    task = Task("toy", "image", "accuracy", True, (3, 8, 8), 2, "")
    network = materialise(space.build(a, task), torch_generator(0, "init", a))
    correct = fit(network, Split(x, y), {}, replace(PIPELINES["adam"], learning_rate=0.01), streams=Streams(0, a))
    assert correct["train"][-1] > 45
    forward, both = network_flops(space.build(a, task), task)
    assert prod(task.shape) < forward < both < 3 * forward
    assert inf > integer(0, "x") >= 0
