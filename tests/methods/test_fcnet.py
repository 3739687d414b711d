"""FC-Net: its values, its moves, its network, and the genes that training takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from math import cos, pi, prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn

from nasbed.methods import registry
from nasbed.methods.spaces.fcnet import GENES, FCNet
from nasbed.protocols import FULL, DataView, Fidelity, IndexedSpace, Pipeline, Setting, Split, Task
from nasbed.protocols.streams import generator, torch_generator
from nasbed.protocols.training import PIPELINES, ReferenceTrainer, load, materialise

SPACE = FCNet()
TEXT = "64-relu-0.3/128-tanh-0.0/lr=0.001/cosine/batch=32"
WORDS = Task("words", "text", "perplexity", False, (12,), 20, "0")
TASKS = (
    Task("images", "image", "accuracy", True, (3, 16, 16), 10, "0"),
    Task("digits", "image", "accuracy", True, (1, 8, 8), 10, "0"),
    Task("table", "tabular", "accuracy", True, (13,), 3, "0"),
    Task("numbers", "regression", "mse", False, (13,), None, "0"),
)


# --- the space ------------------------------------------------------------------------------------------------


def test_counts() -> None:
    assert isinstance(SPACE, IndexedSpace)
    assert SPACE.size == 6 * 6 * 3 * 3 * 2 * 2 * 6 * 2 * 4 == 62_208
    assert all(
        len(SPACE.neighbours(SPACE.at(i))) == 5 + 5 + 2 + 2 + 1 + 1 + 5 + 1 + 3 == 25 for i in range(0, 62_208, 5_000)
    )
    assert SPACE.gene_names == (
        "n_units_1", "n_units_2", "dropout_1", "dropout_2", "activation_fn_1", "activation_fn_2",
        "init_lr", "lr_schedule", "batch_size",
    )  # fmt: skip
    assert SPACE.canonical(SPACE.at(7)) == SPACE.at(7)


# Klein & Hutter 2019, table 1; automl/nas_benchmarks.
def test_values_are_the_published_ones() -> None:
    numbers = {name: tuple(map(float, values)) for name, values in GENES.items() if values[0][0].isdigit()}
    assert numbers["n_units_1"] == numbers["n_units_2"] == (16, 32, 64, 128, 256, 512)
    assert numbers["dropout_1"] == numbers["dropout_2"] == (0.0, 0.3, 0.6)
    assert numbers["init_lr"] == (5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1)
    assert numbers["batch_size"] == (8, 16, 32, 64)
    assert GENES["activation_fn_1"] == GENES["activation_fn_2"] == ("tanh", "relu")
    assert GENES["lr_schedule"] == ("cosine", "const")
    assert len(GENES) == 9


def test_steps_change_ordered_values_by_one() -> None:
    space = FCNet({"n_units_1": ["16", "64", "512"], "init_lr": ["0.1"]}, moves="step")
    ends, middle = (
        space.parse("16-tanh-0.0/16-tanh-0.0/lr=0.1/const/batch=8"),
        space.parse("64-relu-0.3/32-tanh-0.3/lr=0.1/cosine/batch=16"),
    )
    assert [space.text(b) for b in space.neighbours(ends)] == [
        "64-tanh-0.0/16-tanh-0.0/lr=0.1/const/batch=8",
        "16-tanh-0.0/32-tanh-0.0/lr=0.1/const/batch=8",
        "16-tanh-0.3/16-tanh-0.0/lr=0.1/const/batch=8",
        "16-tanh-0.0/16-tanh-0.3/lr=0.1/const/batch=8",
        "16-relu-0.0/16-tanh-0.0/lr=0.1/const/batch=8",
        "16-tanh-0.0/16-relu-0.0/lr=0.1/const/batch=8",
        "16-tanh-0.0/16-tanh-0.0/lr=0.1/cosine/batch=8",
        "16-tanh-0.0/16-tanh-0.0/lr=0.1/const/batch=16",
    ]
    assert len(space.neighbours(middle)) == 2 + 2 + 2 + 2 + 1 + 1 + 0 + 1 + 2
    rng = np.random.default_rng(0)
    assert {space.mutate(middle, rng) for _ in range(400)} == set(space.neighbours(middle))


@given(st.data(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_restrictions_are_closed(data: st.DataObject, seed: int) -> None:
    restrictions = {
        name: tuple(data.draw(st.sets(st.sampled_from(values), min_size=1))) for name, values in GENES.items()
    }
    moves = data.draw(st.sampled_from(["all", "step"]))
    space, rng = FCNet(restrictions, moves), np.random.default_rng(seed)
    assert space.size == prod(map(len, restrictions.values()))
    assert registry.space(space.name) == space
    a, b = space.sample(rng), space.sample(rng)
    children = [space.mutate(a, rng)] if space.size > 1 else []
    for c in (a, *children, space.crossover(a, b, rng), *space.neighbours(a)):
        space.check(c)
        SPACE.check(c)
        assert space.parse(space.text(c)) == c == SPACE.parse(space.text(c)) == space.at(space.index(c))
        values = [space.label(i, v) for i, v in enumerate(c.genes)]
        assert all(v in restrictions[name] for name, v in zip(space.gene_names, values, strict=True))
    for c in space.neighbours(a):
        assert a in space.neighbours(c)


def test_sampling_is_uniform() -> None:
    space = FCNet({"n_units_1": ["16"], "n_units_2": ["16", "512"], "init_lr": ["0.1"], "batch_size": ["8"]})
    rng = np.random.default_rng(0)
    counts = Counter(space.index(space.sample(rng)) for _ in range(space.size * 20))
    assert space.size == 2 * 3 * 3 * 2 * 2 * 2
    assert chisquare([counts[i] for i in range(space.size)]).pvalue > 1e-3


# --- names and notation ---------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    options = {"batch_size": ("64", "32"), "moves": ("step",), "n_units_1": ("16",), "dropout_1": ("0.6", "0.3", "0.0")}
    space = FCNet.from_options(options)
    assert space.name == "fcnet[n_units_1=16;batch_size=32,64;moves=step]"
    assert space == FCNet({"n_units_1": ["16"], "batch_size": ["32", "64"]}, moves="step") != SPACE
    assert FCNet.from_options({}) == SPACE == registry.space("fcnet")
    assert (space.family, SPACE.name) == ("fcnet", "fcnet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_units": ("16",)}, "fcnet: option 'n_units' is unknown; allowed: n_units_1, n_units_2"),
        ({"n_units_1": ("17",)}, "fcnet: n_units_1 holds '17'; allowed: 16, 32, 64, 128, 256, 512"),
        ({"lr_schedule": ("constant",)}, "fcnet: lr_schedule holds 'constant'; allowed: cosine, const"),
        ({"batch_size": ("8", "8")}, "fcnet: batch_size is '8,8'; allowed: one or more, each once, of 8, 16"),
        ({"moves": ("far",)}, "fcnet: moves is 'far'; allowed: all, step"),
    ],
)
def test_bad_options_are_named(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FCNet.from_options(options)


def test_notation() -> None:
    a = SPACE.parse(TEXT)
    assert a.genes == (2, 3, 1, 0, 1, 0, 1, 0, 2)
    assert SPACE.text(a) == TEXT
    assert len({SPACE.text(SPACE.at(i)) for i in range(0, 62_208, 11)}) == len(range(0, 62_208, 11))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("/batch=32", "", "has 4 parts; allowed: layer/layer/lr=RATE/SCHEDULE/batch=SIZE"),
        ("64-relu-0.3", "64-relu", "layer 1 is '64-relu'; allowed: UNITS-ACTIVATION-DROPOUT"),
        ("128-tanh-0.0", "128-tanh-0.0-1", "layer 2 is '128-tanh-0.0-1'; allowed: UNITS-ACTIVATION-DROPOUT"),
        ("lr=", "rate=", "part 'rate=0.001' of .*; allowed: lr=VALUE"),
        ("batch=32", "32", "part '32' of .*; allowed: batch=VALUE"),
        ("64-", "65-", "n_units_1 is '65'; allowed: 16, 32, 64, 128, 256, 512"),
        ("128-", "127-", "n_units_2 is '127'; allowed: 16, 32"),
        ("0.3", "0.30", "dropout_1 is '0.30'; allowed: 0.0, 0.3, 0.6"),
        ("0.0/", "0.1/", "dropout_2 is '0.1'; allowed: 0.0"),
        ("relu", "elu", "activation_fn_1 is 'elu'; allowed: tanh, relu"),
        ("tanh", "elu", "activation_fn_2 is 'elu'; allowed: tanh, relu"),
        ("lr=0.001", "lr=1e-3", "init_lr is '1e-3'; allowed: 0.0005, 0.001"),
        ("cosine", "constant", "lr_schedule is 'constant'; allowed: cosine, const"),
        ("=32", "=33", "batch_size is '33'; allowed: 8, 16, 32, 64"),
    ],
)
def test_malformed_texts_are_named(old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"fcnet: .*{message}|fcnet: {message}"):
        SPACE.parse(TEXT.replace(old, new))


def test_a_restriction_reads_its_own_values_only() -> None:
    with pytest.raises(ValueError, match="fcnet: batch_size is '32'; allowed: 8, 64"):
        FCNet({"batch_size": ["8", "64"]}).parse(TEXT)


# --- features and network -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("text", [TEXT, "16-tanh-0.6/512-relu-0.3/lr=0.1/const/batch=8"])
def test_formula_and_network_agree(text: str, task: Task) -> None:
    a = SPACE.parse(text)
    network, features = SPACE.build(a, task), SPACE.features(a, task)
    counted = super(FCNet, SPACE).features(a, task)
    assert features == counted | {"depth": 2.0}
    assert {p.device.type for p in network.parameters()} == {"meta"}
    assert network(torch.empty(2, *task.shape, device="meta")).shape == (2, task.classes or 1)


def test_params_of_a_regression() -> None:
    # Klein & Hutter's networks: d inputs, u1 and u2 units, one output.
    d, u1, u2 = 13, 64, 128
    params = SPACE.features(SPACE.parse(TEXT), TASKS[3])["params"]
    assert params == d * u1 + u1 + u1 * u2 + u2 + u2 + 1


def test_network_equals_a_second_implementation() -> None:
    task, a = TASKS[2], SPACE.parse("32-relu-0.3/16-tanh-0.6/lr=0.001/cosine/batch=32")
    network = materialise(SPACE.build(a, task), torch_generator(0, "init", a), dtype=torch.float64).eval()
    x = torch.randn(5, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w1, b1, w2, b2, w3, b3 = network.parameters()
    expected = torch.tanh((x @ w1.T + b1).clamp(min=0) @ w2.T + b2) @ w3.T + b3
    torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.6]
    graph = SPACE.graphs(a)["layers"]
    assert [n.name for n in graph.nodes] == ["input", "32 units", "dropout 0.3", "16 units", "dropout 0.6", "output"]
    assert (graph.depth, len(SPACE.encode(a, "path"))) == (2, 4)


def test_text_is_refused() -> None:
    for use in (SPACE.build, SPACE.features):
        with pytest.raises(ValueError, match="fcnet: inputs of task 'words' are text; allowed: images or tables"):
            use(SPACE.at(0), WORDS)


# --- training -------------------------------------------------------------------------------------------------


def test_hyper_parameters_of_every_value() -> None:
    seen: dict[str, set[object]] = {}
    for i in range(0, 62_208, 5):
        for key, value in SPACE.training(SPACE.at(i)).items():
            seen.setdefault(key, set()).add(value)
    assert seen == {
        "learning_rate": {5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1},
        "schedule": {"cosine", "constant"},
        "batch_size": {8, 16, 32, 64},
    }
    assert SPACE.training(SPACE.parse(TEXT)) == {"learning_rate": 0.001, "schedule": "cosine", "batch_size": 32}


DIGITS = load("digits")
VIEW = DataView(DIGITS.task, Split(DIGITS.train.x[:140], DIGITS.train.y[:140]), DIGITS.valid)


def setting(pipeline: Pipeline) -> Setting:
    return Setting(VIEW.task, "epochs", pipeline, lambda a: 0, data=VIEW)


@pytest.mark.parametrize(
    "text",
    ["16-tanh-0.0/32-relu-0.0/lr=0.01/const/batch=64", "16-tanh-0.0/32-relu-0.0/lr=0.005/cosine/batch=16"],
)
def test_the_trainer_takes_the_genes(text: str) -> None:
    """Against a loop written here, with the numbers that stand in the text."""
    a, epochs = SPACE.parse(text), 3
    _, _, rate, schedule, batch = text.split("/")
    start, size = float(rate[3:]), int(batch[6:])
    _, weights = ReferenceTrainer(SPACE, device="cpu").train(
        a, setting(PIPELINES["fcnet"]), seed=4, fidelity=Fidelity(epochs=epochs)
    )
    network = materialise(SPACE.build(a, VIEW.task), torch_generator(4, "init", a))
    order = generator(4, "data-order", a)
    x, y = torch.from_numpy(VIEW.train.x), torch.from_numpy(VIEW.train.y)
    optimizer = torch.optim.Adam(network.parameters())
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = start if schedule == "const" else start / 2 * (1 + cos(pi * epoch / 100))
        shuffled = order.permutation(140)
        for i in range(0, 140, size):
            index = torch.from_numpy(shuffled[i : i + size])
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[index]), y[index]).backward()
            optimizer.step()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5)


def test_dropout_acts_in_training_only_and_repeats() -> None:
    a = SPACE.parse("16-relu-0.6/16-relu-0.0/lr=0.001/const/batch=32")
    runs = [
        ReferenceTrainer(SPACE, device="cpu").train(a, setting(PIPELINES["fcnet"]), seed=1, fidelity=Fidelity(epochs=2))
        for _ in range(2)
    ]
    assert runs[0][0].train == runs[1][0].train
    network = SPACE.build(a, VIEW.task).to_empty(device="cpu")
    network.load_state_dict(dict(runs[0][1]))
    assert all(torch.equal(tensor, runs[1][1][name]) for name, tensor in network.state_dict().items())
    x = torch.from_numpy(VIEW.train.x)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(network(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


def test_a_pipeline_that_is_closed_refuses_the_genes() -> None:
    trainer, a = ReferenceTrainer(SPACE, device="cpu"), SPACE.parse(TEXT)
    message = "pipeline: 'adam' does not open 'batch_size' to the architecture"
    with pytest.raises(ValueError, match=message) as error:
        trainer.train(a, setting(PIPELINES["adam"]), seed=0, fidelity=FULL)
    assert "\n" not in str(error.value)
    partly = replace(PIPELINES["fcnet"], open=("batch_size", "schedule"))
    with pytest.raises(ValueError, match="'fcnet' does not open 'learning_rate'"):
        trainer.train(a, setting(partly), seed=0, fidelity=FULL)
    with pytest.raises(ValueError, match=message):
        trainer.cost(a, setting(PIPELINES["adam"]), FULL)


# Klein & Hutter 2019, section 3: Adam, 100 epochs; the genes are the rest.
def test_the_fcnet_pipeline() -> None:
    pipeline = PIPELINES["fcnet"]
    assert (pipeline.optimizer, pipeline.epochs, pipeline.batch_size) == ("adam", 100, 32)
    assert set(pipeline.open) == set(SPACE.training(SPACE.at(0)))
    assert len({p.digest for p in PIPELINES.values()}) == len(PIPELINES)


INGREDIENTS = {
    "restart": 1, "restart_factor": 2, "final_learning_rate": 0.1, "clip_norm": 0.5, "label_smoothing": 0.1,
    "dropout": 0.1, "drop_path": 0.1, "cutout": 2, "mixup": 1.0, "cutmix": 1.0, "policy": "auto_augment",
    "shake_shake": True,
}  # fmt: skip


@pytest.mark.parametrize("name", ["fcnet", "free"])
def test_digests_cover_the_closed_fields_only(name: str) -> None:
    pipeline = PIPELINES[name]
    changes = {
        "name": "other", "optimizer": "sgd", "learning_rate": 0.5, "epochs": 7, "batch_size": 5, "momentum": 0.5,
        "schedule": "constant" if pipeline.schedule == "cosine" else "cosine", "nesterov": True, "weight_decay": 0.1,
        "open": ("batch_size",), "version": 9, **INGREDIENTS,
    }  # fmt: skip
    assert set(changes) == {f.name for f in fields(Pipeline)}
    for field, value in changes.items():
        same = replace(pipeline, **{field: value}).digest == pipeline.digest
        assert same == (field in pipeline.open), field


def test_the_free_pipeline_opens_all_but_its_identity() -> None:
    closed = {"name", "open", "version", *INGREDIENTS}
    assert set(PIPELINES["free"].open) == {f.name for f in fields(Pipeline)} - closed


def test_training_on_numbers_lowers_the_squared_error() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((160, 6), dtype=np.float32)
    y = np.tanh(x[:, 0] - x[:, 1]).astype(np.float32)
    task = Task("numbers", "regression", "mse", False, (6,), None, "0")
    view = DataView(task, Split(x[:120], y[:120]), Split(x[120:], y[120:]))
    a = SPACE.parse("32-tanh-0.0/32-relu-0.0/lr=0.005/cosine/batch=16")
    curve, _ = ReferenceTrainer(SPACE, device="cpu").train(
        a,
        Setting(task, "epochs", PIPELINES["fcnet"], lambda b: 0, data=view),
        seed=0,
        fidelity=Fidelity(epochs=20),
    )
    assert curve.valid[-1] < 0.5 * float(y.var())
