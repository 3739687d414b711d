"""Graphs of architectures: their words, depth and pictures."""

from __future__ import annotations

from itertools import product
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasbed.methods.drawing import draw
from nasbed.methods.graph import Graph, Node, longest_word, path_code
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import Architecture, Drawing

OPERATIONS = ("conv", "pool", "skip_connect")


@st.composite
def graphs(draw):
    size = draw(st.integers(2, 6))
    inputs = draw(st.integers(1, min(2, size - 1)))
    nodes = tuple(Node(str(i), draw(st.sampled_from(["", *OPERATIONS])) if i >= inputs else "") for i in range(size))
    pairs = [(s, t) for t in range(inputs, size) for s in range(t)]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=12))
    edges = tuple((s, t, draw(st.sampled_from(["", *OPERATIONS]))) for s, t in chosen)
    return Graph(nodes, edges, inputs)


def all_words(graph, start):
    """Every path from one input to the output, one after another."""
    found, open_paths = set(), [(start, ())]
    while open_paths:
        node, word = open_paths.pop()
        if node == len(graph.nodes) - 1:
            found.add(word)
        for source, target, operation in graph.edges:
            if source == node:
                step = tuple(filter(None, (operation, graph.nodes[target].operation)))
                open_paths.append((target, word + step))
    return found


@given(graphs(), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_words_are_those_of_all_paths(graph, longest):
    expected = [{w for w in all_words(graph, i) if len(w) <= longest} for i in range(graph.inputs)]
    assert graph.words(longest) == expected


@given(graphs())
@settings(max_examples=200, deadline=None)
def test_depth_is_the_longest_path_without_identities(graph):
    lengths = [sum(o != "skip_connect" for o in w) for i in range(graph.inputs) for w in all_words(graph, i)]
    assert graph.depth == max(lengths, default=0)


@given(graphs())
@settings(max_examples=100, deadline=None)
def test_every_graph_can_be_drawn(graph):
    picture = draw({"a": graph, "b": graph}, OPERATIONS, title="<&>")
    root = ElementTree.fromstring(picture)
    assert isinstance(picture, Drawing)
    assert picture._repr_svg_() == picture
    assert root[0].text == "<&>"
    assert picture == draw({"a": graph, "b": graph}, OPERATIONS, title="<&>")
    size = float(root.get("width")), float(root.get("height"))
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        if box.get("x"):
            corner = [float(box.get(k)) for k in ("x", "y", "width", "height")]
            assert min(corner) >= 0
            assert corner[0] + corner[2] <= size[0]
            assert corner[1] + corner[3] <= size[1]


def test_boxes_do_not_cover_each_other():
    space = NB201()
    for index in range(0, space.size, 977):
        root = ElementTree.fromstring(space.draw(space.at(index)))
        boxes = [
            [float(b.get(k)) for k in ("x", "y", "width", "height")]
            for b in root.iter("{http://www.w3.org/2000/svg}rect")
            if b.get("x")
        ]
        for i, (x, y, w, h) in enumerate(boxes):
            for u, v, _, _ in boxes[:i]:
                assert not (x <= u < x + w and y <= v < y + h)


def test_a_backward_edge_is_refused():
    with pytest.raises(ValueError, match="edge 1 to 1: allowed: 0 <= source < target < 2"):
        Graph((Node("a"), Node("b")), ((1, 1, ""),))


def test_longest_word_keeps_codes_small():
    assert [longest_word(n) for n in (1, 2, 5, 8, 60, 5000)] == [32, 11, 5, 3, 2, 1]


@pytest.mark.parametrize(("encoding", "codes", "bits"), [("path", 15_625, 155), ("live_path", 8_045, 155)])
def test_path_codes_of_nb201(encoding, codes, bits):
    """The known counts for the published encoding and for the one without dead paths."""
    space = NB201()
    found = np.array([space.encode(Architecture("nb201", g), encoding) for g in product(range(5), repeat=6)])
    assert found.shape == (15_625, bits)
    packed = np.packbits(found.astype(bool), axis=1)
    assert len(np.unique(packed, axis=0)) == codes
    if encoding == "path":
        assert sorted(np.unique(found.sum(1), return_counts=True)[1].tolist()) == [625, 15_000]
        assert len(np.unique(np.packbits(found[:, :30].astype(bool), axis=1), axis=0)) == 1_625
    else:
        swapped = [space.encode(Architecture("nb201", (1, 2, 0, 3, 2, 4)), "live_path")]
        swapped.append(space.encode(Architecture("nb201", (2, 1, 0, 3, 4, 2)), "live_path"))
        assert np.array_equal(*swapped)


def test_bits_are_ordered_by_length_then_operation():
    graph = Graph((Node("in"), Node("a", "pool"), Node("out")), ((0, 1, "conv"), (1, 2, ""), (0, 2, "")))
    code = path_code({"g": graph}, OPERATIONS, longest=2)
    assert np.flatnonzero(code).tolist() == [0, 1 + 3 + 0 * 3 + 1]
    assert len(code) == 1 + 3 + 9
