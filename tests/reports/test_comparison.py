from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from nasbed.reports.comparison import compare
from nasbed.reports.frame import load
from nasbed.reports.statistics import holm, van_elteren
from nasbed.reports.words import summary_lines


@pytest.fixture(scope="module")
def study(make_store):
    store = make_store(("random", "weak", "oracle"), tables=2, seeds=12)
    return store, compare(load(store), resamples=300)


def _by_hand(store, record, name):
    """Second implementation of the scalars: a dense walk over the record."""
    facts = store.record["tables"][name]

    def nr(cost):
        tests = [
            s["test"] for i, s in zip(record.incumbents, record.sealed["incumbents"], strict=True) if i.cost <= cost
        ]
        if not tests:
            return 1.0
        return min(max((facts["best"] - tests[-1]) / (facts["best"] - facts["median"]), 0.0), 1.0)

    grid = np.exp(np.linspace(math.log(0.1 * facts["budget"]), math.log(facts["budget"]), 4001))
    middle = np.sqrt(grid[1:] * grid[:-1])
    return nr, nr(facts["budget"]), float(np.mean([nr(c) for c in middle]))


def test_scalars_agree_with_a_walk_over_the_record(study):
    store, comparison = study
    for score in comparison.runs[::7]:
        _, final, late = _by_hand(store, store.runs[score.key], score.table)
        assert score.values["regret_final"] == pytest.approx(final, abs=1e-12)
        assert score.values["late_area"] == pytest.approx(late, abs=2e-3)


def test_expected_running_times_agree_with_a_walk(study):
    store, comparison = study
    summary = comparison.summary("oracle", "nb201_digits")
    budget = store.record["tables"]["nb201_digits"]["budget"]
    for target in summary.targets:
        spent, hits = 0.0, 0
        for key in summary.runs:
            nr, _, _ = _by_hand(store, store.runs[key], "nb201_digits")
            times = [i.cost for i in store.runs[key].incumbents if nr(i.cost) <= target.target]
            hits += bool(times)
            spent += min(times, default=budget) / budget
        assert (target.hits, target.runs) == (hits, 12)
        assert target.ert == pytest.approx(spent / hits if hits else math.inf)


def test_means_weigh_tables_equally(study):
    _, comparison = study
    parts = [comparison.summary("weak", t).scores["regret_final"].estimate for t in comparison.places]
    assert comparison.summary("weak").scores["regret_final"].estimate == pytest.approx(np.mean(parts))


def test_the_better_strategy_is_called_better_and_the_rest_is_not(study):
    _, comparison = study
    verdicts = {(p.first, p.metric): p.verdict for p in comparison.pairs if p.second == "random"}
    assert verdicts["oracle", "regret_final"] == verdicts["oracle", "late_area"] == "better"
    assert verdicts["weak", "regret_final"] == "undecided"
    assert comparison.ranking()[0] == "oracle"


def test_holm_is_over_all_pairs_of_a_metric(study):
    _, comparison = study
    for metric in comparison.metrics:
        pairs = comparison.pairs_of(metric.name)
        assert len(pairs) == 3
        assert [p.p_holm for p in pairs] == holm([p.p for p in pairs]).tolist()
        first = pairs[0]
        values = {
            m: [
                [r.values[metric.name] for r in comparison.runs if (r.method, r.table) == (m, t)]
                for t in comparison.places
            ]
            for m in (first.first, first.second)
        }
        assert first.p == van_elteren(values[first.first], values[first.second]).p


def test_equal_methods_are_never_told_apart(make_store):
    store = make_store(("random", "weak"), seeds=12)
    twins = {r.spec["seed"]: r for r in store.runs.values() if r.spec["strategy"]["name"] == "random"}
    for key, record in store.runs.items():
        twin = twins[record.spec["seed"]]
        store.runs[key] = dataclasses.replace(twin, key=key, spec=record.spec)
    (pair,) = compare(load(store), resamples=200).pairs_of("late_area")
    assert (pair.difference.low, pair.difference.high) == (0.0, 0.0)
    assert pair.verdict == "equivalent"
    assert pair.correlation.value == pytest.approx(1.0)


