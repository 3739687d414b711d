"""Ingredients at work in the reference trainer: on paths, classifiers and whole trainings; and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nasbed.methods import registry
from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import FULL, Architecture, DataView, Fidelity, Pipeline, Setting, Split
from nasbed.protocols.streams import generator, torch_generator
from nasbed.protocols.training import (
    PIPELINES,
    ReferenceTrainer,
    Streams,
    check_ingredients,
    fit,
    fit_from_seed,
    load,
    materialise,
    measure,
)
from nasbed.protocols.training.active import Active
from nasbed.protocols.training.ingredients import (
    augmented,
    classifier_of,
    mixes,
    paths_of,
)

DIGITS = load("digits")
VIEW = DataView(
    DIGITS.task,
    Split(DIGITS.train.x[:150], DIGITS.train.y[:150]),
    Split(DIGITS.valid.x[:100], DIGITS.valid.y[:100]),
)
SPACE = NB201(cells=1, channels=4)
A = SPACE.parse("|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|")
PLAIN = replace(PIPELINES["+cosine"], epochs=2)  # 150 examples: batches of 64, 64 and 22
EVERYTHING = replace(PLAIN, cutout=3, mixup=0.4, drop_path=0.3, dropout=0.2, label_smoothing=0.1)


def built(seed: int = 0, space: NB201 = SPACE, a: Architecture = A, dtype: torch.dtype = torch.float32) -> nn.Module:
    return materialise(space.build(a, VIEW.task), torch_generator(seed, "init", a), dtype=dtype)


def trained(pipeline: Pipeline, seed: int = 0, a: Architecture = A) -> tuple[nn.Module, dict[str, np.ndarray]]:
    return fit_from_seed(SPACE.build(a, VIEW.task), a, seed, VIEW.train, {"valid": VIEW.valid}, pipeline)


def weights(network: nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).numpy()


# --- ScheduledDropPath and dropout


def test_paths_are_convolutions_and_poolings_not_identities() -> None:
    network = built()
    edges = [m.edges for m in network.modules() if hasattr(m, "edges")]
    assert len(edges) == 3
    assert paths_of(network) == [cell[i] for cell in edges for i in (0, 1, 2, 5)]
    assert (
        paths_of(SPACE.build(SPACE.parse("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"), VIEW.task)) == []
    )


@pytest.mark.parametrize("name", ["darts[nodes=2;cells=3;channels=4]", "nasnet[blocks=2;cells=2]",
                                  "enas_micro[nodes=2;cells=2;channels=6]", "opidx[nodes=2;cells=2]"])  # fmt: skip
def test_cells_of_two_operations_per_node_name_their_paths(name: str) -> None:
    space = registry.space(name)
    for k in range(2):
        network = space.build(space.sample(generator(k, "paths")), VIEW.task)
        made = [op for m in network.modules() if type(m).__name__ in ("Node", "TwoInputCell")
                for op in ((m.first, m.second) if hasattr(m, "first") else m.operations)]  # fmt: skip
        assert len(made) == 4 * space.cells
        assert paths_of(network) == [op for op in made if type(op).__name__ not in ("Identity", "Zero")]


def at_work(network: nn.Module, pipeline: Pipeline, epoch: int, x: torch.Tensor) -> Active:
    """The ingredients at the first batch of an epoch, hooks in place for good."""
    found = Active(network, pipeline, Streams(0, A), VIEW.train.x.shape)
    found.hooks()
    found.epoch(epoch, x)
    found.batch(0, x)
    return found


def test_dropped_paths_by_hand() -> None:
    """The forward pass of a network of one cell, with every path's mask multiplied in by hand."""
    p = replace(PLAIN, drop_path=0.6)
    network = built(dtype=torch.float64).train()
    x = torch.from_numpy(VIEW.train.x[:64]).double()
    stem, first, *rest = network
    (cell,) = first
    drawn = Streams(0, A).epoch(p, 150, (1, 8, 8), 12, 0).paths
    masks = torch.from_numpy(drawn[:, :64] >= 0.3).double()[..., None, None, None] / 0.7
    e = cell.edges
    node0 = stem(x)
    node1 = e[0](node0) * masks[0]
    node2 = e[1](node0) * masks[1] + e[2](node1) * masks[2]
    expected = node0 + e[5](node2) * masks[3]
    at_work(network, p, 1, x)
    torch.testing.assert_close(cell(stem(x)), expected, rtol=1e-12, atol=1e-12)
    assert len(rest) == 6


