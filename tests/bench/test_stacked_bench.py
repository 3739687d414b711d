"""Many networks at once against one at a time, in one process, by CPU time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import Split, Task
from nasbed.protocols.streams import torch_generator
from nasbed.protocols.training import PIPELINES, fit_from_seed, fit_stacked, load, materialise, one_thread
from nasbed.protocols.training.compiled import fit_compiled
from nasbed.protocols.training.descent import make_optimizer
from nasbed.protocols.training.lockstep import Lockstep
from nasbed.protocols.training.objectives import CLASSES
from nasbed.protocols.training.stacked import Batch

PERCEPTRONS, CELLS = 32, 4


def report(name: str, alone: list[float], stacked: list[float], ratio: float) -> None:
    print(f"{name}: CPU ms per network, alone {1e3 * min(alone):.1f}, together {1e3 * min(stacked):.2f}: {ratio:.2f} x")


def test_32_perceptrons_are_five_times_as_fast_as_one_by_one(by_turns, median_ratio) -> None:
    space, view = MLP(hidden=2, widths=(16,), dropout=False), load("digits")
    members = [(space.at(4 + i % 16), i // 16) for i in range(PERCEPTRONS)]
    pipeline, alone = replace(PIPELINES["adam"], epochs=2), 4

    def one_by_one() -> None:
        for a, seed in members[:alone]:
            fit_from_seed(space.build(a, view.task), a, seed, view.train, {"valid": view.valid}, pipeline)

    def side_by_side() -> None:
        networks = {(a, seed): space.build(a, view.task) for a, seed in members}
        fit_stacked(networks, view.train, {"valid": view.valid}, pipeline)

    with one_thread():
        one_by_one(), side_by_side()
        single, stacked = by_turns(one_by_one, side_by_side, repeats=3)
    single, stacked = [t / alone for t in single], [t / PERCEPTRONS for t in stacked]
    ratio = median_ratio(single, stacked)
    report("perceptrons", single, stacked, ratio)
    assert ratio >= 5.0


def test_cells_are_faster_than_one_by_one(by_turns, median_ratio) -> None:
    """Asserted of the trainer that the CPU takes, whole trainings; that of a GPU is measured beside it, by the step."""
    space, rng = NB201(channels=8, cells=1), np.random.default_rng(0)
    task = Task("random", "image", "accuracy", True, (1, 8, 8), 10, "")
    members = [(space.sample(rng), seed) for seed in range(CELLS)]
    pipeline = replace(PIPELINES["sgd_cosine"], epochs=1, batch_size=64)
    split = Split(rng.normal(size=(256, *task.shape)).astype(np.float32), rng.integers(10, size=256))
    batch = [torch.from_numpy(part[:64]) for part in (split.x, split.y)]
    weights = {m: materialise(space.build(m[0], task), torch_generator(m[1], "init", m[0])) for m in members}
    optimizers = [make_optimizer(list(network.parameters()), pipeline) for network in weights.values()]
    stack = Lockstep(list(weights.values()), pipeline)
    optimizer = make_optimizer(list(stack.parameters), pipeline)

    def one_by_one() -> None:
        for a, seed in members:
            fit_from_seed(space.build(a, task), a, seed, split, {"valid": split}, pipeline)

    def compiled() -> None:
        fit_compiled({(a, seed): space.build(a, task) for a, seed in members}, split, {"valid": split}, pipeline)

    def steps() -> None:
        for network, own in zip(weights.values(), optimizers, strict=True):
            own.zero_grad()
            CLASSES.loss(network(batch[0]), batch[1]).backward()
            own.step()

    def lockstep() -> None:
        stack.gradients(*(t.expand(CELLS, *t.shape) for t in batch), Batch(), CLASSES)
        optimizer.step()

    functions = (one_by_one, compiled, steps, lockstep)
    with one_thread():
        for function in functions:
            function()
        taken = [[t / CELLS for t in times] for times in by_turns(*functions, repeats=3)]
    whole, step = (median_ratio(*pair) for pair in (taken[:2], taken[2:]))
    report("trainings of cells, compiled", *taken[:2], whole)
    report("steps of cells, lockstep", *taken[2:], step)
    assert whole >= 1.2
