"""Performance estimators, one file each. A file names its estimator, and nothing else, in `__all__`."""
