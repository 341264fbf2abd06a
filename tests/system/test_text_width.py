import pytest

from hfprobe.system.text_width import cut_text, text_width


@pytest.mark.parametrize(("text", "width"), [("", 0), ("cat", 3), ("猫", 2), ("cafe\u0301", 4), ("a\u200bb", 2)])
def test_width_is_that_of_a_terminal(text, width):
    assert text_width(text) == width


@pytest.mark.parametrize(
    "text", ["short", "a long text without wide characters", "猫" * 30, "e\u0301" * 40, "a\nb" * 20]
)
def test_a_cut_text_has_at_most_the_width_and_keeps_both_ends(text):
    cut = cut_text(text, 16)
    assert text_width(cut) <= 16
    if cut != text:
        assert "..." in cut
        assert cut[0] == cut_text(text, 1000)[0]
        assert cut[-1] == cut_text(text, 1000)[-1]
