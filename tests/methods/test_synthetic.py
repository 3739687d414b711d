"""The known-answer world: its truths are exact, stable and as epistatic as they say."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.protocols import Architecture, IndexedSpace, Task

TASK = Task("toy", "image", "accuracy", True, (1, 2, 3), 4, "0")


def test_is_an_indexed_space() -> None:
    assert isinstance(Synthetic(), IndexedSpace)


@pytest.mark.parametrize("epistasis", [0, 1, 3])
def test_truths_are_those_of_single_members(epistasis: int) -> None:
    space = Synthetic(genes=4, values=3, world=5, epistasis=epistasis)
    truths = space.truths()
    assert truths.dtype == np.float64
    assert truths.shape == (81,)
    assert truths.tolist() == [space.truth(space.at(i)) for i in range(81)]
    assert 0 <= truths.min() < truths.max() <= 1


def test_truths_of_the_default_world_never_change() -> None:
    # Computed once with numpy 2.4; the bit streams behind them are promised to be stable.
    space = Synthetic()
    assert space.truth(Architecture("synthetic", (0, 0, 0, 0, 0, 0))) == 0.38176919968919276
    assert space.optimum().genes == (1, 2, 4, 4, 4, 1)
    assert Synthetic(world=3, epistasis=2).truth(space.at(99)) == 0.5528244418126599


def test_additive_optimum_in_closed_form() -> None:
    for world in range(10):
        space = Synthetic(genes=5, values=4, world=world)
        assert space.at(int(space.truths().argmax())) == space.optimum()
    large = Synthetic(genes=50, values=7)
    best = large.optimum()
    assert all(large.truth(b) < large.truth(best) for b in large.neighbours(best))
    with pytest.raises(ValueError, match="too many to list"):
        large.truths()


def test_additive_means_that_effects_add() -> None:
    grid = Synthetic(genes=3, values=4).truths().reshape(4, 4, 4)
    origin = grid[0, 0, 0]
    effects = grid[:, :1, :1] + grid[:1, :, :1] + grid[:1, :1, :] - 2 * origin
    assert np.abs(grid - effects).max() < 1e-15


@pytest.mark.parametrize("epistasis", range(5))
def test_a_gene_acts_through_the_contributions_of_epistasis_others(epistasis: int) -> None:
    """Genes i and j interact just where some contribution depends on both: cyclic distance <= epistasis."""
    n = 7
    grid = Synthetic(genes=n, values=2, world=1, epistasis=epistasis).truths().reshape((2,) * n)
    for i, j in product(range(n), repeat=2):
        if i != j:
            interaction = np.diff(np.diff(grid, axis=i), axis=j)
            gap = min((i - j) % n, (j - i) % n)
            assert (np.abs(interaction).max() > 1e-6) == (gap <= epistasis)


def test_epistatic_optimum_is_the_best_of_all() -> None:
    space = Synthetic(genes=4, values=3, epistasis=2)
    best = max((space.at(i) for i in range(space.size)), key=space.truth)
    assert space.optimum() == best
    with pytest.raises(ValueError, match="too many to list"):
        Synthetic(genes=30, values=5, epistasis=1).optimum()


def test_ruggedness_grows_with_epistasis() -> None:
    def local_optima(epistasis: int) -> int:
        space = Synthetic(genes=6, values=3, epistasis=epistasis)
        truths = space.truths()
        everything = (space.at(i) for i in range(space.size))
        return sum(
            all(truths[space.index(b)] < truths[space.index(a)] for b in space.neighbours(a)) for a in everything
        )

    counts = [local_optima(k) for k in (0, 2, 5)]
    assert counts[0] == 1
    assert counts[0] < counts[1] < counts[2]


def test_worlds_differ_and_seeds_do_not() -> None:
    assert (Synthetic(world=1).truths() == Synthetic(world=1).truths()).all()
    correlation = np.corrcoef(Synthetic(world=1, epistasis=5).truths(), Synthetic(world=2, epistasis=5).truths())[0, 1]
    assert abs(correlation) < 0.04  # five standard deviations of independent worlds, 5 / sqrt(15625)


def test_listing_15625_truths_is_fast() -> None:
    space = Synthetic(epistasis=5)
    start = time.process_time()
    assert len(space.truths()) == 15_625
    assert time.process_time() - start < 0.3


def test_names_and_options() -> None:
    assert Synthetic().name == "synthetic"
    space = Synthetic.from_options({"epistasis": ("2",), "genes": ("8",)})
    assert space.name == "synthetic[genes=8;epistasis=2]"
    assert space == Synthetic(genes=8, epistasis=2)
    assert Synthetic(values=3, world=9).name == "synthetic[values=3;world=9]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gene": ("3",)}, "option 'gene' is unknown; allowed: genes, values, world, epistasis"),
        ({"genes": ("three",)}, "genes is 'three'; allowed: one integer"),
        ({"genes": ("0",)}, "genes is 0; allowed: integers >= 1"),
        ({"values": ("1",)}, "values is 1; allowed: integers >= 2"),
        ({"epistasis": ("6",)}, "epistasis is 6; allowed: 0 to genes - 1 = 5"),
        (
            {"genes": ("20",), "epistasis": ("12",)},
            r"allowed: genes \* values\^\(epistasis \+ 1\) <= 2097152",
        ),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Synthetic.from_options(options)


@given(st.integers(0, 13**4 - 1))
def test_text_round_trip(index: int) -> None:
    space = Synthetic(genes=4, values=13)
    a = space.at(index)
    assert space.parse(space.text(a)) == a
    assert Architecture.parse(str(a)) == a


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-1-x", "holds 'x'"),
        ("0-1", "has 2 genes; allowed: 3"),
        ("0-1-5", "gene 2 .* is 5"),
        ("0--1", "holds ''"),
    ],
)
def test_malformed_text_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Synthetic(genes=3).parse(text)


@pytest.mark.parametrize("classes", [4, None])
def test_network_and_features_agree(classes: int | None) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    space = Synthetic(genes=3)
    task = Task("toy", "image", "accuracy", True, (1, 2, 3), classes, "0")
    a = Architecture("synthetic", (4, 0, 2))
    state = torch.get_rng_state()
    network = space.build(a, task)
    assert torch.equal(torch.get_rng_state(), state)
    assert {p.device.type for p in network.parameters()} == {"meta"}
    assert [m.out_features for m in network.modules() if isinstance(m, torch.nn.Linear)] == [
        5,
        1,
        3,
        classes or 1,
    ]
    features = space.features(a, task)
    assert features["params"] == sum(p.numel() for p in network.parameters())
    with FlopCounterMode(display=False) as counter:
        assert network(torch.empty(1, 1, 2, 3, device="meta")).shape == (1, classes or 1)
    assert features["flops"] == 2 * features["macs"] == counter.get_total_flops()
    assert (features["depth"], features["n_linear"]) == (3, 4)
    for use in (space.build, space.features):
        with pytest.raises(ValueError, match="has 1 genes"):
            use(Architecture("synthetic", (0,)), task)
