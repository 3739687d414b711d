"""The Mersenne twister of torch's CPU generator (Matsumoto & Nishimura 1998, MT19937), many of them at once.

Torch draws a 32-bit word at a time, and tempers words of which it needs no bit. Compiled by numba, a dropout
mask costs a tenth of what it costs there, and has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import numba
import numpy as np

_WORDS, _FAR = 624, 397
_HIGH_BITS = 0x1FFFFF
"""Of the two words behind a number in double precision, the first gives its 21 highest bits, the second 32 more."""


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use; the result is kept on disk."""
    made: Callable[..., Any] = numba.njit(cache=True)(function)
    return made


class Twisters:
    """One stream of uniform numbers in [0, 1) of double precision for each seed, as `Tensor.uniform_` draws them.

    Args:
        seeds: As `torch.Generator.manual_seed` takes them; like there, their lowest 32 bits count.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._states = _seeded(np.array([seed & 0xFFFFFFFF for seed in seeds], np.uint64))
        # Numbers of which the high bits are there, and how many of them are used up.
        self._high = np.empty((len(seeds), _WORDS // 2), np.uint32)
        self._used = np.full(len(seeds), _WORDS // 2)

    def compare(self, streams: np.ndarray, limits: Sequence[float], out: np.ndarray) -> None:
        """Draw the next n numbers of some streams: 1 / limit where a number is below the limit, else 0.

        Args:
            streams: Which ones, int64 (m,).
            limits: Per stream drawn from, in (0, 1).
            out: (K, n), a row for every stream; others keep theirs.
        """
        # A number is j / 2^53, so it is below x where j is below ceil(2^53 x).
        whole = np.array([ceil(limit * 2.0**53) for limit in limits], np.uint64)
        first, second = (whole >> np.uint64(32)).astype(np.uint32), whole.astype(np.uint32)
        values = 1 / np.array(limits, out.dtype)
        _compare(self._states, self._high, self._used, streams, first, second, values, out)


@_compiled
def _seeded(seeds: np.ndarray) -> np.ndarray:
    states = np.empty((len(seeds), _WORDS), np.uint32)
    low = np.uint64(0xFFFFFFFF)
    for k in range(len(seeds)):
        word = seeds[k]
        for i in range(_WORDS):
            states[k, i] = np.uint32(word)
            word = (np.uint64(1812433253) * (word ^ (word >> np.uint64(30))) + np.uint64(i + 1)) & low
    return states


@_compiled
def _twisted(word: np.uint32, following: np.uint32, far: np.uint32) -> np.uint32:
    mixed = (word & np.uint32(0x80000000)) | (following & np.uint32(0x7FFFFFFF))
    return far ^ (mixed >> np.uint32(1)) ^ ((np.uint32(0) - (mixed & np.uint32(1))) & np.uint32(0x9908B0DF))


@_compiled
def _tempered(word: np.uint32) -> np.uint32:
    word ^= word >> np.uint32(11)
    word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
    word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
    return word ^ (word >> np.uint32(18))


@_compiled
def _twist(state: np.ndarray, high: np.ndarray) -> None:
    """The next 624 words, and the high bits of the 312 numbers in them; in runs whose words need none of each other."""
    near = _WORDS - _FAR
    for i in range(near):
        state[i] = _twisted(state[i], state[i + 1], state[i + _FAR])
    for i in range(near, 2 * near):
        state[i] = _twisted(state[i], state[i + 1], state[i - near])
    for i in range(2 * near, _WORDS - 1):
        state[i] = _twisted(state[i], state[i + 1], state[i - near])
    state[_WORDS - 1] = _twisted(state[_WORDS - 1], state[0], state[_FAR - 1])
    for i in range(_WORDS // 2):
        high[i] = _tempered(state[2 * i]) & np.uint32(_HIGH_BITS)


@_compiled
def _compare(
    states: np.ndarray,
    high: np.ndarray,
    used: np.ndarray,
    streams: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    values: np.ndarray,
    out: np.ndarray,
) -> None:
    n = out.shape[1]
    zero = values.dtype.type(0)
    for m in range(len(streams)):
        k = streams[m]
        done = 0
        while done < n:
            if used[k] == _WORDS // 2:
                _twist(states[k], high[k])
                used[k] = 0
            start = used[k]
            here = min(n - done, _WORDS // 2 - start)
            bits, row = high[k, start : start + here], out[k, done : done + here]
            limit, value, ties = first[m], values[m], 0
            for i in range(here):
                row[i] = value if bits[i] < limit else zero
                ties += bits[i] == limit
            if ties:  # one in two million: only there the low bits are needed
                for i in range(here):
                    if bits[i] == limit and _tempered(states[k, 2 * (start + i) + 1]) < second[m]:
                        row[i] = value
            used[k] = start + here
            done += here
