"""The conformance kit: it runs on everything registered, and finds every fault planted here."""

from __future__ import annotations

import importlib
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

import numpy as np
import pytest
import torch

from nasbed.harness.checks import CheckResult, Violation, check_space, check_strategy, yield_checks
from nasbed.methods import registry
from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.aging_evolution import AgingEvolution
from nasbed.methods.strategies.random import RandomSearch
from nasbed.protocols import Architecture, Cost, Drawing, Observation, Proposal, SearchSpace, Setting, Task

# Small sizes, so that a check's 24 asks reach the informed phase.
PARAMS: Mapping[str, Mapping[str, Any]] = {
    "aging_evolution": {"population_size": 6, "sample_size": 2},
    "local_search": {"num_init": 4},
    "reinforce": {"units": 8, "layers": 1, "batch_size": 4},
    "tpe": {"n_startup_trials": 5, "n_ei_candidates": 4},
}
RESTRICTIONS = [
    "mlp[hidden=3;widths=8,16;dropout=no]",
    "mlp[hidden=2;widths=8,16,32;activations=relu,tanh]",
    "mlp[hidden=1;widths=8;activations=relu;dropout=no]",
    "nb201[ops=none,skip_connect,nor_conv_3x3;cells=1]",
    "nb201[ops=nor_conv_1x1,avg_pool_3x3;channels=4;cells=1]",
    "synthetic[genes=4;values=3]",
    "synthetic[genes=1;values=2]",
    "synthetic[genes=3;values=4;world=2;epistasis=1]",
    "synthetic[genes=40]",
    "chain[layers=2;kernels=3;pool_kernels=2;filters=8;units=16]",
    "darts[ops=skip_connect,sep_conv_3x3;nodes=2;cells=3;channels=4]",
    "enas_macro[layers=3;channels=4]",
    "enas_micro[nodes=2;cells=2;channels=4]",
    "fabric[layers=3;scales=2;channels=4]",
    "fcnet[n_units_1=16,32;batch_size=32,64;moves=step]",
    "genetic_cnn[nodes=3,3]",
    "hierarchical[ops=conv_1x1,identity;motifs=2,1;nodes=3,3]",
    "macro[choices=identity,mb3_k3;stages=2,2;channels=4;head=8]",
    "multi_branch[layers=3;channels=4]",
    "nasnet[ops=identity,conv_1x1;blocks=2;combiner=search;tied=yes;cells=2;channels=4]",
    "opidx[nodes=2;channels=4]",
    "rnn[cell=darts;nodes=3;units=8]",
    "rnn[nodes=4;units=8;highway=no]",
    "size[widths=8,16;moves=step]",
    "stacked(darts[nodes=1;ops=skip_connect,dil_conv_3x3])[cells=1;channels=4;stages=2]",
    "with_pipeline(nb201[ops=none,skip_connect;cells=1;channels=4])",
]
SPACES = [*registry.names("spaces"), *RESTRICTIONS]
SMALL = [Synthetic(genes=4, values=3)]


# Everything registered.


def applicable() -> list[Any]:
    """Pairs of a strategy and a check; those for the other kind of strategy would only be skipped."""
    return [
        pytest.param(cls, PARAMS.get(name), check, id=f"{name}-{check_name}")
        for name in registry.names("strategies")
        for cls in [registry.load("strategies", name)]
        for check_name, check in yield_checks("strategies")
        if check_name.startswith("sharing_") == hasattr(cls, "train_epoch")
    ]


@pytest.mark.parametrize(("cls", "params", "check"), applicable())
def test_every_registered_strategy(cls: type, params: Mapping[str, Any] | None, check: Callable[..., None]) -> None:
    check(cls, params=params)


@pytest.mark.parametrize("check", [pytest.param(check, id=name) for name, check in yield_checks("spaces")])
@pytest.mark.parametrize("name", SPACES)
def test_every_registered_space(name: str, check: Callable[..., None]) -> None:
    check(registry.space(name))


