"""Write the folder of a model for the Hugging Face hub: its files, and a card with the results on test."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.card.cli import main

if __name__ == "__main__":
    run_command(main)
