"""From a dataset to normalised batches: sources -> splits -> decoded images -> transforms."""
