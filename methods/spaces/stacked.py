"""The meta-architecture as genes beside the genes of a cell: macro and micro searched jointly.

Elsken, Metzen & Hutter (2019, JMLR 20(55), section 2) describe the meta-architecture, how many cells there are and
how they are linked, as a choice of its own that cell-based search leaves to people. The links are those that they
name: a chain, the two cells before (NASNet, Zoph et al. 2018), and dense ones (Cai et al. 2018, path-level network
transformation, after DenseNet).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...protocols import Architecture, CellSpace, SearchSpace, Task
from .. import registry
from ..base import Space, required_image
from ..categorical import Categorical, check_keys, check_range, full_name, whole_number
from ..graph import Graph, Node
from ..wrapper import Wrapper

if TYPE_CHECKING:
    from torch import nn


__all__ = ["Stacked"]

LINKS = ("chain", "two_previous", "dense")
CHAIN, TWO_PREVIOUS, DENSE = range(3)
_DEFAULTS = {"cells": "1,2", "channels": "8,16", "links": ",".join(LINKS), "stages": "3"}


@dataclass(frozen=True, slots=True)
class Step:
    """One cell of a network.

    Attributes:
        channels: Of the cell.
        halvings: Of the images, before they enter it.
        reduction: Whether it is the reduction cell, which halves the size once more.
        sources: The outputs that it reads, the oldest first: 0 is the stem's, i that of the i-th cell.
    """

    channels: int
    halvings: int
    reduction: bool
    sources: tuple[int, ...]


class Stacked(Wrapper):
    """A space of cells, and how networks are made of them.

    >>> space = Stacked(registry.space("nb201[ops=none,skip_connect]"), channels=(8,))
    >>> space.name, space.size
    ('stacked(nb201[ops=none,skip_connect])[channels=8]', 384)
    >>> a = space.parse("cells=2 channels=8 links=dense | |none~0|+|skip_connect~0|none~1|+|none~0|none~1|none~2|")
    >>> a.genes
    (2, 8, 2, 0, 1, 0, 0, 0, 0)

    The first genes are the cells per stage and the channels of the first stage, both as numbers, and the links as
    their place in chain, two_previous, dense; those of the cell follow. Samples are uniform over all combinations, so
    size = |cells| * |channels| * |links| * inner size. Sizes that the inner space has in its options play no part.

    There are `stages` stages; between them channels double and the size halves: in the reduction cell that opens the
    stage if the inner space has one, otherwise in the fitting of outputs to the cell that reads them. Links decide
    what a cell reads, where the stem's output counts as a cell's:

    - `chain`: the output before, fitted (ReLU, 1x1 convolution, batch normalisation; halved where need be).
    - `two_previous`: the output before and the one before that, each fitted; cells of one input read the sum. The
      first cell reads the stem twice. With two inputs this is the network of NASNet and DARTS.
    - `dense`: all outputs of the stage so far, and what entered the stage (fitted if it is larger), concatenated and
      brought to the cell's channels by ReLU, 1x1 convolution, batch normalisation. If that is one output only, it is
      fitted as in a chain.

    Cells of two inputs read the one tensor of `chain` and `dense` twice.

    Levels are those of the inner space. At all but `raw`, moreover, stages of one cell are linked as a chain instead
    of densely where the space has both, which is the same network.

    Args:
        inner: Any space of cells (`protocols.CellSpace`).
        cells: Numbers of cells per stage.
        channels: Numbers of channels of the first stage.
        links: Some of chain, two_previous, dense.
        stages: Number of stages.
    """

    def __init__(
        self,
        inner: SearchSpace,
        cells: Sequence[int] = (1, 2),
        channels: Sequence[int] = (8, 16),
        links: Sequence[str] = LINKS,
        stages: int = 3,
    ) -> None:
        if not isinstance(inner, CellSpace):
            raise ValueError(f"stacked: of is {inner.name!r}; allowed: spaces with cell_inputs, has_reduction and cell")
        for key, numbers in (("cells", cells), ("channels", channels)):
            if not numbers or min(numbers) < 1 or len(set(numbers)) != len(numbers):
                raise ValueError(f"stacked: {key} is {_listed(numbers)!r}; allowed: integers >= 1, each once")
        if not links or not set(links) <= set(LINKS) or len(set(links)) != len(links):
            raise ValueError(
                f"stacked: links is {_listed(links)!r}; allowed: one or more, each once, of {_listed(LINKS)}"
            )
        check_range("stacked", "stages", stages)
        self.stages = stages
        self.cell_space: CellSpace = inner
        given = {
            "cells": _listed(sorted(cells)),
            "channels": _listed(sorted(channels)),
            "links": _listed([name for name in LINKS if name in links]),
            "stages": str(stages),
        }
        base = f"stacked({inner.name})"
        own = Categorical(
            registry.family(base),
            full_name(base, {key: text for key, text in given.items() if text != _DEFAULTS[key]}),
            [cells, channels, [LINKS.index(name) for name in links]],
            genes=["cells", "channels", "links"],
            labels=[{}, {}, dict(enumerate(LINKS))],
            ordinal=(0, 1),
        )
        super().__init__(own, inner)
        self.operations = (*self.operations, "cell", *(("reduction_cell",) if inner.has_reduction else ()))

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> Stacked:
        """Build from `of` (the inner space, default `nb201`), `cells`, `channels`, `links` (lists) and `stages`."""
        check_keys("stacked", options, ("of", *_DEFAULTS))
        (inner,) = options.get("of", ("nb201",))
        numbers = {
            key: tuple(whole_number("stacked", key, (text,)) for text in options[key])
            for key in ("cells", "channels")
            if key in options
        }
        return cls(
            registry.space(inner),
            **numbers,
            links=options.get("links", LINKS),
            stages=whole_number("stacked", "stages", options.get("stages", ("3",))),
        )

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The inner architecture's representative at that level, and one-cell stages in a chain; idempotent."""
        found = super().canonical(a, level)
        cells, channels, links, *rest = found.genes
        if (level or self.levels[0]) != "raw" and (cells, links) == (1, DENSE) and CHAIN in self.own.values[2]:
            return Architecture(self.family, (cells, channels, CHAIN, *rest))
        return found

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """`network`, whose nodes are cells, then the graphs of the cells."""
        steps = self._steps(a)
        cells = [Node(str(i), "reduction_cell" if s.reduction else "cell") for i, s in enumerate(steps, start=1)]
        edges = [(source, i, "") for i, step in enumerate(steps, start=1) for source in step.sources]
        nodes = (Node("stem"), *cells, Node("output"))
        network = Graph(nodes, (*edges, (len(steps), len(steps) + 1, "")))
        inner = self.inner.graphs(self.split(a)[1]) if isinstance(self.inner, Space) else {}
        return {"network": network, **inner}

    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        """Counted on the built network; `depth` is the number of cells times the depth of the deepest inner graph."""
        found = super().features(a, task)
        inside = [graph.depth for name, graph in self.graphs(a).items() if name != "network"]
        return {**found, "depth": float(len(self._steps(a)) * max(inside, default=1))}

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network, on the meta device; input (n, channels, height, width), output (n, classes, or 1).

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images.
        """
        self.check(a)
        image = required_image(task, self.name)
        import torch

        from ..networks.stacked import StackedNetwork

        own, inner = self.split(a)

        def make(channels: int, reduction: bool) -> nn.Module:
            return self.cell_space.cell(inner, channels, reduction=reduction)

        with torch.device("meta"):
            return StackedNetwork(
                make,
                self.cell_space.cell_inputs,
                self._steps(a),
                apart=own.genes[2] == TWO_PREVIOUS,
                inputs=image[0],
                stem=own.genes[1],
                outputs=task.classes or 1,
            )

    def _steps(self, a: Architecture) -> list[Step]:
        """The cells of the network, in order."""
        cells, channels, links = a.genes[:3]
        steps: list[Step] = []
        for stage in range(self.stages):
            entry = len(steps)
            for last in range(entry, entry + cells):
                first = {CHAIN: last, TWO_PREVIOUS: last - 1, DENSE: entry}[links]
                reduction = self.cell_space.has_reduction and stage > 0 and last == entry
                sources = tuple(max(0, source) for source in range(first, last + 1))
                steps.append(Step(channels * 2**stage, stage - reduction, reduction, sources))
        return steps


def _listed(values: Sequence[object]) -> str:
    return ",".join(map(str, values))
