"""Evaluate a model and write a report."""

COMMAND = "eval"
