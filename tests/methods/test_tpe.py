"""TPE: our trace is bare Optuna's, and Optuna is left as it was found."""

from __future__ import annotations

import logging
import math
import subprocess
import sys

import optuna
import pytest

from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.tpe import TPE
from nasbed.protocols import Architecture, Observation, Proposal

SPACE = Synthetic(genes=3, values=4)
CONDITIONAL = MLP(hidden=3, widths=(8, 16), activations=("relu", "tanh"))


def score(genes: tuple[int, ...]) -> float:
    return -sum((g - 2) ** 2 for g in genes)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"n_startup_trials": 4, "n_ei_candidates": 6, "constant_liar": False},
        {"multivariate": True},
        {"multivariate": True, "group": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("n", [1, 3])
def test_the_trace_is_that_of_bare_optuna(params: dict, n: int) -> None:
    settings = {"multivariate": False, "constant_liar": True, **params}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=5, **settings), direction="maximize")
    search = TPE(SPACE, seed=5, **params)
    for call in range(24 // n):
        proposals = search.ask(n)
        trials = []
        for proposal in proposals:
            trials.append(study.ask())
            genes = tuple(trials[-1].suggest_categorical(f"{t}:0,1,2,3", (0, 1, 2, 3)) for t in range(3))
            assert proposal.architecture == Architecture("synthetic", genes)
        for proposal, trial in zip(proposals, trials, strict=True):
            genes = proposal.architecture.genes
            if call % 4 == 3:
                search.tell([Observation(proposal, math.nan, status="crashed", reason="injected")])
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                search.tell([Observation(proposal, score(genes))])
                study.tell(trial, score(genes))


def test_the_name_of_a_parameter_is_its_place_and_its_options() -> None:
    search = TPE(CONDITIONAL, seed=0)
    for _ in range(25):
        [p] = search.ask()
        search.tell([Observation(p, score(p.architecture.genes))])
    choices: dict[str, set] = {}
    for trial in search._study.trials:
        for name, distribution in trial.distributions.items():
            choices.setdefault(name, set()).add(distribution.choices)
    assert all(len(c) == 1 for c in choices.values())
    # The last gene, forced at the longest length, is a place of its own.
    assert {name.split(":")[0] for name in choices} == {"0", "1", "2", "3"}


def test_states_of_trials() -> None:
    search = TPE(SPACE, seed=0)
    a, b, c, lost = search.ask(4)
    foreign = Proposal(Architecture("synthetic", (3, 3, 3)))
    stranger = Proposal(Architecture("synthetic", (3, 3, 9)))
    search.tell(
        [
            Observation(c, 0.3),
            Observation(a, 0.1),
            Observation(b, math.nan),
            Observation(foreign, 0.9),
            Observation(stranger, 0.9),
            Observation(foreign, math.nan, status="invalid"),
        ]
    )
    states = [t.state.name for t in search._study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "RUNNING", "COMPLETE"]
    assert [t.value for t in search._study.trials if t.state.name == "COMPLETE"] == [0.1, 0.3, 0.9]
    assert tuple(search._study.trials[-1].params.values()) == foreign.architecture.genes
    assert lost.architecture in search._running


def test_foreign_observations_are_learned_from() -> None:
    """Told of 64 architectures that it did not ask for, it is past its start-up and prefers what scored."""
    search = TPE(SPACE, seed=0)
    members = [SPACE.at(i) for i in range(64)]
    search.tell([Observation(Proposal(a), float(a.genes.count(3))) for a in members])
    threes = 0
    for _ in range(10):
        [p] = search.ask()
        threes += p.architecture.genes.count(3)
        search.tell([Observation(p, float(p.architecture.genes.count(3)))])
    assert threes > 20  # of 30 genes; at random 7.5, with deviation 2.4


def test_logging_and_warnings_stay_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    verbosity = optuna.logging.get_verbosity()
    try:
        for level in (logging.DEBUG, logging.ERROR):
            optuna.logging.set_verbosity(level)
            search = TPE(SPACE, seed=0, multivariate=True, group=True, n_startup_trials=2)
            assert optuna.logging.get_verbosity() == level
        optuna.logging.set_verbosity(logging.INFO)
        TPE(SPACE, seed=0)
        for i in range(6):
            [p] = search.ask()
            search.tell([Observation(p, math.nan if i == 3 else 0.5)])
    finally:
        optuna.logging.set_verbosity(verbosity)
    assert capfd.readouterr().err == ""


def test_without_optuna_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "nasbed\[optuna\]"'):
        TPE(SPACE, seed=0)


def test_the_module_does_not_import_optuna() -> None:
    program = "import sys, nasbed.methods.strategies.tpe; sys.exit('optuna' in sys.modules or 'torch' in sys.modules)"
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
