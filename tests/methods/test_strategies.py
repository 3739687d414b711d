"""What every black-box strategy promises, on a fixed-length and on a variable-length space."""

from __future__ import annotations

import importlib
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.aging_evolution import AgingEvolution
from nasbed.methods.strategies.local_search import LocalSearch
from nasbed.methods.strategies.random import RandomSearch
from nasbed.methods.strategies.reinforce import Reinforce
from nasbed.methods.strategies.tpe import TPE
from nasbed.protocols import Architecture, Observation, Proposal, SearchSpace, SearchStrategy

# Small sizes, so that 60 evaluations take every strategy well into its informed phase.
STRATEGIES = {
    "random": (RandomSearch, {}),
    "random_without_replacement": (RandomSearch, {"replace": False}),
    "local_search": (LocalSearch, {"num_init": 4}),
    "local_search_full": (LocalSearch, {"num_init": 4, "query_full_nbhd": True, "stop_at_minimum": False}),
    "aging_evolution": (AgingEvolution, {"population_size": 6, "sample_size": 2}),
    "reinforce": (Reinforce, {"units": 8, "batch_size": 4}),
    "tpe": (TPE, {"n_startup_trials": 5, "n_ei_candidates": 4}),
}
SPACES = {
    "synthetic": Synthetic(genes=4, values=3),
    "mlp": MLP(hidden=3, widths=(8, 16), activations=("relu", "tanh")),
}

every_strategy = pytest.mark.parametrize("name", STRATEGIES)
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def make(name: str, space: SearchSpace, seed: int = 0) -> SearchStrategy:
    cls, params = STRATEGIES[name]
    return cls(space, seed=seed, **params)


def score(a: Architecture) -> float:
    return sum((t + 1) * g for t, g in enumerate(a.genes)) % 17 / 17


def told(proposal: Proposal) -> Observation:
    """An answer; some evaluations fail, in either way."""
    value = score(proposal.architecture)
    if value == 0:
        return Observation(proposal, math.nan, status="crashed", reason="injected")
    return Observation(proposal, value)


def drive(strategy: SearchStrategy, calls: int, n: int = 1) -> list[Proposal]:
    trace: list[Proposal] = []
    for _ in range(calls):
        proposals = strategy.ask(n)
        strategy.tell([told(p) for p in proposals])
        trace += proposals
    return trace


def text(trace: Sequence[Proposal]) -> list[str]:
    return [str(p.architecture) for p in trace]


@every_strategy
@every_space
def test_every_proposal_is_a_member_at_full_fidelity(name: str, space: SearchSpace) -> None:
    for p in drive(make(name, space), 40, n=2):
        space.check(p.architecture)
        assert p == Proposal(p.architecture)


@every_strategy
@every_space
def test_the_seed_decides_the_trace(name: str, space: SearchSpace) -> None:
    assert drive(make(name, space, 3), 24) == drive(make(name, space, 3), 24)
    assert drive(make(name, space, 3), 24) != drive(make(name, space, 4), 24)


@every_strategy
def test_a_seed_may_have_many_bits(name: str) -> None:
    space = SPACES["synthetic"]
    assert drive(make(name, space, 2**100 + 1), 10) != drive(make(name, space, 2**100), 10)


