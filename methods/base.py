"""What all search spaces share, whatever the form of their genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..protocols import Architecture, Drawing, Json, Task
from .drawing import draw
from .graph import Graph, path_code

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace
    from torch import nn


class Space:
    """Identity, pictures, encodings and features of a space, made from the graphs of its members.

    A space derives from this class (or from `Categorical`, if its genes are a fixed number of choices), says
    what `graphs` its members have, and gets `draw`, the path encoding, and features that are counted on the
    built network. Where a formula is known, it overrides `features`.

    Attributes:
        family: Name without restriction.
        name: Full name; spaces of one class and name are equal.
        levels: See `protocols.SearchSpace`.
        encodings: See `protocols.SearchSpace`.
        operations: All operations that the graphs may show.
        path_lengths: Shortest and longest path with a bit in the path encoding; None for all that fit in some
            4,096 bits.
    """

    family: str
    name: str
    levels: tuple[str, ...] = ("raw",)
    encodings: tuple[str, ...] = ("one_hot", "path")
    operations: tuple[str, ...] = ()
    path_lengths: tuple[int, int] | None = None

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Space) and other.name == self.name

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    def __repr__(self) -> str:
        return self.name

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """Computational graphs of `a` by name, for example of a normal and a reduction cell.

        Names, and the number of inputs of each graph, are the same for all members. Parts that do nothing (the
        operation "none") are left out.
        """
        raise NotImplementedError

    def check(self, a: Architecture) -> None:
        """Raise ValueError, naming the offending gene, unless `a` is a member."""
        raise NotImplementedError

    def one_hot(self, a: Architecture) -> np.ndarray:
        """The default encoding, float64 (d,)."""
        raise NotImplementedError

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device."""
        raise NotImplementedError

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """`a` itself: without a rule of its own, a space merges nothing."""
        self.check_level(level)
        return a

    def check_level(self, level: str | None) -> None:
        """Raise ValueError unless `level` is None or one of `levels`."""
        if level is not None and level not in self.levels:
            raise ValueError(f"{self.name}: level {level!r} is unknown; allowed: {', '.join(self.levels)}")

    def encode(self, a: Architecture, encoding: str | None = None) -> np.ndarray:
        """One of `encodings`, by default the first, float64 (d,); ValueError unless `a` is a member.

        `one_hot` has a bit for each value of each gene, which on cells are the operations and the adjacency;
        `path` has one for each sequence of operations that leads from input to output (`graph.path_code`).
        """
        self.check(a)
        if encoding in (None, "one_hot"):
            return self.one_hot(a)
        if encoding != "path" or "path" not in self.encodings:
            raise ValueError(f"{self.name}: encoding {encoding!r} is unknown; allowed: {', '.join(self.encodings)}")
        shortest, longest = self.path_lengths or (0, None)
        return path_code(self.graphs(a), self.operations, shortest=shortest, longest=longest)

    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        """Size and cost, counted on the built network, and the depth and operations of its graphs.

        `macs` counts multiply-adds of convolutions and matrix products; `depth` is the largest number of
        operations other than identities on a path from input to output of a graph.

        Raises:
            ValueError: `a` is no member, or has no network for the task.
        """
        from .networks.counting import measured

        network = self.build(a, task)
        graphs = self.graphs(a).values()
        counts = {f"n_{name}": float(sum(g.count(name) for g in graphs)) for name in self.operations}
        return measured(network, task) | {"depth": float(max(g.depth for g in graphs))} | counts

    def training(self, a: Architecture) -> Mapping[str, Json]:
        """Empty: no gene is a training hyper-parameter."""
        return {}

    def draw(self, a: Architecture) -> Drawing:
        """The graphs of `a` as one picture; ValueError unless `a` is a member."""
        self.check(a)
        return draw(self.graphs(a), self.operations, title=str(a))


def import_configspace() -> Any:
    """The module ConfigSpace; ImportError says how to get it."""
    try:
        import ConfigSpace
    except ImportError as error:
        raise ImportError("to_configspace needs ConfigSpace: python -m pip install 'nasbed[configspace]'") from error
    return ConfigSpace


def configspace(name: str, hyperparameters: list[Any], conditions: list[Any] | None = None) -> ConfigurationSpace:
    """A configuration space of these hyper-parameters, and of the conditions under which some are active."""
    found: ConfigurationSpace = import_configspace().ConfigurationSpace(name=name, seed=0)
    found.add(hyperparameters)
    found.add(conditions or [])
    return found


def required_image(task: Task, space: str) -> tuple[int, int, int]:
    """(channels, height, width) of the task's inputs; ValueError where they are no images."""
    if task.kind == "text" or len(task.shape) != 3:
        raise ValueError(
            f"{space}: inputs of task {task.name!r} are {task.kind} of the shape {task.shape}; "
            "allowed: images (channels, height, width)"
        )
    return task.shape


def required_vector(task: Task, space: str) -> int:
    """Number of values of an input, flattened; ValueError where the task is about text."""
    if task.kind == "text":
        raise ValueError(f"{space}: inputs of task {task.name!r} are text; allowed: images or tables of numbers")
    return int(np.prod(task.shape))
