"""Verifying tables: are the files those that were written, and do their values come out again when trained anew?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import inf, isfinite, isnan
from pathlib import Path

import numpy as np

from ..protocols import Architecture, DataView, Json, Pipeline, Split
from ..protocols.streams import generator, integer
from .deviation import LIMIT, Spread, left_out, measured, most_outside, scale_name, spread, z_scores
from .format import complete
from .sealed import unseal
from .table import MappedTable, changes, find, read_manifest

Progress = Callable[[float, float], None]


@dataclass(frozen=True, slots=True)
class Retrained:
    """One entry, trained again with a seed that the table has not seen.

    All values are of `Verification.scale`: perplexities are compared by their logarithms.

    Attributes:
        architecture: In its space's notation.
        pipeline: Name.
        seed: The fresh training seed.
        n: Seeds that the table recorded.
        mean: Recorded test metric, mean over these seeds.
        sd: Between seeds, pooled over the entries of nearest mean.
        test: Test metric of the new training; infinite if it diverged.
        z: (test - mean) / (sd * sqrt(1 + 1/n)).
    """

    architecture: str
    pipeline: str
    seed: int
    n: int
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
        trainings: How many at full fidelity are `recorded`, `missing`, and `diverged` (recorded, but infinite).
        entries: Those that were trained again, in the order drawn.
        scale: What is compared: the metric, or its logarithm.
        share: Of |z| > 2 among the table's own seeds, each left out in turn.
        allowed: Largest number of entries with |z| > 2 that passes: the 99 % quantile at `share`
            (`deviation.most_outside`).
    """

    table: str
    passed: bool
    problems: tuple[str, ...] = ()
    trainings: Mapping[str, int] = field(default_factory=dict)
    entries: tuple[Retrained, ...] = ()
    scale: str = ""
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
        counts = ", ".join(f"{n} {what}" for what, n in self.trainings.items() if n or what == "recorded")
        lines = ["hashes and schema: correct", f"trainings: {counts}"]
        if self.entries:
            lines.append(
                f"retrained {len(self.entries)} entries: {self.outside} with |z| > {LIMIT:g}, at most {self.allowed} "
                f"allowed ({self.share:.1%} of the table's own seeds, each left out in turn)"
            )
            lines += [
                f"  z {e.z:+.2f}  {e.architecture}  {e.pipeline}  seed {e.seed}: test {self.scale} {e.test:.4f}, "
                f"recorded {e.mean:.4f} (mean of {e.n}, sd between seeds {e.sd:.4f})"
                for e in self.worst()
            ]
        return [*lines, f"{self.table}: {'passed' if self.passed else 'failed'}"]

    def to_dict(self) -> dict[str, Json]:
        """As JSON values; an infinite number is None."""
        entries = [
            {k: v if not isinstance(v, float) or isfinite(v) else None for k, v in asdict(e).items()}
            for e in self.entries
        ]
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

    Entries are drawn uniformly over the (architecture, pipeline) that the table has a training of, and trained at full
    fidelity, one at a time, by the reference trainer, on one thread, with seeds that the table does not have. A new
    test value is compared with the recorded ones, however many there are, by z = (x - mean) / (sd * sqrt(1 + 1/n)),
    where sd is pooled over the 200 entries of nearest mean; perplexities by their logarithms, the losses. Seeds of bad
    networks scatter more widely than a normal distribution, so the number of |z| > 2 is held against what the table's
    own seeds show, not against 4.6 %. Entries of which a recorded training diverged are not drawn. Opens the sealed
    test values, on purpose.

    Args:
        table_folder: Folder of a table, or the name of an embedded one.
        retrain: Number of entries to train again; 0 checks hashes and schema only.
        seed: Which entries, and which fresh training seeds.
        data_root: See `protocols.training.load`.
        progress: Called with (entries done, entries) at the start and after each training.

    Raises:
        ValueError: There is no table; or its entries cannot be trained again: a pipeline or data set that is not
            registered under the same digest, a single seed each, more entries asked for than there are.
    """
    folder = find(table_folder)
    if problems := _problems(folder):
        return Verification(str(folder), False, tuple(problems))
    table = MappedTable(folder)
    if not retrain:
        return Verification(str(folder), True, (), _trainings(table))
    pipelines = _pipelines(table)
    view, test = _data(table, data_root)
    values = {p: measured(unseal(table, p), table.task.metric) for p in pipelines}
    unreached = np.setdiff1d(np.arange(len(next(iter(values.values())))), table.members())
    for v in values.values():
        v[unreached] = np.nan  # rows that others stand for, where rows are merged
    spreads = {p: spread(v) for p, v in values.items()}
    entries: list[Retrained] = []
    drawn = _draw(table, spreads, retrain, seed)
    if progress:
        progress(0, retrain)
    for p, row in drawn:
        entries.append(_retrain(table, pipelines[p], row, spreads[p], view, test, seed))
        if progress:
            progress(len(entries), retrain)
    own = left_out(values.values())
    allowed = most_outside(retrain, own)
    passed = sum(abs(e.z) > LIMIT for e in entries) <= allowed
    scale = scale_name(table.task.metric)
    return Verification(str(folder), passed, (), _trainings(table), tuple(entries), scale, own.share, allowed)


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


def _trainings(table: MappedTable) -> dict[str, int]:
    counts = dict.fromkeys(("recorded", "missing", "diverged"), 0)
    rows = np.unique(table.members())
    for p in table.pipelines:
        last = table.array(f"valid.{p}")[rows, :, -1]
        there = table.present(p)[rows]
        counts["recorded"] += int(there.sum())
        counts["missing"] += int((~there).sum())
        counts["diverged"] += 0 if table.task.metric == "accuracy" else int(np.isinf(last).sum())
    return counts


def _pipelines(table: MappedTable) -> dict[str, Pipeline]:
    """The registered pipelines of the table, under the digests that it was trained with."""
    from ..protocols.training import PIPELINES

    for name, pipeline in table.pipelines.items():
        stated = table.manifest["pipelines"][name].get("digest", pipeline.digest)
        if name not in PIPELINES:
            raise ValueError(f"pipeline: the table {table.name!r} cannot be trained again: {name!r} is not registered")
        if not PIPELINES[name].digest == pipeline.digest == stated:
            raise ValueError(
                f"pipeline: the table {table.name!r} cannot be trained again: {name!r} is registered with the digest "
                f"{PIPELINES[name].digest[:12]}, the table was trained with {stated[:12]}"
            )
    return {p: PIPELINES[p] for p in table.pipelines}


def _data(table: MappedTable, data_root: Path | None) -> tuple[DataView, Split]:
    from ..protocols.training import DATASETS, load, load_test

    name = table.task.name
    if ("text:PATH" if name.startswith("text:") else name) not in DATASETS:
        raise ValueError(f"data: the table {table.name!r} cannot be trained again: {name!r} is not registered")
    view = load(name, data_root)
    if view.task.digest != table.task.digest:
        raise ValueError(
            f"data: the table {table.name!r} cannot be trained again: {name!r} has the digest "
            f"{view.task.digest[:12]} here, the table was trained on {table.task.digest[:12]}"
        )
    return view, load_test(name, data_root)


def _draw(table: MappedTable, spreads: Mapping[str, Spread], count: int, seed: int) -> list[tuple[str, int]]:
    """Pipelines and rows, uniformly over those that have something to compare with."""
    if all(np.isnan(found.sd).all() for found in spreads.values()):
        raise ValueError(
            f"seeds: the table {table.name!r} cannot be trained again: none of its entries has the two seeds that a "
            "deviation takes"
        )
    known = [(p, row) for p, found in spreads.items() for row in np.flatnonzero(~np.isnan(found.sd)).tolist()]
    if count > len(known):
        raise ValueError(f"retrain: {count} is more than the {len(known)} entries of the table {table.name!r}")
    rng = generator(seed, "verify-entries", table.digest)
    return [known[k] for k in rng.permutation(len(known))[:count].tolist()]


def _retrain(
    table: MappedTable, pipeline: Pipeline, row: int, found: Spread, view: DataView, test: Split, seed: int
) -> Retrained:
    name, text = pipeline.name, table.text(row)
    fresh = max(table.seeds) + 1 + integer(seed, "verify-seed", table.digest, name, row) % 2**32
    x = measured(np.array(_train(table, table.architecture(row), pipeline, view, test, fresh)), table.task.metric)
    n, mean, sd = (column[row] for column in found)
    z = z_scores(x, n, mean, sd)
    return Retrained(text, name, fresh, int(n), float(mean), float(sd), float(x), float(z))


def _train(table: MappedTable, a: Architecture, pipeline: Pipeline, view: DataView, test: Split, seed: int) -> float:
    """Test metric of one training from scratch to the table's last epoch, by the reference trainer."""
    from ..protocols.training import fit_from_seed, objective_of, one_thread, pipeline_for

    overrides = table.space.training(a)
    pipeline = replace(pipeline_for(pipeline.name, overrides), **overrides)
    last = min(table.manifest["epochs"][pipeline.name][-1], pipeline.epochs)
    objective = objective_of(view.task)
    with one_thread():
        _, totals = fit_from_seed(
            table.space.build(a, view.task), a, seed, view.train, {"test": test}, pipeline,
            objective=objective, epochs=last, recorded=[last],
        )  # fmt: skip
    x = float(objective.metric(totals["test"], test.y.size)[-1])
    return (-inf if view.task.higher_is_better else inf) if isnan(x) else x
