"""Write a trained model as ONNX files that answer as the model does, with the preprocessing inside."""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.tasks.export.cli import main

if __name__ == "__main__":
    run_command(main)
