"""Two networks with shared weights: what is the same is found to be, and what only looks so is not."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import nn

from nasbed.harness.checks_sameness import same_function
from nasbed.protocols import Task

IMAGES = Task("images", "image", "accuracy", True, (2, 6, 6), 3, "")
TEXT = Task("words", "text", "perplexity", False, (5,), 7, "")


class Branches(nn.Module):
    """Convolutions of one image, concatenated in some order, then one of the concatenation, and a classifier."""

    def __init__(self, order, kernels=(1, 3, 3), shared=False, dead=0):
        super().__init__()
        self.order, self.shared = order, shared
        self.convs = nn.ModuleList(nn.Conv2d(2, 4, k, padding=k // 2) for k in kernels)
        self.norm = nn.BatchNorm2d(4 * len(order))
        self.depthwise = nn.Conv2d(4 * len(order), 4 * len(order), 3, padding=1, groups=4 * len(order))
        self.mix = nn.Conv2d(4 * len(order), 5, 1)
        self.head = nn.Linear(5, 3)
        self.dead = nn.ModuleList(nn.Conv2d(2, 4, 3) for _ in range(dead))

    def forward(self, x):
        outs = [conv(x) for conv in self.convs]
        if self.shared:
            outs[2] = outs[1]
        joined = torch.relu(torch.cat([outs[i] for i in self.order], 1))
        return self.head(torch.tanh(self.mix(self.depthwise(self.norm(joined)))).mean((2, 3)))


class Nested(nn.Module):
    """f(g(x)) + h(x), or, with the same number of convolutions, f(g(x)) + g(x) and one that is not used."""

    def __init__(self, reuse):
        super().__init__()
        self.f, self.g, self.h = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.reuse = reuse

    def forward(self, x):
        inner = torch.relu(self.g(x))
        return (self.f(inner) + (inner if self.reuse else torch.relu(self.h(x)))).mean((2, 3))


class Words(nn.Module):
    def __init__(self, swapped):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.a, self.b, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 7)
        self.swapped = swapped

    def forward(self, x):
        first, second = (self.b, self.a) if self.swapped else (self.a, self.b)
        e = self.embedding(x)
        return self.out(torch.tanh(first(e)) + torch.relu(second(torch.tanh(first(e)))))


def meta(cls, *args, **kwargs):
    with torch.device("meta"):
        return cls(*args, **kwargs)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_of_a_concatenation_is_a_matter_of_names(order):
    assert same_function(meta(Branches, (0, 1, 2)), meta(Branches, order), IMAGES)


@pytest.mark.parametrize(
    "other",
    [
        {"order": (0, 1, 1)},
        {"order": (0, 1, 2), "kernels": (3, 1, 1)},
        {"order": (0, 1, 2), "shared": True},
        {"order": (0, 1, 2), "dead": 1},
    ],
)
def test_other_functions_and_other_parameters_are_seen(other):
    assert not same_function(meta(Branches, (0, 1, 2)), meta(Branches, **other), IMAGES)


def test_tied_weights_would_not_tell_these_apart():
    assert not same_function(meta(Nested, True), meta(Nested, False), IMAGES)
    assert not same_function(meta(Nested, False), meta(Nested, True), IMAGES)
    assert same_function(meta(Nested, True), meta(Nested, True), IMAGES)


def test_text():
    assert same_function(meta(Words, False), meta(Words, True), TEXT)
