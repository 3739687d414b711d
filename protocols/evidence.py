"""What an audit looks at: arrays and strings, made by the harness, which opens tables, for reports, which may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .estimator import Traits


@dataclass(frozen=True, slots=True)
class Truth:
    """What the architectures of a table are worth under one pipeline, test values included.

    Rows are architectures; N of them, S training seeds. Test values are opened by the seal, for an audit alone, and
    no method is running then.

    Attributes:
        table: Name.
        digest: Of the table.
        space: Full name.
        pipeline: Name.
        metric: Of the task: accuracy, perplexity, mse.
        higher_is_better: Its direction.
        clock: Unit of `cost`.
        complete: Whether the rows are the whole space; else they are a sample of `size` members.
        size: Members of the space.
        architectures: (N,) in the space's notation.
        values: (N, S) test metric after the last epoch, accuracies as fractions; NaN where there is no training.
        seeds: (S,) numbers of the training seeds.
        cost: (N,) of a full training.
        features: Feature name to (N,): `params`, `flops`, `depth`, counts of operations `n_<operation>`, whatever the
            space counts. May hold constants.
    """

    table: str
    digest: str
    space: str
    pipeline: str
    metric: str
    higher_is_better: bool
    clock: str
    complete: bool
    size: int
    architectures: tuple[str, ...]
    values: np.ndarray
    seeds: tuple[int, ...]
    cost: np.ndarray
    features: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one estimator for the architectures of a `Truth`, row by row; K estimator seeds.

    Attributes:
        name: A label that is unique in an audit, `fewer_epochs[epochs=1]`.
        source: Where they come from: the digest of an estimate table, the sha256 of a file, or "features of the table".
        traits: What the scores are; higher is better always, `traits.sign` says what was turned round for that.
        values: (N, K), NaN where there is none.
        asked: (N,) whether the estimator was asked for the architecture at all: what was not asked is left out of the
            audit, what was asked and has no score is ranked last, as a search would.
        fitted: (N, K) whether the architecture served to fit the estimator: it is left out of that column.
        reasons: Why there is no score, to the number of times.
        costs: (N, K) of an answer in `unit`; None where nobody said.
        preparation: (K,) what was spent before the first answer.
        unit: Of the costs; "" where nobody said.
        full: Cost of a median full training in `unit`; NaN where it cannot be said.
        axis: The fidelity that the estimate is a training at, (`epochs`, 2.0) or (`data`, 0.5); None for others.
        baseline: Whether it stands in every audit, as parameter counts and FLOPs do.
        seeds: (K,) numbers of the estimator seeds, which are the training seeds that a recorded training was looked up
            by; empty where that has no meaning.
    """

    name: str
    source: str
    traits: Traits
    values: np.ndarray
    asked: np.ndarray
    fitted: np.ndarray
    reasons: Mapping[str, int]
    costs: np.ndarray | None
    preparation: np.ndarray
    unit: str
    full: float
    axis: tuple[str, float] | None = None
    baseline: bool = False
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trails:
    """What the searches of one strategy with one estimator visited, a line for each of S searches.

    Attributes:
        rows: (S, D) int64, repeated visits included; -1 after the end of a search.
        columns: (S,) int64, which of the estimator's seeds a search had.
        costs: (S, D) of each answer, in median full trainings, 0 after the end; NaN where nobody said.
        preparation: (S,) what was spent before the first answer, likewise.
    """

    rows: np.ndarray
    columns: np.ndarray
    costs: np.ndarray
    preparation: np.ndarray


@dataclass(frozen=True, slots=True)
class Searches:
    """All searches of an audit of one table.

    Attributes:
        decisions: Evaluations of a search; the oracle's may go on beyond, for comparisons at equal cost.
        seeds: Of the searches. Line i of all trails has the i-th, so that lines can be compared pair by pair.
        truth: (N,) what the oracle says: mean test value over training seeds, higher is better; -inf where a training
            diverged.
        training: (N,) cost of a full training, in median full trainings.
        scores: Estimator to (N, K).
        oracle: Strategy to its searches with the truth.
        trails: (strategy, estimator) to its searches.
    """

    decisions: int
    seeds: tuple[int, ...]
    truth: np.ndarray
    training: np.ndarray
    scores: Mapping[str, np.ndarray]
    oracle: Mapping[str, Trails]
    trails: Mapping[tuple[str, str], Trails]
