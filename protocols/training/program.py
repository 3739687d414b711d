"""Convolutional networks as programs: what `machine` runs.

A program is a table of instructions over values, which are (channels, height, width) per example. Compiling one follows
the network's own forward function (torch.fx), fuses ReLU, convolution and batch normalisation, turns sums into
instructions that add to one value, and leaves out what cannot reach the output: an edge without an operation, and
whatever nothing but such edges reads. The gradient of what is left out is exactly zero, as it is in the reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import add

import numpy as np
import torch
from torch import fx, nn

from . import machine as m
from .kernels import EPSILON, MOMENTUM


class UnsupportedError(TypeError):
    """The network has a layer, or a way of using it, that programs do not know."""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled network; places are counted in numbers per example, but those of parameters and statistics.

    Attributes:
        code: Instructions, int64 (n, `machine.COLUMNS`).
        parameters: Names and shapes, in the order of `network.parameters()`, laid out one after the other.
        statistics: Names of batch normalisations and channels: running means, then running variances of each.
        values: Numbers per example of all values together.
        saved: The same of what the backward pass needs.
        scratch: The same of a padded input.
        inverse: Channels of all batch normalisations together.
        output: Place of the logits.
        classes: Number of logits.
        paths: Number of paths that can be dropped.
        features: Number of inputs of the classifier.
    """

    code: np.ndarray
    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    statistics: tuple[tuple[str, int], ...]
    values: int
    saved: int
    scratch: int
    inverse: int
    output: int
    classes: int
    paths: int
    features: int


@dataclass(frozen=True, slots=True)
class _Value:
    place: int
    shape: tuple[int, int, int]


@dataclass(slots=True)
class _Pending:
    """A sum that is not computed yet: instructions without a target, and their shape."""

    lines: list[dict[int, int]]
    shape: tuple[int, int, int]


