"""Every schedule of transformers, with right and wrong settings: it trains, or one line says why not."""

import itertools
import json
import math
import re

import pytest
from transformers.trainer_utils import SchedulerType

from hfprobe.cli.run_flags import parse_run
from hfprobe.models import build_model, find_family
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError
from hfprobe.training.trainer import ProbeTrainer

pytestmark = pytest.mark.hostile
# What a schedule cannot do without.
NEEDED = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-5},
    "warmup_stable_decay": {"num_decay_steps": 1},
    "reduce_lr_on_plateau": {"mode": "max"},
    "greedy": {"mode": "max"},
}
REMEDIES = {
    "cosine_with_min_lr": "One of min_lr or min_lr_rate should be set",
    "cosine_warmup_with_min_lr": "One of min_lr or min_lr_rate should be set",
    "warmup_stable_decay": "missing 1 required positional argument: 'num_decay_steps'. Settings of --lr_sch",
    "reduce_lr_on_plateau": 'Pass --lr_scheduler_kwargs \'{"mode": "max"}\'.',
    "greedy": 'Pass --lr_scheduler_kwargs \'{"mode": "max"}\'.',
}
KINDS = [kind.value for kind in SchedulerType]


@pytest.fixture(scope="module")
def model():
    return build_model("cnn", labels=["a", "b"], options=find_family("cnn").recipe_options())[0]


def rates(model, tmp_path, kind, *, steps, **values):
    """The learning rates of a run of so many steps, and the one after it."""
    config = make_run(
        lr_scheduler_type=kind, lr_scheduler_kwargs=NEEDED.get(kind), output_dir=tmp_path, use_cpu=True, **values
    )
    trainer = ProbeTrainer(model=model, args=config.training, train_dataset=[0], eval_dataset=[0])
    trainer.create_optimizer_and_scheduler(steps)
    found = []
    for _ in range(steps + 1):
        found.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step(*[0.5] * (kind in ("reduce_lr_on_plateau", "greedy")))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_a_schedule_has_finite_rates_in_a_run_of_any_length(model, tmp_path, kind, steps, optimizer):
    found = rates(model, tmp_path, kind, steps=steps, optimizer=optimizer)
    assert all(0 <= rate < math.inf for rate in found)
    assert max(found[:-1]) > 0  # the model is trained, also in a run of one step


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_without_settings_works_or_names_the_one_it_needs(kind):
    argv = ["--lr_scheduler_type", kind, "--epochs", "1"]
    if kind in REMEDIES:
        with pytest.raises(InputError, match=re.escape(REMEDIES[kind])):
            parse_run(argv)
    else:
        assert parse_run(argv).training.lr_scheduler_type == kind


