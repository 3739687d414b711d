"""Write docs/spaces.md and its drawings from the spaces themselves: `python docs/make_spaces.py`."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nasbed.methods import registry
from nasbed.protocols import SearchSpace
from nasbed.protocols.streams import generator

HERE = Path(__file__).parent

HEAD = """# Search spaces

Every space has an exact size, uniform samples, edits of one thing, symmetric neighbours, canonical forms, encodings,
networks, a text form that is read back, and pictures; `nasbed check space NAME` checks it. A name in brackets is a
restriction or another size of a space, and itself a space: `nb201[ops=none,skip_connect,nor_conv_3x3]`. The two
wrappers, `stacked` and `with_pipeline`, take another space: `stacked(darts)`.

```sh
nasbed space darts                      # size, encodings, and an architecture with its cost
nasbed space darts --draw cell.svg      # its picture
nasbed train --space darts --data digits --seed 0
```

```python
from nasbed.methods import registry

space = registry.space("fcnet[batch_size=32,64]")
configurations = space.to_configspace()  # python -m pip install 'nasbed[configspace]'
a = space.from_configspace(dict(configurations.sample_configuration()))
space.draw(a)  # a notebook shows the picture
```

Sizes count members, that is genotypes; classes of equal function are fewer. *Levels* are canonical forms, the default
first: members of one default form are the same function of the same parameters up to names, which the checks show on
networks with shared weights. What the other levels claim stands in the docstring of the space. This page is
written by `python docs/make_spaces.py`; the architectures drawn are the ones
that the commands above draw with seed 0.

"""


def pages() -> dict[str, str]:
    """Every file that this script writes, by its path under docs/."""
    names = registry.names("spaces")
    found = {}
    rows = ["| space | members | what |", "|---|---|---|"]
    sections = []
    for name in names:
        space = registry.space(name)
        a = space.sample(generator(0, "train-command", space.family))
        found[f"spaces/{name}.svg"] = str(space.draw(a)) + "\n"
        rows.append(f"| [{space.name}](#{name}) | {_size(space)} | {registry.summary('spaces', name)} |")
        sections.append("\n".join(_section(name, space, a)))
    found["spaces.md"] = HEAD + "\n".join(rows) + "\n\n" + "\n\n".join(sections) + "\n"
    return found


def _section(name: str, space: SearchSpace, a: Any) -> Iterator[str]:
    module = importlib.import_module(f"nasbed.methods.spaces.{name}")
    yield f"## {name}\n"
    yield inspect.cleandoc(ast.get_docstring(ast.parse(inspect.getsource(module))) or "") + "\n"
    yield f"![A random architecture of {space.name}](spaces/{name}.svg)\n"
    yield "| | |\n|---|---|"
    yield f"| members | {_size(space)} |"
    yield f"| drawn | `{_escaped(space.text(a))}` |"
    yield f"| neighbours of it | {len(space.neighbours(a)):,} |"
    yield f"| levels | {', '.join(space.levels)} |"
    yield f"| encodings | {', '.join(f'{e} ({len(space.encode(a, e)):,})' for e in space.encodings)} |"
    yield f"| options | {_options(type(space))} |"


def _size(space: SearchSpace) -> str:
    if space.size is None:
        return "infinite"
    return f"{space.size:,}" if space.size < 10**16 else f"{float(space.size):.4g}, exactly {space.size}"


def _options(kind: type) -> str:
    shown = []
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.default is not parameter.empty:
            default = parameter.default
            text = ",".join(map(str, default)) if isinstance(default, (tuple, list)) else str(default)
            shown.append(f"`{parameter.name}` ({text})" if text else f"`{parameter.name}`")
    return ", ".join(shown) or "none"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    for path, text in pages().items():
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_text(text, encoding="utf-8")
