"""The self-reinforcement protocol: three supernets per seed, which differ in what they train.

`optimised` trains what a policy draws that learns from the validation scores of that very supernet; `shuffled` trains
what `optimised` trained, step by step, behind a permutation of the architectures; `uniform` trains architectures drawn
uniformly. Initial weights, batches and numbers of steps are the same. All are scored on the same architectures: some
drawn uniformly, some from the final policy. What the numbers mean is said by `reports.audit.reinforcement`. Scores,
qualities and what the policy learns from are perplexities as minus their logarithm, other metrics as they are.
"""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..methods import registry
from ..protocols import Architecture, DataView, IndexedSpace, Json, Proposal, Setting, Split
from ..protocols.evidence import Truth
from ..protocols.streams import generator, integer
from ..tabular import MappedTable
from ..tabular.deviation import measured
from ..tabular.facts import quality
from . import records
from .estimate import AT_ONCE, Progress
from .files import Files, Fs
from .one_shot_policy import Policy, qualities
from .runs import needed_data

ARMS = ("uniform", "optimised", "shuffled")
"""In the order of the arrays by arm; they are trained in the order optimised, shuffled, uniform."""

EVERY = 8
"""Trained architectures between two steps of the policy, and architectures that such a step looks at."""

PARTS = 16
"""Parts of the validation data: each step of the policy looks at one, as the published controllers do."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What all supernets of an audit have in common; `make` gives an estimator of so many epochs."""

    space: Any
    setting: Setting
    make: Callable[[int], Any]
    epochs: int
    shuffle: str
    evaluated: int
    drawn: int


def reinforcement(
    table: MappedTable,
    *,
    seeds: Sequence[int],
    epochs: int,
    folder: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
    pipeline: str | None = None,
    estimator: str = "one_shot_enas",
    params: Mapping[str, Json] | None = None,
    shuffle: str = "architectures",
    evaluated: int = 500,
    drawn: int = 200,
) -> Path:
    """Carry out the protocol and write `one_shot.npz` and `one_shot.json`; the same call again goes on.

    No test value is opened: `read` joins the qualities of the architectures afterwards.

    Args:
        table: Complete; its data are trained on.
        seeds: One for each replicate of three supernets.
        epochs: Of every supernet.
        folder: Of the files; finished supernets wait in its `parts`.
        data_root: Folder of data sets that are not embedded.
        progress: Called with (supernets done, supernets in all).
        pipeline: Of the supernets and of the qualities; default: the table's own.
        estimator: Registered, or `package.module:attribute`: a one-shot estimator that takes `epochs`, keeps its
            weights in `supernet` and draws what it trains by `space.sample`, one architecture after the other.
        params: Of the estimator, but for `epochs`.
        shuffle: What the control permutes: "architectures", or "genes", the values of each gene by itself, which keeps
            how concentrated the training of shared parts is; for spaces whose genes are a fixed number of choices.
        evaluated: Architectures drawn uniformly for the evaluation; at most the whole space.
        drawn: Draws from the final policy for the evaluation.

    Raises:
        ValueError: The table, the estimator or the options do not fit, or the folder holds something else; one line.
    """
    pipeline = pipeline or str(table.manifest.get("default_pipeline", next(iter(table.pipelines))))
    found, given = registry.load("estimators", estimator), dict(params or {})
    registry.parameters(found, {**given, "epochs": epochs}, f"estimator {estimator!r}")
    _check(table, pipeline, seeds, shuffle)
    view = needed_data(table, data_root)
    setting = Setting(table.task, "flops", table.pipelines[pipeline], lambda a: 0, view)
    described: dict[str, Json] = {
        "table": {"name": table.name, "digest": table.digest}, "space": table.space.name, "pipeline": pipeline,
        "estimator": {"name": estimator, "params": given, "code": registry.code_digest(found)}, "epochs": epochs,
        "shuffle": shuffle, "evaluated": evaluated, "drawn": drawn, "seeds": list(seeds), "unit": "flops",
    }  # fmt: skip
    if (folder / "one_shot.json").exists():
        raise ValueError(f"out: {folder} holds a finished audit")
    (parts := folder / "parts").mkdir(parents=True, exist_ok=True)
    _claim(parts / "of.json", records.canonical(described))
    expected = epochs * len(view.train) / setting.pipeline.batch_size + evaluated + drawn
    steps = _Steps(progress, len(seeds) * len(ARMS), expected)
    job = _Job(
        table.space, setting, lambda n: found(**given, epochs=n), epochs, shuffle,
        min(evaluated, table.space.size or 0), drawn,
    )  # fmt: skip
    made = [_replicate(job, seed, parts, steps) for seed in seeds]
    _write(folder, described, made)
    shutil.rmtree(parts)
    return folder


