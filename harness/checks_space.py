"""The checks of search spaces. See `harness.checks`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import isfinite, prod, sqrt
from typing import Any
from unittest import SkipTest

import numpy as np

from ..methods import registry
from ..protocols import Architecture, IndexedSpace, SearchSpace, Task
from .checks_tools import DEEPEST, generator, global_generators, inside, refused, require, some, walk
from .faults import Violation

ENUMERABLE = 5_000
"""Members up to which a space is listed as a whole."""

TASKS = (
    Task("images", "image", "accuracy", True, (3, 8, 8), 10, "0" * 64),
    Task("table", "tabular", "accuracy", True, (13,), 3, "0" * 64),
    Task("numbers", "regression", "mse", False, (13,), None, "0" * 64),
    Task("words", "text", "perplexity", False, (12,), 20, "0" * 64),
)


def has_the_methods(space: SearchSpace) -> None:
    """It has every method and property of the contract; the family is the name without its restriction."""
    require(isinstance(space, SearchSpace), f"{space!r} lacks a method or property of nasbed.protocols.SearchSpace")
    family = registry.family(space.name)
    require(family == space.family, f"name: {space.name!r} does not begin with the family {space.family!r}")
    require(len(space.levels) > 0, f"{space.name}: levels is empty; it needs at least the default")


def name_round_trips(space: SearchSpace) -> None:
    """The full name, restriction included, gives an equal space."""
    base, options = registry.split_name(space.name)
    known = base in registry.names("spaces")
    again = registry.space(space.name) if known else type(space).from_options(options)
    for field in ("name", "family", "size", "levels"):
        one, two = getattr(space, field), getattr(again, field)
        require(one == two, f"{space.name}: built from its name, its {field} is {two!r} instead of {one!r}")
    for source, target in ((space, again), (again, space)):
        for a in some(source, 20):
            inside(target, a, "a member of the space, or of the one built from its name,")


def size_is_exact(space: SearchSpace) -> None:
    """The size is the number of distinct members; where they are too many to list, distinct members differ by index."""
    if space.size is None:
        raise SkipTest("the space is infinite")
    if space.size <= ENUMERABLE:
        count = len(set(_every(space, space.size + 1)))
        found = "more" if count > space.size else count
        require(count == space.size, f"{space.name}: size is {space.size}, but options() gives {found} members")
        return
    if not isinstance(space, IndexedSpace):
        raise SkipTest(f"more than {ENUMERABLE} members and no index")
    members = some(space, 200)
    positions = Counter(space.index(a) for a in members)
    position, times = positions.most_common(1)[0]
    require(times == 1, f"{space.name}: {times} members have the index {position}")


def options_generate_the_members(space: SearchSpace) -> None:
    """Walks through `options` end in members, and every member can be reached by one."""
    rng = generator()
    for _ in range(40):
        inside(space, walk(space, rng), "the end of a walk through options()")
    drawn = [space.sample(rng) for _ in range(40)]
    for a in [*drawn, *(_spread(space, 40) if isinstance(space, IndexedSpace) else ())]:
        for i, gene in enumerate(a.genes):
            allowed = space.options(a.genes[:i])
            require(gene in allowed, f"{space.name}: options({a.genes[:i]}) is {allowed}, without gene {i} of {a}")
            require(
                len(set(allowed)) == len(allowed), f"{space.name}: options({a.genes[:i]}) repeats a value: {allowed}"
            )
        require(not space.options(a.genes), f"{space.name}: {a} is complete, but options() still has values")


def check_refuses_strangers(space: SearchSpace) -> None:
    """`check` raises a ValueError of one line unless the architecture is a member."""
    [a] = some(space, 1)
    strangers = [
        Architecture("elsewhere", a.genes),
        Architecture(space.family, ()),
        Architecture(space.family, a.genes[:-1]),
        Architecture(space.family, (*a.genes, a.genes[-1])),
        Architecture(space.family, (*a.genes[:-1], 10**6)),
    ]
    for stranger in strangers:
        refused(lambda stranger=stranger: space.check(stranger), f"{space.name}: the stranger {stranger}")  # type: ignore[misc]


def sample_is_a_member(space: SearchSpace) -> None:
    """`sample` gives members."""
    rng = generator()
    for _ in range(100):
        inside(space, space.sample(rng), "a sample")


def sample_is_uniform(space: SearchSpace) -> None:
    """`sample` is uniform over the members (chi-square and largest deviation, from 40 expected draws per cell).

    A cell is a member, or in spaces of more than 500 one of 64 equal ranges of the index.
    """
    size, indexed = space.size, isinstance(space, IndexedSpace)
    if size is None or (size > 500 and not indexed):
        raise SkipTest("the space is infinite, or too large and without an index")
    cells = size if size <= 500 else 64
    if isinstance(space, IndexedSpace):
        cell: Callable[[Architecture], int] = lambda a: space.index(a) * cells // size  # noqa: E731
        members = np.array([-(-(i + 1) * size // cells) + (-i * size // cells) for i in range(cells)], np.float64)
    else:
        place = {a: i for i, a in enumerate(_every(space, size))}
        cell, members = place.__getitem__, np.ones(cells)
    draws = 40 * cells
    rng = generator()
    seen = np.bincount([cell(space.sample(rng)) for _ in range(draws)], minlength=cells)
    expected = members / members.sum() * draws
    worst = int(np.abs((seen - expected) / np.sqrt(expected)).argmax())
    deviation = abs(seen[worst] - expected[worst]) / sqrt(expected[worst])
    what = f"cell {worst} of {cells} was drawn {seen[worst]} times in {draws}, expected {expected[worst]:.1f}"
    # Six deviations of a Poisson count of 40: one in 10^7 for each cell.
    require(deviation < 6, f"{space.name}: sample() is not uniform: {what}")
    if cells > 1:
        z = _normal(float(((seen - expected) ** 2 / expected).sum()), cells - 1)
        require(z < 5, f"{space.name}: sample() is not uniform: the chi-square lies {z:.1f} deviations out; {what}")


def mutate_gives_a_neighbour(space: SearchSpace) -> None:
    """`mutate` gives one of the neighbours, never the architecture itself."""
    rng, moved = generator(), False
    for a in some(space, 12):
        neighbours = set(space.neighbours(a))
        for _ in range(8 if neighbours else 0):
            child, moved = space.mutate(a, rng), True
            require(child != a, f"{space.name}: mutate gave {a} itself")
            inside(space, child, f"a mutation of {a}")
            require(child in neighbours, f"{space.name}: mutate({a}) gave {child}, which is not among its neighbours")
    if not moved:
        raise SkipTest("no member has a neighbour")


def crossover_mixes_the_parents(space: SearchSpace) -> None:
    """`crossover` gives a member every gene of which comes from a parent; of equal parents, the parent."""
    rng = generator()
    parents = some(space, 16)
    for a, b in zip(parents, reversed(parents), strict=True):
        for _ in range(4):
            child = space.crossover(a, b, rng)
            inside(space, child, f"a child of {a} and {b}")
            new = set(child.genes) - {*a.genes, *b.genes}
            require(not new, f"{space.name}: the child {child} of {a} and {b} has the genes {sorted(new)} of neither")
        clone = space.crossover(a, a, rng)
        require(clone == a, f"{space.name}: crossover of {a} with itself gave {clone}")


def neighbours_are_members(space: SearchSpace) -> None:
    """Neighbours are members, each once, in a fixed order, and without the architecture itself."""
    for a in some(space, 12):
        neighbours = list(space.neighbours(a))
        for b in neighbours:
            inside(space, b, f"a neighbour of {a}")
        twice = [b for b, n in Counter(neighbours).items() if n > 1]
        require(not twice, f"{space.name}: neighbours({a}) has {twice[:1]} more than once")
        require(a not in neighbours, f"{space.name}: {a} is among its own neighbours")
        require(neighbours == list(space.neighbours(a)), f"{space.name}: neighbours({a}) has no fixed order")


def neighbours_are_symmetric(space: SearchSpace) -> None:
    """A neighbour's neighbours hold the architecture."""
    rng = generator()
    for a in some(space, 12):
        neighbours = list(space.neighbours(a))
        for i in rng.permutation(len(neighbours))[:12].tolist():
            back = a in set(space.neighbours(neighbours[i]))
            require(back, f"{space.name}: {neighbours[i]} is a neighbour of {a}, but not the other way round")


