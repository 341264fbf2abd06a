"""Train a model and push its best epoch to the local hub folder."""
