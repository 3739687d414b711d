"""Shake-Shake, by hand: weights of branches ahead and back, and at evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import Architecture, DataView, Pipeline, Split
from nasbed.protocols.streams import torch_generator
from nasbed.protocols.training import (
    PIPELINES,
    Streams,
    fit_from_seed,
    load,
    materialise,
    measure,
)
from nasbed.protocols.training.active import Active, active
from nasbed.protocols.training.shake import branches_of

DIGITS = load("digits")
VIEW = DataView(
    DIGITS.task,
    Split(DIGITS.train.x[:150], DIGITS.train.y[:150]),
    Split(DIGITS.valid.x[:100], DIGITS.valid.y[:100]),
)
SPACE = NB201(cells=1, channels=4)
A = SPACE.parse("|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|")
PLAIN = replace(PIPELINES["+cosine"], epochs=2)  # 150 examples: batches of 64, 64 and 22


def built(seed: int = 0, space: NB201 = SPACE, a: Architecture = A, dtype: torch.dtype = torch.float32) -> nn.Module:
    return materialise(space.build(a, VIEW.task), torch_generator(seed, "init", a), dtype=dtype)


def trained(pipeline: Pipeline, seed: int = 0, a: Architecture = A) -> tuple[nn.Module, dict[str, np.ndarray]]:
    return fit_from_seed(SPACE.build(a, VIEW.task), a, seed, VIEW.train, {"valid": VIEW.valid}, pipeline)


def at_work(network: nn.Module, pipeline: Pipeline, epoch: int, x: torch.Tensor) -> Active:
    """The ingredients at the first batch of an epoch, hooks in place for good."""
    found = Active(network, pipeline, Streams(0, A), VIEW.train.x.shape)
    found.hooks()
    found.epoch(epoch, x)
    found.batch(0, x)
    return found


# --- Shake-Shake


def shaken(a: Architecture = A, seed: int = 0) -> tuple[nn.Module, Active, torch.Tensor]:
    network = built(seed, dtype=torch.float64)
    x = torch.from_numpy(VIEW.train.x[:64]).double()
    return network, at_work(network.train(), replace(PLAIN, shake_shake=True), 0, x), x


def test_branches_are_the_sums_of_two_operations() -> None:
    network = built()
    edges = [m.edges for m in network.modules() if hasattr(m, "edges")]
    expected = [pair for cell in edges for pair in ((cell[1], cell[2]), (cell[3], cell[5]))]
    assert branches_of(network) == expected
    three = SPACE.parse("|none~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|skip_connect~1|nor_conv_3x3~2|")
    assert branches_of(SPACE.build(three, VIEW.task)) == []


def test_evaluation_with_shake_shake_is_the_mean_of_the_branches() -> None:
    network, _, x = shaken()
    stem, first, *_ = network.eval()
    e = first[0].edges
    by_hand = built(dtype=torch.float64).eval()
    e = by_hand[1][0].edges
    node0 = by_hand[0](x)
    node2 = (e[1](node0) + e[2](e[0](node0))) / 2
    expected = (node0 + e[5](node2)) / 2
    torch.testing.assert_close(first(stem(x)), expected, rtol=1e-12, atol=1e-12)


def test_training_with_shake_shake_by_hand_forward_and_backward() -> None:
    """With b = a the gradients are those of autograd; with another b they are those of the sum weighed by b."""
    generators = torch_generator(0, "shake-shake", A), torch_generator(1, "shake-shake", A)
    for same in (True, False):
        network, working, x = shaken()
        drawn = torch.rand(2, 6, 64, generator=generators[0] if same else generators[1]).double()
        if same:
            drawn[1] = drawn[0]
        assert working._shake is not None
        working._shake._weights = drawn
        stem, first, *_ = network
        e = first[0].edges
        output = first(stem(x))
        output.square().sum().backward()
        by_hand = built(dtype=torch.float64).train()
        e, node0 = by_hand[1][0].edges, by_hand[0](x)
        (a2, a3), (b2, b3) = (d[:2, :, None, None, None] for d in drawn)

        def weighed(f: torch.Tensor, ahead: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
            return back * f + ((ahead - back) * f).detach()  # value a f, gradient b

        node2 = weighed(e[1](node0), a2, b2) + weighed(e[2](e[0](node0)), 1 - a2, 1 - b2)
        expected = weighed(node0, a3, b3) + weighed(e[5](node2), 1 - a3, 1 - b3)
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
        expected.square().sum().backward()
        for ours, theirs in zip(first.parameters(), by_hand[1].parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-10)


def test_shake_shake_weighs_images_one_by_one_and_anew_in_every_batch() -> None:
    _, working, x = shaken()
    assert working._shake is not None
    first = working._shake._weights
    working.batch(1, x[:22])
    second = working._shake._weights
    assert (first.shape, second.shape) == ((2, 6, 64), (2, 6, 22))
    assert len(torch.cat([first.flatten(), second.flatten()]).unique()) == 2 * 6 * (64 + 22)
    assert 0 <= first.min() < 0.05
    assert 0.95 < first.max() < 1


def test_a_network_after_shake_shake_is_measured_with_it() -> None:
    p = replace(PLAIN, shake_shake=True)
    network, totals = trained(p)
    assert measure(network, VIEW.valid, pipeline=p) == totals["valid"][-1] / 100
    logits = network.eval()(torch.from_numpy(VIEW.valid.x))
    assert not any(m._forward_hooks for m in network.modules())
    with active(network, p, Streams(0, A), VIEW.train.x.shape):
        assert not torch.allclose(network(torch.from_numpy(VIEW.valid.x)), logits)
