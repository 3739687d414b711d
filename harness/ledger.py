"""The cost ledger: every charge is typed, and together they are the simulated clock."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from ..protocols import COST_KINDS, Budget, Cost


class Ledger:
    """Books costs against a budget.

    >>> ledger = Ledger(Budget("evaluations", 2.0))
    >>> [ledger.charge([Cost("train", 1.0)]) for _ in range(3)]
    [True, True, False]
    >>> ledger.spent
    2.0
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.accounts: dict[str, float] = {}
        self.spent = 0.0

    def charge(self, costs: Iterable[Cost]) -> bool:
        """Book the costs of one evaluation if all of them fit into the budget; otherwise book nothing.

        Raises:
            ValueError: A cost that is negative or not finite, or of an unknown kind.
        """
        costs = tuple(costs)
        total = self.spent
        for cost in costs:
            if not 0.0 <= cost.amount < inf or cost.kind not in COST_KINDS:
                raise ValueError(f"cost: {cost} needs a finite amount >= 0 and a kind of {', '.join(COST_KINDS)}")
            total += cost.amount
        if total > self.budget.limit:
            return False
        for cost in costs:
            self.accounts[cost.kind] = self.accounts.get(cost.kind, 0.0) + cost.amount
        self.spent = total
        return True

    @property
    def exhausted(self) -> bool:
        """Whether nothing but free evaluations would fit."""
        return self.spent >= self.budget.limit
