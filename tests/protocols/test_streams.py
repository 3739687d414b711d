"""Named streams: the same in every process, different under every name."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasbed.protocols.streams import generator, integer, sequence, torch_generator


def test_golden_values() -> None:
    """Streams are keyed by sha256: these numbers hold on every machine and in every process."""
    assert integer(0, "init", "mlp:15.30") == 4120750717843761878
    assert integer(7, "data-order", 3) == 6900403052127377680
    assert generator(0, "x").integers(2**32) == 2792971015


@given(st.integers(0, 2**40), st.text(max_size=8), st.lists(st.integers(0, 99), max_size=3))
def test_same_name_same_stream_other_name_other_stream(root: int, name: str, keys: list[int]) -> None:
    assert integer(root, name, *keys) == integer(root, name, *keys)
    others = {integer(root + 1, name, *keys), integer(root, name + "x", *keys), integer(root, name, *keys, 0)}
    assert len({integer(root, name, *keys), *others}) == 4
    assert 0 <= integer(root, name, *keys) < 2**63


def test_all_kinds_of_generator_come_from_one_sequence() -> None:
    expected = np.random.default_rng(sequence(3, "n", "k")).random(4)
    assert np.array_equal(generator(3, "n", "k").random(4), expected)
    draws = [torch.rand(3, generator=torch_generator(3, "n", "k")) for _ in range(2)]
    assert torch.equal(*draws)
