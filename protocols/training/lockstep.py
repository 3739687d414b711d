"""Networks of any layers side by side: a symbolic trace, and one stacked layer for every place in it.

The networks are traced (torch.fx), and have to do the same steps. Where all have the same kind of layer, their weights
are joined in one (see `stacked_layers`); where they differ, each group of equal ones computes its own operation on its
own networks. Operations that yield zeros are left out; what lies before them gets gradients of zero, so that weight
decay and momentum act on it as they do in a training alone.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as f

from ..task import Pipeline
from .ingredients import classifier_of, paths_of
from .objectives import Objective
from .stacked import Batch, losses_and_totals
from .stacked_layers import (
    Classifier,
    Convolution,
    Dropped,
    Mixed,
    Noise,
    StackedBatchNorm,
    StackedConv,
    StackedLinear,
)

_CHANNELWISE = (
    nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.ELU, nn.Identity, nn.LeakyReLU, nn.MaxPool2d, nn.ReLU, nn.Sigmoid, nn.SiLU,
    nn.Tanh,
)  # fmt: skip
"""Layers without parameters that treat every channel by itself."""
_WEIGHTED = (nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.Linear)
_FUNCTIONS = {
    operator.add, operator.iadd, operator.mod, operator.mul, torch.add, torch.mul, torch.relu, torch.sigmoid,
    torch.tanh, f.elu, f.relu, f.sigmoid, f.silu, f.tanh,
}  # fmt: skip
"""Functions of numbers, elementwise."""
_METHODS = {"add", "contiguous", "mul", "relu", "sigmoid", "tanh"}
_OF_TORCH = frozenset(vars(nn.Module()))


class Lockstep:
    """A `Stack` (see `stacked`) of networks that are traced.

    Args:
        networks: With their initial weights, on the device to compute on.
        pipeline: Says whether there will be dropped paths and inputs of the classifier.
        convolution: How convolutions are computed; see `stacked_layers`.

    Raises:
        ValueError: A network has a layer or a step that has no stacked form here, or the networks do different steps;
            one line.
    """

    def __init__(self, networks: Sequence[nn.Module], pipeline: Pipeline, convolution: Convolution = "rule") -> None:
        self._k, self._noise = len(networks), Noise()
        weaver = _Weaver(networks, pipeline, convolution, self._noise)
        device = next((t.device for t in networks[0].parameters()), torch.device("cpu"))
        self.module = weaver.woven().to(device)
        self._places = weaver.places
        self._shapes = [{name: t.shape for name, t in n.state_dict().items()} for n in networks]
        for network, shapes in enumerate(self._shapes):
            held = self.state(network)
            if lost := [name for name in shapes if name not in held]:
                raise ValueError(f"networks: {lost[0]!r} takes no part in the computation; a stack cannot hold it")
        self.parameters: Sequence[torch.Tensor] = list(self.module.parameters())
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def gradients(self, x: torch.Tensor, y: torch.Tensor, noise: Batch, objective: Objective) -> torch.Tensor:
        """See `Stack`."""
        self.module.train()
        for parameter in self.parameters:
            assert parameter.grad is not None
            parameter.grad.zero_()
        self._noise.paths, self._noise.units = noise.paths, noise.units
        with torch.enable_grad():
            losses, totals = losses_and_totals(self._outputs(x.transpose(0, 1)), y, objective)
            # The gradient of a sum: no network's loss, not even NaN, touches what the others get.
            losses.sum().backward()  # type: ignore[no-untyped-call]
        return totals

    def totals(self, x: torch.Tensor, y: torch.Tensor, objective: Objective) -> torch.Tensor:
        """See `Stack`."""
        self.module.eval()
        self._noise.paths = self._noise.units = None
        with torch.no_grad():
            outputs = self._outputs(x.unsqueeze(1).expand(-1, self._k, *x.shape[1:]))
            return losses_and_totals(outputs, y.expand(self._k, *y.shape), objective)[1]

    def state(self, k: int) -> dict[str, torch.Tensor]:
        """See `Stack`."""
        found = {}
        for name, layer, members in self._places:
            if k in members:
                row = members.index(k)
                for part, tensor in layer.state_dict().items():
                    found[f"{name}.{part}".removeprefix(".")] = tensor.view(len(members), -1)[row].clone()
        return {name: found[name].reshape(shape) for name, shape in self._shapes[k].items() if name in found}

    def _outputs(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, K, *shape) to (K, batch, outputs)."""
        if x.dim() < 3 or not x.is_floating_point():
            raise ValueError(f"networks: inputs of {x.dim() - 2} axes of {x.dtype}; a stack takes axes of numbers")
        out: torch.Tensor = self.module(x.flatten(1, 2))
        return out.view(len(x), self._k, -1).transpose(0, 1)


