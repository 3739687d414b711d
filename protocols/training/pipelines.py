"""Registered pipelines: fixed ways of training, compared only with themselves."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

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

PIPELINES: Mapping[str, Pipeline] = {p.name: p for p in (ADAM, SGD_COSINE, FCNET, FREE)}
"""By name; the first that opens what a space asks for is that space's default."""


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
