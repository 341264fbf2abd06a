"""Measure accuracy against training images per class, for a CNN from scratch and for a linear probe."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.label_efficiency.cli import main

if __name__ == "__main__":
    run_command(main)
