"""Write docs/tables.md, the data sheets of the embedded tables, from the tables: `python docs/make_tables.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nasbed.tabular import embedded, facts, open_table
from nasbed.tabular.facts import PipelineFacts
from nasbed.tabular.table import MappedTable

HERE = Path(__file__).parent

HEAD = """# Data sheets of the embedded tables

What each table holds, how it came about, what it is fit for and what not. `nasbed table info NAME` prints the manifest
and the numbers of this page, `--figures DIR` draws them, and `nasbed table verify NAME` checks hashes and schema; with
`--retrain 20` it trains random entries again from fresh seeds and compares. This page is written by
`python docs/make_tables.py`.

How tables are made, in short: every training starts from named streams of its training seed and the architecture
(initial weights, order of examples, augmentation), so that it can be made again alone. The trainers that train many
networks at a time are held to the reference trainer by tests. No entry is invented, interpolated or left out, failures
to learn included; what is missing is missing. Test values lie in `sealed/` and are opened by the seal alone, so all
accuracies of this page are of validation. The folder that a table was built in is made again by

```sh
nasbed table build tabular/data/NAME/spec.toml --out DIR
```

with the same values on the same builds of torch and numba and the same instruction path, and others, of the same
distribution, elsewhere. A build starts with a pilot: 48 architectures from two seeds must show a seed-to-seed Spearman
correlation of 0.8 among architectures that work, and a deviation between architectures of 1.5 times that between seeds,
or the table would not be worth its cost.

| array | axes | content |
|---|---|---|
| `train.<pipeline>`, `valid.<pipeline>` | architecture, seed, epoch | counts of correct predictions (uint16), or the metric (float32) |
| `sealed/test.<pipeline>` | architecture, seed, epoch | the same; opened by the seal after a run's last ask |
| `sealed/fgsm.<pipeline>` | architecture, seed | test images still right under the fast gradient sign attack |
| `cost.<pipeline>` | architecture | FLOPs of one epoch, counted exactly: training, and validating once |
| `feature.<name>` | architecture | parameters, multiply-adds, FLOPs and latency of a forward pass |

Names with `@`, such as `valid.+cosine@data=0.5`, are trainings of lower fidelity. Training accuracy is what the batches
showed while training, not an evaluation after the epoch.

"""

PROSE: dict[str, tuple[str, tuple[str, ...]]] = {
    "mlp-digits": (
        """An architecture is a sequence of one to three hidden layers, each of 8, 16, 32 or 64 units with a sigmoid, tanh, ReLU or
ELU activation: 16 + 16² + 16³ members. The pipeline `adam`, optimizer, learning rate and number of epochs, is that of
Minutoli and Ciranni's overview, section 5. The table is small on purpose, so that a comparison takes about a minute on
any machine and repeats to the byte, and still large enough that random search rarely finds the best architecture within
100 evaluations.""",
        (
            "Fit for: comparing black-box strategies and low-fidelity estimators in a conditional space of variable length, "
            "with noise between training seeds; teaching; tests of search code.",
            "Not fit for claims about convolutional networks, large data, or wall-clock time: FLOPs of such small networks "
            "say little about seconds.",
            "Many architectures are equally good up to noise. Five trainings leave a mean with a standard error that is "
            "larger than small differences of normalised regret; reports warn of it. The noise is largest among "
            "architectures that sometimes fail to learn.",
            "With 398 validation images an accuracy comes in steps of 0.25 percentage points, so validation scores tie.",
        ),
    ),
    "nb201-clutter": (
        """The cell of NAS-Bench-201 with three of its operations, 3^6 = 729 cells, in a network of one cell a stage and 4, 8 and 16
channels. The images (`digits_clutter`) are digits of 8x8 pixels at a random place of a 12x12 canvas, beside a piece of
another digit, under noise; plain digits do not tell cells apart. Of the restrictions to three operations that were
piloted, this one passed: cells of `skip_connect` and convolutions alone differ by little more than seeds do. Nor does the
pipeline `base`, which does not anneal: evaluating by the running statistics of batch normalisation while the weights
still move adds a deviation of 0.1 between seeds, and seeds then agree not at all.""",
        (
            "Fit for: comparing black-box strategies on convolutional cells with dead edges and whole dead cells; "
            "low-fidelity estimators along epochs; estimators and proxies on networks that train in a second.",
            "Not fit for questions about skip connections, which the restriction lacks, about large networks, or about "
            "the published NAS-Bench-201.",
            "Two seeds leave differences within the best cells undecided: see the correlation in the better half.",
            "Latency was measured on the building machine, on one thread, of one image; it is a median of 20 passes.",
            "Seconds are not a clock here: networks were trained in buckets.",
        ),
    ),
    "nb201-mnist-clutter": (
        """A uniform sample of the cells of `nb201-clutter`, trained in the same way on MNIST, reduced to 8x8 pixels and cluttered
