"""A synthetic archive in the format that nats_bench 1.8 reads in its fast mode: one file per architecture.

Keys, lengths and types are those of the published topology archive (NATS-tss-v1_0-3ffb9-simple): the API copies a
whole file at every query, so that what it costs depends on them. The values are invented.
"""

from __future__ import annotations

import bz2
import pickle

import numpy as np

ARCHITECTURES = 40
EVALUATED_ON = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("ori-test", "x-valid", "x-test"),
    "ImageNet16-120": ("ori-test", "x-valid", "x-test"),
}


def trials(epochs, data):
    """Training seeds: trainings of 200 epochs have three, those of 12 have two on one data set and else one."""
    if epochs == 200:
        return [777, 888, 999]
    return [111, 777] if data == "cifar10-valid" else [111]


def write_archive(folder, texts):
    """Write the list of all architectures, `texts`, and the results of the first 40."""
    folder.mkdir()
    _dump(folder / "meta.pickle.pbz2", {"meta_archs": list(texts)})
    rng = np.random.default_rng(0)
    for index in range(ARCHITECTURES):
        results = {str(epochs): _results(index, texts[index], epochs, rng) for epochs in (12, 200)}
        _dump(folder / f"{index:06d}.pickle.pbz2", results)
    return folder


def _results(index, text, epochs, rng):
    seeds = {data: trials(epochs, data) for data in EVALUATED_ON}
    trained = {(d, s): _training(d, s, text, epochs, rng) for d in EVALUATED_ON for s in seeds[d]}
    return {
        "arch_index": index,
        "arch_str": text,
        "all_results": trained,
        "dataset_seed": seeds,
        "clear_net_done": True,
    }


def _training(data, seed, text, epochs, rng):
    sets = EVALUATED_ON[data]
    every = [f"{name}@{epoch}" for name in sets for epoch in range(epochs)]
    # Trainings of 200 epochs were evaluated on the first set after each epoch, on the others after the last.
    last = [f"{name}@{epochs - 1}" for name in sets[1:]]
    evaluated = [*every[:epochs], *last] if epochs == 200 else every

    def values(keys, low, high):
        return dict(zip(keys, rng.uniform(low, high, len(keys)).tolist(), strict=True))

    return {
        "name": "ResultsCount",
        "net_state_dict": None,
        "train_acc1es": values(range(epochs), 10, 90),
        "train_acc5es": values(range(epochs), 50, 100) if epochs == 12 else None,
        "train_losses": values(range(epochs), 0, 3),
        "train_times": values(range(epochs), 8, 12),
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": text, "class_num": 10},
        "params": np.float64(0.5),
        "flop": 80.0,
        "seed": f"{seed:04d}",
        "epochs": epochs,
        "latency": [np.float64(0.015)],
        "eval_names": list(sets),
        "eval_acc1es": values(evaluated, 10, 90),
        "eval_losses": values(evaluated, 0, 3),
        "eval_times": values(every, 0.5, 1.0),
    }


def _dump(path, value):
    with bz2.open(path, "wb") as file:
        pickle.dump(value, file, protocol=4)
