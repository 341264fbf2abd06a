"""Classify new pictures with a trained model."""
