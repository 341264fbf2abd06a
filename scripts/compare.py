"""Compare two or more models on the same images and write one page with the results."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.compare.cli import main

if __name__ == "__main__":
    run_command(main)
