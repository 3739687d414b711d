"""Pipelines: digests, ranges, learning rates, and the registered set."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasbed.protocols import Pipeline
from nasbed.protocols.training import PIPELINES, check_pipeline, pipeline_for
from nasbed.protocols.training.pipelines import BATCH_SIZE, EPOCHS, LEARNING_RATE, LONGER
from nasbed.protocols.training.reference import learning_rate, make_optimizer

MANIFEST = Path(__file__).parents[2] / "tabular" / "data" / "mlp-digits" / "manifest.json"
EARLIEST = ("adam", "sgd_cosine", "fcnet", "free")
# A pipeline in which no field has the value that turns it off.
FULL = Pipeline(
    "full", "sgd", 0.1, 8, 64, "cosine", 0.9, True, 5e-4, (), 1, 2, 2, 1e-3, 0.25, 0.1, 0.2, 0.3, 4, 0.2, 0.5,
    "auto_augment", True,
)  # fmt: skip


def changed(value: object) -> object:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    return value + "x" if isinstance(value, str) else ("epochs",) if isinstance(value, tuple) else value * 2  # type: ignore[operator]


@pytest.mark.parametrize("pipeline", [FULL, PIPELINES["sgd_cosine"]], ids=lambda p: p.name)
def test_the_digest_depends_on_every_field(pipeline: Pipeline) -> None:
    others = {"restart": 3, "final_learning_rate": 0.1, "clip_norm": 0.5, "label_smoothing": 0.1, "dropout": 0.1,
              "drop_path": 0.1, "cutout": 2, "mixup": 1.0, "cutmix": 1.0,
              "policy": "trivial_augment", "shake_shake": True}  # fmt: skip
    digests = {pipeline.digest}
    for f in fields(Pipeline):
        value = getattr(pipeline, f.name)
        other = others[f.name] if f.name in others and not value else changed(value)
        digests.add(replace(pipeline, **{f.name: other}).digest)
    assert len(digests) == len(fields(Pipeline)) + 1


def test_a_field_that_is_open_is_no_part_of_the_digest() -> None:
    opened = replace(FULL, open=("learning_rate", "mixup"))
    assert opened.digest == replace(opened, learning_rate=9.0, mixup=0.0).digest != FULL.digest


def test_ingredients_that_are_off_are_no_part_of_the_digest() -> None:
    """Whichever way off is written: gates and tables from before these fields hold the same digests."""
    p = PIPELINES["adam"]
    off = replace(p, restart=0, cutout=0, mixup=0, label_smoothing=0.0, policy="", shake_shake=False, restart_factor=1)
    off = replace(off, clip_norm=0)
    assert off.digest == p.digest


def test_registered_pipelines_are_what_they_were() -> None:
    """A change here makes every table and record of the old pipeline incomparable: raise `version`, add a name."""
    assert {n: PIPELINES[n].digest[:16] for n in EARLIEST} == {
        "adam": "8cdc74b395b76d13",
        "sgd_cosine": "8e31fa4865052977",
        "fcnet": "488f62b0d3ad309b",
        "free": "65512fe4401c1411",
    }
    assert tuple(PIPELINES)[:4] == EARLIEST  # numbers of pipelines are genes


def test_the_digests_in_the_embedded_table_are_still_those_of_the_pipelines() -> None:
    recorded = json.loads(MANIFEST.read_text())["pipelines"]
    assert set(recorded) == {"adam", "sgd_cosine"}
    for name, values in recorded.items():
        assert values["digest"] == PIPELINES[name].digest


def test_the_set_for_tables_adds_ingredients_to_one_skeleton() -> None:
    names = ("base", "+cosine", "+cutout", "+mixup", "+drop-path", "+all", "long")
    assert tuple(PIPELINES)[4:-2] == names
    base, cosine, *_ = (PIPELINES[name] for name in names)
    assert (base.optimizer, base.schedule, base.momentum, base.nesterov) == ("sgd", "constant", 0.9, True)
    assert (base.learning_rate, base.epochs, base.batch_size) == (LEARNING_RATE, EPOCHS, BATCH_SIZE)
    differences = {
        name: {f.name for f in fields(Pipeline) if getattr(PIPELINES[name], f.name) != getattr(cosine, f.name)}
        for name in names
    }
    assert differences == {
        "base": {"name", "schedule"},
        "+cosine": set(),
        "+cutout": {"name", "cutout"},
        "+mixup": {"name", "mixup"},
        "+drop-path": {"name", "drop_path"},
        "+all": {"name", "cutout", "mixup", "drop_path", "label_smoothing"},
        "long": {"name", "epochs"},
    }
    assert PIPELINES["long"].epochs == LONGER * base.epochs
    assert not any(p.policy or p.open for p in map(PIPELINES.get, names) if p)  # none flips, none is open


def test_the_default_is_still_adam() -> None:
    assert pipeline_for(None, {}).name == "adam"
    assert pipeline_for(None, {"learning_rate": 1}).name == "fcnet"
    assert pipeline_for("+all", {}) == PIPELINES["+all"]
    with pytest.raises(ValueError, match="did you mean 'adam'"):
        pipeline_for("adm", {})


@pytest.mark.parametrize("name", PIPELINES)
def test_registered_pipelines_are_valid(name: str) -> None:
    check_pipeline(PIPELINES[name])


INVALID = [
    ("optimizer", {"optimizer": "unstated"}),
    ("learning_rate", {"learning_rate": 0.0}),
    ("learning_rate", {"learning_rate": float("nan")}),
    ("epochs", {"epochs": 0}),
    ("batch_size", {"batch_size": 0}),
    ("batch_size", {"batch_size": 32.5}),
    ("schedule", {"schedule": "linear"}),
    ("momentum", {"momentum": 1.0}),
    ("nesterov", {"momentum": 0.0}),
    ("weight_decay", {"weight_decay": -1e-4}),
    ("restart", {"restart": -1}),
    ("restart", {"schedule": "constant", "final_learning_rate": 0.0}),
    ("restart", {"restart": 2.5}),
    ("restart_factor", {"restart_factor": 0}),
    ("final_learning_rate", {"final_learning_rate": 0.2}),
    ("final_learning_rate", {"schedule": "constant", "restart": 0}),
    ("label_smoothing", {"label_smoothing": 1.0}),
    ("dropout", {"dropout": 1.0}),
    ("drop_path", {"drop_path": -0.1}),
    ("cutout", {"cutout": -1}),
    ("cutout", {"cutout": 2.5}),
    ("mixup", {"mixup": float("inf")}),
    ("cutmix", {"cutmix": 1.0}),
    ("cutmix", {"mixup": 0.0, "cutmix": -1.0}),
    ("policy", {"policy": "rand_augment"}),
]


@pytest.mark.parametrize(("field", "change"), INVALID, ids=str)
def test_what_is_out_of_range_is_refused_by_its_name(field: str, change: dict[str, object]) -> None:
    valid = replace(FULL, cutmix=0.0)
    check_pipeline(valid)
    with pytest.raises(ValueError, match=rf"^pipeline\.{field}: .*; allowed: ") as error:
        check_pipeline(replace(valid, **change))
    assert "\n" not in str(error.value)


# --- learning rates


def test_the_cosine_goes_from_the_rate_to_the_floor() -> None:
    p = PIPELINES["sgd_cosine"]
    rates = [learning_rate(p, t) for t in range(p.epochs + 1)]
    assert rates[0] == p.learning_rate
    assert rates[p.epochs] == pytest.approx(0, abs=1e-18)
    assert rates[p.epochs // 2] == pytest.approx(p.learning_rate / 2)
    assert all(b < a for a, b in pairwise(rates))
    assert {learning_rate(PIPELINES["adam"], t) for t in range(11)} == {0.001}
    floor = replace(p, final_learning_rate=0.01)
    assert [learning_rate(floor, t) for t in (0, 10, 20)] == pytest.approx([0.03, 0.02, 0.01])


def test_restarts_as_in_enas() -> None:
    """T_0 = 10, T_mult = 2: 310 epochs are five cycles of 10, 20, 40, 80 and 160 (Pham et al. 2018, section 3.2)."""
    p = replace(FULL, learning_rate=0.05, final_learning_rate=0.0005, restart=10, restart_factor=2, epochs=310)
    rates = [learning_rate(p, t) for t in range(310)]
    assert [t for t in range(310) if rates[t] == 0.05] == [0, 10, 30, 70, 150]
    assert rates[5] == pytest.approx(0.02525)
    assert all(b < a for a, b in pairwise(rates[150:]))
    assert min(rates) > 0.0005


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 7), st.integers(1, 3), st.floats(1e-4, 1), st.floats(0, 1), st.integers(1, 40), st.booleans())
def test_restarts_and_annealing_are_those_of_torch(
    restart: int, factor: int, rate: float, share: float, epochs: int, once: bool
) -> None:
    p = replace(FULL, learning_rate=rate, final_learning_rate=share * rate, restart=restart, restart_factor=factor)
    p = replace(p, epochs=epochs, restart=0 if once else restart)
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(1))], p)
    floor = p.final_learning_rate
    theirs = (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, floor)
        if once
        else torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, restart, factor, floor)
    )
    for epoch in range(epochs):
        assert learning_rate(p, epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
        optimizer.step()
        theirs.step()
