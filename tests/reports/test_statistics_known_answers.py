"""Comparison statistics against reference values from other software; the JSON names the source of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasbed.reports import statistics as st

ANSWERS: dict[str, Any] = json.loads((Path(__file__).parent / "known_answers.json").read_text(encoding="utf-8"))


def columns(matrix: list[list[float]]) -> list[np.ndarray]:
    """[seed, table] to one array per table."""
    return list(np.array(matrix).T)


def incumbent(i: dict[str, Any]) -> dict[str, Any]:
    cost, value = st.incumbent_curve(i["eval_cost"], i["score_seen"], i["score_reported"])
    return {"curve_cum_cost_value": np.column_stack([cost, value])}


def area(i: dict[str, Any]) -> dict[str, Any]:
    window = (i["cum_cost"], i["regret"], i["t0"], i["t1"], i["r0"])
    return {"log": st.anytime_area(*window), "linear": st.anytime_area(*window, log=False)}


def friedman(i: dict[str, Any]) -> dict[str, Any]:
    found = st.friedman(i["losses"])
    return {name: getattr(found, name) for name in ("chi2", "p", "F", "pF", "mean_ranks")}


def wilcoxon(i: dict[str, Any]) -> dict[str, Any]:
    found = st.wilcoxon_holm(i["losses"])
    assert [list(pair) for pair in found.pairs] == i["pair_order"]
    return {"p_raw": found.p_raw, "p_holm": found.p_holm}


def smallest_p(i: dict[str, Any]) -> dict[str, Any]:
    return {"p_by_n": {str(n): st.signed_rank(np.arange(1.0, n + 1)) for n in i["n"]}}


def fewest_tables(i: dict[str, Any]) -> dict[str, Any]:
    return {"n_tables_by_k": {str(k): st.min_tables(k, i["alpha"]) for k in i["k"]}}


def bootstrap(i: dict[str, Any]) -> dict[str, Any]:
    found = st.bootstrap_difference(
        columns(i["X"]), columns(i["Y"]), paired=True, resamples=i["n"], rng=np.random.default_rng(i["seed"])
    )
    assert found.level == i["level"]
    return {"estimate": found.estimate, "ci": [found.low, found.high]}


def bayes(i: dict[str, Any]) -> dict[str, Any]:
    found = st.bayes_signed_rank(i["d"], i["rope"], i["n_draws"], np.random.default_rng(1))
    shares = [found.below, found.inside, found.above]
    return {
        "P(d<-rope), P(|d|<=rope), P(d>rope)": shares,
        "second_implementation": shares,
        "baycomp_reordered": shares,
    }


def elteren(i: dict[str, Any]) -> dict[str, Any]:
    found = st.van_elteren(i["new"], i["base"], alternative="greater")
    return {"z": found.z, "p_one_sided": found.p}


def theta(i: dict[str, Any]) -> dict[str, Any]:
    found = st.theta_se(i["new"], i["base"])
    return {"theta": found.theta, "se": found.se}


def brunner_munzel(i: dict[str, Any]) -> dict[str, Any]:
    found = st.theta_se([i["new"]], [i["base"]])
    return {"statistic": (found.theta - 0.5) / found.se}


CASES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "iqm_1_to_12": lambda i: {"iqm": st.iqm(i["x"])},
    "iqm_n5": lambda i: {"iqm": st.iqm(i["x"])},
    "iqm_n10": lambda i: {"iqm": st.iqm(i["x"])},
    "a12": lambda i: {"A12": st.a12(i["x"], i["y"]), "cliffs_delta": st.cliffs_delta(i["x"], i["y"])},
    "a12_one_stratum": lambda i: {"A12": st.a12(i["new"], i["base"])},
    "friedman_iman_davenport": friedman,
    "nemenyi_p": lambda i: {"p": st.nemenyi_p(i["losses"])},
    "nemenyi_cd": lambda i: {"cd": [st.nemenyi_cd(c["k"], c["n"], c["alpha"]) for c in i["cases"]]},
    "wilcoxon_holm_pairs": wilcoxon,
    "holm": lambda i: {"p_holm": st.holm(i["p"])},
    "min_tables_wilcoxon_holm": fewest_tables,
    "min_p_wilcoxon": smallest_p,
    "ert": lambda i: {"ert": st.ert(i["cost"], i["hit"])},
    "ert_no_hit": lambda i: {"ert": st.ert(i["cost"], i["hit"])},
    "incumbent_curve": incumbent,
    "anytime_area": area,
    "signed_rank_zero_handling": lambda i: {"p_wilcox": st.signed_rank(i["d"])},
    "bayes_signed_rank_rope": bayes,
    "probability_of_improvement": lambda i: {"poi": st.poi(columns(i["X"]), columns(i["Y"]))},
    "paired_stratified_bootstrap": bootstrap,
    "paired_t_sample_size": lambda i: {
        "n_pairs": [st.paired_t_sample_size(c["d"], i["alpha"], i["power"]) for c in i["cases"]]
    },
    "van_elteren": elteren,
    "van_elteren_one_stratum": lambda i: {"p_one_sided": st.van_elteren([i["new"]], [i["base"]], "greater").p},
    "theta_se": theta,
    "brunner_munzel_one_stratum": brunner_munzel,
}

OTHER_STATISTICS = {
    "signed_rank_zero_handling": {"p_zsplit", "p_permutation_mean"},  # other tests, stored for contrast
    "brunner_munzel_one_stratum": {"p_two_sided"},  # its t approximation is not used by theta_se
}


def numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: numbers(v) for key, v in value.items()}
    return np.array(value, dtype=float)  # the string "inf" stands for infinity


@pytest.mark.parametrize("name", CASES)
def test_known_answer(name: str) -> None:
    entry = ANSWERS[name]
    found = CASES[name](entry["inputs"])
    expected = {k: v for k, v in entry["expected"].items() if k not in OTHER_STATISTICS.get(name, set())}
    assert set(found) == set(expected)
    for key, value in expected.items():
        want, have = numbers(value), numbers(found[key])
        if isinstance(want, dict):
            assert want.keys() == have.keys()
            want, have = np.array(list(want.values())), np.array(list(have.values()))
        np.testing.assert_allclose(have, want, rtol=0, atol=entry["tolerance"], err_msg=f"{name}: {key}")
