from helpers.names import AWFUL_MODELS, letters, rows, shown
from helpers.results import profile_of
from hfprobe.tasks.profile.page import write_profile


def test_names_with_markup_are_text_in_the_profile(tmp_path):
    profile = profile_of(**{name: (1000, 1.0) for name in AWFUL_MODELS})
    table = rows(write_profile(profile, tmp_path).read_text())
    assert [letters(row[0]) for row in table if row[1] in ("1", "64", "64 (default)")] == [
        shown(name) for name in AWFUL_MODELS for _ in range(2)
    ]
    assert [row for row in table if row[0] == "a`b|c"] == 4 * [["a`b|c", "50.0\u00a0%", "2"]]
