"""The self-reinforcement protocol on small supernets: what each arm trains, what is charged, what is kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from nasbed.harness import one_shot
from nasbed.harness.evidence import truth
from nasbed.harness.one_shot_policy import Policy, qualities
from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.nb201 import NB201
from nasbed.methods.spaces.rnn import RNN
from nasbed.protocols import (
    Architecture,
    Cost,
    DataView,
    Observation,
    Proposal,
    SearchSpace,
    Setting,
    Split,
    Task,
    Traits,
)
from nasbed.protocols.training import PIPELINES, load
from nasbed.reports.audit.reinforcement import Replicate, reinforcement
from nasbed.tabular import open_table, write_table

HERE = f"{__name__}:"
CELLS = NB201(ops=("none", "nor_conv_1x1"), channels=2, cells=(1, 0, 0))
LONGER = MLP(hidden=3, widths=(8,), activations=("relu", "tanh"), dropout=False)
PERCEPTRONS = MLP(hidden=2, widths=(8, 16), activations=("relu", "tanh"), dropout=False)
RECURRENT = RNN(nodes=2, units=4)
TEXT = Task("text:toy", "text", "perplexity", False, (5,), 9, "0" * 64)


@pytest.fixture(scope="module")
def view() -> DataView:
    whole = load("digits")
    return DataView(whole.task, *(Split(s.x[:n], s.y[:n]) for s, n in ((whole.train, 256), (whole.valid, 96))))


@pytest.fixture(autouse=True)
def _small_data(view: DataView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_shot, "needed_data", lambda table, root: view)


def table(folder: Path, view: DataView, space: Any, *, missing: int | None = None) -> Any:
    """A table of random accuracies on the space; without trainings of one architecture if that is wished."""
    counts = np.random.default_rng(0).integers(0, 97, (space.size, 2, 1)).astype(np.uint16)
    if missing is not None:
        counts[missing] = 65535
    pipeline = replace(PIPELINES["adam"], epochs=1, batch_size=32, learning_rate=0.01)
    arrays = {"valid.base": counts, "test.base": counts, "cost.base": np.ones(space.size)}
    task = {**{f: getattr(view.task, f) for f in view.task.__slots__}, "shape": list(view.task.shape)}
    fields: dict[str, Any] = {"name": "toy", "clock": "flops", "examples": {"valid": 96, "test": 96}, "task": task}
    made = open_table(write_table(folder / "table", space, arrays, fields))
    made.pipelines = {"base": pipeline}
    return made


def text_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A table of random perplexities of recurrent cells, and texts that count upwards to train on."""
    tokens = (np.arange(5) + np.arange(96)[:, None]) % 9
    data = DataView(TEXT, Split(tokens[:64], tokens[1:65]), Split(tokens[64:-1], tokens[65:]))
    monkeypatch.setattr(one_shot, "needed_data", lambda table, root: data)
    perplexities = np.random.default_rng(0).uniform(2, 8, (RECURRENT.size, 2, 1)).astype(np.float32)
    arrays = {"valid.base": perplexities, "test.base": perplexities, "cost.base": np.ones(RECURRENT.size)}
    made = open_table(write_table(folder / "text", RECURRENT, arrays, {"name": "toy", "clock": "flops", "task": TEXT}))
    made.pipelines = {"base": replace(PIPELINES["text"], epochs=1, batch_size=4)}
    return made


class Linear:
    """A supernet that is a sum: the score of an architecture is what its genes were trained, plus a constant."""

    traits = Traits(accuracy_scale=True, deterministic=False, needs_data=True)
    seen: ClassVar[list[tuple[int, list[Architecture]]]] = []

    def __init__(self, epochs: int = 1, steps: int = 40, fail: bool = False) -> None:
        self._steps, self._fail = epochs * steps, fail

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        assert setting.data is not None
        self.supernet: Counter[tuple[int, int]] = Counter()
        self.examples = len(setting.data.valid)
        paths = []
        for step in range(self._steps):
            if self._fail and len(Linear.seen) == 2:
                raise KeyboardInterrupt
            paths.append(space.sample(np.random.default_rng([seed, step])))
            self.supernet.update(enumerate(paths[-1].genes))
        if self._steps:
            Linear.seen.append((seed, paths))
        return [Cost("supernet", 10.0 * self._steps)]

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        return [
            Observation(
                p, sum(self.supernet[k] for k in enumerate(p.architecture.genes)) / 1e4, (Cost("evaluate", 1.0),)
            )
            for p in proposals
        ]


class Perplexed(Linear):
    """The same, as minus the perplexity: what is trained often has a low one."""

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        return [replace(o, score=-np.exp(1 - o.score)) for o in super().estimate(proposals)]


