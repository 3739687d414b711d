"""Learning-curve extrapolation by eleven parametric families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from ...protocols import Cost, Observation, Proposal, SearchSpace, Setting, Traits
from ...protocols.streams import integer
from ..meter import Meter
from ..networks.curve_families import FAMILIES, ITERATIONS, Array, Family, fit_family, recency_weights
from ..networks.curves import DIVERGED, CurveReader, PartialCurve, check_count, check_epochs, check_setting, crashed

if TYPE_CHECKING:
    from numpy.random import RandomState

__all__ = ["CurveDomhan"]

POINTS = 3
"""Fewest epochs that a family of two parameters can be judged by."""
MONOTONE = {"soft": 2, "hard": 100}
"""By rule, the number of epochs between the second and the last at which a curve must not fall."""
SMALLEST = 1e-3
"""Smallest deviation of a prediction, of accuracies."""
FLOOR = 1e-4
"""Residual deviation, of accuracies, below which a better fit to the past makes a family no more likely."""
NO_FAMILY = "no family of curves fits: each falls or leaves [0, 1] by the last epoch"
_PRIOR_VARIANCE = 1.0 / 12.0  # of the uniform distribution over [0, 1]


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """What the last epoch will show: a mixture of normal distributions.

    Attributes:
        weights: Of the components (m,), >= 0, sum 1.
        means: (m,).
        deviations: (m,).
    """

    weights: Array
    means: Array
    deviations: Array

    @property
    def mean(self) -> float:
        """Predicted mean."""
        return float(self.weights @ self.means)

    @property
    def sd(self) -> float:
        """Predictive standard deviation, noise of one epoch included."""
        variance = self.weights @ (np.square(self.deviations) + np.square(self.means - self.mean))
        return float(np.sqrt(variance))

    def above(self, value: float) -> float:
        """Probability of more than `value`."""
        from scipy.special import ndtr

        return float(self.weights @ ndtr((self.means - value) / self.deviations))


class CurveDomhan:
    """Predict the last epoch's accuracy by a weighted combination of parametric curves (Domhan et al. 2015).

    Every family is fitted to the beginning of the validation curve by least squares. Families whose curve falls
    between the second and the last epoch, or leaves [0, 1] there, get no weight. The score is the mean of the
    predictive distribution and `objectives["sd"]` its deviation.

    `fit="mle"` is the light version, ours: weights of families are those of Akaike's criterion, and their deviations
    combine the residual noise with the uncertainty of the parameters by linearisation. `fit="mcmc"` samples the
    posterior of the paper, of all parameters and weights together, from there on, and needs emcee.

    The priors are made for accuracies; metrics to be lowered are refused.

    Args:
        epochs: Epochs to pay for, at least 3; by default a third of the pipeline's, rounded up, and at least 3.
        fit: "mle" or "mcmc".
        monotone: "soft", where the last epoch must not be below the second, or "hard", where 100 points between
            them must not fall.
        recency: Whether later epochs count more in the least-squares fits, by 10^(i/n).
        walkers: Of "mcmc"; at least twice as many as there are parameters are taken.
        steps: Of every walker.
        burn_in: Steps that are thrown away, fewer than `steps`.
    """

    traits = Traits(accuracy_scale=True, deterministic=True)

    def __init__(
        self,
        epochs: int | None = None,
        fit: str = "mle",
        monotone: str = "soft",
        recency: bool = False,
        walkers: int = 100,
        steps: int = 2500,
        burn_in: int = 500,
    ) -> None:
        check_epochs(epochs, POINTS)
        for field, value, allowed in (("fit", fit, ("mle", "mcmc")), ("monotone", monotone, tuple(MONOTONE))):
            if value not in allowed:
                raise ValueError(f"{field}: {value!r} is not one of {', '.join(allowed)}")
        check_count("walkers", walkers)
        check_count("burn_in", burn_in, 0)
        check_count("steps", steps, burn_in + 1)
        self._epochs, self._monotone, self._recency = epochs, monotone, recency
        self._mcmc, self._walkers, self._steps, self._burn_in = fit == "mcmc", walkers, steps, burn_in
        if self._mcmc:
            self.traits = replace(type(self).traits, deterministic=False)

    def fits(self, setting: Setting) -> None:
        """ValueError for other metrics than accuracy, for too few epochs, or where emcee is needed and missing."""
        if setting.task.metric != "accuracy":
            raise ValueError(
                f"estimator: 'curve_domhan' has priors for accuracy in [0, 1], and the metric of "
                f"{setting.task.name!r} is {setting.task.metric}"
            )
        check_setting(setting, self._epochs, POINTS)
        if self._mcmc:
            _emcee()

    def prepare(self, space: SearchSpace, setting: Setting, *, seed: int) -> Sequence[Cost]:
        """Nothing to pay."""
        self.fits(setting)
        self._reader, self._setting, self._seed = CurveReader(space, setting, self._epochs, POINTS), setting, seed
        return ()

    def estimate(self, proposals: Sequence[Proposal]) -> Sequence[Observation]:
        """One partial training, or look-up, for each proposal; curves known at the same epochs are fitted together."""
        curves = [self._reader.partial(p) for p in proposals]
        answers: list[Observation | None] = [None] * len(proposals)
        groups: dict[tuple[int, bytes], list[int]] = {}
        for i, (p, curve) in enumerate(zip(proposals, curves, strict=True)):
            if not curve.usable:
                answers[i] = crashed(p, curve.costs, DIVERGED)
            elif len(curve.valid) < POINTS:
                answers[i] = crashed(p, curve.costs, f"{len(curve.valid)} epochs known, and {POINTS} needed")
            else:
                groups.setdefault((curve.last, curve.epochs.tobytes()), []).append(i)
        for members in groups.values():
            found, cost = self._extrapolate([curves[i] for i in members], [proposals[i] for i in members])
            for i, extrapolation in zip(members, found, strict=True):
                answers[i] = _answer(proposals[i], curves[i], extrapolation, cost)
        return [a for a in answers if a is not None]

    def _extrapolate(
        self, curves: Sequence[PartialCurve], proposals: Sequence[Proposal]
    ) -> tuple[list[Extrapolation | None], Cost]:
        """The extrapolations, and the cost of each, which is the same for all."""
        x, y, last = curves[0].epochs.astype(float), np.stack([c.valid for c in curves]), curves[0].last
        with Meter(self._setting, "fit") as work:
            fits = fit_all(x, y, last, monotone=self._monotone, recency=self._recency)
            found = combine(fits, x, y, last)
            if self._mcmc:
                for i, p in enumerate(proposals):
                    if found[i] is not None:
                        random = np.random.RandomState(  # the generator that emcee takes
                            integer(self._seed, "curve_domhan", p.architecture, p.fidelity) % 2**32
                        )
                        found[i] = self._sample([f.of(i) for f in fits if f.admissible[i]], x, y[i], last, random)
            # J^T J and J^T r, as if every fit took all of its steps.
            work.add(
                flops=sum(2.0 * len(x) * len(f.start) * (len(f.start) + 1) * ITERATIONS for f in FAMILIES) * len(y)
            )
        return found, replace(work.cost, amount=work.cost.amount / len(y))

    def _sample(
        self, fits: Sequence[tuple[Family, Array]], x: Array, y: Array, last: int, random: RandomState
    ) -> Extrapolation:
        return sample_posterior(
            fits, x, y, last, random, monotone=self._monotone,
            walkers=self._walkers, steps=self._steps, burn_in=self._burn_in,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FamilyFit:
    """The fits of one family to n curves.

    Attributes:
        family: The family.
        parameters: (n, d).
        losses: Sums of squared residuals (n,).
        admissible: Whether the constraints hold (n,).
    """

    family: Family
    parameters: Array
    losses: Array
    admissible: Array

    def of(self, i: int) -> tuple[Family, Array]:
        """The family and its parameters (d,) for one curve."""
        return self.family, self.parameters[i]


def fit_all(x: Array, y: Array, last: int, *, monotone: str = "soft", recency: bool = False) -> list[FamilyFit]:
    """Every family that has fewer parameters than there are epochs, fitted to the curves y (n, k) at x (k,)."""
    weights = recency_weights(len(x)) if recency else None
    fits = []
    for family in FAMILIES:
        if len(family.start) < len(x):
            parameters, losses = fit_family(family, x, y, weights)
            allowed = np.isfinite(losses) & admissible(family, parameters, last, monotone)
            fits.append(FamilyFit(family, parameters, losses, allowed))
    return fits


def admissible(family: Family, parameters: Array, last: int, monotone: str = "soft") -> Array:
    """Whether curves (n, d) do not fall from the second to the last epoch, and end within [0, 1]; bool (n,)."""
    values = family(np.linspace(min(2, last), last, MONOTONE[monotone]), parameters)
    with np.errstate(invalid="ignore"):
        rising = (np.diff(values) >= 0).all(1)
        allowed: Array = rising & (values[:, -1] >= 0) & (values[:, -1] <= 1)
    return allowed


def combine(fits: Sequence[FamilyFit], x: Array, y: Array, last: int) -> list[Extrapolation | None]:
    """The mixture over the admissible families of each of n curves, by Akaike weights; None where there is none.

    A family's weight is exp(-AICc / 2), normalised, with the correction for short curves (Hurvich & Tsai 1989). Its
    normal distribution has the residual deviation, sqrt(RSS / (k - d)) and at least `SMALLEST`, and the variance
    g^T (J^T J)^-1 g of the linearised fit, at most that of the uniform prior.

    Args:
        fits: From `fit_all`.
        x: Epochs (k,).
        y: Curves (n, k).
        last: Epoch to predict.
    """
    n, k = y.shape
    criteria, means, deviations = (np.full((n, len(fits)), fill) for fill in (inf, 0.0, 1.0))
    for j, fit in enumerate(fits):
        rows = np.flatnonzero(fit.admissible)
        if not len(rows):
            continue
        parameters, d = fit.parameters[rows], fit.parameters.shape[1]
        values, jacobian = fit.family.jacobian(x, parameters)
        squares = np.square(values - y[rows]).sum(1)
        noise = np.maximum(squares / (k - d), SMALLEST**2)
        ahead, slopes = fit.family.jacobian(np.array([float(last)]), parameters)
        # With sigma there are d + 1 parameters. Where the correction is not defined any more, 1/2 keeps such families
        # as a last resort, for curves on which no smaller one is admissible.
        penalty = 2.0 * (d + 1) * k / max(k - d - 2, 0.5)
        criteria[rows, j] = k * np.log(np.maximum(squares / k, FLOOR**2)) + penalty
        means[rows, j] = ahead[:, 0]
        deviations[rows, j] = np.sqrt(noise + np.fmin(_spread(jacobian, slopes[:, 0]) * noise, _PRIOR_VARIANCE))
    found: list[Extrapolation | None] = []
    for i in range(n):
        best = criteria[i].min(initial=inf)
        weights = np.exp(-(criteria[i] - best) / 2.0) if best < inf else None
        found.append(None if weights is None else Extrapolation(weights / weights.sum(), means[i], deviations[i]))
    return found


def _spread(jacobian: Array, slopes: Array) -> Array:
    """g^T (J^T J)^-1 g (n,) for J (n, k, d) and g (n, d); NaN where a derivative is not finite."""
    # The scale of a parameter must not decide which directions count as undetermined.
    with np.errstate(all="ignore"):
        scale = np.sqrt(np.square(jacobian).sum(1)) + 1e-12
        jacobian, slopes = jacobian / scale[:, None], slopes / scale
    finite = np.isfinite(jacobian).all((1, 2)) & np.isfinite(slopes).all(1)
    jacobian, slopes = np.where(finite[:, None, None], jacobian, 0.0), np.where(finite[:, None], slopes, np.nan)
    products = jacobian.transpose(0, 2, 1) @ jacobian + 1e-9 * np.eye(jacobian.shape[2])
    solved = np.linalg.solve(products, slopes[:, :, None])[:, :, 0]
    spread: Array = np.maximum((slopes * solved).sum(1), 0.0)
    return spread


def sample_posterior(
    fits: Sequence[tuple[Family, Array]],
    x: Array,
    y: Array,
    last: int,
    random: RandomState,
    *,
    monotone: str = "soft",
    walkers: int = 100,
    steps: int = 2500,
    burn_in: int = 500,
) -> Extrapolation:
    """The posterior of y ~ N(sum_k w_k f_k(x), sigma^2), sampled with emcee (Domhan et al. 2015, equations 1 to 5).

    Priors are uniform under the constraints: weights >= 0, which are normalised; 0 < sigma <= 1; and those of
    `admissible`. Walkers start in a ball of 1e-6 around the least-squares fits, all weights being 10.

    Args:
        fits: Families and their fitted parameters (d,).
        x: Epochs (k,).
        y: Curve (k,).
        last: Epoch to predict.
        random: Of the sampler.
        monotone: See `CurveDomhan`.
        walkers: At least; twice the number of dimensions are needed.
        steps: Of each walker.
        burn_in: Of these, thrown away.
    """
    sizes = [len(p) for _, p in fits]
    ends = np.cumsum([*sizes, 1])

    def split(theta: Array) -> tuple[list[Array], Array, Array]:
        *parameters, sigma, weights = np.split(theta, ends, 1)
        total = weights.sum(1, keepdims=True)
        return parameters, sigma, weights / np.where(total > 0, total, 1.0)

    def mean(parameters: Sequence[Array], weights: Array, at: Array) -> Array:
        curves = [family(at, p) for (family, _), p in zip(fits, parameters, strict=True)]
        result: Array = np.einsum("nm,mnk->nk", weights, np.stack(curves))
        return result

    def log_probability(theta: Array) -> Array:
        parameters, sigma, weights = split(theta)
        allowed = (theta[:, ends[-1] :] >= 0).all(1) & (sigma[:, 0] > 0) & (sigma[:, 0] <= 1)
        for (family, _), p in zip(fits, parameters, strict=True):
            allowed &= admissible(family, p, last, monotone)
        with np.errstate(all="ignore"):
            squares = np.square((mean(parameters, weights, x) - y) / sigma).sum(1)
            value = -0.5 * squares - len(x) * np.log(sigma[:, 0])
        return np.where(allowed & np.isfinite(value), value, -inf)

    ones = np.full((1, len(fits)), 1.0 / len(fits))
    deviation = float(np.std(y - mean([p[None] for _, p in fits], ones, x)[0]))
    center = np.concatenate([*(p for _, p in fits), [max(deviation, SMALLEST)], np.full(len(fits), 10.0)])
    count = max(walkers, 2 * len(center))
    sampler = _emcee().EnsembleSampler(count, len(center), log_probability, vectorize=True)
    sampler.random_state = random.get_state()
    sampler.run_mcmc(center + 1e-6 * random.standard_normal((count, len(center))), steps, skip_initial_state_check=True)
    parameters, sigma, weights = split(sampler.get_chain(discard=burn_in, flat=True))
    means = mean(parameters, weights, np.array([float(last)]))[:, 0]
    return Extrapolation(np.full(len(means), 1.0 / len(means)), means, sigma[:, 0])


def cut_flat_start(epochs: Array, y: Array, *, rise: float = 0.05, run: int = 5) -> tuple[Array, Array]:
    """The curve from where it starts to rise: the first of `run` successive values above y_1 + `rise`.

    The whole curve where there are no such values.
    """
    above = y > y[0] + rise
    for start in range(len(y) - run + 1):
        if above[start : start + run].all():
            return epochs[start:], y[start:]
    return epochs, y


def stop(
    y: Array,
    y_best: float | None,
    last: int,
    *,
    epochs: Array | None = None,
    chance: float = 0.05,
    optimistic: bool = False,
    certain: float = 0.005,
    monotone: str = "soft",
) -> bool:
    """Whether a training should be ended early (Domhan et al. 2015, section 3.3), judged by the light fit.

    It is where P(y(last) > y_best) is below `chance`. A run that has reached `y_best` already, or that has nothing to
    compete with, or that no family fits, goes on. The flat start of the curve is left out of the fit.

    Args:
        y: Accuracies so far (k,).
        y_best: The best so far of all runs; None where there is none yet.
        last: The pipeline's last epoch.
        epochs: At which `y` was measured; by default 1 to k.
        chance: The probability that still is worth going on.
        optimistic: Also end a run whose predictive deviation is below `certain`.
        certain: See `optimistic`.
        monotone: See `CurveDomhan`.
    """
    y = np.asarray(y, np.float64)
    if y_best is None or y.max() >= y_best:
        return False
    x, y = cut_flat_start(np.arange(1.0, len(y) + 1) if epochs is None else np.asarray(epochs, np.float64), y)
    if len(y) < POINTS:
        return False
    (found,) = combine(fit_all(x, y[None], last, monotone=monotone), x, y[None], last)
    if found is None:
        return False
    return found.above(y_best) < chance or (optimistic and found.sd < certain)


def _answer(p: Proposal, curve: PartialCurve, found: Extrapolation | None, cost: Cost) -> Observation:
    costs = (*curve.costs, cost)
    if found is None:
        return crashed(p, costs, NO_FAMILY)
    return Observation(p, found.mean, costs, tuple(curve.valid.tolist()), {"sd": found.sd})


def _emcee() -> Any:
    try:
        return import_module("emcee")
    except ImportError:
        raise ValueError("fit: 'mcmc' needs emcee, which nasbed[curves] installs: pip install nasbed[curves]") from None