def test_another_process_gives_the_same_traces() -> None:
    # Python's own default is a random hash seed, so this process surely has another one.
    program = (
        "import json, sys, importlib.util as u\n"
        "spec = u.spec_from_file_location('shared', sys.argv[1])\n"
        "m = u.module_from_spec(spec)\n"
        "sys.modules['shared'] = m\n"
        "spec.loader.exec_module(m)\n"
        "print(json.dumps(m.all_traces()))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4321"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    run = subprocess.run(
        [sys.executable, "-c", program, __file__],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert json.loads(run.stdout) == all_traces()


def all_traces() -> dict[str, list[str]]:
    return {f"{n} {s}": text(drive(make(n, space), 16)) for n in STRATEGIES for s, space in SPACES.items()}


@every_strategy
@every_space
@pytest.mark.parametrize("n", [1, 3])
def test_replaying_the_calls_gives_the_same_continuation(name: str, space: SearchSpace, n: int) -> None:
    whole = make(name, space)
    replayed = make(name, space)
    for _ in range(12):
        proposals = whole.ask(n)
        assert list(replayed.ask(n)) == list(proposals)
        # Half is told late, in reverse, so the state is not a function of a plain sequence of pairs.
        answers = [told(p) for p in reversed(proposals)][: max(1, n - 1)]
        whole.tell(answers)
        replayed.tell(answers)
    assert drive(whole, 12, n) == drive(replayed, 12, n)


@every_strategy
def test_global_random_states_are_neither_read_nor_changed(name: str) -> None:
    space = SPACES["mlp"]
    traces = []
    for global_seed in (1, 2):
        random.seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        torch.manual_seed(global_seed)
        before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()  # noqa: NPY002
        traces.append(drive(make(name, space), 20))
        after = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()  # noqa: NPY002
        assert before == after
    assert traces[0] == traces[1]


@every_strategy
@every_space
def test_asks_before_any_tell_work(name: str, space: SearchSpace) -> None:
    strategy = make(name, space)
    for n in (1, 5, 1, 7):
        proposals = strategy.ask(n)
        assert 1 <= len(proposals) <= n
        for p in proposals:
            space.check(p.architecture)


@every_strategy
@every_space
def test_the_trace_does_not_depend_on_the_batch_object(name: str, space: SearchSpace) -> None:
    """`tell` one by one, or all at once: the same knowledge, hence the same next proposals."""
    together, apart = make(name, space), make(name, space)
    for _ in range(10):
        proposals = together.ask(3)
        assert list(apart.ask(3)) == list(proposals)
        answers = [told(p) for p in proposals]
        together.tell(answers)
        for answer in answers:
            apart.tell([answer])
        together.tell([])


@every_strategy
@every_space
def test_failures_foreign_and_repeated_observations_are_survived(name: str, space: SearchSpace) -> None:
    strategy = make(name, space)
    rng = np.random.default_rng(5)
    elsewhere = Observation(Proposal(Architecture("elsewhere", (0, 1))), 1.0)
    malformed = Observation(Proposal(Architecture(space.family, (77,))), 1.0)
    for i in range(20):
        proposals = strategy.ask(2)
        stranger = Observation(Proposal(space.sample(rng)), 0.5)
        broken = Observation(Proposal(space.sample(rng)), math.nan, status="invalid", reason="injected")
        answers = [Observation(p, math.nan, status="crashed") if i % 3 else told(p) for p in proposals]
        strategy.tell([elsewhere, stranger, *answers, broken, malformed, *answers])
        for p in proposals:
            space.check(p.architecture)
        # A score that is not a number or not finite counts as failed even if the status says "ok".
        strategy.tell([Observation(proposals[0], value) for value in (math.nan, math.inf, -math.inf)])


@every_strategy
@every_space
def test_a_run_in_which_everything_fails_goes_on(name: str, space: SearchSpace) -> None:
    strategy = make(name, space)
    for _ in range(30):
        [p] = strategy.ask()
        space.check(p.architecture)
        strategy.tell([Observation(p, math.nan, status="crashed", reason="injected")])


@every_strategy
def test_lost_answers_do_not_stop_a_run(name: str) -> None:
    space = SPACES["synthetic"]
    strategy = make(name, space)
    for i in range(60):
        proposals = strategy.ask(1)
        assert len(proposals) == 1
        if i % 5:
            strategy.tell([told(p) for p in proposals])


class Relabelled:
    """The same space with every gene value v written as 3 v + 2: nothing but the labels is different."""

    def __init__(self, space: Synthetic) -> None:
        self._space = space
        self.family, self.name, self.size = "relabelled", "relabelled", space.size

    def there(self, a: Architecture) -> Architecture:
        return Architecture(self.family, tuple(3 * g + 2 for g in a.genes))

    def back(self, a: Architecture) -> Architecture:
        return Architecture(self._space.family, tuple((g - 2) // 3 for g in a.genes))

    def check(self, a: Architecture) -> None:
        self._space.check(self.back(a))

    def options(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(3 * g + 2 for g in self._space.options(tuple((g - 2) // 3 for g in prefix)))

    def sample(self, rng: np.random.Generator) -> Architecture:
        return self.there(self._space.sample(rng))

    def mutate(self, a: Architecture, rng: np.random.Generator) -> Architecture:
        return self.there(self._space.mutate(self.back(a), rng))

    def neighbours(self, a: Architecture) -> list[Architecture]:
        return [self.there(b) for b in self._space.neighbours(self.back(a))]


@every_strategy
def test_relabelling_genes_relabels_the_trace(name: str) -> None:
    """R4, exactly: a strategy sees labels only through the space (the stand-in has no index, no encode)."""
    space = Synthetic(genes=4, values=3)
    other = Relabelled(space)
    if name == "random_without_replacement":
        pytest.skip("an indexed space is drawn by index, another one by sampling")
    plain, relabelled = make(name, space), make(name, other)  # type: ignore[arg-type]
    for _ in range(40):
        [p], [q] = plain.ask(), relabelled.ask()
        assert other.back(q.architecture) == p.architecture
        value = score(p.architecture)
        plain.tell([Observation(p, value)])
        relabelled.tell([Observation(q, value)])


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@every_strategy
def test_any_order_of_asks_and_tells_is_answered(name: str, data: st.DataObject) -> None:
    space = data.draw(st.sampled_from(list(SPACES.values())))
    strategy, twin = make(name, space), make(name, space)
    waiting: list[Proposal] = []
    for n in data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=12)):
        proposals = strategy.ask(n)
        assert list(twin.ask(n)) == list(proposals)
        assert len(proposals) <= n
        waiting += proposals
        for p in proposals:
            space.check(p.architecture)
        waiting = data.draw(st.permutations(waiting))
        cut = data.draw(st.integers(0, len(waiting)))
        for s in (strategy, twin):
            s.tell([told(p) for p in waiting[:cut]])
        waiting = waiting[cut:]


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("local_search", {"num_init": 0}, "num_init: 0 "),
        ("aging_evolution", {"population_size": 0}, "population_size: 0 "),
        ("aging_evolution", {"sample_size": 0}, "sample_size: 0 "),
        ("aging_evolution", {"sample_size": 11, "draw": "without"}, "population_size = 10"),
        ("aging_evolution", {"draw": "some"}, "with, without"),
        ("reinforce", {"layers": 0}, "layers: 0 "),
        ("reinforce", {"learning_rate": 0.0}, "learning_rate: 0.0 "),
        ("reinforce", {"baseline": "mean"}, "ema, ema_bias_corrected, none"),
        ("reinforce", {"baseline_update": "never"}, "before, after"),
        ("reinforce", {"baseline_decay": 1.0}, "baseline_decay: 1.0 "),
        ("tpe", {"n_startup_trials": -1}, "n_startup_trials: -1 "),
        ("tpe", {"n_ei_candidates": 0}, "n_ei_candidates: 0 "),
        ("tpe", {"group": True}, "multivariate=True"),
    ],
)
def test_wrong_arguments_are_named(name: str, params: Mapping[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        STRATEGIES[name][0](SPACES["synthetic"], seed=0, **params)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("module", ["random", "local_search", "aging_evolution", "reinforce", "tpe"])
def test_a_file_names_one_strategy_and_its_libraries(module: str) -> None:
    imported = importlib.import_module(f"nasbed.methods.strategies.{module}")
    [name] = imported.__all__
    cls = getattr(imported, name)
    assert isinstance(cls(SPACES["synthetic"], seed=0), SearchStrategy)
    assert cls.libraries == {"reinforce": ("torch",), "tpe": ("optuna",)}.get(module, ())


@pytest.mark.parametrize("name", ["local_search", "aging_evolution", "reinforce", "tpe"])
def test_a_strategy_that_learns_beats_random_search(name: str) -> None:
    """Mean true score of evaluations 101 to 200, against the exact mean of the space, in its deviations."""
    gains = []
    for world in range(2 if name == "tpe" else 4):  # Optuna takes milliseconds per ask
        space = Synthetic(genes=4, values=4, world=world)
        cls, params = STRATEGIES[name]
        # An untrained controller and evolution's drift need their own defaults here, not the small sizes above.
        strategy = cls(space, seed=world, **({} if name == "reinforce" else params))
        values = []
        for _ in range(200):
            [p] = strategy.ask()
            values.append(space.truth(p.architecture))
            strategy.tell([Observation(p, values[-1])])
        truths = space.truths()
        gains.append((np.mean(values[100:]) - truths.mean()) / truths.std())
    # 100 random draws have a mean of standard error 0.1, so two runs of 0.07.
    assert np.mean(gains) > 0.5, gains


def test_traces_differ_between_strategies() -> None:
    """Guards the tests above against a table that names one class twice."""
    space = SPACES["synthetic"]
    traces = [text(drive(make(name, space), 24)) for name in STRATEGIES]
    assert all(a != b for a, b in pairwise(traces))
