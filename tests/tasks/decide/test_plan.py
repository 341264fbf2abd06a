"""What a budget gives up, and the estimates that it is planned by."""

from dataclasses import dataclass

import pytest

from helpers.images import make_dataset
from hfprobe.system.errors import InputError
from hfprobe.tasks.decide.plan import AUDIT_PAGE, REPORT, StopAtDeadline, estimate, limit_images, make_plan
from hfprobe.tasks.decide.runs import Run
from hfprobe.tasks.decide.stage_results import Rates

PROBE, CNN = (
    Run("probe-seed42", "linear-probe", {"model": "probe"}, {"net": {}}, True),
    Run("cnn-seed42", "cnn", {"model": "cnn"}, {"cnn": {}}, False),
)
RATES = {
    "net": Rates(start=1.0, decode=0.01, train=0.02, infer=0.02, batch=64, solve=0.001, audit=0.005),
    "cnn": Rates(start=0.0, decode=0.02, train=0.004, infer=0.001, batch=128, epoch=0.5),
}
COUNTS = {"train": 1000, "validation": 200, "test": 300}
FULL = {"cnn-seed42": 20.0}
HOW = {"rounds": 5, "seconds": 0.25}


@dataclass
class Counted:
    """Images of five classes that were only counted."""

    class_names: tuple[str, ...] = ("a", "b", "c", "d", "e")

    def counts(self):
        return {part: [count // 5] * 5 for part, count in COUNTS.items()}


def estimated(epochs=FULL, **how):
    return estimate([PROBE, CNN], RATES, sizes=COUNTS, epochs=epochs, **HOW, **how)


def plan(budget, spent=10.0):
    return make_plan([PROBE, CNN], Counted(), RATES, budget=budget, spent=spent, full=FULL, **HOW)


def test_a_stage_takes_its_images_times_its_rate():
    found = estimated(ranking=7.0)
    assert list(found) == [
        *("rank", "decode", "extract", "audit", "probe-seed42", "cnn-seed42", "curve", "test", "profile", "compare")
    ]
    assert found["rank"] == 7
    assert found["decode"] == pytest.approx(1500 * 0.02)
    assert found["extract"] == pytest.approx(1 + 0.02 * 1500)
    assert found["audit"] == pytest.approx(1 + AUDIT_PAGE + 0.005 * 1500)
    assert found["probe-seed42"] == pytest.approx(1 + 0.001 * 1000)
    assert found["cnn-seed42"] == pytest.approx(20 * (0.004 * 1000 + 0.001 * 200 + 0.5) + 0.2)
    assert found["test"] == pytest.approx(1 + 2 * REPORT + 0.001 * 300)


def test_a_training_with_few_images_takes_epochs_or_the_least_steps_and_is_given_up_first():
    found = estimated(shots=[10, 1000], classes=5)
    steps = 300 * 50 + 20 * 5000
    assert found["shots"] == pytest.approx(0.004 * steps + 2 * 0.001 * 200)
    total = 10 + sum(found.values())
    how = {"full": FULL, **HOW, "shots": [10, 1000], "classes": 5}
    plan = make_plan([PROBE, CNN], Counted(), RATES, budget=0.99 * total / 0.9, spent=10.0, **how)
    assert plan.left_out == {"shots"}
    assert plan.gave_up == ["No model was trained with few images; hfprobe label-efficiency does it."]


def test_without_a_budget_and_with_enough_of_it_nothing_is_given_up():
    for budget in (None, 3600.0):
        found = plan(budget)
        assert (found.epochs, found.sizes, found.gave_up) == (FULL, COUNTS, [])


def test_the_audit_is_given_up_first_then_the_curve_then_epochs_then_images():
    whole = estimated()
    total = 10 + sum(whole.values())
    without_audit = plan(0.99 * total / 0.9)
    assert without_audit.left_out == {"audit"}
    assert without_audit.gave_up == ["The images were not audited; hfprobe audit does it."]
    total -= whole["audit"]
    assert plan(0.99 * total / 0.9).left_out == {"audit", "curve"}
    total -= whole["curve"]
    fewer_epochs = plan(0.99 * total / 0.9)
    epochs = fewer_epochs.epochs["cnn-seed42"]
    assert 5 <= epochs < 20
    assert fewer_epochs.sizes == COUNTS
    assert fewer_epochs.gave_up[0] == f"cnn is trained for {epochs:g} epochs instead of 20."
    total -= whole["cnn-seed42"] - estimated({"cnn-seed42": 5})["cnn-seed42"]
    fewer_images = plan(0.8 * total / 0.9)
    assert fewer_images.epochs == {"cnn-seed42": 5}
    sizes = fewer_images.sizes
    assert 50 <= sizes["train"] < 1000
    assert sizes["test"] / 300 == pytest.approx(sizes["train"] / 1000, abs=0.01)
    assert fewer_images.gave_up[1] == (
        f"The models see only some of the images: {sizes['train']} of 1,000 train, {sizes['validation']} of 200 "
        f"validation, {sizes['test']} of 300 test images."
    )
    for found, budget in ((fewer_images, 0.8 * total / 0.9), (without_audit, 1e9)):
        assert 10 + sum(found.seconds.values()) <= 0.9 * budget


def test_a_stage_that_is_needed_is_not_given_up():
    total = 10 + sum(estimated().values())
    how = {"full": FULL, **HOW, "kept": ["audit"]}
    found = make_plan([PROBE, CNN], Counted(), RATES, budget=0.99 * total / 0.9, spent=10.0, **how)
    assert found.left_out == {"curve"}
    assert "audit" in found.seconds


def test_a_budget_that_is_too_small_names_the_least_that_would_do():
    with pytest.raises(InputError, match="--budget is 20 s; the least that would do") as error:
        plan(20.0)
    needed = float(str(error.value).split("--budget ")[2].split("s ")[0])
    assert plan(needed).sizes["train"] >= 50


def test_images_are_limited_as_by_the_flags():
    import hfprobe

    whole = hfprobe.load_images(make_dataset())
    found = limit_images(whole, train=50, evaluation=10)
    again = hfprobe.load_images(make_dataset(), max_train_samples=50, max_eval_samples=10)
    for part in ("train", "validation", "test"):
        assert found.parts[part]["index"] == again.parts[part]["index"]
    assert (found.arguments.max_train_samples, found.arguments.max_eval_samples) == (50, 10)
    assert limit_images(whole, train=10**6, evaluation=10**6).arguments == whole.arguments


def test_training_stops_before_an_epoch_that_would_end_after_the_deadline(monkeypatch):
    clock = iter([0.0, 4.0, 4.0, 8.0])
    monkeypatch.setattr("hfprobe.tasks.decide.plan.time.perf_counter", lambda: next(clock))
    control = type("Control", (), {"should_training_stop": False})()
    callback = StopAtDeadline(deadline=10.0)
    for expected in (False, True):
        callback.on_epoch_begin(None, None, control)
        callback.on_epoch_end(None, None, control)
        assert control.should_training_stop is expected
