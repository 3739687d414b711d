"""Text as data: tokens, vocabulary, windows, splits, errors; and a model that learns from it."""

from __future__ import annotations

import hashlib
import math
import platform
import random
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nasbed.protocols import FULL, Architecture, Setting, Task
from nasbed.protocols.streams import torch_generator
from nasbed.protocols.training import (
    PIPELINES,
    ReferenceTrainer,
    constant_prediction,
    load,
    load_test,
    materialise,
    measure,
    objective_of,
)
from nasbed.protocols.training.text import DOCS_MIN_COUNT, DOCS_SIZES, numbers, vocabulary, windows

LINES = [["b", "a", "c"], ["a", "b", "A"], [], ["a", "<unk>", "d", "d"]]


def test_the_vocabulary_is_by_frequency_then_alphabet() -> None:
    assert list(vocabulary(LINES)) == ["<unk>", "<eos>", "a", "b", "d"]
    assert list(vocabulary(LINES, min_count=1)) == ["<unk>", "<eos>", "a", "b", "d", "A", "c"]
    assert list(vocabulary(LINES, min_count=1, most_words=2)) == ["<unk>", "<eos>", "a", "b"]
    assert list(vocabulary(LINES).values()) == list(range(5))


def test_tokens_are_words_and_the_ends_of_lines() -> None:
    assert numbers(LINES, vocabulary(LINES)).tolist() == [3, 2, 0, 1, 2, 3, 0, 1, 1, 2, 0, 4, 4, 1]


