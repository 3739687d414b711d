"""Audit statistics against reference values from other software; the JSON names the source of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nasbed.reports.audit import bias, ceiling, correlation, topk, variance

ANSWERS: dict[str, Any] = json.loads((Path(__file__).parent / "known_answers_audit.json").read_text(encoding="utf-8"))


def of(name: str, key: str, **options: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """One correlation of the running example."""

    def compute(i: dict[str, Any]) -> dict[str, Any]:
        e, f = i.get("pred", i.get("x")), i.get("true", i.get("y"))
        given = {"width": i["bin_width"]} if "bin_width" in i else {}
        found = correlation.correlations(e, f, accuracy_scale=True, **given, **options)
        return {key: found[name].value}

    return compute


def weighted(i: dict[str, Any]) -> dict[str, Any]:
    found = correlation.correlations(i["pred"], i["true"], accuracy_scale=False)
    return {"default_rank_true": found["weighted_tau"].value, "rank_by_true": found["weighted_tau_by_truth"].value}


def top(i: dict[str, Any]) -> dict[str, Any]:
    found = topk.top_k(i["pred"], i["true"], i["k"])
    n = len(i["pred"])
    return {
        "p_at_top": found.p_top, "p_at_bottom": found.p_bottom, "br": found.best_rank, "wr": found.worst_rank,
        "n_at": found.n_at, "regret_pp": found.regret,
    } | ({} if found.share == i["k"] / n else {"share": found.share})  # fmt: skip


def within(i: dict[str, Any]) -> dict[str, Any]:
    e, f, share = i["pred"], i["true"], i["fraction"]
    return {
        "tau_true_top": topk.tau_within(e, f, share, by="truth").value,
        "tau_pred_top": topk.tau_within(e, f, share, by="prediction").value,
    }


def by_depth(i: dict[str, Any]) -> dict[str, Any]:
    d, depth = bias.rank_change(i["pred"], i["true"]), np.array(i["depth"])
    return {
        "d": d,
        "mean_by_depth": {str(v): d[depth == v].mean() for v in (1, 2, 4)},
        "spearman_d_depth": stats.spearmanr(d, depth).statistic,
        "partial_spearman_pred_depth_given_true": bias.partial_spearman(i["pred"], i["depth"], i["true"]).value,
        "tau_b": correlation.correlations(i["pred"], i["true"], accuracy_scale=False)["tau_b"].value,
    }


def fisher(function: Callable[..., Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def compute(i: dict[str, Any]) -> dict[str, Any]:
        found = function(i["r"], i["n"], 2.0 * NormalDist().cdf(i["z"]) - 1.0)
        return {"ci": [found.low, found.high]}

    return compute


def reliability(method: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def compute(i: dict[str, Any]) -> dict[str, Any]:
        r1 = ceiling.reliability(i["Y"], method).value
        return {"r1": r1, "r_S": ceiling.spearman_brown(r1, 3)}

    return compute


def icc(i: dict[str, Any]) -> dict[str, Any]:
    found = ceiling.icc(i["Y"])
    return {
        "ICC(C,1)": found.icc_c1, "ICC(C,k)": found.icc_ck, "ICC(A,1)": found.icc_a1, "var_arch": found.var_arch,
        "var_err": found.var_err,
    }  # fmt: skip


def decomposed(i: dict[str, Any]) -> dict[str, Any]:
    found = variance.components(i["Y"])
    return {
        "components": {k: getattr(found, k) for k in ("arch", "pipe", "arch_pipe", "seed")},
        "shares": dict(found.shares),
    }


COMPUTE: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "kendall_tau_b_no_ties": of("tau_b", "tau_b"),
    "kendall_tau_b": of("tau_b", "tau_b"),
    "kendall_tau_c": of("tau_c", "tau_c"),
    "spearman": of("spearman", "rho"),
    "pearson": of("pearson", "r"),
    "weighted_tau": weighted,
    "sparse_tau_w1.0": of("sparse_tau", "stau_true"),
    "sparse_tau_w0.5": of("sparse_tau", "stau_true"),
    "topk_k1": top,
    "topk_k2": top,
    "topk_k3": top,
    "tau_within_top_50pct": within,
    "relative_rank_change": lambda i: {"d": bias.rank_change(i["pred"], i["true"])},
    "discordance_cost": of("discordance", "pp"),
    "partial_spearman_pred_true_given_params": lambda i: {
        "partial_rho": bias.partial_spearman(i["pred"], i["true"], i["params"]).value
    },
    "spearman_rank_change_vs_params": lambda i: {
        "rho": stats.spearmanr(bias.rank_change(i["pred"], i["true"]), i["params"]).statistic
    },
    "rank_change_by_depth": by_depth,
    "fisher_z_tau_ci": fisher(correlation.fisher_tau),
    "fisher_z_spearman_ci": fisher(correlation.fisher_spearman),
    "seed_reliability_spearman": reliability("spearman"),
    "seed_reliability_pearson": reliability("pearson"),
    "icc": icc,
    "disattenuate": lambda i: {"rho": [ceiling.disattenuate(c["r"], c["rel_x"], c["rel_y"]).value for c in i["cases"]]},
    "spearman_brown": lambda i: {"r_S": ceiling.spearman_brown(i["r"], i["S"])},
    "variance_components": decomposed,
}


def test_every_answer_is_asked_for() -> None:
    assert set(COMPUTE) == set(ANSWERS)


@pytest.mark.parametrize("name", ANSWERS)
def test_known_answer(name: str) -> None:
    answer = ANSWERS[name]
    found = COMPUTE[name](answer["inputs"])
    compared = 0
    for key, value in found.items():
        expected = answer["expected"][key]
        if isinstance(value, dict):
            assert value == pytest.approx(expected, rel=answer["tolerance"], abs=answer["tolerance"]), key
        else:
            np.testing.assert_allclose(value, expected, rtol=answer["tolerance"], atol=answer["tolerance"], err_msg=key)
        compared += 1
    assert compared > 0


def test_weights_by_position_are_not_offered() -> None:
    """`rank=False` of scipy weighs by the place in the list: the trap of the running example."""
    i = ANSWERS["weighted_tau"]["inputs"]
    trap = stats.weightedtau(i["pred"], i["true"], rank=False).statistic
    assert trap == pytest.approx(ANSWERS["weighted_tau"]["expected"]["trap_rank_false"])
    assert abs(weighted(i)["default_rank_true"] - trap) > 0.1
