"""NAS-Bench-201: its counts, its canonical forms, its network and its numbers.

The published and recomputed facts are those of Dong & Yang 2020 and of the official result files; the class
counts are checked by second implementations written here, on other principles than the source.
"""

from __future__ import annotations

import pickle
import time
from collections import Counter, defaultdict
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.utils.flop_counter import FlopCounterMode

from nasbed.methods.spaces.nb201 import CONV1, CONV3, NB201, NONE, OPS, POOL, SKIP
from nasbed.protocols import Architecture, IndexedSpace, Task

SPACE = NB201()
CELLS = [SPACE.at(i) for i in range(SPACE.size)]
SMALL = NB201(ops=("none", "skip_connect", "nor_conv_3x3"))
Genes = tuple[int, ...]


def image_task(channels: int = 3, side: int = 32, classes: int | None = 10) -> Task:
    return Task("toy", "image", "accuracy", True, (channels, side, side), classes, "0")


def classes_of(level: str) -> dict[Architecture, list[Architecture]]:
    found = defaultdict(list)
    for a in CELLS:
        found[SPACE.canonical(a, level)].append(a)
    return found


# --- second implementations -----------------------------------------------------------------------------------

SOURCES = (0, 0, 1, 0, 1, 2)
TARGETS = (1, 2, 2, 3, 3, 3)
ROUTES = ((3,), (0, 4), (1, 5), (0, 2, 5))  # every path from input to output, as edges


def prune_by_routes(genes: Genes) -> Genes:
    live = {e for route in ROUTES if all(genes[e] != NONE for e in route) for e in route}
    return tuple(op if e in live else NONE for e, op in enumerate(genes))


def swap(genes: Genes) -> Genes:
    return tuple(genes[e] for e in (1, 0, 2, 3, 5, 4))


def reference_string(genes: Genes, *, zero: bool, sums_vanish: bool = False, flatten: bool = False) -> str:
    """The identity of the reference implementation, with its two known repairs as options."""
    terms: list[list[str]] = [["0"]]
    for node in (1, 2, 3):
        here: list[str] = []
        for e in range(6):
            if TARGETS[e] != node:
                continue
            before = terms[SOURCES[e]]
            value = "+".join(before)
            if zero and (genes[e] == NONE or value == "#"):
                here.append("#")
            elif genes[e] == SKIP:
                here += before if flatten else [value]
            else:
                here.append(f"({value})@{OPS[genes[e]]}")
        if sums_vanish:
            here = [t for t in here if t != "#"] or ["#"]
        terms.append(sorted(here))
    return "+".join(terms[3])


PRIME = 2**61 - 1
NUMBERS = np.random.default_rng(201)
CUBICS: list[list[list[int]]] = NUMBERS.integers(1, PRIME, size=(2, 6, 3)).tolist()
P1, P2, P3, X = NUMBERS.integers(1, PRIME, size=4).tolist()


def fingerprint(genes: Genes, *, linear_pool: bool = False) -> int:
    """The pruned cell, evaluated on numbers instead of images.

    Convolution weights become fixed random cubic polynomials without constant term modulo a prime; the least
    output over all ways to hand the polynomials out is the same for two cells just if one function family is.
    """
    genes = prune_by_routes(genes)

    def output(polynomials: dict[int, list[int]]) -> int:
        nodes = [X, 0, 0, 0]
        for e, op in enumerate(genes):
            v = nodes[SOURCES[e]]
            if op == NONE:
                continue
            if op == POOL:
                v = P1 * v if linear_pool else v * (P1 + v * (P2 + v * P3))
            elif op != SKIP:
                c1, c2, c3 = polynomials[e]
                v = v * (c1 + v * (c2 + v * c3))
            nodes[TARGETS[e]] = (nodes[TARGETS[e]] + v) % PRIME
        return nodes[3]

    ones = [e for e in range(6) if genes[e] == CONV1]
    threes = [e for e in range(6) if genes[e] == CONV3]
    return min(
        output(
            {e: CUBICS[0][k] for e, k in zip(ones, p, strict=True)}
            | {e: CUBICS[1][k] for e, k in zip(threes, q, strict=True)}
        )
        for p in permutations(range(len(ones)))
        for q in permutations(range(len(threes)))
    )


# --- the space ------------------------------------------------------------------------------------------------


