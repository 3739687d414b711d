"""Graphs as pictures: layered from left to right, one colour an operation, SVG without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ..protocols import Drawing
from .graph import Edge, Graph, Node

# Okabe & Ito's palette for colour-blind readers, black and yellow left out, then darker relatives of it.
_PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#b8860b",
    "#3b3b98",
    "#7a5195",
    "#8c564b",
    "#2f6f73",
    "#a23b72",
)
_GAP, _MARGIN, _ROW, _CHARACTER = 46.0, 14.0, 36.0, 6.3
_BOX = 24.0
_CROWDED = 7

Point = tuple[float, float]


def draw(graphs: Mapping[str, Graph], operations: Sequence[str], *, title: str) -> Drawing:
    """All graphs below each other, each under its name where there are several.

    Args:
        graphs: By name.
        operations: Everything that may be applied, in a fixed order: it decides the colours.
        title: What screen readers and tooltips call the picture.
    """
    colours = {operation: _PALETTE[i % len(_PALETTE)] for i, operation in enumerate(operations)}
    parts: list[str] = []
    width, y = 0.0, 0.0
    for name, graph in graphs.items():
        if len(graphs) > 1:
            parts.append(f'<text font-weight="bold" x="{_MARGIN:g}" y="{y + 15:.1f}">{escape(name)}</text>')
            y += 20
        crowded = sum(bool(o) for _, _, o in graph.edges) >= _CROWDED and not graph.places
        body, wide, high = _graph(_boxed(graph) if crowded else graph, colours, y)
        parts += body
        width, y = max(width, wide), y + high
    marker = (
        '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#555"/></marker>'
    )
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:.0f} {y:.0f}" '
        f'width="{width:.0f}" height="{y:.0f}" font-family="Helvetica,Arial,sans-serif" font-size="11" fill="#222">'
        f"<title>{escape(title)}</title>"
        f'<defs>{marker}</defs><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>'
    )


def _boxed(graph: Graph) -> Graph:
    """The same graph with a node for each operation on an edge: many labels on lines could not be read."""
    nodes: list[Node] = []
    edges: list[Edge] = []
    place: list[int] = []
    for i, node in enumerate(graph.nodes):
        arriving = []
        for source, operation in graph.incoming[i]:
            if operation:
                edges.append((place[source], len(nodes), ""))
                arriving.append(len(nodes))
                nodes.append(Node("", operation))
            else:
                arriving.append(place[source])
        place.append(len(nodes))
        edges += [(source, len(nodes), "") for source in arriving]
        nodes.append(node)
    return Graph(tuple(nodes), tuple(edges), graph.inputs)


def _graph(graph: Graph, colours: Mapping[str, str], top: float) -> tuple[list[str], float, float]:
    """SVG elements of one graph whose upper edge is at `top`, its width and its height."""
    widths = [max(_BOX, _CHARACTER * len(_label(graph, i)) + 14) for i in range(len(graph.nodes))]
    places = _places(graph, widths)
    bends = _bends(graph, places)
    ends = [places[s][1] + 0.75 * bend for (s, _, _), bend in zip(graph.edges, bends, strict=True)]
    heights = [y for _, y in places] + ends
    shift = top + _MARGIN + _BOX / 2 - min(heights)
    high = max(heights) - min(heights) + 2 * _MARGIN + _BOX
    wide = max(x + w / 2 for (x, _), w in zip(places, widths, strict=True)) + _MARGIN
    at = [(x, y + shift) for x, y in places]
    lines, labels = [], []
    for (source, target, operation), bend in zip(graph.edges, bends, strict=True):
        colour = colours.get(operation or graph.nodes[target].operation or graph.nodes[source].operation, "#777")
        curve, middle = _curve(at[source], at[target], widths[source], widths[target], bend)
        lines.append(f'<path d="{curve}" fill="none" stroke="{colour}" stroke-width="1.6" marker-end="url(#a)"/>')
        if operation:
            labels.append(
                f'<text x="{middle[0]:.1f}" y="{middle[1] + (13 if bend > 0 else -5):.1f}" fill="{colour}" '
                'text-anchor="middle" paint-order="stroke" stroke="#fff" stroke-width="3">'
                f"{escape(operation)}</text>"
            )
    boxes = [_box(graph, i, at[i], widths[i], colours) for i in range(len(graph.nodes))]
    return [*lines, *boxes, *labels], wide, high


def _label(graph: Graph, i: int) -> str:
    node = graph.nodes[i]
    return " ".join(filter(None, (node.name, node.operation)))


def _box(graph: Graph, i: int, at: Point, width: float, colours: Mapping[str, str]) -> str:
    colour = colours.get(graph.nodes[i].operation, "#555")
    fill = "#eee" if i < graph.inputs or i == len(graph.nodes) - 1 else "#fff"
    return (
        f'<rect x="{at[0] - width / 2:.1f}" y="{at[1] - _BOX / 2:.1f}" width="{width:.1f}" height="{_BOX:g}" rx="6" '
        f'fill="{fill}" stroke="{colour}" stroke-width="1.4"/>'
        f'<text x="{at[0]:.1f}" y="{at[1] + 4:.1f}" text-anchor="middle">{escape(_label(graph, i))}</text>'
    )


def _places(graph: Graph, widths: Sequence[float]) -> list[Point]:
    """Centre of every node: columns by longest path, rows by the mean row of the sources."""
    spots = list(graph.places) or _layers(graph)
    columns = sorted({column for column, _ in spots})
    space = dict.fromkeys(columns, _GAP)
    for source, target, operation in graph.edges:
        if operation:  # the label of the edge must fit before its target
            column = spots[target][0]
            span = max(1.0, column - spots[source][0])
            space[column] = max(space[column], (_CHARACTER * len(operation) + 26) / span)
    x, middle = _MARGIN, {}
    for k, column in enumerate(columns):
        wide = max(w for w, (c, _) in zip(widths, spots, strict=True) if c == column)
        x += space[column] if k else 0.0
        middle[column] = x + wide / 2
        x += wide
    return [(middle[column], row * _ROW) for column, row in spots]


def _layers(graph: Graph) -> list[Point]:
    depth: list[int] = []
    rows: list[float] = []
    for i in range(len(graph.nodes)):
        sources = [s for s, _ in graph.incoming[i]]
        depth.append(1 + max(depth[s] for s in sources) if sources else 0)
        rows.append(sum(rows[s] for s in sources) / len(sources) if sources else float(i))
    depth[-1] = max([1, *(d + 1 for d in depth[:-1])])
    spots: list[Point] = [(0.0, 0.0)] * len(depth)
    for column in sorted(set(depth)):
        here = sorted((i for i, d in enumerate(depth) if d == column), key=lambda i: (rows[i], i))
        for place, i in enumerate(here):
            spots[i] = (float(column), place - (len(here) - 1) / 2)
    return spots


def _bends(graph: Graph, places: Sequence[Point]) -> list[float]:
    """How far each edge swings out, up (negative) or down: past nodes in between, and past its own twins."""
    bends, seen = [], dict[tuple[int, int], int]()
    columns = sorted({x for x, _ in places})
    for number, (source, target, _) in enumerate(graph.edges):
        twin = seen[source, target] = seen.get((source, target), -1) + 1
        between = [
            i
            for i, (x, y) in enumerate(places)
            if places[source][0] < x < places[target][0] and abs(y - _line(places, source, target, x)) < _BOX
        ]
        span = columns.index(places[target][0]) - columns.index(places[source][0])
        side = -1.0 if number % 2 else 1.0
        bends.append((side * (8.0 + 24.0 * span**0.6) if between else 0.0) + 26.0 * ((twin + 1) // 2) * (-1) ** twin)
    return bends


def _line(places: Sequence[Point], source: int, target: int, x: float) -> float:
    (x0, y0), (x1, y1) = places[source], places[target]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _curve(a: Point, b: Point, wide_a: float, wide_b: float, bend: float) -> tuple[str, Point]:
    """The path from the right of one box to the left of another, and where its label stands."""
    x0, x1 = a[0] + wide_a / 2, b[0] - wide_b / 2 - 1
    shift = max(-8.0, min(8.0, bend / 6))  # where it leaves the box, so that the edges of a node can be told apart
    y0, y1 = a[1] + shift, b[1] + shift
    pull = max(14.0, (x1 - x0) * 0.35)
    c0, c1 = (x0 + pull, y0 + bend), (x1 - pull, y1 + bend)
    middle = ((x0 + 3 * c0[0] + 3 * c1[0] + x1) / 8, (y0 + 3 * c0[1] + 3 * c1[1] + y1) / 8)
    return f"M{x0:.1f} {y0:.1f}C{c0[0]:.1f} {c0[1]:.1f} {c1[0]:.1f} {c1[1]:.1f} {x1:.1f} {y1:.1f}", middle