def test_random_search_must_be_there(make_store):
    with pytest.raises(ValueError, match="random search is missing"):
        compare(load(make_store(("weak", "oracle"), seeds=2)))
    store = make_store(("random", "weak"), seeds=1, fail=[("random", 0)])
    with pytest.raises(ValueError, match="baseline 'random'"):
        compare(load(store))


@pytest.mark.parametrize(("name", "value"), [("resamples", 10), ("rope", -1.0), ("alpha", 1.0)])
def test_bad_settings_are_named(study, name, value):
    store, _ = study
    with pytest.raises(ValueError, match=name):
        compare(load(store), **{name: value})


def test_pairing_needs_equal_seeds_and_shared_noise(make_store):
    store = make_store(("random", "weak"), seeds=5, fail=[("weak", 2)])
    (pair,) = compare(load(store), resamples=200).pairs_of("regret_final")
    assert not pair.paired
    assert pair.correlation.reason == "the seeds differ"
    options = {"batch": 1, "dedupe": False, "redraw": True, "retrain": 3}
    redrawn = compare(load(make_store(("random", "weak"), seeds=5, options=options)), resamples=200)
    assert not redrawn.pairs[0].paired
    assert any("redrawn" in w for w in redrawn.warnings)


def test_failures_are_counted_and_said(make_store):
    store = make_store(("random", "weak"), seeds=5, fail=[("weak", 2), ("weak", 4)])
    comparison = compare(load(store), resamples=200)
    summary = comparison.summary("weak")
    assert (len(summary.runs), summary.planned) == (3, 5)
    assert comparison.warnings[0].startswith("2 of 5 runs of weak on nb201_digits have no result")
    assert any("did not finish the same seeds" in w for w in comparison.warnings)


def test_a_method_without_results_is_left_out_but_not_forgotten(make_store):
    store = make_store(("random", "weak"), seeds=2, fail=[("weak", 0), ("weak", 1)])
    comparison = compare(load(store), resamples=200)
    assert comparison.methods == ("random", "weak")
    assert comparison.compared == ("random",)
    assert comparison.summary("weak").planned == 2
    assert comparison.pairs == ()
    assert any("left out of every comparison" in w for w in comparison.warnings)
    assert "nothing to compare" in summary_lines(comparison)[0]


@pytest.mark.parametrize(("seeds", "said"), [(3, "no bootstrap interval"), (6, "unreliable under 10")])
def test_few_seeds_are_warned_about(make_store, seeds, said):
    comparison = compare(load(make_store(("random", "weak"), seeds=seeds)), resamples=200)
    assert any(said in w for w in comparison.warnings)
    assert not any(i.method.startswith("bootstrap") for i in comparison.summary("random").scores.values())
    assert np.isnan(comparison.anytime[0].band.low).all() == (seeds < 5)


def test_noise_beyond_the_rope_is_warned_about(study):
    store, comparison = study
    assert any("standard error" in w for w in comparison.warnings)
    wide = compare(load(store), resamples=200, rope=0.5)
    assert not any("standard error" in w for w in wide.warnings)
    assert {p.verdict for p in wide.pairs} == {"equivalent"}


def test_table_level_test_only_with_enough_tables(study, make_store):
    _, comparison = study
    assert comparison.table_test.sentence == (
        "a table-level test cannot reach significance with 2 tables; at least 7 are needed"
    )
    many = compare(load(make_store(("random", "oracle"), tables=6, seeds=3)), resamples=200)
    assert many.table_test.needed == 6
    assert sum(many.table_test.mean_ranks) == pytest.approx(3.0)


def test_a_run_without_incumbent_has_regret_one(make_store):
    store = make_store(("random", "weak"), seeds=3)
    key = next(k for k, r in store.runs.items() if r.spec["strategy"]["name"] == "weak")
    store.runs[key] = dataclasses.replace(store.runs[key], incumbents=(), sealed={"incumbents": [], "retrained": None})
    (score,) = [r for r in compare(load(store), resamples=200).runs if r.key == key]
    facts = store.record["tables"]["nb201_digits"]
    assert score.values == {
        "regret_final": 1.0,
        "late_area": 1.0,
        "regret": pytest.approx(facts["best"] - facts["median"]),
    }


