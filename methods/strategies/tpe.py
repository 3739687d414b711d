"""The tree-structured Parzen estimator."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...protocols import Architecture, Observation, Proposal, SearchSpace

if TYPE_CHECKING:
    import optuna

__all__ = ["TPE"]


class TPE:
    """Tree-structured Parzen estimator of Bergstra et al. (2011, section 4), by Optuna's `TPESampler`.

    >>> from nasbed.methods.spaces.synthetic import Synthetic
    >>> from nasbed.protocols import Observation
    >>> space = Synthetic(genes=4, values=3)
    >>> search = TPE(space, seed=0)
    >>> scores = []
    >>> for _ in range(60):
    ...     [proposal] = search.ask()
    ...     scores.append(space.truth(proposal.architecture))
    ...     search.tell([Observation(proposal, scores[-1])])
    >>> max(scores) == space.truth(space.optimum())
    True

    The observations are split into the best min(ceil(0.1 n), 25) and the rest; of `n_ei_candidates` draws
    from the density l of the good ones, the one with the largest l/g is proposed. Every gene is a
    categorical parameter, named after its position and the options it has there, because Optuna does not
    let the choices of a parameter change: on a conditional space a gene learns from the trials that
    had the same options at the same place. TPE may propose an architecture again.

    The default is the paper's independent estimator per gene; Optuna 5 models genes jointly unless told
    otherwise, which here is `multivariate=True`, with `group=True` for conditional spaces. The trace is
    that of bare Optuna with the same seed and the same settings.

    A failed evaluation, or a score that is not finite, is a failed trial, which the densities leave out.
    What was not asked for is added to the trials if it is a member of the space. What is never told stays
    a running trial, which `constant_liar` counts among the bad ones and otherwise nothing sees.

    Args:
        space: Where to search.
        seed: Of Optuna's sampler, >= 0; from 2^32 on, which is beyond Optuna's range, it is hashed.
        n_startup_trials: Random proposals until this many trials have succeeded.
        n_ei_candidates: Candidates drawn from l per proposal.
        multivariate: One joint density instead of one per gene.
        group: With `multivariate`, one joint density per group of genes that occur together.
        constant_liar: Penalise what has been asked and not yet told; matters for batches only.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: A count is not positive, or `group` without `multivariate`.
    """

    libraries: ClassVar[tuple[str, ...]] = ("optuna",)

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        n_startup_trials: int = 10,
        n_ei_candidates: int = 24,
        multivariate: bool = False,
        group: bool = False,
        constant_liar: bool = True,
    ) -> None:
        if n_startup_trials < 0:
            raise ValueError(f"n_startup_trials: {n_startup_trials} is not allowed; use an integer >= 0")
        if n_ei_candidates < 1:
            raise ValueError(f"n_ei_candidates: {n_ei_candidates} is not allowed; use an integer >= 1")
        if group and not multivariate:
            raise ValueError("group: True is not allowed without multivariate; use multivariate=True as well")
        try:
            import optuna
        except ImportError as error:
            raise ImportError('tpe needs Optuna: pip install "nasbed[optuna]"') from error
        with warnings.catch_warnings():
            # multivariate, group and constant_liar are or were "experimental"; whoever sets them knows.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=seed if seed < 2**32 else int(np.random.SeedSequence(seed).generate_state(1)[0]),
                n_startup_trials=n_startup_trials,
                n_ei_candidates=n_ei_candidates,
                multivariate=multivariate,
                group=group,
                constant_liar=constant_liar,
            )
        # Only the creation of a study is logged, so the user's verbosity is lowered for no more than that.
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
        try:
            self._study = optuna.create_study(study_name="nasbed", sampler=sampler, direction="maximize")
        finally:
            optuna.logging.set_verbosity(verbosity)
        self._space = space
        self._running: dict[Architecture, deque[optuna.Trial]] = {}

    def ask(self, n: int = 1) -> Sequence[Proposal]:
        """Give n architectures."""
        return [Proposal(self._suggest()) for _ in range(n)]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Finish the trials that were asked for, the oldest first, and add the others that are members."""
        from optuna.distributions import CategoricalDistribution
        from optuna.trial import TrialState, create_trial

        for o in observations:
            a = o.proposal.architecture
            ok = o.status == "ok" and math.isfinite(o.score)
            if running := self._running.get(a):
                trial = running.popleft()
                self._study.tell(trial, o.score if ok else None, None if ok else TrialState.FAIL)
            elif ok and self._holds(a):
                genes = {_name(t, options): (g, options) for t, g, options in self._walk(a)}
                self._study.add_trial(
                    create_trial(
                        value=o.score,
                        params={name: g for name, (g, _) in genes.items()},
                        distributions={name: CategoricalDistribution(v) for name, (_, v) in genes.items()},
                    )
                )

    def _suggest(self) -> Architecture:
        trial = self._study.ask()
        genes: tuple[int, ...] = ()
        while options := self._space.options(genes):
            genes = (*genes, trial.suggest_categorical(_name(len(genes), options), options))
        a = Architecture(self._space.family, genes)
        self._running.setdefault(a, deque()).append(trial)
        return a

    def _walk(self, a: Architecture) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        for t, gene in enumerate(a.genes):
            yield t, gene, self._space.options(a.genes[:t])

    def _holds(self, a: Architecture) -> bool:
        try:
            self._space.check(a)
        except ValueError:
            return False
        return True


def _name(position: int, options: tuple[int, ...]) -> str:
    return f"{position}:{','.join(map(str, options))}"