def test_is_an_indexed_space() -> None:
    assert isinstance(SPACE, IndexedSpace)
    assert SPACE.size == len(set(CELLS)) == 15_625
    assert SMALL.size == 3**6 == 729
    assert all(len(SPACE.neighbours(a)) == 24 for a in CELLS[::997])


def test_class_counts_of_the_levels() -> None:
    counts = {level: len({SPACE.canonical(a, level) for a in CELLS}) for level in SPACE.levels}
    assert counts == {
        "iso": 14_125,
        "raw": 15_625,
        "pruned": 8_765,
        "string_6466": 6_466,
        "semantic_5260": 5_260,
    }


def test_counts_that_are_not_levels() -> None:
    genes = [a.genes for a in CELLS]
    assert len({prune_by_routes(g) for g in genes}) == 9_445
    assert sum(not any(prune_by_routes(g)) for g in genes) == 341
    assert len({reference_string(g, zero=False) for g in genes}) == 12_751
    assert len({reference_string(g, zero=True) for g in genes}) == 6_466
    assert len({reference_string(g, zero=True, sums_vanish=True) for g in genes}) == 5_390
    assert len({reference_string(g, zero=True, sums_vanish=True, flatten=True) for g in genes}) == 4_930
    assert len({fingerprint(g, linear_pool=True) for g in set(map(prune_by_routes, genes))}) == 5_044


@pytest.mark.parametrize("level", ["iso", "pruned", "string_6466", "semantic_5260"])
def test_classes_are_those_of_a_second_implementation(level: str) -> None:
    pruned = {g: fingerprint(g) for g in {prune_by_routes(a.genes) for a in CELLS}} if level[:3] == "sem" else {}

    def key(g: Genes) -> object:
        p = prune_by_routes(g)
        return {
            "iso": lambda: frozenset((g, swap(g))) if g[2] == NONE else g,
            "pruned": lambda: frozenset((p, swap(p))) if p[2] == NONE else p,
            "string_6466": lambda: reference_string(g, zero=True),
            "semantic_5260": lambda: pruned[p],
        }[level]()

    smallest: dict[object, Architecture] = {}
    for a in CELLS:
        assert SPACE.canonical(a, level) == smallest.setdefault(key(a.genes), a)


def test_the_string_identity_merges_cells_of_different_convolutions() -> None:
    def convolutions(a: Architecture) -> tuple[int, int]:
        pruned = prune_by_routes(a.genes)
        return pruned.count(CONV1), pruned.count(CONV3)

    mixed = [c for c in classes_of("string_6466").values() if len(set(map(convolutions, c))) > 1]
    assert len(mixed) == 430
    assert all(len(set(map(convolutions, c))) == 1 for c in classes_of("semantic_5260").values())


@pytest.mark.parametrize("space", [SPACE, SMALL, NB201(ops=("nor_conv_1x1", "avg_pool_3x3"))], ids=str)
@pytest.mark.parametrize("level", [None, *SPACE.levels])
def test_canonical_is_idempotent_and_stays_inside(space: NB201, level: str | None) -> None:
    for i in range(0, space.size, 7):
        representative = space.canonical(space.at(i), level)
        assert space.canonical(representative, level) == representative
        assert space.index(representative) <= i


def test_unknown_level_is_named() -> None:
    with pytest.raises(
        ValueError, match="level 'nb' is unknown; allowed: iso, raw, pruned, string_6466, semantic_5260"
    ):
        SPACE.canonical(CELLS[0], "nb")


def test_listing_and_merging_all_cells_takes_at_most_two_seconds() -> None:
    start = time.process_time()
    assert len({SPACE.canonical(SPACE.at(i)) for i in range(SPACE.size)}) == 14_125
    assert time.process_time() - start < 2


def test_sampling_a_restriction_is_uniform() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(SMALL.index(SMALL.sample(rng)) for _ in range(729 * 20))
    assert chisquare([counts[i] for i in range(729)]).pvalue > 1e-3


def test_mutation_is_uniform_over_the_24_neighbours() -> None:
    rng = np.random.default_rng(0)
    a = SPACE.at(4321)
    counts = Counter(SPACE.mutate(a, rng) for _ in range(4800))
    assert set(counts) == set(SPACE.neighbours(a))
    assert chisquare(list(counts.values())).pvalue > 1e-3


