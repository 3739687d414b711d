"""`nasbed plan-seeds` as a user meets it, and the arithmetic behind it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from nasbed.harness.cli import main
from nasbed.harness.compare import carry_out
from nasbed.harness.plan import plan
from nasbed.harness.store import RunStore
from nasbed.harness.study import read_study
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.reports import pilot
from nasbed.reports.comparison import compare
from nasbed.reports.frame import load
from nasbed.reports.statistics import SeedPlan, theta_se
from nasbed.tabular import write_synthetic_table


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A pilot of 20 seeds on two tables, and one of 10."""
    folder = tmp_path_factory.mktemp("plan")
    for i, name in enumerate(("one", "two")):
        write_synthetic_table(folder / name, Synthetic(genes=4, values=5, world=i), seeds=2, epochs=2)
    given = {"strategies": "random,local_search", "budget": "30evals", "tables": f"{folder / 'one'},{folder / 'two'}"}
    for name, seeds in (("pilot", 20), ("small", 10)):
        assert carry_out(plan(read_study(None, {**given, "seeds": seeds})), folder / name) == []
    return folder


@pytest.fixture(scope="module")
def data(desk):
    return load(RunStore(desk / "pilot" / "store", create=False))


@pytest.fixture
def run(desk, monkeypatch, capfd):
    from nasbed.harness.executors import ONE_THREAD

    monkeypatch.chdir(desk)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(pilot, "SIZES", (5, 10, 20, 30, 50, 100, 200, 300))
    monkeypatch.setattr(pilot.questions, "__kwdefaults__", {**pilot.questions.__kwdefaults__, "repeats": 40})
    for name in ONE_THREAD:
        monkeypatch.setenv(name, "1")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["nasbed", "plan-seeds", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capfd.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return call


# Regrets, with and without waste.


def test_without_waste_they_are_the_regrets_of_the_report(data):
    runs = compare(data, resamples=100).runs
    for method in ("random", "local_search"):
        for name, tables in pilot.regrets(data, method).items():
            for table, values in zip(data.places, tables, strict=True):
                assert [r.values[name] for r in runs if (r.method, r.table) == (method, table)] == values.tolist()


def test_a_waste_of_half_is_a_run_of_half_the_budget(desk, data):
    """Random search does not know its budget: with half of it, it does the same and stops in the middle."""
    given = {"strategies": "random", "budget": "15evals", "seeds": 20, "tables": f"{desk / 'one'},{desk / 'two'}"}
    assert carry_out(plan(read_study(None, given)), desk / "half") == []
    half = pilot.regrets(load(RunStore(desk / "half" / "store", create=False)), "random")
    wasted = pilot.regrets(data, "random", 0.5)
    for name in pilot.METRICS:
        for ours, theirs in zip(wasted[name], half[name], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert np.mean(wasted["late_area"]) > np.mean(pilot.regrets(data, "random")["late_area"])


def test_who_has_no_time_for_an_evaluation_has_the_regret_of_the_median(data):
    assert all((x == 1.0).all() for tables in pilot.regrets(data, "random", 0.99).values() for x in tables)


# Questions.


def test_more_waste_is_seen_sooner_and_no_difference_never(data):
    def asked(effect):
        found = pilot.questions(data, ["local_search"], effect=effect, power=0.8, repeats=60)
        return next(q for q in found if q.metric == "late_area")

    little, much = asked(0.001), asked(0.6)
    assert little.needed is None
    assert max(little.plan.power[:4]) < 0.2
    assert much.needed is not None
    assert much.needed <= 30
    assert much.plan.power[-1] == 1.0


def test_a_pair_is_asked_about_in_the_order_of_its_regrets(data):
    found = pilot.questions(data, ["local_search", "random"], effect=0.2, power=0.8, repeats=20)
    pair = [q for q in found if not q.effect]
    late = {m: pilot.regrets(data, m)["late_area"] for m in ("local_search", "random")}
    worse, better = sorted(late, key=lambda m: -np.mean(late[m]))
    assert [(q.about, q.against, q.metric) for q in pair] == [(worse, better, m) for m in pilot.METRICS]
    expected = theta_se(late[worse], late[better])
    assert pair[1].theta.estimate == expected.theta > 0.5
    assert pair[1].theta.low < pair[1].theta.estimate < pair[1].theta.high
    assert all(np.isnan(q.theta.low) and q.theta.reason for q in found if q.effect)


@pytest.mark.parametrize(
    ("power", "needed"),
    [
        ((0.9, 0.95, 1.0), 10),
        ((0.2, 0.4, 0.9), 37),
        ((0.2, 0.8, 1.0), 20),
        ((0.7, 0.7, 0.8), 41),
        ((0.1, 0.2, 0.3), None),
    ],
)
def test_seeds_between_two_sizes(power, needed):
    sizes = (10, 20, 41)
    assert pilot.needed(SeedPlan(sizes, power, 0.6, 0.05, 20), 0.8) == needed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effect": 0.0}, "effect: 0 is not between 0 and 1"),
        ({"effect": 1.0}, "effect: 1 is not between 0 and 1"),
        ({"power": 0.05}, "power: 0.05 is not between 0.05 and 1"),
        ({"strategies": ["tpe"]}, "strategies: 'tpe' has no finished run on 'one'"),
    ],
)
def test_what_cannot_be_planned(data, change, message):
    given = {"strategies": ["random"], "effect": 0.2, "power": 0.8} | change
    with pytest.raises(ValueError, match=message):
        pilot.questions(data, given.pop("strategies"), repeats=2, **given)


