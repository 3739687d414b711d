"""Painting simple SVG into axes: for drawings of architectures in figures, which matplotlib cannot read.

Understood are rectangles (round corners and arrow heads included), paths of absolute M, L, C and z, and text: what
`SearchSpace.draw` gives. Anything else is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import hypot
from xml.etree import ElementTree

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve

_ANCHORS = {"start": "left", "middle": "center", "end": "right"}
_CODES: Mapping[str, int] = {"M": int(Curve.MOVETO), "L": int(Curve.LINETO), "C": int(Curve.CURVE4)}
_ARROW = 9.0
"""Length of an arrow head, in the drawing's units."""


def size(svg: str) -> tuple[float, float]:
    """Width and height of the drawing, in its units."""
    box = (ElementTree.fromstring(svg).get("viewBox") or "0 0 1 1").split()
    return max(float(box[2]), 1.0), max(float(box[3]), 1.0)


def paint(axes: Axes, svg: str, points: float) -> None:
    """Paint a drawing so that it fills the axes, which must have its proportions.

    Args:
        axes: Are cleared of ticks and frame.
        svg: One image.
        points: Size of one unit of the drawing on paper, in points: of letters and lines.
    """
    root = ElementTree.fromstring(svg)
    width, height = size(svg)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    letters = float(root.get("font-size", 11)) * points
    for element in _visible(root):
        kind = element.tag.rpartition("}")[2]
        if kind == "rect" and not element.get("width", "").endswith("%"):
            _rectangle(axes, element, points)
        elif kind == "path":
            _path(axes, element, points)
        elif kind == "text":
            _text(axes, element, letters, root.get("fill", "#000"))


def _visible(element: ElementTree.Element) -> Iterator[ElementTree.Element]:
    for child in element:
        if child.tag.rpartition("}")[2] != "defs":
            yield child
            yield from _visible(child)


def _number(element: ElementTree.Element, name: str, default: float = 0.0) -> float:
    return float(element.get(name, default))


def _rectangle(axes: Axes, element: ElementTree.Element, points: float) -> None:
    radius = _number(element, "rx")
    x, y, w, h = (_number(element, name) for name in ("x", "y", "width", "height"))
    axes.add_patch(
        FancyBboxPatch(
            (x, y), w, h, boxstyle=f"round,pad=0,rounding_size={radius:g}", fc=element.get("fill", "none"),
            ec=element.get("stroke", "none"), lw=_number(element, "stroke-width", 1.0) * points, zorder=2,
        )
    )  # fmt: skip


def _path(axes: Axes, element: ElementTree.Element, points: float) -> None:
    spots: list[tuple[float, float]] = []
    codes: list[int] = []
    for letter, numbers in re.findall(r"([MLC])([^MLCz]*)", element.get("d", "")):
        values = [float(v) for v in re.findall(r"-?[\d.]+(?:e-?\d+)?", numbers)]
        pairs = list(zip(values[::2], values[1::2], strict=False))
        spots += pairs
        codes += [_CODES[letter]] * len(pairs)
    if len(spots) < 2:
        return
    colour, width = element.get("stroke", "none"), _number(element, "stroke-width", 1.0) * points
    curve = Curve(spots, np.array(codes, np.uint8))
    axes.add_patch(PathPatch(curve, fc=element.get("fill", "#000"), ec=colour, lw=width, zorder=1))
    if element.get("marker-end"):
        axes.add_patch(Polygon(_head(spots[-2], spots[-1]), closed=True, fc=colour, ec="none", zorder=1))


def _head(before: tuple[float, float], tip: tuple[float, float]) -> list[tuple[float, float]]:
    dx, dy = tip[0] - before[0], tip[1] - before[1]
    far = hypot(dx, dy) or 1.0
    dx, dy = dx / far * _ARROW, dy / far * _ARROW
    foot = tip[0] - dx, tip[1] - dy
    return [tip, (foot[0] - dy * 0.45, foot[1] + dx * 0.45), (foot[0] + dy * 0.45, foot[1] - dx * 0.45)]


def _text(axes: Axes, element: ElementTree.Element, letters: float, ink: str) -> None:
    # A stroke around letters would turn them into outlines, of fifty times the bytes.
    halo = {"fc": "white", "ec": "none", "pad": 0.2, "alpha": 0.8} if element.get("stroke") else None
    axes.text(
        _number(element, "x"), _number(element, "y"), "".join(element.itertext()), fontsize=letters,
        color=element.get("fill", ink), ha=_ANCHORS.get(element.get("text-anchor", "start"), "left"), va="baseline",
        weight=element.get("font-weight", "normal"), bbox=halo, zorder=3,
    )  # fmt: skip
