"""Weights that a network takes over from another one, and those that it would have by itself."""

from __future__ import annotations

from torch import nn

from ...protocols import Architecture, Fidelity, SearchSpace, Setting, Weights
from ...protocols.streams import torch_generator
from ...protocols.training import materialise, reduced

__all__ = ["check_epochs", "check_setting", "inherited", "initial_network"]


def initial_network(
    space: SearchSpace, setting: Setting, architecture: Architecture, fidelity: Fidelity, *, seed: int
) -> nn.Module:
    """The network with the initial weights from which `setting.trainer` trains it, by a training seed."""
    assert setting.data is not None
    part, view = reduced(space, setting.data, fidelity)
    network = part.build(architecture, view.task)
    return materialise(network, torch_generator(seed, "init", architecture))


def inherited(child: Weights, parent: Weights) -> Weights:
    """The child's weights, of which every tensor that the parent has in the same name and shape is the parent's.

    Weight inheritance of Real et al. (2017, "Large-scale evolution of image classifiers", section 3.4), statistics of
    batch normalisation included.
    """
    return {
        name: parent[name] if name in parent and parent[name].shape == own.shape else own for name, own in child.items()
    }


def check_epochs(epochs: int | None) -> None:
    """ValueError unless these are a positive number of epochs, or None."""
    if epochs is not None and (not isinstance(epochs, int) or epochs < 1):
        raise ValueError(f"epochs: {epochs!r} is not a positive integer")


def check_setting(name: str, setting: Setting, epochs: int | None) -> None:
    """ValueError where there is nothing to train on, or the pipeline has fewer epochs."""
    if setting.trainer is None or setting.data is None:
        raise ValueError(f"estimator: {name!r} hands on trained weights, which no table holds, and needs --data")
    if epochs is not None and epochs > setting.pipeline.epochs:
        raise ValueError(
            f"epochs: {epochs} is more than the {setting.pipeline.epochs} of the pipeline {setting.pipeline.name!r}"
        )
