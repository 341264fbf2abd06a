"""Classify new images with a trained model."""
