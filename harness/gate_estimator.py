"""The regression gate for performance estimators: the same scores, or else scores that rank as well.

Level 0 compares the scores of all architectures, seed by seed, to the last bit. Where they differ, level 1 asks what
matters about an estimator: how well its scores rank the architectures by their test metric. The difference of the mean
Spearman correlations, new minus recorded, has a 95 % bootstrap interval over the architectures, which are the same for
both, and over the estimator's seeds. All of it above minus the margin is a pass, all of it below is a failure, and else
the answer is not known. An architecture without a score ranks below all others, so that failures to answer count.

How far the new scores agree with the recorded ones, and by how much they are shifted, is reported and gates nothing.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..protocols import Json
from ..tabular import MappedTable
from ..tabular.facts import quality
from .gate_baseline import Baseline, refuse_existing, write
from .gate_text import Checked, EstimatorTest, Outcome, Parting, Verdict, notes
from .gate_traces import Crashed, Watch, own_traceback, unwatched
from .plan import NotComparable

KIND = "estimator"
METRICS = ("spearman",)
MARGIN = 0.02
RESAMPLES = 1000

_CHUNK = 100
"""Resamples at a time: their counts of all architectures are in memory together."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of all architectures of a table, (A, S) by seed, NaN where there is none, and what they depend on."""

    values: np.ndarray
    architectures: tuple[str, ...]
    facts: Mapping[str, Json]
    code: str
    truth: np.ndarray


def record_estimator(
    estimator: str,
    table: str,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    replace_old: bool = False,
    watch: Watch = unwatched,
) -> Path:
    """Estimate every architecture of a table and write the scores as a baseline.

    Args:
        estimator: A name, as `nasbed estimate` takes it.
        table: Name or folder.
        out: The file.
        seeds: Of the estimator.
        replace_old: Whether a file of that name may be replaced; the new one keeps its origin.
        watch: Shows progress.

    Raises:
        ValueError: A name or value is wrong, or `out` exists; one line.
        Crashed: The estimator raised.
    """
    out = Path(out)
    origin = refuse_existing(out, replace_old)
    found = _scores(estimator, table, seeds, watch, "recording")
    header = {
        "kind": KIND, "metrics": list(METRICS), "seeds": list(seeds), "given": [table], "facts": found.facts,
        "strategies": [{"label": estimator, "name": estimator, "code": found.code}],
    }  # fmt: skip
    columns = zip(seeds, found.values.T, strict=True)
    lines = [{"seed": s, "digest": digest(column), "scores": _pack(column)} for s, column in columns]
    write(out, header, lines, origin)
    return out


def check_estimator(
    file: Baseline,
    *,
    margin: float = MARGIN,
    exact: bool = False,
    seeds: Sequence[int] | None = None,
    watch: Watch = unwatched,
) -> Checked:
    """Check an estimator against its recorded scores.

    Args:
        file: The baseline as read.
        margin: Loss of mean Spearman correlation with the test metric that is still a pass.
        exact: Fail what is not equal to the last bit.
        seeds: Those of the baseline to estimate with again; all by default.
        watch: Shows progress.

    Raises:
        ValueError: A value is wrong.
        NotComparable: The table, the pipeline or the unit of costs is another one.
        Crashed: The estimator raised.
    """
    header = file.header
    label = header["strategies"][0]["label"]
    recorded = dict(zip(header["seeds"], file.lines, strict=True))
    again = list(recorded) if seeds is None else list(seeds)
    if unknown := sorted(set(again) - set(recorded)):
        raise ValueError(f"seeds: {unknown[0]} is not one of the baseline's, {', '.join(map(str, recorded))}")
    found = _scores(label, header["given"][0], again, watch, "recorded seeds")
    for field, value in header["facts"].items():
        if found.facts[field] != value:
            raise NotComparable(
                f"baseline: the {field} is {found.facts[field]}, and was {value} when {file.path} was recorded; "
                "record a new one"
            )
    old = np.stack([_unpack(recorded[s]["scores"]) for s in again], 1)
    same = [digest(column) == recorded[s]["digest"] for s, column in zip(again, found.values.T, strict=True)]
    verdict = _verdict(label, found, old, again, same, margin, exact=exact)
    head = (
        f"gate: baseline {file.digest[:4]}… ({len(recorded)} seeds, {len(found.architectures)} architectures of "
        f"{found.facts['table']}, v{header['recorded']['nasbed']})  margin={margin:g}"
    )
    changed = [] if all(same) else [label]
    return Checked(head, (verdict,), notes(header, {label: found.code}, changed), file.digest, str(file.path))


