"""Aging evolution on an array as a plain loop: what the protocol path and NATS-Bench are measured against.

It makes the same draws, reads the same memory and charges the same costs as `harness.loop.search` with
`AgingEvolution` and `TableLookup`, so that the scores of the two must agree one by one.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b

import numpy as np

GENES, VALUES = 6, 5
STRIDES = [VALUES ** (GENES - 1 - i) for i in range(GENES)]
OTHERS = [[w for w in range(VALUES) if w != v] for v in range(VALUES)]


def array_evaluation(valid, cost, examples, epochs, prefix):
    """Look up the last epoch of one training, its seed keyed by the genes: (genes, index) -> (score, cost)."""
    base, seeds = blake2b(prefix.encode(), digest_size=8), valid.shape[1]

    def evaluate(genes, index):
        h = base.copy()
        h.update(repr(genes).encode())
        seed = int.from_bytes(h.digest(), "little") % seeds
        return float(valid[index, seed, epochs - 1] / examples), float(cost[index] * epochs)

    return evaluate


def aging_evolution(evaluate, budget, seed, population_size=10, sample_size=3):
    """The history of one run, [(genes, score, cost)], until the next evaluation would overrun the budget."""
    rng = np.random.default_rng(seed)
    population, history, spent = deque(maxlen=population_size), [], 0.0
    while spent < budget:
        if len(population) < population_size:
            index = int(rng.integers(VALUES**GENES))
            genes = tuple(index // stride % VALUES for stride in STRIDES)
        else:
            drawn = rng.integers(population_size, size=sample_size).tolist()
            parent = max([population[i] for i in drawn], key=lambda member: member[0])[1]
            gene, step = divmod(int(rng.integers(GENES * (VALUES - 1))), VALUES - 1)
            genes = (*parent[:gene], OTHERS[parent[gene]][step], *parent[gene + 1 :])
            index = sum([g * stride for g, stride in zip(genes, STRIDES, strict=True)])
        score, cost = evaluate(genes, index)
        if spent + cost > budget:
            break
        spent += cost
        history.append((genes, score, cost))
        population.append((score, genes))
    return history
