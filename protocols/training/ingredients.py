"""The ingredients of training that need random numbers, shared by all trainers.

Every number is drawn here, on the CPU, in the order in which the examples are presented: whoever trains, one network or
many side by side, on whatever device, uses the same ones.

What happens to a training batch, in this order:

1. CutOut (DeVries & Taylor 2017): a square of `pipeline.cutout` pixels, its centre uniform over all pixels and the
   square clipped at the border, is set to 0 in every image.
2. MixUp (Zhang et al. 2018): an image x becomes l x + (1 - l) x', where x' is the image before it in the batch (the
   last one for the first) and l, one number per batch, is from Beta(alpha, alpha); or CutMix (Yun et al. 2019): a box
   of x' replaces that of x, and l is the share of the image that is left.
3. Targets: one-hot, mixed by l, then smoothed (Szegedy et al. 2016): q becomes (1 - e) q + e / classes.
4. ScheduledDropPath (Zoph et al. 2018): the outputs of the network's `paths` are set to 0 with probability p_t, per
   image, and divided by 1 - p_t otherwise; p_t grows linearly with the epochs. A path is an operation with something to
   compute: identities and what is zero anyway are exempt, as in DARTS.
5. Dropout of inputs of the classifier.

None of it touches evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..architecture import Architecture
from ..streams import generator, integer, torch_generator
from ..task import Pipeline

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class EpochNoise:
    """Every random number of one epoch of a training on n examples in b batches, in the order of presentation.

    Attributes:
        order: Which example comes when, int64 (n,), a permutation.
        cutout: Row and column of the centre of each image's square, int64 (n, 2); None if off, as all that follow.
        mix: Share of the own image in each batch, float64 (b,): MixUp's l, or what CutMix's box leaves.
        box: CutMix's box of each batch, int64 (b, 4): top, bottom, left, right; top and left are inside.
        paths: Uniform in [0, 1), float32 (paths, n): path p of an example is dropped where the number is below p_t.
        units: Uniform in [0, 1), float32 (n, features): inputs of the classifier are dropped where the number is
            below `pipeline.dropout`.
    """

    order: np.ndarray
    cutout: np.ndarray | None = None
    mix: np.ndarray | None = None
    box: np.ndarray | None = None
    paths: np.ndarray | None = None
    units: np.ndarray | None = None


class Streams:
    """The random numbers of one training, epoch by epoch, from streams named by what they are for.

    They are `data-order`, `augmentation` and `network-noise-paths`, keyed by (seed, architecture): a pipeline with
    more ingredients presents the examples in the same order.

    Args:
        seed: Training seed.
        architecture: What is trained.
    """

    def __init__(self, seed: int, architecture: Architecture) -> None:
        self._key = seed, architecture
        self._order, self._images, self._network = (
            generator(seed, name, architecture) for name in ("data-order", "augmentation", "network-noise-paths")
        )

    def order(self, n: int) -> np.ndarray:
        """The next epoch's order of n examples, int64 (n,); `epoch` draws it too."""
        return self._order.permutation(n)

    def for_torch(self, name: str) -> torch.Generator:
        """A torch generator of its own for another stream of this training, on the CPU."""
        return torch_generator(self._key[0], name, self._key[1])

    def integer(self, name: str, *keys: object) -> int:
        """A seed from another stream of this training."""
        return integer(self._key[0], name, self._key[1], *keys)

    def epoch(self, pipeline: Pipeline, n: int, shape: tuple[int, ...], paths: int, features: int) -> EpochNoise:
        """The next epoch.

        Args:
            pipeline: The same in every epoch.
            n: Number of examples.
            shape: Of one example, (channels, height, width) where images are augmented.
            paths: Number of paths that can be dropped: `len(paths_of(network))`.
            features: Number of inputs of the classifier.
        """
        order = self.order(n)
        rng = self._images
        cutout = rng.integers(shape[-2:], size=(n, 2)) if pipeline.cutout else None
        mix = box = None
        if alpha := pipeline.mixup or pipeline.cutmix:
            mix = rng.beta(alpha, alpha, -(-n // pipeline.batch_size))
            if pipeline.cutmix:
                box, mix = _boxes(mix, shape[-2:], rng)
        rng = self._network
        return EpochNoise(
            order,
            cutout,
            mix,
            box,
            paths=rng.random((paths, n), np.float32) if pipeline.drop_path else None,
            units=rng.random((n, features), np.float32) if pipeline.dropout else None,
        )


def _boxes(shares: np.ndarray, sides: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """CutMix's boxes, and what they leave: sides times sqrt(1 - share), centre uniform, clipped at the border."""
    size = np.array(sides)
    half = (size * np.sqrt(1 - shares)[:, None]).astype(np.int64) // 2
    centre = rng.integers(size, size=(len(shares), 2))
    low, high = np.clip(centre - half, 0, size), np.clip(centre + half, 0, size)
    box = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], 1)
    return box, 1 - (high - low).prod(1) / size.prod()


def drop_path_rate(pipeline: Pipeline, epoch: int) -> float:
    """Probability p_t of dropping a path in an epoch, from 0: p_max * epoch / epochs, so 0 in the first epoch."""
    return pipeline.drop_path * epoch / pipeline.epochs


def mixes(pipeline: Pipeline) -> bool:
    """Whether training examples are mixed with others, so that what they show has no accuracy."""
    return bool(pipeline.mixup or pipeline.cutmix)


def soft(pipeline: Pipeline) -> bool:
    """Whether training needs distributions over classes as targets."""
    return mixes(pipeline) or bool(pipeline.label_smoothing)


def augmented(x: torch.Tensor, pipeline: Pipeline, *, cutout: Any, mix: Any, box: Any) -> torch.Tensor:
    """A batch after CutOut, then MixUp or CutMix; a new tensor wherever anything is done.

    Args:
        x: Images (..., batch, channels, height, width); leading axes, one batch each, are for networks side by side.
        pipeline: Says what is on.
        cutout: Centres (..., batch, 2) as in `EpochNoise`, array or tensor; None if off, as for those that follow.
        mix: Shares (...).
        box: Boxes (..., 4).

    Returns:
        Of the shape and dtype of x.
    """
    import torch

    if pipeline.cutout:
        first = torch.as_tensor(cutout, device=x.device) - pipeline.cutout // 2
        x = x.masked_fill(_inside(first, first + pipeline.cutout, x).unsqueeze(-3), 0.0)
    if pipeline.mixup:
        share = torch.as_tensor(mix, device=x.device).to(x.dtype)[..., None, None, None, None]
        return share * x + (1 - share) * x.roll(1, -4)
    if pipeline.cutmix:
        edges = torch.as_tensor(box, device=x.device)
        inside = _inside(edges[..., 0::2], edges[..., 1::2], x)
        return torch.where(inside[..., None, None, :, :], x.roll(1, -4), x)
    return x


def _inside(first: torch.Tensor, last: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Pixels (..., height, width) in the rectangles from `first` to before `last`, both (..., 2): row and column."""
    import torch

    rows, columns = (torch.arange(side, device=x.device) for side in x.shape[-2:])
    in_rows = (rows >= first[..., :1]) & (rows < last[..., :1])
    in_columns = (columns >= first[..., 1:]) & (columns < last[..., 1:])
    return in_rows[..., :, None] & in_columns[..., None, :]


def targets(
    y: torch.Tensor, classes: int, pipeline: Pipeline, *, mix: Any, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Distributions over the classes for a batch.

    Args:
        y: Classes, int64 (..., batch).
        classes: Their number.
        pipeline: Says what is on.
        mix: Shares (...), array or tensor; None if nothing is mixed.
        dtype: Of the result; None is float32.

    Returns:
        (..., batch, classes); each sums to 1.
    """
    import torch

    q = torch.nn.functional.one_hot(y, classes).to(dtype or torch.float32)
    if mixes(pipeline):
        share = torch.as_tensor(mix, device=y.device).to(q.dtype)[..., None, None]
        q = share * q + (1 - share) * q.roll(1, -2)
    if pipeline.label_smoothing:
        q = (1 - pipeline.label_smoothing) * q + pipeline.label_smoothing / classes
    return q


def paths_of(network: nn.Module) -> list[nn.Module]:
    """The modules that ScheduledDropPath may drop: the `paths` of every module that has this attribute, in order.

    Raises:
        ValueError: No module has it: nothing says which operations are paths.
    """
    groups = [cast("Sequence[nn.Module]", m.paths) for m in network.modules() if hasattr(m, "paths")]
    if not groups:
        raise ValueError("pipeline.drop_path: no module of this network names its paths; allowed: 0")
    return [path for group in groups for path in group]


def classifier_of(network: nn.Module) -> nn.Linear:
    """The last linear layer, in the order of the modules.

    Raises:
        ValueError: There is none.
    """
    from torch import nn

    layers = [m for m in network.modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise ValueError("pipeline.dropout: this network has no linear layer as its classifier; allowed: 0")
    return layers[-1]