by the same generator: for audits, and for the question how far results carry over to other data. Architectures have the
same notation and the same index in the space as there. MNIST itself is not embedded: name its folder by `--data-root`.""",
        (
            "Fit for: audits of estimators, transfer between data sets.",
            "Not fit for comparisons of strategies: it is a sample, and `compare` refuses it.",
        ),
    ),
    "fcnet-digits": (
        """The space of Klein and Hutter (2019), two hidden layers and the hyper-parameters of their training, without its two
largest widths and its smallest batch size. They minimise the squared error on standardised inputs; here the loss is
the softmax cross-entropy and the data are images with ten classes. The schedule, the learning rate and the batch size
are genes, so the pipeline leaves them open.""",
        (
            "Fit for: joint search of architecture and hyper-parameters; multi-fidelity methods along 20 epochs.",
            "Not fit for comparisons with the published tables, which are of regression after 100 epochs.",
            "With learning rate 0.1 nearly half of the members stay below 50 %: that is part of the space.",
        ),
    ),
    "pipelines-clutter": (
        """A uniform sample of the cells of `nb201-clutter`, every one under every pipeline from every seed: a balanced design for
the question whether ingredients of training matter more than architectures. Under the first pipeline the same trainings
are there at lower fidelities as well.""",
        (
            "Fit for: analysis of variance over architecture, pipeline and seed; rank transfer between pipelines; audits "
            "of low fidelities.",
            "Not fit for comparisons of strategies: it is a sample, and `compare` refuses it.",
            "Under `+all` the pilot fell short of 0.8: dropped paths add noise to cells of few paths. It was kept, for the "
            "design to be balanced; a single seed of it orders architectures badly.",
            "Augmentation helps where training is long and networks are large; here both are small.",
        ),
    ),
    "rnn4-text": (
        """All cells of ENAS's recurrent space with four nodes, as language models of characters on the documentation text of
