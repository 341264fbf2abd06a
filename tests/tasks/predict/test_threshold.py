import re

import numpy as np
import pytest

from hfprobe.system.errors import InputError
from hfprobe.tasks.predict.threshold import parse_threshold


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, (0.5, None)),
        (0, (0, None)),
        ("1", (1, None)),
        (np.float32(0.25), (0.25, None)),
        ("auto", (None, 0.95)),
        ("auto:0.95", (None, 0.95)),
        ("auto:.98", (None, 0.98)),
        ("auto:0.990", (None, 0.99)),
    ],
)
def test_a_threshold_is_a_number_or_auto_with_an_accuracy(value, expected):
    assert parse_threshold(value) == expected


@pytest.mark.parametrize(
    "value", [1.5, -0.1, float("nan"), True, None, "", "Auto", "auto:", "auto:0.97", "auto:95", "0.5:0.9", "auto:nan"]
)
def test_another_threshold_is_refused_with_what_is_allowed(value):
    message = f"--threshold is {value!r}; allowed: 0 to 1, auto, auto:0.9, auto:0.95, auto:0.98, auto:0.99."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        parse_threshold(value)
