"""The checks of weight-sharing strategies. See `harness.checks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite

from ..protocols import (
    COST_KINDS,
    Cost,
    DataView,
    Pipeline,
    SearchSpace,
    Setting,
    Split,
    Task,
    WeightSharingStrategy,
)
from .checks_tools import Candidate, generator, global_generators, inside, require, same

EPOCHS = 2
"""Of a check's run: what an epoch breaks, two show."""


def setting_for(space: SearchSpace) -> Setting:
    """A learning problem of 80 noise images, 8 x 8 pixels and 10 classes, and a trainer for it on the CPU."""
    from ..protocols.training import ReferenceTrainer

    rng = generator()
    task = Task("noise", "image", "accuracy", True, (1, 8, 8), 10, "0" * 64)
    train, valid = (
        Split(rng.standard_normal((n, *task.shape), dtype="float32"), rng.integers(10, size=n)) for n in (48, 32)
    )
    return Setting(
        task,
        "epochs",
        Pipeline("check", "adam", 1e-3, EPOCHS, 16),
        lambda a: 0,
        data=DataView(task, train, valid),
        trainer=ReferenceTrainer(space, device="cpu"),
    )


def built(c: Candidate, seed: int = 0) -> Iterator[tuple[SearchSpace, WeightSharingStrategy]]:
    """A new instance for each space that it takes: a supernet need not exist for all, a ValueError says so."""
    refusals = []
    for space in c.spaces:
        try:
            strategy: WeightSharingStrategy = c.cls(space, setting_for(space), seed=seed, **c.params)
        except ValueError as error:
            refusals.append(f"{space.name}: {error}")
            continue
        yield space, strategy
    require(len(refusals) < len(c.spaces), f"{c.cls.__name__} takes none of the spaces: {'; '.join(refusals)}")


def epochs(strategy: WeightSharingStrategy) -> list[str]:
    """A short run as text: per epoch, its costs and the incumbent."""
    return [f"{list(strategy.train_epoch())} {strategy.incumbent()}" for _ in range(EPOCHS)]


def sharing_takes_setting_and_seed(c: Candidate) -> None:
    """It is built as cls(space, setting, *, seed, **params), and no seed is assumed where none is given."""
    for space, strategy in built(c):
        require(isinstance(strategy, WeightSharingStrategy), f"{c.cls.__name__} has no train_epoch or no incumbent")
        try:
            c.cls(space, setting_for(space), **c.params)
        except TypeError:
            continue
        require(False, f"{c.cls.__name__} can be built without a seed; make `seed` a keyword without default")


def sharing_incumbent_is_a_member(c: Candidate) -> None:
    """The incumbent is a member of the space, after every epoch; asking for it twice gives the same one."""
    for space, strategy in built(c):
        for _ in range(EPOCHS):
            strategy.train_epoch()
            incumbent = strategy.incumbent()
            inside(space, incumbent, "the incumbent")
            again = strategy.incumbent()
            require(again == incumbent, f"{space.name}: the incumbent is {incumbent}, and asked again {again}")


def sharing_costs_are_valid(c: Candidate) -> None:
    """Every epoch says what it cost: charges of a known kind, finite, at least 0, and together more than 0."""
    for space, strategy in built(c):
        for epoch in range(EPOCHS):
            costs: Sequence[Cost] = strategy.train_epoch()
            require(epoch > 0 or len(costs) > 0, f"{space.name}: the first epoch cost nothing, which means the end")
            for cost in costs:
                require(isinstance(cost, Cost), f"{space.name}: epoch {epoch} cost {cost!r}, not a Cost")
                require(cost.kind in COST_KINDS, f"{space.name}: cost kind {cost.kind!r} is not one of {COST_KINDS}")
                right = isfinite(cost.amount) and cost.amount >= 0
                require(right, f"{space.name}: epoch {epoch} cost {cost.amount}; allowed: finite, at least 0")
            spent = sum(cost.amount for cost in costs)
            require(not costs or spent > 0, f"{space.name}: epoch {epoch} is free, so a run would never end")


def sharing_same_seed_same_epochs(c: Candidate) -> None:
    """The same seed gives the same costs and the same incumbents."""
    for (space, one), (_, two) in zip(built(c), built(c), strict=True):
        same(space, epochs(one), epochs(two), "two runs with one seed differ")


def sharing_global_generators_are_left_alone(c: Candidate) -> None:
    """The global generators of random, numpy and torch are neither read nor changed."""
    traces = []
    for seed in (1, 2):
        with global_generators(seed) as drawn:
            for space, strategy in built(c):
                traces.append((space, epochs(strategy)))
                require((name := drawn()) is None, f"{space.name}: the global generator of {name} was used")
    half = len(traces) // 2
    for (space, one), (_, two) in zip(traces[:half], traces[half:], strict=True):
        same(space, one, two, "the seed of a global generator changes the run")


SHARING_CHECKS: tuple[Callable[[Candidate], None], ...] = (
    sharing_takes_setting_and_seed,
    sharing_incumbent_is_a_member,
    sharing_costs_are_valid,
    sharing_same_seed_same_epochs,
    sharing_global_generators_are_left_alone,
)