def canonical_is_idempotent(space: SearchSpace) -> None:
    """At every level the representative represents itself; no level means the default; an unknown one is refused."""
    for a in some(space, 40):
        for level in space.levels:
            b = space.canonical(a, level)
            c = space.canonical(b, level)
            require(b == c, f"{space.name}: at level {level!r} {a} becomes {b}, and that becomes {c}")
        require(
            space.canonical(a) == space.canonical(a, space.levels[0]), f"{space.name}: the default level is not first"
        )
        refused(lambda a=a: space.canonical(a, "no such level"), f"{space.name}: the level 'no such level'")  # type: ignore[misc]


def canonical_stays_inside(space: SearchSpace) -> None:
    """At the default level the representative is a member and has the same number of parameters."""
    task, counted = _task(space), 0
    for a in some(space, 40):
        b = space.canonical(a)
        inside(space, b, f"the representative of {a}")
        if a != b and counted < 2:  # networks of many cells take long to build
            counted += 1
            one, two = (sum(p.numel() for p in space.build(x, task).parameters()) for x in (a, b))
            require(one == two, f"{space.name}: {a} has {one} parameters, its representative {b} has {two}")


def canonical_preserves_the_function(space: SearchSpace) -> None:
    """At the default level a member and its representative are one function, as weights shared between both show."""
    from .checks_sameness import same_function

    task = _task(space)
    pairs = [(a, b) for a in some(space, 100) if (b := space.canonical(a)) != a]
    if not pairs:
        raise SkipTest("every member represents itself")
    a, b = pairs[0]
    inside(space, b, f"the representative of {a}")
    same = same_function(space.build(a, task), space.build(b, task), task)
    require(same, f"{space.name}: {a} and its representative {b} are different functions of their weights")


