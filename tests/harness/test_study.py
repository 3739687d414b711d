from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nasbed.harness.plan import NotComparable, Plan, plan
from nasbed.harness.study import read_budget, read_seeds, read_study
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.tabular import write_table

GOOD: dict[str, Any] = {"strategies": "random", "tables": "TABLE", "seeds": 2, "budget": "40epochs"}
REAL: dict[str, Any] = {"strategies": "random", "space": "synthetic[genes=2;values=2]", "data": "digits", "seeds": 1}

# (what is changed, what the one line has to say)
HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"strategies": "randm"}, "strategy: 'randm' is not one of .*did you mean 'random'"),
    ({"strategies": ""}, "strategies: name at least one of .*aging_evolution"),
    ({"strategies": []}, "strategies: name at least one of"),
    ({"strategies": ","}, "strategies: name at least one of"),
    ({"strategies": None}, "strategies: name at least one of"),
    ({"strategies": 3}, "strategies: must be a list"),
    ({"strategies": {"name": "random"}}, "strategies: must be a list"),
    ({"strategies": [3]}, "strategies: must be a list"),
    ({"strategies": [["random"]]}, "strategies: must be a list"),
    ({"strategies": [{}]}, "strategies: an entry needs a name"),
    ({"strategies": [{"name": 3}]}, "strategies: an entry needs a name"),
    ({"strategies": [{"name": ""}]}, "strateg.*: .*''"),
    ({"strategies": [{"name": "random", "parms": {}}]}, "strategies: key: 'parms' .*did you mean 'params'"),
    ({"strategies": [{"name": "random", "params": 3}]}, "strategies: params of 'random' must be a table"),
    ({"strategies": [{"name": "random", "params": ["replace"]}]}, "strategies: params of 'random' must be a table"),
    ({"strategies": [{"name": "random", "params": "replace"}]}, "strategies: params of 'random' must be a table"),
    ({"strategies": [{"name": "random", "label": 3}]}, "strategies: the label 3"),
    ({"strategies": [{"name": "random", "label": ""}]}, "strategies: the label ''"),
    ({"strategies": [{"name": "random", "label": "a\nb"}]}, r"strategies: the label 'a\\nb'"),
    ({"strategies": [{"name": "random", "params": {"replac": 1}}]}, "parameter: 'replac' .*did you mean 'replace'"),
    ({"strategies": "random[replac=no]"}, "strategy 'random': parameter: 'replac' .*did you mean 'replace'"),
    ({"strategies": "random[seed=3]"}, "strategy 'random': parameter: 'seed'"),
    ({"strategies": "random[space=3]"}, "strategy 'random': parameter: 'space'"),
    ({"strategies": "random["}, r"name: 'random\[' is not of the form"),
    ({"strategies": "random]"}, "name: .* is not of the form"),
    ({"strategies": "random[replace]"}, "name: 'replace' .* is not of the form KEY=VALUE"),
    ({"strategies": "random[=3]"}, "name: '=3' .* is not of the form KEY=VALUE"),
    ({"strategies": "random,random"}, "strategies: 'random' is named twice"),
    ({"strategies": [{"name": "local_search", "label": "random"}]}, "strategies: the label 'random' belongs to random"),
    ({"strategies": "aging_evolution[population_size=0]"}, "strategy 'aging_evolution': .*population_size"),
    ({"strategies": "aging_evolution[population_size=many]"}, "strategy 'aging_evolution': "),
    (
        {"strategies": [{"name": "random", "params": {"replace": float("nan")}}]},
        "strategy 'random': parameters must be",
    ),
    ({"strategies": [{"name": "random", "params": {"replace": {1}}}]}, "strategy 'random': parameters must be"),
    ({"strategies": ":"}, "strategy: ':'"),
    ({"strategies": "a:"}, "strategy: 'a:'"),
    ({"strategies": ":b"}, "strategy: ':b'"),
    ({"strategies": ".a:b"}, "strategy: '.a:b'"),
    ({"strategies": "no_such_module:X"}, "strategy: .* there is no module 'no_such_module'"),
    ({"strategies": "planted:X"}, "strategy: .* has no 'X'"),
    ({"strategies": "planted:LOG"}, "strategy: 'planted:LOG'"),
    ({"strategies": "planted:square"}, "strategy: 'planted:square'"),
    ({"strategies": "planted:ProbeLookup"}, "strategy: 'planted:ProbeLookup'"),
    ({"strategies": "builtins:len"}, "strategy: 'builtins:len'"),
    ({"strategies": "broken_module:X"}, "strategy: 'broken_module:X' cannot be imported .*ZeroDivisionError"),
    ({"strategies": "planted:Needy"}, "strategy 'planted:Needy': TypeError: .*amount"),
    ({"strategies": "planted:Needy[amount=-2]"}, "strategy 'planted:Needy': amount: -2 is not an integer >= 0"),
    ({"strategies": "sharing:SharedLinear[rat=2]"}, "parameter: 'rat' .*did you mean 'rate'"),
    ({"estimators": "tabel"}, "estimator: 'tabel' .*did you mean 'table'"),
    ({"estimators": 7}, "estimators: must be a list"),
    ({"estimators": "table,table"}, "estimators: 'table' is named twice"),
    ({"estimators": "table[x=1]"}, "estimator 'table': parameter: 'x' is not one of none"),
    ({"estimators": "fewer_epochs[epochs=0]"}, "estimator 'fewer_epochs': epochs: 0 is not"),
    ({"estimators": "fewer_epochs[epochs=99]"}, "estimator 'fewer_epochs': epochs: 99 is more than the 4 of"),
    ({"estimators": "full"}, "estimator 'full': estimator: 'full' trains for real and needs --data"),
    ({"estimators": "fewer_epochs[epochs=two]"}, "estimator 'fewer_epochs': epochs: 'two' is not"),
    ({"estimators": "planted:scores[a=3]"}, "estimator 'planted:scores'"),
    ({"estimators": "builtins:len"}, "estimator|source"),
    ({"tables": "mlp-digit"}, "table: 'mlp-digit' is not one of"),
    ({"tables": "/nowhere/at/all"}, "table: '/nowhere/at/all'"),
    ({"tables": "\0"}, "table: "),
    ({"tables": "x" * 5000}, "tables: 'x+' cannot be read"),
    ({"tables": 3}, "tables: must be a list of names"),
    ({"tables": [3]}, "tables: must be a list of names"),
    ({"tables": ["TABLE", "TABLE"]}, "tables: 'world' is named twice"),
    ({"tables": []}, "tables: name a table, or a space and a data set"),
    ({"space": "mlp"}, "tables: a study is on tables or on --space and --data"),
    ({"data": "digits"}, "tables: a study is on tables or on --space and --data"),
    ({"seeds": 0}, "seeds: 0 is not a positive count"),
    ({"seeds": -3}, "seeds: -3 is not"),
    ({"seeds": 2.0}, "seeds: 2.0 is not"),
    ({"seeds": True}, "seeds: True is not"),
    ({"seeds": "5-2"}, "seeds: '5-2' is not"),
    ({"seeds": "³"}, "seeds: '³' is not"),
    ({"seeds": "1-"}, "seeds: '1-' is not"),
    ({"seeds": ""}, "seeds: '' is not"),
    ({"seeds": "9" * 18}, "seeds: '9+' is not .* of at most 100000"),
    ({"seeds": 10**30}, "seeds: 1"),
    ({"seeds": "9" * 6000}, "seeds: '9+[.]{3} is not"),
    ({"seeds": []}, r"seeds: \[\] is not"),
    ({"seeds": [1, 1]}, r"seeds: \[1, 1\] are not different integers >= 0"),
    ({"seeds": [-1]}, r"seeds: \[-1\] are not"),
    ({"seeds": [1.5]}, r"seeds: \[1.5\] are not"),
    ({"seeds": ["1"]}, "seeds: .* are not"),
    ({"seeds": [[1]]}, "seeds: .* are not"),
    ({"seeds": {"count": 3}}, "seeds: .* is not"),
    ({"budget": "100"}, "budget: '100' is not of the form 100evals"),
    ({"budget": "evals"}, "budget: 'evals' is not of the form"),
    ({"budget": "0evals"}, "budget: '0evals' is not of the form"),
    ({"budget": "-5evals"}, "budget: '-5evals' is not of the form"),
    ({"budget": "1.2.3s"}, "budget: '1.2.3s' is not of the form"),
    ({"budget": "1e999s"}, "budget: '1e999s' is not of the form"),
    ({"budget": "nans"}, "budget: 'nans' is not of the form"),
    ({"budget": "5minutes"}, "budget: '5minutes' is not of the form"),
    ({"budget": "..s"}, "budget: '..s' is not of the form"),
    ({"budget": 100}, "budget: 100 is not a text"),
    ({"budget": "10s"}, "budget: the clock of 'world' is in epochs"),
    ({"budget": "1e9flops"}, "budget: the clock of 'world' is in epochs"),
    ({"pipeline": "bas"}, "pipeline .*: 'bas' is not one of base; did you mean 'base'"),
    ({"pipeline": 1}, "pipeline: 1 is not a text"),
    ({"batch": 0}, "batch: 0 is not an integer in 1"),
    ({"batch": 1.0}, "batch: 1.0 is not an integer"),
    ({"batch": True}, "batch: True is not an integer"),
    ({"batch": "2"}, "batch: '2' is not an integer"),
    ({"retrain": -1}, "retrain: -1 is not an integer in 0"),
    ({"alpha": 0}, "alpha: 0 is not a number"),
    ({"alpha": float("nan")}, "alpha: nan is not a number"),
    ({"rope": float("inf")}, "rope: inf is not a number"),
    ({"rope": "small"}, "rope: 'small' is not a number"),
    ({"resamples": 10**9}, "resamples: 1000000000 is not an integer in 100"),
    ({"dedupe": "yes"}, "dedupe: 'yes' is not true or false"),
    ({"redraw": 1}, "redraw: 1 is not true or false"),
    ({"name": ["x"]}, r"name: \['x'\] is not a text"),
    ({"strategie": "random"}, "study: field: 'strategie' .*did you mean 'strategies'"),
    ({"": 1}, "study: field: ''"),
]

