"""The fixed training protocols: data sets and splits, pipelines, trainers.

The trainers need torch, which is loaded when one of them is asked for, not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .data import DATASETS, load, load_test
from .fidelity import check_fidelity, reduced, reduced_split
from .flops import network_flops, training_flops
from .ingredients import EpochNoise, Streams
from .pipelines import PIPELINES, check_pipeline, pipeline_for

if TYPE_CHECKING:
    from .active import check_ingredients
    from .devices import arithmetic, one_thread, resolve
    from .initial import materialise
    from .many import fit_many
    from .objectives import constant_prediction, objective_of
    from .reference import fit, fit_from_seed, measure
    from .stacked import fit_stacked
    from .trainer import ReferenceTrainer

__all__ = [
    "DATASETS",
    "PIPELINES",
    "EpochNoise",
    "ReferenceTrainer",
    "Streams",
    "arithmetic",
    "check_fidelity",
    "check_ingredients",
    "check_pipeline",
    "constant_prediction",
    "fit",
    "fit_from_seed",
    "fit_many",
    "fit_stacked",
    "load",
    "load_test",
    "materialise",
    "measure",
    "network_flops",
    "objective_of",
    "one_thread",
    "pipeline_for",
    "reduced",
    "reduced_split",
    "resolve",
    "training_flops",
]

_HOME = {
    "ReferenceTrainer": "trainer",
    "arithmetic": "devices",
    "check_ingredients": "active",
    "constant_prediction": "objectives",
    "fit": "reference",
    "fit_from_seed": "reference",
    "fit_many": "many",
    "fit_stacked": "stacked",
    "materialise": "initial",
    "measure": "reference",
    "objective_of": "objectives",
    "one_thread": "devices",
    "resolve": "devices",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
