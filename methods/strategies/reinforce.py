"""REINFORCE with a recurrent controller."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ...protocols import Architecture, Observation, Proposal, SearchSpace

__all__ = ["Reinforce"]

Baseline = Literal["ema", "ema_bias_corrected", "none"]
Update = Literal["before", "after"]
Options = tuple[int, ...]


class Reinforce:
    """REINFORCE with an LSTM controller, after Zoph & Le (2017, arXiv 1611.01578, section 3.2).

    >>> from nasbed.methods.spaces.synthetic import Synthetic
    >>> from nasbed.protocols import Observation
    >>> space = Synthetic(genes=4, values=3)
    >>> search = Reinforce(space, seed=0)
    >>> scores = []
    >>> for _ in range(60):
    ...     [proposal] = search.ask()
    ...     scores.append(space.truth(proposal.architecture))
    ...     search.tell([Observation(proposal, scores[-1])])
    >>> max(scores) == space.truth(space.optimum())
    True

    The controller emits one gene per step from a softmax over `space.options(prefix)`, so it also serves
    spaces of variable length; the gene is embedded, one vector per gene value, and fed to the next step.
    After every `batch_size` rewards R_k it takes one Adam step along

        (1/m) sum_k sum_t grad log P(a_t | a_<t) (R_k - b)

    with the baseline b an exponential moving average of the batches' mean rewards. All architectures of a
    batch count under the current controller, even if they were sampled before its last step, as with
    the asynchronous workers of the paper.

    The paper's controller is kept (2 layers of 35 units, weights from U(-0.08, 0.08), Adam, 8 children per
    step); its rate of 6e-4 was made for 12,800 samples, so the default here is one for a few hundred.
    Rewards are scores; the paper cubes the validation accuracy (`reward_power=3`). Not in the paper: the
    entropy bonus, the bias correction, and feeding only what `options` allows.

    A failed evaluation gets the lowest reward seen so far. Observations of architectures that it did not
    ask for, or has been told already, are ignored: they are not samples of the policy.

    Args:
        space: Where to search.
        seed: Of weights and samples, >= 0.
        layers: LSTM layers.
        units: Units per layer, and size of the embeddings.
        init: Weights are drawn from U(-init, init).
        learning_rate: Of Adam.
        batch_size: m, rewards per step.
        baseline: "ema" starts at 0 and is therefore too small at first; "ema_bias_corrected" divides by
            1 - decay^t; "none" is 0.
        baseline_update: Whether a batch enters the baseline "before" or "after" it is compared with it. With
            "after", b holds past rewards only, as in the paper, and is 0 for the first batch.
        baseline_decay: Weight of the past in the moving average, in [0, 1).
        entropy: Weight of the policy's entropy, added to the objective and not to the reward.
        reward_power: R = sign(score) |score|^reward_power.

    Raises:
        ValueError: An argument is out of its range.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        layers: int = 2,
        units: int = 35,
        init: float = 0.08,
        learning_rate: float = 0.02,
        batch_size: int = 8,
        baseline: Baseline = "ema_bias_corrected",
        baseline_update: Update = "before",
        baseline_decay: float = 0.9,
        entropy: float = 0.0,
        reward_power: float = 1.0,
    ) -> None:
        for name, count in (("layers", layers), ("units", units), ("batch_size", batch_size)):
            if count < 1:
                raise ValueError(f"{name}: {count} is not allowed; use an integer >= 1")
        for name, positive in (
            ("init", init),
            ("learning_rate", learning_rate),
            ("reward_power", reward_power),
        ):
            if not positive > 0:
                raise ValueError(f"{name}: {positive} is not allowed; use a number > 0")
        if not 0 <= baseline_decay < 1:
            raise ValueError(f"baseline_decay: {baseline_decay} is not allowed; use a number in [0, 1)")
        for name, choice, allowed in (
            ("baseline", baseline, get_args(Baseline)),
            ("baseline_update", baseline_update, get_args(Update)),
        ):
            if choice not in allowed:
                raise ValueError(f"{name}: {choice!r} is not allowed; use one of {', '.join(allowed)}")
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._controller = Controller(self._rng, layers=layers, units=units, init=init)
        self._adam = Adam(learning_rate)
        self._batch_size = batch_size
        self._baseline = MovingBaseline(baseline, baseline_update, baseline_decay)
        self._entropy = entropy
        self._power = reward_power
        self._outstanding: Counter[Architecture] = Counter()
        self._batch: list[tuple[Architecture, float | None]] = []
        self._lowest: float | None = None

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        """Sample n architectures from the policy."""
        sampled = [self._sample() for _ in range(n)]
        self._outstanding.update(sampled)
        return [Proposal(a) for a in sampled]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Collect rewards; every `batch_size` of them make one step of the controller."""
        for o in observations:
            a = o.proposal.architecture
            if not self._outstanding[a]:
                continue
            self._outstanding[a] -= 1
            reward = None
            if o.status == "ok" and math.isfinite(o.score):
                reward = math.copysign(abs(o.score) ** self._power, o.score)
                self._lowest = reward if self._lowest is None else min(self._lowest, reward)
            self._batch.append((a, reward))
            if len(self._batch) == self._batch_size:
                self._update(self._batch)
                self._batch = []

    def _sample(self) -> Architecture:
        genes: tuple[int, ...] = ()
        state = self._controller.start()
        while options := self._space.options(genes):
            probabilities, state = self._controller.step(genes[-1:], options, state)
            k = bisect_right(list(accumulate(probabilities)), self._rng.random())
            genes = (
                *genes,
                options[min(k, len(options) - 1)],
            )  # float32 probabilities may sum to less than 1
        return Architecture(self._space.family, genes)

    def _update(self, batch: Sequence[tuple[Architecture, float | None]]) -> None:
        if self._lowest is None:
            return  # only failures so far: nothing tells one from another
        rewards = [self._lowest if reward is None else reward for _, reward in batch]
        advantages = self._baseline.advantages(rewards)
        self._adam.step(self._controller.weights, self._gradient([a for a, _ in batch], advantages))

    def _gradient(self, architectures: Sequence[Architecture], advantages: Sequence[float]) -> dict[str, Tensor]:
        """Gradient, by name of the weight, of the objective that is to be maximised."""
        paths = [[(self._space.options(a.genes[:t]), g) for t, g in enumerate(a.genes)] for a in architectures]
        weights = self._controller.weights
        for w in weights.values():
            w.requires_grad_(True)
        log_p, entropy = self._controller.log_probabilities(paths)
        objective = (log_p * torch.tensor(advantages, dtype=log_p.dtype) + self._entropy * entropy).mean()
        gradient = torch.autograd.grad(objective, list(weights.values()))
        for w in weights.values():
            w.requires_grad_(False)
        return dict(zip(weights, gradient, strict=True))


class MovingBaseline:
    """Exponential moving average of batch means."""

    def __init__(self, kind: Baseline, update: Update, decay: float) -> None:
        self._kind = kind
        self._update = update
        self._decay = decay
        self._sum = 0.0
        self._weight = 0.0

    @property
    def value(self) -> float:
        if self._kind == "none":
            return 0.0
        if self._kind == "ema":
            return self._sum
        return self._sum / self._weight if self._weight else 0.0

    def advantages(self, rewards: Sequence[float]) -> list[float]:
        """R_k - b for each reward, after or before the batch has entered b."""
        past = self.value
        self._sum = self._decay * self._sum + (1 - self._decay) * math.fsum(rewards) / len(rewards)
        self._weight = self._decay * self._weight + (1 - self._decay)
        b = self.value if self._update == "before" else past
        return [r - b for r in rewards]


@dataclass(frozen=True, slots=True)
class State:
    """(h, c) of each layer, each of shape (batch, units)."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def top(self) -> Tensor:
        return self.layers[-1][0]


