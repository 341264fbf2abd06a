"""A decision that is killed at a random moment ends, by the same command, with the same page."""

import re
import shutil
import signal
import threading
import time

import numpy as np
import PIL.Image
import pytest

from faults import harness

pytestmark = pytest.mark.faults

COMMAND = ["photos", "--backbones", "test_byobnet=random", "--epochs", "3"]
KILLS = 10


def write_photos(folder):
    generator = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (folder / name).mkdir(parents=True)
        for count in range(30):
            pixels = generator.integers(100 * number, 100 * number + 150, (40, 50, 3)).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / name / f"{count}.png")


def shorten_stages():
    """Short measurements, so that a kill meets each stage."""
    from hfprobe.models import find_family
    from hfprobe.tasks.decide import measure, rates
    from hfprobe.tasks.profile import measure as profile

    for name in ("cnn", "probe"):
        find_family(name).profile_batch_size = 2
    rates.SECONDS, rates.SAMPLE, rates.SOLVED_IMAGES, rates.STEPS = 0.1, 8, 20, 3
    measure.PROFILE_SECONDS = 0.001
    profile.peak_memory = lambda folder, model, **_: 4 * model.num_parameters() + 1


def without_times(page):
    """The text of a page but for times, what is measured in time, and names of revisions, which hold a time."""
    text = re.sub(r"<section aria-labelledby=\"cost\".*?</section>", "", page.read_text(), flags=re.DOTALL)
    text = re.sub(r"<p>[^<]* classifies [^<]*</p>", "", text)
    text = re.sub(r"[0-9a-f]{40}|@[0-9a-f]{12}", "", text)
    return re.sub(r"\d+(\.\d+)?( |\u00a0|&nbsp;)(s|min)\b", "", text)


def test_a_decision_killed_at_random_moments_ends_with_the_same_page(tmp_path):
    harness.prepare()
    write_photos(tmp_path / "photos")
    folder = tmp_path / "work"
    page = folder / "reports" / "decision-photos" / "decision.html"

    def decide(after=None):
        def before():
            shorten_stages()
            if after is not None:
                timer = threading.Timer(after, harness.kill)
                timer.daemon = True
                timer.start()

        folder.mkdir(exist_ok=True)
        (folder / "photos").is_symlink() or (folder / "photos").symlink_to(tmp_path / "photos")
        return harness.run(folder, COMMAND, before=before, script="decide.py")

    start = time.perf_counter()
    assert decide() == 0, (folder / "log.txt").read_text()[-2000:]
    seconds, expected = time.perf_counter() - start, without_times(page)
    moments = np.random.default_rng(0).uniform(0.5, seconds, KILLS)
    killed = 0
    for moment in moments:
        shutil.rmtree(folder)
        killed += decide(after=moment) == -signal.SIGKILL
        assert decide() == 0, f"killed after {moment:.1f} s: {(folder / 'log.txt').read_text()[-2000:]}"
        assert without_times(page) == expected, f"killed after {moment:.1f} s"
    assert killed  # one may have ended before its moment