def test_results_without_pytest() -> None:
    for results, role in ((check_strategy(RandomSearch), "strategies"), (check_space(SMALL[0]), "spaces")):
        merging = CheckResult("canonical_preserves_the_function", None, "every member represents itself")
        assert [r for r in results if r not in (CheckResult(r.name, True), merging)] == []
        assert {r.name for r in results} <= {name for name, _ in yield_checks(role)}
    assert [r.name for r in check_space(SMALL[0])] == [name for name, _ in yield_checks("spaces")]


def test_names_are_unique_and_every_check_says_what_it_checks() -> None:
    for role in ("strategies", "spaces", "estimators"):
        names = [name for name, _ in yield_checks(role)]
        assert len(set(names)) == len(names)
    with pytest.raises(
        ValueError, match="role: 'space' is not one of strategies, spaces, estimators; did you mean 'spaces'"
    ):
        list(yield_checks("space"))


def test_a_check_that_does_not_apply_says_why() -> None:
    class Local(RandomSearch):
        pass

    results = {r.name: r for r in check_strategy(Local, spaces=SMALL)}
    assert results["tiny_spaces"] == CheckResult("tiny_spaces", None, "the spaces were given")
    single = {r.name: r for r in check_space(registry.space("mlp[hidden=1;widths=8;activations=relu;dropout=no]"))}
    assert single["mutate_gives_a_neighbour"].detail == "no member has a neighbour"


def test_the_checks_leave_the_global_generators_as_they_were() -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    expected = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    failing("strategies", RandomSearch, spaces=SMALL)
    failing("spaces", SMALL[0])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected  # noqa: NPY002


# Strategies with one fault each; the name of the class says which.


def bump(p: Proposal) -> Proposal:
    return Proposal(Architecture(p.architecture.space, (*p.architecture.genes[:-1], p.architecture.genes[-1] + 1)))


class BuiltWithoutASeed(RandomSearch):
    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)


class SeededByTheClock(RandomSearch):
    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        super().__init__(space, seed=time.perf_counter_ns())


class DeafToItsSeed(RandomSearch):
    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        super().__init__(space, seed=0)


class UsesGlobalNumpy(RandomSearch):
    def ask(self, n: int = 1) -> Sequence[Proposal]:
        return [Proposal(self._space.sample(np.random.default_rng(np.random.randint(2**31)))) for _ in range(n)]  # noqa: NPY002


class UsesGlobalTorch(RandomSearch):
    """It puts the state back, so that only the trace shows it."""

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        with torch.random.fork_rng(devices=[]):
            seed = int(torch.randint(2**31, ()).item())
        return [Proposal(self._space.sample(np.random.default_rng((seed, i)))) for i in range(n)]


class AsksOneTooMany(RandomSearch):
    def ask(self, n: int = 1) -> Sequence[Proposal]:
        return super().ask(n + 1)


class OffByOneGene(RandomSearch):
    def ask(self, n: int = 1) -> Sequence[Proposal]:
        return [bump(p) for p in super().ask(n)]


class InventsParents(RandomSearch):
    def ask(self, n: int = 1) -> Sequence[Proposal]:
        return [Proposal(p.architecture, parent=1000) for p in super().ask(n)]


class WaitsForATell(AgingEvolution):
    def ask(self, n: int = 1) -> Sequence[Proposal]:
        return super().ask(n) if self._population else []


class CountsItsAnswers(RandomSearch):
    _open = 0

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        proposals = super().ask(n)
        self._open = len(proposals)
        return proposals

    def tell(self, observations: Sequence[Observation]) -> None:
        if len(observations) != self._open and all(o.proposal.architecture.space == "synthetic" for o in observations):
            raise RuntimeError("where are the others?")


class TrustsStrangers(AgingEvolution):
    def _holds(self, a: Architecture) -> bool:
        return True


class DiesOnNaN(RandomSearch):
    def tell(self, observations: Sequence[Observation]) -> None:
        for o in observations:
            int(1000 * o.score)


