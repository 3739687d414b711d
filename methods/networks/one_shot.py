"""One-shot models: how a supernet is trained, and what its sub-networks score (see `sub_networks`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import ClassVar, cast

import numpy as np
import torch

from ...protocols import Architecture, Cost, Observation, Pipeline, Proposal, SearchSpace, Setting, Traits
from ...protocols.streams import generator, integer, torch_generator
from ...protocols.training import materialise, one_thread
from ...protocols.training.descent import batches, learning_rate, make_optimizer
from ...protocols.training.objectives import Objective, objective_of
from ..meter import Meter
from .sub_networks import BATCH_NORMS, in_batches, norms, outputs_of, tensors, total
from .supernet import Supernet, supernet
from .zero_cost import whole

# Ingredients of a pipeline that act on batches, targets or layers: nobody has said what they do to a supernet.
_INGREDIENTS = (
    "label_smoothing", "dropout", "drop_path", "cutout", "mixup", "cutmix", "policy", "shake_shake",
)  # fmt: skip

# Logits of one pass over text in evaluation: 16 MB.
_AT_ONCE = 2**22


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch.

    Attributes:
        epoch: From 0.
        index: Within the epoch, from 0.
        progress: Share of the training that is done, in [0, 1).
        x: Inputs (n, ...).
        y: Targets (n, ...).
    """

    epoch: int
    index: int
    progress: float
    x: torch.Tensor
    y: torch.Tensor


@dataclass(frozen=True, slots=True)
class Work:
    """What one step computed: FLOPs, and passes of examples through a network."""

    flops: float
    examples: int


Step = Callable[[Batch], Work]
"""Leaves gradients on the shared weights; the optimizer's step follows."""


