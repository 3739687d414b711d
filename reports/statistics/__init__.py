"""Fair-comparison statistics: pure functions from plain numpy arrays to numbers.

Values of one strategy are a list with one array per table, each holding one value per seed. Differences are new - base
of losses such as regrets, so negative is better. Randomness is always a passed generator.

>>> import numpy as np
>>> from nasbed.reports.statistics import difference_interval, theta_se, van_elteren, verdict
>>> rng = np.random.default_rng(0)
>>> base = [rng.uniform(0.2, 0.6, 30) for _ in range(3)]
>>> new = [x - 0.1 + rng.normal(0.0, 0.02, 30) for x in base]
>>> difference = difference_interval(new, base, paired=True, resamples=2000, rng=rng)
>>> print(f"{difference.estimate:.3f} [{difference.low:.3f}, {difference.high:.3f}] by {difference.method}")
-0.100 [-0.104, -0.096] by bootstrap-paired
>>> test = van_elteren(new, base)
>>> print(f"theta {theta_se(new, base).theta:.2f}, p {test.p:.1e}")
theta 0.28, p 2.5e-07
>>> verdict(difference, test.p, rope=0.01)
'better'
"""

from __future__ import annotations

from .bands import Band, bootstrap_band
from .bootstrap import bootstrap_difference, bootstrap_mean, bootstrap_statistic
from .curves import (
    anytime_area,
    ecdf_runtimes,
    ert,
    incumbent_curve,
    normalised_regret,
    performance_profile,
    relative_improvement,
    runtime_to_target,
    step_values,
)
from .effect import (
    Theta,
    a12,
    cliffs_delta,
    cliffs_label,
    fail_rate,
    iqm,
    optimality_gap,
    pairing_correlation,
    poi,
    theta_se,
)
from .inference import BayesSignedRank, VanElteren, bayes_signed_rank, holm, signed_rank, van_elteren
from .intervals import difference_interval, mean_interval, t_difference, t_interval, theta_interval
from .planning import SeedPlan, paired_t_sample_size, plan_seeds
from .ranking import (
    Friedman,
    PairwiseTests,
    cliques,
    friedman,
    min_tables,
    nemenyi_cd,
    nemenyi_p,
    wilcoxon_holm,
)
from .values import Estimate, Interval, Result
from .verdict import Verdict, verdict

__all__ = [
    "Band",
    "BayesSignedRank",
    "Estimate",
    "Friedman",
    "Interval",
    "PairwiseTests",
    "Result",
    "SeedPlan",
    "Theta",
    "VanElteren",
    "Verdict",
    "a12",
    "anytime_area",
    "bayes_signed_rank",
    "bootstrap_band",
    "bootstrap_difference",
    "bootstrap_mean",
    "bootstrap_statistic",
    "cliffs_delta",
    "cliffs_label",
    "cliques",
    "difference_interval",
    "ecdf_runtimes",
    "ert",
    "fail_rate",
    "friedman",
    "holm",
    "incumbent_curve",
    "iqm",
    "mean_interval",
    "min_tables",
    "nemenyi_cd",
    "nemenyi_p",
    "normalised_regret",
    "optimality_gap",
    "paired_t_sample_size",
    "pairing_correlation",
    "performance_profile",
    "plan_seeds",
    "poi",
    "relative_improvement",
    "runtime_to_target",
    "signed_rank",
    "step_values",
    "t_difference",
    "t_interval",
    "theta_interval",
    "theta_se",
    "van_elteren",
    "verdict",
    "wilcoxon_holm",
]
