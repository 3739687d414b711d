"""Runs the program of one network, forward and backward, in compiled code: see `program` for what a program is.

A batch costs one call, whatever the number of layers: for networks whose layers take microseconds, the interpreter of
Python and a library's dispatch would cost more than the arithmetic.
"""

from __future__ import annotations

import numpy as np

from .kernels import (
    add,
    box3,
    combine,
    compiled,
    conv1,
    conv1_input,
    conv1_weights,
    conv3,
    conv3_input,
    conv3_weights,
    fill,
    inlined,
    normalise,
    normalise_input,
    pad,
    unpad,
)

# Kinds of instructions. Each adds its result to a value that is zero at first, so that sums need no instruction.
CONV, NORM, RELU, BOX, HALVE, COPY, POOL, LINEAR, DROP = range(9)

# Columns of an instruction.
(OP, SOURCE, TARGET, INPUTS, IN_HEIGHT, IN_WIDTH, OUTPUTS, OUT_HEIGHT, OUT_WIDTH, KERNEL, STRIDE, RECTIFY, NORMALISE,
 WEIGHT, SCALE, STATISTICS, SAVED, INVERSE, PATH, NEEDED) = range(20)  # fmt: skip
COLUMNS = 20


@inlined
def _values(memory: np.ndarray, place: int, channels: int, height: int, width: int, batch: int) -> np.ndarray:
    size = channels * height * width * batch
    return memory[place * batch : place * batch + size].reshape(channels, height, width * batch)


@inlined
def _source(line: np.ndarray, memory: np.ndarray, batch: int) -> np.ndarray:
    found: np.ndarray = _values(memory, line[SOURCE], line[INPUTS], line[IN_HEIGHT], line[IN_WIDTH], batch)
    return found


@inlined
def _target(line: np.ndarray, memory: np.ndarray, batch: int) -> np.ndarray:
    found: np.ndarray = _values(memory, line[TARGET], line[OUTPUTS], line[OUT_HEIGHT], line[OUT_WIDTH], batch)
    return found


@inlined
def _saved(line: np.ndarray, memory: np.ndarray, batch: int) -> np.ndarray:
    found: np.ndarray = _values(memory, line[SAVED], line[OUTPUTS], line[OUT_HEIGHT], line[OUT_WIDTH], batch)
    return found


@inlined
def _padded(line: np.ndarray, scratch: np.ndarray, batch: int) -> np.ndarray:
    border = line[KERNEL] - 1
    height, width = line[IN_HEIGHT] + border, line[IN_WIDTH] + border
    return scratch[: line[INPUTS] * height * width * batch].reshape(line[INPUTS], height, width * batch)


@compiled
def _shares(height: int, width: int, like: np.ndarray) -> np.ndarray:
    share = np.empty((height, width), like.dtype)
    for y in range(height):
        for x in range(width):
            rows, columns = min(height, y + 2) - max(0, y - 1), min(width, x + 2) - max(0, x - 1)
            share[y, x] = 1.0 / (rows * columns)
    return share


@compiled
def _emit(y: np.ndarray, scale: np.ndarray, shift: np.ndarray, keep: np.ndarray, out: np.ndarray) -> None:
    """Add scale * y + shift, times `keep` (batch,) unless that is empty, to `out`."""
    channels, height, n = y.shape
    batch = len(keep)
    for c in range(channels):
        a, b = scale[c], shift[c]
        for h in range(height):
            source, target = y[c, h], out[c, h]
            if batch == 0:
                for i in range(n):
                    target[i] += a * source[i] + b
            else:
                for j in range(0, n, batch):
                    for i in range(batch):
                        target[j + i] += (a * source[j + i] + b) * keep[i]


@compiled
def _kept(gradient: np.ndarray, keep: np.ndarray, out: np.ndarray) -> np.ndarray:
    """A copy of a gradient in `out`, times `keep` (batch,) unless that is empty."""
    channels, height, n = gradient.shape
    flat = out[: channels * height * n].reshape(channels, height, n)
    batch = len(keep)
    for c in range(gradient.shape[0]):
        for h in range(gradient.shape[1]):
            source, target = gradient[c, h], flat[c, h]
            if batch == 0:
                for i in range(n):
                    target[i] = source[i]
            else:
                for j in range(0, n, batch):
                    for i in range(batch):
                        target[j + i] = source[j + i] * keep[i]
    return flat


