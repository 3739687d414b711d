"""What must work where a heavy library is missing: each is made unimportable in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = '''
import sys

class Missing:
    """A finder that does not know some packages. Libraries ask finders, and look into sys.modules, too."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {blocked!r} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Missing(finder) if hasattr(finder, "find_spec") else finder for finder in sys.meta_path]
from nasbed.harness.cli import main
sys.argv = ["nasbed", *{arguments!r}]
main()
'''

SPEC = """
name = "tiny"
space = "mlp[hidden=1;widths=8;activations=relu;dropout=no]"
data = "digits"
pipelines = ["adam"]
seeds = 2
"""


def nasbed(folder: Path, blocked: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKED.format(blocked=blocked, arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_comparison_on_a_table_needs_no_torch(tmp_path: Path) -> None:
    done = nasbed(
        tmp_path, ("torch", "torchvision", "sklearn"), "compare", "--strategies", "random,local_search,aging_evolution",
        "--table", "mlp-digits", "--seeds", "5", "--jobs", "1", "--no-mlflow", "--out", "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("verb", ["train", "build", "verify"])
def test_training_and_building_need_no_mlflow(tmp_path: Path, verb: str) -> None:
    blocked = ("mlflow", "optuna", "matplotlib", "pandas")
    if verb == "train":
        done = nasbed(tmp_path, blocked, "train", "--space", "mlp", "--data", "digits", "--architecture", "64-relu")
        assert "epoch  10" in done.stdout, done.stderr
    elif verb == "build":
        (tmp_path / "tiny.toml").write_text(SPEC)
        done = nasbed(
            tmp_path, blocked, "table", "build", "tiny.toml", "--out", "tiny", "--jobs", "1", "--despite-pilot"
        )
        assert (tmp_path / "tiny" / "manifest.json").is_file(), done.stderr
    else:
        done = nasbed(tmp_path, blocked, "table", "verify", "mlp-digits", "--retrain", "1")
    assert done.returncode == 0, done.stderr
