"""Learning-curve extrapolation by a network whose last layer is made of learning curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ...protocols import Architecture, Cost, Observation, Proposal, SearchSpace, Setting, Traits
from ...protocols.streams import torch_generator
from ...protocols.training import materialise, one_thread
from ..meter import Meter
from ..networks.curves import (
    DIVERGED,
    CurveReader,
    PartialCurve,
    check_count,
    check_epochs,
    check_setting,
    crashed,
)

__all__ = ["CurveLCNet"]

POSTERIORS = ("ensemble",)
BASES, BASIS_PARAMETERS = 5, 13
HIDDEN, LEARNING_RATE = 64, 0.01


class CurveLCNet:
    """LC-Net (Klein et al. 2017): a network from an architecture to the parameters of its learning curve.

    The curve is y(t) = y_inf + sum_k w_k phi_k(t, theta), for t in (0, 1] in shares of the pipeline's epochs, where
    every basis function phi_k vanishes at t = 1, so that the score y(1) is y_inf itself. Three hidden layers of 64
    tanh units read `space.encode`; theta and y_inf pass a sigmoid and w a softmax.

    The paper samples the weights by SGHMC. Here an ensemble takes the posterior's place, which is a substitute of ours:
    members start from different weights and minimise the squared error with Adam, on whole trainings of architectures
    drawn uniformly. For every architecture asked for, a copy of each member goes on with the beginning of its curve
    among the examples. `objectives["sd"]` is the deviation between members.

    Metrics other than accuracy are refused, since y_inf is in (0, 1).

    Args:
        epochs: Epochs of an asked architecture to pay for, at least 1; by default a third of the pipeline's, rounded
            up.
        n_train: Whole trainings to learn from, at least 2. They are charged in `prepare`.
        posterior: "ensemble".
        members: Of the ensemble.
        steps: Of gradient descent in `prepare`, over all examples at once.
        adapt: Further steps for each architecture asked for.

    Attributes:
        trained_on: The architectures learned from, known after `prepare`: what an audit has to leave out.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    traits = Traits(accuracy_scale=True, deterministic=False)

    def __init__(
        self,
        epochs: int | None = None,
        n_train: int = 50,
        posterior: str = "ensemble",
        members: int = 5,
        steps: int = 500,
        adapt: int = 50,
    ) -> None:
        check_epochs(epochs)
        check_count("n_train", n_train, 2)
        if posterior not in POSTERIORS:
            raise ValueError(f"posterior: {posterior!r} is not one of {', '.join(POSTERIORS)}")
        check_count("members", members)
        check_count("steps", steps)
        check_count("adapt", adapt, 0)
        self._epochs, self._n_train, self._members, self._steps, self._adapt = epochs, n_train, members, steps, adapt
        self.trained_on: tuple[Architecture, ...] = ()

    def fits(self, setting: Setting) -> None:
        """ValueError for other metrics than accuracy, for too few epochs, or without table and trainer."""
        if setting.task.metric != "accuracy":
            raise ValueError(
                f"estimator: 'curve_lcnet' predicts accuracy in [0, 1], and the metric of "
                f"{setting.task.name!r} is {setting.task.metric}"
            )
        check_setting(setting, self._epochs)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Train, or look up, `n_train` architectures to the end, and train the ensemble on them."""
        self.fits(setting)
        self._space, self._setting = space, setting
        self._reader = CurveReader(space, setting, self._epochs)
        runs, costs = self._reader.examples(self._n_train, seed, "curve_lcnet")
        if len(runs) < 2:
            raise ValueError(f"n_train: only {len(runs)} of {self._n_train} trainings did not diverge")
        self.trained_on = tuple(runs)
        with Meter(setting, "fit") as work, one_thread():
            codes = np.stack([space.encode(a) for a in runs])
            self._mean, self._scale = codes.mean(0), codes.std(0)
            self._scale[self._scale == 0] = 1.0
            self._runs = [(self._code(a), curve) for a, curve in runs.items()]
            examples = Examples(self._runs)
            self._ensemble = []
            for i in range(self._members):
                with torch.device("meta"):
                    network = CurveNetwork(codes.shape[1])
                materialise(network, torch_generator(seed, "init", i))
                work.add(flops=descend(network, examples, self._steps))
                self._ensemble.append(network)
        return (*costs, work.cost)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One partial training, or look-up, for each proposal."""
        return [self._answer(p) for p in proposals]

    def _answer(self, p: Proposal) -> Observation:
        curve = self._reader.partial(p)
        if not curve.usable:
            return crashed(p, curve.costs, DIVERGED)
        with Meter(self._setting, "fit") as work, one_thread():
            code = self._code(p.architecture)
            examples = Examples([*self._runs, (code, curve)])
            ends = []
            for member in self._ensemble:
                network = deepcopy(member)
                work.add(flops=descend(network, examples, self._adapt))
                with torch.no_grad():
                    ends.append(float(network(torch.from_numpy(code[None]).float())[2]))
        score, sd = float(np.mean(ends)), float(np.std(ends))
        return Observation(p, score, (*curve.costs, work.cost), tuple(curve.valid.tolist()), {"sd": sd})

    def _code(self, a: Architecture) -> np.ndarray:
        code: np.ndarray = (self._space.encode(a) - self._mean) / self._scale
        return code