Python's standard library (`python_docs`). States have 16 units. The text differs between versions of Python: `verify --retrain` refuses any but
the one whose digest the manifest holds.""",
        (
            "Fit for: ground truth beyond images; sharing of weights in recurrent cells.",
            "Not fit for claims about language models: the corpus is small and every window starts from a zero state.",
        ),
    ),
}


def main() -> None:
    """Write the page."""
    pages = [HEAD, *(sheet(open_table(name)) for name in embedded())]
    (HERE / "tables.md").write_text("\n".join(pages), encoding="utf-8")


def sheet(table: MappedTable) -> str:
    """The data sheet of one table."""
    prose, limits = PROSE[table.name]
    found = [facts.facts(table, p) for p in table.pipelines]
    lines = [f"## `{table.name}`", "", *prose.split("\n"), "", "| property | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in properties(table)]
    lines += ["", *values(table, found), "", *(line for limit in limits for line in wrapped(limit))]
    return "\n".join([*lines, ""])


def properties(table: MappedTable) -> Iterator[tuple[str, str]]:
    """Name and value of what the manifest says."""
    manifest, task = table.manifest, table.task
    rows = len(table.members())
    whole = "all of the space" if table.coverage == "complete" else f"a sample: {manifest['sample']}"
    yield "space", f"`{table.space.name}`"
    yield "architectures", f"{rows:,}, {whole}"
    yield "training seeds", str(len(table.seeds))
    yield "trainings", f"{rows * len(table.seeds) * len(table.pipelines):,} at full fidelity"
    yield "data", f"`{task.name}`, digest `{task.digest[:12]}`"
    yield "examples", ", ".join(f"{manifest['examples'][s]} {s}" for s in ("train", "valid", "test"))
    yield "metric", f"{task.metric}, {'higher' if task.higher_is_better else 'lower'} is better"
    for name, p in table.pipelines.items():
        recorded = manifest["epochs"][name]
        some = "" if len(recorded) == p.epochs else f" (recorded after {', '.join(map(str, recorded))})"
        yield f"pipeline `{name}`", f"{described(manifest['pipelines'][name])}, {p.epochs} epochs{some}"
    for name, texts in manifest.get("fidelities", {}).items():
        yield f"lower fidelities, `{name}`", ", ".join(f"`{t}`" for t in texts)
    if "fgsm_epsilon" in manifest:
        yield "attack", f"fast gradient sign, epsilon {manifest['fgsm_epsilon']}"
    yield "clock", f"{table.clock}, counted exactly, of training and of validating after every epoch"
    for name, pilot in (manifest["pilot"] or {}).items():
        spread = f"sd {pilot['sd_architectures']:.3f} between architectures, {pilot['sd_seeds']:.3f} between seeds"
        yield f"pilot, `{name}`", f"Spearman {pilot['seed_to_seed_spearman']:.3f} from seed to seed; {spread}"
    yield from trained(manifest["trained"])
    yield "licence", manifest["licence"]
    yield "citation", manifest["citation"]
    yield "digest", f"`{table.digest}`"


def described(p: dict[str, Any]) -> str:
    """A pipeline in words: what is on."""
    words = ["Adam" if p["optimizer"] == "adam" else "SGD"]
    if p["open"]:
        words += [f"{', '.join(x.replace('_', ' ') for x in p['open'])} of the architecture"]
    if "learning_rate" not in p["open"]:
        words += [
            f"learning rate {p['learning_rate']:g}" + (" annealed to 0 (cosine)" if p["schedule"] == "cosine" else "")
        ]
    if p["momentum"]:
        words += [f"{'Nesterov ' if p['nesterov'] else ''}momentum {p['momentum']:g}"]
    for key, what in (
        ("weight_decay", "weight decay {:g}"), ("cutout", "CutOut of side {}"), ("mixup", "MixUp with alpha {:g}"),
        ("cutmix", "CutMix with alpha {:g}"), ("drop_path", "ScheduledDropPath up to {:g}"),
        ("dropout", "dropout {:g}"), ("label_smoothing", "label smoothing {:g}"),
        ("clip_norm", "gradients no longer than {:g}"),
    ):  # fmt: skip
        if p.get(key):
            words.append(what.format(p[key]))
    if "batch_size" not in p["open"]:
        words += [f"batches of {p['batch_size']}"]
    return ", ".join(words)


def trained(made: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where and how long."""
    machines = made.get("machines") or [
        {"trainer": "stacked", "hardware": ", ".join(made["hardware"]), "software": made["software"]}
    ]
    for m in machines:
        versions = ", ".join(f"{k} {v}" for k, v in m["software"].items())
        yield "trained", f"{made['by']}; {m['trainer']}; on {m['hardware']}; {versions}"
    yield "time", f"{made['seconds_amortised']:,.0f} core-seconds in all"


def values(table: MappedTable, found: list[PipelineFacts]) -> Iterator[str]:
    """Quantiles and noise, pipeline by pipeline."""
    percent = table.task.metric == "accuracy"

    def shown(x: float | None) -> str:
        return "-" if x is None else f"{100 * x:.1f}" if percent else f"{x:.3f}"

    unit = "in percent" if percent else "(deviations: of the logarithm)" if table.task.metric == "perplexity" else ""
    yield f"Validation {table.task.metric} {unit}, of means over training seeds after the last epoch:".replace(
        " ,", ","
    )
    yield ""
    yield "| pipeline | 0 % | 25 % | 50 % | 75 % | 100 % | sd of architectures | sd of seeds | Spearman of seeds | in the better half | best | median cost |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for f in found:
        numbers = [*map(shown, f.quantiles), shown(f.sd_architectures), shown(f.sd_seeds)]
        ranks = [f"{x:.2f}" if x is not None else "-" for x in (f.spearman_seeds, f.spearman_better_half)]
        name = f.top[0][0].replace("|", "&#124;")
        yield f"| `{f.pipeline}` | {' | '.join([*numbers, *ranks])} | <code>{name}</code> | {f.median_cost:.3g} {table.clock} |"
    lower = [(f.pipeline, x) for f in found for x in f.lower]
    if lower:
        yield from ("", "| lower fidelity | Spearman with full training | cost |", "|---|---|---|")
        for name, x in lower:
            yield f"| `{name}` at `{x.fidelity}` | {x.spearman or 0:.2f} | {100 * (x.cost or 0):.0f} % |"


def wrapped(text: str) -> list[str]:
    """A point of a list, in lines of up to 120 characters."""
    import textwrap

    return textwrap.wrap(text, 118, initial_indent="- ", subsequent_indent="  ")


if __name__ == "__main__":
    main()