def _verdict(
    label: str,
    found: Scores,
    old: np.ndarray,
    seeds: Sequence[int],
    same: Sequence[bool],
    margin: float,
    *,
    exact: bool,
) -> Verdict:
    counted = f"{sum(same)}/{len(same)} seeds identical"
    if all(same):
        return Verdict(label, "exact", "pass", "PASS", counted, len(same), len(same))
    k = list(same).index(False)
    other = _bits(old) != _bits(found.values)
    row = int(np.argmax(other[:, k]))
    parting = Parting(
        str(found.facts["table"]), seeds[k], found.architectures[row], float(old[row, k]), float(found.values[row, k]),
        int(other.sum()), other.size,
    )  # fmt: skip
    if exact:
        return Verdict(label, "exact", "fail", "FAIL", counted, sum(same), len(same), parting)
    test = compare_scores(found.truth, old, found.values, margin, np.random.default_rng(0))
    word = {"pass": "PASS (equivalent)", "fail": "FAIL", "inconclusive": "INCONCLUSIVE"}[test.outcome]
    improved = test.low > 0
    if improved:
        word = "PASS (improved)"
    shift = "none" if np.isnan(test.shift) else f"{test.shift:+.4g}"
    detail = (
        f"spearman {test.expected:.3f}→{test.got:.3f}  Δ={test.difference:+.3f} [{test.low:+.3f},{test.high:+.3f}]  "
        f"with recorded {test.agreement:.3f}  mean shift {shift}"
    )
    return Verdict(
        label, "statistical", test.outcome, word, detail, sum(same), len(same), parting,
        seeds=len(same), improved=improved, estimator=test,
    )  # fmt: skip


def compare_scores(
    truth: np.ndarray, old: np.ndarray, new: np.ndarray, margin: float, rng: np.random.Generator
) -> EstimatorTest:
    """Whether new scores rank architectures as well as old ones.

    The bootstrap draws architectures, and the seeds of either side; ranks are those of all architectures.

    Args:
        truth: (A,) what architectures are worth, higher is better; not finite is below all others.
        old: (A, S) recorded scores, NaN where there is none.
        new: (A, S) of the same architectures and seeds.
        margin: Loss of correlation that does not matter, above 0.
        rng: Source of the draws.

    Raises:
        ValueError: The shapes differ, there are fewer than 3 architectures, or the margin is not between 0 and 1.
    """
    if old.shape != new.shape or old.shape[:1] != truth.shape or len(truth) < 3:
        raise ValueError(f"scores: shapes {truth.shape}, {old.shape} and {new.shape} do not belong together")
    if not 0.0 < margin < 1.0:
        raise ValueError(f"correlation margin: {margin} is not between 0 and 1")
    seeds, y = old.shape[1], _ranks(truth[:, None])
    both = np.concatenate([_ranks(old), _ranks(new)], 1)
    whole = _correlations(np.ones((1, len(truth))), both, y)[0]
    difference = float(whole[seeds:].mean() - whole[:seeds].mean())
    drawn = []
    for _ in range(0, RESAMPLES, _CHUNK):
        counts = rng.multinomial(len(truth), np.full(len(truth), 1.0 / len(truth)), _CHUNK).astype(float)
        values = _correlations(counts, both, y)
        sides = [np.take_along_axis(v, rng.integers(seeds, size=v.shape), 1) for v in np.split(values, 2, axis=1)]
        drawn.append(sides[1].mean(1) - sides[0].mean(1))
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975]).tolist()
    outcome: Outcome = "pass" if low > -margin else "fail" if high < -margin else "inconclusive"
    pairs = [
        _correlations(np.ones((1, len(truth))), both[:, [seeds + s]], both[:, [s]])[0, 0] for s in range(seeds)
    ]  # fmt: skip
    moved = (new - old)[np.isfinite(new) & np.isfinite(old)]
    shift = float(moved.mean()) if moved.size else float("nan")
    return EstimatorTest(
        outcome, float(whole[:seeds].mean()), float(whole[seeds:].mean()), difference, low, high, margin,
        float(np.mean(pairs)), shift,
    )  # fmt: skip


