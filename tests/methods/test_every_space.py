"""What holds for every search space, found by hypothesis on all that are registered, unasked."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasbed.harness.checks_space import TASKS
from nasbed.methods import registry
from nasbed.protocols import Architecture, IndexedSpace, SearchSpace

seeds = st.integers(0, 2**32 - 1)
steps = st.lists(st.sampled_from(["mutate", "crossover", "neighbour", "canonical"]), max_size=4)


@cache
def space(name: str) -> SearchSpace:
    return registry.space(name)


@pytest.mark.parametrize("name", registry.names("spaces"))
@given(seed=seeds, walk=steps)
@settings(max_examples=25, deadline=None)
def test_moves_stay_inside_and_forms_round_trip(name: str, seed: int, walk: list[str]) -> None:
    searched, rng = space(name), np.random.default_rng(seed)
    a = searched.sample(rng)
    for step in walk:
        before = a
        if step == "mutate":
            a = searched.mutate(a, rng)
            assert a != before
        elif step == "crossover":
            a = searched.crossover(a, searched.sample(rng), rng)
        elif step == "neighbour":
            others = searched.neighbours(a)
            a = others[int(rng.integers(len(others)))]
        else:
            a = searched.canonical(a)
            assert searched.canonical(a) == a
        searched.check(a)
    assert searched.parse(searched.text(a)) == a
    assert Architecture.parse(str(a)) == a
    assert all(type(gene) is int for gene in a.genes)
    if isinstance(searched, IndexedSpace):
        assert searched.at(searched.index(a)) == a


@pytest.mark.parametrize("name", registry.names("spaces"))
@given(seed=seeds, text=st.text(max_size=30), cut=st.integers(0, 200), letter=st.characters(codec="ascii"))
@settings(max_examples=40, deadline=None)
def test_malformed_text_is_read_as_a_member_or_refused_in_one_line(
    name: str, seed: int, text: str, cut: int, letter: str
) -> None:
    searched = space(name)
    good = searched.text(searched.sample(np.random.default_rng(seed)))
    place = cut % len(good)
    for bad in (text, good[:place], good[:place] + letter + good[place + 1 :], good[:place] + good[place:] * 2):
        message = ""
        try:
            searched.check(searched.parse(bad))
        except ValueError as error:
            message = str(error)
        assert "\n" not in message.replace(bad, "")


@pytest.mark.parametrize("name", registry.names("spaces"))
def test_genes_out_of_range_and_strangers_are_refused_in_one_line(name: str) -> None:
    searched, rng = space(name), np.random.default_rng(0)
    a = searched.sample(rng)
    for i in range(len(a.genes)):
        wrong = Architecture(a.space, (*a.genes[:i], 10**6, *a.genes[i + 1 :]))
        for use in (searched.check, searched.encode, lambda x: searched.features(x, TASKS[0])):
            with pytest.raises(ValueError, match="1000000") as refused:
                use(wrong)
            assert "\n" not in str(refused.value)
    other = Architecture("elsewhere", a.genes)
    for use in (searched.check, searched.encode, lambda x: searched.build(x, TASKS[0])):
        with pytest.raises(ValueError, match="elsewhere"):
            use(other)


@pytest.mark.parametrize("name", registry.names("spaces"))
def test_each_space_says_which_inputs_it_takes(name: str) -> None:
    searched = space(name)
    a = searched.sample(np.random.default_rng(0))
    refused = {}
    for task in TASKS:
        try:
            searched.build(a, task)
        except ValueError as error:
            refused[task.name] = str(error)
    assert len(refused) < len(TASKS)
    for task_name, message in refused.items():
        assert task_name in message
        assert "allowed" in message
        assert "\n" not in message
