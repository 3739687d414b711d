"""The layers of NAS-Bench-Macro (Su et al. 2021, "Prioritized Architecture Sampling with Monto-Carlo Tree Search").

A chain of eight layers in three stages, each layer an identity or one of two inverted residual blocks:
3^8 = 6,561 members. Network and canonical form follow the code that trained the published table
(`train/model.py` and `train/train_benchmark.py` of xiusu/NAS-Bench-Macro).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from ...protocols import Architecture, Task
from ..base import required_image
from ..categorical import Categorical, check_keys, check_range, full_name, whole_number
from ..graph import Graph, Node

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Macro"]

CHOICES = ("identity", "mb3_k3", "mb6_k5")
IDENTITY = 0
PROJECTION = "conv_1x1"
"""What an identity is where it has to halve the size."""
KERNELS = {1: (3, 3), 2: (5, 6)}
"""Choice -> kernel and expansion of its block."""
STAGES, CHANNELS, HEAD = (2, 3, 3), 16, 640
DEEPEST = 30


class Macro(Categorical):
    """NAS-Bench-Macro, whole or restricted to some of its choices, deeper, shallower, or of another width.

    >>> space = Macro()
    >>> a = space.parse("02110221")
    >>> a.genes, space.text(space.canonical(a)), space.size
    ((0, 2, 1, 1, 0, 2, 2, 1), '02110221', 6561)
    >>> space.text(space.canonical(space.parse("22201101")))        # stages 22|201|101
    '22210110'
    >>> Macro(choices=["mb3_k3", "identity"], stages=[1, 2]).size
    8

    A gene is what a layer does, by the official digit: 0 identity, 1 `mb3_k3` (inverted residual block of kernel
    3, expansion 3), 2 `mb6_k5` (kernel 5, expansion 6). Sampling is uniform over the strings, as is the table;
    over networks it is not, since some are written in several ways.

    The network is a 3x3 convolution; stages of 2, 3 and 3 layers, the first layer of each of which
    halves the size and doubles the channels; a 1x1 convolution, global average pooling, linear
    layer. The first layer of a stage cannot be a true identity: there it is a 1x1 convolution of stride 2 with
    batch normalisation, shown and counted as `conv_1x1`. At the published size, `macro[channels=32;head=1280]`,
    parameters and multiply-adds equal those of the published file for every string. The blocks are slow on a CPU,
    even on images of 8x8 pixels, so the default has half the channels.

    Levels of canonicalisation:

    - `commuted` (3,969 classes): within a stage, after its first layer, identities move to the end. These layers
      have equal shapes, so exactly the networks of equal blocks in equal order are merged. It is also how the
      authors found the networks to train: strings of a class share one record in the published table.
    - `raw` (6,561): every string by itself.

    Args:
        choices: Allowed choices, of identity, mb3_k3, mb6_k5.
        stages: Number of layers of each stage.
        channels: Of the first convolution.
        head: Channels of the last convolution.

    Size: (number of choices)^(number of layers).

    Attributes:
        choices: Allowed choices, in official order.
        stages: Number of layers of each stage.
    """

    levels = ("commuted", "raw")
    # A member is one path: a code with a bit for each path would be a bit for each member.
    encodings = ("one_hot",)
    operations = (*CHOICES, PROJECTION)

    def __init__(
        self,
        choices: Sequence[str] = CHOICES,
        stages: Sequence[int] = STAGES,
        channels: int = CHANNELS,
        head: int = HEAD,
    ) -> None:
        for choice in choices:
            if choice not in CHOICES:
                raise ValueError(f"macro: choices holds {choice!r}; allowed: {', '.join(CHOICES)}")
        if len(set(choices)) != len(choices) or len(choices) < 2:
            raise ValueError(
                f"macro: choices is {','.join(choices)!r}; allowed: two or more, each once, of {', '.join(CHOICES)}"
            )
        if not stages or min(stages) < 1 or sum(stages) > DEEPEST:
            given = ",".join(map(str, stages))
            raise ValueError(f"macro: stages is {given!r}; allowed: integers >= 1, at most {DEEPEST} layers in all")
        for key, value in (("channels", channels), ("head", head)):
            check_range("macro", key, value)
        self.choices = tuple(choice for choice in CHOICES if choice in choices)
        self.stages, self.channels, self.head = tuple(stages), channels, head
        default = {"choices": ",".join(CHOICES), "stages": "2,3,3", "channels": str(CHANNELS), "head": str(HEAD)}
        shown = {
            "choices": ",".join(self.choices),
            "stages": ",".join(map(str, stages)),
            "channels": str(channels),
            "head": str(head),
        }
        layers = sum(stages)
        # Layers of equal shape, first and last + 1, where there are several.
        self._groups = tuple((stop - n + 1, stop) for n, stop in zip(stages, accumulate(stages), strict=True) if n > 2)
        super().__init__(
            "macro",
            full_name("macro", {key: text for key, text in shown.items() if text != default[key]}),
            [tuple(CHOICES.index(choice) for choice in self.choices)] * layers,
            genes=[f"layer_{i}" for i in range(1, layers + 1)],
            labels=[dict(enumerate(CHOICES))] * layers,
        )

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> Macro:
        """Build from `choices` (names), `stages` (integers), `channels` and `head` (one integer each)."""
        check_keys("macro", options, ("choices", "stages", "channels", "head"))
        stages = options.get("stages", tuple(map(str, STAGES)))
        return cls(
            choices=options.get("choices", CHOICES),
            stages=[whole_number("macro", "stages", (text,)) for text in stages],
            channels=whole_number("macro", "channels", options.get("channels", (str(CHANNELS),))),
            head=whole_number("macro", "head", options.get("head", (str(HEAD),))),
        )

    def scaled(self, width: float, depth: float) -> Macro:
        """The same members with fewer channels; ValueError for a lower depth, since layers are genes."""
        from ...protocols.training.fidelity import part, refuse_part

        refuse_part("depth", depth, self.name)
        return Macro(self.choices, self.stages, part(self.channels, width), part(self.head, width))

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`: identities behind the other layers of their group; idempotent.

        Raises:
            ValueError: The level is unknown.
        """
        if level is None or level == "commuted":
            genes = a.genes
            for start, stop in self._groups:
                group = genes[start:stop]
                if IDENTITY in group:
                    blocks = tuple(filter(None, group))
                    genes = (*genes[:start], *blocks, *(IDENTITY,) * (len(group) - len(blocks)), *genes[stop:])
            return Architecture("macro", genes)
        self.check_level(level)
        return a

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The layers in a row, under their numbers."""
        firsts = {0, *accumulate(self.stages)}
        layers = [
            Node(str(i + 1), PROJECTION if gene == IDENTITY and i in firsts else CHOICES[gene])
            for i, gene in enumerate(a.genes)
        ]
        nodes = (Node("input"), *layers, Node("output"))
        return {"layers": Graph(nodes, tuple((i, i + 1, "") for i in range(len(nodes) - 1)))}

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device; input (n, *task.shape), output (n, classes, or 1).

        Raises:
            ValueError: `a` is no member, or the task's inputs are no images.
        """
        self.check(a)
        inputs, _, _ = required_image(task, "macro")
        import torch
        from torch import nn

        from ..networks.cells import head
        from ..networks.mbconv import MBConv, conv_bn

        def layer(choice: int, before: int, after: int, stride: int) -> nn.Module:
            if choice != IDENTITY:
                kernel, expansion = KERNELS[choice]
                return MBConv(before, after, kernel=kernel, expansion=expansion, stride=stride)
            return conv_bn(before, after, stride=stride) if stride == 2 else nn.Identity()

        channels, genes = self.channels, iter(a.genes)
        with torch.device("meta"):
            layers = [nn.Sequential(*conv_bn(inputs, channels, 3), nn.ReLU())]
            for size in self.stages:
                first, *rest = (next(genes) for _ in range(size))
                layers.append(nn.Sequential(layer(first, channels, 2 * channels, 2)))
                channels *= 2
                layers[-1].extend(layer(choice, channels, channels, 1) for choice in rest)
            last = nn.Sequential(*conv_bn(channels, self.head), nn.ReLU())
            return nn.Sequential(*layers, last, head(self.head, task.classes or 1))

    def text(self, a: Architecture) -> str:
        """The official string, a digit a layer: `02110221`."""
        return "".join(map(str, a.genes))

    def parse(self, text: str) -> Architecture:
        """Read the official string; ValueError names the malformed part."""
        if len(text) != len(self.values):
            raise ValueError(f"macro: {text!r} has {len(text)} layers; allowed: {len(self.values)} digits")
        allowed = tuple(map(str, self.values[0]))
        for number, digit in enumerate(text, start=1):
            if digit not in allowed:
                raise ValueError(f"macro: layer {number} of {text!r} is {digit!r}; allowed: {', '.join(allowed)}")
        return Architecture("macro", tuple(map(int, text)))
