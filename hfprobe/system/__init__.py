"""The base of all other subpackages: errors, files, processes, the machine."""
