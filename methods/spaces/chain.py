"""Chain-structured CNNs of varying depth, with conditional hyper-parameters (Elsken, Metzen & Hutter 2019, section 2).

That survey describes a chain by its largest depth, the operation of every layer, and the hyper-parameters of each
operation, "conditional" because they exist only where their operation is chosen. The values allowed are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain as joined
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ...protocols import Architecture, Task
from ..base import Space, configspace, import_configspace, required_vector
from ..categorical import check_keys, check_range, full_name, whole_number
from ..graph import Graph, Node

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace
    from torch import nn

__all__ = ["Chain"]

END = 0
OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "conv": ("kernel", "stride", "filters"),
    "sep_once": ("kernel", "stride", "filters"),
    "max_pool": ("kernel", "stride"),
    "avg_pool": ("kernel", "stride"),
    "dense": ("units",),
}
NAMES = ("end", *OPERATIONS)  # the operation of gene value i
DENSE, POOLS = NAMES.index("dense"), (NAMES.index("max_pool"), NAMES.index("avg_pool"))
SPANS = {i: 1 + len(OPERATIONS[name]) for i, name in enumerate(NAMES) if i != END}
DEPTH_PRIORS = ("uniform_over_archs", "uniform", "stop_token")
_DEFAULTS: Mapping[str, tuple[int, ...]] = {
    "kernels": (1, 3, 5),
    "pool_kernels": (2, 3),
    "strides": (1, 2),
    "filters": (8, 16, 32),
    "units": (16, 32, 64),
}
_LARGEST_DRAW = 2**63 - 1

Layer = tuple[int, ...]
"""An operation and the values of its hyper-parameters."""


class Chain(Space):
    """Chains of 1 to `layers` layers, each an operation with hyper-parameters of its own.

    >>> space = Chain(layers=3, filters=[8, 16], units=[64])
    >>> a = space.parse("conv(kernel=3,stride=1,filters=16)/max_pool(kernel=2,stride=2)/dense(units=64)")
    >>> a.genes
    (1, 3, 1, 16, 3, 2, 2, 5, 64, 0)
    >>> space.options((1, 3, 1, 16)), space.options((1, 3, 1, 16, 3))   # the next layer; the pool's kernel
    ((0, 1, 3, 4, 5), (2, 3))
    >>> m = 3 * 2 * 2 + 2 * 2 + 2 * 2 + 1                               # conv, max_pool, avg_pool, dense
    >>> space.size == m + m**2 + m**3
    True

    Genes are, per layer, its operation (1 conv, 2 sep_once, 3 max_pool, 4 avg_pool, 5 dense) and the values
    themselves of its hyper-parameters, in the order kernel, stride, filters, or units; 0 ends the chain. Inactive
    hyper-parameters have no gene, so none can be mutated in vain. With m layers, all hyper-parameters told apart,
    there are m + m^2 + ... + m^n = (m^(n+1) - m) / (m - 1) chains: every sequence is allowed, a dense layer gives an
    image of one pixel with a channel a unit, on which convolutions and pools may follow.

    `sample` is uniform over the members, so that P(depth = d) = m^d / size, and nearly all samples are deep; two
    other priors of the depth are on offer. Two chains are neighbours if one edit leads from one to the other: change
    a value, replace a layer by any layer of another operation (its hyper-parameters are drawn anew), insert a layer,
    delete a layer.

    Levels of canonicalisation: `iso`, where behind a dense layer, that is on one pixel, pools are left out and strides
    become the smallest allowed: exactly the same function and parameters, whatever the images; `raw`, every member by
    itself.

    The path encoding has a bit for a sequence of operations, without their values; with `layers` above what
    4,096 bits can hold (5 with four operations), longer chains have no bit.

    Args:
        layers: Largest number of layers, n; the classifier is not counted.
        operations: One or more of conv, sep_once (depthwise, then pointwise), max_pool, avg_pool, dense.
        kernels: Sides of the convolutions' kernels, odd.
        pool_kernels: Sides of the pools' windows, at least 2.
        strides: Of convolutions and pools; sizes are divided by them and rounded up.
        filters: Output channels of the convolutions.
        units: Of the dense layers.
    """

    family = "chain"
    levels = ("iso", "raw")

    def __init__(
        self,
        layers: int = 5,
        operations: Sequence[str] = ("conv", "max_pool", "avg_pool", "dense"),
        kernels: Sequence[int] = _DEFAULTS["kernels"],
        pool_kernels: Sequence[int] = _DEFAULTS["pool_kernels"],
        strides: Sequence[int] = _DEFAULTS["strides"],
        filters: Sequence[int] = _DEFAULTS["filters"],
        units: Sequence[int] = _DEFAULTS["units"],
    ) -> None:
        check_range("chain", "layers", layers)
        if not operations or len(set(operations)) != len(operations) or not set(operations) <= set(OPERATIONS):
            raise ValueError(
                f"chain: operations is {','.join(operations)!r}; "
                f"allowed: one or more, each once, of {', '.join(OPERATIONS)}"
            )
        given = (kernels, pool_kernels, strides, filters, units)
        allowed = {key: _checked(key, values) for key, values in zip(_DEFAULTS, given, strict=True)}
        self.layers = layers
        self.operations = tuple(name for name in OPERATIONS if name in operations)
        # Per operation, as a gene, its hyper-parameters' allowed values.
        self._children = {
            NAMES.index(name): tuple(allowed[_option(name, child)] for child in OPERATIONS[name])
            for name in self.operations
        }
        self._alphabet: tuple[Layer, ...] = tuple(
            (token, *values) for token, children in self._children.items() for values in product(*children)
        )
        self._rank = {layer: i for i, layer in enumerate(self._alphabet)}
        far = {token: tuple(b for b in self._alphabet if b[0] != token) for token in self._children}
        # What may replace a layer: those that differ in one value, and those of other operations.
        self._near = {layer: tuple(self._one_value_apart(layer)) for layer in self._alphabet}
        self._far = {layer: far[layer[0]] for layer in self._alphabet}
        least = min(allowed["strides"])
        self._on_a_pixel = {
            layer: layer if layer[0] == DENSE else (*layer[:2], least, *layer[3:])
            for layer in self._alphabet
            if layer[0] not in POOLS
        }
        self._texts = {_text(layer): layer for layer in self._alphabet}
        self._counts: list[int] = [len(self._alphabet) ** depth for depth in range(1, layers + 1)]
        self.size = sum(self._counts)
        shown = {"layers": str(layers), "operations": ",".join(self.operations)}
        plain = {"layers": "5", "operations": "conv,max_pool,avg_pool,dense"}
        shown |= {key: ",".join(map(str, values)) for key, values in allowed.items()}
        plain |= {key: ",".join(map(str, values)) for key, values in _DEFAULTS.items()}
        self.name = full_name("chain", {key: text for key, text in shown.items() if text != plain[key]})

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> Chain:
        """Build from `layers` (one integer), `operations` (names) and the values allowed (integers)."""
        check_keys("chain", options, ("layers", "operations", *_DEFAULTS))
        found: dict[str, Any] = {}
        for key, texts in options.items():
            if key == "layers":
                found[key] = whole_number("chain", key, texts)
            elif key == "operations":
                found[key] = texts
            else:
                found[key] = [whole_number("chain", key, (text,)) for text in texts]
        return cls(**found)

    def check(self, a: Architecture) -> None:
        """Raise ValueError, naming the offending gene, unless `a` is a member."""
        self._ranks(a)

    def options(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
        """Values of the next gene after `prefix`: of an open hyper-parameter, or operations and the end."""
        i = depth = 0
        while i < len(prefix):
            if prefix[i] == END:
                return ()
            children = self._children[prefix[i]]
            if (given := len(prefix) - i - 1) < len(children):
                return children[given]
            i += 1 + len(children)
            depth += 1
        return ((END,) if depth else ()) + (tuple(self._children) if depth < self.layers else ())

    def sample(self, rng: np.random.Generator, depth_prior: str = "uniform_over_archs") -> Architecture:
        """Draw a member: by default uniformly over the members, as strategies take it for granted.

        The other priors draw the operation of each layer, and then each of its hyper-parameters, uniformly. The
        depth is before that drawn uniformly from 1 to n (`uniform`), or comes of an end that competes with the
        operations, on equal terms, for the place of each layer but the first (`stop_token`): a random walk through
        `options`.

        Raises:
            ValueError: Unknown prior.
        """
        if depth_prior == "uniform_over_archs":
            return self.at(_below(self.size, rng))
        if depth_prior not in DEPTH_PRIORS:
            raise ValueError(f"{self.name}: depth_prior is {depth_prior!r}; allowed: {', '.join(DEPTH_PRIORS)}")
        stops = depth_prior == "stop_token"
        depth = self.layers if stops else int(rng.integers(1, self.layers + 1))
        layers: list[Layer] = []
        while len(layers) < depth:
            tokens = (END, *self._children) if stops and layers else tuple(self._children)
            token = tokens[int(rng.integers(len(tokens)))]
            if token == END:
                break
            layers.append((token, *(values[int(rng.integers(len(values)))] for values in self._children[token])))
        return self._make(layers)

    def mutate(self, a: Architecture, rng: np.random.Generator) -> Architecture:
        """One edit: its kind, uniform over the possible ones, then its place and values, uniform over those.

        The kinds are: change a value, change an operation, insert a layer, delete one.

        Raises:
            ValueError: The space has one member only.
        """
        layers = _split(a.genes)
        d, m = len(layers), len(self._alphabet)
        near, far = [self._near[layer] for layer in layers], [self._far[layer] for layer in layers]
        counts = (
            sum(map(len, near)),
            sum(map(len, far)),
            (d + 1) * m if d < self.layers else 0,
            d if d > 1 else 0,
        )
        kinds = [kind for kind in range(4) if counts[kind]]
        if not kinds:
            raise ValueError(f"{self.name}: its only member has no neighbours; mutate needs two members")
        kind = kinds[int(rng.integers(len(kinds)))]
        pick = int(rng.integers(counts[kind]))
        if kind == 3:
            del layers[pick]
        elif kind == 2:
            place, which = divmod(pick, m)
            layers.insert(place, self._alphabet[which])
        else:
            for i, others in enumerate((near, far)[kind]):
                if pick < len(others):
                    layers[i] = others[pick]
                    break
                pick -= len(others)
        return self._make(layers)

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """One-point crossover: the first layers of `a`, then what `b` has behind the same number of layers."""
        x, y = _split(a.genes), _split(b.genes)
        cut = int(rng.integers(1, min(len(x), len(y)) + 1))
        return self._make(x[:cut] + y[cut:])

    def neighbours(self, a: Architecture) -> list[Architecture]:
        """All members one edit away, each once: values, operations, insertions, deletions, each from the front."""
        return [self._make(layers) for layers in dict.fromkeys(self._edits(tuple(_split(a.genes))))]

    def _edits(self, layers: tuple[Layer, ...]) -> Iterator[tuple[Layer, ...]]:
        for others in (self._near, self._far):
            for i, layer in enumerate(layers):
                for other in others[layer]:
                    yield (*layers[:i], other, *layers[i + 1 :])
        if len(layers) < self.layers:
            for i in range(len(layers) + 1):
                for layer in self._alphabet:
                    yield (*layers[:i], layer, *layers[i:])
        if len(layers) > 1:
            for i in range(len(layers)):
                yield layers[:i] + layers[i + 1 :]

    def _one_value_apart(self, layer: Layer) -> Iterator[Layer]:
        for i, allowed in enumerate(self._children[layer[0]], start=1):
            for value in allowed:
                if value != layer[i]:
                    yield (*layer[:i], value, *layer[i + 1 :])

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        """The representative of the class of `a`, a member of this space at every level; idempotent."""
        self.check_level(level)
        layers = _split(a.genes)
        dense = next((i for i, layer in enumerate(layers) if layer[0] == DENSE), len(layers))
        if level == "raw" or dense == len(layers):
            return a
        return self._make(layers[:dense] + [self._on_a_pixel[b] for b in layers[dense:] if b[0] not in POOLS])

    def index(self, a: Architecture) -> int:
        """Position of `a`: short chains first, then by their layers; ValueError unless `a` is a member."""
        ranks, place = self._ranks(a), 0
        for rank in ranks:
            place = place * len(self._alphabet) + rank
        return place + sum(self._counts[: len(ranks) - 1])

    def at(self, index: int) -> Architecture:
        """The member at a position; ValueError outside 0 <= index < size."""
        if not 0 <= index < self.size:
            raise ValueError(f"{self.name}: index is {index}; allowed: 0 to {self.size - 1}")
        depth = 0
        while index >= self._counts[depth]:
            index -= self._counts[depth]
            depth += 1
        layers = []
        for _ in range(depth + 1):
            index, rank = divmod(index, len(self._alphabet))
            layers.append(self._alphabet[rank])
        return self._make(layers[::-1])

    def one_hot(self, a: Architecture) -> np.ndarray:
        """Float64 (d,): for each of n places its operation, then every hyper-parameter of every operation.

        Each is one-hot over its values and, last, a class "inactive": of the operation where the chain is shorter, of
        a hyper-parameter where its operation was not chosen.
        """
        code: list[float] = []
        layers = _split(a.genes)
        for layer in [*layers, *[(END,)] * (self.layers - len(layers))]:
            code += _bits(layer[0], tuple(self._children))
            for token, children in self._children.items():
                for i, allowed in enumerate(children, start=1):
                    code += _bits(layer[i] if layer[0] == token else END, allowed)
        return np.array(code)

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The layers in a row; values stand in the nodes' names."""
        row = [Node(_caption(layer), NAMES[layer[0]]) for layer in _split(a.genes)]
        nodes = (Node("input"), *row, Node("output"))
        return {"chain": Graph(nodes, tuple((i, i + 1, "") for i in range(len(nodes) - 1)))}

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device, for images or for vectors, which count as images of one pixel.

        Raises:
            ValueError: `a` is no member, or the task is about text.
        """
        self.check(a)
        required_vector(task, "chain")
        import torch

        from ..networks.chain import network

        layers = [(NAMES[token], dict(zip(OPERATIONS[NAMES[token]], v, strict=True))) for token, *v in _split(a.genes)]
        with torch.device("meta"):
            return network(layers, task.shape, task.classes or 1)

    def to_configspace(self) -> ConfigurationSpace:
        """`depth`; `layer_i_operation`, active where depth >= i; `layer_i_operation_child`, active where chosen."""
        library = import_configspace()
        depth = library.OrdinalHyperparameter("depth", [str(d) for d in range(1, self.layers + 1)])
        found, conditions = [depth], []
        for i in range(1, self.layers + 1):
            operation = library.CategoricalHyperparameter(f"layer_{i}_operation", self.operations)
            found.append(operation)
            if i > 1:
                conditions.append(library.GreaterThanCondition(operation, depth, str(i - 1)))
            for token, children in self._children.items():
                for child, allowed in zip(OPERATIONS[NAMES[token]], children, strict=True):
                    value = library.OrdinalHyperparameter(f"layer_{i}_{NAMES[token]}_{child}", list(map(str, allowed)))
                    found.append(value)
                    conditions.append(library.EqualsCondition(value, operation, NAMES[token]))
        return configspace(self.name, found, conditions)

    def from_configspace(self, configuration: Mapping[str, object]) -> Architecture:
        """The member that a configuration stands for, inactive values left aside; ValueError names the culprit."""

        def chosen(name: str, allowed: Sequence[str]) -> str:
            value = str(configuration[name]) if name in configuration else "missing"
            if value not in allowed:
                raise ValueError(f"{self.name}: hyper-parameter {name!r} is {value}; allowed: {', '.join(allowed)}")
            return value

        layers = []
        for i in range(1, int(chosen("depth", [str(d) for d in range(1, self.layers + 1)])) + 1):
            name = chosen(f"layer_{i}_operation", self.operations)
            token = NAMES.index(name)
            children = zip(OPERATIONS[name], self._children[token], strict=True)
            layers.append((token, *(int(chosen(f"layer_{i}_{name}_{c}", list(map(str, v)))) for c, v in children)))
        return self._make(layers)

    def text(self, a: Architecture) -> str:
        """`conv(kernel=3,stride=1,filters=16)/max_pool(kernel=2,stride=2)/dense(units=64)`."""
        return "/".join(map(_text, _split(a.genes)))

    def parse(self, text: str) -> Architecture:
        """Read `text(a)` back; ValueError names the malformed layer."""
        layers = []
        for i, part in enumerate(text.split("/"), start=1):
            if (layer := self._texts.get(part)) is None:
                tokens = [t for t in self._children if part.partition("(")[0] == NAMES[t]] or self._children
                raise ValueError(f"chain: layer {i} is {part!r}; allowed: {'; '.join(map(self._form, tokens))}")
            layers.append(layer)
        if len(layers) > self.layers:
            raise ValueError(f"chain: {text!r} has {len(layers)} layers; allowed: 1 to {self.layers}")
        return self._make(layers)

    def _form(self, token: int) -> str:
        values = ["|".join(map(str, allowed)) for allowed in self._children[token]]
        return _written(NAMES[token], values)

    def _make(self, layers: Sequence[Layer]) -> Architecture:
        return Architecture("chain", (*joined.from_iterable(layers), END))

    def _ranks(self, a: Architecture) -> list[int]:
        """Position of each layer in the alphabet; ValueError unless `a` is a member."""
        genes, ranks, i = a.genes, list[int](), 0
        last = len(genes) - 1
        while i < last:
            end = i + SPANS.get(genes[i], 1)
            rank = self._rank.get(genes[i:end])
            if rank is None:
                break
            ranks.append(rank)
            i = end
        if a.space == self.family and i == last and genes[last] == END and 0 < len(ranks) <= self.layers:
            return ranks
        raise ValueError(f"{self.name}: {self._fault(a)}")

    def _fault(self, a: Architecture) -> str:
        if a.space != self.family:
            return f"{a} is of the space {a.space!r}; allowed: {self.family!r}"
        for i, gene in enumerate(a.genes):
            if gene not in (allowed := self.options(a.genes[:i])):
                listed = ", ".join(map(str, allowed)) or "none, as the chain has ended"
                return f"gene {i} of {a} is {gene}; allowed: {listed}"
        return f"gene {len(a.genes)} of {a} is missing; allowed: {', '.join(map(str, self.options(a.genes)))}"


def _split(genes: tuple[int, ...]) -> list[Layer]:
    layers, i = [], 0
    while genes[i] != END:
        end = i + SPANS[genes[i]]
        layers.append(genes[i:end])
        i = end
    return layers


def _option(operation: str, child: str) -> str:
    """The option that holds the values allowed for a hyper-parameter."""
    plural = {"kernel": "kernels", "stride": "strides"}.get(child, child)
    return f"pool_{plural}" if child == "kernel" and operation.endswith("pool") else plural


def _checked(key: str, values: Sequence[int]) -> tuple[int, ...]:
    least = 2 if key == "pool_kernels" else 1
    fits = all(v >= least and (v % 2 or key != "kernels") for v in values)
    if not values or len(set(values)) != len(values) or not fits:
        kind = "odd integers" if key == "kernels" else "integers"
        raise ValueError(f"chain: {key} is {','.join(map(str, values))!r}; allowed: {kind} >= {least}, each once")
    return tuple(sorted(values))


def _text(layer: Layer) -> str:
    return _written(NAMES[layer[0]], layer[1:])


def _written(name: str, values: Sequence[object]) -> str:
    return f"{name}({','.join(f'{child}={value}' for child, value in zip(OPERATIONS[name], values, strict=True))})"


def _caption(layer: Layer) -> str:
    """Values of a layer, as a picture shows them in front of the operation."""
    values = dict(zip(OPERATIONS[NAMES[layer[0]]], layer[1:], strict=True))
    if "units" in values:
        return f"{values['units']} units,"
    filters = f"{values['filters']} filters, " if "filters" in values else ""
    return f"{filters}{values['kernel']}x{values['kernel']}, stride {values['stride']},"


def _bits(value: int, allowed: Sequence[int]) -> list[float]:
    """One-hot over the allowed values and "inactive", which stands for the rest."""
    return [*(float(value == v) for v in allowed), float(value not in allowed)]


def _below(size: int, rng: np.random.Generator) -> int:
    """A uniform integer, 0 <= i < size, of any size."""
    if size <= _LARGEST_DRAW:
        return int(rng.integers(size))
    bits = (size - 1).bit_length()
    while True:
        drawn = int.from_bytes(rng.bytes(-(-bits // 8)), "little") & ((1 << bits) - 1)
        if drawn < size:
            return drawn