def read(folder: Path, truth: Truth) -> list[dict[str, Any]]:
    """The evidence, and the qualities: the arguments of `reports.audit.reinforcement.Replicate`, seed by seed.

    Args:
        folder: Written by `reinforcement`.
        truth: Of the same table and pipeline.

    Returns:
        For each seed its fields. Architectures without a finite quality, or score in any arm, are left out.

    Raises:
        ValueError: The truth is that of another table or pipeline.
    """
    meta = json.loads((folder / "one_shot.json").read_text(encoding="utf-8"))
    if (meta["table"]["digest"], meta["pipeline"]) != (truth.digest, truth.pipeline):
        raise ValueError(
            f"evidence: {folder} is of the table {meta['table']['name']!r}, pipeline {meta['pipeline']!r},"
            f" not of {truth.table!r}, {truth.pipeline!r}"
        )
    space: Any = registry.space(meta["space"])
    row = {text: i for i, text in enumerate(truth.architectures)}
    values = np.append(quality(measured(truth.values, truth.metric)), np.nan) * (
        1.0 if truth.higher_is_better else -1.0
    )
    found = []
    with np.load(folder / "one_shot.npz", allow_pickle=False) as file:
        for seed in meta["seeds"]:
            arrays = {k.partition(".")[2]: file[k] for k in file.files if k.startswith(f"{seed}.")}
            f = values[[row.get(space.text(space.at(int(i))), -1) for i in arrays["members"]]]
            kept = np.isfinite(f) & np.isfinite(arrays["e"]).all(0)
            entropy = arrays.pop("entropy")
            arrays = {k: v[..., kept] for k, v in arrays.items()}
            found.append({"seed": seed, "f": f[kept], "entropy": entropy, **arrays})
    return found


def _check(table: MappedTable, pipeline: str, seeds: Sequence[int], shuffle: str) -> None:
    if pipeline not in table.pipelines:
        raise ValueError(registry.unknown("pipeline", pipeline, tuple(table.pipelines)))
    if table.coverage != "complete" or not isinstance(table.space, IndexedSpace):
        raise ValueError(f"table: {table.name!r} is a sample; a policy needs the whole space")
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError("seeds: one or more, each once")
    if shuffle not in ("architectures", "genes"):
        raise ValueError(registry.unknown("shuffle", shuffle, ("architectures", "genes")))
    if shuffle == "genes" and not hasattr(table.space, "values"):
        raise ValueError(f"shuffle: the genes of {table.space.name} are no fixed choices; allowed: architectures")


def _replicate(job: _Job, seed: int, parts: Path, steps: _Steps) -> tuple[dict[str, np.ndarray], dict[str, Json]]:
    """The three supernets of a seed; each is kept as soon as it is scored."""
    arms: dict[str, dict[str, np.ndarray]] = {}
    costs: dict[str, Json] = {}
    for arm in ("optimised", "shuffled", "uniform"):
        path = parts / f"{seed}-{arm}.npz"
        if not path.exists():
            before = arms.get("optimised")
            arrays, cost = _optimised(job, seed, steps) if before is None else _other(job, seed, arm, before, steps)
            _save(path, {**arrays, "cost": np.frombuffer(json.dumps(cost).encode(), np.uint8)})
        with np.load(path, allow_pickle=False) as file:
            arms[arm] = {name: file[name] for name in file.files}
        costs[arm] = json.loads(arms[arm].pop("cost").tobytes())
        steps.next()
    first = arms["optimised"]
    joined = {k: v for k, v in first.items() if k not in ("paths", "e", "exposure", "sharing")}
    joined |= {k: np.stack([arms[arm][k] for arm in ARMS]) for k in ("e", "exposure", "sharing")}
    return joined, {"seed": seed, "steps": len(first["paths"]), "costs": costs}


