"""A search strategy in a repository of its own."""

from .strategy import Climb

__all__ = ["Climb"]
