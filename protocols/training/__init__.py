"""The fixed training protocols: data sets and splits, pipelines, trainers.

The trainers need torch, which is loaded when one of them is asked for, not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .data import DATASETS, load, load_test
from .flops import training_flops
from .pipelines import PIPELINES, pipeline_for

if TYPE_CHECKING:
    from .objectives import constant_prediction, objective_of
    from .reference import ReferenceTrainer, arithmetic, fit, fit_from_seed, materialise, measure, one_thread
    from .stacked import fit_stacked

__all__ = [
    "DATASETS",
    "PIPELINES",
    "ReferenceTrainer",
    "arithmetic",
    "constant_prediction",
    "fit",
    "fit_from_seed",
    "fit_stacked",
    "load",
    "load_test",
    "materialise",
    "measure",
    "objective_of",
    "one_thread",
    "pipeline_for",
    "training_flops",
]

_HOME = {
    "ReferenceTrainer": "reference",
    "arithmetic": "reference",
    "constant_prediction": "objectives",
    "fit": "reference",
    "fit_from_seed": "reference",
    "fit_stacked": "stacked",
    "materialise": "reference",
    "measure": "reference",
    "objective_of": "objectives",
    "one_thread": "reference",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
