import re

import pytest

from hfprobe.system.errors import InputError, MachineError, refuse


def test_invalid_input_is_reported_before_a_lack_of_memory_or_disk():
    refuse([])
    with pytest.raises(InputError, match=re.escape("(1) a. (2) b.")):
        refuse(["a."], ["b."])
    with pytest.raises(MachineError, match=re.escape("b.")):
        refuse([], ["b."])
