"""Numbers about tables: against plain formulas, with values missing and infinite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.protocols import Task
from nasbed.tabular import MappedTable, open_table, write_table
from nasbed.tabular import facts as numbers

SPACE = Synthetic(genes=4, values=3)
WORDS = Task("words", "text", "perplexity", False, (35,), 100, "")


def made(folder: Path, values: np.ndarray, more: dict[str, np.ndarray] | None = None, **fields: Any) -> MappedTable:
    curves = values.astype(np.float32 if "task" in fields else np.uint16)[:, :, None]
    arrays = {"valid.base": curves, "test.base": curves, **(more or {})}
    return open_table(
        write_table(folder, SPACE, arrays, {"name": folder.name, "examples": {"valid": 100, "test": 100}, **fields})
    )


def test_rank_correlation_is_scipys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 12, (2, 300)).astype(float)
    y += x
    assert numbers.spearman(x, y) == pytest.approx(spearmanr(x, y)[0])
    x[5], x[7], y[9] = np.nan, np.inf, np.inf
    assert numbers.spearman(x, y) == pytest.approx(spearmanr(np.delete(x, 5), np.delete(y, 5))[0])
    assert numbers.spearman(x[:2], y[:2]) is None
    assert numbers.spearman(np.ones(9), np.arange(9.0)) is None


def test_quantiles_are_numpys_and_know_infinity() -> None:
    x = np.random.default_rng(1).random(37)
    x[4] = np.nan
    assert numbers.quantiles(x) == pytest.approx(np.nanquantile(x, numbers.QUANTILES))
    x[:5] = np.inf
    assert numbers.quantiles(x)[-1] == math.inf
    assert numbers.quantiles(x)[:4] == pytest.approx(np.quantile(x, numbers.QUANTILES[:4]))
    assert numbers.quantiles(np.array([1.0, np.inf, np.inf]))[1:] == (math.inf,) * 4


def test_deviations_are_those_that_were_put_in() -> None:
    rng = np.random.default_rng(2)
    values = 0.2 * rng.standard_normal((20_000, 1)) + 0.05 * rng.standard_normal((20_000, 3))
    values[:9000, 1:][rng.random((9000, 2)) < 0.5] = np.nan
    values[17, 1], values[18] = np.inf, np.nan
    between, within = numbers.deviations(values)
    assert within == pytest.approx(0.05, rel=0.02)
    assert between == pytest.approx(0.2, rel=0.02)
    assert numbers.deviations(values[:, :1])[1] is None
    # Means of pure noise differ by no more than the noise explains.
    assert numbers.deviations(rng.standard_normal((20_000, 2)))[0] == pytest.approx(0, abs=0.15)


def test_pairs_are_the_first_two_that_are_there() -> None:
    values = np.array([[1, 2, 3], [np.nan, 5, 6], [7, np.nan, 9], [np.nan, np.nan, 3], [4, np.inf, np.nan]])
    assert numbers.pairs(values).tolist() == [[1, 2], [5, 6], [7, 9], [4, np.inf]]
    assert numbers.pairs(values[:, :1]).shape == (0, 2)


def test_facts_of_accuracies(tmp_path: Path) -> None:
    counts = np.random.default_rng(3).integers(0, 101, (81, 3))
    counts[10, 1:], counts[11] = 65535, 65535
    table = made(tmp_path / "t", counts)
    found = numbers.facts(table, "base")
    values = np.where(counts == 65535, np.nan, counts / 100)
    f = numbers.quality(values)
    assert (found.recorded, found.missing, found.without, found.diverged) == (238, 5, 1, 0)
    order = np.argsort(-f, kind="stable")[:5]
    assert [text for text, _, _ in found.top] == [table.text(i) for i in order]
    assert [n for _, _, n in found.top] == [int((~np.isnan(values[i])).sum()) for i in order]
    assert found.spearman_seeds == pytest.approx(spearmanr(values[:, 0], values[:, 1], nan_policy="omit")[0])
    assert found.share is not None
    assert found.share < 0.2  # there is nothing but noise
    assert found.median_cost == 1.0


def test_facts_of_perplexities_are_of_their_logarithms_and_lowest_is_best(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    logs = rng.normal(5, 0.5, (81, 1)) + 0.03 * rng.standard_normal((81, 2))
    values = np.exp(logs)
    values[3, 1], values[4] = np.inf, np.nan
    table = made(tmp_path / "t", values, task=WORDS)
    found = numbers.facts(table, "base")
    assert (found.missing, found.diverged, found.without) == (2, 1, 1)
    assert found.sd_seeds == pytest.approx(0.03, rel=0.3)
    assert found.sd_architectures == pytest.approx(0.5, rel=0.2)
    assert found.top[0][0] == table.text(int(np.nanargmin(values.mean(1))))
    assert found.quantiles[-1] == math.inf
    assert found.spearman_better_half is not None
    assert found.spearman_better_half > 0.9


def test_one_seed_has_no_noise_to_speak_of(tmp_path: Path) -> None:
    found = numbers.facts(made(tmp_path / "t", np.arange(81)[:, None]), "base")
    assert (found.sd_seeds, found.share, found.spearman_seeds, found.spearman_better_half) == (None,) * 4
    assert found.sd_architectures == pytest.approx(np.std(np.arange(81) / 100, ddof=1))


def test_lower_fidelities_are_held_against_full_training(tmp_path: Path) -> None:
    counts = np.tile(np.arange(81)[:, None], (1, 2))
    lower = {
        "valid.base@data=0.5": counts[::-1].astype(np.uint16)[:, :, None],
        "cost.base": np.ones(81),
        "cost.base@data=0.5": np.full(81, 0.25),
    }
    [found] = numbers.facts(made(tmp_path / "t", counts, lower, clock="flops"), "base").lower
    assert found == numbers.Lower("data=0.5", pytest.approx(-1.0), 0.25, 162)


def test_other_tables_are_matched_by_architecture(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    table = made(tmp_path / "t", rng.integers(0, 101, (81, 2)))
    rows = rng.permutation(81)[:20]
    values = np.exp(-numbers.quality(numbers.final(table, "base"))[rows])[:, None].astype(np.float32)
    curves = values[:, :, None]
    fields = {"name": "part", "task": WORDS, "architectures": [SPACE.text(SPACE.at(i)) for i in rows.tolist()]}
    part = open_table(write_table(tmp_path / "p", SPACE, {"valid.x": curves, "test.x": curves}, fields))
    columns = numbers.columns(table, [part])
    assert list(columns) == ["base", "part:x"]
    assert np.flatnonzero(~np.isnan(columns["part:x"])).tolist() == sorted(rows.tolist())
    # Where one is better, so is the other, although perplexities fall as accuracies rise.
    assert numbers.correlations(columns) == {("base", "part:x"): pytest.approx(1.0)}
    assert list(numbers.correlations(numbers.columns(part, [table]))) == [("x", "t:base")]
    assert numbers.correlations(numbers.columns(table, [table]))["base", "t:base"] == pytest.approx(1.0)
    other = open_table("mlp-digits")
    with pytest.raises(ValueError, match="beside: 'mlp-digits' is a table of the space 'mlp', not of 'synthetic'"):
        numbers.columns(table, [other])


def test_members_of_merged_rows_count_each(tmp_path: Path) -> None:
    from nasbed.methods import registry

    cells = registry.space("nb201[ops=none,skip_connect]")
    values = np.arange(64, dtype=np.uint16).reshape(64, 1, 1)
    merged = [i for i in range(64) if cells.index(cells.canonical(cells.at(i))) != i]
    values[merged] = 65535
    manifest = {"name": "m", "canonical": "iso", "examples": {"valid": 100, "test": 100}}
    table = open_table(write_table(tmp_path / "m", cells, {"valid.base": values, "test.base": values}, manifest))
    f = numbers.quality(numbers.final(table, "base"))
    assert len(f) == 64
    assert f[merged[0]] == f[cells.index(cells.canonical(cells.at(merged[0])))]
    found = numbers.facts(table, "base")
    assert (found.missing, found.without) == (0, 0)
    assert len({text for text, _, _ in found.top}) == 5
