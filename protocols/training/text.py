"""Language-model corpora: the words of local text files, or the characters of Python's documentation, as windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path

import numpy as np

from ..task import Task

UNKNOWN, END = "<unk>", "<eos>"
LENGTH = 35
"""Tokens of a window: the steps of backpropagation through time on Penn Treebank of ENAS (Pham et al. 2018) and
DARTS (Liu et al. 2019)."""
MOST_WORDS = 10_000
"""Penn Treebank has 9,998 besides the two special tokens."""
MIN_COUNT = 2
"""Words that occur once in training become `<unk>`, which would else never be trained."""

DOCS_SIZES = (100_000, 20_000, 20_000)
"""Characters of train, valid and test of `python_docs`: well under half of what there is; an epoch takes seconds."""
DOCS_MIN_COUNT = 10

PARTS = ("train", "valid", "test")
Lines = Sequence[Sequence[str]]


def corpus(name: str, root: Path | None) -> tuple[Task, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Next-word prediction on a local UTF-8 file, or a folder with train.txt, valid.txt, test.txt.

    Tokens are the words between white space, as they are written, and `<eos>` at each end of a line. A folder may
    also hold Penn Treebank's own names, ptb.train.txt and so on. A single file is cut in three at ends of lines:
    the first 80 % of the tokens for training, the next 10 % for validation, the last 10 % for test.

    Args:
        name: `text:PATH`.
        root: What a relative PATH is relative to; None for the current folder.

    Returns:
        The task, without digest, and per part x and y, int64 (n, 35): consecutive windows that do not overlap, and
        the tokens that follow. A shorter rest of a part is dropped.

    Raises:
        ValueError: There is no such text, it is not UTF-8, or a part is too short for one window.
    """
    path = (root or Path()) / name.removeprefix("text:")
    if name == "text:" or not path.exists():
        raise ValueError(f"data: {name!r}: there is no file or folder {str(path)!r}; allowed: text:PATH")
    parts = _folder(path) if path.is_dir() else _cut(_lines(path))
    known = vocabulary(parts["train"])
    arrays = {part: windows(numbers(lines, known)) for part, lines in parts.items()}
    for part, (x, _) in arrays.items():
        if not len(x):
            raise ValueError(f"data: {name!r}: the {part} part is too short for one window of {LENGTH} tokens")
    return Task(name, "text", "perplexity", False, (LENGTH,), len(known), ""), arrays


def python_docs(name: str, root: Path | None) -> tuple[Task, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Characters of Python's own documentation, from the standard library (PSF licence).

    The text is that of `help()`: `pydoc_data.topics`, in the order of the topics' names, in lower case, without
    paragraphs that occurred before, as some topics repeat others. Tokens are characters, `<eos>` at each end of a line,
    and `<unk>` for characters that occur less than `DOCS_MIN_COUNT` times in training; perplexity is per character.
    The parts are the beginnings of the first 80 %, the next 10 % and the last 10 % of the text, `DOCS_SIZES` long.

    **The text is another one in other versions of Python**, patch releases included: the task's digest tells, and runs
    of different digests are never compared. Numbers of windows are the same, 2,857, 571 and 571.

    Args:
        name: `python_docs`.
        root: Not used.

    Raises:
        ValueError: The installation lacks the text, or it is too short.
    """
    text = _topics(name)
    parts: dict[str, Lines] = {}
    for part, size, tenths in zip(PARTS, DOCS_SIZES, ((0, 8), (8, 9), (9, 10)), strict=True):
        start, end = (len(text) * t // 10 for t in tenths)
        if end - start < size:
            raise ValueError(f"data: {name!r}: the {part} part has {end - start} characters; allowed: {size} or more")
        parts[part] = text[start : start + size].split("\n")
    known = vocabulary(parts["train"], min_count=DOCS_MIN_COUNT)
    # numbers() ends every line, and so counts one token more than there are characters.
    arrays = {part: windows(numbers(lines, known)[:-1]) for part, lines in parts.items()}
    return Task(name, "text", "perplexity", False, (LENGTH,), len(known), ""), arrays


def _topics(name: str) -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ValueError(f"data: {name!r} needs pydoc_data of the standard library, which is not installed") from None
    paragraphs = (p for topic in sorted(topics) for p in topics[topic].lower().split("\n\n"))
    return "\n\n".join(dict.fromkeys(paragraphs))


def vocabulary(lines: Lines, *, min_count: int = MIN_COUNT, most_words: int = MOST_WORDS) -> dict[str, int]:
    """Number of each token: `<unk>` is 0, `<eos>` 1, then the words from the most frequent, ties by alphabet.

    Args:
        lines: Of the training part alone.
        min_count: Words that occur less often are left out.
        most_words: At most so many, besides the two special tokens.
    """
    counts = Counter(chain.from_iterable(lines))
    words = [w for w, n in counts.items() if n >= min_count and w not in (UNKNOWN, END)]
    words.sort(key=lambda w: (-counts[w], w))
    return {w: k for k, w in enumerate([UNKNOWN, END, *words[:most_words]])}


def numbers(lines: Lines, known: dict[str, int]) -> np.ndarray:
    """Token numbers, int64, in the order of the text; unknown words are 0."""
    return np.array([known.get(w, 0) for line in lines for w in (*line, END)], np.int64)


def windows(tokens: np.ndarray, length: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    """Inputs x and targets y, int64 (n, length), arrays of their own: y[i, j] is the token after x[i, j]."""
    n = max(0, len(tokens) - 1) // length
    x, y = (tokens[start : start + n * length].reshape(n, length).copy() for start in (0, 1))
    return x, y


def _folder(path: Path) -> dict[str, Lines]:
    found = {}
    for part in PARTS:
        places = [path / f"{part}.txt", path / f"ptb.{part}.txt"]
        there = [p for p in places if p.is_file()]
        if not there:
            raise ValueError(f"data: the folder {str(path)!r} has no {part}.txt")
        found[part] = _lines(there[0])
    return found


def _lines(path: Path) -> Lines:
    try:
        with path.open(encoding="utf-8-sig") as file:  # which skips a byte order mark
            return [line.split() for line in file]
    except UnicodeDecodeError as error:
        raise ValueError(f"data: {str(path)!r} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"data: {str(path)!r} cannot be read ({error.strerror})") from None


def _cut(lines: Lines) -> dict[str, Lines]:
    """Cut at the first ends of lines at or after 80 % and 90 % of the tokens."""
    ends = np.array(list(accumulate(len(line) + 1 for line in lines)), np.int64)
    total = int(ends[-1]) if len(ends) else 0
    first, second = (int(np.searchsorted(10 * ends, tenths * total)) + 1 for tenths in (8, 9))
    return dict(zip(PARTS, (lines[:first], lines[first:second], lines[second:]), strict=True))
