"""An architecture is a value: the name of a space and a tuple of integers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """One member of a search space.

    >>> a = Architecture("nb201", (3, 3, 1, 0, 4, 2))
    >>> str(a)
    'nb201:3.3.1.0.4.2'
    >>> Architecture.parse(str(a)) == a
    True

    Attributes:
        space: Family name of the space (`mlp`, not its restriction `mlp[hidden=3]`), so that the same
            architecture is the same value in every table and restriction that holds it.
        genes: The encoding; its meaning is the space's.
    """

    space: str
    genes: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.space}:{'.'.join(map(str, self.genes))}"

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read the canonical text form back.

        Raises:
            ValueError: The text is not `SPACE:I.I.I` with integers I >= 0.
        """
        space, colon, genes = text.rpartition(":")  # a space named directly is package.module:attribute
        parts = genes.split(".")
        if not colon or not space or not all(p.isascii() and p.isdigit() for p in parts):
            raise ValueError(f"architecture: {text!r} is not of the form SPACE:I.I.I, for example nb201:3.3.1.0.4.2")
        return cls(space, tuple(map(int, parts)))
