"""Run records as bytes: canonical JSON, the columnar layout of a record, trace digests.

A record is one canonical JSON document. Evaluations are stored by column, and a column whose values are all
the default (no curve, full fidelity, status "ok") is null, so that a tabular run costs some 70 bytes an evaluation.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from numbers import Integral, Real
from typing import Any, TypeVar

from ..protocols import (
    FULL,
    SCHEMA,
    Architecture,
    Call,
    Cost,
    Fidelity,
    Incumbent,
    Json,
    Observation,
    Proposal,
    RunRecord,
)

T = TypeVar("T")
_NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def canonical(value: Json) -> str:
    """The one text of a JSON value: sorted keys, no spaces, floats by repr.

    >>> canonical({"b": 1.0, "a": [None, "é"]})
    '{"a":[null,"é"],"b":1.0}'

    Raises:
        ValueError: A number is NaN or infinite, or a value has no JSON form.
    """
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False, default=_plain
        )
    except (TypeError, RecursionError) as error:
        raise ValueError(f"json: {error}") from None


def canonical_bytes(value: Json) -> bytes:
    """UTF-8 of `canonical`; a lone surrogate, as in undecodable file names, becomes its JSON escape."""
    return canonical(value).encode("utf-8", "backslashreplace")


def key_of(spec: Mapping[str, Json]) -> str:
    """The run key: sha256, in hex, of the canonical JSON of a run's spec.

    Raises:
        ValueError: The spec is not JSON, or a mapping in it has a key that is not text.
    """
    _require_text_keys(spec, "spec")
    return hashlib.sha256(canonical_bytes(spec)).hexdigest()


def dump(record: RunRecord) -> bytes:
    """One canonical JSON document and a newline; `load` gives an equal record back.

    Numbers read back as floats where the contract says float. In `sealed`, which is open JSON, the texts
    "nan", "inf" and "-inf" stand for the numbers and are therefore refused as texts.

    Raises:
        ValueError: The record has another schema, or a value that JSON cannot hold.
    """
    if record.schema != SCHEMA:
        raise ValueError(f"schema: cannot write {record.schema!r}, this version writes {SCHEMA}")
    _require_text_keys({"spec": record.spec, "sealed": record.sealed}, "record")
    document = {
        "schema": record.schema,
        "key": record.key,
        "spec": record.spec,
        "preparation": _costs_out([record.preparation]),
        "history": _calls_out(record.calls),
        "incumbents": {
            "evaluation": [i.evaluation for i in record.incumbents],
            "cost": _floats_out(i.cost for i in record.incumbents),
            "architecture": _architectures_out([i.architecture for i in record.incumbents]),
            "score": _floats_out(i.score for i in record.incumbents),
        },
        "stopped": record.stopped,
        "sealed": _open_out(record.sealed, "sealed"),
    }
    return canonical_bytes(document) + b"\n"


def load(data: bytes) -> RunRecord:
    """Read what `dump` wrote, in this version or any earlier one.

    Raises:
        ValueError: The schema is newer than this version, or the document is not a record.
    """
    document = parse(data)
    schema = document.get("schema") if isinstance(document, dict) else None
    if type(schema) is not int or schema not in _READERS:
        raise ValueError(f"schema: {schema!r} is not readable by this version, which reads 1 to {SCHEMA}")
    try:
        return _READERS[schema](document)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"record: not a run record of schema {schema} ({error!r})") from None


def encode_call(call: Call) -> Json:
    """One call as JSON, for the event log of a run in progress."""
    return _calls_out([call])


def decode_call(value: Json) -> Call:
    """Read `encode_call` back.

    Raises:
        ValueError: The value is not an encoded call.
    """
    try:
        (call,) = _calls_in(value)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"call: not an encoded call ({error!r})") from None
    return call


def parse(data: bytes) -> Json:
    """Parse strict JSON in UTF-8.

    Raises:
        ValueError: The bytes are not that.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("json: nested too deeply") from None


def digest_trace(rows: Iterable[Sequence[Json]]) -> str:
    """sha256, in hex, of the compact JSON of the rows `[evaluation, architecture, fidelity, float.hex(score)]`.

    >>> digest_trace([(0, 17, 1, 0.9125.hex()), (1, 23, 1, 0.92.hex())])[:8]
    '644a728c'
    """
    return hashlib.sha256(canonical_bytes(list(rows))).hexdigest()


def trace_digest(record: RunRecord) -> str:
    """Digest of what a run evaluated, in order, and the scores it saw, to the last bit.

    Fidelity is the number of epochs, "full", or, where anything but the epochs is reduced, all five fields.
    Weight sharing evaluates nothing; its rows are the changes of the incumbent.
    """
    told = [o for call in record.calls for o in call.observations]
    if told:
        return digest_trace(
            (i, _genes(o.proposal.architecture), _fidelity_text(o.proposal.fidelity), float(o.score).hex())
            for i, o in enumerate(told)
        )
    return digest_trace((i.evaluation, _genes(i.architecture), "full", float(i.score).hex()) for i in record.incumbents)


