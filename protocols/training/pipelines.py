"""Registered pipelines: fixed ways of training, compared only with themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from math import inf

from ..task import Json, Pipeline

# Adam with learning rate 0.001 for 10 epochs is the setting of Minutoli & Ciranni's overview (section 5).
ADAM = Pipeline("adam", optimizer="adam", learning_rate=0.001, epochs=10, batch_size=32)
SGD_COSINE = Pipeline(
    "sgd_cosine",
    optimizer="sgd",
    learning_rate=0.03,
    epochs=20,
    batch_size=32,
    schedule="cosine",
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
)
# Klein & Hutter 2019: Adam for 100 epochs, the rest being genes. They minimise the squared error on standardised
# inputs and targets; here the loss is that of the data set, cross-entropy where it has classes.
FCNET = Pipeline(
    "fcnet",
    optimizer="adam",
    learning_rate=0.001,
    epochs=100,
    batch_size=32,
    schedule="cosine",
    open=("batch_size", "learning_rate", "schedule"),
)
# A fifth of the epochs, for tables of many networks on small data.
FCNET_20 = replace(FCNET, name="fcnet-20", epochs=20)
# For spaces that search the training as well; what their genes leave open is as in `adam`.
FREE = Pipeline(
    "free",
    optimizer="adam",
    learning_rate=0.001,
    epochs=10,
    batch_size=32,
    open=(
        "optimizer",
        "learning_rate",
        "epochs",
        "batch_size",
        "schedule",
        "momentum",
        "nesterov",
        "weight_decay",
    ),
)

# The set for tables, on grey images of 12x12 to 28x28 pixels: one skeleton, to which ingredients are added.
LEARNING_RATE, EPOCHS, BATCH_SIZE = 0.1, 6, 64
# DeVries & Taylor take a square of 16 on CIFAR-10, a quarter of 32x32 pixels. Here it is a ninth of 12x12: a digit is
# a few strokes of a few pixels.
CUTOUT_SIDE = 4
# Zhang et al. take 1 on CIFAR, for 200 epochs; 0.1 to 0.4, which they advise for ImageNet, changes less of a training
# as short as this one.
MIXUP_ALPHA = 0.2
DROP_PATH = 0.2  # of DARTS (Liu et al. 2019), which has 600 epochs and networks of 20 cells
SMOOTHING = 0.1  # Szegedy et al. 2016
LONGER = 3

BASE = Pipeline(
    "base",
    optimizer="sgd",
    learning_rate=LEARNING_RATE,
    epochs=EPOCHS,
    batch_size=BATCH_SIZE,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
)
COSINE = replace(BASE, name="+cosine", schedule="cosine")
LADDER = (
    BASE,
    COSINE,
    replace(COSINE, name="+cutout", cutout=CUTOUT_SIDE),
    replace(COSINE, name="+mixup", mixup=MIXUP_ALPHA),
    replace(COSINE, name="+drop-path", drop_path=DROP_PATH),
    replace(
        COSINE,
        name="+all",
        cutout=CUTOUT_SIDE,
        mixup=MIXUP_ALPHA,
        drop_path=DROP_PATH,
        label_smoothing=SMOOTHING,
    ),
    replace(COSINE, name="long", epochs=LONGER * EPOCHS),
)
"""Pipelines that differ by ingredients: all but `base` anneal by a cosine. None flips images, as digits forbid."""

# For small recurrent language models: gradients as short as ENAS and DARTS shorten theirs (Pham et al. 2018; Liu et
# al. 2019), without which some cells diverge, at the rate of a pilot, as theirs is for 10,000 words.
TEXT = Pipeline(
    "text",
    optimizer="sgd",
    learning_rate=0.5,
    epochs=4,
    batch_size=32,
    schedule="cosine",
    momentum=0.9,
    nesterov=True,
    clip_norm=0.25,
)

PIPELINES: Mapping[str, Pipeline] = {p.name: p for p in (ADAM, SGD_COSINE, FCNET, FREE, *LADDER, FCNET_20, TEXT)}
"""By name; the first that opens what a space asks for is that space's default. New ones come last."""