class Examples:
    """Measured points of several curves.

    Attributes:
        codes: Standardised encodings (n, d).
        owner: Which of the encodings a point belongs to (m,).
        t: Its epoch, as a share of the pipeline's (m,).
        y: Its metric (m,).
    """

    def __init__(self, curves: Sequence[tuple[np.ndarray, PartialCurve]]) -> None:
        lengths = torch.tensor([len(c.valid) for _, c in curves])
        self.codes = torch.from_numpy(np.stack([code for code, _ in curves])).float()
        self.owner = torch.repeat_interleave(torch.arange(len(curves)), lengths)
        self.t = torch.from_numpy(np.concatenate([c.epochs / c.last for _, c in curves])).float()
        self.y = torch.from_numpy(np.concatenate([c.valid for _, c in curves])).float()


class CurveNetwork(nn.Module):
    """Encodings (n, d) to theta (n, 13), weights (n, 5) and asymptotes (n,)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (inputs, HIDDEN, HIDDEN):
            layers += [nn.Linear(width, HIDDEN), nn.Tanh()]
        self.body = nn.Sequential(*layers)
        self.theta = nn.Linear(HIDDEN, BASIS_PARAMETERS)
        self.weights = nn.Linear(HIDDEN, BASES)
        self.asymptote = nn.Linear(HIDDEN, 1)

    def forward(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See the class."""
        hidden = self.body(codes)
        asymptote = torch.sigmoid(self.asymptote(hidden))[:, 0]
        return torch.sigmoid(self.theta(hidden)), torch.softmax(self.weights(hidden), -1), asymptote

    def curve(self, examples: Examples) -> torch.Tensor:
        """Predicted metric of every point (m,)."""
        theta, weights, asymptote = (part[examples.owner] for part in self(examples.codes))
        predicted: torch.Tensor = asymptote + (weights * basis(theta, examples.t)).sum(1)
        return predicted


def basis(theta: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The five basis functions of the paper at t (m,) with parameters (m, 13): (m, 5), all 0 at t = 1.

    They are vapor pressure, power law, logistic power, exponential and Hill. The published code of the last has a
    factor a too many, by which it is not 0 at t = 1; it is left out here.
    """
    log_t = torch.log(t)
    a, b, c = theta[:, 0], theta[:, 1] / 10, theta[:, 2] / 10
    vapor = torch.exp(-a - b / t - c * log_t) - torch.exp(-a - b)
    a, b = theta[:, 3], theta[:, 4]
    power = a * (t**b - 1)
    a, b, c = theta[:, 5], theta[:, 6] / 10, theta[:, 7]
    logistic = 2 * a * (torch.sigmoid(b * c) - torch.sigmoid(c * (b - log_t)))
    a, b = 10 * theta[:, 8], theta[:, 9]
    exponential = b * (torch.exp(-a) - torch.exp(-a * t))
    a, b, c = theta[:, 10], theta[:, 11], theta[:, 12]
    hill = a * (1 / ((c / t) ** b + 1) - 1 / (c**b + 1))
    return torch.stack([vapor, power, logistic, exponential, hill], 1)


def descend(network: CurveNetwork, examples: Examples, steps: int) -> float:
    """Adam on the squared error of all points, and the FLOPs of it."""
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(network.curve(examples), examples.y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    if not steps:
        return 0.0
    flops = _counted(step)
    for _ in range(steps - 1):
        step()
    return steps * flops


def _counted(step: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())
