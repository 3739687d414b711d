"""Write docs/audit.md from the audits of the embedded tables: `python docs/make_audit.py`.

The audits are those of the commands that the page names; they take a few minutes. `--from DIR` reads finished ones.
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
    text = (HERE / "audit_prose.md").read_text(encoding="utf-8")
    parts = {
        "ESTIMATORS": "\n".join(estimators(table)),
        "NOISE": "\n".join(noise(table)),
        "FIDELITIES": "\n".join(fidelities(table)),
        "PIPELINES": found["pipelines"]["answer"],
        "WITHOUT": found["without"]["answer"],
    }
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
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


def main() -> None:
    """Make the audits, and write the page."""
    if sys.argv[1:2] == ["--from"]:
        (HERE / "audit.md").write_text(page(run(Path(sys.argv[2]))), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:
        (HERE / "audit.md").write_text(page(run(Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    main()
