"""Estimators against their plain forms, in one process, by CPU time."""

from __future__ import annotations

import numpy as np

from nasbed.methods.networks.sub_networks import in_batches, logits, score_all, tensors
from nasbed.methods.networks.supernet import NB201Supernet
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import Split, Task
from nasbed.protocols.streams import torch_generator
from nasbed.protocols.training import materialise, one_thread
from nasbed.protocols.training.objectives import CLASSES

ALONE = 24


def test_all_sub_networks_at_once_are_faster_than_one_by_one(by_turns, median_ratio) -> None:
    """Cells of cheap operations, where calls cost more than arithmetic; of 3x3 convolutions it is 2 to 3 times."""
    space, rng = NB201(ops=("none", "skip_connect", "nor_conv_1x1"), channels=2, cells=1), np.random.default_rng(0)
    task = Task("random", "image", "accuracy", True, (1, 12, 12), 10, "")
    split = Split(rng.normal(size=(128, *task.shape)).astype(np.float32), rng.integers(10, size=128))
    network = materialise(NB201Supernet(space, task), torch_generator(0, "bench"))
    members = [space.at(i) for i in range(space.size or 0)]
    some = members[:: len(members) // ALONE]
    batches = in_batches(tensors(split, network)[0], 64)

    def naive() -> None:
        for a in some:
            for x in batches:
                logits(network, a, x, "batch")

    def shared() -> None:
        score_all(network, members, split, objective=CLASSES, batch_norm="batch", batch_size=64)

    with one_thread():
        naive(), shared()
        one, all_of_them = by_turns(naive, shared, repeats=3)
    one, all_of_them = [t / len(some) for t in one], [t / len(members) for t in all_of_them]
    ratio = median_ratio(one, all_of_them)
    print(
        f"sub-networks: CPU ms each, one by one {1e3 * min(one):.2f}, all {1e3 * min(all_of_them):.2f}: {ratio:.1f} x"
    )
    assert ratio >= 3.0
