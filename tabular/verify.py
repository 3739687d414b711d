"""Verifying tables: are the files those that were written, and do their values come out again when trained anew?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path

import numpy as np

from ..protocols import Architecture, DataView, Json, Pipeline, Split
from ..protocols.streams import generator, integer
from .format import complete
from .sealed import unseal
from .table import MappedTable, changes, find, read_manifest

NEAREST = 200
LIMIT = 2.0
CONFIDENCE = 0.99
FEWEST_SEEDS = 3
"""One to leave out, two for a deviation."""

Progress = Callable[[float, float], None]


@dataclass(frozen=True, slots=True)
class Retrained:
    """One entry, trained again with a seed that the table has not seen.

    Attributes:
        architecture: In its space's notation.
        pipeline: Name.
        seed: The fresh training seed.
        mean: Recorded test metric, mean over the table's seeds.
        sd: Between seeds, pooled over the entries of nearest mean.
        test: Test metric of the new training.
        z: (test - mean) / (sd * sqrt(1 + 1/n)), for n recorded seeds.
    """

    architecture: str
    pipeline: str
    seed: int
    mean: float
    sd: float
    test: float
    z: float


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found.

    Attributes:
        table: Folder.
        passed: Whether everything fits.
        problems: Files that differ, and what does not fit the manifest; one line each.
        entries: Those that were trained again, in the order drawn.
        share: Of |z| > 2 among the table's own seeds, each left out in turn.
        allowed: Largest number of entries with |z| > 2 that passes: the 99 % binomial quantile at `share`.
    """

    table: str
    passed: bool
    problems: tuple[str, ...] = ()
    entries: tuple[Retrained, ...] = ()
    share: float = 0.0
    allowed: int = 0

    @property
    def outside(self) -> int:
        """Number of entries with |z| > 2."""
        return sum(abs(e.z) > LIMIT for e in self.entries)

    def worst(self, n: int = 5) -> list[Retrained]:
        """The entries of largest |z|, the largest first."""
        return sorted(self.entries, key=lambda e: -abs(e.z))[:n]

    def summary(self) -> list[str]:
        """For people, one line per finding, the verdict last."""
        if self.problems:
            return [*self.problems, f"{self.table}: failed"]
        lines = ["hashes and schema: correct"]
        if self.entries:
            lines.append(
                f"retrained {len(self.entries)} entries: {self.outside} with |z| > {LIMIT:g}, at most {self.allowed} "
                f"allowed ({self.share:.1%} of the table's own seeds, each left out in turn)"
            )
            lines += [
                f"  z {e.z:+.2f}  {e.architecture}  {e.pipeline}  seed {e.seed}: "
                f"test {e.test:.4f}, recorded {e.mean:.4f} (sd between seeds {e.sd:.4f})"
                for e in self.worst()
            ]
        return [*lines, f"{self.table}: {'passed' if self.passed else 'failed'}"]

    def to_dict(self) -> dict[str, Json]:
        """As JSON values; an infinite z is None."""
        entries = [{**asdict(e), "z": e.z if isfinite(e.z) else None} for e in self.entries]
        return {**asdict(self), "entries": entries, "outside": self.outside}


