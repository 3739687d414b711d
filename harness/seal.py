"""The seal: the only place of the house that opens test values, and only after a run's last ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..protocols import FULL, Architecture, Incumbent, Json, SearchSpace, Setting
from ..tabular import MappedTable
from ..tabular.format import MISSING


@dataclass(frozen=True, slots=True)
class TestValues:
    """Test metric of every training, (rows, seeds), higher is better, NaN where missing; open only briefly."""

    values: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over the training seeds that are there, (rows,): what a report calls f(a)."""
        present = ~np.isnan(self.values)
        total = np.where(present, self.values, 0.0).sum(1)
        means: np.ndarray = np.divide(total, present.sum(1), out=np.full(len(total), np.nan), where=present.any(1))
        return means


def unseal(table: MappedTable, pipeline: str) -> TestValues:
    """Read the sealed values after the last epoch of a pipeline."""
    path = table.folder / "sealed" / f"test.{pipeline}.npy"
    last = np.load(path, mmap_mode="r", allow_pickle=False)[:, :, -1]
    if table.task.metric == "accuracy":
        values = np.where(last == MISSING, np.nan, last / table.manifest["examples"]["test"])
    else:
        values = np.array(last, np.float64)
    return TestValues(values if table.task.higher_is_better else -values)


def reveal(table: MappedTable, pipeline: str, incumbents: Sequence[Incumbent]) -> dict[str, Json]:
    """What a record says of its incumbents once the run is over."""
    means = unseal(table, pipeline).mean
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

    `best`, `median`, `mean`, `worst` are over architectures, of the mean over training seeds; `seed_noise` is
    the standard deviation between seeds of one architecture, pooled over architectures.
    """
    sealed = unseal(table, pipeline)
    f = sealed.mean
    spread = np.nanvar(sealed.values, axis=1, ddof=1) if sealed.values.shape[1] > 1 else np.array([np.nan])
    best = int(np.nanargmax(f))
    return {
        "best": float(np.nanmax(f)),
        "median": float(np.nanmedian(f)),
        "mean": float(np.nanmean(f)),
        "worst": float(np.nanmin(f)),
        "best_architecture": table.text(best),
        "seed_noise": None if np.isnan(spread).all() else float(np.sqrt(np.nanmean(spread))),
        "training_seeds": sealed.values.shape[1],
    }


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

    from ..protocols.training import load_test
    from ..protocols.training.reference import ReferenceTrainer, count_correct

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
        scores.append(count_correct(network, test) / len(test))
        spent += sum(c.amount for c in trainer.cost(final, setting, FULL))
    return {"incumbents": described, "retrained": {"test": scores, "cost": spent}}
