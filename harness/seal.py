"""The seal: the only place of the harness that opens test values, after a run's last ask or for an audit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..protocols import FULL, Architecture, Incumbent, Json, SearchSpace, Setting
from ..tabular import MappedTable
from ..tabular.facts import quality
from ..tabular.sealed import unseal, unseal_fgsm


def reveal(table: MappedTable, pipeline: str, incumbents: Sequence[Incumbent]) -> dict[str, Json]:
    """What a record says of its incumbents once the run is over; `fgsm` of those whose table has it."""
    means = {"test": quality(unseal(table, pipeline))}
    if (attacked := unseal_fgsm(table, pipeline)) is not None:
        means["fgsm"] = quality(attacked)
    rows = [table.row(i.architecture) for i in incumbents]
    return {
        "incumbents": [
            {**{k: float(v[row]) for k, v in means.items()}, **_described(table.space, i.architecture, table)}
            for row, i in zip(rows, incumbents, strict=True)
        ],
        "retrained": None,
    }


def _described(space: SearchSpace, a: Architecture, table: MappedTable) -> dict[str, Json]:
    features: dict[str, Json] = {}
    with suppress(ValueError):  # the space has no networks for the task: nobody trained these
        features = dict(space.features(a, table.task)) if table.task.classes else {}
    return {"features": features, "text": space.text(a)}


def facts(table: MappedTable, pipeline: str) -> dict[str, Json]:
    """What regrets are measured against, for the study record: written once, after all runs.

    `best`, `median`, `mean`, `worst` are over the architectures of the space, of the mean over the training seeds that
    are there; None where infinite. `seed_noise` is the standard deviation between seeds of one architecture, pooled
    over all architectures without a diverged training; `seed_noise_top` the same over the best tenth, where searches
    end. `training_seeds` is the number of trainings that stand behind a mean: the harmonic mean where it differs.
    `missing_trainings` and `diverged_trainings` count what is not there, and what is infinite.
    """
    rows = table.members()
    values = unseal(table, pipeline)[rows]
    f = quality(values)
    sign = 1.0 if table.task.higher_is_better else -1.0
    order = np.argsort(-sign * f, kind="stable")[: int((~np.isnan(f)).sum())]
    found: dict[str, Json] = {
        "best": _finite(f[order[0]]),
        "median": _finite(np.nanmedian(f)),
        "mean": _finite(np.nanmean(f)),
        "worst": _finite(f[order[-1]]),
        "best_architecture": table.text(int(rows[order[0]])),
        "seed_noise": _pooled_sd(values),
        "seed_noise_top": _pooled_sd(values[order[: -(-len(order) // 10)]]),
        "training_seeds": _typical(values),
        "missing_trainings": int(np.isnan(values).sum()),
        "diverged_trainings": int(np.isinf(values).sum()),
    }
    if (attacked := unseal_fgsm(table, pipeline)) is not None:
        g = quality(attacked[rows])
        found["fgsm"] = {"epsilon": table.manifest["fgsm_epsilon"], "best": float(np.nanmax(g)),
                         "median": float(np.nanmedian(g))}  # fmt: skip
    return found


def truth_values(table: MappedTable, pipeline: str) -> np.ndarray:
    """Test metric of every training, for an audit, which runs no method: (architectures, seeds), NaN where missing.

    One line is one of `table.members()`; accuracies are fractions.
    """
    values: np.ndarray = unseal(table, pipeline)[table.members()]
    return values


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _typical(values: np.ndarray) -> int:
    """Seeds per row that has any; where rows differ, their harmonic mean, which gives the mean squared error."""
    n = (~np.isnan(values)).sum(1)
    n = n[n > 0]
    return int(n[0] if (n == n[0]).all() else len(n) / (1.0 / n).sum())


def _pooled_sd(values: np.ndarray) -> float | None:
    """Standard deviation around the row means, None where no row has two values, all of them finite."""
    values = values[~np.isinf(values).any(1)]
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
        scores.append(measure(network, test, objective_of(setting.task), pipeline=setting.pipeline))
        spent += sum(c.amount for c in trainer.cost(final, setting, FULL))
    return {"incumbents": described, "retrained": {"test": scores, "cost": spent}}
