"""Chains with conditional hyper-parameters: counts, priors of the depth, moves, notation, ConfigSpace, networks."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn
from torch.nn import functional as f

from nasbed.harness.checks import check_space
from nasbed.methods import registry
from nasbed.methods.networks.chain import Pool
from nasbed.methods.spaces.chain import Chain
from nasbed.protocols import Architecture, IndexedSpace, Task
from nasbed.protocols.training import materialise

FULL = Chain()
EVERY = ("conv", "sep_once", "max_pool", "avg_pool", "dense")
DIGITS = Task("digits", "image", "accuracy", True, (1, 8, 8), 10, "")
IMAGES = Task("toy", "image", "accuracy", True, (3, 16, 16), 7, "")
TABLE = Task("table", "tabular", "accuracy", True, (13,), 3, "")
SMALL = [
    Chain(layers=3, operations=["conv", "max_pool"], kernels=[1, 3], strides=[1], filters=[4], pool_kernels=[2]),
    Chain(layers=2, operations=["dense", "conv"], kernels=[3], strides=[1, 2], filters=[4, 8], units=[5, 6, 7]),
    Chain(layers=2, operations=EVERY, kernels=[3], strides=[1, 2], filters=[4], pool_kernels=[2], units=[5]),
    Chain(layers=4, operations=["dense"], units=[5]),
]
SPACES = pytest.mark.parametrize("space", SMALL, ids=lambda s: s.name)
VARIED = Chain(layers=4, operations=EVERY, kernels=[1, 3, 7], strides=[1, 2, 3], pool_kernels=[2, 3, 4, 5], filters=[6])
members = st.integers(0, VARIED.size - 1).map(VARIED.at)


def every(space: Chain) -> list[Architecture]:
    return list(map(space.at, range(space.size)))


def layers_of(space: Chain, a: Architecture) -> list[str]:
    return space.text(a).split("/")


def real(space: Chain, a: Architecture, task: Task, seed: int) -> nn.Module:
    """The network of `a` with weights."""
    return materialise(space.build(a, task), torch.Generator().manual_seed(seed), dtype=torch.float64)


def read(layer: str) -> tuple[str, dict[str, int]]:
    name, _, inner = layer[:-1].partition("(")
    return name, {key: int(value) for key, _, value in (pair.partition("=") for pair in inner.split(","))}


# --- counts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "m", "n"),
    [
        (FULL, 3 * 2 * 3 + 2 * 2 + 2 * 2 + 3, 5),
        (VARIED, 2 * 9 + 2 * 12 + 3, 4),
        (SMALL[0], 3, 3),
        (SMALL[1], 7, 2),
        (SMALL[3], 1, 4),
        (Chain(layers=30, operations=EVERY), 18 + 18 + 4 + 4 + 3, 30),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_known_sizes(space: Chain, m: int, n: int) -> None:
    assert space.size == sum(m**d for d in range(1, n + 1))
    assert m == 1 or space.size == (m ** (n + 1) - m) // (m - 1)


@SPACES
def test_the_numbering_lists_exactly_the_sequences_of_layers(space: Chain) -> None:
    assert isinstance(space, IndexedSpace)
    alphabet = {text for a in every(space) for text in layers_of(space, a)}
    expected = {"/".join(row) for d in range(1, space.layers + 1) for row in product(alphabet, repeat=d)}
    assert {space.text(a) for a in every(space)} == expected
    assert len(expected) == space.size
    assert [space.index(a) for a in every(space)] == list(range(space.size))
    for outside in (-1, space.size):
        with pytest.raises(ValueError, match="index is"):
            space.at(outside)


@SPACES
def test_the_sequential_view_reaches_exactly_the_members(space: Chain) -> None:
    found, todo = [], [()]
    while todo:
        prefix = todo.pop()
        options = space.options(prefix)
        assert len(set(options)) == len(options)
        todo += [(*prefix, value) for value in options]
        if not options:
            found.append(Architecture("chain", prefix))
    assert sorted(map(space.index, found)) == list(range(space.size))


def test_only_active_values_are_genes() -> None:
    a = FULL.parse("conv(kernel=3,stride=1,filters=16)/max_pool(kernel=2,stride=2)/dense(units=64)")
    assert a.genes == (1, 3, 1, 16, 3, 2, 2, 5, 64, 0)
    assert FULL.options(()) == (1, 3, 4, 5)
    assert FULL.options((1,)) == (1, 3, 5)
    assert FULL.options((1, 3, 1)) == (8, 16, 32)
    assert FULL.options(a.genes[:-1]) == (0, 1, 3, 4, 5)
    assert FULL.options(a.genes) == ()
    assert Chain(layers=3).options(a.genes[:-1]) == (0,)


@given(st.lists(st.integers(0, 8), max_size=9).map(tuple), st.sampled_from(["chain", "mlp"]))
def test_check_and_index_accept_members_and_nothing_else(genes: tuple[int, ...], name: str) -> None:
    space, a = SMALL[1], Architecture(name, genes)
    if a in MEMBERS:
        assert space.at(space.index(a)) == a
    else:
        for refuse in (space.check, space.index):
            with pytest.raises(ValueError, match=r"gene \d|of the space") as error:
                refuse(a)
            assert "\n" not in str(error.value)


MEMBERS = set(every(SMALL[1]))


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ((), "gene 0 of chain: is missing; allowed: 1, 5"),
        ((0,), "gene 0 of chain:0 is 0; allowed: 1, 5"),
        ((1, 3, 2, 9, 0), "gene 3 of .* is 9; allowed: 4, 8"),
        ((5, 6), "gene 2 of .* is missing; allowed: 0, 1, 5"),
        ((5, 6, 0, 0), "gene 3 of .* is 0; allowed: none"),
        ((5, 6, 5, 6, 5, 6, 0), "gene 4 of .* is 5; allowed: 0"),
    ],
)
def test_the_offending_gene_is_named(genes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL[1].check(Architecture("chain", genes))


# --- sampling -------------------------------------------------------------------------------------------------


@SPACES
def test_sampling_is_uniform(space: Chain) -> None:
    rng = np.random.default_rng(0)
    counts = Counter(space.sample(rng) for _ in range(50 * space.size))
    assert len(counts) == space.size
    assert space.size == 1 or chisquare(list(counts.values())).pvalue > 1e-3


def depths(space: Chain, prior: str, draws: int = 3000) -> list[int]:
    rng = np.random.default_rng(1)
    seen = Counter(len(layers_of(space, space.sample(rng, depth_prior=prior))) for _ in range(draws))
    return [seen[d] for d in range(1, space.layers + 1)]


def test_the_priors_of_the_depth() -> None:
    space, m, n, k = SMALL[0], 3, 3, 2
    expected = {
        "uniform_over_archs": [m**d / space.size for d in (1, 2, 3)],
        "uniform": [1 / n] * n,
        "stop_token": [1 / (k + 1), k / (k + 1) ** 2, (k / (k + 1)) ** 2],
    }
    for prior, shares in expected.items():
        assert chisquare(depths(space, prior), [3000 * p for p in shares]).pvalue > 1e-3, prior
    rng = np.random.default_rng(2)
    first = Counter(read(layers_of(space, space.sample(rng, depth_prior="uniform"))[0])[0] for _ in range(2000))
    assert chisquare([first["conv"], first["max_pool"]]).pvalue > 1e-3  # by operation, not by layer
    with pytest.raises(ValueError, match="depth_prior is 'deep'; allowed: uniform_over_archs, uniform, stop_token"):
        space.sample(rng, depth_prior="deep")


def test_sampling_a_space_beyond_64_bits_is_uniform() -> None:
    space = Chain(layers=30, operations=EVERY)
    assert space.size > 2**64
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(1000)]
    for a in drawn:
        space.check(a)
    assert chisquare(np.bincount([space.index(a) * 10 // space.size for a in drawn], minlength=10)).pvalue > 1e-3


# --- moves ----------------------------------------------------------------------------------------------------


def edit(space: Chain, a: Architecture, b: Architecture) -> str | None:
    """The kind of the single edit that leads from one to the other, written out on texts; None without one."""
    x, y = layers_of(space, a), layers_of(space, b)
    if len(x) == len(y):
        pairs = [(read(s), read(t)) for s, t in zip(x, y, strict=True) if s != t]
        if len(pairs) != 1:
            return None
        (one, values), (two, others) = pairs[0]
        if one != two:
            return "operation"
        return "value" if sum(values[key] != others[key] for key in values) == 1 else None
    short, long = sorted((x, y), key=len)
    if len(long) == len(short) + 1 and any(long[:i] + long[i + 1 :] == short for i in range(len(long))):
        return "delete" if long is x else "insert"
    return None


@SPACES
def test_neighbours_are_all_members_one_edit_away(space: Chain) -> None:
    whole = every(space)
    for a in whole[:: max(1, len(whole) // 20)]:
        found = space.neighbours(a)
        assert len(set(found)) == len(found)
        assert set(found) == {b for b in whole if edit(space, a, b)}


@given(members, st.data())
def test_neighbours_are_symmetric(a: Architecture, data: st.DataObject) -> None:
    b = data.draw(st.sampled_from(VARIED.neighbours(a)))
    VARIED.check(b)
    assert edit(VARIED, a, b)
    assert a in VARIED.neighbours(b)


def test_mutation_draws_its_kind_uniformly_and_reaches_every_neighbour() -> None:
    space, rng = SMALL[2], np.random.default_rng(1)
    for layers, kinds in ((1, {"value", "operation", "insert"}), (2, {"value", "operation", "delete"})):
        a = space.parse("/".join(["conv(kernel=3,stride=1,filters=4)", "dense(units=5)"][:layers]))
        drawn = [space.mutate(a, rng) for _ in range(2000)]
        assert set(drawn) == set(space.neighbours(a))
        counts = Counter(edit(space, a, b) for b in drawn)
        assert set(counts) == kinds
        assert chisquare(list(counts.values())).pvalue > 1e-3


def test_the_only_member_has_no_neighbours() -> None:
    space = Chain(layers=1, operations=["dense"], units=[5])
    assert space.size == 1
    assert space.neighbours(space.at(0)) == []
    with pytest.raises(ValueError, match="only member"):
        space.mutate(space.at(0), np.random.default_rng(0))


@given(members, members, st.integers(0, 2**32))
def test_children_take_a_head_and_a_tail(a: Architecture, b: Architecture, seed: int) -> None:
    child = VARIED.crossover(a, b, np.random.default_rng(seed))
    x, y, z = (layers_of(VARIED, c) for c in (a, b, child))
    assert any(z == x[:i] + y[i:] for i in range(1, min(len(x), len(y)) + 1))
    assert VARIED.crossover(a, a, np.random.default_rng(seed)) == a


# --- classes --------------------------------------------------------------------------------------------------


def class_of(space: Chain, a: Architecture) -> tuple[object, ...]:
    """What a network is made of, written out on texts: on one pixel pools are nothing, and strides do not matter."""
    found, pixel = [], False
    for name, values in map(read, layers_of(space, a)):
        if not (pixel and "pool" in name):
            found.append((name, *(v for key, v in values.items() if not (pixel and key == "stride"))))
        pixel = pixel or name == "dense"
    return tuple(found)


@SPACES
def test_classes_by_a_second_implementation(space: Chain) -> None:
    whole = every(space)
    assert {a: space.canonical(a) for a in whole} == {
        a: min((b for b in whole if class_of(space, b) == class_of(space, a)), key=space.index) for a in whole
    }
    assert all(space.canonical(a, "raw") == a for a in whole)
    with pytest.raises(ValueError, match="level 'wl' is unknown"):
        space.canonical(whole[0], "wl")


def test_class_counts() -> None:
    # dense x 1, then conv with two strides, pools: see class_of; 7 + 49 - (behind 3 denses: 2 x 2 strides lost) ...
    assert len({SMALL[1].canonical(a) for a in every(SMALL[1])}) == 7 + 49 - 3 * 2
    # ... and 8 layers: behind the dense 4 pools fall into the chain of one layer, 2 of the 4 convolutions go.
    assert len({SMALL[2].canonical(a) for a in every(SMALL[2])}) == 9 + 81 - 4 - 2


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("text", "representative"),
    [
        ("dense(units=16)/max_pool(kernel=3,stride=2)/avg_pool(kernel=4,stride=1)", "dense(units=16)"),
        (
            "avg_pool(kernel=2,stride=2)/dense(units=16)/conv(kernel=3,stride=3,filters=6)",
            "avg_pool(kernel=2,stride=2)/dense(units=16)/conv(kernel=3,stride=1,filters=6)",
        ),
        (
            "dense(units=16)/avg_pool(kernel=3,stride=3)/sep_once(kernel=7,stride=2,filters=6)/dense(units=32)",
            "dense(units=16)/sep_once(kernel=7,stride=1,filters=6)/dense(units=32)",
        ),
    ],
)
def test_a_representative_computes_the_same(text: str, representative: str, training: bool) -> None:
    a = VARIED.parse(text)
    b = VARIED.canonical(a)
    assert VARIED.text(b) == representative
    one, two = real(VARIED, a, IMAGES, 0).train(training), real(VARIED, b, IMAGES, 1).train(training)
    x = torch.rand(4, *IMAGES.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert not torch.equal(one(x), two(x))
    two.load_state_dict(dict(zip(two.state_dict(), one.state_dict().values(), strict=True)))
    assert torch.equal(one(x), two(x))


# --- encodings ------------------------------------------------------------------------------------------------


@given(members, members)
def test_codes_mark_what_is_inactive_and_can_be_read_back(a: Architecture, b: Architecture) -> None:
    code = VARIED.encode(a)
    assert code.shape == (4 * (6 + 2 * (4 + 4 + 2) + 2 * (5 + 4) + 4),)
    position = 0

    def value(allowed: tuple[object, ...]) -> object:
        nonlocal position
        bits = code[position : position + len(allowed) + 1]
        assert sorted(bits) == [0.0] * len(allowed) + [1.0]
        position += len(bits)
        return (*allowed, "inactive")[int(bits.argmax())]

    texts = []
    for _ in range(4):
        chosen = value(EVERY)
        for name in EVERY:
            domains: dict[str, tuple[int, ...]] = {"kernel": (1, 3, 7), "stride": (1, 2, 3), "filters": (6,)}
            if "pool" in name:
                domains = {"kernel": (2, 3, 4, 5), "stride": (1, 2, 3)}
            if name == "dense":
                domains = {"units": (16, 32, 64)}
            found = {key: value(allowed) for key, allowed in domains.items()}
            assert all((v == "inactive") == (name != chosen) for v in found.values())
            if name == chosen:
                texts.append(f"{name}({','.join(f'{k}={v}' for k, v in found.items())})")
    assert position == len(code)
    assert "/".join(texts) == VARIED.text(a)
    assert np.array_equal(code, VARIED.encode(b)) == (a == b)


def test_the_path_code_tells_sequences_of_operations_apart() -> None:
    texts = ["dense(units=16)", "dense(units=16)/dense(units=16)", "max_pool(kernel=2,stride=1)/dense(units=16)"]
    codes = [FULL.encode(FULL.parse(text), "path") for text in texts]
    assert [code.sum() for code in codes] == [1.0, 1.0, 1.0]
    assert len({code.argmax() for code in codes}) == 3


# --- ConfigSpace ----------------------------------------------------------------------------------------------


def test_configurations_hold_exactly_the_active_values() -> None:
    configspace = pytest.importorskip("ConfigSpace")
    found = VARIED.to_configspace()
    for configuration in found.sample_configuration(60):
        a = VARIED.from_configspace(dict(configuration))
        VARIED.check(a)
        written = {"depth": str(len(layers_of(VARIED, a)))}
        for i, (name, values) in enumerate(map(read, layers_of(VARIED, a)), start=1):
            written[f"layer_{i}_operation"] = name
            written |= {f"layer_{i}_{name}_{key}": str(value) for key, value in values.items()}
        assert {key: str(value) for key, value in configuration.items()} == written
    rng = np.random.default_rng(0)
    for _ in range(20):
        a = VARIED.sample(rng)
        values = {"depth": str(len(layers_of(VARIED, a)))}
        for i, (name, children) in enumerate(map(read, layers_of(VARIED, a)), start=1):
            values[f"layer_{i}_operation"] = name
            values |= {f"layer_{i}_{name}_{key}": str(value) for key, value in children.items()}
        configspace.Configuration(found, values=values)  # refuses inactive and missing values
        assert VARIED.from_configspace(values) == a
        # What is inactive never matters.
        assert VARIED.from_configspace({"layer_4_operation": "nonsense", "layer_1_x": 3} | values) == a


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({}, "'depth' is missing; allowed: 1, 2"),
        ({"depth": 3}, "'depth' is 3"),
        ({"depth": 1, "layer_1_operation": "max_pool"}, "'layer_1_operation' is max_pool; allowed: conv, dense"),
        ({"depth": 1, "layer_1_operation": "dense"}, "'layer_1_dense_units' is missing; allowed: 5, 6, 7"),
    ],
)
def test_a_wrong_configuration_is_refused(configuration: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL[1].from_configspace(configuration)


def test_a_space_of_one_depth_has_a_configuration_space() -> None:
    pytest.importorskip("ConfigSpace")
    space = Chain(layers=1, operations=["dense"])
    configuration = space.to_configspace().sample_configuration()
    space.check(space.from_configspace(dict(configuration)))


# --- networks -------------------------------------------------------------------------------------------------


def by_hand(space: Chain, a: Architecture, shape: tuple[int, int, int], outputs: int) -> int:
    """Parameters, by formula."""
    c, h, w = shape
    total = 0
    for name, v in map(read, layers_of(space, a)):
        if name == "dense":
            total += (c * h * w + 1) * v["units"]
            c, h, w = v["units"], 1, 1
            continue
        h, w = -(-h // v["stride"]), -(-w // v["stride"])
        if name == "conv":
            total += v["kernel"] ** 2 * c * v["filters"] + 2 * v["filters"]
        if name == "sep_once":
            total += v["kernel"] ** 2 * c + c * v["filters"] + 2 * v["filters"]
        c = v.get("filters", c)
    return total + (c + 1) * outputs


@settings(deadline=None, max_examples=12)
@given(members, st.sampled_from([DIGITS, IMAGES, TABLE]))
def test_parameters_and_shapes(a: Architecture, task: Task) -> None:
    network = VARIED.build(a, task)
    shape = task.shape if len(task.shape) == 3 else (*task.shape, 1, 1)
    features = VARIED.features(a, task)
    assert features["params"] == sum(p.numel() for p in network.parameters()) == by_hand(VARIED, a, shape, task.classes)
    assert features["depth"] == len(layers_of(VARIED, a)) == sum(features[f"n_{name}"] for name in EVERY)
    assert network(torch.empty(2, *task.shape, device="meta")).shape == (2, task.classes)
    assert all(p.is_meta for p in network.parameters())


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("side", [1, 2, 7])
def test_pools_take_the_part_of_the_window_inside_the_image(kernel: int, stride: int, side: int) -> None:
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reach = (kernel - 1) // 2
    starts = [i - reach for i in range(0, side, stride)]
    for kind, reduce in (("max", torch.amax), ("avg", torch.mean)):
        rows = [
            [
                reduce(x[:, :, max(r, 0) : r + kernel, max(c, 0) : c + kernel], dim=(2, 3))  # type: ignore[operator]
                for c in starts
            ]
            for r in starts
        ]
        expected = torch.stack([torch.stack(row, -1) for row in rows], -2)
        torch.testing.assert_close(Pool(kind, kernel, stride)(x), expected, rtol=1e-12, atol=1e-12)


def test_an_example_against_a_network_written_out() -> None:
    front = "conv(kernel=3,stride=2,filters=16)/max_pool(kernel=2,stride=2)"
    text = front + "/dense(units=64)/conv(kernel=5,stride=2,filters=8)"
    network = real(FULL, FULL.parse(text), DIGITS, 0)
    w = list(network.parameters())
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def norm(y: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return f.relu(f.batch_norm(y, None, None, scale, shift, training=True))

    y = norm(f.conv2d(x, w[0], stride=2, padding=1), w[1], w[2])
    y = f.relu(f.linear(f.max_pool2d(y, 2).flatten(1), w[3], w[4]))
    y = norm((y @ w[5][:, :, 2, 2].T)[:, :, None, None], w[6], w[7])[:, :, 0, 0]
    torch.testing.assert_close(network(x), f.linear(y, w[8], w[9]), rtol=1e-12, atol=1e-12)


@given(members)
@settings(deadline=None, max_examples=8)
def test_members_compute_finite_outputs_and_gradients(a: Architecture) -> None:
    network = real(VARIED, a, DIGITS, 0)
    out = network(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_build_leaves_the_global_generator_alone_and_refuses_text() -> None:
    a = FULL.parse("conv(kernel=1,stride=1,filters=8)/avg_pool(kernel=3,stride=2)")
    state = torch.get_rng_state()
    network = FULL.build(a, Task("r", "regression", "rmse", False, (5,), None, ""))
    assert torch.equal(state, torch.get_rng_state())
    assert [m.out_features for m in network.modules() if isinstance(m, nn.Linear)] == [1]
    with pytest.raises(ValueError, match="chain: inputs of task 'w' are text"):
        FULL.build(a, Task("w", "text", "accuracy", True, (12,), 20, ""))


# --- notation -------------------------------------------------------------------------------------------------


@given(members)
def test_texts_are_read_back(a: Architecture) -> None:
    assert VARIED.parse(VARIED.text(a)) == a
    assert Architecture.parse(str(a)) == a


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"layer 1 is ''; allowed: conv\(kernel=3,stride=1\|2,filters=4\|8\); dense\(units=5\|6\|7\)$"),
        ("dense(units=5)/", "layer 2 is ''"),
        ("dense(units=05)", r"layer 1 is 'dense\(units=05\)'; allowed: dense\(units=5\|6\|7\)$"),
        ("dense(units=8)", "layer 1 is .* allowed: dense"),
        ("dense(units=5)/conv(kernel=3,stride=1)", "layer 2 is .* allowed: conv"),
        ("conv(stride=1,kernel=3,filters=4)", "layer 1 is"),
        ("max_pool(kernel=2,stride=2)", "layer 1 is 'max_pool.* allowed: conv.*dense"),
        ("dense(units=5)/dense(units=5)/dense(units=5)", "has 3 layers; allowed: 1 to 2"),
    ],
)
def test_a_malformed_text_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"chain: .*{message}") as error:
        SMALL[1].parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("space", [FULL, VARIED, *SMALL], ids=lambda s: s.name)
def test_names_give_equal_spaces(space: Chain) -> None:
    again = registry.space(space.name)
    assert (again, again.size, hash(again)) == (space, space.size, hash(space))


def test_names_hold_what_is_not_default_in_a_fixed_order() -> None:
    assert FULL.name == "chain"
    name = "chain[filters=16,8;operations=dense,conv;layers=2;strides=1,2]"
    assert registry.space(name).name == "chain[layers=2;operations=conv,dense;filters=8,16]"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chain[layers=0]", "layers is 0; allowed: integers >= 1"),
        ("chain[layers=two]", "layers is 'two'"),
        ("chain[operations=conv,gru]", "operations is 'conv,gru'; allowed: .* of conv, sep_once"),
        ("chain[operations=conv,conv]", "operations is 'conv,conv'; allowed: .*each once"),
        ("chain[kernels=2]", "kernels is '2'; allowed: odd integers >= 1"),
        ("chain[pool_kernels=1]", "pool_kernels is '1'; allowed: integers >= 2"),
        ("chain[strides=1,x]", "strides is 'x'"),
        ("chain[filters=8,8]", "filters is '8,8'; allowed: integers >= 1, each once"),
        ("chain[units=0]", "units is '0'"),
        ("chain[depth=2]", "option 'depth' is unknown; allowed: layers, operations"),
    ],
)
def test_a_wrong_restriction_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"chain: {message}") as error:
        registry.space(name)
    assert "\n" not in str(error.value)


def test_the_conformance_checks_pass() -> None:
    assert [result for result in check_space(SMALL[1]) if result.passed is False] == []
