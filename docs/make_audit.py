"""Write docs/audit.md from the audits of the embedded tables: `python docs/make_audit.py`.

The audits are those of the commands that the page names; they take a few minutes, that of one-shot models, which
trains nine supernets, most of an hour. `--from DIR` takes those that are finished there and makes the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COMMANDS = {
    "estimators": ["audit", "--table", "nb201-clutter", "--no-mlflow"],
    "pipelines": ["audit", "pipelines", "--table", "pipelines-clutter"],
    "one_shot": ["audit", "one-shot", "--table", "nb201-clutter", "--seeds", "3", "--epochs", "6"],
    "without": ["audit", "pipelines", "--table", "pipelines-clutter", "--pipelines", "+cosine,+cutout,+mixup"],
}


def run(folder: Path) -> dict[str, Any]:
    """The numbers of every audit, made where they are missing."""
    found = {}
    for name, command in COMMANDS.items():
        if not (folder / name / "audit.json").exists():
            print("nasbed", *command, flush=True)
            line = "import sys; from nasbed.harness.cli import main; sys.exit(main())"
            subprocess.run([sys.executable, "-c", line, *command, "--out", str(folder / name)], check=True)
        found[name] = json.loads((folder / name / "audit.json").read_text(encoding="utf-8"))
    return found


def page(found: dict[str, Any]) -> str:
    """The page."""
    [table] = found["estimators"]["tables"]
    first = table["estimators"][0]
    parts = {
        "ESTIMATORS": "\n".join(estimators(table)),
        "NOISE": "\n".join(noise(table)),
        "FIDELITIES": "\n".join(fidelities(table)),
        "PIPELINES": found["pipelines"]["answer"],
        "WITHOUT": found["without"]["answer"],
        "ONE_SHOT": "\n".join(f"- {line}" for line in found["one_shot"]["reinforcement"]["verdicts"]),
        "CEILING": f"{first['attainable']['tau_b']['ceiling']:.2f}",
        "TOP_CEILING": f"{first['top_attainable']['tau_b']['ceiling']:.2f}",
    }
    text = PAGE
    for name, part in parts.items():
        text = text.replace(f"<{name}>", part)
    return text


def estimators(table: dict[str, Any]) -> Iterator[str]:
    """One line for each estimator."""
    yield "| estimator | τ-b | of the ceiling | top tenth | given parameters | largest bias | regret | at that cost |"
    yield "|---|---|---|---|---|---|---|---|"
    for e in table["estimators"]:
        whole, top, decision = e["attainable"].get("tau_b"), e["top_attainable"].get("tau_b"), e["decision"]
        share = f"{100 * whole['share']:.0f} %" if whole and whole["share"] else ""
        biases = [b for b in e["biases"] if b["biased"]] if not e["baseline"] else []
        worst = max(biases, key=lambda b: abs(b["effect"]["estimate"]), default=None)
        lean = f"{worst['feature']} {worst['effect']['estimate']:+.2f}" if worst else ""
        gain = decision["top_k_gain"].get("10") if decision else None
        name = f"**{e['name']}**" if e["baseline"] else f"`{e['name']}`"
        yield (
            f"| {name} | {limits(e['correlations']['tau_b'])} | {share} | {limits(top and top['observed'])} "
            f"| {limits(e['beyond_params'])} | {lean} | {limits(decision and decision['ee'])} | {limits(gain)} |"
        )


def noise(table: dict[str, Any]) -> Iterator[str]:
    """What a correlation is worth."""
    yield "| τ-b of truth and noise | search regret |"
    yield "|---|---|"
    for p in table["noise"]:
        yield f"| {p['tau_b']:.2f} | {limits(p['regret'])} |"


def fidelities(table: dict[str, Any]) -> Iterator[str]:
    """Every recorded fidelity."""
    yield "| fidelity | cost | τ-b | disorder | regret@10 | switch regret |"
    yield "|---|---|---|---|---|---|"
    for p in table["fidelities"]:
        yield (
            f"| `{p['name']}` | {p['cost']:.2f} | {p['tau_b']:.2f} | {p['disorder']:.2f} "
            f"| {100 * p['regret_at']['10']:.2f} pp | {100 * p['switch_regret']:.2f} pp |"
        )


def limits(interval: dict[str, Any] | None) -> str:
    """`0.62 [0.58, 0.66]`."""
    if interval is None or interval["estimate"] is None:
        return ""
    if interval["low"] is None:
        return f"{interval['estimate']:.2f}"
    return f"{interval['estimate']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


PAGE = """# Auditing estimators

Cheap estimates decide which architectures a search ever sees. `nasbed audit` holds them against what architectures are
worth after full training, and says how far each can be trusted, where it is biased, and what it costs a search to believe
it. The report is one self-contained page with every number as LaTeX, CSV and JSON beside it, a page for each estimator,
and the checklist of good practice.

```sh
nasbed audit --table nb201-clutter                                  # all estimates that come with the package
nasbed audit --table nb201-clutter --estimators synflow,naswot
nasbed audit --table nb201-clutter --scores mine.csv                # your own: architecture,score[,seconds][,seed]
nasbed audit --table mlp-digits,nb201-clutter --strategies aging_evolution,local_search
nasbed audit pipelines --table pipelines-clutter                    # architectures against training ingredients
nasbed audit one-shot --table nb201-clutter --seeds 3 --epochs 6    # does a policy feed on its own supernet?
```

Your own scores need no code: a CSV or Parquet file with the columns `architecture` and `score`, in the space's notation.
`--lower-is-better` is for losses; `--accuracy-scale` says that scores estimate the metric itself.

## How to read it

