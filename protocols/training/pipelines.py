"""Registered pipelines: fixed ways of training, compared only with themselves."""

from __future__ import annotations

from collections.abc import Mapping

from ..task import Pipeline

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