# The command.


def test_from_a_folder(run):
    code, out, err = run("pilot", "--strategies", "local_search,random", "--effect", "0.5")
    lines = out.splitlines()
    assert (code, lines[0]) == (0, "pilot: 20 seeds per table on one, two; van Elteren test, two-sided 0.05")
    assert sum("50 % of evaluations wasted" in line for line in lines) == 2
    assert {"random against local_search", "local_search against random"} & set(lines)
    sentence = "to see a 50 % waste of evaluations of local_search with 80 %"
    assert sum(sentence in line for line in lines) == 1
    assert "Traceback" not in err


def test_as_json_and_by_default_without_random_search(run):
    code, out, _ = run("pilot", "--json", "--power", "0.9")
    found = json.loads(out)
    assert (code, found["power"], found["effect"]) == (0, 0.9, 0.2)
    assert {q["about"] for q in found["questions"]} == {"local_search"}
    assert found["questions"][0]["plan"]["sizes"] == list(pilot.SIZES)
    assert found["questions"][0]["theta"]["low"] is None


def test_a_pilot_is_run_where_there_is_none(run, desk):
    arguments = (
        "--table",
        "./one",
        "--strategies",
        "local_search",
        "--seeds",
        "20",
        "--budget",
        "20evals",
        "--jobs",
        "1",
    )
    code, out, err = run(*arguments)
    assert (code, out.splitlines()[0]) == (0, "pilot: 20 seeds per table on one; van Elteren test, two-sided 0.05")
    (folder,) = (desk / "nasbed-out").iterdir()
    assert f"pilot: nasbed-out/{folder.name}" in err
    assert len(RunStore(folder / "store", create=False).finished()) == 40
    assert run(*arguments)[1] == out
    assert run(folder)[1] == out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "pilot: name the folder"),
        (("pilot", "--table", "one"), "pilot: name the folder"),
        (("pilot", "--seeds", "30"), "seeds, budget: belong to a pilot that is run"),
        (("nowhere",), "folder: nowhere holds no finished comparison"),
        (("--table", "./one"), "strategies: name the strategies of the pilot"),
        (("--table", "./one", "--strategies", "random", "--seeds", "19"), "seeds: 19 are too few for a pilot"),
        (("small",), "pilot: 'local_search' has 10 seeds on a table, need at least 20"),
        (("pilot", "--strategies", "locl_search"), "did you mean 'local_search'?"),
        (("pilot", "--effect", "2"), "effect: 2 is not between 0 and 1"),
    ],
)
def test_a_wrong_input_is_one_line(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_help_has_examples(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "nasbed plan-seeds --table mlp-digits --strategies local_search,aging_evolution" in out
