"""Classify new pictures."""

import hfprobe.cli.interruptible  # noqa: F401, I001  (first: from here on Ctrl-C is one line)
from hfprobe.cli.predict import main
from hfprobe.cli.command import run_command

if __name__ == "__main__":
    run_command(main)
