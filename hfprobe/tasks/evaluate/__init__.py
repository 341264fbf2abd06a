"""Evaluate a model and write its report."""
