"""NATS-Bench, topology search space (Dong, Liu, Musial & Gabrys 2021, TPAMI), the `-simple` files: NAS-Bench-201.

A folder holds `meta.pickle.pbz2` with the texts of all architectures, and a file `NNNNNN.pickle.pbz2` for each
architecture: all trainings under the pipelines `12` and `200` (epochs), on four data sets.

`x-valid` are validation data. Test data are `ori-test` of `cifar10-valid`, and `x-test` of `cifar100` and
`ImageNet16-120`, whose `ori-test` are validation and test data together and are never imported. Trainings on `cifar10`
have no validation data at all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...methods import registry
from ...protocols import Json, SearchSpace, Task
from ..format import write_table
from ..manifest import present
from .arrays import MOST_EXAMPLES, Imported, to_counts
from .untrusted import answer, ask, load

__all__ = ["import_nats_bench_tss"]

HPS = ("12", "200")
SPACE = "nb201"
CHUNK = 64
"""Files that one reading process reads."""
TOLERANCE = 0.01
"""Of counts, in examples: the published percentages are sums of float32 numbers."""

Progress = Callable[[float, float], None]


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set: its test set as the files call it, its examples by split, and the shape of its images."""

    test: str
    examples: Mapping[str, int]
    shape: tuple[int, int, int]
    classes: int


DATA = {
    "cifar10-valid": DataSet("ori-test", {"train": 25_000, "valid": 25_000, "test": 10_000}, (3, 32, 32), 10),
    "cifar100": DataSet("x-test", {"train": 50_000, "valid": 5_000, "test": 5_000}, (3, 32, 32), 100),
    "ImageNet16-120": DataSet("x-test", {"train": 151_700, "valid": 3_000, "test": 3_000}, (3, 16, 16), 120),
}

NOTES = {
    "licence": "MIT (upstream)",
    "citation": "X. Dong, L. Liu, K. Musial, B. Gabrys: NATS-Bench: Benchmarking NAS Algorithms for Architecture "
    "Topology and Size. IEEE TPAMI 2021, arXiv 2009.00437.",
}


def import_nats_bench_tss(
    path: Path,
    folder: Path | None = None,
    *,
    data: str = "cifar10-valid",
    hp: str = "200",
    jobs: int = 1,
    progress: Progress | None = None,
) -> Imported:
    """Write the trainings of one data set under one pipeline as a table.

    The clock is seconds: of training and of validating, after every epoch. Epochs without validation values are left
    out: under `200`, `cifar100` and `ImageNet16-120` were validated after the last one only.

    Args:
        path: Folder of the files.
        folder: Of the table; default `nasbed-tables/<name>`.
        data: One of `DATA`.
        hp: "12" or "200".
        jobs: Reading processes at a time.
        progress: Called with (files read, files) at the start and after each group of files, if there are several.

    Raises:
        ValueError: One line naming the option, or the file and what is wrong in it.
    """
    _check(data, hp)
    name = f"nats-bench-tss-{data}-{hp}"
    folder = folder or Path("nasbed-tables") / name
    if (folder / "manifest.json").exists():
        raise ValueError(f"out: {folder} holds a table already")
    read = _read(path, data, hp, jobs, progress)
    space = registry.space(SPACE)
    arrays, axes, notes = _arrays(read, space, data, hp)
    manifest: dict[str, Json] = {
        **NOTES,
        **axes,
        "name": name,
        "summary": f"NATS-Bench, topology search space: {data}, {hp} epochs",
        "clock": "seconds",
        "task": Task(data, "image", "accuracy", True, DATA[data].shape, DATA[data].classes, ""),
        "examples": {s: n for s, n in DATA[data].examples.items() if f"{s}.hp{hp}" in arrays},
        "imported": {**_origin(path, read), "left_out": notes},
    }
    write_table(folder, space, arrays, manifest)
    rows, coverage = len(arrays[f"valid.hp{hp}"]), "complete" if axes["architectures"] is None else "sample"
    trainings = int(present(arrays[f"valid.hp{hp}"])[:, :, -1].sum())
    return Imported(folder, coverage, rows, trainings, tuple(notes))


def _check(data: str, hp: str) -> None:
    if data == "cifar10":
        raise ValueError("data: 'cifar10' has no validation values, only test values; use 'cifar10-valid'")
    for field, value, allowed in (("data", data, tuple(DATA)), ("hp", hp, HPS)):
        if value not in allowed:
            raise ValueError(registry.unknown(field, value, allowed))