HOSTILE_REAL: list[tuple[dict[str, Any], str]] = [
    ({"space": "mpl"}, "space: 'mpl' .*did you mean 'mlp'"),
    ({"space": "mlp[hidden=99]"}, "hidden: 99 is not one of"),
    ({"space": "mlp[depth=3]"}, "depth.*allowed: hidden"),
    ({"space": "mlp["}, "name: "),
    ({"space": ""}, "tables: name a table, or a space and a data set"),
    ({"space": "planted:Probe"}, "space"),
    ({"space": "planted:LOG"}, "space"),
    ({"space": ["mlp"]}, "space: .* is not a text"),
    ({"data": "digit"}, "data: 'digit' .*did you mean 'digits'"),
    ({"data": "mnist"}, "data-root: the data set 'mnist' is not embedded"),
    ({"data": 3}, "data: 3 is not a text"),
    ({"pipeline": "adm"}, "pipeline: 'adm' .*did you mean 'adam'"),
    ({"budget": "10s"}, "budget: without a table a budget is in epochs, evals or flops"),
]


def refused(fields: dict[str, Any], table: Path) -> str:
    """The message of the ValueError; anything else that is raised fails the test."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        plan(read_study(None, _filled(fields, table)))
    assert type(caught.value) is ValueError
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def _filled(value: Any, table: Path) -> Any:
    if isinstance(value, dict):
        return {k: _filled(v, table) for k, v in value.items()}
    if isinstance(value, list):
        return [_filled(v, table) for v in value]
    return str(table) if value == "TABLE" else value


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("X = 1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("change", "said"), HOSTILE)
def test_hostile_fields_are_one_line(change: dict[str, Any], said: str, table: Path) -> None:
    import re

    message = refused({**GOOD, **change}, table)
    assert re.search(said, message), message


@pytest.mark.parametrize(("change", "said"), HOSTILE_REAL)
def test_hostile_fields_of_real_training_are_one_line(change: dict[str, Any], said: str, table: Path) -> None:
    import re

    message = refused({**REAL, **change}, table)
    assert re.search(said, message), message


TOML = [
    ("strategies = ", "study: "),
    ("strategies = ['random'", "study: "),
    ("x = " + "[" * 5000, "study: .*nested too deeply"),
    ("name = 1\nname = 2", "study: "),
    ("[analysis]\nalpha = 0.1", "study: field: 'analysis'"),
    ("seeds = 2020-01-01", "seeds: "),
    ("seeds = 'all'", "seeds: 'all'"),
    (
        "[[strategies]]\nname = 'random'\n[strategies.params]\nreplace = 2020-01-01",
        "strategy 'random': parameters must be",
    ),
    ("[[strategies]]\nname = 'random'\nparams = {replace = nan}", "strategy 'random': parameters must be"),
    ("[strategies]\nname = 'random'", "strategies: must be a list"),
    ("budget = inf", "budget: inf is not a text"),
]


@pytest.mark.parametrize(("text", "said"), TOML)
def test_hostile_files_are_one_line(text: str, said: str, table: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    tables = "" if text.startswith("[") else f"tables = ['{table}']\n"
    path.write_text(tables + text + "\n")
    with pytest.raises(ValueError, match=said) as caught:
        plan(read_study(path, {"tables": str(table)}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"name = '\x00'", None])
def test_files_that_are_no_text_are_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    if content is not None:
        path.write_bytes(content)
    for wrong in (path, tmp_path, Path("nul\0byte")):
        with pytest.raises(ValueError, match=r"^study: "):
            read_study(wrong, {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("strategies", "estimators", "tables", "space", "data", "pipeline", "seeds", "budget", "name", "batch",
          "dedupe", "redraw", "retrain", "alpha", "rope", "resamples")  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(FIELDS), value=json_values)
def test_any_value_is_taken_or_refused_in_one_line(field: str, value: Any, table: Path) -> None:
    assert "\n" not in said_of({**_filled(GOOD, table), field: value})


def said_of(fields: dict[str, Any]) -> str:
    """What a ValueError says; nothing if the study is fine. Any other error passes through."""
    try:
        plan(read_study(None, fields))
    except ValueError as error:
        return f"{error}" if type(error) is ValueError else f"\n{error!r}"
    return ""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="random[]=;,:.-_ 01x\"'\n", max_size=24))
def test_any_name_is_taken_or_refused_in_one_line(text: str, table: Path) -> None:
    for field in ("strategies", "estimators", "seeds", "budget"):
        assert "\n" not in said_of({**_filled(GOOD, table), field: text})


# What is accepted.


def test_random_search_is_added_when_it_is_missing() -> None:
    study = read_study(None, {"strategies": "local_search", "tables": "t"})
    assert [m.label for m in study.strategies] == ["random", "local_search"]
    for given_name in ("random", "random[replace=no]"):
        labels = [
            m.label for m in read_study(None, {"strategies": f"local_search,{given_name}", "tables": "t"}).strategies
        ]
        assert labels == ["local_search", given_name]
    named = [{"name": "random", "label": "Zufall"}]
    assert [m.label for m in read_study(None, {"strategies": named, "tables": "t"}).strategies] == ["Zufall"]


@pytest.mark.parametrize(
    ("text", "seeds"),
    [(3, (0, 1, 2)), ("3", (0, 1, 2)), (" 2-4 ", (2, 3, 4)), ([5, 2], (5, 2)), ("7-7", (7,)), ((1,), (1,))],
)
def test_seeds(text: Any, seeds: tuple[int, ...]) -> None:
    assert read_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("100evals", ("evaluations", 100.0)), ("3600s", ("seconds", 3600.0)), ("500epochs", ("epochs", 500.0)),
        ("2e12flops", ("flops", 2e12)), (" 1.5 Seconds ", ("seconds", 1.5)), ("2e+3FLOPS", ("flops", 2000.0)),
        ("7evaluations", ("evaluations", 7.0)),
    ],
)  # fmt: skip
def test_budgets(text: str, budget: tuple[str, float]) -> None:
    assert read_budget(text) == budget


def test_the_default_budget_is_a_hundred_median_trainings(planned: Callable[..., Plan]) -> None:
    assert planned(budget=None).runs[0].spec["budget"] == {"unit": "epochs", "limit": 400.0}


def test_file_and_flags_give_the_same_plan(table: Path, tmp_path: Path) -> None:
    flags = {
        "strategies": "random,aging_evolution[population_size=20;sample_size=5]",
        "estimators": "table,fewer_epochs[epochs=2]",
        "tables": str(table),
        "seeds": "0-4",
        "budget": "80epochs",
        "name": "both",
        "batch": 2,
        "dedupe": True,
        "pipeline": "base",
    }  # fmt: skip
    path = tmp_path / "study.toml"
    path.write_text(
        f"""
