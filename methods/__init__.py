"""The three dimensions of the survey: spaces, strategies, estimators. One file, one method."""
