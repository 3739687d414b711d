"""The training pipeline as a gene beside the genes of another space.

Joint architecture and hyper-parameter search (Zela et al. 2018, AutoML workshop; Lindauer & Hutter 2020, JMLR
21(243)) in its smallest form: one of a few fixed pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ...protocols import Architecture, Json, Pipeline, SearchSpace, Task
from .. import registry
from ..categorical import Categorical, check_keys, full_name
from ..wrapper import Wrapper

if TYPE_CHECKING:
    from torch import nn

__all__ = ["WithPipeline"]

_DEFAULT = ("adam", "sgd_cosine")
# What makes a pipeline another one without changing the training.
_LABELS = ("name", "version", "open")


class WithPipeline(Wrapper):
    """A space, and how its members are trained.

    >>> space = WithPipeline(registry.space("nb201[ops=none,skip_connect]"))
    >>> space.name, space.size
    ('with_pipeline(nb201[ops=none,skip_connect])', 128)
    >>> a = space.parse("sgd_cosine | |none~0|+|skip_connect~0|none~1|+|none~0|none~1|none~2|")
    >>> a.genes, space.training(a)["learning_rate"]
    ((1, 0, 1, 0, 0, 0, 0), 0.03)

    The first gene is the pipeline, as its place among the registered ones; those of the inner space follow. Samples
    are uniform over pairs. `training` gives the fields in which the pipelines of the space differ, with the values of
    the chosen one: the study's pipeline must open them, as `free` does, and decides the fields in which they agree.
    Levels are those of the inner space, which has no part in the pipeline.

    Args:
        inner: Any space whose own training hyper-parameters are not among the fields that the pipelines change.
        pipelines: Two or more registered pipelines that leave nothing open.
    """

    def __init__(self, inner: SearchSpace, pipelines: Sequence[str] = _DEFAULT) -> None:
        from ...protocols.training.pipelines import PIPELINES

        places = {name: i for i, name in enumerate(PIPELINES)}
        fixed = [name for name, pipeline in PIPELINES.items() if not pipeline.open]
        for given in pipelines:
            if given not in fixed:
                raise ValueError(f"with_pipeline: pipelines holds {given!r}; allowed: {', '.join(fixed)}")
        chosen = tuple(name for name in fixed if name in pipelines)
        if len(chosen) != len(pipelines) or len(chosen) < 2:
            raise ValueError(
                f"with_pipeline: pipelines is {','.join(pipelines)!r}; "
                f"allowed: two or more, each once, of {', '.join(fixed)}"
            )
        self.pipelines = chosen
        self._fields = _differences([PIPELINES[name] for name in chosen])
        base = f"with_pipeline({inner.name})"
        own = Categorical(
            registry.family(base),
            full_name(base, {} if chosen == _DEFAULT else {"pipelines": ",".join(chosen)}),
            [[places[name] for name in chosen]],
            genes=["pipeline"],
            labels=[{place: name for name, place in places.items()}],
        )
        super().__init__(own, inner)
        clash = self._fields[chosen[0]].keys() & inner.training(_first(inner)).keys()
        if clash:
            raise ValueError(
                f"with_pipeline: pipelines is {','.join(chosen)!r}, which differ in {min(clash)}, a gene of "
                f"{inner.name}; allowed: pipelines that agree in it"
            )

    @classmethod
    def from_options(cls, options: Mapping[str, tuple[str, ...]]) -> WithPipeline:
        """Build from `of` (the inner space, default `multi_branch`) and `pipelines` (names)."""
        check_keys("with_pipeline", options, ("of", "pipelines"))
        (inner,) = options.get("of", ("multi_branch",))
        return cls(registry.space(inner), options.get("pipelines", _DEFAULT))

    def scaled(self, width: float, depth: float) -> WithPipeline:
        """The same pipelines around smaller networks of the inner space; ValueError if it has none."""
        from ...protocols.training.fidelity import scaled

        return WithPipeline(scaled(self.inner, width, depth), self.pipelines)

    def training(self, a: Architecture) -> Mapping[str, Json]:
        """The fields of the chosen pipeline that the other pipelines have otherwise, and those of the inner genes."""
        own, inner = self.split(a)
        return {**self._fields[self.own.label(0, own.genes[0])], **self.inner.training(inner)}

    def features(self, a: Architecture, task: Task) -> Mapping[str, float]:
        """Those of the inner architecture; ValueError unless `a` is a member."""
        self.check(a)
        return self.inner.features(self.split(a)[1], task)

    def build(self, a: Architecture, task: Task) -> nn.Module:
        """The network of the inner architecture; ValueError unless `a` is a member."""
        self.check(a)
        return self.inner.build(self.split(a)[1], task)


def _differences(pipelines: Sequence[Pipeline]) -> dict[str, dict[str, Json]]:
    """Per pipeline the fields in which the pipelines are not all equal."""
    first, *others = every = [asdict(pipeline) for pipeline in pipelines]
    fields = [
        field for field in first if field not in _LABELS and any(other[field] != first[field] for other in others)
    ]
    return {values["name"]: {field: values[field] for field in fields} for values in every}


def _first(space: SearchSpace) -> Architecture:
    """A member: the first by `options`."""
    genes: tuple[int, ...] = ()
    while options := space.options(genes):
        genes = (*genes, options[0])
    return Architecture(space.family, genes)
