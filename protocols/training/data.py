"""Data sets by name, each split once into train, validation and test.

`load` gives the part that methods may see; `load_test` is for `harness.seal` and table building alone.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from ..streams import generator
from ..task import DataView, Split, Task
from .clutter import DIGITS_BASE, DIGITS_CLUTTER, MNIST_CLUTTER, Clutter, clutter_arrays, shrunk
from .text import corpus, python_docs

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]
Reader = Callable[[str, Path | None], tuple[Task, Arrays]]
"""From a name and a data root to the task, without its digest, and x and y of train, valid and test."""

_SPLIT_ROOT = 20_190_101
"""Root seed of every split, fixed for ever: another split is another data set."""


def load(name: str, root: Path | None = None) -> DataView:
    """Training and validation data of a registered data set.

    Nothing read is kept: a cache would hold the test part too, in reach of methods.

    Args:
        name: One of `DATASETS`, or `text:` and the path of a local text.
        root: Folder that holds `<name>.npz` (x_train, y_train, x_test, y_test), `<name>.csv`, torchvision's layout,
            or the text; needed by every data set that is not embedded. `mnist_clutter` reads what `mnist` reads.

    Raises:
        ValueError: Unknown name, or the data are not under `root`; one line naming the field.
    """
    task, arrays = _read(name, root)
    return DataView(replace(task, digest=_digest(arrays)), _split(*arrays["train"]), _split(*arrays["valid"]))


def load_test(name: str, root: Path | None = None) -> Split:
    """The sealed part of the data set."""
    return _split(*_read(name, root)[1]["test"])


def _split(x: np.ndarray, y: np.ndarray) -> Split:
    return Split(np.ascontiguousarray(x), np.ascontiguousarray(y))


def _read(name: str, root: Path | None) -> tuple[Task, Arrays]:
    kind = "text:PATH" if name.startswith("text:") else name
    if kind not in DATASETS:
        close = get_close_matches(name, DATASETS, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"data: {name!r} is not one of {', '.join(DATASETS)}{hint}")
    return DATASETS[kind](name, root)


def _digest(arrays: Arrays) -> str:
    h = hashlib.sha256()
    for part in ("train", "valid", "test"):
        for array in arrays[part]:
            h.update(f"{part} {array.dtype.str} {array.shape} ".encode())
            h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()


def _classes(name: str, arrays: Arrays) -> tuple[Task, Arrays]:
    classes = int(max(y.max() for _, y in arrays.values())) + 1
    return Task(name, "image", "accuracy", True, arrays["train"][0].shape[1:], classes, ""), arrays


def _digits(name: str, root: Path | None) -> tuple[Task, Arrays]:
    """scikit-learn's 1,797 digits of 8x8 pixels: 800 train, 398 validation, 599 test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.images[:, None] / np.float32(16)).astype(np.float32)
    return _classes(name, _parts(name, x, bunch.target.astype(np.int64), (800, 1198)))


def _parts(name: str, x: np.ndarray, y: np.ndarray, ends: tuple[int, int]) -> Arrays:
    parts = np.split(generator(_SPLIT_ROOT, "split", name).permutation(len(x)), ends)
    return {part: (x[i], y[i]) for part, i in zip(("train", "valid", "test"), parts, strict=True)}