class Controller:
    """An LSTM over gene values; a value gets its row of embedding and softmax when it first turns up."""

    def __init__(self, rng: np.random.Generator, *, layers: int, units: int, init: float) -> None:
        self._rng = rng
        self._init = init
        self._units = units
        self._layers = layers
        self._row: dict[int, int] = {}
        self._known: dict[Options, Tensor] = {}
        self.weights: dict[str, Tensor] = {"first": self._draw(1, units)}  # input of the first step
        for layer in range(layers):
            self.weights[f"input{layer}"] = self._draw(4 * units, units)
            self.weights[f"hidden{layer}"] = self._draw(4 * units, units)
            self.weights[f"input_bias{layer}"] = self._draw(4 * units)
            self.weights[f"hidden_bias{layer}"] = self._draw(4 * units)
        self.weights["embedding"] = self._draw(0, units)
        self.weights["softmax"] = self._draw(0, units)

    def start(self, batch: int = 1) -> State:
        """The zero state."""
        zero = torch.zeros(batch, self._units, dtype=self.weights["first"].dtype)
        return State(((zero, zero),) * self._layers)

    def step(self, last: Options, options: Options, state: State) -> tuple[list[float], State]:
        """Probabilities of the next gene after `last`, which is () at the first step, and the new state."""
        rows = self._rows(options)
        w = self.weights
        x = w["embedding"][self._row[last[0]]].unsqueeze(0) if last else w["first"]
        state = self._advance(x, state)
        return torch.softmax(w["softmax"][rows] @ state.top[0], 0).tolist(), state

    def log_probabilities(self, paths: Sequence[Sequence[tuple[Options, int]]]) -> tuple[Tensor, Tensor]:
        """Of each path of (options, chosen gene): sum_t log P(a_t | a_<t) and sum_t entropy, both (paths,)."""
        m, steps = len(paths), max(map(len, paths))
        allowed = torch.zeros(steps, m, len(self._row), dtype=torch.bool)
        chosen = torch.zeros(steps, m, dtype=torch.int64)
        for k, path in enumerate(paths):
            for t, (options, gene) in enumerate(path):
                allowed[t, k, self._rows(options)] = True
                chosen[t, k] = self._row[gene]
            # Beyond its end a path has one option, hence log P = 0 and no entropy.
            allowed[len(path) :, k, 0] = True
        inputs = torch.cat((self.weights["first"].expand(1, m, -1), self.weights["embedding"][chosen[:-1]]))
        state, tops = self.start(m), []
        for x in inputs:
            state = self._advance(x, state)
            tops.append(state.top)
        logits = torch.stack(tops) @ self.weights["softmax"].T
        log_p = torch.log_softmax(logits.masked_fill(~allowed, -math.inf), -1).masked_fill(~allowed, 0)
        entropy = -(log_p.exp() * log_p).sum((0, 2))
        return log_p.gather(2, chosen.unsqueeze(2)).sum((0, 2)), entropy

    def _advance(self, x: Tensor, state: State) -> State:
        """One time step of the stacked LSTM."""
        w, layers = self.weights, []
        for i, before in enumerate(state.layers):
            biases = w[f"input_bias{i}"], w[f"hidden_bias{i}"]
            h, c = torch.lstm_cell(x, before, w[f"input{i}"], w[f"hidden{i}"], *biases)
            layers.append((h, c))
            x = h
        return State(tuple(layers))

    def _rows(self, options: Options) -> Tensor:
        if (rows := self._known.get(options)) is not None:
            return rows
        new = [value for value in options if value not in self._row]
        self._row.update(zip(new, range(len(self._row), len(self._row) + len(new)), strict=True))
        for name in ("embedding", "softmax"):
            self.weights[name] = torch.cat((self.weights[name], self._draw(len(new), self._units)))
        self._known[options] = torch.tensor([self._row[value] for value in options])
        return self._known[options]

    def _draw(self, *shape: int) -> Tensor:
        return torch.from_numpy(self._rng.uniform(-self._init, self._init, shape).astype(np.float32))


class Adam:
    """Adam of Kingma & Ba (2015, Algorithm 1), uphill, for weights that may gain rows between steps."""

    def __init__(self, rate: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self._rate = rate
        self._betas = beta1, beta2
        self._eps = eps
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._steps = 0

    def step(self, weights: dict[str, Tensor], gradient: dict[str, Tensor]) -> None:
        self._steps += 1
        beta1, beta2 = self._betas
        for name, g in gradient.items():
            m, v = torch.zeros_like(g), torch.zeros_like(g)
            if name in self._moments:
                for new, old in zip((m, v), self._moments[name], strict=True):
                    new[: len(old)] = old
            m.mul_(beta1).add_(g, alpha=1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            self._moments[name] = m, v
            m_hat, v_hat = m / (1 - beta1**self._steps), v / (1 - beta2**self._steps)
            weights[name] += self._rate * m_hat / (v_hat.sqrt() + self._eps)
