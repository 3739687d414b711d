"""What performance predictors share: the architectures that they learn from, what these cost, and how models see them.

Nothing here needs torch; the models that do are in `predictor_networks`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite, nan
from typing import NamedTuple, Self, TypeVar, cast

import numpy as np

from ...protocols import Architecture, Cost, MissingEntry, Observation, Proposal, SearchSpace, Setting, Traits
from ...protocols.streams import generator
from ..graph import Graph, Node
from ..lowered import source_of
from ..meter import Meter

Taken = TypeVar("Taken")

FRUITLESS = 10_000
"""Draws in a row that may give no new architecture before there is taken to be none."""


class Prediction(NamedTuple):
    """Of one architecture: mean, deviation where the model has one, and the FLOPs of predicting."""

    mean: float
    sd: float | None
    flops: float = 0.0


class Predictor(ABC):
    """An estimator that trains some architectures in full and predicts all others with a model of their scores.

    White et al. (2021, "How powerful are performance predictors", NeurIPS) call these model-based predictors. The
    `n_train` architectures are drawn uniformly, no two of one class of the space's default level, and charged as full
    trainings or look-ups are; a diverged one is charged and left out of the fit. A model sees representatives only, so
    that equal architectures get equal predictions, and in the order of their genes, so that the order of training
    changes nothing. A prediction is of the full training, whatever fidelity a proposal asks for.

    A subclass says in `_learn` and `_predict` what the model does, and in `_check_space` what it needs.

    Args:
        n_train: Architectures to train, at least 2.
        largest: Learn from architectures of at most so many `blocks` (predictions for larger ones extrapolate); None
            for no limit.

    Attributes:
        trained_on: The architectures that `prepare` paid for. An audit leaves their whole classes out.

    Raises:
        ValueError: A parameter is out of its range.
    """

    traits = Traits(accuracy_scale=True, deterministic=False)
    trained_on: tuple[Architecture, ...] = ()

    def __init__(self, n_train: int, largest: int | None) -> None:
        check_count("n_train", n_train, least=2)
        if largest is not None:
            check_count("largest", largest)
        self._n_train, self._largest = n_train, largest

    def fits(self, setting: Setting) -> None:
        """ValueError where neither table nor trainer can serve, or where the model cannot see the table's space."""
        source_of(setting).fits(setting)
        if setting.table is not None:
            self._check(setting.table.space)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Draw, train and fit: the costs of all trainings (kind "train"), then that of the fit (kind "fit").

        Raises:
            ValueError: The space does not fit, has too few architectures, or all but one of them diverged.
        """
        self.fits(setting)
        self._check(space)
        trained = source_of(setting)
        costs = [*trained.prepare(space, setting, seed=seed)]
        if setting.table is None:
            answers = trained.estimate(self._draw(space, seed, Proposal))
        else:
            answers = self._draw(space, seed, lambda a: trained.estimate([Proposal(a)])[0])
        costs += [cost for o in answers for cost in o.costs]
        self.trained_on = tuple(o.proposal.architecture for o in answers)
        known = [o for o in answers if o.status == "ok"]
        if len(known) < 2:
            raise ValueError(f"n_train: of {self._n_train} trainings {len(known)} did not diverge; a model needs 2")
        self._setting = setting
        with Meter(setting, "fit") as work:
            scores = [o.score for o in known]
            work.add(flops=self.fit(space, [o.proposal.architecture for o in known], scores, seed=seed))
        return (*costs, work.cost)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One prediction for each proposal, its deviation as the objective `sd` where the model has one."""
        return [self._answer(p) for p in proposals]

    def fit(
        self, space: SearchSpace, architectures: Sequence[Architecture], scores: Sequence[float], *, seed: int
    ) -> float:
        """Fit the model to the scores of some architectures, at least 2, and return the FLOPs that it took."""
        self._space = space
        rows = sorted(zip((space.canonical(a).genes for a in architectures), map(float, scores), strict=True))
        representatives = [Architecture(space.family, genes) for genes, _ in rows]
        return self._learn(representatives, np.array([y for _, y in rows]), seed)

    def predict(self, a: Architecture) -> Prediction:
        """The score of one architecture; it depends on no other prediction. ValueError unless `a` is a member."""
        self._space.check(a)
        return self._predict(self._space.canonical(a))

    def _answer(self, p: Proposal) -> Observation:
        reason = "the prediction is not finite"
        found = Prediction(nan, None)
        with Meter(self._setting, "proxy") as work:
            try:
                found = self.predict(p.architecture)
            except ValueError as error:
                reason = str(error)
            work.add(flops=found.flops, evaluations=1)
        if not isfinite(found.mean):
            return Observation(p, nan, (work.cost,), status="crashed", reason=reason)
        return Observation(p, found.mean, (work.cost,), objectives={} if found.sd is None else {"sd": found.sd})

    def _draw(self, space: SearchSpace, seed: int, take: Callable[[Architecture], Taken]) -> list[Taken]:
        """`n_train` architectures of distinct classes. What a table lacks is drawn again: uniform over what it has."""
        rng, seen, fruitless, missing = generator(seed, "training-architectures"), set[Architecture](), 0, ""
        taken: list[Taken] = []
        while len(taken) < self._n_train and fruitless < FRUITLESS:
            a = space.sample(rng)
            fruitless += 1
            if (key := space.canonical(a)) in seen or (self._largest and blocks(space, a) > self._largest):
                continue
            try:
                taken.append(take(a))
            except MissingEntry as error:
                missing = f" ({error})"
                continue
            seen.add(key)
            fruitless = 0
        if len(taken) < self._n_train:
            limit = f" of at most {self._largest} blocks" if self._largest else ""
            raise ValueError(
                f"n_train: {self._n_train} is not allowed; drawing from {space.name} finds {len(taken)} "
                f"architectures{limit}, no two alike{missing}"
            )
        return taken

    def _check(self, space: SearchSpace) -> None:
        if self._largest is not None:
            _check_blocks(space)
        self._check_space(space)

    def _check_space(self, space: SearchSpace) -> None:  # noqa: B027  most models see every space
        """ValueError, in one line, where the model cannot see the architectures of a space."""

    @abstractmethod
    def _learn(self, architectures: Sequence[Architecture], scores: np.ndarray, seed: int) -> float:
        """Fit to representatives of `self._space` and their scores (n,), and return the FLOPs."""

    @abstractmethod
    def _predict(self, a: Architecture) -> Prediction:
        """The score of one representative."""