@inlined
def _forward_conv(
    line: np.ndarray,
    x: np.ndarray,
    out: np.ndarray,
    keep: np.ndarray,
    parameters: np.ndarray,
    statistics: np.ndarray,
    saved: np.ndarray,
    inverse: np.ndarray,
    scratch: np.ndarray,
    unit: np.ndarray,
    nought: np.ndarray,
    batch: int,
    training: bool,
) -> None:
    inputs, outputs, kernel = line[INPUTS], line[OUTPUTS], line[KERNEL]
    y = _saved(line, saved, batch)
    if line[OP] == NORM:
        fill(y)
        add(x, y)
    else:
        padded = _padded(line, scratch, batch)
        pad(x, padded, batch, kernel, line[STRIDE], line[RECTIFY] == 1)
        w = parameters[line[WEIGHT] : line[WEIGHT] + outputs * inputs * kernel * kernel]
        if kernel == 3:
            conv3(padded, w.reshape(outputs, inputs, 3, 3), y, batch, line[STRIDE])
        else:
            conv1(padded, w.reshape(outputs, inputs), y)
    if line[NORMALISE]:
        running = statistics[line[STATISTICS] : line[STATISTICS] + 2 * outputs].reshape(2, outputs)
        rows = y.reshape(outputs, y.shape[1] * y.shape[2])
        normalise(rows, running, inverse[line[INVERSE] : line[INVERSE] + outputs], training)
        scale, shift = line[SCALE], line[SCALE] + outputs
        _emit(y, parameters[scale : scale + outputs], parameters[shift : shift + outputs], keep, out)
    else:
        _emit(y, unit, nought, keep, out)


@inlined
def _backward_conv(
    line: np.ndarray,
    x: np.ndarray,
    gradient: np.ndarray,
    into: np.ndarray,
    parameters: np.ndarray,
    gradients: np.ndarray,
    saved: np.ndarray,
    inverse: np.ndarray,
    scratch: np.ndarray,
    batch: int,
    training: bool,
    deep: bool,
) -> None:
    inputs, outputs, kernel = line[INPUTS], line[OUTPUTS], line[KERNEL]
    if line[NORMALISE]:
        hat = _saved(line, saved, batch)
        n = hat.shape[1] * hat.shape[2]
        place = gradients[line[SCALE] : line[SCALE] + 2 * outputs].reshape(2, outputs)
        scale = parameters[line[SCALE] : line[SCALE] + outputs]
        invert = inverse[line[INVERSE] : line[INVERSE] + outputs]
        normalise_input(hat.reshape(outputs, n), gradient.reshape(outputs, n), invert, scale, place, training)
    if line[OP] == NORM:
        add(gradient, into)
        return
    padded = _padded(line, scratch, batch)
    first, last = line[WEIGHT], line[WEIGHT] + outputs * inputs * kernel * kernel
    pad(x, padded, batch, kernel, line[STRIDE], line[RECTIFY] == 1)
    if kernel == 3:
        w = parameters[first:last].reshape(outputs, inputs, 3, 3)
        conv3_weights(padded, gradient, gradients[first:last].reshape(outputs, inputs, 3, 3), batch, line[STRIDE])
        if deep or line[NEEDED]:
            conv3_input(gradient, w, padded, batch, line[STRIDE])
    else:
        v = parameters[first:last].reshape(outputs, inputs)
        conv1_weights(padded, gradient, gradients[first:last].reshape(outputs, inputs))
        if deep or line[NEEDED]:
            conv1_input(gradient, v, padded)
    if deep or line[NEEDED]:
        unpad(padded, x, into, batch, kernel, line[STRIDE], line[RECTIFY] == 1)


@compiled
def forward(
    code: np.ndarray,
    parameters: np.ndarray,
    statistics: np.ndarray,
    values: np.ndarray,
    saved: np.ndarray,
    inverse: np.ndarray,
    scratch: np.ndarray,
    keep: np.ndarray,
    units: np.ndarray,
    unit: np.ndarray,
    nought: np.ndarray,
    batch: int,
    training: bool,
) -> None:
    """Fill `values`, of which only the input is set; see `Network` for the arguments."""
    nothing = keep[0, :0]
    for t in range(len(code)):
        line = code[t]
        op = line[OP]
        x, out = _source(line, values, batch), _target(line, values, batch)
        mask = keep[line[PATH]] if line[PATH] >= 0 and keep.shape[1] > 0 and training else nothing
        if op in (CONV, NORM):
            _forward_conv(
                line, x, out, mask, parameters, statistics, saved, inverse, scratch, unit, nought, batch, training
            )
        elif op == RELU:
            for c in range(out.shape[0]):
                for h in range(out.shape[1]):
                    for i in range(out.shape[2]):
                        out[c, h, i] += max(x[c, h, i], x.dtype.type(0))
        elif op == BOX:
            y = _values(scratch, 0, line[OUTPUTS], line[OUT_HEIGHT], line[OUT_WIDTH], batch)
            fill(y)
            box3(x, _shares(line[IN_HEIGHT], line[IN_WIDTH], values), y, batch, False)
            _emit(y, unit, nought, mask, out)
        elif op in (HALVE, POOL):
            _shrink(x, out, line[IN_WIDTH], line[OUT_HEIGHT], line[OUT_WIDTH], batch, False)
        elif op == COPY:
            add(x, out)
        elif op == DROP:
            for c in range(out.shape[0]):
                for i in range(out.shape[2]):
                    out[c, 0, i] += x[c, 0, i] * units[c, i] if training and units.size else x[c, 0, i]
        elif op == LINEAR:
            w = parameters[line[WEIGHT] : line[WEIGHT] + line[OUTPUTS] * line[INPUTS]]
            conv1(x, w.reshape(line[OUTPUTS], line[INPUTS]), out)
            for k in range(out.shape[0]):
                for i in range(out.shape[2]):
                    out[k, 0, i] += parameters[line[SCALE] + k]


