"""Search spaces, one file each. A file names its space, and nothing else, in `__all__`."""
