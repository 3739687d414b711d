"""Estimators on learning curves: where curves come from, what they cost, and what is made of them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats

from nasbed.methods.estimators.curve_domhan import CurveDomhan
from nasbed.methods.estimators.curve_freeze_thaw import (
    CurveFreezeThaw,
    Parameters,
    decay_kernel,
    matern,
    posterior,
)
from nasbed.methods.estimators.curve_svr import CurveSVR, curve_features, search
from nasbed.methods.estimators.full import FullTraining
from nasbed.methods.estimators.last_seen import LastSeen
from nasbed.methods.estimators.sotl import SumOfTrainingLosses, moving_average, training_loss
from nasbed.methods.estimators.table import TableLookup
from nasbed.methods.networks.curves import CurveReader
from nasbed.methods.spaces.mlp import MLP
from nasbed.protocols import Architecture, Cost, Fidelity, PerformanceEstimator, Proposal, Setting, Task
from nasbed.protocols.training import PIPELINES, ReferenceTrainer, load
from nasbed.tabular import MappedTable, open_table, write_table

SPACE = MLP(hidden=1, widths=(8, 16, 32, 64), dropout=False)
N = SPACE.size
EPOCHS = 12
ARCHITECTURES = [SPACE.at(i) for i in range(N)]


def rising(seed: int = 0) -> np.ndarray:
    """Curves of N architectures and 2 seeds (N, 2, 12), as counts among 1000."""
    rng = np.random.default_rng(seed)
    end, rate = rng.uniform(0.6, 0.9, (N, 1, 1)), rng.uniform(0.3, 1.2, (N, 1, 1))
    curves = end - 0.5 * np.arange(1, EPOCHS + 1.0) ** -rate + rng.normal(0, 0.004, (N, 2, EPOCHS))
    return np.round(1000 * curves.clip(0, 1)).astype(np.uint16)


VALID, TRAIN = rising(), rising(1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> MappedTable:
    arrays = {
        "valid.base": VALID, "train.base": TRAIN, "test.base": VALID, "cost.base": np.arange(10.0, 10.0 + N),
        "valid.sparse": VALID[:, :, [0, 1, 3, 5, 8, 11]], "test.sparse": VALID[:, :, [0, 1, 3, 5, 8, 11]],
        "cost.sparse": np.arange(10.0, 10.0 + N),
    }  # fmt: skip
    fields = {
        "name": "toy",
        "clock": "flops",
        "examples": {"valid": 1000, "test": 1000, "train": 1000},
        "epochs": {"sparse": [1, 2, 4, 6, 9, 12], "base": list(range(1, 13))},
    }
    return open_table(write_table(tmp_path_factory.mktemp("tables") / "toy", SPACE, arrays, fields))


def tabular(table: MappedTable, unit: str = "flops", pipeline: str = "base") -> Setting:
    chosen = replace(table.pipelines[pipeline], epochs=EPOCHS)
    return Setting(table.task, unit, chosen, lambda a: SPACE.index(a) % 2, table=table, clock=lambda: 0.0)


def real(space: MLP = SPACE, epochs: int = 6) -> Setting:
    view = load("digits")
    small = replace(view, train=replace(view.train, x=view.train.x[:200], y=view.train.y[:200]))
    pipeline = replace(PIPELINES["adam"], epochs=epochs, batch_size=64)
    trainer = ReferenceTrainer(space, device="cpu")
    return Setting(view.task, "epochs", pipeline, lambda a: 3, small, trainer=trainer)


def prepared(estimator: PerformanceEstimator, setting: Setting, seed: int = 0) -> PerformanceEstimator:
    assert isinstance(estimator, PerformanceEstimator)
    estimator.prepare(SPACE, setting, seed=seed)
    return estimator


def ask(estimator: PerformanceEstimator, *architectures: Architecture) -> list[float]:
    return [o.score for o in estimator.estimate([Proposal(a) for a in architectures])]


@pytest.mark.parametrize("unit", ["flops", "epochs", "evaluations"])
@pytest.mark.parametrize(("epochs", "asked"), [(None, 4), (1, 1), (7, 7), (12, 12)])
def test_a_recorded_beginning_costs_what_looking_it_up_does(
    table: MappedTable, unit: str, epochs: int | None, asked: int
) -> None:
    setting = tabular(table, unit)
    answers = prepared(LastSeen(epochs), setting).estimate([Proposal(a) for a in ARCHITECTURES])
    expected = prepared(TableLookup(), setting).estimate([Proposal(a, Fidelity(asked)) for a in ARCHITECTURES])
    assert [o.costs for o in answers] == [o.costs for o in expected]
    assert [o.score for o in answers] == [o.score for o in expected]
    assert answers[3].curve == tuple((VALID[3, 1, :asked] / 1000).tolist())


def test_a_table_with_gaps_is_read_up_to_the_next_recorded_epoch(table: MappedTable) -> None:
    setting = tabular(table, "epochs", "sparse")
    for epochs, points, paid in ((3, 1, 4), (5, 1, 6), (12, 1, 12), (1, 3, 4), (2, 4, 6)):
        curve = CurveReader(SPACE, setting, epochs, points).partial(Proposal(ARCHITECTURES[0]))
        assert curve.epochs[-1] == paid
        assert len(curve.epochs) >= points
        assert curve.costs == (Cost("train", float(paid)),)
    assert CurveReader(SPACE, setting, 3, 3).last(ARCHITECTURES[0]) == 12


def test_a_proposal_that_asks_for_less_is_given_less(table: MappedTable) -> None:
    (answer,) = prepared(LastSeen(6), tabular(table, "epochs")).estimate([Proposal(ARCHITECTURES[0], Fidelity(2))])
    assert answer.score == VALID[0, 0, 1] / 1000
    assert answer.costs == (Cost("train", 2.0),)
    (answer,) = prepared(CurveDomhan(6), tabular(table)).estimate([Proposal(ARCHITECTURES[0], Fidelity(2))])
    assert (answer.status, answer.reason) == ("crashed", "2 epochs known, and 3 needed")
    assert answer.costs[0].amount > 0


def test_a_real_beginning_is_that_of_the_full_training() -> None:
    setting = real()
    p = Proposal(ARCHITECTURES[5])
    (whole,) = prepared(FullTraining(), setting).estimate([p])
    (seen,) = prepared(LastSeen(3), setting).estimate([p])
    assert seen.curve == whole.curve[:3]
    assert seen.score == whole.curve[2]
    assert seen.costs == (Cost("train", 3.0),)
    (sum_of_losses,) = prepared(SumOfTrainingLosses(3), setting).estimate([p])
    curve, _ = setting.trainer.train(p.architecture, setting, seed=3, fidelity=Fidelity(3))
    assert sum_of_losses.score == pytest.approx(-sum(1 - v for v in curve.train))


def test_the_sum_of_training_losses(table: MappedTable) -> None:
    setting = tabular(table)
    error = 1 - TRAIN[np.arange(N), np.arange(N) % 2] / 1000
    np.testing.assert_allclose(ask(prepared(SumOfTrainingLosses(), setting), *ARCHITECTURES), -error[:, :4].sum(1))
    np.testing.assert_allclose(ask(prepared(SumOfTrainingLosses(9, last=2), setting), ARCHITECTURES[0]),
                               -error[0, 7:9].sum())  # fmt: skip
    for most in (9, 50):
        every = ask(prepared(SumOfTrainingLosses(9, last=most), setting), *ARCHITECTURES)
        assert every == ask(prepared(SumOfTrainingLosses(9), setting), *ARCHITECTURES)
    average = ask(prepared(SumOfTrainingLosses(3, kind="ema"), setting), ARCHITECTURES[0])[0]
    assert average == pytest.approx(-(0.99 * (0.99 * error[0, 0] + 0.01 * error[0, 1]) + 0.01 * error[0, 2]))


def test_the_average_holds_on_to_the_old_value() -> None:
    assert moving_average(np.array([1.0, 0.0]), 0.99) == pytest.approx(0.99)
    assert moving_average(np.full(7, 0.3), 0.99) == pytest.approx(0.3)


def test_a_ranking_by_losses_is_affine_invariant() -> None:
    losses = np.random.default_rng(0).random((9, 6))
    for measure in (np.sum, lambda v: moving_average(v, 0.99)):
        order = np.argsort([measure(v) for v in losses])
        assert (order == np.argsort([measure(3 * v + 2) for v in losses])).all()


def test_the_loss_of_every_metric() -> None:
    task = Task("t", "text", "perplexity", False, (4,), 3, "")
    np.testing.assert_allclose(training_loss(task, np.exp([0.5, 0.25])), [0.5, 0.25])
    mse = replace(task, kind="regression", metric="mse")
    np.testing.assert_allclose(training_loss(mse, np.array([0.5, 0.25])), [0.5, 0.25])
    accuracy = replace(task, kind="image", metric="accuracy", higher_is_better=True)
    np.testing.assert_allclose(training_loss(accuracy, np.array([0.5, 0.75])), [0.5, 0.25])


def test_losses_of_mixed_or_missing_training_curves_are_refused(table: MappedTable) -> None:
    setting = real()
    mixing = replace(setting, pipeline=replace(setting.pipeline, mixup=0.2))
    with pytest.raises(ValueError, match="estimator: 'sotl' needs a training curve, and the pipeline 'adam' mixes"):
        SumOfTrainingLosses().fits(mixing)
    (answer,) = prepared(SumOfTrainingLosses(), tabular(table, pipeline="sparse")).estimate(
        [Proposal(ARCHITECTURES[0])]
    )
    assert (answer.status, answer.reason) == ("crashed", "the table has no training curve")
    assert np.isnan(answer.score)


def test_a_training_that_diverged_is_no_number(tmp_path: Path) -> None:
    values = np.ones((N, 1, 4), np.float32)
    values[0, 0, 2:] = np.inf
    task = Task("r", "regression", "mse", False, (4,), None, "")
    arrays = {"valid.b": values, "test.b": values, "train.b": values}
    opened = open_table(write_table(tmp_path / "t", SPACE, arrays, {"name": "r", "task": task}))
    setting = Setting(task, "epochs", replace(opened.pipelines["b"], epochs=4), lambda a: 0, table=opened)
    for estimator in (LastSeen(3), SumOfTrainingLosses(3), CurveSVR(3, n_train=8, draws=2)):
        bad, good = prepared(estimator, setting).estimate([Proposal(a) for a in ARCHITECTURES[:2]])
        assert (bad.status, bad.reason, bad.costs[0].amount) == ("crashed", "training diverged", 3.0)
        assert np.isnan(bad.score)
        assert good.status == "ok"
    assert ask(prepared(LastSeen(2), setting), ARCHITECTURES[0]) == [-1.0]
    with pytest.raises(ValueError, match=r"'curve_domhan' has priors for accuracy in .* is mse"):
        CurveDomhan().fits(setting)


def test_extrapolation_comes_nearer_to_the_end_than_the_last_value(table: MappedTable) -> None:
    setting = tabular(table)
    proposals = [Proposal(a) for a in ARCHITECTURES]
    answers = prepared(CurveDomhan(8), setting).estimate(proposals)
    assert [o.proposal for o in answers] == proposals
    end = VALID[np.arange(N), np.arange(N) % 2, -1] / 1000
    error = np.abs([o.score for o in answers] - end)
    assert np.median(error) < 0.6 * np.median(np.abs([o.curve[-1] for o in answers] - end))
    assert all(o.objectives["sd"] > 0 for o in answers)
    assert answers[0].costs[0] == Cost("train", 80.0)
    assert answers[0].costs[1].kind == "fit"
    assert answers[0].costs[1].amount > 0
    alone = prepared(CurveDomhan(8), setting).estimate(proposals[4:5])
    assert alone[0] == answers[4]
    (counted,) = prepared(CurveDomhan(8), tabular(table, "evaluations")).estimate(proposals[:1])
    assert sum(c.amount for c in counted.costs) == 1.0


def test_the_full_posterior_is_near_the_light_fit(table: MappedTable) -> None:
    pytest.importorskip("emcee")
    a = ARCHITECTURES[2]
    sampled = prepared(CurveDomhan(8, fit="mcmc", steps=60, burn_in=20), tabular(table))
    assert not sampled.traits.deterministic
    assert CurveDomhan.traits.deterministic
    first, again = ask(sampled, a), ask(prepared(CurveDomhan(8, fit="mcmc", steps=60, burn_in=20), tabular(table)), a)
    assert first == again
    assert first == pytest.approx(ask(prepared(CurveDomhan(8), tabular(table)), a), abs=0.05)


def test_without_emcee_the_posterior_is_refused(table: MappedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "emcee", None)
    with pytest.raises(ValueError, match=r"fit: 'mcmc' needs emcee, which nasbed\[curves\] installs"):
        CurveDomhan(fit="mcmc").fits(tabular(table))


def test_features_of_a_curve() -> None:
    y = np.random.default_rng(0).random(9)
    features = curve_features(y)
    assert len(features) == 3 * 9 - 3
    np.testing.assert_allclose(features[9:17], [y[i + 1] - y[i] for i in range(8)])
    np.testing.assert_allclose(features[17:], [y[i + 2] - 2 * y[i + 1] + y[i] for i in range(7)])


def test_the_search_takes_the_best_of_its_draws() -> None:
    from sklearn.model_selection import KFold
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import NuSVR

    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3))
    y = x[:, 0] - 0.5 * x[:, 1] + rng.normal(0, 0.05, 30)
    chosen = search(x, y, 12, np.random.default_rng(5))
    draws = np.random.default_rng(5)
    logs, nus = draws.uniform(-5, 1, (12, 2)), 1 - draws.random(12)
    errors = []
    for (c, gamma), nu in zip(logs, nus, strict=True):
        total = []
        for train, test in KFold(3).split(x):
            scaler = StandardScaler().fit(x[train])
            machine = NuSVR(C=10**c, gamma=10**gamma, nu=nu).fit(scaler.transform(x[train]), y[train])
            total.append(np.square(machine.predict(scaler.transform(x[test])) - y[test]).mean())
        errors.append(np.mean(total))
    best = int(np.argmin(errors))
    assert pytest.approx(10 ** logs[best, 0]) == chosen["seeded"].C
    assert chosen["seeded"].nu == pytest.approx(nus[best])


def test_the_machine_learns_from_whole_runs_that_are_charged(table: MappedTable) -> None:
    setting = tabular(table)
    estimator = CurveSVR(4, n_train=9, draws=5)
    costs = estimator.prepare(SPACE, setting, seed=1)
    assert len(set(estimator.trained_on)) == 9
    trained = [c.amount for c in costs if c.kind == "train"]
    assert trained == [12.0 * (10 + SPACE.index(a)) for a in estimator.trained_on]
    assert [c.kind for c in costs[9:]] == ["fit"]
    asked = [a for a in ARCHITECTURES if a not in estimator.trained_on]
    answers = estimator.estimate([Proposal(a) for a in asked])
    assert {c.kind for o in answers for c in o.costs} == {"train", "fit"}
    end = np.array([VALID[SPACE.index(a), SPACE.index(a) % 2, -1] / 1000 for a in asked])
    assert np.abs([o.score for o in answers] - end).mean() < 0.15
    again = CurveSVR(4, n_train=9, draws=5)
    again.prepare(SPACE, setting, seed=1)
    assert ask(again, asked[2]) == [answers[2].score]
    other = CurveSVR(4, n_train=9, draws=5)
    other.prepare(SPACE, setting, seed=2)
    assert other.trained_on != again.trained_on


def small_world(n: int = 4) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    times = [np.arange(1.0, k + 1) for k in (6, 6, 3, 1)[:n]]
    return rng.normal(size=(n, 3)), times, [rng.normal(size=len(t)) for t in times]


P = Parameters(0.3, 0.7, 1.5, 0.6, 1.3, 2.0, 0.05)


def test_inference_by_blocks_is_that_of_the_dense_process() -> None:
    codes, times, curves = small_world()
    mean, covariance, evidence = posterior(P, codes, times, curves)
    owner = np.repeat(np.arange(4), [len(t) for t in times])
    prior = P.amplitude * matern(codes, codes, P.length) + 1e-8 * np.eye(4)
    noise = scipy.linalg.block_diag(
        *[P.decay * decay_kernel(t, t, P.alpha, P.beta) + P.noise * np.eye(len(t)) for t in times]
    )
    dense = prior[owner][:, owner] + noise
    y = np.concatenate(curves)
    gain = np.linalg.solve(dense, prior[owner]).T
    np.testing.assert_allclose(mean, P.mean + gain @ (y - P.mean), rtol=0, atol=1e-8)
    np.testing.assert_allclose(covariance, prior - gain @ prior[owner], rtol=0, atol=1e-8)
    expected = scipy.stats.multivariate_normal(np.full(len(y), P.mean), dense).logpdf(y)
    assert evidence == pytest.approx(expected, abs=1e-8)


def test_the_decay_kernel_is_a_mixture_of_exponentials() -> None:
    t = np.arange(0.0, 9.0)
    kernel = decay_kernel(t, t, 1.7, 2.5)
    rates = scipy.stats.gamma(1.7, scale=1 / 2.5)
    for i, j in ((0, 0), (1, 2), (8, 5)):
        mixed = scipy.integrate.quad(lambda r, s=t[i] + t[j]: np.exp(-r * s) * rates.pdf(r), 0, np.inf)[0]
        assert kernel[i, j] == pytest.approx(mixed, abs=1e-6)
    assert kernel[0, 0] == 1.0
    assert (np.diff(kernel, axis=0) < 0).all()
    assert np.linalg.eigvalsh(kernel).min() > -1e-12


def test_the_matern_kernel_is_that_of_scikit_learn() -> None:
    from sklearn.gaussian_process.kernels import Matern

    codes, *_ = small_world()
    np.testing.assert_allclose(matern(codes, codes, 1.5), Matern(1.5, nu=2.5)(codes), atol=1e-12)


def test_curves_of_pure_noise_leave_the_prior() -> None:
    codes, times, curves = small_world()
    mean, covariance, _ = posterior(replace(P, noise=1e12), codes, times, curves)
    np.testing.assert_allclose(mean, P.mean, atol=1e-9)
    np.testing.assert_allclose(covariance, P.amplitude * matern(codes, codes, P.length), atol=1e-7)


def test_the_asymptote_is_learned_from_curves_and_charged(table: MappedTable) -> None:
    setting = tabular(table)
    estimator = CurveFreezeThaw(4, n_train=8)
    costs = estimator.prepare(SPACE, setting, seed=1)
    assert [c.kind for c in costs] == ["train"] * 8 + ["fit"]
    asked = [a for a in ARCHITECTURES if a not in estimator.trained_on]
    answers = estimator.estimate([Proposal(a) for a in asked])
    end = np.array([VALID[SPACE.index(a), SPACE.index(a) % 2, -1] / 1000 for a in asked])
    scores = np.array([o.score for o in answers])
    assert np.abs(scores - end).mean() < 0.12
    assert scipy.stats.spearmanr(scores, end)[0] > 0.5
    assert all(o.objectives["sd"] > 0 for o in answers)
    assert estimator.estimate([Proposal(asked[3])])[0] == answers[3]


def test_basis_functions_are_those_of_the_paper_and_vanish_at_the_end() -> None:
    import torch

    from nasbed.methods.estimators.curve_lcnet import basis

    rng = np.random.default_rng(0)
    theta, t = rng.random((50, 13)), rng.uniform(0.01, 1, 50)
    p, e = theta.T, np.exp
    expected = [
        e(-p[0] - p[1] / 10 / t - p[2] / 10 * np.log(t)) - e(-p[0] - p[1] / 10),
        p[3] * (t ** p[4] - 1),
        2 * p[5] * (1 / (1 + e(-p[7] * p[6] / 10)) - 1 / (1 + (t / e(p[6] / 10)) ** p[7])),
        p[9] * (-e(-10 * p[8] * t) + e(-10 * p[8])),
        p[10] * (1 / ((p[12] / t) ** p[11] + 1) - 1 / (p[12] ** p[11] + 1)),
    ]
    got = basis(torch.from_numpy(theta), torch.from_numpy(t)).numpy()
    np.testing.assert_allclose(got, np.stack(expected, 1), atol=1e-12)
    ends = basis(torch.from_numpy(theta).float(), torch.ones(50))
    assert ends.abs().max() < 1e-6


def test_the_curve_network_learns_and_is_charged(table: MappedTable) -> None:
    import torch

    from nasbed.methods.estimators.curve_lcnet import CurveLCNet, CurveNetwork, Examples

    setting = tabular(table)
    estimator = CurveLCNet(4, n_train=8, members=2, steps=150, adapt=20)
    costs = estimator.prepare(SPACE, setting, seed=1)
    assert [c.kind for c in costs] == ["train"] * 8 + ["fit"]
    assert costs[-1].amount > 0
    asked = [a for a in ARCHITECTURES if a not in estimator.trained_on]
    answers = estimator.estimate([Proposal(a) for a in asked])
    end = np.array([VALID[SPACE.index(a), SPACE.index(a) % 2, -1] / 1000 for a in asked])
    assert np.abs([o.score for o in answers] - end).mean() < 0.15
    again = CurveLCNet(4, n_train=8, members=2, steps=150, adapt=20)
    again.prepare(SPACE, setting, seed=1)
    assert again.estimate([Proposal(asked[3])])[0] == answers[3]
    network = CurveNetwork(3)
    curve = CurveReader(SPACE, setting, 12).full(ARCHITECTURES[0])
    examples = Examples([(np.ones(3), curve)])
    _, weights, asymptote = network(examples.codes)
    assert float(weights.sum().detach()) == pytest.approx(1.0)
    assert examples.t[-1] == 1.0
    torch.testing.assert_close(network.curve(examples)[-1], asymptote[0], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="posterior: 'sghmc' is not one of ensemble"):
        CurveLCNet(posterior="sghmc")


def test_more_training_runs_than_there_are_is_refused(table: MappedTable) -> None:
    with pytest.raises(ValueError, match="n_train: 20 is more than the 16 trainings that were found"):
        CurveSVR(n_train=20, draws=1).prepare(SPACE, tabular(table), seed=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LastSeen(0), "epochs: 0 is not an integer of at least 1"),
        (lambda: SumOfTrainingLosses(kind="mean"), "kind: 'mean' is not one of sum, ema"),
        (lambda: SumOfTrainingLosses(last=0), "last: 0 is not an integer of at least 1"),
        (lambda: SumOfTrainingLosses(decay=1.0), r"decay: 1.0 is not in \[0, 1\)"),
        (lambda: CurveDomhan(2), "epochs: 2 is not an integer of at least 3"),
        (lambda: CurveDomhan(fit="ml"), "fit: 'ml' is not one of mle, mcmc"),
        (lambda: CurveDomhan(monotone="no"), "monotone: 'no' is not one of soft, hard"),
        (lambda: CurveDomhan(steps=500), "steps: 500 is not an integer of at least 501"),
        (lambda: CurveSVR(n_train=5), "n_train: 5 is not an integer of at least 6"),
        (lambda: CurveFreezeThaw(n_train=1), "n_train: 1 is not an integer of at least 2"),
        (lambda: CurveSVR(draws=0), "draws: 0 is not an integer of at least 1"),
    ],
)
def test_wrong_parameters_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("estimator", [LastSeen, SumOfTrainingLosses, CurveDomhan, CurveSVR, CurveFreezeThaw])
def test_settings_that_do_not_fit_are_refused(estimator: type, table: MappedTable) -> None:
    with pytest.raises(ValueError, match="epochs: 13 is more than the 12 of the pipeline 'base'"):
        estimator(13).fits(tabular(table))
    with pytest.raises(ValueError, match="budget: the clock of the table 'toy' is in flops"):
        estimator().fits(tabular(table, "seconds"))
    with pytest.raises(ValueError, match="estimator: "):
        estimator().fits(replace(tabular(table), table=None))


def test_curves_in_a_table_need_no_torch() -> None:
    names = ["last_seen", "sotl", "curve_domhan", "curve_svr", "curve_freeze_thaw"]
    code = f"""
import sys
from nasbed.methods import registry
for name in {names}:
    registry.load("estimators", name)
assert not {{"torch", "sklearn", "emcee"}} & set(sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