def first_difference(a: Json, b: Json, where: str = "") -> str | None:
    """Path of the first place, keys in sorted order, where two JSON values differ; None if they are equal."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted(a.keys() | b.keys()):
            path = f"{where}.{name}" if where else str(name)
            if name not in a or name not in b:
                return path
            if found := first_difference(a[name], b[name], path):
                return found
        return None
    if isinstance(a, list) and isinstance(b, list):
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            if found := first_difference(x, y, f"{where}[{i}]"):
                return found
        return None if len(a) == len(b) else f"{where}[{min(len(a), len(b))}]"
    # Through the text, because 1, 1.0 and True are equal in Python, and so are 0.0 and -0.0.
    return None if canonical(a) == canonical(b) else where or "document"


def _plain(value: object) -> Json:
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {value!r} has no JSON form")


def _refuse(constant: str) -> None:
    raise ValueError(f"json: {constant} is not JSON")


def _require_text_keys(value: Json, where: str) -> None:
    """json.dumps would turn the key 1 into "1", so that two different specs got one run key."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{where}: key {name!r} is not text")
            _require_text_keys(item, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for item in value:
            _require_text_keys(item, where)


# Numbers. A typed column holds floats only, so that null can stand for NaN there.


def _float_out(value: float) -> float | str | None:
    value = float(value)
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _float_in(value: Json) -> float:
    return math.nan if value is None else float(value)


def _floats_out(values: Iterable[float]) -> list[Json]:
    plain = list(map(float, values))
    # One addition per number is a tenth of the price of one test: NaN and infinities survive a sum.
    return list(plain) if math.isfinite(sum(plain)) else list(map(_float_out, plain))


def _floats_in(values: Iterable[Json]) -> tuple[float, ...]:
    return tuple([v if type(v) is float else _float_in(v) for v in values])


def _open_out(value: Json, where: str) -> Json:
    if isinstance(value, str):
        if value in _NONFINITE:
            raise ValueError(f"{where}: the text {value!r} stands for a number here")
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {name: _open_out(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_open_out(item, where) for item in value]
    return value


def _open_in(value: Json) -> Json:
    if isinstance(value, str):
        return _NONFINITE.get(value, value)
    if isinstance(value, dict):
        return {name: _open_in(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_open_in(item) for item in value]
    return value


# Columns.


def _column(values: list[T], default: T) -> list[T] | None:
    return None if all(v == default for v in values) else values


def _filled(column: list[Json] | None, default: Json, n: int) -> Iterable[Json]:
    return repeat(default, n) if column is None else column


def _architectures_out(architectures: list[Architecture]) -> Json:
    spaces = list(dict.fromkeys(a.space for a in architectures))
    return {
        "spaces": spaces,
        "space": None if len(spaces) < 2 else [spaces.index(a.space) for a in architectures],
        "genes": [a.genes for a in architectures],
    }


def _architectures_in(column: Json) -> list[Architecture]:
    genes = column["genes"]
    spaces = [column["spaces"][i] for i in _filled(column["space"], 0, len(genes))]
    return [Architecture(space, tuple(g)) for space, g in zip(spaces, genes, strict=True)]


def _costs_out(groups: Sequence[Sequence[Cost]]) -> Json:
    """Costs of every evaluation: `pattern[i]` says which list of kinds, the amounts follow each other."""
    kinds = [tuple([c.kind for c in group]) for group in groups]
    patterns = {p: n for n, p in enumerate(dict.fromkeys(kinds))}
    flat = list(chain.from_iterable(groups))
    if not flat:
        return None
    return {
        "kinds": list(patterns),
        "pattern": _column([patterns[k] for k in kinds], 0),
        "amount": _floats_out(c.amount for c in flat),
        "peak": _column([c.peak_bytes for c in flat], None),
    }


def _costs_in(column: Json, n: int) -> list[tuple[Cost, ...]]:
    if column is None:
        return [()] * n
    groups = [column["kinds"][i] for i in _filled(column["pattern"], 0, n)]
    kinds = list(chain.from_iterable(groups))
    peaks = _filled(column["peak"], None, len(kinds))
    costs = iter([Cost(*c) for c in zip(kinds, _floats_in(column["amount"]), peaks, strict=True)])
    return [tuple(islice(costs, len(group))) for group in groups]


def _fidelity_out(fidelity: Fidelity) -> list[Json] | None:
    if fidelity is FULL or fidelity == FULL:
        return None
    return _floats_out((fidelity.epochs, fidelity.data, fidelity.resolution, fidelity.width, fidelity.depth))


def _fidelities_in(column: list[Json]) -> Iterator[Fidelity]:
    """Rebuild each distinct fidelity once: a run has a handful."""
    seen: dict[tuple[Json, ...] | None, Fidelity] = {None: FULL}
    for value in column:
        name = value and tuple(value)
        if name not in seen:
            seen[name] = Fidelity(*_floats_in(value))
        yield seen[name]


def _indices(calls: Sequence[Call], proposals: list[Proposal]) -> list[int] | None:
    """For each observation the index of its proposal; null where it is always the i-th of the call.

    A proposal that its call did not make is appended to `proposals`.
    """
    found: list[int] = []
    start, in_order = 0, True
    for call in calls:
        for i, observation in enumerate(call.observations):
            proposal = observation.proposal
            if i < len(call.proposals) and (proposal is call.proposals[i] or proposal == call.proposals[i]):
                found.append(start + i)
                continue
            in_order = False
            if proposal in call.proposals:
                found.append(start + call.proposals.index(proposal))
            else:
                proposals.append(proposal)
                found.append(len(proposals) - 1)
        start += len(call.proposals)
    return None if in_order else found


def _calls_out(calls: Sequence[Call]) -> Json:
    proposals = [p for call in calls for p in call.proposals]
    told = [o for call in calls for o in call.observations]
    indices = _indices(calls, proposals)
    return {
        "calls": [(call.asked, len(call.proposals), len(call.observations)) for call in calls],
        "costs": _costs_out([call.costs for call in calls]),
        "proposals": {
            "architecture": _architectures_out([p.architecture for p in proposals]),
            "fidelity": _column([_fidelity_out(p.fidelity) for p in proposals], None),
            "parent": _column([p.parent for p in proposals], None),
        },
        "observations": {
            "proposal": indices,
            "score": _floats_out(o.score for o in told),
            "costs": _costs_out([o.costs for o in told]),
            "curve": _column([_floats_out(o.curve) if o.curve else [] for o in told], []),
            "objectives": _column([{k: _float_out(v) for k, v in o.objectives.items()} for o in told], {}),
            "status": _column([o.status for o in told], "ok"),
            "reason": _column([o.reason for o in told], ""),
        },
    }


def _proposals_in(columns: Json) -> list[Proposal]:
    architectures = _architectures_in(columns["architecture"])
    n = len(architectures)
    fidelities = repeat(FULL, n) if columns["fidelity"] is None else _fidelities_in(columns["fidelity"])
    return [Proposal(*p) for p in zip(architectures, fidelities, _filled(columns["parent"], None, n), strict=True)]


def _observations_in(columns: Json, proposals: Iterable[Proposal]) -> Iterator[Observation]:
    scores = _floats_in(columns["score"])
    n = len(scores)
    curves, objectives = columns["curve"], columns["objectives"]
    rows = zip(
        proposals,
        scores,
        _costs_in(columns["costs"], n),
        repeat((), n) if curves is None else [_floats_in(c) for c in curves],
        [{name: _float_in(v) for name, v in row.items()} for row in _filled(objectives, {}, n)],
        _filled(columns["status"], "ok", n),
        _filled(columns["reason"], "", n),
        strict=True,
    )
    return iter([Observation(*row) for row in rows])


def _calls_in(history: Json) -> tuple[Call, ...]:
    proposals = _proposals_in(history["proposals"])
    own, told, start = [], [], 0
    for _, n_proposals, n_observations in history["calls"]:
        own.append(tuple(proposals[start : start + n_proposals]))
        told.extend(proposals[start : start + n_observations])
        start += n_proposals
    indices = history["observations"]["proposal"]
    if indices is not None:
        told = [proposals[i] for i in indices[: sum(call[2] for call in history["calls"])]]
    observations = _observations_in(history["observations"], told)
    costs = _costs_in(history["costs"], len(own))
    return tuple(
        [
            Call(asked, made, tuple(islice(observations, n)), charged)
            for (asked, _, n), made, charged in zip(history["calls"], own, costs, strict=True)
        ]
    )


def _read_v1(document: dict[str, Any]) -> RunRecord:
    changes = document["incumbents"]
    return RunRecord(
        key=document["key"],
        spec=document["spec"],
        preparation=_costs_in(document["preparation"], 1)[0],
        calls=_calls_in(document["history"]),
        incumbents=tuple(
            Incumbent(evaluation, cost, architecture, score)
            for evaluation, cost, architecture, score in zip(
                changes["evaluation"],
                _floats_in(changes["cost"]),
                _architectures_in(changes["architecture"]),
                _floats_in(changes["score"]),
                strict=True,
            )
        ),
        stopped=document["stopped"],
        sealed=_open_in(document["sealed"]),
        schema=document["schema"],
    )


_READERS: dict[int, Callable[[dict[str, Any]], RunRecord]] = {1: _read_v1}


def _genes(architecture: Architecture) -> str:
    return ".".join(map(str, architecture.genes))


def _fidelity_text(fidelity: Fidelity) -> Json:
    if fidelity == FULL:
        return "full"
    epochs: Json = "full" if math.isinf(fidelity.epochs) else fidelity.epochs
    if isinstance(epochs, float) and epochs.is_integer():
        epochs = int(epochs)  # 4 and 4.0 are one fidelity and must give one digest
    if fidelity == Fidelity(epochs=fidelity.epochs):
        return epochs
    return [epochs, *map(float, (fidelity.data, fidelity.resolution, fidelity.width, fidelity.depth))]
