"""Train a model and push its best epoch to the local hub folder."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.train.cli import main

if __name__ == "__main__":
    run_command(main)
