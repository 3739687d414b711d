"""Eleven parametric families of learning curves, and their least-squares fit to many curves at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Curve = Callable[..., tuple[Array, tuple[Array, ...]]]
ITERATIONS = 200


@dataclass(frozen=True, slots=True)
class Family:
    """One family of curves.

    Attributes:
        name: As in the paper.
        curve: (x, parameters) to the value and its derivatives by each parameter, elementwise; a parameter outside its
            domain gives NaN.
        start: Published start values of the fit, in the order of the parameters.
        second: Start values of a second fit, ours: the published ones are for a hundred epochs or more, and leave the
            fit to a curve of ten in a local minimum.
    """

    name: str
    curve: Curve
    start: tuple[float, ...]
    second: tuple[float, ...] = ()

    def __call__(self, x: Array, parameters: Array) -> Array:
        """Values (n, k) at the epochs x (k,) of the curves with parameters (n, d); NaN outside the domain."""
        with np.errstate(all="ignore"):
            values, _ = self.curve(x, *parameters.T[:, :, None])
        return np.broadcast_to(values, (len(parameters), len(x)))

    def jacobian(self, x: Array, parameters: Array) -> tuple[Array, Array]:
        """Values (n, k), and derivatives by the parameters (n, k, d)."""
        shape = (len(parameters), len(x))
        with np.errstate(all="ignore"):
            values, slopes = self.curve(x, *parameters.T[:, :, None])
        stacked = np.stack([np.broadcast_to(s, shape) for s in slopes], -1)
        # One memory layout for any number of curves, so that each has the same bits as alone.
        return np.broadcast_to(values, shape), np.ascontiguousarray(stacked)


def vap(x: Array, a: Array, b: Array, c: Array) -> tuple[Array, tuple[Array, ...]]:
    """Vapor pressure: exp(a + b / x + c ln x)."""
    y = np.exp(a + b / x + c * np.log(x))
    return y, (y, y / x, y * np.log(x))


def ilog2(x: Array, a: Array, c: Array) -> tuple[Array, tuple[Array, ...]]:
    """Inverse logarithm: c - a / ln(x + 1)."""
    slope = -1.0 / np.log(x + 1.0)
    return c + a * slope, (slope, np.ones_like(x))


def weibull(x: Array, alpha: Array, beta: Array, kappa: Array, delta: Array) -> tuple[Array, tuple[Array, ...]]:
    """Weibull: alpha - (alpha - beta) exp(-(kappa x)^delta)."""
    log = np.log(kappa * x)
    u = np.exp(delta * log)
    e = np.exp(-u)
    inner = (alpha - beta) * e * u
    return alpha - (alpha - beta) * e, (1.0 - e, e, inner * delta / kappa, inner * log)


def pow3(x: Array, c: Array, a: Array, alpha: Array) -> tuple[Array, tuple[Array, ...]]:
    """Power law: c - a x^-alpha."""
    q = np.exp(-alpha * np.log(x))
    return c - a * q, (np.ones_like(x), -q, a * q * np.log(x))


def pow4(x: Array, c: Array, a: Array, b: Array, alpha: Array) -> tuple[Array, tuple[Array, ...]]:
    """Shifted power law: c - (a x + b)^-alpha."""
    z = a * x + b
    q = np.exp(-alpha * np.log(z))
    return c - q, (np.ones_like(x), alpha * q * x / z, alpha * q / z, q * np.log(z))


def loglog_linear(x: Array, a: Array, b: Array) -> tuple[Array, tuple[Array, ...]]:
    """Log-log linear: ln(a ln x + b)."""
    z = a * np.log(x) + b
    return np.log(z), (np.log(x) / z, 1.0 / z)


def mmf(x: Array, alpha: Array, beta: Array, kappa: Array, delta: Array) -> tuple[Array, tuple[Array, ...]]:
    """Morgan-Mercer-Flodin: alpha - (alpha - beta) / (1 + (kappa x)^delta)."""
    log = np.log(kappa * x)
    u = np.exp(delta * log)
    g = 1.0 / (1.0 + u)
    inner = (alpha - beta) * g * g * u
    return alpha - (alpha - beta) * g, (1.0 - g, g, inner * delta / kappa, inner * log)


def janoschek(x: Array, a: Array, beta: Array, k: Array, delta: Array) -> tuple[Array, tuple[Array, ...]]:
    """Janoschek: a - (a - beta) exp(-k x^delta)."""
    power = np.exp(delta * np.log(x))
    e = np.exp(-k * power)
    inner = (a - beta) * e * power
    return a - (a - beta) * e, (1.0 - e, e, inner, inner * k * np.log(x))


def hill3(x: Array, theta: Array, eta: Array, kappa: Array) -> tuple[Array, tuple[Array, ...]]:
    """Hill: theta x^eta / (kappa^eta + x^eta)."""
    log = np.log(x) - np.log(kappa)
    g = 1.0 / (1.0 + np.exp(-eta * log))
    inner = theta * g * (1.0 - g)
    return theta * g, (g, inner * log, -inner * eta / kappa)


def log_power(x: Array, a: Array, b: Array, c: Array) -> tuple[Array, tuple[Array, ...]]:
    """Logistic in ln x: a / (1 + (x / e^b)^c)."""
    log = np.log(x) - b
    u = np.exp(c * log)
    g = 1.0 / (1.0 + u)
    inner = a * g * g * u
    return a * g, (g, inner * c, -inner * log)


def exp4(x: Array, c: Array, a: Array, b: Array, alpha: Array) -> tuple[Array, tuple[Array, ...]]:
    """Stretched exponential: c - exp(-a x^alpha + b)."""
    power = np.exp(alpha * np.log(x))
    e = np.exp(-a * power + b)
    return c - e, (np.ones_like(x), e * power, -e, e * a * power * np.log(x))


FAMILIES = (
    Family("vap", vap, (-0.622028, -0.470050, 0.042322)),
    Family("ilog2", ilog2, (0.43, 0.78)),
    Family("weibull", weibull, (0.7, 0.1, 0.01, 1.0), (0.7, 0.1, 0.3, 1.0)),
    Family("pow3", pow3, (0.84, 0.52, 0.01), (0.84, 0.52, 0.5)),
    Family("pow4", pow4, (0.8, 200.0, 0.0, 0.1), (0.8, 2.0, 1.0, 1.0)),
    Family("loglog_linear", loglog_linear, (1.0, 1.0)),
    Family("mmf", mmf, (0.7, 0.1, 0.01, 5.0), (0.7, 0.1, 0.3, 1.0)),
    Family("janoschek", janoschek, (0.73, 0.07, 0.355, 0.46), (0.73, 0.07, 0.3, 1.0)),
    Family("hill3", hill3, (0.772320, 0.586449, 2.460843), (0.77, 1.5, 1.0)),
    Family("log_power", log_power, (0.77, 2.98, -0.51), (0.77, 0.0, -1.0)),
    Family("exp4", exp4, (0.7, 0.8, -0.8, 0.3), (0.7, 0.3, -0.3, 1.0)),
)
"""Of Domhan et al. 2015, figure 1 and their published code; where that has no start values, they are 1."""


def recency_weights(n: int) -> Array:
    """Weights (n,) of the squared residuals, oldest first: 10^(i/n), the optional ones of the published code."""
    weights: Array = 10.0 ** (np.arange(n) / n)
    return weights


def fit_family(
    family: Family, x: Array, y: Array, weights: Array | None = None, *, iterations: int = ITERATIONS
) -> tuple[Array, Array]:
    """Least-squares fits of one family to many curves, by Levenberg-Marquardt (Marquardt 1963).

    The better of the fits from the family's start values counts. Every curve has a damping of its own, and is solved
    as if it were alone.

    Args:
        family: Of the curves.
        x: Epochs (k,), the same for all curves.
        y: Curves (n, k).
        weights: Of the squared residuals (k,).
        iterations: At most that many steps, tried or taken, for each curve.

    Returns:
        Parameters (n, d), and the weighted sums of squared residuals (n,), infinite where nothing was found.
    """
    x = np.asarray(x, np.float64)
    root = np.ones(len(x)) if weights is None else np.sqrt(weights)
    parameters, losses = _descend(family, x, y, root, family.start, iterations)
    if family.second:
        others, lower = _descend(family, x, y, root, family.second, iterations)
        better = lower < losses
        parameters[better], losses[better] = others[better], lower[better]
    return parameters, losses


def _descend(
    family: Family, x: Array, y: Array, root: Array, start: tuple[float, ...], iterations: int
) -> tuple[Array, Array]:
    parameters = np.tile(start, (len(y), 1))
    losses, products, gradients = _normal_equations(family, x, y, root, parameters)
    damping = np.full(len(y), 1e-2)
    active = np.flatnonzero(np.isfinite(losses))
    for _ in range(iterations):
        if not len(active):
            break
        tried = parameters[active] + _steps(products[active], gradients[active], damping[active])
        loss, product, gradient = _normal_equations(family, x, y[active], root, tried)
        before = losses[active]
        better = loss < before
        damping[active] = np.where(better, damping[active] / 5.0, damping[active] * 4.0)
        taken = active[better]
        parameters[taken], losses[taken] = tried[better], loss[better]
        products[taken], gradients[taken] = product[better], gradient[better]
        settled = better & (before - loss <= 1e-9 * before + 1e-14)
        active = active[~settled & (damping[active] < 1e10)]
    return parameters, losses


def _steps(products: Array, gradients: Array, damping: Array) -> Array:
    """Marquardt's steps (n, d): the damping is relative to the diagonal, so that the parameters' scales fall out."""
    diagonal = np.einsum("nii->ni", products)
    # A parameter without any effect has a zero on the diagonal; the small constant keeps it where it is.
    damped = products + np.einsum("ni,ij->nij", damping[:, None] * diagonal + 1e-12, np.eye(products.shape[1]))
    steps: Array = -np.linalg.solve(damped, gradients[:, :, None])[:, :, 0]
    return steps


def _normal_equations(family: Family, x: Array, y: Array, root: Array, parameters: Array) -> tuple[Array, Array, Array]:
    """Sums of squares (n,), J^T J (n, d, d) and J^T r (n, d); infinite, and 0, where the curve is not finite."""
    values, jacobian = family.jacobian(x, parameters)
    residuals = (values - y) * root
    jacobian = jacobian * root[:, None]
    with np.errstate(all="ignore"):
        losses = np.square(residuals).sum(1)
        # Beyond 1e100 the products would overflow.
        wrong = ~((losses < 1e100) & (np.abs(jacobian) < 1e100).all((1, 2)))
    residuals[wrong], jacobian[wrong], losses[wrong] = 0.0, 0.0, np.inf
    transposed = jacobian.transpose(0, 2, 1)
    return losses, transposed @ jacobian, (transposed @ residuals[:, :, None])[:, :, 0]
