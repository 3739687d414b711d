"""Genetic CNN: its bit strings, its classes against brute force, and its network against plain functional torch."""

from __future__ import annotations

from collections import Counter
from itertools import permutations, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nasbed.methods import registry
from nasbed.methods.spaces.genetic_cnn import GeneticCNN
from nasbed.protocols import Architecture, Task

SPACE = GeneticCNN()
SMALL = GeneticCNN(nodes=(3, 3), channels=4)
Bits = tuple[int, ...]
Edges = frozenset[tuple[int, int]]


def image_task(channels: int = 1, side: int = 8, classes: int | None = 10) -> Task:
    return Task("toy", "image", "accuracy", True, (channels, side, side), classes, "0")


# --- second implementations -----------------------------------------------------------------------------------


def edges_of(k: int, bits: Bits) -> Edges:
    """Nodes are counted from 1; bit (source, target) stands at (target - 1) (target - 2) / 2 + source - 1."""
    return frozenset((s, t) for t in range(2, k + 1) for s in range(1, t) if bits[(t - 1) * (t - 2) // 2 + s - 1])


def bits_of(k: int, edges: Edges) -> Bits:
    return tuple(int((s, t) in edges) for t in range(2, k + 1) for s in range(1, t))


def numberings(k: int, edges: Edges) -> set[Edges]:
    """All graphs that other numbers of the nodes give, edges leading to higher numbers or not."""
    return {frozenset((p[s - 1], p[t - 1]) for s, t in edges) for p in permutations(range(1, k + 1))}


def smallest_bits(k: int, bits: Bits) -> Bits:
    return min(bits_of(k, g) for g in numberings(k, edges_of(k, bits)) if all(s < t for s, t in g))


def stage_wiring(k: int, bits: Bits) -> tuple[list[int], dict[int, list[int]], list[int]]:
    """Nodes that the network holds, what each reads (nothing: the first convolution), and what the last one reads."""
    edges = edges_of(k, bits)
    held = sorted({node for edge in edges for node in edge})
    reads = {node: [s for s, t in sorted(edges) if t == node] for node in held}
    return held, reads, [node for node in held if all(s != node for s, _ in edges)]


# --- size, classes, moves -------------------------------------------------------------------------------------


def test_the_paper_s_space_has_2_to_the_19_members() -> None:
    assert SPACE.size == 524_288 == 2 ** (3 + 6 + 10)
    assert len(SPACE.gene_names) == 19
    assert SPACE.gene_names[:4] == ("stage1_1_2", "stage1_1_3", "stage1_2_3", "stage2_1_2")


@pytest.mark.parametrize(("k", "classes"), [(2, 2), (3, 6), (4, 31), (5, 302)])
def test_classes_of_a_stage_are_the_unlabelled_acyclic_graphs(k: int, classes: int) -> None:
    space = GeneticCNN(nodes=(k,))
    merged = {space.canonical(space.at(i)) for i in range(space.size)}
    assert len(merged) == classes  # OEIS A003087
    if k < 5:
        graphs = {min(map(sorted, numberings(k, edges_of(k, space.at(i).genes)))).__repr__() for i in range(space.size)}
        assert len(graphs) == classes


def test_stages_are_merged_independently() -> None:
    members = [SMALL.at(i) for i in range(SMALL.size)]
    assert len({SMALL.canonical(a) for a in members}) == 36
    for a in members:
        b = SMALL.canonical(a)
        assert b.genes == smallest_bits(3, a.genes[:3]) + smallest_bits(3, a.genes[3:])
        assert SMALL.canonical(b) == b
        assert SMALL.canonical(a, "raw") == a


def test_the_representative_is_the_smallest_numbering() -> None:
    for k, some in ((4, slice(None)), (5, slice(0, None, 41))):
        for bits in list(product((0, 1), repeat=k * (k - 1) // 2))[some]:
            a = Architecture("genetic_cnn", bits)
            assert GeneticCNN(nodes=(k,)).canonical(a).genes == smallest_bits(k, bits)


@given(st.integers(2, 7), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_other_numbers_of_the_nodes_change_nothing(k: int, random: object) -> None:
    space = GeneticCNN(nodes=(k,))
    bits = tuple(random.randrange(2) for _ in range(space.size.bit_length() - 1))  # type: ignore[attr-defined]
    order: list[int] = []  # a random topological order
    edges = edges_of(k, bits)
    while len(order) < k:
        free = [n for n in range(1, k + 1) if n not in order and all(s in order for s, t in edges if t == n)]
        order.append(random.choice(free))  # type: ignore[attr-defined]
    place = {node: i for i, node in enumerate(order, start=1)}
    moved = bits_of(k, frozenset((place[s], place[t]) for s, t in edges))
    a, b = Architecture("genetic_cnn", bits), Architecture("genetic_cnn", moved)
    assert space.canonical(a) == space.canonical(b)
    assert space.canonical(space.canonical(a)) == space.canonical(a)
    assert space.canonical(a).genes <= bits


def test_sampling_is_uniform() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(SMALL.index(SMALL.sample(rng)) for _ in range(64 * 40))
    assert chisquare([counts[i] for i in range(64)]).pvalue > 1e-3


def test_crossover_takes_whole_stages_from_either_parent() -> None:
    rng = np.random.default_rng(0)
    a, b = Architecture("genetic_cnn", (0,) * 19), Architecture("genetic_cnn", (1,) * 19)
    children = Counter(SPACE.crossover(a, b, rng).genes for _ in range(800))
    assert set(children) == {(i,) * 3 + (j,) * 6 + (k,) * 10 for i, j, k in product((0, 1), repeat=3)}
    assert chisquare(list(children.values())).pvalue > 1e-3
    assert SPACE.crossover(a, a, rng) == a


# --- names and notation ---------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    assert SPACE.name == "genetic_cnn" == GeneticCNN(nodes=[3, 4, 5], channels=8).name
    assert SMALL.name == "genetic_cnn[nodes=3,3;channels=4]"
    assert registry.space("genetic_cnn[channels=4;nodes=3,3]") == SMALL


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": ("1",)}, "genetic_cnn: option 'bits' is unknown; allowed: nodes, channels"),
        ({"nodes": ("3", "1")}, "genetic_cnn: nodes is '3,1'; allowed: one integer 2 to 8 per stage"),
        ({"nodes": ("9",)}, "genetic_cnn: nodes is '9'"),
        ({"nodes": ("three",)}, "genetic_cnn: nodes is 'three'; allowed: one integer"),
        ({"channels": ("0",)}, "genetic_cnn: channels is 0; allowed: integers >= 1"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneticCNN.from_options(options)


def test_notation() -> None:
    text = "1-01|0-01-100|0-10-011-0001"
    a = SPACE.parse(text)
    assert a.genes == (1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1)
    assert SPACE.text(a) == text
    rng = np.random.default_rng(0)
    for a in (SPACE.sample(rng) for _ in range(50)):
        assert SPACE.parse(SPACE.text(a)) == a


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1-01|0-01-100", "has 2 stages; allowed: 3, joined by '|'"),
        ("1-01|0-01-10|0-10-011-0001", "stage 2 is '0-01-10'; allowed: 0 and 1 in the form '0-00-000'"),
        ("101|0-01-100|0-10-011-0001", "stage 1 is '101'"),
        ("1-01|0-01-100|0-10-011-0002", "stage 3 is '0-10-011-0002'"),
        ("1-01|0-01-100|0-10-011-00 1", "stage 3 is"),
    ],
)
def test_malformed_texts_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        SPACE.parse(text)


# --- graphs and network ---------------------------------------------------------------------------------------


def test_graphs_hold_the_nodes_with_connections() -> None:
    graphs = SPACE.graphs(SPACE.parse("0-00|0-01-100|1-01-001-0001"))
    assert list(graphs) == ["stage_1", "stage_2", "stage_3"]
    assert [g.depth for g in graphs.values()] == [2, 4, 7]
    assert [n.name for n in graphs["stage_1"].nodes] == ["input", "first", "output"]
    assert set(graphs["stage_2"].edges) == {
        (0, 1, ""),  # the stage's input; then first -> 1, first -> 2, 1 -> 4, 2 -> 3, and both ends -> output
        *((1, 2, ""), (1, 3, ""), (3, 4, ""), (2, 5, ""), (4, 6, ""), (5, 6, "")),
    }


@pytest.mark.parametrize("text", ["0-00|0-00-000|0-00-000-0000", "0-01|0-00-111|1-11-111-1111"])
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 16), (2, 5)])
def test_shapes_and_parameters(text: str, channels: int, side: int) -> None:
    space, a = GeneticCNN(channels=4), SPACE.parse(text)
    task = image_task(channels, side, 7)
    network = space.build(a, task)
    assert network(torch.empty(2, *task.shape, device="meta")).shape == (2, 7)
    features = space.features(a, task)
    held = [len(stage_wiring(k, bits)[0]) for k, bits in space.stages(a)]
    expected, inputs = 16 * 7 + 7, channels
    for inner, width in zip(held, (4, 8, 16), strict=True):
        expected += 9 * inputs * width + 2 * width + (inner + 1) * (9 * width * width + 2 * width)
        inputs = width
    assert features["params"] == expected
    assert features["n_conv_3x3"] == sum(held) + 6


def filled(space: GeneticCNN, a: Architecture, task: Task, seed: int) -> torch.nn.Module:
    """The network with random weights and batch statistics, in float64."""
    network = space.build(a, task).to_empty(device="cpu").double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.5)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
            else:
                tensor.zero_()
    return network


