"""Buckets: the trainings of a table, grouped into pieces of work that are plain data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..protocols import Architecture
from ..protocols.streams import generator
from .spec import Spec, enumerable, fidelity

if TYPE_CHECKING:
    from torch import nn

PILOT_ARCHITECTURES, PILOT_SEEDS = 48, 2

Member = tuple[tuple[int, ...], int]
"""Genes and training seed."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Trainings to be done together, under one pipeline at one fidelity.

    Attributes:
        space: Full name.
        data: Registered data set.
        data_root: Folder of data sets that are not embedded.
        pipeline: Registered pipeline.
        fidelity: `Fidelity.text`.
        members: What is trained.
        recorded: Epochs, from 1, after which to evaluate.
        fgsm: Size of the attack after the last epoch; 0 for none.
        latency: Whether to measure the latency of the members.
        flops: Of all trainings together.
        digests: Of the data set and the pipeline.
        device: "cpu" or "cuda": not in the key, since any machine's results are welcome.
        pilot: Whether the build's pilot looks at it; not in the key.
    """

    space: str
    data: str
    data_root: str | None
    pipeline: str
    fidelity: str
    members: tuple[Member, ...]
    recorded: tuple[int, ...]
    fgsm: float
    latency: bool
    flops: float
    digests: tuple[str, str] = ("", "")
    device: str = "cpu"
    pilot: bool = False

    @property
    def root(self) -> Path | None:
        """Where to look for data."""
        return Path(self.data_root) if self.data_root else None

    @property
    def key(self) -> str:
        """Name of its shard: by content, so that no old shard is mistaken for it."""
        content = (
            self.space, self.data, self.pipeline, self.fidelity, self.members, self.recorded, self.fgsm, self.latency,
            self.digests,
        )  # fmt: skip
        return f"{self.pipeline.lstrip('+')}-{hashlib.sha256(repr(content).encode()).hexdigest()[:20]}"


@dataclass(frozen=True, slots=True)
class Counted:
    """What counting says of an architecture on a data set: equal for all whose layers are equal.

    Attributes:
        group: Networks of one group can be trained side by side.
        flops: Of one epoch.
        features: Parameters, multiply-adds and FLOPs of one forward pass.
    """

    group: tuple[Any, ...]
    flops: float
    features: Mapping[str, float]


def rows(spec: Spec) -> list[int]:
    """Indices in the space of the table's rows: all, or a uniform sample in ascending order.

    The sample is drawn from the stream `table-sample` of the table's name.
    """
    size = enumerable(spec.space).size or 0
    if spec.sample is None:
        return list(range(size))
    chosen: list[int] = generator(0, "table-sample", spec.name).choice(size, spec.sample, replace=False).tolist()
    return sorted(chosen)


def pilot_rows(spec: Spec) -> list[int]:
    """Indices in the space of the architectures of the pilot, a uniform sample of the rows: stream `pilot`."""
    there = rows(spec)
    few = min(PILOT_ARCHITECTURES, len(there))
    return sorted(generator(0, "pilot", spec.name).choice(there, few, replace=False).tolist())


def plan(spec: Spec, data_root: Path | None, *, device: str = "cpu") -> list[Bucket]:
    """The trainings of a table: those of the pilot first, then seed by seed, expensive buckets first."""
    from ..protocols.training import PIPELINES, load

    space = enumerable(spec.space)
    members = [space.at(i) for i in rows(spec)]
    first = {space.at(i) for i in pilot_rows(spec)} if spec.seeds > 1 else set()
    data = load(spec.data, data_root).task.digest
    root = str(data_root) if data_root else None
    found = []
    for name, text in spec.variants():
        pipeline, counted = PIPELINES[name], counter(spec.space, spec.data, data_root, text)
        measures = (0.0, False) if text else (spec.fgsm, spec.latency and name == spec.pipelines[0])
        recorded = spec.recorded(name, pipeline.epochs)
        groups: dict[tuple[Any, ...], list[Architecture]] = {}
        for a in members:
            groups.setdefault(counted(a).group, []).append(a)
        for group in groups.values():
            pairs = [(a, seed) for seed in range(spec.seeds) for a in group]
            early = [(a, seed) for a, seed in pairs if not text and a in first and seed < PILOT_SEEDS]
            chosen = set(early)
            for pilot, part in ((True, early), (False, [p for p in pairs if p not in chosen])):
                for i in range(0, len(part), spec.bucket):
                    some = part[i : i + spec.bucket]
                    flops = sum(counted(a).flops for a, _ in some) * pipeline.epochs
                    found.append(
                        Bucket(
                            spec.space, spec.data, root, name, text, tuple((a.genes, s) for a, s in some), recorded,
                            *measures, flops, (data, pipeline.digest), device, pilot,
                        )
                    )  # fmt: skip
    return sorted(found, key=lambda b: (not b.pilot, b.members[0][1], -b.flops, b.key))


@lru_cache(maxsize=16)
def counter(name: str, data: str, data_root: Path | None, text: str) -> Callable[[Architecture], Counted]:
    """What to count architectures of a space with, on a data set at a fidelity.

    Counting takes a tenth of a second, so networks of the same layers are counted once: that is all that FLOPs depend
    on, and no pipeline.
    """
    from ..protocols.training import load, network_flops, reduced

    space, view = reduced(enumerable(name), load(data, data_root), fidelity(text))
    known: dict[tuple[Any, ...], tuple[float, Mapping[str, float]]] = {}
    memory: dict[Architecture, Counted] = {}

    def counted(a: Architecture) -> Counted:
        if a not in memory:
            network = space.build(a, view.task)
            layers = _layers(network)
            if layers not in known:
                forward, both = network_flops(network, view.task)
                features = space.features(a, view.task)
                flops = float(len(view.train) * both + len(view.valid) * forward)
                known[layers] = flops, {k: features[k] for k in ("params", "macs", "flops")}
            # Perceptrons are stacked by widths; cells, and recurrent cells of one size, mix freely.
            widths = tuple(tuple(p.shape) for p in network.parameters()) if _is_perceptron(network) else ()
            memory[a] = Counted((widths, *sorted(space.training(a).items())), *known[layers])
        return memory[a]

    return counted


def _layers(network: nn.Module) -> tuple[Any, ...]:
    """Kinds of layers and shapes of their parameters, in no order."""
    return tuple(
        sorted(
            (type(m).__name__, *(tuple(p.shape) for p in m.parameters(recurse=False)), str(getattr(m, "stride", "")))
            for m in network.modules()
        )
    )


def _is_perceptron(network: nn.Module) -> bool:
    return not any(p.dim() > 2 or type(m).__name__ == "Embedding" for m in network.modules() for p in m.parameters())
