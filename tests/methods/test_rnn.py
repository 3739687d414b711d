"""Recurrent cells of ENAS and DARTS: counts, relabellings, notations, and the network against numpy."""

from __future__ import annotations

from collections import Counter
from itertools import permutations, product
from math import exp, factorial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator, default_rng
from scipy.stats import chisquare

from nasbed.methods import registry
from nasbed.methods.networks.counting import measured
from nasbed.methods.spaces.rnn import ACTIVATIONS, RNN, published_size
from nasbed.protocols import Architecture, IndexedSpace, Task

Genes = tuple[int, ...]
NAMES = ("rnn[nodes=5;units=3]", "rnn[cell=darts;nodes=4;units=3]", "rnn[nodes=5;units=3;highway=no]")


def text_task(length: int = 6, words: int = 11) -> Task:
    return Task("text:toy", "text", "perplexity", False, (length,), words, "0")


def member(genes: Genes) -> Architecture:
    return Architecture("rnn", genes)


# --- second implementations -----------------------------------------------------------------------------------


def as_tree(cell: str, genes: Genes) -> tuple[dict[int, int], dict[int, int]]:
    """What each node reads and which activation it applies, the nodes numbered as in the papers."""
    if cell == "enas":
        genes = (0, *genes)
    reads = {node: genes[2 * node - 2] for node in range(1, len(genes) // 2 + 1)}
    return reads, {node: genes[2 * node - 1] for node in reads}


def as_genes(cell: str, reads: dict[int, int], applies: dict[int, int]) -> Genes:
    flat = [gene for node in sorted(reads) for gene in (reads[node], applies[node])]
    return tuple(flat[cell == "enas" :])


def relabelled(cell: str, genes: Genes, new: dict[int, int]) -> Genes | None:
    """The cell with node k called new[k]; None where a node would read a later one."""
    reads, applies = as_tree(cell, genes)
    new = {0: 0, **new}
    if any(new[reads[node]] >= new[node] for node in reads):
        return None
    return as_genes(
        cell,
        {new[node]: new[source] for node, source in reads.items()},
        {new[node]: f for node, f in applies.items()},
    )


def random_relabelling(cell: str, genes: Genes, rng: Generator) -> dict[int, int]:
    """New numbers in a random order in which every node comes after the one that it reads."""
    reads, _ = as_tree(cell, genes)
    new = {0: 0}
    while len(new) <= len(reads):
        ready = [node for node in reads if node not in new and reads[node] in new]
        new[ready[int(rng.integers(len(ready)))]] = len(new)
    return new


def nested(cell: str, genes: Genes) -> object:
    """The tree without numbers, as sorted nested tuples (Aho, Hopcroft & Ullman)."""
    reads, applies = as_tree(cell, genes)

    def form(node: int) -> tuple[object, ...]:
        below = sorted(form(reader) for reader, source in reads.items() if source == node)
        return (applies.get(node, -1), *below)

    return form(0)


def rooted_trees(nodes: int, colours: int) -> int:
    """Rooted trees with coloured nodes, by Cayley's recurrence (the Euler transform)."""
    count = [0, colours]
    for n in range(1, nodes):
        weights = [sum(d * count[d] for d in range(1, k + 1) if k % d == 0) for k in range(1, n + 1)]
        count.append(sum(w * count[n - k] for k, w in enumerate(weights)) // n)
    return count[nodes]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


FUNCTIONS = (np.tanh, lambda x: np.maximum(x, 0), lambda x: x, sigmoid)


def reference(space: RNN, genes: Genes, w: dict[str, np.ndarray], words: np.ndarray) -> np.ndarray:
    """Logits of one text, node by node, after the papers' formulas and the gate of their code."""
    reads, applies = as_tree(space.cell, genes)
    u = space.units
    h = np.zeros(u)
    logits = []

    def node(value: np.ndarray, before: np.ndarray, f: int) -> np.ndarray:
        if not space.highway:
            return FUNCTIONS[f](value)
        c = sigmoid(value[u:])
        return c * FUNCTIONS[f](value[:u]) + (1 - c) * before

    for word in words:
        both = w["cell.read.weight"] @ w["embedding.weight"][word] + w["cell.recur.weight"] @ h
        value = {0: node(both, h, 0)} if space.cell == "darts" else {1: node(both, h, applies[1])}
        for k in range(1 if space.cell == "darts" else 2, space.nodes + 1):
            source = value[reads[k]]
            value[k] = node(w[f"cell.nodes.{k - min(value) - 1}.weight"] @ source, source, applies[k])
        if space.cell == "darts":
            mean = [value[k] for k in range(1, space.nodes + 1)]
        else:
            mean = [value[k] for k in value if k not in reads.values()]
        h = np.mean(mean, axis=0)
        logits.append(w["decoder.weight"] @ h + w["decoder.bias"])
    return np.stack(logits)


def filled(space: RNN, a: Architecture, task: Task, seed: int) -> torch.nn.Module:
    """The network with random weights, in float64."""
    network = space.build(a, task).to_empty(device="cpu").double()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=rng, dtype=torch.float64) * 0.7)
    return network


# --- counts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("rnn", 669_692_775_628_800),
        ("rnn[nodes=4]", 1_536),
        ("rnn[nodes=1]", 4),
        ("rnn[nodes=4;activations=relu]", 6),
        ("rnn[cell=darts]", 2_642_411_520),
        ("rnn[cell=darts;nodes=3;activations=tanh,relu]", 48),
    ],
)
def test_sizes(name: str, size: int) -> None:
    space = registry.space(name)
    assert isinstance(space, IndexedSpace)
    assert space.name == name
    assert space.size == size


