"""Many trainings by the fastest trainer that can do them: compiled, stacked, or one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from ..architecture import Architecture
from ..task import Pipeline, Split
from .objectives import CLASSES, Objective
from .reference import fit_from_seed

Keyed = Mapping[tuple[Architecture, int], nn.Module]


def fit_many(
    networks: Keyed,
    train: Split,
    evaluate: Mapping[str, Split],
    pipeline: Pipeline,
    *,
    objective: Objective = CLASSES,
    device: str = "cpu",
    recorded: Sequence[int] | None = None,
    attack: tuple[str, float] | None = None,
) -> tuple[dict[str, np.ndarray], str]:
    """Train K networks from their seeds.

    On the CPU convolutional networks are compiled. What cannot be compiled is stacked, and what cannot be stacked
    either, for its layers or for the pipeline's ingredients, is trained by the reference trainer.

    Args:
        networks: On the meta device, by (architecture, training seed).
        train: See `stacked.fit_stacked`, as for all arguments but the last.
        evaluate: See there.
        pipeline: See there.
        objective: See there.
        device: See there.
        recorded: See there.
        attack: Name of a split and size of a fast gradient sign attack on it after the last epoch; classes only.

    Returns:
        Totals (K, recorded epochs) by split, and "fgsm" (K, 1), correct under attack; and the name of the trainer.
    """
    from .buckets import bucket_size, fit_in_buckets
    from .compiled import fit_compiled
    from .program import UnsupportedError

    if device == "cpu" and objective is CLASSES and train.x.ndim == 4 and not (pipeline.policy or pipeline.shake_shake):
        try:
            totals, _ = fit_compiled(networks, train, evaluate, pipeline, recorded=recorded, attack=attack)
            return totals, "compiled"
        except UnsupportedError:
            pass
    try:
        # On the CPU a stack is as large as the bucket; the memory of a GPU is smaller.
        size = len(networks) if device == "cpu" else bucket_size(networks, train, pipeline, device=device)
        totals, states = fit_in_buckets(
            networks, train, evaluate, pipeline, size=size, objective=objective, device=device, recorded=recorded
        )
        name = "stacked"
    except ValueError:
        if not networks:
            raise
        totals, states = _one_by_one(networks, train, evaluate, pipeline, objective, device, recorded)
        name = "reference"
    if attack:
        counts = [
            _withstood(n, s, evaluate[attack[0]], attack[1]) for n, s in zip(networks.values(), states, strict=True)
        ]
        totals["fgsm"] = np.array(counts)[:, None]
    return totals, name


def _one_by_one(
    networks: Keyed,
    train: Split,
    evaluate: Mapping[str, Split],
    pipeline: Pipeline,
    objective: Objective,
    device: str,
    recorded: Sequence[int] | None,
) -> tuple[dict[str, np.ndarray], list[dict[str, torch.Tensor]]]:
    found: dict[str, list[np.ndarray]] = {}
    states = []
    for (architecture, seed), meta in networks.items():
        network, totals = fit_from_seed(
            meta, architecture, seed, train, evaluate, pipeline, objective=objective, recorded=recorded, device=device
        )
        for split, values in totals.items():
            found.setdefault(split, []).append(values)
        states.append({name: t.cpu() for name, t in network.state_dict().items()})
    return {split: np.stack(values) for split, values in found.items()}, states


def _withstood(network: nn.Module, state: Mapping[str, torch.Tensor], split: Split, epsilon: float) -> int:
    """Correct predictions under the fast gradient sign attack (Goodfellow et al. 2015, section 4), on the CPU."""
    network = network.to_empty(device="cpu")
    network.load_state_dict(dict(state), strict=False)
    network.eval()
    correct = 0
    parts = (torch.split(torch.from_numpy(array), 256) for array in (split.x, split.y))
    for x, y in zip(*parts, strict=True):
        moved = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(network(moved), y), moved)
        with torch.no_grad():
            correct += int((network(x + epsilon * slope.sign()).argmax(1) == y).sum())
    return correct