class _Tracer(fx.Tracer):
    def __init__(self, places: Sequence[str]) -> None:
        super().__init__()
        self._places = frozenset(places)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._places


class _Weaver:
    """Makes stacked modules of the networks' modules, and notes where their weights went."""

    def __init__(
        self, networks: Sequence[nn.Module], pipeline: Pipeline, convolution: Convolution, noise: Noise
    ) -> None:
        self._networks, self._convolution, self._noise = networks, convolution, noise
        dropped = [paths_of(n) if pipeline.drop_path else [] for n in networks]
        self._paths = [{id(path): row for row, path in enumerate(paths)} for paths in dropped]
        self._classifiers = {id(classifier_of(n)) for n in networks} if pipeline.dropout else set()
        self.places: list[tuple[str, nn.Module, Sequence[int]]] = []

    def woven(self) -> nn.Module:
        """The stack of all networks."""
        return self._place(self._networks, range(len(self._networks)), "")

    def _place(self, peers: Sequence[nn.Module], members: Sequence[int], name: str) -> nn.Module:
        made = self._stacked(peers, members, name)
        rows = [self._paths[k].get(id(peer)) for k, peer in zip(members, peers, strict=True)]
        if any(row is not None for row in rows):
            made = Dropped(made, self._noise, members, rows)
        if any(id(peer) in self._classifiers for peer in peers):
            if len(members) != len(self._networks) or not all(id(peer) in self._classifiers for peer in peers):
                raise ValueError("networks: their classifiers stand at different places; dropout cannot be stacked")
            made = Classifier(made, self._noise)
        return made

    def _stacked(self, peers: Sequence[nn.Module], members: Sequence[int], name: str) -> nn.Module:
        if not _alike(peers):
            return self._mixed(peers, members, name)
        if type(peers[0]) is nn.Sequential:
            return nn.Sequential(*(self._child(peers, members, name, child) for child, _ in peers[0].named_children()))
        if not _is_layer(peers[0]):
            return self._traced(peers, members, name)
        made = _layer(peers, self._convolution)
        if made.state_dict():
            self.places.append((name, made, list(members)))
        return made

    def _mixed(self, peers: Sequence[nn.Module], members: Sequence[int], name: str) -> nn.Module:
        found: dict[object, list[int]] = {}
        for i, peer in enumerate(peers):
            found.setdefault(_kind(peer), []).append(i)
        groups = [
            (rows, self._stacked([peers[i] for i in rows], [members[i] for i in rows], name)) for rows in found.values()
        ]
        computed = [(rows, made) for rows, made in groups if not getattr(peers[rows[0]], "is_zero", False)]
        return Mixed(len(peers), computed or groups)

    def _traced(self, peers: Sequence[nn.Module], members: Sequence[int], name: str) -> nn.Module:
        places = [*self._leaves(peers, members, "")]
        graphs = {_kind(peer): (peer, _trace(peer, places)) for peer in {_kind(p): p for p in peers}.values()}
        graph = next(iter(graphs.values()))[1]
        if len({str(other) for _, other in graphs.values()}) > 1:
            raise ValueError(f"networks: {name or type(peers[0]).__name__} does other steps in some of them")
        called = dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "call_module")
        modules = {target: self._child(peers, members, name, target) for target in called}
        _adapt(graph, len(peers))
        return fx.GraphModule(modules, graph)

    def _child(self, peers: Sequence[nn.Module], members: Sequence[int], name: str, child: str) -> nn.Module:
        return self._place([p.get_submodule(child) for p in peers], members, f"{name}.{child}".removeprefix("."))

    def _leaves(self, peers: Sequence[nn.Module], members: Sequence[int], prefix: str) -> Iterator[str]:
        """Names of the outermost modules that get a stacked one of their own; the trace goes into all others."""
        for child, _ in peers[0].named_children():
            group = [p.get_submodule(child) for p in peers]
            dropped = any(id(m) in self._paths[k] for k, m in zip(members, group, strict=True))
            if dropped or _is_layer(group[0]) or not _alike(group):
                yield prefix + child
            else:
                yield from self._leaves(group, members, f"{prefix}{child}.")