def reference_forward(space: GeneticCNN, a: Architecture, w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network in evaluation mode, from the description in the paper."""
    for stage, (k, bits) in enumerate(space.stages(a)):

        def conv(x: torch.Tensor, i: int, at: str = f"{2 * stage}.convs") -> torch.Tensor:
            x = F.conv2d(x, w[f"{at}.{i}.0.weight"], padding=1)
            norm = (w[f"{at}.{i}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
            return F.relu(F.batch_norm(x, *norm))

        held, reads, last = stage_wiring(k, bits)
        first = conv(x, 0)
        values: dict[int, torch.Tensor] = {}
        for i, node in enumerate(held, start=1):
            values[node] = conv(sum((values[s] for s in reads[node]), torch.zeros(())) if reads[node] else first, i)
        x = conv(sum((values[node] for node in last), torch.zeros(())) if last else first, len(held) + 1)
        x = F.max_pool2d(x, 2, ceil_mode=True)
    head = f"{2 * len(space.nodes)}.2"
    return F.linear(x.mean(dim=(2, 3)), w[f"{head}.weight"], w[f"{head}.bias"])


@pytest.mark.parametrize(
    "text", ["0-00|0-00-000|0-00-000-0000", "1-01|0-01-100|0-10-011-0001", "0-10|1-00-001|0-11-000-1010"]
)
def test_network_equals_a_functional_second_implementation(text: str) -> None:
    space, task = GeneticCNN(channels=3), image_task(2, 9, 5)
    a = space.parse(text)
    network = filled(space, a, task, seed=1).eval()
    x = torch.randn(3, *task.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    with torch.no_grad():
        expected = reference_forward(space, a, network.state_dict(), x)
        assert expected.std() > 0
        torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_other_numbers_are_the_same_function_of_the_same_weights(training: bool) -> None:
    space, task = GeneticCNN(nodes=(5,), channels=4), image_task(2, 8, 5)
    # 1 -> 3, 2 -> 4, 3 -> 4, 5 apart; then the same with the numbers 2, 3, 4, 5 and 1.
    a, b = space.parse("0-10-011-0000"), space.parse("0-00-010-0011")
    order = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5}  # the convolutions that the networks hold stand in the same order
    assert a != b
    assert space.canonical(a) == space.canonical(b)
    c = space.parse("0-01-101-0000")  # 1 and 2 change places: 2 -> 3, 1 -> 4, 3 -> 4
    assert space.canonical(a) == space.canonical(c)
    x = torch.randn(4, *task.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    first = filled(space, a, task, seed=1).train(training)
    expected = first(x)
    for other, places in ((b, order), (c, order | {1: 2, 2: 1})):
        second = filled(space, other, task, seed=2).train(training)
        assert not torch.allclose(second(x), expected)
        state = {
            ".".join([*p[:2], str(places[int(p[2])]), *p[3:]]) if "convs" in p else ".".join(p): v
            for p, v in ((key.split("."), v) for key, v in first.state_dict().items())
        }
        second.load_state_dict(state)
        torch.testing.assert_close(second(x), expected, rtol=1e-9, atol=1e-9)


def test_path_encoding_tells_the_lengths_of_a_stage_s_paths() -> None:
    space = GeneticCNN(nodes=(3,))
    assert [space.encode(space.parse(t), "path").tolist() for t in ("0-00", "1-00", "1-01", "1-11")] == [
        *([1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 1])
    ]


def test_tables_have_no_network() -> None:
    with pytest.raises(ValueError, match="genetic_cnn: inputs of task 'wine' are tabular"):
        SPACE.build(SPACE.at(0), Task("wine", "tabular", "accuracy", True, (11,), 3, "0"))
