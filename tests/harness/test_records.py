from __future__ import annotations

import json
import math
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from nasbed.harness.records import (
    canonical,
    decode_call,
    digest_trace,
    dump,
    encode_call,
    first_difference,
    key_of,
    load,
    parse,
    trace_digest,
)
from nasbed.protocols import (
    COST_KINDS,
    FULL,
    Architecture,
    Call,
    Cost,
    Fidelity,
    Incumbent,
    Observation,
    Proposal,
    RunRecord,
)

GOLDEN = Path(__file__).parent / "data" / "record_v1.json"
# One NaN object for all: tuples compare members by identity first, so records that share it compare equal.
NAN = math.nan

numbers = st.floats(allow_nan=False) | st.just(NAN)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
architectures = st.builds(
    Architecture, st.sampled_from(["nb201", "mlp"]), st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple)
)
fractions = st.sampled_from([1.0, 0.5, 0.25])
fidelities = st.just(FULL) | st.builds(
    Fidelity, st.sampled_from([1.0, 4.0, math.inf]), fractions, fractions, fractions, fractions
)
proposals = st.builds(Proposal, architectures, fidelities, st.none() | st.integers(0, 50))
costs = st.lists(
    st.builds(Cost, st.sampled_from(COST_KINDS), st.floats(0, 1e9), st.none() | st.integers(0, 2**50)), max_size=3
).map(tuple)


def observations(of: st.SearchStrategy[Proposal]) -> st.SearchStrategy[Observation]:
    return st.builds(
        Observation,
        of,
        numbers,
        costs,
        st.lists(numbers, max_size=3).map(tuple),
        st.dictionaries(names, numbers, max_size=2),
        st.sampled_from(["ok", "invalid", "crashed"]),
        names,
    )


@st.composite
def calls(draw: st.DrawFn) -> Call:
    asked = draw(st.lists(proposals, max_size=3))
    own = [draw(observations(st.just(p))) for p in asked[: draw(st.integers(0, len(asked)))]]
    foreign = draw(st.lists(observations(proposals), max_size=1))
    order = draw(st.permutations(own + foreign))
    return Call(draw(st.integers(0, 9)), tuple(asked), tuple(order), draw(costs))


