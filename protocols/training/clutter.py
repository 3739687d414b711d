"""Cluttered digits: harder images made from small ones, with as many training examples as a study can pay for.

Each image is a digit at a random place of a larger canvas, with pieces of other digits as distractors and Gaussian
noise, after the cluttered translated MNIST of Mnih, Heess, Graves & Kavukcuoglu (2014), "Recurrent models of visual
attention", section 4.1. Without translation and clutter, nearly every network classifies digits of 8x8 pixels alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..streams import generator

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class Clutter:
    """How a data set is made from base digits.

    Attributes:
        train: Images of the training part, and so on.
        valid: Of the validation part.
        test: Of the test part.
        canvas: Side of an image, in pixels.
        distractors: Pieces of other digits on each image.
        patch: Side of such a piece, in pixels.
        noise: Standard deviation of the noise on each pixel; the pixels of digits are in [0, 1].
    """

    train: int
    valid: int
    test: int
    canvas: int = 12
    distractors: int = 1
    patch: int = 4
    noise: float = 0.1


DIGITS_CLUTTER = Clutter(train=4000, valid=2000, test=2000)
DIGITS_BASE = (1000, 300, 497)
"""How many of scikit-learn's 1,797 digits the images of train, valid and test are made from."""
MNIST_CLUTTER = Clutter(train=4000, valid=2000, test=2000)
"""Base digits are MNIST's own 54,000, 6,000 and 10,000, so that hardly any occurs twice."""


def clutter_arrays(base: Mapping[str, Pair], settings: Clutter, root: int, name: str) -> dict[str, Pair]:
    """Images and labels of each part, from base digits of that part alone.

    Raising one size leaves the other parts as they are.

    Args:
        base: Digits (m, s, s) in [0, 1] and labels (m,) of `train`, `valid` and `test`.
        settings: Sizes and difficulty.
        root: Root seed; a part draws from the stream `clutter` of that root, keyed by `name` and the part.
        name: Of the data set.

    Raises:
        ValueError: As `clutter`.
    """
    found = {}
    for part, n in (("train", settings.train), ("valid", settings.valid), ("test", settings.test)):
        found[part] = clutter(
            *base[part],
            n,
            generator(root, "clutter", name, part),
            canvas=settings.canvas,
            distractors=settings.distractors,
            patch=settings.patch,
            noise=settings.noise,
        )
    return found


def clutter(
    x: np.ndarray,
    y: np.ndarray,
    n: int,
    rng: np.random.Generator,
    *,
    canvas: int = 12,
    distractors: int = 1,
    patch: int = 4,
    noise: float = 0.1,
) -> Pair:
    """Images of digits at random places, among pieces of other digits, under noise.

    Digits and pieces are combined by the larger pixel; the sum with the noise is not clipped. The noise is drawn last:
    calls that differ in `noise` alone place the same digits and pieces.

    Args:
        x: Base digits (m, s, s), in [0, 1].
        y: Their labels (m,), int.
        n: Images wanted; labels occur equally often, and so do the digits of each label, up to one.
        rng: What every draw comes from.
        canvas: Side of an image, in pixels, at least s.
        distractors: Pieces on each image; one is cut at a random place of a random other digit, of any label.
        patch: Side of a piece, in pixels, 1 to s.
        noise: Standard deviation.

    Returns:
        Images (n, 1, canvas, canvas), float32, and labels (n,), int64, in random order.

    Raises:
        ValueError: A number is out of its range.
    """
    _check(x, n, canvas, distractors, patch, noise)
    m, side = len(x), x.shape[1]
    digits = _evenly(y, n, rng)
    images = np.zeros((n, canvas, canvas), np.float32)
    images[_squares(rng, n, canvas, side)] = x[digits]
    for _ in range(distractors):
        others = (digits + rng.integers(1, m, n)) % m
        pieces = x[others][_squares(rng, n, side, patch)]
        place = _squares(rng, n, canvas, patch)
        images[place] = np.maximum(images[place], pieces)
    images += _normal(rng, images.shape) * np.float32(noise)
    return images[:, None], y[digits].astype(np.int64)


def _check(x: np.ndarray, n: int, canvas: int, distractors: int, patch: int, noise: float) -> None:
    if x.ndim != 3 or x.shape[1] != x.shape[2] or len(x) < 2:
        raise ValueError(f"x: the shape is {x.shape}; allowed: (m, s, s) with m >= 2")
    side = x.shape[1]
    for field, value, low, high in (
        ("n", n, 1, np.inf),
        ("canvas", canvas, side, np.inf),
        ("distractors", distractors, 0, np.inf),
        ("patch", patch, 1, side),
        ("noise", noise, 0, np.inf),
    ):
        if not low <= value <= high:
            raise ValueError(f"{field}: {value} is not in {low} to {high}")


def _evenly(y: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Indices (n,) of examples, in random order: the labels in turn, the examples of each by turns of a permutation."""
    labels = np.unique(y)
    turns = rng.permutation(len(labels))  # which labels occur once more than the others
    chosen = []
    for turn, label in zip(turns, labels, strict=True):
        count = len(range(turn, n, len(labels)))
        chosen.append(np.resize(rng.permutation(np.flatnonzero(y == label)), count))
    return rng.permutation(np.concatenate(chosen))


def _squares(rng: np.random.Generator, n: int, side: int, small: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index of a square of `small` pixels at a random place of each of n images of `side` pixels."""
    top, left = rng.integers(0, side - small + 1, (2, n, 1, 1))
    steps = np.arange(small)
    return np.arange(n)[:, None, None], top + steps[:, None], left + steps


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, float32, of 2^16 equally likely values.

    The tails of numpy's own come from the C library's logarithm, whose last bit differs between libraries: the data's
    digest would differ between machines.
    """
    inverse = NormalDist().inv_cdf
    half = np.array([inverse((k + 0.5) / 65_536) for k in range(32_768)], np.float32)
    values: np.ndarray = np.concatenate([half, -half[::-1]])
    return values.take(rng.integers(0, 65_536, shape, np.uint16))


def shrunk(x: np.ndarray) -> np.ndarray:
    """Images of MNIST, reduced to the size and the brightness of scikit-learn's digits.

    The middle 24x24 pixels are averaged by blocks of 3x3. MNIST centres a digit of at most 20x20 pixels by its mass, so
    that 0.24 % of the ink lies outside, and at most 8 % of an image's; padding to 32x32 and blocks of 4x4 would leave
    half the pixels that scikit-learn's digits fill. Each image is divided by its maximum, as theirs is nearly always 1.

    Args:
        x: Images (m, 28, 28), uint8.

    Returns:
        Images (m, 8, 8), float32, in [0, 1].

    Raises:
        ValueError: The images are of another size.
    """
    if x.shape[1:] != (28, 28):
        raise ValueError(f"data-root: the images are of shape {x.shape[1:]}; allowed: (28, 28)")
    sums = x[:, 2:26, 2:26].reshape(len(x), 8, 3, 8, 3).sum((2, 4), np.int64)  # integers: the same on every machine
    brightest: np.ndarray = np.maximum(1, sums.max((1, 2), keepdims=True))
    return np.asarray(sums / brightest, np.float32)