tables = [{json.dumps(str(table))}]
seeds = 5
budget = "80epochs"
name = "both"
batch = 2
dedupe = true
pipeline = "base"
strategies = ["random", {{name = "aging_evolution", label = "aging_evolution[population_size=20;sample_size=5]",
              params = {{population_size = 20, sample_size = 5}}}}]
[[estimators]]
name = "table"
[[estimators]]
name = "fewer_epochs"
label = "fewer_epochs[epochs=2]"
params.epochs = 2
""".replace("\n              params", " params")
    )
    by_file, by_flags = plan(read_study(path, {})), plan(read_study(None, flags))
    assert by_file.runs == by_flags.runs
    assert by_file.digest == by_flags.digest
    assert len({r.key for r in by_file.runs}) == 20
    overridden = plan(read_study(path, {"seeds": "3", "dedupe": None}))
    assert len(overridden.runs) == 12
    assert overridden.runs[0].spec["options"]["dedupe"] is True


def test_a_sample_is_not_comparable(tmp_path: Path) -> None:
    space = Synthetic(genes=2, values=3)
    counts = np.arange(4, dtype=np.uint16).reshape(4, 1, 1)
    manifest = {"name": "some", "examples": {"valid": 10, "test": 10}, "architectures": ["0-0", "1-1", "2-2", "0-1"]}
    folder = write_table(tmp_path / "some", space, {"valid.base": counts, "test.base": counts}, manifest)
    with pytest.raises(NotComparable, match="tables: 'some' is a sample of its space"):
        plan(read_study(None, {"strategies": "random", "tables": str(folder)}))


@pytest.mark.parametrize("name", ["valid.base.npy", "sealed/test.base.npy", "cost.base.npy"])
def test_a_changed_table_file_is_refused(name: str, tmp_path: Path) -> None:
    space = Synthetic(genes=2, values=2)
    counts = np.arange(4, dtype=np.uint16).reshape(4, 1, 1)
    arrays = {"valid.base": counts, "test.base": counts}
    folder = write_table(tmp_path / "t", space, arrays, {"name": "t", "examples": {"valid": 10, "test": 10}})
    given = {"strategies": "random", "tables": str(folder)}
    plan(read_study(None, given))
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(ValueError, match=f"files: .*{name} .*the table was changed"):
        plan(read_study(None, given))
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"files: .*{name} is missing"):
        plan(read_study(None, given))
