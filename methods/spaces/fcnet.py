"""Two hidden layers and how to train them, nine genes (Klein & Hutter 2019, "Tabular Benchmarks ... FC-Net").

The joint space of architecture and hyper-parameters of the tabular benchmarks for regression: 62,208 members
(arXiv:1905.04970; values from automl/nas_benchmarks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...protocols import Architecture, Json, Task
from ..base import required_vector
from ..categorical import Categorical, check_keys, full_name, some_of
from ..graph import Graph, Node

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FCNet"]

ACTIVATIONS = ("tanh", "relu")
UNITS = ("16", "32", "64", "128", "256", "512")
RATES = ("0.0", "0.3", "0.6")
GENES: Mapping[str, tuple[str, ...]] = {
    "n_units_1": UNITS,
    "n_units_2": UNITS,
    "dropout_1": RATES,
    "dropout_2": RATES,
    "activation_fn_1": ACTIVATIONS,
    "activation_fn_2": ACTIVATIONS,
    "init_lr": ("0.0005", "0.001", "0.005", "0.01", "0.05", "0.1"),
    "lr_schedule": ("cosine", "const"),
    "batch_size": ("8", "16", "32", "64"),
}
"""Gene -> its published values, as text."""
_NAMES = tuple(GENES)
_VALUES = tuple(GENES.values())
_ORDINAL = (0, 1, 2, 3, 6, 8)
# The published name of a schedule -> that of `Pipeline`.
_SCHEDULES = {"cosine": "cosine", "const": "constant"}


class FCNet(Categorical):
    """The FC-Net space, whole or with some of its genes restricted.

    >>> space = FCNet()
    >>> a = space.parse("64-relu-0.3/128-tanh-0.0/lr=0.001/cosine/batch=32")
    >>> a.genes, len(space.neighbours(a)), space.size
    ((2, 3, 1, 0, 1, 0, 1, 0, 2), 25, 62208)
    >>> space.training(a)
    {'learning_rate': 0.001, 'schedule': 'cosine', 'batch_size': 32}
    >>> FCNet({"batch_size": ["64", "32"]}, moves="step").name
    'fcnet[batch_size=32,64;moves=step]'

    A gene is the rank of its value, from 0, in the published lists (`GENES`): units of the hidden layers
    (n_units_1, n_units_2), dropout rates behind them (dropout_1, dropout_2), their activations
    (activation_fn_1, activation_fn_2), initial learning rate (init_lr), its schedule (lr_schedule) and
    batch_size. Restrictions keep these ranks. Sampling is uniform over the members.

    The network flattens its input: linear layer, activation, dropout, twice, and a linear output. No two members
    are the same function trained in the same way, so the only level of canonicalisation is `raw`.

    The last three genes are hyper-parameters: training needs a pipeline that opens batch_size, learning_rate and
    schedule, such as `fcnet`. The published training minimises the squared error on standardised inputs and
    targets, as is done here for regression; on data sets with classes the loss is cross-entropy instead. Many
    members of the largest learning rates learn nothing: that is part of the space.

    Args:
        restrictions: Gene -> its allowed values, as in `GENES`; for genes left out, all.
        moves: Which changes of one gene make a neighbour: to `all` other values (25 neighbours in the whole
            space), or by one `step` where values have an order (units, rates, batch sizes), to all others
            where not.

    Size: the product of the numbers of allowed values, 6 * 6 * 3 * 3 * 2 * 2 * 6 * 2 * 4 for the whole space.

    Attributes:
        moves: As given.
    """

    levels = ("raw",)
    operations = ACTIVATIONS
    path_lengths = (2, 2)

    def __init__(self, restrictions: Mapping[str, Sequence[str]] | None = None, moves: str = "all") -> None:
        given = restrictions or {}
        check_keys("fcnet", {key: tuple(values) for key, values in given.items()}, _NAMES)
        if moves not in ("all", "step"):
            raise ValueError(f"fcnet: moves is {moves!r}; allowed: all, step")
        for key, chosen in given.items():
            some_of("fcnet", key, chosen, GENES[key])
        self.moves = moves
        values = [
            tuple(i for i, text in enumerate(published) if text in given.get(name, published))
            for name, published in GENES.items()
        ]
        shown = {
            name: ",".join(published[i] for i in allowed)
            for (name, published), allowed in zip(GENES.items(), values, strict=True)
            if len(allowed) < len(published)
        }
        if moves != "all":
            shown["moves"] = moves

        def near(gene: int, value: int) -> Sequence[int]:
            allowed = values[gene]
            if gene not in _ORDINAL:
                return [v for v in allowed if v != value]
            rank = allowed.index(value)
            return allowed[max(0, rank - 1) : rank] + allowed[rank + 1 : rank + 2]

        super().__init__(
            "fcnet",
            full_name("fcnet", shown),
            values,
            genes=_NAMES,
            labels=[dict(enumerate(published)) for published in _VALUES],
            ordinal=_ORDINAL,
            moves=near if moves == "step" else None,
        )

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> FCNet:
        """Build from `moves` (all or step) and, for any gene, its allowed values."""
        check_keys("fcnet", options, (*_NAMES, "moves"))
        restrictions = {key: values for key, values in options.items() if key != "moves"}
        return cls(restrictions, moves=",".join(options.get("moves", ("all",))))

    def graphs(self, a: Architecture) -> Mapping[str, Graph]:
        """The hidden layers, and the dropouts that do something, in a row."""
        row = [Node("input")]
        for units, activation, rate in _hidden(a):
            row.append(Node(f"{units} units", activation))
            if float(rate):
                row.append(Node(f"dropout {rate}"))
        nodes = (*row, Node("output"))
        return {"layers": Graph(nodes, tuple((i, i + 1, "") for i in range(len(nodes) - 1)))}

    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        """Parameters and multiply-adds of the linear layers by formula; `depth` counts the hidden ones.

        Raises:
            ValueError: `a` is no member, or the task's inputs are text.
        """
        self.check(a)
        (u1, f1, _), (u2, f2, _) = _hidden(a)
        inputs, first, second, outputs = required_vector(task, "fcnet"), int(u1), int(u2), task.classes or 1
        macs = inputs * first + first * second + second * outputs
        found = {"params": macs + first + second + outputs, "macs": macs, "flops": 2 * macs, "depth": 2}
        counts = {f"n_{name}": (f1, f2).count(name) for name in ACTIVATIONS}
        return {key: float(value) for key, value in (found | counts).items()}

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of `a`, on the meta device; input (n, *task.shape), output (n, classes, or 1).

        Raises:
            ValueError: `a` is no member, or the task's inputs are text.
        """
        self.check(a)
        before = required_vector(task, "fcnet")
        import torch
        from torch import nn

        layers: list[nn.Module] = [nn.Flatten()]
        with torch.device("meta"):
            for units, activation, rate in _hidden(a):
                layers += [nn.Linear(before, int(units)), nn.Tanh() if activation == "tanh" else nn.ReLU()]
                before = int(units)
                if float(rate):
                    layers.append(nn.Dropout(float(rate)))
            return nn.Sequential(*layers, nn.Linear(before, task.classes or 1))

    def training(self, a: Architecture) -> Mapping[str, Json]:
        """The last three genes: `learning_rate`, `schedule` ("cosine" or "constant") and `batch_size`."""
        rate, schedule, batch = (_VALUES[i][a.genes[i]] for i in (6, 7, 8))
        return {"learning_rate": float(rate), "schedule": _SCHEDULES[schedule], "batch_size": int(batch)}

    def text(self, a: Architecture) -> str:
        """Layer by layer units, activation and dropout, then training: `64-relu-0.3/128-tanh-0.0/lr=0.001/...`."""
        u1, u2, d1, d2, f1, f2, rate, schedule, batch = map(tuple.__getitem__, _VALUES, a.genes)
        return f"{u1}-{f1}-{d1}/{u2}-{f2}-{d2}/lr={rate}/{schedule}/batch={batch}"

    def parse(self, text: str) -> Architecture:
        """Read `text(a)` back; ValueError names the malformed part."""
        parts = text.split("/")
        if len(parts) != 5:
            raise ValueError(
                f"fcnet: {text!r} has {len(parts)} parts; allowed: layer/layer/lr=RATE/SCHEDULE/batch=SIZE"
            )
        layers = [part.split("-") for part in parts[:2]]
        for number, (part, layer) in enumerate(zip(parts, layers, strict=False), start=1):
            if len(layer) != 3:
                raise ValueError(f"fcnet: layer {number} is {part!r}; allowed: UNITS-ACTIVATION-DROPOUT")
        for part, prefix in ((parts[2], "lr="), (parts[4], "batch=")):
            if not part.startswith(prefix):
                raise ValueError(f"fcnet: part {part!r} of {text!r}; allowed: {prefix}VALUE")
        (u1, f1, d1), (u2, f2, d2) = layers
        chosen = (u1, u2, d1, d2, f1, f2, parts[2][3:], parts[3], parts[4][6:])
        genes = []
        for value, (name, published), allowed in zip(chosen, GENES.items(), self.values, strict=True):
            here = [published[i] for i in allowed]
            if value not in here:
                raise ValueError(f"fcnet: {name} is {value!r}; allowed: {', '.join(here)}")
            genes.append(published.index(value))
        return Architecture("fcnet", tuple(genes))


def _hidden(a: Architecture) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """Units, activation and dropout rate of both hidden layers, as published."""
    u1, u2, d1, d2, f1, f2 = map(tuple.__getitem__, _VALUES, a.genes[:6])
    return (u1, f1, d1), (u2, f2, d2)
