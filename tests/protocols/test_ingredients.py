"""Ingredients of training: random numbers and what is made of them, by definition and by brute force."""

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

from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import Architecture, DataView, Pipeline, Split
from nasbed.protocols.streams import generator
from nasbed.protocols.training import (
    PIPELINES,
    EpochNoise,
    Streams,
    load,
)
from nasbed.protocols.training.ingredients import (
    augmented,
    drop_path_rate,
    mixes,
    soft,
    targets,
)
from nasbed.protocols.training.policies import with_policy

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
        assert q[i].tolist() == pytest.approx([float(e) for e in expected], abs=1e-6)
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


def test_the_rate_grows_from_zero_with_the_epochs() -> None:
    p = replace(PLAIN, drop_path=0.2, epochs=8)
    assert [drop_path_rate(p, t) for t in (0, 4, 8)] == [0, 0.1, 0.2]


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
