"""Ingredients of training: each by its definition, by brute force, and at work on networks."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import astuple, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasbed.methods import registry
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import FULL, Architecture, DataView, Fidelity, Pipeline, Setting, Split
from nasbed.protocols.streams import generator, torch_generator
from nasbed.protocols.training import (
    PIPELINES,
    EpochNoise,
    ReferenceTrainer,
    Streams,
    check_ingredients,
    fit,
    fit_from_seed,
    load,
    materialise,
    measure,
)
from nasbed.protocols.training.active import Active, active
from nasbed.protocols.training.ingredients import (
    augmented,
    classifier_of,
    drop_path_rate,
    mixes,
    paths_of,
    soft,
    targets,
)
from nasbed.protocols.training.policies import with_policy
from nasbed.protocols.training.shake import branches_of

DIGITS = load("digits")
VIEW = DataView(
    DIGITS.task,
    Split(DIGITS.train.x[:150], DIGITS.train.y[:150]),
    Split(DIGITS.valid.x[:100], DIGITS.valid.y[:100]),
)
SPACE = NB201(cells=1, channels=4)
A = SPACE.parse("|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|")
PLAIN = replace(PIPELINES["+cosine"], epochs=2)  # 150 examples: batches of 64, 64 and 22
EVERYTHING = replace(PLAIN, cutout=3, mixup=0.4, drop_path=0.3, dropout=0.2, label_smoothing=0.1)


def noise(pipeline: Pipeline, n: int = 150, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> EpochNoise:
    return Streams(seed, A).epoch(pipeline, n, shape, 5, 16)


def built(seed: int = 0, space: NB201 = SPACE, a: Architecture = A, dtype: torch.dtype = torch.float32) -> nn.Module:
    return materialise(space.build(a, VIEW.task), torch_generator(seed, "init", a), dtype=dtype)


def trained(pipeline: Pipeline, seed: int = 0, a: Architecture = A) -> tuple[nn.Module, dict[str, np.ndarray]]:
    return fit_from_seed(SPACE.build(a, VIEW.task), a, seed, VIEW.train, {"valid": VIEW.valid}, pipeline)


def weights(network: nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).numpy()


# --- random numbers

ELSEWHERE = """
import hashlib
from dataclasses import astuple
from nasbed.protocols import Architecture
from nasbed.protocols.training import PIPELINES, Streams
from dataclasses import replace
p = replace(PIPELINES["+cosine"], cutout=3, cutmix=0.4, drop_path=0.3, dropout=0.2)
streams = Streams(3, Architecture("nb201", (1, 2)))
h = hashlib.sha256()
for epoch in range(2):
    for array in astuple(streams.epoch(p, 150, (1, 8, 8), 5, 16)):
        h.update(array.tobytes())