class DiesOnCrashes(RandomSearch):
    def tell(self, observations: Sequence[Observation]) -> None:
        for o in observations:
            assert o.status == "ok"


class LearnsFromTheCallersClock(RandomSearch):
    """Its draws depend on what every instance before it has done."""

    _asked: ClassVar[list[int]] = []

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        self._asked.append(n)
        if len(self._asked) % 7 == 0:
            self._space.sample(self._rng)
        return super().ask(n)


class SortsWhatItIsTold(RandomSearch):
    def tell(self, observations: Sequence[Observation]) -> None:
        assert isinstance(observations, list)
        observations.sort(key=lambda o: -o.score)
        observations.clear()


class NarrowsTheSpace(RandomSearch):
    def ask(self, n: int = 1) -> Sequence[Proposal]:
        self._space.family, self._space.name = self._space.family, "narrow"  # type: ignore[misc]
        return super().ask(n)


class NeedsVariableLength(RandomSearch):
    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        super().__init__(space, seed=seed)
        if not isinstance(space, MLP):
            raise TypeError("no chain")


class NeedsAnAlphabet(RandomSearch):
    def ask(self, n: int = 1) -> Sequence[Proposal]:
        assert isinstance(self._space, Synthetic)
        return super().ask(n)


class CrossesTwoGenes(RandomSearch):
    def tell(self, observations: Sequence[Observation]) -> None:
        for o in observations:
            o.proposal.architecture.genes[1]


class NeverRepeats(RandomSearch):
    def ask(self, n: int = 1) -> Sequence[Proposal]:
        if self._space.size == 2 and self._drawn >= 2:
            raise RuntimeError("nothing new is left")
        self._drawn += n
        return super().ask(n)


class PrefersSmallLabels(RandomSearch):
    def ask(self, n: int = 1) -> Sequence[Proposal]:
        pairs = [(self._space.sample(self._rng), self._space.sample(self._rng)) for _ in range(n)]
        return [Proposal(min(pair, key=lambda a: a.genes)) for pair in pairs]


ONE_FAULT = {
    BuiltWithoutASeed: ("takes_a_seed", "can be built without a seed"),
    SeededByTheClock: ("same_seed_same_trace", r"differ: proposal \d+: synthetic:\S+ .* and synthetic:"),
    DeafToItsSeed: ("other_seed_other_trace", "give one trace"),
    UsesGlobalNumpy: ("global_generators_are_left_alone", "the global generator of numpy.random was used"),
    UsesGlobalTorch: ("global_generators_are_left_alone", "the seed of a global generator changes the trace"),
    AsksOneTooMany: ("asks_are_members", r"ask\(1\) gave 2 proposals"),
    OffByOneGene: ("asks_are_members", r"a proposal is .*, not a member: .*gene \d"),
    InventsParents: ("asks_are_members", "parent: 1000 is not one of the 0 evaluations told so far"),
    WaitsForATell: ("ask_before_tell", "the first ask gave nothing"),
    CountsItsAnswers: ("tell_partial_and_reordered", "RuntimeError: where are the others?"),
    TrustsStrangers: ("tell_foreign", "elsewhere:0.1|list index|IndexError|KeyError"),
    DiesOnNaN: ("tell_nan", "ValueError: cannot convert float NaN to integer"),
    DiesOnCrashes: ("tell_failures", r"AssertionError: [\s\S]*crashed"),
    LearnsFromTheCallersClock: ("replays", "a replay differs from the recorded calls|goes on differently"),
    SortsWhatItIsTold: ("leaves_its_arguments_alone", "tell changed the observations"),
    NarrowsTheSpace: ("leaves_its_arguments_alone", "the space is another one after a run"),
    NeedsVariableLength: ("fixed_length_space", "TypeError: no chain"),
    NeedsAnAlphabet: ("variable_length_space", r"AssertionError: [\s\S]*isinstance"),
    CrossesTwoGenes: ("one_gene_space", "IndexError: tuple index out of range"),
    NeverRepeats: ("tiny_spaces", "RuntimeError: nothing new is left"),
    PrefersSmallLabels: ("labels_do_not_matter", r"mean score is 0\.\d+"),
}


