"""Make the estimates that come with the package, and docs/estimators.md from them: `python docs/make_estimators.py`.

Estimates that are there are not made again; `--page` writes the page alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from nasbed.tabular import open_table
from nasbed.tabular.estimates import EstimateTable, embedded_estimates, open_estimates

HERE = Path(__file__).parent
ESTIMATES = HERE.parent / "tabular" / "data" / "estimates"

# Table, folder, estimator, seeds. Of estimators without chance, seeds are training seeds of the table.
PLAN: tuple[tuple[str, str, str, int], ...] = (
    *(("nb201-clutter", name, name, 1) for name in ("params", "flops")),
    *(("nb201-clutter", f"fewer_epochs-{e}", f"fewer_epochs[epochs={e}]", 2) for e in (1, 2, 3)),
    ("nb201-clutter", "last_seen", "last_seen", 2),
    ("nb201-clutter", "sotl", "sotl", 2),
    ("nb201-clutter", "curve_domhan", "curve_domhan[epochs=4]", 2),
    *(("nb201-clutter", name, name, 2) for name in ("synflow", "jacob_cov", "naswot", "grad_norm", "snip")),
    *(
        ("nb201-clutter", f"predictor_{name}", f"predictor_{name}", 2)
        for name in ("forest", "boosting", "gaussian_process", "gcn", "mlp", "lstm")
    ),
    ("pipelines-clutter", "data_subset-0.5", "data_subset[share=0.5]", 3),
    ("pipelines-clutter", "data_subset-0.25", "data_subset[share=0.25]", 3),
    ("pipelines-clutter", "resolution", "resolution[share=0.666667]", 3),
    ("pipelines-clutter", "width", "width[share=0.5]", 3),
    ("pipelines-clutter", "depth", "depth[share=0.333333]", 3),
    ("nb201-clutter", "one_shot_uniform", "one_shot_uniform", 2),
    *(("nb201-clutter", name, name, 2) for name in ("fisher", "grasp", "l2", "plain", "zen", "epe_nas")),
    ("nb201-clutter", "curve_svr", "curve_svr[epochs=3]", 2),
    ("nb201-clutter", "curve_freeze_thaw", "curve_freeze_thaw[epochs=3]", 2),
    ("nb201-clutter", "one_shot_path_dropout", "one_shot_path_dropout", 2),
    ("nb201-clutter", "one_shot_enas", "one_shot_enas", 2),
    ("nb201-clutter", "one_shot_darts", "one_shot_darts", 2),
    ("nb201-clutter", "ntk", "ntk[batch_size=16]", 2),
    ("nb201-clutter", "curve_lcnet", "curve_lcnet[epochs=3]", 2),
    *(("mlp-digits", f"fewer_epochs-{e}", f"fewer_epochs[epochs={e}]", 5) for e in (1, 3)),
    ("mlp-digits", "params", "params", 1),
    ("mlp-digits", "sotl", "sotl", 5),
    ("mlp-digits", "curve_domhan", "curve_domhan[epochs=5]", 2),
    *(("mlp-digits", f"predictor_{name}", f"predictor_{name}", 2) for name in ("forest", "gaussian_process")),
)

# Spearman's rho with the final test accuracy on CIFAR-10, all cells of NAS-Bench-201: Abdelfattah et al. 2021 (grad_norm
# to jacob_cov), Krishnakumar et al. 2022 (the rest, over samples); fewer epochs: 12 of 200, validation, all cells.
PUBLISHED = {
    "grad_norm": 0.594, "snip": 0.596, "grasp": 0.514, "fisher": 0.36, "synflow": 0.737, "jacob_cov": 0.731,
    "naswot": 0.792, "params": 0.710, "flops": 0.684, "l2": 0.665, "plain": -0.317, "zen": 0.355, "epe_nas": 0.732,
}  # fmt: skip


def make() -> None:
    """Run `nasbed estimate` for whatever is missing."""
    for table, folder, estimator, seeds in PLAN:
        out = ESTIMATES / table / folder
        if (out / "manifest.json").exists():
            continue
        command = ["estimate", "--estimator", estimator, "--table", table, "--seeds", str(seeds)]
        print("nasbed", *command, flush=True)
        line = "import sys; from nasbed.harness.cli import main; sys.exit(main())"
        # Smaller networks and images take as many epochs: what they save is seen in FLOPs alone.
        unit = "flops" if table == "pipelines-clutter" else "epochs"
        subprocess.run([sys.executable, "-c", line, *command, "--unit", unit, "--out", str(out)], check=True)


def page() -> str:
    """The page, from the estimates that are there."""
    parts = [HEAD]
    for table in sorted({name.partition("/")[0] for name in embedded_estimates()}):
        parts += [f"## On `{table}`", "", *rows(table), ""]
    return "\n".join([*parts, TAIL])


def rows(name: str) -> Iterator[str]:
    """A table of the estimates of one table, the best correlation first."""
    table = open_table(name)
    pipeline = open_estimates(embedded_estimates(name)[0]).manifest["pipeline"]["name"]
    final = table.array(f"valid.{pipeline}")[:, :, -1].mean(1) / table.manifest["examples"]["valid"]
    yield "| estimator | Spearman | of the better half | published | without a score | prepared for | an answer |"
    yield "|---|---|---|---|---|---|---|"
    found = [(correlation(e, final), e) for e in map(open_estimates, embedded_estimates(name))]
    for (rho, half), e in sorted(found, key=lambda f: -f[0][0]):
        params = ", ".join(f"{k}={v}" for k, v in e.manifest["estimator"]["params"].items())
        published = PUBLISHED.get(e.name) if name.startswith("nb201") else None
        full = table.pipelines[pipeline].epochs if e.unit == "epochs" else table.median_cost(pipeline)
        prepared = np.mean([sum(c.amount for c in costs) for costs in e.preparation]) / full
        yield (
            f"| `{e.name}`{f' ({params})' if params else ''} | {rho:.2f} | {half:.2f} "
            f"| {'' if published is None else f'{published:.2f}'} | {np.isnan(e.scores).mean():.1%} "
            f"| {prepared:.3g} | {e.costs.mean() / full:.2g} |"
        )


def correlation(e: EstimateTable, final: np.ndarray) -> tuple[float, float]:
    """Spearman's rho of the scores with the final metric, and that among the better half; means over seeds.

    Architectures without a score rank last, all alike; those that the estimator was fitted on are left out.
    """
    known = {a.genes: i for i, a in enumerate(e.architectures())}
    found = []
    for k in range(len(e.seeds)):
        scores = np.where(np.isnan(e.scores[:, k]), -np.inf, e.scores[:, k])
        keep = np.ones(len(scores), bool)
        keep[[known[a.genes] for a in e.trained_on(k)]] = False
        better = keep & (final >= np.median(final))
        found.append([spearmanr(scores[some], final[some])[0] for some in (keep, better)])
    mean = np.mean(found, 0)
    return float(mean[0]), float(mean[1])


HEAD = """# Estimators on the embedded tables

