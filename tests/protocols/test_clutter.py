"""Cluttered digits: what is on an image, even use of digits and labels, disjoint parts, the same bytes everywhere."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasbed.protocols.training import load, load_test
from nasbed.protocols.training.clutter import (
    DIGITS_BASE,
    DIGITS_CLUTTER,
    MNIST_CLUTTER,
    Clutter,
    clutter,
    clutter_arrays,
    shrunk,
)
from nasbed.protocols.training.data import digits_clutter, mnist_clutter

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"
PARTS = ("train", "valid", "test")
SMALL = Clutter(train=60, valid=30, test=40, canvas=11, distractors=2, patch=3, noise=0.2)
BARE = Clutter(train=3000, valid=900, test=1500, canvas=8, distractors=0, noise=0.0)
"""On a canvas of their own size and without anything else, the images are the base digits."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def marked(m: int, classes: int = 10, first: int = 0, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Digits whose every pixel is another number, in random order: `first` * side^2 + 1, and so on, over 2^20."""
    values = rng(7).permutation(np.arange(1, m * side * side + 1)) + first * side * side
    return (values.reshape(m, side, side) / 2**20).astype(np.float32), np.arange(m) % classes


def digest(arrays: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    return hashlib.sha256(b"".join(a.tobytes() for part in PARTS for a in arrays[part])).hexdigest()


def found(x: np.ndarray, image: np.ndarray) -> Counter[tuple[int, int, int]]:
    """Which digits show on an image and how far each is moved, with how many pixels; of `marked` digits."""
    where = {v: (k, r, c) for (k, r, c), v in np.ndenumerate(x)}
    seen: Counter[tuple[int, int, int]] = Counter()
    for (row, column), v in np.ndenumerate(image):
        if v:
            k, r, c = where[v]
            seen[k, row - r, column - c] += 1
    return seen


def test_an_image_is_one_digit_and_pieces_of_others_by_the_larger_pixel() -> None:
    x, y = marked(30)
    alone, labels = clutter(x, y, 60, rng(), canvas=12, distractors=0, noise=0)
    images, again = clutter(x, y, 60, rng(), canvas=12, distractors=1, patch=4, noise=0)
    assert (images.shape, images.dtype, labels.dtype) == ((60, 1, 12, 12), np.float32, np.int64)
    assert np.array_equal(labels, again)
    pieces = 0
    for own, image, label in zip(alone[:, 0], images[:, 0], labels, strict=True):
        ((digit, top, left),) = found(x, own)
        assert label == y[digit]
        assert np.array_equal(own[top : top + 8, left : left + 8], x[digit])
        assert np.count_nonzero(own) == 64
        assert (image >= own).all()  # every pixel of the digit is there, or a brighter one of the piece
        changed = image != own
        assert changed.sum() <= 16
        others = found(x, np.where(changed, image, 0))
        assert len(others) <= 1
        for other, _, _ in others:
            assert other != digit
            pieces += 1
        places = np.argwhere(changed)
        assert not len(places) or np.ptp(places, axis=0).max() < 4
    assert pieces > 50


def test_pieces_on_an_empty_place_are_whole_squares() -> None:
    x, y = marked(30)
    dark = np.concatenate([x, np.zeros_like(x[:1])])  # a digit without ink shows the piece alone
    images, labels = clutter(dark, np.append(y * 0, 1), 40, rng(), canvas=14, patch=5, noise=0)
    for image in images[labels == 1, 0]:
        ((piece, n),) = found(x, image).items()
        assert n == 25
        rows, columns = (np.flatnonzero(image.any(axis)) for axis in (1, 0))
        assert len(rows) == len(columns) == 5
        assert 0 <= piece[0] < 30


def test_places_are_uniform() -> None:
    x = np.ones((2, 8, 8), np.float32)
    images, _ = clutter(x, np.arange(2), 9000, rng(), canvas=10, distractors=0, noise=0)
    corners = images[:, 0, :3, :3]
    tops, lefts = (9 - corners.any(axis).sum(1) for axis in (2, 1))
    counts = np.bincount((tops - 6) * 3 + lefts - 6, minlength=9)
    assert len(counts) == 9
    assert ((counts - 1000) ** 2 / 1000).sum() < 30  # chi-squared with 8 degrees of freedom: p = 0.0002


def test_the_noise_is_normal_and_not_clipped() -> None:
    x, y = marked(20)
    still, _ = clutter(x, y, 500, rng(), noise=0)
    noisy, _ = clutter(x, y, 500, rng(), noise=0.25)
    z = (noisy - still).ravel().astype(np.float64) / 0.25
    assert z.mean() == pytest.approx(0, abs=4 / np.sqrt(len(z)))
    assert z.std() == pytest.approx(1, abs=0.01)
    for bound, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert (np.abs(z) < bound).mean() == pytest.approx(share, abs=0.006)
    assert noisy.min() < -0.5
    assert np.corrcoef(z, still.ravel())[0, 1] == pytest.approx(0, abs=0.02)


@settings(max_examples=40, deadline=None)
@given(m=st.integers(2, 40), n=st.integers(1, 150), classes=st.integers(1, 5), seed=st.integers(0, 99))
def test_labels_and_digits_are_used_evenly(m: int, n: int, classes: int, seed: int) -> None:
    x, y = marked(m, classes, side=3)
    images, labels = clutter(x, y, n, rng(seed), canvas=3, distractors=0, patch=1, noise=0)
    counts = [int((labels == k).sum()) for k in range(min(m, classes))]
    assert sum(counts) == n
    assert max(counts) - min(counts) <= 1
    index = {row.tobytes(): k for k, row in enumerate(x)}
    uses = np.bincount([index[row.tobytes()] for row in images[:, 0]], minlength=m)
    for label in range(min(m, classes)):
        assert np.ptp(uses[y == label]) <= 1


def test_only_the_generator_passed_in_is_drawn_from() -> None:
    x, y = marked(20)
    before = np.random.get_state()[1:3]  # noqa: NPY002
    one, labels = clutter(x, y, 30, rng(3))
    two, again = clutter(x, y, 30, rng(3))
    after = np.random.get_state()[1:3]  # noqa: NPY002
    assert np.array_equal(before[0], after[0])
    assert before[1] == after[1]
    other, _ = clutter(x, y, 30, rng(4))
    assert np.array_equal(one, two)
    assert np.array_equal(labels, again)
    assert not np.array_equal(one, other)
    assert len(set(labels[:10].tolist())) < 10  # in random order: neither in turn
    assert (np.diff(labels) < 0).any()  # nor sorted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 0}, "n: 0 is not in 1 to inf"),
        ({"canvas": 7}, "canvas: 7 is not in 8 to inf"),
        ({"distractors": -1}, "distractors: -1 is not in 0 to inf"),
        ({"patch": 0}, "patch: 0 is not in 1 to 8"),
        ({"patch": 9}, "patch: 9 is not in 1 to 8"),
        ({"noise": -0.1}, "noise: -0.1 is not in 0 to inf"),
        ({"noise": float("nan")}, "noise: nan is not in 0 to inf"),
        ({"x": np.zeros((1, 8, 8))}, r"x: the shape is \(1, 8, 8\); allowed: \(m, s, s\) with m >= 2"),
        ({"x": np.zeros((9, 8, 7))}, r"x: the shape is \(9, 8, 7\); allowed"),
    ],
)
def test_numbers_out_of_range_are_refused(given: dict[str, object], message: str) -> None:
    x, y = marked(10)
    with pytest.raises(ValueError, match=f"^{message}") as error:
        clutter(**{"x": x, "y": y, "n": 5, "rng": rng(), **given})
    assert "\n" not in str(error.value)