class Stubborn(Linear):
    """Trains what it likes."""

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        self.supernet = Counter()
        return [Cost("supernet", 1.0)]


@pytest.fixture
def cells(tmp_path: Path, view: DataView) -> Any:
    return table(tmp_path, view, CELLS)


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    Linear.seen.clear()


def carry_out(made: Any, folder: Path, **options: Any) -> Path:
    given = {"seeds": [0], "epochs": 1, "estimator": HERE + "Linear", "evaluated": 30, "drawn": 20}
    return one_shot.reinforcement(made, folder=folder, **{**given, **options})


def arms(folder: Path, made: Any) -> list[dict[str, Any]]:
    return one_shot.read(folder, truth(made, "base"))


def test_what_the_three_supernets_train(cells: Any, tmp_path: Path) -> None:
    carry_out(cells, tmp_path / "out", epochs=3)
    (first, optimised), (second, shuffled), (third, uniform) = Linear.seen
    assert first == second == third  # the same initial weights and batches
    assert len(optimised) == len(shuffled) == len(uniform) == 120
    assert sorted(Counter(optimised).values()) == sorted(Counter(shuffled).values())
    images = {a: {c for b, c in zip(optimised, shuffled, strict=True) if b == a} for a in optimised}
    assert all(len(image) == 1 for image in images.values())
    assert optimised != shuffled
    assert uniform == [CELLS.sample(np.random.default_rng([first, s])) for s in range(120)]
    [found] = arms(tmp_path / "out", cells)
    members = [CELLS.at(int(i)) for i in found["members"]]
    for row, paths in enumerate((uniform, optimised, shuffled)):
        assert found["exposure"][row].tolist() == [paths.count(a) for a in members]
        genes = Counter((i, g) for a in paths for i, g in enumerate(a.genes))
        sharing = [np.mean([genes[k] for k in enumerate(a.genes)]) for a in members]
        assert found["sharing"][row] == pytest.approx(sharing)
        assert found["e"][row] == pytest.approx(np.array(sharing) * 6 / 1e4)
    early = Counter((i, g) for a in optimised[:12] for i, g in enumerate(a.genes))
    assert found["early"] == pytest.approx([np.mean([early[k] for k in enumerate(a.genes)]) for a in members])
    assert (found["uniform"].sum(), found["policy"].sum()) == (30, 20)


def test_a_policy_that_feeds_on_itself_narrows(cells: Any, tmp_path: Path) -> None:
    carry_out(cells, tmp_path / "out", epochs=15, seeds=[0, 1, 2])
    found = reinforcement(
        [Replicate(**r) for r in arms(tmp_path / "out", cells)], rng=np.random.default_rng(0), resamples=200
    )
    assert found.entropy[0] == pytest.approx(1)
    assert found.entropy[-1] < 0.5  # scores here are nothing but training
    assert found.beyond_uniform.low > 0
    assert found.arms["uniform"].optimism.high < found.arms["optimised"].optimism.low


def test_shuffled_genes_keep_how_often_parts_are_trained(cells: Any, tmp_path: Path) -> None:
    carry_out(cells, tmp_path / "out", epochs=3, shuffle="genes")
    (_, optimised), (_, shuffled), _ = Linear.seen
    for i in range(6):
        counts = [sorted(Counter(a.genes[i] for a in paths).values()) for paths in (optimised, shuffled)]
        assert counts[0] == counts[1]
    assert optimised != shuffled


def test_costs_are_charged(cells: Any, tmp_path: Path) -> None:
    carry_out(cells, tmp_path / "out")
    said = json.loads((tmp_path / "out" / "one_shot.json").read_text())
    with np.load(tmp_path / "out" / "one_shot.npz") as file:
        m = len(file["0.members"])
    costs = said["replicates"][0]["costs"]
    steps = (40 - 1) // one_shot.EVERY  # of the policy: after 8, 16, 24 and 32 trained architectures
    assert costs["optimised"] == {"supernet": 400, "policy": steps * one_shot.EVERY, "evaluate": m}
    assert costs["shuffled"] == costs["uniform"] == {"supernet": 400, "evaluate": m}
    assert said["cost"] == 1200 + steps * one_shot.EVERY + 3 * m
    assert said["replicates"][0]["steps"] == 40


