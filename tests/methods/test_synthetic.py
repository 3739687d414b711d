"""The known-answer world: its truths are exact, stable and as epistatic as they say."""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nasbed.methods import registry
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.protocols import Architecture, IndexedSpace, Task
from nasbed.protocols.streams import generator
from nasbed.tabular import open_table, write_synthetic_table

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
        ({"locality": ("1.5",)}, "locality is 1.5; allowed: 0 to 1"),
        ({"locality": ("nan",)}, "locality is nan; allowed: 0 to 1"),
        ({"locality": ("0.1", "0.2")}, "locality is '0.1,0.2'; allowed: one number"),
        ({"noise": ("little",)}, "noise is 'little'; allowed: one number"),
        ({"noise": ("1_0",)}, "noise is '1_0'; allowed: one number"),
        ({"noise": ("inf",)}, "noise is inf; allowed: finite numbers >= 0"),
        ({"fidelity_bias": ("-1",)}, r"fidelity_bias is -1.0; allowed: finite numbers >= 0"),
        (
            {"genes": ("30",), "epistasis": ("1",), "locality": ("0.5",)},
            r"locality is 0.5 with epistasis = 1 and 5\^30 members; allowed: 0, or epistasis = 0",
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
        40,
        8,
        24,
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


@given(st.floats(0, 1), st.floats(0, 1e300), st.floats(0, 1e300))
def test_numbers_are_written_and_read_exactly(locality: float, bias: float, noise: float) -> None:
    space = Synthetic(genes=3, locality=locality, fidelity_bias=bias, noise=noise)
    again = registry.space(space.name)
    assert isinstance(again, Synthetic)
    assert (again.locality, again.fidelity_bias, again.noise) == (locality, bias, noise)
    assert again.name == space.name


def test_names_of_numbers_are_canonical() -> None:
    texts = ("locality=.50;noise=1e-2", "noise=0.010;fidelity_bias=0;locality=0.5", "locality=5e-1;fidelity_bias=-0.0")
    assert {registry.space(f"synthetic[{t}]").name for t in texts} == {"synthetic[locality=0.5]"}
    assert Synthetic(locality=1, fidelity_bias=2, noise=0).name == "synthetic[locality=1.0;fidelity_bias=2.0;noise=0.0]"


# --- locality


@pytest.mark.parametrize("epistasis", [0, 2])
@pytest.mark.parametrize("locality", [0.0, 0.3, 1.0])
def test_the_optimum_is_that_of_the_landscape_at_any_locality(epistasis: int, locality: float) -> None:
    for world in range(4):
        space = Synthetic(genes=4, values=3, world=world, epistasis=epistasis, locality=locality)
        truths = space.truths()
        assert truths.tolist() == [space.truth(space.at(i)) for i in range(81)]
        assert space.at(int(truths.argmax())) == space.optimum()
        assert space.optimum() == Synthetic(genes=4, values=3, world=world, epistasis=epistasis).optimum()
        assert 0 <= truths.min() < truths.max() <= 1


def test_the_optimum_of_a_large_local_world_is_analytic() -> None:
    space = Synthetic(genes=50, values=7, locality=0.5)
    best = space.optimum()
    assert space.truth(best) > max(space.truth(b) for b in space.neighbours(best))


def test_locality_0_is_the_plain_landscape_and_1_the_distance_alone() -> None:
    plain, local = Synthetic(genes=5, values=3, epistasis=3), Synthetic(genes=5, values=3, epistasis=3, locality=1)
    half = Synthetic(genes=5, values=3, epistasis=3, locality=0.5)
    best = local.optimum().genes
    agreeing = [sum(x == y for x, y in zip(local.at(i).genes, best, strict=True)) / 5 for i in range(local.size)]
    assert local.truths().tolist() == agreeing
    np.testing.assert_allclose(half.truths(), (plain.truths() + local.truths()) / 2, atol=1e-15)


def test_locality_1_leads_to_the_optimum_from_everywhere() -> None:
    def stuck(locality: float) -> int:
        space = Synthetic(genes=5, values=3, epistasis=4, locality=locality)
        truths, best = space.truths(), space.index(space.optimum())
        return sum(
            i != best and all(truths[space.index(b)] <= truths[i] for b in space.neighbours(space.at(i)))
            for i in range(space.size)
        )

    assert stuck(1.0) == 0
    assert stuck(0.0) > stuck(0.4) > 0


def test_autocorrelation_of_random_walks_grows_with_locality() -> None:
    """Over all pairs of neighbours, which is what an endless random walk sees.

    Known answer for the distance: a gene that agrees never does after it changed, one that does not agrees with
    probability 1 / (values - 1), so its correlation is -1 / (values - 1), and that of all genes follows.
    """
    genes, values = 5, 4

    def autocorrelation(locality: float) -> float:
        space = Synthetic(genes=genes, values=values, epistasis=4, locality=locality)
        grid = space.truths().reshape((values,) * genes) - space.truths().mean()
        # The sum over all other values of a gene is that over all of them without the value itself.
        products = [grid * (grid.sum(axis=i, keepdims=True) - grid) / (values - 1) for i in range(genes)]
        return float(np.mean(products) / np.mean(grid**2))

    found = [autocorrelation(x) for x in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert found == sorted(found)
    assert found[0] < 0.1  # each edit draws all contributions anew
    assert found[-1] == pytest.approx(1 - values / (genes * (values - 1)))


def test_random_walks_agree_with_their_autocorrelation() -> None:
    space = Synthetic(genes=5, values=4, epistasis=4, locality=1)
    rng = np.random.default_rng(0)
    a, seen = space.sample(rng), []
    for _ in range(20_000):
        a = space.mutate(a, rng)
        seen.append(space.truth(a))
    found = np.corrcoef(seen[:-1], seen[1:])[0, 1]
    assert found == pytest.approx(1 - 4 / (5 * 3), abs=0.02)


# --- fidelity


def test_scores_lead_from_a_biased_landscape_to_the_truth() -> None:
    space = Synthetic(genes=4, values=3, epistasis=1, fidelity_bias=0.8)
    low, half, full = (space.scores(fidelity=f) for f in (0.0, 0.5, 1.0))
    assert full.tolist() == space.truths().tolist() == Synthetic(genes=4, values=3, epistasis=1).truths().tolist()
    assert low.tolist() == [space.score(space.at(i), fidelity=0.0) for i in range(81)]
    assert space.score(space.at(5)) == space.truth(space.at(5))
    np.testing.assert_allclose(half, (low + full) / 2, atol=1e-15)
    bias = (low - full) / 0.8
    assert -0.5 <= bias.min() < 0 < bias.max() < 0.5
    assert abs(np.corrcoef(bias, full)[0, 1]) < 0.5
    for fidelity in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"fidelity is .*; allowed: 0 to 1"):
            space.score(space.at(0), fidelity=fidelity)


def test_rank_correlation_falls_with_the_bias_and_rises_with_fidelity() -> None:
    for world in range(3):
        found = [
            Synthetic(genes=5, values=4, world=world, fidelity_bias=bias).rank_correlation()
            for bias in (4.0, 2.0, 1.0, 0.5, 0.0)
        ]
        assert found == sorted(set(found))
        assert found[-1] == pytest.approx(1)
        space = Synthetic(genes=5, values=4, world=world, fidelity_bias=3)
        by_fidelity = [space.rank_correlation(f) for f in (0.0, 0.25, 0.5, 0.75, 1.0)]
        assert by_fidelity == sorted(set(by_fidelity))


@pytest.mark.parametrize("bias", [0.5, 1.0, 3.0])
def test_correlation_at_fidelity_0_is_the_stated_one(bias: float) -> None:
    # With full epistasis all 4,096 truths are independent: the standard error is below 1 / 64.
    space = Synthetic(genes=6, values=4, epistasis=5, fidelity_bias=bias)
    found = np.corrcoef(space.scores(fidelity=0.0), space.truths())[0, 1]
    assert found == pytest.approx(1 / np.sqrt(1 + bias**2), abs=0.04)


# --- tables


def test_tables_of_plain_worlds_are_what_they_were(tmp_path: Path) -> None:
    """Second implementation: the formulas of the first version, without bias."""
    space = Synthetic(genes=3, values=3)
    table = open_table(write_synthetic_table(tmp_path / "t", space, seeds=2, epochs=7, root=5))
    rng = generator(5, "synthetic-table", "synthetic[genes=3;values=3]")
    quality = space.truths()[:, None] + 0.01 * rng.standard_normal((27, 2))
    seen = np.clip(quality + 0.01 / 4 * rng.standard_normal((27, 2)), 0, 1)
    rise = 1 - np.exp(-4 * np.arange(1, 8) / 7)
    counts = np.rint(seen[:, :, None] * (rise / rise[-1]) * 10_000).astype(np.uint16)
    assert np.load(table.folder / "valid.base.npy").tolist() == counts.tolist()


def test_noise_between_training_seeds_is_as_stated(tmp_path: Path) -> None:
    space = Synthetic(genes=4, values=3, world=1, noise=0.02)
    folder = write_synthetic_table(tmp_path / "t", space, seeds=40)
    accuracy = np.load(folder / "sealed" / "test.base.npy")[:, :, -1] / 10_000
    assert 0 < accuracy.min() < accuracy.max() < 1  # nothing was clipped
    # Quality and measurement, and rounding to 1 / 10,000.
    variance = 0.02**2 * (1 + 1 / 16) + 1e-8 / 12
    statistic = accuracy.var(axis=1, ddof=1).sum() * 39 / variance
    low, high = stats.chi2.ppf([5e-4, 1 - 5e-4], 81 * 39)
    assert low < statistic < high
    quiet = write_synthetic_table(tmp_path / "quiet", Synthetic(genes=4, values=3, world=1, noise=0))
    assert np.ptp(np.load(quiet / "valid.base.npy"), axis=1).max() == 0


def test_epochs_of_tables_show_the_bias(tmp_path: Path) -> None:
    space = Synthetic(genes=4, values=4, epistasis=1, fidelity_bias=1.5, noise=0)
    folder = write_synthetic_table(tmp_path / "t", space, seeds=1, epochs=5)
    curves = np.load(folder / "valid.base.npy")[:, 0, :]
    for epoch in range(1, 6):
        expected = stats.spearmanr(space.scores(fidelity=epoch / 5), space.truths()).statistic
        found = stats.spearmanr(curves[:, epoch - 1], space.truths()).statistic
        assert found == pytest.approx(expected, abs=0.01)
    assert (curves[:, -1] == np.rint(space.truths() * 10_000)).all()
    assert open_table(folder).space == space
