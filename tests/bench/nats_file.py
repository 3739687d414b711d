"""A synthetic archive in the format that nats_bench 1.8 reads in its fast mode: one file per architecture.

Fields and data sets are those that its API touches; weights are left out, values are invented. Each data set has
two trainings of 12 epochs. Fewer results and no weights make the peer faster, not slower.
"""

from __future__ import annotations

import bz2
import pickle

import numpy as np

ARCHITECTURES, EPOCHS, TRIALS = 40, 12, (111, 777)
EVALUATED_ON = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}


def write_archive(folder, texts):
    """Write the list of all architectures, `texts`, and the results of the first 40."""
    folder.mkdir()
    _dump(folder / "meta.pickle.pbz2", {"meta_archs": list(texts)})
    rng = np.random.default_rng(0)
    for index in range(ARCHITECTURES):
        results = {
            "arch_index": index,
            "arch_str": texts[index],
            "all_results": {(d, t): _training(d, t, texts[index], rng) for d in EVALUATED_ON for t in TRIALS},
            "dataset_seed": {d: list(TRIALS) for d in EVALUATED_ON},
            "clear_net_done": True,
        }
        _dump(folder / f"{index:06d}.pickle.pbz2", {str(EPOCHS): results})
    return folder


def _training(data, seed, text, rng):
    epochs, sets = range(EPOCHS), EVALUATED_ON[data]
    keys = [f"{name}@{epoch}" for name in sets for epoch in epochs]
    return {
        "name": "infer.tiny",
        "net_state_dict": None,
        "train_acc1es": {e: float(rng.uniform(10, 90)) for e in epochs},
        "train_acc5es": {e: float(rng.uniform(50, 100)) for e in epochs},
        "train_losses": {e: float(rng.uniform(0, 3)) for e in epochs},
        "train_times": {e: float(rng.uniform(8, 12)) for e in epochs},
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": text, "class_num": 10},
        "params": 0.5,
        "flop": 80.0,
        "seed": seed,
        "epochs": EPOCHS,
        "latency": [float(x) for x in rng.uniform(0.01, 0.02, 10)],
        "eval_names": list(sets),
        "eval_acc1es": {k: float(rng.uniform(10, 90)) for k in keys},
        "eval_losses": {k: float(rng.uniform(0, 3)) for k in keys},
        "eval_times": {k: float(rng.uniform(0.5, 1.0)) for k in keys},
    }


def _dump(path, value):
    with bz2.open(path, "wb") as file:
        pickle.dump(value, file, protocol=4)
