import re
from dataclasses import replace

import pytest

from helpers.models import cat_model
from hfprobe.models.thresholds import Thresholds, find_threshold
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.system.errors import InputError

PLAIN = [
    ChosenThreshold(0.9, 0.0, 400, 400),
    ChosenThreshold(0.95, 0.625, 300, 400),
    ChosenThreshold(0.98, 0.75, 200, 400),
    ChosenThreshold(0.99, None, 0, 400),
]
NONE = [replace(chosen, threshold=None, answered=0) for chosen in PLAIN]
CALIBRATED = [replace(chosen, threshold=chosen.threshold and chosen.threshold / 2) for chosen in PLAIN]


@pytest.fixture
def model():
    model, _ = cat_model()
    Thresholds(PLAIN, CALIBRATED).stamp(model)
    return model


def test_thresholds_are_stored_in_the_config(model):
    assert Thresholds.of(model) == Thresholds(PLAIN, CALIBRATED)
    assert find_threshold(model, 0.95, temperature=False) == 0.625
    assert find_threshold(model, 0.95, temperature=True) == 0.3125


def test_an_accuracy_that_validation_does_not_show_is_refused(model):
    message = (
        "--threshold auto:0.99 has no threshold in this model: its 400 validation images do not show that its answers "
        "reach 99% accuracy. Pass --threshold with one that does (auto:0.9, auto:0.95, auto:0.98) or a number, or "
        "train with more validation images."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        find_threshold(model, 0.99, temperature=False)
    Thresholds(NONE, NONE).stamp(model)
    with pytest.raises(InputError, match=re.escape("Pass --threshold with a number, or train with more validation")):
        find_threshold(model, 0.95, temperature=False)


def test_a_model_without_thresholds_is_refused_with_the_remedy():
    model, _ = cat_model()
    assert Thresholds.of(model) is None
    message = (
        "This model has no thresholds for 'auto': it was not trained by hfprobe. Train it "
        "again, or pass --threshold with a number."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        find_threshold(model, 0.95, temperature=False)


def test_thresholds_for_other_accuracies_are_refused():
    with pytest.raises(ValueError, match=re.escape("the thresholds are for 0.9; allowed: 0.9, 0.95, 0.98, 0.99")):
        Thresholds(PLAIN[:1], CALIBRATED)
