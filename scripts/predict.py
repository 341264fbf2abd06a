"""Classify new images with a trained model."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.predict.cli import main

if __name__ == "__main__":
    run_command(main)