def fit(network: Supernet, setting: Setting, seed: int, epochs: int, step: Step) -> Cost:
    """Train shared weights in place, by the pipeline's optimizer and schedule, over `epochs` epochs.

    Weights that a batch leaves without a gradient stay as they are: neither decay nor momentum moves them.

    Args:
        network: On the CPU.
        setting: With data.
        seed: Of the order of the examples and the noise of dropout layers.
        epochs: 0 leaves the initial weights.
        step: One batch.

    Returns:
        What it cost, as "supernet".
    """
    assert setting.data is not None
    pipeline = replace(setting.pipeline, epochs=max(1, epochs))
    optimizer = make_optimizer(list(network.parameters()), pipeline)
    # The fused step cannot begin the momentum of some weights while others have theirs, as paths come by.
    optimizer.param_groups[0]["fused"] = False
    x, y = tensors(setting.data.train, network)
    network.train()
    work = Meter(setting, "supernet")
    # Dropout layers draw from torch's global generator, which is put back.
    with work, one_thread(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(integer(seed, "supernet-noise"))
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = learning_rate(pipeline, epoch)
            parts = batches(generator(seed, "supernet-order", epoch), len(x), pipeline.batch_size)
            for k, part in enumerate(parts):
                index = torch.from_numpy(part)
                optimizer.zero_grad(set_to_none=True)
                done = step(Batch(epoch, k, (epoch + k / len(parts)) / epochs, x[index], y[index]))
                optimizer.step()
                work.add(flops=done.flops, examples=done.examples)
    return work.cost


def path_step(network: Supernet, objective: Objective, paths: Sequence[Architecture], batch: Batch) -> Work:
    """Add up the gradients of the loss of some sub-networks on one batch."""
    flops = 0.0
    for a in paths:
        objective.loss(network(batch.x, a), batch.y).backward()  # type: ignore[no-untyped-call]
        flops += len(batch.x) * network.flops(a)[1] + network.flops_per_pass(a)[1]
    return Work(flops, len(paths) * len(batch.x))


class OneShot:
    """Trains a supernet in `prepare`; a score is the validation metric of a sub-network with the shared weights.

    What the one-shot estimators share; each says what one training step is. Scores under-estimate what the
    architectures reach by themselves. All candidates see the same validation examples in the same batches: those of
    the pipeline's size, of text larger ones. Nothing is trained for a proposal, so its fidelity changes nothing.

    Charged are the training (kind "supernet") and each evaluation ("evaluate"), recalibration included. In the unit
    epochs each example that passes counts, those of validation too, over the number of training examples: no answer is
    free. FLOPs are those of what is computed.

    Args:
        epochs: Of the supernet; by default the pipeline's.
        batch_norm: `batch`, `running` or `recalibrate`; see `methods.networks.sub_networks`.
        calibration_batches: Training batches for `recalibrate`, the same for all candidates.
    """

    traits = Traits(accuracy_scale=True, deterministic=False, needs_data=True)
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    name = "one_shot"

    def __init__(
        self, epochs: int | None = None, batch_norm: str = "recalibrate", calibration_batches: int = 20
    ) -> None:
        if epochs is not None:
            whole("epochs", epochs, 0)
        whole("calibration_batches", calibration_batches, 1)
        if batch_norm not in BATCH_NORMS:
            raise ValueError(f"batch_norm: {batch_norm!r} is not one of {', '.join(BATCH_NORMS)}")
        self._epochs, self._batch_norm, self._calibration_batches = epochs, batch_norm, calibration_batches

    def fits(self, setting: Setting) -> None:
        """ValueError where there are no data, the clock counts evaluations, or the pipeline has ingredients."""
        if setting.data is None:
            raise ValueError(f"estimator: {self.name!r} trains a supernet and needs --data")
        if setting.unit == "evaluations":
            raise ValueError(
                f"budget: the training of the supernet of {self.name!r} is no number of evaluations; "
                "allowed: seconds, epochs, flops"
            )
        for field in _INGREDIENTS:
            if value := getattr(setting.pipeline, field):
                raise ValueError(f"pipeline.{field}: {value!r} is not for supernets; allowed: pipelines without it")

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Train the supernet.

        Raises:
            ValueError: See `fits` and `supernet`.
        """
        self.fits(setting)
        assert setting.data is not None
        self._space, self._setting, self._seed = space, setting, seed
        self._objective = objective_of(setting.task)
        self.supernet = self._initial(space, setting, seed)
        epochs = setting.pipeline.epochs if self._epochs is None else self._epochs
        cost = fit(self.supernet, setting, seed, epochs, self._step)
        pipeline: Pipeline = setting.pipeline
        size = pipeline.batch_size
        if setting.task.kind == "text":  # nothing is normalised over a batch, and few long passes are fast
            size = max(1, _AT_ONCE // (setting.task.shape[0] * (setting.task.classes or 1)))
        x, y = tensors(setting.data.valid, self.supernet)
        self._xs, self._ys = in_batches(x, size), in_batches(y, size)
        self._calibration: list[torch.Tensor] = []
        if self._batch_norm == "recalibrate" and norms(self.supernet):
            x, _ = tensors(setting.data.train, self.supernet)
            chosen = batches(generator(seed, "calibration"), len(x), pipeline.batch_size)[: self._calibration_batches]
            self._calibration = [x[torch.from_numpy(part)] for part in chosen]
        return (cost,)

    def _initial(self, space: SearchSpace, setting: Setting, seed: int) -> Supernet:
        rng = torch_generator(seed, "supernet-init")
        return cast(Supernet, materialise(supernet(space, setting.task), rng))

    def _step(self, batch: Batch) -> Work:
        raise NotImplementedError

    def _stream(self, batch: Batch) -> np.random.Generator:
        return generator(self._seed, "supernet-path", batch.epoch, batch.index)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One evaluation of the trained supernet for each proposal."""
        return [self._evaluate(p) for p in proposals]

    def _evaluate(self, p: Proposal) -> Observation:
        a, value, reason = p.architecture, nan, "the shared weights give outputs that are not finite"
        work = Meter(self._setting, "evaluate")
        with work, one_thread():
            try:
                self._space.check(a)
                outputs = outputs_of(self.supernet, a, self._xs, self._batch_norm, self._calibration)
                totals = [total(o, y, self._objective) for o, y in zip(outputs, self._ys, strict=True)]
                value = float(self._objective.metric(np.array(sum(totals)), sum(y.numel() for y in self._ys)))
                seen = [*self._xs, *self._calibration]
                examples = sum(map(len, seen))
                flops = examples * self.supernet.flops(a)[0] + len(seen) * self.supernet.flops_per_pass(a)[0]
                work.add(flops=flops, examples=examples, evaluations=1)
            except (ValueError, RuntimeError) as error:
                reason = str(error).partition("\n")[0]
        if not isfinite(value):
            return Observation(p, nan, (work.cost,), status="crashed", reason=reason)
        return Observation(p, value if self._setting.task.higher_is_better else -value, (work.cost,))
