"""`nasbed space`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Json, print_json, say, usage

if TYPE_CHECKING:
    from ..protocols import Architecture, SearchSpace, Task

_EXAMPLES = """
\b
Examples:
  nasbed space nb201
  nasbed space "fcnet[batch_size=32,64]" --seed 7
  nasbed space "stacked(darts)" --draw cell.svg
  nasbed space mlp --architecture "64-relu/32-tanh" --json
"""


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("space", epilog=_EXAMPLES)(show)


def show(
    name: Annotated[str, typer.Argument(help="Full name of a search space; `nasbed list spaces` lists them.")],
    architecture: Annotated[
        str | None, typer.Option(help="In the space's notation or as a value; default: a random one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random architecture.", min=0)] = 0,
    picture: Annotated[Path | None, typer.Option("--draw", help="Write the architecture's picture (SVG) here.")] = None,
    as_json: Json = False,
) -> None:
    """What a search space is, and one architecture of it: size, moves, cost, picture.

    The random architecture is the one that `nasbed train` draws with the same seed.
    """
    from ..methods import registry
    from ..protocols.streams import generator

    with usage():
        space = registry.space(name)
        a = read(space, architecture) if architecture else space.sample(generator(seed, "train-command", space.family))
        task, features = _features(space, a)
        found = _facts(space, a) | {"task": task.name, "features": dict(features)}
        if picture:
            try:
                picture.write_text(space.draw(a), encoding="utf-8")
            except OSError as error:
                raise ValueError(f"draw: {picture} cannot be written ({error.strerror})") from error
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        if key == "features":
            shown = ", ".join(f"{name} {amount:,.0f}" for name, amount in features.items() if amount)
            say(f"{'features:':<18} {shown}")
        else:
            text = f"{value:,}" if isinstance(value, int) else _listed(value)
            say(f"{key.replace('_', ' ') + ':':<18} {text}")
    if picture:
        say(f"{'picture:':<18} {picture}")


def read(space: SearchSpace, text: str) -> Architecture:
    """An architecture in the space's notation, or as a value, `nb201:3.3.1.0.4.2`; ValueError names what is wrong."""
    from ..protocols import Architecture

    if not text.startswith(f"{space.family}:"):
        return space.parse(text)
    a = Architecture.parse(text)
    space.check(a)
    return a


def _facts(space: SearchSpace, a: Architecture) -> dict[str, Any]:
    canonical = space.canonical(a)
    return {
        "name": space.name,
        "size": space.size if space.size is not None else "infinite",
        "levels": list(space.levels),
        "encodings": {name: len(space.encode(a, name)) for name in space.encodings},
        "architecture": space.text(a),
        "value": str(a),
        "canonical": "itself" if canonical == a else space.text(canonical),
        "neighbours": len(space.neighbours(a)),
        "training": dict(space.training(a)) or "the pipeline's",
    }


def _listed(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {number}" for key, number in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _features(space: SearchSpace, a: Architecture) -> tuple[Task, Any]:
    """Features on small colour images, or on text where the space has no networks for images."""
    from ..protocols import Task

    images = Task("images of 3x32x32 pixels, 10 classes", "image", "accuracy", True, (3, 32, 32), 10, "")
    text = Task("text of 35 words, vocabulary of 10,000", "text", "perplexity", False, (35,), 10_000, "")
    try:
        return images, space.features(a, images)
    except ValueError:
        return text, space.features(a, text)