def check_pipeline(pipeline: Pipeline) -> None:
    """Refuse values out of range, and combinations that have no meaning.

    Raises:
        ValueError: One line, which names the field and what is allowed.
    """
    p = pipeline
    cosine, sgd = p.schedule == "cosine", p.optimizer == "sgd"
    rules: tuple[tuple[str, bool, str], ...] = (
        ("optimizer", p.optimizer in ("adam", "sgd"), "adam, sgd"),
        ("learning_rate", 0 < p.learning_rate < inf, "finite numbers > 0"),
        ("epochs", _whole(p.epochs, 1), "integers >= 1"),
        ("batch_size", _whole(p.batch_size, 1), "integers >= 1"),
        ("schedule", p.schedule in ("constant", "cosine"), "constant, cosine"),
        ("momentum", 0 <= p.momentum < 1, "numbers in [0, 1)"),
        ("nesterov", not (p.nesterov and sgd) or p.momentum > 0, "False without momentum"),
        ("weight_decay", 0 <= p.weight_decay < inf, "finite numbers >= 0"),
        (
            "restart",
            p.restart == 0 or (cosine and _whole(p.restart, 1)),
            "0, and integers >= 1 with schedule = cosine",
        ),
        ("restart_factor", _whole(p.restart_factor, 1), "integers >= 1"),
        (
            "final_learning_rate",
            p.final_learning_rate == 0 or (cosine and 0 < p.final_learning_rate <= p.learning_rate),
            "0, and numbers up to learning_rate with schedule = cosine",
        ),
        ("clip_norm", 0 <= p.clip_norm < inf, "finite numbers >= 0"),
        ("label_smoothing", 0 <= p.label_smoothing < 1, "numbers in [0, 1)"),
        ("dropout", 0 <= p.dropout < 1, "numbers in [0, 1)"),
        ("drop_path", 0 <= p.drop_path < 1, "numbers in [0, 1)"),
        ("cutout", _whole(p.cutout, 0), "integers >= 0"),
        ("mixup", 0 <= p.mixup < inf, "finite numbers >= 0"),
        ("cutmix", 0 <= p.cutmix < inf and not (p.cutmix and p.mixup), "finite numbers >= 0, and 0 with mixup > 0"),
        ("policy", p.policy in ("", "auto_augment", "trivial_augment"), "'', 'auto_augment', 'trivial_augment'"),
    )
    for field, fine, allowed in rules:
        if not fine:
            raise ValueError(f"pipeline.{field}: {getattr(p, field)!r} of {p.name!r}; allowed: {allowed}")


def _whole(value: float, least: int) -> bool:
    return value >= least and value % 1 == 0


def pipeline_for(name: str | None, genes: Mapping[str, Json]) -> Pipeline:
    """The named pipeline, or the first that opens the fields that are genes of an architecture.

    Args:
        name: Registered name, or None.
        genes: `training(a)` of a member of the space.

    Raises:
        ValueError: Unknown name, or the pipeline keeps closed what is a gene.
    """
    if name is not None and name not in PIPELINES:
        close = get_close_matches(name, PIPELINES, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"pipeline: {name!r} is not one of {', '.join(PIPELINES)}{hint}")
    fitting = {p.name: p for p in PIPELINES.values() if set(genes) <= set(p.open)}
    if not fitting or (name or next(iter(fitting))) not in fitting:
        closed = f"{name!r} does not open" if name else "none opens"
        allowed = ", ".join(fitting) or "none"
        raise ValueError(f"pipeline: {closed} {', '.join(sorted(genes))} to the architecture; allowed: {allowed}")
    return fitting[name] if name else next(iter(fitting.values()))