def text_round_trips(space: SearchSpace) -> None:
    """`parse` reads `text` back, `Architecture.parse` reads `str` back, and no two members share a text."""
    members = some(space, 40)
    texts = [space.text(a) for a in members]
    for a, text in zip(members, texts, strict=True):
        require("\n" not in text, f"{space.name}: the text of {a} has more than one line")
        require((b := space.parse(text)) == a, f"{space.name}: the text of {a} is {text!r}, which is read as {b}")
        require(Architecture.parse(str(a)) == a, f"{space.name}: {a} is not read back from its own text form")
    text, times = Counter(texts).most_common(1)[0]
    require(times == 1, f"{space.name}: {times} members have the text {text!r}")


def index_round_trips(space: SearchSpace) -> None:
    """`at` inverts `index`, which numbers the members from 0 to size - 1; positions outside are refused."""
    if not isinstance(space, IndexedSpace) or space.size is None:
        raise SkipTest("the space has no index")
    for a in some(space, 40):
        i = space.index(a)
        require(0 <= i < space.size, f"{space.name}: the index of {a} is {i}; allowed: 0 to {space.size - 1}")
        require((b := space.at(i)) == a, f"{space.name}: {a} has the index {i}, where {b} stands")
    for a in _spread(space, 40):
        inside(space, a, "a member by index")
    for i in (-1, space.size):
        refused(lambda i=i: space.at(i), f"{space.name}: at({i})")  # type: ignore[misc]


def encodings_are_fixed_length_vectors(space: SearchSpace) -> None:
    """Every encoding gives float64 vectors, finite, of one length; no name means the first."""
    require("one_hot" in space.encodings, f"{space.name}: encodings are {space.encodings}, without 'one_hot'")
    members = some(space, 40)
    for encoding in space.encodings:
        codes = [(a, space.encode(a, encoding)) for a in members]
        length = codes[0][1].shape
        for a, code in codes:
            what = f"{space.name}: encode({a}, {encoding!r})"
            require(code.dtype == np.float64, f"{what} has the type {code.dtype}, not float64")
            require(code.ndim == 1, f"{what} has {code.ndim} axes, not 1")
            require(code.shape == length, f"{what} has the shape {code.shape}, others have {length}")
            require(bool(np.isfinite(code).all()), f"{what} holds a value that is not finite")
    [a] = members[:1]
    same = np.array_equal(space.encode(a), space.encode(a, space.encodings[0]))
    require(same, f"{space.name}: the default encoding is not the first")
    refused(lambda: space.encode(a, "no such encoding"), f"{space.name}: the encoding 'no such encoding'")