@compiled
def _shrink(x: np.ndarray, out: np.ndarray, width: int, rows: int, columns: int, batch: int, adjoint: bool) -> None:
    """Add means over the blocks of x that make rows x columns to `out`; or, as gradients, the other way round."""
    high, wide = x.shape[1] // rows, width // columns
    share = x.dtype.type(1.0 / (high * wide))
    for c in range(x.shape[0]):
        for y in range(rows * high):
            for j in range(columns * wide):
                inner = x[c, y, j * batch : (j + 1) * batch]
                outer = out[c, y // high, j // wide * batch : (j // wide + 1) * batch]
                for i in range(batch):
                    if adjoint:
                        inner[i] += share * outer[i]
                    else:
                        outer[i] += share * inner[i]


@compiled
def backward(
    code: np.ndarray,
    parameters: np.ndarray,
    gradients: np.ndarray,
    values: np.ndarray,
    slopes: np.ndarray,
    saved: np.ndarray,
    inverse: np.ndarray,
    scratch: np.ndarray,
    copied: np.ndarray,
    keep: np.ndarray,
    units: np.ndarray,
    batch: int,
    training: bool,
    deep: bool,
) -> None:
    """Fill `gradients` and `slopes`, the gradients of `values`, of which only that of the last one is set.

    The gradient of the input itself is computed if `deep`.
    """
    nothing = keep[0, :0]
    for t in range(len(code) - 1, -1, -1):
        line = code[t]
        op = line[OP]
        x, into, g = _source(line, values, batch), _source(line, slopes, batch), _target(line, slopes, batch)
        mask = keep[line[PATH]] if line[PATH] >= 0 and keep.shape[1] > 0 and training else nothing
        if op in (CONV, NORM):
            own = _kept(g, mask, copied)
            _backward_conv(line, x, own, into, parameters, gradients, saved, inverse, scratch, batch, training, deep)
        elif op == RELU:
            for c in range(g.shape[0]):
                for h in range(g.shape[1]):
                    for i in range(g.shape[2]):
                        into[c, h, i] += g[c, h, i] if x[c, h, i] > 0 else x.dtype.type(0)
        elif op == BOX:
            box3(_kept(g, mask, copied), _shares(line[IN_HEIGHT], line[IN_WIDTH], values), into, batch, True)
        elif op in (HALVE, POOL):
            _shrink(into, g, line[IN_WIDTH], line[OUT_HEIGHT], line[OUT_WIDTH], batch, True)
        elif op == COPY:
            add(g, into)
        elif op == DROP:
            for c in range(g.shape[0]):
                for i in range(g.shape[2]):
                    into[c, 0, i] += g[c, 0, i] * units[c, i] if training and units.size else g[c, 0, i]
        elif op == LINEAR:
            inputs, outputs = line[INPUTS], line[OUTPUTS]
            w = parameters[line[WEIGHT] : line[WEIGHT] + outputs * inputs].reshape(outputs, inputs)
            place = gradients[line[WEIGHT] : line[WEIGHT] + outputs * inputs].reshape(outputs, inputs)
            conv1_weights(x, g, place)
            for k in range(outputs):
                for i in range(g.shape[2]):
                    gradients[line[SCALE] + k] += g[k, 0, i]
            for c in range(inputs):
                combine(into[c, 0], g, 0, w[:, c])


@compiled
def cross_entropy_slope(logits: np.ndarray, targets: np.ndarray, out: np.ndarray) -> None:
    """Gradient of the mean cross-entropy by the logits, all (classes, batch): (softmax - target) / batch."""
    classes, batch = logits.shape
    for i in range(batch):
        top = logits[0, i]
        for k in range(1, classes):
            top = max(top, logits[k, i])
        total = logits.dtype.type(0)
        for k in range(classes):
            out[k, i] = np.exp(logits[k, i] - top)
            total += out[k, i]
        for k in range(classes):
            out[k, i] = (out[k, i] / total - targets[k, i]) / logits.dtype.type(batch)