def failing(role: str, subject: Any, **arguments: Any) -> dict[str, BaseException]:
    """What each check raises; without the one that starts a process, which takes as long as all others."""
    found: dict[str, BaseException] = {}
    for name, check in yield_checks(role):
        try:
            if name != "same_trace_in_another_process":
                check(subject, **arguments)
        except SkipTest:
            continue
        except Exception as error:
            found[name] = error
    return found


def named(found: Mapping[str, BaseException], name: str, reason: str) -> None:
    """The right check has failed, for the right reason, in one line unless it is the method's own exception."""
    assert name in found, found
    assert re.search(reason, f"{type(found[name]).__name__}: {found[name]}"), found[name]
    for error in found.values():
        assert not isinstance(error, Violation) or "\n" not in str(error)


@pytest.mark.parametrize("cls", ONE_FAULT)
def test_a_planted_fault_of_a_strategy_is_found(cls: type) -> None:
    named(failing("strategies", cls), *ONE_FAULT[cls])


def test_every_check_of_strategies_finds_a_planted_fault() -> None:
    planted = {name for name, _ in [*ONE_FAULT.values(), *SHARING_FAULT.values()]}
    assert planted | {"same_trace_in_another_process"} == {name for name, _ in yield_checks("strategies")}


def test_an_exception_of_the_method_comes_with_its_traceback() -> None:
    class Local(DiesOnNaN):
        """Without a name to import it by, so that no other process is started."""

    results = {r.name: r for r in check_strategy(Local, spaces=SMALL)}
    assert results["tell_nan"].passed is False
    assert results["tell_nan"].detail.startswith("Traceback")
    assert "int(1000 * o.score)" in results["tell_nan"].detail
    assert results["tell_nan"].detail.endswith("ValueError: cannot convert float NaN to integer")
    assert results["same_trace_in_another_process"].passed is None
    assert "cannot be imported by name" in results["same_trace_in_another_process"].detail
    assert {n for n, r in results.items() if r.passed is False} == {"tell_nan", "tell_failures", "replays"}


def test_a_strategy_may_say_that_it_is_deterministic() -> None:
    class Fixed(DeafToItsSeed):
        deterministic = True

    assert failing("strategies", Fixed) == {}


SET_ORDER = """
from nasbed.methods.strategies.random import RandomSearch
from nasbed.protocols import Proposal

class HashOrder(RandomSearch):
    def ask(self, n=1):
        return [Proposal(next(iter({self._space.sample(self._rng) for _ in range(8)}))) for _ in range(n)]
"""


def test_dependence_on_the_order_of_a_set_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hash_order.py").write_text(SET_ORDER)
    monkeypatch.syspath_prepend(str(tmp_path))
    results = check_strategy(importlib.import_module("hash_order").HashOrder)
    found = {r.name: r.detail for r in results if r.passed is False}
    # Whether relabelling shows it too depends on this process's own hash seed.
    assert set(found) - {"labels_do_not_matter"} == {"same_trace_in_another_process"}
    assert "another process with the same seed differs: proposal " in found["same_trace_in_another_process"]


# Weight-sharing strategies.


class Sharing:
    """A good one: no supernet, but everything that the contract asks of one."""

    def __init__(self, space: SearchSpace, setting: Setting, *, seed: int) -> None:
        self.space, self.setting, self.rng = space, setting, np.random.default_rng(seed)

    def train_epoch(self) -> Sequence[Cost]:
        self.best = self.space.sample(self.rng)
        return [Cost("supernet", 1.0)]

    def incumbent(self) -> Architecture:
        return self.best