print(h.hexdigest())
"""


def test_the_noise_of_an_epoch_is_the_same_in_another_process() -> None:
    p = replace(PLAIN, cutout=3, cutmix=0.4, drop_path=0.3, dropout=0.2)
    streams, h = Streams(3, Architecture("nb201", (1, 2))), hashlib.sha256()
    for _ in range(2):
        for array in astuple(streams.epoch(p, 150, (1, 8, 8), 5, 16)):
            h.update(array.tobytes())
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", ELSEWHERE]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
    assert ran.stdout.strip() == h.hexdigest()


def test_shapes_and_types_and_what_is_off() -> None:
    full = noise(replace(EVERYTHING, mixup=0.0, cutmix=1.0))
    kinds = {f.name: (a.shape, a.dtype.name) for f in fields(EpochNoise) if (a := getattr(full, f.name)) is not None}
    assert kinds == {
        "order": ((150,), "int64"),
        "cutout": ((150, 2), "int64"),
        "mix": ((3,), "float64"),
        "box": ((3, 4), "int64"),
        "paths": ((5, 150), "float32"),
        "units": ((150, 16), "float32"),
    }
    assert noise(EVERYTHING).box is None
    plain = noise(PLAIN)
    assert [plain.cutout, plain.mix, plain.box, plain.paths, plain.units] == [None] * 5


@pytest.mark.parametrize("pipeline", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_the_order_is_the_permutations_of_the_stream_whatever_the_ingredients(pipeline: Pipeline) -> None:
    """As before there were ingredients, so that results of plain pipelines keep their bits."""
    rng, streams = generator(7, "data-order", A), Streams(7, A)
    for _ in range(3):
        assert streams.epoch(pipeline, 90, (1, 8, 8), 5, 16).order.tolist() == rng.permutation(90).tolist()
    assert Streams(7, A).order(90).tolist() == generator(7, "data-order", A).permutation(90).tolist()


def test_seeds_architectures_and_epochs_have_numbers_of_their_own() -> None:
    one, other, again = Streams(0, A), Streams(0, SPACE.at(3)), Streams(1, A)
    drawn = [s.epoch(EVERYTHING, 50, (1, 8, 8), 5, 16) for s in (one, one, other, again)]
    for field in ("order", "cutout", "mix", "paths", "units"):
        assert len({getattr(e, field).tobytes() for e in drawn}) == 4, field


# --- CutOut


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(3, 8), st.integers(3, 8), st.integers(0, 2**32 - 1))
def test_cutout_sets_a_clipped_square_to_zero(side: int, height: int, width: int, seed: int) -> None:
    x = torch.ones(6, 2, height, width)
    centres = np.random.default_rng(seed).integers((height, width), size=(6, 2))
    found = augmented(x, replace(PLAIN, cutout=side), cutout=centres, mix=None, box=None)
    for image, (row, column) in zip(found.tolist(), centres.tolist(), strict=True):
        top, left = row - side // 2, column - side // 2
        for channel in image:
            for i in range(height):
                for j in range(width):
                    assert channel[i][j] == (not (top <= i < top + side and left <= j < left + side))
    assert (x == 1).all()


def test_cutout_erases_at_most_a_square_and_less_on_average() -> None:
    """DeVries & Taylor's square is clipped at the border; of a uniform centre the expected area is known."""
    p = replace(PLAIN, cutout=4)
    drawn = noise(p, n=4000, shape=(1, 12, 12))
    assert np.bincount((drawn.cutout @ (12, 1)), minlength=144).min() > 5  # every pixel is a centre
    erased = (augmented(torch.ones(4000, 1, 12, 12), p, cutout=drawn.cutout, mix=None, box=None) == 0).sum((1, 2, 3))
    assert erased.max() == 16
    # Of 12 centres, one loses two rows, one loses one row at each end but of the even square's longer side.
    rows = np.mean([min(12, c + 2) - max(0, c - 2) for c in range(12)])
    assert erased.double().mean() == pytest.approx(rows**2, rel=0.01)
    assert rows**2 < 16


# --- MixUp, CutMix, targets


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_mixup_by_brute_force(n: int, share: float, seed: int) -> None:
    p, rng = replace(PLAIN, mixup=1.0), np.random.default_rng(seed)
    x, y = torch.from_numpy(rng.random((n, 1, 3, 2))), torch.from_numpy(rng.integers(4, size=n))
    mixed = augmented(x, p, cutout=None, mix=share, box=None)
    q = targets(y, 4, p, mix=share, dtype=torch.float64)
    for i in range(n):
        torch.testing.assert_close(mixed[i], share * x[i] + (1 - share) * x[i - 1])
        expected = [share * (y[i] == k) + (1 - share) * (y[i - 1] == k) for k in range(4)]
        assert q[i].tolist() == pytest.approx([float(e) for e in expected])
    assert q.sum(1).tolist() == pytest.approx([1.0] * n)


def test_mixup_at_its_ends_is_the_batch_and_the_batch_turned() -> None:
    p, x = replace(PLAIN, mixup=1.0), torch.rand(5, 1, 3, 3)
    assert torch.equal(augmented(x, p, cutout=None, mix=1.0, box=None), x)
    assert torch.equal(augmented(x, p, cutout=None, mix=0.0, box=None), x[[4, 0, 1, 2, 3]])
    extreme = noise(replace(PLAIN, mixup=1e-3, batch_size=1)).mix  # alpha -> 0
    assert np.minimum(extreme, 1 - extreme).max() < 1e-3
    assert noise(replace(PLAIN, mixup=1.0, batch_size=1)).mix.std() == pytest.approx(12**-0.5, abs=0.05)  # uniform