@dataclass(slots=True)
class _Compiler:
    network: nn.Module
    places: dict[str, int]
    statistics: dict[str, int]
    path: dict[nn.Module, int]
    code: list[dict[int, int]] = field(default_factory=list)
    values: int = 0
    saved: int = 0
    scratch: int = 1
    inverse: int = 0

    def value(self, shape: tuple[int, int, int]) -> _Value:
        made = _Value(self.values, shape)
        self.values += int(np.prod(shape))
        return made

    def place(self, pending: _Pending | _Value) -> _Value:
        """Compute a sum; one that is a mere copy is the value itself."""
        if isinstance(pending, _Value):
            return pending
        if len(pending.lines) == 1 and pending.lines[0][m.OP] == m.COPY:
            return _Value(pending.lines[0][m.SOURCE], pending.shape)
        made = self.value(pending.shape)
        for line in pending.lines:
            self.code.append({**line, m.TARGET: made.place})
        return made

    def line(self, op: int, source: _Value, out: tuple[int, int, int], **columns: int) -> _Pending:
        (c, h, w), (k, y, x) = source.shape, out
        base = {m.OP: op, m.SOURCE: source.place, m.INPUTS: c, m.IN_HEIGHT: h, m.IN_WIDTH: w, m.OUTPUTS: k,
                m.OUT_HEIGHT: y, m.OUT_WIDTH: x, m.KERNEL: 1, m.STRIDE: 1, m.PATH: -1,
                m.NEEDED: int(source.place > 0)}  # fmt: skip
        return _Pending([base | {getattr(m, name): value for name, value in columns.items()}], out)

    def conv(self, name: str, layer: nn.Conv2d, source: _Value, *, relu: bool) -> _Pending:
        kernel, stride = layer.kernel_size[0], layer.stride[0]
        known = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.bias)
        if known[2:] != ((kernel // 2,) * 2, (1, 1), 1, None) or (kernel, stride) not in ((3, 1), (3, 2), (1, 1)):
            raise UnsupportedError(f"{name}: {layer} is no convolution of 3x3, or of 1x1 and stride 1, without bias")
        if known[0] != (kernel,) * 2 or known[1] != (stride,) * 2:
            raise UnsupportedError(f"{name}: {layer} is not square")
        c, h, w = source.shape
        out = (layer.out_channels, -(-h // stride), -(-w // stride))
        self.scratch = max(self.scratch, c * (h + kernel - 1) * (w + kernel - 1), int(np.prod(out)))
        made = self.line(
            m.CONV, source, out,
            KERNEL=kernel, STRIDE=stride, RECTIFY=int(relu), WEIGHT=self.places[f"{name}.weight"], SAVED=self.saved,
        )  # fmt: skip
        self.saved += int(np.prod(out))
        return made

    def norm(self, name: str, layer: nn.BatchNorm2d, pending: _Pending | _Value) -> _Pending:
        if (layer.eps, layer.momentum, layer.affine, layer.track_running_stats) != (EPSILON, MOMENTUM, True, True):
            raise UnsupportedError(f"{name}: {layer} has other constants than torch's defaults")
        if isinstance(pending, _Value) or len(pending.lines) != 1 or pending.lines[0][m.OP] != m.CONV or (
            pending.lines[0].get(m.NORMALISE)
        ):  # fmt: skip
            source = self.place(pending)
            pending = self.line(m.NORM, source, source.shape, SAVED=self.saved)
            self.scratch = max(self.scratch, int(np.prod(source.shape)))
            self.saved += int(np.prod(source.shape))
        pending.lines[0] |= {
            m.NORMALISE: 1, m.SCALE: self.places[f"{name}.weight"], m.STATISTICS: self.statistics[name],
            m.INVERSE: self.inverse,
        }  # fmt: skip
        self.inverse += layer.num_features
        return pending

    def module(self, name: str, layer: nn.Module, given: _Pending | _Value, *, relu: bool) -> _Pending | _Value:
        """The result of a layer, given its input (`relu`: with ReLU still to be applied)."""
        if isinstance(layer, nn.BatchNorm2d) and not relu:
            return self.norm(name, layer, given)
        source = self.place(given)
        c, h, w = source.shape
        if isinstance(layer, nn.Conv2d):
            return self.conv(name, layer, source, relu=relu)
        if relu:
            source = self.place(self.line(m.RELU, source, source.shape))
        if isinstance(layer, nn.AvgPool2d):
            sides = tuple(v if isinstance(v, int) else v[0] for v in (layer.kernel_size, layer.stride, layer.padding))
            if sides == (3, 1, 1) and not layer.count_include_pad:
                self.scratch = max(self.scratch, c * h * w)
                return self.line(m.BOX, source, source.shape)
            if sides == (2, 2, 0) and h % 2 == w % 2 == 0:
                return self.line(m.HALVE, source, (c, h // 2, w // 2))
            raise UnsupportedError(f"{name}: {layer} on {h}x{w} is not known")
        if isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1)):
            return self.line(m.POOL, source, (c, 1, 1))
        if isinstance(layer, nn.Flatten) and h == w == 1:
            return source
        if isinstance(layer, nn.Linear) and h == w == 1 and layer.bias is not None:
            if f"{name}." not in self.classifier():
                raise UnsupportedError(f"{name}: a linear layer before the last one")
            source = self.place(self.line(m.DROP, source, source.shape))
            places = self.places[f"{name}.weight"], self.places[f"{name}.bias"]
            return self.line(m.LINEAR, source, (layer.out_features, 1, 1), WEIGHT=places[0], SCALE=places[1])
        raise UnsupportedError(f"{name}: {type(layer).__name__} is not known")

    def classifier(self) -> list[str]:
        return [f"{n}." for n, layer in self.network.named_modules() if isinstance(layer, nn.Linear)][-1:]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return (type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)) or (
            not list(module.children())
        )  # fmt: skip


def compile_network(network: nn.Module, shape: tuple[int, int, int], paths: list[nn.Module]) -> Program:
    """The program of a network on the meta device.

    Args:
        network: From images (n, *shape) to logits (n, classes).
        shape: Channels, height, width.
        paths: See `ingredients.paths_of`.

    Raises:
        UnsupportedError: It does something that programs do not know.
    """
    try:
        graph = _Tracer().trace(network)
    except (fx.proxy.TraceError, TypeError, ValueError) as error:
        raise UnsupportedError(f"{type(network).__name__}: cannot be traced ({error})") from None
    parameters = tuple((name, tuple(p.shape)) for name, p in network.named_parameters())
    ends = np.cumsum([0, *(int(np.prod(s)) for _, s in parameters)]).tolist()
    norms = tuple((n, x.num_features) for n, x in network.named_modules() if isinstance(x, nn.BatchNorm2d))
    starts = np.cumsum([0, *(2 * c for _, c in norms)]).tolist()
    compiler = _Compiler(
        network,
        dict(zip((name for name, _ in parameters), ends, strict=False)),
        dict(zip((name for name, _ in norms), starts, strict=False)),
        {path: i for i, path in enumerate(paths)},
    )
    output, features = _compile(compiler, graph, shape)
    code = np.array([[line.get(k, 0) for k in range(m.COLUMNS)] for line in compiler.code], np.int64)
    return Program(
        code, parameters, norms, compiler.values, compiler.saved, compiler.scratch, compiler.inverse,
        output.place, output.shape[0], len(paths), features,
    )  # fmt: skip


def _compile(compiler: _Compiler, graph: fx.Graph, shape: tuple[int, int, int]) -> tuple[_Value, int]:
    """Emit the instructions of every node that matters; the value of the logits, and the inputs of the classifier."""
    modules = dict(compiler.network.named_modules())
    users = _users(graph, modules)
    ends = {name: path for module, path in compiler.path.items() for name in [_last(modules, module)]}
    shapes = _shapes(graph, modules, shape)
    found: dict[fx.Node, tuple[_Pending | _Value, bool]] = {}  # true: ReLU is still to be applied
    features = 0
    for node in graph.nodes:
        if node.op == "output":
            result, relu = found[node.args[0]]
            if relu:
                raise UnsupportedError("the output is a ReLU")
            return compiler.place(result), features
        if node.op == "placeholder":
            found[node] = compiler.value(shape), False  # at place 0, also where nothing reads it
            continue
        if not users.get(node):
            continue
        if node.op == "call_module":
            name, layer = str(node.target), modules[str(node.target)]
            if getattr(layer, "is_zero", False):
                found[node] = _Pending([], shapes[node]), False
                continue
            given, relu = found[node.args[0]]
            if isinstance(given, _Pending) and not given.lines and isinstance(layer, (nn.ReLU, nn.AvgPool2d)):
                found[node] = _Pending([], shapes[node]), False
                continue
            found[node] = _layer(compiler, name, layer, given, relu)
            if isinstance(layer, nn.Linear):
                features = layer.in_features
            made = found[node][0]
            if name in ends and isinstance(made, _Pending):
                made.lines[0][m.PATH] = ends[name]
        elif node.op == "call_function" and node.target in (add, torch.add) and len(node.args) == 2:
            found[node] = _sum(compiler, [found[a] for a in node.args]), False
        else:
            raise UnsupportedError(f"{node.op} {node.target}: not known")
        value, relu = found[node]
        if users[node] > 1:
            found[node] = compiler.place(value), relu
    raise UnsupportedError("there is no output")


def _layer(
    compiler: _Compiler, name: str, layer: nn.Module, given: _Pending | _Value, relu: bool
) -> tuple[_Pending | _Value, bool]:
    if isinstance(layer, nn.Identity):
        return given, relu
    if isinstance(layer, nn.ReLU):
        return given, True
    return compiler.module(name, layer, given, relu=relu), False


def _sum(compiler: _Compiler, terms: list[tuple[_Pending | _Value, bool]]) -> _Pending:
    lines: list[dict[int, int]] = []
    for value, relu in terms:
        if relu or isinstance(value, _Value):
            placed = compiler.place(value)
            value = compiler.line(m.RELU if relu else m.COPY, placed, placed.shape)
        lines += value.lines
    return _Pending(lines, terms[0][0].shape)


def _shapes(
    graph: fx.Graph, modules: dict[str, nn.Module], shape: tuple[int, int, int]
) -> dict[fx.Node, tuple[int, int, int]]:
    """Shape (channels, height, width) of every node, also of those that are not computed."""
    found: dict[fx.Node, tuple[int, int, int]] = {}
    for node in graph.nodes:
        c, h, w = found[node.args[0]] if node.args and node.args[0] in found else shape
        layer = modules[str(node.target)] if node.op == "call_module" else None
        stride = getattr(layer, "stride", 1)
        stride = stride if isinstance(stride, int) else stride[0]
        if isinstance(layer, nn.AvgPool2d) and stride == 2:
            h, w = h // 2, w // 2
        elif isinstance(layer, (nn.AdaptiveAvgPool2d, nn.Linear)):
            h = w = 1
        else:
            h, w = -(-h // stride), -(-w // stride)
        c = getattr(layer, "out_channels", getattr(layer, "out_features", c))
        found[node] = c, h, w
    return found


def _users(graph: fx.Graph, modules: dict[str, nn.Module]) -> dict[fx.Node, int]:
    """How many nodes that matter read each node; none reads what nothing but zeros follow."""
    users: dict[fx.Node, int] = {}
    for node in reversed(list(graph.nodes)):
        zero = node.op == "call_module" and getattr(modules[str(node.target)], "is_zero", False)
        if node.op == "output" or (users.get(node) and not zero):
            for source in node.all_input_nodes:
                users[source] = users.get(source, 0) + 1
    return users


def _last(modules: dict[str, nn.Module], module: nn.Module) -> str:
    """Name of the layer that gives a module's output."""
    name = next(n for n, m_ in modules.items() if m_ is module)
    while isinstance(module, nn.Sequential):
        name, module = f"{name}.{len(module) - 1}", module[-1]
    return name