class SharingWithoutASeed(Sharing):
    def __init__(self, space: SearchSpace, setting: Setting, *, seed: int = 0) -> None:
        super().__init__(space, setting, seed=seed)


class SharingOutside(Sharing):
    def incumbent(self) -> Architecture:
        return Architecture(self.space.family, (*self.best.genes, 0))


class SharingForNothing(Sharing):
    def train_epoch(self) -> Sequence[Cost]:
        super().train_epoch()
        return [Cost("supernet", float("nan"))]


class SharingByTheClock(Sharing):
    def __init__(self, space: SearchSpace, setting: Setting, *, seed: int) -> None:
        super().__init__(space, setting, seed=time.perf_counter_ns())


class SharingGlobalTorch(Sharing):
    def train_epoch(self) -> Sequence[Cost]:
        torch.rand(1)
        return super().train_epoch()


class SharingNowhere(Sharing):
    def __init__(self, space: SearchSpace, setting: Setting, *, seed: int) -> None:
        raise ValueError("no supernet for this space")


class SharingOnChains(Sharing):
    def __init__(self, space: SearchSpace, setting: Setting, *, seed: int) -> None:
        if not isinstance(space, MLP):
            raise ValueError("chains only")
        super().__init__(space, setting, seed=seed)


SHARING_FAULT = {
    SharingWithoutASeed: ("sharing_takes_setting_and_seed", "can be built without a seed"),
    SharingOutside: ("sharing_incumbent_is_a_member", "the incumbent is .*, not a member"),
    SharingForNothing: ("sharing_costs_are_valid", "epoch 0 cost nan; allowed: finite, at least 0"),
    SharingByTheClock: ("sharing_same_seed_same_epochs", "two runs with one seed differ"),
    SharingGlobalTorch: ("sharing_global_generators_are_left_alone", "the global generator of torch was used"),
    SharingNowhere: ("sharing_costs_are_valid", "takes none of the spaces: .*no supernet for this space"),
}


@pytest.mark.parametrize("cls", [Sharing, SharingOnChains])
def test_a_good_weight_sharing_strategy_passes(cls: type) -> None:
    results = check_strategy(cls)
    assert len(results) == 5
    assert [r for r in results if not r.passed] == []


@pytest.mark.parametrize("cls", SHARING_FAULT)
def test_a_planted_fault_of_a_weight_sharing_strategy_is_found(cls: type) -> None:
    named(failing("strategies", cls), *SHARING_FAULT[cls])


# Spaces with one fault each.


class Toy(Synthetic):
    def __init__(self) -> None:
        super().__init__(genes=4, values=3)

    def with_last(self, a: Architecture, gene: int) -> Architecture:
        return Architecture(a.space, (*a.genes[:-1], gene))


