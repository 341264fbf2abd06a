"""Decide between models: train, evaluate, profile and compare them, and write one page with the answer."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.decide.cli import main

if __name__ == "__main__":
    run_command(main)
