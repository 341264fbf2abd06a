"""Evaluate a model and write a report."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.evaluate.cli import main

if __name__ == "__main__":
    run_command(main)
