"""NAS-Bench-Macro: the published counts and sizes, the group structure, and the network.

Where the published file lies beside the repository, every string of it is compared.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn

from nasbed.methods import registry
from nasbed.methods.networks.mbconv import MBConv
from nasbed.methods.spaces.macro import Macro
from nasbed.protocols import Architecture, IndexedSpace, Task

SPACE = Macro(channels=32, head=1280)
CIFAR = Task("cifar10", "image", "accuracy", True, (3, 32, 32), 10, "0")
OFFICIAL = Path(__file__).parents[3] / "shared" / "data" / "nas-bench-macro" / "nas-bench-macro_cifar10.json"


def a(text: str) -> Architecture:
    return Architecture("macro", tuple(map(int, text)))


def merged(text: str, stages: tuple[int, ...] = (2, 3, 3)) -> str:
    """A second implementation: per stage the first layer, then the sequence of the blocks behind it."""
    parts, start = [], 0
    for size in stages:
        parts.append(f"{text[start]}{text[start + 1 : start + size].replace('0', '')}")
        start += size
    return "|".join(parts)


def without_norms(network: nn.Module) -> nn.Module:
    """Normalisation has no products to count, and takes nearly all of the time on the meta device."""
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(network, name, nn.Identity())
        else:
            without_norms(child)
    return network


def products(network: nn.Module, task: Task) -> dict[nn.Module, int]:
    """Multiply-adds of every convolution and linear layer, from shapes, for one example."""
    found: dict[nn.Module, int] = {}

    def count(module: nn.Module, _: object, out: torch.Tensor) -> None:
        found[module] = module.weight.numel() * (out[0, 0].numel() if out.ndim == 4 else 1)

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        without_norms(network)(torch.empty(2, *task.shape, device="meta"))
    return found


def test_counts() -> None:
    assert isinstance(SPACE, IndexedSpace)
    assert SPACE.size == 6_561
    assert len({SPACE.canonical(SPACE.at(i)) for i in range(6_561)}) == 3_969 == 3 * 3 * 3 * 7 * 3 * 7
    assert len({SPACE.canonical(SPACE.at(i), "raw") for i in range(6_561)}) == 6_561
    assert all(len(SPACE.neighbours(SPACE.at(i))) == 16 for i in range(0, 6_561, 500))


# README of the published file: 2,025 records occur once, 1,620 twice, 324 four times. That is 6,561 strings.
def test_class_sizes() -> None:
    sizes = Counter(Counter(SPACE.canonical(SPACE.at(i)) for i in range(6_561)).values())
    assert sizes == {1: 2_025, 2: 1_620, 4: 324}


@pytest.mark.parametrize(
    "space",
    [SPACE, Macro(stages=(4,)), Macro(("identity", "mb6_k5"), (1, 5, 2)), Macro(("mb3_k3", "mb6_k5"), (3,))],
    ids=str,
)
def test_classes_against_a_second_implementation(space: Macro) -> None:
    representative: dict[str, Architecture] = {}
    for i in range(space.size):
        b = space.at(i)
        c = space.canonical(b)
        assert representative.setdefault(merged(space.text(b), space.stages), c) == c == space.canonical(c)
        space.check(c)
    assert len(set(representative.values())) == len(representative)


@given(st.text("012", min_size=8, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_moving_identities_inside_a_group_changes_nothing(text: str, random) -> None:
    genes = list(text)
    for start, stop in ((3, 5), (6, 8)):
        i, j = random.sample(range(start, stop), 2)
        if "0" in (genes[i], genes[j]):
            genes[i], genes[j] = genes[j], genes[i]
    assert SPACE.canonical(a("".join(genes))) == SPACE.canonical(a(text))


# From the published file (xiusu/NAS-Bench-Macro, data/nas-bench-macro_cifar10.json): params and flops.
@pytest.mark.parametrize(
    ("text", "params", "macs"),
    [
        ("00000000", 387_882, 7_713_280),
        ("22212220", 1_985_514, 85_164_544),
        ("22222222", 2_932_586, 105_660_928),
        ("10000000", 396_298, 12_128_768),
        ("00000001", 791_594, 14_115_328),
    ],
)
def test_params_and_macs_of_the_published_file(text: str, params: int, macs: int) -> None:
    features = SPACE.features(a(text), CIFAR)
    assert (features["params"], features["macs"]) == (params, macs)
    assert sum(products(SPACE.build(a(text), CIFAR), CIFAR).values()) == macs


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the file of NAS-Bench-Macro does not lie in ../shared/data")
def test_every_string_of_the_published_file() -> None:
    official = json.loads(OFFICIAL.read_text())
    assert set(official) == {SPACE.text(SPACE.at(i)) for i in range(6_561)}
    # What a layer costs depends on its own choice only, so three networks tell all costs.
    costs = []
    for choice in "012":
        network = SPACE.build(a(choice * 8), CIFAR)
        params = [[sum(p.numel() for p in layer.parameters()) for layer in stage] for stage in network[1:4]]
        fixed = sum(p.numel() for p in network.parameters()) - sum(map(sum, params))
        count = products(network, CIFAR)
        macs = [[sum(count.get(m, 0) for m in layer.modules()) for layer in stage] for stage in network[1:4]]
        costs.append((list(chain(*params)), fixed, list(chain(*macs)), sum(count.values()) - sum(map(sum, macs))))
    assert len({(fixed, rest) for _, fixed, _, rest in costs}) == 1
    for text, record in official.items():
        layers = [(costs[int(c)][0][i], costs[int(c)][2][i]) for i, c in enumerate(text)]
        assert costs[0][1] + sum(p for p, _ in layers) == record["params"]
        assert costs[0][3] + sum(m for _, m in layers) == record["flops"]
        assert official[SPACE.text(SPACE.canonical(a(text)))] == record
    for text in np.random.default_rng(0).choice(sorted(official), 15):
        network = SPACE.build(a(text), CIFAR)
        assert sum(p.numel() for p in network.parameters()) == official[text]["params"]
        assert sum(products(network, CIFAR).values()) == official[text]["flops"]


def test_sampling_is_uniform_over_strings() -> None:
    space, rng = Macro(stages=(1, 3)), np.random.default_rng(0)
    counts = Counter(space.sample(rng) for _ in range(81 * 40))
    assert len(counts) == 81
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_names_and_options() -> None:
    options = {"head": ("20",), "choices": ("mb6_k5", "identity"), "channels": ("4",), "stages": ("1", "2")}
    space = Macro.from_options(options)
    assert space.name == "macro[choices=identity,mb6_k5;stages=1,2;channels=4;head=20]"
    assert registry.space(space.name) == space != SPACE
    assert Macro.from_options({}) == Macro() == registry.space("macro") != SPACE
    assert (space.size, space.family, Macro().name) == (8, "macro", "macro")
    assert registry.space("macro[channels=32;head=1280]") == SPACE
    assert {c for i in range(8) for c in space.at(i).genes} == {0, 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choice": ("identity",)}, "macro: option 'choice' is unknown; allowed: choices, stages, channels, head"),
        ({"choices": ("identity", "mb6")}, "macro: choices holds 'mb6'; allowed: identity, mb3_k3, mb6_k5"),
        ({"choices": ("identity",)}, "macro: choices is 'identity'; allowed: two or more, each once"),
        ({"stages": ("2", "0")}, "macro: stages is '2,0'; allowed: integers >= 1, at most 30 layers"),
        ({"stages": ("20", "20")}, "macro: stages is '20,20'; allowed: integers >= 1, at most 30 layers"),
        ({"stages": ("two",)}, "macro: stages is 'two'; allowed: one integer"),
        ({"channels": ("0",)}, "macro: channels is 0; allowed: integers >= 1"),
        ({"head": ("0",)}, "macro: head is 0; allowed: integers >= 1"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Macro.from_options(options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' has 0 layers; allowed: 8 digits"),
        ("021102210", "has 9 layers; allowed: 8 digits"),
        ("02110231", "layer 7 of '02110231' is '3'; allowed: 0, 1, 2"),
        ("0211 221", "layer 5 of '0211 221' is ' '; allowed: 0, 1, 2"),
        ("021102٢1", "layer 7 .* allowed: 0, 1, 2"),
    ],
)
def test_malformed_strings_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPACE.parse(text)
    with pytest.raises(ValueError, match="layer 2 of '010' is '1'; allowed: 0, 2"):
        Macro(("identity", "mb6_k5"), (1, 2)).parse("010")


def test_official_strings() -> None:
    assert SPACE.parse("02110221").genes == (0, 2, 1, 1, 0, 2, 2, 1)
    assert all(SPACE.parse(SPACE.text(SPACE.at(i))) == SPACE.at(i) for i in range(0, 6_561, 7))


@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 10), ((3, 16, 16), 7), ((2, 9, 11), None)])
def test_networks_take_small_images(shape: tuple[int, ...], classes: int | None) -> None:
    task = Task("toy", "image", "accuracy", True, shape, classes, "0")
    network = SPACE.build(a("02110221"), task)
    assert {t.device.type for t in network.state_dict().values()} == {"meta"}
    assert network(torch.empty(2, *shape, device="meta")).shape == (2, classes or 1)
    sizes = [tuple(-(-s // 2**k) for s in shape[1:]) for k in range(4)]
    x = torch.empty(2, *shape, device="meta")
    for stage, size in zip(network[:4], sizes, strict=True):
        x = stage(x)
        assert x.shape[2:] == size


def test_other_tasks_are_refused() -> None:
    task = Task("wine", "tabular", "accuracy", True, (11,), 3, "0")
    with pytest.raises(ValueError, match=r"macro: inputs of task 'wine' are tabular .* allowed: images"):
        SPACE.build(a("02110221"), task)


def test_the_first_layers_halve_and_only_true_identities_are_free() -> None:
    network = SPACE.build(a("01000001"), CIFAR)
    kinds = [type(layer).__name__ for stage in network[1:4] for layer in stage]
    assert kinds == ["Sequential", "MBConv", "Sequential", "Identity", "Identity", "Sequential", "Identity", "MBConv"]
    graph = SPACE.graphs(a("01000001"))["layers"]
    assert [n.operation for n in graph.nodes[1:-1]] == [
        "conv_1x1", "mb3_k3", "conv_1x1", "identity", "identity", "conv_1x1", "identity", "mb3_k3",
    ]  # fmt: skip
    features = SPACE.features(a("01000001"), CIFAR)
    assert (features["depth"], features["n_conv_1x1"], features["n_identity"]) == (5, 3, 3)
    assert (features["n_mb3_k3"], features["n_mb6_k5"]) == (2, 0)


def filled(space: Macro, b: Architecture, task: Task) -> nn.Module:
    network = space.build(b, task).to_empty(device="cpu").double()
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.3)
            tensor.abs_().add_(0.1) if tensor.ndim == 1 else None
        else:
            tensor.zero_()
    return network


@pytest.mark.parametrize("training", [False, True])
def test_equal_canonical_forms_are_one_function(training: bool) -> None:
    space, task = Macro(channels=2, head=8), Task("toy", "image", "accuracy", True, (3, 16, 16), 5, "0")
    one, two, other = a("01201002"), a("01210020"), a("01210200")
    assert space.canonical(one) == space.canonical(two) == a("01210020") != space.canonical(other)
    first, second = filled(space, one, task), space.build(two, task).to_empty(device="cpu").double()
    # Identities hold nothing: the blocks come in the same order in both.
    second.load_state_dict(dict(zip(second.state_dict(), first.state_dict().values(), strict=True)))
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    first.train(training)
    second.train(training)
    assert torch.equal(first(x), second(x))
    assert first(x).std() > 0


@pytest.mark.parametrize(("outputs", "stride", "expansion"), [(3, 1, 3), (3, 2, 3), (4, 1, 6), (3, 1, 1)])
def test_block_equals_a_functional_second_implementation(outputs: int, stride: int, expansion: int) -> None:
    block = MBConv(3, outputs, kernel=5, expansion=expansion, stride=stride).double().eval()
    x = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    convolutions = [m.weight for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 2 + (expansion > 1)
    scale = (1 + 1e-5) ** -0.5  # of a fresh batch normalisation, in evaluation
    y = x
    if expansion > 1:
        y = torch.einsum("nihw,oi->nohw", y, convolutions[0][:, :, 0, 0]).mul(scale).relu()
    y = nn.functional.conv2d(y, convolutions[-2], stride=stride, padding=2, groups=3 * expansion).mul(scale).relu()
    y = torch.einsum("nihw,oi->nohw", y, convolutions[-1][:, :, 0, 0]).mul(scale)
    torch.testing.assert_close(block(x), y + x if (stride, outputs) == (1, 3) else y, rtol=1e-10, atol=1e-10)
