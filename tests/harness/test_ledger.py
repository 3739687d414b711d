from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasbed.harness.ledger import Ledger
from nasbed.protocols import COST_KINDS, Budget, Cost

amounts = st.floats(0, 1e12)
costs = st.builds(Cost, st.sampled_from(COST_KINDS), amounts)


@given(st.floats(0, 1e13), st.lists(st.lists(costs, max_size=4), max_size=30))
def test_the_budget_is_never_exceeded_and_the_accounts_sum_to_what_is_spent(
    limit: float, charges: list[list[Cost]]
) -> None:
    ledger = Ledger(Budget("seconds", limit))
    booked: list[Cost] = []
    for charge in charges:
        before, accounts = ledger.spent, dict(ledger.accounts)
        if ledger.charge(charge):
            booked += charge
        else:  # all or nothing
            assert (ledger.spent, ledger.accounts) == (before, accounts)
            assert before + sum(c.amount for c in charge) > limit * (1 - 1e-12)
        assert ledger.spent <= limit
    assert ledger.spent == pytest.approx(sum(c.amount for c in booked), rel=1e-12)
    assert sum(ledger.accounts.values()) == pytest.approx(ledger.spent, rel=1e-12)
    for kind in COST_KINDS:
        assert ledger.accounts.get(kind, 0.0) == pytest.approx(sum(c.amount for c in booked if c.kind == kind))
    assert ledger.exhausted == (ledger.spent >= limit)


@pytest.mark.parametrize(
    "cost", [Cost("train", -1.0), Cost("train", nan), Cost("train", inf), Cost("train", -inf), Cost("travel", 1.0)]
)  # type: ignore[arg-type]
def test_a_cost_that_is_none_is_refused_and_nothing_is_booked(cost: Cost) -> None:
    ledger = Ledger(Budget("epochs", 10.0))
    with pytest.raises(ValueError, match=r"cost: .*finite amount >= 0 and a kind of train, evaluate"):
        ledger.charge([Cost("train", 1.0), cost])
    assert (ledger.spent, ledger.accounts) == (0.0, {})


def test_a_free_evaluation_fits_into_a_spent_budget() -> None:
    ledger = Ledger(Budget("epochs", 1.0))
    assert ledger.charge([Cost("train", 1.0)])
    assert ledger.exhausted
    assert ledger.charge([Cost("proxy", 0.0)])
    assert ledger.charge([])
    assert not ledger.charge([Cost("proxy", 1e-300)]) or ledger.spent == 1.0
