"""From rows to the parts train, validation and test."""
