"""The contract of a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .architecture import Architecture
from .drawing import Drawing
from .task import Json, Task

if TYPE_CHECKING:
    import numpy as np
    import torch
    from ConfigSpace import ConfigurationSpace


@runtime_checkable
class SearchSpace(Protocol):
    """A set of architectures and the moves within it.

    A restriction such as `nb201[ops=none,skip_connect]` is itself a space: every method below stays inside.
    Randomness comes from the generator passed in, and from nothing else.
    """

    @property
    def name(self) -> str:
        """Full name, restriction included; `registry.space(name)` gives an equal space."""
        ...

    @property
    def family(self) -> str:
        """Name without restriction: the `space` of every architecture in it."""
        ...

    @property
    def size(self) -> int | None:
        """Exact number of members, or None where it is infinite."""
        ...

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the canonicalisation levels, the default first.

        It preserves function and parameters, up to the names of modules and the order of units and channels.
        """
        ...

    @property
    def encodings(self) -> tuple[str, ...]:
        """Names of the encodings, the default first: `one_hot` in every space of ours, and `path`."""
        ...

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> SearchSpace:
        """Build a restriction from the text between its brackets; ValueError names field and allowed values."""
        ...

    def check(self, a: Architecture) -> None:
        """Raise ValueError, naming the offending gene, unless `a` is a member."""
        ...

    def options(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
        """Values that the next gene may take after `prefix`; empty where the architecture is complete.

        This is the sequential view that controllers, tree search and samplers of trials share.
        """
        ...

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw uniformly over the members."""
        ...

    def mutate(self, a: Architecture, rng: np.random.Generator) -> Architecture:
        """Draw one of `neighbours(a)`; never `a` itself."""
        ...

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """A member every gene of which comes from a parent; of equal parents, the parent."""
        ...

    def neighbours(self, a: Architecture) -> Sequence[Architecture]:
        """All members one edit away, each once, in a fixed order; the relation is symmetric."""
        ...

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`; idempotent. At the default level a member of this space."""
        ...

    def encode(self, a: Architecture, encoding: str | None = None) -> np.ndarray:
        """Feature vector for models, float64 (d,) with one d for the whole space and encoding."""
        ...

    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        """`params`, `macs`, `flops` (= 2 macs, forward pass, one example), `depth` and `n_<operation>` counts."""
        ...

    def build(self, a: Architecture, task: Task) -> torch.nn.Module:
        """The network, uninitialised on the meta device: `training.materialise` gives it weights from a seed."""
        ...

    def training(self, a: Architecture) -> Mapping[str, Json]:
        """Training hyper-parameters that are genes of `a`; empty for most spaces."""
        ...

    def draw(self, a: Architecture) -> Drawing:
        """A picture of `a`; equal architectures, equal bytes."""
        ...

    def to_configspace(self) -> ConfigurationSpace:
        """The space for users of ConfigSpace; ImportError says how to install it."""
        ...

    def from_configspace(self, configuration: Mapping[str, object]) -> Architecture:
        """The member that a configuration of `to_configspace` stands for; ValueError names the parameter."""
        ...

    def text(self, a: Architecture) -> str:
        """The field's own notation, for people and for foreign tables."""
        ...

    def parse(self, text: str) -> Architecture:
        """Read `text(a)` back; ValueError names the malformed part."""
        ...


@runtime_checkable
class IndexedSpace(SearchSpace, Protocol):
    """A finite space with a numbering of its members, as complete tables need it."""

    def index(self, a: Architecture) -> int:
        """Position of `a`, 0 <= index < size."""
        ...

    def at(self, index: int) -> Architecture:
        """The member at a position; the inverse of `index`."""
        ...


@runtime_checkable
class CellSpace(SearchSpace, Protocol):
    """A space whose members are cells, or pairs of them, which networks of any size stack."""

    @property
    def cell_inputs(self) -> int:
        """How many earlier outputs a cell reads: 1 or 2."""
        ...

    @property
    def has_reduction(self) -> bool:
        """Whether members hold a cell of their own that halves height and width."""
        ...

    def cell(self, a: Architecture, channels: int, *, reduction: bool) -> torch.nn.Module:
        """One cell of `a`, uninitialised, on the meta device.

        Its forward takes `cell_inputs` tensors (n, channels, height, width) of one size, the oldest first, and
        returns (n, `out_channels`, height', width'), where `out_channels` is an attribute of the module and the
        size is halved, rounded up, if `reduction`, which needs `has_reduction`.
        """
        ...


@runtime_checkable
class ScalableSpace(SearchSpace, Protocol):
    """A space whose members can be built as smaller networks, for evaluations of lower fidelity."""

    def scaled(self, width: float, depth: float) -> SearchSpace:
        """The space of the same architectures, equal genes and family, whose networks are smaller.

        Args:
            width: Fraction of the channels or units, in (0, 1]; counts are rounded and at least 1.
            depth: Fraction of the repeated cells, in (0, 1]; counts are rounded and at least 1.

        Raises:
            ValueError: The space has no width or no depth of its own to scale: `fidelity.width: ...`, one line.
        """
        ...
