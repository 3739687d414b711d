"""Where and with what a study was run: enough to repeat it, nothing that identifies a person."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distributions, version

from ..protocols import Json

_ENVIRONMENT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES",
                "PYTHONHASHSEED", "ATEN_CPU_CAPABILITY")  # fmt: skip
_PACKAGES = ("nasbed", "torch", "torchvision", "numpy", "scipy", "pandas", "matplotlib", "mlflow", "optuna",
             "scikit-learn")  # fmt: skip


def own_version() -> str:
    """The installed version of nasbed."""
    try:
        return version("nasbed")
    except PackageNotFoundError:
        return "not installed"


def provenance() -> dict[str, Json]:
    """Versions, machine and code state, as JSON; an allow-list of the environment, never all of it."""
    installed = sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions() if d.metadata["Name"]})
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "nasbed": own_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "packages": {n: _installed(n) for n in _PACKAGES},
        "all_packages_sha256": hashlib.sha256("\n".join(installed).encode()).hexdigest(),
        "environment": {k: os.environ[k] for k in _ENVIRONMENT if k in os.environ},
        "git": _git(),
        "python_implementation": sys.implementation.name,
    }


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"


def _git() -> dict[str, Json] | None:
    """State of the checkout that the command was run in, if it is one."""

    def git(*arguments: str) -> bytes:  # a diff is text in whatever encoding its files have
        return subprocess.run(["git", *arguments], capture_output=True, timeout=10, check=True).stdout

    try:
        commit, diff = git("rev-parse", "HEAD").decode("ascii").strip(), git("diff", "--no-ext-diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(diff), "diff_sha256": hashlib.sha256(diff).hexdigest()}
