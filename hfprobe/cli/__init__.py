"""The command line: parsers, one-line errors, exit codes."""
