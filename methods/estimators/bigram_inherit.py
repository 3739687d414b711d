"""Bigram sharing: layers of perceptrons start from the last weights trained between two such layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from math import isfinite, nan
from typing import ClassVar

from torch import nn

from ...protocols import Cost, Observation, Proposal, SearchSpace, Setting, Traits, Weights
from ..networks.inheritance import check_epochs, check_setting, initial_network

__all__ = ["BigramInherit"]

Layer = tuple[int, str]
"""Units and activation."""

_GLOBAL: dict[str, dict[tuple[Layer, Layer], Weights]] = {}


class BigramInherit:
    """The weight sharing of MLPNAS (Minutoli & Ciranni's overview, sections 4 and 5), on perceptrons.

    A bigram is two successive layers, each by its units and activation; dropouts are left out, the input comes first
    and the output last. Its weights are those between the two: weight matrix and bias of the second. Before a training
    every layer takes what is stored for its bigram, if anything is, else it keeps its own initial weights; afterwards
    all are stored, in place of what was there. Of a bigram that a network has twice, the later one is stored.

    A score depends on the proposals before, therefore, and on their order, but on no seed of its own. What a training
    that diverged leaves is not stored. `Proposal.parent` is not looked at.

    Args:
        epochs: Of every training, at least 1; by default all of the pipeline's, as published.
        store: "run": one store for each run. "global": one for all estimators of this process and data set, so that a
            run profits from the runs before it: a leak between runs, whose results depend on what ran before.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    traits = Traits(accuracy_scale=True, deterministic=True, remembers=True)

    def __init__(self, epochs: int | None = None, store: str = "run") -> None:
        check_epochs(epochs)
        if store not in ("run", "global"):
            raise ValueError(f"store: {store!r} is not one of run, global")
        self._epochs, self._shared = epochs, store == "global"

    def fits(self, setting: Setting) -> None:
        """ValueError where the study has no data to train on, or the pipeline has fewer epochs."""
        check_setting("bigram_inherit", setting, self._epochs)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Nothing to pay; ValueError where the space is not `mlp`."""
        self.fits(setting)
        if getattr(space, "family", space.name) != "mlp":
            raise ValueError(f"estimator: 'bigram_inherit' shares layers of the space 'mlp', not of {space.name!r}")
        self._space, self._setting = space, setting
        self._limit = self._epochs or setting.pipeline.epochs
        self._sign = 1.0 if setting.task.higher_is_better else -1.0
        self._store = _GLOBAL.setdefault(setting.task.digest, {}) if self._shared else {}
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One training for each proposal."""
        return [self._train(p) for p in proposals]

    def _train(self, p: Proposal) -> Observation:
        setting, a = self._setting, p.architecture
        assert setting.trainer is not None
        fidelity = replace(p.fidelity, epochs=min(p.fidelity.epochs, self._limit))
        costs = setting.trainer.cost(a, setting, fidelity)
        seed = setting.train_seed(a)
        network = initial_network(self._space, setting, a, fidelity, seed=seed)
        assert isinstance(network, nn.Sequential)
        layers = list(bigrams(network))
        init = network.state_dict()
        for name, key in layers:
            init |= {f"{name}.{k}": v for k, v in self._store.get(key, {}).items()}
        curve, weights = setting.trainer.train(a, setting, seed=seed, fidelity=fidelity, init=init)
        if not isfinite(curve.valid[-1]):
            return Observation(p, nan, costs, status="crashed", reason="training diverged")
        for name, key in layers:
            self._store[key] = {k: weights[f"{name}.{k}"] for k in ("weight", "bias")}
        return Observation(p, self._sign * curve.valid[-1], costs, curve.valid)


def bigrams(network: nn.Sequential) -> Iterator[tuple[str, tuple[Layer, Layer]]]:
    """The name of each linear layer of a perceptron, from front to back, and its bigram."""
    layers = [(str(k), m) for k, m in enumerate(network) if not isinstance(m, (nn.Flatten, nn.Dropout))]
    before: Layer | None = None
    for (name, layer), (_, following) in zip(layers, chain(layers[1:], [("", None)]), strict=True):
        if isinstance(layer, nn.Linear):
            before = before or (layer.in_features, "input")
            here = (layer.out_features, "output" if following is None else type(following).__name__)
            yield name, (before, here)
            before = here
