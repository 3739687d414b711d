"""The pipeline as a gene: what is trained is the inner network, under the pipeline of the gene."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from nasbed.harness.checks import check_space
from nasbed.methods import registry
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.spaces.with_pipeline import WithPipeline
from nasbed.protocols import Architecture, Fidelity, IndexedSpace, SearchSpace, Setting, Task
from nasbed.protocols.training import PIPELINES, ReferenceTrainer, fit_from_seed, load, one_thread

TASK = Task("toy", "image", "accuracy", True, (3, 16, 16), 4, "0")
SMALL = "with_pipeline(mlp[hidden=2;widths=8;activations=relu,elu;dropout=no])"
FREE = PIPELINES["free"]


def space(name: str) -> WithPipeline:
    found = registry.space(name)
    assert isinstance(found, WithPipeline)
    return found


# --- members


def test_default_and_size() -> None:
    found = space("with_pipeline")
    assert (found.name, found.family) == ("with_pipeline(multi_branch)", "with_pipeline(multi_branch)")
    assert found.size == 2 * (registry.space("multi_branch").size or 0)
    assert space("with_pipeline[pipelines=sgd_cosine,adam]") == found
    assert space(SMALL).size == 2 * (2 + 4)
    nested = space("with_pipeline(stacked(nb201[ops=none,skip_connect])[channels=8])")
    assert nested.family == registry.family(nested.name) == "with_pipeline(stacked(nb201))"
    assert nested.size == 2 * 6 * 64


def test_genes_are_places_among_the_registered_pipelines() -> None:
    # Numbers in records and tables would change their meaning if these did.
    assert list(PIPELINES)[:2] == ["adam", "sgd_cosine"]
    found = space(SMALL)
    assert found.parse("adam | 8-relu").genes == (0, 3, 30)
    assert found.parse("sgd_cosine | 8-elu/8-relu").genes == (1, 4, 3, 30)
    assert [found.text(found.at(i)) for i in (0, 6)] == ["adam | 8-relu", "sgd_cosine | 8-relu"]


def test_sample_is_uniform() -> None:
    found = space(SMALL)
    rng = np.random.default_rng(0)
    counts = np.bincount([found.index(found.sample(rng)) for _ in range(1200)], minlength=12)
    assert chisquare(counts).pvalue > 1e-3


def test_mutations_change_one_part() -> None:
    """The pipeline counts as one gene beside the two layers and the end of the inner architecture."""
    found = space(SMALL)
    a = found.parse("adam | 8-relu/8-relu")
    rng = np.random.default_rng(1)
    children = Counter(found.mutate(a, rng) for _ in range(2000))
    assert set(children) <= set(found.neighbours(a))
    pipeline = children[found.parse("sgd_cosine | 8-relu/8-relu")]
    assert chisquare([pipeline, 2000 - pipeline], [500, 1500]).pvalue > 1e-3
    single = WithPipeline(registry.space("mlp[hidden=1;widths=8;activations=relu;dropout=no]"))
    [b, c] = single.at(0), single.at(1)
    assert all(single.mutate(b, rng) == c for _ in range(10))


def test_inner_levels_and_encodings_pass_through() -> None:
    found, inner = space("with_pipeline(nb201[ops=none,skip_connect])"), registry.space("nb201[ops=none,skip_connect]")
    assert (found.levels, found.encodings) == (inner.levels, inner.encodings)
    for i in range(0, 128, 5):
        a = found.at(i)
        own, cell = found.split(a)
        assert found.join(own, cell) == a
        for level in found.levels:
            assert found.split(found.canonical(a, level)) == (own, inner.canonical(cell, level))
        for encoding in found.encodings:
            expected = [float(i < 64), float(i >= 64), *inner.encode(cell, encoding)]
            assert found.encode(a, encoding).tolist() == expected
        assert found.features(a, TASK) == inner.features(cell, TASK)
    assert str(found.at(77)) in found.draw(found.at(77))
    assert "pipeline sgd_cosine" in found.draw(found.at(77))


class Unnumbered:
    """A space without end: its members have no numbers, and there is no size."""

    size = None

    def __init__(self) -> None:
        self._space = Synthetic(genes=3, values=2)

    def __getattr__(self, name: str) -> object:
        if name in ("index", "at") or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._space, name)


def test_spaces_without_numbers_give_spaces_without_numbers() -> None:
    inner = Unnumbered()
    assert isinstance(inner, SearchSpace)
    assert not isinstance(inner, IndexedSpace)
    found = WithPipeline(inner)
    assert found.size is None
    assert not isinstance(found, IndexedSpace)
    rng = np.random.default_rng(0)
    a = found.mutate(found.sample(rng), rng)
    assert found.parse(found.text(a)) == a
    assert list(found.graphs(a)) == ["pipeline"]
    assert isinstance(space(SMALL), IndexedSpace)


def test_configspace_keeps_the_conditions_of_the_inner_space() -> None:
    pytest.importorskip("ConfigSpace")
    found = space("with_pipeline(mlp[hidden=3])")
    inner = found.inner.to_configspace()
    configurations = found.to_configspace()
    assert set(configurations) == {*inner, "pipeline"}
    assert len(configurations.conditions) == len(inner.conditions) > 0
    lengths = Counter(len(found.from_configspace(dict(c)).genes) for c in configurations.sample_configuration(60))
    assert set(lengths) == {3, 4, 5}


@pytest.mark.parametrize("name", [SMALL, "with_pipeline(synthetic[genes=2;values=3])"])
def test_conforms(name: str) -> None:
    assert [(r.name, r.detail) for r in check_space(space(name)) if r.passed is False] == []


# --- training


def test_training_gives_the_fields_in_which_pipelines_differ() -> None:
    found = space(SMALL)
    adam, sgd = (found.training(found.parse(f"{p} | 8-relu")) for p in ("adam", "sgd_cosine"))
    differing = {"optimizer", "learning_rate", "epochs", "schedule", "momentum", "nesterov", "weight_decay"}
    assert set(adam) == set(sgd) == differing  # they share the batch size
    for name, overrides in (("adam", adam), ("sgd_cosine", sgd)):
        named = replace(FREE, **overrides, name=name, open=())
        assert named == PIPELINES[name]


@pytest.mark.parametrize("pipeline", ["adam", "sgd_cosine"])
def test_trains_bit_for_bit_as_the_inner_network_under_the_chosen_pipeline(pipeline: str) -> None:
    found = space(SMALL)
    a = found.parse(f"{pipeline} | 8-relu")
    view = load("digits")
    setting = Setting(view.task, "epochs", FREE, lambda _: 7, data=view)
    trainer = ReferenceTrainer(found, device="cpu")
    _, inner = found.split(a)
    chosen = PIPELINES[pipeline]
    with one_thread():
        curve, weights = trainer.train(a, setting, seed=7, fidelity=Fidelity())
        network, correct = fit_from_seed(
            found.inner.build(inner, view.task), a, 7, view.train, {"valid": view.valid}, chosen
        )
    assert curve.valid == tuple((correct["valid"] / len(view.valid)).tolist())
    assert len(curve.valid) == chosen.epochs
    assert curve.valid[-1] > 0.5
    assert {k: v.numpy().tobytes() for k, v in network.state_dict().items()} == {
        k: v.numpy().tobytes() for k, v in weights.items()
    }
    assert trainer.cost(a, setting, Fidelity())[0].amount == chosen.epochs


def test_a_pipeline_that_opens_nothing_is_refused() -> None:
    found = space(SMALL)
    view = load("digits")
    setting = Setting(view.task, "epochs", PIPELINES["adam"], lambda _: 7, data=view)
    with pytest.raises(ValueError, match="pipeline: 'adam' does not open 'epochs' to the architecture"):
        ReferenceTrainer(found, device="cpu").cost(found.at(0), setting, Fidelity())


def test_networks_are_those_of_the_inner_space() -> None:
    found = space(SMALL)
    for i in (0, 11):
        a = found.at(i)
        _, inner = found.split(a)
        one, two = (str(n) for n in (found.build(a, TASK), found.inner.build(inner, TASK)))
        assert one == two
        assert all(p.device == torch.device("meta") for p in found.build(a, TASK).parameters())


# --- errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("with_pipeline[pipelines=adam]", "pipelines is 'adam'; allowed: two or more, each once, of adam, sgd_cosine"),
        ("with_pipeline[pipelines=adam,adam]", "pipelines is 'adam,adam'; allowed: two or more, each once"),
        ("with_pipeline[pipelines=adam,free]", "pipelines holds 'free'; allowed: adam, sgd_cosine"),
        ("with_pipeline[pipelines=adam,lion]", "pipelines holds 'lion'; allowed: adam, sgd_cosine"),
        ("with_pipeline[epochs=3]", "with_pipeline: option 'epochs' is unknown; allowed: of, pipelines"),
        ("with_pipeline(mlp[hidden=0])", "hidden: 0 is not one of"),
        ("with_pipeline(fcnet)", "which differ in learning_rate, a gene of fcnet; allowed: pipelines that agree in it"),
        ("with_pipeline(with_pipeline)", r"which differ in epochs, a gene of with_pipeline\(multi_branch\)"),
    ],
)
def test_bad_options_are_named(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        registry.space(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8-relu", r"'8-relu' is not of the form PIPELINE \| ARCHITECTURE OF mlp"),
        ("lion | 8-relu", "pipeline of .* is 'lion'; allowed: adam, sgd_cosine"),
        ("fcnet | 8-relu", "pipeline of .* is 'fcnet'; allowed: adam, sgd_cosine"),
        ("adam sgd_cosine | 8-relu", "is not of the form"),
        ("adam | 9-relu", "layer 0 of '9-relu'"),
        ("adam | adam | 8-relu", r"layer 0 of 'adam \| 8-relu'"),
    ],
)
def test_malformed_text_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space("with_pipeline(mlp)").parse(text)


def test_strangers_are_refused() -> None:
    found = space(SMALL)
    for genes, message in (
        ((2, 3, 30), r"gene 0 \(pipeline\) of .* is 2; allowed: 0, 1"),
        ((), "has 0 genes; allowed: 1"),
        ((0,), "output layer"),
        ((0, 5, 30), "gene 0 of mlp"),
    ):
        for use in (found.check, found.index, found.encode, lambda a: found.build(a, TASK)):
            with pytest.raises(ValueError, match=message):
                use(Architecture(found.family, genes))
    with pytest.raises(ValueError, match="is of the space 'mlp'"):
        found.check(Architecture("mlp", (0, 3, 30)))
