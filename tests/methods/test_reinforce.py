"""REINFORCE: gradients against finite differences and enumeration, the baseline, a second LSTM."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from nasbed.methods.spaces.mlp import MLP
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.methods.strategies.reinforce import Adam, Controller, MovingBaseline, Reinforce
from nasbed.protocols import Architecture, Observation, Proposal, SearchSpace

FIXED = Synthetic(genes=3, values=3)
CONDITIONAL = MLP(hidden=2, widths=(8, 16), activations=("relu",))
both_spaces = pytest.mark.parametrize("space", [FIXED, CONDITIONAL], ids=["synthetic", "mlp"])


def in_float64(space: SearchSpace, **params: object) -> Reinforce:
    strategy = Reinforce(space, seed=0, units=5, init=0.5, **params)
    strategy.ask(30)  # every gene value has turned up
    strategy._controller.weights = {k: w.double() for k, w in strategy._controller.weights.items()}
    return strategy


def members(space: Synthetic | MLP) -> list[Architecture]:
    return [space.at(i) for i in range(space.size)]


def paths(space: SearchSpace, architectures: list[Architecture]) -> list:
    return [[(space.options(a.genes[:t]), g) for t, g in enumerate(a.genes)] for a in architectures]


@both_spaces
@pytest.mark.parametrize("entropy", [0.0, 0.3])
def test_the_gradient_is_that_of_finite_differences(space: Synthetic | MLP, entropy: float) -> None:
    strategy = in_float64(space, entropy=entropy)
    batch = members(space)[1::4]
    advantages = [0.7 * math.sin(3 * k) for k in range(len(batch))]

    def objective() -> float:
        log_p, h = strategy._controller.log_probabilities(paths(space, batch))
        return float(sum(a * x + entropy * y for a, x, y in zip(advantages, log_p, h, strict=True)) / len(batch))

    gradient = strategy._gradient(batch, advantages)
    rng = np.random.default_rng(0)
    for name, w in strategy._controller.weights.items():
        for _ in range(4):
            at = tuple(int(rng.integers(s)) for s in w.shape)
            value, step = float(w[at]), 1e-5
            w[at] = value + step
            up = objective()
            w[at] = value - step
            down = objective()
            w[at] = value
            assert float(gradient[name][at]) == pytest.approx((up - down) / (2 * step), abs=1e-8, rel=1e-4)


@both_spaces
def test_probabilities_of_all_members_sum_to_one_and_a_constant_reward_has_no_expected_gradient(
    space: Synthetic | MLP,
) -> None:
    strategy = in_float64(space)
    everything = members(space)
    p = strategy._controller.log_probabilities(paths(space, everything))[0].exp().tolist()
    assert math.fsum(p) == pytest.approx(1, abs=1e-12)
    # E[grad] = sum_a P(a) grad log P(a) R: the mean over members with advantage N P(a) R is that sum.
    gradient = strategy._gradient(everything, [len(p) * x * 0.9 for x in p])
    assert max(float(g.abs().max()) for g in gradient.values()) < 1e-12


@both_spaces
def test_samples_follow_the_probabilities_that_are_differentiated(space: Synthetic | MLP) -> None:
    strategy = in_float64(space)
    everything = members(space)
    p = strategy._controller.log_probabilities(paths(space, everything))[0].exp().numpy()
    counts = np.zeros(len(everything))
    for proposal in strategy.ask(1000):
        counts[everything.index(proposal.architecture)] += 1
    assert np.abs(counts / 1000 - p).max() < 4 * math.sqrt(p.max() / 1000)
    # Step by step and all at once are the same controller.
    for a, whole in zip(everything, p, strict=True):
        state, product = strategy._controller.start(), 1.0
        for t, gene in enumerate(a.genes):
            options = space.options(a.genes[:t])
            step, state = strategy._controller.step(a.genes[:t][-1:], options, state)
            product *= step[options.index(gene)]
        assert product == pytest.approx(whole, rel=1e-10)


@both_spaces
def test_the_entropies_of_the_steps_add_up_to_that_of_the_policy(space: Synthetic | MLP) -> None:
    """Chain rule: the expected sum of the steps' entropies is - sum_a P(a) log P(a)."""
    log_p, entropy = in_float64(space)._controller.log_probabilities(paths(space, members(space)))
    p = log_p.exp()
    assert float((p * entropy).sum()) == pytest.approx(float(-(p * log_p).sum()), rel=1e-12)