restrictions = st.sets(st.sampled_from(OPS), min_size=2).map(lambda ops: NB201(ops=sorted(ops)))


@given(restrictions, st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_restrictions_are_closed(space: NB201, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = space.sample(rng), space.sample(rng)
    for c in (a, space.mutate(a, rng), space.crossover(a, b, rng), space.canonical(a), *space.neighbours(a)):
        space.check(c)
        SPACE.check(c)
        assert space.text(c) == SPACE.text(c)
        assert space.parse(space.text(c)) == c == space.at(space.index(c))
        assert Architecture.parse(str(c)) == c
    assert len(space.neighbours(a)) == 6 * (len(space.ops) - 1)


# --- names and notation ---------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    assert SPACE.name == NB201(ops=OPS[::-1], channels=16, cells=5).name == "nb201"
    options = {"cells": ("1",), "ops": ("nor_conv_3x3", "none", "skip_connect"), "channels": ("6",)}
    space = NB201.from_options(options)
    assert space.name == "nb201[ops=none,skip_connect,nor_conv_3x3;channels=6;cells=1]"
    assert (space.family, space.channels, space.cells) == ("nb201", 6, 1)
    assert space == NB201(ops=("none", "skip_connect", "nor_conv_3x3"), channels=6, cells=1) != SPACE
    assert NB201.from_options({}) == SPACE
    assert NB201(channels=6, cells=1).name == "nb201[channels=6;cells=1]"
    assert pickle.loads(pickle.dumps(space)) == space


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"op": ("none",)}, "option 'op' is unknown; allowed: ops, channels, cells"),
        ({"ops": ("none", "conv")}, "ops holds 'conv'; allowed: none, skip_connect, nor_conv_1x1"),
        ({"ops": ("none",)}, "ops is 'none'; allowed: two or more, each once"),
        ({"ops": ("none", "none")}, "ops is 'none,none'; allowed: two or more, each once"),
        ({"channels": ("0",)}, "channels is 0; allowed: integers >= 1"),
        ({"cells": ("two",)}, "cells is 'two'; allowed: one integer"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NB201.from_options(options)


# Three architectures of the official files: string, genes, (1x1, 3x3) convolutions.
ARCH_0 = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
ARCH_11 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|"
ARCH_284 = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|nor_conv_1x1~1|none~2|"


@pytest.mark.parametrize(
    ("text", "genes"),
    [(ARCH_0, (4, 2, 1, 2, 1, 1)), (ARCH_11, (3, 3, 4, 0, 3, 4)), (ARCH_284, (1, 1, 1, 0, 2, 0))],
)
def test_official_strings(text: str, genes: Genes) -> None:
    assert SPACE.parse(text).genes == genes
    assert SPACE.text(Architecture("nb201", genes)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|none~0|+|none~0|none~1|", "has 2 nodes; allowed: 3"),
        (ARCH_284[:-1], r"node 3 is '.*none~2'; allowed: '\|op~0\|op~1\|op~2\|'"),
        (ARCH_284.replace("skip_connect~1|", ""), r"node 2 is '\|skip_connect~0\|'"),
        (
            ARCH_284.replace("nor_conv_1x1", "conv_1x1"),
            "node 3 holds 'conv_1x1~1'; allowed: op~1 with op of none",
        ),
        (ARCH_284.replace("none~2", "none~1"), "node 3 holds 'none~1'; allowed: op~2"),
        ("", "has 1 nodes"),
    ],
)
def test_malformed_strings_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPACE.parse(text)


def test_a_restriction_reads_its_own_operations_only() -> None:
    with pytest.raises(ValueError, match="'nor_conv_1x1~1'; allowed: op~1 with op of none, skip_connect, nor_conv_3x3"):
        SMALL.parse(ARCH_284)