def _optimised(job: _Job, seed: int, steps: _Steps) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The supernet whose policy learns from it, and the architectures that all three are scored on."""
    space, policy, trainee = job.space, Policy(job.space), job.make(job.epochs)
    judges, asking = _judges(job, seed), generator(seed, "one-shot-audit-policy")
    paths: list[Architecture] = []
    entropy: list[float] = []
    spent = 0.0

    def source(rng: np.random.Generator) -> Architecture:
        nonlocal spent
        if len(paths) % EVERY == 0:
            entropy.append(policy.entropy(generator(seed, "one-shot-audit-entropy", len(entropy))))
            if paths:
                judge = judges[len(paths) // EVERY % len(judges)]
                judge.supernet = trainee.supernet
                asked = [policy.sample(asking) for _ in range(EVERY)]
                answers = judge.estimate([Proposal(a) for a in asked])
                policy.learn(asked, qualities(answers, job.setting.task).tolist())
                spent += sum(c.amount for o in answers for c in o.costs)
        paths.append(policy.sample(rng))
        steps.more()
        return paths[-1]

    trained = _train(job, trainee, source, seed)
    if not paths:
        raise ValueError("estimator: it draws no architectures by space.sample; allowed: such as one_shot_enas")
    final = generator(seed, "one-shot-audit-final")
    favourites = Counter(space.index(policy.sample(final)) for _ in range(job.drawn))
    rng = generator(0, "one-shot-audit-sample", space.name)
    uniform = set(rng.choice(space.size, job.evaluated, replace=False).tolist())
    members = sorted(uniform | set(favourites))
    e, answered = _scores(job, trainee, [space.at(i) for i in members], steps)
    counts = [np.array([from_[i] for i in members]) for from_ in (Counter(uniform), favourites)]
    arrays = {
        "members": np.array(members), "uniform": counts[0], "policy": counts[1], "e": e,
        "probability": np.exp([policy.log_probability(space.at(i)) for i in members]),
        "early": _exposures(space, paths[: max(1, len(paths) // 10)], members)["sharing"],
        "entropy": np.array([*entropy, policy.entropy(generator(seed, "one-shot-audit-entropy", len(entropy)))]),
        "paths": np.array([space.index(a) for a in paths]), **_exposures(space, paths, members),
    }  # fmt: skip
    return arrays, {"supernet": trained, "policy": spent, "evaluate": answered}


def _other(
    job: _Job, seed: int, arm: str, first: Mapping[str, np.ndarray], steps: _Steps
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """A supernet without a policy of its own, scored where the first one was."""
    space, trainee, members = job.space, job.make(job.epochs), first["members"].tolist()
    permuted = _permuted(space, job.shuffle, generator(seed, "one-shot-audit-shuffle"))
    replay = iter([permuted(space.at(i)) for i in first["paths"].tolist()])
    paths: list[Architecture] = []

    def source(rng: np.random.Generator) -> Architecture:
        paths.append(next(replay) if arm == "shuffled" else space.sample(rng))
        steps.more()
        return paths[-1]

    trained = _train(job, trainee, source, seed)
    e, answered = _scores(job, trainee, [space.at(i) for i in members], steps)
    return {"e": e, **_exposures(space, paths, members)}, {"supernet": trained, "evaluate": answered}


def _train(job: _Job, trainee: Any, source: Callable[[np.random.Generator], Architecture], seed: int) -> float:
    """Train a supernet on what `source` gives; the FLOPs of it."""
    watched = copy(job.space)
    vars(watched)["sample"] = source  # the one place where one-shot estimators ask what to train
    costs = trainee.prepare(watched, job.setting, seed=integer(seed, "one-shot-audit"))
    return float(sum(c.amount for c in costs))


def _judges(job: _Job, seed: int) -> list[Any]:
    """Untrained estimators, each with a part of the validation data, that are lent the weights in training."""
    view = job.setting.data
    assert view is not None
    order = generator(seed, "one-shot-audit-valid").permutation(len(view.valid))
    found = []
    for part in np.array_split(order, max(1, min(PARTS, len(order) // job.setting.pipeline.batch_size))):
        seen = DataView(view.task, view.train, Split(view.valid.x[part], view.valid.y[part]))
        judge = job.make(0)
        judge.prepare(job.space, replace(job.setting, data=seen), seed=0)
        found.append(judge)
    return found


def _scores(job: _Job, estimator: Any, asked: Sequence[Architecture], steps: _Steps) -> tuple[np.ndarray, float]:
    """(M,) scores on the scale of the qualities, NaN for what has none, and the FLOPs of all."""
    answers: list[Any] = []
    for i in range(0, len(asked), AT_ONCE):
        answers += estimator.estimate([Proposal(a) for a in asked[i : i + AT_ONCE]])
        steps.more(min(AT_ONCE, len(asked) - i))
    return qualities(answers, job.setting.task), float(sum(c.amount for o in answers for c in o.costs))


def _permuted(space: Any, shuffle: str, rng: np.random.Generator) -> Callable[[Architecture], Architecture]:
    if shuffle == "architectures":
        order = rng.permutation(space.size)
        return lambda a: space.at(int(order[space.index(a)]))
    renamed = [dict(zip(allowed, rng.permutation(allowed).tolist(), strict=True)) for allowed in space.values]
    return lambda a: Architecture(a.space, tuple(names[g] for names, g in zip(renamed, a.genes, strict=True)))


def _exposures(space: Any, paths: Sequence[Architecture], members: Sequence[int]) -> dict[str, np.ndarray]:
    """(M,) steps that trained each member, and steps that trained a gene of it at its place, mean over its genes."""
    whole, shared = Counter(paths), Counter((i, g) for a in paths for i, g in enumerate(a.genes))
    found = [space.at(i) for i in members]
    return {
        "exposure": np.array([whole[a] for a in found], np.float64),
        "sharing": np.array([np.mean([shared[key] for key in enumerate(a.genes)]) for a in found]),
    }


class _Steps:
    """Tells `progress` how many supernets are done; of the present one, architectures trained and scored count."""

    def __init__(self, progress: Progress | None, supernets: int, expected: float) -> None:
        self._progress, self._supernets, self._expected = progress, supernets, expected
        self._done = self._seen = 0
        self._tell(0.0)

    def more(self, n: int = 1) -> None:
        self._seen += n
        self._tell(min(self._seen / self._expected, 1.0))

    def next(self) -> None:
        self._done, self._seen = self._done + 1, 0
        self._tell(0.0)

    def _tell(self, more: float) -> None:
        if self._progress:
            self._progress(min(self._done + more, self._supernets), self._supernets)


def _write(
    folder: Path, described: Mapping[str, Json], made: Sequence[tuple[dict[str, np.ndarray], dict[str, Json]]]
) -> None:
    facts: Any = [f for _, f in made]
    _save(folder / "one_shot.npz", {f"{f['seed']}.{k}": v for (a, _), f in zip(made, facts, strict=True)
                                    for k, v in a.items()})  # fmt: skip
    cost = sum(c for f in facts for arm in f["costs"].values() for c in arm.values())
    text = json.dumps({**described, "arms": list(ARMS), "replicates": facts, "cost": cost}, indent=1, sort_keys=True)
    Files(Fs()).replace(folder / "one_shot.json", text.encode(), durable=False)


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    Files(Fs()).replace(path, content.getvalue(), durable=False)


def _claim(path: Path, text: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ValueError(f"out: {path.parent.parent} holds the beginning of another audit; name another folder")
    path.write_text(text, encoding="utf-8")
