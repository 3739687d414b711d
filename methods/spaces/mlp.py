"""Multi-layer perceptrons: a chain-structured, conditional space (Minutoli & Ciranni, section 5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress, pairwise, product
from typing import TYPE_CHECKING

import numpy as np

from ...protocols import Architecture, Task
from ..base import Space, configspace, import_configspace, required_vector
from ..graph import Graph, Node

if TYPE_CHECKING:
    import torch
    from ConfigSpace import ConfigurationSpace

__all__ = ["MLP"]

WIDTHS = (8, 16, 32, 64, 128, 256, 512)
ACTIVATIONS = ("sigmoid", "tanh", "relu", "elu")
DROPOUT, OUTPUT = 29, 30
DROPOUT_RATE = 0.2


class MLP(Space):
    """Sequences of hidden layers (width x activation, or dropout) that end in the output layer.

    >>> space = MLP(hidden=3, widths=(8, 16, 32, 64), dropout=False)
    >>> space.size
    4368
    >>> a = space.parse("64-relu/16-tanh")
    >>> a.genes                         # 4 * width index + activation index + 1; 30 is the output layer
    (15, 6, 30)
    >>> space.text(a)
    '64-relu/16-tanh'

    A gene is a layer. The first layer is not a dropout. Two architectures are neighbours if one edit leads
    from one to the other: change a layer's width, or its activation, or (where dropout is allowed) turn it
    into a dropout or back, or insert a layer, or delete one. No two members compute the same function with
    the same parameters for all weights, so the only canonicalisation level is `raw`.

    Args:
        hidden: Largest number of layers before the output layer, 1 to 9.
        widths: Allowed numbers of units, of 8, 16, ..., 512.
        activations: Allowed activations, of sigmoid, tanh, relu, elu.
        dropout: Whether dropout layers (rate 0.2) are allowed.
        scale: What a layer's units are multiplied by in networks, in (0, 1]; they are rounded and at least 1.
    """

    family = "mlp"
    operations = (*ACTIVATIONS, "dropout")

    def __init__(
        self,
        hidden: int = 9,
        widths: Sequence[int] = WIDTHS,
        activations: Sequence[str] = ACTIVATIONS,
        dropout: bool = True,
        scale: float = 1.0,
    ) -> None:
        if not 1 <= hidden <= 9:
            raise ValueError(f"hidden: {hidden} is not one of 1, 2, ..., 9")
        _subset("widths", widths, WIDTHS)
        _subset("activations", activations, ACTIVATIONS)
        if not 0 < scale <= 1:
            raise ValueError(f"scale: {scale} is not in (0, 1]")
        self.hidden, self.dropout, self.scale = hidden, dropout, float(scale)
        self.dense = tuple(
            4 * i + j + 1
            for i, w in enumerate(WIDTHS)
            for j, name in enumerate(ACTIVATIONS)
            if w in widths and name in activations
        )
        self.layers = (*self.dense, DROPOUT) if dropout else self.dense
        self._rank = {token: i for i, token in enumerate(self.layers)}
        self._others = {t: tuple(u for u in self.layers if u != t and _one_value_apart(t, u)) for t in self.layers}
        self._first = {t: tuple(u for u in others if u != DROPOUT) for t, others in self._others.items()}
        self._changeable, self._changeable_first = (
            {token: len(others) for token, others in table.items()} for table in (self._others, self._first)
        )
        self._kinds = {
            possible: tuple(compress(("change", "insert", "delete"), possible))
            for possible in product((False, True), repeat=3)
        }
        m, r = len(self.dense), len(self.layers)
        self._counts: list[int] = [m * r**i for i in range(hidden)]
        self.size = sum(self._counts)
        self.name = _name(hidden, widths, activations, dropout, self.scale)

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> MLP:
        """Read `mlp[hidden=3;widths=8,16;activations=relu;dropout=no;scale=0.5]`."""
        allowed = ("hidden", "widths", "activations", "dropout", "scale")
        for key in options:
            if key not in allowed:
                raise ValueError(f"mlp[{key}]: unknown option; allowed: {', '.join(allowed)}")
        if (dropout := options.get("dropout", ("yes",))) not in (("yes",), ("no",)):
            raise ValueError(f"mlp[dropout={','.join(dropout)}]: not one of yes, no")
        try:
            (scale,) = map(float, options.get("scale", ("1",)))
        except ValueError:
            raise ValueError(f"mlp[scale={','.join(options['scale'])}]: not a number in (0, 1]") from None
        try:
            (hidden,) = map(int, options.get("hidden", ("9",)))
            widths = tuple(map(int, options.get("widths", tuple(map(str, WIDTHS)))))
        except ValueError:
            raise ValueError("mlp[hidden, widths]: hidden takes one integer, widths integers") from None
        return cls(hidden, widths, options.get("activations", ACTIVATIONS), dropout == ("yes",), scale)

    def scaled(self, width: float, depth: float) -> MLP:
        """The same layers of fewer units, by `scale`; ValueError for a lower depth, since layers are genes."""
        from ...protocols.training.fidelity import refuse_part

        refuse_part("depth", depth, self.name)
        widths = [w for i, w in enumerate(WIDTHS) if any((token - 1) // 4 == i for token in self.dense)]
        kinds = [name for name in ACTIVATIONS if any(_kind(token) == name for token in self.dense)]
        return MLP(self.hidden, widths, kinds, self.dropout, self.scale * width)

    def _units(self, token: int) -> int:
        return max(1, round(self.scale * _width(token)))

    def check(self, a: Architecture) -> None:
        """Raise ValueError, naming the gene, unless `a` is a member."""
        if a.space != self.family:
            raise ValueError(f"architecture: {a} belongs to the space {a.space!r}, not to {self.name!r}")
        for i, token in enumerate(a.genes):
            if token not in (allowed := self.options(a.genes[:i])):
                raise ValueError(f"gene {i} of {a}: {token} is not one of {', '.join(map(str, allowed)) or 'none'}")
        if not a.genes or a.genes[-1] != OUTPUT:
            raise ValueError(f"gene {len(a.genes)} of {a}: the output layer ({OUTPUT}) is missing")

    def options(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
        """Next layers allowed after `prefix`."""
        if not prefix:
            return self.dense
        if prefix[-1] == OUTPUT:
            return ()
        return (*self.layers, OUTPUT) if len(prefix) < self.hidden else (OUTPUT,)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Uniform over architectures, so P(h hidden layers) is proportional to their number."""
        return self.at(int(rng.integers(self.size)))

    def mutate(self, a: Architecture, rng: np.random.Generator) -> Architecture:
        """One edit: its kind (change, insert, delete) uniformly over the possible ones, then its place and value."""
        tokens = a.genes[:-1]
        h = len(tokens)
        changes = self._changeable_first[tokens[0]] + sum(map(self._changeable.__getitem__, tokens[1:]))
        kinds = self._kinds[changes > 0, h < self.hidden, h > 1]
        kind = kinds[int(rng.integers(len(kinds)))] if kinds else ""
        if kind == "change":
            pick = int(rng.integers(changes))
            for i, token in enumerate(tokens):
                others = self._changes(i, token)
                if pick < len(others):
                    return self._make((*tokens[:i], others[pick], *tokens[i + 1 :]))
                pick -= len(others)
        if kind == "insert":
            pick = int(rng.integers(len(self.dense) + h * len(self.layers)))
            i, j = divmod(pick - len(self.dense), len(self.layers)) if pick >= len(self.dense) else (-1, pick)
            return self._make((*tokens[: i + 1], self.layers[j], *tokens[i + 1 :]))
        if kind == "delete":
            kept = int(tokens[1] == DROPOUT)  # no network begins with a dropout, so the layer before it stays
            i = kept + int(rng.integers(h - kept))
            return self._make(tokens[:i] + tokens[i + 1 :])
        raise ValueError(f"space: {self.name} has a single member, so nothing can be mutated")

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """One-point crossover: a head of `a` and a tail of `b`, cut so that the child is not too long."""
        x, y = a.genes[:-1], b.genes[:-1]
        i = int(rng.integers(1, len(x) + 1))
        first = max(0, len(y) - (self.hidden - i))
        # Cutting equal parents at one place gives the parent back.
        j = i if x == y else int(rng.integers(first, len(y) + 1))
        return self._make(x[:i] + y[j:])

    def neighbours(self, a: Architecture) -> Sequence[Architecture]:
        """All members one edit away, each once: changes, insertions, deletions, from front to back."""
        return [self._make(tokens) for tokens in dict.fromkeys(self._edits(a.genes[:-1]))]

    def _edits(self, tokens: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        for i, token in enumerate(tokens):
            for other in self._changes(i, token):
                yield (*tokens[:i], other, *tokens[i + 1 :])
        if len(tokens) < self.hidden:
            for i in range(len(tokens) + 1):
                for token in self.layers if i else self.dense:
                    yield (*tokens[:i], token, *tokens[i:])
        if len(tokens) > 1:
            for i in range(len(tokens)):
                if i or tokens[1] != DROPOUT:
                    yield tokens[:i] + tokens[i + 1 :]

    def _changes(self, i: int, token: int) -> tuple[int, ...]:
        return (self._others if i else self._first)[token]

    def index(self, a: Architecture) -> int:
        """Shorter networks first, then in the order of the layers; ValueError unless `a` is a member."""
        tokens = a.genes[:-1]
        place = 0
        try:
            for token in tokens:
                place = place * len(self.layers) + self._rank[token]
        except KeyError:
            self.check(a)
        fits = 0 < len(tokens) <= self.hidden and tokens[0] != DROPOUT and a.genes[-1] == OUTPUT
        if not fits or a.space != self.family:
            self.check(a)
        return int(sum(self._counts[: len(tokens) - 1]) + place)

    def at(self, index: int) -> Architecture:
        """The inverse of `index`."""
        if not 0 <= index < self.size:
            raise ValueError(f"index: {index} is not in 0 .. {self.size - 1}")
        h = 0
        while index >= self._counts[h]:
            index -= self._counts[h]
            h += 1
        tokens: list[int] = []
        for _ in range(h + 1):
            index, j = divmod(index, len(self.layers))
            tokens.append(self.layers[j])
        return self._make(tuple(reversed(tokens)))

    def one_hot(self, a: Architecture) -> np.ndarray:
        """One-hot (hidden x (layers + 1),): the last class of each place is 'no layer here'."""
        code = np.zeros((self.hidden, len(self.layers) + 1))
        tokens = a.genes[:-1]
        code[range(len(tokens)), [self._rank[t] for t in tokens]] = 1.0
        code[len(tokens) :, -1] = 1.0
        return code.ravel()

    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        """Parameters and MACs of the dense layers; `depth` counts hidden dense layers."""
        self.check(a)
        inputs, outputs = required_vector(task, self.name), task.classes or 1
        units = [inputs, *(self._units(t) for t in a.genes[:-1] if t != DROPOUT), outputs]
        macs = sum(n * m for n, m in pairwise(units))
        counts = {f"n_{name}": 0.0 for name in (*ACTIVATIONS, "dropout")}
        for token in a.genes[:-1]:
            counts[f"n_{_kind(token)}"] += 1.0
        total = {"params": float(macs + sum(units[1:])), "macs": float(macs), "flops": 2.0 * macs}
        return total | {"depth": float(len(units) - 2)} | counts

    def build(self, a: Architecture, task: Task) -> torch.nn.Module:
        """Linear layers with bias, each followed by its activation; logits (or one value) at the end."""
        self.check(a)
        units = required_vector(task, self.name)
        from torch import nn

        activation = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
        layers: list[nn.Module] = [nn.Flatten()]
        for token in a.genes[:-1]:
            if token == DROPOUT:
                layers.append(nn.Dropout(DROPOUT_RATE))
            else:
                layers += [nn.Linear(units, self._units(token), device="meta"), activation[_kind(token)]()]
                units = self._units(token)
        layers.append(nn.Linear(units, task.classes or 1, device="meta"))
        return nn.Sequential(*layers)

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The layers in a row."""
        row = [Node("" if t == DROPOUT else str(_width(t)), _kind(t)) for t in a.genes[:-1]]
        nodes = (Node("input"), *row, Node("output"))
        return {"network": Graph(nodes, tuple((i, i + 1, "") for i in range(len(nodes) - 1)))}

    def to_configspace(self) -> ConfigurationSpace:
        """`layers`, and `layer_i` for each place, active where `layers` > i."""
        library = import_configspace()
        depth = library.OrdinalHyperparameter("layers", [str(h) for h in range(1, self.hidden + 1)])
        places = [
            library.CategoricalHyperparameter(f"layer_{i}", [_name_of(t) for t in (self.layers if i else self.dense)])
            for i in range(self.hidden)
        ]
        active = [library.GreaterThanCondition(place, depth, str(i)) for i, place in enumerate(places) if i]
        return configspace(self.name, [depth, *places], active)

    def from_configspace(self, configuration: Mapping[str, object]) -> Architecture:
        """The member that a configuration stands for; ValueError names the hyper-parameter."""
        depth = str(configuration.get("layers", "missing"))
        if not depth.isdigit() or not 1 <= int(depth) <= self.hidden:
            raise ValueError(f"{self.name}: hyper-parameter 'layers' is {depth}; allowed: 1 to {self.hidden}")
        missing = [f"layer_{i}" for i in range(int(depth)) if f"layer_{i}" not in configuration]
        if missing:
            raise ValueError(f"{self.name}: hyper-parameter {missing[0]!r} is missing; allowed: a layer")
        return self.parse("/".join(str(configuration[f"layer_{i}"]) for i in range(int(depth))))

    def text(self, a: Architecture) -> str:
        """`64-relu/dropout/16-tanh`."""
        return "/".join(map(_name_of, a.genes[:-1]))

    def parse(self, text: str) -> Architecture:
        """Read `64-relu/dropout/16-tanh`."""
        tokens = []
        for i, part in enumerate(text.split("/")):
            width, _, activation = part.partition("-")
            if part == "dropout":
                tokens.append(DROPOUT)
            elif width in map(str, WIDTHS) and activation in ACTIVATIONS:
                tokens.append(4 * WIDTHS.index(int(width)) + ACTIVATIONS.index(activation) + 1)
            else:
                raise ValueError(f"layer {i} of {text!r}: {part!r} is not WIDTH-ACTIVATION (64-relu) or dropout")
        a = self._make(tuple(tokens))
        self.check(a)
        return a

    def _make(self, tokens: tuple[int, ...]) -> Architecture:
        return Architecture(self.family, (*tokens, OUTPUT))


def _width(token: int) -> int:
    return WIDTHS[(token - 1) // 4]


def _kind(token: int) -> str:
    return "dropout" if token == DROPOUT else ACTIVATIONS[(token - 1) % 4]


def _name_of(token: int) -> str:
    return "dropout" if token == DROPOUT else f"{_width(token)}-{_kind(token)}"


def _one_value_apart(t: int, u: int) -> bool:
    return DROPOUT in (t, u) or (_width(t) == _width(u)) != (_kind(t) == _kind(u))


def _subset(field: str, values: Sequence[object], allowed: Sequence[object]) -> None:
    for value in values:
        if value not in allowed:
            raise ValueError(f"mlp[{field}]: {value!r} is not one of {', '.join(map(str, allowed))}")
    if not values or len(set(values)) != len(values):
        raise ValueError(f"mlp[{field}]: needs at least one value, each once")


def _name(hidden: int, widths: Sequence[int], activations: Sequence[str], dropout: bool, scale: float) -> str:
    parts = [f"hidden={hidden}"] if hidden != 9 else []
    if set(widths) != set(WIDTHS):
        parts.append(f"widths={','.join(str(w) for w in WIDTHS if w in widths)}")
    if set(activations) != set(ACTIVATIONS):
        parts.append(f"activations={','.join(n for n in ACTIVATIONS if n in activations)}")
    if not dropout:
        parts.append("dropout=no")
    if scale != 1:
        parts.append(f"scale={scale!r}")
    return f"mlp[{';'.join(parts)}]" if parts else "mlp"
