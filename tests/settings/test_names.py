import os
import re

import pytest

from hfprobe.cli.run_flags import parse_runs
from hfprobe.data.arguments import DEFAULT_DATASET
from hfprobe.settings.names import LONGEST, name_dataset, name_model, name_report, name_run
from hfprobe.settings.run_config import make_run


def test_names_of_the_default_dataset_have_no_dataset_in_them():
    assert name_dataset(DEFAULT_DATASET) == ""
    assert name_model("simple-cnn", dataset=DEFAULT_DATASET) == "simple-cnn"
    assert make_run().training.output_dir == "runs/cnn-fast-seed42"
    assert make_run(model="vit", seed=7).training.output_dir == "runs/probe-fast-seed7"
    assert make_run().hub_name == "simple-cnn"


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("photos", "photos"),
        ("photos/", "photos"),
        ("/data/My Photos (2024)", "My-Photos-2024"),
        ("someone/cats_and-dogs", "cats_and-dogs"),
        ("a.b.c", "a-b-c"),
        ("-photos_", "photos"),
        ("Caf\u00e9", "Cafe"),
        ("Cafe\u0301", "Cafe"),
    ],
)
def test_a_dataset_is_named_by_its_last_part_in_plain_letters(dataset, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / dataset.strip("/")
    folder.mkdir(parents=True)
    assert name_dataset(f"{folder}/" if dataset.endswith("/") else str(folder)) == name
    assert name_run("cnn", "fast", dataset=str(folder)) == f"{name}-cnn-fast"


def test_a_hub_id_and_a_file_are_named_too(tmp_path):
    assert name_dataset("someone/images") == "images"
    file = tmp_path / "photos.zip"
    file.touch()
    assert name_dataset(str(file)) == "photos"


def test_the_working_directory_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    assert name_dataset(".") == "photos"
    assert name_dataset("/").startswith("data-")


@pytest.mark.parametrize("one", ["\u5199\u771f", "\u56fe1", "x" * 41, "...", "\u00df", "\U0001f600"])
def test_a_name_that_would_lose_letters_keeps_six_digits_of_its_checksum(one):
    found = name_dataset(f"someone/{one}")
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*-[0-9a-f]{6}", found)
    assert len(found) <= LONGEST
    assert found == name_dataset(f"other/{one}") != name_dataset(f"someone/{one}2")


@pytest.mark.parametrize(
    ("model", "dataset", "name"),
    [
        ("hfprobe/simple-cnn", None, "simple-cnn"),
        ("simple-cnn@0123abc", DEFAULT_DATASET, "simple-cnn-cifar10"),
        ("simple-cnn-photos", DEFAULT_DATASET, "simple-cnn-photos-cifar10"),
        ("simple-cnn-photos", None, "simple-cnn-photos"),
        ("simple-cnn-photos", "someone/photos", "simple-cnn-photos"),
        ("simple-cnn", "someone/photos", "simple-cnn-photos"),
        ("simple-cnn-photos", "someone/others", "simple-cnn-photos-others"),
        ("runs/a/checkpoint-8/", None, "checkpoint-8"),
    ],
)
def test_a_report_is_named_after_the_model_and_another_dataset(model, dataset, name):
    assert name_report(model, dataset=dataset) == name


def test_a_run_and_its_model_have_the_name_of_the_dataset(tmp_path):
    os.makedirs(folder := tmp_path / "photos")
    config = make_run(dataset=str(folder), model="probe", backbone_weights="random")
    assert config.training.output_dir == "runs/photos-probe-fast-seed42"
    assert config.hub_name == "linear-probe-photos"
    runs = parse_runs(["--dataset", str(folder), "--seeds", "2"])
    assert [run.training.output_dir for run in runs] == [f"runs/photos-cnn-fast-seed{seed}" for seed in (42, 43)]
    runs = parse_runs(["--dataset", str(folder), "--seeds", "2", "--output_dir", "mine"])
    assert [run.training.output_dir for run in runs] == ["mine/seed42", "mine/seed43"]
    assert "output_dir" not in config.to_settings()
