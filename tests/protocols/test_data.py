"""Data sets: fixed splits, no test values in view, files from a data root."""

from __future__ import annotations

import gc
import struct
from pathlib import Path

import numpy as np
import pytest

from nasbed.protocols import DataView
from nasbed.protocols.training import DATASETS, load, load_test

UCI = Path(__file__).parents[3] / "shared" / "data" / "uci"
DIGITS = "9552ff5657b34a606fef8c6dc810d25f908fd0b9d76ee8f8f6e3094f024c59fd"
"""Of all bytes of the three splits: tables and run keys carry it, so it may never change."""
EMBEDDED = ("digits", "digits_clutter", "python_docs")


def rows(x: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in x]


def test_the_digits_are_split_once_and_for_ever() -> None:
    view, test = load("digits"), load_test("digits")
    assert (len(view.train), len(view.valid), len(test)) == (800, 398, 599)
    assert view.task.digest == DIGITS
    assert (view.task.shape, view.task.classes, view.task.metric) == ((1, 8, 8), 10, "accuracy")
    assert view.task.higher_is_better
    for split in (view.train, view.valid, test):
        assert (split.x.dtype, split.y.dtype) == (np.float32, np.int64)
        assert split.x.min() == 0
        assert split.x.max() == 1
        assert set(split.y.tolist()) == set(range(10))


def test_the_splits_are_disjoint_and_complete() -> None:
    from sklearn.datasets import load_digits

    view, test = load("digits"), load_test("digits")
    parts = [rows(s.x) for s in (view.train, view.valid, test)]
    whole = rows((load_digits().images / 16).astype(np.float32))
    assert sorted(x for part in parts for x in part) == sorted(whole)
    assert len(set(whole)) == len(whole)  # so that equal images cannot hide an overlap


@pytest.mark.parametrize("name", ["digits", "digits_clutter"])
def test_no_test_value_is_reachable_from_a_view(name: str) -> None:
    view = load(name)
    assert not [n for n in dir(view) if "test" in n]
    hidden = set(rows(load_test(name).x))
    todo: list[object] = [view.task, view.train, view.valid]
    seen = set()
    while todo:
        x = todo.pop()
        if id(x) in seen or isinstance(x, type):
            continue
        seen.add(id(x))
        todo += gc.get_referents(x)
        if isinstance(x, np.ndarray):
            assert x.ndim != 4 or not hidden & set(rows(x))
            todo += [x.base] if x.base is not None else []
    assert isinstance(view, DataView)


def images(n: int, seed: int, shape: tuple[int, ...] = (28, 28)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), np.uint8), np.resize(np.arange(10, dtype=np.uint8), n)


def write_npz(root: Path, name: str, shape: tuple[int, ...] = (28, 28)) -> None:
    (x, y), (u, v) = images(50, 0, shape), images(20, 1, shape)
    np.savez(root / f"{name}.npz", x_train=x, y_train=y, x_test=u, y_test=v)


def write_idx(root: Path, kind: str) -> None:
    """The four files of MNIST: magic number (type 8 = unsigned byte, number of axes), sizes, bytes."""
    raw = root / kind / "raw"
    raw.mkdir(parents=True)
    for part, n, seed in (("train", 50, 0), ("t10k", 20, 1)):
        for array, stem in zip(images(n, seed), ("images-idx3", "labels-idx1"), strict=True):
            head = struct.pack(f">{array.ndim + 1}i", 0x800 + array.ndim, *array.shape)
            (raw / f"{part}-{stem}-ubyte").write_bytes(head + array.tobytes())


def test_images_from_npz(tmp_path: Path) -> None:
    write_npz(tmp_path, "mnist")
    view, test = load("mnist", tmp_path), load_test("mnist", tmp_path)
    assert (len(view.train), len(view.valid), len(test)) == (45, 5, 20)
    assert view.task.shape == (1, 28, 28)
    assert view.task.classes == 10
    x, y = images(50, 0)
    held = dict(zip(rows((x / np.float32(255)).astype(np.float32)[:, None]), y.tolist(), strict=True))
    seen = [*zip(rows(view.train.x), view.train.y, strict=True), *zip(rows(view.valid.x), view.valid.y, strict=True)]
    assert {k: int(v) for k, v in seen} == held
    assert np.array_equal(test.x, images(20, 1)[0][:, None] / np.float32(255))
    assert np.array_equal(test.y, images(20, 1)[1])


def test_colour_images_are_channels_first(tmp_path: Path) -> None:
    write_npz(tmp_path, "cifar10", (32, 32, 3))
    test = load_test("cifar10", tmp_path)
    assert test.x.shape == (20, 3, 32, 32)
    assert np.array_equal(test.x[:, 2], images(20, 1, (32, 32, 3))[0][..., 2] / np.float32(255))


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_torchvision_files_give_the_same_data_as_npz(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "a").mkdir()
    write_npz(tmp_path / "a", name)
    write_idx(tmp_path / "b", kind)
    a, b = load(name, tmp_path / "a"), load(name, tmp_path / "b")
    assert a.task == b.task
    for ours, theirs in (
        (a.train, b.train),
        (a.valid, b.valid),
        (load_test(name, tmp_path / "a"), load_test(name, tmp_path / "b")),
    ):
        assert np.array_equal(ours.x, theirs.x)
        assert np.array_equal(ours.y, theirs.y)


def test_one_changed_pixel_is_another_data_set(tmp_path: Path) -> None:
    for name, change in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        (x, y), (u, v) = images(50, 0), images(20, 1)
        u[3, 4, 5] ^= change
        np.savez(tmp_path / name / "mnist.npz", x_train=x, y_train=y, x_test=u, y_test=v)
    assert load("mnist", tmp_path / "a").task.digest != load("mnist", tmp_path / "b").task.digest


