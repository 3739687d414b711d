"""Learning-curve extrapolation by the Gaussian process of freeze-thaw Bayesian optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...protocols import Architecture, Cost, Observation, Proposal, SearchSpace, Setting, Traits
from ..meter import Meter
from ..networks.curves import (
    DIVERGED,
    CurveReader,
    PartialCurve,
    check_count,
    check_epochs,
    check_setting,
    crashed,
    orientation,
)

__all__ = ["CurveFreezeThaw"]

Array = np.ndarray
_JITTER = 1e-8  # of the architectures' kernel, whose inverse is never needed but whose root is


@dataclass(frozen=True, slots=True)
class Parameters:
    """Of the model; curves are in units of their standard deviation.

    Attributes:
        mean: Of the asymptotes.
        amplitude: Variance of the asymptotes.
        length: Of the Matern kernel over encodings.
        decay: Variance of the exponential-decay kernel.
        alpha: Shape of the rates' gamma distribution.
        beta: Its inverse scale, epochs.
        noise: Variance of a measurement.
    """

    mean: float = 0.0
    amplitude: float = 1.0
    length: float = 2.0
    decay: float = 1.0
    alpha: float = 1.0
    beta: float = 1.0
    noise: float = 0.01


BOUNDS = ((-2.0, 2.0), *((np.log(low), np.log(high)) for low, high in (
    (0.01, 10.0), (0.1, 30.0), (1e-3, 100.0), (0.1, 10.0), (0.1, 100.0), (1e-5, 1.0),
)))  # fmt: skip
"""Of the mean, and of the logarithms of the others: some of them hardly show in short curves."""


class CurveFreezeThaw:
    """Posterior mean of a training's asymptote under the freeze-thaw model (Swersky et al. 2014).

    A curve is an asymptote plus a sum of exponential decays plus noise, y_n ~ N(f_n 1, K_t + sigma^2 I), where
    K_t mixes exp(-lambda (t + t')) over rates lambda ~ Gamma(alpha, beta). Asymptotes are a Gaussian process over
    `space.encode`, with a Matern 5/2 kernel. Inference is joint over the whole trainings of architectures drawn
    uniformly and the beginning of the one asked for, and by blocks of one curve. Hyper-parameters maximise the marginal
    likelihood of the whole trainings; the paper samples them.

    The asymptote is what the training would reach in the end of time, which is more than after the last epoch.
    `objectives["sd"]` is its posterior deviation.

    Args:
        epochs: Epochs of an asked architecture to pay for, at least 1; by default a third of the pipeline's, rounded
            up.
        n_train: Whole trainings to learn from, at least 2. They are charged in `prepare`.

    Attributes:
        trained_on: The architectures learned from, known after `prepare`: what an audit has to leave out.
    """

    traits = Traits(accuracy_scale=True, deterministic=False)

    def __init__(self, epochs: int | None = None, n_train: int = 50) -> None:
        check_epochs(epochs)
        check_count("n_train", n_train, 2)
        self._epochs, self._n_train = epochs, n_train
        self.trained_on: tuple[Architecture, ...] = ()

    def fits(self, setting: Setting) -> None:
        """ValueError where the pipeline has fewer epochs, or where neither table nor trainer can serve."""
        check_setting(setting, self._epochs)

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Train, or look up, `n_train` architectures to the end, and choose the hyper-parameters by them."""
        self.fits(setting)
        self._space, self._setting, self._sign = space, setting, orientation(setting)
        self._reader = CurveReader(space, setting, self._epochs)
        runs, costs = self._reader.examples(self._n_train, seed, "curve_freeze_thaw")
        if len(runs) < 2:
            raise ValueError(f"n_train: only {len(runs)} of {self._n_train} trainings did not diverge")
        self.trained_on = tuple(runs)
        values = np.concatenate([self._sign * run.valid for run in runs.values()])
        self._center, self._scale = float(values.mean()), float(values.std()) or 1.0
        with Meter(setting, "fit") as work:
            self._codes = np.stack([space.encode(a) for a in runs])
            self._times = [run.epochs.astype(float) for run in runs.values()]
            self._curves = [self._standardised(run) for run in runs.values()]
            self._parameters, evaluations = maximise(self._codes, self._times, self._curves)
            work.add(flops=evaluations * _flops(self._times))
        return (*costs, work.cost)

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One partial training, or look-up, for each proposal."""
        return [self._answer(p) for p in proposals]

    def _answer(self, p: Proposal) -> Observation:
        curve = self._reader.partial(p)
        if not curve.usable:
            return crashed(p, curve.costs, DIVERGED)
        with Meter(self._setting, "fit") as work:
            codes = np.concatenate([self._codes, self._space.encode(p.architecture)[None]])
            times = [*self._times, curve.epochs.astype(float)]
            mean, covariance, _ = posterior(self._parameters, codes, times, [*self._curves, self._standardised(curve)])
            work.add(flops=_flops(times))
        score = self._center + self._scale * float(mean[-1])
        sd = self._scale * float(np.sqrt(covariance[-1, -1]))
        return Observation(p, score, (*curve.costs, work.cost), tuple(curve.valid.tolist()), {"sd": sd})

    def _standardised(self, curve: PartialCurve) -> Array:
        result: Array = (self._sign * curve.valid - self._center) / self._scale
        return result


def decay_kernel(t: Array, u: Array, alpha: float, beta: float) -> Array:
    """beta^alpha / (t + u + beta)^alpha, (n, m): E exp(-lambda (t + u)) over lambda ~ Gamma(alpha, beta).

    >>> float(decay_kernel(np.zeros(1), np.zeros(1), 2.0, 3.0)[0, 0])
    1.0
    """
    kernel: Array = (beta / (t[:, None] + u[None] + beta)) ** alpha
    return kernel


def matern(x: Array, z: Array, length: float) -> Array:
    """Matern 5/2 kernel of the rows of x (n, d) and z (m, d), 1 on the diagonal: (n, m)."""
    squares = np.square(x[:, None] - z[None]).sum(2)
    r = np.sqrt(5.0 * squares) / length
    kernel: Array = (1.0 + r + r * r / 3.0) * np.exp(-r)
    return kernel


def posterior(
    p: Parameters, codes: Array, times: Sequence[Array], curves: Sequence[Array]
) -> tuple[Array, Array, float]:
    """Posterior mean (n,) and covariance (n, n) of the asymptotes, and the log marginal likelihood, by blocks.

    With O the matrix that gives every measurement its curve's asymptote, Lambda = O^T K^-1 O and
    gamma = O^T K^-1 (y - O m), the mean is m + C gamma, where C = (K_x^-1 + Lambda)^-1. It is computed from
    B = I + L^T Lambda L, K_x = L L^T, so that curves that say nothing, Lambda = 0, do no harm.

    Args:
        p: Hyper-parameters.
        codes: Encodings (n, d).
        times: Epochs of each curve.
        curves: Its values.
    """
    n = len(curves)
    precision, pull, log_likelihood = np.zeros(n), np.zeros(n), 0.0
    roots: dict[bytes, tuple[Array, Array, float]] = {}
    for i, (t, y) in enumerate(zip(times, curves, strict=True)):
        if (key := t.tobytes()) not in roots:
            covariance = p.decay * decay_kernel(t, t, p.alpha, p.beta) + p.noise * np.eye(len(t))
            inverse = np.linalg.inv(covariance)
            roots[key] = inverse, inverse.sum(1), float(np.linalg.slogdet(covariance)[1])
        inverse, ones, log_determinant = roots[key]
        residual = y - p.mean
        precision[i], pull[i] = ones.sum(), ones @ residual
        log_likelihood -= 0.5 * (residual @ inverse @ residual + log_determinant + len(t) * np.log(2.0 * np.pi))
    root = np.linalg.cholesky(p.amplitude * matern(codes, codes, p.length) + _JITTER * np.eye(n))
    inner = np.linalg.cholesky(np.eye(n) + root.T @ (precision[:, None] * root))
    half = np.linalg.solve(inner, root.T)
    covariance = half.T @ half
    mean = p.mean + covariance @ pull
    log_likelihood += 0.5 * float(pull @ covariance @ pull) - float(np.log(np.diag(inner)).sum())
    return mean, covariance, log_likelihood


def maximise(codes: Array, times: Sequence[Array], curves: Sequence[Array]) -> tuple[Parameters, int]:
    """Hyper-parameters of largest marginal likelihood, by L-BFGS-B from the defaults, and the evaluations it took."""
    from scipy.optimize import minimize

    def unpack(theta: Array) -> Parameters:
        return Parameters(float(theta[0]), *np.exp(theta[1:]).tolist())

    def loss(theta: Array) -> float:
        return -posterior(unpack(theta), codes, times, curves)[2]

    start = Parameters()
    positive = (start.amplitude, start.length, start.decay, start.alpha, start.beta, start.noise)
    first = np.array([start.mean, *np.log(positive)])
    found = minimize(loss, first, method="L-BFGS-B", bounds=BOUNDS, options={"maxiter": 50})
    return unpack(found.x), int(found.nfev)


def _flops(times: Sequence[Array]) -> float:
    """Of one inference, whose products are those of three n x n matrices and, for each grid of epochs, an inverse."""
    grids = {t.tobytes(): len(t) for t in times}
    return 6.0 * len(times) ** 3 + sum(2.0 * k**3 for k in grids.values()) + sum(2.0 * len(t) ** 2 for t in times)
