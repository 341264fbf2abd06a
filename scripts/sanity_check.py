"""Overfit one batch of 32 images: a model that cannot do this has a bug, and the exit code is 1."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.sanity_check.cli import main

if __name__ == "__main__":
    run_command(main)
