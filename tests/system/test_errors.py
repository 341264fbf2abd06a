import errno
import re

import pytest
import torch

from hfprobe.system.errors import InputError, MachineError, find_shortage, raise_problems, settings_instead_of_flags


def test_invalid_input_is_reported_before_a_lack_of_memory_or_disk():
    raise_problems([])
    with pytest.raises(InputError, match=re.escape("(1) a. (2) b.")):
        raise_problems(["a."], ["b."])
    with pytest.raises(MachineError, match=re.escape("b.")):
        raise_problems([], ["b."])


def test_torchs_words_for_too_little_memory_are_known():
    with pytest.raises(RuntimeError) as error:
        torch.empty(10**15)
    assert find_shortage(error.value) == "Out of memory. Pass a smaller batch size, or free memory."


def test_only_an_error_of_the_system_tells_of_a_full_disk():
    error = ValueError("not from the system")
    error.errno = errno.ENOSPC
    assert find_shortage(error) is None
    assert find_shortage(OSError(errno.ENOSPC, "No space")) == "No space. Free some space, and run again."


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("--lr is -1; allowed: more than 0. Pass another --lr.", "lr is -1; allowed: more than 0. Pass another lr."),
        ("--learning_rate/--lr is 0.", "learning_rate/lr is 0."),
        (
            "--hub_dir has none. Train one: hfprobe train --model cnn --lr 0.1. Or pass --model.",
            "hub_dir has none. Train one: hfprobe train --model cnn --lr 0.1. Or pass model.",
        ),
        ("Evaluate both: python scripts/eval.py --model m --report_dir r", None),
        ("'photos--new/a.png' cannot be read: not an image.", None),
    ],
)
def test_errors_of_the_python_api_name_settings_and_leave_commands_as_they_are(message, expected):
    with pytest.raises(InputError) as caught, settings_instead_of_flags():
        raise InputError(message)
    assert str(caught.value) == (expected or message)