- **Correlations** are signed. An estimator that ranks the wrong way is a fault, never an absolute value. In brackets are
  95 % intervals, which say what was resampled: architectures, where the table or the scores are a sample of the space;
  training and estimator seeds, where the whole space is there.
- **The ceiling** is the correlation that a perfect estimator would reach, since the truth is a mean of few trainings. For
  Spearman's it follows from the correlation between seeds (Spearman and Brown), for Kendall's from the same by Greiner's
  relation. It is given among the best tenth too, where searches live: the best are chosen by one training seed and judged
  by the others, so that the noise that lifted an architecture into the choice does not count for or against anybody.
- **Bias** is a shift in the ranking by a feature that the quality of the architectures does not justify. Since the truth
  is noisy, holding the measured quality fixed is not enough: whatever goes with quality would seem to be liked. The shift
  is estimated with the training seeds as instruments for each other. The usual partial correlation stands beside it.
- **Leaks.** Scores that agree with the recorded trainings better than any knowledge of quality allows have seen them, or
  their labels. Scores that share the noise of one training seed were made from that training, as are those of fewer epochs
  here; their correlation with that seed flatters them.
- **Regret** is what a search by aging evolution ends at that sees and picks by the estimate, 0 for the best architecture
  of the table and 1 for the median one. It is split into *selection*, mended by training what was visited, and *guidance*,
  which is not. *At that cost*: the ten best visited are trained, and a search that trains directly may spend as much;
  negative is worth it.
- Architectures without a score are ranked last, as a search would; those that an estimator was fitted on are left out.

## Estimators on `nb201-clutter`

By `nasbed audit --table nb201-clutter`, over all 729 cells. The ceiling of τ-b is <CEILING>, among the best tenth
<TOP_CEILING>. Bold: what costs nothing. The largest bias is per operation, layer or fifth of a size.

<ESTIMATORS>

What stands out:

- **Correlation over all architectures says little about a search.** Telling broken networks from working ones makes most of
  it. Among the best tenth more than a third of the estimators are not shown to rank at all, supernets of
  single paths and the Jacobian's covariance among them, although training seeds would allow it.
- **Counting parameters is hard to beat.** It ranks worse than half of the estimators over all cells, and better than nearly all
  of them among the best, so that a search that counts them ends nearly where the best predictors do, for nothing. In this
  space the best cells are large ones; elsewhere they need not be.
- **Nearly every estimator leans.** Proxies that sum over layers prefer depth (`synflow`, `snip`, `grad_norm`, `grasp`, `fisher`,
  `zen`), the one-shot model trained on uniform paths under-ranks it; `l2` is the parameter count again.
- **Nearly all of the damage is selection.** Training the ten best that were visited makes cheap proxies worth their price;
  predictors, which pay for a hundred trainings first, most supernets and few epochs are not, on a table this small.
- **Estimates from the same trainings share their noise**, and the audit says which.

Proxies cost next to nothing at this size of table and the price of a supernet is fixed, so the last column would look
different in a space of a million architectures.

## What a correlation is worth

The same searches, led by the truth with normal noise of growing size:

<NOISE>

An estimator above this line errs where it hurts: `one_shot_path_dropout` and `jacob_cov` cost more than plain noise of the
same correlation. One below it, as the parameter count, is right about the best.

## Fewer epochs

Against the training seed that the estimate did not see; cost in full trainings:

<FIDELITIES>

## Do training ingredients matter more than architectures?

By `nasbed audit pipelines --table pipelines-clutter`:

> <PIPELINES>

So both camps are right, about different populations: between any two architectures the architecture decides, between two
good ones the training does. Six epochs of all ingredients at once (`+all`) under-train, and supply most of the variance
between pipelines. Without them, by `nasbed audit pipelines --table pipelines-clutter --pipelines +cosine,+cutout,+mixup`:

> <WITHOUT>

Seed s of an architecture starts from the same weights under every pipeline; the components take that into account.

## Does weight sharing reinforce itself?

By `nasbed audit one-shot --table nb201-clutter --seeds 3 --epochs 6`: three supernets for every seed, trained on uniform
paths, by a policy that learns from the supernet's own scores, and on as many repetitions of other architectures. The
*optimism gap* is how much more the policy's favourites are over-estimated than architectures drawn at random.

<ONE_SHOT>

So on this space the answer is yes, and the correlations do not show it: a supernet that is trained on what it prefers
comes to believe in it, far beyond what concentration alone does to a supernet. Three seeds of six epochs on 729 cells are a
small study; other policies, slower ones above all, may do better.

## How far the audit can be trusted

Tests plant faults in synthetic worlds and see each found for its own reason: a flipped sign, parameter count and noise,
test labels, the evaluated training itself, blindness among the best, a liking for skip connections, a supernet whose policy
feeds on itself. A truthful noisy estimator is called unbiased at the nominal rate; the naive partial correlation calls it
biased several times as often. Limits:

- With one training seed nothing can be said about noise: ceilings are unknown, and biases are not told from it.
- With two seeds, estimates that come from one of them get no verdict on bias.
- Noise whose size depends on a feature is taken for a liking of it. Features are looked at one at a time.
- A bias by one feature shows in those that go with it.
- Weak leaks, such as a good proxy with a little of the labels, are found in large tables only.
- Intervals of searches are over further searches with the same scores, not over further seeds of the estimator.
"""


def main() -> None:
    """Make the audits, and write the page."""
    if sys.argv[1:2] == ["--from"]:
        (HERE / "audit.md").write_text(page(run(Path(sys.argv[2]))), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:
        (HERE / "audit.md").write_text(page(run(Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    main()