def one_hot_tells_members_apart(space: SearchSpace) -> None:
    """No two members share their one-hot encoding."""
    codes = Counter(space.encode(a, "one_hot").tobytes() for a in some(space, 40))
    require(max(codes.values()) == 1, f"{space.name}: two members have one and the same one-hot encoding")


def draw_gives_a_picture(space: SearchSpace) -> None:
    """`draw` gives an SVG of its own size, without scripts or links, the same for equal architectures."""
    from xml.etree import ElementTree

    for a in some(space, 8):
        picture = space.draw(a)
        root = ElementTree.fromstring(picture)
        what = f"{space.name}: the drawing of {a}"
        require(root.tag.endswith("}svg"), f"{what} is a {root.tag}, not an svg")
        require(all(float(root.get(key, "0")) > 0 for key in ("width", "height")), f"{what} has no size")
        foreign = [e.tag for e in root.iter() if e.tag.endswith(("}script", "}image", "}a", "}foreignObject"))]
        require(not foreign, f"{what} holds {foreign[:1]}")
        require(picture._repr_svg_() == picture == space.draw(a), f"{what} differs from call to call")


def configspace_round_trips(space: SearchSpace) -> None:
    """Configurations of `to_configspace` are members, and its size is that of the space where it is finite."""
    try:
        import ConfigSpace  # noqa: F401
    except ImportError:
        raise SkipTest("ConfigSpace is not installed") from None
    configurations = space.to_configspace()
    seen = set()
    for configuration in configurations.sample_configuration(30):
        a = space.from_configspace(dict(configuration))
        inside(space, a, f"the member for {dict(configuration)}")
        seen.add(a)
    require(len(seen) > 1 or space.size == 1, f"{space.name}: 30 configurations all give the same member")
    if space.size is not None and not configurations.conditions:  # otherwise the library gives a bound only
        size = prod(hyperparameter.size for hyperparameter in configurations.values())
        require(size == space.size, f"{space.name}: {space.size} members, but {size} configurations")
    refused(lambda: space.from_configspace({}), f"{space.name}: a configuration without hyper-parameters")


def features_are_complete(space: SearchSpace) -> None:
    """Features hold params, macs, flops (= 2 macs), depth and whole operation counts; all finite and at least 0."""
    task = _task(space)
    for a in some(space, 2):
        found = space.features(a, task)
        missing = {"params", "macs", "flops", "depth"} - set(found)
        require(not missing, f"{space.name}: the features of {a} lack {', '.join(sorted(missing))}")
        for name, value in found.items():
            require(isfinite(value) and value >= 0, f"{space.name}: the feature {name} of {a} is {value}")
            whole = not name.startswith("n_") or value == int(value)
            require(whole, f"{space.name}: the count {name} of {a} is {value}")
        twice = 2 * found["macs"]
        require(found["flops"] == twice, f"{space.name}: flops of {a} are {found['flops']}, not 2 macs = {twice}")


def params_are_those_of_the_network(space: SearchSpace) -> None:
    """The feature `params` is the number of parameters of the network that `build` gives."""
    task = _task(space)
    for a in some(space, 2):
        stated = space.features(a, task)["params"]
        real = sum(p.numel() for p in space.build(a, task).parameters())
        require(stated == real, f"{space.name}: {a} is said to have {stated:g} parameters, its network has {real}")


def build_is_on_the_meta_device(space: SearchSpace) -> None:
    """`build` gives an uninitialised network on the meta device and draws nothing, not even from torch."""
    import torch

    task = _task(space)
    members = some(space, 3)
    with global_generators(1) as drawn:
        for a in members:
            network = space.build(a, task)
            require(isinstance(network, torch.nn.Module), f"{space.name}: build({a}) gave {type(network).__name__}")
            for name, tensor in (*network.named_parameters(), *network.named_buffers()):
                require(
                    tensor.is_meta, f"{space.name}: {name} of the network of {a} is on {tensor.device}, not on meta"
                )
        require((used := drawn()) is None, f"{space.name}: build used the global generator of {used}")