@given(n=st.integers(0, 200), length=st.integers(1, 40))
def test_windows_are_consecutive_and_their_targets_the_next_tokens(n: int, length: int) -> None:
    tokens = np.arange(n)
    x, y = windows(tokens, length)
    assert x.shape == y.shape == (max(0, n - 1) // length, length)
    assert x.ravel().tolist() == list(range(x.size))
    assert np.array_equal(y, x + 1)


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def markov(lines: int = 800, words: int = 12, seed: int = 0) -> list[str]:
    """Nine words a line; 80 % are the successor of the word before, the others any word."""
    rng = np.random.default_rng(seed)
    found, word = [], 0
    for _ in range(lines):
        line = []
        for _ in range(9):
            word = (word + 1) % words if rng.random() < 0.8 else int(rng.integers(words))
            line.append(f"w{word}")
        found.append(" ".join(line))
    return found


def test_a_file_is_cut_at_ends_of_lines(tmp_path: Path) -> None:
    lines = [f"{' '.join('xyz'[k % 3] for k in range(i % 7 + 1))} {'old' if i < 250 else 'new'}" for i in range(300)]
    tokens = [n for line in lines for n in (*line.split(), "<eos>")]
    write(tmp_path / "a.txt", lines)
    view, test = load("text:a.txt", tmp_path), load_test("text:a.txt", tmp_path)
    assert view.task == Task("text:a.txt", "text", "perplexity", False, (35,), 6, view.task.digest)
    sizes = []
    for split in (view.train, view.valid, test):
        assert split.x.dtype == split.y.dtype == np.int64
        assert split.x.shape == split.y.shape == (len(split), 35)
        sizes.append(split.x.size)
    assert sizes == pytest.approx([0.8 * len(tokens), 0.1 * len(tokens), 0.1 * len(tokens)], abs=45)
    # The vocabulary is that of the first part, where no line holds "new"; parts start after an end of a line.
    known = {"<eos>": 1, "x": 2, "y": 3, "old": 4, "z": 5}
    ids = [known.get(t, 0) for t in tokens]
    assert view.train.x.ravel().tolist() == ids[: view.train.x.size]
    ends = np.cumsum([len(line.split()) + 1 for line in lines])
    for split, tenths in ((view.valid, 8), (test, 9)):
        start = int(ends[np.argmax(10 * ends >= tenths * len(tokens))])
        assert split.x.ravel().tolist() == ids[start : start + split.x.size]
        assert split.y.ravel().tolist() == ids[start + 1 : start + 1 + split.x.size]


@pytest.mark.parametrize("pattern", ["{}.txt", "ptb.{}.txt"])
def test_a_folder_holds_the_parts(tmp_path: Path, pattern: str) -> None:
    for part, n in (("train", 90), ("valid", 40), ("test", 36)):
        write(tmp_path / "c" / pattern.format(part), [f"a a{' ' + part * 2 if n < 90 else ''}"] * n)
    view, test = load("text:c", tmp_path), load_test("text:c", tmp_path)
    assert view.task.classes == 3  # words of validation and test are not in the vocabulary
    assert (len(view.train), len(view.valid), len(test)) == (269 // 35, 159 // 35, 143 // 35)
    assert view.valid.x[0, :8].tolist() == test.x[0, :8].tolist() == [2, 2, 0, 1, 2, 2, 0, 1]


def test_line_ends_and_marks_of_other_systems_change_nothing(tmp_path: Path) -> None:
    lines = markov(200)
    write(tmp_path / "a.txt", lines)
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    a, b = (load(f"text:{name}.txt", tmp_path) for name in "ab")
    assert a.task.digest == b.task.digest
    assert np.array_equal(a.train.x, b.train.x)


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.txt", markov(200))
    monkeypatch.chdir(tmp_path)
    here, there = load("text:a.txt"), load("text:a.txt", tmp_path)
    assert here.task == there.task
    assert load(f"text:{tmp_path}/a.txt", Path("/elsewhere")).task.digest == here.task.digest


def test_a_word_of_the_test_part_changes_the_digest_and_no_more(tmp_path: Path) -> None:
    lines = markov(200)
    write(tmp_path / "a.txt", lines)
    before = load("text:a.txt", tmp_path)
    write(tmp_path / "a.txt", [*lines[:-20], "w1 w1 w1 " + lines[-20][9:], *lines[-19:]])
    after = load("text:a.txt", tmp_path)  # the file of the same name is read again
    assert after.task.digest != before.task.digest
    assert np.array_equal(before.train.x, after.train.x)
    assert np.array_equal(before.valid.y, after.valid.y)


def test_a_view_holds_no_larger_array(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", markov(200))
    view = load("text:a.txt", tmp_path)
    for array in (view.train.x, view.train.y, view.valid.x, view.valid.y):
        assert array.base is None or array.base.size == array.size


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "short.txt", ["a b c"] * 30)
    write(tmp_path / "empty.txt", [])
    (tmp_path / "latin.txt").write_bytes("caf\u00e9 ".encode("latin-1") * 500)
    write(tmp_path / "half" / "train.txt", markov(50))
    refused = {
        "text:": r"data: 'text:': there is no file",
        "text:none.txt": r"data: 'text:none.txt': there is no file or folder .*none.txt",
        "text:short.txt": r"data: 'text:short.txt': the valid part is too short for one window of 35 tokens",
        "text:empty.txt": r"data: 'text:empty.txt': the train part is too short",
        "text:latin.txt": r"data: .*latin.txt' is not UTF-8 text \(byte 3\)",
        "text:half": r"data: the folder .*half' has no valid.txt",
    }
    for name, message in refused.items():
        for reader in (load, load_test):
            with pytest.raises(ValueError, match=message) as error:
                reader(name, tmp_path)
            assert "\n" not in str(error.value)


class Bigram:
    """One architecture: the next word from this one."""

    def build(self, a: Architecture, task: Task) -> nn.Module:
        return nn.Sequential(nn.Embedding(task.classes, 16, device="meta"), nn.Linear(16, task.classes, device="meta"))

    def training(self, a: Architecture) -> dict[str, object]:
        return {}


def test_a_bigram_model_learns_a_markov_chain(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", markov())
    view = load("text:a.txt", tmp_path)
    assert view.task.classes == 14
    pipeline = replace(PIPELINES["adam"], learning_rate=0.03, epochs=6, batch_size=8)
    trainer = ReferenceTrainer(Bigram(), device="cpu")
    setting = Setting(view.task, "epochs", pipeline, lambda a: 0, view, trainer=trainer)
    a = Architecture("bigram", ())
    curve, weights = trainer.train(a, setting, seed=0, fidelity=FULL)
    unigram = constant_prediction(view)
    assert 10 < unigram < 14
    # The best that knows the last word alone: the frequencies of pairs in the training part.
    pairs = np.full((14, 14), 0.1)
    np.add.at(pairs, (view.train.x.ravel(), view.train.y.ravel()), 1)
    log = np.log(pairs / pairs.sum(1, keepdims=True))
    best = np.exp(-log[view.valid.x, view.valid.y].mean())
    assert best < 0.5 * unigram
    assert curve.valid[-1] == pytest.approx(best, rel=0.05)
    assert curve.train[-1] < curve.train[0]
    assert curve.flops == 6 * 35 * (len(view.train) * 3 + len(view.valid)) * 2 * 16 * 14
    again, _ = trainer.train(a, setting, seed=0, fidelity=FULL)
    assert (again.train, again.valid) == (curve.train, curve.valid)
    network = materialise(Bigram().build(a, view.task), torch_generator(1, "other"))
    network.load_state_dict(dict(weights))
    objective = objective_of(view.task)
    assert measure(network, view.valid, objective) == curve.valid[-1]
    assert measure(network, load_test("text:a.txt", tmp_path), objective) == pytest.approx(best, rel=0.2)


def decoded(tokens: np.ndarray, known: list[str]) -> str:
    return "".join(known[k] for k in tokens.ravel().tolist())


def planted(monkeypatch: pytest.MonkeyPatch, topics: dict[str, str]) -> None:
    module = ModuleType("pydoc_data.topics")
    module.topics = topics  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", module)


def test_the_characters_of_topics_in_the_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    r = random.Random(0)
    paragraphs = ["\n".join("".join(r.choices("abcdeFGH ", k=40)) for _ in range(5)) for _ in range(1600)]
    topics = {f"t{k:02d}": "\n\n".join(paragraphs[40 * k : 40 * k + 40]) for k in reversed(range(40))}
    topics["t03"] = "\n\n".join([*paragraphs[:40], "\u00e9\u00e9\u00e9", *paragraphs[120:160]])  # repeats a whole topic
    planted(monkeypatch, topics)
    text = "\n\n".join([*paragraphs[:120], "\u00e9\u00e9\u00e9", *paragraphs[120:]]).lower()
    view, test = load("python_docs"), load_test("python_docs")
    assert view.task == Task("python_docs", "text", "perplexity", False, (35,), 11, view.task.digest)
    assert view.train.y.max() == 10
    train = text[: DOCS_SIZES[0]]
    letters = sorted("abcdefgh ", key=lambda c: (-train.count(c), c))
    shown = ["?", "\n", *letters]
    for split, start in ((view.train, 0), (view.valid, len(text) * 8 // 10), (test, len(text) * 9 // 10)):
        want = text[start : start + split.x.size + 1].replace("\u00e9", "?")
        assert decoded(split.x, shown) == want[:-1]
        assert decoded(split.y, shown) == want[1:]
    assert [len(s) for s in (view.train, view.valid, test)] == [2857, 571, 571]


def test_documentation_that_is_absent_or_short_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, {"a": "\n\n".join(map(str, range(9000)))})
    with pytest.raises(ValueError, match=r"data: 'python_docs': the train part has \d+ characters; allowed: 100000"):
        load("python_docs")
    planted(monkeypatch, {"a": "\n\n".join(map(str, range(25000)))})
    with pytest.raises(ValueError, match=r"data: 'python_docs': the valid part has \d+ characters; allowed: 20000"):
        load("python_docs")
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match=r"data: 'python_docs' needs pydoc_data of the standard library, which is not"):
        load("python_docs")


def test_the_documentation_of_this_python() -> None:
    view, test = load("python_docs"), load_test("python_docs")
    assert [len(s) for s in (view.train, view.valid, test)] == [2857, 571, 571]
    counts = np.bincount(view.train.x.ravel(), minlength=view.task.classes)
    assert counts[1:].min() >= DOCS_MIN_COUNT - 1  # a window short of the end may hold one less
    assert 40 < view.task.classes < 100
    for split in (view.train, view.valid, test):
        assert (split.x == 0).mean() < 0.01
    # What a unigram model leaves: English and code have about 23 equally likely characters.
    share = counts[counts > 0] / counts.sum()
    assert 18 < math.exp(-(share * np.log(share)).sum()) < 28


TOPICS = "2a95af4ac93f5b719944030ce3769070ddf827d847cba42192afa8da989e5dc4"
"""sha256 of the topics of Python 3.11.7, joined by newlines in the order of their names."""


def test_the_documentation_of_one_python_is_the_same_for_ever() -> None:
    from pydoc_data.topics import topics

    if hashlib.sha256("\n".join(topics[k] for k in sorted(topics)).encode()).hexdigest() != TOPICS:
        pytest.skip(f"Python {platform.python_version()} has other documentation than 3.11.7")
    view = load("python_docs")
    assert view.task.digest == "8b372094b0edaa53d36ef6cb3820ae0f548b196a67eecfbcf4a5c6665a14d25c"
    assert view.task.classes == 64
