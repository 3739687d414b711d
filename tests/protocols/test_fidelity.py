"""Lower fidelities: which examples, which pixels, which networks, and what they cost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasbed.methods import registry
from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import FULL, DataView, Fidelity, ScalableSpace, SearchSpace, Setting, Split, Task
from nasbed.protocols.streams import generator
from nasbed.protocols.training import (
    PIPELINES,
    ReferenceTrainer,
    check_fidelity,
    fit_from_seed,
    load,
    reduced,
    reduced_split,
    training_flops,
)

DIGITS = load("digits")
SPACE = NB201(cells=1, channels=8)
A = SPACE.parse("|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|")
IMAGES = Task("toy", "image", "accuracy", True, (1, 16, 16), 4, "d")


def test_the_text_of_a_fidelity_leaves_out_its_epochs_and_what_is_full() -> None:
    assert FULL.text == Fidelity(epochs=3).text == ""
    assert Fidelity(data=0.25).text == "data=0.25"
    assert Fidelity(2, depth=1 / 3, width=0.5).text == "width=0.5;depth=0.333333"
    assert Fidelity(2, 0.5, 0.75, 0.5, 0.25).text == "data=0.5;resolution=0.75;width=0.5;depth=0.25"


@pytest.mark.parametrize("field", ["data", "resolution", "width", "depth"])
@pytest.mark.parametrize("value", [0.0, -0.5, 1.01, float("nan")])
def test_fractions_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^fidelity\.{field}: {value} is not in \(0, 1\]$"):
        reduced(SPACE, DIGITS, replace(FULL, **{field: value}))


@pytest.mark.parametrize("epochs", [0.5, -1, float("nan")])
def test_less_than_an_epoch_is_refused(epochs: float) -> None:
    with pytest.raises(ValueError, match=r"^fidelity\.epochs: .* is less than 1$"):
        check_fidelity(Fidelity(epochs))


# --- data and resolution


def test_full_fidelity_is_the_very_same_space_and_data() -> None:
    space, view = reduced(SPACE, DIGITS, Fidelity(epochs=2))
    assert space is SPACE
    assert view is DIGITS
    assert reduced_split(DIGITS.valid, Fidelity(epochs=2, data=0.1)) is DIGITS.valid


def places(part: Split) -> list[int]:
    """Where the examples of a subset stand in the training part; digits differ in their pixels."""
    rows = {x.tobytes(): i for i, x in enumerate(DIGITS.train.x)}
    return [rows[x.tobytes()] for x in part.x]


def test_subsets_are_nested_and_fixed() -> None:
    parts = [reduced(SPACE, DIGITS, Fidelity(data=d))[1].train for d in (1e-9, 0.1, 0.25, 0.5, 0.999)]
    found = [places(part) for part in parts]
    assert [len(f) for f in found] == [1, 80, 200, 400, 799]
    for small, large in pairwise(found):
        assert large[: len(small)] == small
    assert found[0] == [274]  # for ever
    for part, where in zip(parts, found, strict=True):
        assert len(set(where)) == len(where)
        assert part.y.tolist() == DIGITS.train.y[where].tolist()
    assert set(parts[1].y.tolist()) == set(range(10))
    again = reduced(MLP(), DIGITS, Fidelity(data=0.1))[1]
    assert places(again.train) == found[1]
    assert again.valid is DIGITS.valid
    other = replace(DIGITS, task=replace(DIGITS.task, name="other"))
    assert places(reduced(SPACE, other, Fidelity(data=0.1))[1].train) != found[1]


def test_half_the_resolution_is_the_mean_of_four_pixels() -> None:
    _, view = reduced(SPACE, DIGITS, Fidelity(resolution=0.5))
    assert view.task == replace(DIGITS.task, shape=(1, 4, 4))
    for ours, theirs in ((view.train, DIGITS.train), (view.valid, DIGITS.valid)):
        blocks = theirs.x.reshape(-1, 1, 4, 2, 4, 2).mean((3, 5))
        np.testing.assert_allclose(ours.x, blocks, rtol=1e-6)
        assert ours.x.dtype == np.float32
        assert ours.y is theirs.y
    alone = reduced_split(DIGITS.valid, Fidelity(resolution=0.5, data=0.1))
    assert np.array_equal(alone.x, view.valid.x)


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 14), st.integers(3, 14), st.floats(0.05, 1))
def test_pixels_are_means_of_the_areas_that_they_cover(height: int, width: int, share: float) -> None:
    x = np.random.default_rng(0).random((2, 2, height, width), np.float32)
    found = reduced_split(Split(x, np.zeros(2, np.int64)), Fidelity(resolution=share)).x
    new = [max(1, round(share * side)) for side in (height, width)]
    assert found.shape == (2, 2, *new)
    for i in range(new[0]):
        for j in range(new[1]):
            rows = slice(i * height // new[0], -(-(i + 1) * height // new[0]))
            columns = slice(j * width // new[1], -(-(j + 1) * width // new[1]))
            np.testing.assert_allclose(found[:, :, i, j], x[:, :, rows, columns].mean((2, 3)), rtol=1e-5)


def test_only_images_have_a_resolution() -> None:
    numbers = Split(np.zeros((4, 3), np.float32), np.zeros(4, np.float32))
    view = DataView(Task("t", "tabular", "accuracy", True, (3,), 2, ""), numbers, numbers)
    with pytest.raises(ValueError, match=r"^fidelity\.resolution: 0\.5 needs images; allowed here: 1$"):
        reduced(MLP(), view, Fidelity(resolution=0.5))


# --- width and depth


@pytest.mark.parametrize(
    ("cells", "depth", "stages"),
    [
        (1, 1 / 3, (1, 0, 0)),
        (1, 2 / 3, (1, 1, 0)),
        (1, 0.01, (1, 0, 0)),
        (5, 1 / 3, (2, 2, 1)),
        (5, 0.5, (3, 3, 2)),
        (5, 0.2, (1, 1, 1)),
        (2, 0.99, (2, 2, 2)),
        ((1, 3, 0), 0.5, (1, 1, 0)),
        ((0, 4, 1), 0.8, (0, 3, 1)),
    ],
)
def test_the_cells_of_nb201_that_are_kept(cells: int | tuple[int, ...], depth: float, stages: tuple[int, ...]) -> None:
    space = NB201(cells=cells, channels=8)
    small = space.scaled(1.0, depth)
    assert small.stages == stages
    assert registry.space(small.name) == small
    assert (small.family, small.size) == (space.family, space.size)
    network = small.build(A, IMAGES)
    assert tuple(len(network[i]) for i in (1, 3, 5)) == stages
    counted = {"params": float(sum(p.numel() for p in network.parameters()))}
    assert small.features(A, IMAGES).items() >= counted.items()


def test_unequal_cells_are_an_option_of_nb201() -> None:
    assert registry.space("nb201[cells=1,0,0]").stages == (1, 0, 0)
    assert registry.space("nb201[cells=2,2,2]").name == "nb201[cells=2]"
    assert (NB201(cells=(2, 2, 2)).cells, NB201(cells=(2, 1, 2)).cells) == (2, (2, 1, 2))
    for wrong in ("0", "0,0,0", "1,2", "1,2,3,4", "1,x,0", "-1,1,1"):
        with pytest.raises(ValueError, match=r"^nb201: cells is "):
            registry.space(f"nb201[cells={wrong}]")


@pytest.mark.parametrize(
    ("name", "width", "depth"),
    [
        ("darts[nodes=2;cells=4;channels=8]", "channels", "cells"),
        ("nasnet[blocks=1;cells=4;channels=8]", "channels", "cells"),
        ("enas_micro[nodes=2;cells=4;channels=8]", "channels", "cells"),
        ("opidx[nodes=2;cells=4;channels=8]", "channels", "cells"),
        ("hierarchical[motifs=2,1;nodes=3,3;cells=4;channels=8]", "channels", "cells"),
        ("enas_macro[layers=2;channels=8]", "channels", None),
        ("fabric[layers=2;scales=2;channels=8]", "channels", None),
        ("genetic_cnn[nodes=3;channels=8]", "channels", None),
        ("macro[stages=2,2;channels=8;head=64]", "channels", None),
        ("with_pipeline(nb201[channels=8;cells=4])", "channels", "stages"),
    ],
)
def test_scaled_spaces_have_the_same_genes_and_smaller_networks(name: str, width: str, depth: str | None) -> None:
    space = registry.space(name)
    assert isinstance(space, ScalableSpace)
    small = space.scaled(0.5, 0.5 if depth else 1.0)
    assert registry.space(small.name) == small != space
    a = space.sample(generator(1, "scaled"))
    small.check(a)
    inner = getattr(small, "inner", small)
    assert getattr(inner, width) == 4
    if depth:
        assert getattr(inner, depth) in (2, (2, 2, 2))
    else:
        with pytest.raises(ValueError, match=r"^fidelity\.depth: 0\.5, but .* has one depth only; allowed: 1$"):
            space.scaled(0.5, 0.5)
    assert size(small, a) < size(space, a)


def size(space: SearchSpace, a: object) -> int:
    return sum(p.numel() for p in space.build(a, IMAGES).parameters())  # type: ignore[arg-type]


def test_perceptrons_are_scaled_by_their_units() -> None:
    space = MLP(hidden=3, activations=("relu", "tanh"))
    small = space.scaled(0.3, 1.0)
    assert small.name == "mlp[hidden=3;activations=tanh,relu;scale=0.3]"
    assert registry.space(small.name) == small
    assert space.scaled(0.5, 1.0).scaled(0.5, 1.0).scale == 0.25
    a = space.parse("512-relu/dropout/8-tanh")
    network = small.build(a, DIGITS.task)
    assert [(m.in_features, m.out_features) for m in network if hasattr(m, "in_features")] == [
        (64, 154),
        (154, 2),
        (2, 10),
    ]
    assert small.features(a, DIGITS.task)["params"] == 65 * 154 + 155 * 2 + 3 * 10
    assert MLP(scale=1e-9).build(a, DIGITS.task)[1].out_features == 1
    with pytest.raises(ValueError, match=r"^fidelity\.depth: 0\.5, but mlp.* has one depth only"):
        space.scaled(0.3, 0.5)
    for wrong in ("0", "1.5", "x", "0.1,0.2", "nan"):
        with pytest.raises(ValueError, match="scale"):
            registry.space(f"mlp[scale={wrong}]")


def test_spaces_without_smaller_networks_refuse() -> None:
    space = registry.space("synthetic")
    assert not isinstance(space, ScalableSpace)
    for field in ("width", "depth"):
        with pytest.raises(ValueError, match=rf"^fidelity\.{field}: 0\.5, but synthetic has one {field} only"):
            reduced(space, DIGITS, replace(FULL, **{field: 0.5}))


# --- the trainer


def setting(unit: str = "epochs", pipeline: str = "+cosine") -> Setting:
    small = DataView(
        DIGITS.task,
        Split(DIGITS.train.x[:120], DIGITS.train.y[:120]),
        Split(DIGITS.valid.x[:50], DIGITS.valid.y[:50]),
    )
    return Setting(small.task, unit, PIPELINES[pipeline], lambda a: 0, small)


AXES = [Fidelity(2, data=0.5), Fidelity(2, resolution=0.5), Fidelity(2, width=0.5), Fidelity(2, depth=1 / 3)]


@pytest.mark.parametrize("fidelity", AXES, ids=lambda f: f.text)
def test_every_axis_lowers_the_cost(fidelity: Fidelity) -> None:
    trainer = ReferenceTrainer(SPACE, device="cpu")
    (flops,) = trainer.cost(A, setting("flops"), fidelity)
    assert flops.amount < trainer.cost(A, setting("flops"), Fidelity(2))[0].amount
    assert trainer.cost(A, setting(), fidelity)[0].amount == 2 * fidelity.data
    assert trainer.cost(A, setting("evaluations"), fidelity)[0].amount == 1


def test_a_training_of_the_lowest_fidelity_is_that_of_the_small_network_on_the_small_data() -> None:
    fidelity = Fidelity(2, 0.5, 0.5, 0.5, 1 / 3)
    trainer = ReferenceTrainer(SPACE, device="cpu")
    curve, weights = trainer.train(A, setting("flops", "+all"), seed=0, fidelity=fidelity)
    assert curve.flops == trainer.cost(A, setting("flops"), fidelity)[0].amount
    given = setting().data
    assert given is not None
    space, view = reduced(SPACE, given, fidelity)
    network = space.build(A, view.task)
    n_train, n_valid = len(view.train), len(view.valid)
    assert (n_train, n_valid, view.task.shape) == (60, 50, (1, 4, 4))
    assert curve.flops == 2 * training_flops(network, view.task, PIPELINES["adam"], n_train, n_valid)
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in network.state_dict().items()}
    pipeline = PIPELINES["+all"]
    _, totals = fit_from_seed(network, A, 0, view.train, {"valid": view.valid}, pipeline, epochs=2)
    assert curve.valid == tuple(totals["valid"] / 50)


def test_fidelities_differ_and_full_is_full() -> None:
    trainer, given = ReferenceTrainer(SPACE, device="cpu"), setting(pipeline="base")

    def valid(fidelity: Fidelity) -> tuple[float, ...]:
        return trainer.train(A, given, seed=0, fidelity=fidelity)[0].valid

    short = Fidelity(2)
    first = valid(short)
    assert valid(Fidelity(2, data=0.5)) != first
    assert valid(Fidelity(2, data=1.0, width=1.0)) == first == valid(short)


def test_what_a_space_cannot_be_is_refused_before_it_is_paid_for() -> None:
    trainer = ReferenceTrainer(MLP(), device="cpu")
    a = MLP().parse("8-relu")
    for fidelity in (Fidelity(depth=0.5), Fidelity(2, width=0.5, depth=0.5)):
        with pytest.raises(ValueError, match=r"^fidelity\.depth: 0\.5, but mlp"):
            trainer.cost(a, setting(), fidelity)
        with pytest.raises(ValueError, match=r"^fidelity\.depth: 0\.5, but mlp"):
            trainer.train(a, setting(), seed=0, fidelity=fidelity)
    with pytest.raises(ValueError, match=r"^fidelity\.data: 2 is not in"):
        trainer.cost(a, setting(), Fidelity(data=2))
