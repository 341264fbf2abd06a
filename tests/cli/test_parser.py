import re

import pytest

from hfprobe.cli.parser import Parser
from hfprobe.system.errors import InputError


def test_unknown_flag_offers_the_nearest():
    parser = Parser(prog="scripts/x.py")
    parser.add_argument("--split")
    expected = "Unknown argument '--spilt'. Did you mean --split? All flags: scripts/x.py --help"
    with pytest.raises(InputError, match=re.escape(expected)):
        parser.parse_args(["--spilt=test"])