def test_metrics_where_lower_is_better_give_the_same_regrets(make_store):
    store = make_store(("random", "oracle"), seeds=4)
    straight = compare(load(store), resamples=200)
    facts = store.record["tables"]["nb201_digits"]
    facts.update(
        {k: 1.0 - facts[k] for k in ("best", "median", "mean", "worst")}, higher_is_better=False, metric="error"
    )
    for key, record in store.runs.items():
        flipped = [{**s, "test": 1.0 - s["test"]} for s in record.sealed["incumbents"]]
        store.runs[key] = dataclasses.replace(record, sealed={"incumbents": flipped, "retrained": None})
    for a, b in zip(straight.runs, compare(load(store), resamples=200).runs, strict=True):
        assert a.values == pytest.approx(b.values, abs=1e-9)


def test_without_a_table_the_retrained_score_is_the_headline(make_store):
    store = make_store(("random", "oracle"), seeds=8, real=True)
    comparison = compare(load(store), resamples=200)
    assert [m.name for m in comparison.metrics] == ["test"]
    assert (comparison.profiles, comparison.ecdfs, comparison.tables) == ((), (), ())
    (pair,) = comparison.pairs
    assert pair.difference.estimate > 0
    assert pair.verdict in ("better", "equivalent")
    key = next(iter(store.runs))
    store.runs[key] = dataclasses.replace(store.runs[key], sealed={**store.runs[key].sealed, "retrained": None})
    with pytest.raises(ValueError, match="no retrained incumbent"):
        compare(load(store))


def test_without_a_table_a_lower_perplexity_is_the_better_one(make_store):
    store = make_store(("random", "oracle"), seeds=8, real=True)
    straight = compare(load(store), resamples=200)
    store.record["task"] = {"name": "text:x", "metric": "perplexity", "higher_is_better": False}
    for key, record in store.runs.items():
        scores = [100.0 * (1.0 - v) for v in record.sealed["retrained"]["test"]]
        store.runs[key] = dataclasses.replace(
            record, sealed={**record.sealed, "retrained": {"test": scores, "cost": 1.0}}
        )
    comparison = compare(load(store), resamples=200, rope=0.1)
    [metric] = comparison.metrics
    assert (metric.title, metric.lower_is_better, metric.scale) == ("Test perplexity", True, 1.0)
    assert comparison.ranking() == straight.ranking() == ("oracle", "random")
    [pair], [same] = comparison.pairs, straight.pairs
    assert pair.difference.estimate == pytest.approx(-100.0 * same.difference.estimate)
    assert (pair.verdict, same.verdict) == ("better", "better")
    assert any(
        line.startswith("oracle reaches a lower test perplexity than random") for line in summary_lines(comparison)
    )
    [metric] = compare(load(store), resamples=200).metrics
    scores = [v for r in store.runs.values() for v in r.sealed["retrained"]["test"]]
    assert metric.rope == pytest.approx(0.01 * float(np.median(scores)))


def test_numbers_are_json_and_repeatable(study):
    store, comparison = study
    text = json.dumps(comparison.to_dict(), sort_keys=True, allow_nan=False)
    assert text == json.dumps(compare(load(store), resamples=300).to_dict(), sort_keys=True, allow_nan=False)


def test_summary_lines_say_the_verdict_with_its_numbers(study):
    _, comparison = study
    lines = summary_lines(comparison)
    (line,) = [x for x in lines if x.startswith("oracle reaches a lower final test regret than random")]
    assert line.endswith("better.")
    assert "A12 = " in line
    assert any(x.startswith("warning: ") for x in lines)


def test_an_incumbent_without_a_score_has_no_curve(make_store):
    store = make_store(("random", "oracle"), seeds=3, real=True)
    key = next(k for k, r in store.runs.items() if r.spec["strategy"]["name"] == "oracle")
    record = store.runs[key]
    unseen = tuple(dataclasses.replace(i, score=math.nan) for i in record.incumbents)
    store.runs[key] = dataclasses.replace(record, incumbents=unseen)
    assert [c.method for c in compare(load(store), resamples=200).anytime] == ["random"]
