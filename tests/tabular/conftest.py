"""One small table, trained for real: 8 perceptrons x 5 seeds x 10 epochs on the digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasbed.tabular import builder

SPEC = builder.Spec("tiny", "mlp[hidden=1;widths=8,16;dropout=no]", "digits", ("adam",), 5)


@pytest.fixture(scope="session")
def spec() -> builder.Spec:
    return SPEC


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builder.build(SPEC, tmp_path_factory.mktemp("built") / "tiny")
