"""SMASH: a hypernetwork that generates the weights of an architecture from its encoding (Brock et al.)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import cast

import torch
from torch import nn
from torch.func import functional_call

from ...protocols import Architecture, Cost, SearchSpace, Setting, Task
from ...protocols.streams import torch_generator
from ...protocols.training import materialise
from ..networks.one_shot import Batch, OneShot, Work, path_step
from ..networks.supernet import MLPSupernet, Supernet, dense
from ..networks.zero_cost import whole
from ..spaces.mlp import MLP

__all__ = ["SMASHHypernet"]

# Parameters of the largest hypernetwork: 256 MB.
_LARGEST = 2**26


class SMASHHypernet(OneShot):
    """Weights W = H(c) of an architecture's network (Brock et al. 2018, "SMASH", ICLR, algorithm 1), for perceptrons.

    H is a perceptron of one hidden layer that reads the one-hot encoding c, in place of memory banks. Each batch draws
    an architecture uniformly; the gradient of its loss reaches H alone, which holds all the weights there are. The
    score is the validation metric with W = H(c), without any training of the architecture.

    The null model is a random H, `epochs=0`: what its scores know, they know from the form of the network alone.

    Args:
        epochs: Of H; by default the pipeline's.
        units: Hidden units of H.
    """

    name = "smash_hypernet"

    def __init__(self, epochs: int | None = None, units: int = 64) -> None:
        super().__init__(epochs, "running")  # there is no batch normalisation in perceptrons
        whole("units", units, 1)
        self._units = units

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Train H; ValueError where the space is another one, or so large that H would be huge."""
        if not isinstance(space, MLP):
            raise ValueError(f"space: {space.name} has no hypernetwork; allowed: mlp and its restrictions")
        return super().prepare(space, setting, seed=seed)

    def _initial(self, space: SearchSpace, setting: Setting, seed: int) -> Supernet:
        network = HyperPerceptron(cast(MLP, space), setting.task, self._units)
        if (count := sum(p.numel() for p in network.parameters())) > _LARGEST:
            raise ValueError(f"space: {space.name} needs a hypernetwork of {count} parameters; allowed: {_LARGEST}")
        return cast(Supernet, materialise(network, torch_generator(seed, "supernet-init")))

    def _step(self, batch: Batch) -> Work:
        return path_step(self.supernet, self._objective, [self._space.sample(self._stream(batch))], batch)


class HyperPerceptron(Supernet):
    """H, on the meta device: one head for each dense layer of the space, of which narrower layers take leading units.

    What a head gives is divided by the square root of the layer's number of inputs, as initial weights are.

    Args:
        space: Whole or restricted.
        task: With inputs that can be flattened.
        units: Hidden units.
    """

    def __init__(self, space: MLP, task: Task, units: int) -> None:
        super().__init__()
        self._space, self._task = space, task
        largest = MLPSupernet(space, task)
        layers = [cast(nn.Linear, layer) for layer in (*largest.layers, largest.output)]
        self._shapes = [(layer.out_features, layer.in_features + 1) for layer in layers]
        with torch.device("meta"):
            self.hidden = nn.Linear(space.encode(space.at(0)).size, units)
            self.heads = nn.ModuleList(nn.Linear(units, prod(shape)) for shape in self._shapes)

    def forward(self, x: torch.Tensor, a: Architecture) -> torch.Tensor:
        """See `Supernet`; weights are generated anew in every pass."""
        network = self._space.build(a, self._task).train(self.training)
        out: torch.Tensor = functional_call(network, self._generated(a), (x,))
        return out

    def weights_of(self, a: Architecture) -> dict[str, torch.Tensor]:
        """H(c), detached."""
        return {key: value.detach() for key, value in self._generated(a).items()}

    def flops(self, a: Architecture) -> tuple[int, int]:
        """Of the generated network."""
        products = [2 * m.in_features * m.out_features for m in dense(self._space.build(a, self._task)).values()]
        return sum(products), 3 * sum(products) - products[0]

    def flops_per_pass(self, a: Architecture) -> tuple[int, int]:
        """Of H: its hidden layer and the heads of the layers that the architecture has, at their full widths."""
        used = [*self._shapes[: len(dense(self._space.build(a, self._task))) - 1], self._shapes[-1]]
        first = 2 * self.hidden.in_features * self.hidden.out_features
        heads = 2 * self.hidden.out_features * sum(map(prod, used))
        return first + heads, 2 * first + 3 * heads

    def _generated(self, a: Architecture) -> dict[str, torch.Tensor]:
        layers = dense(self._space.build(a, self._task))
        code = torch.from_numpy(self._space.encode(a)).to(self.hidden.weight)
        values = torch.relu(self.hidden(code))
        last = len(layers) - 1
        found = {}
        for i, (name, layer) in enumerate(layers.items()):
            at = i if i < last else -1
            weights = self.heads[at](values).view(self._shapes[at]) * layer.in_features**-0.5
            found[f"{name}.weight"] = weights[: layer.out_features, : layer.in_features]
            found[f"{name}.bias"] = weights[: layer.out_features, -1]
        return found
