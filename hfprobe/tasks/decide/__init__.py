"""Decide between models: train, evaluate, profile and compare them, and write one page with the answer."""
