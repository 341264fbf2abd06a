"""Settings from Python: each of its field's type, under its long or its short name, or an error in one line."""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from transformers.debug_utils import DebugOption
from transformers.trainer_utils import SaveStrategy, SchedulerType

from helpers.flags import CASES, PARSERS, attempt, values_for
from hfprobe.settings.run_config import build_run, make_run
from hfprobe.settings.values import check_values
from hfprobe.system.errors import InputError


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "Unknown setting 'epoch'. Did you mean epochs?"),
        ({"dropuot": None}, "Unknown setting 'dropuot'. Did you mean dropout?"),
        ({"--lr": 3}, "Unknown setting '--lr'. Did you mean lr?"),
        ({"no_augment": True}, "Unknown setting 'no_augment'. Did you mean augment?"),
        ({"views": 2}, "views is a setting of the model probe, not of cnn. Leave it out, or pass another model."),
        ({"x" * 5000: 2}, f"Unknown setting '{'x' * 100}...{'x' * 100}'. All settings: hfprobe train "),
        ({"flips": "sometimes"}, "flips is 'sometimes'; allowed: random, alternating."),
        ({"flips": ["random"]}, "flips is ['random']; allowed: random, alternating."),
        ({"optimizer": "muoon"}, "optimizer is 'muoon'; allowed: optim, adam, sgd, muon."),
        ({"model": "vit", "head": "svm"}, "head is 'svm'; allowed: exact, sgd."),
        ({"first_filters": None}, "first_filters is None; allowed: random, principal."),
        ({"save_strategy": "never"}, "save_strategy is 'never'; allowed: no, steps, epoch, best."),
        ({"save_strategy": SchedulerType.COSINE}, "save_strategy is <SchedulerType.COSINE: 'cosine'>; allowed: no, "),
        ({"log_level": "loud"}, "log_level is 'loud'; allowed: detail, debug, info, warning, error, critical, passive"),
        ({"seed": 1.5}, "seed is 1.5; allowed: a whole number."),
        ({"seed": 1.0}, "seed is 1.0; allowed: a whole number."),
        ({"seed": True}, "seed is True; allowed: a whole number."),
        ({"seed": "1"}, "seed is '1'; allowed: a whole number."),
        ({"seed": None}, "seed is None; allowed: a whole number."),
        ({"split_seed": "x"}, "split_seed is 'x'; allowed: a whole number, or none."),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; allowed: a number."),
        ({"lr": "fast"}, "lr is 'fast'; allowed: a number."),
        ({"lr": 10**400}, f"lr is {'1' + '0' * 49}...{'0' * 50}; allowed: a number."),
        ({"lr": float("nan")}, "--learning_rate/--lr is nan; allowed: more than 0, at most 1,000."),
        ({"learning_rate": [1, 2]}, "learning_rate is [1, 2]; allowed: a number."),
        ({"augment": "perhaps"}, "augment is 'perhaps'; allowed: true or false."),
        ({"augment": 1}, "augment is 1; allowed: true or false."),
        ({"classes": []}, "--classes names none; allowed: two classes or more."),
        ({"classes": "cat"}, "classes is 'cat'; allowed: a list of strings, with numbers among them in "
    "quotes, or none."),
        ({"classes": [0, 1]}, "classes is [0, 1]; allowed: a list of strings, with numbers among them in "
    "quotes, or none."),
        ({"classes": {"cat"}}, "classes is {'cat'}; allowed: a list of strings, with numbers among them in "
    "quotes, or none."),
        ({"classes": ["cat", ""]}, "classes has an empty value. Set it to a value, or leave it out."),
        ({"output_dir": ""}, "output_dir has an empty value. Set it to a value, or leave it out."),
        ({"output_dir": "caf\udce9"}, "output_dir is 'caf\\udce9', which has a byte that is not UTF-8. Rename the"),
        ({"output_dir": b"runs"}, "output_dir is b'runs'; allowed: a string, or none."),
        ({"report_to": 3}, "report_to is 3; allowed: a string, or a list of strings, with numbers among them in "),
        ({"lr_scheduler_kwargs": 3}, "lr_scheduler_kwargs is 3; allowed: a dict, or a string, or none."),
        ({"epochs": 0}, "--num_train_epochs/--epochs is 0.0; allowed: more than 0, at most 1,000,000."),
        ({"lr_scale": 0}, "--lr_scale is 0.0; allowed: more than 0, at most 1,000."),
        ({"lr": 1, "learning_rate": 2}, "lr is 1.0 and learning_rate is 2.0: both name one setting. Pass one of them."),
        ({"model": "resnet"}, "Unknown model 'resnet'. Available: cnn"),
        ({"model": None}, "model is None; allowed: a string."),
        ({"recipe": "slow"}, "Unknown recipe 'slow' for model 'cnn'. Available: fast, reference, best, distill."),
        ({"recipe": ["fast"]}, "recipe is ['fast']; allowed: a string, or none."),
        ({"dropout": 1}, "--dropout is 1.0; allowed: 0 or more, less than 1."),
        ({"debug": "x"}, "The settings cannot be used: x is not a valid DebugOption"),
    ],
    ids=lambda value: ascii(value)[:40],
)  # fmt: skip
def test_wrong_values_from_python(values, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}") as refused:
        make_run(**values)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"epochs": 3}, "num_train_epochs", 3.0),
        ({"lr": np.float32(0.5)}, "learning_rate", 0.5),
        ({"lr": Fraction(1, 2)}, "learning_rate", 0.5),
        ({"lr": 1, "learning_rate": 1.0}, "learning_rate", 1.0),
        ({"batch_size": np.int64(3)}, "per_device_train_batch_size", 3),
        ({"deterministic": True}, "full_determinism", True),
        ({"output_dir": Path("x")}, "output_dir", "x"),
        ({"classes": ("cat", "dog")}, "classes", ["cat", "dog"]),
        ({"save_strategy": SaveStrategy.BEST}, "save_strategy", "best"),
        ({"optimizer": np.str_("adam")}, "optimizer", "adam"),
        ({"debug": [DebugOption.UNDERFLOW_OVERFLOW]}, "debug", ["underflow_overflow"]),
        ({"report_to": ["tensorboard"]}, "report_to", ["tensorboard"]),
        ({"lr_scheduler_kwargs": {"mode": "max"}}, "lr_scheduler_kwargs", {"mode": "max"}),
        ({"max_train_samples": None}, "max_train_samples", None),
    ],
)
def test_a_value_becomes_its_fields_type_under_its_long_name(given, name, expected):
    found = check_values(given, model="cnn")
    assert found == {name: expected}
    assert type(found[name]) is type(expected)


