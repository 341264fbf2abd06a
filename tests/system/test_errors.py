import errno
import re

import pytest
import torch

from hfprobe.system.errors import InputError, MachineError, find_shortage, refuse


def test_invalid_input_is_reported_before_a_lack_of_memory_or_disk():
    refuse([])
    with pytest.raises(InputError, match=re.escape("(1) a. (2) b.")):
        refuse(["a."], ["b."])
    with pytest.raises(MachineError, match=re.escape("b.")):
        refuse([], ["b."])


def test_torchs_words_for_too_little_memory_are_known():
    with pytest.raises(RuntimeError) as error:
        torch.empty(10**15)
    assert find_shortage(error.value) == "Out of memory. Pass a smaller batch size, or free memory."


def test_only_an_error_of_the_system_tells_of_a_full_disk():
    error = ValueError("not from the system")
    error.errno = errno.ENOSPC
    assert find_shortage(error) is None
    assert find_shortage(OSError(errno.ENOSPC, "No space")) == "No space. Free some space, and run again."
