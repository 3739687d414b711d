"""Auditing estimators, pipelines and one-shot models: arrays in, frozen results out; figures never compute."""
