"""Losses and metrics by kind of task: known answers, second implementations, and learning what can be learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nasbed.methods.estimators.fewer_epochs import FewerEpochs
from nasbed.methods.estimators.full import FullTraining
from nasbed.protocols import FULL, Architecture, DataView, Proposal, Setting, Split, Task
from nasbed.protocols.training import (
    PIPELINES,
    ReferenceTrainer,
    constant_prediction,
    load,
    measure,
    objective_of,
)

UCI = Path(__file__).parents[3] / "shared" / "data" / "uci"
ONLY = Architecture("one", ())


def task(kind: str, shape: tuple[int, ...], classes: int | None) -> Task:
    metric = {"text": "perplexity", "regression": "mse"}.get(kind, "accuracy")
    return Task("toy", kind, metric, metric == "accuracy", shape, classes, "")


class Linear:
    """One architecture: a linear model of inputs in a vector."""

    def build(self, a: Architecture, task: Task) -> nn.Module:
        return nn.Linear(task.shape[0], task.classes or 1, device="meta")

    def training(self, a: Architecture) -> dict[str, object]:
        return {}


def totals_and_metric(kind: str, outputs: list, targets: list, classes: int | None) -> tuple[float, float]:
    objective = objective_of(task(kind, (1,), classes))
    y = torch.tensor(targets)
    logits = torch.tensor(outputs, dtype=torch.float32)
    total = objective.total(logits, y, objective.loss(logits, y)).item()
    return total, float(objective.metric(np.array(total), y.numel()))


@pytest.mark.parametrize("kind", ["image", "tabular"])
def test_the_metric_of_classes_is_the_share_of_correct_predictions(kind: str) -> None:
    total, metric = totals_and_metric(kind, [[3, 1], [0, 1], [2, 1], [0, 5]], [0, 1, 1, 1], 2)
    assert (total, metric) == (3, 0.75)
    assert isinstance(total, int)  # tables hold counts


def test_perplexity_is_the_exponential_of_the_mean_cross_entropy_over_tokens() -> None:
    # The tokens have probability 1/4 and 1/4 in one window, 1/2 and 1/8 in the other: the geometric mean is 2^-2.
    log = np.log([[[1, 1, 1, 1], [1, 1, 1, 1]], [[4, 2, 1, 1], [1, 3, 3, 1]]]).tolist()
    total, metric = totals_and_metric("text", log, [[2, 0], [0, 3]], 4)
    assert total == pytest.approx(4 * np.log(4))
    assert metric == pytest.approx(4)
    assert totals_and_metric("text", np.zeros((2, 3, 50)).tolist(), [[1, 2, 3]] * 2, 50)[1] == pytest.approx(50)


def test_mean_squared_error_has_no_hidden_broadcast() -> None:
    """(n, 1) against (n,) broadcast to (n, n) would give 3."""
    total, metric = totals_and_metric("regression", [[1], [2], [4]], [1.0, 3.0, 2.0], None)
    assert (total, metric) == pytest.approx((5, 5 / 3))
    with pytest.raises(RuntimeError):
        totals_and_metric("regression", [[1, 2], [2, 1]], [1.0, 3.0], None)


def test_a_training_that_diverged_has_no_finite_metric_and_no_warning() -> None:
    objective = objective_of(task("text", (2,), 3))
    assert objective.metric(np.array([1e9, np.nan]), 2).tolist() == pytest.approx([np.inf, np.nan], nan_ok=True)


def view(kind: str, train: list, valid: list, classes: int | None) -> DataView:
    kinds = np.float32 if kind == "regression" else np.int64
    splits = [Split(np.zeros((len(y), 1), np.float32), np.array(y, kinds)) for y in (train, valid)]
    return DataView(task(kind, (1,), classes), *splits)


def test_the_best_constant_prediction() -> None:
    assert constant_prediction(view("image", [2, 2, 0, 1, 0, 2], [2, 0, 0, 2, 1], 3)) == 0.4
    assert constant_prediction(view("tabular", [1, 0], [0, 0, 1], 2)) == 2 / 3  # a tie: the first class
    # The training mean is 2; the validation mean is 5 and would give 4.
    assert constant_prediction(view("regression", [1, 2, 3], [3, 7], None)) == (1 + 25) / 2
    # Counts 3, 1, 0, 0 raised by one, of 8: the validation tokens have probabilities 1/2, 1/8, 1/4.
    text = view("text", [[0, 0], [0, 1]], [[0, 3, 1]], 4)
    assert constant_prediction(text) == pytest.approx((2 * 8 * 4) ** (1 / 3))


def test_no_constant_does_better_in_training() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(3, 2, 200).astype(np.float32).tolist()
    assert constant_prediction(view("regression", y, y, None)) == pytest.approx(np.var(y), rel=1e-6)
    words = rng.choice(5, (400, 2), p=[0.5, 0.2, 0.15, 0.1, 0.05])
    p = np.bincount(words.ravel()) / words.size
    assert constant_prediction(view("text", words, words, 5)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-3)


@pytest.mark.parametrize("kind", ["image", "text", "regression"])
def test_measuring_agrees_with_numpy_whatever_the_parts(kind: str) -> None:
    rng = np.random.default_rng(1)
    if kind == "text":
        network = nn.Embedding(7, 7)  # logits by look-up
        x, y = rng.integers(7, size=(2, 200, 35))
    else:
        network = nn.Linear(4, 3 if kind == "image" else 1)
        x = rng.normal(size=(2500, 4)).astype(np.float32)
        y = rng.integers(3, size=2500) if kind == "image" else rng.normal(size=2500).astype(np.float32)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.from_numpy(rng.normal(size=p.shape)))
        outputs = network(torch.from_numpy(x)).double().numpy()
    if kind == "regression":
        expected = np.square(outputs[:, 0] - y).mean()
    elif kind == "image":
        expected = (outputs.argmax(1) == y).mean()
    else:
        normal = np.log(np.exp(outputs).sum(-1, keepdims=True))
        expected = np.exp(-np.take_along_axis(outputs - normal, y[..., None], -1).mean())
    assert measure(network, Split(x, y), objective_of(task(kind, (1,), 3))) == pytest.approx(expected, rel=1e-5)


def wine_like() -> DataView:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(600, 5)).astype(np.float32)
    y = (x @ [0.5, -0.3, 0.2, 0.0, 0.1] + rng.normal(0, 0.7, 600)).astype(np.float32)
    return DataView(task("regression", (5,), None), Split(x[:400], y[:400]), Split(x[400:], y[400:]))


def least_squares(view: DataView) -> tuple[float, float]:
    """Training and validation error of the exact solution, with an intercept."""
    train, valid = (np.c_[s.x, np.ones(len(s))] for s in (view.train, view.valid))
    weights = np.linalg.lstsq(train, view.train.y, rcond=None)[0]
    return np.square(train @ weights - view.train.y).mean(), np.square(valid @ weights - view.valid.y).mean()


def regression_setting(view: DataView, epochs: int) -> Setting:
    pipeline = replace(PIPELINES["adam"], learning_rate=0.01, epochs=epochs)
    trainer = ReferenceTrainer(Linear(), device="cpu")
    return Setting(view.task, "epochs", pipeline, lambda a: 0, view, trainer=trainer)


def test_a_linear_model_reaches_the_least_squares_error() -> None:
    data = wine_like()
    setting = regression_setting(data, 30)
    curve, _ = setting.trainer.train(ONLY, setting, seed=0, fidelity=FULL)
    train, valid = least_squares(data)
    assert curve.train[-1] == pytest.approx(train, rel=0.02)
    assert curve.valid[-1] == pytest.approx(valid, rel=0.02)
    assert curve.valid[-1] < 0.8 * constant_prediction(data) < constant_prediction(data) < curve.valid[0]
    assert curve.flops == 30 * (400 * (10 + 10) + 200 * 10)  # no gradient with respect to the inputs


@pytest.mark.skipif(not UCI.is_dir(), reason=f"no {UCI}")
def test_a_linear_model_of_wine_reaches_the_least_squares_error() -> None:
    data = load("wine_red", UCI)
    setting = regression_setting(data, 30)
    curve, weights = setting.trainer.train(ONLY, setting, seed=0, fidelity=FULL)
    assert curve.valid[-1] == pytest.approx(least_squares(data)[1], rel=0.03)
    network = nn.Linear(11, 1)
    network.load_state_dict(dict(weights))
    assert measure(network, data.valid, objective_of(data.task)) == pytest.approx(curve.valid[-1], rel=1e-6)


def test_estimators_turn_an_error_into_a_score() -> None:
    setting = regression_setting(wine_like(), 4)
    answers = []
    for estimator in (FullTraining(), FewerEpochs(2)):
        assert not estimator.prepare(Linear(), setting, seed=0)
        answers += estimator.estimate([Proposal(ONLY)])
    full, fewer = answers
    assert full.score == -full.curve[3] < 0
    assert fewer.score == -full.curve[1]
    assert full.score > fewer.score  # the error fell


def test_a_network_without_parameters_is_measured_and_left_as_it_is() -> None:
    class Mean(Linear):
        def build(self, a: Architecture, task: Task) -> nn.Module:
            return nn.Sequential(nn.BatchNorm1d(5, affine=False, device="meta"), nn.AvgPool1d(5))

    data = wine_like()
    setting = replace(regression_setting(data, 2), trainer=ReferenceTrainer(Mean(), device="cpu"))
    curve, weights = setting.trainer.train(ONLY, setting, seed=0, fidelity=FULL)
    assert curve.flops == 0
    assert np.isfinite(curve.valid).all()
    assert weights["0.running_mean"].numpy() == pytest.approx(data.train.x.mean(0), abs=0.05)
