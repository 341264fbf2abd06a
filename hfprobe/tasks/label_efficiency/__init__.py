"""Measure accuracy against training images per class, for a CNN from scratch and for a linear probe."""
