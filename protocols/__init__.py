"""The contracts of nasbed: roles are protocols, values are frozen dataclasses. Imports no torch."""

from .architecture import Architecture
from .budget import COST_KINDS, UNITS, Budget, Cost, CostKind, Unit
from .drawing import Drawing
from .estimator import PerformanceEstimator, Setting, Traits
from .proposal import FULL, Fidelity, Observation, Proposal, Status
from .record import SCHEMA, Call, Incumbent, RunRecord, Stopped
from .space import CellSpace, IndexedSpace, ScalableSpace, SearchSpace
from .strategy import Checkpointable, SearchStrategy, WeightSharingStrategy
from .table import Entry, MissingEntry, Table
from .task import Curve, DataView, Json, Pipeline, Split, Task, Trainer, Weights

__all__ = [
    "COST_KINDS",
    "FULL",
    "SCHEMA",
    "UNITS",
    "Architecture",
    "Budget",
    "Call",
    "CellSpace",
    "Checkpointable",
    "Cost",
    "CostKind",
    "Curve",
    "DataView",
    "Drawing",
    "Entry",
    "Fidelity",
    "Incumbent",
    "IndexedSpace",
    "Json",
    "MissingEntry",
    "Observation",
    "PerformanceEstimator",
    "Pipeline",
    "Proposal",
    "RunRecord",
    "ScalableSpace",
    "SearchSpace",
    "SearchStrategy",
    "Setting",
    "Split",
    "Status",
    "Stopped",
    "Table",
    "Task",
    "Trainer",
    "Traits",
    "Unit",
    "WeightSharingStrategy",
    "Weights",
]