class VectorPredictor(Predictor):
    """A predictor whose model sees vectors: an encoding of the space.

    Args:
        n_train: See `Predictor`.
        largest: See `Predictor`.
        encoding: One of the space's `encodings`: `one_hot`, `path` where it has that, or another.
    """

    def __init__(self, n_train: int, largest: int | None, encoding: str) -> None:
        super().__init__(n_train, largest)
        self._encoding = encoding

    def _check_space(self, space: SearchSpace) -> None:
        if self._encoding not in space.encodings:
            allowed = ", ".join(space.encodings)
            raise ValueError(f"encoding: {self._encoding!r} is not an encoding of {space.name}; allowed: {allowed}")

    def _vectors(self, architectures: Iterable[Architecture]) -> np.ndarray:
        """float64 (n, d)."""
        return np.stack([self._space.encode(a, self._encoding) for a in architectures])


class Affine(NamedTuple):
    """The scale on which a model learns its targets z: y = centre + scale z. Equal targets have the scale 0."""

    centre: float
    scale: float

    @classmethod
    def standard(cls, y: np.ndarray) -> Self:
        """The scale of targets of mean 0 and deviation 1."""
        return cls(float(y.mean()), float(y.std())) if np.ptp(y) else cls(float(y[0]), 0.0)

    @classmethod
    def between(cls, y: np.ndarray, low: float, high: float) -> Self:
        """The scale of targets from `low` to `high`."""
        scale = float(np.ptp(y)) / (high - low)
        return cls(float(y.min()) - scale * low, scale)

    def z(self, y: np.ndarray) -> np.ndarray:
        """Targets on the model's scale; 0 where they are all equal."""
        return (y - self.centre) / self.scale if self.scale else np.zeros_like(y)

    def y(self, prediction: Prediction) -> Prediction:
        """A prediction on the scale of the scores."""
        mean, sd, flops = prediction
        return Prediction(self.centre + self.scale * mean, None if sd is None else self.scale * sd, flops)


