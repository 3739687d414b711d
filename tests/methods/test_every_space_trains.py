"""Every space trains: better than the best prediction that looks at no input."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nasbed.harness.cli import main
from nasbed.methods import registry
from nasbed.protocols.streams import generator
from nasbed.protocols.training import PIPELINES, constant_prediction, fit_from_seed, load, objective_of, one_thread

# Of the smallest size that shows it; the defaults are for tests marked slow.
SMALL = {
    "chain": "chain[layers=2]",
    "darts": "darts[nodes=2;cells=3;channels=4]",
    "enas_macro": "enas_macro[layers=4]",
    "enas_micro": "enas_micro[nodes=2;cells=2;channels=6]",
    "fabric": "fabric[channels=8]",
    "fcnet": "fcnet[init_lr=0.001,0.005;batch_size=32,64]",
    "genetic_cnn": "genetic_cnn[nodes=3,3]",
    "hierarchical": "hierarchical[motifs=2,1;nodes=3,3]",
    "macro": "macro[stages=2,2;channels=8;head=64]",
    "mlp": "mlp[hidden=2;activations=relu,elu]",
    "multi_branch": "multi_branch[layers=4]",
    "nasnet": "nasnet[blocks=2;cells=2]",
    "nb201": "nb201[cells=1]",
    "opidx": "opidx[nodes=2;cells=2]",
    "rnn": "rnn[nodes=4;units=32]",
    "size": "size[widths=8,16]",
    "stacked": "stacked(nb201)[cells=1;channels=8;stages=2]",
    "synthetic": "synthetic[genes=2;values=20]",
    "with_pipeline": "with_pipeline(mlp[hidden=2])",
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """1,500 lines of a Markov chain over 40 words, each followed by one of three."""
    rng = random.Random(0)
    words = [f"w{i}" for i in range(40)]
    following = {w: rng.sample(words, 3) for w in words}
    lines, word = [], words[0]
    for _ in range(1_500):
        line = []
        for _ in range(12):
            line.append(word)
            word = rng.choice(following[word])
        lines.append(" ".join(line))
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def trained(name: str, corpus: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    data = f"text:{corpus}" if name.startswith("rnn") else "digits"
    arguments = ["train", "--space", name, "--data", data, "--seed", "0", "--json", *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["nasbed", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code in (0, None)
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def learned(found: dict[str, object]) -> bool:
    valid, chance = found["valid"], found["chance"]
    assert isinstance(valid, list)
    assert isinstance(chance, float)
    return bool(valid[-1] > chance + 0.1 if found["metric"] == "accuracy" else valid[-1] < 0.8 * chance)


@pytest.mark.parametrize("name", registry.names("spaces"))
def test_a_small_network_of_every_space_learns(name: str, corpus: Path) -> None:
    """Two epochs at a high rate, which is enough to beat the constant prediction."""
    space = registry.space(SMALL[name])
    view = load(f"text:{corpus}" if name == "rnn" else "digits")
    a = space.sample(generator(0, "train-command", space.family))
    genes = tuple(space.training(a))
    pipeline = replace(PIPELINES["adam"], epochs=2, learning_rate=0.005, open=genes)
    objective = objective_of(view.task)
    network = space.build(a, view.task)
    with one_thread():
        _, totals = fit_from_seed(network, a, 0, view.train, {"valid": view.valid}, pipeline, objective=objective)
    valid = float(objective.metric(totals["valid"], view.valid.y.size)[-1])
    chance = constant_prediction(view)
    assert valid > chance + 0.05 if view.task.higher_is_better else valid < 0.9 * chance


@pytest.mark.slow
@pytest.mark.parametrize("name", [*registry.names("spaces"), "rnn[cell=darts]"])
def test_a_random_network_of_every_space_learns_within_a_minute(
    name: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.process_time()
    found = trained(name, corpus, capsys)
    assert time.process_time() - began < 60
    assert learned(found)
