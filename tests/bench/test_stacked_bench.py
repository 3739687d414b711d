"""Stacked training against one network at a time, in one process, by CPU time."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from nasbed.methods.spaces.mlp import MLP
from nasbed.protocols.streams import generator, torch_generator
from nasbed.protocols.training import PIPELINES, fit, fit_stacked, load, materialise

NETWORKS, ALONE, GOAL = 32, 4, 5.0


def test_a_stack_of_32_is_five_times_as_fast_as_one_by_one() -> None:
    space, view = MLP(hidden=2, widths=(16,), dropout=False), load("digits")
    members = [(space.at(4 + i % 16), i // 16) for i in range(NETWORKS)]
    pipeline = replace(PIPELINES["adam"], epochs=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def one_by_one() -> float:
        started = time.process_time()
        for a, seed in members[:ALONE]:
            network = materialise(space.build(a, view.task), torch_generator(seed, "init", a))
            fit(network, view.train, {"valid": view.valid}, pipeline, order=generator(seed, "data-order", a))
        return (time.process_time() - started) / ALONE

    def side_by_side() -> float:
        started = time.process_time()
        networks = {(a, seed): space.build(a, view.task) for a, seed in members}
        fit_stacked(networks, view.train, {"valid": view.valid}, pipeline)
        return (time.process_time() - started) / NETWORKS

    try:
        one_by_one(), side_by_side()
        alone, stacked = (min(f() for _ in range(3)) for f in (one_by_one, side_by_side))
    finally:
        torch.set_num_threads(threads)
    print(f"CPU ms per network: alone {1e3 * alone:.1f}, stacked {1e3 * stacked:.2f}: {alone / stacked:.1f} times")
    assert alone / stacked >= GOAL
