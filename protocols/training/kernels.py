"""Layers of small convolutional networks on the CPU, forward and backward, compiled by numba.

Tensors are (channels, height, width * batch), the batch innermost: every row of pixels is one long contiguous run, so
that a convolution of few channels keeps the vector units busy, which libraries built for many channels do not.
A convolution reads a copy of its input, with ReLU applied and a border of zeros; for stride 2 the even columns of a row
come first, then the odd ones, so that the three taps of a row are contiguous runs at every stride.

One thread, and sums in a fixed order: the same bits on the same build of numba and the same CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

EPSILON = 1e-5
"""Added to the variance, and the weight of a batch in the running statistics: torch's defaults."""
MOMENTUM = 0.1

# Sums may be reassociated, which is what vector units need; infinities and NaN keep their meaning.
_FAST = {"contract", "nsz", "arcp", "reassoc"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use, once per type of number; the result is kept on disk."""
    made: Callable[..., Any] = numba.njit(cache=True, fastmath=_FAST, error_model="numpy")(function)
    return made


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Put a function's code into its callers before they are compiled: nested functions are compiled once a level."""
    made: Callable[..., Any] = numba.njit(inline="always")(function)
    return made


@compiled
def fill(out: np.ndarray) -> None:
    """Set every number of `out` (c, h, n) to 0; loops, since array expressions take long to compile."""
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            row = out[c, y]
            for i in range(len(row)):
                row[i] = 0


@compiled
def add(x: np.ndarray, out: np.ndarray) -> None:
    """Add x to `out`, both (c, h, n)."""
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            source, target = x[c, y], out[c, y]
            for i in range(len(target)):
                target[i] += source[i]


@compiled
def taps(width: int, batch: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """Where in a row of the padded input the three taps of a kernel of 3 start."""
    if stride == 1:
        return 0, batch, 2 * batch
    return 0, (width + 3) // 2 * batch, batch


@compiled
def pad(x: np.ndarray, padded: np.ndarray, batch: int, kernel: int, stride: int, relu: bool) -> None:
    """Copy x (c, h, w * batch), ReLU applied, into `padded` (c, h + 2, (w + 2) * batch); no border for kernel 1."""
    channels, height, n = x.shape
    zero = x.dtype.type(0)
    if kernel == 1:
        for c in range(channels):
            for y in range(height):
                source, target = x[c, y], padded[c, y]
                for i in range(n):
                    target[i] = max(source[i], zero) if relu else source[i]
        return
    width = n // batch
    odd = (width + 3) // 2
    fill(padded)
    for c in range(channels):
        for y in range(height):
            row = padded[c, y + 1]
            if stride == 1:
                source, target = x[c, y], row[batch : batch + n]
                for i in range(n):
                    target[i] = max(source[i], zero) if relu else source[i]
            else:
                for j in range(width):
                    place = ((j + 1) // 2 + (odd if (j + 1) % 2 else 0)) * batch
                    source, target = x[c, y, j * batch : (j + 1) * batch], row[place : place + batch]
                    for i in range(batch):
                        target[i] = max(source[i], zero) if relu else source[i]


@compiled
def unpad(padded: np.ndarray, x: np.ndarray, out: np.ndarray, batch: int, kernel: int, stride: int, relu: bool) -> None:
    """Add the gradient of `pad`'s result to `out`, the gradient of x, where ReLU lets it through."""
    channels, height, n = x.shape
    zero = x.dtype.type(0)
    width = n // batch
    odd = (width + 3) // 2
    for c in range(channels):
        for y in range(height):
            if stride == 1:
                source = padded[c, y] if kernel == 1 else padded[c, y + 1, batch : batch + n]
                value, target = x[c, y], out[c, y]
                for i in range(n):
                    target[i] += source[i] if value[i] > zero or not relu else zero
            else:
                row = padded[c, y + 1]
                for j in range(width):
                    place = ((j + 1) // 2 + (odd if (j + 1) % 2 else 0)) * batch
                    source = row[place : place + batch]
                    value, target = x[c, y, j * batch : (j + 1) * batch], out[c, y, j * batch : (j + 1) * batch]
                    for i in range(batch):
                        target[i] += source[i] if value[i] > zero or not relu else zero


@compiled
def conv3(padded: np.ndarray, w: np.ndarray, out: np.ndarray, batch: int, stride: int) -> None:
    """3x3 convolution, w (out, in, 3, 3), of the padded input into `out` (out, h, w * batch); two channels at once."""
    channels, height, n = out.shape
    a, b, d = taps(padded.shape[2] // batch - 2, batch, 3, stride)
    for first in range(0, channels, 2):
        second = min(first + 1, channels - 1)  # an odd last channel is computed twice
        for y in range(height):
            p, q = out[first, y], out[second, y]
            for i in range(n):
                p[i] = 0
                q[i] = 0
            for c in range(padded.shape[0]):
                for dy in range(3):
                    row = padded[c, y * stride + dy]
                    r, s, t = row[a : a + n], row[b : b + n], row[d : d + n]
                    u0, u1, u2 = w[first, c, dy, 0], w[first, c, dy, 1], w[first, c, dy, 2]
                    v0, v1, v2 = w[second, c, dy, 0], w[second, c, dy, 1], w[second, c, dy, 2]
                    if second == first:
                        for i in range(n):
                            p[i] += u0 * r[i] + u1 * s[i] + u2 * t[i]
                    else:
                        for i in range(n):
                            p[i] += u0 * r[i] + u1 * s[i] + u2 * t[i]
                            q[i] += v0 * r[i] + v1 * s[i] + v2 * t[i]


@compiled
def conv3_weights(padded: np.ndarray, gradient: np.ndarray, out: np.ndarray, batch: int, stride: int) -> None:
    """Gradient of `conv3`'s weights (out, in, 3, 3), given that of its result."""
    channels, height, n = gradient.shape
    a, b, d = taps(padded.shape[2] // batch - 2, batch, 3, stride)
    zero = out.dtype.type(0)
    for k in range(channels):
        for c in range(padded.shape[0]):
            for dy in range(3):
                s0, s1, s2 = zero, zero, zero
                for y in range(height):
                    row, g = padded[c, y * stride + dy], gradient[k, y]
                    r, s, t = row[a : a + n], row[b : b + n], row[d : d + n]
                    for i in range(n):
                        s0 += g[i] * r[i]
                        s1 += g[i] * s[i]
                        s2 += g[i] * t[i]
                out[k, c, dy, 0], out[k, c, dy, 1], out[k, c, dy, 2] = s0, s1, s2


@compiled
def combine(out: np.ndarray, values: np.ndarray, y: int, weights: np.ndarray) -> None:
    """Add the weighted sum over channels of row y, values (k, h, n) and weights (k,), to `out` (n,); four at once."""
    n, k = len(out), len(weights)
    whole = k - k % 4
    for j in range(0, whole, 4):
        p, q, r, s = values[j, y], values[j + 1, y], values[j + 2, y], values[j + 3, y]
        a, b, c, d = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        for i in range(n):
            out[i] += a * p[i] + b * q[i] + c * r[i] + d * s[i]
    for j in range(whole, k):
        p, a = values[j, y], weights[j]
        for i in range(n):
            out[i] += a * p[i]


@compiled
def conv3_input(gradient: np.ndarray, w: np.ndarray, padded: np.ndarray, batch: int, stride: int) -> None:
    """Gradient of `conv3`'s padded input, given that of its result."""
    height, n = gradient.shape[1:]
    a, b, d = taps(padded.shape[2] // batch - 2, batch, 3, stride)
    fill(padded)
    for c in range(padded.shape[0]):
        for y in range(height):
            for dy in range(3):
                row = padded[c, y * stride + dy]
                combine(row[a : a + n], gradient, y, w[:, c, dy, 0])
                combine(row[b : b + n], gradient, y, w[:, c, dy, 1])
                combine(row[d : d + n], gradient, y, w[:, c, dy, 2])


@compiled
def conv1(x: np.ndarray, w: np.ndarray, out: np.ndarray) -> None:
    """Convolution of 1x1, w (out, in)."""
    for k in range(out.shape[0]):
        for y in range(out.shape[1]):
            row = out[k, y]
            for i in range(len(row)):
                row[i] = 0
            combine(row, x, y, w[k])


@compiled
def conv1_weights(x: np.ndarray, gradient: np.ndarray, out: np.ndarray) -> None:
    """Gradient of `conv1`'s weights (out, in)."""
    for k in range(out.shape[0]):
        for c in range(out.shape[1]):
            total = out.dtype.type(0)
            for y in range(x.shape[1]):
                g, r = gradient[k, y], x[c, y]
                for i in range(len(g)):
                    total += g[i] * r[i]
            out[k, c] = total


@compiled
def conv1_input(gradient: np.ndarray, w: np.ndarray, out: np.ndarray) -> None:
    """Gradient of `conv1`'s input."""
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            row = out[c, y]
            for i in range(len(row)):
                row[i] = 0
            combine(row, gradient, y, w[:, c])


@compiled
def normalise(y: np.ndarray, running: np.ndarray, inverse: np.ndarray, training: bool) -> None:
    """Batch normalisation of y (c, n) in place, without scale and shift; keeps 1 / deviation in `inverse` (c,).

    Running statistics (2, c) of means and unbiased variances are used in evaluation and moved in training.
    """
    channels, n = y.shape
    real = y.dtype.type
    zero, one, momentum = real(0), real(1), real(MOMENTUM)
    for c in range(channels):
        row, mean, variance = y[c], running[0, c], running[1, c]
        if training:
            total = zero
            for i in range(n):
                total += row[i]
            mean = total / real(n)
            total = zero
            for i in range(n):
                total += (row[i] - mean) * (row[i] - mean)
            variance = total / real(n)
            running[0, c] += momentum * (mean - running[0, c])
            running[1, c] += momentum * (total / real(n - 1) - running[1, c])
        scale = one / np.sqrt(variance + real(EPSILON))
        inverse[c] = scale
        for i in range(n):
            row[i] = (row[i] - mean) * scale


@compiled
def normalise_input(
    hat: np.ndarray, gradient: np.ndarray, inverse: np.ndarray, scale: np.ndarray, out: np.ndarray, training: bool
) -> None:
    """Turn the gradient (c, n) after scale and shift, in place, into that before batch normalisation.

    `hat` is the result of `normalise`; gradients of scale and shift go to `out` (2, c).
    """
    channels, n = hat.shape
    real = hat.dtype.type
    for c in range(channels):
        row, g = hat[c], gradient[c]
        along, total = real(0), real(0)
        for i in range(n):
            along += g[i] * row[i]
            total += g[i]
        out[0, c], out[1, c] = along, total
        factor = scale[c] * inverse[c]
        if training:
            along, total = along / real(n), total / real(n)
            for i in range(n):
                g[i] = factor * (g[i] - total - row[i] * along)
        else:
            for i in range(n):
                g[i] = factor * g[i]


@compiled
def box3(x: np.ndarray, share: np.ndarray, out: np.ndarray, batch: int, adjoint: bool) -> None:
    """Add the mean over the 3x3 neighbours that are there, x (c, h, w * batch), to `out`; or the adjoint of that.

    `share` (h, w) is 1 / number of neighbours.
    """
    channels, height, _ = x.shape
    width = share.shape[1]
    for c in range(channels):
        for y in range(height):
            for j in range(width):
                target = out[c, y, j * batch : (j + 1) * batch]
                for yy in range(max(0, y - 1), min(height, y + 2)):
                    for jj in range(max(0, j - 1), min(width, j + 2)):
                        source = x[c, yy, jj * batch : (jj + 1) * batch]
                        weight = share[yy, jj] if adjoint else share[y, j]
                        for i in range(batch):
                            target[i] += source[i] * weight