def verify(
    table_folder: str | Path,
    *,
    retrain: int = 0,
    seed: int = 0,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check the hashes and the schema of a table, and train some of its entries again.

    Entries are drawn uniformly over (architecture, pipeline) and trained one at a time by the reference
    trainer, on one thread, with seeds that the table does not have. A new test value is compared with the
    recorded ones by z = (x - mean) / (sd * sqrt(1 + 1/n)), where sd is pooled over the 200 entries of nearest
    mean. Seeds of bad networks scatter more widely than a normal distribution, so the number of |z| > 2 is held
    against what the table's own seeds show, not against 4.6 %. Opens the sealed test values, on purpose.

    Args:
        table_folder: Folder of a table, or the name of an embedded one.
        retrain: Number of entries to train again; 0 checks hashes and schema only.
        seed: Which entries, and which fresh training seeds.
        data_root: See `protocols.training.load`.
        progress: Called with (entries done, entries) at the start and after each training.

    Raises:
        ValueError: There is no table; or its entries cannot be trained again: a pipeline or data set that is not
            registered under the same digest, fewer than three seeds, more entries asked for than there are.
    """
    folder = find(table_folder)
    if problems := _problems(folder):
        return Verification(str(folder), False, tuple(problems))
    if not retrain:
        return Verification(str(folder), True)
    table = MappedTable(folder)
    pipelines, view, test = _trainable(table, data_root)
    values = {p: unseal(table, p) for p in pipelines}
    share = _left_out_share(values)
    entries = tuple(_retrain(table, pipelines, view, test, values, retrain, seed, progress))
    from scipy.stats import binom

    allowed = int(binom.ppf(CONFIDENCE, retrain, share)) if share else 0
    outside = sum(abs(e.z) > LIMIT for e in entries)
    return Verification(str(folder), outside <= allowed, (), entries, share, allowed)


def _problems(folder: Path) -> list[str]:
    """Everything about the files that is not as it was written; checks of content only on unchanged files."""
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        return [str(error)]
    if found := list(changes(folder, manifest)):
        return found
    try:
        arrays = {
            Path(name).stem: np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in manifest["files"]
        }
        complete(MappedTable(folder).space, arrays, manifest)
    except ValueError as error:
        return [f"schema: {error}"]
    return []


def _trainable(table: MappedTable, data_root: Path | None) -> tuple[dict[str, Pipeline], DataView, Split]:
    from ..protocols.training import DATASETS, PIPELINES, load, load_test

    for name, pipeline in table.pipelines.items():
        if name not in PIPELINES or PIPELINES[name].digest != pipeline.digest:
            raise ValueError(
                f"pipeline: {name!r} of the table {table.name!r} is not registered, so it cannot be trained again"
            )
    if table.task.name not in DATASETS:
        raise ValueError(
            f"data: {table.task.name!r} of the table {table.name!r} is not registered, so it cannot be trained again"
        )
    view = load(table.task.name, data_root)
    if view.task.digest != table.task.digest:
        raise ValueError(f"data: {table.task.name!r} differs from what the table {table.name!r} was trained on")
    if len(table.seeds) < FEWEST_SEEDS:
        raise ValueError(f"seeds: the table {table.name!r} has {len(table.seeds)}; retraining needs {FEWEST_SEEDS}")
    return {p: PIPELINES[p] for p in table.pipelines}, view, load_test(table.task.name, data_root)


def _spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of values (rows, seeds): seeds present, mean, and the deviation pooled over the rows of nearest mean.

    Rows with fewer than two values have neither mean nor deviation (NaN).
    """
    present = ~np.isnan(values)
    n = present.sum(1)
    usable = np.flatnonzero(n >= 2)
    mean, sd = np.full((2, len(values)), np.nan)
    kept = np.where(present, values, 0.0)[usable]
    mean[usable] = kept.sum(1) / n[usable]
    squares = np.where(present[usable], (kept - mean[usable, None]) ** 2, 0.0).sum(1)
    order = np.argsort(mean[usable], kind="stable")
    size = min(NEAREST, len(usable))
    start = _windows(mean[usable][order], size)
    sums = (np.concatenate([[0.0], np.cumsum(x[order])]) for x in (squares, n[usable] - 1.0))
    squared, freedom = (s[start + size] - s[start] for s in sums)
    # A running sum cancels to a little below or above zero where all values are equal.
    squared = np.where(squared > 1e-12, squared, 0.0)
    sd[usable[order]] = np.sqrt(squared / freedom)
    return n, mean, sd


def _windows(ordered: np.ndarray, size: int) -> np.ndarray:
    """Where the `size` consecutive values nearest to each of the ascending values start."""
    starts, start = np.zeros(len(ordered), np.int64), 0
    for i, x in enumerate(ordered):
        while start + size < len(ordered) and ordered[start + size] - x < x - ordered[start]:
            start += 1
        starts[i] = start
    return starts


def _z(x: np.ndarray, n: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Infinite where entries that never varied now differ."""
    off = x - mean
    scale = sd * np.sqrt(1 + 1 / n)
    z = np.where(np.abs(off) < 1e-12, 0.0, np.copysign(np.inf, off))
    np.divide(off, scale, out=z, where=scale > 0)
    return z


def _left_out_share(values: Mapping[str, np.ndarray]) -> float:
    """Share of |z| > 2 when one seed at a time plays the fresh training and the others the table."""
    outside = total = 0
    for recorded in values.values():
        for s in range(recorded.shape[1]):
            n, mean, sd = _spread(np.delete(recorded, s, 1))
            rows = ~np.isnan(recorded[:, s]) & ~np.isnan(mean)
            z = _z(recorded[rows, s], n[rows], mean[rows], sd[rows])
            outside += int((np.abs(z) > LIMIT).sum())
            total += len(z)
    return outside / total if total else 0.0


def _retrain(
    table: MappedTable,
    pipelines: Mapping[str, Pipeline],
    view: DataView,
    test: Split,
    values: Mapping[str, np.ndarray],
    count: int,
    seed: int,
    progress: Progress | None,
) -> list[Retrained]:
    spread = {p: _spread(v) for p, v in values.items()}
    known = [(p, int(row)) for p, (n, _, _) in spread.items() for row in np.flatnonzero(n >= FEWEST_SEEDS)]
    if count > len(known):
        raise ValueError(f"retrain: {count} is more than the {len(known)} entries of the table {table.name!r}")
    rng = generator(seed, "verify-entries", table.digest)
    found = []
    if progress:
        progress(0, count)
    for k in rng.permutation(len(known))[:count].tolist():
        p, row = known[k]
        n, mean, sd = (column[row] for column in spread[p])
        fresh = max(table.seeds) + 1 + integer(seed, "verify-seed", table.digest, p, row) % 2**32
        text = table.text(row)
        x = _train(table, table.space.parse(text), pipelines[p], view, test, fresh)
        z = float(_z(np.array(x), n, mean, sd))
        found.append(Retrained(text, p, fresh, float(mean), float(sd), x, z))
        if progress:
            progress(len(found), count)
    return found


def _train(table: MappedTable, a: Architecture, pipeline: Pipeline, view: DataView, test: Split, seed: int) -> float:
    """Test accuracy of one training from scratch, by the reference trainer."""
    from ..protocols.training import fit_from_seed, one_thread

    pipeline = replace(pipeline, **table.space.training(a))
    with one_thread():
        _, correct = fit_from_seed(table.space.build(a, view.task), a, seed, view.train, {"test": test}, pipeline)
    return float(correct["test"][-1] / len(test))
