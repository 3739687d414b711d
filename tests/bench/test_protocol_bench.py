"""Cost of one evaluation: the whole protocol path against a bare loop and against NATS-Bench, in one run."""

from __future__ import annotations

import random
import time
from statistics import median

import pytest

from nasbed.harness.ledger import Ledger
from nasbed.harness.loop import search
from nasbed.harness.runs import train_seeds
from nasbed.methods.estimators.table import TableLookup
from nasbed.methods.strategies.aging_evolution import AgingEvolution
from nasbed.protocols import Budget, Setting
from nasbed.tabular import MappedTable

from .bare import aging_evolution, array_evaluation
from .nats_file import ARCHITECTURES, trials, write_archive

SEED = 0
SECONDS = 45_000.0  # about 300 evaluations, of 150 simulated seconds each


@pytest.fixture(scope="module")
def table(nb201_sized):
    return MappedTable(nb201_sized)


def _through_protocol(table):
    spec = {"seed": SEED, "table": {"digest": table.digest}, "data": None, "options": {"redraw": False}}
    setting = Setting(table.task, "seconds", table.pipelines["base"], train_seeds(spec, table.seeds), table=table)
    estimator, ledger = TableLookup(), Ledger(Budget("seconds", SECONDS))
    estimator.prepare(table.space, setting, seed=SEED)
    strategy = AgingEvolution(table.space, seed=SEED, population_size=10, sample_size=3)
    return search(strategy, estimator, table.space, ledger)[0]


def _bare(table):
    valid, cost = table.array("valid.base"), table.array("cost.base")
    examples, epochs = table.manifest["examples"]["valid"], table.pipelines["base"].epochs
    evaluate = array_evaluation(valid, cost, examples, epochs, f"train-seed/{SEED}/{table.digest}/")
    return aging_evolution(evaluate, SECONDS, SEED)


def test_both_loops_do_the_same(table):
    told = [o for call in _through_protocol(table).calls for o in call.observations]
    assert [(o.proposal.architecture.genes, o.score, o.costs[0].amount) for o in told] == _bare(table)
    assert len({o.proposal.architecture for o in told}) > 200


def test_protocol_costs_at_most_three_bare_loops(table, by_turns, median_ratio):
    evaluations = len(_bare(table))
    ours, bare = by_turns(lambda: _through_protocol(table), lambda: _bare(table), repeats=40)
    ratio = median_ratio(ours, bare)
    micro = [1e6 * median(times) / evaluations for times in (ours, bare)]
    print(f"\nprotocol {micro[0]:.1f} us, bare loop {micro[1]:.1f} us per evaluation: {ratio:.2f} times (goal <= 3)")
    assert ratio <= 3


@pytest.fixture(scope="module")
def archive(table, tmp_path_factory):
    texts = [table.text(row) for row in range(table.space.size)]
    return write_archive(tmp_path_factory.mktemp("nats") / "simple", texts)


@pytest.fixture(scope="module")
def load(archive):
    """Function () -> NATS-Bench's API in fast mode, which reads a file when its architecture is first asked for."""
    nats_bench = pytest.importorskip("nats_bench")
    return lambda: nats_bench.create(str(archive), "tss", fast_mode=True, verbose=False)


@pytest.fixture
def global_generator():
    """The API draws from Python's global generator: its state is put back."""
    state = random.getstate()
    yield
    random.setstate(state)


@pytest.mark.parametrize("epochs", [12, 200])
def test_the_archive_is_read_as_nats_bench_means_it(load, epochs, monkeypatch):
    api, seed = load(), trials(epochs, "cifar10-valid")[1]
    monkeypatch.setattr(random, "choice", lambda seeds: seed)
    score, latency, cost, _ = api.simulate_train_eval(api.arch(7), "cifar10", hp=str(epochs))
    trained = api.arch2infos_dict[7][str(epochs)].query("cifar10-valid", seed)
    assert score == trained.eval_acc1es[f"x-valid@{epochs - 1}"]
    validation = [trained.eval_times[f"x-valid@{e}"] for e in range(epochs)]
    assert cost == pytest.approx(sum(trained.train_times.values()) + sum(validation) / epochs)
    assert latency == pytest.approx(0.015)


def _search_through(api, epochs, evaluations):
    """The bare loop, driven as the package's own evolution script does; 40 architectures stand for all."""

    def evaluate(genes, index):
        score, _, _, _ = api.simulate_train_eval(index % ARCHITECTURES, "cifar10", hp=str(epochs))
        return score, 1.0

    return aging_evolution(evaluate, float(evaluations), SEED)


# The goal of 50 is asked for on trainings of 200 epochs, which are what the table holds too. The package's own script
# searches on those of 12, with far less to copy: 50 is out of reach there, even of the bare loop, and the
# bound of 8 only tells when the protocol gets slower.
@pytest.mark.parametrize(("epochs", "least", "evaluations"), [(200, 50, 8), (12, 8, 30)])
def test_cheaper_than_nats_bench(table, load, global_generator, by_turns, median_ratio, epochs, least, evaluations):
    api = load()
    for index in range(ARCHITECTURES):  # all files are read before: only warm queries are compared
        api.simulate_train_eval(index, "cifar10", hp=str(epochs))
    assert len(_search_through(api, epochs, evaluations)) == evaluations
    ours, theirs = by_turns(
        lambda: _through_protocol(table), lambda: _search_through(api, epochs, evaluations), repeats=7
    )
    mine = len(_bare(table))
    ratio = median_ratio(theirs, ours) / evaluations * mine
    micro = 1e6 * median(theirs) / evaluations, 1e6 * median(ours) / mine
    print(
        f"\nNATS-Bench, {epochs} epochs, warm: {micro[0]:.0f} us, protocol {micro[1]:.1f} us per evaluation: "
        f"{ratio:.0f} times less (goal >= 50 {_met(ratio >= 50)}, aim 100 {_met(ratio >= 100)})"
    )
    assert ratio >= least


def test_fifty_times_cheaper_than_reading_the_archive(table, load, global_generator, by_turns, median_ratio):
    """Both start with nothing in memory: the table is opened, the API reads the file of each new architecture."""
    evaluations, distinct = 30, []

    def theirs():
        api = load()
        began = time.process_time()
        _search_through(api, 12, evaluations)
        distinct.append(len(api.evaluated_indexes))
        taken.append(time.process_time() - began)

    taken = []
    ours, _ = by_turns(lambda: _through_protocol(MappedTable(table.folder)), theirs, repeats=3)
    mine = len(_bare(table))
    ratio = median_ratio(taken, ours) / evaluations * mine
    print(
        f"\nNATS-Bench, 12 epochs, cold ({distinct[0]} files for {evaluations} evaluations): "
        f"{1e6 * median(taken) / evaluations:.0f} us, protocol with opening {1e6 * median(ours) / mine:.1f} us "
        f"per evaluation: {ratio:.0f} times less"
    )
    assert ratio >= 50


def _met(reached):
    return "met" if reached else "not met"
