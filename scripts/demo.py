"""Try trained models on a local page: one picture, the answers of all models side by side."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.demo.cli import main

if __name__ == "__main__":
    run_command(main)
