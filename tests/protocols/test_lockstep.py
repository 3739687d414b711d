"""Networks of any layers side by side end as each does alone under the reference trainer."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from nasbed.methods import registry
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import Architecture, Pipeline, Split
from nasbed.protocols.streams import integer, torch_generator
from nasbed.protocols.training import PIPELINES, fit, fit_stacked, load, materialise
from nasbed.protocols.training import buckets as buckets_module
from nasbed.protocols.training.buckets import bucket_size, fit_in_buckets
from nasbed.protocols.training.cuda import deterministic
from nasbed.protocols.training.ingredients import Streams
from nasbed.protocols.training.lockstep import Lockstep
from nasbed.protocols.training.objectives import CLASSES, REGRESSION, TEXT
from nasbed.protocols.training.stacked import Batch, losses_and_totals, stack_of
from nasbed.protocols.training.stacked_layers import StackedConv, choices

SPACE = NB201(channels=4, cells=1)
VIEW = load("digits")
TRAIN = Split(VIEW.train.x[:24], VIEW.train.y[:24])  # batches of 16 and 8
VALID = Split(VIEW.valid.x[:10], VIEW.valid.y[:10])
SGD = replace(PIPELINES["sgd_cosine"], epochs=3, batch_size=16)
# Every edge holds different operations in the first two; in the third nothing after the first edge reads it.
A, B, DEAD = (
    SPACE.parse(text)
    for text in (
        "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
        "|nor_conv_1x1~0|+|none~0|nor_conv_3x3~1|+|nor_conv_3x3~0|skip_connect~1|avg_pool_3x3~2|",
        "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
    )
)
MEMBERS = [(A, 0), (B, 0), (A, 1), (B, 1)]

Member = tuple[Architecture, int]


def alone(member: Member, pipeline: Pipeline, dtype: torch.dtype, space=SPACE, train=TRAIN, **options):
    a, seed = member
    network = materialise(space.build(a, VIEW.task), torch_generator(seed, "init", a), dtype=dtype)
    noise = integer(seed, "network-noise", a)
    totals = fit(network, train, {"valid": VALID}, pipeline, streams=Streams(seed, a), noise_seed=noise, **options)
    return totals, network.state_dict()


def stacked(members: list[Member], pipeline: Pipeline, dtype: torch.dtype, space=SPACE, train=TRAIN, **options):
    networks = {(a, s): space.build(a, VIEW.task) for a, s in members}
    return fit_stacked(networks, train, {"valid": VALID}, pipeline, dtype=dtype, **options)


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], least: float = 1e-3) -> float:
    """Largest over all tensors, relative to the largest value of a tensor; NaN is an error, not a small number.

    Offsets before a batch normalisation are 0 but for rounding, so a tensor's largest value counts as `least` or more.
    """
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.isfinite(tensor).all(), name
        assert torch.isfinite(theirs[name]).all(), name
        assert (tensor.shape, tensor.dtype) == (theirs[name].shape, theirs[name].dtype)
    return max(float((t - theirs[n]).abs().max() / theirs[n].abs().max().clamp(min=least)) for n, t in ours.items())


INGREDIENTS = {
    "plain": {},
    # Without weight decay: where a gradient is 0 but for rounding, Adam would make large steps of the rounding's sign.
    "adam": {"optimizer": "adam", "momentum": 0.0, "nesterov": False, "learning_rate": 0.003, "weight_decay": 0.0},
    "label_smoothing": {"label_smoothing": 0.1},
    "dropout": {"dropout": 0.3},
    "drop_path": {"drop_path": 0.5},
    "cutout": {"cutout": 3},
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "all": {"cutmix": 1.0, "cutout": 3, "drop_path": 0.3, "dropout": 0.2, "label_smoothing": 0.1},
}


def pipeline_with(name: str) -> Pipeline:
    return replace(SGD, **{"epochs": 3 if name == "plain" else 2} | INGREDIENTS[name])


@cache
def trained(name: str) -> tuple[list[Member], dict, list]:
    members = [*MEMBERS, (DEAD, 0)] if name == "plain" else MEMBERS
    return members, *stacked(members, pipeline_with(name), torch.float64)


@pytest.mark.parametrize("name", INGREDIENTS)
def test_every_network_ends_as_it_does_alone(name: str) -> None:
    members, totals, states = trained(name)
    assert ("train" in totals) == (name not in ("mixup", "cutmix", "all"))
    for k, member in enumerate(members):
        expected, state = alone(member, pipeline_with(name), torch.float64)
        assert difference(states[k], state, least=0.1 if name == "adam" else 1e-3) < 1e-9
        assert {n: t[k].tolist() for n, t in totals.items()} == {n: t.tolist() for n, t in expected.items()}


def test_ingredients_change_the_result() -> None:
    """Or the test above would compare plain trainings again and again."""
    ends = [trained(name)[2][0] for name in INGREDIENTS]
    for i, end in enumerate(ends):
        assert all(difference(end, other) > 1e-3 for other in ends[:i])


def test_weights_that_nothing_reads_decay() -> None:
    _, [state] = stacked([(DEAD, 0)], SGD, torch.float64)
    name = "1.0.edges.0.1.weight"
    network = materialise(SPACE.build(DEAD, VIEW.task), torch_generator(0, "init", DEAD), dtype=torch.float64)
    ratio = state[name] / network.state_dict()[name]
    assert 0.9 < ratio.min() <= ratio.max() < 1.0


def test_single_precision_stays_close_for_twenty_steps() -> None:
    """Of most networks: one where rounding turns the sign of a value before a ReLU goes its own way."""
    pipeline, train = replace(SGD, epochs=20), Split(TRAIN.x[:12], TRAIN.y[:12])
    _, states = stacked(MEMBERS[:3], pipeline, torch.float32, train=train, recorded=())
    expected = [alone(member, pipeline, torch.float32, train=train, recorded=())[1] for member in MEMBERS[:3]]
    far = [difference(state, other, least=0.1) for state, other in zip(states, expected, strict=True)]
    print("differences after 20 steps:", *(f"{d:.1e}" for d in far))
    assert sorted(far)[-2] < 1e-5


def test_the_comparison_sees_a_wrong_seed() -> None:
    """The negative control: one seed planted wrongly is far outside the tolerance."""
    pipeline = replace(SGD, epochs=1)
    _, states = stacked([(A, 0), (A, 1)], pipeline, torch.float64)
    assert difference(states[0], alone((A, 0), pipeline, torch.float64)[1]) < 1e-9
    assert difference(states[1], alone((A, 2), pipeline, torch.float64)[1]) > 1e-2
    with pytest.raises(AssertionError):
        difference({"w": torch.tensor([np.nan])}, {"w": torch.tensor([1.0])})


def test_members_of_a_stack_do_not_touch_each_other() -> None:
    pipeline = replace(SGD, epochs=1)
    _, whole = stacked(MEMBERS, pipeline, torch.float64)
    _, turned = stacked(MEMBERS[::-1], pipeline, torch.float64)
    _, single = stacked(MEMBERS[1:2], pipeline, torch.float64)
    assert max(map(difference, whole, turned[::-1])) < 1e-12
    assert difference(whole[1], single[0]) < 1e-12


@pytest.mark.parametrize("convolution", ["grouped", "gemm", "timed"])
def test_ways_to_convolve_agree(convolution: str) -> None:
    pipeline = replace(SGD, epochs=1)
    _, expected = stacked(MEMBERS[:2], pipeline, torch.float64)
    _, states = stacked(MEMBERS[:2], pipeline, torch.float64, convolution=convolution)
    assert max(map(difference, states, expected)) < 1e-12
    if convolution == "timed":
        assert all(line.endswith((": grouped", ": gemm")) for line in choices().splitlines())
        assert "cpu torch.float64 16x2x8x8 * 8x1x3x3 / 2 networks, stride 1" in choices()


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 2}, {"bias": True}])
@pytest.mark.parametrize("kernel", [1, 3, (1, 3)])
@pytest.mark.parametrize("convolution", ["grouped", "gemm"])
def test_a_stacked_convolution_is_that_of_each_network(convolution, kernel, options) -> None:
    layers = [nn.utils.skip_init(nn.Conv2d, 4, 6, kernel, **{"bias": False} | options) for _ in range(3)]
    rng = torch.Generator().manual_seed(0)
    for p in [p for layer in layers for p in layer.parameters()]:
        nn.init.normal_(p, generator=rng)
    x = torch.randn(2, 12, 7, 6, generator=rng)
    expected = torch.cat([layer(part) for layer, part in zip(layers, x.chunk(3, 1), strict=True)], 1)
    torch.testing.assert_close(StackedConv(layers, convolution)(x), expected)


def network(seed: int, *layers: nn.Module) -> nn.Module:
    return materialise(nn.Sequential(*layers), torch.Generator().manual_seed(seed))


def one_step(networks: list[nn.Module]) -> list[dict[str, torch.Tensor]]:
    stack = Lockstep(networks, SGD)
    x, y = torch.from_numpy(VIEW.train.x[:16]), torch.from_numpy(VIEW.train.y[:16])
    stack.gradients(x.expand(len(networks), *x.shape), y.expand(len(networks), 16), Batch(), CLASSES)
    for p in stack.parameters:
        p.data.copy_(p.grad)
    return [stack.state(k) for k in range(len(networks))]


def test_a_network_that_diverged_leaves_the_others_alone() -> None:
    made = [materialise(SPACE.build(a, VIEW.task), torch_generator(0, "init", a)) for a in (A, B)]
    sound = one_step(made)
    with torch.no_grad():
        made[0][0][0].weight[0] = torch.nan
    broken = one_step(made)
    assert not any(t.isfinite().all() for n, t in broken[0].items() if n.endswith("edges.0.1.weight"))
    assert difference(broken[1], sound[1]) == 0


@pytest.mark.parametrize(
    "name",
    [
        "darts[nodes=2;cells=3;channels=4]",  # cells that differ in their wiring; concatenation, odd sizes
        "enas_macro[layers=3;channels=4]",
    ],
)
def test_cells_with_different_wirings_stack(name: str) -> None:
    space, pipeline = registry.space(name), replace(SGD, epochs=1)
    rng = np.random.default_rng(1)
    members = [(space.sample(rng), seed) for seed in (0, 1)]
    train = Split(TRAIN.x[:24, :, :7, :7], TRAIN.y[:24])
    _, states = stacked(members, pipeline, torch.float64, space, train)
    for state, member in zip(states, members, strict=True):
        assert difference(state, alone(member, pipeline, torch.float64, space, train)[1]) < 1e-9


class _Halves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :2] + x[:, 2:]


class _Loses(nn.Module):
    def __init__(self, called: bool) -> None:
        super().__init__()
        self.conv, self.called = nn.Conv2d(1, 1, 1), called

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.called:
            self.conv(x)
        return x


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Dropout(0.1)], r"Dropout\(p=0.1, inplace=False\) has no stacked form"),
        ([nn.Conv2d(1, 4, 1, padding=1, padding_mode="reflect")], "padding_mode is 'reflect'"),
        ([nn.Conv2d(1, 4, 1), _Halves()], "the step .* has no stacked form"),
        ([nn.BatchNorm2d(1, momentum=None)], "momentum is None"),
        ([_Loses(called=True)], "what conv computes is not used"),
        ([_Loses(called=False)], "'0.conv.weight' takes no part in the computation"),
        ([nn.Flatten(2)], "Flatten.* has no stacked form"),
    ],
)
def test_what_has_no_stacked_form_is_refused_in_one_line(layers: list[nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        one_step([network(0, *layers), network(1, *layers)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"policy": "trivial_augment"}, {}, "pipeline.policy: 'trivial_augment'; networks side by side allow ''"),
        ({"shake_shake": True}, {}, "pipeline.shake_shake: True; networks side by side allow False"),
        ({"clip_norm": 0.1}, {}, "pipeline.clip_norm: 0.1; these networks side by side allow 0 only"),
        ({}, {"recorded": (0, 1)}, r"recorded: \[0, 1\] are not ascending epochs of 1 to 3"),
        ({}, {"recorded": (2, 1)}, r"recorded: \[2, 1\]"),
        ({}, {"convolution": "fast"}, "convolution: 'fast' is not one of rule, grouped, gemm, timed"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(changes: dict, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stacked([(A, 0)], replace(SGD, **changes), torch.float32, **options)
    with pytest.raises(ValueError, match="networks: there are none"):
        stacked([], SGD, torch.float32)


class _Own(nn.Linear):
    @classmethod
    def stacked(cls, networks, noise_seeds, dtype):
        return "its own", len(networks), noise_seeds, dtype


def test_a_class_may_have_a_stack_of_its_own_and_perceptrons_do() -> None:
    own = [nn.utils.skip_init(_Own, 2, 2)] * 2
    assert stack_of(own, [3, 4], SGD) == ("its own", 2, [3, 4], torch.float32)
    with pytest.raises(ValueError, match="device: stacks of _Own compute on the CPU only"):
        stack_of([own[0].to("meta")], [0], SGD)
    perceptron = network(0, nn.Flatten(), nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 10))
    assert type(stack_of([perceptron], [0], SGD)).__name__ == "Perceptrons"
    assert type(stack_of([perceptron.to("meta")], [0], SGD)) is Lockstep


def test_recorded_epochs_are_those_of_the_whole_curve() -> None:
    whole, states = stacked(MEMBERS[:2], SGD, torch.float32)
    some, again = stacked(MEMBERS[:2], SGD, torch.float32, recorded=(1, 3))
    assert {n: t[:, [0, 2]].tolist() for n, t in whole.items()} == {n: t.tolist() for n, t in some.items()}
    assert max(map(difference, again, states)) == 0
    assert some["valid"].dtype == np.int64


@pytest.mark.parametrize("objective", [CLASSES, REGRESSION, TEXT])
def test_losses_and_totals_are_those_of_each_network(objective) -> None:
    rng = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 5, *([7] if objective is TEXT else []), 4, generator=rng, dtype=torch.float64)
    y = torch.randint(4, outputs.shape[:-1], generator=rng)
    if objective is REGRESSION:
        outputs, y = outputs[..., :1], y.double()
    losses, totals = losses_and_totals(outputs, y, objective)
    expected = [objective.loss(o, t) for o, t in zip(outputs, y, strict=True)]
    torch.testing.assert_close(losses, torch.stack(expected))
    for k in range(3):
        torch.testing.assert_close(totals[k], objective.total(outputs[k], y[k], expected[k]))
    if objective is CLASSES:
        soft = losses_and_totals(outputs, nn.functional.one_hot(y, 4).double(), objective)
        torch.testing.assert_close(soft, (losses, totals))


# --- memory and devices ---------------------------------------------------------------------------------------


def test_a_bucket_too_large_for_the_memory_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = replace(SGD, epochs=1)
    members = [(DEAD, seed) for seed in range(5)]
    expected, states = stacked(members, pipeline, torch.float64)
    tried = []

    def small(networks, *args, **options):
        tried.append(len(networks))
        if len(networks) > 2:
            raise torch.OutOfMemoryError
        return fit_stacked(networks, *args, **options)

    monkeypatch.setattr(buckets_module, "fit_stacked", small)
    networks = {(a, s): SPACE.build(a, VIEW.task) for a, s in members}
    totals, found = fit_in_buckets(networks, TRAIN, {"valid": VALID}, pipeline, size=4, dtype=torch.float64)
    assert tried == [4, 2, 2, 1]
    assert {n: t.tolist() for n, t in totals.items()} == {n: t.tolist() for n, t in expected.items()}
    assert max(map(difference, found, states)) < 1e-12
    monkeypatch.setattr(buckets_module, "fit_stacked", lambda *a, **o: small({i: 0 for i in range(3)}))
    with pytest.raises(torch.OutOfMemoryError):
        fit_in_buckets(networks, TRAIN, {}, pipeline, size=4)


def test_a_bucket_fills_the_memory() -> None:
    networks = {(A, seed): SPACE.build(A, VIEW.task) for seed in range(4)}

    def size(free: int | None, **changes) -> int:
        return bucket_size(networks, TRAIN, replace(SGD, **changes), free=free)

    assert size(None) == 4
    assert size(16 * 64 * 4) == 1  # the images alone are more
    sizes = [size(free) for free in (10**6, 3 * 10**6, 9 * 10**6)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    assert size(2 * 10**6, batch_size=8) > size(2 * 10**6)


def test_settings_of_the_gpu_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with deterministic("cuda"):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(ValueError, match="CUBLAS_WORKSPACE_CONFIG: ':0:0'"), deterministic("cuda"):
        pass
    with deterministic("cpu"):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":0:0"


@pytest.mark.gpu
def test_on_a_gpu_the_result_is_the_same_twice_and_close_to_that_of_the_cpu() -> None:
    pipeline = replace(SGD, **INGREDIENTS["all"])
    first, again, cpu = (stacked(MEMBERS, pipeline, torch.float64, device=d)[1] for d in ("cuda", "cuda", "cpu"))
    assert max(map(difference, first, again)) == 0
    assert max(map(difference, first, cpu)) < 1e-9