@settings(deadline=None, max_examples=25)
@given(st.floats(0.05, 5), st.integers(0, 2**32 - 1))
def test_cutmix_pastes_a_box_and_weighs_by_its_area(alpha: float, seed: int) -> None:
    p = replace(PLAIN, cutmix=alpha, batch_size=10)
    drawn = noise(p, n=30, shape=(1, 6, 9), seed=seed)
    for share, box in zip(drawn.mix, drawn.box, strict=True):
        top, bottom, left, right = box.tolist()
        assert 0 <= top <= bottom <= 6
        assert 0 <= left <= right <= 9
        assert share == pytest.approx(1 - (bottom - top) * (right - left) / 54)
        x = torch.rand(10, 2, 6, 9)
        expected = x.clone()
        expected[:, :, top:bottom, left:right] = x.roll(1, 0)[:, :, top:bottom, left:right]
        assert torch.equal(augmented(x, p, cutout=None, mix=share, box=box), expected)


@pytest.mark.parametrize("change", [{"mixup": 0.4}, {"cutmix": 1.0}, {}], ids=["mixup", "cutmix", "none"])
def test_leading_axes_are_batches_of_their_own(change: dict[str, float]) -> None:
    """One call serves networks side by side: the same bits as a call for each."""
    p = replace(PLAIN, cutout=3, label_smoothing=0.1, batch_size=8, **change)
    drawn = [noise(p, n=8, seed=k) for k in range(3)]
    x, y = torch.rand(3, 8, 1, 8, 8), torch.randint(10, (3, 8))
    cutout = np.stack([d.cutout for d in drawn])
    mix, box = (None if getattr(drawn[0], k) is None else np.stack([getattr(d, k)[0] for d in drawn])
                for k in ("mix", "box"))  # fmt: skip
    together, q = augmented(x, p, cutout=cutout, mix=mix, box=box), targets(y, 10, p, mix=mix)
    for k, d in enumerate(drawn):
        alone = [None if values is None else values[0] for values in (d.mix, d.box)]
        assert torch.equal(together[k], augmented(x[k], p, cutout=d.cutout, mix=alone[0], box=alone[1]))
        assert torch.equal(q[k], targets(y[k], 10, p, mix=alone[0]))


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 0.99), st.integers(2, 12), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_label_smoothing_is_that_of_torch(share: float, classes: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs, y = torch.from_numpy(rng.normal(size=(n, classes))), torch.from_numpy(rng.integers(classes, size=n))
    q = targets(y, classes, replace(PLAIN, label_smoothing=share), mix=None, dtype=torch.float64)
    ours = nn.functional.cross_entropy(outputs, q)
    theirs = nn.CrossEntropyLoss(label_smoothing=share)(outputs, y)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    assert q.sum(1).tolist() == pytest.approx([1.0] * n)


def test_which_pipelines_need_soft_targets() -> None:
    assert [(soft(p), mixes(p)) for p in (PLAIN, replace(PLAIN, label_smoothing=0.1), replace(PLAIN, cutmix=1.0))] == [
        (False, False),
        (True, False),
        (True, True),
    ]


# --- ScheduledDropPath and dropout


def test_the_rate_grows_from_zero_with_the_epochs() -> None:
    p = replace(PLAIN, drop_path=0.2, epochs=8)
    assert [drop_path_rate(p, t) for t in (0, 4, 8)] == [0, 0.1, 0.2]


def test_paths_are_convolutions_and_poolings_not_identities() -> None:
    network = built()
    edges = [m.edges for m in network.modules() if hasattr(m, "edges")]
    assert len(edges) == 3
    assert paths_of(network) == [cell[i] for cell in edges for i in (0, 1, 2, 5)]
    assert (
        paths_of(SPACE.build(SPACE.parse("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"), VIEW.task)) == []
    )


@pytest.mark.parametrize("name", ["darts[nodes=2;cells=3;channels=4]", "nasnet[blocks=2;cells=2]",
                                  "enas_micro[nodes=2;cells=2;channels=6]", "opidx[nodes=2;cells=2]"])  # fmt: skip
def test_cells_of_two_operations_per_node_name_their_paths(name: str) -> None:
    space = registry.space(name)
    for k in range(2):
        network = space.build(space.sample(generator(k, "paths")), VIEW.task)
        made = [op for m in network.modules() if type(m).__name__ in ("Node", "TwoInputCell")
                for op in ((m.first, m.second) if hasattr(m, "first") else m.operations)]  # fmt: skip
        assert len(made) == 4 * space.cells
        assert paths_of(network) == [op for op in made if type(op).__name__ not in ("Identity", "Zero")]


def at_work(network: nn.Module, pipeline: Pipeline, epoch: int, x: torch.Tensor) -> Active:
    """The ingredients at the first batch of an epoch, hooks in place for good."""
    found = Active(network, pipeline, Streams(0, A), VIEW.train.x.shape)
    found.hooks()
    found.epoch(epoch, x)
    found.batch(0, x)
    return found


def test_dropped_paths_by_hand() -> None:
    """The forward pass of a network of one cell, with every path's mask multiplied in by hand."""
    p = replace(PLAIN, drop_path=0.6)
    network = built(dtype=torch.float64).train()
    x = torch.from_numpy(VIEW.train.x[:64]).double()
    stem, first, *rest = network
    (cell,) = first
    drawn = Streams(0, A).epoch(p, 150, (1, 8, 8), 12, 0).paths
    masks = torch.from_numpy(drawn[:, :64] >= 0.3).double()[..., None, None, None] / 0.7
    e = cell.edges
    node0 = stem(x)
    node1 = e[0](node0) * masks[0]
    node2 = e[1](node0) * masks[1] + e[2](node1) * masks[2]
    expected = node0 + e[5](node2) * masks[3]
    at_work(network, p, 1, x)
    torch.testing.assert_close(cell(stem(x)), expected, rtol=1e-12, atol=1e-12)
    assert len(rest) == 6


def test_a_path_keeps_its_expectation_and_drops_whole_images() -> None:
    p = replace(PLAIN, drop_path=0.5)  # a quarter in the second of two epochs
    streams, path = Streams(0, A), nn.AvgPool2d(1)
    cell = nn.Sequential(path)
    cell.paths = (path,)
    x = torch.ones(4000, 2, 3, 3)
    working = Active(cell, p, streams, x.shape)
    working.hooks()
    cell.train()
    for epoch, share in ((0, 0.0), (1, 0.25)):
        working.epoch(epoch, x)
        working.batch(0, x)
        ratio = cell(x)
        assert (ratio.flatten(1) == ratio[:, 0, 0, 0, None]).all()  # whole images
        kept = ratio[:, 0, 0, 0]
        assert set(kept.unique().tolist()) <= {0.0, torch.tensor(1 / (1 - share)).item()}
        assert (kept == 0).double().mean() == pytest.approx(share, abs=0.02)
        assert kept.mean() == pytest.approx(1, abs=0.03)
    assert torch.equal(cell.eval()(x), x)


def test_dropout_is_of_inputs_of_the_classifier() -> None:
    p = replace(PLAIN, dropout=0.25)
    network = built().train()
    seen: list[torch.Tensor] = []
    x = torch.from_numpy(VIEW.train.x[:64])
    layer = classifier_of(network)
    assert layer is network[-1]
    layer.register_forward_hook(lambda m, inputs, output: seen.append(inputs[0].detach()))
    network(x)
    at_work(network, p, 0, x)
    network(x)
    drawn = Streams(0, A).epoch(p, 150, (1, 8, 8), 0, 16).units[:64]
    torch.testing.assert_close(seen[1], seen[0] * torch.from_numpy(drawn >= 0.25) / 0.75)
    network.eval()(x)
    kept = seen[2]
    network(x)
    assert torch.equal(seen[3], kept)


def test_of_a_sequence_every_step_loses_the_same_inputs_of_the_classifier() -> None:
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 7)).train()
    x = torch.zeros(150, 5, dtype=torch.int64)
    seen: list[torch.Tensor] = []
    model[1].register_forward_hook(lambda m, inputs, output: seen.append(inputs[0].detach()))
    at_work(model, replace(PLAIN, dropout=0.5, batch_size=150), 0, x)
    model(x)
    zero = seen[0] == 0
    assert zero.shape == (150, 5, 6)
    assert (zero == zero[:, :1]).all()
    assert 0.4 < zero.double().mean() < 0.6


