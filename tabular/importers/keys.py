"""What each row of a results file is about: architecture, seed, epoch, pipeline, split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...methods import registry
from ...protocols import Architecture, IndexedSpace, SearchSpace
from .columns import Source
from .mapfile import pipeline_name

Labels = tuple[np.ndarray, list[str]]
"""Codes (rows,) into different texts."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The labels of every row of the file; None where no column of rows has them.

    Attributes:
        members: The different architectures, in the order of the table's rows.
        row: Which of them each row of the file is about (rows,).
        seed: Training seeds (rows,).
        epoch: 1-based epochs (rows,).
        pipeline: Names of pipelines.
        split: Names of splits, as the file calls them.
    """

    members: Sequence[Architecture]
    row: np.ndarray
    seed: np.ndarray | None
    epoch: np.ndarray | None
    pipeline: Labels | None
    split: Labels | None


class Entries(NamedTuple):
    """Cells of one column under one pipeline: lines (k,) of the file, and their labels, None where they have none."""

    column: str
    lines: np.ndarray
    pipeline: str | None
    seed: np.ndarray | None
    epoch: np.ndarray | None


def read_keys(source: Source, space: SearchSpace) -> Keys:
    """Read the labels of all rows; ValueError names the column and row of the first that is none."""
    m = source.m
    members, row = _architectures(source, space)
    order = list(range(len(members)))
    if isinstance(space, IndexedSpace):
        order.sort(key=lambda i: space.index(members[i]))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    seed, epoch, pipeline, split = (m.columns.get(k) for k in ("seed", "epoch", "pipeline", "split"))
    return Keys(
        [members[i] for i in order],
        place[row],
        source.integers(seed, 0) if seed else None,
        source.integers(epoch, m.first_epoch) + 1 - m.first_epoch if epoch else None,
        _pipelines(source, pipeline) if pipeline else None,
        _splits(source, split) if split else None,
    )


def entries(source: Source, keys: Keys, split: str | None) -> Iterator[Entries]:
    """The cells that hold a split, or, for None, costs."""
    lines, field = np.arange(len(source)), "cost.column" if split is None else f"columns.{split}"
    if keys.split is not None and split is not None:
        codes, names = keys.split
        lines, field = np.flatnonzero(codes == names.index(source.m.splits[split])), "columns.value"
    for place in source.places(field):
        for pipeline, here in _by_pipeline(keys, place.pipeline, lines):
            yield Entries(
                place.column, here, pipeline, _along(place.seed, keys.seed, here), _along(place.epoch, keys.epoch, here)
            )


def _along(fixed: int | None, labels: np.ndarray | None, lines: np.ndarray) -> np.ndarray | None:
    if fixed is not None:
        return np.full(len(lines), fixed)
    return None if labels is None else labels[lines]


def _by_pipeline(keys: Keys, fixed: str | None, lines: np.ndarray) -> Iterator[tuple[str | None, np.ndarray]]:
    if keys.pipeline is None:
        yield fixed, lines
        return
    codes, names = keys.pipeline
    for code, name in enumerate(names):
        if (here := lines[codes[lines] == code]).size:
            yield name, here


def _pipelines(source: Source, column: str) -> Labels:
    codes, names = source.texts(column)
    for code, name in enumerate(names):
        try:
            pipeline_name(name)
        except ValueError as error:
            raise source.error(column, int(np.argmax(codes == code)), str(error)) from None
    return codes, names


def _splits(source: Source, column: str) -> Labels:
    m = source.m
    codes, names = source.texts(column)
    for code, name in enumerate(names):
        if name not in m.splits.values():
            allowed = registry.unknown("split", name, tuple(m.splits.values()))
            raise source.error(column, int(np.argmax(codes == code)), f"{allowed} (the names in [splits])")
    for split in m.measured:
        if m.splits[split] not in names:
            raise ValueError(f"{m.file.name}: column {column!r} never is {m.splits[split]!r}, splits.{split}")
    return codes, names


def _architectures(source: Source, space: SearchSpace) -> tuple[list[Architecture], np.ndarray]:
    """The different architectures in the order of the file, and which of them each row of the file is about."""
    columns = source.m.columns
    if "index" in columns and not isinstance(space, IndexedSpace):
        raise ValueError(f"{source.m.path.name}: columns.index: {space.name!r} has no numbering; name architecture")
    column = columns.get("architecture") or columns.get("index") or columns["genes"][0]
    codes, different = _genes(source, columns["genes"]) if "genes" in columns else source.texts(column)
    found: dict[tuple[int, ...], int] = {}
    members: list[Architecture] = []
    translated = np.empty(len(different), np.int64)
    for code, text in enumerate(different):
        try:
            a = _read(space, columns, text)
            space.check(a)
        except ValueError as error:
            what = str(error) if text in str(error) or "genes" in columns else f"{text!r} ({error})"
            raise source.error(column, int(np.argmax(codes == code)), what) from None
        translated[code] = found.setdefault(a.genes, len(members))
        if translated[code] == len(members):
            members.append(a)
    return members, translated[codes]


def _genes(source: Source, names: Sequence[str]) -> Labels:
    """Rows of gene columns as codes into different texts, the genes joined by line ends."""
    columns = [source.texts(name) for name in names]
    rows, codes = np.unique(np.stack([c for c, _ in columns], 1), axis=0, return_inverse=True)
    texts = ["\n".join(columns[i][1][k] for i, k in enumerate(row)) for row in rows.tolist()]
    return codes.reshape(-1), texts


def _read(space: SearchSpace, columns: Mapping[str, Any], text: str) -> Architecture:
    if "index" in columns:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"{space.name}: index is {text!r}; allowed: 0 to {(space.size or 0) - 1}")
        return space.at(int(text))  # type: ignore[attr-defined, no-any-return]
    if "genes" not in columns:
        return Architecture.parse(text) if text.startswith(f"{space.family}:") else space.parse(text)
    genes: tuple[int, ...] = ()
    for column, cell in zip(columns["genes"], text.split("\n"), strict=True):
        allowed = space.options(genes)
        called = {space.label(len(genes), v): v for v in allowed} if hasattr(space, "label") else {}
        by_text = {**called, **{str(v): v for v in allowed}}
        if cell not in by_text:
            raise ValueError(registry.unknown(f"gene {column!r}", cell, tuple(dict.fromkeys(by_text))))
        genes = (*genes, by_text[cell])
    return Architecture(space.family, genes)