def test_permuting_the_batch_leaves_the_gradient_unchanged() -> None:
    strategy = in_float64(CONDITIONAL)
    batch, advantages = members(CONDITIONAL)[:5], [0.1, -0.4, 0.3, 0.0, 1.0]
    order = [3, 0, 4, 1, 2]
    g = strategy._gradient(batch, advantages)
    h = strategy._gradient([batch[i] for i in order], [advantages[i] for i in order])
    for name in g:
        torch.testing.assert_close(g[name], h[name], rtol=0, atol=1e-14)


def test_the_recurrence_is_the_lstm_of_torch() -> None:
    controller = Controller(np.random.default_rng(0), layers=2, units=4, init=0.3)
    with torch.device("meta"):
        reference = torch.nn.LSTM(4, 4, num_layers=2)
    names = {"weight_ih": "input", "weight_hh": "hidden", "bias_ih": "input_bias", "bias_hh": "hidden_bias"}
    reference = reference.to_empty(device="cpu")
    with torch.no_grad():
        for name, ours in names.items():
            for layer in range(2):
                getattr(reference, f"{name}_l{layer}").copy_(controller.weights[f"{ours}{layer}"])
        x = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32))
        expected, _ = reference(x)
        state = controller.start(3)
        for t in range(5):
            state = controller._advance(x[t], state)
            torch.testing.assert_close(state.top, expected[t])


def test_initial_weights_are_uniform_within_init() -> None:
    weights = Controller(np.random.default_rng(0), layers=2, units=35, init=0.08).weights
    flat = torch.cat([w.flatten() for w in weights.values()])
    assert 0.0799 < float(flat.abs().max()) <= 0.08
    assert float(flat.std()) == pytest.approx(0.08 / 3**0.5, rel=0.02)


@pytest.mark.parametrize("update", ["before", "after"])
def test_the_bias_corrected_average_of_a_constant_is_that_constant(update: str) -> None:
    baseline = MovingBaseline("ema_bias_corrected", update, 0.9)
    for _ in range(5):
        baseline.advantages([0.7, 0.7])
        assert baseline.value == pytest.approx(0.7, abs=1e-15)


def test_baselines_by_hand() -> None:
    plain = MovingBaseline("ema", "after", 0.9)
    assert plain.advantages([1.0, 3.0]) == [1.0, 3.0]  # nothing is past yet
    assert plain.advantages([1.0]) == pytest.approx([0.8])  # 0.1 * 2
    corrected = MovingBaseline("ema_bias_corrected", "after", 0.5)
    corrected.advantages([4.0])
    corrected.advantages([1.0])
    assert corrected.value == pytest.approx((0.25 * 4 + 0.5 * 1) / 0.75)
    assert MovingBaseline("none", "before", 0.9).advantages([0.3]) == [0.3]


@pytest.mark.parametrize(("update", "moves"), [("before", False), ("after", True)])
def test_with_update_before_the_first_step_is_zero(update: str, moves: bool) -> None:
    strategy = Reinforce(FIXED, seed=0, batch_size=1, baseline_update=update)
    [p] = strategy.ask()
    weights = {k: w.clone() for k, w in strategy._controller.weights.items()}
    strategy.tell([Observation(p, 0.9)])
    assert moves != all(torch.equal(w, strategy._controller.weights[k]) for k, w in weights.items())


