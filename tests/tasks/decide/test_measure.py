"""The road of a decision on tiny images: from a folder to the page, and the same command again."""

import json
import sys
from functools import partial

import numpy as np
import PIL.Image
import pytest

import hfprobe.tasks.decide.measure as decide
from hfprobe.cli import main as console
from hfprobe.models import find_family
from hfprobe.tasks.decide.result import Decision
from hfprobe.tasks.profile import measure as profile

PROBE = ["--backbone", "test_byobnet", "--backbone_weights", "random"]
QUICK = ["decide", "photos", *PROBE, "--epochs", 1]

pytestmark = pytest.mark.usefixtures("narrow_network")


def write_photos(folder, *, per_class=20):
    """Two classes of noise, one darker than the other."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (folder / name).mkdir(parents=True)
        for count in range(per_class):
            pixels = generator.integers(100 * number, 100 * number + 150, (8, 8, 3)).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / name / f"{count}.png")
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, caplog):
    """Run a console command in this process, in an empty folder; its standard output."""
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    for name in ("cnn", "probe"):
        monkeypatch.setattr(find_family(name), "profile_batch_size", 2)
    timing = profile.time_in_turn
    monkeypatch.setattr(profile, "time_in_turn", lambda steps, **how: timing(steps, **how | {"seconds": 0.001}))
    monkeypatch.setattr(profile, "peak_memory", lambda folder, model, **_: 4 * model.num_parameters() + 1)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["hfprobe", *map(str, words)])
        caplog.clear()
        console.run()
        return capsys.readouterr().out

    return call


def stage_lines(caplog):
    """The progress lines of the stages, without the line of the plan."""
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("decide.stages")]
    return [line for line in lines if not line.startswith("Planned")]


def test_one_command_trains_compares_and_answers_and_the_same_command_repeats_nothing(
    run, tmp_path, caplog, monkeypatch
):
    out = run(*QUICK)
    lines = stage_lines(caplog)
    assert [line.split(":")[0] for line in lines] == [
        f"{number} of {len(lines)}" for number in range(1, len(lines) + 1)
    ]
    sentences = out.strip().splitlines()
    assert sentences[-2] == "Page:    reports/decision-photos/decision.html (open it in a browser)"
    assert sentences[-1].startswith("Predict: ")
    folder = tmp_path / "reports" / "decision-photos"
    decision = Decision.load(folder)
    assert decision.sentences == sentences[:3]
    assert list(decision.candidates) == ["linear-probe-photos", "simple-cnn-photos"]
    assert decision.judgement.n == 8
    page = (folder / "decision.html").read_text()
    for part in ("probe-seed42/report.html", "comparison/comparison.html"):
        assert (folder / part).is_file()
    assert decision.sentences[0].split(":")[0] in page

    for name in ("run_training", "evaluate_images", "profile_models"):
        monkeypatch.setattr(decide, name, partial(pytest.fail, f"{name} was called"))
    assert run(*QUICK) == out
    assert Decision.load(folder).judgement == decision.judgement
    assert sum("finished before" in line for line in stage_lines(caplog)) >= 4
    assert json.loads((folder / "stages.json").read_text()).keys() >= {"probe-seed42", "cnn-seed42", "test", "profile"}
