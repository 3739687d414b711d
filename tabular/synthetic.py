"""Tables of known-answer worlds: the optimum is known, the noise is chosen. For tests and for learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..methods.spaces.synthetic import Synthetic
from ..protocols.streams import generator
from .format import write_table

EXAMPLES = 10_000


def write_synthetic_table(
    folder: str | Path,
    space: Synthetic,
    *,
    noise: float | None = None,
    seeds: int = 3,
    epochs: int = 1,
    root: int = 0,
) -> Path:
    """Write a complete table of a synthetic space under the pipeline `base`.

    The metric is accuracy on 10,000 imagined examples. One training's quality is truth + noise * N(0, 1); its
    validation and test accuracies share that, differ by another noise / 4 each, and are clipped to [0, 1]. Epoch e
    of E has in place of the truth the space's score at fidelity e / E, and reaches the share 1 - exp(-4 e / E) of
    the way, rescaled to end at the accuracy: but for clipping, at
    every epoch the members' order without noise is that of the scores.

    Args:
        folder: Of the new table.
        space: The world; its `truths()` are the qualities without noise.
        noise: Standard deviation of the quality between training seeds; None for the space's own.
        seeds: Training seeds.
        epochs: Epochs recorded; each costs 1, the clock is epochs.
        root: Seed of the noise.
    """
    noise = space.noise if noise is None else noise
    truth = space.truths()[:, None]
    fidelities = np.arange(1, epochs + 1) / epochs
    bias = np.stack([space.scores(fidelity=float(f)) for f in fidelities], axis=1) - truth
    rng = generator(root, "synthetic-table", space.name)
    quality = truth + noise * rng.standard_normal((len(truth), seeds))
    rise = 1 - np.exp(-4 * fidelities)
    arrays = {}
    for split in ("valid", "test"):
        seen = np.clip(quality + noise / 4 * rng.standard_normal(quality.shape), 0.0, 1.0)
        curve = np.clip(seen[:, :, None] + bias[:, None, :], 0.0, 1.0) * (rise / rise[-1])
        arrays[f"{split}.base"] = np.rint(curve * EXAMPLES).astype(np.uint16)
    manifest = {"name": Path(folder).name, "examples": {"valid": EXAMPLES, "test": EXAMPLES}}
    return write_table(folder, space, arrays, manifest)
