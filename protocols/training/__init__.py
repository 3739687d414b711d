"""The fixed training protocols: data sets and splits, pipelines, trainers.

The trainers need torch, which is loaded when one of them is asked for, not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .data import DATASETS, load, load_test
from .flops import training_flops
from .pipelines import PIPELINES

if TYPE_CHECKING:
    from .reference import ReferenceTrainer, arithmetic, fit, fit_from_seed, materialise, one_thread
    from .stacked import fit_stacked

__all__ = [
    "DATASETS",
    "PIPELINES",
    "ReferenceTrainer",
    "arithmetic",
    "fit",
    "fit_from_seed",
    "fit_stacked",
    "load",
    "load_test",
    "materialise",
    "one_thread",
    "training_flops",
]

_HOME = {
    "ReferenceTrainer": "reference",
    "arithmetic": "reference",
    "fit": "reference",
    "fit_from_seed": "reference",
    "fit_stacked": "stacked",
    "materialise": "reference",
    "one_thread": "reference",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
