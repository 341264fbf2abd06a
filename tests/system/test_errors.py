import re

import pytest

from hfprobe.system.errors import InputError, MachineError, refuse


def test_wrong_input_comes_before_a_lacking_machine():
    refuse([])
    with pytest.raises(InputError, match=re.escape("(1) a. (2) b.")):
        refuse(["a."], ["b."])
    with pytest.raises(MachineError, match=re.escape("b.")):
        refuse([], ["b."])
