"""What to build: a table's specification, read from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..methods import registry
from ..protocols import Fidelity, IndexedSpace
from .manifest import IDENTITY, OPTIONAL

LARGEST = 1_000_000
"""Members of the largest space that is enumerated."""
_OWN = (*IDENTITY, *OPTIONAL, "digest", "median_cost", "trained", "pilot", "default_pipeline", "sample")
_TEXTS = ("name", "space", "data", "version")
_NUMBERS = ("seeds", "bucket", "sample")


@dataclass(frozen=True, slots=True)
class Spec:
    """What to build, as read from a TOML file.

    Attributes:
        name: Of the table.
        space: Full name of an enumerable space.
        data: Registered data set.
        pipelines: Registered pipelines, the default one first.
        seeds: Number of training seeds, 0 .. seeds - 1.
        sample: Number of members to train, drawn uniformly; None for all.
        fidelities: Trainings of lower fidelity under the first pipeline, as `Fidelity.text`: "data=0.5".
        every_epoch: Pipelines that are evaluated after every epoch, the others after 1, 2, 4, 8, ... and the last
            one; None for all.
        fgsm: Size of the fast gradient sign attack on test images after the last epoch; 0 for none.
        latency: Whether to measure the time of one forward pass of one example.
        version: Raised when the table is built anew.
        bucket: Largest number of networks trained side by side.
        notes: Free text for the manifest: summary, licence, citation.
    """

    name: str
    space: str
    data: str
    pipelines: tuple[str, ...]
    seeds: int
    sample: int | None = None
    fidelities: tuple[str, ...] = ()
    every_epoch: tuple[str, ...] | None = None
    fgsm: float = 0.0
    latency: bool = False
    version: str = "1"
    bucket: int = 320
    notes: Mapping[str, str] | None = None

    @classmethod
    def read(cls, path: Path) -> Spec:
        """Read a TOML file; ValueError names the field that is missing, unknown or wrong."""
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"spec: there is no file {path}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"spec: {path}: {error}") from None
        _check(f"spec {path.name}", given, tuple(cls.__dataclass_fields__))
        lists = ("pipelines", "fidelities", "every_epoch")
        values: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in given.items()}
        return cls(**values)

    def recorded(self, pipeline: str, epochs: int) -> tuple[int, ...]:
        """Epochs, from 1, after which trainings under a pipeline are evaluated."""
        if self.every_epoch is None or pipeline in self.every_epoch:
            return tuple(range(1, epochs + 1))
        return tuple(sorted({1 << k for k in range(epochs.bit_length())} - {0} | {epochs}))

    def variants(self) -> tuple[tuple[str, str], ...]:
        """What every member is trained under: (pipeline, text of the fidelity), full fidelity being ""."""
        return (*((p, "") for p in self.pipelines), *((self.pipelines[0], text) for text in self.fidelities))


def enumerable(name: str) -> IndexedSpace:
    """The space of that name, if its members can be numbered; ValueError otherwise."""
    space = registry.space(name)
    if not isinstance(space, IndexedSpace) or not space.size or space.size > LARGEST:
        raise ValueError(f"space: {name!r} has {space.size} members; a table takes at most {LARGEST:,}")
    return space


def fidelity(text: str) -> Fidelity:
    """The inverse of `Fidelity.text`; ValueError names the field."""
    values: dict[str, float] = {}
    for part in text.split(";") if text else ():
        key, _, value = part.partition("=")
        if key not in ("data", "resolution", "width", "depth"):
            raise ValueError(f"fidelity: {key!r} is not one of data, resolution, width, depth")
        try:
            values[key] = float(value)
        except ValueError:
            raise ValueError(f"fidelity.{key}: {value!r} is not a number") from None
        if not 0 < values[key] < 1:
            raise ValueError(f"fidelity.{key}: {value} is not between 0 and 1")
    made = Fidelity(**values)
    if made.text != text:
        raise ValueError(f"fidelity: {text!r} is written {made.text!r}")
    return made


def _check(where: str, given: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    from ..protocols.training import DATASETS, PIPELINES

    for key in given:
        if key not in allowed:
            raise ValueError(registry.unknown(f"{where}: field", key, allowed))
    for key in ("name", "space", "data", "pipelines", "seeds"):
        if key not in given:
            raise ValueError(f"{where}: the field {key!r} is missing")
    for field in ("pipelines", "fidelities", "every_epoch"):
        names = given.get(field, ["-"] if field == "pipelines" else [])
        if (
            not isinstance(names, list)
            or len(set(map(str, names))) != len(names)
            or (field == "pipelines" and not names)
        ):
            raise ValueError(f"{where}: {field}: {names!r} is not a list of names, each once")
    known = {"pipelines": PIPELINES, "every_epoch": given["pipelines"], "data": DATASETS}
    for field, choice in known.items():
        for value in map(str, [given["data"]] if field == "data" else given.get(field, [])):
            if value not in choice:
                raise ValueError(registry.unknown(f"{where}: {field}", value, tuple(choice)))
    for field in _NUMBERS:
        if type(value := given.get(field, 1)) is not int or value < 1:
            raise ValueError(f"{where}: {field}: {value!r} is not a positive integer")
    for field in _TEXTS:
        if not isinstance(value := given.get(field, ""), str):
            raise ValueError(f"{where}: {field}: {value!r} is not a text in quotes")
    if not isinstance(given.get("latency", False), bool):
        raise ValueError(f"{where}: latency: {given['latency']!r} is not true or false")
    if type(given.get("fgsm", 0.0)) not in (int, float) or not 0 <= given.get("fgsm", 0.0) < 10:
        raise ValueError(f"{where}: fgsm: {given['fgsm']!r} is not a number from 0 to 10")
    size = enumerable(given["space"]).size or 0
    if given.get("sample", 1) > size:
        raise ValueError(f"{where}: sample: {given['sample']} is more than the {size} members of the space")
    for text in map(str, given.get("fidelities", [])):
        try:
            if fidelity(text) == Fidelity():
                raise ValueError("fidelity: full fidelity is always there")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if given["data"] == "text:PATH":
        raise ValueError(f"{where}: data: PATH stands for a path")
    for key in given.get("notes", {}):
        if key in _OWN:
            raise ValueError(f"{where}: notes.{key}: this name is the manifest's own; choose another")
