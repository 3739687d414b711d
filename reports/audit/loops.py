"""Plain loops of the rank correlations, which `kernels` compiles on first use; only compiled they are fast.

Arrays of counts hold `LANES` resamples side by side, and the loops over that constant become vector instructions.
Architectures, or items of such as are equal in both variables, stand in order; `xs` and `ys` number the groups of equal
values that they belong to, in increasing order. What is added to is the rows of `kernels.Sums`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

LANES = 16
"""Resamples side by side: 16 counts of 32 bits are one cache line."""


def gather(chosen: Integers, order: Integers, starts: Integers, counts: Integers) -> None:
    """Sum the multiplicities `chosen` (LANES, n) of the architectures of each item into `counts` (m, LANES)."""
    for j in range(len(starts) - 1):
        for lane in range(LANES):
            counts[j, lane] = 0
        for k in range(starts[j], starts[j + 1]):
            for lane in range(LANES):
                counts[j, lane] += chosen[lane, order[k]]


def tally(counts: Integers, ids: Integers, below: Integers, size: Integers, n: Integers, ties: Floats) -> None:
    """Count the members of each group, of all groups below it, and of all.

    `ties` (2, LANES) gets the sums of squares and of cubes of the sizes.
    """
    size[:] = 0
    for j in range(len(ids)):
        for lane in range(LANES):
            size[ids[j], lane] += counts[j, lane]
    n[:] = 0
    ties[:] = 0.0
    for g in range(len(size)):
        for lane in range(LANES):
            below[g, lane] = n[lane]
            n[lane] += size[g, lane]
            t = float(size[g, lane])
            ties[0, lane] += t * t
            ties[1, lane] += t * t * t


def both_below(
    counts: Integers,
    xs: Integers,
    ys: Integers,
    below_x: Integers,
    tree: Integers,
    seen: Integers,
    low: Integers,
    net: Floats,
) -> None:
    """Count for each item what is below it in both x and y: a Fenwick tree over y holds all of smaller x.

    `tree` (groups of y + 1, LANES) and `seen` (groups of y, LANES), members with smaller x, are room to work in;
    `low` (m, LANES) gets the counts, `net` (LANES,) the sum over architectures of agreements less disagreements.
    """
    tree[:] = 0
    seen[:] = 0
    net[:] = 0.0
    first = 0
    while first < len(xs):
        last, x = first, xs[first]
        while last < len(xs) and xs[last] == x:
            for lane in range(LANES):
                low[last, lane] = 0
            at = ys[last]
            while at > 0:
                for lane in range(LANES):
                    low[last, lane] += tree[at, lane]
                at &= at - 1
            for lane in range(LANES):
                # Of those with smaller x, `low` agree; what is neither below nor level disagrees. Pairs count twice.
                left = 2 * low[last, lane] - below_x[x, lane] + seen[ys[last], lane]
                net[lane] += 2.0 * float(counts[last, lane]) * float(left)
            last += 1
        for j in range(first, last):
            for lane in range(LANES):
                seen[ys[j], lane] += counts[j, lane]
            at = ys[j] + 1
            while at < len(tree):
                for lane in range(LANES):
                    tree[at, lane] += counts[j, lane]
                at += at & -at
        first = last


def add_weighted(
    counts: Integers,
    xs: Integers,
    ys: Integers,
    below_x: Integers,
    size_x: Integers,
    below_y: Integers,
    size_y: Integers,
    n: Integers,
    seen: Integers,
    inside: Integers,
    low: Integers,
    harmonic: Floats,
    sums: Floats,
) -> None:
    """Add what each item weighs times its net agreement and times the number of others that differ.

    Copies of an item take consecutive ranks, so that they weigh a difference of harmonic numbers together. `low` is of
    `both_below`; `seen` (groups of y, LANES), members with smaller x, and `inside` (LANES,), those of the group of x
    with smaller y, are room to work in. `sums` (6, LANES) has three rows for the ranking by x, three for that by y.
    """
    seen[:] = 0
    for j in range(len(xs)):
        x, y = xs[j], ys[j]
        if j == 0 or xs[j - 1] != x:
            inside[:] = 0
        for lane in range(LANES):
            c = counts[j, lane]
            low_right = below_y[y, lane] - low[j, lane] - inside[lane]
            level_right = size_y[y, lane] - seen[y, lane] - c
            right = n[lane] - below_x[x, lane] - size_x[x, lane] - level_right - 2 * low_right
            net = 2 * low[j, lane] - below_x[x, lane] + seen[y, lane] + right
            differ_x, differ_y = n[lane] - size_x[x, lane], n[lane] - size_y[y, lane]
            rank = n[lane] - below_x[x, lane] - inside[lane]
            by_x = harmonic[rank] - harmonic[rank - c]
            rank = n[lane] - below_y[y, lane] - seen[y, lane]
            by_y = harmonic[rank] - harmonic[rank - c]
            sums[0, lane] += by_x * net
            sums[1, lane] += by_x * differ_x
            sums[2, lane] += by_x * differ_y
            sums[3, lane] += by_y * net
            sums[4, lane] += by_y * differ_x
            sums[5, lane] += by_y * differ_y
            inside[lane] += c
            seen[y, lane] += c


def add_ranks(
    counts: Integers,
    xs: Integers,
    ys: Integers,
    below_x: Integers,
    size_x: Integers,
    below_y: Integers,
    size_y: Integers,
    n: Integers,
    values: Floats,
    sums: Floats,
) -> None:
    """Add products of midranks, doubled and centred, and y times the difference of midranks, doubled.

    `values` (m,) are those of y, `sums` is (2, LANES).
    """
    for j in range(len(xs)):
        x, y = xs[j], ys[j]
        for lane in range(LANES):
            c = float(counts[j, lane])
            a = float(2 * below_x[x, lane] + size_x[x, lane] - n[lane])
            b = float(2 * below_y[y, lane] + size_y[y, lane] - n[lane])
            sums[0, lane] += c * a * b
            sums[1, lane] += c * values[j] * (b - a)


def sort_row(
    ranks: Integers,
    row: Floats,
    order: Integers,
    xs: Integers,
    starts: Integers,
    ids: Integers,
    levels: Integers,
    values: Floats,
) -> None:
    """Sort one row by y, then x, by counting.

    `ranks` (n,) of y are integers from 0, with or without gaps; `order` (n,) holds positions in order of x, `xs` (n,)
    the groups of x in that order. `ids`, `levels` and `values` get the groups of x, the ranks of y
    and y, in order of y; `starts` (greatest rank + 2,) is room to work in.
    """
    starts[:] = 0
    for i in range(len(order)):
        starts[ranks[order[i]] + 1] += 1
    for g in range(1, len(starts)):
        starts[g] += starts[g - 1]
    for i in range(len(order)):
        level = ranks[order[i]]
        k = starts[level]
        ids[k], levels[k], values[k] = xs[i], level, row[order[i]]
        starts[level] = k + 1


def both_below_row(
    ids: Integers, levels: Integers, tree: Integers, seen: Integers, low: Integers, same: Integers
) -> None:
    """Count, in a row that `sort_row` has sorted, what is below in both, and what has the same x and smaller y.

    `tree` (groups of x + 1,) and `seen` (groups of x,) are room to work in; `low` and `same` (n,) get the counts.
    """
    tree[:] = 0
    seen[:] = 0
    n, first = len(ids), 0
    while first < n:
        last = first
        while last < n and levels[last] == levels[first]:
            at, count = ids[last], 0
            while at > 0:
                count += tree[at]
                at &= at - 1
            low[last], same[last] = count, seen[ids[last]]
            last += 1
        for k in range(first, last):
            seen[ids[k]] += 1
            at = ids[k] + 1
            while at < len(tree):
                tree[at] += 1
                at += at & -at
        first = last


def sum_row(
    ids: Integers,
    levels: Integers,
    values: Floats,
    below_x: Integers,
    size_x: Integers,
    low: Integers,
    same: Integers,
    harmonic: Floats,
    sums: Floats,
) -> None:
    """Sum one row, but for what is of x alone: `add_weighted` and `add_ranks` by order of y, without multiplicities.

    `sums` (14,) are the fields of `kernels.Sums`.
    """
    n, first = len(ids), 0
    net_by_x = differ_x_by_x = differ_y_by_x = net_by_y = differ_x_by_y = differ_y_by_y = 0.0
    net = products = lost = squares = cubes = 0.0
    while first < n:
        last = first + 1
        while last < n and levels[last] == levels[first]:
            last += 1
        t, k = float(last - first), first
        squares, cubes = squares + t * t, cubes + t * t * t
        while k < last:
            x, end = ids[k], k + 1
            while end < last and ids[end] == x:
                end += 1
            c, low_right = end - k, below_x[x] - low[k] - (k - first)
            s = 2 * low[k] - first + same[k] + n - last - (size_x[x] - same[k] - c) - 2 * low_right
            rank, differ_x, differ_y = n - below_x[x] - same[k], n - size_x[x], n - last + first
            w = harmonic[rank] - harmonic[rank - c]
            net_by_x, differ_x_by_x, differ_y_by_x = (
                net_by_x + w * s,
                differ_x_by_x + w * differ_x,
                differ_y_by_x + w * differ_y,
            )
            w = harmonic[n - k] - harmonic[n - end]
            net_by_y, differ_x_by_y, differ_y_by_y = (
                net_by_y + w * s,
                differ_x_by_y + w * differ_x,
                differ_y_by_y + w * differ_y,
            )
            a, b = float(2 * below_x[x] + size_x[x] - n), float(first + last - n)
            net, products, lost = net + c * s, products + c * a * b, lost + c * values[k] * (b - a)
            k = end
        first = last
    sums[0], sums[2] = net, float(n) ** 2 - squares
    sums[3], sums[4], sums[5] = net_by_x, differ_x_by_x, differ_y_by_x
    sums[6], sums[7], sums[8] = net_by_y, differ_x_by_y, differ_y_by_y
    sums[9], sums[10], sums[12], sums[13] = products, lost, (float(n) ** 3 - cubes) / 3.0, n


def agree_row(ranks: Integers, order: Integers, xs: Integers, tree: Integers, seen: Integers, sums: Floats) -> None:
    """Net agreement of one row and how many differ in y, without sorting it: a walk in order of x.

    Arguments as of `sort_row`; `tree` (greatest rank + 2,) and `seen` (greatest rank + 1,) are room to work in.
    """
    tree[:] = 0
    seen[:] = 0
    first = 0
    while first < len(xs):
        last = first
        while last < len(xs) and xs[last] == xs[first]:
            level, low = ranks[order[last]], 0
            at = level
            while at > 0:
                low += tree[at]
                at &= at - 1
            sums[0] += 2 * (2 * low - first + seen[level])
            last += 1
        for k in range(first, last):
            seen[ranks[order[k]]] += 1
            at = ranks[order[k]] + 1
            while at < len(tree):
                tree[at] += 1
                at += at & -at
        first = last
    sums[2] = float(len(xs)) ** 2
    for level in range(len(seen)):
        sums[2] -= float(seen[level]) ** 2
