"""Search strategies, one file each. A file names its strategy, and nothing else, in `__all__`."""
