"""From parts to batches of pixels."""