def _images(name: str, root: Path | None) -> tuple[Task, Arrays]:
    """Images scaled to [0, 1]; a fixed tenth of the training images becomes the validation split."""
    x_train, y_train, x_test, y_test = _files(name, _named(name, root))
    order = generator(_SPLIT_ROOT, "split", name).permutation(len(x_train))
    valid, train = np.split(order, (len(order) // 10,))

    def prepare(x: np.ndarray) -> np.ndarray:
        x = x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)
        return (x / np.float32(255)).astype(np.float32)

    y_train, y_test = (np.asarray(y, np.int64) for y in (y_train, y_test))
    x_train, x_test = prepare(x_train), prepare(x_test)
    arrays = {
        "train": (x_train[train], y_train[train]),
        "valid": (x_train[valid], y_train[valid]),
        "test": (x_test, y_test),
    }
    return _classes(name, arrays)


def digits_clutter(name: str, root: Path | None, settings: Clutter = DIGITS_CLUTTER) -> tuple[Task, Arrays]:
    """scikit-learn's digits at random places of a canvas, among pieces of other digits, under noise.

    No two parts show the same base digit, nor pieces of it. Other `settings` are other data sets of the same name, for
    trials; registered are the defaults.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.images / np.float32(16)).astype(np.float32)
    base = _parts(name, x, bunch.target.astype(np.int64), (DIGITS_BASE[0], DIGITS_BASE[0] + DIGITS_BASE[1]))
    return _classes(name, clutter_arrays(base, settings, _SPLIT_ROOT, name))


def mnist_clutter(name: str, root: Path | None, settings: Clutter = MNIST_CLUTTER) -> tuple[Task, Arrays]:
    """MNIST's digits, reduced to 8x8 pixels, at random places among pieces of others, under noise.

    Validation images are made from a fixed tenth of MNIST's training images, training images from the others, test
    images from MNIST's own. `settings` as in `digits_clutter`.
    """
    x_train, y_train, x_test, y_test = _files("mnist", _named(name, root))
    order = generator(_SPLIT_ROOT, "split", name).permutation(len(x_train))
    valid, train = np.split(order, (len(order) // 10,))
    base = {
        "train": (shrunk(x_train[train]), y_train[train]),
        "valid": (shrunk(x_train[valid]), y_train[valid]),
        "test": (shrunk(x_test), y_test),
    }
    return _classes(name, clutter_arrays(base, settings, _SPLIT_ROOT, name))


def _named(name: str, root: Path | None) -> Path:
    if root is None:
        raise ValueError(f"data-root: the data set {name!r} is not embedded; name the folder that holds it")
    return root


def _files(name: str, root: Path) -> tuple[np.ndarray, ...]:
    return _npz(root / f"{name}.npz") or _torchvision(name, root)


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


def _wine(name: str, root: Path | None) -> tuple[Task, Arrays]:
    """Quality of 1,599 red wines by 11 measurements (UCI), regression: 60 % train, 20 % validation, 20 % test.

    Inputs and targets are standardised by the means and deviations of the training part, as in Klein & Hutter
    2019. The UCI file repeats 240 wines, so that equal rows may lie in several parts.
    """
    root = _named(name, root)
    places = [root / f"{name}.csv", root / "winequality-red.csv"]
    there = [p for p in places if p.is_file()]
    if not there:
        raise ValueError(f"data-root: {root} holds neither {places[0].name} nor {places[1].name}")
    table = _csv(there[0])
    raw = _parts(name, table[:, :-1], table[:, -1], (len(table) * 3 // 5, len(table) * 4 // 5))
    scales = [(v.mean(0), np.where(v.std(0) > 0, v.std(0), 1.0)) for v in raw["train"]]
    arrays = {}
    for part, pair in raw.items():
        x, y = ((v - mean) / sd for v, (mean, sd) in zip(pair, scales, strict=True))
        arrays[part] = (x.astype(np.float32), y.astype(np.float32))
    return Task(name, "regression", "mse", False, (table.shape[1] - 1,), None, ""), arrays


def _csv(path: Path) -> np.ndarray:
    """Numbers, float64 (rows, columns), of a file with one header line, between semicolons or commas."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            rows = [row for row in csv.reader(file, delimiter=";" if ";" in header else ",") if row]
        table = np.array(rows, np.float64)
    except (OSError, ValueError, csv.Error) as error:  # not readable, not UTF-8, a word, or rows of unequal lengths
        raise ValueError(f"data-root: {path} is not a table of numbers ({str(error).partition(chr(10))[0]})") from None
    if table.ndim != 2 or len(table) < 5 or table.shape[1] < 2 or not np.isfinite(table).all():
        raise ValueError(f"data-root: {path} needs 5 rows, 2 columns and finite numbers; its shape is {table.shape}")
    return table


DATASETS: dict[str, Reader] = {
    "digits": _digits,
    "mnist": _images,
    "fashion_mnist": _images,
    "cifar10": _images,
    "cifar100": _images,
    "wine_red": _wine,
    "digits_clutter": digits_clutter,
    "mnist_clutter": mnist_clutter,
    "python_docs": python_docs,
    "text:PATH": corpus,
}
"""Registered data sets; the first line of a reader's docstring is what `nasbed list data` shows.

Embedded are `digits` and `digits_clutter`, whose digits come with scikit-learn, and `python_docs`, which comes with
Python and whose digest differs between its versions. `mnist_clutter` is made from the files of `mnist`. PATH stands
for any path.
"""
