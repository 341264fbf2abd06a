"""Decide between a small CNN trained from scratch and a linear probe on a frozen pretrained backbone."""

__version__ = "0.1.0"
