"""What evaluation, prediction and profiling share."""

from __future__ import annotations

from transformers import PreTrainedModel

from hfprobe.system.errors import InputError

BATCH_SIZE = 64


def calibration_temperature(model: PreTrainedModel) -> float:
    """The number above 0 that logits are divided by so that probabilities are calibrated; training fits it.

    Raises:
        InputError: the model has none.
    """
    found = getattr(model.config, "calibration_temperature", None)
    if found is None:
        raise InputError("This model has no temperature: hfprobe did not train it. Train it again.")
    return found