def test_missing_data_are_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data: 'minst' is not one of digits, mnist.*, text:PATH; did") as unknown:
        load("minst")
    with pytest.raises(ValueError, match=r"data-root: the data set 'mnist' is not embedded") as unnamed:
        load("mnist")
    np.savez(tmp_path / "cifar100.npz", x_train=np.zeros(1), y_train=np.zeros(1))
    with pytest.raises(ValueError, match=r"data-root: .*cifar100.npz lacks the array 'x_test'") as lacking:
        load("cifar100", tmp_path)
    errors = [unknown, unnamed, lacking]
    for name in sorted(set(DATASETS) - {*EMBEDDED, "cifar100", "wine_red", "text:PATH"}):
        file = name.removesuffix("_clutter")
        with pytest.raises(ValueError, match=rf"data-root: .* holds neither {file}.npz nor torchvision's") as absent:
            load(name, tmp_path)
        with pytest.raises(ValueError, match=rf"data-root: the data set '{name}' is not embedded"):
            load(name)
        errors.append(absent)
    assert not any("\n" in str(e.value) for e in errors)


def wine(path: Path, n: int = 50, separator: str = ";") -> np.ndarray:
    """A file like the one of UCI, whose last column is a sum of the others; the third does not vary."""
    x = np.random.default_rng(0).normal(10, 3, (n, 4)).round(2)
    x[:, 2] = 0.5
    table = np.c_[x, x.sum(1).round(3)]
    path.parent.mkdir(exist_ok=True)
    rows = [separator.join(f'"{k}"' for k in "abcd") + separator + '"quality"']
    path.write_text("\n".join([*rows, *(separator.join(map(str, row)) for row in table.tolist())]) + "\n")
    return table


def test_regression_is_standardised_by_the_training_part(tmp_path: Path) -> None:
    table = wine(tmp_path / "wine_red.csv")
    view, test = load("wine_red", tmp_path), load_test("wine_red", tmp_path)
    parts = (view.train, view.valid, test)
    assert [len(p) for p in parts] == [30, 10, 10]
    task = view.task
    assert (task.kind, task.metric, task.higher_is_better) == ("regression", "mse", False)
    assert (task.shape, task.classes) == ((4,), None)
    for split in parts:
        assert (split.x.dtype, split.y.dtype, split.y.ndim) == (np.float32, np.float32, 1)
    assert view.train.x.mean(0) == pytest.approx([0] * 4, abs=1e-5)
    assert view.train.x.std(0) == pytest.approx([1, 1, 0, 1], abs=1e-5)
    assert (view.train.y.mean(), view.train.y.std()) == pytest.approx((0, 1), abs=1e-5)
    assert abs(test.x[:, 0].mean()) > 0.01  # not by its own statistics
    # One scale for all parts: undone, the columns are those of the file, each row once.
    x, y = (np.concatenate([getattr(p, k) for p in parts]) for k in "xy")
    order = np.argsort(x[:, 0])
    rows = table[np.argsort(table[:, 0])]
    for ours, theirs in ((x[order, 1], rows[:, 1]), (y[order], rows[:, 4])):
        assert np.corrcoef(ours, theirs)[0, 1] == pytest.approx(1, abs=1e-6)


def test_the_csv_may_bear_the_name_of_uci_and_use_commas(tmp_path: Path) -> None:
    wine(tmp_path / "a" / "wine_red.csv")
    wine(tmp_path / "b" / "winequality-red.csv", separator=",")
    assert load("wine_red", tmp_path / "a").task == load("wine_red", tmp_path / "b").task
    wine(tmp_path / "c" / "wine_red.csv", n=51)
    assert load("wine_red", tmp_path / "c").task.digest != load("wine_red", tmp_path / "a").task.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a;b\n" + "1;2\n" * 9 + "1;x\n", r"is not a table of numbers \(could not convert"),
        ("a;b\n" + "1;2\n" * 9 + "1;2;3\n", r"is not a table of numbers"),
        ("a;b\n1;2\n", r"needs 5 rows, 2 columns and finite numbers; its shape is \(1, 2\)"),
        ("a;b\n" + "1;nan\n" * 9, r"needs 5 rows, 2 columns and finite numbers"),
        ("", r"needs 5 rows"),
    ],
)
def test_a_csv_that_is_no_table_of_numbers_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "wine_red.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"data-root: .*wine_red.csv {message}") as error:
        load("wine_red", tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"data-root: .* holds neither wine_red.csv nor winequality-red.csv"):
        load("wine_red", tmp_path / "elsewhere")


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_data_sets_need_no_root_and_heed_none(name: str, tmp_path: Path) -> None:
    here, there = load(name), load(name, tmp_path)
    assert here.task == there.task
    assert here.task.name == name
    assert len(here.task.digest) == 64


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_a_line_for_lists(name: str) -> None:
    line = (DATASETS[name].__doc__ or "").partition("\n")[0]
    assert line.endswith(".")
    assert 20 < len(line) <= 110


@pytest.mark.skipif(not UCI.is_dir(), reason=f"no {UCI}")
def test_the_wines_of_uci() -> None:
    view, test = load("wine_red", UCI), load_test("wine_red", UCI)
    assert (len(view.train), len(view.valid), len(test)) == (959, 320, 320)
    assert view.task.shape == (11,)
    assert view.task.digest.startswith("0c00f6118e2cebd6")
    qualities = {round(float(v), 4) for s in (view.train, view.valid, test) for v in s.y}
    assert len(qualities) == 6  # 3 to 8