def test_parts_show_digits_and_pieces_of_their_own_base_alone() -> None:
    base = {part: marked(20, first=20 * k) for k, part in enumerate(PARTS)}
    arrays = clutter_arrays(base, replace(SMALL, noise=0), 1, "a")
    for k, part in enumerate(PARTS):
        images, _ = arrays[part]
        assert images.shape == (getattr(SMALL, part), 1, 11, 11)
        values = images[images > 0] * 2**20
        assert values.min() > 20 * k * 64
        assert values.max() <= 20 * (k + 1) * 64
    more = clutter_arrays(base, replace(SMALL, noise=0, train=61), 1, "a")
    assert np.array_equal(more["test"][0], arrays["test"][0])
    same_base = dict.fromkeys(PARTS, base["train"])
    sizes = replace(SMALL, valid=60)
    alike = clutter_arrays(same_base, sizes, 1, "a")
    assert not np.array_equal(alike["train"][0], alike["valid"][0])  # every part has a stream of its own
    assert not np.array_equal(clutter_arrays(same_base, sizes, 1, "b")["train"][0], alike["train"][0])


def test_no_base_digit_is_in_two_parts() -> None:
    from sklearn.datasets import load_digits

    _, arrays = digits_clutter("digits_clutter", None, BARE)
    parts = [{row.tobytes() for row in arrays[part][0]} for part in PARTS]
    assert tuple(map(len, parts)) == DIGITS_BASE
    assert not any(a & b for a, b in combinations(parts, 2))
    assert set.union(*parts) == {row.tobytes() for row in (load_digits().images / 16).astype(np.float32)}


def test_the_registered_cluttered_digits() -> None:
    view, test = load("digits_clutter"), load_test("digits_clutter")
    side = DIGITS_CLUTTER.canvas
    assert (view.task.kind, view.task.metric, view.task.classes) == ("image", "accuracy", 10)
    assert view.task.shape == (1, side, side)
    assert view.task == load("digits_clutter").task
    for part, split in zip(PARTS, (view.train, view.valid, test), strict=True):
        assert len(split) == getattr(DIGITS_CLUTTER, part)
        assert (split.x.dtype, split.y.dtype) == (np.float32, np.int64)
        assert np.ptp(np.bincount(split.y, minlength=10)) <= 1
    _, arrays = digits_clutter("digits_clutter", None)
    assert np.array_equal(arrays["test"][0], test.x)


