"""The fixed training protocols: data sets and splits, pipelines, trainers. Needs torch."""

from .data import DATASETS, load, load_test
from .flops import training_flops
from .pipelines import PIPELINES
from .reference import ReferenceTrainer, arithmetic, fit, materialise
from .stacked import fit_stacked

__all__ = [
    "DATASETS",
    "PIPELINES",
    "ReferenceTrainer",
    "arithmetic",
    "fit",
    "fit_stacked",
    "load",
    "load_test",
    "materialise",
    "training_flops",
]