@pytest.mark.parametrize(
    "name",
    ["chain[layers=2]", "darts[nodes=2;cells=2]", "enas_macro[layers=2]", "enas_micro[nodes=2;cells=1]",
     "fabric[layers=2;scales=2]", "fcnet", "genetic_cnn[nodes=3]", "hierarchical[motifs=2,1;nodes=3,3;cells=1]",
     "macro[stages=2,2]", "mlp", "multi_branch[layers=3]", "nasnet[blocks=1;cells=2]", "nb201[cells=1]",
     "opidx[nodes=2;cells=1]", "size", "stacked(nb201)[cells=1;stages=1]"],
)  # fmt: skip
def test_the_last_linear_layer_is_the_classifier(name: str) -> None:
    space = registry.space(name)
    network = space.build(space.sample(generator(0, "classifier")), VIEW.task)
    layer, outputs = classifier_of(network), []
    layer.register_forward_hook(lambda m, inputs, output: outputs.append(output))
    found = network.eval()(torch.empty(2, *VIEW.task.shape, device="meta"))
    assert layer.out_features == VIEW.task.classes
    assert len(outputs) == 1
    assert outputs[0].shape == found.shape == (2, 10)


# --- Shake-Shake


def shaken(a: Architecture = A, seed: int = 0) -> tuple[nn.Module, Active, torch.Tensor]:
    network = built(seed, dtype=torch.float64)
    x = torch.from_numpy(VIEW.train.x[:64]).double()
    return network, at_work(network.train(), replace(PLAIN, shake_shake=True), 0, x), x