def test_every_batch_has_its_own_part_of_the_numbers_of_the_epoch() -> None:
    """In the order of presentation: batch k of 64 takes examples 64 k to 64 k + 63."""
    p = replace(PLAIN, cutout=3, mixup=0.4, drop_path=0.6, dropout=0.2)
    network, x = built(), torch.from_numpy(VIEW.train.x)
    network.train()
    seen: list[torch.Tensor] = []
    path, layer = paths_of(network)[0], classifier_of(network)
    working = at_work(network, p, 1, x)
    path.register_forward_hook(lambda m, inputs, output: seen.append(output.detach().flatten(1).abs().sum(1)))
    layer.register_forward_hook(lambda m, inputs, output: seen.append(inputs[0].detach()))
    drawn = Streams(0, A).epoch(p, 150, (1, 8, 8), 12, 16)
    assert drawn.mix is not None
    for k, part in enumerate((slice(0, 64), slice(64, 128), slice(128, 150))):
        shown = x[drawn.order[part]]
        found = working.batch(k, shown)
        expected = augmented(shown, p, cutout=drawn.cutout[part], mix=drawn.mix[k], box=None)
        assert torch.equal(found, expected)
        seen.clear()
        network(found)
        assert ((seen[0] == 0).numpy() == (drawn.paths[0, part] < 0.3)).all()
        assert (seen[1][torch.from_numpy(drawn.units[part] < 0.2)] == 0).all()


def test_a_path_keeps_its_expectation_and_drops_whole_images() -> None:
    p = replace(PLAIN, drop_path=0.5)  # a quarter in the second of two epochs
    streams, path = Streams(0, A), nn.AvgPool2d(1)
    cell = nn.Sequential(path)
    cell.paths = (path,)
    x = torch.ones(4000, 2, 3, 3)
    working = Active(cell, p, streams, x.shape)
    working.hooks()
    cell.train()
    for epoch, share in ((0, 0.0), (1, 0.25)):
        working.epoch(epoch, x)
        working.batch(0, x)
        ratio = cell(x)
        assert (ratio.flatten(1) == ratio[:, 0, 0, 0, None]).all()  # whole images
        kept = ratio[:, 0, 0, 0]
        assert set(kept.unique().tolist()) <= {0.0, torch.tensor(1 / (1 - share)).item()}
        assert (kept == 0).double().mean() == pytest.approx(share, abs=0.02)
        assert kept.mean() == pytest.approx(1, abs=0.03)
    assert torch.equal(cell.eval()(x), x)


def test_dropout_is_of_inputs_of_the_classifier() -> None:
    p = replace(PLAIN, dropout=0.25)
    network = built().train()
    seen: list[torch.Tensor] = []
    x = torch.from_numpy(VIEW.train.x[:64])
    layer = classifier_of(network)
    assert layer is network[-1]
    layer.register_forward_hook(lambda m, inputs, output: seen.append(inputs[0].detach()))
    network(x)
    at_work(network, p, 0, x)
    network(x)
    drawn = Streams(0, A).epoch(p, 150, (1, 8, 8), 0, 16).units[:64]
    torch.testing.assert_close(seen[1], seen[0] * torch.from_numpy(drawn >= 0.25) / 0.75)
    network.eval()(x)
    kept = seen[2]
    network(x)
    assert torch.equal(seen[3], kept)


def test_of_a_sequence_every_step_loses_the_same_inputs_of_the_classifier() -> None:
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 7)).train()
    x = torch.zeros(150, 5, dtype=torch.int64)
    seen: list[torch.Tensor] = []
    model[1].register_forward_hook(lambda m, inputs, output: seen.append(inputs[0].detach()))
    at_work(model, replace(PLAIN, dropout=0.5, batch_size=150), 0, x)
    model(x)
    zero = seen[0] == 0
    assert zero.shape == (150, 5, 6)
    assert (zero == zero[:, :1]).all()
    assert 0.4 < zero.double().mean() < 0.6


