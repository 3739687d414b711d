"""`nasbed list`, `train`, `check`, `doctor`."""

from __future__ import annotations

from math import isfinite, nan
from pathlib import Path
from typing import Annotated, Any

import typer

from .cli_space import read
from .console import FAILED, OK, Json, print_json, progress, remark, say, stop, usage


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("list", epilog="Example: nasbed list strategies")(list_names)
    app.command(epilog='Example: nasbed train --space mlp --data digits --architecture "64-relu/32-tanh"')(train)
    app.command(epilog="Example: nasbed check strategy my_pkg.mod:MyStrategy")(check)
    app.command(epilog="Example: nasbed doctor --json")(doctor)


def list_names(
    what: Annotated[
        str | None, typer.Argument(help="strategies, estimators, spaces, tables, data or pipelines.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What is registered, with a line on each."""
    from ..methods import registry
    from ..tabular import embedded, open_table

    roles: tuple[registry.Role, ...] = ("strategies", "estimators", "spaces")
    found: dict[str, dict[str, str]] = {r: {n: registry.summary(r, n) for n in registry.names(r)} for r in roles}
    found["tables"] = {n: open_table(n).manifest.get("summary", "") for n in embedded()}
    kinds = (*found, "data", "pipelines")
    if what is not None and what not in kinds:
        stop(registry.unknown("list", what, kinds), 2)
    if what in (None, "data", "pipelines"):
        from ..protocols.training import DATASETS, PIPELINES

        found["data"] = {n: (f.__doc__ or "").partition("\n")[0] for n, f in DATASETS.items()}
        found["pipelines"] = {n: f"{p.optimizer}, {p.epochs} epochs, {p.schedule}" for n, p in PIPELINES.items()}
    chosen = found if what is None else {what: found[what]}
    if as_json:
        print_json(chosen)
        return
    width = max(len(name) for entries in chosen.values() for name in entries)
    for kind, entries in chosen.items():
        say(f"{kind}:")
        for name, line in entries.items():
            say(f"  {name:<{width}} {line}")


def train(
    space: Annotated[str, typer.Option(help="Search space.")],
    data: Annotated[str, typer.Option(help="Data set, or text:PATH.")],
    architecture: Annotated[
        str | None, typer.Option(help="In the space's notation or as a value; default: a random one.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Training pipeline; default: the first that the architecture can be trained by.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of training, and of the random architecture.", min=0)] = 0,
    data_root: Annotated[Path | None, typer.Option(help="Folder of data sets that are not embedded.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Train one architecture for real and show its learning curve. Test data stay sealed."""
    from ..methods import registry

    with usage():
        searched = registry.space(space)
    from ..protocols import FULL, Setting
    from ..protocols.streams import generator
    from ..protocols.training import ReferenceTrainer, constant_prediction, load, pipeline_for

    with usage():
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(registry.unknown("device", device, ("auto", "cpu", "cuda")))
        view = load(data, data_root)
        rng = generator(seed, "train-command", searched.family)
        a = read(searched, architecture) if architecture else searched.sample(rng)
        features = searched.features(a, view.task)
        trainer = ReferenceTrainer(searched, device=device)
        chosen = pipeline_for(pipeline, searched.training(a))
        setting = Setting(view.task, "flops", chosen, lambda _: seed, data=view, trainer=trainer)
        # Builds the network and counts a pass through it: what space, data or pipeline refuse is said now.
        trainer.cost(a, setting, FULL)
    with progress("epochs") as step:
        trainer.progress = step
        curve, _ = trainer.train(a, setting, seed=seed, fidelity=FULL)
    task, constant = view.task, constant_prediction(view)
    result = {
        "architecture": searched.text(a),
        "data": data,
        "pipeline": chosen.name,
        "seed": seed,
        "params": features["params"],
        "metric": task.metric,
        "train": [v if isfinite(v) else None for v in curve.train],
        "valid": [v if isfinite(v) else None for v in curve.valid],
        "flops": curve.flops,
        "chance": constant,
    }
    if as_json:
        print_json(result)
        return
    say(f"{result['architecture']}: {features['params']:.0f} parameters, {curve.flops:.4g} training FLOPs")
    say(f"metric: {task.metric}, {'higher' if task.higher_is_better else 'lower'} is better; pipeline: {chosen.name}")
    say(f"constant prediction: valid {constant:.4f}")
    for epoch, (t, v) in enumerate(zip(curve.train or (nan,) * len(curve.valid), curve.valid, strict=True), start=1):
        bar = f"  {'#' * round(40 * v)}" if task.metric == "accuracy" else ""
        say(f"epoch {epoch:>3}  train {t:.4f}  valid {v:.4f}{bar}")


def check(
    role: Annotated[str, typer.Argument(help="strategy, space or estimator.")],
    name: Annotated[str, typer.Argument(help="A registered name, or pkg.mod:attribute.")],
    as_json: Json = False,
) -> None:
    """Run the conformance checks on a strategy, a space or an estimator, registered or your own."""
    from ..methods import registry
    from .checks import check_estimator, check_space, check_strategy

    with usage():
        if role not in ("strategy", "space", "estimator"):
            raise ValueError(registry.unknown("role", role, ("strategy", "space", "estimator")))
        if role == "space":
            results = check_space(registry.space(name))
        else:
            base, options = registry.split_name(name)
            subject = registry.load("strategies" if role == "strategy" else "estimators", base)
            params = registry.parameters(subject, options, f"{role} {base!r}")
            results = (check_strategy if role == "strategy" else check_estimator)(subject, params=params)
    if as_json:
        print_json([{"name": r.name, "passed": r.passed, "detail": r.detail} for r in results])
    else:
        for r in results:
            word = "pass" if r.passed else "skip" if r.passed is None else "FAIL"
            say(f"{word}  {r.name}{': ' + r.detail if r.detail else ''}")
    raise typer.Exit(FAILED if any(r.passed is False for r in results) else OK)


def doctor(as_json: Json = False) -> None:
    """Look at the installation: versions, torch and torchvision, tables, disk."""
    import importlib
    import shutil

    from ..tabular import embedded, open_table
    from .provenance import provenance

    found: dict[str, dict[str, Any]] = {}

    def note(name: str, ok: bool, detail: str) -> None:
        found[name] = {"ok": ok, "detail": detail}

    for name in ("torch", "torchvision", "mlflow", "numpy", "scipy", "pandas", "sklearn", "matplotlib", "seaborn"):
        try:
            note(name, True, str(getattr(importlib.import_module(name), "__version__", "?")))
        except Exception as error:
            hint = ""
            if name == "torchvision" and "operator" in str(error):
                hint = "; torch and torchvision are of different builds: reinstall both from the same source"
            note(name, False, f"{type(error).__name__}: {error}{hint}")
    if found["torch"]["ok"]:
        import torch

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        note("gpu", True, gpu)
    for name in embedded():
        try:
            note(f"table {name}", True, f"digest {open_table(name, verify=True).digest[:16]}, hashes correct")
        except ValueError as error:
            note(f"table {name}", False, str(error))
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    note("disk", free > 1, f"{free:.1f} GiB free here")
    facts = provenance()
    note("machine", True, f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, {facts['system']}")
    if as_json:
        print_json(found)
    else:
        for name, entry in found.items():
            say(f"{'ok  ' if entry['ok'] else 'BAD '} {name}: {entry['detail']}")
    bad = [n for n, e in found.items() if not e["ok"]]
    if bad:
        remark(f"not in order: {', '.join(bad)}")
    raise typer.Exit(FAILED if bad else OK)