def _is_layer(module: nn.Module) -> bool:
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return type(module).__module__.startswith("torch.nn") and not isinstance(module, containers)


def _alike(peers: Sequence[nn.Module]) -> bool:
    """Whether they are of one class and have the same hyper-parameters and names of children."""
    return len({_own_kind(peer) for peer in peers}) == 1


def _kind(module: nn.Module) -> tuple[object, ...]:
    """Equal for modules that compute the same with other weights, all the way down."""
    return (_own_kind(module), *(_kind(child) for child in module.children()))


def _own_kind(module: nn.Module) -> tuple[object, ...]:
    # A module's `paths` are some of its children: where they differ between networks, the children do.
    own = sorted((k, repr(v)) for k, v in vars(module).items() if k not in _OF_TORCH and k != "paths")
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    shapes = [(name, tuple(tensor.shape)) for name, tensor in tensors]
    return type(module), *own, *shapes, *(name for name, _ in module.named_children())


def _layer(layers: Sequence[nn.Module], convolution: Convolution) -> nn.Module:
    first: Any = layers[0]
    made: Sequence[Any] = layers
    if type(first) is nn.Conv2d:
        return StackedConv(made, convolution)
    if type(first) in (nn.BatchNorm1d, nn.BatchNorm2d):
        return StackedBatchNorm(made)
    if type(first) is nn.Linear:
        return StackedLinear(made)
    if type(first) is nn.Flatten and (first.start_dim, first.end_dim) == (1, -1):
        return nn.Flatten()
    if type(first) is nn.Unflatten and first.dim == 1:
        return nn.Unflatten(1, (len(layers) * first.unflattened_size[0], *first.unflattened_size[1:]))
    if type(first) in _CHANNELWISE and not getattr(first, "return_indices", False):
        return deepcopy(layers[0])
    allowed = ", ".join(sorted(c.__name__ for c in (*_WEIGHTED, *_CHANNELWISE)))
    raise ValueError(f"networks: {first} has no stacked form; allowed: {allowed}, Flatten")


def _trace(module: nn.Module, places: Sequence[str]) -> fx.Graph:
    try:
        graph = _Tracer(places).trace(module)
    except Exception as error:  # whatever its code does with a symbolic value
        raise ValueError(f"networks: {type(module).__name__} cannot be traced: {error}".splitlines()[0]) from error
    for node in graph.nodes:
        if node.op == "call_module" and not node.users:
            raise ValueError(f"networks: what {node.target} computes is not used; a stack cannot hold it")
    return graph


def _adapt(graph: fx.Graph, k: int) -> None:
    """Refuse steps that would mix networks; let concatenations join the channels of each network."""
    for node in graph.nodes:
        if node.op in ("placeholder", "output", "call_module"):
            continue
        if node.op == "call_function" and node.target is torch.cat:
            tensors, dim = (*node.args, node.kwargs.get("dim", 0))[:2]
            if dim == 1:
                node.target, node.args, node.kwargs = side_by_side, (tensors, k), {}
                continue
        if not _keeps_networks_apart(node):
            raise ValueError(f"networks: the step {node.format_node()} has no stacked form")


def _keeps_networks_apart(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _METHODS
    if node.op != "call_function":
        return False
    if node.target is f.pad:
        return len(node.args[1]) <= 4  # type: ignore[arg-type]
    if node.target is getattr:
        return bool(node.args[1] == "shape")
    if node.target is operator.getitem:
        source, index = node.args
        if isinstance(source, fx.Node) and source.target is getattr:  # of a shape: height or width
            return isinstance(index, int) and index in (2, 3, -2, -1)
        return isinstance(index, tuple) and list(index[:2]) == [slice(None)] * 2
    return node.target in _FUNCTIONS


def side_by_side(tensors: Sequence[torch.Tensor], k: int) -> torch.Tensor:
    """Concatenate stacked tensors so that each network's channels stay together."""
    apart = [t.reshape(len(t), k, -1, *t.shape[2:]) for t in tensors]
    return torch.cat(apart, 2).flatten(1, 2)
