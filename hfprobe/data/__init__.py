"""Images in, normalised batches out: sources -> splits -> resident arrays -> transforms."""
