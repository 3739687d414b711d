"""The policy of the self-reinforcement protocol: the simplest one that can feed on a supernet."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import exp, isfinite, log

import numpy as np

from ..protocols import Architecture, Observation, SearchSpace, Task
from ..tabular.deviation import measured

RATE = 0.5
"""Of the policy's steps, for advantages in standard deviations."""

FOR_ENTROPY = 100
"""Draws that an entropy of the policy is measured by."""


def qualities(answers: Sequence[Observation], task: Task) -> np.ndarray:
    """Scores (M,) of estimators that answer with the metric, NaN for failures; perplexities are minus their logarithm.

    >>> from nasbed.protocols import Proposal
    >>> text = Task("toy", "text", "perplexity", False, (35,), 64, "")
    >>> qualities([Observation(Proposal(Architecture("toy", ())), -8.0)], text).round(3)
    array([-2.079])
    """
    sign = 1.0 if task.higher_is_better else -1.0
    scores = np.array([o.score if o.status == "ok" else np.nan for o in answers])
    return sign * measured(sign * scores, task.metric)


class Policy:
    """A choice for each gene that does not depend on the other genes, learned by REINFORCE (Williams 1992).

    At first all values that `space.options` allows are equally likely. Advantages are rewards less their mean, over
    their standard deviation.

    Args:
        space: Finite, of two members or more.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._logits: dict[tuple[int, int], float] = {}

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw an architecture."""
        genes: tuple[int, ...] = ()
        while options := self._space.options(genes):
            bounds = list(accumulate(self._probabilities(len(genes), options)))
            genes = (*genes, options[min(bisect_right(bounds, rng.random()), len(options) - 1)])
        return Architecture(self._space.family, genes)

    def log_probability(self, a: Architecture) -> float:
        """Of an architecture."""
        return sum(log(p[options.index(g)]) for _, options, g, p in self._choices(a))

    def learn(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> None:
        """One step; a reward that is not finite counts as the lowest that is."""
        found = [r for r in rewards if isfinite(r)]
        if not found:
            return
        r = np.array([v if isfinite(v) else min(found) for v in rewards])
        if not (sd := float(r.std())):
            return
        steps: defaultdict[tuple[int, int], float] = defaultdict(float)
        for a, advantage in zip(architectures, (r - r.mean()) / sd, strict=True):
            for i, options, g, p in self._choices(a):
                for value, probability in zip(options, p, strict=True):
                    steps[i, value] += float(advantage) * ((value == g) - probability)
        for key, step in steps.items():
            self._logits[key] = self._logits.get(key, 0.0) + RATE * step / len(r)

    def entropy(self, rng: np.random.Generator) -> float:
        """Over log of the number of members, 1 at most: the mean of -log p over draws, which is unbiased."""
        drawn = [self.log_probability(self.sample(rng)) for _ in range(FOR_ENTROPY)]
        return -sum(drawn) / len(drawn) / log(self._space.size or 1)

    def _choices(self, a: Architecture) -> Iterator[tuple[int, tuple[int, ...], int, list[float]]]:
        for i, g in enumerate(a.genes):
            options = self._space.options(a.genes[:i])
            yield i, tuple(options), g, self._probabilities(i, options)

    def _probabilities(self, position: int, options: Sequence[int]) -> list[float]:
        logits = [self._logits.get((position, v), 0.0) for v in options]
        weights = [exp(x - max(logits)) for x in logits]
        return [w / sum(weights) for w in weights]