def test_the_published_size_counts_one_predecessor_too_many() -> None:
    assert published_size(12) == 8_036_313_307_545_600 == 4**12 * factorial(12)
    assert published_size(4) == 6_144 == 4 * RNN(nodes=4).size
    assert RNN("darts").size == published_size(8)  # there node 0 is a predecessor more


def test_class_counts_match_the_number_of_coloured_rooted_trees() -> None:
    assert [rooted_trees(n, 1) for n in range(1, 8)] == [1, 1, 2, 4, 9, 20, 48]  # Cayley 1857
    for cell, nodes, k in (("enas", 4, 4), ("enas", 6, 2), ("enas", 7, 1), ("darts", 3, 4), ("darts", 4, 2)):
        space = RNN(cell, nodes, activations=ACTIVATIONS[:k])
        members = [space.at(i) for i in range(space.size)]
        classes = {space.canonical(a) for a in members}
        trees = rooted_trees(nodes, k) if cell == "enas" else rooted_trees_below_a_plain_root(nodes, k)
        assert len(classes) == len({nested(cell, a.genes) for a in members}) == trees
    # The numbers of the docstring.
    assert rooted_trees(4, 4) == 752
    assert rooted_trees(12, 4) == 32_976_302_800
    assert rooted_trees_below_a_plain_root(8, 4) == 9_345_761


def rooted_trees_below_a_plain_root(nodes: int, colours: int) -> int:
    return rooted_trees(nodes + 1, colours) // colours


@pytest.mark.parametrize("name", ["rnn[nodes=4]", "rnn[cell=darts;nodes=4;activations=relu,sigmoid]"])
def test_the_representative_is_the_smallest_of_all_relabellings(name: str) -> None:
    space = registry.space(name)
    assert isinstance(space, RNN)
    orders = [dict(enumerate(p, 1)) for p in permutations(range(1, 5))]
    for i in range(space.size):
        a = space.at(i)
        alike = [genes for new in orders if (genes := relabelled(space.cell, a.genes, new)) is not None]
        assert a.genes in alike
        assert space.canonical(a).genes == min(alike)
        assert space.canonical(a, "raw") == a


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(["rnn", "rnn[cell=darts]", "rnn[nodes=20;activations=tanh,relu]"]), st.integers(0, 2**32))
def test_relabelled_cells_have_one_representative(name: str, seed: int) -> None:
    space, rng = registry.space(name), default_rng(seed)
    assert isinstance(space, RNN)
    a = space.sample(rng)
    genes = relabelled(space.cell, a.genes, random_relabelling(space.cell, a.genes, rng))
    assert genes is not None
    b = member(genes)
    space.check(b)
    representative = space.canonical(a)
    assert space.canonical(b) == representative == space.canonical(representative)
    assert representative.genes <= min(a.genes, b.genes)
    assert nested(space.cell, representative.genes) == nested(space.cell, a.genes)