def _origin(path: Path, read: Mapping[str, np.ndarray]) -> dict[str, Json]:
    """What was read, for the manifest; the sha256 is that of what `sha256sum` prints of the architectures' files."""
    lines = "".join(f"{line}\n" for line in read["sha256"].tolist())
    digest = hashlib.sha256(lines.encode()).hexdigest()
    return {"importer": "nats-bench-tss", "folder": path.name, "files": len(read["sha256"]), "sha256": digest}


def _read(path: Path, data: str, hp: str, jobs: int, progress: Progress | None) -> dict[str, np.ndarray]:
    """The trainings of all files, architectures stacked: percentages and seconds (architectures, seeds, epochs)."""
    files = sorted(p.name for p in path.glob("*.pickle.pbz2") if re.fullmatch(r"\d{6}\.pickle\.pbz2", p.name))
    if not (path / "meta.pickle.pbz2").is_file() or not files:
        raise ValueError(f"path: {path} does not hold meta.pickle.pbz2 and NNNNNN.pickle.pbz2, one per architecture")
    chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
    if len(chunks) == 1:
        progress = None
    if progress:
        progress(0, len(files))

    def one(chunk: list[str]) -> dict[str, np.ndarray]:
        return ask(__name__, {"folder": str(path), "files": chunk, "data": data, "hp": hp})

    parts: list[dict[str, np.ndarray]] = []
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for part in pool.map(one, chunks):
                parts.append(part)
                if progress:
                    progress(sum(len(p["texts"]) for p in parts), len(files))
        finally:
            pool.shutdown(cancel_futures=True)
    return _stacked(parts)