class ForeignFamily(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.name = "real[genes=4]"


class ForgetsItsRestriction(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.name = "synthetic[genes=4]"


class OneMemberTooMany(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.size += 1


class OptionsOffByOne(Toy):
    def options(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
        found = super().options(prefix)
        return (*found, 3) if found else ()


class TakesEveryone(Toy):
    def check(self, a: Architecture) -> None:
        pass


class SamplesOutside(Toy):
    def sample(self, rng: np.random.Generator) -> Architecture:
        return self.with_last(super().sample(rng), int(rng.integers(4)))


class NeverTheLast(Toy):
    def sample(self, rng: np.random.Generator) -> Architecture:
        return self.at(int(rng.integers(self.size - 1)))


class NeverTheFirstOfMany(Synthetic):
    def __init__(self) -> None:
        super().__init__(genes=6, values=5)

    def sample(self, rng: np.random.Generator) -> Architecture:
        return self.at(int(rng.integers(self.size // 64, self.size)))


class MutatesToItself(Toy):
    def mutate(self, a: Architecture, rng: np.random.Generator) -> Architecture:
        return self.with_last(a, int(rng.integers(3)))


class MutatesTwice(Toy):
    def mutate(self, a: Architecture, rng: np.random.Generator) -> Architecture:
        return super().mutate(super().mutate(a, rng), rng)


class CrossoverMutates(Toy):
    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        return self.mutate(super().crossover(a, b, rng), rng)


class NeighboursTwice(Toy):
    def neighbours(self, a: Architecture) -> list[Architecture]:
        found = super().neighbours(a)
        return [*found, found[0]]


class NeighboursUpwards(Toy):
    def neighbours(self, a: Architecture) -> list[Architecture]:
        return [b for b in super().neighbours(a) if b.genes > a.genes]


class CanonicalTurns(Toy):
    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        self.check_level(level)
        return Architecture(a.space, (*a.genes[1:], a.genes[0]))


class CanonicalLeaves(Toy):
    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        self.check_level(level)
        return self.with_last(a, 3)


class CanonicalShrinks(Toy):
    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        self.check_level(level)
        return self.with_last(a, 0)


class TextLosesAGene(Toy):
    def text(self, a: Architecture) -> str:
        return super().text(self.with_last(a, 0))


class IndexReversed(Toy):
    def index(self, a: Architecture) -> int:
        return self.size - 1 - super().index(a)


class NegativePositions(Toy):
    def at(self, index: int) -> Architecture:
        return super().at(index % self.size)


class CanonicalMerges(Toy):
    """The last gene chooses an activation; the representative forgets it."""

    def canonical(self, a: Architecture, level: str | None = None) -> Architecture:
        self.check_level(level)
        return self.with_last(a, 0)

    def _widths(self, a: Architecture, task: Task) -> list[int]:
        return super()._widths(self.with_last(a, 0), task)

    def build(self, a: Architecture, task: Task) -> torch.nn.Module:
        network = super().build(a, task)
        assert isinstance(network, torch.nn.Sequential)
        network[2] = (torch.nn.ReLU, torch.nn.Tanh, torch.nn.ELU)[a.genes[-1]]()
        return network


class RaggedCode(Toy):
    def one_hot(self, a: Architecture) -> np.ndarray:
        return np.array([1.0, *a.genes, *([2.0] * a.genes[0])])


class PoorCode(Toy):
    def one_hot(self, a: Architecture) -> np.ndarray:
        return np.array(a.genes[1:], np.float64)


class DrawsAScript(Toy):
    def draw(self, a: Architecture) -> Drawing:
        return Drawing(super().draw(a).replace("</svg>", "<script>1</script></svg>"))


class ForgetsAHyperparameter(Toy):
    def from_configspace(self, configuration: Mapping[str, object]) -> Architecture:
        return super().from_configspace({"gene_3": "0", **configuration}) if configuration else self.at(0)


class WithoutDepth(Toy):
    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        return {k: v for k, v in super().features(a, task).items() if k != "depth"}


class FlopsAreMacs(Toy):
    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        found = super().features(a, task)
        return {**found, "flops": found["macs"]}


class WithoutBiases(Toy):
    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        found = super().features(a, task)
        return {**found, "params": found["macs"]}


class BuildsForReal(Toy):
    def build(self, a: Architecture, task: Task) -> torch.nn.Module:
        return torch.nn.Linear(2, 2)


class TrainingOfObjects(Toy):
    def training(self, a: Architecture) -> Mapping[str, Any]:
        return {"learning_rate": np.float32(0.1)}


class SamplesGlobally(Toy):
    def sample(self, rng: np.random.Generator) -> Architecture:
        return self.at(random.randrange(self.size))


class LongErrors(Toy):
    def parse(self, text: str) -> Architecture:
        try:
            return super().parse(text)
        except ValueError as error:
            raise ValueError(f"cannot parse\n{error}") from None


SPACE_FAULT: dict[type, tuple[str, str]] = {
    ForeignFamily: ("has_the_methods", "does not begin with the family"),
    ForgetsItsRestriction: ("name_round_trips", "its size is 625 instead of 81"),
    OneMemberTooMany: ("size_is_exact", r"size is 82, but options\(\) gives 81 members"),
    OptionsOffByOne: ("options_generate_the_members", "the end of a walk .* not a member"),
    TakesEveryone: ("check_refuses_strangers", "the stranger elsewhere:.* is accepted"),
    SamplesOutside: ("sample_is_a_member", "a sample is .*, not a member"),
    NeverTheLast: ("sample_is_uniform", "cell 80 of 81 was drawn 0 times"),
    NeverTheFirstOfMany: ("sample_is_uniform", "cell 0 of 64 was drawn"),
    MutatesToItself: ("mutate_gives_a_neighbour", "itself"),
    MutatesTwice: ("mutate_gives_a_neighbour", "not among its neighbours|itself"),
    CrossoverMutates: ("crossover_mixes_the_parents", "with itself gave|of neither"),
    NeighboursTwice: ("neighbours_are_members", "more than once"),
    NeighboursUpwards: ("neighbours_are_symmetric", "not the other way round"),
    CanonicalTurns: ("canonical_is_idempotent", "becomes .*, and that becomes"),
    CanonicalLeaves: ("canonical_stays_inside", "the representative of .*, not a member"),
    CanonicalShrinks: ("canonical_stays_inside", "parameters, its representative"),
    TextLosesAGene: ("text_round_trips", "which is read as"),
    IndexReversed: ("index_round_trips", "has the index .*, where .* stands"),
    NegativePositions: ("index_round_trips", r"at\(-1\) is accepted"),
    CanonicalMerges: ("canonical_preserves_the_function", "are different functions of their weights"),
    RaggedCode: ("encodings_are_fixed_length_vectors", "has the shape"),
    PoorCode: ("one_hot_tells_members_apart", "one and the same one-hot"),
    DrawsAScript: ("draw_gives_a_picture", "script"),
    ForgetsAHyperparameter: ("configspace_round_trips", "without hyper-parameters is accepted"),
    WithoutDepth: ("features_are_complete", "lack depth"),
    FlopsAreMacs: ("features_are_complete", "not 2 macs"),
    WithoutBiases: ("params_are_those_of_the_network", r"is said to have \d+ parameters, its network has \d+"),
    BuildsForReal: ("build_is_on_the_meta_device", "is on cpu, not on meta|global generator of torch"),
    TrainingOfObjects: ("training_overrides_are_json", "has no JSON form"),
    SamplesGlobally: ("moves_draw_from_the_generator_only", "sample used the global generator of random"),
    LongErrors: ("errors_are_one_line", "is not one line"),
}
# A fault that other sentences of the contract forbid as well.
ALSO: dict[type, set[str]] = {
    ForeignFamily: {"name_round_trips"},
    OneMemberTooMany: {"name_round_trips", "sample_is_uniform", "configspace_round_trips"},
    OptionsOffByOne: {"size_is_exact"},
    SamplesOutside: {"options_generate_the_members", "sample_is_uniform"},
    NeighboursUpwards: {"mutate_gives_a_neighbour"},
    CanonicalTurns: {"canonical_stays_inside", "canonical_preserves_the_function"},
    CanonicalLeaves: {"canonical_preserves_the_function"},
    CanonicalShrinks: {"canonical_preserves_the_function"},
    BuildsForReal: {"params_are_those_of_the_network"},
}


@pytest.mark.parametrize("cls", SPACE_FAULT)
def test_a_planted_fault_of_a_space_is_found_by_the_check_for_it(cls: type) -> None:
    found = failing("spaces", cls())
    named(found, *SPACE_FAULT[cls])
    assert set(found) == {SPACE_FAULT[cls][0]} | ALSO.get(cls, set())


def test_every_check_of_spaces_finds_a_planted_fault() -> None:
    assert {name for name, _ in SPACE_FAULT.values()} == {name for name, _ in yield_checks("spaces")}


def test_the_plain_toy_has_no_fault() -> None:
    assert failing("spaces", Toy()) == {}
