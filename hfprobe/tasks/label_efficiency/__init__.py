"""Accuracy against the number of labelled images."""
