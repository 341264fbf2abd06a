import logging
import re
import time

import pytest
from tqdm import tqdm

from hfprobe.system import progress
from hfprobe.system.machine import quiet_libraries
from hfprobe.system.progress import has_bars, show_progress


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "hfprobe")
    return lambda: [re.sub(r"\d+ s", "T s", message) for message in caplog.messages]


def test_stage_logs_a_line_at_its_start_and_its_end(lines):
    with show_progress(total=20_000, desc="Decoding train images", unit="image", initial=5000) as bar:
        for _ in range(15_000):
            bar.update()
    assert lines() == [
        "Decoding train images: 5,000 of 20,000 (25 %), T s",
        "Decoding train images: 20,000 of 20,000 (100 %), T s",
    ]


def test_long_stage_logs_lines_regularly_even_during_a_long_update(lines, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.02)
    with show_progress(total=3, desc="Label efficiency", unit="point") as bar:
        bar.update()
        bar.set_postfix_str("cnn, 10 per class, seed 42")
        while len(lines()) < 4:
            time.sleep(0.01)
        bar.update(2)
    told = lines()
    assert told[0] == "Label efficiency: 0 of 3 (0 %), T s"
    assert set(told[1:-1]) == {"Label efficiency: 1 of 3 (33 %), T s (cnn, 10 per class, seed 42)"}
    assert told[-1] == "Label efficiency: 3 of 3 (100 %), T s"
    time.sleep(0.05)
    assert lines() == told


def test_inner_stage_and_failed_stage_log_no_last_line(lines):
    with show_progress(total=3, desc="Solving", unit="penalty", inner=True) as bar:
        bar.update()
    assert lines() == []
    with pytest.raises(ValueError, match="wrong"), show_progress(total=0, desc="Decoding", unit="image"):
        raise ValueError("wrong")
    assert lines() == ["Decoding: 0 of 0 (0 %), T s"]


@pytest.mark.parametrize(
    ("terminal", "bars", "expected"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_bars_are_drawn_on_terminals_only_and_can_be_disabled(monkeypatch, terminal, bars, expected):
    monkeypatch.setenv("TQDM_DISABLE", "1")  # set, so that it is restored
    monkeypatch.delenv("TQDM_DISABLE")
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    quiet_libraries(bars=bars)
    assert has_bars() is expected
    bar = show_progress(total=3, desc="Decoding", unit="image", inner=True)
    assert isinstance(bar, tqdm if expected else progress.Lines)
