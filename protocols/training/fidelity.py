"""Lower fidelities of a training: fewer examples, smaller images, narrower and shallower networks.

Epochs are the trainer's affair. What is measured on reduced images stays comparable among themselves only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..proposal import Fidelity
from ..streams import generator
from ..task import DataView, Split

if TYPE_CHECKING:
    from ..space import SearchSpace

_SUBSET_ROOT = 20_260_101
"""Root seed of every subset, fixed for ever: the subsets of one data set are nested, and the same for everybody."""


def check_fidelity(fidelity: Fidelity) -> None:
    """ValueError, naming the field, unless there are epochs, 1 or more, and every fraction is in (0, 1]."""
    if not fidelity.epochs >= 1:
        raise ValueError(f"fidelity.epochs: {fidelity.epochs} is less than 1")
    for field in ("data", "resolution", "width", "depth"):
        if not 0 < (value := getattr(fidelity, field)) <= 1:
            raise ValueError(f"fidelity.{field}: {value} is not in (0, 1]")


def part(whole: int, fraction: float) -> int:
    """`round(fraction * whole)`, at least 1: of examples, pixels, channels or cells."""
    return max(1, round(fraction * whole))


def reduced(space: SearchSpace, view: DataView, fidelity: Fidelity) -> tuple[SearchSpace, DataView]:
    """What is trained, and on what, at a fidelity; the very same objects at full fidelity.

    The validation examples are all kept, at the resolution of the training examples.

    Args:
        space: Builds the networks; `ScalableSpace` for a lower width or depth. The genes stay what they are.
        view: Training and validation data.
        fidelity: Its epochs are not looked at beyond their range.

    Raises:
        ValueError: A fraction is out of range, or of something that the space or the data lack; one line.
    """
    check_fidelity(fidelity)
    train = view.train
    if fidelity.data < 1:
        order = generator(_SUBSET_ROOT, "data-subset", view.task.name).permutation(len(train))
        chosen = order[: part(len(train), fidelity.data)]
        train = Split(train.x[chosen], train.y[chosen])
    if fidelity.resolution < 1:
        train = reduced_split(train, fidelity)
        valid = reduced_split(view.valid, fidelity)
        view = DataView(replace(view.task, shape=train.x.shape[1:]), train, valid)
    elif train is not view.train:
        view = replace(view, train=train)
    return scaled(space, fidelity.width, fidelity.depth), view


def reduced_split(split: Split, fidelity: Fidelity) -> Split:
    """Examples at the fidelity's resolution: a pixel becomes the mean of the area that it covers.

    Areas are those of torch's adaptive average pooling, which overlap where the sides do not divide. Height and width
    become `round(resolution * side)`, at least 1.

    Raises:
        ValueError: The inputs are no images, (n, channels, height, width).
    """
    if fidelity.resolution == 1:
        return split
    if split.x.ndim != 4:
        raise ValueError(f"fidelity.resolution: {fidelity.resolution} needs images; allowed here: 1")
    import torch

    height, width = (part(side, fidelity.resolution) for side in split.x.shape[2:])
    x = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(split.x), (height, width))
    return Split(x.numpy(), split.y)


def scaled(space: SearchSpace, width: float, depth: float) -> SearchSpace:
    """The space with smaller networks (`ScalableSpace`); itself at full width and depth.

    Raises:
        ValueError: It has none.
    """
    if width == depth == 1:
        return space
    scale = getattr(space, "scaled", None)
    if scale is None:
        field, fraction = ("width", width) if width != 1 else ("depth", depth)
        raise ValueError(f"fidelity.{field}: {fraction:g}, but {space.name} has one {field} only; allowed: 1")
    smaller: SearchSpace = scale(width, depth)
    return smaller


def refuse_part(field: str, fraction: float, space: str) -> None:
    """ValueError, unless the fraction is 1: of an axis along which a space has no smaller networks."""
    if fraction != 1:
        raise ValueError(f"fidelity.{field}: {fraction:g}, but {space} has one {field} only; allowed: 1")
