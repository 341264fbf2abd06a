import re

import pytest

from helpers.picture_folders import load, write_pictures
from hfprobe.system.errors import InputError


def test_classes_are_checked_with_the_nearest_name(tmp_path):
    photos = write_pictures(tmp_path / "photos", count=10)
    for wrong, right in (("Cat", "cat"), ("dogs", "dog")):
        expected = f"Unknown class '{wrong}'. Did you mean '{right}'? The dataset has: cat, dog. Choose with --classes."
        with pytest.raises(InputError, match=re.escape(expected)):
            load(photos, classes=[wrong, "dog" if right == "cat" else "cat"])
