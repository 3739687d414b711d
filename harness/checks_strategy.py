"""The checks of black-box strategies. See `harness.checks`."""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from statistics import fmean, variance
from typing import Any
from unittest import SkipTest

from ..methods import registry
from ..protocols import Architecture, Observation, Proposal, SearchSpace, SearchStrategy, Status
from .checks_tools import (
    CALLS,
    FIXED,
    VARIABLE,
    Candidate,
    drive,
    failed,
    generator,
    global_generators,
    goes_on,
    inside,
    lines,
    require,
    same,
    score,
    some,
    told,
)
from .faults import Violation

ONE_GENE = "synthetic[genes=1;values=5]"
TINY = ("synthetic[genes=1;values=2]", "mlp[hidden=1;widths=8,16;activations=relu;dropout=no]")


def takes_a_seed(c: Candidate) -> None:
    """It is built as cls(space, *, seed, **params), and no seed is drawn or assumed where none is given."""
    for space in c.spaces:
        strategy = c.make(space)
        require(isinstance(strategy, SearchStrategy), f"{c.cls.__name__} has no ask or no tell")
        try:
            c.cls(space, **c.params)
        except TypeError:
            continue
        raise Violation(f"{c.cls.__name__} can be built without a seed; make `seed` a keyword without default")


def same_seed_same_trace(c: Candidate) -> None:
    """The same seed and the same calls give the same proposals."""
    for space in c.spaces:
        for n in (1, 3):
            one, two = (lines(drive(c.make(space, 3), CALLS // n, n)) for _ in range(2))
            same(space, one, two, f"two runs with one seed and ask({n}) differ")


def same_trace_in_another_process(c: Candidate) -> None:
    """The same seed and the same calls give the same proposals in another process too, whatever its hash seed."""
    spaces = [[_address(type(space)), space.name] for space in c.spaces]
    job = {"strategy": _address(c.cls), "params": dict(c.params), "spaces": spaces}
    try:
        text = json.dumps(job)
    except TypeError as error:
        raise SkipTest(f"the parameters have no JSON form: {error}") from None
    program = f"import sys; from {__name__} import retrace; print(); print(retrace(sys.stdin.read()))"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    environment["PYTHONHASHSEED"] = "1234" if environment.get("PYTHONHASHSEED") != "1234" else "4321"
    child = subprocess.run(
        [sys.executable, "-c", program], input=text, env=environment, capture_output=True, text=True, check=False
    )
    if child.returncode:
        raise RuntimeError(f"in another process:\n{child.stderr}")
    answer = json.loads(child.stdout.rstrip("\n").rpartition("\n")[2])
    if isinstance(answer, str):
        raise SkipTest(answer)
    for space, there in zip(c.spaces, answer, strict=True):
        same(space, lines(drive(c.make(space))), there, "another process with the same seed differs")


def retrace(text: str) -> str:
    """In the other process: traces as JSON, or why the class cannot be had by name."""
    job = json.loads(text)
    try:
        cls, *kinds = (_import(*address) for address in (job["strategy"], *(kind for kind, _ in job["spaces"])))
    except LookupError as reason:
        return json.dumps(reason.args[0])
    spaces = [
        kind.from_options(registry.split_name(name)[1]) for kind, (_, name) in zip(kinds, job["spaces"], strict=True)
    ]
    candidate = Candidate(cls, job["params"], tuple(spaces))
    return json.dumps([lines(drive(candidate.make(space))) for space in spaces])


def _address(cls: Any) -> tuple[str, str]:
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise SkipTest(f"{cls.__qualname__} cannot be imported by name from {cls.__module__}")
    return cls.__module__, cls.__qualname__


def _import(module: str, qualname: str) -> Any:
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise LookupError(f"{qualname} cannot be imported: another process finds no module {module}") from None
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def other_seed_other_trace(c: Candidate) -> None:
    """Another seed gives another trace, unless the class says `deterministic = True`."""
    if getattr(c.cls, "deterministic", False):
        raise SkipTest("the class says that it is deterministic")
    wide = [space for space in c.spaces if space.size is None or space.size > 8]
    if not wide:
        raise SkipTest("the spaces are too small to tell")
    for space in wide:
        traces = {tuple(lines(drive(c.make(space, seed)))) for seed in (3, 4, 5)}
        require(
            len(traces) > 1,
            f"{space.name}: seeds 3, 4 and 5 give one trace; say `deterministic = True` if that is meant",
        )


def global_generators_are_left_alone(c: Candidate) -> None:
    """The global generators of random, numpy and torch are neither read nor changed."""
    for space in c.spaces:
        traces = []
        for seed in (1, 2):
            with global_generators(seed) as drawn:
                traces.append(lines(drive(c.make(space), CALLS // 2, 2)))
                require((name := drawn()) is None, f"{space.name}: the global generator of {name} was used")
        same(space, traces[0], traces[1], "the seed of a global generator changes the trace")


def asks_are_members(c: Candidate) -> None:
    """ask(n) gives at most n proposals, of members of the space, at a fidelity and with a parent that exist."""
    for space in c.spaces:
        for n in (1, 2, 5):
            strategy, evaluated = c.make(space), 0
            for _ in range(CALLS // n + 2):
                proposals = strategy.ask(n)
                require(len(proposals) <= n, f"{space.name}: ask({n}) gave {len(proposals)} proposals")
                for p in proposals:
                    require(isinstance(p, Proposal), f"{space.name}: ask({n}) gave {p!r}, not a Proposal")
                    inside(space, p.architecture, "a proposal")
                    _possible(p, evaluated)
                strategy.tell([told(p) for p in proposals])
                evaluated += len(proposals)


def _possible(p: Proposal, evaluated: int) -> None:
    f = p.fidelity
    require(f.epochs > 0, f"fidelity: epochs is {f.epochs}; allowed: > 0")
    for name in ("data", "resolution", "width", "depth"):
        require(0 < getattr(f, name) <= 1, f"fidelity: {name} is {getattr(f, name)}; allowed: above 0, at most 1")
    known = p.parent is None or 0 <= p.parent < evaluated
    require(known, f"parent: {p.parent} is not one of the {evaluated} evaluations told so far")


def ask_before_tell(c: Candidate) -> None:
    """Asks that precede every tell are answered, with members; the first one is not empty."""
    for space in c.spaces:
        strategy = c.make(space)
        for i, n in enumerate((1, 5, 1, 7)):
            proposals = strategy.ask(n)
            require(len(proposals) <= n, f"{space.name}: ask({n}) gave {len(proposals)} proposals")
            require(i > 0 or len(proposals) > 0, f"{space.name}: the first ask gave nothing")
            for p in proposals:
                inside(space, p.architecture, "a proposal")


def tell_partial_and_reordered(c: Candidate) -> None:
    """`tell` takes observations in any order, late, and some never."""
    for space in c.spaces:
        strategy, late = c.make(space), list[Proposal]()
        for i in range(CALLS // 3):
            proposals = list(strategy.ask(3))
            strategy.tell([told(p) for p in reversed([*late, *proposals[1:]])])
            late = proposals[:1] if i % 2 else []
        strategy.tell([])
        goes_on(strategy, space)


def tell_foreign(c: Candidate) -> None:
    """`tell` takes observations of proposals that it did not make, repeated ones, and ones of no member."""
    for space in c.spaces:
        strategy, rng = c.make(space), generator()
        strangers = [
            Architecture("elsewhere", (0, 1)),
            Architecture(space.family, (77,)),
            Architecture(space.family, ()),
        ]
        strategy.tell([told(Proposal(a), 1.0) for a in strangers])
        for _ in range(CALLS // 3):
            answers = [told(p) for p in strategy.ask(2)]
            guest = told(Proposal(space.sample(rng)), 0.5)
            strategy.tell([*(told(Proposal(a), 1.0) for a in strangers), guest, *answers, *answers])
        goes_on(strategy, space)


def tell_nan(c: Candidate) -> None:
    """`tell` takes a score of NaN, even with the status "ok"."""
    for space in c.spaces:
        for always in (True, False):
            strategy = c.make(space)
            for i in range(CALLS):
                strategy.tell([told(p, math.nan if always or i % 2 else None) for p in strategy.ask(1)])
            goes_on(strategy, space)


def tell_failures(c: Candidate) -> None:
    """`tell` takes the status "invalid" and "crashed", also if all that was asked for has failed."""
    for space in c.spaces:
        for always in (True, False):
            strategy = c.make(space)
            for i in range(CALLS // 2):
                proposals = strategy.ask(2)
                status: Status = "invalid" if i % 2 else "crashed"
                strategy.tell([failed(p, status) if always or k else told(p) for k, p in enumerate(proposals)])
            goes_on(strategy, space)


def replays(c: Candidate) -> None:
    """The recorded calls, repeated on a new instance, give the same continuation as no interruption (R3)."""
    for space in c.spaces:
        whole, history = c.make(space), list[tuple[int, list[Proposal], list[Observation]]]()
        for i in range(CALLS // 3):
            n = 1 + i % 3
            proposals = list(whole.ask(n))
            answers = [failed(p, "crashed") if i == 2 else told(p) for p in reversed(proposals)][: max(1, n - 1)]
            whole.tell(answers)
            history.append((n, proposals, answers))
        again = c.make(space)
        for n, proposals, answers in history:
            same(space, lines(proposals), lines(again.ask(n)), "a replay differs from the recorded calls")
            again.tell(answers)
        same(space, lines(drive(whole, 8, 2)), lines(drive(again, 8, 2)), "after a replay the run goes on differently")


def leaves_its_arguments_alone(c: Candidate) -> None:
    """The space, and the observations that were told, are not changed; nor is what `ask` gave."""
    for space in c.spaces:
        before, strategy = _look(space), c.make(space)
        for _ in range(CALLS // 2):
            proposals = strategy.ask(2)
            answers = [
                Observation(p, score(p.architecture), objectives={"params": 1.0 + k}) for k, p in enumerate(proposals)
            ]
            kept, given = copy.deepcopy(answers), list(proposals)
            strategy.tell(answers)
            require(repr(answers) == repr(kept), f"{space.name}: tell changed the observations that it was given")
            require(list(proposals) == given, f"{space.name}: tell changed what an earlier ask had given")
        require(_look(space) == before, f"{space.name}: the space is another one after a run")


def _look(space: SearchSpace) -> str:
    members = some(space, 8)
    views = [(a, space.options(a.genes[:1]), list(space.neighbours(a)), space.text(a)) for a in members]
    return repr((space.name, space.family, space.size, space.levels, views))


def fixed_length_space(c: Candidate) -> None:
    """It works on a space of fixed length."""
    _works_on(c, FIXED)


def variable_length_space(c: Candidate) -> None:
    """It works on a space of variable length."""
    _works_on(c, VARIABLE)


def one_gene_space(c: Candidate) -> None:
    """It works on a space with a single gene that can change."""
    _works_on(c, ONE_GENE)


def tiny_spaces(c: Candidate) -> None:
    """It never raises on spaces of two members, though all have been asked for long ago."""
    for name in TINY:
        _works_on(c, name)


def _works_on(c: Candidate, name: str) -> None:
    space = c.own(name)
    for n in (1, 4):
        trace = drive(c.make(space), CALLS, n)
        require(bool(trace), f"{name}: the first ask gave nothing")
        for p in trace:
            inside(space, p.architecture, "a proposal")


def labels_do_not_matter(c: Candidate) -> None:
    """Relabelling the values of genes, where the space is symmetric, leaves the distribution of scores as it is (R4).

    Two samples of ten seeds, under a score and under its mirror image; 5 standard errors: a chance of 1 in 10^4.
    """
    space = c.own(FIXED)
    if getattr(c.cls, "deterministic", False):
        raise SkipTest("the class says that it is deterministic")
    low, high = space.options(())[0], space.options(())[-1]

    def rising(a: Architecture) -> float:
        return fmean((g - low) / (high - low) for g in a.genes)

    def mean(seed: int, truth: Callable[[Architecture], float]) -> float:
        strategy, scores = c.make(space, seed), list[float]()
        for _ in range(CALLS // 3):
            answers = [told(p, truth(p.architecture)) for p in strategy.ask(2)]
            strategy.tell(answers)
            scores += [o.score for o in answers]
        return fmean(scores) if scores else 0.0

    up = [mean(seed, rising) for seed in range(10)]
    down = [mean(seed, lambda a: 1 - rising(a)) for seed in range(10, 20)]
    gap, error = abs(fmean(up) - fmean(down)), math.sqrt((variance(up) + variance(down)) / 10)
    require(
        gap <= 5 * error + 1e-9,
        f"{space.name}: where large gene values are good the mean score is {fmean(up):.3f}, "
        f"where small ones are it is {fmean(down):.3f} (standard error {error:.3f})",
    )


STRATEGY_CHECKS: tuple[Callable[[Candidate], None], ...] = (
    takes_a_seed,
    same_seed_same_trace,
    same_trace_in_another_process,
    other_seed_other_trace,
    global_generators_are_left_alone,
    asks_are_members,
    ask_before_tell,
    tell_partial_and_reordered,
    tell_foreign,
    tell_nan,
    tell_failures,
    replays,
    leaves_its_arguments_alone,
    fixed_length_space,
    variable_length_space,
    one_gene_space,
    tiny_spaces,
    labels_do_not_matter,
)
