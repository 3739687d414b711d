"""Tables of known-answer worlds: the optimum is known, the noise is chosen. For tests and for learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..methods.spaces.synthetic import Synthetic
from ..protocols.streams import generator
from .format import write_table

EXAMPLES = 10_000


def write_synthetic_table(
    folder: str | Path, space: Synthetic, *, noise: float = 0.01, seeds: int = 3, epochs: int = 1, root: int = 0
) -> Path:
    """Write a complete table of a synthetic space under the pipeline `base`.

    The metric is accuracy on 10,000 imagined examples. One training's quality is truth + noise * N(0, 1),
    clipped to [0, 1]; its validation and test accuracies share that and differ by another noise / 4. Epoch e
    of E reaches the share 1 - exp(-4 e / E) of the way, rescaled to end at the quality.

    Args:
        folder: Of the new table.
        space: The world; its `truths()` are the qualities without noise.
        noise: Standard deviation between training seeds.
        seeds: Training seeds.
        epochs: Epochs recorded; each costs 1, the clock is epochs.
        root: Seed of the noise.
    """
    truth = space.truths()[:, None]
    rng = generator(root, "synthetic-table", space.name)
    quality = truth + noise * rng.standard_normal((len(truth), seeds))
    rise = 1 - np.exp(-4 * np.arange(1, epochs + 1) / epochs)
    arrays = {}
    for split in ("valid", "test"):
        seen = np.clip(quality + noise / 4 * rng.standard_normal(quality.shape), 0.0, 1.0)
        curve = seen[:, :, None] * (rise / rise[-1])
        arrays[f"{split}.base"] = np.rint(curve * EXAMPLES).astype(np.uint16)
    manifest = {"name": Path(folder).name, "examples": {"valid": EXAMPLES, "test": EXAMPLES}}
    return write_table(folder, space, arrays, manifest)
