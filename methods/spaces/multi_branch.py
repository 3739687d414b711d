"""Multi-branch CNNs: layers that read any earlier layers (Elsken, Metzen & Hutter 2019, section 2).

In that survey layer i reads g_i(L_{i-1}, ..., L_0). Chains (g_i = L_{i-1}), residual networks (a sum of L_{i-1} and
earlier outputs; He et al. 2016, "Identity mappings") and dense networks (all of them side by side; Huang et al.
2017) are members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ...protocols import Architecture, Task
from ..base import required_image
from ..categorical import Categorical, check_keys, full_name, whole_number
from ..graph import Graph, Node

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MultiBranch"]

OPS = ("conv_1x1", "conv_3x3", "conv_5x5", "sep_once_3x3", "sep_once_5x5", "max_pool_3x3", "avg_pool_3x3")
MERGES = ("sum", "concat")
FIXES = ("forbid", "pad", "project")
_PLAIN_OPS = ("conv_1x1", "conv_3x3", "conv_5x5", "max_pool_3x3", "avg_pool_3x3")


class MultiBranch(Categorical):
    """Networks of n layers, the classifier being the last, in which any layer may read all layers before it.

    >>> space = MultiBranch(layers=3, ops=["conv_3x3", "conv_5x5"])
    >>> space.size == 2**2 * 2 ** (3 * 2 // 2) * 2      # operations, skips, merges
    True
    >>> space.text(space.densenet())
    'concat/conv_3x3/conv_3x3@0/out@0,1'
    >>> space.densenet().genes                          # operations; skips 0-2, 0-3, 1-3; merge
    (1, 1, 1, 1, 1, 1)

    In the survey's numbering layer 0 is the input, here the stem that images pass first, and layer n gives the
    output, here the classifier; so n - 1 operations are searched. Layer i always reads layer i - 1; one bit for each
    j < i - 1 says whether it reads layer j too. Those are n(n-1)/2 bits, 2^(n(n-1)/2) masks, and mask 0 is the chain.
    Every layer lies on a path from input to output, and no two may change places, since the chain orders them.

    Genes are the operations (indices into `OPS`) of layers 1 to n - 1, the bits by layer read into, then by layer
    read from, and how layers merge what they read: 0 sum, 1 concatenation. One gene of merging for the whole
    network, rather than one a layer: sums and concatenations in one network would need a rule for widths that
    neither residual nor dense networks have; and a gene rather than an option, so that both are members of one space.
    Samples are uniform over the |ops|^(n-1) 2^(n(n-1)/2) |merge| members.

    Layers are pre-activated (batch normalisation, ReLU, convolution), as in the two networks named; a convolution
    gives `channels` channels, a pool as many as it reads. Without skips between them, sizes and widths are equal; in
    a sum they differ only where the stem has another width: then `merge_fix` appends zeros up to the widest
    (`pad`), brings each to `channels` by a 1x1 convolution of its own (`project`), or rules it out (`forbid`).

    Levels of canonicalisation: `iso`, where the merge of a network without skips, which has nothing to merge, is the
    first allowed (the same network); and `raw`, every member by itself.

    Args:
        layers: n, at least 2.
        ops: Allowed operations; `sep_once` (depthwise, then pointwise) is left out by default.
        merge: Allowed ways to merge.
        channels: Of the convolutions' outputs: the growth rate of a dense network.
        stem: Channels of the stem; default: `channels`.
        stride: Of the stem; nothing else changes the size.
        merge_fix: forbid, pad or project.
    """

    levels = ("iso", "raw")

    def __init__(
        self,
        layers: int = 7,
        ops: Sequence[str] = _PLAIN_OPS,
        merge: Sequence[str] = MERGES,
        channels: int = 16,
        stem: int | None = None,
        stride: int = 1,
        merge_fix: str = "forbid",
    ) -> None:
        stem = channels if stem is None else stem
        for key, value, least in (("layers", layers, 2), ("channels", channels, 1), ("stem", stem, 1)):
            if value < least:
                raise ValueError(f"multi_branch: {key} is {value}; allowed: integers >= {least}")
        if stride not in (1, 2, 4):
            raise ValueError(f"multi_branch: stride is {stride}; allowed: 1, 2, 4")
        self.ops, self.merges = _some("ops", ops, OPS), _some("merge", merge, MERGES)
        if merge_fix not in FIXES:
            raise ValueError(f"multi_branch: merge_fix is {merge_fix!r}; allowed: {', '.join(FIXES)}")
        if "sum" in merge and stem != channels and merge_fix == "forbid":
            raise ValueError(
                f"multi_branch: stem is {stem} with channels = {channels}, which sums cannot merge; "
                "allowed: stem equal to channels, merge=concat, or merge_fix=pad or merge_fix=project"
            )
        self.layers, self.channels, self.stem, self.stride, self.fix = layers, channels, stem, stride, merge_fix
        self.operations = self.ops
        # Layer read from, layer read into: where a bit decides.
        self.pairs = tuple((j, i) for i in range(2, layers + 1) for j in range(i - 1))
        shown = {
            "layers": (str(layers), "7"),
            "ops": (",".join(self.ops), ",".join(_PLAIN_OPS)),
            "merge": (",".join(self.merges), ",".join(MERGES)),
            "channels": (str(channels), "16"),
            "stem": (str(stem), str(channels)),
            "stride": (str(stride), "1"),
            "merge_fix": (merge_fix, "forbid"),
        }
        name = full_name("multi_branch", {key: text for key, (text, default) in shown.items() if text != default})
        places = range(1, layers)
        super().__init__(
            "multi_branch",
            name,
            [
                *[[OPS.index(op) for op in self.ops]] * (layers - 1),
                *[(0, 1)] * len(self.pairs),
                [MERGES.index(kind) for kind in self.merges],
            ],
            genes=[*(f"op_{i}" for i in places), *(f"skip_{j}_{i}" for j, i in self.pairs), "merge"],
            labels=[
                *[dict(enumerate(OPS))] * (layers - 1),
                *[{0: "no", 1: "yes"}] * len(self.pairs),
                dict(enumerate(MERGES)),
            ],
        )

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> MultiBranch:
        """Build from `layers`, `channels`, `stem`, `stride` (integers), `ops`, `merge` (names) and `merge_fix`."""
        integers = ("layers", "channels", "stem", "stride")
        check_keys("multi_branch", options, ("layers", "ops", "merge", "channels", "stem", "stride", "merge_fix"))
        numbers = {key: whole_number("multi_branch", key, options[key]) for key in integers if key in options}
        return cls(
            ops=options.get("ops", _PLAIN_OPS),
            merge=options.get("merge", MERGES),
            merge_fix=",".join(options.get("merge_fix", ("forbid",))),
            **numbers,
        )

    def chain(self, op: str = "conv_3x3") -> Architecture:
        """One operation in every layer, and no skips."""
        return self._uniform(op, lambda j, i: False, self.merges[0])

    def resnet(self, op: str = "conv_3x3", block: int = 2) -> Architecture:
        """The pre-activation residual network x <- x + F(x), each F being `block` layers.

        Written out, x is the sum of the stem and of the last layers of all blocks so far: exactly so where the stem
        is as wide as the layers, or padded; of projections each layer would have its own.

        Raises:
            ValueError: The layers before the classifier are no whole number of blocks, or sums or the operation are
                not allowed.
        """
        if block < 1 or (self.layers - 1) % block:
            rest = self.layers - 1
            raise ValueError(f"{self.name}: block is {block}; allowed: divisors of {rest}, the layers before the last")
        return self._uniform(op, lambda j, i: (i - 1) % block == 0 and j % block == 0, "sum")

    def densenet(self, op: str = "conv_3x3") -> Architecture:
        """The dense block, and a classifier that reads all of it; layer k + 1 reads stem + k * channels channels."""
        return self._uniform(op, lambda j, i: True, "concat")

    def _uniform(self, op: str, skip: Callable[[int, int], bool], merge: str) -> Architecture:
        if op not in self.ops or merge not in self.merges:
            key, value, allowed = ("merge", merge, self.merges) if op in self.ops else ("op", op, self.ops)
            raise ValueError(f"{self.name}: {key} is {value!r}; allowed: {', '.join(allowed)}")
        genes = [OPS.index(op)] * (self.layers - 1) + [int(skip(j, i)) for j, i in self.pairs]
        return Architecture(self.family, (*genes, MERGES.index(merge)))

    def sources(self, a: Architecture) -> list[tuple[int, ...]]:
        """The layers, ascending, that layers 1 to n read."""
        bits = a.genes[self.layers - 1 : -1]
        skips = [pair for pair, bit in zip(self.pairs, bits, strict=True) if bit]
        return [(*(j for j, i in skips if i == layer), layer - 1) for layer in range(1, self.layers + 1)]

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`, a member of this space at every level; idempotent."""
        self.check_level(level)
        if level == "raw" or a.genes[-1] == self.values[-1][0] or any(a.genes[self.layers - 1 : -1]):
            return a
        return Architecture(self.family, (*a.genes[:-1], self.values[-1][0]))

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """Input, layers and output; nodes that read several layers say how they merge them."""
        sources, merge = self.sources(a), MERGES[a.genes[-1]]
        nodes = [Node("input")]
        for i, read in enumerate(sources, start=1):
            name, op = ("output", "") if i == self.layers else (str(i), OPS[a.genes[i - 1]])
            nodes.append(Node(f"{name} {merge}" if len(read) > 1 else name, op))
        edges = tuple((j, i, "") for i, read in enumerate(sources, start=1) for j in read)
        return {"network": Graph(tuple(nodes), edges)}

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device; ValueError unless `a` is a member and the inputs are images."""
        self.check(a)
        inputs, _, _ = required_image(task, "multi_branch")
        import torch

        from ..networks.multi_branch import MultiBranch as Network

        with torch.device("meta"):
            return Network(
                [OPS[op] for op in a.genes[: self.layers - 1]],
                self.sources(a),
                merge=MERGES[a.genes[-1]],
                fix=self.fix,
                inputs=inputs,
                stem=self.stem,
                stride=self.stride,
                channels=self.channels,
                outputs=task.classes or 1,
            )

    def text(self, a: Architecture) -> str:
        """`sum/conv_3x3/conv_5x5@0/out@0,1`: the merge, then per layer its operation, and after @ what it skips to.

        Layer 2 of the example reads layer 1, as always, and layer 0.
        """
        ops = [*(OPS[op] for op in a.genes[: self.layers - 1]), "out"]
        parts = [
            f"{op}@{','.join(map(str, read[:-1]))}".rstrip("@") for op, read in zip(ops, self.sources(a), strict=True)
        ]
        return "/".join([MERGES[a.genes[-1]], *parts])

    def parse(self, text: str) -> Architecture:
        """Read `text(a)` back; ValueError names the malformed part."""
        merge, *parts = text.split("/")
        if merge not in self.merges:
            raise ValueError(f"multi_branch: the merge of {text!r} is {merge!r}; allowed: {', '.join(self.merges)}")
        if len(parts) != self.layers:
            raise ValueError(f"multi_branch: {text!r} has {len(parts)} layers; allowed: {self.layers}")
        ops: list[int] = []
        skips: set[tuple[int, int]] = set()
        for i, part in enumerate(parts, start=1):
            op, at, listed = part.partition("@")
            allowed = self.ops if i < self.layers else ("out",)
            if op not in allowed:
                raise ValueError(f"multi_branch: layer {i} holds {op!r}; allowed: {', '.join(allowed)}")
            texts = listed.split(",") if at else []
            earlier = [str(j) for j in range(i - 1)]
            if texts != [j for j in earlier if j in texts]:
                raise ValueError(
                    f"multi_branch: layer {i} is {part!r}; allowed after '@': "
                    + (f"some of {', '.join(earlier)}, ascending" if earlier else "nothing, and no '@'")
                )
            ops += [OPS.index(op)] if i < self.layers else []
            skips |= {(int(j), i) for j in texts}
        genes = [*ops, *(int(pair in skips) for pair in self.pairs), MERGES.index(merge)]
        return Architecture(self.family, tuple(genes))


def _some(key: str, names: Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    if not names or len(set(names)) != len(names) or not set(names) <= set(allowed):
        raise ValueError(
            f"multi_branch: {key} is {','.join(names)!r}; allowed: one or more, each once, of {', '.join(allowed)}"
        )
    return tuple(name for name in allowed if name in names)
