"""Data sets by name, each split once into train, validation and test.

`load` gives the part that methods may see; `load_test` is for `harness.seal` and table building alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..streams import generator
from ..task import DataView, Split, Task

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]

_SPLIT_ROOT = 20_190_101
"""Root seed of every split, fixed for ever: another split is another data set."""


def load(name: str, root: Path | None = None) -> DataView:
    """Training and validation data of a registered data set.

    Args:
        name: One of `DATASETS`.
        root: Folder that holds `<name>.npz` (x_train, y_train, x_test, y_test) or torchvision's layout;
            needed by every data set that is not embedded.

    Raises:
        ValueError: Unknown name, or the data are not under `root`; one line naming the field.
    """
    arrays, task = _prepared(name, root)
    return DataView(task, *(_split(*arrays[part]) for part in ("train", "valid")))


def load_test(name: str, root: Path | None = None) -> Split:
    """The sealed part of the data set."""
    arrays, _ = _prepared(name, root)
    return _split(*arrays["test"])


def _split(x: np.ndarray, y: np.ndarray) -> Split:
    return Split(np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.int64))


def _prepared(name: str, root: Path | None) -> tuple[Arrays, Task]:
    if name not in DATASETS:
        close = get_close_matches(name, DATASETS, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"data: {name!r} is not one of {', '.join(DATASETS)}{hint}")
    arrays = DATASETS[name](name, root)
    classes = int(max(y.max() for _, y in arrays.values())) + 1
    shape = arrays["train"][0].shape[1:]
    return arrays, Task(name, "image", "accuracy", True, shape, classes, _digest(name, root))


@lru_cache(maxsize=16)
def _digest(name: str, root: Path | None) -> str:
    arrays = DATASETS[name](name, root)
    h = hashlib.sha256()
    for part in ("train", "valid", "test"):
        for array in arrays[part]:
            h.update(f"{part} {array.dtype.str} {array.shape} ".encode())
            h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()


def _digits(name: str, root: Path | None) -> Arrays:
    """scikit-learn's 1,797 digits of 8x8 pixels: 800 train, 398 validation, 599 test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.images[:, None] / np.float32(16)).astype(np.float32)
    order = generator(_SPLIT_ROOT, "split", name).permutation(len(x))
    parts = np.split(order, (800, 1198))
    return {
        part: (x[i], bunch.target[i].astype(np.int64))
        for part, i in zip(("train", "valid", "test"), parts, strict=True)
    }


def _images(name: str, root: Path | None) -> Arrays:
    """Images scaled to [0, 1]; a fixed tenth of the training images becomes the validation split."""
    if root is None:
        raise ValueError(f"data-root: the data set {name!r} is not embedded; name the folder that holds it")
    x_train, y_train, x_test, y_test = _npz(root / f"{name}.npz") or _torchvision(name, root)
    order = generator(_SPLIT_ROOT, "split", name).permutation(len(x_train))
    valid, train = np.split(order, (len(order) // 10,))

    def prepare(x: np.ndarray) -> np.ndarray:
        x = x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)
        return (x / np.float32(255)).astype(np.float32)

    y_train, y_test = (np.asarray(y, np.int64) for y in (y_train, y_test))
    x_train, x_test = prepare(x_train), prepare(x_test)
    return {
        "train": (x_train[train], y_train[train]),
        "valid": (x_train[valid], y_train[valid]),
        "test": (x_test, y_test),
    }


def _npz(path: Path) -> tuple[np.ndarray, ...] | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        missing = [k for k in ("x_train", "y_train", "x_test", "y_test") if k not in file.files]
        if missing:
            raise ValueError(f"data-root: {path} lacks the array {missing[0]!r}")
        return tuple(file[k] for k in ("x_train", "y_train", "x_test", "y_test"))


def _torchvision(name: str, root: Path) -> tuple[np.ndarray, ...]:
    from torchvision import datasets

    kind = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name]
    try:
        train, test = (getattr(datasets, kind)(root, train=t, download=False) for t in (True, False))
    except RuntimeError:
        raise ValueError(
            f"data-root: {root} holds neither {name}.npz nor torchvision's files of {kind}; "
            "download them with: python -c "
            f'"import torchvision; torchvision.datasets.{kind}({str(root)!r}, download=True)"'
        ) from None
    return (*(np.asarray(v) for v in (train.data, train.targets)), *(np.asarray(v) for v in (test.data, test.targets)))


DATASETS: dict[str, Callable[[str, Path | None], Arrays]] = {
    "digits": _digits,
    "mnist": _images,
    "fashion_mnist": _images,
    "cifar10": _images,
    "cifar100": _images,
}
"""Registered data sets; only `digits` is embedded (it comes with scikit-learn)."""