def _stacked(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """All parts, which are emptied, with their seeds on the axis of all seeds."""
    axes = [part.pop("seeds") for part in parts]
    seeds = np.unique(np.concatenate(axes))
    stacked = {"seeds": seeds}
    for key in tuple(parts[0]):
        arrays = [part.pop(key) for part in parts]
        if arrays[0].ndim < 3:
            stacked[key] = np.concatenate(arrays)
            continue
        stacked[key] = np.full((sum(map(len, arrays)), len(seeds), arrays[0].shape[2]), np.nan)
        row = 0
        for array, own in zip(arrays, axes, strict=True):
            stacked[key][row : row + len(array), np.searchsorted(seeds, own)] = array
            row += len(array)
    return stacked


def _arrays(
    read: Mapping[str, np.ndarray], space: SearchSpace, data: str, hp: str
) -> tuple[dict[str, np.ndarray], dict[str, Json], list[str]]:
    """Arrays by stem, axes for the manifest, and notes of what is left out."""
    texts: list[str] = read["texts"].tolist()
    try:
        members = [space.parse(text) for text in texts]
    except ValueError as error:
        raise ValueError(f"path: these files are not of the topology search space ({error})") from None
    order = np.array(sorted(range(len(texts)), key=lambda i: space.index(members[i])))  # type: ignore[attr-defined]
    trained = ~np.isnan(read["valid"]).all((1, 2))
    order = order[trained[order]]
    if not order.size:
        raise ValueError(f"data: no file holds a training on {data!r} under {hp!r}")
    kept = ~np.isnan(read["valid"]).all((0, 1))
    notes = [] if kept.all() else [f"{int((~kept).sum())} epochs without validation values"]
    if not trained.all():
        notes.append(f"{int((~trained).sum())} architectures without trainings on {data!r} under {hp!r}")
    arrays = {}
    for split, total in DATA[data].examples.items():
        if total > MOST_EXAMPLES:
            notes.append(f"{split}ing accuracies: counts hold up to {MOST_EXAMPLES} examples, not {total}")
            continue
        counts, wrong = to_counts(read[split][order][:, :, kept] / 100, total, TOLERANCE)
        if wrong.any():
            row = int(order[np.argwhere(wrong)[0][0]])
            raise ValueError(f"{texts[row]}: a {split} accuracy on {data!r} is no count of {total} examples")
        arrays[f"{split}.hp{hp}"] = counts
    if DATA[data].test != "ori-test":
        notes.append("ori-test: validation and test data together")
    arrays[f"cost.hp{hp}"] = _costs(read["seconds"][order], kept, arrays[f"valid.hp{hp}"])
    arrays["feature.params"] = np.rint(read["params"][order] * 1e6)
    arrays["feature.flops_M"] = read["flops"][order]
    arrays["feature.latency_s"] = read["latency"][order]
    axes = {
        "seeds": read["seeds"].tolist(),
        "epochs": {f"hp{hp}": (np.flatnonzero(kept) + 1).tolist()},
        "architectures": None if len(order) == space.size else [texts[i] for i in order],
    }
    return arrays, axes, notes


def _costs(seconds: np.ndarray, kept: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Of seconds per epoch (architectures, seeds, epochs), NaN where there is no training: what the format takes."""
    there = present(valid)
    known = ~np.isnan(seconds).any(2)
    if (there.any(2) & ~known).any():
        raise ValueError("seconds: a training with validation values lacks times")
    low: np.ndarray = np.fmin.reduce(seconds, axis=(1, 2))
    if (low == np.fmax.reduce(seconds, axis=(1, 2))).all():
        return low
    cost: np.ndarray = np.where(there, np.cumsum(seconds, axis=2)[:, :, kept], np.nan)
    return cost


# --- in the reading process -----------------------------------------------------------------------------------------


def _extract(folder: str, files: Sequence[str], data: str, hp: str) -> dict[str, np.ndarray]:
    """Arrays of some files: percentages and seconds (files, seeds, epochs), and numbers by architecture (files,)."""
    meta = load(Path(folder) / "meta.pickle.pbz2")
    with _blamed("meta.pickle.pbz2"):
        listed = [str(text) for text in meta["meta_archs"]]
    texts: list[str] = []
    hashes: list[str] = []
    found: list[dict[int, dict[str, Any]]] = []
    for file in files:
        content = load(Path(folder) / file)
        with _blamed(file):
            texts.append(_text(content, int(file[:6]), listed, hp))
            found.append(dict(_trials(content[hp]["all_results"], data, int(hp))))
        hashes.append(f"{hashlib.sha256((Path(folder) / file).read_bytes()).hexdigest()}  {file}")
    seeds = sorted({seed for trials in found for seed in trials})
    arrays = {"texts": np.array(texts), "seeds": np.array(seeds, np.int64), "sha256": np.array(hashes)}
    for key in ("train", "valid", "test", "seconds"):
        arrays[key] = np.full((len(files), len(seeds), int(hp)), np.nan)
        for row, trials in enumerate(found):
            for seed, trial in trials.items():
                arrays[key][row, seeds.index(seed)] = trial[key]
    for key in ("params", "flops", "latency"):
        arrays[key] = np.array([_common([t[key] for t in trials.values()]) for trials in found])
    return arrays


@contextmanager
def _blamed(file: str) -> Iterator[None]:
    """Whatever does not fit the layout is one line that names the file."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{file}: not in the layout of NATS-Bench's topology search space ({what})") from None


def _text(content: Mapping[str, Any], index: int, listed: Sequence[str], hp: str) -> str:
    """The architecture that a file is about, which its name, its content and the list must agree on."""
    if hp not in content:
        raise LookupError(f"it holds {', '.join(content)} epochs, not {hp}")
    text: str = content[hp]["arch_str"]
    if content[hp]["arch_index"] != index or index >= len(listed) or listed[index] != text:
        raise ValueError(f"{text} is not architecture {index} of meta.pickle.pbz2")
    return text


def _trials(results: Mapping[Any, Any], data: str, epochs: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Seed and curves (epochs,) of every training on a data set; NaN where the files have nothing."""
    test = DATA[data].test
    for (name, seed), trial in results.items():
        if name != data:
            continue
        accuracies, times = trial["eval_acc1es"], trial["eval_times"]
        yield (
            int(seed),
            {
                "train": _curve(trial["train_acc1es"], range(epochs)),
                "valid": _curve(accuracies, [f"x-valid@{e}" for e in range(epochs)]),
                "test": _curve(accuracies, [f"{test}@{e}" for e in range(epochs)]),
                "seconds": _curve(trial["train_times"], range(epochs))
                + _curve(times, [f"x-valid@{e}" for e in range(epochs)]),
                "params": float(trial["params"]),
                "flops": float(trial["flop"]),
                "latency": float(np.mean(trial["latency"])) if trial["latency"] else np.nan,
            },
        )


def _curve(values: Mapping[Any, float] | None, keys: Sequence[Any]) -> np.ndarray:
    return np.array([float((values or {}).get(key, np.nan)) for key in keys])


def _common(values: Sequence[float]) -> float:
    """Of an architecture's trainings; their mean where they differ, as measured latencies may."""
    if not values:
        return float("nan")
    return values[0] if len(set(values)) == 1 else float(np.mean(values))


if __name__ == "__main__":
    answer(_extract)
