import re

import pytest

from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError


@pytest.mark.parametrize(
    ("variables", "flags", "expected"),
    [
        ({}, {}, (False, None, None)),
        ({"BACKEND": "NO"}, {}, (False, None, None)),
        ({"BACKEND": "INDUCTOR", "MODE": "default"}, {}, (True, "inductor", None)),
        ({"BACKEND": "inductor", "MODE": "max-autotune"}, {}, (True, "inductor", "max-autotune")),
        ({"BACKEND": "INDUCTOR"}, {"torch_compile_backend": "eager"}, (True, "eager", None)),
    ],
)
def test_the_compiler_of_the_environment_is_a_setting_of_the_run(monkeypatch, variables, flags, expected):
    for name, value in variables.items():
        monkeypatch.setenv(f"ACCELERATE_DYNAMO_{name}", value)
    training = make_run(**flags).training
    assert (training.torch_compile, training.torch_compile_backend, training.torch_compile_mode) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"use_seedable_sampler": False}, "--accelerator_config sets use_seedable_sampler to false: the order of the"),
        ({"gradient_accumulation_kwargs": {"num_steps": 2}}, "Pass --gradient_accumulation_steps instead."),
    ],
)
def test_settings_of_accelerate_that_a_run_cannot_have_are_refused(given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make_run(accelerator_config=given)