`nasbed list estimators` names them all; each is one file in `methods/estimators/`, with its formula and source. Their
scores for every architecture of a table come with the package, so that audits read them: `nasbed estimate` made them,
and this page is written from them by `python docs/make_estimators.py`.

Spearman's rank correlation is that of an estimator's scores with the validation metric after full training, its mean
over the table's training seeds; of several estimator seeds the mean correlation is shown. Where an estimator gives no
score, as proxies do for dead cells, the architecture ranks last; what a predictor was trained on is left out. Costs are
in full trainings, by epochs, on `pipelines-clutter` by FLOPs: what an estimator spends before its first answer, and for
an answer. **An absolute value is never taken**: a negative correlation means that the estimator, as published, prefers the worse.
"""

TAIL = """## Beside the published numbers

The column "published" has Spearman correlations on the whole of NAS-Bench-201 with test accuracy on CIFAR-10 (Abdelfattah
et al. 2021; Krishnakumar et al. 2022; for NASWOT, over a part of the cells). They are no target here: other data, four
channels instead of sixteen, one cell a stage instead of five, six epochs instead of 200, and a restriction of the space to
three operations. What follows from that:

- The order is the published one at its top: SynFlow, the Jacobian's covariance and NASWOT above the parameter count,
  which every proxy has to be held against rather than against 0. The gradient norm and SNIP fall below it here. They add
  up layer by layer, and in a restriction whose only layers with weights are 3x3 convolutions that is nearly a count of
  these, less what their gradients lose on the way.
- About a tenth of the cells are dead: no signal passes. Proxies tell them for certain, which lifts the correlation over all
  cells; the column "of the better half" shows what is left where a search has to decide.
- Few epochs rank badly: the learning rate is at its highest then, and validation accuracy at that time says little (see
  the data sheet for the pipeline without annealing). The sum of training errors over the same two epochs ranks far
  better, at the same price. Of the lower fidelities, smaller images, networks and training sets keep all epochs and lose
  little.
- The best cells differ by little more than training seeds do (see the data sheet), which bounds every correlation in the
  better half: that between two seeds is given there.
- The one-shot model is trained as long as one architecture, and is asked for all of them; a search that asks for few pays
  for it all the same.
"""


def main() -> None:
    """See the module."""
    if "--page" not in sys.argv:
        make()
    (HERE / "estimators.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
