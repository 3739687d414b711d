"""Performance predictors: what they learn from, what that costs, and what each model computes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import spearmanr
from sklearn.ensemble import RandomForestRegressor

from nasbed.methods import registry
from nasbed.methods.estimators.table import TableLookup
from nasbed.methods.networks.predictor_networks import (
    Ensemble,
    GraphNetwork,
    Perceptron,
    SequenceLSTM,
    example_flops,
    padded,
    squares,
)
from nasbed.methods.networks.predictors import Affine, Prediction, Vocabulary, blocks, check_graphs, normalised, union
from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import FULL, Architecture, Fidelity, PerformanceEstimator, Proposal, Setting, Task
from nasbed.protocols.streams import integer
from nasbed.protocols.training import PIPELINES, ReferenceTrainer, load, materialise
from nasbed.tabular import MappedTable, open_table, write_table

SMALL = {
    "forest": {"trees": 10},
    "boosting": {"trees": 10},
    "gaussian_process": {},
    "mlp": {"epochs": 4, "members": 2, "width": 8},
    "lstm": {"epochs": 2, "members": 2, "units": 6},
    "gcn": {"epochs": 2, "members": 2, "width": 8},
}
ENOUGH = SMALL | {
    "forest": {"trees": 50},
    "boosting": {},
    "mlp": {"epochs": 40, "members": 2, "width": 32},
    "lstm": {"epochs": 30, "members": 2, "units": 24},
    "gcn": {"epochs": 30, "members": 2, "width": 32},
}
ALL = tuple(SMALL)
CELLS = NB201()
TOY = MLP(hidden=1, widths=(8, 16), dropout=False)


def made(name: str, recipes: dict = SMALL, **params):
    return registry.load("estimators", f"predictor_{name}")(**(recipes[name] | params))


def on(table: MappedTable, unit: str = "flops", seed=None) -> Setting:
    pipeline = next(iter(table.pipelines.values()))
    return Setting(
        table.task, unit, pipeline, seed or (lambda a: table.seeds[sum(a.genes) % len(table.seeds)]), None, table
    )


def toy(folder: Path, values: np.ndarray, **task) -> MappedTable:
    fields = {"name": "toy", "clock": "flops", "task": Task("r", "regression", "rmse", False, (4,), None, "")}
    arrays = {"valid.base": values.astype(np.float32), "test.base": np.ones_like(values, np.float32)}
    return open_table(write_table(folder, TOY, arrays, fields | task))


def drawn(n: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return list(dict.fromkeys(CELLS.canonical(CELLS.sample(rng)) for _ in range(2 * n)))[:n]


def quality(a: Architecture) -> float:
    return 0.5 + 0.05 * a.genes.count(3) - 0.03 * a.genes.count(0)


@pytest.mark.parametrize("name", ALL)
def test_every_predictor_is_an_estimator_that_says_what_it_is(name: str) -> None:
    model = made(name)
    assert isinstance(model, PerformanceEstimator)
    assert model.traits.accuracy_scale
    assert not model.traits.deterministic
    assert type(model).libraries in (("torch",), ("scikit-learn",))
    default = registry.load("estimators", f"predictor_{name}")()
    assert default._n_train == 100


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [(name, {"n_train": 1}, r"n_train: 1 is not allowed; use an integer >= 2") for name in ALL]
    + [(name, {"n_train": 2.5}, r"n_train: 2.5 is not allowed") for name in ALL]
    + [(name, {"largest": 0}, r"largest: 0 is not allowed; use an integer >= 1") for name in ALL]
    + [(name, {"epochs": 0}, r"epochs: 0 is not allowed") for name in ("mlp", "lstm", "gcn")]
    + [(name, {"members": True}, r"members: True is not allowed") for name in ("mlp", "lstm", "gcn")]
    + [(name, {"learning_rate": 0}, r"learning_rate: 0 is not .*; use a number > 0") for name in ("boosting", "gcn")]
    + [("forest", {"trees": 0}, "trees: 0"), ("boosting", {"depth": -1}, "depth: -1")]
    + [("lstm", {"units": 0}, "units: 0")]
    + [("mlp", {"layers": 0}, "layers: 0"), ("gcn", {"layers": "3"}, "layers: '3'")],
)  # fmt: skip
def test_wrong_parameters_are_refused(name: str, params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        made(name, **params)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["forest", "boosting", "gaussian_process", "mlp"])
def test_an_encoding_that_the_space_lacks_is_refused_when_a_study_is_planned(name: str) -> None:
    setting = on(open_table("nb201-clutter"))
    with pytest.raises(ValueError, match=r"encoding: 'graph' is not .* of nb201.*; allowed: one_hot, path, live_path$"):
        made(name, encoding="graph").fits(setting)
    with pytest.raises(ValueError, match=r"encoding: 'live_path' is not .* of mlp; allowed: one_hot, path$"):
        made(name, encoding="live_path").prepare(MLP(), replace(setting, table=None, trainer=object()), seed=0)
    made(name, encoding="live_path").fits(setting)


def test_what_a_setting_or_a_space_lacks_is_refused() -> None:
    setting = on(open_table("mlp-digits"))
    with pytest.raises(ValueError, match="estimator: 'full' trains for real"):
        made("forest").fits(replace(setting, table=None))
    with pytest.raises(ValueError, match="budget: the clock of the table 'mlp-digits' is in flops"):
        made("forest").fits(replace(setting, unit="seconds"))
    foreign = SimpleNamespace(name="foreign")
    with pytest.raises(ValueError, match="space: foreign has no graphs for a graph network"):
        check_graphs(foreign)
    with pytest.raises(ValueError, match="largest: foreign shows no operations to count as blocks; allowed: None"):
        blocks(foreign, Architecture("foreign", ()))


@pytest.mark.parametrize("unit", ["flops", "epochs", "evaluations"])
@pytest.mark.parametrize("name", ["forest", "gcn"])
def test_the_ledger_holds_every_training_and_the_fit(name: str, unit: str) -> None:
    table = open_table("nb201-clutter")
    setting = on(table, unit)
    model = made(name, n_train=12)
    if unit == "epochs":  # 0 examples are no epochs, with data or without
        assert setting.data is None
    costs = model.prepare(table.space, setting, seed=3)
    assert [c.kind for c in costs] == ["train"] * 12 + ["fit"]
    look_up = TableLookup()
    look_up.prepare(table.space, setting, seed=0)
    again = look_up.estimate([Proposal(a) for a in model.trained_on])
    assert costs[:-1] == tuple(c for o in again for c in o.costs)
    assert (costs[-1].amount > 0) == (name == "gcn" and unit == "flops")
    asked = [Proposal(table.space.at(i), Fidelity(epochs=2)) for i in (5, 700, 5)]
    answers = model.estimate(asked)
    assert [o.proposal for o in answers] == asked
    assert answers[0] == answers[2]
    for o in answers:
        (cost,) = o.costs
        assert cost.kind == "proxy"
        expected = {"evaluations": 1.0, "epochs": 0.0}.get(unit)
        assert cost.amount == expected if expected is not None else (cost.amount > 0) == (name == "gcn")


def test_seconds_are_those_of_the_clock() -> None:
    ticks = iter(range(100))
    table = open_table("mlp-digits")
    model = made("forest", n_train=5)
    setting = on(table)
    model.prepare(table.space, replace(setting, clock=lambda: float(next(ticks))), seed=0)
    model._setting = replace(model._setting, unit="seconds")
    answers = model.estimate([Proposal(table.space.at(i)) for i in range(3)])
    assert [o.costs[0].amount for o in answers] == [1.0] * 3


def test_training_architectures_are_of_distinct_classes_and_of_the_seed() -> None:
    table = open_table("nb201-clutter")
    sets = []
    for seed in (0, 0, 1):
        model = made("boosting", n_train=300)
        model.prepare(table.space, on(table), seed=seed)
        classes = {table.space.canonical(a) for a in model.trained_on}
        assert len(classes) == len(model.trained_on) == 300
        sets.append(model.trained_on)
    assert sets[0] == sets[1] != sets[2]


def test_models_of_one_seed_learn_from_the_same_architectures() -> None:
    table = open_table("mlp-digits")
    chosen = set()
    for name in ALL:
        model = made(name, n_train=4)
        model.prepare(table.space, on(table), seed=9)
        chosen.add(model.trained_on)
    assert len(chosen) == 1


def test_draws_are_uniform() -> None:
    table = open_table("nb201-clutter")
    model = made("forest", n_train=2)
    genes = [g for seed in range(150) for a in model._draw(table.space, seed, lambda a: a) for g in a.genes]
    counts = np.bincount(genes, minlength=5)[[0, 3, 4]]  # the operations of the table
    assert counts / counts.sum() == pytest.approx([1 / 3] * 3, abs=0.04)  # 1,800 genes: 3.6 standard deviations


def test_all_of_a_small_space_and_no_more(tmp_path: Path) -> None:
    table = toy(tmp_path / "t", np.linspace(1, 2, 24).reshape(8, 3, 1))
    model = made("gaussian_process", n_train=8)
    model.prepare(TOY, on(table), seed=0)
    assert set(model.trained_on) == {TOY.at(i) for i in range(8)}
    with pytest.raises(
        ValueError, match=r"n_train: 9 is not allowed; drawing from mlp\[.*\] finds 8 architectures, no t"
    ):
        made("gaussian_process", n_train=9).prepare(TOY, on(table), seed=0)
    # Lower is better: scores are negative, so that the smallest error is the largest score.
    answers = model.estimate([Proposal(TOY.at(0)), Proposal(TOY.at(7))])
    assert answers[0].score > answers[1].score
    assert -2.2 < answers[1].score < answers[0].score < -0.8


def test_diverged_trainings_are_charged_and_left_out(tmp_path: Path) -> None:
    values = np.ones((8, 3, 1))
    values[:3] = np.inf
    table = toy(tmp_path / "t", values)
    model = made("forest", n_train=8)
    costs = model.prepare(TOY, on(table, "evaluations"), seed=0)
    assert [c.amount for c in costs] == [1.0] * 8 + [0.0]
    assert len(model.trained_on) == 8
    assert {o.score for o in model.estimate([Proposal(TOY.at(i)) for i in range(8)])} == {-1.0}
    values[:7] = np.inf
    with pytest.raises(ValueError, match="n_train: of 8 trainings 1 did not diverge; a model needs 2"):
        made("forest", n_train=8).prepare(TOY, on(toy(tmp_path / "u", values)), seed=0)


def test_of_a_sample_it_learns_from_what_the_table_has() -> None:
    table = open_table("nb201-mnist-clutter")
    assert table.coverage == "sample"
    held = {table.architecture(row) for row in table.members()}
    model = made("forest", n_train=30)
    costs = model.prepare(table.space, on(table), seed=0)
    assert set(model.trained_on) <= held
    assert len(costs) == 31
    with pytest.raises(
        ValueError, match=r"finds \d+ architectures, no two alike \(architecture: nb201.* is not in the"
    ):
        made("forest", n_train=len(held) + 1).prepare(table.space, on(table), seed=0)


def test_it_learns_from_real_trainings_too() -> None:
    view = load("digits")
    pipeline = replace(PIPELINES["adam"], epochs=1)
    trainer = ReferenceTrainer(TOY, device="cpu")
    setting = Setting(view.task, "evaluations", pipeline, lambda a: 3, view, trainer=trainer)
    model = made("mlp", n_train=3)
    costs = model.prepare(TOY, setting, seed=0)
    assert [(c.kind, c.amount) for c in costs] == [("train", 1.0)] * 3 + [("fit", 0.0)]
    (answer,) = model.estimate([Proposal(model.trained_on[0])])
    assert 0 < answer.score < 1


@pytest.mark.parametrize(("space", "largest"), [("nb201-clutter", 3), ("mlp-digits", 2)])
def test_the_size_split_learns_from_small_ones_and_predicts_all(space: str, largest: int) -> None:
    table = open_table(space)
    model = made("lstm", n_train=15, largest=largest)
    model.prepare(table.space, on(table), seed=0)
    sizes = [blocks(table.space, a) for a in model.trained_on]
    assert max(sizes) == largest
    (answer,) = model.estimate([Proposal(table.space.at(table.space.size - 1))])
    assert blocks(table.space, answer.proposal.architecture) > largest
    assert answer.status == "ok"
    with pytest.raises(ValueError, match=r"n_train: 40 is not allowed; .* architectures of at most 1 blocks"):
        made("forest", n_train=40, largest=1).prepare(table.space, on(table), seed=0)


def test_blocks_are_layers_and_edges_that_are_not_none() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a = CELLS.sample(rng)
        assert blocks(CELLS, a) == 6 - a.genes.count(0)
        b = MLP().sample(rng)
        assert blocks(MLP(), b) == len(b.genes) - 1


def scores_of(model, architectures) -> list[Prediction]:
    return [model.predict(a) for a in architectures]


@pytest.mark.parametrize("name", ALL)
def test_the_order_of_training_changes_nothing_and_the_same_seed_gives_the_same_bytes(name: str) -> None:
    train, rest = drawn(14), drawn(6, seed=5)
    y = [quality(a) for a in train]
    order = np.random.default_rng(1).permutation(len(train))
    first, second, other = made(name), made(name), made(name)
    first.fit(CELLS, train, y, seed=2)
    flops = second.fit(CELLS, [train[i] for i in order], [y[i] for i in order], seed=2)
    other.fit(CELLS, train, y, seed=3)
    assert scores_of(first, rest) == scores_of(second, rest)
    # Asked in another order, and again: predictions do not depend on one another.
    assert scores_of(first, rest[::-1]) == scores_of(second, rest)[::-1]
    if name != "gaussian_process":  # which draws nothing
        different = scores_of(first, rest) != scores_of(other, rest)
        assert different or name == "boosting"
    assert (flops > 0) == (name in ("mlp", "lstm", "gcn"))


@pytest.mark.parametrize("name", ALL)
def test_equal_scores_give_equal_predictions(name: str) -> None:
    model = made(name)
    model.fit(CELLS, drawn(10), [0.7] * 10, seed=0)
    for mean, sd, _ in scores_of(model, drawn(8, seed=3)):
        assert mean == pytest.approx(0.7, abs=1e-12)
        assert sd is None or sd == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_relabelled_cells_get_equal_predictions(name: str) -> None:
    model = made(name)
    train = drawn(12)
    model.fit(CELLS, train, [quality(a) for a in train], seed=0)
    a, b = Architecture("nb201", (3, 1, 0, 2, 4, 3)), Architecture("nb201", (1, 3, 0, 2, 3, 4))
    assert CELLS.canonical(a) == CELLS.canonical(b)
    assert model.predict(a) == model.predict(b)
    assert len(set(scores_of(model, train))) > 2


@pytest.mark.parametrize("name", ALL)
def test_an_architecture_that_cannot_be_seen_is_a_crash_and_no_number(name: str) -> None:
    table = open_table("mlp-digits")
    model = made(name, n_train=5)
    model.prepare(table.space, on(table, "evaluations"), seed=0)
    good, bad = Proposal(table.space.at(3)), Proposal(Architecture("mlp", (99, 30)))
    answers = model.estimate([good, bad, good])
    assert [o.status for o in answers] == ["ok", "crashed", "ok"]
    assert answers[1].reason.startswith("gene 0 of ")
    assert np.isnan(answers[1].score)
    assert [o.costs[0].amount for o in answers] == [1.0] * 3
    assert answers[0] == answers[2]
    assert ("sd" in answers[0].objectives) == (name != "boosting")


@pytest.mark.parametrize("table", ["mlp-digits", "nb201-clutter"])
@pytest.mark.parametrize("name", ALL)
def test_predictions_beat_chance(name: str, table: str) -> None:
    opened = open_table(table)
    setting = on(opened)
    model = made(name, ENOUGH, n_train=60)
    model.prepare(opened.space, setting, seed=0)
    known = {opened.space.canonical(a) for a in model.trained_on}
    rng = np.random.default_rng(0)
    asked = [a for a in (opened.space.sample(rng) for _ in range(100)) if opened.space.canonical(a) not in known]
    found = [o.score for o in model.estimate([Proposal(a) for a in asked])]
    truth = [
        opened.lookup(a, pipeline=setting.pipeline.name, seed=setting.train_seed(a), fidelity=FULL).valid[-1]
        for a in asked
    ]
    assert spearmanr(found, truth).statistic > 0.3


def test_the_forest_is_that_of_scikit_learn() -> None:
    train, rest = drawn(20), drawn(5, seed=4)
    y = [quality(a) for a in train]
    model = made("forest", encoding="path")
    model.fit(CELLS, train, y, seed=6)
    forest = RandomForestRegressor(10, random_state=integer(6, "forest") % 2**32)
    rows = sorted(range(20), key=lambda i: train[i].genes)
    forest.fit([CELLS.encode(train[i], "path") for i in rows], [y[i] for i in rows])
    x = np.stack([CELLS.encode(a, "path") for a in map(CELLS.canonical, rest)])
    assert [p.mean for p in scores_of(model, rest)] == pytest.approx(forest.predict(x))
    spread = np.std([tree.predict(x) for tree in forest.estimators_], axis=0)
    assert [p.sd for p in scores_of(model, rest)] == pytest.approx(spread)


def test_the_gaussian_process_is_the_closed_form() -> None:
    train, rest = drawn(20), drawn(5, seed=4)
    y = np.array([quality(a) for a in train]) + np.random.default_rng(0).normal(0, 0.02, 20)
    model = made("gaussian_process")
    model.fit(CELLS, train, y, seed=0)
    c, length, noise = np.exp(model._model.kernel_.theta)

    def kernel(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return c * np.exp(-((p[:, None] - q[None]) ** 2).sum(2) / (2 * length**2))

    x, new = (np.stack([CELLS.encode(a) for a in map(CELLS.canonical, some)]) for some in (train, rest))
    factor = cho_factor(kernel(x, x) + (noise + 1e-10) * np.eye(20))
    z = (y - y.mean()) / y.std()
    mean = kernel(new, x) @ cho_solve(factor, z)
    variance = c + noise - np.einsum("ij,ji->i", kernel(new, x), cho_solve(factor, kernel(x, new)))
    found = scores_of(model, rest)
    assert [p.mean for p in found] == pytest.approx(y.mean() + y.std() * mean, rel=1e-6)
    assert [p.sd for p in found] == pytest.approx(y.std() * np.sqrt(variance), rel=1e-5)


def test_scales_of_targets() -> None:
    y = np.array([3.0, 5.0, 9.0])
    standard, between = Affine.standard(y), Affine.between(y, 0.1, 0.9)
    assert standard.z(y).mean() == pytest.approx(0)
    assert standard.z(y).std() == pytest.approx(1)
    assert between.z(y) == pytest.approx([0.1, 0.1 + 0.8 / 3, 0.9])
    for scale in (standard, between):
        assert [scale.y(Prediction(float(z), 1.0)).mean for z in scale.z(y)] == pytest.approx(y.tolist())
        assert scale.y(Prediction(0.0, 2.0, 7.0)) == (scale.centre, 2 * scale.scale, 7.0)
    assert Affine.between(np.full(3, 0.7), 0.1, 0.9) == Affine.standard(np.full(3, 0.7)) == (0.7, 0.0)


def test_symbols_that_were_not_learned_from_are_0() -> None:
    vocabulary = Vocabulary([(5, 2), (2, 9)])
    assert vocabulary.numbers((9, 2, 5, 7)) == [3, 1, 2, 0]
    assert len(vocabulary) == 3


def real(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    return materialise(network, torch.Generator().manual_seed(seed), dtype=torch.float64)


def meta(build) -> torch.nn.Module:
    with torch.device("meta"):
        return build()


def values(module: torch.nn.Module) -> list[np.ndarray]:
    return [p.detach().numpy() for p in module.parameters()]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm_by_hand(network: SequenceLSTM, tokens: list[int]) -> float:
    table, w_in, b_in, w_hidden, b_hidden, w_out, b_out = values(network)
    h = c = np.zeros(w_hidden.shape[1])
    for token in tokens:
        i, f, g, o = np.split(w_in @ table[token] + b_in + w_hidden @ h + b_hidden, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return float(sigmoid(w_out @ h + b_out)[0])


def test_the_lstm_is_the_one_by_hand_whatever_the_padding() -> None:
    network = real(meta(lambda: SequenceLSTM(4, 5, 3)))
    assert not values(network)[0][0].any()  # an unknown token says nothing
    sequences = [[2], [1, 4, 0, 3], [3, 3]]
    found = network(padded(sequences), torch.tensor([1, 4, 2])).tolist()
    assert found == pytest.approx([lstm_by_hand(network, s) for s in sequences], rel=1e-12)
    library = torch.nn.LSTM(5, 3, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        parts = network.input.weight, network.hidden.weight, network.input.bias, network.hidden.bias
        for theirs, ours in zip(library.parameters(), parts, strict=True):
            theirs.copy_(ours)
        _, (last, _) = library(network.embedding(torch.tensor([[1, 4, 0, 3]])))
        assert torch.sigmoid(network.output(last[0])).item() == pytest.approx(found[1], rel=1e-12)


def test_gradients_of_the_networks_are_those_of_finite_differences() -> None:
    adjacency = torch.from_numpy(normalised([(1, 2), (1, 0), (2, 0)], 3)).double().expand(2, 3, 3)
    cases = [
        (lambda: SequenceLSTM(4, 3, 2), (torch.tensor([[1, 2, 3], [4, 2, 0]]), torch.tensor([3, 2]))),
        (lambda: GraphNetwork(4, 3, 2), (torch.tensor([[1, 2, 3], [4, 2, 1]]), adjacency)),
        (lambda: Perceptron(3, 2, 4), (torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double(),)),
    ]
    for build, inputs in cases:
        network = real(meta(build))
        loss = (network(*inputs) - torch.tensor([0.2, 0.9])).square().sum()
        loss.backward()
        for p in network.parameters():
            place = int(p.grad.abs().argmax())
            with torch.no_grad():
                sides = []
                for step in (1e-6, -1e-6):
                    p.view(-1)[place] += step
                    sides.append((network(*inputs) - torch.tensor([0.2, 0.9])).square().sum().item())
                    p.view(-1)[place] -= step
            assert p.grad.view(-1)[place].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4, abs=1e-9)


def test_the_graph_network_is_the_one_by_hand_whatever_the_padding_and_the_numbering() -> None:
    network = real(meta(lambda: GraphNetwork(5, 4, 3)))
    edges, labels = [(1, 2), (1, 3), (2, 4), (3, 4), *((i, 0) for i in range(1, 5))], [5, 1, 2, 3, 4]
    table, *layers, w_out, b_out = values(network)
    a = normalised(edges, 5).astype(np.float64)
    assert a.sum(1) == pytest.approx(np.ones(5))
    assert a[4] == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3])
    h = table[labels]
    for w, b in zip(layers[::2], layers[1::2], strict=True):
        h = np.maximum(a @ (h @ w.T + b), 0)
    by_hand = float((w_out @ h[0] + b_out)[0])
    order = np.array([0, 3, 1, 4, 2])  # the global node stays
    new = np.argsort(order)
    renumbered = normalised([(new[s], new[t]) for s, t in edges], 5)
    small = np.eye(2, dtype=np.float32)
    both = squares([normalised(edges, 5), renumbered, small]).double()
    found = network(torch.tensor([labels, np.array(labels)[order].tolist(), [5, 1, 0, 0, 0]]), both).tolist()
    assert found[:2] == pytest.approx([by_hand] * 2, rel=1e-6)
    alone = network(torch.tensor([[5, 1]]), torch.from_numpy(small[None]).double()).item()
    assert found[2] == pytest.approx(alone, rel=1e-12)


def test_the_graph_network_sees_no_numbers_of_nodes() -> None:
    model = made("gcn", epochs=40)
    train = drawn(20)
    model.fit(CELLS, train, [quality(a) for a in train], seed=0)
    a, b = Architecture("nb201", (3, 1, 0, 2, 4, 3)), Architecture("nb201", (1, 3, 0, 2, 3, 4))
    assert union(CELLS, a) != union(CELLS, b)
    assert sorted(union(CELLS, a)[0]) == sorted(union(CELLS, b)[0])
    assert model._predict(a).mean == pytest.approx(model._predict(b).mean, abs=1e-6)  # not by the representative
    other = Architecture("nb201", (3, 1, 0, 2, 3, 4))  # the same operations, on other paths
    assert abs(model._predict(a).mean - model._predict(other).mean) > 1e-5


def test_all_graphs_are_one() -> None:
    labels, edges = union(CELLS, Architecture("nb201", (3, 0, 0, 0, 1, 4)))
    operations = ["cell: nor_conv_3x3", "cell: skip_connect", "cell: avg_pool_3x3"]  # from the input, from 1, from 2
    assert labels == ["global", "cell: input", *operations, "cell: output"]
    assert set(edges) == {(1, 2), (2, 3), (3, 5), (4, 5), *((i, 0) for i in range(1, 6))}
    labels, edges = union(MLP(), MLP().parse("64-relu/dropout/64-tanh"))
    assert labels[2:5] == ["network: 64 relu", "network: dropout", "network: 64 tanh"]
    assert set(edges) == {(1, 2), (2, 3), (3, 4), (4, 5), *((i, 0) for i in range(1, 6))}
    darts = registry.space("darts")
    assert {label.partition(":")[0] for label in union(darts, darts.sample(np.random.default_rng(0)))[0]} == {
        "global", "normal", "reduction",
    }  # fmt: skip


def test_flops_of_the_networks() -> None:
    d, layers, w = 7, 3, 5
    forward, both = example_flops(meta(lambda: Perceptron(d, layers, w)), (torch.zeros(4, d),))
    products = d * w + (layers - 1) * w * w + w
    assert forward == 2 * products
    assert both == 2 * (3 * products - d * w)  # no gradient of the inputs
    steps, e, u = 4, 3, 6
    inputs = (torch.zeros(2, steps, dtype=torch.int64), torch.tensor([2, 4]))
    forward, both = example_flops(meta(lambda: SequenceLSTM(9, e, u)), inputs)
    assert forward == 2 * (steps * 4 * u * (e + u) + u)
    assert forward < both <= 3 * forward
    nodes = 6
    inputs = (torch.zeros(3, nodes, dtype=torch.int64), torch.zeros(3, nodes, nodes))
    forward, _ = example_flops(meta(lambda: GraphNetwork(9, w, layers)), inputs)
    assert forward == 2 * (layers * nodes * w * (w + nodes) + w)


def test_the_flops_of_a_fit_are_those_of_its_examples() -> None:
    x, y = torch.zeros(10, 3), np.arange(10.0)
    _, both = example_flops(meta(lambda: Perceptron(3, 1, 4)), (x,))
    for folds, examples in ((False, 5 * 10), (True, 5 * 8)):
        ensemble = Ensemble(lambda: Perceptron(3, 1, 4), 5, torch.nn.functional.l1_loss, 2, 0.01, folds=folds)
        assert ensemble.fit((x,), y, seed=0) == 2 * examples * both
        assert ensemble.predict((x[:1],)).flops == 5 * 2 * (12 + 4)
    left_out = [set(range(10)) - set(rows.tolist()) for rows in ensemble._shares(10, 0)]
    assert sorted(i for fold in left_out for i in fold) == list(range(10))


def test_an_ensemble_learns_and_its_members_differ() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    y = x @ [1.0, -2.0, 0.5]
    inputs = (torch.from_numpy(x),)
    ensemble = Ensemble(lambda: Perceptron(3, 1, 16), 3, torch.nn.functional.mse_loss, 60, 0.01)
    ensemble.fit(inputs, y, seed=0)
    found = [ensemble.predict((row[None],)) for row in inputs[0]]
    assert np.corrcoef([p.mean for p in found], y)[0, 1] > 0.99
    members = np.array([[net(row[None]).item() for row in inputs[0]] for net in ensemble._networks])
    assert [p.mean for p in found] == pytest.approx(members.mean(0), rel=1e-6, abs=1e-6)
    assert [p.sd for p in found] == pytest.approx(members.std(0), rel=1e-4, abs=1e-6)
    assert min(p.sd for p in found) > 0
    untrained = replace(ensemble, epochs=1, learning_rate=1e-12)
    untrained.fit(inputs, y, seed=0)
    assert min(untrained.predict((row[None],)).sd for row in inputs[0]) > 1e-3  # from weights of their own


@pytest.mark.slow
def test_the_same_bytes_in_another_process() -> None:
    code = f"""
import warnings
warnings.simplefilter("error")
from nasbed.methods import registry
from nasbed.methods.spaces.nb201 import NB201
space = NB201()
for name, recipe in {SMALL!r}.items():
    model = registry.load("estimators", "predictor_" + name)(**recipe)
    train = [space.canonical(space.at(i)) for i in range(7, 15000, 1000)]
    model.fit(space, train, [a.genes.count(3) / 6 for a in train], seed=4)
    print(name, [model.predict(space.at(i)) for i in (3, 4000, 9000)])
"""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(2)]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.count("\n") == len(ALL)