def test_an_interrupted_audit_goes_on(cells: Any, tmp_path: Path) -> None:
    options = {"params": {"fail": True}, "seeds": [4, 5]}
    with pytest.raises(KeyboardInterrupt):
        carry_out(cells, tmp_path / "a", **options)
    assert sorted(p.name for p in (tmp_path / "a" / "parts").glob("*.npz")) == ["4-optimised.npz", "4-shuffled.npz"]
    with pytest.raises(ValueError, match="holds the beginning of another audit"):
        carry_out(cells, tmp_path / "a", seeds=[4])
    Linear.seen.append((0, []))  # past the interruption
    told: list[tuple[float, float]] = []
    carry_out(cells, tmp_path / "a", progress=lambda done, total: told.append((done, total)), **options)
    assert len(Linear.seen) == 3 + 4
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)
    assert told == sorted(told)
    carry_out(cells, tmp_path / "b", **options)
    for left, right in zip(arms(tmp_path / "a", cells), arms(tmp_path / "b", cells), strict=True):
        assert all(np.array_equal(left[k], right[k]) for k in left)
    assert not (tmp_path / "a" / "parts").exists()
    with pytest.raises(ValueError, match="holds a finished audit"):
        carry_out(cells, tmp_path / "a", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [1, 1]}, "seeds: one or more, each once"),
        ({"pipeline": "bas"}, "did you mean 'base'"),
        ({"shuffle": "gene"}, "did you mean 'genes'"),
        ({"estimator": HERE + "Stubborn"}, "draws no architectures by space.sample"),
    ],
)
def test_what_does_not_fit_is_refused(cells: Any, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        carry_out(cells, tmp_path / "out", **options)


def test_other_tables_are_refused(cells: Any, tmp_path: Path, view: DataView) -> None:
    cells.coverage = "sample"
    with pytest.raises(ValueError, match="needs the whole space"):
        carry_out(cells, tmp_path / "out")
    cells.coverage = "complete"
    carry_out(cells, tmp_path / "out")
    with pytest.raises(ValueError, match=r"evidence: .* is of the table 'toy', pipeline 'base', not of 'other'"):
        one_shot.read(tmp_path / "out", replace(truth(cells, "base"), table="other", digest="0"))
    with pytest.raises(ValueError, match="no fixed choices"):
        carry_out(table(tmp_path / "mlp", view, PERCEPTRONS), tmp_path / "new", shuffle="genes")


def test_qualities_are_joined_by_architecture(tmp_path: Path, view: DataView) -> None:
    made = table(tmp_path, view, CELLS, missing=5)
    carry_out(made, tmp_path / "out", evaluated=64)
    found, told = arms(tmp_path / "out", made)[0], truth(made, "base")
    assert sorted({*range(64)} - {*found["members"].tolist()}) == [5]
    names = [CELLS.text(CELLS.at(int(i))) for i in found["members"]]
    expected = [told.values[told.architectures.index(n)].mean() for n in names]
    assert found["f"] == pytest.approx(expected)
    Replicate(**found)


def test_real_supernets_of_cells(cells: Any, tmp_path: Path) -> None:
    folder = carry_out(cells, tmp_path / "out", estimator="one_shot_enas", evaluated=4, drawn=3, epochs=2)
    again = carry_out(cells, tmp_path / "again", estimator="one_shot_enas", evaluated=4, drawn=3, epochs=2)
    [found], [same] = arms(folder, cells), arms(again, cells)
    assert all(np.array_equal(found[k], same[k]) for k in found)
    assert found["exposure"].sum() <= 3 * 16
    assert ((found["e"] >= 0) & (found["e"] <= 1)).all()
    assert len({*map(bytes, found["e"])}) > 1
    said = json.loads((folder / "one_shot.json").read_text())
    assert said["replicates"][0]["steps"] == 2 * 256 // 32
    assert all(v > 0 for arm in said["replicates"][0]["costs"].values() for v in arm.values())


def test_real_supernets_of_perceptrons(tmp_path: Path, view: DataView) -> None:
    made = table(tmp_path, view, PERCEPTRONS)
    carry_out(made, tmp_path / "out", estimator="one_shot_uniform", evaluated=20, drawn=4)
    [found] = arms(tmp_path / "out", made)
    assert found["uniform"].sum() == 20
    assert found["probability"].sum() == pytest.approx(1)
    Replicate(**found)


@pytest.mark.parametrize("space", [CELLS, LONGER], ids=["cells", "perceptrons"])
def test_the_policy_follows_the_gradient_of_the_expected_reward(space: Any) -> None:
    """By finite differences of log p, at a policy that is not uniform; a long architecture against a short one."""
    policy = Policy(space)
    members = [space.at(i) for i in range(space.size)]
    policy.learn(members, np.random.default_rng(0).normal(size=space.size).tolist())
    assert sum(np.exp(policy.log_probability(a)) for a in members) == pytest.approx(1)
    better, worse = members[1], members[-1]
    keys = {(i, v) for a in (better, worse) for i in range(len(a.genes)) for v in space.options(a.genes[:i])}
    gradient = {}
    for key in keys:
        kept, logs = policy._logits.get(key, 0.0), []
        for step in (1e-6, -1e-6):
            policy._logits[key] = kept + step
            logs.append(policy.log_probability(better) - policy.log_probability(worse))
        gradient[key] = (logs[0] - logs[1]) / 2e-6
        policy._logits[key] = kept
    logits, before = dict(policy._logits), policy.log_probability(better)
    policy.learn([better, worse], [1.0, 0.0])  # advantages of +1 and -1, in a batch of 2
    for key, slope in gradient.items():
        assert policy._logits[key] - logits[key] == pytest.approx(0.5 * slope / 2, abs=1e-6)
    assert policy.log_probability(better) > before


def test_the_policy_does_without_rewards() -> None:
    policy = Policy(CELLS)
    for rewards in ([np.nan, np.nan], [0.3, 0.3]):
        policy.learn([CELLS.at(0), CELLS.at(1)], rewards)
        assert policy.entropy(np.random.default_rng(0)) == pytest.approx(1)
    policy.learn([CELLS.at(0), CELLS.at(1), CELLS.at(1)], [np.nan, 0.1, 0.5])
    assert policy.log_probability(CELLS.at(1)) > policy.log_probability(CELLS.at(0))


def test_draws_follow_the_probabilities() -> None:
    policy, rng = Policy(PERCEPTRONS), np.random.default_rng(1)
    members = [PERCEPTRONS.at(i) for i in range(PERCEPTRONS.size)]
    for _ in range(4):
        policy.learn(members, rng.normal(size=len(members)).tolist())
    drawn = Counter(policy.sample(rng) for _ in range(3000))
    p = np.exp([policy.log_probability(a) for a in members])
    deviation = (np.array([drawn[a] for a in members]) - 3000 * p) / np.sqrt(3000 * p * (1 - p))
    assert np.abs(deviation).max() < 4.5
    exact = -(p * np.log(p)).sum() / np.log(len(p))
    assert np.mean([policy.entropy(rng) for _ in range(10)]) == pytest.approx(exact, abs=0.03)


def test_perplexities_are_compared_by_their_logarithm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, told = text_table(tmp_path, monkeypatch), []
    learn = Policy.learn
    monkeypatch.setattr(Policy, "learn", lambda self, asked, r: (told.append((asked, r)), learn(self, asked, r))[1])
    folder = carry_out(made, tmp_path / "out", estimator=HERE + "Perplexed", epochs=2)
    [found], known = arms(folder, made), truth(made, "base")
    members = [RECURRENT.at(int(i)) for i in found["members"]]
    row = [known.architectures.index(RECURRENT.text(a)) for a in members]
    assert found["f"] == pytest.approx(-np.log(known.values[row].astype(np.float64)).mean(1))
    for arm, (_, paths) in zip((1, 2, 0), Linear.seen, strict=True):
        trained = Counter((i, g) for a in paths for i, g in enumerate(a.genes))
        linear = [sum(trained[k] for k in enumerate(a.genes)) / 1e4 for a in members]
        assert found["e"][arm] == pytest.approx(np.array(linear) - 1)
    assert len(told) == (80 - 1) // one_shot.EVERY
    trained = Counter((i, g) for a in Linear.seen[0][1][: one_shot.EVERY] for i, g in enumerate(a.genes))
    asked, rewards = told[0]  # after as many trained architectures
    expected = [sum(trained[k] for k in enumerate(a.genes)) / 1e4 - 1 for a in asked]
    assert rewards == pytest.approx(expected)


def test_scores_of_other_metrics_are_as_they_are() -> None:
    proposal = Proposal(CELLS.at(0))
    scores = [Observation(proposal, 0.4), Observation(proposal, np.nan, status="crashed", reason="why")]
    accuracy, error = replace(TEXT, metric="accuracy", higher_is_better=True), replace(TEXT, metric="mse")
    assert qualities(scores, accuracy) == pytest.approx([0.4, np.nan], nan_ok=True)
    assert qualities([replace(scores[0], score=-0.3)], error) == pytest.approx([-0.3])
    assert qualities([replace(scores[0], score=-8.0), scores[1]], TEXT) == pytest.approx(
        [-np.log(8), np.nan], nan_ok=True
    )


def test_real_supernets_of_recurrent_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = text_table(tmp_path, monkeypatch)
    folder = carry_out(made, tmp_path / "out", estimator="one_shot_enas", evaluated=12, drawn=4, epochs=2)
    [found] = arms(folder, made)
    assert found["e"].shape == (3, len(found["members"]))
    assert np.median(found["e"]) > -np.log(9)  # minus the loss, and less of it than by guessing
    assert len({*map(bytes, found["e"])}) == 3
    said = json.loads((folder / "one_shot.json").read_text())
    assert said["replicates"][0]["steps"] == 2 * 64 // 4
    assert all(v > 0 for arm in said["replicates"][0]["costs"].values() for v in arm.values())
    Replicate(**found)