class Vocabulary:
    """Numbers of symbols, from 1 on, in sorted order; 0 is every symbol that was not learned from."""

    def __init__(self, sequences: Iterable[Iterable[int]] | Iterable[Iterable[str]]) -> None:
        found: set[int | str] = {symbol for sequence in sequences for symbol in sequence}
        self._numbers: Mapping[int | str, int] = {s: i for i, s in enumerate(sorted(found), 1)}

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers(self, symbols: Iterable[int | str]) -> list[int]:
        """The number of each symbol."""
        return [self._numbers.get(symbol, 0) for symbol in symbols]


def blocks(space: SearchSpace, a: Architecture) -> int:
    """Size of an architecture: the operations on the nodes and edges of its graphs, in which "none" is left out.

    In `nb201` these are the edges that are not none, the levels of progressive search there; in `mlp` the hidden layers
    and dropouts. ValueError where the graphs of the space show no operations.
    """
    _check_blocks(space)
    return sum(graph.operations.total() for graph in _graphs(space, a).values())


def _check_blocks(space: SearchSpace) -> None:
    if not hasattr(space, "graphs") or not getattr(space, "operations", ()):
        raise ValueError(f"largest: {space.name} shows no operations to count as blocks; allowed: None")


def check_graphs(space: SearchSpace) -> None:
    """ValueError where a space has no graphs."""
    if not hasattr(space, "graphs"):
        raise ValueError(f"space: {space.name} has no graphs for a graph network; allowed: spaces with graphs")


def union(space: SearchSpace, a: Architecture) -> tuple[list[str], list[tuple[int, int]]]:
    """All graphs of an architecture as one, with operations on nodes only, and with a global node.

    An operation on an edge becomes a node, and a node that only adds up becomes edges from whatever enters it to
    whatever leaves it: otherwise a path would be twice as long as its operations. The global node, number 0, is a
    target of every other one (Shi et al. 2020, BONAS, section 3.2).

    Returns:
        Labels of the nodes, and edges (source, target). A label is the graph's name, what the node is called, and its
        operation; where a node is called by its number, that is left out, since it would depend on the numbering.
    """
    labels, edges = ["global"], list[tuple[int, int]]()
    for name, graph in sorted(_graphs(space, a).items()):
        ends: list[list[int]] = []  # per node of the graph, the nodes here whose values it holds
        for node, incoming in zip(graph.nodes, graph.incoming, strict=True):
            here: list[int] = []
            for source, operation in incoming:
                if operation:
                    edges += [(end, len(labels)) for end in ends[source]]
                    here.append(len(labels))
                    labels.append(f"{name}: {operation}")
                else:
                    here += ends[source]
            if called := " ".join(filter(None, (_called(space, node), node.operation))):
                edges += [(end, len(labels)) for end in here]
                here = [len(labels)]
                labels.append(f"{name}: {called}")
            ends.append(here)
    return labels, [*edges, *((node, 0) for node in range(1, len(labels)))]


def normalised(edges: Iterable[tuple[int, int]], nodes: int) -> np.ndarray:
    """D^-1 (A + I), float32 (nodes, nodes): every node takes the mean over itself and the sources of its edges.

    The normalisation of Kipf & Welling (2017, eq. 2) for a directed graph, whose degrees D are those of the targets.
    """
    adjacency = np.eye(nodes, dtype=np.float32)
    for source, target in edges:
        adjacency[target, source] = 1.0
    return cast(np.ndarray, adjacency / adjacency.sum(1, keepdims=True))


def _graphs(space: SearchSpace, a: Architecture) -> Mapping[str, Graph]:
    return cast(Mapping[str, Graph], space.graphs(a))  # type: ignore[attr-defined]


def _called(space: SearchSpace, node: Node) -> str:
    # The layers of a perceptron are called by their widths; elsewhere a bare number is that of the node.
    return "" if node.name.isdigit() and space.family != "mlp" else node.name


def check_count(field: str, value: object, least: int = 1) -> None:
    """ValueError unless a parameter is an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{field}: {value!r} is not allowed; use an integer >= {least}")


def check_positive(field: str, value: object) -> None:
    """ValueError unless a parameter is a finite number above 0."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise ValueError(f"{field}: {value!r} is not allowed; use a number > 0")
