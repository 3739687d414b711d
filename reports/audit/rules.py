"""A linear description of rank changes by features of architectures, for reading beside the biases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats

from ..statistics.values import Result, Vector, checked

COLLINEAR = 10.0


@dataclass(frozen=True, slots=True)
class Rule(Result):
    """What one standard deviation of a feature goes with, the others given.

    Attributes:
        feature: Name.
        coefficient: In shares of the ranking.
        se: HC3.
        p: Two-sided, of coefficient = 0, by the normal distribution.
        vif: Variance inflation factor; infinite where others determine the feature.
    """

    feature: str
    coefficient: float
    se: float
    p: float
    vif: float


@dataclass(frozen=True, slots=True)
class Rules(Result):
    """The regression as a whole.

    Attributes:
        rules: By feature that varies.
        r2: Share of the variance of the rank changes.
        n: Architectures.
        warnings: On features that cannot be told apart.
        reason: Why there are no rules, else "".
    """

    rules: tuple[Rule, ...]
    r2: float
    n: int
    warnings: tuple[str, ...] = ()
    reason: str = ""


def ols_rules(d: npt.ArrayLike, features: Mapping[str, npt.ArrayLike]) -> Rules:
    """Least squares of rank changes on standardised features, with standard errors HC3 (MacKinnon and White 1985).

    It describes and decides nothing: rank changes shift towards the mean with the noise of the truth, in good
    architectures one way and in bad ones the other, and so does whatever goes with quality (see `bias.biases`). Where
    features are collinear, as counts of operations with a fixed sum, coefficients are those of the least norm.

    Args:
        d: (n,) from `rank_change`.
        features: Name to (n,); constant ones are left out.

    Raises:
        ValueError: NaN, or different numbers.
    """
    change = checked(d, "d")
    values = {name: checked(phi, name) for name, phi in features.items()}
    if any(phi.size != change.size for phi in values.values()):
        raise ValueError(f"{change.size} rank changes and { {n: phi.size for n, phi in values.items()} } values")
    names = [n for n, phi in values.items() if phi.size and np.ptp(phi) > 0]
    if not names or change.size < len(names) + 3 or np.ptp(change) == 0:
        why = f"{change.size} architectures and {len(names)} features that vary, or no variance of rank changes"
        return Rules((), math.nan, change.size, (), f"nothing to fit: {why}")
    Z = np.column_stack([(values[n] - values[n].mean()) / values[n].std() for n in names])
    X = np.column_stack([np.ones(change.size), Z])
    inverse = np.linalg.pinv(X)
    beta = inverse @ change
    rest = change - X @ beta
    leverage = np.einsum("ij,ji->i", X, inverse)
    free = np.where(leverage < 1.0 - 1e-9, 1.0 - leverage, np.nan)  # an architecture alone in something has no residual
    se = np.sqrt((inverse**2 @ (rest / free) ** 2)[1:])
    vifs = [_vif(np.delete(Z, j, axis=1), Z[:, j]) for j in range(len(names))]
    rules = tuple(
        Rule(name, float(b), float(s), float(2.0 * scipy.stats.norm.sf(math.fabs(b) / s)) if s > 0 else math.nan, v)
        for name, b, s, v in zip(names, beta[1:], se, vifs, strict=True)
    )
    close = ", ".join(f"{r.feature} (VIF {r.vif:.3g})" for r in rules if r.vif > COLLINEAR)
    warnings = (f"others all but determine {close}: their coefficients are not to be read singly",)
    r2 = 1.0 - float(rest @ rest) / float(((change - change.mean()) ** 2).sum())
    return Rules(rules, r2, change.size, warnings if close else ())


def _vif(others: np.ndarray, z: Vector) -> float:
    """1 / (1 - R2) of a standardised feature on the others."""
    if not others.shape[1]:
        return 1.0
    rest = z - others @ np.linalg.lstsq(others, z, rcond=None)[0]
    left = float((rest**2).mean())
    return 1.0 / left if left > 1e-9 else math.inf
