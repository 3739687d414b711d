"""Precomputed tables: the format, opening, building, verifying. Opening one needs no torch."""

from .format import write_table
from .synthetic import write_synthetic_table
from .table import MappedTable, embedded, find, open_table

__all__ = ["MappedTable", "embedded", "find", "open_table", "write_synthetic_table", "write_table"]
