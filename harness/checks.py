"""The conformance kit: what every strategy, space and estimator promises, as checks anyone may run.

>>> from nasbed.methods import registry
>>> results = check_space(registry.space("synthetic[genes=2;values=3]"))
>>> [r.name for r in results if r.passed is False]
[]

Under pytest, each check as a test of its own:

    @pytest.mark.parametrize(("name", "check"), list(yield_checks("strategies")))
    def test_my_strategy(name, check):
        check(MyStrategy, params={"population_size": 6})

A check is a small function, named in the results, whose docstring is the sentence of the contract that it checks. It
raises `Violation`, whose message is one line, if the sentence does not hold, and `unittest.SkipTest`, which
pytest understands, if it does not apply. What a method itself raises is passed on with its traceback.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import SkipTest

from ..methods import registry
from ..protocols import SearchSpace
from .checks_estimator import ESTIMATOR_CHECKS, Subject
from .checks_sharing import SHARING_CHECKS
from .checks_space import SPACE_CHECKS
from .checks_strategy import STRATEGY_CHECKS
from .checks_tools import Candidate
from .faults import Violation

__all__ = ["CheckResult", "Violation", "check_estimator", "check_space", "check_strategy", "yield_checks"]

Check = Callable[..., None]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: Of the check.
        passed: Whether the sentence holds; None if it does not apply, and `detail` says why.
        detail: Empty where it holds; one line, or the traceback of an exception that the method raised.
    """

    name: str
    passed: bool | None
    detail: str = ""


def check_strategy(
    strategy_class: Any, *, params: Mapping[str, Any] | None = None, spaces: Sequence[SearchSpace] | None = None
) -> list[CheckResult]:
    """Run all checks of its role on a black-box or weight-sharing strategy; takes seconds.

    Args:
        strategy_class: Built as `cls(space, *, seed, **params)`, or `cls(space, setting, *, seed, **params)` if it
            has `train_epoch`. A class attribute `deterministic = True` declares that it takes no notice of the seed.
        params: Further arguments; small sizes bring a strategy into its informed phase within a check's 24 asks.
        spaces: Where to run it, instead of small spaces of fixed and of variable length.
    """
    sharing = _shares(strategy_class)
    return [
        _result(check.__name__, partial(_on_class, check, sharing, strategy_class, params=params, spaces=spaces))
        for check in (SHARING_CHECKS if sharing else STRATEGY_CHECKS)
    ]


def check_estimator(estimator_class: Any, *, params: Mapping[str, Any] | None = None) -> list[CheckResult]:
    """Run all checks on a performance estimator; takes seconds.

    Args:
        estimator_class: Built as `cls(**params)`, with an attribute `traits` (`protocols.Traits`).
        params: Small sizes let an estimator that is prepared at great cost be checked in seconds.
    """
    subject = Subject(estimator_class, dict(params or {}))
    return [_result(check.__name__, partial(check, subject)) for check in ESTIMATOR_CHECKS]


def check_space(space: SearchSpace) -> list[CheckResult]:
    """Run all checks on a search space; takes seconds."""
    return [_result(check.__name__, partial(check, space)) for check in SPACE_CHECKS]


def yield_checks(role: str) -> Iterator[tuple[str, Check]]:
    """The checks of a role as (name, callable).

    Args:
        role: "strategies": call as `check(strategy_class, params=..., spaces=...)`, see `check_strategy`;
            "spaces": call as `check(space)`; "estimators": call as `check(estimator_class, params=...)`.

    Raises:
        ValueError: Another role.
    """
    if role not in ("strategies", "spaces", "estimators"):
        raise ValueError(registry.unknown("role", role, ("strategies", "spaces", "estimators")))
    if role == "estimators":
        yield from ((check.__name__, partial(_on_estimator, check)) for check in ESTIMATOR_CHECKS)
        return
    if role == "spaces":
        yield from ((check.__name__, check) for check in SPACE_CHECKS)
        return
    for sharing, checks in ((False, STRATEGY_CHECKS), (True, SHARING_CHECKS)):
        yield from ((check.__name__, partial(_on_class, check, sharing)) for check in checks)


def _on_class(
    check: Check,
    sharing: bool,
    strategy_class: Any,
    *,
    params: Mapping[str, Any] | None = None,
    spaces: Sequence[SearchSpace] | None = None,
) -> None:
    if _shares(strategy_class) != sharing:
        raise SkipTest(f"is about {'weight-sharing' if sharing else 'black-box'} strategies")
    check(Candidate(strategy_class, dict(params or {}), None if spaces is None else tuple(spaces)))


def _on_estimator(
    check: Callable[[Subject], None], estimator_class: Any, *, params: Mapping[str, Any] | None = None
) -> None:
    check(Subject(estimator_class, dict(params or {})))


def _shares(strategy_class: Any) -> bool:
    return hasattr(strategy_class, "train_epoch")


def _result(name: str, check: Callable[[], None]) -> CheckResult:
    try:
        check()
    except SkipTest as reason:
        return CheckResult(name, None, str(reason))
    except Violation as violation:
        return CheckResult(name, False, str(violation))
    except Exception as error:
        return CheckResult(name, False, "".join(traceback.format_exception(error)).rstrip())
    return CheckResult(name, True)
