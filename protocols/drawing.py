"""A picture is a value: SVG text that notebooks show."""

from __future__ import annotations


class Drawing(str):
    """One SVG image as text, complete in itself (no scripts, no links); notebooks show it as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)