def test_the_bytes_are_the_same_for_ever() -> None:
    # Through sizes of its own: those that are registered may change. Two digests, so that it shows what has changed.
    task, arrays = digits_clutter("digits_clutter", None, SMALL)
    assert task.shape == (1, 11, 11)
    assert digest(arrays) == "2ac6e20f19dad2b88bd1e7d9df2b4f42111eb5f86ef9546a23d910a7b1d06cf8"
    _, still = digits_clutter("digits_clutter", None, replace(SMALL, noise=0))
    assert digest(still) == "fc4c8d996d9d3165738ccfc6ecdfad593b37e133032311e44f1ace1ad1efd7be"


def test_another_process_makes_the_same_bytes() -> None:
    code = (
        "import hashlib, json, numpy as np\n"
        "from nasbed.protocols.training.clutter import Clutter, clutter_arrays\n"
        "x = (np.arange(640, dtype=np.float32) / 640).reshape(10, 8, 8)\n"
        f"made = clutter_arrays(dict.fromkeys({PARTS}, (x, np.arange(10))), {SMALL!r}, 3, 'a')\n"
        "print(json.dumps({p: [hashlib.sha256(a.tobytes()).hexdigest() for a in pair] for p, pair in made.items()}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    x = (np.arange(640, dtype=np.float32) / 640).reshape(10, 8, 8)
    made = clutter_arrays(dict.fromkeys(PARTS, (x, np.arange(10))), SMALL, 3, "a")
    ours = {p: [hashlib.sha256(a.tobytes()).hexdigest() for a in pair] for p, pair in made.items()}
    assert json.loads(done.stdout) == ours


def test_images_are_shrunk_by_area_and_to_full_brightness() -> None:
    x = np.zeros((3, 28, 28), np.uint8)
    x[0, 2:5, 2:5] = 200  # the block of the first pixel
    x[0, 5:8, 2:5] = 100
    x[0, :2] = x[0, 26:] = 255  # what lies outside
    x[1, 10, 13] = 1
    found = shrunk(x)
    assert (found.shape, found.dtype) == ((3, 8, 8), np.float32)
    assert found[0, 0, 0] == 1
    assert found[0, 1, 0] == 0.5
    assert np.count_nonzero(found[0]) == 2
    assert [tuple(i) for i in np.argwhere(found[1])] == [(2, 3)]
    assert not found[2].any()
    with pytest.raises(ValueError, match=r"data-root: the images are of shape \(27, 28\); allowed: \(28, 28\)"):
        shrunk(np.zeros((2, 27, 28), np.uint8))


def write_mnist(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """200 training and 50 test images that differ, of all ten labels."""
    x = rng(1).integers(0, 256, (250, 28, 28), np.uint8)
    y = (np.arange(250) % 10).astype(np.uint8)
    np.savez(root / "mnist.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    return x, y


def test_cluttered_mnist_keeps_the_test_images_of_mnist_apart(tmp_path: Path) -> None:
    x, y = write_mnist(tmp_path)
    label = {row.tobytes(): int(k) for row, k in zip(shrunk(x), y, strict=True)}
    task, arrays = mnist_clutter("mnist_clutter", tmp_path, BARE)
    parts = {part: {row.tobytes() for row in arrays[part][0]} for part in PARTS}
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 180, "valid": 20, "test": 50}
    assert parts["test"] == {row.tobytes() for row in shrunk(x[200:])}
    assert parts["train"] | parts["valid"] == {row.tobytes() for row in shrunk(x[:200])}
    for images, labels in arrays.values():
        assert [label[row.tobytes()] for row in images] == labels.tolist()
    assert (task.name, task.shape, task.classes) == ("mnist_clutter", (1, 8, 8), 10)
    assert len(load("mnist_clutter", tmp_path).train) == MNIST_CLUTTER.train


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"no {MNIST}")
def test_cluttered_mnist_of_the_real_files() -> None:
    view, test = load("mnist_clutter", MNIST), load_test("mnist_clutter", MNIST)
    side = MNIST_CLUTTER.canvas
    assert view.task.shape == (1, side, side)
    for part, split in zip(PARTS, (view.train, view.valid, test), strict=True):
        assert len(split) == getattr(MNIST_CLUTTER, part)
        assert np.ptp(np.bincount(split.y, minlength=10)) <= 1
    # Digits that can be told apart: the nearest of 2,000 training images, where they lie at one place only.
    _, arrays = mnist_clutter("mnist_clutter", MNIST, replace(BARE, train=2000, valid=200, test=200))
    (x, y), (u, v) = ((arrays[p][0].reshape(-1, 64), arrays[p][1]) for p in ("train", "test"))
    nearest = ((u[:, None] - x) ** 2).sum(2).argmin(1)
    assert (y[nearest] == v).mean() > 0.9
