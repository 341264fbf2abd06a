"""Train the recipe `reference` with weights that are initialised as another reading of its description says.

    python benchmarks/reference_readings.py    # an hour and more on one core; then hfprobe eval --model simple-cnn

The description says "Kaiming normal". The package reads it as: all convolutions and linear layers, by their inputs.
Here, only the convolutions are, by their outputs (`fan_out`), and linear layers have torch's default.
"""

import sys

from torch import nn

from hfprobe.cli.main import main
from hfprobe.models.simple_cnn.modeling import SimpleCNN


def initialise(self: SimpleCNN, module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear | nn.BatchNorm2d):
        module.reset_parameters()


if __name__ == "__main__":
    SimpleCNN._init_weights = initialise  # type: ignore[method-assign]
    sys.argv = ["hfprobe", "train", "--model", "cnn", "--recipe", "reference", *sys.argv[1:]]
    main()
