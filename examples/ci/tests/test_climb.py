"""Does the strategy keep the contract, and is it as good as it was when its baseline was recorded?"""

import pytest

from climbing import Climb


@pytest.mark.nasbed(strategy=Climb)
def test_it_keeps_the_contract(nas_conformance):
    nas_conformance()


@pytest.mark.nasbed(table="mlp-digits", budget="50evals")
def test_it_is_as_good_as_recorded(nas_gate):
    nas_gate(Climb, baseline="climb.jsonl")