def test_sampling_is_uniform_over_the_sequences() -> None:
    space, rng = RNN(nodes=3, activations=("tanh", "relu")), default_rng(5)
    seen = Counter(space.index(space.sample(rng)) for _ in range(40 * space.size))
    assert chisquare([seen[i] for i in range(space.size)]).pvalue > 1e-3


def test_moves_of_the_full_cells() -> None:
    # 3 other activations a node, and for node l one predecessor less than there are.
    for space, expected in ((RNN(), 12 * 3 + sum(range(11))), (RNN("darts"), 8 * 3 + sum(range(8)))):
        assert len(space.neighbours(space.at(space.size // 3))) == expected


# --- notations ------------------------------------------------------------------------------------------------

ENAS_IN_DARTS = [
    *(("tanh", 0), ("tanh", 1), ("relu", 1), ("tanh", 3), ("tanh", 3), ("relu", 3)),
    *(("relu", 4), ("relu", 7), ("relu", 8), ("relu", 8), ("relu", 8)),
]


def test_the_loose_ends_of_the_published_cell() -> None:
    # genotypes.ENAS of the DARTS code: nodes from 0, the first a tanh, the mean over 2, 5, 6, 9, 10, 11.
    space = RNN()
    a = space.parse(" ".join(["tanh", *(f"{f}@{source + 1}" for f, source in ENAS_IN_DARTS)]))
    graph = space.graphs(a)["cell"]
    ends = [int(graph.nodes[source].name) - 1 for source, target, _ in graph.edges if target == len(graph.nodes) - 1]
    assert ends == [2, 5, 6, 9, 10, 11]
    assert (graph.count("tanh"), graph.count("relu"), graph.depth, graph.inputs) == (5, 7, 7, 2)


def test_the_published_cell_of_darts() -> None:
    text = (
        "Genotype(recurrent=[('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3), ('relu', 4), ('identity', 1), "
        "('relu', 5), ('relu', 1)], concat=range(1, 9))"
    )
    space = RNN("darts")
    a = space.parse(text)
    assert space.text(a) == text
    assert space.parse(text.replace("range(1, 9)", "[1, 2, 3, 4, 5, 6, 7, 8]")) == a
    graph = space.graphs(a)["cell"]
    ends = [graph.nodes[source].name for source, target, _ in graph.edges if target == len(graph.nodes) - 1]
    assert ends == list("12345678")
    assert graph.depth == 6
    assert [graph.count(f) for f in ACTIVATIONS] == [1, 6, 1, 0]


def test_the_arc_of_the_enas_code() -> None:
    # fixed_arc of ptb_final.sh: activation of the first node, then predecessor and activation, all from 0.
    space = RNN()
    a = space.parse("0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1")
    assert space.text(a) == ("tanh tanh@1 relu@2 relu@3 tanh@3 tanh@3 relu@6 tanh@2 relu@7 relu@9 relu@9 relu@9")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["rnn", "rnn[cell=darts]", *NAMES, "rnn[nodes=1]"]), st.integers(0, 2**32))
def test_texts_round_trip(name: str, seed: int) -> None:
    space = registry.space(name)
    a = space.sample(default_rng(seed))
    assert space.parse(space.text(a)) == a


def test_no_two_members_share_a_text() -> None:
    for name in ("rnn[nodes=4]", "rnn[cell=darts;nodes=3]"):
        space = registry.space(name)
        assert isinstance(space, RNN)
        assert len({space.text(space.at(i)) for i in range(space.size)}) == space.size


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "0 nodes"),
        ("tanh relu@1", "2 nodes"),
        ("tanh relu@1 sine@2", "node 3 is 'sine@2'"),
        ("tanh relu@2 relu@1", "node 2 is 'relu@2'"),
        ("tanh relu@0 relu@1", "node 2 is 'relu@0'"),
        ("tanh relu relu@1", "node 2 is 'relu'"),
        ("tanh@1 relu@1 relu@1", "node 1 is 'tanh@1'"),
        ("tanh identity@1 relu@1", "node 2 is 'identity@1'"),
        (f"tanh relu@1 relu@{'9' * 5000}", "node 3 is"),
        ("0 0 1 0", "4 numbers"),
        ("0 0 7 0 1", "node 2 is '7@1'"),
        ("0 1 0 0 1", "node 2 is 'tanh@2'"),
        ("0 0 2 0 1", "node 2 is 'identity@1'"),
        ("0 0 1", "2 nodes"),
    ],
)
def test_malformed_enas_texts(text: str, named: str) -> None:
    space = RNN(nodes=3, activations=("tanh", "relu", "sigmoid"))
    with pytest.raises(ValueError, match=named) as error:
        space.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("recurrent", "concat", "named"),
    [
        ("[('tanh', 0), ('sine', 1)]", "range(1, 3)", "node 2 is 'sine@1'"),
        ("[('none', 0), ('relu', 1)]", "range(1, 3)", "node 1 is 'none@0'"),
        ("[('tanh', 1), ('relu', 1)]", "range(1, 3)", "node 1 is 'tanh@1'"),
        ("[('tanh', 0), ('relu', 2)]", "range(1, 3)", "node 2 is 'relu@2'"),
        ("[('tanh', 0), ('relu', -1)]", "range(1, 3)", "node 2 is 'relu@-1'"),
        ("[('tanh', 0), ('relu', True)]", "range(1, 3)", "node 2 is "),
        ("[('tanh', 0), 3]", "range(1, 3)", "node 2 is 3"),
        ("[('tanh', 0)]", "range(1, 2)", "1 nodes"),
        ("[('tanh', 0), ('relu', 1)]", "range(0, 3)", r"concat is range\(0, 3\)"),
        ("[('tanh', 0), ('relu', 1)]", "[2]", r"concat is \[2\]"),
        ("[('tanh', 0), ('relu', 1)]", "range(1, 10**9)", "not of the form"),
        ("[('tanh', 0), ('relu', 1)]", "range(1, 1000000000)", "concat is range"),
        ("[('tanh', 0), ('relu', 1)]", "print(1, 3)", "not of the form"),
        ("[('tanh', 0), ('relu', 1)]", "7", "not of the form"),
        ("print(1)", "range(1, 3)", "not of the form"),
        ("{}", "range(1, 3)", "not of the form"),
        ("[('tanh', 0), ('relu', 1)]", "range(1, 3), more=1", "not of the form"),
    ],
)
def test_malformed_genotypes(recurrent: str, concat: str, named: str) -> None:
    with pytest.raises(ValueError, match=named) as error:
        RNN("darts", nodes=2).parse(f"Genotype(recurrent={recurrent}, concat={concat})")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["", "tanh relu@1", "Genotype()", "Genotype(1)", "x\ny", "\x00", "(" * 5000, "f.g(recurrent=[])", "9" * 9000],
)
def test_what_is_no_genotype(text: str) -> None:
    with pytest.raises(ValueError, match="not of the form Genotype") as error:
        RNN("darts", nodes=2).parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("rnn[cell=lstm]", "cell is 'lstm'; allowed: enas, darts"),
        ("rnn[nodes=0]", "nodes is 0"),
        ("rnn[nodes=x]", "nodes is 'x'"),
        ("rnn[units=0]", "units is 0"),
        ("rnn[activations=tanh,tanh]", "activations is 'tanh,tanh'"),
        ("rnn[activations=sine]", "activations is 'sine'"),
        ("rnn[highway=maybe]", "highway is 'maybe'; allowed: yes, no"),
        ("rnn[cell=darts;highway=no]", "highway is 'no' with cell=darts"),
        ("rnn[layers=2]", "option 'layers'"),
    ],
)
def test_bad_options(name: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        registry.space(name)


def test_names_hold_what_differs_from_the_default() -> None:
    assert registry.space("rnn[cell=enas;nodes=12;units=64;highway=yes]").name == "rnn"
    assert registry.space("rnn[nodes=8;cell=darts]").name == "rnn[cell=darts]"
    assert registry.space("rnn[nodes=8]").name == "rnn[nodes=8]"
    full = "rnn[nodes=3;units=9;activations=tanh,sigmoid;highway=no]"
    assert registry.space("rnn[highway=no;units=9;activations=sigmoid,tanh;nodes=3]").name == full


@pytest.mark.parametrize("nodes", [1, 4, 8])
def test_a_cell_is_a_member_of_one_kind_only(nodes: int) -> None:
    enas, rng = RNN(nodes=nodes), default_rng(0)
    darts = [RNN("darts", nodes=n) for n in (nodes - 1, nodes, nodes + 1) if n]
    a = enas.sample(rng)
    for space in darts:
        with pytest.raises(ValueError, match="genes"):
            space.check(a)
        with pytest.raises(ValueError, match="genes"):
            enas.check(space.sample(rng))


# --- the network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_network_equals_numpy(name: str) -> None:
    space, task = registry.space(name), text_task()
    assert isinstance(space, RNN)
    words = torch.from_numpy(default_rng(2).integers(11, size=(2, 6)))
    for seed in range(12):
        a = space.sample(default_rng(seed))
        network = filled(space, a, task, seed)
        w = {k: v.numpy() for k, v in network.state_dict().items()}
        with torch.no_grad():
            out = network(words).numpy()
        for text, logits in zip(words.numpy(), out, strict=True):
            np.testing.assert_allclose(logits, reference(space, a.genes, w, text), rtol=1e-10, atol=1e-10)


def test_every_chain_of_two_activations_by_hand() -> None:
    # One unit, one word: node 2 of the weight 3 reads node 1 of the weight 2; the loose end is node 2.
    space, task = RNN(nodes=2, units=1, highway=False), text_task(1, 1)
    for one, two in product(range(4), repeat=2):
        network = filled(space, member((one, 1, two)), task, 0)
        values = {"embedding": 1.0, "cell.read": 2.0, "cell.nodes.0": 3.0, "decoder": 1.0}
        with torch.no_grad():
            for layer, value in values.items():
                network.get_submodule(layer).weight.fill_(value)
            network.decoder.bias.zero_()
            out = network(torch.zeros(1, 1, dtype=torch.int64))
        assert out.item() == pytest.approx(FUNCTIONS[two](3 * FUNCTIONS[one](np.float64(2.0))), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_relabelled_cells_are_the_same_function(name: str) -> None:
    space, task, rng = registry.space(name), text_task(), default_rng(3)
    assert isinstance(space, RNN)
    words, root = torch.from_numpy(rng.integers(11, size=(3, 6))), int(space.cell == "enas")
    moved = 0
    while moved < 5:
        a = space.sample(rng)
        new = random_relabelling(space.cell, a.genes, rng)
        genes = relabelled(space.cell, a.genes, new)
        assert genes is not None
        if genes == a.genes or list(new) == sorted(new):
            continue
        moved += 1
        first, second = filled(space, a, task, 1), filled(space, member(genes), task, 2)

        def renamed(key: str, new: dict[int, int] = new) -> str:
            parts = key.split(".")
            if parts[1] == "nodes":
                parts[2] = str(new[int(parts[2]) + 1 + root] - 1 - root)
            return ".".join(parts)

        with torch.no_grad():
            assert not torch.allclose(first(words), second(words))
            second.load_state_dict({renamed(k): v for k, v in first.state_dict().items()})
            torch.testing.assert_close(first(words), second(words), rtol=1e-11, atol=1e-11)


def test_cells_of_two_classes_are_two_functions() -> None:
    # Equal weights, other activation or other source: the outputs differ, so no class can be any larger here.
    space, task = RNN(nodes=3, units=4), text_task()
    words = torch.from_numpy(default_rng(0).integers(11, size=(2, 6)))
    seen = {}
    with torch.no_grad():
        for i in range(0, space.size, 3):
            a = space.at(i)
            seen.setdefault(tuple(filled(space, a, task, 4)(words).flatten().numpy().round(9).tolist()), a)
    assert len(seen) == len(range(0, space.size, 3))


@pytest.mark.parametrize("name", [*NAMES, "rnn", "rnn[cell=darts]", "rnn[nodes=1]"])
def test_features_are_those_of_the_network(name: str) -> None:
    space, task = registry.space(name), text_task(5, 13)
    a = space.sample(default_rng(1))
    features = space.features(a, task)
    assert {k: features[k] for k in ("params", "macs", "flops")} == measured(space.build(a, task), task)
    assert sum(features[f"n_{f}"] for f in ACTIVATIONS) == len(as_tree(space.cell, a.genes)[0])


def test_known_number_of_parameters() -> None:
    # Only the matrices of edges in use exist: 2 for x and h and one for each further node, all of 64 x 128.
    a = RNN().sample(default_rng(0))
    assert RNN().features(a, text_task(35, 1000))["params"] == 1000 * 64 + 13 * 64 * 128 + 64 * 1000 + 1000
    linear = [m for m in RNN().build(a, text_task()).cell.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == 13
    assert RNN("darts").features(RNN("darts").at(0), text_task(35, 10))["params"] == 10 * 129 + 10 * 64 * 128


@pytest.mark.parametrize("length", [1, 9])
def test_shapes(length: int) -> None:
    for name in NAMES:
        space, task = registry.space(name), text_task(length, 7)
        network = filled(space, space.sample(default_rng(0)), task, 0)
        assert network(torch.zeros(2, length, dtype=torch.int64)).shape == (2, length, 7)
        assert all(type(m) in (torch.nn.Linear, torch.nn.Embedding) for m in network.modules() if owns_weights(m))


def owns_weights(module: torch.nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def test_no_word_depends_on_later_ones() -> None:
    space, task = RNN(nodes=3, units=4), text_task()
    network = filled(space, space.at(50), task, 0)
    words = torch.from_numpy(default_rng(0).integers(11, size=(1, 6)))
    changed = words.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 11
    with torch.no_grad():
        before, after = network(words), network(changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).any(2).all()


@pytest.mark.parametrize(
    "task",
    [
        Task("digits", "image", "accuracy", True, (1, 8, 8), 10, "0"),
        Task("iris", "tabular", "accuracy", True, (4,), 3, "0"),
        Task("text:x", "text", "perplexity", False, (4,), None, "0"),
    ],
)
def test_other_tasks_are_refused(task: Task) -> None:
    space = RNN(nodes=2)
    for call in (space.build, space.features):
        with pytest.raises(ValueError, match=rf"^rnn\[nodes=2\]: inputs of task '{task.name}' .*allowed: text"):
            call(space.at(0), task)


# --- learning -------------------------------------------------------------------------------------------------


def two_words_back(rng: Generator, texts: int, length: int, words: int) -> np.ndarray:
    """A Markov chain of order 2: mostly the successor of the word before the last, else any word."""
    successor = rng.permutation(words)
    found = rng.integers(words, size=(texts, length + 1))
    follow = rng.random(found.shape) < 0.9
    for t in range(2, length + 1):
        found[:, t] = np.where(follow[:, t], successor[found[:, t - 2]], found[:, t])
    return found


@pytest.mark.parametrize("name", ["rnn[nodes=4;units=32]", "rnn[cell=darts;nodes=4;units=32]"])
def test_it_learns_a_markov_chain_that_needs_memory(name: str) -> None:
    # Given the last word only, the next one is as good as uniform: what is below 20 comes through the hidden state.
    space = registry.space(name)
    words, length = 20, 12
    texts = two_words_back(default_rng(7), 512, length, words)
    x, y = torch.from_numpy(texts[:, :-1]), torch.from_numpy(texts[:, 1:])
    a = space.parse(
        "tanh relu@1 tanh@1 sigmoid@2"
        if "darts" not in name
        else "Genotype(recurrent=[('tanh', 0), ('relu', 1), ('tanh', 1), ('identity', 2)], concat=range(1, 5))"
    )
    network = space.build(a, text_task(length, words)).to_empty(device="cpu")
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.uniform_(-0.2, 0.2, generator=rng)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(5):
        for batch in torch.randperm(384, generator=rng).split(32):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(x[batch]).flatten(0, 1), y[batch].flatten())
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        perplexity = exp(torch.nn.functional.cross_entropy(network(x[384:]).flatten(0, 1), y[384:].flatten()))
    counts = np.bincount(texts[:384].ravel(), minlength=words)
    unigram = exp(-np.log((counts / counts.sum())[texts[384:, 1:]]).mean())
    assert 19 < unigram < 21
    assert perplexity < 10
