"""Cells and meta-architecture searched jointly: the networks are those that the links say."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from nasbed.harness.checks import check_space
from nasbed.harness.checks_sameness import same_function
from nasbed.methods import registry
from nasbed.methods.networks.cells import CellNetwork
from nasbed.methods.networks.cells import Step as PlainStep
from nasbed.methods.spaces.stacked import LINKS, Stacked
from nasbed.protocols import Architecture, CellSpace, IndexedSpace, Task
from nasbed.protocols.training import materialise

TASK = Task("toy", "image", "accuracy", True, (3, 16, 16), 4, "0")
SMALL = "stacked(nb201[ops=none,skip_connect])[cells=1,2;channels=2,4]"
CONV = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"


def space(name: str) -> Stacked:
    found = registry.space(name)
    assert isinstance(found, Stacked)
    return found


def weights(network: torch.nn.Module) -> torch.nn.Module:
    return materialise(network, torch.Generator().manual_seed(0), dtype=torch.float64)


# --- members


def test_default_and_size() -> None:
    found = space("stacked")
    assert (found.name, found.family) == ("stacked(nb201)", "stacked(nb201)")
    assert found.size == 2 * 2 * 3 * 15_625
    assert space("stacked(nb201[ops=none,skip_connect])[cells=1,2,3;channels=8;links=dense]").size == 3 * 64
    assert isinstance(found, IndexedSpace)
    assert not isinstance(found, CellSpace)


def test_names_are_canonical() -> None:
    name = "stacked(nb201[ops=skip_connect,none])[stages=2;links=dense,chain;channels=16,8;cells=3,1]"
    expected = "stacked(nb201[ops=none,skip_connect])[cells=1,3;links=chain,dense;stages=2]"
    assert space(name).name == expected
    assert space(name) == space(expected) != space("stacked")
    assert space(expected).family == registry.family(expected) == "stacked(nb201)"


def test_genes_mean_the_same_in_every_restriction() -> None:
    whole, part = (
        space("stacked"),
        space("stacked(nb201[ops=nor_conv_3x3,skip_connect])[cells=2;channels=16;links=dense]"),
    )
    a = part.sample(np.random.default_rng(0))
    whole.check(a)
    assert whole.text(a) == part.text(a)
    assert a.genes[:3] == (2, 16, 2)
    assert space("stacked[cells=1,2,3;channels=32]").parse(f"cells=3 channels=32 links=chain | {CONV}").genes == (
        3, 32, 0, 3, 0, 2, 1, 0, 4,
    )  # fmt: skip


def test_sample_is_uniform() -> None:
    found = space("stacked(nb201[ops=none,skip_connect])[cells=1,3;channels=8;links=chain,dense]")
    rng = np.random.default_rng(1)
    counts = np.bincount([found.index(found.sample(rng)) for _ in range(256 * 20)], minlength=256)
    assert chisquare(counts).pvalue > 1e-3


def test_mutations_fall_on_own_and_inner_genes_alike() -> None:
    """Cells, channels, links and six operations: each changes in a ninth of the mutations."""
    found = space("stacked")
    rng = np.random.default_rng(2)
    a = found.parse(f"cells=1 channels=8 links=chain | {CONV}")
    changed: Counter[int] = Counter()
    for _ in range(1800):
        [i] = [i for i, (x, y) in enumerate(zip(a.genes, found.mutate(a, rng).genes, strict=True)) if x != y]
        changed[i] += 1
    assert chisquare([changed[i] for i in range(9)]).pvalue > 1e-3
    fixed = space("stacked[cells=1;channels=8;links=chain]")
    assert all(fixed.mutate(a, rng).genes[:3] == (1, 8, 0) for _ in range(50))


def test_neighbours_are_those_of_both_parts() -> None:
    found = space("stacked")
    a = found.parse(f"cells=1 channels=8 links=chain | {CONV}")
    neighbours = found.neighbours(a)
    assert len(neighbours) == len(set(neighbours)) == (1 + 1 + 2) + 24
    differences = [sum(x != y for x, y in zip(a.genes, b.genes, strict=True)) for b in neighbours]
    assert set(differences) == {1}


def test_crossover_takes_both_parts_from_both_parents() -> None:
    found = space("stacked")
    a = Architecture(found.family, (1, 8, 0, 0, 0, 0, 0, 0, 0))
    b = Architecture(found.family, (2, 16, 1, 1, 1, 1, 1, 1, 1))
    rng = np.random.default_rng(0)
    children = {found.crossover(a, b, rng) for _ in range(400)}
    for i in range(9):
        assert {c.genes[i] for c in children} == {a.genes[i], b.genes[i]}


def test_codes_hold_the_own_genes_first() -> None:
    found, inner = space("stacked"), registry.space("nb201")
    a = found.parse(f"cells=2 channels=8 links=dense | {CONV}")
    for encoding in found.encodings:
        code = found.encode(a, encoding)
        assert code[:7].tolist() == [0, 1, 1, 0, 0, 0, 1]
        assert code[7:].tolist() == inner.encode(inner.parse(CONV), encoding).tolist()


# --- classes


def test_classes_of_a_small_space() -> None:
    """One cell a stage: dense is chain. The cells merge as they do by themselves."""
    found, inner = space(SMALL), registry.space("nb201[ops=none,skip_connect]")
    assert isinstance(inner, IndexedSpace)
    everything = [found.at(i) for i in range(found.size or 0)]
    for level in found.levels:
        cells = len({inner.canonical(inner.at(i), level) for i in range(64)})
        links = 3 + 3 if level == "raw" else 2 + 3
        assert len({found.canonical(a, level) for a in everything}) == 2 * links * cells
    for a in everything:
        found.check(found.canonical(a))


def test_dense_links_of_one_cell_are_the_chain_itself() -> None:
    found = space("stacked[cells=1;channels=2]")
    a, b = (found.parse(f"cells=1 channels=2 links={links} | {CONV}") for links in ("dense", "chain"))
    assert found.canonical(a) == b
    one, two = (weights(found.build(x, TASK)).eval() for x in (a, b))
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one(x), two(x))
    without = space("stacked[cells=1;channels=2;links=dense]")
    assert without.canonical(a) == a


def test_other_links_are_other_networks() -> None:
    found = space("stacked[cells=2;channels=2;stages=1]")
    networks = [found.parse(f"cells=2 channels=2 links={links} | {CONV}") for links in LINKS]
    for a, b in ((networks[i], networks[j]) for i, j in ((0, 1), (0, 2), (1, 2))):
        assert not same_function(found.build(a, TASK), found.build(b, TASK), TASK)


# --- networks


def sources(name: str, links: str) -> list[tuple[int, ...]]:
    found = space(name)
    inner = found.inner.text(found.inner.sample(np.random.default_rng(0)))
    a = found.parse(f"cells=2 channels=8 links={links} | {inner}")
    graph = found.graphs(a)["network"]
    return [tuple(source for source, _ in incoming) for incoming in graph.incoming[1:]]


def test_links() -> None:
    """Two stages of two cells; 0 is the stem, the last entry what the classifier reads."""
    name = "stacked(nb201)[cells=2;channels=8;stages=2]"
    assert sources(name, "chain") == [(0,), (1,), (2,), (3,), (4,)]
    assert sources(name, "two_previous") == [(0, 0), (0, 1), (1, 2), (2, 3), (4,)]
    assert sources(name, "dense") == [(0,), (0, 1), (2,), (2, 3), (4,)]


@pytest.mark.parametrize(
    ("inner", "links", "stages"),
    [("darts[nodes=2]", "two_previous", 3), ("nb201", "chain", 1), ("opidx[nodes=2]", "chain", 1)],
)
def test_special_cases_are_the_networks_of_the_papers(inner: str, links: str, stages: int) -> None:
    """Pairs of cells that read the two before them, and chains, are also what `CellNetwork` builds."""
    found = space(f"stacked({inner})[cells=2;channels=4;links={links};stages={stages}]")
    a = found.sample(np.random.default_rng(3))
    _, cell = found.split(a)
    cells = found.cell_space

    def make(channels: int, reduction: bool) -> torch.nn.Module:
        return cells.cell(cell, channels, reduction=reduction)

    steps = [PlainStep(4 * 2**s, cells.has_reduction and s > 0 and i == 0) for s, i in product(range(stages), range(2))]
    with torch.device("meta"):
        plain = CellNetwork(make, cells.cell_inputs, steps, inputs=3, stem=4, outputs=4)
    one, two = weights(found.build(a, TASK)).eval(), weights(plain).eval()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one(x), two(x))


def test_dense_links_gather_channels() -> None:
    """As in DenseNet, cell k of a stage reads what entered it and the k cells before: (k + 1) C channels."""
    found = space("stacked[cells=4;channels=2;stages=2]")
    network: Any = found.build(found.parse(f"cells=4 channels=2 links=dense | {CONV}"), TASK)
    widths = [
        [m.in_channels for m in joint.mix.modules() if isinstance(m, torch.nn.Conv2d)] for joint in network.joints
    ]
    assert widths == [[], [4], [6], [8], [], [8], [12], [16]]
    assert [len(joint.fits) for joint in network.joints] == [1, 2, 3, 4] * 2


@pytest.mark.parametrize("inner", ["nb201[ops=nor_conv_1x1,skip_connect]", "darts[nodes=2]", "opidx[nodes=2]"])
@pytest.mark.parametrize("links", LINKS)
def test_every_cell_of_every_stage_takes_part(inner: str, links: str) -> None:
    """Sizes halve and channels double between stages, and all stems, joints and heads have gradients."""
    found = space(f"stacked({inner})[cells=2;channels=4;links={links}]")
    a = found.sample(np.random.default_rng(0))
    network: Any = weights(found.build(a, TASK))
    shapes = []
    for cell in network.cells:
        cell.register_forward_hook(lambda module, args, out: shapes.append((out.shape[1], out.shape[2])))
    network(torch.randn(2, 3, 16, 16, dtype=torch.float64)).square().sum().backward()
    assert [side for _, side in shapes] == [16, 16, 8, 8, 4, 4]
    assert [c for c, _ in shapes] == [cell.out_channels for cell in network.cells]
    assert [2 * a == b for (a, _), (b, _) in zip(shapes[0::2], shapes[2::2], strict=False)] == [True, True]
    dead = [name for name, p in network.named_parameters() if p.grad is None and not name.startswith("cells")]
    assert dead == []


@pytest.mark.parametrize("inner", ["nb201", "darts[nodes=2]"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (2, 5, 7), (1, 1, 1)])
def test_images_of_any_size(inner: str, shape: tuple[int, int, int]) -> None:
    found = space(f"stacked({inner})[cells=1,2;channels=4]")
    task = Task("toy", "image", "accuracy", True, shape, 3, "0")
    rng = np.random.default_rng(1)
    for _ in range(2):
        network = weights(found.build(found.sample(rng), task))
        assert network(torch.zeros(2, *shape, dtype=torch.float64)).shape == (2, 3)


def test_features_tell_the_size() -> None:
    found = space("stacked[cells=1,3;channels=4,8]")
    small, wide, deep = (
        found.features(found.parse(f"cells={n} channels={c} links=chain | {CONV}"), TASK)
        for n, c in ((1, 4), (1, 8), (3, 4))
    )
    assert (small["n_cell"], deep["n_cell"]) == (3, 9)
    assert (small["depth"], deep["depth"]) == (9, 27)  # the longest path of the cell has three operations
    assert small["n_nor_conv_3x3"] == deep["n_nor_conv_3x3"] == 1
    assert small["params"] < wide["params"]
    assert small["macs"] < deep["macs"]
    # Stem, per stage c a fitting from the width before, one 3x3 and one 1x1 convolution, classifier.
    stages = sum(before * c + 2 * c + 9 * c * c + 2 * c + c * c + 2 * c for before, c in ((4, 4), (8, 16)))
    reductions = 4 * 8 + 2 * 8 + 9 * 64 + 16 + 64 + 16
    assert small["params"] == 27 * 4 + 8 + stages + reductions + 17 * 4


def test_training_is_the_inner_space_s_and_drawings_show_both() -> None:
    found = space("stacked(darts)")
    a = found.sample(np.random.default_rng(0))
    assert found.training(a) == {}
    assert next(iter(found.graphs(a))) == "network"
    assert len(found.graphs(a)) == 3
    network = found.graphs(a)["network"]
    assert network.count("reduction_cell") == 2
    assert network.count("cell") == 3 * a.genes[0] - 2
    picture = found.draw(a)
    assert "stem" in picture
    assert "network" in picture


def test_configspace_holds_both() -> None:
    pytest.importorskip("ConfigSpace")
    found = space("stacked(nb201[ops=none,skip_connect])")
    configurations = found.to_configspace()
    assert set(configurations) == {"cells", "channels", "links", *found.inner.to_configspace()}
    assert len(configurations) == 9
    seen = {found.from_configspace(dict(c)) for c in configurations.sample_configuration(50)}
    assert len(seen) > 30
    given = dict(configurations.get_default_configuration())
    with pytest.raises(ValueError, match="hyper-parameter 'links' is star; allowed: chain, two_previous, dense"):
        found.from_configspace({**given, "links": "star"})


@pytest.mark.parametrize("name", [f"{SMALL[:-1]};stages=1]", "stacked(darts[nodes=1])[cells=1;channels=2;stages=2]"])
def test_conforms(name: str) -> None:
    assert [(r.name, r.detail) for r in check_space(space(name)) if r.passed is False] == []


# --- errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stacked(mlp)", r"stacked: of is 'mlp'; allowed: spaces with cell_inputs, has_reduction and cell"),
        ("stacked(stacked)", r"stacked: of is 'stacked\(nb201\)'; allowed"),
        ("stacked(nb201[ops=conv])", "nb201: ops holds 'conv'"),
        ("stacked(nothing)", "space: 'nothing' is not one of"),
        ("stacked[cells=0]", "stacked: cells is '0'; allowed: integers >= 1, each once"),
        ("stacked[cells=two]", "stacked: cells is 'two'; allowed: one integer"),
        ("stacked[channels=8,8]", "stacked: channels is '8,8'; allowed: integers >= 1, each once"),
        (
            "stacked[links=star]",
            "stacked: links is 'star'; allowed: one or more, each once, of chain,two_previous,dense",
        ),
        ("stacked[stages=0]", "stacked: stages is 0; allowed: integers >= 1"),
        ("stacked[depth=2]", "stacked: option 'depth' is unknown; allowed: of, cells, channels, links, stages"),
    ],
)
def test_bad_options_are_named(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        registry.space(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CONV, "is not of the form cells=CELLS channels=CHANNELS links=LINKS | ARCHITECTURE OF nb201"),
        (f"cells=1 channels=8 | {CONV}", "is not of the form"),
        (f"cells=9 channels=8 links=chain | {CONV}", "cells of .* is 'cells=9'; allowed: cells=1, cells=2"),
        (f"cells=1 channels=8 links=ring | {CONV}", "links of .* is 'links=ring'; allowed: links=chain, "),
        (f"channels=8 cells=1 links=chain | {CONV}", "cells of .* is 'channels=8'"),
        ("cells=1 channels=8 links=chain | |none~0|", "nb201: '|none~0|' has 1 nodes; allowed: 3"),
    ],
)
def test_malformed_text_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        space("stacked").parse(text)


def test_strangers_are_refused() -> None:
    found = space("stacked")
    good = (1, 8, 0, *[0] * 6)
    for family, genes, message in (
        ("stacked", good, r"is of the space 'stacked'; allowed: 'stacked\(nb201\)'"),
        (found.family, (3, *good[1:]), r"gene 0 \(cells\) of .* is 3; allowed: 1, 2"),
        (found.family, (1, 8), "has 2 genes; allowed: 3"),
        (found.family, (*good[:-1], 9), "nb201: gene 5 .* is 9"),
    ):
        stranger = Architecture(family, genes)
        with pytest.raises(ValueError, match=message):
            found.check(stranger)
        with pytest.raises(ValueError, match=message):
            found.index(stranger)
    with pytest.raises(ValueError, match="level 'none' is unknown"):
        found.canonical(Architecture(found.family, good), "none")
    with pytest.raises(ValueError, match="allowed: images"):
        found.build(Architecture(found.family, good), Task("t", "tabular", "accuracy", True, (5,), 2, "0"))
