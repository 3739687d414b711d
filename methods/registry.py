"""Methods by name: discovered in-tree, by entry point, or named directly as `package.module:attribute`."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

from ..protocols import SearchSpace
from . import estimators, spaces, strategies

Role = Literal["spaces", "strategies", "estimators"]

FIELDS: Mapping[Role, str] = {"spaces": "space", "strategies": "strategy", "estimators": "estimator"}
"""What error messages call one of each role."""

_HOMES: Mapping[Role, ModuleType] = {"spaces": spaces, "strategies": strategies, "estimators": estimators}


def names(role: Role) -> tuple[str, ...]:
    """Registered names, in-tree ones first; nothing is imported."""
    in_tree = sorted(m.name for m in pkgutil.iter_modules(_HOMES[role].__path__))
    return (*in_tree, *sorted({e.name for e in entry_points(group=f"nasbed.{role}")} - set(in_tree)))


def load(role: Role, name: str) -> Any:
    """The class or function registered under a name.

    Args:
        role: Which dimension of the survey.
        name: A registered name, or `package.module:attribute`.

    Raises:
        ValueError: Unknown name; the message lists the allowed ones and the closest.
    """
    field = FIELDS[role]
    if ":" in name:
        return _direct(field, name)
    if name in {m.name for m in pkgutil.iter_modules(_HOMES[role].__path__)}:
        module = importlib.import_module(f"{_HOMES[role].__name__}.{name}")
        return getattr(module, module.__all__[0])
    for entry in entry_points(group=f"nasbed.{role}"):
        if entry.name == name:
            return entry.load()
    raise ValueError(unknown(field, name, names(role)))


def _direct(field: str, name: str) -> Any:
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        raise ValueError(f"{field}: {name!r} is not of the form package.module:attribute")
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ValueError(f"{field}: {name!r}: there is no module {error.name!r} on the Python path") from None
    except AttributeError:
        raise ValueError(f"{field}: {name!r}: the module {module!r} has no {attribute!r}") from None
    if not callable(found):
        raise ValueError(f"{field}: {name!r} is neither a class nor a function")
    if field == "strategy" and not (
        hasattr(found, "train_epoch") or (hasattr(found, "ask") and hasattr(found, "tell"))
    ):
        raise ValueError(f"{field}: {name!r} has neither ask and tell nor train_epoch")
    return found


def space(name: str) -> SearchSpace:
    """The space of a full name: `name`, `name[key=value,value;key=value]`, or `wrapper(name)[key=value]`.

    >>> space("mlp[hidden=2;widths=8,16;dropout=no]").size
    72
    """
    base, options = split_name(name)
    found: SearchSpace = load("spaces", base).from_options(options)
    return found


def family(name: str) -> str:
    """A space's name without its restrictions, those of wrapped spaces included.

    >>> family("stacked(nb201[ops=none,skip_connect])[channels=8,16]")
    'stacked(nb201)'
    """
    return re.sub(r"\[[^\[\]]*\]", "", name)


def split_name(text: str) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Read `name[key=value,value;key=value]`, the syntax of restrictions and of parameters.

    What stands in parentheses, as in `wrapper(name)[key=value]`, is the option `of`.

    >>> split_name("nb201[ops=none,skip_connect]")
    ('nb201', {'ops': ('none', 'skip_connect')})
    >>> split_name("stacked(nb201[ops=none,skip_connect])")
    ('stacked', {'of': ('nb201[ops=none,skip_connect]',)})
    """
    match = re.fullmatch(r"([^\[\]()]+)(?:\((.+)\))?(?:\[([^\[\]]*)\])?", text.strip())
    if not match:
        raise ValueError(f"name: {text!r} is not of the form NAME or NAME[KEY=VALUE,VALUE;KEY=VALUE]")
    options: dict[str, tuple[str, ...]] = {} if match[2] is None else {"of": (match[2].strip(),)}
    for part in filter(None, (match[3] or "").split(";")):
        key, equals, values = part.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise ValueError(f"name: {part!r} in {text!r} is not of the form KEY=VALUE,VALUE")
        options[key.strip()] = tuple(v.strip() for v in values.split(","))
    return match[1].strip(), options


def parameters(method: Any, given: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Check the parameters meant for a strategy or estimator against its signature.

    Text values, as they come from the command line, are read as Python literals where they are some.

    Raises:
        ValueError: A parameter that the method does not have.
    """
    signature = inspect.signature(method)
    allowed = {
        n: p
        for n, p in signature.parameters.items()
        if n not in ("space", "setting", "seed", "self") and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    for key in given:
        if key not in allowed:
            raise ValueError(unknown(f"{label}: parameter", key, tuple(allowed)))
    return {key: _literal(value) for key, value in given.items()}


def _literal(value: Any) -> Any:
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "yes", "false", "no"):
        return value.lower() in ("true", "yes")
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def code_digest(method: Any) -> str:
    """First 16 hex digits of the sha256 of the file that defines the method: its version in run keys."""
    try:
        source = inspect.getsourcefile(inspect.unwrap(method))
    except TypeError:  # built in
        source = None
    if source is None:
        raise ValueError(f"{method!r} has no source file, so its runs could not be told apart from other versions")
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]


def summary(role: Role, name: str) -> str:
    """First line of a registered method's docstring, read without importing it."""
    home = _HOMES[role]
    path = Path(cast(str, home.__file__)).parent / f"{name}.py"
    if not path.exists():
        return "registered by an installed package"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def unknown(field: str, value: str, allowed: tuple[str, ...]) -> str:
    """One line: the field, the value, the allowed values, and a did-you-mean."""
    close = get_close_matches(value, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{field}: {value!r} is not one of {', '.join(allowed) or 'none'}{hint}"
