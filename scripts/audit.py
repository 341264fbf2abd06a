"""Look at the images before any model is trained: duplicates, suspect labels and outliers."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.audit.cli import main

if __name__ == "__main__":
    run_command(main)
