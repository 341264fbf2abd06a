"""What a budget gives up, and the estimates that it is planned by."""

from dataclasses import dataclass

import pytest

from helpers.images import make_dataset
from hfprobe.system.errors import InputError
from hfprobe.tasks.decide.plan import Rates, StopAtDeadline, estimate, limit_training, make_plan
from hfprobe.tasks.decide.runs import Run

PROBE, CNN = (
    Run("probe-seed42", "linear-probe", {"model": "probe"}, True),
    Run("cnn-seed42", "cnn", {"model": "cnn"}, False),
)
RATES = {
    "probe": Rates(start=1.0, decode=0.01, train=0.02, infer=0.02, epoch=0.0, batch=64),
    "cnn": Rates(start=0.0, decode=0.01, train=0.004, infer=0.001, epoch=0.5, batch=128),
}
COUNTS = {"train": 1000, "validation": 200, "test": 300}
FULL = {"cnn-seed42": 20.0}


@dataclass
class Counted:
    """Images of five classes that were only counted."""

    class_names: tuple[str, ...] = ("a", "b", "c", "d", "e")

    def counts(self):
        return {part: [count // 5] * 5 for part, count in COUNTS.items()}


def estimated(size, epochs):
    counts = COUNTS | {"train": size}
    return estimate([PROBE, CNN], RATES, counts=counts, epochs=epochs, rounds=5, seconds=0.25)


def plan(budget, spent=10.0):
    return make_plan([PROBE, CNN], Counted(), budget=budget, spent=spent, full=FULL, estimated=estimated)


def test_a_stage_takes_its_images_times_its_rate():
    found = estimated(1000, FULL)
    assert list(found) == ["decode", "probe-seed42", "cnn-seed42", "test", "profile", "compare"]
    assert found["decode"] == pytest.approx(1 + 2 * 1500 * 0.01)
    assert found["probe-seed42"] == pytest.approx(1 + 0.02 * 1200)
    assert found["cnn-seed42"] == pytest.approx(20 * (0.004 * 1000 + 0.001 * 200 + 0.5) + 0.2)
    assert estimated(500, FULL)["cnn-seed42"] < found["cnn-seed42"]


def test_without_a_budget_and_with_enough_of_it_nothing_is_given_up():
    for budget in (None, 3600.0):
        found = plan(budget)
        assert (found.epochs, found.max_train_samples, found.gave_up) == (FULL, None, [])


def test_epochs_are_given_up_before_images():
    whole = sum(plan(None).seconds.values())
    found = plan(whole)
    assert 5 <= found.epochs["cnn-seed42"] < 20
    assert found.max_train_samples is None
    assert found.gave_up == [f"cnn is trained for {found.epochs['cnn-seed42']:g} epochs instead of 20."]
    more = {"cnn-seed42": found.epochs["cnn-seed42"] + 1}
    assert 10 + sum(found.seconds.values()) <= 0.9 * whole < 10 + sum(estimated(1000, more).values())


def test_then_images_are_given_up_until_the_plan_fits():
    least = 10 + sum(estimated(1000, {"cnn-seed42": 5}).values())
    found = plan(least)
    assert found.epochs == {"cnn-seed42": 5}
    assert 50 <= found.max_train_samples < 1000
    assert found.gave_up[1] == f"The models are trained on {found.max_train_samples} of the 1,000 training images."
    assert 10 + sum(found.seconds.values()) <= 0.9 * least


def test_a_budget_that_is_too_small_names_the_least_that_would_do():
    with pytest.raises(InputError, match="--budget is 20 s; the least that would do") as error:
        plan(20.0)
    needed = float(str(error.value).split("--budget ")[2].split("s ")[0])
    assert plan(needed).max_train_samples is not None


def test_the_training_images_are_limited_as_by_the_flag_and_the_others_stay():
    import hfprobe

    whole = hfprobe.load_images(make_dataset())
    found = limit_training(whole, 50)
    again = hfprobe.load_images(make_dataset(), max_train_samples=50)
    for part in ("train", "validation", "test"):
        assert found.parts[part]["index"] == again.parts[part]["index"]
    assert found.arguments.max_train_samples == 50


def test_training_stops_before_an_epoch_that_would_end_after_the_deadline(monkeypatch):
    clock = iter([0.0, 4.0, 4.0, 8.0])
    monkeypatch.setattr("hfprobe.tasks.decide.plan.time.perf_counter", lambda: next(clock))
    control = type("Control", (), {"should_training_stop": False})()
    callback = StopAtDeadline(deadline=10.0)
    for expected in (False, True):
        callback.on_epoch_begin(None, None, control)
        callback.on_epoch_end(None, None, control)
        assert control.should_training_stop is expected
