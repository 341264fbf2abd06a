"""Overfit one batch of 32 images: a model that cannot do this has a bug, and the exit code is 1."""