@pytest.mark.parametrize(("model", "field"), sorted(CASES))
def test_the_value_that_a_flag_parses_is_the_value_that_python_passes(model, field):
    values = {}
    for text in values_for(model, field):
        argv = [f"--{field}"] if text is None else [f"--{field}={text}"]
        values |= attempt(lambda argv=argv: PARSERS[model].read(argv)) or {}
        for name, value in values.items():
            assert repr(check_values({name: value}, model=model)) == repr({name: value})  # of NaN, too
    # No flag can pass the first two, and no value of the tables fits the last.
    assert values or field in ("parallelism_config", "liger_kernel_config", "debug")


ODD = [
    None,
    True,
    -1,
    10**400,
    10**5000,
    float("inf"),
    1j,
    "",
    "x",
    "\0",
    b"x",
    [],
    [None],
    [[]],
    {},
    {1: 2},
    {"a": object()},
]
ODD += [object(), int, print, np.arange(3), np.array("x"), np.nan, SaveStrategy.BEST, Path("x"), range(3), "9" * 5000]


@pytest.mark.parametrize(("model", "field"), sorted(CASES))
def test_any_python_value_is_taken_or_refused_in_one_line(model, field):
    for value in ODD:
        attempt(lambda value=value: build_run(**{"model": model, field: value}), what=value)
