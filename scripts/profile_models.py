"""Measure throughput, latency, memory, multiply-accumulates and operators of models."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.profile.cli import main

if __name__ == "__main__":
    run_command(main)
