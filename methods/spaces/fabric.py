"""Convolutional neural fabrics: edges of a trellis of layers and scales (Saxena & Verbeek 2016, NeurIPS).

Every layer holds one node per scale, each scale half as large as the one before. A node is fed by those of the
layer before at its own scale, one finer and one coarser; in the first and in the last layer also by the next
finer node of its own layer. The image enters at the finest scale of the first layer, and the classifier reads
the coarsest of the last. The paper trains the whole trellis; here every subset of its edges is an architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ...protocols import Architecture, Task
from ..base import required_image
from ..categorical import Categorical, check_keys, full_name, whole_number
from ..graph import Graph, Node, longest_word

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Fabric"]

LAYERS, SCALES, CHANNELS = 6, 4, 16
LETTERS = {"s": "same", "d": "down", "u": "up", "v": "down"}
"""In texts: from the layer before at the same scale, down from the finer one, up from the coarser one; `v` is
down from the finer node of the same layer."""

Genes = tuple[int, ...]


class Fabric(Categorical):
    """Subsets of the edges of a trellis: the input at its upper left, the output at its lower right.

    >>> space = Fabric(layers=3, scales=2)
    >>> space.size == 2**10, space.text(space.full())
    (True, 'in,v|su,sd|su,sdv')
    >>> chain = space.path((0, 1, 1))               # a plain network: a step down, then one at the same scale
    >>> space.text(chain), space.text(space.path((0, 0, 0)))
    ('in,-|-,d|-,s', 'in,-|s,-|s,v')

    Genes are bits, one for each edge, by the edge's target: layer by layer, in a layer from the finest scale to
    the coarsest; at a node the edges from the same scale, from the finer one (down) and from the coarser one (up)
    of the layer before, then the one down inside the layer. Samples are uniform over the subsets.

    Levels of canonicalisation; the representative is the smallest equivalent member:

    - `live`: edges on no path from input to output are left out. The network does not hold them: exactly the
      same function and parameters. (Paths that go down inside the first or inside the last layer can be the same
      network in two places of the trellis; they are not merged.)
    - `raw`: every subset by itself.

    There are E = (layers - 1) (3 scales - 2) + 2 (scales - 1) edges and 2^E members, 2^56 by default. All nodes have
    the same number of channels. The classifier is global average pooling and a linear layer; a subset without a
    path from input to output, which by default are about half of them, leaves it nothing but zeros.

    Args:
        layers: At least 2.
        scales: At least 1.
        channels: Of all nodes.

    Attributes:
        layers: Of the trellis.
        scales: Of the trellis.
        channels: Of all nodes.
        edges: Per gene (source node, target node, letter); node `layer * scales + scale`.
    """

    levels = ("live", "raw")
    operations = ("same", "down", "up")

    def __init__(self, layers: int = LAYERS, scales: int = SCALES, channels: int = CHANNELS) -> None:
        for key, value, least in (("layers", layers, 2), ("scales", scales, 1), ("channels", channels, 1)):
            if value < least:
                raise ValueError(f"fabric: {key} is {value}; allowed: integers >= {least}")
        self.layers, self.scales, self.channels = layers, scales, channels
        self.edges = _trellis(layers, scales)
        self._node_names = [f"{node // scales}.{node % scales}" for node in range(layers * scales)]
        # The shortest paths go down between layers, the longest inside one.
        longest = min(longest_word(len(self.operations)), layers + scales - 2)
        self.path_lengths = (min(max(layers, scales) - 1, longest), longest)
        default = {"layers": LAYERS, "scales": SCALES, "channels": CHANNELS}
        shown = {key: str(getattr(self, key)) for key in default if getattr(self, key) != default[key]}
        genes = [f"{self._gene_part(source)}_{self._gene_part(target)}" for source, target, _ in self.edges]
        super().__init__("fabric", full_name("fabric", shown), [(0, 1)] * len(self.edges), genes=genes)

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> Fabric:
        """Build from `layers`, `scales` and `channels` (one integer each); all may be left out."""
        check_keys("fabric", options, ("layers", "scales", "channels"))
        return cls(**{key: whole_number("fabric", key, texts) for key, texts in options.items()})

    def scaled(self, width: float, depth: float) -> Fabric:
        """The same members with fewer channels; ValueError for a lower depth, since layers are genes."""
        from ...protocols.training.fidelity import part, refuse_part

        refuse_part("depth", depth, self.name)
        return Fabric(self.layers, self.scales, part(self.channels, width))

    def _gene_part(self, node: int) -> str:
        return f"l{node // self.scales}s{node % self.scales}"

    def full(self) -> Architecture:
        """The whole fabric, as the paper trains it."""
        return Architecture(self.family, (1,) * len(self.edges))

    def path(self, scales: Sequence[int]) -> Architecture:
        """The member that is one chain, for example a plain convolutional network.

        Args:
            scales: Per layer the scale at which the path leaves it, in the last layer the scale at which it
                arrives. Inside the first layer it goes down to there, inside the last one from there.

        Raises:
            ValueError: It has not one scale per layer, or two that follow each other differ by more than 1.
        """
        listed = ",".join(map(str, scales))
        if (
            len(scales) != self.layers
            or not all(0 <= scale < self.scales for scale in scales)
            or any(abs(a - b) > 1 for a, b in pairwise(scales))
        ):
            raise ValueError(
                f"{self.name}: scales is {listed!r}; allowed: {self.layers} of 0 to {self.scales - 1}, "
                "in steps of at most 1"
            )
        nodes = [
            *range(scales[0]),
            *(layer * self.scales + scale for layer, scale in enumerate(scales[:-1])),
            *range((self.layers - 1) * self.scales + scales[-1], self.layers * self.scales),
        ]
        taken = set(pairwise(nodes))
        return Architecture(self.family, tuple(int((source, target) in taken) for source, target, _ in self.edges))

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`, a member of this space at every level; idempotent.

        Raises:
            ValueError: The level is unknown.
        """
        if level is not None and level != "live":
            self.check_level(level)
            return a
        return Architecture(self.family, self._live(a.genes))

    def _live(self, genes: Genes) -> Genes:
        """The bits without those of edges on no path from input to output."""
        # Ordered by target, the edges into a node stand before those out of it.
        taken = [edge for edge, bit in zip(range(len(genes)), genes, strict=True) if bit]
        fed = {0}
        passable = []
        for edge in taken:
            source, target, _ = self.edges[edge]
            if source in fed:
                fed.add(target)
                passable.append(edge)
        used = {self.layers * self.scales - 1}
        live = [0] * len(genes)
        for edge in reversed(passable):
            source, target, _ = self.edges[edge]
            if target in used:
                used.add(source)
                live[edge] = 1
        return tuple(live)

    def _live_steps(self, a: Architecture) -> list[tuple[int, int, str]]:
        """The live edges, as source, target and operation."""
        live = self._live(a.genes)
        return [(s, t, LETTERS[letter]) for (s, t, letter), bit in zip(self.edges, live, strict=True) if bit]

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The live part of the trellis, layers from left to right, scales downwards; nodes are called `layer.scale`."""
        steps, last = self._live_steps(a), self.layers * self.scales - 1
        held = sorted({0, last, *(target for _, target, _ in steps)})
        number = {node: i for i, node in enumerate(held)}
        names = {0: "input", last: "output"}
        return {
            "network": Graph(
                tuple(Node(names.get(node, self._node_names[node])) for node in held),
                tuple((number[source], number[target], operation) for source, target, operation in steps),
                places=tuple(map(self._place, held)),
            )
        }

    def _place(self, node: int) -> tuple[float, float]:
        # Nodes that are joined inside a layer stand aslant: edges lead to the right.
        layer, scale = divmod(node, self.scales)
        return layer + (scale / self.scales if layer in (0, self.layers - 1) else 0.0), float(scale)

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of the live edges, on the meta device; input (n, *task.shape), output (n, classes, or 1).

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images.
        """
        self.check(a)
        inputs, _, _ = required_image(task, self.name)
        import torch

        from ..networks import fabric

        with torch.device("meta"):
            return fabric.Fabric(
                self._live_steps(a),
                self.layers,
                self.scales,
                inputs=inputs,
                channels=self.channels,
                outputs=task.classes or 1,
            )

    def text(self, a: Architecture) -> str:
        """Layers joined by `|`, their nodes by `,`; a node is the letters of its edges, of s, d, u, v, or `-`.

        The letters stand for the edge from the same scale, down from the finer and up from the coarser one of the
        layer before, and down inside the layer; the first node is `in`.
        """
        found = [""] * (self.layers * self.scales)
        for (_, target, letter), bit in zip(self.edges, a.genes, strict=True):
            found[target] += letter if bit else ""
        words = ["in", *(word or "-" for word in found[1:])]
        return "|".join(",".join(words[i : i + self.scales]) for i in range(0, len(words), self.scales))

    def parse(self, text: str) -> Architecture:
        """Read `text(a)` back; ValueError names the malformed part."""
        layers = text.split("|")
        if len(layers) != self.layers:
            raise ValueError(f"{self.name}: {text!r} has {len(layers)} layers; allowed: {self.layers}, joined by '|'")
        words = []
        for number, layer in enumerate(layers):
            nodes = layer.split(",")
            if len(nodes) != self.scales:
                raise ValueError(
                    f"{self.name}: layer {number} is {layer!r}; allowed: {self.scales} nodes, joined by ','"
                )
            words += nodes
        letters = [""] * len(words)
        for _, target, letter in self.edges:
            letters[target] += letter
        for node, (word, allowed) in enumerate(zip(words, letters, strict=True)):
            kept = "".join(letter for letter in allowed if letter in word)
            if word != (kept or "-" if node else "in"):
                form = f"letters of {allowed!r}, in this order, or '-'" if allowed else "'-'" if node else "'in'"
                raise ValueError(f"{self.name}: node {self._node_names[node]} is {word!r}; allowed: {form}")
        return Architecture(self.family, tuple(int(letter in words[target]) for _, target, letter in self.edges))


def _trellis(layers: int, scales: int) -> tuple[tuple[int, int, str], ...]:
    """All edges as (source, target, letter), ordered by target."""
    found = []
    for target in range(1, layers * scales):
        layer, scale = divmod(target, scales)
        before = target - scales
        if layer:
            found.append((before, target, "s"))
            if scale:
                found.append((before - 1, target, "d"))
            if scale < scales - 1:
                found.append((before + 1, target, "u"))
        if scale and layer in (0, layers - 1):
            found.append((target - 1, target, "v"))
    return tuple(found)