def _ranks(values: np.ndarray) -> np.ndarray:
    """Midranks of each column, centred; what is not finite is below all others."""
    from ..reports.statistics.values import midranks

    known = np.where(np.isfinite(values), values, -np.inf)
    return np.stack([midranks(column)[0] for column in known.T], 1) - (len(values) + 1) / 2.0


def _correlations(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlations of the columns of x with y: (resamples, columns); 0 without variance."""
    n = counts.sum(1, keepdims=True)
    mx, my = counts @ x / n, counts @ y / n
    vx, vy = counts @ x**2 / n - mx**2, counts @ y**2 / n - my**2
    scale = np.sqrt(np.maximum(vx * vy, 0.0))
    covariance = counts @ (x * y) / n - mx * my
    found: np.ndarray = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-9)
    return found


def _scores(estimator: str, table: str, seeds: Sequence[int], watch: Watch, what: str) -> Scores:
    from ..protocols.training import one_thread
    from ..tabular.estimates import open_estimates
    from . import evidence
    from .cli_estimate import _wanted
    from .estimate import estimate

    wanted = _wanted(estimator, table, None, None, None, pipeline=None, sample=None, seeds="1", unit=None)
    wanted = replace(wanted, seeds=tuple(seeds))
    with tempfile.TemporaryDirectory() as folder, one_thread(), watch(what) as step:
        try:
            estimate(wanted, Path(folder) / "estimates", step)
        except Exception as error:
            if not (trace := own_traceback(error)).startswith("Traceback"):
                raise  # refused by the harness itself, in one line
            raise Crashed(f"{estimator} on {table}", trace) from None
        made = open_estimates(Path(folder) / "estimates")
    opened = wanted.setting.table
    assert isinstance(opened, MappedTable)
    known = evidence.truth(opened, wanted.setting.pipeline.name)
    sign = 1.0 if known.higher_is_better else -1.0
    worth = dict(zip(known.architectures, (sign * quality(known.values)).tolist(), strict=True))
    texts = tuple(wanted.space.text(a) for a in wanted.architectures)
    facts = {
        "table": opened.name, "digest": opened.digest, "pipeline": dict(made.manifest["pipeline"]),
        "unit": made.unit, "estimator": {k: made.manifest["estimator"][k] for k in ("name", "params")},
    }  # fmt: skip
    truth = np.array([worth.get(t, np.nan) for t in texts])
    return Scores(made.scores, texts, facts, str(made.manifest["estimator"]["code"]), truth)


def digest(column: np.ndarray) -> str:
    """sha256 of the scores of one seed, to the last bit; all NaN are one."""
    return hashlib.sha256(_bits(column).tobytes()).hexdigest()


def _bits(values: np.ndarray) -> np.ndarray:
    plain = np.where(np.isnan(values), np.nan, values).astype("<f8")
    found: np.ndarray = np.ascontiguousarray(plain).view("<u8")
    return found


def _pack(column: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(_bits(column).tobytes(), 9)).decode("ascii")


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f8")