# --- features and network -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "side", "classes", "params", "megamacs"),
    [
        (ARCH_0, 32, 10, 129_306, 15.64737),
        (ARCH_0, 32, 100, 135_156, 15.65322),
        (ARCH_0, 16, 120, 136_456, 3.91948),
        (ARCH_11, 32, 10, 802_426, 113.95137),
        (ARCH_11, 32, 100, 808_276, 113.95722),
        (ARCH_11, 16, 120, 809_576, 28.49548),
        (ARCH_284, 32, 10, 101_306, 11.71521),
        (ARCH_284, 32, 100, 107_156, 11.72106),
        (ARCH_284, 16, 120, 108_456, 2.93644),
    ],
)
def test_params_and_macs_of_the_official_files(
    text: str, side: int, classes: int, params: int, megamacs: float
) -> None:
    features = SPACE.features(SPACE.parse(text), image_task(3, side, classes))
    assert features["params"] == params
    assert features["macs"] == pytest.approx(megamacs * 1e6, abs=0.5)
    assert features["flops"] == 2 * features["macs"]


def test_cifar10_formulas() -> None:
    task = image_task()
    for a in CELLS[::311]:
        features = SPACE.features(a, task)
        n1, n3 = features["n_nor_conv_1x1"], features["n_nor_conv_3x3"]
        assert (n1, n3) == (a.genes.count(2), a.genes.count(3))
        assert features["params"] == 73_306 + 28_000 * n1 + 243_040 * n3
        assert features["macs"] == 7_783_050 + 3_932_160 * n1 + 35_389_440 * n3
        assert sum(features[f"n_{op}"] for op in OPS) == 6


@pytest.mark.parametrize(
    ("space", "text", "task"),
    [
        (SPACE, ARCH_11, image_task()),
        (NB201(channels=6, cells=1), ARCH_0, image_task(1, 8, 7)),
        (NB201(channels=6, cells=1), ARCH_11, image_task(2, 12, None)),
        (NB201(channels=3, cells=2), ARCH_0, image_task(3, 16, 2)),
    ],
    ids=["official", "grey", "regression", "narrow"],
)
def test_network_and_features_agree(space: NB201, text: str, task: Task) -> None:
    a = space.parse(text)
    state = torch.get_rng_state()
    network, features = space.build(a, task), space.features(a, task)
    assert torch.equal(torch.get_rng_state(), state)
    assert {t.device.type for t in network.state_dict().values()} == {"meta"}
    assert features["params"] == sum(p.numel() for p in network.parameters())
    outputs = task.classes or 1
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(torch.empty(2, *task.shape, device="meta")).shape == (2, outputs)
    # Two examples; torch bills the classifier's products, the official files its bias too.
    assert features["macs"] == counter.get_total_flops() / 4 + outputs


def test_dead_edges_have_parameters() -> None:
    dead = Architecture("nb201", (CONV3, NONE, CONV3, SKIP, NONE, NONE))
    live = Architecture("nb201", (NONE, NONE, NONE, SKIP, NONE, NONE))
    assert SPACE.canonical(dead, "pruned") == live
    sizes = [sum(p.numel() for p in SPACE.build(a, image_task()).parameters()) for a in (dead, live)]
    assert sizes[0] - sizes[1] == 2 * 243_040


@pytest.mark.parametrize(
    ("genes", "depth"),
    [
        ((3, 3, 3, 3, 3, 3), 3),
        ((1, 1, 1, 1, 1, 1), 0),
        ((0, 0, 0, 0, 0, 0), 0),
        ((3, 0, 0, 0, 0, 3), 0),
        ((4, 0, 1, 0, 0, 2), 2),
        ((3, 2, 0, 1, 0, 4), 2),
        ((3, 3, 3, 2, 0, 0), 1),
    ],
)
def test_depth(genes: Genes, depth: int) -> None:
    assert SPACE.features(Architecture("nb201", genes), image_task())["depth"] == depth
    longest = max((sum(genes[e] != SKIP for e in r) for r in ROUTES if all(genes[e] for e in r)), default=0)
    assert longest == depth


@pytest.mark.parametrize("shape", [(11,), (3, 30, 32), (3, 32, 30)])
def test_inputs_that_the_network_cannot_take_are_named(shape: tuple[int, ...]) -> None:
    task = Task("wine", "tabular", "accuracy", True, shape, 3, "0")
    for use in (SPACE.features, SPACE.build):
        with pytest.raises(ValueError, match=r"inputs of task 'wine' have the shape \(.*\); allowed: \(channels"):
            use(CELLS[0], task)


def filled(space: NB201, a: Architecture, task: Task, seed: int) -> torch.nn.Module:
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