def test_our_adam_is_that_of_torch_also_when_rows_are_added() -> None:
    rng = np.random.default_rng(0)
    ours = {"w": torch.from_numpy(rng.normal(size=(3, 2)))}
    theirs = ours["w"].clone().requires_grad_(True)
    reference = torch.optim.Adam([theirs], lr=0.02, maximize=True)
    adam = Adam(0.02)
    for _ in range(6):
        theirs.grad = torch.from_numpy(rng.normal(size=(3, 2)))
        reference.step()
        # The fourth row never has a gradient, so it must stay and must not disturb the others.
        if len(ours["w"]) == 3 and _ == 2:
            ours["w"] = torch.cat((ours["w"], torch.ones(1, 2, dtype=torch.float64)))
        grown = torch.zeros_like(ours["w"])
        grown[:3] = theirs.grad
        adam.step(ours, {"w": grown})
    torch.testing.assert_close(ours["w"][:3], theirs.detach())
    assert torch.equal(ours["w"][3], torch.ones(2, dtype=torch.float64))


def snapshot(strategy: Reinforce) -> list[torch.Tensor]:
    return [w.clone() for w in strategy._controller.weights.values()]


def unchanged(strategy: Reinforce, before: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, before, strategy._controller.weights.values()))


def test_only_its_own_samples_once_each_make_a_step_and_only_full_batches() -> None:
    strategy = Reinforce(FIXED, seed=0, batch_size=3)
    proposals = strategy.ask(6)
    own = {p.architecture for p in proposals}
    foreign = Proposal(next(a for a in members(FIXED) if a not in own))
    before = snapshot(strategy)
    strategy.tell([Observation(foreign, 1.0)] * 5)
    single = next(p for p in proposals if [q.architecture for q in proposals].count(p.architecture) == 1)
    strategy.tell([Observation(single, 0.1)] * 5)
    rest = [p for p in proposals if p is not single]
    strategy.tell([Observation(rest[0], 0.9)])
    assert unchanged(strategy, before)
    strategy.tell([Observation(rest[1], 0.5)])
    assert not unchanged(strategy, before)


def test_a_failure_counts_as_the_lowest_reward_seen() -> None:
    twins = [Reinforce(FIXED, seed=0, batch_size=4) for _ in range(2)]
    for strategy, last in zip(twins, (math.nan, 0.2), strict=True):
        p = strategy.ask(4)
        scores = [0.5, 0.2, 0.9]
        status = "ok" if last == 0.2 else "crashed"
        strategy.tell([Observation(q, s) for q, s in zip(p, scores, strict=False)])
        strategy.tell([Observation(p[3], last, status=status)])
    assert unchanged(twins[0], snapshot(twins[1]))


def test_a_batch_of_failures_before_any_score_is_no_step() -> None:
    strategy = Reinforce(FIXED, seed=0, batch_size=2)
    proposals = strategy.ask(2)
    before = snapshot(strategy)
    strategy.tell([Observation(p, math.nan, status="crashed") for p in proposals])
    assert unchanged(strategy, before)


def test_reward_power_is_defined_for_negative_scores() -> None:
    twins = [Reinforce(FIXED, seed=0, batch_size=2, reward_power=power) for power in (0.5, 1.0)]
    for strategy, scores in zip(twins, ((-4.0, 9.0), (-2.0, 3.0)), strict=True):
        strategy.tell([Observation(p, s) for p, s in zip(strategy.ask(2), scores, strict=True)])
    assert unchanged(twins[0], snapshot(twins[1]))


def test_gene_values_may_be_large_and_sparse() -> None:
    class Sparse:
        family, size = "sparse", 8

        def options(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
            return (10**9 + len(prefix), 7) if len(prefix) < 3 else ()

    seen = {p.architecture.genes for p in Reinforce(Sparse(), seed=0).ask(200)}
    assert seen == set(itertools.product(*[(10**9 + t, 7) for t in range(3)]))
