"""Multi-branch networks: counts, special cases against networks written out, merges, notation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations, product

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
from nasbed.methods.networks.multi_branch import LAYERS, Merge
from nasbed.methods.spaces.multi_branch import OPS, MultiBranch
from nasbed.protocols import Architecture, IndexedSpace, Task
from nasbed.protocols.training import materialise

FULL = MultiBranch()
SMALL = MultiBranch(layers=3, ops=["conv_3x3", "max_pool_3x3"], channels=3)
DIGITS = Task("digits", "image", "accuracy", True, (1, 8, 8), 10, "")
IMAGES = Task("toy", "image", "accuracy", True, (3, 16, 16), 7, "")
members = st.integers(0, FULL.size - 1).map(FULL.at)


def real(space: MultiBranch, a: Architecture, seed: int = 0) -> nn.Module:
    return filled(space.build(a, IMAGES), seed)


def filled(network: nn.Module, seed: int) -> nn.Module:
    """With random weights and statistics."""
    rng = torch.Generator().manual_seed(seed)
    network = materialise(network, rng, dtype=torch.float64)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=rng)
    return network


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, *IMAGES.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# --- counts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 4, 7, 9])
def test_known_sizes(n: int) -> None:
    space = MultiBranch(layers=n, ops=["conv_1x1", "conv_3x3", "conv_5x5"], merge=["sum"])
    assert len(space.pairs) == n * (n - 1) // 2
    assert space.size == 3 ** (n - 1) * 2 ** (n * (n - 1) // 2)
    assert MultiBranch(layers=n).size == 5 ** (n - 1) * 2 ** (n * (n - 1) // 2) * 2
    assert isinstance(space, IndexedSpace)


def test_members_are_all_directed_acyclic_graphs_that_hold_the_chain() -> None:
    space = MultiBranch(layers=4, ops=["conv_3x3"], merge=["sum"], channels=3)
    edges = [(j, i) for i in range(1, 5) for j in range(i)]
    chain = {(i, i + 1) for i in range(4)}
    expected = {frozenset(some) for r in range(len(edges) + 1) for some in combinations(edges, r) if chain <= set(some)}
    found = {
        frozenset((j, i) for i, read in enumerate(space.sources(a), start=1) for j in read)
        for a in map(space.at, range(space.size))
    }
    assert found == expected
    assert len(found) == space.size == 64


@given(members)
def test_every_layer_lies_on_the_way(a: Architecture) -> None:
    graph = FULL.graphs(a)["network"]
    bits = sum(a.genes[6:-1])
    assert len(graph.edges) == 7 + bits
    assert graph.depth == 6
    assert sum(graph.operations.values()) == 6
    assert len(FULL.neighbours(a)) == 6 * 4 + 21 + 1
    assert [(i, i + 1) in {(s, t) for s, t, _ in graph.edges} for i in range(7)] == [True] * 7


def test_sampling_is_uniform() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(SMALL.sample(rng) for _ in range(50 * SMALL.size))
    assert len(counts) == SMALL.size == 2**2 * 2**3 * 2
    assert chisquare(list(counts.values())).pvalue > 1e-3


# --- special cases --------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """Any pre-activated layers in a row."""

    def __init__(self, stem: int, convolutions: list[nn.Conv2d]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.body = nn.Sequential()
        for conv in convolutions:
            self.body.extend([nn.BatchNorm2d(conv.in_channels), nn.ReLU(), conv])
        self.norm = nn.BatchNorm2d(conv.out_channels)
        self.classify = nn.Linear(conv.out_channels, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(f.adaptive_avg_pool2d(f.relu(self.norm(self.body(self.stem(x)))), 1)[:, :, 0, 0])


class Residual(nn.Module):
    """He et al. 2016, "Identity mappings": x <- x + F(x), F being `block` pre-activated 3x3 convolutions."""

    def __init__(self, stem: int, width: int, blocks: int, block: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList()
        for b in range(blocks):
            inputs = [stem if b == 0 else width, *[width] * (block - 1)]
            layers = [[nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, width, 3, padding=1, bias=False)] for c in inputs]
            self.blocks.append(nn.Sequential(*(module for layer in layers for module in layer)))
        self.norm, self.classify = nn.BatchNorm2d(width), nn.Linear(width, 7)
        self.extra = width - stem

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            shortcut = torch.cat([x, x.new_zeros(len(x), self.extra, *x.shape[2:])], 1) if i == 0 else x
            x = shortcut + block(x)
        return self.classify(f.adaptive_avg_pool2d(f.relu(self.norm(x)), 1)[:, :, 0, 0])


class Dense(nn.Module):
    """Huang et al. 2017: a dense block, its end as in their networks."""

    def __init__(self, stem: int, growth: int, layers: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.layers = nn.ModuleList()
        for k in range(layers):
            c = stem + k * growth
            conv = nn.Conv2d(c, growth, 3, padding=1, bias=False)
            self.layers.append(nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), conv))
        self.norm = nn.BatchNorm2d(stem + layers * growth)
        self.classify = nn.Linear(stem + layers * growth, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.classify(f.adaptive_avg_pool2d(f.relu(self.norm(x)), 1)[:, :, 0, 0])


def convolutions(*shapes: tuple[int, int, int]) -> list[nn.Conv2d]:
    return [nn.Conv2d(c, d, k, padding=k // 2, bias=False) for c, d, k in shapes]


WIDE = MultiBranch(layers=7, channels=4, stem=6, merge=["concat"])
PADDED = MultiBranch(layers=7, channels=6, stem=4, merge_fix="pad")
EVEN = MultiBranch(layers=7, channels=4)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("space", "a", "make"),
    [
        (EVEN, EVEN.chain(), lambda: Plain(4, convolutions(*[(4, 4, 3)] * 6))),
        (EVEN, EVEN.chain("conv_5x5"), lambda: Plain(4, convolutions(*[(4, 4, 5)] * 6))),
        (
            WIDE,
            WIDE.parse("concat/conv_3x3/conv_1x1/conv_5x5/conv_3x3/conv_1x1/conv_1x1/out"),
            lambda: Plain(6, convolutions((6, 4, 3), *[(4, 4, k) for k in (1, 5, 3, 1, 1)])),
        ),
        (EVEN, EVEN.resnet(), lambda: Residual(4, 4, 3, 2)),
        (EVEN, EVEN.resnet(block=1), lambda: Residual(4, 4, 6, 1)),
        (EVEN, EVEN.resnet(block=3), lambda: Residual(4, 4, 2, 3)),
        (PADDED, PADDED.resnet(), lambda: Residual(4, 6, 3, 2)),
        (EVEN, EVEN.densenet(), lambda: Dense(4, 4, 6)),
        (WIDE, WIDE.densenet(), lambda: Dense(6, 4, 6)),
    ],
    ids=["chain", "chain 5x5", "mixed chain", "resnet", "resnet 1", "resnet 3", "resnet pad", "dense", "dense wide"],
)
def test_special_cases_are_exact(
    space: MultiBranch, a: Architecture, make: Callable[[], nn.Module], training: bool
) -> None:
    space.check(a)
    with torch.device("meta"):
        other = make()
    ours, theirs = real(space, a, 0).train(training), filled(other, 1).train(training)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    assert torch.equal(ours(images()), theirs(images()))


def test_a_dense_network_has_stem_plus_k_growth_channels() -> None:
    for stem, growth, n in ((6, 4, 7), (24, 12, 5)):
        space = MultiBranch(layers=n, channels=growth, stem=stem, merge=["concat"])
        network = space.build(space.densenet(), IMAGES)
        read = [next(m for m in layer if isinstance(m, nn.Conv2d)).in_channels for layer in network.layers[:-1]]
        assert read == [stem + k * growth for k in range(n - 1)]
        assert network.layers[-1][-1].in_features == stem + (n - 1) * growth


def test_special_cases_as_texts() -> None:
    space = MultiBranch(layers=5)
    assert space.text(space.chain()) == "sum/conv_3x3/conv_3x3/conv_3x3/conv_3x3/out"
    assert space.text(space.resnet()) == "sum/conv_3x3/conv_3x3/conv_3x3@0/conv_3x3/out@0,2"
    assert space.text(space.resnet("conv_1x1", block=4)) == "sum/conv_1x1/conv_1x1/conv_1x1/conv_1x1/out@0"
    assert space.text(space.densenet()) == "concat/conv_3x3/conv_3x3@0/conv_3x3@0,1/conv_3x3@0,1,2/out@0,1,2,3"


def test_special_cases_outside_the_space_are_refused() -> None:
    for block in (0, 4):
        with pytest.raises(ValueError, match=f"block is {block}; allowed: divisors of 6"):
            FULL.resnet(block=block)
    with pytest.raises(ValueError, match="merge is 'sum'; allowed: concat"):
        WIDE.resnet()
    with pytest.raises(ValueError, match="op is 'conv_7x7'; allowed: conv_1x1, conv_3x3"):
        FULL.chain("conv_7x7")


# --- merges ---------------------------------------------------------------------------------------------------


def test_merges_of_unequal_widths() -> None:
    x, y = (torch.randn(2, c, 5, 5, generator=torch.Generator().manual_seed(c)) for c in (3, 4))
    assert torch.equal(Merge([3, 4], "concat", "forbid", 4)([x, y]), torch.cat([x, y], 1))
    padded = Merge([3, 4], "sum", "pad", 9)
    out = padded([x, y])
    assert padded.width == 4
    assert torch.equal(out[:, :3], x + y[:, :3])
    assert torch.equal(out[:, 3], y[:, 3])
    projected = Merge([3, 4], "sum", "project", 4)
    [weight] = projected.parameters()
    expected = torch.einsum("nchw,dc->ndhw", x, weight[:, :, 0, 0]) + y
    torch.testing.assert_close(projected([x, y]), expected, rtol=1e-5, atol=1e-6)
    both = Merge([3, 4], "sum", "project", 5)
    assert both([x, y]).shape == (2, both.width, 5, 5) == (2, 5, 5, 5)
    with pytest.raises(ValueError, match="merge_fix is 'forbid', but a sum meets the widths 3, 4"):
        Merge([3, 4], "sum", "forbid", 4)


@settings(deadline=None, max_examples=10)
@given(
    st.sampled_from(
        [
            MultiBranch(channels=4, ops=OPS),
            MultiBranch(channels=6, stem=3, merge_fix="pad", ops=OPS),
            MultiBranch(channels=3, stem=6, merge_fix="project", stride=2, ops=OPS),
            MultiBranch(channels=3, stem=5, merge=["concat"], stride=4),
        ]
    ),
    st.integers(0),
    st.sampled_from([DIGITS, IMAGES, Task("r", "regression", "mse", False, (1, 1, 1), None, "")]),
)
def test_all_members_have_networks(space: MultiBranch, index: int, task: Task) -> None:
    a = space.at(index % space.size)
    network = space.build(a, task)
    assert all(p.is_meta for p in network.parameters())
    network = materialise(network, torch.Generator().manual_seed(0))
    out = network(torch.rand(2, *task.shape, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (2, task.classes or 1)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_operations_keep_the_size() -> None:
    assert tuple(LAYERS) == OPS
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    for name, make in LAYERS.items():
        assert make(3, 6)(x).shape == (2, 3 if "pool" in name else 6, 5, 4)


def test_networks_need_images() -> None:
    with pytest.raises(ValueError, match="multi_branch: inputs of task 't' are tabular"):
        FULL.build(FULL.at(0), Task("t", "tabular", "accuracy", True, (13,), 3, ""))


# --- classes --------------------------------------------------------------------------------------------------


def test_classes_of_all_members() -> None:
    classes = Counter(SMALL.canonical(a) for a in map(SMALL.at, range(SMALL.size)))
    # Without skips the merge has no effect: two members a class for each of the 2^2 choices of operations.
    assert len(classes) == 64 - 4
    for a, count in classes.items():
        assert count == (1 if any(a.genes[2:-1]) else 2)
        assert SMALL.canonical(a) == a
        assert SMALL.canonical(a, "raw") == a
    only = MultiBranch(layers=3, merge=["concat"])
    chain = only.chain()
    assert only.text(chain).startswith("concat/")
    assert only.canonical(chain) == chain


def test_equal_classes_are_equal_functions() -> None:
    for ops in product(["conv_3x3", "max_pool_3x3"], repeat=2):
        one, two = (SMALL.parse(f"{merge}/{'/'.join(ops)}/out") for merge in ("sum", "concat"))
        assert SMALL.canonical(two) == SMALL.canonical(one) == one
        first, second = real(SMALL, one, 0), real(SMALL, two, 1)
        assert not torch.equal(first(images()), second(images()))
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(images()), second(images()))


# --- notation -------------------------------------------------------------------------------------------------


@given(members)
def test_texts_are_read_back(a: Architecture) -> None:
    assert FULL.parse(FULL.text(a)) == a
    assert FULL.at(FULL.index(a)) == a


def test_no_two_members_share_a_text() -> None:
    assert len({SMALL.text(a) for a in map(SMALL.at, range(SMALL.size))}) == SMALL.size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the merge of '' is ''; allowed: sum, concat"),
        ("mean/conv_3x3/conv_3x3/out", "the merge of .* is 'mean'"),
        ("sum/conv_3x3/out", "has 2 layers; allowed: 3"),
        ("sum/conv_3x3/conv_5x5/out", "layer 2 holds 'conv_5x5'; allowed: conv_3x3, max_pool_3x3"),
        ("sum/conv_3x3/conv_3x3/conv_3x3", "layer 3 holds 'conv_3x3'; allowed: out"),
        ("sum/conv_3x3@0/conv_3x3/out", "layer 1 is 'conv_3x3@0'; allowed after '@': nothing"),
        ("sum/conv_3x3/conv_3x3@1/out", "layer 2 is 'conv_3x3@1'; allowed after '@': some of 0"),
        ("sum/conv_3x3/conv_3x3@/out", "layer 2 is 'conv_3x3@'"),
        ("sum/conv_3x3/conv_3x3/out@1,0", "layer 3 is 'out@1,0'; allowed after '@': some of 0, 1, ascending"),
        ("sum/conv_3x3/conv_3x3/out@0,0", "layer 3 is"),
        ("sum/conv_3x3/conv_3x3/out@00", "layer 3 is"),
    ],
)
def test_a_malformed_text_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"multi_branch: .*{message}") as error:
        SMALL.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("space", [FULL, SMALL, WIDE, PADDED], ids=lambda s: s.name)
def test_names_give_equal_spaces(space: MultiBranch) -> None:
    again = registry.space(space.name)
    assert (again, again.size, again.name) == (space, space.size, space.name)


def test_names_hold_what_is_not_default_in_a_fixed_order() -> None:
    assert FULL.name == "multi_branch"
    name = "multi_branch[merge_fix=pad;stem=8;channels=16;ops=conv_3x3,conv_1x1;layers=3;merge=concat,sum]"
    assert registry.space(name).name == "multi_branch[layers=3;ops=conv_1x1,conv_3x3;stem=8;merge_fix=pad]"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("multi_branch[layers=1]", "layers is 1; allowed: integers >= 2"),
        ("multi_branch[channels=0]", "channels is 0"),
        ("multi_branch[stem=x]", "stem is 'x'"),
        ("multi_branch[stride=3]", "stride is 3; allowed: 1, 2, 4"),
        ("multi_branch[ops=conv_7x7]", "ops is 'conv_7x7'; allowed: .* conv_1x1"),
        ("multi_branch[merge=sum,sum]", "merge is 'sum,sum'; allowed: one or more, each once"),
        ("multi_branch[merge_fix=crop]", "merge_fix is 'crop'; allowed: forbid, pad, project"),
        ("multi_branch[stem=8]", "stem is 8 with channels = 16, which sums cannot merge"),
        ("multi_branch[nodes=3]", "option 'nodes' is unknown; allowed: layers"),
    ],
)
def test_a_wrong_restriction_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"multi_branch: {message}") as error:
        registry.space(name)
    assert "\n" not in str(error.value)


def test_the_conformance_checks_pass() -> None:
    assert [result for result in check_space(SMALL) if result.passed is False] == []