open_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | names.filter(lambda s: s not in ("nan", "inf", "-inf")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
finite_json = st.dictionaries(
    names, st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names
)


@st.composite
def records(draw: st.DrawFn) -> RunRecord:
    spec = draw(finite_json)
    changes = st.builds(Incumbent, st.integers(0, 99), numbers, architectures, numbers)
    return RunRecord(
        key=key_of(spec),
        spec=spec,
        preparation=draw(costs),
        calls=tuple(draw(st.lists(calls(), max_size=4))),
        incumbents=tuple(draw(st.lists(changes, max_size=3))),
        stopped=draw(st.sampled_from(["budget", "exhausted", "stalled"])),
        sealed=draw(st.dictionaries(names, open_json, max_size=3)),
    )


def example() -> RunRecord:
    """Every feature of the layout once; `data/record_v1.json` is its dump by schema 1."""
    first = Proposal(Architecture("nb201", (3, 3, 1, 0, 4, 2)))
    second = Proposal(Architecture("nb201", (0, 0, 0, 0, 0, 1)), Fidelity(epochs=4.0), parent=0)
    third = Proposal(Architecture("mlp", (12,)), Fidelity(data=0.5))
    told = (
        Observation(first, 0.9125, (Cost("train", 12.5, 1024), Cost("evaluate", 0.25)), (0.5, 0.9125), {"params": 7.0}),
        Observation(second, NAN, status="crashed", reason="loss is NaN: é"),
        Observation(third, -math.inf, (Cost("train", 1.0),), (NAN, math.inf)),
    )
    spec = {
        "strategy": {"name": "random", "params": {"p": 0.1}},
        "space": "nb201",
        "table": None,
        "seed": 3,
        "schema": 1,
    }
    return RunRecord(
        key=key_of(spec),
        spec=spec,
        preparation=(Cost("fit", 2.0),),
        calls=(
            Call(1, (first,), (told[0],)),
            Call(3, (second, third, first), (told[2], told[1])),
            Call(0, (), (), (Cost("supernet", 3.0), Cost("controller", 1.0))),
        ),
        incumbents=(Incumbent(0, 14.75, first.architecture, 0.9125),),
        stopped="budget",
        sealed={"incumbents": [{"test": 0.9, "features": {"params": math.inf}, "text": "|a|"}], "retrained": None},
    )


@given(records())
@settings(max_examples=50, deadline=None)
def test_a_record_is_read_back_exactly(record: RunRecord) -> None:
    data = dump(record)
    back = load(data)
    assert back == record
    assert dump(back) == data
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    assert canonical(json.loads(data)).encode() + b"\n" == data
    assert trace_digest(back) == trace_digest(record)


@given(calls())
@settings(max_examples=30, deadline=None)
def test_a_call_is_read_back_exactly_through_json_text(call: Call) -> None:
    assert decode_call(parse(canonical(encode_call(call)).encode())) == call


def test_types_are_those_of_the_contract() -> None:
    record = load(dump(example()))
    observation = record.calls[0].observations[0]
    assert type(observation.curve) is tuple
    assert type(observation.costs) is tuple
    assert type(observation.proposal.architecture.genes) is tuple
    assert type(record.preparation) is tuple
    assert record.calls[0].proposals[0].fidelity == FULL


def test_numpy_numbers_are_read_back_as_pythons() -> None:
    proposal = Proposal(Architecture("mlp", tuple(np.arange(3))))
    told = Observation(proposal, np.float32(0.1), (Cost("train", np.int64(3)),))  # type: ignore[arg-type]
    record = RunRecord(key_of({}), {}, (), (Call(1, (proposal,), (told,)),), (), "budget", {})
    back = load(dump(record)).calls[0].observations[0]
    assert type(back.score) is float
    assert back.score == float(np.float32(0.1))
    assert type(back.costs[0].amount) is float
    assert type(back.proposal.architecture.genes[0]) is int


def test_negative_zero_and_lone_surrogates_survive() -> None:
    proposal = Proposal(Architecture("mlp", (1,)))
    told = Observation(proposal, -0.0, status="crashed", reason="file \udce9")
    record = RunRecord(key_of({}), {}, (), (Call(1, (proposal,), (told,)),), (), "budget", {})
    back = load(dump(record)).calls[0].observations[0]
    assert math.copysign(1, back.score) == -1
    assert back.reason == "file \udce9"


def test_the_golden_record_of_schema_1_is_read_for_ever() -> None:
    record = load(GOLDEN.read_bytes())
    assert record == example()
    assert trace_digest(record) == "b47dc51063b010094b534cb36ffbd19a04b3e48fa3af5d7f1a0d22854fcce68a"


def test_schema_1_is_written_as_it_always_was() -> None:
    assert dump(example()) == GOLDEN.read_bytes()


@pytest.mark.parametrize("schema", [2, 99, 0, None, "1", True, 1.0])
def test_another_schema_is_refused_in_one_line(schema: object) -> None:
    document = json.loads(dump(example()))
    document["schema"] = schema
    with pytest.raises(ValueError, match=r"^schema: .*1 to 1$"):
        load(json.dumps(document).encode())


def test_a_damaged_document_is_a_value_error_whatever_is_missing() -> None:
    whole = json.loads(dump(example()))
    places = [(whole, name) for name in whole]
    for part in (
        whole["history"],
        whole["history"]["proposals"],
        whole["history"]["observations"],
        whole["incumbents"],
    ):
        places += [(part, name) for name in part]
    for part, name in places:
        kept = part.pop(name)
        with pytest.raises(ValueError, match=r"^(record|schema): "):
            load(json.dumps(whole).encode())
        part[name] = kept
    whole["history"]["observations"]["score"].pop()
    with pytest.raises(ValueError, match=r"^record: "):
        load(json.dumps(whole).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"schema":NaN}', b"[" * 100_000])
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        load(data)


def test_canonical_json() -> None:
    assert canonical({"b": [1, 1.0, 1e300, 0.1], "a": "é\n"}) == '{"a":"é\\n","b":[1,1.0,1e+300,0.1]}'
    for value in (math.nan, math.inf, {1, 2}, object()):
        with pytest.raises(ValueError, match=r"."):
            canonical({"x": value})


def test_the_key_is_the_sha256_of_the_canonical_text() -> None:
    # echo -n '{"a":1,"b":"é"}' | sha256sum
    assert key_of({"b": "é", "a": 1}) == "09ad9fd2fb648cb2f62141215828ea00a62c299db05d20aa9ade2f527a301cc6"
    assert key_of({"a": 1.0, "b": "é"}) != key_of({"a": 1, "b": "é"})


@pytest.mark.parametrize("spec", [{1: 2}, {"a": [{"b": {None: 1}}]}])
def test_keys_that_are_not_text_are_refused(spec: dict) -> None:
    with pytest.raises(ValueError, match="is not text"):
        key_of(spec)


def test_texts_that_stand_for_numbers_are_refused_in_sealed() -> None:
    record = RunRecord(key_of({}), {}, (), (), (), "budget", {"incumbents": [{"text": "inf"}]})
    with pytest.raises(ValueError, match=r"sealed\.incumbents"):
        dump(record)


def test_digest_of_a_trace_has_the_known_value() -> None:
    expected = "644a728c9f7c1aaacf4cc3646f4d35b395a8b33d360aa1996c4d50f470e4bce7"
    assert digest_trace([[0, 17, 1, (0.9125).hex()], [1, 23, 1, (0.92).hex()]]) == expected
    assert digest_trace(iter([(0, 17, 1, (0.9125).hex()), (1, 23, 1, (0.92).hex())])) == expected


def test_trace_digest_is_the_digest_of_the_rows_it_documents() -> None:
    rows = [
        [0, "3.3.1.0.4.2", "full", (0.9125).hex()],
        [1, "12", ["full", 0.5, 1.0, 1.0, 1.0], "-inf"],
        [2, "0.0.0.0.0.1", 4, "nan"],
    ]
    assert trace_digest(example()) == digest_trace(rows)


def test_trace_of_weight_sharing_is_its_incumbents() -> None:
    def run(score: float) -> RunRecord:
        change = Incumbent(2, 1.0, Architecture("darts", (1, 2)), score)
        return RunRecord(key_of({}), {}, (), (Call(0, (), (), (Cost("supernet", 1.0),)),), (change,), "budget", {})

    assert trace_digest(run(0.5)) == digest_trace([[2, "1.2", "full", (0.5).hex()]])
    assert trace_digest(run(0.5)) != trace_digest(run(math.nextafter(0.5, 1)))


@pytest.mark.parametrize(
    ("a", "b", "where"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1}, {"a": 1.0}, "a"),
        ({"a": [0, {"b": 1}]}, {"a": [0, {"b": 2}]}, "a[1].b"),
        ({"a": [1]}, {"a": [1, 2]}, "a[1]"),
        ({"a": 1, "z": 0}, {"b": 1, "z": 1}, "a"),
        ([0.0], [-0.0], "[0]"),
        (1, "1", "document"),
    ],
)
def test_first_difference(a: object, b: object, where: str | None) -> None:
    assert first_difference(a, b) == where


def test_a_tabular_run_is_compact() -> None:
    told = []
    for i in range(400):
        proposal = Proposal(Architecture("nb201", (i % 5, 1, 2, 3, 4, 0)))
        told.append(Call(1, (proposal,), (Observation(proposal, i / 7, (Cost("train", i / 3),)),)))
    record = RunRecord(key_of({}), {}, (), tuple(told), (), "budget", {})
    assert len(dump(record)) < 400 * 80
