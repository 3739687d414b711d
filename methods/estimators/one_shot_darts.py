"""One-shot, DARTS: a supernet of mixed operations, whose weights and mixing factors are trained in turns."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...protocols import Cost, SearchSpace, Setting
from ...protocols.streams import generator, torch_generator
from ..networks.darts_supernet import DARTSSupernet
from ..networks.one_shot import Batch, OneShot, Work
from ..networks.sub_networks import batch_statistics, tensors
from ..networks.supernet import NB201Supernet, Paths
from ..spaces.darts import DARTS
from ..spaces.nb201 import INCOMING, NB201

__all__ = ["OneShotDARTS"]


class OneShotDARTS(OneShot):
    """Continuous relaxation (Liu et al. 2019, "DARTS: Differentiable Architecture Search", ICLR, section 2.3, xi = 0).

    Every edge computes the sum of its operations, weighted by softmax(alpha), one alpha for each edge and operation in
    all cells (of DARTS, in all cells of a kind). Each batch is preceded by a step of the alphas on a validation batch
    (first order, Adam with betas 0.5 and 0.999).

    The score of an architecture is the metric of its discretised path with the shared weights. The metric of the mixed
    network is no score of an architecture. It is measured on the validation examples that alpha was fitted to.

    Batch statistics at evaluation by default, as in the published code. Batch normalisation keeps the scale and offset
    that the space's networks have, which the published search leaves out.

    Args:
        epochs: See `OneShot`.
        batch_norm: See `OneShot`.
        calibration_batches: See `OneShot`.
        alpha_learning_rate: Of Adam.
        alpha_weight_decay: L2 penalty on the alphas.

    Attributes:
        alpha: After `prepare`, (6 edges, operations of the restriction); of DARTS as `DARTS.alphas`.
    """

    name = "one_shot_darts"

    def __init__(
        self,
        epochs: int | None = None,
        batch_norm: str = "batch",
        calibration_batches: int = 20,
        alpha_learning_rate: float = 3e-4,
        alpha_weight_decay: float = 1e-3,
    ) -> None:
        super().__init__(epochs, batch_norm, calibration_batches)
        if not isinstance(alpha_learning_rate, (int, float)) or not alpha_learning_rate > 0:
            raise ValueError(f"alpha_learning_rate: {alpha_learning_rate!r} is not a number > 0")
        if not isinstance(alpha_weight_decay, (int, float)) or not alpha_weight_decay >= 0:
            raise ValueError(f"alpha_weight_decay: {alpha_weight_decay!r} is not a number >= 0")
        self._alpha_rate, self._alpha_decay = float(alpha_learning_rate), float(alpha_weight_decay)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Train weights and alphas; ValueError where the space has no operations on edges."""
        if not isinstance(space, NB201 | DARTS):
            raise ValueError(f"space: {space.name} has no edges to mix; allowed: nb201, darts, and restrictions")
        self.fits(setting)
        shape = space.alphas(space.at(0)).shape if isinstance(space, DARTS) else (6, len(space.ops))
        draws = torch.randn(shape, generator=torch_generator(seed, "alpha-init"))
        self.alpha = (1e-3 * draws).requires_grad_()
        self._optimizer = torch.optim.Adam(
            [self.alpha], lr=self._alpha_rate, betas=(0.5, 0.999), weight_decay=self._alpha_decay
        )
        return super().prepare(space, setting, seed=seed)

    def _step(self, batch: Batch) -> Work:
        network, data = self.supernet, self._setting.data
        assert isinstance(network, NB201Supernet | DARTSSupernet)
        assert data is not None
        rng = generator(self._seed, "supernet-valid", batch.epoch, batch.index)
        size = min(len(batch.x), len(data.valid))
        index = torch.from_numpy(rng.choice(len(data.valid), size, replace=False))
        x, y = (values[index] for values in tensors(data.valid, network))
        with batch_statistics(network):  # running statistics are those of training examples
            loss = self._objective.loss(network.mixture(x, mixed(network.ops, self.alpha)), y)
        (self.alpha.grad,) = torch.autograd.grad(loss, [self.alpha])
        self._optimizer.step()
        paths = mixed(network.ops, self.alpha.detach())
        loss = self._objective.loss(network.mixture(batch.x, paths), batch.y)
        loss.backward()  # type: ignore[no-untyped-call]
        flops = size * alpha_flops(network, paths) + len(batch.x) * network.mixture_flops(paths)[1]
        return Work(float(flops), size + len(batch.x))


def mixed(ops: Sequence[str], alpha: torch.Tensor) -> Paths:
    """All operations on every edge, with softmax(alpha) as their factors; `alpha` is (..., edges, operations)."""
    return [dict(zip(ops, row, strict=True)) for row in torch.softmax(alpha, -1).flatten(0, -2).unbind()]


def alpha_flops(network: NB201Supernet | DARTSSupernet, paths: Paths) -> int:
    """FLOPs of one example of the gradient with respect to alpha: no weight has one, nor what comes before the cells.

    The backward pass then costs what the forward pass does, without the stem, residual blocks before the first cell,
    and what reads the first cell's input, on which no alpha has an effect.
    """
    if isinstance(network, DARTSSupernet):
        return network.alpha_flops(paths)
    forward, _ = network.mixture_flops(paths)
    leading = next(i for i, cells in enumerate(network.stages) if cells)
    from_input = [edge for incoming in INCOMING for edge, source in incoming if source == 0]
    unneeded = sum(network.op_flops[op] for edge in from_input for op in paths[edge])
    return 2 * forward - network.stem_flops - leading * network.residual_flops - unneeded