def images(task: Task, n: int = 4) -> torch.Tensor:
    return torch.randn(n, *task.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def reference_forward(genes: Genes, w: dict[str, torch.Tensor], x: torch.Tensor, cells: int) -> torch.Tensor:
    """The macro network in plain functional torch, evaluation mode, from the description in the paper."""

    def norm(x: torch.Tensor, at: str) -> torch.Tensor:
        return F.batch_norm(x, *(w[f"{at}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")))

    def relu_conv_bn(x: torch.Tensor, at: str, pad: int, stride: int = 1) -> torch.Tensor:
        return norm(F.conv2d(F.relu(x), w[f"{at}.1.weight"], stride=stride, padding=pad), f"{at}.2")

    def mean_pool(x: torch.Tensor) -> torch.Tensor:
        sums = F.avg_pool2d(x, 3, 1, 1, divisor_override=1)
        return sums / F.avg_pool2d(torch.ones_like(x), 3, 1, 1, divisor_override=1)

    x = norm(F.conv2d(x, w["0.0.weight"], padding=1), "0.1")
    for stage, at in enumerate((1, 3, 5)):
        if stage:
            r = f"{at - 1}.body"
            branch = relu_conv_bn(relu_conv_bn(x, f"{r}.0", 1, 2), f"{r}.1", 1)
            x = branch + F.conv2d(F.avg_pool2d(x, 2), w[f"{at - 1}.shortcut.1.weight"])
        for k in range(cells):
            nodes = [x, 0, 0, 0]
            for e, op in enumerate(genes):
                v = nodes[SOURCES[e]]
                if op == NONE or isinstance(v, int):
                    continue
                if op in (CONV1, CONV3):
                    v = relu_conv_bn(v, f"{at}.{k}.edges.{e}", int(op == CONV3))
                nodes[TARGETS[e]] = nodes[TARGETS[e]] + (mean_pool(v) if op == POOL else v)
            x = nodes[3]
    x = F.relu(norm(x, "6.0")).mean(dim=(2, 3))
    return F.linear(x, w["7.weight"], w["7.bias"])


@pytest.mark.parametrize("genes", [(4, 2, 1, 2, 1, 1), (3, 3, 4, 0, 3, 4), (1, 2, 0, 4, 3, 1), (3, 4, 2, 3, 2, 4)])
def test_network_equals_a_functional_second_implementation(genes: Genes) -> None:
    space, task = NB201(channels=3, cells=2), image_task(2, 8, 5)
    network = filled(space, Architecture("nb201", genes), task, seed=1).eval()
    x = images(task)
    with torch.no_grad():
        torch.testing.assert_close(
            network(x), reference_forward(genes, network.state_dict(), x, 2), rtol=1e-10, atol=1e-10
        )


def test_a_cell_without_a_path_gives_a_constant() -> None:
    space, task = NB201(channels=3, cells=1), image_task(2, 8, 5)
    network = filled(space, Architecture("nb201", (3, 3, 3, 0, 0, 0)), task, seed=1).eval()
    with torch.no_grad():
        out = network(images(task))
    assert (out == out[0]).all()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("genes", [(3, 2, 0, 1, 4, 3), (3, 3, 0, 2, 3, 2), (4, 1, 0, 0, 3, 2)])
def test_iso_equal_cells_are_the_same_function(genes: Genes, training: bool) -> None:
    space, task = NB201(channels=4, cells=2), image_task(3, 8, 5)
    a, b = Architecture("nb201", genes), Architecture("nb201", swap(genes))
    assert a != b
    assert space.canonical(a) == space.canonical(b)
    first, second = filled(space, a, task, seed=1), filled(space, b, task, seed=2)

    def moved(name: str) -> str:
        parts = name.split(".")
        if "edges" in parts:
            parts[3] = str((1, 0, 2, 3, 5, 4)[int(parts[3])])
        return ".".join(parts)

    outputs = []
    x = images(task)
    for step in ("own weights", "shared weights"):
        if step == "shared weights":
            second.load_state_dict({moved(k): v for k, v in first.state_dict().items()})
        first.train(training)
        second.train(training)
        outputs.append((first(x), second(x)))
    assert not torch.allclose(*outputs[0])
    torch.testing.assert_close(*outputs[1], rtol=1e-9, atol=1e-9)
    state = second.state_dict()
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(tensor, state[moved(name)], rtol=1e-9, atol=1e-9)