def test_branches_are_the_sums_of_two_operations() -> None:
    network = built()
    edges = [m.edges for m in network.modules() if hasattr(m, "edges")]
    expected = [pair for cell in edges for pair in ((cell[1], cell[2]), (cell[3], cell[5]))]
    assert branches_of(network) == expected
    three = SPACE.parse("|none~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|skip_connect~1|nor_conv_3x3~2|")
    assert branches_of(SPACE.build(three, VIEW.task)) == []


def test_evaluation_with_shake_shake_is_the_mean_of_the_branches() -> None:
    network, _, x = shaken()
    stem, first, *_ = network.eval()
    e = first[0].edges
    by_hand = built(dtype=torch.float64).eval()
    e = by_hand[1][0].edges
    node0 = by_hand[0](x)
    node2 = (e[1](node0) + e[2](e[0](node0))) / 2
    expected = (node0 + e[5](node2)) / 2
    torch.testing.assert_close(first(stem(x)), expected, rtol=1e-12, atol=1e-12)


def test_training_with_shake_shake_by_hand_forward_and_backward() -> None:
    """With b = a the gradients are those of autograd; with another b they are those of the sum weighed by b."""
    generators = torch_generator(0, "shake-shake", A), torch_generator(1, "shake-shake", A)
    for same in (True, False):
        network, working, x = shaken()
        drawn = torch.rand(2, 6, 64, generator=generators[0] if same else generators[1]).double()
        if same:
            drawn[1] = drawn[0]
        assert working._shake is not None
        working._shake._weights = drawn
        stem, first, *_ = network
        e = first[0].edges
        output = first(stem(x))
        output.square().sum().backward()
        by_hand = built(dtype=torch.float64).train()
        e, node0 = by_hand[1][0].edges, by_hand[0](x)
        (a2, a3), (b2, b3) = (d[:2, :, None, None, None] for d in drawn)

        def weighed(f: torch.Tensor, ahead: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
            return back * f + ((ahead - back) * f).detach()  # value a f, gradient b

        node2 = weighed(e[1](node0), a2, b2) + weighed(e[2](e[0](node0)), 1 - a2, 1 - b2)
        expected = weighed(node0, a3, b3) + weighed(e[5](node2), 1 - a3, 1 - b3)
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
        expected.square().sum().backward()
        for ours, theirs in zip(first.parameters(), by_hand[1].parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-10)


def test_shake_shake_weighs_images_one_by_one_and_anew_in_every_batch() -> None:
    _, working, x = shaken()
    assert working._shake is not None
    first = working._shake._weights
    working.batch(1, x[:22])
    second = working._shake._weights
    assert (first.shape, second.shape) == ((2, 6, 64), (2, 6, 22))
    assert len(torch.cat([first.flatten(), second.flatten()]).unique()) == 2 * 6 * (64 + 22)
    assert 0 <= first.min() < 0.05
    assert 0.95 < first.max() < 1


def test_a_network_after_shake_shake_is_measured_with_it() -> None:
    p = replace(PLAIN, shake_shake=True)
    network, totals = trained(p)
    assert measure(network, VIEW.valid, pipeline=p) == totals["valid"][-1] / 100
    logits = network.eval()(torch.from_numpy(VIEW.valid.x))
    assert not any(m._forward_hooks for m in network.modules())
    with active(network, p, Streams(0, A), VIEW.train.x.shape):
        assert not torch.allclose(network(torch.from_numpy(VIEW.valid.x)), logits)


# --- policies


@pytest.mark.parametrize(("name", "channels"), [("auto_augment", 1), ("auto_augment", 3), ("trivial_augment", 1)])
def test_policies_transform_each_image_by_draws_of_its_own(name: str, channels: int) -> None:
    x = torch.from_numpy(generator(0, "images").random((1, channels, 12, 12), np.float32)).expand(40, -1, -1, -1)
    order = np.random.default_rng(0).permutation(40)
    state = torch.get_rng_state()
    found = with_policy(x, name, order, 5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(with_policy(x, name, order, 5), found)
    assert not torch.equal(with_policy(x, name, order, 6), found)
    torch.set_rng_state(state)
    assert (found.shape, found.dtype) == (x.shape, x.dtype)
    assert 0 <= found.min() <= found.max() <= 1
    assert torch.equal((found * 255).round() / 255, found)  # whole bytes
    kinds = {image.numpy().tobytes() for image in found}
    assert len(kinds) > 10
    turned = with_policy(x, name, np.roll(order, 1), 5)
    assert torch.equal(turned[np.roll(order, 1)], found[order])  # draws follow the order


def test_autoaugment_is_the_policy_for_cifar_10_and_fills_with_zero() -> None:
    """Against torchvision image by image, from the same state of its generator."""
    from torchvision.transforms import v2

    x = torch.ones(40, 1, 12, 12)
    found = with_policy(x, "auto_augment", np.arange(40), 3)
    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = [policy(image) for image in (x * 255).to(torch.uint8)]
    assert torch.equal((found * 255).to(torch.uint8), torch.stack(expected))
    assert ((found == 0).sum((1, 2, 3)) > 0).any()  # what a translation uncovers


# --- refusals


class Bare(nn.Module):
    """No cell names its paths, and there is no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


VECTORS = Split(np.zeros((8, 4), np.float32), np.zeros(8, np.int64))
NUMBERS = Split(np.zeros((8, 1, 8, 8), np.float32), np.zeros(8, np.float32))
FIVE = Split(np.zeros((8, 5, 8, 8), np.float32), np.zeros(8, np.int64))


@pytest.mark.parametrize(
    ("change", "network", "train", "message"),
    [
        ({"cutout": 4}, nn.Linear(4, 2), VECTORS, r"cutout: 4 needs images; inputs have the shape \(4,\)"),
        ({"mixup": 0.2}, nn.Linear(4, 2), VECTORS, "mixup: 0.2 needs images"),
        ({"cutmix": 0.2}, nn.Linear(4, 2), VECTORS, "cutmix: 0.2 needs images"),
        ({"policy": "auto_augment"}, nn.Linear(4, 2), VECTORS, "policy: 'auto_augment' needs images"),
        ({"policy": "trivial_augment"}, Bare(), FIVE, "policy: 'trivial_augment' needs 1 or 3 channels; there are 5"),
        ({"mixup": 0.2}, Bare(), NUMBERS, "mixup: 0.2 needs classes"),
        ({"label_smoothing": 0.1}, Bare(), NUMBERS, "label_smoothing: 0.1 needs classes; targets are numbers"),
        ({"drop_path": 0.2}, Bare(), VIEW.train, "drop_path: no module of this network names its paths"),
        ({"dropout": 0.2}, Bare(), VIEW.train, "dropout: this network has no linear layer"),
        ({"shake_shake": True}, Bare(), VIEW.train, "shake_shake: no module of this network names its branches"),
        ({"mixup": 0.2, "cutmix": 0.2}, Bare(), VIEW.train, "cutmix: 0.2 of .* 0 with mixup > 0"),
    ],
)
def test_what_cannot_act_is_refused_before_training(
    change: dict[str, object], network: nn.Module, train: Split, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"^pipeline\.{message}") as error:
        fit(network, train, {}, replace(PLAIN, **change), streams=Streams(0, A))
    assert "\n" not in str(error.value)


def test_what_can_act_is_not_refused() -> None:
    everything = replace(EVERYTHING, policy="auto_augment", shake_shake=True)
    check_ingredients(everything, SPACE.build(SPACE.at(0), VIEW.task), VIEW.train)
    check_ingredients(PLAIN, Bare(), NUMBERS)
    words = Split(np.zeros((4, 5), np.int64), np.zeros((4, 5), np.int64))
    check_ingredients(replace(PLAIN, label_smoothing=0.1, dropout=0.1), nn.Linear(4, 2), words)


# --- training


CHANGES: list[dict[str, object]] = [
    {"label_smoothing": 0.1}, {"dropout": 0.3}, {"drop_path": 0.3}, {"cutout": 3}, {"mixup": 0.4}, {"cutmix": 1.0},
    {"policy": "trivial_augment"}, {"policy": "auto_augment"}, {"shake_shake": True}, {"restart": 1},
    {"final_learning_rate": 0.05},
]  # fmt: skip


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return weights(trained(PLAIN)[0])


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_ingredient_changes_training_and_nothing_else(change: dict[str, object], plain: np.ndarray) -> None:
    p = replace(PLAIN, **change)
    network, totals = trained(p)
    assert not np.array_equal(weights(network), plain)
    assert np.isfinite(weights(network)).all()
    assert ("train" in totals) == (not mixes(p))
    # Evaluation saw the network without hooks, which are gone.
    assert measure(network, VIEW.valid, pipeline=p) == totals["valid"][-1] / 100
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_training_with_everything_is_reproducible_and_learns() -> None:
    p = replace(EVERYTHING, policy="trivial_augment", shake_shake=True, epochs=2)
    state = torch.get_rng_state()
    one, totals = trained(p)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    other, _ = trained(p)
    torch.set_rng_state(state)
    assert np.array_equal(weights(one), weights(other))
    assert list(totals) == ["valid"]
    _, found = trained(PIPELINES["+all"])
    assert found["valid"][-1] > 25  # of 100, of ten classes, after 24 steps


def test_smoothing_and_dropping_leave_the_metric_of_training_alone() -> None:
    """Accuracies count correct predictions, also where the loss that is lowered is another."""
    p = replace(PLAIN, label_smoothing=0.9, learning_rate=1e-30)
    _, totals = trained(p)
    _, expected = trained(replace(p, label_smoothing=0.0))
    assert totals["train"].tolist() == expected["train"].tolist()
    assert totals["train"].dtype == np.int64


def test_perplexity_is_that_of_the_words_under_label_smoothing_too() -> None:
    from nasbed.protocols.training.objectives import TEXT

    words = np.random.default_rng(0).integers(7, size=(40, 5))
    results = []
    for share in (0.0, 0.5):
        model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 7))
        materialise(model, torch_generator(0, "init"))
        p = replace(PLAIN, label_smoothing=share, learning_rate=1e-30)
        results.append(fit(model, Split(words, words), {}, p, streams=Streams(0, A), objective=TEXT)["train"])
    assert results[0].tolist() == results[1].tolist()


def test_recorded_epochs_are_those_of_the_whole_curve() -> None:
    p = replace(PLAIN, epochs=4)
    arguments = (SPACE.build(A, VIEW.task), A, 0, VIEW.train, {"valid": VIEW.valid, "again": VIEW.valid}, p)
    _, whole = fit_from_seed(*arguments)
    _, some = fit_from_seed(*(SPACE.build(A, VIEW.task), *arguments[1:]), recorded=(1, 3, 4))
    for name in ("train", "valid", "again"):
        assert some[name].tolist() == whole[name][[0, 2, 3]].tolist()
    for wrong in ((0, 1), (1, 5), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match=r"recorded: .* are not ascending epochs of 1 to 4, each once"):
            fit_from_seed(*(SPACE.build(A, VIEW.task), *arguments[1:]), recorded=wrong)


def test_the_trainer_has_no_training_curve_after_mixing_and_can_stop_early() -> None:
    """A prefix of a training with ingredients is the training cut short."""
    setting = Setting(VIEW.task, "epochs", EVERYTHING, lambda a: 0, VIEW)
    trainer = ReferenceTrainer(SPACE, device="cpu")
    long, _ = trainer.train(A, setting, seed=0, fidelity=FULL)
    short, _ = trainer.train(A, setting, seed=0, fidelity=Fidelity(epochs=1))
    assert (long.train, len(long.valid)) == ((), 2)
    assert short.valid == long.valid[:1]
    assert short.flops * 2 == long.flops