def training_overrides_are_json(space: SearchSpace) -> None:
    """`training` gives a mapping from field names to JSON values."""
    for a in some(space, 12):
        found = space.training(a)
        require(isinstance(found, Mapping), f"{space.name}: training({a}) is {found!r}, not a mapping")
        try:
            json.dumps(dict(found), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise Violation(f"{space.name}: training({a}) has no JSON form: {error}") from None


def moves_draw_from_the_generator_only(space: SearchSpace) -> None:
    """Randomness comes from the generator passed in and from nothing else: equal generators, equal moves."""
    a, *others = some(space, 2)
    moves: dict[str, Callable[[np.random.Generator], Architecture]] = {"sample": space.sample}
    moves["crossover"] = lambda rng: space.crossover(a, others[0] if others else a, rng)
    if space.neighbours(a):
        moves["mutate"] = lambda rng: space.mutate(a, rng)
    for name, move in moves.items():
        runs = []
        for seed in (1, 2):
            with global_generators(seed) as drawn:
                rng = generator()
                runs.append([move(rng) for _ in range(20)])
                require((used := drawn()) is None, f"{space.name}: {name} used the global generator of {used}")
        require(runs[0] == runs[1], f"{space.name}: {name} gives other architectures for an equal generator")


def errors_are_one_line(space: SearchSpace) -> None:
    """Malformed text and unknown options are refused with a ValueError of one line."""
    for text in ("", "no such architecture", "a\nb", "\x00|~+/"):
        refused(lambda text=text: space.parse(text), f"{space.name}: parse({text!r})")  # type: ignore[misc]
    options = {"no_such_option": ("1",)}
    refused(lambda: type(space).from_options(options), f"{space.name}: the option no_such_option")


def _every(space: SearchSpace, limit: int) -> Iterator[Architecture]:
    """Members in the order of `options`, at most `limit`."""
    open_prefixes: list[tuple[int, ...]] = [()]
    while open_prefixes and limit > 0:
        prefix = open_prefixes.pop()
        require(len(prefix) <= DEEPEST, f"{space.name}: options() still has values after {DEEPEST} genes")
        if options := space.options(prefix):
            open_prefixes += [(*prefix, gene) for gene in reversed(options)]
        else:
            limit -= 1
            yield Architecture(space.family, prefix)


def _spread(space: IndexedSpace, count: int) -> list[Architecture]:
    """Members at evenly spread positions, the first and the last among them."""
    size = space.size or 1
    return [space.at(i) for i in sorted({k * (size - 1) // (count - 1) for k in range(count)})]


def _task(space: SearchSpace) -> Task:
    """The first of some learning problems that the space has networks for."""
    [a] = some(space, 1)
    refusals = []
    for task in TASKS:
        try:
            space.build(a, task)
        except ValueError as error:
            refusals.append(str(error))
        else:
            return task
    raise Violation(f"{space.name}: build() refuses images, tables, numbers and text: {refusals[0]}")


def _normal(chi_square: float, freedom: int) -> float:
    """Wilson & Hilferty (1931): the cube root of a chi-square is nearly normal; returns its standard score."""
    spread = 2 / (9 * freedom)
    return float(((chi_square / freedom) ** (1 / 3) - (1 - spread)) / sqrt(spread))


SPACE_CHECKS: tuple[Callable[[Any], None], ...] = (
    has_the_methods,
    name_round_trips,
    size_is_exact,
    options_generate_the_members,
    check_refuses_strangers,
    sample_is_a_member,
    sample_is_uniform,
    mutate_gives_a_neighbour,
    crossover_mixes_the_parents,
    neighbours_are_members,
    neighbours_are_symmetric,
    canonical_is_idempotent,
    canonical_stays_inside,
    canonical_preserves_the_function,
    text_round_trips,
    index_round_trips,
    encodings_are_fixed_length_vectors,
    one_hot_tells_members_apart,
    draw_gives_a_picture,
    configspace_round_trips,
    features_are_complete,
    params_are_those_of_the_network,
    build_is_on_the_meta_device,
    training_overrides_are_json,
    moves_draw_from_the_generator_only,
    errors_are_one_line,
)