def test_a_warm_up_as_long_as_the_run_is_refused_where_the_schedule_is_undefined(model, tmp_path):
    message = (
        "The schedule multiplies the learning rate at step 5 of 5 by undefined, after a warm-up of 5 steps; allowed: 0 "
        "or more. Change --lr_scheduler_kwargs, or pass fewer --warmup_steps."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        rates(model, tmp_path, "polynomial", steps=5, warmup_steps=5)
    assert rates(model, tmp_path, "linear", steps=5, warmup_steps=5)[4] == pytest.approx(2e-3 * 4 / 5)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        *(
            ("cosine", text, f"--lr_scheduler_kwargs is {text}; allowed: a JSON object, such as \'{{\"name\": 1}}\'.")
            for text in ("{", "[]", "3", "x", "none.json", '{"a"', "{\'num_cycles\': 1}", "null}")
        ),
        ("linear", {"a": 1}, "unexpected keyword argument 'a'. Settings of --lr_scheduler_type linear: none."),
        ("cosine", {"power": 1}, "argument 'power'. Settings of --lr_scheduler_type cosine: num_cycles."),
        ("cosine", {"last_epoch": 1}, "--lr_scheduler_kwargs cannot be used: "),
        ("cosine", {"num_cycles": "x"}, "could not convert string to float: 'x'. Settings of --lr_scheduler_type"),
        ("cosine", {"num_cycles": None}, "--lr_scheduler_kwargs cannot be used: "),
        ("cosine", {"num_cycles": [1]}, "--lr_scheduler_kwargs cannot be used: "),
        ("cosine", '{"num_cycles": 1e999}', "allowed: a JSON object"),
        ("cosine", '{"num_cycles": NaN}', "allowed: a JSON object"),
        ("polynomial", {"lr_end": 1}, "lr_end (1) must be smaller than initial lr (0.002)."),
        ("polynomial", {"lr_end": -1}, "The schedule multiplies the learning rate at step 550 of 1,000 by -249.5"),
        ("polynomial", {"power": -1}, "The schedule multiplies the learning rate at step 1,000 of 1,000 by undefined"),
        ("inverse_sqrt", {"timescale": 0}, "by undefined, after a warm-up of 100 steps"),
        ("inverse_sqrt", {"timescale": -5}, "--lr_scheduler_kwargs cannot be used: "),
        ("reduce_lr_on_plateau", {"mode": "max", "factor": 1}, "Factor should be < 1.0."),
        ("reduce_lr_on_plateau", {"mode": "max", "patience": "x"}, "--lr_scheduler_kwargs cannot be used: "),
        ("reduce_lr_on_plateau", {"mode": 3}, "The plateau schedule has the mode 3, but a good accuracy"),
        ("warmup_stable_decay", {"num_decay_steps": 1, "decay_type": "x"}, "Unknown decay type: x"),
        ("greedy", {"mode": "max", "smooth": True, "window_size": 0}, "--lr_scheduler_kwargs cannot be used: "),
        ("reduce_lr_on_plateau", {"mode": "max", "min_lr": "x"}, "--lr_scheduler_kwargs cannot be used: "),
        ("cosine", {"x" * 5000: 1}, "unexpected keyword argument"),
    ],
)  # fmt: skip
def test_wrong_settings_of_a_schedule(kind, given, message):
    given = given if isinstance(given, str) else json.dumps(given)
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        parse_run(["--lr_scheduler_type", kind, f"--lr_scheduler_kwargs={given}"])
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [0.9, 6, 8, 1000])
def test_a_warm_up_that_does_not_end_is_named_with_the_highest_rate(model, tmp_path, caplog, kind, warmup):
    highest = max(rates(model, tmp_path, kind, steps=7, warmup_steps=warmup, learning_rate=0.02)[:7])
    lines = []
    if highest < 0.02:
        lines = [
            f"The warm-up of {warmup:,} steps does not end within the run of 7 steps: the highest learning rate is "
            f"{highest:.3g} instead of 0.02. Pass fewer --warmup_steps, or a share of the run such as 0.1."
        ]
    assert [line for line in caplog.messages if line.startswith("The warm-up")] == lines
    has_warmup = kind not in ("constant", "reduce_lr_on_plateau", "greedy")
    assert bool(lines) is (has_warmup and warmup >= 7)


def test_schedule_settings_of_a_recipe_are_not_used_for_another_schedule():
    given = {"mode": "max", "factor": 0.5, "patience": 5}

    def settings(*argv):
        return parse_run(["--recipe", "reference", *argv]).training.lr_scheduler_kwargs

    assert settings() == settings("--lr_scheduler_type", "reduce_lr_on_plateau") == given
    for flag, kind in itertools.product(("--lr_scheduler_type", "--lr-scheduler-type"), ("cosine", "polynomial")):
        assert settings(flag, kind) is None
        assert settings(f"{flag}={kind}") is None
    assert settings("--lr_scheduler_type", "cosine", "--lr_scheduler_kwargs", '{"num_cycles": 2}') == {"num_cycles": 2}
    assert make_run(recipe="reference", lr_scheduler_type=SchedulerType.COSINE).training.lr_scheduler_kwargs is None
    own = {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 2}}
    assert make_run(recipe="reference", **own).training.lr_scheduler_kwargs == {"num_cycles": 2}
