"""Classify new images."""
