"""The masks of `nn.Dropout` of many networks, as torch draws them on the CPU for each network alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from .twister import Twisters


class Masks:
    """What the dropout layers of K networks multiply their inputs by: 0 or 1 / (1 - rate).

    A dropout layer of rate p draws `bernoulli_(1 - p)` of the size of its input from torch's global generator, at
    every step and in the order of the layers; one of rate 0 or 1 draws nothing. Here every network has a generator
    of its own, seeded as the global one would be.

    Args:
        rates: Per network and place, the rates of the dropout layers there; several in a row are applied in turn.
        widths: Per place, the number of features.
        seeds: Per network.
        dtype: Of the masks.
    """

    def __init__(
        self,
        rates: Sequence[Sequence[Sequence[float]]],
        widths: Sequence[int],
        seeds: Sequence[int],
        dtype: torch.dtype,
    ) -> None:
        self._places = len(widths)
        self._sites = [
            _Site(place, width, [r[place][j] if j < len(r[place]) else 0.0 for r in rates], dtype)
            for place, width in enumerate(widths)
            for j in range(max(len(r[place]) for r in rates))
        ]
        drawn: type[_Twisted | _Called] = _Twisted if bernoulli_compares_uniforms() else _Called
        self._noise = drawn(seeds)

    def draw(self, batch: int) -> list[torch.Tensor | None]:
        """The masks of the next step, (K, batch, features) per place, valid until the next draw.

        None stands for a place where no network drops anything.
        """
        masks: list[torch.Tensor | None] = [None] * self._places
        for site in self._sites:
            mask = site.mask(batch)
            self._noise.fill(site, mask)
            before = masks[site.place]
            masks[site.place] = mask if before is None else before * mask
        return masks


class _Site:
    """One dropout layer of all networks; where a network has none there, its rate is 0.

    Attributes:
        place: In front of which linear layer.
        drawing: Numbers of the networks that draw, int64.
        keep: Per network that draws, 1 - rate.
    """

    def __init__(self, place: int, width: int, rates: Sequence[float], dtype: torch.dtype) -> None:
        self.place = place
        self.drawing = np.array([k for k, rate in enumerate(rates) if 0 < rate < 1], np.int64)
        self.keep = [1 - rates[k] for k in self.drawing]
        self._undrawn = torch.tensor([[[float(rate < 1)]] for rate in rates], dtype=dtype)
        self._width, self._masks = width, dict[int, torch.Tensor]()

    def mask(self, batch: int) -> torch.Tensor:
        """(K, batch, width): the last one drawn; rows of networks that draw nothing are all 1 or all 0."""
        if batch not in self._masks:
            self._masks[batch] = self._undrawn.repeat(1, batch, self._width)
        return self._masks[batch]


class _Called:
    """Torch's own calls, one for each network."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def fill(self, site: _Site, mask: torch.Tensor) -> None:
        for k, keep in zip(site.drawing, site.keep, strict=True):
            mask[k].bernoulli_(keep, generator=self._generators[k]).div_(keep)


class _Twisted:
    """The same bits, ten times faster."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._twisters = Twisters(seeds)

    def fill(self, site: _Site, mask: torch.Tensor) -> None:
        self._twisters.compare(site.drawing, site.keep, mask.flatten(1).numpy())


@cache
def bernoulli_compares_uniforms() -> bool:
    """Whether torch's `bernoulli_(p)` is here `uniform_() < p` in double precision, number by number.

    So it is on AMD's processors. On Intel's it is MKL's, which seeds a stream of its own at each call: dropout draws
    other masks there.
    """
    mask, generator = np.ones((1, 64), np.float32), torch.Generator().manual_seed(5)
    twisters, same = Twisters([5]), True
    for _ in range(2):
        twisters.compare(np.zeros(1, np.int64), [0.7], mask)
        same &= bool((torch.empty(64).bernoulli_(0.7, generator=generator).numpy() == (mask[0] > 0)).all())
    return same
