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

PIPELINES: Mapping[str, Pipeline] = {p.name: p for p in (ADAM, SGD_COSINE)}
