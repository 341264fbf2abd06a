"""A setting is one row: a test adds one to a model, and nothing else says anything about it."""

from dataclasses import dataclass, field, replace

import pytest

from helpers.runs import run_record
from hfprobe.cli.run_flags import make_parser, parse_run
from hfprobe.models.simple_cnn import SimpleCNNFamily, SimpleCNNOptions
from hfprobe.settings.files import read_config_file, write_config_file
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError
from hfprobe.system.ranges import Range
from hfprobe.system.setting import GRADIENT_TRAINING, Setting
from hfprobe.training.resume import find_differences


@dataclass
class Options(SimpleCNNOptions):
    sharpness: float = field(
        default=1.0,
        metadata={"help": "Factor on edges.", "row": Setting(range=Range(0, 2), short="sharp", may_differ="a reason")},
    )
    depth: int = field(default=3, metadata={"help": "Layers.", "row": Setting(group=GRADIENT_TRAINING)})


class Family(SimpleCNNFamily):
    name = "sharp"
    Options = Options


@pytest.fixture(autouse=True)
def family(monkeypatch):
    monkeypatch.setattr("hfprobe.models._registered", lambda: (Family(),))


def test_the_row_of_a_new_setting_is_its_flag_its_range_and_its_help(capsys):
    for flag in ("--sharpness", "--sharp"):
        assert parse_run(["--model", "sharp", flag, "1.5"]).model.sharpness == 1.5
    with pytest.raises(InputError, match=r"^--sharpness/--sharp is 3\.0; allowed: 0 to 2\.$"):
        parse_run(["--model", "sharp", "--sharpness", "3"])
    with pytest.raises(InputError, match=r"^sharpness is 'much'; allowed: a number\.$"):
        make_run(model="sharp", sharpness="much")
    assert "Factor on edges." in make_parser("sharp").format_help()


def test_the_row_of_a_new_setting_is_what_a_file_repeats_and_what_resume_compares(tmp_path):
    config = make_run(model="sharp", sharp=0.5, depth=4)
    write_config_file(tmp_path / "config.yaml", config.to_settings())
    assert make_run(**read_config_file(tmp_path / "config.yaml")).model == config.model
    record = run_record(config)
    same = replace(config, model=replace(config.model, sharpness=0.7))
    assert find_differences(record, same, tmp_path) == []
    other = replace(config, model=replace(config.model, depth=5))
    assert find_differences(record, other, tmp_path) == ["--depth was 4, is 5"]


def test_the_group_of_a_new_setting_says_when_it_has_no_effect(monkeypatch):
    monkeypatch.setattr(Options, "ignored_settings", lambda self: {GRADIENT_TRAINING: "a test says so"})
    config = make_run(model="sharp", depth=4)
    assert config.ignored_settings["depth"] == "a test says so"
    assert {"learning_rate", "patience"} <= config.ignored_settings.keys()
    assert "sharpness" not in config.ignored_settings
