"""The seal: the only place of the harness that opens test values, and only after a run's last ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..protocols import FULL, Architecture, Incumbent, Json, SearchSpace, Setting
from ..tabular import MappedTable
from ..tabular.sealed import unseal


def quality(values: np.ndarray) -> np.ndarray:
    """Mean over the training seeds that are there, (rows,): what a report calls f(a)."""
    present = ~np.isnan(values)
    total = np.where(present, values, 0.0).sum(1)
    means: np.ndarray = np.divide(total, present.sum(1), out=np.full(len(total), np.nan), where=present.any(1))
    return means


def reveal(table: MappedTable, pipeline: str, incumbents: Sequence[Incumbent]) -> dict[str, Json]:
    """What a record says of its incumbents once the run is over."""
    means = quality(unseal(table, pipeline))
    rows = [table.row(i.architecture) for i in incumbents]
    return {
        "incumbents": [
            {"test": float(means[row]), **_described(table.space, i.architecture, table)}
            for row, i in zip(rows, incumbents, strict=True)
        ],
        "retrained": None,
    }


def _described(space: SearchSpace, a: Architecture, table: MappedTable) -> dict[str, Json]:
    features = space.features(a, table.task) if table.task.classes else {}
    return {"features": dict(features), "text": space.text(a)}


def facts(table: MappedTable, pipeline: str) -> dict[str, Json]:
    """What regrets are measured against, for the study record: written once, after all runs.

    `best`, `median`, `mean`, `worst` are over architectures, of the mean over training seeds. `seed_noise` is
    the standard deviation between seeds of one architecture, pooled over all architectures;
    `seed_noise_top` the same over the best tenth, where searches end.
    """
    values = unseal(table, pipeline)
    f = quality(values)
    sign = 1.0 if table.task.higher_is_better else -1.0
    order = np.argsort(-sign * f, kind="stable")[: int((~np.isnan(f)).sum())]
    return {
        "best": float(f[order[0]]),
        "median": float(np.nanmedian(f)),
        "mean": float(np.nanmean(f)),
        "worst": float(f[order[-1]]),
        "best_architecture": table.text(int(order[0])),
        "seed_noise": _pooled_sd(values),
        "seed_noise_top": _pooled_sd(values[order[: -(-len(order) // 10)]]),
        "training_seeds": values.shape[1],
    }


def _pooled_sd(values: np.ndarray) -> float | None:
    """Standard deviation around the row means, None where no row has two values."""
    freedom = int(np.maximum((~np.isnan(values)).sum(1) - 1, 0).sum())
    return float(np.sqrt(np.nansum((values - quality(values)[:, None]) ** 2) / freedom)) if freedom else None


def retrain(
    space: SearchSpace,
    setting: Setting,
    incumbents: Sequence[Incumbent],
    *,
    seeds: Sequence[int],
    data: str,
    data_root: Path | None,
) -> dict[str, Json]:
    """Without a table: train the final incumbent again from fresh seeds and measure it on the test split."""
    import torch

    from ..protocols.training import ReferenceTrainer, load_test, measure, objective_of

    described = [
        {
            "test": None,
            "features": dict(space.features(i.architecture, setting.task)),
            "text": space.text(i.architecture),
        }
        for i in incumbents
    ]
    if not incumbents or not seeds:
        return {"incumbents": described, "retrained": None}
    final = incumbents[-1].architecture
    trainer = setting.trainer
    assert isinstance(trainer, ReferenceTrainer)
    test = load_test(data, data_root)
    scores, spent = [], 0.0
    for seed in seeds:
        _, weights = trainer.train(final, setting, seed=seed, fidelity=FULL)
        network = space.build(final, setting.task).to_empty(device="cpu").to(torch.float32)
        network.load_state_dict(dict(weights))
        scores.append(measure(network, test, objective_of(setting.task)))
        spent += sum(c.amount for c in trainer.cost(final, setting, FULL))
    return {"incumbents": described, "retrained": {"test": scores, "cost": spent}}
