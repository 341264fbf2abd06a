"""Compare evaluations."""