@pytest.mark.parametrize(
    "name",
    ["chain[layers=2]", "darts[nodes=2;cells=2]", "enas_macro[layers=2]", "enas_micro[nodes=2;cells=1]",
     "fabric[layers=2;scales=2]", "fcnet", "genetic_cnn[nodes=3]", "hierarchical[motifs=2,1;nodes=3,3;cells=1]",
     "macro[stages=2,2]", "mlp", "multi_branch[layers=3]", "nasnet[blocks=1;cells=2]", "nb201[cells=1]",
     "opidx[nodes=2;cells=1]", "size", "stacked(nb201)[cells=1;stages=1]"],
)  # fmt: skip
def test_the_last_linear_layer_is_the_classifier(name: str) -> None:
    space = registry.space(name)
    network = space.build(space.sample(generator(0, "classifier")), VIEW.task)
    layer, outputs = classifier_of(network), []
    layer.register_forward_hook(lambda m, inputs, output: outputs.append(output))
    found = network.eval()(torch.empty(2, *VIEW.task.shape, device="meta"))
    assert layer.out_features == VIEW.task.classes
    assert len(outputs) == 1
    assert outputs[0].shape == found.shape == (2, 10)


# --- refusals


class Bare(nn.Module):
    """No cell names its paths, and there is no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


VECTORS = Split(np.zeros((8, 4), np.float32), np.zeros(8, np.int64))
NUMBERS = Split(np.zeros((8, 1, 8, 8), np.float32), np.zeros(8, np.float32))
FIVE = Split(np.zeros((8, 5, 8, 8), np.float32), np.zeros(8, np.int64))


@pytest.mark.parametrize(
    ("change", "network", "train", "message"),
    [
        ({"cutout": 4}, nn.Linear(4, 2), VECTORS, r"cutout: 4 needs images; inputs have the shape \(4,\)"),
        ({"mixup": 0.2}, nn.Linear(4, 2), VECTORS, "mixup: 0.2 needs images"),
        ({"cutmix": 0.2}, nn.Linear(4, 2), VECTORS, "cutmix: 0.2 needs images"),
        ({"policy": "auto_augment"}, nn.Linear(4, 2), VECTORS, "policy: 'auto_augment' needs images"),
        ({"policy": "trivial_augment"}, Bare(), FIVE, "policy: 'trivial_augment' needs 1 or 3 channels; there are 5"),
        ({"mixup": 0.2}, Bare(), NUMBERS, "mixup: 0.2 needs classes"),
        ({"label_smoothing": 0.1}, Bare(), NUMBERS, "label_smoothing: 0.1 needs classes; targets are numbers"),
        ({"drop_path": 0.2}, Bare(), VIEW.train, "drop_path: no module of this network names its paths"),
        ({"dropout": 0.2}, Bare(), VIEW.train, "dropout: this network has no linear layer"),
        ({"shake_shake": True}, Bare(), VIEW.train, "shake_shake: no module of this network names its branches"),
        ({"mixup": 0.2, "cutmix": 0.2}, Bare(), VIEW.train, "cutmix: 0.2 of .* 0 with mixup > 0"),
    ],
)
def test_what_cannot_act_is_refused_before_training(
    change: dict[str, object], network: nn.Module, train: Split, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"^pipeline\.{message}") as error:
        fit(network, train, {}, replace(PLAIN, **change), streams=Streams(0, A))
    assert "\n" not in str(error.value)


def test_what_can_act_is_not_refused() -> None:
    everything = replace(EVERYTHING, policy="auto_augment", shake_shake=True)
    check_ingredients(everything, SPACE.build(SPACE.at(0), VIEW.task), VIEW.train)
    check_ingredients(PLAIN, Bare(), NUMBERS)
    words = Split(np.zeros((4, 5), np.int64), np.zeros((4, 5), np.int64))
    check_ingredients(replace(PLAIN, label_smoothing=0.1, dropout=0.1), nn.Linear(4, 2), words)


# --- training


CHANGES: list[dict[str, object]] = [
    {"label_smoothing": 0.1}, {"dropout": 0.3}, {"drop_path": 0.3}, {"cutout": 3}, {"mixup": 0.4}, {"cutmix": 1.0},
    {"policy": "trivial_augment"}, {"policy": "auto_augment"}, {"shake_shake": True}, {"restart": 1},
    {"final_learning_rate": 0.05},
]  # fmt: skip


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return weights(trained(PLAIN)[0])


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_ingredient_changes_training_and_nothing_else(change: dict[str, object], plain: np.ndarray) -> None:
    p = replace(PLAIN, **change)
    network, totals = trained(p)
    assert not np.array_equal(weights(network), plain)
    assert np.isfinite(weights(network)).all()
    assert ("train" in totals) == (not mixes(p))
    # Evaluation saw the network without hooks, which are gone.
    assert measure(network, VIEW.valid, pipeline=p) == totals["valid"][-1] / 100
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_training_with_everything_is_reproducible_and_learns() -> None:
    p = replace(EVERYTHING, policy="trivial_augment", shake_shake=True, epochs=2)
    state = torch.get_rng_state()
    one, totals = trained(p)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    other, _ = trained(p)
    torch.set_rng_state(state)
    assert np.array_equal(weights(one), weights(other))
    assert list(totals) == ["valid"]
    _, found = trained(replace(PIPELINES["+all"], epochs=8))
    assert found["valid"][-1] > 25  # of 100, of ten classes, after 24 steps


def test_smoothing_and_dropping_leave_the_metric_of_training_alone() -> None:
    """Accuracies count correct predictions, also where the loss that is lowered is another."""
    p = replace(PLAIN, label_smoothing=0.9, learning_rate=1e-30)
    _, totals = trained(p)
    _, expected = trained(replace(p, label_smoothing=0.0))
    assert totals["train"].tolist() == expected["train"].tolist()
    assert totals["train"].dtype == np.int64


def test_perplexity_is_that_of_the_words_under_label_smoothing_too() -> None:
    from nasbed.protocols.training.objectives import TEXT

    words = np.random.default_rng(0).integers(7, size=(40, 5))
    results = []
    for share in (0.0, 0.5):
        model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 7))
        materialise(model, torch_generator(0, "init"))
        p = replace(PLAIN, label_smoothing=share, learning_rate=1e-30)
        results.append(fit(model, Split(words, words), {}, p, streams=Streams(0, A), objective=TEXT)["train"])
    assert results[0].tolist() == results[1].tolist()


def test_recorded_epochs_are_those_of_the_whole_curve() -> None:
    p = replace(PLAIN, epochs=4)
    arguments = (SPACE.build(A, VIEW.task), A, 0, VIEW.train, {"valid": VIEW.valid, "again": VIEW.valid}, p)
    _, whole = fit_from_seed(*arguments)
    _, some = fit_from_seed(*(SPACE.build(A, VIEW.task), *arguments[1:]), recorded=(1, 3, 4))
    for name in ("train", "valid", "again"):
        assert some[name].tolist() == whole[name][[0, 2, 3]].tolist()
    for wrong in ((0, 1), (1, 5), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match=r"recorded: .* are not ascending epochs of 1 to 4, each once"):
            fit_from_seed(*(SPACE.build(A, VIEW.task), *arguments[1:]), recorded=wrong)


def test_the_trainer_has_no_training_curve_after_mixing_and_can_stop_early() -> None:
    """A prefix of a training with ingredients is the training cut short."""
    setting = Setting(VIEW.task, "epochs", EVERYTHING, lambda a: 0, VIEW)
    trainer = ReferenceTrainer(SPACE, device="cpu")
    long, _ = trainer.train(A, setting, seed=0, fidelity=FULL)
    short, _ = trainer.train(A, setting, seed=0, fidelity=Fidelity(epochs=1))
    assert (long.train, len(long.valid)) == ((), 2)
    assert short.valid == long.valid[:1]
    assert short.flops * 2 == long.flops
