"""The reference trainer as estimators see it: settings, fidelities and costs around `reference.fit`."""

from __future__ import annotations

import time
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from ..architecture import Architecture
from ..budget import Cost
from ..estimator import Setting
from ..proposal import Fidelity
from ..task import Curve, DataView, Pipeline, Weights
from .devices import resolve
from .fidelity import check_fidelity, reduced
from .flops import training_flops
from .objectives import objective_of
from .pipelines import check_pipeline
from .reference import Progress, fit_from_seed

if TYPE_CHECKING:
    from ..space import SearchSpace


class ReferenceTrainer:
    """Trains one architecture under `setting.pipeline` (see `protocols.Trainer`), at any fidelity.

    What a fidelity means is in `fidelity.reduced`. In the unit epochs, a training on a fraction of the data costs that
    fraction of its epochs, while resolution, width and depth change nothing; FLOPs are those of the network and the
    data that are trained. After MixUp or CutMix `Curve.train` is empty.

    Args:
        space: Builds the networks.
        device: See `resolve`; "auto" takes a CUDA device where there is one.
        progress: Called with (epochs done, epochs) after each epoch.
    """

    def __init__(self, space: SearchSpace, *, device: str = "auto", progress: Progress | None = None) -> None:
        self.space, self.progress = space, progress
        self.device = resolve(device)
        self._reduced: tuple[DataView, Fidelity, tuple[SearchSpace, DataView]] | None = None

    def train(
        self,
        architecture: Architecture,
        setting: Setting,
        *,
        seed: int,
        fidelity: Fidelity,
        init: Weights | None = None,
    ) -> tuple[Curve, Weights]:
        """Train from scratch, or from `init`; the streams are keyed by (seed, architecture)."""
        pipeline, epochs = self._schedule(architecture, setting, fidelity)
        space, view = self._at(setting, fidelity)
        objective = objective_of(view.task)
        started = time.perf_counter()
        network, totals = fit_from_seed(
            space.build(architecture, view.task),
            architecture,
            seed,
            view.train,
            {"valid": view.valid},
            pipeline,
            objective=objective,
            init=init,
            epochs=epochs,
            device=self.device,
            progress=self.progress,
        )
        parts = {"train": view.train, "valid": view.valid}
        curves = {k: tuple(objective.metric(v, parts[k].y.size).tolist()) for k, v in totals.items()}
        flops = self._flops(architecture, setting, fidelity) * epochs
        curve = Curve(curves.get("train", ()), curves["valid"], flops, time.perf_counter() - started)
        return curve, {k: v.cpu() for k, v in network.state_dict().items()}

    def cost(self, architecture: Architecture, setting: Setting, fidelity: Fidelity) -> tuple[Cost, ...]:
        """The cost of that training in `setting.unit`; seconds are only known afterwards."""
        _, epochs = self._schedule(architecture, setting, fidelity)
        if fidelity.text:
            self._at(setting, fidelity)  # refuses what the space cannot be at
        if setting.unit == "flops":
            return (Cost("train", self._flops(architecture, setting, fidelity) * epochs),)
        if setting.unit == "seconds":
            raise ValueError("budget: seconds are only known after a training; use epochs, evaluations or flops")
        return (Cost("train", epochs * fidelity.data if setting.unit == "epochs" else 1.0),)

    def _schedule(self, a: Architecture, setting: Setting, fidelity: Fidelity) -> tuple[Pipeline, int]:
        check_fidelity(fidelity)
        overrides = self.space.training(a)
        if closed := sorted(set(overrides) - set(setting.pipeline.open)):
            raise ValueError(f"pipeline: {setting.pipeline.name!r} does not open {closed[0]!r} to the architecture")
        pipeline = replace(setting.pipeline, **overrides)
        check_pipeline(pipeline)
        return pipeline, int(min(fidelity.epochs, pipeline.epochs))

    def _at(self, setting: Setting, fidelity: Fidelity) -> tuple[SearchSpace, DataView]:
        """What is trained on what; the last answer is kept, since successive trainings mostly share their fidelity."""
        if setting.data is None:
            raise ValueError("data: training for real needs a data set")
        part = replace(fidelity, epochs=inf)
        if self._reduced is None or self._reduced[0] is not setting.data or self._reduced[1] != part:
            self._reduced = setting.data, part, reduced(self.space, setting.data, fidelity)
        return self._reduced[2]

    def _flops(self, a: Architecture, setting: Setting, fidelity: Fidelity) -> float:
        space, view = self._at(setting, fidelity)
        network = space.build(a, view.task)
        return training_flops(network, view.task, setting.pipeline, len(view.train), len(view.valid))
